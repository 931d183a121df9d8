"""Intervals by one switch: Wald beside nlme and glmmTMB, profile and bootstrap beside their own tests."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from golden import reference
from ranef.errors import ArgumentError, NotAvailableError, OptionError, RanefWarning


@pytest.fixture(scope="module")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))


def row(table, label):
    return table.set_index("parameter").loc[label]


def test_wald_intervals_of_variances_are_nlmes():
    m = rf.fit("distance ~ age + (1 | Subject)", rf.datasets.load("Orthodont"))
    table = rf.confint(m)
    # nlme::intervals, as printed.
    for label, low, high in (("sd((Intercept) | Subject)", 1.561, 2.864), ("sigma", 1.226, 1.672)):
        assert row(table, label)[["conf_low", "conf_high"]].tolist() == pytest.approx([low, high], abs=6e-4)


def test_wald_intervals_are_glmmtmbs():
    data = rf.datasets.load("Salamanders")
    table = rf.confint(rf.fit("count ~ mined + (1 | site)", data, family="nbinom2", zero_inflation="~mined"))
    labels = {
        "cond.(Intercept)": "(Intercept)",
        "cond.minedno": "minedno",
        "zi.(Intercept)": "zero_inflation.(Intercept)",
        "zi.minedno": "zero_inflation.minedno",
        "cond.Std.Dev.(Intercept)|site": "sd((Intercept) | site)",
    }
    for theirs in reference.load("tmbpost_sal_intervals").raw["wald"]:
        ours = row(table, labels[theirs["term"]])
        # glmmTMB's Hessian is a difference quotient of gradients.
        assert ours["conf_low"] == pytest.approx(theirs["lower"], rel=1e-4, abs=1e-4)
        assert ours["conf_high"] == pytest.approx(theirs["upper"], rel=1e-4, abs=1e-4)


def test_one_switch(sleep):
    for method in ("wald", "profile", "boot"):
        options = {"n": 50, "seed": 1} if method == "boot" else {}
        table = rf.confint(sleep, 0.9, method, **options)
        tidy = sleep.tidy(["fixed", "ran_pars"], conf_int=True, conf_level=0.9, method=method, **options)
        np.testing.assert_array_equal(table["conf_low"], tidy["conf_low"])
        np.testing.assert_array_equal(table["conf_high"], tidy["conf_high"])
        assert (table["conf_low"] < table["conf_high"]).all()
        assert list(table["term"]) == list(tidy["term"])


def test_profiles_by_name(sleep):
    exact = {r["term"]: r for r in reference.load("post_sleepstudy_intervals").raw["profile_ml"]["exact"]}
    table = rf.confint(sleep, method="profile", which=["sd__Days", "sigma"])
    assert table["parameter"].tolist() == ["sd(Days | Subject)", "sigma"]
    assert table["estimate"].tolist() == pytest.approx([sleep.varcorr()["Subject"].sd[1], sleep.sigma])
    assert row(table, "sigma")["conf_low"] == pytest.approx(exact["sigma"]["lower"], rel=1e-7)
    assert row(table, "sd(Days | Subject)")["conf_high"] == pytest.approx(exact["sd_Days|Subject"]["upper"], rel=1e-7)


def test_no_wald_interval_on_the_boundary():
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    with pytest.warns(RanefWarning, match="'profile'"):
        table = rf.confint(m)
    assert row(table, "sd((Intercept) | Batch)")[["conf_low", "conf_high"]].isna().all()
    assert m.tidy("ran_pars", conf_int=True)["conf_low"].isna().sum() == 1
    assert row(rf.confint(m, method="profile"), "sd((Intercept) | Batch)")["conf_low"] == 0


def test_conditional_modes_have_no_p_values(sleep):
    with pytest.raises(NotAvailableError, match="no p-value"):
        rf.confint(sleep, which="ran_vals")
    with pytest.raises(NotAvailableError, match="predictions"):
        sleep.tidy("ran_vals", conf_int=True, method="profile")
    assert sleep.tidy("ran_vals")["p_value"].isna().all()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "exact"}, OptionError, "'boot'"),
        ({"method": "boot", "replicates": 5}, ArgumentError, "replicates"),
        ({"conf_level": 0.9}, ArgumentError, "write level="),
        ({"parm": "Days"}, ArgumentError, "write which="),
        ({"method": "profile", "n": 5}, ArgumentError, "'n'"),
        ({"which": "sd(Day | Subject)"}, OptionError, r"sd\(Days \| Subject\)"),
        ({"level": 1.0}, OptionError, "between 0 and 1"),
    ],
)
def test_bad_options(sleep, options, error, text):
    with pytest.raises(error, match=text):
        rf.confint(sleep, **options)
