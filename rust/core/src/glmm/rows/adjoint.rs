//! The way back: X't and Z't of numbers by row, and the third-derivative term of the gradient.

use rayon::prelude::*;

use crate::family::GRAIN;

use super::panel::{chunk_bounds, sparse_entries, Columns, PANEL};
use super::plan::{packed3, Plan, XPlan};
use super::GlmmRows;
use crate::design::Moments;

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
        columns: &Columns<'_>,
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
            for (col, x) in xp.dense.iter().zip(&columns.x(a)[r * d..(r + 1) * d]) {
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
            let l = columns.codes(f)[r] as usize;
            for (c, col) in zf.columns.iter().enumerate() {
                let z = columns.z(f)[r * cols + c];
                let e = &self.by_level[f][(l * cols + c) * n..(l * cols + c + 1) * n];
                let out = &mut w[col.component * n..(col.component + 1) * n];
                out.iter_mut().zip(e).for_each(|(o, e)| *o -= z * e);
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
    let bounds = chunk_bounds(rows.n, size, GRAIN);
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
    let (skewed, k) = (Skewed::new(plan, m, rows, cov, d3), plan.k);
    let mut columns = Columns::of(PANEL.min(to - from), plan);
    let (mut scratch, mut s) = (skewed.scratch(), vec![0.0; PANEL.min(to - from) * k]);
    for start in (from..to).step_by(PANEL) {
        let n = PANEL.min(to - start);
        columns.fill_z(rows, start, n);
        columns.fill_x(rows, start, n);
        skewed.panel(&columns, start, &mut scratch, &mut s[..n * k]);
        add_fixed(plan, rows, &columns, start, &s[..n * k], &mut scratch.entries, &mut out.x);
        add_random(plan, &columns, &s[..n * k], &mut out.z);
    }
}

/// X't += of the present rows, one number a row and predictor.
fn add_fixed(
    plan: &Plan,
    rows: &GlmmRows<'_>,
    columns: &Columns<'_>,
    start: usize,
    t: &[f64],
    entries: &mut Vec<(u32, f64)>,
    out: &mut [f64],
) {
    let k = plan.k;
    for (c, xp) in plan.x.iter().enumerate() {
        let (d, x) = (xp.dense.len(), columns.x(c));
        match d {
            0 => {}
            1 => add_rows::<1>(xp, x, &t[c..], k, out),
            2 => add_rows::<2>(xp, x, &t[c..], k, out),
            3 => add_rows::<3>(xp, x, &t[c..], k, out),
            4 => add_rows::<4>(xp, x, &t[c..], k, out),
            _ => {
                let mut sum = vec![0.0; d];
                crate::dense::gemm_nt(&mut sum, d, x, d, &t[c..], k, d, 1, t.len() / k, 1.0);
                xp.add(out, 1.0, &sum);
            }
        }
        for (r, t) in t.iter().skip(c).step_by(k).enumerate().filter(|_| !xp.sparse.is_empty()) {
            sparse_entries(xp, &rows.components[c], start + r, entries);
            entries.iter().for_each(|&(j, x)| out[j as usize] += t * x);
        }
    }
}

/// The dense columns of a component, D of them.
fn add_rows<const D: usize>(xp: &XPlan, x: &[f64], t: &[f64], apart: usize, out: &mut [f64]) {
    let mut sum = [0.0; D];
    for (x, t) in x.chunks_exact(D).zip(t.iter().step_by(apart)) {
        (0..D).for_each(|i| sum[i] += t * x[i]);
    }
    xp.add(out, 1.0, &sum);
}

/// Z't += of the present rows, one number a row and predictor.
fn add_random(plan: &Plan, columns: &Columns<'_>, t: &[f64], out: &mut [Vec<f64>]) {
    fn single<const C: usize>(codes: &[i32], z: &[f64], t: impl Iterator<Item = f64>, out: &mut [f64]) {
        for ((&l, z), t) in codes.iter().zip(z.chunks_exact(C)).zip(t) {
            let out = &mut out[l as usize * C..(l as usize + 1) * C];
            (0..C).for_each(|c| out[c] += t * z[c]);
        }
    }
    let k = plan.k;
    for ((f, zf), out) in plan.z.iter().enumerate().zip(out) {
        let (cols, codes, z) = (zf.columns.len(), columns.codes(f), columns.z(f));
        let c0 = zf.columns[0].component;
        let own = t.iter().skip(c0).step_by(k).copied();
        if zf.intercept {
            codes.iter().zip(own).for_each(|(&l, t)| out[l as usize] += t);
            continue;
        }
        match cols {
            _ if zf.columns.iter().any(|c| c.component != c0) => {}
            1 => {
                single::<1>(codes, z, own, out);
                continue;
            }
            2 => {
                single::<2>(codes, z, own, out);
                continue;
            }
            3 => {
                single::<3>(codes, z, own, out);
                continue;
            }
            _ => {}
        }
        for ((&l, z), t) in codes.iter().zip(z.chunks_exact(cols)).zip(t.chunks_exact(k)) {
            let out = &mut out[l as usize * cols..(l as usize + 1) * cols];
            out.iter_mut().zip(z).zip(&zf.columns).for_each(|((o, z), col)| *o += t[col.component] * z);
        }
    }
}

/// Room for one row: entries of sparse columns, the part of integrated fixed effects, S_i, columns in use.
struct Scratch {
    entries: Vec<(u32, f64)>,
    w: Vec<f64>,
    sq: Vec<f64>,
    /// Columns of a term that are not zero.
    touched: Vec<usize>,
    /// S_i of a panel's rows where it is one number.
    single: Vec<f64>,
}

/// z'C z of the rows, C their level's block.
fn add_forms(blocks: &[f64], codes: &[i32], z: &[f64], cols: usize, out: &mut [f64]) {
    fn fixed<const C: usize>(blocks: &[f64], codes: &[i32], z: &[f64], out: &mut [f64]) {
        for ((out, &l), z) in out.iter_mut().zip(codes).zip(z.chunks_exact(C)) {
            let block = &blocks[l as usize * C * C..(l as usize + 1) * C * C];
            for b in 0..C {
                *out += z[b] * (0..C).map(|a| block[a + b * C] * z[a]).sum::<f64>();
            }
        }
    }
    match cols {
        1 => return fixed::<1>(blocks, codes, z, out),
        2 => return fixed::<2>(blocks, codes, z, out),
        3 => return fixed::<3>(blocks, codes, z, out),
        4 => return fixed::<4>(blocks, codes, z, out),
        _ => {}
    }
    // Indicator columns of wide terms are mostly zero.
    let mut touched = vec![];
    for ((out, &l), z) in out.iter_mut().zip(codes).zip(z.chunks_exact(cols)) {
        let block = &blocks[l as usize * cols * cols..(l as usize + 1) * cols * cols];
        touched.clear();
        touched.extend((0..cols).filter(|&a| z[a] != 0.0));
        for &b in &touched {
            *out += z[b] * touched.iter().map(|&a| block[a + b * cols] * z[a]).sum::<f64>();
        }
    }
}

/// s_i = 1/2 D3_i : S_i of the rows.
struct Skewed<'a> {
    plan: &'a Plan,
    m: &'a Moments,
    rows: &'a GlmmRows<'a>,
    cov: &'a Covariance,
    d3: &'a [f64],
    third: Vec<usize>,
}

