//! How fast a search goes: what it must reach, and steps along directions without an optimum.

use std::ops::Range;

use super::super::rows::{longest, still};
use super::*;

/// Longest step along a direction without an optimum, in Newton steps.
const LONGEST: f64 = 8.0;
/// Change of a step's length within which it goes on as the last one did.
const ALIKE: f64 = 0.6;
/// How many e-folds the slope may fall by along a step without an optimum: with the exact curvature it is one.
const FOLDS: Range<f64> = 0.2..1.6;
/// And while a predictor moves by one unit: one far out, more under a link whose tails are light.
const FALLS: Range<f64> = 0.3..4.0;
/// Least share of a column that rows which stay can tell from nothing.
const NOTHING: f64 = 1e-9;
/// Share of the tolerance that is left to fall where such a direction ends.
const REST: f64 = 0.1;
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

/// A step to the end of directions without an optimum, and these (p x directions).
pub(super) struct End {
    pub(super) step: Vec<f64>,
    pub(super) ways: Vec<f64>,
}

/// The step accepted last: separated outcomes send coefficients to infinity, where the deviance falls as exp(-eta) and
/// Newton steps have length 1 in eta for ever.
pub(super) struct Pace {
    pub(super) step: Vec<f64>,
    pub(super) promised: f64,
    /// How many times as long as proposed it was.
    pub(super) stretch: f64,
    /// Where it was made longer, to the end: the directions along which it was, and the point before.
    pub(super) ended: Option<(Vec<f64>, Point)>,
    /// Rounding error of differences where it began.
    pub(super) cancelled: f64,
}

impl Pace {
    /// The point before a step to an end that is none, and what it promised: further back the deviance is lower.
    pub(super) fn overshot(&self, slope: &Slope) -> Option<(&Point, f64)> {
        let (ways, before) = self.ended.as_ref()?;
        let beyond = ways.chunks_exact(slope.beta.len()).any(|way| dot(way, &slope.beta) > 0.0);
        beyond.then_some((before, self.promised))
    }

    /// Whether a step goes on where the last one went, no shorter.
    pub(super) fn goes_on(&self, step: &[f64]) -> bool {
        let (new, old) = (dot(step, step).sqrt(), dot(&self.step, &self.step).sqrt());
        dot(step, &self.step) > 0.9 * new * old && new > 0.6 * old
    }

    /// How much longer a step is made that goes on while everything moves: twice as much as the last one, where the promise
    /// fell as such a tail says.
    pub(super) fn longer(&self, step: &[f64], promised: f64) -> f64 {
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

    /// A step that goes on where nothing but rows on their way to a limit of their range move: it is made so long that
    /// hardly anything is left of the tolerance, but not where rounding errors hide what is left. None where it does not
    /// go on, or moves other rows too.
    pub(super) fn to_the_end(
        &self,
        e: &Engine,
        around: &Around<'_, '_, '_>,
        last: &Secant,
        step: &[f64],
    ) -> Option<End> {
        if !self.goes_on(step) {
            return None;
        }
        let Around { set, here: Here { slope, cancelled, .. }, .. } = around;
        let reach: Vec<f64> = (0..e.plan.k).map(|k| e.reach(k)).collect();
        let (products, of) = still(&e.plan, set.rows, step, &reach);
        let (ways, across) = free_ways(&products, &slope.beta_curvature, &of);
        let (tolerance, growth) = (REST * set.options.tolerance, (cancelled / self.cancelled).ln().max(0.0));
        let mut out = End { step: step.to_vec(), ways: vec![] };
        for (way, across) in ways.chunks_exact(step.len()).zip(across.chunks_exact(step.len())) {
            let (new, old, g) = (dot(across, step), dot(across, &self.step), dot(way, &slope.beta));
            let before = dot(across, &last.beta).abs();
            let rate = -(g / (g - dot(way, &last.beta_gradient))).ln() / before;
            let alike = (ALIKE..1.0 / ALIKE).contains(&(new / old)) && new * g < 0.0;
            let tail = || FALLS.contains(&(rate / longest(&e.plan, set.rows, way, &reach)));
            if alike && FOLDS.contains(&(rate * old.abs())) && tail() {
                let left = g.abs() / rate;
                let end = ((left / tolerance).ln() / rate).min((left / cancelled).ln() / (rate + growth / before));
                let more = (end - new.abs()).max(0.0).copysign(new);
                out.step.iter_mut().zip(way).for_each(|(o, v)| *o += more * v);
                out.ways.extend(way.iter().map(|v| v * new.signum()));
            }
        }
        (out.step != step).then_some(out)
    }
}

/// Directions among the coefficients `of` along which the rows behind the products `still` stay, and what finds a step's
/// part along each: of all such directions those that the curvature does not mix.
fn free_ways(still: &[f64], curvature: &[f64], of: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let (all, p) = ((still.len() as f64).sqrt() as usize, of.len());
    let among = |a: &[f64]| -> Vec<f64> { (0..p * p).map(|t| a[of[t % p] + of[t / p] * all]).collect() };
    let (mut scaled, curvature) = (among(still), among(curvature));
    let size: Vec<f64> = (0..p).map(|j| scaled[j * (p + 1)]).map(|v| if v > 0.0 { v.sqrt() } else { 1.0 }).collect();
    scaled.iter_mut().enumerate().for_each(|(t, v)| *v /= size[t % p] * size[t / p]);
    let (values, vectors) = dense::eigen_symmetric(&scaled, p);
    let free = values.iter().take_while(|v| **v < NOTHING).count();
    let unscaled: Vec<f64> = vectors[..free * p].iter().enumerate().map(|(t, v)| v / size[t % p]).collect();
    let mut bent = vec![0.0; p * free];
    dense::gemm(&mut bent, p, &curvature, p, &unscaled, p, p, free, p, 1.0);
    let mut between = vec![0.0; free * free];
    dense::gemm_tn(&mut between, free, &unscaled, p, &bent, p, free, free, p, 1.0);
    let turned = dense::eigen_symmetric(&between, free).1;
    let mut turn = |basis: &[f64], scale: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let (own, mut out) = (&mut bent, vec![0.0; all * free]);
        own.fill(0.0);
        dense::gemm(own, p, basis, p, &turned, free, p, free, free, 1.0);
        own.iter().enumerate().for_each(|(t, v)| out[of[t % p] + t / p * all] = v * scale(t % p));
        out
    };
    (turn(&unscaled, &|_| 1.0), turn(&vectors[..free * p], &|j| size[j]))
}
