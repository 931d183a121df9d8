//! A generalised linear mixed model in the user's units.

use std::sync::Arc;

use crate::design::{Block, Codes};
use crate::error::shape;
use crate::family::Family;
use crate::fit::Outer;
use crate::optimise::{self, Boundary, Options, Outcome, Stop};
use crate::structure::{Kind, Lag, Natural};
use crate::CoreError;

use super::candidates;
use super::constraint::Constraint;
use super::hessian::Spread;
use super::laplace::{Engine, Point, BOUNDLESS};
use super::loose;
use super::nested;
use super::patterns;
use super::penalty::{Item, Over, Target};
use super::rows::{Fixed, GlmmRows};
use super::search;
use super::start;

/// Where the search begins, in the user's units; what is left out comes from the data.
#[derive(Clone, Debug, Default)]
pub struct Start {
    pub beta: Option<Vec<f64>>,
    pub theta: Option<Vec<f64>>,
    /// Whether the coefficients are taken as they are; else they are first bettered in the model without random effects.
    pub exact: bool,
}

/// What is maximised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Adaptive Gauss-Hermite quadrature with so many nodes a dimension; 1 is the Laplace approximation.
    Quadrature(usize),
    /// The fixed effects of the first predictor integrated out with the random effects.
    Restricted,
    /// Fixed effects at the joint mode, only the random effects integrated (lme4's nAGQ = 0).
    Joint,
}

/// What a fit reports, in the user's units.
#[derive(Clone, Debug)]
pub struct GlmmReport {
    pub loglik: f64,
    /// -2 log-likelihood with the penalty.
    pub criterion: f64,
    /// NaN at dropped columns.
    pub beta: Vec<f64>,
    /// Lower triangles of Lambda_t, Sigma_t = Lambda_t Lambda_t'; then the parameters of patterned terms.
    pub theta: Vec<f64>,
    /// Parameters of the patterned terms in natural units: (term, name, column, value).
    pub natural: Vec<(usize, Natural)>,
    pub lambda: Vec<Vec<f64>>,
    /// Per term: levels x k conditional modes, row-major.
    pub b: Vec<Vec<f64>>,
    pub outcome: Outcome,
    pub evaluations: usize,
    pub inner: usize,
    pub iterations: usize,
    /// d deviance / d (beta, theta).
    pub gradient: Vec<f64>,
    pub decrease: f64,
    pub curvature: f64,
    pub boundary: Vec<Boundary>,
    /// Whether the likelihood rises for ever somewhere: what is reported is an optimum all the same, if it converged.
    pub unbounded: bool,
}

/// Log-likelihood, penalised log-likelihood and the gradient of the latter in (beta, theta).
#[derive(Clone, Debug)]
pub struct GlmmEvaluation {
    pub loglik: f64,
    pub penalised: f64,
    pub gradient: Vec<f64>,
}

/// d deviance / d beta and / d theta (internal coordinates), / d Sigma by factor and / d pattern
/// parameters.
#[derive(Clone)]
pub(super) struct Gradient {
    pub(super) beta: Vec<f64>,
    pub(super) theta: Vec<f64>,
    pub(super) sigma: Vec<Vec<f64>>,
    pub(super) shape: Vec<f64>,
}

/// A model whose pattern is known; the rows are handed in with every call.
#[derive(Clone)]
pub struct Glmm {
    pub engine: Engine,
    pub(super) at: Option<Point>,
    /// See [`Glmm::covariance`]; none where it has not been asked for since the last fit.
    pub(super) inverse: Option<Option<Vec<f64>>>,
    /// The same of [`Glmm::spread`].
    pub(super) spread: Option<Option<Arc<Spread>>>,
}

impl Glmm {
    pub fn new(rows: &GlmmRows<'_>, family: Family) -> Result<Self, CoreError> {
        if let Err(bad) = family.check(&rows.data) {
            let first: Vec<String> = bad.rows.iter().map(|r| r.to_string()).collect();
            return shape(format!("{}: {} rows, first {}", bad.what, bad.count, first.join(", ")));
        }
        Ok(Glmm { engine: Engine::new(rows, family)?, at: None, inverse: None, spread: None })
    }

    /// Free entries of Lambda, then the parameters of the patterned terms.
    pub fn theta_len(&self) -> usize {
        self.engine.model.theta_len() + patterns::length(&self.engine.patterns)
    }

