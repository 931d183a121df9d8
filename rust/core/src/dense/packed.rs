//! Large lower triangles in packed storage: stripes of columns one after the other, each without the rows above its
//! first column, so that little more than half a square is stored and every block keeps a leading dimension.

use faer::{Accum, MatMut, MatRef};
use rayon::prelude::*;

use super::kernel::multiply;
use super::product::{gemm, gemm_nt};
use super::solve::{solve_right_l, solve_right_lt};
use super::tiles::{mat, ranges, Tiles};
use super::triangles::{self, lower_product, solve_lower};
use crate::{CoreError, Stop};

/// Columns of a stripe.
pub(super) const STRIPE: usize = 192;

/// Columns `from..to` of a packed triangle and their rows from `from` on.
#[derive(Clone, Copy, Debug)]
pub struct Stripe {
    pub from: usize,
    pub to: usize,
    /// Where it begins, and its leading dimension.
    pub start: usize,
    pub ld: usize,
}

impl Stripe {
    pub(super) fn at(n: usize, c: usize) -> Stripe {
        let from = c * STRIPE;
        let before = c * STRIPE * n - STRIPE * STRIPE * (c * c.saturating_sub(1)) / 2;
        Stripe { from, to: (from + STRIPE).min(n), start: before, ld: n - from }
    }

    /// Numbers in it.
    pub fn size(&self) -> usize {
        (self.to - self.from) * self.ld
    }

    fn width(&self) -> usize {
        self.to - self.from
    }

    /// Rows below its corner.
    fn below(&self) -> usize {
        self.ld - self.width()
    }

    pub(super) fn values<'a>(&self, a: &'a [f64]) -> &'a [f64] {
        &a[self.start..self.start + self.size()]
    }
}

pub fn stripes(n: usize) -> impl DoubleEndedIterator<Item = Stripe> + ExactSizeIterator {
    (0..n.div_ceil(STRIPE)).map(move |c| Stripe::at(n, c))
}

/// Numbers in a packed triangle of order `n`.
pub fn packed_len(n: usize) -> usize {
    stripes(n).next_back().map_or(0, |s| s.start + s.size())
}

/// Where the entry (i, j), i >= j, is.
#[inline]
pub fn packed_at(n: usize, i: usize, j: usize) -> usize {
    let s = Stripe::at(n, j / STRIPE);
    s.start + (j - s.from) * s.ld + i - s.from
}

/// A part of a packed triangle that lies below (or on) the diagonal block of one stripe, and in it.
pub(super) fn part(a: &[f64], n: usize, (i, j): (usize, usize), (rows, cols): (usize, usize)) -> MatRef<'_, f64> {
    let s = Stripe::at(n, j / STRIPE);
    assert!(i >= s.from && j + cols <= s.to);
    mat(&s.values(a)[(j - s.from) * s.ld + i - s.from..], rows, cols, s.ld)
}

/// Tasks that write disjoint tiles of a packed triangle.
pub(super) struct Packed {
    all: Tiles,
    pub n: usize,
}

impl Packed {
    pub fn new(a: &mut [f64], n: usize) -> Self {
        assert!(a.len() >= packed_len(n));
        Packed { all: Tiles::new(a, 1), n }
    }

    /// The stripe's own tiles, rows counted from its first column.
    fn stripe(&self, s: &Stripe) -> Tiles {
        assert!(s.start + s.size() <= self.all.len);
        // SAFETY: in range by the assertion.
        Tiles { at: unsafe { self.all.at.add(s.start) }, len: s.size(), ld: s.ld }
    }

    /// Rows and columns i, j of a stripe.
    pub fn get_mut<'a>(&self, s: &Stripe, i: (usize, usize), j: (usize, usize)) -> MatMut<'a, f64> {
        self.stripe(s).get_mut(i.0 - s.from, j.0 - s.from, i.1 - i.0, j.1 - j.0)
    }

    pub fn get<'a>(&self, s: &Stripe, i: (usize, usize), j: (usize, usize)) -> MatRef<'a, f64> {
        self.stripe(s).get(i.0 - s.from, j.0 - s.from, i.1 - i.0, j.1 - j.0)
    }

