"""The parameters of a fit as profiles, bootstraps and intervals speak of them: names, values, places in the core.

One list for every engine: coefficients of all components, then standard deviations and correlations of each term (or
the parameters of its structure), then the residual standard deviation. The rows are those of `tidy` in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.engines.estimate import Array, Estimate
from ranef.engines.lags import TOEPLITZ, toeplitz_correlations
from ranef.engines.linear import cells
from ranef.engines.parameters import of_column, of_pair, spelled
from ranef.errors import ArgumentError, OptionError, nearest
from ranef.inference.ddf.method import partial_of
from ranef.inference.named import names_of
from ranef.inference.varcorr import Covariance, has_residual, residual_name

if TYPE_CHECKING:
    from ranef.model import Fit

SCALES = ("sd", "variance", "log", "fisher", "natural")
LEVEL = "a level of a fixed factor of many levels is profiled where it is named; its Wald interval is nearly that"


@dataclass(frozen=True)
class Transform:
    """A monotone map from the core's coordinate of a parameter to its value, with inverse and derivative."""

    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]
    slope: Callable[[Any], Any]


IDENTITY = Transform(np.asarray, np.asarray, np.ones_like)
EXP = Transform(np.exp, np.log, np.exp)
SINE = Transform(np.sin, np.arcsin, np.cos)
#: x / sqrt(1 + x^2), the correlation of ar1 structures, written such that infinite x give +-1.
RATIO = Transform(lambda x: np.tanh(np.arcsinh(x)), lambda r: r / np.sqrt(1 - r * r), lambda x: (1 + x * x) ** -1.5)


def compound(k: int) -> Transform:
    """Correlation of compound symmetry in (-1 / (k - 1), 1)."""
    low = -1 / (k - 1)
    return Transform(
        lambda x: low + (1 - low) / (1 + np.exp(-x)),
        lambda r: np.log((r - low) / (1 - r)),
        lambda x: (1 - low) / (2 + np.exp(x) + np.exp(-x)),
    )


@dataclass(frozen=True)
class Parameter:
    """A parameter by name.

    Attributes
    ----------
    label : str
        Unique: "Days", "zero_inflation.(Intercept)", "sd(Days | Subject)", "cor((Intercept), Days | Subject)", "sigma".
    effect, component, group, term : str
        As in `tidy`.
    kind : "coefficient" | "sd" | "cor" | "other"
    hold : (str, positions, positions)
        What the core holds: "beta" with the coefficient, or "coordinate", "row", "pair", "lag" of positions in theta.
    low, high : float
        Bounds of the core's coordinate.
    transform : Transform
        From the core's coordinate to the value.
    refused : str
        Why it has no profile; empty where it has.
    also : tuple of str
        Other spellings: "sd(Subject)".
    natural : Transform
        From a coefficient that is all of a component to that component's parameter: the inverse of its link.
    residual : bool
        Whether it is the residual standard deviation; its group, "Residual", may be the name of a factor too.
    """

    label: str
    effect: str
    component: str
    group: str | None
    term: str
    kind: str
    hold: tuple[str, tuple[int, ...], tuple[int, ...]]
    low: float = -math.inf
    high: float = math.inf
    transform: Transform = IDENTITY
    refused: str = ""
    also: tuple[str, ...] = ()
    natural: Transform = IDENTITY
    residual: bool = False

    def answers_to(self, name: str) -> bool:
        """Whether that is one of its names; spaces do not matter."""
        bare = "".join(name.split())
        return bare in ("".join(known.split()) for known in (self.label, self.term, *self.also))

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest value."""
        with np.errstate(over="ignore"):
            return float(self.transform.forward(self.low)), float(self.transform.forward(self.high))


def parameters(m: Fit) -> tuple[Parameter, ...]:
    """Return all parameters of a fit, those that have no profile included."""
    return (*coefficients(m), *covariances(m), *residual(m))


def levels_of(m: Fit) -> NDArray[np.bool_]:
    """Tell which coefficients are levels of a fixed factor of many levels."""
    partial = partial_of(m) if m.task.linear else None
    out = np.zeros(len(m.estimate.beta), dtype=bool)
    for first, count in () if partial is None else partial.wide:
        out[first : first + count] = True
    return out


def coefficients(m: Fit) -> list[Parameter]:
    """Coefficients of all components."""
    labels, _ = names_of(m, "all")
    parts = [(c.name, name) for c in m.layout.components for name in c.names]
    gone, levels = np.isnan(m.estimate.beta), levels_of(m)
    natural = _natural_scales(m)
    return [
        Parameter(
            label, "fixed", part, None, name, "coefficient", ("beta", (j,), ()),
            refused="the column was dropped as linearly dependent" if gone[j] else LEVEL if levels[j] else "",
            natural=natural.get(part, IDENTITY),
        )
        for j, (label, (part, name)) in enumerate(zip(labels, parts, strict=True))
    ]  # fmt: skip


def _natural_scales(m: Fit) -> dict[str, Transform]:
    """Component that is one number, and no mean -> the map from its coefficient to that number."""
    family, out = m.distribution, dict[str, Transform]()
    for part in m.layout.components[1:]:
        if part.names == ("(Intercept)",) and part.name in family.parameters[1:]:
            link = family.link_of(part.name)
            out[part.name] = Transform(link.inverse, link.forward, link.slope)
    return out


def covariances(m: Fit) -> list[Parameter]:
    """Return standard deviations and correlations of each term, or the parameters of its structure."""
    out: list[Parameter] = []
    first, own = 0, sum(len(places(t)) for t in m.varcorr().values())
    for key, term in m.varcorr().items():
        if term.structured:
            out += [_structural(key, term, p, own + j) for j, p in enumerate(term.parameters)]
            own += len(term.parameters)
            continue
        out += _entries(key, term, first)
        first += len(places(term))
    return out


def places(term: Covariance) -> list[tuple[int, int]]:
    """(row, column) of the entries of a term's root in theta."""
    return [] if term.structured else cells(len(term.names), term.structure)