impl<'a> Skewed<'a> {
    fn new(plan: &'a Plan, m: &'a Moments, rows: &'a GlmmRows<'a>, cov: &'a Covariance, d3: &'a [f64]) -> Self {
        Skewed { plan, m, rows, cov, d3, third: packed3(plan.k) }
    }

    fn scratch(&self) -> Scratch {
        let k = self.plan.k;
        let fixed = self.cov.restricted.as_ref().map_or(0, |r| r.len());
        Scratch { entries: vec![], w: vec![0.0; k * fixed], sq: vec![0.0; k * k], touched: vec![], single: vec![] }
    }

    /// The only predictor with random effects, where S_i is one number.
    fn single(&self) -> Option<usize> {
        self.plan.single().filter(|_| self.cov.restricted.is_none())
    }

    /// s_i of the present rows, n x K.
    fn panel(&self, columns: &Columns<'_>, start: usize, scratch: &mut Scratch, out: &mut [f64]) {
        let k = self.plan.k;
        let k3 = k * (k + 1) * (k + 2) / 6;
        let Some(c) = self.single() else {
            for (r, out) in out.chunks_exact_mut(k).enumerate() {
                self.square(columns, start + r, r, scratch);
                self.contract(&self.d3[(start + r) * k3..][..k3], &scratch.sq, out);
            }
            return;
        };
        let sq = &mut scratch.single;
        sq.clear();
        sq.resize(out.len() / k, 0.0);
        self.single_squares(columns, start, sq);
        let d3 = self.d3[start * k3..].chunks_exact(k3);
        for ((out, d), s) in out.chunks_exact_mut(k).zip(d3).zip(sq) {
            let places = &self.third[(c * k + c) * k..][..k];
            out.iter_mut().zip(places).for_each(|(o, &at)| *o = 0.5 * d[at] * *s);
        }
    }

