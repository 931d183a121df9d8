//! The second derivatives of the Laplace approximation: what was said at the head of `laplace`, once more along directions.
//!
//! A direction a moves the coefficients by X b_a, or Lambda by L_a. With P = H^-1, z = B v and t = D1 + s - D2 z
//!     d / d beta = X't,     d / d Lambda = E = sum_l [ (Z't)_l u_l' - (Z'D1)_l v_l' + (Z'D2Z Lambda P)_ll ],
//! and along a, with e_a = X b_a + Z L_a u and eta_a = e_a + B u_a, W_a = D3 eta_a (so that D2 moves by W_a):
//!     H u_a = -[ L_a'Z'D1 + B'D2 e_a ],     P_a = -P H_a P on the pattern of H (see `cholesky::tangent`),
//!     s_a = 1/2 (D4 : S) eta_a + 1/2 D3 : S_a,
//!     H v_a = L_a'Z'(s - D2 z) + B'(s_a - W_a z - D2 Z L_a v),
//!     t_a = D2 eta_a + s_a - W_a z - D2 z_a,
//! and E_a by the product rule.
//!
//! Where rows say much of the effects of a factor, that is a difference of large numbers. If its Lambda has an inverse,
//! effects b = Lambda u are held instead, which makes L_a = Lambda M_a a change of their precision alone: with
//! V_a = M_a'Q + Q M_a, and with u_a, v_a, P_a now what they are beside -M_a u, -M_a v, -M_a P - P M_a',
//!     H u_a = V_a u,   e_a = 0,   H_a = B'W_a B - V_a,   H v_a = V_a v + B'(s_a - W_a z),
//!     E = Lambda^-T N,   N = sum_l [ (Q(v - u))_l u_l' + (Q u)_l v_l' + I - (Q P)_ll ].
//! Coefficients that are found together with u join it in every solve. Those that are integrated out add R C R' to S,
//! -(Z'D2R)_l C E0_l' to E and -(Q E0 C E0')_ll to N, with E0 = P B'D2X, R = X - B E0 and C^-1 = X'D2R; along a
//!     H E0_a = L_a'Z'D2R + B'(W_a R - D2 Z L_a E0)   or   V_a E0 + B'W_a R,     R_a = -Z L_a E0 - B E0_a,
//!     d C^-1 = R'W_a R - (Z L_a E0)'D2R - R'D2 Z L_a E0   or   R'W_a R - E0'V_a E0.
//! Quadrature has other blocks for P, and the nodes' expectations for D1 (see `second_nodes`).

use rayon::prelude::*;

use crate::cholesky::{Change, SelectedInverse};
use crate::dense;
use crate::design::Moments;
use crate::CoreError;

use super::super::loadings::outer;
use super::super::quadrature::View;
use super::super::rows::{self, add_products, Covariance, Derivatives, GlmmRows};
use super::gradient::congruence;
use super::second_nodes::{Moved, Nodes};
use super::{dot, Engine, Point};

/// What rows may know of effects, in units of their distribution, for these to be held: the least direction loses as many
/// digits as it is below 1.
const LITTLE: f64 = 1e-5;
/// Rows times directions that are not worth a thread.
const FEW: usize = 4_096;
/// Numbers of all directions that are kept at a time.
const AT_ONCE: usize = 40_000_000;

/// A direction: an internal coefficient, or a change of the Lambda of one factor.
#[derive(Clone, Debug)]
pub enum Way {
    Coefficient(usize),
    Lambda(usize, Vec<f64>),
}

/// Second derivatives of half the deviance, the penalty apart.
#[derive(Default)]
pub struct Second {
    /// By direction, those in it and the coefficients.
    pub beta: Vec<Vec<f64>>,
    /// By direction, those in it and the entries of Lambda, by factor.
    pub lambda: Vec<Vec<Vec<f64>>>,
    /// d / d Lambda by factor.
    pub slope: Vec<Vec<f64>>,
    /// By direction, the changes of the latent coefficients.
    pub moves: Vec<Vec<f64>>,
}

/// What integrated coefficients add (see the head): columns of R one after the other (each n x K), E0 (size x r), C, and
/// Z'D2R by column and factor.
struct Integrated {
    rows: Vec<Vec<f64>>,
    e: Vec<f64>,
    c: Vec<f64>,
    pulled: Vec<Vec<Vec<f64>>>,
}

/// Everything at the point itself.
pub(super) struct Base<'a> {
    pub(super) e: &'a Engine,
    pub(super) rows: &'a GlmmRows<'a>,
    pub(super) at: &'a Point,
    d: Derivatives,
    nodes: Option<Nodes<'a>>,
    /// D4 : S, n x packed.
    fourth: Vec<f64>,
    /// H^-1, or what takes its place in quadrature.
    inv: SelectedInverse,
    /// What `joint_factor` gives where coefficients are latent.
    joint: Option<(Vec<f64>, Vec<f64>)>,
    integrated: Option<Integrated>,
    /// Lambda^-1 of the factors whose effects are held.
    inverse: Vec<Option<Vec<f64>>>,
    v: Vec<f64>,
    z: Vec<f64>,
    /// Z't (in quadrature without D1) and Z'(s - D2 z) by factor.
    zt: Vec<Vec<f64>>,
    pull: Vec<Vec<f64>>,
    /// E by factor, and N where effects are held.
    slope: Vec<Vec<f64>>,
    n: Vec<Vec<f64>>,
}

