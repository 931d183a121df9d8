//! Selected inverse (Takahashi et al. 1973): the entries of (L L')^-1 on the pattern of L, from the root down.

use rayon::prelude::*;

use super::leaves::Batch;
use super::numeric::{group_tasks, relative_scalars, Front, Numeric, Shared, LEAVES};
use super::symbolic::{Edge, Super, Symbolic, NONE};
use crate::dense::{self, dot, Precision, RowBlock};
use crate::design::{Moments, Pair};

/// Multiplications of leaves that are not worth a thread.
const LITTLE: f64 = 1e6;
/// Columns of a block that are copied at once.
const SOME_COLUMNS: usize = 64;

impl Numeric {
    /// Diagonal blocks of (L L')^-1.
    pub fn selected_inverse(&self, sym: &Symbolic, m: &Moments, precision: Precision) -> SelectedInverse {
        self.invert(sym, SelectedInverse::zero(m), m, precision)
    }

    /// The same, and its blocks for every observed pair of levels, laid out as `Pair::value`; then full blocks for
    /// every pair of related levels.
    pub fn selected_inverse_pairs(&self, sym: &Symbolic, m: &Moments) -> SelectedInverse {
        self.invert(sym, SelectedInverse::with_pairs(m), m, Precision::Double)
    }

    fn invert(&self, sym: &Symbolic, out: SelectedInverse, m: &Moments, precision: Precision) -> SelectedInverse {
        let mut out = match self.direct_inverse(sym, out) {
            Ok(found) => return found,
            Err(zero) => zero,
        };
        let ctx = Inverter { num: self, sym, out: Blocks::new(sym, m, &mut out), precision };
        ctx.orphans(&self.leaves);
        self.downwards(sym, |s, above, fronts| ctx.invert_super(s, above, fronts));
        out
    }

    /// Visit the supernodes that are no leaves from the roots down. A visit is given what those of the top left, and
    /// what others of the same subtree did, to which it may add.
    pub(super) fn downwards<F: Send + Sync>(
        &self,
        sym: &Symbolic,
        visit: impl Fn(usize, &[(usize, F)], &mut Vec<(usize, F)>) + Sync + Send,
    ) {
        let mut top = vec![];
        self.schedule.top.iter().rev().for_each(|&s| visit(s, &[], &mut top));
        let run = |(from, to): (usize, usize)| {
            let mut left: Vec<(usize, F)> = vec![];
            for s in (from..to).rev().filter(|&s| !sym.supers[s].leaf) {
                visit(s, &top, &mut left);
                // Supernodes come in postorder: one whose first child is behind us is never looked at again.
                left.retain(|(i, _)| sym.children(*i).first().is_some_and(|&c| (c as usize) < s));
            }
        };
        let tasks = &self.schedule.tasks;
        if tasks.len() == 1 && self.schedule.top.is_empty() {
            run(tasks[0]);
        } else {
            dense::each(group_tasks(tasks), |g| g.iter().for_each(|&t| run(t)));
        }
    }
}

/// Diagonal blocks of the inverse by factor (levels x cols x cols).
pub struct SelectedInverse {
    pub diag: Vec<Vec<f64>>,
    /// Blocks of the inverse in the layout of `Pair::value`; empty unless they were asked for.
    pub pairs: Vec<Vec<f64>>,
}

impl SelectedInverse {
    /// How many numbers there are.
    pub fn size(&self) -> usize {
        self.diag.iter().chain(&self.pairs).map(Vec::len).sum()
    }

    fn zero(m: &Moments) -> Self {
        let diag = m.factors.iter().map(|f| vec![0.0; f.levels * f.cols * f.cols]).collect();
        SelectedInverse { diag, pairs: vec![] }
    }

    /// With room for the blocks of pairs.
    pub(super) fn with_pairs(m: &Moments) -> Self {
        let size = |p: &Pair| p.level.len() * m.factors[p.lead].cols * m.factors[p.other].cols;
        let pairs = m.links().map(|p| vec![0.0; size(p)]).collect();
        SelectedInverse { pairs, ..SelectedInverse::zero(m) }
    }
}

