//! Numbers on the symbolic factorisation: factor, triangular solves, selected inverse.

use rayon::prelude::*;

use super::symbolic::{Edge, Super, Symbolic, NONE};
use crate::dense;
use crate::design::Moments;
use crate::CoreError;

/// Leaves handled by one task.
const LEAVES: usize = 512;
/// Off-diagonal blocks larger than this are left out of the cross-factor information (it only steers the optimiser).
const CROSS_LIMIT: usize = 16;

/// The matrix Lambda' Z'WZ Lambda + I, block by block.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub moments: &'a Moments,
    /// Relative factor of every grouping factor, cols x cols, column-major.
    pub lambda: &'a [Vec<f64>],
}

impl Source<'_> {
    /// Lambda' G Lambda + I of one level, written with leading dimension `ld`.
    fn diagonal(&self, f: usize, level: usize, out: &mut [f64], ld: usize) {
        let factor = &self.moments.factors[f];
        let k = factor.cols;
        let gram = &factor.gram[level * k * k..(level + 1) * k * k];
        if k == 1 {
            out[0] = 1.0 + self.lambda[f][0] * self.lambda[f][0] * gram[0];
            return;
        }
        sandwich(&self.lambda[f], gram, &self.lambda[f], k, k, out, ld);
        for a in 0..k {
            out[a + a * ld] += 1.0;
        }
    }

    /// Block (row node, column node) of an edge, rows x cols with leading dimension `ld`.
    fn edge(&self, e: &Edge, column_factor: usize, out: &mut [f64], ld: usize) {
        let pair = &self.moments.pairs[e.pair as usize];
        let (kl, ko) = (self.moments.factors[pair.lead].cols, self.moments.factors[pair.other].cols);
        let v = &pair.value[e.entry as usize * kl * ko..(e.entry as usize + 1) * kl * ko];
        let (ll, lo) = (&self.lambda[pair.lead], &self.lambda[pair.other]);
        if kl == 1 && ko == 1 {
            out[0] = ll[0] * lo[0] * v[0];
        } else if pair.lead != column_factor {
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
    let mut stack = [0.0; 64];
    let mut heap = vec![];
    let t: &mut [f64] = if ka * kb <= 64 {
        &mut stack[..ka * kb]
    } else {
        heap.resize(ka * kb, 0.0);
        &mut heap
    };
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

/// A square working matrix of a supernode: its own columns, then the rows below.
struct Front {
    a: Vec<f64>,
    ld: usize,
    width: usize,
}

/// Shared access to slices whose parts are written by different tasks.
#[derive(Clone, Copy)]
struct Shared(*mut f64, usize);
// SAFETY: every task writes only the panels (or diagonal blocks) of its own supernodes; ranges never overlap.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    fn new(v: &mut [f64]) -> Self {
        Shared(v.as_mut_ptr(), v.len())
    }

    #[allow(clippy::mut_from_ref)]
    fn slice(&self, from: usize, len: usize) -> &mut [f64] {
        assert!(from + len <= self.1);
        // SAFETY: in range by the assertion; disjoint by the argument above.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}

/// Subtrees that are independent of each other, and the supernodes above them, in elimination order.
#[derive(Clone, Debug, Default)]
struct Schedule {
    tasks: Vec<(usize, usize)>,
    top: Vec<usize>,
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
pub struct Numeric {
    panels: Vec<f64>,
    schedule: Schedule,
    leaves: Vec<u32>,
    pub logdet: f64,
}

impl Numeric {
    pub fn new(sym: &Symbolic) -> Self {
        let leaves = (0..sym.supers.len() as u32).filter(|&s| sym.supers[s as usize].leaf).collect();
        Numeric { panels: vec![0.0; sym.panel_size], schedule: Schedule::new(sym), leaves, logdet: 0.0 }
    }

    /// Panel (width + below) x width of a supernode: L on top, the rows below it under it.
    fn panel(&self, s: &Super) -> &[f64] {
        let (w, r) = (s.width as usize, s.below as usize);
        &self.panels[s.panel..s.panel + (w + r) * w]
    }

    pub fn factorise(&mut self, sym: &Symbolic, src: Source<'_>) -> Result<(), CoreError> {
        let shared = Shared::new(&mut self.panels);
        let leaf_chunk = |chunk: &[u32]| -> Result<(), CoreError> {
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
        let run = |range: (usize, usize), fronts: &mut Vec<(usize, Front)>| -> Result<(), CoreError> {
            let mut local = vec![0u32; sym.nodes];
            for s in range.0..range.1 {
                if !sym.supers[s].leaf {
                    factor_super(sym, s, src, &shared, fronts, &mut local)?;
                }
            }
            Ok(())
        };
        let mut fronts: Vec<(usize, Front)> = vec![];
        if self.schedule.tasks.len() == 1 {
            run(self.schedule.tasks[0], &mut fronts)?;
        } else if !self.schedule.tasks.is_empty() {
            let groups = group_tasks(&self.schedule.tasks);
            let parts: Result<Vec<_>, CoreError> = groups
                .into_par_iter()
                .map(|g| {
                    let mut f = vec![];
                    for &t in g {
                        run(t, &mut f)?;
                    }
                    Ok(f)
                })
                .collect();
            fronts.extend(parts?.into_iter().flatten());
        }
        let mut local = vec![0u32; if self.schedule.top.is_empty() { 0 } else { sym.nodes }];
        for &s in &self.schedule.top {
            factor_super(sym, s, src, &shared, &mut fronts, &mut local)?;
        }
        self.logdet = self.log_determinant(sym);
        Ok(())
    }

    fn log_determinant(&self, sym: &Symbolic) -> f64 {
        let mut sum = 0.0;
        for s in &sym.supers {
            let (panel, w) = (self.panel(s), s.width as usize);
            let ld = w + s.below as usize;
            if w == 1 {
                sum += panel[0].ln();
            } else {
                sum += (0..w).map(|j| panel[j + j * ld].ln()).sum::<f64>();
            }
        }
        2.0 * sum
    }

    /// B <- L^-1 B, B row-major (size x m) in elimination order.
    pub fn forward(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        if m == 0 {
            return;
        }
        let mut index = vec![];
        for s in &sym.supers {
            let (w, r) = (s.width as usize, s.below as usize);
            let ld = w + r;
            let panel = self.panel(s);
            let at = sym.offset[s.first as usize] as usize * m;
            if w == 1 {
                let inv = 1.0 / panel[0];
                b[at..at + m].iter_mut().for_each(|v| *v *= inv);
            } else {
                dense::solve_right_lt(panel, w, ld, &mut b[at..at + w * m], m, m);
            }
            if r == 0 {
                continue;
            }
            scalar_rows(sym, s, &mut index);
            let (y, rest) = b[at..].split_at_mut(w * m);
            if w * r * m < 4096 || w == 1 {
                for (i, &q) in index.iter().enumerate() {
                    let out = &mut rest[q as usize * m - at - w * m..][..m];
                    for j in 0..w {
                        let l = panel[w + i + j * ld];
                        out.iter_mut().zip(&y[j * m..(j + 1) * m]).for_each(|(o, v)| *o -= l * v);
                    }
                }
            } else {
                // (m x r) = Y' (m x w) L21' (w x r)
                let mut t = vec![0.0; m * r];
                dense::gemm_nt(&mut t, m, y, m, &panel[w..], ld, m, r, w, 1.0);
                for (i, &q) in index.iter().enumerate() {
                    let out = &mut rest[q as usize * m - at - w * m..][..m];
                    out.iter_mut().zip(&t[i * m..(i + 1) * m]).for_each(|(o, v)| *o -= v);
                }
            }
        }
    }

    /// B <- L^-T B, B row-major (size x m) in elimination order.
    pub fn backward(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        if m == 0 {
            return;
        }
        let mut index = vec![];
        for s in sym.supers.iter().rev() {
            let (w, r) = (s.width as usize, s.below as usize);
            let ld = w + r;
            let panel = self.panel(s);
            let at = sym.offset[s.first as usize] as usize * m;
            let (y, rest) = b[at..].split_at_mut(w * m);
            if r > 0 {
                scalar_rows(sym, s, &mut index);
                if w * r * m < 4096 || w == 1 {
                    for (i, &q) in index.iter().enumerate() {
                        let x = &rest[q as usize * m - at - w * m..][..m];
                        for j in 0..w {
                            let l = panel[w + i + j * ld];
                            y[j * m..(j + 1) * m].iter_mut().zip(x).for_each(|(o, v)| *o -= l * v);
                        }
                    }
                } else {
                    let mut x = vec![0.0; m * r];
                    for (i, &q) in index.iter().enumerate() {
                        x[i * m..(i + 1) * m].copy_from_slice(&rest[q as usize * m - at - w * m..][..m]);
                    }
                    dense::gemm(y, m, &x, m, &panel[w..], ld, m, w, r, -1.0);
                }
            }
            if w == 1 {
                let inv = 1.0 / panel[0];
                y.iter_mut().for_each(|v| *v *= inv);
            } else {
                dense::solve_right_l(panel, w, ld, y, m, m);
            }
        }
    }

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

/// Consecutive tasks in at most 64 groups (a number that does not depend on the threads).
fn group_tasks(tasks: &[(usize, usize)]) -> Vec<&[(usize, usize)]> {
    tasks.chunks(tasks.len().div_ceil(64).max(1)).collect()
}

/// Scalar rows (in elimination order) below a supernode.
fn scalar_rows(sym: &Symbolic, s: &Super, out: &mut Vec<u32>) {
    out.clear();
    for &q in sym.rows(s) {
        out.extend(sym.offset[q as usize]..sym.offset[q as usize + 1]);
    }
}

/// Scalar offsets of a supernode's rows in the front of its parent.
fn relative_scalars(sym: &Symbolic, s: &Super, out: &mut Vec<u32>) {
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
    dense::panel_factor(panel, w, r)
}

fn factor_super(
    sym: &Symbolic,
    index: usize,
    src: Source<'_>,
    panels: &Shared,
    fronts: &mut Vec<(usize, Front)>,
    local: &mut [u32],
) -> Result<(), CoreError> {
    let s = &sym.supers[index];
    let (w, r) = (s.width as usize, s.below as usize);
    let ld = w + r;
    let panel = panels.slice(s.panel, ld * w);
    if r == 0 {
        panel.fill(0.0);
        assemble(sym, index, src, panel, ld, fronts, local, panels);
        return dense::cholesky(panel, w, ld);
    }
    let mut a = vec![0.0; ld * ld];
    assemble(sym, index, src, &mut a, ld, fronts, local, panels);
    panel.copy_from_slice(&a[..ld * w]);
    dense::panel_factor(panel, w, r)?;
    dense::syrk_lower(&mut a[w * ld + w..], ld, &panel[w..], ld, r, w, -1.0);
    fronts.push((index, Front { a, ld, width: w }));
    Ok(())
}

/// Original entries and the children's contributions, in the lower triangle of the front.
#[allow(clippy::too_many_arguments)]
fn assemble(
    sym: &Symbolic,
    index: usize,
    src: Source<'_>,
    a: &mut [f64],
    ld: usize,
    fronts: &mut Vec<(usize, Front)>,
    local: &mut [u32],
    panels: &Shared,
) {
    let s = &sym.supers[index];
    let base = sym.offset[s.first as usize];
    for q in s.first..s.last {
        local[q as usize] = sym.offset[q as usize] - base;
    }
    let mut at = s.width;
    for &q in sym.rows(s) {
        local[q as usize] = at;
        at += sym.width_at(q as usize) as u32;
    }
    for p in s.first as usize..s.last as usize {
        let f = sym.factor_at[p] as usize;
        let c = local[p] as usize;
        src.diagonal(f, sym.level(p), &mut a[c + c * ld..], ld);
        for e in sym.edges(p) {
            src.edge(e, f, &mut a[local[e.row as usize] as usize + c * ld..], ld);
        }
    }
    let mut idx = vec![];
    let mut leaves = vec![];
    for &c in sym.children(index) {
        let child = &sym.supers[c as usize];
        if child.leaf {
            leaves.push(c);
            continue;
        }
        // Children come in order, so a front is found from the end in a few steps.
        if let Some(k) = fronts.iter().rposition(|(i, _)| *i == c as usize) {
            let (_, f) = fronts.swap_remove(k);
            relative_scalars(sym, child, &mut idx);
            for (j, &cj) in idx.iter().enumerate() {
                let from = &f.a[(f.width + j) * f.ld + f.width..][..idx.len()];
                let to = &mut a[cj as usize * ld..(cj as usize + 1) * ld];
                for (i, &ri) in idx.iter().enumerate().skip(j) {
                    to[ri as usize] += from[i];
                }
            }
        }
    }
    add_leaves(sym, &leaves, a, ld, panels);
}

/// Subtract L21 L21' of every leaf child; large fronts are split by columns, so that each entry is summed in order.
fn add_leaves(sym: &Symbolic, leaves: &[u32], a: &mut [f64], ld: usize, panels: &Shared) {
    let work: usize =
        leaves.iter().map(|&c| &sym.supers[c as usize]).map(|s| (s.below * s.below * s.width) as usize).sum();
    if work < 300_000 || rayon::current_num_threads() == 1 {
        scatter_leaves(sym, leaves, a, ld, 0, ld, panels);
        return;
    }
    const PARTS: usize = 8;
    let cut = |t: usize| (ld as f64 * (1.0 - (1.0 - t as f64 / PARTS as f64).sqrt())) as usize;
    let mut parts = vec![];
    let mut rest = a;
    for t in 0..PARTS {
        let (from, to) = (cut(t), if t + 1 == PARTS { ld } else { cut(t + 1) });
        let (mine, more) = rest.split_at_mut(((to - from) * ld).min(rest.len()));
        parts.push((from, to, mine));
        rest = more;
    }
    parts.into_par_iter().for_each(|(from, to, mine)| scatter_leaves(sym, leaves, mine, ld, from, to, panels));
}

/// Contributions of the leaves to columns `from..to` of the front (`a` begins at column `from`).
fn scatter_leaves(sym: &Symbolic, leaves: &[u32], a: &mut [f64], ld: usize, from: usize, to: usize, panels: &Shared) {
    let mut idx = vec![];
    for &c in leaves {
        let s = &sym.supers[c as usize];
        let (w, r) = (s.width as usize, s.below as usize);
        if r == 0 {
            continue;
        }
        let panel: &[f64] = panels.slice(s.panel, (w + r) * w);
        let rel: &[u32] = if sym.rows(s).len() == r {
            sym.relative(s)
        } else {
            relative_scalars(sym, s, &mut idx);
            &idx
        };
        let lo = rel.partition_point(|&v| (v as usize) < from);
        let hi = rel.partition_point(|&v| (v as usize) < to);
        if w == 1 {
            let l = &panel[1..];
            for j in lo..hi {
                let f = l[j];
                let column = &mut a[(rel[j] as usize - from) * ld..][..ld];
                for (&i, &v) in rel[j..].iter().zip(&l[j..]) {
                    column[i as usize] -= f * v;
                }
            }
        } else {
            for j in lo..hi {
                let column = &mut a[(rel[j] as usize - from) * ld..][..ld];
                for i in j..r {
                    let dot: f64 = (0..w).map(|t| panel[w + i + t * (w + r)] * panel[w + j + t * (w + r)]).sum();
                    column[rel[i] as usize] -= dot;
                }
            }
        }
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
            for &s in chunk {
                let s = &self.sym.supers[s as usize];
                if s.parent == NONE {
                    let w = s.width as usize;
                    let panel = self.num.panel(s);
                    let inv = if w == 1 { vec![1.0 / (panel[0] * panel[0])] } else { small_inverse(panel, w, w) };
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
        let offset = |q: u32| self.sym.offset[q as usize];
        let base = offset(s.first);
        for p in s.first..s.last {
            let column = (offset(p) - base) as usize;
            let f = self.sym.factor_at[p as usize] as usize;
            // Edges and rows are both in elimination order: one walk finds every edge.
            let (mut below, mut at) = (self.sym.rows(s).iter(), s.width as usize);
            for e in self.sym.edges(p as usize) {
                let row = if e.row < s.last {
                    (offset(e.row) - base) as usize
                } else {
                    for &q in below.by_ref().take_while(|&&q| q != e.row) {
                        at += self.sym.width_at(q as usize);
                    }
                    at += self.sym.width_at(e.row as usize);
                    at - self.sym.width_at(e.row as usize)
                };
                self.store_pair(e, f, |i, j| z[row + i + (column + j) * ld]);
            }
        }
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
        let (w, r) = (s.width as usize, s.below as usize);
        let ld = w + r;
        let panel = self.num.panel(s);
        let mut z;
        if r == 0 {
            z = dense::inverse_from_cholesky(panel, w, ld);
        } else {
            let mut idx = vec![];
            relative_scalars(self.sym, s, &mut idx);
            let mut zrr = vec![0.0; r * r];
            if let Some((_, f)) = fronts.iter().chain(above).rev().find(|(i, _)| *i == s.parent as usize) {
                for (j, &cj) in idx.iter().enumerate() {
                    let column = &f.a[cj as usize * f.ld..(cj as usize + 1) * f.ld];
                    for (i, &ri) in idx.iter().enumerate() {
                        zrr[i + j * r] = column[ri as usize];
                    }
                }
            }
            // Y = L21 L11^-1; Z_rw = -Z_rr Y; Z_ww = (L11 L11')^-1 - Y' Z_rw
            let mut y = vec![0.0; r * w];
            for j in 0..w {
                y[j * r..(j + 1) * r].copy_from_slice(&panel[w + j * ld..w + r + j * ld]);
            }
            dense::solve_right_l(panel, w, ld, &mut y, r, r);
            let mut zrw = vec![0.0; r * w];
            dense::gemm(&mut zrw, r, &zrr, r, &y, r, r, w, r, -1.0);
            let mut zww = dense::inverse_from_cholesky(panel, w, ld);
            dense::gemm_tn(&mut zww, w, &y, r, &zrw, r, w, w, r, -1.0);
            z = vec![0.0; ld * ld];
            for j in 0..w {
                z[j * ld..j * ld + w].copy_from_slice(&zww[j * w..(j + 1) * w]);
                z[j * ld + w..(j + 1) * ld].copy_from_slice(&zrw[j * r..(j + 1) * r]);
                for i in 0..r {
                    z[j + (w + i) * ld] = zrw[i + j * r];
                }
            }
            for j in 0..r {
                z[(w + j) * ld + w..(w + j + 1) * ld].copy_from_slice(&zrr[j * r..(j + 1) * r]);
            }
        }
        self.book_super(s, &z, ld, cross);
        if !self.pairs.is_empty() {
            self.store_pairs(s, &z, ld);
        }
        let leaves: Vec<u32> =
            self.sym.children(index).iter().copied().filter(|&c| self.sym.supers[c as usize].leaf).collect();
        let parts: Vec<Cross> = if leaves.len() <= LEAVES {
            vec![self.invert_leaves(&leaves, &z, ld)]
        } else {
            leaves.par_chunks(LEAVES).map(|c| self.invert_leaves(c, &z, ld)).collect()
        };
        parts.iter().for_each(|c| cross.add(c));
        if leaves.len() < self.sym.children(index).len() {
            fronts.push((index, Front { a: z, ld, width: w }));
        }
    }

    fn book_super(&self, s: &Super, z: &[f64], ld: usize, cross: &mut Cross) {
        let base = self.sym.offset[s.first as usize];
        let scalar = self.sym.widths.iter().all(|&w| w == 1);
        let w = s.width as usize;
        let mut factor_of: Vec<usize> = (s.first..s.last).map(|p| self.sym.factor_at[p as usize] as usize).collect();
        factor_of.extend(self.sym.rows(s).iter().map(|&q| self.sym.factor_at[q as usize] as usize));
        if scalar {
            for p in 0..w {
                self.store(s.first as usize + p, z, ld, p);
                let mut sums = vec![0.0; self.template.factors];
                for i in p + 1..ld {
                    sums[factor_of[i]] += z[i + p * ld] * z[i + p * ld];
                }
                for (g, &v) in sums.iter().enumerate().filter(|(_, v)| **v > 0.0) {
                    let f = factor_of[p];
                    let at = cross.index(f.min(g), f.max(g));
                    cross.value[at][0] += if f == g { 2.0 * v } else { v };
                }
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

    fn invert_leaves(&self, leaves: &[u32], z: &[f64], ld: usize) -> Cross {
        let mut cross = Cross::zero_like(self.template);
        let (mut idx, mut v, mut y) = (vec![], vec![], vec![]);
        for &c in leaves {
            let s = &self.sym.supers[c as usize];
            let (w, r) = (s.width as usize, s.below as usize);
            let panel = self.num.panel(s);
            let p = s.first as usize;
            let f = self.sym.factor_at[p] as usize;
            relative_scalars(self.sym, s, &mut idx);
            v.clear();
            v.resize(r * w, 0.0);
            if w == 1 {
                let inv = 1.0 / panel[0];
                y.clear();
                y.extend(panel[1..].iter().map(|l| l * inv));
                for a in 0..r {
                    let column = &z[idx[a] as usize * ld..(idx[a] as usize + 1) * ld];
                    let ya = y[a];
                    let mut sum = column[idx[a] as usize] * ya;
                    for ((&i, &yb), vb) in idx[a + 1..].iter().zip(&y[a + 1..]).zip(&mut v[a + 1..]) {
                        let zab = column[i as usize];
                        sum += zab * yb;
                        *vb += zab * ya;
                    }
                    v[a] += sum;
                }
                let dot: f64 = v.iter().zip(&y).map(|(a, b)| a * b).sum();
                self.diag[f].slice(self.sym.level(p), 1)[0] = inv * inv + dot;
            } else {
                y.clear();
                for j in 0..w {
                    y.extend_from_slice(&panel[w + j * (w + r)..(j + 1) * (w + r)]);
                }
                dense::solve_right_l(panel, w, w + r, &mut y, r, r);
                for a in 0..r {
                    let column = &z[idx[a] as usize * ld..(idx[a] as usize + 1) * ld];
                    for (b, &i) in idx.iter().enumerate() {
                        let zab = column[i as usize];
                        for j in 0..w {
                            v[a + j * r] += zab * y[b + j * r];
                        }
                    }
                }
                let mut zll = small_inverse(panel, w, w + r);
                for i in 0..w {
                    for j in 0..w {
                        zll[i + j * w] += (0..r).map(|a| y[a + i * r] * v[a + j * r]).sum::<f64>();
                    }
                }
                self.store(p, &zll, w, 0);
            }
            if !self.pairs.is_empty() {
                let mut at = 0;
                for e in self.sym.edges(p) {
                    self.store_pair(e, f, |i, j| -v[at + i + j * r]);
                    at += self.sym.width_at(e.row as usize);
                }
            }
            let mut at = 0;
            for &q in self.sym.rows(s) {
                let g = self.sym.factor_at[q as usize] as usize;
                cross.book(g, f, |a, b| v[at + a + b * r]);
                at += self.sym.width_at(q as usize);
            }
        }
        cross
    }
}

fn small_inverse(l: &[f64], n: usize, ld: usize) -> Vec<f64> {
    dense::inverse_from_cholesky(l, n, ld)
}

/// L^-1 times sparse right-hand sides, one row of new data at a time: only ancestors of its nodes are visited.
pub struct RowSolver<'a> {
    num: &'a Numeric,
    sym: &'a Symbolic,
    super_of: Vec<u32>,
    value: Vec<f64>,
    queue: std::collections::BinaryHeap<std::cmp::Reverse<u32>>,
    index: Vec<u32>,
}

impl Numeric {
    pub fn row_solver<'a>(&'a self, sym: &'a Symbolic) -> RowSolver<'a> {
        let mut super_of = vec![0u32; sym.nodes];
        for (i, s) in sym.supers.iter().enumerate() {
            super_of[s.first as usize..s.last as usize].fill(i as u32);
        }
        RowSolver { num: self, sym, super_of, value: vec![0.0; sym.size], queue: Default::default(), index: vec![] }
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
        while let Some(std::cmp::Reverse(i)) = self.queue.pop() {
            while self.queue.peek() == Some(&std::cmp::Reverse(i)) {
                self.queue.pop();
            }
            let s = &self.sym.supers[i as usize];
            let (w, r) = (s.width as usize, s.below as usize);
            let panel = self.num.panel(s);
            let at = self.sym.offset[s.first as usize] as usize;
            dense::solve_left_l(panel, w, w + r, &mut self.value[at..at + w], 1, w);
            scalar_rows(self.sym, s, &mut self.index);
            for j in 0..w {
                let v = std::mem::take(&mut self.value[at + j]);
                if v == 0.0 {
                    continue;
                }
                total += v * v;
                let row = &f[(at + j) * width..][..x.len()];
                x.iter_mut().zip(row).for_each(|(x, f)| *x -= v * f);
                let column = &panel[j * (w + r) + w..(j + 1) * (w + r)];
                for (&q, l) in self.index.iter().zip(column) {
                    self.value[q as usize] -= l * v;
                }
            }
            if s.parent != NONE {
                self.queue.push(std::cmp::Reverse(s.parent));
            }
        }
        total
    }
}