/// A direction as it is taken: what moves the coefficients, Lambda (by factor; empty where nothing of it moves), and M_a.
pub(super) struct Course {
    pub(super) coefficient: Option<usize>,
    pub(super) lambda: Vec<Vec<f64>>,
    held: Option<(usize, Vec<f64>)>,
}

/// First-order changes along a direction.
pub(super) struct First {
    pub(super) course: Course,
    pub(super) u: Vec<f64>,
    ub: Vec<f64>,
    eta: Vec<f64>,
    /// W_a, n x packed.
    w: Vec<f64>,
    /// Z'W_aZ.
    pub(super) products: Blocks,
}

impl Engine {
    /// Second derivatives along some directions, at a point whose factor is the current one and whose mode is exact.
    pub fn second_derivatives(&mut self, rows: &GlmmRows<'_>, at: &Point, ways: &[Way]) -> Result<Second, CoreError> {
        let eta = self.predictors(rows, at);
        let d = Derivatives::new(&self.plan, &self.family, rows, &eta, 3, !self.latent.is_empty());
        let e: &Engine = self;
        let base = Base::new(e, rows, at, d, &eta)?;
        let kept: usize = at.weights.iter().flatten().map(Vec::len).sum();
        let each = rows.n * e.plan.k * (e.plan.k + 7) / 2 + 3 * base.inv.size() + 2 * kept;
        let mut out = Second::default();
        for ways in ways.chunks((AT_ONCE / each.max(1)).max(2)) {
            let first = |way: &Way| e.stop.check().map(|()| base.first(way));
            let firsts = base.of_all(ways, first).into_iter().collect::<Result<Vec<First>, _>>()?;
            let moved = base.moved(&firsts)?;
            let second = |i: &usize| e.stop.check().map(|()| base.second(&firsts[*i], &moved[*i]));
            let all: Vec<usize> = (0..firsts.len()).collect();
            let parts = base.of_all(&all, second).into_iter().collect::<Result<Vec<_>, _>>()?;
            for ((beta, lambda), first) in parts.into_iter().zip(firsts) {
                out.beta.push(beta);
                out.lambda.push(lambda);
                out.moves.push(first.ub);
            }
        }
        out.slope = base.slope;
        Ok(out)
    }

    /// Lambda^-1 of the factors whose rows know more of their effects than the distribution of these does; none in
    /// quadrature, whose nodes move with Lambda.
    fn held(&self, lambda: &[Vec<f64>]) -> Vec<Option<Vec<f64>>> {
        let m = self.moments();
        if self.quadrature.is_some() {
            return vec![None; m.factors.len()];
        }
        let one = |(f, factor): (usize, &crate::design::Factor)| {
            let (k, l) = (factor.cols, &lambda[f]);
            let info = |i: usize| factor.mean_information(i).abs();
            let known = |i: usize| info(i) * (0..k).map(|c| l[i + c * k].powi(2)).sum::<f64>();
            let most = (0..k).map(known).fold(0.0, f64::max);
            let least = (0..k).map(|i| info(i) * l[i * (k + 1)].powi(2)).fold(f64::INFINITY, f64::min);
            let triangular = (0..k).all(|c| (0..c).all(|r| l[r + c * k] == 0.0));
            let held = triangular
                && (most * least > 1.0 || least > LITTLE)
                && !self.patterns.iter().any(|p| p.factor == f && p.pattern.is_loadings());
            held.then(|| crate::optimise::invert(l, k))
        };
        m.factors.iter().enumerate().map(one).collect()
    }
}

impl<'a> Base<'a> {
    fn new(
        e: &'a Engine,
        rows: &'a GlmmRows<'a>,
        at: &'a Point,
        d: Derivatives,
        eta: &[f64],
    ) -> Result<Self, CoreError> {
        let (m, k) = (e.moments(), e.plan.k);
        let (nodes, inv) = match &e.quadrature {
            None => (None, e.lmm().numeric.selected_inverse_pairs(&e.lmm().symbolic, m)),
            Some(q) => Nodes::new(e, rows, at, q).map(|(nodes, c)| (Some(nodes), c))?,
        };
        let joint = if e.latent.is_empty() { None } else { Some(e.joint_factor(&at.lambda)?) };
        let mut out = Base {
            e,
            rows,
            at,
            d,
            nodes,
            fourth: vec![],
            inv,
            joint,
            integrated: None,
            inverse: e.held(&at.lambda),
            v: vec![],
            z: vec![],
            zt: vec![],
            pull: vec![],
            slope: vec![],
            n: vec![],
        };
        if e.restricted {
            out.integrated = out.joint.as_ref().map(|(f, lx)| out.integrate(f, lx));
        }
        let single = out.d.single;
        let mut squares = rows::squares_rows(&e.plan, m, rows, &e.covariance(&at.lambda, &out.inv), single.is_some());
        if let Some(i) = &out.integrated {
            add_squares(k, &i.rows, &i.c, &i.rows, &mut squares);
        }
        out.fourth = e.fourth(rows, eta, (&squares, single));
        let s = out.d.contracted(&squares);
        let mut right = e.project(&at.lambda, &out.adjoint(&s));
        out.nodes.iter().for_each(|n| add(&mut right, &n.slope));
        let (v, vb) = out.solve(right, out.latent_adjoint(&s));
        out.z = out.predictors(&at.lambda, &v, &vb);
        if out.inverse.iter().any(Option::is_none) {
            let mut pull = s;
            out.d.add_second(&out.z, -1.0, &mut pull);
            out.pull = out.adjoint(&pull);
            out.zt = match &out.nodes {
                Some(_) => out.pull.clone(),
                None => {
                    add(&mut pull, &out.d.first);
                    out.adjoint(&pull)
                }
            };
        }
        out.v = v;
        out.slopes();
        Ok(out)
    }

