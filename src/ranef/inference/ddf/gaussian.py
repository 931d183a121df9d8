"""Gaussian models of the Laplace engine as the linear mixed models that they are: what small-sample theory needs.

Covariance structures, related levels, residual variances by a formula, parameters held, tied or with priors: y is
normal with mean X beta and covariance V(psi). The parameters are those of `directions`; the observed information is
exact,

    d2 deviance / d a d b = 2 y'P V_a P V_b P y - tr(P V_a P V_b) + tr(P V_ab) - y'P V_ab P y,

but where parameters are held, tied or have priors: there it is the engine's, whose criterion knows of them.

Phi is (X'V^-1X)^-1, as in linear models; the Laplace engine's own covariance of the coefficients, of (beta, theta)
jointly, adds what beta_hat moves with theta_hat (nothing where data are balanced).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.engines.estimate import LaplaceEstimate
from ranef.engines.linear import EXACT
from ranef.engines.parameters import COEFFICIENT, Place
from ranef.engines.plan import make_plan
from ranef.frame.design import Array
from ranef.inference.ddf.directions import Derivatives, derivatives, largest_variance
from ranef.inference.ddf.forms import Entries, Forms, Space
from ranef.inference.ddf.units import Units, is_small
from ranef.inference.memory import remembered
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit

MOST_ENTRIES = 250  # entries of unstructured covariances whose derivatives are formed
LARGEST = 1_000  # random effects of a unit, whose cross-products are dense


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A fit of the Laplace engine as a linear mixed model.

    Attributes
    ----------
    space : Space
    derivatives : Derivatives
        Of V in the m parameters.
    forms : Forms
        In their directions.
    """

    space: Space
    derivatives: Derivatives
    forms: Forms


# ---- which models ----------------------------------------------------------------------------------------------------


@remembered
def objection(m: Fit) -> str:
    """Return what keeps a fit of the Laplace engine from having degrees of freedom; "" if nothing."""
    if not m.distribution.is_gaussian_identity:
        return f"a model of family {m.family!r} is not gaussian with the identity link"
    if m.design is None:
        return "a slim fit keeps no rows"
    return _of_likelihood(m, m.design) or _of_wishes(m) or _of_size(m, m.design)


def instead(m: Fit) -> str:
    """Return what there is where small-sample theory ends."""
    if m.distribution.is_gaussian_identity:
        return "use ddf='inf', or a likelihood-ratio test or bootstrap (rf.pb_test)"
    return (
        "use ddf='inf', a likelihood-ratio test, profile or bootstrap (rf.pb_test); 'between-within' and 'residual' "
        "count degrees of freedom by rules of thumb, and method='pql' has those of its working linear model"
    )


def _of_likelihood(m: Fit, design: Design) -> str:
    if m.task.quadrature == 0:
        return "joint modes (quadrature=0) are no maximum likelihood estimates"
    if design.censor is not None:
        return "the response is censored, so it is not normal"
    if design.sampling:
        return "the weights of a survey make a pseudo-likelihood; see rf.robust"
    if any(c != 0 for t in design.terms for c in t.components):
        return "residual variances with random effects of their own make the response other than normal"
    if m.distribution.link_of("dispersion").name != "log":
        return "the residual standard deviation has another link than the logarithm"
    spread = [range(c.at.start, c.at.stop) for c in m.layout.components if c.name == "dispersion"]
    estimated = any(j not in m.estimate.held for at in spread for j in at)
    if not design.terms and not estimated:
        return "all of its variances are known"
    if estimated and np.hypot(m.sigma, np.sqrt(largest_variance(m))) <= EXACT * float(np.std(np.asarray(design.y))):
        return "it fits the response exactly: no residual variance is left"
    return ""


def _of_wishes(m: Fit) -> str:
    if m.task.wishes is None:
        return ""
    if m.task.wishes.firth or any(p.at < len(m.layout.fixed) for p in _with_prior(m)):
        return "coefficients with priors have posterior standard deviations, not standard errors"
    return "the data do not identify all variances" if np.isnan(_engines(m, derivatives(m).at)).any() else ""


def _with_prior(m: Fit) -> list[Place]:
    found = make_plan(design_of(m, "degrees of freedom"), m.task).priors
    return [p for _, places, _ in found for p in places if p.kind == COEFFICIENT]


