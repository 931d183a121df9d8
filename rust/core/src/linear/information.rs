//! Expected information about the variance components, tr(P V_i P V_j).

use crate::cholesky::{SelectedInverse, Whole};
use crate::dense;
use crate::levels::place;

use super::exact::add_products;
use super::{dot, triangles_of_shrinkage, Component, Lmm, Parts};

/// Multiplications that the whole of A^-1 may take, and how much slower those of a solve are, with their addressing.
const MOST_WHOLE: f64 = 1e8;
const SCATTERED: f64 = 4.0;
/// Levels times probes that an estimated information needs.
const PROBES: usize = 1000;

/// Vectors that probe a factor: `probes` a column, those of its first column at `from`; `all`: a unit vector a level.
pub(super) struct Probing {
    pub factor: usize,
    pub probes: usize,
    pub all: bool,
    pub from: usize,
}

/// A sign by counter (splitmix64): the same in every run.
fn random_sign(i: u64) -> f64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    if (z ^ (z >> 31)) & 1 == 0 {
        1.0
    } else {
        -1.0
    }
}

/// The mean of both estimates of every pair of components, or the exact one.
fn symmetrised(a: &[f64], exact: &[bool]) -> Vec<f64> {
    let c = exact.len();
    let entry = |i: usize, j: usize| match (exact[i], exact[j]) {
        (true, false) => a[i + j * c],
        (false, true) => a[j + i * c],
        _ => 0.5 * (a[i + j * c] + a[j + i * c]),
    };
    (0..c * c).map(|t| entry(t % c, t / c)).collect()
}

impl Lmm {
    /// The same for A over u only, from a selected inverse.
    pub(crate) fn information_of(&self, inv: SelectedInverse) -> Vec<f64> {
        let parts = Parts { trace: vec![], uu: vec![], n: vec![], u: vec![], h: vec![], inv, shrunk: vec![] };
        self.information(&parts, false)
    }

    /// tr(P V_i P V_j): exact for one grouping factor and for factors of few levels, otherwise estimated.
    pub(super) fn information(&self, parts: &Parts, reml: bool) -> Vec<f64> {
        match (&self.alone, self.moments.random(), self.moments.wide.len()) {
            (_, 0, _) => vec![],
            (Some(a), ..) if !reml => a.information(parts, false),
            (_, 1, 0) => self.information_of_one(parts, reml),
            _ => self.information_of_nest(parts).unwrap_or_else(|| self.information_of_many(parts)),
        }
    }

    /// That of nested factors of single numbers.
    fn information_of_nest(&self, parts: &Parts) -> Option<Vec<f64>> {
        let m = &self.moments;
        let plain = parts.h.is_empty() && m.couplings.is_empty() && m.wide.is_empty();
        let sums = plain.then(|| self.numeric.squares_of_nest(&self.symbolic, &parts.inv)).flatten()?;
        let of = |i: &Component, j: &Component| sums[i.factor + j.factor * m.factors.len()];
        Some(self.components.iter().flat_map(|j| self.components.iter().map(move |i| of(i, j))).collect())
    }

    fn information_of_one(&self, parts: &Parts, reml: bool) -> Vec<f64> {
        let k = self.moments.factors[0].cols;
        let mut w = vec![0.0; k * k * k * k];
        self.add_diagonal(parts, 0, reml, &mut w);
        let c = self.components.len();
        let mut info = vec![0.0; c * c];
        for (i, ci) in self.components.iter().enumerate() {
            for (j, cj) in self.components.iter().enumerate() {
                for (a, cc) in ci.cells() {
                    for (b, d) in cj.cells() {
                        info[i + j * c] += w[(a * k + cc) * k * k + b * k + d];
                    }
                }
            }
        }
        info
    }

    /// B <- (I - A^-1) B, A over (u, beta) if `h` is there; row-major (size x m).
    fn shrink(&self, parts: &Parts, b: &mut [f64], m: usize) {
        let p = self.moments.p();
        let mut x = b.to_vec();
        self.numeric.forward(&self.symbolic, &mut x, m);
        self.numeric.backward(&self.symbolic, &mut x, m);
        let mut fixed = vec![0.0; if parts.h.is_empty() { 0 } else { p * m }];
        if !fixed.is_empty() {
            for (h, row) in parts.h.chunks_exact(p).zip(b.chunks_exact(m)) {
                for (f, &hv) in fixed.chunks_exact_mut(m).zip(h) {
                    f.iter_mut().zip(row).for_each(|(o, v)| *o += hv * v);
                }
            }
            for (h, row) in parts.h.chunks_exact(p).zip(x.chunks_exact_mut(m)) {
                for (f, &hv) in fixed.chunks_exact(m).zip(h) {
                    row.iter_mut().zip(f).for_each(|(o, v)| *o += hv * v);
                }
            }
        }
        b.iter_mut().zip(&x).for_each(|(b, x)| *b -= x);
    }

