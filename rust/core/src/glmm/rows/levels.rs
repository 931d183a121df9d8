//! Sums by level of the innermost grouping factor, as quadrature needs them.

use rayon::prelude::*;

use super::panel::{chunk_bounds, Panel};
use super::plan::Plan;
use super::GlmmRows;
use crate::family::Family;

/// Where a pass leaves the first derivatives: weights by level of the innermost factor, and sums of the weighted D1 by
/// row (n x K).
pub type Weighted<'a> = (&'a [f64], &'a mut [f64]);

/// Sum of -log f by level of the factor `inner`; if weights are given also Z'D1 by factor, each row's D1 times the weight
/// of its innermost level.
pub fn level_pass(
    plan: &Plan,
    family: &Family,
    rows: &GlmmRows<'_>,
    fixed: &[f64],
    effects: &[Vec<f64>],
    inner: usize,
    weights: Option<Weighted<'_>>,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let k = plan.k;
    let order = if weights.is_some() { 2 } else { 0 };
    let stride = family.stride(order);
    let size: usize = plan.z.iter().map(|f| f.levels * (f.columns.len() + 1)).sum();
    let bounds = chunk_bounds(rows.n, size, family.grain());
    let (pi, mut rest) = match weights {
        Some((pi, d1)) => (Some(pi), d1),
        None => (None, &mut [][..]),
    };
    let mut pieces: Vec<(usize, usize, &mut [f64])> = vec![];
    for w in bounds.windows(2) {
        let (head, tail) = rest.split_at_mut(if pi.is_some() { (w[1] - w[0]) * k } else { 0 });
        pieces.push((w[0], w[1], head));
        rest = tail;
    }
    let run = |(from, to, d1): (usize, usize, &mut [f64])| {
        let mut value = vec![0.0; plan.z[inner].levels];
        let sized = |n: usize| vec![0.0; if pi.is_some() { n } else { 0 }];
        let mut zg: Vec<Vec<f64>> = plan.z.iter().map(|f| sized(f.levels * f.columns.len())).collect();
        let size = family.panel().min(to - from);
        let mut panel = Panel::of(size, plan, stride);
        let mut start = from;
        while start < to {
            let n = size.min(to - start);
            panel.columns.fill_z(rows, start, n);
            panel.predict(fixed, effects);
            let codes: Vec<&[i32]> = (0..plan.z.len()).map(|f| panel.columns.codes(f)).collect();
            let z: Vec<&[f64]> = (0..plan.z.len()).map(|f| panel.columns.z(f)).collect();
            family.evaluate(&rows.data, start, &panel.eta[..n * k], order, &mut panel.out[..n * stride]);
            for (r, row) in panel.out[..n * stride].chunks_exact(stride).enumerate() {
                let w = rows.weights.map_or(-1.0, |w| -w[start + r]);
                let l = codes[inner][r] as usize;
                value[l] += w * row[0];
                let Some(pi) = pi else { continue };
                let w = w * pi[l];
                let d = &row[1..1 + k];
                let sums = &mut d1[(start - from + r) * k..(start - from + r + 1) * k];
                sums.iter_mut().zip(d).for_each(|(s, d)| *s += w * d);
                for (f, zf) in plan.z.iter().enumerate() {
                    let cols = zf.columns.len();
                    let at = codes[f][r] as usize * cols;
                    for (c, col) in zf.columns.iter().enumerate() {
                        zg[f][at + c] += w * d[col.component] * z[f][r * cols + c];
                    }
                }
            }
            start += n;
        }
        (value, zg)
    };
    if pieces.len() == 1 {
        let mut out: Vec<_> = pieces.into_iter().map(run).collect();
        return out.swap_remove(0);
    }
    let parts: Vec<_> = pieces.into_par_iter().map(run).collect();
    let mut parts = parts.into_iter();
    let (mut value, mut zg) = parts.next().unwrap_or_default();
    for (v, z) in parts {
        value.iter_mut().zip(&v).for_each(|(a, b)| *a += b);
        for (a, b) in zg.iter_mut().zip(&z) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
    }
    (value, zg)
}

/// Sums by level of the only grouping factor at one node: -log f, Z'D1 (levels x cols) and X'D1 (levels x p).
#[derive(Clone, Debug)]
pub struct LevelSums {
    pub value: Vec<f64>,
    pub zg: Vec<f64>,
    pub xg: Vec<f64>,
}

