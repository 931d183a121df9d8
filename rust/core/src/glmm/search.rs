//! The outer search over fixed effects and covariances: Newton steps on the working curvature with secant corrections.
//!
//! The quadratic model joins beta (free) with the variance scale of `optimise` (positive semidefinite): beta is
//! eliminated by its Schur complement, what is left is the same subproblem as a linear mixed model's. The working
//! linear model's curvature misses the third derivatives of the density; pairs (step, change of the exact gradient)
//! correct it by BFGS updates (Nocedal & Wright 2006, section 6.1), which are free of the coordinates chosen.

use crate::dense;
use crate::design::Moments;
use crate::family::Link;
use crate::linear::{self, Component};
use crate::optimise::{
    self, apply, at_floor, clip_all, floor_slopes, free_curvature, hessian, invert, turning, Boundary, Model, Options,
    Outcome, PLAIN,
};
use crate::structure::{Chart, Limit};
use crate::CoreError;

use super::laplace::{dot, positive, Engine, Point, Slope, INNER_TOLERANCE};
use super::patterns::{self, Direction, Path, Patterned};
use super::rows::GlmmRows;

/// Pairs kept for the secant correction.
const MEMORY: usize = 12;
/// Tolerance of modes far from the optimum.
const LOOSE: f64 = 1e-2;
/// Rejected trials and late iterations after which the working curvature is not trusted any more.
const PATIENCE: usize = 8;
/// Iterations that are not late.
const USUAL: usize = 14;
/// Iterations that a measured Hessian is kept for.
const KEPT: usize = 6;
/// Rejected trials in a row that are shortened as their deviance says; further ones are shortened by more.
const GENTLE: usize = 3;
/// What is left of the damping after a step that went well, where the curvature is exact.
const EASE: f64 = 0.2;
/// Share of the curvature along a step below which damping is none.
const NEGLIGIBLE: f64 = 1e-2;
/// Promised change of the deviance of steps that are too long for a secant.
const LONG: f64 = 2.0;
/// Longest step along a direction without an optimum, in Newton steps.
const LONGEST: f64 = 8.0;
/// Pairs kept on such a way: the curvature falls with every step, and old pairs hold it up.
const RECENT: usize = 2;

/// Deviance that a limit may be worse by than the edge of the search just before it.
const WORSE: f64 = 1e-7;

/// Deviance that it may be better by.
const ABRUPT: f64 = 1e-2;
/// Share of the response's standard deviation that is no residual any more.
const NONE: f64 = 1e-4;
/// And below this share a search may have come to rest on the way to none.
const LITTLE: f64 = 1e-2;
/// Slope of the deviance in the logarithm of a residual standard deviation of nothing above which it falls for ever.
const FALLING: f64 = 1e-4;

pub struct Found {
    pub point: Point,
    pub outcome: Outcome,
    pub iterations: usize,
    pub decrease: f64,
    pub curvature: f64,
    pub boundary: Vec<Boundary>,
    /// d deviance / d Sigma per factor, / d beta and / d pattern parameters, internal coordinates.
    pub sigma_gradient: Vec<Vec<f64>>,
    pub beta_gradient: Vec<f64>,
    pub shape_gradient: Vec<f64>,
}

/// A step in (beta, Sigma) and the change of the gradient along it, in absolute coordinates.
struct Secant {
    beta: Vec<f64>,
    shape: Vec<f64>,
    shape_gradient: Vec<f64>,
    sigma: Vec<Vec<f64>>,
    beta_gradient: Vec<f64>,
    sigma_gradient: Vec<Vec<f64>>,
}

fn product(a: &[f64], b: &[f64], k: usize, at: bool, bt: bool) -> Vec<f64> {
    let get = |m: &[f64], i: usize, j: usize, t: bool| if t { m[j + i * k] } else { m[i + j * k] };
    let mut out = vec![0.0; k * k];
    if k > PLAIN && !(at && bt) {
        let multiply = if at {
            dense::gemm_tn
        } else if bt {
            dense::gemm_nt
        } else {
            dense::gemm
        };
        multiply(&mut out, k, a, k, b, k, k, k, k, 1.0);
        return out;
    }
    for j in 0..k {
        for i in 0..k {
            out[i + j * k] = (0..k).map(|s| get(a, i, s, at) * get(b, s, j, bt)).sum();
        }
    }
    out
}

fn covariances(m: &Moments, lambda: &[Vec<f64>]) -> Vec<Vec<f64>> {
    lambda.iter().zip(&m.factors).map(|(l, f)| product(l, l, f.cols, false, true)).collect()
}

fn difference(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect()).collect()
}

impl Secant {
    /// (s, y) in (beta, pattern parameters, components of Sigma* at Lambda); components in `fixed` do not move.
    fn local(&self, e: &Engine, lambda: &[Vec<f64>], components: &[Component], fixed: &[bool]) -> (Vec<f64>, Vec<f64>) {
        let m = e.moments();
        let lambda = &patterns::regular(m, &e.patterns, lambda)[..];
        let mut s: Vec<f64> = self.beta.iter().chain(&self.shape).copied().collect();
        let mut y: Vec<f64> = self.beta_gradient.iter().chain(&self.shape_gradient).copied().collect();
        let mut star = vec![];
        let mut gradient = vec![];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let inv = invert(&lambda[f], k);
            star.push(product(&product(&inv, &self.sigma[f], k, false, false), &inv, k, false, true));
            gradient.push(product(
                &product(&lambda[f], &self.sigma_gradient[f], k, true, false),
                &lambda[f],
                k,
                false,
                false,
            ));
        }
        for (c, fixed) in components.iter().zip(fixed) {
            let k = m.factors[c.factor].cols;
            s.push(if *fixed { 0.0 } else { star[c.factor][c.row + c.col * k] });
            y.push(if *fixed { 0.0 } else { linear::entry(&gradient, m, c) });
        }
        (s, y)
    }
}

