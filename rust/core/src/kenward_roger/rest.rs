//! The traces of the levels that are left when one factor is absorbed, part by part.

use crate::dense;
use crate::design::{Factor, Moments};
use crate::levels::{linear_forms, place, push_triangle};
use crate::linear::{dot, Component};

use super::blocks::{append_times, inverse_plus, scatter, trace_of_product, Absorbed};
use super::products::{add, trace_of};
use super::traces::{Part, Traces};

pub struct Rest<'a> {
    pub m: &'a Moments,
    pub lambda: &'a [Vec<f64>],
    pub components: &'a [Component],
    pub lead: usize,
    pub absorbed: Vec<Absorbed>,
    /// First row of every level of every other factor in its part.
    pub row: Vec<Vec<usize>>,
}

/// The levels of the absorbed factor as their part sees them, one after the other: rows in the part, N_ab and G_ab (k
/// numbers a row).
struct Links {
    k: usize,
    start: Vec<usize>,
    rows: Vec<usize>,
    n: Vec<f64>,
    g: Vec<f64>,
}

impl Links {
    /// Rows, N_ab and G_ab of each level.
    fn iter(&self) -> impl Iterator<Item = (&[usize], &[f64], &[f64])> {
        self.start.windows(2).map(|w| {
            let entries = w[0] * self.k..w[1] * self.k;
            (&self.rows[w[0]..w[1]], &self.n[entries.clone()], &self.g[entries])
        })
    }
}

