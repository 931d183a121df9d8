//! Triangular kernels by halves, down to blocks of a few rows: nearly all of the work is in products of blocks.
//!
//! (Recursive formulation after Elmroth & Gustavson 2000. One product kernel serves all of them, so that a small model
//! reads little code.)

use faer::{Accum, MatMut, MatRef};

use super::factor::small_cholesky;
use super::kernel::multiply;
use super::SMALL;
use crate::CoreError;

/// Orders that plain loops solve, and those whose square is formed where a triangle is wanted.
const SOLVED: usize = 8;
const SQUARED: usize = 24;

/// About half of an order, in whole registers.
fn half(n: usize) -> usize {
    let step = if n <= 2 * SOLVED { SOLVED / 2 } else { SOLVED };
    (n / 2).div_ceil(step) * step
}

/// C <- C + alpha A B.
fn add_product(c: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    multiply(c, Accum::Add, a, b, alpha);
}

/// Lower triangle of C <- C + alpha A A'.
pub(super) fn lower_product(c: MatMut<'_, f64>, a: MatRef<'_, f64>, alpha: f64) {
    lower_of(c, a, a, alpha);
}

/// Lower triangle of C <- C + alpha A B'.
pub(super) fn lower_of(mut c: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>, alpha: f64) {
    let n = c.nrows();
    if n <= SQUARED {
        let mut square = [0.0; SQUARED * SQUARED];
        let mut square = MatMut::from_column_major_slice_mut(&mut square[..n * n], n, n);
        multiply(square.as_mut(), Accum::Replace, a, b.transpose(), alpha);
        for j in 0..n {
            for i in j..n {
                c[(i, j)] += square[(i, j)];
            }
        }
        return;
    }
    let h = half(n);
    let (top, _, corner, bottom) = c.split_at_mut(h, h);
    let ((upper, lower), (left, right)) = (a.split_at_row(h), b.split_at_row(h));
    lower_of(top, upper, left, alpha);
    add_product(corner, lower, left.transpose(), alpha);
    lower_of(bottom, lower, right, alpha);
}

/// X <- L^-1 X for lower triangular L.
pub(super) fn solve_lower(l: MatRef<'_, f64>, x: MatMut<'_, f64>) {
    let n = l.nrows();
    if n <= SOLVED {
        return solve_plainly(l, x, false);
    }
    let h = half(n);
    let (l11, _, l21, l22) = l.split_at(h, h);
    let (mut x1, mut x2) = x.split_at_row_mut(h);
    solve_lower(l11, x1.as_mut());
    add_product(x2.as_mut(), l21, x1.as_ref(), -1.0);
    solve_lower(l22, x2);
}

/// X <- L^-T X for lower triangular L.
pub(super) fn solve_lower_transposed(l: MatRef<'_, f64>, x: MatMut<'_, f64>) {
    let n = l.nrows();
    if n <= SOLVED {
        return solve_plainly(l, x, true);
    }
    let h = half(n);
    let (l11, _, l21, l22) = l.split_at(h, h);
    let (mut x1, mut x2) = x.split_at_row_mut(h);
    solve_lower_transposed(l22, x2.as_mut());
    add_product(x1.as_mut(), l21.transpose(), x2.as_ref(), -1.0);
    solve_lower_transposed(l11, x1);
}

/// A few rows of X by plain loops along whichever of its sides is contiguous.
fn solve_plainly(l: MatRef<'_, f64>, x: MatMut<'_, f64>, transposed: bool) {
    let n = l.nrows();
    let entry = |i: usize, j: usize| if transposed { l[(j, i)] } else { l[(i, j)] };
    let order = |t: usize| if transposed { n - 1 - t } else { t };
    if x.row_stride() == 1 {
        for column in x.col_iter_mut() {
            let Some(column) = column.try_as_col_major_mut() else { return };
            let x = column.as_slice_mut();
            for t in 0..n {
                let j = order(t);
                let v = x[j] / l[(j, j)];
                x[j] = v;
                for i in (t + 1..n).map(order) {
                    x[i] -= entry(i, j) * v;
                }
            }
        }
        return;
    }
    let mut rows: [&mut [f64]; SOLVED] = Default::default();
    for (slot, row) in rows.iter_mut().zip(x.row_iter_mut()) {
        // Columns or rows are contiguous in every block of this crate.
        *slot = row.transpose_mut().try_as_col_major_mut().expect("contiguous rows").as_slice_mut();
    }
    for t in 0..n {
        let j = order(t);
        let done = std::mem::take(&mut rows[j]);
        let inv = 1.0 / l[(j, j)];
        done.iter_mut().for_each(|v| *v *= inv);
        for i in (t + 1..n).map(order) {
            let f = entry(i, j);
            rows[i].iter_mut().zip(done.iter()).for_each(|(o, v)| *o -= f * v);
        }
    }
}

