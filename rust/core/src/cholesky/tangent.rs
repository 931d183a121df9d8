//! The derivative of the selected inverse where the factored matrix H changes: -P H' P on the pattern of L, for P = H^-1.
//!
//! Of a supernode with its own block A (after the updates of its children) and the rows B below it, Y = B A^-1, the
//! derivatives of what it is assembled from go up with it, and what it adds to its parent changes by
//!
//! ```text
//! -(U Y' + Y U'),   U = dB - Y dA / 2.
//! ```
//!
//! On the way down Z, the parent's part of the inverse, and its derivative dZ are known, and with
//! dY = (U - Y dA / 2) A^-1 and R = dZ Y + Z dY
//!
//! ```text
//! below  -R,      own block  -A^-1 dA A^-1 + dY'Z Y + Y'R.
//! ```

use rayon::prelude::*;

use super::inverse::{Blocks, SelectedInverse};
use super::leaves::{add_both, right_division, Batch};
use super::merge::Update;
use super::numeric::{relative_scalars, upwards, Numeric, Shared, LEAVES};
use super::symbolic::{Edge, Super, Symbolic, NONE};
use crate::dense::{self, Precision};
use crate::design::Moments;
use crate::error::shape;
use crate::CoreError;

/// Numbers that may be held at once for several changes, about 1.5 GB, and at most for one, about 12 GB.
const ROOM: usize = 190_000_000;
const MOST: usize = 1_500_000_000;
/// Multiplications of leaves that are not worth a thread.
const LITTLE: f64 = 1e6;

/// A change of the factored matrix.
pub struct Change {
    /// Of the diagonal blocks, by factor: levels x (cols x cols), each block full and symmetric.
    pub diag: Vec<Vec<f64>>,
    /// Of the blocks of observed pairs and then of related levels, as `SelectedInverse::pairs`; empty where none changes.
    pub pairs: Vec<Vec<f64>>,
}

impl Change {
    /// Blocks of an edge's pair that change.
    fn blocks(&self, e: &Edge) -> Option<&[f64]> {
        self.pairs.get(e.pair as usize).map(|v| &v[..]).filter(|v| !v.is_empty())
    }

    /// Whether it fits what it is to change.
    fn check(&self, like: &SelectedInverse) -> Result<(), CoreError> {
        let same = |a: &[Vec<f64>], b: &[Vec<f64>]| a.iter().zip(b).all(|(a, b)| a.is_empty() || a.len() == b.len());
        let whole = self.diag.iter().zip(&like.diag).all(|(a, b)| a.len() == b.len());
        if self.diag.len() != like.diag.len() || !whole {
            return shape("a change of the diagonal blocks has other factors or levels than the matrix");
        }
        if self.pairs.len() > like.pairs.len() || !same(&self.pairs, &like.pairs) {
            return shape("a change of the blocks of pairs has other pairs than the matrix");
        }
        Ok(())
    }
}

impl Numeric {
    /// The derivative of `selected_inverse_pairs` where H changes by each of the matrices of `changes`. An error where it
    /// would take more memory than is sensible.
    pub fn selected_inverse_tangents(
        &self,
        sym: &Symbolic,
        m: &Moments,
        changes: &[Change],
    ) -> Result<Vec<SelectedInverse>, CoreError> {
        self.tangents_within(sym, m, changes, (ROOM, MOST))
    }

    /// The same with so many numbers held at once for several changes, and at most for one.
    pub(super) fn tangents_within(
        &self,
        sym: &Symbolic,
        m: &Moments,
        changes: &[Change],
        room: (usize, usize),
    ) -> Result<Vec<SelectedInverse>, CoreError> {
        self.stop.check()?;
        let mut out: Vec<SelectedInverse> = changes.iter().map(|_| SelectedInverse::with_pairs(m)).collect();
        changes.iter().zip(&out).try_for_each(|(c, like)| c.check(like))?;
        if let Some(direct) = &self.direct {
            direct.tangents(sym, &self.panels, changes, &mut out);
        } else {
            let plan = Plan::new(self, sym, room)?;
            for (changes, out) in changes.chunks(plan.at_once).zip(out.chunks_mut(plan.at_once)) {
                self.tangents(sym, m, &plan, changes, out)?;
            }
        }
        // What was cut short is worthless.
        self.stop.check()?;
        Ok(out)
    }

