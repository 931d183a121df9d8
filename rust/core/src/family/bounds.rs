//! Truncation: responses that lie within bounds of their row, since others were not recorded.
//!
//! log f(y | least <= Y <= most) = log f(y) - log P(least <= Y <= most). Both bounds are legal responses: those of counts
//! are counted, P(least <= Y) = 1 - F(least - 1). The mass within is told by the tail that both bounds are in.
//!
//! Moments without a closed form are sums over the probabilities, or integrals of the density by Gauss-Legendre panels
//! between quantiles of the truncated law, so that they are found wherever the bounds leave them.

use super::density::{Density, Legal, Row};
use super::draw::Stream;
use super::link::Par;
use super::modifiers::{impossible, ln_between, Modified};
use super::sums;
use crate::jet::{Jet, Scalar};

/// Bounds of a row; infinite where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Inside {
    pub least: f64,
    pub most: f64,
}

/// Logarithms of the tails of the truncated law between which panels lie: the first few for every law, all of them where
/// a tail may be heavy.
const LEVELS: [f64; 9] = [-0.7, -3.0, -8.0, -18.0, -36.0, -70.0, -140.0, -280.0, -560.0];
const LIGHT: usize = 5;
/// How far from its level the logarithm of a panel's edge may be, as a share of it.
const ROUGH: f64 = 0.2;
/// Counts that are added up one by one.
const SINGLE: f64 = 1024.0;
/// Logarithm of the mass from which draws are tried until one is inside.
const OFTEN: f64 = -1.6;
const TRIES: usize = 200;
/// Ends of the coordinates in which quantiles are sought: squares of what is there are numbers yet.
const FAR: f64 = 300.0;
/// 1 - 1 / (1 + exp(t)) is no number below 1 beyond.
const NEAR_ONE: f64 = 36.0;

impl Inside {
    /// (a, b] has the responses within, infinite where no response lies beyond a bound.
    fn ends(&self, legal: Legal, row: &Row) -> (f64, f64) {
        let (floor, ceiling) = match legal {
            Legal::Real => (f64::NEG_INFINITY, f64::INFINITY),
            Legal::OpenUnit | Legal::ClosedUnit | Legal::Proportion => (0.0, 1.0),
            _ => (0.0, f64::INFINITY),
        };
        let unit = unit(legal, row);
        let (a, b) = match unit {
            None => (self.least, self.most),
            Some(u) => (((self.least / u - 1e-9).ceil() - 1.0) * u, (self.most / u + 1e-9).floor() * u),
        };
        (if self.least <= floor { f64::NEG_INFINITY } else { a }, if self.most >= ceiling { f64::INFINITY } else { b })
    }
}

/// The distance of two responses, where they are discrete.
fn unit(legal: Legal, row: &Row) -> Option<f64> {
    match legal {
        Legal::Proportion => Some(1.0 / row.trials),
        _ => legal.is_discrete().then_some(1.0),
    }
}

/// log f(y) of the truncated law.
pub fn ln_density<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4], how: &Modified<S>, inside: &Inside) -> S {
    if !(inside.least <= row.y && row.y <= inside.most) {
        return impossible();
    }
    let ends = inside.ends(d.legal(), row);
    super::modifiers::ln_density(d, row, p, how) - ln_between(d, row, p, how, ends)
}

/// log F(y) and log (1 - F(y)) of the truncated law.
pub fn ln_cdf<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4], how: &Modified<S>, inside: &Inside) -> (S, S) {
    let (a, b) = inside.ends(d.legal(), row);
    if row.y < inside.least || row.y <= a {
        return (impossible(), S::constant(0.0));
    }
    if row.y >= b {
        return (S::constant(0.0), impossible());
    }
    let mass = ln_between(d, row, p, how, (a, b));
    let between = |ends| ln_between(d, row, p, how, ends) - mass;
    (between((a, row.y)), between((row.y, b)))
}

/// Mean and variance of the truncated law.
pub fn moments<D: Density>(d: &D, row: &Row, p: &[Par<f64>; 4], inside: &Inside) -> (f64, f64) {
    let law = Law::new(d, row, p, inside);
    let (mean, variance) = d.moments(row, p);
    let open = law.ends.0 == f64::NEG_INFINITY || law.ends.1 == f64::INFINITY;
    if open && d.legal() == Legal::Real && !mean.is_finite() {
        return (mean, variance);
    }
    if let Some(found) = d.moments_between(row, p, law.ends) {
        return found;
    }
    let s = law.sums(|y| [d.ln_density(&Row { y, ..*row }, p), 0.0, 0.0, 0.0, 0.0]);
    let spread = s.second - s.first * s.first;
    (s.centre + s.first, if open && d.legal() == Legal::Real && !variance.is_finite() { variance } else { spread })
}

