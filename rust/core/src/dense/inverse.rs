//! Inverse of L L' for a large L: W = L^-1 by block columns, then Z = W'W in place, in tiles that threads take one by
//! one. Both halves cost n^3/3 operations, nearly all of them in products of tiles with long inner sides.

use faer::linalg::{matmul, triangular_inverse, triangular_solve};
use faer::traits::RealField;
use faer::{Accum, Mat, Par};
use rayon::prelude::*;

use super::{ranges, Tiles};
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
