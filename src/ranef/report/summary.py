"""The summary of a fit, as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ranef.report import _html, _text
from ranef.report._facts import gather

if TYPE_CHECKING:
    from ranef.model import Fit


class Text(str):
    """A text that shows itself as it is where a prompt would show a quoted string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def summary_text(m: Fit, **options: Any) -> Text:
    """Return the summary of a fit as text; options are those of `Fit.summary`."""
    return Text(_text.render(gather(m, **options)))


def summary_html(m: Fit) -> str:
    """Return the summary of a fit as a self-contained piece of HTML; every text in it is escaped."""
    return _html.render(gather(m))
