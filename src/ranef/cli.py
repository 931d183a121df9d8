"""The command line: `ranef fit`, `ranef predict`, `ranef datasets`.

A command is one function `options -> exit code` and one function that declares its options. Formulas come from whoever
typed them: nothing but column names and the listed transforms is ever evaluated.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import ENOENT
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, RanefError, RanefWarning

if TYPE_CHECKING:
    from ranef.model import Fit

OK, FAILED, USAGE, NOT_CONVERGED, INTERRUPTED = 0, 1, 2, 3, 130
EPILOG = "exit codes: 0 done, 1 the model or the data are wrong, 2 wrong usage, 3 the fit did not converge"
LOADED_LATE = ("pandas", "ranef.frame.spec", "ranef.formula.grammar", "ranef.report")
#: What counts as missing in a text file. Nothing else does: "None" may be a level.
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"]
STANDARD = "-"  # instead of a file: standard input or output
READERS = {".parquet": "read_parquet", ".pq": "read_parquet", ".feather": "read_feather", ".arrow": "read_feather"}
PACKERS = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}
#: First bytes of files that are no tables for us.
NO_TABLES = {
    b"PK\x03\x04": "a spreadsheet or a zip archive",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
    b'{"': "JSON",
    b"{\n": "JSON",
    b"[{": "JSON",
    b"[\n": "JSON",
}
SEPARATORS = {".tsv": "\t", ".tab": "\t"}
WRITERS = {".parquet": "to_parquet", ".pq": "to_parquet", ".feather": "to_feather", ".arrow": "to_feather"}
TABLES = (".csv", ".txt", *SEPARATORS, *WRITERS)
KINDS = ("auto", "trajectories", "caterpillar", "shrinkage", "residuals", "qq")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after the program's name; by default those of the process.

    Returns
    -------
    int
        0 done, 1 the model or the data are wrong, 2 wrong usage, 3 the fit did not converge.
    """
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said what is wrong, or has printed help
        return stop.code if isinstance(stop.code, int) else USAGE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows a question mark
            stream.reconfigure(errors="replace")
    with _warnings_as_lines():
        return _guarded(options.command, options)


