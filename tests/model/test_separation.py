"""Separation beyond binary outcomes: ordered categories, extra zeros, and coefficients that are kept from infinity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.diagnose import directions, separation
from ranef.engines import laplace
from ranef.errors import DataError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(6)
    n = 150
    x = rng.normal(size=n)
    cell = np.array(list("abc"))[rng.integers(0, 3, n)]
    level = np.digitize(x + rng.logistic(size=n), [-0.5, 1.0])
    top = np.where(cell == "c", 2, level)
    count = rng.poisson(np.exp(0.8 + 0.3 * x)).astype(float)
    names = np.array(["low", "mid", "top"])
    return pd.DataFrame({
        "x": x, "cell": cell, "g": np.arange(n) % 10,
        "level": pd.Categorical(names[level], names, ordered=True),
        "apart": pd.Categorical(names[top], names, ordered=True),
        "zero": np.where((cell == "b") | (rng.random(n) < 0.3), 0.0, count),
    })  # fmt: skip


@pytest.mark.parametrize("threshold", ["flexible", "equidistant"])
def test_ordered_categories(data, threshold):
    with pytest.warns(rf.SeparationWarning, match="separated by cellc"):
        m = rf.fit("apart ~ x + cell", data, family="cumulative", threshold=threshold)
    assert m.separation == ("cellc",)
    assert rf.fit("level ~ x + cell", data, family="cumulative", threshold=threshold).separation == ()


PLACES = {
    "a level": ("b ~ x + cell", lambda d: np.where(d["cell"] == "c", 1, d["b"]), "'c' of 'cell': 1 in all"),
    "the reference": ("b ~ x + cell", lambda d: np.where(d["cell"] == "a", 0, d["b"]), "'a' of 'cell': 0 in all"),
    "a cell": (
        "b ~ cell * two",
        lambda d: np.where((d["cell"] == "b") & (d["two"] == "v"), 0, d["b"]),
        "'b' of 'cell' with 'v' of 'two': 0 in all",
    ),
    "a number": ("b ~ x", lambda d: np.where(d["x"] > 0.5, "yes", "no"), "'x': 'yes' in all 45 rows above 0.49"),
    "a number below": (
        "b ~ dummy",
        lambda d: np.where(d["dummy"] == 0, 1, d["b"]),
        "'dummy': 1 in all 75 rows below",
    ),
    "successes": ("cbind(b, 1 - b) ~ cell", lambda d: np.where(d["cell"] == "c", 1, d["b"]), "only successes in all"),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_in_the_data_is_told(data, name):
    formula, outcome, says = PLACES[name]
    n = len(data)
    b, two = np.random.default_rng(2).integers(0, 2, n), np.where(np.arange(n) // 3 % 2, "u", "v")
    frame = data.assign(b=b, two=two, dummy=np.arange(n) % 2)
    with pytest.warns(rf.SeparationWarning) as told:
        m = rf.fit(formula, frame.assign(b=outcome(frame)), family="binomial")
    note = next(n for n in m.messages if n.code == "separation")
    assert says in note.text
    assert str(told[0].message) == note.text
    assert len(note.evidence["places"]) == 1


def test_places_of_counts_and_categories(data):
    with pytest.warns(rf.SeparationWarning, match=r"\('c' of 'cell': 'top' in all \d+ rows\)"):
        rf.fit("apart ~ x + cell", data, family="cumulative")
    with pytest.warns(rf.SeparationWarning, match=r"\('b' of 'cell': 0 in all \d+ rows\)"):
        rf.fit("zero ~ x + cell", data, family="poisson")


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_link_of_a_probability(data, link, value):
    """A probit is certain at 4 and a loglog at -2, where a logit has a long way to go."""
    rng = np.random.default_rng(1)
    frame = data.assign(b=np.where(data["cell"] == "c", value, rng.integers(0, 2, len(data)).astype(float)))
    with pytest.warns(rf.SeparationWarning, match="separated by cellc"):
        assert rf.fit("b ~ x + cell", frame, family="binomial", link=link).separation == ("cellc",)
    frame.loc[(frame["cell"] == "c").idxmax(), "b"] = 1 - value
    assert rf.fit("b ~ x + cell", frame, family="binomial", link=link).separation == ()


@pytest.mark.parametrize("link", ["probit", "cloglog", "loglog", "cauchit"])
def test_ordered_categories_by_other_links(data, link):
    with pytest.warns(rf.SeparationWarning, match="separated by cellc"):
        assert rf.fit("apart ~ x + cell", data, family="cumulative", link=link).separation == ("cellc",)
    assert rf.fit("level ~ x + cell", data, family="cumulative", link=link).separation == ()


def test_ordered_categories_along_a_number(data):
    frame = data.assign(level=pd.cut(data["x"], [-9, -0.5, 1, 9], labels=["low", "mid", "top"]))
    with pytest.warns(rf.SeparationWarning, match="separated by x"):
        m = rf.fit("level ~ x", frame, family="cumulative")
    assert m.separation == ("x",)


def test_a_middle_category_alone_is_no_separation(data):
    frame = data.assign(level=pd.Categorical(np.where(data["cell"] == "c", "mid", data["level"].astype(str)),
                                             ["low", "mid", "top"], ordered=True))  # fmt: skip
    assert rf.fit("level ~ x + cell", frame, family="cumulative").separation == ()


def test_cells_of_the_extra_zeros(data):
    with pytest.warns(rf.SeparationWarning, match=r"zero_inflation\.cellb"):
        m = rf.fit("zero ~ x", data, family="poisson", zero_inflation="~ cell")
    assert m.separation == ("zero_inflation.cellb",)


def test_a_prior_or_a_value_keeps_estimates_finite(data):
    prior = {"cellc": rf.prior.normal(0, 2.5)}
    m = rf.fit("apart ~ x + cell", data, family="cumulative", prior=prior)
    assert m.separation == ()
    assert -9 < m.params["cellc"] < 9
    held = rf.fit("apart ~ x + cell", data, family="cumulative", fixed={"cellc": 12.0})
    assert held.separation == ()
    with pytest.warns(rf.SeparationWarning, match="separated by cellc"):  # the prior of another column does not help
        rf.fit("apart ~ x + cell", data, family="cumulative", prior={"x": rf.prior.normal(0, 1)})


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(16)
    n = 160
    cell = np.array(list("abc"))[rng.integers(0, 3, n)]
    count = rng.poisson(2.0, n) + 1
    return pd.DataFrame({
        "cell": cell, "g": np.arange(n) % 8, "x": rng.normal(size=n), "other": rng.integers(0, 2, n).astype(str),
        "ones": np.where(cell == "b", 1, count), "size": np.where(cell == "b", 0.0, rng.gamma(2.0, 1.0, n)),
        "yes": np.where(cell == "b", 1.0, rng.integers(0, 2, n)), "mixed": rng.integers(0, 2, n),
    })  # fmt: skip


@pytest.mark.parametrize("family", ["truncated_poisson", "truncated_nbinom2"])
def test_counts_above_zero_that_are_all_one(counts, family):
    with pytest.warns(rf.SeparationWarning, match=r"separated by cellb \(") as caught:
        m = rf.fit("ones ~ cell", counts, family=family)
    assert m.separation == ("cellb",)
    assert "firth" not in str(caught[0].message)  # which truncated families have not
    assert rf.fit("ones ~ x", counts, family=family).separation == ()


def test_zeros_of_a_hurdle_say_nothing_of_its_counts(counts):
    frame = counts.assign(y=np.where(counts["other"] == "1", 0, counts["ones"]))
    with pytest.warns(rf.SeparationWarning, match=r"cellb, zero_inflation\.other1"):
        m = rf.fit("y ~ cell", frame, family="hurdle_poisson", zero_inflation="~ other")
    assert m.separation == ("cellb", "zero_inflation.other1")
    text = next(n.text for n in m.messages if n.code == "separation")
    assert "{'fixed': rf.prior.normal(0, 2.5), 'zero_inflation': rf.prior.normal(0, 2.5)}" in text
    prior = {"fixed": "normal(0, 2.5)", "zero_inflation": "normal(0, 2.5)"}  # what the text says
    assert rf.fit("y ~ cell", frame, family="hurdle_poisson", zero_inflation="~ other", prior=prior).separation == ()


@pytest.mark.filterwarnings("ignore::ranef.ConvergenceWarning")
def test_a_level_without_anything_but_zeros(counts):
    with pytest.warns(rf.SeparationWarning, match=r"separated by cellb \("):
        m = rf.fit("size ~ cell", counts, family="tweedie")
    assert m.separation == ("cellb",)


def test_families_of_ones_own(counts):
    bernoulli = rf.custom_family(lambda y, p: y * np.log(p) + (1 - y) * np.log1p(-p), ["p"], ["logit"], support="count")
    with pytest.warns(rf.SeparationWarning, match="separated by cellb:"):
        assert rf.fit("yes ~ cell", counts, family=bernoulli).separation == ("cellb",)
    assert rf.fit("mixed ~ cell", counts, family=bernoulli).separation == ()
    normal = rf.custom_family(
        lambda y, mean, sd: -0.5 * ((y - mean) / sd) ** 2 - np.log(sd), ["mean", "sd"], ["identity", "log"]
    )
    assert rf.fit("far ~ cell", counts.assign(far=500 + 40 * counts["x"]), family=normal).separation == ()
    few = 60 * np.random.default_rng(1).normal(size=12)  # standard errors beyond 9, means beyond 15
    for mean in (2000, -2000):
        assert rf.fit("y ~ 1", {"y": mean + few}, family=normal).separation == ()


def test_columns_that_were_dropped_are_not_named(counts):
    frame = counts.assign(s=counts["yes"], twice=2 * counts["yes"])
    for prior in (None, {"(Intercept)": rf.prior.normal(0, 10)}):
        with pytest.warns(rf.SeparationWarning, match=r"separated by s \("):
            rf.fit("yes ~ s + twice", frame, family="binomial", prior=prior)


def test_the_prior_of_all_categories_is_used():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=90), "kind": np.array(list("ABC"))[rng.integers(0, 3, 90)]})
    free = rf.fit("kind ~ x", frame, family="multinomial")
    tight = rf.fit("kind ~ x", frame, family="multinomial", prior={"fixed": rf.prior.normal(0, 1e-4)})
    assert np.abs(tight.params).max() < 1e-4 < np.abs(free.params).max()
    one = rf.fit("kind ~ x", frame, family="multinomial", prior={"B": rf.prior.normal(0, 1e-4)})
    assert abs(one.params["B.x"]) < 1e-4 < abs(one.params["C.x"])


def drawn(rng):
    """Rows of a program, continuous or of zeros and ones, some of them level, some columns dependent."""
    n, p = int(rng.integers(4, 60)), int(rng.integers(1, 6))
    rest = rng.integers(0, 2, (n, p)).astype(float) if rng.random() < 0.5 else rng.normal(size=(n, p))
    x = np.column_stack([np.ones(n), rest])
    if p > 1 and rng.random() < 0.3:
        x[:, 2] = x[:, 0] + x[:, 1]
    sign = np.where(rng.random(n) < rng.choice([0.1, 0.3, 0.5]), 1.0, -1.0)
    sign[rng.random(n) < rng.choice([0.0, 0.2])] = 0.0
    return x, sign


def test_a_certificate_of_overlap_agrees_with_the_linear_program():
    """Never where the program finds a direction, and nearly always where it finds none."""
    rng, certified, overlapped = np.random.default_rng(8), 0, 0
    for _ in range(300):
        x, sign = drawn(rng)
        inward, level = x[sign != 0] * sign[sign != 0, None], x[sign == 0]
        found = directions._program(inward, level)
        apart = bool((np.abs(found) > directions.ZERO).any())
        told = directions.is_overlapped(inward, level)
        assert not (told and apart)
        certified, overlapped = certified + told, overlapped + (not apart)
    assert certified > 0.95 * overlapped > 100


def of_ends(y, least, one=None):
    """Signs of a response: -1 where it is the least, 1 where it is `one`, 0 elsewhere."""
    return np.where(y == least, -1.0, np.where(y == one, 1.0, 0.0))


def of_comparisons(x, y, count):
    """Rows of the program of a multinomial response: a category's predictor less that of each other one."""
    n, p = x.shape
    own = np.zeros((count, n, count * p))
    for k in range(count):
        own[k][:, k * p : (k + 1) * p] = x
    rows = np.concatenate([own[y, np.arange(n)][y != k] - own[k][y != k] for k in range(count)])
    return rows[:, p:], np.ones(len(rows))


