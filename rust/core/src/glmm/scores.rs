//! Questions to a fitted model whose groups are independent: scores by cluster, other numbers of quadrature nodes,
//! levels that count several times.

use super::fit::{Glmm, GlmmReport, Method};
use super::patterns;
use super::rows::{self, GlmmRows};
use super::search::Found;
use crate::error::shape;
use crate::optimise::{self, Boundary, Outcome};
use crate::CoreError;

/// The log-likelihood at the estimate with a number of quadrature nodes.
#[derive(Clone, Debug)]
pub struct Nodes {
    pub loglik: f64,
    /// In (beta, theta), user's units.
    pub gradient: Vec<f64>,
    /// By level of the outermost factor.
    pub groups: Vec<f64>,
    /// A term of the outermost factor.
    pub term: usize,
}

impl Glmm {
    /// Let the log integral of every level of a term's factor count `weights` times (Rabe-Hesketh & Skrondal 2006).
    pub fn set_level_weights(&mut self, term: usize, weights: &[f64]) -> Result<(), CoreError> {
        let e = &mut self.engine;
        let factors = &e.model.lmm.moments.factors;
        let Some(f) = factors.iter().position(|f| f.slots.iter().any(|s| s.term == term)) else {
            return shape(format!("there is no random term {term}"));
        };
        if weights.len() != factors[f].levels || weights.iter().any(|w| !(*w > 0.0) || !w.is_finite()) {
            return shape(format!("the {} levels of term {term} need positive weights", factors[f].levels));
        }
        e.level_weights.resize(factors.len(), vec![]);
        e.level_weights[f] = weights.to_vec();
        Ok(())
    }

    /// Stand at (beta, theta) in the user's units, and report that point as a search that ended there would.
    pub fn stand(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        theta: &[f64],
        method: Method,
    ) -> Result<GlmmReport, CoreError> {
        self.adopt(rows, beta, theta, method)?;
        let point = self.at()?.clone();
        let (gradient, _) = self.gradient(rows, &point.beta, (&point.lambda, &point.shape))?;
        self.restore(rows)?;
        let m = self.engine.moments();
        let (_, ranks) = optimise::clip_all(m, &optimise::units(m), &point.lambda, true);
        let singular = ranks.into_iter().filter(|(f, s, rank)| *rank < m.factors[*f].slots[*s].cols);
        let boundary = singular
            .map(|(f, s, rank)| Boundary { term: m.factors[f].slots[s].term, rank, multipliers: vec![] })
            .collect();
        Ok(self.report(&Found {
            point,
            outcome: Outcome::Converged,
            iterations: 0,
            decrease: 0.0,
            curvature: 1.0,
            boundary,
            sigma_gradient: gradient.sigma,
            beta_gradient: gradient.beta,
            shape_gradient: gradient.shape,
            unknown: vec![],
        }))
    }

    /// The log-likelihood of the model at the estimate with `points` nodes a dimension. The model stays where it is.
    pub fn with_nodes(&mut self, rows: &GlmmRows<'_>, points: usize) -> Result<Nodes, CoreError> {
        let at = self.at()?.clone();
        let q = self.engine.nested(points)?;
        let outer = *q.chain.factor.last().unwrap_or(&0);
        let term = self.engine.moments().factors[outer].slots[0].term;
        let before = self.engine.quadrature.replace(q);
        let found = self.nodes_at(rows, &at, term);
        self.engine.quadrature = before;
        self.restore(rows)?;
        found
    }

    fn nodes_at(&mut self, rows: &GlmmRows<'_>, at: &super::laplace::Point, term: usize) -> Result<Nodes, CoreError> {
        let exact = self.engine.evaluate(rows, &at.beta, &at.lambda, &at.shape, &at.u)?;
        let lambda = self.engine.lifted(&at.lambda, &at.shape)?;
        let u = self.engine.carried((&at.lambda, &at.u), &lambda);
        let lifted = self.engine.evaluate(rows, &at.beta, &lambda, &at.shape, &u)?;
        let slope = self.engine.slope(rows, &lifted);
        let sigma = self.engine.sigma_gradient(&lambda, &slope.n);
        let m = &self.engine.model;
        let mut gradient = self.engine.plan.user_gradient(&slope.beta);
        gradient.extend(m.theta_gradient(&m.term_lambda(&at.lambda), &sigma));
        gradient.extend(&slope.gradient[..at.shape.len()]);
        gradient.iter_mut().for_each(|g| *g *= -0.5);
        Ok(Nodes { loglik: -0.5 * exact.deviance, gradient, groups: exact.groups, term })
    }

