//! tr(M E_i) and tr(M E_i M E_j) from all columns of M = I - A^-1, a few levels at a time.

use super::information::Probing;
use super::{dot, Component, Lmm, Parts};
use crate::{dense, CoreError};

/// Columns of A^-1 that are formed at once: from pieces in the cache, and from larger ones.
const COLUMNS: usize = 64;
const FEW_COLUMNS: usize = 16;

/// Levels of a factor whose columns of M are formed together, and the columns (scalar rows in elimination order).
struct Chunk {
    plan: Probing,
    at: Vec<usize>,
}

/// M from columns of A^-1.
fn to_shrinkage(x: &mut [f64], at: &[usize]) {
    x.iter_mut().for_each(|v| *v = -*v);
    at.iter().enumerate().for_each(|(j, q)| x[q * at.len() + j] += 1.0);
}

/// Add the products of the columns of M (row-major, m columns) that belong to one factor's components.
pub(super) fn add_products(
    components: &[Component],
    x: &[f64],
    m: usize,
    plan: &Probing,
    rows: &[Vec<usize>],
    weight: f64,
    info: &mut [f64],
) {
    let c = components.len();
    for (i, ci) in components.iter().enumerate().filter(|(_, i)| i.factor == plan.factor) {
        let (r, c0) = (plan.from + ci.row * plan.probes, plan.from + ci.col * plan.probes);
        for (j, cj) in components.iter().enumerate() {
            let mut sum = 0.0;
            for &row in &rows[cj.factor] {
                for (s, t) in cj.cells() {
                    let (xs, xt) = (&x[(row + s) * m..(row + s + 1) * m], &x[(row + t) * m..(row + t + 1) * m]);
                    sum += dot(&xs[r..r + plan.probes], &xt[c0..c0 + plan.probes]);
                }
            }
            info[i + j * c] += weight * sum * if ci.row == ci.col { 1.0 } else { 2.0 };
        }
    }
}

/// Add tr(M E_i) of the levels of a chunk.
fn add_traces(components: &[Component], x: &[f64], Chunk { plan, at }: &Chunk, traces: &mut [f64]) {
    for (i, ci) in components.iter().enumerate().filter(|(_, i)| i.factor == plan.factor) {
        for (r, c) in ci.cells() {
            traces[i] += (0..plan.probes).map(|l| x[(at[l] + r) * at.len() + c * plan.probes + l]).sum::<f64>();
        }
    }
}

impl Lmm {
    fn chunks(&self, rows: &[Vec<usize>], columns: usize) -> Vec<Chunk> {
        let mut out = vec![];
        for (factor, f) in self.moments.factors[..self.moments.random()].iter().enumerate() {
            for levels in rows[factor].chunks((columns / f.cols).max(1)) {
                let at = (0..f.cols).flat_map(|j| levels.iter().map(move |row| row + j)).collect();
                out.push(Chunk { plan: Probing { factor, probes: levels.len(), all: true, from: 0 }, at });
            }
        }
        out
    }

    /// tr(M E_i M E_j), with A over (u, beta) if `h` is there, from pieces in the cache.
    pub(super) fn information_of_whole(&self, parts: &Parts) -> Vec<f64> {
        let (c, p, size) = (self.components.len(), self.moments.p(), self.symbolic.size);
        let mut info = vec![0.0; c * c];
        let rows: Vec<Vec<usize>> = (0..self.moments.factors.len()).map(|f| self.level_rows(f)).collect();
        let whole = self.numeric.whole(&self.symbolic);
        for Chunk { plan, at } in self.chunks(&rows, COLUMNS) {
            let m = at.len();
            let mut x = vec![0.0; size * m];
            whole.columns(&at, &mut x);
            if !parts.h.is_empty() {
                let own: Vec<f64> = at.iter().flat_map(|q| parts.h[q * p..(q + 1) * p].iter().copied()).collect();
                dense::gemm_tn(&mut x, m, &own, p, &parts.h, p, m, size, p, 1.0);
            }
            to_shrinkage(&mut x, &at);
            add_products(&self.components, &x, m, &plan, &rows, 1.0, &mut info);
        }
        info
    }

    /// Multiplications of `traces_of_columns`, the factor that it uses up included; None where it is not to be had.
    pub(crate) fn work_of_columns(&self) -> Option<f64> {
        let sym = &self.symbolic;
        let work = self.moments.couplings.is_empty().then(|| crate::cholesky::Columns::work(sym)).flatten()?;
        Some(work + sym.flops() + (sym.size * sym.size * self.components.len()) as f64)
    }

    /// tr(M E_i) and tr(M E_i M E_j) at the current factor, A over u. The factor is used up: `solve` makes it anew.
    pub(crate) fn traces_of_columns(&mut self) -> Result<(Vec<f64>, Vec<f64>), CoreError> {
        let rows: Vec<Vec<usize>> = (0..self.moments.factors.len()).map(|f| self.level_rows(f)).collect();
        let chunks = self.chunks(&rows, FEW_COLUMNS);
        let (components, c) = (&self.components, self.components.len());
        let mut out = (vec![0.0; c], vec![0.0; c * c]);
        let columns = self.numeric.columns(&self.symbolic)?;
        let visit = |i: usize, mut x: Vec<f64>| {
            let (mut traces, mut info) = (vec![0.0; c], vec![0.0; c * c]);
            to_shrinkage(&mut x, &chunks[i].at);
            add_traces(components, &x, &chunks[i], &mut traces);
            add_products(components, &x, chunks[i].at.len(), &chunks[i].plan, &rows, 1.0, &mut info);
            (traces, info)
        };
        let gather = |part: (Vec<f64>, Vec<f64>)| {
            out.0.iter_mut().zip(part.0).for_each(|(o, v)| *o += v);
            out.1.iter_mut().zip(part.1).for_each(|(o, v)| *o += v);
        };
        let at: Vec<&[usize]> = chunks.iter().map(|c| c.at.as_slice()).collect();
        columns.visit(&at, visit, gather);
        self.numeric.stop.check()?;
        let even = |t: usize| 0.5 * (out.1[t] + out.1[t / c + (t % c) * c]);
        Ok((out.0, (0..c * c).map(even).collect()))
    }
}