def _guarded(command: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; an error is one message on stderr, with a traceback only where it is ours and asked for."""
    try:
        return command(options)
    except (OptionError, ArgumentError) as error:
        return _fail(_sentence(error), USAGE)
    except (RanefError, OSError, UnicodeError) as error:
        return _fail(_sentence(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("RANEF_DEBUG"):
            raise
        return _fail(f"unexpected {type(error).__name__}: {error}\nRANEF_DEBUG=1 shows where; please report it")


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(message: str, code: int = FAILED) -> int:
    print(f"ranef: error: {message}", file=sys.stderr)
    return code


@contextmanager
def _warnings_as_lines() -> Generator[None, None, None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", RanefWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"ranef: warning: {message}", file=sys.stderr)
        yield


# ---- ranef fit -------------------------------------------------------------------------------------------------------


def _fit(options: argparse.Namespace) -> int:
    from ranef.model import fit

    _check_places(options)
    clock = Clock()
    if options.time:  # what a first call loads would otherwise count as reading and fitting
        for name in LOADED_LATE:
            import_module(name)
    clock.lap("load libraries")
    data = read_table(options.data, options.na)
    clock.lap("read data")
    m = fit(
        options.formula,
        data,
        family=options.family,
        link=options.link,
        dispersion=options.dispersion,
        zero_inflation=options.zero_inflation,
        trials=options.trials,
        quadrature=options.quadrature,
        method=options.method,
        precision_weights=options.weights,
        frequency_weights=options.frequency_weights,
        offset=options.offset,
        missing=options.missing,
        contrasts=_contrasts(options.contrasts),
        fixed=_values(options.fixed),
        equal=[tuple(part.strip() for part in text.split("=")) for text in options.equal] or None,
        prior=_priors(options.prior),
        penalty=options.penalty,
        threads=options.threads,
        progress=False if options.quiet else None,
    )
    clock.lap("fit")
    if not options.quiet and STANDARD not in (options.out, options.tidy):
        _write_text(STANDARD, str(m.summary()))
        clock.lap("summary")
    _save_all(m, options)
    if options.time:
        print(clock, file=sys.stderr)
    return OK if m.converged else NOT_CONVERGED


def _check_places(options: argparse.Namespace) -> None:
    """Refuse files that could not be written, before the work is done; standard output takes one of them."""
    _check_place("--out", options.out, (".json",))
    _check_place("--tidy", options.tidy, TABLES)
    if options.out == options.tidy == STANDARD:
        raise OptionError("--out and --tidy both name standard output: give one of them a file")
    for option, path in (("--plot", options.plot), ("--save", options.save)):
        if path == STANDARD:
            raise OptionError(f"{option} takes the name of a file, not standard output")
    if options.plot:
        _check_place("--plot", options.plot, _pictures())
    _check_place("--save", options.save)


def _check_place(option: str, path: str | None, endings: Sequence[str] = ()) -> None:
    """Refuse endings that say no known format, and folders that do not exist."""
    if path is None or path == STANDARD:
        return
    if endings and Path(path).suffix.lower() not in endings:
        known = ", ".join(endings)
        raise OptionError(f"{option} {path}: the ending says the format, and is one of {known}")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)


def _save_all(m: Fit, options: argparse.Namespace) -> None:
    if options.out:
        _write_text(options.out, report_json(m))
    if options.tidy:
        write_table(m.tidy(effects=["fixed", "ran_pars"], conf_int=True), options.tidy)
    if options.plot:
        save_plot(m, options.plot, options.plot_kind)
    if options.save:
        save_model(m, options.save, options.slim)


def _contrasts(given: Sequence[str]) -> dict[str, str] | None:
    pairs = [pair.partition("=") for text in given for pair in text.split(",")]
    for name, sign, kind in pairs:
        if not (name and sign and kind):
            raise OptionError(f"--contrasts takes COLUMN=KIND, such as recipe=sum, not {name + sign + kind!r}")
    return {name.strip(): kind.strip() for name, _, kind in pairs} or None


def _values(given: Sequence[str]) -> dict[str, float] | None:
    out: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            out[name.strip()] = float(value)
        except ValueError:
            raise OptionError(f"--fixed takes PARAMETER=NUMBER, such as 'sd(site)=1', not {text!r}") from None
    return out or None


def _priors(given: Sequence[str]) -> Any:
    if list(given) == ["blme"]:
        return "blme"
    pairs = [re.match(r"\s*([^~]+?)\s*~\s*(.+)", text) for text in given]
    if None in pairs:
        raise OptionError(
            f"--prior takes 'PARAMETER ~ DENSITY', such as 'fixed ~ normal(0, 2.5)', or blme, not {given}"
        )
    return {p.group(1): p.group(2) for p in pairs if p} or None


def report_json(m: Fit) -> str:
    """Return the complete report of a fit as JSON text."""
    from ranef.report import record

    return json.dumps({"ranef": _version(), **record(m)}, indent=1, allow_nan=False) + "\n"


def save_plot(m: Fit, path: str, kind: str = "auto") -> None:
    """Draw one picture of a fit to a file; its name ends in the format: .png, .pdf, .svg."""
    _matplotlib().use("Agg")
    from matplotlib import pyplot as plt

    panels = _draw(m, kind)
    figure = (panels if not hasattr(panels, "ravel") else panels.ravel()[0]).figure
    try:
        figure.savefig(path, dpi=150)
    finally:
        plt.close(figure)


def _pictures() -> tuple[str, ...]:
    """Return the endings of the formats that matplotlib writes."""
    _matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    return tuple(f".{kind}" for kind in sorted(FigureCanvasBase.get_supported_filetypes()))


def _matplotlib() -> Any:
    try:
        import matplotlib as mpl
    except ImportError:
        raise NotAvailableError("--plot needs matplotlib: pip install matplotlib") from None
    return mpl


def _draw(m: Fit, kind: str) -> Any:
    from ranef import plot

    pictures: dict[str, Callable[[Fit], Any]] = {
        "trajectories": plot.trajectories,
        "caterpillar": plot.caterpillar,
        "shrinkage": plot.shrinkage,
        "residuals": plot.residuals_fitted,
        "qq": plot.qq,
    }
    if kind != "auto":
        return pictures[kind](m)
    if not m.layout.terms:
        return plot.residuals_fitted(m)
    try:
        return plot.trajectories(m)
    except (DataError, NotAvailableError):  # no numeric variable to draw against, or no number to draw
        return plot.caterpillar(m)


# ---- ranef predict ---------------------------------------------------------------------------------------------------


def _predict(options: argparse.Namespace) -> int:
    _check_place("--out", options.out, TABLES)
    m = load_model(options.model)
    data = read_table(options.data, options.na)
    found = m.predict(
        data,
        type=options.type,
        re=options.re if options.re in ("all", "none") else options.re.split(","),
        new_levels=options.new_levels,
        interval=options.interval,
        level=options.level,
        std_error=options.std_error,
        seed=options.seed,
    )
    write_table(_beside(data, found), options.out)
    return OK


def _beside(data: Any, found: Any) -> Any:
    """Return the rows with their predictions as further columns; a column of the same name gives way."""
    import narwhals as nw
    import numpy as np

    frame = nw.from_native(data, eager_only=True)
    columns = {"estimate": found} if isinstance(found, np.ndarray) else _columns(found)
    if taken := [name for name in columns if name in frame.columns]:
        warnings.warn(
            f"columns of the data are replaced by predictions: {', '.join(taken)}", RanefWarning, stacklevel=2
        )
    new = [nw.new_series(name, values, backend=frame.implementation) for name, values in columns.items()]
    return frame.with_columns(*new).to_native()


def _columns(frame: Any) -> dict[str, Any]:
    import narwhals as nw
    import numpy as np

    if isinstance(frame, dict):
        return {k: np.asarray(v) for k, v in frame.items()}
    table = nw.from_native(frame, eager_only=True)
    return {name: table[name].to_numpy() for name in table.columns}


def save_model(m: Fit, path: str, slim: bool = False) -> None:
    """Write a fit for `ranef predict` and `load_model`; without its rows, `slim`, there are fewer intervals."""
    with Path(path).open("wb") as file:
        pickle.dump({"ranef": _version(), "fit": m.slim() if slim else m}, file, protocol=5)


def load_model(path: str) -> Fit:
    """Read a fit that `save_model` wrote. A pickle can run any code: only load files that you trust.

    Raises
    ------
    DataError
        The file is not such a model.
    """
    raw = Path(path).read_bytes()
    if raw[:1] != b"\x80":
        hint = "; a JSON report cannot predict" if raw[:1] in (b"{", b"[") else ""
        raise DataError(f"{path} is not a model saved with ranef fit --save{hint}")
    try:
        found = pickle.loads(raw)  # noqa: S301 - the help and the docstring say that the file must be trusted
    except Exception as error:  # noqa: BLE001 - a damaged pickle can raise anything
        raise DataError(f"{path} cannot be read as a saved model ({type(error).__name__}: {error})") from None
    if not (isinstance(found, dict) and {"ranef", "fit"} <= set(found)):
        raise DataError(f"{path} is not a model saved with ranef fit --save")
    return found["fit"]


# ---- ranef datasets --------------------------------------------------------------------------------------------------


def _datasets(options: argparse.Namespace) -> int:
    from ranef import datasets

    if options.name is None:
        if options.out:
            raise OptionError("--out needs the NAME of a data set")
        found = [datasets.describe(name) for name in datasets.names()]
        width = max(len(d.name) for d in found)
        _write_text(STANDARD, "".join(f"{d.name:<{width}}  {d.rows:>6}  {d.title}\n" for d in found))
    elif options.out:
        _check_place("--out", options.out, TABLES)
        write_table(datasets.load(options.name), options.out)
    else:
        _write_text(STANDARD, f"{datasets.describe(options.name)}\n")
    return OK


# ---- files -----------------------------------------------------------------------------------------------------------


def read_table(path: str, missing: Sequence[str] = ()) -> Any:
    """Read a CSV, TSV, Parquet or Feather file, or CSV from standard input for `"-"`.

    In text files `missing` too are missing values. Text columns stay text: the frame takes them as factors with their
    levels in alphabetical order.
    """
    if path != STANDARD and (reader := READERS.get(Path(path).suffix.lower())):
        return _read_columns(path, reader)
    if "~" in path and not Path(path).exists():
        raise OptionError(f"{path!r} looks like a formula: the file comes first, ranef fit DATA FORMULA")
    raw = sys.stdin.buffer.read() if path == STANDARD else Path(path).read_bytes()
    return _read_text(raw, path, missing)


def _read_text(raw: bytes, path: str, missing: Sequence[str]) -> Any:
    import pandas as pd

    try:
        raw = _utf8(_unpacked(raw))
        if kind := next((kind for start, kind in NO_TABLES.items() if raw.startswith(start)), ""):
            raise DataError(f"{path} is {kind}: save the table as CSV, TSV, Parquet or Feather")
        name = re.sub(r"\.(gz|bz2|xz)$", "", path, flags=re.IGNORECASE)
        separator = SEPARATORS.get(Path(name).suffix.lower()) or _separator(raw)
        table = pd.read_csv(
            io.BytesIO(raw),
            sep=separator,
            decimal=_decimal(raw, separator),
            skipinitialspace=True,
            na_values=[*MISSING, *missing],
            keep_default_na=False,
        )
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # pandas' are ValueErrors
        hint = "; save it as UTF-8 text (CSV), or as Parquet" if isinstance(error, UnicodeError) else ""
        raise DataError(f"{path} cannot be read as a table: {error}{hint}") from None
    return table.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)


def _unpacked(raw: bytes) -> bytes:
    """Return the bytes without compression by gzip, bzip2 or xz, which their first bytes tell."""
    return next((unpack(raw) for start, unpack in PACKERS.items() if raw.startswith(start)), raw)


def _utf8(raw: bytes) -> bytes:
    """Return the bytes of a text as UTF-8 where it says that it is UTF-16."""
    return raw.decode("utf-16").encode() if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else raw


def _separator(raw: bytes) -> str:
    """Comma, unless the first line holds more semicolons, tabs or bars, or has blanks only."""
    head = raw[:65536].split(b"\n", 1)[0].strip()
    sign = max(",;\t|", key=lambda sign: head.count(sign.encode()))
    return sign if sign.encode() in head or b" " not in head else r"\s+"


def _decimal(raw: bytes, separator: str) -> str:
    """Point, or the comma of spreadsheets that separate by semicolons: where cells are numbers with a comma only."""
    cells = re.split(rb"[;\r\n]", raw[:65536].replace(b'"', b"")) if separator == ";" else []
    signs = {
        sign for cell in cells for sign in (b",", b".") if re.fullmatch(rb"\s*[+-]?\d*%b\d+\s*" % re.escape(sign), cell)
    }
    return "," if signs == {b","} else "."


def _read_columns(path: str, reader: str) -> Any:
    import pandas as pd

    with Path(path).open("rb"):  # a missing file is an OSError whatever the reader
        pass
    try:
        return getattr(pd, reader)(path)
    except ImportError:
        raise NotAvailableError(f"reading {path} needs pyarrow: pip install pyarrow") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None


def write_table(frame: Any, path: str) -> None:
    """Write a data frame as CSV, TSV, Parquet or Feather by the ending of `path`; CSV on standard output for `"-"`."""
    import narwhals as nw

    pandas = nw.from_native(frame, eager_only=True).to_pandas()
    suffix = Path(path).suffix.lower()
    if suffix in WRITERS:
        try:
            getattr(pandas.reset_index(drop=True), WRITERS[suffix])(path)
        except ImportError:
            raise NotAvailableError(f"writing {path} needs pyarrow: pip install pyarrow") from None
        return
    _write_text(path, pandas.to_csv(index=False, sep=SEPARATORS.get(suffix, ","), na_rep="NA", lineterminator="\n"))


def _write_text(path: str, text: str) -> None:
    if path != STANDARD:
        Path(path).write_text(text, encoding="utf-8")
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the process ends


@dataclass
class Clock:
    """Wall-clock time between laps."""

    start: float = field(default_factory=time.perf_counter)
    laps: list[tuple[str, float]] = field(default_factory=list)

    def lap(self, name: str) -> None:
        """Note the time since the last lap under `name`."""
        now = time.perf_counter()
        self.laps.append((name, now - self.start))
        self.start = now

    def __str__(self) -> str:
        return "time: " + ", ".join(f"{name} {seconds * 1e3:,.1f} ms" for name, seconds in self.laps)


def _version() -> str:
    try:
        return version("ranef")
    except PackageNotFoundError:
        return "unknown"


# ---- options ---------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ranef", description="Mixed-effects models.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"ranef {_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _fit_options(commands)
    _predict_options(commands)
    _datasets_options(commands)
    return parser


def _fit_options(commands: Any) -> None:
    p = commands.add_parser(
        "fit", help="fit a model to a table", epilog=EPILOG,
        description='Fit a model: ranef fit sleep.csv "Reaction ~ Days + (Days | Subject)"',
    )  # fmt: skip
    p.set_defaults(command=_fit)
    p.add_argument(
        "data",
        metavar="DATA",
        help="CSV, TSV (also .gz, .bz2, .xz), Parquet or Feather file; - for CSV on standard input",
    )
    p.add_argument("formula", metavar="FORMULA", help='as in lme4: "y ~ x + (x | g)"; text columns are factors')
    p.add_argument("--family", default="gaussian", help="distribution of the response (default: gaussian)")
    p.add_argument("--link", help="link of the mean (default: the family's)")
    p.add_argument("--dispersion", metavar="FORMULA", help='of the dispersion: "~ x"')
    p.add_argument("--zero-inflation", metavar="FORMULA", help='of the probability of extra zeros: "~ 1"')
    p.add_argument("--trials", metavar="COL", help="denominator of a binomial proportion")
    p.add_argument("--quadrature", type=int, default=1, help="nodes; 1 (default) is Laplace's approximation")
    p.add_argument(
        "--method", type=str.lower, choices=("reml", "ml", "map", "pql"), help="criterion (default for gaussian: reml)"
    )
    p.add_argument(
        "--fixed", metavar="NAME=VALUE", action="append", default=[],
        help="hold a parameter at a value: 'sd(site)=1'; may be repeated",
    )  # fmt: skip
    p.add_argument(
        "--equal", metavar="NAME=NAME", action="append", default=[],
        help="let parameters share one value: 'sd(a)=sd(b)'; may be repeated",
    )  # fmt: skip
    p.add_argument(
        "--prior", metavar="NAME~DENSITY", action="append", default=[],
        help="prior of a parameter or a class: 'fixed ~ normal(0, 2.5)', 'sd(g) ~ gamma(2.5, 0)', or blme; repeatable",
    )  # fmt: skip
    p.add_argument("--penalty", choices=("firth",), help="Jeffreys' prior of the fixed effects (binomial, poisson)")
    p.add_argument("--weights", metavar="COL", help="precision weights: the residual variance is sigma^2 / weight")
    p.add_argument("--frequency-weights", metavar="COL", help="how many equal rows a row stands for")
    p.add_argument("--offset", metavar="COL", help="column added to the linear predictor")
    p.add_argument("--missing", choices=("drop", "raise"), default="drop", help="rows with missing values")
    _missing_option(p)
    p.add_argument(
        "--contrasts", metavar="COL=KIND", action="append", default=[],
        help="treatment, sum, helmert, poly, SAS or sdif for a factor; may be repeated",
    )  # fmt: skip
    p.add_argument("--threads", type=int, metavar="N", help="threads of the core (default: all)")
    p.add_argument("--out", metavar="FIT.json", help="write a complete report of the fit (not a model to predict from)")
    p.add_argument(
        "--tidy", metavar="TABLE.csv",
        help="write estimates with 95%% intervals (.csv, .tsv, .parquet, .feather); --out - and --tidy - write to "
        "standard output, instead of the summary",
    )  # fmt: skip
    p.add_argument("--plot", metavar="FILE.png", help="draw a picture (.png, .pdf, .svg)")
    p.add_argument("--plot-kind", choices=KINDS, default="auto", help="which picture (default: what suits the model)")
    p.add_argument("--save", metavar="MODEL.ranef", help="save the model for ranef predict (a Python pickle)")
    p.add_argument(
        "--slim", action="store_true",
        help="save it without the rows: a small file, but no intervals of predictions that include random effects",
    )  # fmt: skip
    p.add_argument("--time", action="store_true", help="print timings on standard error")
    p.add_argument("-q", "--quiet", action="store_true", help="print neither the summary nor how far the fit is")


def _predict_options(commands: Any) -> None:
    p = commands.add_parser(
        "predict", help="predict new rows from a saved model", epilog=EPILOG,
        description="Predict new rows from a model that ranef fit --save wrote. The model file is a Python pickle, and "
        "loading one can run any code: only use files from a source that you trust.",
    )  # fmt: skip
    p.set_defaults(command=_predict)
    p.add_argument("model", metavar="MODEL.ranef", help="model saved with ranef fit --save")
    p.add_argument("data", metavar="NEW", help="file with the rows, as for ranef fit; - for CSV on standard input")
    p.add_argument(
        "--re", default="all", metavar="GROUPS",
        help="random effects to include: all (default), none, or grouping factors joined by commas",
    )  # fmt: skip
    p.add_argument(
        "--new-levels", choices=("error", "population", "sample"), default="error",
        help="levels that the fitted data did not have: refuse (default), effect zero, or a drawn effect",
    )  # fmt: skip
    p.add_argument(
        "--type", default="response",
        help="what to predict: response (default), link, probs of categories, zero_inflation, 'link(zero_inflation)' …",
    )  # fmt: skip
    p.add_argument("--interval", choices=("confidence", "prediction"), help="add interval limits")
    p.add_argument("--level", type=float, default=0.95, help="coverage of the interval (default: 0.95)")
    p.add_argument("--std-error", action="store_true", help="add standard errors")
    p.add_argument("--seed", type=int, help="seed of drawn effects")
    _missing_option(p)
    p.add_argument(
        "--out", metavar="FILE.csv", default=STANDARD,
        help="write here instead of standard output (.csv, .tsv, .parquet, .feather)",
    )  # fmt: skip


def _missing_option(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--na", metavar="TEXT", action="append", default=[],
        help="what else is a missing value in a text file, such as . or -999; may be repeated",
    )  # fmt: skip


def _datasets_options(commands: Any) -> None:
    p = commands.add_parser(
        "datasets", help="list, describe or export the data sets that come with ranef", epilog=EPILOG,
        description="List the data sets that come with ranef, describe one, or write it to a file.",
    )  # fmt: skip
    p.set_defaults(command=_datasets)
    p.add_argument("name", metavar="NAME", nargs="?", help="data set; without it, all are listed")
    p.add_argument(
        "--out", metavar="FILE.csv", help="write the data (.csv, .tsv, .parquet, .feather; - for standard output)"
    )
