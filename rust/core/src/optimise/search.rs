//! The search: propose a step, evaluate it, end where the certificate holds.

use super::certificate::{at_floor, examine};
use super::model::{apply, step};
use super::scale::{clip_all, mul, sigma_gradient, slot_block, units, FLOOR};
use super::{valley, Boundary, Optimum, Options, Outcome};
use crate::dense::{self, Precision};
use crate::design::Moments;
use crate::linear::{Component, Lmm, Slope, Solution};
use crate::{CoreError, Stop};

/// Promised decrease of the deviance below which the observed information is trusted.
const CLOSE: f64 = 0.1;
/// A step is taken if it gains this share of what it promised.
const ENOUGH: f64 = 0.05;
/// Decrease promised before a step from which the inverse after it is formed in single precision, and decrease that
/// single precision cannot be trusted with.
const ROUGH: f64 = 1e-3;
const FINE: f64 = 1e-8;
/// How many times what a step promises all further ones together may gain.
const HOPE: f64 = 10.0;
/// Iterations after which steps in factors of the covariance are tried: nearly all searches have ended by then.
const CREEPING: usize = 8;
/// A point left by the certificate more often than this is not a place to search on from.
const ESCAPES: usize = 10;

/// Minimise the deviance from `start` (relative factors in internal coordinates).
pub fn minimise(lmm: &mut Lmm, reml: bool, start: &[Vec<f64>], options: &Options) -> Result<Optimum, CoreError> {
    lmm.numeric.stop = options.stop.clone();
    let out = search(lmm, reml, start, options);
    lmm.numeric.stop = Stop::default();
    out
}

fn search(lmm: &mut Lmm, reml: bool, start: &[Vec<f64>], options: &Options) -> Result<Optimum, CoreError> {
    let mut search = Search::new(lmm, reml, start, options)?;
    while search.outcome.is_none() {
        search.advance()?;
    }
    search.finish()
}

struct Search<'a> {
    lmm: &'a mut Lmm,
    reml: bool,
    options: &'a Options,
    units: Vec<Vec<Vec<f64>>>,
    components: Vec<Component>,
    lambda: Vec<Vec<f64>>,
    solution: Solution,
    /// N of every factor at `lambda`.
    n: Vec<Vec<f64>>,
    damping: f64,
    /// Near the optimum the observed information takes over.
    close: bool,
    decrease: f64,
    /// Decrease that the last step promised.
    last: f64,
    curvature: f64,
    iterations: usize,
    escapes: usize,
    /// Factorisations before the search.
    before: usize,
    /// The factor in memory belongs to a rejected trial.
    stale: bool,
    outcome: Option<Outcome>,
}

impl<'a> Search<'a> {
    fn new(lmm: &'a mut Lmm, reml: bool, start: &[Vec<f64>], options: &'a Options) -> Result<Self, CoreError> {
        let units = units(&lmm.moments);
        let components = lmm.components.clone();
        let before = lmm.evaluations;
        let (lambda, _) = clip_all(&lmm.moments, &units, start, false);
        options.stop.check()?;
        let solution = lmm.solve(&lambda, reml)?;
        options.stop.tell(solution.criterion);
        let outcome = if components.is_empty() { Some(Outcome::Converged) } else { None };
        Ok(Search {
            lmm,
            reml,
            options,
            units,
            components,
            lambda,
            solution,
            n: vec![],
            damping: 0.0,
            close: false,
            decrease: 0.0,
            last: f64::INFINITY,
            curvature: 1.0,
            iterations: 0,
            escapes: 0,
            before,
            stale: false,
            outcome,
        })
    }

    fn exhausted(&self) -> bool {
        self.lmm.evaluations - self.before >= self.options.max_evaluations
    }

    /// Rounding error of a criterion.
    fn noise(&self) -> f64 {
        1e-11 * (self.solution.criterion.abs() + self.lmm.moments.n as f64)
    }

    /// One iteration: a step that lowers the criterion, or an outcome.
    fn advance(&mut self) -> Result<(), CoreError> {
        let (mut precision, mut slope, mut fixed) = self.look()?;
        loop {
            self.options.stop.check()?;
            let (d, promised) = self.propose(&slope, &fixed);
            self.decrease = promised;
            if precision == Precision::Single && (promised < FINE || self.stale) {
                if self.stale {
                    self.solution = self.lmm.solve(&self.lambda, self.reml)?;
                    self.stale = false;
                }
                self.last = 0.0;
                (precision, slope, fixed) = self.look()?;
                continue;
            }
            if self.solution.criterion - HOPE * promised > self.options.beat {
                self.outcome = Some(Outcome::Stalled);
                return Ok(());
            }
            if promised < self.options.tolerance {
                return self.conclude(&slope, &fixed);
            }
            if self.exhausted() {
                self.outcome = Some(Outcome::MaxEvaluations);
                return Ok(());
            }
            if self.iterations >= CREEPING && self.damping == 0.0 && self.along_a_valley(&slope, &fixed, promised) {
                return Ok(());
            }
            if self.attempt(&d, ENOUGH * promised - self.noise(), promised) {
                return Ok(());
            }
            self.damping = (self.damping * 5.0).max(0.5);
            if self.damping > 1e8 {
                self.outcome = Some(Outcome::Stalled);
                return Ok(());
            }
        }
    }

    /// Gradient and curvature here, and what rests on the floor. Far from the optimum the large blocks of the inverse
    /// are formed in single precision: the gradient then only steers, and what ends the search is exact.
    fn look(&mut self) -> Result<(Precision, Slope, Vec<bool>), CoreError> {
        let rough = self.last > ROUGH && self.lmm.numeric.single_pays(&self.lmm.symbolic);
        let precision = if rough { Precision::Single } else { Precision::Double };
        let slope = self.lmm.slope(&self.solution, self.reml, precision);
        self.options.stop.check()?;
        self.n = slope.n.clone();
        let fixed = at_floor(&self.lmm.moments, &self.units, &self.components, &self.lambda, &slope);
        Ok((precision, slope, fixed))
    }

