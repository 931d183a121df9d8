"""Linear combinations of the fixed effects: every way to say them, tests, intervals, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from engines import zoo
from ranef.errors import FormulaError
from ranef.inference.contrasts import parse


@pytest.fixture(scope="module")
def machines():
    return rf.fit("score ~ Machine + (Machine | Worker)", rf.datasets.load("Machines"))


@pytest.fixture(scope="module")
def cake():
    return rf.fit("angle ~ recipe * temperature + (1 | recipe:replicate)", rf.datasets.load("cake"))


def test_every_way_to_say_it(machines):
    row = np.array([0, 1.0, -1])
    ways = [
        row, [row], row[None], {"MachineB": 1, "MachineC": -1}, "MachineB - MachineC", "MachineB = MachineC",
        "-MachineC + 1*MachineB", "2*MachineB/2 - MachineC*1.0", ["MachineB - MachineC"],
        {"B - C": "MachineB-MachineC"},
    ]  # fmt: skip
    first = rf.contrast(machines, row)
    assert first["contrast"][0] == "MachineB - MachineC"
    for way in ways:
        found = rf.contrast(machines, way)
        np.testing.assert_allclose(found.iloc[0, 1:].astype(float), first.iloc[0, 1:].astype(float), rtol=1e-12)
    assert rf.contrast(machines, ways[-1])["contrast"][0] == "B - C"


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "residual"])
def test_rows_of_the_identity_are_the_table_of_coefficients(machines, ddf):
    ours = rf.contrast(machines, np.eye(3), ddf=ddf)
    theirs = machines.tidy(ddf=ddf, conf_int=True)
    for column in ("estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high"):
        np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-12)


@pytest.mark.filterwarnings("ignore:contrast. 3 comparisons")
def test_pairs_as_emmeans(machines):
    """emmeans' pairs of Machines with Kenward-Roger (unadjusted p-values from its t ratios)."""
    ours = rf.contrast(machines, ["0 - MachineB", "0 - MachineC", "MachineB - MachineC"], ddf="KR")
    np.testing.assert_allclose(ours["estimate"], [-7.96666666666846, -13.9166666666662, -5.94999999999778], rtol=1e-8)
    np.testing.assert_allclose(ours["std_error"], [2.42085078296095, 1.54009980462526, 2.44647516572833], rtol=1e-8)
    np.testing.assert_allclose(ours["df"], 5, rtol=1e-9)


def test_constants_are_what_is_tested_against(machines):
    a = rf.contrast(machines, "2*MachineB - 10")
    b = rf.contrast(machines, "2 * MachineB = 10")
    c = rf.contrast(machines, {"MachineB": 2}, rhs=10)
    for found in (a, b, c):
        assert found["rhs"][0] == 10
        assert found["estimate"][0] == pytest.approx(2 * machines.params["MachineB"])
        assert found["statistic"][0] == pytest.approx((found["estimate"][0] - 10) / found["std_error"][0])
    assert rf.contrast(machines, "MachineB - 2", rhs=3)["rhs"][0] == 5


def test_intervals_invert_the_test(machines):
    found = rf.contrast(machines, "MachineB", conf_level=0.9)
    at_end = rf.contrast(machines, "MachineB", rhs=found["conf_low"][0])
    assert at_end["p_value"][0] == pytest.approx(0.1, rel=1e-9)


def test_joint_tests(machines):
    table = rf.contrast(machines, ["MachineB", "MachineC"], joint=True)
    anova = rf.anova(machines)
    for column in ("numdf", "dendf", "statistic", "p_value"):
        # The Hessian of Satterthwaite's df is a difference quotient, good to 1e-8.
        assert table[column][0] == pytest.approx(anova[column][0], rel=1e-6)
    redundant = rf.contrast(machines, ["MachineB", "MachineC", "MachineB - MachineC"], joint=True)
    assert redundant["numdf"][0] == 2
    assert redundant["statistic"][0] == pytest.approx(table["statistic"][0], rel=1e-9)
    shifted = rf.contrast(machines, ["MachineB = 8", "MachineC = 14"], joint=True, ddf="residual")
    d = np.asarray(machines.params)[1:] - [8, 14]
    assert shifted["statistic"][0] == pytest.approx(d @ np.linalg.solve(np.asarray(machines.vcov())[1:, 1:], d) / 2)
    assert shifted["p_value"][0] == pytest.approx(stats.f.sf(shifted["statistic"][0], 2, 51))