/// Where blocks are kept, whichever task finds them.
pub(super) struct Blocks<'a> {
    sym: &'a Symbolic,
    pub diag: Vec<Shared>,
    /// Empty unless the blocks of the observed pairs are wanted.
    pub pairs: Vec<Shared>,
    /// Leading factor of every pair.
    leads: Vec<usize>,
}

struct Inverter<'a> {
    num: &'a Numeric,
    sym: &'a Symbolic,
    out: Blocks<'a>,
    /// Of the large dense blocks.
    precision: Precision,
}

/// A block of W'W: its first row and column, and its size.
struct Wanted {
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

/// Blocks of W'W over some rows of W, column-major, one after the other.
fn products(w: &RowBlock<'_>, wanted: &[Wanted]) -> Vec<f64> {
    let mut out = Vec::with_capacity(wanted.iter().map(|b| b.rows * b.columns).sum());
    for b in wanted {
        for j in b.column..b.column + b.columns {
            // Columns from `to` on are zero in these rows.
            out.extend(
                (b.row..b.row + b.rows).map(|i| if i.max(j) < w.to { dot(w.column(i), w.column(j)) } else { 0.0 }),
            );
        }
    }
    out
}

/// Add to a sum that may not have begun.
fn add(sum: &mut Vec<f64>, part: &[f64]) {
    sum.resize(part.len(), 0.0);
    sum.iter_mut().zip(part).for_each(|(o, v)| *o += v);
}

impl<'a> Blocks<'a> {
    pub fn new(sym: &'a Symbolic, m: &Moments, out: &mut SelectedInverse) -> Self {
        let diag = out.diag.iter_mut().map(|d| Shared::new(d)).collect();
        let pairs = out.pairs.iter_mut().map(|d| Shared::new(d)).collect();
        Blocks { sym, diag, pairs, leads: m.links().map(|p| p.lead).collect() }
    }

