//! Selected inverse (Takahashi et al. 1973): the entries of (L L')^-1 on the pattern of L, from the root down.

use rayon::prelude::*;

use super::leaves::{dot, Batch};
use super::numeric::{group_tasks, relative_scalars, Front, Numeric, Shared, LEAVES};
use super::symbolic::{Edge, Super, Symbolic, NONE};
use crate::dense;
use crate::design::Moments;

/// Off-diagonal blocks larger than this are left out of the cross-factor information (it only steers the optimiser).
const CROSS_LIMIT: usize = 16;

impl Numeric {
    /// Entries of (L L')^-1 on the diagonal blocks, and their squares on the pattern of L.
    pub fn selected_inverse(&self, sym: &Symbolic, m: &Moments) -> SelectedInverse {
        self.invert(sym, SelectedInverse::zero(m), m)
    }

    /// The same, and the blocks of the inverse for every observed pair of levels, laid out as `Pair::value`.
    pub fn selected_inverse_pairs(&self, sym: &Symbolic, m: &Moments) -> SelectedInverse {
        let pairs = m.pairs.iter().map(|p| vec![0.0; p.value.len()]).collect();
        self.invert(sym, SelectedInverse { pairs, ..SelectedInverse::zero(m) }, m)
    }

    fn invert(&self, sym: &Symbolic, mut out: SelectedInverse, m: &Moments) -> SelectedInverse {
        let diag: Vec<Shared> = out.diag.iter_mut().map(|d| Shared::new(d)).collect();
        let pairs: Vec<Shared> = out.pairs.iter_mut().map(|d| Shared::new(d)).collect();
        let mut cross = Cross::zero(m);
        let template = Cross::zero(m);
        let leads: Vec<usize> = m.pairs.iter().map(|p| p.lead).collect();
        let ctx = Inverter { num: self, sym, diag: &diag, pairs: &pairs, leads: &leads, template: &template };
        ctx.orphans(&self.leaves);
        let mut fronts: Vec<(usize, Front)> = vec![];
        for &s in self.schedule.top.iter().rev() {
            ctx.invert_super(s, &[], &mut fronts, &mut cross);
        }
        let tasks = &self.schedule.tasks;
        if tasks.len() == 1 && self.schedule.top.is_empty() {
            ctx.run(tasks[0], &[], &mut cross);
        } else {
            let parts: Vec<Cross> = group_tasks(tasks)
                .into_par_iter()
                .map(|g| {
                    let mut c = Cross::zero(m);
                    g.iter().for_each(|&t| ctx.run(t, &fronts, &mut c));
                    c
                })
                .collect();
            parts.iter().for_each(|c| cross.add(c));
        }
        out.cross = cross;
        out
    }
}

/// Squares of inverse blocks between factors f <= g, as sum over blocks M of M[a, b] M[c, d] at ((a, c), (b, d)).
#[derive(Clone, Debug)]
pub struct Cross {
    pub value: Vec<Vec<f64>>,
    pub factors: usize,
    widths: Vec<usize>,
}

impl Cross {
    fn zero(m: &Moments) -> Self {
        let widths: Vec<usize> = m.factors.iter().map(|f| f.cols).collect();
        let n = widths.len();
        let mut value = vec![];
        for f in 0..n {
            for g in f..n {
                let size = widths[f] * widths[g];
                value.push(if size > CROSS_LIMIT { vec![] } else { vec![0.0; size * size] });
            }
        }
        Cross { value, factors: n, widths }
    }

    fn zero_like(other: &Cross) -> Self {
        let value = other.value.iter().map(|v| vec![0.0; v.len()]).collect();
        Cross { value, factors: other.factors, widths: other.widths.clone() }
    }

    pub fn at(&self, f: usize, g: usize) -> &[f64] {
        &self.value[self.index(f, g)]
    }

    fn index(&self, f: usize, g: usize) -> usize {
        f * self.factors - f * (f + 1) / 2 + g
    }

    fn add(&mut self, other: &Cross) {
        for (a, b) in self.value.iter_mut().zip(&other.value) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
    }

