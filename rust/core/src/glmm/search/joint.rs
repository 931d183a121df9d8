//! The quadratic model in coefficients, parameters of structures and covariances together, and its minimum.

use super::*;

/// Share of the response's standard deviation that is no residual any more.
pub(super) const NONE: f64 = 1e-4;

/// Standard error in units of a link other than the identity beyond which a coefficient is at a limit of its range, if
/// there is no density further on.
pub(super) const HARDLY: f64 = 100.0;

/// What quadratic models around a point are made of.
pub(super) struct Around<'m, 'a, 'r> {
    pub(super) set: &'m Setting<'a, 'r>,
    pub(super) here: &'m Here,
    /// A measured Hessian, and what secants say.
    pub(super) measured: Option<&'m [f64]>,
    pub(super) secants: &'m [(Vec<f64>, Vec<f64>)],
}

/// A step in (beta, pattern parameters) and components, the decrease it promises, what a unit of damping adds to the
/// diagonal, and the least curvature of the covariances.
pub(super) struct Proposal {
    pub(super) db: Vec<f64>,
    pub(super) d: Vec<f64>,
    pub(super) promised: f64,
    pub(super) stiff: Vec<f64>,
    pub(super) curvature: f64,
}

impl Around<'_, '_, '_> {
    /// Coefficients that run to a limit of their range.
    pub(super) fn unknown(&self, e: &Engine) -> Vec<usize> {
        let unknown = e.unknown(&self.here.slope.beta_curvature, HARDLY);
        (0..unknown.len()).filter(|&j| unknown[j]).collect()
    }

    /// Those, and the correlations or ranges of structures at a limit, which `finish` compares with the limit itself.
    pub(super) fn at_ends(&self, e: &Engine) -> Vec<usize> {
        let (p, shape) = (self.here.point.beta.len(), &self.here.point.shape);
        let limits = e.patterns.iter().filter(|q| q.pattern.limit(q.theta(shape)).is_some());
        let ends = limits.flat_map(|q| q.first + q.pattern.deviations()..q.first + q.pattern.parameters());
        self.unknown(e).into_iter().chain(ends.map(|i| p + i)).collect()
    }

    /// The minimiser of the quadratic model with every parameter within its range; those `gone` (coefficients, then
    /// parameters of structures) stay.
    pub(super) fn propose(&self, e: &Engine, close: bool, damping: f64, gone: &[usize]) -> Proposal {
        let (set, Here { point, slope, working, turned, rest, fixed, .. }) = (self.set, self.here);
        let (p, free) = (point.beta.len(), point.shape.len());
        let sizes = (p, free, set.components.len() + free);
        let whole = close && (self.here.exact || slope.trade.is_some());
        let (mut joint, curvature) = Joint::new(slope, working, turned, sizes, rest, (close, whole), damping);
        if let Some(h) = self.measured {
            joint.replace(h, damping);
        }
        joint.eliminate(&e.latent);
        if damping < 0.5 && !(close && self.here.exact) {
            joint.correct(self.secants);
        }
        set.constraint.followers().for_each(|(i, j)| joint.tie(p + i, p + j));
        (0..free).filter(|&i| rest[i]).for_each(|i| joint.hold(p + i));
        gone.iter().for_each(|&j| joint.hold(j));
        let residual = set.residual.as_ref();
        residual.iter().filter(|r| r.rests(point, slope)).for_each(|r| joint.hold(r.at));
        let stiff = joint.diagonal(damping);
        let least = residual.and_then(|r| r.room(&point.beta));
        let (mut db, d, promised) = within(&mut joint, &set.components, fixed, &set.charts, &point.shape, rest, least);
        set.constraint.followers().for_each(|(i, j)| db[p + j] = db[p + i]);
        Proposal { db, d, promised, stiff, curvature }
    }
}

impl Proposal {
    /// Curvature along the step, relative to what damping adds there.
    pub(super) fn relative_curvature(&self) -> f64 {
        let size: f64 = self.stiff.iter().zip(self.db.iter().chain(&self.d)).map(|(s, d)| s * d * d).sum();
        if size > 0.0 {
            2.0 * self.promised.abs() / size
        } else {
            1.0
        }
    }
}

