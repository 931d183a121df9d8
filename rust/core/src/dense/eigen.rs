//! Eigenvalues and triangular factors of small matrices, by rotations.

use super::dot;

/// Matrices up to this order are left to Jacobi's rotations, which keep small eigenvalues to their own digits.
const JACOBI: usize = 12;
/// Steps for one eigenvalue of a tridiagonal matrix; two are usual.
const STEPS: usize = 60;

/// Eigenvalues (ascending) and eigenvectors (columns) of a small symmetric matrix.
pub fn eigen_symmetric(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut a, mut v) = (a.to_vec(), vec![0.0; n * n]);
    (0..n).for_each(|i| v[i * (n + 1)] = 1.0);
    let finite = a.iter().all(|x| x.is_finite());
    let values: Vec<f64> = if n > JACOBI && finite {
        let (mut d, mut e) = tridiagonal(&mut a, n, &mut v);
        implicit_ql(&mut d, &mut e, &mut v, n);
        d
    } else {
        jacobi(&mut a, &mut v, n);
        (0..n).map(|i| a[i * (n + 1)]).collect()
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let vectors = order.iter().flat_map(|&i| v[i * n..(i + 1) * n].iter().copied()).collect();
    (order.iter().map(|&i| values[i]).collect(), vectors)
}

/// A <- H A H for Householder reflections until it is tridiagonal, their product in `v` (the unit matrix before): diagonal
/// and what is beside it (Golub & Van Loan 2013, section 8.3.1).
fn tridiagonal(a: &mut [f64], n: usize, v: &mut [f64]) -> (Vec<f64>, Vec<f64>) {
    let mut reflections = vec![];
    for k in 0..n.saturating_sub(2) {
        let mut x = a[k * n + k + 1..(k + 1) * n].to_vec();
        let size = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let rest = x[1..].iter().any(|x| *x != 0.0);
        if !rest || size == 0.0 {
            continue;
        }
        let to = -size.copysign(x[0]);
        x[0] -= to;
        let beta = 2.0 / x.iter().map(|x| x * x).sum::<f64>();
        let mut w = vec![0.0; x.len()];
        for (j, xj) in x.iter().enumerate() {
            let column = &a[(k + 1 + j) * n + k + 1..(k + 2 + j) * n];
            let by = beta * xj;
            w.iter_mut().zip(column).for_each(|(w, a)| *w += by * a);
        }
        let half = 0.5 * beta * dot(&w, &x);
        w.iter_mut().zip(&x).for_each(|(w, x)| *w -= half * x);
        for (j, (xj, wj)) in x.iter().zip(&w).enumerate() {
            let column = &mut a[(k + 1 + j) * n + k + 1..(k + 2 + j) * n];
            column.iter_mut().zip(x.iter().zip(&w)).for_each(|(a, (x, w))| *a -= x * wj + w * xj);
        }
        a[k * n + k + 1] = to;
        reflections.push((k + 1, beta, x));
    }
    // From the last one on, what a reflection meets is as small as itself.
    for (from, beta, x) in reflections.into_iter().rev() {
        for column in v[from * n..].chunks_exact_mut(n) {
            let column = &mut column[from..];
            let t = beta * dot(column, &x);
            column.iter_mut().zip(&x).for_each(|(c, x)| *c -= t * x);
        }
    }
    ((0..n).map(|i| a[i * (n + 1)]).collect(), (0..n - 1).map(|i| a[i * (n + 1) + 1]).collect())
}

