"""Cluster-based permutation test of an effect over time (Maris & Oostenveld 2007), a mixed model at every time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranef.call import build_call, make_call
from ranef.engines import linear
from ranef.errors import DataError, NotAvailableError, OptionError, nearest
from ranef.frame.design import Array, Design, matrix
from ranef.inference.dummies import dummies_of
from ranef.inference.frames import to_frame
from ranef.inference.many import columns_of as responses_of
from ranef.inference.many import one_sided, unusable
from ranef.inference.permutation import (
    TIE,
    Rearrangement,
    default_scheme,
    described,
    placement,
    rearrangement,
    reduced,
    refits,
    wald,
)
from ranef.inference.resampling import Streams, count_of, noise_scale, seed_of
from ranef.progress import Progress

CELLS = 4_000_000  # numbers of the responses that are handed over together


@dataclass(frozen=True, eq=False, repr=False)
class ClusterTest:
    """A cluster-based permutation test.

    Attributes
    ----------
    times : (T,) array
        The time points.
    statistic : (T,) array
        t of the coefficient at each; NaN where the model could not be fitted.
    clusters : tuple of (int, int)
        First and last position of each run of times with |t| above the threshold and one sign.
    mass : (c,) array
        Sum of |t| over each cluster.
    p_value : (c,) array
        Share of permutations whose largest mass is at least as large: the error rate holds for all clusters together.
    null : (n,) array
        Largest mass of each permutation; of an exact test the data's own is included.
    """

    coefficient: str
    times: Array
    statistic: Array
    clusters: tuple[tuple[int, int], ...]
    mass: Array
    p_value: Array
    null: Array
    threshold: float
    exact: bool
    scheme: str
    seed: int | None
    kind: str

    def frame(self) -> Any:
        """One row a time point: `time, statistic, cluster` (-1: none)."""
        cluster = np.full(len(self.times), -1)
        for c, (first, last) in enumerate(self.clusters):
            cluster[first : last + 1] = c
        return to_frame({"time": self.times, "statistic": self.statistic, "cluster": cluster}, self.kind)

    def table(self) -> Any:
        """One row a cluster: `cluster, start, end, points, mass, sign, p_value`."""
        first, last = np.array(self.clusters, dtype=np.int64).reshape(-1, 2).T
        columns = {
            "cluster": np.arange(len(self.clusters)),
            "start": self.times[first],
            "end": self.times[last],
            "points": last - first + 1,
            "mass": self.mass,
            "sign": np.sign(self.statistic[first]),
            "p_value": self.p_value,
        }
        return to_frame(columns, self.kind)

    def __repr__(self) -> str:
        how = (
            f"all {len(self.null)} rearrangements" if self.exact else f"{len(self.null)} permutations, seed {self.seed}"
        )
        head = f"cluster permutation test of {self.coefficient}: |t| > {self.threshold:.4g} at {len(self.times)} times"
        rows = [
            f"  {self.times[a]} to {self.times[b]}: mass {mass:.5g}, p = {p:.4g}"
            for (a, b), mass, p in zip(self.clusters, self.mass, self.p_value, strict=True)
        ]
        return "\n".join([head, *(rows or ["  no cluster"]), f"{self.scheme}; {how}"])


def cluster_permutation_test(
    formula: str,
    data: Any,
    Y: Any,
    coefficient: str,
    *,
    times: Sequence[Any] | None = None,
    threshold: float = 2.0,
    n: int = 999,
    within: Any = None,
    seed: int | None = None,
    progress: bool | None = None,
    **arguments: Any,
) -> ClusterTest:
    """Test an effect over time by the mass of its clusters.

    Parameters
    ----------
    formula : str
        The model at each time point, such as `"~ condition + (1 | subject)"`.
    data : data frame or dict
        Predictors and groups, one row a series.
    Y : (rows, T) array, data frame or dict of columns
        The series: one column a time point.
    coefficient : str
        The fixed effect whose t statistics make clusters.
    times : sequence of T numbers, optional
        The time points; default the names of the columns where these are numbers, else 0, 1, ….
    threshold : float
        |t| above which a time point belongs to a cluster.
    n : int
        Permutations.
    within : str or array, optional
        Groups within which series change places, as for `permutation_test`.
    seed : int, optional
        Same seed, same permutations.
    progress : bool, optional
        Show how far permutations of more than a second have come; default: where stderr is a terminal.
    **arguments
        As for `fit`.

    Returns
    -------
    ClusterTest

    Raises
    ------
    OptionError
        If the coefficient is not in the model, the formula has a left side, or a number is out of range.
    DataError
        If a time point cannot be used: missing values, or a constant.
    NotAvailableError
        If the model is not a linear one.

    Notes
    -----
    Whole series are rearranged, the same way at all times, so that their autocorrelation stays (see
    `permutation_test` for how); the largest mass of each permutation is the reference for every cluster. A cluster's
    p-value speaks of the cluster, not of where it begins and ends (Sassenhagen & Draschkow 2019).

    Examples
    --------
    >>> import numpy as np, ranef as rf
    >>> rng = np.random.default_rng(1)
    >>> group = np.repeat(np.arange(10), 4)
    >>> x = np.tile([0.0, 1.0], 20)
    >>> Y = rng.standard_normal((40, 30)) + rng.standard_normal(10)[group][:, None]
    >>> Y[:, 10:20] += 1.5 * x[:, None]
    >>> found = rf.cluster_permutation_test("~ x + (1 | g)", {"x": x, "g": group}, Y, "x", n=99, seed=1)
    >>> bool(found.p_value.min() <= 0.02)
    True
    """
    n = count_of(n, "cluster_permutation_test")
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)) or not threshold >= 0:
        raise OptionError(f"cluster_permutation_test: threshold={threshold!r} must be a number that is not negative")
    if isinstance(Y, str):
        raise DataError(
            f"cluster_permutation_test: Y={Y!r} is a text; give the series, an array of one column a time point or a "
            f"frame of them, such as data[columns]"
        )
    if str(formula).partition("~")[0].strip() and "~" in str(formula):
        raise OptionError(
            f"cluster_permutation_test: the formula has a left-hand side, {str(formula).partition('~')[0].strip()!r}, "
            f"but the responses are Y: write '~{str(formula).partition('~')[2]}'"
        )
    call = make_call(one_sided(formula, arguments.get("env")), **arguments)
    if not call.linear:
        raise NotAvailableError("cluster_permutation_test: available for linear models only in this version")
    _, design = build_call(call, data)
    names, y = responses_of(Y, design.n_input)
    y = y if design.rows is None else y[design.rows]
    if bad := unusable(names, y):
        raise DataError(f"cluster_permutation_test: {len(bad)} time points cannot be used; {next(iter(bad.items()))}")
    if coefficient not in design.fixed_names:
        raise OptionError(
            f"cluster_permutation_test: there is no {coefficient!r}; {nearest(coefficient, design.fixed_names)}"
        )
    column = design.fixed_names.index(coefficient)
    test = Series(dummies_of(design), y, column, call.method == "reml", threshold, within)
    return test.run(coefficient, times_of(times, names), n, seed, progress)


def times_of(times: Any, names: Sequence[str]) -> Array:
    """Return the time points.

    Raises
    ------
    DataError
        If there is not one for each column.
    """
    if times is not None:
        out = np.asarray(times)
        if out.shape != (len(names),):
            raise DataError(f"cluster_permutation_test: {out.size} times for {len(names)} columns of Y")
        return out
    try:
        return np.array([float(name) for name in names])
    except ValueError:
        return np.arange(len(names))


@dataclass(frozen=True, eq=False)
class Series:
    """The data of a test: design, series (n, T), and the position of the coefficient."""

    design: Design
    y: Array
    at: int
    reml: bool
    threshold: float
    within: Any

    def run(self, name: str, times: Array, n: int, seed: Any, progress: bool | None) -> ClusterTest:
        """Run the test."""
        design = self.design
        core = linear.make_core(design, np.ascontiguousarray(self.y[:, 0]))
        place = placement(design, matrix(design.fixed, design.n)[:, [self.at]], self.within)
        how = default_scheme(design, {name}, place)
        if how == "covariate":
            raise NotAvailableError(
                f"cluster_permutation_test: {name} is constant within levels of {place.unit}, which differ in size or "
                f"are crossed with others, so that series cannot change places; average them to one series a level, or "
                f"give within="
            )
        moves = rearrangement(design, place, how)
        observed = self.statistics(core, self.y)
        fitted, left = reduced(design, [self.at], self.y, self.reml, place)
        exact = moves.log_count <= math.log(n + 1) + 1e-9
        number = None if exact else seed_of(seed, "cluster_permutation_test")
        null = self._null(core, moves, (fitted, left), (n, number), progress)
        clusters = runs(observed, self.threshold)
        mass = np.array([np.abs(observed[a : b + 1]).sum() for a, b in clusters])
        extreme = np.array([(null >= v * (1 - TIE)).sum() for v in mass])
        p = extreme / len(null) if exact else (1 + extreme) / (1 + len(null))
        scheme = f"residuals {described(design, place, how)}"
        return ClusterTest(
            name, times, observed, clusters, mass, p, null, self.threshold, exact, scheme, number, design.kind
        )

    def statistics(self, core: Any, y: Array) -> Array:
        """T of the coefficient in each column of y; NaN where a fit failed."""
        found = refits(core, self.design, y, self.reml)
        return np.array([math.nan if isinstance(r, str) else wald(r["beta"], r["vcov"], [self.at]) for r in found])

    def _null(
        self, core: Any, moves: Rearrangement, parts: tuple[Array, Array], draws: tuple[int, int | None], progress: Any
    ) -> Array:
        (fitted, left), (n, number) = parts, draws
        spread = np.broadcast_to(noise_scale(self.design), len(left))[:, None]
        if number is None:
            orders = moves.all()
        else:
            streams = Streams(number)
            orders = (moves.draw(streams(i)) for i in range(n))
        size = max(1, CELLS // self.y.size)
        out: list[float] = []
        with Progress("cluster permutation test", n, progress) as shown:
            while batch := list(itertools.islice(orders, size)):
                y = np.hstack([fitted + sign[:, None] * left[order] * spread for order, sign in batch])
                found = self.statistics(core, y).reshape(len(batch), -1)
                out += [largest(row, self.threshold) for row in found]
                shown.advance(len(batch))
        return np.array(out)


def runs(statistic: Array, threshold: float) -> tuple[tuple[int, int], ...]:
    """First and last position of each run of |statistic| > threshold with one sign."""
    side = np.where(np.abs(np.nan_to_num(statistic)) > threshold, np.sign(np.nan_to_num(statistic)), 0.0)
    starts = np.flatnonzero((side != 0) & (np.r_[0.0, side[:-1]] != side))
    ends = np.flatnonzero((side != 0) & (np.r_[side[1:], 0.0] != side))
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def largest(statistic: Array, threshold: float) -> float:
    """Return the largest mass of a cluster; 0 without one."""
    return max((float(np.abs(statistic[a : b + 1]).sum()) for a, b in runs(statistic, threshold)), default=0.0)
