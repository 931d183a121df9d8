//! Block-sparse Cholesky factorisation of the mixed-model equations.
//!
//! Nodes are (factor, level) pairs; the diagonal block of a node is small (its number of random columns). `symbolic`
//! orders the nodes and finds the supernodes once a model; `numeric` factorises, solves and inverts for each theta.
//! Independent nodes (the levels of the leading factor and all that is nested in it) are eliminated first in one
//! sweep; where the rest fills in it becomes one dense front, handled by blocked kernels (multifrontal method,
//! Duff & Reid 1983; selected inverse, Takahashi et al. 1973). Whether it is worth ordering that rest, or better to
//! take all of it as one dense front, is decided by an estimate of the cost of both.
//! Small trees of single numbers need none of this (`direct`).

mod columns;
mod direct;
mod graph;
mod inverse;
mod leaves;
mod merge;
mod nest;
mod numeric;
mod order;
mod row_solver;
mod solves;
mod source;
mod supernodes;
mod symbolic;
mod tangent;
#[cfg(test)]
mod tests;
mod whole;

pub use columns::Columns;
pub use inverse::SelectedInverse;
pub use numeric::Numeric;
pub use row_solver::Tail;
pub use source::Source;
pub use symbolic::Symbolic;
pub use tangent::Change;
pub use whole::{Small, Whole};