/// Diagonalise a tridiagonal matrix (`e` beside its diagonal `d`) by QL steps with Wilkinson's shift; the rotations go into
/// the columns of `v` (Golub & Van Loan 2013, section 8.3.3, from the other end).
fn implicit_ql(d: &mut [f64], e: &mut [f64], v: &mut [f64], n: usize) {
    for l in 0..n {
        for _ in 0..STEPS {
            let small = |m: &usize| e[*m].abs() <= f64::EPSILON * (d[*m].abs() + d[*m + 1].abs());
            let m = (l..n - 1).find(small).unwrap_or(n - 1);
            if m == l {
                break;
            }
            // The eigenvalue of the leading 2 x 2 block nearer to d[l].
            let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let shift = d[l] - e[l] / (g + g.hypot(1.0).copysign(g));
            let (mut bulge, mut along) = (e[m - 1], d[m] - shift);
            for i in (l..m).rev() {
                // Rotate rows i, i + 1 so that the bulge beside (or the shifted end of) the diagonal vanishes.
                let r = length(along, bulge);
                if r == 0.0 {
                    break;
                }
                let (c, s) = (along / r, bulge / r);
                if i + 1 < m {
                    e[i + 1] = r;
                }
                let (a, b, t) = (d[i + 1], d[i], e[i]);
                d[i + 1] = c * c * a + 2.0 * c * s * t + s * s * b;
                d[i] = s * s * a - 2.0 * c * s * t + c * c * b;
                e[i] = (c * c - s * s) * t + c * s * (b - a);
                if i > l {
                    along = e[i];
                    bulge = s * e[i - 1];
                    e[i - 1] *= c;
                }
                let (head, tail) = v.split_at_mut((i + 1) * n);
                for (x, y) in head[i * n..].iter_mut().zip(&mut tail[..n]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
        }
    }
}

/// The root of a sum of squares.
fn length(a: f64, b: f64) -> f64 {
    let square = a * a + b * b;
    if (1e-280..1e280).contains(&square) {
        square.sqrt()
    } else {
        a.hypot(b)
    }
}

/// A <- V'A V with off-diagonal entries of rounding errors' size, by cyclic Jacobi rotations.
fn jacobi(a: &mut [f64], v: &mut [f64], n: usize) {
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
                rotate(a, v, n, p, q);
            }
        }
    }
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

/// H^-1 on the directions in which symmetric H (n x n) curves upwards, in units that make its diagonal 1; `flat` is the
/// largest eigenvalue that counts as none. NaN throughout if H is not finite.
pub fn inverse_upwards(h: &[f64], n: usize, flat: f64) -> Vec<f64> {
    if h.iter().any(|v| !v.is_finite()) {
        return vec![f64::NAN; n * n];
    }
    let unit: Vec<f64> = (0..n).map(|i| h[i * (n + 1)]).map(|d| if d > 0.0 { d.sqrt() } else { 1.0 }).collect();
    let scaled: Vec<f64> = h.iter().enumerate().map(|(t, v)| v / unit[t % n] / unit[t / n]).collect();
    let (values, vectors) = eigen_symmetric(&scaled, n);
    let mut out = vec![0.0; n * n];
    for (value, v) in values.iter().zip(vectors.chunks_exact(n.max(1))).filter(|(value, _)| **value > flat) {
        for j in 0..n {
            for i in 0..n {
                out[i + j * n] += v[i] / unit[i] * (v[j] / unit[j]) / value;
            }
        }
    }
    out
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

    /// A = V D V' and V'V = I, for matrices with well separated, equal, zero and negative eigenvalues.
    #[test]
    fn vectors_and_values_make_up_the_matrix() {
        let full = |i: usize, j: usize| ((i * j + i + j) as f64).sin() + if i == j { 0.3 * i as f64 } else { 0.0 };
        let ones = |_: usize, _: usize| 1.0;
        let blocks = |i: usize, j: usize| if i / 3 == j / 3 { 1.0 / (1.0 + i.abs_diff(j) as f64) } else { 0.0 };
        let graded = |i: usize, j: usize| if i.abs_diff(j) < 2 { (-((i + j) as f64)).exp() } else { 0.0 };
        let none = |_: usize, _: usize| 0.0;
        let all: [&dyn Fn(usize, usize) -> f64; 5] = [&full, &ones, &blocks, &graded, &none];
        for n in [1, 2, 3, 12, 13, 14, 28, 61] {
            for f in all {
                let a: Vec<f64> = (0..n * n).map(|t| 0.5 * (f(t % n, t / n) + f(t / n, t % n))).collect();
                let (d, v) = eigen_symmetric(&a, n);
                let size = a.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                assert!(d.windows(2).all(|w| w[0] <= w[1]));
                for i in 0..n {
                    for j in 0..n {
                        let sum: f64 = (0..n).map(|t| v[i + t * n] * d[t] * v[j + t * n]).sum();
                        let unit: f64 = (0..n).map(|t| v[t + i * n] * v[t + j * n]).sum();
                        // Rounding errors of some n reflections and rotations.
                        let least = 1e-14 * n as f64;
                        assert!((sum - a[i + j * n]).abs() <= least * size, "{n} {i} {j}: {sum} {}", a[i + j * n]);
                        assert!((unit - if i == j { 1.0 } else { 0.0 }).abs() <= least);
                    }
                }
            }
        }
    }
}
