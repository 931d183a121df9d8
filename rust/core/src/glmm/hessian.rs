//! Standard errors of a generalised model: the Hessian by differences of the exact gradient.

use std::sync::Arc;

use rayon::prelude::*;

use crate::dense;
use crate::design::TermSlot;
use crate::fit::Outer;
use crate::optimise;
use crate::CoreError;

use super::fit::{Glmm, Gradient};
use super::laplace::{Point, BOUNDLESS, INNER_TOLERANCE};
use super::patterns;
use super::penalty::Target;
use super::rows::{GlmmRows, Want};
use super::search;

impl Glmm {
    /// Inverse of the Hessian of -log-likelihood, priors included, in (beta, theta), user's units: differences of the
    /// exact gradient, central or (`one_side`) not. NaN for dropped columns and for parameters that take part in a
    /// direction without curvature; 0 for those held. Jeffreys' prior is left out: errors are those of the information
    /// (Heinze & Schemper 2002).
    pub fn vcov(&mut self, rows: &GlmmRows<'_>) -> Result<Vec<f64>, CoreError> {
        let (v, p) = (self.covariance(rows)?, self.engine.plan.p());
        let q = p + self.theta_len();
        Ok(self.user_covariance(v.as_deref(), p, q - p))
    }

    /// The same in internal coordinates; none where the density ends beside the optimum.
    pub(super) fn covariance(&mut self, rows: &GlmmRows<'_>) -> Result<Option<Vec<f64>>, CoreError> {
        if self.inverse.is_none() {
            let jeffreys = std::mem::take(&mut self.engine.jeffreys);
            let out = self.inverse_hessian(rows);
            self.engine.jeffreys = jeffreys;
            if jeffreys || out.is_err() {
                self.restore(rows)?;
            }
            self.inverse = Some(out?);
        }
        Ok(self.inverse.clone().flatten())
    }

    /// Give the mean's coefficients of a normal response the covariance (X'V^-1X)^-1 that is theirs given the variances, as
    /// everywhere else: how they went with these in the data at hand is nothing in expectation.
    fn forget_chance(&mut self, rows: &GlmmRows<'_>, here: &Point, v: &mut [f64], q: usize) {
        let e = &mut self.engine;
        let own_priors = e.priors.iter().any(|p| matches!(p.target, Target::Coefficients(_)));
        if !e.is_normal(rows) || e.quadrature.is_some() || !e.level_weights.is_empty() || own_priors {
            return;
        }
        let mean = e.plan.coefficients_of(0);
        let r = mean.len();
        let Some(given) = scaled_inverse(&e.mean_information(rows, here, &mean), r) else { return };
        for (b, &j) in mean.iter().enumerate() {
            (0..q).for_each(|i| (v[i + j * q], v[j + i * q]) = (0.0, 0.0));
            mean[..=b].iter().enumerate().filter(|(a, _)| !given[a + b * r].is_nan()).for_each(|(a, &i)| {
                (v[i + j * q], v[j + i * q]) = (given[a + b * r], given[a + b * r]);
            });
        }
    }

