"""The summary says what lme4's readers look for, and what was dropped, and fits the terminal."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.report import summary_html, summary_text
from ranef.report._facts import gather

SLEEP = """\
Linear mixed model fit by REML
 Formula: Reaction ~ Days + (Days | Subject)
    Data: pandas data frame, 180 rows

 REML criterion  df.resid
       1743.628       174

Scaled residuals:
     Min       1Q  Median      3Q     Max
 -3.9536  -0.4634  0.0231  0.4634  5.1793

Random effects:
 Groups    Name         Variance  Std.Dev.   Corr
 Subject   (Intercept)    612.09    24.740
           Days            35.07     5.922  0.066
 Residual                 654.94    25.592
Number of obs: 180; groups: Subject 18

Fixed effects (t tests, Satterthwaite's degrees of freedom):
              Estimate  Std. Error     df  t value  Pr(>|t|)
 (Intercept)   251.405       6.825  17.00   36.838    <2e-16
 Days           10.467       1.546  17.00    6.771  3.26e-06

Optimum certified: """


class Outline(HTMLParser):
    """Collects text by tag and checks that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.found.append((self.open[-1] if self.open else "", data.strip()))

    def cells(self, *tags):
        return [text for tag, text in self.found if tag in tags and text]


def outline(html):
    parser = Outline()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return parser


def lines_after(text, start):
    lines = str(text).splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith(start)) :]


def test_sleepstudy_reads_as_expected(sleep):
    assert str(summary_text(sleep)).startswith(SLEEP)


def test_print_summary_and_prompt_show_the_same_text(sleep):
    assert str(sleep) == str(sleep.summary()) == repr(summary_text(sleep)) == str(summary_text(sleep))


def test_lines_fit_a_terminal_and_have_no_trailing_blanks(sleep, awkward, flat, plain):
    for m in (sleep, awkward, flat, plain):
        lines = str(summary_text(m, correlation=True)).splitlines()
        assert max(map(len, lines)) <= 100
        assert all(line == line.rstrip() for line in lines)


def test_ml_has_the_information_criteria(awkward):
    heads, numbers = lines_after(summary_text(awkward), "  Offset")[2:4]
    assert heads.split() == ["AIC", "BIC", "logLik", "-2*log(L)", "df.resid"]
    found = [float(v) for v in numbers.split()]
    expected = [awkward.aic, awkward.bic, awkward.loglik, awkward.criterion, awkward.df_residual]
    assert found == pytest.approx(expected, abs=0.051)


def test_dropped_rows_are_counted_by_column(awkward):
    text = " ".join(str(summary_text(awkward)).split())
    assert "polars data frame, 500 rows; 44 dropped for missing values (y_mis 25, x2_mis 20)" in text
    assert "Number of obs: 456; groups: a 30, b 18" in text
    assert "Weights: precision weights w" in text
    assert "Offset: off" in text


def test_dropped_columns_have_nan_and_a_name(awkward):
    text = str(summary_text(awkward))
    row = next(line for line in text.splitlines() if line.startswith(" x3"))
    assert row.split() == ["x3", *["NaN"] * 5]
    assert "Not estimated: x3 is a linear combination of the columns before." in text
    assert text.count("linear") == 1  # messages do not say it again


def test_boundary_is_said_in_words(flat):
    text = str(summary_text(flat))
    assert "Boundary: variance of (Intercept) | Batch estimated 0; a valid optimum" in text
    assert text.count("drop it, accept it") == 1
    row = next(line for line in text.splitlines() if line.startswith(" Batch"))
    assert [float(v) for v in row.split()[2:]] == [0, 0]


def test_no_random_effects(plain):
    text = str(summary_text(plain))
    assert text.startswith("Linear model fit by REML")
    assert "Random effects" not in text
    assert "Estimates in closed form." in text
    assert "t tests):" in text


def test_a_fit_that_did_not_converge_says_so(sleep):
    bad = replace(sleep, estimate=replace(sleep.estimate, outcome="max_evaluations"))
    assert "NOT CONVERGED: stopped at the allowed number of evaluations" in str(summary_text(bad))


def test_notes_of_the_fit_are_shown():
    few = rf.datasets.sleepstudy().query("Subject in ['308', '309', '310', '330']")
    m = rf.fit("Reaction ~ Days + (1 | Subject)", few)
    assert "Note: 'Subject' has 4 levels" in str(summary_text(m))


