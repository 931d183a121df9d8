"""Pictures of the random effects: conditional modes with intervals, and how far they were shrunk."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ranef.frame.design import matrix
from ranef.model import design_of
from ranef.plot.style import (
    BLUE,
    GREY,
    INK,
    MAX_LABELS,
    ORANGE,
    PALE,
    axes,
    beside,
    dress,
    height,
    legend,
    level_axis,
    returned,
    short,
)
from ranef.plot.terms import check_one_response, find_term, labels
from ranef.predict.rows import fitted_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ranef.model import Fit

Array = NDArray[np.float64]
#: Levels named in a scatter; more names would cover each other.
MAX_NAMES = 30


# ---- caterpillar -----------------------------------------------------------------------------------------------------


def caterpillar(
    m: Fit,
    term: str | None = None,
    level: float = 0.95,
    sort: bool = True,
    max_levels: int | None = None,
    ax: Any = None,
) -> Any:
    """Plot the conditional modes with intervals, a panel for each column of each term.

    The intervals are mode +- z times the conditional standard deviation given theta and sigma (lme4's condVar); those
    that do not hold zero are coloured.

    Parameters
    ----------
    m : Fit
        The fit.
    term : str, optional
        Grouping factor; all of them by default.
    level : float
        Coverage of the intervals.
    sort : bool
        Order the levels by their mode in the term's first column; otherwise the order of the data.
    max_levels : int, optional
        Draw at most that many levels of a term: those with the lowest and the highest modes.
    ax : Axes or array of Axes, optional
        Where to draw: one axes for each panel.

    Returns
    -------
    matplotlib.axes.Axes, or an array of them where there are several panels

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.caterpillar(m)
    """
    which = range(len(labels(m))) if term is None and m.layout.terms else [find_term(m, term)]
    tallest = max(_levels_shown(len(m.layout.terms[t].levels), max_levels) for t in which)
    panels = axes(sum(len(m.layout.terms[t].names) for t in which), ax, size=(4.2, height(tallest)))
    rest = iter(panels)
    for t in which:
        _term_panels(m, t, [next(rest) for _ in m.layout.terms[t].names], level, sort, max_levels)
    return returned(panels)


def _levels_shown(n: int, limit: int | None) -> int:
    return n if limit is None else min(n, limit)


def _term_panels(m: Fit, t: int, panels: Sequence[Axes], level: float, sort: bool, limit: int | None) -> None:
    info, modes = m.layout.terms[t], m.estimate.modes[t]
    sd = np.sqrt(np.einsum("ljj->lj", np.asarray(m.core.cond_cov(t))))
    order = _order(modes[:, 0], sort, limit)
    half = special.ndtri((1 + level) / 2) * sd[order]
    for j, panel in enumerate(panels):
        _intervals(panel, modes[order, j], half[:, j])
        dress(panel, f"{info.names[j]}: mode and {level:.0%} interval")
        panel.grid(visible=len(order) <= MAX_LABELS, axis="y")
        level_axis(panel, _labels(info.levels, order), info.label)
        if len(order) < len(modes):
            _gap(panel, len(order), len(modes), info.label)
        if j > 0 and beside(panels):
            panel.set_ylabel("")
            panel.tick_params(axis="y", labelleft=False)


def _order(key: Array, sort: bool, limit: int | None) -> NDArray[np.intp]:
    """Levels from bottom to top: by mode, or the first at the top."""
    ranked = np.argsort(key, kind="stable")
    if limit is not None and len(key) > limit:
        ranked = np.concatenate([ranked[: limit // 2], ranked[len(key) - (limit - limit // 2) :]])
    return ranked if sort else np.sort(ranked)[::-1]


def _labels(levels: Sequence[object], order: NDArray[np.intp]) -> list[object]:
    """Return the labels of levels that are few enough to be read; of many, what only counts them."""
    return [levels[i] for i in order] if len(order) <= MAX_LABELS else order.tolist()


def _gap(ax: Axes, shown: int, total: int, name: str) -> None:
    ax.axhline(shown // 2 - 0.5, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    ax.set_ylabel(f"{name}: lowest {shown // 2} and highest {shown - shown // 2} of {total:,}", color=INK)


def _intervals(ax: Axes, mode: Array, half: Array) -> None:
    rank, n = np.arange(len(mode)), len(mode)
    away = np.abs(mode) > half
    width = 1.8 if n <= MAX_LABELS else max(0.4, min(1.2, 250 / n))
    for chosen, colour in ((~away, GREY), (away, BLUE)):
        ends = (mode - half)[chosen], (mode + half)[chosen]
        ax.hlines(rank[chosen], *ends, color=colour, linewidth=width, alpha=0.8 if n <= 300 else 0.35)
        ax.scatter(mode[chosen], rank[chosen], s=10 * width, color=colour, linewidths=0, zorder=3)
    ax.axvline(0, color=INK, linewidth=0.9)


# ---- shrinkage -------------------------------------------------------------------------------------------------------


def shrinkage(m: Fit, term: str | None = None, ax: Any = None) -> Any:
    """Plot, for each group, the way from its own least-squares coefficients to those of the mixed model.

    The least-squares coefficients of a group are those of the term's columns, fitted to that group's rows alone after
    the rest of the model (other columns, other terms) was subtracted; groups whose rows cannot carry them are left
    out, and counted. A term with one column shows the levels on the vertical axis; with several, there is a panel for
    each pair of columns, with the ellipses that hold half and 95 % of the estimated distribution of the groups.

    Parameters
    ----------
    m : Fit
        The fit.
    term : str, optional
        Grouping factor; the first by default.
    ax : Axes or array of Axes, optional
        Where to draw: one axes for each pair of columns.

    Returns
    -------
    matplotlib.axes.Axes, or an array of them where there are several pairs

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.shrinkage(m)
    """
    check_one_response(m, "shrinkage")
    t = find_term(m, term)
    names = m.layout.terms[t].names
    centre = np.array([_fixed_effect(m, name) for name in names])
    alone, mixed = within_group(m, t) + centre, m.estimate.modes[t] + centre
    if len(names) == 1:
        (panel,) = axes(1, ax, size=(5.4, height(len(mixed))))
        _shrunk_column(m, t, panel, alone[:, 0], mixed[:, 0], centre[0])
        return panel
    pairs = list(combinations(range(len(names)), 2))
    panels = axes(len(pairs), ax, size=(6.0, 5.2), wrap=3)
    for panel, pair in zip(panels, pairs, strict=True):
        _shrunk_pair(m, t, panel, alone, mixed, centre, pair)
    return returned(panels)


def within_group(m: Fit, t: int) -> Array:
    """Least-squares deviations of each group, (L, k); NaN where the group's rows do not determine them."""
    d = design_of(m, "shrinkage")
    z, codes, modes = matrix(d.terms[t].blocks, d.n), d.terms[t].codes, m.estimate.modes[t]
    assert d.y is not None
    rest = d.y - fitted_rows(m) + np.einsum("ij,ij->i", z, modes[codes])
    w = np.ones(d.n) if d.weights is None else d.weights
    k, size = z.shape[1], len(modes)
    gram = np.array([[_sums(w * z[:, i] * z[:, j], codes, size) for j in range(k)] for i in range(k)])
    right = np.array([_sums(w * z[:, i] * rest, codes, size) for i in range(k)])
    return _solve(gram.transpose(2, 0, 1), right.T)


def _sums(x: Array, codes: NDArray[Any], size: int) -> Array:
    return np.asarray(np.bincount(codes, weights=x, minlength=size), dtype=float)


def _solve(gram: Array, right: Array) -> Array:
    scale = np.sqrt(np.einsum("lii->li", gram))
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = np.nan_to_num(gram / (scale[:, :, None] * scale[:, None, :]))
    good = np.linalg.eigvalsh(unit)[:, 0] > 1e-10
    out = np.full(right.shape, np.nan)
    out[good] = np.linalg.solve(gram[good], right[good][:, :, None])[:, :, 0]
    return out


def _fixed_effect(m: Fit, name: str) -> float:
    beta = dict(zip(m.layout.fixed, m.estimate.beta[: len(m.layout.fixed)], strict=True))
    return float(np.nan_to_num(beta.get(name, 0.0)))


def _shrunk_column(m: Fit, t: int, ax: Axes, alone: Array, mixed: Array, centre: float) -> None:
    info = m.layout.terms[t]
    order = np.argsort(mixed, kind="stable")
    rank, few = np.arange(len(order)), len(order) <= MAX_LABELS
    ax.axvline(centre, color=INK, linewidth=0.9, label="population")
    ax.hlines(rank, alone[order], mixed[order], color=PALE if few else GREY, linewidth=2.2 if few else 0.4)
    ax.scatter(alone[order], rank, s=20 if few else 3, color=GREY, linewidths=0, label=f"{info.label} alone", zorder=3)
    ax.scatter(mixed[order], rank, s=20 if few else 3, color=BLUE, linewidths=0, label="mixed model", zorder=3)
    ax.set_xlim(_limits(alone, np.append(mixed, centre)))
    dress(ax, info.names[0] + _remark(ax, alone[:, None]))
    level_axis(ax, _labels(info.levels, order), info.label)
    _legend(ax)


def _shrunk_pair(m: Fit, t: int, ax: Axes, alone: Array, mixed: Array, centre: Array, pair: tuple[int, int]) -> None:
    i, j = pair
    info, at = m.layout.terms[t], list(pair)
    few = len(mixed) <= 200
    rings = _ellipses(ax, centre[at], m.estimate.covariances[t][np.ix_(at, at)])
    _arrows(ax, alone[:, at], mixed[:, at], few)
    size = 22 if few else 5
    ax.scatter(alone[:, i], alone[:, j], s=size, color=GREY, linewidths=0, label=f"{info.label} alone", zorder=3)
    ax.scatter(mixed[:, i], mixed[:, j], s=size, color=BLUE, linewidths=0, label="mixed model", zorder=3)
    ax.scatter(centre[i], centre[j], s=70, marker="D", color=ORANGE, linewidths=0, label="population", zorder=6)
    if len(mixed) <= MAX_NAMES:
        _names(ax, alone[:, at], mixed[:, at], info.levels)
    ax.set_xlim(_limits(alone[:, i], np.append(mixed[:, i], rings[0])))
    ax.set_ylim(_limits(alone[:, j], np.append(mixed[:, j], rings[1])))
    dress(ax, info.names[i] + _remark(ax, alone[:, at]), info.names[j])
    _legend(ax)


def _legend(ax: Axes) -> None:
    legend(ax, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.2, handletextpad=0.3)


def _limits(alone: Array, always: Array) -> tuple[float, float]:
    """Limits that hold `always` and the bulk of `alone`: a group of two rows can lie arbitrarily far out."""
    known = alone[np.isfinite(alone)]
    low, high = np.quantile(known, [0.25, 0.75]) if known.size else (always.min(), always.max())
    reach = 4 * (high - low)
    bulk = known[(known >= low - reach) & (known <= high + reach)]
    ends = np.append(bulk, always)
    margin = 0.05 * (float(np.ptp(ends)) or 1.0)
    return float(ends.min()) - margin, float(ends.max()) + margin


def _remark(ax: Axes, alone: Array) -> str:
    """Say what the picture does not show: groups without coefficients of their own, groups outside the limits."""
    lost = int(np.isnan(alone).any(axis=1).sum())
    bounds = [ax.get_xlim(), ax.get_ylim()][: alone.shape[1]]
    outside = [(alone[:, i] < low) | (alone[:, i] > high) for i, (low, high) in enumerate(bounds)]
    beyond = int(np.logical_or.reduce(outside).sum())
    remarks = [f"{lost:,} of {len(alone):,} groups have too few rows for coefficients of their own"] if lost else []
    remarks += [f"{beyond:,} of {len(alone):,} groups, alone, lie outside the picture"] if beyond else []
    return "".join(f"\n({text})" for text in remarks)


def _arrows(ax: Axes, start: Array, end: Array, few: bool) -> None:
    step = end - start
    ax.quiver(
        *start.T, *step.T, angles="xy", scale_units="xy", scale=1, width=0.0028 if few else 0.001, color=GREY,
        alpha=0.7 if few else 0.35, headwidth=4.5, headlength=6, headaxislength=5,
    )  # fmt: skip


def _ellipses(ax: Axes, centre: Array, cov: Array) -> Array:
    """Draw the two ellipses; returns the outer one."""
    angle = np.linspace(0, 2 * np.pi, 181)
    values, vectors = np.linalg.eigh(cov)
    circle = vectors * np.sqrt(np.clip(values, 0, None)) @ np.array([np.cos(angle), np.sin(angle)])
    rings = [centre[:, None] + np.sqrt(-2 * np.log1p(-share)) * circle for share in (0.5, 0.95)]
    for ring in rings:
        ax.plot(*ring, color=INK, linewidth=0.8, alpha=0.45, linestyle="--", zorder=5)
    return rings[-1]


def _names(ax: Axes, start: Array, end: Array, levels: Sequence[object]) -> None:
    """Write each level beyond the point it starts from, away from the arrow."""
    span = np.nanmax(np.vstack([start, end]), axis=0) - np.nanmin(np.vstack([start, end]), axis=0)
    for label, a, b in zip(levels, start, end, strict=True):
        if np.isfinite(a).all():
            text = short(label, 10)
            way = (a - b) / np.where(span > 0, span, 1.0)
            x, y = way / (np.hypot(*way) or 1.0)
            ax.annotate(
                text, a, xytext=((7 + 2.3 * len(text)) * x, 9 * y), textcoords="offset points", ha="center",
                va="center", fontsize=7.5, color=INK, annotation_clip=True,
            )  # fmt: skip
