//! The profiled likelihood of the linear mixed model (Bates, Maechler, Bolker & Walker 2015), with its exact gradient.
//!
//! With A = Lambda' Z'WZ Lambda + I and spherical effects u:
//!     ML    d = log|A| + n (1 + log(2 pi r2 / n)) - sum log w
//!     REML  d = log|A| + log|X'V^-1X| + (n - p)(1 + log(2 pi r2 / (n - p))) - sum log w
//! The derivative in Sigma* = Lambda^-1 Sigma Lambda^-T (the variance scale, relative to where we stand) is
//!     N_f = q I - sum_l (A^-1)_ll - (nu / r2) sum_l u_l u_l',      nu = n or n - p,
//! so that d(deviance) = tr(N dSigma*); A^-1 is over (u, beta) for REML and over u for ML.
//!
//! Where fixed factors are nodes of the system (`design::Wide`), A is over u and their coefficients and log|A| stands for
//! log|A_uu| + log|X'V^-1X| of them, whatever the order of elimination: REML needs nothing else. ML is about A_uu alone,
//! whose inverse is no part of A^-1; the random effects have a system of their own for that, which is often diagonal.
//! (With the fixed factors eliminated last, one factor L would do for both determinants, but the selected inverse of
//! A_uu would still be a second one, and the order that fills in least would be lost.)

mod exact;
mod information;

use std::sync::Arc;

use crate::cholesky::{Numeric, SelectedInverse, Source, Symbolic};
use crate::dense::{self, Precision};
use crate::design::{Moments, Part};
use crate::levels::{carried, paired, place, push_triangle, quadratic_forms, take_products};
use crate::{optimise, CoreError};

pub use crate::dense::dot;

/// A free entry of Sigma*: rows and columns of one factor, `row >= col`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Component {
    pub factor: usize,
    pub slot: usize,
    pub row: usize,
    pub col: usize,
}

impl Component {
    /// Entries of E_i, the derivative of the factor's covariance.
    pub fn cells(&self) -> impl Iterator<Item = (usize, usize)> {
        let both = [(self.row, self.col), (self.col, self.row)];
        both.into_iter().take(if self.row == self.col { 1 } else { 2 })
    }
}

/// Everything at one Lambda that does not need the inverse.
#[derive(Clone, Debug)]
pub struct Solution {
    pub criterion: f64,
    /// log|A|, for ML over u alone.
    pub logdet_z: f64,
    /// log|X'V^-1X| of the dense columns, given the wide factors.
    pub logdet_x: f64,
    /// Penalised residual sum of squares.
    pub r2: f64,
    /// Coefficients of the kept (shifted) columns.
    pub beta: Vec<f64>,
    /// Cholesky factor of X'V^-1X (kept columns), column-major.
    pub lx: Vec<f64>,
    /// L^-1 Lambda'Z'[X y], row-major (size x (p + 1)) in elimination order.
    pub f: Vec<f64>,
}

/// Gradient and curvature in the components of Sigma*.
#[derive(Clone, Debug)]
pub struct Slope {
    /// Spherical effects in elimination order.
    pub u: Vec<f64>,
    /// N of every factor, cols x cols.
    pub n: Vec<Vec<f64>>,
    pub gradient: Vec<f64>,
    /// Average information.
    pub average: Curvature,
    /// Expected information (for many levels a stochastic estimate of it).
    pub expected: Curvature,
    /// Second derivative of the deviance (as exact as `expected`).
    pub observed: Curvature,
    /// Second derivative in log sigma^2; infinite where sigma is known, so that nothing moves it.
    pub nu: f64,
}

/// Second derivatives in the components of Sigma* and, mixed, with log sigma^2.
#[derive(Clone, Debug)]
pub struct Curvature {
    pub sigma: Vec<f64>,
    pub mixed: Vec<f64>,
}

impl Curvature {
    /// Of the deviance with sigma profiled out: the Schur complement of its second derivative nu.
    pub fn profiled(&self, nu: f64) -> Vec<f64> {
        let c = self.mixed.len();
        (0..c * c).map(|t| self.sigma[t] - self.mixed[t % c] * self.mixed[t / c] / nu).collect()
    }
}

