//! All columns of (L L')^-1 beside a packed root, whose inverse takes the place of the factor.

use rayon::prelude::*;

use super::leaves::Batch;
use super::numeric::Numeric;
use super::symbolic::{Super, Symbolic, NONE};
use crate::dense::{self, ByStripes};
use crate::error::shape;
use crate::CoreError;

/// Columns of leaves whose products with the root are formed together.
const TOGETHER: usize = 1024;
/// A multiplication of sparse columns costs about this many in a product of blocks.
const INDIRECT: f64 = 4.0;

/// The inverse in pieces: Z of the packed root, in place, and Y = L21 L11^-1 of the leaves, all of whose rows are there:
///
/// ```text
/// between root and leaves  -Z Y,      between leaves  Y'Z Y  and, on the diagonal,  (L11 L11')^-1.
/// ```
pub struct Columns<'a> {
    numeric: &'a Numeric,
    sym: &'a Symbolic,
    root: &'a Super,
    leaves: Batch<'a>,
    /// Leaf of every scalar row, NONE for those of the root.
    leaf_of: Vec<u32>,
}

/// The packed root, if everything else is its leaves.
pub(super) fn packed_root(sym: &Symbolic) -> Option<&Super> {
    let mut inner = sym.supers.iter().filter(|s| !s.leaf);
    let root = inner.next().filter(|s| s.packed && s.width as usize == sym.size - leaf_columns(sym))?;
    inner.next().is_none().then_some(root)
}

fn leaf_columns(sym: &Symbolic) -> usize {
    sym.supers.iter().filter(|s| s.leaf).map(|s| s.width as usize).sum()
}

impl Numeric {
    /// Columns of the inverse. The factor is used up: it has to be made anew. An error where no packed root meets all
    /// leaves (`Columns::work`).
    pub fn columns<'a>(&'a mut self, sym: &'a Symbolic) -> Result<Columns<'a>, CoreError> {
        let Some(root) = packed_root(sym) else { return shape("the elimination has no packed root") };
        let stop = self.stop.clone();
        dense::packed_inverse(self.panel_mut(root), root.width as usize, &stop);
        stop.check()?;
        let mut leaf_of = vec![NONE; sym.size];
        for (i, &c) in self.leaves.iter().enumerate() {
            let s = &sym.supers[c as usize];
            let at = sym.offset[s.first as usize] as usize;
            leaf_of[at..at + s.width as usize].fill(i as u32);
        }
        let leaves = Batch::new(self, sym, &self.leaves);
        Ok(Columns { numeric: self, sym, root, leaves, leaf_of })
    }
}

