//! Column-major blocks, and what lets threads write parts of one.

use faer::{MatMut, MatRef};
use rayon::prelude::*;

/// Multiplications from which a product is cut into tiles.
pub(super) const PARALLEL_WORK: usize = 2_000_000;
/// Side of a tile.
pub(super) const TILE: usize = 192;

/// Work on parts side by side; a single one wakes no thread.
pub fn each<T: Send>(mut parts: Vec<T>, work: impl Fn(T) + Sync + Send) {
    match parts.pop() {
        Some(only) if parts.is_empty() => work(only),
        Some(last) => {
            parts.push(last);
            parts.into_par_iter().with_max_len(1).for_each(work);
        }
        None => {}
    }
}

pub(super) fn mat(a: &[f64], rows: usize, cols: usize, ld: usize) -> MatRef<'_, f64> {
    assert!(cols == 0 || a.len() >= ld * (cols - 1) + rows);
    // SAFETY: the assertion above keeps every addressed element inside the slice.
    unsafe { MatRef::from_raw_parts(a.as_ptr(), rows, cols, 1, ld as isize) }
}

pub(super) fn mat_mut(a: &mut [f64], rows: usize, cols: usize, ld: usize) -> MatMut<'_, f64> {
    assert!(cols == 0 || a.len() >= ld * (cols - 1) + rows);
    // SAFETY: as above, and the slice is borrowed mutably.
    unsafe { MatMut::from_raw_parts_mut(a.as_mut_ptr(), rows, cols, 1, ld as isize) }
}

/// A column-major block shared by tasks that write disjoint parts of it.
pub(super) struct Tiles<T = f64> {
    pub at: *mut T,
    pub len: usize,
    pub ld: usize,
}

impl<T> Clone for Tiles<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tiles<T> {}

// SAFETY: only used by the kernels beside this file, each of whose tasks writes a tile of its own and reads what no task writes.
unsafe impl<T: Send> Send for Tiles<T> {}
unsafe impl<T: Sync> Sync for Tiles<T> {}

impl<T> Tiles<T> {
    pub fn new(a: &mut [T], ld: usize) -> Self {
        Tiles { at: a.as_mut_ptr(), len: a.len(), ld }
    }

    fn check(&self, i: usize, j: usize, rows: usize, cols: usize) -> usize {
        let first = i + j * self.ld;
        assert!(cols == 0 || first + self.ld * (cols - 1) + rows <= self.len);
        first
    }

    pub fn get<'a>(&self, i: usize, j: usize, rows: usize, cols: usize) -> MatRef<'a, T> {
        let first = self.check(i, j, rows, cols);
        // SAFETY: in range by the check; no task writes this part at the same time.
        unsafe { MatRef::from_raw_parts(self.at.add(first), rows, cols, 1, self.ld as isize) }
    }

    pub fn get_mut<'a>(&self, i: usize, j: usize, rows: usize, cols: usize) -> MatMut<'a, T> {
        let first = self.check(i, j, rows, cols);
        // SAFETY: in range by the check; no other task touches this tile at the same time.
        unsafe { MatMut::from_raw_parts_mut(self.at.add(first), rows, cols, 1, self.ld as isize) }
    }
}

/// Ranges of at most `step`, so that threads take the next one when they are done: no barriers, and no thread waits
/// for another that the machine has put aside.
pub(super) fn ranges(n: usize, step: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..n).step_by(step.max(1)).map(move |i| (i, (i + step).min(n)))
}
