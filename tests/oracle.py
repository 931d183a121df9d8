"""A dense oracle for linear mixed models: same interface as `ranef._core.Lmm`, written from the marginal distribution.

Nothing here is shared with the engine. The likelihood is that of `y ~ N(X beta + offset, sigma^2 V)` with

    V = diag(1/w) + sum_t Z_t (I (x) Lambda_t Lambda_t') Z_t'

as an n x n matrix (Laird & Ware 1982; Harville 1977), whereas the engine solves Henderson's penalised equations.
For tests with n up to some hundreds. Not part of the package.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import linalg, optimize

Array = np.ndarray
Source = tuple[Array | None, Array | None, Array | None]
Term = tuple[Array, int, str, list[Source]]

RANK_TOLERANCE = 1e-8


def columns(source: Source, n: int) -> Array:
    """Dense (n, m) columns of one source: value of row i is `x[i] * contrast[codes[i], :]`; code -1 gives zeros."""
    codes, contrast, x = source
    ones = np.ones(n) if x is None else np.asarray(x, dtype=float)
    if codes is None or contrast is None:
        return ones[:, None]
    known = np.asarray(codes) >= 0
    return np.where(known[:, None], contrast[np.where(known, codes, 0)], 0.0) * ones[:, None]


def dense(sources: list[Source], n: int) -> Array:
    """All columns of several sources side by side."""
    return np.column_stack([np.empty((n, 0)), *(columns(s, n) for s in sources)])


def incidence(term: Term, n: int) -> Array:
    """Dense (n, L*k) random-effects design of one term, columns of a level adjacent; code -1 gives a zero row."""
    codes, levels, _, sources = term
    z = dense(sources, n)
    k = z.shape[1]
    out = np.zeros((n, levels, k))
    known = np.flatnonzero(np.asarray(codes) >= 0)
    out[known, np.asarray(codes)[known]] = z[known]
    return out.reshape(n, levels * k)


def independent(x: Array) -> list[int]:
    """Indices of the columns kept when columns that depend on earlier ones are dropped."""
    kept: list[int] = []
    for j in range(x.shape[1]):
        basis, target = x[:, kept], x[:, j]
        rest = target - basis @ np.linalg.lstsq(basis, target, rcond=None)[0] if kept else target
        if np.linalg.norm(rest) > RANK_TOLERANCE * np.linalg.norm(target):
            kept.append(j)
    return kept


@dataclass(frozen=True)
class _Shape:
    """One term's place in theta: `unit[i]` is d Lambda / d theta_i, a matrix with a single one."""

    levels: int
    k: int
    structure: str

    @property
    def unit(self) -> list[Array]:
        cells = [(i, j) for j in range(self.k) for i in range(j, self.k) if self.structure == "us" or i == j]
        out = []
        for cell in cells:
            m = np.zeros((self.k, self.k))
            m[cell] = 1.0
            out.append(m)
        return out

    def factor(self, theta: Array) -> Array:
        return sum((t * u for t, u in zip(theta, self.unit, strict=True)), np.zeros((self.k, self.k)))