    /// What `f` makes of all items (one a direction), side by side where there is enough to do.
    pub(super) fn of_all<T: Sync, R: Send>(&self, items: &[T], f: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
        if self.rows.n * items.len() < FEW {
            items.iter().map(f).collect()
        } else {
            items.par_iter().map(f).collect()
        }
    }

    /// E and N at the point itself.
    fn slopes(&mut self) {
        let (e, m) = (self.e, self.e.moments());
        let (u, v) = (e.by_factor(&self.at.u), e.by_factor(&self.v));
        let difference: Vec<f64> = self.v.iter().zip(&self.at.u).map(|(v, u)| v - u).collect();
        let (qd, qu) = (e.by_factor(&e.precision(&difference)), e.by_factor(&e.precision(&self.at.u)));
        let whitened = e.whitened(&self.inv);
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            let Some(inverse) = &self.inverse[f] else {
                let mut own = traces(m, &View::of_moments(m), &self.at.lambda, &self.inv, f);
                outer(&self.zt[f], &u[f], k, 1.0, &mut own);
                outer(&e.zg[f], &v[f], k, -1.0, &mut own);
                if let Some(i) = &self.integrated {
                    i.add_traces(e, f, &i.pulled, &i.c, &i.e, &mut own);
                }
                self.nodes.iter().for_each(|n| add(&mut own, &n.direct[f]));
                self.slope.push(own);
                self.n.push(vec![]);
                continue;
            };
            let mut n = summed(&whitened[f], k, -1.0);
            outer(&qd[f], &u[f], k, 1.0, &mut n);
            outer(&qu[f], &v[f], k, 1.0, &mut n);
            if let Some(i) = &self.integrated {
                i.add_whitened(e, f, (&i.e, &i.c, &i.e), &mut n);
            }
            (0..k).for_each(|i| n[i * (k + 1)] += factor.levels as f64);
            let n = symmetric(&n, k);
            let mut own = vec![0.0; k * k];
            dense::gemm_tn(&mut own, k, inverse, k, &n, k, k, k, k, 1.0);
            self.slope.push(own);
            self.n.push(n);
        }
    }

    fn integrate(&self, f: &[f64], lx: &[f64]) -> Integrated {
        let (e, r, k) = (self.e, self.e.latent.len(), self.e.plan.k);
        // E0 = H^-1 Lambda'Z'D2X.
        let mut e0 = f.to_vec();
        e.lmm().numeric.backward(&e.lmm().symbolic, &mut e0, r);
        let columns = (0..r).map(|j| {
            let mut unit = vec![0.0; e.plan.p()];
            unit[e.latent[j]] = 1.0;
            let mut out = rows::fixed_change(&e.plan, self.rows, &unit);
            let moved = self.predictors(&self.at.lambda, &column(&e0, r, j), &[]);
            out.iter_mut().zip(&moved).for_each(|(o, b)| *o -= b);
            out
        });
        let rows: Vec<Vec<f64>> = columns.collect();
        let pulled = rows.iter().map(|x| self.adjoint(&weighted(k, &self.d.second, x))).collect();
        Integrated { rows, e: e0, c: dense::inverse_from_cholesky(lx, r, r), pulled }
    }

    /// Z't by factor.
    fn adjoint(&self, t: &[f64]) -> Vec<Vec<f64>> {
        rows::random_adjoint(&self.e.plan, self.rows, t)
    }

    /// X't of the latent coefficients.
    fn latent_adjoint(&self, t: &[f64]) -> Vec<f64> {
        if self.e.latent.is_empty() {
            return vec![];
        }
        let all = rows::fixed_adjoint(&self.e.plan, self.rows, t, None);
        self.e.latent.iter().map(|&j| all[j]).collect()
    }

    /// H^-1 of (u), or of the joint Hessian with the latent coefficients.
    fn solve(&self, mut u: Vec<f64>, mut b: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
        match &self.joint {
            Some((f, lx)) => self.e.joint_solve(f, lx, &mut u, &mut b),
            None => self.e.solve(&mut u),
        }
        (u, b)
    }

    /// Z Lambda u + X b of the latent coefficients, n x K.
    fn predictors(&self, lambda: &[Vec<f64>], u: &[f64], b: &[f64]) -> Vec<f64> {
        let e = self.e;
        let fixed = if b.is_empty() {
            vec![0.0; self.rows.n * e.plan.k]
        } else {
            let mut beta = vec![0.0; e.plan.p()];
            e.latent.iter().zip(b).for_each(|(&j, b)| beta[j] = *b);
            rows::fixed_change(&e.plan, self.rows, &beta)
        };
        if u.is_empty() {
            return fixed;
        }
        rows::predictors(&e.plan, self.rows, &fixed, &e.effects(lambda, u))
    }

    fn course(&self, way: &Way) -> Course {
        let (f, change) = match way {
            Way::Coefficient(j) => return Course { coefficient: Some(*j), lambda: vec![], held: None },
            Way::Lambda(f, change) => (*f, change),
        };
        let m = self.e.moments();
        if let Some(inverse) = &self.inverse[f] {
            let k = m.factors[f].cols;
            let mut turn = vec![0.0; k * k];
            dense::gemm(&mut turn, k, inverse, k, change, k, k, k, k, 1.0);
            return Course { coefficient: None, lambda: vec![], held: Some((f, turn)) };
        }
        let mut lambda: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
        lambda[f].clone_from(change);
        Course { coefficient: None, lambda, held: None }
    }

    /// V_a x, added to `out`.
    fn add_precision(&self, (f, turn): &(usize, Vec<f64>), x: &[f64], out: &mut [f64]) {
        let (e, m, sym) = (self.e, self.e.moments(), &self.e.lmm().symbolic);
        let (k, qx) = (m.factors[*f].cols, e.precision(x));
        let mut moved = vec![0.0; x.len()];
        for l in 0..m.factors[*f].levels {
            let at = sym.at(*f, l);
            for i in 0..k {
                moved[at + i] = (0..k).map(|j| turn[i + j * k] * x[at + j]).sum();
                out[at + i] += (0..k).map(|j| turn[j + i * k] * qx[at + j]).sum::<f64>();
            }
        }
        add(out, &e.precision(&moved));
    }

    fn first(&self, way: &Way) -> First {
        let (e, at, k) = (self.e, self.at, self.e.plan.k);
        let course = self.course(way);
        let mut eta = match course.coefficient {
            Some(j) => {
                let mut unit = vec![0.0; e.plan.p()];
                unit[j] = 1.0;
                rows::fixed_change(&e.plan, self.rows, &unit)
            }
            None if course.held.is_some() => vec![0.0; self.rows.n * k],
            None => self.predictors(&course.lambda, &at.u, &[]),
        };
        let (u, ub) = if let Some(held) = &course.held {
            let mut right = vec![0.0; at.u.len()];
            self.add_precision(held, &at.u, &mut right);
            self.solve(right, vec![0.0; e.latent.len()])
        } else {
            let (moved, beside) = match course.coefficient {
                Some(j) => self.crossed(j),
                None => {
                    let moved = weighted(k, &self.d.second, &eta);
                    (self.adjoint(&moved), self.latent_adjoint(&moved))
                }
            };
            let mut right = e.project(&at.lambda, &moved);
            if !course.lambda.is_empty() {
                add(&mut right, &e.project(&course.lambda, &e.zg));
            }
            right.iter_mut().for_each(|r| *r = -*r);
            self.solve(right, beside.iter().map(|r| -r).collect())
        };
        add(&mut eta, &self.predictors(&at.lambda, &u, &ub));
        let w = self.d.along(&eta);
        let weights = (&w[..], self.d.single);
        let (diag, pairs) = rows::random_products(&e.plan, e.moments(), self.rows, weights, e.family.grain());
        First { course, u, ub, eta, w, products: Blocks { diag, pairs } }
    }

    /// Z'D2x of a coefficient's column x by factor, and X'D2x of the latent ones.
    fn crossed(&self, j: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
        let (m, p1) = (self.e.moments(), self.e.plan.p() + 1);
        let of = |f: &crate::design::Factor| f.zx.iter().skip(j).step_by(p1).copied().collect();
        (m.factors.iter().map(of).collect(), self.e.latent.iter().map(|&l| m.xx[l + j * p1]).collect())
    }

    /// H_a.
    fn change(&self, first: &First) -> Change {
        let (m, lambda, course) = (self.e.moments(), &self.at.lambda, &first.course);
        let turned: Vec<Vec<f64>> = m.factors.iter().zip(lambda).map(|(f, l)| transposed(l, f.cols)).collect();
        let mut out = congruent(m, &turned, &View::of(&first.products.diag, &first.products.pairs), &turned);
        if !course.lambda.is_empty() {
            let moved: Vec<Vec<f64>> =
                m.factors.iter().zip(&course.lambda).map(|(f, l)| transposed(l, f.cols)).collect();
            add_both(m, (&moved, &turned), &View::of_moments(m), &mut out);
        }
        let Some((f, turn)) = &course.held else { return Change { diag: out.diag, pairs: out.pairs } };
        let k = m.factors[*f].cols;
        let both: Vec<f64> = turn.iter().zip(transposed(turn, k)).map(|(a, b)| a + b).collect();
        let coupling = m.couplings.iter().position(|c| c.factor == *f);
        for (l, block) in out.diag[*f].chunks_exact_mut(k * k).enumerate() {
            let q = coupling.map_or(1.0, |c| m.couplings[c].diag[l]);
            block.iter_mut().zip(&both).for_each(|(o, v)| *o -= q * v);
        }
        out.pairs.resize(m.pairs.len() + m.couplings.len(), vec![]);
        if let Some(c) = coupling {
            let values = &m.couplings[c].pair.value;
            out.pairs[m.pairs.len() + c] = values.iter().flat_map(|q| both.iter().map(move |v| -q * v)).collect();
        }
        Change { diag: out.diag, pairs: out.pairs }
    }

    /// What follows the curvature along directions.
    fn moved(&self, firsts: &[First]) -> Result<Vec<Moved>, CoreError> {
        if let Some(nodes) = &self.nodes {
            return nodes.along(self, firsts);
        }
        let changes: Vec<Change> = self.of_all(firsts, |first| self.change(first));
        let lmm = self.e.lmm();
        let tangents = lmm.numeric.selected_inverse_tangents(&lmm.symbolic, self.e.moments(), &changes)?;
        Ok(tangents.into_iter().map(|inverse| Moved { inverse, nodes: None }).collect())
    }

    /// (X't_a, E_a) along a direction with the change of H^-1.
    fn second(&self, first: &First, moved: &Moved) -> (Vec<f64>, Vec<Vec<f64>>) {
        let (tangent, nodes) = (&moved.inverse, moved.nodes.as_ref());
        let (e, m, k, at, course) = (self.e, self.e.moments(), self.e.plan.k, self.at, &first.course);
        let (single, cov) = (self.d.single.is_some(), self.covariance_change(course, tangent));
        let mut squares = rows::squares_rows(&e.plan, m, self.rows, &cov, single);
        let integrated = self.integrated.as_ref().map(|i| i.along(self, first));
        if let (Some(i), Some(moved)) = (&self.integrated, &integrated) {
            add_squares(k, &moved.rows, &i.c, &i.rows, &mut squares);
            add_squares(k, &i.rows, &i.c, &moved.rows, &mut squares);
            add_squares(k, &i.rows, &moved.c, &i.rows, &mut squares);
        }
        // s_a - W_a z, then also - D2 Z L_a v.
        let mut t = self.d.contracted(&squares);
        add_products(k, &self.fourth, &first.eta, 0.5, &mut t);
        self.d.add_along(&first.w, &self.z, -1.0, &mut t);
        let (mut z, mut right) = (vec![0.0; t.len()], vec![0.0; at.u.len()]);
        if !course.lambda.is_empty() {
            z = self.predictors(&course.lambda, &self.v, &[]);
            right = e.project(&course.lambda, &self.pull);
        }
        let turned = (!course.lambda.is_empty()).then(|| {
            let mut pull = t.clone();
            self.d.add_second(&z, -1.0, &mut pull);
            pull
        });
        let pull = turned.as_ref().unwrap_or(&t);
        add(&mut right, &e.project(&at.lambda, &self.adjoint(pull)));
        if let Some(held) = &course.held {
            self.add_precision(held, &self.v, &mut right);
        }
        nodes.iter().for_each(|n| add(&mut right, &n.slope));
        let (v, vb) = self.solve(right, self.latent_adjoint(pull));
        add(&mut z, &self.predictors(&at.lambda, &v, &vb));
        let d1 = weighted(k, &self.d.second, &first.eta);
        self.d.add_second(&z, -1.0, &mut t);
        let own = nodes.map(|_| self.adjoint(&t));
        add(&mut t, nodes.map_or(&d1, |n| &n.t));
        let beta = rows::fixed_adjoint(&e.plan, self.rows, &t, None);
        if m.factors.is_empty() {
            return (beta, vec![]);
        }
        let needed = self.inverse.iter().any(Option::is_none);
        let (zt, zg) =
            if needed { (own.unwrap_or_else(|| self.adjoint(&t)), self.adjoint(&d1)) } else { (vec![], vec![]) };
        let moves = Moves { v, zt, zg, tangent, direct: nodes.map(|n| &n.direct), integrated };
        (beta, self.slopes_along(first, &moves))
    }

    /// E_a by factor.
    fn slopes_along(&self, first: &First, moves: &Moves<'_>) -> Vec<Vec<f64>> {
        let (e, m, course) = (self.e, self.e.moments(), &first.course);
        let (u, v, ua, va) = (&self.at.u, &self.v, &first.u, &moves.v);
        let [bu, bv, bua, bva] = [u, v, ua, va].map(|x| e.by_factor(x));
        let q = |x: Vec<f64>| e.by_factor(&e.precision(&x));
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        let any = self.inverse.iter().any(Option::is_some);
        let [qd, qda, qu, qua] =
            if any { [q(minus(v, u)), q(minus(va, ua)), q(u.clone()), q(ua.clone())] } else { [const { vec![] }; 4] };
        let (own, new) = (View::of_moments(m), View::of(&first.products.diag, &first.products.pairs));
        let whitened = if any { e.whitened(moves.tangent) } else { (&[][..]).into() };
        let one = |f: usize| {
            let k = m.factors[f].cols;
            let Some(inverse) = &self.inverse[f] else {
                let mut out = traces(m, &new, &self.at.lambda, &self.inv, f);
                add(&mut out, &traces(m, &own, &self.at.lambda, moves.tangent, f));
                if !course.lambda.is_empty() {
                    add(&mut out, &traces(m, &own, &course.lambda, &self.inv, f));
                }
                outer(&moves.zt[f], &bu[f], k, 1.0, &mut out);
                outer(&self.zt[f], &bua[f], k, 1.0, &mut out);
                outer(&moves.zg[f], &bv[f], k, -1.0, &mut out);
                outer(&e.zg[f], &bva[f], k, -1.0, &mut out);
                moves.direct.iter().for_each(|d| add(&mut out, &d[f]));
                if let (Some(i), Some(moved)) = (&self.integrated, &moves.integrated) {
                    i.add_traces(e, f, &moved.pulled, &i.c, &i.e, &mut out);
                    i.add_traces(e, f, &i.pulled, &moved.c, &i.e, &mut out);
                    i.add_traces(e, f, &i.pulled, &i.c, &moved.e, &mut out);
                }
                return out;
            };
            let mut n = summed(&whitened[f], k, -1.0);
            outer(&qda[f], &bu[f], k, 1.0, &mut n);
            outer(&qd[f], &bua[f], k, 1.0, &mut n);
            outer(&qua[f], &bv[f], k, 1.0, &mut n);
            outer(&qu[f], &bva[f], k, 1.0, &mut n);
            if let (Some(i), Some(moved)) = (&self.integrated, &moves.integrated) {
                i.add_whitened(e, f, (&moved.e, &i.c, &i.e), &mut n);
                i.add_whitened(e, f, (&i.e, &moved.c, &i.e), &mut n);
                i.add_whitened(e, f, (&i.e, &i.c, &moved.e), &mut n);
            }
            let mut n = symmetric(&n, k);
            if let Some((_, turn)) = course.held.as_ref().filter(|(g, _)| *g == f) {
                self.turn(f, turn, &mut n);
            }
            let mut out = vec![0.0; k * k];
            dense::gemm_tn(&mut out, k, inverse, k, &n, k, k, k, k, 1.0);
            out
        };
        (0..m.factors.len()).map(one).collect()
    }

    /// What u, v and P are beside: with N0 = N less its identities, N_a loses M_a N0 + N0 M_a'; and as a direction M_b =
    /// Lambda^-1 L_b itself moves by -M_a M_b, M_a'N goes, too.
    fn turn(&self, f: usize, turn: &[f64], n: &mut [f64]) {
        let factor = &self.e.moments().factors[f];
        let k = factor.cols;
        let mut rest = self.n[f].clone();
        dense::gemm_tn(n, k, turn, k, &rest, k, k, k, k, -1.0);
        (0..k).for_each(|i| rest[i * (k + 1)] -= factor.levels as f64);
        dense::gemm(n, k, turn, k, &rest, k, k, k, k, -1.0);
        dense::gemm_nt(n, k, &rest, k, turn, k, k, k, k, -1.0);
    }

    /// The change of the blocks of Lambda H^-1 Lambda'.
    fn covariance_change(&self, course: &Course, tangent: &SelectedInverse) -> Covariance {
        let (m, lambda) = (self.e.moments(), &self.at.lambda);
        let mut out = congruent(m, lambda, &View::of(&tangent.diag, &tangent.pairs), lambda);
        if !course.lambda.is_empty() {
            add_both(m, (&course.lambda, lambda), &View::of(&self.inv.diag, &self.inv.pairs), &mut out);
        }
        Covariance { diag: out.diag, pairs: out.pairs, restricted: None }
    }
}

