"""The table of families for a core that has none yet."""

from __future__ import annotations

from typing import Any

POSITIVE = ["log", "identity", "inverse", "sqrt", "softplus"]
UNIT = ["logit", "probit", "cloglog", "loglog", "cauchit", "log", "identity"]
ANY = ["identity", "log", "inverse", "sqrt", "softplus", "logit"]
LOG = ("dispersion", "log", ["log", "identity", "sqrt", "softplus"])


def _row(name: str, aliases: str, support: str, mean: Any, *others: Any, **more: Any) -> dict[str, Any]:
    link, links = mean
    return {
        "name": name,
        "aliases": aliases.split(),
        "parameters": [("mean", link, links), *others],
        "support": support,
        "discrete": support in ("count", "binomial", "ordinal"),
        "ordinal": support == "ordinal",
        "truncated": more.get("truncated", False),
        "dispersion": more.get("dispersion", ""),
    }


def rows() -> list[dict[str, Any]]:
    """Return the records."""
    return [
        _row("gaussian", "normal Gaussian", "real", ("identity", ANY), LOG, dispersion="residual standard deviation"),
        _row("poisson", "Poisson", "count", ("log", POSITIVE), truncated=True),
        _row("binomial", "bernoulli Bernoulli", "binomial", ("logit", UNIT)),
        _row("nbinom1", "nb1", "count", ("log", POSITIVE), LOG, truncated=True, dispersion="variance mu (1 + phi)"),
        _row("nbinom2", "negative.binomial negbinomial negbin nb2 nbinom negative_binomial", "count", ("log", POSITIVE),
             LOG, truncated=True, dispersion="size k: variance mu + mu^2 / k"),
        _row("gamma", "Gamma", "positive", ("log", POSITIVE), LOG, dispersion="coefficient of variation"),
        _row("beta", "beta_family Beta", "unit", ("logit", UNIT), LOG, dispersion="variance mu (1 - mu) / (1 + phi)"),
        _row("betabinomial", "beta_binomial", "binomial", ("logit", UNIT), LOG,
             dispersion="phi: intraclass correlation 1 / (1 + phi)"),
        _row("student_t", "t t_family student", "real", ("identity", ANY), LOG, ("nu", "log", ["log", "identity"]),
             dispersion="scale"),
        _row("lognormal", "log_normal", "positive", ("log", POSITIVE), LOG, dispersion="SD of the response"),
        _row("cumulative", "clmm clm ordinal", "ordinal", ("logit", UNIT[:5]),
             ("threshold_low", "identity", ["identity"]), ("threshold_high", "identity", ["identity"])),
    ]  # fmt: skip
