"""Data with factors of many levels, which some tests count as very many."""

from __future__ import annotations

import numpy as np
import pandas as pd

TIGHT = {"tolerance": 1e-13}  # the search then ends where rounding lets it


def people(n: int = 500, firms: int = 40, workers: int = 30, seed: int = 0) -> pd.DataFrame:
    """Rows of workers in firms, the response far from zero and in steep dependence on the year."""
    rng = np.random.default_rng(seed)
    firm, worker = rng.integers(0, firms, n), rng.integers(0, workers, n)
    x, year, slopes = rng.normal(size=n), rng.integers(2000, 2010, n), rng.normal(size=(workers, 2))
    mean = 1e3 + 2 * rng.normal(size=firms)[firm] + 0.1 * (year - 2005) + slopes[worker, 0] + slopes[worker, 1] * x / 2
    return pd.DataFrame(
        {
            "y": mean + rng.normal(size=n),
            "firm": [f"f{i:03d}" for i in firm],
            "worker": [f"w{i:03d}" for i in worker],
            "year": year.astype(float),
            "x": x,
            "size": rng.normal(size=firms)[firm],
            "g": [f"g{i}" for i in rng.integers(0, 4, n)],
            "w": rng.uniform(0.5, 2, n),
            "o": rng.normal(size=n),
        }
    )


def islands(count: int = 4, seed: int = 2) -> pd.DataFrame:
    """Workers and firms of several regions among which nobody moves."""
    rng = np.random.default_rng(seed)
    n = 400
    region = rng.integers(0, count, n)
    worker, firm = region + count * rng.integers(0, 6, n), region + count * rng.integers(0, 5, n)
    x = rng.normal(size=n)
    y = rng.normal(size=count * 5)[firm] + rng.normal(size=count * 6)[worker] + x + rng.normal(size=n)
    return pd.DataFrame(
        {"y": y, "x": x, "worker": [f"w{i:02d}" for i in worker], "firm": [f"f{i:02d}" for i in firm],
         "g": rng.integers(0, 3, n)}
    )  # fmt: skip
