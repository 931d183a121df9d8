//! What a pass sums for the fixed effects: X'D1, X'D2X and Z'D2X.

use super::cells::{Cells, Pairs};
use super::panel::{sparse_entries, Panel};
use super::pass::Sums;
use super::plan::{Plan, XPlan};
use super::GlmmRows;
use crate::dense;
use crate::jet::pair as packed;

/// Rows of one level in a row from which their products are made by the dense kernel.
const RUN: usize = 4;
/// Rows of a product that the dense kernel takes at once.
const REGISTER: usize = 8;

/// A pass's sums over the dense columns, and room for one panel.
pub(super) struct FixedSums {
    products: bool,
    /// By component a: X_a' (D2_ab X_b for b = a, a + 1, ..., D1_a), row-major.
    blocks: Vec<Vec<f64>>,
    /// The right-hand side of one of these products, row by row.
    weighted: Vec<f64>,
    entries: Vec<Vec<(u32, f64)>>,
    /// What the family says, summed by cell; by factor and component the weights of its columns, summed by pair.
    cells: Vec<f64>,
    pairs: Vec<Vec<Vec<f64>>>,
}

/// Columns of the right-hand side for component `a` before the last one that is used, and all of them: where there are
/// many, as many as fill the kernel's registers.
fn width(plan: &Plan, a: usize, products: bool) -> (usize, usize) {
    let wide = if products { plan.x[a..].iter().map(|x| x.dense.len()).sum() } else { 0 };
    (wide, if wide < REGISTER { wide + 1 } else { (wide + 1).next_multiple_of(REGISTER) })
}

/// What the family says of the rows of a panel: `stride` numbers each.
#[derive(Clone, Copy)]
struct Said<'a> {
    out: &'a [f64],
    stride: usize,
    k: usize,
}

impl<'a> Said<'a> {
    fn rows(self) -> std::slice::ChunksExact<'a, f64> {
        self.out.chunks_exact(self.stride)
    }

    /// Place of a second derivative in a row.
    fn second(self, a: usize, b: usize) -> usize {
        1 + self.k + packed(self.k, a, b)
    }
}

impl FixedSums {
    /// `products`: also X'D2X.
    pub(super) fn new(plan: &Plan, products: bool) -> Self {
        let block = |a: usize| vec![0.0; plan.x[a].dense.len() * width(plan, a, products).1];
        FixedSums {
            products,
            blocks: (0..plan.k).map(block).collect(),
            weighted: vec![],
            entries: vec![vec![]; plan.k],
            cells: vec![],
            pairs: vec![vec![]; plan.z.len()],
        }
    }

