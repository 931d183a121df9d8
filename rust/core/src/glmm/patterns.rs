//! Terms whose covariance is a function of few parameters, inside the outer search.
//!
//! A parameter theta_j moves Sigma* by S_j = Lambda^-1 (dSigma / dtheta_j) Lambda^-T, a symmetric matrix of its factor; the
//! free entries of the other covariances move it by unit matrices. Both are `directions`: gradient tr(N S), curvature
//! from the working linear model. Loadings (reduced rank) move Lambda itself, which may be singular: see `loadings`.

use crate::cholesky::SelectedInverse;
use crate::dense;
use crate::design::{Moments, Structure};
use crate::error::shape;
use crate::linear::{Component, Lmm, Solution};
use crate::structure::{Chart, Natural, Pattern, Scale};
use crate::CoreError;

use super::constraint::Constraint;
use super::laplace::{dot, Slope};
use super::loadings;

/// Smallest standard deviation, in units of one level's information (see `optimise`).
const FLOOR: f64 = 1e-4;

/// A patterned term and where it lies.
#[derive(Clone, Debug)]
pub struct Patterned {
    pub term: usize,
    pub factor: usize,
    pub offset: usize,
    pub pattern: Pattern,
    /// Its first parameter among all of them.
    pub first: usize,
}

impl Patterned {
    pub fn theta<'a>(&self, shape: &'a [f64]) -> &'a [f64] {
        &shape[self.first..self.first + self.pattern.parameters()]
    }
}

/// The patterned terms of a model, in the order of the terms.
pub fn find(m: &Moments, given: &[Option<Pattern>]) -> Result<Vec<Patterned>, CoreError> {
    let mut out = vec![];
    let mut slots: Vec<_> =
        m.factors.iter().enumerate().flat_map(|(f, x)| x.slots.iter().map(move |s| (f, s))).collect();
    slots.sort_by_key(|(_, s)| s.term);
    let mut first = 0;
    for (factor, slot) in slots {
        let pattern = given.get(slot.term).and_then(|p| p.as_ref());
        match (slot.structure, pattern) {
            (Structure::Patterned, Some(p)) if p.k == slot.cols => {
                out.push(Patterned { term: slot.term, factor, offset: slot.offset, pattern: p.clone(), first });
                first += p.parameters();
            }
            (Structure::Patterned, _) => return shape(format!("term {} needs a pattern of its size", slot.term)),
            (_, Some(_)) => return shape(format!("term {} has a pattern but another structure", slot.term)),
            _ => {}
        }
    }
    Ok(out)
}

/// The term that has a parameter.
pub fn owner(patterns: &[Patterned], i: usize) -> Option<usize> {
    patterns.iter().position(|p| (p.first..p.first + p.pattern.parameters()).contains(&i))
}

pub fn length(patterns: &[Patterned]) -> usize {
    patterns.iter().map(|p| p.pattern.parameters()).sum()
}

/// Write the factors of the patterned terms into Lambda.
pub fn put(m: &Moments, patterns: &[Patterned], shape: &[f64], lambda: &mut [Vec<f64>]) -> Result<(), CoreError> {
    for p in patterns {
        let (k, ld) = (p.pattern.k, m.factors[p.factor].cols);
        let l = p.pattern.factor(p.theta(shape))?;
        for c in 0..k {
            for r in 0..k {
                lambda[p.factor][p.offset + r + (p.offset + c) * ld] = l[r + c * k];
            }
        }
    }
    Ok(())
}

/// Whether any term is given by loadings.
pub fn any_loadings(patterns: &[Patterned]) -> bool {
    patterns.iter().any(|p| p.pattern.is_loadings())
}

/// Lambda with the identity in the place of loadings, which have no inverse.
pub fn regular(m: &Moments, patterns: &[Patterned], lambda: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out = lambda.to_vec();
    for p in patterns.iter().filter(|p| p.pattern.is_loadings()) {
        let ld = m.factors[p.factor].cols;
        for c in p.offset..p.offset + p.pattern.k {
            out[p.factor][c * ld..(c + 1) * ld].fill(0.0);
            out[p.factor][c * (ld + 1)] = 1.0;
        }
    }
    out
}

