//! A search that does not end below the models inside the model, nor at a limit without a look inside.
//!
//! A structure with a standard deviation for every column holds the one with a common standard deviation; nearly every
//! structure of correlations ends in the model where all columns of a term share one effect; Toeplitz correlations hold
//! equal and autoregressive ones, the Matern correlation of a free smoothness the exponential one. The larger model may
//! have several optima, some below those of the smaller ones, and a limit may be one of them. So these are tried once
//! the search has ended: a trial is given up as soon as its quadratic model sees that it leads nowhere, and gone on
//! from, in the larger model, where it leads further.

use crate::optimise::{self, invert, mul, slot_block, Options, Outcome};
use crate::structure::{Kind, Pattern};
use crate::CoreError;

use super::candidates::{self, Candidate, Ranked};
use super::constraint::Constraint;
use super::faces::{self, SMALL};
use super::laplace::Engine;
use super::patterns::{self, Patterned};
use super::rows::{self, GlmmRows};
use super::search::{self, First, Found, Residual, Target};

/// Deviance that a trial must gain to be worth its while.
pub const BETTER: f64 = 1e-6;
/// Rows up to which searches begin at places that nothing speaks for.
const FEW: usize = 500;
/// Ratio of units from which those of the start are not those of the end.
const GROWN: f64 = 10.0;
/// Deviance up to which a point beside another face is tried from an optimum inside.
const NEARBY: f64 = 20.0;
/// Deviance that the sign of the largest loading makes, where it is not two standard errors from none.
const UNSURE: f64 = 4.0;
/// Difference of the logarithms of two rows' residual standard deviations from which the larger may be the smaller.
const UNEVEN: f64 = 0.3;

/// A search and what it is for.
#[derive(Clone, Copy)]
struct Task<'a, 'r> {
    rows: &'a GlmmRows<'r>,
    units: &'a [Vec<Vec<f64>>],
    from: &'a First<'a>,
    /// Coefficients before they were bettered in the model without random effects.
    usual: &'a [f64],
    /// Where to begin, the best first; `from` where there is none.
    starts: &'a [Candidate],
    /// Whether all of them may be needed.
    traded: bool,
    options: &'a Options,
    /// Whether this is a smaller model on the way to a larger one.
    nested: bool,
}

