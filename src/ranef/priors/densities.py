"""The priors a user writes: one function a density. What each is of, and its density, is the core's table."""

from __future__ import annotations

from typing import Any

import numpy as np

from ranef.errors import OptionError
from ranef.priors.prior import Number, Prior, number


def normal(mean: Number = 0.0, sd: Number = 1.0, *, common_scale: bool = False) -> Prior:
    """Return a normal prior of a coefficient.

    Parameters
    ----------
    mean, sd : float or sequence
        In the units of the coefficient; a sequence has one entry a coefficient and repeats its last one, so that
        `normal(0, [10, 2.5])` of all fixed effects is wide for the intercept.
    common_scale : bool
        Prior of the coefficient divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.normal(0, 2.5).log_density(0.0), 6)
    -1.835229
    """
    return Prior("normal", (number(mean, "mean"), number(sd, "sd", positive=True)), common_scale=common_scale)


def t(df: float, scale: Number = 1.0, mean: Number = 0.0, *, common_scale: bool = False) -> Prior:
    """Return Student's t prior of a coefficient.

    Parameters
    ----------
    df : float
        Degrees of freedom, above 0.
    scale, mean : float or sequence
        In the units of the coefficient; the scale goes before the mean, in brms after it. Sequences as in `normal`.
    common_scale : bool
        Prior of the coefficient divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.t(3, 2.5).log_density(0.0), 6)
    -1.91718
    """
    if np.ndim(scale) == 0 and scale == 0:
        raise OptionError(
            "prior: scale=0 is not a number above 0; here the scale goes before the mean, cauchy(2.5) and t(3, 2.5); "
            "or name them: cauchy(mean=0, scale=2.5)"
        )
    parameters = (number(df, "df", positive=True), number(mean, "mean"), number(scale, "scale", positive=True))
    return Prior("t", parameters, common_scale=common_scale)


def cauchy(scale: Number = 1.0, mean: Number = 0.0) -> Prior:
    """Return a Cauchy prior of a coefficient (Gelman et al. 2008: scale 2.5 for standardised predictors).

    Parameters
    ----------
    scale, mean : float or sequence
        In the units of the coefficient; the scale goes before the mean, unlike brms' and Stan's `cauchy(mean, scale)`.

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.cauchy(2.5).log_density(0.0), 6)
    -2.061021
    """
    return t(1.0, scale, mean)


def multivariate_t(df: float, scale: Number = 1.0, *, common_scale: bool = False) -> Prior:
    """Return a multivariate t prior of all coefficients of a class together, centred at 0.

    It is blme's `t`, whose `scale` is the square of this one.

    Coefficients share their tail: the density is proportional to (1 + sum (beta_j / scale_j)^2 / df)^(-(df + p) / 2).

    Parameters
    ----------
    df : float
        Degrees of freedom, above 0.
    scale : float or sequence
        One for each coefficient, repeating the last.
    common_scale : bool
        Prior of the coefficients divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> wine = rf.datasets.load("wine")
    >>> heavy = {"fixed": rf.prior.multivariate_t(3, 2.5)}
    >>> m = rf.fit("rating ~ temp + contact + (1 | judge)", wine, family="cumulative", prior=heavy)
    >>> round(m.params["tempwarm"], 3)
    np.float64(2.875)
    """
    scales = np.atleast_1d(np.asarray(number(scale, "scale", positive=True))).tolist()
    return Prior("multivariate_t", (number(df, "df", positive=True),), tuple(scales), common_scale)


