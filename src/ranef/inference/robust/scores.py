"""`estfun(m)`: the gradient of the log-likelihood, cluster by cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.inference.ddf.method import kept
from ranef.inference.dummies import written_out
from ranef.inference.frames import to_frame
from ranef.inference.named import names_of
from ranef.inference.robust.clusters import Clusters, check_nested, clusters_of
from ranef.inference.robust.generalised import check_likelihood, check_split, likelihood_scores
from ranef.inference.robust.moments import RESIDUAL, entries, levels_times, precision
from ranef.inference.robust.working import by_cluster, working
from ranef.model import check_fit, design_of

if TYPE_CHECKING:
    from ranef.frame import Design
    from ranef.model import Fit


def estfun(m: Fit, cluster: Any = None) -> Any:
    """Scores: the contribution of every cluster to the gradient of the log-likelihood at the estimate.

    Parameters
    ----------
    m : Fit
        A fitted model, not slim.
    cluster : str or array, optional
        What the log-likelihood is a sum over; default the outermost grouping factor. Random effects must be nested in
        it.

    Returns
    -------
    data frame
        Of the kind of the data: `cluster`, then a column a parameter. Linear models: coefficients, variances and
        covariances of the random effects ("var(Days | Subject)", "cov((Intercept), Days | Subject)"; NaN for a term
        whose covariance is singular) and the residual variance ("sigma2"), of the log-likelihood, also after REML: the
        restricted one is no sum over clusters. Others, gaussian models with covariance structures too: coefficients and
        entries of theta ("theta1", …, in the order of `m.theta`) of the marginal log-likelihood, also after REML.
        Coefficients dropped are left out.

    Raises
    ------
    NotAvailableError
        If random effects are not nested in the clusters or of reduced rank, the fit is slim or does not maximise a
        likelihood.
    UnknownColumnError, DataError, OptionError, ArgumentError
        If the clusters make no sense.

    Notes
    -----
    With t = Z'V^-1 e of a level: d log L / d Sigma_ij = 1/2 tr[E_ij (t t' - Z'V^-1 Z)], summed over the levels of the
    cluster (McCulloch & Searle 2001, section 6.11). Columns sum to 0 after maximum likelihood; after REML those of the
    mean's coefficients do in gaussian models.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), method="ml")
    >>> rf.estfun(m).shape
    (18, 7)
    """
    check_fit(m, "estfun")
    m = written_out(m)
    design = design_of(m, "estfun")
    by, *more = clusters_of(m, design, cluster)
    if more:
        raise NotAvailableError("estfun: scores are those of one way of clustering; give one cluster=")
    check_nested(design, (by,), "estfun")
    coefficients = np.array(names_of(m, "all")[0], dtype=object)[kept(m)].tolist()
    if m.task.linear:
        names = [*coefficients, *(e.label for e in entries(m)), RESIDUAL]
        values = linear_scores(m, design, by)
    else:
        check_likelihood(m, "estfun", restricted=True)
        check_split(m, "estfun")
        names = [*coefficients, *(f"theta{j + 1}" for j in range(len(m.theta)))]
        values = likelihood_scores(m, by)[:, np.append(kept(m), np.ones(len(m.theta), dtype=bool))]
    return to_frame({"cluster": list(by.labels), **dict(zip(names, values.T.copy(), strict=True))}, m.layout.kind)


def linear_scores(m: Fit, design: Design, by: Clusters) -> Array:
    """Scores of (beta, entries, sigma^2), (clusters, r + c + 1)."""
    w = working(m)
    beta = by_cluster(w.x * w.white[:, None], by.codes, by.count)
    owners = [_owners(t.codes, len(t.levels), by) for t in design.terms]
    times, spreads = levels_times(m), _spreads(m)
    columns = []
    for e in entries(m):
        t, k = times[e.term][1], spreads[e.term][0]
        by_level = (t[:, e.i] * t[:, e.j] - k[:, e.i, e.j]) * (0.5 if e.i == e.j else 1.0)
        columns.append(np.bincount(owners[e.term], by_level, by.count))
    traces = np.bincount(by.codes, minlength=by.count).astype(np.float64)  # of sigma^2 V^-1 W^-1 = I - V^-1 Z Sigma Z'
    for owner, (_, explained) in zip(owners, spreads, strict=True):
        traces -= np.bincount(owner, explained, by.count)
    squares = np.bincount(by.codes, w.white**2 / precision(m), by.count)
    return np.column_stack([beta, *columns, (squares - traces / m.sigma**2) / 2])


def _owners(codes: Any, levels: int, by: Clusters) -> NDArray[np.int64]:
    owner = np.zeros(levels, dtype=np.int64)
    owner[codes] = by.codes
    return owner


def _spreads(m: Fit) -> Sequence[tuple[Array, Array]]:
    """Return K = Z_l'V^-1 Z_l (NaN if Sigma is singular) and tr(K Sigma) of the levels of every term.

    Both come from the conditional covariance C = Sigma - Sigma K Sigma of the random effects.
    """
    singular, out = {term for term, *_ in m.estimate.boundary}, []
    for t, sigma in enumerate(m.estimate.covariances):
        conditional = np.asarray(m.core.cond_cov(t))
        inverse = np.linalg.pinv(sigma, hermitian=True)
        out.append((
            inverse - inverse @ conditional @ inverse if t not in singular else np.full_like(conditional, np.nan),
            np.trace(inverse @ (sigma - conditional), axis1=1, axis2=2),
        ))  # fmt: skip
    return out