/// BFGS update of the symmetric matrix b (n x n) with Powell's damping.
fn bfgs(b: &mut [f64], n: usize, s: &[f64], y: &[f64]) {
    let bs: Vec<f64> = (0..n).map(|i| (0..n).map(|j| b[i + j * n] * s[j]).sum()).collect();
    let sbs = dot(s, &bs);
    if !(sbs > 1e-14) || !sbs.is_finite() {
        return;
    }
    let sy = dot(s, y);
    let theta = if sy >= 0.2 * sbs { 1.0 } else { 0.8 * sbs / (sbs - sy) };
    let r: Vec<f64> = y.iter().zip(&bs).map(|(y, b)| theta * y + (1.0 - theta) * b).collect();
    let sr = dot(s, &r);
    if !(sr > 0.0) || !sr.is_finite() {
        return;
    }
    for j in 0..n {
        for i in 0..n {
            b[i + j * n] += r[i] * r[j] / sr - bs[i] * bs[j] / sbs;
        }
    }
}

/// The joint quadratic model in (beta, components): gradient and Hessian.
struct Joint {
    p: usize,
    c: usize,
    gradient: Vec<f64>,
    hessian: Vec<f64>,
    /// What turning a zero direction costs. The subproblem knows it by itself, so it is not in `hessian`; definiteness and
    /// secants are of the sum.
    turning: Vec<f64>,
}

impl Joint {
    /// `free` of the c directions are pattern parameters, which join beta; `rest` are those that rest on a floor.
    fn new(
        slope: &Slope,
        sigma: &linear::Slope,
        turning: &[f64],
        (p, free, c): (usize, usize, usize),
        rest: &[bool],
        close: bool,
        damping: f64,
    ) -> (Self, f64) {
        let n = p + c;
        let curvature = free_curvature(sigma, turning, rest, close);
        let (least, trade) = (curvature.least, slope.trade.as_ref());
        let exact = close && trade.is_some();
        let hcc =
            if exact { whole_observed(slope, turning, rest, damping) } else { hessian(&curvature, turning, damping) };
        let mut h = vec![0.0; n * n];
        for j in 0..p {
            for i in 0..p {
                h[i + j * n] = slope.beta_curvature[i + j * p];
            }
            h[j + j * n] *= 1.0 + damping;
        }
        let mut lx = slope.beta_curvature.clone();
        let mut cross = slope.cross.clone();
        if trade.is_some() && !close {
            cross.fill(0.0);
        }
        let mut w = cross.clone();
        if dense::cholesky(&mut lx, p, p).is_ok() {
            dense::solve_left_l(&lx, p, p, &mut w, c, p);
        } else {
            w.fill(0.0);
        }
        for j in 0..c {
            for i in 0..c {
                let add = dot(&w[i * p..(i + 1) * p], &w[j * p..(j + 1) * p]);
                h[p + i + (p + j) * n] = hcc[i + j * c] + add;
            }
            for i in 0..p {
                let v = cross[i + j * p];
                h[i + (p + j) * n] = v;
                h[p + j + i * n] = v;
            }
        }
        if let Some(trade) = trade {
            let at = trade.at;
            h[at * (n + 1)] = (1.0 + damping) * if close { trade.observed } else { trade.expected };
            for j in (0..c).filter(|&j| !rest[j]) {
                let v = if close { cross[at + j * p] - trade.cross[j] } else { trade.cross[j] };
                h[at + (p + j) * n] = v;
                h[p + j + at * n] = v;
            }
        }
        let gradient = slope.beta.iter().chain(&sigma.gradient).copied().collect();
        let turning = padded(turning, p, c);
        (Joint { p: p + free, c: c - free, gradient, hessian: h, turning }, least)
    }

    /// Change the Hessian with its turning part in it.
    fn whole(&mut self, change: impl FnOnce(&mut Vec<f64>, usize)) {
        let n = self.p + self.c;
        self.hessian.iter_mut().zip(&self.turning).for_each(|(h, t)| *h += t);
        change(&mut self.hessian, n);
        self.hessian.iter_mut().zip(&self.turning).for_each(|(h, t)| *h -= t);
    }

    /// Correct the Hessian by steps and the changes of the gradient along them.
    fn correct(&mut self, pairs: &[(Vec<f64>, Vec<f64>)]) {
        let turning = self.turning.clone();
        self.whole(|h, n| {
            for (s, y) in pairs {
                let y: Vec<f64> =
                    (0..n).map(|i| y[i] + (0..n).map(|j| turning[i + j * n] * s[j]).sum::<f64>()).collect();
                bfgs(h, n, s, &y);
            }
        });
    }

    /// Take a measured Hessian instead, made positive definite.
    fn replace(&mut self, h: &[f64], damping: f64) {
        self.hessian = h.to_vec();
        self.whole(|h, n| {
            *h = positive(h, n);
            (0..n).for_each(|i| h[i * (n + 1)] *= 1.0 + damping);
        });
    }

    /// Profile out coefficients that are found inside (their gradient is zero).
    fn eliminate(&mut self, latent: &[usize]) {
        let n = self.p + self.c;
        for &j in latent {
            let pivot = self.hessian[j + j * n];
            let column: Vec<f64> = self.hessian[j * n..(j + 1) * n].to_vec();
            for b in 0..n {
                for a in 0..n {
                    self.hessian[a + b * n] -= column[a] * column[b] / pivot;
                }
            }
            self.hold(j);
        }
    }

    /// What a unit of damping adds to the diagonal of the Hessian.
    fn diagonal(&self, damping: f64) -> Vec<f64> {
        let n = self.p + self.c;
        (0..n).map(|i| self.hessian[i * (n + 1)].abs() / (1.0 + damping)).collect()
    }

    /// Take a parameter out of the search.
    fn hold(&mut self, i: usize) {
        let n = self.p + self.c;
        for j in 0..n {
            self.hessian[i + j * n] = 0.0;
            self.hessian[j + i * n] = 0.0;
        }
        self.hessian[i + i * n] = 1.0;
        self.gradient[i] = 0.0;
    }

