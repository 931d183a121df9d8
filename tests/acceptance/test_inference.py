"""Figures of tests, intervals and criteria that other systems or the GLMM FAQ print; docs/acceptance.md lists them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ranef as rf
from golden import reference
from ranef.errors import NotAvailableError, RanefWarning

HALF = 0.5001  # half a unit of the last digit printed


@pytest.fixture(scope="module")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"))


@pytest.fixture(scope="module")
def cbpp():
    data = rf.datasets.load("cbpp")
    return rf.fit("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial")


def codes(table):
    return {note.code for note in table.notes}


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_intervals_of_nlme():
    """Row 6, intervals(lme): apVar on the log scale."""
    m = rf.fit("distance ~ age + (1 | Subject)", rf.datasets.load("Orthodont"))
    table = rf.confint(m, which="random")
    ends = np.column_stack([table["conf_low"], table["conf_high"]])
    np.testing.assert_allclose(ends, [[1.561, 2.864], [1.226, 1.672]], atol=HALF * 1e-3)


def test_profile_of_lme4():
    """Row 16, confint(profile)."""
    m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), method="ml")
    table = rf.confint(m, method="profile")
    found = {(r.group, r.term): (r.conf_low, r.conf_high) for r in table.itertuples()}
    low, high = np.array(list(found.values())).T
    figures = [(7.359, 13.576), (14.381, 37.716), (3.801, 8.753), (-0.4815, 0.6850)]
    for a, b in figures:
        near = (np.abs(low - a) < HALF * 1e-3) & (np.abs(high - b) < HALF * 1e-3)
        assert near.sum() == 1, (a, b)


def test_refit_to_the_same_response(sleep):
    """Row 17: the same response gives the same log-likelihood."""
    assert sleep.refit(np.asarray(sleep.data["Reaction"])).loglik == pytest.approx(sleep.loglik, abs=1e-9)


def test_r2_and_icc_of_performance(sleep):
    """Rows 148 and 181: .279, .799; the adjusted ICC is .722."""
    found = rf.r2(sleep)
    np.testing.assert_allclose([found.marginal, found.conditional], [0.279, 0.799], atol=HALF * 1e-3)
    assert rf.icc(sleep) == pytest.approx(0.722, abs=HALF * 1e-3)


def test_robust_of_clubsandwich(sleep):
    """Row 159: SE 6.8246, 1.5458; df 17; t 36.84, 6.77."""
    table = rf.robust(sleep, "CR2")
    np.testing.assert_allclose(table["std_error"], [6.8246, 1.5458], atol=HALF * 1e-4)
    np.testing.assert_allclose(table["df"], 17, rtol=1e-9)  # balanced: exact
    np.testing.assert_allclose(table["statistic"], [36.84, 6.77], atol=HALF * 1e-2)


def test_full_covariance_of_merderiv():
    """Row 160: SE 6.632, 1.502, 265.25, 42.87, 13.57, 77.19 from lme4's optimum; the scores sum to zero."""
    m = rf.fit("Reaction ~ Days + (Days | Subject)", rf.datasets.load("sleepstudy"), method="ml")
    error = np.sqrt(np.diag(np.linalg.inv(rf.information(m, "expected"))))
    # lme4's default optimum is off by 1e-4 of a variance; beside a polished one see tests/golden/test_robust.py.
    np.testing.assert_allclose(error, [6.632, 1.502, 265.25, 42.87, 13.57, 77.19], rtol=3e-4)
    scores = rf.estfun(m).iloc[:, 1:]
    np.testing.assert_allclose(scores.sum() / scores.abs().max(), 0, atol=1e-6)  # the gradient at the optimum


def test_wald_test_of_a_generalised_model(cbpp):
    """Row 162: car prints 25.488, from a Hessian by differences of glmer's deviance; an exact one gives 24.95."""
    table = rf.anova(cbpp, type=2)
    assert table["df"][0] == 3
    exact = {r["term"]: r["se"] for r in reference.load("tmb_binomial_cbpp").raw["fixef"]}
    np.testing.assert_allclose(cbpp.tidy()["std_error"], list(exact.values()), rtol=1e-4)  # as ours, not as glmer's
    assert table["statistic"][0] == pytest.approx(24.9486, abs=HALF * 1e-4)  # with a tolerance of 1e-13 too
    assert abs(table["statistic"][0] / 25.488 - 1) < 0.03


