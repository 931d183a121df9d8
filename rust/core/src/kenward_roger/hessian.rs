//! The Hessian of the deviance of a linear mixed model.

use crate::design::TermSlot;
use crate::error::shape;
use crate::fit::Model;
use crate::linear::dot;
use crate::CoreError;

use super::blocks::sandwich;
use super::products::Bends;
use super::traces::{self, Traces};

impl Model {
    /// Hessian in (theta, sigma) of the deviance with sigma not profiled, column-major (m x m). From
    ///
    /// ```text
    /// d2 / ds_i ds_j = 2 y'P V_i P V_j P y / sigma^2 - tr(P V_i P V_j)      (V^-1 in the trace for ML)
    /// ```
    ///
    /// and Sigma* = Lambda Lambda'; by differences of the gradient where the traces are out of proportion. `recover` leads
    /// back to theta where the factor has moved.
    pub fn hessian(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        let flat = self.flat_thetas(reml)?;
        let mut out = self.curved(theta, sigma, reml)?;
        let m = flat.len() + 1;
        for (i, _) in flat.iter().enumerate().filter(|(_, flat)| **flat) {
            (0..m).for_each(|j| (out[i + j * m], out[j + i * m]) = (0.0, 0.0));
        }
        Ok(out)
    }

    fn curved(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        if !(sigma > 0.0) || !sigma.is_finite() {
            return shape("sigma must be positive");
        }
        let state = self.stand(self.lambda_from_theta(theta)?, reml)?;
        let (s, lambda) = (&state.solution, &state.lambda);
        let differences = self.work_of_differences();
        let columns = traces::work_of_columns(&self.lmm, lambda).filter(|w| *w < differences);
        let most = columns.unwrap_or(differences);
        let mut traces = Traces::new(&self.lmm.moments, lambda, &self.lmm.components, reml, most);
        let bends = self.bends(lambda, s, traces.as_ref(), reml && (traces.is_some() || columns.is_some()));
        let moved = traces.is_none();
        if moved && columns.is_some() {
            traces = Some(Traces::of_columns(&mut self.lmm, lambda)?);
        }
        let nu = self.lmm.nu(reml);
        let corner = 6.0 * s.r2 / sigma.powi(4) - 2.0 * nu / (sigma * sigma);
        let mut out = self.in_theta(theta, &self.in_entries(traces.as_ref(), &bends, sigma), corner)?;
        if traces.is_none() {
            let m = theta.len() + 1;
            for (j, column) in self.hessian_by_differences(theta, sigma, reml)?.chunks_exact(m - 1).enumerate() {
                out[j * m..(j + 1) * m - 1].copy_from_slice(column);
            }
        }
        match moved {
            true => self.stray(state),
            false => self.rest(state),
        }
        Ok(out)
    }

    /// Multiplications of `hessian_by_differences`.
    fn work_of_differences(&self) -> f64 {
        let (m, sym) = (&self.lmm.moments, &self.lmm.symbolic);
        let pairs: usize = m.pairs.iter().map(|p| p.value.len()).sum();
        let once = 4.0 * sym.flops() + 30.0 * (sym.size * (m.p() + 2)) as f64 + 10.0 * pairs as f64;
        2.0 * self.lmm.components.len() as f64 * once
    }

    /// Without the traces the second derivatives are not there.
    fn in_entries(&self, traces: Option<&Traces>, bends: &Bends, sigma: f64) -> Derivatives {
        let (c, s2) = (bends.first.len(), sigma * sigma);
        let mixed = bends.first.iter().map(|v| 2.0 * v / (s2 * sigma)).collect();
        let mut out = Derivatives { first: vec![0.0; c], second: vec![0.0; c * c], mixed };
        let Some(t) = traces else { return out };
        for i in 0..c {
            out.first[i] = t.first[i] - bends.fixed[i] - bends.first[i] / s2;
            for j in 0..c {
                let v = 0.5 * (t.second[i + j * c] + t.second[j + i * c]) - bends.shared[i + j * c];
                out.second[i + j * c] = 2.0 * bends.near[i + j * c] / s2 - v;
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
