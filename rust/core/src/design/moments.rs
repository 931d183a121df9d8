//! One pass over the rows leaves the cross-products [Z X y]' W [Z X y]; nothing later looks at a row again.
//!
//! Rows are evaluated in panels that stay in the first-level cache. Numeric columns are shifted by a provisional mean
//! (exactly undone by the caller of `Moments`), so that a column such as `year` loses no digits to its offset.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::rows::{Block, Codes, Rows, Structure};
use super::wide::{self, Wide};
use crate::dense;
use crate::error::shape;
use crate::linear;
use crate::CoreError;

const PANEL: usize = 512;
/// A coded fixed block with more columns than this is accumulated by cells, not as dense dummies.
const DENSE_CONTRAST: usize = 6;
/// A fixed column whose residual sum of squares given its predecessors is below this share is linearly dependent.
const RANK_TOLERANCE: f64 = 1e-11;

/// Where a term of the model sits inside its grouping factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermSlot {
    pub term: usize,
    pub offset: usize,
    pub cols: usize,
    pub structure: Structure,
    /// Provisional mean taken off each column (zero where that would change the model).
    pub shift: Vec<f64>,
    /// Column of ones that the shifts are booked on.
    pub carrier: Option<usize>,
}

/// Cross-products of one grouping factor: all terms that share it, side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    pub levels: usize,
    pub cols: usize,
    pub slots: Vec<TermSlot>,
    /// levels x (cols x cols), each block full and symmetric.
    pub gram: Vec<f64>,
    /// levels x cols x (p + 1), row-major; the response is the last column.
    pub zx: Vec<f64>,
}

impl Factor {
    /// Information about a column, the mean over the levels.
    pub fn mean_information(&self, column: usize) -> f64 {
        let at = column * (self.cols + 1);
        self.gram.chunks_exact(self.cols * self.cols).map(|g| g[at]).sum::<f64>() / self.levels as f64
    }
}

/// Cross-products between two grouping factors, compressed by the levels of `lead`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub lead: usize,
    pub other: usize,
    pub start: Vec<u32>,
    pub level: Vec<u32>,
    /// Blocks (cols of lead) x (cols of other), column-major.
    pub value: Vec<f64>,
}

/// Precision of the levels of a factor that are related: scalars, the same for every column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coupling {
    pub factor: usize,
    pub diag: Vec<f64>,
    /// Entries off the diagonal, each once; `lead` and `other` are both the factor.
    pub pair: Pair,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub n: usize,
    /// Dense fixed columns kept (of `p_total`), in order.
    pub kept: Vec<usize>,
    pub dropped: Vec<usize>,
    /// Dense fixed columns: all but those of wide factors.
    pub p_total: usize,
    /// Grouping factors of the random effects, then the wide factors.
    pub factors: Vec<Factor>,
    pub pairs: Vec<Pair>,
    pub couplings: Vec<Coupling>,
    /// Fixed factors of many levels: nodes of the sparse system, without a penalty.
    pub wide: Vec<Wide>,
    /// The user's column of every dense one.
    pub columns: Vec<usize>,
    /// (p + 1) x (p + 1) cross-products of the kept columns and the response.
    pub xx: Vec<f64>,
    pub x_shift: Vec<f64>,
    pub y_shift: f64,
    /// Coefficients (over the dense columns) that make up the constant on which shifts are booked; all 0 where the
    /// levels of the first wide factor do.
    pub carrier: Option<Vec<f64>>,
    pub sum_log_w: f64,
    pub n_terms: usize,
    /// How many rows the rows stand for.
    pub total: f64,
    /// The residual variance, where it is known.
    pub variance: Option<f64>,
}

impl Moments {
    /// The pairs of different factors, then those of related levels: what edges of the graph point into.
    pub fn links(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().chain(self.couplings.iter().map(|c| &c.pair))
    }

    /// Whether the levels of a factor are related.
    pub fn coupled(&self, factor: usize) -> bool {
        self.couplings.iter().any(|c| c.factor == factor && !c.pair.level.is_empty())
    }

    /// Dense fixed columns kept.
    pub fn p(&self) -> usize {
        self.kept.len()
    }

    /// Rank of the whole fixed part.
    pub fn rank(&self) -> usize {
        self.p() + self.wide.iter().map(Wide::rank).sum::<usize>()
    }

    /// Grouping factors of random effects.
    pub fn random(&self) -> usize {
        self.factors.len() - self.wide.len()
    }

    /// Columns of the fixed part as the user sees it.
    pub fn user_columns(&self) -> usize {
        self.p_total + self.wide.iter().map(Wide::cols).sum::<usize>()
    }

