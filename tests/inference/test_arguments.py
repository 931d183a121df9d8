"""Wrong arguments of functions of a fit: typed errors that say what to do, seeds that can be had again."""

import re

import numpy as np
import pytest

import ranef as rf
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError

F = "Reaction ~ Days + (1 | Subject)"
FUNCTIONS = (
    "add1", "all_fit", "anova", "bootstrap", "caic", "confint", "contrast", "drop1", "estfun", "exact_lrt",
    "exact_rlrt", "icc", "information", "laplace_check", "loadings", "marginal_coefficients", "overdispersion",
    "partial_r2", "permutation_test", "profile", "quasi_table", "r2", "ranova", "repeatability", "robust", "scores",
    "variance_decomposition", "zeros",
)  # fmt: skip


@pytest.fixture(scope="module")
def sleep():
    return rf.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def m(sleep):
    return rf.fit(F, sleep)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_frame_is_no_fit(name, sleep):
    further = ("Days",) if name in ("add1", "contrast", "permutation_test") else ()
    with pytest.raises(ArgumentError, match=rf"{name}: its first argument is a fit.*DataFrame"):
        getattr(rf, name)(sleep, *further)


def test_anova_of_several_models_says_what_it_takes(m, sleep):
    small = rf.fit("Reaction ~ 1 + (1 | Subject)", sleep)
    with pytest.raises(ArgumentError, match="by likelihood ratios"):
        rf.anova(small, m, ddf="kenward-roger")
    with pytest.raises(ArgumentError, match="one by one"):
        rf.anova([small, m])


def test_seeds_are_recorded_and_repeat_the_test(m, sleep):
    small = rf.fit("Reaction ~ 1 + (1 | Subject)", sleep)
    drawn = rf.pb_test(m, small, n=20)
    again = rf.pb_test(m, small, n=20, seed=drawn.seed)
    np.testing.assert_array_equal(drawn.draws, again.draws)
    exact = rf.exact_rlrt(m, n=50)
    np.testing.assert_array_equal(exact.draws, rf.exact_rlrt(m, n=50, seed=exact.seed).draws)
    assert rf.exact_lrt(m, n=20, seed=np.random.default_rng(1)).seed is None
    assert "seed 4" in repr(rf.repeatability(m, n_boot=5, seed=4))
    for wrong in (-1, "x", 1.5):
        with pytest.raises(OptionError, match="seed="):
            rf.pb_test(m, small, n=5, seed=wrong)
        with pytest.raises(OptionError, match="seed="):
            rf.exact_rlrt(m, seed=wrong)
        with pytest.raises(OptionError, match="seed="):
            rf.repeatability(m, n_boot=5, seed=wrong)


def test_pb_test_with_threads_and_progress(m, sleep, capsys, monkeypatch):
    small = rf.fit("Reaction ~ 1 + (1 | Subject)", sleep)
    monkeypatch.setattr("ranef.progress.PATIENCE", 0.0)
    monkeypatch.setattr("ranef.progress.PAUSE", 0.0)
    shown = rf.pb_test(m, small, n=250, seed=1, progress=True)
    assert re.search(r"\d+ of 250, [\d.]+ (s|min|h) left", capsys.readouterr().err)
    one = rf.pb_test(m, small, n=250, seed=1, threads=1)
    np.testing.assert_array_equal(shown.draws, one.draws)
    with pytest.raises(OptionError, match="threads=-1"):
        rf.pb_test(m, small, n=5, threads=-1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": -1}, "threads=-1"),
        ({"threads": "a"}, "threads='a'"),
        ({"statistic": 3}, "statistic=3"),
        ({"levels": "rows"}, "goes with kind='cases'"),
        ({"hccme": "hc3"}, "goes with kind='wild'"),
        ({"kind": "cases", "re": "conditional"}, "goes with kind='parametric'"),
    ],
)
def test_bootstrap_options_without_an_effect_are_refused(m, options, says):
    with pytest.raises(OptionError, match=says):
        rf.bootstrap(m, n=3, **options)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n": 0}, OptionError, "n=0"),
        ({"n": 9.5}, OptionError, "n=9.5"),
        ({"threshold": "a"}, OptionError, "threshold='a'"),
        ({"threshold": float("nan")}, OptionError, "threshold=nan"),
        ({"threshold": -1}, OptionError, "threshold=-1"),
        ({"Y": "Y"}, DataError, "Y='Y'"),
        ({"formula": "y ~ x + (1 | g)"}, OptionError, "left-hand side"),
    ],
)
def test_cluster_permutation_test_checks_its_numbers(options, error, says):
    given = {
        "formula": "~ x + (1 | g)", "data": {"x": np.tile([0.0, 1.0], 8), "g": np.repeat(np.arange(4), 4)},
        "Y": np.random.default_rng(1).normal(size=(16, 5)), "coefficient": "x", "n": 9, "seed": 1, **options,
    }  # fmt: skip
    with pytest.raises(error, match=says):
        rf.cluster_permutation_test(**given)


