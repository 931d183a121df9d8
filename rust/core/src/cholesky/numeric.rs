//! Numbers on the symbolic factorisation: the factor and triangular solves.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rayon::prelude::*;

use super::leaves;
use super::symbolic::{Edge, Super, Symbolic, NONE};
use crate::dense;
use crate::design::Moments;
use crate::{CoreError, Stop};

/// Leaves handled by one task.
pub(super) const LEAVES: usize = 512;

/// Supernodes up to this width are solved by plain loops.
const NARROW: usize = 8;

/// Ratio of the pivots up to which a block is inverted in single precision.
const MILD: f64 = 30.0;

/// The matrix Lambda' Z'WZ Lambda + Q, block by block; Q is the identity but where levels are related.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub moments: &'a Moments,
    /// Relative factor of every grouping factor, cols x cols, column-major.
    pub lambda: &'a [Vec<f64>],
}

impl Source<'_> {
    /// Lambda' G Lambda + Q of one level, written with leading dimension `ld`.
    fn diagonal(&self, f: usize, level: usize, out: &mut [f64], ld: usize) {
        let factor = &self.moments.factors[f];
        let k = factor.cols;
        let gram = &factor.gram[level * k * k..(level + 1) * k * k];
        let prior = self.moments.couplings.iter().find(|c| c.factor == f).map_or(1.0, |c| c.diag[level]);
        if k == 1 {
            out[0] = prior + self.lambda[f][0] * self.lambda[f][0] * gram[0];
            return;
        }
        sandwich(&self.lambda[f], gram, &self.lambda[f], k, k, out, ld);
        for a in 0..k {
            out[a + a * ld] += prior;
        }
    }

    /// Block (row node, column node) of an edge, rows x cols with leading dimension `ld`.
    #[inline]
    fn edge(&self, e: &Edge, column_factor: usize, out: &mut [f64], ld: usize) {
        let Some(pair) = self.moments.pairs.get(e.pair as usize) else {
            let c = &self.moments.couplings[e.pair as usize - self.moments.pairs.len()];
            let k = self.moments.factors[c.factor].cols;
            for j in 0..k {
                out[j * ld..j * ld + k].fill(0.0);
                out[j + j * ld] = c.pair.value[e.entry as usize];
            }
            return;
        };
        let (ll, lo) = (&self.lambda[pair.lead], &self.lambda[pair.other]);
        if ll.len() == 1 && lo.len() == 1 {
            out[0] = ll[0] * lo[0] * pair.value[e.entry as usize];
            return;
        }
        let (kl, ko) = (self.moments.factors[pair.lead].cols, self.moments.factors[pair.other].cols);
        let v = &pair.value[e.entry as usize * kl * ko..(e.entry as usize + 1) * kl * ko];
        if pair.lead != column_factor {
            sandwich(ll, v, lo, kl, ko, out, ld);
        } else {
            let mut t = vec![0.0; kl * ko];
            for i in 0..kl {
                for j in 0..ko {
                    t[j + i * ko] = v[i + j * kl];
                }
            }
            sandwich(lo, &t, ll, ko, kl, out, ld);
        }
    }
}

/// out = A' V B for A (ka x ka), V (ka x kb), B (kb x kb).
fn sandwich(a: &[f64], v: &[f64], b: &[f64], ka: usize, kb: usize, out: &mut [f64], ld: usize) {
    match (ka, kb) {
        (2, 2) => return small_sandwich::<2>(a, v, b, out, ld),
        (3, 3) => return small_sandwich::<3>(a, v, b, out, ld),
        (4, 4) => return small_sandwich::<4>(a, v, b, out, ld),
        (5, 5) => return small_sandwich::<5>(a, v, b, out, ld),
        (6, 6) => return small_sandwich::<6>(a, v, b, out, ld),
        (8, 8) => return small_sandwich::<8>(a, v, b, out, ld),
        _ => {}
    }
    if ka * kb > 64 {
        return large_sandwich(a, v, b, (ka, kb), out, ld);
    }
    let mut t = [0.0; 64];
    for j in 0..kb {
        for i in 0..ka {
            t[i + j * ka] = (0..kb).map(|s| v[i + s * ka] * b[s + j * kb]).sum();
        }
    }
    for j in 0..kb {
        for i in 0..ka {
            out[i + j * ld] = (0..ka).map(|s| a[s + i * ka] * t[s + j * ka]).sum();
        }
    }
}

