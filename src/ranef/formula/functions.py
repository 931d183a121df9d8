"""The functions that a formula may call without `env=`: names only; what they compute is in `ranef.frame.transforms`.

A formula may come from a stranger (a service, the command line). Text never reaches `eval`: a call is read into a
syntax tree, every node of it is checked against this table, and the frame walks the tree itself. To add a function,
add its name here and its implementation to the table of the same kind in `ranef.frame.transforms`; a test compares the
two.
"""

from __future__ import annotations

# value of row i depends on row i alone; the same name is also accepted as np.name and numpy.name
ELEMENTWISE = frozenset(
    {
        "abs", "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin",
        "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "ceiling", "cos", "cosh", "cospi", "exp", "exp2", "expm1",
        "floor", "ifelse", "log", "log10", "log1p", "log2", "maximum", "minimum", "plogis", "pmax", "pmin", "pnorm",
        "power", "qlogis", "qnorm", "rint", "round", "sign", "sin", "sinh", "sinpi", "sqrt", "square", "tan", "tanh",
        "trunc", "where",
    }
)  # fmt: skip
# identities and conversions; trunc() with bounds is a truncated response
SHAPE = frozenset(
    {
        "I", "Surv", "as.character", "as.integer", "as.logical", "as.numeric", "c", "cbind", "cens", "dummy", "se",
        "seq", "trunc",
    }
)  # fmt: skip
# numeric columns whose knots, means … are remembered from the fitted data
STATEFUL = frozenset(
    {
        "bs", "cc", "center", "cr", "max", "mean", "median", "min", "ns", "poly", "scale", "sd", "squeeze",
        "standardize", "sum",
    }
)  # fmt: skip
# factors
CATEGORICAL = frozenset(
    {
        "C", "as.factor", "as.ordered", "byNumber", "cut", "droplevels", "factor", "interaction", "numFactor",
        "ordered", "relevel",
    }
)  # fmt: skip
# the codings that may stand in C(x, …)
CODINGS = {
    "treatment": "treatment", "contr.treatment": "treatment", "contr_treatment": "treatment", "Treatment": "treatment",
    "dummy": "treatment", "sum": "sum", "contr.sum": "sum", "Sum": "sum", "helmert": "helmert",
    "contr.helmert": "helmert", "Helmert": "helmert", "poly": "poly", "polynomial": "poly", "contr.poly": "poly",
    "Poly": "poly", "SAS": "sas", "sas": "sas", "contr.SAS": "sas",
    "sdif": "sdif", "contr.sdif": "sdif", "Diff": "sdif",
}  # fmt: skip
CODING_CALLS = frozenset({name for name in CODINGS if name.startswith("contr.")} | {"Treatment"})

FUNCTIONS = ELEMENTWISE | SHAPE | STATEFUL | CATEGORICAL | CODING_CALLS
CONSTANTS = {"pi": 3.141592653589793, "Inf": float("inf"), "T": True, "F": False}  # a column of this name goes first

_SMOOTH = "smooths are not here; splines are: bs(x, df=4), ns(x, df=4), cr(x, df=4)"
_SERIAL = "write a structure, such as ar1(times + 0 | g)"
_PLAIN_BAR = "write (1 | g)"
#: What formulas of other packages call, and what to write here.
FOREIGN = {
    "trials": "write k / n ~ … and trials='n' in the call of fit, or cbind(k, n - k) ~ …",
    "weights": "they are an argument of fit: precision_weights=, frequency_weights= or sampling_weights=",
    "rate": "write + offset(log(time)) on the right",
    **dict.fromkeys(("s", "te", "ti", "t2", "gp", "lo", "pb"), _SMOOTH),
    **dict.fromkeys(("ar", "ma", "arma", "corAR1", "car"), _SERIAL),
    **dict.fromkeys(("re", "random", "Error", "ranef", "frailty"), _PLAIN_BAR),
    "gr": "write (1 | g); covariances between the levels of g are given by cov={'g': K}",
    "mm": "rows that belong to several levels of one factor are not here",
    "mo": "write ordered(x), whose contrasts are polynomials",
    "mi": "rows with missing values are left out",
    "strata": "write a fixed factor, or (1 | g)",
    "cluster": "robust standard errors come after the fit: rf.robust(m, cluster='g')",
}

# names of covariance structures that may wrap a bar, diag(1 + x | g); what they mean is not this floor's business
PLAIN = ("us", "diag")  # every standard deviation, and every correlation, is a parameter
PATTERNED = (
    "homdiag", "cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ou", "exp", "gau", "mat", "rr", "propto", "equalto",
)  # fmt: skip
STRUCTURES = frozenset((*PLAIN, *PATTERNED))
STRUCTURE_ALIASES = {"id": "homdiag"}  # other spellings
