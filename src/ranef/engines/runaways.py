"""Coefficients that ran to the end of a parameter's range, where the likelihood is flat and a standard error no number.

A dispersion that went to the limit of a Poisson distribution, extra zeros that are none: the search stops where going
on gains nothing, so that neither the value nor the curvature there says more than "infinite". Combinations of such
coefficients may be well known (a level's own dispersion, where that of the first level ran away): the joint covariance
keeps them, for predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranef import _core
from ranef.engines.covariance import Array, frozen
from ranef.engines.linear import sources
from ranef.frame.design import matrix

if TYPE_CHECKING:
    from ranef.families import Distribution
    from ranef.frame.design import Component

LIMIT = 6.0  # on the scale of a log or logit link
NO_IDEA = 10.0  # a standard error of a log or logit above this says that the parameter may as well be infinite


def reported(joint: Array, beta: Array, components: Sequence[Component], n: int, family: Distribution) -> Array:
    """Return the covariance matrix of `beta`, NaN for coefficients that ran away; `joint` is that of (beta, theta)."""
    p = len(beta)
    found = joint[:p, :p]
    gone = runaways(found, beta, components, n, family)
    if not gone:
        return found
    out = np.array(found)
    out[gone, :] = out[:, gone] = np.nan
    return frozen(out)


def runaways(vcov: Array, beta: Array, components: Sequence[Component], n: int, family: Distribution) -> list[int]:
    """Return the coefficients that put rows at the end of a parameter's range without being known to their own size.

    A mean may go there that is of truncated responses: of counts above 0 it has a limit.
    """
    out: list[int] = []
    first = 0
    for k, part in enumerate(components):
        at = slice(first, first + len(part.names))
        first = at.stop
        if not part.names or not may_run(k, part.name, family):
            continue
        own = np.ascontiguousarray(beta[at])
        eta = np.asarray(_core.linear_predictor(sources(part.fixed), own, [], [], part.offset, n))
        far = (eta < -LIMIT) if k == 0 else (np.abs(eta) > LIMIT)
        if far.any():
            out += [at.start + j for j in _unknown(matrix(part.fixed, n), far, own, vcov[at, at])]
    return out


def may_run(k: int, name: str, family: Distribution) -> bool:
    """Tell whether a parameter can lie at the end of its range while the likelihood is finite."""
    if family.categorical or name not in family.parameters or (k == 0 and not (family.truncated or family.bounded)):
        return False
    return family.link_of(name).name != "identity"


def _unknown(x: Array, far: NDArray[np.bool_], beta: Array, vcov: Array) -> list[int]:
    """Return which coefficients are not known to their own size, where rows that are far are not known at all.

    One that rows not far away have too, and know, did not run: those are far because it is steep.
    """
    cov = np.nan_to_num(vcov)
    spread = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", x[far], cov, x[far]), 0.0))
    if not (spread > NO_IDEA).any():
        return []
    error = np.sqrt(np.diag(vcov))
    near = np.abs(x[~far]).max(axis=0, initial=0.0) * error
    steep = (near > 0) & (near < NO_IDEA)
    return np.flatnonzero((np.abs(x).max(axis=0) * error > NO_IDEA) & (error > np.abs(beta)) & ~steep).tolist()