/// The same by the rows and columns of V that are not zero: a level sees few of the columns of a structure over times.
fn large_sandwich(a: &[f64], v: &[f64], b: &[f64], (ka, kb): (usize, usize), out: &mut [f64], ld: usize) {
    let cols: Vec<usize> = (0..kb).filter(|s| v[s * ka..(s + 1) * ka].iter().any(|x| *x != 0.0)).collect();
    let rows: Vec<usize> = (0..ka).filter(|i| cols.iter().any(|s| v[i + s * ka] != 0.0)).collect();
    let (r, c) = (rows.len(), cols.len());
    let pick = |from: &[f64], k: usize, at: &[usize]| -> Vec<f64> {
        (0..k).flat_map(|j| at.iter().map(move |s| from[s + j * k])).collect()
    };
    let (own, near, far) = (pick(a, ka, &rows), pick(b, kb, &cols), cols.iter());
    let own_v: Vec<f64> = far.flat_map(|s| rows.iter().map(move |i| v[i + s * ka])).collect();
    let mut t = vec![0.0; r * kb];
    dense::gemm(&mut t, r, &own_v, r, &near, c, r, kb, c, 1.0);
    (0..kb).for_each(|j| out[j * ld..j * ld + ka].fill(0.0));
    dense::gemm_tn(out, ld, &own, r, &t, r, ka, kb, r, 1.0);
}

fn small_sandwich<const K: usize>(a: &[f64], v: &[f64], b: &[f64], out: &mut [f64], ld: usize) {
    let load = |x: &[f64]| -> [[f64; K]; K] { std::array::from_fn(|j| std::array::from_fn(|i| x[i + j * K])) };
    let (a, v, b) = (load(a), load(v), load(b));
    let mut t = [[0.0; K]; K];
    for j in 0..K {
        for s in 0..K {
            for i in 0..K {
                t[j][i] += v[s][i] * b[j][s];
            }
        }
    }
    // Columns of A' are read side by side, so that the inner loop runs along a column of the result.
    let rows: [[f64; K]; K] = std::array::from_fn(|s| std::array::from_fn(|i| a[i][s]));
    for j in 0..K {
        let mut column = [0.0; K];
        for s in 0..K {
            for i in 0..K {
                column[i] += rows[s][i] * t[j][s];
            }
        }
        out[j * ld..j * ld + K].copy_from_slice(&column);
    }
}

/// A square working matrix of a supernode: its part of the inverse.
pub(super) struct Front {
    pub a: Vec<f64>,
    pub ld: usize,
}

/// What a supernode adds to its parent: the lower triangle, column by column, as many may wait for their parent.
struct Update(Vec<f64>);

impl Update {
    /// Of a square matrix.
    fn new(mut a: Vec<f64>, rows: usize) -> Self {
        let mut to = 0;
        for j in 0..rows {
            a.copy_within(j * rows + j..(j + 1) * rows, to);
            to += rows - j;
        }
        a.truncate(to);
        a.shrink_to_fit();
        Update(a)
    }

    /// Add what the supernode `child` has for its parent to the lower triangles of the parent's own `w` columns and of
    /// the rows below them.
    fn add_to(&self, sym: &Symbolic, child: usize, panel: &mut [f64], update: &mut [f64], w: usize) {
        let ld = panel.len() / w;
        let r = ld - w;
        let mut idx = vec![];
        relative_scalars(sym, &sym.supers[child], &mut idx);
        let mut rest = self.0.as_slice();
        for (j, &cj) in idx.iter().enumerate() {
            let (from, more) = rest.split_at(idx.len() - j);
            rest = more;
            let (to, shift) = match (cj as usize).checked_sub(w) {
                None => (&mut panel[cj as usize * ld..(cj as usize + 1) * ld], 0),
                Some(c) => (&mut update[c * r..(c + 1) * r], w as u32),
            };
            for (&ri, v) in idx[j..].iter().zip(from) {
                to[(ri - shift) as usize] += v;
            }
        }
    }
}

/// Shared access to slices whose parts are written by different tasks.
#[derive(Clone, Copy)]
pub(super) struct Shared(*mut f64, usize);
// SAFETY: every task writes only the panels (or diagonal blocks) of its own supernodes; ranges never overlap.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(v: &mut [f64]) -> Self {
        Shared(v.as_mut_ptr(), v.len())
    }

    #[allow(clippy::mut_from_ref)]
    pub fn slice(&self, from: usize, len: usize) -> &mut [f64] {
        assert!(from + len <= self.1);
        // SAFETY: in range by the assertion; disjoint by the argument above.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}

/// Subtrees that are independent of each other, and the supernodes above them, in elimination order.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    pub tasks: Vec<(usize, usize)>,
    pub top: Vec<usize>,
}

