"""A fit as plain data: everything that its summary says and more, ready for JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.inference.ddf.method import partial_of
from ranef.inference.tables import fixed, ran_vals

if TYPE_CHECKING:
    from ranef.model import Fit

Record = dict[str, Any]
FIGURES = ("nobs", "npar", "df_residual", "sigma", "loglik", "criterion", "aic", "bic", "aicc", "converged")


def record(m: Fit) -> Record:
    """Return a fit as nested dicts and lists of numbers, text, booleans and None (for NaN and the infinities).

    It holds the question (formula, method, data), the figures, fixed effects with covariance, variances and
    correlations, conditional modes, the certificate, boundary and messages. It cannot be turned back into a fit.
    """
    found = {
        "formula": str(m.formula),
        "family": m.family,
        "links": dict(zip(m.distribution.parameters, [*m.distribution.links, m.distribution.zero_link], strict=False)),
        "method": m.method,
        "data": _data(m),
        "held": m.call.wanted,
        "tied": [list(group) for group in m.call.equal or ()],
        "priors": {name: str(prior) for name, prior in m.call.priors.items()},
        "penalty": m.call.penalty,
        "figures": {name: getattr(m, name) for name in FIGURES},
        "fixed": {"terms": _rows(fixed(m)), **_covariance(m)},
        "random": [_term(key, t) for key, t in m.varcorr().items()],
        "theta": m.theta,
        "modes": _rows(ran_vals(m)),
        "scaled_residuals": dict(zip(("min", "q1", "median", "q3", "max"), m.residual_quantiles, strict=True)),
        "certificate": _certificate(m),
        "boundary": [{"group": b.group, "kind": b.kind, "names": b.names, "text": b.text} for b in m.boundary],
        "messages": [{"code": note.code, "text": note.text} for note in m.messages],
    }
    return plain(found)


def _covariance(m: Fit) -> Record:
    """Return the covariance of the fixed effects; without levels of factors of many levels, with the names left."""
    partial = partial_of(m)
    if partial is None:
        return {"vcov": m.estimate.vcov}
    names = [name for c in m.layout.components for name in c.names]
    return {"vcov": partial.dense, "vcov_terms": [names[j] for j in partial.columns]}


def _data(m: Fit) -> Record:
    layout = m.layout
    groups = {t.label: len(t.levels) for t in layout.terms}
    return {
        "kind": layout.kind,
        "response": layout.response,
        "rows": layout.n_input,
        "used": layout.n,
        "missing": dict(layout.dropped),
        "groups": groups,
    }


def _term(key: str, t: Any) -> Record:
    return {
        "group": key,
        "component": t.component,
        "structure": t.structure,
        "names": t.names,
        "sd": t.sd,
        "corr": t.corr,
        "cov": t.cov,
        "parameters": [{"name": p.name, "of": p.of, "value": p.value} for p in t.parameters],
    }


def _rows(columns: Record) -> list[Record]:
    """Columns, some of them one value for all rows, as a list of rows."""
    n = len(columns["term"])
    full = {k: [v] * n if isinstance(v, str) or v is None else list(np.broadcast_to(v, n)) for k, v in columns.items()}
    return [{k: values[i] for k, values in full.items()} for i in range(n)]


def _certificate(m: Fit) -> Record:
    c = m.certificate
    names = ("holds", "decrease", "gradient", "curvature", "multipliers", "evaluations", "iterations", "optimizer")
    return {"outcome": c.outcome.name, "sentence": c.outcome.value, **{name: getattr(c, name) for name in names}}


def plain(value: Any) -> Any:
    """Return `value` with arrays as lists, numpy scalars as Python's, and what JSON has no number for as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