    /// tr(E_i M E_j M) = sum over levels and entries (r, c) of E_i of e_lr' M E_j M e_lc, exactly where the whole of A^-1
    /// is not more work. Otherwise the unit vectors of all levels of a column are replaced by a few vectors of random
    /// signs (Hutchinson 1990): the relative error is about PROBES^-1/2, also for a column whose variance is negligible.
    fn information_of_many(&self, parts: &Parts) -> Vec<f64> {
        let plans = self.probings();
        let probes: usize = plans.iter().flatten().map(|p| p.probes * self.moments.factors[p.factor].cols).sum();
        let solves = 2.0 * (probes * self.symbolic.panel_size) as f64;
        let whole = Whole::work(&self.symbolic, !parts.h.is_empty());
        if whole < MOST_WHOLE && whole < SCATTERED * solves {
            return self.information_of_whole(parts);
        }
        let c = self.components.len();
        let mut info = vec![0.0; c * c];
        let mut exact = vec![false; c];
        let rows: Vec<Vec<usize>> = (0..self.moments.factors.len()).map(|f| self.level_rows(f)).collect();
        for plans in plans {
            let (x, m) = self.probed(parts, &plans, &rows);
            for plan in &plans {
                let count = if plan.all { 1.0 } else { plan.probes as f64 };
                self.components
                    .iter()
                    .zip(&mut exact)
                    .filter(|(i, _)| i.factor == plan.factor)
                    .for_each(|i| *i.1 = plan.all);
                add_products(&self.components, &x, m, plan, &rows, 1.0 / count, &mut info);
            }
        }
        symmetrised(&info, &exact)
    }

    /// How every factor is probed. Those with few probes go together, since a solve is a visit to the whole factor L;
    /// those whose every level is probed go alone.
    fn probings(&self) -> Vec<Vec<Probing>> {
        let (mut together, mut alone) = (vec![], vec![]);
        let mut from = 0;
        for (factor, f) in self.moments.factors[..self.moments.random()].iter().enumerate() {
            let probes = PROBES.div_ceil(f.levels);
            if 2 * probes >= f.levels {
                alone.push(vec![Probing { factor, probes: f.levels, all: true, from: 0 }]);
            } else {
                together.push(Probing { factor, probes, all: false, from });
                from += f.cols * probes;
            }
        }
        alone.into_iter().chain((!together.is_empty()).then_some(together)).collect()
    }

    /// First row (in elimination order) of every level of a factor.
    pub(super) fn level_rows(&self, f: usize) -> Vec<usize> {
        let sym = &self.symbolic;
        (0..sym.nodes).filter(|&q| sym.factor_at[q] as usize == f).map(|q| sym.offset[q] as usize).collect()
    }

    /// M times probing vectors of every column of some factors, row-major (size x m), and m.
    fn probed(&self, parts: &Parts, plans: &[Probing], rows: &[Vec<usize>]) -> (Vec<f64>, usize) {
        let cols = |p: &Probing| self.moments.factors[p.factor].cols;
        let m = plans.iter().map(|p| cols(p) * p.probes).sum();
        let mut x = vec![0.0; self.symbolic.size * m];
        for p in plans {
            for (l, &row) in rows[p.factor].iter().enumerate() {
                for c in 0..cols(p) {
                    let out = &mut x[(row + c) * m + p.from + c * p.probes..][..p.probes];
                    if p.all {
                        out[l] = 1.0;
                    } else {
                        out.iter_mut().enumerate().for_each(|(s, o)| *o = random_sign((l * p.probes + s) as u64));
                    }
                }
            }
        }
        self.shrink(parts, &mut x, m);
        (x, m)
    }

    /// Add sum_l M_ll (x) M_ll for M = I - A^-1 and, for REML, the blocks between levels that beta causes.
    fn add_diagonal(&self, parts: &Parts, f: usize, reml: bool, w: &mut [f64]) {
        let factor = &self.moments.factors[f];
        let (k, p) = (factor.cols, self.moments.p());
        let k2 = k * k;
        // Products of all pairs of entries of the lower triangle, summed over levels by one matrix product.
        let half = place(k, 0);
        let blocks = triangles_of_shrinkage(&parts.inv.diag[f], k);
        let mut products = vec![0.0; half * half];
        dense::syrk_rows(&mut products, half, &blocks, half, factor.levels, 1.0);
        for a in 0..k {
            for c in 0..k {
                for b in 0..k {
                    for d in 0..k {
                        let (i, j) = (place(a, b), place(c, d));
                        w[(a * k + c) * k2 + b * k + d] += products[i.max(j) + i.min(j) * half];
                    }
                }
            }
        }
        if !reml || p == 0 || k2 * p * p > 10_000 {
            return;
        }
        let sym = &self.symbolic;
        let mut sums = vec![0.0; k2 * p * p];
        let mut h = vec![0.0; k2];
        for pos in (0..sym.nodes).filter(|&q| sym.factor_at[q] as usize == f) {
            let rows = &parts.h[sym.offset[pos] as usize * p..][..k * p];
            for a in 0..k {
                for b in 0..k {
                    h[a + b * k] = dot(&rows[a * p..(a + 1) * p], &rows[b * p..(b + 1) * p]);
                    let s = &mut sums[(a * k + b) * p * p..][..p * p];
                    for i in 0..p {
                        for j in 0..p {
                            s[i * p + j] += rows[a * p + i] * rows[b * p + j];
                        }
                    }
                }
            }
            for a in 0..k {
                for c in 0..k {
                    for b in 0..k {
                        for d in 0..k {
                            w[(a * k + c) * k2 + b * k + d] -= h[a + b * k] * h[c + d * k];
                        }
                    }
                }
            }
        }
        for ac in 0..k2 {
            for bd in 0..k2 {
                w[ac * k2 + bd] += dot(&sums[ac * p * p..(ac + 1) * p * p], &sums[bd * p * p..(bd + 1) * p * p]);
            }
        }
    }
}
