//! Where structures end: the ranges of their parameters, coordinates in which the deviance runs straight into a limit,
//! and the singular covariance that lies there.
//!
//! A correlation of 1, a partial autocorrelation of +-1 and an infinite range are ordinary places for an optimum, as a
//! variance of 0 is. In the unconstrained parameter they lie at infinity, and the deviance runs out like exp(-theta) or
//! 1 / theta^2. In the variance that is lost there (1 - rho, distance / range) it is straight, so the search takes its
//! steps in that coordinate and stops at an edge just before the limit; the end of the search goes on to the limit.

use super::{Kind, Natural, Pattern};

/// Share of a variance that is left at the edge of the search.
const EDGE: f64 = 2e-8;
/// Share of a variance below which the search may have ended before it came to the edge.
const NEAR: f64 = 1e-6;
/// Most that a direction may have of the variance before it is taken for one that has none.
const NOTHING: f64 = 1e-12;
/// Largest ratio of distances and ranges; where the smoothness is free, no power of it can be told from a limit.
const FAR: f64 = 1e20;
/// Correlation of the nearest columns below which they are none.
const UNRELATED: f64 = 1e-4;
/// That below which no gain of the deviance can be told from rounding errors.
const SILENT: f64 = 1e-7;
/// Logarithms of a smoothness and the end of its range that are one.
const END: f64 = 1e-6;
/// Distance, in ranges, at which nothing is correlated.
const APART: f64 = 30.0;

/// A coordinate for the search, increasing in the parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    Same,
    /// rho = a / sqrt(1 + a^2).
    Partial,
    /// -1 / (1 + exp(slope (a - centre))): precise at its upper end, which is 0.
    Logistic {
        slope: f64,
        centre: f64,
    },
    /// exp(power (a - centre)) of the logarithm of a standard deviation: its variance, or itself.
    Power {
        power: f64,
        centre: f64,
    },
}

impl Scale {
    pub fn value(self, a: f64) -> f64 {
        match self {
            Scale::Same => a,
            Scale::Partial => a / (1.0 + a * a).sqrt(),
            Scale::Logistic { slope, centre } => -1.0 / (1.0 + (slope * (a - centre)).exp()),
            Scale::Power { power, centre } => (power * (a - centre)).exp(),
        }
    }

    pub fn parameter(self, value: f64) -> f64 {
        match self {
            Scale::Same => value,
            Scale::Partial if value.abs() >= 1.0 => f64::INFINITY.copysign(value),
            Scale::Partial => value / ((1.0 - value) * (1.0 + value)).sqrt(),
            Scale::Logistic { .. } if value >= 0.0 => f64::INFINITY,
            Scale::Logistic { .. } if value <= -1.0 => f64::NEG_INFINITY,
            Scale::Logistic { slope, centre } => centre + (-(1.0 + value) / value).ln() / slope,
            Scale::Power { .. } if value <= 0.0 => f64::NEG_INFINITY,
            Scale::Power { power, centre } => centre + value.ln() / power,
        }
    }

    /// d parameter / d coordinate.
    pub fn slope(self, a: f64) -> f64 {
        match self {
            Scale::Same => 1.0,
            Scale::Partial => (1.0 + a * a).powf(1.5),
            Scale::Logistic { slope, centre } => {
                let v = Scale::Logistic { slope, centre }.value(a);
                -1.0 / (slope * v * (1.0 + v))
            }
            Scale::Power { power, centre } => (-power * (a - centre)).exp() / power,
        }
    }

    /// d2 parameter / d coordinate^2.
    pub fn bend(self, a: f64) -> f64 {
        match self {
            Scale::Same => 0.0,
            Scale::Partial => 3.0 * a * (1.0 + a * a).powi(2),
            Scale::Logistic { slope, centre } => {
                let v = Scale::Logistic { slope, centre }.value(a);
                (1.0 + 2.0 * v) / (slope * (v * (1.0 + v)).powi(2))
            }
            Scale::Power { power, centre } => -(-2.0 * power * (a - centre)).exp() / power,
        }
    }
}

/// The range of a parameter and the coordinate in which it is searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chart {
    pub scale: Scale,
    pub low: f64,
    pub high: f64,
    /// Most that one step may change the parameter by, downwards and upwards.
    pub stride: (f64, f64),
}

/// Logarithm of a range, in typical distances, beyond which all is correlated about as much.
const LONG: f64 = 3.0;
/// Largest step of a parameter that is a logarithm.
const STRIDE: f64 = 1.5;
const ANY: f64 = f64::INFINITY;

