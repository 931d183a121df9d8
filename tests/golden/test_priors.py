"""Models with priors of blme and glmmTMB: our numbers beside theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ranef as rf

MODELS = Path(__file__).parent / "models"
CALLS = {
    "blme_dyestuff2": {"prior": "blme"},
    "blme_oats_resid": {"prior": {"cov": rf.prior.wishart(common_scale=True), "sigma": rf.prior.point(13)}},
    "blme_cbpp_normal": {"prior": {"cov": rf.prior.wishart(), "fixed": rf.prior.normal(0, [10, 2.5])}},
    # blme's t takes squares of scales.
    "blme_cbpp_t": {
        "prior": {"cov": rf.prior.wishart(), "fixed": rf.prior.multivariate_t(3, np.sqrt([10, 2.5]).tolist())}
    },
    # glmmTMB's "fixef" is all but the intercept, its gamma(1, 2.5) has mean 1 and shape 2.5.
    "tmb_prior": {"prior": {"fixed": rf.prior.normal(0, 1), "(Intercept)": None, "sd(site)": rf.prior.gamma(2.5, 2.5)}},
}
# A penalised deviance that is good to 1e-8 leaves 1e-4 standard errors.
NEAR = 1e-4


@pytest.fixture(params=CALLS)
def pair(request):
    ref = json.loads((MODELS / f"{request.param}.json").read_text())
    family = ref.get("family") or "gaussian"
    return ref, rf.fit(ref["formula"], rf.datasets.load(ref["data"]), family=family, **CALLS[request.param])


def penalised(ref):
    if ref["package"] == "glmmTMB":
        return -2 * ref["logLik"]
    return -2 * ref["logLik"] + ref["devcomp"]["penalty"]


def test_the_penalised_deviance_is_theirs(pair):
    ref, m = pair
    # Rounded sums of some hundred terms; blme's optimum with a t prior is 1e-6 above ours.
    assert penalised(ref) - 2e-6 < m.criterion < penalised(ref) + 1e-7
    assert m.converged
    assert m.npar == ref["npar"] - (ref["id"] == "blme_oats_resid")  # blme counts the sigma that it holds


def test_estimates_and_errors_are_theirs(pair):
    ref, m = pair
    theirs = [row for row in ref["fixef"] if row["component"] == "cond"]
    se = np.array([row["se"] for row in theirs])
    assert np.asarray(m.params) == pytest.approx(np.array([row["estimate"] for row in theirs]), abs=NEAR * se.min())
    assert np.sqrt(np.diag(m.vcov())) == pytest.approx(se, rel=NEAR)
    ours = {key: t.sd for key, t in m.varcorr().items()}
    for v in ref["varcorr"]:
        name = ":".join(reversed(v["group"].split(":")))
        key = v["group"] if v["group"] in ours else name
        assert ours[key] == pytest.approx(np.array(v["sd"]), rel=NEAR)
    assert m.sigma == pytest.approx(ref["sigma"], rel=NEAR)
