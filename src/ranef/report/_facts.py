"""What a summary says, gathered from a fit once; how it looks is decided by the renderers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ranef.diagnose.boundary import advice
from ranef.families import ZERO
from ranef.frame.design import why_dropped
from ranef.inference.by_method import check_alone, tested_parameters
from ranef.inference.confint import check_method
from ranef.inference.ddf import Method
from ranef.inference.ddf.method import partial_of
from ranef.inference.ddf.satterthwaite import knows_levels, reason_against
from ranef.inference.tables import fixed as fixed_effects
from ranef.inference.terms import is_linear_model
from ranef.inference.testing import wald_method
from ranef.inference.varcorr import Covariance, VarCorr, has_residual, residual_name
from ranef.report._table import Table, aligned, columns, count, degrees, fixed, general, listing, p_values

if TYPE_CHECKING:
    from ranef.layout import ComponentInfo
    from ranef.model import Fit

Array = NDArray[np.float64]
#: Random-effects terms with more columns than this show their correlations in a table of their own.
MAX_INLINE = 6
#: Levels shown of a fixed factor that has very many.
FIRST_LEVELS = 5
#: Messages whose content stands elsewhere in the summary.
SHOWN = ("rows_dropped", "columns_dropped", "not_converged", "boundary")
APPROXIMATIONS = {1: "Laplace approximation", 0: "joint modes"}
METHODS = {"reml": "REML", "ml": "maximum likelihood", "pql": "penalised quasi-likelihood"}
KINDS = {
    "cumulative": "Cumulative link", "sratio": "Stopping ratio", "cratio": "Continuation ratio",
    "acat": "Adjacent category", "multinomial": "Multinomial logit",
}  # fmt: skip
MOST_LABELS = 10  # categories that a summary lists
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


def gather(
    m: Fit,
    correlation: bool = False,
    ddf: str | None = None,
    vcov: str | None = None,
    cluster: Any = None,
    method: str = "wald",
    **options: Any,
) -> Summary:
    """Return the summary of a fit; the arguments are those of `Fit.summary`."""
    check_alone(method, "summary", ddf=ddf, vcov=vcov, cluster=cluster)
    check_method(method, options, "summary")
    wald = wald_method(m, ddf, vcov, cluster)
    found = fixed_effects(m, method=wald)
    parts = [c for c in m.layout.components if c.names and not _is_one_number(m, c)]
    if method == "wald":
        fixed_parts = [_fixed(m, c, found, wald, _why_normal(m, c, ddf)) for c in parts]
    else:
        (tested,) = tested_parameters(m, ["fixed"], None, method, options)
        fixed_parts = [_fixed_by(m, c, {**found, **tested}, method) for c in parts]
    sections = [_criterion(m), *_residuals(m), *_random(m), *fixed_parts, *_dispersion(m)]
    if correlation and len(m.layout.fixed) > 1:
        sections.append(_fixed_correlation(m))
    return Summary(_title(m), _head(m), tuple(sections), (_certificate(m), *_messages(m)))


# ---- lines -----------------------------------------------------------------------------------------------------------


def _title(m: Fit) -> str:
    mixed = "mixed " if m.layout.terms else ""
    if is_linear_model(m):
        return f"Linear {mixed}model fit by {_method(m)}"
    if m.method == "pql":
        return f"Generalised linear mixed model fit by {METHODS[m.method]}"
    how = APPROXIMATIONS.get(m.task.quadrature, f"adaptive quadrature, {m.task.quadrature} nodes")
    kind = KINDS.get(m.distribution.entry.name, "Generalised linear")
    return f"{kind} {mixed}model fit by {_method(m)}" + (f" ({how})" if m.layout.terms else "")


def _method(m: Fit) -> str:
    if m.call.survey.values:
        return "pseudo-maximum likelihood"
    if not m.call.has_priors:
        return "penalised maximum likelihood" if m.call.penalty else METHODS[m.method]
    return "REML with priors" if m.method == "reml" else "maximum a posteriori"


def _head(m: Fit) -> tuple[tuple[str, str], ...]:
    weights, offset = m.call.precision_weights, m.call.offset
    lines = [*_family(m), *_outcome(m), ("Formula", str(m.formula)), *_formulas(m), ("Data", _data(m))]
    lines[-1:-1] = [("Truncated", f"to {text}") for text in m.formula.bounds]
    lines[-1:-1] = [] if m.task.variance is None else [("Dispersion", f"held at {m.call.dispersion}")]
    lines += [] if weights is None else [("Weights", f"precision weights {_named(weights)}")]
    lines += [("Weights", "known sampling variances, the squares of the standard errors in se()")] * m.formula.measured
    lines += [] if offset is None else [("Offset", _named(offset))]
    lines += _randomised(m.call.randomised_response)
    counts = m.call.frequency_weights
    lines += [] if counts is None else [("Weights", f"frequency weights {_named(counts)}")]
    return (*lines, *_survey(m), *_wishes(m))


def _wishes(m: Fit) -> list[tuple[str, str]]:
    """Return what was asked of parameters: values, ties, priors."""
    call = m.call
    held = ", ".join(f"{name} = {value:g}" for name, value in call.wanted.items())
    tied = ", ".join(" = ".join(group) for group in call.equal or ())
    priors = [f"{name} ~ {prior}" for name, prior in call.priors.items() if prior.of != "any"]
    priors += ["fixed effects ~ Jeffreys (Firth's penalty)"] if call.penalty else []
    return [(label, text) for label, text in (("Held", held), ("Tied", tied), ("Priors", "; ".join(priors))) if text]


def _survey(m: Fit) -> list[tuple[str, str]]:
    """Return the weights of a survey, where there are any."""
    given = m.call.survey
    if not given.values:
        return []
    named = ", ".join(f"{_named(value)} of {name!r}" for name, value in given.values.items())
    scaling = f" (scaled to {given.scaling})" if given.scaling else ""
    return [("Weights", f"sampling weights {named}{scaling}; standard errors are robust")]


def _randomised(design: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return the design of randomised responses."""
    if design is None:
        return []
    chances = [f"{k} {_named(v) if not isinstance(v, Real) else v}" for k, v in design.items() if k != "design"]
    return [("Randomised response", f"{design['design']} ({', '.join(chances)})")]


