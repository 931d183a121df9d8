"""Ordered and unordered categories without random effects, as ordinal, VGAM and nnet fit them.

ordinal's and nnet's signs are ours (nominal effects add to the thresholds); VGAM models P(Y = c | Y >= c) by
threshold + x'b where ours is threshold - x'b, P(Y > c | Y >= c) and P(Y = c + 1 | c or c + 1) by -threshold + x'b.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln

import ranef as rf

MODELS = Path(__file__).parent / "models"
CLM = {
    "cat_clm_scale": ("rating ~ temp + contact", {"scale": "~ temp"}),
    "cat_clm_nominal": ("rating ~ temp", {"nominal": "~ contact"}),
    "cat_clm_both": ("rating ~ 1", {"nominal": "~ contact", "scale": "~ temp"}),
}
RATIOS = {"cat_sratio": (1, -1), "cat_sratio_cloglog": (1, -1), "cat_cratio": (-1, 1), "cat_cratio_probit": (-1, 1),
          "cat_acat": (-1, 1)}  # fmt: skip
TIGHT = {"rtol": 1e-5, "atol": 1e-6}  # R stops where the gradient is 1e-6 or the log-likelihood moves by 1e-14


def load(name):
    return json.loads((MODELS / f"{name}.json").read_text())


def compare(m, ref, estimates):
    assert m.converged
    assert m.loglik == pytest.approx(ref["logLik"], abs=1e-8)
    # A search ends where the deviance has less than 1e-9 to fall, 3.2e-5 standard errors from the optimum at most.
    far = np.abs(np.asarray(m.coefficients()) - estimates) / np.sqrt(np.diag(m.estimate.vcov))
    assert far.max() < 3.2e-5
    np.testing.assert_allclose(np.asarray(m.predict(type="probs"))[:6], ref["probs"], **TIGHT)


@pytest.mark.parametrize("name", CLM)
def test_scale_and_nominal_effects(name):
    ref, (formula, others) = load(name), CLM[name]
    m = rf.fit(formula, rf.datasets.load("wine"), family="cumulative", link=ref["link"], **others)
    coef, cuts = ref["coef"], [k for k in ref["coef"] if "|" in k]
    expected = [*(v for k, v in coef.items() if k not in cuts), *(coef[k] for k in cuts)]
    compare(m, ref, expected)


@pytest.mark.parametrize("name", RATIOS)
def test_ratios_and_adjacent_categories(name):
    ref, (threshold, slope) = load(name), RATIOS[name]
    family = name.split("_")[1]
    m = rf.fit("rating ~ temp + contact", rf.datasets.load("wine"), family=family, link=ref["link"])
    values = list(ref["coef"].values())
    compare(m, ref, np.array([*(slope * v for v in values[4:]), *(threshold * v for v in values[:4])]))


def test_multinomial_logit():
    ref = load("cat_multinom")
    m = rf.fit("resp ~ situ + mode + Anger", rf.datasets.load("VerbAgg"), family="multinomial")
    assert list(m.coefficients().index) == list(ref["coef"])
    compare(m, ref, list(ref["coef"].values()))
    np.testing.assert_allclose(np.sqrt(np.diag(m.vcov("all"))), ref["se"], rtol=1e-4)  # nnet's Hessian is exact


def test_multinomial_logit_of_counts():
    ref = load("cat_multinom_counts")
    cells = [cell.split("_") for cell in ref["cells"]]
    d = pd.DataFrame(cells, columns=["Gender", "btype", "situ", "mode"])
    d = d.astype({"mode": pd.CategoricalDtype(["want", "do"])})
    d[["no", "perhaps", "yes"]] = ref["counts"]
    m = rf.fit("cbind(no, perhaps, yes) ~ Gender + btype + situ + mode", d, family="multinomial")
    assert list(m.coefficients().index) == list(ref["coef"])
    compare(m, ref, list(ref["coef"].values()))
    np.testing.assert_allclose(np.sqrt(np.diag(m.vcov("all"))), ref["se"], rtol=1e-4)  # nnet's Hessian is exact
    # nnet leaves the multinomial coefficients out of its log-likelihood.
    outcomes = np.sum(d[["no", "perhaps", "yes"]] * np.log(m.fitted()), axis=None)
    assert outcomes == pytest.approx(ref["nnet_logLik"], abs=1e-6)


def test_cumulative_model_of_counts():
    ref, (formula, others) = load("cat_clm_nominal"), CLM["cat_clm_nominal"]
    wine = rf.datasets.load("wine")
    d = pd.crosstab([wine["temp"], wine["contact"]], wine["rating"].astype(int)).add_prefix("r").reset_index()
    names = [f"r{k}" for k in range(1, 6)]
    m = rf.fit(f"cbind({', '.join(names)}) ~ {formula.partition('~')[2]}", d, family="cumulative", **others)
    y = d[names].to_numpy()
    orders = np.sum(gammaln(y.sum(axis=1) + 1) - gammaln(y + 1).sum(axis=1))  # clm has a row for every outcome
    assert m.loglik == pytest.approx(ref["logLik"] + orders, abs=1e-8)
    cuts = [k for k in ref["coef"] if "|" in k]
    expected = [*(v for k, v in ref["coef"].items() if k not in cuts), *(ref["coef"][k] for k in cuts)]
    np.testing.assert_allclose(np.asarray(m.coefficients()), expected, **TIGHT)
