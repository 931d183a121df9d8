"""Read the reference results and lay ours beside them in one shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import ranef as rf

MODELS = Path(__file__).parent / "models"

# nlme keeps random effects outside the formula and has its own words for them: the same models in one formula.
FORMULAS = {
    "nlme_bodyweight": "weight ~ Time * Diet + (Time | Rat)",
    "nlme_machines_nested": "score ~ Machine + (1 | Worker/Machine)",
    "nlme_machines_us": "score ~ Machine + (0 + Machine | Worker)",
    "nlme_oats_nested": "yield ~ ordered(nitro) * Variety + (1 | Block/Variety)",
    "nlme_orthodont_int": "distance ~ age * Sex + (1 | Subject)",
    "nlme_orthodont_slope_ml": "distance ~ age * Sex + (age | Subject)",
    "nlme_ovary_diag": "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time) + (sin(2 * pi * Time) || Mare)",
    "nlme_pixel": "pixel ~ day + I(day^2) + (day | Dog) + (1 | Dog:Side)",
    "nlme_wafer_diag": "current ~ voltage + I(voltage^2) + (voltage || Wafer) + (voltage || Wafer:Site)",
    "tmb_sleep_diag_ml": "Reaction ~ Days + (Days || Subject)",
}
TMB = ("tmb_rankdef", "tmb_sleep_diag_ml", "tmb_sleep_reml")  # glmmTMB's linear models; the others are in glmm.py
# nlme names a nested factor by its last part: the parts it is nested in.
NESTED = {
    "nlme_machines_nested": {"Machine": "Worker:Machine"},
    "nlme_oats_nested": {"Variety": "Block:Variety"},
    "nlme_pixel": {"Side": "Dog:Side"},
    "nlme_wafer_diag": {"Site": "Wafer:Site"},
}


@dataclass(frozen=True)
class Reference:
    """One reference model: what was fitted and what came out."""

    id: str
    raw: dict[str, Any]

    @property
    def formula(self) -> str:
        """The model in one formula."""
        return FORMULAS.get(self.id, self.raw["formula"])

    @property
    def method(self) -> str:
        """`"reml"` or `"ml"`."""
        return "reml" if self.raw["method"].startswith("REML") else "ml"

    @property
    def criterion(self) -> float:
        """The REML criterion or -2 log-likelihood, whatever the package calls its objective."""
        return self.raw["objective"] if self.raw["package"] == "lme4" else -2 * self.raw["logLik"]

    @property
    def slack(self) -> float:
        """How far (in -2 log-likelihood) R's own optimum may be from the true one, by R's own account."""
        checked = self.raw.get("optimum_check") or {}
        return 2 * max(self.raw.get("optimum_gap") or 0.0, abs(checked.get("gap") or 0.0))

    @property
    def fixef(self) -> dict[str, float]:
        """Fixed effects by name."""
        return {row["term"]: row["estimate"] for row in self._fixef}

    @property
    def se(self) -> dict[str, float]:
        """Standard errors by name: the root of the diagonal of vcov where the file has it, else `se`.

        nlme prints ML standard errors multiplied by sqrt(n / (n - p)); its vcov is everybody else's.
        """
        if "vcov" in self.raw:
            diagonal = np.sqrt(np.diag(np.array(self.raw["vcov"]["matrix"], dtype=float)))
            return dict(zip(self.raw["vcov"]["terms"], diagonal.tolist(), strict=True))
        return {row["term"]: row["se"] for row in self._fixef}

    @property
    def _fixef(self) -> list[dict[str, Any]]:
        return [row for row in self.raw["fixef"] if row["component"] == "cond"]

    @property
    def dropped(self) -> list[str]:
        """Fixed effects that are linear combinations of others."""
        return self.raw.get("fixef_dropped", [])

    @property
    def sds(self) -> dict[tuple[str, str], float]:
        """Standard deviations of random effects by (group, term)."""
        return {
            (self._group(v["group"]), term): sd
            for v in self.raw["varcorr"]
            for term, sd in zip(v["terms"], v["sd"], strict=True)
        }

    @property
    def correlations(self) -> dict[tuple[str, str, str], float]:
        """Correlations by (group, term, later term), of correlated terms only."""
        return {
            (self._group(v["group"]), v["terms"][i], v["terms"][j]): v["corr"][i][j]
            for v in self.raw["varcorr"]
            if v.get("structure") not in ("diag", "pdDiag")
            for j in range(len(v["terms"]))
            for i in range(j)
        }

    def random_effects(self, what: str) -> dict[tuple[str, str, str], float]:
        """`"estimate"` or `"condsd"` of the first levels by (group, level, term)."""
        return {
            (self._group(group), self._level(group, level), term): value
            for group, block in self.raw["ranef"].items()
            if what in block
            for level, row in zip(block["levels"], block[what], strict=True)
            for term, value in zip(block["terms"], row, strict=True)
        }

    def _group(self, label: str) -> str:
        return canonical_group(NESTED.get(self.id, {}).get(label, label))

    def _level(self, group: str, level: str) -> str:
        nested = NESTED.get(self.id, {}).get(group)
        return canonical_level(nested, level.replace("/", ":")) if nested else canonical_level(group, level)


def canonical_group(label: str) -> str:
    """`cask:batch` and `batch:cask` are one grouping: parts in alphabetical order."""
    return ":".join(sorted(label.split(":")))


def canonical_level(group: str, level: str) -> str:
    """Reorder the parts of a level's label as `canonical_group` does those of its group."""
    if ":" not in group:
        return level
    parts = sorted(zip(group.split(":"), level.split(":"), strict=True))
    return ":".join(value for _, value in parts)


