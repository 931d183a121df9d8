//! One pass over the rows: derivatives of the log density, summed into the cross-products.

use rayon::prelude::*;

use super::fixed::FixedSums;
use super::panel::{chunk_bounds, Panel};
use super::plan::Plan;
use super::GlmmRows;
use crate::design::Moments;
use crate::family::Family;
use crate::jet::pair as packed;

/// What a pass leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// -log f only.
    Value,
    /// Gradient and curvature in the random effects.
    Newton,
    /// The same with every row's curvature made positive.
    Convex,
    /// Gradient and curvature in the random effects of rows whose first predictor is the log of a mean: a row that Newton's
    /// method would move by more than one is taken for what it is where it has arrived.
    Growing,
    /// Gradient and curvature in the fixed effects alone.
    Fixed,
    /// Both, and what they have in common.
    Joint,
    /// And the third derivatives.
    Full,
    /// What the gradient of the likelihood needs of it: without the fixed effects' cross-products.
    Slope,
}

impl Want {
    fn random(self) -> bool {
        !matches!(self, Want::Value | Want::Fixed)
    }

    fn fixed(self) -> bool {
        matches!(self, Want::Fixed | Want::Joint | Want::Full | Want::Slope)
    }

    /// Cross-products of the fixed effects.
    fn products(self) -> bool {
        self.fixed() && self != Want::Slope
    }

    fn third(self) -> bool {
        matches!(self, Want::Full | Want::Slope)
    }
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
    pub(super) fn zero(plan: &Plan, m: &Moments, want: Want) -> Self {
        let newton = want.random();
        let full = newton && want.fixed();
        let p = plan.p();
        let sized = |on: bool, n: usize| vec![0.0; if on { n } else { 0 }];
        Sums {
            value: 0.0,
            xg: sized(want.fixed(), p),
            xx: sized(want.products(), p * p),
            zg: m.factors.iter().map(|f| sized(newton, f.levels * f.cols)).collect(),
            gram: m.factors.iter().map(|f| sized(newton, f.levels * f.cols * f.cols)).collect(),
            pairs: m.pairs.iter().map(|p| sized(newton, p.value.len())).collect(),
            zx: m.factors.iter().map(|f| sized(full, f.levels * f.cols * (p + 1))).collect(),
        }
    }

    /// Room for X'D1 and X'D2X alone.
    pub(super) fn fixed(plan: &Plan) -> Self {
        let p = plan.p();
        let none = vec![];
        Sums {
            value: 0.0,
            xg: vec![0.0; p],
            xx: vec![0.0; p * p],
            zg: none.clone(),
            gram: none.clone(),
            pairs: none.clone(),
            zx: none,
        }
    }

    fn parts(&self) -> impl Iterator<Item = &Vec<f64>> {
        [&self.xg, &self.xx].into_iter().chain(&self.zg).chain(&self.gram).chain(&self.pairs).chain(&self.zx)
    }

    fn size(&self) -> usize {
        self.parts().map(|v| v.len()).sum()
    }