    fn tangents(
        &self,
        sym: &Symbolic,
        m: &Moments,
        plan: &Plan,
        changes: &[Change],
        out: &mut [SelectedInverse],
    ) -> Result<(), CoreError> {
        let mut fixed = vec![0.0; plan.size];
        let mut moved: Vec<Vec<f64>> = changes.iter().map(|_| vec![0.0; plan.size]).collect();
        let ctx = Tangents {
            num: self,
            sym,
            plan,
            changes,
            fixed: Shared::new(&mut fixed),
            moved: moved.iter_mut().map(|v| Shared::new(v)).collect(),
            out: out.iter_mut().map(|o| Blocks::new(sym, m, o)).collect(),
        };
        ctx.leaves()?;
        upwards(
            &self.schedule,
            sym,
            |s| ctx.begin(s),
            |s, updates, room| ctx.finish(s, updates, room),
            |parent, child, updates| ctx.add(child, &updates, parent, &mut []),
        )?;
        self.downwards(sym, |s, above, fronts| ctx.down(s, above, fronts));
        Ok(())
    }
}

/// Where every supernode's numbers are, and how many changes are followed at once.
struct Plan {
    at: Vec<usize>,
    size: usize,
    at_once: usize,
}

impl Plan {
    fn new(num: &Numeric, sym: &Symbolic, (room, most): (usize, usize)) -> Result<Self, CoreError> {
        let (mut at, mut size) = (Vec::with_capacity(sym.supers.len()), 0);
        for s in &sym.supers {
            at.push(size);
            // Leaves without a parent are done in one step.
            if !s.leaf || s.parent != NONE {
                size += ((s.width + s.below) * s.width) as usize;
            }
        }
        let square = |s: &Super| ((s.width + s.below) as usize).pow(2);
        let top: usize = num.schedule.top.iter().map(|&s| square(&sym.supers[s])).sum();
        let widest = sym.supers.iter().filter(|s| !s.leaf).map(square).max().unwrap_or(0);
        // A few of the widest blocks are worked on beside what is kept.
        let each = size + top + widest;
        let (at_once, least) = (room.saturating_sub(each + 2 * widest) / each.max(1), 2 * (each + widest));
        if least > most {
            let columns = sym.supers.iter().map(|s| s.width).max().unwrap_or(0);
            return shape(format!(
                "standard errors would take {} GB of memory: the dense part of the factor has {columns} columns",
                least / 125_000_000
            ));
        }
        Ok(Plan { at, size, at_once: at_once.max(1) })
    }
}

struct Tangents<'a> {
    num: &'a Numeric,
    sym: &'a Symbolic,
    plan: &'a Plan,
    changes: &'a [Change],
    /// A^-1 and Y of every supernode: of a leaf one after the other, Y row-major; else one below the other.
    fixed: Shared,
    /// dA and U in the same places, for every change.
    moved: Vec<Shared>,
    out: Vec<Blocks<'a>>,
}

/// A supernode's part of the inverse and of its derivatives, both triangles.
struct Fronts {
    ld: usize,
    z: Vec<f64>,
    moved: Vec<Vec<f64>>,
}

/// Buffers for the way down.
#[derive(Default)]
struct Buffers {
    inverse: Vec<f64>,
    own: Vec<f64>,
    room: Vec<f64>,
    result: Vec<f64>,
}

fn zeros(v: &mut Vec<f64>, n: usize) -> &mut [f64] {
    v.clear();
    v.resize(n, 0.0);
    v
}

