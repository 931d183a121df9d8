"""A matrix goes to the core by what stands in it, however it lies in memory."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from ranef import _core
from ranef.families import read_family

MATRIX = np.arange(12.0).reshape(4, 3) / 10
LIES = {
    "columns": np.asfortranarray(MATRIX),
    "turned": np.ascontiguousarray(MATRIX.T).T,
    "part": np.repeat(MATRIX, 2, axis=1)[:, ::2],
    "backwards": np.ascontiguousarray(MATRIX[::-1])[::-1],
}
each = pytest.mark.parametrize("lies", LIES)


def values(table):
    return np.asarray(table).tolist()


@each
def test_modes(lies):
    codes = np.array([0, 3, 1, 2, 2], dtype=np.int32)
    blocks = [(None, None, np.linspace(k, k + 1, 5)) for k in range(3)]
    found = [_core.linear_predictor([], np.empty(0), [(codes, blocks)], [b], None, 5) for b in (LIES[lies], MATRIX)]
    assert values(found[0]) == values(found[1])


@each
def test_predictors(lies):
    spec, data = read_family("skew_normal").spec, {"y": np.array([0.1, 1.0, 2.0, -1.0])}
    for call in (_core.family_eval, _core.family_mean, _core.family_variance):
        assert values(call(spec, data, LIES[lies])) == values(call(spec, data, MATRIX))


@each
def test_rows_of_coefficients(lies):
    y = np.linspace(0, 1, 24) ** 2 + np.arange(24) % 6
    m = rf.fit("y ~ x + z + (1 | g)", {"y": y, "x": np.sin(y), "z": np.cos(3 * y), "g": np.arange(24) % 6})
    for call in (m.core.covariance_of_rows, m.core.covariance_with_rows):
        assert values(call(LIES[lies])) == values(call(MATRIX))


@each
def test_different_rows(lies):
    first, which = _core.distinct_rows(LIES[lies])
    assert (values(first), values(which)) == ([0, 1, 2, 3], [0, 1, 2, 3])