/// Minimise the deviance from the first of the starts (else `from`), and see to it that no nested model is better; `usual`
/// are the coefficients that the moments of the response say.
pub fn minimise(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    (from, usual): (&First<'_>, &[f64]),
    ranked: &Ranked,
    options: &Options,
) -> Result<Found, CoreError> {
    Task { rows, units, from, usual, starts: &ranked.starts, traded: ranked.traded, options, nested: false }.best(e)
}

impl Task<'_, '_> {
    fn search(&self, e: &mut Engine, from: &First<'_>) -> Result<Found, CoreError> {
        search::minimise(e, self.rows, self.units, from, self.options)
    }

    fn best(&self, e: &mut Engine) -> Result<Found, CoreError> {
        let free: Vec<Patterned> = e.patterns.iter().filter(|p| !touched(p, &e.constraint)).cloned().collect();
        let mut found = match self.starts.first() {
            Some(c) => self.search(e, &c.first(None))?,
            None => self.search(e, self.from)?,
        };
        let before = e.evaluations;
        let looked = self.at_an_end(e, &free, &found);
        if looked {
            found = self.elsewhere(e, &free, found);
        }
        // What one term has found may open a way for another: the order of the terms decides nothing.
        for _ in 0..free.len().max(1) {
            let so_far = found.point.deviance;
            found = self.nested_models(e, &free, found)?;
            if !looked {
                found = self.all_inside(e, &free, found);
            }
            if e.priors.is_empty() && !self.nested {
                found = self.beside_faces(e, &free, found);
            }
            found = self.out_of_zero(e, &free, found);
            found = self.begun_afar(e, &free, found);
            if found.point.deviance > so_far - BETTER {
                break;
            }
        }
        found = self.with_all(e, found);
        found = self.following_others(e, found);
        found = self.without_residual(e, found);
        found = self.closer_to_zero(e, &free, found);
        if e.evaluations > before {
            search::settled(e, self.rows, &found.point)?;
        }
        self.in_units_of_the_end(e, found)
    }

    /// The same in units of what the rows say where the search has ended, if that is much more than where it began: what
    /// stood for a variance of zero may then be seen. The engine is at the optimum, before and after.
    fn in_units_of_the_end(&self, e: &mut Engine, found: Found) -> Result<Found, CoreError> {
        let units = optimise::units(e.moments());
        let own = |unit: &[f64]| -> Vec<f64> {
            let k = unit.len().isqrt();
            (0..k).map(|i| unit[i * (k + 1)]).collect()
        };
        let grown = |(now, then): (&Vec<f64>, &Vec<f64>)| own(now).iter().zip(own(then)).any(|(a, b)| *a > GROWN * b);
        let zero = !found.boundary.is_empty() && !given_up(&found);
        if self.nested || !zero || !units.iter().flatten().zip(self.units.iter().flatten()).any(grown) {
            return Ok(found);
        }
        let at = &found.point;
        let first = First { beta: &at.beta, lambda: &at.lambda, shape: &at.shape, target: None };
        let next = search::minimise(e, self.rows, &units, &first, self.options);
        if let Some(next) = next.ok().filter(|next| leads_further(next, &found)) {
            return Ok(next);
        }
        search::settled(e, self.rows, &found.point)?;
        Ok(found)
    }

    /// The best of the models inside the structures, term by term.
    fn nested_models(&self, e: &mut Engine, free: &[Patterned], mut found: Found) -> Result<Found, CoreError> {
        for p in free {
            for pattern in p.pattern.smaller() {
                if e.priors.is_empty() && !given_up(&found) {
                    let trial = self.smaller(e, p, pattern, &found);
                    found = self.better(e, found, trial)?;
                }
            }
            let shared = p.pattern.shared();
            let levels = e.moments().factors[p.factor].levels;
            if !shared.is_empty() && !is_shared(p, &shared, &found) && levels > 1 && !given_up(&found) {
                let trial = self.held(e, p, &shared, &found);
                found = self.better(e, found, trial)?;
            }
        }
        Ok(found)
    }

    /// Whether a search ended where another optimum may be better.
    fn at_an_end(&self, e: &Engine, free: &[Patterned], found: &Found) -> bool {
        self.traded || found.outcome != Outcome::Converged || free.iter().any(|p| self.ended(e, p, found))
    }

    /// The best of the other starts and of points inside, as long as what is found lies at an end.
    fn elsewhere(&self, e: &mut Engine, free: &[Patterned], mut found: Found) -> Found {
        for c in self.starts.iter().skip(1) {
            if self.at_an_end(e, free, &found) {
                found = self.again(e, c, found);
            }
        }
        self.all_inside(e, free, found)
    }

    /// The best of the points inside, term by term, where what is found lies at an end.
    fn all_inside(&self, e: &mut Engine, free: &[Patterned], mut found: Found) -> Found {
        for p in free {
            if self.ended(e, p, &found) {
                found = self.inside(e, p, &found).unwrap_or(found);
            }
        }
        found
    }

    /// The best of what lies beside other faces than what is found.
    fn beside_faces(&self, e: &mut Engine, free: &[Patterned], mut found: Found) -> Found {
        for p in free {
            let mut from = self.others(e, p, &found);
            while let Some(next) = from.pop() {
                if let Some(next) =
                    self.search(e, &next.first(goal(&found))).ok().filter(|next| leads_further(next, &found))
                {
                    found = next;
                    from = self.others(e, p, &found);
                }
            }
        }
        found
    }

    /// The best from places that nothing speaks for, in data so small that optima lie anywhere and a search costs little.
    fn begun_afar(&self, e: &mut Engine, free: &[Patterned], mut found: Found) -> Found {
        if self.nested || self.rows.n > FEW || !e.priors.is_empty() {
            return found;
        }
        for p in free {
            for theta in faces::afar(&p.pattern, p.theta(self.from.shape)) {
                if given_up(&found) {
                    break;
                }
                let mut shape = found.point.shape.clone();
                shape[p.first..p.first + theta.len()].copy_from_slice(&theta);
                let beta = self.revived(e, &found);
                let from = First { beta: &beta, lambda: &found.point.lambda, shape: &shape, target: goal(&found) };
                found = self.search(e, &from).ok().filter(|next| leads_further(next, &found)).unwrap_or(found);
            }
        }
        found
    }

    /// Where to begin beside other faces of a term, the most promising last: all of them where the search has ended on one,
    /// else those that are not far above what is found. Loadings of which one is sure have no others.
    fn others(&self, e: &mut Engine, p: &Patterned, found: &Found) -> Vec<Candidate> {
        if given_up(found) {
            return vec![];
        }
        let (beta, lambda) = (self.revived(e, found), found.point.lambda.clone());
        let at = |theta: Vec<f64>| {
            let mut shape = found.point.shape.clone();
            shape[p.first..p.first + theta.len()].copy_from_slice(&theta);
            Candidate { beta: beta.clone(), lambda: lambda.clone(), shape, deviance: f64::INFINITY }
        };
        let (here, usual) = (p.theta(&found.point.shape), p.theta(self.from.shape));
        let mut all: Vec<Candidate> = faces::others(&p.pattern, here, usual).into_iter().map(at).collect();
        if let Some(first) = all.first_mut().filter(|_| p.pattern.is_loadings()) {
            first.deviance = candidates::deviance(e, self.rows, self.units, first);
            if !(first.deviance < found.point.deviance + UNSURE) {
                return vec![];
            }
        }
        if !self.ended(e, p, found) {
            candidates::sort(e, self.rows, self.units, &mut all);
            all.retain(|c| c.deviance < found.point.deviance + NEARBY);
            all.reverse();
        }
        let slightly = faces::slightly_related(&p.pattern, here).map(at);
        all.extend(slightly.filter(|c| self.deviance_at(e, found, &c.shape).is_some_and(|d| d < found.point.deviance)));
        all
    }

    /// The deviance with other parameters of the structures than those found.
    fn deviance_at(&self, e: &mut Engine, found: &Found, shape: &[f64]) -> Option<f64> {
        let mut at = found.point.clone();
        at.shape = shape.to_vec();
        patterns::put(e.moments(), &e.patterns, shape, &mut at.lambda).ok()?;
        search::settled(e, self.rows, &at).ok().map(|there| there.deviance)
    }

    /// The best beside effects of no variance: their correlations say nothing there, and with others the deviance may fall.
    fn out_of_zero(&self, e: &mut Engine, free: &[Patterned], mut found: Found) -> Found {
        for p in free {
            let none = found.boundary.iter().any(|b| b.term == p.term && b.rank == 0);
            if !none || given_up(&found) {
                continue;
            }
            let Some(slope) = self.slope_near_zero(e, p, &found) else { continue };
            let Some(theta) = faces::out_of_zero(e.moments(), p, self.from.shape, &slope) else { continue };
            let mut shape = found.point.shape.clone();
            shape[p.first..p.first + theta.len()].copy_from_slice(&theta);
            let (beta, lambda) = (&found.point.beta, &found.point.lambda);
            let first = First { beta, lambda, shape: &shape, target: goal(&found) };
            found = self.search(e, &first).ok().filter(|next| leads_further(next, &found)).unwrap_or(found);
        }
        found
    }

    /// d deviance / d Sigma of a term (k x k) next to no variance: with the usual correlations, as it is lost in rounding
    /// along those at a limit.
    fn slope_near_zero(&self, e: &mut Engine, p: &Patterned, found: &Found) -> Option<Vec<f64>> {
        let (k, d, mut shape) = (p.pattern.k, p.pattern.deviations(), found.point.shape.clone());
        for (i, usual) in p.theta(self.from.shape).iter().enumerate() {
            shape[p.first + i] = if i < d { usual + SMALL.ln() } else { *usual };
        }
        let mut lambda = found.point.lambda.clone();
        patterns::put(e.moments(), &e.patterns, &shape, &mut lambda).ok()?;
        let at = e.evaluate(self.rows, &found.point.beta, &lambda, &shape, &found.point.u).ok()?;
        let ld = e.moments().factors[p.factor].cols;
        let slope = e.slope(self.rows, &at);
        let inverse = invert(&slot_block(&lambda[p.factor], ld, p.offset, k), k);
        let half = mul(&slot_block(&slope.n[p.factor], ld, p.offset, k), &inverse, k, false);
        Some(mul(&inverse, &half, k, true))
    }

    /// The best beside one where a predictor beside the mean has run to a limit (no dispersion, no zero too many): there it
    /// is flat, and random effects, dispersion and zeros may explain the same rows. Predictors beside the mean begin as the
    /// moments of the response say; so do mean and effects where another such predictor and they explain what has gone. A
    /// residual that structures leave nothing is looked after elsewhere.
    fn with_all(&self, e: &mut Engine, found: Found) -> Found {
        let gone = self.gone(e, &found);
        if gone.is_empty() || given_up(&found) || Residual::of(e, self.rows).is_some() {
            return found;
        }
        let beside: Vec<usize> = (1..e.family.names().len()).flat_map(|k| e.plan.coefficients_of(k)).collect();
        let at = &found.point;
        let from = First { beta: &at.beta, lambda: &at.lambda, shape: &at.shape, target: None };
        let from = if beside.len() > gone.len() { First { target: None, ..*self.from } } else { from };
        let mut beta = from.beta.to_vec();
        beside.iter().for_each(|&j| beta[j] = self.usual[j]);
        let next = self.search(e, &First { beta: &beta, ..from });
        next.ok().filter(|next| leads_further(next, &found)).unwrap_or(found)
    }

    /// Coefficients of the predictors beside the mean that have run to a limit, where they are flat.
    fn gone(&self, e: &Engine, found: &Found) -> Vec<usize> {
        let beside = (1..e.family.names().len()).map(|k| e.plan.coefficients_of(k));
        beside.filter(|own| own.iter().all(|&j| found.unknown[j])).flatten().collect()
    }

    /// The best beside one where normal responses with large residuals have small ones and the others large: the mean
    /// follows the rows whose residuals are small, and more than one choice of these may be an optimum.
    fn following_others(&self, e: &mut Engine, found: Found) -> Found {
        if self.nested || given_up(&found) || !e.is_normal(self.rows) {
            return found;
        }
        let own = e.plan.coefficients_of(1);
        if own.len() < 2 {
            return found;
        }
        let (mut beta, mut predictors) = (found.point.beta.clone(), vec![]);
        rows::fixed_part(&e.plan, self.rows, &beta, &mut predictors);
        let sd = predictors.chunks_exact(e.plan.k).map(|row| row[1]);
        let (least, most) = sd.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if !(most - least > UNEVEN) {
            return found;
        }
        // The other side of one standard deviation for all, that of the response.
        own.iter().for_each(|&j| beta[j] = 2.0 * self.usual[j] - beta[j]);
        let first = First { beta: &beta, lambda: &found.point.lambda, shape: &found.point.shape, target: goal(&found) };
        let from = (&first, Some(&found.point.beta[..]));
        let next = search::elsewhere(e, self.rows, self.units, from, self.options);
        next.ok().filter(|next| leads_further(next, &found)).unwrap_or(found)
    }

    /// The same without the little that is left of a residual, where it is not missed.
    fn without_residual(&self, e: &mut Engine, found: Found) -> Found {
        let at = &found.point;
        let left = Residual::of(e, self.rows).filter(|r| r.is_little(&at.beta) && !r.is_zero(&at.beta));
        let Some(left) = left.filter(|_| found.outcome == Outcome::Converged) else { return found };
        let mut beta = at.beta.clone();
        left.drop(&mut beta);
        match self.search(e, &First { beta: &beta, lambda: &at.lambda, shape: &at.shape, target: None }) {
            Ok(next) if next.outcome == Outcome::Converged && next.point.deviance < at.deviance + BETTER => next,
            _ => found,
        }
    }

    /// The search from another start, given up where it cannot lead further; the usual one is seen to its end.
    fn again(&self, e: &mut Engine, at: &Candidate, found: Found) -> Found {
        let usual = at.shape == self.from.shape && at.beta == self.from.beta;
        let all = usual || given_up(&found);
        let target = goal(&found).filter(|_| !all);
        match self.search(e, &at.first(target)) {
            Ok(next) if leads_further(&next, &found) => next,
            _ => found,
        }
    }

    /// What is found from a trial, if it leads further.
    fn better(&self, e: &mut Engine, found: Found, trial: Option<Start>) -> Result<Found, CoreError> {
        let worth = |t: &Start| goal(&found).is_none_or(|goal| t.deviance < goal.deviance);
        match trial.filter(worth) {
            Some(t) => {
                let next = self.search(e, &t.first(self.from.target))?;
                Ok(if leads_further(&next, &found) { next } else { found })
            }
            None => Ok(found),
        }
    }

    /// Whether a term, or the residual beside it, lies at a limit, which may be one optimum of several.
    fn ended(&self, e: &Engine, p: &Patterned, found: &Found) -> bool {
        let none = || Residual::of(e, self.rows).is_some_and(|r| r.is_little(&found.point.beta));
        let limit =
            || found.boundary.iter().any(|b| b.term == p.term) || p.pattern.is_unrelated(p.theta(&found.point.shape));
        !given_up(found) && (limit() || none())
    }

    /// The model itself, from a point inside.
    fn inside(&self, e: &mut Engine, p: &Patterned, found: &Found) -> Option<Found> {
        let (beta, sd, correlation) = self.split(e, p, found);
        let mut shape = found.point.shape.clone();
        let theta = p.pattern.near(&sd, &correlation)?;
        shape[p.first..p.first + theta.len()].copy_from_slice(&theta);
        let target = goal(found);
        let from = First { beta: &beta, lambda: &found.point.lambda, shape: &shape, target };
        self.search(e, &from).ok().filter(|next| leads_further(next, found))
    }

    /// Coefficients, standard deviations and correlations of a term where a trial begins: those found inside; beside a
    /// limit those with nearly the same variances, for which half of the residual's is given to the columns of the
    /// term, or half of theirs to a residual that has none.
    fn split(&self, e: &Engine, p: &Patterned, found: &Found) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (k, sigma) = (p.pattern.k, self.covariance(e, p, found));
        let mut beta = found.point.beta.clone();
        // A structure that is given whole has no deviations to begin with.
        let usual = |i: usize| match p.pattern.deviations() {
            0 => sigma[i * (k + 1)].sqrt(),
            n => self.from.shape[p.first + i.min(n - 1)].exp(),
        };
        let residual = Residual::of(e, self.rows);
        let add: Vec<f64> = match &residual {
            _ if !self.ended(e, p, found) => vec![0.0; k],
            Some(r) if !r.is_little(&beta) => vec![0.5 * r.deviation(&beta).powi(2); k],
            Some(_) => (0..k).map(|i| -0.5 * sigma[i * (k + 1)]).collect(),
            None => (0..k).map(|i| sigma[i * (k + 1)].max(usual(i).powi(2))).collect(),
        };
        let each = add.iter().map(|a| a.abs()).sum::<f64>() / k as f64;
        if let Some(r) = residual.filter(|_| each > 0.0) {
            r.put(each.sqrt(), &mut beta);
        }
        let sd: Vec<f64> = (0..k).map(|i| (sigma[i * (k + 1)] + add[i]).sqrt().max(SMALL * usual(i))).collect();
        let correlation = (0..k * k).map(|t| sigma[t] / (sd[t % k] * sd[t / k])).collect();
        (beta, sd, correlation)
    }

    /// Sigma of a term (k x k).
    fn covariance(&self, e: &Engine, p: &Patterned, found: &Found) -> Vec<f64> {
        let ld = e.moments().factors[p.factor].cols;
        let l = slot_block(&found.point.lambda[p.factor], ld, p.offset, p.pattern.k);
        mul(&l, &transposed(&l, p.pattern.k), p.pattern.k, false)
    }

    /// The model with a smaller structure.
    fn smaller(&self, e: &mut Engine, p: &Patterned, pattern: Pattern, found: &Found) -> Option<Start> {
        let after = p.first + p.pattern.parameters();
        let (less, more) = (pattern.parameters(), p.pattern.parameters());
        let (own, constraint) = (e.patterns.clone(), e.constraint.clone());
        let target = goal(found).map(|goal| Target { end: None, ..goal });
        let (beta, sd, correlation) = self.split(e, p, found);
        let own_start = First { target, ..*self.from };
        let next_to = First { beta: &beta, lambda: &found.point.lambda, shape: &found.point.shape, target };
        // A smoothness says so much about the range that the one found beside it is no start without it.
        let elsewhere = p.pattern.kind == Kind::Matern || self.ended(e, p, found);
        let (at, theta) = if elsewhere {
            let last = p.pattern.deviations() - 1;
            let sd: Vec<f64> = (0..p.pattern.k).map(|i| self.from.shape[p.first + i.min(last)].exp()).collect();
            (own_start, pattern.start(&sd))
        } else {
            (next_to, pattern.near(&sd, &correlation)?)
        };
        let mut shape = at.shape[..p.first].to_vec();
        shape.extend(theta);
        shape.extend(&at.shape[after..]);
        let place: Vec<usize> =
            (0..self.from.shape.len()).map(|i| if i < after { i } else { i + less - more }).collect();
        for q in &mut e.patterns {
            q.first = place[q.first];
            if q.term == p.term {
                q.pattern = pattern.clone();
            }
        }
        e.constraint = constraint.moved(&place);
        let from = First { shape: &shape, ..at };
        let out = Task { from: &from, starts: &[], traded: false, nested: true, ..*self }.best(e);
        (e.patterns, e.constraint) = (own, constraint);
        let out = out.ok()?;
        let theta = &out.point.shape;
        let mut shape = theta[..p.first].to_vec();
        shape.extend(p.pattern.embed(&pattern, &theta[p.first..p.first + less]));
        shape.extend(&theta[p.first + less..]);
        Some(Start::new(&out, shape))
    }

    /// The model with parameters of a term held.
    fn held(&self, e: &mut Engine, p: &Patterned, held: &[(usize, f64)], found: &Found) -> Option<Start> {
        let own = e.constraint.clone();
        e.constraint.held.extend(held.iter().map(|&(j, v)| (p.first + j, v)));
        let shape = self.awake(&found.point.shape, p);
        let from =
            First { beta: &self.revived(e, found), lambda: &found.point.lambda, shape: &shape, target: goal(found) };
        let out = self.search(e, &from);
        e.constraint = own;
        let out = out.ok()?;
        let shape = out.point.shape.clone();
        Some(Start::new(&out, shape))
    }

    /// Coefficients of a search that begins elsewhere: a residual that is left nothing is that of the start, and so are
    /// predictors that have run to a limit, as nothing leads back from there.
    fn revived(&self, e: &Engine, found: &Found) -> Vec<f64> {
        let mut out = found.point.beta.clone();
        if let Some(r) = Residual::of(e, self.rows).filter(|r| r.is_little(&out)) {
            out[r.at] = self.from.beta[r.at];
        }
        self.gone(e, found).into_iter().for_each(|j| out[j] = self.usual[j]);
        out
    }

    /// The same where standard deviations of zero are nearer to it: beside a large one the floor of the search is no zero.
    fn closer_to_zero(&self, e: &mut Engine, free: &[Patterned], found: Found) -> Found {
        let at = &found.point;
        let rough = patterns::rests_too_high(e.moments(), free, self.units, self.from.shape, &at.shape);
        if !rough || found.outcome != Outcome::Converged {
            return found;
        }
        let first = First { beta: &at.beta, lambda: &at.lambda, shape: &at.shape, target: None };
        self.search(e, &first).ok().filter(|next| leads_further(next, &found)).unwrap_or(found)
    }

    /// Parameters of a search that begins elsewhere: standard deviations that have gone to zero are those of the start.
    fn awake(&self, shape: &[f64], p: &Patterned) -> Vec<f64> {
        let mut out = shape.to_vec();
        for i in p.first..p.first + p.pattern.deviations() {
            if out[i] < self.from.shape[i] + SMALL.ln() {
                out[i] = self.from.shape[i];
            }
        }
        out
    }
}