impl Chart {
    const OPEN: Chart = Chart { scale: Scale::Same, low: -1e4, high: 1e4, stride: (STRIDE, STRIDE) };

    /// Of the logarithm of a standard deviation, near `centre`. Where it is the only one, the deviance is a function of the
    /// variance; where there are several, of products of two of them.
    pub fn deviation(only: bool, low: f64, centre: f64) -> Chart {
        let scale = Scale::Power { power: if only { 2.0 } else { 1.0 }, centre };
        Chart { scale, low, stride: (ANY, STRIDE), ..Chart::OPEN }
    }

    /// The parameter after a step in the coordinate.
    pub fn step(&self, a: f64, d: f64) -> f64 {
        if d == 0.0 {
            return a.clamp(self.low, self.high);
        }
        let to = self.scale.parameter(self.scale.value(a) + d);
        // What has come near zero may grow to its usual size at once, and so may the distance in ranges.
        let (least, most) = match self.scale {
            Scale::Power { centre, .. } => (a, a.max(centre)),
            Scale::Logistic { centre, .. } => (a.min(centre + LONG), a.max(centre - LONG)),
            _ => (a, a),
        };
        to.clamp(least - self.stride.0, most + self.stride.1).clamp(self.low, self.high)
    }

    pub fn at_low(&self, a: f64) -> bool {
        a <= self.low + 1e-9 * self.low.abs().max(1.0)
    }

    pub fn at_high(&self, a: f64) -> bool {
        a >= self.high - 1e-9 * self.high.abs().max(1.0)
    }
}

/// A singular covariance at the end of a structure.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Correlations of the columns there (k x k).
    pub correlation: Vec<f64>,
    pub rank: usize,
    /// The parameters there: on their edge, or 0 where they have no meaning any more.
    pub theta: Vec<f64>,
    /// Parameters that are at their limit, or have no meaning there.
    pub lost: Vec<bool>,
}

impl Pattern {
    /// Ranges and coordinates of all parameters; the floors of standard deviations depend on the data.
    pub fn charts(&self) -> Vec<Chart> {
        let (n, d) = (self.parameters(), self.deviations());
        let mut out = vec![Chart::OPEN; n];
        let partial =
            Chart { scale: Scale::Partial, low: -edge_of_partial(), high: edge_of_partial(), stride: (ANY, ANY) };
        match self.kind {
            Kind::ReducedRank => {
                let free = Chart { low: f64::NEG_INFINITY, high: f64::INFINITY, ..Chart::OPEN };
                out.fill(free);
            }
            Kind::Ar1 | Kind::HeterogeneousAr1 | Kind::Toeplitz | Kind::HomogeneousToeplitz => out[d..].fill(partial),
            Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry if n > d => {
                let scale = Scale::Logistic { slope: 1.0, centre: 0.0 };
                let end = (1.0 / EDGE).ln();
                out[d] = Chart { scale, low: -end, high: end, stride: (ANY, ANY) };
            }
            kind if kind.needs_distance() && n > d => {
                out[d] = self.range_chart();
                out[d + 1..].iter_mut().for_each(|c| {
                    (c.low, c.high) = super::kinds::SMOOTHNESS;
                });
            }
            _ => {}
        }
        out
    }

    /// Chart of the logarithm of the range, or of its inverse for `ou`.
    fn range_chart(&self) -> Chart {
        let (least, typical, most) = self.distances();
        let power = self.decay();
        let far = (1.0 / EDGE).powf(1.0 / power).min(FAR);
        let (low, high) = ((least / APART).ln(), (most * far).ln());
        let free = self.kind == Kind::Matern && self.nu.is_none();
        let scale = Scale::Logistic { slope: if free { 0.3 } else { power }, centre: typical.ln() };
        if self.kind == Kind::OrnsteinUhlenbeck {
            let scale = Scale::Logistic { slope: 1.0, centre: -typical.ln() };
            // Precise at the other end: the edge is 1e8 above the rounding errors of a coordinate near -1.
            return Chart { scale, low: -high, high: -low, stride: (ANY, STRIDE) };
        }
        Chart { scale, low, high, stride: (STRIDE, ANY) }
    }

    /// 1 - correlation goes as (distance / range) to this power for long ranges.
    fn decay(&self) -> f64 {
        match (self.kind, self.nu) {
            (Kind::Gaussian, _) => 2.0,
            (Kind::Matern, Some(nu)) => 2.0 * nu.min(1.0),
            (Kind::Matern, None) => 0.4,
            _ => 1.0,
        }
    }

