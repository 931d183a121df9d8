"""The command line, through `main` and once through a real process."""

import gzip
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef import cli
from ranef.cli import main

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "sleep.csv"
    rf.datasets.sleepstudy().to_csv(path, index=False)
    return str(path)


@pytest.fixture
def model(csv, tmp_path, capsys):
    path = str(tmp_path / "m.ranef")
    assert main(["fit", csv, FORMULA, "--save", path, "--quiet"]) == 0
    capsys.readouterr()
    return path


def failed(capsys, code, found):
    """The message of a command that failed with `code`: nothing on stdout, one error, no traceback."""
    out, err = capsys.readouterr()
    assert found == code
    assert out == ""
    assert "Traceback" not in err
    return err


# ---- fit -------------------------------------------------------------------------------------------------------------


def test_fit_prints_the_summary(csv, capsys):
    assert main(["fit", csv, FORMULA]) == 0
    out, err = capsys.readouterr()
    m = rf.fit(FORMULA, pd.read_csv(csv))
    assert out == str(m.summary())
    assert err == ""


def test_fit_writes_everything(csv, tmp_path, capsys):
    paths = {name: tmp_path / name for name in ("fit.json", "table.csv", "out.png", "m.ranef")}
    options = [
        word for flag, name in zip(("--out", "--tidy", "--plot", "--save"), paths, strict=True)
        for word in (flag, str(paths[name]))
    ]  # fmt: skip
    assert main(["fit", csv, FORMULA, "--method", "ml", "--time", "--quiet", *options]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("time: ")
    report = json.loads(paths["fit.json"].read_text())
    assert report["figures"]["criterion"] == pytest.approx(1751.93934, abs=1e-4)
    assert report["method"] == "ml"
    table = pd.read_csv(paths["table.csv"])
    assert table["term"].tolist()[:3] == ["(Intercept)", "Days", "sd__(Intercept)"]
    assert {"conf_low", "conf_high"} <= set(table.columns)
    assert paths["out.png"].read_bytes()[:4] == b"\x89PNG"
    assert paths["m.ranef"].stat().st_size < 20_000


def test_weights_offset_and_contrasts_reach_the_model(tmp_path, capsys):
    path = tmp_path / "d.csv"
    data = rf.datasets.sim_crossed()
    data.to_csv(path, index=False)
    formula = "y ~ x1 + f + (1 | a)"
    out = str(tmp_path / "o.json")
    words = ["--weights", "w", "--offset", "off", "--contrasts", "f=sum", "--threads", "1", "--quiet", "--out", out]
    assert main(["fit", str(path), formula, *words]) == 0
    m = rf.fit(formula, pd.read_csv(path), precision_weights="w", offset="off", contrasts={"f": "sum"})
    found = json.loads(Path(out).read_text())
    assert found["figures"]["criterion"] == pytest.approx(m.criterion, abs=1e-9)
    assert [t["term"] for t in found["fixed"]["terms"]] == list(m.layout.fixed)


SIGNS = {".tsv": "\t", ".csv;": ";", ".csv|": "|", ".txt ": " ", ".tsv.xz": "\t"}


@pytest.mark.parametrize("ending", [*SIGNS, ".csv.gz", ".csv.bz2", ".csv.xz", ".parquet", ".feather"])
def test_other_formats(ending, tmp_path, capsys):
    data = rf.datasets.sleepstudy()
    path = tmp_path / f"d{ending.rstrip(';| ')}"
    if ending in (".parquet", ".feather"):
        getattr(data, f"to_{ending[1:]}")(path)
    else:
        data.to_csv(path, index=False, sep=SIGNS.get(ending, ","))
    assert main(["fit", str(path), FORMULA]) == 0
    assert "1743.628" in capsys.readouterr().out


def commas(text):
    return text.replace(",", ";").replace(".", ",")


def blanks(text):
    return text.replace(",", " , ")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: commas(text).encode(),
        lambda text: blanks(text).encode(),
        lambda text: text.replace(",", "\t").encode("utf-16"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: gzip.compress(text.replace(",", ";").encode()),
    ],
    ids=["decimal commas", "blanks", "utf-16", "byte order mark", "carriage returns", "compressed semicolons"],
)
def test_text_as_spreadsheets_write_it(change, tmp_path, capsys):
    path = tmp_path / "d.csv"
    path.write_bytes(change(rf.datasets.sleepstudy().to_csv(index=False)))
    assert main(["fit", str(path), FORMULA, "--method", "REML"]) == 0
    assert "1743.628" in capsys.readouterr().out


