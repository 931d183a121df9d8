//! Views of the caller's columns: nothing here owns data, nothing is expanded to dummies.

use std::ops::Range;

use crate::error::shape;
use crate::CoreError;

/// Integer codes `0..levels` of a factor, in the width they came in; a negative code is "no level".
#[derive(Clone, Copy, Debug)]
pub enum Codes<'a> {
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
}

impl Codes<'_> {
    #[inline]
    pub fn get(&self, i: usize) -> i32 {
        match self {
            Codes::I8(c) => c[i] as i32,
            Codes::I16(c) => c[i] as i32,
            Codes::I32(c) => c[i],
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Codes::I8(c) => c.len(),
            Codes::I16(c) => c.len(),
            Codes::I32(c) => c.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copy the codes of rows `from..from + out.len()`.
    #[inline]
    pub fn fill(&self, from: usize, out: &mut [i32]) {
        let to = from + out.len();
        match self {
            Codes::I8(c) => out.iter_mut().zip(&c[from..to]).for_each(|(o, &v)| *o = v as i32),
            Codes::I16(c) => out.iter_mut().zip(&c[from..to]).for_each(|(o, &v)| *o = v as i32),
            Codes::I32(c) => out.copy_from_slice(&c[from..to]),
        }
    }

    /// Hand rows `from..from + rows` on: every piece of `stride` entries of `out`, with the row's number and code.
    #[inline]
    fn each(&self, from: usize, rows: usize, out: &mut [f64], stride: usize, to: impl Fn(&mut [f64], usize, usize)) {
        macro_rules! go {
            ($c:expr) => {{
                let pieces = out.chunks_mut(stride).zip(&$c[from..from + rows]);
                pieces.enumerate().for_each(|(r, (o, &l))| to(o, from + r, l as usize))
            }};
        }
        // Once for all rows: what is asked of each is little.
        match self {
            Codes::I8(c) => go!(c),
            Codes::I16(c) => go!(c),
            Codes::I32(c) => go!(c),
        }
    }

    /// Where they are kept.
    fn place(&self) -> *const u8 {
        match self {
            Codes::I8(c) => c.as_ptr().cast(),
            Codes::I16(c) => c.as_ptr().cast(),
            Codes::I32(c) => c.as_ptr().cast(),
        }
    }

    /// Smallest and largest code; (0, -1) when there are no rows.
    pub fn range(&self) -> (i32, i32) {
        fn go<T: Copy + Into<i32> + Ord>(c: &[T]) -> (i32, i32) {
            let mut it = c.iter().copied();
            let Some(first) = it.next() else {
                return (0, -1);
            };
            let (lo, hi) = it.fold((first, first), |(lo, hi), v| (lo.min(v), hi.max(v)));
            (lo.into(), hi.into())
        }
        match self {
            Codes::I8(c) => go(c),
            Codes::I16(c) => go(c),
            Codes::I32(c) => go(c),
        }
    }

    fn same(&self, other: &Codes<'_>) -> bool {
        match (self, other) {
            (Codes::I8(a), Codes::I8(b)) => a.as_ptr() == b.as_ptr() || a == b,
            (Codes::I16(a), Codes::I16(b)) => a.as_ptr() == b.as_ptr() || a == b,
            (Codes::I32(a), Codes::I32(b)) => a.as_ptr() == b.as_ptr() || a == b,
            _ => self.len() == other.len() && (0..self.len()).all(|i| self.get(i) == other.get(i)),
        }
    }
}

/// A numeric column in the type it came in.
#[derive(Clone, Copy, Debug)]
pub enum Numeric<'a> {
    F64(&'a [f64]),
    F32(&'a [f32]),
    I64(&'a [i64]),
    I32(&'a [i32]),
}

impl Numeric<'_> {
    #[inline]
    pub fn get(&self, i: usize) -> f64 {
        match self {
            Numeric::F64(x) => x[i],
            Numeric::F32(x) => x[i] as f64,
            Numeric::I64(x) => x[i] as f64,
            Numeric::I32(x) => x[i] as f64,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Numeric::F64(x) => x.len(),
            Numeric::F32(x) => x.len(),
            Numeric::I64(x) => x.len(),
            Numeric::I32(x) => x.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the numbers are kept.
    fn place(&self) -> *const u8 {
        match self {
            Numeric::F64(x) => x.as_ptr().cast(),
            Numeric::F32(x) => x.as_ptr().cast(),
            Numeric::I64(x) => x.as_ptr().cast(),
            Numeric::I32(x) => x.as_ptr().cast(),
        }
    }

    /// out[r * stride] = (x[from + r] - shift) for r in 0..rows.
    #[inline]
    pub fn fill(&self, from: usize, rows: usize, shift: f64, out: &mut [f64], stride: usize) {
        macro_rules! go {
            ($x:expr) => {
                for (o, &v) in out.iter_mut().step_by(stride).zip(&$x[from..from + rows]) {
                    *o = v as f64 - shift;
                }
            };
        }
        match self {
            Numeric::F64(x) => go!(x),
            Numeric::F32(x) => go!(x),
            Numeric::I64(x) => go!(x),
            Numeric::I32(x) => go!(x),
        }
    }
}

/// Columns that come from one source: value of row i is `x[i] * contrast[codes[i], :]`.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub codes: Option<Codes<'a>>,
    /// Row-major (levels x cols); empty without codes, and for indicators of the last `cols` levels (`is_wide`).
    pub contrast: &'a [f64],
    pub levels: usize,
    pub cols: usize,
    pub x: Option<Numeric<'a>>,
}

impl Block<'_> {
    pub fn is_intercept(&self) -> bool {
        self.codes.is_none() && self.x.is_none()
    }

    /// How many rows it has; a constant has as many as there are.
    pub fn rows(&self) -> Option<usize> {
        self.codes.map(|c| c.len()).or(self.x.map(|x| x.len()))
    }

    pub fn is_numeric(&self) -> bool {
        self.codes.is_none() && self.x.is_some()
    }

    /// Whether another block has the same columns, from the same arrays.
    pub fn same(&self, other: &Block<'_>) -> bool {
        let codes = match (&self.codes, &other.codes) {
            (Some(a), Some(b)) => a.place() == b.place(),
            (a, b) => a.is_none() && b.is_none(),
        };
        let x = match (&self.x, &other.x) {
            (Some(a), Some(b)) => a.place() == b.place(),
            (a, b) => a.is_none() && b.is_none(),
        };
        codes && x && (self.levels, self.cols) == (other.levels, other.cols) && self.contrast == other.contrast
    }

    /// Indicators of levels that nobody wrote out: all levels, or all but the first (treatment contrasts).
    pub fn is_wide(&self) -> bool {
        self.codes.is_some() && self.contrast.is_empty() && self.cols > 0
    }

    /// Entry of the contrast matrix.
    #[inline]
    fn entry(&self, level: usize, col: usize) -> f64 {
        if self.contrast.is_empty() {
            f64::from(level == col + self.levels - self.cols)
        } else {
            self.contrast[level * self.cols + col]
        }
    }

    /// One-hot coding of every level: its columns sum to one, so they carry a constant.
    pub fn is_cell_means(&self) -> bool {
        self.codes.is_some()
            && self.x.is_none()
            && self.cols == self.levels
            && (0..self.levels)
                .all(|i| (0..self.cols).all(|j| self.contrast[i * self.cols + j] == if i == j { 1.0 } else { 0.0 }))
    }

    pub fn check(&self, n: usize, what: &str) -> Result<(), CoreError> {
        if let Some(c) = &self.codes {
            if c.len() != n {
                return shape(format!("{what}: {} codes for {n} rows", c.len()));
            }
            let (lo, hi) = c.range();
            if lo < 0 || hi >= self.levels as i32 {
                return shape(format!("{what}: codes run from {lo} to {hi}, levels are 0..{}", self.levels));
            }
            let indicators = self.x.is_none() && (self.cols == self.levels || self.cols + 1 == self.levels);
            if self.contrast.len() != self.levels * self.cols && !(self.is_wide() && indicators) {
                return shape(format!("{what}: contrast is not {} x {}", self.levels, self.cols));
            }
            if self.contrast.iter().any(|v| !v.is_finite()) {
                return Err(CoreError::NotFinite(format!("{what}: contrast is not finite")));
            }
        } else if self.cols != 1 {
            return shape(format!("{what}: a block without codes has one column"));
        }
        if let Some(x) = &self.x {
            if x.len() != n {
                return shape(format!("{what}: {} values for {n} rows", x.len()));
            }
        }
        Ok(())
    }

    /// Value of column `col` in row `i`.
    #[inline]
    pub fn value(&self, i: usize, col: usize) -> f64 {
        let x = self.x.map_or(1.0, |x| x.get(i));
        match &self.codes {
            None => x,
            Some(c) => x * self.entry(c.get(i) as usize, col),
        }
    }

    /// Columns `cols` of rows `from..from + rows`, side by side at the head of every piece of `stride` entries; a shift is
    /// that of a numeric column.
    pub fn fill(&self, cols: Range<usize>, from: usize, rows: usize, shift: f64, out: &mut [f64], stride: usize) {
        let first = cols.start;
        let table = |l: usize| self.contrast[l * self.cols..][cols.clone()].iter();
        match (&self.codes, &self.x) {
            (None, None) => out.iter_mut().step_by(stride).take(rows).for_each(|o| *o = 1.0 - shift),
            (None, Some(x)) => x.fill(from, rows, shift, out, stride),
            (Some(c), _) if self.is_wide() => c.each(from, rows, out, stride, |o, _, l| {
                o[..cols.len()].iter_mut().enumerate().for_each(|(j, o)| *o = self.entry(l, first + j));
            }),
            (Some(c), None) => c.each(from, rows, out, stride, |o, _, l| {
                o.iter_mut().zip(table(l)).for_each(|(o, v)| *o = *v);
            }),
            (Some(c), Some(x)) => c.each(from, rows, out, stride, |o, i, l| {
                let x = x.get(i);
                o.iter_mut().zip(table(l)).for_each(|(o, v)| *o = v * x);
            }),
        }
    }
}

/// How the k columns of a random-effects term vary together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Structure {
    /// Any positive semidefinite covariance matrix.
    Unstructured,
    /// Independent columns.
    Diagonal,
    /// A function of few parameters, described elsewhere (`structure`).
    Patterned,
}

impl Structure {
    /// Rows of column `c` of Lambda (k x k) that are parameters of their own.
    pub fn rows(self, c: usize, k: usize) -> std::ops::Range<usize> {
        match self {
            Structure::Unstructured => c..k,
            Structure::Diagonal => c..c + 1,
            Structure::Patterned => c..c,
        }
    }

    pub fn parse(name: &str) -> Result<Self, CoreError> {
        match name {
            "us" => Ok(Structure::Unstructured),
            "diag" => Ok(Structure::Diagonal),
            "patterned" => Ok(Structure::Patterned),
            _ => shape(format!("unknown covariance structure '{name}'")),
        }
    }
}

/// A random-effects term: `cols` columns that vary over the levels of one grouping factor.
#[derive(Clone, Debug)]
pub struct Term<'a> {
    pub codes: Codes<'a>,
    pub levels: usize,
    pub structure: Structure,
    pub blocks: Vec<Block<'a>>,
    /// Its columns belong to several linear predictors, so that no column can carry the shift of another.
    pub joint: bool,
    /// Known relationship between its levels; without one they are independent.
    pub relation: Option<Relation<'a>>,
    /// Its levels are coefficients, not draws: a factor of the fixed part.
    pub fixed: bool,
}

/// The precision matrix of the levels of a term (the inverse of a relationship matrix), its upper triangle by rows.
#[derive(Clone, Copy, Debug)]
pub struct Relation<'a> {
    pub diag: &'a [f64],
    pub start: &'a [u32],
    /// Levels after that of the row.
    pub level: &'a [u32],
    pub value: &'a [f64],
}