def _family(m: Fit) -> list[tuple[str, str]]:
    """Return the family with its link, for other than linear models."""
    if is_linear_model(m):
        return []
    family = m.distribution
    zeros = (
        ", hurdle" if family.zero_inflation and family.truncated else ", zero-inflated" if family.zero_inflation else ""
    )
    return [("Family", f"{family.name}{zeros} ({family.link} link)")]


def _outcome(m: Fit) -> list[tuple[str, str]]:
    """Return what the response is where it came as categories: their order and the law, or which one is modelled."""
    labels, entry = list(map(str, m.spec.categories)), m.distribution.entry
    if not labels:
        return []
    counts = f"; counts of {len(labels)} categories, {m.layout.outcomes:,.0f} in all" * m.distribution.counts
    if entry.nominal:
        return [("Response", f"log odds of {listing(labels[1:])} against {labels[0]}{counts}")]
    if not entry.ordinal:
        return [("Response", f"{labels[1]} (against {labels[0]})")]
    many = len(labels) > MOST_LABELS
    shown = [*labels[: MOST_LABELS - 2], "…", labels[-1]] if many else labels
    law = entry.note[entry.note.index("P(") :].partition(";")[0].partition(", as")[0]
    if not m.distribution.scaled:
        law = re.sub(r"\((\w+ - \w+)\) / scale", r"\1", law)
    return [("Response", " < ".join(shown) + counts), ("Law", law)]


def _formulas(m: Fit) -> list[tuple[str, str]]:
    """Return the formulas of the other components, where something was said about them."""
    if m.distribution.levels:
        return [(name, str(formula)) for name, formula in m.call.parameters.items()]
    said = {**m.call.parameters, "dispersion": m.call.dispersion, "zero_inflation": m.call.zero_inflation}
    return [
        (
            _words(part.name).capitalize(),
            str(part.formula) if part.formula is not None else f"held at {said[part.name]}",
        )
        for part in m.spec.parts
        if said.get(part.name) is not None
    ]


def _words(component: str) -> str:
    return component.replace("_", " ")


