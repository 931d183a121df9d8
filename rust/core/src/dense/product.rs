//! Products of blocks.

use faer::{Accum, MatRef};
use rayon::prelude::*;

use super::kernel::multiply;
use super::tiles::{mat, mat_mut, ranges, Tiles, PARALLEL_WORK, TILE};
use super::triangles::lower_of;

/// Sum of products. Long ones in eight sums side by side.
#[inline]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    const SHORT: usize = 12;
    if a.len() < SHORT {
        return a.iter().zip(b).map(|(x, y)| x * y).sum();
    }
    let mut acc = [0.0f64; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = ca.remainder().iter().zip(cb.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in ca.zip(cb) {
        for t in 0..8 {
            acc[t] += x[t] * y[t];
        }
    }
    acc.iter().sum::<f64>() + tail
}

/// Sums over many rows in registers.
fn syrk_narrow<const N: usize>(c: &mut [f64], ldc: usize, a: &[f64], k: usize, alpha: f64) {
    let mut acc = [[[0.0f64; N]; N]; 2];
    let pairs = a[..k * N].chunks_exact(2 * N);
    let odd = pairs.remainder();
    for i in 0..odd.len() {
        for j in 0..odd.len() {
            acc[0][i][j] += odd[i] * odd[j];
        }
    }
    for rows in pairs {
        for t in 0..2 {
            for i in 0..N {
                for j in 0..N {
                    acc[t][i][j] += rows[t * N + i] * rows[t * N + j];
                }
            }
        }
    }
    for j in 0..N {
        for i in j..N {
            c[i + j * ldc] += alpha * (acc[0][i][j] + acc[1][i][j]);
        }
    }
}

/// C <- C + alpha A B; large ones in tiles of rows that threads take one by one.
fn product(c: &mut [f64], ldc: usize, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    let (m, n, k) = (a.nrows(), b.ncols(), a.ncols());
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    if m * n * k <= PARALLEL_WORK {
        return multiply(mat_mut(c, m, n, ldc), Accum::Add, a, b, alpha);
    }
    mat_mut(c, m, n, ldc);
    let tiles = Tiles::new(c, ldc);
    let (rows, cols) = (tile_for(m), 4 * TILE);
    let parts: Vec<((usize, usize), (usize, usize))> =
        ranges(n, cols).flat_map(|j| ranges(m, rows).map(move |i| (i, j))).collect();
    parts.par_iter().with_max_len(1).for_each(|&((i0, i1), (j0, j1))| {
        let out = tiles.get_mut(i0, j0, i1 - i0, j1 - j0);
        multiply(out, Accum::Add, a.subrows(i0, i1 - i0), b.subcols(j0, j1 - j0), alpha);
    });
}

/// Tiles of about this many rows: some for every thread, none too small for the kernel.
fn tile_for(n: usize) -> usize {
    (n.div_ceil(8).div_ceil(48) * 48).clamp(96, 2 * TILE)
}

/// C <- C + alpha A B' for column-major A (m x k), B (n x k), C (m x n).
pub fn gemm_nt(
    c: &mut [f64],
    ldc: usize,
    a: &[f64],
    lda: usize,
    b: &[f64],
    ldb: usize,
    m: usize,
    n: usize,
    k: usize,
    alpha: f64,
) {
    if m > 0 && n > 0 && k > 0 {
        product(c, ldc, mat(a, m, k, lda), mat(b, n, k, ldb).transpose(), alpha);
    }
}

/// C <- C + alpha A B for column-major A (m x k), B (k x n), C (m x n).
pub fn gemm(
    c: &mut [f64],
    ldc: usize,
    a: &[f64],
    lda: usize,
    b: &[f64],
    ldb: usize,
    m: usize,
    n: usize,
    k: usize,
    alpha: f64,
) {
    if m > 0 && n > 0 && k > 0 {
        product(c, ldc, mat(a, m, k, lda), mat(b, k, n, ldb), alpha);
    }
}

/// C <- C + alpha A' B for column-major A (k x m), B (k x n), C (m x n).
pub fn gemm_tn(
    c: &mut [f64],
    ldc: usize,
    a: &[f64],
    lda: usize,
    b: &[f64],
    ldb: usize,
    m: usize,
    n: usize,
    k: usize,
    alpha: f64,
) {
    if m > 0 && n > 0 && k > 0 {
        product(c, ldc, mat(a, k, m, lda).transpose(), mat(b, k, n, ldb), alpha);
    }
}

/// Lower triangle of C <- C + alpha A A' for column-major A (n x k).
pub fn syrk_lower(c: &mut [f64], ldc: usize, a: &[f64], lda: usize, n: usize, k: usize, alpha: f64) {
    gemm_lower(c, ldc, a, lda, a, lda, n, k, alpha);
}

/// Lower triangle of C <- C + alpha A B' for column-major A and B (n x k).
pub fn gemm_lower(
    c: &mut [f64],
    ldc: usize,
    a: &[f64],
    lda: usize,
    b: &[f64],
    ldb: usize,
    n: usize,
    k: usize,
    alpha: f64,
) {
    if n == 0 || k == 0 {
        return;
    }
    if n * k <= 64 {
        for j in 0..n {
            for t in 0..k {
                let f = alpha * b[j + t * ldb];
                for i in j..n {
                    c[i + j * ldc] += f * a[i + t * lda];
                }
            }
        }
        return;
    }
    if n * n * k / 2 <= PARALLEL_WORK {
        return lower_of(mat_mut(c, n, n, ldc), mat(a, n, k, lda), mat(b, n, k, ldb), alpha);
    }
    let (tiles, a, b) = (Tiles::new(c, ldc), mat(a, n, k, lda), mat(b, n, k, ldb));
    let step = tile_for(n);
    let parts: Vec<((usize, usize), (usize, usize))> =
        ranges(n, step).flat_map(|j| ranges(n, step).filter(move |i| i.0 >= j.0).map(move |i| (i, j))).collect();
    parts.par_iter().with_max_len(1).for_each(|&((i0, i1), (j0, j1))| {
        let out = tiles.get_mut(i0, j0, i1 - i0, j1 - j0);
        if i0 == j0 {
            lower_of(out, a.subrows(i0, i1 - i0), b.subrows(i0, i1 - i0), alpha);
        } else {
            let right = b.subrows(j0, j1 - j0).transpose();
            multiply(out, Accum::Add, a.subrows(i0, i1 - i0), right, alpha);
        }
    });
}

/// Lower triangle of C <- C + alpha A A' for ROW-major A (n columns, k rows): C <- C + alpha sum_r a_r a_r'.
pub fn syrk_rows(c: &mut [f64], ldc: usize, a: &[f64], n: usize, k: usize, alpha: f64) {
    if n == 0 || k == 0 {
        return;
    }
    macro_rules! pick {
        ($($n:literal)*) => {
            match n {
                $($n => return syrk_narrow::<$n>(c, ldc, a, k, alpha),)*
                _ => {}
            }
        };
    }
    pick!(1 2 3 4 5 6 7 8);
    syrk_lower(c, ldc, a, n, n, k, alpha);
}