/// The joint quadratic model in (beta, components): gradient and Hessian.
pub(super) struct Joint {
    pub(super) p: usize,
    pub(super) c: usize,
    pub(super) gradient: Vec<f64>,
    pub(super) hessian: Vec<f64>,
    /// What turning a zero direction costs. The subproblem knows it by itself, so it is not in `hessian`; definiteness and
    /// secants are of the sum.
    pub(super) turning: Vec<f64>,
    /// Directions at rest on a floor: nothing is known of their curvature, and none is made up.
    pub(super) still: Vec<bool>,
}

impl Joint {
    /// `free` of the c directions are pattern parameters, which join beta; `rest` are those that rest on a floor. Near the
    /// optimum (`close`) the observed curvature is taken, and where it is `whole` as it is.
    pub(super) fn new(
        slope: &Slope,
        sigma: &linear::Slope,
        turning: &[f64],
        (p, free, c): (usize, usize, usize),
        rest: &[bool],
        (close, whole): (bool, bool),
        damping: f64,
    ) -> (Self, f64) {
        let n = p + c;
        let curvature = free_curvature(sigma, turning, rest, close);
        let (least, trade) = (curvature.least, slope.trade.as_ref());
        let hcc =
            if whole { whole_observed(slope, turning, rest, damping) } else { hessian(&curvature, turning, damping) };
        let mut h = vec![0.0; n * n];
        for j in 0..p {
            for i in 0..p {
                h[i + j * n] = slope.beta_curvature[i + j * p];
            }
            h[j + j * n] *= 1.0 + damping;
        }
        let mut cross = slope.cross.clone();
        if trade.is_some() && !close {
            cross.fill(0.0);
        }
        // A zero direction that turns has a variance of second order: what coefficients do to its multiplier is of third.
        (free..c).filter(|&j| rest[j]).for_each(|j| cross[j * p..(j + 1) * p].fill(0.0));
        let mut w = cross.clone();
        dense::solve_left_l(&slope.beta_factor, p, p, &mut w, c, p);
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
        let still = (0..n).map(|i| i >= p + free && rest[i - p]).collect();
        (Joint { p: p + free, c: c - free, gradient, hessian: h, turning, still }, least)
    }

    /// Change the Hessian with its turning part in it.
    pub(super) fn whole(&mut self, change: impl FnOnce(&mut Vec<f64>, usize)) {
        let n = self.p + self.c;
        self.hessian.iter_mut().zip(&self.turning).for_each(|(h, t)| *h += t);
        change(&mut self.hessian, n);
        self.hessian.iter_mut().zip(&self.turning).for_each(|(h, t)| *h -= t);
    }