    /// Smallest positive distance, a typical one, and the largest.
    fn distances(&self) -> (f64, f64, f64) {
        let positive = || self.distance.iter().copied().filter(|d| *d > 0.0);
        let most = positive().fold(0.0, f64::max);
        if most == 0.0 {
            return (1.0, 1.0, 1.0);
        }
        (positive().fold(f64::INFINITY, f64::min), super::kinds::typical(&self.distance, self.k), most)
    }

    /// The limit at which theta lies, if it lies at one.
    pub fn limit(&self, theta: &[f64]) -> Option<Limit> {
        let (k, d) = (self.k, self.deviations());
        if k == 1 || theta.len() <= d {
            return None;
        }
        let rest = &theta[d..];
        match self.kind {
            Kind::Ar1 | Kind::HeterogeneousAr1 => self.of_partials(theta, &[rest[0]]),
            // With a correlation given, a partial one of +-1 leaves it no place: the search cannot end there.
            Kind::Toeplitz | Kind::HomogeneousToeplitz if self.is_given() => None,
            Kind::Toeplitz | Kind::HomogeneousToeplitz => self.of_partials(theta, rest),
            Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry => {
                let near = (1.0 / NEAR).ln();
                let low = -1.0 / (k as f64 - 1.0);
                let (upper, r, rank) = if rest[0] > 0.0 { (true, 1.0, 1) } else { (false, low, k - 1) };
                let ended = || self.ended(theta, (0, upper), rank, |i, j| if i == j { 1.0 } else { r });
                (rest[0].abs() >= near).then(ended)
            }
            kind if kind.needs_distance() => {
                let chart = self.range_chart();
                let sigma = self.sigma(theta);
                let least = sigma.iter().fold(f64::INFINITY, |m, v| m.min(*v)) / sigma[0];
                let upper = kind != Kind::OrnsteinUhlenbeck;
                let long = if upper { chart.at_high(rest[0]) } else { chart.at_low(rest[0]) };
                (long || 1.0 - least <= NEAR).then(|| self.ended(theta, (0, upper), 1, |_, _| 1.0))
            }
            _ => None,
        }
    }

    /// Whether a range is so short that nothing is related: a limit, too, which no slope leaves.
    pub fn is_unrelated(&self, theta: &[f64]) -> bool {
        self.is_related_below(UNRELATED, theta)
    }

    /// Whether it is so short that correlations are lost in rounding errors.
    pub fn is_silent(&self, theta: &[f64]) -> bool {
        self.is_related_below(SILENT, theta)
    }

    fn is_related_below(&self, most: f64, theta: &[f64]) -> bool {
        self.k > 1 && self.kind.needs_distance() && {
            let correlation = self.correlations(theta);
            (0..correlation.len()).all(|t| t % (self.k + 1) == 0 || correlation[t] < most)
        }
    }

    /// Parameters beside the standard deviations that say nothing where they are: a smoothness at an end of its range, and
    /// all of them where nothing is related.
    pub fn says_nothing(&self, theta: &[f64]) -> Vec<bool> {
        let (d, (low, high)) = (self.deviations(), super::kinds::SMOOTHNESS);
        let unrelated = self.is_unrelated(theta);
        let smoothness = |i: usize| self.kind == Kind::Matern && i > d;
        let at_end = |t: f64| t <= low + END || t >= high - END;
        (0..theta.len()).map(|i| (i >= d && unrelated) || (smoothness(i) && at_end(theta[i]))).collect()
    }

    /// The limit of partial autocorrelations of which the first at +-1 decides: later ones have nothing to explain.
    fn of_partials(&self, theta: &[f64], partial: &[f64]) -> Option<Limit> {
        let values: Vec<f64> = partial.iter().map(|&a| Scale::Partial.value(a)).collect();
        let at = values.iter().position(|r| 1.0 - r.abs() <= NEAR)?;
        let mut exact = values;
        exact[at] = exact[at].signum();
        exact[at + 1..].fill(0.0);
        exact.resize(self.k - 1, 0.0);
        let lags = if matches!(self.kind, Kind::Ar1 | Kind::HeterogeneousAr1) {
            (0..self.k).map(|l| exact[0].powi(l as i32)).collect()
        } else {
            super::kinds::autocorrelations(&exact)
        };
        Some(self.ended(theta, (at, exact[at] > 0.0), at + 1, |i, j| lags[i.abs_diff(j)]))
    }

