"""How far Laplace's approximation is from the integral that it stands for, told from quadrature nodes or draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef.diagnose.sampling import sampled
from ranef.engines.estimate import Array, LaplaceEstimate
from ranef.engines.laplace import rebuilt
from ranef.engines.linear import cells
from ranef.engines.nesting import affordable, check_quadrature, figures, groupings, hindrance, most_nodes
from ranef.errors import NotAvailableError, OptionError
from ranef.formula.functions import PLAIN
from ranef.frame.coding import level_name
from ranef.frame.outcomes import by_outcome
from ranef.inference.frames import to_frame
from ranef.inference.named import names_of
from ranef.model import check_fit, design_of

if TYPE_CHECKING:
    from ranef.model import Fit

NODES = (7, 5, 3)
LADDER = (3, 5, 7, 11, 15, 25, 35, 51)  # numbers of nodes that are tried until the log-likelihood settles
SETTLED = 0.05  # of the log-likelihood, which more nodes change by less
EVALUATIONS = 20_000_000  # of the density: about a second
MANY = 1_000  # nodes for every row from which a fit takes more than some seconds
DRAWS, FEWEST = 2_000, 100  # of all random effects
DENSITIES, MOST_DENSITIES = 50_000_000, 1_000_000_000  # evaluated while sampling: seconds, half a minute
SHIFT = 0.1  # standard errors by which an estimate may be off before anybody needs to care
WORST, NAMED = 5, 3  # levels that a check has, and that its text names


@dataclass(frozen=True, eq=False)
class LaplaceCheck:
    """Laplace's approximation beside a closer one, at the estimate of the former.

    Attributes
    ----------
    how : "quadrature" | "importance sampling" | "second-order expansion"
        What the closer one is; the expansion is of the cumulants of the sampled log ratios, where their mean is ruled
        by a few draws.
    nodes : int or None
        Quadrature nodes a dimension.
    draws : int or None
        Draws of all random effects.
    loglik, integral_loglik : float
        By Laplace's approximation and by the closer one.
    names : tuple of str
        Parameters: coefficients of all components, then theta.
    shift : (q,) array
        Predicted change of each estimate if the likelihood were the closer one: one Newton step,
        V (g_closer - g_Laplace), V the covariance matrix of the estimates and g the gradients.
    std_error : (q,) array
        Of the estimates.
    gap_noise, shift_noise : float, (q,) array
        Standard errors, over draws, of the gap and of the shifts; 0 for quadrature.
    pareto_k : float
        Shape of the tail of the importance ratios; above 0.7 their mean cannot be trusted. NaN for quadrature.
    worst : tuple of (str, object, float)
        Grouping factor, level and quadrature's less Laplace's contribution to the log-likelihood, for the levels of
        the outermost factor where the two differ most; empty for crossed factors, where levels do not contribute apart.
    kind : str
        Kind of data frame that came in.
    settled : bool
        Whether more nodes change the log-likelihood by less than 0.05; not looked at where `nodes` were asked for or
        the approximation is good enough.
    cure : str
        What to do where it is not good enough: a number of nodes that a fit accepts, or what stands in for it.
    """

    how: str
    nodes: int | None
    draws: int | None
    loglik: float
    integral_loglik: float
    names: tuple[str, ...]
    shift: Array
    std_error: Array
    gap_noise: float
    shift_noise: Array
    pareto_k: float
    worst: tuple[tuple[str, Any, float], ...]
    kind: str
    settled: bool = True
    cure: str = "simulate from the fit to see the bias of its estimates, rf.bootstrap(m)"

    @property
    def gap(self) -> float:
        """Log-likelihood by the closer approximation less that of Laplace's."""
        return self.integral_loglik - self.loglik

    @property
    def relative(self) -> Array:
        """Predicted shifts in standard errors."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.std_error > 0, self.shift / self.std_error, 0.0)

    @property
    def matters(self) -> bool:
        """Whether an estimate would move by more than a tenth of its standard error, beyond twice the noise."""
        sure = np.abs(self.shift) > 2 * self.shift_noise
        return bool(np.nanmax(np.abs(self.relative) * sure, initial=0.0) > SHIFT)

    @property
    def text(self) -> str:
        """What it means, in a sentence."""
        j = int(np.nanargmax(np.abs(np.nan_to_num(self.relative)))) if self.names else 0
        at = f"{self.names[j]} by {self.shift[j]:.2g} ({abs(self.relative[j]):.2g} standard errors)"
        if self.how == "quadrature":
            found = f"{self.nodes} quadrature nodes change the log-likelihood by {self.gap:.2g} and would move {at}"
        else:
            found = (
                f"{self.how} with {self.draws} draws changes the log-likelihood by {self.gap:.2g} (standard error "
                f"{self.gap_noise:.1g}) and would move {at}, give or take {self.shift_noise[j]:.1g}"
            )
        if self.matters:
            return f"Laplace's approximation is not good enough here: {found}{self._where()}; {self.cure}"
        if bool((np.abs(self.relative) > SHIFT).any()):
            return (
                f"whether Laplace's approximation is good enough cannot be told from so few draws: {found}; give draws="
            )
        return f"Laplace's approximation is good enough here: {found}"

    def _where(self) -> str:
        """Return the levels that change the log-likelihood most."""
        listed = ", ".join(f"{level_name(level)} ({gap:.2g})" for _, level, gap in self.worst[:NAMED])
        return f"; of the levels of {self.worst[0][0]!r} these change it most: {listed}" if listed else ""

    def tidy(self) -> Any:
        """Return one row per parameter: `parameter, shift, std_error, relative, noise` (the shift's, over draws).

        Examples
        --------
        >>> import ranef as rf
        >>> m = rf.fit("y ~ trt + (1 | ID)", rf.datasets.load("bacteria"), family="binomial")
        >>> rf.laplace_check(m).tidy().tail(1).round(3)
                        parameter  shift  std_error  relative  noise
        3  theta (Intercept) | ID  0.044      0.356     0.124    0.0
        """
        columns = {
            "parameter": list(self.names),
            "shift": self.shift,
            "std_error": self.std_error,
            "relative": self.relative,
            "noise": self.shift_noise,
        }
        return to_frame(columns, self.kind)

    def __repr__(self) -> str:
        return self.text


def laplace_check(m: Fit, nodes: int | None = None, draws: int | None = None, seed: int = 0) -> LaplaceCheck:
    """Compare Laplace's approximation with the integral at the estimate; nothing is fitted again.

    Parameters
    ----------
    m : Fit
        By Laplace's approximation (quadrature=1, method="ml"), with its rows. What is held or tied stays so, and priors
        stay as they are.
    nodes : int, optional
        Nodes a dimension of adaptive quadrature, for one grouping factor or nested ones; default 7, or 5 or 3 where 7
        would take longer than about a second, and, where that shows that Laplace's approximation is not good enough, as
        many as it takes until more of them hardly change the log-likelihood.
    draws : int, optional
        Draws of all random effects, for importance sampling: the default (2,000, fewer where that would take longer
        than a few seconds) where factors are crossed, levels related, or columns too many even for 3 nodes of each;
        asked for, it replaces quadrature anywhere.
    seed : int
        Same seed, same draws.

    Returns
    -------
    LaplaceCheck

    Raises
    ------
    NotAvailableError, OptionError
        For other methods, or where the work is out of proportion.

    Notes
    -----
    The approximation errs most where groups have few binary rows or small counts and the variance is large: Joe
    (2008), Computational Statistics & Data Analysis 52, 5066-5074. Sampling takes Laplace's own Gaussian as proposal;
    see `ranef.diagnose.sampling`.

    Examples
    --------
    >>> import ranef as rf
    >>> m = rf.fit("y ~ trt + (1 | ID)", rf.datasets.load("bacteria"), family="binomial")
    >>> rf.laplace_check(m).nodes
    7
    """
    check_fit(m, "laplace_check")
    if (why := unavailable(m)) is not None:
        raise NotAvailableError(f"laplace_check: {why}")
    for name, value in (("nodes", nodes), ("draws", draws)):
        if value is not None and not (isinstance(value, int) and value > 1):
            raise OptionError(f"laplace_check: {name}={value!r} must be a whole number greater than 1")
    why = "draws= takes its place" if draws is not None else not_nested(m)
    if why is None and (nodes is not None or _nodes(m) is not None):
        return _by_quadrature(m, nodes)
    if nodes is not None:
        raise OptionError(f"laplace_check: nodes={nodes} is for quadrature, and {why}; leave it out")
    return _by_sampling(m, draws, seed)


def _by_quadrature(m: Fit, nodes: int | None) -> LaplaceCheck:
    chosen = nodes or _nodes(m)
    assert chosen is not None
    check_quadrature(chosen, design_of(m, "laplace_check"))
    found = _compared(m, chosen)
    return _climbed(m, found) if nodes is None and found.matters else found


def _climbed(m: Fit, found: LaplaceCheck) -> LaplaceCheck:
    """Return the check by as many nodes as it takes to settle the log-likelihood."""
    for nodes in LADDER:
        if found.nodes is not None and nodes > found.nodes:
            if not quick(m, nodes):
                break
            finer = _compared(m, nodes)
            if abs(finer.integral_loglik - found.integral_loglik) < SETTLED:
                return found
            found = finer
    assert found.nodes is not None
    return replace(found, settled=False, cure=_cure(m, found.nodes, settled=False))


def _compared(m: Fit, nodes: int) -> LaplaceCheck:
    core = whole_core(m)
    try:
        plain, fine = core.with_nodes(1), core.with_nodes(nodes)
    except ValueError as error:
        raise NotAvailableError(f"laplace_check: there is no integral at this estimate: {error}") from error
    gaps = np.asarray(fine["groups"]) - np.asarray(plain["groups"])
    term = m.layout.terms[fine["term"]]
    worst = tuple((term.label, term.levels[i], float(gaps[i])) for i in np.argsort(-np.abs(gaps))[:WORST].tolist())
    v = _spread(m)
    shift = v @ (np.asarray(fine["gradient"]) - np.asarray(plain["gradient"]))
    return LaplaceCheck(
        how="quadrature",
        nodes=nodes,
        draws=None,
        loglik=m.loglik,
        integral_loglik=float(fine["loglik"]) + by_outcome(design_of(m, "laplace_check")).constant,
        names=(*names_of(m, "all")[0], *theta_names(m)),
        shift=shift,
        std_error=np.sqrt(np.maximum(np.diag(v), 0.0)),
        gap_noise=0.0,
        shift_noise=np.zeros(len(shift)),
        pareto_k=float("nan"),
        worst=worst,
        kind=m.layout.kind,
        cure=_cure(m, nodes, settled=True),
    )


def _by_sampling(m: Fit, draws: int | None, seed: int) -> LaplaceCheck:
    v = _spread(m)
    error = np.sqrt(np.maximum(np.diag(v), 0.0))
    pairs = _pairs(m, draws, 1 + 2 * int((error > 0).sum()))
    found = sampled(m, whole_core(m), error, pairs, seed)
    return LaplaceCheck(
        how=found.how,
        nodes=None,
        draws=2 * pairs,
        loglik=m.loglik,
        integral_loglik=m.loglik + found.gap.value,
        names=(*names_of(m, "all")[0], *theta_names(m)),
        shift=v @ found.slope,
        std_error=error,
        gap_noise=found.gap.error,
        shift_noise=np.std(v @ found.influence, axis=1) / np.sqrt(pairs),
        pareto_k=found.gap.k,
        worst=(),
        kind=m.layout.kind,
    )


def _spread(m: Fit) -> Array:
    estimate = m.estimate
    assert isinstance(estimate, LaplaceEstimate)
    return np.nan_to_num(estimate.joint())


def _pairs(m: Fit, draws: int | None, points: int) -> int:
    """Return how many pairs of draws at so many parameter values take some seconds at most."""
    if draws is not None:
        return (draws + 1) // 2
    pairs = min(DRAWS, max(FEWEST, DENSITIES // (m.nobs * points))) // 2
    if 2 * pairs * m.nobs * points > MOST_DENSITIES:
        raise NotAvailableError(
            f"laplace_check: even {FEWEST} draws of all random effects at {points} parameter values take longer than "
            f"half a minute for {m.nobs} rows; give draws= to have them"
        )
    return pairs


def unavailable(m: Fit) -> str | None:
    """Return why the comparison cannot be made; None if it can."""
    if m.task.linear:
        return "the likelihood of a linear model is exact"
    if m.method != "ml" or m.task.quadrature != 1:
        return "it is about fits by Laplace's approximation, quadrature=1 and method='ml'"
    design = design_of(m, "laplace_check")
    if not design.terms:
        return "the model has no random effects, so that nothing is approximated"
    return None


def whole_core(m: Fit) -> Any:
    """Return a core of all parameters, where the fit stands, the same for a fit and what it was pickled to.

    That of a fit by fixed=, equal=, prior= or penalty= has others. What is held does not move, and what is tied moves
    together, by the covariance of the estimates; a prior is the same for both approximations.
    """
    estimate = m.estimate
    assert isinstance(estimate, LaplaceEstimate)
    try:
        return rebuilt(design_of(m, "laplace_check"), m.task, estimate)
    except ValueError as error:
        raise NotAvailableError(f"laplace_check: there is no integral at this estimate: {error}") from error


def not_nested(m: Fit) -> str | None:
    """Return why the integral is not a product of small ones; None if it is."""
    return hindrance(design_of(m, "laplace_check").terms)


def _nodes(m: Fit) -> int | None:
    """Return how many nodes a dimension take about a second at most."""
    return next((k for k in NODES if quick(m, k)), None)


def quick(m: Fit, nodes: int) -> bool:
    """Tell whether the comparison with so many nodes takes about a second at most."""
    design = design_of(m, "laplace_check")
    return _densities(m, nodes) <= EVALUATIONS and affordable(nodes, groupings(design.terms), design.n)


def _densities(m: Fit, nodes: int) -> int:
    """Return how often the density is evaluated for one value of the likelihood."""
    design = design_of(m, "laplace_check")
    return nodes ** sum(g.columns for g in groupings(design.terms)) * design.n


def _cure(m: Fit, nodes: int, settled: bool) -> str:
    """Return the quadrature to ask for, as far as a fit accepts it."""
    design = design_of(m, "laplace_check")
    many = figures(nodes, groupings(design.terms))
    slow = f" (slow: {many} nodes for every row)" if _densities(m, nodes) > MANY * design.n else ""
    if settled:
        return f"use quadrature={nodes}{slow}"
    most = most_nodes(design, LADDER[-1])
    beyond = f"or more, up to {most}" if most > nodes else "the most that is accepted"
    return f"use quadrature={nodes}{slow}, {beyond}: so many do not settle the log-likelihood yet"


def theta_names(m: Fit) -> tuple[str, ...]:
    """Return names of the entries of theta, such as "theta days | subject" or "theta cor | g" of a structure."""
    plain = [t for t in m.layout.terms if t.structure in PLAIN]
    names = [
        f"theta {t.names[i] if i == j else f'{t.names[i]}.{t.names[j]}'} | {t.key}"
        for t in plain
        for i, j in cells(len(t.names), t.structure)
    ]
    own = [f"theta {p.label} | {key}" for key, term in m.varcorr().items() if term.structured for p in term.parameters]
    return (*names, *own)