/// Start values from the diagonal of Lambda that the moments gave, and from the scores Z'D1 at zero effects.
pub fn start(m: &Moments, patterns: &[Patterned], lambda: &[Vec<f64>], scores: &[Vec<f64>]) -> Vec<f64> {
    let mut out = vec![];
    for p in patterns {
        let ld = m.factors[p.factor].cols;
        let sd: Vec<f64> =
            (p.offset..p.offset + p.pattern.k).map(|c| lambda[p.factor][c + c * ld].max(1e-150)).collect();
        if p.pattern.is_loadings() {
            out.extend(loadings::start(m, p, &scores[p.factor], &sd));
        } else {
            out.extend(p.pattern.start(&sd));
        }
    }
    out
}

/// How far above its floor, as a logarithm, a standard deviation may be for one of zero: the weights have changed since.
const ZERO: f64 = 2.0;

/// Parameters in natural units at an optimum, exact where it lies at a limit: (term, parameter).
pub fn natural(m: &Moments, patterns: &[Patterned], shape: &[f64], lambda: &[Vec<f64>]) -> Vec<(usize, Natural)> {
    let mut out = vec![];
    for p in patterns {
        let ld = m.factors[p.factor].cols;
        let mut own = p.pattern.report_at(p.theta(shape));
        let zero = |r: usize| (0..p.pattern.k).all(|c| lambda[p.factor][p.offset + r + (p.offset + c) * ld] == 0.0);
        own.iter_mut().take(p.pattern.deviations()).filter(|n| zero(n.index.unwrap_or(0))).for_each(|n| n.value = 0.0);
        out.extend(own.into_iter().map(|n| (p.term, n)));
    }
    out
}

/// Ranges and coordinates of the parameters: log standard deviations rest on a floor below anything the data can see.
pub fn charts(
    m: &Moments,
    patterns: &[Patterned],
    units: &[Vec<Vec<f64>>],
    constraint: &Constraint,
    shape: &[f64],
) -> Vec<Chart> {
    let mut out: Vec<Chart> = vec![];
    for (p, low) in patterns.iter().zip(floors(m, patterns, units, shape)) {
        let mut own = p.pattern.charts();
        let only = low.len() == 1;
        low.iter().enumerate().for_each(|(i, &low)| own[i] = Chart::deviation(only, low, shape[p.first + i].max(low)));
        out.extend(own);
    }
    constraint.charts(&mut out);
    out
}

/// Standard deviations, in units, from which on the floor of the others counts beside them.
const LARGE: f64 = 10.0;

/// Least logarithms of the standard deviations of every term, below anything the data can see: what they see is the product
/// with another one, whose correlation may be 1.
fn floors(m: &Moments, patterns: &[Patterned], units: &[Vec<Vec<f64>>], shape: &[f64]) -> Vec<Vec<f64>> {
    let of = |p: &Patterned| {
        let (usual, by) = (usual(m, p, units), largest(m, p, units, shape));
        let by = if by > LARGE { by } else { 1.0 };
        usual.iter().map(|u| (FLOOR * u / by).ln()).collect()
    };
    patterns.iter().map(of).collect()
}

/// The largest standard deviation of a term, in its unit.
fn largest(m: &Moments, p: &Patterned, units: &[Vec<Vec<f64>>], shape: &[f64]) -> f64 {
    usual(m, p, units).iter().zip(p.theta(shape)).map(|(u, a)| a.exp() / u).fold(0.0, f64::max)
}

/// Whether a search from `begun` has ended with standard deviations at a floor that counts beside a large one.
pub fn rests_too_high(
    m: &Moments,
    patterns: &[Patterned],
    units: &[Vec<Vec<f64>>],
    begun: &[f64],
    shape: &[f64],
) -> bool {
    let (then, now) = (floors(m, patterns, units, begun), floors(m, patterns, units, shape));
    let high = |(p, (then, now)): (&Patterned, (&Vec<f64>, &Vec<f64>))| {
        let rests = then.iter().zip(p.theta(shape)).any(|(low, a)| *a < low + ZERO);
        then.len() > 1 && rests && now < then
    };
    patterns.iter().zip(then.iter().zip(&now)).any(high)
}

/// Units of the standard deviations of a term: one level's information.
fn usual(m: &Moments, p: &Patterned, units: &[Vec<Vec<f64>>]) -> Vec<f64> {
    let slot = m.factors[p.factor].slots.iter().position(|s| s.term == p.term).unwrap_or(0);
    let unit = &units[p.factor][slot];
    let (k, d) = (p.pattern.k, p.pattern.deviations());
    let size: Vec<f64> =
        (0..k).map(|c| (0..=c).map(|t| unit[c + t * k].powi(2)).sum::<f64>().sqrt().max(1e-150)).collect();
    let largest = size.iter().copied().fold(0.0, f64::max);
    (0..d).map(|i| if d == 1 { largest } else { size[i] }.recip()).collect()
}