    /// The limit that parameter `at` after the deviations has come to; those after it lose their meaning.
    fn ended(
        &self,
        theta: &[f64],
        (at, upper): (usize, bool),
        rank: usize,
        correlation: impl Fn(usize, usize) -> f64,
    ) -> Limit {
        let (k, d, charts) = (self.k, self.deviations(), self.charts());
        let mut theta = theta.to_vec();
        let at = d + at;
        theta[at] = if upper { charts[at].high } else { charts[at].low };
        if self.kind != Kind::Matern {
            theta[at + 1..].fill(0.0);
        }
        let lost = (0..theta.len()).map(|j| j >= at).collect();
        let correlation = (0..k * k).map(|t| correlation(t % k, t / k)).collect();
        Limit { correlation, rank, theta, lost }
    }

    /// Parameters in natural units, exact at a limit.
    pub fn report_at(&self, theta: &[f64]) -> Vec<Natural> {
        let mut out = self.report(theta);
        let Some(limit) = self.limit(theta) else { return out };
        for (n, _) in out.iter_mut().zip(&limit.lost).filter(|(_, lost)| **lost) {
            n.value = match n.name {
                "cor" => limit.correlation[n.index.unwrap_or(1)],
                "range" => f64::INFINITY,
                "rate" => 0.0,
                _ => f64::NAN,
            };
        }
        out
    }

    /// Structures inside this one, or at its end (the Gaussian correlation is that of a Matern one of no end of smoothness, none
    /// that of a short range).
    pub fn smaller(&self) -> Vec<Pattern> {
        let kinds: &[Kind] = match self.kind {
            Kind::Diagonal => &[Kind::HomogeneousDiagonal],
            Kind::CompoundSymmetry => &[Kind::HomogeneousCompoundSymmetry],
            Kind::HeterogeneousAr1 => &[Kind::Ar1],
            Kind::Toeplitz => &[Kind::HomogeneousToeplitz, Kind::CompoundSymmetry, Kind::HeterogeneousAr1],
            Kind::HomogeneousToeplitz => &[Kind::HomogeneousCompoundSymmetry, Kind::Ar1],
            Kind::Matern if self.nu.is_none() => &[Kind::Exponential, Kind::Gaussian],
            kind if kind.needs_distance() => &[Kind::HomogeneousDiagonal],
            _ => &[],
        };
        let count = if self.k > 1 { kinds.len() } else { 0 };
        kinds[..count].iter().map(|&kind| Pattern { kind, ..self.clone() }).collect()
    }

    /// Parameters of this structure that say what those of a smaller one say.
    pub fn embed(&self, smaller: &Pattern, theta: &[f64]) -> Vec<f64> {
        let (d, own) = (self.deviations(), smaller.deviations());
        let mut out: Vec<f64> = (0..d).map(|i| theta[if own == 1 { 0 } else { i }]).collect();
        let rest = &theta[own..];
        match (self.kind, smaller.kind) {
            (
                Kind::Toeplitz | Kind::HomogeneousToeplitz,
                Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry,
            ) => {
                // Partial autocorrelations of equal correlations r: r / (1 + (l - 1) r) at lag l.
                let r = smaller.kind.compound_value(rest[0], self.k);
                let edge = edge_of_partial();
                let partial = |l: usize| Scale::Partial.parameter((r / (1.0 + l as f64 * r)).clamp(-1.0, 1.0));
                out.extend((0..self.k - 1).map(|l| partial(l).clamp(-edge, edge)));
            }
            // exp(-d^2 / r^2) is the limit for range r / (2 sqrt(nu)).
            (Kind::Matern, Kind::Gaussian) => {
                let most = super::kinds::SMOOTHNESS.1;
                out.extend([rest[0] - 2f64.ln() - 0.5 * most, most]);
            }
            (kind, Kind::HomogeneousDiagonal) if kind.needs_distance() => {
                let chart = self.range_chart();
                out.push(if kind == Kind::OrnsteinUhlenbeck { chart.high } else { chart.low });
            }
            (Kind::Matern, _) => out.extend([rest[0], 0.5f64.ln()]),
            _ => out.extend(rest),
        }
        out.resize(self.parameters(), 0.0);
        out
    }

    /// The limit where all columns have one effect.
    pub fn shared(&self) -> Vec<(usize, f64)> {
        let (d, charts) = (self.deviations(), self.charts());
        if self.k == 1 || charts.len() <= d {
            return vec![];
        }
        match self.kind {
            Kind::Ar1 | Kind::HeterogeneousAr1 => vec![(d, charts[d].high)],
            Kind::Toeplitz | Kind::HomogeneousToeplitz => {
                (d..charts.len()).map(|j| (j, if j == d { charts[d].high } else { 0.0 })).collect()
            }
            Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry => vec![(d, charts[d].high)],
            Kind::OrnsteinUhlenbeck => vec![(d, charts[d].low)],
            Kind::Exponential | Kind::Gaussian => vec![(d, charts[d].high)],
            Kind::Matern => (d..charts.len()).map(|j| (j, if j == d { charts[d].high } else { 0.0 })).collect(),
            _ => vec![],
        }
    }

