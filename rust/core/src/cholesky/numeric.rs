//! Numbers on the symbolic factorisation.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::direct::Direct;
use super::inverse::SelectedInverse;
use super::leaves;
use super::merge::{Merge, Update};
use super::source::Source;
use super::symbolic::{Super, Symbolic, NONE};
use crate::dense;
use crate::{CoreError, Stop};

/// Leaves handled by one task.
pub(super) const LEAVES: usize = 512;

/// Multiplications that are not worth a thread.
pub(super) const LITTLE: usize = 1_000_000;

/// Ratio of the pivots up to which a block is inverted in single precision.
const MILD: f64 = 30.0;

/// A square working matrix of a supernode: its part of the inverse.
pub(super) struct Front {
    pub a: Vec<f64>,
    pub ld: usize,
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
        if total <= LITTLE as f64 {
            return Schedule { tasks: vec![(0, n)], top: vec![] };
        }
        let limit = total / 8.0;
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
    pub(super) panels: Vec<f64>,
    pub(super) direct: Option<Arc<Direct>>,
    pub(super) schedule: Schedule,
    pub(super) leaves: Vec<u32>,
    pub logdet: f64,
    /// Ends a factorisation or an inverse early when asked to.
    pub stop: Stop,
}

impl Numeric {
    pub fn new(sym: &Symbolic) -> Self {
        Numeric { direct: Direct::of(sym).map(Arc::new), ..Numeric::with_fronts(sym) }
    }

    /// One that takes the way of large factors.
    pub(super) fn with_fronts(sym: &Symbolic) -> Self {
        let leaves = (0..sym.supers.len() as u32).filter(|&s| sym.supers[s as usize].leaf).collect();
        let (panels, schedule) = (vec![0.0; sym.panel_size], Schedule::new(sym));
        Numeric { panels, direct: None, schedule, leaves, logdet: 0.0, stop: Stop::default() }
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
        match &self.direct {
            Some(direct) => direct.factorise(sym, src, &mut self.panels)?,
            None => self.factorise_fronts(sym, src)?,
        }
        self.logdet = self.log_determinant(sym);
        Ok(())
    }

    /// The inverse on the pattern of L, where a small factor finds it without fronts.
    pub(super) fn direct_inverse(
        &self,
        sym: &Symbolic,
        out: SelectedInverse,
    ) -> Result<SelectedInverse, SelectedInverse> {
        match &self.direct {
            Some(direct) => Ok(direct.invert(sym, &self.panels, out)),
            None => Err(out),
        }
    }

    fn factorise_fronts(&mut self, sym: &Symbolic, src: Source<'_>) -> Result<(), CoreError> {
        let (shared, stop) = (Shared::new(&mut self.panels), &self.stop);
        let scalar = sym.scalar() && src.moments.couplings.is_empty();
        let leaf_chunk = |chunk: &[u32]| -> Result<(), CoreError> {
            stop.check()?;
            for s in chunk.iter().map(|&s| &sym.supers[s as usize]) {
                if scalar {
                    scalar_leaf(sym, s, src, &shared)?;
                } else {
                    leaf_panel(sym, s, src, &shared)?;
                }
            }
            Ok(())
        };
        if self.leaves.len() <= 2 * LEAVES {
            leaf_chunk(&self.leaves)?;
        } else {
            self.leaves.par_chunks(LEAVES).try_for_each(leaf_chunk)?;
        }
        let take = |parent: usize, child: usize, update: Update| {
            let s = &sym.supers[parent];
            update.add_to(sym, child, shared.slice(s.panel, s.panel_len()), &mut [], s.width as usize);
        };
        let begin = |s: usize| begin(sym, s, src, &shared);
        let finish = |s: usize, updates: &mut _, room: &mut _| finish(sym, s, &shared, updates, room, stop);
        upwards(&self.schedule, sym, begin, finish, take)
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
        let least = match &self.direct {
            Some(direct) => direct.pivots(&self.panels).fold(f64::INFINITY, f64::min),
            None => sym.supers.iter().flat_map(|s| self.pivots(s)).fold(f64::INFINITY, f64::min),
        };
        least * least
    }

    fn log_determinant(&self, sym: &Symbolic) -> f64 {
        match &self.direct {
            Some(direct) => sum_of_logarithms(direct.pivots(&self.panels)),
            None => sum_of_logarithms(sym.supers.iter().flat_map(|s| self.pivots(s))),
        }
    }
}

