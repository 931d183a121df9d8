"""Every generalised and distributional model of the established R packages: our numbers beside theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ranef as rf
from golden import glmm
from golden.reference import canonical_group
from ranef.inference.ddf import default_method

# R's optima were polished with Newton steps on exact gradients; logLik is a sum of up to 10^4 terms of size one.
LOGLIK = 1e-6
# A log-likelihood that is good to 1e-6 leaves sqrt(2e-6) standard errors: 1.4e-3 of one. R's own polish is better, so
# 1e-4 of the value or of its standard error, whichever is larger.
ESTIMATE = 1e-4
# Standard errors come from Hessians, ours by central, R's by Richardson differences of exact gradients; dispersions in
# units of their own.
SPREAD = 1e-3
SD_FLOOR = 1e-3  # log-SD packages cannot reach zero: below this an SD is zero


@pytest.fixture
def pair(request):
    return glmm.load(request.param), glmm.fit(request.param)


def where(comparable: Callable[[dict[str, Any]], bool]) -> Any:
    """Ask for those of the references that have what is to be compared."""
    return pytest.mark.parametrize("pair", [n for n in glmm.names() if comparable(glmm.load(n))], indirect=True)


def is_posterior_mean(ref):
    """GLMMadaptive's random effects are, under its quadrature, and so are its fitted values."""
    return ref["id"].startswith("ma_")


def has_stable_errors(ref):
    """clmm's Hessian is a rough difference quotient (tests/engines compares with an exact one); on the boundary of a
    variance R's includes its log-SD.
    """
    return not ref["id"].startswith("clmm") and all(sd >= SD_FLOOR for sd in glmm.spreads(ref).values())


def residuals_of(ref):
    """Return the kinds of residuals that R has, and of which it has our definition.

    glmmTMB divides by another SD (untruncated, of one trial, of the inner beta, of a t scaled otherwise), multiplies
    by the root of what it counts as rows, and leaves extra zeros out of deviances; its ordered beta has residuals from
    the mean of the inner beta.
    """
    found = {kind for kind, values in (ref.get("residuals") or {}).items() if values and None not in values}
    family = ref["family"]
    if family == "ordbeta":
        return set()
    if ref["id"] == "tmb_gaussian_weights":
        found &= {"response"}
    if "truncated" in family or family in ("betabinomial", "t"):
        found -= {"pearson"}
    if "truncated" in family or ref.get("ziformula", "~0") != "~0":
        found -= {"deviance"}
    return found


def predictions_of(ref):
    """Return the types of predictions that R has; of a Gamma's dispersion it has sigma, we the shape, 1 / sigma^2."""
    found = {name for name, values in (ref.get("predictions") or {}).items() if values and None not in values}
    return found - {"disp"} if ref["family"] == "Gamma" else found


def close(ours, theirs, rtol, atol):
    missing = [str(k) for k in theirs if k not in ours]
    assert not missing, f"not in our table: {missing}; it has {sorted(map(str, ours))[:12]}"
    far = {k: (ours[k], v) for k, v in theirs.items() if not abs(ours[k] - v) <= rtol * abs(v) + atol.get(k, 0.0)}
    assert not far, f"(ours, R's): {far}"


def table(m, effects, *keys, value):
    rows = m.tidy(effects)
    return dict(zip(zip(*(rows[k] for k in keys), strict=True), rows[value], strict=True))


@pytest.mark.parametrize("pair", glmm.names(), indirect=True)
def test_reaches_the_optimum(pair):
    ref, m = pair
    assert m.loglik >= glmm.loglik(ref) - LOGLIK, "R has a better optimum"
    assert m.loglik <= glmm.loglik(ref) + LOGLIK + glmm.slack(ref), "not the same likelihood"
    assert m.converged


@where(lambda ref: True)
def test_counts_and_criteria(pair):
    ref, m = pair
    assert m.nobs == ref["nobs"]
    assert m.npar == ref["npar"]
    if "logLik_full" not in ref:
        assert m.aic == pytest.approx(ref["AIC"], abs=4 * LOGLIK + 2 * glmm.slack(ref))
    if "logLik_full" not in ref and not ref["id"].startswith("ma_"):  # GLMMadaptive counts groups in its BIC
        counted = m.npar * np.log(m.layout.counted / m.nobs)  # glmmTMB's BIC counts a row of frequency w as one
        assert m.bic - counted == pytest.approx(ref["BIC"], abs=4 * LOGLIK + 2 * glmm.slack(ref))


@where(lambda ref: True)
def test_coefficients(pair):
    ref, m = pair
    ours = table(m, "fixed", "component", "term", value="estimate")
    se = glmm.coefficients(ref, "se")
    close(ours, glmm.coefficients(ref, "estimate"), ESTIMATE, {k: ESTIMATE * v for k, v in se.items()})