def test_a_comma_is_decimal_only_where_no_number_has_a_point(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a;b;c\n1,5;2;x,1\n-3,25;4;y,2\n")
    table = cli.read_table(str(path))
    assert table["a"].tolist() == [1.5, -3.25]
    assert table["c"].tolist() == ["x,1", "y,2"]
    path.write_text("a;b\n1.5;2,5\n")
    assert cli.read_table(str(path))["a"].tolist() == [1.5]
    path.write_text('a,b\n"1,5",2\n')
    assert cli.read_table(str(path))["a"].tolist() == ["1,5"]


def test_standard_input(monkeypatch, capsys, csv):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(csv).read_bytes())))
    assert main(["fit", "-", FORMULA]) == 0
    assert "1743.628" in capsys.readouterr().out


def test_missing_values_in_text_files(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("y,g\n1,a\nNA,b\n,None\n2,NA\n")
    table = cli.read_table(str(path))
    assert table["y"].isna().tolist() == [False, True, True, False]
    assert table["g"].isna().tolist() == [False, False, False, True]


def test_standard_output_takes_a_table_or_the_report_alone(csv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["fit", csv, FORMULA, "--tidy", "-"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert table["term"].tolist()[:2] == ["(Intercept)", "Days"]
    assert main(["fit", csv, FORMULA, "--out", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["formula"] == FORMULA
    assert main(["datasets", "sleepstudy", "--out", "-"]) == 0
    assert capsys.readouterr().out == Path(csv).read_text()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".feather"])
def test_tables_are_written_by_their_ending(csv, tmp_path, ending):
    path = tmp_path / f"t{ending}"
    assert main(["fit", csv, FORMULA, "--quiet", "--tidy", str(path)]) == 0
    assert cli.read_table(str(path))["term"].tolist()[:2] == ["(Intercept)", "Days"]


@pytest.mark.parametrize("mark", [".", "unknown", "?"])
def test_one_text_in_a_column_of_numbers_is_told(mark, tmp_path, capsys):
    data = rf.datasets.sim_crossed().head(300)
    data["age"] = (data["x1"] * 10).round().astype(int).astype(str)
    data.loc[7, "age"] = mark
    path = str(tmp_path / "d.csv")
    data.to_csv(path, index=False)
    assert main(["fit", path, "y ~ age + (1 | a)"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"'age' is text that holds numbers, and '{mark}' in row 7 (counted from 0): it is taken as a factor" in out
    data["y"] = data["y"].astype(str)
    data.loc[3, "y"] = mark
    data.to_csv(path, index=False)
    assert f"because of '{mark}' in row 3" in failed(capsys, 1, main(["fit", path, "y ~ x1 + (1 | a)"]))
    assert main(["fit", path, "y ~ age + (1 | a)", "--na", mark]) == 0
    assert "300 rows; 2 dropped" in capsys.readouterr().out


def test_missing_raise(tmp_path, capsys):
    path = tmp_path / "d.csv"
    rf.datasets.sim_crossed().to_csv(path, index=False)
    words = ["fit", str(path), "y_mis ~ x1 + (1 | a)"]
    assert main([*words, "--quiet"]) == 0
    assert "y_mis" in failed(capsys, 1, main([*words, "--missing", "raise"]))


@pytest.mark.parametrize("kind", cli.KINDS)
def test_every_kind_of_plot(kind, csv, tmp_path):
    path = tmp_path / "p.png"
    assert main(["fit", csv, FORMULA, "--quiet", "--plot", str(path), "--plot-kind", kind]) == 0
    assert path.stat().st_size > 5_000


@pytest.mark.parametrize("formula", ["Reaction ~ Days", "Reaction ~ 1 + (1 | Subject)"])
def test_the_picture_suits_the_model(formula, csv, tmp_path):
    path = tmp_path / "p.svg"
    assert main(["fit", csv, formula, "--quiet", "--plot", str(path)]) == 0
    assert path.read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([FORMULA.replace("Days", "Dayz")], 1, "did you mean 'Days'"),
        (["Reaction ~ (Days |"], 1, "^"),
        (["Reaction ~ __import__('os').getcwd() + (1 | Subject)"], 1, "__import__"),
        (["Reaction ~ open('x') + (1 | Subject)"], 1, "open"),
        (["Reaction ~ Days.__class__ + (1 | Subject)"], 1, "__class__"),
        ([FORMULA, "--family", "poisson"], 1, "poisson"),
        ([FORMULA, "--contrasts", "Subject"], 2, "COLUMN=KIND"),
        ([FORMULA, "--method", "mcmc"], 2, "invalid choice"),
        ([FORMULA, "--weights", "nope"], 1, "nope"),
        ([FORMULA, "--no-such-option"], 2, "unrecognized"),
        ([FORMULA, "--quiet", "--plot", "x.nope"], 2, "nope"),
        ([FORMULA, "--quiet", "--out", "no/such/folder/x.json"], 1, "No such file"),
        ([FORMULA, "--tidy", "table.foo"], 2, ".parquet"),
        ([FORMULA, "--tidy", "table"], 2, ".csv"),
        ([FORMULA, "--out", "fit.txt"], 2, ".json"),
        ([FORMULA, "--out", "-", "--tidy", "-"], 2, "both name standard output"),
        ([FORMULA, "--plot", "-"], 2, "--plot takes the name of a file"),
        ([FORMULA, "--save", "-"], 2, "--save takes the name of a file"),
        ([], 2, "FORMULA"),
    ],
)
def test_wrong_input_is_one_clear_error(words, code, message, csv, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in failed(capsys, code, main(["fit", csv, *words]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "cannot be read as a table"),
        (b"\x1f\x8bnot gzip", "cannot be read as a table"),
        (b"\xff\xfe\x00\xd8\x00", "cannot be read as a table"),
        ("Réaction".encode("latin1"), "save it as UTF-8"),
        (b"PK\x03\x04and so on", "is a spreadsheet or a zip archive: save the table as CSV"),
        (b'{"Reaction": [1, 2]}', "is JSON"),
        (b"[\n{}]", "is JSON"),
        (b"[y],g\n1,2\n", "there is no column"),
        (b'a,b\n1,2,3,4\n1\n"', "cannot be read as a table"),
        (b"Reaction,Days,Subject\n", "ranef: error"),
        (b"Reaction,Days,Subject\n1,2,a\n", "ranef: error"),
    ],
)
def test_bad_files(content, message, tmp_path, capsys):
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    assert message in failed(capsys, 1, main(["fit", str(path), FORMULA]))


def test_bad_parquet(tmp_path, capsys):
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1")
    assert "cannot be read" in failed(capsys, 1, main(["fit", str(path), FORMULA]))
    assert "No such file" in failed(capsys, 1, main(["fit", str(tmp_path / "none.parquet"), FORMULA]))


def test_no_convergence_is_exit_code_3(csv, capsys, monkeypatch):
    real = rf.model.fit

    def hasty(*arguments, **options):
        return real(*arguments, **{**options, "method": "ml", "control": {"max_evaluations": 1}})

    monkeypatch.setattr("ranef.model.fit", hasty)
    assert main(["fit", csv, FORMULA]) == 3
    out, err = capsys.readouterr()
    assert "NOT CONVERGED" in out
    assert err.startswith("ranef: warning: ")


def test_our_own_faults_show_no_traceback(csv, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("ranef.model.fit", broken)
    assert "unexpected ZeroDivisionError: oh" in failed(capsys, 1, main(["fit", csv, FORMULA]))
    monkeypatch.setenv("RANEF_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["fit", csv, FORMULA])


def test_interruption(csv, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ranef.model.fit", interrupted)
    assert main(["fit", csv, FORMULA]) == 130


# ---- predict ---------------------------------------------------------------------------------------------------------


def predicted(capsys, words):
    assert main(["predict", *words]) == 0
    return pd.read_csv(io.StringIO(capsys.readouterr().out))


def test_predictions_equal_those_of_the_fit(model, csv, capsys):
    m = rf.fit(FORMULA, pd.read_csv(csv))
    table = predicted(capsys, [model, csv])
    assert table.columns.tolist() == ["Reaction", "Days", "Subject", "estimate"]
    assert_allclose(table["estimate"], m.fitted())
    assert_allclose(predicted(capsys, [model, csv, "--re", "none"])["estimate"], m.predict(re="none"))
    assert_allclose(predicted(capsys, [model, csv, "--re", "Subject"])["estimate"], m.fitted())


def test_intervals(model, csv, capsys):
    narrow = predicted(capsys, [model, csv, "--interval", "confidence", "--level", "0.5"])
    wide = predicted(capsys, [model, csv, "--interval", "prediction"])
    assert (narrow["conf_low"] > wide["conf_low"]).all()
    assert "std_error" in predicted(capsys, [model, csv, "--std-error"])


def test_intervals_and_types_of_generalised_models(tmp_path, capsys):
    path, saved = tmp_path / "d.csv", str(tmp_path / "m.ranef")
    data = rf.datasets.load("cbpp")
    data.to_csv(path, index=False)
    formula = "cbind(incidence, size - incidence) ~ factor(period) + (1 | herd)"
    assert main(["fit", str(path), formula, "--family", "binomial", "--save", saved, "-q"]) == 0
    m = rf.fit(formula, pd.read_csv(path), family="binomial")
    capsys.readouterr()
    given = pd.read_csv(io.StringIO(_out(capsys, ["predict", saved, str(path), "--interval", "confidence"])))
    assert_allclose(given[["conf_low", "conf_high"]], m.predict(interval="confidence")[["conf_low", "conf_high"]])
    given = pd.read_csv(io.StringIO(_out(capsys, ["predict", saved, str(path), "--type", "link"])))
    assert_allclose(given["estimate"], m.predict(type="link"))
    assert main(["fit", str(path), formula, "--family", "binomial", "--save", saved, "--slim", "-q"]) == 0
    assert main(["predict", saved, str(path), "--interval", "confidence"]) == 1
    assert "need the rows" in capsys.readouterr().err


def _out(capsys, words):
    assert main(words) == 0
    return capsys.readouterr().out


def test_frequency_weights(tmp_path):
    path, out = tmp_path / "d.csv", tmp_path / "m.json"
    data = pd.DataFrame(
        {"y": [0, 1, 0, 1, 1, 0, 1, 0], "w": [3, 2, 5, 1, 4, 1, 2, 2], "g": list("aabbccdd"), "x": [1, 2, 1, 2] * 2}
    )
    data.to_csv(path, index=False)
    words = ["fit", str(path), "y ~ x + (1 | g)", "--family", "binomial", "--frequency-weights", "w", "-q"]
    assert main([*words, "--out", str(out)]) == 0
    m = rf.fit("y ~ x + (1 | g)", data, family="binomial", frequency_weights="w")
    assert json.loads(out.read_text())["figures"]["loglik"] == pytest.approx(m.loglik, abs=1e-9)


def test_a_formula_in_the_place_of_the_file(csv, capsys):
    assert "the file comes first" in failed(capsys, 2, main(["fit", FORMULA, csv]))


def test_new_levels(model, tmp_path, capsys):
    path = tmp_path / "new.csv"
    path.write_text("Days,Subject\n0,somebody\n")
    assert "somebody" in failed(capsys, 1, main(["predict", model, str(path)]))
    table = predicted(capsys, [model, str(path), "--new-levels", "population"])
    assert table["estimate"].iloc[0] == pytest.approx(251.405, abs=1e-3)
    drawn = [predicted(capsys, [model, str(path), "--new-levels", "sample", "--seed", "1"]) for _ in range(2)]
    assert drawn[0].equals(drawn[1])


def test_columns_that_predictions_replace_are_told(model, tmp_path, capsys):
    path = tmp_path / "new.csv"
    path.write_text("Days,Subject,estimate\n3,308,77\n")
    assert main(["predict", model, str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Days,Subject,estimate\n3,308,312.66")
    assert "replaced by predictions: estimate" in err


def test_population_needs_no_groups(model, tmp_path, capsys):
    path = tmp_path / "new.csv"
    path.write_text("Days\n1\nNA\n")
    table = predicted(capsys, [model, str(path), "--re", "none"])
    assert table["estimate"].isna().tolist() == [False, True]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_predictions_go_to_a_file(model, csv, tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    assert main(["predict", model, csv, "--out", str(path)]) == 0
    table = pd.read_parquet(path) if ending == "parquet" else pd.read_csv(path, sep="\t" if ending == "tsv" else ",")
    assert len(table) == 180


def test_what_is_no_model(csv, tmp_path, capsys):
    report, pickled, broken = tmp_path / "fit.json", tmp_path / "p.pkl", tmp_path / "b.pkl"
    assert main(["fit", csv, FORMULA, "--quiet", "--out", str(report)]) == 0
    pickled.write_bytes(pickle.dumps({"a": 1}))
    broken.write_bytes(b"\x80nonsense")
    assert "a JSON report cannot predict" in failed(capsys, 1, main(["predict", str(report), csv]))
    assert "not a model" in failed(capsys, 1, main(["predict", csv, csv]))
    assert "not a model" in failed(capsys, 1, main(["predict", str(pickled), csv]))
    assert "cannot be read" in failed(capsys, 1, main(["predict", str(broken), csv]))
    assert "No such file" in failed(capsys, 1, main(["predict", str(tmp_path / "none"), csv]))


def test_wrong_options_of_predict(model, csv, capsys):
    assert "did you mean 'Subject'" in failed(capsys, 2, main(["predict", model, csv, "--re", "Subjec"]))
    assert "invalid choice" in failed(capsys, 2, main(["predict", model, csv, "--interval", "wide"]))


# ---- datasets and help -----------------------------------------------------------------------------------------------


def test_datasets_are_listed(capsys):
    assert main(["datasets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rf.datasets.names())
    assert any(line.split()[:2] == ["sleepstudy", "180"] for line in lines)


def test_a_data_set_is_described_and_exported(tmp_path, capsys):
    assert main(["datasets", "cake"]) == 0
    assert capsys.readouterr().out == f"{rf.datasets.describe('cake')}\n"
    path = tmp_path / "cake.csv"
    assert main(["datasets", "cake", "--out", str(path)]) == 0
    assert np.array_equal(pd.read_csv(path)["angle"], rf.datasets.cake()["angle"])


def test_wrong_use_of_datasets(capsys, tmp_path):
    assert "did you mean 'cake'" in failed(capsys, 2, main(["datasets", "cakes"]))
    assert "NAME" in failed(capsys, 2, main(["datasets", "--out", str(tmp_path / "x.csv")]))


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["predict", "--help"], ["datasets", "--help"]])
def test_help_documents_the_exit_codes(words, capsys):
    assert main(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "3 the fit did not converge" in text
    if words[0] == "predict":
        assert "trust" in text


def test_no_command(capsys):
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


def test_as_a_process(csv):
    def run(formula):
        words = [sys.executable, "-m", "ranef", "fit", csv, formula]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    found = run(FORMULA)
    assert found.returncode == 0
    assert "1743.628" in found.stdout
    found = run("y ~")
    assert found.returncode == 1
    assert "Traceback" not in found.stderr


def test_generalised_models(tmp_path, capsys):
    path = tmp_path / "cbpp.csv"
    rf.datasets.cbpp().to_csv(path, index=False)
    formula = "incidence / size ~ factor(period) + (1 | herd)"
    assert main(["fit", str(path), formula, "--family", "binomial", "--trials", "size"]) == 0
    assert "binomial (logit link)" in capsys.readouterr().out


def test_values_ties_and_priors(tmp_path, capsys):
    path = tmp_path / "p.csv"
    rf.datasets.load("Penicillin").to_csv(path, index=False)
    command = ["fit", str(path), "diameter ~ 1 + (1 | plate) + (1 | sample)", "--method", "ml"]
    assert main([*command, "--equal", "sd(plate)=sd(sample)", "--fixed", "sigma=0.5"]) == 0
    out = capsys.readouterr().out
    assert "Held: sigma = 0.5" in out
    assert "Tied: sd(plate) = sd(sample)" in out
    assert main([*command, "--prior", "sd(plate) ~ gamma(2.5, 0)", "--prior", "fixed ~ normal(20, [9, 1])"]) == 0
    assert "sd(plate) ~ gamma(shape=2.5, rate=0); fixed ~ normal(" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "--prior", "blme"]) == 0
    assert "wishart(common scale)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fixed", "sigma"], "PARAMETER=NUMBER"),
        (["--fixed", "sd(z)=1"], "no parameter 'sd(z)'"),
        (["--prior", "normal(0, 1)"], "PARAMETER ~ DENSITY"),
        (["--prior", "Days ~ norml(0, 1)"], "did you mean 'normal'"),
        (["--equal", "Days"], "two parameters"),
    ],
)
def test_wrong_values_and_priors(words, message, csv, capsys):
    assert message in failed(capsys, 2, main(["fit", csv, FORMULA, *words]))
