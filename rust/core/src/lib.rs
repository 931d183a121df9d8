//! Numerical core of ranef: numbers only, no column names, no Python, no printing.
//!
//! `design` holds the rows and their cross-products, `cholesky` the block-sparse factorisation of the
//! mixed-model equations, `linear` the profiled likelihood of the linear mixed model, `optimise` the one optimiser.

pub mod cholesky;
pub mod dense;
pub mod design;
pub mod family;
pub mod fit;
pub mod frame;
pub mod gauss;
pub mod glmm;
pub mod jet;
pub mod kenward_roger;
pub mod linear;
pub mod optimise;
pub mod prior;
pub mod profile;
pub mod satterthwaite;
pub mod special;
pub mod start;
pub mod structure;
pub mod suprema;

mod combinations;
mod error;
mod lanes;
mod levels;
mod stop;
pub use error::CoreError;
pub use stop::Stop;
