"""Run cells (package, model, method), each in a process of its own with a time limit; one JSON line a cell.

python benchmarks/run.py                                   ranef on every model
python benchmarks/run.py --models glmm --methods laplace,nagq0,agq9
python benchmarks/run.py --packages ranef,glmm,lme4 --models sleep,insteval --peer-python peers/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import data
import harness

HERE = Path(__file__).parent
LOADING = 180.0  # seconds a process may take to import its package and read its data
MEMORY = 18 << 30  # bytes of address space

Event = dict[str, Any]


@dataclass
class Cell:
    """One process and what it has said so far."""

    process: subprocess.Popen[str]
    started: float = field(default_factory=time.monotonic)
    events: list[tuple[float, Event]] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)

    def named(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for _, event in self.events if event["event"] == kind]

    def read(self, stream: IO[str]) -> None:
        """Sort the lines of a stream into events and noise."""
        for line in stream:
            if line.startswith("@@"):
                self.events.append((time.monotonic(), json.loads(line[2:])))
            else:
                self.noise.append(line)

    def overdue(self, limit: float, budget: float) -> bool:
        """Tell whether to stop: one fit over the limit, or all fits over the budget."""
        now = time.monotonic()
        if not self.events:
            return now - self.started > LOADING
        first, last = self.events[0][0], self.events[-1][0]
        return now - last > limit or (bool(self.named("fit")) and now - first > budget)


def command(package: str, python: str) -> list[str]:
    """Return how an adapter is started."""
    if package == "ranef":
        return [sys.executable, str(HERE / "bench_ranef.py")]
    script = HERE / "peers" / f"bench_{package}.R"
    return ["Rscript", str(script)] if script.exists() else [python, str(script.with_suffix(".py"))]


def start(package: str, model: str, method: str, options: argparse.Namespace) -> Cell:
    """Start one cell."""
    threads = str(options.threads)
    environment = os.environ | {
        "BENCH_HOME": str(HERE), "BENCH_DATA": str(harness.DATA), "BENCH_THREADS": threads, "PYTHONPATH": str(HERE),
        "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads,
    }  # fmt: skip
    process = subprocess.Popen(
        [*command(package, options.peer_python), model, method, str(options.repetitions)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=HERE,
        start_new_session=True,
    )
    resource.prlimit(process.pid, resource.RLIMIT_AS, (MEMORY, MEMORY))
    return Cell(process)


def watch(cell: Cell, limit: float, budget: float) -> bool:
    """Wait for a cell and tell whether it had to be stopped."""
    streams = [s for s in (cell.process.stdout, cell.process.stderr) if s is not None]
    readers = [threading.Thread(target=cell.read, args=(stream,)) for stream in streams]
    for reader in readers:
        reader.start()
    stopped = False
    while cell.process.poll() is None and not stopped:
        time.sleep(0.02)
        stopped = cell.overdue(limit, budget)
    if stopped:
        with suppress(ProcessLookupError):  # it may end while it is looked at
            os.killpg(cell.process.pid, signal.SIGKILL)
    cell.process.wait()
    for reader in readers:
        reader.join()
    return stopped


def summarise(fits: list[Event]) -> dict[str, Any]:
    """Return the first call, and medians of the calls after it."""
    later = fits[1:] if len(fits) > 2 else fits
    timed = [key for key in ("t", "cpu", "t_errors", "t_core", "t_pass", "t_once") if key in fits[0]]
    return {
        **fits[-1],
        **{key: statistics.median(f[key] for f in later) for key in timed},
        "t_first": fits[0]["t"],
        "t_min": min(f["t"] for f in fits),
        "memory": fits[0]["memory"],
        "peak": fits[0]["peak"],
        "repetitions": len(fits),
    }


def outcome(cell: Cell, stopped: bool, limit: float) -> dict[str, Any]:
    """Say how a cell ended."""
    fits, errors, noise = cell.named("fit"), cell.named("error"), "".join(cell.noise)
    if fits:
        return {"status": "ok", **summarise(fits)}
    if errors:
        return {"status": "error", "error": errors[0]["error"]}
    if stopped:
        return {"status": "timeout", "error": f"> {limit:g} s"}
    if "unsupported" in noise:
        return {"status": "unsupported"}
    return {"status": "crash", "error": f"exit {cell.process.returncode}: {noise[-400:]}"}


def run(package: str, model: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one cell."""
    cell = start(package, model, method, options)
    stopped = watch(cell, options.limit, options.budget)
    load = os.getloadavg()[0]
    head = {"package": package, "model": model, "method": method, "load": load, "threads": options.threads}
    return head | outcome(cell, stopped, options.limit)


def line(row: dict[str, Any]) -> str:
    """Return a cell as one line to read."""
    head = f"{row['model']:14s} {row['package']:11s} {row['method']:9s} {row['status']:11s}"
    if row["status"] != "ok":
        return f"{head} {row.get('error', '')[-160:]}"
    core = f" core {row['t_core'] * 1e3:9.3f} ms" if "t_core" in row else ""
    times = f"{row['t'] * 1e3:11.3f} ms{core}  first {row['t_first'] * 1e3:9.1f} ms"
    found = f"criterion {row['criterion']}  evaluations {row.get('evaluations', '?')}"
    found += f" inner {row['inner']}" if "inner" in row else ""
    return f"{head} {times}  {row['memory']:7.1f} MiB  {found}"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", default="ranef")
    parser.add_argument(
        "--models", default="lmm,glmm", help="names; lmm or glmm for all of a kind; -NAME leaves it out"
    )
    parser.add_argument("--methods", default="ML,laplace", help="ML, REML; laplace, nagq0, agq9; where they make sense")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one fit")
    parser.add_argument("--budget", type=float, default=30, help="seconds for the fits of one cell together")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the Python peers")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "results.jsonl")
    parser.add_argument("--resume", action="store_true", help="leave out the cells that --out has already")
    return parser.parse_args()


def chosen(text: str) -> list[str]:
    """Return the models that --models names."""
    table, asked = harness.models(), text.split(",")
    kinds = {
        "lmm": [k for k, m in table.items() if "family" not in m],
        "glmm": [k for k, m in table.items() if "family" in m],
    }
    named = [name for word in asked if not word.startswith("-") for name in kinds.get(word, [word])]
    return [name for name in dict.fromkeys(named) if f"-{name}" not in asked]


def cells(options: argparse.Namespace) -> Iterable[tuple[str, str, str]]:
    """Yield the cells to run; a model's cells follow each other, so that they share the machine's mood."""
    rows = map(json.loads, options.out.read_text().splitlines()) if options.resume and options.out.exists() else ()
    done = {(row["package"], row["model"], row["method"]) for row in rows}
    for model in chosen(options.models):
        if not data.write(harness.models()[model]["csv"]):
            print(f"{model:14s} skipped: its data cannot be made here (see benchmarks/README.md)")
            continue
        for package in options.packages.split(","):
            for method in options.methods.split(","):
                fresh = (package, model, method) not in done
                if fresh and harness.makes_sense(harness.models()[model], method):
                    yield package, model, method


def main() -> None:
    """Run what was asked for."""
    options = arguments()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for package, model, method in cells(options):
        row = run(package, model, method, options)
        with options.out.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
