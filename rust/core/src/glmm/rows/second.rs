//! What second derivatives of the likelihood ask of the rows: their derivatives one by one, products with them, and Z'WZ
//! for any weights.
//!
//! Where all random effects are in one predictor c, the matrices W that weigh them are told by their column c, and S by
//! one number.

use rayon::prelude::*;

use super::panel::{chunk_bounds, Columns, Panel, PANEL};
use super::pass::{mirror_blocks, scatter_random, Sums, Want};
use super::plan::{packed3, Plan};
use super::GlmmRows;
use crate::design::Moments;
use crate::family::Family;
use crate::jet::pair as packed;

/// Minus the log density of every row, its first (n x K), second and third derivatives (n x packed), weights included.
pub struct Derivatives {
    pub k: usize,
    /// The only predictor with random effects or latent coefficients.
    pub single: Option<usize>,
    pub value: Vec<f64>,
    pub first: Vec<f64>,
    pub second: Vec<f64>,
    pub third: Vec<f64>,
    /// Where the third derivative (a, b, c) lies.
    place: Vec<usize>,
}

/// out += by W x of every row, W symmetric (packed).
fn add_symmetric<const K: usize>(w: &[f64], x: &[f64], by: f64, out: &mut [f64]) {
    let rows = out.chunks_exact_mut(K).zip(w.chunks_exact(K * (K + 1) / 2)).zip(x.chunks_exact(K));
    for ((out, w), x) in rows {
        for a in 0..K {
            out[a] += by * (0..K).map(|b| w[packed(K, a, b)] * x[b]).sum::<f64>();
        }
    }
}

impl Derivatives {
    /// Up to the third derivatives, or without these (`order` 2); `latent`: whether coefficients are found with the effects.
    pub fn new(plan: &Plan, family: &Family, rows: &GlmmRows<'_>, eta: &[f64], order: usize, latent: bool) -> Self {
        let (k, n) = (plan.k, rows.n);
        let (k2, k3) = (k * (k + 1) / 2, if order < 3 { 0 } else { k * (k + 1) * (k + 2) / 6 });
        let [mut value, mut first, mut second, mut third] = [1, k, k2, k3].map(|c| vec![0.0; n * c]);
        let (size, stride) = (family.panel(), family.stride(order));
        let mut pieces = vec![];
        let mut rest = third.as_mut_slice();
        for ((value, first), second) in
            value.chunks_mut(size).zip(first.chunks_mut(size * k)).zip(second.chunks_mut(size * k2))
        {
            let (third, tail) = std::mem::take(&mut rest).split_at_mut(value.len() * k3);
            pieces.push((value, first, second, third));
            rest = tail;
        }
        type Piece<'p> = (&'p mut [f64], &'p mut [f64], &'p mut [f64], &'p mut [f64]);
        let part = |(at, (value, first, second, third)): (usize, Piece<'_>)| {
            let (start, m) = (at * size, value.len());
            let mut out = vec![0.0; m * stride];
            family.evaluate(&rows.data, start, &eta[start * k..(start + m) * k], order, &mut out);
            for (i, row) in out.chunks_exact_mut(stride).enumerate() {
                let w = -rows.weights.map_or(1.0, |w| w[start + i]);
                row.iter_mut().for_each(|v| *v *= w);
                value[i] = row[0];
                first[i * k..(i + 1) * k].copy_from_slice(&row[1..1 + k]);
                second[i * k2..(i + 1) * k2].copy_from_slice(&row[1 + k..1 + k + k2]);
                third[i * k3..(i + 1) * k3].copy_from_slice(&row[1 + k + k2..][..k3]);
            }
        };
        if n <= family.grain() {
            pieces.into_iter().enumerate().for_each(part);
        } else {
            pieces.into_par_iter().enumerate().with_min_len(family.grain() / PANEL).for_each(part);
        }
        let single = plan.single().filter(|_| !latent);
        Derivatives { k, single, value, first, second, third, place: packed3(k) }
    }

    /// How many numbers of W a row are told.
    pub fn width(&self) -> usize {
        if self.single.is_some() {
            self.k
        } else {
            self.k * (self.k + 1) / 2
        }
    }