    /// Keep the diagonal block of the node at a position, found in `a` at (c, c).
    pub fn store(&self, position: usize, a: &[f64], ld: usize, c: usize) {
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
    pub fn store_pair(&self, e: &Edge, column_factor: usize, block: impl Fn(usize, usize) -> f64) {
        let columns = self.sym.widths[column_factor] as usize;
        let rows = self.sym.width_at(e.row as usize);
        let out = self.pairs[e.pair as usize].slice(e.entry as usize * rows * columns, rows * columns);
        let leads = self.leads(e, column_factor);
        for j in 0..columns {
            for i in 0..rows {
                out[if leads { j + i * columns } else { i + j * rows }] = block(i, j);
            }
        }
    }

    /// Whether the blocks of an edge's pair are stored with the columns of this factor down.
    pub fn leads(&self, e: &Edge, column_factor: usize) -> bool {
        self.leads[e.pair as usize] == column_factor
    }

    /// Blocks of the observed pairs whose earlier node lies in a supernode.
    pub fn store_pairs(&self, s: &Super, z: &[f64], ld: usize) {
        if self.pairs.is_empty() {
            return;
        }
        self.sym.for_edges(s, |p, column, e, row| {
            self.store_pair(e, self.sym.factor_at[p] as usize, |i, j| z[row + i + (column + j) * ld]);
        });
    }

    /// Keep the diagonal blocks of the nodes of a supernode.
    pub fn store_diagonal(&self, s: &Super, z: &[f64], ld: usize) {
        let base = self.sym.offset[s.first as usize];
        for p in s.first as usize..s.last as usize {
            self.store(p, z, ld, (self.sym.offset[p] - base) as usize);
        }
    }
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
                    self.out.store(s.first as usize, &inv, w, 0);
                }
            }
        };
        if leaves.len() <= 2 * LEAVES {
            go(leaves);
        } else {
            leaves.par_chunks(LEAVES).for_each(go);
        }
    }

    fn invert_super(&self, index: usize, above: &[(usize, Front)], fronts: &mut Vec<(usize, Front)>) {
        let s = &self.sym.supers[index];
        if self.num.stop.requested() {
            return;
        }
        if s.packed {
            return self.invert_packed(index);
        }
        let ld = (s.width + s.below) as usize;
        let parent = fronts.iter().chain(above).rev().find(|(i, _)| *i == s.parent as usize);
        let z = self.super_inverse(s, parent.map(|(_, f)| f));
        self.out.store_diagonal(s, &z, ld);
        self.out.store_pairs(s, &z, ld);
        let leaves = self.sym.leaves(index);
        // Enough batches for any number of threads, and never a number that depends on them.
        let work: f64 = leaves.iter().map(|&c| self.sym.supers[c as usize].leaf_work()).sum();
        let batch = if work < LITTLE { LEAVES } else { (leaves.len() / 16).clamp(16, LEAVES) };
        if leaves.len() <= batch {
            self.invert_leaves(&leaves, &z, ld);
        } else {
            leaves.par_chunks(batch).for_each(|c| self.invert_leaves(c, &z, ld));
        }
        if leaves.len() < self.sym.children(index).len() {
            fronts.push((index, Front { a: z, ld }));
        }
    }

    /// Diagonal blocks (and pairs) of a packed root and of its leaves, as sums over the rows of W = L^-1: W'W between
    /// the root's own nodes, and for a leaf with Y = L21 L11^-1 and inner factor L11
    ///     (L11 L11')^-1 + (W Y)'(W Y)   and, with the root,   -W'(W Y).
    fn invert_packed(&self, index: usize) {
        let s = &self.sym.supers[index];
        let batch = Batch::new(self.num, self.sym, self.sym.children(index));
        let wanted = self.wanted(s);
        let (mut own, mut leaves) = (vec![], vec![]);
        let visit = |rows: RowBlock<'_>| (products(&rows, &wanted), batch.squares(&rows, !self.out.pairs.is_empty()));
        // Sums in the order of the rows, whoever formed them.
        let gather = |(a, b): (Vec<f64>, Vec<f64>)| {
            add(&mut own, &a);
            add(&mut leaves, &b);
        };
        let panel = self.num.panel(s);
        dense::by_rows(panel, s.width as usize, self.precision, &self.num.stop, visit, gather);
        if !self.num.stop.requested() {
            self.store_own(s, &own);
            self.store_leaves(&batch, &leaves);
        }
    }

    /// Blocks of a packed root that are wanted, in the order in which they are stored: of every node, then of its pairs.
    fn wanted(&self, s: &Super) -> Vec<Wanted> {
        let at = |p: u32| (self.sym.offset[p as usize] - self.sym.offset[s.first as usize]) as usize;
        let block = |row: u32, column: u32| Wanted {
            row: at(row),
            column: at(column),
            rows: self.sym.width_at(row as usize),
            columns: self.sym.width_at(column as usize),
        };
        let mut out: Vec<Wanted> = (s.first..s.last).map(|p| block(p, p)).collect();
        if !self.out.pairs.is_empty() {
            for p in s.first..s.last {
                out.extend(self.sym.edges(p as usize).iter().map(|e| block(e.row, p)));
            }
        }
        out
    }

    /// Keep what `wanted` names.
    fn store_own(&self, s: &Super, values: &[f64]) {
        let mut from = 0;
        for p in s.first as usize..s.last as usize {
            let k = self.sym.width_at(p);
            self.out.store(p, &values[from..from + k * k], k, 0);
            from += k * k;
        }
        if self.out.pairs.is_empty() {
            return;
        }
        for p in s.first as usize..s.last as usize {
            for e in self.sym.edges(p) {
                let (rows, columns) = (self.sym.width_at(e.row as usize), self.sym.width_at(p));
                let block = &values[from..from + rows * columns];
                self.out.store_pair(e, self.sym.factor_at[p] as usize, |i, j| block[i + j * rows]);
                from += rows * columns;
            }
        }
    }

    /// Keep what `Batch::squares` summed.
    fn store_leaves(&self, batch: &Batch<'_>, values: &[f64]) {
        let mut inverse = vec![];
        let mut from = 0;
        for (i, &c) in batch.leaves.iter().enumerate() {
            let s = &self.sym.supers[c as usize];
            let (w, p) = (s.width as usize, s.first as usize);
            inverse.resize(w * w, 0.0);
            dense::small_inverse(self.num.panel(s), w, w + s.below as usize, &mut inverse);
            inverse.iter_mut().zip(&values[from..]).for_each(|(o, v)| *o += v);
            self.out.store(p, &inverse, w, 0);
            from += w * w;
            if self.out.pairs.is_empty() {
                continue;
            }
            let mut at = from;
            for e in self.sym.edges(p) {
                self.out.store_pair(e, self.sym.factor_at[p] as usize, |i, j| -values[at + i * w + j]);
                at += self.sym.width_at(e.row as usize) * w;
            }
            from += batch.rows(i).len() * w;
        }
    }

    /// Block of the inverse over a supernode's columns and rows, both triangles. All of it happens in the memory of the
    /// result, as every thread holds the blocks of a path to the root.
    fn super_inverse(&self, s: &Super, parent: Option<&Front>) -> Vec<f64> {
        let (w, r) = (s.width as usize, s.below as usize);
        let (ld, stop) = (w + r, Some(&self.num.stop));
        let panel = self.num.panel(s);
        let Some(parent) = parent.filter(|_| r > 0) else {
            return dense::inverse_until(panel, w, ld, self.precision, stop);
        };
        // (L11 L11')^-1 without gaps between its columns, which then move to where they belong.
        let mut z = vec![0.0; ld * ld];
        dense::inverse_into(panel, w, ld, &mut z[..w * w], self.precision, stop);
        for j in (0..w).rev() {
            z.copy_within(j * w..(j + 1) * w, j * ld);
            z[j * ld + w..(j + 1) * ld].fill(0.0);
        }
        let mut idx = vec![];
        relative_scalars(self.sym, s, &mut idx);
        let (own, below) = z.split_at_mut(w * ld);
        for (j, &cj) in idx.iter().enumerate() {
            let column = &parent.a[cj as usize * parent.ld..(cj as usize + 1) * parent.ld];
            let (left, out) = below[j * ld..(j + 1) * ld].split_at_mut(w);
            out.iter_mut().zip(&idx).for_each(|(o, &i)| *o = column[i as usize]);
            left.iter_mut().enumerate().for_each(|(i, o)| *o = panel[w + j + i * ld]);
        }
        // Y = L21 L11^-1, transposed where Z_wr will be; Z_rw = -Z_rr Y; Z_ww = (L11 L11')^-1 - Y' Z_rw.
        dense::solve_left_lt(panel, w, ld, below, r, ld);
        dense::gemm_nt(&mut own[w..], ld, &below[w..], ld, below, ld, r, w, r, -1.0);
        let mut some = Vec::with_capacity(SOME_COLUMNS * r);
        for columns in own.chunks_mut(SOME_COLUMNS * ld) {
            some.clear();
            columns.chunks_exact(ld).for_each(|column| some.extend_from_slice(&column[w..]));
            dense::gemm(columns, ld, below, ld, &some, r, w, columns.len() / ld, r, -1.0);
        }
        for (i, column) in below.chunks_exact_mut(ld).enumerate() {
            column[..w].iter_mut().enumerate().for_each(|(j, o)| *o = own[w + i + j * ld]);
        }
        z
    }

    /// Diagonal blocks (and pairs) of leaves below a front whose part of the inverse is `z`.
    fn invert_leaves(&self, leaves: &[u32], z: &[f64], ld: usize) {
        if self.num.stop.requested() {
            return;
        }
        let mut batch = Batch::new(self.num, self.sym, leaves);
        batch.multiply(z, ld);
        let mut zll = vec![];
        for (i, &c) in leaves.iter().enumerate() {
            let s = &self.sym.supers[c as usize];
            let w = s.width as usize;
            let p = s.first as usize;
            let f = self.sym.factor_at[p] as usize;
            let (y, v) = batch.products(i);
            if w == 1 {
                let inv = 1.0 / self.num.panel(s)[0];
                self.out.diag[f].slice(self.sym.level(p), 1)[0] = inv * inv + dot(y, v);
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
                self.out.store(p, &zll, w, 0);
            }
            if !self.out.pairs.is_empty() {
                let mut at = 0;
                for e in self.sym.edges(p) {
                    self.out.store_pair(e, f, |i, j| -v[(at + i) * w + j]);
                    at += self.sym.width_at(e.row as usize);
                }
            }
        }
    }
}
