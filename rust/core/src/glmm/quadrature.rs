//! Adaptive Gauss-Hermite quadrature for models whose random effects split into independent groups.
//!
//! Group l with mode u_hat and H_l = L L': u_j = u_hat + sqrt(2) A x_j, A = L^-T (Liu & Pierce 1994; Pinheiro & Bates
//! 1995), -2 log-likelihood = log|H_l| - 2 log sum_j w_j exp(x_j'x_j - h_l(u_j)). The gradient is that of this sum, the
//! movement of the nodes included, so that one node gives exactly the Laplace approximation and its gradient.

use crate::dense;
use crate::error::shape;
use crate::CoreError;

/// Most nodes a group may get.
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

/// What the groups need at the mode: H, its factor's inverse and the modes, level by level.
pub struct Groups {
    pub k: usize,
    /// H_l and A_l = L_l^-T, k x k column-major.
    pub h: Vec<f64>,
    pub a: Vec<f64>,
    pub logdet: Vec<f64>,
    /// Modes, levels x k.
    pub u: Vec<f64>,
}

impl Groups {
    /// From the Gram matrices (levels x k x k) and Lambda.
    pub fn new(gram: &[f64], lambda: &[f64], u: Vec<f64>, k: usize) -> Result<Self, CoreError> {
        let levels = gram.len() / (k * k);
        let (mut h, mut a) = (vec![0.0; gram.len()], vec![0.0; gram.len()]);
        let mut logdet = vec![0.0; levels];
        let mut half = vec![0.0; k * k];
        for l in 0..levels {
            let g = &gram[l * k * k..(l + 1) * k * k];
            let h = &mut h[l * k * k..(l + 1) * k * k];
            for j in 0..k {
                for i in 0..k {
                    half[i + j * k] = (0..k).map(|t| g[i + t * k] * lambda[t + j * k]).sum();
                }
            }
            for j in 0..k {
                for i in 0..k {
                    let id = if i == j { 1.0 } else { 0.0 };
                    h[i + j * k] = id + (0..k).map(|t| lambda[t + i * k] * half[t + j * k]).sum::<f64>();
                }
            }
            let mut lower = h.to_vec();
            dense::small_cholesky(&mut lower, k, k)?;
            logdet[l] = 2.0 * (0..k).map(|i| lower[i + i * k].ln()).sum::<f64>();
            let a = &mut a[l * k * k..(l + 1) * k * k];
            (0..k).for_each(|i| a[i + i * k] = 1.0);
            dense::solve_left_lt(&lower, k, k, a, k, k);
        }
        Ok(Groups { k, h, a, logdet, u })
    }

    pub fn levels(&self) -> usize {
        self.logdet.len()
    }

    /// Effects of every group at one node, levels x k.
    pub fn at(&self, x: &[f64]) -> Vec<f64> {
        let k = self.k;
        let root = std::f64::consts::SQRT_2;
        let mut out = self.u.clone();
        for (u, a) in out.chunks_exact_mut(k).zip(self.a.chunks_exact(k * k)) {
            for c in 0..k {
                let s = root * x[c];
                u.iter_mut().zip(&a[c * k..(c + 1) * k]).for_each(|(u, a)| *u += a * s);
            }
        }
        out
    }
}

/// Lambda u for every group.
pub fn scaled(lambda: &[f64], u: &[f64], k: usize) -> Vec<f64> {
    let mut out = vec![0.0; u.len()];
    for (b, u) in out.chunks_exact_mut(k).zip(u.chunks_exact(k)) {
        for c in 0..k {
            b.iter_mut().zip(&lambda[c * k..(c + 1) * k]).for_each(|(b, l)| *b += l * u[c]);
        }
    }
    out
}

