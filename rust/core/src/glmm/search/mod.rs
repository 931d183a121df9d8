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
mod residual;
mod secants;

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

use super::laplace::{dot, positive, Engine, Point, Slope, INNER_TOLERANCE};
use super::patterns::{self, Direction, Path, Patterned};
use super::rows::GlmmRows;

use charted::*;
pub use ending::settled;
use ending::*;
use joint::*;
use measured::*;
use residual::shortened;
pub use residual::Residual;
use secants::*;

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
/// Rejected trials in a row that are shortened as their deviance says; further ones are shortened by more.
const GENTLE: usize = 3;
/// What is left of the damping after a step that went well, where the curvature is exact.
const EASE: f64 = 0.2;
/// Share of the curvature along a step below which damping is none.
const NEGLIGIBLE: f64 = 1e-2;
/// Promised change of the deviance of steps that are too long for a secant.
const LONG: f64 = 2.0;
/// Longest step along a direction without an optimum, in Newton steps.
const LONGEST: f64 = 8.0;
/// Pairs kept on such a way: the curvature falls with every step, and old pairs hold it up.
const RECENT: usize = 2;
/// What is left of random effects that are too much to begin with.
const SMALLER: f64 = 0.1;
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
    /// A deviance that is to be reached: the search is given up where it does not lead there.
    pub target: Option<f64>,
}

/// Promised change of the deviance that may be nothing but rounding errors of the gradient, where steps have gained
/// nothing this many times.
const IDLE: f64 = 1e-6;
const TWICE: usize = 3;
/// Steps after which a search must have come nearer to its goal.
const STEPS: usize = 8;
/// Most of the way that may then be left.
const LEFT: f64 = 0.3;
/// How many such steps.
const PATIENT: usize = 24;
/// Rows times random effects up to which steps cost next to nothing.
const CHEAP: usize = 400_000;
/// Deviance of one observation by which a model is of another kind.
const FAR: f64 = 10.0;

/// A deviance to be reached, and how far it was when this was asked last.
struct Goal {
    target: f64,
    most: f64,
    left: f64,
    steps: usize,
    /// Whether the first steps may be slow: they are cheap, and the model is exact.
    patient: bool,
}

impl Goal {
    /// Whether what a step may reach is too little, or the last ones led nowhere.
    fn is_lost(&mut self, deviance: f64, reach: f64) -> bool {
        let left = deviance - self.target;
        self.steps += 1;
        if left > self.most || left > 0.0 && (left > reach || self.is_slow(left)) {
            return true;
        }
        if self.steps.is_multiple_of(STEPS) {
            self.left = left.max(0.0);
        }
        false
    }

    fn is_slow(&self, left: f64) -> bool {
        let free = if self.patient { PATIENT } else { 0 };
        self.steps > free && self.steps.is_multiple_of(STEPS) && left > LEFT * self.left
    }
}

/// The step accepted last: separated outcomes send coefficients to infinity, where the deviance falls as exp(-eta) and
/// Newton steps have length 1 in eta for ever. Where the promise fell as such a tail says and the direction is the same,
/// the next step is twice as long.
struct Pace {
    step: Vec<f64>,
    promised: f64,
    stretch: f64,
}

impl Pace {
    fn next(&self, step: &[f64], promised: f64) -> f64 {
        if !self.goes_on(step) {
            return 1.0;
        }
        let tail = (promised / self.promised).ln() + self.stretch;
        if tail.abs() < 0.35 * self.stretch {
            (2.0 * self.stretch).min(LONGEST)
        } else {
            1.0
        }
    }

    /// Whether a step goes on where the last one went, no shorter.
    fn goes_on(&self, step: &[f64]) -> bool {
        let (new, old) = (dot(step, step).sqrt(), dot(&self.step, &self.step).sqrt());
        dot(step, &self.step) > 0.9 * new * old && new > 0.6 * old
    }
}

