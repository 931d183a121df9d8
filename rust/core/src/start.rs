//! Start values from moments of the rows: no factorisation is spent on them.

use crate::dense;
use crate::design::Moments;
use crate::optimise::units;

/// Relative factors of every grouping factor, in internal coordinates.
pub fn start(m: &Moments) -> Vec<Vec<f64>> {
    units(m)
        .iter()
        .zip(&m.factors)
        .map(|(u, f)| {
            let mut lambda = vec![0.0; f.cols * f.cols];
            for (s, slot) in f.slots.iter().enumerate() {
                let k = slot.cols;
                let mut x = vec![0.0; k * k];
                for a in 0..k {
                    x[a + a * k] = 1.0;
                }
                dense::solve_left_lt(&u[s], k, k, &mut x, k, k);
                for b in 0..k {
                    for a in 0..k {
                        lambda[slot.offset + a + (slot.offset + b) * f.cols] = x[a + b * k];
                    }
                }
            }
            lambda
        })
        .collect()
}
