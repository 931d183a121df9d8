//! Quadrature at a point: weights of the nodes, and the gradient of their sum.

use crate::cholesky::SelectedInverse;
use crate::CoreError;

use super::super::quadrature::{Blocks, Groups, Quadrature, Sums, View, NONE};
use super::super::rows::{self, GlmmRows, LevelSums};
use super::{dot, Engine, Parts, Point};

/// Numbers that are kept by node and level, whatever there are of rows.
const KEPT: usize = 1_000_000;
/// Those for which one look at the columns does for all nodes.
const AT_ONCE: usize = 20_000;

/// X't, Lambda v by factor, d / d M by factor and level.
type Kept = (Vec<f64>, Vec<Vec<f64>>, Vec<Vec<f64>>);

impl Engine {
    /// Use `points` quadrature nodes a dimension; the grouping factors must be nested.
    pub fn set_quadrature(&mut self, points: usize) -> Result<(), CoreError> {
        self.quadrature = None;
        if points > 1 || !self.level_weights.is_empty() {
            self.quadrature = Some(self.nested(points)?);
        }
        Ok(())
    }

    /// The nested integrals of the model, `points` nodes a dimension.
    pub fn nested(&self, points: usize) -> Result<Quadrature, CoreError> {
        if self.has_loadings() {
            return crate::error::shape(
                "sums over independent groups (quadrature, weights, scores) do not go with reduced rank (rr)",
            );
        }
        if !self.moments().couplings.is_empty() {
            return crate::error::shape(
                "sums over independent groups (quadrature, weights, scores) need independent levels; with a relationship \
                 between them use quadrature=1 (Laplace)",
            );
        }
        Quadrature::new(self.moments(), points, &self.level_weights, self.moments().n)
    }

    /// Curvature and modes along the chain.
    pub(super) fn groups(&self, q: &Quadrature, lambda: &[Vec<f64>], u: &[f64]) -> Result<Groups, CoreError> {
        let by_depth = q.chain.factor.iter().map(|&f| self.by_level(f, u)).collect();
        Groups::new(&View::of_moments(self.moments()), &q.chain, lambda, by_depth)
    }

    /// Log weights of all nodes by depth and configuration, the rows' log density at depth 0. The sums by level that
    /// the gradient needs are kept where they cost little.
    pub(super) fn node_weights(
        &self,
        rows: &GlmmRows<'_>,
        q: &Quadrature,
        groups: &Groups,
        lambda: &[Vec<f64>],
    ) -> (Vec<Vec<Vec<f64>>>, Vec<LevelSums>) {
        let mut out: Vec<Vec<Vec<f64>>> = vec![vec![]; q.chain.depth()];
        let size = LevelSums::size(&self.plan).unwrap_or(usize::MAX).saturating_mul(q.rules[0].len());
        let keep = size <= KEPT.max(4 * rows.n);
        let mut nodes = vec![];
        q.walk(groups, &mut |d, at, delta| {
            let mut log = q.prior(groups, d, at, &delta[d]);
            if d == 0 {
                let mut b = q.effects(lambda, groups, delta);
                let inner = q.chain.factor[0];
                if keep {
                    nodes.push(b.swap_remove(0));
                } else {
                    let value = rows::level_pass(&self.plan, &self.family, rows, &self.fixed, &b, inner, None).0;
                    log.iter_mut().zip(&value).for_each(|(l, v)| *l -= v);
                }
            }
            out[d].push(log);
        });
        if !keep {
            return (out, vec![]);
        }
        // The sums of all nodes leave the cache where there are many.
        let at_once = if size <= AT_ONCE { nodes.len() } else { 1 };
        let sums = |nodes: &[Vec<f64>]| rows::level_sums(&self.plan, &self.family, rows, &self.fixed, nodes);
        let kept: Vec<LevelSums> = nodes.chunks(at_once).flat_map(sums).collect();
        for (log, kept) in out[0].iter_mut().zip(&kept) {
            log.iter_mut().zip(&kept.value).for_each(|(l, v)| *l -= v);
        }
        (out, kept)
    }

