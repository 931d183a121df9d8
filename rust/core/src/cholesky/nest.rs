//! Sums over all of the inverse of nested levels of single numbers, in time that is linear in the levels.
//!
//! Levels l and m that part at v are independent given v and what it lies in, so that (A^-1)_lm = b_l' C b_m with C that
//! part of the inverse and b the regressions on it. Sums of squares are then traces of C G C G for G = sum b b', which
//! passes from a level to the one around it.

use super::inverse::SelectedInverse;
use super::numeric::Numeric;
use super::symbolic::{Edge, Symbolic};

/// Levels that may lie within each other.
const DEEPEST: usize = 4;

impl Symbolic {
    /// The level around each, by position (its own for outermost ones); None where levels are not nested in each other.
    fn around(&self) -> Option<Vec<u32>> {
        let nested = |p: usize| {
            let own = self.edges(p);
            let Some(first) = own.first() else { return Some(p as u32) };
            let others = self.edges(first.row as usize);
            let alike = own.len() == others.len() + 1 && own[1..].iter().zip(others).all(|(a, b)| a.row == b.row);
            (alike && own.len() < DEEPEST).then_some(first.row)
        };
        (0..self.nodes).map(nested).collect()
    }
}

/// A square matrix, of which the first `d` rows and columns are used.
type Small = [[f64; DEEPEST]; DEEPEST];
const ZERO: Small = [[0.0; DEEPEST]; DEEPEST];

impl Numeric {
    /// Sums of (I - A^-1)_lm^2 over the levels of every two factors, from the inverse on the pattern; None unless the
    /// levels are nested and single numbers.
    pub fn squares_of_nest(&self, sym: &Symbolic, inverse: &SelectedInverse) -> Option<Vec<f64>> {
        let column = self.columns_of::<DEEPEST>(sym).filter(|_| !inverse.pairs.is_empty())?;
        let (around, factors) = (sym.around()?, sym.base.len());
        let mut inner = vec![u32::MAX; sym.nodes];
        let mut count = 0;
        for (p, &v) in around.iter().enumerate().filter(|(p, v)| **v != *p as u32) {
            debug_assert!((p as u32) < v);
            if inner[v as usize] == u32::MAX {
                inner[v as usize] = count;
                count += 1;
            }
        }
        let mut sums = vec![vec![ZERO; factors]; count as usize];
        let mut out = vec![0.0; factors * factors];
        let at = |e: &Edge| inverse.pairs[e.pair as usize][e.entry as usize];
        for p in 0..sym.nodes {
            let (f, edges) = (sym.factor_at[p] as usize, sym.edges(p));
            let own = inverse.diag[f][sym.level(p)];
            out[f * (factors + 1)] += (1.0 - own).powi(2);
            let (pivot, y) = column(p);
            let d = edges.len();
            if inner[p] == u32::MAX {
                if d > 0 {
                    out[f * (factors + 1)] -= (own - 1.0 / (pivot * pivot)).powi(2);
                    add_square(&mut sums[inner[around[p] as usize] as usize][f], &y, d);
                }
                continue;
            }
            let mut c = ZERO;
            c[0][0] = own;
            for (i, e) in edges.iter().enumerate() {
                let q = e.row as usize;
                (c[0][i + 1], c[i + 1][0]) = (at(e), at(e));
                c[i + 1][i + 1] = inverse.diag[sym.factor_at[q] as usize][sym.level(q)];
                for (j, e) in sym.edges(q).iter().enumerate() {
                    (c[i + 1][i + j + 2], c[i + j + 2][i + 1]) = (at(e), at(e));
                }
            }
            let mut within = std::mem::take(&mut sums[inner[p] as usize]);
            within[f][0][0] += 1.0;
            out[f * (factors + 1)] -= own * own;
            add_traces(&c, 0, d + 1, &within, 1.0, &mut out);
            if d > 0 {
                let passed: Vec<Small> = within.iter().map(|g| passed(g, &y, d)).collect();
                add_traces(&c, 1, d, &passed, -1.0, &mut out);
                let outer = &mut sums[inner[around[p] as usize] as usize];
                for (to, g) in outer.iter_mut().zip(&passed) {
                    (0..d).for_each(|i| (0..d).for_each(|j| to[i][j] += g[i][j]));
                }
            }
        }
        Some(out)
    }
}

/// Add y y'.
fn add_square(to: &mut Small, y: &[f64; DEEPEST], d: usize) {
    (0..d).for_each(|i| (0..d).for_each(|j| to[i][j] += y[i] * y[j]));
}

/// R G R' for R = (y, I): sums over regressions on a level and those around it become sums over those around it.
fn passed(g: &Small, y: &[f64; DEEPEST], d: usize) -> Small {
    let mut out = ZERO;
    for i in 0..d {
        for j in 0..d {
            out[i][j] = g[i + 1][j + 1] + y[i] * g[0][j + 1] + g[i + 1][0] * y[j] + y[i] * g[0][0] * y[j];
        }
    }
    out
}

/// Add tr(C G_a C G_b) of every two factors, C from row `first` on.
fn add_traces(c: &Small, first: usize, d: usize, g: &[Small], times: f64, out: &mut [f64]) {
    let product = |g: &Small| {
        let mut out = ZERO;
        for i in 0..d {
            for k in 0..d {
                (0..d).for_each(|j| out[i][j] += c[first + i][first + k] * g[k][j]);
            }
        }
        out
    };
    let products: Vec<Small> = g.iter().map(product).collect();
    for (a, ga) in products.iter().enumerate() {
        for (b, gb) in products.iter().enumerate() {
            let trace: f64 = (0..d).map(|i| (0..d).map(|j| ga[i][j] * gb[j][i]).sum::<f64>()).sum();
            out[a + b * products.len()] += times * trace;
        }
    }
}
