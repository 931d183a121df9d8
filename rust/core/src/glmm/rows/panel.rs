//! A panel of rows: values of the columns, predictors, and what the family says.

use std::cell::Cell;

use rayon::prelude::*;

use super::cells::Cells;
use super::plan::{Plan, XPlan};
use super::{Component, GlmmRows};
use crate::family::GRAIN;

pub const PANEL: usize = 256;

/// Bounds of the chunks of rows that are worked on at once: at least `grain` rows, more where `size` numbers are summed.
pub(super) fn chunk_bounds(n: usize, size: usize, grain: usize) -> Vec<usize> {
    let chunks = (n / (grain + 2 * size)).clamp(1, 4);
    (0..=chunks).map(|c| n * c / chunks).collect()
}

/// Values of the columns of some rows: those of all rows where the plan has them, else a panel's own.
pub(super) struct Columns<'p> {
    plan: &'p Plan,
    own: Filled,
    from: usize,
    n: usize,
}

/// Dense fixed columns by component, random columns and levels by factor, row by row.
#[derive(Default)]
pub(super) struct Filled {
    x: Vec<Vec<f64>>,
    z: Vec<Vec<f64>>,
    codes: Vec<Vec<i32>>,
}

impl Filled {
    /// The kinds of rows.
    pub(super) fn cells(&self, rows: &GlmmRows<'_>, plan: &[XPlan]) -> Option<Cells> {
        Cells::of(rows, plan, &self.x, &self.codes)
    }
}

impl<'p> Columns<'p> {
    /// Room for `size` rows.
    pub(super) fn of(size: usize, plan: &'p Plan) -> Self {
        let own = if plan.filled.is_some() {
            Filled::default()
        } else {
            Filled {
                x: plan.x.iter().map(|x| vec![0.0; size * x.dense.len()]).collect(),
                z: plan.z.iter().map(|f| vec![1.0; size * f.columns.len()]).collect(),
                codes: plan.z.iter().map(|_| vec![0; size]).collect(),
            }
        };
        Columns { plan, own, from: 0, n: 0 }
    }

    /// Those of all rows.
    pub(super) fn all(plan: &'p Plan, rows: &GlmmRows<'_>) -> Filled {
        let mut out = Columns::of(rows.n, plan);
        out.fill_x(rows, 0, rows.n);
        out.fill_z(rows, 0, rows.n);
        out.own
    }

    /// The fixed columns of rows `from..from + n`.
    pub(super) fn fill_x(&mut self, rows: &GlmmRows<'_>, from: usize, n: usize) {
        (self.from, self.n) = (from, n);
        if self.plan.filled.is_some() {
            return;
        }
        for (k, xp) in self.plan.x.iter().enumerate() {
            let d = xp.dense.len();
            let mut c = 0;
            for run in xp.dense.chunk_by(|a, b| (a.block, a.col + 1) == (b.block, b.col)) {
                let (col, out) = (&run[0], &mut self.own.x[k][c..]);
                let block = &rows.components[k].fixed[col.block].block;
                block.fill(col.col..col.col + run.len(), from, n, col.shift, out, d);
                if col.scale != 1.0 {
                    out.iter_mut().step_by(d).take(n).for_each(|v| *v *= col.scale);
                }
                c += run.len();
            }
        }
    }

    /// The random columns and levels of rows `from..from + n`.
    pub(super) fn fill_z(&mut self, rows: &GlmmRows<'_>, from: usize, n: usize) {
        (self.from, self.n) = (from, n);
        if self.plan.filled.is_some() {
            return;
        }
        for (f, zf) in self.plan.z.iter().enumerate() {
            rows.terms[zf.term].codes.fill(from, &mut self.own.codes[f][..n]);
            if zf.intercept {
                continue;
            }
            let (k, mut c) = (zf.columns.len(), 0);
            for run in zf.columns.chunk_by(|a, b| (a.term, a.block) == (b.term, b.block)) {
                let (col, out) = (&run[0], &mut self.own.z[f][c..]);
                rows.terms[col.term].blocks[col.block].fill(0..run.len(), from, n, col.shift, out, k);
                c += run.len();
            }
        }
    }

    /// Where the present rows lie: in the columns of all rows, or at the head of our own.
    fn place(&self) -> (&Filled, usize) {
        self.plan.filled.as_ref().map_or((&self.own, 0), |all| (all, self.from))
    }

