//! The Laplace approximation at given parameters: mode of the spherical random effects, value and exact gradient.
//!
//! With h(u) = -sum_i log f(y_i | eta_i) + u'u / 2, H = B'D2B + I (B = Z Lambda):
//!     deviance / 2 = h(u_hat) + log|H| / 2
//! For a change Lambda -> Lambda (I + M) and a change of beta, with s_i = 1/2 D3_i : (B_i H^-1 B_i'), v = H^-1 B's and
//! t = D1 + s - D2 B v (Kristensen et al. 2016, worked out for spherical effects):
//!     d/d beta = X't,      d/d M = sum_l [ (B't)_l u_l' + u_l v_l' + (I - H^-1)_ll ].

use std::borrow::Cow;
use std::sync::Arc;

use crate::cholesky::{SelectedInverse, Source};
use crate::dense;
use crate::design::Moments;
use crate::family::Family;
use crate::fit::Model;
use crate::linear::{Lmm, Solution};
use crate::optimise::Stop;
use crate::structure::Natural;
use crate::CoreError;

use super::constraint::Constraint;
use super::fit::Method;
use super::loadings;
use super::patterns::{self, Patterned};
use super::penalty::{Item, Penalty};
use super::quadrature::{Blocks, Groups, Quadrature, Sums, NONE};
use super::rows::{self, Covariance, GlmmRows, Plan, Restricted, Want};
use super::trade::{self, Integrated, Trade};
use crate::optimise::{invert, mul, PLAIN};

