//! Where a search over covariance structures may begin: what the scores of the random effects say, for several shares of
//! the variance left to the residual.
//!
//! With s = Z'(-D1) and G = Z'D2Z of a fit without random effects, E[s s'] = c G + G Sigma G, c the residual variance as
//! a share of that fit's (1 where there is none). Products of scores give Sigma for every c, `Pattern::near` the
//! parameters closest to it, and one evaluation of the deviance its rank among the others. The structures of one model
//! trade their diagonal against the residual, so the deviance has several optima along c more often than across it. So
//! does the dispersion of any other family where effects have few rows each; there c is the share of the information
//! that the rows lose.

use crate::optimise;

use super::laplace::Engine;
use super::patterns::{self, Patterned};
use super::rows::GlmmRows;
use super::search::{First, Residual, Target};
use super::start;

/// What is begun from: shares left to a residual, and of a correlation of 1 instead of that which the scores say.
const CHOICES: [(f64, f64); 5] = [(0.05, 0.0), (0.3, 0.0), (0.6, 0.0), (0.9, 0.0), (0.6, 0.9)];
/// What is left to a dispersion that the effects explain: none of it may be an optimum of its own, which steps from further
/// away do not find.
const NEXT_TO_NONE: (f64, f64) = (1e-3, 0.0);
/// Tolerance of the modes there.
const ROUGH: f64 = 1e-2;
/// Smallest standard deviation, as a share of the usual start's.
const SMALL: f64 = 0.3;

/// Effects that leave all the variance to a dispersion, as a share of the usual start's.
const HARDLY: f64 = 0.1;

/// Rows of an effect from which they say what is dispersion and what is not.
const ROWS: usize = 2;
/// Least change of the logarithm of the information by that of the dispersion, and most change of the latter.
const WEAK: f64 = 0.1;
const MOST: f64 = 10.0;

/// A place to begin, and its deviance.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub beta: Vec<f64>,
    pub lambda: Vec<Vec<f64>>,
    pub shape: Vec<f64>,
    pub deviance: f64,
}

impl Candidate {
    pub fn first<'a>(&'a self, target: Option<Target<'a>>) -> First<'a> {
        First { beta: &self.beta, lambda: &self.lambda, shape: &self.shape, target }
    }
}

/// Places to begin, the best first.
pub struct Ranked {
    pub starts: Vec<Candidate>,
    /// Whether effects trade with a dispersion: then the best start need not lead to the best end.
    pub traded: bool,
}

/// The usual start and what the scores add to it; only the usual one, not evaluated, where no term has a structure with
/// free parameters and none trades its variance with a dispersion.
pub fn ranked(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    from: &First<'_>,
    scores: &[Vec<f64>],
) -> Ranked {
    let (beta, lambda, shape) = (from.beta.to_vec(), from.lambda.to_vec(), from.shape.to_vec());
    let mut out = vec![Candidate { beta, lambda, shape, deviance: f64::INFINITY }];
    let terms: Vec<Patterned> = e.patterns.iter().filter(|p| p.pattern.deviations() > 0).cloned().collect();
    let traded = if terms.is_empty() {
        add_smaller_dispersions(e, rows, from, scores, &mut out)
    } else {
        add_suggested(e, rows, from, scores, &terms, &mut out)
    };
    sort(e, rows, units, &mut out);
    Ranked { starts: out, traded }
}

/// Starts of a model with structures: every share of the residual says what is left to all of them, so that the order of
/// the terms decides nothing. Whether a structure trades with a dispersion.
fn add_suggested(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    from: &First<'_>,
    scores: &[Vec<f64>],
    terms: &[Patterned],
    out: &mut Vec<Candidate>,
) -> bool {
    let noise = terms.iter().find_map(|p| Noise::beside(e, rows, p, from.beta));
    if noise.is_none() && !terms.iter().any(correlated) {
        return false;
    }
    let choices = noise.as_ref().map_or_else(|| vec![(1.0, 0.0)], Noise::choices);
    for (share, one) in &choices {
        let mut next = out[0].clone();
        for p in terms {
            if let Some(theta) = suggested(e, p, from.shape, &scores[p.factor], *share, *one) {
                next.shape[p.first..p.first + theta.len()].copy_from_slice(&theta);
            }
        }
        if let Some(noise) = &noise {
            noise.put(e, *share, from.beta, &mut next.beta);
        }
        e.constraint.impose(&mut next.shape);
        out.push(next);
    }
    let traded = matches!(noise, Some(Noise::Dispersion(..)));
    if traded {
        let mut next = out[0].clone();
        for p in terms {
            next.shape[p.first..p.first + p.pattern.deviations()].iter_mut().for_each(|s| *s += HARDLY.ln());
        }
        e.constraint.impose(&mut next.shape);
        out.push(next);
    }
    traded
}

/// Starts of a model without structures, whose effects trade with a dispersion; whether they do.
fn add_smaller_dispersions(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    from: &First<'_>,
    scores: &[Vec<f64>],
    out: &mut Vec<Candidate>,
) -> bool {
    let factors = &e.moments().factors;
    let free = |f: &usize| factors[*f].slots.iter().all(|s| e.patterns.iter().all(|p| p.term != s.term));
    let all: Vec<usize> = (0..factors.len()).filter(free).collect();
    let Some(noise) =
        all.iter().find_map(|&f| Noise::dispersion(e, rows, (f, 0..e.moments().factors[f].cols), from.beta))
    else {
        return false;
    };
    for (share, _) in noise.choices().into_iter().filter(|c| c.1 == 0.0) {
        let mut next = Candidate { deviance: f64::INFINITY, ..out[0].clone() };
        next.lambda = start::variances(e.moments(), scores, share);
        noise.put(e, share, from.beta, &mut next.beta);
        out.push(next);
    }
    let mut next = out[0].clone();
    next.lambda.iter_mut().flatten().for_each(|l| *l *= HARDLY);
    out.push(next);
    true
}