#[derive(Clone)]
pub struct Lmm {
    pub moments: Moments,
    pub symbolic: Arc<Symbolic>,
    pub numeric: Numeric,
    pub components: Vec<Component>,
    /// Factorisations so far.
    pub evaluations: usize,
    /// The random effects alone, for ML beside wide factors; made when it is first asked for.
    alone: Option<Box<Lmm>>,
}

pub fn components(m: &Moments) -> Vec<Component> {
    let mut out = vec![];
    for (f, factor) in m.factors.iter().enumerate() {
        for (s, slot) in factor.slots.iter().enumerate() {
            for col in 0..slot.cols {
                for row in slot.structure.rows(col, slot.cols) {
                    out.push(Component { factor: f, slot: s, row: slot.offset + row, col: slot.offset + col });
                }
            }
        }
    }
    out
}

/// Components of the random effects; in `components` wide factors have one, too.
fn random_components(m: &Moments) -> Vec<Component> {
    components(m).into_iter().filter(|c| c.factor < m.random()).collect()
}

/// Cross-products of the fixed columns and the response given the wide factors; None where there are none.
pub(crate) fn given_wide(m: &Moments) -> Result<Option<Vec<f64>>, CoreError> {
    if m.wide.is_empty() {
        return Ok(None);
    }
    let mut fixed = Lmm::new(m.part(Part::Fixed))?;
    let lambda = vec![vec![1.0]; fixed.moments.factors.len()];
    fixed.numeric.factorise(&fixed.symbolic, Source { moments: &fixed.moments, lambda: &lambda })?;
    let p1 = m.p() + 1;
    let mut f = fixed.right_hand_side(&lambda);
    fixed.numeric.forward(&fixed.symbolic, &mut f, p1);
    let mut xx = m.xx.clone();
    dense::syrk_rows(&mut xx, p1, &f, p1, fixed.symbolic.size, -1.0);
    dense::mirror(&mut xx, p1);
    Ok(Some(xx))
}

impl Lmm {
    pub fn new(moments: Moments) -> Result<Self, CoreError> {
        let symbolic = Arc::new(Symbolic::new(&moments)?);
        let numeric = Numeric::new(&symbolic);
        let components = random_components(&moments);
        Ok(Lmm { moments, symbolic, numeric, components, evaluations: 0, alone: None })
    }

    /// The same design and elimination tree with another response.
    pub fn with_moments(&self, moments: Moments) -> Self {
        let numeric = Numeric::new(&self.symbolic);
        let components = self.components.clone();
        // Nothing in the system of the random effects depends on the response.
        let alone = self.alone.as_ref().map(|a| Box::new(a.with_moments(a.moments.clone())));
        Lmm { moments, symbolic: self.symbolic.clone(), numeric, components, evaluations: 0, alone }
    }

    pub fn nu(&self, reml: bool) -> f64 {
        let m = &self.moments;
        if reml {
            m.total - m.rank() as f64
        } else {
            m.total
        }
    }

    /// The residual variance at a solution: known, or r2 / nu.
    pub fn variance(&self, s: &Solution, reml: bool) -> f64 {
        self.moments.variance.unwrap_or(s.r2 / self.nu(reml))
    }

    /// Factorise the system of the random effects alone; log|A_uu|.
    fn solve_alone(&mut self, lambda: &[Vec<f64>]) -> Result<f64, CoreError> {
        if self.moments.wide.is_empty() {
            return Ok(self.numeric.logdet);
        }
        let alone = match &mut self.alone {
            Some(a) => a,
            none => none.insert(Box::new(Lmm::new(self.moments.part(Part::Random))?)),
        };
        alone.numeric.stop = self.numeric.stop.clone();
        let lambda = &lambda[..alone.moments.factors.len()];
        alone.numeric.factorise(&alone.symbolic, Source { moments: &alone.moments, lambda })?;
        Ok(alone.numeric.logdet)
    }

