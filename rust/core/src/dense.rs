//! Dense kernels on column-major blocks: small ones by plain loops, large ones through faer.

use faer::linalg::{cholesky::llt, matmul, triangular_inverse, triangular_solve};
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::{CoreError, Stop};

mod inverse;
mod packed;

pub use inverse::{by_rows, RowBlock};
pub use packed::{
    packed_at, packed_cholesky, packed_len, packed_solve_left_l, packed_solve_right_l, packed_solve_right_lt,
    packed_syrk, stripes, Stripe,
};

/// Below this order plain loops beat the set-up of a blocked kernel.
const SMALL: usize = 12;
/// Order from which an inverse is formed in tiles.
pub const TILED_INVERSE: usize = 256;

/// Orders from which a Cholesky factorisation is cut into tiles, its block columns, and the tiles.
const PARALLEL_ORDER: usize = 512;
const CHOLESKY_BLOCK: usize = 128;
const TILE: usize = 192;
/// Multiplications from which a product is cut into tiles.
const PARALLEL_WORK: usize = 2_000_000;

/// How many threads a dense kernel may use: parallelism pays only above this number of multiplications.
pub fn par_for(work: usize) -> Par {
    if work > 4_000_000 && rayon::current_num_threads() > 1 {
        Par::rayon(0)
    } else {
        Par::Seq
    }
}

fn mat(a: &[f64], rows: usize, cols: usize, ld: usize) -> MatRef<'_, f64> {
    assert!(cols == 0 || a.len() >= ld * (cols - 1) + rows);
    // SAFETY: the assertion above keeps every addressed element inside the slice.
    unsafe { MatRef::from_raw_parts(a.as_ptr(), rows, cols, 1, ld as isize) }
}

fn mat_mut(a: &mut [f64], rows: usize, cols: usize, ld: usize) -> MatMut<'_, f64> {
    assert!(cols == 0 || a.len() >= ld * (cols - 1) + rows);
    // SAFETY: as above, and the slice is borrowed mutably.
    unsafe { MatMut::from_raw_parts_mut(a.as_mut_ptr(), rows, cols, 1, ld as isize) }
}

/// A column-major block shared by tasks that write disjoint parts of it.
struct Tiles<T = f64> {
    at: *mut T,
    len: usize,
    ld: usize,
}

impl<T> Clone for Tiles<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tiles<T> {}

// SAFETY: only used by the kernels below, each of whose tasks writes a tile of its own and reads what no task writes.
unsafe impl<T: Send> Send for Tiles<T> {}
unsafe impl<T: Sync> Sync for Tiles<T> {}

impl<T> Tiles<T> {
    fn new(a: &mut [T], ld: usize) -> Self {
        Tiles { at: a.as_mut_ptr(), len: a.len(), ld }
    }

    fn check(&self, i: usize, j: usize, rows: usize, cols: usize) -> usize {
        let first = i + j * self.ld;
        assert!(cols == 0 || first + self.ld * (cols - 1) + rows <= self.len);
        first
    }

    fn get<'a>(&self, i: usize, j: usize, rows: usize, cols: usize) -> MatRef<'a, T> {
        let first = self.check(i, j, rows, cols);
        // SAFETY: in range by the check; no task writes this part at the same time.
        unsafe { MatRef::from_raw_parts(self.at.add(first), rows, cols, 1, self.ld as isize) }
    }

    fn get_mut<'a>(&self, i: usize, j: usize, rows: usize, cols: usize) -> MatMut<'a, T> {
        let first = self.check(i, j, rows, cols);
        // SAFETY: in range by the check; no other task touches this tile at the same time.
        unsafe { MatMut::from_raw_parts_mut(self.at.add(first), rows, cols, 1, self.ld as isize) }
    }
}

/// Ranges of at most `step`, so that threads take the next one when they are done: no barriers, and no thread waits
/// for another that the machine has put aside.
fn ranges(n: usize, step: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..n).step_by(step).map(move |i| (i, (i + step).min(n)))
}