    pub fn dropped(&self) -> &[usize] {
        &self.engine.plan.dropped
    }

    /// Penalise by priors (their coefficients numbered as the user's), and by Jeffreys' if asked.
    pub fn penalise(&mut self, priors: Vec<Item>, jeffreys: bool) -> Result<(), CoreError> {
        let (p, m) = (self.engine.plan.p_total, patterns::length(&self.engine.patterns));
        for item in &priors {
            let over = matches!(item.over, Over::Coefficient(j) if j >= p);
            let legal = match &item.target {
                Target::Coefficients(list) => list.iter().all(|&j| j < p && !self.dropped().contains(&j)),
                Target::LogCoefficient(j, _) => *j < p,
                Target::LogParameter(j, _) => *j < m,
                Target::Term(t) => self.engine.patterns.iter().any(|p| p.term == *t),
            };
            if over || !legal {
                return shape("a prior of a parameter that the model does not have");
            }
        }
        self.engine.priors = priors;
        self.engine.jeffreys = jeffreys;
        Ok(())
    }

    /// Hold pattern parameters at natural values and tie others; from now on, for fit and covariance.
    pub fn constrain(&mut self, held: &[(usize, f64)], tied: Vec<Vec<usize>>) -> Result<(), CoreError> {
        let patterns = &mut self.engine.patterns;
        if tied.iter().flatten().any(|&i| i >= patterns::length(patterns)) {
            return shape("a tie of a parameter that the model does not have");
        }
        let touched: Vec<usize> = held.iter().map(|h| h.0).chain(tied.iter().flatten().copied()).collect();
        for p in patterns.iter_mut().filter(|p| p.pattern.kind == Kind::Unstructured) {
            let own: Vec<usize> = touched.iter().filter_map(|i| i.checked_sub(p.first)).collect();
            p.pattern.free(&own);
        }
        let mut inner = vec![];
        for &(i, value) in held {
            // A later lag is held by the structure itself: its parameter says nothing.
            let natural = |p: &patterns::Patterned| match p.pattern.lag(i - p.first) {
                Some(1..) => (value.abs() < 1.0).then_some(0.0),
                _ => p.pattern.unconstrained(i - p.first, value),
            };
            match patterns::owner(patterns, i).and_then(|t| natural(&patterns[t])) {
                Some(v) => inner.push((i, v)),
                None => return shape(format!("a parameter cannot be held at {value}")),
            }
        }
        let (followers, tied) = give_lags(patterns, held, tied)?;
        inner.extend(followers.into_iter().map(|i| (i, 0.0)));
        self.engine.constraint = Constraint { held: inner, tied };
        Ok(())
    }

    /// d vech(Lambda) / d parameters of every patterned term: (term, k (k + 1) / 2 rows column-major).
    pub fn factor_jacobians(&self) -> Result<Vec<(usize, Vec<f64>)>, CoreError> {
        let shape = &self.at()?.shape;
        self.engine
            .patterns
            .iter()
            .map(|p| {
                let theta = &shape[p.first..p.first + p.pattern.parameters()];
                Ok((p.term, p.pattern.factor_jacobian(theta)?))
            })
            .collect()
    }

    /// First and second derivatives of Sigma in the parameters of every patterned term: (term, m x k x k, pairs i >= j
    /// by rows x k x k).
    #[allow(clippy::type_complexity)]
    pub fn covariance_derivatives(&self) -> Result<Vec<(usize, Vec<f64>, Vec<f64>)>, CoreError> {
        let shape = &self.at()?.shape;
        let each = |p: &patterns::Patterned| {
            let m = p.pattern.parameters();
            let theta = &shape[p.first..p.first + m];
            let (first, second) = p.pattern.derivatives(theta, false);
            (p.term, first.concat(), second.concat())
        };
        Ok(self.engine.patterns.iter().map(each).collect())
    }

    /// Search from `start`; a search that fails, or is ended, leaves the model without a fit.
    pub fn fit(
        &mut self,
        rows: &GlmmRows<'_>,
        start: &Start,
        method: Method,
        options: &Options,
    ) -> Result<GlmmReport, CoreError> {
        self.engine.heed(&options.stop);
        let out = self.searched(rows, start, method, options);
        self.engine.heed(&Stop::default());
        out
    }