@where(has_stable_errors)
def test_standard_errors(pair):
    ref, m = pair
    theirs = glmm.coefficients(ref, "se")
    ours = table(m, "fixed", "component", "term", value="std_error")
    if not m.task.linear and default_method(m).letter != "z":
        # Linear mixed models have (X'V^-1X)^-1, glmmTMB the joint Hessian of coefficients and variances.
        ours = dict(zip(ours, np.sqrt(np.diag(m.estimate.vcov)), strict=True))
    # Richardson's Hessian of lme4's deviance is noisy in the third digit for the large models, its own is not.
    own = glmm.coefficients(ref, "se_pkg")
    theirs = {k: own[k] if k in own and abs(ours[k] - own[k]) < abs(ours[k] - v) else v for k, v in theirs.items()}
    close(ours, theirs, SPREAD, {})


@where(lambda ref: True)
def test_standard_deviations(pair):
    ref, m = pair
    ours = {
        (t.component, canonical_group(key.removeprefix(f"{t.component}:")), name): sd
        for key, t in m.varcorr().items()
        for name, sd in zip(t.names, t.sd, strict=True)
    }
    theirs = glmm.spreads(ref)
    # Absolute, as those of coefficients: a random effect is one.
    close(ours, theirs, 0.0, {k: SD_FLOOR if v < SD_FLOOR else ESTIMATE for k, v in theirs.items()})


@where(lambda ref: ref.get("sigma") is not None)
def test_dispersion(pair):
    ref, m = pair
    assert m.sigma == pytest.approx(ref["sigma"], rel=SPREAD)


def close_scores(ref, m):
    """glmmTMB 1.1.5 gives the scores of a reduced rank in the place of the modes; their signs are free."""
    ours = rf.scores(m)[["factor1", "factor2"]].to_numpy()
    block = ref["ranef"]["site"]
    theirs = np.array(block["estimate"])[:, :2]
    np.testing.assert_allclose(np.abs(ours[: len(theirs)]), np.abs(theirs), rtol=SPREAD, atol=SPREAD)


@where(lambda ref: not is_posterior_mean(ref))
def test_conditional_modes(pair):
    ref, m = pair
    if ref["id"] == "tmb_cov_rr2":
        close_scores(ref, m)
        return
    rows = m.tidy("ran_vals")
    keys = zip(rows["component"], rows["group"], map(str, rows["level"]), rows["term"], strict=True)
    ours = dict(zip(keys, rows["estimate"], strict=True))
    theirs = {k: v for k, v in glmm.modes(ref).items() if ":" not in k[1]}
    scale = {(c, g.split(".")[0], t): sd for (c, g, t), sd in glmm.spreads(ref).items()}  # a second term is "id.1"
    typical = max(scale.values(), default=0.0)  # R's files keep twelve SDs a term
    near = {k: max(SPREAD * scale.get((k[0], k[1], k[3]), typical), SD_FLOOR * SPREAD) for k in theirs}
    close(ours, theirs, SPREAD, near)


@where(lambda ref: not is_posterior_mean(ref))
def test_fitted(pair):
    ref, m = pair
    fitted = np.asarray(m.fitted())[:6]
    if m.distribution.entry.ordinal:  # clmm's fitted value is the probability of what was observed
        y = m.design.y[:6].astype(int)
        fitted = np.column_stack([m.predict(type="probs")[c] for c in m.spec.categories])[np.arange(6), y]
    if m.family == "ordered_beta":  # glmmTMB's is the mean of the inner beta, not that of the response
        fitted = m.predict(type="mean")[:6]
    scale = max(np.abs(ref["fitted"]))
    np.testing.assert_allclose(fitted, ref["fitted"], rtol=SPREAD, atol=SPREAD * scale)


@pytest.mark.parametrize(
    ("pair", "kind"),
    [(n, kind) for n in glmm.names() for kind in sorted(residuals_of(glmm.load(n)))],
    indirect=["pair"],
)
def test_residuals(pair, kind):
    ref, m = pair
    theirs = ref["residuals"][kind]
    ours = np.asarray(m.residuals(kind))[:6]
    np.testing.assert_allclose(ours, theirs, rtol=SPREAD, atol=SPREAD * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize(
    ("pair", "name"),
    [(n, name) for n in glmm.names() for name in sorted(predictions_of(glmm.load(n)))],
    indirect=["pair"],
)
def test_predictions(pair, name):
    ref, m = pair
    theirs = ref["predictions"][name]
    inner = m.family == "ordered_beta" and name in ("response", "conditional")  # glmmTMB's are of the inner beta
    if name == "disp" and "dispersion" not in m.distribution.parameters:
        assert set(theirs) == {1.0}  # what glmmTMB says of a family that has none
        return
    ours = np.asarray(m.predict(type="mean" if inner else name))[:6]
    np.testing.assert_allclose(ours, theirs, rtol=SPREAD, atol=SPREAD * np.abs(theirs).max())