def of_cuts(x, y, count):
    """Rows of the program of a cumulative response: the cut above a category less x'b, and x'b less that below."""
    cut = np.eye(count - 1)
    above, below = y < count - 1, y > 0
    rows = np.vstack([np.hstack([-x[above, 1:], cut[y[above]]]), np.hstack([x[below, 1:], -cut[y[below] - 1]])])
    return rows, np.ones(len(rows))


BEFORE = {
    "binomial": (lambda rng, p: rng.random(len(p)) < p, lambda x, y: (x, of_ends(y, 0, 1))),
    "binomial(cauchit)": (lambda rng, p: rng.random(len(p)) < p, lambda x, y: (x, of_ends(y, 0, 1))),
    "poisson": (lambda rng, p: rng.poisson(p), lambda x, y: (x, of_ends(y, 0))),
    "nbinom2": (lambda rng, p: rng.poisson(p), lambda x, y: (x, of_ends(y, 0))),
    "truncated_poisson": (lambda rng, p: 1 + rng.poisson(p), lambda x, y: (x, of_ends(y, 1))),
    "cumulative": (lambda rng, p: np.digitize(p + 0.5 * rng.random(len(p)), [0.5, 0.9]), lambda x, y: of_cuts(x, y, 3)),
    "multinomial": (
        lambda rng, p: np.digitize(p + 0.5 * rng.random(len(p)), [0.5, 0.9]),
        lambda x, y: of_comparisons(x, y, 3),
    ),
}


