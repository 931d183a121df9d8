//! The one optimiser: Newton steps on the variance scale, taken so that every covariance stays positive semidefinite.
//!
//! At Lambda the deviance is a function of Sigma* = I + delta. Its quadratic model (gradient N, curvature between the
//! average and the expected information far away, the observed information near the optimum) is minimised over
//! delta = L L' - I, so a zero variance is an ordinary point that a single step can reach or leave. Directions whose
//! variance is negligible rest on a floor that is far below anything the data can see; when the search has ended they
//! are set to exactly zero and reported as the boundary. A direction on the floor whose gradient points inwards leaves
//! it by itself: on the variance scale a boundary saddle has a slope.

use crate::dense;
use crate::design::{Moments, Structure};
use crate::linear::{dot, Component, Lmm, Slope, Solution};
use crate::CoreError;

/// Smallest standard deviation relative to the noise of one level's information (deviance error below q 1e-8).
const FLOOR: f64 = 1e-4;
/// Anything below this multiple of the floor is put on it.
const SNAP: f64 = 1.5;

#[derive(Clone, Debug)]
pub struct Options {
    /// Stop when the predicted change of the deviance is below this.
    pub tolerance: f64,
    pub max_evaluations: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { tolerance: 1e-9, max_evaluations: 200 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Converged,
    MaxEvaluations,
    Stalled,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Converged => "converged",
            Outcome::MaxEvaluations => "max_evaluations",
            Outcome::Stalled => "stalled",
        }
    }
}

/// A covariance that is not of full rank at the optimum.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    pub term: usize,
    pub rank: usize,
    /// Change of the deviance per unit of (dimensionless) variance in each zero direction: positive at an optimum.
    pub multipliers: Vec<f64>,
}

pub struct Optimum {
    pub lambda: Vec<Vec<f64>>,
    pub solution: Solution,
    pub outcome: Outcome,
    pub iterations: usize,
    pub evaluations: usize,
    /// Predicted change of the deviance at the end.
    pub decrease: f64,
    /// Smallest eigenvalue of the observed information relative to the average information, free directions only.
    pub curvature: f64,
    pub boundary: Vec<Boundary>,
    /// d deviance / d Sigma (relative, internal coordinates) of every factor at the end.
    pub sigma_gradient: Vec<Vec<f64>>,
}

/// Cholesky factor of the mean information matrix of one level, per slot: it makes Lambda dimensionless.
pub fn units(m: &Moments) -> Vec<Vec<Vec<f64>>> {
    m.factors
        .iter()
        .map(|f| {
            f.slots
                .iter()
                .map(|s| {
                    let k = s.cols;
                    let mut c = vec![0.0; k * k];
                    for g in f.gram.chunks_exact(f.cols * f.cols) {
                        for b in 0..k {
                            for a in 0..k {
                                c[a + b * k] += g[s.offset + a + (s.offset + b) * f.cols] / f.levels as f64;
                            }
                        }
                    }
                    if s.structure == Structure::Diagonal {
                        for b in 0..k {
                            for a in 0..k {
                                if a != b {
                                    c[a + b * k] = 0.0;
                                }
                            }
                        }
                    }
                    let scale: Vec<f64> = (0..k).map(|a| c[a + a * k]).collect();
                    for a in 0..k {
                        // Columns that never vary (or repeat each other) get a unit all the same.
                        c[a + a * k] += 1e-8 * scale[a] + f64::MIN_POSITIVE.max(1e-300);
                    }
                    if dense::small_cholesky(&mut c, k, k).is_err() {
                        c = vec![0.0; k * k];
                        for a in 0..k {
                            c[a + a * k] = scale[a].sqrt().max(1e-150);
                        }
                    }
                    for b in 1..k {
                        for a in 0..b {
                            c[a + b * k] = 0.0;
                        }
                    }
                    c
                })
                .collect()
        })
        .collect()
}

/// Block of a slot inside a factor's matrix.
fn slot_block(lambda: &[f64], k: usize, offset: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; cols * cols];
    for b in 0..cols {
        for a in 0..cols {
            out[a + b * cols] = lambda[offset + a + (offset + b) * k];
        }
    }
    out
}

