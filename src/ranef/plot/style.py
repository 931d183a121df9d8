"""How every figure looks: colours, frames, labels, and the axes a plot draws on. One place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import ArgumentError, NotAvailableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Distinguishable with colour-vision deficiency and in grey print.
INK, BLUE, ORANGE, GREY, PALE = "#222222", "#1f5fa8", "#d1591e", "#8a8f98", "#d5d9e0"
#: More tick labels than this cannot be read; an axis of levels then shows ranks.
MAX_LABELS = 60
#: A scatter of more points than this is a blot; counts in hexagons replace it.
MAX_POINTS = 20_000


def axes(
    n: int, ax: Any = None, size: tuple[float, float] = (4.8, 3.8), wrap: int = 4, share: bool = False
) -> list[Axes]:
    """Return `n` axes: those given, or those of a new figure.

    Parameters
    ----------
    n : int
        How many.
    ax : Axes or array of Axes, optional
        Where to draw.
    size : (float, float)
        Width and height of one panel, inches.
    wrap : int
        Panels in a row.
    share : bool
        Whether all panels have the same limits.

    Raises
    ------
    ArgumentError
        The number of axes given is not `n`.
    NotAvailableError
        matplotlib is not installed.
    """
    if ax is not None:
        return _given(n, ax)
    plt = _pyplot()
    columns = min(n, wrap)
    rows = math.ceil(n / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, layout="constrained",
        sharex=share, sharey=share,
    )  # fmt: skip
    panels = list(grid.ravel())
    for spare in panels[n:]:
        figure.delaxes(spare)
    return panels[:n]


def _given(n: int, ax: Any) -> list[Axes]:
    panels = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(panels) != n:
        raise ArgumentError(f"this plot has {n} panels, ax= holds {len(panels)}; pass that many axes, or leave ax= out")
    return panels


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise NotAvailableError("plots need matplotlib: pip install matplotlib") from None
    return plt


def returned(panels: Sequence[Axes]) -> Any:
    """Return one axes as itself, several as an array."""
    if len(panels) == 1:
        return panels[0]
    out = np.empty(len(panels), dtype=object)
    out[:] = panels
    return out


def beside(panels: Sequence[Axes]) -> bool:
    """Return whether all panels stand in one row of one figure, so that one set of labels serves them all."""
    return len({(id(p.figure), round(p.get_position(original=True).y0, 3)) for p in panels}) == 1


def dress(ax: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Label an axes and give it the house's frame: two spines, a pale grid behind the data."""
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)
    if title:
        ax.set_title(title, loc="left", fontsize="medium", color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)
    ax.tick_params(color=GREY, labelcolor=INK)
    ax.grid(True, color=PALE, linewidth=0.6, alpha=0.7)
    ax.set_axisbelow(True)


def legend(ax: Axes, **options: Any) -> None:
    """Add the house's legend."""
    ax.legend(frameon=True, framealpha=0.85, edgecolor="none", fontsize="small", **options)


def level_axis(ax: Axes, labels: Sequence[object], name: str) -> None:
    """Give the y axis one tick a level where the labels can be read, otherwise ranks."""
    n = len(labels)
    ax.set_ylim(-0.5 - 0.02 * n, n - 0.5 + 0.02 * n)
    if n > MAX_LABELS:
        ax.set_ylabel(f"{name}: rank of {n:,} levels", color=INK)
        return
    ax.set_yticks(range(n), [short(label) for label in labels], fontsize=_font(n))
    ax.set_ylabel(name, color=INK)


def height(n: int) -> float:
    """Return a panel's height in inches for `n` levels."""
    return min(max(2.4, 0.9 + 0.21 * n), 11.0) if n <= MAX_LABELS else 7.0


def _font(n: int) -> float:
    return 9.0 if n <= 30 else 7.5


def short(label: object, limit: int = 24) -> str:
    """Return a label short enough for a tick."""
    text = str(label)
    return text if len(text) <= limit else text[: limit - 1] + "…"