impl Rest<'_> {
    fn lead(&self) -> &Factor {
        &self.m.factors[self.lead]
    }

    fn own(&self) -> impl Iterator<Item = (usize, &Component)> {
        self.components.iter().enumerate().filter(|(_, c)| c.factor == self.lead)
    }

    fn others(&self) -> impl Iterator<Item = (usize, &Component)> {
        self.components.iter().enumerate().filter(|(_, c)| c.factor != self.lead)
    }

    /// Lower triangles of N_aa, level by level.
    pub fn triangles(&self) -> Vec<f64> {
        let k = self.lead().cols;
        let mut out = Vec::with_capacity(self.absorbed.len() * place(k, 0));
        self.absorbed.iter().for_each(|a| push_triangle(&mut out, k, |r, c| a.n[r + c * k]));
        out
    }

    /// The part of N_aa, from the sums over levels of the products of any two of its entries.
    pub fn of_lead(&self, triangles: &[f64]) -> Traces {
        let (c, k) = (self.components.len(), self.lead().cols);
        let half = place(k, 0);
        let mut products = vec![0.0; half * half];
        dense::syrk_rows(&mut products, half, triangles, half, self.absorbed.len(), 1.0);
        let mut out = Traces { first: vec![0.0; c], second: vec![0.0; c * c], alone: None };
        let first = linear_forms(self.own().map(|(_, c)| c), triangles, k);
        for ((i, ci), first) in self.own().zip(first) {
            out.first[i] = first;
            for (j, cj) in self.own() {
                for (r, cc) in ci.cells() {
                    for (u, v) in cj.cells() {
                        let (x, y) = (place(v, r), place(cc, u));
                        out.second[i + j * c] += products[x.max(y) + x.min(y) * half];
                    }
                }
            }
        }
        out
    }

    fn links(&self, part: &Part) -> Links {
        let k = self.lead().cols;
        let mut out = Links { k, start: vec![0], rows: vec![], n: vec![], g: vec![] };
        for &l in &part.leads {
            let first = out.g.len();
            for p in self.m.pairs.iter().filter(|p| p.lead == self.lead) {
                let ko = self.m.factors[p.other].cols;
                let entries = p.start[l] as usize..p.start[l + 1] as usize;
                for &level in &p.level[entries.clone()] {
                    let at = self.row[p.other][level as usize];
                    out.rows.extend(at..at + ko);
                }
                out.g.extend_from_slice(&p.value[entries.start * k * ko..entries.end * k * ko]);
            }
            out.start.push(out.rows.len());
            append_times(&mut out.n, &self.absorbed[l].b, &out.g[first..], k);
        }
        out
    }

    pub fn of_part(&self, part: &Part) -> Traces {
        let (c, s) = (self.components.len(), part.size);
        let mut out = Traces { first: vec![0.0; c], second: vec![0.0; c * c], alone: None };
        let links = self.links(part);
        let n_bb = self.remainder(part, &links);
        let k = self.kernel(part, &n_bb);
        let mut f = vec![0.0; s * s];
        dense::gemm(&mut f, s, &k, s, &n_bb, s, s, s, s, -1.0);
        (0..s).for_each(|i| f[i * (s + 1)] += 1.0);
        self.add_inner(part, &links, &k, &mut out);
        let shrunk: Vec<(usize, Vec<f64>)> = self
            .own()
            .map(|(i, ci)| (i, self.spread(ci, s, &links)))
            .map(|(i, h)| (i, self.against(part, i, h, &f, &k, &mut out)))
            .collect();
        for (i, a) in &shrunk {
            for (j, b) in &shrunk {
                out.second[i + j * c] += trace_of_product(a, b, s);
            }
        }
        drop(shrunk);
        let mut s_bb = vec![0.0; s * s];
        dense::gemm(&mut s_bb, s, &n_bb, s, &f, s, s, s, s, 1.0);
        self.add_rest(part, &s_bb, &mut out);
        out
    }

    /// N_bb = Z_b'V_a^-1Z_b.
    fn remainder(&self, part: &Part, links: &Links) -> Vec<f64> {
        let s = part.size;
        let mut out = vec![0.0; s * s];
        for &(f, l) in &part.nodes {
            let (k, at) = (self.m.factors[f].cols, self.row[f][l]);
            let g = &self.m.factors[f].gram[l * k * k..(l + 1) * k * k];
            (0..k * k).for_each(|e| out[at + e % k + (at + e / k) * s] += g[e]);
            for p in self.m.pairs.iter().filter(|p| p.lead == f) {
                let ko = self.m.factors[p.other].cols;
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let to = self.row[p.other][p.level[e] as usize];
                    for x in 0..k * ko {
                        let v = p.value[e * k * ko + x];
                        let (i, j) = (at + x % k, to + x / k);
                        out[i + j * s] += v;
                        out[j + i * s] += v;
                    }
                }
            }
        }
        let k = self.lead().cols;
        let mut hg = vec![];
        for ((rows, _, g), &l) in links.iter().zip(&part.leads) {
            hg.clear();
            append_times(&mut hg, &self.absorbed[l].h, g, k);
            hg.iter_mut().for_each(|v| *v = -*v);
            scatter(&mut out, s, rows, &hg, g, k);
        }
        dense::mirror(&mut out, s);
        out
    }

    /// K = Lambda (I + Lambda'N_bb Lambda)^-1 Lambda'.
    fn kernel(&self, part: &Part, n_bb: &[f64]) -> Vec<f64> {
        let s = part.size;
        let mut a = n_bb.to_vec();
        self.scale(part, &mut a, true);
        self.scale_columns(part, &mut a, true);
        let mut inverse = inverse_plus(&a, s);
        self.scale(part, &mut inverse, false);
        self.scale_columns(part, &mut inverse, false);
        inverse
    }

    /// A <- Lambda A, or Lambda'A.
    fn scale(&self, part: &Part, a: &mut [f64], transposed: bool) {
        for column in a.chunks_exact_mut(part.size) {
            for &(f, l) in &part.nodes {
                let (k, at) = (self.m.factors[f].cols, self.row[f][l]);
                let old = column[at..at + k].to_vec();
                for r in 0..k {
                    column[at + r] =
                        (0..k).map(|c| old[c] * self.lambda[f][if transposed { c + r * k } else { r + c * k }]).sum();
                }
            }
        }
    }

    /// A <- A Lambda, or A Lambda'.
    fn scale_columns(&self, part: &Part, a: &mut [f64], straight: bool) {
        let s = part.size;
        for &(f, l) in &part.nodes {
            let (k, at) = (self.m.factors[f].cols, self.row[f][l]);
            let old = a[at * s..(at + k) * s].to_vec();
            let new = &mut a[at * s..(at + k) * s];
            new.fill(0.0);
            for c in 0..k {
                for r in 0..k {
                    let v = self.lambda[f][if straight { r + c * k } else { c + r * k }];
                    add(&mut new[c * s..(c + 1) * s], &old[r * s..(r + 1) * s], v);
                }
            }
        }
    }

    /// What J = N_ab K N_ba takes off the blocks of the absorbed factor.
    fn add_inner(&self, part: &Part, links: &Links, kernel: &[f64], out: &mut Traces) {
        let (c, k, s) = (self.components.len(), self.lead().cols, part.size);
        let (mut j, mut nk) = (vec![0.0; k * k], vec![0.0; k]);
        for ((rows, n, _), &l) in links.iter().zip(&part.leads) {
            j.fill(0.0);
            for (n_col, &col) in n.chunks_exact(k).zip(rows) {
                let kernel = &kernel[col * s..(col + 1) * s];
                nk.fill(0.0);
                for (n_row, &row) in n.chunks_exact(k).zip(rows) {
                    nk.iter_mut().zip(n_row).for_each(|(o, v)| *o += v * kernel[row]);
                }
                for (column, v) in j.chunks_exact_mut(k).zip(n_col) {
                    column.iter_mut().zip(&nk).for_each(|(o, nk)| *o += nk * v);
                }
            }
            for (i, ci) in self.own() {
                out.first[i] -= ci.cells().map(|(r, c)| j[c + r * k]).sum::<f64>();
                for (t, ct) in self.own() {
                    out.second[i + t * c] -= 2.0 * trace_of(&self.absorbed[l].n, &j, k, ci, ct);
                }
            }
        }
    }

    /// H_i = N_ba E_i N_ab.
    fn spread(&self, i: &Component, s: usize, links: &Links) -> Vec<f64> {
        let k = self.lead().cols;
        let mut e = vec![0.0; k * k];
        i.cells().for_each(|(r, c)| e[r + c * k] = 1.0);
        let (mut out, mut moved) = (vec![0.0; s * s], vec![]);
        for (rows, n, _) in links.iter() {
            moved.clear();
            append_times(&mut moved, &e, n, k);
            scatter(&mut out, s, rows, &moved, n, k);
        }
        dense::mirror(&mut out, s);
        out
    }

    /// Add tr(F'H_i F E_j) for the components of the rest, and return K H_i.
    fn against(&self, part: &Part, i: usize, h: Vec<f64>, f: &[f64], kernel: &[f64], out: &mut Traces) -> Vec<f64> {
        let (c, s) = (self.components.len(), part.size);
        let mut hf = vec![0.0; s * s];
        dense::gemm(&mut hf, s, &h, s, f, s, s, s, s, 1.0);
        for &(g, l) in &part.nodes {
            let at = self.row[g][l];
            for (j, cj) in self.others().filter(|(_, cj)| cj.factor == g) {
                let v: f64 = cj.cells().map(|(r, c)| dot(&f[(at + r) * s..][..s], &hf[(at + c) * s..][..s])).sum();
                out.second[i + j * c] += v;
                out.second[j + i * c] += v;
            }
        }
        hf.fill(0.0);
        dense::gemm(&mut hf, s, kernel, s, &h, s, s, s, s, 1.0);
        hf
    }

    /// The traces among the components of the rest.
    fn add_rest(&self, part: &Part, s_bb: &[f64], out: &mut Traces) {
        let (c, s) = (self.components.len(), part.size);
        for &(f, l) in &part.nodes {
            let at = self.row[f][l];
            for (i, ci) in self.others().filter(|(_, ci)| ci.factor == f) {
                out.first[i] += ci.cells().map(|(r, c)| s_bb[at + c + (at + r) * s]).sum::<f64>();
                for &(g, t) in &part.nodes {
                    let to = self.row[g][t];
                    for (j, cj) in self.others().filter(|(_, cj)| cj.factor == g) {
                        for (r, cc) in ci.cells() {
                            for (u, v) in cj.cells() {
                                out.second[i + j * c] += s_bb[to + v + (at + r) * s] * s_bb[to + u + (at + cc) * s];
                            }
                        }
                    }
                }
            }
        }
    }
}
