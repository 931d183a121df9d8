"""`information(m)`: Fisher information of all parameters, coefficients and (co)variances together.

Where S is the information of the variances gamma with the coefficients profiled out and C = X'V^-1 dV V^-1 e, that of
both is [[X'V^-1X, C], [C', S + C'MC]]; the expected C is 0 (McCulloch & Searle 2001, section 6.11). After REML S is
that of the restricted likelihood. Models of the Laplace engine have the inverse of their joint covariance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array, Estimate, LaplaceEstimate
from ranef.engines.linear import cells
from ranef.errors import NotAvailableError, OptionError, nearest
from ranef.inference import information as fisher
from ranef.inference.crossproducts import cross, one_grouping, sizes
from ranef.inference.ddf import gaussian as gaussians
from ranef.inference.ddf.directions import RESIDUAL as RESIDUALS
from ranef.inference.ddf.directions import Direction, of_covariance
from ranef.inference.ddf.forms import in_entries, of_linear
from ranef.inference.ddf.method import kept
from ranef.inference.dummies import written_out
from ranef.inference.named import named_matrix, names_of
from ranef.inference.robust.generalised import check_likelihood
from ranef.inference.robust.moments import RESIDUAL, entries, levels_times, precision
from ranef.inference.robust.working import working
from ranef.model import check_fit, design_of

if TYPE_CHECKING:
    from ranef.model import Fit

KINDS = ("observed", "expected")
OUT_OF_REACH = (
    "information: the expected one is out of reach for crossed factors of so many levels: use kind='observed'"
)


def information(m: Fit, kind: str = "observed") -> Any:
    """Fisher information of all parameters; its inverse is their asymptotic covariance.

    Parameters
    ----------
    m : Fit
        A fitted model, not slim.
    kind : "observed" | "expected"
        Minus the second derivatives of the log-likelihood at the estimate, or their expectation (models with a normal
        response, whatever the covariance structures).

    Returns
    -------
    named matrix
        A data frame where pandas came in. Linear models: coefficients, variances and covariances of the random effects
        ("var(Days | Subject)", "cov((Intercept), Days | Subject)"), residual variance ("sigma2"); after REML the
        block of the variances is that of the restricted likelihood. Others, gaussian models with covariance structures
        too: coefficients of all components and entries of theta ("theta1", …, in the order of `m.theta`; unconstrained
        parameters of structures). Coefficients dropped are left out.

    Raises
    ------
    OptionError
        If there is no such kind.
    NotAvailableError
        If the fit is slim, a covariance is singular (observed: on the boundary the likelihood has no quadratic top),
        estimates are penalised, held or tied, the expected information of a model whose response is not normal is asked
        for, or the expected one needs crossed factors of too many levels.

    Examples
    --------
    >>> import numpy as np, ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), method="ml")
    >>> np.sqrt(np.diag(np.linalg.inv(rf.information(m)))).round(3)
    array([  6.632,   1.502, 265.266,  42.876,  13.573,  77.186])
    """
    check_fit(m, "information")
    if kind not in KINDS:
        raise OptionError(f"information: kind={kind!r} is unknown; {nearest(kind, KINDS)}")
    design_of(m, "information")
    m = written_out(m)
    names = np.array(names_of(m, "all")[0], dtype=object)[kept(m)].tolist()
    if not m.task.linear:
        values, names = _generalised(m, kind), [*names, *(f"theta{j + 1}" for j in range(len(m.theta)))]
    else:
        values, names = _linear(m, kind), [*names, *(e.label for e in entries(m)), RESIDUAL]
    return named_matrix(tuple(names), values, m.layout.kind)


def _generalised(m: Fit, kind: str) -> Array:
    check_likelihood(m, "information", restricted=True)
    if m.design is not None and m.design.sampling is not None:
        raise NotAvailableError("information: a survey's pseudo-likelihood has none; m.vcov() is its sandwich")
    here = np.append(kept(m), np.ones(len(m.theta), dtype=bool))
    if kind == "expected":
        return _expected_of_laplace(m)[np.ix_(here, here)]
    assert isinstance(m.estimate, LaplaceEstimate)
    joint = np.asarray(m.estimate.joint())[np.ix_(here, here)]
    if not np.isfinite(joint).all():
        raise NotAvailableError("information: some parameters are on a boundary, where there is no quadratic top")
    return np.linalg.inv(joint)


def _expected_of_laplace(m: Fit) -> Array:
    """Return the information of all coefficients and theta of a normal response, from the forms of its V."""
    if reason := gaussians.objection(m):
        raise NotAvailableError(f"information: the expected one is not known: {reason}; use kind='observed'")
    found = gaussians.gaussian(m)
    p, at = len(m.estimate.beta), found.derivatives.at
    mean = np.flatnonzero(kept(m)[: len(m.layout.fixed)])
    out = np.zeros((p + len(m.theta), p + len(m.theta)))
    out[np.ix_(mean, mean)] = np.linalg.inv(found.space.phi[np.ix_(mean, mean)])
    out[np.ix_(at, at)] = found.forms.expected / 2
    if not found.forms.exact:
        raise NotAvailableError(OUT_OF_REACH)
    if len(mean) + len(at) < kept(m).sum() + len(m.theta):
        raise NotAvailableError(
            "information: there is next to no residual variance, and what is known of it is lost to rounding: hold it, "
            "dispersion=0"
        )
    return out


def _linear(m: Fit, kind: str) -> Array:
    bread = working(m).bread
    top = np.asarray(np.linalg.inv(bread), dtype=np.float64)
    if kind == "expected":
        return _joined(top, np.zeros((len(top), len(entries(m)) + 1)), expected(m))
    mixed = crossed(m)
    return _joined(top, mixed, observed(m) + mixed.T @ bread @ mixed)


def _joined(top: Array, mixed: Array, low: Array) -> Array:
    return np.block([[top, mixed], [mixed.T, low]])


def crossed(m: Fit) -> Array:
    """Return C = X'V^-1 (dV / d gamma) V^-1 e, (r, c + 1)."""
    w, times, columns = working(m), levels_times(m), []
    for e in entries(m):
        zx, ze = times[e.term]
        column = np.einsum("lr,l->r", zx[:, e.i], ze[:, e.j])
        columns.append(column if e.i == e.j else column + np.einsum("lr,l->r", zx[:, e.j], ze[:, e.i]))
    return np.column_stack([*columns, w.solved.T @ (w.white / precision(m))])


