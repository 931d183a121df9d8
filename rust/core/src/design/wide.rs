//! Fixed factors of many levels ("wide"): nodes of the sparse system beside the random effects, without their penalty.
//!
//! A coefficient a level, Lambda = 1 and Q = 0: eliminating such a node is what sweeping its dummy out of the rows would
//! do, so that neither dummies nor a matrix of their cross-products exist. A level that has no coefficient (the reference
//! level; a level that others alias) keeps its node, with nothing in it and Q = 1: its coefficient is then 0 and its
//! pivot 1.

use serde::{Deserialize, Serialize};

use super::moments::{Coupling, Moments, Pair};
use super::rows::{Block, Codes, Rows, Structure, Term};
use crate::error::shape;
use crate::CoreError;

/// A fixed factor whose levels are nodes of the sparse system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wide {
    pub factor: usize,
    pub levels: usize,
    /// The user's column of its first level that has one.
    pub first: usize,
    /// Levels before that: 1 for treatment contrasts, 0 where every level has a column.
    pub base: usize,
    /// Levels that are linear combinations of columns before them, ascending.
    pub aliased: Vec<u32>,
}

impl Wide {
    pub fn cols(&self) -> usize {
        self.levels - self.base
    }

    pub fn rank(&self) -> usize {
        self.cols() - self.aliased.len()
    }

    /// The user's columns of the aliased levels.
    pub fn dropped(&self) -> impl Iterator<Item = usize> + '_ {
        self.aliased.iter().map(|&l| self.first + l as usize - self.base)
    }

    fn pinned(&self) -> Vec<bool> {
        let mut out = vec![false; self.levels];
        out[..self.base].fill(true);
        self.aliased.iter().for_each(|&l| out[l as usize] = true);
        out
    }
}

/// Whether the levels of the first wide factor make up the constant.
pub fn carries(wide: &[Wide]) -> bool {
    wide.first().is_some_and(|w| w.base == 0)
}

/// Rows whose wide factors have become terms behind the others.
pub struct Split<'a> {
    pub rows: Rows<'a>,
    pub wide: Vec<Wide>,
    /// The user's column of every dense one.
    pub columns: Vec<usize>,
}

const ONE: Block<'static> = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None };

pub fn split<'a>(rows: &Rows<'a>) -> Result<Split<'a>, CoreError> {
    let mut out = Split { rows: rows.clone(), wide: vec![], columns: (0..rows.fixed_cols()).collect() };
    if !rows.fixed.iter().any(Block::is_wide) {
        return Ok(out);
    }
    (out.rows.fixed, out.columns) = (vec![], vec![]);
    let mut at = 0;
    for block in &rows.fixed {
        match (&block.codes, block.is_wide()) {
            (Some(codes), true) => {
                let base = block.levels - block.cols;
                let factor = out.wide.len(); // until factors are counted
                out.wide.push(Wide { factor, levels: block.levels, first: at, base, aliased: vec![] });
                out.rows.terms.push(Term {
                    codes: *codes,
                    levels: block.levels,
                    structure: Structure::Diagonal,
                    blocks: vec![ONE],
                    joint: false,
                    relation: None,
                    fixed: true,
                });
            }
            _ => {
                out.rows.fixed.push(*block);
                out.columns.extend(at..at + block.cols);
            }
        }
        at += block.cols;
    }
    let codes: Vec<&Codes<'_>> = out.rows.terms.iter().filter(|t| t.fixed).map(|t| &t.codes).collect();
    match codes[..] {
        [_] => {}
        [a, b] => out.wide[1].aliased = aliased(a, b, &out.wide, rows),
        _ => return shape("at most two fixed factors can have many levels"),
    }
    Ok(out)
}

/// Levels of the second factor that those before them and the levels of the first (with the constant) make up: within a
/// set of levels that hang together the indicators of both factors have one sum, so that the last is one too many,
/// unless the reference level is in the set.
fn aliased(a: &Codes<'_>, b: &Codes<'_>, wide: &[Wide], rows: &Rows<'_>) -> Vec<u32> {
    let (first, second) = (&wide[0], &wide[1]);
    let mut of: Vec<u32> = (0..(first.levels + second.levels) as u32).collect();
    for i in 0..rows.n {
        let (x, y) = (root(&mut of, a.get(i) as u32), root(&mut of, first.levels as u32 + b.get(i) as u32));
        of[x.max(y) as usize] = x.min(y);
    }
    let mut last = vec![u32::MAX; of.len()];
    for l in 0..second.levels as u32 {
        last[root(&mut of, first.levels as u32 + l) as usize] = l;
    }
    let referred = (second.base > 0).then(|| root(&mut of, first.levels as u32));
    let mut out: Vec<u32> = (0..of.len() as u32)
        .filter(|&r| last[r as usize] != u32::MAX && Some(r) != referred)
        .map(|r| last[r as usize])
        .collect();
    out.sort_unstable();
    out
}