impl Schedule {
    fn new(sym: &Symbolic) -> Self {
        let n = sym.supers.len();
        let mut work = vec![0.0f64; n];
        let mut first: Vec<usize> = (0..n).collect();
        for (s, sup) in sym.supers.iter().enumerate() {
            let (w, r) = (sup.width as f64, sup.below as f64);
            work[s] += 20.0 + w * (w + r) * (w + r);
            if sup.parent != NONE {
                let p = sup.parent as usize;
                work[p] += work[s];
                first[p] = first[p].min(first[s]);
            }
        }
        let total: f64 = sym.supers.iter().zip(&work).filter(|(s, _)| s.parent == NONE).map(|(_, w)| w).sum();
        let limit = if total > 1e6 { total / 8.0 } else { f64::INFINITY };
        let mut out = Schedule::default();
        let mut s = n;
        // From the top: a subtree small enough becomes part of a task, anything else belongs to the top.
        while s > 0 {
            let j = s - 1;
            if sym.supers[j].leaf {
                s = j;
            } else if work[j] <= limit {
                out.tasks.push((first[j], s));
                s = first[j];
            } else {
                out.top.push(j);
                s = j;
            }
        }
        out.tasks.reverse();
        out.top.reverse();
        out
    }
}

/// The factor L of one theta; buffers are kept from one factorisation to the next.
#[derive(Clone)]
pub struct Numeric {
    panels: Vec<f64>,
    pub(super) schedule: Schedule,
    pub(super) leaves: Vec<u32>,
    pub logdet: f64,
    /// Ends a factorisation or an inverse early when asked to.
    pub stop: Stop,
}

impl Numeric {
    pub fn new(sym: &Symbolic) -> Self {
        let leaves = (0..sym.supers.len() as u32).filter(|&s| sym.supers[s as usize].leaf).collect();
        let (panels, schedule) = (vec![0.0; sym.panel_size], Schedule::new(sym));
        Numeric { panels, schedule, leaves, logdet: 0.0, stop: Stop::default() }
    }

    /// Panel (width + below) x width of a supernode: L on top, the rows below it under it; or a packed triangle.
    pub(super) fn panel(&self, s: &Super) -> &[f64] {
        &self.panels[s.panel..s.panel + s.panel_len()]
    }

    pub(super) fn panel_mut(&mut self, s: &Super) -> &mut [f64] {
        &mut self.panels[s.panel..s.panel + s.panel_len()]
    }

    /// Diagonal of L in a supernode.
    fn pivots<'a>(&'a self, s: &'a Super) -> impl Iterator<Item = f64> + 'a {
        let (panel, w, ld) = (self.panel(s), s.width as usize, (s.width + s.below) as usize);
        (0..w).map(move |j| panel[if s.packed { dense::packed_at(w, j, j) } else { j + j * ld }])
    }

    pub fn factorise(&mut self, sym: &Symbolic, src: Source<'_>) -> Result<(), CoreError> {
        let (shared, stop) = (Shared::new(&mut self.panels), &self.stop);
        let leaf_chunk = |chunk: &[u32]| -> Result<(), CoreError> {
            stop.check()?;
            for &s in chunk {
                leaf_panel(sym, &sym.supers[s as usize], src, &shared)?;
            }
            Ok(())
        };
        if self.leaves.len() <= 2 * LEAVES {
            leaf_chunk(&self.leaves)?;
        } else {
            self.leaves.par_chunks(LEAVES).try_for_each(leaf_chunk)?;
        }
        let run = |range: (usize, usize), updates: &mut Vec<(usize, Update)>| -> Result<(), CoreError> {
            for s in range.0..range.1 {
                if !sym.supers[s].leaf {
                    begin(sym, s, src, &shared);
                    finish(sym, s, &shared, updates, stop)?;
                }
            }
            Ok(())
        };
        let mut merge = Merge::new(sym, &self.schedule.top, src, &shared);
        let tasks = &self.schedule.tasks;
        if tasks.len() == 1 {
            run(tasks[0], &mut merge.updates)?;
        } else if !tasks.is_empty() {
            // In order, so that few results wait for one before them.
            let groups = group_tasks(tasks).into_iter().enumerate();
            let turns = Mutex::new(&mut merge);
            groups.par_bridge().try_for_each(|(i, g)| {
                let mut updates = vec![];
                g.iter().try_for_each(|&t| run(t, &mut updates))?;
                turns.lock().expect("nothing panics under the lock").add(i, updates);
                Ok(())
            })?;
        }
        let Merge { roots, mut updates, .. } = merge;
        for &s in &self.schedule.top {
            if !roots.contains(&s) {
                begin(sym, s, src, &shared);
            }
            finish(sym, s, &shared, &mut updates, stop)?;
        }
        self.logdet = self.log_determinant(sym);
        Ok(())
    }