/// Visit the supernodes that are no leaves, children first: `begin` one, then `finish` it with what its children left,
/// unless it is a root that has taken that up (`take`: parent, child, what the child left).
pub(super) fn upwards<U: Send>(
    schedule: &Schedule,
    sym: &Symbolic,
    begin: impl Fn(usize) + Sync,
    finish: impl Fn(usize, &mut Vec<(usize, U)>, &mut Vec<f64>) -> Result<(), CoreError> + Sync,
    take: impl Fn(usize, usize, U) + Send,
) -> Result<(), CoreError> {
    let run = |range: (usize, usize), updates: &mut Vec<(usize, U)>| -> Result<(), CoreError> {
        let mut room = vec![];
        for s in (range.0..range.1).filter(|&s| !sym.supers[s].leaf) {
            begin(s);
            finish(s, updates, &mut room)?;
        }
        Ok(())
    };
    let mut merge = Merge::new(sym, &schedule.top, take);
    merge.roots.iter().for_each(|&s| begin(s));
    let tasks = &schedule.tasks;
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
    for &s in &schedule.top {
        if !roots.contains(&s) {
            begin(s);
        }
        finish(s, &mut updates, &mut vec![])?;
    }
    Ok(())
}

/// Twice the sum of the logarithms: one for as many pivots as a number holds.
fn sum_of_logarithms(pivots: impl Iterator<Item = f64>) -> f64 {
    let usual = |v: f64| (1e-100..1e100).contains(&v);
    let (mut sum, mut product) = (0.0, 1.0);
    for v in pivots {
        if usual(v) {
            product *= v;
        } else {
            sum += v.ln();
        }
        if !usual(product) {
            sum += product.ln();
            product = 1.0;
        }
    }
    2.0 * (sum + product.ln())
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

/// The panel of a leaf where every node is a single number and levels are independent.
#[inline]
fn scalar_leaf(sym: &Symbolic, s: &Super, src: Source<'_>, panels: &Shared) -> Result<(), CoreError> {
    let (p, pairs) = (s.first as usize, &src.moments.pairs);
    let panel = panels.slice(s.panel, s.panel_len());
    let f = sym.factor_at[p] as usize;
    let pivot = 1.0 + src.lambda[f][0] * src.lambda[f][0] * src.moments.factors[f].gram[sym.level(p)];
    let l = pivot.sqrt();
    if !(l > 0.0) || !l.is_finite() {
        return Err(CoreError::NotPositiveDefinite(format!("pivot of a level is {pivot:e}")));
    }
    panel[0] = l;
    let inv = 1.0 / l;
    for (out, e) in panel[1..].iter_mut().zip(sym.edges(p)) {
        let pair = &pairs[e.pair as usize];
        *out = src.lambda[pair.lead][0] * src.lambda[pair.other][0] * pair.value[e.entry as usize] * inv;
    }
    Ok(())
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
    factor_small(panel, w, r)
}

/// Factor the panel of a level or of a few.
#[inline]
pub(super) fn factor_small(panel: &mut [f64], w: usize, r: usize) -> Result<(), CoreError> {
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

/// Write the original entries of a supernode to its panel.
pub(super) fn begin(sym: &Symbolic, index: usize, src: Source<'_>, panels: &Shared) {
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

/// Add the children's contributions to a supernode that has begun, and factor it; `update` is room for its own.
fn finish(
    sym: &Symbolic,
    index: usize,
    panels: &Shared,
    updates: &mut Vec<(usize, Update)>,
    update: &mut Vec<f64>,
    stop: &Stop,
) -> Result<(), CoreError> {
    let s = &sym.supers[index];
    let (w, r) = (s.width as usize, s.below as usize);
    let panel = panels.slice(s.panel, s.panel_len());
    if s.packed {
        leaves::add_packed(sym, sym.children(index), panel, w, panels);
        return dense::packed_cholesky(panel, w, stop);
    }
    update.clear();
    update.resize(r * r, 0.0);
    for c in sym.children(index).iter().map(|&c| c as usize).filter(|&c| !sym.supers[c].leaf) {
        // Children come in order, so an update is found from the end in a few steps; a root has taken some up already.
        if let Some(k) = updates.iter().rposition(|(i, _)| *i == c) {
            updates.swap_remove(k).1.add_to(sym, c, panel, update, w);
        }
    }
    leaves::add(sym, &sym.leaves(index), panel, update, w, panels);
    dense::panel_factor(panel, w, r, Some(stop))?;
    if r > 0 {
        dense::syrk_lower(update, r, &panel[w..], w + r, r, w, -1.0);
        updates.push((index, Update::new(update, r)));
    }
    Ok(())
}
