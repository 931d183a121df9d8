"""The compiled passes over rows give numpy's answers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranef.frame import kernels
from ranef.frame.design import Levels
from ranef.frame.levels import drop_unused


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-1, 5), max_size=30), st.integers(0, 6), st.sampled_from([np.int8, np.int16, np.int32]))
def test_use_of_levels_is_told_in_one_pass(codes, levels, kind):
    codes = np.array([c for c in codes if c < levels], kind)
    negative, complete = kernels.code_use(codes, levels)
    assert (negative, complete) == kernels._code_use(codes, levels)
    known = codes[codes >= 0]
    assert complete == (len(drop_unused(known, Levels.of(range(levels)))[1]) == levels)
