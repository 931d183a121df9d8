//! Generalised and distributional mixed models: the Laplace approximation of the likelihood with its exact gradient.
//!
//! Row i has K linear predictors eta_ik = offset_ik + x_ik' beta + z_ik' b; a family gives log f(y_i | eta_i) and its
//! derivatives. `rows` makes one pass over the rows, `laplace` finds the mode and the gradient, `search` the optimum,
//! `fit` speaks the user's units.

mod candidates;
mod constraint;
mod faces;
mod fit;
mod hessian;
mod laplace;
mod loadings;
mod loose;
mod many;
mod nested;
mod overlap;
mod patterns;
mod penalty;
mod quadrature;
mod rows;
mod sampled;
mod scores;
mod search;
mod start;
mod trade;

pub use fit::{Glmm, GlmmReport, Method, Start};
pub(crate) use laplace::{Engine, INNER_TOLERANCE};
pub use many::{OwnRows, Refit};
pub use overlap::Signs;
pub use penalty::{Item, Over, Target};
pub use rows::{Component, Fixed, GlmmRows};
pub use scores::Nodes;