    /// Move a parameter by `to` and take it out of the search; what the model gains by that.
    fn pin(&mut self, i: usize, to: f64) -> f64 {
        let n = self.p + self.c;
        let gained = -to * (self.gradient[i] + 0.5 * self.hessian[i + i * n] * to);
        (0..n).for_each(|t| self.gradient[t] += self.hessian[t + i * n] * to);
        self.hold(i);
        gained
    }

    /// Let two parameters move together: the second one's part is the first one's.
    fn tie(&mut self, i: usize, j: usize) {
        let n = self.p + self.c;
        for t in 0..n {
            self.hessian[i + t * n] += self.hessian[j + t * n];
        }
        for t in 0..n {
            self.hessian[t + i * n] += self.hessian[t + j * n];
        }
        self.gradient[i] += self.gradient[j];
        self.hold(j);
    }

    /// Step that minimises the model with every covariance positive semidefinite, and the decrease it promises.
    fn minimise(&self, components: &[Component], fixed: &[bool]) -> (Vec<f64>, Vec<f64>, f64) {
        let (p, c, n) = (self.p, self.c, self.p + self.c);
        let mut bb = vec![0.0; p * p];
        let mut bc = vec![0.0; p * c];
        let mut gb: Vec<f64> = self.gradient[..p].to_vec();
        for j in 0..p {
            bb[j * p..(j + 1) * p].copy_from_slice(&self.hessian[j * n..j * n + p]);
        }
        for j in 0..c {
            bc[j * p..(j + 1) * p].copy_from_slice(&self.hessian[(p + j) * n..(p + j) * n + p]);
        }
        let mut l = positive(&bb, p);
        if dense::cholesky(&mut l, p, p).is_err() {
            l.fill(0.0);
            (0..p).for_each(|j| l[j + j * p] = bb[j + j * p].abs().sqrt().max(1e-6));
        }
        dense::solve_left_l(&l, p, p, &mut bc, c, p);
        dense::solve_left_l(&l, p, p, &mut gb, 1, p);
        let mut hcc = vec![0.0; c * c];
        let mut gc = vec![0.0; c];
        for j in 0..c {
            gc[j] = self.gradient[p + j] - dot(&bc[j * p..(j + 1) * p], &gb);
            for i in 0..c {
                hcc[i + j * c] =
                    self.hessian[p + i + (p + j) * n] - dot(&bc[i * p..(i + 1) * p], &bc[j * p..(j + 1) * p]);
            }
        }
        let turning: Vec<f64> = (0..c * c).map(|t| self.turning[p + t % c + (p + t / c) * n]).collect();
        hcc.iter_mut().zip(&turning).for_each(|(h, t)| *h += t);
        let mut hcc = positive(&hcc, c);
        hcc.iter_mut().zip(&turning).for_each(|(h, t)| *h -= t);
        let model = Model::plain(components, gc, hcc, fixed);
        let d = if c > 0 { model.minimise() } else { vec![] };
        let decrease = 0.5 * dot(&gb, &gb) - if c > 0 { model.value(&d) } else { 0.0 };
        let mut db: Vec<f64> = gb.iter().map(|g| -g).collect();
        for j in 0..c {
            db.iter_mut().zip(&bc[j * p..(j + 1) * p]).for_each(|(o, b)| *o -= b * d[j]);
        }
        dense::solve_left_lt(&l, p, p, &mut db, 1, p);
        (db, d, decrease)
    }
}

/// The observed curvature as it is, without what is held: it may be that of a saddle, which is seen where it has joined
/// that of the coefficients.
fn whole_observed(slope: &Slope, turning: &[f64], rest: &[bool], damping: f64) -> Vec<f64> {
    let c = rest.len();
    let free = |t: usize| !rest[t % c] && !rest[t / c];
    let mut h: Vec<f64> = (0..c * c).map(|t| if free(t) { slope.observed[t] } else { 0.0 }).collect();
    (0..c).for_each(|j| h[j * (c + 1)] += damping * (h[j * (c + 1)].abs() + turning[j * (c + 1)]) + 1e-300);
    h
}

/// The symmetric matrix of the components' values, per factor.
fn spread(m: &Moments, components: &[Component], d: &[f64]) -> Vec<Vec<f64>> {
    let mut out: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
    for (c, v) in components.iter().zip(d) {
        let k = m.factors[c.factor].cols;
        out[c.factor][c.row + c.col * k] = *v;
        out[c.factor][c.col + c.row * k] = *v;
    }
    out
}

/// The gradient at a point, in absolute coordinates, and what is needed to make a secant of it.
struct Mark {
    beta: Vec<f64>,
    shape: Vec<f64>,
    sigma: Vec<Vec<f64>>,
    beta_gradient: Vec<f64>,
    shape_gradient: Vec<f64>,
    sigma_gradient: Vec<Vec<f64>>,
}

impl Mark {
    fn new(e: &Engine, at: &Point, slope: &Slope, charts: &[Chart]) -> Self {
        let mut beta = at.beta.clone();
        e.latent.iter().for_each(|&j| beta[j] = 0.0);
        Mark {
            beta,
            shape: patterns::coordinates(charts, &at.shape),
            sigma: covariances(e.moments(), &at.lambda),
            beta_gradient: slope.beta.clone(),
            shape_gradient: slope.gradient[..at.shape.len()].to_vec(),
            sigma_gradient: e.sigma_gradient(&at.lambda, &slope.n),
        }
    }

    fn secant(&self, before: &Mark) -> Secant {
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x - y).collect();
        Secant {
            beta: minus(&self.beta, &before.beta),
            shape: minus(&self.shape, &before.shape),
            sigma: difference(&self.sigma, &before.sigma),
            beta_gradient: minus(&self.beta_gradient, &before.beta_gradient),
            shape_gradient: minus(&self.shape_gradient, &before.shape_gradient),
            sigma_gradient: difference(&self.sigma_gradient, &before.sigma_gradient),
        }
    }
}

/// Where a search begins, internal coordinates.
pub struct First<'a> {
    pub beta: &'a [f64],
    pub lambda: &'a [Vec<f64>],
    pub shape: &'a [f64],
    /// A deviance that is to be reached: the search is given up where it does not lead there.
    pub target: Option<f64>,
}

