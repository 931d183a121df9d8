//! Adaptive Gauss-Hermite quadrature for models whose grouping factors form a chain, each nested in the next.
//!
//! With the mode u_hat of a top-level group and the Cholesky factor L of its curvature H, inner levels first, the nodes
//! are u = u_hat + sqrt(2) L^-T x (Liu & Pierce 1994; for nested factors Pinheiro & Chao 2006, equation 13): given the
//! nodes of the outer levels the integrals over inner ones are independent, so that the cost is that of one path.
//! The gradient is that of the resulting sum, the movement of the nodes included: one node gives exactly the Laplace
//! approximation and its gradient. A level's log integral may count w times (pseudo-likelihood of a survey whose groups
//! were sampled with unequal probabilities; Rabe-Hesketh & Skrondal 2006, equation 4).

mod chain;
mod groups;
mod number;
mod rule;

use crate::design::Moments;
use crate::error::shape;
use crate::CoreError;

pub use chain::{Chain, NONE};
pub use groups::{Blocks, Groups, View};
pub use number::{Dual, Number};
pub use rule::Rule;

/// Most evaluations of the density, rows times nodes of a path, for one value of the likelihood.
const MAX_EVALUATIONS: usize = 2_000_000_000;
/// Most posterior weights that are kept.
const MAX_WEIGHTS: usize = 100_000_000;

/// Nodes for every factor of a chain.
#[derive(Clone, Debug)]
pub struct Quadrature {
    pub chain: Chain,
    pub rules: Vec<Rule>,
    /// How often a level's log integral counts, by depth.
    pub own: Vec<Vec<f64>>,
}

fn on_a_path(rules: &[Rule]) -> usize {
    rules.iter().fold(1, |nodes, rule| nodes.saturating_mul(rule.len()))
}

impl Quadrature {
    /// `weights` by factor; empty: every level counts once.
    pub fn new(m: &Moments, points: usize, weights: &[Vec<f64>], n: usize) -> Result<Self, CoreError> {
        let chain = match Chain::new(m) {
            Ok(chain) if chain.depth() > 0 => chain,
            Ok(_) => return shape("quadrature needs random effects"),
            Err((a, b)) => {
                return shape(format!("quadrature needs nested grouping factors; factors {a} and {b} are crossed"))
            }
        };
        let rules: Result<Vec<Rule>, CoreError> = chain.cols.iter().map(|&k| Rule::new(points, k)).collect();
        let rules = rules?;
        let nodes = on_a_path(&rules);
        let kept = (0..rules.len()).fold(0usize, |sum, depth| {
            sum.saturating_add(on_a_path(&rules[depth..]).saturating_mul(chain.levels[depth]))
        });
        if nodes.saturating_mul(n) > MAX_EVALUATIONS || kept > MAX_WEIGHTS {
            return shape(format!(
                "quadrature with {points} nodes a dimension takes {nodes} nodes for each of {n} rows"
            ));
        }
        let own = chain
            .factor
            .iter()
            .zip(&chain.levels)
            .map(|(&f, &levels)| match weights.get(f) {
                Some(w) if !w.is_empty() => w.clone(),
                _ => vec![1.0; levels],
            })
            .collect();
        Ok(Quadrature { chain, rules, own })
    }

    /// At how many nodes a row is looked at.
    pub fn nodes(&self) -> usize {
        on_a_path(&self.rules)
    }

    /// Weight of every level's log integral in the log-likelihood: the product along its path.
    pub fn path(&self) -> Vec<Vec<f64>> {
        let c = &self.chain;
        let mut out = self.own.clone();
        for d in (0..c.depth().saturating_sub(1)).rev() {
            for l in 0..c.levels[d] {
                out[d][l] *= out[d + 1][c.ancestor(d, d + 1, l)];
            }
        }
        out
    }

    /// Effects by factor (levels x k), b = Lambda (u_hat + delta).
    pub fn effects<T: Number>(&self, lambda: &[Vec<T>], groups: &Groups<T>, delta: &[Vec<T>]) -> Vec<Vec<T>> {
        let c = &self.chain;
        let mut out = vec![vec![]; c.depth()];
        for (d, &f) in c.factor.iter().enumerate() {
            let mut u: Vec<T> = groups.u[d].iter().zip(&delta[d]).map(|(u, d)| *u + *d).collect();
            out[f] = if c.cols[d] == 1 {
                u.iter_mut().for_each(|u| *u *= lambda[f][0]);
                u
            } else {
                scaled(&lambda[f], &u, c.cols[d])
            };
        }
        out
    }

