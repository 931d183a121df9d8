//! Between the user's parameters and columns and those of the core: shifts are undone here.

use super::Model;
use crate::dense;
use crate::design::{Moments, TermSlot};
use crate::error::shape;
use crate::linear::dot;
use crate::CoreError;

impl Model {
    pub(crate) fn slots(&self) -> Vec<(usize, &TermSlot)> {
        let m = self.m();
        let mut out: Vec<(usize, &TermSlot)> =
            m.factors[..m.random()].iter().enumerate().flat_map(|(f, x)| x.slots.iter().map(move |s| (f, s))).collect();
        out.sort_by_key(|(_, s)| s.term);
        out
    }

    pub(crate) fn term_lambda_from_theta(&self, theta: &[f64]) -> Result<Vec<Vec<f64>>, CoreError> {
        if theta.len() != self.theta_len() {
            return shape(format!("theta has {} entries, the model needs {}", theta.len(), self.theta_len()));
        }
        if theta.iter().any(|t| !t.is_finite()) {
            return Err(CoreError::NotFinite("theta is not finite".into()));
        }
        let mut at = 0;
        Ok(self
            .slots()
            .iter()
            .map(|(_, s)| {
                let k = s.cols;
                let mut l = vec![0.0; k * k];
                for c in 0..k {
                    for r in s.structure.rows(c, k) {
                        l[r + c * k] = theta[at];
                        at += 1;
                    }
                }
                l
            })
            .collect())
    }

    /// Internal relative factors (shifted columns, terms of one grouping side by side).
    pub(crate) fn lambda_from_theta(&self, theta: &[f64]) -> Result<Vec<Vec<f64>>, CoreError> {
        let terms = self.term_lambda_from_theta(theta)?;
        let m = self.m();
        let mut out: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
        for ((f, s), l) in self.slots().into_iter().zip(&terms) {
            let k = s.cols;
            for c in 0..k {
                let mut column: Vec<f64> = l[c * k..(c + 1) * k].to_vec();
                to_internal(s, &mut column);
                for (r, v) in column.iter().enumerate() {
                    out[f][s.offset + r + (s.offset + c) * m.factors[f].cols] = *v;
                }
            }
        }
        Ok(m.free_wide(out))
    }

    /// Lower triangular relative factor of every term in the user's columns.
    pub(crate) fn term_lambda(&self, lambda: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let m = self.m();
        self.slots()
            .into_iter()
            .map(|(f, s)| {
                let (k, ld) = (s.cols, m.factors[f].cols);
                let mut l = vec![0.0; k * k];
                for c in 0..k {
                    for r in 0..k {
                        l[r + c * k] = lambda[f][s.offset + r + (s.offset + c) * ld];
                    }
                    to_user(s, &mut l[c * k..(c + 1) * k]);
                }
                dense::lower_factor(&l, k)
            })
            .collect()
    }

    pub(crate) fn theta_of(&self, lambda: &[Vec<f64>]) -> Vec<f64> {
        let mut out = vec![];
        for ((_, s), l) in self.slots().iter().zip(lambda) {
            let k = s.cols;
            for c in 0..k {
                for r in s.structure.rows(c, k) {
                    out.push(l[r + c * k]);
                }
            }
        }
        out
    }

