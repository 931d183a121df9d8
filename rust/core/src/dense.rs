//! Dense kernels on column-major blocks: small ones by plain loops, large ones by products through faer.

mod absolute;
mod eigen;
mod factor;
mod inverse;
mod kernel;
mod packed;
mod packed_inverse;
mod product;
mod rows;
mod solve;
mod tiles;
mod triangles;

pub use absolute::solve_absolute;
pub use eigen::{eigen_symmetric, inverse_upwards, lower_factor};
pub use factor::{cholesky, panel_factor, small_cholesky};
pub use inverse::{
    inverse_from_cholesky, inverse_into, inverse_until, mirror, small_inverse, Precision, TILED_INVERSE,
};
pub use packed::{
    packed_at, packed_cholesky, packed_len, packed_solve_left_l, packed_solve_right_l, packed_solve_right_lt,
    packed_syrk, stripes, Stripe,
};
pub use packed_inverse::{packed_columns, packed_inverse, packed_times, ByStripes};
pub use product::{dot, gemm, gemm_lower, gemm_nt, gemm_tn, syrk_lower, syrk_rows};
pub use rows::{by_rows, RowBlock};
pub use solve::{solve_left_l, solve_left_lt, solve_right_l, solve_right_lt};
pub(crate) use tiles::each;

/// A diagonal matrix.
pub fn diagonal(n: usize, entry: impl Fn(usize) -> f64) -> Vec<f64> {
    (0..n * n).map(|t| if t % n == t / n { entry(t / n) } else { 0.0 }).collect()
}

/// Below this order plain loops beat the set-up of a blocked kernel.
const SMALL: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CoreError, Stop};

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
    fn systems_without_right_hand_sides_are_solved_at_once() {
        let (n, mut none) = (40, []);
        for solve in [solve_left_l, solve_left_lt] {
            solve(&spd(n), n, n, &mut none, 0, n);
        }
        for solve in [solve_right_l, solve_right_lt] {
            solve(&spd(n), n, n, &mut none, 0, 0);
        }
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