    /// Work on a fitted model that `stop` ends early; the model is then where it was.
    pub fn until<T>(
        &mut self,
        rows: &GlmmRows<'_>,
        stop: &Stop,
        work: impl FnOnce(&mut Self) -> Result<T, CoreError>,
    ) -> Result<T, CoreError> {
        let at = self.at.clone();
        self.engine.heed(stop);
        let out = work(self);
        self.engine.heed(&Stop::default());
        if stop.requested() {
            // What was cut short may look like a result.
            self.at = at;
            self.restore(rows)?;
            return Err(CoreError::Interrupted);
        }
        out
    }

    fn searched(
        &mut self,
        rows: &GlmmRows<'_>,
        start: &Start,
        method: Method,
        options: &Options,
    ) -> Result<GlmmReport, CoreError> {
        let e = &mut self.engine;
        (e.inner, e.evaluations, e.unbounded) = (0, 0, false);
        e.set_method(method)?;
        // A search that fails leaves the engine somewhere else.
        (self.at, self.inverse, self.spread) = (None, None, None);
        let begun = e.begun.take().filter(|b| b.given == start.beta && !start.exact);
        let Begun { beta, first, .. } = match begun {
            Some(begun) => begun,
            None => Begun::of(e, rows, start)?,
        };
        let found = if start.exact {
            found_from(e, rows, (&beta, &first.1, &beta), start, options)?
        } else {
            let found = found_from(e, rows, (&first.0, &first.1, &beta), start, options)?;
            let found = if e.family.can_fold() {
                let other = e.start_beta(rows, &beta, true);
                if other.0 == first.0 {
                    settle(e, rows, found)?
                } else {
                    unless_from(e, rows, (&other.0, &other.1, &beta), start, options, found)?
                }
            } else {
                found
            };
            if start.beta.is_none() && e.family.has_other_starts() {
                unless_elsewhere(e, rows, start, options, found)?
            } else {
                found
            }
        };
        let e = &mut self.engine;
        let found = if start.theta.is_none() {
            loose::not_below_toeplitz(e, rows, (&e.plan.user_beta(&beta), method), found, options)?
        } else {
            found
        };
        let report = self.report(&found);
        let (solution, _) = self.engine.working_solution(&found.point.lambda);
        self.engine.model.set_state(found.point.lambda.clone(), solution, 1.0);
        self.at = Some(found.point);
        Ok(report)
    }

    /// Stand at (beta, theta) in the user's units without a search, as a fit that ended there does.
    pub fn adopt(&mut self, rows: &GlmmRows<'_>, beta: &[f64], theta: &[f64], method: Method) -> Result<(), CoreError> {
        if beta.len() != rows.p {
            return shape(format!("beta has {} entries, the model needs {}", beta.len(), rows.p));
        }
        let e = &mut self.engine;
        e.set_method(method)?;
        let (lambda, shape) = e.covariance_at(theta)?;
        let beta = e.plan.internal_beta(beta);
        let u = vec![0.0; e.size()];
        let point = e.evaluate(rows, &beta, &lambda, &shape, &u)?;
        let (solution, _) = e.working_solution(&point.lambda);
        e.model.set_state(point.lambda.clone(), solution, 1.0);
        (self.at, self.inverse, self.spread) = (Some(point), None, None);
        Ok(())
    }

    pub(super) fn report(&self, found: &search::Found) -> GlmmReport {
        let (e, m) = (&self.engine, &self.engine.model);
        let lambda = m.term_lambda(&found.point.lambda);
        let mut gradient = e.plan.user_gradient(&found.beta_gradient);
        gradient.extend(m.theta_gradient(&lambda, &found.sigma_gradient));
        gradient.extend(&found.shape_gradient);
        let mut theta = m.theta_of(&lambda);
        theta.extend(&found.point.shape);
        GlmmReport {
            loglik: -0.5 * (found.point.deviance - found.point.penalty.value),
            criterion: found.point.deviance,
            beta: e.plan.user_beta(&found.point.beta),
            theta,
            natural: patterns::natural(e.moments(), &e.patterns, &found.point.shape, &found.point.lambda),
            b: m.user_modes(&found.point.lambda, &found.point.u),
            lambda,
            outcome: found.outcome,
            evaluations: e.evaluations,
            inner: e.inner,
            iterations: found.iterations,
            gradient,
            decrease: found.decrease,
            curvature: found.curvature,
            boundary: found.boundary.clone(),
            unbounded: e.unbounded,
        }
    }