def half_normal(sd: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Return a half-normal prior of a standard deviation; its mode is 0, so it does not keep a variance from 0.

    Parameters
    ----------
    sd : float
        That of the normal law that is folded, in the units of the standard deviation.
    common_scale : bool
        Prior of the standard deviation divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.half_normal(2).log_density(0.0), 6)
    -0.918939
    """
    return Prior("half_normal", (number(sd, "sd", positive=True),), common_scale=common_scale)


def half_t(df: float, scale: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Return a half-t prior of a standard deviation (Gelman 2006); its mode is 0.

    Parameters
    ----------
    df : float
        Degrees of freedom, above 0.
    scale : float
        In the units of the standard deviation.
    common_scale : bool
        Prior of the standard deviation divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.half_t(3, 2.5).log_density(0.0), 6)
    -1.224032
    """
    parameters = (number(df, "df", positive=True), number(scale, "scale", positive=True))
    return Prior("half_t", parameters, common_scale=common_scale)


def half_cauchy(scale: float = 1.0) -> Prior:
    """Return a half-Cauchy prior of a standard deviation; its mode is 0.

    Parameters
    ----------
    scale : float
        In the units of the standard deviation.

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.half_cauchy(2.5).log_density(0.0), 6)
    -1.367873
    """
    return half_t(1.0, scale)


def gamma(shape: float = 2.5, rate: float = 0.0, *, common_scale: bool = False) -> Prior:
    """Return a gamma prior of a standard deviation, density proportional to x^(shape - 1) exp(-rate x).

    With shape 2.5 (2 and more) and rate 0, improper, it keeps the mode away from 0 and is flat elsewhere (Chung,
    Rabe-Hesketh, Dorie, Gelman & Liu 2013). glmmTMB's `gamma(mean, shape)` is `gamma(shape, shape / mean)`.

    Parameters
    ----------
    shape : float
        Above 0; with more than 1 the mode is not 0.
    rate : float
        At least 0, in the inverse of the units of the standard deviation.
    common_scale : bool
        Prior of the standard deviation divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"), prior={"sd(Batch)": rf.prior.gamma(2.5)})
    >>> m.varcorr()["Batch"].sd.round(3)
    array([1.503])
    """
    parameters = (number(shape, "shape", positive=True), number(rate, "rate", positive=True, zero=True))
    return Prior("gamma", parameters, common_scale=common_scale)


def inverse_gamma(shape: float, scale: float = 0.0, *, common_scale: bool = False) -> Prior:
    """Return an inverse gamma prior, density proportional to x^(-shape - 1) exp(-scale / x).

    Parameters
    ----------
    shape : float
        Above 0.
    scale : float
        At least 0, in the units of the parameter: a variance, "var(g)", is the usual one.
    common_scale : bool
        Prior of the parameter divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> prior = {"var(plate)": rf.prior.inverse_gamma(2, 1)}
    >>> data = rf.datasets.load("Penicillin")
    >>> round(rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", data, prior=prior).varcorr()["plate"].sd[0], 3)
    np.float64(0.792)
    """
    parameters = (number(shape, "shape", positive=True), number(scale, "scale", positive=True, zero=True))
    return Prior("inverse_gamma", parameters, common_scale=common_scale)


def lognormal(mean: float = 0.0, sd: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Return a log-normal prior of a standard deviation.

    Parameters
    ----------
    mean, sd : float
        Those of its logarithm.
    common_scale : bool
        Prior of the standard deviation divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.lognormal(0, 1).log_density(1.0), 6)
    -0.918939
    """
    parameters = (number(mean, "mean"), number(sd, "sd", positive=True))
    return Prior("lognormal", parameters, common_scale=common_scale)


def exponential(rate: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Return an exponential prior of a standard deviation; its mode is 0.

    Parameters
    ----------
    rate : float
        Above 0, in the inverse of the units of the standard deviation.
    common_scale : bool
        Prior of the standard deviation divided by the residual standard deviation (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> round(rf.prior.exponential(2).log_density(0.5), 6)
    -0.306853
    """
    return Prior("exponential", (number(rate, "rate", positive=True),), common_scale=common_scale)


