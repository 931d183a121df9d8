"""The generalised and distributional models of the R packages, and the call of ours that fits each.

`CALLS` holds what a reference's own words do not tell (`family` and formulas are read from the file); `ELSEWHERE` says
which references are not compared here, and why.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import ranef as rf
from golden.reference import TMB, canonical_group

MODELS = Path(__file__).parent / "models"
COMPONENTS = {"cond": "mean", "zi": "zero_inflation", "disp": "dispersion"}
FAMILIES = {
    "cumulative": "cumulative", "compound Poisson (Tweedie)": "tweedie", "negative binomial": "nbinom2",
    "zero-inflated poisson": "poisson", "hurdle poisson": "truncated_poisson", "Student's-t": "student_t",
    "censored normal": "gaussian",
}  # fmt: skip

CALLS: dict[str, dict[str, Any]] = {
    "tmb_cloglog": {"trials": "trials"},
    "tmb_gaussian_weights": {"frequency_weights": "w"},
    "tmb_student_fixed_df": {"nu": 4},
    "clmm_wine_symmetric": {"threshold": "symmetric"},
    "ma_student": {"nu": 4},
    "tmb_map_theta": {"fixed": {"sd(site)": 0.5}},
    "tmb_map_equal": {"equal": [("sd(plate)", "sd(sample)")]},
}
RANDOM = {  # GLMMadaptive keeps random effects outside the formula
    "ma_beta": "(1 | g)", "ma_cbpp": "(1 | herd)", "ma_censored": "(1 | g)", "ma_epil_poisson": "(1 | subject)",
    "ma_gamma": "(1 | g)", "ma_hurdle_poisson": "(1 | g)", "ma_longbin_diag": "(time || id)", "ma_nb": "(1 | id)",
    "ma_student": "(1 | g)", "ma_toenail_int": "(1 | patientID)", "ma_zip": "(1 | id)",
}  # fmt: skip
FORMULAS = {"ma_toenail_int": "outcome ~ treatment * time", "ma_censored": "cens(y_cens, cens) ~ x"}
#: Columns that the R scripts make: a factor whose levels are points.
POINTS = {
    "tmb_cov_ou": ("tnum", ["time"]),
    **dict.fromkeys(["tmb_cov_exp", "tmb_cov_exp_poisson", "tmb_cov_mat"], ("pos", ["xc", "yc"])),
}

ELSEWHERE = {
    "tmb_prior": "its logLik has the priors in it: test_priors.py",
    "glmm_cbpp_cloglog": "lme4 takes the expected Hessian where the link is not canonical: tmb_cbpp_cloglog",
    "glmm_probit_binomial": "as glmm_cbpp_cloglog: tmb_probit is the same model",
    "glmm_gamma_log": "lme4's Gamma log-likelihood is not that of the model: tmb_gamma_log is the reference",
    "cplm_fineroot": "cplm approximates the Tweedie density, here by 2e-4: tmb_fineroot is the same model",
    "cplm_sim": "as cplm_fineroot, by 0.05: tmb_tweedie is the same model",
}  # fmt: skip
#: With a residual SD of 1e-4 beside random effects of the rows glmmTMB's determinants and sums of squares cancel, by
#: 1e-6. Here nlme's tight optima of the same models without such effects (gls, lme; scripts/62_exact.R).
UNCANCELLED = {"tmb_cov_us_reml": -593.30124678182, "tmb_cov_homdiag": -695.92064709223}
#: glmmTMB before 1.1.6 models the logarithm of a gaussian's variance, not of its standard deviation.
OF_VARIANCE = ("tmb_cov_mat",)


def names() -> list[str]:
    """Names of the references that are fitted here."""
    found = sorted(p.stem for p in MODELS.glob("*.json"))
    ours = [n for n in found if n.startswith(("glmm_", "tmb_", "clm_", "clmm_", "ma_", "cplm_"))]
    return [n for n in ours if n not in ELSEWHERE and n not in TMB]


@cache
def load(name: str) -> dict[str, Any]:
    """Read one reference."""
    return json.loads((MODELS / f"{name}.json").read_text())


def call(name: str) -> tuple[str, dict[str, Any]]:
    """Return formula and arguments of our call."""
    ref = load(name)
    formula = FORMULAS.get(name, ref["formula"])
    formula = f"{formula} + {RANDOM[name]}" if name in RANDOM else formula
    arguments: dict[str, Any] = {"family": FAMILIES.get(ref["family"], ref["family"]), "method": "ml"}
    if ref.get("link"):
        arguments["link"] = ref["link"]
    if ref.get("ziformula", ref.get("zi_formula")) not in (None, "~0"):
        arguments["zero_inflation"] = ref.get("ziformula") or ref["zi_formula"]
    if ref.get("dispformula", "~1") != "~1":
        arguments["dispersion"] = ref["dispformula"]
    if ref["method"].startswith("REML"):
        arguments["method"] = "reml"
    if "matrix_data" in ref:
        table = rf.datasets.load(ref["matrix_data"]).set_index("species")
        arguments["env"] = {"phyloA": table}
    nodes = ref.get("nAGQ", 1)
    return formula, {**arguments, **({} if nodes == 1 else {"quadrature": nodes}), **CALLS.get(name, {})}


def data(name: str) -> Any:
    """Read the data of a reference."""
    frame = rf.datasets.load(load(name)["data"])
    if name not in POINTS:
        return frame
    column, coordinates = POINTS[name]
    labels = [f"({','.join(f'{x:.15g}' for x in row)})" for row in frame[coordinates].to_numpy()]
    return frame.assign(**{column: labels})


@cache
def fit(name: str) -> rf.Fit:
    """Fit a reference model, once a session."""
    formula, arguments = call(name)
    return rf.fit(formula, data(name), **arguments)


def loglik(ref: dict[str, Any]) -> float:
    """The log-likelihood with all constants."""
    return UNCANCELLED.get(ref["id"], ref.get("logLik_full", ref["logLik"]))


def slack(ref: dict[str, Any]) -> float:
    """How far R's optimum may be from the true one, by R's own account."""
    return max(ref.get("optimum_gap") or 0.0, abs((ref.get("optimum_check") or {}).get("gap") or 0.0))


def coefficients(ref: dict[str, Any], what: str) -> dict[tuple[str, str], float]:
    """`"estimate"` or `"se"` by (component, term)."""
    thresholds = set(ref.get("thresholds") or [r["term"] for r in ref["fixef"] if "|" in r["term"]])
    half = {"disp": 0.5} if ref["id"] in OF_VARIANCE else {}
    return {
        ("threshold" if row["term"] in thresholds else COMPONENTS[row["component"]], row["term"]): row[what]
        * half.get(row["component"], 1.0)
        for row in ref["fixef"]
        if row.get(what) is not None and not (row["component"] == "disp" and ref.get("dispformula") == "~0")
    }


def spreads(ref: dict[str, Any]) -> dict[tuple[str, str, str], float]:
    """Standard deviations of random effects by (component, group, term)."""
    return {
        (COMPONENTS[v.get("component", "cond")], canonical_group(v["group"]), term): sd
        for v in filter(None, ref.get("varcorr") or ())
        for term, sd in zip(v["terms"] or (), v["sd"] or (), strict=True)
    }


def modes(ref: dict[str, Any]) -> dict[tuple[str, str, str, str], float]:
    """Conditional modes of the first levels by (component, group, level, term)."""
    out = {}
    for key, block in (ref.get("ranef") or {}).items():
        component, group = key.split(":", 1) if key.split(":")[0] in COMPONENTS else ("cond", key)
        for level, row in zip(block["levels"] or (), block["estimate"] or (), strict=True):
            for term, value in zip(block["terms"], row, strict=True):
                out[COMPONENTS[component], group, level, term] = value
    return out