    fn inverse_hessian(&mut self, rows: &GlmmRows<'_>) -> Result<Option<Vec<f64>>, CoreError> {
        let at = self.at()?.clone();
        let mut theta = self.engine.model.internal_theta(&at.lambda);
        theta.extend(&at.shape);
        let p = self.engine.plan.p();
        let q = p + theta.len();
        let Steps { step, unit, mut lost, limited, loss } = self.steps(rows, &at, &theta);
        let mut h = vec![0.0; q * q];
        let latent = self.engine.latent.clone();
        let r = latent.len();
        let mut moves = vec![0.0; r * q];
        let free = self.free_parameters(q);
        let known = self.known_second_derivatives(rows, &at);
        let told = |j: usize| known.as_ref().is_some_and(|k| k.mean.contains(&j));
        let list: Vec<usize> = free
            .iter()
            .flatten()
            .copied()
            .filter(|&j| !latent.contains(&j) && !lost.contains(&j) && !told(j))
            .collect();
        for (j, step, sides) in self.differences(rows, &theta, &list, &step, loss)? {
            if sides.is_none() && j >= p {
                // The covariance ends there: it is one of its limits.
                lost.push(j);
                continue;
            }
            let Some((up, down)) = sides else {
                // The density ends right beside the optimum: there is no second derivative.
                return Ok(None);
            };
            for (i, (a, b)) in up.beta.iter().chain(&up.theta).zip(down.beta.iter().chain(&down.theta)).enumerate() {
                h[i + j * q] = (a - b) / (4.0 * step);
            }
            for (i, &l) in latent.iter().enumerate() {
                moves[i + j * r] = (up.mode[l] - down.mode[l]) / (2.0 * step);
            }
        }
        symmetrise(&mut h, q, told);
        known.iter().for_each(|k| k.put(&mut h, q, p));
        lost.iter().for_each(|&j| leave_out(&mut h, q, j));
        let n = free.len();
        // Coefficients come first among the free parameters, and each is one of them.
        let (mut h, mut moves) = (summed(&summed_rows(&h, q, &free), n, &free), summed(&moves, r, &free));
        let limited: Vec<usize> = list.into_iter().filter(|j| limited.contains(j)).collect();
        while let Some(j) = adrift(&h, n, &limited) {
            leave_out(&mut h, n, j);
            moves[j * r..(j + 1) * r].fill(0.0);
            lost.push(j);
        }
        let unit: Vec<f64> = free.iter().map(|set| set.iter().map(|&j| unit[j]).fold(0.0, f64::max)).collect();
        let ranges = patterns::ranges(&self.engine.patterns, q - patterns::length(&self.engine.patterns));
        let inverse = loop {
            let inverse =
                if r == 0 { scaled_inverse(&h, n) } else { self.latent_covariance(&at, &h, n, &moves, &unit)? };
            let vague = |i: &usize| inverse.as_ref().is_some_and(|v| v[i * (n + 1)] > VAGUE * VAGUE);
            let alone = |i: &usize| matches!(&free[*i][..], [j] if ranges.contains(j) && !lost.contains(j));
            let Some(i) = (0..n).find(|i| alone(i) && vague(i)) else { break inverse };
            leave_out(&mut h, n, i);
            moves[i * r..(i + 1) * r].fill(0.0);
            lost.push(free[i][0]);
        };
        let mut inverse = inverse.map(|v| spread(&v, q, &free));
        if let Some(v) = &mut inverse {
            for &j in &lost {
                (0..q).for_each(|i| (v[i + j * q], v[j + i * q]) = (f64::NAN, f64::NAN));
            }
        }
        Ok(inverse)
    }

    /// What errors of predictions take beside the factor: the covariance of (beta, theta), and how the effects follow
    /// theta. None where there is no covariance.
    pub fn spread(&mut self, rows: &GlmmRows<'_>) -> Result<Option<Arc<Spread>>, CoreError> {
        if self.spread.is_none() {
            self.spread = Some(self.new_spread(rows)?.map(Arc::new));
        }
        Ok(self.spread.clone().flatten())
    }