def _is_one_number(m: Fit, component: ComponentInfo) -> bool:
    """Whether a component is a lone intercept of a parameter that is best read on its own scale."""
    random = any(component.name in t.components for t in m.layout.terms)
    if m.distribution.categorical:
        return False
    return component.names == ("(Intercept)",) and component.name not in ("mean", ZERO, "threshold") and not random


def _dispersion(m: Fit) -> list[Section]:
    """Return a table of the parameters that are one number, on their own scale, and what the dispersion means."""
    parts = [c for c in m.layout.components if _is_one_number(m, c)]
    if is_linear_model(m) and has_residual(m.varcorr()):
        return []  # its residual standard deviation is among the random effects
    if not parts:
        return []
    family = m.distribution
    values = [float(family.link_of(c.name).inverse(m.estimate.beta[c.first])) for c in parts]
    labels = [_with_meaning(_words(c.name), _meanings(m).get(c.name, "")) for c in parts]
    return [Section("Parameters of the family", columns(["", "Estimate"], [labels, [general(v) for v in values]]))]


def _meanings(m: Fit) -> dict[str, str]:
    """Return what the parameters beside the mean are in the family: "dispersion" is "size k"."""
    own = m.distribution.entry.parameters[1:]
    return {p.name: p.meaning.partition(",")[0] for p in own}


def _with_meaning(word: str, meaning: str) -> str:
    """Return a parameter's name with what it is in the family: "shape (degrees of freedom nu)"."""
    if not meaning:
        return word
    return meaning if meaning.startswith(word) else f"{word} ({meaning})"


def _data(m: Fit) -> str:
    layout = m.layout
    lost = layout.n_input - layout.n
    text = f"{FRAMES.get(layout.kind, f'{layout.kind} data frame')}, {count(layout.n_input, 'row')}"
    if not lost:
        return text
    where = ", ".join(f"{name} {n:,}" for name, n in layout.dropped.items() if n)
    return f"{text}; {lost:,} dropped for {why_dropped(dict(layout.dropped))} ({where})"


def _named(value: Any) -> str:
    return value if isinstance(value, str) else "given as an array"


def _counts(m: Fit) -> str:
    sizes = {t.label: len(t.levels) for t in m.layout.terms}
    groups = ", ".join(f"{label} {n:,}" for label, n in sizes.items())
    return f"Number of obs: {m.nobs:,}" + (f"; groups: {groups}" if groups else "")


def _certificate(m: Fit) -> str:
    c = m.certificate
    work = count(c.evaluations, "evaluation") + ("" if c.optimizer == "newton" else f" by {c.optimizer}")
    if not m.layout.terms and m.task.linear:
        return "Estimates in closed form."
    if not c.holds:
        return f"NOT CONVERGED: {c.outcome.value} (gradient {c.gradient:.1e}, {work})."
    if m.method == "pql":
        return f"The working model reproduces its linear predictor after {count(c.iterations, 'iteration')}."
    left = f"remaining decrease {abs(c.decrease):.1e}"
    return f"Optimum certified: gradient {c.gradient:.1e}, {left}, {work}."


def _messages(m: Fit) -> list[str]:
    says = {b: advice(m, b) for b in m.boundary}
    last = {said: b for b, said in says.items()}  # what holds of several is said once
    bounds = [f"Boundary: {b.text}{said if last[said] is b else ''}." for b, said in says.items()]
    return bounds + [f"Note: {note.text}" for note in m.messages if note.code not in SHOWN]


# ---- tables ----------------------------------------------------------------------------------------------------------


def _criterion(m: Fit) -> Section:
    if m.method == "pql":
        return Section("", Table(("sigma", "df.resid"), ((general(m.sigma), f"{m.df_residual}"),), left=0))
    names = ("AIC", "BIC", "logLik", "-2*log(L)", "df.resid")
    cells = (*(fixed(v, 1) for v in (m.aic, m.bic, m.loglik, -2 * m.loglik)), f"{m.df_residual}")
    if m.method == "reml":
        names, cells = ("REML criterion", "df.resid"), (fixed(-2 * m.loglik, 3), f"{m.df_residual}")
    if m.call.has_priors or m.call.penalty:
        names, cells = (*names, "penalised"), (*cells, fixed(m.criterion, 1))
    return Section("", Table(names, (cells,), left=0))