    /// Whether an inverse in single precision pays, and is good enough to steer by: a large block, mild pivots.
    pub fn single_pays(&self, sym: &Symbolic) -> bool {
        let wide = sym.supers.iter().filter(|s| s.width as usize >= 2 * dense::TILED_INVERSE);
        let mut any = false;
        let mild = wide.inspect(|_| any = true).all(|s| {
            let (least, most) = self.pivots(s).fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
            most < MILD * least
        });
        any && mild
    }

    /// Smallest squared pivot: small where the matrix is nearly singular.
    pub fn least_pivot(&self, sym: &Symbolic) -> f64 {
        let mut least = f64::INFINITY;
        for s in &sym.supers {
            self.pivots(s).for_each(|v| least = least.min(v));
        }
        least * least
    }

    fn log_determinant(&self, sym: &Symbolic) -> f64 {
        let mut sum = 0.0;
        for s in &sym.supers {
            if s.width == 1 {
                sum += self.panel(s)[0].ln();
            } else {
                sum += self.pivots(s).map(f64::ln).sum::<f64>();
            }
        }
        2.0 * sum
    }

    /// B <- L^-1 B, B row-major (size x m) in elimination order.
    pub fn forward(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        match m {
            0 => {}
            1 => self.forward_fixed::<1>(sym, b, m),
            2 => self.forward_fixed::<2>(sym, b, m),
            3 => self.forward_fixed::<3>(sym, b, m),
            4 => self.forward_fixed::<4>(sym, b, m),
            _ => self.forward_fixed::<0>(sym, b, m),
        }
    }

    /// `M` is the number of right-hand sides, 0 when it is not known beforehand.
    fn forward_fixed<const M: usize>(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        let m = if M == 0 { m } else { M };
        let scalar = sym.scalar();
        let mut index = vec![];
        for s in &sym.supers {
            let (w, r) = (s.width as usize, s.below as usize);
            let ld = w + r;
            let panel = self.panel(s);
            let at = sym.offset[s.first as usize] as usize * m;
            let (y, rest) = b[at..].split_at_mut(w * m);
            if w <= NARROW {
                forward_narrow::<M>(panel, w, ld, y, m);
            } else if s.packed {
                dense::packed_solve_right_lt(panel, w, y, m);
            } else {
                dense::solve_right_lt(panel, w, ld, y, m, m);
            }
            if r == 0 {
                continue;
            }
            let rows = scalar_rows(sym, s, scalar, &mut index);
            let shift = at + w * m;
            if w * r * m < 4096 || w == 1 {
                for j in 0..w {
                    let yj = &y[j * m..(j + 1) * m];
                    for (&q, l) in rows.iter().zip(&panel[w + j * ld..]) {
                        let out = &mut rest[q as usize * m - shift..][..m];
                        out.iter_mut().zip(yj).for_each(|(o, v)| *o -= l * v);
                    }
                }
            } else {
                // (m x r) = Y' (m x w) L21' (w x r)
                let mut t = vec![0.0; m * r];
                dense::gemm_nt(&mut t, m, y, m, &panel[w..], ld, m, r, w, 1.0);
                for (i, &q) in rows.iter().enumerate() {
                    let out = &mut rest[q as usize * m - shift..][..m];
                    out.iter_mut().zip(&t[i * m..(i + 1) * m]).for_each(|(o, v)| *o -= v);
                }
            }
        }
    }

    /// B <- L^-T B, B row-major (size x m) in elimination order.
    pub fn backward(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        match m {
            0 => {}
            1 => self.backward_fixed::<1>(sym, b, m),
            2 => self.backward_fixed::<2>(sym, b, m),
            3 => self.backward_fixed::<3>(sym, b, m),
            4 => self.backward_fixed::<4>(sym, b, m),
            _ => self.backward_fixed::<0>(sym, b, m),
        }
    }

