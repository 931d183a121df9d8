"""Reduced-rank covariances, rr(0 + f | g, d), and Matern correlations: invariants, limits, reports, refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import ranef as rf
from ranef.errors import FormulaError, NotAvailableError, OptionError

FULL = "y ~ 0 + trait + rr(0 + trait | g, d = {})"


@pytest.fixture(scope="module")
def traits():
    """Four traits of 80 groups, five times each: two factors, the third trait on a scale of its own."""
    rng = np.random.default_rng(5)
    loadings = np.array([[1.0, 0.0], [0.8, 0.6], [-30.0, 20.0], [0.2, 0.9]])
    scale = np.array([1.0, 1.0, 30.0, 1.0])
    g, trait = (x.ravel() for x in np.meshgrid(np.repeat(np.arange(80), 5), np.arange(4), indexing="ij"))
    b = rng.standard_normal((80, 2)) @ loadings.T
    y = b[g, trait] + 0.5 * scale[trait] * rng.standard_normal(len(g))
    return {"y": y, "g": g.astype(str), "trait": np.array(list("abcd"))[trait], "w": scale[trait] ** -2.0}


@pytest.fixture(scope="module")
def fits(traits):
    return {d: rf.fit(FULL.format(d), traits, precision_weights="w", method="ml") for d in (1, 2, 4)}


def test_full_rank_is_unstructured(fits, traits):
    """With d = k the loadings are the Cholesky factor: the same model as (0 + trait | g)."""
    plain = rf.fit("y ~ 0 + trait + (0 + trait | g)", traits, precision_weights="w", method="ml")
    assert fits[4].loglik == pytest.approx(plain.loglik, abs=1e-6)
    # A singular direction leaves the flat one 1e-4 of room.
    np.testing.assert_allclose(fits[4].varcorr()["g"].cov, plain.varcorr()["g"].cov, rtol=2e-3, atol=2e-3)


def test_ranks_are_nested(fits):
    assert fits[1].loglik < fits[2].loglik - 10
    assert fits[2].loglik <= fits[4].loglik + 1e-7
    assert fits[2].npar - fits[1].npar == 3


def test_columns_may_have_any_scale(fits, traits):
    """Multiplying one trait by 30 (weights follow) moves its loadings by 30 and nothing else: here it is undone."""
    undone = dict(traits)
    c = traits["trait"] == "c"
    undone["y"], undone["w"] = np.where(c, traits["y"] / 30, traits["y"]), np.ones_like(traits["w"])
    m = rf.fit(FULL.format(2), undone, method="ml")
    ratio = fits[2].varcorr()["g"].sd / m.varcorr()["g"].sd
    np.testing.assert_allclose(ratio, [1, 1, 30, 1], rtol=1e-3)  # the optimum is good to 1e-9 in the deviance


def test_loadings_and_scores(fits, traits):
    m = fits[2]
    loadings, scores = rf.loadings(m), rf.scores(m)
    lam = np.column_stack([loadings["factor1"], loadings["factor2"]])
    assert list(loadings["term"]) == [f"trait{t}" for t in "abcd"]
    assert lam[0, 1] == 0
    np.testing.assert_allclose(lam @ lam.T, m.varcorr()["g"].cov, rtol=1e-10)
    f = np.column_stack([scores["factor1"], scores["factor2"]])
    np.testing.assert_allclose(f @ lam.T, m.estimate.modes[0], atol=1e-8)
    truth = np.array([[1.0, 0.0], [0.8, 0.6], [-30.0, 20.0], [0.2, 0.9]])
    sd = np.sqrt(np.diag(truth @ truth.T))
    np.testing.assert_allclose(m.varcorr()["g"].sd / sd, 1, atol=0.3)  # 80 groups: a standard error of 8 per cent


def test_report_and_errors_of_loadings(fits):
    m = fits[2]
    rows = m.tidy("ran_pars")
    terms = list(rows["term"])
    assert terms[:3] == ["loading__traita.1", "loading__traitb.1", "loading__traitc.1"]
    assert terms[4] == "loading__traitb.2"
    errors = np.asarray(rows["std_error"], float)[:7]
    assert np.all(errors > 0)
    text = m.summary()
    assert "Loadings of g, rank 2" in text
    assert "loadings" in repr(m.varcorr())


def test_conditional_errors_and_travel(fits, traits):
    m = fits[2]
    cov = np.asarray(m.core.cond_cov(0))
    assert np.linalg.matrix_rank(cov[0], tol=1e-6 * np.abs(cov[0]).max()) <= 2
    copy = pickle.loads(pickle.dumps(m))
    rows = {k: v[:6] for k, v in traits.items()}
    np.testing.assert_allclose(copy.predict(rows), m.predict(rows), rtol=1e-8)
    assert m.simulate(2, seed=3).shape == (1600, 2)
    again = m.refit(m.simulate(1, seed=4)[:, 0])
    assert again.converged
    assert np.isfinite(m.predict(rows, std_error=True)["std_error"]).all()


def test_restricted_likelihood(traits):
    """With one column in every row and the full rank, REML of rr is REML of the unstructured term."""
    ours = rf.fit(FULL.format(4), traits, precision_weights="w")
    plain = rf.fit("y ~ 0 + trait + (0 + trait | g)", traits, precision_weights="w")
    assert ours.loglik == pytest.approx(plain.loglik, abs=1e-6)


def test_beside_other_terms_of_the_group(traits):
    m = rf.fit("y ~ 0 + trait + (1 | g) + rr(0 + trait | g, d = 1)", traits, precision_weights="w", method="ml")
    assert m.converged
    assert m.loglik >= rf.fit(FULL.format(1), traits, precision_weights="w", method="ml").loglik - 1e-6


@pytest.mark.parametrize("args", ["d = 0", "d = 5", "d = 1.5", "d = two", "k = 2", "2, 3"])
def test_illegal_ranks(traits, args):
    with pytest.raises(FormulaError, match="rr"):
        rf.fit(f"y ~ 0 + trait + rr(0 + trait | g, {args})", traits)


def test_nothing_to_load(traits):
    with pytest.raises(OptionError, match="no term of reduced rank"):
        rf.loadings(rf.fit("y ~ 1 + (1 | g)", traits))
    with pytest.raises(FormulaError, match="takes nothing"):
        rf.fit("y ~ 1 + cs(0 + trait | g, d = 2)", traits)


# ---- Matern ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spatial():
    return rf.datasets.load("sim_spatial")


def test_matern_of_smoothness_one_half_is_exponential(spatial):
    formula = "y ~ x + {}(numFactor(xc, yc) + 0 | area{})"
    exponential = rf.fit(formula.format("exp", ""), spatial, method="ml")
    half = rf.fit(formula.format("mat", ", nu = 0.5"), spatial, method="ml")
    free = rf.fit(formula.format("mat", ""), spatial, method="ml")
    assert half.loglik == pytest.approx(exponential.loglik, abs=1e-7)
    assert half.varcorr()["area"].parameters[1].value == pytest.approx(
        exponential.varcorr()["area"].parameters[1].value, rel=1e-3
    )
    assert free.loglik >= half.loglik - 1e-8
    assert list(free.tidy("ran_pars")["term"])[:3] == ["sd", "range", "nu"]
    assert free.npar == half.npar + 1
    with pytest.raises(FormulaError, match="smoothness"):
        rf.fit(formula.format("mat", ", nu = 0"), spatial)


def test_what_goes_by_cluster_or_by_name_is_refused(traits, fits):
    with pytest.raises(NotAvailableError, match="reduced rank"):
        rf.estfun(fits[1])
    with pytest.raises(NotAvailableError, match=r"'loading\(g\)' is no parameter of its own"):
        rf.fit(FULL.format(1), traits, precision_weights="w", method="ml", fixed={"loading(g)": 0.2})
