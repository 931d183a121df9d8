//! A linear mixed model in the user's units: shifts are undone here, exactly, and nowhere else.

use rayon::prelude::*;

use crate::cholesky::Tail;
use crate::dense;
use crate::design::{sound, Block, Codes, Moments, Rows, TermSlot};
use crate::error::shape;
use crate::linear::{dot, Lmm, Solution};
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
        let mut moved = false;
        for &(f, a) in &flat {
            let factor = &self.lmm.moments.factors[f];
            let k = factor.cols;
            for s in factor.slots.iter().filter(|s| s.carrier.is_some_and(|c| s.offset + c == a)) {
                // A carrier bears the shifts of the others: the user's column is zero where these are taken off.
                for b in 0..k {
                    let others = (0..s.cols).filter(|&r| s.offset + r != a);
                    let v: f64 = others.map(|r| s.shift[r] * optimum.lambda[f][s.offset + r + b * k]).sum();
                    optimum.lambda[f][a + b * k] = v;
                    moved |= v != 0.0;
                }
            }
        }
        if moved {
            optimum.solution = self.lmm.solve(&optimum.lambda, reml)?;
        }
        Ok(optimum)
    }

    fn report(&self, reml: bool, o: &Optimum) -> Report {
        let m = self.m();
        let s = &o.solution;
        let sigma = (s.r2 / self.lmm.nu(reml)).sqrt();
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

    /// Coefficients of all the user's columns.
    fn coefficients(&self, beta: &[f64], u: &[f64]) -> Vec<f64> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        let dense = user_beta(m, beta);
        if m.wide.is_empty() {
            return dense;
        }
        let mut out = vec![f64::NAN; m.user_columns()];
        m.columns.iter().zip(dense).for_each(|(&j, b)| out[j] = b);
        for w in &m.wide {
            let booked = m.booked(w).map_or(0.0, |(along, rest)| dot(&along, beta) + rest);
            for (j, l) in (w.base..w.levels).enumerate() {
                out[w.first + j] =
                    booked + u[sym.offset[sym.position[sym.base[w.factor] as usize + l] as usize] as usize];
            }
            w.dropped().for_each(|j| out[j] = f64::NAN);
        }
        out
    }

    /// Variances of the coefficients of wide factors, one factor after the other; NaN at dropped ones.
    pub fn level_variances(&self) -> Result<Vec<f64>, CoreError> {
        let state = self.state()?;
        let (m, sym, p) = (self.m(), &self.lmm.symbolic, self.m().p());
        let inverse = self.lmm.selected_inverse();
        self.lmm.numeric.stop.check()?;
        let h = self.lmm.fixed_sensitivity(&state.solution);
        let mut out = vec![];
        for w in &m.wide {
            let first = out.len();
            let mut own = m.booked(w).map_or(vec![0.0; p], |(along, _)| along);
            dense::solve_left_l(&state.solution.lx, p, p, &mut own, 1, p);
            for l in w.base..w.levels {
                let at = sym.offset[sym.position[sym.base[w.factor] as usize + l] as usize] as usize;
                let through: f64 = own.iter().zip(&h[at * p..]).map(|(own, h)| (own - h) * (own - h)).sum();
                out.push(state.sigma * state.sigma * (inverse.diag[w.factor][l] + through));
            }
            w.aliased.iter().for_each(|&l| out[first + l as usize - w.base] = f64::NAN);
        }
        Ok(out)
    }

    /// Criterion and gradient at theta; the model is left at that theta.
    pub fn evaluate(&mut self, theta: &[f64], reml: bool) -> Result<Evaluation, CoreError> {
        self.degrees(reml)?;
        let lambda = self.lambda_from_theta(theta)?;
        self.leave();
        let floored = optimise::floored(self.m(), &lambda);
        let at_floor = self.lmm.solve(&floored, reml)?;
        let nu = self.lmm.nu(reml);
        let n = self.lmm.unprofiled(&at_floor, reml, at_floor.r2 / nu)?;
        let g = optimise::sigma_gradient(self.m(), &floored, &n);
        let solution = if floored == lambda { at_floor } else { self.lmm.solve(&lambda, reml)? };
        let sigma = (solution.r2 / nu).sqrt();
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
                let sigma = (solution.r2 / self.lmm.nu(reml)).sqrt();
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

    /// Factorise anew where work that failed has left another factor.
    fn recover(&mut self) -> Result<(), CoreError> {
        if let (Some((lambda, sigma)), None) = (self.left.take(), &self.state) {
            let solution = self.lmm.solve(&lambda, false)?;
            self.state = Some(State { lambda, solution, sigma });
        }
        Ok(())
    }

    pub(crate) fn state(&self) -> Result<&State, CoreError> {
        match &self.state {
            Some(s) => Ok(s),
            None => shape("the model has not been fitted or evaluated yet"),
        }
    }

    pub(crate) fn slots(&self) -> Vec<(usize, &TermSlot)> {
        let m = self.m();
        let mut out: Vec<(usize, &TermSlot)> =
            m.factors[..m.random()].iter().enumerate().flat_map(|(f, x)| x.slots.iter().map(move |s| (f, s))).collect();
        out.sort_by_key(|(_, s)| s.term);
        out
    }

    pub(crate) fn term_lambda_from_theta(&self, theta: &[f64]) -> Result<Vec<Vec<f64>>, CoreError> {
        if theta.len() != self.theta_len() {
            return shape(format!("theta has {} entries, the model needs {}", theta.len(), self.theta_len()));
        }
        if theta.iter().any(|t| !t.is_finite()) {
            return Err(CoreError::NotFinite("theta is not finite".into()));
        }
        let mut at = 0;
        Ok(self
            .slots()
            .iter()
            .map(|(_, s)| {
                let k = s.cols;
                let mut l = vec![0.0; k * k];
                for c in 0..k {
                    for r in s.structure.rows(c, k) {
                        l[r + c * k] = theta[at];
                        at += 1;
                    }
                }
                l
            })
            .collect())
    }

    /// Internal relative factors (shifted columns, terms of one grouping side by side).
    pub(crate) fn lambda_from_theta(&self, theta: &[f64]) -> Result<Vec<Vec<f64>>, CoreError> {
        let terms = self.term_lambda_from_theta(theta)?;
        let m = self.m();
        let mut out: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
        for ((f, s), l) in self.slots().into_iter().zip(&terms) {
            let k = s.cols;
            for c in 0..k {
                let mut column: Vec<f64> = l[c * k..(c + 1) * k].to_vec();
                to_internal(s, &mut column);
                for (r, v) in column.iter().enumerate() {
                    out[f][s.offset + r + (s.offset + c) * m.factors[f].cols] = *v;
                }
            }
        }
        Ok(m.free_wide(out))
    }

    /// Lower triangular relative factor of every term in the user's columns.
    pub(crate) fn term_lambda(&self, lambda: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let m = self.m();
        self.slots()
            .into_iter()
            .map(|(f, s)| {
                let (k, ld) = (s.cols, m.factors[f].cols);
                let mut l = vec![0.0; k * k];
                for c in 0..k {
                    for r in 0..k {
                        l[r + c * k] = lambda[f][s.offset + r + (s.offset + c) * ld];
                    }
                    to_user(s, &mut l[c * k..(c + 1) * k]);
                }
                dense::lower_factor(&l, k)
            })
            .collect()
    }

    pub(crate) fn theta_of(&self, lambda: &[Vec<f64>]) -> Vec<f64> {
        let mut out = vec![];
        for ((_, s), l) in self.slots().iter().zip(lambda) {
            let k = s.cols;
            for c in 0..k {
                for r in s.structure.rows(c, k) {
                    out.push(l[r + c * k]);
                }
            }
        }
        out
    }

    /// d criterion / d theta from d criterion / d Sigma: 2 G Lambda, in the user's columns.
    pub(crate) fn theta_gradient(&self, lambda: &[Vec<f64>], g: &[Vec<f64>]) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for ((f, s), l) in self.slots().iter().zip(lambda) {
            let (k, ld) = (s.cols, m.factors[*f].cols);
            if g.is_empty() {
                continue;
            }
            // G in the user's columns: M' G M with b_internal = M b_user.
            let mut gu = vec![0.0; k * k];
            for c in 0..k {
                for r in 0..k {
                    gu[r + c * k] = g[*f][s.offset + r + (s.offset + c) * ld];
                }
            }
            if let Some(carrier) = s.carrier {
                for c in 0..k {
                    for r in 0..k {
                        gu[r + c * k] += s.shift[r] * gu[carrier + c * k] * if r == carrier { 0.0 } else { 1.0 };
                    }
                }
                for r in 0..k {
                    for c in (0..k).filter(|&c| c != carrier) {
                        gu[r + c * k] += s.shift[c] * gu[r + carrier * k];
                    }
                }
            }
            for c in 0..k {
                for r in s.structure.rows(c, k) {
                    out.push(2.0 * (0..k).map(|t| gu[r + t * k] * l[t + c * k]).sum::<f64>());
                }
            }
        }
        out
    }

    /// Conditional modes b = Lambda u per term, in the user's columns (levels x k, row-major).
    pub(crate) fn user_modes(&self, lambda: &[Vec<f64>], u: &[f64]) -> Vec<Vec<f64>> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        self.slots()
            .into_iter()
            .map(|(f, s)| {
                let factor = &m.factors[f];
                let mut out = vec![0.0; factor.levels * s.cols];
                for l in 0..factor.levels {
                    let at = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize + s.offset;
                    let b = &mut out[l * s.cols..(l + 1) * s.cols];
                    for (r, b) in b.iter_mut().enumerate() {
                        *b = (0..s.cols)
                            .map(|c| lambda[f][s.offset + r + (s.offset + c) * factor.cols] * u[at + c])
                            .sum();
                    }
                    to_user(s, b);
                }
                out
            })
            .collect()
    }

    /// Conditional covariance sigma^2 Lambda (A_ZZ^-1)_ll Lambda' of the modes of one term (levels x k x k).
    pub fn conditional_covariance(&self, term: usize) -> Result<Vec<f64>, CoreError> {
        let state = self.state()?;
        let inv = self.lmm.inverse_alone(&state.lambda)?;
        self.lmm.numeric.stop.check()?;
        let slots = self.slots();
        let Some((f, s)) = slots.get(term) else {
            return shape(format!("there is no random term {term}"));
        };
        let (m, k) = (self.m(), s.cols);
        let factor = &m.factors[*f];
        let mut out = vec![0.0; factor.levels * k * k];
        let mut half = vec![0.0; k * k];
        let lam = |r: usize, c: usize| state.lambda[*f][s.offset + r + (s.offset + c) * factor.cols];
        for (l, out) in out.chunks_exact_mut(k * k).enumerate() {
            let z = &inv.diag[*f][l * factor.cols * factor.cols..(l + 1) * factor.cols * factor.cols];
            for c in 0..k {
                for r in 0..k {
                    half[r + c * k] = (0..k).map(|t| lam(r, t) * z[s.offset + t + (s.offset + c) * factor.cols]).sum();
                }
            }
            for c in 0..k {
                for r in 0..k {
                    out[r + c * k] =
                        state.sigma * state.sigma * (0..k).map(|t| half[r + t * k] * lam(c, t)).sum::<f64>();
                }
            }
            for c in 0..k {
                to_user(s, &mut out[c * k..(c + 1) * k]);
            }
            for r in 0..k {
                let mut row: Vec<f64> = (0..k).map(|c| out[r + c * k]).collect();
                to_user(s, &mut row);
                row.iter().enumerate().for_each(|(c, v)| out[r + c * k] = *v);
            }
        }
        Ok(out)
    }

    /// The part of theta of `hessian` by central differences of the exact gradient (relative error about 1e-9).
    pub(crate) fn hessian_by_differences(
        &mut self,
        theta: &[f64],
        sigma: f64,
        reml: bool,
    ) -> Result<Vec<f64>, CoreError> {
        let m = theta.len();
        let scale = self.theta_scale();
        let mut h = vec![0.0; m * m];
        let mut t = theta.to_vec();
        for j in 0..m {
            let step = 2e-5 * theta[j].abs().max(scale[j]);
            t[j] = theta[j] + step;
            let up = self.gradient_at(&t, sigma, reml)?;
            t[j] = theta[j] - step;
            let down = self.gradient_at(&t, sigma, reml)?;
            t[j] = theta[j];
            (0..m).for_each(|i| h[i + j * m] = (up[i] - down[i]) / (2.0 * step));
        }
        for j in 0..m {
            for i in 0..j {
                let v = 0.5 * (h[i + j * m] + h[j + i * m]);
                (h[i + j * m], h[j + i * m]) = (v, v);
            }
        }
        Ok(h)
    }

    /// Theta in internal (shifted) columns: well scaled where the user's are far from zero.
    pub(crate) fn internal_theta(&self, lambda: &[Vec<f64>]) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for (f, s) in self.slots() {
            let (k, ld) = (s.cols, m.factors[f].cols);
            let block: Vec<f64> = (0..k * k).map(|t| lambda[f][s.offset + t % k + (s.offset + t / k) * ld]).collect();
            let l = dense::lower_factor(&block, k);
            (0..k).for_each(|c| s.structure.rows(c, k).for_each(|r| out.push(l[r + c * k])));
        }
        out
    }

    pub(crate) fn lambda_from_internal(&self, theta: &[f64]) -> Vec<Vec<f64>> {
        let m = self.m();
        let mut out: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
        let mut at = 0;
        for (f, s) in self.slots() {
            for c in 0..s.cols {
                for r in s.structure.rows(c, s.cols) {
                    out[f][s.offset + r + (s.offset + c) * m.factors[f].cols] = theta[at];
                    at += 1;
                }
            }
        }
        m.free_wide(out)
    }

    /// d criterion / d internal theta, 2 G Lambda.
    pub(crate) fn internal_theta_gradient(&self, lambda: &[Vec<f64>], g: &[Vec<f64>]) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for (f, s) in self.slots() {
            let ld = m.factors[f].cols;
            for c in 0..s.cols {
                for r in s.structure.rows(c, s.cols) {
                    let (row, column) = (s.offset + r, s.offset + c);
                    let sum: f64 =
                        (s.offset..s.offset + s.cols).map(|t| g[f][row + t * ld] * lambda[f][t + column * ld]).sum();
                    out.push(2.0 * sum);
                }
            }
        }
        out
    }

    /// d theta (user) / d theta (internal), column-major; no model is evaluated.
    pub(crate) fn theta_jacobian(&self, internal: &[f64]) -> Vec<f64> {
        let n = internal.len();
        let user = |t: &[f64]| self.theta_of(&self.term_lambda(&self.lambda_from_internal(t)));
        let size = internal.iter().fold(0.0f64, |m, t| m.max(t.abs()));
        let mut out = vec![0.0; n * n];
        for j in 0..n {
            let step = 1e-6 * internal[j].abs().max(1e-3 * size).max(1e-12);
            let (mut up, mut down) = (internal.to_vec(), internal.to_vec());
            up[j] += step;
            down[j] -= step;
            let (a, b) = (user(&up), user(&down));
            (0..n).for_each(|i| out[i + j * n] = (a[i] - b[i]) / (2.0 * step));
        }
        out
    }

    /// Whether the user's theta is the internal one.
    pub(crate) fn unshifted(&self) -> bool {
        self.slots().iter().all(|(_, s)| s.carrier.is_none() || s.shift.iter().all(|v| *v == 0.0))
    }

    /// Natural size of each theta: one over the root mean information of its column.
    pub(crate) fn theta_scale(&self) -> Vec<f64> {
        let m = self.m();
        let mut out = vec![];
        for (f, s) in self.slots() {
            let factor = &m.factors[f];
            let k2 = factor.cols * factor.cols;
            let info: Vec<f64> = (0..s.cols)
                .map(|a| {
                    let at = (s.offset + a) * (factor.cols + 1);
                    factor.gram.chunks_exact(k2).map(|g| g[at]).sum::<f64>() / factor.levels as f64
                })
                .collect();
            for c in 0..s.cols {
                for r in s.structure.rows(c, s.cols) {
                    out.push(if info[r] > 0.0 { 1.0 / info[r].sqrt() } else { 1.0 });
                }
            }
        }
        out
    }

    /// Gradient in theta of log|A| (+ log|X'V^-1X|) + r2 / sigma^2 + nu log(2 pi sigma^2).
    pub(crate) fn gradient_at(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        let lambda = optimise::floored(self.m(), &self.lambda_from_theta(theta)?);
        let s = self.lmm.solve(&lambda, reml)?;
        let n = self.lmm.unprofiled(&s, reml, sigma * sigma)?;
        let g = optimise::sigma_gradient(self.m(), &lambda, &n);
        Ok(self.theta_gradient(&self.term_lambda_from_theta(theta)?, &g))
    }

    /// d vcov(beta) / d (theta, sigma): (m x p x p), exact. Dropped columns are NaN.
    pub fn vcov_jacobian(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        let exact = self.lambda_from_theta(theta)?;
        let mut state = self.stand(optimise::floored(self.m(), &exact), reml)?;
        let h = self.lmm.fixed_sensitivity(&state.solution);
        let (p, pt) = (self.m().p(), self.m().p_total);
        let mut out = vec![];
        let term_lambda = self.term_lambda_from_theta(theta)?;
        for ((f, slot), l) in self.slots().into_iter().zip(&term_lambda) {
            let sums = self.sensitivity_products(f, slot, &state.lambda, &h);
            let (k, w) = (slot.cols, slot.cols * p);
            for c in 0..k {
                for r in slot.structure.rows(c, k) {
                    // dSigma = E_rc Lambda' + Lambda E_cr, in the user's columns.
                    let mut d = vec![0.0; p * p];
                    for (b, &lb) in l[c * k..(c + 1) * k].iter().enumerate().filter(|(_, v)| **v != 0.0) {
                        for j in 0..p {
                            for i in 0..p {
                                let both = sums[r * p + i + (b * p + j) * w] + sums[r * p + j + (b * p + i) * w];
                                d[i + j * p] += lb * both;
                            }
                        }
                    }
                    out.extend(self.unwhiten(&state.solution.lx, &mut d, sigma));
                }
            }
        }
        let v = user_vcov(self.m(), &state.solution.lx, sigma);
        out.extend(v.iter().map(|v| 2.0 * v / sigma));
        debug_assert_eq!(out.len(), (theta.len() + 1) * pt * pt);
        if state.lambda != exact {
            self.state = Some(state);
            state = self.stand(exact, reml)?;
        }
        self.state = Some(state);
        Ok(out)
    }

    /// sum_l h_l h_l' for h = Z'V^-1 X L_X^-T in the user's columns, (k p) x (k p): column a p + j is row a, coefficient j.
    fn sensitivity_products(&self, f: usize, slot: &TermSlot, lambda: &[Vec<f64>], h: &[f64]) -> Vec<f64> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        let (p, k, kf) = (m.p(), slot.cols, m.factors[f].cols);
        let inverse = optimise::invert(&lambda[f], kf);
        let w = k * p;
        if w == 0 {
            return vec![];
        }
        let mut rows = vec![0.0; m.factors[f].levels * w];
        for (l, g) in rows.chunks_exact_mut(w).enumerate() {
            let at = sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize;
            // Rows of Z'V^-1X: Lambda^-T times those of Lambda'Z'V^-1X.
            for (a, g) in g.chunks_exact_mut(p).enumerate() {
                for t in 0..kf {
                    let v = inverse[t + (slot.offset + a) * kf];
                    if v != 0.0 {
                        g.iter_mut().zip(&h[(at + t) * p..]).for_each(|(g, h)| *g += v * h);
                    }
                }
            }
            if let Some(c) = slot.carrier {
                let carrier = g[c * p..(c + 1) * p].to_vec();
                for (a, g) in g.chunks_exact_mut(p).enumerate().filter(|(a, _)| *a != c) {
                    g.iter_mut().zip(&carrier).for_each(|(g, h)| *g += slot.shift[a] * h);
                }
            }
        }
        let mut sums = vec![0.0; w * w];
        dense::syrk_rows(&mut sums, w, &rows, w, m.factors[f].levels, 1.0);
        dense::mirror(&mut sums, w);
        sums
    }

    /// sigma^2 L_X^-T D L_X^-1 in the user's columns.
    fn unwhiten(&self, lx: &[f64], d: &mut [f64], sigma: f64) -> Vec<f64> {
        let p = self.m().p();
        dense::solve_left_lt(lx, p, p, d, p, p);
        dense::solve_right_l(lx, p, p, d, p, p);
        d.iter_mut().for_each(|v| *v *= sigma * sigma);
        user_matrix(self.m(), d)
    }

    /// Variance of x'beta_hat + z'(b_hat - b) of new rows, given theta and sigma. Terms with code -1 contribute nothing.
    pub fn prediction_variance(
        &self,
        n: usize,
        fixed: &[crate::design::Block<'_>],
        terms: &[Option<(Codes<'_>, Vec<crate::design::Block<'_>>)>],
    ) -> Result<Vec<f64>, CoreError> {
        let m = self.m();
        if n > u32::MAX as usize {
            return shape("more than 2^32 - 1 rows");
        }
        if fixed.iter().map(|b| b.cols).sum::<usize>() != m.user_columns() || terms.len() != m.n_terms {
            return shape("new rows have other columns or terms than the model");
        }
        for b in fixed {
            b.check(n, "fixed block")?;
        }
        let (wide, dense): (Vec<&Block<'_>>, Vec<&Block<'_>>) = fixed.iter().partition(|b| b.is_wide());
        if dense.iter().map(|b| b.cols).sum::<usize>() != m.p_total
            || wide.len() != m.wide.len()
            || wide.iter().zip(&m.wide).any(|(b, w)| b.levels != w.levels)
        {
            return shape("new rows have other columns than the model");
        }
        let wide: Vec<Codes<'_>> = wide.iter().filter_map(|b| b.codes).collect();
        let x = |i: usize| {
            let mut all: Vec<f64> = Vec::with_capacity(m.p_total);
            for b in &dense {
                all.extend((0..b.cols).map(|c| b.value(i, c)));
            }
            if m.carrier.is_some() {
                all.iter_mut().zip(&m.x_shift).for_each(|(v, s)| *v -= s);
            }
            m.kept.iter().map(|&j| all[j]).collect::<Vec<f64>>()
        };
        self.row_variances(n, &x, &wide, terms)
    }

    /// The same with rows of the internal fixed design given by a function, and the levels of wide factors.
    pub(crate) fn row_variances(
        &self,
        n: usize,
        x: &(dyn Fn(usize) -> Vec<f64> + Sync),
        wide: &[Codes<'_>],
        terms: &[Option<(Codes<'_>, Vec<crate::design::Block<'_>>)>],
    ) -> Result<Vec<f64>, CoreError> {
        let state = self.state()?;
        let m = self.m();
        if terms.len() != m.n_terms {
            return shape("new rows have other terms than the model");
        }
        for (t, term) in terms.iter().enumerate() {
            if let Some((codes, blocks)) = term {
                let (f, s) = self.slots()[t];
                let k: usize = blocks.iter().map(|b| b.cols).sum();
                if codes.len() != n || codes.range().1 >= m.factors[f].levels as i32 || k != s.cols {
                    return shape(format!("random term {t}: codes or columns do not fit the model"));
                }
                for b in blocks {
                    b.check(n, "random block")?;
                }
            }
        }
        let chunks: Vec<(usize, usize)> = (0..n).step_by(256).map(|a| (a, (a + 256).min(n))).collect();
        let tail = self.lmm.numeric.tail_for(&self.lmm.symbolic, n);
        let rows = |r| self.variance_rows(state, tail.as_ref(), r, x, wide, terms);
        let parts: Vec<Vec<f64>> = chunks.into_par_iter().map(rows).collect::<Result<_, _>>()?;
        Ok(parts.into_iter().flatten().collect())
    }

    fn variance_rows(
        &self,
        state: &State,
        tail: Option<&Tail>,
        (from, to): (usize, usize),
        x: &(dyn Fn(usize) -> Vec<f64> + Sync),
        wide: &[Codes<'_>],
        terms: &[Option<(Codes<'_>, Vec<crate::design::Block<'_>>)>],
    ) -> Result<Vec<f64>, CoreError> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        let p = m.p();
        let slots = self.slots();
        let mut solver = self.lmm.numeric.row_solver(sym, tail);
        let mut out = Vec::with_capacity(to - from);
        let mut z = vec![];
        for i in from..to {
            self.lmm.numeric.stop.check()?;
            let mut x = x(i);
            for (t, term) in terms.iter().enumerate() {
                let Some((codes, blocks)) = term else {
                    continue;
                };
                let code = codes.get(i);
                if code < 0 {
                    continue;
                }
                let (f, s) = slots[t];
                let kf = m.factors[f].cols;
                z.clear();
                for b in blocks {
                    z.extend((0..b.cols).map(|c| b.value(i, c)));
                }
                if let Some(c) = s.carrier {
                    let one = z[c];
                    z.iter_mut().zip(&s.shift).for_each(|(v, s)| *v -= s * one);
                }
                let pos = sym.position[sym.base[f] as usize + code as usize] as usize;
                let add: Vec<f64> = (0..s.cols)
                    .map(|c| (0..s.cols).map(|r| state.lambda[f][s.offset + r + (s.offset + c) * kf] * z[r]).sum())
                    .collect();
                solver.add(pos, s.offset, &add);
            }
            for (codes, w) in wide.iter().zip(&m.wide) {
                let level = codes.get(i) as usize;
                if level >= w.base && w.aliased.binary_search(&(level as u32)).is_err() {
                    solver.add(sym.position[sym.base[w.factor] as usize + level] as usize, 0, &[1.0]);
                }
            }
            let w2 = solver.run(&state.solution.f, p + 1, &mut x);
            dense::solve_left_l(&state.solution.lx, p, p, &mut x, 1, p);
            out.push(state.sigma * state.sigma * (w2 + dot(&x, &x)));
        }
        Ok(out)
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

/// b_internal = M b_user: the carrier takes up what the shifts took off.
fn to_internal(s: &TermSlot, b: &mut [f64]) {
    if let Some(c) = s.carrier {
        let extra: f64 = (0..b.len()).filter(|&j| j != c).map(|j| s.shift[j] * b[j]).sum();
        b[c] += extra;
    }
}

fn to_user(s: &TermSlot, b: &mut [f64]) {
    if let Some(c) = s.carrier {
        let extra: f64 = (0..b.len()).filter(|&j| j != c).map(|j| s.shift[j] * b[j]).sum();
        b[c] -= extra;
    }
}

/// Coefficients of all columns; dropped ones are NaN.
pub(crate) fn user_beta(m: &Moments, beta: &[f64]) -> Vec<f64> {
    let mut out = vec![f64::NAN; m.p_total];
    for (&j, &b) in m.kept.iter().zip(beta) {
        out[j] = b;
    }
    if let Some(c) = &m.carrier {
        let extra: f64 = m.kept.iter().zip(beta).map(|(&j, b)| m.x_shift[j] * b).sum();
        for (o, c) in out.iter_mut().zip(c) {
            if *c != 0.0 {
                *o += c * (m.y_shift - extra);
            }
        }
    }
    out
}

pub(crate) fn user_vcov(m: &Moments, lx: &[f64], sigma: f64) -> Vec<f64> {
    let p = m.p();
    let mut v = dense::inverse_from_cholesky(lx, p, p);
    v.iter_mut().for_each(|v| *v *= sigma * sigma);
    user_matrix(m, &v)
}

/// B V B' for a covariance of the kept shifted columns, spread over all columns.
pub(crate) fn user_matrix(m: &Moments, v: &[f64]) -> Vec<f64> {
    let (p, pt) = (m.p(), m.p_total);
    let mut v = v.to_vec();
    if let Some(c) = &m.carrier {
        let carrier: Vec<f64> = m.kept.iter().map(|&j| c[j]).collect();
        let shift: Vec<f64> = m.kept.iter().map(|&j| m.x_shift[j]).collect();
        for col in v.chunks_exact_mut(p.max(1)) {
            let t = dot(&shift, col);
            col.iter_mut().zip(&carrier).for_each(|(o, c)| *o -= c * t);
        }
        for i in 0..p {
            let t: f64 = (0..p).map(|j| shift[j] * v[i + j * p]).sum();
            for j in 0..p {
                v[i + j * p] -= carrier[j] * t;
            }
        }
    }
    let mut out = vec![f64::NAN; pt * pt];
    for (b, &j) in m.kept.iter().enumerate() {
        for (a, &i) in m.kept.iter().enumerate() {
            out[i + j * pt] = v[a + b * p];
        }
    }
    out
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
