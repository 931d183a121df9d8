//! The inverse of a large packed L by blocks of rows, each used and forgotten: n^3/3 operations and next to no memory for
//! whatever is a sum over the rows of W = L^-1, such as wanted entries of (L L')^-1 = W'W.

use faer::linalg::{matmul, triangular_inverse};
use faer::traits::RealField;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::packed::{part, STRIPE};
use super::tiles::{ranges, Tiles};
use super::Precision;
use crate::Stop;

/// Columns of L that rows of W meet at once (a stripe is a multiple), rows of L rounded at once, and blocks of rows in
/// memory at once.
const STRIP: usize = STRIPE / 2;
const ROUNDED: usize = 768;
const WAVE: usize = 16;

/// Rows `from..to` of W = L^-1, of which the columns before `to` are not zero; column-major.
pub struct RowBlock<'a> {
    pub from: usize,
    pub to: usize,
    values: &'a [f64],
}

impl RowBlock<'_> {
    /// The part of column `j` of W in these rows, for `j` before `to`.
    #[inline]
    pub fn column(&self, j: usize) -> &[f64] {
        let rows = self.to - self.from;
        &self.values[j * rows..(j + 1) * rows]
    }
}

/// Hand what `visit` makes of every block of rows of L^-1, for packed L, to `gather`, always in the same order. When cut
/// short some are left out.
pub fn by_rows<A: Send>(
    l: &[f64],
    n: usize,
    precision: Precision,
    stop: &Stop,
    visit: impl Fn(RowBlock<'_>) -> A + Sync,
    gather: impl FnMut(A),
) {
    match precision {
        Precision::Double => rows_of::<f64, A>(l, n, stop, visit, gather),
        Precision::Single => rows_of::<f32, A>(l, n, stop, visit, gather),
    }
}

/// A number that L can be rounded to.
trait Rounded: RealField + Copy + Send + Sync + Into<f64> {
    /// A part of L as such numbers, in the buffer if it has to be rounded.
    fn rounded<'a>(exact: MatRef<'a, f64>, buffer: &'a mut [Self]) -> MatRef<'a, Self>;
}

impl Rounded for f64 {
    fn rounded<'a>(exact: MatRef<'a, f64>, _: &'a mut [f64]) -> MatRef<'a, f64> {
        exact
    }
}

impl Rounded for f32 {
    fn rounded<'a>(exact: MatRef<'a, f64>, buffer: &'a mut [f32]) -> MatRef<'a, f32> {
        let (rows, cols) = exact.shape();
        for (j, out) in buffer[..rows * cols].chunks_exact_mut(rows).enumerate() {
            out.iter_mut().zip(exact.col(j).iter()).for_each(|(o, v)| *o = *v as f32);
        }
        MatRef::from_column_major_slice(&buffer[..rows * cols], rows, cols)
    }
}

fn rows_of<T: Rounded, A: Send>(
    l: &[f64],
    n: usize,
    stop: &Stop,
    visit: impl Fn(RowBlock<'_>) -> A + Sync,
    mut gather: impl FnMut(A),
) {
    let strips: Vec<(usize, usize)> = ranges(n, STRIP).collect();
    let corners: Vec<Mat<T>> = strips.par_iter().map(|&r| corner(l, n, r)).collect();
    // The longest come first: what is left at the end is small.
    let mut blocks: Vec<(usize, usize)> = ranges(n, STRIPE).collect();
    blocks.reverse();
    let one = |&(from, to): &(usize, usize)| {
        let mut w = vec![T::zero_impl(); (to - from) * to];
        block_of_rows(l, n, &corners, (from, to), &mut w);
        let values: Vec<f64> = w.into_iter().map(Into::into).collect();
        visit(RowBlock { from, to, values: &values })
    };
    for wave in blocks.chunks(WAVE) {
        let parts: Vec<A> = wave.par_iter().with_max_len(1).filter(|_| !stop.requested()).map(one).collect();
        parts.into_iter().for_each(&mut gather);
    }
}

/// Inverse of a block on the diagonal of L.
fn corner<T: Rounded>(l: &[f64], n: usize, (from, to): (usize, usize)) -> Mat<T> {
    let w = to - from;
    let mut inverse = Mat::<f64>::zeros(w, w);
    triangular_inverse::invert_lower_triangular(inverse.as_mut(), part(l, n, (from, from), (w, w)), Par::Seq);
    Mat::from_fn(w, w, |i, j| T::from_f64_impl(inverse[(i, j)]))
}

/// Rows of W by back substitution from the right: W_J = (E_J - sum_{K > J} W_K L_KJ) L_JJ^-1 for columns J.
fn block_of_rows<T: Rounded>(l: &[f64], n: usize, corners: &[Mat<T>], (from, to): (usize, usize), w: &mut [T]) {
    let rows = to - from;
    let (one, minus) = (T::one_impl(), T::from_f64_impl(-1.0));
    let mut buffer = vec![T::zero_impl(); ROUNDED * STRIP];
    let strips: Vec<(usize, usize)> = ranges(to, STRIP).collect();
    let w = Tiles::new(w, rows);
    for (&(j0, j1), corner) in strips.iter().zip(corners).rev() {
        let mut sum = Mat::<T>::zeros(rows, j1 - j0);
        for (k0, k1) in ranges(to - j1, ROUNDED).map(|(i, j)| (j1 + i, j1 + j)) {
            let l = T::rounded(part(l, n, (k0, j0), (k1 - k0, j1 - j0)), &mut buffer);
            matmul::matmul(sum.as_mut(), Accum::Add, w.get(0, k0, rows, k1 - k0), l, minus, Par::Seq);
        }
        for j in j0.max(from)..j1 {
            sum[(j - from, j - j0)] = one;
        }
        let out = w.get_mut(0, j0, rows, j1 - j0);
        matmul::matmul(out, Accum::Replace, sum.as_ref(), corner.as_ref(), one, Par::Seq);
    }
}