    /// S_i of the present rows where it is one number, added to `sq`.
    fn single_squares(&self, columns: &Columns<'_>, start: usize, sq: &mut [f64]) {
        for (f, zf) in self.plan.z.iter().enumerate() {
            add_forms(&self.cov.diag[f], columns.codes(f), columns.z(f), zf.columns.len(), sq);
        }
        for (p, pair) in self.m.pairs.iter().enumerate() {
            let (kl, ko) = (self.plan.z[pair.lead].columns.len(), self.plan.z[pair.other].columns.len());
            let entry = &self.plan.entry[p][start..start + sq.len()];
            if kl * ko == 1 && self.plan.z[pair.lead].intercept && self.plan.z[pair.other].intercept {
                sq.iter_mut().zip(entry).for_each(|(s, &e)| *s += 2.0 * self.cov.pairs[p][e as usize]);
                continue;
            }
            let (zl, zo) = (columns.z(pair.lead).chunks_exact(kl), columns.z(pair.other).chunks_exact(ko));
            for ((s, &e), (zl, zo)) in sq.iter_mut().zip(entry).zip(zl.zip(zo)) {
                let c = &self.cov.pairs[p][e as usize * kl * ko..(e as usize + 1) * kl * ko];
                for (column, zo) in c.chunks_exact(kl).zip(zo).filter(|(_, z)| **z != 0.0) {
                    *s += 2.0 * zo * column.iter().zip(zl).map(|(c, z)| c * z).sum::<f64>();
                }
            }
        }
    }

    /// S_i (`scratch.sq`) of row i, the r-th of its panel, whose random columns are filled in.
    #[inline]
    fn square(&self, columns: &Columns<'_>, i: usize, r: usize, scratch: &mut Scratch) {
        let Scratch { entries, w, sq, touched, .. } = scratch;
        let k = self.plan.k;
        sq.fill(0.0);
        for (f, zf) in self.plan.z.iter().enumerate() {
            if zf.intercept {
                sq[zf.columns[0].component * (k + 1)] += self.cov.diag[f][columns.codes(f)[r] as usize];
                continue;
            }
            let cols = zf.columns.len();
            let l = columns.codes(f)[r] as usize;
            let z = &columns.z(f)[r * cols..(r + 1) * cols];
            let c = &self.cov.diag[f][l * cols * cols..(l + 1) * cols * cols];
            // Indicator columns of wide terms are mostly zero.
            touched.clear();
            touched.extend((0..cols).filter(|&a| z[a] != 0.0));
            for &b in touched.iter() {
                for &a in touched.iter() {
                    sq[zf.columns[a].component * k + zf.columns[b].component] += z[a] * z[b] * c[a + b * cols];
                }
            }
        }
        for (p, pair) in self.m.pairs.iter().enumerate() {
            let (lead, other) = (&self.plan.z[pair.lead], &self.plan.z[pair.other]);
            let (kl, ko) = (lead.columns.len(), other.columns.len());
            let e = self.plan.entry[p][i] as usize;
            if lead.intercept && other.intercept {
                let (a, b) = (lead.columns[0].component, other.columns[0].component);
                sq[a * k + b] += self.cov.pairs[p][e];
                sq[b * k + a] += self.cov.pairs[p][e];
                continue;
            }
            let c = &self.cov.pairs[p][e * kl * ko..(e + 1) * kl * ko];
            let (zl, zo) = (&columns.z(pair.lead)[r * kl..][..kl], &columns.z(pair.other)[r * ko..][..ko]);
            touched.clear();
            touched.extend((0..kl).filter(|&a| zl[a] != 0.0));
            for b in (0..ko).filter(|&b| zo[b] != 0.0) {
                for &a in touched.iter() {
                    let v = zl[a] * zo[b] * c[a + b * kl];
                    let (ca, cb) = (lead.columns[a].component, other.columns[b].component);
                    sq[ca * k + cb] += v;
                    sq[cb * k + ca] += v;
                }
            }
        }
        if let Some(fixed) = &self.cov.restricted {
            fixed.row(self.plan, columns, self.rows, i, r, entries, w);
            let n = fixed.len();
            for a in 0..k {
                for b in 0..k {
                    let (wa, wb) = (&w[a * n..(a + 1) * n], &w[b * n..(b + 1) * n]);
                    sq[a * k + b] += wa.iter().zip(wb).map(|(x, y)| x * y).sum::<f64>();
                }
            }
        }
    }