/// Deviance from log f of every (node, level), and the posterior weights of the nodes (nodes x levels).
pub fn combine(rule: &Rule, groups: &Groups, value: &mut [Vec<f64>]) -> f64 {
    let (k, levels) = (groups.k, groups.levels());
    for (j, v) in value.iter_mut().enumerate() {
        let u = groups.at(rule.node(j));
        for (l, v) in v.iter_mut().enumerate() {
            let uu: f64 = u[l * k..(l + 1) * k].iter().map(|u| u * u).sum();
            *v = rule.log_weight[j] - *v - 0.5 * uu;
        }
    }
    let mut deviance = 0.0;
    for l in 0..levels {
        let top = value.iter().map(|v| v[l]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = value.iter().map(|v| (v[l] - top).exp()).sum();
        let log = top + sum.ln();
        deviance += groups.logdet[l] - 2.0 * log;
        value.iter_mut().for_each(|v| v[l] = (v[l] - log).exp());
    }
    deviance
}

/// Sums over nodes for the gradient.
pub struct Moments {
    /// sum_j pi_j grad h(u_j), levels x k.
    pub slope: Vec<f64>,
    /// sum_j pi_j grad h(u_j) x_j', levels x (k x k).
    pub moved: Vec<f64>,
    /// sum_j pi_j (Lambda'Z'D1_j) u_j' over levels, k x k.
    pub direct: Vec<f64>,
}

impl Moments {
    pub fn zero(groups: &Groups) -> Self {
        let (k, levels) = (groups.k, groups.levels());
        Moments { slope: vec![0.0; levels * k], moved: vec![0.0; levels * k * k], direct: vec![0.0; k * k] }
    }

    /// Add a node: `zg` is Z'D1 (levels x k) at the effects `u`.
    pub fn add(&mut self, lambda: &[f64], x: &[f64], pi: &[f64], u: &[f64], zg: &[f64], k: usize) {
        let mut g = vec![0.0; k];
        for (l, &pi) in pi.iter().enumerate() {
            let (u, z) = (&u[l * k..(l + 1) * k], &zg[l * k..(l + 1) * k]);
            for (a, g) in g.iter_mut().enumerate() {
                *g = (0..k).map(|t| lambda[t + a * k] * z[t]).sum();
            }
            for a in 0..k {
                let full = pi * (g[a] + u[a]);
                self.slope[l * k + a] += full;
                for b in 0..k {
                    self.moved[l * k * k + a + b * k] += full * x[b];
                    self.direct[a + b * k] += pi * g[a] * u[b];
                }
            }
        }
    }

    /// C_l = H^-1 + what the movement of the nodes adds: it takes the place of H^-1 in the Laplace gradient.
    pub fn effective_inverse(&self, groups: &Groups) -> Vec<f64> {
        let k = groups.k;
        let k2 = k * k;
        let mut out = vec![0.0; self.moved.len()];
        for l in 0..groups.levels() {
            let a = &groups.a[l * k2..(l + 1) * k2];
            let abar: Vec<f64> =
                self.moved[l * k2..(l + 1) * k2].iter().map(|v| -std::f64::consts::SQRT_2 * v).collect();
            // Q = L' A Abar' A = Abar' A because L' = A^-1; only its lower triangle acts on L.
            let mut y = vec![0.0; k2];
            for j in 0..k {
                for i in j..k {
                    let q: f64 = (0..k).map(|t| abar[t + i * k] * a[t + j * k]).sum();
                    y[i + j * k] = 0.5 * q;
                    y[j + i * k] = 0.5 * q;
                }
            }
            // C = H^-1 - 2 Hbar_A with Hbar_A = -A Y A'.
            let o = &mut out[l * k2..(l + 1) * k2];
            for i in 0..k {
                for j in 0..k {
                    let mut sum = 0.0;
                    for s in 0..k {
                        for t in 0..k {
                            let id = if s == t { 1.0 } else { 0.0 };
                            sum += a[i + s * k] * (id + 2.0 * y[s + t * k]) * a[j + t * k];
                        }
                    }
                    o[i + j * k] = sum;
                }
            }
        }
        out
    }
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
