"""Type-I error of tests and coverage of intervals by simulation: `python simulations.py [--designs oneway,crossed]`.

Responses are drawn with numpy, not by the package that is tested. A replicate has a seed of its own (design and
number), and its verdicts are a line of `out/simulations/DESIGN.jsonl` for each part of the methods (`--parts`): a run
that was cut off goes on where it ended, and `--replicates` may be raised later. `--write` puts the tables into
`docs/simulations.md`, between their markers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import ranef as rf

Array = np.ndarray
HERE = Path(__file__).parent
OUT = Path(os.environ.get("BENCH_DATA", HERE / "out")) / "simulations"
PAGE = HERE.parent / "docs" / "simulations.md"
DRAWS = 199  # of a bootstrap or permutation test: (DRAWS + 1) * 5 % is whole, so that its p-values are exact
EXACT_DRAWS = 999
LEVEL, ALPHA = 0.95, 0.05 + 1e-12
DDF = ["inf", "residual", "inner-outer", "between-within", "satterthwaite", "kenward-roger"]
ROBUST = ["CR0", "CR1", "CR2", "CR3"]
TITLES = {
    "inf": "Wald z", "residual": "Wald t, residual df", "inner-outer": "Wald F, inner-outer df",
    "between-within": "Wald F, between-within df", "satterthwaite": "F, Satterthwaite",
    "kenward-roger": "F, Kenward-Roger",
    "lrt": "likelihood ratio (ML), chi-square",
    "naive": "restricted likelihood ratio, chi-square(1)", "mixture": "restricted likelihood ratio, 0.5 : 0.5 mixture",
    "naive_ml": "likelihood ratio (ML), chi-square(1)", "mixture_ml": "likelihood ratio (ML), 0.5 : 0.5 mixture",
    "exact_rlrt": "exact restricted likelihood ratio", "exact_lrt": "exact likelihood ratio (ML)",
    "pb": "likelihood ratio (ML), parametric bootstrap", "permutation": "permutation test",
    "wald inf": "Wald z", "wald satterthwaite": "t, Satterthwaite", "wald kenward-roger": "t, Kenward-Roger",
    **{kind: f"cluster-robust, {kind}" for kind in ROBUST},
    "wald": "Wald, log scale", "profile": "profile (ML)",
    **{kind: f"parametric bootstrap, {kind}" for kind in ("percentile", "basic", "normal")},
    "bca": "parametric bootstrap, BCa",
    **{f"by {kind}": f"{kind} bootstrap, percentile" for kind in ("residual", "wild", "cases")},
}  # fmt: skip


# ---- designs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """A model, the hypothesis that holds, and the parameters whose intervals are looked at.

    Attributes
    ----------
    formula, null : str
        The model, and the one without what is tested.
    frame : dict of arrays
        Everything but the response.
    draw : callable
        Generator, frame -> response.
    term : str
        As `anova` prints it; "" where a variance is tested.
    truth : dict
        Label of a parameter -> its value. The first is a fixed effect.
    options : dict
        Arguments of `rf.fit`.
    cluster : tuple of str
        Of robust covariances, where the outermost grouping factor does not hold all groups.
    profiles : bool
        Whether intervals are profiled.
    """

    name: str
    formula: str
    null: str
    frame: dict[str, Array]
    draw: Callable[[np.random.Generator, dict[str, Array]], Array]
    term: str
    truth: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    cluster: tuple[str, ...] = ()
    profiles: bool = True

    @property
    def linear(self) -> bool:
        """Whether restricted likelihoods exist."""
        return "family" not in self.options

    def response(self, replicate: int) -> Array:
        """Response of a replicate: the same whatever was run before it."""
        return self.draw(np.random.default_rng([zlib.crc32(self.name.encode()), replicate]), self.frame)

    def data(self, replicate: int) -> pl.DataFrame:
        """Return all columns of a replicate."""
        return pl.DataFrame({**self.frame, "y": self.response(replicate)})

    def fit(self, formula: str, **options: Any) -> rf.Fit:
        """Fit to replicate 0."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return rf.fit(formula, self.data(0), threads=1, **self.options, **options)

    @cached_property
    def fits(self) -> dict[str, rf.Fit]:
        """Fits whose design and ordering the refits share."""
        linear = {"method": "ml"} if self.linear else {}
        found = {"large": self.fit(self.formula, **linear), "small": self.fit(self.null, **linear)}
        if self.linear:
            found["reml"] = self.fit(self.formula)
            if not self.term:
                found["small_reml"] = self.fit(self.null)
        return found


