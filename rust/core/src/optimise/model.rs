//! The quadratic model of the deviance at one Lambda, and its minimum over positive semidefinite covariances.

use super::scale::{mul, put_block, slot_block};
use crate::dense;
use crate::design::{Moments, Structure};
use crate::linear::{dot, Component, Slope};

/// Quadratic model of the deviance in the components of delta.
pub(crate) struct Model<'a> {
    components: &'a [Component],
    gradient: Vec<f64>,
    hessian: Vec<f64>,
    residual: Residual,
    /// Entries of L that stay at those of the identity.
    fixed: &'a [bool],
}

/// Relative change of the residual variance that goes with delta: at + along' delta.
pub(crate) struct Residual {
    at: f64,
    along: Vec<f64>,
    /// Decrease of the deviance by `at` alone.
    gain: f64,
}

impl<'a> Model<'a> {
    /// The model of a relative covariance (residual variance profiled out) turned into one of absolute covariances:
    /// in those the expected information makes one step exact where the design is balanced.
    fn absolute(
        components: &'a [Component],
        slope: &Slope,
        profiled: Vec<f64>,
        mixed: &[f64],
        fixed: &'a [bool],
    ) -> Self {
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
        let residual =
            Residual { at: slide / a, along: u.iter().map(|u| u / a).collect(), gain: 0.5 * slide * slide / a };
        Model { components, gradient, hessian: h, residual, fixed }
    }

    /// The model of a deviance without a residual variance to profile.
    pub fn plain(components: &'a [Component], gradient: Vec<f64>, hessian: Vec<f64>, fixed: &'a [bool]) -> Self {
        let residual = Residual { at: 0.0, along: vec![0.0; components.len()], gain: 0.0 };
        Model { components, gradient, hessian, residual, fixed }
    }

    /// The model in relative covariances.
    fn relative(components: &'a [Component], slope: &Slope, hessian: Vec<f64>, fixed: &'a [bool]) -> Self {
        Model::plain(components, slope.gradient.clone(), hessian, fixed)
    }

