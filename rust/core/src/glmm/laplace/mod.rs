//! The Laplace approximation at given parameters: mode of the spherical random effects, value and exact gradient.
//!
//! With h(u) = -sum_i log f(y_i | eta_i) + u'u / 2, H = B'D2B + I (B = Z Lambda):
//!     deviance / 2 = h(u_hat) + log|H| / 2
//! For a change Lambda -> Lambda (I + M) and a change of beta, with s_i = 1/2 D3_i : (B_i H^-1 B_i'), v = H^-1 B's and
//! t = D1 + s - D2 B v (Kristensen et al. 2016, worked out for spherical effects):
//!     d/d beta = X't,      d/d M = sum_l [ (B't)_l u_l' + u_l v_l' + (I - H^-1)_ll ].

mod curvature;
mod effects;
mod gradient;
mod mode;
mod nodes;
mod normal;
mod penalised;
mod rough;
mod second;
mod second_nodes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::cholesky::Source;
use crate::design::Moments;
use crate::family::{Family, Link};
use crate::fit::Model;
use crate::linear::Lmm;
use crate::optimise::Stop;
use crate::structure::Natural;
use crate::CoreError;

use super::constraint::Constraint;
use super::fit::{Begun, Method};
use super::loadings;
use super::patterns::{self, Patterned};
use super::penalty::Item;
use super::quadrature::Quadrature;
use super::rows::{self, GlmmRows, Plan, Want};
use super::trade::Trade;

pub use crate::dense::dot;
pub use curvature::{positive, positive_factored, raised, sized};
pub use second::Way;

/// Smallest pivot of H = B'D2B + I that is accepted; log-concave densities have pivots of at least 1.
const SINGULAR: f64 = 0.1;
/// Standard deviation that no response has units for.
const NO_UNIT: f64 = 1e100;

/// Squared Newton decrement below which one more step leaves an error beyond double precision's reach. Far from the
/// optimum the search asks for less: the error of the deviance is of the order of the decrement given here.
pub const INNER_TOLERANCE: f64 = 1e-9;
/// Share of a change of the deviance that a decrement may be where effects are taken for the mode.
const NEARLY: f64 = 1e-5;
/// A standard error of so many units of a link other than the identity is none.
pub const BOUNDLESS: f64 = 2e3;

/// Everything that stays the same while the parameters move, and the buffers of the passes.
#[derive(Clone)]
pub struct Engine {
    pub family: Family,
    pub plan: Arc<Plan>,
    /// The working linear model: pattern, weighted cross-products and their factorisation.
    pub model: Model,
    pub patterns: Vec<Patterned>,
    pub constraint: Constraint,
    pub priors: Vec<Item>,
    /// Whether Jeffreys' prior of the coefficients in the model without random effects is added.
    pub jeffreys: bool,
    /// Second derivative of the penalty in the internal coefficients where the likelihood was evaluated last.
    penalty_curvature: Vec<f64>,
    /// Predictors of the coefficients, n x K, of the last evaluation.
    pub(super) fixed: Vec<f64>,
    d3: Vec<f64>,
    /// log|Q| of the prior precision, and the smallest pivot that is accepted: 0 and `SINGULAR` for independent levels.
    prior: f64,
    least: f64,
    /// Z'D1 by factor at the mode of the last evaluation.
    zg: Vec<Vec<f64>>,
    /// Sums by level at the quadrature nodes of the last evaluation, where they are kept.
    at_nodes: Vec<rows::LevelSums>,
    /// Quadrature nodes, if more than one or where levels have weights.
    pub quadrature: Option<Quadrature>,
    /// Weights of the levels' log integrals by factor; empty where they count once.
    pub level_weights: Vec<Vec<f64>>,
    /// Internal coefficients whose mode is found together with that of the random effects, and whether they are
    /// integrated out (restricted likelihood) or only profiled (lme4's nAGQ = 0).
    pub latent: Vec<usize>,
    pub restricted: bool,
    /// The Cholesky factor of X'V^-1X of the latent coefficients at the current factor, where the difference that it
    /// usually is would lose its digits.
    uncancelled: Option<Vec<f64>>,
    /// The coefficient of a Gaussian residual's log standard deviation, and that logarithm for one unit of it, where its
    /// curvature is asked for.
    pub residual: Option<(usize, f64)>,
    /// Whether the curvature is to be that of a normal model, whole.
    pub whole: bool,
    /// Squared Newton decrement at which the search for the mode ends.
    pub tolerance: f64,
    /// The decrement that a full Newton step left last, relative to the square of its own; infinite as long as none is
    /// known.
    bend: f64,
    /// H^-1 B's (see the head of `laplace`) where the gradient was asked for last, empty if the effects are not the only
    /// thing to be found or integrated by more than Laplace's approximation.
    tilt: Vec<f64>,
    /// Newton steps and factorisations so far.
    pub inner: usize,
    pub evaluations: usize,
    /// Whether a search has seen the likelihood rise for ever.
    pub unbounded: bool,
    /// Whether an evaluation since this was last cleared met a mode that is nearly flat.
    pub flat: bool,
    /// Where a search begins, if that was asked for and nothing was done since.
    pub(super) begun: Option<Begun>,
    /// Looked at before every Newton step of the inner search; told every evaluation.
    pub stop: Stop,
}

