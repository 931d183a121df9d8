"""Known relationships between the levels of `(x | g)`: `cov=` and `precision=`."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose
from scipy import sparse, stats

import ranef as rf
from ranef.errors import ArgumentError, DataError, NotAvailableError, OptionError, UnseenLevelError

GROUPS = 25


@pytest.fixture(scope="module")
def kin():
    """A covariance of 30 levels, of which the data have 25, in another order."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal((30, 40))
    k = a @ a.T / 40
    names = [f"s{i:02d}" for i in rng.permutation(30)]
    return pd.DataFrame(k, index=names, columns=names)


@pytest.fixture(scope="module")
def data(kin):
    rng = np.random.default_rng(2)
    used = sorted(kin.index)[:GROUPS]
    g = np.repeat(np.arange(GROUPS), 6)
    x = rng.standard_normal(len(g))
    b = np.linalg.cholesky(kin.loc[used, used]) @ rng.standard_normal((GROUPS, 2)) @ np.diag([1.0, 0.5])
    y = 1 + x + b[g, 0] + b[g, 1] * x + 0.7 * rng.standard_normal(len(g))
    count = rng.poisson(np.exp(0.5 + 0.6 * b[g, 0]))
    return pd.DataFrame({"y": y, "x": x, "g": np.array(used)[g], "count": count, "one": "one"})


def marginal(m, data, k, z_of, reml):
    """Log-likelihood of y ~ N(X beta, sum_ab Sigma_ab (Z_a K Z_b') + sigma^2 I), by dense algebra."""
    levels = sorted(set(data["g"]))
    z = (data["g"].to_numpy()[:, None] == np.array(levels)).astype(float)
    columns = [z * c[:, None] for c in z_of]
    sigma = m.varcorr()["g"].cov
    v = m.sigma**2 * np.eye(len(data))
    kk = k.loc[levels, levels].to_numpy()
    for a, za in enumerate(columns):
        for b, zb in enumerate(columns):
            v += sigma[a, b] * za @ kk @ zb.T
    x = np.column_stack([np.ones(len(data)), data["x"]])
    vi = np.linalg.inv(v)
    beta = np.linalg.solve(x.T @ vi @ x, x.T @ vi @ data["y"])
    found = stats.multivariate_normal.logpdf(data["y"], x @ beta, v)
    if not reml:
        return found
    return found + np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(x.T @ vi @ x)[1]


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("slope", [False, True])
def test_exact_gaussian_likelihood(data, kin, method, slope):
    """The likelihood at the estimates is that of the marginal normal law; 150 x 150 inverses round at 1e-10."""
    term = "(x | g)" if slope else "(1 | g)"
    m = rf.fit(f"y ~ x + {term}", data, cov={"g": kin}, method=method)
    assert m.converged
    columns = [np.ones(len(data)), data["x"].to_numpy()][: 1 + slope]
    assert m.loglik == pytest.approx(marginal(m, data, kin, columns, method == "reml"), abs=1e-7)


def test_as_propto(data, kin):
    """(1 | g) with a relationship is propto(0 + g | one) with one group."""
    ours = rf.fit("count ~ x + (1 | g)", data, family="poisson", cov={"g": kin})
    theirs = rf.fit("count ~ x + propto(0 + g | one)", data, family="poisson", cov={"g": kin})
    assert ours.loglik == pytest.approx(theirs.loglik, abs=1e-7)
    np.testing.assert_allclose(ours.estimate.modes[0][:, 0], theirs.estimate.modes[0][0], atol=1e-4)


@pytest.fixture(scope="module")
def phylogeny():
    """40 species with an effect that their distance relates and one that is their own, and that matrix."""
    rng, species = np.random.default_rng(10), np.arange(40)
    names, rows = [f"p{k}" for k in species], np.repeat(species, 4)
    k = np.exp(-abs(np.subtract.outer(species, species)) / 5.0)
    effects = np.linalg.cholesky(k) @ rng.normal(size=40) + rng.normal(size=40)
    y = effects[rows] + rng.normal(size=len(rows))
    return pd.DataFrame({"y": y, "sp": np.array(names)[rows], "one": "1"}), pd.DataFrame(k, names, names)


