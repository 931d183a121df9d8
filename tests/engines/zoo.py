"""Small designs of every kind that the linear engine knows, and the data they are fitted to."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from ranef.engines.linear import sources, term_sources
from ranef.frame import Design, build

FORMULAS = {
    "intercept": "y ~ x + (1 | g)",
    "slope": "y ~ x + (x | g)",
    "slope_only": "y ~ x + (0 + x | g)",
    "independent": "y ~ x + (x || g)",
    "two_terms_one_group": "y ~ x + (1 | g) + (0 + z | g)",
    "nested": "y ~ x + (1 | a/b)",
    "crossed": "y ~ x + f + (1 | g) + (1 | h)",
    "crossed_slopes": "y ~ x + (x | g) + (1 + z | h)",
    "three_columns": "y ~ x + z + (x + z | g)",
    "factor_slope": "y ~ f + (0 + f | g)",
    "interaction": "y ~ f * x + (1 | g)",
    "rank_deficient": "y ~ x + I(2 * x) + f + (1 | g)",
    "no_random": "y ~ x + f",
    "offset": "y ~ x + offset(z) + (1 | g)",
    "no_fixed": "y ~ 0 + (1 | g)",
}
WEIGHTED = ("intercept", "slope", "crossed", "rank_deficient", "no_random")
CASES = [(name, False) for name in FORMULAS] + [(name, True) for name in WEIGHTED]


@cache
def data(n: int = 60, seed: int = 1) -> pd.DataFrame:
    """Unbalanced rows with effects of every factor, so that no covariance is singular by accident of the design."""
    rng = np.random.default_rng(seed)
    g, h, a, b = rng.integers(0, 8, n), rng.integers(0, 6, n), rng.integers(0, 5, n), rng.integers(0, 3, n)
    x, z, f = rng.normal(size=n), rng.normal(size=n), rng.integers(0, 3, n)
    effects = {k: rng.normal(size=size) for k, size in (("g", 8), ("gx", 8), ("gz", 8), ("h", 6), ("a", 5), ("ab", 15))}
    y = 2 + x + effects["g"][g] + effects["gx"][g] * x + effects["gz"][g] * z + effects["h"][h] + 0.7 * (f == 1)
    y = y + effects["a"][a] + effects["ab"][3 * a + b] + rng.normal(size=n)
    frame = {"y": y, "x": x, "z": z, "w": rng.uniform(0.5, 2, n)}
    labels = {"g": g, "h": h, "a": a, "b": b, "f": f}
    return pd.DataFrame({**frame, **{k: [f"{k}{v}" for v in codes] for k, codes in labels.items()}})


@cache
def design(name: str, weighted: bool) -> Design:
    """The design of one case."""
    return build(FORMULAS[name], data(), weights="w" if weighted else None)[1]


def arguments(d: Design) -> tuple:
    """What both engines are made from."""
    return sources(d.fixed), term_sources(d.terms), d.y, d.weights, d.offset, 0