/// Slopes of the mean in the predictors: E(Y | inside) has the covariances of Y with the scores.
pub fn mean_slopes<D: Density>(d: &D, row: &Row, p: &[Par<Jet<4, 10, 0>>; 4], inside: &Inside) -> [f64; 4] {
    let plain = p.map(|p| Par { eta: p.eta.value(), link: p.link });
    let s = Law::new(d, row, &plain, inside).sums(|y| {
        let mut out = [0.0; 15];
        d.ln_density(&Row { y, ..*row }, p).store(&mut out);
        [out[0], out[1], out[2], out[3], out[4]]
    });
    std::array::from_fn(|k| s.both[k] - s.first * s.scores[k])
}

/// One draw of the truncated law.
pub fn draw<D: Density>(d: &D, row: &Row, p: &[Par<f64>; 4], inside: &Inside, rng: &mut Stream) -> f64 {
    let law = Law::new(d, row, p, inside);
    if law.mass.is_nan() {
        return f64::NAN;
    }
    if law.mass > OFTEN {
        for _ in 0..TRIES {
            let y = d.draw(row, p, rng);
            if inside.least <= y && y <= inside.most {
                return y;
            }
        }
    }
    let u = rng.uniform();
    let half = (u - 0.5).abs() - 0.5; // minus the smaller tail
    let y = law.quantile(if u < 0.5 { -1.0 } else { 1.0 }, (-half).ln(), law.middle(), 1e-13);
    law.lump(y).clamp(inside.least, inside.most)
}

/// Sums over a truncated law about a number: of y, its square, the scores and both.
struct Sums {
    centre: f64,
    first: f64,
    second: f64,
    scores: [f64; 4],
    both: [f64; 4],
}

impl Sums {
    fn add(&mut self, weight: f64, y: f64, scores: &[f64]) {
        let r = y - self.centre;
        // Where the density underflows, scores may be infinite.
        if weight > 0.0 {
            self.first += weight * r;
            self.second += weight * r * r;
            for (k, s) in scores.iter().enumerate() {
                self.scores[k] += weight * s;
                self.both[k] += weight * r * s;
            }
        }
    }
}

/// The truncated law of one row.
struct Law<'a, D> {
    d: &'a D,
    row: &'a Row,
    p: &'a [Par<f64>; 4],
    ends: (f64, f64),
    mass: f64,
    unit: Option<f64>,
    chart: Chart,
}

impl<'a, D: Density> Law<'a, D> {
    fn new(d: &'a D, row: &'a Row, p: &'a [Par<f64>; 4], inside: &Inside) -> Self {
        let ends = inside.ends(d.legal(), row);
        let chart = Chart::of(d.legal(), d.moments(row, p));
        let mut law = Law { d, row, p, ends, mass: 0.0, unit: unit(d.legal(), row), chart };
        law.mass = law.ln_share(ends);
        law
    }

    /// log P(a < Y <= b) as a share of what is inside.
    fn ln_share(&self, ends: (f64, f64)) -> f64 {
        let how = Modified { truncated: false, extra: None, inside: None };
        ln_between(self.d, self.row, self.p, &how, ends) - self.mass
    }

    /// log F(y) (`side` -1) or log (1 - F(y)) (1).
    fn ln_tail(&self, side: f64, y: f64) -> f64 {
        let (a, b) = self.ends;
        match side < 0.0 {
            true if y <= a => f64::NEG_INFINITY,
            true => self.ln_share((a, y.min(b))),
            false if y >= b => f64::NEG_INFINITY,
            false => self.ln_share((y.max(a), b)),
        }
    }

    /// What is between the ends next to the mean without them.
    fn middle(&self) -> f64 {
        let mean = match self.chart {
            Chart::Real(centre, _) => centre,
            _ => self.d.moments(self.row, self.p).0,
        };
        mean.max(self.ends.0).min(self.ends.1)
    }

    /// Where the tail on one side has this logarithm, up to `tolerance` in it, sought from a place on; of counts the least
    /// with F(y) of it.
    fn quantile(&self, side: f64, level: f64, from: f64, tolerance: f64) -> f64 {
        match self.unit {
            Some(unit) => self.whole_quantile(side, level, unit) * unit,
            None => {
                let ends = (self.chart.at_end(self.ends.0, -1.0), self.chart.at_end(self.ends.1, 1.0));
                let above = |t: f64| side * (level - self.ln_tail(side, self.chart.y(t)));
                let start = self.chart.t(from).max(ends.0).min(ends.1);
                self.chart.y(root(above, around(above, start, ends), tolerance))
            }
        }
    }

