"""Standard deviations, correlations and covariances of the random effects, as values with names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array
from ranef.engines.parameters import unique
from ranef.errors import UnknownColumnError, nearest
from ranef.formula.functions import PLAIN
from ranef.formula.groups import group_named
from ranef.inference.frames import to_frame

if TYPE_CHECKING:
    from ranef.layout import GroupInfo
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a covariance structure: its name (sd, cor, rate, range, nu, loading), what it is of, its value."""

    name: str
    of: str
    value: float

    @property
    def label(self) -> str:
        """As tables name it: "sd__visit2", "cor__lag2", "rate"."""
        return f"{self.name}__{self.of}" if self.of else self.name


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of the random effects of one term, in the units of its linear predictor (absolute).

    Attributes
    ----------
    group : str
        Grouping factor.
    names : tuple of str
        The varying columns.
    structure : str
        "us", "diag" or the name of the wrapper.
    sd : (k,) array
        Standard deviations.
    corr, cov : (k, k) arrays
        Correlations (NaN where a standard deviation is 0) and covariances.
    component : str
        The part of the model it belongs to: "mean", "zero_inflation" ….
    parameters : tuple of Parameter
        What was estimated, where a structure has fewer parameters than standard deviations and correlations: sd, cor,
        rate, range. Empty for "us" and "diag". Those that standard deviations of 0 leave without meaning are NaN.
    """

    group: str
    names: tuple[str, ...]
    structure: str
    sd: Array
    corr: Array
    cov: Array
    component: str = "mean"
    parameters: tuple[Parameter, ...] = ()

    @property
    def structured(self) -> bool:
        """Whether a structure, not the standard deviations and correlations themselves, was estimated."""
        return self.structure not in PLAIN

    @property
    def loadings(self) -> Array | None:
        """Loadings (k, d) of a covariance of reduced rank, Sigma = Lambda Lambda'; None for other structures."""
        if self.structure != "rr":
            return None
        cells = loading_cells(len(self.names), len(self.parameters))
        out = np.zeros((len(self.names), cells[-1][1] + 1))
        for cell, parameter in zip(cells, self.parameters, strict=True):
            out[cell] = parameter.value
        return out

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Positions (i, j), i > j, of the correlations that were estimated."""
        k = 0 if self.structure in ("diag", "homdiag") else len(self.names)
        return [(i, j) for j in range(k) for i in range(j + 1, k)]


@dataclass(frozen=True, eq=False, repr=False)
class VarCorr(Mapping[str, Covariance]):
    """Covariances by term, and sigma. A second term of the same group g has the key "g.1", as in lme4.

    Terms of components other than the mean have keys such as "zero_inflation:g".

    Attributes
    ----------
    terms : tuple of Covariance
        In the order of the formula.
    sigma : float
        Residual standard deviation of a gaussian model, or of the working response of a quasi-likelihood fit; NaN
        where there is none, or none that is one number.
    """

    keys_: tuple[str, ...]
    terms: tuple[Covariance, ...]
    sigma: float
    kind: str

    def __getitem__(self, key: str) -> Covariance:
        found = group_named(key, self.keys_)
        if found is None:
            raise UnknownColumnError(f"there is no term {key!r}; {nearest(key, self.keys_)}")
        return self.terms[self.keys_.index(found)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys_)

    def __len__(self) -> int:
        return len(self.keys_)

    def to_frame(self) -> Any:
        """Long table: `group, term, term2, variance, sd`; covariances carry their correlation in `sd`, as in R."""
        return to_frame(_columns(rows(self)), self.kind)

    def __repr__(self) -> str:
        keys = [t.group if t.component == "mean" else f"{t.component}:{t.group}" for t in self.terms]
        wide = max(14, *(len(key) + 2 for key in (*keys, residual_name(self))))
        lines = [f"{'group':<{wide}}{'term':<24}{'sd':>12}  corr"]
        for key, term in zip(keys, self.terms, strict=True):
            own = _structure_lines(term) if term.structured else [_line(term, i) for i in range(len(term.names))]
            lines += [f"{key if i == 0 else '':<{wide}}{line}" for i, line in enumerate(own)]
        residual = [f"{residual_name(self):<{wide}}{'':<24}{self.sigma:>12.6g}"] if has_residual(self) else []
        return "\n".join([*lines, *residual])


def varcorr(m: Fit) -> VarCorr:
    """Return the random effects' covariances of a fit."""
    covariances = zip(m.layout.terms, m.estimate.covariances, strict=True)
    found = tuple(_covariance(info, cov, _parameters(m, t)) for t, (info, cov) in enumerate(covariances))
    sigma = m.sigma if m.distribution.is_gaussian_identity or m.method == "pql" else float("nan")
    return VarCorr(unique([info.key for info in m.layout.terms]), found, sigma, m.layout.kind)


