//! Terms whose Lambda is given by its entries and may be singular (reduced rank): their gradient without any inverse.
//!
//! With the notation of `laplace`, for a change of Lambda that is not of the form Lambda M,
//!     d/d Lambda = sum_l [ (Z't)_l u_l' - (Z'D1)_l v_l' + (Z'D2Z Lambda H^-1)_ll ].

use crate::cholesky::SelectedInverse;
use crate::dense;
use crate::design::Moments;

use super::patterns::Patterned;
use super::start;

/// Z'D2Z b by factor (levels x cols), from the cross-products.
pub fn multiply(m: &Moments, b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out: Vec<Vec<f64>> = vec![];
    for (factor, b) in m.factors.iter().zip(b) {
        let k = factor.cols;
        let mut o = vec![0.0; b.len()];
        for ((g, b), o) in factor.gram.chunks_exact(k * k).zip(b.chunks_exact(k)).zip(o.chunks_exact_mut(k)) {
            for (column, b) in g.chunks_exact(k).zip(b) {
                o.iter_mut().zip(column).for_each(|(o, g)| *o += g * b);
            }
        }
        out.push(o);
    }
    for p in &m.pairs {
        let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
        for (l, range) in p.start.windows(2).enumerate() {
            for e in range[0] as usize..range[1] as usize {
                let (v, o) = (&p.value[e * kl * ko..(e + 1) * kl * ko], p.level[e] as usize);
                for j in 0..ko {
                    for i in 0..kl {
                        out[p.lead][l * kl + i] += v[i + j * kl] * b[p.other][o * ko + j];
                        out[p.other][o * ko + j] += v[i + j * kl] * b[p.lead][l * kl + i];
                    }
                }
            }
        }
    }
    out
}

/// sum_l (Z'D2Z Lambda H^-1)_ll of one factor (cols x cols).
pub fn traces(m: &Moments, lambda: &[Vec<f64>], inv: &SelectedInverse, f: usize) -> Vec<f64> {
    let k = m.factors[f].cols;
    let mut out = vec![0.0; k * k];
    let mut half = vec![];
    // V Lambda B for V (k x c) and B (c x k).
    let mut add = |v: &[f64], c: usize, lambda: &[f64], b: &[f64]| {
        half.clear();
        half.resize(k * c, 0.0);
        dense::gemm(&mut half, k, v, k, lambda, c, k, c, c, 1.0);
        dense::gemm(&mut out, k, &half, k, b, c, k, k, c, 1.0);
    };
    for (g, z) in m.factors[f].gram.chunks_exact(k * k).zip(inv.diag[f].chunks_exact(k * k)) {
        add(g, k, &lambda[f], z);
    }
    for (p, z) in m.pairs.iter().zip(&inv.pairs) {
        let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
        let transposed = |x: &[f64]| -> Vec<f64> { (0..kl * ko).map(|t| x[t / ko + (t % ko) * kl]).collect() };
        for (v, z) in p.value.chunks_exact(kl * ko).zip(z.chunks_exact(kl * ko)) {
            if p.lead == f {
                add(v, ko, &lambda[p.other], &transposed(z));
            } else if p.other == f {
                add(&transposed(v), kl, &lambda[p.lead], z);
            }
        }
    }
    out
}

/// sum_l a_l b_l' for numbers by level (levels x k).
pub fn outer(a: &[f64], b: &[f64], k: usize, sign: f64, out: &mut [f64]) {
    for (a, b) in a.chunks_exact(k).zip(b.chunks_exact(k)) {
        for (column, b) in out.chunks_exact_mut(k).zip(b) {
            column.iter_mut().zip(a).for_each(|(o, a)| *o += sign * a * b);
        }
    }
}

/// Loadings to start from: the largest axes of the covariance that the scores of the random effects suggest.
pub fn start(m: &Moments, p: &Patterned, scores: &[f64], sd: &[f64]) -> Vec<f64> {
    let (k, d) = (p.pattern.k, p.pattern.rank);
    let mut sigma = start::covariance(m, p, scores, 1.0);
    sigma.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = 0.0);
    // In units of the columns' standard deviations, so that no column's scale decides.
    let scaled: Vec<f64> = (0..k * k).map(|t| sigma[t] / (sd[t % k] * sd[t / k])).collect();
    let (w, v) = dense::eigen_symmetric(&scaled, k);
    let mut lambda = vec![0.0; k * d];
    for j in 0..d {
        let e = k - 1 - j;
        let size = w[e].max(0.1).sqrt();
        (0..k).for_each(|i| lambda[i + j * k] = v[i + e * k] * size * sd[i]);
    }
    trapezoidal(&mut lambda, k, d);
    // The sign of a column is free: most of it is positive.
    for column in lambda.chunks_exact_mut(k).filter(|c| c.iter().sum::<f64>() < 0.0) {
        column.iter_mut().for_each(|v| *v = -*v);
    }
    p.pattern.loadings().iter().map(|&(i, j)| lambda[i + j * k]).collect()
}

/// Rotate the columns of a k x d matrix until it is lower trapezoidal.
fn trapezoidal(a: &mut [f64], k: usize, d: usize) {
    for i in 0..d.min(k) {
        for j in i + 1..d {
            let (x, y) = (a[i + i * k], a[i + j * k]);
            let r = x.hypot(y);
            if r == 0.0 {
                continue;
            }
            let (c, s) = (x / r, y / r);
            for t in 0..k {
                let (x, y) = (a[t + i * k], a[t + j * k]);
                a[t + i * k] = c * x + s * y;
                a[t + j * k] = c * y - s * x;
            }
        }
    }
}
