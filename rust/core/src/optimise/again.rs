//! A second look at tiny designs, whose likelihoods may have several optima.
//!
//! With about as many rows as a few times the variance parameters, a face of the parameter space (a variance of 0, a
//! correlation of +-1) and its interior may hold an optimum each, and so may a small and a large share of the residual
//! variance. The search is repeated from points on the other side of what it found, and the best end is kept.

use super::scale::{put_block, slot_block, units};
use super::{minimise, Optimum, Options};
use crate::dense;
use crate::design::{Moments, Structure};
use crate::linear::Lmm;
use crate::CoreError;

/// Rows per variance parameter below which a search is repeated: one more is then quick, too.
const ROWS: usize = 20;
/// What another optimum must be lower by, in the deviance.
const LOWER: f64 = 1e-7;
/// Standard deviations, relative to the noise of a level's information, that all terms are also started from.
const SIZES: [f64; 2] = [1.0, 10.0];

/// `minimise` from `start`, and again where the design is tiny.
pub fn minimise_again(lmm: &mut Lmm, reml: bool, start: &[Vec<f64>], options: &Options) -> Result<Optimum, CoreError> {
    let mut best = minimise(lmm, reml, start, options)?;
    if lmm.moments.n >= ROWS * lmm.components.len() {
        return Ok(best);
    }
    let (mut evaluations, mut iterations, mut here) = (best.evaluations, best.iterations, true);
    let mut from = others(&lmm.moments, &best.lambda);
    let mut beat = Options { beat: best.solution.criterion, ..options.clone() };
    while let Some(mut point) = from.pop() {
        // What `start` leaves out has no influence.
        for (point, start) in point.iter_mut().zip(start) {
            point.iter_mut().zip(start).filter(|(_, s)| **s == 0.0).for_each(|(p, _)| *p = 0.0);
        }
        options.stop.check()?;
        if evaluations >= options.max_evaluations {
            break;
        }
        let before = lmm.evaluations;
        // A start that cannot be evaluated leads nowhere.
        let end = minimise(lmm, reml, &point, &beat);
        evaluations += lmm.evaluations - before;
        here = false;
        if let Ok(end) = end {
            iterations += end.iterations;
            if end.solution.criterion < best.solution.criterion - LOWER {
                beat.beat = end.solution.criterion;
                (best, here) = (end, true);
                from = others(&lmm.moments, &best.lambda);
            }
        }
    }
    if !here {
        best.solution = lmm.solve(&best.lambda, reml)?;
        evaluations += 1;
    }
    (best.evaluations, best.iterations) = (evaluations, iterations);
    Ok(best)
}

/// Points on other faces than `found`, or in other parts of the interior; the last ones are the furthest away.
fn others(m: &Moments, found: &[Vec<f64>]) -> Vec<Vec<Vec<f64>>> {
    let mut out = vec![];
    let sized = SIZES.map(|size| of_size(m, size));
    let slots: Vec<(usize, usize)> =
        (0..m.random()).flat_map(|f| (0..m.factors[f].slots.len()).map(move |s| (f, s))).collect();
    for &(f, s) in &slots {
        let slot = &m.factors[f].slots[s];
        let n = slot.cols;
        let block = slot_block(&found[f], m.factors[f].cols, slot.offset, n);
        let sd: Vec<f64> = (0..n).map(|r| (0..n).map(|c| block[r + c * n].powi(2)).sum::<f64>().sqrt()).collect();
        let mut add = |block: &[f64]| {
            let mut point = found.to_vec();
            put_block(&mut point[f], m.factors[f].cols, slot.offset, n, block);
            out.push(point);
        };
        let rows = |scale: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..n * n).map(|t| if scale(t % n) == 0.0 { 0.0 } else { scale(t % n) * block[t] }).collect()
        };
        for a in (0..n).filter(|&a| n > 1 && sd[a] > 0.0) {
            add(&rows(&|r| f64::from(r != a)));
            if a > 0 && slot.structure != Structure::Diagonal {
                add(&rows(&|r| if r == a { -1.0 } else { 1.0 }));
            }
        }
        if n > 1 && slot.structure != Structure::Diagonal {
            add(&(0..n * n).map(|t| if t % (n + 1) == 0 { sd[t % n] } else { 0.0 }).collect::<Vec<f64>>());
        }
        if slots.len() > 1 {
            add(&vec![0.0; n * n]);
            add(&slot_block(&sized[0][f], m.factors[f].cols, slot.offset, n));
        }
    }
    out.extend(sized);
    out.push(of_size(m, 0.0));
    out
}

/// Independent effects with standard deviations of `size` times the noise of a mean level's information.
pub(crate) fn of_size(m: &Moments, size: f64) -> Vec<Vec<f64>> {
    let mut out: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.cols * f.cols]).collect();
    for ((factor, units), out) in m.factors[..m.random()].iter().zip(units(m)).zip(&mut out) {
        for (slot, unit) in factor.slots.iter().zip(units) {
            let n = slot.cols;
            let mut block: Vec<f64> = (0..n * n).map(|t| if t % (n + 1) == 0 { size } else { 0.0 }).collect();
            dense::solve_left_lt(&unit, n, n, &mut block, n, n);
            put_block(out, factor.cols, slot.offset, n, &block);
        }
    }
    m.free_wide(out)
}