/// The likelihood at one (beta, Lambda).
#[derive(Clone, Debug)]
pub struct Point {
    pub beta: Vec<f64>,
    pub lambda: Vec<Vec<f64>>,
    /// Parameters of the patterned covariances (already in Lambda).
    pub shape: Vec<f64>,
    /// Spherical modes in elimination order.
    pub u: Vec<f64>,
    /// -2 log-likelihood, with the penalty.
    pub deviance: f64,
    pub penalty: Penalised,
    /// X'D1 at the mode.
    pub xg: Vec<f64>,
    /// Posterior weights of the quadrature nodes by depth and configuration.
    pub weights: Vec<Vec<Vec<f64>>>,
    /// Log-likelihood of every level of the outermost factor, where there is a quadrature.
    pub groups: Vec<f64>,
}

/// The gradient of -log-likelihood in pieces: those of beta are X't - (Z'D2X)'(Lambda v).
pub struct Parts {
    /// n x K.
    pub t: Vec<f64>,
    /// Lambda v by factor (levels x cols).
    pub moved: Vec<Vec<f64>>,
    /// d / d M for Lambda (I + M), by factor (levels x (cols x cols)).
    pub n: Vec<Vec<f64>>,
}

/// The penalty of a point: -2 log prior, its derivatives in the internal coefficients and in the pattern parameters, and
/// the second one in the latter.
#[derive(Clone, Debug, Default)]
pub struct Penalised {
    pub value: f64,
    beta: Vec<f64>,
    shape: Vec<f64>,
    shape_curvature: Vec<f64>,
}

/// First derivatives of the deviance at a point.
pub struct Gradient {
    /// d deviance / d beta.
    pub beta: Vec<f64>,
    /// d deviance = tr(N dSigma*) per factor.
    pub n: Vec<Vec<f64>>,
    /// Along the directions: pattern parameters first, then the free entries of the other covariances.
    pub free: Vec<f64>,
    /// Empty where the components of Sigma* themselves are the directions.
    pub directions: Vec<patterns::Direction>,
}

/// Derivatives of the deviance at a point, and the curvature of the working linear model.
pub struct Slope {
    /// d deviance / d beta.
    pub beta: Vec<f64>,
    /// d deviance = tr(N dSigma*) per factor.
    pub n: Vec<Vec<f64>>,
    /// Along the directions: pattern parameters first, then the free entries of the other covariances.
    pub gradient: Vec<f64>,
    pub directions: Vec<patterns::Direction>,
    /// Twice X'V^-1X, made positive definite, and its Cholesky factor.
    pub beta_curvature: Vec<f64>,
    pub beta_factor: Vec<f64>,
    /// d2 deviance / d beta d direction (p x directions, column-major).
    pub cross: Vec<f64>,
    /// Information in Sigma* with beta profiled out.
    pub average: Vec<f64>,
    pub expected: Vec<f64>,
    pub observed: Vec<f64>,
    pub trade: Option<Trade>,
}

