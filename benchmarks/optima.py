"""Does any package find a better optimum? Random small models fitted by ranef, by ranef from other starts, and by R.

python benchmarks/optima.py [--kind families|structures|components] [--models 360] [--first 0] [--without-r]

Printed is every model where another log-likelihood is above ours by more than 1e-6, with both parameters and *our*
criterion at theirs: if that is above our optimum too, we missed it; if not, the two criteria differ. The R packages
(glmmTMB, and lme4 where its Laplace approximation is the same) read the data from CSV files, in one process; their
answers stay in the folder and are used again for the same models. `--kind structures` draws covariance structures
(`structured.py`), `--kind components` those of every family, with zero inflation and dispersion formulas
(`components.py`); there R is glmmTMB alone, and asked for the structures it has.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

import components
import harness
import structured
from generated import Generated, Plan, generate, seeded

BETTER = 1e-6
FAMILIES = ("poisson", "binomial", "trials", "nbinom2", "nbinom1", "gamma", "beta", "zip", "zinb2")
# Random terms with their true standard deviations; several have a variance of zero.
TERMS = {
    "one": (("1", "g", (0.6,)),),
    "slope": (("1 + x", "g", (0.6, 0.4)),),
    "crossed": (("1", "g", (0.5,)), ("1", "h", (0.4,))),
    "zero": (("1", "g", (0.0,)),),
    "zeroslope": (("1 + x", "g", (0.5, 0.0)),),
    "zerocrossed": (("1", "g", (0.6,)), ("1", "h", (0.0,))),
    "large": (("1", "g", (2.0,)),),
    "two": (("1 + x", "g", (0.5, 0.3)), ("1", "h", (0.3,))),
}
STARTS = (0.05, 0.3, 3.0)  # theta of the diagonal
Row = dict[str, Any]


def plan(family: str, terms: str, rng: np.random.Generator) -> Plan:
    """Return a plan of random size."""
    name = {"trials": "binomial", "zip": "poisson", "zinb2": "nbinom2"}.get(family, family)
    n = int(rng.integers(60, 400))
    levels = (int(rng.integers(4, 31)), int(rng.integers(3, 16)))
    return Plan(name, n, levels, TERMS[terms], trials=family == "trials", zero_inflation=family.startswith("zi"))


def drawn(count: int, first: int = 0) -> list[Generated]:
    """Draw the models from number `first` on: families and terms in turn."""
    pairs = [(f, t) for t in TERMS for f in FAMILIES]
    named = ((f"{f}-{t}-{i // len(pairs)}", f, t) for i, (f, t) in enumerate(cycle(pairs)))
    names = islice(named, first, first + count)
    return [generate(name, plan(f, t, seeded(name + "-size"))) for name, f, t in names]


# ---- fits ------------------------------------------------------------------------------------------------------------


def quietly(model: Generated, **options: Any) -> Any:
    """Fit without warnings; an exception comes back as a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return model.fit(**options)
        except BaseException as error:  # a panic of the core is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            return error


def said(fit: Any) -> Row:
    """Read a fit of ours."""
    if isinstance(fit, BaseException):
        return {"error": f"{type(fit).__name__}: {str(fit)[:200]}"}
    return {"loglik": fit.loglik, "beta": fit.estimate.beta, "theta": fit.theta, "ok": fit.converged}


def diagonal(fit: Any, value: float) -> list[float]:
    """Return theta of diagonal factors."""
    out: list[float] = []
    for term in fit.layout.terms:
        k = len(term.names)
        out += [value * float(i == j) for j in range(k) for i in range(j, k)]
    return out


def other_starts(model: Generated, fit: Any) -> Iterator[Row]:
    """Fit from other thetas."""
    if is_structured(model):
        starts = {f"start {sd:g} {r:g}": structured.start(model, sd, r) for sd, r in structured.STARTS}
    else:
        starts = {f"start {value:g}": diagonal(fit, value) for value in STARTS}
    for name, theta in starts.items():
        yield {"name": model.name, "package": name, **said(quietly(model, control={"start": theta}))}


def is_structured(model: Generated) -> bool:
    return "kind" in model.truth


def for_r(model: Generated) -> Row:
    """Return what R is asked: its formula (empty where it has no such structure), family and other formulas."""
    formula = model.formula
    if is_structured(model):
        term = (structured.OF_R | components.OF_R).get(model.truth["kind"])
        formula = f"{formula.split('~')[0]}~ x + {term}" if term else ""
    zi = model.options.get("zero_inflation", "~0").replace(" ", "")
    dispersion = {0: "~0", None: "~1"}.get(model.options.get("dispersion"), "~x")
    row = {"name": model.name, "family": model.family, "formula": formula, "zi": zi}
    return {**row, "disp": dispersion} if is_structured(model) else row


def ask_r(models: list[Generated], folder: Path) -> list[Row]:
    """Fit all models by the R packages, in one process, unless the folder has their answers to just these models."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.dumps([row for row in map(for_r, models) if row["formula"]])
    asked, answers = folder / "manifest.json", folder / "r.jsonl"
    if answers.exists() and asked.exists() and asked.read_text() == manifest:
        return parsed(answers.read_text())
    answers.unlink(missing_ok=True)
    asked.write_text(manifest)
    for model in models:
        model.frame.to_csv(folder / f"{model.name}.csv", index=False)
    script = harness.HERE / "peers" / "optima.R"
    done = subprocess.run(["Rscript", str(script), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"Rscript ended with {done.returncode}: {done.stderr[-500:]}")
    else:
        answers.write_text(done.stdout)
    return parsed(done.stdout)


def parsed(text: str) -> list[Row]:
    """Return the rows R printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


