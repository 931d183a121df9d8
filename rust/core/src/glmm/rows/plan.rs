//! Where every column of the rows goes: dense and sparse fixed columns, random columns by factor.

use std::borrow::Cow;

use super::cells::Cells;
use super::panel::{Columns, Filled};
use super::{Component, Fixed, GlmmRows};
use crate::dense::dot;
use crate::design::{Block, Codes, Moments, Rows};
use crate::family::Family;
use crate::CoreError;

/// A coded fixed block with more columns than this enters row by row, by its non-zero contrasts only.
const DENSE_CONTRAST: usize = 6;

/// A dense fixed column: its value is (block - shift) * scale.
#[derive(Clone, Debug)]
pub(super) struct XColumn {
    pub(super) block: usize,
    pub(super) col: usize,
    pub(super) coef: usize,
    pub(super) shift: f64,
    pub(super) scale: f64,
}

/// A coded fixed block entered by its non-zero contrasts: (coefficient, value) by level.
#[derive(Clone, Debug)]
pub(super) struct XSparse {
    pub(super) block: usize,
    pub(super) start: Vec<u32>,
    pub(super) entry: Vec<(u32, f64)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct XPlan {
    pub(super) dense: Vec<XColumn>,
    pub(super) sparse: Vec<XSparse>,
    /// The first coefficient of the dense columns, where they follow each other without a gap.
    pub(super) first: Option<usize>,
}

impl XPlan {
    pub(super) fn new(dense: Vec<XColumn>, sparse: Vec<XSparse>) -> Self {
        let start = dense.first().map_or(0, |c| c.coef);
        let gapless = dense.iter().enumerate().all(|(i, c)| c.coef == start + i);
        XPlan { dense, sparse, first: gapless.then_some(start) }
    }

    /// out[coefficients] += w x.
    #[inline]
    pub(super) fn add(&self, out: &mut [f64], w: f64, x: &[f64]) {
        match self.first {
            Some(first) => out[first..first + x.len()].iter_mut().zip(x).for_each(|(o, x)| *o += w * x),
            None => self.dense.iter().zip(x).for_each(|(c, x)| out[c.coef] += w * x),
        }
    }

    /// Predictors of rows of dense columns, `apart` numbers from one to the next.
    pub(super) fn predict(&self, beta: &[f64], x: &[f64], offset: Option<&[f64]>, (out, apart): (&mut [f64], usize)) {
        fn fixed<const D: usize>(beta: &[f64], x: &[f64], (out, apart): (&mut [f64], usize)) {
            let b: [f64; D] = std::array::from_fn(|j| beta[j]);
            for (out, x) in out.iter_mut().step_by(apart).zip(x.chunks_exact(D)) {
                *out += (0..D).map(|j| b[j] * x[j]).sum::<f64>();
            }
        }
        match offset {
            Some(o) => out.iter_mut().step_by(apart).zip(o).for_each(|(out, o)| *out = *o),
            None => out.iter_mut().step_by(apart).for_each(|out| *out = 0.0),
        }
        let (d, own, to) = (self.dense.len(), self.own(beta), (out, apart));
        match d {
            0 => {}
            1 => fixed::<1>(&own, x, to),
            2 => fixed::<2>(&own, x, to),
            3 => fixed::<3>(&own, x, to),
            4 => fixed::<4>(&own, x, to),
            _ => to.0.iter_mut().step_by(apart).zip(x.chunks_exact(d)).for_each(|(out, x)| *out += dot(&own, x)),
        }
    }