    /// Gradient of the quadrature sum, with the movement of modes and nodes (see the head of `quadrature`), in the pieces
    /// that belong to rows and levels.
    pub fn parts(&self, rows: &GlmmRows<'_>, q: &Quadrature, at: &Point) -> Result<Parts, CoreError> {
        let groups = self.groups(q, &at.lambda, &at.u)?;
        let (chain, lambda) = (&q.chain, &at.lambda);
        let (mut t, mut sums) = self.node_sums(rows, q, at, &groups);
        let c = groups.adjoint(chain, std::mem::take(&mut sums.moved), &q.path());
        let cov = self.covariance(lambda, &self.laid_out(q, &c));
        let s = rows::skewness_rows(&self.plan, self.moments(), rows, &cov, &self.d3);
        let bs = rows::random_adjoint(&self.plan, rows, &s);
        t.iter_mut().zip(&s).for_each(|(t, s)| *t += s);
        let (moved, n) = self.level_parts(q, at, &groups, &sums, &c, &bs);
        Ok(Parts { t, moved, n })
    }

    /// What all nodes add up to: E D1 (n x K), and sums by level.
    pub(super) fn node_sums(
        &self,
        rows: &GlmmRows<'_>,
        q: &Quadrature,
        at: &Point,
        groups: &Groups,
    ) -> (Vec<f64>, Sums) {
        let (chain, lambda) = (&q.chain, &at.lambda);
        let mut t = vec![0.0; rows.n * self.plan.k];
        let mut sums = Sums::zero(chain);
        q.walk(groups, &mut |d, c, delta| {
            let weight = &at.weights[d][c];
            sums.prior(q, groups, d, weight, delta);
            if d == 0 {
                let b = q.effects(lambda, groups, delta);
                let to = Some((weight.as_slice(), t.as_mut_slice()));
                let inner = chain.factor[0];
                let zg = rows::level_pass(&self.plan, &self.family, rows, &self.fixed, &b, inner, to).1;
                sums.rows(q, groups, lambda, &zg, delta);
            }
        });
        (t, sums)
    }