    fn new_spread(&mut self, rows: &GlmmRows<'_>) -> Result<Option<Spread>, CoreError> {
        let Some(mut v) = self.covariance(rows)? else { return Ok(None) };
        v.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = 0.0);
        let at = self.at()?.clone();
        let mut theta = self.engine.model.internal_theta(&at.lambda);
        theta.extend(&at.shape);
        let p = at.beta.len();
        let q = p + theta.len();
        let steps = self.steps(rows, &at, &theta).step;
        let centre = self.centre(rows, &theta);
        if let Some(here) = &centre {
            self.forget_chance(rows, here, &mut v, q);
        }
        let follow = |j: usize| {
            let (here, step) = (centre.as_ref()?, steps[p + j]);
            let change = self.lambda_change(&theta, j, step).filter(|_| v[(p + j) * (q + 1)] > 0.0)?;
            let u = self.engine.mode_change(here, &vec![0.0; p], &change).0;
            let mut moves = self.engine.effects(&change, &here.u);
            let own = self.engine.effects(&here.lambda, &u);
            moves.iter_mut().flatten().zip(own.iter().flatten()).for_each(|(m, o)| *m = (*m + o) / step);
            Some(moves)
        };
        let moves = (0..theta.len()).map(follow).collect();
        self.at = Some(at);
        self.restore(rows)?;
        Ok(Some(Spread { v, moves }))
    }

    /// How far differences go, and which parameters have none.
    fn steps(&mut self, rows: &GlmmRows<'_>, at: &Point, theta: &[f64]) -> Steps {
        let (_, curve) = self.engine.working_solution(&at.lambda);
        let p = at.beta.len();
        let reach = self.engine.reaches();
        let error: Vec<f64> = (0..p).map(|j| (2.0 / curve[j + j * p].max(1e-300)).sqrt()).collect();
        let loss = self.information_loss(&curve);
        let rounding = f64::EPSILON * loss;
        let stride = if is_far(loss) { rounding.powf(0.2).min(LONG_STEP) } else { STEP };
        let mut step: Vec<f64> = (0..p).map(|j| (stride * error[j]).min(0.1 * reach[j])).collect();
        let mut unit: Vec<f64> = (0..p).map(|j| error[j].min(reach[j])).collect();
        let e = &self.engine;
        let shape = patterns::lost(e.moments(), &e.patterns, &optimise::units(e.moments()), &at.shape);
        // What runs to a limit (a dispersion to that of the Poisson distribution) is left out, and the others have the
        // covariance they have at the limit.
        let vanished = self.vanished(&shape);
        let none = search::Residual::of(e, rows).filter(|r| r.is_zero(&at.beta)).map(|r| r.at);
        let unknown = e.unknown(&curve, BOUNDLESS);
        let gone = |j: usize| if j < p { unknown[j] || none == Some(j) } else { vanished[j - p] };
        let lost = (0..p + theta.len()).filter(|&j| gone(j)).collect();
        let mut scale = e.model.theta_scale();
        scale.extend(patterns::scale(e.moments(), &e.patterns));
        unit.extend(theta.iter().zip(&scale).map(|(t, s)| t.abs().max(*s).min(1e6)));
        step.extend(unit[p..].iter().map(|u| stride * u));
        let limited = (0..p).filter(|&j| reach[j].is_finite()).collect();
        Steps { step, unit, lost, limited, loss }
    }

    /// What needs no differences: the coefficients of the mean of a normal response whose terms all have structures.
    fn known_second_derivatives(&mut self, rows: &GlmmRows<'_>, at: &Point) -> Option<Known> {
        let e = &mut self.engine;
        let plain = e.latent.is_empty() && e.quadrature.is_none() && e.level_weights.is_empty();
        let structured = !e.patterns.is_empty() && e.lmm().components.is_empty();
        if !plain || !structured || !e.is_normal(rows) || e.lifted(&at.lambda, &at.shape).ok()? != at.lambda {
            return None;
        }
        let cross = e.slope(rows, at).cross.iter().map(|v| 0.5 * v).collect();
        let mean = e.plan.coefficients_of(0);
        Some(Known { own: e.mean_information(rows, at, &mean), mean, cross })
    }

    /// Information of the rows about a coefficient over what is left of it beside the random effects, the largest ratio.
    /// Rounding errors of the rows' count as much more in differences, whose step (in standard errors of coefficients and
    /// in theta's own size) grows with it.
    fn information_loss(&self, curve: &[f64]) -> f64 {
        let p = self.engine.plan.p();
        let all = &self.engine.moments().xx;
        (0..p).map(|j| 2.0 * all[j * (p + 2)] / curve[j * (p + 1)].max(1e-300)).fold(1.0, f64::max)
    }

    /// Internal parameters (beta, theta) that are free, each with those tied to it.
    fn free_parameters(&self, q: usize) -> Vec<Vec<usize>> {
        let m = patterns::length(&self.engine.patterns);
        let own = self.engine.constraint.free(m).into_iter().map(|set| set.iter().map(|i| q - m + i).collect());
        (0..q - m).map(|j| vec![j]).chain(own).collect()
    }

    /// Which parameters of covariances (theta, then those of structures, of which `lost` are at a limit of their own) say
    /// nothing: the rows know nothing of effects in a predictor that runs to a limit.
    fn vanished(&self, lost: &[bool]) -> Vec<bool> {
        let (plan, m) = (&self.engine.plan, self.engine.moments());
        let none = |f: usize, at: usize| {
            let (factor, k) = (&m.factors[f], m.factors[f].cols);
            let known: f64 = factor.gram.chunks_exact(k * k).map(|g| g[at * (k + 1)]).sum();
            known.abs().sqrt() * BOUNDLESS * self.engine.reach(plan.z[f].columns[at].component) < 1.0
        };
        let own = |(f, s): (usize, &TermSlot)| -> Vec<bool> {
            (0..s.cols).flat_map(|c| s.structure.rows(c, s.cols)).map(|r| none(f, s.offset + r)).collect()
        };
        let mut out: Vec<bool> = self.engine.model.slots().into_iter().flat_map(own).collect();
        let plain = out.len();
        out.extend(lost);
        for p in &self.engine.patterns {
            if (p.offset..p.offset + p.pattern.k).all(|at| none(p.factor, at)) {
                out[plain + p.first..plain + p.first + p.pattern.parameters()].fill(true);
            }
        }
        out
    }

    /// Gradients on both sides of the optimum along the parameters of a list, with the steps taken; on one side where many
    /// rows allow it and little information is lost (`loss`). Passes over few rows run in one thread, so that copies of the model
    /// share the parameters; how many there are is the same for any number of threads, and so is the result. The model
    /// stays where it is.
    fn differences(
        &mut self,
        rows: &GlmmRows<'_>,
        theta: &[f64],
        list: &[usize],
        step: &[f64],
        loss: f64,
    ) -> Result<Vec<Difference>, CoreError> {
        if rows.n > SHARED_ROWS {
            let at = self.at.clone();
            let ways = self.ways(rows, theta, list, step, loss);
            let one_side = if loss < LITTLE_LOSS { self.one_side(rows, theta, &ways) } else { None };
            let turned = self.at.as_ref().map(|p| &p.lambda) != at.as_ref().map(|p| &p.lambda);
            let out = match one_side {
                Some(out) if !turned => return Ok(out),
                Some(out) => out,
                None => self.both_sides(rows, theta, &ways),
            };
            self.at = at;
            self.restore(rows)?;
            return Ok(out);
        }
        let mut model = self.clone();
        let ways = model.ways(rows, theta, list, step, loss);
        if rows.n * ways.len() < FEW {
            return Ok(model.both_sides(rows, theta, &ways));
        }
        let each = |ways: &[Way]| model.clone().both_sides(rows, theta, ways);
        Ok(ways.par_chunks(ways.len().div_ceil(COPIES)).flat_map_iter(each).collect())
    }

    /// The parameters of a list, their steps, and how the mode moves with them.
    fn ways(&mut self, rows: &GlmmRows<'_>, theta: &[f64], list: &[usize], step: &[f64], loss: f64) -> Vec<Way> {
        let (bent, far) = (BENT * (MUCH_LOSS / loss).min(1.0), is_far(loss));
        let at = self.regular_centre(rows, theta);
        let change = |at: &Point, j: usize| {
            let (p, e) = (at.beta.len(), &self.engine);
            let (mut dbeta, mut dlambda) = (vec![0.0; p], at.lambda.iter().map(|l| vec![0.0; l.len()]).collect());
            if j < p {
                dbeta[j] = step[j];
            } else {
                dlambda = self.lambda_change(theta, j - p, step[j])?;
            }
            Some(e.mode_change(at, &dbeta, &dlambda))
        };
        let way = |&j: &usize| Way { j, step: step[j], mode: at.as_ref().and_then(|at| change(at, j)), bent, far };
        list.iter().map(way).collect()
    }

    /// Stand at the Lambda that theta gives, which may be turned against that of the optimum.
    fn centre(&mut self, rows: &GlmmRows<'_>, theta: &[f64]) -> Option<Point> {
        let at = self.at.clone()?;
        let (lambda, shape) = self.engine.internal_covariance(theta).ok()?;
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * a.abs();
        if lambda.iter().flatten().zip(at.lambda.iter().flatten()).all(near) {
            return Some(at);
        }
        let u = self.engine.carried((&at.lambda, &at.u), &lambda);
        self.at = Some(self.engine.evaluate(rows, &at.beta, &lambda, &shape, &u).ok()?);
        self.at.clone()
    }

    /// The same where derivatives in Lambda exist and the mode is that of random effects alone.
    fn regular_centre(&mut self, rows: &GlmmRows<'_>, theta: &[f64]) -> Option<Point> {
        let (lambda, shape) = self.engine.internal_covariance(theta).ok()?;
        let regular = self.engine.latent.is_empty() && self.engine.lifted(&lambda, &shape).ok()? == lambda;
        regular.then(|| self.centre(rows, theta)).flatten()
    }

    /// Half the difference of Lambda between both sides of the optimum along one parameter of theta.
    fn lambda_change(&self, theta: &[f64], j: usize, step: f64) -> Option<Vec<Vec<f64>>> {
        let side = |by: f64| {
            let mut t = theta.to_vec();
            t[j] += by;
            self.engine.internal_covariance(&t).ok().map(|c| c.0)
        };
        let half = |(a, b): (Vec<f64>, Vec<f64>)| a.iter().zip(&b).map(|(a, b)| 0.5 * (a - b)).collect();
        side(step).zip(side(-step)).map(|(up, down)| up.into_iter().zip(down).map(half).collect())
    }

    /// One-sided differences from the optimum, with half the steps taken: of many rows, whose derivatives in closed form
    /// are good to the last digits, so that a short step has a small error (half of it times the skewness of the
    /// likelihood in standard errors). None, and the model elsewhere, where they would not do.
    fn one_side(&mut self, rows: &GlmmRows<'_>, theta: &[f64], ways: &[Way]) -> Option<Vec<Difference>> {
        if !self.engine.family.is_closed() || self.engine.quadrature.is_some() {
            return None;
        }
        let at = self.at.clone()?;
        let p = at.beta.len();
        let mut beside = vec![];
        for way in ways {
            let (mode, size) = way.mode.as_ref()?;
            let (mut b, mut t) = (at.beta.clone(), theta.to_vec());
            let (moved, by) = if way.j < p { (&mut b[way.j], SHORT) } else { (&mut t[way.j - p], SHORTER) };
            *moved += by * way.step;
            let (lambda, shape) = self.engine.internal_covariance(&t).ok()?;
            if self.engine.lifted(&lambda, &shape).ok()? != lambda {
                return None;
            }
            let u: Vec<f64> = at.u.iter().zip(mode).map(|(u, d)| u + by * d).collect();
            let (there, left) = self.engine.beside(rows, &b, &lambda, &shape, &u, Want::Slope).ok()?;
            beside.push((self.slope_at(rows, &lambda, there).0, left, by * by * size, 0.5 * by * way.step));
        }
        let (lambda, shape) = self.engine.internal_covariance(theta).ok()?;
        let (here, rest) = self.engine.beside(rows, &at.beta, &lambda, &shape, &at.u, Want::Full).ok()?;
        let here = self.slope_at(rows, &lambda, here).0;
        // What is left of the mode's own error is the same on both ends of the step.
        let straight =
            |(_, left, size, _): &(_, f64, f64, _)| left.sqrt() - rest.sqrt() < (BENT * size + RESIDUE).sqrt();
        beside.iter().all(straight).then(|| {
            let each = |(way, (there, _, _, half)): (&Way, _)| (way.j, half, Some((there, here.clone())));
            ways.iter().zip(beside).map(each).collect()
        })
    }

    fn both_sides(&mut self, rows: &GlmmRows<'_>, theta: &[f64], ways: &[Way]) -> Vec<Difference> {
        self.engine.tolerance = NARROW;
        let out = ways.iter().map(|way| self.neighbours(rows, theta, way)).collect();
        self.engine.tolerance = INNER_TOLERANCE;
        out
    }

    /// Gradients on both sides of the optimum along one parameter; the step shrinks where the density ends. A long step
    /// is extrapolated by half of it.
    fn neighbours(&mut self, rows: &GlmmRows<'_>, theta: &[f64], way: &Way) -> Difference {
        let Some(at) = self.at.clone() else { return (way.j, way.step, None) };
        let p = at.beta.len();
        for by in [1.0, 0.1, 0.01] {
            let mut side = |by: f64| {
                let (mut b, mut t) = (at.beta.clone(), theta.to_vec());
                if way.j < p {
                    b[way.j] += by * way.step;
                } else {
                    t[way.j - p] += by * way.step;
                }
                let (lambda, shape) = self.engine.internal_covariance(&t).ok()?;
                let beside = way.mode.as_ref().and_then(|(mode, size)| {
                    let u: Vec<f64> = at.u.iter().zip(mode).map(|(u, d)| u + by * d).collect();
                    self.gradient_beside(rows, &b, (&lambda, &shape), &u, way.bent * by * by * size)
                });
                beside.or_else(|| Some(self.gradient(rows, &b, (&lambda, &shape)).ok()?.0))
            };
            let mut sides = |by: f64| side(by).zip(side(-by));
            let Some(whole) = sides(by) else { continue };
            let found = match way.far.then(|| sides(0.5 * by)).flatten() {
                Some(half) => (whole.0.extrapolated(&half.0), whole.1.extrapolated(&half.1)),
                None => whole,
            };
            return (way.j, by * way.step, Some(found));
        }
        (way.j, way.step, None)
    }

    /// Derivatives at (beta, Lambda) with the mode predicted to first order, which is all that a central difference needs;
    /// none where Lambda is singular, the factorisation fails, or the mode is further than `most` (squared, in terms of its
    /// curvature) from where it is predicted.
    fn gradient_beside(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        (lambda, shape): (&[Vec<f64>], &[f64]),
        u: &[f64],
        most: f64,
    ) -> Option<Gradient> {
        if self.engine.lifted(lambda, shape).ok()? != lambda {
            return None;
        }
        let (at, left) = self.engine.beside(rows, beta, lambda, shape, u, Want::Slope).ok()?;
        (left < most + RESIDUE).then(|| self.slope_at(rows, lambda, at).0)
    }

    /// Covariance where some coefficients are latent: theirs given the rest is that of the joint mode, and they follow
    /// the rest by `moves` (d latent / d outer, r x q). A direction without curvature that one of them does not follow (a
    /// variance of zero is at its least) leaves it its own; `unit` is that of the parameters' changes.
    fn latent_covariance(
        &self,
        at: &Point,
        h: &[f64],
        q: usize,
        moves: &[f64],
        unit: &[f64],
    ) -> Result<Option<Vec<f64>>, CoreError> {
        let latent = &self.engine.latent;
        let r = latent.len();
        let outer: Vec<usize> = (0..q).filter(|j| !latent.contains(j)).collect();
        let o = outer.len();
        let inner: Vec<f64> = (0..o * o).map(|t| h[outer[t % o] + outer[t / o] * q]).collect();
        let Some((identified, flat)) = scaled_identified(&inner, o) else { return Ok(None) };
        let v = without_flat(identified.clone(), &flat, o);
        let (_, lx) = self.engine.joint_factor(&at.lambda)?;
        let given = dense::inverse_from_cholesky(&lx, r, r);
        let moved = |a: usize, by: &dyn Fn(usize) -> f64| (0..o).map(|t| moves[a + outer[t] * r] * by(t)).sum::<f64>();
        // A coefficient that a direction without curvature moves has no variance; others follow what is known.
        let still = |a: usize| {
            flat.iter().all(|axis| {
                let size = (0..o).map(|t| (axis[t] / unit[outer[t]]).abs()).fold(f64::MIN_POSITIVE, f64::max);
                moved(a, &|t| axis[t] / size).abs() < STILL * given[a + a * r].sqrt()
            })
        };
        let lost: Vec<bool> = (0..r).map(|a| !still(a)).collect();
        let mut out = vec![0.0; q * q];
        for (b, &j) in outer.iter().enumerate() {
            for (a, &i) in outer.iter().enumerate() {
                out[i + j * q] = v[a + b * o];
            }
            for (a, &i) in latent.iter().enumerate() {
                let cov = if lost[a] { f64::NAN } else { moved(a, &|t| identified[t + b * o]) };
                out[i + j * q] = cov;
                out[j + i * q] = cov;
            }
        }
        for (b, &j) in latent.iter().enumerate() {
            for (a, &i) in latent.iter().enumerate() {
                let follow = moved(b, &|t| out[i + outer[t] * q]);
                out[i + j * q] = if lost[b] { f64::NAN } else { given[a + b * r] + follow };
            }
        }
        Ok(Some(out))
    }

    /// A covariance of (beta internal, theta) in the user's units; NaN where there is none.
    fn user_covariance(&self, v: Option<&[f64]>, p: usize, m: usize) -> Vec<f64> {
        let plan = &self.engine.plan;
        let (q, full) = (p + m, plan.p_total + m);
        let mut out = vec![f64::NAN; full * full];
        let Some(v) = v else { return out };
        // Rows of the map from internal to user coefficients are images of unit vectors.
        let mut map = vec![0.0; full * q];
        for j in 0..p {
            let mut unit = vec![0.0; p];
            unit[j] = 1.0;
            for (i, b) in plan.user_beta(&unit).iter().enumerate().filter(|(_, b)| !b.is_nan()) {
                map[i + j * full] = *b;
            }
        }
        (0..m).for_each(|j| map[plan.p_total + j + (p + j) * full] = 1.0);
        if !self.engine.model.unshifted() {
            let own = self.engine.model.theta_len();
            let jacobian = self
                .at
                .as_ref()
                .map(|at| self.engine.model.theta_jacobian(&self.engine.model.internal_theta(&at.lambda)));
            for (t, v) in jacobian.into_iter().flatten().enumerate() {
                map[plan.p_total + t % own + (p + t / own) * full] = v;
            }
        }
        let kept: Vec<usize> = plan.kept.iter().copied().chain(plan.p_total..full).collect();
        for &b in &kept {
            for &a in &kept {
                let mut sum = 0.0;
                // Only entries that matter: NaN must not spread.
                for j in (0..q).filter(|&j| map[b + j * full] != 0.0) {
                    for i in (0..q).filter(|&i| map[a + i * full] != 0.0) {
                        sum += map[a + i * full] * v[i + j * q] * map[b + j * full];
                    }
                }
                out[a + b * full] = sum;
            }
        }
        out
    }
}

