//! A request to end a search early, made from another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::CoreError;

/// Copies share one flag. Searches look at it before every evaluation; a single evaluation is never cut short.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An error once the end has been asked for.
    pub fn check(&self) -> Result<(), CoreError> {
        if self.0.load(Ordering::Relaxed) {
            Err(CoreError::Interrupted)
        } else {
            Ok(())
        }
    }
}
