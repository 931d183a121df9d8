"""What every benchmark process shares: read a model, fit it several times, print one JSON line an event.

An adapter is called as `python adapter.py MODEL METHOD REPETITIONS` and calls `main(make)`, where `make(model, method)`
returns a function that fits once and returns a function that reads the results off the fit (not timed).
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATA = Path(os.environ.get("BENCH_DATA", HERE / "out" / "data"))

Model = dict[str, Any]
Fit = Callable[[], Callable[[], dict[str, Any]]]


def models() -> dict[str, Model]:
    """Read the table of models."""
    return json.loads((HERE / "models.json").read_text())


def load(model: Model, categorical: bool = True) -> Any:
    """Read a model's data with its factors as pandas categoricals (or strings)."""
    import pandas as pd

    frame = pd.read_csv(DATA / f"{model['csv']}.csv")
    if "complete" in model:
        frame = frame[model["complete"]].dropna().reset_index(drop=True)
    for name in model["factors"]:
        if name in frame:
            levels = model.get("levels", {}).get(name)
            frame[name] = factor(frame[name], levels) if categorical else frame[name].astype(str)
    if model.get("family") == "cumulative":
        frame[model["y"]] = factor(frame[model["y"]], None, ordered=True)
    return frame


def factor(values: Any, levels: list[str] | None, ordered: bool = False) -> Any:
    """Make a categorical whose levels are in the order given, or in numeric order where they are numbers."""
    import pandas as pd

    if levels is None and values.dtype.kind in "iu":
        levels = [str(v) for v in sorted(values.unique())]
    return pd.Categorical(values.astype(str), categories=levels, ordered=ordered)


def formula(model: Model, left: str | None = None) -> str:
    """Write the model as lme4 does."""
    return f"{left or model['y']} ~ {model['fixed']} + " + " + ".join(f"({t} | {g})" for t, g in model["random"])


def counted(model: Model, frame: Any) -> str | None:
    """Add the failures to the data of a model of trials, and write its response as two columns of counts."""
    if "trials" not in model:
        return None
    frame["failures"] = frame[model["trials"]] - frame[model["successes"]]
    return f"cbind({model['successes']}, failures)"


def nodes(method: str) -> int | None:
    """Return the quadrature nodes of a generalised model's method: "laplace" 1, "nagq0" 0, "agq9" 9; else None."""
    found = re.match(r"laplace|n?agq(\d+)", method)
    return None if found is None else int(found[1] or 1)


def makes_sense(model: Model, method: str) -> bool:
    """Tell whether a method belongs to a model: ML and REML to linear ones, quadrature to one grouping factor."""
    count = nodes(method)
    if ("family" in model) != (count is not None):
        return False
    return count is None or count < 2 or len(model["random"]) == 1


def unsupported(why: str) -> None:
    """End the process: this package has no such model."""
    raise SystemExit(f"unsupported: {why}")


def emit(**event: Any) -> None:
    """Print one event."""
    print("@@" + json.dumps(event, default=plain), flush=True)


def plain(value: Any) -> Any:
    """Turn numpy scalars and arrays into what JSON knows."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def memory(key: str) -> float:
    """Return a figure of /proc/self/status in MiB (`VmRSS` now, `VmHWM` peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def repeat(fit: Fit) -> None:
    """Fit once and print time, memory and results."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wall, cpu = time.perf_counter(), time.process_time()
        read = fit()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = memory("VmHWM")
    said = sorted({str(w.message).split("\n")[0][:160] for w in caught})[:4]
    emit(event="fit", t=wall, cpu=cpu, memory=peak - before, peak=peak, warnings=said, **read())


def main(make: Callable[[Model, str], Fit]) -> None:
    """Run one cell of the table."""
    name, method, repetitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
    fit = make(models()[name], method)
    emit(event="loaded")
    for _ in range(repetitions):
        try:
            repeat(fit)
        except Exception as error:
            emit(event="error", error=f"{type(error).__name__}: {str(error)[:400]}")
            return
