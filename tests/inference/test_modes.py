"""Tables of conditional modes."""

from __future__ import annotations

import numpy as np
import pandas as pd

import ranef as rf


def test_a_variable_named_level_does_not_replace_the_labels():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(list("abcdef"), 10)})
    data["y"] = data["x"] * np.repeat(rng.normal(size=6), 10) + rng.normal(size=60)
    plain = rf.fit("y ~ x + (x | g)", data)
    m = rf.fit("y ~ level + (level | g)", data.rename(columns={"x": "level"}))
    for table, expected in ((m.ranef(std_error=True)["g"], plain.ranef()["g"]), (m.coef()["g"], plain.coef()["g"])):
        assert list(table["level"]) == list("abcdef")
        np.testing.assert_array_equal(table["level_"], expected["x"])