/// What has moved along a direction beside what `First` has.
struct Moves<'t> {
    v: Vec<f64>,
    zt: Vec<Vec<f64>>,
    zg: Vec<Vec<f64>>,
    tangent: &'t SelectedInverse,
    /// What the nodes add by factor.
    direct: Option<&'t Vec<Vec<f64>>>,
    integrated: Option<Integrated>,
}

impl Integrated {
    /// The same along a direction: R_a, E0_a, C_a and Z'(W_a R + D2 R_a).
    fn along(&self, base: &Base<'_>, first: &First) -> Integrated {
        let (e, k, r, at, course) = (base.e, base.e.plan.k, base.e.latent.len(), base.at, &first.course);
        let mut out = Integrated { rows: vec![], e: vec![0.0; at.u.len() * r], c: vec![], pulled: vec![] };
        let mut change = vec![0.0; r * r];
        for (j, x) in self.rows.iter().enumerate() {
            let own = column(&self.e, r, j);
            let w = weighted(k, &first.w, x);
            (0..r).for_each(|i| change[i + j * r] -= dot(&self.rows[i], &w));
            // Z L_a E0.
            let by = if course.lambda.is_empty() { vec![] } else { base.predictors(&course.lambda, &own, &[]) };
            let mut right = vec![0.0; at.u.len()];
            let mut pull = w.clone();
            if !by.is_empty() {
                let moved = weighted(k, &base.d.second, &by);
                for i in 0..r {
                    let v = dot(&self.rows[i], &moved);
                    change[i + j * r] += v;
                    change[j + i * r] += v;
                }
                pull.iter_mut().zip(&moved).for_each(|(p, m)| *p -= m);
                right = e.project(&course.lambda, &self.pulled[j]);
            }
            if let Some(held) = &course.held {
                base.add_precision(held, &own, &mut right);
                (0..r).for_each(|i| change[i + j * r] += dot(&column(&self.e, r, i), &right));
            }
            add(&mut right, &e.project(&at.lambda, &base.adjoint(&pull)));
            e.solve(&mut right);
            let mut moved = base.predictors(&at.lambda, &right, &[]);
            add(&mut moved, &by);
            moved.iter_mut().for_each(|v| *v = -*v);
            out.e.iter_mut().skip(j).step_by(r).zip(&right).for_each(|(o, v)| *o = *v);
            let mut both = w;
            add_products(k, &base.d.second, &moved, 1.0, &mut both);
            out.pulled.push(base.adjoint(&both));
            out.rows.push(moved);
        }
        // C_a = -C (d C^-1) C, and `change` is minus that in the middle.
        let mut half = vec![0.0; r * r];
        dense::gemm(&mut half, r, &self.c, r, &change, r, r, r, r, 1.0);
        out.c = vec![0.0; r * r];
        dense::gemm(&mut out.c, r, &half, r, &self.c, r, r, r, r, 1.0);
        out
    }

