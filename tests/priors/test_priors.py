"""Priors as values: densities against SciPy's, reading of texts, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import ArgumentError, OptionError
from ranef.priors import TABLE, parse_prior, read_priors

X = np.array([0.05, 0.4, 1.3, 6.0])
S = np.array([[1.3, 0.4, -0.2], [0.4, 0.9, 0.1], [-0.2, 0.1, 1.7]])
V = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 1.5]])
p = rf.prior


@pytest.mark.parametrize(
    ("prior", "theirs"),
    [
        (p.normal(0.3, 1.2), stats.norm(0.3, 1.2)),
        (p.t(3, 0.8, 0.1), stats.t(3, 0.1, 0.8)),
        (p.cauchy(2.5), stats.cauchy(0, 2.5)),
        (p.half_normal(1.5), stats.halfnorm(0, 1.5)),
        (p.half_cauchy(0.7), stats.halfcauchy(0, 0.7)),
        (p.gamma(2.5, 1.3), stats.gamma(2.5, scale=1 / 1.3)),
        (p.inverse_gamma(3, 2), stats.invgamma(3, scale=2)),
        (p.lognormal(0.2, 0.5), stats.lognorm(0.5, scale=np.exp(0.2))),
        (p.exponential(1.7), stats.expon(scale=1 / 1.7)),
    ],
    ids=str,
)
def test_densities_of_numbers(prior, theirs):
    # Both add half a dozen rounded terms.
    np.testing.assert_allclose(prior.log_density(X), theirs.logpdf(X), rtol=1e-12, atol=1e-12)


def test_densities_of_vectors_and_matrices():
    assert p.multivariate_t(3, [10, 2.5]).log_density([1.0, -2.0]) == pytest.approx(
        stats.multivariate_t(shape=np.diag([100, 6.25]), df=3).logpdf([1.0, -2.0]), rel=1e-12
    )
    assert p.wishart(5.5, V).log_density(S) == pytest.approx(stats.wishart(5.5, V).logpdf(S), rel=1e-12)
    assert p.inverse_wishart(4.2, V).log_density(S) == pytest.approx(stats.invwishart(4.2, V).logpdf(S), rel=1e-12)


def test_lkj_of_one_correlation_is_a_beta():
    r = np.linspace(-0.9, 0.9, 7)
    ours = [p.lkj(2.5).log_density([[1.0, x], [x, 1.0]]) for x in r]
    np.testing.assert_allclose(ours, stats.beta(2.5, 2.5).logpdf((1 + r) / 2) - np.log(2), rtol=1e-12)


def test_improper_densities_have_no_constant():
    assert p.gamma(2.5, 0).log_density(2.0) == pytest.approx(1.5 * np.log(2.0), rel=1e-14)
    assert p.wishart().sized(1).log_density([[4.0]]) == pytest.approx(0.75 * np.log(4.0), rel=1e-14)
    assert p.half_normal(1).log_density(-1.0) == -np.inf


@pytest.mark.parametrize("name", TABLE)
def test_every_density_is_part_of_the_namespace(name):
    assert getattr(rf.prior, name) is TABLE[name]
    assert TABLE[name].__doc__


@pytest.mark.parametrize("text", ["normal(0, 2.5)", "normal(sd=2.5)", " normal( 0 , sd = 2.5 )"])
def test_texts(text):
    assert parse_prior(text) == p.normal(0, 2.5)


def test_lists_in_texts():
    assert parse_prior("normal(0, [10, 2.5])") == p.normal(0, [10, 2.5])


@pytest.mark.parametrize("text", ["normal", "normal(0, x)", "2.5", "normal(0,", "__import__('os')", "x.normal(0)"])
def test_texts_that_are_no_calls(text):
    with pytest.raises(OptionError, match=r"cannot be read|there is no density"):
        parse_prior(text)


def test_a_wrong_name_or_argument_is_told():
    with pytest.raises(OptionError, match="did you mean 'normal'"):
        parse_prior("norml(0, 1)")
    with pytest.raises(OptionError, match="half_normal"):
        parse_prior("half_normal(1, 2, 3)")
    with pytest.raises(OptionError, match="sd=-1 is not a number above 0"):
        p.normal(0, -1)
    with pytest.raises(OptionError, match="positive definite"):
        p.wishart(3, [[1, 2], [2, 1]])


def test_what_prior_takes():
    assert read_priors(None, True) == {}
    assert read_priors("blme", False) == {"cov": p.wishart()}
    assert read_priors({"x": "normal(0, 1)", "z": None}, True) == {"x": p.normal(0, 1), "z": p.flat()}
    with pytest.raises(ArgumentError, match="takes a dict"):
        read_priors("weak", True)
    with pytest.raises(ArgumentError, match="is no prior"):
        read_priors({"x": 3}, True)


def test_a_prior_says_what_it_is():
    assert str(p.normal(0, [10, 2.5])) == "normal(mean=0, sd=[10, 2.5])"
    assert str(p.wishart(common_scale=True)) == "wishart(common scale)"
    assert str(p.point(3)) == "point(3)"


def test_a_scale_of_the_wrong_size_is_told():
    with pytest.raises(OptionError, match="no 2 x 2 matrix"):
        p.wishart(5, np.eye(3)).sized(2)


@pytest.mark.parametrize(
    ("prior", "loglik", "sd"),
    [  # bglmer of blme 1.0-5 on lme4 1.1-31, cbpp, by bobyqa to 2e-10
        ({"sd(herd)": p.inverse_gamma(2, 1)}, -92.0924109115, 0.5798031085),  # cov.prior = invgamma(2, 1)
        ({"var(herd)": p.inverse_gamma(2, 1)}, -92.0424264014, 0.6107998669),  # … posterior.scale = "var"
        ({"sd(herd)": "gamma(2.5, 0.1)"}, -92.1026937165, 0.7153203644),  # cov.prior = gamma(2.5, 0.1)
        ({"fixed": p.multivariate_t(3, 2)}, -92.0752546324, 0.6464330297),  # fixef.prior = t(3, scale = 4)
        ({"fixed": p.normal(0, 2.5)}, -92.035505694, 0.6439715379),  # fixef.prior = normal(sd = 2.5)
    ],
)
def test_what_blme_calls_by_the_same_names(prior, loglik, sd):
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    m = rf.fit(formula, rf.datasets.load("cbpp"), family="binomial", prior=prior)
    # The penalised likelihood is flat at its optimum, the likelihood is not: it has the digits of the estimates.
    assert m.loglik == pytest.approx(loglik, abs=5e-6)
    assert m.varcorr()["herd"].sd[0] == pytest.approx(sd, abs=5e-6)
