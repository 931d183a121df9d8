//! Eigenvalues and triangular factors of small matrices, by rotations.

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