    /// Add -(Z'D2R)_l C E0_l' of one factor, of what is given.
    fn add_traces(&self, e: &Engine, f: usize, pulled: &[Vec<Vec<f64>>], c: &[f64], e0: &[f64], out: &mut [f64]) {
        let r = self.rows.len();
        let k = e.moments().factors[f].cols;
        for (j, pulled) in pulled.iter().enumerate() {
            let by: Vec<f64> = e0.chunks_exact(r).map(|row| dot(row, &c[j * r..(j + 1) * r])).collect();
            outer(&pulled[f], &e.by_level(f, &by), k, -1.0, out);
        }
    }

    /// Add -(Q A C B')_ll of one factor, A and B (size x r).
    fn add_whitened(&self, e: &Engine, f: usize, (a, c, b): (&[f64], &[f64], &[f64]), out: &mut [f64]) {
        let r = self.rows.len();
        let k = e.moments().factors[f].cols;
        for j in 0..r {
            let by: Vec<f64> = b.chunks_exact(r).map(|row| dot(row, &c[j * r..(j + 1) * r])).collect();
            outer(&e.by_level(f, &e.precision(&column(a, r, j))), &e.by_level(f, &by), k, -1.0, out);
        }
    }
}

impl Engine {
    /// Minus the fourth derivatives of the log density, weights included, contracted with S of every row (one number, that
    /// of the predictor `single`, or K x K); n x packed.
    fn fourth(&self, rows: &GlmmRows<'_>, eta: &[f64], (squares, single): (&[f64], Option<usize>)) -> Vec<f64> {
        let k = self.plan.k;
        let (k2, each) = (k * (k + 1) / 2, if single.is_some() { 1 } else { k * k });
        let size = self.family.panel();
        let mut out = vec![0.0; rows.n * k2];
        let piece = |(at, out): (usize, &mut [f64])| {
            let (from, n) = (at * size, out.len() / k2);
            let (eta, squares) = (&eta[from * k..(from + n) * k], &squares[from * each..(from + n) * each]);
            match single {
                Some(c) if k > 1 => self.family.fourth_single(&rows.data, from, eta, (squares, c), out),
                _ => self.family.fourth(&rows.data, from, eta, squares, out),
            }
            for (i, row) in out.chunks_exact_mut(k2).enumerate() {
                let w = -rows.weights.map_or(1.0, |w| w[from + i]);
                row.iter_mut().for_each(|v| *v *= w);
            }
        };
        let grain = self.family.grain();
        if rows.n <= grain {
            out.chunks_mut(size * k2).enumerate().for_each(piece);
        } else {
            out.par_chunks_mut(size * k2).enumerate().with_min_len(grain / rows::PANEL).for_each(piece);
        }
        out
    }
}

