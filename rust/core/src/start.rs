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
/// Models that take more work are visited once, others twice (with better shrinkage).
const LARGE: usize = 100_000;
/// Pairs of terms with more columns than this (product) are taken as unrelated; wider terms start from `psi` = I.
const WIDEST: usize = 64;

/// Sums of products of blocks with at least so many entries are formed for so many levels at once.
const BLOCKED: usize = 9;
const BATCH: usize = 64;

/// Relative factors of every grouping factor, in internal coordinates.
pub fn start(m: &Moments) -> Vec<Vec<f64>> {
    let scale: Vec<Vec<f64>> = m.factors.iter().zip(units(m)).map(|(f, u)| inverse_units(f, &u)).collect();
    let mut psi: Vec<Vec<f64>> = m.factors.iter().map(|f| identity(f.cols)).collect();
    if m.factors.iter().all(|f| f.cols * f.cols <= 4 * WIDEST) && !m.factors.is_empty() {
        let sums = Sums::new(m, &scale);
        for _ in 0..if work(m) > LARGE { 1 } else { 2 } {
            match sums.solve(&psi) {
                Some(next) => psi = next,
                None => break,
            }
        }
    }
    scale.iter().zip(&psi).zip(&m.factors).map(|((t, p), f)| times_root(t, p, f)).collect()
}