# ---- comparison ------------------------------------------------------------------------------------------------------


def root(covariance: Any) -> list[float]:
    """Return theta of a covariance matrix: the lower factor by columns, zeros where it is singular."""
    left = np.array(covariance, dtype=float)
    k = len(left)
    factor = np.zeros((k, k))
    for j in range(k):
        pivot = left[j, j]
        if pivot > 1e-300:
            factor[j:, j] = left[j:, j] / np.sqrt(pivot)
            left = left - np.outer(factor[:, j], factor[:, j])
    return [float(factor[i, j]) for j in range(k) for i in range(j, k)]


def translated(model: Generated, fit: Any, row: Row) -> tuple[list[float], list[float]]:
    """Return another package's parameters as ours."""
    if "theta" in row:
        return list(row["beta"]), list(row["theta"])
    if is_structured(model):
        return structured.translated(model, row)
    by_group = {v["group"]: v["cov"] for v in row["vc"]}
    theta = [v for term in fit.layout.terms for v in root(by_group[term.label])]
    parts = {c.name for c in fit.layout.components}
    dispersion = row["disp"] if "dispersion" in parts else []
    return [*row["beta"], *dispersion, *row.get("zi", [])], theta


def ours_at(model: Generated, fit: Any, row: Row) -> float | str:
    """Return our criterion at another package's parameters, or why there is none (outside the support, a flat mode)."""
    try:
        return float(fit.core.evaluate(*map(np.array, translated(model, fit, row)))["loglik"])
    except ValueError as error:
        return str(error)


def shown(values: Any) -> str:
    return "[" + ", ".join(f"{v:.6g}" for v in np.asarray(values, dtype=float).ravel()) + "]"


def verdict(model: Generated, fit: Any, row: Row) -> str:
    """Say what lies behind a better log-likelihood."""
    here = ours_at(model, fit, row)
    if isinstance(here, str):
        return f"criteria differ: {here}"
    if here > fit.loglik + BETTER:
        return f"MISSED: our criterion there is {here - fit.loglik:+.3g}"
    return f"criteria differ: ours there is {here - fit.loglik:+.3g}"


def report(model: Generated, fit: Any, row: Row) -> str:
    """Write one case."""
    beta, theta = translated(model, fit, row)
    return (
        f"{model.name}: {row['package']} {row['loglik'] - fit.loglik:+.3g} ({verdict(model, fit, row)})\n"
        f"    {model.family}  {model.formula}  {model.options or ''}  {model.truth}\n"
        f"    ours   {fit.loglik:.9f} beta {shown(fit.estimate.beta)} theta {shown(fit.theta)} {fit.estimate.outcome}\n"
        f"    theirs {row['loglik']:.9f} beta {shown(beta)} theta {shown(theta)} {'' if row.get('ok') else 'not ok'}"
    )


def compare(models: list[Generated], fits: dict[str, Any], rows: list[Row]) -> None:
    """Print every case and the counts."""
    count: Counter[tuple[str, str]] = Counter()
    by_name = {m.name: m for m in models}
    for row in rows:
        fit, package = fits[row["name"]], row["package"]
        gap = (
            (row["loglik"] - fit.loglik)
            if row.get("loglik") is not None and not isinstance(fit, BaseException)
            else None
        )
        result = "no result" if gap is None else "better" if gap > BETTER else "worse" if gap < -BETTER else "same"
        count[package, result] += 1
        here = ours_at(by_name[row["name"]], fit, row) if gap is not None else 0.0
        if gap is not None and (isinstance(here, str) or abs(here - row["loglik"]) > 1e-5):
            count[package, "of these, another criterion at its parameters"] += 1
        if result == "better":
            print(report(by_name[row["name"]], fit, row))
    print("\nAgainst ours:")
    for (package, result), number in sorted(count.items()):
        print(f"  {package:10s} {number:4d} {result}")


def own(models: list[Generated], fits: dict[str, Any]) -> None:
    """Print our own failures."""
    for model in models:
        fit = fits[model.name]
        if isinstance(fit, BaseException):
            print(f"{model.name}: ours failed: {said(fit)['error']}\n    {model.formula} {model.truth}")
        elif not (fit.converged and np.isfinite(fit.loglik)):
            print(f"{model.name}: ours did not converge: {fit.certificate}\n    {model.formula} {model.truth}")


DRAWN = {"families": drawn, "structures": structured.drawn, "components": components.drawn}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(DRAWN), default="families")
    parser.add_argument("--models", type=int, default=360)
    parser.add_argument("--first", type=int, default=0, help="number of the first model")
    parser.add_argument("--without-r", action="store_true")
    parser.add_argument("--out", type=Path, default=harness.HERE / "out" / "optima", help="folder of the data")
    options = parser.parse_args()
    models = DRAWN[options.kind](options.models, options.first)
    fits = {m.name: quietly(m) for m in models}
    own(models, fits)
    rows = [row for m in models if not isinstance(fits[m.name], BaseException) for row in other_starts(m, fits[m.name])]
    if shutil.which("Rscript") and not options.without_r:
        rows += ask_r(models, options.out)
    compare(models, fits, rows)


if __name__ == "__main__":
    main()
