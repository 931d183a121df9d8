//! Products of T = X'V*^-1Z and S = Z'V*^-1Z with the directions E_i, none of them larger than the random effects by the
//! coefficients.

use rayon::prelude::*;

use crate::dense;
use crate::design::Moments;
use crate::fit::Model;
use crate::levels::{carried, linear_forms, paired, push_triangle, quadratic_forms, take_products};
use crate::linear::{dot, Component, Solution};

use super::traces::Traces;

impl Model {
    /// Columns of Z'V*^-1[X R^-1, y - X beta] (size x (p + 1), row-major, elimination order), R'R = X'V*^-1X.
    pub(super) fn weighted(&self, lambda: &[Vec<f64>], s: &Solution) -> Vec<f64> {
        let (lmm, p) = (&self.lmm, self.lmm.moments.p());
        let p1 = p + 1;
        let mut x = s.f.clone();
        lmm.numeric.backward(&lmm.symbolic, &mut x, p1);
        let x = self.gram_times(&self.blockwise(lambda, false, &x, p1), p1);
        let mut t = lmm.right_hand_side(&identity(&lmm.moments));
        t.iter_mut().zip(&x).for_each(|(t, x)| *t -= x);
        for row in t.chunks_exact_mut(p1) {
            let fit = dot(&row[..p], &s.beta);
            row[p] -= fit;
        }
        dense::solve_left_l(&s.lx, p, p, &mut t, lmm.symbolic.size, p1);
        t
    }

    /// The two sides of S = G - G Lambda A^-1 Lambda'G, G = Z'WZ, about columns b: G b and x = L^-1 Lambda'G b, so that
    /// b'S b = b'(G b) - x'x.
    fn sides(&self, lambda: &[Vec<f64>], b: &[f64], w: usize) -> (Vec<f64>, Vec<f64>) {
        let straight = self.gram_times(b, w);
        let mut x = self.blockwise(lambda, true, &straight, w);
        self.lmm.numeric.forward(&self.lmm.symbolic, &mut x, w);
        (straight, x)
    }

    /// Lambda b, or Lambda' b, level by level.
    fn blockwise(&self, lambda: &[Vec<f64>], transposed: bool, b: &[f64], w: usize) -> Vec<f64> {
        let (m, sym) = (&self.lmm.moments, &self.lmm.symbolic);
        let mut out = vec![0.0; b.len()];
        for pos in 0..sym.nodes {
            let f = sym.factor_at[pos] as usize;
            let (k, at) = (m.factors[f].cols, sym.offset[pos] as usize * w);
            let from = &b[at..at + k * w];
            let to = &mut out[at..at + k * w];
            for r in 0..k {
                for c in 0..k {
                    let v = if transposed { lambda[f][c + r * k] } else { lambda[f][r + c * k] };
                    add(&mut to[r * w..(r + 1) * w], &from[c * w..(c + 1) * w], v);
                }
            }
        }
        out
    }

    /// Z'WZ b for w columns.
    fn gram_times(&self, b: &[f64], w: usize) -> Vec<f64> {
        match w {
            1 => self.gram_times_fixed::<1>(b, w),
            2 => self.gram_times_fixed::<2>(b, w),
            3 => self.gram_times_fixed::<3>(b, w),
            4 => self.gram_times_fixed::<4>(b, w),
            _ => self.gram_times_fixed::<0>(b, w),
        }
    }