/// Parameters without a meaning or a curvature: those at a limit, and standard deviations of zero.
pub fn lost(m: &Moments, patterns: &[Patterned], units: &[Vec<Vec<f64>>], shape: &[f64]) -> Vec<bool> {
    let mut out = vec![false; shape.len()];
    for (p, low) in patterns.iter().zip(floors(m, patterns, units, shape)) {
        let own = &mut out[p.first..p.first + p.pattern.parameters()];
        if let Some(limit) = p.pattern.limit(p.theta(shape)) {
            own.copy_from_slice(&limit.lost);
        }
        own.iter_mut().zip(p.pattern.says_nothing(p.theta(shape))).for_each(|(o, lost)| *o |= lost);
        own.iter_mut().zip(&low).zip(p.theta(shape)).for_each(|((o, low), a)| *o |= *a < low + ZERO);
        if !low.is_empty() && own[..low.len()].iter().all(|o| *o) {
            own.fill(true);
        }
    }
    out
}

/// Where the ranges (or rates) and smoothnesses of structures stand, whose first parameter is number `first`.
pub fn ranges(patterns: &[Patterned], first: usize) -> Vec<usize> {
    let far = patterns.iter().filter(|p| p.pattern.kind.needs_distance());
    far.flat_map(|p| first + p.first + p.pattern.deviations()..first + p.first + p.pattern.parameters()).collect()
}

/// Parameters that rest on an end of their range while the deviance would go down beyond it, and what loses its meaning
/// with them; and what moves nothing.
pub fn held(patterns: &[Patterned], shape: &[f64], charts: &[Chart], gradient: &[f64]) -> Vec<bool> {
    let at = |i: usize| {
        let (a, g, chart) = (shape[i], gradient[i], &charts[i]);
        (chart.at_low(a) && g >= 0.0) || (chart.at_high(a) && g <= 0.0)
    };
    let mut out: Vec<bool> = (0..shape.len()).map(at).collect();
    for p in patterns {
        let (d, n) = (p.pattern.deviations(), p.pattern.parameters());
        let own = &mut out[p.first..p.first + n];
        if d > 0 && own[..d].iter().all(|h| *h) {
            own.fill(true);
        } else if p.pattern.is_silent(p.theta(shape)) {
            own[d..].fill(true);
        } else if own[d..].iter().any(|h| *h) {
            let lost = p.pattern.limit(p.theta(shape)).map_or_else(Vec::new, |l| l.lost);
            if lost.iter().zip(&*own).any(|(lost, held)| *lost && *held) {
                own.iter_mut().zip(lost).for_each(|(h, lost)| *h |= lost);
            }
        }
    }
    out
}

/// The parameters after a step in their coordinates, kept within their ranges and strides: for loadings, the largest of
/// their term. Where `linked`, a step of a correlation is one of the covariance that goes with it: with the variance v,
/// v rho is straight where v and a residual's variance trade, and so is v (1 - rho).
pub fn step(patterns: &[Patterned], shape: &[f64], d: &[f64], charts: &[Chart], linked: bool) -> Vec<f64> {
    let mut out = vec![];
    for p in patterns {
        let own = p.first..p.first + p.pattern.parameters();
        let largest = shape[own.clone()].iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let after = own.start + p.pattern.deviations();
        let mut ratio = 1.0;
        for i in own.clone() {
            if i == after && linked && i > own.start {
                let variance = |a: &[f64]| a.iter().map(|a| (2.0 * a).exp()).sum::<f64>();
                ratio = (variance(&shape[own.start..after]) / variance(&out[own.start..after])).clamp(0.1, 10.0);
            }
            out.push(if p.pattern.is_loadings() {
                shape[i] + d[i].clamp(-largest, largest)
            } else if i >= after && charts[i].scale != Scale::Same {
                let (low, high) = room(&charts[i], shape[i]);
                let ends = d[i] <= low || d[i] >= high;
                charts[i].step(shape[i], if ends { d[i] } else { d[i] * ratio })
            } else {
                charts[i].step(shape[i], d[i])
            });
        }
        let ended =
            own.clone().skip(p.pattern.deviations()).any(|i| charts[i].at_low(out[i]) || charts[i].at_high(out[i]));
        if let Some(limit) = p.pattern.limit(p.theta(&out)).filter(|_| ended) {
            // What has lost its meaning starts anew should the limit be left.
            own.clone().zip(limit.theta).filter(|(i, _)| charts[*i].low.is_finite()).for_each(|(i, v)| out[i] = v);
        }
    }
    out
}

