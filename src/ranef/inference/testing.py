"""Which test coefficients get: the one place where `ddf=`, `vcov=` and `cluster=` are read together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ranef.errors import OptionError
from ranef.inference.ddf import Method, method_of

if TYPE_CHECKING:
    from ranef.model import Fit

ADJUSTED = ("kenward-roger", "kr")


def wald_method(m: Fit, ddf: Any = None, vcov: Any = None, cluster: Any = None) -> Method:
    """Return the covariance, degrees of freedom and joint tests that were asked for.

    Parameters
    ----------
    m : Fit
    ddf : str, optional
        A method of `ddf.METHODS`; with a robust covariance "satterthwaite" (the default) or "inf".
    vcov : str, optional
        "model" (the default; Kenward and Roger's with their degrees of freedom), "kenward-roger", or a robust kind,
        "CR0" … "CR3", as in `Fit.vcov`.
    cluster : str, array or list of str, optional
        With a robust kind, as in `Fit.vcov`.

    Raises
    ------
    OptionError, NotAvailableError, DataError
    """
    name = "model" if vcov is None else str(vcov).strip().lower().replace("_", "-")
    if name in ("model", *ADJUSTED):
        if cluster is not None:
            raise OptionError("cluster= goes with a robust covariance: vcov='CR2' (or CR0, CR1, CR1S, CR3)")
        if name == "model":
            return method_of(m, ddf)
        method = method_of(m, "kenward-roger")
        if ddf is not None and method_of(m, ddf).name != method.name:
            raise OptionError(f"vcov={vcov!r} has degrees of freedom of its own; leave ddf={ddf!r} out")
        return method
    from ranef.inference.robust.method import robust_method

    return robust_method(m, vcov, cluster, ddf)
