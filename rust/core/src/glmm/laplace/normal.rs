//! Normal responses, whose density is quadratic in the mean: the information about its coefficients without the
//! cancellation that a residual of next to nothing brings.
//!
//! X'V^-1X = X'WX - X'WZ Lambda H^-1 Lambda'Z'WX is a small difference of large numbers where little is left beside the
//! random effects. With B = H^-1 Lambda'Z'WX it is also (X - Z Lambda B)'W(X - Z Lambda B) + B'B, the least value of
//! that sum of squares over all B: nothing cancels, and errors of B count by their squares.

use super::super::rows::{self, GlmmRows, Want};
use super::{dot, Engine, Point};
use crate::family::Link;

/// Share of a coefficient's information that may be left beside the random effects before it is summed without
/// cancellation.
const LITTLE: f64 = 1e-6;

impl Engine {
    /// Whether the responses are normal with random effects in their mean, which the link leaves as it is: the density
    /// of a row is then quadratic in its mean.
    pub fn is_normal(&self, rows: &GlmmRows<'_>) -> bool {
        let family = &self.family;
        let plain = family.is_plain() && rows.data.censor.is_none() && rows.data.randomised.is_none();
        plain
            && family.entry().name == "gaussian"
            && family.links().first() == Some(&Link::Identity)
            && self.plan.only_first()
    }

    /// X'V^-1X of the coefficients `mean` of normal responses at a point whose factor is the current one, with the
    /// penalty's curvature (p x p; the others are those of the working model).
    pub fn mean_information(&mut self, rows: &GlmmRows<'_>, at: &Point, mean: &[usize]) -> Vec<f64> {
        let p = self.plan.p();
        let (solution, curve) = self.working_solution(&at.lambda);
        let mut out: Vec<f64> = curve.iter().map(|v| 0.5 * v).collect();
        let all = &self.moments().xx;
        if mean.iter().all(|&j| out[j * (p + 1)] > LITTLE * all[j * (p + 2)]) {
            return out;
        }
        let mut follow = solution.f;
        self.lmm().numeric.backward(&self.lmm().symbolic, &mut follow, p + 1);
        let (zero, mut bare) = (vec![0.0; rows.n], rows.clone());
        bare.data.y = &zero;
        bare.components[0].offset = None;
        let moved: Vec<Vec<f64>> =
            mean.iter().map(|j| follow.chunks_exact(p + 1).map(|row| -row[*j]).collect()).collect();
        let effects: Vec<Vec<Vec<f64>>> = moved.iter().map(|u| self.effects(&at.lambda, u)).collect();
        for (a, &j) in mean.iter().enumerate() {
            let mut beta = at.beta.clone();
            mean.iter().for_each(|&k| beta[k] = f64::from(k == j));
            rows::fixed_part(&self.plan, &bare, &beta, &mut self.fixed);
            let s = self.pass(&bare, &effects[a], Want::Joint);
            let own = self.precision(&moved[a]);
            for (c, &k) in mean.iter().enumerate() {
                let rest: f64 = s.zg.iter().zip(&effects[c]).map(|(g, b)| dot(g, b)).sum();
                let penalty = self.penalty_curvature.get(k + j * p).map_or(0.0, |v| 0.5 * v);
                out[k + j * p] = s.xg[k] + rest + dot(&own, &moved[c]) + penalty;
            }
        }
        rows::fixed_part(&self.plan, rows, &at.beta, &mut self.fixed);
        out
    }
}