fn root(of: &mut [u32], mut i: u32) -> u32 {
    while of[i as usize] != i {
        of[i as usize] = of[of[i as usize] as usize];
        i = of[i as usize];
    }
    i
}

/// Which factors of a model a smaller one keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The random effects and nothing else.
    Random,
    /// Everything but the random effects.
    Fixed,
}

impl Moments {
    /// Empty the levels without a coefficient, and give every wide factor its Q.
    pub(super) fn pin(&mut self) {
        let random = self.random();
        for (w, wide) in self.wide.iter_mut().enumerate() {
            wide.factor = random + w;
            let (f, pinned) = (wide.factor, wide.pinned());
            let factor = &mut self.factors[f];
            let row = factor.zx.len() / factor.levels;
            for l in (0..factor.levels).filter(|&l| pinned[l]) {
                factor.gram[l] = 0.0;
                factor.zx[l * row..(l + 1) * row].fill(0.0);
            }
            for pair in &mut self.pairs {
                if pair.lead == f {
                    *pair = without(pair, |lead, _| pinned[lead]);
                } else if pair.other == f {
                    *pair = without(pair, |_, other| pinned[other]);
                }
            }
            let diag = pinned.iter().map(|&p| f64::from(p)).collect();
            let empty = Pair { lead: f, other: f, start: vec![0; pinned.len() + 1], level: vec![], value: vec![] };
            self.couplings.retain(|c| c.factor != f);
            self.couplings.push(Coupling { factor: f, diag, pair: empty });
        }
    }

    /// What a wide factor's coefficients lack of the user's, because shifts are booked on them: a combination of the
    /// dense coefficients kept, and a constant; None where that is nothing.
    pub(crate) fn booked(&self, wide: &Wide) -> Option<(Vec<f64>, f64)> {
        let ours = wide.base == 0 && self.carrier.as_ref().is_some_and(|c| c.iter().all(|v| *v == 0.0));
        ours.then(|| (self.kept.iter().map(|&j| -self.x_shift[j]).collect(), self.y_shift))
    }

    /// Relative factors of the wide factors: 1.
    pub(crate) fn free_wide(&self, mut lambda: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let random = self.random();
        lambda[random..].iter_mut().for_each(|l| *l = vec![1.0]);
        lambda
    }

    /// The cross-products of a part of the model. Without the fixed part the response alone is left of [X y].
    pub(crate) fn part(&self, part: Part) -> Self {
        let (r, all) = (self.random(), self.factors.len());
        let range = if part == Part::Random { 0..r } else { r..all };
        let moved = |p: &Pair| Pair { lead: p.lead - range.start, other: p.other - range.start, ..p.clone() };
        let inside = |p: &&Pair| range.contains(&p.lead) && range.contains(&p.other);
        let mut out = Moments {
            factors: self.factors[range.clone()].to_vec(),
            pairs: self.pairs.iter().filter(inside).map(moved).collect(),
            couplings: self
                .couplings
                .iter()
                .filter(|c| range.contains(&c.factor))
                .map(|c| Coupling { factor: c.factor - range.start, diag: c.diag.clone(), pair: moved(&c.pair) })
                .collect(),
            wide: vec![],
            n_terms: 0,
            kept: self.kept.clone(),
            dropped: self.dropped.clone(),
            columns: vec![],
            xx: self.xx.clone(),
            x_shift: self.x_shift.clone(),
            carrier: self.carrier.clone(),
            ..*self
        };
        if part == Part::Random {
            let p1 = self.p() + 1;
            (out.n_terms, out.p_total, out.carrier) = (self.n_terms, 0, None);
            (out.kept, out.dropped, out.x_shift) = (vec![], vec![], vec![]);
            out.xx = vec![self.xx[p1 * p1 - 1]];
            for f in &mut out.factors {
                f.zx = f.zx.chunks_exact(p1).map(|row| row[p1 - 1]).collect();
            }
        } else {
            out.wide = self.wide.iter().map(|w| Wide { factor: w.factor - range.start, ..w.clone() }).collect();
        }
        out
    }
}