fn put_block(lambda: &mut [f64], k: usize, offset: usize, cols: usize, block: &[f64]) {
    for b in 0..cols {
        for a in 0..cols {
            lambda[offset + a + (offset + b) * k] = block[a + b * cols];
        }
    }
}

/// C = A B (n x n); `at` transposes A.
fn mul(a: &[f64], b: &[f64], n: usize, at: bool) -> Vec<f64> {
    let mut c = vec![0.0; n * n];
    for j in 0..n {
        for i in 0..n {
            c[i + j * n] = (0..n).map(|s| if at { a[s + i * n] } else { a[i + s * n] } * b[s + j * n]).sum();
        }
    }
    c
}

/// Lambda of a slot with every dimensionless standard deviation at least `floor`; directions at the floor if `zero`
/// are set to exactly zero instead. Returns the rank.
fn clip(block: &[f64], unit: &[f64], structure: Structure, floor: f64, zero: bool) -> (Vec<f64>, usize) {
    let k = (unit.len() as f64).sqrt() as usize;
    let limit = if zero { 3.0 * floor } else { SNAP * floor };
    let low = if zero { 0.0 } else { floor };
    if structure == Structure::Diagonal || k == 1 {
        let mut out = vec![0.0; k * k];
        let mut rank = 0;
        for a in 0..k {
            let v = block[a + a * k].abs();
            let keep = v * unit[a + a * k] > limit;
            out[a + a * k] = if keep { v } else { low / unit[a + a * k] };
            rank += keep as usize;
        }
        return (out, rank);
    }
    let t = mul(unit, block, k, true);
    let mut tt = vec![0.0; k * k];
    dense::syrk_lower(&mut tt, k, &t, k, k, k, 1.0);
    dense::mirror(&mut tt, k);
    let (w, v) = dense::eigen_symmetric(&tt, k);
    let rank = w.iter().filter(|w| w.max(0.0).sqrt() > limit).count();
    if rank == k {
        return (block.to_vec(), k);
    }
    // V sqrt(D), then back to the units of the columns: solve unit' X = V sqrt(D).
    let mut x = vec![0.0; k * k];
    // Directions on the floor come last: their axes are then the last columns of Lambda.
    for c in 0..k {
        let e = k - 1 - c;
        let sd = w[e].max(0.0).sqrt();
        let sd = if sd > limit { sd } else { low };
        for a in 0..k {
            x[a + c * k] = v[a + e * k] * sd;
        }
    }
    dense::solve_left_lt(unit, k, k, &mut x, k, k);
    (x, rank)
}

fn clip_all(
    m: &Moments,
    units: &[Vec<Vec<f64>>],
    lambda: &[Vec<f64>],
    zero: bool,
) -> (Vec<Vec<f64>>, Vec<(usize, usize, usize)>) {
    let mut out = lambda.to_vec();
    let mut ranks = vec![];
    for (f, factor) in m.factors.iter().enumerate() {
        for (s, slot) in factor.slots.iter().enumerate() {
            let block = slot_block(&lambda[f], factor.cols, slot.offset, slot.cols);
            let (b, rank) = clip(&block, &units[f][s], slot.structure, FLOOR, zero);
            put_block(&mut out[f], factor.cols, slot.offset, slot.cols, &b);
            ranks.push((f, s, rank));
        }
    }
    (out, ranks)
}

/// Lambda with every direction at least on the floor (so that derivatives on the variance scale exist).
pub fn floored(m: &Moments, lambda: &[Vec<f64>]) -> Vec<Vec<f64>> {
    clip_all(m, &units(m), lambda, false).0
}

/// d deviance / d Sigma = Lambda^-T N Lambda^-1 of every factor.
pub fn sigma_gradient(m: &Moments, lambda: &[Vec<f64>], n: &[Vec<f64>]) -> Vec<Vec<f64>> {
    m.factors
        .iter()
        .enumerate()
        .map(|(f, factor)| {
            let k = factor.cols;
            let inverse = invert(&lambda[f], k);
            let t = mul(&n[f], &inverse, k, false);
            mul(&inverse, &t, k, true)
        })
        .collect()
}