    /// A_uu^-1, u alone, at the Lambda of the current factor: what remains unknown given all coefficients.
    pub(crate) fn inverse_alone(&self, lambda: &[Vec<f64>]) -> Result<SelectedInverse, CoreError> {
        if self.moments.wide.is_empty() {
            return Ok(self.selected_inverse());
        }
        let moments = self.moments.part(Part::Random);
        let symbolic = Symbolic::new(&moments)?;
        let mut numeric = Numeric::new(&symbolic);
        numeric.stop = self.numeric.stop.clone();
        let lambda = &lambda[..moments.factors.len()];
        numeric.factorise(&symbolic, Source { moments: &moments, lambda })?;
        Ok(numeric.selected_inverse(&symbolic, &moments, Precision::Double))
    }

    /// Lambda'Z'[X y] in elimination order, row-major.
    pub(crate) fn right_hand_side(&self, lambda: &[Vec<f64>]) -> Vec<f64> {
        let (m, sym) = (&self.moments, &self.symbolic);
        let p1 = m.p() + 1;
        let mut b = vec![0.0; sym.size * p1];
        for (f, (factor, lam)) in m.factors.iter().zip(lambda).enumerate() {
            let k = factor.cols;
            for (zx, &at) in factor.zx.chunks_exact(k * p1).zip(sym.first_rows(f, factor.levels)) {
                let out = &mut b[at as usize * p1..][..k * p1];
                if k == 1 {
                    out.iter_mut().zip(zx).for_each(|(o, z)| *o = lam[0] * z);
                    continue;
                }
                for (c, out) in out.chunks_exact_mut(p1).enumerate() {
                    for (row, &l) in zx.chunks_exact(p1).zip(&lam[c * k..(c + 1) * k]).filter(|(_, l)| **l != 0.0) {
                        out.iter_mut().zip(row).for_each(|(o, z)| *o += l * z);
                    }
                }
            }
        }
        b
    }

    /// Factorise at Lambda and profile out beta, u and, where it is not known, sigma.
    pub fn solve(&mut self, lambda: &[Vec<f64>], reml: bool) -> Result<Solution, CoreError> {
        self.evaluations += 1;
        self.numeric.factorise(&self.symbolic, Source { moments: &self.moments, lambda })?;
        let p = self.moments.p();
        let p1 = p + 1;
        let mut f = self.right_hand_side(lambda);
        self.numeric.forward(&self.symbolic, &mut f, p1);
        let mut s = self.moments.xx.clone();
        dense::syrk_rows(&mut s, p1, &f, p1, self.symbolic.size, -1.0);
        let mut lx = vec![0.0; p * p];
        for j in 0..p {
            lx[j * p + j..(j + 1) * p].copy_from_slice(&s[j * p1 + j..j * p1 + p]);
        }
        dense::cholesky(&mut lx, p, p)?;
        let mut beta: Vec<f64> = (0..p).map(|j| s[p + j * p1]).collect();
        dense::solve_left_l(&lx, p, p, &mut beta, 1, p);
        let r2 = s[p + p * p1] - beta.iter().map(|v| v * v).sum::<f64>();
        let yy = self.moments.xx[p + p * p1];
        if !(r2 > 1e-14 * yy) {
            return Err(CoreError::NotPositiveDefinite(
                "the model fits the response exactly: no residual variance is left".into(),
            ));
        }
        dense::solve_left_lt(&lx, p, p, &mut beta, 1, p);
        let logdet_x = 2.0 * (0..p).map(|j| lx[j + j * p].ln()).sum::<f64>();
        let nu = self.nu(reml);
        let logdet_z = if reml { self.numeric.logdet } else { self.solve_alone(lambda)? };
        let around = |variance: f64| nu * (2.0 * std::f64::consts::PI * variance).ln();
        let residual = self.moments.variance.map_or_else(|| nu + around(r2 / nu), |known| around(known) + r2 / known);
        let criterion = logdet_z + if reml { logdet_x } else { 0.0 } + residual - self.moments.sum_log_w;
        if !criterion.is_finite() {
            return Err(CoreError::NotFinite("the criterion is not finite".into()));
        }
        Ok(Solution { criterion, logdet_z, logdet_x, r2, beta, lx, f })
    }

