//! What quadrature has in its second derivatives beside those of the Laplace approximation (see `second`).
//!
//! With weights pi of the nodes, C of which the derivative of -log-likelihood in H is C / 2, and g = E grad h,
//!     H v = g + B's,     t = E D1 + s - D2 z,     E = sum_l [ E (Z'D1)_l u_l' + (Z'(s - D2 z))_l u_hat_l' - ... + (Z'D2Z Lambda C)_ll ],
//! where the dots and s are as there with C for P. Along a direction the predictors of a node move by
//!     eta_a = X b_a + Z(L_a u + Lambda u_a),
//! and what the rows know of it by D1'eta_a and D2 eta_a; the rest (H, its Cholesky factor, the nodes, their weights, C) is
//! the arithmetic of `quadrature` in dual numbers. Lambda moves as such: only its lower triangle may, with which the axes
//! of the rule turn.

use rayon::prelude::*;

use crate::cholesky::SelectedInverse;
use crate::CoreError;

use super::super::quadrature::{Dual, Groups, Quadrature, Sums, View};
use super::super::rows::{self, Derivatives, GlmmRows};
use super::second::{add, summed, weighted, Base, First};
use super::{dot, Engine, Point};

/// The expectations at the point itself.
pub(super) struct Nodes<'a> {
    q: &'a Quadrature,
    groups: Groups,
    /// Level of the innermost factor that every row belongs to.
    level: Vec<u32>,
    /// E grad h in elimination order, and sum_l E (Z'D1)_l u_l' by factor.
    pub slope: Vec<f64>,
    pub direct: Vec<Vec<f64>>,
}

/// The changes along a direction: of what H^-1 is to the gradient, and where there are nodes of their expectations.
pub(super) struct Moved {
    pub inverse: SelectedInverse,
    pub nodes: Option<Expected>,
}

/// Changes of E D1 (n x K), and of `slope` and `direct` of `Nodes`.
pub(super) struct Expected {
    pub t: Vec<f64>,
    pub slope: Vec<f64>,
    pub direct: Vec<Vec<f64>>,
}

/// The rows at one choice of nodes; Z' of their first derivatives by factor, posterior weights included, where asked for.
struct Node {
    d: Derivatives,
    zg: Vec<Vec<f64>>,
}

impl<'a> Nodes<'a> {
    /// With C in the layout of the selected inverse.
    pub fn new(
        e: &Engine,
        rows: &GlmmRows<'_>,
        at: &Point,
        q: &'a Quadrature,
    ) -> Result<(Self, SelectedInverse), CoreError> {
        let groups = e.groups(q, &at.lambda, &at.u)?;
        let (_, mut sums) = e.node_sums(rows, q, at, &groups);
        let c = groups.adjoint(&q.chain, std::mem::take(&mut sums.moved), &q.path());
        let level = rows::levels_of(&e.plan, rows, q.chain.factor[0]);
        let slope = gathered(e, q, &sums.slope);
        let direct = by_factor(q, &sums.direct);
        Ok((Nodes { q, groups, level, slope, direct }, e.laid_out(q, &c)))
    }

    /// The changes along directions: one look at the rows of a node does for all of them.
    pub fn along(&self, base: &Base<'_>, firsts: &[First]) -> Result<Vec<Moved>, CoreError> {
        let ahead: Result<Vec<Ahead>, CoreError> = firsts.par_iter().map(|f| Ahead::new(self, base, f)).collect();
        let mut ahead = ahead?;
        self.visit(base, false, &mut |d, c, node| ahead.par_iter_mut().for_each(|a| a.weigh(d, c, node)));
        base.e.stop.check()?;
        ahead.par_iter_mut().for_each(|a| drop(self.q.combine(&a.groups, &mut a.weights)));
        self.visit(base, true, &mut |d, c, node| ahead.par_iter_mut().for_each(|a| a.add(d, c, node)));
        Ok(ahead.into_par_iter().map(Ahead::finish).collect())
    }

    /// Call `each(depth, configuration, node)` for every choice of nodes, the rows being looked at where it is complete.
    fn visit(&self, base: &Base<'_>, sums: bool, each: &mut dyn FnMut(usize, usize, Option<&Node>)) {
        let (e, rows, at) = (base.e, base.rows, base.at);
        self.q.walk(&self.groups, &mut |depth, c, delta| {
            if depth > 0 {
                return each(depth, c, None);
            }
            let b = self.q.effects(&at.lambda, &self.groups, delta);
            let eta = rows::predictors(&e.plan, rows, &e.fixed, &b);
            let d = Derivatives::new(&e.plan, &e.family, rows, &eta, 2, false);
            let zg = if sums { self.pulled(base, &d, &at.weights[0][c]) } else { vec![] };
            each(depth, c, Some(&Node { d, zg }));
        });
    }

    /// Z'D1 by factor, rows times the weights of their levels.
    fn pulled(&self, base: &Base<'_>, d: &Derivatives, weight: &[f64]) -> Vec<Vec<f64>> {
        let mut x = d.first.clone();
        for (x, &l) in x.chunks_exact_mut(d.k).zip(&self.level) {
            x.iter_mut().for_each(|x| *x *= weight[l as usize]);
        }
        rows::random_adjoint(&base.e.plan, base.rows, &x)
    }
}

/// A direction on its way through the nodes.
struct Ahead<'n> {
    nodes: &'n Nodes<'n>,
    base: &'n Base<'n>,
    lambda: Vec<Vec<Dual>>,
    groups: Groups<Dual>,
    /// X b_a.
    fixed: Vec<f64>,
    /// Where the walk is.
    delta: Vec<Vec<Dual>>,
    weights: Vec<Vec<Vec<Dual>>>,
    t: Vec<f64>,
    sums: Sums<Dual>,
}