    pub fn value(&self, d: &[f64]) -> f64 {
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
    pub fn minimise(&self) -> Vec<f64> {
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

/// Curvature of the profiled deviance on the components that are not held at zero, in units of their own.
pub struct Free {
    /// The free components.
    pub index: Vec<usize>,
    /// Square root of each component's own information (all components).
    pub unit: Vec<f64>,
    /// Curvature, turning included, made positive definite.
    pub scaled: Vec<f64>,
    /// Smallest eigenvalue before that, relative to the average (far: the expected) information.
    pub least: f64,
    /// Its direction, of length 1 in the average information (all components).
    pub weakest: Vec<f64>,
}

/// Far from the optimum the expected information; near it (`close`) the observed one, as far as it is positive. Turning
/// a direction whose variance is zero into others costs its multiplier: that curvature (`turning`) belongs to the
/// boundary and counts when eigenvalues are judged.
pub fn free_curvature(slope: &Slope, turning: &[f64], fixed: &[bool], close: bool) -> Free {
    let (mut out, base, low) = curvature_and_base(slope, turning, fixed, close);
    let m = out.index.len();
    if let Some((w, v, l)) = generalised(&out.scaled, &base, m) {
        out.least = w.first().copied().unwrap_or(1.0);
        if m > 0 {
            let mut x = v[..m].to_vec();
            dense::solve_left_lt(&l, m, m, &mut x, 1, m);
            out.index.iter().zip(&x).for_each(|(&i, x)| out.weakest[i] = x / out.unit[i]);
        }
        if out.least < low {
            let w: Vec<f64> = w.iter().map(|&w| w.clamp(low, 1e6)).collect();
            out.scaled = rebuild(&l, &v, &w, m);
        }
    }
    out
}

/// The same where only the curvature matters: no eigenvalues are found if a Cholesky factor tells that none is too small.
fn usable_curvature(slope: &Slope, turning: &[f64], fixed: &[bool], close: bool) -> Free {
    let (out, base, low) = curvature_and_base(slope, turning, fixed, close);
    let m = out.index.len();
    let mut rest: Vec<f64> = out.scaled.iter().zip(&base).map(|(a, b)| a - low * b).collect();
    if dense::cholesky(&mut rest, m, m).is_ok() {
        out
    } else {
        free_curvature(slope, turning, fixed, close)
    }
}

/// Curvature as it is, what its eigenvalues are relative to, and the least of them that is allowed.
fn curvature_and_base(slope: &Slope, turning: &[f64], fixed: &[bool], close: bool) -> (Free, Vec<f64>, f64) {
    let c = slope.gradient.len();
    let index: Vec<usize> = (0..c).filter(|&i| !fixed[i]).collect();
    let m = index.len();
    let average = slope.average.profiled(slope.nu);
    let expected = slope.expected.profiled(slope.nu);
    // Floor directions carry little information: compare in units of each component's own.
    let own = |i: usize| average[i * (c + 1)].abs().max(expected[i * (c + 1)].abs()) + turning[i * (c + 1)].max(0.0);
    let unit: Vec<f64> = (0..c).map(|i| own(i).max(1e-300).sqrt()).collect();
    let pick = |a: &[f64]| -> Vec<f64> {
        (0..m * m)
            .map(|t| (index[t % m], index[t / m]))
            .map(|(i, j)| (a[i + j * c] + turning[i + j * c]) / (unit[i] * unit[j]))
            .collect()
    };
    let (target, base, low) = if close {
        (pick(&slope.observed.profiled(slope.nu)), pick(&average), 0.1)
    } else {
        (pick(&expected), pick(&expected), 1e-3)
    };
    (Free { index, unit, scaled: target, least: 1.0, weakest: vec![0.0; c] }, base, low)
}

/// Hessian of the model in all components: what is held at zero has none, turning is in the model by itself.
pub(crate) fn hessian(free: &Free, turning: &[f64], damping: f64) -> Vec<f64> {
    let (c, m) = (free.unit.len(), free.index.len());
    let mut h = vec![0.0; c * c];
    for (b, &j) in free.index.iter().enumerate() {
        for (a, &i) in free.index.iter().enumerate() {
            h[i + j * c] = free.scaled[a + b * m] * free.unit[i] * free.unit[j] - turning[i + j * c];
        }
        h[j + j * c] += damping * (h[j + j * c].abs() + turning[j + j * c]) + 1e-300;
    }
    h
}

/// Second derivative in the entries (null, positive) of a covariance that its semidefiniteness brings about: a zero
/// direction n that turns by t into a positive one has variance t^2, which costs its multiplier.
pub fn turning(m: &Moments, components: &[Component], n: &[Vec<f64>], fixed: &[bool]) -> Vec<f64> {
    let c = components.len();
    let null =
        |f: usize, a: usize| components.iter().zip(fixed).any(|(k, &x)| x && k.factor == f && k.row == a && k.col == a);
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

/// The step in relative covariances that the model asks for, and the decrease it promises.
pub fn step(
    m: &Moments,
    components: &[Component],
    slope: &Slope,
    close: bool,
    damping: f64,
    fixed: &[bool],
) -> (Vec<f64>, f64) {
    let turning = turning(m, components, &slope.n, fixed);
    let h = hessian(&usable_curvature(slope, &turning, fixed, close), &turning, damping);
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
        return (relative, decrease);
    }
    let model = Model::relative(components, slope, h, fixed);
    let d = model.minimise();
    let decrease = -model.value(&d);
    (d, decrease)
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
pub fn apply(m: &Moments, components: &[Component], lambda: &[Vec<f64>], d: &[f64]) -> Vec<Vec<f64>> {
    let mut out = lambda.to_vec();
    for (f, s, k, block) in blocks(components, d) {
        let slot = &m.factors[f].slots[s];
        let old = slot_block(&lambda[f], m.factors[f].cols, slot.offset, k);
        let root = if slot.structure == Structure::Diagonal { diagonal_root(&block, k) } else { lower_root(&block, k) };
        put_block(&mut out[f], m.factors[f].cols, slot.offset, k, &mul(&old, &root, k, false));
    }
    out
}

/// Of a diagonal matrix. A triangular root of one that is singular need not be diagonal.
fn diagonal_root(a: &[f64], k: usize) -> Vec<f64> {
    (0..k * k).map(|t| if t % (k + 1) == 0 { a[t].max(0.0).sqrt() } else { 0.0 }).collect()
}

/// The lower triangular root of a symmetric matrix, as far as that is positive.
fn lower_root(a: &[f64], k: usize) -> Vec<f64> {
    let (w, v) = dense::eigen_symmetric(a, k);
    let root: Vec<f64> = (0..k * k).map(|t| v[t] * w[t / k].max(0.0).sqrt()).collect();
    if k == 1 {
        vec![root[0].abs()]
    } else {
        dense::lower_factor(&root, k)
    }
}