impl Engine {
    pub fn new(rows: &GlmmRows<'_>, family: Family) -> Result<Self, CoreError> {
        let (plan, mut moments) = Plan::new(rows, &family)?;
        let p = plan.p();
        // The working model's fixed effects are ours; its cross-products are overwritten by every pass.
        moments.kept = (0..p).collect();
        moments.p_total = p;
        moments.dropped = vec![];
        moments.carrier = None;
        moments.x_shift = vec![0.0; p];
        moments.xx = vec![0.0; (p + 1) * (p + 1)];
        for f in &mut moments.factors {
            f.zx = vec![0.0; f.levels * f.cols * (p + 1)];
        }
        let patterns = patterns::find(&moments, &rows.patterns)?;
        let model = Model::from_moments(moments)?;
        let mut model = model;
        let (mut prior, mut least) = (0.0, SINGULAR);
        if !model.lmm.moments.couplings.is_empty() {
            let zero: Vec<Vec<f64>> = model.lmm.moments.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
            let lmm = &mut model.lmm;
            lmm.numeric.factorise(&lmm.symbolic, Source { moments: &lmm.moments, lambda: &zero }).map_err(|_| {
                CoreError::NotPositiveDefinite("the precision of a relationship is not positive definite".into())
            })?;
            prior = lmm.numeric.logdet;
            least = SINGULAR * lmm.numeric.least_pivot(&lmm.symbolic).min(1.0);
        }
        Ok(Engine {
            prior,
            least,
            family,
            plan: Arc::new(plan),
            model,
            patterns,
            constraint: Constraint::default(),
            priors: vec![],
            jeffreys: false,
            penalty_curvature: vec![],
            fixed: vec![],
            d3: vec![],
            zg: vec![],
            at_nodes: vec![],
            quadrature: None,
            level_weights: vec![],
            latent: vec![],
            restricted: false,
            uncancelled: None,
            residual: None,
            whole: false,
            tolerance: INNER_TOLERANCE,
            bend: f64::INFINITY,
            tilt: vec![],
            inner: 0,
            evaluations: 0,
            unbounded: false,
            flat: false,
            begun: None,
            stop: Stop::default(),
        })
    }

    pub fn lmm(&self) -> &Lmm {
        &self.model.lmm
    }

    pub fn moments(&self) -> &Moments {
        &self.model.lmm.moments
    }

    /// Whether a term is given by the entries of its Lambda.
    pub fn has_loadings(&self) -> bool {
        patterns::any_loadings(&self.patterns)
    }

    /// d deviance / d Sigma by factor; meaningless for loadings, whose Sigma has no such derivative.
    pub fn sigma_gradient(&self, lambda: &[Vec<f64>], n: &[Vec<f64>]) -> Vec<Vec<f64>> {
        crate::optimise::sigma_gradient(self.moments(), &patterns::regular(self.moments(), &self.patterns, lambda), n)
    }

    /// Whether the model has neither structures nor effects in several predictors, with which there are more optima and
    /// modes.
    pub fn is_plain(&self) -> bool {
        self.patterns.is_empty() && self.plan.only_first()
    }

    pub fn size(&self) -> usize {
        self.model.lmm.symbolic.size
    }

    fn pass(&mut self, rows: &GlmmRows<'_>, b: &[Vec<f64>], want: Want) -> rows::Sums {
        rows::pass(&self.plan, &self.model.lmm.moments, &self.family, rows, &self.fixed, b, want, &mut self.d3)
    }

    fn load(&mut self, s: &mut rows::Sums) {
        self.begun = None;
        let m = &mut self.model.lmm.moments;
        for (f, gram) in m.factors.iter_mut().zip(&mut s.gram) {
            std::mem::swap(&mut f.gram, gram);
        }
        for (p, v) in m.pairs.iter_mut().zip(&mut s.pairs) {
            std::mem::swap(&mut p.value, v);
        }
        for (f, zx) in m.factors.iter_mut().zip(&mut s.zx) {
            if !zx.is_empty() {
                std::mem::swap(&mut f.zx, zx);
            }
        }
    }

    fn factorise(&mut self, lambda: &[Vec<f64>]) -> Result<(), CoreError> {
        self.uncancelled = None;
        let lmm = &mut self.model.lmm;
        lmm.evaluations += 1;
        lmm.numeric.factorise(&lmm.symbolic, Source { moments: &lmm.moments, lambda })
    }

    /// H^-1 r.
    fn solve(&self, r: &mut [f64]) {
        let lmm = self.lmm();
        lmm.numeric.forward(&lmm.symbolic, r, 1);
        lmm.numeric.backward(&lmm.symbolic, r, 1);
    }