def wishart(df: float | None = None, scale: Any = None, *, common_scale: bool = False) -> Prior:
    """Wishart prior of a k x k covariance matrix, density proportional to |S|^((df - k - 1) / 2) exp(-tr(V^-1 S) / 2).

    Parameters
    ----------
    df : float, optional
        Default k + 2.5: then the mode is never singular (Chung, Gelman, Rabe-Hesketh, Liu & Dorie 2015).
    scale : float or (k, k) array, optional
        V; a number s is s I. Default: infinite, which is improper and leaves the trace out (blme's default).
    common_scale : bool
        Prior of the covariance divided by the residual variance (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> slopes, sleep = "Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy")
    >>> rf.fit(slopes, sleep, prior={"cov(Subject)": rf.prior.wishart()}).varcorr()["Subject"].sd.round(2)
    array([26.95,  6.35])
    """
    given = None if df is None else number(df, "df", positive=True)
    return Prior("wishart", (given,), _matrix(scale), common_scale)


def inverse_wishart(df: float | None = None, scale: Any = None, *, common_scale: bool = False) -> Prior:
    """Return an inverse Wishart prior of a k x k covariance, density |S|^(-(df + k + 1) / 2) exp(-tr(V S^-1) / 2).

    Parameters
    ----------
    df : float, optional
        Default k + 2.5.
    scale : float or (k, k) array, optional
        V; a number s is s I. Default: none, which is improper and leaves the trace out.
    common_scale : bool
        Prior of the covariance divided by the residual variance (gaussian models; blme's default).

    Examples
    --------
    >>> import ranef as rf
    >>> slopes, sleep = "Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy")
    >>> rf.fit(slopes, sleep, prior={"cov(Subject)": rf.prior.inverse_wishart(4, 100)}).varcorr()["Subject"].sd.round(2)
    array([14.04,  5.15])
    """
    given = None if df is None else number(df, "df", positive=True)
    return Prior("inverse_wishart", (given,), _matrix(scale), common_scale)


def lkj(eta: float = 1.0) -> Prior:
    """Return the prior |R|^(eta - 1) of the correlations of a term (Lewandowski, Kurowicka & Joe 2009).

    Parameters
    ----------
    eta : float
        Above 0: 1 is uniform over correlation matrices, more favours small correlations.

    Examples
    --------
    >>> import ranef as rf
    >>> slopes, sleep = "Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy")
    >>> rf.fit(slopes, sleep, prior={"cor(Subject)": rf.prior.lkj(2)}).varcorr()["Subject"].corr[1, 0].round(3)
    np.float64(0.054)
    """
    return Prior("lkj", (number(eta, "eta", positive=True),))


def flat() -> Prior:
    """Return no prior: leaves a parameter out of its class.

    Examples
    --------
    >>> import ranef as rf
    >>> prior = {"fixed": rf.prior.normal(0, 1), "(Intercept)": rf.prior.flat()}
    >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"), prior=prior)
    >>> m.params.round(2)
    (Intercept)    271.91
    Days             5.91
    dtype: float64
    """
    return Prior("flat", ())


def point(value: float) -> Prior:
    """Hold a parameter at a value, as `fixed=` does.

    Parameters
    ----------
    value : float
        On the parameter's own scale.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff"), prior={"sigma": rf.prior.point(50)})
    >>> round(m.sigma, 6)
    50.0
    """
    return Prior("point", (number(value, "value"),))


def _matrix(scale: Any) -> tuple[float, ...]:
    if scale is None:
        return ()
    values = np.asarray(scale, dtype=np.float64)
    square = values.ndim == 0 or (values.ndim == 2 and values.shape[0] == values.shape[1])
    if not square or not np.isfinite(values).all() or not (np.linalg.eigvalsh(np.atleast_2d(values)) > 0).all():
        raise OptionError("prior: scale is a number above 0 or a positive definite (k, k) matrix")
    return tuple(values.ravel().tolist())


TABLE = {
    f.__name__: f
    for f in (
        normal, t, cauchy, multivariate_t, half_normal, half_t, half_cauchy, gamma, inverse_gamma, lognormal,
        exponential, wishart, inverse_wishart, lkj, point, flat,
    )
}  # fmt: skip