/// The parameters with standard deviations and loadings times `by`.
pub fn shrunk(patterns: &[Patterned], shape: &[f64], charts: &[Chart], by: f64) -> Vec<f64> {
    let mut out = shape.to_vec();
    for p in patterns {
        let own = p.first..p.first + p.pattern.parameters();
        if p.pattern.is_loadings() {
            out[own].iter_mut().for_each(|v| *v *= by);
        } else {
            own.take(p.pattern.deviations()).for_each(|i| out[i] = (out[i] + by.ln()).max(charts[i].low));
        }
    }
    out
}

/// The observed curvature of steps that are `linked` (see `step`), in the parameters.
pub fn linked(mut slope: Slope, patterns: &[Patterned], charts: &[Chart], shape: &[f64]) -> Slope {
    let n = slope.gradient.len();
    for p in patterns.iter().filter(|p| !p.pattern.is_loadings()) {
        let after = p.first + p.pattern.deviations();
        let total: f64 = shape[p.first..after].iter().map(|a| (2.0 * a).exp()).sum();
        for q in (after..p.first + p.pattern.parameters()).filter(|&q| charts[q].scale != Scale::Same) {
            for i in p.first..after {
                // d2 parameter / d coordinate d log v = - d parameter / d coordinate.
                let v = -slope.gradient[q] * 2.0 * (2.0 * shape[i]).exp() / total;
                slope.observed[i + q * n] += v;
                slope.observed[q + i * n] += v;
            }
        }
    }
    slope
}

/// Steps of a parameter that lead to the ends of its range, in its coordinate; where that is the parameter itself, no
/// longer than its strides.
pub fn room(chart: &Chart, a: f64) -> (f64, f64) {
    if chart.scale == Scale::Same && chart.low.is_finite() {
        return ((chart.low - a).max(-chart.stride.0), (chart.high - a).min(chart.stride.1));
    }
    let at = chart.scale.value(a);
    (chart.scale.value(chart.low) - at, chart.scale.value(chart.high) - at)
}

/// Coordinates of the search.
pub fn coordinates(charts: &[Chart], shape: &[f64]) -> Vec<f64> {
    charts.iter().zip(shape).map(|(c, a)| c.scale.value(*a)).collect()
}

/// d parameter / d coordinate of the search.
pub fn stretches(charts: &[Chart], shape: &[f64]) -> Vec<f64> {
    charts.iter().zip(shape).map(|(c, a)| c.scale.slope(*a)).collect()
}

/// A typical size of every parameter: 1; of a loading one over the root mean information of its row.
pub fn scale(m: &Moments, patterns: &[Patterned]) -> Vec<f64> {
    let mut out = vec![];
    for p in patterns {
        if !p.pattern.is_loadings() {
            out.resize(out.len() + p.pattern.parameters(), 1.0);
            continue;
        }
        let factor = &m.factors[p.factor];
        let size = |row: usize| match factor.mean_information(p.offset + row) {
            info if info > 0.0 => 1.0 / info.sqrt(),
            _ => 1.0,
        };
        out.extend(p.pattern.loadings().into_iter().map(|(row, _)| size(row)));
    }
    out
}

/// How a direction moves the covariance of its factor.
#[derive(Clone, Debug)]
pub enum Path {
    /// Sigma* moves by this symmetric matrix (cols x cols).
    Star(Vec<f64>),
    /// This entry (row, column) of Lambda moves.
    Loading(usize, usize),
}

#[derive(Clone, Debug)]
pub struct Direction {
    pub factor: usize,
    pub path: Path,
}

/// Directions of the pattern parameters.
pub fn directions(m: &Moments, patterns: &[Patterned], shape: &[f64], lambda: &[Vec<f64>]) -> Vec<Direction> {
    let mut out = vec![];
    for p in patterns {
        if p.pattern.is_loadings() {
            let entries = p.pattern.loadings();
            let path = |(i, j): (usize, usize)| Path::Loading(p.offset + i, p.offset + j);
            out.extend(entries.into_iter().map(|e| Direction { factor: p.factor, path: path(e) }));
            continue;
        }
        let (k, ld) = (p.pattern.k, m.factors[p.factor].cols);
        let l: Vec<f64> = (0..k * k).map(|t| lambda[p.factor][p.offset + t % k + (p.offset + t / k) * ld]).collect();
        for mut d in p.pattern.first_derivatives(p.theta(shape)) {
            dense::solve_left_l(&l, k, k, &mut d, k, k);
            dense::solve_right_lt(&l, k, k, &mut d, k, k);
            let mut s = vec![0.0; ld * ld];
            for c in 0..k {
                for r in 0..k {
                    s[p.offset + r + (p.offset + c) * ld] = 0.5 * (d[r + c * k] + d[c + r * k]);
                }
            }
            out.push(Direction { factor: p.factor, path: Path::Star(s) });
        }
    }
    out
}