def _residuals(m: Fit) -> list[Section]:
    if not m.residual_quantiles.size:
        return []
    heads = ("Min", "1Q", "Median", "3Q", "Max")
    return [Section("Scaled residuals", Table(heads, (tuple(fixed(q, 4) for q in m.residual_quantiles),), left=0))]


def _random(m: Fit) -> list[Section]:
    found = m.varcorr()
    owners = dict.fromkeys(["mean", *(t.component for t in found.values())])
    out = [section for owner in owners for section in _random_of(found, owner)]
    if not out:
        return [Section("", Table(("",), ()), (_counts(m),))]
    return [replace(out[0], notes=(_counts(m),)), *out[1:]]


def _random_of(vc: VarCorr, owner: str) -> list[Section]:
    """Return the tables of one component; the mean's has the residual, where there is one."""
    found = {key: t for key, t in vc.items() if t.component == owner}
    residual = owner == "mean" and has_residual(vc)
    if not found and not residual:
        return []
    shown = {key: _deviations(t) for key, t in found.items()}
    sd = np.array([*(v for rows in shown.values() for _, v in rows), *([vc.sigma] if residual else [])])
    labels = {key: key if owner == "mean" else t.group for key, t in found.items()}
    groups = [
        *chain.from_iterable(_once(labels[k], len(rows)) for k, rows in shown.items()),
        *([residual_name(vc)] * residual),
    ]
    names = [*(name for rows in shown.values() for name, _ in rows), *([""] * residual)]
    cells = [groups, names, aligned(sd**2), aligned(sd)]
    heads = ["Groups", "Name", "Variance", "Std.Dev."]
    width = max((len(t.names) for t in found.values() if _inline(t)), default=1) - 1
    if width:
        cells += _inline_columns(found.values(), width, residual)
        heads += ["Corr", *[""] * (width - 1)]
    title = "Random effects" if owner == "mean" else f"Random effects ({_words(owner)})"
    first = Section(title if found else "", columns(heads, cells, left=2))
    apart = [(key, t) for key, t in found.items() if t.pairs and not t.structured and not _inline(t)]
    tables = [_correlation(f"Correlation of {key}", t.names, t.corr) for key, t in apart]
    return [first, *_structures({labels[key]: t for key, t in found.items()}), *tables]


def _inline(term: Covariance) -> bool:
    return bool(term.pairs) and not term.structured and len(term.names) <= MAX_INLINE


def _deviations(term: Covariance) -> list[tuple[str, float]]:
    """Return what stands in the rows of a term: its columns, or the standard deviations that its structure has."""
    if not term.structured or term.loadings is not None:
        return list(zip(term.names, term.sd.tolist(), strict=True))
    found = [p for p in term.parameters if p.name == "sd"]
    whole = f"{term.structure}, {count(len(term.names), 'column')}"
    return [(p.of or whole, p.value) for p in found] or [(f"{whole}, known", float(np.sqrt(np.mean(term.sd**2))))]


def _structures(found: Mapping[str, Covariance]) -> list[Section]:
    """Return a table of the correlations, rates and ranges that structures have, one row each."""
    tables = [_loadings(key, t.names, t.loadings) for key, t in found.items() if t.loadings is not None]
    rows = [(key, t.structure, p) for key, t in found.items() for p in t.parameters if p.name not in ("sd", "loading")]
    if not rows:
        return tables
    cells = [
        [key for key, *_ in rows],
        [kind for _, kind, _ in rows],
        [" ".join(filter(None, (p.name, p.of))) for *_, p in rows],
    ]
    table = columns(["Groups", "Structure", "", "Estimate"], [*cells, [general(p.value) for *_, p in rows]], left=3)
    return [Section("Covariance structures", table), *tables]


def _loadings(key: str, names: Sequence[str], loadings: Array) -> Section:
    """Return the table of the loadings of a term of reduced rank; those that are zero by construction are blank."""
    cells = [[general(v) if i >= j else "" for i, v in enumerate(column)] for j, column in enumerate(loadings.T)]
    heads = ["", *(f"Factor {j + 1}" for j in range(loadings.shape[1]))]
    return Section(f"Loadings of {key}, rank {loadings.shape[1]}", columns(heads, [list(names), *cells], left=1))