    pub(super) fn add(&mut self, other: &Sums) {
        self.value += other.value;
        let mine = [&mut self.xg, &mut self.xx].into_iter();
        let mine = mine.chain(&mut self.zg).chain(&mut self.gram).chain(&mut self.pairs).chain(&mut self.zx);
        for (a, b) in mine.zip(other.parts()) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
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
    let k3 = if want.third() { k * (k + 1) * (k + 2) / 6 } else { 0 };
    d3.resize(if k3 > 0 { rows.n * k3 } else { d3.len() }, 0.0);
    let bounds = chunk_bounds(rows.n, total.size(), family.grain());
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
        Want::Full | Want::Slope => 3,
        _ => 2,
    };
    let stride = family.stride(order);
    let first_only = matches!(want, Want::Newton | Want::Convex | Want::Growing) && plan.only_first();
    let size = family.panel().min(to - from);
    let mut panel = Panel::of(size, plan, stride);
    let k2 = k * (k + 1) / 2;
    let k3 = k * (k + 1) * (k + 2) / 6;
    let mut fixed_sums = FixedSums::new(plan, want.products());
    let mut start = from;
    while start < to {
        let n = size.min(to - start);
        panel.columns.fill_z(rows, start, n);
        panel.predict(fixed, b);
        let (eta, out) = (&panel.eta[..n * k], &mut panel.out[..n * stride]);
        if first_only {
            family.evaluate_first(&rows.data, start, eta, out);
        } else {
            family.evaluate(&rows.data, start, eta, order, out);
        }
        if let Some(w) = rows.weights {
            for (row, w) in panel.out[..n * stride].chunks_exact_mut(stride).zip(&w[start..start + n]) {
                row.iter_mut().for_each(|v| *v *= -w);
            }
        } else {
            panel.out[..n * stride].iter_mut().for_each(|v| *v = -*v);
        }
        s.value += panel.out[..n * stride].iter().step_by(stride).sum::<f64>();
        if want == Want::Convex {
            panel.out[..n * stride].chunks_exact_mut(stride).for_each(|row| convex(k, &mut row[1 + k..1 + k + k2]));
        }
        if want == Want::Growing {
            panel.out[..n * stride].chunks_exact_mut(stride).for_each(|row| grown(&mut row[1..2 + k]));
        }
        if want.random() {
            scatter_random(plan, m, &panel, stride, start, n, s);
        }
        if want.fixed() {
            panel.columns.fill_x(rows, start, n);
            fixed_sums.add(plan, rows, &panel, stride, (start, n), s, want.random());
        }
        if want.third() {
            for (to, row) in
                d3[(start - from) * k3..].chunks_exact_mut(k3).zip(panel.out[..n * stride].chunks_exact(stride))
            {
                to.copy_from_slice(&row[1 + k + k2..]);
            }
        }
        start += n;
    }
    if want.fixed() {
        fixed_sums.finish(plan, s);
    }
    if want.random() {
        for (gram, f) in s.gram.iter_mut().zip(&plan.z) {
            mirror_blocks(gram, f.columns.len());
        }
    }
}

pub(super) fn mirror_blocks(gram: &mut [f64], k: usize) {
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

/// Gradient and curvature of a row (`d`, first and last) of which Newton's method takes the mean to grow by 1 + r: it does
/// so by a step of log(1 + r), where the curvature has grown with it.
fn grown(d: &mut [f64]) {
    let last = d.len() - 1;
    let (g, w) = (d[0], d[last]);
    let r = -g / w;
    if w > 0.0 && r > 1.0 {
        d[last] = w * (1.0 + r);
        d[0] = -d[last] * r.ln_1p();
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

/// Z'D1 and Z'D2Z of the present rows, whose derivatives are in the panel.
pub(super) fn scatter_random(
    plan: &Plan,
    m: &Moments,
    panel: &Panel<'_>,
    stride: usize,
    start: usize,
    n: usize,
    s: &mut Sums,
) {
    let (k, columns, out) = (plan.k, &panel.columns, &panel.out[..n * stride]);
    for (f, zf) in plan.z.iter().enumerate() {
        let (cols, codes, z) = (zf.columns.len(), columns.codes(f), columns.z(f));
        let (zg, gram) = (&mut s.zg[f], &mut s.gram[f]);
        let c0 = zf.columns[0].component;
        let at = Place { stride, g: 1 + c0, w: 1 + k + packed(k, c0, c0) };
        if zf.intercept {
            for (row, &l) in out.chunks_exact(stride).zip(codes) {
                zg[l as usize] += row[at.g];
                gram[l as usize] += row[at.w];
            }
            continue;
        }
        if zf.columns.iter().all(|c| c.component == c0) {
            scatter_single(out, at, codes, z, cols, zg, gram);
            continue;
        }
        for ((row, &l), z) in out.chunks_exact(stride).zip(codes).zip(z.chunks_exact(cols)) {
            let l = l as usize;
            let zg = &mut zg[l * cols..(l + 1) * cols];
            let gram = &mut gram[l * cols * cols..(l + 1) * cols * cols];
            for b in (0..cols).filter(|&b| z[b] != 0.0) {
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
        let sums = &mut s.pairs[p];
        if lead.intercept && other.intercept {
            let w = 1 + k + packed(k, lead.columns[0].component, other.columns[0].component);
            for (row, &e) in out.chunks_exact(stride).zip(entry) {
                sums[e as usize] += row[w];
            }
            continue;
        }
        let (zl, zo) = (columns.z(pair.lead).chunks_exact(kl), columns.z(pair.other).chunks_exact(ko));
        for ((row, &e), (zl, zo)) in out.chunks_exact(stride).zip(entry).zip(zl.zip(zo)) {
            let block = &mut sums[e as usize * kl * ko..][..kl * ko];
            for (b, &zb) in zo.iter().enumerate().filter(|(_, z)| **z != 0.0) {
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
