"""Covariance structures from the formula to the fit, and what they refuse."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import ArgumentError, DataError, FormulaError, OptionError
from ranef.frame.levels import number_order


@pytest.fixture(scope="module")
def sleep():
    return rf.datasets.load("sleepstudy")


def test_no_residual_variance(sleep):
    """`dispersion=0` is glmmTMB's `dispformula = ~ 0`: a residual SD of next to nothing beside the response."""
    formula = "Reaction ~ Days + ar1(factor(Days) + 0 | Subject)"
    m = rf.fit(formula, sleep, dispersion=0, method="ml")
    assert m.sigma == pytest.approx(np.finfo(float).eps ** 0.25)  # glmmTMB's own
    left = sleep["Reaction"] - np.polyval(np.polyfit(sleep["Days"], sleep["Reaction"], 1), sleep["Days"])
    in_seconds = rf.fit(formula, sleep.assign(Reaction=sleep["Reaction"] / 1000), dispersion=0, method="ml")
    assert in_seconds.sigma == pytest.approx(5e-8 * left.std(ddof=0))  # 5e-5 of what fixed effects leave
    assert rf.fit(formula, sleep, dispersion="~ 0", method="ml").loglik == m.loglik
    assert rf.fit(formula, sleep, dispersion=3, method="ml").sigma == pytest.approx(3)


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize("structure", ["hetar1", "toep"])
def test_no_residual_variance_in_any_units(sleep, structure, method):
    """What stands for no residual is a share of the response: a likelihood changes by its Jacobian alone."""
    formula = f"Reaction ~ Days + {structure}(factor(Days) + 0 | Subject)"
    degrees = len(sleep) - (2 if method == "reml" else 0)
    one = rf.fit(formula, sleep, dispersion=0, method=method)
    for scale in (1e-4, 1e4):
        m = rf.fit(formula, sleep.assign(Reaction=scale * sleep["Reaction"]), dispersion=0, method=method)
        assert m.converged
        # The criterion has up to 1e-7 of its own beside such a residual, eps / share^2; the shares are 3e-6 and 5e-5.
        assert m.loglik + degrees * np.log(scale) == pytest.approx(one.loglik, abs=5e-7)


def test_known_sampling_errors(sleep):
    """Known standard deviations a row are an offset of the dispersion; equal ones are the same as one number."""
    formula = "Reaction ~ Days + ar1(factor(Days) + 0 | Subject)"
    m = rf.fit(formula, sleep.assign(se=3.0), dispersion="~ 0 + offset(log(se))", method="ml")
    assert m.loglik == pytest.approx(rf.fit(formula, sleep, dispersion=3, method="ml").loglik, abs=1e-9)


# ---- positions -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ou():
    return rf.datasets.load("sim_ou")


def test_numeric_times_are_columns(ou):
    """A numeric column, numFactor() of it, and labels that are points say the same."""
    fits = [
        rf.fit(f"y ~ x + ou({term} + 0 | g)", ou.assign(label=[f"({t})" for t in ou["time"]]))
        for term in ("time", "factor(time)", "numFactor(time)", "label")
    ]
    assert np.ptp([m.loglik for m in fits]) < 1e-8
    assert fits[0].layout.terms[0].names[:2] == ("factor(time)0", "factor(time)0.5")


def test_ou_is_ar1_at_equal_steps():
    data = rf.datasets.load("sim_ar1")
    ar1, ou = (rf.fit(f"y ~ x + {kind}(t + 0 | g)", data, method="ml") for kind in ("ar1", "ou"))
    assert ou.loglik == pytest.approx(ar1.loglik, abs=1e-7)
    again = rf.fit("y ~ x + ar1(factor(t) + 0 | g)", data, method="ml")
    assert ar1.loglik == pytest.approx(again.loglik, abs=1e-9)


def test_scaled_coordinates_scale_the_range():
    data = rf.datasets.load("sim_spatial")
    formula = "y ~ x + exp(xc + yc + 0 | area)"
    a = rf.fit(formula, data, method="ml")
    b = rf.fit(formula, data.assign(xc=10 * data["xc"], yc=10 * data["yc"]), method="ml")
    assert a.loglik == pytest.approx(b.loglik, abs=1e-7)
    assert b.theta[1] - a.theta[1] == pytest.approx(np.log(10), abs=1e-4)
    same = rf.fit("y ~ x + exp(numFactor(xc, yc) + 0 | area)", data, method="ml")
    assert same.loglik == pytest.approx(a.loglik, abs=1e-9)