def test_a_matrix_belongs_to_one_term(phylogeny):
    """propto() takes the matrix of its factor, and (1 | sp) beside it is independent.

    The same model with the matrix under a name of its own has the same search: equal to rounding.
    """
    data, k = phylogeny
    formula = "y ~ 1 + propto(0 + sp | one) + (1 | sp)"
    named = formula.replace("| one", "| one, K")
    plain = rf.fit(named, data, env={"K": k}, method="ml")
    assert rf.fit(formula, data, cov={"sp": k}, method="ml").loglik == pytest.approx(plain.loglik, abs=1e-8)
    # Both related, as the matrix is named twice: one covariance, and lower by 1.3.
    both = rf.fit(named, data, cov={"K": k, "sp": k}, method="ml")
    assert both.loglik < plain.loglik - 1
    inverse = pd.DataFrame(np.linalg.inv(k), k.index, k.columns)
    by_precision = rf.fit(formula, data, cov={"sp": k}, precision={"sp": inverse}, method="ml")
    assert by_precision.loglik == pytest.approx(both.loglik, abs=1e-7)  # an inverse of condition 400
    with pytest.raises(OptionError, match="no term takes the matrix 'sp'"):
        rf.fit("y ~ 1 + propto(0 + sp | one, K)", data, cov={"sp": k}, env={"K": k})


def test_a_matrix_leaves_with_its_term(phylogeny):
    """Without the propto() the other term is what it was, not related by the matrix that is left over."""
    data, k = phylogeny
    m = rf.fit("y ~ 1 + propto(0 + sp | one) + (1 | sp)", data, cov={"sp": k}, method="ml")
    alone = (
        rf.fit("y ~ 1 + (1 | sp)", data, method="ml"),
        rf.fit("y ~ 1 + propto(0 + sp | one)", data, cov={"sp": k}, method="ml"),
    )
    assert_allclose(rf.ranova(m)["loglik"][1:], [m.loglik for m in alone], atol=1e-7)  # two engines' optima
    smaller = ". ~ . - propto(0 + sp | one)"
    with pytest.raises(ArgumentError, match=r"'sp' of cov= belonged to a propto.*or cov=None"):
        m.update(smaller)
    assert m.update(smaller, cov=None).loglik == pytest.approx(alone[0].loglik, abs=1e-7)
    assert m.update(". ~ . - (1 | sp)").loglik == pytest.approx(alone[1].loglik, abs=1e-7)


def test_precision_and_covariance_agree(data, kin):
    """With levels that have no data: latents of the precision, integrated out of the covariance."""
    q = np.linalg.inv(kin.to_numpy())
    by_cov = rf.fit("y ~ x + (x | g)", data, cov={"g": kin})
    for given in (pd.DataFrame(q, kin.index, kin.columns), (q, list(kin.index)), (sparse.csc_matrix(q), kin.index)):
        m = rf.fit("y ~ x + (x | g)", data, precision={"g": given})
        assert m.loglik == pytest.approx(by_cov.loglik, abs=1e-7)
    assert len(m.ranef()["g"]) == 30
    assert len(by_cov.ranef()["g"]) == GROUPS
    np.testing.assert_allclose(m.estimate.modes[0][:GROUPS], by_cov.estimate.modes[0], atol=1e-4)
    # A level without data has the kriging mean of the others.
    new = pd.DataFrame({"x": [0.0], "g": [max(kin.index)]})
    levels = sorted(set(data["g"]))
    weights = np.linalg.solve(kin.loc[levels, levels], kin.loc[levels, new["g"][0]])
    expected = m.estimate.beta[0] + weights @ by_cov.estimate.modes[0][:, 0]
    assert m.predict(new)[0] == pytest.approx(expected, abs=1e-4)


def test_identity_is_no_relationship(data):
    levels = sorted(set(data["g"]))
    plain = rf.fit("y ~ x + (x | g)", data)
    m = rf.fit("y ~ x + (x | g)", data, cov={"g": (sparse.eye(GROUPS, format="csr"), levels)})
    assert m.loglik == pytest.approx(plain.loglik, abs=1e-7)
    np.testing.assert_allclose(m.varcorr()["g"].cov, plain.varcorr()["g"].cov, rtol=1e-3)


