//! Start values from moments of the rows: no factorisation is spent on them.
//!
//! Henderson's method on shrunken sums. With r the residuals of ordinary least squares (r = M y) and W_l the shrinkage
//! that a level would have if its factor were alone, h_l = W_l Z_l' r has a second moment that is linear in the
//! variance components; equating sum_l h_l h_l' and r'r to their expectations gives a small linear system (MIVQUE0 of
//! Rao 1971 is W = I, which wastes unbalanced data). All of it is read off the cross-products, one visit to each.

use crate::dense;
use crate::design::{Factor, Moments};
use crate::linear::{components, dot, Component};
use crate::optimise::{invert, units};

/// Dimensionless variances (1: as much signal as noise in a mean level) that a start value is kept between.
const LEAST: f64 = 1e-2;
const MOST: f64 = 1e8;
/// Fixed effects beyond the constant are taken out of the expectations up to this many columns.
const PROJECTED: usize = 12;
/// Models with more numbers in their cross-products are visited once, others twice (with better shrinkage).
const LARGE: usize = 1_000_000;

/// Relative factors of every grouping factor, in internal coordinates.
pub fn start(m: &Moments) -> Vec<Vec<f64>> {
    let scale: Vec<Vec<f64>> = m.factors.iter().zip(units(m)).map(|(f, u)| inverse_units(f, &u)).collect();
    let mut psi: Vec<Vec<f64>> = m.factors.iter().map(|f| identity(f.cols)).collect();
    if !m.factors.is_empty() {
        let sums = Sums::new(m, &scale);
        let size: usize = m.pairs.iter().map(|p| p.value.len()).sum();
        for _ in 0..if size > LARGE { 1 } else { 2 } {
            match sums.and_then_solve(&psi) {
                Some(next) => psi = next,
                None => break,
            }
        }
    }
    scale.iter().zip(&psi).zip(&m.factors).map(|((t, p), f)| times_root(t, p, f)).collect()
}

fn identity(k: usize) -> Vec<f64> {
    (0..k * k).map(|i| if i % (k + 1) == 0 { 1.0 } else { 0.0 }).collect()
}

/// Block-diagonal C^-T of a factor: columns in which a mean level has information I.
fn inverse_units(f: &Factor, units: &[Vec<f64>]) -> Vec<f64> {
    let mut out = vec![0.0; f.cols * f.cols];
    for (slot, u) in f.slots.iter().zip(units) {
        let k = slot.cols;
        let mut x = identity(k);
        dense::solve_left_lt(u, k, k, &mut x, k, k);
        for b in 0..k {
            for a in 0..k {
                out[slot.offset + a + (slot.offset + b) * f.cols] = x[a + b * k];
            }
        }
    }
    out
}

/// Scale times the Cholesky factor of psi, slot by slot.
fn times_root(scale: &[f64], psi: &[f64], f: &Factor) -> Vec<f64> {
    let k = f.cols;
    let mut root = vec![0.0; k * k];
    for slot in &f.slots {
        let (o, n) = (slot.offset, slot.cols);
        let mut block: Vec<f64> = (0..n * n).map(|t| psi[o + t % n + (o + t / n) * k]).collect();
        if dense::small_cholesky(&mut block, n, n).is_err() {
            block = identity(n);
        }
        for b in 0..n {
            for a in b..n {
                root[o + a + (o + b) * k] = block[a + b * n];
            }
        }
    }
    product(scale, &root, k, k, k)
}

/// A (n x s) times B (s x m), column-major.
fn product(a: &[f64], b: &[f64], n: usize, s: usize, m: usize) -> Vec<f64> {
    let mut c = vec![0.0; n * m];
    add_product(&mut c, a, b, n, s, m);
    c
}

fn add_product(c: &mut [f64], a: &[f64], b: &[f64], n: usize, s: usize, m: usize) {
    for j in 0..m {
        for t in 0..s {
            let v = b[t + j * s];
            for i in 0..n {
                c[i + j * n] += a[i + t * n] * v;
            }
        }
    }
}

fn transpose(a: &[f64], n: usize, m: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * m];
    for j in 0..m {
        for i in 0..n {
            out[j + i * m] = a[i + j * n];
        }
    }
    out
}

/// What a factor's levels hold, in dimensionless columns.
struct Levels {
    k: usize,
    /// Z_l' r, k a level.
    sum: Vec<f64>,
    /// Z_l'WZ_l, k x k a level.
    gram: Vec<f64>,
    /// Z_l'X B with B'X'XB = I, k x d a level.
    fixed: Vec<f64>,
}

struct Sums<'a> {
    m: &'a Moments,
    scale: &'a [Vec<f64>],
    components: Vec<Component>,
    levels: Vec<Levels>,
    /// Fixed directions in `Levels::fixed`.
    d: usize,
    /// Residual sum of squares.
    rss: f64,
}

