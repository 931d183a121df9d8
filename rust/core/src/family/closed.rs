//! Hand-written derivatives for the families and links that a profile shows to matter, in plain loops over the rows.

use super::density::Row;
use super::Data;

/// Derivatives of one row in closed form, written in the packing of [`crate::jet::Jet`].
pub trait Closed: Default {
    const K: usize;
    fn row(&mut self, row: &Row, eta: &[f64], order: usize, out: &mut [f64]);
}

/// The last value of a function of one predictor: dispersions are mostly the same from row to row.
pub struct Memo<T> {
    key: f64,
    value: Option<T>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo { key: 0.0, value: None }
    }
}

impl<T> Memo<T> {
    #[inline(always)]
    pub fn get(&mut self, key: f64, make: impl FnOnce(f64) -> T) -> &mut T {
        if self.value.is_none() || self.key.to_bits() != key.to_bits() {
            self.key = key;
            self.value = None;
        }
        self.value.get_or_insert_with(|| make(key))
    }
}

pub type Loop = fn(&Data<'_>, usize, &[f64], usize, usize, &mut [f64]);

/// All rows in closed form.
pub fn rows<C: Closed>(data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
    let mut c = C::default();
    for (i, (e, o)) in eta.chunks_exact(C::K).zip(out.chunks_exact_mut(stride)).enumerate() {
        c.row(&data.row(from + i), e, order, o);
    }
}
