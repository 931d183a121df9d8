"""Quiet notes on generalised models: separation, offsets on the wrong scale, dispersion, approximations in doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ranef.diagnose.dispersion import ALTERNATIVES, pearson_chisq, telling, underdispersed, upper_tail
from ranef.diagnose.messages import Message, held, row_effect
from ranef.diagnose.propriety import worst_sum
from ranef.diagnose.separated_data import places
from ranef.diagnose.separation import FAR
from ranef.diagnose.separation import unsearched as columns_left
from ranef.engines.estimate import Array
from ranef.engines.parameters import names_of
from ranef.families.links import link_of, loose
from ranef.frame.design import matrix
from ranef.frame.table import shorten
from ranef.inference.ddf.strata import resting_on
from ranef.inference.terms import is_linear_model
from ranef.predict.rows import fitted_design, linear_predictor

if TYPE_CHECKING:
    from ranef.model import Fit

LARGE = 8.0  # a log odds ratio of this size is an odds ratio of 3,000
NEARLY = 0.02  # probabilities within this of 0 or 1, less than odds of 3,000 to either side of 1/2
SURE = 1e-3
ENOUGH = 5.0  # expected successes or counts from which quasi-likelihood's bias is small
DEFECT = 0.01  # of a sum that should be 1: an error of the log-likelihood that a test would notice in 100 rows
FEW_GROUPS = 20  # groups below which t and normal quantiles differ by more than 7 per cent


def separation(m: Fit) -> Iterator[Message]:
    """P6: infinite estimates."""
    names = m.separation
    if not names:
        return
    text = (
        f"{separated_by(m)}: the maximum of the likelihood lies at infinity, so these estimates and their "
        f"standard errors have no meaning ({_others(m, names)}); {_ways_out(m, names)}"
    )
    yield Message("separation", text, {"columns": list(names), "places": places(m, names)})


def _others(m: Fit, names: Sequence[str]) -> str:
    """Say which estimates have a meaning: a constant goes along where no column alone tells the outcomes apart."""
    from ranef.inference.named import names_of

    cuts = next((c.names for c in m.layout.components if c.name == "threshold"), ())
    with np.errstate(invalid="ignore"):
        errors = np.sqrt(np.diag(m.estimate.vcov))
    constants = [
        name
        for name, error in zip(names_of(m, "all")[0], errors, strict=False)
        if (name.endswith("(Intercept)") or name.removeprefix("threshold.") in cuts)
        and name not in names
        and not error < FAR
    ]
    return f"nor has {', '.join(constants)}; the others have" if constants else "the others have"


def why_infinite(m: Fit) -> str | None:
    """Return what separates the outcome, where a fit is not to be had; None if nothing does."""
    names = m.separation
    return f"{separated_by(m)}; {_ways_out(m, names)}" if names else None


def separated_by(m: Fit) -> str:
    """Return the columns that separate an outcome, and where in the data."""
    found = places(m, m.separation)
    return f"the outcome is separated by {', '.join(m.separation)}" + (f" ({'; '.join(found)})" if found else "")


def _ways_out(m: Fit, names: Sequence[str]) -> str:
    other = "with method='ml' " if m.call.method == "pql" else ""  # which takes none
    return (
        f"{other}a prior keeps them finite, prior={{{_remedy(m, names)}}}{_firth(m)}; or collapse levels, or drop the "
        f"columns"
    )


def unsearched(m: Fit) -> Iterator[Message]:
    """P6: estimates that ran off in data too large for the linear program."""
    if names := columns_left(m):
        text = (
            f"{shorten(names)}: estimates whose standard errors ran off, as where an outcome is separated. In data of "
            f"this size that was looked for in single factors and predictors only, not in combinations of these; "
            f"{_ways_out(m, names)}"
        )
        yield Message("separation_unsearched", text, {"columns": list(names)})


def _remedy(m: Fit, names: Sequence[str]) -> str:
    """Return priors of the components whose columns are separated."""
    if m.design is None:
        return "'fixed': rf.prior.normal(0, 2.5)"
    owners = names_of(m.design, m.distribution)
    found = [owners.owners[place.at] for name in names if (place := owners.get(name)) is not None]
    others = [c.name for c in m.layout.components[1:]] if not m.distribution.entry.nominal else []
    classes = dict.fromkeys(name if name in others else "fixed" for name in found or ["fixed"])
    return ", ".join(f"'{name}': rf.prior.normal(0, 2.5)" for name in classes)


def _firth(m: Fit) -> str:
    canonical = (m.distribution.entry.name, m.link) in (("binomial", "logit"), ("poisson", "log"))
    plain = not (
        m.distribution.zero_inflation or m.distribution.truncated or m.distribution.bounded or m.formula.censored
    )
    return " or penalty='firth'" if canonical and plain else ""


def far_estimates(m: Fit) -> Iterator[Message]:
    """P7: huge coefficients with huge standard errors, a change of the predictor by its usual step considered.

    Those of other parameters are told where they are at a limit.
    """
    if m.design is None or m.task.linear or m.separation:
        return
    part = m.layout.components[0]
    beta = m.estimate.beta[part.at]
    error = np.sqrt(np.diag(m.estimate.vcov)[part.at])
    vague = error > np.abs(beta) / 2
    if not vague.any() or not _nearly_certain(m):  # no predictor moves the odds, or a mean, that far
        return
    x = matrix(m.design.fixed, m.layout.n)
    reach = np.abs(beta) * np.ptp(x, axis=0)
    for j in np.flatnonzero(vague & (reach > LARGE)).tolist():
        if abs(beta[j]) * _step(x[:, j]) <= LARGE:
            continue
        text = (
            f"{part.names[j]}: estimate {beta[j]:.3g}, standard error {error[j]:.3g}: a Wald test says little here "
            f"(Hauck & Donner 1977); compare log-likelihoods of fits with and without it"
        )
        yield Message("hauck_donner", text, {"column": part.names[j], "estimate": float(beta[j])})


def _nearly_certain(m: Fit) -> bool:
    """Whether some rows are nearly certain: of one of two outcomes, a category, or no count."""
    family = m.distribution
    if family.custom is not None:
        return False
    if family.entry.ordinal:
        return bool(np.asarray(m.predict(type="probs")).max() > 1 - NEARLY)
    if family.entry.support == "count":
        return link_of(m.link).zero != 0 and float(np.ravel(m.predict(type="mean")).min()) < NEARLY
    mu = m.fitted() if family.entry.support == "binomial" else np.full(1, 0.5)
    return bool(mu.min() <= NEARLY or mu.max() >= 1 - NEARLY)


def _step(column: Array) -> float:
    """Return the usual change of a predictor: from one value to the other, or a standard deviation."""
    return float(np.ptp(column) if len(np.unique(column)) == 2 else np.std(column))


def dispersion(m: Fit) -> Iterator[Message]:
    """P31, P33: Pearson's chi-square far from its degrees of freedom, where the counts are large enough to tell."""
    if m.design is None or m.family not in ALTERNATIVES or m.distribution.zero_inflation or row_effect(m):
        return
    if m.method == "pql" or not telling(m):
        return
    chi2, df = pearson_chisq(m)
    if df <= 0:  # a saturated model
        return
    above = upper_tail(chi2, df)
    ratio, evidence = chi2 / df, {"chi2": chi2, "df": df}
    if ratio > 1.5 and above < SURE:
        text = f"overdispersed: Pearson chi-square / df = {ratio:.3g}, so standard errors are too small"
        yield Message("overdispersion", f"{text}; try {ALTERNATIVES[m.family]}", {**evidence, "p": above})
    if underdispersed(m, chi2, df, 0.5):
        text = f"underdispersed: Pearson chi-square / df = {ratio:.3g}, so standard errors are too large"
        text = text if m.distribution.counts else f"{text}; try 'compois'"
        yield Message("underdispersion", text, evidence)