/// The best first, if there are several.
pub fn sort(e: &mut Engine, rows: &GlmmRows<'_>, units: &[Vec<Vec<f64>>], out: &mut [Candidate]) {
    if out.len() > 1 {
        for c in out.iter_mut().filter(|c| c.deviance.is_infinite()) {
            c.deviance = deviance(e, rows, units, c);
        }
        out.sort_by(|a, b| a.deviance.total_cmp(&b.deviance));
    }
}

/// What a structure may trade its diagonal against.
enum Noise {
    Residual(Residual),
    /// The constant of the dispersion's predictor (the user's column), and d log information / d constant.
    Dispersion(usize, f64),
}

impl Noise {
    fn beside(e: &mut Engine, rows: &GlmmRows<'_>, p: &Patterned, beta: &[f64]) -> Option<Noise> {
        match Residual::of(e, rows) {
            Some(r) => Some(Noise::Residual(r)),
            None => Noise::dispersion(e, rows, (p.factor, p.offset..p.offset + p.pattern.k), beta),
        }
    }

    fn dispersion(e: &mut Engine, rows: &GlmmRows<'_>, columns: Columns, beta: &[f64]) -> Option<Noise> {
        let constant = dispersion_constant(e, rows).filter(|_| few_rows(e, rows, &columns))?;
        let now = information(e, &columns);
        e.start_weights(rows, &shifted(e, beta, constant, 1.0));
        let then = information(e, &columns);
        e.start_weights(rows, beta);
        let slope = (then / now).ln();
        (slope.abs() > WEAK).then_some(Noise::Dispersion(constant, slope))
    }

    fn choices(&self) -> Vec<(f64, f64)> {
        let none = matches!(self, Noise::Dispersion(..)).then_some(NEXT_TO_NONE);
        CHOICES.into_iter().chain(none).collect()
    }

    /// Leave a share of the variance at `usual` to the rows.
    fn put(&self, e: &Engine, share: f64, usual: &[f64], beta: &mut Vec<f64>) {
        match self {
            Noise::Residual(r) => r.put(share.sqrt() * r.deviation(usual), beta),
            Noise::Dispersion(at, slope) => *beta = shifted(e, beta, *at, (-share.ln() / slope).clamp(-MOST, MOST)),
        }
    }
}

/// The user's column of the constant of a dispersion.
fn dispersion_constant(e: &Engine, rows: &GlmmRows<'_>) -> Option<usize> {
    let component = rows.components.get(1).filter(|_| e.family.names().get(1) == Some(&"dispersion"))?;
    let first = component.fixed.iter().find(|f| f.block.is_intercept())?.first;
    (!e.plan.dropped.contains(&first)).then_some(first)
}

/// Columns of a factor.
pub type Columns = (usize, std::ops::Range<usize>);

/// Whether most effects have a row or two.
pub fn few_rows(e: &Engine, rows: &GlmmRows<'_>, columns: &Columns) -> bool {
    rows.n < ROWS * grams(e, columns).filter(|g| *g > 0.0).count()
}

/// What the rows say of the effects, in all.
fn information(e: &Engine, columns: &Columns) -> f64 {
    grams(e, columns).sum()
}

fn grams<'a>(e: &'a Engine, (factor, columns): &'a Columns) -> impl Iterator<Item = f64> + 'a {
    let factor = &e.moments().factors[*factor];
    let ld = factor.cols;
    factor.gram.chunks_exact(ld * ld).flat_map(move |g| columns.clone().map(move |c| g[c * (ld + 1)]))
}

/// Coefficients with one of the user's changed.
fn shifted(e: &Engine, beta: &[f64], at: usize, by: f64) -> Vec<f64> {
    let mut user = e.plan.user_beta(beta);
    user[at] += by;
    e.plan.internal_beta(&user)
}

/// Whether a structure has correlations to be found.
fn correlated(p: &Patterned) -> bool {
    p.pattern.deviations() > 0 && p.pattern.parameters() > p.pattern.deviations()
}

/// Parameters of a structure near what the scores say.
fn suggested(e: &Engine, p: &Patterned, shape: &[f64], scores: &[f64], share: f64, one: f64) -> Option<Vec<f64>> {
    let k = p.pattern.k;
    let sigma = start::covariance(e.moments(), p, scores, share);
    let usual = |i: usize| SMALL * shape[p.first + i.min(p.pattern.deviations() - 1)].exp();
    let sd: Vec<f64> = (0..k).map(|i| sigma[i * (k + 1)].max(0.0).sqrt().max(usual(i))).collect();
    let correlation: Vec<f64> =
        (0..k * k).map(|t| (1.0 - one) * (sigma[t] / (sd[t % k] * sd[t / k])).clamp(-1.0, 1.0) + one).collect();
    p.pattern.near(&sd, &correlation)
}

/// The deviance of a place to begin, roughly.
pub fn deviance(e: &mut Engine, rows: &GlmmRows<'_>, units: &[Vec<Vec<f64>>], at: &Candidate) -> f64 {
    let zero = vec![0.0; e.size()];
    let mut lambda = optimise::clip_all(e.moments(), units, &at.lambda, false).0;
    e.tolerance = ROUGH;
    match patterns::put(e.moments(), &e.patterns, &at.shape, &mut lambda)
        .and_then(|()| e.evaluate(rows, &at.beta, &lambda, &at.shape, &zero))
    {
        Ok(point) => point.deviance,
        Err(_) => f64::INFINITY,
    }
}