def _once(label: str, k: int) -> list[str]:
    return [label, *[""] * (k - 1)]


def _inline_columns(terms: Iterable[Covariance], width: int, residual: bool) -> list[list[str]]:
    rows: list[list[str]] = []
    for term in terms:
        k = len(_deviations(term))
        rows += [[fixed(r, 3) for r in term.corr[i, :i]] if _inline(term) else [] for i in range(k)]
    padded = [[*row, *[""] * (width - len(row))] for row in [*rows, *([[]] * residual)]]
    return [list(column) for column in zip(*padded, strict=True)]


def _correlation(title: str, names: Sequence[str], r: Array) -> Section:
    numbers = [str(j + 1) for j in range(len(names) - 1)]
    labels = [f"{j + 1} {name}" for j, name in enumerate(names)]
    cells = [[fixed(r[i, j], 2) if j < i else "" for i in range(len(names))] for j in range(len(names) - 1)]
    return Section(title, columns(["", *numbers], [labels, *cells]))


def _fixed_correlation(m: Fit) -> Section:
    partial = partial_of(m)
    columns_of = range(len(m.layout.fixed)) if partial is None else partial.columns.tolist()
    kept = [j for j in columns_of if j not in m.estimate.dropped]
    cov = m.estimate.vcov[np.ix_(kept, kept)]
    sd = np.sqrt(np.diag(cov))
    names = [m.layout.fixed[j] for j in kept]
    return _correlation("Correlation of fixed effects", names, cov / np.outer(sd, sd))


def _fixed(m: Fit, component: ComponentInfo, found: Mapping[str, Any], method: Method, why: tuple[str, ...]) -> Section:
    at = _shown(m, component)
    test = method.letter if component.name == "mean" or m.estimate.tests == "t" else "z"
    cells = [
        [found["term"][j] for j in at],
        *_with_errors(found["estimate"][at], found["std_error"][at], _is_held(m, component)),
        *(_unless(_is_held(m, component), degrees(found["df"][at])) if test == "t" else []),
        *_unless(_is_held(m, component), aligned(found["statistic"][at], places=3), p_values(found["p_value"][at])),
    ]
    heads = ["", "Estimate", "Std. Error", *(["df"] if test == "t" else []), f"{test} value", f"Pr(>|{test}|)"]
    robust = (f"Robust: {method.errors}.",) if method.errors and np.isfinite(found["std_error"][at]).any() else ()
    notes = (*_more_levels(m, component, method), *_lost_columns(m, component), *robust, *why)
    return Section(_fixed_title(m, component, method), columns(heads, cells), notes)


def _fixed_by(m: Fit, component: ComponentInfo, found: Mapping[str, Any], by: str) -> Section:
    """Return the coefficients of a component with the p-values of another method than Wald's."""
    at = _shown(m, component)
    cells = [
        [found["term"][j] for j in at],
        *_with_errors(found["estimate"][at], found["std_error"][at], _is_held(m, component)),
        *([aligned(found["statistic"][at], places=3)] if by == "profile" else []),
        p_values(found["p_value"][at]),
    ]
    ways = list(dict.fromkeys(found["p_method"][j] for j in at))
    test = next((w for w in ways if not w.startswith("none")), "none")
    heads = ["", "Estimate", "Std. Error", *(["signed root"] if by == "profile" else []), "p value"]
    title = "Thresholds" if component.name == "threshold" else "Fixed effects"
    of = "" if component.name in ("mean", "threshold") else f"{_words(component.name)}; "
    why = tuple(f"{found['term'][j]}: no p-value ({found['p_method'][j].removeprefix('none: ')})." for j in at
                if found["p_method"][j].startswith("none"))  # fmt: skip
    return Section(f"{title} ({of}p-values by {test})", columns(heads, cells), (*_lost_columns(m, component), *why))


def _shown(m: Fit, component: ComponentInfo) -> list[int]:
    """Return the coefficients of a component that have a row; of very many levels the first."""
    everything = range(component.at.start, component.at.stop)
    partial = partial_of(m) if m.task.linear else None
    if partial is None:
        return list(everything)
    left_out = {j for first, size in partial.wide for j in range(first + FIRST_LEVELS, first + size)}
    return [j for j in everything if j not in left_out]


