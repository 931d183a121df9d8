//! The one optimiser: Newton steps on the variance scale, taken so that every covariance stays positive semidefinite.
//!
//! At Lambda the deviance is a function of Sigma* = I + delta. Its quadratic model (gradient N, curvature the expected
//! information far away, the observed information near the optimum) is minimised over delta = L L' - I,
//! so a zero variance is an ordinary point that a single step can reach or leave. Directions whose variance is negligible rest on a floor that is far below anything the data can see; when the search has ended they
//! are set to exactly zero and reported as the boundary. A direction on the floor whose gradient points inwards leaves
//! it by itself: on the variance scale a boundary saddle has a slope. Where the search ends, first and second order
//! conditions are examined apart from the search (`certificate`); what fails them is left along the direction found.

mod again;
mod certificate;
mod model;
mod scale;
mod search;
mod valley;

pub use again::minimise_again;
pub(crate) use again::of_size;
pub(crate) use certificate::at_floor;
pub(crate) use model::{apply, free_curvature, hessian, turning, Model};
pub(crate) use scale::{clip_all, slot_block, FLOOR, PLAIN};
pub use scale::{floored, invert, mul, sigma_gradient, units};
pub(crate) use search::floor_slopes;
pub use search::minimise;

use crate::linear::Solution;
pub use crate::Stop;

#[derive(Clone, Debug)]
pub struct Options {
    /// Stop when the predicted change of the deviance is below this.
    pub tolerance: f64,
    pub max_evaluations: usize,
    /// A deviance to be beaten: a search that promises no such end is given up.
    pub beat: f64,
    /// Ends the search early when asked to.
    pub stop: Stop,
}

impl Default for Options {
    fn default() -> Self {
        Options { tolerance: 1e-9, max_evaluations: 200, beat: f64::INFINITY, stop: Stop::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Converged,
    MaxEvaluations,
    Stalled,
    /// The likelihood rises for ever towards a singular covariance.
    Unbounded,
    /// The criterion falls towards parameters at which the mode of the random effects is flat.
    FlatMode,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Converged => "converged",
            Outcome::MaxEvaluations => "max_evaluations",
            Outcome::Stalled => "stalled",
            Outcome::Unbounded => "unbounded",
            Outcome::FlatMode => "flat_mode",
        }
    }
}

/// A covariance that is not of full rank at the optimum.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    pub term: usize,
    pub rank: usize,
    /// Change of the deviance per unit of (dimensionless) variance in each zero direction: positive at an optimum.
    pub multipliers: Vec<f64>,
}

pub struct Optimum {
    pub lambda: Vec<Vec<f64>>,
    pub solution: Solution,
    pub outcome: Outcome,
    pub iterations: usize,
    pub evaluations: usize,
    /// Predicted change of the deviance at the end.
    pub decrease: f64,
    /// Smallest eigenvalue of the observed information relative to the average information, free directions only.
    pub curvature: f64,
    pub boundary: Vec<Boundary>,
    /// d deviance / d Sigma (relative, internal coordinates) of every factor at the end.
    pub sigma_gradient: Vec<Vec<f64>>,
}