/// See [`Glmm::spread`]: the covariance of (beta, theta), internal, 0 for what has none, and by entry of theta and factor
/// d b / d theta (levels x cols), none where it is not known or does not matter.
#[derive(Clone, Debug)]
pub struct Spread {
    v: Vec<f64>,
    moves: Vec<Option<Vec<Vec<f64>>>>,
}

impl Outer for Spread {
    fn follows(&self) -> usize {
        self.moves.len()
    }

    fn follow(&self, f: usize, first: usize, z: &[f64], out: &mut [f64]) {
        for (out, moves) in out.iter_mut().zip(&self.moves) {
            if let Some(moves) = moves {
                *out += dense::dot(z, &moves[f][first..first + z.len()]);
            }
        }
    }

    fn variance(&self, slope: &[f64]) -> f64 {
        let q = slope.len().max(1);
        self.v.chunks_exact(q).zip(slope).map(|(column, s)| s * dense::dot(column, slope)).sum()
    }
}

/// Steps of differences and the units of the parameters (standard errors of coefficients, theta's own size), internal;
/// the parameters at a limit, the coefficients that may run to one, and `information_loss`.
struct Steps {
    step: Vec<f64>,
    unit: Vec<f64>,
    lost: Vec<usize>,
    limited: Vec<usize>,
    loss: f64,
}

