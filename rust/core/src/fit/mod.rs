//! A linear mixed model in the user's units: shifts are undone in `coordinates`, exactly, and nowhere else.

mod coordinates;
mod derivatives;
mod predictions;

pub(crate) use coordinates::{user_beta, user_matrix, user_slopes, user_vcov};
pub(crate) use predictions::Outer;

use rayon::prelude::*;

use crate::design::{sound, Moments, Rows};
use crate::error::shape;
use crate::linear::{Lmm, Solution};
use crate::optimise::{self, Optimum, Options, Outcome};
use crate::start;
use crate::{CoreError, Stop};

/// What a fit reports, in the user's units and in the order of the user's columns and terms.
#[derive(Clone, Debug)]
pub struct Report {
    pub theta: Vec<f64>,
    pub criterion: f64,
    /// NaN at dropped columns.
    pub beta: Vec<f64>,
    /// p x p, NaN rows and columns at dropped columns; of the dense columns.
    pub vcov: Vec<f64>,
    pub sigma: f64,
    pub pwrss: f64,
    pub logdet_z: f64,
    pub logdet_x: f64,
    /// Per term: k x k relative factor, column-major.
    pub lambda: Vec<Vec<f64>>,
    /// Per term: levels x k conditional modes, row-major.
    pub b: Vec<Vec<f64>>,
    pub outcome: Outcome,
    pub evaluations: usize,
    pub iterations: usize,
    pub gradient: Vec<f64>,
    pub decrease: f64,
    pub curvature: f64,
    pub boundary: Vec<optimise::Boundary>,
}

/// Criterion and exact gradient at one theta.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub criterion: f64,
    pub gradient: Vec<f64>,
    /// Of the dense columns.
    pub beta: Vec<f64>,
    pub sigma: f64,
    pub pwrss: f64,
    pub logdet_z: f64,
    pub logdet_x: f64,
}

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) lambda: Vec<Vec<f64>>,
    pub(crate) solution: Solution,
    pub(crate) sigma: f64,
}

/// A model whose rows have become cross-products; remembers the last theta it was evaluated at.
#[derive(Clone)]
pub struct Model {
    pub lmm: Lmm,
    state: Option<State>,
    /// Lambda and sigma of the state before work that was cut short; the factor is no longer theirs.
    left: Option<(Vec<Vec<f64>>, f64)>,
}

impl Model {
    pub fn new(rows: &Rows<'_>) -> Result<Self, CoreError> {
        Ok(Model { lmm: Lmm::new(Moments::build(rows)?)?, state: None, left: None })
    }

    /// A model whose cross-products somebody else fills.
    pub(crate) fn from_moments(moments: Moments) -> Result<Self, CoreError> {
        Ok(Model { lmm: Lmm::new(moments)?, state: None, left: None })
    }

    /// Remember where the model stands (its factor must be that of `lambda`).
    pub(crate) fn set_state(&mut self, lambda: Vec<Vec<f64>>, solution: Solution, sigma: f64) {
        self.state = Some(State { lambda, solution, sigma });
    }

    /// `recover` leads back to where `stand` was: nothing may ask for the factor any more.
    pub(crate) fn stray(&mut self, state: State) {
        self.left = Some((state.lambda, state.sigma));
    }

