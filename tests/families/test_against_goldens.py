"""Log-likelihoods of fitted models of glmmTMB and ordinal, re-evaluated at their estimates with our densities.

Models with one scalar random intercept: the Laplace approximation is one dimension a group, done here with the
derivatives of the family. Agreement shows that parameters, dispersions and constants mean what they mean there.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from ranef import _core, datasets

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def design(d, terms):
    """Columns of a fixed-effects table: an intercept, numeric columns, treatment dummies, products, as R names them."""

    def column(part):
        if part == "(Intercept)":
            return np.ones(len(d))
        if part in d.columns:
            return d[part].to_numpy(dtype=float)
        name = max((c for c in d.columns if part.startswith(c)), key=len)
        return (d[name].astype(str) == part.removeprefix(name)).to_numpy(dtype=float)

    return np.column_stack([np.prod([column(part) for part in t.split(":")], axis=0) for t in terms])


def response(d, expression):
    """A column, or one column over another."""
    over = [d[name.strip()].astype(str).astype(float).to_numpy() for name in expression.split("/")]
    return over[0] / over[1] if len(over) > 1 else over[0]


def laplace(family, data, eta, codes, sd):
    """log-likelihood with a random intercept in the first predictor."""
    if sd == 0 or codes is None:
        return _core.family_eval(family, data, eta, 0).sum()
    k, groups = eta.shape[1], codes.max() + 1
    u = np.zeros(groups)
    for _ in range(60):
        moved = eta.copy()
        moved[:, 0] += sd * u[codes]
        out = _core.family_eval(family, data, moved, 2)
        first = np.bincount(codes, sd * out[:, 1], groups) - u
        second = np.bincount(codes, sd**2 * out[:, 1 + k], groups) - 1
        # the scale of the curvature where it has the wrong sign
        step = np.clip(first / np.abs(second), -1, 1)
        u += step
        if np.abs(step).max() < 1e-13:
            break
    return out[:, 0].sum() - 0.5 * u @ u - 0.5 * np.log(-second).sum()


@pytest.mark.parametrize("case", GOLDEN, ids=[c["id"] for c in GOLDEN])
def test_log_likelihood(case):
    d = datasets.load(case["data"])
    n, columns = len(d), []
    for terms, estimate, offset in case["components"]:
        eta = design(d, terms) @ np.array(estimate)
        columns.append(eta + (np.log(d[offset].to_numpy(dtype=float)) if offset else 0.0))
    data = {"y": response(d, case["y"])}
    if case["trials"]:
        data["trials"] = d[case["trials"]].to_numpy(dtype=float)
    codes = np.unique(d[case["group"]].astype(str), return_inverse=True)[1] if case["group"] else None
    if case["family"]["name"] == "cumulative":
        cuts = np.array(case["thresholds"])
        data["y"] = data["y"] - 1
        y = data["y"].astype(int)
        columns += [np.append(cuts, 0.0)[y], np.insert(cuts, 0, 0.0)[y]]
    eta = np.ascontiguousarray(np.column_stack(columns))
    assert eta.shape == (n, len(columns))
    got = laplace(case["family"], data, eta, codes, case["sd"])
    # the reference's optimum is tight to 1e-8; estimates are printed to 15 digits
    np.testing.assert_allclose(got, case["loglik"], atol=2e-6)
