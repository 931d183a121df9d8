"""Relationships between levels: pedigreemm's animal model and its relationship matrices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ranef as rf

MODELS = Path(__file__).parent / "models"


@pytest.fixture(scope="module")
def milk():
    ref = json.loads((MODELS / "ped_milk.json").read_text())
    data, tree = rf.datasets.load("milk"), rf.datasets.load("milk_pedigree")
    data = data.assign(sdMilk=data["milk"] / data["milk"].std())
    precision = rf.pedigree(tree["id"], tree["sire"], tree["dam"])
    return ref, rf.fit("sdMilk ~ lact + log(dim) + (1 | id) + (1 | herd)", data, precision={"id": precision})


def test_animal_model(milk):
    ref, m = milk
    # pedigreemm's derivative-free search stops at ftol 1e-10 of the deviance: its log-likelihood is good to 1e-6.
    assert m.loglik == pytest.approx(ref["logLik"], abs=1e-6)
    assert m.npar == ref["npar"]
    sds = {v["group"]: v["sd"][0] for v in ref["varcorr"]}
    # … and estimates to the root of that.
    assert m.varcorr()["id"].sd[0] == pytest.approx(sds["id"], rel=1e-4)
    assert m.varcorr()["herd"].sd[0] == pytest.approx(sds["herd"], rel=1e-4)
    assert m.sigma == pytest.approx(ref["sigma"], rel=1e-4)
    fixed = m.tidy("fixed")
    rows = fixed[fixed["component"] == "mean"].set_index("term")
    for row in ref["fixef"]:
        assert rows.loc[row["term"], "estimate"] == pytest.approx(row["estimate"], abs=1e-4 * row["se"])
        # Theirs are given the variances, ours take in what their estimation adds: 1.2 per cent for lact.
        assert row["se"] <= rows.loc[row["term"], "std_error"] <= 1.02 * row["se"]


def test_breeding_values(milk):
    """The modes of the cows with records; the pedigree's others have modes too.

    Beyond its second cow pedigreemm's modes are not sigma^2 K Z'V^-1 (y - X beta), which ours are (test_relations of
    the model); its fitted values are not compared for the same reason.
    """
    ref, m = milk
    frame = m.ranef()["id"].set_index("level")
    assert len(frame) == 6547
    block = ref["ranef"]["id"]
    ours = [frame.loc[type(frame.index[0])(label), "(Intercept)"] for label in block["levels"]]
    np.testing.assert_allclose(ours[:2], np.ravel(block["estimate"])[:2], atol=1e-4)


def test_relationship_matrices():
    """Henderson's example with inbreeding, as pedigreemm computes it; rounding of a 7 x 7 inverse."""
    ref = json.loads((MODELS / "ped_relationship.json").read_text())
    precision, labels = rf.pedigree(range(1, 8), ref["sire"], ref["dam"])
    assert labels == [str(i) for i in range(1, 8)]
    np.testing.assert_allclose(precision.toarray(), ref["Ainv"], atol=1e-13)
    np.testing.assert_allclose(np.linalg.inv(precision.toarray()), ref["A"], atol=1e-13)