@dataclass(frozen=True)
class Ours:
    """Our fit in the same shape, read through the public tables only."""

    fit: Any

    @property
    def fixef(self) -> dict[str, float]:
        """Fixed effects by name."""
        return self._fixed("estimate")

    @property
    def se(self) -> dict[str, float]:
        """Standard errors by name."""
        return self._fixed("std_error")

    def _fixed(self, column: str) -> dict[str, float]:
        table = self.fit.tidy(effects="fixed")
        return dict(zip(table["term"], table[column], strict=True))

    @property
    def sds(self) -> dict[tuple[str, str], float]:
        """Standard deviations of random effects by (group, term)."""
        rows = self._variance_rows("sd__")
        return {(group, term): value for group, term, value in rows if group != "Residual"}

    @property
    def correlations(self) -> dict[tuple[str, str], float]:
        """Correlations by (group, "term.term")."""
        return {(group, term): value for group, term, value in self._variance_rows("cor__")}

    def _variance_rows(self, prefix: str) -> list[tuple[str, str, float]]:
        table = self.fit.tidy(effects="ran_pars")
        rows = zip(table["group"], table["term"], table["estimate"], strict=True)
        return [(canonical_group(g), t.removeprefix(prefix), v) for g, t, v in rows if t.startswith(prefix)]

    def random_effects(self, column: str) -> dict[tuple[str, str, str], float]:
        """A column of the conditional modes' table by (group, level, term)."""
        table = self.fit.tidy(effects="ran_vals")
        rows = zip(table["group"], table["level"], table["term"], table[column], strict=True)
        return {(canonical_group(g), canonical_level(g, str(lv)), t): v for g, lv, t, v in rows}


@cache
def load(name: str) -> Reference:
    """Read one reference file."""
    return Reference(name, json.loads((MODELS / f"{name}.json").read_text()))


def fitted_models() -> list[str]:
    """Names of the references that are fitted models (the others are tests and predictions of such)."""
    names = sorted(path.stem for path in MODELS.glob("*.json"))
    return [name for name in names if name.startswith(("lmm_", "nlme_")) or name in TMB]


@cache
def fit(name: str) -> Ours:
    """Fit a reference model, once a session."""
    ref = load(name)
    frame = rf.datasets.load(ref.raw["data"])
    return Ours(
        rf.fit(
            ref.formula,
            frame,
            method=ref.method,
            precision_weights=ref.raw.get("weights_column"),
            offset=ref.raw.get("offset_column"),
        )
    )