    /// Coefficients of the dense columns.
    fn own<'b>(&self, beta: &'b [f64]) -> Cow<'b, [f64]> {
        match self.first {
            Some(first) => Cow::Borrowed(&beta[first..first + self.dense.len()]),
            None => Cow::Owned(self.dense.iter().map(|c| beta[c.coef]).collect()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct ZColumn {
    pub(super) term: usize,
    pub(super) block: usize,
    pub(super) col: usize,
    pub(super) shift: f64,
    pub component: usize,
}

impl ZColumn {
    /// Value in a row.
    pub fn value(&self, rows: &GlmmRows<'_>, row: usize) -> f64 {
        rows.terms[self.term].blocks[self.block].value(row, self.col) - self.shift
    }
}

#[derive(Clone, Debug)]
pub struct ZFactor {
    pub term: usize,
    pub levels: usize,
    pub columns: Vec<ZColumn>,
    /// One column of ones.
    pub(super) intercept: bool,
}

/// How the user's columns become internal ones: shifted, scaled, dependent ones left out.
pub struct Plan {
    pub k: usize,
    /// Coefficients kept, in the user's numbering.
    pub kept: Vec<usize>,
    pub dropped: Vec<usize>,
    pub p_total: usize,
    pub shift: Vec<f64>,
    pub scale: Vec<f64>,
    /// Coefficients (user's numbering) that make up the constant of each coefficient's component.
    pub carrier: Vec<Option<Vec<usize>>>,
    pub(super) x: Vec<XPlan>,
    pub z: Vec<ZFactor>,
    /// For every pair of factors, the entry of each row.
    pub(super) entry: Vec<Vec<u32>>,
    pub pair_of: Vec<(usize, usize)>,
    /// Columns of all rows where they are few: the passes of a fit read them many times.
    pub(super) filled: Option<Filled>,
    /// Kinds of rows, where these are few.
    pub(super) cells: Option<Cells>,
}

/// Numbers up to which the values of all rows are kept: what a processor has at hand anyway.
const FEW: usize = 1 << 17;

/// Mean and root mean square deviation of at most 256 evenly spaced values.
pub(super) fn provisional(n: usize, value: impl Fn(usize) -> f64) -> (f64, f64) {
    let m = n.min(256);
    let at = |k: usize| value(k * (n / m));
    let mean = (0..m).map(at).sum::<f64>() / m as f64;
    let ms = (0..m).map(|k| (at(k) - mean).powi(2)).sum::<f64>() / m as f64;
    (if mean.is_finite() { mean } else { 0.0 }, if ms.is_finite() { ms.sqrt() } else { 0.0 })
}

impl Plan {
    /// The only predictor with random effects.
    pub(super) fn single(&self) -> Option<usize> {
        let mut all = self.z.iter().flat_map(|f| &f.columns).map(|c| c.component);
        let first = all.next()?;
        all.all(|c| c == first).then_some(first)
    }

    /// Plan of the passes, and the pattern of the random effects' cross-products.
    pub fn new(rows: &GlmmRows<'_>, family: &Family) -> Result<(Self, Moments), CoreError> {
        let k = family.parameters();
        rows.check(k)?;
        let moments = Moments::pattern(&rows.pattern_rows())?;
        let (shared, mut drop) = (shared_coefficients(rows), vec![false; rows.p]);
        let mut found: Vec<Vec<usize>> = vec![];
        for (i, c) in rows.components.iter().enumerate() {
            let beside = |j: usize| j < family.without_constant();
            let twin = (0..i).find(|&j| beside(j) == beside(i) && rows.components[j].same_columns(c));
            found.push(match twin {
                Some(j) => found[j].clone(),
                None => dependent(rows, c, beside(i))?,
            });
            let coef: Vec<usize> = c.fixed.iter().flat_map(|f| f.first..f.first + f.block.cols).collect();
            found[i].iter().for_each(|&column| drop[coef[column]] = !shared[coef[column]]);
        }
        let kept: Vec<usize> = (0..rows.p).filter(|&j| !drop[j]).collect();
        let dropped: Vec<usize> = (0..rows.p).filter(|&j| drop[j]).collect();
        let mut out = Plan {
            k,
            kept,
            dropped,
            p_total: rows.p,
            shift: vec![0.0; rows.p],
            scale: vec![1.0; rows.p],
            carrier: vec![None; rows.p],
            x: vec![],
            z: vec![],
            entry: vec![],
            pair_of: moments.pairs.iter().map(|p| (p.lead, p.other)).collect(),
            filled: None,
            cells: None,
        };
        for c in &rows.components {
            out.add_component(rows, c, &shared);
        }
        for f in &moments.factors {
            out.z.push(z_factor(rows, f));
        }
        for p in &moments.pairs {
            out.entry.push(row_entries(rows, &moments, p));
        }
        let columns: usize = out.x.iter().map(|x| x.dense.len()).chain(out.z.iter().map(|f| f.columns.len())).sum();
        if rows.n * columns <= FEW {
            let filled = Columns::all(&out, rows);
            out.cells = filled.cells(rows, &out.x);
            out.filled = Some(filled);
        }
        Ok((out, moments))
    }

    pub(super) fn add_component(&mut self, rows: &GlmmRows<'_>, c: &Component<'_>, shared: &[bool]) {
        let mut internal = vec![usize::MAX; self.p_total];
        self.kept.iter().enumerate().for_each(|(i, &j)| internal[j] = i);
        let carrier = c.fixed.iter().find(|f| {
            let all = (f.first..f.first + f.block.cols).all(|j| internal[j] != usize::MAX && !shared[j]);
            all && (f.block.is_intercept() || f.block.is_cell_means())
        });
        let carrier = carrier.map(|f| (f.first..f.first + f.block.cols).collect::<Vec<_>>());
        let (mut dense, mut sparse) = (vec![], vec![]);
        for (b, f) in c.fixed.iter().enumerate() {
            let block = &f.block;
            if block.is_numeric() && !shared[f.first] {
                if let Some(x) = &block.x {
                    let (mean, sd) = provisional(rows.n, |i| x.get(i));
                    if carrier.is_some() {
                        self.shift[f.first] = mean;
                        self.carrier[f.first] = carrier.clone();
                    }
                    let size = if carrier.is_some() { sd } else { (sd * sd + mean * mean).sqrt() };
                    self.scale[f.first] = if size > 0.0 { 1.0 / size } else { 1.0 };
                }
            }
            if block.codes.is_some() && block.cols > DENSE_CONTRAST {
                sparse.push(sparse_block(b, f, &internal));
                continue;
            }
            for col in 0..block.cols {
                let j = f.first + col;
                if internal[j] != usize::MAX {
                    let (shift, scale) = (self.shift[j], self.scale[j]);
                    dense.push(XColumn { block: b, col, coef: internal[j], shift, scale });
                }
            }
        }
        self.x.push(XPlan::new(dense, sparse));
    }

    pub fn p(&self) -> usize {
        self.kept.len()
    }

    /// Whether all random effects are in the first predictor.
    pub fn only_first(&self) -> bool {
        self.z.iter().flat_map(|f| &f.columns).all(|c| c.component == 0)
    }

    /// Internal coefficients of one predictor, in order.
    pub fn coefficients_of(&self, k: usize) -> Vec<usize> {
        let x = &self.x[k];
        let dense = x.dense.iter().map(|c| c.coef);
        let sparse = x.sparse.iter().flat_map(|s| s.entry.iter().map(|e| e.0 as usize));
        let mut out: Vec<usize> = dense.chain(sparse).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// The kind of every row by its fixed columns, and how many there are; none unless they are few.
    pub fn kinds(&self) -> Option<(&[u32], usize)> {
        self.cells.as_ref().map(|cells| (&cells.of[..], cells.count))
    }

    /// Coefficients of the user's columns; NaN where dropped.
    pub fn user_beta(&self, beta: &[f64]) -> Vec<f64> {
        let mut out = vec![f64::NAN; self.p_total];
        for (&j, &b) in self.kept.iter().zip(beta) {
            out[j] = b * self.scale[j];
        }
        for &j in &self.kept {
            if let Some(c) = &self.carrier[j] {
                let extra = self.shift[j] * beta[self.internal(j)] * self.scale[j];
                c.iter().for_each(|&c| out[c] -= extra);
            }
        }
        out
    }

    /// Internal coefficients from the user's (NaN counts as zero).
    pub fn internal_beta(&self, beta: &[f64]) -> Vec<f64> {
        let mut user: Vec<f64> = beta.iter().map(|b| if b.is_nan() { 0.0 } else { *b }).collect();
        for &j in &self.kept {
            if let Some(c) = &self.carrier[j] {
                let extra = self.shift[j] * user[j];
                c.iter().for_each(|&c| user[c] += extra);
            }
        }
        self.kept.iter().map(|&j| user[j] / self.scale[j]).collect()
    }

    /// The transpose of `user_beta` seen as a linear map: gradients in user's units become internal ones.
    pub fn user_gradient(&self, g: &[f64]) -> Vec<f64> {
        // beta_internal = S^-1 (beta_user + shifts on the carrier): d/d user = M' d/d internal.
        let mut out = vec![0.0; self.p_total];
        for (&j, &g) in self.kept.iter().zip(g) {
            out[j] += g / self.scale[j];
        }
        let on = out.clone();
        for &j in &self.kept {
            if let Some(c) = &self.carrier[j] {
                out[j] += self.shift[j] * c.iter().map(|&c| on[c]).sum::<f64>();
            }
        }
        out
    }

    /// Row of the internal design for a row of the user's: x'beta stays the same.
    pub fn internal_row(&self, x: &[f64]) -> Vec<f64> {
        // beta_user = S beta_internal, minus the shifts on the carrier.
        self.kept
            .iter()
            .map(|&j| {
                let carried = self.carrier[j].as_ref().map_or(0.0, |c| c.iter().map(|&c| x[c]).sum::<f64>());
                (x[j] - self.shift[j] * carried) * self.scale[j]
            })
            .collect()
    }

    pub(super) fn internal(&self, j: usize) -> usize {
        self.kept.partition_point(|&k| k < j)
    }
}

pub(super) fn shared_coefficients(rows: &GlmmRows<'_>) -> Vec<bool> {
    let mut count = vec![0u32; rows.p];
    for f in rows.components.iter().flat_map(|c| &c.fixed) {
        (f.first..f.first + f.block.cols).for_each(|j| count[j] += 1);
    }
    count.iter().map(|&c| c > 1).collect()
}

/// Columns of one component that are linear combinations of those before them, and of a constant that other components
/// have (`beside_constant`).
pub(super) fn dependent(
    rows: &GlmmRows<'_>,
    c: &Component<'_>,
    beside_constant: bool,
) -> Result<Vec<usize>, CoreError> {
    if c.fixed.is_empty() || (!beside_constant && c.fixed.len() == 1 && c.fixed[0].block.is_intercept()) {
        return Ok(vec![]);
    }
    let constant = beside_constant.then_some(Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None });
    let fixed: Vec<Block<'_>> = constant.into_iter().chain(c.fixed.iter().map(|f| f.block)).collect();
    let only = Rows { n: rows.n, fixed, terms: vec![], y: rows.data.y, weights: None, offset: None };
    let own = usize::from(beside_constant);
    Ok(Moments::build(&only)?.dropped.iter().map(|&j| j - own).collect())
}

pub(super) fn sparse_block(b: usize, f: &Fixed<'_>, internal: &[usize]) -> XSparse {
    let (mut start, mut entry) = (vec![0], vec![]);
    for row in f.block.contrast.chunks_exact(f.block.cols) {
        for (c, &v) in row.iter().enumerate().filter(|(_, v)| **v != 0.0) {
            if internal[f.first + c] != usize::MAX {
                entry.push((internal[f.first + c] as u32, v));
            }
        }
        start.push(entry.len() as u32);
    }
    XSparse { block: b, start, entry }
}

pub(super) fn z_factor(rows: &GlmmRows<'_>, f: &crate::design::Factor) -> ZFactor {
    let mut columns = vec![];
    for slot in &f.slots {
        let mut k = 0;
        for (b, block) in rows.terms[slot.term].blocks.iter().enumerate() {
            for col in 0..block.cols {
                let component = rows.owner[slot.term][b];
                columns.push(ZColumn { term: slot.term, block: b, col, shift: slot.shift[k], component });
                k += 1;
            }
        }
    }
    let intercept = columns.len() == 1 && rows.terms[columns[0].term].blocks[0].is_intercept();
    ZFactor { term: f.slots[0].term, levels: f.levels, columns, intercept }
}

/// Entry of `pair` that each row belongs to.
pub(super) fn row_entries(rows: &GlmmRows<'_>, m: &Moments, pair: &crate::design::Pair) -> Vec<u32> {
    let codes = |f: usize| &rows.terms[m.factors[f].slots[0].term].codes;
    let (lead, other) = (codes(pair.lead), codes(pair.other));
    let (start, order) = sort_rows(lead, rows.n, m.factors[pair.lead].levels);
    let mut place = vec![0u32; m.factors[pair.other].levels];
    let mut out = vec![0u32; rows.n];
    for l in 0..m.factors[pair.lead].levels {
        for e in pair.start[l]..pair.start[l + 1] {
            place[pair.level[e as usize] as usize] = e;
        }
        for &i in &order[start[l] as usize..start[l + 1] as usize] {
            out[i as usize] = place[other.get(i as usize) as usize];
        }
    }
    out
}

pub(super) fn sort_rows(codes: &Codes<'_>, n: usize, levels: usize) -> (Vec<u32>, Vec<u32>) {
    sort_by(n, levels, |i| codes.get(i) as usize)
}

/// Where the rows of each level begin among all of them in the order of their levels, and these.
pub(super) fn sort_by(n: usize, levels: usize, level: impl Fn(usize) -> usize) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0u32; levels + 1];
    (0..n).for_each(|i| start[level(i) + 1] += 1);
    (0..levels).for_each(|l| start[l + 1] += start[l]);
    let (mut next, mut order) = (start.clone(), vec![0u32; n]);
    for i in 0..n {
        let at = &mut next[level(i)];
        order[*at as usize] = i as u32;
        *at += 1;
    }
    (start, order)
}

pub(super) fn packed3(k: usize) -> Vec<usize> {
    let mut at = vec![0; k * k * k];
    let mut next = 0;
    for a in 0..k {
        for b in a..k {
            for c in b..k {
                for (x, y, z) in [(a, b, c), (a, c, b), (b, a, c), (b, c, a), (c, a, b), (c, b, a)] {
                    at[(x * k + y) * k + z] = next;
                }
                next += 1;
            }
        }
    }
    at
}