impl Relation<'_> {
    fn check(&self, levels: usize) -> Result<(), CoreError> {
        let ordered = self.start.len() == levels + 1
            && self.start.first() == Some(&0)
            && self.start.windows(2).all(|w| w[0] <= w[1])
            && self.start.last().is_some_and(|&e| e as usize == self.level.len());
        if self.diag.len() != levels || !ordered || self.value.len() != self.level.len() {
            return shape("a relationship has other levels than its term");
        }
        for (l, w) in self.start.windows(2).enumerate() {
            let row = &self.level[w[0] as usize..w[1] as usize];
            if row.iter().any(|&o| o as usize <= l || o as usize >= levels) || row.windows(2).any(|o| o[0] >= o[1]) {
                return shape("a relationship is not the upper triangle of a matrix, by rows");
            }
        }
        if self.diag.iter().chain(self.value).any(|v| !v.is_finite()) || self.diag.iter().any(|v| *v <= 0.0) {
            return Err(CoreError::NotPositiveDefinite("the precision of a relationship has a diagonal <= 0".into()));
        }
        Ok(())
    }
}

impl Term<'_> {
    pub fn cols(&self) -> usize {
        self.blocks.iter().map(|b| b.cols).sum()
    }

    pub fn same_grouping(&self, other: &Term<'_>) -> bool {
        let related = self.relation.is_some() || other.relation.is_some();
        let fixed = self.fixed || other.fixed;
        !related && !fixed && self.levels == other.levels && self.codes.same(&other.codes)
    }
}

