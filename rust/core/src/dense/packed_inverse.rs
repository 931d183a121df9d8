//! All of (L L')^-1 in the place of a large packed L: W = L^-1 by block columns from the right, then W'W by block rows
//! from the top. Both halves cost n^3/3 operations and no memory to speak of; and products with what comes out.

use faer::linalg::{matmul, triangular_inverse};
use faer::{Accum, Mat, Par};
use rayon::prelude::*;

use super::kernel::multiply;
use super::packed::{part, stripes, Packed, Stripe, STRIPE};
use super::tiles::{mat, mat_mut, ranges};
use crate::Stop;

/// Lower triangle of (L L')^-1 in place of packed L, with both triangles of the blocks on the diagonal. Worthless when cut
/// short.
pub fn packed_inverse(a: &mut [f64], n: usize, stop: &Stop) {
    let packed = Packed::new(a, n);
    let go_on = |_: &Stripe| !stop.requested();
    let mut buffer = vec![0.0; n * STRIPE];
    for s in stripes(n).rev().take_while(go_on) {
        invert_stripe(&packed, &s, &mut buffer);
    }
    for s in stripes(n).take_while(go_on) {
        multiply_row(&packed, &s);
    }
}

/// A stripe of L^-1, those to its right being there: W_21 = -W_22 L_21 W_11.
fn invert_stripe(packed: &Packed, s: &Stripe, buffer: &mut [f64]) {
    let (own, n, width) = ((s.from, s.to), packed.n, s.to - s.from);
    let mut corner = Mat::<f64>::zeros(width, width);
    triangular_inverse::invert_lower_triangular(corner.as_mut(), packed.get(s, own, own), Par::Seq);
    // Above the diagonal there are zeros from now on: the corner takes part in products.
    packed.get_mut(s, own, own).copy_from(corner.as_ref());
    // A block of rows after the other, each stored without leading dimension.
    let blocks: Vec<((usize, usize), &mut [f64])> =
        ranges(n - s.to, STRIPE).map(|(i, j)| (s.to + i, s.to + j)).zip(buffer.chunks_mut(STRIPE * width)).collect();
    let right: Vec<((usize, usize), &[f64])> = blocks
        .into_par_iter()
        .with_max_len(1)
        .map(|(rows, out)| {
            let count = rows.1 - rows.0;
            let out = &mut out[..count * width];
            let to = mat_mut(out, count, width, count);
            multiply(to, Accum::Replace, packed.get(s, rows, own), corner.as_ref(), -1.0);
            (rows, &*out)
        })
        .collect();
    // The longest come first: what is left at the end is small.
    (0..right.len()).into_par_iter().rev().with_max_len(1).for_each(|i| {
        let rows = right[i].0;
        for (k, (inner, values)) in right[..=i].iter().enumerate() {
            let left = packed.get(&Stripe::at(n, inner.0 / STRIPE), rows, *inner);
            let accum = if k == 0 { Accum::Replace } else { Accum::Add };
            multiply(packed.get_mut(s, rows, own), accum, left, mat(values, left.ncols(), width, left.ncols()), 1.0);
        }
    });
}

/// The block row of W'W with the rows of a stripe: it needs no rows of W above them, so each tile takes the place of its
/// part of W.
fn multiply_row(packed: &Packed, s: &Stripe) {
    let (n, width, below) = (packed.n, s.to - s.from, (s.from, packed.n));
    let left = packed.get(s, below, (s.from, s.to)).transpose();
    let product = |other: &Stripe| {
        let columns = (other.from, other.to);
        let mut tile = Mat::<f64>::zeros(width, columns.1 - columns.0);
        matmul::matmul(tile.as_mut(), Accum::Replace, left, packed.get(other, below, columns), 1.0, Par::Seq);
        tile
    };
    let others: Vec<Stripe> = stripes(n).take_while(|o| o.from < s.from).collect();
    others.par_iter().with_max_len(1).for_each(|other| {
        let tile = product(other);
        packed.get_mut(other, (s.from, s.to), (other.from, other.to)).copy_from(tile.as_ref());
    });
    // All tiles read the corner: it is written when they are done.
    let tile = product(s);
    packed.get_mut(s, (s.from, s.to), (s.from, s.to)).copy_from(tile.as_ref());
}

/// Entries (row, column, value) of a sparse matrix by stripes of its rows, which count from the stripe's first.
pub struct ByStripes {
    pub entries: Vec<Vec<(u32, u32, f64)>>,
    pub columns: usize,
}

impl ByStripes {
    pub fn new(n: usize, columns: usize) -> Self {
        ByStripes { entries: vec![vec![]; n.div_ceil(STRIPE)], columns }
    }

    pub fn push(&mut self, row: usize, column: usize, value: f64) {
        self.entries[row / STRIPE].push(((row % STRIPE) as u32, column as u32, value));
    }
}

