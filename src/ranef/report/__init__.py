"""What a person reads about a fit: summaries and tidy tables, as text and as HTML."""

from ranef.report.frames import table_text
from ranef.report.record import record
from ranef.report.summary import summary_html, summary_text

__all__ = ["record", "summary_html", "summary_text", "table_text"]