def test_predictions_at_known_points(ou):
    m = rf.fit("y ~ x + ou(time + 0 | g)", ou)
    np.testing.assert_allclose(m.predict(ou), m.fitted(), rtol=1e-10)


@pytest.mark.parametrize(
    ("term", "error", "says"),
    [
        ("ar1(time + 0 | g)", DataError, "not equally spaced.*ou"),
        ("toep(time + 0 | g)", DataError, "not equally spaced.*ou"),
        ("ou(g2 + 0 | g)", DataError, "'a'.*no position.*numFactor"),
        ("exp(mixed + 0 | g)", DataError, "different numbers of coordinates"),
        ("ou(time | g)", FormulaError, r"ou\(times \+ 0 \| g\)"),
        ("exp(numFactor(time) | g)", FormulaError, "levels of one factor"),
        ("ar1(1 + time | g)", FormulaError, r"ar1\(times \+ 0 \| g\)"),
    ],
)
def test_positions_refused(ou, term, error, says):
    half = ou.assign(
        time=ou["time"] ** 2,
        g2=np.where(ou["time"] > 2, "a", "1"),
        mixed=np.where(ou["time"] > 2, "(1,2)", "(1)"),
    )
    with pytest.raises(error, match=says):
        rf.fit(f"y ~ x + {term}", half)


# ---- REML ------------------------------------------------------------------------------------------------------------


def test_structured_gaussian_models_default_to_reml():
    """As linear ones do; `homdiag` of an intercept is the linear model, so REML must agree with its engine's."""
    dyestuff = rf.datasets.load("Dyestuff")
    linear = rf.fit("Yield ~ 1 + (1 | Batch)", dyestuff)
    ours = rf.fit("Yield ~ 1 + homdiag(1 | Batch)", dyestuff)
    assert ours.method == "reml"
    assert not ours.task.linear
    assert ours.loglik == pytest.approx(linear.loglik, abs=1e-6)
    assert ours.sigma == pytest.approx(linear.sigma, rel=1e-5)
    np.testing.assert_allclose(ours.vcov(), linear.vcov(), rtol=1e-4)
    assert rf.fit("Yield ~ 1 + homdiag(1 | Batch)", dyestuff, dispersion="~ Yield").method == "ml"


def test_reml_and_quadrature_exclude_each_other():
    with pytest.raises(OptionError, match="method='ml'"):
        rf.fit("y ~ x + (1 | g)", {}, family="poisson", method="reml", quadrature=5)


# ---- known matrices --------------------------------------------------------------------------------------------------


PROPTO = "y ~ x + propto(0 + species | one)"


@pytest.fixture(scope="module")
def phylo():
    return rf.datasets.load("sim_phylo")


@pytest.fixture(scope="module")
def relations():
    return rf.datasets.load("sim_phylo_A").set_index("species")


def test_matrices_are_matched_by_name(phylo, relations):
    """Order, more levels, the kind of table and where the matrix is given do not count."""
    plain = rf.fit(PROPTO, phylo, cov={"species": relations})
    labels = relations.columns.tolist()
    shuffled = labels[::-1]
    more = np.eye(len(labels) + 1)
    more[1:, 1:] = relations.to_numpy()
    others = [
        rf.fit(PROPTO, phylo, cov={"species": relations.loc[shuffled, shuffled]}),
        rf.fit(PROPTO, phylo, cov={"species": relations.loc[shuffled]}),
        rf.fit(PROPTO, phylo, cov={"species": relations.reset_index()}),
        rf.fit(PROPTO, phylo, cov={"species": (more, ["ancestor", *labels])}),
        rf.fit("y ~ x + propto(0 + species | one, A)", phylo, env={"A": relations}),
    ]
    for m in others:
        assert m.loglik == pytest.approx(plain.loglik, abs=1e-9)


