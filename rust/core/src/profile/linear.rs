//! The deviance of a linear mixed model as a function of absolute roots T of the covariances and log sigma.
//!
//! With Lambda = T / sigma: d = log|A| + n log(2 pi sigma^2) + r2 / sigma^2 - sum log w. A combination a'beta held at b
//! adds (b - a'beta_hat)^2 / (a'(X'V^-1X)^-1 a) to r2 and moves beta along (X'V^-1X)^-1 a: no column is dropped and no
//! row is read again.

use rayon::prelude::*;

use crate::dense;
use crate::fit::{user_beta, user_slopes, Model};
use crate::linear::{dot, Solution};
use crate::optimise::{self, Options, Stop};
use crate::CoreError;

use super::{curve, hessian, Centre, Curve, Request, Surface, Targets};

/// A coefficient that is held: its weights of the internal coefficients, and its value where those are all 0.
#[derive(Clone, Debug)]
struct Held {
    weights: Vec<f64>,
    origin: f64,
}

pub struct Linear {
    model: Model,
    held: Option<Held>,
    beta: Vec<f64>,
    stop: Stop,
}

impl Linear {
    /// The optimum by maximum likelihood from `theta`, and the curvature there.
    pub fn centre(model: &Model, theta: &[f64], options: &Options) -> Result<Centre, CoreError> {
        let mut model = model.twin();
        let report = model.fit(false, Some(theta), options)?;
        let mut x: Vec<f64> = report.theta.iter().map(|t| t * report.sigma).collect();
        x.push(report.sigma.ln());
        let mut surface = Linear { model, held: None, beta: vec![], stop: options.stop.clone() };
        let frozen = vec![false; x.len()];
        let (deviance, _, _) = surface.at(&x, f64::NAN)?;
        let hessian = hessian(&mut surface, &x, &frozen)?;
        Ok(Centre { x, deviance, hessian, frozen })
    }

    /// Curves of several parameters, in parallel; `coefficient[t]` where the t-th holds a coefficient.
    pub fn curves(
        model: &Model,
        centre: &Centre,
        requests: &[(Request, Option<usize>)],
        targets: &Targets,
        stop: &Stop,
    ) -> Result<Vec<Curve>, CoreError> {
        let one = |(request, coefficient): &(Request, Option<usize>)| {
            let mut surface = Linear { model: model.twin(), held: None, beta: vec![], stop: stop.clone() };
            let (mut request, mut outside) = (request.clone(), 0.0);
            if let Some(j) = *coefficient {
                let held = held(&surface.model, j);
                surface.at(&centre.x, f64::NAN)?;
                request.estimate = surface.beta[j];
                outside = surface.curvature(&centre.x, &held)?;
                surface.held = Some(held);
            }
            curve(&mut surface, centre, &request, targets, outside)
        };
        if requests.len() == 1 {
            requests.iter().map(one).collect()
        } else {
            requests.par_iter().map(one).collect()
        }
    }

    /// 2 / Var(a'beta_hat).
    fn curvature(&mut self, x: &[f64], held: &Held) -> Result<f64, CoreError> {
        let (lambda, sigma) = self.lambda(x)?;
        let s = self.model.lmm.solve(&lambda, false)?;
        let (_, v) = direction(&s, &held.weights);
        Ok(2.0 / (v * sigma * sigma))
    }

    fn lambda(&self, x: &[f64]) -> Result<(Vec<Vec<f64>>, f64), CoreError> {
        let (t, sigma) = (&x[..x.len() - 1], x[x.len() - 1].exp());
        let theta: Vec<f64> = t.iter().map(|t| t / sigma).collect();
        Ok((self.model.lambda_from_theta(&theta)?, sigma))
    }

    /// Solve at Lambda with the coefficient held; also d r2 / d held.
    fn solve(&mut self, lambda: &[Vec<f64>], value: f64) -> Result<(Solution, f64), CoreError> {
        let mut s = self.model.lmm.solve(lambda, false)?;
        let mut slope = 0.0;
        if let (Some(held), true) = (&self.held, value.is_finite()) {
            let (along, v) = direction(&s, &held.weights);
            let miss = value - held.origin - dot(&held.weights, &s.beta);
            s.beta.iter_mut().zip(&along).for_each(|(b, a)| *b += miss / v * a);
            s.r2 += miss * miss / v;
            slope = 2.0 * miss / v;
        }
        Ok((s, slope))
    }
}

/// (X'V^-1X)^-1 a and a'(X'V^-1X)^-1 a, without sigma^2.
fn direction(s: &Solution, a: &[f64]) -> (Vec<f64>, f64) {
    let p = a.len();
    let mut d = a.to_vec();
    dense::solve_left_l(&s.lx, p, p, &mut d, 1, p);
    let v = dot(&d, &d);
    dense::solve_left_lt(&s.lx, p, p, &mut d, 1, p);
    (d, v)
}

/// Coefficient j of the user's columns.
fn held(model: &Model, j: usize) -> Held {
    let m = &model.lmm.moments;
    let origin = user_beta(m, &vec![0.0; m.p()])[j];
    let weights = (0..m.p())
        .map(|t| {
            let mut unit = vec![0.0; m.p()];
            unit[t] = 1.0;
            user_slopes(m, &unit)[j]
        })
        .collect();
    Held { weights, origin }
}

impl Surface for Linear {
    fn at(&mut self, x: &[f64], value: f64) -> Result<(f64, Vec<f64>, f64), CoreError> {
        let (lambda, sigma) = self.lambda(x)?;
        let s2 = sigma * sigma;
        let floored = optimise::floored(&self.model.lmm.moments, &lambda);
        let (mut s, mut along) = self.solve(&floored, value)?;
        let n = self.model.lmm.unprofiled(&s, false, s2)?;
        let g = optimise::sigma_gradient(&self.model.lmm.moments, &floored, &n);
        let theta: Vec<f64> = x[..x.len() - 1].iter().map(|t| t / sigma).collect();
        let slope = self.model.theta_gradient(&self.model.term_lambda_from_theta(&theta)?, &g);
        if floored != lambda {
            (s, along) = self.solve(&lambda, value)?;
        }
        let m = &self.model.lmm.moments;
        let rows = m.total;
        let deviance = s.logdet_z + rows * (2.0 * std::f64::consts::PI * s2).ln() + s.r2 / s2 - m.sum_log_w;
        if !deviance.is_finite() {
            return Err(CoreError::NotFinite("the deviance is not finite".into()));
        }
        let mut gradient: Vec<f64> = slope.iter().map(|g| g / sigma).collect();
        gradient.push(2.0 * rows - 2.0 * s.r2 / s2 - dot(&slope, &theta));
        self.beta = user_beta(m, &s.beta);
        Ok((deviance, gradient, along / s2))
    }

    fn coefficients(&self) -> Vec<f64> {
        self.beta.clone()
    }

    fn scale(&self, x: &[f64]) -> Vec<f64> {
        let sigma = x[x.len() - 1].exp();
        let mut out: Vec<f64> =
            self.model.theta_scale().iter().zip(x).map(|(s, x)| (s * sigma).max(0.3 * x.abs())).collect();
        out.push(1.0);
        out
    }

    fn difference(&self) -> f64 {
        1e-4
    }

    fn even(&self) -> Vec<usize> {
        self.model.diagonal()
    }

    fn noise(&self) -> f64 {
        1e-13 * self.model.lmm.moments.n as f64 + 1e-11
    }

    fn check(&self) -> Result<(), CoreError> {
        self.stop.check()
    }
}
