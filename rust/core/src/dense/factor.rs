//! Cholesky factors of small, large and tall blocks.

use faer::Accum;
use rayon::prelude::*;

use super::kernel::multiply;
use super::solve::solve_below;
use super::tiles::{mat_mut, ranges, Tiles, TILE};
use super::triangles::{self, lower_product, solve_lower};
use super::SMALL;
use crate::{CoreError, Stop};

/// Order from which a factorisation is cut into tiles, and its block columns.
const PARALLEL_ORDER: usize = 512;
const CHOLESKY_BLOCK: usize = 128;

/// Cholesky factor L of the leading `n` x `n` block, in place in the lower triangle.
pub fn cholesky(a: &mut [f64], n: usize, ld: usize) -> Result<(), CoreError> {
    cholesky_until(a, n, ld, None)
}

/// `cholesky` that ends early when asked to.
fn cholesky_until(a: &mut [f64], n: usize, ld: usize, stop: Option<&Stop>) -> Result<(), CoreError> {
    if n <= SMALL {
        return small_cholesky(a, n, ld);
    }
    if n < PARALLEL_ORDER {
        return triangles::cholesky(mat_mut(a, n, n, ld));
    }
    let tiles = Tiles::new(a, ld);
    for (from, to) in ranges(n, CHOLESKY_BLOCK) {
        stop.map_or(Ok(()), Stop::check)?;
        let w = to - from;
        triangles::cholesky(tiles.get_mut(from, from, w, w))?;
        let below: Vec<(usize, usize)> = ranges(n - to, TILE).map(|(i, j)| (to + i, to + j)).collect();
        below.par_iter().for_each(|&(i, j)| {
            let panel = tiles.get_mut(i, from, j - i, w);
            let corner = tiles.get(from, from, w, w);
            solve_lower(corner, panel.transpose_mut());
        });
        // The widest tiles first: what is left at the end is small.
        let parts: Vec<(usize, usize)> = (0..below.len()).flat_map(|j| (j..below.len()).map(move |i| (i, j))).collect();
        parts.par_iter().with_max_len(1).for_each(|&(i, j)| {
            let ((i0, i1), (j0, j1)) = (below[i], below[j]);
            let (left, right) = (tiles.get(i0, from, i1 - i0, w), tiles.get(j0, from, j1 - j0, w));
            let out = tiles.get_mut(i0, j0, i1 - i0, j1 - j0);
            if i == j {
                lower_product(out, left, -1.0);
            } else {
                multiply(out, Accum::Add, left, right.transpose(), -1.0);
            }
        });
    }
    Ok(())
}

#[inline]
pub fn small_cholesky(a: &mut [f64], n: usize, ld: usize) -> Result<(), CoreError> {
    // The most frequent orders are unrolled by the compiler.
    match n {
        1 => plain_cholesky(a, 1, ld),
        2 => plain_cholesky(a, 2, ld),
        3 => plain_cholesky(a, 3, ld),
        4 => plain_cholesky(a, 4, ld),
        _ => plain_cholesky(a, n, ld),
    }
}

#[inline(always)]
fn plain_cholesky(a: &mut [f64], n: usize, ld: usize) -> Result<(), CoreError> {
    for j in 0..n {
        let mut d = a[j + j * ld];
        for k in 0..j {
            d -= a[j + k * ld] * a[j + k * ld];
        }
        if !(d > 0.0) || !d.is_finite() {
            return Err(CoreError::NotPositiveDefinite(format!("pivot {j} of {n} is {d:e}")));
        }
        let d = d.sqrt();
        a[j + j * ld] = d;
        for i in j + 1..n {
            let mut s = a[i + j * ld];
            for k in 0..j {
                s -= a[i + k * ld] * a[j + k * ld];
            }
            a[i + j * ld] = s / d;
        }
    }
    Ok(())
}

/// Factor a panel (w + r) x w in place: L11 = chol(A11), L21 = A21 L11^-T. It ends early when asked to.
pub fn panel_factor(panel: &mut [f64], w: usize, r: usize, stop: Option<&Stop>) -> Result<(), CoreError> {
    let ld = w + r;
    cholesky_until(panel, w, ld, stop)?;
    if r == 0 {
        return Ok(());
    }
    if w <= SMALL {
        for j in 0..w {
            for k in 0..j {
                let f = panel[j + k * ld];
                let (left, right) = panel.split_at_mut(j * ld);
                for (bj, bk) in right[w..ld].iter_mut().zip(&left[k * ld + w..(k + 1) * ld]) {
                    *bj -= f * bk;
                }
            }
            let inv = 1.0 / panel[j + j * ld];
            panel[j * ld + w..(j + 1) * ld].iter_mut().for_each(|v| *v *= inv);
        }
        return Ok(());
    }
    solve_below(panel, w, r);
    Ok(())
}
