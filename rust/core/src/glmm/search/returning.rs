//! Whether a search returns to where another one has ended.

use super::*;

/// Share of what a step promises that may lie between its end and the one known.
const APART: f64 = 0.5;

/// Whether a step leads to an end that is known: the quadratic model, where it has a minimum, puts both in one place and
/// at one deviance.
pub(super) fn returns_to(end: &Point, e: &Engine, around: &Around<'_, '_, '_>, proposal: &Proposal) -> bool {
    let (deviance, promised) = (around.here.point.deviance, proposal.promised.abs());
    let room = APART * promised;
    if proposal.curvature <= 0.0 || (deviance - promised - end.deviance).abs() > room {
        return false;
    }
    let missed = missed(end, e, around, proposal);
    proposal.stiff.iter().zip(missed).map(|(stiff, miss)| stiff * miss * miss).sum::<f64>() < room
}

/// By how much a step misses an end, in the coordinates of the search.
fn missed(end: &Point, e: &Engine, around: &Around<'_, '_, '_>, proposal: &Proposal) -> Vec<f64> {
    let (set, here) = (around.set, &around.here.point);
    let mut way: Vec<f64> = here.beta.iter().zip(&end.beta).map(|(a, b)| b - a).collect();
    let place = |i: usize, shape: &[f64]| set.charts[i].scale.value(shape[i]);
    way.extend((0..here.shape.len()).map(|i| place(i, &end.shape) - place(i, &here.shape)));
    way.extend(set.components.iter().map(|c| {
        let k = e.moments().factors[c.factor].cols;
        let star = relative(&here.lambda[c.factor], &end.lambda[c.factor], k);
        star[c.row + c.col * k] - if c.row == c.col { 1.0 } else { 0.0 }
    }));
    way.iter().zip(proposal.db.iter().chain(&proposal.d)).map(|(way, step)| way - step).collect()
}

/// The covariance of another point in units of Lambda, Sigma* = Lambda^-1 Sigma Lambda^-T.
fn relative(lambda: &[f64], other: &[f64], k: usize) -> Vec<f64> {
    let ratio = product(&invert(lambda, k), other, k, false, false);
    product(&ratio, &ratio, k, false, true)
}