def two_dispersions(m: Fit) -> Iterator[Message]:
    """P34: a random effect for every row beside a family that has a dispersion."""
    own = not m.task.linear and "dispersion" in m.distribution.parameters and "dispersion" not in held(m)
    if own and row_effect(m):
        text = f"a random effect for every row and the dispersion of {m.family} model the same variation: drop one"
        yield Message("two_dispersions", text, {})


def covariance_heavy(m: Fit) -> Iterator[Message]:
    """P13, P14: more covariance parameters than levels to estimate them from."""
    for t in m.layout.terms:
        k = len(t.names)
        count = k * (k + 1) // 2
        if t.structure == "us" and k > 2 and count > len(t.levels):
            text = (
                f"({', '.join(t.names[:3])}{', …' if k > 3 else ''} | {t.label}) has {count} covariance parameters and "
                f"{len(t.levels)} levels to estimate them from: simplify it, or write ||"
            )
            yield Message("covariance_heavy", text, {"group": t.label, "parameters": count, "levels": len(t.levels)})


def unstable_link(m: Fit) -> Iterator[Message]:
    """P43: Gamma with the inverse link."""
    if m.distribution.entry.name == "gamma" and m.link == "inverse":
        yield Message(
            "unstable_link", "the inverse link of a Gamma model is unstable: means can turn negative; try 'log'", {}
        )