    /// One pass over the rows.
    pub fn build(rows: &Rows<'_>) -> Result<Self, CoreError> {
        rows.check()?;
        let split = wide::split(rows)?;
        let out = Self::pass(&split, true, true)?;
        match &out.carrier {
            // Shifts are booked on the constant: if part of it was dropped, do without them.
            Some(c) if out.dropped.iter().any(|&j| c[j] != 0.0) => Self::pass(&split, false, true),
            _ => Ok(out),
        }
    }

    /// Factors and which of their levels meet, for somebody who fills the factors' cross-products, which are zero here.
    pub fn pattern(rows: &Rows<'_>) -> Result<Self, CoreError> {
        rows.check()?;
        Self::pass(&wide::split(rows)?, true, false)
    }

    fn pass(split: &wide::Split<'_>, shifted: bool, filled: bool) -> Result<Self, CoreError> {
        let rows = &split.rows;
        let plan = Plan::new(rows, shifted, wide::carries(&split.wide));
        let mut factors = merge_terms(rows);
        let sums = accumulate(rows, &plan, if filled { &factors } else { &[] });
        let pairs = build_pairs(rows, &factors)?;
        let p = rows.fixed_cols();
        let xx = plan.expand_xx(rows, &sums);
        if xx.iter().any(|v| !v.is_finite()) {
            return Err(CoreError::NotFinite(
                "a cross-product is not finite: NaN or infinity in the data, or values beyond 1e150".into(),
            ));
        }
        for (f, factor) in factors.iter_mut().enumerate() {
            factor.gram = vec![0.0; factor.levels * factor.cols * factor.cols];
            factor.zx = vec![0.0; factor.levels * factor.cols * (p + 1)];
            if filled {
                plan.expand_factor(rows, &sums, f, factor);
            }
        }
        let mut out = Moments {
            n: rows.n,
            kept: (0..p).collect(),
            dropped: vec![],
            p_total: p,
            couplings: couplings(rows, &factors),
            factors,
            pairs,
            wide: split.wide.clone(),
            columns: split.columns.clone(),
            xx,
            x_shift: plan.x_shift.clone(),
            y_shift: plan.y_shift,
            carrier: plan.carrier.clone(),
            sum_log_w: rows.weights.map_or(0.0, |w| w.iter().map(|w| w.ln()).sum()),
            n_terms: rows.terms.len() - split.wide.len(),
            total: rows.n as f64,
            variance: None,
        };
        out.pin();
        let given = linear::given_wide(&out)?;
        (out.kept, out.dropped) = independent_columns(&out.xx, given.as_ref().unwrap_or(&out.xx), p);
        out.drop_columns();
        Ok(out)
    }

    fn drop_columns(&mut self) {
        if self.dropped.is_empty() {
            return;
        }
        let (p0, p1) = (self.p_total + 1, self.p() + 1);
        let keep: Vec<usize> = self.kept.iter().copied().chain([self.p_total]).collect();
        let mut xx = vec![0.0; p1 * p1];
        for (j, &cj) in keep.iter().enumerate() {
            for (i, &ci) in keep.iter().enumerate() {
                xx[i + j * p1] = self.xx[ci + cj * p0];
            }
        }
        self.xx = xx;
        for f in &mut self.factors {
            f.zx = f.zx.chunks_exact(p0).flat_map(|row| keep.iter().map(|&c| row[c])).collect();
        }
    }