    /// Spherical effects u = L^-T (f_y - F_X beta), and H = A^-1 Z'X-part times R_X^-1 (size x p) if asked.
    fn back(&self, s: &Solution, with_h: bool) -> (Vec<f64>, Vec<f64>) {
        let p = self.moments.p();
        let p1 = p + 1;
        let mut b = s.f.clone();
        for row in b.chunks_exact_mut(p1) {
            let fit: f64 = row[..p].iter().zip(&s.beta).map(|(a, b)| a * b).sum();
            row[p] -= fit;
        }
        if !with_h || p == 0 {
            let mut u: Vec<f64> = b.chunks_exact(p1).map(|r| r[p]).collect();
            self.numeric.backward(&self.symbolic, &mut u, 1);
            return (u, vec![]);
        }
        dense::solve_left_l(&s.lx, p, p, &mut b, self.symbolic.size, p1);
        self.numeric.backward(&self.symbolic, &mut b, p1);
        let u = b.chunks_exact(p1).map(|r| r[p]).collect();
        let h = b.chunks_exact(p1).flat_map(|r| r[..p].iter().copied()).collect();
        (u, h)
    }

    /// Spherical effects at a solution, in elimination order.
    pub fn modes(&self, s: &Solution) -> Vec<f64> {
        self.back(s, false).0
    }

    /// A^-1 A_ZX R_X^-1 (size x p, row-major, elimination order).
    pub fn fixed_sensitivity(&self, s: &Solution) -> Vec<f64> {
        self.back(s, true).1
    }

    pub fn selected_inverse(&self) -> SelectedInverse {
        self.numeric.selected_inverse(&self.symbolic, &self.moments, Precision::Double)
    }

