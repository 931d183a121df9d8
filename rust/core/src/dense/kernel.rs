//! The product that all dense kernels are made of. Small ones by a kernel of our own: at the sizes of small models it
//! is as fast as the library's, and it is little code, most of a small fit's memory. Large ones through faer.

use std::mem::MaybeUninit;

use faer::linalg::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Multiplications from which the library's kernels are faster, and the longest inner side that is packed.
const LARGE: usize = 1_000_000;
const DEEPEST: usize = 256;
/// Rows of C that are kept in registers.
const ROWS: usize = 8;

/// C <- alpha A B, or C <- C + alpha A B. Every entry is summed in the order of the inner side, whatever the processor.
pub(super) fn multiply(c: MatMut<'_, f64>, accum: Accum, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    let (m, n, k) = (a.nrows(), b.ncols(), a.ncols());
    if m * n * k > LARGE || k > DEEPEST {
        return matmul::matmul(c, accum, a, b, alpha, Par::Seq);
    }
    if c.row_stride() != 1 {
        return by_columns(c.transpose_mut(), accum, b.transpose(), a.transpose(), alpha);
    }
    by_columns(c, accum, a, b, alpha);
}

/// The same for C whose columns are contiguous.
fn by_columns(c: MatMut<'_, f64>, accum: Accum, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    assert!(c.row_stride() == 1 && c.nrows() == a.nrows() && c.ncols() == b.ncols() && a.ncols() == b.nrows());
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has what the function needs.
        return unsafe { in_wide_registers(c, accum, a, b, alpha) };
    }
    strips::<4>(c, accum, a, b, alpha);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn in_wide_registers(c: MatMut<'_, f64>, accum: Accum, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    strips::<8>(c, accum, a, b, alpha);
}

/// ROWS rows of A, column by column, `apart` numbers from one column to the next.
#[derive(Clone, Copy)]
struct Strip {
    at: *const f64,
    apart: usize,
    depth: usize,
}

/// Strips of ROWS rows of C, in tiles of N columns, 4 or 8.
#[inline(always)]
fn strips<const N: usize>(mut c: MatMut<'_, f64>, accum: Accum, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    let (m, n, k) = (a.nrows(), b.ncols(), a.ncols());
    let mut buffer = [MaybeUninit::<f64>::uninit(); ROWS * DEEPEST];
    for from in (0..m).step_by(ROWS) {
        let rows = ROWS.min(m - from);
        let strip = if a.row_stride() == 1 && a.col_stride() >= 0 && rows == ROWS {
            Strip { at: a.subrows(from, rows).as_ptr(), apart: a.col_stride() as usize, depth: k }
        } else {
            pack(a.subrows(from, rows), &mut buffer)
        };
        let mut out = c.as_mut().subrows_mut(from, rows);
        let mut j = 0;
        while j < n {
            // SAFETY: the strip has ROWS rows and k columns, packed or not; `from + rows` and `j` plus the width lie in C.
            unsafe {
                let width = N.min(n - j);
                let (out, b) = (out.as_mut().subcols_mut(j, width), b.subcols(j, width));
                // What is left goes at once: a few sums side by side would wait for each other.
                match width {
                    1 => tile::<1>(out, accum, strip, b, alpha),
                    2 => tile::<2>(out, accum, strip, b, alpha),
                    3 => tile::<3>(out, accum, strip, b, alpha),
                    4 if N > 4 => tile::<4>(out, accum, strip, b, alpha),
                    5 if N > 4 => tile::<5>(out, accum, strip, b, alpha),
                    6 if N > 4 => tile::<6>(out, accum, strip, b, alpha),
                    7 if N > 4 => tile::<7>(out, accum, strip, b, alpha),
                    _ => tile::<N>(out, accum, strip, b, alpha),
                }
                j += width;
            }
        }
    }
}

/// Copy up to ROWS rows side by side; missing ones are zero.
#[inline(always)]
fn pack(a: MatRef<'_, f64>, buffer: &mut [MaybeUninit<f64>; ROWS * DEEPEST]) -> Strip {
    let (rows, depth) = a.shape();
    assert!(rows <= ROWS && depth <= DEEPEST);
    for r in 0..ROWS {
        for t in 0..depth {
            // SAFETY: r < rows and t < depth, the shape of A.
            let v = if r < rows { unsafe { *a.get_unchecked(r, t) } } else { 0.0 };
            buffer[t * ROWS + r].write(v);
        }
    }
    Strip { at: buffer.as_ptr().cast(), apart: ROWS, depth }
}

