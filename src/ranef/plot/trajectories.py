"""The lattice of the sleepstudy article: each group's data with three lines through them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from ranef.errors import DataError, NotAvailableError, UnknownColumnError, nearest
from ranef.frame.table import narwhals_frame
from ranef.model import design_of
from ranef.plot.style import BLUE, GREY, INK, ORANGE, axes, dress, legend, returned, short
from ranef.plot.terms import check_one_response, find_term

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ranef.model import Fit

Array = NDArray[np.float64]
GRID = 25


def trajectories(m: Fit, x: str | None = None, group: str | None = None, max_groups: int = 24, ax: Any = None) -> Any:
    """Plot the response against `x` in a panel for each group, with three lines.

    The grey line is the least-squares line of that group's rows alone, the dashed one the population's prediction, the
    blue one the mixed model's. Other variables are held at the values of the group's first row.

    Parameters
    ----------
    m : Fit
        A fit that keeps its rows.
    x : str, optional
        A numeric variable of the formula; by default one whose effect varies between groups, or else the first.
    group : str, optional
        Grouping factor; the first by default.
    max_groups : int
        Panels at most; of more groups, as many are chosen evenly from low to high mean response.
    ax : array of Axes, optional
        Where to draw: one axes for each group shown.

    Returns
    -------
    array of matplotlib.axes.Axes

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.trajectories(m, max_groups=6)
    """
    check_one_response(m, "trajectories")
    design = design_of(m, "trajectories")
    t = find_term(m, group)
    name = _x_name(m, x, t)
    values = _numbers(m, name)
    assert design.y is not None
    codes = np.asarray(design.terms[t].codes)
    chosen = _chosen(codes, design.y, max_groups)
    panels = axes(len(chosen), ax, size=(1.75, 1.75), wrap=_columns(len(chosen)), share=True)
    for panel, level in zip(panels, chosen, strict=True):
        _panel(m, panel, np.flatnonzero(codes == level), values, name)
        panel.set_title(short(design.terms[t].levels[level], 22), fontsize=9, color=INK, pad=3)
    _finish(m, panels, name, m.layout.terms[t].label, len(design.terms[t].levels), own=ax is None)
    return returned(panels)


def _columns(n: int) -> int:
    return min(6, math.ceil(math.sqrt(n * 1.4)))


def _chosen(codes: NDArray[Any], y: Array, limit: int) -> list[int]:
    size = int(codes.max()) + 1
    if size <= limit:
        return list(range(size))
    mean = np.bincount(codes, weights=y, minlength=size) / np.bincount(codes, minlength=size)
    ranked = np.argsort(mean, kind="stable")
    return [int(i) for i in ranked[np.linspace(0, size - 1, limit).round().astype(int)]]


def _panel(m: Fit, ax: Axes, rows: NDArray[np.int64], values: Array, name: str) -> None:
    assert m.design is not None
    assert m.design.y is not None
    x, y = values[rows], m.design.y[rows]
    grid = np.linspace(float(values.min()), float(values.max()), GRID)
    newdata = _varied(m, int(rows[0]), name, grid)
    ax.scatter(x, y, s=11, color=INK, alpha=0.55, linewidths=0, zorder=3)
    if np.ptp(x) > 0:
        slope, intercept = np.polyfit(x - x.mean(), y, 1)
        ax.plot(grid, intercept + slope * (grid - x.mean()), color=GREY, linewidth=1.2, label="group alone")
    ax.plot(grid, m.predict(newdata, re="none"), color=ORANGE, linewidth=1.2, linestyle="--", label="population")
    ax.plot(grid, m.predict(newdata, re="all"), color=BLUE, linewidth=1.6, label="mixed model")
    dress(ax)
    ax.tick_params(labelsize=8)
    ax.locator_params(nbins=4, integer=bool((values == np.round(values)).all()), axis="x")


def _finish(m: Fit, panels: list[Axes], name: str, group: str, n_levels: int, own: bool) -> None:
    """Label a figure of our own once, along its edges; axes given by the caller each."""
    if not own:
        for panel in panels:
            dress(panel, name, m.layout.response)
        legend(panels[0])
        return
    figure: Any = panels[0].figure
    for panel in panels[-_columns(len(panels)) :]:
        panel.tick_params(labelbottom=True)
    figure.supxlabel(name, color=INK, fontsize=10)
    figure.supylabel(m.layout.response, color=INK, fontsize=10)
    chosen = f"{len(panels)} of {n_levels:,} levels of {group}, from low to high mean"
    title = chosen if len(panels) < n_levels else group
    handles, labels = max((panel.get_legend_handles_labels() for panel in panels), key=lambda pair: len(pair[1]))
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9, title=title)


# ---- variables -------------------------------------------------------------------------------------------------------


def _frame(m: Fit) -> Mapping[str, Any] | nw.DataFrame[Any]:
    if m.data is None:
        raise NotAvailableError("trajectories: a slim fit keeps no rows; use the fit before slim()")
    return m.data if isinstance(m.data, Mapping) else narwhals_frame(m.data)


def _column(m: Fit, name: str) -> Any:
    column = _frame(m)[name]
    return column.to_numpy() if isinstance(column, nw.Series) else np.asarray(column)


def _numeric(m: Fit) -> list[str]:
    """Numeric variables of the formula other than the response, those that vary between groups first."""
    names = list(dict.fromkeys([*(n for t in m.layout.terms for n in t.names), *m.formula.variables]))
    frame = _frame(m)
    known = set(frame) if isinstance(frame, Mapping) else set(frame.columns)
    usable = (n for n in names if n in known and n != m.layout.response)
    return [n for n in usable if np.asarray(_column(m, n)).dtype.kind in "iuf"]


def _x_name(m: Fit, x: str | None, t: int) -> str:
    known = _numeric(m)
    if x is None:
        groups = set(m.layout.terms[t].label.split(":"))
        found = [n for n in known if n not in groups]
        if not found:
            raise DataError("trajectories: the formula has no numeric variable to draw the response against")
        return found[0]
    if x not in known:
        raise UnknownColumnError(f"trajectories: x={x!r} is not a numeric variable of the formula; {nearest(x, known)}")
    return x


def _numbers(m: Fit, name: str) -> Array:
    values = np.asarray(_column(m, name), dtype=float)
    assert m.design is not None
    return values if m.design.rows is None else values[m.design.rows]


def _varied(m: Fit, row: int, name: str, grid: Array) -> Any:
    """Return copies of one used row of the data with `name` running over `grid`, in the kind of frame that came in."""
    assert m.design is not None
    at = row if m.design.rows is None else int(m.design.rows[row])
    frame = _frame(m)
    if isinstance(frame, Mapping):
        return {k: grid if k == name else np.repeat(np.asarray(v)[at : at + 1], len(grid)) for k, v in frame.items()}
    copies = frame[[at] * len(grid)]
    column = nw.new_series(name, grid, nw.Float64(), backend=frame.implementation)
    return _aligned(copies, column).to_native()


def _aligned(frame: nw.DataFrame[Any], column: nw.Series[Any]) -> nw.DataFrame[Any]:
    """Replace a column by position, whatever index a pandas frame carries."""
    return nw.maybe_reset_index(frame).with_columns(column)
