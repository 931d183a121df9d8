//! The rows of a model as they lie in memory, and the cross-products that one pass over them leaves.

mod alike;
mod moments;
mod rows;
mod wide;

pub use alike::{alike, signs_are_mixed};
pub use moments::{Coupling, Factor, Moments, Pair, TermSlot};
pub use wide::Wide;
pub(crate) use wide::{sound, Part};

pub use rows::{Block, Codes, Numeric, Relation, Rows, Structure, Term};

pub use rows::{linear_predictor, NewTerm};
