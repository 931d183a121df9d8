//! Normal responses, whose density is quadratic in the mean: the information about its coefficients without the
//! cancellation that a residual of next to nothing brings.
//!
//! X'V^-1X = X'WX - X'WZ Lambda H^-1 Lambda'Z'WX is a small difference of large numbers where little is left beside the
//! random effects. With B = H^-1 Lambda'Z'WX it is also (X - Z Lambda B)'W(X - Z Lambda B) + B'B, the least value of
//! that sum of squares over all B: nothing cancels, and errors of B count by their squares.

use super::super::rows::{self, GlmmRows, Want};
use super::{dot, Engine, Point};
use crate::dense;
use crate::family::Link;
use crate::CoreError;

/// Share of a coefficient's information that may be left beside the random effects before it is summed without
/// cancellation.
const LITTLE: f64 = 1e-6;

impl Engine {
    /// Whether the responses are normal with random effects in their mean, which the link leaves as it is: the density
    /// of a row is then quadratic in its mean.
    pub fn is_normal(&self, rows: &GlmmRows<'_>) -> bool {
        let family = &self.family;
        let data = &rows.data;
        let plain = data.censor.is_none() && data.randomised.is_none() && data.bounds.is_none();
        plain
            && family.is_plain()
            && family.entry().name == "gaussian"
            && family.links().first() == Some(&Link::Identity)
            && self.plan.only_first()
    }

    /// X'V^-1X of the coefficients `mean` of normal responses at a point whose factor is the current one, with the
    /// penalty's curvature (over these coefficients).
    pub fn mean_information(&mut self, rows: &GlmmRows<'_>, at: &Point, mean: &[usize]) -> Vec<f64> {
        let mut out = self.information_alone(rows, at, mean);
        let (p, r) = (self.plan.p(), mean.len());
        for (t, v) in out.iter_mut().enumerate() {
            *v += self.penalty_curvature.get(mean[t % r] + mean[t / r] * p).map_or(0.0, |v| 0.5 * v);
        }
        out
    }

    /// The same without the penalty.
    pub fn information_alone(&mut self, rows: &GlmmRows<'_>, at: &Point, mean: &[usize]) -> Vec<f64> {
        let (f, left) = self.information_left(&at.lambda, mean);
        self.uncancelled_information(rows, (&at.beta, &at.lambda), mean, f, &left).unwrap_or(left)
    }

    /// The Cholesky factor of X'V^-1X of the latent coefficients of normal responses at the current factor, where it is not
    /// a difference; `fixed` holds the predictors of beta.
    pub(super) fn uncancelled_factor(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        lambda: &[Vec<f64>],
    ) -> Result<Option<Vec<f64>>, CoreError> {
        if !self.is_normal(rows) {
            return Ok(None);
        }
        let mean = self.latent.clone();
        let (f, left) = self.information_left(lambda, &mean);
        let Some(mut lx) = self.uncancelled_information(rows, (beta, lambda), &mean, f, &left) else {
            return Ok(None);
        };
        dense::cholesky(&mut lx, mean.len(), mean.len())?;
        Ok(Some(lx))
    }

    /// X'V^-1X of the coefficients `mean` without cancellation, where little of it is `left` by the difference that it
    /// usually is; `f` is the factor's L^-1 Lambda'Z'WX.
    fn uncancelled_information(
        &mut self,
        rows: &GlmmRows<'_>,
        (beta, lambda): (&[f64], &[Vec<f64>]),
        mean: &[usize],
        mut f: Vec<f64>,
        left: &[f64],
    ) -> Option<Vec<f64>> {
        let (all, p1, r) = (&self.moments().xx, self.plan.p() + 1, mean.len());
        if (0..r).all(|a| left[a * (r + 1)] > LITTLE * all[mean[a] * (p1 + 1)]) {
            return None;
        }
        self.lmm().numeric.backward(&self.lmm().symbolic, &mut f, r);
        let moved: Vec<Vec<f64>> = (0..r).map(|a| f.chunks_exact(r).map(|row| -row[a]).collect()).collect();
        Some(self.summed_information(rows, beta, lambda, mean, &moved))
    }

    /// (X - Z Lambda B)'W(X - Z Lambda B) + B'B of the coefficients `mean`, with B = -`moved`.
    fn summed_information(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        lambda: &[Vec<f64>],
        mean: &[usize],
        moved: &[Vec<f64>],
    ) -> Vec<f64> {
        let (zero, mut bare) = (vec![0.0; rows.n], rows.clone());
        bare.data.y = &zero;
        bare.components[0].offset = None;
        let effects: Vec<Vec<Vec<f64>>> = moved.iter().map(|u| self.effects(lambda, u)).collect();
        let mut out = vec![];
        for (a, &j) in mean.iter().enumerate() {
            let mut one = beta.to_vec();
            mean.iter().for_each(|&k| one[k] = f64::from(k == j));
            rows::fixed_part(&self.plan, &bare, &one, &mut self.fixed);
            let s = self.pass(&bare, &effects[a], Want::Joint);
            let own = self.precision(&moved[a]);
            for (c, &k) in mean.iter().enumerate() {
                let rest: f64 = s.zg.iter().zip(&effects[c]).map(|(g, b)| dot(g, b)).sum();
                out.push(s.xg[k] + rest + dot(&own, &moved[c]));
            }
        }
        rows::fixed_part(&self.plan, rows, beta, &mut self.fixed);
        out
    }
}
