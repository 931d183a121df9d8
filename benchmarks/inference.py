"""Time profiles and bootstraps beside lme4's: `python inference.py [--repetitions 5] [--rscript Rscript]`.

Prints a table: seconds of ranef (median), seconds of lme4 (once, by `peers/inference_lme4.R`), their ratio. lme4's
bootstrap is timed on fewer replicates and scaled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ranef as rf

HERE = Path(__file__).parent
SLEEP, CBPP = "Reaction ~ Days + (Days | Subject)", "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def tasks() -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    sleep = rf.fit(SLEEP, rf.datasets.load("sleepstudy"))
    penicillin = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.datasets.load("Penicillin"))
    cbpp = rf.fit(CBPP, rf.datasets.load("cbpp"), family="binomial")
    return {
        "profile sleepstudy": lambda: rf.profile(sleep).confint(),
        "profile penicillin": lambda: rf.profile(penicillin).confint(),
        "profile cbpp": lambda: rf.profile(cbpp).confint(),
        "bootstrap sleepstudy 10000": lambda: rf.bootstrap(sleep, n=10_000, seed=1).confint(),
        "bootstrap cbpp 1000": lambda: rf.bootstrap(cbpp, n=1000, seed=1).confint(),
    }


def median(task: Callable[[], Any], repetitions: int) -> float:
    """Seconds of the median repetition, after one that does not count; long tasks run once."""
    first = timed(task)
    return first if first > 5 else statistics.median(timed(task) for _ in range(repetitions))


def timed(task: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def peers(rscript: str) -> dict[str, float]:
    """Seconds of lme4; empty without R."""
    if shutil.which(rscript) is None:
        return {}
    script = HERE / "peers" / "inference_lme4.R"
    done = subprocess.run([rscript, str(script)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--rscript", default="Rscript")
    asked = options.parse_args()
    theirs = peers(asked.rscript)
    print(f"{'task':<28}{'ranef, s':>12}{'lme4, s':>12}{'ratio':>9}")
    for name, task in tasks().items():
        ours = median(task, asked.repetitions)
        other = theirs.get(name)
        rest = f"{other:>12.3f}{other / ours:>9.0f}" if other else f"{'-':>12}{'-':>9}"
        print(f"{name:<28}{ours:>12.4f}{rest}", flush=True)


if __name__ == "__main__":
    main()
