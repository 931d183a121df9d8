"""Comparisons of fits: what is compared, what is refused, what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from engines import zoo
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError
from ranef.inference.nested import extension


def lmm(formula: str, **arguments):
    return rf.fit(formula, arguments.pop("data", zoo.data()), **arguments)


def codes(table) -> set[str]:
    return {note.code for note in table.notes}


# ---- what is compared ------------------------------------------------------------------------------------------------


def test_reml_is_kept_where_only_random_terms_differ():
    table = rf.anova(lmm("y ~ x + (1 | g)"), lmm("y ~ x + (x | g)"))
    assert "reml" in codes(table)
    assert "refitted" not in codes(table)
    assert table["deviance"][0] == pytest.approx(lmm("y ~ x + (1 | g)").criterion)


def test_reml_is_refitted_where_fixed_effects_differ():
    a, b = lmm("y ~ x + (1 | g)"), lmm("y ~ x + f + (1 | g)")
    table = rf.anova(b, a)
    assert "refitted" in codes(table)
    expected = [m.update(method="ml").loglik for m in (a, b)]
    np.testing.assert_allclose(table["loglik"], expected)
    assert table["chisq"][1] == pytest.approx(2 * (expected[1] - expected[0]))
    with pytest.raises(DataError, match="REML likelihoods are not comparable"):
        rf.anova(a, b, refit=False)


def test_the_same_columns_in_another_coding_are_refitted():
    a = lmm("y ~ f + (1 | g)")
    b = lmm("y ~ f + (x | g)", contrasts={"f": "sum"})
    assert "refitted" in codes(rf.anova(a, b))


def test_order_does_not_matter():
    fits = [lmm(f, method="ml") for f in ("y ~ x", "y ~ x + (1 | g)", "y ~ x + (x | g)")]
    tables = [rf.anova(*order) for order in (fits, fits[::-1])]
    np.testing.assert_array_equal(tables[0]["chisq"], tables[1]["chisq"])
    assert tables[0]["model"][0] == "y ~ x"


def test_frames_of_the_kind_that_came_in():
    data = pl.from_pandas(zoo.data())
    table = rf.anova(lmm("y ~ x", data=data), lmm("y ~ x + (1 | g)", data=data))
    assert isinstance(table.to_frame(), pl.DataFrame)
    assert table.to_frame().columns[:2] == ["model", "npar"]
    assert "mixture" in repr(table)
    assert "<pre>" in table._repr_html_()


def test_a_list_of_fits():
    fits = [lmm("y ~ x"), lmm("y ~ x + (1 | g)")]
    np.testing.assert_array_equal(rf.anova(*fits)["aic"], rf.inference.likelihood_tests.compare_models(fits)["aic"])


# ---- the laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("small", "large", "mixture"),
    [
        ("y ~ 1 + (1 | g)", "y ~ x + (1 | g)", "chi2(1)"),
        ("y ~ x", "y ~ x + (1 | g)", "0.5 chi2(0) + 0.5 chi2(1)"),
        ("y ~ x + (1 | g)", "y ~ x + (x || g)", "0.5 chi2(0) + 0.5 chi2(1)"),
        ("y ~ x + (1 | g)", "y ~ x + (x | g)", "0.5 chi2(1) + 0.5 chi2(2)"),
        ("y ~ x + (x || g)", "y ~ x + (x | g)", "chi2(1)"),
        ("y ~ x + (1 | g) + (0 + x | g)", "y ~ x + (x | g)", "chi2(1)"),
        ("y ~ x + (x | g)", "y ~ x + (x + z | g)", "0.5 chi2(2) + 0.5 chi2(3)"),
        ("y ~ x + (1 | g)", "y ~ x + z + (x | g)", "0.5 chi2(2) + 0.5 chi2(3)"),
        ("y ~ x + (1 | a)", "y ~ x + (1 | a/b)", "0.5 chi2(0) + 0.5 chi2(1)"),
    ],
)
def test_law(small, large, mixture):
    table = rf.anova(lmm(small, method="ml"), lmm(large, method="ml"))
    assert table["mixture"][1] == mixture
    assert table["df"][1] == table["npar"][1] - table["npar"][0]
    assert table["p_mixture"][1] <= table["p_value"][1] + 1e-12


def test_factor_slopes_contain_an_intercept():
    """(1 | g) lies in (0 + f | g), though no column has its name; one more covariance matrix than can be aligned."""
    step = extension(lmm("y ~ f + (1 | g)"), lmm("y ~ f + (0 + f | g)"))
    assert not step.obstacles
    assert (step.df, step.on_boundary) == (5, 3)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(20), 10)
    x = rng.normal(size=200)
    mu = np.exp(0.5 + 0.3 * x + rng.normal(0, 0.4, 20)[g])
    y = rng.poisson(mu * rng.gamma(2.0, 0.5, 200)) * (rng.uniform(size=200) > 0.15)
    return pd.DataFrame({"y": y, "x": x, "g": g})


def test_overdispersion_is_on_the_boundary(counts):
    fits = [rf.fit("y ~ x + (1 | g)", counts, family=f) for f in ("poisson", "nbinom2")]
    table = rf.anova(*fits)
    assert table["mixture"][1] == "0.5 chi2(0) + 0.5 chi2(1)"
    assert table["p_mixture"][1] == pytest.approx(table["p_value"][1] / 2)
    assert "; nbinom2" in table["model"][1]


def test_zero_inflation_is_on_the_boundary(counts):
    plain = rf.fit("y ~ x + (1 | g)", counts, family="poisson")
    table = rf.anova(plain, rf.fit("y ~ x + (1 | g)", counts, family="poisson", zero_inflation="~ 1"))
    assert table["mixture"][1] == "0.5 chi2(0) + 0.5 chi2(1)"
    assert "boundary" in codes(table)
    irregular = rf.anova(plain, rf.fit("y ~ x + (1 | g)", counts, family="poisson", zero_inflation="~ x"))
    assert np.isnan(irregular["p_mixture"][1])
    assert irregular["mixture"][1] == ""
    assert "irregular" in codes(irregular)


def test_several_boundaries_of_a_generalised_model_are_bounded(counts):
    small = rf.fit("y ~ x", counts, family="poisson")
    table = rf.anova(small, rf.fit("y ~ x + (x | g)", counts, family="poisson"))
    assert table["mixture"][1] == "at most 0.5 chi2(2) + 0.5 chi2(3)"
    assert table["p_mixture"][1] <= table["p_value"][1]


def test_linear_and_laplace_engines_agree():
    """A gaussian model with a dispersion formula contains the one without; both are exact."""
    small = lmm("y ~ x + (1 | g)", method="ml")
    large = lmm("y ~ x + (1 | g)", method="ml", dispersion="~ z")
    table = rf.anova(small, large)
    assert table["mixture"][1] == "chi2(1)"
    assert table["chisq"][1] >= 0


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_other_rows_are_refused():
    data = zoo.data().copy()
    data.loc[[3, 4], "z"] = np.nan
    with pytest.raises(DataError, match=r"not fitted to the same rows: 60 of 60 and 58 of 60; values are missing in z"):
        rf.anova(lmm("y ~ x + (1 | g)", data=data), lmm("y ~ x + z + (1 | g)", data=data))
    other = data.copy()
    other["z"] = zoo.data()["z"]
    other.loc[[7, 8], "z"] = np.nan
    with pytest.raises(DataError, match=r"4 rows are used by one and not by the other \(the first: \[3, 4, 7, 8\]\)"):
        rf.anova(lmm("y ~ z + (1 | g)", data=data), lmm("y ~ z + x + (1 | g)", data=other))


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ({"formula": "y ~ x"}, {"formula": "exp(y) ~ x + (1 | g)"}, "'y' and 'exp\\(y\\)'; likelihoods of a response"),
        ({"formula": "y ~ x"}, {"formula": "y ~ x + (1 | g)", "shift": 1.0}, "values of 'y' differ in 60 rows"),
        (
            {"formula": "y ~ x + offset(z)"}, {"formula": "y ~ x + (1 | g)"},
            r"the offsets differ \(z; none\)",
        ),
    ],
)  # fmt: skip
def test_other_responses_and_offsets_are_refused(a, b, says):
    fits = [lmm(q["formula"], data=zoo.data().assign(y=zoo.data()["y"] + q.get("shift", 0.0))) for q in (a, b)]
    with pytest.raises(DataError, match=says):
        rf.anova(*fits)


def test_an_offset_is_a_coefficient_of_one():
    """y ~ x + offset(z) is y ~ x + z with a slope of 1."""
    table = rf.anova(lmm("y ~ x + offset(z) + (1 | g)"), lmm("y ~ x + z + (1 | g)"))
    assert table["mixture"][1] == "chi2(1)"
    assert table["chisq"][1] > 0


def test_models_that_are_not_nested_are_not_tested():
    table = rf.anova(lmm("y ~ x + (1 | g)"), lmm("y ~ z + f + (1 | g)"))
    assert np.isnan(table["chisq"][1])
    assert np.isnan(table["p_value"][1])
    assert "the columns of the mean of the smaller one are not among those of the larger" in str(table.notes)
    weighted = rf.anova(lmm("y ~ x + (1 | g)"), lmm("y ~ x + (x | g)", precision_weights="w"))
    assert "the precision weights differ" in str(weighted.notes)


def test_what_the_caller_knows_to_be_nested():
    """Two random intercepts are a compound symmetry, a special case of the unstructured covariance."""
    data = rf.datasets.load("Machines")
    small = rf.fit("score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", data)
    large = rf.fit("score ~ Machine + (Machine | Worker)", data)
    assert np.isnan(rf.anova(small, large)["chisq"][1])
    table = rf.anova(small, large, nested=True)
    assert table["chisq"][1] == pytest.approx(small.criterion - large.criterion)
    assert table["p_value"][1] > 0
    assert np.isnan(table["p_mixture"][1])


def test_other_approximations_are_refused():
    data = rf.datasets.load("cbpp")
    form = "cbind(incidence, size - incidence) ~ {} + (1 | herd)"
    a = rf.fit(form.format("1"), data, family="binomial")
    b = rf.fit(form.format("period"), data, family="binomial", quadrature=9)
    with pytest.raises(NotAvailableError, match="quadrature = 1, 9"):
        rf.anova(a, b)
    rough = rf.anova(*(m.update(quadrature=0) for m in (a, b)))
    assert "not_maximal" in codes(rough)
    glm = rf.fit("cbind(incidence, size - incidence) ~ period", data, family="binomial")
    assert rf.anova(glm, b)["mixture"][1] == "0.5 chi2(0) + 0.5 chi2(1)"


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: rf.anova(m, 3), ArgumentError, "takes fits, got int"),
        (lambda m: rf.anova(m, m, test="F"), OptionError, "'F' is unknown"),
        (lambda m: rf.anova(m, m.slim()), NotAvailableError, "slim"),
    ],
)
def test_bad_arguments(call, error, says):
    with pytest.raises(error, match=says):
        call(lmm("y ~ x + (1 | g)"))


def test_few_groups_and_zeros_are_noted():
    table = rf.anova(lmm("y ~ 1 + (1 | g)"), lmm("y ~ x + (1 | g)"))
    assert "few_groups" in codes(table)
    singular = zoo.data().assign(y=np.tile([0.0, 1.0, 2.0], 20) + 0.1 * zoo.data()["x"], h=np.arange(60) // 15)
    assert "counted_zero" in codes(rf.anova(lmm("y ~ x", data=singular), lmm("y ~ x + (1 | h)", data=singular)))


# ---- values, ties and priors -----------------------------------------------------------------------------------------


def test_fits_with_priors_are_refused():
    a, b = lmm("y ~ x", method="ml"), lmm("y ~ x + (1 | g)", method="ml", prior="blme")
    with pytest.raises(NotAvailableError, match="does not maximise its likelihood"):
        rf.anova(a, b)


# ---- constraints and groups ------------------------------------------------------------------------------------------


def test_reml_criteria_of_held_coefficients_are_not_those_of_free_ones():
    free, held = lmm("y ~ x + (1 | g)"), lmm("y ~ x + (1 | g)", fixed={"x": 0})
    table = rf.anova(held, free)
    assert {"refitted", "few_groups"} <= codes(table)
    without = rf.anova(lmm("y ~ 1 + (1 | g)"), free)
    assert table["chisq"][1] == pytest.approx(without["chisq"][1], abs=1e-5)
    tied = lmm("y ~ x + z + (1 | g)", equal=[("x", "z")])
    assert "refitted" in codes(rf.anova(tied, lmm("y ~ x + z + (1 | g)")))
    assert "refitted" not in codes(rf.anova(held, lmm("y ~ x + (x | g)", fixed={"x": 0})))


def test_what_the_larger_model_holds_the_smaller_must_hold():
    table = rf.anova(lmm("y ~ x + (1 | g)"), lmm("y ~ x + z + f + (1 | g)", fixed={"x": 0}))
    assert "not_nested" in codes(table)
    assert "x = 0" in next(n.text for n in table.notes if n.code == "not_nested")


def test_groups_are_compared_by_their_rows():
    data = zoo.data()
    mixed = {**data, "g": np.random.default_rng(1).permutation(data["g"])}
    table = rf.anova(lmm("y ~ 1 + (1 | g)"), lmm("y ~ x + (1 | g)", data=mixed))
    assert "'g' groups the rows otherwise" in next(n.text for n in table.notes if n.code == "not_nested")
    renamed = {**data, "g": [f"level {v}"[::-1] for v in data["g"]]}
    table = rf.anova(lmm("y ~ 1 + (1 | g)"), lmm("y ~ x + (1 | g)", data=renamed))
    assert np.isfinite(table["chisq"][1])


def test_slopes_are_compared_by_their_values():
    data = zoo.data()
    mixed = {**data, "x": np.random.default_rng(1).permutation(data["x"])}
    table = rf.anova(lmm("y ~ 1 + (0 + x | g)", data=mixed), lmm("y ~ 1 + (x | g)"))
    assert "not_nested" in codes(table)