/// Promised change of the deviance that may be nothing but rounding errors of the gradient, where steps have gained
/// nothing this many times.
const IDLE: f64 = 1e-6;
const TWICE: usize = 3;
/// Steps after which a search must have come nearer to its goal.
const STEPS: usize = 8;
/// Most of the way that may then be left.
const LEFT: f64 = 0.3;

/// How many such steps.
const PATIENT: usize = 24;
/// Rows times random effects up to which steps cost next to nothing.
const CHEAP: usize = 100_000;

/// Deviance of one observation by which a model is of another kind.
const FAR: f64 = 10.0;

/// A deviance to be reached, and how far it was when this was asked last.
struct Goal {
    target: f64,
    most: f64,
    left: f64,
    steps: usize,
    /// Whether the first steps may be slow: they are cheap, and the model is exact.
    patient: bool,
}

impl Goal {
    /// Whether what a step may reach is too little, or the last ones led nowhere.
    fn is_lost(&mut self, deviance: f64, reach: f64) -> bool {
        let left = deviance - self.target;
        self.steps += 1;
        if left > self.most || left > 0.0 && (left > reach || self.is_slow(left)) {
            return true;
        }
        if self.steps % STEPS == 0 {
            self.left = left.max(0.0);
        }
        false
    }

    fn is_slow(&self, left: f64) -> bool {
        let free = if self.patient { PATIENT } else { 0 };
        self.steps > free && self.steps % STEPS == 0 && left > LEFT * self.left
    }
}

/// The step accepted last: separated outcomes send coefficients to infinity, where the deviance falls as exp(-eta) and
/// Newton steps have length 1 in eta for ever. Where the promise fell as such a tail says and the direction is the same,
/// the next step is twice as long.
struct Pace {
    step: Vec<f64>,
    promised: f64,
    stretch: f64,
}

impl Pace {
    fn next(&self, step: &[f64], promised: f64) -> f64 {
        if !self.goes_on(step) {
            return 1.0;
        }
        let tail = (promised / self.promised).ln() + self.stretch;
        if tail.abs() < 0.35 * self.stretch {
            (2.0 * self.stretch).min(LONGEST)
        } else {
            1.0
        }
    }

    /// Whether a step goes on where the last one went, no shorter.
    fn goes_on(&self, step: &[f64]) -> bool {
        let (new, old) = (dot(step, step).sqrt(), dot(&self.step, &self.step).sqrt());
        dot(step, &self.step) > 0.9 * new * old && new > 0.6 * old
    }
}