    /// The same design with another response (same rows, weights and offset).
    pub fn with_response(&self, rows: &Rows<'_>, y: &[f64]) -> Result<Self, CoreError> {
        let mut rows = wide::split(rows)?.rows;
        let by_levels = wide::carries(&self.wide);
        rows.y = y;
        if y.len() != rows.n {
            return shape(format!("response has {} values for {} rows", y.len(), rows.n));
        }
        let plan = Plan::new(&rows, self.carrier.is_some(), by_levels);
        let p = self.p();
        let p1 = p + 1;
        let mut out = self.clone();
        out.y_shift = plan.y_shift;
        let mut xy = vec![0.0; self.p_total + 1];
        for f in &mut out.factors {
            f.zx.chunks_exact_mut(p1).for_each(|r| r[p] = 0.0);
        }
        let x_cols: Vec<(usize, usize)> =
            rows.fixed.iter().enumerate().flat_map(|(b, bl)| (0..bl.cols).map(move |c| (b, c))).collect();
        let mut buf = vec![0.0; PANEL];
        let mut resp = vec![0.0; PANEL];
        let mut codes = vec![0i32; PANEL];
        for from in (0..rows.n).step_by(PANEL) {
            let m = PANEL.min(rows.n - from);
            for (r, v) in resp[..m].iter_mut().enumerate() {
                let i = from + r;
                let w = rows.weights.map_or(1.0, |w| w[i]);
                *v = w * (y[i] - rows.offset.map_or(0.0, |o| o[i]) - plan.y_shift);
                xy[self.p_total] += *v * *v / w;
            }
            for (j, &(b, c)) in x_cols.iter().enumerate() {
                rows.fixed[b].fill(c..c + 1, from, m, plan.x_shift[j], &mut buf, 1);
                xy[j] += buf[..m].iter().zip(&resp[..m]).map(|(a, b)| a * b).sum::<f64>();
            }
            for f in &mut out.factors {
                rows.terms[f.slots[0].term].codes.fill(from, &mut codes[..m]);
                for slot in &f.slots {
                    let mut col = slot.offset;
                    for block in &rows.terms[slot.term].blocks {
                        for c in 0..block.cols {
                            block.fill(c..c + 1, from, m, slot.shift[col - slot.offset], &mut buf, 1);
                            for r in 0..m {
                                f.zx[(codes[r] as usize * f.cols + col) * p1 + p] += buf[r] * resp[r];
                            }
                            col += 1;
                        }
                    }
                }
            }
        }
        for (j, &cj) in self.kept.iter().chain([&self.p_total]).enumerate() {
            out.xx[j + p * p1] = xy[cj];
            out.xx[p + j * p1] = xy[cj];
        }
        if xy.iter().any(|v| !v.is_finite()) {
            return Err(CoreError::NotFinite("the response holds NaN or infinity".into()));
        }
        out.pin();
        Ok(out)
    }
}

/// Which columns are evaluated densely, which by cells, and what is taken off them.
struct Plan<'a> {
    /// (block, column in block, column of X) of every dense fixed column; the response follows them.
    dense: Vec<(usize, usize, usize)>,
    /// (block, first column of X) of every fixed block kept as cells.
    coded: Vec<(usize, usize)>,
    x_shift: Vec<f64>,
    y_shift: f64,
    carrier: Option<Vec<f64>>,
    /// Per factor: (block, column in block, shift) of every column.
    z: Vec<Vec<(Block<'a>, usize, f64)>>,
    codes: Vec<Codes<'a>>,
}

/// Mean of at most 256 evenly spaced rows: enough to take off an offset, and free.
fn provisional_mean(n: usize, value: impl Fn(usize) -> f64) -> f64 {
    let m = n.min(256);
    let mean = (0..m).map(|k| value(k * (n / m))).sum::<f64>() / m as f64;
    if mean.is_finite() {
        mean
    } else {
        0.0
    }
}

impl<'a> Plan<'a> {
    fn new(rows: &Rows<'a>, shifted: bool, by_levels: bool) -> Self {
        let p = rows.fixed_cols();
        let (mut dense, mut coded, mut first) = (vec![], vec![], 0);
        let mut carrier = None;
        for (b, block) in rows.fixed.iter().enumerate() {
            if block.cols > DENSE_CONTRAST {
                coded.push((b, first));
            } else {
                dense.extend((0..block.cols).map(|c| (b, c, first + c)));
            }
            if shifted && carrier.is_none() && (block.is_intercept() || block.is_cell_means()) {
                let mut c = vec![0.0; p];
                c[first..first + block.cols].fill(1.0);
                carrier = Some(c);
            }
            first += block.cols;
        }
        if shifted && by_levels && carrier.is_none() {
            carrier = Some(vec![0.0; p]);
        }
        let mut x_shift = vec![0.0; p];
        let mut y_shift = 0.0;
        if carrier.is_some() {
            for &(b, _, j) in &dense {
                if let (None, Some(x)) = (&rows.fixed[b].codes, &rows.fixed[b].x) {
                    x_shift[j] = provisional_mean(rows.n, |i| x.get(i));
                }
            }
            y_shift = provisional_mean(rows.n, |i| rows.y[i] - rows.offset.map_or(0.0, |o| o[i]));
        }
        let factors = merge_terms(rows);
        let z = factors
            .iter()
            .map(|f| {
                let mut cols = vec![];
                for slot in &f.slots {
                    let mut k = 0;
                    for block in &rows.terms[slot.term].blocks {
                        for c in 0..block.cols {
                            cols.push((*block, c, slot.shift[k]));
                            k += 1;
                        }
                    }
                }
                cols
            })
            .collect();
        let codes = factors.iter().map(|f| rows.terms[f.slots[0].term].codes).collect();
        Plan { dense, coded, x_shift, y_shift, carrier, z, codes }
    }

