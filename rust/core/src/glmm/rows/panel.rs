//! A panel of rows: values of the columns, predictors, and what the family says.

use rayon::prelude::*;

use super::plan::{Plan, XPlan};
use super::{Component, GlmmRows};
use crate::family::GRAIN;

pub(super) const PANEL: usize = 256;

/// Bounds of the chunks of rows that are worked on at once: at least `grain` rows, more where `size` numbers are summed.
pub(super) fn chunk_bounds(n: usize, size: usize, grain: usize) -> Vec<usize> {
    let chunks = (n / (grain + 2 * size)).clamp(1, 4);
    (0..=chunks).map(|c| n * c / chunks).collect()
}

/// Values of one panel of rows.
pub(super) struct Panel {
    pub(super) x: Vec<Vec<f64>>,
    pub(super) z: Vec<Vec<f64>>,
    pub(super) codes: Vec<Vec<i32>>,
    pub(super) eta: Vec<f64>,
    pub(super) out: Vec<f64>,
}

impl Panel {
    /// A panel of `size` rows.
    pub(super) fn of(size: usize, plan: &Plan, stride: usize) -> Self {
        Panel {
            x: plan.x.iter().map(|x| vec![0.0; size * x.dense.len()]).collect(),
            z: plan.z.iter().map(|f| vec![1.0; size * f.columns.len()]).collect(),
            codes: plan.z.iter().map(|_| vec![0; size]).collect(),
            eta: vec![0.0; size * plan.k],
            out: vec![0.0; size * stride],
        }
    }

    pub(super) fn fill_x(&mut self, plan: &Plan, rows: &GlmmRows<'_>, from: usize, m: usize) {
        if let Some((x, _)) = &plan.filled {
            copy(&plan.x, |x| x.dense.len(), x, &mut self.x, from, m);
            return;
        }
        for (k, xp) in plan.x.iter().enumerate() {
            let d = xp.dense.len();
            for (c, col) in xp.dense.iter().enumerate() {
                let block = &rows.components[k].fixed[col.block].block;
                block.fill(col.col, from, m, col.shift, &mut self.x[k][c..], d);
                if col.scale != 1.0 {
                    self.x[k][c..].iter_mut().step_by(d).take(m).for_each(|v| *v *= col.scale);
                }
            }
        }
    }

    pub(super) fn fill_z(&mut self, plan: &Plan, rows: &GlmmRows<'_>, from: usize, m: usize) {
        if let Some((_, z)) = &plan.filled {
            self.fill_codes(plan, rows, from, m);
            copy(&plan.z, |f| if f.intercept { 0 } else { f.columns.len() }, z, &mut self.z, from, m);
            return;
        }
        self.fill_codes(plan, rows, from, m);
        for (f, zf) in plan.z.iter().enumerate() {
            if zf.intercept {
                continue;
            }
            let k = zf.columns.len();
            for (c, col) in zf.columns.iter().enumerate() {
                rows.terms[col.term].blocks[col.block].fill(col.col, from, m, col.shift, &mut self.z[f][c..], k);
            }
        }
    }

    fn fill_codes(&mut self, plan: &Plan, rows: &GlmmRows<'_>, from: usize, m: usize) {
        for (f, zf) in plan.z.iter().enumerate() {
            rows.terms[zf.term].codes.fill(from, &mut self.codes[f][..m]);
        }
    }
}

/// Rows `from..from + m` of values that all rows have; `width` is how many a row has.
fn copy<T>(parts: &[T], width: impl Fn(&T) -> usize, all: &[Vec<f64>], out: &mut [Vec<f64>], from: usize, m: usize) {
    for ((part, all), out) in parts.iter().zip(all).zip(out) {
        let d = width(part);
        out[..m * d].copy_from_slice(&all[from * d..(from + m) * d]);
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

/// Add Z b to the predictors of a panel; `b` are effects by factor (levels x cols).
pub(super) fn add_random(plan: &Plan, panel: &mut Panel, b: &[Vec<f64>], m: usize) {
    let k = plan.k;
    for (f, zf) in plan.z.iter().enumerate() {
        let cols = zf.columns.len();
        if zf.intercept {
            let c = zf.columns[0].component;
            for r in 0..m {
                panel.eta[r * k + c] += b[f][panel.codes[f][r] as usize];
            }
            continue;
        }
        let c0 = zf.columns[0].component;
        if cols == 2 && zf.columns[1].component == c0 {
            let rows = panel.eta.chunks_exact_mut(k).zip(&panel.codes[f][..m]).zip(panel.z[f].chunks_exact(2));
            for ((eta, &l), z) in rows {
                let bl = &b[f][l as usize * 2..l as usize * 2 + 2];
                eta[c0] += bl[0] * z[0] + bl[1] * z[1];
            }
            continue;
        }
        for r in 0..m {
            let bl = &b[f][panel.codes[f][r] as usize * cols..][..cols];
            let z = &panel.z[f][r * cols..(r + 1) * cols];
            for ((b, z), col) in bl.iter().zip(z).zip(&zf.columns) {
                panel.eta[r * k + col.component] += b * z;
            }
        }
    }
}

/// The part of the predictors that does not depend on the random effects, row-major n x K.
pub fn fixed_part(plan: &Plan, rows: &GlmmRows<'_>, beta: &[f64], out: &mut Vec<f64>) {
    let k = plan.k;
    out.resize(rows.n * k, 0.0);
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
        let mut panel = Panel::of(PANEL.min(n), plan, 0);
        let mut entries = vec![];
        for from in (0..n).step_by(PANEL) {
            let m = PANEL.min(n - from);
            panel.fill_x(plan, rows, first + from, m);
            if k == 1 && plan.x[0].sparse.is_empty() {
                let offset = rows.components[0].offset.map(|o| &o[first + from..first + from + m]);
                plan.x[0].predict(beta, &panel.x[0], offset, &mut out[from..from + m]);
                continue;
            }
            for r in 0..m {
                let i = first + from + r;
                for (c, xp) in plan.x.iter().enumerate() {
                    let d = xp.dense.len();
                    let x = &panel.x[c][r * d..(r + 1) * d];
                    let mut eta = rows.components[c].offset.map_or(0.0, |o| o[i]);
                    eta += xp.dot(beta, x);
                    if !xp.sparse.is_empty() {
                        sparse_entries(xp, &rows.components[c], i, &mut entries);
                        eta += entries.iter().map(|&(j, v)| v * beta[j as usize]).sum::<f64>();
                    }
                    out[(from + r) * k + c] = eta;
                }
            }
        }
    };
    if pieces.len() == 1 {
        pieces.into_iter().for_each(run);
    } else {
        pieces.into_par_iter().for_each(run);
    }
}

/// Predictors of every row at beta and b, row-major n x K.
pub fn predictors(plan: &Plan, rows: &GlmmRows<'_>, fixed: &[f64], b: &[Vec<f64>]) -> Vec<f64> {
    let k = plan.k;
    let mut out = vec![0.0; rows.n * k];
    let mut panel = Panel::of(PANEL.min(rows.n), plan, 0);
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        panel.fill_z(plan, rows, start, n);
        panel.eta[..n * k].copy_from_slice(&fixed[start * k..(start + n) * k]);
        add_random(plan, &mut panel, b, n);
        out[start * k..(start + n) * k].copy_from_slice(&panel.eta[..n * k]);
    }
    out
}
