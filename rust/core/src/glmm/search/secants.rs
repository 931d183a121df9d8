//! Secants of the gradient along accepted steps, which correct the curvature of the model.

use super::*;

/// Deviance that it may be better by.
pub(super) const ABRUPT: f64 = 1e-2;

/// A step in (beta, Sigma) and the change of the gradient along it, in absolute coordinates.
pub(super) struct Secant {
    pub(super) beta: Vec<f64>,
    pub(super) shape: Vec<f64>,
    pub(super) shape_gradient: Vec<f64>,
    pub(super) sigma: Vec<Vec<f64>>,
    pub(super) beta_gradient: Vec<f64>,
    pub(super) sigma_gradient: Vec<Vec<f64>>,
}

pub(super) fn product(a: &[f64], b: &[f64], k: usize, at: bool, bt: bool) -> Vec<f64> {
    let get = |m: &[f64], i: usize, j: usize, t: bool| if t { m[j + i * k] } else { m[i + j * k] };
    let mut out = vec![0.0; k * k];
    if k > PLAIN && !(at && bt) {
        let multiply = if at {
            dense::gemm_tn
        } else if bt {
            dense::gemm_nt
        } else {
            dense::gemm
        };
        multiply(&mut out, k, a, k, b, k, k, k, k, 1.0);
        return out;
    }
    for j in 0..k {
        for i in 0..k {
            out[i + j * k] = (0..k).map(|s| get(a, i, s, at) * get(b, s, j, bt)).sum();
        }
    }
    out
}

pub(super) fn covariances(m: &Moments, lambda: &[Vec<f64>]) -> Vec<Vec<f64>> {
    lambda.iter().zip(&m.factors).map(|(l, f)| product(l, l, f.cols, false, true)).collect()
}

pub(super) fn difference(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect()).collect()
}

impl Secant {
    /// (s, y) in (beta, pattern parameters, components of Sigma* at Lambda); components in `fixed` do not move.
    pub(super) fn local(
        &self,
        e: &Engine,
        lambda: &[Vec<f64>],
        components: &[Component],
        fixed: &[bool],
    ) -> (Vec<f64>, Vec<f64>) {
        let m = e.moments();
        let lambda = &patterns::regular(m, &e.patterns, lambda)[..];
        let mut s: Vec<f64> = self.beta.iter().chain(&self.shape).copied().collect();
        let mut y: Vec<f64> = self.beta_gradient.iter().chain(&self.shape_gradient).copied().collect();
        let mut star = vec![];
        let mut gradient = vec![];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let inv = invert(&lambda[f], k);
            star.push(product(&product(&inv, &self.sigma[f], k, false, false), &inv, k, false, true));
            gradient.push(product(
                &product(&lambda[f], &self.sigma_gradient[f], k, true, false),
                &lambda[f],
                k,
                false,
                false,
            ));
        }
        for (c, fixed) in components.iter().zip(fixed) {
            let k = m.factors[c.factor].cols;
            s.push(if *fixed { 0.0 } else { star[c.factor][c.row + c.col * k] });
            y.push(if *fixed { 0.0 } else { linear::entry(&gradient, m, c) });
        }
        (s, y)
    }
}

/// BFGS update of the symmetric matrix b (n x n) with Powell's damping.
pub(super) fn bfgs(b: &mut [f64], n: usize, s: &[f64], y: &[f64]) {
    let bs: Vec<f64> = (0..n).map(|i| (0..n).map(|j| b[i + j * n] * s[j]).sum()).collect();
    let sbs = dot(s, &bs);
    if !(sbs > 1e-14) || !sbs.is_finite() {
        return;
    }
    let sy = dot(s, y);
    let theta = if sy >= 0.2 * sbs { 1.0 } else { 0.8 * sbs / (sbs - sy) };
    let r: Vec<f64> = y.iter().zip(&bs).map(|(y, b)| theta * y + (1.0 - theta) * b).collect();
    let sr = dot(s, &r);
    if !(sr > 0.0) || !sr.is_finite() {
        return;
    }
    for j in 0..n {
        for i in 0..n {
            b[i + j * n] += r[i] * r[j] / sr - bs[i] * bs[j] / sbs;
        }
    }
}

/// The symmetric matrix of the components' values, per factor.
pub(super) fn spread(m: &Moments, components: &[Component], d: &[f64]) -> Vec<Vec<f64>> {
    let mut out: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
    for (c, v) in components.iter().zip(d) {
        let k = m.factors[c.factor].cols;
        out[c.factor][c.row + c.col * k] = *v;
        out[c.factor][c.col + c.row * k] = *v;
    }
    out
}

/// The gradient at a point, in absolute coordinates, and what is needed to make a secant of it.
pub(super) struct Mark {
    pub(super) beta: Vec<f64>,
    pub(super) shape: Vec<f64>,
    pub(super) sigma: Vec<Vec<f64>>,
    pub(super) beta_gradient: Vec<f64>,
    pub(super) shape_gradient: Vec<f64>,
    pub(super) sigma_gradient: Vec<Vec<f64>>,
}

impl Mark {
    pub(super) fn new(e: &Engine, at: &Point, slope: &Slope, charts: &[Chart]) -> Self {
        let mut beta = at.beta.clone();
        e.latent.iter().for_each(|&j| beta[j] = 0.0);
        Mark {
            beta,
            shape: patterns::coordinates(charts, &at.shape),
            sigma: covariances(e.moments(), &at.lambda),
            beta_gradient: slope.beta.clone(),
            shape_gradient: slope.gradient[..at.shape.len()].to_vec(),
            sigma_gradient: e.sigma_gradient(&at.lambda, &slope.n),
        }
    }

    pub(super) fn secant(&self, before: &Mark) -> Secant {
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x - y).collect();
        Secant {
            beta: minus(&self.beta, &before.beta),
            shape: minus(&self.shape, &before.shape),
            sigma: difference(&self.sigma, &before.sigma),
            beta_gradient: minus(&self.beta_gradient, &before.beta_gradient),
            shape_gradient: minus(&self.shape_gradient, &before.shape_gradient),
            sigma_gradient: difference(&self.sigma_gradient, &before.sigma_gradient),
        }
    }
}

/// The change of Sigma* by factor, entries of the components and pattern directions, and that of Lambda by loadings.
pub(super) fn moved(
    m: &Moments,
    components: &[Component],
    d: &[f64],
    slope: &Slope,
    shape: &[f64],
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut out = spread(m, components, d);
    let mut lambda = spread(m, &[], &[]);
    for (direction, v) in slope.directions.iter().zip(shape) {
        let f = direction.factor;
        match &direction.path {
            Path::Star(s) => out[f].iter_mut().zip(s).for_each(|(o, s)| *o += v * s),
            Path::Loading(a, b) => lambda[f][a + b * m.factors[f].cols] += v,
        }
    }
    (out, lambda)
}