/// Cholesky factor of the lower triangle, in place.
pub(super) fn cholesky(mut a: MatMut<'_, f64>) -> Result<(), CoreError> {
    let n = a.nrows();
    if n <= SMALL {
        let mut block = [0.0; SMALL * SMALL];
        (0..n).for_each(|j| (j..n).for_each(|i| block[i + j * n] = a[(i, j)]));
        small_cholesky(&mut block[..n * n], n, n)?;
        (0..n).for_each(|j| (j..n).for_each(|i| a[(i, j)] = block[i + j * n]));
        return Ok(());
    }
    let h = half(n);
    let (mut top, _, mut corner, mut bottom) = a.split_at_mut(h, h);
    cholesky(top.as_mut())?;
    solve_lower(top.as_ref(), corner.as_mut().transpose_mut());
    lower_product(bottom.as_mut(), corner.as_ref(), -1.0);
    cholesky(bottom)
}

/// W <- L^-1, both lower triangular; what is above the diagonal of W is left alone.
fn invert_lower(l: MatRef<'_, f64>, mut w: MatMut<'_, f64>) {
    let n = l.nrows();
    if n <= SOLVED {
        for j in 0..n {
            w[(j, j)] = 1.0 / l[(j, j)];
            for i in j + 1..n {
                let sum: f64 = (j..i).map(|k| l[(i, k)] * w[(k, j)]).sum();
                w[(i, j)] = -sum / l[(i, i)];
            }
        }
        return;
    }
    let h = half(n);
    let (l11, _, l21, l22) = l.split_at(h, h);
    let (mut w11, _, mut w21, w22) = w.split_at_mut(h, h);
    invert_lower(l11, w11.as_mut());
    multiply(w21.as_mut(), Accum::Replace, l21, w11.as_ref(), -1.0);
    solve_lower(l22, w21);
    invert_lower(l22, w22);
}

/// Lower triangle of Z <- W'W for lower triangular W, zero above the diagonal.
fn squared(mut z: MatMut<'_, f64>, w: MatRef<'_, f64>) {
    let n = w.nrows();
    if n <= SQUARED {
        return multiply(z, Accum::Replace, w.transpose(), w, 1.0);
    }
    let h = half(n);
    let (w11, _, w21, w22) = w.split_at(h, h);
    let (mut z11, _, z21, z22) = z.as_mut().split_at_mut(h, h);
    squared(z11.as_mut(), w11);
    lower_product(z11, w21.transpose(), 1.0);
    multiply(z21, Accum::Replace, w22.transpose(), w21, 1.0);
    squared(z22, w22);
}

/// Lower triangle of Z <- (L L')^-1, in Z and a buffer of its size with zeros.
pub(super) fn inverse(l: MatRef<'_, f64>, z: MatMut<'_, f64>, mut buffer: MatMut<'_, f64>) {
    invert_lower(l, buffer.as_mut());
    squared(z, buffer.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    fn matrix(n: usize, m: usize) -> Mat<f64> {
        Mat::from_fn(n, m, |i, j| ((i * 7 + j * 13) % 11) as f64 / 11.0 - 0.4)
    }

    #[test]
    fn agree_with_products_of_whole_matrices() {
        for n in [1, 2, 7, 8, 9, 12, 13, 17, 24, 25, 40, 77, 130] {
            let root = Mat::from_fn(n, n, |i, j| match i.cmp(&j) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 1.0 + (i % 3) as f64,
                std::cmp::Ordering::Greater => matrix(n, n)[(i, j)] / (n as f64).sqrt(),
            });
            let whole = &root * root.transpose();
            let close = |a: MatRef<'_, f64>, b: MatRef<'_, f64>| {
                for j in 0..n {
                    for i in j..n {
                        // Rounding errors of sums of n terms of order one.
                        assert!((a[(i, j)] - b[(i, j)]).abs() < 1e-12, "{n}: {} {}", a[(i, j)], b[(i, j)]);
                    }
                }
            };
            let mut sum = Mat::zeros(n, n);
            lower_product(sum.as_mut(), root.as_ref(), 1.0);
            close(sum.as_ref(), whole.as_ref());
            let mut factor = whole.clone();
            cholesky(factor.as_mut()).unwrap();
            close(factor.as_ref(), root.as_ref());
            let (mut z, mut buffer) = (Mat::zeros(n, n), Mat::zeros(n, n));
            inverse(root.as_ref(), z.as_mut(), buffer.as_mut());
            let full = Mat::from_fn(n, n, |i, j| z[(i.max(j), i.min(j))]);
            close((&whole * &full).as_ref(), Mat::<f64>::identity(n, n).as_ref());
            for m in [1, 3, 20] {
                let b = matrix(n, m);
                for rows in [false, true] {
                    let (mut x, mut turned) = (b.clone(), b.transpose().to_owned());
                    let mut solution = if rows { turned.as_mut().transpose_mut() } else { x.as_mut() };
                    solve_lower(root.as_ref(), solution.as_mut());
                    solve_lower_transposed(root.as_ref(), solution.as_mut());
                    let back = &whole * solution.as_ref();
                    assert!((0..n * m).all(|t| (back[(t % n, t / n)] - b[(t % n, t / n)]).abs() < 1e-12));
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused_wherever_it_shows() {
        for at in [0, 10, 29, 39] {
            let mut a = Mat::<f64>::identity(40, 40);
            a[(at, at)] = if at == 10 { f64::NAN } else { -1.0 };
            assert!(matches!(cholesky(a.as_mut()), Err(CoreError::NotPositiveDefinite(_))));
        }
    }
}
