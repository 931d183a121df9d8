//! Sums by level of one grouping factor, as quadrature needs them.

use rayon::prelude::*;

use super::panel::{add_random, chunk_bounds, Panel};
use super::plan::Plan;
use super::GlmmRows;
use crate::family::Family;

/// Sum of -log f by level of the only factor, and if `weights` (by level) are given Z'D1 by level, with the weighted
/// D1 added to `d1` (n x K).
pub fn level_pass(
    plan: &Plan,
    family: &Family,
    rows: &GlmmRows<'_>,
    fixed: &[f64],
    b: &[f64],
    weights: Option<(&[f64], &mut [f64])>,
) -> (Vec<f64>, Vec<f64>) {
    let k = plan.k;
    let zf = &plan.z[0];
    let cols = zf.columns.len();
    let order = if weights.is_some() { 2 } else { 0 };
    let stride = family.stride(order);
    let bounds = chunk_bounds(rows.n, zf.levels * (cols + 1));
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
        let mut value = vec![0.0; zf.levels];
        let mut zg = vec![0.0; if pi.is_some() { zf.levels * cols } else { 0 }];
        let size = family.panel().min(to - from);
        let mut panel = Panel::of(size, plan, stride);
        let effects = [b.to_vec()];
        let mut start = from;
        while start < to {
            let n = size.min(to - start);
            panel.fill_z(plan, rows, start, n);
            panel.eta[..n * k].copy_from_slice(&fixed[start * k..(start + n) * k]);
            add_random(plan, &mut panel, &effects, n);
            family.evaluate(&rows.data, start, &panel.eta[..n * k], order, &mut panel.out[..n * stride]);
            for (r, row) in panel.out[..n * stride].chunks_exact(stride).enumerate() {
                let w = rows.weights.map_or(-1.0, |w| -w[start + r]);
                let l = panel.codes[0][r] as usize;
                value[l] += w * row[0];
                if let Some(pi) = pi {
                    for c in 0..k {
                        d1[(start - from + r) * k + c] += pi[l] * w * row[1 + c];
                    }
                    for (c, col) in zf.columns.iter().enumerate() {
                        zg[l * cols + c] += w * row[1 + col.component] * panel.z[0][r * cols + c];
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
        zg.iter_mut().zip(&z).for_each(|(a, b)| *a += b);
    }
    (value, zg)
}