    /// Add the n rows of a panel; with `cross` also Z'D2X.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        rows: &GlmmRows<'_>,
        panel: &Panel<'_>,
        stride: usize,
        (start, n): (usize, usize),
        s: &mut Sums,
        cross: bool,
    ) {
        let said = Said { out: &panel.out[..n * stride], stride, k: plan.k };
        match &plan.cells {
            Some(cells) => self.add_cells(plan, cells, said, &cells.of[start..]),
            None => (0..plan.k).for_each(|a| self.add_products(plan, |b| panel.columns.x(b), said, a)),
        }
        for f in (0..plan.z.len()).filter(|_| cross) {
            let z = (panel.columns.codes(f), panel.columns.z(f));
            if let Some(pairs) = plan.cells.as_ref().and_then(|c| c.pairs[f].as_ref()) {
                self.add_pairs(plan, pairs, z.1, said, (f, start));
                continue;
            }
            for a in 0..plan.k {
                weigh(plan, z.1, said, (f, a), &mut self.weighted);
                let cross = Cross::of(plan, (f, a), panel.columns.x(a), z.0, &self.weighted);
                cross.add(&mut s.zx[f]);
            }
        }
        if plan.x.iter().any(|x| !x.sparse.is_empty()) {
            let products = self.products;
            for (r, row) in said.rows().enumerate() {
                self.sparse_row(plan, rows, panel, row, (start + r, r), s, (products, cross));
            }
        }
    }

    /// Add what is said of kinds of rows, whose cells these are.
    pub(super) fn add_kinds(&mut self, plan: &Plan, cells: &Cells, of: &[u32], out: &[f64], stride: usize) {
        self.add_cells(plan, cells, Said { out, stride, k: plan.k }, of);
    }

    /// Sum what is said of some rows by their cells.
    fn add_cells(&mut self, plan: &Plan, cells: &Cells, said: Said<'_>, of: &[u32]) {
        let (k, stride) = (plan.k, 1 + plan.k + plan.k * (plan.k + 1) / 2);
        let used = 1..if self.products { stride } else { 1 + k };
        self.cells.resize(cells.count * stride, 0.0);
        for (row, &cell) in said.rows().zip(of) {
            let to = &mut self.cells[cell as usize * stride..][used.clone()];
            to.iter_mut().zip(&row[used.clone()]).for_each(|(o, v)| *o += v);
        }
    }

    /// Sum the weights of a factor's columns by pair.
    fn add_pairs(&mut self, plan: &Plan, pairs: &Pairs, z: &[f64], said: Said<'_>, (f, start): (usize, usize)) {
        let cols = plan.z[f].columns.len();
        self.pairs[f].resize(plan.k, vec![]);
        for (a, sums) in self.pairs[f].iter_mut().enumerate() {
            sums.resize(pairs.level.len() * cols, 0.0);
            if cols == 1 {
                let at = said.second(plan.z[f].columns[0].component, a);
                let rows = said.rows().zip(z).zip(&pairs.of[start..]);
                rows.for_each(|((row, z), &pair)| sums[pair as usize] += row[at] * z);
                continue;
            }
            weigh(plan, z, said, (f, a), &mut self.weighted);
            for (row, &pair) in self.weighted.chunks_exact(cols).zip(&pairs.of[start..]) {
                sums[pair as usize * cols..][..cols].iter_mut().zip(row).for_each(|(o, v)| *o += v);
            }
        }
    }

    /// The block of component `a`, where the columns of every component are `columns`.
    fn add_products<'x>(&mut self, plan: &Plan, columns: impl Fn(usize) -> &'x [f64], said: Said<'_>, a: usize) {
        let (d, x) = (plan.x[a].dense.len(), columns(a));
        let n = said.rows().len();
        if d == 0 {
            return;
        }
        if !self.products {
            return dense::gemm_nt(&mut self.blocks[a], d, x, d, &said.out[1 + a..], said.stride, d, 1, n, 1.0);
        }
        if plan.k == 1 {
            match d {
                1 => return add_square::<1>(&mut self.blocks[0], said, x),
                2 => return add_square::<2>(&mut self.blocks[0], said, x),
                3 => return add_square::<3>(&mut self.blocks[0], said, x),
                4 => return add_square::<4>(&mut self.blocks[0], said, x),
                _ => {}
            }
        }
        let (wide, width) = width(plan, a, true);
        self.weighted.resize(n * width, 0.0);
        let mut from = 0;
        for b in a..plan.k {
            let (db, xb, at) = (plan.x[b].dense.len(), columns(b), said.second(a, b));
            let to = self.weighted.chunks_exact_mut(width);
            for ((to, row), xb) in to.zip(said.rows()).zip(xb.chunks_exact(db.max(1))).filter(|_| db > 0) {
                let w = row[at];
                to[from..from + db].iter_mut().zip(xb).for_each(|(o, x)| *o = w * x);
            }
            from += db;
        }
        for (to, row) in self.weighted.chunks_exact_mut(width).zip(said.rows()) {
            to[wide] = row[1 + a];
            to[wide + 1..].fill(0.0);
        }
        dense::gemm_nt(&mut self.blocks[a], width, &self.weighted, width, x, d, width, d, n, 1.0);
    }

    /// Sparse columns of one row (number in the data, in the panel) against each other, the dense ones and the random ones.
    fn sparse_row(
        &mut self,
        plan: &Plan,
        rows: &GlmmRows<'_>,
        panel: &Panel<'_>,
        row: &[f64],
        (i, r): (usize, usize),
        s: &mut Sums,
        (products, cross): (bool, bool),
    ) {
        let (k, p, columns) = (plan.k, plan.p(), &panel.columns);
        for a in 0..k {
            sparse_entries(&plan.x[a], &rows.components[a], i, &mut self.entries[a]);
            self.entries[a].iter().for_each(|&(j, x)| s.xg[j as usize] += row[1 + a] * x);
        }
        for a in 0..k {
            for b in (0..k).filter(|_| products) {
                let w = row[1 + k + packed(k, a, b)];
                let db = plan.x[b].dense.len();
                for &(i, x) in &self.entries[a] {
                    for (c, y) in plan.x[b].dense.iter().zip(&columns.x(b)[r * db..(r + 1) * db]) {
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
        for (f, zf) in plan.z.iter().enumerate().filter(|_| cross) {
            let (cols, l) = (zf.columns.len(), columns.codes(f)[r] as usize);
            for (c, col) in zf.columns.iter().enumerate() {
                let out = &mut s.zx[f][(l * cols + c) * (p + 1)..][..p + 1];
                let z = columns.z(f)[r * cols + c];
                for a in (0..k).filter(|_| z != 0.0) {
                    let wz = row[1 + k + packed(k, col.component, a)] * z;
                    self.entries[a].iter().for_each(|&(j, x)| out[j as usize] += wz * x);
                }
            }
        }
    }

    /// Let what was summed by cell and by pair meet the columns.
    fn finish_cells(&mut self, plan: &Plan, cells: &Cells, s: &mut Sums) {
        let (k, out) = (plan.k, std::mem::take(&mut self.cells));
        let said = Said { out: &out, stride: 1 + k + k * (k + 1) / 2, k };
        (0..k).for_each(|a| self.add_products(plan, |b| &cells.x[b], said, a));
        for (f, pairs) in cells.pairs.iter().enumerate() {
            let Some(pairs) = pairs else { continue };
            for (a, weights) in self.pairs[f].iter().enumerate() {
                Cross::of(plan, (f, a), &pairs.x[a], &pairs.level, weights).add(&mut s.zx[f]);
            }
        }
    }

    /// Put what was summed in its places.
    pub(super) fn finish(&mut self, plan: &Plan, s: &mut Sums) {
        let p = plan.p();
        if let Some(cells) = &plan.cells {
            self.finish_cells(plan, cells, s);
        }
        for (a, (xp, block)) in plan.x.iter().zip(&self.blocks).enumerate() {
            let (wide, width) = width(plan, a, self.products);
            for (i, (ci, row)) in xp.dense.iter().zip(block.chunks_exact(width)).enumerate() {
                s.xg[ci.coef] += row[wide];
                let columns = plan.x[a..].iter().flat_map(|x| &x.dense).zip(row);
                // The block on the diagonal is symmetric: its upper triangle is enough.
                for (j, (cj, v)) in columns.enumerate().skip(i).filter(|_| self.products) {
                    s.xx[ci.coef + cj.coef * p] += v;
                    if i != j {
                        s.xx[cj.coef + ci.coef * p] += v;
                    }
                }
            }
        }
    }
}

/// Weights of the columns of a factor (rows x cols) in Z'D2X of component `a`.
fn weigh(plan: &Plan, z: &[f64], said: Said<'_>, (f, a): (usize, usize), out: &mut Vec<f64>) {
    let columns = &plan.z[f].columns;
    out.resize(said.rows().len() * columns.len(), 0.0);
    for (c, col) in columns.iter().enumerate() {
        let at = said.second(col.component, a);
        let to = out.iter_mut().skip(c).step_by(columns.len());
        to.zip(said.rows()).zip(z.iter().skip(c).step_by(columns.len())).for_each(|((o, row), z)| *o = row[at] * z);
    }
}

/// The block of the only component, of D columns, in registers.
fn add_square<const D: usize>(block: &mut [f64], said: Said<'_>, x: &[f64]) {
    let (mut xg, mut xx) = ([0.0; D], [[0.0; D]; D]);
    for (row, x) in said.rows().zip(x.chunks_exact(D)) {
        (0..D).for_each(|i| xg[i] += row[1] * x[i]);
    }
    for (row, x) in said.rows().zip(x.chunks_exact(D)) {
        for i in 0..D {
            let wx = row[2] * x[i];
            (0..D).for_each(|j| xx[i][j] += wx * x[j]);
        }
    }
    for (i, out) in block.chunks_exact_mut(D + 1).enumerate() {
        (0..D).for_each(|j| out[j] += xx[i][j]);
        out[D] += xg[i];
    }
}

/// The dense columns of one component, and the weights (rows x cols) of a factor's columns.
struct Cross<'a> {
    xp: &'a XPlan,
    x: &'a [f64],
    codes: &'a [i32],
    weights: &'a [f64],
    cols: usize,
    p1: usize,
}

impl<'a> Cross<'a> {
    /// That of a factor and a component.
    fn of(plan: &'a Plan, (f, a): (usize, usize), x: &'a [f64], codes: &'a [i32], weights: &'a [f64]) -> Self {
        Cross { xp: &plan.x[a], x, codes, weights, cols: plan.z[f].columns.len(), p1: plan.p() + 1 }
    }

    /// Add Z'D2X to `zx`, p + 1 numbers for every level and column.
    fn add(&self, zx: &mut [f64]) {
        match (self.xp.first, self.xp.dense.len()) {
            (_, 0) => {}
            (None, _) => self.scattered(zx),
            (Some(first), 1) => self.narrow::<1>(first, zx),
            (Some(first), 2) => self.narrow::<2>(first, zx),
            (Some(first), 3) => self.narrow::<3>(first, zx),
            (Some(first), 4) => self.narrow::<4>(first, zx),
            (Some(first), 5) => self.narrow::<5>(first, zx),
            (Some(first), 6) => self.narrow::<6>(first, zx),
            (Some(first), 7) => self.narrow::<7>(first, zx),
            (Some(first), 8) => self.narrow::<8>(first, zx),
            (Some(first), _) => self.wide(first, zx),
        }
    }

    /// Runs of rows of one level: level, first and last.
    fn runs(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let mut at = 0;
        self.codes.chunk_by(|a, b| a == b).map(move |run| {
            at += run.len();
            (run[0] as usize, at - run.len(), at)
        })
    }

    /// D columns that follow each other, run by run in registers.
    fn narrow<const D: usize>(&self, first: usize, zx: &mut [f64]) {
        for (l, from, to) in self.runs() {
            for c in 0..self.cols {
                let mut sum = [0.0; D];
                for (x, w) in self.x[from * D..to * D]
                    .chunks_exact(D)
                    .zip(self.weights[from * self.cols + c..].iter().step_by(self.cols))
                {
                    (0..D).for_each(|i| sum[i] += w * x[i]);
                }
                let out = &mut zx[(l * self.cols + c) * self.p1 + first..][..D];
                (0..D).for_each(|i| out[i] += sum[i]);
            }
        }
    }

    /// Many columns that follow each other.
    fn wide(&self, first: usize, zx: &mut [f64]) {
        let (d, cols) = (self.xp.dense.len(), self.cols);
        for (l, from, to) in self.runs() {
            let out = &mut zx[l * cols * self.p1 + first..];
            let (x, w) = (&self.x[from * d..to * d], &self.weights[from * cols..to * cols]);
            if to - from >= RUN {
                dense::gemm_nt(out, self.p1, x, d, w, cols, d, cols, to - from, 1.0);
                continue;
            }
            for (x, w) in x.chunks_exact(d).zip(w.chunks_exact(cols)) {
                for (c, w) in w.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                    out[c * self.p1..][..d].iter_mut().zip(x).for_each(|(o, x)| *o += w * x);
                }
            }
        }
    }

    /// Columns of coefficients apart from each other.
    fn scattered(&self, zx: &mut [f64]) {
        let rows = self.x.chunks_exact(self.xp.dense.len()).zip(self.weights.chunks_exact(self.cols));
        for ((x, w), &l) in rows.zip(self.codes) {
            for (c, w) in w.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                self.xp.add(&mut zx[(l as usize * self.cols + c) * self.p1..][..self.p1], *w, x);
            }
        }
    }
}