/// Multiplications of one visit, roughly.
fn work(m: &Moments) -> usize {
    let own: usize = m.factors.iter().map(|f| f.levels * f.cols.pow(4)).sum();
    own + m.pairs.iter().map(|p| p.value.len()).sum::<usize>()
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

/// C = A (n x s) times B (s x m), column-major.
#[inline(always)]
fn multiply(c: &mut [f64], a: &[f64], b: &[f64], n: usize, s: usize, m: usize) {
    c[..n * m].fill(0.0);
    for j in 0..m {
        for t in 0..s {
            let v = b[t + j * s];
            for i in 0..n {
                c[i + j * n] += a[i + t * n] * v;
            }
        }
    }
}

/// C = A' (n x s, A being s x n) times B (s x m), column-major.
#[inline(always)]
fn multiply_t(c: &mut [f64], a: &[f64], b: &[f64], n: usize, s: usize, m: usize) {
    for j in 0..m {
        for i in 0..n {
            c[i + j * n] = dot(&a[i * s..(i + 1) * s], &b[j * s..(j + 1) * s]);
        }
    }
}

fn product(a: &[f64], b: &[f64], n: usize, s: usize, m: usize) -> Vec<f64> {
    let mut c = vec![0.0; n * m];
    multiply(&mut c, a, b, n, s, m);
    c
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

impl Levels {
    fn new(f: &Factor, t: &[f64], beta: &[f64], basis: &[f64], d: usize) -> Self {
        let (k, p) = (f.cols, beta.len());
        let mut out = Levels {
            k,
            sum: vec![0.0; f.levels * k],
            gram: vec![0.0; f.levels * k * k],
            fixed: vec![0.0; f.levels * k * d],
        };
        let (mut raw, mut half) = (vec![0.0; k * (d + 1)], vec![0.0; k * k]);
        for (l, (g, zx)) in f.gram.chunks_exact(k * k).zip(f.zx.chunks_exact(k * (p + 1))).enumerate() {
            for (a, row) in zx.chunks_exact(p + 1).enumerate() {
                raw[a] = row[p] - dot(&row[..p], beta);
                for (c, b) in basis.chunks_exact(p.max(1)).enumerate() {
                    raw[a + (c + 1) * k] = dot(&row[..p], b);
                }
            }
            multiply_t(&mut out.sum[l * k..(l + 1) * k], t, &raw[..k], k, k, 1);
            multiply_t(&mut out.fixed[l * k * d..(l + 1) * k * d], t, &raw[k..], k, k, d);
            multiply(&mut half, g, t, k, k, k);
            multiply_t(&mut out.gram[l * k * k..(l + 1) * k * k], t, &half, k, k, k);
        }
        out
    }

    fn fixed(&self, l: usize, d: usize) -> &[f64] {
        &self.fixed[l * self.k * d..(l + 1) * self.k * d]
    }
}

/// C <- C + A B' for column-major A and B of `n` rows.
fn add_products(c: &mut [f64], a: &[f64], b: &[f64], n: usize) {
    dense::gemm_nt(c, n, a, n, b, n, n, n, a.len().checked_div(n).unwrap_or(0), 1.0);
}

/// sum W C_lm (x) W (C_lm - 2 D_l D_m') over levels: (kf kg)^2 numbers, entry ((r, s), (r', s')).
struct Kronecker {
    sum: Vec<f64>,
    rows: usize,
    columns: usize,
    back: Vec<f64>,
    wd: Vec<f64>,
    wc: Vec<f64>,
    /// Both sides of pairs of levels that are not in the sum yet.
    waiting: (Vec<f64>, Vec<f64>),
}

impl Kronecker {
    fn new(rows: usize, columns: usize, d: usize) -> Self {
        let size = rows * columns;
        Kronecker {
            sum: vec![0.0; size * size],
            rows,
            columns,
            back: vec![0.0; size],
            wd: vec![0.0; rows * d],
            wc: vec![0.0; size],
            waiting: (vec![], vec![]),
        }
    }

    /// One pair of levels: weight W, block C (n x m), and D of both.
    #[inline(always)]
    fn add(&mut self, (n, m): (usize, usize), w: &[f64], c: &[f64], dl: &[f64], dm: &[f64]) {
        let d = self.wd.len() / n;
        multiply(&mut self.wc, w, c, n, n, m);
        multiply(&mut self.wd, w, dl, n, n, d);
        self.back.copy_from_slice(&self.wc);
        for t in 0..d {
            for j in 0..m {
                for i in 0..n {
                    self.back[i + j * n] -= 2.0 * self.wd[i + t * n] * dm[j + t * m];
                }
            }
        }
        if n * m < BLOCKED {
            for (out, x) in self.sum.chunks_exact_mut(n * m).zip(&self.wc) {
                out.iter_mut().zip(&self.back).for_each(|(o, b)| *o += x * b);
            }
            return;
        }
        self.waiting.0.extend_from_slice(&self.back);
        self.waiting.1.extend_from_slice(&self.wc);
        if self.waiting.0.len() >= BATCH * n * m {
            self.settle();
        }
    }

    /// Add what waits to the sum; to be called before it is read.
    fn settle(&mut self) {
        let size = self.rows * self.columns;
        add_products(&mut self.sum, &self.waiting.0, &self.waiting.1, size);
        self.waiting.0.clear();
        self.waiting.1.clear();
    }

    /// tr(E_i S(E_j)) of a component of the rows' and one of the columns' factor.
    fn entry(&self, i: &Component, j: &Component) -> f64 {
        let (n, size) = (self.rows, self.rows * self.columns);
        let mut sum = 0.0;
        for (r, r2) in i.cells() {
            for (s, s2) in j.cells() {
                sum += self.sum[(r + s * n) * size + r2 + s2 * n];
            }
        }
        sum
    }
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
        let d = basis.len().checked_div(p).unwrap_or(0);
        let levels = m.factors.iter().zip(scale).map(|(f, t)| Levels::new(f, t, &beta, &basis, d)).collect();
        Sums { m, scale, components: components(m), levels, d, rss }
    }

    fn of(&self, f: usize) -> impl Iterator<Item = (usize, &Component)> {
        self.components.iter().enumerate().filter(move |(_, c)| c.factor == f)
    }

    /// Variance components over the residual variance, made positive definite; None where the data cannot tell.
    fn solve(&self, psi: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
        let weights: Vec<Vec<f64>> = self.levels.iter().zip(psi).map(|(l, p)| shrinkage(l, p)).collect();
        let c = self.components.len();
        let n = c + 1;
        let (mut a, mut b) = (vec![0.0; n * n], vec![0.0; n]);
        let directions: Vec<Vec<f64>> = self.levels.iter().map(|l| self.directions(l)).collect();
        let carried: Vec<Vec<f64>> = self.components.iter().map(|i| self.carried(i, &directions[i.factor])).collect();
        for (f, w) in weights.iter().enumerate() {
            self.own_moments(f, w, &carried, &mut a, &mut b);
        }
        for at in 0..self.m.pairs.len() {
            self.cross_moments(at, &weights, &mut a);
        }
        a[c + c * n] = self.m.total - self.m.p() as f64;
        b[c] = self.rss;
        let x = product(&invert(&a, n), &b, n, n, 1);
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

    /// Equations of one factor: its observed moments, and what itself, the noise and X contribute to them.
    fn own_moments(&self, f: usize, weights: &[f64], carried: &[Vec<f64>], a: &mut [f64], b: &mut [f64]) {
        let l = &self.levels[f];
        let (k, d, n) = (l.k, self.d, self.components.len() + 1);
        let k2 = k * k;
        let (mut seen, mut noise, mut free) = (vec![0.0; k2], vec![0.0; k2], vec![0.0; k2]);
        let (mut h, mut wr, mut rest) = (vec![0.0; k], vec![0.0; k2], vec![0.0; k2]);
        let mut own = Kronecker::new(k, k, d);
        let (mut fixed, mut directions) = (vec![0.0; k2 * d * d], vec![]);
        for (i, w) in weights.chunks_exact(k2).enumerate() {
            let (g, dl) = (&l.gram[i * k2..(i + 1) * k2], l.fixed(i, d));
            own.add((k, k), w, g, dl, dl);
            multiply(&mut h, w, &l.sum[i * k..(i + 1) * k], k, k, 1);
            rest.copy_from_slice(g);
            add_gram(&mut rest, dl, k, d, -1.0);
            multiply(&mut wr, w, &rest, k, k, k);
            for j in 0..k {
                for i in 0..k {
                    let at = i + j * k;
                    seen[at] += h[i] * h[j];
                    free[at] += rest[at];
                }
            }
            for t in 0..k {
                for j in 0..k {
                    let v = w[j + t * k];
                    noise[j * k..(j + 1) * k].iter_mut().zip(&wr[t * k..]).for_each(|(o, x)| *o += x * v);
                }
            }
            directions.extend_from_slice(&own.wd);
            if directions.len() >= BATCH * k * d {
                add_products(&mut fixed, &directions, &directions, k * d);
                directions.clear();
            }
        }
        add_products(&mut fixed, &directions, &directions, k * d);
        own.settle();
        for (i, ci) in self.of(f) {
            for (j, cj) in self.of(f) {
                a[i + j * n] += own.entry(ci, cj);
            }
            for (j, kj) in carried.iter().enumerate() {
                for (r, r2) in ci.cells() {
                    for t in 0..d * d {
                        a[i + j * n] += kj[t] * fixed[(r + (t % d) * k) * k * d + r2 + (t / d) * k];
                    }
                }
            }
            for (r, r2) in ci.cells() {
                a[i + (n - 1) * n] += noise[r + r2 * k];
                b[i] += seen[r + r2 * k];
                a[n - 1 + i * n] += free[r + r2 * k];
            }
        }
    }

    /// K_j = sum_m D_m' E_j D_m (d x d): what the projection off X carries from the levels of a component to all others.
    fn carried(&self, c: &Component, directions: &[f64]) -> Vec<f64> {
        let (k, d) = (self.levels[c.factor].k, self.d);
        let mut out = vec![0.0; d * d];
        for (r, s) in c.cells() {
            for b in 0..d {
                for a in 0..d {
                    out[a + b * d] += directions[r + a * k + (s + b * k) * k * d];
                }
            }
        }
        out
    }

    /// sum_m D_m (x) D_m of all pairs of entries of a factor, (k d) x (k d).
    fn directions(&self, l: &Levels) -> Vec<f64> {
        let n = l.k * self.d;
        let mut out = vec![0.0; n * n];
        add_products(&mut out, &l.fixed, &l.fixed, n);
        out
    }

    /// What each of two factors contributes to the moments of the other through the rows they share.
    fn cross_moments(&self, at: usize, weights: &[Vec<f64>], a: &mut [f64]) {
        let pair = &self.m.pairs[at];
        let (lead, other) = (pair.lead, pair.other);
        let (kl, ko) = (self.levels[lead].k, self.levels[other].k);
        let (down, up) = if kl == 1 && ko == 1 {
            self.scalar_moments(at, weights)
        } else if kl * ko <= WIDEST {
            self.block_moments(at, weights)
        } else {
            return;
        };
        let n = self.components.len() + 1;
        for (i, ci) in self.of(lead) {
            for (j, cj) in self.of(other) {
                a[i + j * n] += down.entry(ci, cj);
                a[j + i * n] += up.entry(cj, ci);
            }
        }
    }

    fn block_moments(&self, at: usize, weights: &[Vec<f64>]) -> (Kronecker, Kronecker) {
        let pair = &self.m.pairs[at];
        // Sizes that the compiler knows are unrolled.
        match (self.levels[pair.lead].k, self.levels[pair.other].k) {
            (1, 2) => self.moments_of_blocks((1, 2), at, weights),
            (2, 1) => self.moments_of_blocks((2, 1), at, weights),
            (2, 2) => self.moments_of_blocks((2, 2), at, weights),
            (3, 3) => self.moments_of_blocks((3, 3), at, weights),
            (4, 4) => self.moments_of_blocks((4, 4), at, weights),
            sizes => self.moments_of_blocks(sizes, at, weights),
        }
    }

    #[inline(always)]
    fn moments_of_blocks(&self, (kl, ko): (usize, usize), at: usize, weights: &[Vec<f64>]) -> (Kronecker, Kronecker) {
        let pair = &self.m.pairs[at];
        let (lead, other, d) = (pair.lead, pair.other, self.d);
        let (mut down, mut up) = (Kronecker::new(kl, ko, d), Kronecker::new(ko, kl, d));
        let (mut half, mut v, mut vt) = (vec![0.0; kl * ko], vec![0.0; kl * ko], vec![0.0; kl * ko]);
        for l in 0..pair.start.len() - 1 {
            for e in pair.start[l] as usize..pair.start[l + 1] as usize {
                let o = pair.level[e] as usize;
                multiply(&mut half, &pair.value[e * kl * ko..(e + 1) * kl * ko], &self.scale[other], kl, ko, ko);
                multiply_t(&mut v, &self.scale[lead], &half, kl, kl, ko);
                (0..kl * ko).for_each(|t| vt[t / kl + (t % kl) * ko] = v[t]);
                let (dl, dm) = (self.levels[lead].fixed(l, d), self.levels[other].fixed(o, d));
                down.add((kl, ko), &weights[lead][l * kl * kl..(l + 1) * kl * kl], &v, dl, dm);
                up.add((ko, kl), &weights[other][o * ko * ko..(o + 1) * ko * ko], &vt, dm, dl);
            }
        }
        down.settle();
        up.settle();
        (down, up)
    }

    /// The same for two factors of one column each.
    fn scalar_moments(&self, at: usize, weights: &[Vec<f64>]) -> (Kronecker, Kronecker) {
        let pair = &self.m.pairs[at];
        let (lead, other, d) = (pair.lead, pair.other, self.d);
        let scale = self.scale[lead][0] * self.scale[other][0];
        let (mut down, mut up) = (Kronecker::new(1, 1, d), Kronecker::new(1, 1, d));
        for (l, w) in weights[lead].iter().enumerate() {
            let dl = self.levels[lead].fixed(l, d);
            let mut sum = 0.0;
            for e in pair.start[l] as usize..pair.start[l + 1] as usize {
                let o = pair.level[e] as usize;
                let v = scale * pair.value[e];
                let t = v * (v - 2.0 * dot(dl, self.levels[other].fixed(o, d)));
                sum += t;
                up.sum[0] += weights[other][o] * weights[other][o] * t;
            }
            down.sum[0] += w * w * sum;
        }
        (down, up)
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
    let mut v = vec![0.0; k * k];
    for g in l.gram.chunks_exact(k * k) {
        if k == 1 {
            out.push(1.0 / (1.0 + g[0] * psi[0]));
            continue;
        }
        multiply(&mut v, g, psi, k, k, k);
        (0..k).for_each(|a| v[a + a * k] += 1.0);
        if k == 2 {
            let det = v[0] * v[3] - v[1] * v[2];
            out.extend([v[3] / det, -v[1] / det, -v[2] / det, v[0] / det]);
        } else {
            out.extend(invert(&v, k));
        }
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
    if norm2 > 0.0 {
        one.iter().map(|v| v / norm2.sqrt()).collect()
    } else {
        vec![]
    }
}
