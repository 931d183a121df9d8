//! The Hessian of the deviance of a linear mixed model.

use crate::design::TermSlot;
use crate::error::shape;
use crate::fit::Model;
use crate::linear::dot;
use crate::CoreError;

use super::blocks::sandwich;
use super::information::{average, expected};
use super::products::{trace, Products};
use super::traces::Traces;

impl Model {
    /// Hessian in (theta, sigma) of the deviance with sigma not profiled, column-major (m x m). From
    ///
    /// ```text
    /// d2 / ds_i ds_j = 2 y'P V_i P V_j P y / sigma^2 - tr(P V_i P V_j)      (V^-1 in the trace for ML)
    /// ```
    ///
    /// and Sigma* = Lambda Lambda'; by differences of the gradient where the traces are out of proportion. The model is
    /// left at theta.
    pub fn hessian(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        if !(sigma > 0.0) || !sigma.is_finite() {
            return shape("sigma must be positive");
        }
        let lambda = self.lambda_from_theta(theta)?;
        let Some(traces) = Traces::new(&self.lmm.moments, &lambda, &self.lmm.components, reml) else {
            return self.hessian_by_differences(theta, sigma, reml);
        };
        let s = self.lmm.solve(&lambda, reml)?;
        let products = self.products(&lambda, &self.weighted(&lambda, &s));
        let own = self.in_entries(&traces, &products, sigma, reml);
        let nu = self.lmm.nu(reml);
        let corner = 6.0 * s.r2 / sigma.powi(4) - 2.0 * nu / (sigma * sigma);
        let out = self.in_theta(theta, &own, corner)?;
        let profiled = (s.r2 / nu).sqrt();
        self.set_state(lambda, s, profiled);
        Ok(out)
    }

    fn in_entries(&self, t: &Traces, products: &Products, sigma: f64, reml: bool) -> Derivatives {
        let (c, p, s2) = (t.first.len(), self.lmm.moments.p(), sigma * sigma);
        let (n, w) = (c + 1, (p + 1) * (p + 1));
        let near = average(&self.lmm.moments, products, p, sigma);
        let trace = if reml { expected(&self.lmm.moments, t, products, p) } else { vec![] };
        let mut out = Derivatives { first: vec![], second: vec![0.0; c * c], mixed: vec![] };
        for i in 0..c {
            let fixed = if reml { self::trace(&products.own[i * w..(i + 1) * w], p) } else { 0.0 };
            out.first.push(t.first[i] - fixed - products.first[i] / s2);
            out.mixed.push(2.0 * products.first[i] / (s2 * sigma));
            for j in 0..c {
                let v = if reml { trace[i + j * n] } else { 0.5 * (t.second[i + j * c] + t.second[j + i * c]) };
                out.second[i + j * c] = 2.0 * near[i + j * n] - v;
            }
        }
        out
    }

    /// Chain rule: dSigma = dLambda Lambda' + Lambda dLambda' in the user's columns, M dSigma M' in the core's.
    fn in_theta(&self, theta: &[f64], own: &Derivatives, corner: f64) -> Result<Vec<f64>, CoreError> {
        let (c, m) = (own.first.len(), theta.len() + 1);
        let mut h = vec![0.0; m * m];
        h[m * m - 1] = corner;
        let mut rows: Vec<(usize, usize, usize, Vec<f64>)> = vec![];
        let terms = self.term_lambda_from_theta(theta)?;
        let places = self.places();
        let cols: Vec<usize> = self.slots().iter().map(|(_, s)| s.cols).collect();
        let slopes: Vec<Vec<f64>> = (0..cols.len()).map(|t| self.user_slope(t, &places[t], own)).collect();
        for (t, ((_, slot), lambda)) in self.slots().into_iter().zip(&terms).enumerate() {
            let k = slot.cols;
            let shear = shear(slot);
            for col in 0..k {
                for row in slot.structure.rows(col, k) {
                    let mut d = vec![0.0; k * k];
                    for e in 0..k {
                        d[row + e * k] += lambda[e + col * k];
                        d[e + row * k] += lambda[e + col * k];
                    }
                    let d = sandwich(&shear, &d, k);
                    let mut chain = vec![0.0; c];
                    places[t].iter().for_each(|&(i, r, c)| chain[i] = d[r + c * k]);
                    rows.push((t, row, col, chain));
                }
            }
        }
        for (a, (ta, ra, ca, ja)) in rows.iter().enumerate() {
            let along: Vec<f64> = (0..c).map(|i| dot(&own.second[i * c..(i + 1) * c], ja)).collect();
            for (b, (tb, rb, cb, jb)) in rows.iter().enumerate() {
                h[a + b * m] = dot(&along, jb);
                if ta == tb && ca == cb {
                    h[a + b * m] += 2.0 * slopes[*ta][ra + rb * cols[*ta]];
                }
            }
            h[a + (m - 1) * m] = dot(&own.mixed, ja);
            h[m - 1 + a * m] = h[a + (m - 1) * m];
        }
        Ok(h)
    }

    /// Entries of Sigma* by term: (component, row, column).
    fn places(&self) -> Vec<Vec<(usize, usize, usize)>> {
        let m = &self.lmm.moments;
        let mut out = vec![vec![]; m.n_terms];
        for (i, c) in self.lmm.components.iter().enumerate() {
            let slot = &m.factors[c.factor].slots[c.slot];
            out[slot.term].push((i, c.row - slot.offset, c.col - slot.offset));
        }
        out
    }

    /// G with d deviance = tr(G dSigma) of a term in the user's columns.
    fn user_slope(&self, term: usize, places: &[(usize, usize, usize)], own: &Derivatives) -> Vec<f64> {
        let (_, slot) = self.slots()[term];
        let k = slot.cols;
        let mut g = vec![0.0; k * k];
        for &(i, r, c) in places {
            let v = own.first[i] * if r == c { 1.0 } else { 0.5 };
            g[r + c * k] = v;
            g[c + r * k] = v;
        }
        let m = shear(slot);
        let transposed: Vec<f64> = (0..k * k).map(|e| m[e / k + (e % k) * k]).collect();
        sandwich(&transposed, &g, k)
    }
}

/// Derivatives of the deviance in the entries of Sigma* and, mixed, sigma.
struct Derivatives {
    first: Vec<f64>,
    second: Vec<f64>,
    mixed: Vec<f64>,
}

/// M with b_own = M b: the shifts of the columns are booked on the carrier.
fn shear(slot: &TermSlot) -> Vec<f64> {
    let k = slot.cols;
    let mut out: Vec<f64> = (0..k * k).map(|e| f64::from(e % k == e / k)).collect();
    if let Some(c) = slot.carrier {
        (0..k).filter(|&j| j != c).for_each(|j| out[c + j * k] += slot.shift[j]);
    }
    out
}
