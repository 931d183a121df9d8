//! Small sparse factors of single numbers: where every product goes is known beforehand, so that there are neither fronts
//! nor updates that wait (right-looking columns, and Takahashi's recursion in the same places).

use super::inverse::SelectedInverse;
use super::leaves::right_division;
use super::numeric::{factor_small, LITTLE};
use super::source::Source;
use super::symbolic::{Super, Symbolic};
use crate::{dense, CoreError};

/// Columns that supernodes may have.
const NARROW: u32 = 8;

/// Places in the panels of the factor.
#[derive(Debug)]
pub(super) struct Direct {
    /// Of every node's diagonal, and of every edge.
    diagonal: Vec<u32>,
    edge: Vec<u32>,
    /// Of the products of every supernode's rows below it, the lower triangle column by column.
    product: Vec<u32>,
}

impl Direct {
    /// None where fronts are better.
    pub fn of(sym: &Symbolic) -> Option<Self> {
        let products: usize = sym.supers.iter().map(|s| triangle(s.below as usize)).sum();
        let suits = |s: &Super| !s.packed && s.width <= NARROW;
        if !sym.scalar() || sym.size > LITTLE || products > LITTLE || !sym.supers.iter().all(suits) {
            return None;
        }
        let mut owner = vec![0; sym.nodes];
        for (i, s) in sym.supers.iter().enumerate() {
            owner[s.first as usize..s.last as usize].fill(i);
        }
        let place = |row: u32, column: u32| {
            let s = &sym.supers[owner[column as usize]];
            let inside =
                if row < s.last { row - s.first } else { s.width + sym.rows(s).partition_point(|&q| q < row) as u32 };
            s.panel as u32 + inside + (column - s.first) * (s.width + s.below)
        };
        let nodes = 0..sym.nodes as u32;
        let edges = |p: u32| sym.edges(p as usize).iter().map(move |e| (e.row, p));
        let below = |s: &Super| {
            let rows = sym.rows(s);
            (0..rows.len()).flat_map(move |j| rows[j..].iter().map(move |&q| (q, rows[j])))
        };
        Some(Direct {
            diagonal: nodes.clone().map(|p| place(p, p)).collect(),
            edge: nodes.flat_map(edges).map(|(row, column)| place(row, column)).collect(),
            product: sym.supers.iter().flat_map(below).map(|(row, column)| place(row, column)).collect(),
        })
    }

    /// L in its panels.
    pub fn factorise(&self, sym: &Symbolic, src: Source<'_>, panels: &mut [f64]) -> Result<(), CoreError> {
        panels.fill(0.0);
        let factors: Vec<_> = (0..sym.base.len()).map(|f| src.scalars(f)).collect();
        for (p, &at) in self.diagonal.iter().enumerate() {
            panels[at as usize] = factors[sym.factor_at[p] as usize](sym.level(p));
        }
        let pairs = src.scalar_pairs();
        for (e, &at) in sym.edges.iter().zip(&self.edge) {
            let (scale, values) = pairs[e.pair as usize];
            panels[at as usize] = scale * values[e.entry as usize];
        }
        let mut product = &self.product[..];
        for s in &sym.supers {
            let (w, r) = (s.width as usize, s.below as usize);
            let (panel, later) = panels[s.panel..].split_at_mut(s.panel_len());
            let before = s.panel + panel.len();
            factor_small(panel, w, r)?;
            let (own, rest) = product.split_at(triangle(r));
            product = rest;
            for column in panel.chunks_exact(w + r) {
                let l = &column[w..];
                let mut to = own.iter();
                for (j, lj) in l.iter().enumerate() {
                    to.by_ref().zip(&l[j..]).for_each(|(&at, v)| later[at as usize - before] -= lj * v);
                }
            }
        }
        Ok(())
    }

    /// Pivot of a node, and the regression of the node on those it meets later, with the sign of the inverse:
    /// E[u_p | later] = y'u.
    pub fn column<const N: usize>(&self, sym: &Symbolic, panels: &[f64], p: usize) -> (f64, [f64; N]) {
        let (pivot, mut y) = (panels[self.diagonal[p] as usize], [0.0; N]);
        let own = &self.edge[sym.edge_start[p] as usize..sym.edge_start[p + 1] as usize];
        y.iter_mut().zip(own).for_each(|(y, &at)| *y = -panels[at as usize] / pivot);
        (pivot, y)
    }

    /// The inverse on the pattern of L.
    pub fn invert(&self, sym: &Symbolic, panels: &[f64], mut out: SelectedInverse) -> SelectedInverse {
        let mut z = vec![0.0; panels.len()];
        let (mut y, mut zy, mut both, mut own) = (vec![], vec![], vec![], vec![]);
        let mut product = &self.product[..];
        for s in sym.supers.iter().rev() {
            let (w, r) = (s.width as usize, s.below as usize);
            let (panel, ld) = (&panels[s.panel..s.panel + s.panel_len()], w + r);
            let (rest, above) = product.split_at(product.len() - triangle(r));
            product = rest;
            y.clear();
            right_division(panel, w, r, &mut y);
            both.clear();
            both.resize(r * r, 0.0);
            let mut at = above.iter();
            for j in 0..r {
                for (i, &at) in (j..r).zip(at.by_ref()) {
                    (both[i + j * r], both[j + i * r]) = (z[at as usize], z[at as usize]);
                }
            }
            // Z_rw = -Z_rr Y; Z_ww = (L11 L11')^-1 - Y' Z_rw.
            own.clear();
            own.resize(w * w, 0.0);
            dense::small_inverse(panel, w, ld, &mut own);
            let to = &mut z[s.panel..s.panel + ld * w];
            for j in 0..w {
                zy.clear();
                zy.extend((0..r).map(|i| (0..r).map(|k| both[k + i * r] * y[k * w + j]).sum::<f64>()));
                for i in 0..w {
                    to[i + j * ld] = own[i + j * w] + (0..r).map(|k| y[k * w + i] * zy[k]).sum::<f64>();
                }
                to[w + j * ld..ld + j * ld].iter_mut().zip(&zy).for_each(|(o, v)| *o = -v);
            }
        }
        for (p, &at) in self.diagonal.iter().enumerate() {
            out.diag[sym.factor_at[p] as usize][sym.level(p)] = z[at as usize];
        }
        if !out.pairs.is_empty() {
            for (e, &at) in sym.edges.iter().zip(&self.edge) {
                out.pairs[e.pair as usize][e.entry as usize] = z[at as usize];
            }
        }
        out
    }
}

/// Numbers of a lower triangle.
fn triangle(n: usize) -> usize {
    n * (n + 1) / 2
}