@pytest.mark.parametrize("formula", [PROPTO, "y ~ x + (1 | species)"])
def test_rows_and_columns_of_a_matrix_have_the_same_names(phylo, relations, formula):
    labels = relations.columns.tolist()

    def of(index, columns):
        return rf.fit(formula, phylo, cov={"species": relations.set_axis(index).set_axis(columns, axis=1)}).loglik

    right = of(labels, labels)
    assert of(range(25), labels) == of(labels, range(25)) == right  # a side that counts has no names
    listed = relations.set_axis([f"V{i}" for i in range(25)], axis=1)
    listed.insert(0, "name", labels)
    assert rf.fit(formula, phylo, cov={"species": listed}).loglik == right
    for columns, index, says in [
        (labels, [*labels[1:], "zzz"], "only rows have 'zzz'; only columns have 'S01'"),
        (labels, [*labels[1:], "S02"], "only columns have 'S01'"),
        (labels, range(1, 26), "rows and columns have different labels"),
    ]:
        with pytest.raises(DataError, match=says):
            of(index, columns)


def test_propto_scales(phylo, relations):
    """K and 4 K are the same model; equalto at the estimate reaches the same likelihood."""
    a = rf.fit(PROPTO, phylo, cov={"species": relations}, method="ml")
    b = rf.fit(PROPTO, phylo, cov={"species": 4 * relations}, method="ml")
    assert b.loglik == pytest.approx(a.loglik, abs=1e-8)
    estimate = a.varcorr()["one"].cov
    np.testing.assert_allclose(estimate, estimate[0, 0] * relations.to_numpy(), atol=1e-10)
    formula = "y ~ x + equalto(0 + species | one)"
    c = rf.fit(formula, phylo, cov={"species": (estimate, relations.columns)}, method="ml")
    assert c.loglik == pytest.approx(a.loglik, abs=1e-8)
    assert c.npar == a.npar - 1
    assert a.update(". ~ . - x").npar == a.npar - 1  # takes the matrix along


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda k: k.iloc[2:, 2:], DataError, "no row for 2 of 25 levels: 'S01', 'S02'"),
        (lambda k: k.to_numpy(), ArgumentError, "by name"),
        (lambda k: (k.to_numpy(), ["a"]), DataError, "25 x 25, with 1 labels"),
        (lambda k: (k.to_numpy(), ["a"] * 25), DataError, "twice.*'a'"),
        (lambda k: k + np.triu(np.ones((25, 25)), 1), DataError, "not symmetric"),
        (lambda k: k * 0 + 1, DataError, "not positive definite"),
        (lambda k: k.where(k < 1), DataError, "not finite"),
    ],
)
def test_matrices_refused(phylo, relations, change, error, says):
    with pytest.raises(error, match=says):
        rf.fit(PROPTO, phylo, cov={"species": change(relations)})


def test_matrices_missing(phylo, relations):
    with pytest.raises(DataError, match=r"'species' is not known; give cov="):
        rf.fit(PROPTO, phylo)
    with pytest.raises(DataError, match=r"'A' is not known"):
        rf.fit("y ~ x + propto(0 + species | one, A)", phylo)
    with pytest.raises(OptionError, match=r"no term takes the matrix 'species'"):
        rf.fit("y ~ x + (1 | one)", phylo, cov={"species": relations})
    with pytest.raises(FormulaError, match="levels of one factor"):
        rf.fit("y ~ x + propto(species | one)", phylo, cov={"species": relations})


# ---- what is reported ------------------------------------------------------------------------------------------------


def test_parameters_of_structures(ou, phylo, relations):
    """One row a parameter, from the same numbers as the covariance matrix."""
    m = rf.fit("y ~ x + ou(time + 0 | g)", ou)
    rows = m.tidy("ran_pars")
    assert rows["term"].tolist() == ["sd", "rate", "sd__Observation"]
    term = m.varcorr()["g"]
    assert rows["estimate"][0] == pytest.approx(term.sd[0])
    assert rows["estimate"][1] == pytest.approx(-np.log(term.corr[0, 1]) / 0.5)
    text = m.summary()
    assert "ou, 21 columns" in text
    assert "Correlation of" not in text
    assert [p.name for p in rf.fit(PROPTO, phylo, cov={"species": relations}).varcorr()["one"].parameters] == ["sd"]


