"""Designs that make other packages crash, hang or end worse than a smaller model does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import DataError


def test_a_random_design_far_wider_than_its_rows():
    """MixedModels.jl#252: nine rows, dozens of random coefficients a group, out of memory there."""
    rng = np.random.default_rng(1)
    labels = {name: [f"{name}{i % 3}" for i in rng.permutation(9)] for name in "abc"}
    frame = pd.DataFrame({"y": rng.normal(size=9), "g": list("pqr") * 3, **labels})
    with pytest.raises(DataError, match="random coefficients"):
        rf.fit("y ~ 1 + (a * b * c | g)", frame)


# statsmodels#4655: the larger model ended below the smaller. Each line holds models that contain those before them.
NESTED = [
    ["y ~ x", "y ~ x + (1 | g)", "y ~ x + (x || g)", "y ~ x + (x | g)", "y ~ x + (x + z | g)"],
    ["y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (x | g) + (1 | h)", "y ~ x + (x | g) + (1 + z | h)"],
    ["y ~ x + (1 | a)", "y ~ x + (1 | a/b)", "y ~ x + z + (1 | a/b)", "y ~ x + z + f + (x | a/b)"],
]


@pytest.mark.parametrize("formulas", NESTED, ids=["slopes", "crossed", "nested"])
@pytest.mark.parametrize("seed", range(6))
def test_a_parameter_more_never_lowers_the_likelihood(formulas, seed):
    frame = zoo.data().sample(frac=1, replace=True, random_state=seed, ignore_index=True)
    criteria = [rf.fit(formula, frame, method="ml").criterion for formula in formulas]
    # Each fit stops where one more step promises 1e-9.
    assert np.diff(criteria).max() < 1e-7
