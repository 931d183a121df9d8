"""A row of frequency w stands for w equal rows, in every function of a fit that counts rows."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import NotAvailableError

MODELS = {
    "gaussian": ("y ~ x * f + (1 | g)", {"method": "ml"}),
    "poisson": ("c ~ x + f + (1 | g)", {"family": "poisson"}),
    "binomial": ("b ~ x + (1 | g)", {"family": "binomial"}),
}
TIGHT = {"control": {"tolerance": 1e-13}}  # searches then end where rounding lets them
# Optima of two codings of one likelihood agree to about the square root of the search's tolerance.
CLOSE = {"rtol": 2e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def data():
    noise = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    x, u = noise.normal(size=72), noise.normal(size=12)[g]
    out = pd.DataFrame({"g": g.astype(str), "x": x, "f": noise.choice(list("abc"), 72)})
    return out.assign(
        y=1 + 0.5 * x + u + noise.normal(size=72),
        c=noise.poisson(np.exp(0.3 + 0.3 * x + 0.5 * u)),
        b=(noise.random(72) < 1 / (1 + np.exp(-0.6 * x - u))).astype(float),
        w=noise.integers(1, 4, 72),
    )


@pytest.fixture(scope="module")
def pairs(data):
    rows = data.loc[np.repeat(data.index, data["w"])].reset_index(drop=True)
    return {
        name: (rf.fit(formula, data, frequency_weights="w", **more), rf.fit(formula, rows, **more))
        for name, (formula, more) in MODELS.items()
    }


@pytest.mark.parametrize("name", ["poisson", "binomial"])
def test_conditional_aic(pairs, name):
    counted, repeated = (rf.caic(m) for m in pairs[name])
    np.testing.assert_allclose([counted.caic, counted.df], [repeated.caic, repeated.df], **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_partial_r2(pairs, name):
    counted, repeated = (rf.partial_r2(m)["r2"] for m in pairs[name])
    np.testing.assert_allclose(counted, repeated, **CLOSE)


@pytest.mark.parametrize("name", ["poisson", "binomial"])
@pytest.mark.parametrize("kind", ["CR0", "CR1S", "CR2", "CR3"])
def test_robust_covariances(pairs, name, kind):
    counted, repeated = (rf.robust(m, kind) for m in pairs[name])
    for column in ("std_error", "df"):
        np.testing.assert_allclose(counted[column], repeated[column], **CLOSE)


@pytest.mark.parametrize("ddf", ["between-within", "residual", "inner-outer"])
@pytest.mark.parametrize("name", MODELS)
def test_degrees_of_freedom_by_rules(pairs, name, ddf):
    counted, repeated = (m.tidy(ddf=ddf)["df"].to_numpy() for m in pairs[name])
    np.testing.assert_array_equal(counted[: len(repeated)], repeated)


@pytest.mark.parametrize("type_", [1, 2, 3])
def test_hypotheses_of_every_type(pairs, type_):
    counted, repeated = (rf.anova(m, type=type_) for m in pairs["gaussian"])
    np.testing.assert_allclose(counted["sumsq"], repeated["sumsq"], **CLOSE)
    np.testing.assert_allclose(counted["statistic"], repeated["statistic"], **CLOSE)


@pytest.mark.parametrize("name", ["poisson", "binomial"])
def test_marginal_coefficients(pairs, name):
    counted, repeated = (rf.marginal_coefficients(m)["marginal"] for m in pairs[name])
    np.testing.assert_allclose(counted, repeated, **CLOSE)


# ---- gaussian models: everything that inference returns --------------------------------------------------------------


@pytest.fixture(scope="module", params=["reml", "ml"])
def twins(request, data):
    """A linear mixed model of rows that are counted, with weights and an offset, and of as many rows."""
    data = data.assign(v=np.linspace(0.5, 2, 72), o=np.linspace(-1, 1, 72), h=[*"uvwxyz"] * 12)
    rows = data.loc[np.repeat(data.index, data["w"])].reset_index(drop=True)
    more = {"method": request.param, "precision_weights": "v", "offset": "o", **TIGHT}
    formula = "y ~ x * f + (1 | g)"
    return rf.fit(formula, data, frequency_weights="w", **more), rf.fit(formula, rows, **more)


def numbers_of(found):
    """All numbers of an answer in one row; those of the dispersion's coefficient apart, which one of the fits has."""
    if hasattr(found, "to_frame") and not isinstance(found, pd.DataFrame):
        found = found.to_frame()
    if isinstance(found, pd.DataFrame):
        found = found[found["component"] != "dispersion"] if "component" in found else found
        found = found.select_dtypes("number")
    elif is_dataclass(found):
        found = [v for v in (getattr(found, f.name) for f in fields(found)) if isinstance(v, (float, int))]
    return np.ravel(np.asarray(found, dtype=float))


