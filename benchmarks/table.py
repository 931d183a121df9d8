"""Turn results into a table for RESULTS.md: `python benchmarks/table.py out/results.jsonl > out/table.md`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import harness

Row = dict[str, Any]
# A criterion this far from the best of the row is another optimum (-2 log-likelihood units).
WORSE = 1e-3


def same_criterion(row: Row) -> bool:
    """Tell whether a package computes the criterion that its name says, so that it can be a yardstick.

    gpboost's is stochastic for crossed terms and that of a smaller model for correlated ones; lme4 has another Gamma
    and NB2 likelihood (expected instead of observed information) and leaves a constant out with quadrature; what is
    reached from the joint modes of nagq0 is nobody's optimum.
    """
    model = harness.models()[row["model"]]
    family, count = model.get("family"), harness.nodes(row["method"])
    if row["package"] == "gpboost" or count == 0:
        return row["package"] == "ranef"
    if row["package"] == "lme4" and family is not None:
        return family in ("binomial", "poisson") and count == 1
    return row["package"] != "glmm" or family != "gamma"


def read(paths: list[str]) -> dict[tuple[str, str], list[Row]]:
    """Return the last result of each cell by (model, criterion)."""
    rows = [json.loads(text) for path in paths for text in Path(path).read_text().splitlines()]
    last = {(row["model"], row["package"], row["method"]): row for row in rows}
    out: dict[tuple[str, str], list[Row]] = {}
    for name in harness.models():
        for key, row in last.items():
            if key[0] == name:
                out.setdefault((name, row["method"].split("_")[0]), []).append(row)
    return out


def seconds(value: float) -> str:
    """Write a time with three digits."""
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def label(row: Row) -> str:
    """Name a peer, with its method where that is not the plain one."""
    variant = "_".join(row["method"].split("_")[1:])
    return f"{row['package']} ({variant})" if variant else row["package"]


def best(rows: list[Row]) -> float:
    """Return the smallest criterion of a model."""
    yardsticks = [r["criterion"] for r in rows if same_criterion(r) and r.get("criterion") is not None]
    return min(yardsticks, default=float("nan"))


def reached(row: Row, optimum: float) -> bool:
    """Tell whether a fit is at the optimum."""
    return row.get("criterion") is not None and abs(row["criterion"] - optimum) < WORSE


def peers(rows: list[Row]) -> list[Row]:
    """Return the peers that fitted the model, fastest first."""
    return sorted((r for r in rows if r["package"] != "ranef" and r["status"] == "ok"), key=lambda r: r["t"])


def cell(row: Row, optimum: float) -> str:
    """Write a peer's time, with what its optimum lacks."""
    off = (
        ""
        if row.get("criterion") is None or reached(row, optimum)
        else f", criterion {row['criterion'] - optimum:+.2g}"
    )
    return f"{label(row)} {seconds(row['t'])}{off}"


def speed_line(name: str, method: str, rows: list[Row]) -> str | None:
    """Write a model's line of the first table."""
    ours = next((r for r in rows if r["package"] == "ranef" and r["status"] == "ok"), None)
    if ours is None:
        return None
    optimum, others = best(rows), peers(rows)
    exact = [r for r in others if reached(r, optimum)]
    whole = ours["t"] + ours["t_errors"]
    ratio = f"{exact[0]['t'] / whole:.1f}x" if exact else ""
    least = {key: f"{min(r[key] for r in exact):.0f}" if exact else "-" for key in ("memory", "peak")}
    effort = f"{ours['evaluations']} / {ours['inner']}" if "inner" in ours else str(ours["evaluations"])
    gap = ours["criterion"] - optimum
    fields = [
        f"{name}: {harness.models()[name]['about']}", method, f"{-ours['criterion'] / 2:.6f}",
        seconds(ours["t"]), seconds(whole), seconds(ours["t_core"]),
        "; ".join(cell(r, optimum) for r in others[:3]), ratio, f"{gap:.1e}",
        f"{ours['memory']:.0f} / {least['memory']}", f"{ours['peak']:.0f} / {least['peak']}", effort,
        f"{ours['t_core'] / (ours['t_pass'] + ours['t_once']):.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(fields) + " |"


def failure(name: str, row: Row) -> str:
    """Write why a cell has no fit: the last line of what the package said."""
    said = str(row.get("error", "")).strip().splitlines()
    return f"- {name}, {label(row)}: {row['status']} {said[-1] if said else ''}".rstrip()


def failures(results: dict[tuple[str, str], list[Row]]) -> list[str]:
    """List the cells that ended without a fit."""
    return [
        failure(f"{name} {method}", row)
        for (name, method), rows in results.items()
        for row in rows
        if row["status"] not in ("ok", "unsupported")
    ]


HEAD = """\
# Benchmarks

{machine}, Python {python}; medians after the first call; made by `benchmarks/run.py`.

- *ranef*: the call a user makes, formula and data frame included; *core*: the same on arrays that are ready.
- *with errors*: the same with the covariance of the coefficients and their degrees of freedom, which ranef computes
  when they are asked for and most peers at once.
- *ratio*: the fastest peer that reached the optimum, over ranef with errors. *gap*: our criterion minus the best.
- *MiB*: peak memory of the first call above that of the loaded data, ranef / leanest exact peer; *all MiB*: peak memory
  of the whole process, interpreter, packages and data included.
- *loglik*: what ranef reached (the restricted one for REML). A peer's criterion is set beside its time where it is
  another one, in -2 log-likelihood units.
- *eval.*: evaluations of the criterion in our fit, and for generalised models the Newton steps that searched modes
  inside them; *floor*: our core time over that of the set-up and one evaluation with its gradient.

| model | criterion | loglik | ranef | with errors | core | best peers | ratio | gap | MiB | all MiB | eval. | floor |
|---|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|"""


def report(results: dict[tuple[str, str], list[Row]]) -> str:
    """Write the whole page."""
    head = HEAD.format(machine=platform.machine(), python=platform.python_version())
    lines = [text for (name, method), rows in results.items() if (text := speed_line(name, method, rows))]
    return "\n".join([head, *lines, "", "Peers that gave no result:", "", *failures(results), ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", help="files that run.py wrote")
    sys.stdout.write(report(read(parser.parse_args().results)))