    fn backward_fixed<const M: usize>(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        let m = if M == 0 { m } else { M };
        let scalar = sym.scalar();
        let mut index = vec![];
        for s in sym.supers.iter().rev() {
            let (w, r) = (s.width as usize, s.below as usize);
            let ld = w + r;
            let panel = self.panel(s);
            let at = sym.offset[s.first as usize] as usize * m;
            let (y, rest) = b[at..].split_at_mut(w * m);
            let shift = at + w * m;
            if r > 0 {
                let rows = scalar_rows(sym, s, scalar, &mut index);
                if w * r * m < 4096 || w == 1 {
                    for j in 0..w {
                        let yj = &mut y[j * m..(j + 1) * m];
                        for (&q, l) in rows.iter().zip(&panel[w + j * ld..]) {
                            let x = &rest[q as usize * m - shift..][..m];
                            yj.iter_mut().zip(x).for_each(|(o, v)| *o -= l * v);
                        }
                    }
                } else {
                    let mut x = vec![0.0; m * r];
                    for (i, &q) in rows.iter().enumerate() {
                        x[i * m..(i + 1) * m].copy_from_slice(&rest[q as usize * m - shift..][..m]);
                    }
                    dense::gemm(y, m, &x, m, &panel[w..], ld, m, w, r, -1.0);
                }
            }
            if w <= NARROW {
                backward_narrow::<M>(panel, w, ld, y, m);
            } else if s.packed {
                dense::packed_solve_right_l(panel, w, y, m);
            } else {
                dense::solve_right_l(panel, w, ld, y, m, m);
            }
        }
    }
}

/// L^-1 on the rows of a narrow supernode.
#[inline(always)]
fn forward_narrow<const M: usize>(l: &[f64], w: usize, ld: usize, y: &mut [f64], m: usize) {
    let m = if M == 0 { m } else { M };
    for j in 0..w {
        let (before, row) = y.split_at_mut(j * m);
        for (k, done) in before.chunks_exact(m).enumerate() {
            let f = l[j + k * ld];
            row[..m].iter_mut().zip(done).for_each(|(o, v)| *o -= f * v);
        }
        let inv = 1.0 / l[j + j * ld];
        row[..m].iter_mut().for_each(|v| *v *= inv);
    }
}

/// L^-T on the rows of a narrow supernode.
#[inline(always)]
fn backward_narrow<const M: usize>(l: &[f64], w: usize, ld: usize, y: &mut [f64], m: usize) {
    let m = if M == 0 { m } else { M };
    for j in (0..w).rev() {
        let (row, after) = y[j * m..].split_at_mut(m);
        for (k, done) in after[..(w - 1 - j) * m].chunks_exact(m).enumerate() {
            let f = l[j + 1 + k + j * ld];
            row.iter_mut().zip(done).for_each(|(o, v)| *o -= f * v);
        }
        let inv = 1.0 / l[j + j * ld];
        row.iter_mut().for_each(|v| *v *= inv);
    }
}

/// Consecutive tasks in at most 64 groups (a number that does not depend on the threads).
pub(super) fn group_tasks(tasks: &[(usize, usize)]) -> Vec<&[(usize, usize)]> {
    tasks.chunks(tasks.len().div_ceil(64).max(1)).collect()
}

/// Scalar rows (in elimination order) below a supernode; with `scalar` nodes they are the rows themselves.
pub(super) fn scalar_rows<'a>(sym: &'a Symbolic, s: &Super, scalar: bool, buffer: &'a mut Vec<u32>) -> &'a [u32] {
    if scalar {
        return sym.rows(s);
    }
    buffer.clear();
    for &q in sym.rows(s) {
        buffer.extend(sym.offset[q as usize]..sym.offset[q as usize + 1]);
    }
    buffer
}

/// Scalar offsets of a supernode's rows in the front of its parent.
pub(super) fn relative_scalars(sym: &Symbolic, s: &Super, out: &mut Vec<u32>) {
    out.clear();
    for (&q, &r) in sym.rows(s).iter().zip(sym.relative(s)) {
        let w = sym.offset[q as usize + 1] - sym.offset[q as usize];
        out.extend(r..r + w);
    }
}

