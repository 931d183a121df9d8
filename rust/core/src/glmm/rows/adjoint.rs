//! The way back: X't and Z't of numbers by row, and the third-derivative term of the gradient.

use rayon::prelude::*;

use crate::family::GRAIN;

use super::panel::{chunk_bounds, sparse_entries, Panel, PANEL};
use super::plan::{packed3, Plan};
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
    let skewed = Skewed::new(plan, m, rows, cov, d3);
    let (mut panel, mut scratch, mut s) =
        (Panel::of(PANEL.min(to - from), plan, 0), skewed.scratch(), vec![0.0; plan.k]);
    let mut start = from;
    while start < to {
        let n = PANEL.min(to - start);
        panel.fill_z(plan, rows, start, n);
        panel.fill_x(plan, rows, start, n);
        if skewed.plain_rows(&mut panel, start, n, out) {
            start += n;
            continue;
        }
        for r in 0..n {
            skewed.row(&panel, start + r, r, &mut scratch, &mut s);
            for (c, xp) in plan.x.iter().enumerate() {
                let dc = xp.dense.len();
                let x = &panel.x[c][r * dc..(r + 1) * dc];
                xp.add(&mut out.x, s[c], x);
                if !xp.sparse.is_empty() {
                    sparse_entries(xp, &rows.components[c], start + r, &mut scratch.entries);
                    scratch.entries.iter().for_each(|&(j, x)| out.x[j as usize] += s[c] * x);
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

/// to += sum_i s_i x_i over rows of D numbers.
fn add_rows<const D: usize>(to: &mut [f64], x: &[f64], s: &[f64]) {
    let mut sum = [0.0; D];
    for (x, s) in x.chunks_exact(D).zip(s) {
        (0..D).for_each(|i| sum[i] += s * x[i]);
    }
    to.iter_mut().zip(sum).for_each(|(o, v)| *o += v);
}

/// Room for one row: entries of sparse columns, the part of integrated fixed effects, S_i, columns in use.
struct Scratch {
    entries: Vec<(u32, f64)>,
    w: Vec<f64>,
    sq: Vec<f64>,
    /// Columns of a term that are not zero.
    touched: Vec<usize>,
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
        Scratch { entries: vec![], w: vec![0.0; k * fixed], sq: vec![0.0; k * k], touched: vec![] }
    }

    /// A panel of one predictor and intercepts (see `Plan::plain`): s_i take the place of the predictors.
    fn plain_rows(&self, panel: &mut Panel, from: usize, n: usize, out: &mut Adjoint) -> bool {
        let Some(first) = self.plan.plain().filter(|_| self.cov.restricted.is_none()) else { return false };
        let Panel { x, eta: s, codes, .. } = panel;
        let s = &mut s[..n];
        s.fill(0.0);
        for (diag, codes) in self.cov.diag.iter().zip(codes.iter()) {
            s.iter_mut().zip(codes).for_each(|(s, &l)| *s += diag[l as usize]);
        }
        for (pair, entry) in self.cov.pairs.iter().zip(&self.plan.entry) {
            s.iter_mut().zip(&entry[from..from + n]).for_each(|(s, &e)| *s += 2.0 * pair[e as usize]);
        }
        s.iter_mut().zip(&self.d3[from..from + n]).for_each(|(s, d)| *s *= 0.5 * d);
        for (out, codes) in out.z.iter_mut().zip(codes.iter()) {
            s.iter().zip(codes).for_each(|(s, &l)| out[l as usize] += s);
        }
        let d = self.plan.x[0].dense.len();
        let to = &mut out.x[first..first + d];
        match d {
            0 => {}
            1 => add_rows::<1>(to, &x[0], s),
            2 => add_rows::<2>(to, &x[0], s),
            3 => add_rows::<3>(to, &x[0], s),
            4 => add_rows::<4>(to, &x[0], s),
            _ => x[0].chunks_exact(d).zip(s).for_each(|(x, s)| to.iter_mut().zip(x).for_each(|(o, x)| *o += *s * x)),
        }
        true
    }

    /// Row i, the r-th of its panel, whose random columns are filled in.
    #[inline]
    fn row(&self, panel: &Panel, i: usize, r: usize, scratch: &mut Scratch, s: &mut [f64]) {
        let Scratch { entries, w, sq, touched } = scratch;
        let k = self.plan.k;
        let k3 = k * (k + 1) * (k + 2) / 6;
        sq.fill(0.0);
        for (f, zf) in self.plan.z.iter().enumerate() {
            if zf.intercept {
                sq[zf.columns[0].component * (k + 1)] += self.cov.diag[f][panel.codes[f][r] as usize];
                continue;
            }
            let cols = zf.columns.len();
            let l = panel.codes[f][r] as usize;
            let z = &panel.z[f][r * cols..(r + 1) * cols];
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
            let (zl, zo) = (&panel.z[pair.lead][r * kl..][..kl], &panel.z[pair.other][r * ko..][..ko]);
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
            fixed.row(self.plan, panel, self.rows, i, r, entries, w);
            let n = fixed.len();
            for a in 0..k {
                for b in 0..k {
                    let (wa, wb) = (&w[a * n..(a + 1) * n], &w[b * n..(b + 1) * n]);
                    sq[a * k + b] += wa.iter().zip(wb).map(|(x, y)| x * y).sum::<f64>();
                }
            }
        }
        let d = &self.d3[(i) * k3..(i + 1) * k3];
        if k == 1 {
            s[0] = 0.5 * d[0] * sq[0];
        }
        for (t, s) in s.iter_mut().enumerate().filter(|_| k > 1) {
            *s = 0.5 * (0..k * k).map(|ab| d[self.third[ab * k + t]] * sq[ab]).sum::<f64>();
        }
    }
}

/// s_i of every row, n x K (see `skewness`).
pub fn skewness_rows(plan: &Plan, m: &Moments, rows: &GlmmRows<'_>, cov: &Covariance, d3: &[f64]) -> Vec<f64> {
    let k = plan.k;
    let skewed = Skewed::new(plan, m, rows, cov, d3);
    let mut out = vec![0.0; rows.n * k];
    out.par_chunks_mut(PANEL * k).enumerate().with_min_len(16).for_each(|(c, out)| {
        let (start, n) = (c * PANEL, out.len() / k);
        let (mut panel, mut scratch) = (Panel::of(n, plan, 0), skewed.scratch());
        panel.fill_z(plan, rows, start, n);
        if cov.restricted.is_some() {
            panel.fill_x(plan, rows, start, n);
        }
        for (r, out) in out.chunks_exact_mut(k).enumerate() {
            skewed.row(&panel, start + r, r, &mut scratch, out);
        }
    });
    out
}

/// Z't for one number a row and predictor, by factor (levels x cols).
pub fn random_adjoint(plan: &Plan, rows: &GlmmRows<'_>, t: &[f64]) -> Vec<Vec<f64>> {
    let k = plan.k;
    let mut out: Vec<Vec<f64>> = plan.z.iter().map(|f| vec![0.0; f.levels * f.columns.len()]).collect();
    let mut panel = Panel::of(PANEL.min(rows.n), plan, 0);
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        panel.fill_z(plan, rows, start, n);
        for (f, zf) in plan.z.iter().enumerate() {
            let cols = zf.columns.len();
            for r in 0..n {
                let at = panel.codes[f][r] as usize * cols;
                for (c, col) in zf.columns.iter().enumerate() {
                    out[f][at + c] += t[(start + r) * k + col.component] * panel.z[f][r * cols + c];
                }
            }
        }
    }
    out
}

/// X't for one number a row and predictor; with clusters (index of every row, how many) one X't for each of them.
pub fn fixed_adjoint(plan: &Plan, rows: &GlmmRows<'_>, t: &[f64], clusters: Option<(&[u32], usize)>) -> Vec<f64> {
    let (k, p) = (plan.k, plan.p());
    let mut out = vec![0.0; p * clusters.map_or(1, |c| c.1)];
    let mut panel = Panel::of(PANEL.min(rows.n), plan, 0);
    let mut entries = vec![];
    for start in (0..rows.n).step_by(PANEL) {
        let n = PANEL.min(rows.n - start);
        panel.fill_x(plan, rows, start, n);
        for r in 0..n {
            let at = clusters.map_or(0, |c| c.0[start + r] as usize);
            let out = &mut out[at * p..(at + 1) * p];
            for (c, xp) in plan.x.iter().enumerate() {
                let (d, g) = (xp.dense.len(), t[(start + r) * k + c]);
                let x = &panel.x[c][r * d..(r + 1) * d];
                xp.add(out, g, x);
                if !xp.sparse.is_empty() {
                    sparse_entries(xp, &rows.components[c], start + r, &mut entries);
                    entries.iter().for_each(|&(j, x)| out[j as usize] += g * x);
                }
            }
        }
    }
    out
}
