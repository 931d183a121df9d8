//! The outer search over fixed effects and covariances: Newton steps on the working curvature with secant corrections.
//!
//! The quadratic model joins beta (free) with the variance scale of `optimise` (positive semidefinite): beta is
//! eliminated by its Schur complement, what is left is the same subproblem as a linear mixed model's. The working
//! linear model's curvature misses the third derivatives of the density; pairs (step, change of the exact gradient)
//! correct it by BFGS updates (Nocedal & Wright 2006, section 6.1), which are free of the coordinates chosen.

mod charted;
mod ending;
mod joint;
mod measured;
mod pace;
mod residual;
mod returning;
mod secants;
mod setting;
mod trial;

use crate::dense;
use crate::design::Moments;
use crate::family::Link;
use crate::linear::{self, Component};
use crate::optimise::{
    self, apply, at_floor, clip_all, floor_slopes, free_curvature, hessian, invert, turning, Boundary, Model, Options,
    Outcome, PLAIN,
};
use crate::structure::{Chart, Limit};
use crate::CoreError;

use super::constraint::Constraint;
use super::laplace::{dot, positive, positive_factored, raised, sized, Engine, Point, Slope, INNER_TOLERANCE};
use super::patterns::{self, Direction, Path, Patterned};
use super::rows::GlmmRows;

use charted::*;
pub use ending::settled;
use ending::*;
use joint::*;
use measured::*;
use pace::*;
use residual::shortened;
pub use residual::Residual;
use returning::returns_to;
use secants::*;
use setting::*;
use trial::*;

/// Pairs kept for the secant correction.
const MEMORY: usize = 12;
/// Tolerance of modes far from the optimum.
const LOOSE: f64 = 1e-2;
/// Rejected trials and late iterations after which the working curvature is not trusted any more.
const PATIENCE: usize = 8;
/// Iterations that are not late.
const USUAL: usize = 14;
/// Iterations that a measured Hessian is kept for.
const KEPT: usize = 6;
/// Evaluations that may measure Hessians, as a multiple of those that are allowed for steps.
const MEASURING: usize = 10;
/// What is left of the damping after a step that went well, where the curvature is exact.
const EASE: f64 = 0.2;
/// Share of the curvature along a step below which damping is none.
const NEGLIGIBLE: f64 = 1e-2;
/// Promised change of the deviance from which the observed curvature takes over.
const NEAR: f64 = 0.5;
/// Promised change of the deviance of steps that are too long for a secant.
const LONG: f64 = 2.0;
/// Pairs kept on such a way: the curvature falls with every step, and old pairs hold it up.
const RECENT: usize = 2;
/// Steps to the end of a direction that may go too far.
const TURNS: usize = 3;
/// Iterations in which a search that goes along flat modes meets one.
const LATELY: usize = 6;
/// Deviance that a limit may be worse by than the edge of the search just before it.
const WORSE: f64 = 1e-7;

pub struct Found {
    pub point: Point,
    pub outcome: Outcome,
    pub iterations: usize,
    pub decrease: f64,
    pub curvature: f64,
    pub boundary: Vec<Boundary>,
    /// d deviance / d Sigma per factor, / d beta and / d pattern parameters, internal coordinates.
    pub sigma_gradient: Vec<Vec<f64>>,
    pub beta_gradient: Vec<f64>,
    pub shape_gradient: Vec<f64>,
    /// Coefficients that ran to a limit of their range.
    pub unknown: Vec<bool>,
}

/// Where a search begins, internal coordinates.
pub struct First<'a> {
    pub beta: &'a [f64],
    pub lambda: &'a [Vec<f64>],
    pub shape: &'a [f64],
    pub target: Option<Target<'a>>,
}

/// What a search must do better than: it is given up where it does not lead there.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// A deviance that is to be reached.
    pub deviance: f64,
    /// Where another search of the same model has ended.
    pub end: Option<&'a Point>,
}

/// Promised change of the deviance that may be nothing but rounding errors of the gradient, where steps have gained
/// nothing this many times.
const IDLE: f64 = 1e-6;
const TWICE: usize = 3;

/// Minimise the Laplace (or quadrature) deviance.
pub fn minimise(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    from: &First<'_>,
    options: &Options,
) -> Result<Found, CoreError> {
    elsewhere(e, rows, units, (from, None), options)
}