/// Blocks by factor and by observed pair.
pub(super) struct Blocks {
    pub(super) diag: Vec<Vec<f64>>,
    pub(super) pairs: Vec<Vec<f64>>,
}

/// Symmetric matrices (packed) times vectors by row.
pub(super) fn weighted(k: usize, w: &[f64], x: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    add_products(k, w, x, 1.0, &mut out);
    out
}

/// Add A N B' of every row, with A and B given by columns (each n x K), n x (K x K).
fn add_squares(k: usize, a: &[Vec<f64>], n: &[f64], b: &[Vec<f64>], out: &mut [f64]) {
    let r = a.len();
    for (i, a) in a.iter().enumerate() {
        // Row i of N B'.
        let mut by = vec![0.0; a.len()];
        for (j, b) in b.iter().enumerate() {
            by.iter_mut().zip(b).for_each(|(o, b)| *o += n[i + j * r] * b);
        }
        for ((out, a), by) in out.chunks_exact_mut(k * k).zip(a.chunks_exact(k)).zip(by.chunks_exact(k)) {
            for (out, by) in out.chunks_exact_mut(k).zip(by) {
                out.iter_mut().zip(a).for_each(|(o, a)| *o += a * by);
            }
        }
    }
}

/// A column of a matrix by rows of r.
fn column(a: &[f64], r: usize, j: usize) -> Vec<f64> {
    a.iter().skip(j).step_by(r).copied().collect()
}