/// Minimise the Laplace (or quadrature) deviance.
pub fn minimise(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    units: &[Vec<Vec<f64>>],
    from: &First<'_>,
    options: &Options,
) -> Result<Found, CoreError> {
    let components = e.lmm().components.clone();
    let (p, c, free) = (e.plan.p(), components.len(), from.shape.len());
    let mut first = e.evaluations;
    let mut trouble = 0;
    let constraint = e.constraint.clone();
    let charts = patterns::charts(e.moments(), &e.patterns, units, &constraint, from.shape);
    let residual = Residual::of(e, rows);
    e.residual = residual.as_ref().map(|r| (r.at, r.unit));
    let one = e.moments().factors.len() == 1 && e.patterns.iter().all(|p| p.is_bent());
    let exact = residual.is_some() && one && e.is_normal(rows);
    // A residual trades variances with a structure, and leaves its covariances what they are.
    let linked = residual.is_some() && constraint.tied.is_empty();
    let mut shape = from.shape.to_vec();
    constraint.impose(&mut shape);
    let shape = patterns::step(&e.patterns, &shape, &vec![0.0; free], &charts, false);
    let (mut lambda, _) = clip_all(e.moments(), units, from.lambda, false);
    patterns::put(e.moments(), &e.patterns, &shape, &mut lambda)?;
    let zero = vec![0.0; e.size()];
    e.tolerance = LOOSE;
    e.stop = options.stop.clone();
    let mut begun = e.evaluate(rows, from.beta, &lambda, &shape, &zero);
    for _ in 0..3 {
        // Random effects that leave the support or overflow: begin with smaller ones.
        if begun.is_err() {
            lambda.iter_mut().flatten().for_each(|l| *l *= 0.1);
            lambda = clip_all(e.moments(), units, &lambda, false).0;
            patterns::put(e.moments(), &e.patterns, &shape, &mut lambda)?;
            begun = e.evaluate(rows, from.beta, &lambda, &shape, &zero);
        }
    }
    let mut point = begun?;
    let mut secants: Vec<Secant> = vec![];
    let mut last: Option<Mark> = None;
    let (mut damping, mut close, mut iterations) = (0.0, false, 0);
    let mut least = 1.0;
    let mut decrease;
    let mut outcome = Outcome::Converged;
    let mut resting: Vec<bool> = vec![false; c + free];
    let mut stale = false;
    let mut pace: Option<Pace> = None;
    // Whether the last step went on along a direction without an optimum: no better curvature shortens that way.
    let mut tail = false;
    let mut curvature: Option<Measured> = None;
    let begin = |target: f64| (FAR * rows.n as f64, point.deviance - target, exact && rows.n * point.u.len() <= CHEAP);
    let mut goal = from.target.map(|target| {
        let (most, left, patient) = begin(target);
        Goal { target, most, left, steps: 0, patient }
    });
    let mut idle = 0;
    let (slope, held) = loop {
        let slope = bent(e.slope(rows, &point), &charts, &point.shape);
        let slope = if linked { patterns::linked(slope, &e.patterns, &charts, &point.shape) } else { slope };
        let slope = charted(slope, &patterns::stretches(&charts, &point.shape));
        let working = working_slope(&slope, 0);
        let fixed = at_floor(e.moments(), units, &components, &point.lambda, &working_slope(&slope, free));
        let pooled = constraint.pooled(&slope.gradient[..free]);
        let held = patterns::held(&e.patterns, &point.shape, &charts, &pooled);
        let still = (0..free).map(|i| held[i] || constraint.holds(i));
        let rest: Vec<bool> = still.chain(fixed.iter().copied()).collect();
        if rest != resting {
            secants.clear();
            last = None;
            resting.clone_from(&rest);
        }
        let turned = padded(&turning(e.moments(), &components, &slope.n, &fixed), free, c);
        let mark = Mark::new(e, &point, &slope, &charts);
        if let Some(before) = last.take() {
            // Along a long step the curvature changes by more than a secant says.
            if close || pace.as_ref().is_some_and(|last| last.promised < LONG) {
                secants.push(mark.secant(&before));
            }
            if secants.len() > MEMORY {
                secants.remove(0);
            }
        }
        trouble += (iterations > USUAL && !tail) as usize;
        // Measuring leaves the factor of the engine elsewhere.
        let mut fresh = true;
        if exact && trouble >= PATIENCE {
            // There is no better curvature than the exact one.
            (curvature, close) = (None, true);
        } else if trouble < PATIENCE {
            curvature = None;
        } else {
            curvature = curvature.take().and_then(|c: Measured| c.carried(e, &components, &point.lambda, &rest));
            if curvature.is_none() {
                let before = e.evaluations;
                let h = measure(e, rows, &point, &mark, &slope, &charts, &components, &fixed, &turned);
                curvature = h.map(|hessian| Measured::new(hessian, &point.lambda, &rest));
                secants.clear();
                (stale, fresh) = (true, false);
                first += e.evaluations - before;
            }
        }
        let measured = curvature.as_ref().map(|c| &c.hessian);
        let local: Vec<_> = secants.iter().map(|s| s.local(e, &point.lambda, &components, &fixed)).collect();
        let mut accepted = None;
        let mut misled = false;
        e.flat = false;
        let mut long = fresh;
        let mut rejected = 0;
        loop {
            let (mut joint, l) = Joint::new(&slope, &working, &turned, (p, free, c + free), &rest, close, damping);
            if close {
                least = l;
            }
            if let Some(h) = measured {
                joint.replace(h, damping);
            }
            joint.eliminate(&e.latent);
            if damping < 0.5 && !(close && exact) {
                joint.correct(&local);
            }
            constraint.followers().for_each(|(i, j)| joint.tie(p + i, p + j));
            (0..free).filter(|&i| rest[i]).for_each(|i| joint.hold(p + i));
            residual.iter().filter(|r| r.rests(&point, &slope)).for_each(|r| joint.hold(r.at));
            let stiff = joint.diagonal(damping);
            let least = residual.as_ref().and_then(|r| r.room(&point.beta));
            let (mut db, d, promised) = within(&mut joint, &components, &fixed, &charts, &point.shape, &rest, least);
            constraint.followers().for_each(|(i, j)| db[p + j] = db[p + i]);
            decrease = promised.abs();
            if decrease < 0.5 && !close {
                close = true;
                continue;
            }
            if decrease < options.tolerance || (decrease < IDLE && idle >= TWICE) {
                break;
            }
            let times = if close { 3.0 } else { 10.0 };
            let reach = if damping == 0.0 { times * decrease } else { f64::INFINITY };
            let hopeless = goal.as_mut().is_some_and(|goal| goal.is_lost(point.deviance, reach));
            if e.evaluations - first >= options.max_evaluations || hopeless {
                outcome = Outcome::MaxEvaluations;
                break;
            }
            let shape = patterns::step(&e.patterns, &point.shape, &db[p..], &charts, linked);
            let (mut trial, _) =
                clip_all(e.moments(), units, &apply(e.moments(), &components, &point.lambda, &d), false);
            let stretch = match &pace {
                Some(pace) if long && damping == 0.0 && decrease < 0.5 => pace.next(&db, decrease),
                _ => 1.0,
            };
            long = false;
            let mut b: Vec<f64> = point.beta.iter().zip(&db).map(|(b, d)| b + stretch * d).collect();
            if let Some(residual) = &residual {
                b[residual.at] = residual.step(point.beta[residual.at], stretch * db[residual.at]);
            }
            let near = fresh && d.iter().all(|v| v.abs() < 0.5) && short(&slope.directions, &db[p..]);
            let u = if near {
                let (delta, dlambda) = moved(e.moments(), &components, &d, &slope, &db[p..]);
                let db: Vec<f64> = db[..p].iter().map(|d| stretch * d).collect();
                e.predict_mode(&point, &db, &delta, &dlambda)
            } else if fresh {
                let db: Vec<f64> = db[..p].iter().map(|d| stretch * d).collect();
                e.mode_under(&point, &db, &trial).unwrap_or_else(|| point.u.clone())
            } else {
                point.u.clone()
            };
            fresh = stretch > 1.0;
            // An evaluation that fails is a rejected step, so its interruption is asked for apart.
            options.stop.check()?;
            e.tolerance = (1e-3 * decrease).clamp(INNER_TOLERANCE, LOOSE);
            let noise = 1e-11 * (point.deviance.abs() + rows.n as f64);
            let next = patterns::put(e.moments(), &e.patterns, &shape, &mut trial)
                .and_then(|()| e.evaluate(rows, &b, &trial, &shape, &u));
            match next {
                Ok(next) if point.deviance - next.deviance > 0.05 * decrease - noise => {
                    idle = if point.deviance - next.deviance < noise { idle + 1 } else { 0 };
                    let ratio = (point.deviance - next.deviance) / decrease;
                    let bend = relative_curvature(decrease, &stiff, &db, &d);
                    damping = if ratio > 0.5 || decrease < noise {
                        damping * if exact { EASE } else { 0.1 }
                    } else {
                        damping
                    };
                    if damping < if exact { NEGLIGIBLE * bend } else { 1e-3 } {
                        damping = 0.0;
                    }
                    let step = db[..p].to_vec();
                    tail = decrease < 0.5 && pace.is_some_and(|last| last.goes_on(&step));
                    if tail && secants.len() > RECENT {
                        secants.drain(..secants.len() - RECENT);
                    }
                    pace = Some(Pace { step, promised: decrease, stretch });
                    accepted = Some(next);
                    stale = e.tolerance > INNER_TOLERANCE;
                    break;
                }
                _ if stretch > 1.0 => {
                    stale = true;
                    pace = None;
                }
                next => {
                    stale = true;
                    trouble += 1;
                    rejected += 1;
                    idle += (decrease < IDLE) as usize;
                    if curvature.as_ref().is_some_and(|c| c.age > 0) {
                        misled = true;
                        break;
                    }
                    damping = if rejected <= GENTLE && (exact || trouble >= PATIENCE) {
                        let worse = next.map_or(f64::INFINITY, |n| n.deviance - point.deviance);
                        let part = (decrease / (2.0 * decrease + worse)).clamp(0.1, 0.5);
                        damping + relative_curvature(decrease, &stiff, &db, &d) * (1.0 / part - 1.0)
                    } else {
                        (damping * 5.0).max(0.5)
                    };
                    if damping > 1e8 {
                        outcome = Outcome::Stalled;
                        break;
                    }
                }
            }
        }
        if misled {
            // Measure anew, from the same point.
            curvature = None;
            e.tolerance = INNER_TOLERANCE;
            point = e.evaluate(rows, &point.beta, &point.lambda, &point.shape, &point.u)?;
            continue;
        }
        match accepted {
            Some(next) => {
                last = Some(mark);
                point = next;
                iterations += 1;
            }
            None => break (slope, held),
        }
    };
    let slope = uncharted(slope, &patterns::stretches(&charts, &point.shape));
    if outcome != Outcome::Converged && e.flat {
        outcome = Outcome::FlatMode;
    }
    if outcome == Outcome::Stalled && residual.as_ref().is_some_and(|r| r.falls(&point, &slope)) {
        outcome = Outcome::Unbounded;
    }
    finish(e, rows, units, point, slope, &held, Ending { outcome, iterations, decrease, least, stale })
}