/// `out` = -P A P for symmetric P and A of order `w`.
#[inline]
fn sandwich(p: &[f64], a: &[f64], w: usize, room: &mut Vec<f64>, out: &mut [f64]) {
    match w {
        1 => out[0] = -p[0] * a[0] * p[0],
        2 => small_sandwich::<2>(p, a, out),
        3 => small_sandwich::<3>(p, a, out),
        4 => small_sandwich::<4>(p, a, out),
        _ => {
            let room = zeros(room, w * w);
            dense::gemm(room, w, p, w, a, w, w, w, w, 1.0);
            out.fill(0.0);
            dense::gemm_lower(out, w, room, w, p, w, w, w, -1.0);
            dense::mirror(out, w);
        }
    }
}

#[inline]
fn small_sandwich<const W: usize>(p: &[f64], a: &[f64], out: &mut [f64]) {
    let load = |x: &[f64]| -> [[f64; W]; W] { std::array::from_fn(|j| std::array::from_fn(|i| x[i + j * W])) };
    let (p, a) = (load(p), load(a));
    let mut t = [[0.0; W]; W];
    for j in 0..W {
        for s in 0..W {
            for i in 0..W {
                t[j][i] += p[s][i] * a[j][s];
            }
        }
    }
    for j in 0..W {
        for i in 0..W {
            out[i + j * W] = -(0..W).map(|s| t[s][i] * p[j][s]).sum::<f64>();
        }
    }
}

/// Rows <- rows + scale X M for row-major X, of width `w`, and symmetric M.
#[inline(always)]
fn add_rows(w: usize, rows: &mut [f64], x: &[f64], m: &[f64], scale: f64) {
    for (row, x) in rows.chunks_exact_mut(w).zip(x.chunks_exact(w)) {
        for j in 0..w {
            row[j] += scale * (0..w).map(|t| x[t] * m[t + j * w]).sum::<f64>();
        }
    }
}

/// `add_rows`, the most frequent widths unrolled.
#[inline]
fn add_product(w: usize, rows: &mut [f64], x: &[f64], m: &[f64], scale: f64) {
    match w {
        1 => add_rows(1, rows, x, m, scale),
        2 => add_rows(2, rows, x, m, scale),
        3 => add_rows(3, rows, x, m, scale),
        4 => add_rows(4, rows, x, m, scale),
        _ => add_rows(w, rows, x, m, scale),
    }
}

/// `own` <- own + X'V + Y'R for row-major blocks of width `w`.
#[inline(always)]
fn add_cross(w: usize, own: &mut [f64], [x, v, y, r]: [&[f64]; 4]) {
    let pairs = x.chunks_exact(w).zip(v.chunks_exact(w)).zip(y.chunks_exact(w).zip(r.chunks_exact(w)));
    for ((x, v), (y, r)) in pairs {
        for j in 0..w {
            for i in 0..w {
                own[i + j * w] += x[i] * v[j] + y[i] * r[j];
            }
        }
    }
}

/// Upper triangle of the leading block from its lower one.
fn mirror(a: &mut [f64], n: usize, ld: usize) {
    if n == ld {
        return dense::mirror(a, n);
    }
    for j in 0..n {
        for i in j + 1..n {
            a[j + i * ld] = a[i + j * ld];
        }
    }
}

/// The leading `n` rows of a block of `n` columns.
fn top(a: &[f64], n: usize, ld: usize, out: &mut Vec<f64>) {
    out.clear();
    a.chunks_exact(ld).for_each(|column| out.extend_from_slice(&column[..n]));
}