    /// Call `each(depth, configuration, delta)` for every choice of nodes of the levels at a depth and above it, the
    /// outermost changing slowest.
    pub fn walk(&self, groups: &Groups, each: &mut dyn FnMut(usize, usize, &[Vec<f64>])) {
        let c = &self.chain;
        let mut delta: Vec<Vec<f64>> = c.cols.iter().zip(&c.levels).map(|(k, l)| vec![0.0; k * l]).collect();
        self.descend(groups, c.depth() - 1, 0, &mut delta, each);
    }

    fn descend(
        &self,
        groups: &Groups,
        d: usize,
        outer: usize,
        delta: &mut [Vec<f64>],
        each: &mut dyn FnMut(usize, usize, &[Vec<f64>]),
    ) {
        let rule = &self.rules[d];
        for j in 0..rule.len() {
            groups.displaced(&self.chain, d, rule.node(j), delta);
            let at = outer * rule.len() + j;
            each(d, at, delta);
            if d > 0 {
                self.descend(groups, d - 1, at, delta, each);
            }
        }
    }

    /// Log weights of the nodes before the rows are seen: the rule's, and the effects' density.
    pub fn prior<T: Number>(&self, groups: &Groups<T>, d: usize, at: usize, delta: &[T]) -> Vec<T> {
        let (k, rule) = (self.chain.cols[d], &self.rules[d]);
        let log = T::from(rule.log_weight[at % rule.len()]);
        let square = |(u, d): (&[T], &[T])| number::sum(u.iter().zip(d).map(|(u, d)| (*u + *d, *u + *d)));
        groups.u[d].chunks_exact(k).zip(delta.chunks_exact(k)).map(|p| log - square(p) * 0.5).collect()
    }

    /// Log-likelihood of every top-level group from the log weights of all nodes by depth and configuration (the rows'
    /// log density added at depth 0); they become the posterior weights, times those of the levels.
    pub fn combine<T: Number>(&self, groups: &Groups<T>, value: &mut [Vec<Vec<T>>]) -> Vec<T> {
        let c = &self.chain;
        let mut total = vec![];
        for d in 0..c.depth() {
            let n = self.rules[d].len();
            let (inner, outer) = value.split_at_mut(d + 1);
            for (at, nodes) in inner[d].chunks_mut(n).enumerate() {
                for l in 0..c.levels[d] {
                    let top = T::from(nodes.iter().map(|v| v[l].value()).fold(f64::NEG_INFINITY, f64::max));
                    let log = top + nodes.iter().fold(T::default(), |s, v| s + (v[l] - top).exp()).ln();
                    nodes.iter_mut().for_each(|v| v[l] = (v[l] - log).exp());
                    let counted = (log - groups.logdet[d][l] * 0.5) * self.own[d][l];
                    match outer.first_mut() {
                        Some(up) => up[at][c.ancestor(d, d + 1, l)] += counted,
                        None => total.push(counted),
                    }
                }
            }
        }
        for d in (0..c.depth()).rev() {
            let n = self.rules[d].len();
            let (inner, outer) = value.split_at_mut(d + 1);
            for (at, v) in inner[d].iter_mut().enumerate() {
                for (l, v) in v.iter_mut().enumerate() {
                    let up = outer.first().map_or(T::from(1.0), |o| o[at / n][c.ancestor(d, d + 1, l)]);
                    *v *= up * self.own[d][l];
                }
            }
        }
        total
    }
}

/// Lambda u for every level.
fn scaled<T: Number>(lambda: &[T], u: &[T], k: usize) -> Vec<T> {
    let mut out = vec![T::default(); u.len()];
    for (b, u) in out.chunks_exact_mut(k).zip(u.chunks_exact(k)) {
        for c in 0..k {
            b.iter_mut().zip(&lambda[c * k..(c + 1) * k]).for_each(|(b, l)| *b += *l * u[c]);
        }
    }
    out
}

