"""Penalised quasi-likelihood beside MASS::glmmPQL, iterated to convergence in R."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ranef as rf

MODELS = Path(__file__).parent / "models"
NAMES = ("pql_bacteria", "pql_epil", "pql_mmmec")


@cache
def pair(name):
    ref = json.loads((MODELS / f"{name}.json").read_text())
    group = ref["random"].removeprefix("~1 | ")
    m = rf.fit(f"{ref['formula']} + (1 | {group})", rf.datasets.load(ref["data"]), family=ref["family"], method="pql")
    return ref, m


@pytest.mark.parametrize("name", NAMES)
def test_estimates(name):
    ref, m = pair(name)
    # nlme stops its inner optimisations at 1e-6 or so: that is the digits its fixed point has.
    terms = {f["term"]: f["estimate"] for f in ref["fixef"]}
    assert_allclose([m.params[t] for t in terms], list(terms.values()), rtol=1e-5, atol=1e-6)
    assert_allclose(m.sigma, ref["sigma"], rtol=1e-5)
    assert_allclose(next(iter(m.varcorr().values())).sd, ref["varcorr"][0]["sd"], rtol=1e-5)
    assert m.converged


@pytest.mark.parametrize("name", NAMES)
def test_standard_errors(name):
    ref, m = pair(name)
    p = len(ref["fixef"])
    # summary.lme prints ML standard errors times sqrt(N / (N - p)); vcov() is without that factor, as ours is.
    theirs = np.array([f["se"] for f in ref["fixef"]]) * np.sqrt((m.nobs - p) / m.nobs)
    assert_allclose(m.tidy("fixed")["std_error"], theirs, rtol=1e-5)
    assert_allclose(np.diag(m.vcov()), np.diag(ref["vcov"]["matrix"]), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_random_effects(name):
    ref, m = pair(name)
    ((group, theirs),) = ref["ranef"].items()
    ours = dict(zip(map(str, m.ranef()[group]["level"]), m.ranef()[group]["(Intercept)"], strict=True))
    estimates = np.ravel(theirs["estimate"])
    levels = theirs["levels"][: len(estimates)]
    assert_allclose([ours[str(v)] for v in levels], estimates[: len(levels)], rtol=1e-4, atol=1e-5)