/// Second derivatives of -log-likelihood in coefficients of the mean, and in them and the parameters of the structures
/// (rows of all coefficients).
struct Known {
    mean: Vec<usize>,
    own: Vec<f64>,
    cross: Vec<f64>,
}

impl Known {
    fn put(&self, h: &mut [f64], q: usize, p: usize) {
        let r = self.mean.len();
        for (b, &j) in self.mean.iter().enumerate() {
            self.mean.iter().enumerate().for_each(|(a, &i)| h[i + j * q] = self.own[a + b * r]);
            for t in p..q {
                h[j + t * q] = self.cross[j + (t - p) * p];
                h[t + j * q] = h[j + t * q];
            }
        }
    }
}

/// Sums over the sets of columns of a matrix of n rows.
fn summed(a: &[f64], n: usize, sets: &[Vec<usize>]) -> Vec<f64> {
    sets.iter().flat_map(|set| (0..n).map(move |i| set.iter().map(|&j| a[i + j * n]).sum())).collect()
}

/// Sums over the sets of rows of a square matrix.
fn summed_rows(a: &[f64], q: usize, sets: &[Vec<usize>]) -> Vec<f64> {
    a.chunks_exact(q.max(1)).flat_map(|c| sets.iter().map(move |set| set.iter().map(|&i| c[i]).sum())).collect()
}

