"""P-values and intervals by one switch: tidy, contrast and summary with method="profile" and "boot"."""

import numpy as np
import pytest

import ranef as rf
from ranef.errors import ArgumentError, NotAvailableError, OptionError
from ranef.inference.by_method import inverted

F = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return rf.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def m(sleep):
    return rf.fit(F, sleep)


@pytest.fixture(scope="module")
def bacteria():
    return rf.fit("y ~ trt + (1 | ID)", rf.datasets.load("bacteria"), family="binomial")


def test_profile_p_is_the_likelihood_ratio_of_the_smaller_model(m, sleep):
    table = m.tidy(method="profile")
    ratio = rf.anova(m, rf.fit("Reaction ~ 1 + (Days | Subject)", sleep))  # both by maximum likelihood
    # two optima, each to about 1e-8 of the deviance
    assert table["statistic"][1] ** 2 == pytest.approx(ratio["chisq"][1], abs=1e-5)
    assert table["p_value"][1] == pytest.approx(ratio["p_value"][1], rel=1e-4)
    assert table["p_method"].unique() == ["likelihood ratio (ML)"]
    assert "conf_method" not in table
    assert list(m.tidy().columns) == list(table.columns[:-1])


def test_the_statistic_is_the_profiles_root_at_zero(bacteria):
    table = bacteria.tidy(method="profile", conf_int=True)
    for i, name in enumerate(table["term"]):
        curve = rf.profile(bacteria, name, level=0.999)[name]
        z = curve.zeta_at(0.0)
        if np.isfinite(z):
            assert table["statistic"][i] == pytest.approx(-float(z), abs=2e-3)  # interpolated between nodes
    assert set(table["conf_method"]) == {"profile"}


def test_p_values_of_random_parameters(m):
    table = m.tidy("ran_pars", method="profile")
    sd, cor = table.iloc[0], table.iloc[2]
    assert np.isnan(sd["p_value"])
    assert "rf.ranova" in sd["p_method"]
    smaller = m.update("Reaction ~ Days + (Days || Subject)", method="ml")
    ratio = smaller.criterion - m.update(method="ml").criterion
    assert cor["statistic"] ** 2 == pytest.approx(ratio, abs=1e-5)  # two optima of the deviance


@pytest.mark.parametrize("interval", ["percentile", "basic", "normal", "bca"])
def test_bootstrap_p_inverts_the_interval(m, interval):
    b = rf.bootstrap(m, n=499, seed=1)
    for value in (6.0, 8.0, 12.5):
        values = np.where(np.array(b.names) == "Days", value, b.estimate)
        at = b.names.index("Days")
        p = inverted(b, values, interval)[at]
        inside = [low <= value <= high for level in (1 - p + 0.012, 1 - p - 0.012) if 0 < level < 1
                  for low, high in (tuple(e[at] for e in b.ends(level, interval)),)]  # fmt: skip
        assert inside in ([True, False], [False])  # 0.012: the count added (2 / 500) and a step between replicates


def test_bootstrap_p_is_never_zero_and_says_where_it_comes_from(m):
    table = m.tidy(["fixed", "ran_pars"], conf_int=True, method="boot", n=99, seed=1)
    assert table["p_value"][1] == pytest.approx(2 / 100)
    assert table["p_method"][1] == "bootstrap, percentile" == table["conf_method"][1]
    assert np.isnan(table["p_value"][2])
    assert table["p_value"][4] > 0.05  # the correlation


def test_contrast_by_profile(m, sleep):
    table = rf.contrast(m, ["Days - 10", "(Intercept) + 4*Days = 290"], method="profile")
    moved = rf.fit(F, sleep.assign(Days=sleep["Days"] - 4))  # the second is the intercept of moved days
    low, high = rf.profile(moved, "(Intercept)")["(Intercept)"].interval(0.95)
    # ends are found to 1e-9 in zeta; the two optima differ by rounding
    assert table["conf_low"][1] == pytest.approx(low, abs=1e-3)
    assert table["conf_high"][1] == pytest.approx(high, abs=1e-3)
    ten = rf.fit("Reaction ~ 1 + offset(10 * Days) + (Days | Subject)", sleep, method="ml")
    root = np.sqrt(ten.criterion - m.update(method="ml").criterion)
    assert table["statistic"][0] == pytest.approx(root, abs=1e-5)


def test_contrast_of_a_generalised_model_by_profile(bacteria):
    found = rf.contrast(bacteria, ["trtdrug", "trtdrug - trtdrug+"], method="profile")
    curve = rf.confint(bacteria, method="profile", which="trtdrug")
    # ends are found to 1e-9 in zeta; the two optima differ by rounding
    np.testing.assert_allclose(found[["conf_low", "conf_high"]].iloc[0], curve[["conf_low", "conf_high"]].iloc[0], 1e-3)
    assert (found["conf_low"] < found["estimate"]).all()
    assert (found["estimate"] < found["conf_high"]).all()