    /// 1/2 D3 : S of a row.
    #[inline]
    fn contract(&self, d: &[f64], sq: &[f64], s: &mut [f64]) {
        let k = self.plan.k;
        if k == 1 {
            s[0] = 0.5 * d[0] * sq[0];
            return;
        }
        for (t, s) in s.iter_mut().enumerate() {
            *s = 0.5 * (0..k * k).map(|ab| d[self.third[ab * k + t]] * sq[ab]).sum::<f64>();
        }
    }
}

/// S_i of every row: one number where `single` says that random effects are in one predictor, else K x K.
pub fn squares_rows(plan: &Plan, m: &Moments, rows: &GlmmRows<'_>, cov: &Covariance, single: bool) -> Vec<f64> {
    let each = if single { 1 } else { plan.k * plan.k };
    let skewed = Skewed::new(plan, m, rows, cov, &[]);
    let mut out = vec![0.0; rows.n * each];
    let part = |(at, out): (usize, &mut [f64])| {
        let (start, n) = (at * PANEL, out.len() / each);
        let mut columns = Columns::of(n, plan);
        columns.fill_z(rows, start, n);
        if single {
            return skewed.single_squares(&columns, start, out);
        }
        let mut scratch = skewed.scratch();
        for (r, out) in out.chunks_exact_mut(each).enumerate() {
            skewed.square(&columns, start + r, r, &mut scratch);
            out.copy_from_slice(&scratch.sq);
        }
    };
    if rows.n <= GRAIN {
        out.chunks_mut(PANEL * each).enumerate().for_each(part);
    } else {
        out.par_chunks_mut(PANEL * each).enumerate().with_min_len(16).for_each(part);
    }
    out
}

/// s_i of every row, n x K (see `skewness`).
pub fn skewness_rows(plan: &Plan, m: &Moments, rows: &GlmmRows<'_>, cov: &Covariance, d3: &[f64]) -> Vec<f64> {
    let k = plan.k;
    let skewed = Skewed::new(plan, m, rows, cov, d3);
    let mut out = vec![0.0; rows.n * k];
    out.par_chunks_mut(PANEL * k).enumerate().with_min_len(16).for_each(|(c, out)| {
        let (start, n) = (c * PANEL, out.len() / k);
        let mut columns = Columns::of(n, plan);
        columns.fill_z(rows, start, n);
        if cov.restricted.is_some() {
            columns.fill_x(rows, start, n);
        }
        skewed.panel(&columns, start, &mut skewed.scratch(), out);
    });
    out
}

/// Z't for one number a row and predictor, by factor (levels x cols).
pub fn random_adjoint(plan: &Plan, rows: &GlmmRows<'_>, t: &[f64]) -> Vec<Vec<f64>> {
    let k = plan.k;
    let mut out: Vec<Vec<f64>> = plan.z.iter().map(|f| vec![0.0; f.levels * f.columns.len()]).collect();
    let mut columns = Columns::of(PANEL.min(rows.n), plan);
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        columns.fill_z(rows, start, n);
        add_random(plan, &columns, &t[start * k..(start + n) * k], &mut out);
    }
    out
}

/// X't for one number a row and predictor; with clusters (index of every row, how many) one X't for each of them.
pub fn fixed_adjoint(plan: &Plan, rows: &GlmmRows<'_>, t: &[f64], clusters: Option<(&[u32], usize)>) -> Vec<f64> {
    let (k, p) = (plan.k, plan.p());
    let mut out = vec![0.0; p * clusters.map_or(1, |c| c.1)];
    let mut columns = Columns::of(PANEL.min(rows.n), plan);
    let mut entries = vec![];
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        columns.fill_x(rows, start, n);
        let Some((index, _)) = clusters else {
            add_fixed(plan, rows, &columns, start, &t[start * k..(start + n) * k], &mut entries, &mut out);
            continue;
        };
        for (r, &at) in index[start..start + n].iter().enumerate() {
            let out = &mut out[at as usize * p..(at as usize + 1) * p];
            for (c, xp) in plan.x.iter().enumerate() {
                let (d, g) = (xp.dense.len(), t[(start + r) * k + c]);
                xp.add(out, g, &columns.x(c)[r * d..(r + 1) * d]);
                if !xp.sparse.is_empty() {
                    sparse_entries(xp, &rows.components[c], start + r, &mut entries);
                    entries.iter().for_each(|&(j, x)| out[j as usize] += g * x);
                }
            }
        }
    }
    out
}