    /// Lambda (internal) and pattern parameters from the user's theta.
    pub fn covariance_at(&self, theta: &[f64]) -> Result<(Vec<Vec<f64>>, Vec<f64>), CoreError> {
        let m = self.model.theta_len();
        let needed = m + patterns::length(&self.patterns);
        if theta.len() != needed || theta.iter().any(|t| !t.is_finite()) {
            return crate::error::shape(format!("theta needs {needed} finite entries, it has {}", theta.len()));
        }
        let mut lambda = self.model.lambda_from_theta(&theta[..m])?;
        patterns::put(self.moments(), &self.patterns, &theta[m..], &mut lambda)?;
        Ok((lambda, theta[m..].to_vec()))
    }

    /// The same from internal theta (see `Model::internal_theta`) and pattern parameters.
    pub fn internal_covariance(&self, theta: &[f64]) -> Result<(Vec<Vec<f64>>, Vec<f64>), CoreError> {
        let (own, shape) = theta.split_at(self.model.theta_len());
        let mut lambda = self.model.lambda_from_internal(own);
        patterns::put(self.moments(), &self.patterns, shape, &mut lambda)?;
        Ok((lambda, shape.to_vec()))
    }

    /// Lambda with every direction lifted off zero, so that derivatives exist: structures are those of their parameters,
    /// which stay at the edge of their limits.
    pub fn lifted(&self, exact: &[Vec<f64>], shape: &[f64]) -> Result<Vec<Vec<f64>>, CoreError> {
        let mut lambda = crate::optimise::floored(self.moments(), exact);
        for (f, (lambda, exact)) in lambda.iter_mut().zip(exact).enumerate() {
            let (k, columns) = (self.moments().factors[f].cols, &self.plan.z[f].columns);
            let reach = |t: usize| self.reach(columns[t % k].component).min(NO_UNIT);
            // Rows that know nothing of a predictor, as it runs to a limit or curves upwards, have no unit for its effects.
            if (0..k * k).any(|t| lambda[t].abs() > exact[t].abs().max(reach(t))) {
                lambda.clone_from(exact);
                let diagonal = lambda.iter_mut().step_by(k + 1);
                diagonal.filter(|l| l.abs() < crate::optimise::FLOOR).for_each(|l| *l = crate::optimise::FLOOR);
            }
        }
        patterns::put(self.moments(), &self.patterns, shape, &mut lambda)?;
        Ok(lambda)
    }

    /// Pattern parameters in natural units.
    pub fn natural(&self, shape: &[f64]) -> Vec<(usize, Natural)> {
        self.patterns
            .iter()
            .flat_map(|p| {
                let theta = &shape[p.first..p.first + p.pattern.parameters()];
                p.pattern.report(theta).into_iter().map(|n| (p.term, n))
            })
            .collect()
    }

    /// How far a predictor moves before a response changes by e-fold odds or size; without bound under an identity link,
    /// which has the units of the response.
    pub fn reach(&self, k: usize) -> f64 {
        match self.family.links().get(k) {
            Some(link) if !matches!(link, Link::Identity | Link::Inverse) => 1.0,
            _ => f64::INFINITY,
        }
    }

    /// The same by coefficient, internal units.
    pub fn reaches(&self) -> Vec<f64> {
        let mut out = vec![f64::INFINITY; self.plan.p()];
        for k in 0..self.family.links().len() {
            self.plan.coefficients_of(k).into_iter().for_each(|j| out[j] = self.reach(k));
        }
        out
    }

    /// Coefficients about which the rows say next to nothing, as they run to a limit of their range: their errors are more
    /// than `most` units of a link other than the identity. `curve` is twice X'V^-1X.
    pub fn unknown(&self, curve: &[f64], most: f64) -> Vec<bool> {
        let error = |j: usize| (2.0 / curve[j * (self.plan.p() + 1)].max(1e-300)).sqrt();
        self.reaches().into_iter().enumerate().map(|(j, reach)| error(j) > most * reach).collect()
    }

    /// Rounding error of the log-determinant at a point whose weights are the current ones: where rows say nearly all of
    /// random effects, what these leave to the others is the difference of large numbers.
    pub fn cancelled(&self, lambda: &[Vec<f64>]) -> f64 {
        let known = |(factor, lambda): (&crate::design::Factor, &Vec<f64>)| -> f64 {
            let k = factor.cols;
            let size: Vec<f64> = (0..k).map(|r| (0..k).map(|c| lambda[r + c * k].powi(2)).sum()).collect();
            let level = |g: &[f64]| (0..k).map(|i| g[i * (k + 1)].abs() * size[i]).sum::<f64>();
            factor.gram.chunks_exact(k * k).map(level).sum()
        };
        f64::EPSILON * self.moments().factors.iter().zip(lambda).map(known).sum::<f64>()
    }

