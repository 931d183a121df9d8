"""Units of the response and of a column change units of the answers and nothing else, as far as numbers reach."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import ranef as rf
from ranef.errors import DataError

FORMULAS = {"y ~ x + (1 | g)": 1, "y ~ x + (x | g)": 2}


def rows(of_y=1.0, of_x=1.0):
    rng = np.random.default_rng(0)
    g, x = rng.integers(0, 12, 240), rng.normal(size=240)
    slope = 1 + 0.7 * rng.normal(size=12)
    y = slope[g] * x + 3 + rng.normal(size=12)[g] + rng.normal(size=240)
    return pd.DataFrame({"y": y * of_y, "x": x * of_x, "g": g})


def answers(formula, of_y=1.0, of_x=1.0):
    """What is asked of a fit, in the units of the first rows."""
    m = rf.fit(formula, rows(of_y, of_x))
    fixed = [of_y, of_y / of_x]
    random = [of_y, of_y] if FORMULAS[formula] == 1 else [of_y, of_y / of_x, 1.0, of_y]
    table, unit = m.tidy(effects="fixed"), np.array([*fixed, *random])
    profile = rf.confint(m, method="profile")
    return {
        "estimates": profile["estimate"] / unit,
        "standard errors": table["std_error"] / fixed,
        "satterthwaite": table["df"],
        "kenward-roger": m.tidy(effects="fixed", ddf="kenward-roger")["df"],
        "profile": np.column_stack([profile["conf_low"], profile["conf_high"]]) / unit[:, None],
    }


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("power", [-70, -12, -6, 6, 12, 70])
@pytest.mark.parametrize("of", ["of_y", "of_x"])
def test_units(formula, power, of):
    expected = answers(formula)
    for what, found in answers(formula, **{of: 10.0**power}).items():
        if what == "profile" and (of == "of_y" or FORMULAS[formula] > 1):  # searches compare roots with log sigma
            continue
        # The searches end within 1e-10 of the deviance, whose square root bounds the parameters
        assert_allclose(found, expected[what], rtol=1e-5, atol=1e-7, err_msg=what)


@pytest.mark.parametrize("power", [-300, -150, -90, 90, 150, 300])
@pytest.mark.parametrize(("of", "name"), [("of_y", "response 'y'"), ("of_x", "column 'x'")])
def test_units_out_of_reach_are_told(power, of, name):
    with pytest.raises(DataError, match=f"{name} has values of .*give it in other units"):
        rf.fit("y ~ x + (1 | g)", rows(**{of: 10.0**power}))


@pytest.mark.parametrize(("family", "dispersion"), [("gaussian", "~ x"), ("student_t", None), ("skew_normal", None)])
def test_generalised_fits_hold_in_other_units_or_are_refused(family, dispersion):
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(40), 12), rng.normal(size=480)
    y = x + 0.5 * rng.normal(size=40)[g] + rng.normal(size=480)
    options = {"family": family, "method": "ml", **({} if dispersion is None else {"dispersion": dispersion})}

    def fit(scale):
        return rf.fit("y ~ x + (1 | g)", {"y": scale * y, "x": x, "g": g}, **options)

    plain = fit(1.0)
    for scale in (1e-8, 1e-4, 1e8):
        assert fit(scale).loglik + 480 * np.log(scale) == pytest.approx(plain.loglik, abs=1e-6)  # two searches
    for scale in (1e-12, 1e12):
        with pytest.raises(rf.errors.DataError, match="other units"):
            fit(scale)


def test_a_skew_normal_without_slant_is_no_end():
    """All derivatives in the slant are zero there; the optimum lies elsewhere, and a shift changes nothing."""
    rng = np.random.default_rng(8)
    g, x = np.repeat(np.arange(40), 12), rng.normal(size=480)
    y = x + 0.5 * rng.normal(size=40)[g] + rng.normal(size=480)

    def loglik(by, **options):
        data = {"y": y + by, "x": x, "g": g}
        return rf.fit("y ~ x + (1 | g)", data, family="skew_normal", method="ml", **options).loglik

    plain = loglik(0.0)
    assert plain == pytest.approx(loglik(1e6), abs=1e-6)  # two searches, y with six digits less
    assert all(loglik(0.0, shape=slant) < plain for slant in (-1.0, -0.3, 0.3, 0.5, 0.8, 1.2))
