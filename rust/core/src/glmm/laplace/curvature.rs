//! The curvature of the working linear model, which the search takes for that of the deviance.

use crate::cholesky::SelectedInverse;
use crate::dense;
use crate::linear::Solution;

use super::super::patterns;
use super::super::trade;
use super::{Engine, Gradient, Point, Slope};

impl Engine {
    pub(super) fn curvature(&mut self, at: &Point, gradient: Gradient, mut inv: SelectedInverse) -> Slope {
        let related = !self.moments().couplings.is_empty();
        if related {
            inv.diag = self.whitened(&inv).into_owned();
        }
        let Gradient { beta, n, free: gradient, directions } = gradient;
        let lmm = &self.model.lmm;
        let (solution, curve) = self.working_solution(&at.lambda);
        let fixed = self.integrated_by_factor(&at.lambda);
        let trade = self.residual.map(|residual| {
            let (mut hu, mut none) = (at.u.clone(), vec![0.0; self.latent.len()]);
            match self.joint_factor(&at.lambda).ok().filter(|_| fixed.is_some()) {
                Some((f, lx)) => self.joint_solve(&f, &lx, &mut hu, &mut none),
                None => self.solve(&mut hu),
            }
            let components = patterns::of_components(&lmm.moments, &lmm.components);
            let all = if directions.is_empty() { &components } else { &directions };
            trade::of(lmm, &inv, residual, beta[residual.0], (&at.u, &hu), &at.lambda, all, fixed.as_ref())
        });
        let (mut q, cross, (mut info, bend)) = if directions.is_empty() && lmm.components.is_empty() {
            (vec![], vec![], (vec![], vec![]))
        } else if directions.is_empty() {
            let (q, cross) = lmm.quadratic(&solution, &at.u);
            (q, cross, (lmm.information_of(inv), vec![]))
        } else {
            let (q, cross) = if patterns::any_loadings(&self.patterns) {
                patterns::general_quadratic(lmm, &solution, (&at.u, &self.zg), &at.lambda, &directions)
            } else {
                patterns::quadratic(lmm, &solution, &at.u, &directions, &|v| self.precision(v))
            };
            (q, cross, patterns::information(lmm, &inv, &self.zg, &at.lambda, &directions))
        };
        if let Some(fixed) = fixed.filter(|_| !directions.is_empty()) {
            let cols: Vec<usize> = self.moments().factors.iter().map(|f| f.cols).collect();
            fixed.inform(&cols, &directions, &mut info);
        }
        let mut observed: Vec<f64> =
            (0..q.len()).map(|t| 2.0 * q[t] - info[t] + bend.get(t).copied().unwrap_or(0.0)).collect();
        let (m, c) = (at.penalty.shape.len(), gradient.len());
        for (t, &v) in at.penalty.shape_curvature.iter().enumerate() {
            let to = t % m + (t / m) * c;
            observed[to] += v;
            q[to] += v.max(0.0);
            info[to] += v.max(0.0);
        }
        let bend = patterns::bend(&lmm.moments, &self.patterns, &at.shape, &at.lambda, &n);
        let free = at.shape.len();
        bend.iter().enumerate().for_each(|(t, v)| observed[t % free + (t / free) * c] += v);
        let cross = cross.iter().map(|v| 2.0 * v).collect();
        let (average, expected, beta_curvature) = (q, info, curve);
        let beta_factor = solution.lx.iter().map(|l| std::f64::consts::SQRT_2 * l).collect();
        Slope { beta, n, gradient, directions, beta_curvature, beta_factor, cross, average, expected, observed, trade }
    }

    /// f = L^-1 Lambda'Z'WX, the Cholesky factor of X'V^-1X, and twice that matrix.
    pub fn working_solution(&self, lambda: &[Vec<f64>]) -> (Solution, Vec<f64>) {
        let lmm = &self.model.lmm;
        let p = self.plan.p();
        let p1 = p + 1;
        let mut f = lmm.right_hand_side(lambda);
        lmm.numeric.forward(&lmm.symbolic, &mut f, p1);
        let mut s = lmm.moments.xx.clone();
        dense::syrk_rows(&mut s, p1, &f, p1, lmm.symbolic.size, -1.0);
        let mut a = vec![0.0; p * p];
        for j in 0..p {
            for i in j..p {
                a[i + j * p] = s[i + j * p1];
                a[j + i * p] = s[i + j * p1];
            }
        }
        // A penalty of deviances counts half.
        a.iter_mut().zip(&self.penalty_curvature).for_each(|(a, v)| *a += 0.5 * v);
        let (a, lx) = positive_factored(a, p, sized);
        let lx = lx.unwrap_or_else(|| dense::diagonal(p, |j| a[j + j * p].abs().sqrt().max(1e-8)));
        let curve = a.iter().map(|v| 2.0 * v).collect();
        let solution = Solution {
            criterion: 0.0,
            logdet_z: lmm.numeric.logdet,
            logdet_x: 0.0,
            r2: 1.0,
            beta: vec![0.0; p],
            lx,
            f,
        };
        (solution, curve)
    }
}

