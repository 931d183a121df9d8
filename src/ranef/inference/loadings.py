"""Loadings and scores of terms of reduced rank, rr(0 + trait | g, d): b = Lambda f, f ~ N(0, I) of dimension d."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import OptionError, nearest
from ranef.formula.groups import group_named
from ranef.inference.frames import to_frame
from ranef.inference.varcorr import Covariance, unique
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.model import Fit


def loadings(m: Fit, term: str | None = None) -> Any:
    """Return the loadings Lambda (k, d) of a term of reduced rank, Sigma = Lambda Lambda'.

    Parameters
    ----------
    m : Fit
    term : str, optional
        Its key in `m.varcorr()`; needed where the model has several terms of reduced rank.

    Returns
    -------
    frame
        A row for every column of the term: `term, factor1, …`, in the units of the linear predictor. Lambda is lower
        trapezoidal (the first column of the term loads on the first factor only), which leaves the sign of each factor
        free. Rotate it as factor analysts do if that reads better: Sigma stays what it is.

    Raises
    ------
    OptionError
        If there is no such term.

    Examples
    --------
    >>> import ranef as rf
    >>> data = rf.datasets.load("sim_multi")
    >>> m = rf.fit("count ~ 0 + species + rr(0 + species | site, d = 2)", data, family="poisson")
    >>> rf.loadings(m).columns.tolist()
    ['term', 'factor1', 'factor2']
    """
    check_fit(m, "loadings")
    at, found = _term(m, term)
    assert found.loadings is not None
    names = m.layout.terms[at].names
    return to_frame({"term": list(names), **_factors(found.loadings)}, m.layout.kind)


def scores(m: Fit, term: str | None = None) -> Any:
    """Return the scores of the levels of a term of reduced rank: the conditional modes f with b = Lambda f.

    Parameters
    ----------
    m : Fit
    term : str, optional
        As for `loadings`.

    Returns
    -------
    frame
        A row for every level: `level, factor1, …`. Scores have variance 1 in the population; those of a factor whose
        loadings all vanish are 0.

    Raises
    ------
    DataError, OptionError
        If the model has no such term.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("weight ~ Time + rr(0 + Diet | Rat, d = 1)", rf.datasets.load("BodyWeight"))
    >>> list(rf.scores(m).columns)
    ['level', 'factor1']
    """
    check_fit(m, "scores")
    at, found = _term(m, term)
    assert found.loadings is not None
    # Lambda has full column rank unless a factor vanished; then the least-squares solution of least length leaves it 0.
    solved: Array = np.linalg.lstsq(found.loadings, m.estimate.modes[at].T, rcond=None)[0].astype(np.float64)
    return to_frame({"level": list(m.layout.terms[at].levels), **_factors(solved.T)}, m.layout.kind)


def _factors(values: Array) -> dict[str, Array]:
    return {f"factor{j + 1}": column.copy() for j, column in enumerate(values.T)}


def _term(m: Fit, key: str | None) -> tuple[int, Covariance]:
    keys = unique([info.key for info in m.layout.terms])
    ours = [k for k, info in zip(keys, m.layout.terms, strict=True) if info.structure == "rr"]
    if not ours:
        raise OptionError("the model has no term of reduced rank, rr(0 + f | g, d = 2)")
    if key is None and len(ours) > 1:
        raise OptionError(f"the model has several terms of reduced rank: say which, {', '.join(map(repr, ours))}")
    own = ours[0] if key is None else group_named(key, ours)
    if own is None:
        raise OptionError(f"there is no term of reduced rank {key!r}; {nearest(str(key), ours)}")
    return keys.index(own), m.varcorr()[own]