/// The free entries of the other covariances as directions.
pub fn of_components(m: &Moments, components: &[Component]) -> Vec<Direction> {
    components
        .iter()
        .map(|c| {
            let k = m.factors[c.factor].cols;
            let mut s = vec![0.0; k * k];
            s[c.row + c.col * k] = 1.0;
            s[c.col + c.row * k] = 1.0;
            Direction { factor: c.factor, path: Path::Star(s) }
        })
        .collect()
}

/// d deviance of every direction: tr(N S), and twice the entry of d/d Lambda.
pub fn gradient(m: &Moments, n: &[Vec<f64>], loading: &[Vec<f64>], directions: &[Direction]) -> Vec<f64> {
    directions
        .iter()
        .map(|d| match &d.path {
            Path::Star(s) => dot(&n[d.factor], s),
            Path::Loading(a, b) => 2.0 * loading[d.factor][a + b * m.factors[d.factor].cols],
        })
        .collect()
}

/// Numbers among the second derivatives of a covariance that are worth their cost.
const WORTH: usize = 150_000;

impl Patterned {
    /// Whether the second derivatives of its covariance are taken.
    pub fn is_bent(&self) -> bool {
        let rest = self.pattern.parameters() - self.pattern.deviations();
        !self.pattern.is_loadings() && rest * (rest + 1) / 2 * self.pattern.k.pow(2) <= WORTH
    }
}

/// What the curvature of Sigma in the pattern parameters adds to the second derivative of the deviance (free x free):
/// tr(N Lambda^-1 Sigma_ij Lambda^-T).
pub fn bend(m: &Moments, patterns: &[Patterned], shape: &[f64], lambda: &[Vec<f64>], n: &[Vec<f64>]) -> Vec<f64> {
    let free = shape.len();
    let mut out = vec![0.0; free * free];
    for p in patterns.iter().filter(|p| p.is_bent()) {
        let own = p.curved(shape, &p.pulled(&p.block(m, lambda), &p.block(m, n)));
        p.spread(&own, free, &mut out);
    }
    out
}

impl Patterned {
    /// Its part of a matrix by factor (k x k).
    pub fn block(&self, m: &Moments, a: &[Vec<f64>]) -> Vec<f64> {
        let (k, ld) = (self.pattern.k, m.factors[self.factor].cols);
        (0..k * k).map(|t| a[self.factor][self.offset + t % k + (self.offset + t / k) * ld]).collect()
    }

    /// L^-T N L^-1.
    fn pulled(&self, l: &[f64], n: &[f64]) -> Vec<f64> {
        let (k, mut pull) = (self.pattern.k, n.to_vec());
        dense::solve_left_lt(l, k, k, &mut pull, k, k);
        pull = transposed(&pull, k);
        dense::solve_left_lt(l, k, k, &mut pull, k, k);
        pull
    }

    /// tr(pull Sigma_ij) of every pair of parameters. Standard deviations factor out: their derivatives are multiples of
    /// Sigma's.
    fn curved(&self, shape: &[f64], pull: &[f64]) -> Vec<f64> {
        let (k, d, theta) = (self.pattern.k, self.pattern.deviations(), self.theta(shape));
        let own = theta.len();
        let mut out = vec![0.0; own * own];
        let (first, second) = self.pattern.derivatives(theta, true);
        let mut second = second.iter();
        for j in 0..own {
            for i in 0..=j {
                let v = if i >= d {
                    second.next().map_or(0.0, |s| dot(pull, s))
                } else {
                    let times = |t: usize| f64::from(u8::from(d == 1 || t % k == i) + u8::from(d == 1 || t / k == i));
                    (0..k * k).map(|t| times(t) * pull[t] * first[j][t]).sum()
                };
                out[i + j * own] = v;
                out[j + i * own] = v;
            }
        }
        out
    }

    /// Put a matrix of its parameters among those of all.
    fn spread(&self, own: &[f64], free: usize, out: &mut [f64]) {
        let n = self.pattern.parameters();
        for j in 0..n {
            (0..n).for_each(|i| out[self.first + i + (self.first + j) * free] = own[i + j * n]);
        }
    }

