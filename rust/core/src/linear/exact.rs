//! tr(M E_i) and tr(M E_i M E_j) from all columns of M = I - A^-1, a few levels at a time.

use super::information::Probing;
use super::{dot, Component, Lmm, Parts};
use crate::cholesky::Small;
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
        let (sym, c) = (&self.symbolic, self.components.len());
        let mut info = vec![0.0; c * c];
        let mut place = vec![0u32; sym.size];
        if !parts.h.is_empty() {
            // Coefficients tie all trees together.
            self.add_information(sym.forest().all(), &mut place, parts, &mut info);
            return info;
        }
        let mut small = Small::default();
        for tree in sym.forest().trees() {
            if Small::suits(sym, tree) {
                small.invert(&self.numeric, sym, tree, &mut place);
                self.add_small(&small, &mut info);
            } else {
                self.add_information(tree, &mut place, parts, &mut info);
            }
        }
        info
    }

    /// The share of a small tree: sums over two levels of M_ll' at the cells of two components.
    fn add_small(&self, tree: &Small, info: &mut [f64]) {
        let (c, n) = (self.components.len(), tree.size);
        let shrunk = |i: usize, j: usize| f64::from(u8::from(i == j)) - tree.inverse[i + j * n];
        for (i, ci) in self.components.iter().enumerate() {
            let times = if ci.row == ci.col { 1.0 } else { 2.0 };
            for (j, cj) in self.components.iter().enumerate() {
                let (own, others) = (&tree.nodes[ci.factor], &tree.nodes[cj.factor]);
                let mut sum = 0.0;
                for l in own {
                    if ci.row + ci.col + cj.row + cj.col == 0 {
                        let column = &tree.inverse[l * n..(l + 1) * n];
                        let square = |o: &usize| (f64::from(u8::from(o == l)) - column[*o]).powi(2);
                        sum += others.iter().map(square).sum::<f64>();
                        continue;
                    }
                    for o in others {
                        for (s, t) in cj.cells() {
                            sum += shrunk(o + s, l + ci.row) * shrunk(o + t, l + ci.col);
                        }
                    }
                }
                info[i + j * c] += times * sum;
            }
        }
    }

    /// The share of some trees.
    fn add_information(&self, supers: &[u32], place: &mut [u32], parts: &Parts, info: &mut [f64]) {
        let (sym, p) = (&self.symbolic, self.moments.p());
        let whole = self.numeric.whole(sym, supers, place);
        let size = whole.scalars.len();
        let mut rows: Vec<Vec<usize>> = self.moments.factors.iter().map(|_| Vec::with_capacity(size)).collect();
        for s in supers.iter().map(|&s| &sym.supers[s as usize]) {
            for q in s.first as usize..s.last as usize {
                rows[sym.factor_at[q] as usize].push(place[sym.offset[q] as usize] as usize);
            }
        }
        let h: Vec<f64> = match parts.h.is_empty() {
            true => vec![],
            false => whole.scalars.iter().flat_map(|&q| &parts.h[q as usize * p..][..p]).copied().collect(),
        };
        for Chunk { plan, at } in self.chunks(&rows, COLUMNS) {
            let m = at.len();
            let mut x = vec![0.0; size * m];
            whole.columns(&at, &mut x);
            if !h.is_empty() {
                let own: Vec<f64> = at.iter().flat_map(|q| h[q * p..(q + 1) * p].iter().copied()).collect();
                dense::gemm_tn(&mut x, m, &own, p, &h, p, m, size, p, 1.0);
            }
            to_shrinkage(&mut x, &at);
            add_products(&self.components, &x, m, &plan, &rows, 1.0, info);
        }
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