QUESTIONS = {
    "figures": lambda m: [m.aic, m.bic, m.aicc, m.loglik, m.df_residual, m.sigma, m.npar],
    "compare": rf.compare,
    "tidy": lambda m: m.tidy(),
    "tidy KR": lambda m: m.tidy(ddf="kenward-roger"),
    "tidy inner-outer": lambda m: m.tidy(ddf="inner-outer"),
    "tidy between-within": lambda m: m.tidy(ddf="between-within"),
    "tidy residual": lambda m: m.tidy(ddf="residual"),
    "tidy profile": lambda m: m.tidy(method="profile", effects="fixed"),
    "vcov": lambda m: np.asarray(m.vcov()),
    "varcorr": lambda m: m.varcorr().to_frame(),
    "ranef": lambda m: m.ranef()["g"],
    "anova 1": lambda m: rf.anova(m, type=1),
    "anova 2": lambda m: rf.anova(m, type=2),
    "anova 3": rf.anova,
    "anova KR": lambda m: rf.anova(m, ddf="kenward-roger"),
    "anova CR2": lambda m: rf.anova(m, vcov="CR2"),
    "anova of two": lambda m: rf.anova(m.update(". ~ . - x:f"), m),
    "drop1": rf.drop1,
    "drop1 F": lambda m: rf.drop1(m, test="F"),
    "add1": lambda m: rf.add1(m, "h"),
    "ranova": rf.ranova,
    "contrast": lambda m: rf.contrast(m, ["fb - fc", "x"]),
    "contrast jointly": lambda m: rf.contrast(m, ["fb - fc", "x"], joint=True, ddf="kenward-roger"),
    "contrast profile": lambda m: rf.contrast(m, "fb - fc", method="profile"),
    "contrast boot": lambda m: rf.contrast(m, "fb - fc", method="boot", n=49, seed=1),
    "confint": rf.confint,
    "confint profile": lambda m: rf.confint(m, method="profile"),
    "confint boot": lambda m: rf.confint(m, method="boot", n=49, seed=1),
    "profile": lambda m: rf.profile(m, ["x", "sd((Intercept) | g)"]).confint(),
    **{kind: lambda m, kind=kind: rf.robust(m, kind) for kind in ("CR0", "CR1", "CR1S", "CR2", "CR3")},
    "robust two ways": lambda m: rf.robust(m, "CR1S", cluster=["g", "f"]),
    **{
        kind: lambda m, kind=kind: rf.bootstrap(m, n=9, seed=1, kind=kind).values
        for kind in ("parametric", "residual", "wild", "cases")
    },
    "rows drawn": lambda m: rf.bootstrap(m, n=9, seed=1, kind="cases", levels=["g", "rows"]).values,
    "pb_test": lambda m: rf.pb_test(m.update(". ~ . - x:f"), m, n=49, seed=1),
    "exact_rlrt": lambda m: rf.exact_rlrt(m, n=99, seed=1),
    "exact_rlrt of a term": lambda m: rf.exact_rlrt(m, term="g", n=99, seed=1),
    "exact_lrt": lambda m: rf.exact_lrt(m, n=99, seed=1),
    "permutation": lambda m: rf.permutation_test(m, "x", n=49, seed=1).null,
    "permutation of groups": lambda m: rf.permutation_test(m, "g", n=49, seed=1).null,
    "caic": rf.caic,
    "icc": rf.icc,
    "repeatability": rf.repeatability,
    "r2": rf.r2,
    "partial_r2": rf.partial_r2,
    "variance_decomposition": rf.variance_decomposition,
    "vuong": lambda m: rf.vuong(m.update("y ~ x + (1 | g)"), m.update("y ~ h + (1 | g)")).table,
    "vuong of rows": lambda m: rf.vuong(m.update("y ~ x", method="ml"), m.update("y ~ h", method="ml")).table,
}


@pytest.mark.filterwarnings("ignore::ranef.RanefWarning")
@pytest.mark.parametrize("name", QUESTIONS)
def test_gaussian_models_say_what_they_say_of_as_many_rows(twins, name):
    counted, repeated = (numbers_of(QUESTIONS[name](m)) for m in twins)
    assert len(repeated)
    np.testing.assert_allclose(counted, repeated, rtol=1e-6, atol=1e-7)


def test_groups_given_row_by_row(twins):
    counted, repeated = twins
    by = np.repeat(np.arange(24), 3)
    found = rf.permutation_test(counted, "x", n=19, within=by, seed=2)
    rows = np.repeat(by, counted.design.frequencies.astype(int))
    np.testing.assert_array_equal(found.null, rf.permutation_test(repeated, "x", n=19, within=rows, seed=2).null)


def test_counts_that_are_none_or_too_many(twins, monkeypatch):
    counted = twins[0]
    half = counted.update(frequency_weights=np.full(72, 0.5))
    for question in (rf.caic, rf.exact_rlrt, lambda m: rf.permutation_test(m, "x")):
        with pytest.raises(NotAvailableError, match=r"whole numbers; one is 0\.5"):
            question(half)
    assert np.isfinite(rf.robust(half)["df"]).all()  # sums over clusters need no whole numbers
    monkeypatch.setattr("ranef.inference.resampling.MOST_REPEATED", 100)
    with pytest.raises(NotAvailableError, match="in all, and up to 100 are written out"):
        rf.caic(counted)


def test_dispersion_counts_rows(pairs):
    counted, repeated = (rf.overdispersion(m).to_frame() for m in pairs["poisson"])
    for column in ("statistic", "df"):
        np.testing.assert_allclose(counted[column], repeated[column], **CLOSE)
