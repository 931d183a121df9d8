//! All of (L L')^-1, for factors so small that it is less work than many solves.

use super::leaves::right_division;
use super::numeric::{scalar_rows, Numeric};
use super::symbolic::{Super, Symbolic};
use crate::dense;

/// The inverse in pieces. With the leaves eliminated first, Y = L21 L11^-1 of each, spread over the rows of the tail
/// (what is no leaf), and Z the tail's own part of the inverse,
///
/// ```text
/// between tail and leaves  -Z Y,      between leaves  Y'Z Y  and, on the diagonal,  (L11 L11')^-1.
/// ```
pub struct Whole {
    /// Scalar rows (in elimination order) of the tail and of the leaves.
    tail: Vec<u32>,
    leaf: Vec<u32>,
    /// Place of every scalar row in its list, those of leaves after those of the tail.
    place: Vec<u32>,
    /// Z, and Y and V = Z Y of all leaves (tail x leaves, column-major).
    z: Vec<f64>,
    y: Vec<f64>,
    v: Vec<f64>,
    /// Rows of (L11 L11')^-1, leaf by leaf: first column in `leaf`, and values.
    own: Vec<(u32, Vec<f64>)>,
}

/// Scalars of the tail and of the leaves.
fn sizes(sym: &Symbolic) -> (usize, usize) {
    let leaves: usize = sym.supers.iter().filter(|s| s.leaf).map(|s| s.width as usize).sum();
    (sym.size - leaves, leaves)
}

impl Whole {
    /// Multiplications to form all of it.
    pub fn work(sym: &Symbolic) -> f64 {
        let (t, l) = sizes(sym);
        let (t, l) = (t as f64, l as f64);
        t * t * t + t * t * l + t * l * l
    }

    /// Some columns of the inverse, row-major (size x columns), added to zeros.
    pub fn columns(&self, at: &[usize], out: &mut [f64]) {
        let (t, l, m) = (self.tail.len(), self.leaf.len(), at.len());
        // Both sides of the tail: Z of its own columns, -V of those of leaves.
        let mut side = vec![0.0; t * m];
        for (side, &q) in side.chunks_exact_mut(t.max(1)).zip(at) {
            match (self.place[q] as usize).checked_sub(t) {
                None => side.copy_from_slice(&self.z[self.place[q] as usize * t..][..t]),
                Some(e) => side.iter_mut().zip(&self.v[e * t..(e + 1) * t]).for_each(|(o, v)| *o = -v),
            }
        }
        let mut below = vec![0.0; m * l];
        dense::gemm_tn(&mut below, m, &side, t, &self.y, t, m, l, t, -1.0);
        for (&q, row) in self.leaf.iter().zip(below.chunks_exact(m)) {
            out[q as usize * m..(q as usize + 1) * m].copy_from_slice(row);
        }
        for (i, &q) in self.tail.iter().enumerate() {
            let row = &mut out[q as usize * m..(q as usize + 1) * m];
            row.iter_mut().enumerate().for_each(|(j, o)| *o = side[i + j * t]);
        }
        for (j, &q) in at.iter().enumerate() {
            let Some(e) = (self.place[q] as usize).checked_sub(t) else { continue };
            let (first, own) = &self.own[e];
            for (i, v) in own.iter().enumerate() {
                out[self.leaf[*first as usize + i] as usize * m + j] += v;
            }
        }
    }
}

impl Numeric {
    /// All of the inverse (see `Whole::work` for when it pays).
    pub fn whole(&self, sym: &Symbolic) -> Whole {
        let (t, l) = sizes(sym);
        let scalars = |s: &Super| sym.offset[s.first as usize]..sym.offset[s.first as usize] + s.width;
        let of = |leaf: bool| sym.supers.iter().filter(move |s| s.leaf == leaf);
        let tail: Vec<u32> = of(false).flat_map(scalars).collect();
        let leaf: Vec<u32> = of(true).flat_map(scalars).collect();
        let mut place = vec![0; sym.size];
        tail.iter().chain(&leaf).zip(0..).for_each(|(&q, at)| place[q as usize] = at);
        let z = self.tail_block(sym, t);
        let (mut y, mut own) = (vec![0.0; t * l], Vec::with_capacity(l));
        let (mut short, mut rows) = (vec![], vec![]);
        for s in of(true) {
            let (w, r, first) = (s.width as usize, s.below as usize, own.len());
            short.clear();
            right_division(self.panel(s), w, r, &mut short);
            let below = scalar_rows(sym, s, false, &mut rows);
            for (&q, y_row) in below.iter().zip(short.chunks_exact(w)) {
                let row = place[q as usize] as usize;
                y_row.iter().enumerate().for_each(|(j, v)| y[row + (first + j) * t] = *v);
            }
            let mut block = vec![0.0; w * w];
            dense::small_inverse(self.panel(s), w, w + r, &mut block);
            own.extend(block.chunks_exact(w).map(|column| (first as u32, column.to_vec())));
        }
        let mut v = vec![0.0; t * l];
        dense::gemm(&mut v, t, &z, t, &y, t, t, l, t, 1.0);
        Whole { tail, leaf, place, z, y, v, own }
    }

    /// The tail's part of the inverse.
    fn tail_block(&self, sym: &Symbolic, t: usize) -> Vec<f64> {
        let mut inner = sym.supers.iter().filter(|s| !s.leaf);
        match (inner.next(), inner.next()) {
            (None, _) => vec![],
            (Some(root), None) if !root.packed => dense::inverse_from_cholesky(self.panel(root), t, t),
            _ => {
                let w = self.tail(sym).inverse;
                let mut z = vec![0.0; t * t];
                dense::gemm_tn(&mut z, t, &w, t, &w, t, t, t, t, 1.0);
                z
            }
        }
    }
}