def test_modes_are_best_linear_predictions(data, kin):
    """sigma_b^2 K Z'V^-1 (y - X beta), by dense algebra."""
    m = rf.fit("y ~ x + (1 | g)", data, cov={"g": kin})
    levels = sorted(set(data["g"]))
    z = (data["g"].to_numpy()[:, None] == np.array(levels)).astype(float)
    k = m.varcorr()["g"].cov[0, 0] * kin.loc[levels, levels].to_numpy()
    v = z @ k @ z.T + m.sigma**2 * np.eye(len(data))
    rest = data["y"] - m.estimate.beta[0] - m.estimate.beta[1] * data["x"]
    np.testing.assert_allclose(m.estimate.modes[0][:, 0], k @ z.T @ np.linalg.solve(v, rest), atol=1e-7)


MODELS = {
    "gaussian": ("y ~ x + (x | g)", {}),
    "poisson": ("count ~ x + (1 | g)", {"family": "poisson"}),
    "held": ("count ~ x + (1 | g)", {"family": "nbinom2", "fixed": {"sd(g)": 0.6}}),
    "two components": ("y ~ x + (1 | g)", {"dispersion": "~ x"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_levels_without_data_are_predicted_given_the_others(data, kin, name):
    """As by the inverse of the whole matrix, in which they are part of the model."""
    formula, wanted = MODELS[name]
    m = rf.fit(formula, data, cov={"g": kin}, **wanted)
    whole = pd.DataFrame(np.linalg.inv(kin), kin.index, kin.columns)
    p = rf.fit(formula, data, precision={"g": whole}, **wanted)
    new = [level for level in kin.index if level not in set(data["g"])]
    rows = {"x": [0.0, 1.0, -0.5], "g": [new[1], data["g"][0], new[4]]}
    close = {"rtol": 1e-5, "atol": 1e-6}  # two searches, that of the whole matrix over more levels
    for asked in ({"std_error": True}, {"re": "integrate"}, {"interval": "prediction", "seed": 1}):
        assert_allclose(np.asarray(m.predict(rows, **asked)), np.asarray(p.predict(rows, **asked)), **close)
    tables = (f.ranef(std_error=True, **more)["g"] for f, more in ((m, {"levels": "related"}), (p, {})))
    ours, theirs = (table.set_index("level").sort_index() for table in tables)
    assert len(ours) == len(kin) > len(m.ranef()["g"])
    assert_allclose(ours, theirs, **close)
    old = list(m.layout.terms[0].levels)
    weights = kin.loc[new, old].to_numpy() @ np.linalg.inv(kin.loc[old, old])
    assert_allclose(ours.loc[new].iloc[:, : m.estimate.modes[0].shape[1]], weights @ m.estimate.modes[0], atol=1e-9)


@pytest.mark.parametrize("form", ["pandas", "polars", "pair", "sparse"])
def test_levels_without_data_that_are_numbers(data, kin, form):
    numbers = {label: i for i, label in enumerate(sorted(kin.index))}
    k, own = kin.to_numpy(), [numbers[label] for label in kin.index]
    given = {
        "pandas": pd.DataFrame(k, own, own),
        "polars": pl.DataFrame({"label": list(map(str, own)), **{str(i): k[:, j] for j, i in enumerate(own)}}),
        "pair": (k, own),
        "sparse": (sparse.csc_array(k), own),
    }[form]
    m = rf.fit("y ~ x + (1 | g)", data.assign(g=data["g"].map(numbers)), cov={"g": given})
    text = rf.fit("y ~ x + (1 | g)", data, cov={"g": kin})
    new = [label for label in sorted(kin.index) if label not in set(data["g"])]
    expected = text.predict({"x": [0.0, 0.0], "g": new[:2]})
    assert_allclose(m.predict({"x": [0.0, 0.0], "g": [numbers[label] for label in new[:2]]}), expected, rtol=1e-6)
    assert m.ranef(levels="related")["g"]["level"].tolist()[-1] in numbers.values()


def test_levels_that_no_relationship_knows_stay_new(data, kin):
    m = rf.fit("y ~ x + (1 | g)", data, cov={"g": kin})
    with pytest.raises(UnseenLevelError, match="'nobody'"):
        m.predict({"x": [0.0], "g": ["nobody"]})
    assert m.predict({"x": [0.0], "g": ["nobody"]}, new_levels="population")[0] == m.params["(Intercept)"]
    with pytest.raises(OptionError, match="levels='all'"):
        m.ranef(levels="all")
    new = next(label for label in kin.index if label not in set(data["g"]))
    with pytest.raises(UnseenLevelError, match=new):  # which takes the rows of the fit
        m.slim().predict({"x": [0.0], "g": [new]})


def test_scale_of_the_relationship(data, kin):
    """Four times the covariance, half the standard deviation; also far from one."""
    base = rf.fit("y ~ x + (1 | g)", data, cov={"g": kin})
    for c in (4.0, 1e-6, 1e6):
        m = rf.fit("y ~ x + (1 | g)", data, cov={"g": c * kin})
        assert m.loglik == pytest.approx(base.loglik, abs=1e-6)
        assert m.varcorr()["g"].sd[0] * np.sqrt(c) == pytest.approx(base.varcorr()["g"].sd[0], rel=1e-3)


def test_beside_the_same_levels_without_relationship(data, kin):
    """Genetic and permanent effects of the same animals: two terms of one grouping by two columns."""
    both = data.assign(id=data["g"])
    m = rf.fit("y ~ x + (1 | g) + (1 | id)", both, cov={"g": kin})
    assert m.converged
    assert m.loglik >= rf.fit("y ~ x + (1 | g)", data, cov={"g": kin}).loglik - 1e-7


def test_zero_variance(data, kin):
    flat = data.assign(y=np.tile([1.0, -1.0, 0.5, -0.5, 0.2, -0.2], GROUPS) + data["x"])
    m = rf.fit("y ~ x + (1 | g)", flat, cov={"g": kin}, method="ml")
    plain = rf.fit("y ~ x", flat, method="ml")
    assert m.boundary
    assert m.loglik == pytest.approx(plain.loglik, abs=1e-7)


def test_draws_have_the_covariance(data, kin):
    relation = rf.fit("y ~ x + (1 | g)", data, cov={"g": kin}).design.terms[0].relation
    z = np.random.default_rng(0).standard_normal((GROUPS, 50_000))
    b = relation.correlate(z)
    np.testing.assert_allclose(relation.whiten(b), z, atol=1e-10)  # rounding
    levels = sorted(set(data["g"]))
    k = kin.loc[levels, levels].to_numpy()
    # 50,000 draws: standard errors of sqrt((k_ii k_jj + k_ij^2) / 5e4), five of them.
    error = np.sqrt((np.outer(np.diag(k), np.diag(k)) + k**2) / 50_000)
    assert (np.abs(b @ b.T / 50_000 - k) < 5 * error).all()


def test_travels(data, kin):
    m = rf.fit("y ~ x + (1 | g)", pl.from_pandas(data), cov={"g": kin})
    copy = pickle.loads(pickle.dumps(m))
    rows = data.iloc[:4]
    np.testing.assert_allclose(copy.predict(rows), m.predict(rows), rtol=1e-8)
    np.testing.assert_allclose(m.predict(rows), m.fitted()[:4], rtol=1e-8)
    assert m.refit(m.simulate(1, seed=1)[:, 0]).converged
    assert np.isfinite(np.asarray(m.ranef(std_error=True)["g"]["std_error__(Intercept)"])).all()
    assert (np.asarray(m.tidy("ran_pars")["std_error"], float)[0] > 0).all()


def test_refusals(data, kin):
    with pytest.raises(DataError, match=r"no row for 2 of 25 levels: 's00', 's01'|no row for 2 of 25 levels"):
        rf.fit("y ~ x + (1 | g)", data, cov={"g": kin.drop(index=["s00", "s01"], columns=["s00", "s01"])})
    with pytest.raises(ArgumentError, match="names"):
        rf.fit("y ~ x + (1 | g)", data, precision={"g": sparse.eye(GROUPS)})
    with pytest.raises(ArgumentError, match="both"):
        rf.fit("y ~ x + (1 | g)", data, cov={"g": kin}, precision={"g": kin})
    with pytest.raises(OptionError, match="no term groups"):
        rf.fit("y ~ x + (1 | g)", data, precision={"h": kin})
    with pytest.raises(OptionError, match="independent levels"):
        rf.fit("count ~ x + (1 | g)", data, family="poisson", cov={"g": kin}, quadrature=5)
    with pytest.raises(DataError, match="not positive definite"):
        rf.fit("y ~ x + (1 | g)", data, cov={"g": pd.DataFrame(1.0, kin.index, kin.columns)})
    with pytest.raises(NotAvailableError, match="plain terms"):
        rf.fit("y ~ x + cs(1 + x | g)", data, cov={"g": kin})
    singular = np.eye(30) - 1 / 30
    with pytest.raises(DataError, match="positive definite"):
        rf.fit("y ~ x + (1 | g)", data, precision={"g": (singular - 0.01 * np.eye(30), list(kin.index))})


def test_pedigree_orders_and_refuses():
    precision, labels = rf.pedigree(["c", "a"], ["a", None], ["b", None])
    assert sorted(labels) == ["a", "b", "c"]  # b, who has no row, is a founder
    assert labels.index("c") == 2
    np.testing.assert_allclose(np.linalg.inv(precision.toarray())[2], [0.5, 0.5, 1.0])
    with pytest.raises(DataError, match="descends from itself"):
        rf.pedigree(["a", "b"], ["b", "a"], [None, None])
    with pytest.raises(DataError, match="twice"):
        rf.pedigree(["a", "a"], [None, None], [None, None])


def test_the_scale_of_a_relationship_changes_no_variance_of_the_response():
    """K and 2 K with half the variance are one model: shares and intervals that do not know K_ll would differ."""
    rng = np.random.default_rng(12)
    size, rows = 20, 200
    root = rng.normal(size=(size, size)) * 0.3 + np.eye(size)
    k = root @ root.T
    labels = [f"a{i}" for i in range(size)]
    g = rng.integers(0, size, rows)
    x = rng.normal(size=rows)
    y = 0.5 * x + (np.linalg.cholesky(k) @ rng.normal(size=size))[g] + rng.normal(size=rows)
    data = pd.DataFrame({"y": y, "x": x, "animal": np.array(labels)[g]})
    once, twice = (rf.fit("y ~ x + (1 | animal)", data, cov={"animal": (c * k, labels)}) for c in (1.0, 2.0))
    assert twice.loglik == pytest.approx(once.loglik, abs=1e-6)
    assert rf.icc(twice) == pytest.approx(rf.icc(once), rel=1e-3)  # theta is only so exact at the optimum
    assert rf.r2(twice).marginal == pytest.approx(rf.r2(once).marginal, rel=1e-3)
    new = data.iloc[:5]
    for given in (None, new):
        ends = [m.predict(given, re="none", interval="prediction") for m in (once, twice)]
        assert np.allclose(ends[0]["conf_low"], ends[1]["conf_low"], rtol=1e-3, atol=1e-3)
    # By hand: the mean of K_ll over the rows, times the variance, is the groups' part.
    part = next(iter(once.varcorr().values())).sd[0] ** 2 * np.diag(k)[g].mean()
    assert rf.icc(once) == pytest.approx(part / (part + once.sigma**2), rel=1e-6)


def test_slim_fits_keep_the_variances_of_levels():
    """A level's variance before the data is K_ll, and so it stays when the rows have gone."""
    rng = np.random.default_rng(4)
    levels = [f"l{i}" for i in range(12)]
    root = rng.normal(size=(12, 12))
    k = root @ root.T / 12 + np.diag(np.linspace(0.2, 3.0, 12))
    g = np.tile(np.arange(12), 10)
    b = np.linalg.cholesky(k) @ rng.normal(size=12)
    d = {"y": b[g] + 0.5 * rng.normal(size=120), "g": np.array(levels)[g]}
    m = rf.fit("y ~ 1 + (1 | g)", d, cov={"g": (k, levels)})
    new = {"g": np.array(levels)}
    slim = pickle.loads(pickle.dumps(m.slim().slim()))
    whole, found = (x.predict(new, re="none", interval="prediction") for x in (m, slim))
    np.testing.assert_allclose(found["conf_low"], whole["conf_low"], rtol=1e-10)
    assert np.ptp(np.asarray(whole["conf_high"]) - np.asarray(whole["conf_low"])) > 0.5
    stranger = {"g": np.array(["new"])}
    whole, found = (x.predict(stranger, re="none", interval="prediction") for x in (m, slim))
    np.testing.assert_allclose(found["conf_low"], whole["conf_low"], rtol=1e-10)


def test_labels_of_a_matrix_that_occur_twice_are_named():
    labels, k = ["a", "b", "c", "c"], np.eye(4) + 0.2
    rows = {"g": ["a", "b", "c"] * 6, "y": np.arange(18.0) % 5}
    for given in (pd.DataFrame(k, index=labels, columns=labels), (k, labels), (sparse.csc_array(k), labels)):
        for name in ("cov", "precision"):
            with pytest.raises(DataError, match=rf"^{name}=.*labels of the matrix occur twice, .*'c'$"):
                rf.fit("y ~ 1 + (1 | g)", rows, **{name: {"g": given}})
