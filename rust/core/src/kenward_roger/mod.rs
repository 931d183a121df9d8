//! What Kenward & Roger (1997) need of a linear mixed model fitted by REML, from cross-products and the factorisation.
//!
//! The covariance V = sigma^2 V*, V* = W^-1 + Z Sigma* Z', is linear in the entries s_i of Sigma*, V_i = sigma^2 Z E_i Z',
//! and in its own scale, whose derivative is V itself. Their adjustment and degrees of freedom do not depend on which
//! linear parametrisation is taken, and in this one the second derivatives of V vanish and so does the part of the
//! scale in the adjustment. With Phi = (X'V^-1X)^-1, S = Z'V*^-1Z and T = X'V*^-1Z, in their notation
//!
//! ```text
//! Phi P_i Phi = -sigma^2 C T E_i T' C,      C = (X'V*^-1X)^-1,      Phi P_V Phi = -Phi,
//! Phi (Q_ij - P_i Phi P_j) Phi = sigma^2 C (T E_i S E_j T' - T E_i T' C T E_j T') C,
//! tr(P V_i P V_j) = tr(S E_i S E_j) - 2 tr(C T E_i S E_j T') + tr(C T E_i T' C T E_j T'),
//! tr(P V_i P V)   = tr(S E_i) - tr(C T E_i T'),      tr(P V P V) = n - p,
//! ```
//!
//! P = V^-1 - V^-1 X Phi X'V^-1 (V^-1 in the traces for ML). Nothing divides by Lambda: a variance may be zero. The traces of S come from
//! eliminating the factor of most levels (`Traces`).

mod blocks;
mod hessian;
mod information;
mod products;
mod rest;
mod traces;

use crate::dense;
use crate::design::Moments;
use crate::error::shape;
use crate::fit::{user_matrix, Model};
use crate::linear::Solution;
use crate::CoreError;

use information::{average, expected, unrestricted};
use products::{leading, pair, trace, Products};
use traces::{work_of_columns, Traces};

/// What remains to be done is algebra of p x p matrices; `m` parameters, the scale last.
#[derive(Clone, Debug)]
pub struct Ingredients {
    /// -Phi P_i Phi = d Phi / d s_i in the user's columns, m x p x p.
    pub slopes: Vec<f64>,
    /// Phi (Q_ij - P_i Phi P_j) Phi, symmetrised, for pairs i >= j without the scale, packed by rows, in the user's
    /// columns.
    pub bends: Vec<f64>,
    /// tr(P V_i P V_j), m x m; `exact` tells whether it is that, or y'P V_i P V_j P y, which has the same expectation.
    pub information: Vec<f64>,
    pub exact: bool,
    /// y'P V_i P V_j P y, m x m.
    pub average: Vec<f64>,
    /// tr(P V_i) and y'P V_i P y, whose difference is the gradient of the deviance; empty unless `exact`.
    pub traces: Vec<f64>,
    pub squares: Vec<f64>,
}

impl Model {
    /// Ingredients at theta and the estimate of sigma that goes with it, by REML or ML; the model is left there.
    pub fn kenward_roger(&mut self, theta: &[f64], reml: bool) -> Result<Ingredients, CoreError> {
        if self.lmm.moments.n <= self.lmm.moments.rank() {
            return shape("no residual degrees of freedom");
        }
        let lambda = self.lambda_from_theta(theta)?;
        let s = self.lmm.solve(&lambda, reml)?;
        let sigma = self.lmm.variance(&s, reml).sqrt();
        let (mut out, products) = self.ingredients(&lambda, &s, sigma, reml);
        let columns = work_of_columns(&self.lmm, &lambda);
        let most = columns.unwrap_or(f64::INFINITY);
        let mut s = s;
        let traces = match Traces::new(&self.lmm.moments, &lambda, &self.lmm.components, reml, most) {
            None if columns.is_some() => {
                let traces = Traces::of_columns(&mut self.lmm, &lambda)?;
                s = self.lmm.solve(&lambda, reml)?;
                Some(traces)
            }
            traces => traces,
        };
        if let Some(t) = traces {
            out.expect(&self.lmm.moments, &t, &products, reml.then(|| self.lmm.moments.p()), sigma);
        }
        self.set_state(lambda, s, sigma);
        Ok(out)
    }