impl Tangents<'_> {
    fn super_size(&self, index: usize) -> (&Super, usize, usize) {
        let s = &self.sym.supers[index];
        (s, s.width as usize, s.below as usize)
    }

    /// The numbers of a supernode; the task that it belongs to writes them before another reads them.
    #[allow(clippy::mut_from_ref)]
    fn place<'s>(&self, of: &'s Shared, index: usize) -> &'s mut [f64] {
        let (_, w, r) = self.super_size(index);
        of.slice(self.plan.at[index], (w + r) * w)
    }

    /// Everything of leaves that needs nothing from elsewhere.
    fn leaves(&self) -> Result<(), CoreError> {
        let go = |chunk: &[u32]| -> Result<(), CoreError> {
            self.num.stop.check()?;
            let mut room = (vec![], vec![]);
            for &c in chunk {
                if self.sym.supers[c as usize].parent == NONE {
                    self.orphan(c as usize, &mut room.0, &mut room.1);
                } else {
                    self.begin_leaf(c as usize, &mut room.0);
                }
            }
            Ok(())
        };
        if self.num.leaves.len() <= 2 * LEAVES {
            go(&self.num.leaves)
        } else {
            self.num.leaves.par_chunks(LEAVES).try_for_each(go)
        }
    }

    /// Leaves without a parent: -P H'P of their own block.
    fn orphan(&self, index: usize, inverse: &mut Vec<f64>, room: &mut Vec<f64>) {
        let (s, w, _) = self.super_size(index);
        let (f, level) = (self.sym.factor_at[s.first as usize] as usize, self.sym.level(s.first as usize));
        inverse.resize(w * w, 0.0);
        dense::small_inverse(self.num.panel(s), w, w, inverse);
        for (change, out) in self.changes.iter().zip(&self.out) {
            let of = level * w * w..(level + 1) * w * w;
            sandwich(inverse, &change.diag[f][of.clone()], w, room, out.diag[f].slice(of.start, w * w));
        }
    }

    fn begin_leaf(&self, index: usize, y: &mut Vec<f64>) {
        let (s, w, r) = self.super_size(index);
        let p = s.first as usize;
        let (f, level) = (self.sym.factor_at[p] as usize, self.sym.level(p));
        let fixed = self.place(&self.fixed, index);
        dense::small_inverse(self.num.panel(s), w, w + r, &mut fixed[..w * w]);
        y.clear();
        right_division(self.num.panel(s), w, r, y);
        fixed[w * w..].copy_from_slice(y);
        for (d, change) in self.changes.iter().enumerate() {
            let (own, below) = self.place(&self.moved[d], index).split_at_mut(w * w);
            own.copy_from_slice(&change.diag[f][level * w * w..(level + 1) * w * w]);
            let mut at = 0;
            for e in self.sym.edges(p) {
                let rows = self.sym.width_at(e.row as usize);
                self.visit_block(d, e, f, (rows, w), |i, j, v| below[(at + i) * w + j] = v);
                at += rows;
            }
            add_product(w, below, y, own, -0.5);
        }
    }

    /// The entries by which a change moves the block (row node, column node) of an edge.
    #[inline]
    fn visit_block(
        &self,
        d: usize,
        e: &Edge,
        column_factor: usize,
        (rows, columns): (usize, usize),
        mut visit: impl FnMut(usize, usize, f64),
    ) {
        let Some(values) = self.changes[d].blocks(e) else { return };
        let values = &values[e.entry as usize * rows * columns..(e.entry as usize + 1) * rows * columns];
        let leads = self.out[d].leads(e, column_factor);
        for j in 0..columns {
            for i in 0..rows {
                visit(i, j, values[if leads { j + i * columns } else { i + j * rows }]);
            }
        }
    }

    /// A^-1 and Y of a supernode, and how its own entries change.
    fn begin(&self, index: usize) {
        let (s, w, r) = self.super_size(index);
        let ld = w + r;
        self.fix(s, self.place(&self.fixed, index));
        for d in 0..self.changes.len() {
            let moved = self.place(&self.moved[d], index);
            for p in s.first as usize..s.last as usize {
                let (f, level) = (self.sym.factor_at[p] as usize, self.sym.level(p));
                let k = self.sym.widths[f] as usize;
                let c = (self.sym.offset[p] - self.sym.offset[s.first as usize]) as usize;
                for (j, v) in self.changes[d].diag[f][level * k * k..(level + 1) * k * k].chunks_exact(k).enumerate() {
                    moved[c + (c + j) * ld..][..k].copy_from_slice(v);
                }
            }
        }
        self.sym.for_edges(s, |p, column, e, row| {
            let size = (self.sym.width_at(e.row as usize), self.sym.width_at(p));
            for (d, moved) in self.moved.iter().enumerate() {
                let moved = self.place(moved, index);
                let f = self.sym.factor_at[p] as usize;
                self.visit_block(d, e, f, size, |i, j, v| moved[row + i + (column + j) * ld] = v);
            }
        });
    }

    fn fix(&self, s: &Super, out: &mut [f64]) {
        let (panel, w, r, stop) = (self.num.panel(s), s.width as usize, s.below as usize, Some(&self.num.stop));
        let ld = w + r;
        if s.packed {
            let mut l = vec![0.0; w * w];
            for part in dense::stripes(w) {
                for j in part.from..part.to {
                    let at = dense::packed_at(w, j, j);
                    l[j + j * w..(j + 1) * w].copy_from_slice(&panel[at..at + w - j]);
                }
            }
            return dense::inverse_into(&l, w, w, out, Precision::Double, stop);
        }
        if r == 0 {
            return dense::inverse_into(panel, w, w, out, Precision::Double, stop);
        }
        out.copy_from_slice(panel);
        dense::solve_right_l(panel, w, ld, &mut out[w..], r, ld);
        let inverse = dense::inverse_until(panel, w, ld, Precision::Double, stop);
        out.chunks_exact_mut(ld).zip(inverse.chunks_exact(w)).for_each(|(o, v)| o[..w].copy_from_slice(v));
    }

    /// Add what a child changes to its parent's own columns and to the rows below them.
    fn add(&self, child: usize, updates: &[Update], parent: usize, room: &mut [f64]) {
        let (_, w, r) = self.super_size(parent);
        for (d, update) in updates.iter().enumerate() {
            let below = &mut room[d * r * r..(d + 1) * r * r];
            update.add_to(self.sym, child, self.place(&self.moved[d], parent), below, w);
        }
    }

    /// Take up what the children changed; then dA and U are known, and what changes for the parent.
    fn finish(
        &self,
        index: usize,
        updates: &mut Vec<(usize, Vec<Update>)>,
        room: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        self.num.stop.check()?;
        let (_, w, r) = self.super_size(index);
        let room = zeros(room, self.changes.len() * r * r);
        for c in self.sym.children(index).iter().map(|&c| c as usize).filter(|&c| !self.sym.supers[c].leaf) {
            if let Some(k) = updates.iter().rposition(|(i, _)| *i == c) {
                self.add(c, &updates.swap_remove(k).1, index, room);
            }
        }
        let (leaves, fixed) = (self.sym.leaves(index), self.place(&self.fixed, index));
        let mut own = vec![];
        for (d, all) in self.moved.iter().enumerate() {
            self.num.stop.check()?;
            let (moved, update) = (self.place(all, index), &mut room[d * r * r..(d + 1) * r * r]);
            let values = |c: u32| {
                let square = self.sym.supers[c as usize].width.pow(2) as usize;
                (&self.place(all, c as usize)[square..], &self.place(&self.fixed, c as usize)[square..])
            };
            if !leaves.is_empty() {
                add_both(self.sym, &leaves, moved, update, w, values);
            }
            mirror(moved, w, w + r);
            if r > 0 {
                top(moved, w, w + r, &mut own);
                dense::gemm(&mut moved[w..], w + r, &fixed[w..], w + r, &own, w, r, w, w, -0.5);
                dense::gemm_lower(update, r, &moved[w..], w + r, &fixed[w..], w + r, r, w, -1.0);
                dense::gemm_lower(update, r, &fixed[w..], w + r, &moved[w..], w + r, r, w, -1.0);
            }
        }
        if r > 0 {
            updates.push((index, room.chunks_exact(r * r).map(|a| Update::new(a, r)).collect()));
        }
        Ok(())
    }

    fn down(&self, index: usize, above: &[(usize, Fronts)], fronts: &mut Vec<(usize, Fronts)>) {
        if self.num.stop.requested() {
            return;
        }
        let (s, w, r) = self.super_size(index);
        let parent = fronts.iter().chain(above).rev().find(|(i, _)| *i == s.parent as usize);
        let found = match parent.filter(|_| r > 0) {
            Some((_, parent)) => self.below(index, parent),
            None => self.root(index),
        };
        for (out, z) in self.out.iter().zip(&found.moved) {
            out.store_diagonal(s, z, w + r);
            out.store_pairs(s, z, w + r);
        }
        let leaves = self.sym.leaves(index);
        // Enough batches for any number of threads, and never a number that depends on them.
        let work: f64 = leaves.iter().map(|&c| self.sym.supers[c as usize].leaf_work()).sum();
        let batch = if work < LITTLE { LEAVES } else { (leaves.len() / 16).clamp(16, LEAVES) };
        if leaves.len() <= batch {
            self.leaves_below(&leaves, &found);
        } else {
            leaves.par_chunks(batch).for_each(|c| self.leaves_below(c, &found));
        }
        if leaves.len() < self.sym.children(index).len() {
            fronts.push((index, found));
        }
    }

    fn root(&self, index: usize) -> Fronts {
        let (_, w, _) = self.super_size(index);
        let (p, mut room) = (self.place(&self.fixed, index), vec![]);
        let mut change = |moved: &Shared| {
            let mut out = vec![0.0; w * w];
            if !self.num.stop.requested() {
                sandwich(p, self.place(moved, index), w, &mut room, &mut out);
            }
            out
        };
        let moved = self.moved.iter().map(&mut change).collect();
        Fronts { ld: w, z: p.to_vec(), moved }
    }

    /// The part of a supernode with rows below it.
    fn below(&self, index: usize, parent: &Fronts) -> Fronts {
        let (s, w, r) = self.super_size(index);
        let (fixed, ld) = (self.place(&self.fixed, index), w + r);
        let (mut idx, mut b) = (vec![], Buffers::default());
        relative_scalars(self.sym, s, &mut idx);
        let y = &fixed[w..];
        top(fixed, w, ld, &mut b.inverse);
        let z = gathered(&parent.z, parent.ld, &idx, w);
        let mut zy = vec![0.0; r * w];
        dense::gemm(&mut zy, r, &z[w + w * ld..], ld, y, ld, r, w, r, 1.0);
        let moved = self.moved.iter().zip(&parent.moved).map(|(moved, above)| {
            let mut out = gathered(above, parent.ld, &idx, w);
            let u = self.place(moved, index);
            top(u, w, ld, &mut b.own);
            // dY, from U.
            dense::gemm(&mut u[w..], ld, y, ld, &b.own, w, r, w, w, -0.5);
            let mut dy = vec![0.0; r * w];
            dense::gemm(&mut dy, r, &u[w..], ld, &b.inverse, w, r, w, w, 1.0);
            let mut product = vec![0.0; r * w];
            dense::gemm(&mut product, r, &out[w + w * ld..], ld, y, ld, r, w, r, 1.0);
            dense::gemm(&mut product, r, &z[w + w * ld..], ld, &dy, r, r, w, r, 1.0);
            let own = zeros(&mut b.result, w * w);
            sandwich(&b.inverse, &b.own, w, &mut b.room, own);
            dense::gemm_tn(own, w, &dy, r, &zy, r, w, w, r, 1.0);
            dense::gemm_tn(own, w, y, ld, &product, r, w, w, r, 1.0);
            assemble(&mut out, (w, r), own, &product);
            out
        });
        let moved = moved.collect();
        let (mut z, mut own) = (z, b.inverse);
        dense::gemm_tn(&mut own, w, y, ld, &zy, r, w, w, r, 1.0);
        assemble(&mut z, (w, r), &own, &zy);
        Fronts { ld, z, moved }
    }

    /// Leaves below a front whose parts are known.
    fn leaves_below(&self, leaves: &[u32], front: &Fronts) {
        if self.num.stop.requested() {
            return;
        }
        let mut batch = Batch::new(self.num, self.sym, leaves);
        batch.multiply(&front.z, front.ld);
        let size = leaves.len().checked_sub(1).map_or(0, |last| batch.place(last).end);
        let [mut dy, mut r, mut more] = [(); 3].map(|()| vec![0.0; size]);
        let mut room = (vec![], vec![]);
        for (d, z) in front.moved.iter().enumerate() {
            for (i, &c) in leaves.iter().enumerate() {
                self.move_leaf(d, c as usize, &mut dy[batch.place(i)], &mut room.0, &mut room.1);
            }
            batch.times(z, front.ld, batch.all(), &mut r);
            batch.times(&front.z, front.ld, &dy, &mut more);
            r.iter_mut().zip(&more).for_each(|(r, v)| *r += v);
            for (i, &c) in leaves.iter().enumerate() {
                let (y, v) = batch.products(i);
                self.store_leaf(d, c as usize, [&dy[batch.place(i)], v, y, &r[batch.place(i)]]);
            }
        }
    }

    /// dY of a leaf, from U; and -A^-1 dA A^-1 in the place of dA.
    fn move_leaf(&self, d: usize, index: usize, dy: &mut [f64], own: &mut Vec<f64>, room: &mut Vec<f64>) {
        let (_, w, _) = self.super_size(index);
        let (inverse, y) = self.place(&self.fixed, index).split_at(w * w);
        let (da, u) = self.place(&self.moved[d], index).split_at_mut(w * w);
        add_product(w, u, y, da, -0.5);
        dy.fill(0.0);
        add_product(w, dy, u, inverse, 1.0);
        own.clear();
        own.extend_from_slice(da);
        sandwich(inverse, own, w, room, da);
    }

    /// Keep what was found for a leaf: dY, Z Y, Y and R.
    fn store_leaf(&self, d: usize, index: usize, products: [&[f64]; 4]) {
        let (s, w, _) = self.super_size(index);
        let (p, own) = (s.first as usize, &mut self.place(&self.moved[d], index)[..w * w]);
        let f = self.sym.factor_at[p] as usize;
        match w {
            1 => add_cross(1, own, products),
            2 => add_cross(2, own, products),
            3 => add_cross(3, own, products),
            4 => add_cross(4, own, products),
            _ => add_cross(w, own, products),
        }
        self.out[d].store(p, own, w, 0);
        let mut at = 0;
        for e in self.sym.edges(p) {
            self.out[d].store_pair(e, f, |i, j| -products[3][(at + i) * w + j]);
            at += self.sym.width_at(e.row as usize);
        }
    }
}

/// A block with room for `w` columns and rows before those that are gathered from a front.
fn gathered(from: &[f64], ld: usize, idx: &[u32], w: usize) -> Vec<f64> {
    let n = w + idx.len();
    let mut out = vec![0.0; n * n];
    for (column, &c) in out.chunks_exact_mut(n).skip(w).zip(idx) {
        let from = &from[c as usize * ld..(c as usize + 1) * ld];
        column[w..].iter_mut().zip(idx).for_each(|(o, &i)| *o = from[i as usize]);
    }
    out
}

/// Write a supernode's own block, and what is beside it with the sign changed (rows x width), to its front.
fn assemble(z: &mut [f64], (w, r): (usize, usize), own: &[f64], beside: &[f64]) {
    let ld = w + r;
    for j in 0..w {
        z[j * ld..j * ld + w].copy_from_slice(&own[j * w..(j + 1) * w]);
        for (i, v) in beside[j * r..(j + 1) * r].iter().enumerate() {
            z[w + i + j * ld] = -v;
            z[j + (w + i) * ld] = -v;
        }
    }
}
