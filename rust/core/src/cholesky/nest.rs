//! Sums over all of the inverse of nested levels of single numbers, in time that is linear in the levels.
//!
//! Levels l and m that part at v are independent given v and what it lies in, so that (A^-1)_lm = b_l' C b_m with C that
//! part of the inverse and b the regressions on it. Sums of squares are then traces of C G C G for G = sum b b', which
//! passes from a level to the one around it.

use super::inverse::SelectedInverse;
use super::numeric::Numeric;
use super::symbolic::{Edge, Symbolic, NONE};

/// Levels that may lie within each other.
const DEEPEST: usize = 4;

/// How the levels lie in each other, by position.
#[derive(Debug)]
pub(super) struct Nest {
    /// The level around each, its own for outermost ones.
    around: Vec<u32>,
    /// The number of each among those with levels within, NONE for others, and how many there are.
    inner: Vec<u32>,
    count: usize,
}

impl Nest {
    /// None where levels are not nested in each other.
    pub fn of(sym: &Symbolic) -> Option<Self> {
        let mut around = Vec::with_capacity(sym.nodes);
        for p in 0..sym.nodes {
            let own = sym.edges(p);
            let Some(first) = own.first() else {
                around.push(p as u32);
                continue;
            };
            let others = sym.edges(first.row as usize);
            let alike = own.len() == others.len() + 1 && own[1..].iter().zip(others).all(|(a, b)| a.row == b.row);
            if !alike || own.len() >= DEEPEST {
                return None;
            }
            around.push(first.row);
        }
        let (mut inner, mut count) = (vec![NONE; sym.nodes], 0);
        for (_, &v) in around.iter().enumerate().filter(|(p, v)| **v != *p as u32) {
            if inner[v as usize] == NONE {
                inner[v as usize] = count;
                count += 1;
            }
        }
        (sym.base.len() <= DEEPEST).then_some(Nest { around, inner, count: count as usize })
    }
}

/// A square matrix, of which the first `d` rows and columns are used.
type Small = [[f64; DEEPEST]; DEEPEST];
const ZERO: Small = [[0.0; DEEPEST]; DEEPEST];

/// Sums of b b' over the levels of every factor that has some within a level.
#[derive(Clone, Copy)]
struct Within {
    sums: [Small; DEEPEST],
    has: [bool; DEEPEST],
}

impl Within {
    const NONE: Within = Within { sums: [ZERO; DEEPEST], has: [false; DEEPEST] };

    /// Add y y' to a factor's.
    fn add_square(&mut self, f: usize, y: &[f64; DEEPEST], d: usize) {
        self.has[f] = true;
        (0..d).for_each(|i| (0..d).for_each(|j| self.sums[f][i][j] += y[i] * y[j]));
    }

    fn add(&mut self, other: &Within, d: usize) {
        for f in (0..DEEPEST).filter(|&f| other.has[f]) {
            self.has[f] = true;
            (0..d).for_each(|i| (0..d).for_each(|j| self.sums[f][i][j] += other.sums[f][i][j]));
        }
    }

    /// R G R' for R = (y, I): sums over regressions on a level and those around it become sums over those around it.
    fn passed(&self, y: &[f64; DEEPEST], d: usize) -> Within {
        let mut out = Within { sums: [ZERO; DEEPEST], has: self.has };
        for f in (0..DEEPEST).filter(|&f| self.has[f]) {
            let g = &self.sums[f];
            for i in 0..d {
                for j in 0..d {
                    out.sums[f][i][j] =
                        g[i + 1][j + 1] + y[i] * g[0][j + 1] + g[i + 1][0] * y[j] + y[i] * g[0][0] * y[j];
                }
            }
        }
        out
    }

    /// Add tr(C G_a C G_b) of every two of `factors`, C from row `first` on.
    fn add_traces(&self, c: &Small, first: usize, d: usize, times: f64, factors: usize, out: &mut [f64]) {
        let mut products = [ZERO; DEEPEST];
        for a in (0..factors).filter(|&a| self.has[a]) {
            for i in 0..d {
                for k in 0..d {
                    (0..d).for_each(|j| products[a][i][j] += c[first + i][first + k] * self.sums[a][k][j]);
                }
            }
            for b in (0..=a).filter(|&b| self.has[b]) {
                let (ga, gb) = (&products[a], &products[b]);
                let trace: f64 = (0..d).map(|i| (0..d).map(|j| ga[i][j] * gb[j][i]).sum::<f64>()).sum();
                out[a + b * factors] += times * trace;
                if a != b {
                    out[b + a * factors] += times * trace;
                }
            }
        }
    }
}

impl Numeric {
    /// Sums of (I - A^-1)_lm^2 over the levels of every two factors, from the inverse on the pattern; None unless the
    /// levels are nested and single numbers.
    pub fn squares_of_nest(&self, sym: &Symbolic, inverse: &SelectedInverse) -> Option<Vec<f64>> {
        let direct = self.direct.as_ref().filter(|_| !inverse.pairs.is_empty())?;
        let Nest { around, inner, count } = direct.nest()?;
        let factors = sym.base.len();
        let mut all = vec![Within::NONE; *count];
        let mut out = vec![0.0; factors * factors];
        let at = |e: &Edge| inverse.pairs[e.pair as usize][e.entry as usize];
        for p in 0..sym.nodes {
            let (f, edges) = (sym.factor_at[p] as usize, sym.edges(p));
            let own = inverse.diag[f][sym.level(p)];
            out[f * (factors + 1)] += (1.0 - own).powi(2);
            let (pivot, y) = direct.column::<DEEPEST>(sym, &self.panels, p);
            let d = edges.len();
            if inner[p] == NONE {
                if d > 0 {
                    out[f * (factors + 1)] -= (own - 1.0 / (pivot * pivot)).powi(2);
                    all[inner[around[p] as usize] as usize].add_square(f, &y, d);
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
            let within = &mut all[inner[p] as usize];
            (within.has[f], within.sums[f][0][0]) = (true, within.sums[f][0][0] + 1.0);
            out[f * (factors + 1)] -= own * own;
            within.add_traces(&c, 0, d + 1, 1.0, factors, &mut out);
            if d > 0 {
                let passed = within.passed(&y, d);
                passed.add_traces(&c, 1, d, -1.0, factors, &mut out);
                all[inner[around[p] as usize] as usize].add(&passed, d);
            }
        }
        Some(out)
    }
}