    /// Back to where `stand` was.
    pub(crate) fn rest(&mut self, state: State) {
        self.state = Some(state);
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, CoreError> {
        postcard::to_allocvec(&self.lmm.moments).map_err(|e| CoreError::Shape(format!("cannot save the model: {e}")))
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CoreError> {
        let moments: Moments =
            postcard::from_bytes(bytes).map_err(|e| CoreError::Shape(format!("not a saved model: {e}")))?;
        check_moments(&moments)?;
        Ok(Model { lmm: Lmm::new(moments)?, state: None, left: None })
    }

    /// The same model, to be moved on its own; the elimination is shared.
    pub(crate) fn twin(&self) -> Self {
        Model { lmm: self.lmm.with_moments(self.m().clone()), state: None, left: None }
    }

    /// Positions in theta of the diagonal entries of Lambda.
    pub(crate) fn diagonal(&self) -> Vec<usize> {
        let mut out = vec![];
        let mut at = 0;
        for (_, s) in self.slots() {
            for c in 0..s.cols {
                let rows = s.structure.rows(c, s.cols);
                if rows.contains(&c) {
                    out.push(at);
                }
                at += rows.len();
            }
        }
        out
    }

    /// The user's columns that were dropped, ascending.
    pub fn dropped(&self) -> Vec<usize> {
        let m = self.m();
        let dense = m.dropped.iter().map(|&j| m.columns[j]);
        let mut out: Vec<usize> = dense.chain(m.wide.iter().flat_map(|w| w.dropped())).collect();
        out.sort_unstable();
        out
    }

    fn m(&self) -> &Moments {
        &self.lmm.moments
    }

    /// Say that the rows stand for `total` ones, and what the residual variance is, where it is known; before a fit.
    pub fn assume(&mut self, total: Option<f64>, variance: Option<f64>) -> Result<(), CoreError> {
        let legal = |v: f64| v > 0.0 && v.is_finite();
        if !total.is_none_or(|n| n.is_finite() && n > self.m().rank() as f64) || !variance.is_none_or(legal) {
            return shape("a total number of rows above the rank and a positive variance, or none");
        }
        let m = &mut self.lmm.moments;
        (m.total, m.variance) = (total.unwrap_or(m.n as f64), variance);
        (self.state, self.left) = (None, None);
        Ok(())
    }

    pub fn theta_len(&self) -> usize {
        self.lmm.components.len()
    }

    fn degrees(&self, reml: bool) -> Result<(), CoreError> {
        let m = self.m();
        if m.n <= m.rank() {
            return shape(format!("{} rows cannot determine {} fixed effects and a variance", m.n, m.rank()));
        }
        let _ = reml;
        Ok(())
    }

    /// Fit by maximum likelihood or REML, from `theta` or from moments.
    pub fn fit(&mut self, reml: bool, theta: Option<&[f64]>, options: &Options) -> Result<Report, CoreError> {
        self.degrees(reml)?;
        // A search that fails leaves the factor somewhere else.
        (self.state, self.left) = (None, None);
        let optimum = match theta {
            Some(t) => {
                let first = self.lambda_from_theta(t)?;
                optimise::minimise(&mut self.lmm, reml, &first, options)?
            }
            None => self.search(reml, options)?,
        };
        let report = self.report(reml, &optimum);
        let sigma = report.sigma;
        self.state = Some(State { lambda: optimum.lambda, solution: optimum.solution, sigma });
        Ok(report)
    }

    /// The optimum from moments. What the criterion does not depend on is zero, in the user's columns.
    fn search(&mut self, reml: bool, options: &Options) -> Result<Optimum, CoreError> {
        let mut first = self.m().free_wide(start::start(self.m()));
        let flat = self.lmm.flat(reml)?;
        for &(f, a) in &flat {
            let k = self.m().factors[f].cols;
            (0..k).for_each(|b| (first[f][a + b * k], first[f][b + a * k]) = (0.0, 0.0));
        }
        let mut optimum = optimise::minimise_again(&mut self.lmm, reml, &first, options)?;
        if self.zero_flat(&flat, &mut optimum.lambda) {
            // Rounding errors may have led the search far along what is flat: what it ends with is found anew here.
            let (evaluations, iterations) = (optimum.evaluations, optimum.iterations);
            let here = optimum.lambda;
            optimum = optimise::minimise(&mut self.lmm, reml, &here, options)?;
            optimum.evaluations += evaluations;
            optimum.iterations += iterations;
            if self.zero_flat(&flat, &mut optimum.lambda) {
                optimum.solution = self.lmm.solve(&optimum.lambda, reml)?;
            }
        }
        Ok(optimum)
    }

    /// Make what is flat zero in the user's columns; whether that changes Lambda.
    fn zero_flat(&self, flat: &[(usize, usize)], lambda: &mut [Vec<f64>]) -> bool {
        let mut moved = false;
        for &(f, a) in flat {
            let factor = &self.m().factors[f];
            let k = factor.cols;
            for s in factor.slots.iter().filter(|s| s.carrier.is_some_and(|c| s.offset + c == a)) {
                // A carrier bears the shifts of the others: the user's column is zero where these are taken off.
                for b in 0..k {
                    let others = (0..s.cols).filter(|&r| s.offset + r != a);
                    let v: f64 = others.map(|r| s.shift[r] * lambda[f][s.offset + r + b * k]).sum();
                    moved |= v != lambda[f][a + b * k];
                    lambda[f][a + b * k] = v;
                }
            }
        }
        moved
    }

    fn report(&self, reml: bool, o: &Optimum) -> Report {
        let m = self.m();
        let s = &o.solution;
        let sigma = self.lmm.variance(s, reml).sqrt();
        let lambda = self.term_lambda(&o.lambda);
        let u = self.lmm.modes(s);
        Report {
            theta: self.theta_of(&lambda),
            criterion: s.criterion,
            beta: self.coefficients(&s.beta, &u),
            vcov: user_vcov(m, &s.lx, sigma),
            sigma,
            pwrss: s.r2,
            logdet_z: s.logdet_z,
            logdet_x: s.logdet_x,
            b: self.user_modes(&o.lambda, &u),
            gradient: self.theta_gradient(&lambda, &o.sigma_gradient),
            lambda,
            outcome: o.outcome,
            evaluations: o.evaluations,
            iterations: o.iterations,
            decrease: o.decrease,
            curvature: o.curvature,
            boundary: o.boundary.clone(),
        }
    }

    /// Criterion and gradient at theta; the model is left at that theta.
    pub fn evaluate(&mut self, theta: &[f64], reml: bool) -> Result<Evaluation, CoreError> {
        self.degrees(reml)?;
        let lambda = self.lambda_from_theta(theta)?;
        self.leave();
        let floored = optimise::floored(self.m(), &lambda);
        let at_floor = self.lmm.solve(&floored, reml)?;
        let n = self.lmm.unprofiled(&at_floor, reml, self.lmm.variance(&at_floor, reml))?;
        let g = optimise::sigma_gradient(self.m(), &floored, &n);
        let solution = if floored == lambda { at_floor } else { self.lmm.solve(&lambda, reml)? };
        let sigma = self.lmm.variance(&solution, reml).sqrt();
        let out = Evaluation {
            criterion: solution.criterion,
            gradient: self.theta_gradient(&self.term_lambda_from_theta(theta)?, &g),
            beta: user_beta(self.m(), &solution.beta),
            sigma,
            pwrss: solution.r2,
            logdet_z: solution.logdet_z,
            logdet_x: solution.logdet_x,
        };
        self.state = Some(State { lambda, solution, sigma });
        Ok(out)
    }

    /// The solution at Lambda, for work that puts it back into `state`: where the model stands, or a factorisation.
    pub(crate) fn stand(&mut self, lambda: Vec<Vec<f64>>, reml: bool) -> Result<State, CoreError> {
        let here = self.state.take();
        if let Some(s) = &here {
            self.left = Some((s.lambda.clone(), s.sigma));
        }
        match here {
            // ML beside wide factors needs a second factor, which may be another Lambda's.
            Some(s) if s.lambda == lambda && self.m().wide.is_empty() => Ok(s),
            _ => {
                let solution = self.lmm.solve(&lambda, reml)?;
                let sigma = self.lmm.variance(&solution, reml).sqrt();
                Ok(State { lambda, solution, sigma })
            }
        }
    }

    /// From here on the factor moves; `recover` finds the way back.
    pub(crate) fn leave(&mut self) {
        if let Some(s) = self.state.take() {
            self.left = Some((s.lambda, s.sigma));
        }
    }

    /// Work that moves the factor, cut short when `stop` asks for it; if it fails the model is where it was.
    pub fn until<T>(
        &mut self,
        stop: &Stop,
        work: impl FnOnce(&mut Self) -> Result<T, CoreError>,
    ) -> Result<T, CoreError> {
        self.lmm.numeric.stop = stop.clone();
        let out = work(self);
        self.lmm.numeric.stop = Stop::default();
        if out.is_err() {
            self.recover()?;
        }
        out
    }

    /// Whether the factor is another one than that of the state that was left.
    pub fn is_away(&self) -> bool {
        self.state.is_none() && self.left.is_some()
    }

    /// Factorise anew where work has left another factor, or none.
    pub fn recover(&mut self) -> Result<(), CoreError> {
        if let (Some((lambda, sigma)), None) = (self.left.clone(), &self.state) {
            let solution = self.lmm.solve(&lambda, false)?;
            self.state = Some(State { lambda, solution, sigma });
        }
        self.left = None;
        Ok(())
    }

    pub(crate) fn state(&self) -> Result<&State, CoreError> {
        match &self.state {
            Some(s) => Ok(s),
            None => shape("the model has not been fitted or evaluated yet"),
        }
    }

    /// Rows handed in again must be those of the model, as far as sizes tell.
    fn check_rows(&self, rows: &Rows<'_>) -> Result<(), CoreError> {
        rows.check()?;
        let m = self.m();
        let slots = self.slots();
        let same = rows.n == m.n
            && rows.fixed_cols() == m.user_columns()
            && rows.terms.len() == slots.len()
            && rows.terms.iter().zip(&slots).all(|(t, (f, s))| {
                t.levels == m.factors[*f].levels && t.cols() == s.cols && t.structure == s.structure
            });
        if same {
            Ok(())
        } else {
            shape("the rows are not those of the model: other numbers of rows, columns, terms or levels")
        }
    }

    /// Fit the same design to other responses; symbolic work is shared and responses run in parallel.
    pub fn refit(
        &self,
        rows: &Rows<'_>,
        responses: &[&[f64]],
        reml: bool,
        options: &Options,
    ) -> Result<Vec<Result<Report, CoreError>>, CoreError> {
        self.degrees(reml)?;
        self.check_rows(rows)?;
        let one = |y: &&[f64]| -> Result<Report, CoreError> {
            let moments = self.m().with_response(rows, y)?;
            let mut model = Model { lmm: self.lmm.with_moments(moments), state: None, left: None };
            model.fit(reml, None, options)
        };
        Ok(if responses.len() == 1 {
            responses.iter().map(one).collect()
        } else {
            responses.par_iter().map(one).collect()
        })
    }
}

/// Sizes that every later step relies on; a damaged file must not panic.
fn check_moments(m: &Moments) -> Result<(), CoreError> {
    let p1 = m.p() + 1;
    let sized = |len: usize, parts: &[usize]| parts.iter().try_fold(1usize, |a, &b| a.checked_mul(b)) == Some(len);
    let factors = m.factors.iter().all(|f| {
        f.cols > 0
            && f.levels > 0
            && sized(f.gram.len(), &[f.levels, f.cols, f.cols])
            && sized(f.zx.len(), &[f.levels, f.cols, p1])
            && f.slots.iter().try_fold(0, |at, s| (s.offset == at).then(|| at.checked_add(s.cols)).flatten())
                == Some(f.cols)
            && f.slots.iter().all(|s| s.shift.len() == s.cols && s.carrier.is_none_or(|c| c < s.cols))
    });
    if m.wide.len() > m.factors.len() || !sound(m) {
        return shape("not a saved model: sizes contradict each other");
    }
    let random = &m.factors[..m.random()];
    let mut terms: Vec<usize> = random.iter().flat_map(|f| f.slots.iter().map(|s| s.term)).collect();
    terms.sort_unstable();
    let terms = terms.iter().enumerate().all(|(i, &t)| i == t);
    let pairs = m.pairs.iter().all(|p| {
        p.lead < m.factors.len()
            && p.other < m.factors.len()
            && p.lead != p.other
            && p.start.len() == m.factors[p.lead].levels + 1
            && p.start[0] == 0
            && p.start.windows(2).all(|w| w[0] <= w[1])
            && p.start.last().copied().unwrap_or(0) as usize == p.level.len()
            && p.level.iter().all(|&l| (l as usize) < m.factors[p.other].levels)
            && p.value.len() == p.level.len() * m.factors[p.lead].cols * m.factors[p.other].cols
    });
    let sizes = m.xx.len() == p1 * p1
        && m.x_shift.len() == m.p_total
        && m.kept.iter().all(|&j| j < m.p_total)
        && m.rank() < m.n
        && m.n <= u32::MAX as usize
        && m.carrier.as_ref().is_none_or(|c| c.len() == m.p_total)
        && m.n_terms == random.iter().map(|f| f.slots.len()).sum::<usize>();
    if factors && terms && pairs && sizes {
        Ok(())
    } else {
        shape("not a saved model: sizes contradict each other")
    }
}