/// The sum of blocks, with a sign.
pub(super) fn summed(blocks: &[f64], k: usize, sign: f64) -> Vec<f64> {
    let mut out = vec![0.0; k * k];
    blocks.chunks_exact(k * k).for_each(|b| out.iter_mut().zip(b).for_each(|(o, b)| *o += sign * b));
    out
}

fn symmetric(a: &[f64], k: usize) -> Vec<f64> {
    a.iter().zip(transposed(a, k)).map(|(a, b)| 0.5 * (a + b)).collect()
}

pub(super) fn add(out: &mut [f64], by: &[f64]) {
    out.iter_mut().zip(by).for_each(|(o, b)| *o += b);
}

fn transposed(a: &[f64], k: usize) -> Vec<f64> {
    (0..k * k).map(|t| a[t / k + t % k * k]).collect()
}

/// A X B' of all blocks.
fn congruent(m: &Moments, a: &[Vec<f64>], x: &View<'_>, b: &[Vec<f64>]) -> Blocks {
    let own = m.factors.iter().zip(a.iter().zip(b)).zip(&x.diag);
    let diag = own.map(|((f, (a, b)), x)| congruence(a, b, x, f.cols, f.cols)).collect();
    let between = m
        .pairs
        .iter()
        .zip(&x.pairs)
        .map(|(p, x)| congruence(&a[p.lead], &b[p.other], x, m.factors[p.lead].cols, m.factors[p.other].cols));
    Blocks { diag, pairs: between.collect() }
}

