"""Forms of a gaussian model from dense cross-products of its independent units.

For what the linear engine does not know: levels that are related, residual variances that differ between rows, rows
that are counted, structures over many columns, coefficients held or tied. With one grouping a unit is a level; else all
random effects are one unit. With R the residual variances, G = Z'R^-1Z, Sigma the covariance of the random effects and
B = Sigma^1/2 (I + Sigma^1/2' G Sigma^1/2)^-1 Sigma^1/2',

    V^-1 = R^-1 - R^-1 Z B Z'R^-1,      Z'V^-1 = C Z'R^-1,  C = I - G B.

A direction of the random effects is V_a = Z E Z', one of the residual variances V_a = D, diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ranef.frame.design import Array, matrix
from ranef.inference.crossproducts import Cross, against, columns, cross, one_grouping, whole
from ranef.inference.ddf.directions import RESIDUAL, Direction, residual_variances
from ranef.inference.ddf.forms import Forms

if TYPE_CHECKING:
    from ranef.frame import Design, GroupTerm
    from ranef.model import Fit


@dataclass(frozen=True, slots=True)
class Prepared:
    """A direction with what several forms share; Y = [X, residual].

    Attributes
    ----------
    direction : Direction
    own : (q, q) array
        Y'V^-1 V_a V^-1Y.
    outer : (U, K, q) array
        Z'V^-1 V_a V^-1Y by units.
    inner : (U, K, K) array
        Z'V^-1 V_a V^-1Z.
    """

    direction: Direction
    own: Array
    outer: Array
    inner: Array


def is_small(terms: Sequence[GroupTerm], largest: int) -> bool:
    """Whether no unit has more than so many random effects."""
    if is_split(terms):
        return sum(len(t.names) for t in terms) <= largest
    return sum(len(t.levels) * len(t.names) for t in terms) <= largest


def is_split(terms: Sequence[GroupTerm]) -> bool:
    """Whether the levels of one grouping are units."""
    return one_grouping(terms) and all(t.relation is None for t in terms)


class Units:
    """The cross-products of a fit at its estimate.

    Parameters
    ----------
    m : Fit
    design : Design
    map : (all coefficients of the mean, free ones) array
        What holds and ties make of them: beta = map @ free + held.
    """

    def __init__(self, m: Fit, design: Design, map: Array) -> None:  # noqa: A002
        self.design, self.reml, self.map = design, m.method == "reml", map
        self.terms = design.terms
        self.split = is_split(self.terms)
        self.counts = np.ones(design.n) if design.frequencies is None else np.asarray(design.frequencies, np.float64)
        self.variances = residual_variances(m, design)
        x = matrix(design.fixed, design.n)
        beta = np.nan_to_num(m.estimate.beta[: x.shape[1]])
        offset = 0.0 if design.offset is None else design.offset
        self.y = np.column_stack([x @ map, np.asarray(design.y) - offset - x @ beta])
        self.related = {t: _even(r.covariance()) for t, r in enumerate(t.relation for t in self.terms) if r is not None}
        self.z = [columns(t, None, design.n) for t in self.terms]
        cov = self._placed(m.estimate.covariances)
        gram = self._gram(self.counts / self.variances)
        values, vectors = np.linalg.eigh(cov)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        inside = np.eye(len(root)) + root.T @ gram @ root
        self.b = root @ np.linalg.solve(inside, np.broadcast_to(root.T, inside.shape))
        self.c = np.eye(len(root)) - gram @ self.b
        self.s = self.c @ gram
        zy = self._against(self.counts / self.variances, self.y)
        cross = self.y.T @ ((self.counts / self.variances)[:, None] * self.y)
        cross = _even(cross - np.einsum("uki,ukj->ij", zy, self.b @ zy))
        self.free = np.linalg.inv(cross[:-1, :-1])
        off = self.free @ cross[:-1, -1]  # what beta_hat is off the generalised least squares by
        self.y[:, -1] -= self.y[:, :-1] @ off
        zy[:, :, -1] -= zy[:, :, :-1] @ off
        self.t = self.c @ zy
        bzy = self.b @ zy
        self.n = (self.y - self._expanded(bzy)) / self.variances[:, None]  # V^-1 Y

    @property
    def phi(self) -> Array:
        """(X'V^-1X)^-1 of all coefficients."""
        return self._all(self.free)

    def forms(self, directions: Sequence[Direction]) -> Forms:
        """Return the forms in some directions."""
        found = [self._prepared(d) for d in directions]
        m, p = len(found), len(self.free)
        pairs = np.empty((m, m, p + 1, p + 1))
        traces = np.empty((m, m))
        for a, one in enumerate(found):
            for b, other in enumerate(found[: a + 1]):
                pairs[a, b] = self._pair(one, other)
                pairs[b, a] = pairs[a, b].T
                traces[a, b] = traces[b, a] = self._trace(one, other)
        own = np.array([f.own for f in found]).reshape(m, p + 1, p + 1)
        # Y'V^-1 V_a P V_b V^-1Y
        projected = pairs - np.einsum("aiu,uv,bvj->abij", own[:, :, :-1], self.free, own[:, :-1, :], optimize=True)
        gradient = np.array([self._first(d) for d in directions]) - own[:, -1, -1]
        if self.reml:
            twice = np.einsum("uv,abvu->ab", self.free, pairs[:, :, :-1, :-1])
            phis = np.einsum("uv,avw->auw", self.free, own[:, :-1, :-1])
            traces = traces - 2 * twice + np.einsum("auw,bwu->ab", phis, phis)
            gradient -= np.einsum("auu->a", phis)
        return Forms(
            self._all(self.free @ own[:, :-1, :-1] @ self.free),
            self._all(_even(self.free @ projected[:, :, :-1, :-1] @ self.free)),
            traces,
            projected[:, :, -1, -1],
            gradient,
            True,
        )

    def gradient(self, directions: Sequence[Direction]) -> Array:
        """Return the change of the deviance alone, (m,)."""
        own = np.array([self._own(d) for d in directions])
        change = np.array([self._first(d) for d in directions]) - own[:, -1, -1]
        return change - np.einsum("uv,avu->a", self.free, own[:, :-1, :-1]) if self.reml else change

    def _all(self, a: Array) -> Array:
        """Matrices over the free coefficients as matrices over all."""
        return self.map @ a @ self.map.T

    # ---- one direction, and two ----

    def _prepared(self, d: Direction) -> Prepared:
        if d.term != RESIDUAL:
            e = self._single(d)
            outer = e @ self.t
            return Prepared(d, self._own(d), self.s @ outer, self.s @ e @ self.s)
        change = self.counts * self._change(d)
        outer = self.c @ self._against(change / self.variances, self.n)
        inner = self.c @ self._gram(change / self.variances**2) @ np.swapaxes(self.c, 1, 2)
        return Prepared(d, self._own(d), outer, inner)

    def _own(self, d: Direction) -> Array:
        """Y'V^-1 V_a V^-1Y."""
        if d.term != RESIDUAL:
            return np.einsum("uki,ukj->ij", self.t, self._single(d) @ self.t)
        return self.n.T @ ((self.counts * self._change(d))[:, None] * self.n)

    def _change(self, d: Direction) -> Array:
        return np.broadcast_to(np.asarray(d.change), self.variances.shape) * self.variances

    def _pair(self, a: Prepared, b: Prepared) -> Array:
        """Y'V^-1 V_a V^-1 V_b V^-1Y."""
        if b.direction.term != RESIDUAL:
            e = self._single(b.direction)
            return np.einsum("uki,ukj->ij", a.outer, e @ self.t)
        if a.direction.term != RESIDUAL:
            return self._pair(b, a).T
        one, other = self._change(a.direction), self._change(b.direction)
        direct = self.n.T @ ((self.counts * one * other / self.variances)[:, None] * self.n)
        left = self._against(self.counts * one / self.variances, self.n)
        right = self._against(self.counts * other / self.variances, self.n)
        return direct - np.einsum("uki,ukj->ij", left, self.b @ right)

    def _trace(self, a: Prepared, b: Prepared) -> float:
        """tr(V^-1 V_a V^-1 V_b)."""
        if b.direction.term != RESIDUAL:
            e = self._single(b.direction)
            return float(np.einsum("ukl,lk->", a.inner, e))
        if a.direction.term != RESIDUAL:
            return self._trace(b, a)
        one, other = self._change(a.direction), self._change(b.direction)
        r = self.variances
        middle = self._gram(self.counts * one * other / r**3)
        left, right = self._gram(self.counts * one / r**2), self._gram(self.counts * other / r**2)
        far = np.einsum("ukl,ulk->", self.b @ left, self.b @ right)
        return float((self.counts * one * other / r**2).sum() - 2 * np.einsum("ukl,ulk->", self.b, middle) + far)

    def _first(self, d: Direction) -> float:
        """tr(V^-1 V_a)."""
        if d.term != RESIDUAL:
            e = self._single(d)
            return float(np.einsum("ukl,lk->", self.s, e))
        change = self.counts * self._change(d) / self.variances
        return float(change.sum() - np.einsum("ukl,ulk->", self.b, self._gram(change / self.variances)))

    # ---- arrangement ----

    def _cross(self, weights: Array | None) -> Cross:
        make = cross if self.split else whole
        return make(self.terms, weights, self.design.n)

    def _gram(self, weights: Array) -> Array:
        """Z'WZ by units; weights may be negative."""
        if (weights < 0).any():
            return self._cross(np.maximum(weights, 0)).gram - self._cross(np.maximum(-weights, 0)).gram
        return self._cross(weights).gram

    @property
    def _places(self) -> tuple[Array, ...]:
        out: list[Array] = []
        first = 0
        for t in self.terms:
            k, levels = len(t.names), 1 if self.split else len(t.levels)
            out.append(first + np.arange(k)[:, None] + k * np.arange(levels)[None, :])
            first += k * levels
        return tuple(out)

    def _placed(self, blocks: Sequence[Array | None]) -> Array:
        """Matrices of the terms as one over the random effects of a unit, (K, K)."""
        places = self._places
        size = sum(at.size for at in places)
        out = np.zeros((size, size))
        for t, (at, block) in enumerate(zip(places, blocks, strict=True)):
            if block is None:
                continue
            for i in range(len(at)):
                for j in range(len(at)):
                    if t in self.related:
                        out[np.ix_(at[i], at[j])] = block[i, j] * self.related[t]
                    else:
                        out[at[i], at[j]] = block[i, j]
        return out

    def _single(self, d: Direction) -> Array:
        """E of a direction of the random effects."""
        return self._placed([d.change if t == d.term else None for t in range(len(self.terms))])

    def _against(self, weights: Array, y: Array) -> Array:
        """Z'Wy by units, (U, K, q)."""
        scaled = weights[:, None] * y
        parts = [against(t, z, scaled) for t, z in zip(self.terms, self.z, strict=True)]
        if self.split:
            return np.concatenate(parts, axis=1)
        if not parts:
            return np.zeros((1, 0, y.shape[1]))
        return np.concatenate([part.reshape(-1, y.shape[1]) for part in parts])[None]

    def _expanded(self, b: Array) -> Array:
        """Z b of effects (U, K, q), (n, q)."""
        out = np.zeros((self.design.n, b.shape[2]))
        for term, z, at in zip(self.terms, self.z, self._places, strict=True):
            for c in range(z.shape[1]):
                values = b[:, at[c, 0], :] if self.split else b[0, at[c], :]
                out += z[:, c, None] * values[term.codes]
        return out


def _even(a: Array) -> Array:
    return (a + np.swapaxes(a, -1, -2)) / 2