    /// Lambda v and d / d M by level from E grad h and what moves with the nodes; `bs` = Z's.
    fn level_parts(
        &self,
        q: &Quadrature,
        at: &Point,
        groups: &Groups,
        sums: &Sums,
        c: &Blocks,
        bs: &[Vec<f64>],
    ) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let (chain, lambda) = (&q.chain, &at.lambda);
        let mut n = groups.curved(chain, c);
        // v = H^-1 (slope + B's).
        let mut total = self.project(lambda, bs);
        for (d, &f) in chain.factor.iter().enumerate() {
            self.add_levels(f, &sums.slope[d], &mut total);
        }
        let mut v = total.clone();
        self.solve(&mut v);
        let bs = self.project(lambda, bs);
        for (d, &f) in chain.factor.iter().enumerate() {
            let k = chain.cols[d];
            let part = |x: &[f64]| self.by_level(f, x);
            let (bs, total, v) = (part(&bs), part(&total), part(&v));
            for (t, n) in n[d].iter_mut().enumerate() {
                let (l, i, j) = (t / (k * k) * k, t % k, t / k % k);
                let u = &groups.u[d][l..l + k];
                let z = &sums.direct[d][t - t % k..][..k];
                let direct = dot(&lambda[f][i * k..(i + 1) * k], z);
                *n += direct + (bs[l + i] - total[l + i] + v[l + i]) * u[j] + u[i] * v[l + j];
            }
            // The rule depends on the axes of Lambda, which stays lower triangular: only such changes count.
            for n in n[d].chunks_exact_mut(k * k) {
                for b in 0..k {
                    (0..b).for_each(|a| n[a + b * k] = n[b + a * k]);
                }
            }
        }
        let mut by_factor = vec![vec![]; n.len()];
        n.into_iter().zip(&chain.factor).for_each(|(n, &f)| by_factor[f] = n);
        (self.effects(lambda, &v), by_factor)
    }

    /// Blocks along the chain in the layout of the selected inverse.
    pub(super) fn laid_out(&self, q: &Quadrature, c: &Blocks) -> SelectedInverse {
        let m = self.moments();
        let mut out = SelectedInverse {
            diag: vec![vec![]; m.factors.len()],
            pairs: m.pairs.iter().map(|p| vec![0.0; p.value.len()]).collect(),
        };
        for (d, &f) in q.chain.factor.iter().enumerate() {
            out.diag[f] = c.diag[d].clone();
            for (link, (values, e)) in q.chain.above[d].iter().zip(c.above[d].iter().zip(d + 1..)) {
                let (k, ke) = (q.chain.cols[d], q.chain.cols[e]);
                for (l, v) in values.chunks_exact(k * ke).enumerate().filter(|(l, _)| link.entry[*l] != NONE) {
                    let to = &mut out.pairs[link.pair][link.entry[l] as usize * k * ke..][..k * ke];
                    if link.inner_leads {
                        (0..k * ke).for_each(|t| to[t] = v[t / k + (t % k) * ke]);
                    } else {
                        to.copy_from_slice(v);
                    }
                }
            }
        }
        out
    }

    /// d deviance / d beta and, by factor, d deviance = tr(N dSigma*) of the quadrature sum.
    pub(super) fn quadrature_gradient(
        &self,
        rows: &GlmmRows<'_>,
        q: &Quadrature,
        at: &Point,
    ) -> Result<(Vec<f64>, Vec<Vec<f64>>), CoreError> {
        let p = self.plan.p();
        let (mut beta, moved, by_level) = if self.at_nodes.is_empty() {
            let parts = self.parts(rows, q, at)?;
            (rows::fixed_adjoint(&self.plan, rows, &parts.t, None), parts.moved, parts.n)
        } else {
            self.kept_parts(rows, q, at)?
        };
        for (factor, moved) in self.moments().factors.iter().zip(&moved) {
            for (zx, v) in factor.zx.chunks_exact(p + 1).zip(moved) {
                beta.iter_mut().zip(zx).for_each(|(o, z)| *o -= z * v);
            }
        }
        beta.iter_mut().for_each(|b| *b *= 2.0);
        let mut n = vec![];
        for (lambda, by_level) in at.lambda.iter().zip(&by_level) {
            let mut sum = vec![0.0; lambda.len()];
            by_level.chunks_exact(lambda.len()).for_each(|b| sum.iter_mut().zip(b).for_each(|(s, b)| *s += b));
            n.push(sum);
        }
        Ok((beta, n))
    }

    /// X't, Lambda v and d / d M by level from the sums that the last evaluation kept.
    fn kept_parts(&self, rows: &GlmmRows<'_>, q: &Quadrature, at: &Point) -> Result<Kept, CoreError> {
        let groups = self.groups(q, &at.lambda, &at.u)?;
        let (p, k) = (self.plan.p(), q.chain.cols[0]);
        let (mut beta, mut sums) = (vec![0.0; p], Sums::zero(&q.chain));
        let mut zg = [vec![]];
        q.walk(&groups, &mut |d, c, delta| {
            let (weight, kept) = (&at.weights[d][c], &self.at_nodes[c]);
            sums.prior(q, &groups, d, weight, delta);
            zg[0].clear();
            for (g, w) in kept.zg.chunks_exact(k).zip(weight) {
                zg[0].extend(g.iter().map(|g| w * g));
            }
            sums.rows(q, &groups, &at.lambda, &zg, delta);
            for (xg, w) in kept.xg.chunks_exact(p.max(1)).zip(weight) {
                beta.iter_mut().zip(xg).for_each(|(b, g)| *b += w * g);
            }
        });
        let c = groups.adjoint(&q.chain, std::mem::take(&mut sums.moved), &q.path());
        let cov = self.covariance(&at.lambda, &self.laid_out(q, &c));
        let s = rows::skewness(&self.plan, self.moments(), rows, &cov, &self.d3);
        beta.iter_mut().zip(&s.x).for_each(|(b, s)| *b += s);
        let (moved, n) = self.level_parts(q, at, &groups, &sums, &c, &s.z);
        Ok((beta, moved, n))
    }
}