# ---- variances -------------------------------------------------------------------------------------------------------


def observed(m: Fit) -> Array:
    """Half the Hessian of the profiled deviance in (theta, sigma), turned into variances; the gradient is 0 there."""
    e = m.estimate
    assert isinstance(e, Estimate)
    if e.boundary:
        term = m.layout.terms[e.boundary[0][0]]
        raise NotAvailableError(
            f"information: the covariance of ({' + '.join(term.names)} | {term.key}) is singular, and on the boundary "
            f"the likelihood has no quadratic top; use kind='expected', rf.profile(m) or rf.bootstrap(m)"
        )
    if not len(e.theta):
        return np.array([[(m.nobs - e.rank * e.reml) / (2 * m.sigma**4)]])
    hessian = np.asarray(m.core.hessian(np.ascontiguousarray(e.theta), e.sigma, e.reml))
    back = np.linalg.inv(variance_slopes(m))
    return back.T @ hessian @ back / 2


def variance_slopes(m: Fit) -> Array:
    """Return d (entries of Sigma, sigma^2) / d (theta, sigma), (c + 1, c + 1)."""
    e, at = m.estimate, 0
    assert isinstance(e, Estimate)
    out = np.zeros((len(e.theta) + 1, len(e.theta) + 1))
    for term, factor in zip(m.layout.terms, e.factors, strict=True):
        places = cells(len(term.names), term.structure)
        here = slice(at, at + len(places))
        for c, (i, j) in enumerate(places):
            moved = np.zeros_like(factor)
            moved[i] = factor[:, j]  # dLambda Lambda', dLambda = 1 at (i, j)
            slope = e.sigma**2 * (moved + moved.T)
            out[here, at + c] = [slope[p] for p in places]
        out[here, -1] = [2 * e.sigma * (factor @ factor.T)[p] for p in places]
        at += len(places)
    out[-1, -1] = 2 * e.sigma
    return out


def expected(m: Fit) -> Array:
    """1/2 tr(V^-1 dV_i V^-1 dV_j), after REML with P in the place of V^-1."""
    design, e = design_of(m, "information"), m.estimate
    assert isinstance(e, Estimate)
    if not design.terms:
        return np.array([[(m.nobs - e.rank * e.reml) / (2 * m.sigma**4)]])
    if e.reml:
        return _restricted(m)
    if not one_grouping(design.terms) and sizes(design.terms) > fisher.LARGEST:
        raise NotAvailableError(
            f"information: the expected one needs a dense matrix of {sizes(design.terms)} random effects, more than "
            f"{fisher.LARGEST}: use kind='observed'"
        )
    wanted = [fisher.Entry(e.term, e.i, e.j) for e in entries(m)]
    z = cross(design.terms, design.weights, design.n)
    return fisher.information(z, wanted, m.estimate.covariances, m.sigma, design.n)


def _restricted(m: Fit) -> Array:
    """From the core, whose parameters are entries relative to a scale and own to columns with their means taken off."""
    found = of_linear(m)
    if not found.exact:
        raise NotAvailableError(OUT_OF_REACH)
    covariances = m.estimate.covariances
    parts = [
        of_covariance(t, cov, term.structure)[0]
        for t, (cov, term) in enumerate(zip(covariances, m.layout.terms, strict=True))
    ]
    directions = [*(d for part in parts for d in part), Direction(RESIDUALS, np.array(m.sigma**-2))]
    chain = in_entries(m.core, [c / m.sigma**2 for c in covariances], m.sigma, directions)
    return chain @ found.expected @ chain.T / 2