    /// Gradient of the log-likelihood in (beta, theta), user's units, of every cluster (clusters x parameters, row-major):
    /// `cluster` has the cluster of every row. The clusters must be unions of independent groups.
    pub fn scores(&mut self, rows: &GlmmRows<'_>, cluster: &[u32], count: usize) -> Result<Vec<f64>, CoreError> {
        if cluster.len() != rows.n || cluster.iter().any(|&c| c as usize >= count) {
            return shape("every row needs a cluster");
        }
        let at = self.at()?.clone();
        if at.lambda.is_empty() {
            return self.row_scores(rows, cluster, count);
        }
        let q = match self.engine.quadrature.clone() {
            Some(q) => q,
            None => self.engine.nested(1)?,
        };
        let lambda = self.engine.lifted(&at.lambda, &at.shape)?;
        let u = self.engine.carried((&at.lambda, &at.u), &lambda);
        let before = self.engine.quadrature.replace(q.clone());
        let parts = self
            .engine
            .evaluate(rows, &at.beta, &lambda, &at.shape, &u)
            .and_then(|lifted| self.engine.parts(rows, &q, &lifted));
        let out = parts.and_then(|parts| self.assembled(rows, &at, &lambda, &parts, (cluster, count)));
        self.engine.quadrature = before;
        self.restore(rows)?;
        out
    }

    fn assembled(
        &self,
        rows: &GlmmRows<'_>,
        at: &super::laplace::Point,
        lambda: &[Vec<f64>],
        parts: &super::laplace::Parts,
        (cluster, count): (&[u32], usize),
    ) -> Result<Vec<f64>, CoreError> {
        let (e, p) = (&self.engine, self.engine.plan.p());
        let moments = e.moments();
        let mut beta = rows::fixed_adjoint(&e.plan, rows, &parts.t, Some((cluster, count)));
        let mut n: Vec<Vec<f64>> = moments.factors.iter().map(|f| vec![0.0; count * f.cols * f.cols]).collect();
        for (f, factor) in moments.factors.iter().enumerate() {
            let (k, owner) = (factor.cols, owners(rows, factor.slots[0].term, factor.levels, cluster)?);
            for (l, &c) in owner.iter().enumerate() {
                let c = c as usize;
                let to = &mut beta[c * p..(c + 1) * p];
                for (i, v) in parts.moved[f][l * k..(l + 1) * k].iter().enumerate() {
                    let zx = &factor.zx[(l * k + i) * (p + 1)..][..p];
                    to.iter_mut().zip(zx).for_each(|(o, z)| *o -= z * v);
                }
                let to = &mut n[f][c * k * k..(c + 1) * k * k];
                to.iter_mut().zip(&parts.n[f][l * k * k..(l + 1) * k * k]).for_each(|(o, n)| *o += n);
            }
        }
        let directions = patterns::directions(moments, &e.patterns, &at.shape, lambda);
        let own = e.model.term_lambda(&at.lambda);
        let mut out = vec![];
        for c in 0..count {
            let n: Vec<Vec<f64>> = n
                .iter()
                .zip(&moments.factors)
                .map(|(n, f)| n[c * f.cols * f.cols..(c + 1) * f.cols * f.cols].to_vec())
                .collect();
            let sigma = e.sigma_gradient(lambda, &n);
            out.extend(e.plan.user_gradient(&beta[c * p..(c + 1) * p]).iter().map(|b| -b));
            out.extend(e.model.theta_gradient(&own, &sigma).iter().map(|t| -0.5 * t));
            out.extend(patterns::gradient(moments, &n, &[], &directions)[..at.shape.len()].iter().map(|t| -0.5 * t));
        }
        Ok(out)
    }

    /// A model without random effects.
    fn row_scores(&mut self, rows: &GlmmRows<'_>, cluster: &[u32], count: usize) -> Result<Vec<f64>, CoreError> {
        let eta = self.predictors(rows)?;
        let (e, k) = (&self.engine, self.engine.plan.k);
        let stride = e.family.stride(2);
        let mut t = vec![0.0; rows.n * k];
        let mut row = vec![0.0; stride];
        for (i, t) in t.chunks_exact_mut(k).enumerate() {
            e.family.evaluate(&rows.data, i, &eta[i * k..(i + 1) * k], 2, &mut row);
            let w = rows.weights.map_or(1.0, |w| w[i]);
            t.iter_mut().zip(&row[1..]).for_each(|(t, d)| *t = w * d);
        }
        let beta = rows::fixed_adjoint(&e.plan, rows, &t, Some((cluster, count)));
        Ok(beta.chunks_exact(e.plan.p().max(1)).flat_map(|b| e.plan.user_gradient(b)).collect())
    }
}

/// The cluster that each level of a term belongs to.
fn owners(rows: &GlmmRows<'_>, term: usize, levels: usize, cluster: &[u32]) -> Result<Vec<u32>, CoreError> {
    let mut out = vec![u32::MAX; levels];
    for (i, &c) in cluster.iter().enumerate() {
        let owner = &mut out[rows.terms[term].codes.get(i) as usize];
        if *owner != u32::MAX && *owner != c {
            return shape(format!(
                "level {} of random term {term} lies in two clusters",
                rows.terms[term].codes.get(i)
            ));
        }
        *owner = c;
    }
    out.iter_mut().filter(|o| **o == u32::MAX).for_each(|o| *o = 0);
    Ok(out)
}