    /// W: the third derivatives of the rows along a change of their predictors (n x K).
    pub fn along(&self, x: &[f64]) -> Vec<f64> {
        let k = self.k;
        if k == 1 {
            return self.third.iter().zip(x).map(|(d, x)| d * x).collect();
        }
        let (width, k3) = (self.width(), k * (k + 1) * (k + 2) / 6);
        // The places of (a, b, .) of every number, one after the other.
        let places: Vec<usize> = match self.single {
            Some(c) => self.place[c * k * k..(c + 1) * k * k].to_vec(),
            None => (0..k).flat_map(|a| self.place[(a * k + a) * k..(a + 1) * k * k].iter().copied()).collect(),
        };
        let mut out = vec![0.0; x.len() / k * width];
        for ((out, d), x) in out.chunks_exact_mut(width).zip(self.third.chunks_exact(k3)).zip(x.chunks_exact(k)) {
            for (out, places) in out.iter_mut().zip(places.chunks_exact(k)) {
                *out = places.iter().zip(x).map(|(&p, x)| d[p] * x).sum();
            }
        }
        out
    }

    /// out += by W z, where z is that of random effects and latent coefficients (n x K).
    pub fn add_along(&self, w: &[f64], z: &[f64], by: f64, out: &mut [f64]) {
        match self.single {
            Some(c) => add_column(self.k, w, &z[c..], by, out),
            None => add_products(self.k, w, z, by, out),
        }
    }

    /// out += by D2 x.
    pub fn add_second(&self, x: &[f64], by: f64, out: &mut [f64]) {
        add_products(self.k, &self.second, x, by, out);
    }

    /// Half the third derivatives contracted with S of every row (one number, or K x K), n x K.
    pub fn contracted(&self, squares: &[f64]) -> Vec<f64> {
        let k = self.k;
        if k == 1 {
            return self.third.iter().zip(squares).map(|(d, s)| 0.5 * d * s).collect();
        }
        let k3 = k * (k + 1) * (k + 2) / 6;
        if let Some(c) = self.single {
            let places = &self.place[(c * k + c) * k..][..k];
            let mut out = vec![0.0; squares.len() * k];
            for ((out, d), s) in out.chunks_exact_mut(k).zip(self.third.chunks_exact(k3)).zip(squares) {
                out.iter_mut().zip(places).for_each(|(o, &p)| *o = 0.5 * s * d[p]);
            }
            return out;
        }
        let mut out = vec![0.0; squares.len() / k];
        for ((out, d), s) in out.chunks_exact_mut(k).zip(self.third.chunks_exact(k3)).zip(squares.chunks_exact(k * k)) {
            for (ab, s) in s.iter().enumerate().filter(|(_, s)| **s != 0.0) {
                let places = &self.place[ab * k..][..k];
                out.iter_mut().zip(places).for_each(|(o, &p)| *o += 0.5 * s * d[p]);
            }
        }
        out
    }
}

/// A column a row (n x K) times one number a row, the first of K, times `by`, added to `out`.
fn add_column(k: usize, w: &[f64], z: &[f64], by: f64, out: &mut [f64]) {
    if k == 1 {
        return out.iter_mut().zip(w.iter().zip(z)).for_each(|(o, (w, z))| *o += by * w * z);
    }
    for ((out, w), z) in out.chunks_exact_mut(k).zip(w.chunks_exact(k)).zip(z.iter().step_by(k)) {
        out.iter_mut().zip(w).for_each(|(o, w)| *o += by * w * z);
    }
}

/// A symmetric matrix a row (packed) times a vector a row (n x K), times `by`, added to `out`.
pub fn add_products(k: usize, w: &[f64], x: &[f64], by: f64, out: &mut [f64]) {
    match k {
        1 => return out.iter_mut().zip(w.iter().zip(x)).for_each(|(o, (w, x))| *o += by * w * x),
        2 => return add_symmetric::<2>(w, x, by, out),
        3 => return add_symmetric::<3>(w, x, by, out),
        4 => return add_symmetric::<4>(w, x, by, out),
        _ => {}
    }
    let k2 = k * (k + 1) / 2;
    for ((out, w), x) in out.chunks_exact_mut(k).zip(w.chunks_exact(k2)).zip(x.chunks_exact(k)) {
        for (a, out) in out.iter_mut().enumerate() {
            *out += by * x.iter().enumerate().map(|(b, x)| w[packed(k, a, b)] * x).sum::<f64>();
        }
    }
}

/// Level of every row in a factor.
pub fn levels_of(plan: &Plan, rows: &GlmmRows<'_>, factor: usize) -> Vec<u32> {
    let mut columns = Columns::of(PANEL.min(rows.n), plan);
    let mut out = Vec::with_capacity(rows.n);
    for start in (0..rows.n).step_by(PANEL) {
        columns.fill_z(rows, start, PANEL.min(rows.n - start));
        out.extend(columns.codes(factor).iter().map(|&c| c as u32));
    }
    out
}