/// Smallest pivot of H = B'D2B + I that is accepted; log-concave densities have pivots of at least 1.
const SINGULAR: f64 = 0.1;
/// Steps, and the longest change of a coefficient in one, of the rough fit without random effects.
const START_STEPS: usize = 12;
const STRIDE: f64 = 2.0;
/// Newton steps for the mode before the search gives up at these parameters.
const MAX_INNER: usize = 60;
/// Squared decrement at which steps with the factor of a neighbouring point, each a hundred times closer or better,
/// have reached the mode; and how many there are.
const CHORD_TOLERANCE: f64 = 1e-13;
const CHORD_STEPS: usize = 6;
/// Squared Newton decrement below which one more step leaves an error beyond double precision's reach. Far from the
/// optimum the search asks for less: the error of the deviance is of the order of the decrement given here.
pub const INNER_TOLERANCE: f64 = 1e-9;

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
    /// Z'D1 by factor at the mode of the last evaluation, where loadings need it.
    zg: Vec<Vec<f64>>,
    /// Quadrature nodes, if more than one or where levels have weights.
    pub quadrature: Option<Quadrature>,
    /// Weights of the levels' log integrals by factor; empty where they count once.
    pub level_weights: Vec<Vec<f64>>,
    /// Internal coefficients whose mode is found together with that of the random effects, and whether they are
    /// integrated out (restricted likelihood) or only profiled (lme4's nAGQ = 0).
    pub latent: Vec<usize>,
    pub restricted: bool,
    /// The coefficient of a Gaussian residual's log standard deviation, and that logarithm for one unit of it, where its
    /// curvature is asked for.
    pub residual: Option<(usize, f64)>,
    /// Squared Newton decrement at which the search for the mode ends.
    pub tolerance: f64,
    /// The factor at hand is that of a point nearby, and only the gradient will be asked for.
    pub nearby: bool,
    /// Newton steps and factorisations so far.
    pub inner: usize,
    pub evaluations: usize,
    /// Whether a search has seen the likelihood rise for ever.
    pub unbounded: bool,
    /// Looked at before every Newton step of the inner search.
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
    /// Twice X'V^-1X, made positive definite.
    pub beta_curvature: Vec<f64>,
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
        let (plan, mut moments) = Plan::new(rows, family.parameters())?;
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
            quadrature: None,
            level_weights: vec![],
            latent: vec![],
            restricted: false,
            residual: None,
            tolerance: INNER_TOLERANCE,
            nearby: false,
            inner: 0,
            evaluations: 0,
            unbounded: false,
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

    /// Q u in elimination order: u itself where levels are independent.
    pub fn precision(&self, u: &[f64]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let mut out = u.to_vec();
        for c in &m.couplings {
            let k = m.factors[c.factor].cols;
            let at = |l: usize| sym.offset[sym.position[sym.base[c.factor] as usize + l] as usize] as usize;
            for (l, d) in c.diag.iter().enumerate() {
                (at(l)..at(l) + k).for_each(|i| out[i] = d * u[i]);
            }
            for (l, w) in c.pair.start.windows(2).enumerate() {
                for e in w[0] as usize..w[1] as usize {
                    let (a, b, v) = (at(l), at(c.pair.level[e] as usize), c.pair.value[e]);
                    for t in 0..k {
                        out[a + t] += v * u[b + t];
                        out[b + t] += v * u[a + t];
                    }
                }
            }
        }
        out
    }

    /// Diagonal blocks of H^-1 by level, replaced by those of (Q H^-1 + H^-1 Q) / 2 where levels are related.
    fn whitened<'a>(&self, inv: &'a SelectedInverse) -> Cow<'a, [Vec<f64>]> {
        let m = self.moments();
        if m.couplings.is_empty() {
            return Cow::Borrowed(&inv.diag);
        }
        let mut out = inv.diag.clone();
        for (i, c) in m.couplings.iter().enumerate() {
            let k = m.factors[c.factor].cols;
            let blocks = &inv.pairs[m.pairs.len() + i];
            let out = &mut out[c.factor];
            for (z, d) in out.chunks_exact_mut(k * k).zip(&c.diag) {
                z.iter_mut().for_each(|z| *z *= d);
            }
            for (l, w) in c.pair.start.windows(2).enumerate() {
                for e in w[0] as usize..w[1] as usize {
                    let (o, v) = (c.pair.level[e] as usize, c.pair.value[e]);
                    for t in 0..k * k {
                        let z = 0.5 * v * (blocks[e * k * k + t] + blocks[e * k * k + (t % k) * k + t / k]);
                        out[l * k * k + t] += z;
                        out[o * k * k + t] += z;
                    }
                }
            }
        }
        Cow::Owned(out)
    }

    pub fn size(&self) -> usize {
        self.model.lmm.symbolic.size
    }

    /// u of the same random effects under another, invertible factor: Lambda^-1 Lambda_0 u_0. Factors of one covariance
    /// differ by a rotation, and densities without a single mode must not be left for another mode by it.
    pub fn carried(&self, from: &Point, lambda: &[Vec<f64>]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let [new, old] = [lambda, &from.lambda].map(|l| patterns::regular(m, &self.patterns, l));
        let mut out = vec![0.0; from.u.len()];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let turn = mul(&invert(&new[f], k), &old[f], k, false);
            for l in 0..factor.levels {
                let at = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
                for c in 0..k {
                    out[at + c] = (0..k).map(|s| turn[c + s * k] * from.u[at + s]).sum();
                }
            }
        }
        out
    }

    /// b = Lambda u by factor (levels x cols).
    pub fn effects(&self, lambda: &[Vec<f64>], u: &[f64]) -> Vec<Vec<f64>> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        m.factors
            .iter()
            .enumerate()
            .map(|(f, factor)| {
                let k = factor.cols;
                let mut b = vec![0.0; factor.levels * k];
                for (l, b) in b.chunks_exact_mut(k).enumerate() {
                    let at = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
                    for c in 0..k {
                        let uc = u[at + c];
                        b.iter_mut().zip(&lambda[f][c * k..(c + 1) * k]).for_each(|(b, l)| *b += l * uc);
                    }
                }
                b
            })
            .collect()
    }

    /// Lambda'g in elimination order for g by factor (levels x cols).
    fn project(&self, lambda: &[Vec<f64>], g: &[Vec<f64>]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let mut out = vec![0.0; sym.size];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for (l, g) in g[f].chunks_exact(k).enumerate() {
                let at = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
                for c in 0..k {
                    out[at + c] = lambda[f][c * k..(c + 1) * k].iter().zip(g).map(|(l, g)| l * g).sum();
                }
            }
        }
        out
    }

    fn pass(&mut self, rows: &GlmmRows<'_>, b: &[Vec<f64>], want: Want) -> rows::Sums {
        rows::pass(&self.plan, &self.model.lmm.moments, &self.family, rows, &self.fixed, b, want, &mut self.d3)
    }

    fn load(&mut self, s: &mut rows::Sums) {
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
            let u = match self.nearby.then(|| self.chord(rows, lambda, u)).flatten() {
                Some(u) => u,
                None => self.mode(rows, lambda, u)?,
            };
            (beta.to_vec(), u)
        } else {
            self.joint_mode(rows, lambda, beta, u)?
        };
        let b = self.effects(lambda, &u);
        let gradient_only = self.nearby && self.latent.is_empty();
        let mut s = self.pass(rows, &b, if gradient_only { Want::Slope } else { Want::Full });
        self.load(&mut s);
        if self.has_loadings() {
            self.zg = std::mem::take(&mut s.zg);
        }
        self.factorise(lambda)?;
        if !gradient_only {
            self.load_fixed(&s.xx);
        }
        // Without the prior's part the mode would be a saddle; where even with it H loses rank, the approximated
        // likelihood has poles that are no optima.
        if self.lmm().numeric.least_pivot(&self.lmm().symbolic) < self.least {
            return Err(CoreError::NotPositiveDefinite(
                "Laplace's approximation breaks down: the mode of the random effects is nearly flat".into(),
            ));
        }
        let mut deviance = 2.0 * s.value + dot(&u, &self.precision(&u)) + self.lmm().numeric.logdet - self.prior;
        let (mut weights, mut groups_loglik) = (vec![], vec![]);
        if let Some(q) = &self.quadrature {
            let groups = self.groups(q, lambda, &u)?;
            weights = self.node_weights(rows, q, &groups, lambda);
            groups_loglik = q.combine(&groups, &mut weights);
            deviance = -2.0 * groups_loglik.iter().sum::<f64>();
        }
        if self.restricted && !self.latent.is_empty() {
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

    /// The penalty at (beta, pattern parameters); `fixed` holds the predictors of beta.
    fn penalise(&mut self, rows: &GlmmRows<'_>, beta: &[f64], shape: &[f64]) -> Result<Penalised, CoreError> {
        self.penalty_curvature.clear();
        if self.priors.is_empty() && !self.jeffreys {
            return Ok(Penalised::default());
        }
        let p = self.plan.p();
        let user = Penalty::at(&self.priors, &self.plan.user_beta(beta), shape, &self.patterns)?;
        let mut out = Penalised {
            value: user.value,
            beta: self.plan.internal_row(&user.beta),
            shape: user.shape,
            shape_curvature: user.shape_curvature,
        };
        // M'C M with beta_user = M beta_internal, columns first.
        let total = user.beta.len();
        let half: Vec<Vec<f64>> =
            user.beta_curvature.chunks_exact(total.max(1)).map(|c| self.plan.internal_row(c)).collect();
        for i in 0..p {
            let row: Vec<f64> = half.iter().map(|h| h[i]).collect();
            self.penalty_curvature.extend(self.plan.internal_row(&row));
        }
        if self.jeffreys {
            let (value, slope) = self.jeffreys_penalty(rows)?;
            out.value += value;
            out.beta.iter_mut().zip(slope).for_each(|(o, s)| *o += s);
        }
        Ok(out)
    }

    /// -log|X'WX| of the model without random effects and its derivative in the internal coefficients. W is the observed
    /// curvature, which is the expected one where the link is canonical: Jeffreys' prior (Firth 1993).
    fn jeffreys_penalty(&self, rows: &GlmmRows<'_>) -> Result<(f64, Vec<f64>), CoreError> {
        let (m, p) = (self.moments(), self.plan.p());
        let none: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.levels * f.cols]).collect();
        let mut d3 = vec![];
        let s = rows::pass(&self.plan, m, &self.family, rows, &self.fixed, &none, Want::Full, &mut d3);
        let mut lx = s.xx;
        if dense::cholesky(&mut lx, p, p).is_err() {
            return Err(CoreError::NotPositiveDefinite("the information of the fixed effects is singular".into()));
        }
        let scale: f64 = self.plan.kept.iter().map(|&j| self.plan.scale[j].ln()).sum();
        let logdet: f64 = (0..p).map(|j| lx[j + j * p].ln()).sum();
        let cov = Covariance {
            diag: m.factors.iter().map(|f| vec![0.0; f.levels * f.cols * f.cols]).collect(),
            pairs: m.pairs.iter().map(|pair| vec![0.0; pair.value.len()]).collect(),
            restricted: Some(Restricted {
                position: (0..p).map(Some).collect(),
                lx,
                by_level: m.factors.iter().map(|f| vec![0.0; f.levels * f.cols * p]).collect(),
            }),
        };
        let slope = rows::skewness(&self.plan, m, rows, &cov, &d3).x;
        Ok((-2.0 * (logdet - scale), slope.iter().map(|v| -2.0 * v).collect()))
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

    /// Use `points` quadrature nodes a dimension; the grouping factors must be nested.
    pub fn set_quadrature(&mut self, points: usize) -> Result<(), CoreError> {
        self.quadrature = None;
        if points > 1 || !self.level_weights.is_empty() {
            self.quadrature = Some(self.nested(points)?);
        }
        Ok(())
    }

    /// The nested integrals of the model, `points` nodes a dimension.
    pub fn nested(&self, points: usize) -> Result<Quadrature, CoreError> {
        if self.has_loadings() {
            return crate::error::shape(
                "sums over independent groups (quadrature, weights, scores) do not go with reduced rank (rr)",
            );
        }
        if !self.moments().couplings.is_empty() {
            return crate::error::shape(
                "sums over independent groups (quadrature, weights, scores) need independent levels; with a relationship \
                 between them use quadrature=1 (Laplace)",
            );
        }
        Quadrature::new(self.moments(), points, &self.level_weights, self.moments().n)
    }

    /// Curvature and modes along the chain.
    fn groups(&self, q: &Quadrature, lambda: &[Vec<f64>], u: &[f64]) -> Result<Groups, CoreError> {
        let by_depth = q.chain.factor.iter().map(|&f| self.by_level(f, u)).collect();
        Groups::new(self.moments(), &q.chain, lambda, by_depth)
    }

    /// Entries of one factor (levels x cols) of a vector in elimination order.
    fn by_level(&self, f: usize, u: &[f64]) -> Vec<f64> {
        let (k, sym) = (self.moments().factors[f].cols, &self.lmm().symbolic);
        let offset = |l: usize| sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
        (0..self.moments().factors[f].levels).flat_map(|l| u[offset(l)..offset(l) + k].iter().copied()).collect()
    }

    /// Log weights of all nodes by depth and configuration, the rows' log density at depth 0.
    fn node_weights(
        &self,
        rows: &GlmmRows<'_>,
        q: &Quadrature,
        groups: &Groups,
        lambda: &[Vec<f64>],
    ) -> Vec<Vec<Vec<f64>>> {
        let mut out: Vec<Vec<Vec<f64>>> = vec![vec![]; q.chain.depth()];
        q.walk(groups, &mut |d, at, delta| {
            let mut log = q.prior(groups, d, at, &delta[d]);
            if d == 0 {
                let b = q.effects(lambda, groups, delta);
                let inner = q.chain.factor[0];
                let value = rows::level_pass(&self.plan, &self.family, rows, &self.fixed, &b, inner, None).0;
                log.iter_mut().zip(&value).for_each(|(l, v)| *l -= v);
            }
            out[d].push(log);
        });
        out
    }

    /// The mode by steps with the factor of a point nearby; nothing if they do not close in on it.
    fn chord(&mut self, rows: &GlmmRows<'_>, lambda: &[Vec<f64>], u: &[f64]) -> Option<Vec<f64>> {
        let (mut u, mut last) = (u.to_vec(), f64::INFINITY);
        for _ in 0..CHORD_STEPS {
            self.stop.check().ok()?;
            let s = self.pass(rows, &self.effects(lambda, &u), Want::Gradient);
            let mut step: Vec<f64> = self.project(lambda, &s.zg);
            step.iter_mut().zip(self.precision(&u)).for_each(|(g, u)| *g = -(*g + u));
            let gradient = step.clone();
            self.solve(&mut step);
            let decrement = dot(&gradient, &step);
            if !(s.value.is_finite() && decrement < 0.01 * last) {
                return None;
            }
            u.iter_mut().zip(&step).for_each(|(u, s)| *u += s);
            if decrement < CHORD_TOLERANCE {
                return Some(u);
            }
            last = decrement;
        }
        None
    }

    /// Minimise h over u by Newton steps with step halving.
    fn mode(&mut self, rows: &GlmmRows<'_>, lambda: &[Vec<f64>], u: &[f64]) -> Result<Vec<f64>, CoreError> {
        let mut u = u.to_vec();
        if u.is_empty() {
            return Ok(u);
        }
        let b = self.effects(lambda, &u);
        let mut s = self.pass(rows, &b, Want::Newton);
        let mut h = s.value + 0.5 * dot(&u, &self.precision(&u));
        if !h.is_finite() {
            u.fill(0.0);
            let b = self.effects(lambda, &u);
            s = self.pass(rows, &b, Want::Newton);
            h = s.value;
        }
        if !h.is_finite() {
            return Err(CoreError::NotFinite("the density is zero or undefined at these parameters".into()));
        }
        for _ in 0..MAX_INNER {
            self.stop.check()?;
            self.inner += 1;
            let mut step: Vec<f64> = self.project(lambda, &s.zg);
            step.iter_mut().zip(self.precision(&u)).for_each(|(g, u)| *g = -(*g + u));
            let gradient = step.clone();
            self.load(&mut s);
            if self.factorise(lambda).is_err() {
                let b = self.effects(lambda, &u);
                s = self.pass(rows, &b, Want::Convex);
                self.load(&mut s);
                self.factorise(lambda)?;
            }
            self.solve(&mut step);
            let decrement = dot(&gradient, &step);
            if !decrement.is_finite() {
                return Err(CoreError::NotFinite("the mode of the random effects cannot be found".into()));
            }
            if decrement < self.tolerance {
                u.iter_mut().zip(&step).for_each(|(u, s)| *u += s);
                return Ok(u);
            }
            let mut t = 1.0;
            loop {
                let trial: Vec<f64> = u.iter().zip(&step).map(|(u, s)| u + t * s).collect();
                let b = self.effects(lambda, &trial);
                s = self.pass(rows, &b, Want::Newton);
                let value = s.value + 0.5 * dot(&trial, &self.precision(&trial));
                if value <= h - 1e-4 * t * decrement + 1e-12 * h.abs().max(1.0) {
                    u = trial;
                    h = value;
                    break;
                }
                t *= 0.5;
                if t < 1e-10 {
                    return Err(CoreError::NotFinite("the mode of the random effects cannot be found".into()));
                }
            }
        }
        Err(CoreError::NotFinite("the mode of the random effects was not reached".into()))
    }

    /// L^-1 Lambda'Z'D2X (size x r) of the latent coefficients and the Cholesky factor of their X'V^-1X.
    pub fn joint_factor(&self, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>), CoreError> {
        let lmm = &self.model.lmm;
        let (p1, r) = (self.plan.p() + 1, self.latent.len());
        let all = lmm.right_hand_side(lambda);
        let mut f: Vec<f64> = all.chunks_exact(p1).flat_map(|row| self.latent.iter().map(|&j| row[j])).collect();
        lmm.numeric.forward(&lmm.symbolic, &mut f, r);
        let mut a: Vec<f64> =
            (0..r * r).map(|t| lmm.moments.xx[self.latent[t % r] + self.latent[t / r] * p1]).collect();
        dense::syrk_rows(&mut a, r, &f, r, lmm.symbolic.size, -1.0);
        dense::mirror(&mut a, r);
        let mut lx = positive(&a, r);
        dense::cholesky(&mut lx, r, r)?;
        Ok((f, lx))
    }

    /// E = H^-1 Lambda'Z'D2X L_X^-T (size x r) from what `joint_factor` gives.
    fn integrated(&self, f: &[f64], lx: &[f64]) -> Vec<f64> {
        let (r, lmm) = (self.latent.len(), self.lmm());
        let mut e = f.to_vec();
        dense::solve_left_l(lx, r, r, &mut e, lmm.symbolic.size, r);
        lmm.numeric.backward(&lmm.symbolic, &mut e, r);
        e
    }

    /// The same by factor, where a Gaussian residual asks for it.
    fn integrated_by_factor(&self, lambda: &[Vec<f64>]) -> Option<Integrated> {
        if !self.restricted || self.latent.is_empty() || self.residual.is_none() {
            return None;
        }
        let (f, lx) = self.joint_factor(lambda).ok()?;
        let (e, r, sym) = (self.integrated(&f, &lx), self.latent.len(), &self.lmm().symbolic);
        let at = |f: usize, l: usize| sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
        let one = |(f, x): (usize, &crate::design::Factor)| {
            (0..x.levels).flat_map(|l| e[at(f, l) * r..(at(f, l) + x.cols) * r].to_vec()).collect()
        };
        Some(Integrated { r, by_factor: self.moments().factors.iter().enumerate().map(one).collect() })
    }

    /// (J^-1 c) for the joint Hessian of (u, latent beta).
    fn joint_solve(&self, f: &[f64], lx: &[f64], cu: &mut [f64], cb: &mut [f64]) {
        let lmm = &self.model.lmm;
        let r = self.latent.len();
        lmm.numeric.forward(&lmm.symbolic, cu, 1);
        for (row, w) in f.chunks_exact(r).zip(cu.iter()) {
            cb.iter_mut().zip(row).for_each(|(c, f)| *c -= f * w);
        }
        dense::solve_left_l(lx, r, r, cb, 1, r);
        dense::solve_left_lt(lx, r, r, cb, 1, r);
        for (row, w) in f.chunks_exact(r).zip(cu.iter_mut()) {
            *w -= dot(row, cb);
        }
        lmm.numeric.backward(&lmm.symbolic, cu, 1);
    }

    /// Minimise h over u and the latent coefficients by Newton steps with step halving.
    fn joint_mode(
        &mut self,
        rows: &GlmmRows<'_>,
        lambda: &[Vec<f64>],
        beta: &[f64],
        u: &[f64],
    ) -> Result<(Vec<f64>, Vec<f64>), CoreError> {
        let (mut beta, mut u) = (beta.to_vec(), u.to_vec());
        let lost = |what: &str| CoreError::NotFinite(format!("the mode of random and fixed effects {what}"));
        rows::fixed_part(&self.plan, rows, &beta, &mut self.fixed);
        let mut s = self.pass(rows, &self.effects(lambda, &u), Want::Joint);
        let mut h = s.value + 0.5 * dot(&u, &self.precision(&u));
        for _ in 0..MAX_INNER {
            self.stop.check()?;
            if !h.is_finite() {
                return Err(lost("has no finite density"));
            }
            self.inner += 1;
            let mut du = self.project(lambda, &s.zg);
            du.iter_mut().zip(self.precision(&u)).for_each(|(g, u)| *g = -(*g + u));
            let mut db: Vec<f64> = self.latent.iter().map(|&j| -s.xg[j]).collect();
            let (gu, gb) = (du.clone(), db.clone());
            self.load(&mut s);
            self.load_fixed(&s.xx);
            self.factorise(lambda)?;
            let (f, lx) = self.joint_factor(lambda)?;
            self.joint_solve(&f, &lx, &mut du, &mut db);
            let decrement = dot(&gu, &du) + dot(&gb, &db);
            let mut t = 1.0;
            loop {
                let trial: Vec<f64> = u.iter().zip(&du).map(|(u, s)| u + t * s).collect();
                let mut moved = beta.clone();
                self.latent.iter().zip(&db).for_each(|(&j, d)| moved[j] += t * d);
                rows::fixed_part(&self.plan, rows, &moved, &mut self.fixed);
                if decrement.abs() < self.tolerance {
                    return Ok((moved, trial));
                }
                s = self.pass(rows, &self.effects(lambda, &trial), Want::Joint);
                let value = s.value + 0.5 * dot(&trial, &self.precision(&trial));
                if value <= h - 1e-4 * t * decrement + 1e-12 * h.abs().max(1.0) {
                    (u, beta, h) = (trial, moved, value);
                    break;
                }
                t *= 0.5;
                if !(t > 1e-10) {
                    return Err(lost("cannot be found"));
                }
            }
        }
        Err(lost("was not reached"))
    }

    fn load_fixed(&mut self, xx: &[f64]) {
        let p1 = self.plan.p() + 1;
        let m = &mut self.model.lmm.moments;
        for j in 0..p1 - 1 {
            m.xx[j * p1..j * p1 + p1 - 1].copy_from_slice(&xx[j * (p1 - 1)..(j + 1) * (p1 - 1)]);
        }
    }

    /// Exact gradient where some coefficients are latent: the adjoint runs through the joint Hessian.
    fn joint_gradient(
        &self,
        rows: &GlmmRows<'_>,
        at: &Point,
        inv: &mut SelectedInverse,
    ) -> Option<(Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>)> {
        let (f, lx) = self.joint_factor(&at.lambda).ok()?;
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let (p, r) = (self.plan.p(), self.latent.len());
        let mut cov = self.covariance(&at.lambda, inv);
        let mut traces = self.loading_traces(&at.lambda, inv);
        if self.restricted {
            let e = self.integrated(&f, &lx);
            self.restricted_traces(&at.lambda, &lx, &e, &mut traces);
            let mut by_level = vec![];
            for (g, factor) in m.factors.iter().enumerate() {
                let k = factor.cols;
                let mut out = vec![0.0; factor.levels * k * r];
                for l in 0..factor.levels {
                    let o = sym.offset[sym.position[sym.base[g] as usize + l] as usize] as usize;
                    let z = &mut inv.diag[g][l * k * k..(l + 1) * k * k];
                    for a in 0..k {
                        for b in 0..k {
                            z[a + b * k] += dot(&e[(o + a) * r..(o + a + 1) * r], &e[(o + b) * r..(o + b + 1) * r]);
                            let l_ab = at.lambda[g][a + b * k];
                            let row = &e[(o + b) * r..(o + b + 1) * r];
                            out[(l * k + a) * r..(l * k + a + 1) * r]
                                .iter_mut()
                                .zip(row)
                                .for_each(|(o, e)| *o += l_ab * e);
                        }
                    }
                }
                by_level.push(out);
            }
            self.couple_fixed(&e, inv);
            let mut position = vec![None; p];
            self.latent.iter().enumerate().for_each(|(i, &j)| position[j] = Some(i));
            cov.restricted = Some(Restricted { position, lx: lx.clone(), by_level });
        }
        let s = rows::skewness(&self.plan, m, rows, &cov, &self.d3);
        drop(cov);
        let mut v = self.project(&at.lambda, &s.z);
        let mut vb: Vec<f64> = self.latent.iter().map(|&j| s.x[j]).collect();
        self.joint_solve(&f, &lx, &mut v, &mut vb);
        let bv = self.effects(&at.lambda, &v);
        let mut beta: Vec<f64> = (0..p).map(|j| at.xg[j] + s.x[j]).collect();
        for (f, factor) in m.factors.iter().enumerate() {
            for (zx, v) in factor.zx.chunks_exact(p + 1).zip(&bv[f]) {
                beta.iter_mut().zip(zx).for_each(|(o, z)| *o -= z * v);
            }
        }
        for (i, &j) in self.latent.iter().enumerate() {
            let column = &m.xx[j * (p + 1)..j * (p + 1) + p];
            beta.iter_mut().zip(column).for_each(|(o, x)| *o -= x * vb[i]);
        }
        beta.iter_mut().for_each(|b| *b *= 2.0);
        self.latent.iter().for_each(|&j| beta[j] = 0.0);
        let bt = self.precision(&v.iter().zip(&at.u).map(|(v, u)| v - u).collect::<Vec<f64>>());
        let loading = self.loading_gradient(at, &s.z, (&v, &vb), traces);
        Some((beta, self.gradient_matrices(at, &bt, &v, inv), loading))
    }

    /// Add E E' at the pairs of related levels (see `restricted_traces`).
    fn couple_fixed(&self, e: &[f64], inv: &mut SelectedInverse) {
        let (m, sym, r) = (self.moments(), &self.lmm().symbolic, self.latent.len());
        for (i, c) in m.couplings.iter().enumerate() {
            let k = m.factors[c.factor].cols;
            let at = |l: usize| sym.offset[sym.position[sym.base[c.factor] as usize + l] as usize] as usize;
            for (l, w) in c.pair.start.windows(2).enumerate() {
                for t in w[0] as usize..w[1] as usize {
                    let (one, two) = (at(l), at(c.pair.level[t] as usize));
                    let block = &mut inv.pairs[m.pairs.len() + i][t * k * k..(t + 1) * k * k];
                    for (s, z) in block.iter_mut().enumerate() {
                        let (a, b) = (one + s % k, two + s / k);
                        *z += dot(&e[a * r..(a + 1) * r], &e[b * r..(b + 1) * r]);
                    }
                }
            }
        }
    }

    /// sum_l (Z'D2Z Lambda H^-1)_ll of the factors with loadings.
    fn loading_traces(&self, lambda: &[Vec<f64>], inv: &SelectedInverse) -> Vec<Vec<f64>> {
        let m = self.moments();
        let with = |f: usize| self.patterns.iter().any(|p| p.factor == f && p.pattern.is_loadings());
        (0..m.factors.len()).map(|f| if with(f) { loadings::traces(m, lambda, inv, f) } else { vec![] }).collect()
    }

    /// Integrated coefficients add E E' to H^-1 and -L_X^-T E' between coefficients and effects, E = H^-1 B'D2X L_X^-T.
    fn restricted_traces(&self, lambda: &[Vec<f64>], lx: &[f64], e: &[f64], traces: &mut [Vec<f64>]) {
        if !self.has_loadings() {
            return;
        }
        let (m, r, p1) = (self.moments(), self.latent.len(), self.plan.p() + 1);
        // Rows of Z'D2X L_X^-T.
        let fixed: Vec<Vec<f64>> = m
            .factors
            .iter()
            .map(|f| {
                let mut w: Vec<f64> =
                    f.zx.chunks_exact(p1).flat_map(|row| self.latent.iter().map(|&j| row[j])).collect();
                dense::solve_left_l(lx, r, r, &mut w, f.levels * f.cols, r);
                w
            })
            .collect();
        for j in 0..r {
            let column: Vec<f64> = e.iter().skip(j).step_by(r).copied().collect();
            let image = loadings::multiply(m, &self.effects(lambda, &column));
            let by_level = self.by_factor(&column);
            for (f, t) in traces.iter_mut().enumerate().filter(|(_, t)| !t.is_empty()) {
                let a: Vec<f64> = image[f].iter().zip(fixed[f].iter().skip(j).step_by(r)).map(|(y, x)| y - x).collect();
                loadings::outer(&a, &by_level[f], m.factors[f].cols, 1.0, t);
            }
        }
    }

    /// Numbers in elimination order by factor (levels x cols).
    fn by_factor(&self, u: &[f64]) -> Vec<Vec<f64>> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let at = |f: usize, l: usize| sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
        let one = |(f, x): (usize, &crate::design::Factor)| {
            (0..x.levels).flat_map(|l| u[at(f, l)..at(f, l) + x.cols].to_vec()).collect()
        };
        m.factors.iter().enumerate().map(one).collect()
    }

    /// d (deviance / 2) / d Lambda of the factors with loadings (see the head of `loadings`); `sz` = Z's, `vb` the part
    /// of latent coefficients in v.
    fn loading_gradient(
        &self,
        at: &Point,
        sz: &[Vec<f64>],
        (v, vb): (&[f64], &[f64]),
        mut traces: Vec<Vec<f64>>,
    ) -> Vec<Vec<f64>> {
        if !self.has_loadings() {
            return traces;
        }
        let (m, p1) = (self.moments(), self.plan.p() + 1);
        let moved = loadings::multiply(m, &self.effects(&at.lambda, v));
        let (u, v) = (self.by_factor(&at.u), self.by_factor(v));
        for (f, out) in traces.iter_mut().enumerate().filter(|(_, t)| !t.is_empty()) {
            let (factor, zg) = (&m.factors[f], &self.zg[f]);
            let t: Vec<f64> = factor
                .zx
                .chunks_exact(p1)
                .enumerate()
                .map(|(i, zx)| {
                    let fixed: f64 = self.latent.iter().zip(vb).map(|(&j, v)| zx[j] * v).sum();
                    zg[i] + sz[f][i] - moved[f][i] - fixed
                })
                .collect();
            loadings::outer(&t, &u[f], factor.cols, 1.0, out);
            loadings::outer(zg, &v[f], factor.cols, -1.0, out);
        }
        traces
    }

    /// Exact gradient and the working curvature at a point whose factor is the current one.
    pub fn slope(&mut self, rows: &GlmmRows<'_>, at: &Point) -> Slope {
        let (gradient, inv) = self.first_order(rows, at);
        self.curvature(at, gradient, inv)
    }

    /// Exact gradient at a point whose factor is the current one.
    pub fn gradient(&mut self, rows: &GlmmRows<'_>, at: &Point) -> Gradient {
        self.first_order(rows, at).0
    }

    fn first_order(&mut self, rows: &GlmmRows<'_>, at: &Point) -> (Gradient, SelectedInverse) {
        let mut inv = self.lmm().numeric.selected_inverse_pairs(&self.lmm().symbolic, self.moments());
        if !self.latent.is_empty() {
            if let Some((beta, n, loading)) = self.joint_gradient(rows, at, &mut inv) {
                return (self.in_directions(at, beta, n, &loading), inv);
            }
        }
        if let Some(q) = &self.quadrature {
            if let Ok(parts) = self.parts(rows, q, at) {
                let (beta, n) = self.quadrature_gradient(rows, at, &parts);
                return (self.in_directions(at, beta, n, &[]), inv);
            }
        }
        let cov = self.covariance(&at.lambda, &inv);
        let s = rows::skewness(&self.plan, self.moments(), rows, &cov, &self.d3);
        drop(cov);
        let p = self.plan.p();
        let mut v = self.project(&at.lambda, &s.z);
        self.solve(&mut v);
        let bv = self.effects(&at.lambda, &v);
        let mut beta = vec![0.0; p];
        for (f, factor) in self.moments().factors.iter().enumerate() {
            for (zx, v) in factor.zx.chunks_exact(p + 1).zip(&bv[f]) {
                beta.iter_mut().zip(zx).for_each(|(o, z)| *o -= z * v);
            }
        }
        for j in 0..p {
            beta[j] = 2.0 * (beta[j] + at.xg[j] + s.x[j]);
        }
        // B't = B'D1 + B's - B'D2Bv = -Q u + B's - (H - Q) v, and H v = B's.
        let bt = self.precision(&v.iter().zip(&at.u).map(|(v, u)| v - u).collect::<Vec<f64>>());
        let n = self.gradient_matrices(at, &bt, &v, &inv);
        let loading = self.loading_gradient(at, &s.z, (&v, &[]), self.loading_traces(&at.lambda, &inv));
        (self.in_directions(at, beta, n, &loading), inv)
    }

    /// The gradient along the directions of the search, with the penalty's.
    fn in_directions(&self, at: &Point, mut beta: Vec<f64>, n: Vec<Vec<f64>>, loading: &[Vec<f64>]) -> Gradient {
        let (lmm, related) = (self.lmm(), !self.moments().couplings.is_empty());
        beta.iter_mut().zip(&at.penalty.beta).for_each(|(b, v)| *b += v);
        let mut directions = patterns::directions(&lmm.moments, &self.patterns, &at.shape, &at.lambda);
        if !directions.is_empty() || (related && !lmm.components.is_empty()) {
            directions.extend(patterns::of_components(&lmm.moments, &lmm.components));
        }
        let mut free: Vec<f64> = if directions.is_empty() {
            lmm.components.iter().map(|i| crate::linear::entry(&n, &lmm.moments, i)).collect()
        } else {
            patterns::gradient(&lmm.moments, &n, loading, &directions)
        };
        free.iter_mut().zip(&at.penalty.shape).for_each(|(g, v)| *g += v);
        Gradient { beta, n, free, directions }
    }

    /// Gradient of the quadrature sum, with the movement of modes and nodes (see the head of `quadrature`), in the pieces
    /// that belong to rows and levels.
    pub fn parts(&self, rows: &GlmmRows<'_>, q: &Quadrature, at: &Point) -> Result<Parts, CoreError> {
        let groups = self.groups(q, &at.lambda, &at.u)?;
        let (chain, lambda) = (&q.chain, &at.lambda);
        let mut t = vec![0.0; rows.n * self.plan.k];
        let mut sums = Sums::zero(chain);
        q.walk(&groups, &mut |d, c, delta| {
            let weight = &at.weights[d][c];
            sums.prior(q, &groups, d, weight, delta);
            if d == 0 {
                let b = q.effects(lambda, &groups, delta);
                let to = Some((weight.as_slice(), t.as_mut_slice()));
                let inner = chain.factor[0];
                let zg = rows::level_pass(&self.plan, &self.family, rows, &self.fixed, &b, inner, to).1;
                sums.rows(q, &groups, lambda, &zg, delta);
            }
        });
        let c = groups.adjoint(chain, sums.moved, &q.path());
        let cov = self.covariance(lambda, &self.laid_out(q, &c));
        let s = rows::skewness_rows(&self.plan, self.moments(), rows, &cov, &self.d3);
        let bs = rows::random_adjoint(&self.plan, rows, &s);
        t.iter_mut().zip(&s).for_each(|(t, s)| *t += s);
        let mut n = groups.curved(chain, &c);
        // v = H^-1 (slope + B's).
        let mut total = self.project(lambda, &bs);
        for (d, &f) in chain.factor.iter().enumerate() {
            self.add_levels(f, &sums.slope[d], &mut total);
        }
        let mut v = total.clone();
        self.solve(&mut v);
        let bs = self.project(lambda, &bs);
        for (d, &f) in chain.factor.iter().enumerate() {
            let k = chain.cols[d];
            let part = |x: &[f64]| self.by_level(f, x);
            let (bs, total, v) = (part(&bs), part(&total), part(&v));
            for (t, n) in n[d].iter_mut().enumerate() {
                let (l, i, j) = (t / (k * k) * k, t % k, t / k % k);
                let u = &groups.u[d][l..l + k];
                *n += sums.direct[d][t] + (bs[l + i] - total[l + i] + v[l + i]) * u[j] + u[i] * v[l + j];
            }
            // The rule depends on the axes of Lambda, which stays lower triangular: only such changes count.
            for n in n[d].chunks_exact_mut(k * k) {
                for b in 0..k {
                    (0..b).for_each(|a| n[a + b * k] = n[b + a * k]);
                }
            }
        }
        let mut by_factor = vec![vec![]; n.len()];
        n.into_iter().zip(&chain.factor).for_each(|(n, &f)| by_factor[f] = n);
        Ok(Parts { t, moved: self.effects(lambda, &v), n: by_factor })
    }

    /// Blocks along the chain in the layout of the selected inverse.
    fn laid_out(&self, q: &Quadrature, c: &Blocks) -> SelectedInverse {
        let m = self.moments();
        let mut out = SelectedInverse {
            diag: vec![vec![]; m.factors.len()],
            pairs: m.pairs.iter().map(|p| vec![0.0; p.value.len()]).collect(),
        };
        for (d, &f) in q.chain.factor.iter().enumerate() {
            out.diag[f] = c.diag[d].clone();
            for (link, (values, e)) in q.chain.above[d].iter().zip(c.above[d].iter().zip(d + 1..)) {
                let (k, ke) = (q.chain.cols[d], q.chain.cols[e]);
                for (l, v) in values.chunks_exact(k * ke).enumerate().filter(|(l, _)| link.entry[*l] != NONE) {
                    let to = &mut out.pairs[link.pair][link.entry[l] as usize * k * ke..][..k * ke];
                    if link.inner_leads {
                        (0..k * ke).for_each(|t| to[t] = v[t / k + (t % k) * ke]);
                    } else {
                        to.copy_from_slice(v);
                    }
                }
            }
        }
        out
    }

    /// Add numbers by level (levels x cols) of one factor to a vector in elimination order.
    fn add_levels(&self, f: usize, a: &[f64], out: &mut [f64]) {
        let (k, sym) = (self.moments().factors[f].cols, &self.lmm().symbolic);
        for (l, a) in a.chunks_exact(k).enumerate() {
            let at = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
            out[at..at + k].iter_mut().zip(a).for_each(|(o, a)| *o += a);
        }
    }

    fn quadrature_gradient(&self, rows: &GlmmRows<'_>, at: &Point, parts: &Parts) -> (Vec<f64>, Vec<Vec<f64>>) {
        let p = self.plan.p();
        let mut beta = rows::fixed_adjoint(&self.plan, rows, &parts.t, None);
        for (factor, moved) in self.moments().factors.iter().zip(&parts.moved) {
            for (zx, v) in factor.zx.chunks_exact(p + 1).zip(moved) {
                beta.iter_mut().zip(zx).for_each(|(o, z)| *o -= z * v);
            }
        }
        beta.iter_mut().for_each(|b| *b *= 2.0);
        let mut n = vec![];
        for (lambda, by_level) in at.lambda.iter().zip(&parts.n) {
            let mut sum = vec![0.0; lambda.len()];
            by_level.chunks_exact(lambda.len()).for_each(|b| sum.iter_mut().zip(b).for_each(|(s, b)| *s += b));
            n.push(sum);
        }
        (beta, n)
    }

    fn gradient_matrices(&self, at: &Point, bt: &[f64], v: &[f64], inv: &SelectedInverse) -> Vec<Vec<f64>> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let (qu, whitened) = (self.precision(&at.u), self.whitened(inv));
        let mut out = vec![];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let mut n = vec![0.0; k * k];
            for l in 0..factor.levels {
                let o = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
                let z = &whitened[f][l * k * k..(l + 1) * k * k];
                for b in 0..k {
                    for a in 0..k {
                        let id = if a == b { 1.0 } else { 0.0 };
                        n[a + b * k] += bt[o + a] * at.u[o + b] + qu[o + a] * v[o + b] + id - z[a + b * k];
                    }
                }
            }
            let sym: Vec<f64> = (0..k * k).map(|t| 0.5 * (n[t] + n[(t % k) * k + t / k])).collect();
            out.push(sym);
        }
        out
    }

    /// Blocks of Lambda H^-1 Lambda'.
    fn covariance(&self, lambda: &[Vec<f64>], inv: &SelectedInverse) -> Covariance {
        let m = self.moments();
        let diag = m
            .factors
            .iter()
            .enumerate()
            .map(|(f, factor)| congruence(&lambda[f], &lambda[f], &inv.diag[f], factor.cols, factor.cols))
            .collect();
        let pairs = m
            .pairs
            .iter()
            .zip(&inv.pairs)
            .map(|(p, z)| {
                congruence(&lambda[p.lead], &lambda[p.other], z, m.factors[p.lead].cols, m.factors[p.other].cols)
            })
            .collect();
        Covariance { diag, pairs, restricted: None }
    }

    fn curvature(&mut self, at: &Point, gradient: Gradient, mut inv: SelectedInverse) -> Slope {
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
        Slope { beta, n, gradient, directions, beta_curvature, cross, average, expected, observed, trade }
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
        let a = positive(&a, p);
        let mut lx = a.clone();
        if dense::cholesky(&mut lx, p, p).is_err() {
            lx = vec![0.0; p * p];
            (0..p).for_each(|j| lx[j + j * p] = a[j + j * p].abs().sqrt().max(1e-8));
        }
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

    /// First-order change of the mode for a change of beta, Sigma* = I + delta and Lambda (`dlambda`, of loadings; per
    /// factor).
    pub fn predict_mode(&self, at: &Point, dbeta: &[f64], delta: &[Vec<f64>], dlambda: &[Vec<f64>]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let p = self.plan.p();
        let mut g: Vec<Vec<f64>> = vec![];
        for factor in &m.factors {
            g.push(factor.zx.chunks_exact(p + 1).map(|z| -dot(&z[..p], dbeta)).collect());
        }
        let mut r = self.project(&at.lambda, &g);
        if self.has_loadings() {
            let moved = loadings::multiply(m, &self.effects(dlambda, &at.u));
            let own = self.project(dlambda, &self.zg);
            let all = self.project(&at.lambda, &moved);
            r.iter_mut().zip(own.iter().zip(&all)).for_each(|(r, (a, b))| *r -= a + b);
        }
        let mut half = vec![0.0; r.len()];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for l in 0..factor.levels {
                let o = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
                for a in 0..k {
                    half[o + a] = 0.5 * (0..k).map(|b| delta[f][a + b * k] * at.u[o + b]).sum::<f64>();
                }
            }
        }
        r.iter_mut().zip(self.precision(&half)).for_each(|(r, h)| *r += 2.0 * h);
        self.solve(&mut r);
        r.iter().zip(&half).zip(&at.u).map(|((r, h), u)| u + r - h).collect()
    }

    /// Fixed effects without random effects: damped Newton steps on -sum log f, roughly.
    ///
    /// Also the scores Z'D1 there (levels x cols by factor); the working model is left with the weights there.
    pub fn start_beta(&mut self, rows: &GlmmRows<'_>, beta: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let mut beta = beta.to_vec();
        let b: Vec<Vec<f64>> = self.moments().factors.iter().map(|f| vec![0.0; f.levels * f.cols]).collect();
        let p = self.plan.p();
        rows::fixed_part(&self.plan, rows, &beta, &mut self.fixed);
        let mut s = self.pass(rows, &b, Want::Joint);
        for _ in 0..START_STEPS {
            let mut h = positive(&s.xx, p);
            let mut step: Vec<f64> = s.xg.iter().map(|g| -g).collect();
            if dense::cholesky(&mut h, p, p).is_err() {
                break;
            }
            dense::solve_left_l(&h, p, p, &mut step, 1, p);
            dense::solve_left_lt(&h, p, p, &mut step, 1, p);
            // Columns are scaled to unit spread: longer steps only run away on plateaus of mixtures.
            let longest = step.iter().fold(0.0f64, |m, d| m.max(d.abs()));
            if longest > STRIDE {
                step.iter_mut().for_each(|d| *d *= STRIDE / longest);
            }
            let decrement = -dot(&step, &s.xg);
            if !(decrement > 1e-3) || !s.value.is_finite() {
                break;
            }
            let mut t = 1.0;
            let mut moved = false;
            while t > 1e-6 {
                let trial: Vec<f64> = beta.iter().zip(&step).map(|(b, s)| b + t * s).collect();
                rows::fixed_part(&self.plan, rows, &trial, &mut self.fixed);
                let next = self.pass(rows, &b, Want::Joint);
                if next.value < s.value - 1e-4 * t * decrement {
                    (beta, s, moved) = (trial, next, true);
                    break;
                }
                t *= 0.5;
            }
            if !moved {
                break;
            }
        }
        let zg = self.start_weights(rows, &beta);
        (beta, zg)
    }

    /// Weighted cross-products without random effects: they give the units of the random effects.
    pub fn start_weights(&mut self, rows: &GlmmRows<'_>, beta: &[f64]) -> Vec<Vec<f64>> {
        let b: Vec<Vec<f64>> = self.moments().factors.iter().map(|f| vec![0.0; f.levels * f.cols]).collect();
        rows::fixed_part(&self.plan, rows, beta, &mut self.fixed);
        let mut s = self.pass(rows, &b, Want::Convex);
        self.load(&mut s);
        s.zg
    }
}