    /// Book sums of squares between one node of factor f and the nodes of every factor, and clear them.
    fn book_sums(&mut self, f: usize, sums: &mut [f64]) {
        for (g, v) in sums.iter_mut().enumerate() {
            let at = self.index(f.min(g), f.max(g));
            self.value[at][0] += if f == g { 2.0 * *v } else { *v };
            *v = 0.0;
        }
    }

    /// Book an off-diagonal block between a node of factor f (rows) and one of factor g (columns).
    #[inline]
    fn book(&mut self, f: usize, g: usize, block: impl Fn(usize, usize) -> f64) {
        let (kf, kg) = (self.widths[f], self.widths[g]);
        let at = if f <= g { self.index(f, g) } else { self.index(g, f) };
        let out = &mut self.value[at];
        if out.is_empty() {
            return;
        }
        if kf == 1 && kg == 1 {
            let v = block(0, 0);
            out[0] += if f == g { 2.0 * v * v } else { v * v };
            return;
        }
        let (lo, hi) = if f <= g { (kf, kg) } else { (kg, kf) };
        let get = |a: usize, b: usize| if f <= g { block(a, b) } else { block(b, a) };
        for a in 0..lo {
            for c in 0..lo {
                for b in 0..hi {
                    for d in 0..hi {
                        let v = get(a, b) * get(c, d) + if f == g { get(b, a) * get(d, c) } else { 0.0 };
                        out[(a * lo + c) * hi * hi + b * hi + d] += v;
                    }
                }
            }
        }
    }
}

/// Diagonal blocks of the inverse by factor (levels x cols x cols) and the squares of its other known blocks.
pub struct SelectedInverse {
    pub diag: Vec<Vec<f64>>,
    pub cross: Cross,
    /// Blocks of the inverse in the layout of `Pair::value`; empty unless they were asked for.
    pub pairs: Vec<Vec<f64>>,
}

impl SelectedInverse {
    fn zero(m: &Moments) -> Self {
        let diag = m.factors.iter().map(|f| vec![0.0; f.levels * f.cols * f.cols]).collect();
        SelectedInverse { diag, cross: Cross::zero(m), pairs: vec![] }
    }
}

struct Inverter<'a> {
    num: &'a Numeric,
    sym: &'a Symbolic,
    diag: &'a [Shared],
    /// Empty unless the blocks of the observed pairs are wanted.
    pairs: &'a [Shared],
    /// Leading factor of every pair.
    leads: &'a [usize],
    template: &'a Cross,
}