/// Minimise the Laplace (or quadrature) deviance.
pub fn minimise(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    from: &First<'_>,
    options: &Options,
) -> Result<Found, CoreError> {
    let components = e.lmm().components.clone();
    let (p, c, free) = (e.plan.p(), components.len(), from.shape.len());
    let mut first = e.evaluations;
    let mut trouble = 0;
    let constraint = e.constraint.clone();
    let charts = patterns::charts(e.moments(), &e.patterns, units, &constraint, from.shape);
    let residual = Residual::of(e, rows);
    e.residual = residual.as_ref().map(|r| (r.at, r.unit));
    let one = e.moments().factors.len() == 1 && e.patterns.iter().all(|p| p.is_bent());
    // A residual that is held has nothing to trade.
    let told = || residual.is_some() || e.plan.coefficients_of(1).is_empty();
    let shared = e.is_normal(rows) && e.patterns.iter().any(|p| !p.pattern.is_loadings());
    let exact = one && shared && told();
    let uneven = residual.is_none() && shared;
    e.whole = exact || residual.is_some();
    // A residual trades variances with a structure, and leaves its covariances what they are.
    let linked = residual.is_some() && constraint.tied.is_empty();
    let mut shape = from.shape.to_vec();
    constraint.impose(&mut shape);
    let shape = patterns::step(&e.patterns, &shape, &vec![0.0; free], &charts, false);
    let (mut lambda, _) = clip_all(e.moments(), units, from.lambda, false);
    patterns::put(e.moments(), &e.patterns, &shape, &mut lambda)?;
    let zero = vec![0.0; e.size()];
    e.tolerance = LOOSE;
    let mut shape = shape;
    let mut begun = e.evaluate(rows, from.beta, &lambda, &shape, &zero);
    for _ in 0..3 {
        // Random effects that leave the support or overflow: begin with smaller ones.
        if begun.is_err() {
            lambda.iter_mut().flatten().for_each(|l| *l *= SMALLER);
            lambda = clip_all(e.moments(), units, &lambda, false).0;
            shape = patterns::shrunk(&e.patterns, &shape, &charts, SMALLER);
            constraint.impose(&mut shape);
            patterns::put(e.moments(), &e.patterns, &shape, &mut lambda)?;
            begun = e.evaluate(rows, from.beta, &lambda, &shape, &zero);
        }
    }
    let mut point = begun?;
    let mut secants: Vec<Secant> = vec![];
    let mut last: Option<Mark> = None;
    let (mut damping, mut close, mut iterations) = (0.0, false, 0);
    let mut least = 1.0;
    let mut decrease;
    let mut outcome = Outcome::Converged;
    let mut resting: Vec<bool> = vec![false; c + free];
    let mut stale = false;
    let mut pace: Option<Pace> = None;
    // Whether the last step went on along a direction without an optimum: no better curvature shortens that way.
    let mut tail = false;
    let mut curvature: Option<Measured> = None;
    let begin = |target: f64| (FAR * rows.n as f64, point.deviance - target, exact && rows.n * point.u.len() <= CHEAP);
    let mut goal = from.target.map(|target| {
        let (most, left, patient) = begin(target);
        Goal { target, most, left, steps: 0, patient }
    });
    let mut idle = 0;
    // The iteration that met a flat mode last.
    let mut flat = None;
    let (slope, held) = loop {
        let slope = bent(e.slope(rows, &point), &charts, &point.shape);
        let slope = if linked { patterns::linked(slope, &e.patterns, &charts, &point.shape) } else { slope };
        let slope = charted(slope, &patterns::stretches(&charts, &point.shape));
        let working = working_slope(&slope, 0);
        let fixed = at_floor(e.moments(), units, &components, &point.lambda, &working_slope(&slope, free));
        let pooled = constraint.pooled(&slope.gradient[..free]);
        let held = patterns::held(&e.patterns, &point.shape, &charts, &pooled);
        let still = (0..free).map(|i| held[i] || constraint.holds(i));
        let rest: Vec<bool> = still.chain(fixed.iter().copied()).collect();
        if rest != resting {
            secants.clear();
            last = None;
            resting.clone_from(&rest);
        }
        let turned = padded(&turning(e.moments(), &components, &slope.n, &fixed), free, c);
        let mark = Mark::new(e, &point, &slope, &charts);
        if let Some(before) = last.take() {
            // Along a long step the curvature changes by more than a secant says.
            if close || pace.as_ref().is_some_and(|last| last.promised < LONG) {
                secants.push(mark.secant(&before));
            }
            if secants.len() > MEMORY {
                secants.remove(0);
            }
        }
        trouble += (iterations > USUAL && !tail) as usize;
        // Measuring leaves the factor of the engine elsewhere.
        let mut fresh = true;
        if exact && trouble >= PATIENCE {
            // There is no better curvature than the exact one.
            (curvature, close) = (None, true);
        } else if trouble < PATIENCE {
            curvature = None;
        } else {
            curvature = curvature.take().and_then(|c: Measured| c.carried(e, &components, &point.lambda, &rest));
            if curvature.is_none() {
                let before = e.evaluations;
                let h = measure(e, rows, &point, &mark, &slope, &charts, &components, &fixed, &turned);
                curvature = h.map(|hessian| Measured::new(hessian, &point.lambda, &rest));
                secants.clear();
                (stale, fresh) = (true, false);
                first += e.evaluations - before;
            }
        }
        let local: Vec<_> = secants.iter().map(|s| s.local(e, &point.lambda, &components, &fixed)).collect();
        let around = Around {
            slope: &slope,
            working: &working,
            turned: &turned,
            rest: &rest,
            fixed: &fixed,
            charts: &charts,
            components: &components,
            point: &point,
            residual: residual.as_ref(),
            constraint: &constraint,
            measured: curvature.as_ref().map(|c| &c.hessian[..]),
            secants: &local,
            exact,
        };
        let mut accepted = None;
        let mut misled = false;
        if std::mem::take(&mut e.flat) {
            flat = Some(iterations);
        }
        let mut long = fresh;
        let mut rejected = 0;
        let mut gone = vec![];
        loop {
            let Proposal { db, d, promised, stiff, curvature: l } = around.propose(e, close, damping, &gone);
            if close {
                least = l;
            }
            decrease = promised.abs();
            if decrease < 0.5 && !close {
                close = true;
                continue;
            }
            let noise = 1e-11 * (point.deviance.abs() + rows.n as f64);
            if decrease < options.tolerance || (decrease < IDLE && idle >= TWICE) {
                if damping > 0.0 {
                    // Short steps promise little anywhere.
                    decrease = around.propose(e, true, 0.0, &around.at_ends(e)).promised.abs();
                    if decrease > IDLE.max(noise) {
                        outcome = Outcome::Stalled;
                    }
                }
                break;
            }
            let times = if close { 3.0 } else { 10.0 };
            let reach = if damping == 0.0 { times * decrease } else { f64::INFINITY };
            let hopeless = goal.as_mut().is_some_and(|goal| goal.is_lost(point.deviance, reach));
            if e.evaluations - first >= options.max_evaluations || hopeless {
                outcome = Outcome::MaxEvaluations;
                break;
            }
            let shape = patterns::step(&e.patterns, &point.shape, &db[p..], &charts, linked);
            let (mut trial, _) =
                clip_all(e.moments(), units, &apply(e.moments(), &components, &point.lambda, &d), false);
            let stretch = match &pace {
                Some(pace) if long && damping == 0.0 && decrease < 0.5 => pace.next(&db, decrease),
                _ => 1.0,
            };
            long = false;
            let mut b: Vec<f64> = point.beta.iter().zip(&db).map(|(b, d)| b + stretch * d).collect();
            if uneven {
                b = shortened(e, rows, &point.beta, b);
            } else if let Some(residual) = &residual {
                b[residual.at] = residual.step(point.beta[residual.at], stretch * db[residual.at]);
            }
            let near = fresh && d.iter().all(|v| v.abs() < 0.5) && short(&slope.directions, &db[p..]);
            let u = if near {
                let (delta, dlambda) = moved(e.moments(), &components, &d, &slope, &db[p..]);
                let db: Vec<f64> = db[..p].iter().map(|d| stretch * d).collect();
                e.predict_mode(&point, &db, &delta, &dlambda)
            } else if fresh {
                let db: Vec<f64> = db[..p].iter().map(|d| stretch * d).collect();
                e.mode_under(&point, &db, &trial).unwrap_or_else(|| point.u.clone())
            } else {
                point.u.clone()
            };
            fresh = stretch > 1.0;
            // An evaluation that fails is a rejected step, so its interruption is asked for apart.
            options.stop.check()?;
            e.tolerance = (1e-3 * decrease).clamp(INNER_TOLERANCE, LOOSE);
            let next = patterns::put(e.moments(), &e.patterns, &shape, &mut trial)
                .and_then(|()| e.evaluate(rows, &b, &trial, &shape, &u));
            match next {
                Ok(next) if point.deviance - next.deviance > 0.05 * decrease - noise => {
                    idle = if point.deviance - next.deviance < noise { idle + 1 } else { 0 };
                    let ratio = (point.deviance - next.deviance) / decrease;
                    let bend = relative_curvature(decrease, &stiff, &db, &d);
                    damping = if ratio > 0.5 || decrease < noise {
                        damping * if exact { EASE } else { 0.1 }
                    } else {
                        damping
                    };
                    if damping < if exact { NEGLIGIBLE * bend } else { 1e-3 } {
                        damping = 0.0;
                    }
                    let step = db[..p].to_vec();
                    tail = decrease < 0.5 && pace.is_some_and(|last| last.goes_on(&step));
                    if tail && secants.len() > RECENT {
                        secants.drain(..secants.len() - RECENT);
                    }
                    pace = Some(Pace { step, promised: decrease, stretch });
                    accepted = Some(next);
                    stale = e.tolerance > INNER_TOLERANCE;
                    break;
                }
                _ if stretch > 1.0 => {
                    stale = true;
                    pace = None;
                }
                Err(_) if gone.is_empty() && !around.unknown(e).is_empty() => {
                    // The range may end there: what the rows say nothing about stays, and does not shorten the others' way.
                    stale = true;
                    gone = around.unknown(e);
                }
                next => {
                    stale = true;
                    trouble += 1;
                    rejected += 1;
                    idle += (decrease < IDLE) as usize;
                    if curvature.as_ref().is_some_and(|c| c.age > 0) {
                        misled = true;
                        break;
                    }
                    damping = if rejected <= GENTLE && (exact || trouble >= PATIENCE) {
                        let worse = next.map_or(f64::INFINITY, |n| n.deviance - point.deviance);
                        let part = (decrease / (2.0 * decrease + worse)).clamp(0.1, 0.5);
                        damping + relative_curvature(decrease, &stiff, &db, &d) * (1.0 / part - 1.0)
                    } else {
                        (damping * 5.0).max(0.5)
                    };
                    if damping > 1e8 {
                        outcome = Outcome::Stalled;
                        break;
                    }
                }
            }
        }
        if misled {
            // Measure anew, from the same point.
            curvature = None;
            e.tolerance = INNER_TOLERANCE;
            match e.evaluate(rows, &point.beta, &point.lambda, &point.shape, &point.u) {
                Ok(same) => point = same,
                Err(_) => {
                    (outcome, stale) = (Outcome::Stalled, true);
                    break (slope, held);
                }
            }
            continue;
        }
        match accepted {
            Some(next) => {
                last = Some(mark);
                point = next;
                iterations += 1;
            }
            None => break (slope, held),
        }
    };
    let mut slope = uncharted(slope, &patterns::stretches(&charts, &point.shape));
    let held = or_ended(&e.patterns, &charts, &point.shape, held);
    let lately = |at: usize| at + LATELY > iterations;
    if outcome != Outcome::Converged && (e.flat || flat.is_some_and(lately)) {
        outcome = Outcome::FlatMode;
    }
    if let Some(residual) = residual.filter(|r| r.rests(&point, &slope)) {
        stale = true;
        match residual.least(e, rows, &point, &slope) {
            Ok(Some(least)) if outcome == Outcome::Converged => (point, slope) = least,
            Ok(_) => {}
            Err(unbounded) => outcome = unbounded,
        }
    }
    finish(e, rows, units, point, slope, &held, Ending { outcome, iterations, decrease, least, stale })
}