def test_exact_rlrt_of_models_that_do_not_belong_together(sleep):
    both = rf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", sleep)
    intercept = rf.fit(F, sleep)
    slope = rf.fit("Reaction ~ Days + (0 + Days | Subject)", sleep)
    assert rf.exact_rlrt(slope, both, intercept, n=20, seed=1).statistic > 1
    for wrong in ((slope, intercept, both), (intercept, both, intercept)):
        with pytest.raises(DataError, match="belong together"):
            rf.exact_rlrt(*wrong, n=20, seed=1)


def test_exact_tests_of_fits_with_missing_values(sleep):
    missing = sleep.assign(Reaction=sleep["Reaction"].where(sleep.index != 3))
    gap, whole = rf.fit(F, missing), rf.fit(F, missing.dropna())
    assert rf.exact_rlrt(gap, n=20, seed=1).statistic == pytest.approx(rf.exact_rlrt(whole, n=20, seed=1).statistic)
    assert rf.exact_lrt(gap, n=20, seed=1).statistic == pytest.approx(rf.exact_lrt(whole, n=20, seed=1).statistic)


def test_bca_of_dropped_columns_is_quiet(sleep):
    m = rf.fit("Reaction ~ Days + D2 + (1 | Subject)", sleep.assign(D2=2 * sleep["Days"]))
    table = rf.bootstrap(m, n=20, seed=1).confint(method="bca")  # warnings are errors here
    assert np.isfinite(table["conf_low"][1])
    assert np.isnan(table["conf_low"][2])


@pytest.mark.parametrize(
    "call",
    [
        lambda m: rf.drop1(m, 3),
        lambda m: rf.profile(m, 3),
        lambda m: rf.confint(m, level="0.95"),
        lambda m: rf.permutation_test(m, 3),
        lambda m: rf.ranova(m, reduce="x"),
        lambda m: rf.compare(m, chat="a"),
        lambda m: rf.profile(m, "Days", scale="variance"),
        lambda m: rf.profile(m, "sd(Subject)", scale="fisher"),
    ],
)
def test_wrong_kinds_are_told(m, call):
    with pytest.raises((ArgumentError, OptionError)):
        call(m)


def test_rows_left_out_by_the_fit_or_by_hand(sleep):
    """The same 179 rows, from a frame that misses a response and from one without that row."""
    holes = sleep.copy()
    holes.loc[3, "Reaction"] = np.nan
    m0, m1 = rf.fit(F, holes, method="ml"), rf.fit("Reaction ~ Days + (Days | Subject)", holes, method="ml")
    by_hand = rf.fit("Reaction ~ Days + (Days | Subject)", holes.dropna(), method="ml")
    assert rf.anova(m0, by_hand)["chisq"][1] == pytest.approx(rf.anova(m0, m1)["chisq"][1])


def test_correlations_on_fishers_z(sleep):
    m = rf.fit("Reaction ~ Days + (Days | Subject)", sleep)
    name = "cor((Intercept), Days | Subject)"
    plain, z = (rf.profile(m, name, scale=scale)[name].interval(0.95) for scale in ("sd", "fisher"))
    np.testing.assert_allclose(np.tanh(z), plain, rtol=1e-8)


def test_other_arguments_of_the_wrong_kind(m, sleep):
    for compare in (rf.compare, rf.average, rf.pb_test, rf.vuong):
        with pytest.raises(ArgumentError, match="compares fits"):
            compare(m, None)
    with pytest.raises(ArgumentError, match="compares fits"):
        rf.exact_lrt(m, 3)
    with pytest.raises(OptionError, match="term=3"):
        rf.exact_rlrt(m, term=3)
    for effects in (3, [], None):
        with pytest.raises(OptionError, match="effects="):
            m.tidy(effects)
    with pytest.raises(OptionError, match="max_failures="):
        rf.bootstrap(m, n=2, max_failures="few")
    with pytest.raises(OptionError, match="level 'x'"):
        rf.repeatability(m, conf_level="x")
    with pytest.raises(OptionError, match="optimizers=3"):
        rf.all_fit(m, 3)
    with pytest.raises(OptionError, match="re=3"):
        m.predict(re=3)
    with pytest.raises(DataError):
        rf.icc(m, at=3)


def test_options_of_another_test_are_no_part_of_likelihood_ratios(m):
    for options in ({"ddf": "kenward-roger"}, {"vcov": "CR2"}, {"cluster": "Subject"}):
        with pytest.raises(ArgumentError, match="test='F'"):
            rf.drop1(m, **options)


def test_contrasts_need_numbers(m):
    for rhs in (None, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="rhs="):
            rf.contrast(m, "Days", rhs=rhs)
    with pytest.raises(ArgumentError, match="no weights"):
        rf.contrast(m, {})


def test_what_is_held_is_told_before_the_criterion(sleep):
    held = rf.fit(F, sleep, fixed={"Days": 10.0})
    with pytest.raises(NotAvailableError, match="held or tied"):
        rf.estfun(held)
    with pytest.raises(NotAvailableError, match="no random effects"):
        rf.heritability(rf.fit("Reaction ~ Days", sleep))
