//! Symmetric matrices of any sign, factored as P'L D L'P (Bunch & Parlett 1971).

/// Share of the largest entry that a pivot of one row must have: (1 + sqrt(17)) / 8 bounds the growth.
const ALONE: f64 = 0.640_388_203_202_208;
/// Least absolute eigenvalue of D, in units that make the diagonal of the matrix 1.
const LEAST: f64 = 1e-4;

/// b <- (P'L |D| L'P)^-1 b for symmetric `a` (n x n) in units that make its diagonal 1 or -1: a step downhill whatever the
/// signs of the curvature (Cheng & Higham 1998), for less than its eigenvalues cost.
pub fn solve_absolute(a: &[f64], n: usize, b: &mut [f64]) {
    let top = (0..n).map(|j| a[j + j * n].abs()).fold(0.0, f64::max);
    let unit: Vec<f64> = (0..n).map(|j| a[j + j * n].abs().max(1e-10 * top).max(1e-300).sqrt()).collect();
    let mut m: Vec<f64> = (0..n * n).map(|t| a[t] / (unit[t % n] * unit[t / n])).collect();
    let mut x: Vec<f64> = b.iter().zip(&unit).map(|(b, u)| b / u).collect();
    let mut order: Vec<usize> = (0..n).collect();
    let mut pivots = vec![];
    let mut k = 0;
    while k < n {
        let wide = pivot(&mut m, n, k, &mut x, &mut order);
        let w = if wide { 2 } else { 1 };
        pivots.push(w);
        eliminate(&mut m, n, k, w, &mut x);
        k += w;
    }
    // L'x = |D|^-1 y from the end.
    for &w in pivots.iter().rev() {
        k -= w;
        over_absolute(&m, n, k, w, &mut x);
        for j in k..k + w {
            x[j] -= (k + w..n).map(|i| m[i + j * n] * x[i]).sum::<f64>();
        }
    }
    for (i, &j) in order.iter().enumerate() {
        b[j] = x[i] / unit[j];
    }
}

/// Bring the next pivot to the front of what is left; whether it has two rows.
fn pivot(m: &mut [f64], n: usize, k: usize, x: &mut [f64], order: &mut [usize]) -> bool {
    let (mut at, mut own) = (k, 0.0);
    let (mut pair, mut other) = ((k, k), 0.0);
    for j in k..n {
        if m[j + j * n].abs() > own {
            (at, own) = (j, m[j + j * n].abs());
        }
        for i in j + 1..n {
            if m[i + j * n].abs() > other {
                (pair, other) = ((j, i), m[i + j * n].abs());
            }
        }
    }
    let mut swap = |a: usize, b: usize| {
        if a != b {
            (0..n).for_each(|t| m.swap(t + a * n, t + b * n));
            (0..n).for_each(|t| m.swap(a + t * n, b + t * n));
            x.swap(a, b);
            order.swap(a, b);
        }
    };
    if own >= ALONE * other {
        swap(k, at);
        return false;
    }
    swap(k, pair.0);
    swap(k + 1, pair.1);
    true
}

/// Columns of L below a pivot of `w` rows, what it leaves of the rest, and L^-1 x.
fn eliminate(m: &mut [f64], n: usize, k: usize, w: usize, x: &mut [f64]) {
    let d = m[k + k * n];
    let from = k + w;
    let columns: Vec<f64> = (k..from).flat_map(|j| (from..n).map(move |i| (i, j))).map(|(i, j)| m[i + j * n]).collect();
    let r = n - from;
    let mut l = columns.clone();
    if w == 1 {
        let d = if d.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { d };
        l.iter_mut().for_each(|v| *v /= d);
    } else {
        let (e, f) = (m[k + 1 + k * n], m[k + 1 + (k + 1) * n]);
        let det = d * f - e * e;
        for i in 0..r {
            let (a, b) = (columns[i], columns[r + i]);
            (l[i], l[r + i]) = ((a * f - b * e) / det, (b * d - a * e) / det);
        }
    }
    for j in 0..r {
        for s in 0..w {
            let by = l[s * r + j];
            let (column, own) = (&columns[s * r..(s + 1) * r], &mut m[(from + j) * n + from..(from + j + 1) * n]);
            own.iter_mut().zip(column).for_each(|(o, c)| *o -= by * c);
        }
    }
    for s in 0..w {
        let v = x[k + s];
        x[from..].iter_mut().zip(&l[s * r..(s + 1) * r]).for_each(|(x, l)| *x -= l * v);
        m[(k + s) * n + from..(k + s + 1) * n].copy_from_slice(&l[s * r..(s + 1) * r]);
    }
}

