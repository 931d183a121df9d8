"""Whatever reaches the core through its binding: a result, or an ordinary typed exception. Never a panic, never a hang.

A panic is pyo3's PanicException (no subclass of Exception) or, where the binding catches it, RuntimeError: neither is
among the errors allowed here.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines import zoo
from ranef import _core

LEGAL = (ValueError, TypeError, OverflowError, IndexError)
ODD = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e300, -1e300, 1e-300, 5e-324, 1e150, 1e16, 2.0**-52]
N = 12

quick = settings(
    max_examples=150,
    deadline=5000,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
number = st.sampled_from(ODD) | st.floats(-10, 10)
small = st.integers(0, 4)


def attempt(call, *arguments):
    """The result, or None after a legal error."""
    try:
        return call(*arguments)
    except LEGAL:
        return None


@st.composite
def vectors(draw, length=N, values=number):
    """A vector: mostly as it should be, sometimes of another length, type or layout."""
    size = draw(st.sampled_from([length] * 6 + [0, 1, length + 1]))
    data = np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype=float)
    kind = draw(st.sampled_from(["plain"] * 8 + ["strided", "float32", "int64", "object", "matrix", "text", "list"]))
    if kind == "strided":
        return np.repeat(data, 2)[::2]
    if kind == "matrix":
        return data.reshape(-1, 1)
    if kind == "list":
        return data.tolist()
    if kind in ("float32", "int64"):
        with np.errstate(all="ignore"):
            return data.astype(kind)
    return data if kind == "plain" else data.astype(object if kind == "object" else str)


@st.composite
def codes(draw, length=N, least=-1):
    size = draw(st.sampled_from([length] * 6 + [0, length + 1]))
    values = draw(st.lists(st.integers(least, 3), min_size=size, max_size=size))
    kind = draw(st.sampled_from(["int32"] * 5 + ["int8", "int16", "int64", "float64", "uint8"]))
    return np.array(values).astype(kind)


@st.composite
def blocks(draw, length=N):
    """(codes, contrast, x) in every combination of present and absent."""
    code = draw(st.none() | codes(length, draw(st.sampled_from([0, 0, 0, -1]))))
    contrast = None
    if code is not None and draw(st.integers(0, 9)):
        shape = draw(st.sampled_from([(4, 3), (4, 4), (4, 1), (4, 8), (3, 2), (0, 0), (4, 0), (0, 4)]))
        contrast = np.array(draw(st.lists(number, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
        kind = draw(st.sampled_from(["float64", "float64", "float64", "int64"]))
        with np.errstate(all="ignore"):
            contrast = contrast.reshape(shape).astype(kind)
    return code, contrast, draw(st.none() | vectors(length))


@st.composite
def terms(draw, length=N):
    levels = draw(st.sampled_from([4, 4, 4, 4, 0, 1, 100]))
    inner = draw(st.lists(st.just((None, None, None)) | blocks(length), max_size=3))
    return (
        draw(codes(length, draw(st.sampled_from([0, 0, 0, -1])))),
        levels,
        draw(st.sampled_from(["us", "diag", "ar1"])),
        inner,
    )


@st.composite
def models(draw):
    fixed = [(None, None, None), *draw(st.lists(blocks(), max_size=3))][draw(st.integers(0, 1)) :]
    return (
        fixed,
        draw(st.lists(terms(), max_size=3)),
        draw(vectors()),
        draw(st.none() | vectors()),
        draw(st.none() | vectors()),
        draw(st.sampled_from([0, 1, 2, 10**6])),
    )


options = st.fixed_dictionaries(
    {},
    optional={
        "tolerance": st.sampled_from([1e-9, 0.0, -1.0, np.nan, np.inf, 1e-300, "x"]),
        "max_evaluations": st.sampled_from([0, 1, 2, 50, -1, 1.5, 2**70]),
        "other": st.just(1),
    },
)


@quick
@given(models(), options, st.data())
def test_a_model_of_anything(arguments, option, data):
    core = attempt(_core.Lmm, *arguments)
    if core is None:
        return
    size = core.ntheta
    theta = data.draw(vectors(size))
    for reml in (True, False):
        attempt(core.fit, reml, data.draw(st.none() | vectors(size)), option)
        attempt(core.evaluate, theta, reml)
        attempt(core.hessian, theta, data.draw(number), reml)
        attempt(core.satterthwaite, theta, data.draw(number), reml, 0.0)
    for term in (-1, 0, 1, 7, 2**70):
        attempt(core.cond_cov, term)
    again = attempt(lambda: _core.Lmm.from_state(core.moments_state()))
    assert again is None or (again.n, again.p, again.ntheta) == (core.n, core.p, core.ntheta)


@pytest.fixture(scope="module")
def fitted():
    design = zoo.design("crossed_slopes", False)
    core = _core.Lmm(*zoo.arguments(design))
    core.fit(True, None, {})
    return design, core


@quick
@given(st.data())
def test_new_rows_and_responses_of_anything(fitted, data):
    design, core = fitted
    fixed, group, _, weights, offset, _ = zoo.arguments(design)
    n = data.draw(st.sampled_from([N, N, 0, 1, design.n]))
    new_fixed = data.draw(st.just(fixed) | st.lists(blocks(n), max_size=3))
    new_terms = data.draw(st.just(group) | st.lists(terms(n), max_size=3))
    which = data.draw(st.lists(st.booleans(), max_size=3))
    attempt(core.predict_var, new_fixed, new_terms, n, which)
    y = np.array(data.draw(st.lists(number, min_size=design.n, max_size=design.n))).reshape(-1, 1)
    with np.errstate(all="ignore"):
        single = y.astype("float32")
    y = data.draw(st.sampled_from([y, y[:-1], y[:, :0], np.asfortranarray(np.hstack([y, y[::-1]])), single]))
    attempt(core.refit, y, new_fixed, new_terms, data.draw(st.just(weights) | vectors(design.n)), offset, True, {})


@quick
@given(st.data())
def test_damaged_files(fitted, data):
    state = bytearray(fitted[1].moments_state())
    for _ in range(data.draw(st.integers(0, 4))):
        state[data.draw(st.integers(0, len(state) - 1) | st.integers(0, 80))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([None, 0, 1, 10, len(state) // 2]))
    core = attempt(_core.Lmm.from_state, bytes(state[:cut]))
    if core is not None:
        attempt(core.fit, True, None, {"max_evaluations": 20})
        attempt(core.evaluate, np.ones(core.ntheta), False)


@quick
@given(vectors(), vectors(), codes(), codes(), st.sampled_from([0, 1, 4, 5, 2**31, 2**40, -1, 2**70]), small)
def test_passes_over_columns(x, y, a, b, levels, other):
    attempt(_core.any_not_finite, x)
    attempt(_core.is_constant, x)
    attempt(_core.code_use, a, levels)
    attempt(_core.level_counts, a, min(levels, 2**20))
    attempt(_core.factorize_int, y)
    attempt(_core.factorize_int, np.array([-(2**63), 2**63 - 1, 0]))
    attempt(_core.combine_codes, a, levels, b, other)


@quick
@given(
    st.lists(blocks(), max_size=3), vectors(3), st.lists(terms(), max_size=2), st.none() | vectors(),
    st.sampled_from([N, N, N, 0, 1, 2**40, -1]), st.data(),
)  # fmt: skip
def test_linear_predictor_of_anything(fixed, beta, group, offset, n, data):
    modes = [np.zeros(data.draw(st.sampled_from([(4, 1), (4, 3), (0, 0), (1, 1)]))) for _ in group]
    group = data.draw(st.sampled_from([group, [()], [(1,)], 3, None]))
    attempt(_core.linear_predictor, fixed, beta, group, modes, offset, n)