fn leaf_panel(sym: &Symbolic, s: &Super, src: Source<'_>, panels: &Shared) -> Result<(), CoreError> {
    let (w, r) = (s.width as usize, s.below as usize);
    let ld = w + r;
    let panel = panels.slice(s.panel, ld * w);
    let p = s.first as usize;
    let f = sym.factor_at[p] as usize;
    src.diagonal(f, sym.level(p), panel, ld);
    let mut at = w;
    for e in sym.edges(p) {
        src.edge(e, f, &mut panel[at..], ld);
        at += sym.width_at(e.row as usize);
    }
    if w == 1 {
        let l = panel[0].sqrt();
        if !(l > 0.0) || !l.is_finite() {
            return Err(CoreError::NotPositiveDefinite(format!("pivot of a level is {:e}", panel[0])));
        }
        panel[0] = l;
        let inv = 1.0 / l;
        panel[1..].iter_mut().for_each(|v| *v *= inv);
        return Ok(());
    }
    dense::panel_factor(panel, w, r, None)
}

/// What groups of subtrees add to the supernodes above them, in the order of the groups whoever is ready first. Roots
/// take it up at once: all of it together would need more memory than anything else.
struct Merge<'a> {
    sym: &'a Symbolic,
    panels: &'a Shared,
    /// Roots whose panels hold their own entries already.
    roots: Vec<usize>,
    /// The group whose turn it is, and those that came before their turn.
    next: usize,
    early: BTreeMap<usize, Vec<(usize, Update)>>,
    /// What waits for a supernode that is not a root.
    updates: Vec<(usize, Update)>,
}

impl<'a> Merge<'a> {
    fn new(sym: &'a Symbolic, top: &[usize], src: Source<'_>, panels: &'a Shared) -> Self {
        let roots: Vec<usize> = top.iter().copied().filter(|&s| sym.supers[s].below == 0).collect();
        roots.iter().for_each(|&s| begin(sym, s, src, panels));
        Merge { sym, panels, roots, next: 0, early: BTreeMap::new(), updates: vec![] }
    }

    fn add(&mut self, group: usize, updates: Vec<(usize, Update)>) {
        self.early.insert(group, updates);
        while let Some(updates) = self.early.remove(&self.next) {
            self.next += 1;
            for (child, update) in updates {
                let parent = self.sym.supers[child].parent as usize;
                if self.roots.contains(&parent) {
                    let s = &self.sym.supers[parent];
                    let panel = self.panels.slice(s.panel, s.panel_len());
                    update.add_to(self.sym, child, panel, &mut [], s.width as usize);
                } else {
                    self.updates.push((child, update));
                }
            }
        }
    }
}

/// Write the original entries of a supernode to its panel.
fn begin(sym: &Symbolic, index: usize, src: Source<'_>, panels: &Shared) {
    let s = &sym.supers[index];
    let ld = (s.width + s.below) as usize;
    let panel = panels.slice(s.panel, s.panel_len());
    panel.fill(0.0);
    if s.packed {
        return begin_packed(sym, s, src, panel);
    }
    sym.for_edges(s, |p, column, e, row| {
        src.edge(e, sym.factor_at[p] as usize, &mut panel[row + column * ld..], ld);
    });
    for p in s.first as usize..s.last as usize {
        let c = (sym.offset[p] - sym.offset[s.first as usize]) as usize;
        src.diagonal(sym.factor_at[p] as usize, sym.level(p), &mut panel[c + c * ld..], ld);
    }
}

/// The same for a packed root.
fn begin_packed(sym: &Symbolic, s: &Super, src: Source<'_>, panel: &mut [f64]) {
    let w = s.width as usize;
    let mut block = vec![];
    let mut put = |row: usize, column: usize, rows: usize, block: &[f64]| {
        for (j, values) in block.chunks_exact(rows).enumerate().map(|(j, v)| (column + j, v)) {
            let lower = values.iter().enumerate().filter(|(i, _)| row + i >= j);
            lower.for_each(|(i, v)| panel[dense::packed_at(w, row + i, j)] = *v);
        }
    };
    sym.for_edges(s, |p, column, e, row| {
        let rows = sym.width_at(e.row as usize);
        block.clear();
        block.resize(rows * sym.width_at(p), 0.0);
        src.edge(e, sym.factor_at[p] as usize, &mut block, rows);
        put(row, column, rows, &block);
    });
    for p in s.first as usize..s.last as usize {
        let (c, k) = ((sym.offset[p] - sym.offset[s.first as usize]) as usize, sym.width_at(p));
        block.clear();
        block.resize(k * k, 0.0);
        src.diagonal(sym.factor_at[p] as usize, sym.level(p), &mut block, k);
        put(c, c, k, &block);
    }
}