    /// `W` is the number of columns, 0 when it is not known beforehand.
    fn gram_times_fixed<const W: usize>(&self, b: &[f64], w: usize) -> Vec<f64> {
        let w = if W == 0 { w } else { W };
        let (m, sym) = (&self.lmm.moments, &self.lmm.symbolic);
        let row = |f: usize, l: usize| sym.at(f, l) * w;
        let mut out = vec![0.0; b.len()];
        let mut add = |to: usize, from: usize, v: f64| {
            out[to..to + w].iter_mut().zip(&b[from..from + w]).for_each(|(o, b)| *o += v * b);
        };
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for (l, g) in factor.gram.chunks_exact(k * k).enumerate() {
                let at = row(f, l);
                for (c, g) in g.chunks_exact(k).enumerate() {
                    g.iter().enumerate().for_each(|(r, &v)| add(at + r * w, at + c * w, v));
                }
            }
        }
        for p in &m.pairs {
            let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
            for l in 0..m.factors[p.lead].levels {
                let at = row(p.lead, l);
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let other = row(p.other, p.level[e] as usize);
                    for (c, block) in p.value[e * kl * ko..(e + 1) * kl * ko].chunks_exact(kl).enumerate() {
                        for (r, &v) in block.iter().enumerate() {
                            add(at + r * w, other + c * w, v);
                            add(other + c * w, at + r * w, v);
                        }
                    }
                }
            }
        }
        out
    }

    /// E_i t: each level's rows `row` and `col` change places, others vanish.
    fn component_times(&self, i: &Component, t: &[f64], w: usize) -> Vec<f64> {
        let sym = &self.lmm.symbolic;
        let mut out = vec![0.0; t.len()];
        for pos in (0..sym.nodes).filter(|&q| sym.factor_at[q] as usize == i.factor) {
            let at = sym.offset[pos] as usize;
            for (r, c) in i.cells() {
                out[(at + r) * w..(at + r + 1) * w].copy_from_slice(&t[(at + c) * w..(at + c + 1) * w]);
            }
        }
        out
    }

    /// T E_i T' and T E_i S E_j T' over the columns of `t`.
    pub(super) fn products(&self, lambda: &[Vec<f64>], t: &[f64]) -> Products {
        let (c, w) = (self.lmm.components.len(), self.lmm.moments.p() + 1);
        let q = self.lmm.symbolic.size;
        let mut out =
            Products { own: vec![0.0; c * w * w], cross: vec![0.0; c * (c + 1) / 2 * w * w], first: vec![0.0; c] };
        let mut roots: Vec<Vec<f64>> = vec![];
        for (i, ci) in self.lmm.components.iter().enumerate() {
            let y = self.component_times(ci, t, w);
            dense::gemm_nt(&mut out.own[i * w * w..(i + 1) * w * w], w, t, w, &y, w, w, w, q, 1.0);
            let (straight, root) = self.sides(lambda, &y, w);
            roots.push(root);
            for (j, cj) in self.lmm.components[..=i].iter().enumerate() {
                let other = self.component_times(cj, t, w);
                let block = &mut out.cross[pair(i, j) * w * w..(pair(i, j) + 1) * w * w];
                dense::gemm_nt(block, w, &straight, w, &other, w, w, w, q, 1.0);
                dense::gemm_nt(block, w, &roots[i], w, &roots[j], w, w, w, q, -1.0);
            }
            out.first[i] = out.own[i * w * w + w * w - 1];
        }
        out
    }
}

impl Model {
    /// What second derivatives of the deviance need beside the traces of S.
    pub(super) fn bends(&self, lambda: &[Vec<f64>], s: &Solution, traces: Option<&Traces>, reml: bool) -> Bends {
        let (c, p) = (self.lmm.components.len(), self.lmm.moments.p());
        if c == 0 {
            return Bends { first: vec![], near: vec![], fixed: vec![], shared: vec![] };
        }
        let t = self.weighted(lambda, s);
        if let Some(blocks) = traces.and_then(|t| t.alone.as_deref()) {
            return self.bends_of_one(&t, blocks, reml);
        }
        let response = self.columns_bend(lambda, &t, p, 1);
        let mut out = Bends { first: response.first, near: response.quadratic, fixed: vec![0.0; c], shared: vec![] };
        out.shared.resize(c * c, 0.0);
        dense::gemm_tn(&mut out.near, c, &response.side, p, &response.side, p, c, c, p, -1.0);
        if !reml || p == 0 {
            return out;
        }
        let step = (COLUMNS / c).max(1);
        let starts: Vec<usize> = (0..p).step_by(step).collect();
        let part = |&a: &usize| self.columns_bend(lambda, &t, a, step.min(p - a));
        let parts: Vec<ColumnsBend> = match starts.len() {
            1 => starts.iter().map(part).collect(),
            _ => starts.par_iter().map(part).collect(),
        };
        for part in &parts {
            out.fixed.iter_mut().zip(&part.first).for_each(|(o, v)| *o += v);
            out.shared.iter_mut().zip(&part.quadratic).for_each(|(o, v)| *o += 2.0 * v);
            for side in part.side.chunks_exact(p * c) {
                dense::gemm_tn(&mut out.shared, c, side, p, side, p, c, c, p, -1.0);
            }
        }
        out
    }

    /// `bends` of one grouping factor, level by level; `blocks` are the lower triangles of S's.
    fn bends_of_one(&self, t: &[f64], blocks: &[f64], reml: bool) -> Bends {
        let (sym, all, p) = (&self.lmm.symbolic, &self.lmm.components, self.lmm.moments.p());
        let (k, w, half, c) = (self.lmm.moments.factors[0].cols, p + 1, blocks.len() / sym.nodes, all.len());
        let (mut ordered, mut response, mut fixed) = (Vec::with_capacity(blocks.len()), vec![], vec![]);
        for (pos, rows) in t.chunks_exact(k * w).enumerate() {
            ordered.extend_from_slice(&blocks[sym.level(pos) * half..][..half]);
            push_triangle(&mut response, k, |a, b| rows[a * w + p] * rows[b * w + p]);
            if reml {
                push_triangle(&mut fixed, k, |a, b| dot(&rows[a * w..][..p], &rows[b * w..][..p]));
            }
        }
        let side = |a: usize| carried(all, t, &t.chunks_exact(w).map(|r| r[a]).collect::<Vec<f64>>(), k, w, p);
        let mut near = quadratic_forms(all, &paired(&ordered, &response, k), k);
        take_products(&mut near, &side(p), p);
        let first = linear_forms(all.iter(), &response, k);
        if !reml || p == 0 {
            return Bends { first, near, fixed: vec![0.0; c], shared: vec![0.0; c * c] };
        }
        let mut shared = quadratic_forms(all, &paired(&ordered, &fixed, k), k);
        shared.iter_mut().for_each(|v| *v *= 2.0);
        (0..p).for_each(|a| take_products(&mut shared, &side(a), p));
        Bends { first, near, fixed: linear_forms(all.iter(), &fixed, k), shared }
    }

