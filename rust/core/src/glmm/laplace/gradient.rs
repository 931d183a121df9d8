//! The exact gradient at a mode (see the head of `laplace`), with latent coefficients and loadings.

use crate::cholesky::SelectedInverse;
use crate::dense;
use crate::optimise::PLAIN;

use super::super::loadings;
use super::super::patterns;
use super::super::rows::{self, Covariance, GlmmRows, Restricted};
use super::{dot, Engine, Gradient, Point, Slope};

impl Engine {
    /// Exact gradient and the working curvature at a point whose factor is the current one.
    pub fn slope(&mut self, rows: &GlmmRows<'_>, at: &Point) -> Slope {
        let (gradient, inv) = self.first_order(rows, at);
        self.curvature(at, gradient, inv)
    }

    /// Exact gradient at a point whose factor is the current one.
    pub fn gradient(&mut self, rows: &GlmmRows<'_>, at: &Point) -> Gradient {
        self.first_order(rows, at).0
    }

    pub(super) fn first_order(&mut self, rows: &GlmmRows<'_>, at: &Point) -> (Gradient, SelectedInverse) {
        self.tilt.clear();
        let mut inv = self.lmm().numeric.selected_inverse_pairs(&self.lmm().symbolic, self.moments());
        if !self.latent.is_empty() {
            if let Some((beta, n, loading)) = self.joint_gradient(rows, at, &mut inv) {
                return (self.in_directions(at, beta, n, &loading), inv);
            }
        }
        if let Some(q) = &self.quadrature {
            if let Ok((beta, n)) = self.quadrature_gradient(rows, q, at) {
                return (self.in_directions(at, beta, n, &[]), inv);
            }
        }
        let cov = self.covariance(&at.lambda, &inv);
        let s = rows::skewness(&self.plan, self.moments(), rows, &cov, &self.d3);
        drop(cov);
        let p = self.plan.p();
        let mut v = self.project(&at.lambda, &s.z);
        self.solve(&mut v);
        let bv = self.effects(&at.lambda, &v);
        let mut beta = vec![0.0; p];
        for (f, factor) in self.moments().factors.iter().enumerate() {
            for (zx, v) in factor.zx.chunks_exact(p + 1).zip(&bv[f]) {
                beta.iter_mut().zip(zx).for_each(|(o, z)| *o -= z * v);
            }
        }
        for j in 0..p {
            beta[j] = 2.0 * (beta[j] + at.xg[j] + s.x[j]);
        }
        // B't = B'D1 + B's - B'D2Bv = -Q u + B's - (H - Q) v, and H v = B's.
        let bt = self.precision(&v.iter().zip(&at.u).map(|(v, u)| v - u).collect::<Vec<f64>>());
        let n = self.gradient_matrices(at, &bt, &v, &inv);
        let loading = self.loading_gradient(at, &s.z, (&v, &[]), self.loading_traces(&at.lambda, &inv));
        self.tilt = v;
        (self.in_directions(at, beta, n, &loading), inv)
    }

    /// The gradient along the directions of the search, with the penalty's.
    pub(super) fn in_directions(
        &self,
        at: &Point,
        mut beta: Vec<f64>,
        n: Vec<Vec<f64>>,
        loading: &[Vec<f64>],
    ) -> Gradient {
        let (lmm, related) = (self.lmm(), !self.moments().couplings.is_empty());
        beta.iter_mut().zip(&at.penalty.beta).for_each(|(b, v)| *b += v);
        let mut directions = patterns::directions(&lmm.moments, &self.patterns, &at.shape, &at.lambda);
        if !directions.is_empty() || (related && !lmm.components.is_empty()) {
            directions.extend(patterns::of_components(&lmm.moments, &lmm.components));
        }
        let mut free: Vec<f64> = if directions.is_empty() {
            lmm.components.iter().map(|i| crate::linear::entry(&n, &lmm.moments, i)).collect()
        } else {
            patterns::gradient(&lmm.moments, &n, loading, &directions)
        };
        free.iter_mut().zip(&at.penalty.shape).for_each(|(g, v)| *g += v);
        Gradient { beta, n, free, directions }
    }

