"""Time inference beside lme4, clubSandwich and RLRsim: `python inference.py [--repetitions 5] [--rscript Rscript]`.

Prints a table: processor seconds of ranef (median, all threads together), of the peer (once, by `peers/inference_*.R`),
and their ratio. lme4's bootstrap is timed on fewer replicates and scaled; the clusters of the last task are drawn by
each program for itself, of the same sizes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ranef as rf

HERE = Path(__file__).parent
SLEEP, CBPP = "Reaction ~ Days + (Days | Subject)", "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def tasks() -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    sleep = rf.fit(SLEEP, rf.datasets.load("sleepstudy"))
    penicillin = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    cbpp = rf.fit(CBPP, rf.datasets.load("cbpp"), family="binomial")
    smaller = cbpp.update(". ~ . - period")
    intercept = rf.fit("Reaction ~ Days + (1 | Subject)", rf.datasets.load("sleepstudy"))
    many = rf.fit("y ~ x + f + (x | g)", clusters())
    return {
        "profile sleepstudy": lambda: rf.profile(sleep).confint(),
        "profile penicillin": lambda: rf.profile(penicillin).confint(),
        "profile cbpp": lambda: rf.profile(cbpp).confint(),
        "bootstrap sleepstudy 10000": lambda: rf.bootstrap(sleep, n=10_000, seed=1).confint(),
        "bootstrap cbpp 1000": lambda: rf.bootstrap(cbpp, n=1000, seed=1).confint(),
        "bootstrap test cbpp 1000": lambda: rf.pb_test(cbpp, smaller, n=1000, seed=1),
        "exact RLRT sleepstudy": lambda: rf.exact_rlrt(intercept, seed=1),
        "CR2 sleepstudy": lambda: rf.robust(replace(sleep), "CR2"),
        "CR2 300 clusters of 20": lambda: rf.robust(replace(many), "CR2"),
    }


def clusters() -> pd.DataFrame:
    """Return 300 clusters of 20 rows with a random slope and a factor of four levels."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(300), 20)
    x, f = rng.normal(size=6000), rng.integers(0, 4, 6000)
    y = x + rng.normal(size=300)[g] + rng.normal(size=300)[g] * x + rng.normal(size=6000)
    return pd.DataFrame({"y": y, "x": x, "f": [f"f{k}" for k in f], "g": g.astype(str)})


def median(task: Callable[[], Any], repetitions: int) -> float:
    """Seconds of the median repetition, after one that does not count; long tasks run once."""
    first = timed(task)
    return first if first > 5 else statistics.median(timed(task) for _ in range(repetitions))


def timed(task: Callable[[], Any]) -> float:
    """Processor seconds of one call, all threads together."""
    start = time.process_time()
    task()
    return time.process_time() - start


def peers(rscript: str) -> dict[str, float]:
    """Processor seconds of the peers; empty without R, without those whose package is not there."""
    found: dict[str, float] = {}
    for script in sorted((HERE / "peers").glob("inference_*.R")) if shutil.which(rscript) else []:
        done = subprocess.run([rscript, str(script)], capture_output=True, text=True, check=False)
        found |= json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}
    return found


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--rscript", default="Rscript")
    asked = options.parse_args()
    theirs = peers(asked.rscript)
    print(f"{'task':<28}{'ranef, s':>12}{'peer, s':>12}{'ratio':>9}")
    for name, task in tasks().items():
        ours = median(task, asked.repetitions)
        other = theirs.get(name)
        rest = f"{other:>12.3f}{other / ours:>9.0f}" if other else f"{'-':>12}{'-':>9}"
        print(f"{name:<28}{ours:>12.4f}{rest}", flush=True)


if __name__ == "__main__":
    main()