/// Z Y for Z of `packed_inverse`, one column-major block for every stripe of rows.
pub fn packed_times(z: &[f64], n: usize, y: &ByStripes) -> Vec<Vec<f64>> {
    let all: Vec<Stripe> = stripes(n).collect();
    let block = |own: &Stripe| -> Vec<f64> {
        let rows = own.to - own.from;
        let (mut out, mut turned) = (vec![0.0; rows * y.columns], vec![]);
        for (other, entries) in all.iter().zip(&y.entries).filter(|(_, e)| !e.is_empty()) {
            let tile = match other.from <= own.from {
                true => part(z, n, (own.from, other.from), (rows, other.to - other.from)),
                false => turn(z, n, own, other, &mut turned),
            };
            for &(row, column, value) in entries {
                let to = &mut out[column as usize * rows..(column as usize + 1) * rows];
                to.iter_mut().zip(tile.col(row as usize).iter()).for_each(|(o, v)| *o += value * v);
            }
        }
        out
    };
    all.par_iter().with_max_len(1).map(block).collect()
}

/// The tile with the rows of `own` and the columns of a stripe after it, from its mirror image.
fn turn<'a>(z: &[f64], n: usize, own: &Stripe, other: &Stripe, buffer: &'a mut Vec<f64>) -> faer::MatRef<'a, f64> {
    let (rows, columns) = (own.to - own.from, other.to - other.from);
    buffer.resize(rows * columns, 0.0);
    let from = part(z, n, (other.from, own.from), (columns, rows));
    mat_mut(buffer, rows, columns, rows).copy_from(from.transpose());
    mat(buffer, rows, columns, rows)
}

/// Some columns of Z of `packed_inverse`, into rows of `m` numbers, of which column `at[j].0` of Z takes number `at[j].1`.
pub fn packed_columns(z: &[f64], n: usize, at: &[(usize, usize)], m: usize, out: &mut [f64]) {
    for s in stripes(n) {
        let (left, here): (Vec<_>, Vec<_>) = at.iter().filter(|(q, _)| *q >= s.from).partition(|(q, _)| *q >= s.to);
        for (j, column) in s.values(z).chunks_exact(s.ld).enumerate() {
            let row = &mut out[(s.from + j) * m..(s.from + j + 1) * m];
            left.iter().for_each(|(q, to)| row[*to] = column[q - s.from]);
        }
        for (q, to) in here {
            let column = &s.values(z)[(q - s.from) * s.ld..(q - s.from + 1) * s.ld];
            out[s.from * m..].chunks_exact_mut(m).zip(column).for_each(|(row, v)| row[to] = *v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{cholesky, inverse_from_cholesky, packed_at, packed_cholesky, packed_len};
    use super::*;

    #[test]
    fn the_inverse_its_columns_and_products_are_those_of_a_square() {
        for n in [100, 192, 300, 577, 800] {
            let near = |i: usize, j: usize| 1.0 / (1.0 + i.abs_diff(j) as f64) + f64::from(i == j);
            let mut square: Vec<f64> = (0..n * n).map(|t| near(t % n, t / n)).collect();
            let mut packed = vec![0.0; packed_len(n)];
            (0..n).for_each(|j| (j..n).for_each(|i| packed[packed_at(n, i, j)] = square[i + j * n]));
            cholesky(&mut square, n, n).unwrap();
            packed_cholesky(&mut packed, n, &Stop::default()).unwrap();
            let want = inverse_from_cholesky(&square, n, n);
            packed_inverse(&mut packed, n, &Stop::default());
            // Rounding errors times the condition number, about 15.
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
            (0..n).for_each(|j| (j..n).for_each(|i| close(packed[packed_at(n, i, j)], want[i + j * n])));
            let at = [(0, 1), (n / 2, 0), (n / 2 + 1, 3), (n - 1, 2)];
            let mut columns = vec![0.0; n * 4];
            packed_columns(&packed, n, &at, 4, &mut columns);
            at.iter().for_each(|&(q, to)| (0..n).for_each(|i| close(columns[i * 4 + to], want[i + q * n])));
            let mut y = ByStripes::new(n, 2);
            let entries = [(0, 0, 2.0), (n / 3, 0, -1.0), (n - 1, 1, 0.5), (n / 2, 1, 3.0)];
            entries.iter().for_each(|&(i, j, v)| y.push(i, j, v));
            for (s, block) in stripes(n).zip(packed_times(&packed, n, &y)) {
                let rows = s.to - s.from;
                for (t, v) in block.iter().enumerate() {
                    let (i, j) = (s.from + t % rows, t / rows);
                    let sum = entries.iter().filter(|e| e.1 == j).map(|e| e.2 * want[i + e.0 * n]).sum();
                    close(*v, sum);
                }
            }
        }
    }
}
