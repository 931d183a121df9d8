//! Inverses of L L'. For a large L: W = L^-1 by block columns, then Z = W'W in place, in tiles that threads take one by
//! one. Both halves cost n^3/3 operations, nearly all of them in products of tiles with long inner sides.

use std::sync::OnceLock;

use faer::linalg::{matmul, triangular_inverse, triangular_solve};
use faer::traits::RealField;
use faer::{Accum, Mat, Par};
use rayon::prelude::*;

use super::solve::{solve_left_l, solve_left_lt};
use super::tiles::{each, mat, mat_mut, ranges, Tiles};
use super::{triangles, SMALL};
use crate::Stop;

/// Order from which an inverse is formed in tiles.
pub const TILED_INVERSE: usize = 256;

/// Digits of an inverse. Single precision takes half the time, which is enough to steer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Single,
    Double,
}

/// Widest block columns of W and tiles of Z (narrower in smaller matrices, for threads to share); rows solved at once.
const COLUMNS: usize = 384;
const PRODUCT: usize = 192;
const ROWS: usize = 96;

/// Inverse of L L' for lower triangular L of a small order, written without leading dimension.
pub fn small_inverse(l: &[f64], n: usize, ldl: usize, out: &mut [f64]) {
    match n {
        1 => plain_inverse::<1>(l, ldl, out),
        2 => plain_inverse::<2>(l, ldl, out),
        3 => plain_inverse::<3>(l, ldl, out),
        4 => plain_inverse::<4>(l, ldl, out),
        _ => out[..n * n].copy_from_slice(&inverse_from_cholesky(l, n, ldl)),
    }
}

#[inline]
fn plain_inverse<const N: usize>(l: &[f64], ldl: usize, out: &mut [f64]) {
    // m[j] is column j of L^-1.
    let mut m = [[0.0; N]; N];
    for j in 0..N {
        m[j][j] = 1.0 / l[j + j * ldl];
        for i in j + 1..N {
            let mut s = 0.0;
            for k in j..i {
                s -= l[i + k * ldl] * m[j][k];
            }
            m[j][i] = s / l[i + i * ldl];
        }
    }
    for j in 0..N {
        for i in 0..N {
            let mut s = 0.0;
            for k in i.max(j)..N {
                s += m[i][k] * m[j][k];
            }
            out[i + j * N] = s;
        }
    }
}

/// Inverse of L L' (both triangles) for lower triangular L (n x n).
pub fn inverse_from_cholesky(l: &[f64], n: usize, ldl: usize) -> Vec<f64> {
    inverse_until(l, n, ldl, Precision::Double, None)
}

/// The same in a chosen precision (if it is large, else in double precision); cut short, and worthless, when asked to.
pub fn inverse_until(l: &[f64], n: usize, ldl: usize, precision: Precision, stop: Option<&Stop>) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    inverse_into(l, n, ldl, &mut out, precision, stop);
    out
}

/// The same, written to `out` (n x n, zeros before).
pub fn inverse_into(l: &[f64], n: usize, ldl: usize, out: &mut [f64], precision: Precision, stop: Option<&Stop>) {
    if n <= SMALL {
        for j in 0..n {
            out[j + j * n] = 1.0;
        }
        solve_left_l(l, n, ldl, out, n, n);
        solve_left_lt(l, n, ldl, out, n, n);
    } else if n < TILED_INVERSE {
        let mut buffer = vec![0.0; n * n];
        triangles::inverse(mat(l, n, n, ldl), mat_mut(out, n, n, n), mat_mut(&mut buffer, n, n, n));
        mirror(out, n);
    } else if precision == Precision::Single {
        single(l, n, ldl, out, stop);
    } else {
        double(l, n, ldl, out, stop);
    }
}

/// Copy the lower triangle of a square matrix to the upper one, in blocks that stay in the cache.
pub fn mirror(a: &mut [f64], n: usize) {
    const B: usize = 64;
    for jb in (0..n).step_by(B) {
        for ib in (jb..n).step_by(B) {
            for j in jb..(jb + B).min(n) {
                for i in ib.max(j + 1)..(ib + B).min(n) {
                    a[j + i * n] = a[i + j * n];
                }
            }
        }
    }
}

/// Write (L L')^-1 to `z` (n x n, zeros before), both triangles.
fn double(l: &[f64], n: usize, ldl: usize, z: &mut [f64], stop: Option<&Stop>) {
    // The tiles of L are only read.
    let l = Tiles { at: l.as_ptr().cast_mut(), len: l.len(), ld: ldl };
    inverse(l, Tiles::new(z, n), n, stop);
}

/// The same in single precision: L is rounded into the first half of `z`, the inverse comes to lie in the second.
fn single(l: &[f64], n: usize, ldl: usize, z: &mut [f64], stop: Option<&Stop>) {
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
    each(columns, |(from, to)| {
        if go_on() {
            invert_columns(l, z, n, from, to);
        }
    });
    let step = width(n / 12, PRODUCT);
    for (from, to) in ranges(n, step).take_while(|_| go_on()) {
        multiply_rows(z, n, from, to, step);
    }
    mirror_tiles(z, n);
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
    let corner = OnceLock::new();
    each(columns, |(i, j)| {
        let mut tile = Mat::<T>::zeros(to - from, j - i);
        matmul::matmul(tile.as_mut(), Accum::Replace, left, z.get(from, i, n - from, j - i), one, Par::Seq);
        // All tiles read the corner: it is written when they are done.
        if i == from {
            let _ = corner.set(tile);
        } else {
            z.get_mut(from, i, to - from, j - i).copy_from(tile.as_ref());
        }
    });
    if let Some(tile) = corner.get() {
        z.get_mut(from, from, to - from, to - from).copy_from(tile.as_ref());
    }
}

/// Rows that no thread is worth.
const FEW: usize = 512;

/// Copy the lower triangle to the upper one.
fn mirror_tiles<T: RealField + Copy + Send + Sync>(z: Tiles<T>, n: usize) {
    const B: usize = 64;
    let columns = |(j0, j1): (usize, usize)| {
        for (i0, i1) in ranges(n, B).filter(|r| r.0 >= j0) {
            let from = z.get(i0, j0, i1 - i0, j1 - j0);
            let mut to = z.get_mut(j0, i0, j1 - j0, i1 - i0);
            for i in 0..i1 - i0 {
                for j in 0..(j1 - j0).min(if i0 == j0 { i } else { B }) {
                    to[(j, i)] = from[(i, j)];
                }
            }
        }
    };
    if n < FEW {
        ranges(n, B).for_each(columns);
    } else {
        each(ranges(n, B).collect(), columns);
    }
}
