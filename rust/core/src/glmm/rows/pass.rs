//! One pass over the rows: derivatives of the log density, summed into the cross-products.

use rayon::prelude::*;

use super::panel::{add_random, chunk_bounds, sparse_entries, Panel};
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
    /// Also everything that concerns the fixed effects.
    Joint,
    /// And the third derivatives.
    Full,
    /// What the gradient of the likelihood needs of it: without the fixed effects' cross-products.
    Slope,
}

impl Want {
    fn fixed(self) -> bool {
        matches!(self, Want::Joint | Want::Full | Want::Slope)
    }

    fn third(self) -> bool {
        matches!(self, Want::Full | Want::Slope)
    }

    fn curvature(self) -> bool {
        self != Want::Value
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
    fn zero(plan: &Plan, m: &Moments, want: Want) -> Self {
        let full = want.fixed();
        let newton = want.curvature();
        let p = if full { plan.p() } else { 0 };
        let sized = |on: bool, n: usize| vec![0.0; if on { n } else { 0 }];
        Sums {
            value: 0.0,
            xg: vec![0.0; p],
            xx: sized(want != Want::Slope, p * p),
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
    let first_only = matches!(want, Want::Newton | Want::Convex) && plan.only_first();
    let size = family.panel().min(to - from);
    let mut panel = Panel::of(size, plan, stride);
    let k2 = k * (k + 1) / 2;
    let k3 = k * (k + 1) * (k + 2) / 6;
    let mut fixed_sums = FixedSums::new(plan, want);
    let mut start = from;
    while start < to {
        let n = size.min(to - start);
        panel.fill_z(plan, rows, start, n);
        panel.eta[..n * k].copy_from_slice(&fixed[start * k..(start + n) * k]);
        add_random(plan, &mut panel, b, n);
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
        if want != Want::Value {
            if want == Want::Convex {
                panel.out[..n * stride].chunks_exact_mut(stride).for_each(|row| convex(k, &mut row[1 + k..1 + k + k2]));
            }
            scatter_random(plan, m, &panel, stride, start, n, s);
        }
        if want.fixed() {
            panel.fill_x(plan, rows, start, n);
            fixed_sums.scatter(plan, rows, &panel, stride, start, n, s);
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
    fixed_sums.finish(plan, s);
    if want.curvature() {
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

/// Dense partial sums of the fixed effects, one block for every two predictors.
struct FixedSums {
    products: bool,
    blocks: Vec<Vec<f64>>,
    entries: Vec<Vec<(u32, f64)>>,
}

impl FixedSums {
    fn new(plan: &Plan, want: Want) -> Self {
        let products = matches!(want, Want::Full | Want::Joint);
        let mut blocks = vec![];
        for a in 0..plan.k {
            for b in a..plan.k {
                blocks.push(vec![0.0; if products { plan.x[a].dense.len() * plan.x[b].dense.len() } else { 0 }]);
            }
        }
        FixedSums { products, blocks, entries: vec![vec![]; plan.k] }
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
        if let Some(first) = plan.plain() {
            let (out, x) = (&panel.out[..n * stride], &panel.x[0]);
            match plan.x[0].dense.len() {
                1 => return self.scatter_plain::<1>(first, out, stride, x, &panel.codes, s),
                2 => return self.scatter_plain::<2>(first, out, stride, x, &panel.codes, s),
                3 => return self.scatter_plain::<3>(first, out, stride, x, &panel.codes, s),
                4 => return self.scatter_plain::<4>(first, out, stride, x, &panel.codes, s),
                _ => {}
            }
        }
        for (r, row) in panel.out.chunks_exact(stride).take(n).enumerate() {
            for a in 0..k {
                let da = plan.x[a].dense.len();
                let xa = &panel.x[a][r * da..(r + 1) * da];
                let g = row[1 + a];
                plan.x[a].add(&mut s.xg, g, xa);
                for b in (a..k).filter(|_| self.products) {
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
                    if z == 0.0 {
                        continue;
                    }
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

    /// One predictor with D dense columns beside intercepts of groups, summed in registers.
    fn scatter_plain<const D: usize>(
        &mut self,
        first: usize,
        out: &[f64],
        stride: usize,
        x: &[f64],
        codes: &[Vec<i32>],
        s: &mut Sums,
    ) {
        let rows = || out.chunks_exact(stride).zip(x.chunks_exact(D));
        let (mut xg, mut xx) = ([0.0; D], [[0.0; D]; D]);
        for (row, x) in rows() {
            (0..D).for_each(|i| xg[i] += row[1] * x[i]);
        }
        (0..D).for_each(|i| s.xg[first + i] += xg[i]);
        if self.products {
            for (row, x) in rows() {
                for i in 0..D {
                    let wx = row[2] * x[i];
                    (0..D).for_each(|j| xx[i][j] += wx * x[j]);
                }
            }
            let block = self.blocks[0].chunks_exact_mut(D);
            block.zip(&xx).for_each(|(o, x)| o.iter_mut().zip(x).for_each(|(o, x)| *o += x));
        }
        let p1 = s.xg.len() + 1;
        for (zx, codes) in s.zx.iter_mut().zip(codes) {
            for ((row, x), &l) in rows().zip(codes) {
                let to = &mut zx[l as usize * p1 + first..][..D];
                (0..D).for_each(|i| to[i] += row[2] * x[i]);
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
            for b in (0..k).filter(|_| self.products) {
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
        if !self.products {
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