def test_joint_contrast_is_the_likelihood_ratio(bacteria):
    joint = rf.contrast(bacteria, ["trtdrug", "trtdrug+"], joint=True, method="profile")
    assert joint["statistic"][0] == pytest.approx(rf.drop1(bacteria)["chisq"][1], abs=1e-5)  # two searches
    boot = rf.contrast(bacteria, ["trtdrug", "trtdrug+"], joint=True, method="boot", n=60, seed=1)
    assert 1 / 61 <= boot["p_value"][0] <= 1
    with pytest.raises(ArgumentError, match="depend linearly"):
        rf.contrast(bacteria, ["trtdrug", "2*trtdrug"], joint=True, method="profile")


def test_contrasts_by_bootstrap_are_combinations_of_its_replicates(m):
    options = {"method": "boot", "n": 99, "seed": 3}
    table = rf.contrast(m, "Days - 10", **options)
    own = m.tidy(conf_int=True, **options)
    assert table["conf_low"][0] == pytest.approx(own["conf_low"][1], rel=1e-12)  # the same replicates
    bca = rf.contrast(m, "(Intercept) + Days", interval="bca", **options)
    assert bca["conf_low"][0] < bca["estimate"][0] < bca["conf_high"][0]


def test_dropped_columns_and_missing_rows(sleep):
    data = sleep.assign(D2=2 * sleep["Days"], Reaction=sleep["Reaction"].where(sleep.index != 3))
    q = rf.fit("Reaction ~ Days + D2 + (1 | Subject)", data)
    table = q.tidy(method="profile", conf_int=True)
    assert np.isnan(table["p_value"][2])
    assert "dropped" in table["p_method"][2]
    plain = rf.fit("Reaction ~ Days + (1 | Subject)", data).tidy(method="profile")
    assert table["statistic"][1] == pytest.approx(plain["statistic"][1], abs=1e-6)  # the same model, two searches
    two = rf.contrast(q, "(Intercept) + Days", method="profile")
    assert np.isfinite(two["conf_low"][0])


def test_thresholds_have_roots_too():
    wine = rf.fit("rating ~ temp + (1 | judge)", rf.datasets.load("wine"), family="cumulative")
    table = wine.tidy(method="profile")
    assert (np.sign(table["statistic"]) == np.sign(table["estimate"])).all()


def test_summary_shows_the_method(m):
    assert "p-values by likelihood ratio (ML)" in str(m.summary(method="profile"))
    assert "p-values by bootstrap, basic" in str(m.summary(method="boot", n=19, seed=1, interval="basic"))


def test_refusals(m, sleep):
    with pytest.raises(ArgumentError, match="ddf= is about Wald"):
        m.tidy(method="profile", ddf="inf")
    with pytest.raises(ArgumentError, match="vcov= is about Wald"):
        rf.contrast(m, "Days", vcov="CR2", method="boot")
    with pytest.raises(ArgumentError, match="no option 'n'"):
        m.summary(method="profile", n=10)
    with pytest.raises(OptionError, match="method='exact'"):
        rf.contrast(m, "Days", method="exact")
    with pytest.raises(ArgumentError, match="no argument 'n'"):
        rf.contrast(m, "Days", n=10)
    with pytest.raises(NotAvailableError, match="null hypothesis"):
        m.tidy("ran_vals", method="boot", n=3)
    with pytest.raises(ArgumentError, match="rhs="):
        rf.contrast(m, "Days", rhs="a")
    both = rf.fit("Reaction ~ Days + (1 | Subject)", sleep, dispersion="~ Days")
    with pytest.raises(NotAvailableError, match="one component"):
        rf.contrast(both, {"Days": 1, "dispersion.Days": 1}, component="all", method="profile")


def test_combinations_of_models_whose_curves_are_walked():
    # An autoregression beside a residual: profiles go by fits with the value held, there and here.
    data = rf.datasets.load("Orthodont")
    data = data.assign(at=data["age"].astype(int).astype(str).astype("category"))
    m = rf.fit("distance ~ age + Sex + ar1(0 + at | Subject)", data)
    found = rf.contrast(m, "age", method="profile")
    curve = rf.confint(m, method="profile", which="age")
    # The walk ends within 1e-5 in zeta, which is a relative 1e-5 of the half width.
    for column in ("conf_low", "conf_high"):
        assert found[column][0] == pytest.approx(curve[column][0], rel=1e-4)
    joint = rf.contrast(m, "age + SexFemale", method="profile")
    assert joint["conf_low"][0] < joint["estimate"][0] < joint["conf_high"][0]


def test_a_grouping_factor_may_be_called_residual():
    sleep = rf.datasets.load("sleepstudy")
    other = sleep.rename(columns={"Subject": "Residual"})
    frames = [
        rf.fit(f"Reaction ~ Days + (1 | {name})", data).tidy(["ran_pars"], method="profile", conf_int=True)
        for name, data in (("Subject", sleep), ("Residual", other))
    ]
    columns = ["term", "estimate", "p_value", "p_method", "conf_low", "conf_high"]
    assert frames[0][columns].equals(frames[1][columns])