/// Posterior expectations for the gradient, by depth.
pub struct Sums<T = f64> {
    /// E grad h, levels x k.
    pub slope: Vec<Vec<T>>,
    /// E grad h_l delta_e', levels x (k x k_e); [depth][e - depth].
    pub moved: Vec<Vec<Vec<T>>>,
    /// E (Z'D1)_l u_l', levels x (k x k).
    pub direct: Vec<Vec<T>>,
}

impl<T: Number> Sums<T> {
    pub fn zero(chain: &Chain) -> Self {
        let blocks = |d: usize, k: usize| vec![T::default(); chain.levels[d] * chain.cols[d] * k];
        let depth = chain.depth();
        Sums {
            slope: (0..depth).map(|d| blocks(d, 1)).collect(),
            moved: (0..depth).map(|d| (d..depth).map(|e| blocks(d, chain.cols[e])).collect()).collect(),
            direct: (0..depth).map(|d| blocks(d, chain.cols[d])).collect(),
        }
    }

    /// Add g_l for the levels at depth d, weights included, at displacements `delta`.
    fn add(&mut self, chain: &Chain, d: usize, l: usize, g: &[T], delta: &[Vec<T>]) {
        let k = chain.cols[d];
        self.slope[d][l * k..(l + 1) * k].iter_mut().zip(g).for_each(|(s, g)| *s += *g);
        for e in d..chain.depth() {
            let ke = chain.cols[e];
            let at = chain.ancestor(d, e, l);
            let x = &delta[e][at * ke..(at + 1) * ke];
            let out = &mut self.moved[d][e - d][l * k * ke..(l + 1) * k * ke];
            for (column, x) in out.chunks_exact_mut(k).zip(x) {
                column.iter_mut().zip(g).for_each(|(o, g)| *o += *g * *x);
            }
        }
    }

    /// The same for the one effect of a level of the only factor.
    fn add_one(&mut self, l: usize, g: T, delta: T) {
        self.slope[0][l] += g;
        self.moved[0][0][l] += g * delta;
    }

    /// Add the rows' part at one choice of nodes: `zg` is Z'D1 by factor, the posterior weights included.
    pub fn rows(&mut self, q: &Quadrature, groups: &Groups<T>, lambda: &[Vec<T>], zg: &[Vec<T>], delta: &[Vec<T>]) {
        let c = &q.chain;
        if let ([f], [1]) = (c.factor.as_slice(), c.cols.as_slice()) {
            let own = lambda[*f][0];
            for (l, (z, (u, x))) in zg[*f].iter().zip(groups.u[0].iter().zip(&delta[0])).enumerate() {
                self.add_one(l, own * *z, *x);
                self.direct[0][l] += *z * (*u + *x);
            }
            return;
        }
        for (d, &f) in c.factor.iter().enumerate() {
            let k = c.cols[d];
            let mut g = vec![T::default(); k];
            for (l, z) in zg[f].chunks_exact(k).enumerate() {
                g.iter_mut().zip(lambda[f].chunks_exact(k)).for_each(|(g, column)| {
                    *g = number::sum(column.iter().copied().zip(z.iter().copied()));
                });
                self.add(c, d, l, &g, delta);
                let out = &mut self.direct[d][l * k * k..(l + 1) * k * k];
                for (b, column) in out.chunks_exact_mut(k).enumerate() {
                    let u = groups.u[d][l * k + b] + delta[d][l * k + b];
                    column.iter_mut().zip(z).for_each(|(o, z)| *o += *z * u);
                }
            }
        }
    }

    /// Add the effects' own part, u, at a depth: `weight` by level.
    pub fn prior(&mut self, q: &Quadrature, groups: &Groups<T>, d: usize, weight: &[T], delta: &[Vec<T>]) {
        let k = q.chain.cols[d];
        if q.chain.depth() == 1 && k == 1 {
            for (l, (w, (u, x))) in weight.iter().zip(groups.u[0].iter().zip(&delta[0])).enumerate() {
                self.add_one(l, *w * (*u + *x), *x);
            }
            return;
        }
        let mut g = vec![T::default(); k];
        for (l, w) in weight.iter().enumerate() {
            let at = l * k..(l + 1) * k;
            let u = groups.u[d][at.clone()].iter().zip(&delta[d][at]);
            g.iter_mut().zip(u).for_each(|(g, (u, x))| *g = *w * (*u + *x));
            self.add(&q.chain, d, l, &g, delta);
        }
    }
}
