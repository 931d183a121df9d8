"""Time inference beside R's packages: `python inference.py [--repetitions 5] [--rscript Rscript]`.

Prints a table: processor seconds of ranef (median, all threads together), of the peer (`peers/inference_*.R`: lme4,
clubSandwich, RLRsim, lmerTest and pbkrtest), and their ratio. lme4's bootstrap is timed on fewer replicates and scaled;
the 300 clusters are drawn by each program for itself, of the same sizes; what a fit remembers is forgotten before it is
asked again.
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
from tempfile import TemporaryDirectory
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


def small_samples(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return tests with few degrees of freedom, by name; data that peers read are written to the folder."""
    rng = np.random.default_rng(1)
    frames = {"crossed": crossed(rng, 2_000, 50, 40), "nested": crossed(rng, 10_000, 200, 10)}
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    fits = {
        "sleepstudy": rf.fit(SLEEP, rf.datasets.load("sleepstudy")),
        "crossed 2000": rf.fit("y ~ x + f + (1 | a) + (1 | b)", frames["crossed"]),
        "nested 10000": rf.fit("y ~ x + f + (x | a)", frames["nested"]),
        "nested 1000000": rf.fit("y ~ x + f + (x | a)", crossed(rng, 1_000_000, 20_000, 10)),
    }
    out: dict[str, Callable[[], Any]] = {}
    for name, m in fits.items():
        out[f"satterthwaite {name}"] = lambda m=m: replace(m).tidy(ddf="satterthwaite")
        out[f"kr covariance {name}"] = lambda m=m: replace(m).vcov(kind="kenward-roger")
        last = "Days" if name == "sleepstudy" else "f"
        out[f"kr test {name}"] = lambda m=m, last=last: rf.drop1(replace(m), last, test="F", ddf="kenward-roger")
    return out


def lopsided(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return exact tests in unbalanced layouts, by name; data that peers read are written to the folder.

    Sleepstudy less 54 rows at random, and 2,000 rows in 200 groups of 1 to 27.
    """
    rng = np.random.default_rng(2)
    sleep = rf.datasets.load("sleepstudy").iloc[np.sort(rng.choice(180, 126, replace=False))]
    g = np.sort(rng.choice(200, 2000, p=rng.dirichlet(np.full(200, 3.0))))
    x, y = rng.normal(size=2000), 0.1 * rng.normal(size=200)[g] + rng.normal(size=2000)
    frames = {"lopsided": sleep, "groups": pd.DataFrame({"y": y, "x": x, "g": np.char.add("g", g.astype(str))})}
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    small = rf.fit("Reaction ~ Days + (1 | Subject)", frames["lopsided"])
    large = rf.fit("y ~ x + (1 | g)", frames["groups"])
    plain = small.update(method="ml")
    return {
        "exact RLRT 126 of sleepstudy": lambda: rf.exact_rlrt(small, seed=1),
        "exact RLRT 200 groups": lambda: rf.exact_rlrt(large, seed=1),
        "exact LRT 126 of sleepstudy": lambda: rf.exact_lrt(plain, seed=1),
    }


def crossed(rng: np.random.Generator, n: int, a: int, b: int) -> pd.DataFrame:
    """A numeric and a categorical predictor, two grouping factors with effects, a slope that varies by the first."""
    g, h, x = rng.integers(0, a, n), rng.integers(0, b, n), rng.normal(size=n)
    effects = rng.normal(size=(a, 2)) * [1.0, 0.5]
    y = 1 + 0.3 * x + effects[g, 0] + effects[g, 1] * x + 0.7 * rng.normal(size=b)[h] + rng.normal(size=n)
    letters = np.array(["u", "v", "w"])[rng.integers(0, 3, n)]
    return pd.DataFrame(
        {"y": y, "x": x, "f": letters, "a": np.char.add("a", g.astype(str)), "b": np.char.add("b", h.astype(str))}
    )


def median(task: Callable[[], Any], repetitions: int) -> float:
    """Seconds of the median repetition, after one that does not count; long tasks run once."""
    first = timed(task)
    return first if first > 5 else statistics.median(timed(task) for _ in range(repetitions))


def timed(task: Callable[[], Any]) -> float:
    """Processor seconds of one call, all threads together."""
    start = time.process_time()
    task()
    return time.process_time() - start


def peers(rscript: str, folder: str) -> dict[str, float]:
    """Processor seconds of the peers; empty without R, without those whose package is not there."""
    found: dict[str, float] = {}
    for script in sorted((HERE / "peers").glob("inference_*.R")) if shutil.which(rscript) else []:
        done = subprocess.run([rscript, str(script), folder], capture_output=True, text=True, check=False)
        found |= json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}
    return found


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--rscript", default="Rscript")
    asked = options.parse_args()
    with TemporaryDirectory() as folder:
        mine = tasks() | lopsided(Path(folder)) | small_samples(Path(folder))
        theirs = peers(asked.rscript, folder)
    print(f"{'task':<30}{'ranef, s':>12}{'peer, s':>12}{'ratio':>9}")
    for name, task in mine.items():
        ours = median(task, asked.repetitions)
        other = theirs.get(name)
        rest = f"{other:>12.3f}{other / ours:>9.0f}" if other else f"{'-':>12}{'-':>9}"
        print(f"{name:<30}{ours:>12.4f}{rest}", flush=True)


if __name__ == "__main__":
    main()
