//! Triangular systems with many right-hand sides, from the left and from the right.

use super::tiles::{each, mat, mat_mut, ranges, Tiles, PARALLEL_WORK, TILE};
use super::triangles::{solve_lower, solve_lower_transposed};
use super::SMALL;

/// Right-hand sides a task: all of them, or tiles that threads take one by one.
fn step(n: usize, m: usize) -> usize {
    if n * n * m / 2 > PARALLEL_WORK {
        TILE
    } else {
        m
    }
}

/// B <- B L^-T for B (m x n) and lower triangular L (n x n).
pub fn solve_right_lt(l: &[f64], n: usize, ldl: usize, b: &mut [f64], m: usize, ldb: usize) {
    if m == 0 || n == 0 {
        return;
    }
    if n <= SMALL {
        for j in 0..n {
            for k in 0..j {
                let f = l[j + k * ldl];
                let (bk, bj) = two_columns(b, k, j, m, ldb);
                for i in 0..m {
                    bj[i] -= f * bk[i];
                }
            }
            let inv = 1.0 / l[j + j * ldl];
            for v in &mut b[j * ldb..j * ldb + m] {
                *v *= inv;
            }
        }
        return;
    }
    let l = mat(l, n, n, ldl);
    mat_mut(b, m, n, ldb);
    let tiles = Tiles::new(b, ldb);
    each(ranges(m, step(n, m)).collect(), |(i, j): (usize, usize)| {
        solve_lower(l, tiles.get_mut(i, 0, j - i, n).transpose_mut());
    });
}

/// L21 <- A21 L11^-T below the factor L11 of a panel (w + r) x w.
pub(super) fn solve_below(panel: &mut [f64], w: usize, r: usize) {
    mat_mut(panel, w + r, w, w + r);
    let tiles = Tiles::new(panel, w + r);
    each(ranges(r, step(w, r)).collect(), |(i, j): (usize, usize)| {
        solve_lower(tiles.get(0, 0, w, w), tiles.get_mut(w + i, 0, j - i, w).transpose_mut());
    });
}

fn two_columns(b: &mut [f64], k: usize, j: usize, m: usize, ld: usize) -> (&[f64], &mut [f64]) {
    let (left, right) = b.split_at_mut(j * ld);
    (&left[k * ld..k * ld + m], &mut right[..m])
}

/// B <- L^-1 B for B (n x m).
pub fn solve_left_l(l: &[f64], n: usize, ldl: usize, b: &mut [f64], m: usize, ldb: usize) {
    if n <= SMALL || m == 1 {
        for c in 0..m {
            let x = &mut b[c * ldb..c * ldb + n];
            for j in 0..n {
                let v = x[j] / l[j + j * ldl];
                x[j] = v;
                for i in j + 1..n {
                    x[i] -= l[i + j * ldl] * v;
                }
            }
        }
        return;
    }
    let l = mat(l, n, n, ldl);
    mat_mut(b, n, m, ldb);
    let tiles = Tiles::new(b, ldb);
    each(ranges(m, step(n, m)).collect(), |(i, j): (usize, usize)| {
        solve_lower(l, tiles.get_mut(0, i, n, j - i));
    });
}

/// B <- L^-T B for B (n x m).
pub fn solve_left_lt(l: &[f64], n: usize, ldl: usize, b: &mut [f64], m: usize, ldb: usize) {
    if n <= SMALL || m == 1 {
        for c in 0..m {
            let x = &mut b[c * ldb..c * ldb + n];
            for j in (0..n).rev() {
                let mut s = x[j];
                for i in j + 1..n {
                    s -= l[i + j * ldl] * x[i];
                }
                x[j] = s / l[j + j * ldl];
            }
        }
        return;
    }
    let l = mat(l, n, n, ldl);
    mat_mut(b, n, m, ldb);
    let tiles = Tiles::new(b, ldb);
    each(ranges(m, step(n, m)).collect(), |(i, j): (usize, usize)| {
        solve_lower_transposed(l, tiles.get_mut(0, i, n, j - i));
    });
}

/// B <- B L^-1 for B (m x n) and lower triangular L (n x n).
pub fn solve_right_l(l: &[f64], n: usize, ldl: usize, b: &mut [f64], m: usize, ldb: usize) {
    if m == 0 || n == 0 {
        return;
    }
    if n <= SMALL {
        for j in (0..n).rev() {
            for k in j + 1..n {
                let f = l[k + j * ldl];
                let (left, right) = b.split_at_mut(k * ldb);
                for (bj, bk) in left[j * ldb..j * ldb + m].iter_mut().zip(&right[..m]) {
                    *bj -= f * bk;
                }
            }
            let inv = 1.0 / l[j + j * ldl];
            b[j * ldb..j * ldb + m].iter_mut().for_each(|v| *v *= inv);
        }
        return;
    }
    let l = mat(l, n, n, ldl);
    mat_mut(b, m, n, ldb);
    let tiles = Tiles::new(b, ldb);
    each(ranges(m, step(n, m)).collect(), |(i, j): (usize, usize)| {
        solve_lower_transposed(l, tiles.get_mut(i, 0, j - i, n).transpose_mut());
    });
}