def effects(rng: np.random.Generator, codes: Array, sd: float) -> Array:
    """Draw an effect for each group, by row."""
    return sd * rng.normal(size=codes.max() + 1)[codes]


def oneway() -> Design:
    """Eight groups of five, half of them treated."""
    g = np.repeat(np.arange(8), 5)
    frame = {"g": names("g", g), "a": names("", g % 2), "code": g}

    def draw(rng: np.random.Generator, d: dict[str, Array]) -> Array:
        return 3 + effects(rng, d["code"], 1.0) + rng.normal(size=40)

    truth = {"a1": 0.0, "sd((Intercept) | g)": 1.0}
    return Design("oneway", "y ~ a + (1 | g)", "y ~ 1 + (1 | g)", frame, draw, "a", truth)


def slopes() -> Design:
    """Sleepstudy without an effect of days."""
    g, x = np.repeat(np.arange(18), 10), np.tile(np.arange(10.0), 18)

    def draw(rng: np.random.Generator, d: dict[str, Array]) -> Array:
        b = rng.normal(size=(18, 2)) @ np.linalg.cholesky([[600.0, 10.0], [10.0, 36.0]]).T
        return 250 + b[d["code"], 0] + b[d["code"], 1] * d["x"] + 25 * rng.normal(size=180)

    frame = {"g": names("g", g), "x": x, "code": g}
    truth = {"x": 0.0, "sd(x | g)": 6.0}
    return Design("slopes", "y ~ x + (x | g)", "y ~ 1 + (x | g)", frame, draw, "x", truth)


def splitplot() -> Design:
    """Nine plots of three irrigations (4 + 3 + 2), four varieties in each, a quarter of the cells lost."""
    plot, v = np.repeat(np.arange(9), 4), np.tile(np.arange(4), 9)
    irrigation = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])[plot]
    lost = [1, 6, 8, 15, 18, 20, 27, 29, 34]
    plot, v, irrigation = (np.delete(column, lost) for column in (plot, v, irrigation))
    frame = {"plot": names("p", plot), "v": names("", v), "a": names("", irrigation), "code": plot, "variety": v}

    def draw(rng: np.random.Generator, d: dict[str, Array]) -> Array:
        mean = np.array([10.0, 10.5, 11.0, 11.5])[d["variety"]]
        return mean + effects(rng, d["code"], 1.0) + rng.normal(size=len(mean))

    truth = {"v1": 0.5, "sd((Intercept) | plot)": 1.0}
    return Design("splitplot", "y ~ a + v + (1 | plot)", "y ~ v + (1 | plot)", frame, draw, "a", truth)


def crossed() -> Design:
    """Twelve subjects by ten items, half of the items in each condition."""
    s, i = np.repeat(np.arange(12), 10), np.tile(np.arange(10), 12)
    frame = {"s": names("s", s), "i": names("i", i), "a": names("", i % 2), "subject": s, "item": i}

    def draw(rng: np.random.Generator, d: dict[str, Array]) -> Array:
        return 6 + effects(rng, d["subject"], 1.0) + effects(rng, d["item"], 0.7) + rng.normal(size=120)

    truth = {"a1": 0.0, "sd((Intercept) | i)": 0.7}
    large, small = "y ~ a + (1 | s) + (1 | i)", "y ~ 1 + (1 | s) + (1 | i)"
    return Design("crossed", large, small, frame, draw, "a", truth, cluster=("s", "i"))


def variance() -> Design:
    """Ten groups of six that do not differ."""
    g = np.repeat(np.arange(10), 6)
    frame = {"g": names("g", g), "x": np.tile(np.arange(6.0), 10)}

    def draw(rng: np.random.Generator, d: dict[str, Array]) -> Array:
        return 1 + 0.5 * d["x"] + rng.normal(size=60)

    return Design("variance", "y ~ x + (1 | g)", "y ~ x", frame, draw, "")


