"""A generalised mixed model in dense numpy, by brute force: the core's interface, and nothing shared with it.

Derivatives of a row's log density are difference quotients of fourth order (step 1e-3: errors of 1e-10), the mode is
found by damped Newton steps in the spherical effects u, the optimum by a quasi-Newton search on difference quotients
followed by Newton steps. `laplace` and `quadrature` can be asked at any (beta, theta). For small models only.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import numpy as np
from scipy import optimize

import oracle_families

STEP = 1e-3  # of the difference quotients in eta: h^4 = 1e-12 against eps / h^2 = 2e-10
WEIGHTS = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
SECOND = {-2: -1 / 12, -1: 16 / 12, 0: -30 / 12, 1: 16 / 12, 2: -1 / 12}


def dense(block, n):
    """Columns of one block."""
    codes, contrast, x = block[:3]
    x = np.ones(n) if x is None else np.asarray(x, float)
    return x[:, None] if codes is None else x[:, None] * np.where(np.asarray(codes)[:, None] < 0, 0, contrast[codes])


def columns(blocks, n):
    """Columns of several blocks."""
    return np.column_stack([dense(b, n) for b in blocks]) if blocks else np.zeros((n, 0))


class DenseGlmm:
    """As `_core.Glmm`."""

    def __init__(self, family, components, p, terms, data, weights=None, threads=0, density=None):
        self.spec, self.data, self.terms = family, data, terms
        self.density = density or oracle_families.density
        self.n, self.p, self.k = len(data["y"]), p, len(components)
        self.w = np.ones(self.n) if weights is None else np.asarray(weights, float)
        self.x = np.zeros((self.k, self.n, p))
        self.offset = np.zeros((self.n, self.k))
        for c, (blocks, offset) in enumerate(components):
            for block in blocks:
                cols = dense(block, self.n)
                self.x[c][:, block[3] : block[3] + cols.shape[1]] += cols
            self.offset[:, c] += 0 if offset is None else offset
        self.z = [columns(t[3], self.n) for t in terms]
        self.sizes = [(t[1], z.shape[1]) for t, z in zip(terms, self.z, strict=True)]
        self.first = np.cumsum([0, *(levels * k for levels, k in self.sizes)])
        self.dropped = self._dependent()
        self.kept = [j for j in range(p) if j not in self.dropped]
        self.u = np.zeros(self.first[-1])

    def _dependent(self):
        stacked, out = self.x.reshape(-1, self.p), []
        for j in range(self.p):
            cols = [i for i in range(j + 1) if i not in out]
            scaled = stacked[:, cols] / np.maximum(np.abs(stacked[:, cols]).max(axis=0), 1e-300)
            if np.linalg.matrix_rank(scaled, tol=1e-9 * len(scaled)) < len(cols):
                out.append(j)
        return out

    # ---- parameters --------------------------------------------------------------------------------------------------

    def cells(self):
        """(term, row, column) of every theta."""
        return [
            (t, i, j)
            for t, (_, k) in enumerate(self.sizes)
            for j in range(k)
            for i in range(j, k)
            if self.terms[t][2] == "us" or i == j
        ]

    def factors(self, theta):
        """Lambda of each term."""
        out = [np.zeros((k, k)) for _, k in self.sizes]
        for (t, i, j), v in zip(self.cells(), theta, strict=True):
            out[t][i, j] = v
        return out

    def loadings(self, theta):
        """B = Z Lambda of each predictor, (K, n, q)."""
        out = np.zeros((self.k, self.n, self.first[-1]))
        for t, factor in enumerate(self.factors(theta)):
            codes, _, k = np.asarray(self.terms[t][0]), *self.sizes[t]
            loading = self.z[t] @ factor
            for j in range(k):
                out[self.terms[t][4][0], np.arange(self.n), self.first[t] + codes * k + j] += loading[:, j]
        return out

    # ---- the rows ----------------------------------------------------------------------------------------------------

    def rows(self, eta):
        """Log density of each row, gradient (n, K) and Hessian (n, K, K) in its predictors."""
        f = lambda shift: self.density(self.spec, self.data, eta + shift)  # noqa: E731
        unit = STEP * np.eye(self.k)
        gradient = np.zeros((self.n, self.k))
        hessian = np.zeros((self.n, self.k, self.k))
        for a, b in combinations_with_replacement(range(self.k), 2):
            if a == b:
                at = {s: f(s * unit[a]) for s in SECOND}
                gradient[:, a] = sum(c * at[s] for s, c in WEIGHTS.items()) / STEP
                hessian[:, a, a] = sum(c * at[s] for s, c in SECOND.items()) / STEP**2
            else:
                cross = sum(
                    c * d * f(s * unit[a] + r * unit[b]) for (s, c), (r, d) in product(WEIGHTS.items(), WEIGHTS.items())
                )
                hessian[:, a, b] = hessian[:, b, a] = cross / STEP**2
        return f(0), gradient, hessian

    def predictors(self, beta, loadings, u):
        """All linear predictors, (n, K)."""
        return (np.einsum("knp,p->nk", self.x, beta) + self.offset) + np.einsum("knq,q->nk", loadings, u)

    def joint(self, beta, loadings, u):
        """Log density of data and effects (up to the effects' constant)."""
        value = self.density(self.spec, self.data, self.predictors(beta, loadings, u))
        return float(self.w @ value) - 0.5 * float(u @ u) if np.isfinite(value).all() else -np.inf

    def mode(self, beta, loadings, u):
        """Return the mode of u and the negative Hessian there."""
        value = self.joint(beta, loadings, u)
        if not np.isfinite(value):
            u = np.zeros_like(u)
            value = self.joint(beta, loadings, u)
        for _ in range(200):
            _, g, h = self.rows(self.predictors(beta, loadings, u))
            slope = np.einsum("knq,nk->q", loadings, g * self.w[:, None]) - u
            curve = np.eye(len(u)) - np.einsum("knq,nkl,lnr->qr", loadings, h * self.w[:, None, None], loadings)
            if not len(u):
                break
            lowest = np.linalg.eigvalsh(curve)[0]
            step = np.linalg.solve(curve + max(0.0, 1e-3 - lowest) * np.eye(len(u)), slope)
            if slope @ step < 1e-16:
                break
            size = 1.0
            while size > 1e-10 and not self.joint(beta, loadings, u + size * step) >= value:
                size /= 2
            if size <= 1e-10:
                break
            u = u + size * step
            value = self.joint(beta, loadings, u)
        return u, curve, value

    def laplace(self, beta, theta):
        """Laplace approximation of the log-likelihood."""
        loadings = self.loadings(theta)
        u, curve, value = self.mode(np.asarray(beta, float), loadings, self.u)
        if not np.isfinite(value):
            return -np.inf
        self.u, self.curve = u, curve
        sign, logdet = np.linalg.slogdet(curve) if len(u) else (1.0, 0.0)
        return value - 0.5 * logdet if sign > 0 else -np.inf

    def quadrature(self, beta, theta, nodes):
        """Adaptive Gauss-Hermite log-likelihood: one grouping factor, whose levels are integrated one by one."""
        beta, loadings = np.asarray(beta, float), self.loadings(theta)
        u, curve, _ = self.mode(beta, loadings, self.u)
        codes, levels = np.asarray(self.terms[0][0]), self.sizes[0][0]
        assert all((np.asarray(t[0]) == codes).all() for t in self.terms), "one grouping factor"
        x, weight = np.polynomial.hermite.hermgauss(nodes)
        total = 0.0
        for level in range(levels):
            at = [f + level * k + j for f, (_, k) in zip(self.first, self.sizes, strict=False) for j in range(k)]
            root = np.linalg.inv(np.linalg.cholesky(curve[np.ix_(at, at)])).T
            member = codes == level
            values = []
            for chosen in product(range(nodes), repeat=len(at)):
                v, node = u.copy(), x[list(chosen)]
                v[at] = u[at] + np.sqrt(2) * root @ node
                f = self.density(self.spec, self.data, self.predictors(beta, loadings, v))
                values.append((self.w * f)[member].sum() - 0.5 * v[at] @ v[at] + node @ node
                              + np.log(weight[list(chosen)]).sum())  # fmt: skip
            top = max(values)
            logdet = np.linalg.slogdet(root)[1] - 0.5 * len(at) * np.log(np.pi)
            total += top + np.log(np.sum(np.exp(np.array(values) - top))) + logdet
        return total

    # ---- the optimum -------------------------------------------------------------------------------------------------

    def start(self):
        """Zero coefficients but for ones that give every predictor's intercept a harmless value."""
        y = np.asarray(self.data["y"], float)
        beta = np.zeros(self.p)
        best = None
        if self.spec["name"] == "cumulative":
            count = self.spec["categories"] - 1
            beta[self.p - count :] = np.linspace(-2, 2, count) if self.x[1].any() else 0
            return beta
        for guess in (0.0, np.log(np.abs(y.mean()) + 0.1), y.mean(), 1.0):
            trial = np.zeros(self.p)
            trial[0] = guess
            value = self.joint(trial, self.loadings(np.zeros(len(self.cells()))), np.zeros(self.first[-1]))
            if best is None or value > best:
                best, beta = value, trial
        return beta

    def fit(self, start=None, quadrature=1, options=None):
        """Maximise over (beta, theta)."""
        nodes = quadrature
        cells = self.cells()
        diagonal = np.array([i == j for _, i, j in cells], bool)
        theta = np.where(diagonal, 0.7, 0.0)
        if start and start.get("theta") is not None:
            theta = np.asarray(start["theta"], float)
        par = np.concatenate([self.start()[self.kept], theta])
        objective = lambda v: -self.at(v, nodes)  # noqa: E731
        bounds = [(None, None)] * len(self.kept) + [(0, None) if d else (None, None) for d in diagonal]
        for _ in range(3):
            options = {"maxiter": 200, "ftol": 1e-12, "gtol": 1e-5}
            jac = lambda v: slope(objective, v)  # noqa: E731
            found = optimize.minimize(objective, par, jac=jac, method="L-BFGS-B", bounds=bounds, options=options)
            done = np.allclose(par, found.x, atol=1e-7)
            par = found.x
            if done:
                break
        par = np.where(np.concatenate([np.zeros(len(self.kept), bool), diagonal]) & (par < 1e-5), 0.0, par)
        par = self._polished(objective, par)
        return self._record(par, objective)

    def at(self, par, nodes=1):
        """Log-likelihood at (kept beta, theta)."""
        beta = np.zeros(self.p)
        beta[self.kept] = par[: len(self.kept)]
        theta = par[len(self.kept) :]
        return self.laplace(beta, theta) if nodes == 1 else self.quadrature(beta, theta, nodes)

    def _polished(self, objective, par):
        free = par != 0
        for _ in range(3):
            g, h = slope(objective, par)[free], curvature(objective, par)[np.ix_(free, free)]
            if np.linalg.eigvalsh(h)[0] <= 0:
                return par
            trial = par.copy()
            trial[free] -= np.linalg.solve(h, g)
            if objective(trial) > objective(par):
                return par
            par = trial
        return par

    def _record(self, par, objective):
        value = -objective(par)
        self.par, self.objective = par, objective
        theta = par[len(self.kept) :]
        self.theta = theta
        beta = np.full(self.p, np.nan)
        beta[self.kept] = par[: len(self.kept)]
        factors = self.factors(theta)
        modes = [self._mode_of(t, f) for t, f in enumerate(factors)]
        ranks = [np.linalg.matrix_rank(f, tol=1e-6) for f in factors]
        boundary = [(t, "variance", int(r)) for t, r in enumerate(ranks) if r < len(factors[t])]
        return {
            "loglik": value, "beta": beta, "theta": theta, "lambda": factors, "b": modes, "outcome": "converged",
            "evaluations": 1, "inner": 1, "iterations": 1, "gradient": np.zeros(len(par)), "decrease": 0.0,
            "curvature": 1.0, "multipliers": [], "boundary": boundary,
        }  # fmt: skip

    def _mode_of(self, t, factor):
        levels, k = self.sizes[t]
        return self.u[self.first[t] : self.first[t + 1]].reshape(levels, k) @ factor.T

    def evaluate(self, beta, theta):
        """Log-likelihood and gradient over (beta, theta) at any point."""
        par = np.concatenate([np.asarray(beta)[self.kept], theta])
        self.par, self.theta, self.objective = par, np.asarray(theta), lambda v: -self.at(v)
        gradient = -slope(self.objective, par)
        return {"loglik": self.at(par), "gradient": gradient}

    # ---- uncertainty -------------------------------------------------------------------------------------------------

    def vcov(self):
        """Inverse Hessian of -loglik over (beta, theta); parameters at zero variance and dropped ones NaN."""
        m = len(self.theta)
        full = np.full((self.p + m, self.p + m), np.nan)
        free = np.array([True] * len(self.kept) + [v != 0 for v in self.theta])
        h = curvature(self.objective, self.par)[np.ix_(free, free)]
        at = np.array([*self.kept, *range(self.p, self.p + m)])[free]
        full[np.ix_(at, at)] = np.linalg.inv(h)
        return full

    def cond_cov(self, term):
        """Covariance of the modes of a term given the parameters."""
        self.at(self.par)
        levels, k = self.sizes[term]
        inverse, factor = np.linalg.inv(self.curve), self.factors(self.theta)[term]
        at = [slice(self.first[term] + i * k, self.first[term] + (i + 1) * k) for i in range(levels)]
        return np.array([factor @ inverse[s, s] @ factor.T for s in at])

    def predict_var(self, component, blocks, terms, n):
        """Variance of x'beta_hat + z'(b_hat - b) from the joint curvature of (beta, u) at the mode."""
        loadings, p = self.loadings(self.theta), len(self.kept)
        self.at(self.par)
        beta = np.zeros(self.p)
        beta[self.kept] = self.par[:p]
        _, _, h = self.rows(self.predictors(beta, loadings, self.u))
        both = np.concatenate([self.x[:, :, self.kept], loadings], axis=2)
        joint = -np.einsum("knq,nkl,lnr->qr", both, h * self.w[:, None, None], both)
        joint[p:, p:] += np.eye(len(self.u))
        row = np.zeros((n, p + len(self.u)))
        x = np.zeros((n, self.p))
        for block in blocks:
            cols = dense(block, n)
            x[:, block[3] : block[3] + cols.shape[1]] += cols
        row[:, :p] = x[:, self.kept]
        for t, term in enumerate(terms):
            if term is None:
                continue
            codes, k = np.asarray(term[0]), self.sizes[t][1]
            z = columns(term[1], n) @ self.factors(self.theta)[t]
            for j in range(k):
                row[np.arange(n), p + self.first[t] + np.maximum(codes, 0) * k + j] += np.where(codes < 0, 0, z[:, j])
        return np.einsum("ij,ij->i", row, np.linalg.solve(joint, row.T).T)


def slope(f, v, h=1e-3):
    """Central difference quotients of fourth order."""
    out = np.zeros_like(v)
    for j in range(len(v)):
        e = np.zeros_like(v)
        e[j] = h * max(1.0, abs(v[j]))
        out[j] = sum(c * f(v + s * e) for s, c in WEIGHTS.items()) / e[j]
    return out


def curvature(f, v, h=1e-2):
    """Hessian by difference quotients of gradients."""
    out = np.zeros((len(v), len(v)))
    for j in range(len(v)):
        e = np.zeros_like(v)
        e[j] = h * max(1.0, abs(v[j]))
        out[j] = sum(c * slope(f, v + s * e) for s, c in WEIGHTS.items()) / e[j]
    return (out + out.T) / 2