/// Curvature along a step that promises `decrease`, relative to what damping adds there.
fn relative_curvature(decrease: f64, stiff: &[f64], db: &[f64], d: &[f64]) -> f64 {
    let size: f64 = stiff.iter().zip(db.iter().chain(d)).map(|(s, d)| s * d * d).sum();
    if size > 0.0 {
        2.0 * decrease / size
    } else {
        1.0
    }
}

/// The minimiser of the model with every parameter within its range, and a coefficient not below its `least` step: what
/// would leave is put on its end, and the others follow.
fn within(
    joint: &mut Joint,
    components: &[Component],
    fixed: &[bool],
    charts: &[Chart],
    shape: &[f64],
    rest: &[bool],
    least: Option<(usize, f64)>,
) -> (Vec<f64>, Vec<f64>, f64) {
    let p = joint.p - shape.len();
    let room = |i: usize| patterns::room(&charts[i], shape[i]);
    let mut limits: Vec<(usize, f64, f64)> = (0..shape.len())
        .filter(|&i| !rest[i])
        .map(|i| (p + i, room(i).0.min(0.0), room(i).1.max(0.0)))
        .chain(least.map(|(at, low)| (at, low, f64::INFINITY)))
        .collect();
    let (mut pinned, mut gained): (Vec<(usize, f64)>, f64) = (vec![], 0.0);
    loop {
        let (mut db, d, promised) = joint.minimise(components, fixed);
        match limits.iter().position(|&(i, low, high)| db[i] < low || db[i] > high) {
            Some(at) => {
                let (i, low, high) = limits.swap_remove(at);
                if pinned.is_empty() {
                    joint.whole(|h, n| *h = positive(h, n));
                }
                let to = db[i].clamp(low, high);
                gained += joint.pin(i, to);
                pinned.push((i, to));
            }
            None => {
                pinned.iter().for_each(|&(i, to)| db[i] = to);
                return (db, d, promised + gained);
            }
        }
    }
}

/// The coefficient that alone is the logarithm of a Gaussian residual's standard deviation. Random effects and residuals
/// that share a variance trade it along a line on the variance scale, and structures that explain everything leave none.
pub struct Residual {
    pub at: usize,
    unit: f64,
    /// Standard deviations below this, or about it, are none.
    floor: f64,
    /// And below this so little that the slope vanishes before the optimum is certain.
    little: f64,
}

impl Residual {
    pub fn of(e: &Engine, rows: &GlmmRows<'_>) -> Option<Residual> {
        let shared = e.patterns.iter().any(|p| !p.pattern.is_loadings());
        if !shared || e.family.entry().name != "gaussian" || e.family.links().get(1) != Some(&Link::Log) {
            return None;
        }
        let &[at] = e.plan.coefficients_of(1).as_slice() else { return None };
        let mut one = vec![0.0; e.plan.p()];
        one[at] = 1.0;
        let unit = e.plan.user_beta(&one)[e.plan.kept[at]];
        let constant = rows.components.get(1).is_some_and(|c| {
            c.offset.is_none() && c.fixed.iter().all(|f| f.block.is_intercept() || f.block.is_cell_means())
        });
        let usual = *e.family.start(&rows.data, None).get(1)?;
        let [floor, little] = [NONE, LITTLE].map(|share| (usual + share.ln()) / unit);
        (constant && unit.is_finite() && unit > 0.0).then_some(Residual { at, unit, floor, little })
    }

    /// The coefficient after a step, taken on the variance scale.
    fn step(&self, from: f64, d: f64) -> f64 {
        let d = self.unit * d;
        let to = if d < 0.3 { 0.5 * (2.0 * d).max(-1.0).ln_1p() } else { d };
        (from + to / self.unit).max(self.floor.min(from))
    }

    /// The coefficient and its step down to no residual, which is none of variance; where some is left.
    fn room(&self, beta: &[f64]) -> Option<(usize, f64)> {
        (!self.is_zero(beta)).then_some((self.at, -0.5 / self.unit))
    }

    /// The residual's standard deviation.
    pub fn deviation(&self, beta: &[f64]) -> f64 {
        (self.unit * beta[self.at]).exp()
    }