def ar1() -> Design:
    """Sixteen subjects on eight days with autocorrelated effects, a quarter of the days lost; half of them treated."""
    g, t = np.repeat(np.arange(16), 8), np.tile(np.arange(8), 16)
    kept = np.sort(np.random.default_rng(0).choice(128, 96, replace=False))
    g, t = g[kept], t[kept]
    frame = {"g": names("g", g), "a": names("", g % 2), "t": names("t", t), "code": g, "day": t}

    def draw(rng: np.random.Generator, d: dict[str, Array]) -> Array:
        lags = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
        b = rng.normal(size=(16, 8)) @ np.linalg.cholesky(0.7**lags).T
        return 5 + b[d["code"], d["day"]] + 0.5 * rng.normal(size=96)

    large, small = "y ~ a + ar1(0 + t | g)", "y ~ 1 + ar1(0 + t | g)"
    return Design("ar1", large, small, frame, draw, "a", {"a1": 0.0}, profiles=False)


def binary() -> Design:
    """Fifteen groups of ten trials; a treatment of groups (8 + 7) and a covariate of trials."""
    g, x = np.repeat(np.arange(15), 10), np.tile(np.linspace(-1.5, 1.5, 10), 15)
    frame = {"g": names("g", g), "a": names("", g % 2), "x": x, "code": g}

    def draw(rng: np.random.Generator, d: dict[str, Array]) -> Array:
        eta = -0.3 + 0.7 * d["x"] + effects(rng, d["code"], 1.0)
        return (rng.random(150) < 1 / (1 + np.exp(-eta))).astype(float)

    truth = {"x": 0.7, "sd((Intercept) | g)": 1.0}
    large, small = "y ~ a + x + (1 | g)", "y ~ x + (1 | g)"
    return Design("binary", large, small, frame, draw, "a", truth, {"family": "binomial"})


def names(prefix: str, codes: Array) -> Array:
    """Name levels."""
    return np.array([f"{prefix}{code}" for code in codes])


DESIGNS = {make.__name__: make for make in (oneway, slopes, splitplot, crossed, variance, binary, ar1)}


# ---- one replicate ---------------------------------------------------------------------------------------------------


def verdicts(design: Design, replicate: int, part: str) -> dict[str, Any]:
    """Return p-values, intervals, what failed and what was warned of, by the methods of a part."""
    record: dict[str, Any] = {"replicate": replicate, "part": part, "p": {}, "interval": {}, "failed": []}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y = design.response(replicate)
        fits = {name: m.refit(y) for name, m in design.fits.items()}
        record["failed"] = [name for name, m in fits.items() if not m.converged]
        record["boundary"] = bool(fits.get("reml", fits["large"]).boundary)
        tests, intervals = PARTS[part]
        for name, job in tests(design, fits, replicate):
            keep(record, "p", name, job)
        for name, job in intervals(design, fits, replicate) if design.truth else []:
            keep(record, "interval", name, job)
    record["warned"] = dict(Counter(kind_of(w) for w in said))
    return record


def keep(record: dict[str, Any], part: str, name: str, job: Callable[[], Any]) -> None:
    """Put a job's result into the record; what is refused for all replicates is left out."""
    try:
        record[part][name] = job()
    except rf.errors.NotAvailableError:
        return
    except rf.RanefError as error:
        record[part][name] = None
        record["failed"].append(f"{name}: {str(error)[:80]}")


def kind_of(warning: warnings.WarningMessage) -> str:
    """Class and first words, without figures."""
    return f"{warning.category.__name__}: {re.sub(r'-?[0-9][0-9.e+-]*', '#', str(warning.message))[:90]}"


Jobs = Iterator[tuple[str, Callable[[], Any]]]


def plain_tests(design: Design, fits: dict[str, rf.Fit], seed: int) -> Jobs:
    """Yield the tests that refit nothing, or a few models."""
    return fixed_tests(design, fits) if design.term else variance_tests(design, fits, seed)