/// Digits of an inverse. Single precision takes half the time, which is enough to steer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Single,
    Double,
}

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
        return sequential_cholesky(mat_mut(a, n, n, ld));
    }
    let tiles = Tiles::new(a, ld);
    for (from, to) in ranges(n, CHOLESKY_BLOCK) {
        stop.map_or(Ok(()), Stop::check)?;
        let w = to - from;
        sequential_cholesky(tiles.get_mut(from, from, w, w))?;
        let below: Vec<(usize, usize)> = ranges(n - to, TILE).map(|(i, j)| (to + i, to + j)).collect();
        below.par_iter().for_each(|&(i, j)| {
            let panel = tiles.get_mut(i, from, j - i, w);
            let corner = tiles.get(from, from, w, w);
            triangular_solve::solve_lower_triangular_in_place(corner, panel.transpose_mut(), Par::Seq);
        });
        // The widest tiles first: what is left at the end is small.
        let parts: Vec<(usize, usize)> = (0..below.len()).flat_map(|j| (j..below.len()).map(move |i| (i, j))).collect();
        parts.par_iter().with_max_len(1).for_each(|&(i, j)| {
            let ((i0, i1), (j0, j1)) = (below[i], below[j]);
            let (left, right) = (tiles.get(i0, from, i1 - i0, w), tiles.get(j0, from, j1 - j0, w));
            let out = tiles.get_mut(i0, j0, i1 - i0, j1 - j0);
            if i == j {
                lower_product(out, left, -1.0, Par::Seq);
            } else {
                matmul::matmul(out, Accum::Add, left, right.transpose(), -1.0, Par::Seq);
            }
        });
    }
    Ok(())
}

fn sequential_cholesky(a: MatMut<'_, f64>) -> Result<(), CoreError> {
    let req = llt::factor::cholesky_in_place_scratch::<f64>(a.nrows(), Par::Seq, Default::default());
    let mut buf = faer::dyn_stack::MemBuffer::new(req);
    let stack = faer::dyn_stack::MemStack::new(&mut buf);
    llt::factor::cholesky_in_place(a, Default::default(), Par::Seq, stack, Default::default())
        .map(|_| ())
        .map_err(|e| CoreError::NotPositiveDefinite(format!("Cholesky factorisation failed: {e}")))
}

