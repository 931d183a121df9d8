//! Small sparse factors of single numbers: where every product goes is known beforehand, so that there are neither fronts
//! nor updates that wait (right-looking columns, and Takahashi's recursion in the same places).

use rayon::prelude::*;

use super::inverse::SelectedInverse;
use super::leaves::right_division;
use super::nest::Nest;
use super::numeric::{factor_small, LITTLE};
use super::source::Source;
use super::symbolic::{Super, Symbolic};
use super::tangent::Change;
use crate::{dense, CoreError};

/// Columns that supernodes may have.
const NARROW: u32 = 8;
/// Rows below a single column whose products are formed in registers.
const FEW: usize = 8;

/// Places in the panels of the factor.
#[derive(Debug)]
pub(super) struct Direct {
    /// Of every node's diagonal, factor by factor.
    diagonal: Vec<u32>,
    /// Of the entries of every pair of factors, and of every edge.
    entry: Vec<Vec<u32>>,
    edge: Vec<u32>,
    /// Of the products of every supernode's rows below it, the lower triangle column by column.
    product: Vec<u32>,
    nest: Option<Nest>,
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
        let edges = |p: u32| sym.edges(p as usize).iter().map(move |e| (e.row, p));
        let edge: Vec<u32> = (0..sym.nodes as u32).flat_map(edges).map(|(row, column)| place(row, column)).collect();
        let mut entry: Vec<Vec<u32>> = vec![];
        for (e, &at) in sym.edges.iter().zip(&edge) {
            let (pair, e) = (e.pair as usize, e.entry as usize);
            entry.resize_with(entry.len().max(pair + 1), Vec::new);
            let of = &mut entry[pair];
            of.resize(of.len().max(e + 1), 0);
            of[e] = at;
        }
        let below = |s: &Super| {
            let rows = sym.rows(s);
            (0..rows.len()).flat_map(move |j| rows[j..].iter().map(move |&q| (q, rows[j])))
        };
        Some(Direct {
            diagonal: sym.position.iter().map(|&p| place(p, p)).collect(),
            entry,
            edge,
            product: sym.supers.iter().flat_map(below).map(|(row, column)| place(row, column)).collect(),
            nest: Nest::of(sym),
        })
    }

    /// Nested levels, if they are.
    pub fn nest(&self) -> Option<&Nest> {
        self.nest.as_ref()
    }

    /// The diagonal of L.
    pub fn pivots<'a>(&'a self, panels: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        self.diagonal.iter().map(|&at| panels[at as usize])
    }

    /// Places of the diagonal of a factor's levels.
    fn levels(&self, sym: &Symbolic, f: usize) -> &[u32] {
        let to = sym.base.get(f + 1).map_or(self.diagonal.len(), |&b| b as usize);
        &self.diagonal[sym.base[f] as usize..to]
    }

    /// L in its panels.
    pub fn factorise(&self, sym: &Symbolic, src: Source<'_>, panels: &mut [f64]) -> Result<(), CoreError> {
        panels.fill(0.0);
        for f in 0..sym.base.len() {
            let number = src.scalars(f);
            for (level, &at) in self.levels(sym, f).iter().enumerate() {
                panels[at as usize] = number(level);
            }
        }
        for (places, (scale, values)) in self.entry.iter().zip(src.scalar_pairs()) {
            places.iter().zip(values).for_each(|(&at, v)| panels[at as usize] = scale * v);
        }
        let mut product = &self.product[..];
        for s in &sym.supers {
            let (w, r) = (s.width as usize, s.below as usize);
            let (own, rest) = product.split_at(triangle(r));
            product = rest;
            if w == 1 && r <= FEW {
                single(panels, s.panel, r, own)?;
                continue;
            }
            let (panel, later) = panels[s.panel..].split_at_mut(s.panel_len());
            let before = s.panel + panel.len();
            factor_small(panel, w, r)?;
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
        let (pivot, mut y) = (panels[self.diagonal[sym.order[p] as usize] as usize], [0.0; N]);
        let own = &self.edge[sym.edge_start[p] as usize..sym.edge_start[p + 1] as usize];
        y.iter_mut().zip(own).for_each(|(y, &at)| *y = -panels[at as usize] / pivot);
        (pivot, y)
    }

    /// The inverse on the pattern of L.
    pub fn invert(&self, sym: &Symbolic, panels: &[f64], mut out: SelectedInverse) -> SelectedInverse {
        self.keep(sym, &self.inverse(sym, panels), &mut out);
        out
    }

    /// Entries of the pattern from their places.
    fn keep(&self, sym: &Symbolic, z: &[f64], out: &mut SelectedInverse) {
        for (f, diag) in out.diag.iter_mut().enumerate() {
            diag.iter_mut().zip(self.levels(sym, f)).for_each(|(d, &at)| *d = z[at as usize]);
        }
        for (pairs, places) in out.pairs.iter_mut().zip(&self.entry) {
            pairs.iter_mut().zip(places).for_each(|(v, &at)| *v = z[at as usize]);
        }
    }

    /// The inverse in the places of L.
    fn inverse(&self, sym: &Symbolic, panels: &[f64]) -> Vec<f64> {
        let mut z = vec![0.0; panels.len()];
        let mut room = Room::default();
        self.downwards(sym, panels, |s, (w, r), panel, above| {
            if w == 1 && r <= FEW {
                single_inverse(panel, above, &mut z, s.panel);
            } else {
                room.inverse(panel, (w, r), above, &mut z, s.panel);
            }
        });
        z
    }

    /// Visit the supernodes from the root down: each with its columns and rows, its panel, and the places of the products of
    /// its rows.
    #[inline]
    fn downwards(&self, sym: &Symbolic, panels: &[f64], mut visit: impl FnMut(&Super, (usize, usize), &[f64], &[u32])) {
        let mut product = &self.product[..];
        for s in sym.supers.iter().rev() {
            let r = s.below as usize;
            let (rest, above) = product.split_at(product.len() - triangle(r));
            product = rest;
            visit(s, (s.width as usize, r), &panels[s.panel..s.panel + s.panel_len()], above);
        }
    }

    /// The derivatives of the inverse (see `tangent`).
    pub fn tangents(&self, sym: &Symbolic, panels: &[f64], changes: &[Change], out: &mut [SelectedInverse]) {
        let z = self.inverse(sym, panels);
        let one = |(change, out): (&Change, &mut SelectedInverse)| {
            let mut moved = vec![0.0; panels.len()];
            self.place(sym, change, &mut moved);
            self.move_up(sym, panels, &mut moved);
            self.move_down(sym, panels, &z, &mut moved);
            self.keep(sym, &moved, out);
        };
        if (panels.len() + self.product.len()) * changes.len() <= LITTLE {
            changes.iter().zip(out).for_each(one);
        } else {
            changes.par_iter().zip(out).with_max_len(1).for_each(one);
        }
    }

    fn place(&self, sym: &Symbolic, change: &Change, to: &mut [f64]) {
        for (f, diag) in change.diag.iter().enumerate() {
            self.levels(sym, f).iter().zip(diag).for_each(|(&at, v)| to[at as usize] = *v);
        }
        for (places, values) in self.entry.iter().zip(&change.pairs) {
            places.iter().zip(values).for_each(|(&at, v)| to[at as usize] = *v);
        }
    }

    /// dA and U of every supernode in the places of its panel.
    fn move_up(&self, sym: &Symbolic, panels: &[f64], moved: &mut [f64]) {
        let mut room = Moved::default();
        let mut product = &self.product[..];
        for s in &sym.supers {
            let (w, r) = (s.width as usize, s.below as usize);
            let (own, rest) = product.split_at(triangle(r));
            product = rest;
            let panel = &panels[s.panel..s.panel + s.panel_len()];
            if w == 1 && r <= FEW {
                move_single_up(panel, moved, s.panel, own);
            } else {
                room.up(panel, (w, r), moved, s.panel, own);
            }
        }
    }

    /// The derivative of the inverse, in the same places, which later supernodes have left by then.
    fn move_down(&self, sym: &Symbolic, panels: &[f64], z: &[f64], moved: &mut [f64]) {
        let mut room = Moved::default();
        self.downwards(sym, panels, |s, (w, r), panel, above| {
            if w == 1 && r <= FEW {
                move_single_down(panel, above, z, moved, s.panel);
            } else {
                room.down(panel, (w, r), above, z, moved, s.panel);
            }
        });
    }
}