/// Least share of its diagonal entry that a squared pivot must be, and the least eigenvalue that is positive, in units that
/// make the diagonal 1; and what one is made about which nothing is known.
const SHARE: f64 = 1e-10;
const LEAST: f64 = 1e-4;

/// What an eigenvalue is made: its size. A direction that curves downwards shortens no step along another one that curves
/// upwards by little, as separated outcomes have them.
pub fn sized(w: f64) -> f64 {
    if w.abs() > SHARE {
        w.abs()
    } else {
        LEAST
    }
}

/// The same in a matrix that is only like the curvature: what is negative is not small.
pub fn raised(w: f64) -> f64 {
    if w > SHARE {
        w
    } else {
        w.abs().max(LEAST)
    }
}

/// The matrix itself if it is positive definite, else with its (scaled) eigenvalues `made` positive.
pub fn positive(a: &[f64], p: usize, made: fn(f64) -> f64) -> Vec<f64> {
    definite_factor(a, p).map_or_else(|| lifted(a, p, made), |_| a.to_vec())
}

/// The same and its Cholesky factor, if it has one.
pub fn positive_factored(a: Vec<f64>, p: usize, made: fn(f64) -> f64) -> (Vec<f64>, Option<Vec<f64>>) {
    if let Some(l) = definite_factor(&a, p) {
        return (a, Some(l));
    }
    let a = lifted(&a, p, made);
    let mut l = a.clone();
    let l = dense::cholesky(&mut l, p, p).is_ok().then_some(l);
    (a, l)
}

/// Units that make the diagonal 1 or -1.
fn units(a: &[f64], p: usize) -> Vec<f64> {
    let top = (0..p).map(|j| a[j + j * p].abs()).fold(0.0, f64::max);
    (0..p).map(|j| a[j + j * p].abs().max(1e-10 * top).max(1e-300).sqrt()).collect()
}

/// Cholesky factor of what is positive definite beyond rounding errors.
pub(super) fn definite_factor(a: &[f64], p: usize) -> Option<Vec<f64>> {
    let mut l = a.to_vec();
    dense::cholesky(&mut l, p, p).ok()?;
    let clear = |(j, unit): (usize, f64)| l[j + j * p] > SHARE.sqrt() * unit;
    units(a, p).into_iter().enumerate().all(clear).then_some(l)
}

fn lifted(a: &[f64], p: usize, made: fn(f64) -> f64) -> Vec<f64> {
    let unit = units(a, p);
    let scaled: Vec<f64> = (0..p * p).map(|t| a[t] / (unit[t % p] * unit[t / p])).collect();
    let (w, mut v) = dense::eigen_symmetric(&scaled, p);
    for (column, w) in v.chunks_exact_mut(p).zip(&w) {
        let root = made(*w).sqrt();
        column.iter_mut().zip(&unit).for_each(|(v, s)| *v *= root * s);
    }
    let mut out = vec![0.0; p * p];
    dense::gemm_nt(&mut out, p, &v, p, &v, p, p, p, p, 1.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two coefficients of which only the difference is hardly known, beside one that curves downwards.
    #[test]
    fn what_curves_upwards_by_little_stays_beside_what_does_not() {
        let (little, down): (f64, f64) = (1e-7, -0.3);
        let a = [1.0, 1.0 - little, 0.0, 1.0 - little, 1.0, 0.0, 0.0, 0.0, down];
        for made in [positive(&a, 3, sized), positive(&a, 3, raised)] {
            // Rounding errors of the eigenvectors, far below what is little.
            let near = |(at, expected): (usize, f64)| f64::abs(made[at] - expected) < 1e-14;
            assert!([(0, 1.0), (1, 1.0 - little), (8, 0.3)].into_iter().all(near), "{made:?}");
        }
        let saddle = [1.0, 1.0 + little, 1.0 + little, 1.0];
        let least = |m: Vec<f64>| 0.5 * (m[0] + m[3] - m[1] - m[2]);
        assert!((least(positive(&saddle, 2, sized)) - little).abs() < 1e-14);
        assert!((least(positive(&saddle, 2, raised)) - LEAST).abs() < 1e-14);
    }
}