def test_normal_tests(machines):
    with pytest.warns(rf.RanefWarning, match="6 groups"):
        found = rf.contrast(machines, "MachineB", ddf="z")
    assert found["df"][0] == np.inf
    assert found["p_value"][0] == pytest.approx(2 * stats.norm.sf(abs(found["statistic"][0])))
    with pytest.warns(rf.RanefWarning):
        joint = rf.contrast(machines, np.eye(3)[1:], ddf=float("inf"), joint=True)
    assert joint["p_value"][0] == pytest.approx(stats.chi2.sf(2 * joint["statistic"][0], 2))


def test_names_with_signs_in_them(cake):
    names = tuple(cake.layout.fixed)
    found = parse("(Intercept) + recipeB:temperature.L - temperature^4", names)
    assert {names[j]: w for j, w in enumerate(found.weights) if w} == {
        "(Intercept)": 1, "recipeB:temperature.L": 1, "temperature^4": -1,
    }  # fmt: skip


def test_coefficients_of_other_components():
    m = rf.fit(
        "count ~ mined + (1 | site)", rf.datasets.load("Salamanders"), family="poisson", zero_inflation="~ mined"
    )
    own = rf.contrast(m, "minedno", component="zero_inflation")
    everywhere = rf.contrast(m, "zero_inflation.minedno", component="all")
    assert own["estimate"][0] == everywhere["estimate"][0] == m.coefficients("zero_inflation")["minedno"]
    assert own["df"][0] == np.inf
    assert rf.contrast(m, "minedno", ddf="between-within")["df"][0] == 21
    assert rf.contrast(m, "minedno", ddf="residual", component="zero_inflation")["df"][0] == np.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MachineD", "did you mean"),
        ("MachineB * MachineC", "not a linear combination"),
        ("1 / MachineB", "not a linear combination"),
        ("MachineB MachineC", r"expected '\+' or '-'"),
        ("MachineB = MachineC = 0", "at most one '='"),
        ("", "needs the name"),
        ("MachineB =", "needs the name"),
        ("MachineB +", "no coefficient"),
        ("MachineB2", "no coefficient"),
    ],
)
def test_bad_expressions(machines, text, message):
    with pytest.raises(rf.errors.FormulaError, match=message):
        rf.contrast(machines, text)


def test_bad_input(machines):
    with pytest.raises(rf.errors.UnknownColumnError, match="did you mean"):
        rf.contrast(machines, {"Machineb": 1})
    with pytest.raises(rf.errors.ArgumentError, match="3 columns"):
        rf.contrast(machines, np.eye(2))
    with pytest.raises(rf.errors.ArgumentError, match="one combination a name"):
        rf.contrast(machines, {"both": np.eye(3)[1:]})
    m = rf.fit(zoo.FORMULAS["rank_deficient"], zoo.data())
    with pytest.raises(rf.errors.DataError, match="was dropped"):
        rf.contrast(m, "x + I(2 * x)")
    with pytest.raises(rf.errors.OptionError, match="between 0 and 1"):
        rf.contrast(machines, "MachineB", conf_level=95)


def test_rank_deficient_models(machines):
    m = rf.fit(zoo.FORMULAS["rank_deficient"], zoo.data())
    found = rf.contrast(m, "x - 0.5*ff1", ddf="KR")
    assert np.isfinite(found["p_value"][0])


def test_a_factor_is_no_coefficient(machines):
    with pytest.raises(FormulaError, match=r"'Machine' has a coefficient for each of 'MachineB', 'MachineC'.*rf.anova"):
        rf.contrast(machines, "Machine")