def test_lags_and_columns_have_names():
    data = rf.datasets.load("sim_visits")
    m = rf.fit("y ~ trt + toep(visitf + 0 | id)", data, dispersion=0)
    labels = [p.label for p in m.varcorr()["id"].parameters]
    assert labels == [*(f"sd__visitf{i}" for i in range(1, 6)), *(f"cor__lag{i}" for i in range(1, 5))]
    corr = m.varcorr()["id"].corr
    np.testing.assert_allclose([p.value for p in m.varcorr()["id"].parameters[5:]], corr[0, 1:], atol=1e-10)
    assert "cor lag4" in m.summary()


def test_a_process_over_many_columns_needs_one_group(phylo, relations):
    m = rf.fit(PROPTO, phylo, cov={"species": relations})
    assert not [note for note in m.messages if note.code == "few_levels"]
    with pytest.raises(DataError, match="one level"):
        rf.fit("y ~ x + (1 | one)", phylo)


def test_structured_fits_travel(ou, phylo, relations):
    """Pickled, slim, updated and asked about new rows they answer the same."""
    m = rf.fit("y ~ x + ou(numFactor(time) + 0 | g)", ou)
    copy = pickle.loads(pickle.dumps(m))
    rows = ou.iloc[[5, 17]]
    np.testing.assert_allclose(m.predict(rows), m.fitted()[[5, 17]], rtol=1e-10)
    np.testing.assert_allclose(copy.predict(rows), m.predict(rows), rtol=1e-10)
    np.testing.assert_allclose(m.slim().predict(rows), m.predict(rows), rtol=1e-10)
    ours, theirs = (f.ranef(std_error=True)["g"].iloc[:, 1:].to_numpy(float) for f in (m, copy))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)  # the copy's core took one more step
    known = pickle.loads(pickle.dumps(rf.fit(PROPTO, phylo, cov={"species": relations})))
    assert known.simulate(2, seed=1).shape == (150, 2)
    assert known.refit(known.simulate(1, seed=1)[:, 0]).converged


@pytest.mark.parametrize("structure", ["homcs", "homdiag", "homtoep"])
def test_a_residual_that_the_structure_contains_is_named(structure):
    rng = np.random.default_rng(2)
    g, t = np.repeat(np.arange(40), 5), np.tile(np.arange(5), 40)
    d = {"y": rng.normal(size=40)[g] + rng.normal(size=200), "g": g, "t": np.array(list("abcde"))[t]}
    m = rf.fit(f"y ~ 1 + {structure}(0 + t | g)", d)
    note = next(n for n in m.messages if n.code == "residual_absorbed")
    assert "sd^2 + sigma^2" in note.text
    # Held at two shares of the variance the likelihood is the same: that is what is not identified.
    call = {"formula": f"y ~ 1 + {structure}(0 + t | g)", "data": d, "method": "reml"}
    one, other = (rf.fit(**call, fixed={"sigma": s}) for s in (0.4, 0.6))
    assert other.loglik == pytest.approx(one.loglik, abs=1e-5)
    assert "residual_absorbed" not in [n.code for n in other.messages]
    twice = {name: np.r_[v, v] for name, v in d.items()}
    twice["y"] = twice["y"] + rng.normal(size=400)
    again = rf.fit(f"y ~ 1 + {structure}(0 + t | g)", twice)
    assert "residual_absorbed" not in [n.code for n in again.messages]


@pytest.fixture(scope="module")
def visits():
    rng = np.random.default_rng(2)
    groups, times = 12, 12
    frame = pd.DataFrame({"g": np.repeat(np.arange(groups), times), "t": np.tile(np.arange(times), groups)})
    effect = np.zeros(len(frame))
    for i in range(len(frame)):
        effect[i] = 0.8 * effect[i - 1] * (frame["t"][i] > 0) + 0.5 * rng.normal()
    names = [f"v{t}" for t in range(times)]
    return frame.assign(
        y=rng.poisson(np.exp(1 + effect)), text="v" + frame["t"].astype(str), digits=frame["t"].astype(str),
        back=pd.Categorical("v" + frame["t"].astype(str), ["v1", "v0", *names[:1:-1]]),
        ordered=pd.Categorical("v" + frame["t"].astype(str), names, ordered=True),
    )  # fmt: skip


