"""ranef: mixed-effects models for Python. `rf.fit("reaction ~ days + (days | subject)", data)` returns a `Fit`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ranef import errors, families
from ranef import priors as prior
from ranef.engines import Certificate, Control, Estimate, LaplaceEstimate
from ranef.errors import ConvergenceWarning, RanefError, RanefWarning, SeparationWarning
from ranef.families import custom_family
from ranef.formula import Formula, parse
from ranef.model import Fit, fit

if TYPE_CHECKING:
    from ranef import datasets, plot
    from ranef.criteria.average import average
    from ranef.criteria.caic import caic
    from ranef.criteria.compare import compare
    from ranef.criteria.heritability import heritability
    from ranef.criteria.icc import icc
    from ranef.criteria.partial_r2 import partial_r2
    from ranef.criteria.r2 import r2
    from ranef.criteria.repeatability import repeatability
    from ranef.criteria.variances import variance_decomposition
    from ranef.criteria.vuong import vuong
    from ranef.diagnose.accuracy import LaplaceCheck, laplace_check
    from ranef.diagnose.dispersion import overdispersion, quasi_table
    from ranef.diagnose.zeros import zeros
    from ranef.frame.pedigree import pedigree
    from ranef.inference.anova import anova
    from ranef.inference.bootstrap import Bootstrap, bootstrap
    from ranef.inference.confint import confint
    from ranef.inference.contrasts import contrast
    from ranef.inference.dropping import add1, drop1
    from ranef.inference.exact import exact_lrt, exact_rlrt
    from ranef.inference.loadings import loadings, scores
    from ranef.inference.many import ManyFits, fit_many
    from ranef.inference.optimizers import all_fit
    from ranef.inference.pb_test import pb_test
    from ranef.inference.permutation import permutation_test
    from ranef.inference.permutation_clusters import cluster_permutation_test
    from ranef.inference.profile import Profile, profile
    from ranef.inference.ranova import ranova
    from ranef.inference.robust.fisher import information
    from ranef.inference.robust.scores import estfun
    from ranef.inference.robust.table import robust
    from ranef.predict.marginal import marginal_coefficients

    __version__: str

LAZY = {
    "add1": "ranef.inference.dropping",
    "all_fit": "ranef.inference.optimizers",
    "anova": "ranef.inference.anova",
    "average": "ranef.criteria.average",
    "bootstrap": "ranef.inference.bootstrap",
    "Bootstrap": "ranef.inference.bootstrap",
    "caic": "ranef.criteria.caic",
    "cluster_permutation_test": "ranef.inference.permutation_clusters",
    "compare": "ranef.criteria.compare",
    "confint": "ranef.inference.confint",
    "contrast": "ranef.inference.contrasts",
    "datasets": "",
    "drop1": "ranef.inference.dropping",
    "estfun": "ranef.inference.robust.scores",
    "exact_lrt": "ranef.inference.exact",
    "exact_rlrt": "ranef.inference.exact",
    "fit_many": "ranef.inference.many",
    "heritability": "ranef.criteria.heritability",
    "icc": "ranef.criteria.icc",
    "information": "ranef.inference.robust.fisher",
    "laplace_check": "ranef.diagnose.accuracy",
    "LaplaceCheck": "ranef.diagnose.accuracy",
    "loadings": "ranef.inference.loadings",
    "ManyFits": "ranef.inference.many",
    "marginal_coefficients": "ranef.predict.marginal",
    "overdispersion": "ranef.diagnose.dispersion",
    "partial_r2": "ranef.criteria.partial_r2",
    "pb_test": "ranef.inference.pb_test",
    "pedigree": "ranef.frame.pedigree",
    "permutation_test": "ranef.inference.permutation",
    "plot": "",
    "profile": "ranef.inference.profile",
    "Profile": "ranef.inference.profile",
    "quasi_table": "ranef.diagnose.dispersion",
    "r2": "ranef.criteria.r2",
    "ranova": "ranef.inference.ranova",
    "repeatability": "ranef.criteria.repeatability",
    "robust": "ranef.inference.robust.table",
    "scores": "ranef.inference.loadings",
    "variance_decomposition": "ranef.criteria.variances",
    "vuong": "ranef.criteria.vuong",
    "zeros": "ranef.diagnose.zeros",
}

#: What other packages call their functions, and what stands for them here.
ELSEWHERE = {
    **dict.fromkeys(("lmer", "Lmer", "lme", "MixedLM", "mixedlm"), "rf.fit(formula, data)"),
    **dict.fromkeys(("glmer", "glmmTMB", "clmm", "clm", "bglmer"), "rf.fit(formula, data, family=…)"),
    **dict.fromkeys(("fixef", "coef"), "m.params, or m.coef() for those of every group"),
    **dict.fromkeys(("ranef", "summary", "tidy", "glance", "augment", "predict", "simulate", "vcov"), "m.NAME()"),
    **dict.fromkeys(("residuals", "fitted", "refit", "update", "varcorr"), "m.NAME()"),
    "VarCorr": "m.varcorr()",
    "allFit": "rf.all_fit(m)",
    "bootMer": "rf.bootstrap(m, statistic)",
    "emmeans": "rf.contrast(m, …) for differences, m.predict(newdata, re='none') for means",
    "isSingular": "bool(m.boundary)",
}
__all__ = [
    "Bootstrap",
    "Certificate",
    "Control",
    "ConvergenceWarning",
    "Estimate",
    "Fit",
    "Formula",
    "LaplaceCheck",
    "LaplaceEstimate",
    "ManyFits",
    "Profile",
    "RanefError",
    "RanefWarning",
    "SeparationWarning",
    "__version__",
    "add1",
    "all_fit",
    "anova",
    "average",
    "bootstrap",
    "caic",
    "cluster_permutation_test",
    "compare",
    "confint",
    "contrast",
    "custom_family",
    "datasets",
    "drop1",
    "errors",
    "estfun",
    "exact_lrt",
    "exact_rlrt",
    "families",
    "fit",
    "fit_many",
    "heritability",
    "icc",
    "information",
    "laplace_check",
    "loadings",
    "marginal_coefficients",
    "overdispersion",
    "parse",
    "partial_r2",
    "pb_test",
    "pedigree",
    "permutation_test",
    "plot",
    "prior",
    "profile",
    "quasi_table",
    "r2",
    "ranova",
    "repeatability",
    "robust",
    "scores",
    "variance_decomposition",
    "vuong",
    "zeros",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("ranef")
    if name not in LAZY:
        hint = f": write {ELSEWHERE[name].replace('NAME', name)}" if name in ELSEWHERE else ""
        raise AttributeError(f"module 'ranef' has no attribute {name!r}{hint}")
    module = import_module(LAZY[name] or f"ranef.{name}")
    return getattr(module, name) if LAZY[name] else module


def __dir__() -> list[str]:
    return sorted(__all__)