def test_a_slim_fit_has_the_same_summary(sleep, awkward):
    for m in (sleep, awkward):
        assert str(m.slim().summary()) == str(m.summary())


def test_correlation_of_fixed_effects(sleep, awkward):
    lines = lines_after(summary_text(sleep, correlation=True), "Correlation of fixed effects")
    assert lines[3].split() == ["2", "Days", "-0.14"]
    assert "x3" not in "".join(lines_after(summary_text(awkward, correlation=True), "Correlation of fixed effects")[:8])


def test_many_correlated_columns_get_a_table_of_their_own():
    rng = np.random.default_rng(4)
    data = {f"x{j}": rng.standard_normal(400) for j in range(7)} | {"g": np.repeat(np.arange(40), 10)}
    data["y"] = rng.standard_normal((40, 7))[data["g"]].sum(1) + rng.standard_normal(400)
    bar = " + ".join(f"x{j}" for j in range(7))
    m = rf.fit(f"y ~ 1 + ({bar} | g)", data)
    text = str(summary_text(m))
    assert "Correlation of g:" in text
    assert max(map(len, text.splitlines())) <= 100


def test_independent_columns_show_no_correlation():
    m = rf.fit("Reaction ~ Days + (Days || Subject)", rf.datasets.sleepstudy())
    assert "Corr" not in str(summary_text(m))


def test_long_names_stand_on_their_own_line():
    data = rf.datasets.sleepstudy()
    name = "a_column_whose_name_is_longer_than_forty_characters"
    m = rf.fit(f"Reaction ~ {name} + (1 | Subject)", data.rename(columns={"Days": name}))
    lines = lines_after(summary_text(m), "Fixed effects")
    assert lines[3] == f" {name}"
    assert len(lines[4].split()) == 5


def test_html_is_closed_and_holds_the_same_numbers(sleep, awkward, flat, plain):
    for m in (sleep, awkward, flat, plain):
        page = outline(summary_html(m))
        facts = gather(m)
        cells = [cell for s in facts.sections for row in (s.table.header, *s.table.rows) for cell in row if cell]
        assert page.cells("td", "th") == cells
        assert page.cells("dd") == [text for _, text in facts.head]


def test_html_escapes_names():
    data = {"y": np.arange(12.0) % 5, "<b>&x": np.arange(12.0) ** 2, "g": np.repeat(["<script>", "b", "c"], 4)}
    html = summary_html(rf.fit("y ~ `<b>&x` + (1 | g)", data))
    assert "<b>" not in html
    assert "<script" not in html
    assert "&lt;b&gt;&amp;x" in html
    outline(html)


def test_html_belongs_to_the_notebook(sleep):
    assert sleep._repr_html_() == summary_html(sleep)
    assert "<html" not in summary_html(sleep)


def test_categories_and_their_law_are_said():
    rng = np.random.default_rng(4)
    answer = pd.Categorical(np.array(["no", "so", "yes"])[rng.integers(0, 3, 90)], ["no", "so", "yes"], ordered=True)
    data = pd.DataFrame({"answer": answer, "x": rng.normal(size=90), "two": np.where(answer == "no", "no", "yes")})
    plain = rf.fit("answer ~ x", data, family="cumulative", threshold="equidistant").summary()
    assert " Response: no < so < yes\n      Law: P(Y <= c) = F(threshold - location)\n" in plain
    scaled = rf.fit("answer ~ x", data, family="sratio", scale="~ x").summary()
    assert "Law: P(Y = c | Y >= c) = F((threshold - location) / scale)\n" in scaled
    assert (
        " Response: log odds of so and yes against no\n" in rf.fit("answer ~ x", data, family="multinomial").summary()
    )
    assert " Response: yes (against no)\n" in rf.fit("two ~ x", data, family="binomial").summary()


def test_held_coefficients_have_no_test():
    data = {"y": np.random.default_rng(1).poisson(2, 60), "x": np.linspace(-1, 1, 60)}
    text = rf.fit("y ~ x", data, family="poisson", fixed={"x": 0.25}).summary()
    assert next(line for line in text.splitlines() if line.startswith(" x ")).split() == ["x", "0.25000", "held"]