/// Add A X B' + B X A' of all blocks.
fn add_both(m: &Moments, (a, b): (&[Vec<f64>], &[Vec<f64>]), x: &View<'_>, out: &mut Blocks) {
    for more in [congruent(m, a, x, b), congruent(m, b, x, a)] {
        for (o, v) in out.diag.iter_mut().chain(&mut out.pairs).zip(more.diag.iter().chain(&more.pairs)) {
            add(o, v);
        }
    }
}

/// sum_l (G Lambda P)_ll of one factor (cols x cols), G given by blocks.
fn traces(m: &Moments, g: &View<'_>, lambda: &[Vec<f64>], inv: &SelectedInverse, f: usize) -> Vec<f64> {
    let k = m.factors[f].cols;
    // sum G_l P_l of the pairs, each with the other's Lambda in between: sums over blocks of V (k x c) and P (c x k).
    let mut out = vec![0.0; k * k];
    if k == 1 {
        out[0] = lambda[f][0] * dot(g.diag[f], &inv.diag[f]);
    } else {
        for (g, z) in g.diag[f].chunks_exact(k * k).zip(inv.diag[f].chunks_exact(k * k)) {
            add_triple(&mut out, (g, false), &lambda[f], (z, false), k, k);
        }
    }
    for (i, (p, z)) in m.pairs.iter().zip(&inv.pairs).enumerate() {
        let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
        if p.lead != f && p.other != f {
            continue;
        }
        if kl * ko == 1 {
            let other = if p.lead == f { p.other } else { p.lead };
            out[0] += lambda[other][0] * dot(g.pairs[i], z);
            continue;
        }
        for (v, z) in g.pairs[i].chunks_exact(kl * ko).zip(z.chunks_exact(kl * ko)) {
            if p.lead == f {
                add_triple(&mut out, (v, false), &lambda[p.other], (z, true), kl, ko);
            } else {
                add_triple(&mut out, (v, true), &lambda[p.lead], (z, false), ko, kl);
            }
        }
    }
    out
}

/// out += V L B for V (k x c) and B (c x k), each given transposed or not, L (c x c).
fn add_triple(out: &mut [f64], v: (&[f64], bool), l: &[f64], b: (&[f64], bool), k: usize, c: usize) {
    let at = |(x, turned): (&[f64], bool), rows: usize, columns: usize, i: usize, j: usize| {
        x[if turned { j + i * columns } else { i + j * rows }]
    };
    let mut half = vec![0.0; k * c];
    for j in 0..c {
        for s in (0..c).filter(|s| l[s + j * c] != 0.0) {
            for i in 0..k {
                half[i + j * k] += at(v, k, c, i, s) * l[s + j * c];
            }
        }
    }
    for j in 0..k {
        for s in 0..c {
            let by = at(b, c, k, s, j);
            for i in 0..k {
                out[i + j * k] += half[i + s * k] * by;
            }
        }
    }
}