@pytest.mark.parametrize("family", BEFORE)
@pytest.mark.filterwarnings("ignore::ranef.RanefWarning")
def test_what_separates_is_known_before_the_search(monkeypatch, family):
    """What is found agrees with a program written for each family; where nothing is, mostly none was solved."""
    solved = []
    monkeypatch.setattr(separation, "by_data", lambda m, of=separation.by_data: solved.append(1) or of(m))
    draw, program = BEFORE[family]
    rng, apart, clear, certified = np.random.default_rng(12), 0, 0, 0
    for _ in range(60):
        x, sign = drawn(rng)
        y = draw(rng, 1 / (1 + np.exp(-2 * sign * rng.random(len(x))))).astype(int)
        if len(np.unique(y)) < (3 if family in ("cumulative", "multinomial") else 2):
            continue
        frame = pd.DataFrame(x[:, 1:], columns=[f"x{j}" for j in range(1, x.shape[1])]).assign(y=y)
        if family in ("cumulative", "multinomial"):
            frame["y"] = pd.Categorical(y, ordered=family == "cumulative")
        rows, way = program(x, y)
        found = directions._program(rows[way != 0] * way[way != 0, None], rows[way == 0])
        truth = bool((np.abs(rows @ found) > directions.ZERO).any())
        solved.clear()
        try:
            m = rf.fit("y ~ " + " + ".join(c for c in frame if c != "y"), frame, family=family)
        except DataError as error:
            assert truth, error  # noqa: PT017 - a search that fails is the other way that separation may show
            continue
        assert bool(m.separation) == truth
        assert m.estimate.separated is not None
        apart, clear, certified = apart + truth, clear + (not truth), certified + (not truth and not solved)
    assert apart > 2
    assert certified >= 0.8 * clear > 4