/// Add the children's contributions to a supernode that has begun, and factor it.
fn finish(
    sym: &Symbolic,
    index: usize,
    panels: &Shared,
    updates: &mut Vec<(usize, Update)>,
    stop: &Stop,
) -> Result<(), CoreError> {
    let s = &sym.supers[index];
    let (w, r) = (s.width as usize, s.below as usize);
    let panel = panels.slice(s.panel, s.panel_len());
    if s.packed {
        leaves::add_packed(sym, sym.children(index), panel, w, panels);
        return dense::packed_cholesky(panel, w, stop);
    }
    let mut update = vec![0.0; r * r];
    let (leaves, inner): (Vec<u32>, Vec<u32>) = sym.children(index).iter().partition(|&&c| sym.supers[c as usize].leaf);
    for c in inner.into_iter().map(|c| c as usize) {
        // Children come in order, so an update is found from the end in a few steps; a root has taken some up already.
        if let Some(k) = updates.iter().rposition(|(i, _)| *i == c) {
            updates.swap_remove(k).1.add_to(sym, c, panel, &mut update, w);
        }
    }
    leaves::add(sym, &leaves, panel, &mut update, w, panels);
    dense::panel_factor(panel, w, r, Some(stop))?;
    if r > 0 {
        dense::syrk_lower(&mut update, r, &panel[w..], w + r, r, w, -1.0);
        updates.push((index, Update::new(update, r)));
    }
    Ok(())
}

/// L^-1 times sparse right-hand sides, one row of new data at a time: only ancestors of its nodes are visited.
pub struct RowSolver<'a> {
    num: &'a Numeric,
    sym: &'a Symbolic,
    super_of: Vec<u32>,
    value: Vec<f64>,
    queue: std::collections::BinaryHeap<std::cmp::Reverse<u32>>,
    index: Vec<u32>,
    tail: Option<&'a Tail>,
    own: Vec<f64>,
    buffer: Vec<f64>,
}

/// L^-1 on the supernodes that are not leaves. A row of data has few entries there before it is solved, and most of
/// them after: a few columns of the inverse are cheaper than the way through the factor.
pub struct Tail {
    /// Its scalar rows, in elimination order.
    rows: Vec<u32>,
    pub(super) inverse: Vec<f64>,
}

/// Scalars of a tail that is worth inverting.
const TAIL: std::ops::RangeInclusive<usize> = 32..=4096;

impl Numeric {
    /// The inverse of the tail where it pays for so many rows: it costs the solution of as many rows as it has.
    /// Worthless when cut short.
    pub fn tail_for(&self, sym: &Symbolic, rows: usize) -> Option<Tail> {
        let n: usize = sym.supers.iter().filter(|s| !s.leaf).map(|s| s.width as usize).sum();
        (TAIL.contains(&n) && n <= rows).then(|| self.tail(sym))
    }

    pub(super) fn tail(&self, sym: &Symbolic) -> Tail {
        let scalars = |s: &Super| {
            let at = sym.offset[s.first as usize];
            at..at + s.width
        };
        let inner = sym.supers.iter().enumerate().filter(|(_, s)| !s.leaf);
        let units: Vec<(u32, u32)> = inner.flat_map(|(i, s)| scalars(s).map(move |q| (i as u32, q))).collect();
        let n = units.len();
        let mut place = vec![0; sym.size];
        units.iter().enumerate().for_each(|(at, &(_, q))| place[q as usize] = at);
        let mut inverse = vec![0.0; n * n];
        let parts: Vec<_> = inverse.chunks_mut(64 * n.max(1)).zip(units.chunks(64)).collect();
        dense::each(parts, |(columns, units)| {
            let mut solver = self.row_solver(sym, None);
            let columns = columns.chunks_exact_mut(n).take_while(|_| !self.stop.requested());
            for (column, &(i, q)) in columns.zip(units) {
                solver.value[q as usize] = 1.0;
                solver.queue.push(std::cmp::Reverse(i));
                solver.solve(|q, v| column[place[q]] = v);
            }
        });
        Tail { rows: units.iter().map(|u| u.1).collect(), inverse }
    }

