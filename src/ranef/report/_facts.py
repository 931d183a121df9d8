"""What a summary says, gathered from a fit once; how it looks is decided by the renderers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.inference.tables import fixed as fixed_effects
from ranef.inference.varcorr import Covariance
from ranef.report._table import Table, aligned, columns, count, degrees, fixed, general, listing, p_values

if TYPE_CHECKING:
    from ranef.model import Fit

Array = NDArray[np.float64]
#: Random-effects terms with more columns than this show their correlations in a table of their own.
MAX_INLINE = 6
#: Messages whose content stands elsewhere in the summary.
SHOWN = ("rows_dropped", "columns_dropped", "not_converged", "boundary")
METHODS = {"reml": "REML", "ml": "maximum likelihood"}
FRAMES = {"pyarrow": "pyarrow table", "dict": "dict of arrays"}


@dataclass(frozen=True, slots=True)
class Section:
    """One table of a summary, with its title and the sentences under it."""

    title: str
    table: Table
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary as data: a title, labelled lines, tables, and sentences at the end."""

    title: str
    head: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def gather(m: Fit, correlation: bool = False) -> Summary:
    """Return the summary of a linear mixed model."""
    sections = [_criterion(m), _residuals(m), *_random(m), _fixed(m)]
    if correlation and m.estimate.rank > 1:
        sections.append(_fixed_correlation(m))
    return Summary(_title(m), _head(m), tuple(sections), (_certificate(m), *_messages(m)))


# ---- lines -----------------------------------------------------------------------------------------------------------


def _title(m: Fit) -> str:
    mixed = "mixed " if m.layout.terms else ""
    return f"Linear {mixed}model fit by {METHODS[m.method]}"


def _head(m: Fit) -> tuple[tuple[str, str], ...]:
    weights, offset = m.call.precision_weights, m.call.offset
    lines = [("Formula", str(m.formula)), ("Data", _data(m))]
    lines += [] if weights is None else [("Weights", f"precision weights {_named(weights)}")]
    lines += [] if offset is None else [("Offset", _named(offset))]
    return tuple(lines)


def _data(m: Fit) -> str:
    layout = m.layout
    lost = layout.n_input - layout.n
    text = f"{FRAMES.get(layout.kind, f'{layout.kind} data frame')}, {count(layout.n_input, 'row')}"
    if not lost:
        return text
    where = ", ".join(f"{name} {n:,}" for name, n in layout.dropped.items() if n)
    return f"{text}; {lost:,} dropped for missing values ({where})"


def _named(value: Any) -> str:
    return value if isinstance(value, str) else "given as an array"


def _counts(m: Fit) -> str:
    sizes = {t.label: len(t.levels) for t in m.layout.terms}
    groups = ", ".join(f"{label} {n:,}" for label, n in sizes.items())
    return f"Number of obs: {m.nobs:,}" + (f"; groups: {groups}" if groups else "")


def _certificate(m: Fit) -> str:
    c = m.certificate
    work = count(c.evaluations, "evaluation") + ("" if c.optimizer == "newton" else f" by {c.optimizer}")
    if not m.layout.terms:
        return "Estimates in closed form."
    if not c.holds:
        return f"NOT CONVERGED: {c.outcome.value} (gradient {c.gradient:.1e}, {work})."
    left = f"remaining decrease {abs(c.decrease):.1e}"
    return f"Optimum certified: gradient {c.gradient:.1e}, {left}, {work}."


def _messages(m: Fit) -> list[str]:
    bounds = [f"Boundary: {b.text}; a valid optimum, on the edge of what a covariance can be." for b in m.boundary]
    return bounds + [f"Note: {note.text}" for note in m.messages if note.code not in SHOWN]


# ---- tables ----------------------------------------------------------------------------------------------------------


def _criterion(m: Fit) -> Section:
    names = ("AIC", "BIC", "logLik", "-2*log(L)", "df.resid")
    cells = (*(fixed(v, 1) for v in (m.aic, m.bic, m.loglik, m.criterion)), f"{m.df_residual}")
    if m.method == "reml":
        names, cells = ("REML criterion", "df.resid"), (fixed(m.criterion, 3), f"{m.df_residual}")
    return Section("", Table(names, (cells,), left=0))


