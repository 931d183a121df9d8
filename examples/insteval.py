"""Which lecturers do students rate high or low? 73,421 ratings of 1,128 lecturers (InstEval)."""

from __future__ import annotations

import argparse
import time

import ranef as rf

FORMULA = "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)"


def main() -> None:
    """Fit, print, and draw the lecturers' effects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", metavar="FILE", help="where to save the picture of the lecturers' effects")
    options = parser.parse_args()

    ratings = rf.datasets.load("InstEval")
    start = time.perf_counter()
    m = rf.fit(FORMULA, ratings)
    seconds = time.perf_counter() - start
    print(m)
    print(f"{m.nobs:,} rows, {seconds:.2f} s with formula and data frame, {m.certificate.evaluations} factorisations")

    if options.plot:
        axes = rf.plot.caterpillar(m, term="d", max_levels=40)
        axes.figure.savefig(options.plot, dpi=150, bbox_inches="tight")
        print(f"lecturers' effects: {options.plot}")


if __name__ == "__main__":
    main()