def _of_size(m: Fit, design: Design) -> str:
    if _is_plain(m, design) or is_small(design.terms, LARGEST):
        return ""
    entries = _entries(design)
    if entries > MOST_ENTRIES:
        return f"its covariance matrices have {entries} entries, too many beside several groupings"
    return f"it has more than {LARGEST:,} random effects that hang together, too many for dense matrices"


def _entries(design: Design) -> int:
    return sum(len(t.names) * (len(t.names) + 1) // 2 for t in design.terms if t.structure != "diag")


def _is_plain(m: Fit, design: Design) -> bool:
    """Whether the linear engine knows the model but for its structures."""
    return (
        np.isfinite(m.sigma)
        and design.frequencies is None
        and all(t.relation is None for t in design.terms)
        and _entries(design) <= MOST_ENTRIES
        and (m.task.wishes is None or _map(m).shape[0] == _map(m).shape[1])
    )


def _map(m: Fit) -> Array:
    """Coefficients of the mean by free ones: 0 and 1."""
    count = len(m.layout.fixed)
    if m.task.wishes is None:
        here = ~np.isnan(m.estimate.beta[:count])
        return np.eye(count)[:, here]
    columns = make_plan(design_of(m, "degrees of freedom"), m.task).columns
    whole = columns.matrix()[:count]
    gone = list(m.estimate.dropped)
    used = (whole != 0).any(axis=0) & ~(whole[gone] != 0).any(axis=0)
    return whole[:, used]


# ---- what they are ---------------------------------------------------------------------------------------------------


@remembered
def space_of(m: Fit) -> Space:
    """Return what answers for a fit, at the estimate.

    Raises
    ------
    NotAvailableError
        If the fit is slim.
    """
    design = design_of(m, "degrees of freedom")
    return Entries(m, design) if _is_plain(m, design) else Units(m, design, _map(m))


@remembered
def gaussian(m: Fit) -> Gaussian:
    """Return the model in the parameters of the engine, as the observed information is."""
    return _in_directions(m, derivatives(m))


@remembered
def linear_entries(m: Fit) -> Gaussian:
    """Return the model with entries of covariance matrices as parameters, as the expected information is."""
    return _in_directions(m, derivatives(m, "covariance"))


def _in_directions(m: Fit, found: Derivatives) -> Gaussian:
    space = space_of(m)
    return Gaussian(space, found, space.forms(found.first))


@remembered
def phi(m: Fit) -> Array:
    """Return (X'V^-1X)^-1 over all coefficients; those of other components as the engine has them."""
    out, own = np.array(m.estimate.vcov), space_of(m).phi
    mean = slice(0, len(own))
    out[mean, mean] = np.where(np.isnan(out[mean, mean]), np.nan, own)
    return out


def padded(m: Fit, a: Array) -> Array:
    """Matrices over the coefficients of the mean as matrices over all."""
    more = len(m.estimate.beta) - a.shape[-1]
    return np.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, more), (0, more)])


def hessian(found: Gaussian) -> Array:
    """Return the second derivatives of the deviance in the parameters; exact forms only."""
    forms, second = found.forms, found.derivatives.second
    out = 2 * forms.average - forms.expected
    if second:
        slopes = found.space.gradient(list(second.values()))
        for (a, b), slope in zip(second, slopes, strict=True):
            out[a, b] += slope
            out[b, a] += slope if a != b else 0.0
    return out


def engines_covariance(m: Fit) -> Array:
    """Return the engine's covariance of the parameters, twice the inverse Hessian of its criterion; 0 for held ones."""
    return np.nan_to_num(_engines(m, gaussian(m).derivatives.at))


def _engines(m: Fit, at: Array) -> Array:
    assert isinstance(m.estimate, LaplaceEstimate)
    return np.asarray(m.estimate.joint())[np.ix_(at, at)]


def curvature(found: Gaussian, weights: Array) -> Array:
    """Return the slope of Phi in the part of the mean curvature of V that is normal to its parameters, (p, p).

    The mean curvature is D = sum_ab weights_ab V_ab. With tr(P . P .) as metric its tangent part is sum_a x_a V_a,
    J x = t, t_a = tr(P D P V_a); weights are 2 J^-1.
    """
    bends = found.derivatives.bend(weights)
    size = len(found.forms.slopes)
    if not bends:
        return np.zeros(found.space.phi.shape)
    both = found.space.forms([*found.derivatives.first, *bends])
    across = both.expected[:size, size:].sum(axis=1)
    tangent = weights @ across / 2
    return both.slopes[size:].sum(axis=0) - np.tensordot(tangent, found.forms.slopes, axes=1)
