"""Names, rows and levels of the published models, from every kind of frame; the numbers are in tests/golden."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from frame.frames import assert_same, dense
from ranef import datasets
from ranef.frame import build, check_linear

MODELS = sorted((Path(__file__).parents[1] / "golden" / "models").glob("lmm_*.json"))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_names_rows_and_levels_are_those_of_lme4(path):
    raw = json.loads(path.read_text())
    contrasts = {"temperature": "poly"} if raw["data"] == "cake" else None  # an Enum of polars has no ordered flag
    options = {"weights": raw.get("weights_column"), "offset": raw.get("offset_column"), "contrasts": None}
    found = {}
    for kind in ("pandas", "polars", "pyarrow"):
        options["contrasts"] = contrasts if contrasts and "temperature" in raw["formula"] else None
        _, design = build(raw["formula"], datasets.load(raw["data"], kind), **options)
        check_linear(design)
        found[kind] = dense(design)
        assert design.kind == kind
    dropped = raw.get("fixef_dropped") or []
    assert [name for name in design.fixed_names if name not in dropped] == [row["term"] for row in raw["fixef"]]
    assert design.n == raw["nobs"]
    groups = {frozenset(t.label.split(":")): len(t.levels) for t in design.terms}
    assert groups == {frozenset(label.split(":")): count for label, count in raw["ngroups"].items()}
    assert_same(found["polars"], found["pandas"])
    assert_same(found["pyarrow"], found["pandas"])


def test_one_row_of_every_model():
    for path in MODELS:
        raw = json.loads(path.read_text())
        data = datasets.load(raw["data"])
        spec, design = build(raw["formula"], data, weights=raw.get("weights_column"))
        row = 0 if design.rows is None else int(design.rows[0])
        one = spec.new(data.iloc[[row]])
        for block, old in zip(one.fixed, design.fixed, strict=True):
            for part in ("codes", "x"):
                if getattr(block, part) is not None:
                    np.testing.assert_array_equal(getattr(block, part)[0], getattr(old, part)[0])
        assert [t.codes[0] for t in one.terms] == [t.codes[0] for t in design.terms], path.stem
