"""What a plain fit loads: the weight of a first call is that of its imports."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import ranef as rf
m = rf.fit("y ~ x + (1 | g)", {"y": [1.0, 2, 4, 3, 5, 7, 6, 9], "x": [0.0, 1] * 4, "g": list("aabbccdd")})
print(sorted({name.partition(".")[0] for name in sys.modules} & set("scipy formulaic narwhals pandas polars".split())))
import formulaic
print(formulaic.model_matrix is not None and "formulaic.materializers" in sys.modules)
"""


def test_a_fit_loads_neither_scipy_nor_formulaic_nor_any_frame_and_formulaic_stays_whole():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
