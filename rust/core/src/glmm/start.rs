//! Variances to start from: the scores of the random effects at zero against their expected size.
//!
//! With score s = Z'(-D1) of a fit without random effects and G = Z'D2Z, E[s s'] = G + G Sigma G to first order: the sums
//! of squared scores per column give linear equations in the variances, crossed factors included through their pairs.

use crate::dense;
use crate::design::Moments;

/// Smallest and largest standard deviation to start from, in units of one level's information.
const LOW: f64 = 0.3;
/// Largest one.
const HIGH: f64 = 1e6;

/// Relative factors of every grouping factor (diagonal), from the scores Z'D1 by factor (levels x cols).
pub fn variances(m: &Moments, units: &[Vec<Vec<f64>>], zg: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let first: Vec<usize> = m
        .factors
        .iter()
        .scan(0, |at, f| {
            *at += f.cols;
            Some(*at - f.cols)
        })
        .collect();
    let n: usize = m.factors.iter().map(|f| f.cols).sum();
    let (mut a, mut rhs) = (vec![0.0; n * n], vec![0.0; n]);
    for (f, factor) in m.factors.iter().enumerate() {
        let k = factor.cols;
        for (g, s) in factor.gram.chunks_exact(k * k).zip(zg[f].chunks_exact(k)) {
            for i in 0..k {
                rhs[first[f] + i] += s[i] * s[i] - g[i + i * k];
                for j in 0..k {
                    a[first[f] + i + (first[f] + j) * n] += g[i + j * k] * g[i + j * k];
                }
            }
        }
    }
    for p in &m.pairs {
        let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
        for v in p.value.chunks_exact(kl * ko) {
            for j in 0..ko {
                for i in 0..kl {
                    let w = v[i + j * kl] * v[i + j * kl];
                    let (r, c) = (first[p.lead] + i, first[p.other] + j);
                    a[r + c * n] += w;
                    a[c + r * n] += w;
                }
            }
        }
    }
    let sigma = non_negative(&mut a, &rhs, n);
    let mut out = vec![];
    for (f, factor) in m.factors.iter().enumerate() {
        let mut lambda = vec![0.0; factor.cols * factor.cols];
        for (s, slot) in factor.slots.iter().enumerate() {
            for c in 0..slot.cols {
                let at = slot.offset + c;
                let information = 1.0 / unit_size(&units[f][s], slot.cols, c);
                let sd = sigma[first[f] + at].max(0.0).sqrt();
                lambda[at + at * factor.cols] = sd.clamp(LOW * information, HIGH * information);
            }
        }
        out.push(lambda);
    }
    out
}

fn unit_size(unit: &[f64], k: usize, c: usize) -> f64 {
    let own: f64 = (0..=c).map(|t| unit[c + t * k] * unit[c + t * k]).sum();
    own.sqrt().max(1e-150)
}

/// Least squares solution with negative entries set to zero one after another.
fn non_negative(a: &mut [f64], rhs: &[f64], n: usize) -> Vec<f64> {
    let mut active = vec![true; n];
    for _ in 0..=n {
        let on: Vec<usize> = (0..n).filter(|&i| active[i]).collect();
        let k = on.len();
        let mut h: Vec<f64> = (0..k * k).map(|t| a[on[t % k] + on[t / k] * n]).collect();
        (0..k).for_each(|i| h[i + i * k] *= 1.0 + 1e-8);
        let mut x: Vec<f64> = on.iter().map(|&i| rhs[i]).collect();
        if dense::cholesky(&mut h, k, k).is_err() {
            return vec![0.0; n];
        }
        dense::solve_left_l(&h, k, k, &mut x, 1, k);
        dense::solve_left_lt(&h, k, k, &mut x, 1, k);
        match (0..k).min_by(|&i, &j| x[i].total_cmp(&x[j])) {
            Some(worst) if x[worst] < 0.0 => active[on[worst]] = false,
            _ => {
                let mut out = vec![0.0; n];
                on.iter().zip(&x).for_each(|(&i, v)| out[i] = *v);
                return out;
            }
        }
    }
    vec![0.0; n]
}
