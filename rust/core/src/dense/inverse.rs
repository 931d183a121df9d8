//! Inverse of L L' for a large L: W = L^-1 by block columns, then Z = W'W in place, in tiles that threads take one by
//! one. Both halves cost n^3/3 operations, nearly all of them in products of tiles with long inner sides.
//!
//! Where only some entries of Z are wanted, W is formed by blocks of rows, each used and forgotten: half the work, and
//! next to no memory.

use faer::linalg::{matmul, triangular_inverse, triangular_solve};
use faer::traits::RealField;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::packed::{part, STRIPE};
use super::{ranges, Precision, Tiles};
use crate::Stop;

/// Widest block columns of W and tiles of Z (narrower in smaller matrices, for threads to share); rows solved at once.
const COLUMNS: usize = 384;
const PRODUCT: usize = 192;
const ROWS: usize = 96;

/// Write (L L')^-1 to `z` (n x n, zeros before), both triangles.
pub(super) fn double(l: &[f64], n: usize, ldl: usize, z: &mut [f64], stop: Option<&Stop>) {
    // The tiles of L are only read.
    let l = Tiles { at: l.as_ptr().cast_mut(), len: l.len(), ld: ldl };
    inverse(l, Tiles::new(z, n), n, stop);
}

/// The same in single precision: L is rounded into the first half of `z`, the inverse comes to lie in the second.
pub(super) fn single(l: &[f64], n: usize, ldl: usize, z: &mut [f64], stop: Option<&Stop>) {
    assert!(z.len() == n * n && l.len() >= ldl * (n - 1) + n);
    // SAFETY: the same bytes, twice as many numbers of half the size; any bits are a number.
    let half: &mut [f32] = unsafe { std::slice::from_raw_parts_mut(z.as_mut_ptr().cast(), 2 * n * n) };
    let (rounded, out) = half.split_at_mut(n * n);
    rounded.par_chunks_mut(n).enumerate().for_each(|(j, column)| {
        column[j..].iter_mut().zip(&l[j + j * ldl..]).for_each(|(o, v)| *o = *v as f32);
    });
    inverse(Tiles::new(rounded, n), Tiles::new(out, n), n, stop);
    // From the first column on, nothing is overwritten before it is read.
    let mut column = vec![0.0f32; n];
    for j in 0..n {
        // SAFETY: as above; the borrow ends before the numbers are written.
        let half: &[f32] = unsafe { std::slice::from_raw_parts(z.as_ptr().cast(), 2 * n * n) };
        column.copy_from_slice(&half[(n + j) * n..(n + j + 1) * n]);
        z[j * n..(j + 1) * n].iter_mut().zip(&column).for_each(|(o, v)| *o = *v as f64);
    }
}

fn inverse<T: RealField + Copy + Send + Sync>(l: Tiles<T>, z: Tiles<T>, n: usize, stop: Option<&Stop>) {
    let go_on = || !stop.is_some_and(Stop::requested);
    let columns: Vec<(usize, usize)> = ranges(n, width(n / 8, COLUMNS)).collect();
    // The longest come first: what is left at the end is small.
    columns.par_iter().with_max_len(1).filter(|_| go_on()).for_each(|&(from, to)| invert_columns(l, z, n, from, to));
    let step = width(n / 12, PRODUCT);
    for (from, to) in ranges(n, step).take_while(|_| go_on()) {
        multiply_rows(z, n, from, to, step);
    }
    mirror(z, n);
}

/// A multiple of 48 from 96 to `most`.
fn width(wanted: usize, most: usize) -> usize {
    (wanted.div_ceil(48) * 48).clamp(96, most)
}

/// Columns `from..to` of L^-1 by forward substitution: W_ij = -L_ii^-1 sum_k L_ik W_kj.
fn invert_columns<T: RealField + Copy>(l: Tiles<T>, z: Tiles<T>, n: usize, from: usize, to: usize) {
    let width = to - from;
    triangular_inverse::invert_lower_triangular(
        z.get_mut(from, from, width, width),
        l.get(from, from, width, width),
        Par::Seq,
    );
    let minus = T::from_f64_impl(-1.0);
    for (i, j) in ranges(n - to, ROWS).map(|(i, j)| (to + i, to + j)) {
        let out = z.get_mut(i, from, j - i, width);
        let (left, right) = (l.get(i, from, j - i, i - from), z.get(from, from, i - from, width));
        matmul::matmul(out, Accum::Replace, left, right, minus, Par::Seq);
        let out = z.get_mut(i, from, j - i, width);
        triangular_solve::solve_lower_triangular_in_place(l.get(i, i, j - i, j - i), out, Par::Seq);
    }
}

/// Rows `from..to` of W'W: they need no rows of W above them, so each tile takes the place of its part of W.
fn multiply_rows<T: RealField + Copy + Send + Sync>(z: Tiles<T>, n: usize, from: usize, to: usize, step: usize) {
    let one = T::one_impl();
    let left = z.get(from, from, n - from, to - from).transpose();
    let columns: Vec<(usize, usize)> = ranges(to, step).collect();
    let corner: Vec<Mat<T>> = columns
        .par_iter()
        .with_max_len(1)
        .filter_map(|&(i, j)| {
            let mut tile = Mat::<T>::zeros(to - from, j - i);
            matmul::matmul(tile.as_mut(), Accum::Replace, left, z.get(from, i, n - from, j - i), one, Par::Seq);
            // All tiles read the corner: it is written when they are done.
            if i == from {
                return Some(tile);
            }
            z.get_mut(from, i, to - from, j - i).copy_from(tile.as_ref());
            None
        })
        .collect();
    corner.iter().for_each(|tile| z.get_mut(from, from, to - from, to - from).copy_from(tile.as_ref()));
}

/// Copy the lower triangle to the upper one.
fn mirror<T: RealField + Copy + Send + Sync>(z: Tiles<T>, n: usize) {
    const B: usize = 64;
    ranges(n, B).collect::<Vec<_>>().par_iter().for_each(|&(j0, j1)| {
        for (i0, i1) in ranges(n, B).filter(|r| r.0 >= j0) {
            let from = z.get(i0, j0, i1 - i0, j1 - j0);
            let mut to = z.get_mut(j0, i0, j1 - j0, i1 - i0);
            for i in 0..i1 - i0 {
                for j in 0..(j1 - j0).min(if i0 == j0 { i } else { B }) {
                    to[(j, i)] = from[(i, j)];
                }
            }
        }
    });
}

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