/// x <- |D|^-1 x for a pivot of `w` rows.
fn over_absolute(m: &[f64], n: usize, k: usize, w: usize, x: &mut [f64]) {
    let d = m[k + k * n];
    if w == 1 {
        x[k] /= d.abs().max(LEAST);
        return;
    }
    let (e, f) = (m[k + 1 + k * n], m[k + 1 + (k + 1) * n]);
    let (half, spread) = (0.5 * (d + f), (0.5 * (d - f)).hypot(e));
    // Rotation to the eigenvectors.
    let angle = 0.5 * (2.0 * e).atan2(d - f);
    let (s, c) = angle.sin_cos();
    let (one, two) = (c * x[k] + s * x[k + 1], c * x[k + 1] - s * x[k]);
    let (one, two) = (one / (half + spread).abs().max(LEAST), two / (half - spread).abs().max(LEAST));
    (x[k], x[k + 1]) = (c * one - s * two, s * one + c * two);
}

#[cfg(test)]
mod tests {
    use super::super::{cholesky, dot, solve_left_l, solve_left_lt};
    use super::*;

    fn number(t: usize) -> f64 {
        ((t * 7919 + 13) % 1009) as f64 / 1009.0 - 0.5
    }

    #[test]
    fn a_positive_definite_matrix_is_solved() {
        for n in [1, 2, 7, 28] {
            let a: Vec<f64> = (0..n * n).map(|t| 1.0 / (1.0 + usize::abs_diff(t % n, t / n) as f64)).collect();
            let b: Vec<f64> = (0..n).map(number).collect();
            let (mut l, mut x, mut y) = (a.clone(), b.clone(), b.clone());
            cholesky(&mut l, n, n).unwrap();
            solve_left_l(&l, n, n, &mut x, 1, n);
            solve_left_lt(&l, n, n, &mut x, 1, n);
            solve_absolute(&a, n, &mut y);
            // Rounding errors times a condition number of about ten.
            assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-13), "{n}");
        }
    }

    #[test]
    fn signs_are_turned() {
        let solved = |a: &[f64], mut b: Vec<f64>| {
            solve_absolute(a, b.len(), &mut b);
            b
        };
        assert_eq!(solved(&[2.0, 0.0, 0.0, -4.0], vec![1.0, 1.0]), [0.5, 0.25]);
        // Eigenvalues 1 + d and d - 1 along (1, 1) and (1, -1): 2 / (1 + d) -+ 1 / (1 - d).
        let d = 1e-3;
        let turned = solved(&[d, 1.0, 1.0, d], vec![1.0, 3.0]);
        let (sum, rest) = (2.0 / (1.0 + d), 1.0 / (1.0 - d));
        assert!((turned[0] - sum + rest).abs() < 1e-12 && (turned[1] - sum - rest).abs() < 1e-12, "{turned:?}");
    }

    #[test]
    fn a_step_leads_downhill_from_any_curvature() {
        for n in [3, 12, 28] {
            for seed in 0..20 {
                let at = |i: usize, j: usize| number(seed * 1000 + i.min(j) * n + i.max(j));
                let a: Vec<f64> = (0..n * n).map(|t| at(t % n, t / n)).collect();
                let b: Vec<f64> = (0..n).map(|i| number(i + seed)).collect();
                let mut x = b.clone();
                solve_absolute(&a, n, &mut x);
                assert!(dot(&b, &x) > 0.0 && x.iter().all(|x| x.is_finite()));
            }
        }
        let mut none = vec![1.0, -2.0];
        solve_absolute(&[0.0; 4], 2, &mut none);
        assert!(none[0] > 0.0 && none[1] < 0.0);
    }
}