def rows_of(term: Covariance, first: int) -> list[tuple[int, ...]]:
    """Positions in theta of each row of a term's root."""
    entries = places(term)
    return [tuple(first + t for t, (r, _) in enumerate(entries) if r == i) for i in range(len(term.names))]


def _entries(key: str, term: Covariance, first: int) -> list[Parameter]:
    rows = rows_of(term, first)
    group = key.removeprefix(f"{term.component}:")
    sds = [
        Parameter(
            label, "ran_pars", term.component, group, f"sd__{name}", "sd", ("row", row, ()), 0.0, also=tuple(also),
        )
        for name, row in zip(term.names, rows, strict=True)
        for label, *also in (spelled("sd", of_column(name), key, len(rows) == 1),)
    ]  # fmt: skip
    quarter, pairs = math.pi / 2, term.pairs
    return sds + [
        Parameter(
            label, "ran_pars", term.component, group, f"cor__{term.names[j]}.{term.names[i]}", "cor",
            ("pair", rows[j], rows[i]), -quarter, quarter, SINE, _undefined(term, i, j), tuple(also),
        )
        for i, j in pairs
        for label, *also in (spelled("cor", of_pair(term.names[j], term.names[i]), key, len(pairs) == 1),)
    ]  # fmt: skip


def _undefined(term: Covariance, i: int, j: int) -> str:
    zero = [term.names[t] for t in (i, j) if not term.sd[t] > 0]
    return f"the standard deviation of {zero[0]} is 0, so the correlation is undefined" if zero else ""


def _structural(key: str, term: Covariance, p: Any, at: int) -> Parameter:
    group, transform, hold = key.removeprefix(f"{term.component}:"), EXP, ("coordinate", (at,), ())
    if p.name == "cor" and term.structure in ("cs", "homcs"):
        transform = compound(len(term.names))
    elif p.name == "cor":
        transform = RATIO
        if p.of not in ("", "lag1"):  # a function of the coordinates of all lags up to its own
            back = int(p.of.removeprefix("lag"))
            hold = ("lag", tuple(range(at - back + 1, at + 1)), ())
    elif p.name == "loading":
        transform = IDENTITY  # entries of Lambda themselves, of either sign
    kind = p.name if p.name in ("sd", "cor") else "other"
    alone = sum(q.name == p.name for q in term.parameters) == 1
    label, *also = spelled(p.name, [p.of] if p.of else [], key, alone)
    return Parameter(
        label, "ran_pars", term.component, group, p.label, kind, hold, transform=transform, also=tuple(also),
    )  # fmt: skip


def residual(m: Fit) -> list[Parameter]:
    """Return the residual standard deviation, where it is one number."""
    if not has_residual(m.varcorr()):
        return []
    hold = ("coordinate", (len(m.theta),), ())
    refused = "" if m.task.variance is None else "it is held at what dispersion= says"
    if not (m.task.linear or refused):
        component = next((c for c in m.layout.components if c.name == "dispersion"), None)
        if component is None or not component.names:
            refused = "it is held at what dispersion= says"
        elif component.names != ("(Intercept)",) or m.distribution.links[1] != "log":
            refused = "the dispersion is not estimated as one number on the log scale"
        else:
            hold = ("beta", (component.first,), ())
    return [Parameter("sigma", "ran_pars", "mean", residual_name(m.varcorr()), "sd__Observation", "sd", hold,
                      transform=EXP, refused=refused, residual=True)]  # fmt: skip