def _residuals(m: Fit) -> Section:
    heads = ("Min", "1Q", "Median", "3Q", "Max")
    return Section("Scaled residuals", Table(heads, (tuple(fixed(q, 4) for q in m.residual_quantiles),), left=0))


def _random(m: Fit) -> list[Section]:
    found = m.varcorr()
    sd = np.array([*chain.from_iterable(t.sd for t in found.values()), found.sigma])
    groups = [*chain.from_iterable(_once(key, len(t.names)) for key, t in found.items()), "Residual"]
    names = [*chain.from_iterable(t.names for t in found.values()), ""]
    cells = [groups, names, aligned(sd**2), aligned(sd)]
    heads = ["Groups", "Name", "Variance", "Std.Dev."]
    width = max((len(t.names) for t in found.values() if _inline(t)), default=1) - 1
    if width:
        cells += _inline_columns(found.values(), width)
        heads += ["Corr", *[""] * (width - 1)]
    first = Section("Random effects" if found else "", columns(heads, cells, left=2), (_counts(m),))
    apart = [(key, t) for key, t in found.items() if t.pairs and not _inline(t)]
    return [first, *(_correlation(f"Correlation of {key}", t.names, t.corr) for key, t in apart)]


def _inline(term: Covariance) -> bool:
    return bool(term.pairs) and len(term.names) <= MAX_INLINE


def _once(label: str, k: int) -> list[str]:
    return [label, *[""] * (k - 1)]


def _inline_columns(terms: Iterable[Covariance], width: int) -> list[list[str]]:
    rows: list[list[str]] = []
    for term in terms:
        k = len(term.names)
        rows += [[fixed(r, 3) for r in term.corr[i, :i]] if _inline(term) else [] for i in range(k)]
    padded = [[*row, *[""] * (width - len(row))] for row in [*rows, []]]
    return [list(column) for column in zip(*padded, strict=True)]


def _correlation(title: str, names: Sequence[str], r: Array) -> Section:
    numbers = [str(j + 1) for j in range(len(names) - 1)]
    labels = [f"{j + 1} {name}" for j, name in enumerate(names)]
    cells = [[fixed(r[i, j], 2) if j < i else "" for i in range(len(names))] for j in range(len(names) - 1)]
    return Section(title, columns(["", *numbers], [labels, *cells]))


def _fixed_correlation(m: Fit) -> Section:
    kept = [j for j in range(len(m.layout.fixed)) if j not in m.estimate.dropped]
    cov = m.estimate.vcov[np.ix_(kept, kept)]
    sd = np.sqrt(np.diag(cov))
    names = [m.layout.fixed[j] for j in kept]
    return _correlation("Correlation of fixed effects", names, cov / np.outer(sd, sd))


def _fixed(m: Fit) -> Section:
    found = fixed_effects(m)
    cells = [
        found["term"],
        *_with_errors(found["estimate"], found["std_error"]),
        degrees(found["df"]),
        aligned(found["statistic"], places=3),
        p_values(found["p_value"]),
    ]
    heads = ["", "Estimate", "Std. Error", "df", "t value", "Pr(>|t|)"]
    return Section(_fixed_title(m), columns(heads, cells), _lost_columns(m))


def _with_errors(estimate: Array, error: Array) -> tuple[list[str], list[str]]:
    """Format estimates to the precision that their standard errors call for."""
    shown = aligned(error)
    places = {len(cell.partition(".")[2]) for cell in shown if cell not in ("NaN", "Inf")}
    if len(places) == 1 and not any("e" in cell for cell in shown):
        return aligned(estimate, places=places.pop()), shown
    return [general(v) for v in estimate], shown


def _fixed_title(m: Fit) -> str:
    return "Fixed effects (t tests" + (", Satterthwaite's degrees of freedom)" if m.layout.terms else ")")


def _lost_columns(m: Fit) -> tuple[str, ...]:
    names = [m.layout.fixed[j] for j in m.estimate.dropped]
    if not names:
        return ()
    verb = "is a linear combination" if len(names) == 1 else "are linear combinations"
    return (f"Not estimated: {listing(names)} {verb} of the columns before.",)