    /// `tail` is that of `tail_for`.
    pub fn row_solver<'a>(&'a self, sym: &'a Symbolic, tail: Option<&'a Tail>) -> RowSolver<'a> {
        let mut super_of = vec![0u32; sym.nodes];
        for (i, s) in sym.supers.iter().enumerate() {
            super_of[s.first as usize..s.last as usize].fill(i as u32);
        }
        RowSolver {
            num: self,
            sym,
            super_of,
            value: vec![0.0; sym.size],
            queue: Default::default(),
            index: vec![],
            tail,
            own: vec![],
            buffer: vec![],
        }
    }
}

impl RowSolver<'_> {
    /// Add entries of the right-hand side at the node of a position.
    pub fn add(&mut self, position: usize, offset: usize, values: &[f64]) {
        let at = self.sym.offset[position] as usize + offset;
        self.value[at..at + values.len()].iter_mut().zip(values).for_each(|(o, v)| *o += v);
        self.queue.push(std::cmp::Reverse(self.super_of[position]));
    }

    /// Squared length of w = L^-1 v; subtracts F_X' w from x, F being row-major with `width` columns. Clears v.
    pub fn run(&mut self, f: &[f64], width: usize, x: &mut [f64]) -> f64 {
        let mut total = 0.0;
        self.solve(|q, v| {
            total += v * v;
            x.iter_mut().zip(&f[q * width..(q + 1) * width]).for_each(|(x, f)| *x -= v * f);
        });
        total
    }

    /// Hand every entry of L^-1 v and its scalar row to `each`; clears v.
    fn solve(&mut self, mut each: impl FnMut(usize, f64)) {
        while let Some(std::cmp::Reverse(i)) = self.queue.pop() {
            while self.queue.peek() == Some(&std::cmp::Reverse(i)) {
                self.queue.pop();
            }
            let s = &self.sym.supers[i as usize];
            if self.tail.is_some() && !s.leaf {
                continue;
            }
            self.eliminate(s, &mut each);
            if s.parent != NONE {
                self.queue.push(std::cmp::Reverse(s.parent));
            }
        }
        if let Some(tail) = self.tail {
            self.own.clear();
            self.own.extend(tail.rows.iter().map(|&q| std::mem::take(&mut self.value[q as usize])));
            multiply_lower(&tail.inverse, &mut self.own, &mut self.buffer);
            tail.rows.iter().zip(&self.own).for_each(|(&q, &v)| each(q as usize, v));
        }
    }

    /// Solve on a supernode's columns and take its rows' share.
    fn eliminate(&mut self, s: &Super, each: &mut impl FnMut(usize, f64)) {
        let (w, r) = (s.width as usize, s.below as usize);
        let panel = self.num.panel(s);
        let at = self.sym.offset[s.first as usize] as usize;
        if s.packed {
            dense::packed_solve_left_l(panel, w, &mut self.value[at..at + w]);
        } else {
            dense::solve_left_l(panel, w, w + r, &mut self.value[at..at + w], 1, w);
        }
        let rows = scalar_rows(self.sym, s, false, &mut self.index);
        for j in 0..w {
            let v = std::mem::take(&mut self.value[at + j]);
            if v == 0.0 {
                continue;
            }
            each(at + j, v);
            if r > 0 {
                for (&q, l) in rows.iter().zip(&panel[w + j * (w + r)..]) {
                    self.value[q as usize] -= l * v;
                }
            }
        }
    }
}

/// x <- L x for lower triangular L (columns of full length, zero above the diagonal) and sparse x.
fn multiply_lower(l: &[f64], x: &mut [f64], buffer: &mut Vec<f64>) {
    let n = x.len();
    buffer.clear();
    buffer.resize(n, 0.0);
    let used: Vec<usize> = (0..n).filter(|&j| x[j] != 0.0).collect();
    // Four columns at a time: the sums are loaded and stored once for all of them.
    let mut fours = used.chunks_exact(4);
    for four in &mut fours {
        let from = four[0];
        let [a, b, c, d] = [0, 1, 2, 3].map(|t| &l[four[t] * n + from..(four[t] + 1) * n]);
        let [va, vb, vc, vd] = [0, 1, 2, 3].map(|t| x[four[t]]);
        for ((((o, a), b), c), d) in buffer[from..].iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *o += (va * a + vb * b) + (vc * c + vd * d);
        }
    }
    for &j in fours.remainder() {
        buffer[j..].iter_mut().zip(&l[j * n + j..(j + 1) * n]).for_each(|(o, l)| *o += l * x[j]);
    }
    x.copy_from_slice(buffer);
}