    /// Correct the Hessian by steps and the changes of the gradient along them.
    pub(super) fn correct(&mut self, pairs: &[(Vec<f64>, Vec<f64>)]) {
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
    pub(super) fn replace(&mut self, h: &[f64], damping: f64) {
        self.hessian = h.to_vec();
        self.make_positive(sized);
        self.whole(|h, n| (0..n).for_each(|i| h[i * (n + 1)] *= 1.0 + damping));
    }

    /// Make the Hessian positive definite.
    pub(super) fn make_positive(&mut self, made: fn(f64) -> f64) {
        let still = self.still.clone();
        self.whole(|h, _| *h = positive_beside(h, &still, made));
    }

    /// Profile out coefficients that are found inside (their gradient is zero).
    pub(super) fn eliminate(&mut self, latent: &[usize]) {
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
    pub(super) fn diagonal(&self, damping: f64) -> Vec<f64> {
        let n = self.p + self.c;
        (0..n).map(|i| self.hessian[i * (n + 1)].abs() / (1.0 + damping)).collect()
    }

    /// Take a parameter out of the search.
    pub(super) fn hold(&mut self, i: usize) {
        let n = self.p + self.c;
        for j in 0..n {
            self.hessian[i + j * n] = 0.0;
            self.hessian[j + i * n] = 0.0;
        }
        self.hessian[i + i * n] = 1.0;
        self.gradient[i] = 0.0;
    }

    /// Move a parameter by `to` and take it out of the search; what the model gains by that.
    pub(super) fn pin(&mut self, i: usize, to: f64) -> f64 {
        let n = self.p + self.c;
        let gained = -to * (self.gradient[i] + 0.5 * self.hessian[i + i * n] * to);
        (0..n).for_each(|t| self.gradient[t] += self.hessian[t + i * n] * to);
        self.hold(i);
        gained
    }

    /// Let two parameters move together: the second one's part is the first one's.
    pub(super) fn tie(&mut self, i: usize, j: usize) {
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

    /// Curvature of the covariances, made positive definite, as the subproblem takes it: which counts by itself what turning
    /// a zero direction costs. That cost falls as the variance beside it grows; where it is all that holds a step, it is
    /// left in the curvature, and the multipliers (in the slope `gc`) out of it.
    fn beside_faces(&self, mut hcc: Vec<f64>, gc: &mut [f64]) -> Vec<f64> {
        let (p, c, n) = (self.p, self.c, self.p + self.c);
        let (still, turning) = (&self.still[p..], |t: usize| self.turning[p + t % c + (p + t / c) * n]);
        (0..c * c).for_each(|t| hcc[t] += turning(t));
        let whole = positive_beside(&hcc, still, raised);
        if (0..c * c).all(|t| turning(t) == 0.0) {
            return whole;
        }
        (0..c * c).for_each(|t| hcc[t] = whole[t] - turning(t));
        if is_positive(&among(&hcc, &moving(still), c)) {
            return hcc;
        }
        gc.iter_mut().zip(still).filter(|(_, still)| **still).for_each(|(g, _)| *g = 0.0);
        whole
    }

    /// Step that minimises the model with every covariance positive semidefinite, and the decrease it promises.
    pub(super) fn minimise(&self, components: &[Component], fixed: &[bool]) -> (Vec<f64>, Vec<f64>, f64) {
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
        let (bb, l) = positive_factored(bb, p, raised);
        let l = l.unwrap_or_else(|| dense::diagonal(p, |j| bb[j + j * p].abs().sqrt().max(1e-6)));
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
        let hcc = self.beside_faces(hcc, &mut gc);
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

/// `positive` among the directions that are not still: these have no size by which that of the others is to be judged.
fn positive_beside(a: &[f64], still: &[bool], made: fn(f64) -> f64) -> Vec<f64> {
    let (n, of) = (still.len(), moving(still));
    let m = of.len();
    if m == n {
        return positive(a, n, made);
    }
    let mut out = a.to_vec();
    positive(&among(a, &of, n), m, made).iter().enumerate().for_each(|(t, v)| out[of[t % m] + of[t / m] * n] = *v);
    out
}

fn moving(still: &[bool]) -> Vec<usize> {
    (0..still.len()).filter(|&i| !still[i]).collect()
}

/// Rows and columns `of` a matrix (n x n).
fn among(a: &[f64], of: &[usize], n: usize) -> Vec<f64> {
    let m = of.len();
    (0..m * m).map(|t| a[of[t % m] + of[t / m] * n]).collect()
}

fn is_positive(a: &[f64]) -> bool {
    let m = a.len().isqrt();
    dense::cholesky(&mut a.to_vec(), m, m).is_ok()
}

/// The observed curvature as it is, without what is held: it may be that of a saddle, which is seen where it has joined
/// that of the coefficients.
pub(super) fn whole_observed(slope: &Slope, turning: &[f64], rest: &[bool], damping: f64) -> Vec<f64> {
    let c = rest.len();
    let free = |t: usize| !rest[t % c] && !rest[t / c];
    let mut h: Vec<f64> = (0..c * c).map(|t| if free(t) { slope.observed[t] } else { 0.0 }).collect();
    (0..c).for_each(|j| h[j * (c + 1)] += damping * (h[j * (c + 1)].abs() + turning[j * (c + 1)]) + 1e-300);
    h
}

/// The minimiser of the model with every parameter within its range, and a coefficient not below its `least` step: what
/// would leave is put on its end, and the others follow.
pub(super) fn within(
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
                    joint.make_positive(raised);
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