/// The matrix over sets, given to each of their members; 0 elsewhere.
fn spread(v: &[f64], q: usize, sets: &[Vec<usize>]) -> Vec<f64> {
    let r = sets.len();
    let mut out = vec![0.0; q * q];
    for (b, columns) in sets.iter().enumerate() {
        for (a, rows) in sets.iter().enumerate() {
            for &j in columns {
                rows.iter().for_each(|&i| out[i + j * q] = v[a + b * r]);
            }
        }
    }
    out
}

/// A parameter, its step, the change of the mode along it with its squared size, where that is known, the share of that
/// by which the mode may be elsewhere (squared), and whether the step is a long one.
struct Way {
    j: usize,
    step: f64,
    mode: Option<(Vec<f64>, f64)>,
    bent: f64,
    far: bool,
}

impl Gradient {
    /// What makes the difference of both ends of a step, over it, one of fourth order; `half` is at half the step
    /// (Richardson 1911).
    fn extrapolated(&self, half: &Gradient) -> Gradient {
        let of = |whole: &[f64], half: &[f64]| whole.iter().zip(half).map(|(w, h)| (8.0 * h - w) / 3.0).collect();
        Gradient {
            beta: of(&self.beta, &half.beta),
            theta: of(&self.theta, &half.theta),
            mode: of(&self.mode, &half.mode),
            ..self.clone()
        }
    }
}