def select(known: Sequence[Parameter], which: str | Sequence[str] | None, what: str) -> list[Parameter]:
    """Return the parameters asked for, in the fit's order.

    Parameters
    ----------
    known : sequence of Parameter
        All there are.
    which : None, "all", "fixed", "random" or names
        A name is a label, "sd(Days | Subject)", as `fixed=` and `prior=` of `fit` take it, or a term as in `tidy`
        ("sd__Days"), which may stand for several.
    what : str
        Who asks, for the message.

    Notes
    -----
    All of them are without the dispersion's coefficient where that is the logarithm of sigma.

    Raises
    ------
    OptionError
        If a name is not known; the nearest is named.
    """
    groups = {"all": ("fixed", "ran_pars"), "fixed": ("fixed",), "random": ("ran_pars",), "ran_pars": ("ran_pars",)}
    if which is None:
        which = "all"
    if isinstance(which, str) and which in groups and not any(p.label == which for p in known):
        # A residual standard deviation and the coefficient of the dispersion are one parameter: once is enough.
        twice = {p.hold for p in known if p.residual and not p.refused} if which == "all" else set()
        return [p for p in known if p.effect in groups[which] and (p.residual or p.hold not in twice)]
    if not isinstance(which, str) and not (isinstance(which, Sequence) and all(isinstance(w, str) for w in which)):
        raise ArgumentError(f"{what}: which={which!r} must be a name or a list of names")
    asked = [which] if isinstance(which, str) else list(which)
    for name in asked:
        if not any(p.answers_to(name) for p in known):
            raise OptionError(f"{what}: there is no parameter {name!r}; {nearest(name, [p.label for p in known])}")
    return [p for p in known if any(p.answers_to(name) for name in asked)]


def table(m: Fit, beta: Array, theta: Array, sigma: Array) -> Array:
    """Return the values of all parameters at several points, (r, parameters), in the order of `parameters`.

    Parameters
    ----------
    m : Fit
        Whose parameters they are.
    beta : (r, p) array
        Coefficients of all components.
    theta : (r, m) array
        Entries of the absolute roots of the covariances, then parameters of structures.
    sigma : (r,) array
        Residual standard deviations; looked at where the dispersion is not among the coefficients.
    """
    columns: list[Array] = list(beta.T)
    known = parameters(m)
    first, own = 0, sum(len(places(t)) for t in m.varcorr().values())
    for term in m.varcorr().values():
        if term.structured:
            mine = known[len(columns) : len(columns) + len(term.parameters)]
            found = [_natural(p, theta[:, own + j]) for j, p in enumerate(mine)]
            if is_toeplitz(term):
                at = [j for j, p in enumerate(mine) if p.kind == "cor"]
                for j, column in zip(at, toeplitz_correlations(theta[:, [own + j for j in at]]).T, strict=True):
                    found[j] = column
            columns += found
            own += len(term.parameters)
            continue
        columns += _moments(theta, term, first)
        first += len(places(term))
    if m.task.linear:
        columns.append(sigma)
    elif len(known) > len(columns):
        columns.append(sigma if known[-1].refused else _natural(known[-1], beta[:, known[-1].hold[1][0]]))
    return np.column_stack(columns)


def is_toeplitz(term: Covariance) -> bool:
    """Whether correlations of the term are those of lags."""
    return term.structure in TOEPLITZ


def _natural(p: Parameter, column: Array) -> Array:
    return np.full(len(column), np.nan) if p.refused else np.asarray(p.transform.forward(column))


def _moments(theta: Array, term: Covariance, first: int) -> list[Array]:
    rows = [theta[:, list(r)] for r in rows_of(term, first)]
    sds = [np.sqrt((r**2).sum(axis=1)) for r in rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        cors = [(rows[i][:, : rows[j].shape[1]] * rows[j]).sum(axis=1) / (sds[i] * sds[j]) for i, j in term.pairs]
    return sds + [np.clip(c, -1, 1) for c in cors]


def of_estimates(m: Fit, found: Sequence[Any]) -> Array:
    """Return the values of all parameters of several estimates of one model, (r, parameters)."""
    beta = np.array([e.beta for e in found])
    sigma = np.array([e.sigma for e in found])
    theta = np.array([e.theta for e in found])
    relative = isinstance(m.estimate, Estimate)  # linear models, and the working ones of quasi-likelihood
    return table(m, beta, theta * sigma[:, None] if relative else theta, sigma)


def values(m: Fit) -> Array:
    """Return the values of all parameters of a fit, in the order of `parameters`."""
    out, known = of_estimates(m, [m.estimate])[0], parameters(m)
    at = len(m.estimate.beta)
    for term in m.varcorr().values():
        own = term.parameters if term.structured else ()
        for p in own:  # exact where a structure is at its limit
            if not known[at].refused:
                out[at] = p.value
            at += 1
        at += 0 if term.structured else len(places(term))
    return out