    fn ingredients(&self, lambda: &[Vec<f64>], s: &Solution, sigma: f64, reml: bool) -> (Ingredients, Products) {
        let lmm = &self.lmm;
        let (m, p) = (&lmm.moments, lmm.moments.p());
        let (c, p1) = (lmm.components.len(), p + 1);
        let t = self.weighted(lambda, s);
        let products = self.products(lambda, &t);
        let own = |i: usize| &products.own[i * p1 * p1..(i + 1) * p1 * p1];
        let cross = |i: usize, j: usize| &products.cross[pair(i, j) * p1 * p1..(pair(i, j) + 1) * p1 * p1];
        let user = |mut d: Vec<f64>| -> Vec<f64> {
            dense::solve_left_lt(&s.lx, p, p, &mut d, p, p);
            dense::solve_right_l(&s.lx, p, p, &mut d, p, p);
            d.iter_mut().for_each(|v| *v *= sigma * sigma);
            user_matrix(m, &d)
        };
        let mut slopes = vec![];
        for i in 0..c {
            slopes.extend(user(leading(own(i), p)));
        }
        slopes.extend(user((0..p * p).map(|k| f64::from(k % p == k / p)).collect()));
        let mut bends = vec![];
        for i in 0..c {
            for j in 0..=i {
                let (bi, bj) = (own(i), own(j));
                let mut d = leading(cross(i, j), p);
                for a in 0..p {
                    for b in 0..p {
                        let both: f64 = (0..p).map(|k| bi[a + k * p1] * bj[k + b * p1]).sum();
                        d[a + b * p] -= both;
                    }
                }
                let even: Vec<f64> = (0..p * p).map(|k| 0.5 * (d[k] + d[k / p + (k % p) * p])).collect();
                bends.extend(user(even));
            }
        }
        let mut average = average(m, &products, p, sigma);
        average[(c + 1) * (c + 1) - 1] = lmm.nu(reml); // y'Py
        let out = Ingredients {
            slopes,
            bends,
            information: average.clone(),
            exact: false,
            average,
            traces: vec![],
            squares: vec![],
        };
        (out, products)
    }
}

impl Ingredients {
    /// The expected information in place of the average one; `p` coefficients that REML integrates out.
    fn expect(&mut self, m: &Moments, t: &Traces, products: &Products, p: Option<usize>, sigma: f64) {
        let (p1, size) = (m.p() + 1, (m.n - if p.is_some() { m.rank() } else { 0 }) as f64);
        self.information = match p {
            Some(p) => expected(m, t, products, p),
            None => unrestricted(t, size),
        };
        self.exact = true;
        let integrated = |i: usize| p.map_or(0.0, |p| trace(&products.own[i * p1 * p1..(i + 1) * p1 * p1], p));
        self.traces = t.first.iter().enumerate().map(|(i, t)| t - integrated(i)).chain([size]).collect();
        self.squares = products.first.iter().map(|v| v / (sigma * sigma)).chain([size]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::design::{Block, Codes, Numeric, Rows, Structure, Term};
    use crate::optimise::Options;

    fn rows<'a>(y: &'a [f64], codes: &'a [i32], levels: usize) -> Rows<'a> {
        let one = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None };
        let term = Term {
            codes: Codes::I32(codes),
            levels,
            structure: Structure::Unstructured,
            blocks: vec![one],
            joint: false,
            relation: None,
            fixed: false,
        };
        Rows { n: y.len(), fixed: vec![one], terms: vec![term], y, weights: None, offset: None }
    }

    /// Balanced groups: average and expected information agree at the optimum.
    #[test]
    fn average_information_is_the_expected_one_of_balanced_groups() {
        let codes: Vec<i32> = (0..24).map(|i| i / 4).collect();
        let y: Vec<f64> = (0..24).map(|i| ((i * 7919) % 31) as f64 / 9.0 + ((i / 4 * 13) % 7) as f64).collect();
        let mut model = Model::new(&rows(&y, &codes, 6)).unwrap();
        let theta = model.fit(true, None, &Options::default()).unwrap().theta;
        assert!(theta[0] > 0.0);
        let exact = model.kenward_roger(&theta, true).unwrap();
        assert!(exact.exact);
        let lambda = model.lambda_from_theta(&theta).unwrap();
        let s = model.lmm.solve(&lambda, true).unwrap();
        let products = model.products(&lambda, &model.weighted(&lambda, &s));
        let sigma = (s.r2 / model.lmm.nu(true)).sqrt();
        let near = average(&model.lmm.moments, &products, 1, sigma);
        for (a, b) in exact.information.iter().zip(&near) {
            assert!((a - b).abs() < 1e-6 * b.abs(), "{a} {b}"); // the optimum is good to 1e-8
        }
    }

    /// Column-major, from gradients in theta alone and the closed form of sigma's.
    fn differences(model: &mut Model, theta: f64, sigma: f64, reml: bool) -> Vec<f64> {
        let near = model.hessian_by_differences(&[theta], sigma, reml).unwrap();
        let step = 1e-4 * sigma;
        let up = model.gradient_at(&[theta], sigma + step, reml).unwrap()[0];
        let down = model.gradient_at(&[theta], sigma - step, reml).unwrap()[0];
        let mixed = (up - down) / (2.0 * step);
        let r2 = model.evaluate(&[theta], reml).unwrap().pwrss;
        let corner = 6.0 * r2 / sigma.powi(4) - 2.0 * model.lmm.nu(reml) / (sigma * sigma);
        vec![near[0], mixed, mixed, corner]
    }

    /// The exact Hessian is the difference quotient of the exact gradient, off the optimum too.
    #[test]
    fn hessian_is_the_slope_of_the_gradient() {
        let codes: Vec<i32> = (0..24).map(|i| i % 5).collect();
        let y: Vec<f64> = (0..24).map(|i| ((i * 7919) % 31) as f64 / 9.0).collect();
        let mut model = Model::new(&rows(&y, &codes, 5)).unwrap();
        for reml in [true, false] {
            for theta in [0.0, 0.4, 3.0] {
                let exact = model.hessian(&[theta], 1.2, reml).unwrap();
                let near = differences(&mut model, theta, 1.2, reml);
                let size = near.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                for (a, b) in exact.iter().zip(&near) {
                    assert!((a - b).abs() < 1e-6 * size, "{theta} {reml}: {a} {b}");
                    // of the difference quotient
                }
            }
        }
    }

    /// What goes level by level where there is one factor is what solves with all of it give.
    #[test]
    fn one_factor_goes_level_by_level() {
        let codes: Vec<i32> = (0..60).map(|i| (i * i + i / 7) % 9).collect();
        let y: Vec<f64> = (0..60).map(|i| ((i * 7919) % 31) as f64 / 9.0).collect();
        let x: Vec<f64> = (0..60).map(|i| ((i * 613) % 17) as f64 / 5.0 - 1.0).collect();
        let one = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None };
        let slope = Block { x: Some(Numeric::F64(&x)), ..one };
        let mut rows = rows(&y, &codes, 9);
        rows.fixed.push(slope);
        rows.terms[0].blocks.push(slope);
        let mut model = Model::new(&rows).unwrap();
        for theta in [[0.8, -0.3, 0.5], [0.7, 0.0, 0.0]] {
            for reml in [true, false] {
                let lambda = model.lambda_from_theta(&theta).unwrap();
                let s = model.lmm.solve(&lambda, reml).unwrap();
                let traces = Traces::new(&model.lmm.moments, &lambda, &model.lmm.components, reml, f64::INFINITY);
                let quick = model.bends(&lambda, &s, traces.as_ref(), reml);
                let slow = model.bends(&lambda, &s, None, reml);
                close(&quick.first, &slow.first);
                close(&quick.near, &slow.near);
                close(&quick.fixed, &slow.fixed);
                close(&quick.shared, &slow.shared);
                let slope = model.lmm.slope(&s, reml, dense::Precision::Double);
                let scale = model.lmm.nu(reml) / s.r2;
                let q: Vec<f64> = model.lmm.quadratic(&s, &slope.u).0.iter().map(|v| v * scale).collect();
                close(&slope.average.sigma, &q);
            }
        }
    }