/// Everything the core is told about the rows.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    pub n: usize,
    pub fixed: Vec<Block<'a>>,
    pub terms: Vec<Term<'a>>,
    pub y: &'a [f64],
    pub weights: Option<&'a [f64]>,
    pub offset: Option<&'a [f64]>,
}

impl Rows<'_> {
    pub fn fixed_cols(&self) -> usize {
        self.fixed.iter().map(|b| b.cols).sum()
    }

    /// Lengths, codes and weights that the passes below rely on; NaN in the data shows in the cross-products.
    pub fn check(&self) -> Result<(), CoreError> {
        if self.n == 0 {
            return shape("no rows");
        }
        if self.n > u32::MAX as usize {
            return shape("more than 2^32 - 1 rows");
        }
        if self.y.len() != self.n {
            return shape(format!("response has {} values for {} rows", self.y.len(), self.n));
        }
        for (b, block) in self.fixed.iter().enumerate() {
            block.check(self.n, &format!("fixed block {b}"))?;
        }
        for (t, term) in self.terms.iter().enumerate() {
            let what = format!("random term {t}");
            if term.codes.len() != self.n {
                return shape(format!("{what}: {} codes for {} rows", term.codes.len(), self.n));
            }
            let (lo, hi) = term.codes.range();
            if lo < 0 || hi >= term.levels as i32 {
                return shape(format!("{what}: codes run from {lo} to {hi}, levels are 0..{}", term.levels));
            }
            // Every level takes memory, used or not; the frame hands over used ones only.
            if term.levels > 16 * self.n + 1024 {
                return shape(format!("{what}: {} levels for {} rows", term.levels, self.n));
            }
            if term.cols() == 0 {
                return shape(format!("{what} has no column"));
            }
            for block in &term.blocks {
                block.check(self.n, &what)?;
            }
            if let Some(relation) = &term.relation {
                relation.check(term.levels)?;
            }
        }
        for (name, v) in [("weights", self.weights), ("offset", self.offset)] {
            if let Some(v) = v {
                if v.len() != self.n {
                    return shape(format!("{name} has {} values for {} rows", v.len(), self.n));
                }
            }
        }
        if let Some(w) = self.weights {
            if let Some(i) = w.iter().position(|&w| !(w > 0.0 && w.is_finite())) {
                return Err(CoreError::NotFinite(format!("weight of row {i} is {}, not positive", w[i])));
            }
        }
        Ok(())
    }
}