def test_text_times_stand_in_the_order_of_their_numbers(visits):
    known = rf.fit("y ~ 1 + ar1(0 + t | g)", visits, family="poisson")
    for column in ("text", "digits", "factor(text)"):
        m = rf.fit(f"y ~ 1 + ar1(0 + {column} | g)", visits, family="poisson")
        assert m.loglik == pytest.approx(known.loglik, abs=1e-8)  # the same model: rounding of the search alone
        (note,) = [n for n in m.messages if n.code == "times_by_number"]
        assert note.evidence["levels"][-1].endswith("11")
        np.testing.assert_allclose(m.predict(visits[:30]), known.fitted()[:30], rtol=1e-4)
    m = rf.fit("y ~ 1 + ar1(0 + ordered | g)", visits, family="poisson")
    assert m.loglik == pytest.approx(known.loglik, abs=1e-8)
    other = rf.fit("y ~ 1 + ar1(0 + back | g)", visits, family="poisson")  # an order that somebody chose
    assert other.loglik < known.loglik - 0.1
    assert not [n for n in (*m.messages, *other.messages) if n.code == "times_by_number"]


def test_ordered_times_with_a_gap_are_refused(visits):
    with pytest.raises(DataError, match="no row has 'v5', a level between others of an ordered factor"):
        rf.fit("y ~ 1 + ar1(0 + ordered | g)", visits[visits["t"] != 5], family="poisson")
    assert rf.fit("y ~ 1 + ar1(0 + ordered | g)", visits[visits["t"] < 9], family="poisson").converged


@pytest.mark.parametrize(
    ("times", "levels", "says"),
    [
        ([0, 1, 2, 4, 9], None, "not equally spaced.*v2, v4.*ou.*ordered factor"),
        ([8, 9, 10, 11], None, ""),
        ([0, 2, 4, 6], None, ""),
        ([0, 1, 2, 4], [0, 1, 2, 3, 4], "not equally spaced"),
        ([0, 1, 4], [4, 0, 1], ""),  # an order that somebody chose
        ([0, 1, 4], [4, 3, 0, 1], "no row has 'v3', a level between others of a factor"),
        ([0, 1, 2], [0, 1, 2, 3], ""),
    ],
)
def test_text_times_at_unequal_steps_are_refused(visits, times, levels, says):
    """As numbers are; the words of an ordered factor stand one step apart whatever the numbers in them."""
    data = visits[visits["t"].isin(times)]
    names = None if levels is None else [f"v{t}" for t in levels]
    data = data.assign(text=data["text"] if levels is None else pd.Categorical(data["text"], names))
    if says:
        with pytest.raises(DataError, match=says):
            rf.fit("y ~ 1 + ar1(0 + text | g)", data, family="poisson")
    else:
        assert rf.fit("y ~ 1 + ar1(0 + text | g)", data, family="poisson").npar == 3
    data = data.assign(text=pd.Categorical(data["text"].astype(str), [f"v{t}" for t in times], ordered=True))
    assert rf.fit("y ~ 1 + ar1(0 + text | g)", data, family="poisson").npar == 3


def test_numbers_in_labels():
    assert number_order(["t1", "t10", "t2"]) == [0, 2, 1]
    assert number_order(["-1", "-10", "2"]) == [1, 0, 2]
    assert number_order(["w-1", "w-10", "w-2"]) == [0, 2, 1]  # a hyphen, no sign
    assert number_order(["1.5 h", "10 h", "2 h"]) == [0, 2, 1]
    for others in (["a1", "b2"], ["t1", "t01"], ["2020-01", "2020-02"], ["a", "b"], [1.0, 2.0]):
        assert number_order(others) is None


@pytest.mark.parametrize("structure", ["ar1", "toep", "cs", "diag"])
def test_a_structure_of_one_constant_is_a_variance(structure):
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(8), 6)
    data = {"y": rng.normal(size=8)[g] + rng.normal(size=48), "x": rng.normal(size=48), "g": g}
    m, plain = rf.fit(f"y ~ x + {structure}(1 | g)", data), rf.fit("y ~ x + (1 | g)", data)
    assert abs(m.loglik - plain.loglik) < 1e-7  # two engines, searches that end within 1e-8 of the deviance
    assert len(m.tidy(effects="ran_pars")["estimate"]) >= 2
    np.testing.assert_allclose(m.predict({k: v[:5] for k, v in data.items()}), m.fitted()[:5], rtol=1e-10)