def test_permutation(sleep):
    """Row 171: with a strong effect no permutation comes near."""
    assert rf.permutation_test(sleep, "Days", n=199, seed=1).p_value == 1 / 200


def test_machines_inner_outer():
    """Row 1 and N14: 36 for the intercept, 10 for Machine."""
    m = rf.fit("score ~ Machine + (1 | Worker/Machine)", rf.datasets.load("Machines"))
    assert m.tidy(ddf="inner-outer")["df"].tolist() == [36, 10, 10]


def test_a_residual_standard_deviation_of_one():
    """N17: with sigma held at 1 it is 1; smaller values change the fit smoothly."""
    data = rf.datasets.load("sleepstudy")
    held = {s: rf.fit("Reaction ~ Days + (1 | Subject)", data, fixed={"sigma": s}) for s in (1.0, 0.001, 0.0001)}
    assert held[1.0].sigma == pytest.approx(1.0, rel=1e-12)
    slopes = [m.params["Days"] for m in held.values()]
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-6)  # balanced: the slope does not depend on sigma


# ---- pitfalls --------------------------------------------------------------------------------------------------------


def test_restricted_likelihoods_of_different_fixed_effects(sleep):
    """P21, P22."""
    smaller = sleep.update(". ~ . - Days")
    for table in (rf.anova(smaller, sleep), rf.compare(smaller, sleep)):
        assert "refitted by maximum likelihood: 2 of 2 models" in str(table)
    assert "fit by REML" in str(sleep.summary())
    assert "fit by maximum likelihood" in str(sleep.update(method="ml").summary())


def test_reml_of_a_generalised_model(cbpp):
    """P23."""
    assert "approximate_reml" in {n.code for n in cbpp.update(method="reml").messages}
    assert "approximate_reml" not in {n.code for n in cbpp.messages}


def test_likelihood_ratios_with_few_groups(sleep):
    """P24."""
    assert "few_groups" in codes(rf.anova(sleep.update(". ~ . - Days"), sleep))


def test_boundaries():
    """P25, P26, P27, N18: halved p-values; no Vuong test of zero inflation."""
    data = rf.datasets.load("sleepstudy")
    one = rf.fit("Reaction ~ Days + (1 | Subject)", data, method="ml")
    two = rf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", data, method="ml")
    table = rf.anova(one, two)
    assert "boundary" in codes(table)
    assert (f"{table['p_value'][1]:.2e}", f"{table['p_mixture'][1]:.2e}") == ("8.78e-11", "4.39e-11")
    counts = rf.datasets.load("Salamanders")
    zeros = [rf.fit("count ~ mined + (1 | site)", counts, family="poisson", zero_inflation=z) for z in (None, "~ 1")]
    assert "a zero inflation of 0" in str(rf.anova(*zeros))
    assert "conservative" in str(rf.compare(*zeros))
    with pytest.raises(NotAvailableError, match="boundary"):
        rf.vuong(*zeros)


def test_degrees_of_freedom_that_are_wrong(sleep, cbpp):
    """P51, P52, P54."""
    with pytest.warns(RanefWarning, match="vary between groups"):
        sleep.tidy(ddf="inner-outer")
    with pytest.warns(RanefWarning, match="18 groups"):
        sleep.tidy(ddf="inf")
    with pytest.raises(NotAvailableError, match="gaussian"):
        cbpp.tidy(ddf="kenward-roger")
    assert "few_groups" not in {n.code for n in cbpp.messages}  # periods are compared within herds
    data = cbpp.data.assign(treated=cbpp.data["herd"].astype(int) % 2)
    between = cbpp.update(". ~ . + treated", data=data)
    note = next(n for n in between.messages if n.code == "few_groups")
    assert "15 groups (herd)" in note.text
    assert "z tests" in between.summary()


def test_designs_and_selection(sleep):
    """P55, P56."""
    assert "design" in codes(rf.ranova(sleep))
    assert "selection" in codes(rf.drop1(sleep))
    assert "selection" in codes(rf.drop1(sleep, test="F"))


