"""Categories: ratios, adjacent categories, nominal and scale effects, and multinomial responses."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import ArgumentError, DataError, FormulaError, NotAvailableError, OptionError, SeparationWarning

N, GROUPS = 500, 20
ORDINAL = ("cumulative", "sratio", "cratio", "acat")
# Two searches that stop where the deviance changes by less than 1e-9: sqrt(1e-9) standard errors, here of .3 at most.
TIGHT = 1e-5


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    g, x = rng.integers(0, GROUPS, N), rng.normal(size=N)
    u = rng.normal(scale=0.7, size=(GROUPS, 2))[g]
    z = np.column_stack([np.zeros(N), 0.4 + 0.8 * x + u[:, 0], -0.3 - 0.5 * x + u[:, 1]])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    kind = np.array(["a", "b", "c"])[(rng.uniform(size=N)[:, None] > p.cumsum(axis=1)[:, :-1]).sum(axis=1)]
    latent = 0.9 * x + u[:, 0] + rng.logistic(size=N)
    grade = pd.Categorical.from_codes(
        np.digitize(latent, [-1.5, 0.2, 1.6]), ["none", "low", "mid", "high"], ordered=True
    )
    return pd.DataFrame({"kind": kind, "grade": grade, "x": x, "z": rng.normal(size=N), "g": g.astype(str)})


# ---- ordered ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ORDINAL)
def test_columns_that_depend_on_others_and_a_constant_are_dropped(data, family):
    twice = data.assign(twice=2 * data["x"] - 1, one=1.0)
    m = rf.fit("grade ~ x + twice + (1 | g)", twice, family=family, scale="~ z + one")
    plain = rf.fit("grade ~ x + (1 | g)", twice, family=family, scale="~ z")
    assert (m.npar, m.loglik) == (plain.npar, pytest.approx(plain.loglik, abs=1e-9))
    table = m.tidy().set_index("term")
    assert table["estimate"][["twice", "one"]].isna().all()
    assert_allclose(table["std_error"].drop(["twice", "one"]), plain.tidy()["std_error"], rtol=1e-6)
    assert_allclose(m.predict(twice, type="probs"), plain.predict(twice, type="probs"), atol=1e-9)
    assert "twice, scale.one" in next(n.text for n in m.messages if n.code == "columns_dropped")


@pytest.mark.parametrize("link", ["logit", "cloglog"])
def test_stopping_ratios_are_binary_models_of_every_step(data, link):
    m = rf.fit("grade ~ x + (1 | g)", data, family="sratio", link=link)
    code = data["grade"].cat.codes.to_numpy()
    steps = [data.assign(cut=str(j), stops=(code == j) * 1)[code >= j] for j in range(3)]
    b = rf.fit("stops ~ 0 + cut + x + (1 | g)", pd.concat(steps), family="binomial", link=link)
    assert m.loglik == pytest.approx(b.loglik, abs=1e-7)
    assert m.params["x"] == pytest.approx(-b.params["x"], abs=TIGHT)
    assert_allclose(m.coefficients("threshold"), b.params[["cut0", "cut1", "cut2"]], atol=TIGHT)
    assert m.varcorr()["g"].sd[0] == pytest.approx(b.varcorr()["g"].sd[0], abs=1e-5)
    assert_allclose(m.vcov().loc["x", "x"], b.vcov().loc["x", "x"], rtol=1e-4)  # difference quotients of gradients


def test_ratios_in_opposite_directions_agree_where_the_link_is_symmetric(data):
    s, c = (rf.fit("grade ~ x + (1 | g)", data, family=f, link="probit") for f in ("sratio", "cratio"))
    assert s.loglik == pytest.approx(c.loglik, abs=1e-7)
    reverse = data.assign(grade=data["grade"].cat.reorder_categories(["high", "mid", "low", "none"], ordered=True))
    a, b = (rf.fit("grade ~ x + (1 | g)", d, family="acat") for d in (data, reverse))
    assert a.loglik == pytest.approx(b.loglik, abs=1e-7)
    assert a.params["x"] == pytest.approx(-b.params["x"], abs=TIGHT)


def test_adjacent_categories_are_a_multinomial_model_with_proportional_slopes(data):
    m = rf.fit("grade ~ x", data, family="acat", nominal="~ z")
    p, cuts = np.asarray(m.predict(type="probs")), np.asarray(m.coefficients("threshold"))
    odds = np.log(p[:, 1:] / p[:, :-1])
    expected = m.params["x"] * data["x"].to_numpy()[:, None] - cuts[:3] - data["z"].to_numpy()[:, None] * cuts[3:]
    assert_allclose(odds, expected, atol=1e-10)


@pytest.mark.parametrize("family", ORDINAL)
def test_nominal_effects_of_two_categories_are_effects(data, family):
    two = data.assign(grade=np.where(data["grade"] > "low", "yes", "no"))
    formula = "ordered(grade, levels=c('no', 'yes'))"
    m = rf.fit(f"{formula} ~ x + (1 | g)", two, family=family, nominal="~ z")
    b = rf.fit("grade ~ x + z + (1 | g)", two, family="binomial")
    assert m.loglik == pytest.approx(b.loglik, abs=1e-7)
    assert m.params["x"] == pytest.approx(b.params["x"], abs=TIGHT)
    assert m.coefficients("threshold")["no|yes.z"] == pytest.approx(-b.params["z"], abs=TIGHT)


def test_levels_that_are_listed_are_an_order(data):
    """As in R, where clm takes a factor; levels nobody wrote down are no order."""
    words, levels = data.assign(grade=data["grade"].astype(str)), "levels=c('none', 'low', 'mid', 'high')"
    m = rf.fit(f"factor(grade, {levels}) ~ x", words, family="clm")
    assert m.design.categories == ("none", "low", "mid", "high")
    assert m.loglik == rf.fit(f"ordered(grade, {levels}) ~ x", words, family="clm").loglik
    with pytest.raises(DataError, match=r"without an order.*levels=c\('high', 'low', 'mid', 'none'\)"):
        rf.fit("factor(grade) ~ x", words, family="clm")
    numbers = data.assign(grade=data["grade"].cat.codes + 1)  # which have one
    assert rf.fit("factor(grade) ~ x", numbers, family="clm").loglik == m.loglik


@pytest.mark.parametrize("family", ORDINAL)
@pytest.mark.parametrize("arrangement", ["symmetric", "symmetric2", "equidistant"])
def test_arrangements_of_thresholds_are_nested(data, family, arrangement):
    free, tied = (rf.fit("grade ~ x + (1 | g)", data, family=family, threshold=t) for t in ("flexible", arrangement))
    assert tied.npar == free.npar - (2 if arrangement == "symmetric2" else 1)
    assert tied.loglik < free.loglik
    table = str(rf.anova(tied, free))
    assert "not tested" not in table
    assert f"; threshold {arrangement}" in table
    assert_allclose(np.asarray(tied.predict(type="probs")).sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("held", [{"none|low": 1.5}, {"mid|high": -1.0}, {"none|low": 0.2, "low|mid": 0.4}])
def test_thresholds_are_held_where_the_others_would_start(data, held):
    """Where the held ones leave no place for the starts of the others, these make way."""
    m = rf.fit("grade ~ x + (1 | g)", data, family="cumulative", fixed=held)
    assert m.converged
    cuts = m.coefficients("threshold")
    assert {name: cuts[name] for name in held} == held
    assert (np.diff(np.asarray(cuts)) > 0).all()
    prior = {name: rf.prior.normal(value, 1e-5) for name, value in held.items()}
    near = rf.fit("grade ~ x + (1 | g)", data, family="cumulative", prior=prior)
    # A score of about 1,000 moves what has the prior by 1,000 x 1e-10, and the log-likelihood by 1,000 times that.
    assert m.loglik == pytest.approx(near.loglik, abs=1e-3)
    assert m.params["x"] == pytest.approx(near.params["x"], abs=1e-5)


@pytest.mark.parametrize("asked", [{"fixed": {"none|low": 1.0, "low|mid": 0.5}}, {"equal": [("none|low", "low|mid")]}])
def test_thresholds_that_cannot_rise_are_refused(data, asked):
    with pytest.raises(OptionError, match="thresholds rise from category to category"):
        rf.fit("grade ~ x", data, family="cumulative", **asked)
    with pytest.raises(OptionError, match="thresholds rise"):
        rf.fit("grade ~ x", data, family="cumulative", threshold="equidistant", fixed={"spacing": -0.5})


@pytest.mark.parametrize(("categories", "middle"), [(4, [0.0]), (5, [])])
def test_thresholds_symmetric_about_zero(categories, middle):
    rng = np.random.default_rng(8)
    y = np.digitize(rng.logistic(size=300), np.linspace(-1.5, 1.5, categories - 1))
    m = rf.fit("y ~ 1", {"y": y}, family="cumulative", threshold="symmetric2")
    p = np.asarray(m.predict(type="probs"))[0]
    assert_allclose(p, p[::-1], rtol=1e-12)
    both = np.bincount(y) + np.bincount(y)[::-1]  # the estimates are the shares of either side, pooled
    assert_allclose(p, both / both.sum(), atol=TIGHT)
    spacing = np.asarray(m.coefficients("threshold"))
    cuts = np.log(p.cumsum()[:-1] / (1 - p.cumsum()[:-1]))
    assert_allclose(cuts, [*-spacing[::-1], *middle, *spacing], atol=1e-9)
    symmetric = rf.fit("y ~ 1", {"y": y}, family="cumulative", threshold="symmetric")
    assert "not tested" not in str(rf.anova(m, symmetric))


def test_two_categories_have_one_threshold(data):
    yes = data.assign(yes=data["grade"] > "low")
    plain = rf.fit("yes ~ x + (1 | g)", yes, family="cumulative")
    for arrangement in ("symmetric", "equidistant"):
        m = rf.fit("yes ~ x + (1 | g)", yes, family="cumulative", threshold=arrangement)
        assert (m.npar, m.loglik) == (plain.npar, pytest.approx(plain.loglik, abs=1e-9))
    with pytest.raises(OptionError, match="one threshold between two categories at 0"):
        rf.fit("yes ~ x + (1 | g)", yes, family="cumulative", threshold="symmetric2")


@pytest.mark.parametrize("family", [*ORDINAL, "multinomial"])
def test_categories_without_rows_are_told(data, family):
    levels = ["none", "low", "mid", "high", "higher"]
    declared = data.assign(grade=pd.Categorical(data["grade"].astype(str).replace("mid", "low"), levels, ordered=True))
    note = next(n for n in rf.fit("grade ~ x", declared, family=family).messages if n.code == "categories_absent")
    assert note.evidence == {"absent": ["mid", "higher"], "categories": ["none", "low", "high"]}
    assert "no row has the categories 'mid', 'higher'" in note.text


def test_whole_numbers_are_categories_whether_or_not_rows_miss_one(data):
    code = data["grade"].cat.codes.to_numpy()
    gappy = data.assign(grade=np.where(np.arange(N) == 7, np.nan, code))
    m = rf.fit("grade ~ x", gappy, family="cumulative")
    assert list(m.coefficients("threshold").index) == ["0|1", "1|2", "2|3"]


@pytest.mark.parametrize("family", ["cumulative", "binomial"])
def test_new_responses_go_by_the_categories_of_the_fit(data, family):
    response = data["grade"] if family != "binomial" else pd.Categorical(np.where(data["grade"] > "low", "yes", "no"))
    used = data.assign(grade=response)
    m = rf.fit("grade ~ x + (1 | g)", used, family=family)
    levels = list(used["grade"].cat.categories)
    backwards = pd.Categorical(used["grade"].astype(str), levels[::-1], ordered=True)
    for column in (used["grade"].astype(str), backwards):
        assert_allclose(m.augment(used.assign(grade=column))["residual"], m.residuals(), atol=1e-12)
    with pytest.raises(DataError, match=r"'odd' is no category of the fit.*row 3"):
        m.augment(used.assign(grade=np.where(np.arange(N) == 3, "odd", used["grade"].astype(str))))


@pytest.mark.parametrize("family", ORDINAL)
def test_scale_is_a_unit(data, family):
    """Two groups of rows whose scales differ by s: everything in the second is divided by s."""
    half = data.assign(h=np.arange(N) % 2)
    m = rf.fit("grade ~ x", half, family=family, scale="~ h")
    s = np.exp(m.coefficients("scale")["h"])
    assert_allclose(np.unique(m.predict(type="scale")), np.sort([1.0, s]), rtol=1e-12)
    both = {"x": [1.0, 1.0], "h": [0, 1], "z": [0.0, 0.0]}
    p = np.asarray(m.predict(pd.DataFrame(both), type="probs"))
    if family == "acat":
        odds = np.log(p[:, 1:] / p[:, :-1])
        assert_allclose(odds[0], odds[1] * s, rtol=1e-10)
    if family == "cumulative":
        below = p.cumsum(axis=1)[:, :-1]
        odds = np.log(below / (1 - below))
        assert_allclose(odds[0], odds[1] * s, rtol=1e-10)


@pytest.mark.parametrize("family", ORDINAL)
def test_ordinal_fits_answer_everything(data, family):
    m = rf.fit("grade ~ x + (1 | g)", data, family=family, nominal="~ z", scale="~ z")
    assert [c.name for c in m.layout.components] == ["mean", "scale", "threshold"]
    assert list(m.coefficients("threshold").index) == [
        "none|low", "low|mid", "mid|high", "none|low.z", "low|mid.z", "mid|high.z",
    ]  # fmt: skip
    text = m.summary()
    for words in ("Nominal: ~ z", "Scale: ~ z", "none|low.z", "Thresholds"):
        assert words in text
    q = m.residuals("quantile", seed=1)
    assert abs(q.mean()) < 0.15
    assert 0.9 < q.std() < 1.1
    again = pickle.loads(pickle.dumps(m))
    new = data[:4]
    assert_allclose(np.asarray(again.predict(new, type="probs")), np.asarray(m.predict(type="probs"))[:4], rtol=1e-12)
    assert_allclose(m.slim().predict(new), m.predict()[:4], rtol=1e-12)
    simulated = m.refit(m.simulate(1, seed=3)[:, 0])
    assert simulated.converged
    error = m.tidy().set_index(["component", "term"]).loc[("mean", "x"), "std_error"]
    assert abs(simulated.params["x"] - m.params["x"]) < 5 * error
    assert m.tidy()["std_error"].notna().all()
    assert_allclose(m.predict(re="integrate").mean(), m.predict().mean(), atol=0.1)


def test_effects_of_nominal_factors_and_polynomials(data):
    d = data.assign(f=np.array(["u", "v", "w"])[np.arange(N) % 3])
    m = rf.fit("grade ~ x", d, family="sratio", nominal="~ f")
    assert len(m.coefficients("threshold")) == 9
    by = [rf.fit("grade ~ 1", d[d["f"] == f], family="sratio").loglik for f in "uvw"]
    assert rf.fit("grade ~ 1", d, family="sratio", nominal="~ f").loglik == pytest.approx(sum(by), abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"nominal": "~ x"}, DataError, "x: in the formula and in nominal="),
        ({"nominal": "~ z + I(2 * z)"}, DataError, "depend on each other"),
        ({"nominal": "~ (1 | g)"}, FormulaError, "fixed effects only"),
        ({"nominal": "~ 1"}, FormulaError, "names no column"),
        ({"scale": "~ 1"}, FormulaError, "needs a column"),
        ({"dispersion": "~ x"}, OptionError, "scale="),
        ({"threshold": "free"}, OptionError, "flexible"),
        ({"nominl": "~ z"}, ArgumentError, "nominal"),
    ],
)
def test_ordinal_errors(data, arguments, error, says):
    with pytest.raises(error, match=says):
        rf.fit("grade ~ x + (1 | g)", data, family="acat", **arguments)


def test_many_categories():
    rng = np.random.default_rng(2)
    x = rng.normal(size=600)
    y = np.digitize(x + rng.logistic(size=600), np.linspace(-2.5, 2.5, 8))
    fits = [rf.fit("y ~ x", {"y": y, "x": x}, family=f) for f in ORDINAL]
    assert all(m.converged and m.npar == 9 for m in fits)
    with pytest.raises(DataError, match="at most 24"):
        rf.fit("y ~ x", {"y": np.arange(300) % 26, "x": x[:300]}, family="acat")


@pytest.mark.parametrize("family", [*ORDINAL, "multinomial"])
def test_separation_is_named(family):
    """`b` is 1 for the last category alone; a narrow `x` has large estimates that are no separation."""
    rng = np.random.default_rng(1)
    y, b, x = rng.integers(0, 3, 90), np.tile([0.0, 1.0], 45), 1e-3 * rng.normal(size=90)
    with pytest.warns(SeparationWarning, match="separated by"):
        m = rf.fit("y ~ b", {"y": np.where(b == 1, 2, y), "b": b}, family=family)
    assert m.separation == (("1.b", "2.b") if family == "multinomial" else ("b",))
    assert rf.fit("y ~ x", {"y": y, "x": x}, family=family).separation == ()


def test_quadrature_of_ratios_is_that_of_their_steps(data):
    m = rf.fit("grade ~ x + (1 | g)", data, family="sratio", quadrature=7)
    code = data["grade"].cat.codes.to_numpy()
    steps = [data.assign(cut=str(j), stops=(code == j) * 1)[code >= j] for j in range(3)]
    b = rf.fit("stops ~ 0 + cut + x + (1 | g)", pd.concat(steps), family="binomial", quadrature=7)
    assert m.loglik == pytest.approx(b.loglik, abs=1e-7)


# ---- without order ---------------------------------------------------------------------------------------------------


def test_multinomial_scores_vanish(data):
    m = rf.fit("kind ~ x + z", data, family="multinomial")
    p = np.asarray(m.predict())
    y = (data["kind"].to_numpy()[:, None] == np.array(["a", "b", "c"])) * 1.0
    x = np.column_stack([np.ones(N), data["x"], data["z"]])
    assert_allclose(x.T @ (y - p)[:, 1:], 0, atol=1e-4)  # roots of the likelihood: sums over 500 rows
    information = np.block([[x.T @ (x * (p[:, a] * ((a == b) - p[:, b]))[:, None]) for b in (1, 2)] for a in (1, 2)])
    assert_allclose(m.vcov("all"), np.linalg.inv(information), rtol=1e-5)
    assert m.loglik == pytest.approx(np.log(p[y == 1]).sum(), abs=1e-10)


def test_multinomial_of_two_categories_is_binomial(data):
    two = data[data["kind"] != "c"]
    m = rf.fit("kind ~ x + (x | g)", two, family="multinomial")
    b = rf.fit("kind ~ x + (x | g)", two, family="binomial")
    assert m.loglik == pytest.approx(b.loglik, abs=1e-8)
    assert_allclose(m.params, b.params, atol=TIGHT)
    assert list(m.params.index) == ["b.(Intercept)", "b.x"]


def test_quadrature_of_a_multinomial_model_is_the_integral(data):
    """One random intercept, in one of two log odds: 81 nodes around 0 integrate it by brute force."""
    m = rf.fit("kind ~ x", data, family="multinomial", b="~ x + (1 | g)", quadrature=15)
    beta, x, code = np.asarray(m.params), data["x"].to_numpy(), data["kind"].map({"a": 0, "b": 1, "c": 2}).to_numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(81)
    log = []
    for u in m.varcorr()["b:g"].sd[0] * nodes:
        z = np.column_stack([np.zeros(N), beta[0] + beta[1] * x + u, beta[2] + beta[3] * x])
        log.append(z[np.arange(N), code] - np.log(np.exp(z).sum(axis=1)))
    sums = np.array([np.array(log)[:, data["g"] == level].sum(axis=1) for level in data["g"].unique()])
    assert m.loglik == pytest.approx(np.log(np.exp(sums) @ weights / np.sqrt(2 * np.pi)).sum(), abs=1e-6)


def test_the_reference_category_does_not_matter(data):
    m = rf.fit("kind ~ x", data, family="categorical")
    r = rf.fit("factor(kind, levels=c('c', 'b', 'a')) ~ x", data, family="categorical")
    assert m.loglik == pytest.approx(r.loglik, abs=1e-8)
    assert m.params["c.x"] == pytest.approx(-r.params["a.x"], abs=TIGHT)
    assert m.params["b.x"] - m.params["c.x"] == pytest.approx(r.params["b.x"], abs=TIGHT)


def test_formulas_by_category(data):
    m = rf.fit("kind ~ x + (1 | g)", data, family="multinomial", c="~ 1")
    assert list(m.params.index) == ["b.(Intercept)", "b.x", "c.(Intercept)"]
    assert list(m.ranef()) == ["b:g"]
    n = rf.fit("kind ~ x + (1 | g)", data, family="multinomial", b="~ z")
    assert list(n.params.index) == ["b.(Intercept)", "b.z", "c.(Intercept)", "c.x"]
    assert str(n.formula) == "kind ~ x + (1 | g)"
    assert n.update().loglik == pytest.approx(n.loglik, abs=1e-9)
    assert "b: ~ z" in n.summary()


@pytest.mark.parametrize("kind", ["pandas", "polars", "dict"])
def test_multinomial_fits_answer_everything(data, kind):
    frame = data[["kind", "x", "g"]]
    if kind == "polars":
        frame = pytest.importorskip("polars").DataFrame(frame.to_dict("list"))
    elif kind == "dict":
        frame = {name: frame[name].to_numpy() for name in frame}
    m = rf.fit("kind ~ x + (1 | g)", frame, family="multinomial")
    assert "Multinomial logit mixed model" in m.summary()
    assert list(m.predict(type="link")) == ["b", "c"] if kind == "dict" else True
    p = m.predict(re="none")
    assert_allclose(sum(np.asarray(p[c]) for c in "abc"), 1, rtol=1e-12)
    observed = np.array([np.asarray(m.predict()[c])[i] for i, c in enumerate(data["kind"])])
    assert_allclose(m.fitted(), observed, rtol=1e-12)
    assert_allclose(np.asarray(m.slim().predict(frame)["b"]), np.asarray(m.predict()["b"]), rtol=1e-12)
    assert m.refit(m.simulate(1, seed=4)[:, 0]).converged
    average = m.predict(re="integrate")
    assert_allclose(sum(np.asarray(average[c]) for c in "abc"), 1, rtol=1e-9)
    for what in ("response", "quantile", "pearson"):
        with pytest.raises(NotAvailableError, match="without order"):
            m.residuals(what)
    errors = m.predict(std_error=True)
    assert "std_error__b" in getattr(errors, "columns", errors)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"d": "~ 1"}, ArgumentError, "no such category"),
        ({"a": "~ 1"}, ArgumentError, "the first, 'a'"),
        ({"offset": "z"}, OptionError, "offset"),
        ({"dispersion": "~ x"}, OptionError, "no dispersion"),
        ({"zero_inflation": "~ x"}, OptionError, "no zeros"),
        ({"b": "x"}, FormulaError, "one-sided"),
    ],
)
def test_multinomial_errors(data, arguments, error, says):
    with pytest.raises(error, match=says):
        rf.fit("kind ~ x + (1 | g)", data, family="multinomial", **arguments)


def test_numbers_are_no_categories():
    with pytest.raises(DataError, match="too many for categories"):
        rf.fit("y ~ 1", {"y": np.linspace(0, 1, 90)}, family="multinomial")


def test_options_are_taken_back(data):
    plain = rf.fit("grade ~ x + (1 | g)", data, family="cumulative")
    m = rf.fit("grade ~ x + (1 | g)", data, family="cumulative", scale="~ z", threshold="symmetric")
    assert m.update(scale=None, threshold=None).loglik == pytest.approx(plain.loglik, abs=1e-9)
    assert m.update(scale=None).npar == m.npar - 1
    assert m.update().npar == m.npar
    n = rf.fit("kind ~ x + (1 | g)", data, family="multinomial", b="~ z")
    whole = rf.fit("kind ~ x + (1 | g)", data, family="multinomial")
    assert n.update(b=None).loglik == pytest.approx(whole.loglik, abs=1e-9)


@pytest.mark.parametrize("family", ORDINAL)
def test_a_formula_without_intercept_is_that_with_one(data, family):
    """Thresholds are intercepts: `0 + f` has no column for the first level."""
    frame = data.assign(cell=np.array(list("uvw"))[np.arange(len(data)) % 3])
    ours, usual = (rf.fit(f"grade ~ {right}", frame, family=family) for right in ("0 + cell", "cell"))
    assert (ours.loglik, ours.npar) == (usual.loglik, usual.npar)
    assert np.isfinite(ours.tidy()["std_error"]).all()
    assert_allclose(ours.predict(frame[:5], type="probs"), usual.predict(frame[:5], type="probs"))


def test_thresholds_that_cross_leave_no_probabilities(data):
    m = rf.fit("grade ~ 1", data, family="cumulative", nominal="~ x")
    far = data[:3].assign(x=[0.0, 200.0, -200.0])
    with pytest.warns(rf.errors.RanefWarning, match="thresholds cross in row"):
        found = np.asarray(m.predict(far, type="probs"))
    lost = np.isnan(found)
    assert (lost.any(axis=1) == lost.all(axis=1)).all()
    assert not lost[0].any()
    assert lost[1:].any()


@pytest.mark.parametrize("family", [*ORDINAL, "multinomial"])
def test_the_deviance_is_that_of_the_probabilities_given_the_modes(data, family):
    response = "kind" if family == "multinomial" else "grade"
    m = rf.fit(f"{response} ~ x + (1 | g)", data, family=family)
    p = m.predict(type="probs").to_numpy()
    own = p[np.arange(len(p)), np.asarray(m.design.y, dtype=int)]
    assert m.deviance == pytest.approx(-2 * np.log(own).sum(), rel=1e-12)
    alone = rf.fit(f"{response} ~ x", data, family=family)
    assert alone.deviance == pytest.approx(-2 * alone.loglik, rel=1e-12)
