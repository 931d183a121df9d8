"""How time grows with rows and with groups: `python benchmarks/growth.py`. Prints the exponent of each doubling."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

import bench_ranef
import data

SLOPE, CROSSED = "y ~ x + (1 + x | g)", "y ~ x + (1 | a) + (1 | b)"


def as_factors(frame: pd.DataFrame) -> pd.DataFrame:
    """Make categoricals of the grouping columns."""
    return frame.assign(**{c: frame[c].astype("category") for c in frame.columns.intersection(["g", "a", "b"])})


def series(title: str, formula: str, sizes: list[int], frames: list[pd.DataFrame]) -> None:
    """Print core times over sizes, with the exponent between neighbours."""
    print(f"\n{title}: {formula}")
    before: tuple[int, float] | None = None
    for size, frame in zip(sizes, frames, strict=True):
        t = min(bench_ranef.core_times(formula, as_factors(frame), False)["t_core"] for _ in range(3))
        power = "" if before is None else f"  exponent {math.log(t / before[1]) / math.log(size / before[0]):5.2f}"
        print(f"{size:>10,d}  {t * 1e3:10.2f} ms{power}")
        before = size, t


def main() -> None:
    """Print the four series."""
    rng = np.random.default_rng(7)
    rows = [62_500, 125_000, 250_000, 500_000, 1_000_000]
    series("rows, 1,000 groups", SLOPE, rows, [data.slope(rng, n, 1_000) for n in rows])
    groups = [1_000, 4_000, 16_000, 64_000]
    series("groups, 250,000 rows", SLOPE, groups, [data.slope(rng, 250_000, q) for q in groups])
    series("rows, crossed 2,000 x 500", CROSSED, rows, [data.crossed(rng, n, 2_000, 500) for n in rows])
    levels = [500, 1_000, 2_000, 4_000]
    series("levels q x q, 40,000 rows", CROSSED, levels, [data.crossed(rng, 40_000, q, q) for q in levels])


if __name__ == "__main__":
    main()