/// Factor a column with r rows below it, and take its products from the places where they belong.
#[inline(always)]
fn single(panels: &mut [f64], at: usize, r: usize, product: &[u32]) -> Result<(), CoreError> {
    let column = &mut panels[at..at + 1 + r];
    let pivot = column[0].sqrt();
    if !(pivot > 0.0) || !pivot.is_finite() {
        return Err(CoreError::NotPositiveDefinite(format!("pivot of a level is {:e}", column[0])));
    }
    column[0] = pivot;
    let inv = 1.0 / pivot;
    let mut l = [0.0; FEW];
    for (l, v) in l.iter_mut().zip(&mut column[1..]) {
        *v *= inv;
        *l = *v;
    }
    let mut to = product.iter();
    for j in 0..r {
        let lj = l[j];
        to.by_ref().zip(&l[j..r]).for_each(|(&at, l)| panels[at as usize] -= lj * l);
    }
    Ok(())
}

/// The same of the inverse: Z_r1 = -Z_rr y and Z_11 = 1 / pivot^2 + y'Z_rr y.
#[inline(always)]
fn single_inverse(panel: &[f64], above: &[u32], z: &mut [f64], to: usize) {
    let inv = 1.0 / panel[0];
    let r = panel.len() - 1;
    let (mut y, mut zy) = ([0.0; FEW], [0.0; FEW]);
    y.iter_mut().zip(&panel[1..]).for_each(|(y, l)| *y = l * inv);
    let mut at = above.iter();
    for j in 0..r {
        for (i, &at) in (j..r).zip(at.by_ref()) {
            let v = z[at as usize];
            zy[i] += v * y[j];
            if i != j {
                zy[j] += v * y[i];
            }
        }
    }
    let out = &mut z[to..to + 1 + r];
    out[0] = inv * inv + y.iter().zip(&zy).map(|(y, v)| y * v).sum::<f64>();
    out[1..].iter_mut().zip(&zy).for_each(|(o, v)| *o = -v);
}