impl<'a> Sums<'a> {
    fn new(m: &'a Moments, scale: &'a [Vec<f64>]) -> Self {
        let p = m.p();
        let (beta, rss, lx) = least_squares(m);
        let basis = basis(m, &lx);
        let d = if p == 0 { 0 } else { basis.len() / p };
        let levels = m
            .factors
            .iter()
            .zip(scale)
            .map(|(f, t)| {
                let (k, p1) = (f.cols, p + 1);
                let mut out = Levels { k, sum: vec![], gram: vec![], fixed: vec![] };
                for (g, zx) in f.gram.chunks_exact(k * k).zip(f.zx.chunks_exact(k * p1)) {
                    let raw: Vec<f64> = zx.chunks_exact(p1).map(|r| r[p] - dot(&r[..p], &beta)).collect();
                    let mut fixed = vec![0.0; k * d];
                    for (a, row) in zx.chunks_exact(p1).enumerate() {
                        for (c, b) in basis.chunks_exact(p.max(1)).enumerate() {
                            fixed[a + c * k] = dot(&row[..p], b);
                        }
                    }
                    let tt = transpose(t, k, k);
                    out.sum.extend(product(&tt, &raw, k, k, 1));
                    out.gram.extend(product(&tt, &product(g, t, k, k, k), k, k, k));
                    out.fixed.extend(product(&tt, &fixed, k, k, d));
                }
                out
            })
            .collect();
        Sums { m, scale, components: components(m), levels, d, rss }
    }

    /// Variance components over the residual variance, made positive definite; None where the data cannot tell.
    fn and_then_solve(&self, psi: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
        let weights: Vec<Vec<f64>> = self.levels.iter().zip(psi).map(|(l, p)| shrinkage(l, p)).collect();
        let c = self.components.len();
        let n = c + 1;
        let (mut a, mut b) = (vec![0.0; n * n], vec![0.0; n]);
        for (f, w) in weights.iter().enumerate() {
            self.own_moments(f, w, &mut a, &mut b);
        }
        for (at, pair) in self.m.pairs.iter().enumerate() {
            self.cross_moments(at, (pair.lead, pair.other), &weights, &mut a);
        }
        a[c + c * n] = (self.m.n - self.m.p()) as f64;
        b[c] = self.rss;
        let inverse = invert(&a, n);
        let x = product(&inverse, &b, n, n, 1);
        if x.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let sigma2 = x[c].max(1e-3 * self.rss / a[c + c * n]);
        Some(self.m.factors.iter().enumerate().map(|(f, factor)| self.covariance(f, factor, &x, sigma2)).collect())
    }

    fn covariance(&self, f: usize, factor: &Factor, x: &[f64], sigma2: f64) -> Vec<f64> {
        let k = factor.cols;
        let mut out = vec![0.0; k * k];
        for (s, slot) in factor.slots.iter().enumerate() {
            let n = slot.cols;
            let mut block = vec![0.0; n * n];
            for (c, v) in self.components.iter().zip(x).filter(|(c, _)| c.factor == f && c.slot == s) {
                let (i, j) = (c.row - slot.offset, c.col - slot.offset);
                block[i + j * n] = v / sigma2;
                block[j + i * n] = v / sigma2;
            }
            let (w, v) = dense::eigen_symmetric(&block, n);
            for b in 0..n {
                for a in 0..n {
                    out[slot.offset + a + (slot.offset + b) * k] =
                        (0..n).map(|t| v[a + t * n] * w[t].clamp(LEAST, MOST) * v[b + t * n]).sum();
                }
            }
        }
        out
    }