def fixed_tests(design: Design, fits: dict[str, rf.Fit]) -> Jobs:
    """Yield F tests by every method of degrees of freedom and robust covariance, and the likelihood-ratio test."""
    m, cluster = fits.get("reml", fits["large"]), list(design.cluster) or None
    for ddf in DDF:
        yield ddf, lambda ddf=ddf: of_term(rf.anova(m, ddf=ddf), design.term)
    for kind in ROBUST:
        yield kind, lambda kind=kind: of_term(rf.anova(m, vcov=kind, cluster=cluster), design.term)
    yield "lrt", lambda: float(columns(rf.anova(fits["small"], fits["large"]))["p_value"][1])


def of_term(table: pl.DataFrame, term: str) -> float | None:
    """P-value of a term, None for NaN."""
    found = float(table["p_value"][list(table["term"]).index(term)])
    return None if np.isnan(found) else found


def columns(table: Any) -> pl.DataFrame:
    """Columns of a table of models."""
    return table.to_frame()


def variance_tests(design: Design, fits: dict[str, rf.Fit], seed: int) -> Jobs:
    """Yield tests that the variance is 0."""
    data = design.data(seed)  # the exact tests fit models of their own to the data
    restricted = columns(rf.anova(fits["small_reml"], fits["reml"]))
    plain = columns(rf.anova(fits["small"], fits["large"]))
    yield "naive", lambda: float(restricted["p_value"][1])
    yield "mixture", lambda: float(restricted["p_mixture"][1])
    yield "naive_ml", lambda: float(plain["p_value"][1])
    yield "mixture_ml", lambda: float(plain["p_mixture"][1])
    yield "exact_rlrt", lambda: rf.exact_rlrt(rf.fit(design.formula, data), n=EXACT_DRAWS, seed=seed).p_value
    yield "exact_lrt", lambda: rf.exact_lrt(rf.fit(design.formula, data, method="ml"), n=EXACT_DRAWS, seed=seed).p_value


def drawn_tests(design: Design, fits: dict[str, rf.Fit], seed: int) -> Jobs:
    """Yield the bootstrap of the likelihood ratio and the permutation test."""
    m = fits.get("reml", fits["large"])
    yield "pb", lambda: rf.pb_test(fits["large"], fits["small"], n=DRAWS, seed=seed, threads=1).p_value
    yield "permutation", lambda: rf.permutation_test(m, design.term or "g", n=DRAWS, seed=seed).p_value


def plain_intervals(design: Design, fits: dict[str, rf.Fit], _seed: int) -> Jobs:
    """Yield intervals of all parameters looked at; [[low, high], …], [None, None] where there is none."""
    m, labels, cluster = fits.get("reml", fits["large"]), list(design.truth), list(design.cluster) or None
    for ddf in ("inf", "satterthwaite", "kenward-roger"):
        yield f"wald {ddf}", lambda ddf=ddf: of_fixed(m.tidy(conf_int=True, ddf=ddf), labels[0])
    for kind in ROBUST:
        yield kind, lambda kind=kind: of_fixed(m.tidy(conf_int=True, vcov=kind, cluster=cluster), labels[0])
    if labels[1:]:
        yield "wald", lambda: [[None, None], *ends(rf.confint(m, which=labels[1:]))]
    if design.profiles:
        yield "profile", lambda: ends(rf.confint(fits["large"], which=labels, method="profile"))


def drawn_intervals(design: Design, fits: dict[str, rf.Fit], seed: int) -> Jobs:
    """Yield intervals by bootstraps that draw responses."""
    m, labels = fits.get("reml", fits["large"]), list(design.truth)
    draws = cache(lambda kind: rf.bootstrap(m, n=DRAWS, kind=kind, seed=seed, threads=1))

    def of(kind: str, method: str) -> list[Any]:
        return ends(draws(kind).confint(LEVEL, method), [draws(kind).names.index(x) for x in labels])

    for method in ("percentile", "basic", "normal", "bca"):
        yield method, lambda method=method: of("parametric", method)
    for kind in ("residual", "wild"):
        yield f"by {kind}", lambda kind=kind: of(kind, "percentile")