/// Room for the inverse of supernodes of several columns.
#[derive(Default)]
struct Room {
    y: Vec<f64>,
    zy: Vec<f64>,
    both: Vec<f64>,
    own: Vec<f64>,
}

impl Room {
    /// Z_rw = -Z_rr Y; Z_ww = (L11 L11')^-1 - Y' Z_rw.
    fn inverse(&mut self, panel: &[f64], (w, r): (usize, usize), above: &[u32], z: &mut [f64], to: usize) {
        let Room { y, zy, both, own } = self;
        let ld = w + r;
        y.clear();
        right_division(panel, w, r, y);
        both.clear();
        both.resize(r * r, 0.0);
        let mut at = above.iter();
        for j in 0..r {
            for (i, &at) in (j..r).zip(at.by_ref()) {
                (both[i + j * r], both[j + i * r]) = (z[at as usize], z[at as usize]);
            }
        }
        own.clear();
        own.resize(w * w, 0.0);
        dense::small_inverse(panel, w, ld, own);
        let to = &mut z[to..to + ld * w];
        for j in 0..w {
            zy.clear();
            zy.extend((0..r).map(|i| (0..r).map(|k| both[k + i * r] * y[k * w + j]).sum::<f64>()));
            for i in 0..w {
                to[i + j * ld] = own[i + j * w] + (0..r).map(|k| y[k * w + i] * zy[k]).sum::<f64>();
            }
            to[w + j * ld..ld + j * ld].iter_mut().zip(&*zy).for_each(|(o, v)| *o = -v);
        }
    }
}

/// dA and U of a column, and the products that change with them.
#[inline(always)]
fn move_single_up(panel: &[f64], moved: &mut [f64], at: usize, product: &[u32]) {
    let (inv, r) = (1.0 / panel[0], panel.len() - 1);
    let (mut y, mut u) = ([0.0; FEW], [0.0; FEW]);
    let (own, below) = moved[at..at + 1 + r].split_at_mut(1);
    for i in 0..r {
        y[i] = panel[i + 1] * inv;
        u[i] = below[i] - 0.5 * y[i] * own[0];
        below[i] = u[i];
    }
    let mut to = product.iter();
    for j in 0..r {
        for (i, &at) in (j..r).zip(to.by_ref()) {
            moved[at as usize] -= u[j] * y[i] + y[j] * u[i];
        }
    }
}

/// The derivative of `single_inverse`, whose column is in `z` already.
#[inline(always)]
fn move_single_down(panel: &[f64], above: &[u32], z: &[f64], moved: &mut [f64], to: usize) {
    let (inv, r) = (1.0 / panel[0], panel.len() - 1);
    let (own, mut sums) = (moved[to], [0.0; FEW]);
    let (mut y, mut dy) = ([0.0; FEW], [0.0; FEW]);
    for i in 0..r {
        y[i] = panel[i + 1] * inv;
        dy[i] = (moved[to + 1 + i] - 0.5 * y[i] * own) * inv * inv;
    }
    let mut at = above.iter();
    for j in 0..r {
        for (i, &at) in (j..r).zip(at.by_ref()) {
            let (v, dv) = (z[at as usize], moved[at as usize]);
            sums[i] += dv * y[j] + v * dy[j];
            if i != j {
                sums[j] += dv * y[i] + v * dy[i];
            }
        }
    }
    let (out, zy) = (&mut moved[to..to + 1 + r], &z[to + 1..to + 1 + r]);
    // What `z` holds below is -Z Y.
    let cross: f64 = (0..r).map(|i| y[i] * sums[i] - dy[i] * zy[i]).sum();
    out[0] = cross - inv * inv * own * inv * inv;
    out[1..].iter_mut().zip(&sums).for_each(|(o, v)| *o = -v);
}

