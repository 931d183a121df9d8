//! Covariances in dimensionless units, and the floor that zero variances rest on during the search.

use crate::dense;
use crate::design::{Moments, Structure};

/// Smallest standard deviation relative to the noise of one level's information (deviance error below q 1e-8).
pub const FLOOR: f64 = 1e-4;
/// Anything below this multiple of the floor is put on it.
pub const SNAP: f64 = 1.5;

/// Cholesky factor of the mean information matrix of one level, per slot: it makes Lambda dimensionless.
pub fn units(m: &Moments) -> Vec<Vec<Vec<f64>>> {
    m.factors
        .iter()
        .map(|f| {
            f.slots
                .iter()
                .map(|s| {
                    let k = s.cols;
                    let mut c = vec![0.0; k * k];
                    for g in f.gram.chunks_exact(f.cols * f.cols) {
                        for b in 0..k {
                            for a in 0..k {
                                c[a + b * k] += g[s.offset + a + (s.offset + b) * f.cols] / f.levels as f64;
                            }
                        }
                    }
                    if s.structure == Structure::Diagonal {
                        for b in 0..k {
                            for a in 0..k {
                                if a != b {
                                    c[a + b * k] = 0.0;
                                }
                            }
                        }
                    }
                    let scale: Vec<f64> = (0..k).map(|a| c[a + a * k]).collect();
                    for a in 0..k {
                        // Columns that never vary (or repeat each other) get a unit all the same.
                        c[a + a * k] += 1e-8 * scale[a] + f64::MIN_POSITIVE.max(1e-300);
                    }
                    if dense::small_cholesky(&mut c, k, k).is_err() {
                        c = vec![0.0; k * k];
                        for a in 0..k {
                            c[a + a * k] = scale[a].sqrt().max(1e-150);
                        }
                    }
                    for b in 1..k {
                        for a in 0..b {
                            c[a + b * k] = 0.0;
                        }
                    }
                    c
                })
                .collect()
        })
        .collect()
}

/// Block of a slot inside a factor's matrix.
pub fn slot_block(lambda: &[f64], k: usize, offset: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; cols * cols];
    for b in 0..cols {
        for a in 0..cols {
            out[a + b * cols] = lambda[offset + a + (offset + b) * k];
        }
    }
    out
}

pub fn put_block(lambda: &mut [f64], k: usize, offset: usize, cols: usize, block: &[f64]) {
    for b in 0..cols {
        for a in 0..cols {
            lambda[offset + a + (offset + b) * k] = block[a + b * cols];
        }
    }
}

/// C = A B (n x n); `at` transposes A.
pub fn mul(a: &[f64], b: &[f64], n: usize, at: bool) -> Vec<f64> {
    let mut c = vec![0.0; n * n];
    if n > PLAIN {
        let multiply = if at { dense::gemm_tn } else { dense::gemm };
        multiply(&mut c, n, a, n, b, n, n, n, n, 1.0);
        return c;
    }
    for j in 0..n {
        for i in 0..n {
            c[i + j * n] = (0..n).map(|s| if at { a[s + i * n] } else { a[i + s * n] } * b[s + j * n]).sum();
        }
    }
    c
}

/// Order up to which plain loops are as quick as blocked products.
pub const PLAIN: usize = 8;

