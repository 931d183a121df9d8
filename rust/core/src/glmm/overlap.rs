//! Whether separation can be ruled out before the search: by the dual of its linear program.
//!
//! Coefficients have no finite estimate if a direction of theirs makes no row less likely and some row more likely
//! (Albert & Anderson 1984). There is none if and only if positive weights of the rows that may go one way only balance
//! their columns, together with any weights of the others (Stiemke 1915). The slopes D1 of the log density without random
//! effects are such weights at their optimum, and a search begins near it: with V = |D1|, what D1 leaves beside
//! V X (X'VX)^-1 X'D1 balances exactly, and it is enough that no row's weight changes its sign by that.

use rayon::prelude::*;

use crate::dense;
use crate::family::{Categories, GRAIN};
use crate::CoreError;

use super::fit::{Begun, Glmm, Method, Start};
use super::laplace::Engine;
use super::rows::{fixed_products, some_fixed_change, GlmmRows, PANEL};
use crate::jet::pair as packed;

/// Which way the predictor of a row may go without end, by its response: the sign of the first entry (response up to which
/// it holds, sign) that fits. 1 and -1, 0 where neither, NaN where the row says nothing of the predictor.
pub type Signs = Vec<(f64, f64)>;

/// Rows that are enough: if some of them overlap, all do.
const ENOUGH: usize = 20_000;
/// Most of a weight that may be missing for balance.
const MOST: f64 = 0.9;
/// Least weight that is none of rounding, as a share of the sum of all.
const LEAST: f64 = 1e-13;

/// A weight of the rows' dual: that of the direction in which one predictor goes up, or another one down, or both.
struct Piece {
    up: Option<usize>,
    down: Option<usize>,
    weight: f64,
    /// Whether it must be positive.
    told: bool,
}

/// Tells the pieces of a row, from its response, log density, slopes and second derivatives.
type Pieces<'a> = dyn Fn(f64, &[f64], &mut dyn FnMut(Piece)) + Sync + 'a;

/// How many times a row counts; one of no trials says nothing.
fn counts(rows: &GlmmRows<'_>, row: usize) -> f64 {
    match rows.data.trials {
        Some(trials) if trials[row] == 0.0 => 0.0,
        _ => rows.weights.map_or(1.0, |w| w[row]),
    }
}

fn sign(signs: &Signs, y: f64) -> f64 {
    signs.iter().find(|(upto, _)| y <= *upto).map_or(0.0, |s| s.1)
}

impl Glmm {
    /// Find where a search from `start` for `method` begins, and which predictors have coefficients that cannot be
    /// separated, from the `signs` of each; a family of categories knows its own, and all its predictors have one answer.
    /// False where nothing is known (no signs).
    pub fn begin(
        &mut self,
        rows: &GlmmRows<'_>,
        start: &Start,
        method: Method,
        signs: &[Option<Signs>],
    ) -> Result<Vec<bool>, CoreError> {
        let none = vec![false; self.engine.plan.k];
        if start.exact || (signs.len() != none.len() && self.engine.family.categories().is_none()) {
            return Ok(none);
        }
        self.engine.set_method(method)?;
        let begun = Begun::of(&mut self.engine, rows, start)?;
        let mut found = self.engine.overlapped(rows, signs);
        if !self.engine.are_all(&found, signs) {
            // Nearer to the optimum the slopes balance better; the search begins where it would.
            self.engine.closer(rows, begun.beta());
            let again = self.engine.overlapped(rows, signs);
            found.iter_mut().zip(again).for_each(|(f, a)| *f |= a);
            self.engine.start_weights(rows, begun.beta());
        }
        self.engine.begun = Some(begun);
        Ok(found)
    }
}

impl Engine {
    /// At predictors without random effects.
    fn overlapped(&self, rows: &GlmmRows<'_>, signs: &[Option<Signs>]) -> Vec<bool> {
        let k = self.plan.k;
        if let Some(kind) = self.family.categories() {
            let all: Vec<usize> = (0..k).collect();
            return vec![self.is_balanced(rows, &all, &|y, row, each| between(kind, y, row, each)); k];
        }
        let one = |c: usize| {
            let Some(own) = signs[c].as_ref().filter(|own| !own.is_empty()) else { return false };
            self.plan.coefficients_of(c).is_empty()
                || self.is_mixed(rows, own)
                || self.is_balanced(rows, &[c], &|y, row, each| each(alone(c, k, sign(own, y), row)))
        };
        (0..k).map(one).collect()
    }

    /// Whether nothing is left to be known.
    fn are_all(&self, found: &[bool], signs: &[Option<Signs>]) -> bool {
        let asked = |k: usize| self.family.categories().is_some() || signs[k].as_ref().is_some_and(|s| !s.is_empty());
        found.iter().enumerate().all(|(k, f)| *f || !asked(k))
    }

    /// Whether every kind of rows, in a factorial design, goes both ways or neither.
    fn is_mixed(&self, rows: &GlmmRows<'_>, signs: &Signs) -> bool {
        let Some((of, count)) = self.plan.kinds() else { return false };
        let mut seen = vec![0u8; count];
        for (i, (&cell, &y)) in of.iter().zip(rows.data.y).enumerate() {
            if counts(rows, i) > 0.0 {
                let s = sign(signs, y);
                seen[cell as usize] |= if s > 0.0 { 1 } else { 2 * u8::from(s < 0.0) + 4 * u8::from(s == 0.0) };
            }
        }
        seen.iter().all(|s| !matches!(s, 1 | 2))
    }