/// Room for the derivatives of supernodes of several columns.
#[derive(Default)]
struct Moved {
    y: Vec<f64>,
    u: Vec<f64>,
    own: Vec<f64>,
    inverse: Vec<f64>,
    sums: Vec<f64>,
}

impl Moved {
    /// Y and dA of a panel, and U - Y dA / 2 for what is below dA, row-major.
    fn begin(&mut self, panel: &[f64], (w, r): (usize, usize), moved: &[f64]) {
        let Moved { y, u, own, .. } = self;
        let ld = w + r;
        y.clear();
        right_division(panel, w, r, y);
        own.clear();
        own.extend((0..w * w).map(|t| moved[(t % w).max(t / w) + (t % w).min(t / w) * ld]));
        u.clear();
        for i in 0..r {
            let y = &y[i * w..(i + 1) * w];
            let half = |j: usize| 0.5 * (0..w).map(|t| y[t] * own[t + j * w]).sum::<f64>();
            u.extend((0..w).map(|j| moved[w + i + j * ld] - half(j)));
        }
    }

    fn up(&mut self, panel: &[f64], (w, r): (usize, usize), moved: &mut [f64], at: usize, product: &[u32]) {
        self.begin(panel, (w, r), &moved[at..]);
        let Moved { y, u, .. } = self;
        for (i, u) in u.chunks_exact(w).enumerate() {
            u.iter().enumerate().for_each(|(j, v)| moved[at + w + i + j * (w + r)] = *v);
        }
        let mut to = product.iter();
        for j in 0..r {
            let (uj, yj) = (&u[j * w..(j + 1) * w], &y[j * w..(j + 1) * w]);
            for (i, &at) in (j..r).zip(to.by_ref()) {
                let (ui, yi) = (&u[i * w..(i + 1) * w], &y[i * w..(i + 1) * w]);
                moved[at as usize] -= (0..w).map(|t| uj[t] * yi[t] + yj[t] * ui[t]).sum::<f64>();
            }
        }
    }

    fn down(&mut self, panel: &[f64], (w, r): (usize, usize), above: &[u32], z: &[f64], moved: &mut [f64], to: usize) {
        self.begin(panel, (w, r), &moved[to..]);
        let Moved { y, u, own, inverse, sums } = self;
        let ld = w + r;
        inverse.clear();
        inverse.resize(w * w, 0.0);
        dense::small_inverse(panel, w, ld, inverse);
        times_symmetric(u, inverse, w);
        let dy = u;
        sums.clear();
        sums.resize(r * w, 0.0);
        let mut at = above.iter();
        for j in 0..r {
            for (i, &at) in (j..r).zip(at.by_ref()) {
                let (v, dv) = (z[at as usize], moved[at as usize]);
                for t in 0..w {
                    sums[i * w + t] += dv * y[j * w + t] + v * dy[j * w + t];
                    if i != j {
                        sums[j * w + t] += dv * y[i * w + t] + v * dy[i * w + t];
                    }
                }
            }
        }
        // A^-1 dA A^-1.
        times_symmetric(own, inverse, w);
        let half: Vec<f64> = (0..w * w).map(|t| own[(t % w) * w + t / w]).collect();
        own.copy_from_slice(&half);
        times_symmetric(own, inverse, w);
        for j in 0..w {
            for i in 0..w {
                let cross = |k: usize| y[k * w + i] * sums[k * w + j] - dy[k * w + i] * z[to + w + k + j * ld];
                moved[to + i + j * ld] = (0..r).map(cross).sum::<f64>() - own[i + j * w];
            }
            (0..r).for_each(|k| moved[to + w + k + j * ld] = -sums[k * w + j]);
        }
    }
}

/// Rows of `w` numbers times a symmetric matrix, in place.
fn times_symmetric(rows: &mut [f64], m: &[f64], w: usize) {
    let mut row = [0.0; NARROW as usize];
    for x in rows.chunks_exact_mut(w) {
        for j in 0..w {
            row[j] = (0..w).map(|t| x[t] * m[t + j * w]).sum();
        }
        x.copy_from_slice(&row[..w]);
    }
}

/// Numbers of a lower triangle.
fn triangle(n: usize) -> usize {
    n * (n + 1) / 2
}
