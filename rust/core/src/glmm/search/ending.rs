//! What a search leaves: boundaries, limits, and the point itself.

use super::*;

pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) iterations: usize,
    pub(super) decrease: f64,
    pub(super) least: f64,
    /// The engine's factor is not that of the point, or its mode is rough.
    pub(super) stale: bool,
}

/// Terms whose loadings all vanish, which are set to zero.
pub(super) fn no_loadings(e: &Engine, units: &[Vec<Vec<f64>>], point: &Point, exact: &mut [Vec<f64>]) -> Vec<Boundary> {
    let mut out = vec![];
    for p in e.patterns.iter().filter(|p| p.pattern.is_loadings()) {
        let (factor, k) = (&e.moments().factors[p.factor], p.pattern.k);
        let slot = factor.slots.iter().position(|s| s.term == p.term).unwrap_or(0);
        let own = optimise::slot_block(&point.lambda[p.factor], factor.cols, p.offset, k);
        let size = optimise::mul(&units[p.factor][slot], &own, k, true);
        if size.iter().all(|v| v.abs() < 3.0 * optimise::FLOOR) {
            (p.offset..p.offset + k).for_each(|c| exact[p.factor][c * factor.cols..(c + 1) * factor.cols].fill(0.0));
            out.push(Boundary { term: p.term, rank: 0, multipliers: vec![] });
        }
    }
    out
}

/// Rows of columns without variance, set to zero.
pub(super) fn without(e: &Engine, p: &Patterned, down: &[bool], exact: &mut [Vec<f64>]) {
    let (k, ld) = (p.pattern.k, e.moments().factors[p.factor].cols);
    for c in p.offset..p.offset + k {
        for r in (0..k).filter(|r| down[if down.len() == 1 { 0 } else { *r }]) {
            exact[p.factor][p.offset + r + c * ld] = 0.0;
        }
    }
}

/// What is held and, beside correlations at a limit, every standard deviation at its floor: whether nothing is better
/// than that little, `at_limits` finds by evaluating there.
pub(super) fn or_ended(patterns: &[Patterned], charts: &[Chart], shape: &[f64], mut held: Vec<bool>) -> Vec<bool> {
    for p in patterns.iter().filter(|p| !p.pattern.is_loadings() && p.pattern.limit(p.theta(shape)).is_some()) {
        let own = p.first..p.first + p.pattern.deviations();
        let low: Vec<bool> = own.clone().map(|i| held[i] || charts[i].at_low(shape[i])).collect();
        if !low.iter().all(|l| *l) {
            held[own].copy_from_slice(&low);
        }
    }
    held
}

/// The point with the patterns at their limits, if the deviance goes on to it, and how they are reported; an error where
/// it falls abruptly: the likelihood has no bound there.
pub(super) fn at_limits(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    point: &Point,
    lambda: &[Vec<f64>],
    limits: &[(Patterned, Limit, Vec<bool>)],
) -> Result<(Option<Point>, Vec<Boundary>), Outcome> {
    let (mut exact, mut shape, mut boundary) = (lambda.to_vec(), point.shape.clone(), vec![]);
    for (p, limit, down) in limits {
        let (k, ld) = (p.pattern.k, e.moments().factors[p.factor].cols);
        let l = p.pattern.singular_factor(limit);
        for c in 0..k {
            exact[p.factor][p.offset + (p.offset + c) * ld..][..k].copy_from_slice(&l[c * k..(c + 1) * k]);
        }
        without(e, p, down, &mut exact);
        shape[p.first..p.first + limit.theta.len()].copy_from_slice(&limit.theta);
        let count = down.iter().filter(|h| **h).count();
        boundary.push(Boundary { term: p.term, rank: limit.rank.min(k - count), multipliers: vec![] });
    }
    if limits.is_empty() {
        return Ok((None, vec![]));
    }
    match e.evaluate(rows, &point.beta, &exact, &shape, &point.u) {
        Ok(there) if there.deviance < point.deviance - ABRUPT => Err(Outcome::Unbounded),
        Ok(there) if there.deviance <= point.deviance + WORSE => Ok((Some(there), boundary)),
        _ => Ok((None, vec![])),
    }
}