/// A term of new rows: a code of -1 is a level without effect.
pub struct NewTerm<'a> {
    pub codes: Codes<'a>,
    pub blocks: Vec<Block<'a>>,
    /// Row-major (levels x cols).
    pub b: &'a [f64],
}

/// X beta + sum_t Z_t b_t + offset, row by row, without X or Z. Columns with a NaN coefficient count as absent.
pub fn linear_predictor(
    n: usize,
    fixed: &[Block<'_>],
    beta: &[f64],
    terms: &[NewTerm<'_>],
    offset: Option<&[f64]>,
) -> Result<Vec<f64>, CoreError> {
    if n > u32::MAX as usize {
        return shape("more than 2^32 - 1 rows");
    }
    if offset.is_some_and(|o| o.len() != n) {
        return shape("offset has the wrong length");
    }
    let mut eta = offset.map_or_else(|| vec![0.0; n], |o| o.to_vec());
    let mut at = 0;
    for block in fixed {
        block.check(n, "fixed block")?;
        if at + block.cols > beta.len() {
            return shape("fewer coefficients than columns");
        }
        let coef: Vec<f64> = beta[at..at + block.cols].iter().map(|&v| if v.is_nan() { 0.0 } else { v }).collect();
        at += block.cols;
        add_block(block, &coef, &mut eta);
    }
    for term in terms {
        let k: usize = term.blocks.iter().map(|b| b.cols).sum();
        if term.codes.len() != n || term.codes.range().1 as i64 >= (term.b.len() / k.max(1)) as i64 {
            return shape("random term: codes do not fit the rows or the levels");
        }
        let mut col = 0;
        for block in &term.blocks {
            block.check(n, "random block")?;
            for (i, e) in eta.iter_mut().enumerate() {
                let l = term.codes.get(i);
                if l >= 0 {
                    let b = &term.b[l as usize * k + col..][..block.cols];
                    for (c, &bc) in b.iter().enumerate() {
                        *e += bc * block.value(i, c);
                    }
                }
            }
            col += block.cols;
        }
    }
    Ok(eta)
}

fn add_block(block: &Block<'_>, coef: &[f64], eta: &mut [f64]) {
    match (&block.codes, &block.x) {
        (None, None) => eta.iter_mut().for_each(|e| *e += coef[0]),
        (None, Some(x)) => eta.iter_mut().enumerate().for_each(|(i, e)| *e += coef[0] * x.get(i)),
        (Some(codes), x) => {
            let m = block.cols;
            let effect: Vec<f64> = if block.is_wide() {
                std::iter::repeat_n(0.0, block.levels - m).chain(coef.iter().copied()).collect()
            } else {
                (0..block.levels).map(|l| (0..m).map(|c| block.contrast[l * m + c] * coef[c]).sum()).collect()
            };
            let n = eta.len();
            match x {
                None => codes.each(0, n, eta, 1, |e, _, l| e[0] += effect[l]),
                Some(x) => codes.each(0, n, eta, 1, |e, i, l| e[0] += effect[l] * x.get(i)),
            }
        }
    }
}
