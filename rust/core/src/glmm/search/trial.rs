//! One trial of a step, and what is made of it.

use std::ops::Range;

use super::*;

/// Rejected trials in a row that are shortened as their deviance says; further ones are shortened by more.
const GENTLE: usize = 3;
/// Promised change of the deviance at which the mode is predicted as well as it is to be known, and the search goes on
/// from there: what it ends with is known better.
const PREDICTED: Range<f64> = 1e-6..1e-5;
/// A step is taken if it gains this share of what it promised.
const ENOUGH: f64 = 0.05;

/// How an iteration ends.
pub(super) enum Step {
    To(Box<Point>),
    /// A measured curvature that was carried along does not hold any more.
    Misled,
    None,
}

/// What the trials from one point have shown.
pub(super) struct Tries {
    /// Whether the factor of the engine is that of the point.
    fresh: bool,
    /// Whether a longer step may be tried.
    long: bool,
    /// Whether the curvature was measured at another point.
    carried: bool,
    rejected: usize,
    /// Coefficients that stay: the range may end there, and what the rows say nothing about does not shorten the others'
    /// way.
    pub(super) gone: Vec<usize>,
}

impl Tries {
    pub(super) fn new(fresh: bool, carried: bool) -> Self {
        Tries { fresh, long: fresh, carried, rejected: 0, gone: vec![] }
    }
}

/// Where a trial led.
pub(super) struct Trial {
    next: Result<Point, CoreError>,
    /// How many times as long as proposed it was, or the directions without an optimum that it went to the end of.
    stretch: f64,
    end: Option<End>,
}