/// Inverse of a small square matrix by Gauss-Jordan elimination with row pivoting.
pub fn invert(a: &[f64], n: usize) -> Vec<f64> {
    let mut a = a.to_vec();
    let mut inv = vec![0.0; n * n];
    for i in 0..n {
        inv[i + i * n] = 1.0;
    }
    for c in 0..n {
        let p = (c..n).max_by(|&i, &j| a[i + c * n].abs().total_cmp(&a[j + c * n].abs())).unwrap_or(c);
        for j in 0..n {
            a.swap(c + j * n, p + j * n);
            inv.swap(c + j * n, p + j * n);
        }
        let d = 1.0 / a[c + c * n];
        for j in 0..n {
            a[c + j * n] *= d;
            inv[c + j * n] *= d;
        }
        for i in (0..n).filter(|&i| i != c) {
            let f = a[i + c * n];
            if f != 0.0 {
                for j in 0..n {
                    a[i + j * n] -= f * a[c + j * n];
                    inv[i + j * n] -= f * inv[c + j * n];
                }
            }
        }
    }
    inv
}

/// Quadratic model of the deviance in the components of delta.
struct Model<'a> {
    components: &'a [Component],
    gradient: Vec<f64>,
    hessian: Vec<f64>,
    residual: Residual,
    /// Entries of L that stay at those of the identity.
    fixed: &'a [bool],
}

/// Relative change of the residual variance that goes with delta: at + along' delta.
struct Residual {
    at: f64,
    along: Vec<f64>,
    /// Decrease of the deviance by `at` alone.
    gain: f64,
}

impl<'a> Model<'a> {
    /// The model of a relative covariance (residual variance profiled out) turned into one of absolute covariances:
    /// in those the expected information makes one step exact where the design is balanced.
    fn absolute(components: &'a [Component], slope: &Slope, profiled: Vec<f64>, mixed: &[f64], fixed: &'a [bool]) -> Self {
        let c = components.len();
        let diagonal: Vec<f64> =
            components.iter().zip(fixed).map(|(k, &f)| if k.row == k.col && !f { 1.0 } else { 0.0 }).collect();
        let mut u: Vec<f64> = mixed.iter().map(|k| -k).collect();
        let mut h = profiled;
        for j in 0..c {
            for i in 0..c {
                h[i + j * c] += mixed[i] * mixed[j] / slope.nu;
                u[i] += h[i + j * c] * diagonal[j];
            }
        }
        let a = slope.nu + dot(&diagonal, &u) - dot(&diagonal, mixed);
        let slide = dot(&diagonal, &slope.gradient);
        for t in 0..c * c {
            h[t] -= u[t % c] * u[t / c] / a;
        }
        let gradient = slope.gradient.iter().zip(&u).map(|(g, u)| g - slide * u / a).collect();
        let residual = Residual { at: slide / a, along: u.iter().map(|u| u / a).collect(), gain: 0.5 * slide * slide / a };
        Model { components, gradient, hessian: h, residual, fixed }
    }

    /// The model in relative covariances.
    fn relative(components: &'a [Component], slope: &Slope, hessian: Vec<f64>, fixed: &'a [bool]) -> Self {
        let residual = Residual { at: 0.0, along: vec![0.0; components.len()], gain: 0.0 };
        Model { components, gradient: slope.gradient.clone(), hessian, residual, fixed }
    }

    fn value(&self, d: &[f64]) -> f64 {
        let c = d.len();
        let mut v = 0.0;
        for j in 0..c {
            let h: f64 = (0..c).map(|i| self.hessian[i + j * c] * d[i]).sum();
            v += d[j] * (self.gradient[j] + 0.5 * h);
        }
        v
    }

    /// delta from the entries of L (a lower triangle per slot): delta = L L' - I.
    fn delta(&self, l: &[f64]) -> Vec<f64> {
        self.components
            .iter()
            .map(|i| {
                let mut v = if i.row == i.col { -1.0 } else { 0.0 };
                for (a, ca) in self.components.iter().enumerate() {
                    if ca.factor == i.factor && ca.slot == i.slot && ca.row == i.row {
                        for (b, cb) in self.components.iter().enumerate() {
                            if cb.factor == i.factor && cb.slot == i.slot && cb.row == i.col && cb.col == ca.col {
                                v += l[a] * l[b];
                            }
                        }
                    }
                }
                v
            })
            .collect()
    }