    /// d Lambda / d theta of every parameter, as matrices of its factor; none where Lambda has no derivative.
    pub fn lambda_slopes(&self, m: &Moments, shape: &[f64]) -> Option<Vec<Vec<f64>>> {
        let (k, ld) = (self.pattern.k, m.factors[self.factor].cols);
        let jacobian = self.pattern.factor_jacobian(self.theta(shape)).ok()?;
        let one = |column: &[f64]| {
            let mut out = vec![0.0; ld * ld];
            let mut at = 0;
            for c in 0..k {
                for r in c..k {
                    out[self.offset + r + (self.offset + c) * ld] = column[at];
                    at += 1;
                }
            }
            out
        };
        let out: Vec<Vec<f64>> = jacobian.chunks_exact(k * (k + 1) / 2).map(one).collect();
        out.iter().flatten().all(|v| v.is_finite()).then_some(out)
    }

    /// tr(E'Lambda_ij) of every pair of parameters (own x own), E = d / d Lambda of its block and Lambda_i = d Lambda /
    /// d theta_i. As Sigma_ij = Lambda_ij Lambda' + Lambda_i Lambda_j' and what mirrors it, Lambda_ij is Lambda Phi(Lambda^-1
    /// (Sigma_ij - Lambda_i Lambda_j' - Lambda_j Lambda_i') Lambda^-T), Phi the lower triangle with its diagonal halved: with
    /// G = Lambda^-T Phi(Lambda'E) Lambda^-1, made symmetric, what is asked for is tr(G Sigma_ij) - 2 tr(G Lambda_i Lambda_j').
    pub fn lambda_bend(&self, m: &Moments, shape: &[f64], lambda: &[Vec<f64>], e: &[Vec<f64>]) -> Vec<f64> {
        let (k, n) = (self.pattern.k, self.pattern.parameters());
        if self.pattern.is_loadings() || n == 0 {
            return vec![0.0; n * n];
        }
        let (l, e) = (self.block(m, lambda), self.block(m, e));
        let mut phi = vec![0.0; k * k];
        dense::gemm_tn(&mut phi, k, &l, k, &e, k, k, k, k, 1.0);
        for c in 0..k {
            phi[c * k..c * k + c].fill(0.0);
            phi[c * (k + 1)] *= 0.5;
        }
        let half: Vec<f64> = phi.iter().zip(transposed(&phi, k)).map(|(a, b)| 0.5 * (a + b)).collect();
        let pull = self.pulled(&l, &half);
        let Some(slopes) = self.lambda_slopes(m, shape) else { return vec![0.0; n * n] };
        let mut out = self.curved(shape, &pull);
        let slopes: Vec<Vec<f64>> = slopes
            .into_iter()
            .map(|s| {
                let mut all = vec![vec![]; self.factor];
                all.push(s);
                self.block(m, &all)
            })
            .collect();
        for (j, own) in slopes.iter().enumerate() {
            let mut moved = vec![0.0; k * k];
            dense::gemm(&mut moved, k, &pull, k, own, k, k, k, k, 1.0);
            slopes.iter().enumerate().for_each(|(i, other)| out[i + j * n] -= 2.0 * dot(&moved, other));
        }
        out
    }
}

fn transposed(a: &[f64], k: usize) -> Vec<f64> {
    (0..k * k).map(|t| a[t / k + t % k * k]).collect()
}

/// v_i'(Q - Q A^-1 Q) v_j with v_i = S_i u, A over (u, beta), and the raw part of beta (see `Lmm::quadratic`).
pub fn quadratic(
    lmm: &Lmm,
    s: &Solution,
    u: &[f64],
    directions: &[Direction],
    precision: &dyn Fn(&[f64]) -> Vec<f64>,
) -> (Vec<f64>, Vec<f64>) {
    let (m, sym) = (&lmm.moments, &lmm.symbolic);
    let (c, p) = (directions.len(), m.p());
    let mut v = vec![0.0; sym.size * c];
    for pos in 0..sym.nodes {
        let f = sym.factor_at[pos] as usize;
        let (k, at) = (m.factors[f].cols, sym.offset[pos] as usize);
        for (i, d) in directions.iter().enumerate().filter(|(_, d)| d.factor == f) {
            if let Path::Star(s) = &d.path {
                for r in 0..k {
                    v[(at + r) * c + i] = (0..k).map(|t| s[r + t * k] * u[at + t]).sum();
                }
            }
        }
    }
    let mut q = vec![0.0; c * c];
    if m.couplings.is_empty() {
        dense::syrk_rows(&mut q, c, &v, c, sym.size, 1.0);
    } else {
        let column = |x: &[f64], i: usize| x.iter().skip(i).step_by(c).copied().collect::<Vec<f64>>();
        let before = v.clone();
        for j in 0..c {
            let image = precision(&column(&before, j));
            (j..c).for_each(|i| q[i + j * c] = dot(&column(&before, i), &image));
            image.iter().enumerate().for_each(|(t, x)| v[t * c + j] = *x);
        }
    }
    lmm.numeric.forward(sym, &mut v, c);
    dense::syrk_rows(&mut q, c, &v, c, sym.size, -1.0);
    let cross = by_coefficient(s, &v, p, c);
    profile(s, &mut q, &cross, p, c);
    (q, cross)
}