/// Lower triangle of C <- C + alpha A A'.
fn lower_product(c: MatMut<'_, f64>, a: MatRef<'_, f64>, alpha: f64, par: Par) {
    use matmul::triangular::BlockStructure::{Rectangular, TriangularLower};
    let right = a.transpose();
    matmul::triangular::matmul(c, TriangularLower, Accum::Add, a, Rectangular, right, Rectangular, alpha, par);
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
    triangular_solve::solve_lower_triangular_in_place(
        mat(l, n, n, ldl),
        mat_mut(b, m, n, ldb).transpose_mut(),
        par_for(n * n * m),
    );
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
    triangular_solve::solve_lower_triangular_in_place(mat(l, n, n, ldl), mat_mut(b, n, m, ldb), par_for(n * n * m));
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
    triangular_solve::solve_upper_triangular_in_place(
        mat(l, n, n, ldl).transpose(),
        mat_mut(b, n, m, ldb),
        par_for(n * n * m),
    );
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
    let l = mat(l, n, n, ldl).transpose();
    mat_mut(b, m, n, ldb);
    let tiles = Tiles::new(b, ldb);
    let step = if n * n * m / 2 > PARALLEL_WORK { TILE } else { m };
    let parts: Vec<(usize, usize)> = ranges(m, step).collect();
    parts.par_iter().with_max_len(1).for_each(|&(i, j)| {
        triangular_solve::solve_upper_triangular_in_place(l, tiles.get_mut(i, 0, j - i, n).transpose_mut(), Par::Seq);
    });
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
    let (top, bottom) = mat_mut(panel, ld, w, ld).split_at_row_mut(w);
    triangular_solve::solve_lower_triangular_in_place(top.as_ref(), bottom.transpose_mut(), par_for(w * w * r));
    Ok(())
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
        return matmul::matmul(mat_mut(c, m, n, ldc), Accum::Add, a, b, alpha, Par::Seq);
    }
    mat_mut(c, m, n, ldc);
    let tiles = Tiles::new(c, ldc);
    let (rows, cols) = (tile_for(m), 4 * TILE);
    let parts: Vec<((usize, usize), (usize, usize))> =
        ranges(n, cols).flat_map(|j| ranges(m, rows).map(move |i| (i, j))).collect();
    parts.par_iter().with_max_len(1).for_each(|&((i0, i1), (j0, j1))| {
        let out = tiles.get_mut(i0, j0, i1 - i0, j1 - j0);
        matmul::matmul(out, Accum::Add, a.subrows(i0, i1 - i0), b.subcols(j0, j1 - j0), alpha, Par::Seq);
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
    if n == 0 || k == 0 {
        return;
    }
    if n * k <= 64 {
        for j in 0..n {
            for t in 0..k {
                let f = alpha * a[j + t * lda];
                for i in j..n {
                    c[i + j * ldc] += f * a[i + t * lda];
                }
            }
        }
        return;
    }
    if n * n * k / 2 <= PARALLEL_WORK {
        return lower_product(mat_mut(c, n, n, ldc), mat(a, n, k, lda), alpha, Par::Seq);
    }
    let (tiles, a) = (Tiles::new(c, ldc), mat(a, n, k, lda));
    let step = tile_for(n);
    let parts: Vec<((usize, usize), (usize, usize))> =
        ranges(n, step).flat_map(|j| ranges(n, step).filter(move |i| i.0 >= j.0).map(move |i| (i, j))).collect();
    parts.par_iter().with_max_len(1).for_each(|&((i0, i1), (j0, j1))| {
        let out = tiles.get_mut(i0, j0, i1 - i0, j1 - j0);
        if i0 == j0 {
            lower_product(out, a.subrows(i0, i1 - i0), alpha, Par::Seq);
        } else {
            let right = a.subrows(j0, j1 - j0).transpose();
            matmul::matmul(out, Accum::Add, a.subrows(i0, i1 - i0), right, alpha, Par::Seq);
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

/// Inverse of L L' (both triangles) for lower triangular L (n x n).
pub fn inverse_from_cholesky(l: &[f64], n: usize, ldl: usize) -> Vec<f64> {
    inverse_until(l, n, ldl, Precision::Double, None)
}

/// The same in a chosen precision (if it is large, else in double precision); cut short, and worthless, when asked to.
pub fn inverse_until(l: &[f64], n: usize, ldl: usize, precision: Precision, stop: Option<&Stop>) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    if n == 0 {
        return out;
    }
    if n <= SMALL {
        for j in 0..n {
            out[j + j * n] = 1.0;
        }
        solve_left_l(l, n, ldl, &mut out, n, n);
        solve_left_lt(l, n, ldl, &mut out, n, n);
        return out;
    }
    if n >= TILED_INVERSE {
        match precision {
            Precision::Double => inverse::double(l, n, ldl, &mut out, stop),
            Precision::Single => inverse::single(l, n, ldl, &mut out, stop),
        }
        return out;
    }
    let par = par_for(n * n * n / 3);
    let mut inv = vec![0.0; n * n];
    triangular_inverse::invert_lower_triangular(mat_mut(&mut inv, n, n, n), mat(l, n, n, ldl), par);
    use matmul::triangular::BlockStructure::{TriangularLower, TriangularUpper};
    matmul::triangular::matmul(
        mat_mut(&mut out, n, n, n),
        TriangularLower,
        Accum::Replace,
        mat(&inv, n, n, n).transpose(),
        TriangularUpper,
        mat(&inv, n, n, n),
        TriangularLower,
        1.0,
        par,
    );
    mirror(&mut out, n);
    out
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

/// Eigenvalues (ascending) and eigenvectors (columns) of a small symmetric matrix, by cyclic Jacobi rotations.
pub fn eigen_symmetric(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = a.to_vec();
    let mut v = vec![0.0; n * n];
    for i in 0..n {
        v[i + i * n] = 1.0;
    }
    for _ in 0..60 {
        let mut off = 0.0;
        let mut diag = 0.0;
        for j in 0..n {
            diag += a[j + j * n] * a[j + j * n];
            for i in 0..j {
                off += a[i + j * n] * a[i + j * n];
            }
        }
        if !(off > 1e-32 * diag) || off == 0.0 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut v, n, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[i + i * n].total_cmp(&a[j + j * n]));
    let values = order.iter().map(|&i| a[i + i * n]).collect();
    let mut vectors = vec![0.0; n * n];
    for (c, &i) in order.iter().enumerate() {
        vectors[c * n..(c + 1) * n].copy_from_slice(&v[i * n..(i + 1) * n]);
    }
    (values, vectors)
}

fn rotate(a: &mut [f64], v: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p + q * n];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q + q * n] - a[p + p * n]) / (2.0 * apq);
    let t =
        if theta.abs() > 1e150 { 0.5 / theta } else { theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt()) };
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..n {
        let (akp, akq) = (a[k + p * n], a[k + q * n]);
        a[k + p * n] = c * akp - s * akq;
        a[k + q * n] = s * akp + c * akq;
    }
    for k in 0..n {
        let (apk, aqk) = (a[p + k * n], a[q + k * n]);
        a[p + k * n] = c * apk - s * aqk;
        a[q + k * n] = s * apk + c * aqk;
    }
    for k in 0..n {
        let (vkp, vkq) = (v[k + p * n], v[k + q * n]);
        v[k + p * n] = c * vkp - s * vkq;
        v[k + q * n] = s * vkp + c * vkq;
    }
}

/// Lower triangular R' with non-negative diagonal and R'R = M M', for M (k x k) column-major of any rank.
pub fn lower_factor(m: &[f64], k: usize) -> Vec<f64> {
    // Givens rotations from the right annihilate the upper triangle of M: M Q = L, so M M' = L L'.
    let mut l = m.to_vec();
    for i in 0..k {
        for j in i + 1..k {
            let (a, b) = (l[i + i * k], l[i + j * k]);
            if b == 0.0 {
                continue;
            }
            let r = a.hypot(b);
            let (c, s) = (a / r, b / r);
            for t in i..k {
                let (x, y) = (l[t + i * k], l[t + j * k]);
                l[t + i * k] = c * x + s * y;
                l[t + j * k] = c * y - s * x;
            }
            l[i + j * k] = 0.0;
        }
        if l[i + i * k] < 0.0 {
            for t in i..k {
                l[t + i * k] = -l[t + i * k];
            }
        }
    }
    l
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spd(n: usize) -> Vec<f64> {
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                a[i + j * n] = 1.0 / (1.0 + (i as f64 - j as f64).abs()) + if i == j { 1.0 } else { 0.0 };
            }
        }
        a
    }

    #[test]
    fn inverse_times_matrix_is_identity_for_small_and_blocked_kernels() {
        for n in [1, 3, 12, 13, 70, 128, 255, 256, 300, 513, 700] {
            let a = spd(n);
            let mut l = a.clone();
            cholesky(&mut l, n, n).unwrap();
            let inv = inverse_from_cholesky(&l, n, n);
            let mut prod = vec![0.0; n * n];
            gemm(&mut prod, n, &a, n, &inv, n, n, n, n, 1.0);
            for i in 0..n {
                for j in 0..n {
                    let want = if i == j { 1.0 } else { 0.0 };
                    assert!((prod[i + j * n] - want).abs() < 1e-12 * n as f64);
                }
            }
        }
    }

    #[test]
    fn a_tiled_inverse_in_single_precision_is_that_in_double_but_for_its_rounding() {
        for n in [256, 300, 700] {
            let mut l = spd(n);
            cholesky(&mut l, n, n).unwrap();
            let exact = inverse_from_cholesky(&l, n, n);
            let rounded = inverse_until(&l, n, n, Precision::Single, None);
            let far = exact.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // Rounding errors of 6e-8 times the condition number, about 15, times a few for their sum.
            assert!(far > 0.0 && far < 1e-5, "{n}: {far:e}");
        }
    }

    #[test]
    fn work_that_is_asked_to_end_ends() {
        let n = 700;
        let stop = Stop::default();
        stop.request();
        assert!(matches!(panel_factor(&mut spd(n), n, 0, Some(&stop)), Err(CoreError::Interrupted)));
        let out = inverse_until(&spd(n), n, n, Precision::Double, Some(&stop));
        assert!(out.iter().all(|v| *v == 0.0));
    }

    #[test]
    fn jacobi_reproduces_the_matrix() {
        let n = 6;
        let a = spd(n);
        let (w, v) = eigen_symmetric(&a, n);
        for i in 0..n {
            for j in 0..n {
                let s: f64 = (0..n).map(|k| v[i + k * n] * w[k] * v[j + k * n]).sum();
                assert!((s - a[i + j * n]).abs() < 1e-13);
            }
        }
    }

    #[test]
    fn lower_factor_keeps_the_product_also_when_singular() {
        let m = [1.0, 2.0, -1.0, 0.5, 1.0, -0.5, 0.0, 0.0, 0.0];
        let l = lower_factor(&m, 3);
        for i in 0..3 {
            assert!(l[i + i * 3] >= 0.0);
            for j in 0..3 {
                let want: f64 = (0..3).map(|t| m[i + t * 3] * m[j + t * 3]).sum();
                let got: f64 = (0..3).map(|t| l[i + t * 3] * l[j + t * 3]).sum();
                assert!((want - got).abs() < 1e-14);
            }
        }
    }
}
