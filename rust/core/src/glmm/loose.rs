//! Free covariances of effects with a row or two each: a search that does not end below Toeplitz correlations.
//!
//! There the deviance has optima on several faces of the cone of covariances, and from the usual start, which has no
//! correlations, the search may end on a poor one. Toeplitz correlations are a smooth way between faces that holds
//! autoregressive and equal ones; its optimum is tried as another start.

use crate::design::{Structure, TermSlot};
use crate::optimise::{Options, Outcome};
use crate::structure::Pattern;
use crate::CoreError;

use super::candidates;
use super::fit::{self, Method, Start};
use super::laplace::Engine;
use super::nested;
use super::rows::GlmmRows;
use super::search::{self, First, Found, Target};

/// Columns of such terms: of two there is one correlation, and of many the way through Toeplitz ones is long.
const COLUMNS: std::ops::RangeInclusive<usize> = 3..=6;
/// Levels a parameter of the covariance from which they say enough for one optimum.
const ENOUGH: usize = 5;

/// The better of what is found and what the search leads to from Toeplitz correlations, for every loose term that ended
/// on a face or before an optimum; `first` are the coefficients (the user's) that all searches begin with.
pub fn not_below_toeplitz(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    (first, method): (&[f64], Method),
    mut found: Found,
    options: &Options,
) -> Result<Found, CoreError> {
    let units = crate::optimise::units(e.moments());
    for term in loose(e, rows, &found) {
        let Some((beta, theta)) = toeplitz(e, rows, term, (first, method), options)? else { continue };
        let Ok((lambda, shape)) = e.covariance_at(&theta) else { continue };
        let deviance = found.point.deviance - nested::BETTER;
        let target = Some(Target { deviance, end: Some(&found.point) });
        let from = First { beta: &e.plan.internal_beta(&beta), lambda: &lambda, shape: &shape, target };
        match search::minimise(e, rows, &units, &from, options) {
            Ok(next) if nested::leads_further(&next, &found) => found = next,
            Err(CoreError::Interrupted) => return Err(CoreError::Interrupted),
            _ => {}
        }
        search::settled(e, rows, &found.point)?;
    }
    Ok(found)
}

/// Terms with a free covariance and a row or two an effect that ended before an optimum, or on a face with few levels.
fn loose(e: &Engine, rows: &GlmmRows<'_>, found: &Found) -> Vec<usize> {
    if !e.priors.is_empty() || e.jeffreys || !e.constraint.is_empty() {
        return vec![];
    }
    let is_loose = |f: usize, s: &TermSlot| {
        let on_a_face = found.boundary.iter().any(|b| b.term == s.term);
        let few = e.moments().factors[f].levels < ENOUGH * s.cols * (s.cols + 1) / 2;
        s.structure == Structure::Unstructured
            && COLUMNS.contains(&s.cols)
            && (found.outcome != Outcome::Converged || (on_a_face && few))
            && candidates::few_rows(e, rows, &(f, s.offset..s.offset + s.cols))
    };
    let factors = e.moments().factors.iter().enumerate();
    factors.flat_map(|(f, x)| x.slots.iter().filter(move |s| is_loose(f, s))).map(|s| s.term).collect()
}

/// Coefficients and theta (the user's) of the best with Toeplitz correlations in one term, if there is one.
#[allow(clippy::type_complexity)]
fn toeplitz(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    term: usize,
    (first, method): (&[f64], Method),
    options: &Options,
) -> Result<Option<(Vec<f64>, Vec<f64>)>, CoreError> {
    let mut smaller = rows.clone();
    let k = smaller.terms[term].blocks.iter().map(|b| b.cols).sum();
    smaller.terms[term].structure = Structure::Patterned;
    smaller.patterns.resize(rows.terms.len(), None);
    smaller.patterns[term] = Some(Pattern::new("toep", k, &[], vec![])?);
    let mut inner = Engine::new(&smaller, e.family.clone())?;
    inner.heed(&options.stop);
    inner.set_method(method)?;
    let usual = inner.plan.internal_beta(first);
    let (beta, scores) = inner.start_beta(&smaller, &usual, false);
    let best = fit::found_from(&mut inner, &smaller, (&beta, &scores, &usual), &Start::default(), options);
    e.evaluations += inner.evaluations;
    e.inner += inner.inner;
    let best = match best {
        Ok(best) => best,
        Err(CoreError::Interrupted) => return Err(CoreError::Interrupted),
        Err(_) => return Ok(None),
    };
    // The parameters of the other structures follow theta in the order of the terms.
    let mut theta = e.model.theta_of(&inner.model.term_lambda(&best.point.lambda));
    inner.patterns.iter().filter(|p| p.term != term).for_each(|p| theta.extend(p.theta(&best.point.shape)));
    Ok(Some((inner.plan.user_beta(&best.point.beta), theta)))
}