    /// d delta_i / d l_j.
    fn jacobian(&self, l: &[f64]) -> Vec<f64> {
        let c = l.len();
        let find = |f: usize, s: usize, row: usize, col: usize| {
            self.components.iter().position(|k| k.factor == f && k.slot == s && k.row == row && k.col == col)
        };
        let mut j = vec![0.0; c * c];
        for (t, k) in self.components.iter().enumerate() {
            for (i, d) in self.components.iter().enumerate() {
                if d.factor != k.factor || d.slot != k.slot {
                    continue;
                }
                let mut v = 0.0;
                if d.row == k.row {
                    v += find(k.factor, k.slot, d.col, k.col).map_or(0.0, |b| l[b]);
                }
                if d.col == k.row {
                    v += find(k.factor, k.slot, d.row, k.col).map_or(0.0, |b| l[b]);
                }
                j[i + t * c] = v;
            }
        }
        j
    }

    /// Minimise the model over positive semidefinite I + delta.
    fn minimise(&self) -> Vec<f64> {
        let c = self.components.len();
        let mut l: Vec<f64> = self.components.iter().map(|k| if k.row == k.col { 1.0 } else { 0.0 }).collect();
        // A scalar or diagonal model is solved by its free minimiser when that is legal.
        if !self.fixed.contains(&true) {
            if let Some(d) = self.free_step().filter(|d| self.legal(d)) {
                return d;
            }
        }
        let mut value = 0.0;
        let mut mu = 0.0;
        for _ in 0..100 {
            let d = self.delta(&l);
            let g: Vec<f64> = (0..c)
                .map(|j| self.gradient[j] + (0..c).map(|i| self.hessian[i + j * c] * d[i]).sum::<f64>())
                .collect();
            let jac = self.jacobian(&l);
            let mut grad: Vec<f64> = (0..c).map(|t| (0..c).map(|i| jac[i + t * c] * g[i]).sum()).collect();
            let mut hess = vec![0.0; c * c];
            let mut hj = vec![0.0; c * c];
            dense::gemm(&mut hj, c, &self.hessian, c, &jac, c, c, c, c, 1.0);
            dense::gemm_tn(&mut hess, c, &jac, c, &hj, c, c, c, c, 1.0);
            for (s, ks) in self.components.iter().enumerate() {
                for (t, kt) in self.components.iter().enumerate() {
                    if ks.factor == kt.factor && ks.slot == kt.slot && ks.col == kt.col {
                        // Second derivative of delta: the gradient matrix with off-diagonal entries halved, twice.
                        let (r, q) = (ks.row.max(kt.row), ks.row.min(kt.row));
                        let i = self
                            .components
                            .iter()
                            .position(|k| k.factor == ks.factor && k.slot == ks.slot && k.row == r && k.col == q);
                        if let Some(i) = i {
                            hess[s + t * c] += if r == q { 2.0 * g[i] } else { g[i] };
                        }
                    }
                }
            }
            for t in (0..c).filter(|&t| self.fixed[t]) {
                grad[t] = 0.0;
                for i in 0..c {
                    hess[t + i * c] = 0.0;
                    hess[i + t * c] = 0.0;
                }
                hess[t + t * c] = 1.0;
            }
            // Entries differ by many orders of magnitude (a floor direction turns far): each is damped by its own
            // curvature.
            let own: Vec<f64> = (0..c).map(|i| hess[i + i * c].abs()).collect();
            let mut moved = false;
            for _ in 0..30 {
                let mut h = hess.clone();
                for i in 0..c {
                    h[i + i * c] += (mu + 1e-15) * own[i] + 1e-300;
                }
                if dense::cholesky(&mut h, c, c).is_ok() {
                    let mut step: Vec<f64> = grad.iter().map(|g| -g).collect();
                    dense::solve_left_l(&h, c, c, &mut step, 1, c);
                    dense::solve_left_lt(&h, c, c, &mut step, 1, c);
                    let trial: Vec<f64> = l.iter().zip(&step).map(|(a, b)| a + b).collect();
                    let v = self.value(&self.delta(&trial));
                    if v < value {
                        moved = value - v > 1e-13 * v.abs().max(1e-12);
                        l = trial;
                        value = v;
                        mu *= 0.1;
                        break;
                    }
                    if step.iter().all(|s| s.abs() < 1e-10) {
                        break;
                    }
                }
                mu = (mu * 4.0).max(1e-6);
            }
            if !moved {
                break;
            }
        }
        self.delta(&l)
    }

