//! What a family is: a log density of one row over [`Scalar`], and what goes with it.
//!
//! To add a family write a type that implements [`Density`], add a row to the table in `mod.rs` and one line to
//! `with_density`. The density receives up to four parameters in the order of the table, each with its linear
//! predictor and link; everything that does not change with the parameters (constants of y included) belongs to it.

use super::draw::Stream;
use super::link::Par;
use super::sums;
use crate::jet::Scalar;

/// One row of data.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The response; for families with trials the proportion of successes.
    pub y: f64,
    pub trials: f64,
    /// Known standard error of the response, 0 where there is none.
    pub se: f64,
    /// (c, d) where the response is randomised: it is 1 with probability c + d mu.
    pub randomised: Option<(f64, f64)>,
}

impl Row {
    /// Successes: y times trials, rounded where it is a whole number up to rounding error.
    #[inline]
    pub fn successes(&self) -> f64 {
        let k = self.y * self.trials;
        let r = k.round();
        if (k - r).abs() < 1e-7 * (1.0 + r) {
            r
        } else {
            k
        }
    }
}

/// Moments of the response, for starting values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub mean: f64,
    pub variance: f64,
    pub skewness: f64,
    pub zeros: f64,
    pub ones: f64,
}

/// Legal responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legal {
    Real,
    Positive,
    NonNegative,
    Count,
    /// k / n with k whole, 0 <= k <= n.
    Proportion,
    OpenUnit,
    ClosedUnit,
    /// 0, 1, ... categories - 1.
    Category,
    /// The same without an order.
    Label,
}

impl Legal {
    pub fn name(self) -> &'static str {
        match self {
            Legal::Real => "a number",
            Legal::Positive => "a number above 0",
            Legal::NonNegative => "a number of at least 0",
            Legal::Count => "a whole number of at least 0",
            Legal::Proportion => "a proportion (0 and 1 without trials)",
            Legal::OpenUnit => "a number strictly between 0 and 1",
            Legal::ClosedUnit => "a number from 0 to 1",
            Legal::Category => "a category code",
            Legal::Label => "a category without order",
        }
    }

    /// Whether the density is one of counts (sums to one) rather than of a continuous response.
    pub fn is_discrete(self) -> bool {
        matches!(self, Legal::Count | Legal::Proportion | Legal::Category | Legal::Label)
    }

    pub fn allows(self, row: &Row, categories: usize) -> bool {
        let y = row.y;
        match self {
            Legal::Real => y.is_finite(),
            Legal::Positive => y > 0.0 && y.is_finite(),
            Legal::NonNegative => y >= 0.0 && y.is_finite(),
            Legal::Count => y >= 0.0 && y.is_finite() && is_whole(y),
            Legal::Proportion if row.trials == 1.0 && (y == 0.0 || y == 1.0) => true,
            Legal::Proportion => {
                let k = row.successes();
                (0.0..=1.0).contains(&y) && row.trials >= 0.0 && is_whole(k) && is_whole(row.trials)
            }
            Legal::OpenUnit => y > 0.0 && y < 1.0,
            Legal::ClosedUnit => (0.0..=1.0).contains(&y),
            Legal::Category | Legal::Label => y >= 0.0 && is_whole(y) && y < categories as f64,
        }
    }
}

/// Whether a number has no fraction; those that an integer holds are told without a call.
fn is_whole(y: f64) -> bool {
    y as i64 as f64 == y || y.fract() == 0.0
}

/// A family of distributions with at most four parameters.
pub trait Density: Copy {
    /// log f(y), all constants included; NaN or minus infinity where the parameters are illegal.
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S;

    /// log F(y) and log (1 - F(y)). Counts are added up; NaN where a family has no distribution function yet.
    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        match self.legal() {
            Legal::Count | Legal::Category => sums::add_up(self, row, p, 1.0),
            Legal::Proportion => sums::add_up(self, row, p, 1.0 / row.trials),
            _ => (S::constant(f64::NAN), S::constant(f64::NAN)),
        }
    }

    /// Mean and variance of the response.
    fn moments(&self, row: &Row, p: &[Par<f64>; 4]) -> (f64, f64);

    /// Mean and variance of a response in (a, b], where they have a closed form that does not cancel there.
    fn moments_between(&self, _: &Row, _: &[Par<f64>; 4], _: (f64, f64)) -> Option<(f64, f64)> {
        None
    }

    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64;

    /// Parameters that fit the moments of the response roughly, leaving some variance to the random effects.
    fn start(&self, s: &Summary) -> [f64; 4];

    /// Other starts, where a search may end that is not at the optimum: see `is_doubtful`.
    fn other_starts(&self, _: &Summary) -> Vec<[f64; 4]> {
        vec![]
    }

    /// Whether an end with these parameters may be none, though it looks like one; where coefficients ran to a limit it
    /// always may.
    fn is_doubtful(&self, _: &[f64; 4]) -> bool {
        false
    }

    fn legal(&self) -> Legal;
}