/// A pair without the blocks of some (lead, other) levels.
fn without(pair: &Pair, gone: impl Fn(usize, usize) -> bool) -> Pair {
    let size = pair.value.len() / pair.level.len().max(1);
    let mut out = Pair { lead: pair.lead, other: pair.other, start: vec![0], level: vec![], value: vec![] };
    for l in 0..pair.start.len() - 1 {
        for e in pair.start[l] as usize..pair.start[l + 1] as usize {
            if !gone(l, pair.level[e] as usize) {
                out.level.push(pair.level[e]);
                out.value.extend_from_slice(&pair.value[e * size..(e + 1) * size]);
            }
        }
        out.start.push(out.level.len() as u32);
    }
    out
}

/// Sizes of a saved model that fit together.
pub(crate) fn sound(m: &Moments) -> bool {
    let random = m.factors.len().checked_sub(m.wide.len());
    m.columns.len() == m.p_total
        && m.wide.iter().enumerate().all(|(i, w)| {
            Some(w.factor) == random.map(|r| r + i)
                && m.factors[w.factor].cols == 1
                && w.levels == m.factors[w.factor].levels
                && w.base <= 1
                && w.base < w.levels
                && w.aliased.iter().all(|&l| (l as usize) >= w.base && (l as usize) < w.levels)
        })
        && m.couplings.iter().all(|c| {
            c.factor < m.factors.len()
                && c.diag.len() == m.factors[c.factor].levels
                && c.pair.start.len() == c.diag.len() + 1
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::design::Numeric;

    fn wide<'a>(codes: &'a [i32], levels: usize, cols: usize) -> Block<'a> {
        Block { codes: Some(Codes::I32(codes)), contrast: &[], levels, cols, x: None }
    }

    fn rows<'a>(fixed: Vec<Block<'a>>, y: &'a [f64]) -> Rows<'a> {
        Rows { n: y.len(), fixed, terms: vec![], y, weights: None, offset: None }
    }

    #[test]
    fn the_last_level_of_every_further_set_is_aliased() {
        // Two sets: a0, a1 with b0, b1 and a2, a3 with b2, b3; the reference b0 is in the first.
        let (a, b) = ([0, 0, 1, 2, 2, 3, 3], [0, 1, 1, 2, 3, 3, 3]);
        let y = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 3.0];
        let model = rows(vec![ONE, wide(&a, 4, 3), wide(&b, 4, 3)], &y);
        let split = split(&model).unwrap();
        assert_eq!(split.columns, vec![0]);
        assert_eq!(split.wide[0].aliased, vec![]);
        assert_eq!(split.wide[1].aliased, vec![3]);
        assert_eq!(split.wide[1].dropped().collect::<Vec<_>>(), vec![6]);
        let m = Moments::build(&model).unwrap();
        // The constant, three levels of the first factor, two of the second: (4 - 1) + (4 - 1) + 1 - 1.
        assert_eq!((m.rank(), m.user_columns(), m.random()), (6, 7, 0));
    }

    #[test]
    fn columns_constant_within_a_factor_are_dropped() {
        let (a, y) = ([0, 0, 1, 1, 2, 2], [1.0, 4.0, 2.0, 8.0, 5.0, 7.0]);
        let (between, within) = ([3.0, 3.0, -1.0, -1.0, 2.0, 2.0], [0.5, 1.0, 2.0, 0.0, 1.0, 1.5]);
        let column = |x| Block { x: Some(Numeric::F64(x)), ..ONE };
        let m = Moments::build(&rows(vec![ONE, column(&between), wide(&a, 3, 2), column(&within)], &y)).unwrap();
        assert_eq!((m.columns.clone(), m.kept.clone(), m.dropped.clone()), (vec![0, 1, 4], vec![0, 2], vec![1]));
        assert_eq!(m.rank(), 4);
    }

    #[test]
    fn three_wide_factors_are_refused() {
        let (a, y) = ([0, 1, 0, 1], [1.0, 4.0, 2.0, 8.0]);
        assert!(split(&rows(vec![ONE, wide(&a, 2, 1), wide(&a, 2, 1), wide(&a, 2, 1)], &y)).is_err());
    }
}
