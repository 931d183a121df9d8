"""How far Laplace's approximation is from the integral that it stands for, told from a few quadrature nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.engines.estimate import Array, LaplaceEstimate
from ranef.engines.linear import cells
from ranef.engines.nesting import affordable, crossed, groupings
from ranef.errors import NotAvailableError, OptionError
from ranef.inference.frames import to_frame
from ranef.inference.named import names_of
from ranef.model import design_of

if TYPE_CHECKING:
    from ranef.model import Fit

NODES = (7, 5, 3)
EVALUATIONS = 20_000_000  # of the density: about a second
SHIFT = 0.1  # standard errors by which an estimate may be off before anybody needs to care
WORST = 5


@dataclass(frozen=True, eq=False)
class LaplaceCheck:
    """Laplace's approximation beside adaptive quadrature, at the estimate of the former.

    Attributes
    ----------
    nodes : int
        Quadrature nodes a dimension.
    loglik, quadrature_loglik : float
        By Laplace's approximation and by quadrature.
    names : tuple of str
        Parameters: coefficients of all components, then theta.
    shift : (q,) array
        Predicted change of each estimate if the likelihood were that of the quadrature: one Newton step,
        V (g_quadrature - g_Laplace), V the covariance matrix of the estimates and g the gradients.
    std_error : (q,) array
    worst : tuple of (str, object, float)
        Grouping factor, level and quadrature's less Laplace's contribution to the log-likelihood, for the levels of
        the outermost factor where the two differ most.
    kind : str
        Kind of data frame that came in.
    """

    nodes: int
    loglik: float
    quadrature_loglik: float
    names: tuple[str, ...]
    shift: Array
    std_error: Array
    worst: tuple[tuple[str, Any, float], ...]
    kind: str

    @property
    def gap(self) -> float:
        """Log-likelihood by quadrature less that of Laplace's approximation."""
        return self.quadrature_loglik - self.loglik

    @property
    def relative(self) -> Array:
        """Predicted shifts in standard errors."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.std_error > 0, self.shift / self.std_error, 0.0)

    @property
    def matters(self) -> bool:
        """Whether an estimate would move by more than a tenth of its standard error."""
        return bool(np.nanmax(np.abs(self.relative), initial=0.0) > SHIFT)

    @property
    def text(self) -> str:
        """What it means, in a sentence."""
        j = int(np.nanargmax(np.abs(np.nan_to_num(self.relative)))) if self.names else 0
        largest = f"{self.names[j]} by {self.shift[j]:.2g} ({abs(self.relative[j]):.2g} standard errors)"
        found = f"{self.nodes} quadrature nodes change the log-likelihood by {self.gap:.2g} and would move {largest}"
        if self.matters:
            return f"Laplace's approximation is not good enough here: {found}; use quadrature={self.nodes}"
        return f"Laplace's approximation is good enough here: {found}"

    def tidy(self) -> Any:
        """One row per parameter: `parameter, shift, std_error, relative`."""
        columns = {
            "parameter": list(self.names),
            "shift": self.shift,
            "std_error": self.std_error,
            "relative": self.relative,
        }
        return to_frame(columns, self.kind)

    def __repr__(self) -> str:
        return self.text


def laplace_check(m: Fit, nodes: int | None = None) -> LaplaceCheck:
    """Compare Laplace's approximation with a few quadrature nodes at the estimate; nothing is fitted again.

    Parameters
    ----------
    m : Fit
        By Laplace's approximation (quadrature=1, method="ml"), with its rows.
    nodes : int, optional
        Nodes a dimension; default 7, or 5 or 3 where 7 would take longer than about a second.

    Returns
    -------
    LaplaceCheck

    Raises
    ------
    NotAvailableError
        For crossed grouping factors (the integral is not a product of small ones), other methods, or where even 3
        nodes are too many.

    Notes
    -----
    The approximation errs most where groups have few binary rows or small counts and the variance is large: Joe
    (2008), Computational Statistics & Data Analysis 52, 5066-5074.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("y ~ trt + (1 | ID)", rf.datasets.load("bacteria"), family="binomial")
    >>> rf.laplace_check(m).nodes
    7
    """
    if (why := unavailable(m)) is not None:
        raise NotAvailableError(f"laplace_check: {why}")
    if nodes is not None and not (isinstance(nodes, int) and nodes > 1):
        raise OptionError(f"laplace_check: nodes={nodes!r} must be a whole number greater than 1")
    chosen = nodes or _nodes(m)
    if chosen is None:
        raise NotAvailableError("laplace_check: even 3 nodes a dimension are too many for these random effects")
    estimate = m.estimate
    assert isinstance(estimate, LaplaceEstimate)
    plain, fine = m.core.with_nodes(1), m.core.with_nodes(chosen)
    v = np.nan_to_num(estimate.joint())
    gaps = np.asarray(fine["groups"]) - np.asarray(plain["groups"])
    term = m.layout.terms[fine["term"]]
    worst = tuple((term.label, term.levels[i], float(gaps[i])) for i in np.argsort(-np.abs(gaps))[:WORST].tolist())
    return LaplaceCheck(
        nodes=chosen,
        loglik=m.loglik,
        quadrature_loglik=float(fine["loglik"]),
        names=(*names_of(m, "all")[0], *theta_names(m)),
        shift=v @ (np.asarray(fine["gradient"]) - np.asarray(plain["gradient"])),
        std_error=np.sqrt(np.maximum(np.diag(v), 0.0)),
        worst=worst,
        kind=m.layout.kind,
    )


def unavailable(m: Fit) -> str | None:
    """Return why the comparison cannot be made; None if it can."""
    if m.task.linear:
        return "the likelihood of a linear model is exact"
    if m.method != "ml" or m.task.quadrature != 1:
        return "it is about fits by Laplace's approximation, quadrature=1 and method='ml'"
    if m.task.wishes is not None:
        return "fits with fixed=, equal=, prior= or penalty= have no quadrature"
    design = design_of(m, "laplace_check")
    if not design.terms:
        return "the model has no random effects, so that nothing is approximated"
    if pair := crossed(design.terms):
        return (
            f"{pair[0]!r} and {pair[1]!r} are crossed: the integral is not a product of small ones that a few nodes "
            f"could check"
        )
    return None


def _nodes(m: Fit) -> int | None:
    """Return how many nodes a dimension take about a second at most."""
    found = groupings(m.design.terms) if m.design else []
    dims = sum(g.columns for g in found)
    return next((k for k in NODES if k**dims * m.nobs <= EVALUATIONS and affordable(k, found, m.nobs)), None)


def theta_names(m: Fit) -> tuple[str, ...]:
    """Return names of the entries of theta, such as "theta days | subject" or "theta days.(Intercept) | subject"."""
    plain = [t for t in m.layout.terms if t.structure in ("us", "diag")]
    names = [
        f"theta {t.names[i] if i == j else f'{t.names[i]}.{t.names[j]}'} | {t.key}"
        for t in plain
        for i, j in cells(len(t.names), t.structure)
    ]
    rest = len(m.estimate.theta) - len(names)
    return (*names, *(f"theta {len(names) + k + 1}" for k in range(rest)))
