//! Algebra of small dense blocks.

use crate::dense;
use crate::linear::dot;

use super::products::add;

/// Blocks of one level of the absorbed factor (k x k): N_aa, I - G H and H = Lambda (I + Lambda'G Lambda)^-1 Lambda'; the
/// last two tie it to other factors and are empty where there are none.
pub struct Absorbed {
    pub n: Vec<f64>,
    pub b: Vec<f64>,
    pub h: Vec<f64>,
}

pub fn absorb(g: &[f64], lambda: &[f64], k: usize, linked: bool) -> Absorbed {
    if k == 1 {
        let l2 = lambda[0] * lambda[0];
        let d = 1.0 / (1.0 + g[0] * l2);
        return Absorbed { n: vec![g[0] * d], b: vec![d], h: vec![l2 * d] };
    }
    // N = R (I + R'Sigma R)^-1 R' with G = R R' loses nothing where Sigma is large or small.
    let r = semidefinite_root(g, k);
    let lr = product(lambda, &r, k, true);
    let n = sandwich(&r, &inverse_plus(&product(&lr, &lr, k, true), k), k);
    if !linked {
        return Absorbed { n, b: vec![], h: vec![] };
    }
    let gl = product(g, lambda, k, false);
    let h = sandwich(lambda, &inverse_plus(&product(lambda, &gl, k, true), k), k);
    let mut b = product(g, &h, k, false);
    b.iter_mut().for_each(|v| *v = -*v);
    (0..k).for_each(|i| b[i * (k + 1)] += 1.0);
    Absorbed { n, b, h }
}

/// A level without a penalty; one without a coefficient is empty.
pub fn absorb_wide(g: f64) -> Absorbed {
    Absorbed { n: vec![0.0], b: vec![0.0], h: vec![if g > 0.0 { 1.0 / g } else { 0.0 }] }
}

/// Lower triangular R with R R' = G; columns of (nearly) no pivot are zero.
fn semidefinite_root(g: &[f64], k: usize) -> Vec<f64> {
    let mut r = vec![0.0; k * k];
    for j in 0..k {
        let pivot = g[j * (k + 1)] - (0..j).map(|t| r[j + t * k] * r[j + t * k]).sum::<f64>();
        if !(pivot > 1e-14 * g[j * (k + 1)]) {
            continue;
        }
        let root = pivot.sqrt();
        for i in j..k {
            r[i + j * k] = (g[i + j * k] - (0..j).map(|t| r[i + t * k] * r[j + t * k]).sum::<f64>()) / root;
        }
    }
    r
}

/// A B, or A'B, of k x k matrices.
fn product(a: &[f64], b: &[f64], k: usize, transposed: bool) -> Vec<f64> {
    let mut out = vec![0.0; k * k];
    for (o, b) in out.chunks_exact_mut(k).zip(b.chunks_exact(k)) {
        if transposed {
            o.iter_mut().zip(a.chunks_exact(k)).for_each(|(o, a)| *o = dot(a, b));
        } else {
            b.iter().zip(a.chunks_exact(k)).for_each(|(&v, a)| add(o, a, v));
        }
    }
    out
}

/// (I + A)^-1 for positive semidefinite A.
pub fn inverse_plus(a: &[f64], k: usize) -> Vec<f64> {
    let mut l = a.to_vec();
    (0..k).for_each(|i| l[i * (k + 1)] += 1.0);
    match dense::cholesky(&mut l, k, k) {
        Ok(()) => dense::inverse_from_cholesky(&l, k, k),
        Err(_) => vec![f64::NAN; k * k],
    }
}

/// A M A' for symmetric M.
pub fn sandwich(a: &[f64], m: &[f64], k: usize) -> Vec<f64> {
    let am = product(a, m, k, false);
    let mut out = vec![0.0; k * k];
    for (am, a) in am.chunks_exact(k).zip(a.chunks_exact(k)) {
        out.chunks_exact_mut(k).zip(a).for_each(|(o, &v)| add(o, am, v));
    }
    out
}

/// Append A B for A (k x k) and B (k x d).
pub fn append_times(out: &mut Vec<f64>, a: &[f64], b: &[f64], k: usize) {
    if k == 1 {
        return out.extend(b.iter().map(|b| a[0] * b));
    }
    let first = out.len();
    out.resize(first + b.len(), 0.0);
    for (o, x) in out[first..].chunks_exact_mut(k).zip(b.chunks_exact(k)) {
        (0..k).for_each(|t| add(o, &a[t * k..(t + 1) * k], x[t]));
    }
}

/// C[rows, rows] += A'B, the lower triangle of a symmetric product of A, B (k x d).
pub fn scatter(out: &mut [f64], s: usize, rows: &[usize], a: &[f64], b: &[f64], k: usize) {
    for (y, (&col, b)) in rows.iter().zip(b.chunks_exact(k)).enumerate() {
        for (&row, a) in rows[..=y].iter().zip(a.chunks_exact(k)) {
            let both: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            out[row.max(col) + row.min(col) * s] += both;
        }
    }
}

/// tr(A B) of order n.
pub fn trace_of_product(a: &[f64], b: &[f64], n: usize) -> f64 {
    const B: usize = 64;
    let mut sum = 0.0;
    for jb in (0..n).step_by(B) {
        for ib in (0..n).step_by(B) {
            for j in jb..(jb + B).min(n) {
                for i in ib..(ib + B).min(n) {
                    sum += a[i + j * n] * b[j + i * n];
                }
            }
        }
    }
    sum
}
