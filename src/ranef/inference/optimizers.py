"""The same criterion given to several optimisers: whether they agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines import Result
from ranef.errors import NotAvailableError, OptionError
from ranef.inference.frames import to_frame
from ranef.inference.many import _sd_names, _sds
from ranef.inference.named import names_of
from ranef.model import check_fit, design_of

if TYPE_CHECKING:
    from ranef.model import Fit

OPTIMIZERS = ("newton", "scipy:L-BFGS-B", "scipy:BFGS", "scipy:Nelder-Mead", "scipy:Powell")
NLOPT = ("nlopt:LN_BOBYQA", "nlopt:LN_NELDERMEAD")


def all_fit(m: Fit, optimizers: Sequence[str] | None = None) -> Any:
    """Fit again with every optimiser at hand, from the default start.

    Parameters
    ----------
    m : Fit
        A fit with its rows.
    optimizers : sequence of str, optional
        Names as in `Control.optimizer`; default: the engine's own, several of scipy's, nlopt's where installed.

    Returns
    -------
    data frame
        One row per optimiser: `optimizer, outcome, criterion, excess` (over the smallest criterion found),
        `evaluations, seconds`, then every fixed effect (of all components), standard deviation and sigma.

    Raises
    ------
    NotAvailableError
        For `method="pql"`, and for parameters that are held, tied or have priors.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
    >>> rf.all_fit(m, ["newton", "scipy:Powell"])[["optimizer", "outcome", "criterion"]].round(3)
          optimizer    outcome  criterion
    0        newton  converged   1786.465
    1  scipy:Powell  converged   1786.465
    """
    check_fit(m, "all_fit")
    if m.method == "pql":
        raise NotAvailableError("all_fit: penalised quasi-likelihood has no criterion that optimisers could share")
    if m.task.wishes is not None:
        raise NotAvailableError("all_fit: held, tied and penalised parameters have ranef's own optimiser only")
    if isinstance(optimizers, str) or not isinstance(optimizers, Sequence | None):
        raise OptionError(f"all_fit: optimizers={optimizers!r} takes a list of names, as in Control.optimizer")
    names = optimizers or (*OPTIMIZERS, *(NLOPT if find_spec("nlopt") else ()))
    timed = [_timed(m, name) for name in names]
    best = min(e.criterion for e, _ in timed)
    columns = {
        "optimizer": list(names),
        "outcome": [e.outcome for e, _ in timed],
        "criterion": [e.criterion for e, _ in timed],
        "excess": [e.criterion - best for e, _ in timed],
        "evaluations": [e.evaluations for e, _ in timed],
        "seconds": [seconds for _, seconds in timed],
    }
    return to_frame({**columns, **_estimates(m, [e for e, _ in timed])}, m.layout.kind)


def _timed(m: Fit, optimizer: str) -> tuple[Result, float]:
    design = design_of(m, "all_fit")
    task = replace(m.task, control=replace(m.call.control, optimizer=optimizer, start=None))
    started = time.perf_counter()
    found = m.engine.again(design, task)[1]
    return found, time.perf_counter() - started


def _estimates(m: Fit, found: list[Result]) -> dict[str, Any]:
    names = (*names_of(m, "all")[0], *_sd_names(m.layout.terms), "sigma")
    rows = np.array([[*e.beta, *_sds(e), e.sigma] for e in found])
    return dict(zip(names, rows.T.copy(), strict=True))