class Lmm:
    """Dense stand-in for `ranef._core.Lmm`."""

    def __init__(
        self,
        fixed: list[Source],
        terms: list[Term],
        y: Array,
        weights: Array | None,
        offset: Array | None,
        threads: int,
    ) -> None:
        self._arguments = (fixed, terms, np.array(y, dtype=float), weights, offset, threads)
        n = len(y)
        self.n, self._weights = n, np.ones(n) if weights is None else np.asarray(weights, dtype=float)
        self._y = np.asarray(y, dtype=float) - (0.0 if offset is None else np.asarray(offset))
        full = dense(fixed, n)
        self._kept = independent(np.sqrt(self._weights)[:, None] * full)
        self.p, self.rank = full.shape[1], len(self._kept)
        self.dropped = [j for j in range(self.p) if j not in self._kept]
        self._x = full[:, self._kept]
        self._shapes = [_Shape(t[1], dense(t[3], n).shape[1], t[2]) for t in terms]
        self._z = [incidence(t, n) for t in terms]
        self.ntheta = sum(len(s.unit) for s in self._shapes)
        self._theta, self._sigma = np.ones(self.ntheta), 1.0

    # ---- the marginal model -----------------------------------------------------------------------------------------

    def _split(self, theta: Array) -> list[Array]:
        ends = np.cumsum([len(s.unit) for s in self._shapes])
        return np.split(np.asarray(theta, dtype=float), ends[:-1]) if self._shapes else []

    def _factors(self, theta: Array) -> list[Array]:
        return [s.factor(t) for s, t in zip(self._shapes, self._split(theta), strict=True)]

    def _v(self, theta: Array) -> Array:
        v = np.diag(1.0 / self._weights)
        for z, s, lam in zip(self._z, self._shapes, self._factors(theta), strict=True):
            v += z @ np.kron(np.eye(s.levels), lam @ lam.T) @ z.T
        return v

    def _dv(self, theta: Array) -> list[Array]:
        out = []
        for z, s, lam in zip(self._z, self._shapes, self._factors(theta), strict=True):
            out += [z @ np.kron(np.eye(s.levels), d @ lam.T + lam @ d.T) @ z.T for d in s.unit]
        return out

    def _gls(self, theta: Array) -> tuple[Array, Array, Array, float, float]:
        """V^-1, C = (X'V^-1X)^-1, beta, r2 = r'V^-1r, log|V|."""
        v = self._v(theta)
        vi = linalg.inv(v)
        vi = (vi + vi.T) / 2
        c = np.linalg.inv(self._x.T @ vi @ self._x)
        beta = c @ self._x.T @ vi @ self._y
        r = self._y - self._x @ beta
        return vi, c, beta, float(r @ vi @ r), float(np.linalg.slogdet(v)[1])

    def _df(self, reml: bool) -> int:
        return self.n - self.rank if reml else self.n

    def evaluate(self, theta: Array, reml: bool) -> dict[str, Any]:
        """Profiled criterion (-2 log-likelihood or REML criterion) and its exact gradient."""
        vi, c, beta, r2, logdet = self._gls(theta)
        df = self._df(reml)
        logdet_x = -float(np.linalg.slogdet(c)[1]) if self.rank else 0.0
        criterion = logdet + df * (1 + np.log(2 * np.pi * r2 / df)) + (logdet_x if reml else 0.0)
        a = vi @ (self._y - self._x @ beta)
        p = vi - vi @ self._x @ c @ self._x.T @ vi if reml else vi
        gradient = np.array([np.sum(p * d) - df * (a @ d @ a) / r2 for d in self._dv(theta)])
        log_w = float(np.log(self._weights).sum())
        sigma = np.sqrt(r2 / df)
        return {
            "criterion": float(criterion), "gradient": gradient, "beta": self._full(beta), "sigma": float(sigma),
            "pwrss": r2, "logdet_z": logdet + log_w, "logdet_x": logdet_x,
        }  # fmt: skip

    def _full(self, beta: Array) -> Array:
        out = np.full(self.p, np.nan)
        out[self._kept] = beta
        return out

    def _full2(self, m: Array) -> Array:
        out = np.full((*m.shape[:-2], self.p, self.p), np.nan)
        out[..., np.ix_(self._kept, self._kept)[0], np.ix_(self._kept, self._kept)[1]] = m
        return out

    # ---- optimisation -----------------------------------------------------------------------------------------------

    def _canonical(self, theta: Array) -> Array:
        """Flip columns of Lambda so that its diagonal is >= 0."""
        out = []
        for s, lam in zip(self._shapes, self._factors(theta), strict=True):
            flip = lam * np.where(np.diag(lam) < 0, -1.0, 1.0)
            out.append([flip[np.nonzero(u)][0] for u in s.unit])
        return np.concatenate(out) if out else np.zeros(0)

    def _newton(self, theta: Array, reml: bool) -> Array:
        """Polish by Newton steps on the exact gradient, differenced once."""
        for _ in range(12):
            g = self.evaluate(theta, reml)["gradient"]
            h = self._curvature(theta, reml)
            values, vectors = np.linalg.eigh(h)
            step = -vectors @ ((vectors.T @ g) / np.maximum(np.abs(values), 1e-8 * max(1.0, np.abs(values).max())))
            if self.evaluate(theta + step, reml)["criterion"] > self.evaluate(theta, reml)["criterion"] + 1e-10:
                break
            theta = theta + step
            if np.abs(step).max() < 1e-13:
                break
        return theta

    def _curvature(self, theta: Array, reml: bool, h: float = 1e-5) -> Array:
        out = np.empty((self.ntheta, self.ntheta))
        for i, e in enumerate(np.eye(self.ntheta)):
            up, down = (self.evaluate(theta + s * h * e, reml)["gradient"] for s in (1, -1))
            out[i] = (up - down) / (2 * h)
        return (out + out.T) / 2

    def fit(self, reml: bool, start: Array | None = None, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Optimise from several starts and polish; the keys are those of the engine."""
        if not self.ntheta:
            return self._result(np.zeros(0), reml, 1)
        if options and options.get("max_evaluations") == 1 and start is not None:
            return self._result(np.asarray(start, dtype=float), reml, 1)
        eye = np.concatenate([[float(np.trace(u)) for u in s.unit] for s in self._shapes])
        starts = [eye, 0.3 * eye, 3.0 * eye] if start is None else [np.asarray(start, dtype=float)]
        best, evaluations = None, 0
        for x0 in starts:
            objective = partial(self._objective, reml)
            found = optimize.minimize(objective, x0, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500})
            evaluations += found.nfev
            if best is None or found.fun < best.fun:
                best = found
        assert best is not None
        return self._result(self._canonical(self._newton(best.x, reml)), reml, evaluations)

    def _objective(self, reml: bool, theta: Array) -> tuple[float, Array]:
        at = self.evaluate(theta, reml)
        return at["criterion"], at["gradient"]

    def _result(self, theta: Array, reml: bool, evaluations: int) -> dict[str, Any]:
        self._theta = theta = np.array(theta, dtype=float)
        vi, c, beta, _, _ = self._gls(theta)
        at = self.evaluate(theta, reml)
        self._sigma = at["sigma"]
        factors = self._factors(theta)
        r = vi @ (self._y - self._x @ beta)
        b = [
            (np.kron(np.eye(s.levels), lam @ lam.T) @ z.T @ r).reshape(s.levels, s.k)
            for s, z, lam in zip(self._shapes, self._z, factors, strict=True)
        ]
        return {
            **at, "theta": theta, "vcov": self._full2(at["sigma"] ** 2 * c), "lambda": factors, "b": b,
            "outcome": "converged", "evaluations": evaluations, "iterations": evaluations,
            **self._certificate(theta, reml), "boundary": self._boundary(factors),
        }  # fmt: skip

    def _certificate(self, theta: Array, reml: bool) -> dict[str, Any]:
        if not self.ntheta:
            return {"decrease": 0.0, "curvature": np.inf, "multipliers": []}
        h, g = self._curvature(theta, reml), self.evaluate(theta, reml)["gradient"]
        curvature = float(np.linalg.eigvalsh(h)[0])
        return {"decrease": float(abs(g @ np.linalg.pinv(h) @ g)), "curvature": curvature, "multipliers": []}

    def _boundary(self, factors: list[Array]) -> list[tuple[int, str, int]]:
        out = []
        for t, (lam, shape) in enumerate(zip(factors, self._shapes, strict=True)):
            values = np.linalg.eigvalsh(lam @ lam.T)
            rank = int((values > 1e-8 * max(values.max(), 1e-8)).sum()) if values.max() > 1e-10 else 0
            if rank < shape.k:
                zero = bool((np.diag(lam @ lam.T) < 1e-10).any())
                out.append((t, "variance" if zero else "correlation", rank))
        return out

    # ---- what follows from an optimum -------------------------------------------------------------------------------

    def _prior(self) -> Array:
        """Relative covariance of all random effects, (q, q)."""
        blocks = [
            np.kron(np.eye(s.levels), lam @ lam.T)
            for s, lam in zip(self._shapes, self._factors(self._theta), strict=True)
        ]
        return linalg.block_diag(*blocks) if blocks else np.zeros((0, 0))

    def cond_cov(self, term: int) -> Array:
        """(L, k, k): Var(b | y) at known beta: sigma^2 (D - D Z' V^-1 Z D)."""
        z, d = np.column_stack(self._z), self._prior()
        full = self._sigma**2 * (d - d @ z.T @ linalg.solve(self._v(self._theta), z @ d, assume_a="pos"))
        first = sum(s.levels * s.k for s in self._shapes[:term])
        s = self._shapes[term]
        cells = [slice(first + i * s.k, first + (i + 1) * s.k) for i in range(s.levels)]
        return np.array([full[c, c] for c in cells])

    def _joint(self) -> Array:
        """Covariance of (beta_hat - beta, b_hat - b), from the linearity of both in y; (rank + q, rank + q)."""
        vi, c, *_ = self._gls(self._theta)
        z = np.column_stack([np.empty((self.n, 0)), *self._z])
        d, x = self._prior(), self._x
        to_beta = c @ x.T @ vi
        to_b = d @ z.T @ (vi - vi @ x @ to_beta)
        a = np.vstack([to_beta, to_b])  # (beta_hat, b_hat) = a y
        error_b = a @ z - np.vstack([np.zeros((self.rank, z.shape[1])), np.eye(z.shape[1])])
        return self._sigma**2 * (error_b @ d @ error_b.T + a @ np.diag(1 / self._weights) @ a.T)

    def predict_var(self, fixed: list[Source], terms: list[Term], n: int, which: list[bool]) -> Array:
        """Variance of x'beta_hat + z'(b_hat - b) for new rows; a term not in `which`, or with code -1, counts 0."""
        z = [incidence(t, n) * float(on) for t, on in zip(terms, which, strict=True)]
        rows = np.column_stack([dense(fixed, n)[:, self._kept], *z])
        return np.einsum("ij,jk,ik->i", rows, self._joint(), rows)

    def _deviance(self, par: Array, reml: bool) -> float:
        """Unprofiled deviance in (theta, sigma)."""
        *_, r2, logdet = self._gls(par[:-1])
        at = self.evaluate(par[:-1], reml)
        extra = at["logdet_x"] if reml else 0.0
        return logdet + extra + self._df(reml) * np.log(2 * np.pi * par[-1] ** 2) + r2 / par[-1] ** 2

    def _score(self, par: Array, reml: bool) -> Array:
        theta, sigma = par[:-1], par[-1]
        vi, c, beta, r2, _ = self._gls(theta)
        a = vi @ (self._y - self._x @ beta)
        p = vi - vi @ self._x @ c @ self._x.T @ vi if reml else vi
        by_theta = [np.sum(p * d) - (a @ d @ a) / sigma**2 for d in self._dv(theta)]
        return np.array([*by_theta, 2 * self._df(reml) / sigma - 2 * r2 / sigma**3])

    def hessian(self, theta: Array, sigma: float, reml: bool) -> Array:
        """Hessian of the unprofiled deviance in (theta, sigma), by Richardson-extrapolated differences of the score."""
        par = np.append(theta, sigma)
        out = []
        for i in range(len(par)):
            h = 1e-4 * max(abs(par[i]), 0.1)
            out.append(_richardson(lambda t, i=i: self._score(par + t * np.eye(len(par))[i], reml), h))
        m = np.array(out)
        return (m + m.T) / 2

    def vcov_jacobian(self, theta: Array, sigma: float, reml: bool) -> Array:
        """d vcov(beta) / d (theta, sigma): exact, (m, p, p)."""
        vi, c, *_ = self._gls(theta)
        b = vi @ self._x @ c
        by_theta = [self._full2(sigma**2 * b.T @ d @ b) for d in self._dv(theta)]
        return np.array([*by_theta, self._full2(2 * sigma * c)])

    def refit(
        self, y: Array, fixed: list[Source], terms: list[Term], weights: Array | None, offset: Array | None,
        reml: bool, options: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """One fit per column of `y`."""
        return [Lmm(fixed, terms, col, weights, offset, 0).fit(reml, None, options) for col in y.T]

    def moments_state(self) -> bytes:
        """State as bytes."""
        return pickle.dumps((self._arguments, self._theta, self._sigma))

    @staticmethod
    def from_state(state: bytes, threads: int = 0) -> Lmm:
        """The inverse of `moments_state`."""
        arguments, theta, sigma = pickle.loads(state)
        out = Lmm(*arguments)
        out._theta, out._sigma = theta, sigma
        return out


DenseLmm = Lmm


def linear_predictor(
    fixed: list[Source], beta: Array, terms: list[Term], b: list[Array], offset: Array | None, n: int
) -> Array:
    """X beta + Z b + offset, NaN coefficients counted as 0, code -1 contributing 0."""
    eta = dense(fixed, n) @ np.nan_to_num(beta) + (0.0 if offset is None else offset)
    return sum((incidence(t, n) @ modes.ravel() for t, modes in zip(terms, b, strict=True)), eta)


def _richardson(score: Any, h: float) -> Array:
    """Derivative at 0 of a vector function, error O(h^4)."""
    first = (score(h) - score(-h)) / (2 * h)
    half = (score(h / 2) - score(-h / 2)) / h
    return (4 * half - first) / 3