impl LevelSums {
    fn zero(plan: &Plan) -> Self {
        let f = &plan.z[0];
        let sized = |n: usize| vec![0.0; f.levels * n];
        LevelSums { value: sized(1), zg: sized(f.columns.len()), xg: sized(plan.p()) }
    }

    /// Numbers of one, and whether rows are few beside the columns of all: then sums by row are cheaper.
    pub fn size(plan: &Plan) -> Option<usize> {
        let narrow = plan.p() <= NARROW && plan.x.iter().all(|x| x.sparse.is_empty());
        let [f] = plan.z.as_slice() else { return None };
        narrow.then_some(f.levels * (1 + f.columns.len() + plan.p()))
    }
}

/// Most fixed columns whose sums by level cost less than another look at the density.
const NARROW: usize = 12;

/// `LevelSums` at several effects of the only grouping factor, one look at the columns for all; they are dense.
pub fn level_sums(
    plan: &Plan,
    family: &Family,
    rows: &GlmmRows<'_>,
    fixed: &[f64],
    nodes: &[Vec<f64>],
) -> Vec<LevelSums> {
    let size = plan.z[0].levels * (1 + plan.z[0].columns.len() + plan.p());
    let bounds = chunk_bounds(rows.n, size, family.grain() / nodes.len().max(1));
    let run = |w: &[usize]| {
        let mut out = vec![LevelSums::zero(plan); nodes.len()];
        level_range(plan, family, rows, fixed, nodes, (w[0], w[1]), &mut out);
        out
    };
    if bounds.len() == 2 {
        return run(&bounds);
    }
    let parts: Vec<Vec<LevelSums>> = bounds.par_windows(2).map(run).collect();
    let mut total = vec![LevelSums::zero(plan); nodes.len()];
    let add = |a: &mut [f64], b: &[f64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    for part in &parts {
        for (total, part) in total.iter_mut().zip(part) {
            add(&mut total.value, &part.value);
            add(&mut total.zg, &part.zg);
            add(&mut total.xg, &part.xg);
        }
    }
    total
}

fn level_range(
    plan: &Plan,
    family: &Family,
    rows: &GlmmRows<'_>,
    fixed: &[f64],
    nodes: &[Vec<f64>],
    (from, to): (usize, usize),
    out: &mut [LevelSums],
) {
    let (k, stride) = (plan.k, family.stride(2));
    let size = family.panel().min(to - from);
    let mut panel = Panel::of(size, plan, stride);
    let mut start = from;
    while start < to {
        let n = size.min(to - start);
        panel.columns.fill_x(rows, start, n);
        panel.columns.fill_z(rows, start, n);
        for (b, out) in nodes.iter().zip(&mut *out) {
            panel.predict(fixed, std::slice::from_ref(b));
            family.evaluate(&rows.data, start, &panel.eta[..n * k], 2, &mut panel.out[..n * stride]);
            out.add(plan, &panel, stride, n, |r| rows.weights.map_or(-1.0, |w| -w[start + r]));
        }
        start += n;
    }
}

impl LevelSums {
    /// Add what the family said of a panel; `weight` is the factor of a row.
    fn add(&mut self, plan: &Plan, panel: &Panel<'_>, stride: usize, n: usize, weight: impl Fn(usize) -> f64) {
        let (p, zf) = (plan.p(), &plan.z[0]);
        let cols = zf.columns.len();
        let (codes, z) = (panel.columns.codes(0), panel.columns.z(0));
        let x: Vec<&[f64]> = (0..plan.x.len()).map(|c| panel.columns.x(c)).collect();
        for (r, row) in panel.out[..n * stride].chunks_exact(stride).enumerate() {
            let w = weight(r);
            let l = codes[r] as usize;
            self.value[l] += w * row[0];
            let zg = &mut self.zg[l * cols..(l + 1) * cols];
            for ((o, col), z) in zg.iter_mut().zip(&zf.columns).zip(&z[r * cols..(r + 1) * cols]) {
                *o += w * row[1 + col.component] * z;
            }
            let xg = &mut self.xg[l * p..(l + 1) * p];
            for (c, xp) in plan.x.iter().enumerate() {
                let d = xp.dense.len();
                xp.add(xg, w * row[1 + c], &x[c][r * d..(r + 1) * d]);
            }
        }
    }
}
