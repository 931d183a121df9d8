"""Random-effects terms as pictures need them: found by name, with levels in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ranef.engines.parameters import unique
from ranef.errors import DataError, NotAvailableError, OptionError, nearest
from ranef.formula.groups import group_named

if TYPE_CHECKING:
    from ranef.model import Fit


def labels(m: Fit) -> tuple[str, ...]:
    """Return the names of the random-effects terms, a second term of group g as `g.1`."""
    return unique([t.label for t in m.layout.terms])


def find_term(m: Fit, term: str | None) -> int:
    """Return the position of the term called `term`, of the first one for None.

    Raises
    ------
    DataError
        The model has no random effects.
    OptionError
        No term has this name; the nearest is named.
    """
    known = labels(m)
    if not known:
        raise DataError("the model has no random effects to draw")
    if term is None:
        return 0
    own = group_named(term, known)
    if own is None:
        raise OptionError(f"{term!r} is not a grouping factor of this model; {nearest(term, known)}")
    return known.index(own)


def check_one_response(m: Fit, what: str) -> None:
    """Refuse categories without order, and counts of categories, of which a row has no one number to draw.

    Raises
    ------
    NotAvailableError
    """
    if m.distribution.entry.nominal or m.distribution.counts:
        which = "counts of categories" if m.distribution.counts else "categories without order"
        raise NotAvailableError(
            f"{what}: {which} are no one number a row to draw; rf.plot.caterpillar(m) shows the conditional "
            f"modes, m.predict(newdata) the probabilities"
        )