    /// The model's minimiser and the decrease it promises.
    fn propose(&mut self, slope: &Slope, fixed: &[bool]) -> (Vec<f64>, f64) {
        let m = &self.lmm.moments;
        if !self.close {
            let far = step(m, &self.components, slope, false, self.damping, fixed);
            if far.1 >= CLOSE {
                return far;
            }
            self.close = true;
        }
        step(m, &self.components, slope, true, self.damping, fixed)
    }

    /// Try Newton steps in factors of the covariance that promise more than a step in the covariance does.
    fn along_a_valley(&mut self, slope: &Slope, fixed: &[bool], promised: f64) -> bool {
        for (upper, share) in [(false, 1.0), (true, 1.0), (false, 0.3), (true, 0.3)] {
            let (d, hope) = valley::step(&self.lmm.moments, &self.components, slope, fixed, upper, share);
            if hope > promised && !self.exhausted() && self.attempt(&d, promised.max(ENOUGH * hope), hope) {
                return true;
            }
        }
        false
    }

    /// Evaluate a step, and go there if the criterion falls by `least`.
    fn attempt(&mut self, d: &[f64], least: f64, promised: f64) -> bool {
        let m = &self.lmm.moments;
        let (trial, _) = clip_all(m, &self.units, &apply(m, &self.components, &self.lambda, d), false);
        let noise = self.noise();
        let next = self.lmm.solve(&trial, self.reml);
        self.options.stop.tell(next.as_ref().map_or(f64::INFINITY, |s| s.criterion));
        match next {
            Ok(s) if self.solution.criterion - s.criterion > least => {
                let ratio = (self.solution.criterion - s.criterion) / promised;
                if ratio > 0.5 || promised < noise {
                    self.damping *= 0.1;
                }
                if self.damping < 1e-3 {
                    self.damping = 0.0;
                }
                self.last = promised;
                self.lambda = trial;
                self.solution = s;
                self.iterations += 1;
                self.stale = false;
                true
            }
            _ => {
                self.stale = true;
                false
            }
        }
    }

    /// The search sees nothing to gain: believe it if the certificate holds, else leave along a way out.
    fn conclude(&mut self, slope: &Slope, fixed: &[bool]) -> Result<(), CoreError> {
        let limit = 100.0 * self.options.tolerance;
        let evidence = examine(&self.lmm.moments, &self.components, slope, fixed, limit);
        self.curvature = evidence.curvature;
        self.decrease = self.decrease.max(evidence.decrease);
        for d in &evidence.ways_out {
            self.options.stop.check()?;
            if self.exhausted() || self.escapes >= ESCAPES {
                self.outcome = Some(if self.exhausted() { Outcome::MaxEvaluations } else { Outcome::Stalled });
                return Ok(());
            }
            let gain = self.options.tolerance.max(self.noise());
            if self.attempt(d, gain, gain) {
                self.escapes += 1;
                return Ok(());
            }
        }
        // Nothing is gained along any way out: what curvature suspected, trials have refuted.
        let stationary = evidence.decrease <= limit.max(10.0 * self.noise());
        self.outcome = Some(if stationary { Outcome::Converged } else { Outcome::Stalled });
        Ok(())
    }

    /// Set what rests on the floor to zero, and evaluate there.
    fn finish(self) -> Result<Optimum, CoreError> {
        let m = &self.lmm.moments;
        let sigma_gradient = sigma_gradient(m, &self.lambda, &self.n);
        let (exact, ranks) = clip_all(m, &self.units, &self.lambda, true);
        let mut boundary = vec![];
        for (f, s, rank) in ranks {
            let slot = &m.factors[f].slots[s];
            if rank < slot.cols {
                let multipliers = floor_slopes(m, &self.units[f][s], &self.lambda, &self.n, f, s);
                boundary.push(Boundary { term: slot.term, rank, multipliers });
            }
        }
        let lambda = if boundary.is_empty() { self.lambda } else { exact };
        let solution =
            if boundary.is_empty() && !self.stale { self.solution } else { self.lmm.solve(&lambda, self.reml)? };
        Ok(Optimum {
            lambda,
            solution,
            outcome: self.outcome.unwrap_or(Outcome::Stalled),
            iterations: self.iterations,
            evaluations: self.lmm.evaluations - self.before,
            decrease: self.decrease,
            curvature: self.curvature,
            boundary,
            sigma_gradient,
        })
    }
}

/// Multipliers of the directions of a term that rest on the floor, per unit of dimensionless variance.
pub(crate) fn floor_slopes(
    m: &Moments,
    unit: &[f64],
    lambda: &[Vec<f64>],
    n: &[Vec<f64>],
    f: usize,
    s: usize,
) -> Vec<f64> {
    let (factor, slot) = (&m.factors[f], &m.factors[f].slots[s]);
    let k = slot.cols;
    let t = mul(unit, &slot_block(&lambda[f], factor.cols, slot.offset, k), k, true);
    let (w, v) = dense::eigen_symmetric(&mul(&t, &t, k, true), k);
    let mut out = vec![];
    for c in 0..k {
        if w[c].max(0.0).sqrt() <= 3.0 * FLOOR {
            let vc = &v[c * k..(c + 1) * k];
            let mut slope = 0.0;
            for b in 0..k {
                for a in 0..k {
                    slope += vc[a] * n[f][slot.offset + a + (slot.offset + b) * factor.cols] * vc[b];
                }
            }
            out.push(slope / w[c].max(1e-300));
        }
    }
    out
}