def no_extra_zeros(m: Fit) -> Iterator[Message]:
    """P12: a probability of extra zeros that went to 0."""
    part = next((c for c in m.layout.components if c.name == "zero_inflation"), None)
    if part is None or part.names != ("(Intercept)",):
        return
    eta = float(m.estimate.beta[part.first])
    if eta < -LARGE:
        text = (
            f"the probability of extra zeros is estimated {np.exp(eta):.2g}: without zero_inflation= the fit is as good"
        )
        yield Message("no_extra_zeros", text, {"probability": float(np.exp(eta))})


def improper_density(m: Fit) -> Iterator[Message]:
    """Probabilities that do not sum to 1: of a user's family, or an underdispersed generalised Poisson model.

    The support of the latter ends early. Consul & Famoye (1992, Communications in Statistics 21, 89-109) on this error,
    small for all but small means.
    """
    if m.distribution.custom is not None:
        yield from _improper_of_custom(m)
    if m.distribution.entry.name != "genpois":
        return
    phi = np.ravel(m.predict(type="dispersion"))
    mu = m.predict(type="mean")
    low = phi < 1
    if not low.any():
        return
    rows = np.flatnonzero(low)[np.argsort(np.ravel(mu)[low])]
    rows = rows[np.linspace(0, len(rows) - 1, 5).astype(int)]
    sums = np.array([_genpois_sum(float(np.ravel(mu)[i]), float(phi[i])) for i in rows])
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > DEFECT:
        text = (
            f"at mean {np.ravel(mu)[rows[worst]]:.3g} and dispersion {phi[rows[worst]]:.3g} genpois's probabilities "
            f"sum to {sums[worst]:.3g}, not 1: this log-likelihood cannot be compared with another; try 'compois'"
        )
        yield Message("improper_density", text, {"sum": float(sums[worst])})


def _improper_of_custom(m: Fit) -> Iterator[Message]:
    total = worst_sum(m)
    if total is None or abs(total - 1) <= DEFECT:
        return
    text = (
        f"the probabilities of {m.family} sum to {total:.3g} at the estimates, not 1: log_density lacks a constant, or "
        f"loses its digits there (differences of gammaln of large numbers do); this is no log-likelihood, and AIC and "
        f"tests mean nothing"
    )
    yield Message("improper_density", text, {"sum": total})


def _genpois_sum(mu: float, phi: float) -> float:
    from scipy.special import gammaln

    theta, rate = mu / np.sqrt(phi), 1 - 1 / np.sqrt(phi)
    y = np.arange(np.ceil(-theta / rate))
    log = np.log(theta) + (y - 1) * np.log(theta + rate * y) - theta - rate * y - gammaln(y + 1)
    return float(np.exp(log).sum())


