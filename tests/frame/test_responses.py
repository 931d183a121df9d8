"""Responses of every form a family takes, and what is refused, with rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import ArgumentError, DataError, InfiniteError, OptionError, UnknownColumnError
from ranef.formula import parse
from ranef.frame import Outcome, Part, build

DATA = pd.DataFrame(
    {
        "hits": [1.0, 0, 3, 2], "size": [4.0, 2, 3, 5], "share": [0.25, 0, 1, 0.4], "yes": [True, False, True, True],
        "word": pd.Categorical(["no", "yes", "no", "no"], ["no", "yes"]),
        "one": [0, 1, 1, 0], "real": [0.5, 1.5, -1, 2],
        "grade": pd.Categorical(["c", "a", "b", "c"], ["a", "b", "c", "d"], ordered=True), "x": [1.0, 2, 3, 5],
        "many": pd.Categorical(list("abca")),
    }
)  # fmt: skip


def response(lhs, support, trials=None, zeros=None, data=DATA):
    return build(f"{lhs} ~ x", data, outcome=Outcome("the family", support, zeros), trials=trials)[1]


@pytest.mark.parametrize("lhs", ["cbind(hits, size - hits)", "share"])
def test_successes_among_trials(lhs):
    design = response(lhs, "binomial", None if "cbind" in lhs else "size")
    np.testing.assert_allclose(design.y, DATA["share"])
    np.testing.assert_allclose(design.trials, DATA["size"])


@pytest.mark.parametrize(
    ("lhs", "y"), [("yes", [1, 0, 1, 1]), ("word", [0, 1, 0, 0]), ("one", [0, 1, 1, 0]), ("I(x > 2)", [0, 0, 1, 1])]
)
def test_single_trials(lhs, y):
    design = response(lhs, "binomial")
    assert design.y.tolist() == y
    assert design.trials is None


def test_a_factor_keeps_its_first_level_as_failure_where_only_the_second_occurs():
    assert response("word", "binomial", data=DATA.iloc[[1, 1]]).y.tolist() == [1, 1]


def test_ordered_categories_drop_unused_ones():
    design = response("grade", "ordinal")
    assert design.y.tolist() == [2, 0, 1, 2]
    assert design.categories == ("a", "b", "c")
    assert design.absent == tuple(c for c in DATA["grade"].cat.categories if c not in "abc")
    assert [b.names for b in design.fixed] == [("x",)]  # the thresholds are the intercepts


@pytest.mark.parametrize(
    ("lhs", "support", "trials", "error", "says"),
    [
        ("real", "count", None, DataError, "negative.*row 2"),
        ("share", "count", None, DataError, "not whole.*rows 0, 3"),
        ("hits", "positive", None, DataError, "1 value is 0.*row 1.*tweedie"),
        ("share", "unit", None, DataError, "exactly 0 or 1.*rows 1, 2.*squeeze"),
        ("real", "closed_unit", None, DataError, "outside 0 to 1"),
        ("share", "binomial", None, DataError, "without its denominator.*trials="),
        ("hits", "binomial", None, DataError, "above 1.*cbind"),
        ("share", "binomial", "x", DataError, "no whole number of successes"),
        ("hits", "binomial", "size", DataError, "outside 0 to 1.*cbind"),
        ("cbind(hits, size)", "binomial", "size", OptionError, "leave trials= out"),
        ("cbind(hits, hits - size)", "binomial", None, DataError, "negative"),
        ("cbind(hits, size, x)", "binomial", None, DataError, "3 columns"),
        ("many", "binomial", None, DataError, r"3 levels.*I\(many == 'c'\)"),
        ("many", "ordinal", None, DataError, "without an order.*ordered"),
        ("real", "ordinal", None, DataError, "no categories"),
        ("hits", "count", "size", OptionError, "trials= belongs to binomial"),
    ],
)
def test_refused(lhs, support, trials, error, says):
    with pytest.raises(error, match=says):
        response(lhs, support, trials)


def test_zeros_are_legal_with_a_model_of_them_and_illegal_in_truncated_families():
    assert response("hits", "positive", zeros=True).y.tolist() == [1, 0, 3, 2]
    with pytest.raises(DataError, match="zero_inflation"):
        response("hits", "count", zeros=False)


def test_rows_are_named_as_they_were_given():
    data = DATA.assign(x=[np.nan, 1, 2, 3])
    with pytest.raises(DataError, match="row 2 "):
        response("real", "count", data=data)


def test_one_mask_over_all_formulas():
    data = DATA.assign(z=[1.0, np.nan, 2, 3], g=["a", "b", None, "b"])
    parts = [Part("dispersion", parse("~ z")), Part("zero_inflation", parse("~ 1 + offset(x) + (1 | g)"))]
    spec, design = build("hits ~ x", data, outcome=Outcome("the family", "count"), parts=parts)
    assert design.rows.tolist() == [0, 3]
    assert [c.name for c in design.components] == ["mean", "dispersion", "zero_inflation"]
    assert design.components[1].names == ("(Intercept)", "z")
    assert design.components[2].offset.tolist() == [1.0, 5.0]
    assert [t.component for t in design.terms] == [2]
    new = spec.new({"x": [1.0], "z": [2.0], "g": ["b"]})
    assert [c.names for c in new.others] == [("(Intercept)", "z"), ("(Intercept)",)]
    assert spec.new({"x": [1.0]}, groups="none", parts=()).others[0].fixed == ()


def test_a_parameter_held_at_a_value_is_an_offset():
    _, design = build("real ~ x", DATA, parts=[Part("dispersion", None, 0.5)])
    assert design.components[1].fixed == ()
    assert design.components[1].offset.tolist() == [0.5] * 4


def test_trials_may_be_an_expression_of_columns():
    data = {**DATA, "missed": DATA["size"] - DATA["hits"]}
    named = build("share ~ x", data, outcome=Outcome("the family", "binomial", None), trials="size")[1]
    written = build("share ~ x", data, outcome=Outcome("the family", "binomial", None), trials="hits + missed")[1]
    np.testing.assert_array_equal(written.trials, named.trials)
    for text, error, says in (
        ("hits + mised", UnknownColumnError, "mised"),
        ("nothing", UnknownColumnError, "no trials column 'nothing'"),
        ("scale(size)", ArgumentError, "depends on the other rows"),
        ("hits +", UnknownColumnError, "no trials column"),
    ):
        with pytest.raises(error, match=says):
            build("share ~ x", data, outcome=Outcome("the family", "binomial", None), trials=text)


@pytest.mark.parametrize("end", ["y", "u"])
def test_an_infinite_end_of_an_interval_says_what_to_do(end):
    frame = {
        "y": np.linspace(0, 1, 20),
        "u": np.linspace(1, 2, 20),
        "s": np.where(np.arange(20) < 8, "interval", "none"),
    }
    frame[end] = np.where(np.arange(20) < 2, -np.inf if end == "y" else np.inf, frame[end])
    with pytest.raises(InfiniteError, match=rf"'{end}' is infinite in rows 0, 1 .*status 'left', above one 'right'"):
        rf.fit("cens(y, s, u) ~ 1", frame)