impl Search<'_, '_, '_> {
    /// Evaluate a proposed step.
    pub(super) fn trial(
        &self,
        e: &mut Engine,
        around: &Around<'_, '_, '_>,
        proposal: &Proposal,
        tries: &mut Tries,
    ) -> Result<Trial, CoreError> {
        let (set, point, db, d) = (self.set, &around.here.point, &proposal.db, &proposal.d);
        let p = point.beta.len();
        let shape = patterns::step(&e.patterns, &point.shape, &db[p..], &set.charts, set.linked);
        let moved = apply(e.moments(), &set.components, &point.lambda, d);
        let (mut lambda, _) = clip_all(e.moments(), set.units, &moved, false);
        let pace = self.pace.as_ref().filter(|_| tries.long && self.damping == 0.0 && self.decrease < NEAR);
        let last = self.secants.last().filter(|_| self.decrease < self.beyond);
        let end = pace.zip(last).and_then(|(pace, last)| pace.to_the_end(e, around, last, &db[..p]));
        let stretch = pace.filter(|_| end.is_none()).map_or(1.0, |pace| pace.longer(&db[..p], self.decrease));
        let beta_step =
            end.as_ref().map_or_else(|| db[..p].iter().map(|d| stretch * d).collect(), |end| end.step.clone());
        let beta = set.coefficients(e, &point.beta, &beta_step);
        let put = patterns::put(e.moments(), &e.patterns, &shape, &mut lambda);
        let u = around.mode(e, proposal, &beta_step, &lambda, tries.fresh);
        (tries.long, tries.fresh) = (false, stretch > 1.0 || end.is_some());
        // An evaluation that fails is a rejected step, so its interruption is asked for apart.
        set.options.stop.check()?;
        e.tolerance = (1e-3 * self.decrease).clamp(INNER_TOLERANCE, LOOSE);
        let next = put.and_then(|()| match self.decrease {
            promised if PREDICTED.contains(&promised) => {
                e.evaluate_predicted(set.rows, &beta, &lambda, &shape, &u, promised)
            }
            _ => e.evaluate(set.rows, &beta, &lambda, &shape, &u),
        });
        Ok(Trial { next, stretch, end })
    }

    /// Take the step, or learn from it: none where another trial is to be made.
    pub(super) fn judged(
        &mut self,
        e: &Engine,
        around: &Around<'_, '_, '_>,
        proposal: &Proposal,
        trial: Trial,
        tries: &mut Tries,
    ) -> Option<Step> {
        let point = &around.here.point;
        let gained = trial.next.as_ref().map_or(f64::NEG_INFINITY, |next| point.deviance - next.deviance);
        match trial.next {
            Ok(next) if gained > ENOUGH * self.decrease - around.here.noise => {
                self.accept(e, around, proposal, gained, (trial.stretch, trial.end));
                return Some(Step::To(Box::new(next)));
            }
            _ if trial.stretch > 1.0 || trial.end.is_some() => self.pace = None,
            Err(_) if tries.gone.is_empty() && !around.unknown(e).is_empty() => tries.gone = around.unknown(e),
            _ => {
                self.stale = true;
                return self.reject(around, proposal, gained, tries);
            }
        }
        self.stale = true;
        None
    }

    fn accept(
        &mut self,
        e: &Engine,
        around: &Around<'_, '_, '_>,
        proposal: &Proposal,
        gained: f64,
        (stretch, end): (f64, Option<End>),
    ) {
        let (exact, noise) = (around.here.exact, around.here.noise);
        self.idle = if gained < noise { self.idle + 1 } else { 0 };
        if gained / self.decrease > 0.5 || self.decrease < noise {
            self.damping *= if exact { EASE } else { 0.1 };
        }
        if self.damping < if exact { NEGLIGIBLE * proposal.relative_curvature() } else { 1e-3 } {
            self.damping = 0.0;
        }
        let step = proposal.db[..around.here.point.beta.len()].to_vec();
        self.tail = self.decrease < NEAR && self.pace.take().is_some_and(|last| last.goes_on(&step));
        if self.tail && self.secants.len() > RECENT {
            self.secants.drain(..self.secants.len() - RECENT);
        }
        let ended = end.map(|end| (end.ways, around.here.point.clone()));
        self.pace = Some(Pace { step, promised: self.decrease, stretch, ended, cancelled: around.here.cancelled });
        self.stale = e.tolerance > INNER_TOLERANCE || PREDICTED.contains(&self.decrease);
    }

    /// Shorten the next step, if there is to be one.
    fn reject(
        &mut self,
        around: &Around<'_, '_, '_>,
        proposal: &Proposal,
        gained: f64,
        tries: &mut Tries,
    ) -> Option<Step> {
        self.trouble += 1;
        tries.rejected += 1;
        self.idle += (self.decrease < IDLE) as usize;
        if tries.carried {
            return Some(Step::Misled);
        }
        self.damping = if tries.rejected <= GENTLE && (around.here.exact || self.trouble >= PATIENCE) {
            let part = (self.decrease / (2.0 * self.decrease - gained)).clamp(0.1, 0.5);
            self.damping + proposal.relative_curvature() * (1.0 / part - 1.0)
        } else {
            (self.damping * 5.0).max(0.5)
        };
        if self.damping > 1e8 {
            self.outcome = Outcome::Stalled;
            return Some(Step::None);
        }
        None
    }
}

impl Setting<'_, '_> {
    /// Coefficients after a step.
    fn coefficients(&self, e: &Engine, from: &[f64], step: &[f64]) -> Vec<f64> {
        let mut to: Vec<f64> = from.iter().zip(step).map(|(b, d)| b + d).collect();
        if self.uneven {
            return shortened(e, self.rows, from, to);
        }
        if let Some(residual) = &self.residual {
            to[residual.at] = residual.step(from[residual.at], step[residual.at]);
        }
        to
    }
}

impl Around<'_, '_, '_> {
    /// Where the search for the mode begins after a step; `fresh` if the factor of the engine is that of the point.
    fn mode(&self, e: &mut Engine, proposal: &Proposal, step: &[f64], lambda: &[Vec<f64>], fresh: bool) -> Vec<f64> {
        let (set, point, slope) = (self.set, &self.here.point, &self.here.slope);
        let shape = &proposal.db[step.len()..];
        if !fresh {
            return point.u.clone();
        }
        if proposal.d.iter().all(|v| v.abs() < 0.5) && short(&slope.directions, shape) {
            let (delta, dlambda) = moved(e.moments(), &set.components, &proposal.d, slope, shape);
            let u = e.predict_mode(point, step, &delta, &dlambda);
            let u = e.carried((&point.lambda, &u), lambda);
            return if u.iter().all(|u| u.is_finite()) { u } else { point.u.clone() };
        }
        e.mode_under(point, step, lambda).unwrap_or_else(|| point.u.clone())
    }
}