def quasi_likelihood(m: Fit) -> Iterator[Message]:
    """P34, P36: penalised quasi-likelihood is no likelihood, and biased where the normal approximation is poor."""
    if m.method != "pql":
        return
    text = "penalised quasi-likelihood is no likelihood: loglik, AIC and BIC are NaN, fits cannot be compared by them"
    yield Message("no_likelihood", f"{text}; method='ml' has one", {})
    if (why := _poorly_normal(m)) is not None:
        text = f"PQL is biased towards 0 where {why[0]} (Breslow & Lin 1995): use Laplace's approximation or quadrature"
        yield Message("pql_bias", text, why[1])
    yield from illegal_means(m)
    if row_effect(m):
        yield Message("pql_row_effect", "a random effect for every row is doubtful under PQL: use method='ml'", {})


def illegal_means(m: Fit) -> Iterator[Message]:
    """P44: means that quasi-likelihood took out of their range, whose rows it gave next to no weight."""
    found = loose(m.distribution.entry.parameters[0].range, m.link)
    if m.method != "pql" or found is None or m.design is None:
        return
    rows = fitted_design(m, "illegal_means")
    mu = np.asarray(link_of(m.link).inverse(linear_predictor(m, rows, [True] * len(rows.terms))))
    low, high = found.ends
    if (count := int(np.count_nonzero(~((mu > low) & (mu < high))))) > 0:
        text = (
            f"{count} of {m.nobs} means left the range of {m.family} ({low:g} to {high:g}) under link={m.link!r}: PQL "
            f"gives such rows next to no weight, so that these estimates leave them out; link={found.safe!r} keeps "
            f"means in their range"
        )
        yield Message("illegal_means", text, {"rows": count})


def approximate_reml(m: Fit) -> Iterator[Message]:
    """P23: restricted likelihood where it is no density of error contrasts."""
    if m.method == "reml" and not m.task.linear and not m.distribution.is_gaussian_identity:
        text = (
            "REML of a generalised model integrates the fixed effects out by Laplace's approximation: treat it as "
            "approximate, and do not compare such criteria between different fixed effects"
        )
        yield Message("approximate_reml", text, {})


def pseudo_likelihood(m: Fit) -> Iterator[Message]:
    """Weights of a survey: what the log-likelihood is good for."""
    if not m.call.survey.values:
        return
    text = (
        "with sampling weights the log-likelihood is a pseudo-log-likelihood: differences are not chi-square, AIC and "
        "BIC do not compare models; standard errors are robust ones over "
    )
    top = min((t for t in m.layout.terms), key=lambda t: len(t.levels), default=None)
    count = m.nobs if top is None else len(top.levels)
    yield Message("pseudo_likelihood", f"{text}{count} {'rows' if top is None else top.label!r}", {"clusters": count})


def _poorly_normal(m: Fit) -> tuple[str, dict[str, float]] | None:
    """Return why the working response is far from normal."""
    design = m.design
    if design is None or m.family not in ("binomial", "poisson"):
        return None
    mu = m.fitted()
    size = 1.0 if design.trials is None else design.trials
    expected = float(np.median(mu if m.family == "poisson" else size * np.minimum(mu, 1 - mu)))
    if expected >= ENOUGH:
        return None
    if m.family == "binomial" and design.trials is None:
        return "outcomes are binary", {"expected": expected}
    return f"expected counts are small (median {expected:.2g})", {"expected": expected}


def few_groups(m: Fit) -> Iterator[Message]:
    """P52: normal tests of coefficients that few groups tell about: between groups, or random between them."""
    if is_linear_model(m) or m.method == "pql" or m.design is None:
        return
    found = resting_on(m, FEW_GROUPS)
    if found:
        group = found[0][1]
        names = [term.label for term, g in found if g is group]
        text = (
            f"{', '.join(names)}: p-values are those of z tests, which are too small where {len(group.levels)} "
            f"groups ({group.label}) are all that tells about a coefficient: prefer rf.pb_test, or profile and "
            f"bootstrap intervals"
        )
        yield Message("few_groups", text, {"group": group.label, "levels": len(group.levels), "terms": names})


CHECKS = (
    separation, unsearched, far_estimates, dispersion, two_dispersions,
    covariance_heavy, unstable_link, no_extra_zeros, improper_density, quasi_likelihood, approximate_reml,
    pseudo_likelihood, few_groups,
)  # fmt: skip
