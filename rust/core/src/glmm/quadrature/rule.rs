//! Gauss-Hermite rules: nodes and weights of products of one-dimensional ones.

use crate::dense;
use crate::error::shape;
use crate::CoreError;

/// Most nodes a level of one grouping factor may get.
const MAX_NODES: usize = 20_000;

/// Nodes and log weights of a product rule, the factor exp(x'x) and the normalisation included.
#[derive(Clone, Debug)]
pub struct Rule {
    pub dim: usize,
    /// nodes x dim, row-major.
    pub x: Vec<f64>,
    pub log_weight: Vec<f64>,
}

impl Rule {
    pub fn new(points: usize, dim: usize) -> Result<Self, CoreError> {
        let total = (0..dim).try_fold(1usize, |t, _| t.checked_mul(points).filter(|&t| t <= MAX_NODES));
        let Some(total) = total else {
            return shape(format!(
                "quadrature with {points} nodes in {dim} dimensions needs more than {MAX_NODES} nodes a group; use fewer"
            ));
        };
        let (nodes, weights) = gauss_hermite(points);
        let (mut x, mut log_weight) = (vec![0.0; total * dim], vec![0.0; total]);
        let half_log_pi = 0.5 * std::f64::consts::PI.ln();
        for j in 0..total {
            let mut rest = j;
            for d in 0..dim {
                let t = rest % points;
                rest /= points;
                x[j * dim + d] = nodes[t];
                log_weight[j] += weights[t].ln() - half_log_pi + nodes[t] * nodes[t];
            }
        }
        Ok(Rule { dim, x, log_weight })
    }

    pub fn len(&self) -> usize {
        self.log_weight.len()
    }

    pub fn node(&self, j: usize) -> &[f64] {
        &self.x[j * self.dim..(j + 1) * self.dim]
    }
}

/// Nodes and weights for the weight function exp(-x^2), from the Jacobi matrix (Golub & Welsch 1969).
fn gauss_hermite(n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut jacobi = vec![0.0; n * n];
    for i in 1..n {
        let b = (i as f64 / 2.0).sqrt();
        jacobi[i + (i - 1) * n] = b;
        jacobi[i - 1 + i * n] = b;
    }
    let (mut w, _) = dense::eigen_symmetric(&jacobi, n);
    // Two Newton steps on the orthonormal polynomial make the nodes exact to the last digits.
    let mut weights = vec![0.0; n];
    for (x, weight) in w.iter_mut().zip(&mut weights) {
        for _ in 0..2 {
            let (p, d) = hermite(n, *x);
            *x -= p / d;
        }
        let d = hermite(n, *x).1;
        *weight = 2.0 / (d * d);
    }
    (w, weights)
}

/// Orthonormal Hermite polynomial of degree n and its derivative.
fn hermite(n: usize, x: f64) -> (f64, f64) {
    let mut last = 0.0;
    let mut p = std::f64::consts::PI.powf(-0.25);
    for j in 0..n {
        let next = x * (2.0 / (j + 1) as f64).sqrt() * p - (j as f64 / (j + 1) as f64).sqrt() * last;
        last = p;
        p = next;
    }
    (p, (2.0 * n as f64).sqrt() * last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_integrates_polynomials() {
        for n in [1usize, 2, 5, 11, 25] {
            let (x, w) = gauss_hermite(n);
            let m0: f64 = w.iter().sum();
            assert!((m0 - std::f64::consts::PI.sqrt()).abs() < 1e-12, "{n} {m0}");
            if n > 2 {
                let m4: f64 = x.iter().zip(&w).map(|(x, w)| x.powi(4) * w).sum();
                assert!((m4 - 0.75 * std::f64::consts::PI.sqrt()).abs() < 1e-12, "{n} {m4}");
            }
        }
    }
}