    pub(super) fn gradient_matrices(&self, at: &Point, bt: &[f64], v: &[f64], inv: &SelectedInverse) -> Vec<Vec<f64>> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let (qu, whitened) = (self.precision(&at.u), self.whitened(inv));
        let mut out = vec![];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let mut n = vec![0.0; k * k];
            if k == 1 {
                for (&o, z) in sym.first_rows(f, factor.levels).iter().zip(whitened[f].iter()) {
                    let o = o as usize;
                    n[0] += bt[o] * at.u[o] + qu[o] * v[o] + 1.0 - z;
                }
                out.push(n);
                continue;
            }
            for l in 0..factor.levels {
                let o = sym.at(f, l);
                let z = &whitened[f][l * k * k..(l + 1) * k * k];
                for b in 0..k {
                    for a in 0..k {
                        let id = if a == b { 1.0 } else { 0.0 };
                        n[a + b * k] += bt[o + a] * at.u[o + b] + qu[o + a] * v[o + b] + id - z[a + b * k];
                    }
                }
            }
            let sym: Vec<f64> = (0..k * k).map(|t| 0.5 * (n[t] + n[(t % k) * k + t / k])).collect();
            out.push(sym);
        }
        out
    }

    /// Blocks of Lambda H^-1 Lambda'.
    pub(super) fn covariance(&self, lambda: &[Vec<f64>], inv: &SelectedInverse) -> Covariance {
        let m = self.moments();
        let diag = m
            .factors
            .iter()
            .enumerate()
            .map(|(f, factor)| congruence(&lambda[f], &lambda[f], &inv.diag[f], factor.cols, factor.cols))
            .collect();
        let pairs = m
            .pairs
            .iter()
            .zip(&inv.pairs)
            .map(|(p, z)| {
                congruence(&lambda[p.lead], &lambda[p.other], z, m.factors[p.lead].cols, m.factors[p.other].cols)
            })
            .collect();
        Covariance { diag, pairs, restricted: None }
    }

    /// Exact gradient where some coefficients are latent: the adjoint runs through the joint Hessian.
    pub(super) fn joint_gradient(
        &self,
        rows: &GlmmRows<'_>,
        at: &Point,
        inv: &mut SelectedInverse,
    ) -> Option<(Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>)> {
        let (f, lx) = self.joint_factor(&at.lambda).ok()?;
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let (p, r) = (self.plan.p(), self.latent.len());
        let mut cov = self.covariance(&at.lambda, inv);
        let mut traces = self.loading_traces(&at.lambda, inv);
        if self.restricted {
            let e = self.integrated(&f, &lx);
            self.restricted_traces(&at.lambda, &lx, &e, &mut traces);
            let mut by_level = vec![];
            for (g, factor) in m.factors.iter().enumerate() {
                let k = factor.cols;
                let mut out = vec![0.0; factor.levels * k * r];
                for l in 0..factor.levels {
                    let o = sym.at(g, l);
                    let z = &mut inv.diag[g][l * k * k..(l + 1) * k * k];
                    for a in 0..k {
                        for b in 0..k {
                            z[a + b * k] += dot(&e[(o + a) * r..(o + a + 1) * r], &e[(o + b) * r..(o + b + 1) * r]);
                            let l_ab = at.lambda[g][a + b * k];
                            let row = &e[(o + b) * r..(o + b + 1) * r];
                            out[(l * k + a) * r..(l * k + a + 1) * r]
                                .iter_mut()
                                .zip(row)
                                .for_each(|(o, e)| *o += l_ab * e);
                        }
                    }
                }
                by_level.push(out);
            }
            self.couple_fixed(&e, inv);
            let mut position = vec![None; p];
            self.latent.iter().enumerate().for_each(|(i, &j)| position[j] = Some(i));
            cov.restricted = Some(Restricted { position, lx: lx.clone(), by_level });
        }
        let s = rows::skewness(&self.plan, m, rows, &cov, &self.d3);
        drop(cov);
        let mut v = self.project(&at.lambda, &s.z);
        let mut vb: Vec<f64> = self.latent.iter().map(|&j| s.x[j]).collect();
        self.joint_solve(&f, &lx, &mut v, &mut vb);
        let bv = self.effects(&at.lambda, &v);
        let mut beta: Vec<f64> = (0..p).map(|j| at.xg[j] + s.x[j]).collect();
        for (f, factor) in m.factors.iter().enumerate() {
            for (zx, v) in factor.zx.chunks_exact(p + 1).zip(&bv[f]) {
                beta.iter_mut().zip(zx).for_each(|(o, z)| *o -= z * v);
            }
        }
        for (i, &j) in self.latent.iter().enumerate() {
            let column = &m.xx[j * (p + 1)..j * (p + 1) + p];
            beta.iter_mut().zip(column).for_each(|(o, x)| *o -= x * vb[i]);
        }
        beta.iter_mut().for_each(|b| *b *= 2.0);
        self.latent.iter().for_each(|&j| beta[j] = 0.0);
        let bt = self.precision(&v.iter().zip(&at.u).map(|(v, u)| v - u).collect::<Vec<f64>>());
        let loading = self.loading_gradient(at, &s.z, (&v, &vb), traces);
        Some((beta, self.gradient_matrices(at, &bt, &v, inv), loading))
    }

    /// Add E E' at the pairs of related levels (see `restricted_traces`).
    pub(super) fn couple_fixed(&self, e: &[f64], inv: &mut SelectedInverse) {
        let (m, sym, r) = (self.moments(), &self.lmm().symbolic, self.latent.len());
        for (i, c) in m.couplings.iter().enumerate() {
            let k = m.factors[c.factor].cols;
            let at = |l: usize| sym.at(c.factor, l);
            for (l, w) in c.pair.start.windows(2).enumerate() {
                for t in w[0] as usize..w[1] as usize {
                    let (one, two) = (at(l), at(c.pair.level[t] as usize));
                    let block = &mut inv.pairs[m.pairs.len() + i][t * k * k..(t + 1) * k * k];
                    for (s, z) in block.iter_mut().enumerate() {
                        let (a, b) = (one + s % k, two + s / k);
                        *z += dot(&e[a * r..(a + 1) * r], &e[b * r..(b + 1) * r]);
                    }
                }
            }
        }
    }

    /// sum_l (Z'D2Z Lambda H^-1)_ll of the factors with loadings.
    pub(super) fn loading_traces(&self, lambda: &[Vec<f64>], inv: &SelectedInverse) -> Vec<Vec<f64>> {
        let m = self.moments();
        let with = |f: usize| self.patterns.iter().any(|p| p.factor == f && p.pattern.is_loadings());
        (0..m.factors.len()).map(|f| if with(f) { loadings::traces(m, lambda, inv, f) } else { vec![] }).collect()
    }

    /// Integrated coefficients add E E' to H^-1 and -L_X^-T E' between coefficients and effects, E = H^-1 B'D2X L_X^-T.
    pub(super) fn restricted_traces(&self, lambda: &[Vec<f64>], lx: &[f64], e: &[f64], traces: &mut [Vec<f64>]) {
        if !self.has_loadings() {
            return;
        }
        let (m, r, p1) = (self.moments(), self.latent.len(), self.plan.p() + 1);
        // Rows of Z'D2X L_X^-T.
        let fixed: Vec<Vec<f64>> = m
            .factors
            .iter()
            .map(|f| {
                let mut w: Vec<f64> =
                    f.zx.chunks_exact(p1).flat_map(|row| self.latent.iter().map(|&j| row[j])).collect();
                dense::solve_left_l(lx, r, r, &mut w, f.levels * f.cols, r);
                w
            })
            .collect();
        for j in 0..r {
            let column: Vec<f64> = e.iter().skip(j).step_by(r).copied().collect();
            let image = loadings::multiply(m, &self.effects(lambda, &column));
            let by_level = self.by_factor(&column);
            for (f, t) in traces.iter_mut().enumerate().filter(|(_, t)| !t.is_empty()) {
                let a: Vec<f64> = image[f].iter().zip(fixed[f].iter().skip(j).step_by(r)).map(|(y, x)| y - x).collect();
                loadings::outer(&a, &by_level[f], m.factors[f].cols, 1.0, t);
            }
        }
    }

    /// d (deviance / 2) / d Lambda of the factors with loadings (see the head of `loadings`); `sz` = Z's, `vb` the part
    /// of latent coefficients in v.
    pub(super) fn loading_gradient(
        &self,
        at: &Point,
        sz: &[Vec<f64>],
        (v, vb): (&[f64], &[f64]),
        mut traces: Vec<Vec<f64>>,
    ) -> Vec<Vec<f64>> {
        if !self.has_loadings() {
            return traces;
        }
        let (m, p1) = (self.moments(), self.plan.p() + 1);
        let moved = loadings::multiply(m, &self.effects(&at.lambda, v));
        let (u, v) = (self.by_factor(&at.u), self.by_factor(v));
        for (f, out) in traces.iter_mut().enumerate().filter(|(_, t)| !t.is_empty()) {
            let (factor, zg) = (&m.factors[f], &self.zg[f]);
            let t: Vec<f64> = factor
                .zx
                .chunks_exact(p1)
                .enumerate()
                .map(|(i, zx)| {
                    let fixed: f64 = self.latent.iter().zip(vb).map(|(&j, v)| zx[j] * v).sum();
                    zg[i] + sz[f][i] - moved[f][i] - fixed
                })
                .collect();
            loadings::outer(&t, &u[f], factor.cols, 1.0, out);
            loadings::outer(zg, &v[f], factor.cols, -1.0, out);
        }
        traces
    }
}

/// A Z B' for every block.
pub(super) fn congruence(a: &[f64], b: &[f64], z: &[f64], ka: usize, kb: usize) -> Vec<f64> {
    if ka == 1 && kb == 1 {
        let s = a[0] * b[0];
        return z.iter().map(|z| s * z).collect();
    }
    let mut out = vec![0.0; z.len()];
    let mut half = vec![0.0; ka * kb];
    for (o, z) in out.chunks_exact_mut(ka * kb).zip(z.chunks_exact(ka * kb)) {
        if ka * kb > PLAIN * PLAIN {
            half.fill(0.0);
            dense::gemm(&mut half, ka, a, ka, z, ka, ka, kb, ka, 1.0);
            dense::gemm_nt(o, ka, &half, ka, b, kb, ka, kb, kb, 1.0);
            continue;
        }
        for j in 0..kb {
            for i in 0..ka {
                half[i + j * ka] = (0..ka).map(|t| a[i + t * ka] * z[t + j * ka]).sum();
            }
        }
        for j in 0..kb {
            for i in 0..ka {
                o[i + j * ka] = (0..kb).map(|t| half[i + t * ka] * b[j + t * kb]).sum();
            }
        }
    }
    out
}