def test_errors_of_variances_on_the_boundary():
    """P57: none is reported where the likelihood has no quadratic top; the profile reaches 0."""
    m = rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"))
    assert np.isnan(m.tidy("ran_pars")["std_error"][0])
    with pytest.warns(RanefWarning, match="profile"):
        assert np.isnan(rf.confint(m, which="random")["conf_low"][0])
    assert rf.confint(m, method="profile", which="random")["conf_low"][0] == 0
    with pytest.warns(RanefWarning, match="of Batch is more than half of the estimate"):
        rf.fit("Yield ~ 1 + (1 | Batch)", rf.datasets.load("Dyestuff2"), prior="blme").tidy("ran_pars", conf_int=True)


def test_cases_are_groups():
    """P58: the bootstrap by cases draws whole groups."""
    m = rf.fit("strength ~ 1 + (1 | batch/cask)", rf.datasets.load("Pastes"))
    assert "batch" in str(rf.bootstrap(m, n=20, kind="cases", seed=1))
    assert "rows" in codes(rf.bootstrap(m, n=2, kind="cases", levels="rows", seed=1))


def test_prediction_intervals_for_new_groups(sleep):
    """P59: they take the variances as known, which is said where few groups tell them."""
    m = rf.fit("strength ~ 1 + (1 | batch) + (1 | cask)", rf.datasets.load("Pastes"))  # ten batches, three casks
    with pytest.warns(RanefWarning, match=r"those of 'cask' \(3 levels\) are not.*too short.*rf\.bootstrap"):
        m.predict(re="none", interval="prediction")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.predict(interval="prediction")  # of the groups that are there
        m.predict(re="none", interval="confidence")
        sleep.predict({"Days": [1], "Subject": ["new"]}, new_levels="population", interval="prediction")
        held = m.update(fixed={"sd(cask)": 1.0})
        held.predict(re="none", interval="prediction")
    new = {"batch": ["A"], "cask": ["d"]}
    with pytest.warns(RanefWarning, match="'cask'"):
        m.predict(new, new_levels="population", interval="prediction")


def test_many_comparisons():
    """P77: levels compared more often than a factor has degrees of freedom."""
    m = rf.fit("score ~ Machine + (1 | Worker)", rf.datasets.load("Machines"))
    pairs = ["MachineB", "MachineC", "MachineB - MachineC"]
    with pytest.warns(
        RanefWarning, match=r"3 comparisons of the levels of 'Machine'.*2 degrees.*\(1 \| Machine\).*joint"
    ):
        rf.contrast(m, pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rf.contrast(m, pairs, joint=True)
        rf.contrast(m, pairs[:2])
        rf.contrast(m, np.eye(3))  # means, not comparisons
        curve = rf.fit("Reaction ~ poly(Days, 3) + (1 | Subject)", rf.datasets.load("sleepstudy"))
        rf.contrast(curve, [{curve.layout.fixed[j]: k} for j in (1, 2, 3) for k in (1, 2)])
    slim = m.slim()
    with pytest.warns(RanefWarning, match="partial pooling"):
        rf.contrast(slim, pairs)


def test_intervals_are_transformed_by_their_ends(cbpp):
    """P60."""
    link = cbpp.predict(re="none", type="link", interval="confidence")
    response = cbpp.predict(re="none", type="response", interval="confidence")
    for end in ("conf_low", "conf_high"):
        np.testing.assert_allclose(response[end], 1 / (1 + np.exp(-link[end])), rtol=1e-12)


def test_models_in_any_order(sleep):
    """P61: the plain linear model first or last."""
    ml = sleep.update(method="ml")
    plain = rf.fit("Reaction ~ Days", sleep.data, method="ml")
    assert rf.anova(plain, ml)["chisq"][1] == rf.anova(ml, plain)["chisq"][1]


def test_conditional_modes_are_not_tested(sleep):
    """P62."""
    assert np.isnan(sleep.tidy("ran_vals")["p_value"]).all()
    with pytest.raises(NotAvailableError, match="no p-value"):
        rf.confint(sleep, method="profile", which="ran_vals")


def test_criteria_count_a_variance_of_zero():
    """P76."""
    data = rf.datasets.load("Dyestuff2")
    table = rf.compare(rf.fit("Yield ~ 1 + (1 | Batch)", data), rf.fit("Yield ~ 1", data))
    assert "counts it as a parameter" in str(table)


def test_kenward_roger_says_nothing_in_sound_designs(sleep):
    """The warnings above come only where they apply."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sleep.tidy(ddf="kenward-roger")
        rf.anova(sleep)