/// Whether rounding asks for steps whose own error would show.
fn is_far(loss: f64) -> bool {
    f64::EPSILON * loss > STEP.powi(3)
}

/// A parameter, the step taken, and the gradients on both sides.
type Difference = (usize, f64, Option<(Gradient, Gradient)>);

/// Squared distance of the mode from where it is predicted, as a share of the squared way to it: this is the error of the
/// difference's derivative. And what rounding leaves.
const BENT: f64 = 1e-6;
const RESIDUE: f64 = 1e-14;

/// The usual step of the differences, and the longest, which are extrapolated.
const STEP: f64 = 3e-4;
const LONG_STEP: f64 = 3e-2;
/// Largest loss of information (see `information_loss`) for one-sided differences: what bends a predicted mode changes
/// their gradients by as much more as the rows of a level know better than its variance.
const LITTLE_LOSS: f64 = 100.0;
/// Above this loss modes must be predicted better in central differences, too: beside the stiff rows of a dispersion that
/// ran to its limit their errors are larger than what is left of the information.
const MUCH_LOSS: f64 = 1e4;
/// Steps of one-sided differences in those of central ones: of coefficients, which are in standard errors, and of theta,
/// which are in its own size, so that the modes bend by as much.
const SHORT: f64 = 0.03;
const SHORTER: f64 = 5e-4;
/// Squared Newton decrement of modes where they are not predicted: their error is divided by the step.
const NARROW: f64 = 1e-13;
/// Rows times parameters that are not worth a thread.
const FEW: usize = 4_096;
/// Rows up to which copies of the model work side by side, and how many at most.
const SHARED_ROWS: usize = 50_000;
const COPIES: usize = 16;
/// Share of a null direction that makes a parameter unidentified.
const LOADING: f64 = 1e-4;
/// Eigenvalue of the scaled Hessian below which its direction counts as flat.
const FLAT: f64 = 1e-7;

