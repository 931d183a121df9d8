"""What a plain fit loads: the weight of a first call is that of its imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import ranef as rf
data = {"y": [1.0, 2, 4, 3, 5, 7, 6, 9], "b": [0.0, 1, 1, 0, 0, 1, 1, 0], "x": [0.0, 1] * 4, "g": list("aabbccdd")}
m = rf.fit(FORMULA, data, family=FAMILY)
print(sorted({name.partition(".")[0] for name in sys.modules} & set("scipy formulaic narwhals pandas polars".split())))
import formulaic
print(formulaic.model_matrix is not None and "formulaic.materializers" in sys.modules)
"""


INFLATED = """
import sys
import numpy as np, ranef as rf
rng = np.random.default_rng(1)
x, g = rng.normal(size=400), np.arange(400) % 20
data = {"y": np.where(rng.random(400) < 0.95, 0, 1.0 + rng.poisson(3, 400)), "x": x, "g": g}
m = rf.fit("y ~ x + (1 | g)", data, family="poisson", zero_inflation="~ I(40 * x)")
print(np.abs(m.estimate.beta).max() > 0, m.separation, "scipy" in sys.modules)
"""


def test_extra_zeros_that_overlap_need_no_linear_program():
    done = subprocess.run([sys.executable, "-c", INFLATED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True () False"


@pytest.mark.parametrize(
    ("formula", "family"),
    [("y ~ x + (1 | g)", "gaussian"), ("b ~ x + (1 | g)", "binomial"), ("y ~ x + (1 | g)", "poisson")],
)
def test_a_fit_loads_neither_scipy_nor_formulaic_nor_any_frame_and_formulaic_stays_whole(formula, family):
    script = SCRIPT.replace("FORMULA", repr(formula)).replace("FAMILY", repr(family))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