/// A strip times N columns of B, in registers.
///
/// # Safety
/// The strip must have ROWS readable rows in each of its columns, as many as B has rows; B must have N columns.
#[inline(always)]
unsafe fn sums<const N: usize>(strip: Strip, b: MatRef<'_, f64>) -> [[f64; ROWS]; N] {
    let mut sums = [[0.0f64; ROWS]; N];
    let (b, down, along) = (b.as_ptr(), b.row_stride(), b.col_stride());
    for t in 0..strip.depth {
        let a = &*strip.at.add(t * strip.apart).cast::<[f64; ROWS]>();
        let b = b.offset(t as isize * down);
        for j in 0..N {
            let f = *b.offset(j as isize * along);
            for i in 0..ROWS {
                sums[j][i] = f64::mul_add(a[i], f, sums[j][i]);
            }
        }
    }
    sums
}

/// One tile of C, at most ROWS x N.
///
/// # Safety
/// As for `sums`, and C must have N columns of not more than ROWS contiguous rows.
#[inline(always)]
unsafe fn tile<const N: usize>(c: MatMut<'_, f64>, accum: Accum, strip: Strip, b: MatRef<'_, f64>, alpha: f64) {
    let sums = sums::<N>(strip, b);
    let keep = if matches!(accum, Accum::Add) { 1.0 } else { 0.0 };
    let (rows, apart, c) = (c.nrows(), c.col_stride(), c.as_ptr_mut());
    if rows == ROWS {
        for j in 0..N {
            let column = &mut *c.offset(j as isize * apart).cast::<[f64; ROWS]>();
            if keep == 0.0 {
                column.fill(0.0);
            }
            for i in 0..ROWS {
                column[i] = alpha.mul_add(sums[j][i], column[i]);
            }
        }
    } else {
        for j in 0..N {
            for i in 0..rows {
                let entry = &mut *c.offset(i as isize + j as isize * apart);
                *entry = alpha.mul_add(sums[j][i], if keep == 0.0 { 0.0 } else { *entry });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    #[test]
    fn every_shape_and_side_gives_the_product() {
        let value = |i: usize, j: usize| ((i * 31 + j * 17) % 23) as f64 / 23.0 - 0.45;
        for (m, n, k) in
            [(1, 1, 1), (3, 5, 2), (8, 8, 8), (9, 7, 13), (16, 3, 40), (33, 18, 300), (5, 21, 0), (24, 24, 7)]
        {
            let (a, b) = (Mat::from_fn(m, k, value), Mat::from_fn(k, n, value));
            let (at, bt) = (a.transpose().to_owned(), b.transpose().to_owned());
            let want = |i: usize, j: usize| 0.5 * (0..k).map(|t| a[(i, t)] * b[(t, j)]).sum::<f64>();
            for a in [a.as_ref(), at.as_ref().transpose()] {
                for b in [b.as_ref(), bt.as_ref().transpose()] {
                    for (accum, before) in [(Accum::Add, 2.0), (Accum::Replace, 0.0)] {
                        let start = Mat::from_fn(m, n, |_, _| 2.0);
                        let (mut plain, mut turned) = (start.clone(), start.transpose().to_owned());
                        multiply(plain.as_mut(), accum, a, b, 0.5);
                        multiply(turned.as_mut().transpose_mut(), accum, a, b, 0.5);
                        for i in 0..m {
                            for j in 0..n {
                                // Rounding errors of sums of at most 300 terms below one.
                                assert!((plain[(i, j)] - before - want(i, j)).abs() < 1e-13);
                                assert_eq!(plain[(i, j)], turned[(j, i)]);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn narrow_and_wide_registers_give_the_same_bits() {
        let (a, b) = (
            Mat::from_fn(37, 50, |i, j| (i as f64 + 0.3).sin() / (1.0 + j as f64)),
            Mat::from_fn(50, 29, |i, j| (i * j) as f64 / 7.0),
        );
        let (mut narrow, mut any) = (Mat::zeros(37, 29), Mat::zeros(37, 29));
        strips::<4>(narrow.as_mut(), Accum::Replace, a.as_ref(), b.as_ref(), -1.0);
        multiply(any.as_mut(), Accum::Replace, a.as_ref(), b.as_ref(), -1.0);
        assert_eq!(narrow, any);
    }
}
