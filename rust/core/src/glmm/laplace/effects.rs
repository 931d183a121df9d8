//! Vectors of random effects in their layouts: by factor, in elimination order, spherical and not.

use std::borrow::Cow;

use crate::cholesky::SelectedInverse;
use crate::optimise::{invert, mul};

use super::super::patterns;
use super::Engine;

impl Engine {
    /// Q u in elimination order: u itself where levels are independent.
    pub fn precision(&self, u: &[f64]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let mut out = u.to_vec();
        for c in &m.couplings {
            let k = m.factors[c.factor].cols;
            let at = |l: usize| sym.at(c.factor, l);
            for (l, d) in c.diag.iter().enumerate() {
                (at(l)..at(l) + k).for_each(|i| out[i] = d * u[i]);
            }
            for (l, w) in c.pair.start.windows(2).enumerate() {
                for e in w[0] as usize..w[1] as usize {
                    let (a, b, v) = (at(l), at(c.pair.level[e] as usize), c.pair.value[e]);
                    for t in 0..k {
                        out[a + t] += v * u[b + t];
                        out[b + t] += v * u[a + t];
                    }
                }
            }
        }
        out
    }

    /// Diagonal blocks of H^-1 by level, replaced by those of (Q H^-1 + H^-1 Q) / 2 where levels are related.
    pub(super) fn whitened<'a>(&self, inv: &'a SelectedInverse) -> Cow<'a, [Vec<f64>]> {
        let m = self.moments();
        if m.couplings.is_empty() {
            return Cow::Borrowed(&inv.diag);
        }
        let mut out = inv.diag.clone();
        for (i, c) in m.couplings.iter().enumerate() {
            let k = m.factors[c.factor].cols;
            let blocks = &inv.pairs[m.pairs.len() + i];
            let out = &mut out[c.factor];
            for (z, d) in out.chunks_exact_mut(k * k).zip(&c.diag) {
                z.iter_mut().for_each(|z| *z *= d);
            }
            for (l, w) in c.pair.start.windows(2).enumerate() {
                for e in w[0] as usize..w[1] as usize {
                    let (o, v) = (c.pair.level[e] as usize, c.pair.value[e]);
                    for t in 0..k * k {
                        let z = 0.5 * v * (blocks[e * k * k + t] + blocks[e * k * k + (t % k) * k + t / k]);
                        out[l * k * k + t] += z;
                        out[o * k * k + t] += z;
                    }
                }
            }
        }
        Cow::Owned(out)
    }

    /// u of the same random effects under another, invertible factor: Lambda^-1 Lambda_0 u_0. Factors of one covariance
    /// differ by a rotation, and densities without a single mode must not be left for another mode by it.
    pub fn carried(&self, (from, u): (&[Vec<f64>], &[f64]), lambda: &[Vec<f64>]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let [new, old] = [lambda, from].map(|l| patterns::regular(m, &self.patterns, l));
        let mut out = vec![0.0; u.len()];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let turn = mul(&invert(&new[f], k), &old[f], k, false);
            for l in 0..factor.levels {
                let at = sym.at(f, l);
                for c in 0..k {
                    out[at + c] = (0..k).map(|s| turn[c + s * k] * u[at + s]).sum();
                }
            }
        }
        out
    }

    /// b = Lambda u by factor (levels x cols).
    pub fn effects(&self, lambda: &[Vec<f64>], u: &[f64]) -> Vec<Vec<f64>> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        m.factors
            .iter()
            .enumerate()
            .map(|(f, factor)| {
                let k = factor.cols;
                if k == 1 {
                    let rows = sym.first_rows(f, factor.levels);
                    return rows.iter().map(|&at| lambda[f][0] * u[at as usize]).collect();
                }
                let mut b = vec![0.0; factor.levels * k];
                for (l, b) in b.chunks_exact_mut(k).enumerate() {
                    let at = sym.at(f, l);
                    for c in 0..k {
                        let uc = u[at + c];
                        b.iter_mut().zip(&lambda[f][c * k..(c + 1) * k]).for_each(|(b, l)| *b += l * uc);
                    }
                }
                b
            })
            .collect()
    }

    /// Lambda'g in elimination order for g by factor (levels x cols).
    pub(super) fn project(&self, lambda: &[Vec<f64>], g: &[Vec<f64>]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let mut out = vec![0.0; sym.size];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            if k == 1 {
                let rows = sym.first_rows(f, factor.levels);
                rows.iter().zip(&g[f]).for_each(|(&at, g)| out[at as usize] = lambda[f][0] * g);
                continue;
            }
            for (l, g) in g[f].chunks_exact(k).enumerate() {
                let at = sym.at(f, l);
                for c in 0..k {
                    out[at + c] = lambda[f][c * k..(c + 1) * k].iter().zip(g).map(|(l, g)| l * g).sum();
                }
            }
        }
        out
    }

    /// Numbers in elimination order by factor (levels x cols).
    pub(super) fn by_factor(&self, u: &[f64]) -> Vec<Vec<f64>> {
        (0..self.moments().factors.len()).map(|f| self.by_level(f, u)).collect()
    }

    /// Entries of one factor (levels x cols) of a vector in elimination order.
    pub(super) fn by_level(&self, f: usize, u: &[f64]) -> Vec<f64> {
        let factor = &self.moments().factors[f];
        let (k, rows) = (factor.cols, self.lmm().symbolic.first_rows(f, factor.levels));
        if k == 1 {
            return rows.iter().map(|&at| u[at as usize]).collect();
        }
        let mut out = Vec::with_capacity(factor.levels * k);
        rows.iter().for_each(|&at| out.extend_from_slice(&u[at as usize..at as usize + k]));
        out
    }

    /// Add numbers by level (levels x cols) of one factor to a vector in elimination order.
    pub(super) fn add_levels(&self, f: usize, a: &[f64], out: &mut [f64]) {
        let (k, sym) = (self.moments().factors[f].cols, &self.lmm().symbolic);
        for (l, a) in a.chunks_exact(k).enumerate() {
            let at = sym.at(f, l);
            out[at..at + k].iter_mut().zip(a).for_each(|(o, a)| *o += a);
        }
    }
}
