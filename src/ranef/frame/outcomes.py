"""Counts of categories as engines take them: each row once for every category that it has counts of.

A row of counts y_1 .. y_J, n together, is n outcomes, of which those of a category are equal rows with frequency y_j.
Its log-likelihood has log(n! / (y_1! .. y_J!)) more, the number of orders in which the outcomes may come, whatever the
parameters (McCullagh & Nelder 1989, section 5.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ranef.errors import DataError, NotAvailableError
from ranef.families.law import log_orders
from ranef.frame.design import Array, Block, Component, Design


def has_counts(design: Design) -> bool:
    """Tell whether the response is counts of categories, (n, J)."""
    return design.y is not None and design.y.ndim == 2


def by_outcome(design: Design) -> Design:
    """Return the design of single outcomes with their frequencies; `rows` says which of the rows each belongs to.

    Other designs are returned as they are.

    Raises
    ------
    NotAvailableError
        With weights of a survey.
    """
    if design.y is None or not has_counts(design):
        return design
    if design.sampling is not None:
        raise NotAvailableError(
            "sampling_weights= do not go with counts of categories: give one outcome a row, with its weight"
        )
    counts = np.asarray(design.y)
    at, category = np.nonzero(counts)
    rows = np.ones(design.n) if design.frequencies is None else np.asarray(design.frequencies)
    return replace(
        design,
        n=len(at),
        n_input=design.n,
        rows=at,
        y=category.astype(np.float64),
        frequencies=counts[at, category] * rows[at],
        constant=float(rows @ log_orders(counts)),
        offset=_taken(design.offset, at),
        fixed=_blocks(design.fixed, at),
        others=tuple(Component(c.name, _blocks(c.fixed, at), _taken(c.offset, at)) for c in design.others),
        terms=tuple(
            replace(t, codes=np.ascontiguousarray(t.codes[at]), blocks=_blocks(t.blocks, at)) for t in design.terms
        ),
    )


def check_seen(design: Design) -> None:
    """Refuse counts of categories of which one is never seen; single outcomes cannot have such a category."""
    if design.y is None or not has_counts(design):
        return
    counts = np.asarray(design.y)
    never = [str(design.categories[k]) for k in np.flatnonzero(counts.sum(axis=0) == 0)]
    if never:
        raise DataError(
            f"response {design.response_name!r}: no counts of {', '.join(map(repr, never))} in the {design.n} rows "
            f"used, whose probability has no estimate beside 0: leave {'it' if len(never) == 1 else 'them'} out of "
            f"cbind()"
        )


def _blocks(blocks: Sequence[Block], at: Array) -> tuple[Block, ...]:
    return tuple(replace(b, codes=_taken(b.codes, at), x=_taken(b.x, at)) for b in blocks)


def _taken(values: Array | None, at: Array) -> Array | None:
    return None if values is None else np.ascontiguousarray(values[at])