def cases_intervals(design: Design, fits: dict[str, rf.Fit], seed: int) -> Jobs:
    """Yield intervals by the bootstrap that draws groups."""
    m, labels = fits.get("reml", fits["large"]), list(design.truth)

    def found() -> list[Any]:
        draws = rf.bootstrap(m, n=DRAWS, kind="cases", seed=seed, threads=1)
        return ends(draws.confint(LEVEL), [draws.names.index(x) for x in labels])

    yield "by cases", found


def nothing(_design: Design, _fits: dict[str, rf.Fit], _seed: int) -> Jobs:
    """Yield no tests."""
    return iter(())


PARTS = {
    "plain": (plain_tests, plain_intervals),
    "drawn": (drawn_tests, drawn_intervals),
    "cases": (nothing, cases_intervals),
}
SAID = {"plain": "without draws", "drawn": "with draws of responses", "cases": "with draws of groups"}


def of_fixed(table: pl.DataFrame, term: str) -> list[Any]:
    """Return the interval of a coefficient as a list of one."""
    return ends(table, [list(table["term"]).index(term)])


def ends(table: pl.DataFrame, at: list[int] | None = None) -> list[Any]:
    """Pairs of ends, None for NaN."""
    pairs = np.column_stack([table["conf_low"], table["conf_high"]])[slice(None) if at is None else at]
    return [[None if np.isnan(v) else float(v) for v in pair] for pair in pairs]


# ---- running ---------------------------------------------------------------------------------------------------------


def lines(name: str) -> dict[tuple[int, str], dict[str, Any]]:
    """Return what was done, by number of the replicate and part; a line that was cut off is not counted."""
    path = OUT / f"{name}.jsonl"
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[record["replicate"], record["part"]] = record
    return found


def records(name: str, replicates: int) -> list[dict[str, Any]]:
    """Return the parts of each replicate as one."""
    joined: dict[int, dict[str, Any]] = {}
    for (i, part), record in sorted(lines(name).items()):
        if i >= replicates:
            continue
        new = {"p": {}, "interval": {}, "failed": set(), "boundary": False, "warned": {}, "seconds": {}}
        into = joined.setdefault(i, new)
        for key in ("p", "interval", "warned"):
            into[key] |= record[key]
        into["failed"] |= set(record["failed"])
        into["boundary"] |= record["boundary"]
        into["seconds"][part] = record["seconds"]
    return list(joined.values())


def run(design: Design, replicates: int, part: str) -> None:
    """Do the replicates that are missing."""
    done = lines(design.name)
    missing = [i for i in range(replicates) if (i, part) not in done]
    OUT.mkdir(parents=True, exist_ok=True)
    start, path = time.perf_counter(), OUT / f"{design.name}.jsonl"
    cut_off = path.exists() and not path.read_text().endswith("\n")
    with path.open("a") as file:
        file.write("\n" * cut_off)
        for i in missing:
            before = time.process_time()
            record = verdicts(design, i, part) | {"seconds": round(time.process_time() - before, 4)}
            file.write(json.dumps(record) + "\n")
            file.flush()
    print(f"{design.name}, {part}: {len(missing)} replicates in {time.perf_counter() - start:.0f} s", flush=True)


# ---- tables ----------------------------------------------------------------------------------------------------------


def tables(design: Design, found: list[dict[str, Any]]) -> str:
    """Return the tables of a design as Markdown."""
    parts = ["\n".join(test_rows(found)).rstrip()]
    parts += ["\n".join(interval_rows(design, found, j)) for j in range(len(design.truth))]
    return "\n\n".join([*parts, counts(found)])


def test_rows(found: list[dict[str, Any]]) -> list[str]:
    """Rejections of the true null at 5 %, with their Monte-Carlo standard error."""
    rows = ["| test at 5 % | rejected, % | s.e. | replicates |", "|---|---:|---:|---:|"]
    for name in methods(found, "p"):
        p = np.array([r["p"][name] for r in found if r["p"].get(name) is not None])
        if not len(p):
            continue
        rows.append(f"| {TITLES[name]} | {share(p <= ALPHA)} | {len(p):,} |")
    return [*rows, "", *beside_bootstrap(found)]


