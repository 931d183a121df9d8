"""`robust(m)`: the table of coefficients with cluster-robust standard errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.inference.frames import to_frame
from ranef.inference.named import names_of
from ranef.inference.robust.sandwich import contrast_df, sandwich
from ranef.inference.wald import p_value, quantile

if TYPE_CHECKING:
    from ranef.model import Fit


def robust(m: Fit, kind: str | None = None, cluster: Any = None, conf_level: float = 0.95) -> Any:
    """Test the coefficients with cluster-robust standard errors.

    Parameters
    ----------
    m : Fit
        A fitted model, not slim.
    kind : "CR0" | "CR1" | "CR1S" | "CR2" | "CR3", optional
        As in `Fit.vcov`; default "CR2" for linear models, "CR1" for others.
    cluster : str, array, or list of str, optional
        As in `Fit.vcov`; default the outermost grouping factor.
    conf_level : float
        Of the intervals.

    Returns
    -------
    data frame
        Of the kind of the data: `term, estimate, std_error, df, statistic, p_value, conf_low, conf_high`; NaN for
        coefficients dropped. Of models with several components, `component` comes first. Degrees of freedom are
        Satterthwaite's with the model's covariance as working model (Pustejovsky & Tipton 2018); for several ways of
        clustering the smallest number of clusters less one (Cameron & Miller 2015), for generalised models infinite.

    Raises
    ------
    NotAvailableError
        If random effects are not nested in the clusters, the fit is slim, or the kind is not there for the model.
    OptionError, UnknownColumnError, DataError, ArgumentError
        If kind or cluster make no sense.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))
    >>> rf.robust(m)[["term", "std_error", "df"]].round(3)
              term  std_error    df
    0  (Intercept)      6.825  17.0
    1         Days      1.546  17.0
    """
    quantile(conf_level)  # a level that is none is refused before the work
    found = sandwich(m, kind or ("CR2" if m.task.linear else "CR1"), cluster)
    beta = np.array(m.estimate.beta)
    std_error = np.sqrt(np.diag(found.vcov))
    df = np.where(np.isnan(beta), np.nan, np.inf)
    kept = np.flatnonzero(np.isfinite(beta))
    df[kept] = contrast_df(m, found, np.eye(len(beta))[kept])
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = beta / std_error
    half = quantile(conf_level, df) * std_error
    parts = m.layout.components
    columns: dict[str, Any] = {}
    if len(parts) > 1:
        columns["component"] = [c.name for c in parts for _ in c.names]
    columns |= {
        "term": [name for c in parts for name in c.names] if len(parts) > 1 else list(names_of(m, "all")[0]),
        "estimate": beta,
        "std_error": std_error,
        "df": df,
        "statistic": statistic,
        "p_value": p_value(statistic, df),
        "conf_low": beta - half,
        "conf_high": beta + half,
    }
    return to_frame(columns, m.layout.kind)
