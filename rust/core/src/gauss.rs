//! Gauss's rules for discrete measures: few nodes for sums over many numbers.

use crate::dense;

const EQUAL: f64 = 1e-9; // numbers this close, relative to the largest, are one
const WIDEST: f64 = 4.0; // ratio of the numbers that share a rule

/// Nodes, decreasing, and weights of sums over positive, decreasing `mu` of functions like log(1 + lambda mu) and
/// (1 + lambda mu)^-k, lambda >= 0, to the relative error `error`. Where a rule would not be shorter it is the distinct
/// numbers with their multiplicities.
pub fn rule(mu: &[f64], error: f64) -> (Vec<f64>, Vec<f64>) {
    let (mut nodes, mut weights) = (vec![], vec![]);
    let (Some(first), Some(last)) = (mu.first(), mu.last()) else { return (nodes, weights) };
    let width = (first / last).ln().max(f64::MIN_POSITIVE);
    let pieces = (width / WIDEST.ln()).ceil().max(1.0);
    let piece = |x: &f64| (((first / x).ln() / width * pieces) as usize).min(pieces as usize - 1);
    for some in mu.chunk_by(|a, b| piece(a) == piece(b)) {
        let (x, c) = of_piece(some, error);
        nodes.extend(x);
        weights.extend(c);
    }
    (nodes, weights)
}

fn of_piece(mu: &[f64], error: f64) -> (Vec<f64>, Vec<f64>) {
    let (mut values, mut counts) = (vec![], vec![]);
    for equal in mu.chunk_by(|a, b| a - b <= EQUAL * mu[0]) {
        counts.push(equal.len() as f64);
        values.push(equal.iter().sum::<f64>() / equal.len() as f64);
    }
    // The error falls as rho^-2r, rho = (sqrt(b) + sqrt(a)) / (sqrt(b) - sqrt(a)) on [a, b].
    let root = (values[values.len() - 1] / values[0]).sqrt();
    let size = if root < 1.0 { (-error.ln() / (2.0 * ((1.0 + root) / (1.0 - root)).ln())).ceil() as usize } else { 1 };
    if size >= values.len() {
        (values, counts)
    } else {
        lanczos(&values, &counts, size.max(1))
    }
}

/// Eigenvalues of the Jacobi matrix of the measure, and its mass times their vectors' first entries squared (Golub &
/// Welsch 1969).
fn lanczos(values: &[f64], counts: &[f64], size: usize) -> (Vec<f64>, Vec<f64>) {
    let total: f64 = counts.iter().sum();
    let shift = values.iter().sum::<f64>() / values.len() as f64;
    let scale = values[0] - values[values.len() - 1];
    let mut basis = vec![counts.iter().map(|c| (c / total).sqrt()).collect::<Vec<f64>>()];
    let mut jacobi = vec![0.0; size * size];
    let done = loop {
        let j = basis.len() - 1;
        let mut step: Vec<f64> = values.iter().zip(&basis[j]).map(|(v, b)| (v - shift) / scale * b).collect();
        for _ in 0..2 {
            // Orthogonal to all before, not to the last two alone.
            for (i, b) in basis.iter().enumerate() {
                let along: f64 = b.iter().zip(&step).map(|(b, s)| b * s).sum();
                step.iter_mut().zip(b).for_each(|(s, b)| *s -= along * b);
                if i == j {
                    jacobi[j + j * size] += along;
                }
            }
        }
        let length = step.iter().map(|s| s * s).sum::<f64>().sqrt();
        if j + 1 == size || length <= EQUAL {
            break j + 1; // a few nodes may exhaust the measure
        }
        jacobi[j + 1 + j * size] = length;
        jacobi[j + (j + 1) * size] = length;
        basis.push(step.iter().map(|s| s / length).collect());
    };
    let small: Vec<f64> = (0..done).flat_map(|c| jacobi[c * size..c * size + done].to_vec()).collect();
    let (nodes, vectors) = dense::eigen_symmetric(&small, done);
    let weight = |c: usize| total * vectors[c * done] * vectors[c * done];
    (0..done).rev().map(|c| (shift + scale * nodes[c], weight(c))).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_integrate_what_they_promise() {
        for (least, count, error) in [(20.0, 500, 1e-9), (0.1, 60, 1e-6), (45.0, 300, 1e-12)] {
            let mu: Vec<f64> =
                (0..count).map(|i| 50.0 * (least / 50.0f64).powf(i as f64 / (count - 1) as f64)).collect();
            let (nodes, weights) = rule(&mu, error);
            assert!(nodes.len() < 40 && nodes.windows(2).all(|x| x[0] > x[1]));
            for i in -10..10 {
                let lambda = (0.7 * i as f64).exp();
                let exact: f64 = mu.iter().map(|m| (lambda * m).ln_1p()).sum();
                let found: f64 = nodes.iter().zip(&weights).map(|(m, c)| c * (lambda * m).ln_1p()).sum();
                // The bound is of the order of the error; rounding adds to it.
                assert!((found / exact - 1.0).abs() < 5.0 * error + 1e-13, "{least} {found} {exact}");
            }
        }
    }

    #[test]
    fn few_numbers_are_their_own_rule() {
        assert_eq!(rule(&[3.0, 3.0, 2.0], 1e-9), (vec![3.0, 2.0], vec![2.0, 1.0]));
        assert_eq!(rule(&[], 1e-9), (vec![], vec![]));
    }
}