def test_rows_that_are_put_together_leave_the_program_as_it_is():
    """Columns are named if and only if the program of all rows, each on its own, has a direction."""
    rng, apart = np.random.default_rng(9), 0
    for _ in range(200):
        x, sign = drawn(rng)
        found = directions._program(x[sign != 0] * sign[sign != 0, None], x[sign == 0])
        named = directions.direction(x, sign)
        assert bool(named) == bool((np.abs(found) > directions.ZERO).any())
        apart += bool(named)
    assert 20 < apart < 180


def test_a_fit_tells_how_far_its_predictors_reach():
    """To rounding errors, those of predictions without random effects: of both predictors, offsets included."""
    data = rf.datasets.load("Salamanders")
    formula = "count ~ mined + cover + offset(log(sample)) + (1 | site)"
    m = rf.fit(formula, data, family="poisson", zero_inflation="~ mined")
    for found, kind in zip(m.estimate.reach, ("link", "zero_inflation"), strict=True):
        eta = np.asarray(m.predict(type=kind, re="none"))
        eta = np.log(eta / (1 - eta)) if kind == "zero_inflation" else eta
        assert found == pytest.approx((eta.min(), eta.max()), rel=1e-10)


def test_extra_zeros_without_bound_are_named():
    """No species of Salamanders has extra zeros where nothing was mined: the estimates there ran away."""
    data = rf.datasets.load("Salamanders")
    m = rf.fit("count ~ spp * mined + (1 | site)", data, family="nbinom2", zero_inflation="~ spp * mined")
    message = next(n for n in m.messages if n.code == "at_a_limit")
    assert "zero_inflation.minedno" in message.evidence["parameters"]
    assert m.separation == ()
    one = rf.fit("count ~ mined + (1 | site)", data, family="poisson", zero_inflation="~ mined")
    assert not any(n.code == "at_a_limit" for n in one.messages)


LARGE = {
    "a level": ("b ~ x + f", "binomial"),
    "the reference": ("b ~ x + C(f, base = 4)", "binomial"),
    "ordered": ("o ~ x + f", "cumulative"),
    "without order": ("o ~ x + f", "multinomial"),
}