    /// N of every factor at residual variance `scale`, and what it was made of.
    fn gradient_matrices(&self, s: &Solution, reml: bool, scale: f64, precision: Precision) -> Parts {
        let (u, h) = self.back(s, reml);
        let random = self.moments.random();
        let inv = match &self.alone {
            Some(a) if !reml => a.numeric.selected_inverse(&a.symbolic, &a.moments, precision),
            _ => self.numeric.selected_inverse(&self.symbolic, &self.moments, precision),
        };
        let (m, sym, p) = (&self.moments, &self.symbolic, self.moments.p());
        let shrunk =
            if m.factors.len() == 1 { triangles_of_shrinkage(&inv.diag[0], m.factors[0].cols) } else { vec![] };
        let mut parts = Parts { trace: vec![], uu: vec![], n: vec![], u, h, inv, shrunk };
        for factor in &m.factors {
            let k = factor.cols;
            parts.trace.push(vec![0.0; k * k]);
            parts.uu.push(vec![0.0; k * k]);
        }
        for pos in (0..sym.nodes).filter(|&q| (sym.factor_at[q] as usize) < random) {
            let f = sym.factor_at[pos] as usize;
            let k = m.factors[f].cols;
            let at = sym.offset[pos] as usize;
            let block = &mut parts.inv.diag[f][sym.level(pos) * k * k..][..k * k];
            if reml && p > 0 {
                let rows = &parts.h[at * p..(at + k) * p];
                for b in 0..k {
                    for a in 0..k {
                        block[a + b * k] += dot(&rows[a * p..(a + 1) * p], &rows[b * p..(b + 1) * p]);
                    }
                }
            }
            let ul = &parts.u[at..at + k];
            for b in 0..k {
                for a in 0..k {
                    parts.trace[f][a + b * k] += block[a + b * k];
                    parts.uu[f][a + b * k] += ul[a] * ul[b];
                }
            }
        }
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let mut n = vec![0.0; k * k];
            if f >= random {
                parts.n.push(n);
                continue;
            }
            for b in 0..k {
                for a in 0..k {
                    let id = if a == b { factor.levels as f64 } else { 0.0 };
                    n[a + b * k] = id - parts.trace[f][a + b * k] - parts.uu[f][a + b * k] / scale;
                }
            }
            parts.n.push(n);
        }
        parts
    }

    /// Whether `flat` has to look: that takes a factorisation, elsewhere than where the model stands.
    pub(crate) fn may_be_flat(&self, reml: bool) -> bool {
        let m = &self.moments;
        reml && m.factors[..m.random()].iter().any(|f| f.levels <= m.rank())
    }

    /// Columns of random terms (factor, column) in the span of the fixed effects: REML does not depend on their variance.
    pub(crate) fn flat(&mut self, reml: bool) -> Result<Vec<(usize, usize)>, CoreError> {
        let rank = self.moments.rank();
        let mut out = vec![];
        if !self.may_be_flat(reml) {
            return Ok(out);
        }
        // Where neither the effects nor the noise is so large that rounding could tell a difference.
        let s = self.solve(&optimise::of_size(&self.moments, 1.0), reml)?;
        let h = self.back(&s, true).1;
        let (m, sym, p) = (&self.moments, &self.symbolic, self.moments.p());
        let inverse = self.selected_inverse();
        for (f, factor) in m.factors[..m.random()].iter().enumerate().filter(|(_, f)| f.levels <= rank) {
            let k = factor.cols;
            for a in 0..k {
                let mut most = 0.0f64;
                for l in 0..factor.levels {
                    let at = sym.at(f, l);
                    let row = &h[(at + a) * p..(at + a + 1) * p];
                    // 1 - A^-1 over (u, beta): what the data say of the effect beyond the coefficients.
                    most = most.max(1.0 - inverse.diag[f][l * k * k + a * (k + 1)] - dot(row, row));
                }
                if most < FLAT {
                    out.push((f, a));
                }
            }
        }
        Ok(out)
    }

    /// N of every factor for the unprofiled deviance at residual variance `scale`.
    pub fn unprofiled(&self, s: &Solution, reml: bool, scale: f64) -> Result<Vec<Vec<f64>>, CoreError> {
        let n = self.gradient_matrices(s, reml, scale, Precision::Double).n;
        self.numeric.stop.check()?;
        Ok(n)
    }

    /// Gradient and curvature of the deviance, sigma profiled out unless known, at a solution (whose factor is the current one).
    pub fn slope(&self, s: &Solution, reml: bool, precision: Precision) -> Slope {
        let nu = if self.moments.variance.is_some() { f64::INFINITY } else { self.nu(reml) };
        let variance = self.variance(s, reml);
        let parts = self.gradient_matrices(s, reml, variance, precision);

        let gradient: Vec<f64> = self.components.iter().map(|i| entry(&parts.n, &self.moments, i)).collect();
        let a: Vec<f64> = self.components.iter().map(|i| entry(&parts.uu, &self.moments, i)).collect();
        let t: Vec<f64> = self
            .components
            .iter()
            .map(|i| {
                let k = self.moments.factors[i.factor].cols;
                let id = if i.row == i.col { self.moments.factors[i.factor].levels as f64 } else { 0.0 };
                let v = id - parts.trace[i.factor][i.row + i.col * k];
                if i.row == i.col {
                    v
                } else {
                    2.0 * v
                }
            })
            .collect();
        let scale = 1.0 / variance;
        let q = if parts.shrunk.is_empty() { self.quadratic(s, &parts.u).0 } else { self.quadratic_of_one(s, &parts) };
        let q: Vec<f64> = q.iter().map(|v| v * scale).collect();
        let info = self.information(&parts, reml);
        let mixed: Vec<f64> = a.iter().map(|v| v * scale).collect();
        let second = q.iter().zip(&info).map(|(q, i)| 2.0 * q - i).collect();
        let average = Curvature { sigma: q, mixed: mixed.clone() };
        let expected = Curvature { sigma: info, mixed: t };
        let observed = Curvature { sigma: second, mixed };
        Slope { u: parts.u, n: parts.n, gradient, average, expected, observed, nu }
    }

    /// Q_ij = (V_i P y)' P (V_j P y) = v_i'(I - A^-1) v_j with v_i = E_i u, A over (u, beta).
    ///
    /// Also the raw part of beta, X'V^-1 V_i P y by component (p numbers each).
    pub(crate) fn quadratic(&self, s: &Solution, u: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (m, sym) = (&self.moments, &self.symbolic);
        let (c, p) = (self.components.len(), m.p());
        let mut v = vec![0.0; sym.size * c];
        // Components come factor by factor.
        let own: Vec<std::ops::Range<usize>> = (0..m.factors.len())
            .map(|f| {
                let from = self.components.partition_point(|k| k.factor < f);
                from..self.components.partition_point(|k| k.factor <= f)
            })
            .collect();
        for pos in 0..sym.nodes {
            let f = sym.factor_at[pos];
            let at = sym.offset[pos] as usize;
            for i in own[f as usize].clone() {
                let comp = &self.components[i];
                v[(at + comp.row) * c + i] += u[at + comp.col];
                if comp.row != comp.col {
                    v[(at + comp.col) * c + i] += u[at + comp.row];
                }
            }
        }
        let mut q = vec![0.0; c * c];
        dense::syrk_rows(&mut q, c, &v, c, sym.size, 1.0);
        self.numeric.forward(sym, &mut v, c);
        dense::syrk_rows(&mut q, c, &v, c, sym.size, -1.0);
        // The part of beta: w = L_X^-1 F_X' x.
        let mut cross = vec![0.0; p * c];
        if p > 0 {
            let mut w = vec![0.0; p * c];
            dense::gemm_nt(&mut w, p, &s.f, p + 1, &v, c, p, c, sym.size, 1.0);
            cross.copy_from_slice(&w);
            dense::solve_left_l(&s.lx, p, p, &mut w, c, p);
            for j in 0..c {
                for i in j..c {
                    q[i + j * c] -= dot(&w[i * p..(i + 1) * p], &w[j * p..(j + 1) * p]);
                }
            }
        }
        for j in 0..c {
            for i in 0..j {
                q[i + j * c] = q[j + i * c];
            }
        }
        (q, cross)
    }

    /// Q of `quadratic` for one grouping factor, level by level.
    fn quadratic_of_one(&self, s: &Solution, parts: &Parts) -> Vec<f64> {
        let (sym, k, p) = (&self.symbolic, self.moments.factors[0].cols, self.moments.p());
        let half = place(k, 0);
        let mut shrunk = Vec::with_capacity(parts.shrunk.len());
        let mut squares = Vec::with_capacity(parts.shrunk.len());
        for (pos, u) in parts.u.chunks_exact(k).enumerate() {
            shrunk.extend_from_slice(&parts.shrunk[sym.level(pos) * half..][..half]);
            push_triangle(&mut squares, k, |a, b| u[a] * u[b]);
        }
        let mut q = quadratic_forms(&self.components, &paired(&shrunk, &squares, k), k);
        if p > 0 {
            // The part of beta: w = L_X^-1 F_X' L^-1 v.
            let mut f = s.f.clone();
            self.numeric.backward(sym, &mut f, p + 1);
            let mut w = carried(&self.components, &f, &parts.u, k, p + 1, p);
            dense::solve_left_l(&s.lx, p, p, &mut w, self.components.len(), p);
            take_products(&mut q, &w, p);
        }
        q
    }
}

/// What the data say of an effect, as a share of certainty, that is rounding.
const FLAT: f64 = 1e-10;
struct Parts {
    trace: Vec<Vec<f64>>,
    uu: Vec<Vec<f64>>,
    n: Vec<Vec<f64>>,
    u: Vec<f64>,
    h: Vec<f64>,
    inv: SelectedInverse,
    /// Lower triangles of I - (A^-1)_ll, A over u, of the levels of the only factor; else empty.
    shrunk: Vec<f64>,
}

/// Lower triangles of I - Z of k x k blocks Z.
fn triangles_of_shrinkage(blocks: &[f64], k: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(blocks.len() / (k * k) * place(k, 0));
    for z in blocks.chunks_exact(k * k) {
        push_triangle(&mut out, k, |a, b| if a == b { 1.0 - z[a + a * k] } else { -z[a + b * k] });
    }
    out
}

/// tr(M E_i) for the symmetric matrix of the component's factor.
pub(crate) fn entry(matrices: &[Vec<f64>], m: &Moments, i: &Component) -> f64 {
    let k = m.factors[i.factor].cols;
    let v = matrices[i.factor][i.row + i.col * k];
    if i.row == i.col {
        v
    } else {
        2.0 * v
    }
}
