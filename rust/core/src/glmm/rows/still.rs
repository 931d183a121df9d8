//! The rows that a step in the coefficients leaves where they are.

use rayon::prelude::*;

use super::fixed::FixedSums;
use super::panel::{chunk_bounds, fixed_parts, Panel, PANEL};
use super::pass::Sums;
use super::plan::Plan;
use super::GlmmRows;
use crate::family::GRAIN;
use crate::jet::pair as packed;

/// Share of the longest move of a predictor up to which another one stays.
const SHARE: f64 = 0.1;

/// How far a step moves every predictor of every row, n x K, in units of `reach`; and the longest of these ways.
fn moves(plan: &Plan, rows: &GlmmRows<'_>, step: &[f64], reach: &[f64]) -> (Vec<f64>, f64) {
    let mut moved = vec![];
    fixed_parts(plan, rows, step, false, &mut moved);
    moved.chunks_exact_mut(plan.k).for_each(|row| row.iter_mut().zip(reach).for_each(|(m, r)| *m = m.abs() / r));
    let most = moved.iter().copied().fold(0.0, f64::max);
    (moved, most)
}

/// How far a step moves the predictor that it moves most, in units of `reach`.
pub fn longest(plan: &Plan, rows: &GlmmRows<'_>, step: &[f64], reach: &[f64]) -> f64 {
    moves(plan, rows, step, reach).1
}

/// X'X over the rows (of each predictor) that a step leaves where they are, as against those it moves most; `reach` is the
/// unit of each predictor. What has no product there is a direction in which nothing but the others moves. Also the
/// coefficients of the predictors that have such others, ascending.
pub fn still(plan: &Plan, rows: &GlmmRows<'_>, step: &[f64], reach: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let k = plan.k;
    let (moved, most) = moves(plan, rows, step, reach);
    let few = SHARE * most;
    let moving = |c: &usize| moved.iter().skip(*c).step_by(k).any(|m| *m > few);
    let mut coefficients: Vec<usize> = (0..k).filter(moving).flat_map(|c| plan.coefficients_of(c)).collect();
    coefficients.sort_unstable();
    coefficients.dedup();
    let zero = || Sums::fixed(plan);
    let sums = |from: usize, to: usize| {
        let mut s = zero();
        let size = PANEL.min(to - from);
        let stride = 1 + k + packed(k, k - 1, k - 1) + 1;
        let mut panel = Panel::of(size, plan, stride);
        panel.out.fill(0.0);
        let mut fixed = FixedSums::new(plan, true);
        for start in (from..to).step_by(size.max(1)) {
            let n = size.min(to - start);
            panel.columns.fill_x(rows, start, n);
            for (row, moved) in
                panel.out.chunks_exact_mut(stride).zip(moved[start * k..(start + n) * k].chunks_exact(k))
            {
                (0..k).for_each(|a| row[1 + k + packed(k, a, a)] = (moved[a] <= few) as u8 as f64);
            }
            fixed.add(plan, rows, &panel, stride, (start, n), &mut s, false);
        }
        fixed.finish(plan, &mut s);
        s
    };
    let bounds = chunk_bounds(rows.n, plan.p() * plan.p(), GRAIN);
    if bounds.len() == 2 {
        return (sums(0, rows.n).xx, coefficients);
    }
    let parts: Vec<Sums> = bounds.par_windows(2).map(|w| sums(w[0], w[1])).collect();
    let mut total = zero();
    parts.iter().for_each(|s| total.add(s));
    (total.xx, coefficients)
}