    pub(super) fn at(&self) -> Result<&Point, CoreError> {
        match &self.at {
            Some(p) => Ok(p),
            None => shape("the model has not been fitted yet"),
        }
    }

    /// Predictors of every row at the fit, row-major n x K.
    pub fn predictors(&mut self, rows: &GlmmRows<'_>) -> Result<Vec<f64>, CoreError> {
        let at = self.at()?.clone();
        Ok(self.engine.predictors(rows, &at))
    }

    /// Smallest and largest value of every predictor at the fit, without the random effects.
    pub fn reach(&mut self, rows: &GlmmRows<'_>) -> Result<Vec<(f64, f64)>, CoreError> {
        let (beta, k) = (self.at()?.beta.clone(), self.engine.plan.k);
        let eta = self.engine.fixed_part(rows, &beta);
        let span = |(low, high): (f64, f64), eta: &f64| (low.min(*eta), high.max(*eta));
        Ok((0..k).map(|c| eta[c..].iter().step_by(k).fold((f64::INFINITY, f64::NEG_INFINITY), span)).collect())
    }

    /// Log-likelihood and gradient at (beta, theta) in the user's units. The model is left where it was fitted, if
    /// it was.
    pub fn evaluate(&mut self, rows: &GlmmRows<'_>, beta: &[f64], theta: &[f64]) -> Result<GlmmEvaluation, CoreError> {
        if beta.len() != rows.p {
            return shape(format!("beta has {} entries, the model needs {}", beta.len(), rows.p));
        }
        let (exact, shape) = self.engine.covariance_at(theta)?;
        if self.at.is_none() {
            // Units of the floor come from the weights.
            let b = self.engine.plan.internal_beta(beta);
            self.engine.start_weights(rows, &b);
        }
        let internal = self.engine.plan.internal_beta(beta);
        let (gradient, u) = self.gradient(rows, &internal, (&exact, &shape))?;
        let value = self.engine.evaluate(rows, &internal, &exact, &shape, &u)?;
        let mut g = self.engine.plan.user_gradient(&gradient.beta);
        let own = &theta[..self.engine.model.theta_len()];
        g.extend(self.engine.model.theta_gradient(&self.engine.model.term_lambda_from_theta(own)?, &gradient.sigma));
        g.extend(&gradient.shape);
        self.restore(rows)?;
        Ok(GlmmEvaluation {
            loglik: -0.5 * (value.deviance - value.penalty.value),
            penalised: -0.5 * value.deviance,
            gradient: g.iter().map(|g| -0.5 * g).collect(),
        })
    }

