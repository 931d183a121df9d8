"""Pictures of profiles: signed roots with intervals, densities, pairs with contours (Bates & Watts 1988)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.errors import DataError, OptionError
from ranef.inference.profile import Curve, Profile
from ranef.inference.profile import profile as make_profile
from ranef.inference.wald import quantile
from ranef.plot.style import BLUE, GREY, INK, ORANGE, PALE, axes, beside, dress, returned, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ranef.model import Fit

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
FINE = 241  # points of a drawn curve
ROUND = 181  # points of a contour

Array = Any


def profile(
    p: Profile | Fit,
    which: str | Sequence[str] | None = None,
    levels: Sequence[float] = LEVELS,
    absolute: bool = False,
    ax: Any = None,
) -> Any:
    """Draw signed roots of the profile deviance, one panel a parameter, with intervals.

    A straight line is a quadratic log-likelihood: there Wald intervals are right. Each interval is where the curve lies
    between -z and z.

    Parameters
    ----------
    p : Profile or Fit
        A fit is profiled first.
    which : str or sequence of str, optional
        Labels of the parameters; default all.
    levels : sequence of float
        Levels of the intervals drawn.
    absolute : bool
        Draw |zeta|, as lattice does: intervals are then horizontal bars inside the V.
    ax : Axes or array of Axes, optional
        Where to draw, one for each parameter.

    Returns
    -------
    Axes, or an array of Axes for several parameters.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.profile(rf.profile(m, ["Days", "sigma"]))
    """
    curves = curves_of(p, which, max(levels))
    panels = axes(len(curves), ax, size=(3.4, 3.0), wrap=3)
    for panel, curve in zip(panels, curves, strict=True):
        _signed_root(panel, curve, levels, absolute)
        dress(panel, short(curve.parameter.label, 34), "")
    for panel in panels if not beside(panels) else panels[:1]:
        panel.set_ylabel("|ζ|" if absolute else "ζ", color=INK)
    return returned(panels)


def profile_density(p: Profile | Fit, which: str | Sequence[str] | None = None, ax: Any = None) -> Any:
    """Draw the densities that profiles imply: that of v where zeta(v) is standard normal.

    Skewness shows how far from normal an estimator's distribution is; the estimate is marked.

    Parameters
    ----------
    p : Profile or Fit
    which : str or sequence of str, optional
        Labels of the parameters; default all.
    ax : Axes or array of Axes, optional

    Returns
    -------
    Axes, or an array of Axes for several parameters.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.profile_density(rf.profile(m, ["Days", "sigma"]))
    """
    curves = curves_of(p, which, 0.99)
    panels = axes(len(curves), ax, size=(3.4, 2.6), wrap=3)
    for panel, curve in zip(panels, curves, strict=True):
        value, zeta = traced(curve)
        density = np.exp(-0.5 * zeta**2) / np.sqrt(2 * np.pi) * np.gradient(zeta, value)
        panel.fill_between(value, density, color=PALE, linewidth=0)
        panel.plot(value, density, color=BLUE, linewidth=1.6)
        panel.axvline(curve.estimate, color=ORANGE, linewidth=1.0, linestyle="--")
        panel.set_ylim(bottom=0)
        dress(panel, short(curve.parameter.label, 34), "")
    for panel in panels if not beside(panels) else panels[:1]:
        panel.set_ylabel("density", color=INK)
    return returned(panels)


def profile_pairs(
    p: Profile | Fit,
    which: str | Sequence[str] | None = None,
    levels: Sequence[float] = LEVELS,
    ax: Any = None,
) -> Any:
    """Draw pairs of parameters: profile traces and contours of joint confidence regions.

    Below the diagonal on the scale of the parameters, above it on the zeta scale, where a quadratic log-likelihood has
    ellipses. Contours are interpolated from the traces (Bates & Watts 1988, appendix 6); where a parameter's bound
    cuts a region off, its contour is open.

    Parameters
    ----------
    p : Profile or Fit
    which : str or sequence of str, optional
        Labels of at least two parameters; default all.
    levels : sequence of float
        Joint levels, chi-square with 2 degrees of freedom.
    ax : array of Axes, optional
        k x k of them for k parameters.

    Returns
    -------
    k x k array of Axes.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> axes = rf.plot.profile_pairs(rf.profile(m, ["Days", "sigma"]))
    """
    curves = curves_of(p, which, max(levels))
    k = len(curves)
    if k < 2:
        raise OptionError("profile_pairs: a pair takes two parameters; leave which= out or name more")
    panels = np.array(axes(k * k, ax, size=(1.75, 1.6), wrap=k), dtype=object).reshape(k, k)
    radii = [float(np.sqrt(-2 * np.log(1 - level))) for level in levels]
    for row in range(k):
        for column in range(k):
            panel = panels[row, column]
            if row == column:
                _name(panel, curves[row])
            else:
                _pair(panel, curves[column], curves[row], radii, zeta=row < column)
            _outer_labels(panel, row, column, k)
    return panels


def curves_of(p: Profile | Fit, which: str | Sequence[str] | None, level: float) -> list[Curve]:
    """Return the curves to draw.

    Raises
    ------
    DataError
        If there is none.
    """
    if not isinstance(p, Profile):
        p = make_profile(p, which, level=max(level, 0.99), points=12)
        which = None
    names = p.names if which is None else [which] if isinstance(which, str) else list(which)
    curves = [p[name] for name in names]
    drawn = [c for c in curves if len(c.value) > 1]
    if not drawn:
        raise DataError("there is no profile to draw; see Profile.failed")
    return drawn


def traced(curve: Curve) -> tuple[Array, Array]:
    """Return a fine grid of values, equally spaced in zeta, and their zeta."""
    zeta = np.linspace(curve.zeta[0], curve.zeta[-1], FINE)
    value = np.asarray(curve.at(zeta), dtype=float)
    good = np.isfinite(value)
    value, keep = np.unique(value[good], return_index=True)
    return value, zeta[good][keep]


def _signed_root(panel: Axes, curve: Curve, levels: Sequence[float], absolute: bool) -> None:
    value, zeta = traced(curve)
    panel.plot(value, np.abs(zeta) if absolute else zeta, color=BLUE, linewidth=1.6)
    panel.axhline(0, color=GREY, linewidth=0.8)
    for level in levels:
        cut = float(quantile(level))
        if cut > max(abs(curve.zeta[0]), abs(curve.zeta[-1])) + 1e-9:
            continue
        low, high = (
            float(np.clip(v, curve.value[0], curve.value[-1])) for v in _ends(curve, level)
        )  # fmt: skip
        if absolute:
            panel.plot([low, low, high, high], [0, cut, cut, 0], color=ORANGE, linewidth=0.8)
        else:
            heights = [float(np.interp(v, value, zeta)) for v in (low, high)]
            panel.vlines([low, high], [0, 0], heights, color=ORANGE, linewidth=0.9)
    panel.plot([curve.estimate], [0], marker="o", markersize=3.5, color=INK)
    panel.margins(x=0.03)


def _ends(curve: Curve, level: float) -> tuple[float, float]:
    """Interval ends, the curve's own where it does not reach so far."""
    out: list[float] = []
    for zeta, side in ((-float(quantile(level)), 0), (float(quantile(level)), -1)):
        inside = abs(zeta) <= abs(curve.zeta[side])
        out.append(float(curve.at(zeta)) if inside else float(curve.value[side]))
    return out[0], out[1]


