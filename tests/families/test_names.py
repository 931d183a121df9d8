"""Families as users name them: ours, lme4's, glmmTMB's and brms' words, links, and errors that name the nearest."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from ranef.errors import ArgumentError, OptionError
from ranef.families import LINKS, entries, names, read_family
from ranef.families.links import LEGAL


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Gamma", "gamma"), ("GAUSSIAN", "gaussian"), ("negative.binomial", "nbinom2"), ("negbinomial", "nbinom2"),
        ("nbinom1", "nbinom1"), ("truncated_nbinom2", "truncated_nbinom2"), ("t_family", "student_t"),
        ("student", "student_t"), ("beta_family", "beta"), ("beta_binomial", "betabinomial"),
        ("ordbeta", "ordered_beta"),
        ("skewnormal", "skew_normal"), ("inverse.gaussian", "inverse_gaussian"), ("bernoulli", "binomial"),
        ("polr", "cumulative"), ("categorical", "multinomial"), ("continuation_ratio", "cratio"), ("adjacent", "acat"),
        ("zi.negative.binomial", "nbinom2"), ("hurdle.poisson", "truncated_poisson"), ("students.t", "student_t"),
        ("clmm", "cumulative"), ("hurdle_poisson", "truncated_poisson"), ("zero_inflated_poisson", "poisson"),
        ("NO", "gaussian"), ("PO", "poisson"), ("BI", "binomial"), ("NBII", "nbinom1"), ("IG", "inverse_gaussian"),
        ("EXP", "exponential"), ("WEI3", "weibull"), ("TF", "student_t"), ("zi.poisson", "poisson"),
        ("beta.fam", "beta"), ("Gamma.fam", "gamma"),
    ],
)  # fmt: skip
def test_words_of_other_packages(word, name):
    assert read_family(word).name == name


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("NBI", "nbinom2.*1 / sigma"), ("ZIP", "zero_inflation"), ("ZINBI", "nbinom2.*zero"), ("BE", "'beta'"),
        ("GA", "'gamma'"), ("WEI", "'weibull'"), ("LOGNO", r"log\(y\)"), ("BB", "'betabinomial'"),
        ("TF2", "'student_t'"),
        ("unit.lindley", "not here"), ("PIG", "not here"),
    ],
)  # fmt: skip
def test_families_whose_parameters_are_others(word, says):
    with pytest.raises(OptionError, match=f"family='{word}': .*{says}"):
        read_family(word)


@pytest.mark.parametrize(
    ("word", "formula"), [("hurdle_poisson", "~ 1"), ("zero_inflated_nbinom2", "~ 1"), ("poisson", "")]
)
def test_words_that_imply_extra_zeros(word, formula):
    assert read_family(word).inflated_by == formula


@pytest.mark.parametrize("name", names())
def test_every_family_is_a_function(name):
    family = getattr(rf.families, name)()
    assert family == read_family(name)
    assert family.links == tuple(p.link for p in entries()[name].parameters)
    for parameter in entries()[name].parameters:
        assert set(parameter.links) <= set(LINKS)


def test_every_family_is_described():
    text = rf.families.describe()
    for entry in entries().values():
        assert f"{entry.name}" in text
        assert entry.note in text
        for parameter in entry.parameters:
            assert f"  {parameter.name}: {parameter.meaning}; link {parameter.link}" in text
    assert rf.families.describe("Gamma").startswith("gamma (")


def test_links_by_parameter():
    family = rf.families.nbinom2("sqrt", dispersion="identity")
    assert family.links == ("sqrt", "identity")
    assert read_family("nbinom2", {"dispersion": "identity"}).links == ("log", "identity")


@pytest.mark.parametrize(
    ("text", "name", "links"),
    [
        ("poisson()", "poisson", ("log",)),
        ("Gamma(link='log')", "gamma", ("log", "log")),
        ('binomial(link = "probit")', "binomial", ("probit",)),
        ("binomial(cloglog)", "binomial", ("cloglog",)),
        ("inverse.gaussian('1/mu^2')", "inverse_gaussian", ("1/mu^2", "log")),
        ("ziGamma(link=log)", "gamma", ("log", "log")),
        ("truncated_nbinom2(link='log', dispersion='identity')", "truncated_nbinom2", ("log", "identity")),
        ("student(link='identity', link_nu='log')", "student_t", ("identity", "log", "log")),
    ],
)
def test_families_as_calls_of_r_in_text(text, name, links):
    assert (read_family(text).name, read_family(text).links) == (name, links)


def test_a_call_in_text_arranges_thresholds():
    assert read_family("cumulative(link='probit', threshold='equidistant')").threshold == "equidistant"


@pytest.mark.parametrize(
    ("family", "link", "error", "says"),
    [
        ("poison()", None, OptionError, "did you mean 'poisson'"),
        ("binomial(link='pobit')", None, OptionError, "did you mean 'probit'"),
        ("negative.binomial(theta=2)", None, OptionError, "dispersion=2"),
        ("negative.binomial(2)", None, OptionError, "dispersion=2"),
        ("student_t(df=4)", None, OptionError, "shape=4"),
        ("poisson(3)", None, OptionError, "fixed="),
        ("probit", None, OptionError, "is a link: write family='binomial', link='probit'"),
        ("logistic", None, OptionError, "link='logit'"),
        ("binomial(1/mu)", None, OptionError, "a name with its link"),
        ("binomial(link='logit', 'probit')", None, OptionError, "a name with its link"),
        ("binomial(__import__('os'))", None, OptionError, "a name with its link"),
        ("poison", None, OptionError, "did you mean 'poisson'"),
        ("quasipoisson", None, OptionError, "nbinom1"),
        ("xyzzy", None, OptionError, "known: gaussian, lognormal"),
        (
            "hurdle_cumulative",
            None,
            OptionError,
            "'cumulative' have no zeros apart; write family='cumulative'.*poisson",
        ),
        ("zi_gaussian", None, OptionError, "'gaussian' have no zeros apart"),
        ("truncated_gamma", None, OptionError, "unknown|no zero-truncated"),
        ("poisson", "logit", OptionError, "not available for the mean of poisson"),
        ("poisson", {"nu": "log"}, OptionError, "no parameter 'nu'"),
        (3, None, ArgumentError, "int"),
        ("poisson", 3, ArgumentError, "int"),
    ],
)
def test_errors(family, link, error, says):
    with pytest.raises(error, match=says):
        read_family(family, link)


@pytest.mark.parametrize("name", sorted(LINKS))
def test_links_invert_and_their_slopes_are_difference_quotients(name):
    link = LINKS[name]
    low, high = LEGAL[link.legal]
    mu = np.linspace(max(low, -2) + 0.1, min(high, 3) - 0.1, 7)
    eta = link.forward(mu)
    np.testing.assert_allclose(link.inverse(eta), mu, rtol=1e-10)
    h = 1e-6  # central differences: errors of h^2 and eps / h, 1e-10
    np.testing.assert_allclose(link.slope(eta), (link.inverse(eta + h) - link.inverse(eta - h)) / (2 * h), rtol=1e-7)