/// Lambda of a slot with every dimensionless standard deviation at least `floor`; directions at the floor if `zero`
/// are set to exactly zero instead. Returns the rank.
fn clip(block: &[f64], unit: &[f64], structure: Structure, floor: f64, zero: bool) -> (Vec<f64>, usize) {
    let k = (unit.len() as f64).sqrt().round() as usize;
    if structure == Structure::Patterned {
        return (block.to_vec(), k);
    }
    let limit = if zero { 3.0 * floor } else { SNAP * floor };
    let low = if zero { 0.0 } else { floor };
    if structure == Structure::Diagonal || k == 1 {
        let mut out = vec![0.0; k * k];
        let mut rank = 0;
        for a in 0..k {
            let v = block[a + a * k].abs();
            let keep = v * unit[a + a * k] > limit;
            out[a + a * k] = if keep { v } else { low / unit[a + a * k] };
            rank += keep as usize;
        }
        return (out, rank);
    }
    let t = mul(unit, block, k, true);
    let mut tt = vec![0.0; k * k];
    dense::syrk_lower(&mut tt, k, &t, k, k, k, 1.0);
    dense::mirror(&mut tt, k);
    let (w, v) = dense::eigen_symmetric(&tt, k);
    let rank = w.iter().filter(|w| w.max(0.0).sqrt() > limit).count();
    if rank == k {
        return (block.to_vec(), k);
    }
    // V sqrt(D), then back to the units of the columns: solve unit' X = V sqrt(D).
    let mut x = vec![0.0; k * k];
    // Directions on the floor come last: their axes are then the last columns of Lambda.
    for c in 0..k {
        let e = k - 1 - c;
        let sd = w[e].max(0.0).sqrt();
        let sd = if sd > limit { sd } else { low };
        for a in 0..k {
            x[a + c * k] = v[a + e * k] * sd;
        }
    }
    dense::solve_left_lt(unit, k, k, &mut x, k, k);
    (x, rank)
}

pub fn clip_all(
    m: &Moments,
    units: &[Vec<Vec<f64>>],
    lambda: &[Vec<f64>],
    zero: bool,
) -> (Vec<Vec<f64>>, Vec<(usize, usize, usize)>) {
    let mut out = lambda.to_vec();
    let mut ranks = vec![];
    for (f, factor) in m.factors[..m.random()].iter().enumerate() {
        for (s, slot) in factor.slots.iter().enumerate() {
            let block = slot_block(&lambda[f], factor.cols, slot.offset, slot.cols);
            let (b, rank) = clip(&block, &units[f][s], slot.structure, FLOOR, zero);
            put_block(&mut out[f], factor.cols, slot.offset, slot.cols, &b);
            ranks.push((f, s, rank));
        }
    }
    (out, ranks)
}

/// Lambda with every direction at least on the floor (so that derivatives on the variance scale exist).
pub fn floored(m: &Moments, lambda: &[Vec<f64>]) -> Vec<Vec<f64>> {
    clip_all(m, &units(m), lambda, false).0
}

/// d deviance / d Sigma = Lambda^-T N Lambda^-1 of every factor.
pub fn sigma_gradient(m: &Moments, lambda: &[Vec<f64>], n: &[Vec<f64>]) -> Vec<Vec<f64>> {
    // Without random effects there is no N, although wide factors may be there.
    m.factors
        .iter()
        .zip(n)
        .enumerate()
        .map(|(f, (factor, n))| {
            let k = factor.cols;
            let inverse = invert(&lambda[f], k);
            let t = mul(n, &inverse, k, false);
            mul(&inverse, &t, k, true)
        })
        .collect()
}

/// Inverse of a square matrix: by Gauss-Jordan elimination with row pivoting, or by substitution if it is large and lower
/// triangular, as factors of patterned covariances are.
pub fn invert(a: &[f64], n: usize) -> Vec<f64> {
    let mut inv = vec![0.0; n * n];
    for i in 0..n {
        inv[i + i * n] = 1.0;
    }
    if n > PLAIN && (0..n).all(|j| a[j + j * n] != 0.0 && a[j * n..j * n + j].iter().all(|v| *v == 0.0)) {
        dense::solve_left_l(a, n, n, &mut inv, n, n);
        return inv;
    }
    let mut a = a.to_vec();
    for c in 0..n {
        let p = (c..n).max_by(|&i, &j| a[i + c * n].abs().total_cmp(&a[j + c * n].abs())).unwrap_or(c);
        for j in 0..n {
            a.swap(c + j * n, p + j * n);
            inv.swap(c + j * n, p + j * n);
        }
        let d = 1.0 / a[c + c * n];
        for j in 0..n {
            a[c + j * n] *= d;
            inv[c + j * n] *= d;
        }
        for i in (0..n).filter(|&i| i != c) {
            let f = a[i + c * n];
            if f != 0.0 {
                for j in 0..n {
                    a[i + j * n] -= f * a[c + j * n];
                    inv[i + j * n] -= f * inv[c + j * n];
                }
            }
        }
    }
    inv
}