    /// Add alpha B B' to rows and columns `from..`, tile by tile; `b` gives rows of B, counted as those of the triangle.
    fn add_product<'a>(&self, from: usize, b: impl Fn((usize, usize)) -> MatRef<'a, f64> + Sync, alpha: f64) {
        // The widest stripes first: what is left at the end is small.
        let tiles: Vec<(Stripe, (usize, usize))> = stripes(self.n)
            .filter(|s| s.from >= from)
            .flat_map(|s| ranges(self.n - s.from, STRIPE).map(move |(i, j)| (s, (s.from + i, s.from + j))))
            .collect();
        tiles.par_iter().with_max_len(1).for_each(|(s, rows)| {
            let columns = (s.from, s.to);
            let out = self.get_mut(s, *rows, columns);
            if rows.0 == s.from {
                lower_product(out, b(columns), alpha);
            } else {
                multiply(out, Accum::Add, b(*rows), b(columns).transpose(), alpha);
            }
        });
    }
}

/// Cholesky factor of a packed matrix, in place; it ends early when asked to.
pub fn packed_cholesky(a: &mut [f64], n: usize, stop: &Stop) -> Result<(), CoreError> {
    let packed = Packed::new(a, n);
    for s in stripes(n) {
        stop.check()?;
        let own = (s.from, s.to);
        triangles::cholesky(packed.get_mut(&s, own, own))?;
        ranges(s.below(), STRIPE).collect::<Vec<_>>().par_iter().for_each(|&(i, j)| {
            let panel = packed.get_mut(&s, (s.to + i, s.to + j), own);
            solve_lower(packed.get(&s, own, own), panel.transpose_mut());
        });
        packed.add_product(s.to, |rows| packed.get(&s, rows, own), -1.0);
    }
    Ok(())
}

/// C <- C + alpha A A' for packed C (n x n) and column-major A (n x k).
pub fn packed_syrk(c: &mut [f64], n: usize, a: &[f64], lda: usize, k: usize, alpha: f64) {
    let a = mat(a, n, k, lda);
    Packed::new(c, n).add_product(0, |(i, j)| a.subrows(i, j - i), alpha);
}

/// B <- B L^-T for B (m x n) and packed L.
pub fn packed_solve_right_lt(l: &[f64], n: usize, b: &mut [f64], m: usize) {
    for s in stripes(n) {
        let (own, rest) = b[s.from * m..].split_at_mut(s.width() * m);
        let values = s.values(l);
        solve_right_lt(values, s.width(), s.ld, own, m, m);
        if s.below() > 0 {
            gemm_nt(rest, m, own, m, &values[s.width()..], s.ld, m, s.below(), s.width(), -1.0);
        }
    }
}

/// B <- B L^-1 for B (m x n) and packed L.
pub fn packed_solve_right_l(l: &[f64], n: usize, b: &mut [f64], m: usize) {
    for s in stripes(n).rev() {
        let (own, rest) = b[s.from * m..].split_at_mut(s.width() * m);
        let values = s.values(l);
        if s.below() > 0 {
            gemm(own, m, rest, m, &values[s.width()..], s.ld, m, s.width(), s.below(), -1.0);
        }
        solve_right_l(values, s.width(), s.ld, own, m, m);
    }
}