def has_residual(found: VarCorr) -> bool:
    """Whether the model has a residual variance that is one number."""
    return not np.isnan(found.sigma)


def residual_name(found: VarCorr) -> str:
    """Return what tables call the group of the residual; a grouping factor of the model may have taken the name."""
    return "Residual" if all(t.group != "Residual" for t in found.values()) else "Residual (sigma)"


def _parameters(m: Fit, term: int) -> tuple[Parameter, ...]:
    names = m.layout.terms[term].names
    sd = np.sqrt(np.diag(m.estimate.covariances[term]))
    mine = [
        (name, at, value if _has_meaning(name, at, sd) else float("nan"))
        for t, name, at, value in m.estimate.natural
        if t == term
    ]
    if m.layout.terms[term].structure == "rr":
        cells = loading_cells(len(names), len(mine))
        return tuple(
            Parameter(name, f"{names[i]}.{j + 1}", value) for (i, j), (name, _, value) in zip(cells, mine, strict=True)
        )
    return tuple(
        Parameter(name, "" if at is None else f"lag{at}" if name == "cor" else names[at], value)
        for name, at, value in mine
    )


def _has_meaning(name: str, at: int | None, sd: Array) -> bool:
    """Whether a parameter of a structure says anything: a correlation does between two effects that vary."""
    if name in ("sd", "loading"):
        return True
    lags = range(1, len(sd)) if at is None else [at]
    return len(sd) < 2 or any((sd[lag:] * sd[:-lag] > 0).any() for lag in lags)


def loading_cells(rows: int, count: int) -> list[tuple[int, int]]:
    """(row, column) of the free entries of lower trapezoidal loadings, column by column."""
    cells = ((i, j) for j in range(rows) for i in range(j, rows))
    return [next(cells) for _ in range(count)]


def _covariance(info: GroupInfo, cov: Array, parameters: tuple[Parameter, ...]) -> Covariance:
    sd = np.sqrt(np.diag(cov))
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = np.clip(cov / np.outer(sd, sd), -1, 1)
    np.fill_diagonal(corr, 1.0)
    return Covariance(info.label, info.names, info.structure, sd, corr, cov, info.component, parameters)


def rows(vc: VarCorr) -> list[tuple[str, str | None, str | None, float, float]]:
    """(group, term, term2, variance or covariance, sd or correlation)."""
    out: list[tuple[str, str | None, str | None, float, float]] = []
    for key, t in vc.items():
        out += [(key, n, None, t.cov[i, i], t.sd[i]) for i, n in enumerate(t.names)]
        out += [(key, t.names[j], t.names[i], t.cov[i, j], t.corr[i, j]) for i, j in t.pairs]
    return [*out, *([(residual_name(vc), None, None, vc.sigma**2, vc.sigma)] if has_residual(vc) else [])]


def _columns(table: list[Any]) -> dict[str, list[Any]]:
    names = ("group", "term", "term2", "variance", "sd")
    return {name: [row[i] for row in table] for i, name in enumerate(names)}


def _structure_lines(term: Covariance) -> list[str]:
    """Return one line a parameter; a matrix that is known has none."""
    head = f"{f'{term.structure}, {len(term.names)} columns':<24}"
    if term.loadings is not None:
        rank = term.loadings.shape[1]
        head = f"{f'{term.structure}, rank {rank}':<24}{'':>12}  {'loadings':>{10 * rank}}"
        rows = zip(term.names, term.sd, term.loadings, strict=True)
        return [head, *(f"{n:<24}{s:>12.6g}  {''.join(f'{v:>10.4g}' for v in row)}" for n, s, row in rows)]
    return [head.rstrip(), *(f"  {p.label:<22}{p.value:>12.6g}" for p in term.parameters)]


def _line(term: Covariance, i: int) -> str:
    corr = " ".join(f"{term.corr[i, j]:6.2f}" for j in range(i)) if term.pairs else ""
    return f"{term.names[i]:<24}{term.sd[i]:>12.6g}  {corr}".rstrip()
