//! Where a search over covariance structures may begin: what the scores of the random effects say, for several shares of
//! the variance left to the residual.
//!
//! With s = Z'(-D1) and G = Z'D2Z of a fit without random effects, E[s s'] = c G + G Sigma G, c the residual variance as
//! a share of that fit's (1 where there is none). Products of scores give Sigma for every c, `Pattern::near` the
//! parameters closest to it, and one evaluation of the deviance its rank among the others. The structures of one model
//! trade their diagonal against the residual, so the deviance has several optima along c more often than across it.

use crate::optimise;

use super::laplace::Engine;
use super::nested::touched;
use super::patterns::{self, Patterned};
use super::rows::GlmmRows;
use super::search::{First, Residual};
use super::start;

/// What is begun from: shares left to a residual, and of a correlation of 1 instead of that which the scores say.
const CHOICES: [(f64, f64); 5] = [(0.05, 0.0), (0.3, 0.0), (0.6, 0.0), (0.9, 0.0), (0.6, 0.9)];
/// Tolerance of the modes there.
const ROUGH: f64 = 1e-2;
/// Smallest standard deviation, as a share of the usual start's.
const SMALL: f64 = 0.3;

/// A place to begin, and its deviance.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub beta: Vec<f64>,
    pub shape: Vec<f64>,
    pub deviance: f64,
}

/// The usual start and what the scores add to it, the best first; only the usual one, not evaluated, where no term has a
/// structure with free parameters.
pub fn ranked(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    from: &First<'_>,
    scores: &[Vec<f64>],
) -> Vec<Candidate> {
    let mut out = vec![Candidate { beta: from.beta.to_vec(), shape: from.shape.to_vec(), deviance: f64::INFINITY }];
    let terms: Vec<Patterned> =
        e.patterns.iter().filter(|p| correlated(p) && !touched(p, &e.constraint)).cloned().collect();
    let residual = Residual::of(e, rows);
    for p in &terms {
        let best = out[0].clone();
        for (share, one) in if residual.is_some() { &CHOICES[..] } else { &[(1.0, 0.0)] } {
            let Some(theta) = suggested(e, p, from.shape, &scores[p.factor], *share, *one) else { continue };
            let mut next = best.clone();
            next.deviance = f64::INFINITY;
            if let Some(r) = &residual {
                r.put(share.sqrt() * r.deviation(from.beta), &mut next.beta);
            }
            next.shape[p.first..p.first + theta.len()].copy_from_slice(&theta);
            e.constraint.impose(&mut next.shape);
            out.push(next);
        }
        if out.len() > 1 {
            for c in out.iter_mut().filter(|c| c.deviance.is_infinite()) {
                c.deviance = deviance(e, rows, units, from, c);
            }
            out.sort_by(|a, b| a.deviance.total_cmp(&b.deviance));
        }
    }
    out
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

fn deviance(e: &mut Engine, rows: &GlmmRows<'_>, units: &[Vec<Vec<f64>>], from: &First<'_>, at: &Candidate) -> f64 {
    let zero = vec![0.0; e.size()];
    let mut lambda = optimise::clip_all(e.moments(), units, from.lambda, false).0;
    e.tolerance = ROUGH;
    match patterns::put(e.moments(), &e.patterns, &at.shape, &mut lambda)
        .and_then(|()| e.evaluate(rows, &at.beta, &lambda, &at.shape, &zero))
    {
        Ok(point) => point.deviance,
        Err(_) => f64::INFINITY,
    }
}
