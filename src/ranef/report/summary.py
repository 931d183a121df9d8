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


def summary_text(
    m: Fit,
    correlation: bool = False,
    ddf: str | None = None,
    vcov: str | None = None,
    cluster: Any = None,
    method: str = "wald",
    **options: Any,
) -> Text:
    """Return the summary of a fit as text.

    Parameters
    ----------
    m : Fit
        A fitted linear mixed model.
    correlation : bool
        Whether to add the correlations of the fixed effects.
    ddf, vcov, cluster : optional
        Degrees of freedom and covariance of the fixed effects, as in `Fit.tidy`.
    method, **options : optional
        How the p-values are made, as in `Fit.tidy`.

    Returns
    -------
    Text
        Formula, data with the rows dropped, criterion, quantiles of the scaled residuals (divided by sigma), variances,
        standard deviations and correlations of the random effects, fixed effects with standard errors and t tests, the
        certificate of the optimum, and the messages of the fit.
    """
    return Text(_text.render(gather(m, correlation, ddf, vcov, cluster, (method, options))))


def summary_html(
    m: Fit,
    correlation: bool = False,
    ddf: str | None = None,
    vcov: str | None = None,
    cluster: Any = None,
    method: str = "wald",
    **options: Any,
) -> str:
    """Return the summary of a fit as a self-contained piece of HTML; every text in it is escaped.

    Parameters
    ----------
    m : Fit
        A fitted linear mixed model.
    correlation : bool
        Whether to add the correlations of the fixed effects.
    ddf, vcov, cluster : optional
        Degrees of freedom and covariance of the fixed effects, as in `Fit.tidy`.
    method, **options : optional
        How the p-values are made, as in `Fit.tidy`.
    """
    return _html.render(gather(m, correlation, ddf, vcov, cluster, (method, options)))
