//! What a search and whoever waits for it in another thread tell each other: a request to end early, and how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use crate::CoreError;

/// Copies share one flag. Searches look at it before every evaluation, large factorisations and inverses at every block
/// of columns. An inverse that was cut short is no error but worthless: whoever asked for it looks at the flag.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    ended: Arc<AtomicBool>,
    /// None where nobody listens: parallel searches do not share a counter for nothing.
    way: Option<Arc<Way>>,
}

/// Evaluations of the criterion so far, and the least of them (bits).
#[derive(Debug)]
struct Way {
    evaluations: AtomicUsize,
    least: AtomicU64,
}

impl Stop {
    /// One that is told how a search goes.
    pub fn listening() -> Self {
        let way = Way { evaluations: AtomicUsize::new(0), least: AtomicU64::new(f64::INFINITY.to_bits()) };
        Stop { way: Some(Arc::new(way)), ..Stop::default() }
    }

    pub fn request(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Nobody asks any more.
    pub fn clear(&self) {
        self.ended.store(false, Ordering::Relaxed);
    }

    pub fn requested(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// An error once the end has been asked for.
    pub fn check(&self) -> Result<(), CoreError> {
        if self.requested() {
            Err(CoreError::Interrupted)
        } else {
            Ok(())
        }
    }

    /// The criterion has been evaluated once more.
    pub fn tell(&self, criterion: f64) {
        if let Some(way) = &self.way {
            let less = |bits| (criterion < f64::from_bits(bits)).then_some(criterion.to_bits());
            // Err: it is not less.
            let _ = way.least.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            way.evaluations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Evaluations told so far and the least criterion.
    pub fn told(&self) -> (usize, f64) {
        self.way.as_ref().map_or((0, f64::INFINITY), |way| {
            (way.evaluations.load(Ordering::Relaxed), f64::from_bits(way.least.load(Ordering::Relaxed)))
        })
    }
}