    /// Variance of x'beta_hat + z'(b_hat - b) of one component's predictor for new rows: with J the derivatives of x'beta +
    /// z'b_hat(beta, theta), that of b given both plus J V J' (Kass & Steffey 1989, equation 4.5); without `spread`, given
    /// theta by the working model at the optimum. A code of -1 contributes nothing.
    pub fn prediction_variance(
        &self,
        n: usize,
        component: usize,
        fixed: &[Fixed<'_>],
        terms: &[Option<(Codes<'_>, Vec<Block<'_>>)>],
        spread: Option<&Spread>,
    ) -> Result<Vec<f64>, CoreError> {
        self.at()?;
        let plan = &self.engine.plan;
        if component >= plan.k || fixed.iter().any(|f| f.first + f.block.cols > plan.p_total) {
            return shape("new rows have other components or columns than the model");
        }
        for f in fixed {
            f.block.check(n, "fixed block")?;
        }
        // x in internal coordinates: M^-T x, made once a column.
        let x = |i: usize| {
            let mut user = vec![0.0; plan.p_total];
            for f in fixed {
                (0..f.block.cols).for_each(|c| user[f.first + c] += f.block.value(i, c));
            }
            plan.internal_row(&user)
        };
        self.engine.model.row_variances(n, &x, &[], terms, spread.map(|s| s as &dyn Outer))
    }

    pub(super) fn restore(&mut self, rows: &GlmmRows<'_>) -> Result<(), CoreError> {
        if let Some(at) = &self.at {
            self.at = Some(self.engine.evaluate(rows, &at.beta, &at.lambda, &at.shape, &at.u)?);
        }
        Ok(())
    }

    /// Derivatives of the deviance at (beta, Lambda), Lambda lifted to the floor where it is singular, and u. The search
    /// for the mode starts from that of the fit.
    pub(super) fn gradient(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        (exact, shape): (&[Vec<f64>], &[f64]),
    ) -> Result<(Gradient, Vec<f64>), CoreError> {
        let e = &mut self.engine;
        let lambda = e.lifted(exact, shape)?;
        let u = self.at.as_ref().map_or_else(|| vec![0.0; e.size()], |at| e.carried((&at.lambda, &at.u), &lambda));
        let at = e.evaluate(rows, beta, &lambda, shape, &u)?;
        Ok(self.slope_at(rows, exact, at))
    }

    /// Derivatives at a point whose factor is the current one, in theta of the exact Lambda, and u.
    pub(super) fn slope_at(&mut self, rows: &GlmmRows<'_>, exact: &[Vec<f64>], at: Point) -> (Gradient, Vec<f64>) {
        let e = &mut self.engine;
        let slope = e.gradient(rows, &at);
        let sigma = e.sigma_gradient(&at.lambda, &slope.n);
        let theta = e.model.internal_theta_gradient(exact, &sigma);
        let shape = slope.free[..at.shape.len()].to_vec();
        let gradient = Gradient {
            beta: slope.beta,
            theta: theta.into_iter().chain(shape.iter().copied()).collect(),
            sigma,
            shape,
        };
        (gradient, at.u)
    }
}

/// Where a search begins: the coefficients that were given, the same or the family's in internal coordinates, and what
/// they are bettered to without random effects with the scores there. The engine's weights are those there.
#[derive(Clone)]
pub(super) struct Begun {
    given: Option<Vec<f64>>,
    beta: Vec<f64>,
    first: (Vec<f64>, Vec<Vec<f64>>),
}

impl Begun {
    pub(super) fn of(e: &mut Engine, rows: &GlmmRows<'_>, start: &Start) -> Result<Self, CoreError> {
        let beta = match &start.beta {
            Some(b) if b.len() == rows.p => e.plan.internal_beta(b),
            Some(b) => return shape(format!("start has {} coefficients, the model needs {}", b.len(), rows.p)),
            None => first_beta(e, rows, &e.family.start(&rows.data, None)),
        };
        let first =
            if start.exact { (beta.clone(), e.start_weights(rows, &beta)) } else { e.start_beta(rows, &beta, false) };
        Ok(Begun { given: start.beta.clone(), beta, first })
    }

