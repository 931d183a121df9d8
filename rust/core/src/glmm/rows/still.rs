//! The rows that a step in the coefficients leaves where they are.

use super::panel::fixed_change;
use super::plan::Plan;
use super::products::fixed_products;
use super::GlmmRows;
use crate::jet::pair as packed;

/// Share of the longest move of a predictor up to which another one stays.
const SHARE: f64 = 0.1;

/// How far a step moves every predictor of every row, n x K, in units of `reach`; and the longest of these ways.
fn moves(plan: &Plan, rows: &GlmmRows<'_>, step: &[f64], reach: &[f64]) -> (Vec<f64>, f64) {
    let mut moved = fixed_change(plan, rows, step);
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
    let stay = |(start, n): (usize, usize), out: &mut [f64]| {
        let stride = out.len() / n;
        for (row, moved) in out.chunks_exact_mut(stride).zip(moved[start * k..(start + n) * k].chunks_exact(k)) {
            (0..k).for_each(|a| row[1 + k + packed(k, a, a)] = (moved[a] <= few) as u8 as f64);
        }
        0.0
    };
    (fixed_products(plan, rows, 1, stay).xx, coefficients)
}
