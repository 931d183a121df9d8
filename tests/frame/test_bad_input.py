"""Data that do not fit: each error names the column, the rows, the count, and what to do."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from frame.frames import KINDS, columns, frame
from ranef.errors import ArgumentError, DataError, OptionError, RanefError
from ranef.frame import build, check_linear

DATA = columns()


def check(formula, data=None, **options):
    check_linear(build(formula, DATA if data is None else data, **options)[1])


def test_a_sound_design_passes():
    check("y ~ x + (x | g) + (1 | i)")


@pytest.mark.parametrize("kind", KINDS)
def test_constant_response(kind):
    with pytest.raises(DataError, match="response 'y0' is constant"):
        check("y0 ~ x + (1 | g)", frame(kind, {**DATA, "y0": [3.0] * 60}))


def test_constant_response_by_removal():
    with pytest.raises(
        DataError, match=r"'y' is constant \(after 2 of 4 rows were dropped for missing values; 'x': 2\)"
    ):
        check("y ~ x", {"y": [1.0, 1.0, 2.0, 3.0], "x": [1.0, 2.0, None, None]})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", "b"] * 30, "response 'y' holds categories"),
        (pd.Categorical([1, 2] * 30), "holds categories"),
        ([True, False] * 30, "response 'y' holds truth values"),
        (pd.date_range("2024-01-01", periods=60), "dates or times"),
    ],
)
def test_response_that_is_no_number(value, words):
    with pytest.raises(DataError, match=words):
        build("y ~ x", {**DATA, "y": value})
    with pytest.raises(DataError):
        build("I(x > 0) ~ z", DATA)


def test_no_rows():
    with pytest.raises(DataError, match="no rows"):
        build("y ~ x", {"y": [], "x": []})
    with pytest.raises(DataError, match="no rows"):
        build("y ~ x", pd.DataFrame({"y": [], "x": []}))
    with pytest.raises(DataError, match="no rows"):
        build("y ~ x", {})


def test_no_rows_left():
    data = {"y": [1.0, 2.0, None], "x": [None, None, 3.0], "g": ["a", "b", "c"]}
    with pytest.raises(DataError, match=r"no row is left.*'y' \(1 row\), 'x' \(2 rows\)"):
        build("y ~ x + (1 | g)", data)


def test_missing_raise():
    data = {**DATA, "x": [None, *DATA["x"][1:]], "g": [*DATA["g"][:-1], None]}
    with pytest.raises(DataError, match=r"missing values in 'x' \(1 row\), 'g' \(1 row\); first in rows 0, 59"):
        build("y ~ x + (1 | g)", data, missing="raise")
    assert build("y ~ z", data, missing="raise")[1].n == 60
    with pytest.raises(OptionError, match="'drop' or 'raise'"):
        build("y ~ x", data, missing="ignore")


def test_a_group_of_one_level():
    with pytest.raises(DataError, match="grouping 'one' has one level, 'a', in the 60 rows used; a variance"):
        check("y ~ x + (1 | one)", {**DATA, "one": ["a"] * 60})
    data = {**DATA, "two": ["a"] * 50 + ["b"] * 10, "x": DATA["x"][:50] + [None] * 10}
    with pytest.raises(DataError, match=r"'two' has one level, 'a'.*after 10 of 60 rows were dropped.*'x': 10"):
        check("y ~ x + (1 | two)", data)


def test_as_many_levels_as_observations():
    data = {**DATA, "id": list(range(60))}
    with pytest.raises(DataError, match="grouping 'id' has 60 levels for 60 observations: its variance"):
        check("y ~ x + (1 | id)", data)
    data["x"] = [None, *DATA["x"][1:]]
    with pytest.raises(DataError, match=r"59 levels for 59 observations \(after 1 of 60 rows"):
        check("y ~ x + (1 | id)", data)


def test_as_many_coefficients_as_observations():
    data = {**DATA, "half": [i // 2 for i in range(60)]}
    with pytest.raises(
        DataError, match=r"term \(\(Intercept\) \+ x \| half\): 60 random coefficients, 60 observations"
    ):
        check("y ~ x + (x | half)", data)
    check("y ~ x + (1 | half)", data)


def test_weights():
    w = np.linspace(1, 2, 60)
    _, design = build("y ~ x", DATA, weights=w)
    np.testing.assert_array_equal(design.weights, w)
    _, design = build("y ~ x", DATA, weights="k")
    assert design.weights.dtype == np.float64
    with pytest.raises(DataError, match=r"precision_weights must be positive; not so in row 3 "):
        build("y ~ x", DATA, weights=[1.0] * 3 + [0.0] + [1.0] * 56)
    with pytest.raises(DataError, match="precision_weights 'neg' must be positive"):
        build("y ~ x", {**DATA, "neg": -w}, weights="neg")
    with pytest.raises(DataError, match="frequency_weights must be positive"):
        build("y ~ x", DATA, frequencies=-w)
    with pytest.raises(DataError, match=r"not so in rows 0, 1, 2, 3, 4, … \(60 in all\)"):
        build("y ~ x", DATA, weights=-w)
    with pytest.raises(DataError, match="infinite in row 0"):
        build("y ~ x", DATA, weights=[np.inf] + [1.0] * 59)
    with pytest.raises(DataError, match="precision_weights has 3 values; the data have 60 rows"):
        build("y ~ x", DATA, weights=[1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="'f' does not hold numbers"):
        build("y ~ x", DATA, weights="f")
    with pytest.raises(ArgumentError, match="name of a column or an array of 60"):
        build("y ~ x", DATA, weights=3)
    _, design = build("y ~ x", DATA, weights=[np.nan] + [1.0] * 59)
    assert design.dropped == {"precision_weights": 1}
    for given in (pd.Series(w, index=range(100, 160)), w.tolist(), w.astype("f4")):
        np.testing.assert_allclose(build("y ~ x", DATA, weights=given)[1].weights, w, rtol=1e-6)


def test_offset():
    with pytest.raises(DataError, match="offset has 2 values"):
        build("y ~ x", DATA, offset=[1.0, 2.0])
    with pytest.raises(DataError, match="numbers are needed for offset"):
        build("y ~ x + offset(f)", DATA)
    data = {**DATA, "w": [None, *DATA["x"][1:]]}
    _, design = build("y ~ offset(w) + offset(2 * z)", data)
    np.testing.assert_allclose(design.offset, np.array(DATA["x"][1:]) + 2 * np.array(DATA["z"][1:]))
    assert design.dropped == {"w": 1}


def test_mixed_columns():
    with pytest.raises(DataError, match=r"column 'x' mixes .* \(int, str\): '.*' in row \d+ .* is text, as \d+ of \d+"):
        build("y ~ x", {"y": [1, 2, 3], "x": [1, "a", 3]})
    with pytest.raises(DataError, match="column 'x'"):
        build("y ~ x", {"y": [1, 2, 3], "x": [[1], [2], [3]]})
    with pytest.raises(DataError, match="column 'x'"):
        build("y ~ x", {"y": [1, 2, 3], "x": np.array([1j, 2, 3])})


def test_not_a_formula():
    with pytest.raises(ArgumentError, match="formula"):
        build(3, DATA)


def test_the_input_is_not_changed():
    data = {k: np.array(v) for k, v in DATA.items()}
    data["x"][3] = np.nan
    before = {k: v.copy() for k, v in data.items()}
    build("y ~ x*f + poly(z, 2) + (x | g)", data, weights="pos")
    for k, values in data.items():
        np.testing.assert_array_equal(values, before[k])


def test_every_error_is_typed_twice():
    for error, builtin in ((DataError, ValueError), (OptionError, ValueError), (ArgumentError, TypeError)):
        assert issubclass(error, RanefError)
        assert issubclass(error, builtin)


def test_numbers_written_as_text_are_told():
    written = [f"{v:.3f}" for v in DATA["x"]]
    for labels, why in (
        (written, "they are numbers written as text: convert the column"),
        ([".", *written[1:]], r"written as text because of '\.'"),
        ([v.replace(".", ",") for v in written], "decimal commas"),
    ):
        data = {**DATA, "t": labels}
        for formula in ("t ~ x", "y ~ log(t)", "y ~ offset(t)"):
            with pytest.raises(DataError, match=why):
                build(formula, data)
    with pytest.raises(DataError, match=r"^response 'f' holds categories \('hi', 'lo', 'mid'\), not numbers$"):
        build("f ~ x", DATA)


@pytest.mark.parametrize("odd", [".", "unknown"])
def test_numbers_spoilt_by_a_text_are_no_factor_of_half_the_rows(odd):
    written = [odd, *(f"{v:.4f}" for v in np.linspace(0, 1, 29))]
    data = {"y": np.arange(30.0), "x": written, "g": np.arange(30) % 5}
    with pytest.raises(DataError, match=rf"column 'x' holds numbers .*'{re.escape(odd)}' in row 0 .*factor\(x\)"):
        build("y ~ x + (1 | g)", data)
    with pytest.raises(DataError, match=rf"'{re.escape(odd)}' in row 0"):
        build("y ~ 1", data, weights="x")
    assert len(build("y ~ factor(x)", data)[0].factors["factor(x)"].levels) == 30
    ids = ["pilot", *(f"{i}" for i in range(1, 30))]  # whoever groups by it means labels
    assert len(build("y ~ 1 + (1 | x)", {**data, "x": ids})[1].terms[0].levels) == 30


def test_an_error_names_few_of_many_columns():
    data = {**DATA, "t": [f"{v:.3f}" for v in DATA["x"]]}
    with pytest.raises(DataError) as caught:
        check("y ~ 1 + (t | g)", data)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("call", ["cut(1, 3)", "cut(sqrt(1), 3)"])
def test_functions_of_constants_are_no_columns(call):
    for formula in (f"y ~ z:{call}", f"y ~ x + {call}", f"y ~ 1 + (1 | {call})"):
        with pytest.raises(DataError, match="one value for each of the"):
            build(formula, DATA)
