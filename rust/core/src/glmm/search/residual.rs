//! The residual variance of a normal response, which trades with the structures beside it.

use super::super::rows;
use super::*;

/// And below this share a search may have come to rest on the way to none.
pub(super) const LITTLE: f64 = 1e-2;
/// What is left of a residual standard deviation of nothing where a search has ended: its part of the deviance goes as its
/// square.
const LEAST: f64 = 1.0 / 30.0;
/// Slope of the deviance in the logarithm of a standard deviation of nothing with which it falls for ever: every dimension
/// that is fitted exactly adds 2.
const FALLING: f64 = 1.0;
/// More than this many times what the slope promises is rounding.
const PROMISED: f64 = 2.0;

/// Most that the logarithm of a row's residual standard deviation changes by in a step, where it has a formula.
const STRIDE: f64 = 1.5;

/// Coefficients after a step in which no row's residual standard deviation changes by too much at once: what falls on to
/// nothing beside structures that explain everything does not come back.
pub(super) fn shortened(e: &Engine, rows: &GlmmRows<'_>, from: &[f64], mut to: Vec<f64>) -> Vec<f64> {
    let (mut before, mut after) = (vec![], vec![]);
    rows::fixed_part(&e.plan, rows, from, &mut before);
    rows::fixed_part(&e.plan, rows, &to, &mut after);
    let rows = before.chunks_exact(e.plan.k).zip(after.chunks_exact(e.plan.k));
    let most = rows.map(|(a, b)| (a[1] - b[1]).abs()).fold(0.0, f64::max);
    if most > STRIDE {
        e.plan.coefficients_of(1).into_iter().for_each(|j| to[j] = from[j] + (to[j] - from[j]) * STRIDE / most);
    }
    to
}

/// The coefficient that alone is the logarithm of a Gaussian residual's standard deviation. Random effects and residuals
/// that share a variance trade it along a line on the variance scale, and structures that explain everything leave none.
pub struct Residual {
    pub at: usize,
    pub(super) unit: f64,
    /// Standard deviations below this, or about it, are none.
    pub(super) floor: f64,
    /// And below this so little that the slope vanishes before the optimum is certain.
    pub(super) little: f64,
}

impl Residual {
    pub fn of(e: &Engine, rows: &GlmmRows<'_>) -> Option<Residual> {
        let shared = e.patterns.iter().any(|p| !p.pattern.is_loadings());
        if !shared || e.family.entry().name != "gaussian" || e.family.links().get(1) != Some(&Link::Log) {
            return None;
        }
        let &[at] = e.plan.coefficients_of(1).as_slice() else { return None };
        let mut one = vec![0.0; e.plan.p()];
        one[at] = 1.0;
        let unit = e.plan.user_beta(&one)[e.plan.kept[at]];
        let constant = rows.components.get(1).is_some_and(|c| {
            c.offset.is_none() && c.fixed.iter().all(|f| f.block.is_intercept() || f.block.is_cell_means())
        });
        let usual = *e.family.start(&rows.data, None).get(1)?;
        let [floor, little] = [NONE, LITTLE].map(|share| (usual + share.ln()) / unit);
        (constant && unit.is_finite() && unit > 0.0).then_some(Residual { at, unit, floor, little })
    }

    /// The coefficient after a step, taken on the variance scale.
    pub(super) fn step(&self, from: f64, d: f64) -> f64 {
        let d = self.unit * d;
        let to = if d < 0.3 { 0.5 * (2.0 * d).max(-1.0).ln_1p() } else { d };
        (from + to / self.unit).max(self.floor.min(from))
    }

    /// The coefficient and its step down to no residual, which is none of variance; where some is left.
    pub(super) fn room(&self, beta: &[f64]) -> Option<(usize, f64)> {
        (!self.is_zero(beta)).then_some((self.at, -0.5 / self.unit))
    }

    /// The residual's standard deviation.
    pub fn deviation(&self, beta: &[f64]) -> f64 {
        (self.unit * beta[self.at]).exp()
    }

    /// Give it that standard deviation.
    pub fn put(&self, sd: f64, beta: &mut [f64]) {
        beta[self.at] = sd.ln() / self.unit;
    }

    pub fn is_zero(&self, beta: &[f64]) -> bool {
        beta[self.at] <= self.floor + 2f64.ln() / self.unit
    }

    /// Take it away.
    pub fn drop(&self, beta: &mut [f64]) {
        beta[self.at] = self.floor;
    }

    pub fn is_little(&self, beta: &[f64]) -> bool {
        beta[self.at] <= self.little
    }

    /// Whether nothing is left and more would be worse.
    pub(super) fn rests(&self, point: &Point, slope: &Slope) -> bool {
        self.is_zero(&point.beta) && slope.beta[self.at] >= 0.0
    }

    /// Where a search has come to rest with nothing left: the point with still less, and its slope; an error where less
    /// would be better for ever. The engine is left there.
    pub(super) fn least(
        &self,
        e: &mut Engine,
        rows: &GlmmRows<'_>,
        point: &Point,
        slope: &Slope,
    ) -> Result<Option<(Point, Slope)>, Outcome> {
        let mut beta = point.beta.clone();
        beta[self.at] += LEAST.ln() / self.unit;
        e.tolerance = INNER_TOLERANCE;
        let Ok(next) = e.evaluate(rows, &beta, &point.lambda, &point.shape, &point.u) else { return Ok(None) };
        let there = e.slope(rows, &next);
        let [before, after] = [slope, &there].map(|s| s.beta[self.at] / self.unit);
        if after >= FALLING {
            return Err(Outcome::Unbounded);
        }
        let gained = point.deviance - next.deviance;
        Ok((gained > 0.0 && gained < PROMISED * 0.5 * before).then_some((next, there)))
    }
}