    /// Dense fixed columns of a component (rows x columns, row-major).
    pub(super) fn x(&self, component: usize) -> &[f64] {
        let ((values, at), d) = (self.place(), self.plan.x[component].dense.len());
        &values.x[component][at * d..(at + self.n) * d]
    }

    /// Columns of a factor (rows x columns, row-major).
    pub(super) fn z(&self, factor: usize) -> &[f64] {
        let ((values, at), k) = (self.place(), self.plan.z[factor].columns.len());
        &values.z[factor][at * k..(at + self.n) * k]
    }

    /// Levels of a factor.
    pub(super) fn codes(&self, factor: usize) -> &[i32] {
        let (values, at) = self.place();
        &values.codes[factor][at..at + self.n]
    }
}

/// One panel of rows.
pub(super) struct Panel<'p> {
    pub(super) columns: Columns<'p>,
    pub(super) eta: Vec<f64>,
    pub(super) out: Vec<f64>,
}

thread_local! {
    /// Room of the last panel: a pass over few rows takes no longer than to clear it.
    static ROOM: Cell<(Vec<f64>, Vec<f64>)> = const { Cell::new((vec![], vec![])) };
}

impl Drop for Panel<'_> {
    fn drop(&mut self) {
        ROOM.set((std::mem::take(&mut self.eta), std::mem::take(&mut self.out)));
    }
}

impl<'p> Panel<'p> {
    /// A panel of `size` rows, with any numbers in it.
    pub(super) fn of(size: usize, plan: &'p Plan, stride: usize) -> Self {
        let (mut eta, mut out) = ROOM.take();
        eta.resize(size * plan.k, 0.0);
        out.resize(size * stride, 0.0);
        Panel { columns: Columns::of(size, plan), eta, out }
    }

    /// Predictors of the present rows, whose random columns are there, from the `fixed` part of all rows (n x K) and the
    /// effects `b` by factor (levels x cols).
    pub(super) fn predict(&mut self, fixed: &[f64], b: &[Vec<f64>]) {
        let Panel { columns, eta, .. } = self;
        let (k, from, n) = (columns.plan.k, columns.from, columns.n);
        eta[..n * k].copy_from_slice(&fixed[from * k..(from + n) * k]);
        for (f, zf) in columns.plan.z.iter().enumerate() {
            let (cols, codes, b) = (zf.columns.len(), columns.codes(f), &b[f]);
            let c0 = zf.columns[0].component;
            if zf.intercept {
                eta.iter_mut().skip(c0).step_by(k).zip(codes).for_each(|(eta, &l)| *eta += b[l as usize]);
                continue;
            }
            let rows = eta.chunks_exact_mut(k).zip(codes).zip(columns.z(f).chunks_exact(cols));
            if cols == 2 && zf.columns[1].component == c0 {
                for ((eta, &l), z) in rows {
                    let bl = &b[l as usize * 2..l as usize * 2 + 2];
                    eta[c0] += bl[0] * z[0] + bl[1] * z[1];
                }
                continue;
            }
            for ((eta, &l), z) in rows {
                for ((b, z), col) in b[l as usize * cols..][..cols].iter().zip(z).zip(&zf.columns) {
                    eta[col.component] += b * z;
                }
            }
        }
    }
}

/// Entries (coefficient, value) of the sparse fixed blocks of one predictor in one row.
pub(super) fn sparse_entries(plan: &XPlan, c: &Component<'_>, i: usize, out: &mut Vec<(u32, f64)>) {
    out.clear();
    for s in &plan.sparse {
        let block = &c.fixed[s.block].block;
        if let Some(codes) = &block.codes {
            let l = codes.get(i) as usize;
            let x = block.x.map_or(1.0, |x| x.get(i));
            out.extend(s.entry[s.start[l] as usize..s.start[l + 1] as usize].iter().map(|&(j, v)| (j, v * x)));
        }
    }
}

/// The part of the predictors that does not depend on the random effects, row-major n x K.
pub fn fixed_part(plan: &Plan, rows: &GlmmRows<'_>, beta: &[f64], out: &mut Vec<f64>) {
    fixed_parts(plan, rows, beta, true, out);
}

/// How far the predictors go with a change of the coefficients, row-major n x K.
pub fn fixed_change(plan: &Plan, rows: &GlmmRows<'_>, change: &[f64]) -> Vec<f64> {
    let mut out = vec![];
    fixed_parts(plan, rows, change, false, &mut out);
    out
}

