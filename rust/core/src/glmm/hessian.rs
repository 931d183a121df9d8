//! Standard errors of a generalised model: the inverse of the exact Hessian (see `laplace::second`) on the subspace that the
//! rows identify.

use std::sync::Arc;

use crate::dense;
use crate::design::TermSlot;
use crate::fit::Outer;
use crate::optimise;
use crate::CoreError;

use super::fit::Glmm;
use super::laplace::{dot, Point, Way, BOUNDLESS, INNER_TOLERANCE};
use super::patterns;
use super::penalty::Target;
use super::rows::GlmmRows;
use super::search;

/// Second derivatives of minus the log-likelihood, and how the latent coefficients move.
type Exact = (Vec<f64>, Vec<f64>);

impl Glmm {
    /// Gradient and Hessian of -log-likelihood, priors included, at internal (beta, theta), as exact as the mode; rows and
    /// columns of latent coefficients mean nothing. No Hessian where a parameter has no derivative. The model is left
    /// there.
    pub fn derivatives(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        theta: &[f64],
    ) -> Result<(Vec<f64>, Option<Vec<f64>>), CoreError> {
        self.engine.start_weights(rows, beta);
        let (lambda, shape) = self.engine.internal_covariance(theta)?;
        self.engine.tolerance = NARROW;
        let found = self.gradient(rows, beta, (&lambda, &shape));
        let here = found.and_then(|(g, u)| Ok((g, self.engine.evaluate(rows, beta, &lambda, &shape, &u)?)));
        self.engine.tolerance = INNER_TOLERANCE;
        let (gradient, here) = here?;
        let list: Vec<usize> = (0..beta.len() + theta.len()).filter(|j| !self.engine.latent.contains(j)).collect();
        let hessian = self.exact_at(rows, &here, &list)?.map(|found| found.0);
        Ok((gradient.beta.iter().chain(&gradient.theta).map(|g| 0.5 * g).collect(), hessian))
    }

    /// Inverse of the Hessian of -log-likelihood, priors included, in (beta, theta), user's units. NaN for dropped columns and
    /// for parameters that take part in a direction without curvature; 0 for those held. Jeffreys' prior is left out: errors
    /// are those of the information (Heinze & Schemper 2002).
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
        let Identified { unit, mut lost, limited } = self.identified(rows, &at, &theta);
        let latent = self.engine.latent.clone();
        let r = latent.len();
        let free = self.free_parameters(q);
        // Where the covariance ends it has no derivative.
        let slopes = self.lambda_slopes(&theta);
        lost.extend((p..q).filter(|&j| slopes[j - p].is_none() && !lost.contains(&j)).collect::<Vec<_>>());
        let wanted = |j: &usize| !latent.contains(j) && !lost.contains(j);
        let list: Vec<usize> = free.iter().flatten().copied().filter(wanted).collect();
        let Some((mut h, moves)) = self.exact(rows, &theta, &list)? else { return Ok(None) };
        symmetrise(&mut h, q);
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

    /// Second derivatives of minus the log-likelihood along the parameters of a list, as columns of all of them (q x q), and
    /// how the latent coefficients move (r x q). None where they are not finite. The model stays where it is, of many rows at
    /// a closer mode.
    fn exact(&mut self, rows: &GlmmRows<'_>, theta: &[f64], list: &[usize]) -> Result<Option<Exact>, CoreError> {
        if self.engine.quadrature.is_some() && !self.engine.latent.is_empty() {
            return crate::error::shape("levels with weights have no restricted likelihood");
        }
        if rows.n <= SHARED_ROWS {
            return Ok(self.clone().exact_here(rows, theta, list)?.0);
        }
        let (out, here) = self.exact_here(rows, theta, list)?;
        // Normal responses are weighed anew for their information.
        let there = |here: &Point| self.at.as_ref().is_some_and(|at| at.lambda == here.lambda);
        match here.filter(|here| there(here) && !self.engine.is_normal(rows)) {
            Some(here) => self.at = Some(here),
            None => self.restore(rows)?,
        }
        Ok(out)
    }