    /// Linear predictors of the rows without the random effects, row-major n x K.
    pub fn fixed_part(&mut self, rows: &GlmmRows<'_>, beta: &[f64]) -> &[f64] {
        rows::fixed_part(&self.plan, rows, beta, &mut self.fixed);
        &self.fixed
    }

    /// Linear predictors of the rows at a point, row-major n x K.
    pub fn predictors(&mut self, rows: &GlmmRows<'_>, at: &Point) -> Vec<f64> {
        rows::fixed_part(&self.plan, rows, &at.beta, &mut self.fixed);
        rows::predictors(&self.plan, rows, &self.fixed, &self.effects(&at.lambda, &at.u))
    }

    /// Mode and value at (beta, Lambda), the search for the mode starting at `u`.
    pub fn evaluate(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        lambda: &[Vec<f64>],
        shape: &[f64],
        u: &[f64],
    ) -> Result<Point, CoreError> {
        self.evaluations += 1;
        let (beta, u) = if self.latent.is_empty() {
            rows::fixed_part(&self.plan, rows, beta, &mut self.fixed);
            (beta.to_vec(), self.mode(rows, lambda, u)?)
        } else {
            self.joint_mode(rows, lambda, beta, u)?
        };
        let out = self.value(rows, beta, lambda, shape, u, Want::Full);
        self.stop.tell(out.as_ref().map_or(f64::INFINITY, |at| at.deviance));
        out
    }

    /// The same, where `u` is likely to be so near to the mode that no step is needed: value and factor are those at `u`,
    /// corrected to first order for the way that is left. `promised` is the change of the deviance that matters.
    pub fn evaluate_predicted(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        lambda: &[Vec<f64>],
        shape: &[f64],
        u: &[f64],
        promised: f64,
    ) -> Result<Point, CoreError> {
        // Beside a flat mode, and where a mean may leave its range, what holds at a point need not hold at the next one.
        if self.tilt.len() == u.len() && !u.is_empty() && self.reach(0).is_finite() {
            if let Ok((mut at, gradient, step)) = self.near(rows, beta, lambda, shape, u, Want::Full) {
                let left = dot(&gradient, &step);
                let firm = self.lmm().numeric.least_pivot(&self.lmm().symbolic) * SINGULAR >= self.least;
                if firm && left * (1.0 + dot(&self.tilt, &self.tilt)) < NEARLY * promised {
                    // log|H| changes by 2 s'B along the Newton step, -H^-1 g, and 2 h by the decrement.
                    at.deviance -= left + 2.0 * dot(&self.tilt, &gradient);
                    self.correct(&mut at, &step);
                    self.stop.tell(at.deviance);
                    return Ok(at);
                }
                self.evaluations -= 1;
            }
        }
        self.evaluate(rows, beta, lambda, shape, u)
    }

    /// Let `stop` end what comes, down to the factorisations, and be told how it goes.
    pub fn heed(&mut self, stop: &Stop) {
        self.stop = stop.clone();
        self.model.lmm.numeric.stop = stop.clone();
    }

    /// Value at effects that are (nearly) the mode, and their squared distance from it in terms of its curvature; `want` a
    /// slope, and there is no curvature.
    pub fn beside(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        lambda: &[Vec<f64>],
        shape: &[f64],
        u: &[f64],
        want: Want,
    ) -> Result<(Point, f64), CoreError> {
        self.near(rows, beta, lambda, shape, u, want).map(|(at, gradient, step)| (at, dot(&gradient, &step)))
    }

    /// Take the Newton step back by `by` from the effects: what is linear in them follows.
    fn correct(&mut self, at: &mut Point, by: &[f64]) {
        let p1 = self.plan.p() + 1;
        let b = self.effects(&at.lambda, by);
        for (factor, b) in self.moments().factors.iter().zip(&b) {
            for (zx, b) in factor.zx.chunks_exact(p1).zip(b) {
                at.xg.iter_mut().zip(zx).for_each(|(g, z)| *g -= z * b);
            }
        }
        let moved = loadings::multiply(self.moments(), &b);
        for (g, d) in self.zg.iter_mut().flatten().zip(moved.iter().flatten()) {
            *g -= d;
        }
        at.u.iter_mut().zip(by).for_each(|(u, s)| *u -= s);
    }

