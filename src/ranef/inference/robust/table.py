"""`robust(m)`: the table of coefficients with cluster-robust standard errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.inference.frames import to_frame
from ranef.inference.robust.method import robust_method
from ranef.inference.robust.working import objection
from ranef.inference.tables import fixed
from ranef.inference.wald import quantile
from ranef.model import check_fit

if TYPE_CHECKING:
    from ranef.model import Fit

COLUMNS = ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high")


def robust(m: Fit, kind: str | None = None, cluster: Any = None, conf_level: float = 0.95) -> Any:
    """Test the coefficients with cluster-robust standard errors.

    Parameters
    ----------
    m : Fit
        A fitted model, not slim.
    kind : "CR0" | "CR1" | "CR1S" | "CR2" | "CR3", optional
        As in `Fit.vcov`; default "CR2" for gaussian models, "CR1" for others.
    cluster : str, array, or list of str, optional
        As in `Fit.vcov`; default the outermost grouping factor.
    conf_level : float
        Of the intervals.

    Returns
    -------
    data frame
        Of the kind of the data: `term, estimate, std_error, df, statistic, p_value, conf_low, conf_high`; NaN for
        coefficients dropped. Of models with several components, `component` comes first; gaussian models with a
        dispersion formula have the coefficients of the mean only. Degrees of freedom are
        Satterthwaite's with the model's covariance as working model (Pustejovsky & Tipton 2018), by CR2 and CR3 of
        generalised models with that of the linear model that approximates it; for several ways of clustering of
        gaussian models the smallest number of clusters less one (Cameron & Miller 2015). By the other kinds of
        generalised models, and for coefficients outside the mean, they are infinite: tests are normal.

    Notes
    -----
    The scores of a generalised model are those of its marginal likelihood in (beta, theta) together. CR2 and CR3 take
    the place of the part X_j'g_j of the mean's coefficients by X_j'V_j^-1 A_j e_j of the working linear model at the
    optimum, A_j as in a linear model. What the scores have beside that, the slope of Laplace's determinant, and the
    scores of theta and of other components are those of CR0: a bias of order 1 / clusters in how they vary is left,
    which reaches the mean's coefficients by the information that they share. CR1 scales all of them. For the mean this
    is CR2 of generalised estimating equations (McCaffrey & Bell 2006); none is published for the scores of theta.
    Several ways of clustering with groups that are not nested in them (CR0, CR1) hold theta at its estimate.

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
    check_fit(m, "robust")
    quantile(conf_level)  # a level that is none is refused before the work
    way = robust_method(m, kind or ("CR1" if objection(m) else "CR2"), cluster)
    found = fixed(m, conf_level, way)
    covered = np.isfinite(found["std_error"]) | np.isnan(found["estimate"])
    parts = [c for c in m.layout.components if covered[c.at].any()] or list(m.layout.components[:1])
    at = np.concatenate([np.arange(len(covered))[c.at] for c in parts])
    columns: dict[str, Any] = {name: found[name][at] for name in COLUMNS}
    columns = {"term": [found["term"][i] for i in at], **columns}
    if len(parts) > 1:
        columns = {"component": [found["component"][i] for i in at], **columns}
    return to_frame(columns, m.layout.kind)