def _more_levels(m: Fit, component: ComponentInfo, method: Method) -> tuple[str, ...]:
    partial = partial_of(m) if m.task.linear else None
    if partial is None or component.name != "mean":
        return ()
    labels = [plan.factors[0].label for plan in m.spec.fixed if plan.wide]
    more = [f"{size - FIRST_LEVELS:,} more levels of {f}" for f, (_, size) in zip(labels, partial.wide, strict=True)]
    text = f"… and {listing(more)}: tidy() has all"
    if m.layout.terms and not knows_levels(m) and method.name == "satterthwaite":
        return (f"{text}. Degrees of freedom of levels of {listing(labels)} are residual ones.",)
    return (f"{text}.",)


def _alone(m: Fit) -> bool:
    """Whether the mean of a linear model is the only table of coefficients."""
    shown = [c for c in m.layout.components if c.names and not _is_one_number(m, c)]
    return is_linear_model(m) and len(shown) <= 1


def _why_normal(m: Fit, component: ComponentInfo, ddf: str | None) -> tuple[str, ...]:
    """Return why a linear mixed model has z tests, where nobody asked for them."""
    if ddf is not None or component.name != "mean" or not is_linear_model(m):
        return ()
    reason = reason_against(m)
    return (f"z tests: Satterthwaite's degrees of freedom are not available, {reason}.",) if reason else ()


def _is_held(m: Fit, component: ComponentInfo) -> list[bool]:
    return [j in m.estimate.held for j in _shown(m, component)]


def _unless(held: Sequence[bool], *cells: Sequence[str]) -> list[list[str]]:
    """Return columns that are empty where a coefficient is held: no test is asked of it."""
    return [["" if h else cell for h, cell in zip(held, column, strict=True)] for column in cells]


def _with_errors(estimate: Array, error: Array, held: Sequence[bool]) -> tuple[list[str], list[str]]:
    """Format estimates to the precision that their standard errors call for."""
    found = _formatted(estimate, error)
    return found[0], ["held" if h else cell for h, cell in zip(held, found[1], strict=True)]


def _formatted(estimate: Array, error: Array) -> tuple[list[str], list[str]]:
    shown = aligned(error)
    places = {len(cell.partition(".")[2]) for cell in shown if cell not in ("NaN", "Inf")}
    if len(places) == 1 and not any("e" in cell for cell in shown):
        return aligned(estimate, places=places.pop()), shown
    return [general(v) for v in estimate], shown


def _fixed_title(m: Fit, component: ComponentInfo, method: Method) -> str:
    if component.name == "threshold":
        return "Thresholds"
    if m.estimate.tests == "z":
        known = component.name == "mean" and (m.distribution.entry.ordinal or _alone(m))
        alone = len(m.layout.components) == 1 or known
        word, meaning = _words(component.name), _meanings(m).get(component.name, "")
        what = f"{word}: {meaning}" if meaning and not meaning.startswith(word) else word
        of = "" if alone else f"{what}, {m.distribution.link_of(component.name).name} link"
        rough = "" if is_linear_model(m) else ", approximate"
        how = f"t tests, {method.title}{rough}" if method.title and component.name == "mean" else ""
        how = how or ("z tests" if is_linear_model(m) and component.name == "mean" else "")
        inside = "; ".join(filter(None, (of, how)))
        return f"Fixed effects ({inside})" if inside else "Fixed effects"
    of = " of the working linear model" if m.method == "pql" else ""
    how = f", {method.title}{of})" if (m.layout.terms or method.errors) and method.title else ")"
    return f"Fixed effects ({method.letter} tests{how}"


def _lost_columns(m: Fit, component: ComponentInfo) -> tuple[str, ...]:
    lost = [j - component.first for j in m.estimate.dropped]
    names = [component.names[j] for j in lost if 0 <= j < len(component.names)]
    if not names:
        return ()
    verb = "is a linear combination" if len(names) == 1 else "are linear combinations"
    others = "other columns" if any(plan.wide for plan in m.spec.fixed) else "the columns before"
    return (f"Not estimated: {listing(names)} {verb} of {others}.",)