    /// Lower triangular root of the covariance at a limit, with zero columns where nothing is left.
    pub fn singular_factor(&self, limit: &Limit) -> Vec<f64> {
        let (k, d) = (self.k, self.deviations());
        let sd = |i: usize| limit.theta[if d == 1 { 0 } else { i }].exp();
        let mut l = root(&limit.correlation, k);
        (0..k * k).for_each(|t| l[t] *= sd(t % k));
        l
    }
}

/// Parameter whose partial autocorrelation is at the edge.
fn edge_of_partial() -> f64 {
    Scale::Partial.parameter(1.0 - EDGE)
}

/// Cholesky factor of a semidefinite correlation matrix: a pivot of rounding errors has no column.
fn root(a: &[f64], k: usize) -> Vec<f64> {
    let mut l = vec![0.0; k * k];
    for c in 0..k {
        let left = a[c + c * k] - (0..c).map(|t| l[c + t * k] * l[c + t * k]).sum::<f64>();
        if left <= NOTHING * k as f64 {
            continue;
        }
        let pivot = left.sqrt();
        for r in c..k {
            let inner: f64 = (0..c).map(|t| l[r + t * k] * l[c + t * k]).sum();
            l[r + c * k] = (a[r + c * k] - inner) / pivot;
        }
    }
    l
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(name: &str) -> Pattern {
        let points: Vec<Vec<f64>> = [0.0, 0.7, 1.1, 2.5].iter().map(|&t| vec![t]).collect();
        Pattern::new(name, 4, &points, vec![]).unwrap()
    }

    const ENDING: [&str; 10] = ["cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ou", "exp", "gau", "mat"];

    #[test]
    fn coordinates_go_back_to_their_parameters() {
        for name in ENDING {
            let p = pattern(name);
            for chart in p.charts() {
                for share in [0.01, 0.3, 0.6, 0.99] {
                    let a = (chart.low + share * (chart.high - chart.low)).clamp(-3.0, 3.0);
                    let v = chart.scale.value(a);
                    assert!((chart.scale.parameter(v) - a).abs() < 1e-6 * (1.0 + a.abs()), "{name} {a}");
                    let h = 1e-6 * v.abs().max(1e-3);
                    let slope = (chart.scale.parameter(v + h) - chart.scale.parameter(v - h)) / (2.0 * h);
                    assert!((slope / chart.scale.slope(a) - 1.0).abs() < 1e-4, "{name} {a}: {slope}");
                    let turn = (chart.scale.slope(chart.scale.parameter(v + h))
                        - chart.scale.slope(chart.scale.parameter(v - h)))
                        / (2.0 * h);
                    let exact = chart.scale.bend(a);
                    assert!((turn - exact).abs() < 1e-3 * (1.0 + exact.abs()), "{name} {a}: {turn} {exact}");
                }
            }
        }
    }

    #[test]
    fn covariances_run_into_their_limits() {
        for name in ENDING {
            let p = pattern(name);
            let mut theta = p.start(&[0.5, 1.0, 1.5, 2.0]);
            for (j, v) in p.shared() {
                theta[j] = v;
            }
            let limit = p.limit(&theta).unwrap();
            assert_eq!(limit.rank, 1, "{name}");
            let (edge, end) = (p.factor(&theta).unwrap(), p.singular_factor(&limit));
            let product = |l: &[f64], i: usize, j: usize| (0..4).map(|c| l[i + c * 4] * l[j + c * 4]).sum::<f64>();
            for i in 0..4 {
                for j in 0..4 {
                    let (a, b) = (product(&edge, i, j), product(&end, i, j));
                    assert!((a - b).abs() < 1e-6 * b.abs(), "{name} {i} {j}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn smaller_structures_stand_inside() {
        for name in ENDING {
            let p = pattern(name);
            for smaller in p.smaller() {
                let mut theta = smaller.start(&[0.5, 1.0, 1.5, 2.0]);
                *theta.last_mut().unwrap() += 0.4;
                let (a, b) = (smaller.sigma(&theta), p.sigma(&p.embed(&smaller, &theta)));
                // The largest smoothness is 60, not infinite.
                let error = if smaller.kind == Kind::Gaussian { 0.02 } else { 1e-12 };
                assert!(
                    a.iter().zip(&b).all(|(a, b)| (a - b).abs() < error * (1.0 + b.abs())),
                    "{name} {:?}",
                    smaller.kind
                );
            }
        }
    }
}