    fn free_step(&self) -> Option<Vec<f64>> {
        let c = self.components.len();
        let mut h = self.hessian.clone();
        dense::cholesky(&mut h, c, c).ok()?;
        let mut d: Vec<f64> = self.gradient.iter().map(|g| -g).collect();
        dense::solve_left_l(&h, c, c, &mut d, 1, c);
        dense::solve_left_lt(&h, c, c, &mut d, 1, c);
        Some(d)
    }

    /// Whether I + delta is safely positive definite in every slot.
    fn legal(&self, d: &[f64]) -> bool {
        blocks(self.components, d).iter().all(|(_, _, k, m)| {
            let mut m = m.clone();
            for a in 0..*k {
                m[a + a * k] -= 0.02;
            }
            dense::small_cholesky(&mut m, *k, *k).is_ok()
        })
    }
}

/// I + delta of every slot: (factor, slot, order, full symmetric matrix).
fn blocks(components: &[Component], d: &[f64]) -> Vec<(usize, usize, usize, Vec<f64>)> {
    let mut out: Vec<(usize, usize, usize, Vec<f64>)> = vec![];
    let mut at = 0;
    while at < components.len() {
        let first = components[at];
        let end = at + components[at..].iter().take_while(|c| c.factor == first.factor && c.slot == first.slot).count();
        let k = components[at..end].iter().filter(|c| c.row == c.col).count();
        let mut m = vec![0.0; k * k];
        for (c, v) in components[at..end].iter().zip(&d[at..end]) {
            let (i, j) = (c.row - first.col, c.col - first.col);
            m[i + j * k] = if i == j { 1.0 + v } else { *v };
            m[j + i * k] = m[i + j * k];
        }
        out.push((first.factor, first.slot, k, m));
        at = end;
    }
    out
}

/// Lambda after a step: Lambda R with R R' = I + delta.
fn apply(m: &Moments, components: &[Component], lambda: &[Vec<f64>], d: &[f64]) -> Vec<Vec<f64>> {
    let mut out = lambda.to_vec();
    for (f, s, k, block) in blocks(components, d) {
        let slot = &m.factors[f].slots[s];
        let (w, v) = dense::eigen_symmetric(&block, k);
        let mut root = vec![0.0; k * k];
        for c in 0..k {
            let sd = w[c].max(0.0).sqrt();
            for a in 0..k {
                root[a + c * k] = v[a + c * k] * sd;
            }
        }
        let old = slot_block(&lambda[f], m.factors[f].cols, slot.offset, k);
        let root = if k == 1 { vec![root[0].abs()] } else { dense::lower_factor(&root, k) };
        put_block(&mut out[f], m.factors[f].cols, slot.offset, k, &mul(&old, &root, k, false));
    }
    out
}

/// Generalised eigenvalues and vectors of (b, a) for symmetric a > 0: b v = w a v with v'a v = 1.
fn generalised(b: &[f64], a: &[f64], c: usize) -> Option<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let mut l = a.to_vec();
    let top = (0..c).map(|i| a[i + i * c]).fold(0.0, f64::max);
    for i in 0..c {
        l[i + i * c] += 1e-12 * top + 1e-300;
    }
    dense::cholesky(&mut l, c, c).ok()?;
    let mut t = b.to_vec();
    dense::solve_left_l(&l, c, c, &mut t, c, c);
    dense::solve_right_lt(&l, c, c, &mut t, c, c);
    for j in 0..c {
        for i in 0..j {
            let v = 0.5 * (t[i + j * c] + t[j + i * c]);
            t[i + j * c] = v;
            t[j + i * c] = v;
        }
    }
    let (w, v) = dense::eigen_symmetric(&t, c);
    Some((w, v, l))
}

