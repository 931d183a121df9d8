//! Derivatives at a theta: of the deviance given sigma, and of the covariance of the coefficients.

use super::coordinates::{user_matrix, user_vcov};
use super::Model;
use crate::dense;
use crate::design::TermSlot;
use crate::optimise;
use crate::CoreError;

impl Model {
    /// The part of theta of `hessian` by central differences of the exact gradient (relative error about 1e-9).
    pub(crate) fn hessian_by_differences(
        &mut self,
        theta: &[f64],
        sigma: f64,
        reml: bool,
    ) -> Result<Vec<f64>, CoreError> {
        let m = theta.len();
        let scale = self.theta_scale();
        let mut h = vec![0.0; m * m];
        let mut t = theta.to_vec();
        for j in 0..m {
            let step = 2e-5 * theta[j].abs().max(scale[j]);
            t[j] = theta[j] + step;
            let up = self.gradient_at(&t, sigma, reml)?;
            t[j] = theta[j] - step;
            let down = self.gradient_at(&t, sigma, reml)?;
            t[j] = theta[j];
            (0..m).for_each(|i| h[i + j * m] = (up[i] - down[i]) / (2.0 * step));
        }
        for j in 0..m {
            for i in 0..j {
                let v = 0.5 * (h[i + j * m] + h[j + i * m]);
                (h[i + j * m], h[j + i * m]) = (v, v);
            }
        }
        Ok(h)
    }

    /// Gradient in theta of log|A| (+ log|X'V^-1X|) + r2 / sigma^2 + nu log(2 pi sigma^2).
    pub(crate) fn gradient_at(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        let lambda = optimise::floored(self.m(), &self.lambda_from_theta(theta)?);
        let s = self.lmm.solve(&lambda, reml)?;
        let n = self.lmm.unprofiled(&s, reml, sigma * sigma)?;
        let g = optimise::sigma_gradient(self.m(), &lambda, &n);
        Ok(self.theta_gradient(&self.term_lambda_from_theta(theta)?, &g))
    }

    /// Of every theta whether the criterion depends on it at all: what rounding leaves of its curvature means nothing.
    /// The model may be left elsewhere.
    pub(crate) fn flat_thetas(&mut self, reml: bool) -> Result<Vec<bool>, CoreError> {
        if !self.lmm.may_be_flat(reml) {
            return Ok(vec![false; self.theta_len()]);
        }
        self.leave();
        let flat = self.lmm.flat(reml)?;
        let mut out = vec![];
        for (f, s) in self.slots() {
            let is = |column: usize| flat.contains(&(f, s.offset + column));
            // The user's row also enters that of the carrier, by its shift.
            let alone = |r: usize| s.carrier.is_none_or(|c| c == r || s.shift[r] == 0.0 || is(c));
            for c in 0..s.cols {
                out.extend(s.structure.rows(c, s.cols).map(|r| is(r) && alone(r)));
            }
        }
        Ok(out)
    }

    /// d vcov(beta) / d (theta, sigma): (m x p x p), exact. Dropped columns are NaN.
    pub fn vcov_jacobian(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        let exact = self.lambda_from_theta(theta)?;
        let mut state = self.stand(optimise::floored(self.m(), &exact), reml)?;
        let h = self.lmm.fixed_sensitivity(&state.solution);
        let (p, pt) = (self.m().p(), self.m().p_total);
        let mut out = vec![];
        let term_lambda = self.term_lambda_from_theta(theta)?;
        for ((f, slot), l) in self.slots().into_iter().zip(&term_lambda) {
            let sums = self.sensitivity_products(f, slot, &state.lambda, &h);
            let (k, w) = (slot.cols, slot.cols * p);
            for c in 0..k {
                for r in slot.structure.rows(c, k) {
                    // dSigma = E_rc Lambda' + Lambda E_cr, in the user's columns.
                    let mut d = vec![0.0; p * p];
                    for (b, &lb) in l[c * k..(c + 1) * k].iter().enumerate().filter(|(_, v)| **v != 0.0) {
                        for j in 0..p {
                            for i in 0..p {
                                let both = sums[r * p + i + (b * p + j) * w] + sums[r * p + j + (b * p + i) * w];
                                d[i + j * p] += lb * both;
                            }
                        }
                    }
                    out.extend(self.unwhiten(&state.solution.lx, &mut d, sigma));
                }
            }
        }
        let v = user_vcov(self.m(), &state.solution.lx, sigma);
        out.extend(v.iter().map(|v| 2.0 * v / sigma));
        debug_assert_eq!(out.len(), (theta.len() + 1) * pt * pt);
        if state.lambda != exact {
            self.state = Some(state);
            state = self.stand(exact, reml)?;
        }
        self.state = Some(state);
        Ok(out)
    }

    /// sum_l h_l h_l' for h = Z'V^-1 X L_X^-T in the user's columns, (k p) x (k p): column a p + j is row a, coefficient j.
    fn sensitivity_products(&self, f: usize, slot: &TermSlot, lambda: &[Vec<f64>], h: &[f64]) -> Vec<f64> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        let (p, k, kf) = (m.p(), slot.cols, m.factors[f].cols);
        let inverse = optimise::invert(&lambda[f], kf);
        let w = k * p;
        if w == 0 {
            return vec![];
        }
        let mut rows = vec![0.0; m.factors[f].levels * w];
        for (l, g) in rows.chunks_exact_mut(w).enumerate() {
            let at = sym.at(f, l);
            // Rows of Z'V^-1X: Lambda^-T times those of Lambda'Z'V^-1X.
            for (a, g) in g.chunks_exact_mut(p).enumerate() {
                for t in 0..kf {
                    let v = inverse[t + (slot.offset + a) * kf];
                    if v != 0.0 {
                        g.iter_mut().zip(&h[(at + t) * p..]).for_each(|(g, h)| *g += v * h);
                    }
                }
            }
            if let Some(c) = slot.carrier {
                let carrier = g[c * p..(c + 1) * p].to_vec();
                for (a, g) in g.chunks_exact_mut(p).enumerate().filter(|(a, _)| *a != c) {
                    g.iter_mut().zip(&carrier).for_each(|(g, h)| *g += slot.shift[a] * h);
                }
            }
        }
        let mut sums = vec![0.0; w * w];
        dense::syrk_rows(&mut sums, w, &rows, w, m.factors[f].levels, 1.0);
        dense::mirror(&mut sums, w);
        sums
    }

    /// sigma^2 L_X^-T D L_X^-1 in the user's columns.
    fn unwhiten(&self, lx: &[f64], d: &mut [f64], sigma: f64) -> Vec<f64> {
        let p = self.m().p();
        dense::solve_left_lt(lx, p, p, d, p, p);
        dense::solve_right_l(lx, p, p, d, p, p);
        d.iter_mut().for_each(|v| *v *= sigma * sigma);
        user_matrix(self.m(), d)
    }
}
