"""New data: every row kept, levels looked up, what is new or missing marked."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest

from frame.frames import KINDS, columns, frame
from ranef.errors import DataError, OptionError, UnknownColumnError, UnseenLevelError
from ranef.frame import build, matrix

DATA = columns()
FORMULA = "y ~ x*f + scale(z) + offset(pos) + (x | g) + (1 | f:i) + (0 + h || i)"


@pytest.mark.parametrize("kind", KINDS)
def test_the_fitted_data_as_new_data(kind):
    spec, design = build(FORMULA, DATA)
    new = spec.new(frame(kind, DATA), response=True)
    np.testing.assert_array_equal(matrix(new.fixed, 60), matrix(design.fixed, 60))
    np.testing.assert_array_equal(new.offset, design.offset)
    np.testing.assert_array_equal(new.y, design.y)
    for a, b in zip(new.terms, design.terms, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)
        np.testing.assert_array_equal(matrix(a.blocks, 60), matrix(b.blocks, 60))
        assert (a.label, a.names, list(a.levels)) == (b.label, b.names, list(b.levels))
    assert new.missing is None
    assert new.unseen == (None, None, None)
    assert new.which == (0, 1, 2)
    assert new.kind == kind.partition("-")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_after_pickling(kind):
    spec, design = build(FORMULA, frame(kind, DATA))
    spec = pickle.loads(pickle.dumps(spec))
    one = spec.new({name: values[7] for name, values in DATA.items()})
    np.testing.assert_array_equal(matrix(one.fixed, 1)[0], matrix(design.fixed, 60)[7])
    assert [t.codes[0] for t in one.terms] == [t.codes[7] for t in design.terms]


def test_the_memory_is_small():
    n = 100_000
    rng = np.random.default_rng(1)
    spec, _ = build(
        "y ~ poly(x, 3) + f + (1 | g)",
        {"y": rng.normal(size=n), "x": rng.normal(size=n), "f": np.arange(n) % 2 == 0, "g": np.arange(n) % 10},
    )
    assert len(pickle.dumps(spec)) < 4000


def test_only_the_groups_asked_for_are_needed():
    spec, _ = build(FORMULA, DATA)
    fixed = {k: DATA[k] for k in ("x", "f", "z", "pos")}
    assert spec.new(fixed, groups="none").terms == ()
    new = spec.new({**fixed, "g": DATA["g"]}, groups=["g"])
    assert (new.which, new.terms[0].label) == ((0,), "g")
    assert spec.new(DATA, groups={"g", "f:i"}).which == (0, 1)
    assert spec.new(DATA, groups="i").which == (2,)
    with pytest.raises(UnknownColumnError, match="'g'"):
        spec.new({**fixed, "h": DATA["h"]})
    with pytest.raises(OptionError, match="grouping 'zz'"):
        spec.new(DATA, groups=["zz"])
    with pytest.raises(UnknownColumnError, match="'y'"):
        spec.new({k: v for k, v in DATA.items() if k != "y"}, response=True)


def test_unseen_fixed_level():
    spec, _ = build("y ~ f + (1 | g)", DATA)
    with pytest.raises(UnseenLevelError, match=r"column f, level 'new', known: 'hi', 'lo', 'mid'; in row 1") as caught:
        spec.new({"f": ["lo", "new", "hi"], "g": ["g00"] * 3})
    assert isinstance(caught.value, ValueError)
    spec, _ = build("y ~ 1 + (h | g)", DATA)
    with pytest.raises(UnseenLevelError, match="column h, level 'r'"):
        spec.new({"h": ["r"], "g": ["g00"]})
    spec, _ = build("y ~ factor(k)", DATA)
    with pytest.raises(UnseenLevelError, match=r"column factor\(k\), level 9, known: 1, 2"):
        spec.new({"k": [9]})


def test_a_level_that_was_declared_but_had_no_rows():
    f = pd.Categorical(["a", "b"] * 5, ["a", "b", "z"])
    spec, _ = build("y ~ f", {"y": np.arange(10.0), "f": f})
    with pytest.raises(UnseenLevelError, match="declared in the fitted data, but without rows"):
        spec.new({"f": ["z"]})
    _, design = build("y ~ f", {"y": [1.0, 2, None, 4], "f": ["a", "b", "z", "a"]})
    assert design.n == 3


def test_new_and_missing_group_levels():
    spec, _ = build("y ~ x + (x | g) + (1 | g:h)", DATA)
    new = spec.new({"x": [0.0] * 5, "g": ["g01", "zz", None, "yy", "zz"], "h": ["p", "p", "p", "q", "p"]})
    np.testing.assert_array_equal(new.terms[0].codes, [1, -1, -1, -1, -1])
    unseen = new.unseen[0]
    np.testing.assert_array_equal(unseen.codes, [-1, 0, -1, 1, 0])
    assert unseen.levels == ("zz", "yy")
    np.testing.assert_array_equal(unseen.missing, [False, False, True, False, False])
    assert new.unseen[1].levels == ("zz:p", "yy:q")
    assert new.terms[1].levels[new.terms[1].codes[0]] == "g01:p"
    assert new.missing is None


def test_a_new_combination_of_known_levels_is_new():
    data = {"y": np.arange(6.0), "a": ["p", "p", "q", "q", "r", "r"], "b": ["u", "v", "u", "u", "v", "v"]}
    spec, _ = build("y ~ 1 + (1 | a:b)", data)
    new = spec.new({"a": ["q", "q", "r"], "b": ["v", "u", "v"]})
    np.testing.assert_array_equal(new.terms[0].codes, [-1, 2, 3])
    assert new.unseen[0].levels == ("q:v",)


def test_groups_of_three_columns():
    spec, design = build("y ~ 1 + (1 | f:h:i)", DATA)
    new = spec.new(DATA)
    np.testing.assert_array_equal(new.terms[0].codes, design.terms[0].codes)


def test_missing_values_are_marked_and_no_row_is_lost():
    spec, _ = build("y ~ x*f + log(pos) + (z | g)", DATA)
    data = {k: list(v[:7]) for k, v in DATA.items()}
    data["x"][1] = None
    data["f"][2] = None
    data["pos"][3] = -1.0
    data["z"][4] = None
    data["g"][5] = None
    for kind in KINDS:
        new = spec.new(frame(kind, data))
        assert new.n == 7
        np.testing.assert_array_equal(new.missing, [False, True, True, True, True, False, False])
        np.testing.assert_array_equal(new.unseen[0].missing, [False] * 5 + [True, False])


def test_a_column_without_any_value():
    spec, _ = build("y ~ x + f + (1 | g)", DATA)
    new = spec.new({"x": [None, None], "f": ["lo", None], "g": [None, None]})
    np.testing.assert_array_equal(new.missing, [True, True])
    np.testing.assert_array_equal(new.terms[0].codes, [-1, -1])


def test_levels_match_across_kinds_and_types():
    spec, design = build("y ~ f + (1 | i)", pd.DataFrame({**DATA, "f": pd.Categorical(DATA["f"])}))
    for new in (
        pl.DataFrame(DATA),
        {**DATA, "f": pd.Categorical(DATA["f"], ["mid", "hi", "lo"]), "i": np.array(DATA["i"], float)},
        pd.DataFrame({**DATA, "i": pd.Categorical(DATA["i"])}),
        {**DATA, "i": [str(v) for v in DATA["i"]]},
    ):
        made = spec.new(new)
        np.testing.assert_array_equal(matrix(made.fixed, 60), matrix(design.fixed, 60))
        np.testing.assert_array_equal(made.terms[0].codes, design.terms[0].codes)


def test_text_for_a_number():
    spec, _ = build("y ~ x", DATA)
    with pytest.raises(DataError, match="column 'x' holds text"):
        spec.new({"x": ["a"]})


def test_offsets():
    spec, design = build("y ~ x + offset(z)", DATA, offset="pos")
    new = spec.new(DATA)
    np.testing.assert_array_equal(new.offset, design.offset)
    np.testing.assert_allclose(design.offset, np.array(DATA["z"]) + np.array(DATA["pos"]))
    with pytest.raises(UnknownColumnError, match="offset column 'pos'"):
        spec.new({"x": [1.0], "z": [1.0]})
    spec, _ = build("y ~ x", DATA, offset=np.ones(60))
    with pytest.raises(DataError, match="array of offsets"):
        spec.new({"x": [1.0]})
    np.testing.assert_array_equal(spec.new({"x": [1.0]}, offset=[2.0]).offset, [2.0])
    new = spec.new({"x": [1.0, 2.0]}, offset=[2.0, None])
    np.testing.assert_array_equal(new.missing, [False, True])


def test_no_rows():
    spec, _ = build("y ~ x + f + (x | g)", DATA)
    new = spec.new({"x": [], "f": [], "g": []})
    assert new.n == 0
    assert matrix(new.fixed, 0).shape == (0, 4)
