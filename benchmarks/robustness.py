"""How small and hostile designs end: counts of outcomes for every family.

python benchmarks/robustness.py [--families poisson,beta] [--designs 100] [--limit 60] [--list all]

A design has few groups, rows or events, separation, a constant response, a variance of zero, tiny or huge means … Each
fit runs in a worker process, so that a crash or an endless loop is an outcome like others. Counted are

- ok, boundary: converged, with all variances positive or not; *noted*: converged, with a warning or message that names
  what ails (separation, columns dropped, no extra zeros …)
- no optimum: not converged, and a warning says why there is none to converge to: the likelihood has no bound, Laplace's
  approximation a pole, the density an edge, or a parameter its best value at infinity
- not converged: said so by a warning
- refused: an error of ranef on purpose, with the reason
- **nan**: a log-likelihood, coefficient or standard error that is not finite and nothing says why
- **absurd**: probabilities above one (a log-likelihood above 0 of a discrete response) that no message names
- **exception, panic, crash, timeout**: what must never happen
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ranef as rf
from generated import INTERCEPT, Generated, Plan, generate, seeded
from ranef.errors import RanefError
from ranef.families import read_family
from ranef.model import CAUSES

Change = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]
BAD = ("nan", "absurd", "exception", "panic", "crash", "timeout")
ADVICE = "few_groups"  # said of every generalised fit with few groups: about tests, not about the fit
COLUMNS = ("ok", "boundary", "noted", "no optimum", "not converged", "refused", *BAD)


# ---- designs ---------------------------------------------------------------------------------------------------------


def constant(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Give every row the first response."""
    return frame.assign(y=frame["y"].where(np.arange(len(frame)) < 0, frame["y"].iloc[0]))