    /// Traces from all of the inverse beside a packed root are those by elimination of a factor, and the model is left
    /// where it was.
    #[test]
    fn all_columns_give_the_same_traces() {
        let n = 2500;
        let codes: Vec<i32> = (0..n).map(|i| (i * i + i / 7) % 301).collect();
        let other: Vec<i32> = (0..n).map(|i| (i * 7919 % 1009) % 290).collect();
        let y: Vec<f64> = (0..n).map(|i| ((i * 7919) % 31) as f64 / 9.0).collect();
        let x: Vec<f64> = (0..n).map(|i| ((i * 613) % 17) as f64 / 5.0 - 1.0).collect();
        let mut rows = rows(&y, &codes, 301);
        let slope = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: Some(Numeric::F64(&x)) };
        rows.fixed.push(slope);
        rows.terms[0].blocks.push(slope);
        rows.terms.push(Term {
            codes: Codes::I32(&other),
            levels: 290,
            blocks: vec![rows.fixed[0]],
            ..rows.terms[0].clone()
        });
        let mut model = Model::new(&rows).unwrap();
        let theta = [0.8, -0.3, 0.5, 1.1];
        let lambda = model.lambda_from_theta(&theta).unwrap();
        model.lmm.solve(&lambda, true).unwrap();
        assert!(work_of_columns(&model.lmm, &lambda).is_some());
        let m = &model.lmm.moments;
        let slow = Traces::new(m, &lambda, &model.lmm.components, true, f64::INFINITY).unwrap();
        let quick = Traces::of_columns(&mut model.lmm, &lambda).unwrap();
        close(&quick.first, &slow.first);
        close(&quick.second, &slow.second);
        for reml in [true, false] {
            let exact = model.hessian(&theta, 1.2, reml).unwrap();
            let near = model.hessian_by_differences(&theta, 1.2, reml).unwrap();
            let size = near.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (i, v) in near.iter().enumerate() {
                assert!((v - exact[i % 4 + i / 4 * 5]).abs() < 1e-6 * size); // of the difference quotient
            }
            let r2 = model.evaluate(&theta, reml).unwrap().pwrss;
            model.hessian(&theta, 1.2, reml).unwrap();
            assert!(model.is_away());
            model.recover().unwrap();
            let state = model.state().unwrap();
            assert!(state.solution.r2 == r2 && model.lmm.numeric.logdet == state.solution.logdet_z);
        }
    }

    /// To rounding: both are sums of a few hundred terms.
    fn close(a: &[f64], b: &[f64]) {
        let size = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() <= 1e-11 * size, "{a} {b}"));
    }
}