    /// The same, the engine left at a mode that is closer than the search needs it, which comes with it; none where there is
    /// no such mode.
    fn exact_here(
        &mut self,
        rows: &GlmmRows<'_>,
        theta: &[f64],
        list: &[usize],
    ) -> Result<(Option<Exact>, Option<Point>), CoreError> {
        let at = self.at()?.clone();
        let (lambda, shape) = self.engine.internal_covariance(theta)?;
        // Where Lambda has no inverse nothing can be carried, and the search for the mode begins at the effects' own.
        let mut u = self.engine.carried((&at.lambda, &at.u), &lambda);
        if lambda == at.lambda || u.iter().any(|u| !u.is_finite()) {
            u.clone_from(&at.u);
        }
        self.engine.tolerance = NARROW;
        let here = self.engine.evaluate(rows, &at.beta, &lambda, &shape, &u);
        self.engine.tolerance = INNER_TOLERANCE;
        match here.and_then(|here| Ok((self.exact_at(rows, &here, list)?, here))) {
            // Without a mode there is no derivative; what would take too much memory is said.
            Err(e @ (CoreError::Interrupted | CoreError::Shape(_))) => Err(e),
            Err(_) => Ok((None, None)),
            Ok((found, here)) => Ok((found, Some(here))),
        }
    }

    /// The same at a point whose factor is the current one.
    fn exact_at(&mut self, rows: &GlmmRows<'_>, at: &Point, list: &[usize]) -> Result<Option<Exact>, CoreError> {
        let (p, r) = (self.engine.plan.p(), self.engine.latent.len());
        let mut theta = self.engine.model.internal_theta(&at.lambda);
        theta.extend(&at.shape);
        let slopes = self.lambda_slopes(&theta);
        let q = p + slopes.len();
        let way = |&j: &usize| match j.checked_sub(p) {
            None => Some(Way::Coefficient(j)),
            Some(t) => slopes[t].clone().map(|(f, slope)| Way::Lambda(f, slope)),
        };
        let Some(ways) = list.iter().map(way).collect::<Option<Vec<Way>>>() else { return Ok(None) };
        let found = self.engine.second_derivatives(rows, at, &ways)?;
        let (mut h, mut moves) = (vec![0.0; q * q], vec![0.0; r * q]);
        for (a, &j) in list.iter().enumerate() {
            h[j * q..j * q + p].copy_from_slice(&found.beta[a]);
            for (t, (f, slope)) in slopes.iter().enumerate().filter_map(|(t, s)| Some((t, s.as_ref()?))) {
                h[p + t + j * q] = dot(&found.lambda[a][*f], slope);
            }
            moves[j * r..(j + 1) * r].copy_from_slice(&found.moves[a]);
        }
        self.put_information(rows, at, &mut h, q);
        self.add_bend(at, &found.slope, &mut h, q)?;
        let finite = list.iter().all(|&j| list.iter().all(|&i| h[i + j * q].is_finite()));
        Ok(finite.then_some((h, moves)))
    }

    /// Put X'V^-1X where it is the Hessian of the mean's coefficients, those of normal responses: without cancellation.
    fn put_information(&mut self, rows: &GlmmRows<'_>, at: &Point, h: &mut [f64], q: usize) {
        let e = &mut self.engine;
        if !e.latent.is_empty() || e.quadrature.is_some() || !e.is_normal(rows) {
            return;
        }
        let mean = e.plan.coefficients_of(0);
        let (own, r) = (e.information_alone(rows, at, &mean), mean.len());
        for (b, &j) in mean.iter().enumerate() {
            mean.iter().enumerate().for_each(|(a, &i)| h[i + j * q] = own[a + b * r]);
        }
    }

    /// What the second derivatives of Lambda in the pattern parameters, and those of the priors, add.
    fn add_bend(&self, at: &Point, slope: &[Vec<f64>], h: &mut [f64], q: usize) -> Result<(), CoreError> {
        let e = &self.engine;
        let first = q - patterns::length(&e.patterns);
        for p in &e.patterns {
            let (n, from) = (p.pattern.parameters(), first + p.first);
            for (t, v) in p.lambda_bend(e.moments(), &at.shape, &at.lambda, slope).iter().enumerate() {
                h[from + t % n + (from + t / n) * q] += v;
            }
        }
        if e.priors.is_empty() {
            return Ok(());
        }
        let p = at.beta.len();
        let n = p + at.shape.len();
        let place = |i: usize| if i < p { i } else { first + i - p };
        for (t, v) in e.penalty_second(&at.beta, &at.shape)?.iter().enumerate() {
            h[place(t % n) + place(t / n) * q] += 0.5 * v;
        }
        Ok(())
    }