    /// Whether weights near the slopes balance the columns of some predictors, in some of many rows or in all; `pieces` are
    /// those of a row, from its response, the slopes and the second derivatives.
    fn is_balanced(&self, rows: &GlmmRows<'_>, predictors: &[usize], pieces: &Pieces<'_>) -> bool {
        let every = (rows.n / ENOUGH).max(1);
        (every > 1 && self.are_balanced(rows, every, predictors, pieces))
            || self.are_balanced(rows, 1, predictors, pieces)
    }

    /// The same of the rows of one panel of `every`.
    fn are_balanced(&self, rows: &GlmmRows<'_>, every: usize, predictors: &[usize], pieces: &Pieces<'_>) -> bool {
        let (plan, k) = (&self.plan, self.plan.k);
        let each = |start: usize, n: usize, with: &mut dyn FnMut(usize, f64, &[f64])| {
            let stride = self.family.stride(2);
            let mut out = vec![0.0; n * stride];
            self.family.evaluate(&rows.data, start, &self.fixed[start * k..(start + n) * k], 2, &mut out);
            for (r, row) in out.chunks_exact(stride).enumerate() {
                let weight = counts(rows, start + r);
                if weight > 0.0 {
                    with(r, weight, row);
                }
            }
        };
        let fill = |(start, n): (usize, usize), out: &mut [f64]| {
            let (stride, mut total) = (out.len() / n, 0.0);
            each(start, n, &mut |r, weight, row| {
                let out = &mut out[r * stride..(r + 1) * stride];
                predictors.iter().for_each(|&c| out[1 + c] = weight * row[1 + c]);
                pieces(rows.data.y[start + r], row, &mut |p| {
                    let v = weight * p.weight.abs();
                    total += v;
                    [p.up, p.down].into_iter().flatten().for_each(|c| out[1 + k + packed(k, c, c)] += v);
                    if let (Some(a), Some(b)) = (p.up, p.down) {
                        out[1 + k + packed(k, a.min(b), a.max(b))] -= v;
                    }
                });
            });
            total
        };
        let s = fixed_products(plan, rows, every, fill);
        let mut own: Vec<usize> = predictors.iter().flat_map(|&c| plan.coefficients_of(c)).collect();
        own.sort_unstable();
        own.dedup();
        let Some(change) = solved(&s.xx, &s.xg, plan.p(), &own) else { return false };
        let moved = some_fixed_change(plan, rows, &change, every);
        let least = LEAST * s.value;
        let holds = |start: usize, n: usize| {
            let mut holds = true;
            each(start, n, &mut |r, weight, row| {
                let moved = &moved[(start + r) * k..(start + r + 1) * k];
                let by = |c: Option<usize>| c.map_or(0.0, |c| moved[c]);
                let kept = |p: &Piece| weight * p.weight > least && by(p.up) - by(p.down) < MOST;
                pieces(rows.data.y[start + r], row, &mut |p| holds &= !p.told || kept(&p));
            });
            holds
        };
        let starts: Vec<usize> = (0..rows.n).step_by(PANEL * every).collect();
        let holds = |&start: &usize| holds(start, PANEL.min(rows.n - start));
        if rows.n < GRAIN * every {
            return starts.iter().all(holds);
        }
        starts.par_iter().all(holds)
    }
}

/// What a row says of one of K predictors that may go one way only, or of one that may go neither.
fn alone(c: usize, k: usize, sign: f64, row: &[f64]) -> Piece {
    let slope = row[1 + c];
    if sign == 0.0 {
        let v = (-row[1 + k + packed(k, c, c)]).max(0.0);
        return Piece { up: Some(c), down: None, weight: v, told: false };
    }
    if sign.is_nan() {
        return Piece { up: Some(c), down: None, weight: -slope.abs(), told: slope != 0.0 };
    }
    let (up, down) = if sign > 0.0 { (Some(c), None) } else { (None, Some(c)) };
    Piece { up, down, weight: sign * slope, told: true }
}

/// Comparisons of a row's category with others: that with the next ones by a location and two thresholds, or with every
/// other one by its predictor, that of the first being 0.
fn between(kind: Categories, y: f64, row: &[f64], each: &mut dyn FnMut(Piece)) {
    let mut piece = |up, down, weight| each(Piece { up, down, weight, told: true });
    match kind {
        Categories::Ordered { count } => {
            let (location, upper, lower) = (0, 1, 2);
            if (y as usize) + 1 < count {
                piece(Some(upper), Some(location), row[1 + upper]);
            }
            if y > 0.0 {
                piece(Some(location), Some(lower), -row[1 + lower]);
            }
        }
        Categories::Nominal { count } => {
            let (own, slopes) = ((y as usize).checked_sub(1), &row[1..count]);
            (0..count - 1).filter(|&j| Some(j) != own).for_each(|j| piece(own, Some(j), -slopes[j]));
            if own.is_some() {
                piece(own, None, slopes.iter().sum());
            }
        }
    }
}

/// The solution of a x = b in some of p coefficients, 0 in the others; none where a is not positive definite.
fn solved(a: &[f64], b: &[f64], p: usize, own: &[usize]) -> Option<Vec<f64>> {
    let r = own.len();
    let mut l: Vec<f64> = (0..r * r).map(|t| a[own[t % r] + own[t / r] * p]).collect();
    dense::cholesky(&mut l, r, r).ok()?;
    let mut x: Vec<f64> = own.iter().map(|&j| b[j]).collect();
    dense::solve_left_l(&l, r, r, &mut x, 1, r);
    dense::solve_left_lt(&l, r, r, &mut x, 1, r);
    let mut out = vec![0.0; p];
    own.iter().zip(x).for_each(|(&j, v)| out[j] = v);
    Some(out)
}