/// Share of a direction without curvature that makes it a coefficient's own.
const OWN: f64 = 0.99;
/// Standard errors, in units of what changes, by which a latent coefficient may follow a parameter without a variance:
/// more than the errors of differences.
const STILL: f64 = 1e-2;

/// The mean of both halves of a Hessian by differences; along parameters whose columns are told, the other one.
fn symmetrise(h: &mut [f64], q: usize, told: impl Fn(usize) -> bool) {
    for j in 0..q {
        for i in 0..j {
            let v = match (told(i), told(j)) {
                (false, false) => 0.5 * (h[i + j * q] + h[j + i * q]),
                (false, true) => h[j + i * q],
                _ => h[i + j * q],
            };
            h[i + j * q] = v;
            h[j + i * q] = v;
        }
    }
}

/// Standard error of the logarithm of a range or smoothness with which it may be anything.
const VAGUE: f64 = 10.0;

/// Take a parameter out of a Hessian.
fn leave_out(h: &mut [f64], q: usize, j: usize) {
    (0..q).for_each(|i| (h[i + j * q], h[j + i * q]) = (0.0, 0.0));
    h[j + j * q] = 1.0;
}

/// One of the coefficients `limited` that by itself is a direction without curvature: it runs to a limit of its range, and
/// what is left of its row in the Hessian is rounding, which must not spread to the others.
fn adrift(h: &[f64], q: usize, limited: &[usize]) -> Option<usize> {
    let none = limited.iter().find(|&&j| h[j * (q + 1)].abs() < BOUNDLESS.powi(-2));
    if none.is_some() {
        return none.copied();
    }
    let scaled = unit_diagonal(h, q)?.0;
    if dense::cholesky(&mut scaled.clone(), q, q).is_ok() {
        return None;
    }
    let (w, e) = dense::eigen_symmetric(&scaled, q);
    let flat = e.chunks_exact(q.max(1)).zip(&w).filter(|(_, w)| **w < FLAT);
    flat.flat_map(|(axis, _)| limited.iter().filter(|&&j| axis[j].powi(2) > OWN)).next().copied()
}

/// A Hessian scaled to a unit diagonal, and the scales; none where it is not finite.
fn unit_diagonal(h: &[f64], q: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    if h.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let d: Vec<f64> = (0..q).map(|j| 1.0 / h[j + j * q].abs().max(1e-300).sqrt()).collect();
    Some(((0..q * q).map(|t| h[t] * d[t % q] * d[t / q]).collect(), d))
}

/// Inverse of a Hessian, scaled to a unit diagonal first. Where it is not positive definite, the inverse on the subspace
/// that it identifies: parameters that take part in a flat direction have NaN.
fn scaled_inverse(h: &[f64], q: usize) -> Option<Vec<f64>> {
    scaled_identified(h, q).map(|(v, flat)| without_flat(v, &flat, q))
}

/// The inverse on the subspace that a Hessian identifies, and its flat directions, of unit length where its diagonal is 1.
fn scaled_identified(h: &[f64], q: usize) -> Option<(Vec<f64>, Vec<Vec<f64>>)> {
    let (scaled, d) = unit_diagonal(h, q)?;
    let mut l = scaled.clone();
    let (mut v, mut flat) = if dense::cholesky(&mut l, q, q).is_ok() {
        (dense::inverse_from_cholesky(&l, q, q), vec![])
    } else {
        identified_inverse(&scaled, q)
    };
    (0..q * q).for_each(|t| v[t] *= d[t % q] * d[t / q]);
    for axis in &mut flat {
        axis.iter_mut().zip(&d).for_each(|(a, d)| *a = if a.abs() > LOADING { *a * d } else { 0.0 });
    }
    Some((v, flat))
}

/// The inverse with NaN for what takes part in flat directions.
fn without_flat(mut v: Vec<f64>, flat: &[Vec<f64>], q: usize) -> Vec<f64> {
    for j in (0..q).filter(|&j| flat.iter().any(|axis| axis[j] != 0.0)) {
        (0..q).for_each(|i| (v[i + j * q], v[j + i * q]) = (f64::NAN, f64::NAN));
    }
    v
}

/// The inverse of a Hessian with a unit diagonal where it has curvature, and the axes along which it has none.
fn identified_inverse(h: &[f64], q: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (w, e) = dense::eigen_symmetric(h, q);
    let (mut out, mut flat) = (vec![0.0; q * q], vec![]);
    for (axis, &w) in e.chunks_exact(q).zip(&w) {
        if w < FLAT {
            flat.push(axis.to_vec());
            continue;
        }
        for j in 0..q {
            for i in 0..q {
                out[i + j * q] += axis[i] * axis[j] / w;
            }
        }
    }
    (out, flat)
}
