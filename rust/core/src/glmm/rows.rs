//! Passes over the rows: derivatives of the log density, scattered into the cross-products that the mode needs.

use rayon::prelude::*;

use crate::design::{Block, Codes, Moments, Rows, Term};
use crate::error::shape;
use crate::family::{Data, Family};
use crate::jet::pair as packed;
use crate::structure::Pattern;
use crate::CoreError;

const PANEL: usize = 256;
/// A coded fixed block with more columns than this enters row by row, by its non-zero contrasts only.
const DENSE_CONTRAST: usize = 6;
/// Most predictors a family has.
pub const MAX_K: usize = 4;

/// A block of fixed columns and the index of its first coefficient; blocks with equal `first` share coefficients.
#[derive(Clone, Debug)]
pub struct Fixed<'a> {
    pub block: Block<'a>,
    pub first: usize,
}

/// One linear predictor.
#[derive(Clone, Debug)]
pub struct Component<'a> {
    pub fixed: Vec<Fixed<'a>>,
    pub offset: Option<&'a [f64]>,
}

/// Everything the core is told about the rows.
#[derive(Clone)]
pub struct GlmmRows<'a> {
    pub n: usize,
    pub components: Vec<Component<'a>>,
    pub p: usize,
    pub terms: Vec<Term<'a>>,
    /// Component that each term belongs to.
    pub owner: Vec<usize>,
    /// The covariance structure of terms that are `Structure::Patterned`.
    pub patterns: Vec<Option<Pattern>>,
    pub data: Data<'a>,
    pub weights: Option<&'a [f64]>,
}

impl<'a> GlmmRows<'a> {
    pub fn check(&self, k: usize) -> Result<(), CoreError> {
        if self.components.len() != k {
            return shape(format!("the family has {k} parameters, {} components were given", self.components.len()));
        }
        if self.owner.len() != self.terms.len() || self.owner.iter().any(|&c| c >= k) {
            return shape("every random term needs a component");
        }
        for c in &self.components {
            for f in &c.fixed {
                f.block.check(self.n, "fixed block")?;
                if f.first + f.block.cols > self.p {
                    return shape("a fixed block goes beyond the coefficients");
                }
            }
            if c.offset.is_some_and(|o| o.len() != self.n) {
                return shape("offset has the wrong length");
            }
            if let Some(i) = c.offset.and_then(|o| o.iter().position(|v| !v.is_finite())) {
                return Err(CoreError::NotFinite(format!("offset of row {i} is not finite")));
            }
        }
        self.pattern_rows().check()
    }

    /// The random terms as rows of a linear model without fixed effects: gives the pattern of Z'WZ.
    pub fn pattern_rows(&self) -> Rows<'a> {
        Rows {
            n: self.n,
            fixed: vec![],
            terms: self.terms.clone(),
            y: self.data.y,
            weights: self.weights,
            offset: None,
        }
    }
}

/// A dense fixed column: its value is (block - shift) * scale.
#[derive(Clone, Debug)]
struct XColumn {
    block: usize,
    col: usize,
    coef: usize,
    shift: f64,
    scale: f64,
}

/// A coded fixed block entered by its non-zero contrasts: (coefficient, value) by level.
#[derive(Clone, Debug)]
struct XSparse {
    block: usize,
    start: Vec<u32>,
    entry: Vec<(u32, f64)>,
}

#[derive(Clone, Debug, Default)]
struct XPlan {
    dense: Vec<XColumn>,
    sparse: Vec<XSparse>,
    /// The first coefficient of the dense columns, where they follow each other without a gap.
    first: Option<usize>,
}

impl XPlan {
    fn new(dense: Vec<XColumn>, sparse: Vec<XSparse>) -> Self {
        let start = dense.first().map_or(0, |c| c.coef);
        let gapless = dense.iter().enumerate().all(|(i, c)| c.coef == start + i);
        XPlan { dense, sparse, first: gapless.then_some(start) }
    }

    /// out[coefficients] += w x.
    #[inline]
    fn add(&self, out: &mut [f64], w: f64, x: &[f64]) {
        match self.first {
            Some(first) => out[first..first + x.len()].iter_mut().zip(x).for_each(|(o, x)| *o += w * x),
            None => self.dense.iter().zip(x).for_each(|(c, x)| out[c.coef] += w * x),
        }
    }

