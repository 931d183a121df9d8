"""Scores and information of gaussian models with covariance structures: what dense matrices say, ML and REML."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from oracle import dense
from ranef.engines.laplace import make_core
from ranef.engines.linear import sources
from ranef.errors import NotAvailableError
from ranef.frame.design import matrix

TIMES = np.arange(4)
LAGS = np.abs(np.subtract.outer(TIMES, TIMES))
LOW = -1 / 3  # of a correlation of compound symmetry between four
# A search ends at a decrease of 1e-9, where scores are 1e-4 of a standard error; these are searched on.
CONTROL = {"tolerance": 1e-13}

#: Sigma as a function of the unconstrained parameters of the structures.
SHAPES = {
    "ar1": lambda p: np.exp(2 * p[0]) * (p[1] / np.sqrt(1 + p[1] ** 2)) ** LAGS,
    "hetar1": lambda p: np.exp(np.add.outer(p[:4], p[:4])) * (p[4] / np.sqrt(1 + p[4] ** 2)) ** LAGS,
    "cs": lambda p: np.exp(np.add.outer(p[:4], p[:4])) * np.where(LAGS == 0, 1, LOW + (1 - LOW) / (1 + np.exp(-p[4]))),
    "homdiag": lambda p: np.exp(2 * p[0]) * np.eye(4),
}


def visits():
    """Subjects in clinics, seen four times, twice each time, some rows missing; one arm is noisier."""
    rng = np.random.default_rng(7)
    root = np.linalg.cholesky(0.5**LAGS * np.outer(1 + 0.2 * TIMES, 1 + 0.2 * TIMES))
    effects = 1 + 0.2 * TIMES + rng.normal(size=(14, 4)) @ root.T
    y = effects[:, :, None] + rng.normal(size=(14, 4, 2)) * (0.6 + 0.3 * (np.arange(14) % 2))[:, None, None]
    keep = rng.random(y.shape) > 0.2
    i, t, _ = np.nonzero(keep)
    count = rng.uniform(0.5, 2, len(i))
    return {"y": y[keep], "id": i, "time": t, "arm": [f"a{v % 2}" for v in i], "clinic": i // 2, "w": count}


def fit(structure, method="reml", **more):
    formula = f"y ~ time + arm + {structure}(0 + factor(time) | id)"
    return rf.fit(formula, visits(), method=method, control=CONTROL, **more)


class Dense:
    """The log-likelihood as a function of (beta, log sigma's coefficients, theta), from n x n matrices."""

    def __init__(self, m, structure):
        d = m.design
        self.m, self.shape = m, SHAPES[structure]
        self.x, self.y = dense(sources(d.fixed), m.nobs), d.y
        self.weights = np.ones(m.nobs) if d.weights is None else d.weights
        self.z = matrix(d.terms[0].blocks, m.nobs)
        self.same = np.equal.outer(d.terms[0].codes, d.terms[0].codes)
        self.noise = next((matrix(c.fixed, m.nobs) for c in d.others if c.name == "dispersion"), None)
        self.at = np.concatenate([m.estimate.beta, m.theta])
        self.p, self.count = self.x.shape[1], len(m.estimate.beta) - self.x.shape[1]

    def v(self, psi):
        sigma = np.exp(2 * self.noise @ psi[: self.count]) / self.weights
        return np.diag(sigma) + (self.z @ self.shape(psi[self.count :]) @ self.z.T) * self.same

    def slopes(self, psi):
        h = 1e-5 * np.eye(len(psi))  # good to 1e-9
        return [(self.v(psi + e) - self.v(psi - e)) / (2e-5) for e in h]

    def scores(self, codes, at=None):
        at = self.at if at is None else at
        beta, psi = at[: self.p], at[self.p :]
        inverse, dv = np.linalg.inv(self.v(psi)), self.slopes(psi)
        u = inverse @ (self.y - self.x @ beta)
        rows = np.column_stack(
            [self.x * u[:, None], *((u * (a @ u) - np.einsum("ij,ji->i", inverse, a)) / 2 for a in dv)]
        )
        return np.array([rows[codes == c].sum(axis=0) for c in np.unique(codes)])

    def restricted(self, psi):
        """Slopes of the restricted log-likelihood in psi."""
        inverse, dv = np.linalg.inv(self.v(psi)), self.slopes(psi)
        phi = np.linalg.inv(self.x.T @ inverse @ self.x)
        p = inverse - inverse @ self.x @ phi @ self.x.T @ inverse
        return np.array([(self.y @ p @ a @ p @ self.y - np.sum(p * a)) / 2 for a in dv])

    def expected(self, reml):
        inverse, dv = np.linalg.inv(self.v(self.at[self.p :])), self.slopes(self.at[self.p :])
        phi = np.linalg.inv(self.x.T @ inverse @ self.x)
        p = inverse - inverse @ self.x @ phi @ self.x.T @ inverse if reml else inverse
        return np.linalg.inv(phi), np.array([[np.sum((p @ a) * (p @ b).T) / 2 for b in dv] for a in dv])


def quotient(gradient, at):
    """Minus the difference quotient of a gradient: steps of 1e-4 are good to 1e-7."""
    h = 1e-4 * np.eye(len(at))
    out = -np.array([(gradient(at + e) - gradient(at - e)) / 2e-4 for e in h])
    return (out + out.T) / 2


CASES = [("ar1", {}), ("hetar1", {}), ("cs", {"precision_weights": "w"}), ("homdiag", {"dispersion": "~ arm"})]


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize(("structure", "more"), CASES)
def test_scores_as_dense_matrices_say(structure, more, method):
    m = fit(structure, method, **more)
    for cluster in ("id", "clinic"):
        codes = np.asarray(m.data[cluster])
        found = rf.estfun(m, cluster)
        values = np.column_stack([np.asarray(found[name], dtype=float) for name in list(found)[1:]])
        expected = Dense(m, structure).scores(codes)
        np.testing.assert_allclose(values, expected, atol=1e-7 * np.abs(expected).max())
    errors = 1 / np.sqrt(np.diag(rf.information(m)))
    flat = slice(None) if method == "ml" else slice(0, 3)  # after REML those of the mean are
    np.testing.assert_allclose((values.sum(axis=0) * errors)[flat], 0, atol=1e-5)


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize(("structure", "more"), CASES)
def test_information_is_the_quotient_of_the_score(structure, more, method):
    m = fit(structure, method, **more)
    ours, d = np.asarray(rf.information(m)), Dense(m, structure)
    total = np.zeros(m.nobs)
    whole = quotient(lambda at: d.scores(total, at)[0], d.at)
    if method == "reml":  # the block of V's parameters is that of the restricted likelihood, with what beta follows
        mixed, top = whole[: d.p, d.p :], whole[: d.p, : d.p]
        whole[d.p :, d.p :] = quotient(d.restricted, d.at[d.p :]) + mixed.T @ np.linalg.solve(top, mixed)
    unit = np.sqrt(np.diag(ours))
    # The core's Hessian is a quotient of gradients too, with steps of 1e-3 standard errors.
    np.testing.assert_allclose(ours / np.outer(unit, unit), whole / np.outer(unit, unit), atol=2e-5)


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize(("structure", "more"), CASES)
def test_expected_information_as_dense_matrices_say(structure, more, method):
    m = fit(structure, method, **more)
    found, p = np.asarray(rf.information(m, "expected")), 3
    top, low = Dense(m, structure).expected(method == "reml")
    np.testing.assert_allclose(found[:p, :p], top, rtol=1e-8)
    np.testing.assert_allclose(found[p:, p:], low, rtol=1e-7, atol=1e-8 * np.abs(low).max())
    assert not found[:p, p:].any()


def test_names_and_dropped_columns():
    data = visits()
    data["twice"] = 2 * data["time"]
    m = rf.fit("y ~ time + twice + ar1(0 + factor(time) | id)", data)
    names = ["(Intercept)", "time", "dispersion.(Intercept)", "theta1", "theta2"]
    for kind in ("observed", "expected"):
        assert list(rf.information(m, kind)) == names
    assert list(rf.estfun(m)) == ["cluster", *names]
    with pytest.raises(NotAvailableError, match="slim"):
        rf.information(m.slim(), "expected")
    known = rf.fit("y ~ time + ar1(0 + factor(time) | id)", data, fixed={"sigma": 0.7})
    held = rf.fit("y ~ time + ar1(0 + factor(time) | id)", data, fixed={"sd(id)": 1.1})
    for kind in ("observed", "expected"):
        assert list(rf.information(known, kind)) == ["(Intercept)", "time", "theta1", "theta2"]
        with pytest.raises(NotAvailableError, match="held or tied"):
            rf.information(held, kind)


def test_reduced_rank_has_information_but_no_scores():
    rng = np.random.default_rng(3)
    g, t = np.repeat(np.arange(40), 15), np.tile(np.arange(5), 120)
    effects = rng.normal(size=(40, 1)) @ rng.normal(size=(1, 5))
    data = {"y": effects[g, t] + rng.normal(size=600), "g": g, "t": [f"t{v}" for v in t]}
    m = rf.fit("y ~ 1 + rr(0 + t | g, 1)", data, method="ml")
    found = np.linalg.inv(np.asarray(rf.information(m)))
    np.testing.assert_allclose(np.sqrt(np.diag(found))[2:], m.tidy("ran_pars")["std_error"][:5], rtol=1e-6)
    with pytest.raises(NotAvailableError, match="reduced rank"):
        rf.estfun(m)


def test_restricted_likelihood_of_a_generalised_model():
    data = rf.datasets.load("cbpp")
    m = rf.fit("incidence ~ period + (1 | herd)", data, family="poisson", method="reml")
    np.testing.assert_allclose(np.linalg.inv(rf.information(m))[:4, :4], m.vcov(), rtol=1e-8)
    core = make_core(m.design, m.task)
    core.adopt(m.estimate.beta.tolist(), m.theta.tolist(), 1, "ml")
    at, h = np.append(m.estimate.beta, m.theta), 1e-5 * np.eye(5)

    def loglik(at):
        return core.evaluate(at[:4].tolist(), at[4:].tolist())["loglik"]

    slopes = [(loglik(at + e) - loglik(at - e)) / 2e-5 for e in h]
    np.testing.assert_allclose(rf.estfun(m).iloc[:, 1:].sum(), slopes, atol=1e-5)  # of 1e-9 of the log-likelihood
    with pytest.raises(NotAvailableError, match="method='ml'"):
        m.vcov(kind="CR1")