/// A Z B' for every block.
fn congruence(a: &[f64], b: &[f64], z: &[f64], ka: usize, kb: usize) -> Vec<f64> {
    if ka == 1 && kb == 1 {
        let s = a[0] * b[0];
        return z.iter().map(|z| s * z).collect();
    }
    let mut out = vec![0.0; z.len()];
    let mut half = vec![0.0; ka * kb];
    for (o, z) in out.chunks_exact_mut(ka * kb).zip(z.chunks_exact(ka * kb)) {
        if ka * kb > PLAIN * PLAIN {
            half.fill(0.0);
            dense::gemm(&mut half, ka, a, ka, z, ka, ka, kb, ka, 1.0);
            dense::gemm_nt(o, ka, &half, ka, b, kb, ka, kb, kb, 1.0);
            continue;
        }
        for j in 0..kb {
            for i in 0..ka {
                half[i + j * ka] = (0..ka).map(|t| a[i + t * ka] * z[t + j * ka]).sum();
            }
        }
        for j in 0..kb {
            for i in 0..ka {
                o[i + j * ka] = (0..kb).map(|t| half[i + t * ka] * b[j + t * kb]).sum();
            }
        }
    }
    out
}

/// The matrix itself if it is positive definite, else with its (scaled) eigenvalues made positive.
pub fn positive(a: &[f64], p: usize) -> Vec<f64> {
    let mut test = a.to_vec();
    let top = (0..p).map(|j| a[j + j * p].abs()).fold(0.0, f64::max);
    let scale: Vec<f64> = (0..p).map(|j| a[j + j * p].abs().max(1e-10 * top).max(1e-300).sqrt()).collect();
    (0..p).for_each(|j| test[j + j * p] -= 1e-10 * scale[j] * scale[j]);
    if dense::cholesky(&mut test, p, p).is_ok() {
        return a.to_vec();
    }
    let scaled: Vec<f64> = (0..p * p).map(|t| a[t] / (scale[t % p] * scale[t / p])).collect();
    let (w, v) = dense::eigen_symmetric(&scaled, p);
    let mut out = vec![0.0; p * p];
    for (t, w) in w.iter().enumerate() {
        let w = w.abs().max(1e-4);
        for j in 0..p {
            for i in 0..p {
                out[i + j * p] += w * v[i + t * p] * v[j + t * p] * scale[i] * scale[j];
            }
        }
    }
    out
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