    /// Sums over columns t_a, a = first .. first + count: t_a'E_i t_a and t_a'E_i S E_j t_a; T E_i t_a apart.
    fn columns_bend(&self, lambda: &[Vec<f64>], t: &[f64], first: usize, count: usize) -> ColumnsBend {
        let sym = &self.lmm.symbolic;
        let (c, p, size) = (self.lmm.components.len(), self.lmm.moments.p(), sym.size);
        let (w, m) = (p + 1, c * count);
        let mut v = vec![0.0; size * m];
        for pos in 0..sym.nodes {
            let at = sym.offset[pos] as usize;
            for (i, comp) in self.lmm.components.iter().enumerate() {
                if comp.factor == sym.factor_at[pos] as usize {
                    for (row, col) in comp.cells() {
                        (0..count).for_each(|a| v[(at + row) * m + a * c + i] = t[(at + col) * w + first + a]);
                    }
                }
            }
        }
        let (straight, root) = self.sides(lambda, &v, m);
        let mut out = ColumnsBend { first: vec![0.0; c], quadratic: vec![0.0; c * c], side: vec![0.0; p * m] };
        dense::gemm_nt(&mut out.side, p, t, w, &v, m, p, m, size, 1.0);
        for a in 0..count {
            dense::gemm_nt(&mut out.quadratic, c, &v[a * c..], m, &straight[a * c..], m, c, c, size, 1.0);
            dense::gemm_nt(&mut out.quadratic, c, &root[a * c..], m, &root[a * c..], m, c, c, size, -1.0);
            for (row, t) in v.chunks_exact(m).zip(t.chunks_exact(w)) {
                out.first.iter_mut().zip(&row[a * c..]).for_each(|(o, v)| *o += v * t[first + a]);
            }
        }
        out
    }
}

/// Right-hand sides that are solved together.
const COLUMNS: usize = 32;

struct ColumnsBend {
    first: Vec<f64>,
    quadratic: Vec<f64>,
    /// p x (c count).
    side: Vec<f64>,
}

/// With e = Z'V*^-1(y - X beta) and T the rest of `weighted`, by component.
pub struct Bends {
    /// e'E_i e.
    pub first: Vec<f64>,
    /// e'E_i S E_j e - e'E_i T'T E_j e.
    pub near: Vec<f64>,
    /// REML: tr(T E_i T'), else 0.
    pub fixed: Vec<f64>,
    /// REML: 2 tr(T E_i S E_j T') - tr(T E_i T'T E_j T'), else 0.
    pub shared: Vec<f64>,
}

/// Cross-products over the columns [X R^-1, y - X beta].
pub struct Products {
    pub own: Vec<f64>,
    pub cross: Vec<f64>,
    /// e'E_i e.
    pub first: Vec<f64>,
}

/// Position of (i, j) among packed pairs.
pub fn pair(i: usize, j: usize) -> usize {
    let (i, j) = (i.max(j), i.min(j));
    i * (i + 1) / 2 + j
}

/// The leading p x p block of a (p + 1) x (p + 1) matrix.
pub fn leading(a: &[f64], p: usize) -> Vec<f64> {
    (0..p * p).map(|k| a[k % p + (k / p) * (p + 1)]).collect()
}

pub fn trace(a: &[f64], p: usize) -> f64 {
    (0..p).map(|k| a[k * (p + 2)]).sum()
}

pub fn add(to: &mut [f64], from: &[f64], v: f64) {
    if v != 0.0 {
        to.iter_mut().zip(from).for_each(|(o, x)| *o += v * x);
    }
}

pub fn identity(m: &Moments) -> Vec<Vec<f64>> {
    m.factors.iter().map(|f| (0..f.cols * f.cols).map(|k| f64::from(k % f.cols == k / f.cols)).collect()).collect()
}

/// tr(A E_i B E_j) of k x k blocks.
pub fn trace_of(a: &[f64], b: &[f64], k: usize, i: &Component, j: &Component) -> f64 {
    let mut sum = 0.0;
    for (r, c) in i.cells() {
        for (u, v) in j.cells() {
            sum += a[v + r * k] * b[c + u * k];
        }
    }
    sum
}