def _name(panel: Axes, curve: Curve) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[["top", "right", "left", "bottom"]].set_visible(False)
    text = short(curve.parameter.label, 40).replace(" | ", "\n| ").replace("__", "\n")
    panel.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, color=INK, transform=panel.transAxes)


def _outer_labels(panel: Axes, row: int, column: int, k: int) -> None:
    panel.tick_params(labelsize=6.5)
    panel.locator_params(nbins=4) if row != column else None
    if row != column:
        panel.tick_params(labelbottom=row == k - 1, labelleft=column == 0)
        if row < column:
            panel.tick_params(
                labeltop=row == 0, labelright=column == k - 1, labelbottom=False, labelleft=False, top=False
            )


def _pair(panel: Axes, x: Curve, y: Curve, radii: Sequence[float], zeta: bool) -> None:
    dress(panel)
    for radius in radii:
        cx, cy = contour(x, y, radius)
        panel.plot(*((cx, cy) if zeta else (x.at(cx), y.at(cy))), color=BLUE, linewidth=0.8)
    for across, along in ((x, y), (y, x)):
        at, other = across.zeta, trace(across, along)
        points = (at, other) if across is x else (other, at)
        if not zeta:
            points = (x.at(points[0]), y.at(points[1]))
        panel.plot(*points, color=ORANGE, linewidth=0.9)
    if not zeta:
        panel.plot([x.estimate], [y.estimate], marker="o", markersize=2.5, color=INK)


def trace(across: Curve, along: Curve) -> Array:
    """Zeta of one parameter along the profile of another; its end where that profile leaves it."""
    value = np.asarray(across.along[along.parameter.label], dtype=float)
    return np.asarray(along.zeta_at(np.clip(value, along.value[0], along.value[-1])), dtype=float)


def contour(x: Curve, y: Curve, radius: float) -> tuple[Array, Array]:
    """Contour of the joint region of this radius on the zeta scales (Bates & Watts 1988, appendix 6).

    With zeta_x = r cos(a + d / 2) and zeta_y = r cos(a - d / 2), the phase d is known where a trace meets the contour
    (there one of them is +-r); a periodic cubic spline in a joins these four.
    """
    from scipy.interpolate import CubicSpline

    def angle(across: Curve, along: Curve, at: float) -> float:
        other = np.interp(at, across.zeta, trace(across, along))
        return float(np.arccos(np.clip(other / radius, -1, 1)))

    right, left = angle(x, y, radius), angle(x, y, -radius)
    top, bottom = angle(y, x, radius), angle(y, x, -radius)
    a = np.array([-right / 2, top / 2, (np.pi + left) / 2, (3 * np.pi - bottom) / 2])
    d = np.array([right, top, np.pi - left, np.pi - bottom])
    order = np.argsort(a)
    a, d = a[order], d[order]
    if not (np.diff(a) > 1e-9).all() or not np.isfinite(d).all():
        return np.array([np.nan]), np.array([np.nan])
    phase = CubicSpline(np.r_[a, a[0] + 2 * np.pi], np.r_[d, d[0]], bc_type="periodic")
    t = np.linspace(a[0], a[0] + 2 * np.pi, ROUND)
    return _reached(x, radius * np.cos(t + phase(t) / 2)), _reached(y, radius * np.cos(t - phase(t) / 2))


def _reached(curve: Curve, zeta: Array) -> Array:
    """Zeta where the curve goes so far, NaN elsewhere."""
    return np.where((zeta >= curve.zeta[0] - 1e-9) & (zeta <= curve.zeta[-1] + 1e-9), zeta, np.nan)
