"""Numbers as text, and frames as text."""

import json
import math

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.report import record, table_text
from ranef.report._table import aligned, count, decimals, degrees, fixed, general, listing, p_values


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [
        ([251.406, 10.467], 4, ["251.41", "10.47"]),
        ([612.1, 35.07], 4, ["612.10", "35.07"]),
        ([0.0, 13.806], 4, ["0.00", "13.81"]),
        ([np.nan, 2.0], 4, ["NaN", "2.000"]),
        ([12345.678], 4, ["12346"]),
        ([-0.0001, 5.0], 1, ["-0.0001", "5.0000"]),
        ([1e9, 1e-9], 4, ["1e+09", "1e-09"]),
        ([], 4, []),
    ],
)
def test_columns_share_their_decimals(values, digits, expected):
    assert aligned(values, digits) == expected


def test_decimals_look_at_the_smallest_value():
    assert decimals([100.0, 0.5], 3) == 3
    assert decimals([np.nan, 0.0], 3) == 1
    assert decimals([1e6], 3) == 0


def test_rounded_zero_has_no_sign():
    assert fixed(-0.0004, 2) == "0.00"
    assert fixed(-0.4, 1) == "-0.4"
    assert fixed(math.inf, 1) == "Inf"
    assert general(-math.inf) == "-Inf"


def test_p_values():
    assert p_values([0.5, 0.00012, 3.26e-6, 1e-17, 0.0, np.nan]) == [
        "0.5000", "0.0001", "3.26e-06", "<2e-16", "<2e-16", "NaN",
    ]  # fmt: skip


def test_degrees_of_freedom():
    assert degrees([17.0, 5.494]) == ["17.00", "5.49"]
    assert degrees([416.22]) == ["416.2"]
    assert degrees([73000.4, 1234567.0]) == ["73000", "1234567"]
    assert degrees([np.inf]) == ["Inf"]


def test_words():
    assert count(1, "row") == "1 row"
    assert count(1234, "row") == "1,234 rows"
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(map(str, range(10)), 8).endswith("7 and 2 more")


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_tidy_frames_print(kind):
    m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.sleepstudy(kind))
    lines = table_text(m.tidy()).splitlines()
    assert lines[0].split()[-1] == "p_value"
    assert "3.26e-06" in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_long_frames_are_cut():
    text = table_text(pd.DataFrame({"i": range(100)}), max_rows=3)
    assert text.splitlines()[-1] == "... 97 more rows"


def test_record_is_json_and_complete(sleep, awkward, flat, plain):
    for m in (sleep, awkward, flat, plain):
        found = json.loads(json.dumps(record(m), allow_nan=False))
        assert found["figures"]["criterion"] == m.criterion
        assert [t["term"] for t in found["fixed"]["terms"]] == list(m.layout.fixed)
        assert len(found["modes"]) == sum(t.size for t in m.estimate.modes)
        assert found["certificate"]["holds"] is True
    assert record(flat)["boundary"][0]["group"] == "Batch"
    assert record(awkward)["data"]["missing"] == {"y_mis": 25, "x2_mis": 20}
    assert record(awkward)["fixed"]["terms"][3]["estimate"] is None