/// F_X' x of every direction (p x c).
fn by_coefficient(s: &Solution, x: &[f64], p: usize, c: usize) -> Vec<f64> {
    let mut cross = vec![0.0; p * c];
    for (x, f) in x.chunks_exact(c.max(1)).zip(s.f.chunks_exact(p + 1)) {
        for (i, &xi) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            cross[i * p..(i + 1) * p].iter_mut().zip(f).for_each(|(o, f)| *o += xi * f);
        }
    }
    cross
}

/// Profile beta out of `q` and mirror it.
fn profile(s: &Solution, q: &mut [f64], cross: &[f64], p: usize, c: usize) {
    let mut w = cross.to_vec();
    dense::solve_left_l(&s.lx, p, p, &mut w, c, p);
    for j in 0..c {
        for i in j..c {
            q[i + j * c] -= dot(&w[i * p..(i + 1) * p], &w[j * p..(j + 1) * p]);
            q[j + i * c] = q[i + j * c];
        }
    }
}

/// The same where some directions move Lambda itself. With g = -Z'D1 a direction moves the working response by Z r,
/// r = dLambda u + Lambda dLambda'g, and the quadratic form is r'Z'PZ r.
pub fn general_quadratic(
    lmm: &Lmm,
    s: &Solution,
    (u, zg): (&[f64], &[Vec<f64>]),
    lambda: &[Vec<f64>],
    directions: &[Direction],
) -> (Vec<f64>, Vec<f64>) {
    let (m, sym) = (&lmm.moments, &lmm.symbolic);
    let (c, p) = (directions.len(), m.p());
    let place = |f: usize, l: usize| sym.at(f, l);
    let (mut moved, mut image) = (vec![], vec![]);
    let mut x = vec![0.0; sym.size * c];
    let mut cross = vec![0.0; p * c];
    for (i, d) in directions.iter().enumerate() {
        let mut r: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.levels * f.cols]).collect();
        let (f, k) = (d.factor, m.factors[d.factor].cols);
        for (l, r) in r[f].chunks_exact_mut(k).enumerate() {
            let u = &u[place(f, l)..][..k];
            match &d.path {
                Path::Star(star) => {
                    let t: Vec<f64> = (0..k).map(|a| (0..k).map(|b| star[a + b * k] * u[b]).sum()).collect();
                    for (column, t) in lambda[f].chunks_exact(k).zip(&t) {
                        r.iter_mut().zip(column).for_each(|(r, l)| *r += l * t);
                    }
                }
                Path::Loading(a, b) => {
                    r[*a] += u[*b];
                    let g = -zg[f][l * k + a];
                    r.iter_mut().zip(&lambda[f][b * k..(b + 1) * k]).for_each(|(r, l)| *r += l * g);
                }
            }
        }
        let y = loadings::multiply(m, &r);
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for (l, y) in y[f].chunks_exact(k).enumerate() {
                for (b, column) in lambda[f].chunks_exact(k).enumerate() {
                    x[(place(f, l) + b) * c + i] = dot(column, y);
                }
            }
            for (zx, r) in factor.zx.chunks_exact(p + 1).zip(&r[f]) {
                cross[i * p..(i + 1) * p].iter_mut().zip(zx).for_each(|(o, z)| *o += z * r);
            }
        }
        moved.push(r.concat());
        image.push(y.concat());
    }
    lmm.numeric.forward(sym, &mut x, c);
    let mut q = vec![0.0; c * c];
    dense::syrk_rows(&mut q, c, &x, c, sym.size, -1.0);
    for j in 0..c {
        (j..c).for_each(|i| q[i + j * c] += dot(&moved[i], &image[j]));
    }
    cross.iter_mut().zip(by_coefficient(s, &x, p, c)).for_each(|(o, f)| *o -= f);
    profile(s, &mut q, &cross, p, c);
    (q, cross)
}