/// R diag(w) R' with R = L V.
fn rebuild(l: &[f64], v: &[f64], w: &[f64], c: usize) -> Vec<f64> {
    let mut r = vec![0.0; c * c];
    for j in 0..c {
        for i in 0..c {
            r[i + j * c] = (0..=i).map(|s| l[i + s * c] * v[s + j * c]).sum();
        }
    }
    let mut out = vec![0.0; c * c];
    for t in 0..c {
        for j in 0..c {
            let f = w[t] * r[j + t * c];
            for i in 0..c {
                out[i + j * c] += f * r[i + t * c];
            }
        }
    }
    out
}

/// Curvature of the profiled deviance for the next step, and the smallest eigenvalue of the observed relative to the
/// average information; both on the free components only.
///
/// Far from the optimum the expected information; near it (`close`) the observed one, as far as it is positive. Turning
/// a direction whose variance is zero into others costs its multiplier: that curvature (`turning`) belongs to the
/// boundary, is part of the model anyway, and counts when eigenvalues are judged.
fn curvature(slope: &Slope, turning: &[f64], fixed: &[bool], close: bool, damping: f64) -> (Vec<f64>, f64) {
    let c = slope.gradient.len();
    let free: Vec<usize> = (0..c).filter(|&i| !fixed[i]).collect();
    let m = free.len();
    let target = if close { &slope.observed } else { &slope.expected }.profiled(slope.nu);
    let average = slope.average.profiled(slope.nu);
    let expected = slope.expected.profiled(slope.nu);
    // Floor directions carry little information: compare in units of each component's own.
    let unit: Vec<f64> = (0..c)
        .map(|i| (average[i * (c + 1)].abs().max(expected[i * (c + 1)].abs()) + turning[i * (c + 1)]).max(1e-300).sqrt())
        .collect();
    let pick = |a: &[f64]| -> Vec<f64> {
        (0..m * m)
            .map(|t| (free[t % m], free[t / m]))
            .map(|(i, j)| (a[i + j * c] + turning[i + j * c]) / (unit[i] * unit[j]))
            .collect()
    };
    let (mut scaled, mut least) = (pick(&target), 1.0);
    let (base, low, high) = if close { (pick(&average), 0.1, 1e6) } else { (pick(&expected), 1e-3, 1e6) };
    if let Some((w, v, l)) = generalised(&scaled, &base, m) {
        least = w.first().copied().unwrap_or(1.0);
        if least < low {
            let w: Vec<f64> = w.iter().map(|&w| w.clamp(low, high)).collect();
            scaled = rebuild(&l, &v, &w, m);
        }
    }
    let mut h = vec![0.0; c * c];
    for (b, &j) in free.iter().enumerate() {
        for (a, &i) in free.iter().enumerate() {
            h[i + j * c] = scaled[a + b * m] * unit[i] * unit[j] - turning[i + j * c];
        }
        h[j + j * c] += damping * (h[j + j * c].abs() + turning[j + j * c]) + 1e-300;
    }
    (h, least)
}

/// Second derivative in the entries (null, positive) of a covariance that its semidefiniteness brings about: a zero
/// direction n that turns by t into a positive one has variance t^2, which costs its multiplier.
fn turning(m: &Moments, components: &[Component], n: &[Vec<f64>], fixed: &[bool]) -> Vec<f64> {
    let c = components.len();
    let null = |f: usize, a: usize| components.iter().zip(fixed).any(|(k, &x)| x && k.factor == f && k.row == a && k.col == a);
    let ends = |k: &Component| match (null(k.factor, k.row), null(k.factor, k.col)) {
        (true, false) => Some((k.row, k.col)),
        (false, true) => Some((k.col, k.row)),
        _ => None,
    };
    let mut out = vec![0.0; c * c];
    for (i, ki) in components.iter().enumerate() {
        for (j, kj) in components.iter().enumerate().filter(|(_, k)| k.factor == ki.factor && k.slot == ki.slot) {
            if let (Some((a, p)), Some((b, q))) = (ends(ki), ends(kj)) {
                if p == q {
                    out[i + j * c] = 2.0 * n[ki.factor][a + b * m.factors[ki.factor].cols];
                }
            }
        }
    }
    out
}

