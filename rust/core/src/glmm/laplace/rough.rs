//! Coefficients without random effects, roughly: where a search begins.

use crate::dense;

use super::super::rows::{self, GlmmRows, Kinds, Sums, Want};
use super::curvature::{definite_factor, positive_factored, raised};
use super::{dot, Engine};

/// Steps, and the longest change of a coefficient in one.
const START_STEPS: usize = 12;
const STRIDE: f64 = 2.0;
/// Promised change of -sum log f that is not worth a step: the search goes on from there with everything else. With
/// structures or effects in several predictors, which have more optima, it begins closer.
const ENOUGH: f64 = 0.1;
const CLOSE: f64 = 1e-3;
/// Where slopes without random effects are to be next to none.
const CLOSEST: f64 = 1e-9;
/// Coefficients whose curvature has eigenvalues for next to nothing.
const SMALL: usize = 12;

impl Engine {
    /// Fixed effects without random effects: damped Newton steps on -sum log f, roughly.
    ///
    /// Under a sqrt link a predictor and its negative have one mean, and optima with rows on the wrong side lie beyond 0:
    /// unless they may go `across`, no step takes a row there.
    ///
    /// Also the scores Z'D1 there (levels x cols by factor); the working model is left with the weights there.
    pub fn start_beta(&mut self, rows: &GlmmRows<'_>, beta: &[f64], across: bool) -> (Vec<f64>, Vec<Vec<f64>>) {
        let enough = if self.is_plain() { ENOUGH } else { CLOSE };
        let beta = self.bettered(rows, beta, across, enough);
        let zg = self.start_weights(rows, &beta);
        (beta, zg)
    }

    /// Leave the predictors at coefficients that are better than these by all that a few steps gain.
    pub fn closer(&mut self, rows: &GlmmRows<'_>, beta: &[f64]) {
        let beta = self.bettered(rows, beta, false, CLOSEST);
        rows::fixed_part(&self.plan, rows, &beta, &mut self.fixed);
    }

    fn bettered(&mut self, rows: &GlmmRows<'_>, beta: &[f64], across: bool, enough: f64) -> Vec<f64> {
        let mut beta = beta.to_vec();
        let kinds = Kinds::of(&self.plan, &self.family, rows);
        self.without_effects(rows, kinds.as_ref(), &beta);
        let folded = self.folded();
        let mut s = self.pass_without_effects(rows, kinds.as_ref());
        for _ in 0..START_STEPS {
            let mut step = downhill(&s.xx, &s.xg);
            // Columns are scaled to unit spread: longer steps only run away on plateaus of mixtures.
            let longest = step.iter().fold(0.0f64, |m, d| m.max(d.abs()));
            if longest > STRIDE {
                step.iter_mut().for_each(|d| *d *= STRIDE / longest);
            }
            let decrement = -dot(&step, &s.xg);
            if !(decrement > enough) || !s.value.is_finite() {
                break;
            }
            let mut t = 1.0;
            let mut moved = false;
            while t > 1e-6 {
                let trial: Vec<f64> = beta.iter().zip(&step).map(|(b, s)| b + t * s).collect();
                self.without_effects(rows, kinds.as_ref(), &trial);
                if across || self.folded() <= folded {
                    let next = self.pass_without_effects(rows, kinds.as_ref());
                    if next.value < s.value - 1e-4 * t * decrement {
                        (beta, s, moved) = (trial, next, true);
                        break;
                    }
                }
                t *= 0.5;
            }
            if !moved {
                break;
            }
        }
        beta
    }

    /// Predictors without random effects, of the rows or of kinds of rows.
    fn without_effects(&mut self, rows: &GlmmRows<'_>, kinds: Option<&Kinds>, beta: &[f64]) {
        match kinds {
            Some(kinds) => kinds.fixed_part(&self.plan, beta, &mut self.fixed),
            None => rows::fixed_part(&self.plan, rows, beta, &mut self.fixed),
        }
    }

    fn pass_without_effects(&mut self, rows: &GlmmRows<'_>, kinds: Option<&Kinds>) -> Sums {
        match kinds {
            Some(kinds) => kinds.pass(&self.plan, &self.family, &self.fixed),
            None => self.pass(rows, &self.no_effects(), Want::Fixed),
        }
    }

    fn no_effects(&self) -> Vec<Vec<f64>> {
        self.moments().factors.iter().map(|f| vec![0.0; f.levels * f.cols]).collect()
    }

    /// Predictors below 0 under a sqrt link.
    fn folded(&self) -> usize {
        if !self.family.can_fold() {
            return 0;
        }
        let links = self.family.links();
        let below = |row: &[f64]| row.iter().zip(links).filter(|(eta, link)| link.folds() && **eta < 0.0).count();
        self.fixed.chunks_exact(self.plan.k).map(below).sum()
    }

    /// Weighted cross-products without random effects: they give the units of the random effects.
    pub fn start_weights(&mut self, rows: &GlmmRows<'_>, beta: &[f64]) -> Vec<Vec<f64>> {
        rows::fixed_part(&self.plan, rows, beta, &mut self.fixed);
        let mut s = self.pass(rows, &self.no_effects(), Want::Convex);
        self.load(&mut s);
        s.zg
    }
}

/// -|H|^-1 g, by the eigenvalues of H where it is small, else by the signs of its pivots.
fn downhill(h: &[f64], g: &[f64]) -> Vec<f64> {
    let p = g.len();
    let by_eigenvalues = || (p <= SMALL).then(|| positive_factored(h.to_vec(), p, raised).1).flatten();
    let factor = definite_factor(h, p).or_else(by_eigenvalues);
    let mut step: Vec<f64> = g.iter().map(|g| -g).collect();
    match factor {
        Some(l) => {
            dense::solve_left_l(&l, p, p, &mut step, 1, p);
            dense::solve_left_lt(&l, p, p, &mut step, 1, p);
        }
        None => dense::solve_absolute(h, p, &mut step),
    }
    step
}
