//! How fast a search goes: what it must reach, and steps along directions without an optimum.

use super::*;

/// Longest step along a direction without an optimum, in Newton steps.
const LONGEST: f64 = 8.0;
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
pub(super) struct Goal {
    target: f64,
    most: f64,
    left: f64,
    steps: usize,
    /// Whether the first steps may be slow: they are cheap, and the model is exact.
    patient: bool,
}

impl Goal {
    /// A search that begins at `deviance`.
    pub(super) fn new(target: f64, deviance: f64, n: usize, effects: usize, exact: bool) -> Self {
        let patient = exact && n * effects <= CHEAP;
        Goal { target, most: FAR * n as f64, left: deviance - target, steps: 0, patient }
    }

    /// Whether what a step may reach is too little, or the last ones led nowhere.
    pub(super) fn is_lost(&mut self, deviance: f64, reach: f64) -> bool {
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

/// The way back to coefficients that were found before.
pub(super) struct Back {
    middle: Vec<f64>,
    way: Vec<f64>,
}

impl Back {
    pub(super) fn new(from: &[f64], to: &[f64]) -> Self {
        let middle = from.iter().zip(to).map(|(a, b)| 0.5 * (a + b)).collect();
        Back { middle, way: from.iter().zip(to).map(|(a, b)| b - a).collect() }
    }

    /// Whether more than half of the way is gone, as the information measures it; coefficients that were the same at both
    /// ends go their own ways.
    pub(super) fn is_near(&self, here: &Here) -> bool {
        let (beta, curve, p) = (&here.point.beta, &here.slope.beta_curvature, self.way.len());
        let of: Vec<usize> = (0..p).filter(|&j| self.way[j] != 0.0).collect();
        let along = |i: usize| of.iter().map(|&j| curve[i + j * p] * self.way[j]).sum::<f64>();
        of.iter().map(|&i| (beta[i] - self.middle[i]) * along(i)).sum::<f64>() > 0.0
    }
}

/// The step accepted last: separated outcomes send coefficients to infinity, where the deviance falls as exp(-eta) and
/// Newton steps have length 1 in eta for ever. Where the promise fell as such a tail says and the direction is the same,
/// the next step is twice as long.
pub(super) struct Pace {
    pub(super) step: Vec<f64>,
    pub(super) promised: f64,
    pub(super) stretch: f64,
}

impl Pace {
    pub(super) fn next(&self, step: &[f64], promised: f64) -> f64 {
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
    pub(super) fn goes_on(&self, step: &[f64]) -> bool {
        let (new, old) = (dot(step, step).sqrt(), dot(&self.step, &self.step).sqrt());
        dot(step, &self.step) > 0.9 * new * old && new > 0.6 * old
    }
}
