//! Everything that can go wrong in the core, as data: the binding turns it into a Python exception.

use std::fmt;

#[derive(Debug, Clone, PartialEq)]
pub enum CoreError {
    /// Arrays whose lengths, codes or values contradict each other.
    Shape(String),
    /// A number that is not finite where one is needed.
    NotFinite(String),
    /// A matrix that must be positive definite is not (numerically).
    NotPositiveDefinite(String),
    /// Somebody asked for the end (see `Stop`).
    Interrupted,
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreError::Shape(s) | CoreError::NotFinite(s) | CoreError::NotPositiveDefinite(s) => f.write_str(s),
            CoreError::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for CoreError {}

pub fn shape<T>(message: impl Into<String>) -> Result<T, CoreError> {
    Err(CoreError::Shape(message.into()))
}
