//! Satterthwaite's degrees of freedom of the coefficients of a linear mixed model.
//!
//! The variance v of a coefficient is a function of psi = (theta, sigma) and is matched to a scaled chi-square:
//! df = 2 v^2 / (g' A g), g = dv / dpsi, A = 2 H^-1 with the Hessian H of the deviance (Giesbrecht & Burns 1985;
//! Kuznetsova, Brockhoff & Christensen 2017).

use crate::dense;
use crate::fit::{user_vcov, Model};
use crate::CoreError;

/// What the degrees of freedom of any contrast follow from, and those of the coefficients.
pub struct Satterthwaite {
    /// d vcov / d psi, (m, p, p) over the dense columns.
    pub slopes: Vec<f64>,
    /// A, (m, m).
    pub spread: Vec<f64>,
    /// Of every dense column; NaN where it was dropped.
    pub df: Vec<f64>,
}

impl Model {
    /// At theta and the sigma that goes with it; `flat` as in `dense::inverse_upwards`. `recover` leads back to theta.
    pub fn satterthwaite(
        &mut self,
        theta: &[f64],
        sigma: f64,
        reml: bool,
        flat: f64,
    ) -> Result<Satterthwaite, CoreError> {
        let slopes = self.vcov_jacobian(theta, sigma, reml)?;
        let vcov = user_vcov(&self.lmm.moments, &self.state()?.solution.lx, sigma);
        // Last, since the factor may be another one after it.
        let curved = self.hessian(theta, sigma, reml)?;
        let (m, p) = (theta.len() + 1, self.lmm.moments.p_total);
        let spread = self.spread(&curved, m, flat);
        let df = (0..p).map(|j| {
            // Of log v: squares of variances leave the range of numbers before standard errors do.
            let v = vcov[j * (p + 1)];
            let own = |i: usize| slopes[i * p * p + j * (p + 1)] / v;
            let along = |i: usize| (0..m).map(|k| spread[k + i * m] * own(k)).sum::<f64>();
            2.0 / (0..m).map(|i| own(i) * along(i)).sum::<f64>()
        });
        let df = df.collect();
        Ok(Satterthwaite { slopes, spread, df })
    }

    /// 2 H^-1 of the m parameters that are estimated; sigma, the last, has no spread where it is known.
    fn spread(&self, curved: &[f64], m: usize, flat: f64) -> Vec<f64> {
        let free = if self.lmm.moments.variance.is_some() { m - 1 } else { m };
        let inner: Vec<f64> = (0..free * free).map(|t| curved[t % free + (t / free) * m]).collect();
        let inverse = dense::inverse_upwards(&inner, free, flat);
        let mut out = vec![0.0; m * m];
        (0..free * free).for_each(|t| out[t % free + (t / free) * m] = 2.0 * inverse[t]);
        out
    }
}
