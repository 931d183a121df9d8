"""Pictures of residuals: against fitted values, and against normal quantiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ranef.plot.smooth import smooth
from ranef.plot.style import BLUE, GREY, INK, MAX_POINTS, ORANGE, PALE, axes, dress, legend, returned
from ranef.plot.terms import find_term

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ranef.model import Fit

Array = NDArray[np.float64]
#: Points drawn in a quantile plot; beyond, the middle is thinned and both tails are kept.
MAX_QUANTILES = 3_000


def residuals_fitted(m: Fit, type: str = "scaled", ax: Any = None) -> Any:  # noqa: A002 - as in Fit.residuals
    """Plot residuals against fitted values, with a smooth line.

    Parameters
    ----------
    m : Fit
        The fit.
    type : str
        A type of `Fit.residuals`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.residuals_fitted(m)
    """
    (panel,) = axes(1, ax, size=(6.0, 4.2))
    x, y = np.ravel(m.fitted()), np.ravel(m.residuals(type))  # a point for every category of a row of counts
    if len(x) > MAX_POINTS:
        _hexagons(panel, x, y)
    else:
        panel.scatter(x, y, s=_area(len(x)), color=BLUE, alpha=_alpha(len(x)), linewidths=0)
    panel.axhline(0, color=INK, linewidth=0.9)
    line = smooth(x, y)
    if len(line[0]):
        panel.plot(*line, color=ORANGE, linewidth=2, label="smooth")
        legend(panel)
    dress(panel, "fitted value", f"{type} residual")
    return panel


def qq(m: Fit, of: str = "residuals", level: float = 0.95, ax: Any = None) -> Any:
    """Plot quantiles of the residuals, or of conditional modes, against normal quantiles.

    The line passes through the quartiles. The band holds each point of a normal sample with probability `level`,
    one at a time: the i-th of n ordered uniforms has the Beta(i, n - i + 1) distribution.

    Parameters
    ----------
    m : Fit
        The fit.
    of : str
        `"residuals"` (divided by sigma) or a grouping factor, whose conditional modes are drawn, a panel a column.
    level : float
        Coverage of the band.
    ax : Axes or array of Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes, or an array of them where `of` names a term with several columns

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.qq(m, of="Subject")
    """
    samples = _samples(m, of)
    panels = axes(len(samples), ax, size=(4.6, 4.2))
    for panel, (name, values) in zip(panels, samples, strict=True):
        _quantiles(panel, np.sort(values[np.isfinite(values)]), level)
        dress(panel, "normal quantile", name)
    return returned(panels)


def _samples(m: Fit, of: str) -> list[tuple[str, Array]]:
    if of == "residuals":
        return [("scaled residual", np.ravel(m.residuals("scaled")))]
    t = find_term(m, of)
    info, modes = m.layout.terms[t], m.estimate.modes[t]
    return [(f"conditional mode of {name} | {info.label}", modes[:, j]) for j, name in enumerate(info.names)]


def _quantiles(ax: Axes, y: Array, level: float) -> None:
    n = len(y)
    i = _kept(n)
    x = special.ndtri((i + 0.5) / n)
    centre, spread = _quartile_line(y)
    low, high = (special.ndtri(special.betaincinv(i + 1, n - i, p)) for p in ((1 - level) / 2, (1 + level) / 2))
    ax.fill_between(
        x, centre + spread * low, centre + spread * high, color=PALE, linewidth=0, label=f"{level:.0%} pointwise"
    )
    ax.plot(x, centre + spread * x, color=GREY, linewidth=1.2)
    outside = (y[i] < centre + spread * low) | (y[i] > centre + spread * high)
    ax.scatter(x[~outside], y[i][~outside], s=_area(n), color=BLUE, linewidths=0, alpha=0.8)
    if outside.any():
        ax.scatter(x[outside], y[i][outside], s=_area(n) + 4, color=ORANGE, linewidths=0, label="outside the band")
    legend(ax, loc="upper left")


def _kept(n: int) -> NDArray[np.int64]:
    """Positions drawn: all of a small sample; of a large one both tails and an even share of the middle."""
    if n <= MAX_QUANTILES:
        return np.arange(n)
    tail = MAX_QUANTILES // 4
    middle = np.linspace(tail, n - tail - 1, 2 * tail).astype(np.int64)
    return np.unique(np.concatenate([np.arange(tail), middle, np.arange(n - tail, n)]))


def _quartile_line(y: Array) -> tuple[float, float]:
    """Intercept and slope of the line through the quartiles."""
    low, high = np.quantile(y, [0.25, 0.75])
    spread = (high - low) / (2 * special.ndtri(0.75))
    return float((low + high) / 2), float(spread) if spread > 0 else float(np.std(y))


def _hexagons(ax: Axes, x: Array, y: Array) -> None:
    cells = ax.hexbin(x, y, gridsize=60, bins="log", cmap="Blues", mincnt=1, linewidths=0.1)
    bar = ax.figure.colorbar(cells, ax=ax, pad=0.02)
    bar.set_label("observations", color=INK)
    bar.outline.set_visible(False)


def _area(n: int) -> float:
    return 22.0 if n <= 300 else 12.0 if n <= 3000 else 5.0


def _alpha(n: int) -> float:
    return 0.75 if n <= 300 else 0.45 if n <= 3000 else 0.25