@pytest.mark.parametrize("name", LARGE)
def test_levels_of_one_outcome_are_named_in_data_too_large_for_the_program(monkeypatch, name):
    """Whatever the size: the program is that of the columns whose standard errors ran off."""
    formula, family = LARGE[name]
    rng = np.random.default_rng(0)
    f, x = rng.integers(0, 5, 600), rng.normal(size=600)
    b = np.where(f == 3, 1, rng.integers(0, 2, 600))
    o = np.where(f == 3, 3, np.digitize(x + rng.logistic(size=600), [-1, 0, 1]))
    frame = pd.DataFrame({"b": b, "x": x, "f": f.astype(str), "o": pd.Categorical(o, range(4), ordered=True)})
    with pytest.warns(rf.SeparationWarning):
        whole = rf.fit(formula, frame, family=family).separation
    assert whole
    for module in (separation, directions):
        monkeypatch.setattr(module, "LARGEST", 400)
    with pytest.warns(rf.SeparationWarning):
        m = rf.fit(formula, frame, family=family)
    assert m.separation == whole
    assert not any(n.code == "separation_unsearched" for n in m.messages)


def test_what_was_not_looked_at_together_is_told(monkeypatch):
    """A sum of two predictors that separates, in data too large for both: neither does alone."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"u": rng.normal(size=300), "v": rng.normal(size=300), "w": rng.normal(size=300)})
    frame["b"] = (frame["u"] + frame["v"] > 0.1).astype(int)
    with pytest.warns(rf.SeparationWarning, match="separated by u, v"):
        rf.fit("b ~ u + v", frame, family="binomial")
    for module in (separation, directions):
        monkeypatch.setattr(module, "LARGEST", 600)
    m = rf.fit("b ~ u + v", frame, family="binomial")
    assert m.separation == ()
    told = next(n for n in m.messages if n.code == "separation_unsearched")
    assert {"u", "v"} <= set(told.evidence["columns"])
    assert "penalty='firth'" in told.text
    frame["b"] = (frame["u"] + frame["v"] + 0.2 * rng.logistic(size=300) > 0.1).astype(int)  # far, but not to infinity
    overlap = rf.fit("b ~ u + v", frame, family="binomial")
    assert not any(n.code == "separation_unsearched" for n in overlap.messages)


def of_counts(counts, family, least):
    """A level where all counts are the least there is, and beside it the same but for one row."""
    frame = counts.assign(y=np.where(counts["cell"] == "b", least, counts["ones"]))
    mixed = frame.copy()
    mixed.loc[(frame["cell"] == "b").idxmax(), "y"] = least + 2
    return frame, mixed


@pytest.mark.parametrize("link", ["log", "softplus", "inverse"])
@pytest.mark.parametrize(("family", "least"), [("poisson", 0), ("nbinom2", 0), ("truncated_poisson", 1)])
def test_links_that_take_a_mean_to_zero_at_infinity(counts, family, least, link):
    frame, mixed = of_counts(counts, family, least)
    with pytest.warns(rf.SeparationWarning, match=rf"separated by cellb \('b' of 'cell': {least} in all"):
        m = rf.fit("y ~ cell", frame, family=family, link=link)
    assert m.separation == ("cellb",)
    assert rf.fit("y ~ cell", mixed, family=family, link=link).separation == ()


def test_censored_counts_by_a_softplus(counts):
    """The mean of rows that lie below 3 goes to 0."""
    frame = counts.assign(y=3.0 * (counts["cell"] == "b") + counts["ones"] * (counts["cell"] != "b"),
                          low=np.where(counts["cell"] == "b", "left", "none"))  # fmt: skip
    with pytest.warns(rf.SeparationWarning, match="separated by cellb"):
        rf.fit("cens(y, low) ~ cell", frame, family="poisson", link="softplus")


@pytest.mark.parametrize("link", ["sqrt", "identity"])
@pytest.mark.filterwarnings("ignore::ranef.ConvergenceWarning")
def test_links_that_have_a_mean_of_zero_at_a_finite_predictor(counts, link):
    frame, _ = of_counts(counts, "poisson", 0)
    m = rf.fit("y ~ cell", frame, family="poisson", link=link)
    assert m.separation == ()
    assert np.abs(m.params).max() < 10


@pytest.mark.filterwarnings("ignore::ranef.ConvergenceWarning")
def test_the_log_of_a_probability_of_one_is_finite(counts):
    """Means of 1 lie at the predictor 0; means of 0 at minus infinity."""
    frame = counts.assign(one=np.where(counts["cell"] == "b", 1, counts["mixed"]))
    frame["none"] = np.where(counts["cell"] == "b", 0, counts["mixed"])
    assert rf.fit("one ~ cell", frame, family="binomial", link="log").separation == ()
    with pytest.warns(rf.SeparationWarning, match="separated by cellb"):
        rf.fit("none ~ cell", frame, family="binomial", link="log")


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "loglog", "cauchit"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_trials_that_vary_more_than_binomially(counts, link, value):
    rng = np.random.default_rng(4)
    share = rng.binomial(6, rng.beta(2, 2, len(counts))) / 6
    frame = counts.assign(y=np.where(counts["cell"] == "b", value, share), six=6)
    with pytest.warns(rf.SeparationWarning, match="separated by cellb"):
        m = rf.fit("y ~ cell", frame, family="betabinomial", link=link, trials="six")
    assert m.separation == ("cellb",)


SCALES = {
    "one category in the middle": (lambda d: np.where(d["cell"] == "c", 1, d["code"]), "'c' of 'cell': 'mid' in all"),
    "the first and the last": (lambda d: np.where(d["cell"] == "c", d["code"] // 2 * 2, d["code"]), "scale.cellc:"),
}


@pytest.mark.parametrize("link", ["logit", "probit"])
@pytest.mark.parametrize("formula", ["level ~ x", "level ~ x + cell", "level ~ x + cell + (1 | g)"])
@pytest.mark.parametrize("name", SCALES)
@pytest.mark.filterwarnings("ignore::ranef.ConvergenceWarning")
def test_scales_of_ordered_categories(data, name, formula, link):
    """They go to 0 where a middle category is the only one, and grow for ever where it is the only one missing."""
    outcome, says = SCALES[name]
    names = np.array(["low", "mid", "top"])
    frame = data.assign(code=data["level"].cat.codes.to_numpy())
    frame["level"] = pd.Categorical(names[outcome(frame)], names, ordered=True)
    with pytest.warns(rf.SeparationWarning, match=r"scale\.cellc") as told:
        m = rf.fit(formula, frame, family="cumulative", scale="~ cell", link=link)
    assert m.separation == ("scale.cellc",)
    assert any(says in str(warning.message) for warning in told)
    prior = {"scale": rf.prior.normal(0, 2.5)}  # what the text says
    assert rf.fit(formula, frame, family="cumulative", scale="~ cell", link=link, prior=prior).separation == ()
    assert rf.fit(formula, data, family="cumulative", scale="~ cell", link=link).separation == ()


def alike(kind):
    """Groups of three rows of one outcome each."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(40), 3)
    frame = pd.DataFrame({"g": g, "h": g // 4, "x": rng.normal(size=len(g)), "three": 3})
    outcome = rng.integers(0, 3, 40)[g]
    frame["y"] = (
        pd.Categorical(outcome, ordered=True) if kind == "cumulative"
        else np.array(list("abc"))[outcome] if kind == "multinomial" else (outcome > 0).astype(float)
    )  # fmt: skip
    return frame


@pytest.mark.parametrize("quadrature", [1, 9])
@pytest.mark.parametrize(
    ("family", "given"),
    [("binomial", {}), ("binomial", {"link": "probit"}), ("binomial", {"trials": "three"}), ("cumulative", {}),
     ("multinomial", {})],
    ids=str,
)  # fmt: skip
def test_groups_of_one_outcome_each(family, given, quadrature):
    """The log-likelihood has no maximum: it rises to that of the shares of the levels, sum n_k log(n_k / n)."""
    frame, said = alike(family), "one_outcome_each"
    if (family, quadrature) == ("multinomial", 9):
        return  # two effects a level, 81 nodes: seconds
    with pytest.warns(rf.SeparationWarning, match="every level of 'g' has one outcome only"):
        m = rf.fit("y ~ x + (1 | g)", frame, family=family, quadrature=quadrature, **given)
    note = next(n for n in m.messages if n.code == said)
    assert note.evidence["sd"] > 3
    assert not any(n.code == "small_clusters" for n in m.messages)
    key = "b:g" if family == "multinomial" else "g"
    assert f"'sd({key})': rf.prior.half_normal(2.5)" in note.text
    prior = {"sd": rf.prior.half_normal(2.5)}
    kept = rf.fit("y ~ x + (1 | g)", frame, family=family, quadrature=quadrature, prior=prior, **given)
    assert not any(n.code == said for n in kept.messages)
    assert max(v.sd[0] for v in kept.varcorr().values()) < 12


def test_one_group_of_two_outcomes_is_enough():
    frame = alike("binomial")
    for g in range(0, 40, 5):
        frame.loc[frame["g"].eq(g).idxmax(), "y"] = 1 - frame.loc[frame["g"].eq(g).idxmax(), "y"]
    m = rf.fit("y ~ x + (1 | g)", frame, family="binomial", quadrature=9)
    assert not any(n.code == "one_outcome_each" for n in m.messages)


STOPPED = {
    "binomial": ("yes ~ x + cell + (1 | g)", "binomial", {}, "cellb"),
    "counts": ("y ~ x + cell + (1 | g)", "poisson", {}, "cellb"),
    "extra zeros": ("y ~ x + (1 | g)", "poisson", {"zero_inflation": "~ cell"}, "zero_inflation.cellb"),
    "ordered": ("o ~ x + cell + (1 | g)", "cumulative", {}, "cellb"),
    "without order": ("o ~ x + cell", "multinomial", {}, "2.cellb"),
}


def stopped(counts, name):
    formula, family, given, column = STOPPED[name]
    kinds = np.where(counts["cell"] == "b", 2, np.arange(len(counts)) % 3)
    frame = counts.assign(y=np.where(counts["cell"] == "b", 0, counts["ones"]), o=pd.Categorical(kinds, ordered=True))
    return (formula, frame), {"family": family, **given}, column


@pytest.mark.parametrize("name", STOPPED)
def test_a_search_that_stops_early_names_what_separates(counts, name):
    """Before any estimate went far."""
    asked, given, column = stopped(counts, name)
    with pytest.warns(rf.RanefWarning) as told:
        m = rf.fit(*asked, **given, control={"max_evaluations": 2})
    assert column in m.separation
    assert [w.category for w in told] == [rf.ConvergenceWarning, rf.SeparationWarning]
    assert "no optimum to come to, as the outcome is separated by" in str(told[0].message)


@pytest.mark.parametrize("name", STOPPED)
def test_a_search_that_fails_names_what_separates(counts, name, monkeypatch):
    asked, given, column = stopped(counts, name)

    def fails(core, design, task):
        raise ValueError("the search was lost")

    monkeypatch.setattr(laplace, "found", fails)
    with pytest.raises(DataError, match=rf"lost.*: the outcome is separated by .*{column}.*a prior keeps them"):
        rf.fit(*asked, **given)
    formula = asked[0].replace("x + cell", "x").replace("~ cell", "~ x")
    given = {key: "~ x" if key == "zero_inflation" else value for key, value in given.items()}
    with pytest.raises(DataError) as error:
        rf.fit(formula, asked[1], **given)
    assert "separated" not in str(error.value)


def test_what_is_checked_before_the_search_says_why_itself(counts):
    with pytest.raises(DataError, match=r"is constant$"):
        rf.fit("one ~ cell + (1 | g)", counts.assign(one=1.0), family="binomial")


@pytest.mark.parametrize(
    "wish", [{"prior": {"fixed": rf.prior.normal(0, 2.5), "sd": rf.prior.half_normal(1)}}, {"penalty": "firth"}]
)
@pytest.mark.parametrize("outcome", [0, 1])
def test_one_outcome_throughout_has_finite_estimates_with_a_prior(wish, outcome):
    x, g = np.random.default_rng(1).normal(size=60), np.repeat(np.arange(10), 6)
    data = {"y": np.full(60, outcome), "x": x, "g": g}
    with pytest.raises(rf.errors.DataError, match="constant"):
        rf.fit("y ~ x + (1 | g)", data, family="binomial")
    m = rf.fit("y ~ x + (1 | g)", data, family="binomial", **wish)
    assert m.converged
    assert abs(m.params["(Intercept)"]) < 6  # a half of 60 outcomes: log(120) = 4.8


def test_a_threshold_that_goes_along_is_named():
    """The highest category occurs in one level only: its threshold is as infinite as that level's coefficient."""
    level = np.tile(list("abcde"), 24)
    y = np.where(level == "c", 2, np.random.default_rng(3).integers(0, 2, 120))
    data = pd.DataFrame({"g": np.repeat(range(12), 10), "f": level, "y": pd.Categorical(y, ordered=True)})
    with pytest.warns(rf.SeparationWarning, match=r"separated by fc .*nor has threshold\.1\|2; the others have"):
        rf.fit("y ~ f + (1 | g)", data, family="cumulative")


def test_components_beside_a_mean_that_cannot_be_separated():
    """The places of extra zeros are told where no row says anything of the mean."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=100)
    far = {"x": x, "y": np.where(x > 0.3, 0, rng.gamma(2, 1, 100)), "z": np.where(x > 0.3, 1, rng.beta(2, 2, 100))}
    with pytest.warns(rf.SeparationWarning, match="zero_inflation.x"):
        m = rf.fit("y ~ x", far, family="gamma", zero_inflation="~ x")
    assert "separat" in m.summary()
    with pytest.warns(rf.SeparationWarning, match="zoi.x"):
        rf.fit("z ~ x", far, family="zero_one_inflated_beta", zoi="~ x")


def test_coefficients_that_are_equal_go_the_same_way():
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=60), rng.normal(size=60)
    one = rf.fit("y ~ u + v", {"y": u > 0, "u": u, "v": v}, family="binomial", equal=[["u", "v"]])
    assert one.separation == ()
    assert np.abs(one.params).max() < 5
    with pytest.warns(rf.SeparationWarning):
        both = rf.fit("y ~ u + v", {"y": u + v > 0, "u": u, "v": v}, family="binomial", equal=[["u", "v"]])
    assert both.separation == ("u", "v")


def test_rows_without_trials_say_nothing():
    f, trials = np.repeat(["a", "b"], 10), np.ones(20, int)
    success = np.r_[np.tile([0, 1], 5), np.ones(10, int)]
    trials[15] = success[15] = 0
    with pytest.warns(rf.SeparationWarning, match="separated by fb"):
        rf.fit("cbind(s, t - s) ~ f", {"s": success, "t": trials, "f": f}, family="binomial")


def test_all_columns_of_a_cone_are_named():
    """A second direction that a first one does not show: all counts above 0 have z = 1."""
    frame = {
        "x": [-3, -3, -3, -3, -1, 0, 1, 2, -2, -1, 0, 1, 3],
        "z": [0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1],
        "y": [0, 0, 2, 2, *[0] * 9],
    }
    with pytest.warns(rf.SeparationWarning, match="separated by x, z"):
        rf.fit("y ~ x + z", frame, family="poisson")


def test_times_in_seconds_are_separated_as_their_differences():
    t = np.arange(60.0)
    for shift in (0.0, 1.7e9):
        with pytest.warns(rf.SeparationWarning, match="separated by t"):
            rf.fit("y ~ t", {"t": t + shift, "y": t >= 30}, family="binomial")


def test_a_slim_refit_knows_what_separates():
    rng = np.random.default_rng(1)
    x = rng.normal(size=100)
    m = rf.fit("y ~ x", {"x": x, "y": (rng.random(100) < 0.5) * 1.0}, family="binomial").refit((x > 0) * 1.0)
    assert m.separation == m.slim().separation == ("x",)


def censored(family, side):
    """Return data in which every row of a level is censored on one side, and the same with one row observed."""
    rng = np.random.default_rng(7)
    cell = np.repeat(list("abc"), 60)
    y = rng.weibull(1.5, 180) + 0.5
    frame = pd.DataFrame({"y": y / 10 if family == "beta" else y, "cell": cell})
    frame["at"] = np.where(cell == "b", side, np.where(rng.random(180) < 0.2, "right", "none"))
    mixed = frame.copy()
    mixed.loc[60, "at"] = "none"
    return frame, mixed


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["gaussian", "student_t", "lognormal", "gamma", "weibull", "exponential", "beta"])
def test_a_level_without_observed_rows(family, side):
    """Its mean has no bound; at the limit its rows are certain, so that the likelihood is that of the others."""
    frame, mixed = censored(family, side)
    with pytest.warns(rf.SeparationWarning, match=rf"separated by cellb \('b' of 'cell': {side} censored in all 60"):
        m = rf.fit("cens(y, at) ~ cell", frame, family=family)
    assert m.separation == ("cellb",)
    others = rf.fit("cens(y, at) ~ cell", frame[frame["cell"] != "b"], family=family)
    assert m.loglik == pytest.approx(others.loglik, abs=1e-4)  # the search stops where it gains less
    assert rf.fit("cens(y, at) ~ cell", mixed, family=family).separation == ()


def test_means_beyond_bounds_that_lie_at_finite_predictors():
    """The mean of a gamma grows without end towards 1/mean = 0; towards a mean of 0 that predictor is infinite."""
    frame, _ = censored("gamma", "left")
    with pytest.warns(rf.SeparationWarning, match="separated by cellb"):
        rf.fit("cens(y, at) ~ cell", frame, family="gamma", link="inverse")
    frame, _ = censored("gamma", "right")
    with pytest.warns(rf.SeparationWarning, match="separated by cellb"):
        rf.fit("cens(y, at) ~ cell", frame, family="gamma", link="identity")