    fn nd(&self) -> usize {
        self.dense.len() + 1
    }

    /// Cross-products of all fixed columns and the response from the raw sums.
    fn expand_xx(&self, rows: &Rows<'_>, s: &Sums) -> Vec<f64> {
        let p = rows.fixed_cols();
        let p1 = p + 1;
        let nd = self.nd();
        let mut xx = vec![0.0; p1 * p1];
        let at = |d: usize| if d + 1 == nd { p } else { self.dense[d].2 };
        for i in 0..nd {
            for j in 0..nd {
                xx[at(i) + at(j) * p1] = s.dd[i.max(j) + i.min(j) * nd];
            }
        }
        for (c, &(b, first)) in self.coded.iter().enumerate() {
            let block = &rows.fixed[b];
            for l in 0..block.levels {
                for m in 0..block.cols {
                    let k = block.contrast[l * block.cols + m];
                    if k != 0.0 {
                        for d in 0..nd {
                            xx[first + m + at(d) * p1] += k * s.cd[c][l * nd + d];
                        }
                    }
                }
            }
            for m in 0..block.cols {
                for d in 0..nd {
                    xx[at(d) + (first + m) * p1] = xx[first + m + at(d) * p1];
                }
            }
            for (c2, &(b2, first2)) in self.coded.iter().enumerate().skip(c) {
                let other = &rows.fixed[b2];
                let t = contract(block, other, &s.cc[c][c2 - c], c == c2);
                for i in 0..block.cols {
                    for j in 0..other.cols {
                        xx[first + i + (first2 + j) * p1] = t[i * other.cols + j];
                        xx[first2 + j + (first + i) * p1] = t[i * other.cols + j];
                    }
                }
            }
        }
        xx
    }