    /// Equations of one factor: its observed moments, and what itself and the noise contribute to them.
    fn own_moments(&self, f: usize, weights: &[f64], a: &mut [f64], b: &mut [f64]) {
        let l = &self.levels[f];
        let (k, d, c) = (l.k, self.d, self.components.len());
        let outer = self.fixed_products(f);
        let mut seen = vec![0.0; k * k];
        let mut noise = vec![0.0; k * k];
        let mut free = vec![0.0; k * k];
        for (i, w) in weights.chunks_exact(k * k).enumerate() {
            let h = product(w, &l.sum[i * k..(i + 1) * k], k, k, 1);
            add_outer(&mut seen, &h, &h, k);
            let (g, fixed) = (&l.gram[i * k * k..(i + 1) * k * k], &l.fixed[i * k * d..(i + 1) * k * d]);
            let mut rest = g.to_vec();
            add_gram(&mut rest, fixed, k, d, -1.0);
            free.iter_mut().zip(&rest).for_each(|(o, v)| *o += v);
            let wg = product(w, g, k, k, k);
            let wr = product(w, &rest, k, k, k);
            add_product(&mut noise, &wr, &transpose(w, k, k), k, k, k);
            let wd = product(w, fixed, k, k, d);
            // W (G - D D_l') E (G - D D_l')' W' for the level itself, and K for all others.
            let back = product(fixed, &transpose(&wd, k, d), k, d, k);
            for (j, cj) in self.components.iter().enumerate().filter(|(_, x)| x.factor == f) {
                let mut e = vec![0.0; k * k];
                add_component(&mut e, &wg, &transpose(&wg, k, k), cj, k, k, 1.0);
                add_component(&mut e, &wg, &back, cj, k, k, -1.0);
                add_component(&mut e, &transpose(&back, k, k), &transpose(&wg, k, k), cj, k, k, -1.0);
                self.book(f, &e, &mut a[j * (c + 1)..]);
            }
            self.add_fixed(f, &wd, k, &outer, a);
        }
        self.book(f, &noise, &mut a[c * (c + 1)..]);
        self.book(f, &seen, b);
        for (j, cj) in self.components.iter().enumerate().filter(|(_, x)| x.factor == f) {
            let v = free[cj.row + cj.col * k];
            a[c + j * (c + 1)] = if cj.row == cj.col { v } else { 2.0 * v };
        }
    }

    /// W D K_j D'W' of a level for the components of one or all factors (K_j = sum_m D_m' E_j D_m).
    fn add_fixed(&self, f: usize, wd: &[f64], k: usize, own: &[Vec<f64>], a: &mut [f64]) {
        let c = self.components.len();
        for (j, kj) in own.iter().enumerate().filter(|(_, v)| !v.is_empty()) {
            let t = product(wd, kj, k, self.d, self.d);
            let e = product(&t, &transpose(wd, k, self.d), k, self.d, k);
            self.book(f, &e, &mut a[j * (c + 1)..]);
        }
    }

    /// K_j of every component (d x d): what the projection off X carries from all levels to each.
    fn fixed_products(&self, _f: usize) -> Vec<Vec<f64>> {
        let d = self.d;
        self.components
            .iter()
            .map(|c| {
                let l = &self.levels[c.factor];
                let mut out = vec![0.0; d * d];
                for x in l.fixed.chunks_exact((l.k * d).max(1)) {
                    for b in 0..d {
                        for a in 0..d {
                            out[a + b * d] += x[c.row + a * l.k] * x[c.col + b * l.k];
                            if c.row != c.col {
                                out[a + b * d] += x[c.col + a * l.k] * x[c.row + b * l.k];
                            }
                        }
                    }
                }
                out
            })
            .collect()
    }

    /// What each of two factors contributes to the moments of the other through the rows they share.
    fn cross_moments(&self, at: usize, (lead, other): (usize, usize), weights: &[Vec<f64>], a: &mut [f64]) {
        let pair = &self.m.pairs[at];
        let (kl, ko, d) = (self.levels[lead].k, self.levels[other].k, self.d);
        let tl = transpose(&self.scale[lead], kl, kl);
        for l in 0..pair.start.len() - 1 {
            for e in pair.start[l] as usize..pair.start[l + 1] as usize {
                let o = pair.level[e] as usize;
                let raw = &pair.value[e * kl * ko..(e + 1) * kl * ko];
                let dl = &self.levels[lead].fixed[l * kl * d..(l + 1) * kl * d];
                let dz = &self.levels[other].fixed[o * ko * d..(o + 1) * ko * d];
                let (wl, wo) = (&weights[lead][l * kl * kl..][..kl * kl], &weights[other][o * ko * ko..][..ko * ko]);
                if kl == 1 && ko == 1 {
                    let v = raw[0] * self.scale[lead][0] * self.scale[other][0];
                    let e = v * v - 2.0 * v * dot(dl, dz);
                    self.add_scalar(lead, other, wl[0] * wl[0] * e, a);
                    self.add_scalar(other, lead, wo[0] * wo[0] * e, a);
                    continue;
                }
                let v = product(&tl, &product(raw, &self.scale[other], kl, ko, ko), kl, kl, ko);
                self.add_block(lead, other, &product(wl, &v, kl, kl, ko), &product(wl, dl, kl, kl, d), dz, a);
                let vt = transpose(&v, kl, ko);
                self.add_block(other, lead, &product(wo, &vt, ko, ko, kl), &product(wo, dz, ko, ko, d), dl, a);
            }
        }
    }

    fn add_scalar(&self, f: usize, g: usize, e: f64, a: &mut [f64]) {
        let c = self.components.len();
        let find = |f: usize| self.components.iter().position(|x| x.factor == f);
        if let (Some(i), Some(j)) = (find(f), find(g)) {
            a[i + j * (c + 1)] += e;
        }
    }

