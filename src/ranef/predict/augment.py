"""The data with what the fit says about each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np

from ranef.engines.estimate import Array
from ranef.errors import NotAvailableError
from ranef.frame.table import collected, narwhals_frame, read_table
from ranef.inference.frames import to_frame
from ranef.predict.predict import predict
from ranef.predict.targets import Question, target_of

if TYPE_CHECKING:
    from ranef.model import Fit


def augment(m: Fit, newdata: Any = None) -> Any:
    """Return the rows used, or `newdata`, with columns added, see `Fit.augment`."""
    if (m.distribution.entry.nominal or m.distribution.counts) and newdata is not None:
        raise NotAvailableError(
            "augment: a model of categories has a column for each of them; use predict(newdata, type='probs')"
        )
    if newdata is None and m.data is None:
        why = "a slim fit keeps no data" if m.design is None else "the response of this refit is no column of the data"
        raise NotAvailableError(f"augment: {why}; give newdata=")
    newdata = None if newdata is None else collected(newdata)
    columns = _fitted_columns(m) if newdata is None else _new_columns(m, newdata)
    rows = m.design.rows if newdata is None and m.design is not None else None
    return joined(m.data if newdata is None else newdata, rows, columns, m.layout.kind)


def _fitted_columns(m: Fit) -> dict[str, Array]:
    error = {"std_error": _array(predict(m, None, Question(std_error=True)), "std_error")} if _has_error(m) else {}
    if m.distribution.counts:
        return {**_by_category(m, "fitted", m.fitted()), **_by_category(m, "residual", m.residuals())}
    if m.distribution.entry.nominal:
        return {"fitted": m.fitted()}
    population = predict(m, None, Question(re="none"))
    return {"fitted": m.fitted(), **error, "population": population, "residual": m.residuals()}


def _by_category(m: Fit, what: str, values: Array) -> dict[str, Array]:
    return {f"{what}__{name}": values[:, k].copy() for k, name in enumerate(map(str, m.spec.categories))}


def _has_error(m: Fit) -> bool:
    return target_of(m, Question()).component is not None


def _new_columns(m: Fit, newdata: Any) -> dict[str, Array]:
    question = Question(new_levels="population", std_error=_has_error(m))
    table = predict(m, newdata, question)
    error = {"std_error": _array(table, "std_error")} if question.std_error else {}
    found = {
        "fitted": _array(table, "estimate") if question.std_error else table,
        **error,
        "population": predict(m, newdata, Question(re="none", new_levels="population")),
    }
    y = response_of(m, newdata)
    return found if y is None else {**found, "residual": y - found["fitted"]}


def _array(table: Any, name: str) -> Array:
    return np.asarray(table[name], dtype=float)


def response_of(m: Fit, newdata: Any) -> Array | None:
    """Return the response in new data, if its columns are there."""
    lhs = m.formula.lhs
    names = read_table(newdata).names
    if lhs is None or not set(lhs.names) <= set(names):
        return None
    return m.spec.new(newdata, response=True, groups="none", parts=()).y


def joined(data: Any, rows: Any, columns: dict[str, Array], kind: str) -> Any:
    """Rows of a native frame with columns added."""
    if isinstance(data, dict):
        picked = {k: np.asarray(v) if rows is None else np.asarray(v)[rows] for k, v in data.items()}
        return to_frame({**picked, **_renamed(columns, list(picked))}, kind)
    if hasattr(data, "iloc"):  # by position: a pandas index may hold duplicates, and so may the names of the columns
        picked = data if rows is None else data.iloc[rows]
        return picked.assign(**_renamed(columns, list(map(str, picked.columns))))
    frame = narwhals_frame(data)
    frame = frame if rows is None else frame[rows]
    new = _renamed(columns, frame.columns)
    return frame.with_columns(*(nw.new_series(k, v, backend=frame.implementation) for k, v in new.items())).to_native()


def _renamed(columns: dict[str, Array], taken: list[str]) -> dict[str, Array]:
    return {f"{name}_" if name in taken else name: value for name, value in columns.items()}