/// Evaluate at a point where the search was, as closely as rounding lets it: residuals of nothing hide the mode.
pub fn settled(e: &mut Engine, rows: &GlmmRows<'_>, at: &Point) -> Result<Point, CoreError> {
    let mut evaluated = |tolerance: f64| {
        e.tolerance = tolerance;
        e.evaluate(rows, &at.beta, &at.lambda, &at.shape, &at.u)
    };
    evaluated(INNER_TOLERANCE).or_else(|_| evaluated(LOOSE))
}

/// Set what rests on the floor to zero and evaluate there: the engine is left at the optimum.
pub(super) fn finish(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    point: Point,
    slope: Slope,
    held: &[bool],
    end: Ending,
) -> Result<Found, CoreError> {
    let sigma_gradient = e.sigma_gradient(&point.lambda, &slope.n);
    let (mut exact, ranks) = clip_all(e.moments(), units, &point.lambda, true);
    let mut boundary = vec![];
    for (f, s, rank) in ranks {
        let slot = &e.moments().factors[f].slots[s];
        if rank < slot.cols {
            let multipliers = floor_slopes(e.moments(), &units[f][s], &point.lambda, &slope.n, f, s);
            boundary.push(Boundary { term: slot.term, rank, multipliers });
        }
    }
    let mut limits = vec![];
    for p in e.patterns.iter().filter(|p| !p.pattern.is_loadings()) {
        let down = &held[p.first..p.first + p.pattern.deviations()];
        let count = down.iter().filter(|h| **h).count();
        let none = count > 0 && count == down.len();
        let limit = p.pattern.limit(p.theta(&point.shape)).filter(|_| !none);
        let at =
            Boundary { term: p.term, rank: 0, multipliers: slope.gradient[p.first..p.first + down.len()].to_vec() };
        if let Some(limit) = limit {
            limits.push((p.clone(), limit, down.to_vec()));
        } else if count > 0 {
            boundary.push(Boundary { rank: if none { 0 } else { p.pattern.k - count }, ..at });
            without(e, p, down, &mut exact);
        }
    }
    boundary.extend(no_loadings(e, units, &point, &mut exact));
    for p in &e.patterns {
        let lost = p.pattern.lost(&point.shape[p.first..p.first + p.pattern.parameters()]);
        if lost > 0 && boundary.iter().all(|b| b.term != p.term) {
            boundary.push(Boundary { term: p.term, rank: p.pattern.k - lost, multipliers: vec![] });
        }
    }
    let lambda = if boundary.is_empty() { point.lambda.clone() } else { exact };
    e.tolerance = INNER_TOLERANCE;
    let (mut outcome, mut ended) = (end.outcome, None);
    match at_limits(e, rows, &point, &lambda, &limits) {
        Ok((point, at_limits)) => {
            boundary.extend(at_limits);
            ended = point;
        }
        Err(abrupt) => outcome = abrupt,
    }
    let point = match ended {
        Some(point) => point,
        None if end.stale || !boundary.is_empty() || !limits.is_empty() => {
            let exact = e.evaluate(rows, &point.beta, &lambda, &point.shape, &point.u);
            match exact {
                Ok(there) => there,
                // Beside a flat mode the limit itself may lie beyond it.
                Err(_) => {
                    boundary.clear();
                    if outcome == Outcome::Converged {
                        outcome = Outcome::Stalled;
                    }
                    settled(e, rows, &point)?
                }
            }
        }
        None => point,
    };
    e.unbounded |= outcome == Outcome::Unbounded;
    Ok(Found {
        unknown: e.unknown(&slope.beta_curvature, HARDLY),
        shape_gradient: e.constraint.reduced(&slope.gradient[..point.shape.len()]),
        point,
        outcome,
        iterations: end.iterations,
        decrease: end.decrease,
        curvature: end.least,
        boundary,
        sigma_gradient,
        beta_gradient: slope.beta,
    })
}
