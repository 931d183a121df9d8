//! A request to end a search early, made from another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::CoreError;

/// Copies share one flag. Searches look at it before every evaluation, large factorisations and inverses at every block
/// of columns. An inverse that was cut short is no error but worthless: whoever asked for it looks at the flag.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Nobody asks any more.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once the end has been asked for.
    pub fn check(&self) -> Result<(), CoreError> {
        if self.requested() {
            Err(CoreError::Interrupted)
        } else {
            Ok(())
        }
    }
}
