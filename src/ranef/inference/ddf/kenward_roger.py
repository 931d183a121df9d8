"""Kenward & Roger's adjusted covariance, degrees of freedom and scaled F (1997; Halekoh & Hojsgaard 2014).

Notation of the articles: Phi = (X'V^-1X)^-1, W = 2 J^-1 with J_ij = tr(P V_i P V_j) the information of REML (twice the
expected one), Theta = L'(L Phi L')^-1 L. The adjusted covariance is

    Phi_A = Phi + 2 Phi [sum_ij W_ij (Q_ij - P_i Phi P_j)] Phi - 1/2 Phi_D,

Phi_D the slope of Phi in the normal part of sum_ij W_ij V_ij. It is zero where V is linear in its parameters. Elsewhere
the article of 1997 takes all of sum_ij W_ij V_ij (its R_ij), which depends on how V is parametrised; Kenward & Roger
(2009) add what the bias of the REML estimates contributes, -1/2 J^-1 t to second order, t_i = tr(P [sum W V] P V_i):
the tangent part. What is left does not depend on the parametrisation. Everything of the size of the data happens in
the core; here are p x p matrices.

Of a fit by maximum likelihood all this is taken at the REML estimates of the variances (pbkrtest, too, fits again by
REML), with a warning; the coefficients tested are the fit's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ranef.engines.covariance import PartialCovariance
from ranef.engines.estimate import Estimate
from ranef.engines.plan import make_plan
from ranef.errors import NotAvailableError, RanefWarning
from ranef.frame.design import Array
from ranef.inference.ddf.forms import Forms, of_linear
from ranef.inference.ddf.gaussian import curvature, instead, linear_entries, objection, padded
from ranef.inference.ddf.method import Joint, Method, basis_of, form, kept, partial_of
from ranef.inference.ddf.satterthwaite import FLAT, covariance, matched, phi
from ranef.inference.dummies import objection as objection_to_dummies
from ranef.inference.dummies import written_out
from ranef.inference.memory import remembered
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit


EXACT = 1e-9  # how far A_1 is from q A_2, relative, where they are equal but for rounding


@dataclass(frozen=True, slots=True)
class KenwardRoger:
    """The ingredients at the estimate, over all coefficients, or over those beside fixed factors of many levels.

    What is of the latter is exact: given the levels they are the coefficients of the response and the columns from
    which these were swept out, and P is the same.

    Attributes
    ----------
    vcov : (p, p) array
        Phi_A; NaN in rows and columns dropped.
    slopes : (m, p, p) array
        -Phi P_i Phi = d Phi / d (variance parameter i).
    spread : (m, m) array
        W, the asymptotic covariance of the variance parameters.
    exact : bool
        Whether W is from the expected information; False: from the average one (Gilmour, Thompson & Cullis 1995).
    """

    vcov: Array
    slopes: Array
    spread: Array
    exact: bool


def check(m: Fit) -> None:
    """Refuse what the method was not derived for; a working linear model of quasi-likelihood is taken for one."""
    if m.method == "pql":
        return
    if not m.distribution.is_gaussian_identity:
        raise NotAvailableError(
            f"ddf='kenward-roger' is derived for gaussian models; for family {m.family!r} it would only be ad hoc, on "
            f"pseudo-data: {instead(m)}"
        )
    if _is_ml(m) and m.design is None:
        raise NotAvailableError(
            "ddf='kenward-roger' is derived for REML estimates of the variances, and a slim fit by maximum likelihood "
            "keeps no rows to find them: fit with method='reml'"
        )
    reason = "" if m.task.linear else objection(m) or _of_wishes(m)
    if reason:
        raise NotAvailableError(f"ddf='kenward-roger' is not available: {reason}; {instead(m)}")


def _is_ml(m: Fit) -> bool:
    """Whether the variances are estimated by maximum likelihood; one residual variance by itself has its own theory."""
    return m.method == "ml" and bool(m.layout.terms or not m.task.linear)


def _of_wishes(m: Fit) -> str:
    """Coefficients of the mean that are held or tied leave fewer columns, and nothing else changes."""
    wishes = m.task.wishes
    if wishes is None:
        return ""
    plan = make_plan(design_of(m, "degrees of freedom"), m.task)
    beside = plan.columns.to[len(m.layout.fixed) :]
    alone = len(set(beside.tolist())) == len(beside) and not (beside < 0).any()
    shared = {*plan.columns.to[: len(m.layout.fixed)].tolist()} & {*beside.tolist()}
    if alone and not (shared or plan.held or plan.tied or plan.priors or wishes.firth):
        return ""
    return "parameters are held, tied or have priors, and it is derived for REML estimates of all variances"


@remembered
def restricted(m: Fit) -> Fit:
    """Return the fit whose variances are used: the fit, or of one by maximum likelihood that by REML.

    Warns
    -----
    RanefWarning
        Where it is not the fit, once a fit.
    """
    if not _is_ml(m):
        return m
    warnings.warn(
        "ddf='kenward-roger' is derived for REML, and the fit is by maximum likelihood: standard errors and degrees of "
        "freedom are those at the REML estimates of the variances, coefficients are the fit's",
        RanefWarning,
        stacklevel=6,
    )
    task = replace(m.task, method="reml")
    core, estimate = m.engine.estimate(design_of(m, "ddf='kenward-roger'"), task)
    return replace(m, task=task, core=core, estimate=estimate)


@remembered
def forms_of(m: Fit) -> Forms:
    """Return the forms in the parameters in which V is linear."""
    check(m)
    m = restricted(m)
    return of_linear(m) if isinstance(m.estimate, Estimate) else linear_entries(m).forms


def home(m: Fit) -> Fit:
    """Return the fit that knows most: by REML, with dummies where the expected information is out of reach without."""
    check(m)
    m = restricted(m)
    if partial_of(m) is None or forms_of(m).exact or objection_to_dummies(m):
        return m
    return written_out(m)


@remembered
def ingredients(m: Fit) -> KenwardRoger:
    """Return the adjusted covariance, the slopes and W of a fit.

    Warns
    -----
    RanefWarning
        If the expected information is out of reach (crossed factors, each of very many levels) and the average one
        stands in for it.
    """
    forms, m = forms_of(m), restricted(m)
    linear = isinstance(m.estimate, Estimate)
    if not forms.exact:
        warnings.warn(
            "ddf='kenward-roger': the expected information of crossed factors with so many levels is out of reach; the "
            "average information stands in for it (same limit; p-values differ little with so many levels)",
            RanefWarning,
            stacklevel=6,
        )
    spread = covariance(_identified(m, forms) if linear and forms.exact else forms.expected)
    change = 2 * np.tensordot(spread, forms.bends, axes=2)
    if linear:
        partial = partial_of(m)
        return KenwardRoger((phi(m) if partial is None else partial.dense) + change, forms.slopes, spread, forms.exact)
    change -= curvature(linear_entries(m), spread) / 2
    return KenwardRoger(phi(m) + padded(m, change), padded(m, forms.slopes), spread, forms.exact)


def _identified(m: Fit, forms: Forms) -> Array:
    """Return the information, zero for what it only seems to know of variances that the fixed effects take all of.

    tr(P V_a P V_a) is then a difference of equal numbers, of which one is tr(Phi X'V^-1 V_a V^-1 X)^2.
    """
    out, cov = forms.expected.copy(), m.estimate.vcov
    cov = cov.dense if isinstance(cov, PartialCovariance) else cov
    here = np.flatnonzero(~np.isnan(cov.diagonal()))
    few = [a for a, (term, _, _) in enumerate(m.core.entries) if len(m.layout.terms[term].levels) <= m.estimate.rank]
    if not few or not len(here):
        return out
    unit = np.sqrt(cov.diagonal()[here])
    inverse = np.linalg.pinv(cov[np.ix_(here, here)] / np.outer(unit, unit), hermitian=True)
    for a in few:
        slope = forms.slopes[a][np.ix_(here, here)] / np.outer(unit, unit)
        taken = inverse @ slope
        if out[a, a] <= FLAT * np.sum(taken * taken.T):
            out[a], out[:, a] = 0.0, 0.0
    return out


def adjusted(m: Fit) -> Array:
    """Return Phi_A."""
    m = home(m)
    found, partial = ingredients(m).vcov, partial_of(m)
    if partial is None:
        return found
    return cast("Array", PartialCovariance(found, partial.columns, partial.wide, OfLevels(m)))


class OfLevels:
    """Entries of Phi_A that involve levels of a fixed factor of many levels: those of the fit with its dummies."""

    def __init__(self, m: Fit) -> None:
        self.m = m

    def _whole(self) -> Array:
        return ingredients(written_out(self.m)).vcov

    def level_variances(self) -> Array:
        """Variances of the levels."""
        partial = partial_of(self.m)
        assert partial is not None
        whole = self._whole().diagonal()
        return np.concatenate([whole[first : first + count] for first, count in partial.wide])

    def covariance_of(self, columns: list[int]) -> Array:
        """Covariances of some coefficients."""
        return self._whole()[np.ix_(columns, columns)]

    def covariance_of_rows(self, rows: Array) -> Array:
        """Covariances of combinations of coefficients."""
        return rows @ np.nan_to_num(self._whole()) @ rows.T


def answering(m: Fit, hypotheses: Array) -> tuple[Fit, Array]:
    """Return the fit whose ingredients know what hypotheses need, and the coefficients that these are of."""
    m = home(m)
    partial = partial_of(m)
    if partial is None or (np.atleast_2d(hypotheses)[:, partial.levels & kept(m)] != 0).any():
        return written_out(m), np.arange(len(m.estimate.beta))
    return m, partial.columns


def degrees(m: Fit, hypotheses: Array) -> Array:
    """Degrees of freedom of each hypothesis: 2 / A_2 = 2 v^2 / (g' W g)."""
    own, columns = answering(m, hypotheses)
    found, here = ingredients(own), kept(m)[columns]
    rows = np.atleast_2d(hypotheses)[:, columns[here]]
    g = np.einsum("ri,mij,rj->mr", rows, found.slopes[:, here][:, :, here], rows, optimize=True)
    v = np.diag(form(own, np.atleast_2d(hypotheses), phi(own)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return matched(v, g, found.spread)


def joint(m: Fit, hypotheses: Array, values: Array, _about: Array) -> Joint:
    """Scaled F and its degrees of freedom (Kenward & Roger 1997, sec. 3; Halekoh & Hojsgaard 2014, sec. 2.3)."""
    own, columns = answering(m, hypotheses)
    found, basis = ingredients(own), basis_of(m, hypotheses, values, phi(own))
    q = len(basis.values)
    if not q:
        return Joint(float("nan"), 0, float("nan"), float("nan"))
    here = np.searchsorted(columns, basis.at)
    cov = basis.rows @ np.nan_to_num(found.vcov[np.ix_(here, here)]) @ basis.rows.T
    unscaled = float(basis.values @ np.linalg.solve(cov, basis.values)) / q
    slopes = np.einsum("ri,mij,sj->mrs", basis.rows, found.slopes[:, here][:, :, here], basis.rows, optimize=True)
    relative = slopes / basis.variances[None, :, None]
    traces = np.trace(relative, axis1=1, axis2=2)
    a1 = float(traces @ found.spread @ traces)
    a2 = float(np.einsum("ij,irs,jsr->", found.spread, relative, relative, optimize=True))
    scale, df = moments(a1, a2, q)
    return Joint(scale * unscaled, q, df, unscaled)


def moments(a1: float, a2: float, q: int) -> tuple[float, float]:
    """Return the scale lambda and the denominator's df m that give F the moments found (exact for Hotelling's T^2)."""
    if q == 1:
        return 1.0, 2 / a2 if a2 else float("inf")
    if a2 == 0:
        return 1.0, float("inf")
    if abs(a1 - q * a2) <= EXACT * a1:  # an exact F test, at which the formulas below are 0/0 if it has 2 df
        return 1.0, 2 * q / a2
    b = (a1 + 6 * a2) / (2 * q)
    g = ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
    base = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / base, (q - g) / base, (q + 2 - g) / base
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.float64((1 + c1 * b) / q) * np.divide(1 - a2 / q, 1 - c2 * b) ** 2 / np.float64(1 - c3 * b)
        df = 4 + (q + 2) / (q * rho - 1)
        return float(df * (1 - a2 / q) / (df - 2)), float(df)


def title(m: Fit) -> str:
    """Return what a table says of the method."""
    return f"{METHOD.title} at REML estimates of the variances" if _is_ml(m) else METHOD.title


METHOD = Method(
    "kenward-roger",
    "Kenward-Roger's standard errors and degrees of freedom",
    check,
    degrees,
    joint,
    adjusted,
    title_of=title,
)