/// The step in relative covariances that a model asks for, and the decrease it promises.
fn step(m: &Moments, components: &[Component], slope: &Slope, close: bool, damping: f64, fixed: &[bool]) -> (Vec<f64>, f64, f64) {
    let turning = turning(m, components, &slope.n, fixed);
    let (h, least) = curvature(slope, &turning, fixed, close, damping);
    let mixed = if close { &slope.observed.mixed } else { &slope.expected.mixed };
    let mixed: Vec<f64> = mixed.iter().zip(fixed).map(|(k, &f)| if f { 0.0 } else { *k }).collect();
    let model = Model::absolute(components, slope, h.clone(), &mixed, fixed);
    let d = model.minimise();
    let residual = model.residual.at + dot(&model.residual.along, &d);
    if (-0.9..=9.0).contains(&residual) {
        let decrease = model.residual.gain - model.value(&d);
        let relative = components
            .iter()
            .zip(&d)
            .zip(fixed)
            .map(|((k, d), f)| (if k.row == k.col && !f { d - residual } else { *d }) / (1.0 + residual))
            .collect();
        return (relative, decrease, least);
    }
    let model = Model::relative(components, slope, h, fixed);
    let d = model.minimise();
    let decrease = -model.value(&d);
    (d, decrease, least)
}

/// Components between two directions that rest on the floor with a gradient that keeps them there. Their axes are
/// columns of Lambda (see `clip`); turning a floor direction into the others stays free.
fn at_floor(
    m: &Moments,
    units: &[Vec<Vec<f64>>],
    components: &[Component],
    lambda: &[Vec<f64>],
    n: &[Vec<f64>],
) -> Vec<bool> {
    let mut null: Vec<Vec<bool>> = m.factors.iter().map(|f| vec![false; f.cols]).collect();
    for (f, factor) in m.factors.iter().enumerate() {
        for (s, slot) in factor.slots.iter().enumerate() {
            let k = slot.cols;
            let t = mul(&units[f][s], &slot_block(&lambda[f], factor.cols, slot.offset, k), k, true);
            for c in 0..k {
                let size = t[c * k..(c + 1) * k].iter().map(|v| v * v).sum::<f64>().sqrt();
                let at = slot.offset + c;
                null[f][at] = size <= SNAP * FLOOR && n[f][at + at * factor.cols] >= 0.0;
            }
        }
    }
    components.iter().map(|c| null[c.factor][c.row] && null[c.factor][c.col]).collect()
}