/// Z'WZ of W of every row, as `Derivatives::along` tells it (the column of `single`, or packed): blocks by factor and by
/// observed pair.
pub fn random_products(
    plan: &Plan,
    m: &Moments,
    rows: &GlmmRows<'_>,
    (w, single): (&[f64], Option<usize>),
    grain: usize,
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let run = |from: usize, to: usize| {
        let mut s = Sums::zero(plan, m, Want::Newton);
        match single {
            Some(c) => single_range(plan, m, rows, &w[c..], (from, to), &mut s),
            None => range(plan, m, rows, w, (from, to), &mut s),
        }
        s
    };
    let size = m.factors.iter().map(|f| f.gram.len()).chain(m.pairs.iter().map(|p| p.value.len())).sum();
    let bounds = chunk_bounds(rows.n, size, grain);
    let mut parts: Vec<Sums> =
        if bounds.len() == 2 { vec![run(0, rows.n)] } else { bounds.par_windows(2).map(|b| run(b[0], b[1])).collect() };
    let mut total = parts.remove(0);
    parts.iter().for_each(|s| total.add(s));
    for (gram, f) in total.gram.iter_mut().zip(&plan.z) {
        mirror_blocks(gram, f.columns.len());
    }
    (total.gram, total.pairs)
}

fn range(plan: &Plan, m: &Moments, rows: &GlmmRows<'_>, w: &[f64], (from, to): (usize, usize), s: &mut Sums) {
    let (k, k2) = (plan.k, plan.k * (plan.k + 1) / 2);
    let (stride, size) = (1 + k + k2, PANEL.min(to - from));
    let mut panel = Panel::of(size, plan, stride);
    for start in (from..to).step_by(PANEL) {
        let n = PANEL.min(to - start);
        panel.columns.fill_z(rows, start, n);
        for (row, w) in panel.out.chunks_exact_mut(stride).zip(w[start * k2..(start + n) * k2].chunks_exact(k2)) {
            row[..1 + k].fill(0.0);
            row[1 + k..].copy_from_slice(w);
        }
        scatter_random(plan, m, &panel, stride, start, n, s);
    }
}

/// The same of effects in one predictor; a row's weight is the first of K numbers. Lower triangles of the factors' blocks.
fn single_range(plan: &Plan, m: &Moments, rows: &GlmmRows<'_>, w: &[f64], (from, to): (usize, usize), s: &mut Sums) {
    let k = plan.k;
    let mut columns = Columns::of(PANEL.min(to - from), plan);
    for start in (from..to).step_by(PANEL) {
        let n = PANEL.min(to - start);
        columns.fill_z(rows, start, n);
        let weights = || w[start * k..].iter().step_by(k).take(n);
        for (f, zf) in plan.z.iter().enumerate() {
            let (cols, codes, gram) = (zf.columns.len(), columns.codes(f), &mut s.gram[f]);
            if zf.intercept {
                codes.iter().zip(weights()).for_each(|(&l, w)| gram[l as usize] += w);
                continue;
            }
            for ((&l, w), z) in codes.iter().zip(weights()).zip(columns.z(f).chunks_exact(cols)) {
                let block = &mut gram[l as usize * cols * cols..][..cols * cols];
                for (b, zb) in z.iter().enumerate().filter(|(_, z)| **z != 0.0) {
                    let wz = w * zb;
                    block[b * cols + b..(b + 1) * cols].iter_mut().zip(&z[b..]).for_each(|(o, z)| *o += wz * z);
                }
            }
        }
        for (p, pair) in m.pairs.iter().enumerate() {
            let (lead, other) = (&plan.z[pair.lead], &plan.z[pair.other]);
            let (kl, ko) = (lead.columns.len(), other.columns.len());
            let (entry, sums) = (&plan.entry[p][start..start + n], &mut s.pairs[p]);
            if lead.intercept && other.intercept {
                entry.iter().zip(weights()).for_each(|(&e, w)| sums[e as usize] += w);
                continue;
            }
            let z = columns.z(pair.lead).chunks_exact(kl).zip(columns.z(pair.other).chunks_exact(ko));
            for ((&e, w), (zl, zo)) in entry.iter().zip(weights()).zip(z) {
                let block = sums[e as usize * kl * ko..][..kl * ko].chunks_exact_mut(kl);
                for (column, zo) in block.zip(zo).filter(|(_, z)| **z != 0.0) {
                    column.iter_mut().zip(zl).for_each(|(o, z)| *o += w * zo * z);
                }
            }
        }
    }
}