    /// Give it that standard deviation.
    pub fn put(&self, sd: f64, beta: &mut [f64]) {
        beta[self.at] = sd.ln() / self.unit;
    }

    pub fn is_zero(&self, beta: &[f64]) -> bool {
        beta[self.at] <= self.floor + 2f64.ln() / self.unit
    }

    /// Take it away.
    pub fn drop(&self, beta: &mut [f64]) {
        beta[self.at] = self.floor;
    }

    pub fn is_little(&self, beta: &[f64]) -> bool {
        beta[self.at] <= self.little
    }

    /// Whether nothing is left and nothing is gained by less: the slope vanishes with the variance, unless the
    /// likelihood has no bound.
    fn rests(&self, point: &Point, slope: &Slope) -> bool {
        self.is_zero(&point.beta) && (0.0..FALLING).contains(&slope.beta[self.at])
    }

    /// Whether nothing is left, and less would still be better.
    fn falls(&self, point: &Point, slope: &Slope) -> bool {
        self.is_zero(&point.beta) && slope.beta[self.at] >= FALLING
    }
}

/// Whether steps along the directions change the covariances by little.
fn short(directions: &[Direction], d: &[f64]) -> bool {
    directions.iter().zip(d).all(|(direction, v)| match &direction.path {
        Path::Star(s) => s.iter().all(|s| (v * s).abs() < 0.5),
        Path::Loading(..) => v.abs() < 0.5,
    })
}

/// A step of this size or its opposite, whichever stays inside.
fn inwards(chart: &Chart, a: f64, size: f64) -> f64 {
    let room = patterns::room(chart, a);
    if room.1 > 2.0 * size || room.1 > -room.0 {
        size.min(0.5 * room.1)
    } else {
        -size.min(-0.5 * room.0)
    }
}

/// The observed curvature with that of the coordinates of the search in it.
fn bent(mut slope: Slope, charts: &[Chart], shape: &[f64]) -> Slope {
    let n = slope.gradient.len();
    for (i, (chart, &a)) in charts.iter().zip(shape).enumerate() {
        slope.observed[i * (n + 1)] += slope.gradient[i] * chart.scale.bend(a) / chart.scale.slope(a).powi(2);
    }
    slope
}

/// Derivatives in the coordinates of the search: `stretch` are d parameter / d coordinate.
fn charted(mut slope: Slope, stretch: &[f64]) -> Slope {
    let (m, n, p) = (stretch.len(), slope.gradient.len(), slope.beta.len());
    slope.gradient.iter_mut().zip(stretch).for_each(|(g, s)| *g *= s);
    if let Some(trade) = &mut slope.trade {
        trade.cross.iter_mut().zip(stretch).for_each(|(v, s)| *v *= s);
    }
    slope.cross.iter_mut().take(p * m).enumerate().for_each(|(t, v)| *v *= stretch[t / p]);
    for a in [&mut slope.average, &mut slope.expected, &mut slope.observed] {
        a.iter_mut().enumerate().for_each(|(t, v)| {
            let factor = |i: usize| stretch.get(i).copied().unwrap_or(1.0);
            *v *= factor(t % n) * factor(t / n);
        });
    }
    for (direction, by) in slope.directions.iter_mut().zip(stretch) {
        if let Path::Star(s) = &mut direction.path {
            s.iter_mut().for_each(|v| *v *= by);
        }
    }
    slope
}

fn uncharted(slope: Slope, stretch: &[f64]) -> Slope {
    charted(slope, &stretch.iter().map(|s| 1.0 / s).collect::<Vec<f64>>())
}

/// A measured Hessian, kept for some iterations: it costs an evaluation a parameter, secants bring it up to date.
struct Measured {
    hessian: Vec<f64>,
    lambda: Vec<Vec<f64>>,
    rest: Vec<bool>,
    age: usize,
}

impl Measured {
    fn new(hessian: Vec<f64>, lambda: &[Vec<f64>], rest: &[bool]) -> Self {
        Measured { hessian, lambda: lambda.to_vec(), rest: rest.to_vec(), age: 0 }
    }

    /// In the coordinates of another Lambda; none where it is too old, a parameter came to rest or left, or the free
    /// components are more than variances: Sigma* = Sigma / Lambda^2.
    fn carried(mut self, e: &Engine, components: &[Component], lambda: &[Vec<f64>], rest: &[bool]) -> Option<Self> {
        let single = components.iter().all(|c| e.moments().factors[c.factor].cols == 1);
        if !single || self.age >= KEPT || self.rest != rest {
            return None;
        }
        let n = rest.len() + e.plan.p();
        for (i, c) in components.iter().enumerate() {
            let (at, ratio) = (n - components.len() + i, (lambda[c.factor][0] / self.lambda[c.factor][0]).powi(2));
            for t in 0..n {
                self.hessian[at + t * n] *= ratio;
                self.hessian[t + at * n] *= ratio;
            }
        }
        self.lambda = lambda.to_vec();
        self.age += 1;
        self.hessian.iter().all(|v| v.is_finite()).then_some(self)
    }
}