    fn expand_factor(&self, rows: &Rows<'_>, s: &Sums, f: usize, factor: &mut Factor) {
        let (k, nd, p1) = (factor.cols, self.nd(), rows.fixed_cols() + 1);
        let stride = slot_stride(k, nd);
        for l in 0..factor.levels {
            let slot = &s.slots[f][l * stride..(l + 1) * stride];
            let gram = &mut factor.gram[l * k * k..(l + 1) * k * k];
            let mut t = k * nd;
            for a in 0..k {
                for b in 0..=a {
                    gram[a + b * k] = slot[t];
                    gram[b + a * k] = slot[t];
                    t += 1;
                }
                let zx = &mut factor.zx[(l * k + a) * p1..][..p1];
                let row = &slot[a * nd..(a + 1) * nd];
                for (d, &(_, _, j)) in self.dense.iter().enumerate() {
                    zx[j] = row[d];
                }
                zx[p1 - 1] = row[nd - 1];
                for (c, &(b, first)) in self.coded.iter().enumerate() {
                    let block = &rows.fixed[b];
                    let cells = &s.zc[f][c][(l * k + a) * block.levels..][..block.levels];
                    for (cell, contrast) in cells.iter().zip(block.contrast.chunks_exact(block.cols)) {
                        if *cell != 0.0 {
                            for (o, v) in zx[first..first + block.cols].iter_mut().zip(contrast) {
                                *o += cell * v;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// C' T C2 for cell sums T of two coded blocks (only the diagonal is kept when they are the same).
fn contract(a: &Block<'_>, b: &Block<'_>, t: &[f64], same: bool) -> Vec<f64> {
    let mut half = vec![0.0; a.levels * b.cols];
    for l in 0..a.levels {
        let out = &mut half[l * b.cols..(l + 1) * b.cols];
        let cells = if same { l..l + 1 } else { 0..b.levels };
        for m in cells {
            let v = if same { t[l] } else { t[l * b.levels + m] };
            if v != 0.0 {
                for (o, c) in out.iter_mut().zip(&b.contrast[m * b.cols..(m + 1) * b.cols]) {
                    *o += v * c;
                }
            }
        }
    }
    let mut out = vec![0.0; a.cols * b.cols];
    for l in 0..a.levels {
        for i in 0..a.cols {
            let c = a.contrast[l * a.cols + i];
            if c != 0.0 {
                for j in 0..b.cols {
                    out[i * b.cols + j] += c * half[l * b.cols + j];
                }
            }
        }
    }
    out
}

fn slot_stride(k: usize, nd: usize) -> usize {
    k * nd + k * (k + 1) / 2
}

/// Terms with one grouping factor become one factor with their columns side by side.
fn merge_terms(rows: &Rows<'_>) -> Vec<Factor> {
    let mut factors: Vec<Factor> = vec![];
    for (t, term) in rows.terms.iter().enumerate() {
        let cols = term.cols();
        let (shift, carrier) = term_shift(rows.n, t, rows);
        let found = factors.iter().position(|f| rows.terms[f.slots[0].term].same_grouping(term));
        let f = match found {
            Some(f) => f,
            None => {
                factors.push(Factor { levels: term.levels, cols: 0, slots: vec![], gram: vec![], zx: vec![] });
                factors.len() - 1
            }
        };
        let offset = factors[f].cols;
        factors[f].slots.push(TermSlot { term: t, offset, cols, structure: term.structure, shift, carrier });
        factors[f].cols += cols;
    }
    factors
}

fn couplings(rows: &Rows<'_>, factors: &[Factor]) -> Vec<Coupling> {
    let of = |(factor, f): (usize, &Factor)| {
        let r = rows.terms[f.slots[0].term].relation?;
        let pair = Pair {
            lead: factor,
            other: factor,
            start: r.start.to_vec(),
            level: r.level.to_vec(),
            value: r.value.to_vec(),
        };
        Some(Coupling { factor, diag: r.diag.to_vec(), pair })
    };
    factors.iter().enumerate().filter_map(of).collect()
}

fn term_shift(n: usize, t: usize, rows: &Rows<'_>) -> (Vec<f64>, Option<usize>) {
    let term = &rows.terms[t];
    let mut shift = vec![0.0; term.cols()];
    let (mut col, mut carrier) = (0, None);
    for block in &term.blocks {
        if block.is_intercept() && carrier.is_none() {
            carrier = Some(col);
        }
        col += block.cols;
    }
    if term.structure != Structure::Unstructured || carrier.is_none() || term.joint {
        return (shift, None);
    }
    col = 0;
    for block in &term.blocks {
        if let (true, Some(x)) = (block.is_numeric(), &block.x) {
            shift[col] = provisional_mean(n, |i| x.get(i));
        }
        col += block.cols;
    }
    (shift, carrier)
}

/// Raw sums of one pass (or of one chunk of rows).
#[derive(Clone)]
struct Sums {
    /// Lower triangle of the dense cross-products, nd x nd column-major.
    dd: Vec<f64>,
    /// Per coded block: levels x nd.
    cd: Vec<Vec<f64>>,
    /// Per pair of coded blocks (c, c2 >= c): cell sums.
    cc: Vec<Vec<Vec<f64>>>,
    /// Per factor: levels x stride (k rows of nd products, then the lower triangle of the Gram matrix).
    slots: Vec<Vec<f64>>,
    /// Per factor and coded block: (levels k) x cells.
    zc: Vec<Vec<Vec<f64>>>,
}

impl Sums {
    fn zero(rows: &Rows<'_>, plan: &Plan<'_>, factors: &[Factor]) -> Self {
        let nd = plan.nd();
        let levels = |c: usize| rows.fixed[plan.coded[c].0].levels;
        let m = plan.coded.len();
        Sums {
            dd: vec![0.0; nd * nd],
            cd: (0..m).map(|c| vec![0.0; levels(c) * nd]).collect(),
            cc: (0..m)
                .map(|c| (c..m).map(|c2| vec![0.0; levels(c) * if c == c2 { 1 } else { levels(c2) }]).collect())
                .collect(),
            slots: factors.iter().map(|f| vec![0.0; f.levels * slot_stride(f.cols, nd)]).collect(),
            zc: factors.iter().map(|f| (0..m).map(|c| vec![0.0; f.levels * f.cols * levels(c)]).collect()).collect(),
        }
    }

    fn size(&self) -> usize {
        self.parts().map(|v| v.len()).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &Vec<f64>> {
        std::iter::once(&self.dd)
            .chain(&self.cd)
            .chain(self.cc.iter().flatten())
            .chain(&self.slots)
            .chain(self.zc.iter().flatten())
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Vec<f64>> {
        std::iter::once(&mut self.dd)
            .chain(&mut self.cd)
            .chain(self.cc.iter_mut().flatten())
            .chain(&mut self.slots)
            .chain(self.zc.iter_mut().flatten())
    }

    fn add(&mut self, other: &Sums) {
        for (a, b) in self.parts_mut().zip(other.parts()) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
    }
}

/// Sums over all rows; the number of chunks depends on the data only, so the result does not depend on the threads.
fn accumulate(rows: &Rows<'_>, plan: &Plan<'_>, factors: &[Factor]) -> Sums {
    let mut total = Sums::zero(rows, plan, factors);
    let chunks = (rows.n / (32_768 + 4 * total.size())).clamp(1, 4);
    let bounds: Vec<usize> = (0..=chunks).map(|c| rows.n * c / chunks).collect();
    if chunks == 1 {
        accumulate_range(rows, plan, factors, 0, rows.n, &mut total);
        return total;
    }
    let parts: Vec<Sums> = (0..chunks)
        .into_par_iter()
        .map(|c| {
            let mut s = Sums::zero(rows, plan, factors);
            accumulate_range(rows, plan, factors, bounds[c], bounds[c + 1], &mut s);
            s
        })
        .collect();
    parts.iter().for_each(|p| total.add(p));
    total
}

fn accumulate_range(rows: &Rows<'_>, plan: &Plan<'_>, factors: &[Factor], from: usize, to: usize, s: &mut Sums) {
    let nd = plan.nd();
    let mut dbuf = vec![0.0; PANEL * nd];
    let mut zbuf: Vec<Vec<f64>> = factors.iter().map(|f| vec![0.0; PANEL * f.cols]).collect();
    let mut codes: Vec<Vec<i32>> = vec![vec![0; PANEL]; factors.len()];
    let mut cell_codes: Vec<Vec<i32>> = vec![vec![0; PANEL]; plan.coded.len()];
    let mut cell_x: Vec<Vec<f64>> = vec![vec![1.0; PANEL]; plan.coded.len()];
    let mut sw = vec![1.0; PANEL];
    let mut start = from;
    while start < to {
        let m = PANEL.min(to - start);
        let mut d = 0;
        for columns in plan.dense.chunk_by(|before, (b, ..)| before.0 == *b) {
            let (b, _, j) = columns[0];
            rows.fixed[b].fill(0..columns.len(), start, m, plan.x_shift[j], &mut dbuf[d..], nd);
            d += columns.len();
        }
        for r in 0..m {
            let i = start + r;
            dbuf[r * nd + nd - 1] = rows.y[i] - rows.offset.map_or(0.0, |o| o[i]) - plan.y_shift;
        }
        for (f, factor) in factors.iter().enumerate() {
            let mut a = 0;
            for columns in plan.z[f].chunk_by(|_, (_, c, _)| *c > 0) {
                let (block, _, shift) = &columns[0];
                block.fill(0..columns.len(), start, m, *shift, &mut zbuf[f][a..], factor.cols);
                a += columns.len();
            }
            plan.codes[f].fill(start, &mut codes[f][..m]);
        }
        for (c, &(b, _)) in plan.coded.iter().enumerate() {
            let block = &rows.fixed[b];
            if let Some(code) = &block.codes {
                code.fill(start, &mut cell_codes[c][..m]);
            }
            match &block.x {
                Some(x) => x.fill(start, m, 0.0, &mut cell_x[c], 1),
                None => cell_x[c].fill(1.0),
            }
        }
        if let Some(w) = rows.weights {
            sw.iter_mut().zip(&w[start..start + m]).for_each(|(s, w)| *s = w.sqrt());
            scale_rows(&mut dbuf, nd, &sw[..m]);
            for (f, factor) in factors.iter().enumerate() {
                scale_rows(&mut zbuf[f], factor.cols, &sw[..m]);
            }
            for x in &mut cell_x {
                scale_rows(x, 1, &sw[..m]);
            }
        }
        dense_products(&mut s.dd, &dbuf, nd, m);
        for (f, factor) in factors.iter().enumerate() {
            level_products(&mut s.slots[f], &codes[f][..m], &zbuf[f], factor.cols, &dbuf, nd);
            for c in 0..plan.coded.len() {
                let cells = rows.fixed[plan.coded[c].0].levels;
                let zc = &mut s.zc[f][c];
                for r in 0..m {
                    for a in 0..factor.cols {
                        let at = (codes[f][r] as usize * factor.cols + a) * cells + cell_codes[c][r] as usize;
                        zc[at] += zbuf[f][r * factor.cols + a] * cell_x[c][r];
                    }
                }
            }
        }
        for c in 0..plan.coded.len() {
            for r in 0..m {
                let (l, x) = (cell_codes[c][r] as usize, cell_x[c][r]);
                let out = &mut s.cd[c][l * nd..(l + 1) * nd];
                out.iter_mut().zip(&dbuf[r * nd..(r + 1) * nd]).for_each(|(o, d)| *o += x * d);
                s.cc[c][0][l] += x * x;
                for c2 in c + 1..plan.coded.len() {
                    let levels2 = rows.fixed[plan.coded[c2].0].levels;
                    s.cc[c][c2 - c][l * levels2 + cell_codes[c2][r] as usize] += x * cell_x[c2][r];
                }
            }
        }
        start += m;
    }
}

fn scale_rows(buf: &mut [f64], width: usize, sw: &[f64]) {
    for (row, s) in buf.chunks_exact_mut(width).zip(sw) {
        row.iter_mut().for_each(|v| *v *= s);
    }
}

/// Lower triangle of the dense cross-products of a panel.
fn dense_products(dd: &mut [f64], d: &[f64], nd: usize, m: usize) {
    fn fixed<const N: usize>(dd: &mut [f64], d: &[f64], m: usize) {
        let mut acc = [[0.0f64; N]; N];
        for row in d[..m * N].chunks_exact(N) {
            for (a, acc) in acc.iter_mut().enumerate() {
                for (b, acc) in acc.iter_mut().enumerate() {
                    *acc += row[a] * row[b];
                }
            }
        }
        for j in 0..N {
            for i in j..N {
                dd[i + j * N] += acc[i][j];
            }
        }
    }
    match nd {
        1 => fixed::<1>(dd, d, m),
        2 => fixed::<2>(dd, d, m),
        3 => fixed::<3>(dd, d, m),
        4 => fixed::<4>(dd, d, m),
        5 => fixed::<5>(dd, d, m),
        6 => fixed::<6>(dd, d, m),
        _ => dense::syrk_rows(dd, nd, d, nd, m, 1.0),
    }
}

/// Add z_a d_j and z_a z_b of every row to the slot of its level.
fn level_products(slots: &mut [f64], codes: &[i32], z: &[f64], k: usize, d: &[f64], nd: usize) {
    fn fixed<const K: usize, const N: usize>(slots: &mut [f64], codes: &[i32], z: &[f64], d: &[f64]) {
        let stride = K * N + K * (K + 1) / 2;
        for ((&l, z), d) in codes.iter().zip(z.chunks_exact(K)).zip(d.chunks_exact(N)) {
            let slot = &mut slots[l as usize * stride..(l as usize + 1) * stride];
            for a in 0..K {
                for j in 0..N {
                    slot[a * N + j] += z[a] * d[j];
                }
            }
            let mut t = K * N;
            for a in 0..K {
                for b in 0..=a {
                    slot[t] += z[a] * z[b];
                    t += 1;
                }
            }
        }
    }
    macro_rules! pick {
        ($($k:literal, $n:literal);*) => {
            match (k, nd) {
                $(($k, $n) => return fixed::<$k, $n>(slots, codes, z, d),)*
                _ => {}
            }
        };
    }
    pick!(1, 1; 1, 2; 1, 3; 1, 4; 1, 5; 1, 6; 1, 7; 1, 8; 2, 2; 2, 3; 2, 4; 2, 5; 2, 6; 3, 3; 3, 4; 3, 5; 4, 5; 4, 6);
    let stride = slot_stride(k, nd);
    for ((&l, z), d) in codes.iter().zip(z.chunks_exact(k)).zip(d.chunks_exact(nd)) {
        let slot = &mut slots[l as usize * stride..(l as usize + 1) * stride];
        let (rows, gram) = slot.split_at_mut(k * nd);
        for (out, &za) in rows.chunks_exact_mut(nd).zip(z) {
            out.iter_mut().zip(d).for_each(|(o, dj)| *o += za * dj);
        }
        let mut t = 0;
        for a in 0..k {
            for b in 0..=a {
                gram[t] += z[a] * z[b];
                t += 1;
            }
        }
    }
}

/// Columns in order, each kept if it adds to those before it (as R does): (kept, dropped). `own` are the products of the
/// columns before anything was taken off them.
fn independent_columns(own: &[f64], xx: &[f64], p: usize) -> (Vec<usize>, Vec<usize>) {
    let ld = p + 1;
    let (mut kept, mut dropped): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
    // Rows of the factor of the kept columns, stored per column j: l[j] has one entry per kept column.
    let mut l: Vec<Vec<f64>> = vec![];
    for j in 0..p {
        let mut row = Vec::with_capacity(kept.len() + 1);
        for (t, &c) in kept.iter().enumerate() {
            let dot: f64 = row.iter().zip(&l[t]).map(|(a, b): (&f64, &f64)| a * b).sum();
            row.push((xx[j + c * ld] - dot) / l[t][t]);
        }
        let rest = xx[j + j * ld] - row.iter().map(|v| v * v).sum::<f64>();
        if rest > RANK_TOLERANCE * own[j + j * ld] && rest > 0.0 {
            row.push(rest.sqrt());
            l.push(row);
            kept.push(j);
        } else {
            dropped.push(j);
        }
    }
    (kept, dropped)
}

/// Sparse cross-products between every two factors.
fn build_pairs(rows: &Rows<'_>, factors: &[Factor]) -> Result<Vec<Pair>, CoreError> {
    let mut pairs = vec![];
    let mut sorted: Vec<Option<(Vec<u32>, Vec<u32>)>> = vec![None; factors.len()];
    for f in 0..factors.len() {
        for g in f + 1..factors.len() {
            let (lead, other) = if factors[f].levels >= factors[g].levels { (f, g) } else { (g, f) };
            let codes = &rows.terms[factors[lead].slots[0].term].codes;
            if sorted[lead].is_none() {
                sorted[lead] = Some(counting_sort(codes, rows.n, factors[lead].levels));
            }
            if let Some((start, order)) = &sorted[lead] {
                pairs.push(build_pair(rows, factors, lead, other, start, order)?);
            }
        }
    }
    Ok(pairs)
}

/// Rows in the order of their level: (first position of every level, rows).
fn counting_sort(codes: &Codes<'_>, n: usize, levels: usize) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0u32; levels + 1];
    for i in 0..n {
        start[codes.get(i) as usize + 1] += 1;
    }
    for l in 0..levels {
        start[l + 1] += start[l];
    }
    let mut next = start.clone();
    let mut order = vec![0u32; n];
    for i in 0..n {
        let at = &mut next[codes.get(i) as usize];
        order[*at as usize] = i as u32;
        *at += 1;
    }
    (start, order)
}

fn only_intercept(rows: &Rows<'_>, factor: &Factor) -> bool {
    factor.cols == 1 && rows.terms[factor.slots[0].term].blocks[0].is_intercept()
}

fn build_pair(
    rows: &Rows<'_>,
    factors: &[Factor],
    lead: usize,
    other: usize,
    start: &[u32],
    order: &[u32],
) -> Result<Pair, CoreError> {
    let (fl, fo) = (&factors[lead], &factors[other]);
    let codes = &rows.terms[fo.slots[0].term].codes;
    let counts = rows.weights.is_none() && only_intercept(rows, fl) && only_intercept(rows, fo);
    let size = fl.cols * fo.cols;
    let columns = |f: &Factor| -> Vec<(Block<'_>, usize, f64)> {
        let mut out = vec![];
        for slot in &f.slots {
            let mut k = 0;
            for block in &rows.terms[slot.term].blocks {
                for c in 0..block.cols {
                    out.push((*block, c, slot.shift[k]));
                    k += 1;
                }
            }
        }
        out
    };
    let (zl, zo) = (columns(fl), columns(fo));
    let chunks = if rows.n > 100_000 { 8 } else { 1 };
    let bounds: Vec<usize> = (0..=chunks).map(|c| fl.levels * c / chunks).collect();
    let part = |c: usize| {
        let mut mark = vec![u32::MAX; fo.levels];
        let mut place = vec![0u32; fo.levels];
        let (mut ends, mut level, mut value): (Vec<u32>, Vec<u32>, Vec<f64>) = (vec![], vec![], vec![]);
        let (mut vl, mut vo) = (vec![0.0; fl.cols], vec![0.0; fo.cols]);
        for l in bounds[c]..bounds[c + 1] {
            for &i in &order[start[l] as usize..start[l + 1] as usize] {
                let i = i as usize;
                let m = codes.get(i) as usize;
                if mark[m] != l as u32 {
                    mark[m] = l as u32;
                    place[m] = level.len() as u32;
                    level.push(m as u32);
                    value.resize(value.len() + size, 0.0);
                }
                let at = place[m] as usize * size;
                if counts {
                    value[at] += 1.0;
                    continue;
                }
                let w = rows.weights.map_or(1.0, |w| w[i]);
                for (v, (b, c, s)) in vl.iter_mut().zip(&zl) {
                    *v = w * (b.value(i, *c) - s);
                }
                for (v, (b, c, s)) in vo.iter_mut().zip(&zo) {
                    *v = b.value(i, *c) - s;
                }
                for (j, b) in vo.iter().enumerate() {
                    for (i, a) in vl.iter().enumerate() {
                        value[at + i + j * fl.cols] += a * b;
                    }
                }
            }
            ends.push(level.len() as u32);
        }
        (ends, level, value)
    };
    let parts: Vec<_> = if chunks == 1 { vec![part(0)] } else { (0..chunks).into_par_iter().map(part).collect() };
    let mut pair = Pair { lead, other, start: vec![0], level: vec![], value: vec![] };
    for (ends, level, value) in parts {
        let base = pair.level.len();
        if base + level.len() > u32::MAX as usize {
            return shape("more than 2^32 pairs of levels");
        }
        pair.start.extend(ends.iter().map(|e| e + base as u32));
        pair.level.extend(level);
        pair.value.extend(value);
    }
    Ok(pair)
}
