//! How far Laplace's approximation is from the integral, by importance sampling: the Gaussian that the approximation
//! puts in the integrand's place is the proposal.
//!
//! With u = u_hat + L^-T z, H = LL' and z standard normal, the likelihood is Laplace's times the mean of
//!     w(z) = exp(h(u_hat) - h(u) + z'z / 2).
//! Draws come in pairs z, -z (antithetic), so that the odd terms of log w cancel.

use rayon::prelude::*;

use super::fit::Glmm;
use super::rows::{self, GlmmRows, Want};
use crate::family::Stream;
use crate::CoreError;

impl Glmm {
    /// log w of `pairs` pairs of draws at (beta, theta), user's units; the same seed gives the same z everywhere. The
    /// model stays where it is.
    pub fn log_ratios(
        &mut self,
        rows: &GlmmRows<'_>,
        (beta, theta): (&[f64], &[f64]),
        seed: u64,
        pairs: usize,
    ) -> Result<Vec<f64>, CoreError> {
        if beta.len() != rows.p {
            return crate::error::shape(format!("beta has {} entries, the model needs {}", beta.len(), rows.p));
        }
        let found = self.ratios_at(rows, beta, theta, seed, pairs);
        self.restore(rows)?;
        found
    }

    fn ratios_at(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        theta: &[f64],
        seed: u64,
        pairs: usize,
    ) -> Result<Vec<f64>, CoreError> {
        let e = &mut self.engine;
        let (lambda, shape) = e.covariance_at(theta)?;
        let beta = e.plan.internal_beta(beta);
        let start = self.at.as_ref().map_or_else(|| vec![0.0; e.size()], |at| at.u.clone());
        let at = e.evaluate(rows, &beta, &lambda, &shape, &start)?;
        let e = &self.engine;
        let mode = e.height(rows, &lambda, &at.u);
        let draws = (0..pairs).into_par_iter().flat_map_iter(|pair| {
            if e.stop.requested() {
                return [f64::NEG_INFINITY; 2];
            }
            // Streams of neighbouring seeds are independent: the seed passes a mixing function.
            let mut stream = Stream::new(seed.wrapping_add(0x2545_F491_4F6C_DD1D_u64.wrapping_mul(pair as u64 + 1)));
            let z: Vec<f64> = (0..at.u.len()).map(|_| stream.normal()).collect();
            let half = 0.5 * z.iter().map(|z| z * z).sum::<f64>();
            let mut step = z;
            e.lmm().numeric.backward(&e.lmm().symbolic, &mut step, 1);
            [1.0, -1.0].map(|sign| {
                let u: Vec<f64> = at.u.iter().zip(&step).map(|(u, s)| u + sign * s).collect();
                let ratio = mode - e.height(rows, &lambda, &u) + half;
                if ratio.is_nan() {
                    f64::NEG_INFINITY
                } else {
                    ratio
                }
            })
        });
        Ok(draws.collect())
    }
}

impl super::laplace::Engine {
    /// h(u) = -log f(y | u) + u'Qu / 2; the predictors of the coefficients are those of the last evaluation.
    fn height(&self, rows: &GlmmRows<'_>, lambda: &[Vec<f64>], u: &[f64]) -> f64 {
        let b = self.effects(lambda, u);
        let s = rows::pass(&self.plan, self.moments(), &self.family, rows, &self.fixed, &b, Want::Value, &mut vec![]);
        s.value + 0.5 * u.iter().zip(self.precision(u)).map(|(u, q)| u * q).sum::<f64>()
    }
}