    /// d criterion / d theta from d criterion / d Sigma: 2 G Lambda, in the user's columns.
    pub(crate) fn theta_gradient(&self, lambda: &[Vec<f64>], g: &[Vec<f64>]) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for ((f, s), l) in self.slots().iter().zip(lambda) {
            let (k, ld) = (s.cols, m.factors[*f].cols);
            if g.is_empty() {
                continue;
            }
            // G in the user's columns: M' G M with b_internal = M b_user.
            let mut gu = vec![0.0; k * k];
            for c in 0..k {
                for r in 0..k {
                    gu[r + c * k] = g[*f][s.offset + r + (s.offset + c) * ld];
                }
            }
            if let Some(carrier) = s.carrier {
                for c in 0..k {
                    for r in 0..k {
                        gu[r + c * k] += s.shift[r] * gu[carrier + c * k] * if r == carrier { 0.0 } else { 1.0 };
                    }
                }
                for r in 0..k {
                    for c in (0..k).filter(|&c| c != carrier) {
                        gu[r + c * k] += s.shift[c] * gu[r + carrier * k];
                    }
                }
            }
            for c in 0..k {
                for r in s.structure.rows(c, k) {
                    out.push(2.0 * (0..k).map(|t| gu[r + t * k] * l[t + c * k]).sum::<f64>());
                }
            }
        }
        out
    }

    /// Conditional modes b = Lambda u per term, in the user's columns (levels x k, row-major).
    pub(crate) fn user_modes(&self, lambda: &[Vec<f64>], u: &[f64]) -> Vec<Vec<f64>> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        self.slots()
            .into_iter()
            .map(|(f, s)| {
                let factor = &m.factors[f];
                let mut out = vec![0.0; factor.levels * s.cols];
                for l in 0..factor.levels {
                    let at = sym.at(f, l) + s.offset;
                    let b = &mut out[l * s.cols..(l + 1) * s.cols];
                    for (r, b) in b.iter_mut().enumerate() {
                        *b = (0..s.cols)
                            .map(|c| lambda[f][s.offset + r + (s.offset + c) * factor.cols] * u[at + c])
                            .sum();
                    }
                    to_user(s, b);
                }
                out
            })
            .collect()
    }

    /// Coefficients of all the user's columns.
    pub(super) fn coefficients(&self, beta: &[f64], u: &[f64]) -> Vec<f64> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        let dense = user_beta(m, beta);
        if m.wide.is_empty() {
            return dense;
        }
        let mut out = vec![f64::NAN; m.user_columns()];
        m.columns.iter().zip(dense).for_each(|(&j, b)| out[j] = b);
        for w in &m.wide {
            let booked = m.booked(w).map_or(0.0, |(along, rest)| dot(&along, beta) + rest);
            for (j, l) in (w.base..w.levels).enumerate() {
                out[w.first + j] = booked + u[sym.at(w.factor, l)];
            }
            w.dropped().for_each(|j| out[j] = f64::NAN);
        }
        out
    }

    /// Theta in internal (shifted) columns: well scaled where the user's are far from zero.
    pub(crate) fn internal_theta(&self, lambda: &[Vec<f64>]) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for (f, s) in self.slots() {
            let (k, ld) = (s.cols, m.factors[f].cols);
            let block: Vec<f64> = (0..k * k).map(|t| lambda[f][s.offset + t % k + (s.offset + t / k) * ld]).collect();
            let l = dense::lower_factor(&block, k);
            (0..k).for_each(|c| s.structure.rows(c, k).for_each(|r| out.push(l[r + c * k])));
        }
        out
    }

    pub(crate) fn lambda_from_internal(&self, theta: &[f64]) -> Vec<Vec<f64>> {
        let m = self.m();
        let mut out: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
        let mut at = 0;
        for (f, s) in self.slots() {
            for c in 0..s.cols {
                for r in s.structure.rows(c, s.cols) {
                    out[f][s.offset + r + (s.offset + c) * m.factors[f].cols] = theta[at];
                    at += 1;
                }
            }
        }
        m.free_wide(out)
    }

    /// d criterion / d internal theta, 2 G Lambda.
    pub(crate) fn internal_theta_gradient(&self, lambda: &[Vec<f64>], g: &[Vec<f64>]) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for (f, s) in self.slots() {
            let ld = m.factors[f].cols;
            for c in 0..s.cols {
                for r in s.structure.rows(c, s.cols) {
                    let (row, column) = (s.offset + r, s.offset + c);
                    let sum: f64 =
                        (s.offset..s.offset + s.cols).map(|t| g[f][row + t * ld] * lambda[f][t + column * ld]).sum();
                    out.push(2.0 * sum);
                }
            }
        }
        out
    }

    /// d theta (user) / d theta (internal), column-major; no model is evaluated.
    pub(crate) fn theta_jacobian(&self, internal: &[f64]) -> Vec<f64> {
        let n = internal.len();
        let (mut out, mut first) = (vec![0.0; n * n], 0);
        for (_, s) in self.slots() {
            let places: Vec<(usize, usize)> =
                (0..s.cols).flat_map(|c| s.structure.rows(c, s.cols).map(move |r| (r, c))).collect();
            let own = &internal[first..first + places.len()];
            for (j, column) in user_change(s, &places, own).iter().enumerate() {
                (0..places.len()).for_each(|i| out[first + i + (first + j) * n] = column[i]);
            }
            first += places.len();
        }
        out
    }

    /// Whether the user's theta is the internal one.
    pub(crate) fn unshifted(&self) -> bool {
        self.slots().iter().all(|(_, s)| s.carrier.is_none() || s.shift.iter().all(|v| *v == 0.0))
    }

    /// Natural size of each theta: one over the root mean information of its column.
    pub(crate) fn theta_scale(&self) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for (f, s) in self.slots() {
            let factor = &m.factors[f];
            let info: Vec<f64> = (0..s.cols).map(|a| factor.mean_information(s.offset + a)).collect();
            for c in 0..s.cols {
                for r in s.structure.rows(c, s.cols) {
                    out.push(if info[r] > 0.0 { 1.0 / info[r].sqrt() } else { 1.0 });
                }
            }
        }
        out
    }
}

/// b_internal = M b_user: the carrier takes up what the shifts took off.
fn to_internal(s: &TermSlot, b: &mut [f64]) {
    if let Some(c) = s.carrier {
        let extra: f64 = (0..b.len()).filter(|&j| j != c).map(|j| s.shift[j] * b[j]).sum();
        b[c] += extra;
    }
}

/// Share of a factor's largest entry below which a pivot of it is none.
const SINGULAR: f64 = 1e-8;

