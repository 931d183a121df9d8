//! X'WX and X'g over the rows, for weights and slopes of any make.

use rayon::prelude::*;

use super::fixed::FixedSums;
use super::panel::{chunk_bounds, Panel, PANEL};
use super::pass::Sums;
use super::plan::Plan;
use super::GlmmRows;
use crate::family::GRAIN;

/// The sums over one panel of `every` of what `fill` writes about the `n` rows from the first one on: 1 + K + K (K + 1) / 2
/// numbers a row (nothing, slopes, weights a <= b), all zero before. The value is the sum of what it returns.
pub fn fixed_products(
    plan: &Plan,
    rows: &GlmmRows<'_>,
    every: usize,
    fill: impl Fn((usize, usize), &mut [f64]) -> f64 + Sync,
) -> Sums {
    let stride = 1 + plan.k + plan.k * (plan.k + 1) / 2;
    let sums = |from: usize, to: usize| {
        let mut s = Sums::fixed(plan);
        let size = PANEL.min(to - from);
        let mut panel = Panel::of(size, plan, stride);
        let mut fixed = FixedSums::new(plan, true);
        for start in (from..to).step_by((size * every).max(1)) {
            let n = size.min(to - start);
            panel.columns.fill_x(rows, start, n);
            panel.out.fill(0.0);
            s.value += fill((start, n), &mut panel.out[..n * stride]);
            fixed.add(plan, rows, &panel, stride, (start, n), &mut s, false);
        }
        fixed.finish(plan, &mut s);
        s
    };
    let bounds = chunk_bounds(rows.n, plan.p() * plan.p(), GRAIN);
    if bounds.len() == 2 || every > 1 {
        return sums(0, rows.n);
    }
    let parts: Vec<Sums> = bounds.par_windows(2).map(|w| sums(w[0], w[1])).collect();
    let mut total = Sums::fixed(plan);
    parts.iter().for_each(|s| total.add(s));
    total
}