/// Minimise the deviance from `start` (relative factors in internal coordinates).
pub fn minimise(lmm: &mut Lmm, reml: bool, start: &[Vec<f64>], options: &Options) -> Result<Optimum, CoreError> {
    let units = units(&lmm.moments);
    let components = lmm.components.clone();
    let c = components.len();
    let before = lmm.evaluations;
    let (mut lambda, _) = clip_all(&lmm.moments, &units, start, false);
    let mut solution = lmm.solve(&lambda, reml)?;
    let (mut damping, mut iterations, mut close) = (0.0, 0, false);
    let (mut decrease, mut least) = (0.0, 1.0);
    let mut outcome = Outcome::Converged;
    let mut n = vec![];
    let mut stale = false;
    let mut searching = c > 0;
    while searching {
        let slope = lmm.slope(&solution, reml);
        n = slope.n.clone();
        let fixed = at_floor(&lmm.moments, &units, &components, &lambda, &slope.n);
        let mut accepted = None;
        loop {
            let (d, promised, l) = step(&lmm.moments, &components, &slope, close, damping, &fixed);
            decrease = promised;
            if close {
                least = l;
            }
            if std::env::var("TRACE").is_ok() {
                eprintln!("it {iterations} crit {:.9} close {close} damp {damping:.1e} promised {decrease:.3e} least {l:.3} fixed {} sd {:?}", solution.criterion, fixed.iter().filter(|f| **f).count(), lambda.iter().map(|l| l.iter().map(|v| format!("{v:.2e}")).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>());
            }
            if decrease < 0.5 && !close {
                close = true;
                continue;
            }
            if decrease < options.tolerance {
                break;
            }
            if lmm.evaluations - before >= options.max_evaluations {
                outcome = Outcome::MaxEvaluations;
                break;
            }
            let (trial, _) = clip_all(&lmm.moments, &units, &apply(&lmm.moments, &components, &lambda, &d), false);
            let noise = 1e-11 * (solution.criterion.abs() + lmm.moments.n as f64);
            match lmm.solve(&trial, reml) {
                Ok(s) if solution.criterion - s.criterion > 0.05 * decrease - noise => {
                    let ratio = (solution.criterion - s.criterion) / decrease;
                    damping = if ratio > 0.5 || decrease < noise { damping * 0.1 } else { damping };
                    if damping < 1e-3 {
                        damping = 0.0;
                    }
                    accepted = Some((trial, s));
                    stale = false;
                    break;
                }
                _ => {
                    stale = true;
                    damping = (damping * 5.0).max(0.5);
                    if damping > 1e8 {
                        outcome = Outcome::Stalled;
                        break;
                    }
                }
            }
        }
        match accepted {
            Some((l, s)) => {
                lambda = l;
                solution = s;
                iterations += 1;
            }
            None => searching = false,
        }
    }
    finish(lmm, reml, &units, lambda, solution, n, Ending { outcome, iterations, decrease, least, before, stale })
}

struct Ending {
    outcome: Outcome,
    iterations: usize,
    decrease: f64,
    least: f64,
    before: usize,
    /// The factor in memory belongs to a rejected trial.
    stale: bool,
}

/// Set what rests on the floor to zero, and evaluate there.
fn finish(
    lmm: &mut Lmm,
    reml: bool,
    units: &[Vec<Vec<f64>>],
    lambda: Vec<Vec<f64>>,
    solution: Solution,
    n: Vec<Vec<f64>>,
    e: Ending,
) -> Result<Optimum, CoreError> {
    let gradient = sigma_gradient(&lmm.moments, &lambda, &n);
    let (exact, ranks) = clip_all(&lmm.moments, units, &lambda, true);
    let mut boundary = vec![];
    for (f, s, rank) in ranks {
        let slot = &lmm.moments.factors[f].slots[s];
        if rank < slot.cols {
            let multipliers = floor_slopes(&lmm.moments, &units[f][s], &lambda, &n, f, s);
            boundary.push(Boundary { term: slot.term, rank, multipliers });
        }
    }
    let (lambda, solution) = if boundary.is_empty() && !e.stale {
        (lambda, solution)
    } else if boundary.is_empty() {
        let s = lmm.solve(&lambda, reml)?;
        (lambda, s)
    } else {
        let s = lmm.solve(&exact, reml)?;
        (exact, s)
    };
    Ok(Optimum {
        lambda,
        solution,
        outcome: e.outcome,
        iterations: e.iterations,
        evaluations: lmm.evaluations - e.before,
        decrease: e.decrease,
        curvature: e.least,
        boundary,
        sigma_gradient: gradient,
    })
}

fn floor_slopes(m: &Moments, unit: &[f64], lambda: &[Vec<f64>], n: &[Vec<f64>], f: usize, s: usize) -> Vec<f64> {
    let (factor, slot) = (&m.factors[f], &m.factors[f].slots[s]);
    let k = slot.cols;
    let t = mul(unit, &slot_block(&lambda[f], factor.cols, slot.offset, k), k, true);
    let (w, v) = dense::eigen_symmetric(&mul(&t, &t, k, true), k);
    let mut out = vec![];
    for c in 0..k {
        if w[c].max(0.0).sqrt() <= 3.0 * FLOOR {
            let vc = &v[c * k..(c + 1) * k];
            let mut slope = 0.0;
            for b in 0..k {
                for a in 0..k {
                    slope += vc[a] * n[f][slot.offset + a + (slot.offset + b) * factor.cols] * vc[b];
                }
            }
            out.push(slope / w[c].max(1e-300));
        }
    }
    out
}