/// The same in one panel of `every`; what is in the others is 0.
pub fn some_fixed_change(plan: &Plan, rows: &GlmmRows<'_>, change: &[f64], every: usize) -> Vec<f64> {
    if every == 1 || plan.cells.is_some() {
        return fixed_change(plan, rows, change);
    }
    let mut out = vec![0.0; rows.n * plan.k];
    let mut columns = Columns::of(PANEL, plan);
    for (at, out) in out.chunks_mut(PANEL * plan.k).enumerate().step_by(every) {
        fixed_panel(&mut columns, rows, (change, false), at * PANEL, out);
    }
    out
}

/// The same with or without offsets.
pub(super) fn fixed_parts(plan: &Plan, rows: &GlmmRows<'_>, beta: &[f64], offsets: bool, out: &mut Vec<f64>) {
    let k = plan.k;
    out.resize(rows.n * k, 0.0);
    if let Some(cells) = &plan.cells {
        let offset = rows.components.iter().map(|c| c.offset.filter(|_| offsets));
        return by_cells(plan, cells, (&cells.of, offset), beta, out);
    }
    let bounds = chunk_bounds(rows.n, 0, GRAIN);
    let mut pieces = vec![];
    let mut rest: &mut [f64] = out;
    for w in bounds.windows(2) {
        let (head, tail) = rest.split_at_mut((w[1] - w[0]) * k);
        pieces.push((w[0], head));
        rest = tail;
    }
    let run = |(first, out): (usize, &mut [f64])| {
        let n = out.len() / k;
        let mut columns = Columns::of(PANEL.min(n), plan);
        for from in (0..n).step_by(PANEL) {
            let m = PANEL.min(n - from);
            fixed_panel(&mut columns, rows, (beta, offsets), first + from, &mut out[from * k..(from + m) * k]);
        }
    };
    if pieces.len() == 1 {
        pieces.into_iter().for_each(run);
    } else {
        pieces.into_par_iter().for_each(run);
    }
}

/// The same of the rows from `start` on, as many as there is room for.
fn fixed_panel(
    columns: &mut Columns<'_>,
    rows: &GlmmRows<'_>,
    (beta, offsets): (&[f64], bool),
    start: usize,
    out: &mut [f64],
) {
    let (plan, mut entries) = (columns.plan, vec![]);
    let (k, m) = (plan.k, out.len() / plan.k);
    columns.fill_x(rows, start, m);
    for (c, (xp, component)) in plan.x.iter().zip(&rows.components).enumerate() {
        let offset = component.offset.filter(|_| offsets).map(|o| &o[start..start + m]);
        xp.predict(beta, columns.x(c), offset, (&mut out[c..], k));
        if xp.sparse.is_empty() {
            continue;
        }
        for (r, eta) in out[c..].iter_mut().step_by(k).enumerate() {
            sparse_entries(xp, component, start + r, &mut entries);
            *eta += entries.iter().map(|&(j, v)| v * beta[j as usize]).sum::<f64>();
        }
    }
}

/// The same, found once for every cell, from the cell of every row and the offsets by component.
pub(super) fn by_cells<'o>(
    plan: &Plan,
    cells: &Cells,
    (of, offsets): (&[u32], impl Iterator<Item = Option<&'o [f64]>>),
    beta: &[f64],
    out: &mut [f64],
) {
    let k = plan.k;
    let mut own = vec![0.0; cells.count * k];
    for (c, (xp, x)) in plan.x.iter().zip(&cells.x).enumerate() {
        xp.predict(beta, x, None, (&mut own[c..], k));
    }
    for (out, &cell) in out.chunks_exact_mut(k).zip(of) {
        out.copy_from_slice(&own[cell as usize * k..][..k]);
    }
    for (c, offset) in offsets.enumerate() {
        let own = out[c..].iter_mut().step_by(k);
        own.zip(offset.unwrap_or(&[])).for_each(|(out, o)| *out += o);
    }
}

/// Predictors of every row at beta and b, row-major n x K.
pub fn predictors(plan: &Plan, rows: &GlmmRows<'_>, fixed: &[f64], b: &[Vec<f64>]) -> Vec<f64> {
    let k = plan.k;
    let mut out = vec![0.0; rows.n * k];
    let mut panel = Panel::of(PANEL.min(rows.n), plan, 0);
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        panel.columns.fill_z(rows, start, n);
        panel.predict(fixed, b);
        out[start * k..(start + n) * k].copy_from_slice(&panel.eta[..n * k]);
    }
    out
}