impl<'n> Ahead<'n> {
    fn new(nodes: &'n Nodes<'n>, base: &'n Base<'n>, first: &First) -> Result<Self, CoreError> {
        let (e, rows, at, chain) = (base.e, base.rows, base.at, &nodes.q.chain);
        let none: &[f64] = &[];
        let change = |f: usize| first.course.lambda.get(f).map_or(none, |l| l);
        let lambda: Vec<_> = at.lambda.iter().enumerate().map(|(f, l)| Dual::all(l, change(f))).collect();
        let own = View::of_moments(e.moments());
        let both = |v: &[&[f64]], d: &[Vec<f64>]| v.iter().zip(d).map(|(v, d)| Dual::all(v, d)).collect::<Vec<_>>();
        let (diag, pairs) = (both(&own.diag, &first.products.diag), both(&own.pairs, &first.products.pairs));
        let modes = chain.factor.iter().map(|&f| Dual::all(&e.by_level(f, &at.u), &e.by_level(f, &first.u)));
        let groups = Groups::new(&View::of(&diag, &pairs), chain, &lambda, modes.collect())?;
        let mut fixed = vec![0.0; rows.n * e.plan.k];
        if let Some(j) = first.course.coefficient {
            let unit: Vec<f64> = (0..e.plan.p()).map(|i| f64::from(u8::from(i == j))).collect();
            fixed = rows::fixed_change(&e.plan, rows, &unit);
        }
        let delta = chain.cols.iter().zip(&chain.levels).map(|(k, l)| vec![Dual::default(); k * l]).collect();
        let (weights, t) = (vec![vec![]; chain.depth()], vec![0.0; fixed.len()]);
        Ok(Ahead { nodes, base, lambda, groups, fixed, delta, weights, t, sums: Sums::zero(chain) })
    }

    /// Go to the next node of a depth.
    fn step(&mut self, d: usize, c: usize) {
        let (q, rule) = (self.nodes.q, &self.nodes.q.rules[d]);
        self.groups.displaced(&q.chain, d, rule.node(c % rule.len()), &mut self.delta);
    }

    /// The change of the predictors of all rows, n x K.
    fn eta(&self) -> Vec<f64> {
        let (e, b) = (self.base.e, self.nodes.q.effects(&self.lambda, &self.groups, &self.delta));
        let b: Vec<Vec<f64>> = b.iter().map(|b| b.iter().map(|b| b.d).collect()).collect();
        rows::predictors(&e.plan, self.base.rows, &self.fixed, &b)
    }

    /// Keep the log weights of a node.
    fn weigh(&mut self, d: usize, c: usize, node: Option<&Node>) {
        self.step(d, c);
        let mut log = self.nodes.q.prior(&self.groups, d, c, &self.delta[d]);
        if let Some(Node { d, .. }) = node {
            let eta = self.eta();
            let rows = d.value.iter().zip(d.first.chunks_exact(d.k).zip(eta.chunks_exact(d.k)));
            for ((value, (first, eta)), &l) in rows.zip(&self.nodes.level) {
                log[l as usize] -= Dual::new(*value, dot(first, eta));
            }
        }
        self.weights[d].push(log);
    }

    /// Add a node to the expectations.
    fn add(&mut self, depth: usize, c: usize, node: Option<&Node>) {
        self.step(depth, c);
        let (q, base) = (self.nodes.q, self.base);
        self.sums.prior(q, &self.groups, depth, &self.weights[depth][c], &self.delta);
        let Some(Node { d, zg }) = node else { return };
        let (weight, mut x) = (&self.weights[0][c], weighted(d.k, &d.second, &self.eta()));
        for ((x, first), &l) in x.chunks_exact_mut(d.k).zip(d.first.chunks_exact(d.k)).zip(&self.nodes.level) {
            let pi = weight[l as usize];
            x.iter_mut().zip(first).for_each(|(x, first)| *x = pi.v * *x + pi.d * first);
        }
        add(&mut self.t, &x);
        let moved = rows::random_adjoint(&base.e.plan, base.rows, &x);
        let zg: Vec<Vec<Dual>> = zg.iter().zip(&moved).map(|(v, d)| Dual::all(v, d)).collect();
        self.sums.rows(q, &self.groups, &self.lambda, &zg, &self.delta);
    }

    fn finish(mut self) -> Moved {
        let (e, q) = (self.base.e, self.nodes.q);
        let c = self.groups.adjoint(&q.chain, std::mem::take(&mut self.sums.moved), &q.path());
        let change = |a: &[Vec<Dual>]| a.iter().map(|a| a.iter().map(|a| a.d).collect()).collect::<Vec<Vec<f64>>>();
        let slope = gathered(e, q, &change(&self.sums.slope));
        let direct = by_factor(q, &change(&self.sums.direct));
        Moved { inverse: e.laid_out(q, &c.change()), nodes: Some(Expected { t: self.t, slope, direct }) }
    }
}

/// Numbers by depth and level, in elimination order.
fn gathered(e: &Engine, q: &Quadrature, by_depth: &[Vec<f64>]) -> Vec<f64> {
    let mut out = vec![0.0; e.size()];
    q.chain.factor.iter().zip(by_depth).for_each(|(&f, a)| e.add_levels(f, a, &mut out));
    out
}

/// Sums of the blocks of every depth, by factor.
fn by_factor(q: &Quadrature, by_depth: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut out = vec![vec![]; by_depth.len()];
    for (d, blocks) in by_depth.iter().enumerate() {
        out[q.chain.factor[d]] = summed(blocks, q.chain.cols[d], 1.0);
    }
    out
}