    /// d Lambda / d theta (internal): the factor and the change of its Lambda, of every parameter in turn; none where it has
    /// no derivative.
    fn lambda_slopes(&self, theta: &[f64]) -> Vec<Option<(usize, Vec<f64>)>> {
        let (e, m) = (&self.engine, self.engine.moments());
        let own = e.model.theta_len();
        let entry = |t: usize| {
            let change = e.model.lambda_from_internal(&unit(own, t));
            let f = change.iter().position(|l| l.iter().any(|v| *v != 0.0))?;
            Some((f, change[f].clone()))
        };
        let mut out: Vec<Option<(usize, Vec<f64>)>> = (0..own).map(entry).collect();
        for p in &e.patterns {
            match p.lambda_slopes(m, &theta[own..]) {
                Some(slopes) => out.extend(slopes.into_iter().map(|l| Some((p.factor, l)))),
                None => out.extend(vec![None; p.pattern.parameters()]),
            }
        }
        out
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
        let centre = self.centre(rows, &theta);
        if let Some(here) = &centre {
            self.forget_chance(rows, here, &mut v, q);
        }
        let slopes = self.lambda_slopes(&theta);
        let follow = |j: usize| {
            let here = centre.as_ref()?;
            let (f, slope) = slopes.get(j)?.as_ref().filter(|_| v[(p + j) * (q + 1)] > 0.0)?;
            let mut change: Vec<Vec<f64>> = here.lambda.iter().map(|l| vec![0.0; l.len()]).collect();
            change[*f].clone_from(slope);
            let u = self.engine.mode_change(here, &vec![0.0; p], &change).0;
            let mut moves = self.engine.effects(&change, &here.u);
            let own = self.engine.effects(&here.lambda, &u);
            moves.iter_mut().flatten().zip(own.iter().flatten()).for_each(|(m, o)| *m += o);
            Some(moves)
        };
        let moves = (0..theta.len()).map(follow).collect();
        self.at = Some(at);
        self.restore(rows)?;
        Ok(Some(Spread { v, moves }))
    }

    /// Which parameters have no second derivative to speak of, and the units of their changes.
    fn identified(&mut self, rows: &GlmmRows<'_>, at: &Point, theta: &[f64]) -> Identified {
        let (_, curve) = self.engine.working_solution(&at.lambda);
        let p = at.beta.len();
        let reach = self.engine.reaches();
        let error = |j: usize| (2.0 / curve[j + j * p].max(1e-300)).sqrt();
        let mut unit: Vec<f64> = (0..p).map(|j| error(j).min(reach[j])).collect();
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
        let limited = (0..p).filter(|&j| reach[j].is_finite()).collect();
        Identified { unit, lost, limited }
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

/// The units of the parameters' changes (standard errors of coefficients, theta's own size), internal; the parameters at a
/// limit, and the coefficients that may run to one.
struct Identified {
    unit: Vec<f64>,
    lost: Vec<usize>,
    limited: Vec<usize>,
}

fn unit(n: usize, j: usize) -> Vec<f64> {
    (0..n).map(|i| f64::from(u8::from(i == j))).collect()
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

/// Squared Newton decrement of the mode where derivatives are taken: they are off by as much as its root.
const NARROW: f64 = 1e-13;
/// Rows up to which a copy of the model is made, so that it stays as it is to the last digit.
const SHARED_ROWS: usize = 50_000;
/// Share of a null direction that makes a parameter unidentified.
const LOADING: f64 = 1e-4;
/// Eigenvalue of the scaled Hessian below which its direction counts as flat.
const FLAT: f64 = 1e-7;

/// Share of a direction without curvature that makes it a coefficient's own.
const OWN: f64 = 0.99;
/// Standard errors, in units of what changes, by which a latent coefficient may follow a parameter without a variance:
/// more than the errors of differences.
const STILL: f64 = 1e-2;

/// The mean of both halves of a Hessian, which differ by rounding errors.
fn symmetrise(h: &mut [f64], q: usize) {
    for j in 0..q {
        for i in 0..j {
            let v = 0.5 * (h[i + j * q] + h[j + i * q]);
            (h[i + j * q], h[j + i * q]) = (v, v);
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
