//! The deviance of a generalised mixed model as a function of coefficients, roots of the covariances and parameters of
//! structures, all as the engine has them: x = (internal coefficients, theta). With priors it is the penalised deviance.
//! Parameters that are held, or tied to another, do not move by themselves: curves are over the free ones.

use crate::glmm::{Engine, Glmm, GlmmRows, Method, INNER_TOLERANCE};
use crate::optimise::{self, Stop};
use crate::CoreError;

use super::{curve, hessian, Centre, Curve, Hold, Request, Surface, Targets};

pub struct Laplace<'a, 'r> {
    engine: &'a mut Engine,
    rows: &'a GlmmRows<'r>,
    /// Modes at the point visited last: the next search for them starts there.
    u: Vec<f64>,
    beta: Vec<f64>,
    sizes: Vec<f64>,
    /// Rounding error of the deviance, as it was found at the centre.
    rough: f64,
    stop: Stop,
}

/// Moves that change the deviance by its rounding error alone, in units of a coordinate's size, and how many.
const STILL: f64 = 1e-9;
const MOVES: i32 = 5;

impl<'a, 'r> Laplace<'a, 'r> {
    fn new(core: &'a mut Glmm, rows: &'a GlmmRows<'r>, method: Method, stop: &Stop) -> Result<Self, CoreError> {
        let engine = &mut core.engine;
        engine.set_method(method)?;
        engine.heed(stop);
        engine.tolerance = 1e-12;
        let u = vec![0.0; engine.size()];
        Ok(Laplace { engine, rows, u, beta: vec![], sizes: vec![], rough: 0.0, stop: stop.clone() })
    }

    /// The optimum (beta, theta), in the user's units, as the centre of profiles. The core is left elsewhere.
    pub fn centre(
        core: &mut Glmm,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        theta: &[f64],
        method: Method,
        stop: &Stop,
    ) -> Result<Centre, CoreError> {
        let mut x = core.engine.plan.internal_beta(beta);
        x.extend(theta);
        let mut surface = Laplace::new(core, rows, method, stop)?;
        let x = surface.completed(&x);
        let (deviance, _, _) = surface.at(&x, f64::NAN)?;
        surface.measure(&x);
        let frozen = surface.frozen(x.len());
        let hessian = hessian(&mut surface, &x, &frozen)?;
        Ok(Centre { x, deviance, hessian, frozen })
    }

    /// Curves of several parameters, one after the other. The core is left elsewhere.
    pub fn curves(
        core: &mut Glmm,
        rows: &GlmmRows<'_>,
        centre: &Centre,
        requests: &[Request],
        targets: &Targets,
        (method, stop): (Method, &Stop),
    ) -> Result<Vec<Curve>, CoreError> {
        let mut surface = Laplace::new(core, rows, method, stop)?;
        let (deviance, gradient, _) = surface.at(&centre.x, f64::NAN)?;
        surface.measure(&centre.x);
        surface.feel(&centre.x, deviance, &gradient)?;
        let mut out = vec![];
        for r in requests {
            let mut found = curve(&mut surface, centre, r, targets, 0.0)?;
            found.points.iter_mut().for_each(|p| p.x = surface.completed(&p.x));
            out.push(found);
        }
        Ok(out)
    }

    /// Where the parameters of patterned terms begin in x.
    fn patterned(&self) -> usize {
        self.engine.plan.p() + self.engine.model.theta_len()
    }

    /// x with held parameters at their values and tied ones at their leaders'.
    fn completed(&self, x: &[f64]) -> Vec<f64> {
        let (mut x, first) = (x.to_vec(), self.patterned());
        self.engine.constraint.complete(&mut x[first..]);
        x
    }

    /// Coordinates that are no parameters of their own: held, or tied to another.
    fn frozen(&self, n: usize) -> Vec<bool> {
        let (mut out, first) = (vec![false; n], self.patterned());
        self.engine.constraint.held.iter().for_each(|&(i, _)| out[first + i] = true);
        self.engine.constraint.followers().for_each(|(_, j)| out[first + j] = true);
        out
    }