/// x <- L^-1 x for packed L and one vector.
pub fn packed_solve_left_l(l: &[f64], n: usize, x: &mut [f64]) {
    for s in stripes(n) {
        for (j, column) in s.values(l).chunks_exact(s.ld).enumerate() {
            let x = &mut x[s.from + j..n];
            let v = x[0] / column[j];
            x[0] = v;
            if v != 0.0 {
                x[1..].iter_mut().zip(&column[j + 1..]).for_each(|(x, l)| *x -= l * v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{by_rows, cholesky, inverse_from_cholesky, solve_left_l, Precision};
    use super::*;

    fn spd(n: usize) -> Vec<f64> {
        let near = |i: usize, j: usize| 1.0 / (1.0 + i.abs_diff(j) as f64);
        (0..n * n).map(|t| near(t % n, t / n) + if t % n == t / n { 1.0 } else { 0.0 }).collect()
    }

    fn pack(a: &[f64], n: usize) -> Vec<f64> {
        let mut out = vec![0.0; packed_len(n)];
        (0..n).for_each(|j| (j..n).for_each(|i| out[packed_at(n, i, j)] = a[i + j * n]));
        out
    }

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() < tolerance, "{a} is not {b}");
    }

    #[test]
    fn every_entry_of_the_triangle_has_a_place_of_its_own() {
        for n in [0, 1, 191, 192, 193, 500] {
            let mut seen = vec![0; packed_len(n)];
            (0..n).for_each(|j| (j..n).for_each(|i| seen[packed_at(n, i, j)] += 1));
            assert!(seen.iter().all(|&c| c <= 1) && seen.iter().sum::<i32>() as usize == n * (n + 1) / 2);
        }
    }

    #[test]
    fn the_factor_and_its_solutions_are_those_of_a_square() {
        for n in [100, 192, 300, 577] {
            let (mut square, mut packed) = (spd(n), pack(&spd(n), n));
            let rows: Vec<f64> = (0..3 * n).map(|i| (i % 7) as f64 - 3.0).collect();
            for r in rows.chunks_exact(n) {
                (0..n * n).for_each(|t| square[t] += 0.1 * r[t % n] * r[t / n]);
            }
            packed_syrk(&mut packed, n, &rows, n, 3, 0.1);
            cholesky(&mut square, n, n).unwrap();
            packed_cholesky(&mut packed, n, &Stop::default()).unwrap();
            (0..n).for_each(|j| (j..n).for_each(|i| close(packed[packed_at(n, i, j)], square[i + j * n], 1e-12)));
            let b: Vec<f64> = (0..2 * n).map(|i| (i % 11) as f64 - 5.0).collect();
            let (mut got, mut want) = (b.clone(), b.clone());
            packed_solve_right_lt(&packed, n, &mut got, 2);
            solve_right_lt(&square, n, n, &mut want, 2, 2);
            got.iter().zip(&want).for_each(|(a, b)| close(*a, *b, 1e-11));
            packed_solve_right_l(&packed, n, &mut got, 2);
            solve_right_l(&square, n, n, &mut want, 2, 2);
            got.iter().zip(&want).for_each(|(a, b)| close(*a, *b, 1e-11));
            let (mut got, mut want) = (b[..n].to_vec(), b[..n].to_vec());
            packed_solve_left_l(&packed, n, &mut got);
            solve_left_l(&square, n, n, &mut want, 1, n);
            got.iter().zip(&want).for_each(|(a, b)| close(*a, *b, 1e-11));
        }
    }

    #[test]
    fn squares_of_the_rows_of_the_inverse_factor_are_the_diagonal_of_the_inverse() {
        // Rounding errors times the condition number, about 15, and a few for their sum.
        for (precision, tolerance) in [(Precision::Double, 1e-12), (Precision::Single, 1e-5)] {
            for n in [100, 300, 577] {
                let (mut square, mut packed) = (spd(n), pack(&spd(n), n));
                cholesky(&mut square, n, n).unwrap();
                packed_cholesky(&mut packed, n, &Stop::default()).unwrap();
                let exact = inverse_from_cholesky(&square, n, n);
                let mut diagonal = vec![0.0; n];
                let squares = |rows: super::super::RowBlock<'_>| -> Vec<f64> {
                    (0..rows.to).map(|j| rows.column(j).iter().map(|v| v * v).sum()).collect()
                };
                let add = |part: Vec<f64>| diagonal.iter_mut().zip(part).for_each(|(o, v)| *o += v);
                by_rows(&packed, n, precision, &Stop::default(), squares, add);
                (0..n).for_each(|i| close(diagonal[i], exact[i + i * n], tolerance));
            }
        }
    }

    #[test]
    fn work_that_is_asked_to_end_ends() {
        let stop = Stop::default();
        stop.request();
        let (n, mut a) = (400, pack(&spd(400), 400));
        assert!(matches!(packed_cholesky(&mut a, n, &stop), Err(CoreError::Interrupted)));
        by_rows(&a, n, Precision::Double, &stop, |_| (), |()| panic!("nothing is left to do"));
    }
}