def beside_bootstrap(found: list[dict[str, Any]]) -> list[str]:
    """Say what other tests do in the few replicates that have a bootstrap: that is what it is to be compared with."""
    few = [r["p"] for r in found if r["p"].get("pb") is not None]
    few = few if len(few) < len(found) else []
    known = [name for name in ("kenward-roger", "lrt", "exact_rlrt", "exact_lrt") if few and name in few[0]]
    said = [f"{TITLES[name]} {100 * np.mean([p[name] <= ALPHA for p in few]):.1f} %" for name in known]
    return [f"In the {len(few):,} replicates with a bootstrap: {', '.join(said)}."] if said else []


def interval_rows(design: Design, found: list[dict[str, Any]], at: int) -> list[str]:
    """Coverage of the true value at 95 %, and on which side the others miss it."""
    label, true = list(design.truth.items())[at]
    head = f"| 95 % interval of `{label.replace('|', chr(92) + '|')}` = {true:g}"
    rows = [f"{head} | covers, % | s.e. | too low, % | too high, % | none, % | replicates |", "|---|" + "---:|" * 6]
    for name in methods(found, "interval"):
        asked = [r["interval"][name] for r in found if r["interval"].get(name)]
        if len(asked[0]) <= at or (name == "wald" and at == 0):
            continue
        pairs = [pair[at] for pair in asked]
        here = np.array([pair for pair in pairs if None not in pair]).reshape(-1, 2)
        low, high = here[:, 1] < true, here[:, 0] > true
        none = 100 * (1 - len(here) / len(pairs))
        rows.append(
            f"| {TITLES[name]} | {share(~low & ~high)} | {100 * low.mean():.1f} | {100 * high.mean():.1f} | "
            f"{none:.1f} | {len(pairs):,} |"
        )
    return rows


def methods(found: list[dict[str, Any]], part: str) -> list[str]:
    """Methods that gave something, in the order of the titles."""
    seen = {name for r in found for name in r[part]}
    return [name for name in TITLES if name in seen]


def share(hits: Array) -> str:
    """Return two cells: percentage and its standard error."""
    p = hits.mean()
    return f"{100 * p:.1f} | {100 * np.sqrt(p * (1 - p) / len(hits)):.1f}"


def counts(found: list[dict[str, Any]]) -> str:
    """Say how many fits failed, lay on the boundary or warned."""
    failed, boundary = sum(bool(r["failed"]) for r in found), sum(r["boundary"] for r in found)
    spent = Counter[str]()
    for r in found:
        spent.update(r["seconds"])
    took = ", ".join(f"{SAID[part]} {spent[part]:.0f}" for part in PARTS if spent[part])
    return (
        f"{len(found):,} replicates, {failed} with a fit or method that failed, {boundary:,} with an estimate on the "
        f"boundary. Processor seconds: {took}."
    )


def warned(found: list[dict[str, Any]]) -> str:
    """Return warnings with the number of replicates that gave them."""
    kinds = Counter(kind for r in found for kind in r["warned"])
    reasons = Counter(why for r in found for why in r["failed"])
    return "\n".join(f"    {count:>6}  {kind}" for kind, count in [*kinds.most_common(), *reasons.most_common(5)])


def write(name: str, text: str) -> None:
    """Replace what stands between the markers of a design on the page."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = PAGE.read_text()
    if begin not in page:
        raise SystemExit(f"{PAGE} has no marker {begin}")
    before, rest = page.split(begin)
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def main() -> None:
    """Run what is missing and print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--designs", default=",".join(DESIGNS))
    options.add_argument("--replicates", type=int, default=2000)
    options.add_argument("--parts", default=",".join(PARTS), help=f"of the methods; those with draws have {DRAWS}")
    options.add_argument("--write", action="store_true", help="put the tables into docs/simulations.md")
    asked = options.parse_args()
    for name in asked.designs.split(","):
        design = DESIGNS[name]()
        for part in asked.parts.split(","):
            run(design, asked.replicates, part)
        found = records(name, asked.replicates)
        text = tables(design, found)
        print(f"\n{text}\n\nwarnings and failures, replicates:\n{warned(found)}\n", flush=True)
        if asked.write:
            write(name, text)


if __name__ == "__main__":
    main()
