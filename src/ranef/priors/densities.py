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
    >>> rf.prior.normal(0, 2.5).log_density(0.0)
    -1.8352292651238474
    """
    return Prior("normal", (number(mean, "mean"), number(sd, "sd", positive=True)), common_scale=common_scale)


def t(df: float, scale: Number = 1.0, mean: Number = 0.0, *, common_scale: bool = False) -> Prior:
    """Student's t prior of a coefficient, `df` degrees of freedom; the scale goes before the mean, in brms after it."""
    if np.ndim(scale) == 0 and scale == 0:
        raise OptionError(
            "prior: scale=0 is not a number above 0; here the scale goes before the mean, cauchy(2.5) and t(3, 2.5); "
            "or name them: cauchy(mean=0, scale=2.5)"
        )
    parameters = (number(df, "df", positive=True), number(mean, "mean"), number(scale, "scale", positive=True))
    return Prior("t", parameters, common_scale=common_scale)


def cauchy(scale: Number = 1.0, mean: Number = 0.0) -> Prior:
    """Cauchy prior of a coefficient (Gelman et al. 2008: scale 2.5 for standardised predictors).

    The scale goes before the mean, unlike brms' and Stan's `cauchy(mean, scale)`.
    """
    return t(1.0, scale, mean)


def multivariate_t(df: float, scale: Number = 1.0, *, common_scale: bool = False) -> Prior:
    """Multivariate t prior of all coefficients of a class together, centred at 0 (blme's `t`).

    Coefficients share their tail: with density (1 + sum (beta_j / scale_j)^2 / df)^(-(df + p) / 2).
    """
    scales = np.atleast_1d(np.asarray(number(scale, "scale", positive=True))).tolist()
    return Prior("multivariate_t", (number(df, "df", positive=True),), tuple(scales), common_scale)


def half_normal(sd: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Half-normal prior of a standard deviation; its mode is 0, so it does not keep a variance from 0."""
    return Prior("half_normal", (number(sd, "sd", positive=True),), common_scale=common_scale)


def half_t(df: float, scale: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Half-t prior of a standard deviation (Gelman 2006); its mode is 0."""
    parameters = (number(df, "df", positive=True), number(scale, "scale", positive=True))
    return Prior("half_t", parameters, common_scale=common_scale)


def half_cauchy(scale: float = 1.0) -> Prior:
    """Half-Cauchy prior of a standard deviation; its mode is 0."""
    return half_t(1.0, scale)


def gamma(shape: float = 2.5, rate: float = 0.0, *, common_scale: bool = False) -> Prior:
    """Gamma prior of a standard deviation, density proportional to x^(shape - 1) exp(-rate x).

    With shape 2.5 (2 and more) and rate 0, improper, it keeps the mode away from 0 and is flat elsewhere (Chung,
    Rabe-Hesketh, Dorie, Gelman & Liu 2013). glmmTMB's `gamma(mean, shape)` is `gamma(shape, shape / mean)`.
    """
    parameters = (number(shape, "shape", positive=True), number(rate, "rate", positive=True, zero=True))
    return Prior("gamma", parameters, common_scale=common_scale)


def inverse_gamma(shape: float, scale: float = 0.0, *, common_scale: bool = False) -> Prior:
    """Inverse gamma prior, density proportional to x^(-shape - 1) exp(-scale / x); of "var(g)" it is the usual one."""
    parameters = (number(shape, "shape", positive=True), number(scale, "scale", positive=True, zero=True))
    return Prior("inverse_gamma", parameters, common_scale=common_scale)


def lognormal(mean: float = 0.0, sd: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Log-normal prior of a standard deviation; `mean` and `sd` are those of its logarithm."""
    parameters = (number(mean, "mean"), number(sd, "sd", positive=True))
    return Prior("lognormal", parameters, common_scale=common_scale)


def exponential(rate: float = 1.0, *, common_scale: bool = False) -> Prior:
    """Exponential prior of a standard deviation; its mode is 0."""
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
    """
    given = None if df is None else number(df, "df", positive=True)
    return Prior("wishart", (given,), _matrix(scale), common_scale)


def inverse_wishart(df: float | None = None, scale: Any = None, *, common_scale: bool = False) -> Prior:
    """Inverse Wishart prior of a k x k covariance matrix, density |S|^(-(df + k + 1) / 2) exp(-tr(V S^-1) / 2)."""
    given = None if df is None else number(df, "df", positive=True)
    return Prior("inverse_wishart", (given,), _matrix(scale), common_scale)


def lkj(eta: float = 1.0) -> Prior:
    """Prior |R|^(eta - 1) of the correlations of a term (Lewandowski, Kurowicka & Joe 2009); 1 is uniform."""
    return Prior("lkj", (number(eta, "eta", positive=True),))


def flat() -> Prior:
    """Return no prior: leaves a parameter out of its class, as in {"fixed": normal(0, 1), "(Intercept)": flat()}."""
    return Prior("flat", ())


def point(value: float) -> Prior:
    """Hold a parameter at a value, as `fixed=` does."""
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