/// The same, given up where it comes nearer to coefficients that were found before (`back`) than to those it began with.
pub fn elsewhere(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    (from, back): (&First<'_>, Option<&[f64]>),
    options: &Options,
) -> Result<Found, CoreError> {
    let set = Setting::of(e, rows, units, from.shape, options);
    let first = e.evaluations;
    let point = set.begin(e, from)?;
    let mut search = Search::new(&set, &point, from.target, first);
    search.back = back.map(|to| Back::new(from.beta, to));
    let here = search.run(e, point)?;
    search.end(e, here)
}

/// A search on its way.
struct Search<'s, 'a, 'r> {
    set: &'s Setting<'a, 'r>,
    secants: Vec<Secant>,
    /// The point before, if a secant can be made from there.
    last: Option<Mark>,
    pace: Option<Pace>,
    goal: Option<Goal>,
    end: Option<&'s Point>,
    back: Option<Back>,
    curvature: Option<Measured>,
    /// Directions that rested at the last point.
    resting: Vec<bool>,
    damping: f64,
    /// Near the optimum the observed curvature takes over.
    close: bool,
    iterations: usize,
    /// Evaluations before the search, and those spent on measuring.
    first: usize,
    measuring: usize,
    /// Rejected trials and late iterations.
    trouble: usize,
    /// Steps in a row that gained nothing.
    idle: usize,
    /// Whether the last step went on along a direction without an optimum: no better curvature shortens that way.
    tail: bool,
    /// What the last step promised that went to the end of a direction and beyond an optimum: the next one must promise
    /// less, as its rate is better known closer to the end. And how many did so.
    beyond: f64,
    turned: usize,
    /// The iteration that met a flat mode last.
    flat: Option<usize>,
    /// The engine's factor is not that of the point, or its mode is rough.
    stale: bool,
    /// Least curvature of the covariances, and what the last proposal promised.
    least: f64,
    decrease: f64,
    outcome: Outcome,
}

impl<'s, 'a, 'r> Search<'s, 'a, 'r> {
    fn new(set: &'s Setting<'a, 'r>, point: &Point, target: Option<Target<'s>>, first: usize) -> Self {
        let goal = target.map(|t| Goal::new(t.deviance, point.deviance, set.rows.n, point.u.len(), set.exact));
        Search {
            set,
            secants: vec![],
            last: None,
            pace: None,
            goal,
            end: target.and_then(|t| t.end),
            back: None,
            curvature: None,
            resting: vec![false; set.components.len() + set.charts.len()],
            damping: 0.0,
            close: false,
            iterations: 0,
            first,
            measuring: 0,
            trouble: 0,
            idle: 0,
            tail: false,
            beyond: f64::INFINITY,
            turned: 0,
            flat: None,
            stale: false,
            least: 1.0,
            decrease: 0.0,
            outcome: Outcome::Converged,
        }
    }

    /// Steps until there is none.
    fn run(&mut self, e: &mut Engine, mut point: Point) -> Result<Here, CoreError> {
        loop {
            let here = Here::of(e, self.set, point);
            if let Some((before, promised)) = self.pace.as_ref().and_then(|last| last.overshot(&here.slope)) {
                if let Ok(back) = self.set.again(e, before) {
                    self.turned += 1;
                    self.beyond = if self.turned < TURNS { promised } else { 0.0 };
                    (self.pace, self.last) = (None, None);
                    point = back;
                    continue;
                }
            }
            self.remember(&here);
            self.trouble += (self.iterations > USUAL && !self.tail) as usize;
            match self.advance(e, &here)? {
                Step::To(next) => {
                    self.last = Some(here.mark);
                    point = *next;
                    self.iterations += 1;
                }
                // Measure anew, from the same point.
                Step::Misled => match self.set.again(e, &here.point) {
                    Ok(same) => point = same,
                    Err(_) => {
                        (self.outcome, self.stale) = (Outcome::Stalled, true);
                        return Ok(here);
                    }
                },
                Step::None => return Ok(here),
            }
        }
    }

    /// Make a secant of the step that led here; those before a parameter came to rest or left are of another model.
    fn remember(&mut self, here: &Here) {
        if here.rest != self.resting {
            self.secants.clear();
            self.last = None;
            self.resting.clone_from(&here.rest);
        }
        if let Some(before) = self.last.take() {
            // Along a long step the curvature changes by more than a secant says; at the end of a direction old ones are of
            // a curvature that is no more.
            if self.pace.as_ref().is_some_and(|last| last.ended.is_some()) {
                self.secants.clear();
            } else if self.close || self.pace.as_ref().is_some_and(|last| last.promised < LONG) {
                self.secants.push(here.mark.secant(&before));
            }
            if self.secants.len() > MEMORY {
                self.secants.remove(0);
            }
        }
    }