/// Where a search in the larger model begins.
struct Start {
    beta: Vec<f64>,
    lambda: Vec<Vec<f64>>,
    shape: Vec<f64>,
    deviance: f64,
}

impl Start {
    fn new(found: &Found, shape: Vec<f64>) -> Self {
        let at = &found.point;
        Start { beta: at.beta.clone(), lambda: at.lambda.clone(), shape, deviance: at.deviance }
    }

    fn first<'a>(&'a self, target: Option<Target<'a>>) -> First<'a> {
        First { beta: &self.beta, lambda: &self.lambda, shape: &self.shape, target }
    }
}

/// What another search must reach to lead further; any optimum does where the likelihood has no bound.
fn goal(found: &Found) -> Option<Target<'_>> {
    let deviance = found.point.deviance - BETTER;
    (found.outcome != Outcome::Unbounded).then_some(Target { deviance, end: Some(&found.point) })
}

/// Whether a search has ended before an optimum.
fn given_up(found: &Found) -> bool {
    matches!(found.outcome, Outcome::MaxEvaluations | Outcome::FlatMode)
}

/// Whether another end is better: by the deviance, but an optimum before a likelihood without bound or without a mode.
pub fn leads_further(next: &Found, found: &Found) -> bool {
    match (next.outcome, found.outcome) {
        (Outcome::Unbounded | Outcome::FlatMode, Outcome::Converged) => false,
        (Outcome::Converged, Outcome::Unbounded) => true,
        _ => next.point.deviance < found.point.deviance - BETTER,
    }
}

/// Whether a term has ended where all its columns share one effect: with the parameters `held` that make it so, or others
/// that do.
fn is_shared(p: &Patterned, held: &[(usize, f64)], found: &Found) -> bool {
    let theta = p.theta(&found.point.shape);
    let opposite = held.iter().any(|&(j, v)| theta[j] * v < 0.0);
    !opposite && found.boundary.iter().any(|b| b.term == p.term && b.rank == 1)
}

/// Whether parameters of a term are held or tied.
fn touched(p: &Patterned, constraint: &Constraint) -> bool {
    let own = p.first..p.first + p.pattern.parameters();
    constraint.held.iter().any(|(i, _)| own.contains(i)) || constraint.tied.iter().flatten().any(|i| own.contains(i))
}

fn transposed(a: &[f64], k: usize) -> Vec<f64> {
    (0..k * k).map(|t| a[t / k + t % k * k]).collect()
}