impl Columns<'_> {
    /// Multiplications to form all of them; None where there is no packed root.
    pub fn work(sym: &Symbolic) -> Option<f64> {
        let root = packed_root(sym)?;
        let leaves = sym.supers.iter().filter(|s| s.leaf);
        let entries: f64 = leaves.map(|s| s.width as f64 * s.below as f64).sum();
        let n = root.width as f64;
        Some(n.powi(3) / 3.0 + INDIRECT * entries * (n + sym.size as f64))
    }

    /// Hand what `visit` makes of some columns (row-major, size x columns) to `gather`, always in the same order. When cut
    /// short some are left out.
    pub fn visit<A: Send>(
        &self,
        chunks: &[&[usize]],
        visit: impl Fn(usize, Vec<f64>) -> A + Sync,
        mut gather: impl FnMut(A),
    ) {
        let mut from = 0;
        while from < chunks.len() && !self.numeric.stop.requested() {
            let mut columns = 0;
            let more = chunks[from..].iter().take_while(|c| {
                columns += c.len();
                columns <= TOGETHER
            });
            let to = from + more.count().max(1);
            let (first, sides) = self.sides(&chunks[from..to]);
            let one = |i: usize| visit(i, self.assemble(chunks[i], &sides, first[i - from]));
            let parts: Vec<A> = (from..to).into_par_iter().with_max_len(1).map(one).collect();
            parts.into_iter().for_each(&mut gather);
            from = to;
        }
    }

    /// Leaf of a scalar row, and the column in it.
    fn leaf(&self, row: usize) -> Option<(usize, usize)> {
        let leaf = self.leaf_of[row];
        (leaf != NONE).then(|| {
            let s = &self.sym.supers[self.leaves.leaves[leaf as usize] as usize];
            (leaf as usize, row - self.sym.offset[s.first as usize] as usize)
        })
    }

    /// Z Y for the columns that belong to leaves, by stripes of rows, and the first of every chunk's.
    fn sides(&self, chunks: &[&[usize]]) -> (Vec<usize>, Vec<Vec<f64>>) {
        let n = self.root.width as usize;
        let count = |c: &&[usize]| c.iter().filter(|&&q| self.leaf(q).is_some()).count();
        let mut y = ByStripes::new(n, chunks.iter().map(count).sum());
        let (mut first, mut at) = (vec![], 0);
        for chunk in chunks {
            first.push(at);
            for (leaf, column) in chunk.iter().filter_map(|&q| self.leaf(q)) {
                let (values, rows) = (self.leaves.products(leaf).0, self.leaves.rows(leaf));
                let w = values.len() / rows.len().max(1);
                rows.iter().enumerate().for_each(|(r, &row)| y.push(row as usize, at, values[r * w + column]));
                at += 1;
            }
        }
        (first, dense::packed_times(self.numeric.panel(self.root), n, &y))
    }

    fn assemble(&self, at: &[usize], sides: &[Vec<f64>], first: usize) -> Vec<f64> {
        let (m, n, sym) = (at.len(), self.root.width as usize, self.sym);
        let mut out = vec![0.0; sym.size * m];
        let base = sym.offset[self.root.first as usize] as usize;
        let (own, rest): (Vec<usize>, Vec<usize>) = (0..m).partition(|&j| self.leaf(at[j]).is_none());
        let root = &mut out[base * m..(base + n) * m];
        let of_root: Vec<(usize, usize)> = own.iter().map(|&j| (at[j] - base, j)).collect();
        dense::packed_columns(self.numeric.panel(self.root), n, &of_root, m, root);
        for (s, side) in dense::stripes(n).zip(sides) {
            let rows = s.to - s.from;
            for (t, &j) in rest.iter().enumerate() {
                let column = &side[(first + t) * rows..(first + t + 1) * rows];
                root[s.from * m..].chunks_exact_mut(m).zip(column).for_each(|(row, v)| row[j] = -v);
            }
        }
        let root = root.to_vec();
        self.leaf_rows(&root, m, &mut out);
        for (leaf, column, j) in rest.iter().filter_map(|&j| self.leaf(at[j]).map(|(l, c)| (l, c, j))) {
            let s = &sym.supers[self.leaves.leaves[leaf] as usize];
            let (w, from) = (s.width as usize, sym.offset[s.first as usize] as usize);
            let mut block = vec![0.0; w * w];
            dense::small_inverse(self.numeric.panel(s), w, w + s.below as usize, &mut block);
            (0..w).for_each(|i| out[(from + i) * m + j] += block[i + column * w]);
        }
        out
    }

    /// Rows of leaves below those of the root: -Y' times the latter.
    fn leaf_rows(&self, root: &[f64], m: usize, out: &mut [f64]) {
        for (i, &c) in self.leaves.leaves.iter().enumerate() {
            let s = &self.sym.supers[c as usize];
            let (w, from) = (s.width as usize, self.sym.offset[s.first as usize] as usize);
            let own = &mut out[from * m..(from + w) * m];
            for (&row, y) in self.leaves.rows(i).iter().zip(self.leaves.products(i).0.chunks_exact(w)) {
                let row = &root[row as usize * m..(row as usize + 1) * m];
                for (own, y) in own.chunks_exact_mut(m).zip(y) {
                    own.iter_mut().zip(row).for_each(|(o, v)| *o -= y * v);
                }
            }
        }
    }
}