    /// The bettered coefficients.
    pub(super) fn beta(&self) -> &[f64] {
        &self.first.0
    }
}

/// The best that is found from coefficients, their scores, and the coefficients before they were bettered.
pub(super) fn found_from(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    (beta, scores, usual): (&[f64], &[Vec<f64>], &[f64]),
    start: &Start,
    options: &Options,
) -> Result<search::Found, CoreError> {
    let units = optimise::units(e.moments());
    let (lambda, shape) = match &start.theta {
        Some(t) => e.covariance_at(t)?,
        None => {
            let lambda = start::variances(e.moments(), scores, 1.0);
            let shape = patterns::start(e.moments(), &e.patterns, &lambda, scores);
            (lambda, shape)
        }
    };
    let conditional = match &start.theta {
        None if e.is_plain() => start::conditional(e, rows, &lambda, beta),
        _ => beta.to_vec(),
    };
    let from = search::First { beta: &conditional, lambda: &lambda, shape: &shape, target: None };
    if start.theta.is_some() {
        return search::minimise(e, rows, &units, &from, options);
    }
    let starts = candidates::ranked(e, rows, &units, &from, scores);
    nested::minimise(e, rows, &units, (&from, usual), &starts, options)
}

/// What was found, or what is found from other coefficients, if that is better.
fn unless_from(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    other: (&[f64], &[Vec<f64>], &[f64]),
    start: &Start,
    options: &Options,
    found: search::Found,
) -> Result<search::Found, CoreError> {
    let flat = found.outcome == Outcome::FlatMode;
    match found_from(e, rows, other, start, options) {
        Ok(trial) if flat && trial.outcome == Outcome::Converged => Ok(trial),
        Ok(trial) if nested::leads_further(&trial, &found) => Ok(trial),
        Err(CoreError::Interrupted) => Err(CoreError::Interrupted),
        _ => settle(e, rows, found),
    }
}

/// The engine at what was found.
fn settle(e: &mut Engine, rows: &GlmmRows<'_>, found: search::Found) -> Result<search::Found, CoreError> {
    search::settled(e, rows, &found.point)?;
    Ok(found)
}

/// What was found, or what is found from other starts that the family knows, if that is better.
fn unless_elsewhere(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    start: &Start,
    options: &Options,
    mut found: search::Found,
) -> Result<search::Found, CoreError> {
    let (_, curve) = e.working_solution(&found.point.lambda);
    let at_limit = e.unknown(&curve, BOUNDLESS).contains(&true);
    let k = e.plan.k;
    let eta: Vec<f64> = e.fixed_part(rows, &found.point.beta).iter().take(k).copied().collect();
    // A parameter that is held is where it is in every start.
    let mut tried = vec![first_beta(e, rows, &e.family.start(&rows.data, None))];
    for other in e.family.other_starts(&rows.data, &eta, at_limit) {
        let beta = first_beta(e, rows, &other);
        if tried.contains(&beta) {
            continue;
        }
        tried.push(beta.clone());
        let first = e.start_beta(rows, &beta, false);
        found = unless_from(e, rows, (&first.0, &first.1, &beta), start, options, found)?;
    }
    Ok(found)
}

/// Intercepts from a start of the family's, everything else zero.
fn first_beta(e: &Engine, rows: &GlmmRows<'_>, start: &[f64]) -> Vec<f64> {
    let mut user = vec![0.0; rows.p];
    for (c, component) in rows.components.iter().enumerate() {
        let value = start.get(c).copied().unwrap_or(0.0);
        let offset = component.offset.map_or(0.0, |o| o.iter().sum::<f64>() / o.len().max(1) as f64);
        for f in &component.fixed {
            if f.block.is_intercept() || f.block.is_cell_means() {
                user[f.first..f.first + f.block.cols].fill(value - offset);
                break;
            }
        }
    }
    // The shifts of the other columns are booked on the constant: their coefficients are zero, so nothing is to do.
    e.plan.internal_beta(&user)
}

/// Tell Toeplitz structures which of their correlations beyond the first are held or equal to an earlier one: these are
/// no parameters. What is left of the ties, after the parameters that have lost their meaning.
#[allow(clippy::type_complexity)]
fn give_lags(
    patterns: &mut [patterns::Patterned],
    held: &[(usize, f64)],
    tied: Vec<Vec<usize>>,
) -> Result<(Vec<usize>, Vec<Vec<usize>>), CoreError> {
    let place = |i: usize| {
        let t = patterns::owner(patterns, i)?;
        patterns[t].pattern.lag(i - patterns[t].first).map(|lag| (t, lag))
    };
    let mut given: Vec<(usize, usize, Lag)> = vec![];
    for &(i, value) in held {
        given.extend(place(i).map(|(t, _)| (t, i, Lag::Held(value))));
    }
    let (mut followers, mut rest) = (vec![], vec![]);
    for mut set in tied {
        if !set.iter().any(|&i| place(i).is_some_and(|p| p.1 > 0)) {
            rest.push(set);
            continue;
        }
        set.sort_unstable();
        let Some((term, first)) = place(set[0]) else { return shape("a tie of lags with other parameters") };
        for &i in &set[1..] {
            match place(i) {
                Some((t, _)) if t == term => given.push((t, i, Lag::As(first))),
                _ => return shape("a tie of lags of several terms"),
            }
            followers.push(i);
        }
    }
    for (t, p) in patterns.iter_mut().enumerate().filter(|(_, p)| p.pattern.lag(p.pattern.deviations()).is_some()) {
        let mut own: Vec<_> = given.iter().filter(|g| g.0 == t).map(|&(_, i, lag)| (i - p.first, lag)).collect();
        if own.iter().all(|&(j, _)| j == p.pattern.deviations()) {
            own.clear(); // the first one alone is a parameter as any other
        }
        p.pattern.give(&own);
        if p.pattern.factor(&p.pattern.start(&vec![1.0; p.pattern.k])).is_err() {
            return shape("no covariance has correlations at lags like these together");
        }
    }
    Ok((followers, rest))
}