    #[inline]
    fn dot(&self, beta: &[f64], x: &[f64]) -> f64 {
        match self.first {
            Some(first) => beta[first..first + x.len()].iter().zip(x).map(|(b, x)| b * x).sum(),
            None => self.dense.iter().zip(x).map(|(c, x)| beta[c.coef] * x).sum(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct ZColumn {
    term: usize,
    block: usize,
    col: usize,
    shift: f64,
    pub component: usize,
}

#[derive(Clone, Debug)]
pub struct ZFactor {
    pub term: usize,
    pub levels: usize,
    pub columns: Vec<ZColumn>,
    /// One column of ones.
    intercept: bool,
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
    x: Vec<XPlan>,
    pub z: Vec<ZFactor>,
    /// For every pair of factors, the entry of each row.
    entry: Vec<Vec<u32>>,
    pub pair_of: Vec<(usize, usize)>,
}

/// Mean and root mean square deviation of at most 256 evenly spaced values.
fn provisional(n: usize, value: impl Fn(usize) -> f64) -> (f64, f64) {
    let m = n.min(256);
    let at = |k: usize| value(k * (n / m));
    let mean = (0..m).map(at).sum::<f64>() / m as f64;
    let ms = (0..m).map(|k| (at(k) - mean).powi(2)).sum::<f64>() / m as f64;
    (if mean.is_finite() { mean } else { 0.0 }, if ms.is_finite() { ms.sqrt() } else { 0.0 })
}

impl Plan {
    /// Plan of the passes, and the pattern of the random effects' cross-products.
    pub fn new(rows: &GlmmRows<'_>, k: usize) -> Result<(Self, Moments), CoreError> {
        rows.check(k)?;
        let moments = Moments::build(&rows.pattern_rows())?;
        let (shared, mut drop) = (shared_coefficients(rows), vec![false; rows.p]);
        for c in &rows.components {
            for j in dependent(rows, c)? {
                drop[j] = !shared[j];
            }
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
        Ok((out, moments))
    }

    fn add_component(&mut self, rows: &GlmmRows<'_>, c: &Component<'_>, shared: &[bool]) {
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

    fn internal(&self, j: usize) -> usize {
        self.kept.partition_point(|&k| k < j)
    }
}

fn shared_coefficients(rows: &GlmmRows<'_>) -> Vec<bool> {
    let mut count = vec![0u32; rows.p];
    for f in rows.components.iter().flat_map(|c| &c.fixed) {
        (f.first..f.first + f.block.cols).for_each(|j| count[j] += 1);
    }
    count.iter().map(|&c| c > 1).collect()
}

/// Coefficients of one component whose columns are linear combinations of those before them.
fn dependent(rows: &GlmmRows<'_>, c: &Component<'_>) -> Result<Vec<usize>, CoreError> {
    if c.fixed.is_empty() || (c.fixed.len() == 1 && c.fixed[0].block.is_intercept()) {
        return Ok(vec![]);
    }
    let fixed: Vec<Block<'_>> = c.fixed.iter().map(|f| f.block).collect();
    let coef: Vec<usize> = c.fixed.iter().flat_map(|f| f.first..f.first + f.block.cols).collect();
    let only = Rows { n: rows.n, fixed, terms: vec![], y: rows.data.y, weights: None, offset: None };
    Ok(Moments::build(&only)?.dropped.iter().map(|&j| coef[j]).collect())
}

fn sparse_block(b: usize, f: &Fixed<'_>, internal: &[usize]) -> XSparse {
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

fn z_factor(rows: &GlmmRows<'_>, f: &crate::design::Factor) -> ZFactor {
    let mut columns = vec![];
    for slot in &f.slots {
        let mut k = 0;
        for (b, block) in rows.terms[slot.term].blocks.iter().enumerate() {
            for col in 0..block.cols {
                let component = rows.owner[slot.term];
                columns.push(ZColumn { term: slot.term, block: b, col, shift: slot.shift[k], component });
                k += 1;
            }
        }
    }
    let intercept = columns.len() == 1 && rows.terms[columns[0].term].blocks[0].is_intercept();
    ZFactor { term: f.slots[0].term, levels: f.levels, columns, intercept }
}

/// Entry of `pair` that each row belongs to.
fn row_entries(rows: &GlmmRows<'_>, m: &Moments, pair: &crate::design::Pair) -> Vec<u32> {
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

fn sort_rows(codes: &Codes<'_>, n: usize, levels: usize) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0u32; levels + 1];
    (0..n).for_each(|i| start[codes.get(i) as usize + 1] += 1);
    (0..levels).for_each(|l| start[l + 1] += start[l]);
    let (mut next, mut order) = (start.clone(), vec![0u32; n]);
    for i in 0..n {
        let at = &mut next[codes.get(i) as usize];
        order[*at as usize] = i as u32;
        *at += 1;
    }
    (start, order)
}

fn packed3(k: usize) -> Vec<usize> {
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

/// What a pass leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// -log f only.
    Value,
    /// Gradient and curvature in the random effects.
    Newton,
    /// The same with every row's curvature made positive.
    Convex,
    /// Also everything that concerns the fixed effects.
    Joint,
    /// And the third derivatives.
    Full,
}

/// Sums over rows. `zg` = Z'D1, `xg` = X'D1; Gram matrices are those of `Moments`.
pub struct Sums {
    pub value: f64,
    pub xg: Vec<f64>,
    pub xx: Vec<f64>,
    pub zg: Vec<Vec<f64>>,
    pub gram: Vec<Vec<f64>>,
    pub pairs: Vec<Vec<f64>>,
    pub zx: Vec<Vec<f64>>,
}

impl Sums {
    fn zero(plan: &Plan, m: &Moments, want: Want) -> Self {
        let full = matches!(want, Want::Full | Want::Joint);
        let newton = want != Want::Value;
        let p = if full { plan.p() } else { 0 };
        let sized = |on: bool, n: usize| vec![0.0; if on { n } else { 0 }];
        Sums {
            value: 0.0,
            xg: vec![0.0; p],
            xx: vec![0.0; p * p],
            zg: m.factors.iter().map(|f| sized(newton, f.levels * f.cols)).collect(),
            gram: m.factors.iter().map(|f| sized(newton, f.levels * f.cols * f.cols)).collect(),
            pairs: m.pairs.iter().map(|p| sized(newton, p.value.len())).collect(),
            zx: m.factors.iter().map(|f| sized(full, f.levels * f.cols * (p + 1))).collect(),
        }
    }

    fn parts(&self) -> impl Iterator<Item = &Vec<f64>> {
        [&self.xg, &self.xx].into_iter().chain(&self.zg).chain(&self.gram).chain(&self.pairs).chain(&self.zx)
    }

    fn size(&self) -> usize {
        self.parts().map(|v| v.len()).sum()
    }

    fn add(&mut self, other: &Sums) {
        self.value += other.value;
        let mine = [&mut self.xg, &mut self.xx].into_iter();
        let mine = mine.chain(&mut self.zg).chain(&mut self.gram).chain(&mut self.pairs).chain(&mut self.zx);
        for (a, b) in mine.zip(other.parts()) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
    }
}

/// X'a and Z'a for one number a row and predictor.
pub struct Adjoint {
    pub x: Vec<f64>,
    pub z: Vec<Vec<f64>>,
}

/// Blocks of Lambda H^-1 Lambda' at the levels and the pairs of levels that occur, and the part of integrated fixed
/// effects.
pub struct Covariance {
    pub diag: Vec<Vec<f64>>,
    pub pairs: Vec<Vec<f64>>,
    pub restricted: Option<Restricted>,
}

/// What integrating out some fixed effects adds: rows of (X - B H^-1 B'D2X) L_X^-T, with L_X L_X' = X'V^-1X.
pub struct Restricted {
    /// Position of every coefficient among the integrated ones.
    pub position: Vec<Option<usize>>,
    /// Cholesky factor of X'V^-1X of the integrated coefficients.
    pub lx: Vec<f64>,
    /// Lambda H^-1 B'D2X L_X^-T by factor, levels x cols x r.
    pub by_level: Vec<Vec<f64>>,
}

impl Restricted {
    fn len(&self) -> usize {
        (self.lx.len() as f64).sqrt().round() as usize
    }

    /// Rows w_a of one data row, K x r; S_ab gains w_a'w_b.
    fn row(
        &self,
        plan: &Plan,
        panel: &Panel,
        rows: &GlmmRows<'_>,
        i: usize,
        r: usize,
        entries: &mut Vec<(u32, f64)>,
        w: &mut [f64],
    ) {
        let n = self.len();
        w.fill(0.0);
        for (a, xp) in plan.x.iter().enumerate() {
            let out = &mut w[a * n..(a + 1) * n];
            let d = xp.dense.len();
            for (col, x) in xp.dense.iter().zip(&panel.x[a][r * d..(r + 1) * d]) {
                if let Some(p) = self.position[col.coef] {
                    out[p] += x;
                }
            }
            if !xp.sparse.is_empty() {
                sparse_entries(xp, &rows.components[a], i, entries);
                for &(j, x) in entries.iter() {
                    if let Some(p) = self.position[j as usize] {
                        out[p] += x;
                    }
                }
            }
            if out.iter().any(|v| *v != 0.0) {
                crate::dense::solve_left_l(&self.lx, n, n, out, 1, n);
            }
        }
        for (f, zf) in plan.z.iter().enumerate() {
            let cols = zf.columns.len();
            let l = panel.codes[f][r] as usize;
            for (c, col) in zf.columns.iter().enumerate() {
                let z = panel.z[f][r * cols + c];
                let e = &self.by_level[f][(l * cols + c) * n..(l * cols + c + 1) * n];
                let out = &mut w[col.component * n..(col.component + 1) * n];
                out.iter_mut().zip(e).for_each(|(o, e)| *o -= z * e);
            }
        }
    }
}

fn chunk_bounds(n: usize, size: usize) -> Vec<usize> {
    let chunks = (n / (4_096 + 2 * size)).clamp(1, 4);
    (0..=chunks).map(|c| n * c / chunks).collect()
}

/// Values of one panel of rows.
struct Panel {
    x: Vec<Vec<f64>>,
    z: Vec<Vec<f64>>,
    codes: Vec<Vec<i32>>,
    eta: Vec<f64>,
    out: Vec<f64>,
}

impl Panel {
    fn new(plan: &Plan, stride: usize) -> Self {
        Panel {
            x: plan.x.iter().map(|x| vec![0.0; PANEL * x.dense.len()]).collect(),
            z: plan.z.iter().map(|f| vec![1.0; PANEL * f.columns.len()]).collect(),
            codes: plan.z.iter().map(|_| vec![0; PANEL]).collect(),
            eta: vec![0.0; PANEL * plan.k],
            out: vec![0.0; PANEL * stride],
        }
    }

    fn fill_x(&mut self, plan: &Plan, rows: &GlmmRows<'_>, from: usize, m: usize) {
        for (k, xp) in plan.x.iter().enumerate() {
            let d = xp.dense.len();
            for (c, col) in xp.dense.iter().enumerate() {
                let block = &rows.components[k].fixed[col.block].block;
                block.fill(col.col, from, m, col.shift, &mut self.x[k][c..], d);
                if col.scale != 1.0 {
                    self.x[k][c..].iter_mut().step_by(d).take(m).for_each(|v| *v *= col.scale);
                }
            }
        }
    }

    fn fill_z(&mut self, plan: &Plan, rows: &GlmmRows<'_>, from: usize, m: usize) {
        for (f, zf) in plan.z.iter().enumerate() {
            rows.terms[zf.term].codes.fill(from, &mut self.codes[f][..m]);
            if zf.intercept {
                continue;
            }
            let k = zf.columns.len();
            for (c, col) in zf.columns.iter().enumerate() {
                rows.terms[col.term].blocks[col.block].fill(col.col, from, m, col.shift, &mut self.z[f][c..], k);
            }
        }
    }
}

/// Entries (coefficient, value) of the sparse fixed blocks of one predictor in one row.
fn sparse_entries(plan: &XPlan, c: &Component<'_>, i: usize, out: &mut Vec<(u32, f64)>) {
    out.clear();
    for s in &plan.sparse {
        let block = &c.fixed[s.block].block;
        if let Some(codes) = &block.codes {
            let l = codes.get(i) as usize;
            let x = block.x.map_or(1.0, |x| x.get(i));
            out.extend(s.entry[s.start[l] as usize..s.start[l + 1] as usize].iter().map(|&(j, v)| (j, v * x)));
        }
    }
}

/// The part of the predictors that does not depend on the random effects, row-major n x K.
pub fn fixed_part(plan: &Plan, rows: &GlmmRows<'_>, beta: &[f64], out: &mut Vec<f64>) {
    let k = plan.k;
    out.resize(rows.n * k, 0.0);
    let bounds = chunk_bounds(rows.n, 0);
    let mut pieces = vec![];
    let mut rest: &mut [f64] = out;
    for w in bounds.windows(2) {
        let (head, tail) = rest.split_at_mut((w[1] - w[0]) * k);
        pieces.push((w[0], head));
        rest = tail;
    }
    let run = |(first, out): (usize, &mut [f64])| {
        let mut panel = Panel::new(plan, 0);
        let mut entries = vec![];
        let n = out.len() / k;
        for from in (0..n).step_by(PANEL) {
            let m = PANEL.min(n - from);
            panel.fill_x(plan, rows, first + from, m);
            for r in 0..m {
                let i = first + from + r;
                for (c, xp) in plan.x.iter().enumerate() {
                    let d = xp.dense.len();
                    let x = &panel.x[c][r * d..(r + 1) * d];
                    let mut eta = rows.components[c].offset.map_or(0.0, |o| o[i]);
                    eta += xp.dot(beta, x);
                    if !xp.sparse.is_empty() {
                        sparse_entries(xp, &rows.components[c], i, &mut entries);
                        eta += entries.iter().map(|&(j, v)| v * beta[j as usize]).sum::<f64>();
                    }
                    out[(from + r) * k + c] = eta;
                }
            }
        }
    };
    if pieces.len() == 1 {
        pieces.into_iter().for_each(run);
    } else {
        pieces.into_par_iter().for_each(run);
    }
}

/// Add Z b to the predictors of a panel; `b` are effects by factor (levels x cols).
fn add_random(plan: &Plan, panel: &mut Panel, b: &[Vec<f64>], m: usize) {
    let k = plan.k;
    for (f, zf) in plan.z.iter().enumerate() {
        let cols = zf.columns.len();
        if zf.intercept {
            let c = zf.columns[0].component;
            for r in 0..m {
                panel.eta[r * k + c] += b[f][panel.codes[f][r] as usize];
            }
            continue;
        }
        let c0 = zf.columns[0].component;
        if cols == 2 && zf.columns[1].component == c0 {
            let rows = panel.eta.chunks_exact_mut(k).zip(&panel.codes[f][..m]).zip(panel.z[f].chunks_exact(2));
            for ((eta, &l), z) in rows {
                let bl = &b[f][l as usize * 2..l as usize * 2 + 2];
                eta[c0] += bl[0] * z[0] + bl[1] * z[1];
            }
            continue;
        }
        for r in 0..m {
            let bl = &b[f][panel.codes[f][r] as usize * cols..][..cols];
            let z = &panel.z[f][r * cols..(r + 1) * cols];
            for ((b, z), col) in bl.iter().zip(z).zip(&zf.columns) {
                panel.eta[r * k + col.component] += b * z;
            }
        }
    }
}

/// One pass at the effects `b`: sums, and third derivatives into `d3` (n x packed) if everything is wanted.
pub fn pass(
    plan: &Plan,
    m: &Moments,
    family: &Family,
    rows: &GlmmRows<'_>,
    fixed: &[f64],
    b: &[Vec<f64>],
    want: Want,
    d3: &mut Vec<f64>,
) -> Sums {
    let mut total = Sums::zero(plan, m, want);
    let k = plan.k;
    let k3 = if want == Want::Full { k * (k + 1) * (k + 2) / 6 } else { 0 };
    d3.resize(if k3 > 0 { rows.n * k3 } else { d3.len() }, 0.0);
    let bounds = chunk_bounds(rows.n, total.size());
    let mut pieces: Vec<(usize, usize, &mut [f64])> = vec![];
    let mut rest: &mut [f64] = d3;
    for w in bounds.windows(2) {
        let (head, tail) = rest.split_at_mut((w[1] - w[0]) * k3);
        pieces.push((w[0], w[1], head));
        rest = tail;
    }
    if pieces.len() == 1 {
        for (from, to, d3) in pieces {
            pass_range(plan, m, family, rows, fixed, b, want, from, to, d3, &mut total);
        }
        return total;
    }
    let parts: Vec<Sums> = pieces
        .into_par_iter()
        .map(|(from, to, d3)| {
            let mut s = Sums::zero(plan, m, want);
            pass_range(plan, m, family, rows, fixed, b, want, from, to, d3, &mut s);
            s
        })
        .collect();
    parts.iter().for_each(|s| total.add(s));
    total
}

fn pass_range(
    plan: &Plan,
    m: &Moments,
    family: &Family,
    rows: &GlmmRows<'_>,
    fixed: &[f64],
    b: &[Vec<f64>],
    want: Want,
    from: usize,
    to: usize,
    d3: &mut [f64],
    s: &mut Sums,
) {
    let k = plan.k;
    let order = match want {
        Want::Value => 0,
        Want::Full => 3,
        _ => 2,
    };
    let stride = family.stride(order);
    let mut panel = Panel::new(plan, stride);
    let k2 = k * (k + 1) / 2;
    let k3 = k * (k + 1) * (k + 2) / 6;
    let mut fixed_sums = FixedSums::new(plan, want);
    let mut start = from;
    while start < to {
        let n = PANEL.min(to - start);
        panel.fill_z(plan, rows, start, n);
        panel.eta[..n * k].copy_from_slice(&fixed[start * k..(start + n) * k]);
        add_random(plan, &mut panel, b, n);
        family.evaluate(&rows.data, start, &panel.eta[..n * k], order, &mut panel.out[..n * stride]);
        if let Some(w) = rows.weights {
            for (row, w) in panel.out[..n * stride].chunks_exact_mut(stride).zip(&w[start..start + n]) {
                row.iter_mut().for_each(|v| *v *= -w);
            }
        } else {
            panel.out[..n * stride].iter_mut().for_each(|v| *v = -*v);
        }
        s.value += panel.out[..n * stride].iter().step_by(stride).sum::<f64>();
        if want != Want::Value {
            if want == Want::Convex {
                panel.out[..n * stride].chunks_exact_mut(stride).for_each(|row| convex(k, &mut row[1 + k..1 + k + k2]));
            }
            scatter_random(plan, m, &panel, stride, start, n, s);
        }
        if matches!(want, Want::Full | Want::Joint) {
            panel.fill_x(plan, rows, start, n);
            fixed_sums.scatter(plan, rows, &panel, stride, start, n, s);
        }
        if want == Want::Full {
            for (to, row) in
                d3[(start - from) * k3..].chunks_exact_mut(k3).zip(panel.out[..n * stride].chunks_exact(stride))
            {
                to.copy_from_slice(&row[1 + k + k2..]);
            }
        }
        start += n;
    }
    fixed_sums.finish(plan, s);
    if want != Want::Value {
        for (gram, f) in s.gram.iter_mut().zip(&plan.z) {
            mirror_blocks(gram, f.columns.len());
        }
    }
}

fn mirror_blocks(gram: &mut [f64], k: usize) {
    if k == 1 {
        return;
    }
    for block in gram.chunks_exact_mut(k * k) {
        for b in 0..k {
            for a in 0..b {
                block[a + b * k] = block[b + a * k];
            }
        }
    }
}

/// Replace a packed curvature matrix that is not positive semidefinite by its absolute diagonal.
fn convex(k: usize, d: &mut [f64]) {
    if k == 1 {
        d[0] = d[0].abs();
        return;
    }
    let diag: Vec<f64> = (0..k).map(|a| d[packed(k, a, a)]).collect();
    let mut good = diag.iter().all(|v| *v >= 0.0);
    for a in 0..k {
        for b in a + 1..k {
            good &= d[packed(k, a, b)].powi(2) * (k - 1) as f64 * (k - 1) as f64 <= diag[a] * diag[b];
        }
    }
    if !good {
        d.fill(0.0);
        (0..k).for_each(|a| d[packed(k, a, a)] = diag[a].abs());
    }
}

fn scatter_random(plan: &Plan, m: &Moments, panel: &Panel, stride: usize, start: usize, n: usize, s: &mut Sums) {
    let k = plan.k;
    for (f, zf) in plan.z.iter().enumerate() {
        let cols = zf.columns.len();
        let (zg, gram) = (&mut s.zg[f], &mut s.gram[f]);
        if zf.intercept {
            let c = zf.columns[0].component;
            let (g, w) = (1 + c, 1 + k + packed(k, c, c));
            for (row, &l) in panel.out.chunks_exact(stride).zip(&panel.codes[f][..n]) {
                zg[l as usize] += row[g];
                gram[l as usize] += row[w];
            }
            continue;
        }
        let c0 = zf.columns[0].component;
        if zf.columns.iter().all(|c| c.component == c0) {
            let at = Place { stride, g: 1 + c0, w: 1 + k + packed(k, c0, c0) };
            scatter_single(&panel.out[..n * stride], at, &panel.codes[f][..n], &panel.z[f], cols, zg, gram);
            continue;
        }
        for (r, row) in panel.out.chunks_exact(stride).take(n).enumerate() {
            let l = panel.codes[f][r] as usize;
            let z = &panel.z[f][r * cols..(r + 1) * cols];
            let zg = &mut zg[l * cols..(l + 1) * cols];
            let gram = &mut gram[l * cols * cols..(l + 1) * cols * cols];
            for b in 0..cols {
                let cb = zf.columns[b].component;
                zg[b] += row[1 + cb] * z[b];
                for a in b..cols {
                    gram[a + b * cols] += row[1 + k + packed(k, cb, zf.columns[a].component)] * z[a] * z[b];
                }
            }
        }
    }
    for (p, pair) in m.pairs.iter().enumerate() {
        let (lead, other) = (&plan.z[pair.lead], &plan.z[pair.other]);
        let (kl, ko) = (lead.columns.len(), other.columns.len());
        let entry = &plan.entry[p][start..start + n];
        let out = &mut s.pairs[p];
        if lead.intercept && other.intercept {
            let w = 1 + k + packed(k, lead.columns[0].component, other.columns[0].component);
            for (row, &e) in panel.out.chunks_exact(stride).zip(entry) {
                out[e as usize] += row[w];
            }
            continue;
        }
        for (r, (row, &e)) in panel.out.chunks_exact(stride).zip(entry).enumerate() {
            let block = &mut out[e as usize * kl * ko..][..kl * ko];
            let (zl, zo) = (&panel.z[pair.lead][r * kl..][..kl], &panel.z[pair.other][r * ko..][..ko]);
            for (b, &zb) in zo.iter().enumerate() {
                for (a, &za) in zl.iter().enumerate() {
                    let w = row[1 + k + packed(k, lead.columns[a].component, other.columns[b].component)];
                    block[a + b * kl] += w * za * zb;
                }
            }
        }
    }
}

/// Where a row's gradient and curvature of one predictor lie.
#[derive(Clone, Copy)]
struct Place {
    stride: usize,
    g: usize,
    w: usize,
}

/// Gradient and Gram matrix (lower triangle) of a factor whose columns belong to one predictor.
fn scatter_single(out: &[f64], at: Place, codes: &[i32], z: &[f64], cols: usize, zg: &mut [f64], gram: &mut [f64]) {
    fn fixed<const K: usize>(out: &[f64], at: Place, codes: &[i32], z: &[f64], zg: &mut [f64], gram: &mut [f64]) {
        for ((row, &l), z) in out.chunks_exact(at.stride).zip(codes).zip(z.chunks_exact(K)) {
            let (g, w) = (row[at.g], row[at.w]);
            let zg = &mut zg[l as usize * K..(l as usize + 1) * K];
            let gram = &mut gram[l as usize * K * K..(l as usize + 1) * K * K];
            for b in 0..K {
                zg[b] += g * z[b];
                let wz = w * z[b];
                for a in b..K {
                    gram[a + b * K] += wz * z[a];
                }
            }
        }
    }
    match cols {
        1 => return fixed::<1>(out, at, codes, z, zg, gram),
        2 => return fixed::<2>(out, at, codes, z, zg, gram),
        3 => return fixed::<3>(out, at, codes, z, zg, gram),
        4 => return fixed::<4>(out, at, codes, z, zg, gram),
        _ => {}
    }
    for ((row, &l), z) in out.chunks_exact(at.stride).zip(codes).zip(z.chunks_exact(cols)) {
        let (g, w) = (row[at.g], row[at.w]);
        let zg = &mut zg[l as usize * cols..(l as usize + 1) * cols];
        let gram = &mut gram[l as usize * cols * cols..(l as usize + 1) * cols * cols];
        // Indicator columns of wide terms are mostly zero.
        for (b, &zb) in z.iter().enumerate().filter(|(_, z)| **z != 0.0) {
            zg[b] += g * zb;
            let wz = w * zb;
            gram[b * cols + b..(b + 1) * cols].iter_mut().zip(&z[b..]).for_each(|(o, za)| *o += wz * za);
        }
    }
}

/// Dense partial sums of the fixed effects, one block for every two predictors.
struct FixedSums {
    on: bool,
    blocks: Vec<Vec<f64>>,
    entries: Vec<Vec<(u32, f64)>>,
}

impl FixedSums {
    fn new(plan: &Plan, want: Want) -> Self {
        let on = matches!(want, Want::Full | Want::Joint);
        let mut blocks = vec![];
        for a in 0..plan.k {
            for b in a..plan.k {
                blocks.push(vec![0.0; if on { plan.x[a].dense.len() * plan.x[b].dense.len() } else { 0 }]);
            }
        }
        FixedSums { on, blocks, entries: vec![vec![]; plan.k] }
    }

    fn scatter(
        &mut self,
        plan: &Plan,
        rows: &GlmmRows<'_>,
        panel: &Panel,
        stride: usize,
        start: usize,
        n: usize,
        s: &mut Sums,
    ) {
        let (k, p) = (plan.k, plan.p());
        for (r, row) in panel.out.chunks_exact(stride).take(n).enumerate() {
            for a in 0..k {
                let da = plan.x[a].dense.len();
                let xa = &panel.x[a][r * da..(r + 1) * da];
                let g = row[1 + a];
                plan.x[a].add(&mut s.xg, g, xa);
                for b in a..k {
                    let w = row[1 + k + packed(k, a, b)];
                    if w == 0.0 {
                        continue;
                    }
                    let db = plan.x[b].dense.len();
                    let xb = &panel.x[b][r * db..(r + 1) * db];
                    let block = &mut self.blocks[packed(k, a, b)];
                    for (i, &x) in xa.iter().enumerate() {
                        let wx = w * x;
                        // A block on the diagonal is symmetric: its upper triangle is enough.
                        let from = if a == b { i } else { 0 };
                        block[i * db + from..(i + 1) * db].iter_mut().zip(&xb[from..]).for_each(|(o, y)| *o += wx * y);
                    }
                }
            }
            self.sparse_row(plan, rows, panel, row, start + r, r, s);
            for (f, zf) in plan.z.iter().enumerate() {
                let cols = zf.columns.len();
                let l = panel.codes[f][r] as usize;
                for (c, col) in zf.columns.iter().enumerate() {
                    let z = panel.z[f][r * cols + c];
                    let out = &mut s.zx[f][(l * cols + c) * (p + 1)..][..p + 1];
                    for a in 0..k {
                        let wz = row[1 + k + packed(k, col.component, a)] * z;
                        if wz != 0.0 {
                            let da = plan.x[a].dense.len();
                            let xa = &panel.x[a][r * da..(r + 1) * da];
                            plan.x[a].add(out, wz, xa);
                            self.entries[a].iter().for_each(|&(j, x)| out[j as usize] += wz * x);
                        }
                    }
                }
            }
        }
    }

    /// Sparse columns of one row against each other and against the dense ones.
    fn sparse_row(
        &mut self,
        plan: &Plan,
        rows: &GlmmRows<'_>,
        panel: &Panel,
        row: &[f64],
        i: usize,
        r: usize,
        s: &mut Sums,
    ) {
        if plan.x.iter().all(|x| x.sparse.is_empty()) {
            return;
        }
        let (k, p) = (plan.k, plan.p());
        for a in 0..k {
            sparse_entries(&plan.x[a], &rows.components[a], i, &mut self.entries[a]);
            self.entries[a].iter().for_each(|&(j, x)| s.xg[j as usize] += row[1 + a] * x);
        }
        for a in 0..k {
            for b in 0..k {
                let w = row[1 + k + packed(k, a, b)];
                let db = plan.x[b].dense.len();
                for &(i, x) in &self.entries[a] {
                    for (c, y) in plan.x[b].dense.iter().zip(&panel.x[b][r * db..(r + 1) * db]) {
                        let v = w * x * y;
                        s.xx[i as usize + c.coef * p] += v;
                        s.xx[c.coef + i as usize * p] += v;
                    }
                    for &(j, y) in &self.entries[b] {
                        s.xx[i as usize + j as usize * p] += w * x * y;
                    }
                }
            }
        }
    }

    fn finish(&self, plan: &Plan, s: &mut Sums) {
        if !self.on {
            return;
        }
        let (k, p) = (plan.k, plan.p());
        for a in 0..k {
            for b in a..k {
                let db = plan.x[b].dense.len();
                let block = &self.blocks[packed(k, a, b)];
                for (i, ci) in plan.x[a].dense.iter().enumerate() {
                    for (j, cj) in plan.x[b].dense.iter().enumerate().skip(if a == b { i } else { 0 }) {
                        s.xx[ci.coef + cj.coef * p] += block[i * db + j];
                        if a != b || i != j {
                            s.xx[cj.coef + ci.coef * p] += block[i * db + j];
                        }
                    }
                }
            }
        }
    }
}

/// X's and Z's for s_i = 1/2 D3_i : S_i, with S_i = B_i H^-1 B_i' from the blocks of `cov`.
pub fn skewness(plan: &Plan, m: &Moments, rows: &GlmmRows<'_>, cov: &Covariance, d3: &[f64]) -> Adjoint {
    let zero =
        || Adjoint { x: vec![0.0; plan.p()], z: m.factors.iter().map(|f| vec![0.0; f.levels * f.cols]).collect() };
    let mut total = zero();
    let size = total.z.iter().map(|z| z.len()).sum::<usize>();
    let bounds = chunk_bounds(rows.n, size);
    let ranges: Vec<(usize, usize)> = bounds.windows(2).map(|w| (w[0], w[1])).collect();
    if ranges.len() == 1 {
        skewness_range(plan, m, rows, cov, d3, 0, rows.n, &mut total);
        return total;
    }
    let parts: Vec<Adjoint> = ranges
        .into_par_iter()
        .map(|(from, to)| {
            let mut out = zero();
            skewness_range(plan, m, rows, cov, d3, from, to, &mut out);
            out
        })
        .collect();
    for part in &parts {
        total.x.iter_mut().zip(&part.x).for_each(|(a, b)| *a += b);
        for (a, b) in total.z.iter_mut().zip(&part.z) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
    }
    total
}

fn skewness_range(
    plan: &Plan,
    m: &Moments,
    rows: &GlmmRows<'_>,
    cov: &Covariance,
    d3: &[f64],
    from: usize,
    to: usize,
    out: &mut Adjoint,
) {
    let k = plan.k;
    let k3 = k * (k + 1) * (k + 2) / 6;
    let third = packed3(k);
    let mut w = vec![0.0; k * cov.restricted.as_ref().map_or(0, |r| r.len())];
    let mut panel = Panel::new(plan, 0);
    let mut entries = vec![];
    let mut start = from;
    while start < to {
        let n = PANEL.min(to - start);
        panel.fill_z(plan, rows, start, n);
        panel.fill_x(plan, rows, start, n);
        for r in 0..n {
            let mut sq = [0.0; MAX_K * MAX_K];
            for (f, zf) in plan.z.iter().enumerate() {
                if zf.intercept {
                    sq[zf.columns[0].component * (k + 1)] += cov.diag[f][panel.codes[f][r] as usize];
                    continue;
                }
                let cols = zf.columns.len();
                let l = panel.codes[f][r] as usize;
                let z = &panel.z[f][r * cols..(r + 1) * cols];
                let c = &cov.diag[f][l * cols * cols..(l + 1) * cols * cols];
                for b in 0..cols {
                    for a in 0..cols {
                        sq[zf.columns[a].component * k + zf.columns[b].component] += z[a] * z[b] * c[a + b * cols];
                    }
                }
            }
            for (p, pair) in m.pairs.iter().enumerate() {
                let (lead, other) = (&plan.z[pair.lead], &plan.z[pair.other]);
                let (kl, ko) = (lead.columns.len(), other.columns.len());
                let e = plan.entry[p][start + r] as usize;
                if lead.intercept && other.intercept {
                    let (a, b) = (lead.columns[0].component, other.columns[0].component);
                    sq[a * k + b] += cov.pairs[p][e];
                    sq[b * k + a] += cov.pairs[p][e];
                    continue;
                }
                let c = &cov.pairs[p][e * kl * ko..(e + 1) * kl * ko];
                let (zl, zo) = (&panel.z[pair.lead][r * kl..][..kl], &panel.z[pair.other][r * ko..][..ko]);
                for b in 0..ko {
                    for a in 0..kl {
                        let v = zl[a] * zo[b] * c[a + b * kl];
                        let (ca, cb) = (lead.columns[a].component, other.columns[b].component);
                        sq[ca * k + cb] += v;
                        sq[cb * k + ca] += v;
                    }
                }
            }
            if let Some(fixed) = &cov.restricted {
                fixed.row(plan, &panel, rows, start + r, r, &mut entries, &mut w);
                let n = fixed.len();
                for a in 0..k {
                    for b in 0..k {
                        let (wa, wb) = (&w[a * n..(a + 1) * n], &w[b * n..(b + 1) * n]);
                        sq[a * k + b] += wa.iter().zip(wb).map(|(x, y)| x * y).sum::<f64>();
                    }
                }
            }
            let d = &d3[(start + r) * k3..(start + r + 1) * k3];
            let mut s = [0.0; MAX_K];
            if k == 1 {
                s[0] = 0.5 * d[0] * sq[0];
            }
            for (t, s) in s[..k].iter_mut().enumerate().filter(|_| k > 1) {
                *s = 0.5 * (0..k * k).map(|ab| d[third[ab * k + t]] * sq[ab]).sum::<f64>();
            }
            for (c, xp) in plan.x.iter().enumerate() {
                let dc = xp.dense.len();
                let x = &panel.x[c][r * dc..(r + 1) * dc];
                xp.add(&mut out.x, s[c], x);
                if !xp.sparse.is_empty() {
                    sparse_entries(xp, &rows.components[c], start + r, &mut entries);
                    entries.iter().for_each(|&(j, x)| out.x[j as usize] += s[c] * x);
                }
            }
            for (f, zf) in plan.z.iter().enumerate() {
                let cols = zf.columns.len();
                let l = panel.codes[f][r] as usize;
                if zf.intercept {
                    out.z[f][l] += s[zf.columns[0].component];
                    continue;
                }
                for (c, col) in zf.columns.iter().enumerate() {
                    out.z[f][l * cols + c] += s[col.component] * panel.z[f][r * cols + c];
                }
            }
        }
        start += n;
    }
}

/// Predictors of every row at beta and b, row-major n x K.
pub fn predictors(plan: &Plan, rows: &GlmmRows<'_>, fixed: &[f64], b: &[Vec<f64>]) -> Vec<f64> {
    let k = plan.k;
    let mut out = vec![0.0; rows.n * k];
    let mut panel = Panel::new(plan, 0);
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        panel.fill_z(plan, rows, start, n);
        panel.eta[..n * k].copy_from_slice(&fixed[start * k..(start + n) * k]);
        add_random(plan, &mut panel, b, n);
        out[start * k..(start + n) * k].copy_from_slice(&panel.eta[..n * k]);
    }
    out
}

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
        let mut panel = Panel::new(plan, stride);
        let effects = [b.to_vec()];
        let mut start = from;
        while start < to {
            let n = PANEL.min(to - start);
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

/// X't for one number a row and predictor.
pub fn fixed_adjoint(plan: &Plan, rows: &GlmmRows<'_>, t: &[f64]) -> Vec<f64> {
    let k = plan.k;
    let mut out = vec![0.0; plan.p()];
    let mut panel = Panel::new(plan, 0);
    let mut entries = vec![];
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        panel.fill_x(plan, rows, start, n);
        for r in 0..n {
            for (c, xp) in plan.x.iter().enumerate() {
                let (d, g) = (xp.dense.len(), t[(start + r) * k + c]);
                let x = &panel.x[c][r * d..(r + 1) * d];
                xp.add(&mut out, g, x);
                if !xp.sparse.is_empty() {
                    sparse_entries(xp, &rows.components[c], start + r, &mut entries);
                    entries.iter().for_each(|&(j, x)| out[j as usize] += g * x);
                }
            }
        }
    }
    out
}