    fn whole_quantile(&self, side: f64, level: f64, unit: f64) -> f64 {
        let reached = |k: f64| side * (level - self.ln_tail(side, k * unit)) >= 0.0;
        let mut low = if self.ends.0 == f64::NEG_INFINITY { -1.0 } else { (self.ends.0 / unit).round() };
        let mut high = match self.ends.1 {
            b if b < f64::INFINITY => (b / unit).round(),
            _ if self.d.legal() == Legal::Proportion => self.row.trials,
            _ => {
                let mut step = 1.0;
                while !reached(low + step) && step < 1e15 {
                    step *= 2.0;
                }
                low + step
            }
        };
        while high - low > 1.0 {
            let middle = ((low + high) / 2.0).floor();
            if reached(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    /// The law without responses that have a mass of their own, 0 and 1.
    fn between_lumps(&self) -> Self {
        let (mut a, mut b) = self.ends;
        let legal = self.d.legal();
        if matches!(legal, Legal::NonNegative | Legal::ClosedUnit) {
            a = a.max(0.0);
        }
        if legal == Legal::ClosedUnit {
            b = b.min(1.0f64.next_down());
        }
        let mut law = Law { ends: (a, b), mass: 0.0, ..*self };
        law.mass = law.ln_share((a, b));
        law
    }

    /// A response that has a mass of its own, where a quantile came next to it.
    fn lump(&self, y: f64) -> f64 {
        match self.d.legal() {
            Legal::NonNegative if y < 1e-290 => 0.0,
            Legal::ClosedUnit if y < 1e-290 => 0.0,
            Legal::ClosedUnit if y > 1.0 - 1e-15 => 1.0,
            _ => y,
        }
    }

    /// Edges of panels in ascending order.
    fn edges(&self) -> Vec<f64> {
        let levels = &LEVELS[..if self.d.legal() == Legal::Real { LEVELS.len() } else { LIGHT }];
        let mut out = vec![];
        for side in [-1.0, 1.0] {
            let mut from = self.middle();
            for &level in levels {
                from = self.quantile(side, level, from, ROUGH * level.abs());
                out.push(from);
            }
        }
        out.sort_by(f64::total_cmp);
        out.dedup();
        out
    }

    /// Sums of what `at` says of a response: the logarithm of its untruncated density, and its scores.
    fn sums(&self, at: impl Fn(f64) -> [f64; 5]) -> Sums {
        let edges = self.between_lumps().edges();
        let centre = edges[edges.len() / 2];
        let mut s = Sums { centre, first: 0.0, second: 0.0, scores: [0.0; 4], both: [0.0; 4] };
        if self.mass.is_nan() || edges.iter().any(|e| e.is_nan()) {
            s.centre = f64::NAN;
            return s;
        }
        let mut add = |y: f64, weight: f64| {
            let found = at(y);
            s.add(weight * (found[0] - self.mass).exp(), y, &found[1..]);
        };
        match self.unit {
            Some(unit) => self.add_counts(&edges, unit, &mut add),
            None => self.integrate(&edges, &mut add),
        }
        if let Chart::Unit = self.chart {
            // What a steep density has nearer to 1 than numbers are.
            let rest = self.ln_tail(1.0, edges[edges.len() - 1]);
            if self.ends.1 == f64::INFINITY && self.d.legal() == Legal::OpenUnit {
                s.add(rest.exp(), 1.0, &[]);
            }
        }
        s
    }

    fn integrate(&self, edges: &[f64], add: &mut impl FnMut(f64, f64)) {
        for pair in edges.windows(2) {
            let (low, high) = (self.chart.t(pair[0]), self.chart.t(pair[1]));
            for (x, w) in sums::legendre() {
                let t = 0.5 * (low + high + x * (high - low));
                add(self.chart.y(t), 0.5 * (high - low) * w * self.chart.slope(t));
            }
        }
        let legal = self.d.legal();
        if matches!(legal, Legal::NonNegative | Legal::ClosedUnit) && self.ends.0 == f64::NEG_INFINITY {
            add(0.0, 1.0);
        }
        if legal == Legal::ClosedUnit && self.ends.1 == f64::INFINITY {
            add(1.0, 1.0);
        }
    }

    /// Few counts one by one; many as an integral with Gregory's corrections at its ends.
    fn add_counts(&self, edges: &[f64], unit: f64, add: &mut impl FnMut(f64, f64)) {
        let whole: Vec<f64> = edges.iter().map(|e| (e / unit).round()).collect();
        let (first, last) = (whole[0], whole[whole.len() - 1]);
        let single = if last - first <= 4.0 * SINGLE { last } else { first + SINGLE };
        let mut k = first;
        while k <= single {
            add(k * unit, 1.0);
            k += 1.0;
        }
        if single == last {
            return;
        }
        let inner = whole.iter().copied().filter(|&e| e > k && e < last);
        let panels: Vec<f64> = std::iter::once(k).chain(inner).chain([last]).collect();
        for pair in panels.windows(2) {
            for (x, w) in sums::legendre() {
                add(0.5 * (pair[0] + pair[1] + x * (pair[1] - pair[0])) * unit, 0.5 * (pair[1] - pair[0]) * w);
            }
        }
        for (j, w) in sums::end_weights().iter().enumerate() {
            add((k + j as f64) * unit, *w);
            add((last - j as f64) * unit, *w);
        }
    }
}

/// A coordinate in which a density has light tails and its panels are smooth.
#[derive(Clone, Copy)]
enum Chart {
    /// y = centre + scale sinh t
    Real(f64, f64),
    /// y = exp t
    Positive,
    /// y = 1 / (1 + exp(-t))
    Unit,
}

impl Chart {
    fn of(legal: Legal, (mean, variance): (f64, f64)) -> Self {
        match legal {
            Legal::Real if mean.is_finite() && variance.is_finite() => Chart::Real(mean, variance.sqrt().max(1e-300)),
            Legal::Real => Chart::Real(0.0, 1.0),
            Legal::OpenUnit | Legal::ClosedUnit => Chart::Unit,
            _ => Chart::Positive,
        }
    }

    fn y(self, t: f64) -> f64 {
        match self {
            Chart::Real(centre, scale) => centre + scale * t.sinh(),
            Chart::Positive => t.exp(),
            Chart::Unit => crate::special::logistic_pair(t).0,
        }
    }

    fn t(self, y: f64) -> f64 {
        match self {
            Chart::Real(centre, scale) => ((y - centre) / scale).asinh(),
            Chart::Positive => y.ln(),
            Chart::Unit => y.ln() - (-y).ln_1p(),
        }
    }

    fn slope(self, t: f64) -> f64 {
        match self {
            Chart::Real(_, scale) => scale * t.cosh(),
            Chart::Positive => t.exp(),
            Chart::Unit => {
                let (p, q) = crate::special::logistic_pair(t);
                p * q
            }
        }
    }

    /// The coordinate of an end, finite.
    fn at_end(self, y: f64, side: f64) -> f64 {
        let most = if side > 0.0 && matches!(self, Chart::Unit) { NEAR_ONE } else { FAR };
        if y.is_infinite() {
            side * most
        } else {
            self.t(y).clamp(-FAR, most)
        }
    }
}

/// An interval around the zero of an increasing function, not far from a place; up to an end where it has none.
fn around(f: impl Fn(f64) -> f64, start: f64, ends: (f64, f64)) -> (f64, f64) {
    let (mut low, mut high, mut step) = (start, start, 0.5);
    if f(start) < 0.0 {
        while high < ends.1 && (high == start || f(high) < 0.0) {
            (low, high, step) = (high, (high + step).min(ends.1), 2.0 * step);
        }
    } else {
        while low > ends.0 && (low == start || f(low) > 0.0) {
            (high, low, step) = (low, (low - step).max(ends.0), 2.0 * step);
        }
    }
    (low, high)
}

/// Where an increasing function is 0, by false positions with bisections between; an end where it has no zero.
fn root(f: impl Fn(f64) -> f64, (mut low, mut high): (f64, f64), tolerance: f64) -> f64 {
    let (mut f_low, mut f_high) = (f(low), f(high));
    if !(f_low < 0.0) {
        return low;
    }
    if !(f_high > 0.0) {
        return high;
    }
    for turn in 0..200 {
        let middle = 0.5 * (low + high);
        let secant = (low * f_high - high * f_low) / (f_high - f_low);
        let t = if turn % 3 < 2 && secant > low && secant < high { secant } else { middle };
        let value = f(t);
        if value.abs() < tolerance || high - low < 1e-14 * (1.0 + middle.abs()) {
            return t;
        }
        // The Illinois rule: an end that stays counts half.
        if value < 0.0 {
            (low, f_low, f_high) = (t, value, 0.5 * f_high);
        } else {
            (high, f_high, f_low) = (t, value, 0.5 * f_low);
        }
    }
    0.5 * (low + high)
}