/// tr(V^-1 V_i V^-1 V_j) from the diagonal blocks of the inverse; the others are left out, as it only steers the search.
///
/// Also what the curvature of Sigma = Lambda Lambda' in loadings adds to the second derivative of the deviance.
pub fn information(
    lmm: &Lmm,
    inv: &SelectedInverse,
    zg: &[Vec<f64>],
    lambda: &[Vec<f64>],
    directions: &[Direction],
) -> (Vec<f64>, Vec<f64>) {
    let c = directions.len();
    let (mut out, mut bend) = (vec![0.0; c * c], vec![0.0; c * c]);
    for f in 0..lmm.moments.factors.len() {
        let (mut stars, mut entries) = (vec![], vec![]);
        for (i, d) in directions.iter().enumerate().filter(|(_, d)| d.factor == f) {
            match &d.path {
                Path::Star(s) => stars.push((i, s)),
                Path::Loading(a, b) => entries.push((i, *a, *b)),
            }
        }
        star_information(&inv.diag[f], lmm.moments.factors[f].cols, &stars, c, &mut out);
        if !entries.is_empty() {
            loading_information(lmm, inv, &zg[f], lambda, f, &entries, c, (&mut out, &mut bend));
        }
    }
    (out, bend)
}

fn star_information(diag: &[f64], k: usize, mine: &[(usize, &Vec<f64>)], c: usize, out: &mut [f64]) {
    let mut products = vec![vec![0.0; k * k]; mine.len()];
    for z in diag.chunks_exact(k * k).filter(|_| !mine.is_empty()) {
        let rest: Vec<f64> = (0..k * k).map(|t| if t % k == t / k { 1.0 } else { 0.0 } - z[t]).collect();
        for (w, (_, s)) in products.iter_mut().zip(mine) {
            w.fill(0.0);
            dense::gemm(w, k, &rest, k, s, k, k, k, k, 1.0);
        }
        for (a, &(i, _)) in mine.iter().enumerate() {
            for (b, &(j, _)) in mine.iter().enumerate().skip(a) {
                let t: f64 = (0..k * k).map(|t| products[a][t] * products[b][(t % k) * k + t / k]).sum();
                out[i + j * c] += t;
                if i != j {
                    out[j + i * c] += t;
                }
            }
        }
    }
}

/// The same for entries (a, b) and (a', b') of Lambda: 2 (Q_aa' T_bb' + P_ab' P_a'b) with Q = Z'V^-1Z, P = Q Lambda and
/// T = Lambda'Q Lambda of one level; and 2 (Q - g g')_aa' for b = b', g = Z'D1, the slope in Sigma times its curvature.
fn loading_information(
    lmm: &Lmm,
    inv: &SelectedInverse,
    zg: &[f64],
    lambda: &[Vec<f64>],
    f: usize,
    entries: &[(usize, usize, usize)],
    c: usize,
    (out, bend): (&mut [f64], &mut [f64]),
) {
    let factor = &lmm.moments.factors[f];
    let k = factor.cols;
    let product = |a: &[f64], b: &[f64]| {
        let mut out = vec![0.0; k * k];
        dense::gemm(&mut out, k, a, k, b, k, k, k, k, 1.0);
        out
    };
    let transposed: Vec<f64> = (0..k * k).map(|t| lambda[f][t / k + (t % k) * k]).collect();
    for ((g, z), s) in factor.gram.chunks_exact(k * k).zip(inv.diag[f].chunks_exact(k * k)).zip(zg.chunks_exact(k)) {
        let gl = product(g, &lambda[f]);
        let lg = product(&transposed, g);
        let taken = product(&product(&gl, z), &lg);
        let q: Vec<f64> = g.iter().zip(&taken).map(|(g, t)| g - t).collect();
        let p = product(&q, &lambda[f]);
        let t = product(&transposed, &p);
        for &(i, a, b) in entries {
            for &(j, a2, b2) in entries {
                out[i + j * c] += 2.0 * (q[a + a2 * k] * t[b + b2 * k] + p[a + b2 * k] * p[a2 + b * k]);
                if b == b2 {
                    bend[i + j * c] += 2.0 * (q[a + a2 * k] - s[a] * s[a2]);
                }
            }
        }
    }
}