def separated(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Let x order the responses."""
    total = frame["y"] + frame["fail"] if "fail" in frame else None
    out = frame.sort_values("x").assign(y=frame["y"].sort_values().array)
    return (
        out if total is None else out.assign(y=np.where(out["x"] > 0, total, 0), fail=np.where(out["x"] > 0, 0, total))
    )


def scaled(factor: float) -> Change:
    """Measure x in other units."""
    return lambda frame, _: frame.assign(x=frame["x"] * factor)


def shifted(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Put x far from zero, as a year."""
    return frame.assign(x=frame["x"] + 2000)


def between(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Let x be a property of the group: with few groups it is nearly the random effect."""
    return frame.assign(x=frame.groupby("g")["x"].transform("first"))


def group_of_one(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Give every row its own group."""
    return frame.assign(g=np.arange(len(frame)))


def outlier(frame: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Put one row far out in x."""
    x = frame["x"].to_numpy().copy()
    x[0] = 60.0
    return frame.assign(x=x)


@dataclass(frozen=True)
class Kind:
    """A kind of design: rows, levels, random terms, the mean's intercept relative to the usual, and a change."""

    n: tuple[int, int] = (20, 120)
    levels: tuple[int, int] = (3, 12)
    terms: tuple[tuple[str, str, tuple[float, ...]], ...] = (("1", "g", (0.6,)),)
    intercept: float = 0.0
    slope: float = 0.4
    change: Change | None = None


INTERCEPTS = (("1", "g", (0.6,)),)
SLOPES = (("1 + x", "g", (0.6, 0.4)),)
KINDS = {
    "plain": Kind(),
    "tiny": Kind(n=(6, 14), levels=(2, 4)),
    "two groups": Kind(levels=(2, 2)),
    "zero variance": Kind(terms=(("1", "g", (0.0,)),)),
    "zero slope": Kind(terms=(("1 + x", "g", (0.5, 0.0)),)),
    "slopes, few groups": Kind(levels=(3, 4), terms=SLOPES),
    "crossed": Kind(terms=(("1", "g", (0.5,)), ("1", "h", (0.4,)))),
    "low mean": Kind(intercept=-4.0),
    "high mean": Kind(intercept=4.0),
    "huge variance": Kind(terms=(("1", "g", (5.0,)),)),
    "steep": Kind(slope=5.0),
    "separated": Kind(change=separated),
    "constant": Kind(change=constant),
    "row effects": Kind(change=group_of_one),
    "x in millionths": Kind(change=scaled(1e-6), terms=SLOPES),
    "x in millions": Kind(change=scaled(1e6), terms=SLOPES),
    "x far away": Kind(change=shifted, terms=SLOPES),
    "between groups": Kind(change=between, levels=(3, 5)),
    "outlier": Kind(change=outlier, terms=SLOPES),
}
COUNTS = ("poisson", "nbinom1", "nbinom2", "bell", "genpois", "compois")


def variants() -> dict[str, tuple[str, bool, bool]]:
    """Return name -> (family, trials, zero inflation) of all that is tried."""
    plain = {name: (name, False, False) for name in rf.families.names()}
    trials = {f"{name} trials": (name, True, False) for name in ("binomial", "betabinomial")}
    inflated = {f"{name} zi": (name, False, True) for name in ("poisson", "nbinom2", "binomial")}
    return {**plain, **trials, **inflated}


def design(variant: str, number: int) -> Generated:
    """Return a design by its number."""
    family, trials, zero = variants()[variant]
    label = list(KINDS)[number % len(KINDS)]
    kind, name = KINDS[label], f"{variant}/{label}/{number // len(KINDS)}"
    rng = seeded(name + "-size")
    n, levels = int(rng.integers(kind.n[0], kind.n[1] + 1)), int(rng.integers(kind.levels[0], kind.levels[1] + 1))
    start = INTERCEPT[read_family(family).link] + kind.intercept
    plan = Plan(family, n, (levels, 4), kind.terms, start, kind.slope, zero, trials, kind.change)
    return generate(name, plan)


# ---- outcomes --------------------------------------------------------------------------------------------------------


def place(error: BaseException) -> str:
    """Name the function of ranef that raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"


def judge(model: Generated) -> tuple[str, str]:
    """Fit one design and name what came of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = model.fit(threads=1)
            said = {n.code for n in fit.messages}
            if fit.distribution.entry.discrete and fit.loglik > 1e-6 and "above_one" not in said:
                return "absurd", f"loglik {fit.loglik:.6g} of a discrete response; {fit.certificate.outcome.name}"
            notes = [n.text for n in fit.messages if n.code != ADVICE]  # it explains no missing number
            found = fit.converged, np.asarray(fit.estimate.vcov), notes
            fit.summary()
        except RanefError as error:
            return "refused", f"{type(error).__name__}: {error}"
        except Exception as error:
            return "exception", f"{type(error).__name__}: {error} (in {place(error)})"
        except BaseException as error:  # a panic of the core is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            return "panic", f"{type(error).__name__}: {error} (in {place(error)})"
    foreign = [str(w.message) for w in caught if not isinstance(w.message, rf.errors.RanefWarning)]
    if foreign:
        return "exception", f"a foreign warning: {foreign[0]}"
    return named(fit, found[1], " | ".join([*(str(w.message) for w in caught), *found[2]])[:300])


def named(fit: Any, vcov: Any, said: str) -> tuple[str, str]:
    """Name the outcome of a fit that came back."""
    beta = fit.estimate.beta
    kept = [j for j in range(len(beta)) if j not in fit.estimate.dropped]
    if not all(np.isfinite(v).all() for v in (fit.loglik, beta[kept], fit.theta)):
        return "nan", f"loglik {fit.loglik}, beta {beta}, theta {fit.theta}; said: {said or 'nothing'}"
    variances = np.diag(vcov)[kept]
    if not (variances >= 0).all() and not said:
        return "nan", f"variances of coefficients {variances}, {fit.certificate.outcome.name}, nothing said"
    codes = [n.code for n in fit.messages if not n.code.startswith(("boundary", "singular", ADVICE))]
    if not fit.converged:
        known = fit.certificate.outcome.name in ("unbounded", "flat_mode") or not CAUSES.isdisjoint(codes)
        return "no optimum" if known else "not converged", said
    if fit.boundary:
        return "boundary", said
    return ("noted", ",".join(codes)) if codes else ("ok", "")


# ---- workers ---------------------------------------------------------------------------------------------------------


def work(pipe: Any) -> None:
    """Answer questions until the pipe closes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a panic prints itself
    while (asked := pipe.recv()) is not None:
        pipe.send(judge(design(*asked)))


class Worker:
    """A process that fits, started anew after it died or had to be ended."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the process."""
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, variant: str, number: int, limit: float) -> tuple[str, str]:
        """Return the outcome of a design."""
        self.pipe.send((variant, number))
        try:
            if self.pipe.poll(limit):
                return self.pipe.recv()
            found = ("timeout", f"> {limit:g} s")
        except EOFError:
            self.process.join()
            found = ("crash", f"exit code {self.process.exitcode}")
        self.process.kill()
        self.process.join()
        self.start()
        return found


def one_family(worker: Worker, variant: str, options: argparse.Namespace) -> tuple[Counter[str], float]:
    """Run the designs of a family; print the cases to look at."""
    count: Counter[str] = Counter()
    slowest = 0.0
    shown = (
        COLUMNS if options.list == "all" else (*BAD, "no optimum", "not converged") if options.list == "most" else BAD
    )
    for number in range(options.designs):
        start = time.perf_counter()
        outcome, why = worker.ask(variant, number, options.limit)
        seconds = time.perf_counter() - start
        slowest = max(slowest, seconds if number else 0.0)
        count[outcome] += 1
        if outcome in shown or seconds > 5:
            label = list(KINDS)[number % len(KINDS)]
            print(f"  {outcome}: design({variant!r}, {number}) [{label}] {seconds:.1f} s: {why}", flush=True)
    return count, slowest


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(variants()))
    parser.add_argument("--designs", type=int, default=1000, help="for each family")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one fit")
    parser.add_argument("--list", choices=("bad", "most", "all"), default="bad", help="which cases to print")
    options = parser.parse_args()
    worker = Worker()
    rows = []
    for variant in options.families.split(","):
        print(variant, flush=True)
        count, slowest = one_family(worker, variant, options)
        rows.append(f"| {variant} | " + " | ".join(str(count[c]) for c in COLUMNS) + f" | {slowest:.2f} |")
    print("\n| family | " + " | ".join(COLUMNS) + " | slowest, s |\n|---" + "|--:" * (len(COLUMNS) + 1) + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