/// Hessian of the deviance in (beta, directions) from differences of its exact gradient: for the few models (mixtures with
/// random effects in several parameters) whose curvature the working linear model does not resemble.
fn measure(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    point: &Point,
    mark: &Mark,
    slope: &Slope,
    charts: &[Chart],
    components: &[Component],
    fixed: &[bool],
    turned: &[f64],
) -> Option<Vec<f64>> {
    let (p, free, c) = (point.beta.len(), point.shape.len(), components.len());
    let n = p + free + c;
    let mut h = vec![0.0; n * n];
    e.tolerance = 0.1 * INNER_TOLERANCE;
    for j in 0..n {
        let own = if j < p { slope.beta_curvature[j + j * p] } else { slope.average[(j - p) * (free + c + 1)] };
        if e.latent.contains(&j) || (j >= p + free && fixed[j - p - free]) {
            h[j + j * n] = own;
            continue;
        }
        let mut size = (1e-3 / own.abs().max(1e-12).sqrt()).min(if j < p { 0.1 } else { 1e-2 });
        let (mut beta, mut shape, mut d) = (point.beta.clone(), point.shape.clone(), vec![0.0; c]);
        match j {
            j if j < p => beta[j] += size,
            j if j < p + free => {
                let i = j - p;
                size = inwards(&charts[i], shape[i], size);
                shape[i] = charts[i].scale.parameter(charts[i].scale.value(shape[i]) + size);
            }
            j => {
                let (j, t) = (j - p - free, turned[(j - p) * (free + c + 1)]);
                // A zero direction turns far before anything changes; its variance grows with the square.
                let size = if t > 0.0 { 0.03 / (own + t).sqrt() } else { size };
                let own = |k: &Component| k.row == k.col && (k.row == components[j].row || k.row == components[j].col);
                let at = |k: &Component| k.factor == components[j].factor && own(k);
                d[j] = size;
                (0..c).filter(|&k| t > 0.0 && fixed[k] && at(&components[k])).for_each(|k| d[k] = size * size);
            }
        }
        let moved = if j < p + free { size } else { d[j - p - free] };
        let mut lambda = apply(e.moments(), components, &point.lambda, &d);
        patterns::put(e.moments(), &e.patterns, &shape, &mut lambda).ok()?;
        let at = e.evaluate(rows, &beta, &lambda, &shape, &point.u).ok()?;
        let there = charted(e.slope(rows, &at), &patterns::stretches(charts, &at.shape));
        let secant = Mark::new(e, &at, &there, charts).secant(mark);
        let (_, y) = secant.local(e, &point.lambda, components, fixed);
        (0..n).for_each(|i| h[i + j * n] = y[i] / moved);
    }
    for j in 0..n {
        for i in 0..j {
            let v = 0.5 * (h[i + j * n] + h[j + i * n]);
            h[i + j * n] = v;
            h[j + i * n] = v;
        }
    }
    h.iter().all(|v| v.is_finite()).then_some(h)
}

/// The curvature as the optimiser of linear mixed models takes it, without the first `skip` directions. There is no
/// residual variance to profile.
fn working_slope(slope: &Slope, skip: usize) -> linear::Slope {
    let n = slope.gradient.len();
    let c = n - skip;
    let part = |a: &[f64]| linear::Curvature {
        sigma: (0..c * c).map(|t| a[skip + t % c + (skip + t / c) * n]).collect(),
        mixed: vec![0.0; c],
    };
    linear::Slope {
        u: vec![],
        n: slope.n.clone(),
        gradient: slope.gradient[skip..].to_vec(),
        average: part(&slope.average),
        expected: part(&slope.expected),
        observed: part(&slope.observed),
        nu: 1.0,
    }
}

/// A matrix of the components inside one of all directions.
fn padded(a: &[f64], skip: usize, c: usize) -> Vec<f64> {
    let n = skip + c;
    let mut out = vec![0.0; n * n];
    for j in 0..c {
        out[(skip + j) * n + skip..(skip + j + 1) * n].copy_from_slice(&a[j * c..(j + 1) * c]);
    }
    out
}

/// The change of Sigma* by factor, entries of the components and pattern directions, and that of Lambda by loadings.
fn moved(
    m: &Moments,
    components: &[Component],
    d: &[f64],
    slope: &Slope,
    shape: &[f64],
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut out = spread(m, components, d);
    let mut lambda = spread(m, &[], &[]);
    for (direction, v) in slope.directions.iter().zip(shape) {
        let f = direction.factor;
        match &direction.path {
            Path::Star(s) => out[f].iter_mut().zip(s).for_each(|(o, s)| *o += v * s),
            Path::Loading(a, b) => lambda[f][a + b * m.factors[f].cols] += v,
        }
    }
    (out, lambda)
}

struct Ending {
    outcome: Outcome,
    iterations: usize,
    decrease: f64,
    least: f64,
    /// The engine's factor is not that of the point, or its mode is rough.
    stale: bool,
}

/// Terms whose loadings all vanish, which are set to zero.
fn no_loadings(e: &Engine, units: &[Vec<Vec<f64>>], point: &Point, exact: &mut [Vec<f64>]) -> Vec<Boundary> {
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
fn without(e: &Engine, p: &Patterned, down: &[bool], exact: &mut [Vec<f64>]) {
    let (k, ld) = (p.pattern.k, e.moments().factors[p.factor].cols);
    for c in p.offset..p.offset + k {
        for r in (0..k).filter(|r| down[if down.len() == 1 { 0 } else { *r }]) {
            exact[p.factor][p.offset + r + c * ld] = 0.0;
        }
    }
}

/// The point with the patterns at their limits, if the deviance goes on to it, and how they are reported; an error where
/// it falls abruptly: the likelihood has no bound there.
fn at_limits(
    e: &mut Engine,
    rows: &GlmmRows<'_>,
    point: &Point,
    lambda: &[Vec<f64>],
    limits: &[(Patterned, Limit, usize)],
) -> Result<(Option<Point>, Vec<Boundary>), Outcome> {
    let (mut exact, mut shape, mut boundary) = (lambda.to_vec(), point.shape.clone(), vec![]);
    for (p, limit, down) in limits {
        let (k, ld) = (p.pattern.k, e.moments().factors[p.factor].cols);
        let l = p.pattern.singular_factor(limit);
        for c in 0..k {
            exact[p.factor][p.offset + (p.offset + c) * ld..][..k].copy_from_slice(&l[c * k..(c + 1) * k]);
        }
        shape[p.first..p.first + limit.theta.len()].copy_from_slice(&limit.theta);
        boundary.push(Boundary { term: p.term, rank: limit.rank.min(k - down), multipliers: vec![] });
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

/// Set what rests on the floor to zero and evaluate there: the engine is left at the optimum.
fn finish(
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
            limits.push((p.clone(), limit, count));
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
            e.evaluate(rows, &point.beta, &lambda, &point.shape, &point.u)?
        }
        None => point,
    };
    e.unbounded |= outcome == Outcome::Unbounded;
    Ok(Found {
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
