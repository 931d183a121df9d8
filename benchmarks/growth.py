"""How time grows with rows and with groups: `python benchmarks/growth.py [series]`; prints Markdown.

The exponent is that of the processor's time between neighbouring sizes, which other work on the machine disturbs less
than the time on the clock. Only the core is timed: the pass over the rows, all evaluations, the estimate.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

import data
from ranef.engines import Control, linear
from ranef.frame import build

SLOPE, CROSSED = "y ~ x + (1 + x | g)", "y ~ x + (1 | a) + (1 | b)"
ROWS = (62_500, 125_000, 250_000, 500_000, 1_000_000)
FITS = 3  # of each size; the least time counts

Make = Callable[[np.random.Generator, int], pd.DataFrame]


@dataclass(frozen=True)
class Series:
    """Data of growing size for one formula."""

    title: str
    formula: str
    sizes: tuple[int, ...]
    make: Make


SERIES = {
    "rows": Series("rows, 1,000 groups", SLOPE, ROWS, lambda rng, n: data.slope(rng, n, 1_000)),
    "groups": Series(
        "groups, 250,000 rows", SLOPE, (1_000, 4_000, 16_000, 64_000), lambda rng, q: data.slope(rng, 250_000, q)
    ),
    "crossed": Series(
        "rows, crossed 2,000 x 500", CROSSED, ROWS, lambda rng, n: data.crossed(rng, n, 2_000, 500)
    ),
    "levels": Series(
        "levels q x q, 10 q rows", CROSSED, (500, 1_000, 2_000, 4_000), lambda rng, q: data.crossed(rng, 10 * q, q, q)
    ),
}  # fmt: skip


def as_factors(frame: pd.DataFrame) -> pd.DataFrame:
    """Make categoricals of the grouping columns."""
    return frame.assign(**{c: frame[c].astype("category") for c in frame.columns.intersection(["g", "a", "b"])})


def fit_times(formula: str, frame: pd.DataFrame) -> tuple[float, float, int]:
    """Return seconds on the clock, seconds of the processors, and evaluations of one fit."""
    _, design = build(formula, frame)
    wall, cpu = time.perf_counter(), time.process_time()
    found = linear.make_core(design).fit(False, None, Control().options)
    return time.perf_counter() - wall, time.process_time() - cpu, found["evaluations"]


def report(series: Series) -> None:
    """Print one table."""
    rng = np.random.default_rng(7)
    print(f"\n`{series.formula}`: {series.title}\n")
    print("| size | clock | processors | evaluations | exponent |")
    print("|--:|--:|--:|--:|--:|")
    before: tuple[int, float] | None = None
    for size in series.sizes:
        frame = as_factors(series.make(rng, size))
        fits = [fit_times(series.formula, frame) for _ in range(FITS)]
        wall, cpu = min(f[0] for f in fits), min(f[1] for f in fits)
        power = "" if before is None else f"{math.log(cpu / before[1]) / math.log(size / before[0]):.2f}"
        print(f"| {size:,d} | {wall * 1e3:,.1f} ms | {cpu * 1e3:,.1f} ms | {fits[0][2]} | {power} |", flush=True)
        before = size, cpu


def main() -> None:
    """Print the series asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", nargs="*", default=list(SERIES), help=f"some of {', '.join(SERIES)}; default all")
    for name in parser.parse_args().series:
        report(SERIES[name])


if __name__ == "__main__":
    main()