    /// The measured curvature to be used here, if any, and whether it has just been measured: the engine's factor is then
    /// elsewhere.
    fn measured(&mut self, e: &mut Engine, here: &Here) -> (Option<Measured>, bool) {
        if self.trouble < PATIENCE {
            return (None, false);
        }
        if here.exact {
            // There is no better curvature than the exact one.
            self.close = true;
            return (None, false);
        }
        let carried = self.curvature.take();
        let carried = carried.and_then(|c| c.carried(e, &self.set.components, &here.point.lambda, &here.rest));
        if carried.is_some() {
            return (carried, false);
        }
        let before = e.evaluations;
        let hessian = measure(e, self.set, here);
        self.secants.clear();
        self.stale = true;
        self.measuring += e.evaluations - before;
        (hessian.map(|h| Measured::new(h, &here.point.lambda, &here.rest)), true)
    }

    /// One iteration: trials until a step is taken, or none is worth it.
    fn advance(&mut self, e: &mut Engine, here: &Here) -> Result<Step, CoreError> {
        let (curvature, elsewhere) = self.measured(e, here);
        let (lambda, components) = (&here.point.lambda, &self.set.components);
        let secants: Vec<_> = self.secants.iter().map(|s| s.local(e, lambda, components, &here.fixed)).collect();
        let measured = curvature.as_ref().map(|c| &c.hessian[..]);
        let around = Around { set: self.set, here, measured, secants: &secants };
        if std::mem::take(&mut e.flat) {
            self.flat = Some(self.iterations);
        }
        let mut tries = Tries::new(!elsewhere, curvature.as_ref().is_some_and(|c| c.age > 0));
        let step = loop {
            let proposal = around.propose(e, self.close, self.damping, &tries.gone);
            self.decrease = proposal.promised.abs();
            if self.close {
                self.least = proposal.curvature;
            } else if self.decrease < NEAR {
                self.close = true;
                continue;
            }
            if self.is_over(e, &around, &proposal) {
                break Step::None;
            }
            let trial = self.trial(e, &around, &proposal, &mut tries)?;
            if let Some(step) = self.judged(e, &around, &proposal, trial, &mut tries) {
                break step;
            }
        };
        self.curvature = curvature.filter(|_| !matches!(step, Step::Misled));
        Ok(step)
    }

    /// Whether the search ends here: what a step promises is nothing, or the search has gone on for long enough.
    fn is_over(&mut self, e: &mut Engine, around: &Around<'_, '_, '_>, proposal: &Proposal) -> bool {
        let (options, Here { point, noise, cancelled, .. }) = (self.set.options, around.here);
        if self.decrease < options.tolerance || (self.decrease < IDLE.max(*cancelled) && self.idle >= TWICE) {
            if self.damping > 0.0 {
                // Short steps promise little anywhere.
                self.decrease = around.propose(e, true, 0.0, &around.at_ends(e)).promised.abs();
                if self.decrease > IDLE.max(*noise) {
                    self.outcome = Outcome::Stalled;
                }
            }
            return true;
        }
        let times = if self.close { 3.0 } else { 10.0 };
        // A saddle promises next to nothing, whatever lies behind it.
        let saddle = self.close && proposal.curvature < 0.0;
        let reach = if self.damping == 0.0 && !saddle { times * self.decrease } else { f64::INFINITY };
        let lost = self.goal.as_mut().is_some_and(|goal| goal.is_lost(point.deviance, reach));
        let known = self.close && self.end.is_some_and(|end| returns_to(end, e, around, proposal));
        let hopeless = lost || known || self.back.as_ref().is_some_and(|back| back.is_near(around.here));
        if self.has_spent(e, options.max_evaluations) || hopeless {
            self.outcome = Outcome::MaxEvaluations;
            return true;
        }
        false
    }

    /// Whether a search has had its evaluations: those that measure a curvature are more, but not without end.
    fn has_spent(&self, e: &Engine, most: usize) -> bool {
        self.measuring >= MEASURING * most || e.evaluations - self.first - self.measuring >= most
    }

    /// Report what was found, and leave the engine there.
    fn end(mut self, e: &mut Engine, here: Here) -> Result<Found, CoreError> {
        let (set, Here { mut point, slope, held, .. }) = (self.set, here);
        let mut slope = uncharted(slope, &patterns::stretches(&set.charts, &point.shape));
        let held = or_ended(&e.patterns, &set.charts, &point.shape, held);
        let lately = self.flat.is_some_and(|at| at + LATELY > self.iterations);
        if self.outcome != Outcome::Converged && (e.flat || lately) {
            self.outcome = Outcome::FlatMode;
        }
        if let Some(residual) = set.residual.as_ref().filter(|r| r.rests(&point, &slope)) {
            self.stale = true;
            match residual.least(e, set.rows, &point, &slope) {
                Ok(Some(least)) if self.outcome == Outcome::Converged => (point, slope) = least,
                Ok(_) => {}
                Err(unbounded) => self.outcome = unbounded,
            }
        }
        let Search { outcome, iterations, decrease, least, stale, .. } = self;
        finish(e, set.rows, set.units, point, slope, &held, Ending { outcome, iterations, decrease, least, stale })
    }
}
