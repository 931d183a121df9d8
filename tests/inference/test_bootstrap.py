"""Bootstrap: beside bootMer (loosely), moments of the schemes, reproducibility, failures."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from golden import reference
from ranef.errors import DataError, NotAvailableError, OptionError
from ranef.inference import bootstrap as bootstrapping
from ranef.inference import resampling
from ranef.inference.bootstrap import Bootstrap, Work

SLEEP = "Reaction ~ Days + (Days | Subject)"
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def sleep():
    return rf.fit(SLEEP, rf.datasets.load("sleepstudy"), method="ml")


@pytest.fixture(scope="module")
def pastes():
    return rf.fit("strength ~ 1 + (1 | batch / cask)", rf.datasets.load("Pastes"))


@pytest.fixture(scope="module")
def parametric(sleep):
    return rf.bootstrap(sleep, n=1000, seed=1)


def test_parametric_beside_bootmer(parametric):
    theirs = reference.load("post_sleepstudy_boot").raw
    for i, name in enumerate(["(Intercept)", "Days"]):
        # 500 and 1000 replicates: a standard deviation has a relative error of sqrt(1/1000 + 1/2000) = 4 % each way.
        assert parametric.std_error[i] == pytest.approx(theirs["sd"][name], rel=0.15)
        assert parametric.estimate[i] == pytest.approx(theirs["t0"][name], rel=1e-5)
    assert parametric.std_error[-1] == pytest.approx(theirs["sd"]["sigma"], rel=0.15)
    low, high = parametric.ends(0.95, "percentile")
    assert low[1] == pytest.approx(theirs["percentile_lower"]["Days"], abs=0.6)
    assert high[-1] == pytest.approx(theirs["percentile_upper"]["sigma"], abs=0.8)


def test_generalised_beside_bootmer():
    m = rf.fit(CBPP, rf.datasets.load("cbpp"), family="binomial")
    b = rf.bootstrap(m, n=150, seed=3)
    theirs = reference.load("post_cbpp_boot").raw
    errors = dict(zip(b.names, b.std_error, strict=True))
    for name in ("(Intercept)", "period2", "period3", "period4"):
        assert errors[name] == pytest.approx(theirs["sd"][name], rel=0.3)  # 150 and 300 replicates: 7 %, four of them
    assert not b.failures


def test_dyestuff_standard_errors():
    b = rf.bootstrap(rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"), method="ml"), n=600, seed=2)
    found = dict(zip(b.names, b.std_error, strict=True))
    # Bates (2010): about 6.95 and 16.8; 600 replicates: 3 %.
    assert found["sigma"] == pytest.approx(6.95, rel=0.12)
    assert found["(Intercept)"] == pytest.approx(16.8, rel=0.12)


def test_seed_and_not_threads(sleep):
    one = rf.bootstrap(sleep, n=60, seed=5, threads=1)
    two = rf.bootstrap(sleep, n=60, seed=5, threads=2)
    np.testing.assert_array_equal(one.values, two.values)
    # The first replicates do not depend on how many follow.
    np.testing.assert_array_equal(rf.bootstrap(sleep, n=20, seed=5).values, one.values[:20])
    assert not np.array_equal(rf.bootstrap(sleep, n=20, seed=6).values, one.values[:20])
    free = rf.bootstrap(sleep, n=5)
    np.testing.assert_array_equal(rf.bootstrap(sleep, n=5, seed=free.seed).values, free.values)


def test_a_statistic_of_ones_own(sleep):
    b = rf.bootstrap(
        sleep, lambda fit: {"slope": fit.params["Days"], "sd": fit.varcorr()["Subject"].sd[1]}, n=30, seed=5
    )
    plain = rf.bootstrap(sleep, n=30, seed=5)
    assert b.names == ("slope", "sd")
    # Refits in the core's batch and one by one end at the same optimum, to the search's tolerance.
    np.testing.assert_allclose(b.values[:, 0], plain.values[:, 1], rtol=1e-6)
    assert list(b.confint().columns) == ["parameter", "estimate", "conf_low", "conf_high"]


def test_rescaled_modes_have_the_estimated_covariance(sleep):
    modes, cov = sleep.estimate.modes[0], sleep.estimate.covariances[0]
    scaled = resampling.rescaled(modes, cov)
    np.testing.assert_allclose(scaled.T @ scaled / len(scaled), cov, rtol=1e-10)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("kind", ["residual", "wild", "cases"])
def test_other_schemes_agree_on_fixed_effects(sleep, parametric, kind):
    b = rf.bootstrap(sleep, n=300, kind=kind, seed=1)
    assert not b.failures
    # The design is balanced and near normal: standard errors agree but for 300 replicates (4 %) and 18 groups.
    np.testing.assert_allclose(b.std_error[:2], parametric.std_error[:2], rtol=0.25)


def test_wild_signs_keep_products_of_residuals(sleep):
    draw = resampling.wild(sleep, "hc2", "rademacher")
    mean = resampling.fixed_part(sleep, sleep.design)
    rng = np.random.default_rng(1)
    first, second = (np.abs(draw(rng) - mean) for _ in range(2))
    np.testing.assert_allclose(first, second)
    rng = np.random.default_rng(1)
    w = resampling.factors(rng, 200_000, "mammen")
    # Mean 0, variance 1, third moment 1; standard errors 1/sqrt(200000) times a few.
    np.testing.assert_allclose([w.mean(), w.var(), (w**3).mean()], [0, 1, 1], atol=0.03)


def repeated(groups: int = 15, k: int = 4) -> pd.DataFrame:
    """Groups on k days, with effects of days that correlate and residuals that grow."""
    rng = np.random.default_rng(4)
    shared = 0.7 ** np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    b = rng.multivariate_normal(np.zeros(k), shared, size=groups).repeat(3, axis=0).reshape(groups, 3, k)
    day, g = np.tile(np.arange(k), 3 * groups), np.repeat(np.arange(groups), 3 * k)
    y = b.ravel() + 0.5 * np.exp(0.2 * day) * rng.normal(size=len(day))
    return pd.DataFrame({"y": y, "x": day - 1.5, "day": [f"d{t}" for t in day], "g": g.astype(str)})


@pytest.mark.parametrize("kind", ["residual", "wild"])
def test_a_structure_of_one_column_is_a_plain_term(kind):
    # One model by two engines: the same draws, estimates equal to the searches' accuracy.
    plain = rf.fit("y ~ x + (1 | g)", repeated(), method="ml")
    structured = rf.fit("y ~ x + homdiag(1 | g)", repeated(), method="ml")
    a, b = (rf.bootstrap(m, n=5, kind=kind, seed=1, threads=1) for m in (plain, structured))
    names = ["(Intercept)", "x", "sigma"]
    wanted = [[m.names.index(name) for name in names] for m in (a, b)]
    np.testing.assert_allclose(b.values[:, wanted[1]], a.values[:, wanted[0]], rtol=2e-4, atol=2e-5)


def test_residual_draws_have_the_covariance_of_the_structure():
    m = rf.fit("y ~ x + ar1(0 + day | g)", repeated(60), dispersion="~ x", method="ml")
    draw, parts = resampling.residual(m), resampling.additive(m, "residual")
    rng = np.random.default_rng(1)
    left = np.array([draw(rng) - parts.mean for _ in range(300)]).reshape(-1, 3, 4)
    # Rows of one level at two visits share its effects and nothing else: 18,000 levels, standard errors below 0.02.
    found = np.einsum("gi,gj->ij", left[:, 0], left[:, 1]) / len(left)
    np.testing.assert_allclose(found, m.estimate.covariances[0], atol=0.06)
    spread = parts.spread.reshape(-1, 4)[0]
    np.testing.assert_allclose(left[:, 0].var(axis=0), np.diag(m.estimate.covariances[0]) + spread**2, rtol=0.06)


def test_residuals_of_what_cannot_change_places():
    few = rf.fit("y ~ x + ar1(0 + day | g)", repeated(4), method="ml")
    with pytest.raises(NotAvailableError, match="more levels"):
        rf.bootstrap(few, n=2, kind="residual")
    noisy = rf.fit("y ~ x + (1 | g)", repeated(), dispersion="~ (1 | g)")
    with pytest.raises(NotAvailableError, match="random effects of its own"):
        rf.bootstrap(noisy, n=2, kind="wild")


@pytest.fixture(scope="module")
def kin():
    """Forty families of six; the relationship falls with the distance of two families."""
    rng = np.random.default_rng(4)
    near = 0.8 ** np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    g = np.repeat(np.arange(40), 6)
    x = rng.normal(size=240)
    y = 1 + 0.5 * x + (np.linalg.cholesky(near) @ rng.normal(size=40))[g] + 0.7 * rng.normal(size=240)
    names = [f"f{i}" for i in range(40)]
    data = pd.DataFrame({"y": y, "x": x, "g": np.array(names)[g]})
    return rf.fit("y ~ x + (1 | g)", data, cov={"g": (near, names)}), near


@pytest.mark.parametrize("kind", ["residual", "wild"])
def test_drawn_effects_of_related_levels_are_related(kin, kind):
    m, near = kin
    draw = resampling.residual(m) if kind == "residual" else resampling.wild(m, "hc2", "mammen")
    rng, mean = np.random.default_rng(1), resampling.additive(m, kind).mean
    left = np.array([draw(rng) - mean for _ in range(800)]).reshape(800, 40, 6)
    first, second = left[:, :, :3].mean(axis=2), left[:, :, 3:].mean(axis=2)
    found = first.T @ second / 800
    _, (effects,) = resampling.pools(m, resampling.additive(m, kind), [m.design.terms[0].relation])
    each = np.diag(effects[:, 0]) if kind == "wild" else np.sqrt(m.estimate.covariances[0][0, 0]) * np.eye(40)
    root = m.design.terms[0].relation.correlate(each)  # of wild draws each level keeps the size of its own effect
    root = root[m.design.terms[0].codes[::6]]  # levels are in their own order, rows in that of the families
    # 800 products with variances of about 1 (wild: some larger): standard errors of .05, five of them.
    np.testing.assert_allclose(found, root @ root.T, atol=0.25, rtol=0.15)
    if kind == "residual":
        np.testing.assert_allclose(root @ root.T, m.estimate.covariances[0][0, 0] * near, atol=1e-10)
    assert np.mean((left - left.mean(axis=2, keepdims=True)) ** 2) * 6 / 5 == pytest.approx(m.sigma**2, rel=0.1)


@pytest.mark.parametrize("kind", ["residual", "wild"])
def test_standard_errors_of_related_levels(kin, kind):
    m, _ = kin
    b = rf.bootstrap(m, n=250, kind=kind, seed=2)
    # 250 replicates know standard errors to 1 / sqrt(500) = 4.5 %, three times that; wild ones rest on 40 sizes, too.
    np.testing.assert_allclose(b.std_error[:2], m.tidy("fixed")["std_error"][:2], rtol=0.14)
    assert b.values[:, 2].mean() == pytest.approx(m.varcorr()["g"].sd[0], rel=0.15)


def test_levels_without_rows_are_integrated_out(kin, monkeypatch):
    m, near = kin
    names = [f"f{i}" for i in range(40)]
    lost = m.data[~m.data["g"].isin(["f3", "f21"])]
    part = rf.fit("y ~ x + (1 | g)", lost, precision={"g": (np.linalg.inv(near), names)})
    seen = resampling.observed_relation(part.design.terms[0])
    order = [names.index(level) for level in part.design.terms[0].levels]
    drawn = seen.correlate(np.eye(38))
    known = near[np.ix_(order, order)]
    known[[order.index(3), order.index(21)]] = known[:, [order.index(3), order.index(21)]] = 0
    np.testing.assert_allclose(drawn @ drawn.T, known, atol=1e-10)
    np.testing.assert_allclose(seen.whiten(drawn), np.eye(38), atol=1e-10)
    b = rf.bootstrap(part, n=250, kind="wild", seed=2)
    # 250 replicates know standard errors to 1 / sqrt(500) = 4.5 %, three times that; they rest on 38 sizes, too.
    np.testing.assert_allclose(b.std_error[:2], part.tidy("fixed")["std_error"][:2], rtol=0.14)
    assert len(rf.bootstrap(part, n=2, kind="residual", seed=1)) == 2
    monkeypatch.setattr(resampling, "MOST_OBSERVED", 30)
    with pytest.raises(NotAvailableError, match=r"38 levels of 'g' that have rows, .* up to 30, as 2 others"):
        rf.bootstrap(part, n=2, kind="wild")


def test_a_relationship_is_factorised_once(kin, monkeypatch):
    relation = pickle.loads(pickle.dumps(kin[0].design.terms[0].relation))
    calls = []
    make = type(relation)._factorised
    monkeypatch.setattr(type(relation), "_factorised", lambda self: calls.append(1) or make(self))
    for _ in range(3):
        relation.correlate(np.ones((40, 1)))
    assert len(calls) == 1


def test_one_of_sigma_and_the_dispersion_is_reported():
    m = rf.fit("y ~ x + ar1(0 + day | g)", repeated(), method="ml")
    b = rf.bootstrap(m, n=6, seed=1)
    assert "sigma" in b.names
    assert "dispersion.(Intercept)" not in b.names
    twin = b.all.names.index("dispersion.(Intercept)")
    np.testing.assert_allclose(np.exp(b.all.values[:, twin]), b.values[:, b.names.index("sigma")])
    table = rf.confint(m, method="boot", which=["dispersion.(Intercept)", "sigma"], n=40, seed=1)
    np.testing.assert_allclose(np.exp(table["conf_low"][0]), table["conf_low"][1], rtol=0.02)  # one quantile of two
    assert len(b.ends(0.9, "bca")[0]) == len(b.names)


def test_wild_needs_independent_groups():
    m = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    with pytest.raises(NotAvailableError, match="'plate' is crossed with 'sample'"):
        rf.bootstrap(m, n=2, kind="wild")


def test_cases_draw_whole_groups(pastes):
    design = pastes.design
    draw = resampling.cases(pastes, None)
    new = draw(np.random.default_rng(4))
    batch, cask = new.terms
    assert len(batch.levels) == 10
    assert resampling.is_nested(cask.codes, batch.codes)
    y, old = np.asarray(new.y), np.asarray(design.y)
    for g in range(10):  # each new group is one of the old ones, row by row
        assert any(np.array_equal(y[batch.codes == g], old[design.terms[0].codes == h]) for h in range(10))


def test_cases_at_chosen_levels(pastes):
    design = pastes.design
    new = resampling.cases(pastes, ["batch:cask"])(np.random.default_rng(4))
    # Batches stay; casks are drawn within their batch.
    assert np.bincount(new.terms[0].codes).tolist() == [6] * 10
    assert len(new.terms[1].levels) == 30
    rows = resampling.cases(pastes, ["batch", "rows"])(np.random.default_rng(4))
    assert rows.n == design.n
    with pytest.raises(OptionError, match="batch:cask"):
        rf.bootstrap(pastes, n=2, kind="cases", levels="cask")


def test_cases_with_a_crossed_factor_keep_its_levels():
    m = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    new = resampling.cases(m, "sample")(np.random.default_rng(2))
    plates = next(t for t in new.terms if t.label == "plate")
    assert len(plates.levels) == 24


def test_methods_of_intervals(parametric, sleep):
    t0, r = parametric.estimate, parametric.values
    low, high = parametric.ends(0.9, "percentile")
    np.testing.assert_allclose(low[0], np.quantile(r[:, 0], 0.05, method="weibull"))
    basic = parametric.ends(0.9, "basic")
    np.testing.assert_allclose(basic[0][0], 2 * t0[0] - high[0])
    normal = parametric.ends(0.9, "normal")
    half = stats.norm.ppf(0.95) * r[:, 0].std(ddof=1)
    np.testing.assert_allclose(normal[1][0], t0[0] - (r[:, 0].mean() - t0[0]) + half)
    # BCa by the book for one component.
    z0 = stats.norm.ppf((r[:, 1] < t0[1]).mean())
    a = parametric.acceleration[1]
    z = stats.norm.ppf([0.05, 0.95])
    p = stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))
    np.testing.assert_allclose([v[1] for v in parametric.ends(0.9, "bca")], np.quantile(r[:, 1], p, method="weibull"))
    # A mean's acceleration is a sixth of the skewness of its influence: small in a balanced design.
    assert np.abs(parametric.acceleration[:2]).max() < 0.1
    for method in ("percentile", "basic", "normal", "bca"):
        ends = np.array(parametric.ends(0.95, method))
        assert (ends[0] <= ends[1]).all()
        assert (ends[:, 2:4] >= 0).all()
        assert (np.abs(ends[:, 4]) <= 1).all()


def test_failures_are_counted_and_too_many_refused(sleep):
    def fails_often(fit):
        if fit.params["Days"] > 10.5:
            raise ArithmeticError("no answer above 10.5")
        return fit.params["Days"]

    b = rf.bootstrap(sleep, fails_often, n=40, seed=1)
    assert 10 < len(b.failures) < 30
    assert "no answer" in repr(b)
    with pytest.raises(DataError, match="max_failures"):
        b.confint()
    rf.bootstrap(sleep, fails_often, n=40, seed=1, max_failures=1).confint()
    assert len(b.replicates) == 40 - len(b.failures)


def test_bootstrap_object(sleep):
    b = rf.bootstrap(sleep, n=25, seed=1)
    assert isinstance(b, Bootstrap)
    assert list(b.summary().columns) == ["parameter", "estimate", "mean", "bias", "std_error", "replicates"]
    assert list(b.replicates.columns) == ["replicate", *b.names]
    assert b.confint()["term"].tolist()[-1] == "sd__Observation"
    assert "25 replicates, 0 failed, seed 1" in repr(b)


def test_weights_and_conditional_modes():
    data = rf.datasets.load("sleepstudy")
    data["w"] = np.linspace(0.5, 3, len(data))
    m = rf.fit(SLEEP, data, precision_weights="w")
    draw = resampling.parametric(m, "conditional")
    rng = np.random.default_rng(1)
    left = np.array([(draw(rng) - m.fitted()) * np.sqrt(data["w"]) for _ in range(400)])
    # 72000 standard normals times sigma.
    assert left.std() == pytest.approx(m.sigma, rel=0.01)
    assert rf.bootstrap(m, n=3, seed=1, kind="residual").values.shape == (3, 6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "jackknife"}, "cases"),
        ({"n": 0}, "positive"),
        ({"re": "old"}, "conditional"),
        ({"seed": -1}, "not negative"),
        ({"max_failures": 2}, "between 0 and 1"),
        ({"kind": "wild", "auxiliary": "normal"}, "mammen"),
    ],
)
def test_bad_options(sleep, options, text):
    with pytest.raises(OptionError, match=text):
        rf.bootstrap(sleep, **{"n": 2, **options})


def test_what_a_generalised_model_cannot():
    m = rf.fit(CBPP, rf.datasets.load("cbpp"), family="binomial")
    with pytest.raises(NotAvailableError, match="parametric"):
        rf.bootstrap(m, n=2, kind="residual")


def test_censored_responses_are_drawn_by_cases_only():
    data = rf.datasets.load("sleepstudy")
    data["above"] = data["Reaction"] > 350
    data["seen"] = data["Reaction"].clip(upper=350)
    m = rf.fit("cens(seen, above) ~ Days + (1 | Subject)", data)
    with pytest.raises(NotAvailableError, match="cases"):
        rf.bootstrap(m, n=2)
    assert len(rf.bootstrap(m, n=2, seed=1, kind="cases")) == 2


def test_generalised_refits_together_are_those_one_by_one(monkeypatch):
    data = rf.datasets.load("cbpp")
    m = rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial")
    together = rf.bootstrap(m, n=30, seed=3)
    assert not together.failures
    np.testing.assert_array_equal(together.values, rf.bootstrap(m, n=30, seed=3, threads=2).values)
    monkeypatch.setattr(Work, "_together", lambda _: False)
    # The same fits of the same responses: to the optimiser's rounding.
    np.testing.assert_allclose(together.values, rf.bootstrap(m, n=30, seed=3).values, rtol=1e-8, atol=1e-10)


def test_drawn_responses_that_cannot_be_fitted_are_named(monkeypatch):
    data = rf.datasets.load("cbpp")
    m = rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial")
    calls = iter(range(100))

    def source(*_):
        y = np.asarray(m.design.y)
        return (lambda _: np.full(len(y), np.nan) if next(calls) == 2 else y,)

    monkeypatch.setattr(bootstrapping, "_source", source)
    found = rf.bootstrap(m, n=5, seed=1)
    assert list(found.failures) == [2]
    np.testing.assert_allclose(found.values, np.tile(found.estimate, (4, 1)), atol=1e-6)  # the fit's own response


# ---- what responses can be drawn for ---------------------------------------------------------------------------------


def test_rows_that_stand_for_several_have_a_response_each():
    """The replicates are those of the repeated rows, number by number."""
    data = rf.datasets.load("sleepstudy")
    w = 1 + np.arange(180) % 3
    repeated = data.loc[np.repeat(np.arange(180), w)].reset_index(drop=True)
    m = rf.fit("Reaction ~ Days + (1 | Subject)", data, frequency_weights=w)
    rows = rf.fit("Reaction ~ Days + (1 | Subject)", repeated, method="ml", dispersion="~ 1")
    found, expected = (rf.bootstrap(x, n=20, seed=1) for x in (m, rows))
    at = [found.names.index(name) for name in expected.names]
    # Two engines search for the same optima.
    np.testing.assert_allclose(found.values[:, at], expected.values, rtol=1e-3)
    assert rf.r2(m).marginal == pytest.approx(rf.r2(rows).marginal, rel=1e-5)
    a, b = (rf.repeatability(x, n_boot=10, seed=1) for x in (m, rows))
    assert a["std_error"][0] == pytest.approx(b["std_error"][0], rel=1e-3)
    with pytest.raises(NotAvailableError, match=r"must be whole numbers; one is 0\.5"):
        rf.bootstrap(m.update(frequency_weights=np.full(180, 0.5)), n=2)


def test_a_ratio_is_drawn_for_all_rows_that_are_counted():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(12), 5)
    data = {"g": g, "x": rng.standard_normal(60), "y": rng.poisson(np.exp(0.5 + 0.4 * rng.standard_normal(12)[g]))}
    m = rf.fit("y ~ x + (1 | g)", data, family="poisson", frequency_weights=np.full(60, 5))
    draws = rf.pb_test(m, m.update(". ~ 1 + (1 | g)"), n=100, seed=1).draws
    assert draws.mean() < 1.6  # chi-square of 1: mean 1, standard error 0.14; counting equal rows makes it 5


def test_censored_responses_are_not_drawn():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(10), 6)
    latent = rng.standard_normal(60) + rng.standard_normal(10)[g]
    data = {"g": g, "y": np.maximum(latent, 0), "low": np.where(latent < 0, "left", "none")}
    m = rf.fit("cens(y, low) ~ 1 + (1 | g)", data)
    for call in (
        lambda: rf.bootstrap(m, n=2),
        lambda: rf.pb_test(m, rf.fit("cens(y, low) ~ 1", data), n=2),
        lambda: rf.repeatability(m, n_boot=2),
    ):
        with pytest.raises(NotAvailableError, match="does not say which rows are censored"):
            call()


def codes(found: Bootstrap) -> list[str]:
    return [note.code for note in found.notes]


def test_notes_on_cases(sleep, pastes):
    assert codes(rf.bootstrap(sleep, n=2, kind="cases", seed=1)) == []
    alone = rf.bootstrap(sleep, n=2, kind="cases", levels="rows", seed=1)
    assert codes(alone) == ["rows"]
    assert "draw groups, levels='Subject'" in repr(alone)
    crossed = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    assert codes(rf.bootstrap(crossed, n=2, kind="cases", seed=1)) == ["few_groups", "crossed"]
    with pytest.raises(OptionError, match="crossed with them, and not drawn: 'plate'"):
        rf.bootstrap(crossed, n=2, kind="cases", levels="plate")


def test_one_group_cannot_be_drawn():
    rng = np.random.default_rng(1)
    data = {"px": rng.uniform(size=30), "py": rng.uniform(size=30), "one": ["a"] * 30, "y": rng.standard_normal(30)}
    m = rf.fit("y ~ 1 + exp(0 + px + py | one)", data)
    with pytest.raises(DataError, match="'one' has one"):
        rf.bootstrap(m, n=2, kind="cases")


@pytest.mark.filterwarnings("ignore::ranef.errors.SeparationWarning")
def test_notes_on_draws():
    x, g = np.repeat([0, 1], 20), np.tile(np.arange(8), 5)
    m = rf.fit("y ~ x + (1 | g)", {"x": x, "g": g, "y": x}, family="binomial")
    assert codes(rf.bootstrap(m, n=2, seed=1)) == ["separated"]
    assert np.isnan(rf.robust(m)["std_error"]).all()
    assert codes(rf.bootstrap(m.update(penalty="firth"), n=2, seed=1)) == ["prior"]
    data = rf.datasets.load("sleepstudy")
    survey = rf.fit("Reaction ~ Days + (1 | Subject)", data, sampling_weights=np.ones(180))
    assert codes(rf.bootstrap(survey, n=2, seed=1)) == ["survey"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"family": "sratio"},
        {"family": "acat"},
        {"family": "cumulative"},
        {"family": "cumulative", "threshold": "equidistant"},
        {"family": "cumulative", "nominal": "~ contact"},
        {"family": "cumulative", "scale": "~ contact"},
    ],
    ids=lambda a: "-".join(a.values()),
)
def test_ordered_categories_in_the_cores_threads_are_as_one_by_one(arguments, monkeypatch):
    m = rf.fit("rating ~ temp + (1 | judge)", rf.datasets.load("wine"), **arguments)
    together = rf.bootstrap(m, n=10, seed=1)
    monkeypatch.setattr("ranef.inference.bootstrap.Work._together", lambda _: False)
    np.testing.assert_allclose(together.values, rf.bootstrap(m, n=10, seed=1).values, rtol=1e-9)


@pytest.mark.parametrize("family", ["sratio", "cumulative"])
def test_draws_without_a_category_fail(family):
    rng = np.random.default_rng(2)
    y = np.repeat([0, 1, 2], [20, 20, 2])
    levels = pd.Categorical(np.array(list("abc"))[y], list("abc"), ordered=True)
    m = rf.fit("y ~ x + (1 | g)", pd.DataFrame({"y": levels, "x": rng.normal(size=42), "g": np.arange(42) % 8}),
               family=family)  # fmt: skip
    found = rf.bootstrap(m, n=40, seed=1, max_failures=1.0)
    assert 0 < len(found.failures) < 20  # a tenth of the draws: (1 - 2 / 42)^42 = 0.13
    assert all("a category without rows" in why for why in found.failures.values())