    /// The same, with the gradient in the effects and the Newton step H^-1 g that it leaves.
    fn near(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        lambda: &[Vec<f64>],
        shape: &[f64],
        u: &[f64],
        want: Want,
    ) -> Result<(Point, Vec<f64>, Vec<f64>), CoreError> {
        self.stop.check()?;
        self.evaluations += 1;
        rows::fixed_part(&self.plan, rows, beta, &mut self.fixed);
        let at = self.value(rows, beta.to_vec(), lambda, shape, u.to_vec(), want)?;
        let gradient = self.latent_gradient(lambda, &self.zg, u);
        let mut step = gradient.clone();
        self.solve(&mut step);
        Ok((at, gradient, step))
    }

    /// The point at (beta, Lambda) and the mode u; `fixed` holds the predictors of beta.
    fn value(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: Vec<f64>,
        lambda: &[Vec<f64>],
        shape: &[f64],
        u: Vec<f64>,
        want: Want,
    ) -> Result<Point, CoreError> {
        let b = self.effects(lambda, &u);
        let mut s = self.pass(rows, &b, want);
        self.load(&mut s);
        self.zg = std::mem::take(&mut s.zg);
        self.factorise(lambda)?;
        if want == Want::Full {
            self.load_fixed(&s.xx);
        }
        // Without the prior's part the mode would be a saddle; where even with it H loses rank, the approximated
        // likelihood has poles that are no optima.
        if self.lmm().numeric.least_pivot(&self.lmm().symbolic) < self.least {
            self.flat = true;
            return Err(CoreError::NotPositiveDefinite(
                "Laplace's approximation breaks down: the mode of the random effects is nearly flat".into(),
            ));
        }
        let mut deviance = 2.0 * s.value + dot(&u, &self.precision(&u)) + self.lmm().numeric.logdet - self.prior;
        let (mut weights, mut groups_loglik) = (vec![], vec![]);
        if let Some(q) = &self.quadrature {
            let groups = self.groups(q, lambda, &u)?;
            (weights, self.at_nodes) = self.node_weights(rows, q, &groups, lambda);
            groups_loglik = q.combine(&groups, &mut weights);
            deviance = -2.0 * groups_loglik.iter().sum::<f64>();
        }
        if self.restricted && !self.latent.is_empty() {
            self.uncancelled = self.uncancelled_factor(rows, &beta, lambda)?;
            let lx = self.joint_factor(lambda)?.1;
            let r = self.latent.len();
            let logdet: f64 = (0..r).map(|j| lx[j + j * r].ln()).sum();
            // The integral is over the user's coefficients.
            let scale: f64 = self.latent.iter().map(|&j| self.plan.scale[self.plan.kept[j]].ln()).sum();
            deviance += 2.0 * (logdet - scale) - r as f64 * (2.0 * std::f64::consts::PI).ln();
        }
        let penalty = self.penalise(rows, &beta, shape)?;
        deviance += penalty.value;
        if !deviance.is_finite() {
            return Err(CoreError::NotFinite("the log-likelihood is not finite".into()));
        }
        Ok(Point {
            beta,
            lambda: lambda.to_vec(),
            shape: shape.to_vec(),
            u,
            deviance,
            penalty,
            xg: s.xg,
            weights,
            groups: groups_loglik,
        })
    }

    pub fn set_method(&mut self, method: Method) -> Result<(), CoreError> {
        let points = if let Method::Quadrature(n) = method { n } else { 1 };
        self.set_quadrature(points)?;
        self.restricted = method == Method::Restricted;
        self.latent = match method {
            Method::Quadrature(_) => vec![],
            Method::Restricted => self.plan.coefficients_of(0),
            Method::Joint => (0..self.plan.p()).collect(),
        };
        Ok(())
    }

    fn load_fixed(&mut self, xx: &[f64]) {
        let p1 = self.plan.p() + 1;
        let m = &mut self.model.lmm.moments;
        for j in 0..p1 - 1 {
            m.xx[j * p1..j * p1 + p1 - 1].copy_from_slice(&xx[j * (p1 - 1)..(j + 1) * (p1 - 1)]);
        }
    }
}