/// How the entries of a term's relative factor in the user's columns move with each of the internal ones: with U the
/// factor in these columns before it is made triangular and L L' = U U', dL = L Phi(L^-1 (dU U' + U dU') L^-T), Phi the
/// lower triangle with its diagonal halved. Where the factor is singular it may have no derivative: differences.
fn user_change(s: &TermSlot, places: &[(usize, usize)], own: &[f64]) -> Vec<Vec<f64>> {
    let k = s.cols;
    let user = |entries: &[f64]| {
        let mut u = vec![0.0; k * k];
        places.iter().zip(entries).for_each(|(&(r, c), v)| u[r + c * k] = *v);
        u.chunks_exact_mut(k).for_each(|column| to_user(s, column));
        u
    };
    let unit = |j: usize| (0..own.len()).map(|i| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
    let kept = |a: &[f64]| places.iter().map(|&(r, c)| a[r + c * k]).collect::<Vec<f64>>();
    if s.carrier.is_none() || s.shift.iter().all(|v| *v == 0.0) {
        return (0..own.len()).map(unit).collect();
    }
    let u = user(own);
    let l = dense::lower_factor(&u, k);
    let size = own.iter().fold(0.0f64, |m, t| m.max(t.abs()));
    if (0..k).any(|i| !(l[i * (k + 1)] > SINGULAR * size)) {
        let moved = |j: usize| {
            let step = 1e-6 * own[j].abs().max(1e-3 * size).max(1e-12);
            let side = |by: f64| {
                let mut t = own.to_vec();
                t[j] += by;
                kept(&dense::lower_factor(&user(&t), k))
            };
            side(step).iter().zip(side(-step)).map(|(a, b)| (a - b) / (2.0 * step)).collect()
        };
        return (0..own.len()).map(moved).collect();
    }
    (0..own.len())
        .map(|j| {
            let mut half = vec![0.0; k * k];
            dense::gemm_nt(&mut half, k, &user(&unit(j)), k, &u, k, k, k, k, 1.0);
            let mut d: Vec<f64> = (0..k * k).map(|t| half[t] + half[t / k + t % k * k]).collect();
            dense::solve_left_l(&l, k, k, &mut d, k, k);
            dense::solve_right_lt(&l, k, k, &mut d, k, k);
            for c in 0..k {
                d[c * k..c * k + c].fill(0.0);
                d[c * (k + 1)] *= 0.5;
            }
            let mut out = vec![0.0; k * k];
            dense::gemm(&mut out, k, &l, k, &d, k, k, k, k, 1.0);
            kept(&out)
        })
        .collect()
}

pub(super) fn to_user(s: &TermSlot, b: &mut [f64]) {
    if let Some(c) = s.carrier {
        let extra: f64 = (0..b.len()).filter(|&j| j != c).map(|j| s.shift[j] * b[j]).sum();
        b[c] -= extra;
    }
}

/// Coefficients of all columns; dropped ones are NaN.
pub(crate) fn user_beta(m: &Moments, beta: &[f64]) -> Vec<f64> {
    user_coefficients(m, beta, m.y_shift)
}

/// How coefficients of all columns move with those of the core: differences of `user_beta` would lose the digits of
/// columns in small units.
pub(crate) fn user_slopes(m: &Moments, beta: &[f64]) -> Vec<f64> {
    user_coefficients(m, beta, 0.0)
}

fn user_coefficients(m: &Moments, beta: &[f64], y_shift: f64) -> Vec<f64> {
    let mut out = vec![f64::NAN; m.p_total];
    for (&j, &b) in m.kept.iter().zip(beta) {
        out[j] = b;
    }
    if let Some(c) = &m.carrier {
        let extra: f64 = m.kept.iter().zip(beta).map(|(&j, b)| m.x_shift[j] * b).sum();
        for (o, c) in out.iter_mut().zip(c) {
            if *c != 0.0 {
                *o += c * (y_shift - extra);
            }
        }
    }
    out
}

pub(crate) fn user_vcov(m: &Moments, lx: &[f64], sigma: f64) -> Vec<f64> {
    let p = m.p();
    let mut v = dense::inverse_from_cholesky(lx, p, p);
    v.iter_mut().for_each(|v| *v *= sigma * sigma);
    user_matrix(m, &v)
}

/// B V B' for a covariance of the kept shifted columns, spread over all columns.
pub(crate) fn user_matrix(m: &Moments, v: &[f64]) -> Vec<f64> {
    let (p, pt) = (m.p(), m.p_total);
    let mut v = v.to_vec();
    if let Some(c) = &m.carrier {
        let carrier: Vec<f64> = m.kept.iter().map(|&j| c[j]).collect();
        let shift: Vec<f64> = m.kept.iter().map(|&j| m.x_shift[j]).collect();
        for col in v.chunks_exact_mut(p.max(1)) {
            let t = dot(&shift, col);
            col.iter_mut().zip(&carrier).for_each(|(o, c)| *o -= c * t);
        }
        for i in 0..p {
            let t: f64 = (0..p).map(|j| shift[j] * v[i + j * p]).sum();
            for j in 0..p {
                v[i + j * p] -= carrier[j] * t;
            }
        }
    }
    let mut out = vec![f64::NAN; pt * pt];
    for (b, &j) in m.kept.iter().enumerate() {
        for (a, &i) in m.kept.iter().enumerate() {
            out[i + j * pt] = v[a + b * p];
        }
    }
    out
}
