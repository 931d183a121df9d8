"""Any data, any kind: the same design, or the same typed error."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frame.frames import KINDS, dense, frame
from ranef.errors import RanefError
from ranef.frame import build, check_linear, matrix

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)


def columns_of(n):
    def column(values):
        return st.lists(values, min_size=n, max_size=n)

    def holes(values):
        return column(values) | column(st.none() | values)

    return st.fixed_dictionaries(
        {
            "y": holes(finite),
            "x": holes(finite | st.just(0.0)),
            "k": holes(st.integers(-3, 3)),
            "b": holes(st.booleans()),
            "f": holes(st.sampled_from(["a", "b", "ç", "b c"])),
            "g": holes(st.sampled_from(["g1", "g2", "g10", ""])),
        }
    )


tables = st.integers(1, 12).flatmap(columns_of)
formulas = st.sampled_from(
    [
        "y ~ x + (1 | g)",
        "y ~ x*f + (x | g)",
        "y ~ 0 + f:x + b + (1 | g/k)",
        "y ~ k + (0 + f || k)",
        "y ~ scale(x) + (1 | b)",
        "y ~ factor(k) + I(x > 0) + (1 | f:g)",
        "log(x) ~ b*f",
        "y ~ poly(x, 2) + (1 | g)",
        "y ~ . - g",
        "y ~ x:k + offset(x)",
    ]
)


def outcome(formula, data):
    try:
        spec, design = build(formula, data)
    except RanefError as error:
        return type(error), None, None
    return dense(design), spec, design


@given(data=tables, formula=formulas)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_kinds_agree(data, formula):
    expected, spec, design = outcome(formula, data)
    for kind in KINDS:
        found, _, _ = outcome(formula, frame(kind, data))
        np.testing.assert_equal(found, expected)
    if design is None:
        return
    X = expected["X"]
    assert np.isfinite(X).all()
    rows = range(design.n_input) if design.rows is None else design.rows.tolist()
    new = spec.new({k: [v[i] for i in rows] for k, v in data.items()})
    np.testing.assert_array_equal(matrix(new.fixed, new.n), X)
    for old, term in zip(design.terms, new.terms, strict=True):
        np.testing.assert_array_equal(old.codes, term.codes)
        assert sorted(set(old.codes.tolist())) == list(range(len(old.levels)))
    with suppress(RanefError):
        check_linear(design)


anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=2)
    | st.complex_numbers()
    | st.dates()
    | st.datetimes()
    | st.lists(st.integers(), max_size=2)
    | st.decimals()
    | st.just(object())
)


@pytest.mark.parametrize("how", [list, lambda v: np.array([*v, None], object)[:-1]])
@given(
    values=st.lists(anything, min_size=0, max_size=6),
    role=st.sampled_from(["y ~ 1", "z ~ y", "z ~ (1 | y)", "z ~ log(y)"]),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_only_typed_errors_escape(how, values, role):
    data = {"y": how(values), "z": np.arange(float(len(values)))}
    with suppress(RanefError):
        build(role, data)


@given(
    dtype=st.sampled_from(
        ["f2", "f4", "f8", "i1", "i2", "i8", "u1", "u8", "?", "U2", "M8[D]", "m8[s]", "c8", "S2", "O"]
    ),
    n=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_any_numpy_type(dtype, n):
    data = {"y": np.zeros(n, dtype), "z": np.arange(float(n))}
    for formula in ("y ~ z", "z ~ y", "z ~ (1 | y)"):
        with suppress(RanefError):
            build(formula, data)