impl Inverter<'_> {
    /// Leaves without a parent: their block of the inverse is that of their own factor.
    fn orphans(&self, leaves: &[u32]) {
        let go = |chunk: &[u32]| {
            let mut inv = vec![];
            for &s in chunk {
                let s = &self.sym.supers[s as usize];
                if s.parent == NONE {
                    let w = s.width as usize;
                    inv.resize(w * w, 0.0);
                    dense::small_inverse(self.num.panel(s), w, w, &mut inv);
                    self.store(s.first as usize, &inv, w, 0);
                }
            }
        };
        if leaves.len() <= 2 * LEAVES {
            go(leaves);
        } else {
            leaves.par_chunks(LEAVES).for_each(go);
        }
    }

    /// Keep the diagonal block of the node at a position, found in `a` at (c, c).
    fn store(&self, position: usize, a: &[f64], ld: usize, c: usize) {
        let f = self.sym.factor_at[position] as usize;
        let k = self.sym.widths[f] as usize;
        let out = self.diag[f].slice(self.sym.level(position) * k * k, k * k);
        for j in 0..k {
            for i in 0..k {
                out[i + j * k] = a[c + i + (c + j) * ld];
            }
        }
    }

    /// Keep the block (row node, column node) of an edge; every edge belongs to one column, so writes never meet.
    fn store_pair(&self, e: &Edge, column_factor: usize, block: impl Fn(usize, usize) -> f64) {
        let columns = self.sym.widths[column_factor] as usize;
        let rows = self.sym.width_at(e.row as usize);
        let out = self.pairs[e.pair as usize].slice(e.entry as usize * rows * columns, rows * columns);
        for j in 0..columns {
            for i in 0..rows {
                let at = if self.leads[e.pair as usize] == column_factor { j + i * columns } else { i + j * rows };
                out[at] = block(i, j);
            }
        }
    }

    /// Blocks of the observed pairs whose earlier node lies in a supernode.
    fn store_pairs(&self, s: &Super, z: &[f64], ld: usize) {
        self.sym.for_edges(s, |p, column, e, row| {
            self.store_pair(e, self.sym.factor_at[p] as usize, |i, j| z[row + i + (column + j) * ld]);
        });
    }

    /// A whole subtree, from its root down; `above` holds the fronts of the top.
    fn run(&self, (from, to): (usize, usize), above: &[(usize, Front)], cross: &mut Cross) {
        let mut fronts: Vec<(usize, Front)> = vec![];
        for s in (from..to).rev() {
            if !self.sym.supers[s].leaf {
                self.invert_super(s, above, &mut fronts, cross);
                // Supernodes come in postorder: a front whose first child is behind us is never looked at again.
                fronts.retain(|(i, _)| self.sym.children(*i).first().is_some_and(|&c| (c as usize) < s));
            }
        }
    }

    fn invert_super(
        &self,
        index: usize,
        above: &[(usize, Front)],
        fronts: &mut Vec<(usize, Front)>,
        cross: &mut Cross,
    ) {
        let s = &self.sym.supers[index];
        let ld = (s.width + s.below) as usize;
        let parent = fronts.iter().chain(above).rev().find(|(i, _)| *i == s.parent as usize);
        let z = self.super_inverse(s, parent.map(|(_, f)| f));
        self.book_super(s, &z, ld, cross);
        if !self.pairs.is_empty() {
            self.store_pairs(s, &z, ld);
        }
        let leaves: Vec<u32> =
            self.sym.children(index).iter().copied().filter(|&c| self.sym.supers[c as usize].leaf).collect();
        // Enough batches for any number of threads, and never a number that depends on them.
        let work: f64 = leaves.iter().map(|&c| self.sym.supers[c as usize].leaf_work()).sum();
        let batch = if work < 2e5 { LEAVES } else { (leaves.len() / 16).clamp(16, LEAVES) };
        let parts: Vec<Cross> = if leaves.len() <= batch {
            vec![self.invert_leaves(&leaves, &z, ld)]
        } else {
            leaves.par_chunks(batch).map(|c| self.invert_leaves(c, &z, ld)).collect()
        };
        parts.iter().for_each(|c| cross.add(c));
        if leaves.len() < self.sym.children(index).len() {
            fronts.push((index, Front { a: z, ld }));
        }
    }

    /// Block of the inverse over a supernode's columns and rows, both triangles.
    fn super_inverse(&self, s: &Super, parent: Option<&Front>) -> Vec<f64> {
        let (w, r) = (s.width as usize, s.below as usize);
        let ld = w + r;
        let panel = self.num.panel(s);
        let mut zww = dense::inverse_from_cholesky(panel, w, ld);
        let Some(parent) = parent.filter(|_| r > 0) else {
            return zww;
        };
        let mut idx = vec![];
        relative_scalars(self.sym, s, &mut idx);
        let mut z = vec![0.0; ld * ld];
        for (j, &cj) in idx.iter().enumerate() {
            let column = &parent.a[cj as usize * parent.ld..(cj as usize + 1) * parent.ld];
            let out = &mut z[(w + j) * ld + w..(w + j + 1) * ld];
            out.iter_mut().zip(&idx).for_each(|(o, &i)| *o = column[i as usize]);
        }
        // Y = L21 L11^-1; Z_rw = -Z_rr Y; Z_ww = (L11 L11')^-1 - Y' Z_rw
        let mut y = vec![0.0; r * w];
        for j in 0..w {
            y[j * r..(j + 1) * r].copy_from_slice(&panel[w + j * ld..w + r + j * ld]);
        }
        dense::solve_right_l(panel, w, ld, &mut y, r, r);
        let (own, below) = z.split_at_mut(w * ld);
        dense::gemm(&mut own[w..], ld, &below[w..], ld, &y, r, r, w, r, -1.0);
        dense::gemm_tn(&mut zww, w, &y, r, &own[w..], ld, w, w, r, -1.0);
        for j in 0..w {
            own[j * ld..j * ld + w].copy_from_slice(&zww[j * w..(j + 1) * w]);
            for i in 0..r {
                below[j + i * ld] = own[w + i + j * ld];
            }
        }
        z
    }

    fn book_super(&self, s: &Super, z: &[f64], ld: usize, cross: &mut Cross) {
        let base = self.sym.offset[s.first as usize];
        let scalar = self.sym.scalar();
        let w = s.width as usize;
        let mut factor_of: Vec<usize> = (s.first..s.last).map(|p| self.sym.factor_at[p as usize] as usize).collect();
        factor_of.extend(self.sym.rows(s).iter().map(|&q| self.sym.factor_at[q as usize] as usize));
        if scalar {
            let mut sums = vec![0.0; self.template.factors];
            for p in 0..w {
                self.store(s.first as usize + p, z, ld, p);
                let mut from = p + 1;
                for run in factor_of[p + 1..].chunk_by(|a, b| a == b) {
                    let part = &z[from + p * ld..from + run.len() + p * ld];
                    sums[run[0]] += dot(part, part);
                    from += run.len();
                }
                cross.book_sums(factor_of[p], &mut sums);
            }
            return;
        }
        let mut starts: Vec<usize> = (s.first..s.last).map(|p| (self.sym.offset[p as usize] - base) as usize).collect();
        let mut at = w;
        for &q in self.sym.rows(s) {
            starts.push(at);
            at += self.sym.width_at(q as usize);
        }
        for (p, &cp) in starts.iter().enumerate().take((s.last - s.first) as usize) {
            self.store(s.first as usize + p, z, ld, cp);
            for (q, &cq) in starts.iter().enumerate().skip(p + 1) {
                cross.book(factor_of[q], factor_of[p], |a, b| z[cq + a + (cp + b) * ld]);
            }
        }
    }

    /// Diagonal blocks (and pairs) of leaves below a front whose part of the inverse is `z`.
    fn invert_leaves(&self, leaves: &[u32], z: &[f64], ld: usize) -> Cross {
        let mut cross = Cross::zero_like(self.template);
        let mut batch = Batch::new(self.num, self.sym, leaves);
        batch.multiply(z, ld);
        let (mut sums, mut zll) = (vec![0.0; self.template.factors], vec![]);
        for (i, &c) in leaves.iter().enumerate() {
            let s = &self.sym.supers[c as usize];
            let w = s.width as usize;
            let p = s.first as usize;
            let f = self.sym.factor_at[p] as usize;
            let (y, v) = batch.products(i);
            if w == 1 {
                let inv = 1.0 / self.num.panel(s)[0];
                self.diag[f].slice(self.sym.level(p), 1)[0] = inv * inv + dot(y, v);
            } else {
                zll.resize(w * w, 0.0);
                dense::small_inverse(self.num.panel(s), w, w + s.below as usize, &mut zll);
                for (y, v) in y.chunks_exact(w).zip(v.chunks_exact(w)) {
                    for j in 0..w {
                        for i in 0..w {
                            zll[i + j * w] += y[i] * v[j];
                        }
                    }
                }
                self.store(p, &zll, w, 0);
            }
            if !self.pairs.is_empty() {
                let mut at = 0;
                for e in self.sym.edges(p) {
                    self.store_pair(e, f, |i, j| -v[(at + i) * w + j]);
                    at += self.sym.width_at(e.row as usize);
                }
            }
            if batch.scalar {
                for (&q, v) in self.sym.rows(s).iter().zip(v) {
                    sums[self.sym.factor_at[q as usize] as usize] += v * v;
                }
                cross.book_sums(f, &mut sums);
            } else {
                let mut at = 0;
                for &q in self.sym.rows(s) {
                    let g = self.sym.factor_at[q as usize] as usize;
                    cross.book(g, f, |a, b| v[(at + a) * w + b]);
                    at += self.sym.width_at(q as usize);
                }
            }
        }
        cross
    }
}
