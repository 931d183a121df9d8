//! Whether a point is a minimum: conditions of first and second order, apart from the search that led there.
//!
//! With N the null directions of a covariance and R the others, a minimum over semidefinite covariances has slope 0 in
//! RR and RN, a semidefinite slope (the multipliers) in NN, and a curvature that is positive on RR and RN, where turning
//! a null direction costs its multiplier. Components in NN with semidefinite multipliers are `fixed`, all others free.

use super::model::{free_curvature, turning, Free};
use super::scale::{mul, slot_block, FLOOR, SNAP};
use crate::dense;
use crate::design::{Moments, Structure};
use crate::linear::{Component, Slope};

/// Deviance that a multiplier may be short of semidefinite by.
const NEGLIGIBLE: f64 = 1e-10;
/// Rounding error of a multiplier, per level.
const ROUNDING: f64 = 1e-14;
/// A curvature (relative to the average information) below this must be tried out.
const CURVED: f64 = 1e-3;

/// What the conditions say of a point.
pub struct Evidence {
    /// Decrease of the deviance that a Newton step on the free components promises.
    pub decrease: f64,
    /// Smallest eigenvalue of the observed relative to the average information on the free components.
    pub curvature: f64,
    /// Steps worth a trial, in the components of Sigma*: none at a minimum.
    pub ways_out: Vec<Vec<f64>>,
}

/// Examine a point at which the search sees nothing to gain; `limit` is the deviance that counts as something.
pub fn examine(m: &Moments, components: &[Component], slope: &Slope, fixed: &[bool], limit: f64) -> Evidence {
    let turning = turning(m, components, &slope.n, fixed);
    let free = free_curvature(slope, &turning, fixed, true);
    let newton = newton(&free, slope);
    let decrease = -0.5 * newton.iter().zip(&slope.gradient).map(|(d, g)| d * g).sum::<f64>();
    let mut ways_out = vec![];
    if decrease > limit {
        ways_out.extend([1.0, 0.3, 0.1, 0.01].map(|s| newton.iter().map(|d| s * d).collect()));
    }
    if free.least < CURVED {
        for size in [3.0, 1.0, 0.3, 0.1] {
            for sign in [1.0, -1.0] {
                ways_out.push(free.weakest.iter().map(|d| sign * size * d).collect());
            }
        }
    }
    Evidence { decrease, curvature: free.least, ways_out }
}

/// Unconstrained minimiser of the model on the free components.
fn newton(free: &Free, slope: &Slope) -> Vec<f64> {
    let (m, c) = (free.index.len(), slope.gradient.len());
    let mut l = free.scaled.clone();
    let mut step: Vec<f64> = free.index.iter().map(|&i| -slope.gradient[i] / free.unit[i]).collect();
    let mut out = vec![0.0; c];
    if m == 0 || dense::cholesky(&mut l, m, m).is_err() {
        return out;
    }
    dense::solve_left_l(&l, m, m, &mut step, 1, m);
    dense::solve_left_lt(&l, m, m, &mut step, 1, m);
    free.index.iter().zip(&step).for_each(|(&i, d)| out[i] = d / free.unit[i]);
    out
}

/// Components between two directions that rest on the floor with multipliers that keep them there. Their axes are
/// columns of Lambda (see `clip`); turning a floor direction into the others stays free.
pub fn at_floor(
    m: &Moments,
    units: &[Vec<Vec<f64>>],
    components: &[Component],
    lambda: &[Vec<f64>],
    slope: &Slope,
) -> Vec<bool> {
    let mut held: Vec<Vec<bool>> = m.factors.iter().map(|f| vec![false; f.cols]).collect();
    for (f, factor) in m.factors[..m.random()].iter().enumerate() {
        for (s, slot) in factor.slots.iter().enumerate() {
            let k = slot.cols;
            let t = mul(&units[f][s], &slot_block(&lambda[f], factor.cols, slot.offset, k), k, true);
            let null: Vec<usize> = (0..k)
                .filter(|c| t[c * k..(c + 1) * k].iter().map(|v| v * v).sum::<f64>().sqrt() <= SNAP * FLOOR)
                .map(|c| slot.offset + c)
                .collect();
            let slack = |at: usize| {
                let own = components.iter().position(|c| c.factor == f && c.row == at && c.col == at);
                let worth = own.map_or(0.0, |i| {
                    (2.0 * NEGLIGIBLE * slope.expected.sigma[i * (components.len() + 1)].abs()).sqrt()
                });
                worth + ROUNDING * (10 + factor.levels) as f64
            };
            if slot.structure == Structure::Diagonal {
                null.iter().for_each(|&a| held[f][a] = slope.n[f][a * (factor.cols + 1)] >= -slack(a));
            } else if !null.is_empty() {
                let least = least_multiplier(&slope.n[f], factor.cols, &null);
                let most = null.iter().map(|&a| slack(a)).fold(0.0, f64::max);
                null.iter().for_each(|&a| held[f][a] = least >= -most);
            }
        }
    }
    components.iter().map(|c| held[c.factor][c.row] && held[c.factor][c.col]).collect()
}

fn least_multiplier(n: &[f64], k: usize, null: &[usize]) -> f64 {
    let m = null.len();
    let block: Vec<f64> = (0..m * m).map(|t| n[null[t % m] + null[t / m] * k]).collect();
    dense::eigen_symmetric(&block, m).0[0]
}