    /// Coefficient j of the user's columns as a combination of internal ones; None for a column that was dropped.
    pub fn contrast(core: &Glmm, j: usize) -> Option<Hold> {
        let plan = &core.engine.plan;
        let p = plan.p();
        let mut a = vec![0.0; p];
        for (t, a) in a.iter_mut().enumerate() {
            let mut unit = vec![0.0; p];
            unit[t] = 1.0;
            *a = plan.user_beta(&unit)[j];
        }
        let pivot = plan.kept.iter().position(|&k| k == j)?;
        (a[pivot] != 0.0).then_some(Hold::Contrast { pivot, a })
    }

    /// Sizes of the coordinates: standard errors given the others, one level's information.
    fn measure(&mut self, x: &[f64]) {
        let p = self.engine.plan.p();
        let Ok((lambda, _)) = self.engine.covariance_at(&x[p..]) else { return };
        let (_, curve) = self.engine.working_solution(&lambda);
        let mut out: Vec<f64> = (0..p).map(|j| (2.0 / curve[j + j * p].max(1e-300)).sqrt()).collect();
        let own = self.engine.model.theta_len();
        let scale = self.engine.model.theta_scale();
        out.extend(scale.iter().zip(&x[p..p + own]).map(|(s, t)| s.max(0.3 * t.abs()).min(1e6)));
        out.resize(x.len(), 1.0);
        self.sizes = out;
    }

    /// Rounding error of the deviance: what is left of differences over moves that the gradient explains. Where
    /// residuals have next to no variance it is a thousand times that of other models.
    fn feel(&mut self, x: &[f64], deviance: f64, gradient: &[f64]) -> Result<(), CoreError> {
        for k in 1..=MOVES {
            let step: Vec<f64> = self.sizes.iter().map(|s| f64::from(k) * STILL * s).collect();
            let moved: Vec<f64> = x.iter().zip(&step).map(|(x, s)| x + s).collect();
            let rise: f64 = gradient.iter().zip(&step).map(|(g, s)| g * s).sum();
            // A point that cannot be evaluated says nothing.
            if let Ok((there, _, _)) = self.at(&moved, f64::NAN) {
                self.rough = self.rough.max((there - deviance - rise).abs());
            }
        }
        self.at(x, f64::NAN).map(|_| ())
    }
}

impl Surface for Laplace<'_, '_> {
    fn at(&mut self, x: &[f64], _value: f64) -> Result<(f64, Vec<f64>, f64), CoreError> {
        let x = self.completed(x);
        let e = &mut *self.engine;
        let p = e.plan.p();
        let (beta, theta) = x.split_at(p);
        let (exact, shape) = e.covariance_at(theta)?;
        let lambda = optimise::floored(e.moments(), &exact);
        let at = e.evaluate(self.rows, beta, &lambda, &shape, &self.u)?;
        let slope = e.slope(self.rows, &at);
        let g = e.sigma_gradient(&lambda, &slope.n);
        let own = e.model.term_lambda_from_theta(&theta[..e.model.theta_len()])?;
        let mut gradient = slope.beta;
        gradient.extend(e.model.theta_gradient(&own, &g));
        gradient.extend(e.constraint.reduced(&slope.gradient[..shape.len()]));
        let deviance =
            if lambda == exact { at.deviance } else { e.evaluate(self.rows, beta, &exact, &shape, &at.u)?.deviance };
        self.u = at.u;
        self.beta = e.plan.user_beta(beta);
        Ok((deviance, gradient, 0.0))
    }

    fn coefficients(&self) -> Vec<f64> {
        self.beta.clone()
    }

    fn scale(&self, _x: &[f64]) -> Vec<f64> {
        self.sizes.clone()
    }

    fn difference(&self) -> f64 {
        1e-3
    }

    fn even(&self) -> Vec<usize> {
        let p = self.engine.plan.p();
        self.engine.model.diagonal().into_iter().map(|j| j + p).collect()
    }

    fn noise(&self) -> f64 {
        (1e-9 + 1e-13 * self.rows.n as f64).max(2.0 * self.rough)
    }

    fn check(&self) -> Result<(), CoreError> {
        self.stop.check()
    }
}

/// Profiles look closer than fits; the engine goes back as it came.
impl Drop for Laplace<'_, '_> {
    fn drop(&mut self) {
        self.engine.tolerance = INNER_TOLERANCE;
        self.engine.heed(&Stop::default());
    }
}