    /// C E C' - C E D_g D_f'... for WC (kf x kg), W D_f (kf x d) and D_g (kg x d).
    fn add_block(&self, f: usize, g: usize, wc: &[f64], wd: &[f64], dg: &[f64], a: &mut [f64]) {
        let (kf, kg, c) = (self.levels[f].k, self.levels[g].k, self.components.len());
        let wct = transpose(wc, kf, kg);
        let back = product(dg, &transpose(wd, kf, self.d), kg, self.d, kf);
        let forth = transpose(&back, kg, kf);
        for (j, cj) in self.components.iter().enumerate().filter(|(_, x)| x.factor == g) {
            let mut e = vec![0.0; kf * kf];
            add_component(&mut e, wc, &wct, cj, kf, kg, 1.0);
            add_component(&mut e, wc, &back, cj, kf, kg, -1.0);
            add_component(&mut e, &forth, &wct, cj, kf, kg, -1.0);
            self.book(f, &e, &mut a[j * (c + 1)..]);
        }
    }

    /// tr(E_i S) of a factor's components, added to a column of the system.
    fn book(&self, f: usize, s: &[f64], column: &mut [f64]) {
        let k = self.levels[f].k;
        for (i, c) in self.components.iter().enumerate().filter(|(_, c)| c.factor == f) {
            column[i] += s[c.row + c.col * k] + if c.row == c.col { 0.0 } else { s[c.col + c.row * k] };
        }
    }
}

/// A E_c B for A (n x s) and B (s x n), times `sign`, added to out.
fn add_component(out: &mut [f64], a: &[f64], b: &[f64], c: &Component, n: usize, s: usize, sign: f64) {
    for j in 0..n {
        for i in 0..n {
            let mut v = a[i + c.row * n] * b[c.col + j * s];
            if c.row != c.col {
                v += a[i + c.col * n] * b[c.row + j * s];
            }
            out[i + j * n] += sign * v;
        }
    }
}

fn add_outer(out: &mut [f64], a: &[f64], b: &[f64], k: usize) {
    for j in 0..k {
        for i in 0..k {
            out[i + j * k] += a[i] * b[j];
        }
    }
}

/// out += sign D D'.
fn add_gram(out: &mut [f64], x: &[f64], k: usize, d: usize, sign: f64) {
    for c in 0..d {
        for j in 0..k {
            for i in 0..k {
                out[i + j * k] += sign * x[i + c * k] * x[j + c * k];
            }
        }
    }
}

/// W_l = (I + G_l psi)^-1 of every level.
fn shrinkage(l: &Levels, psi: &[f64]) -> Vec<f64> {
    let k = l.k;
    let mut out = Vec::with_capacity(l.gram.len());
    for g in l.gram.chunks_exact(k * k) {
        if k == 1 {
            out.push(1.0 / (1.0 + g[0] * psi[0]));
            continue;
        }
        let mut v = product(g, psi, k, k, k);
        (0..k).for_each(|a| v[a + a * k] += 1.0);
        out.extend(invert(&v, k));
    }
    out
}

/// Coefficients and residual sum of squares of ordinary least squares, and the Cholesky factor of X'WX.
fn least_squares(m: &Moments) -> (Vec<f64>, f64, Vec<f64>) {
    let p = m.p();
    let p1 = p + 1;
    let mut lx: Vec<f64> = (0..p * p).map(|t| m.xx[t % p + (t / p) * p1]).collect();
    let mut beta: Vec<f64> = (0..p).map(|j| m.xx[p + j * p1]).collect();
    if p > 0 && dense::cholesky(&mut lx, p, p).is_err() {
        return (vec![0.0; p], m.xx[p + p * p1], vec![]);
    }
    dense::solve_left_l(&lx, p, p, &mut beta, 1, p);
    let rss = m.xx[p + p * p1] - dot(&beta, &beta);
    dense::solve_left_lt(&lx, p, p, &mut beta, 1, p);
    (beta, rss.max(0.0), lx)
}

/// Columns B (p each) with B'X'XB = I: of all of X, or of its constant when X is wide.
fn basis(m: &Moments, lx: &[f64]) -> Vec<f64> {
    let p = m.p();
    if p == 0 || lx.is_empty() {
        return vec![];
    }
    if p <= PROJECTED {
        let mut b = identity(p);
        dense::solve_left_lt(lx, p, p, &mut b, p, p);
        return b;
    }
    let Some(carrier) = &m.carrier else {
        return vec![];
    };
    let one: Vec<f64> = m.kept.iter().map(|&j| carrier[j]).collect();
    let p1 = p + 1;
    let norm2: f64 = (0..p).map(|j| one[j] * (0..p).map(|i| m.xx[i + j * p1] * one[i]).sum::<f64>()).sum();
    one.iter().map(|v| v / norm2.sqrt()).collect()
}
