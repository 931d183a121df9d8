//! The matrix that is factored: Lambda' Z'WZ Lambda + Q.

use super::symbolic::Edge;
use crate::dense;
use crate::design::Moments;

/// The matrix Lambda' Z'WZ Lambda + Q, block by block; Q is the identity but where levels are related.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub moments: &'a Moments,
    /// Relative factor of every grouping factor, cols x cols, column-major.
    pub lambda: &'a [Vec<f64>],
}

impl<'a> Source<'a> {
    /// Diagonal of a factor of single numbers, by level.
    pub(super) fn scalars(self, f: usize) -> impl Fn(usize) -> f64 + 'a {
        let (gram, square) = (&self.moments.factors[f].gram, self.lambda[f][0] * self.lambda[f][0]);
        let prior = self.moments.couplings.iter().find(|c| c.factor == f).map(|c| &c.diag);
        move |level| prior.map_or(1.0, |d| d[level]) + square * gram[level]
    }

    /// What the entries of every pair of factors of single numbers are multiplied by, and these.
    pub(super) fn scalar_pairs(self) -> Vec<(f64, &'a [f64])> {
        let pairs = self.moments.pairs.iter().map(|p| (self.lambda[p.lead][0] * self.lambda[p.other][0], &p.value[..]));
        pairs.chain(self.moments.couplings.iter().map(|c| (1.0, &c.pair.value[..]))).collect()
    }

    /// Lambda' G Lambda + Q of one level, written with leading dimension `ld`.
    pub(super) fn diagonal(&self, f: usize, level: usize, out: &mut [f64], ld: usize) {
        let factor = &self.moments.factors[f];
        let k = factor.cols;
        let gram = &factor.gram[level * k * k..(level + 1) * k * k];
        let prior = self.moments.couplings.iter().find(|c| c.factor == f).map_or(1.0, |c| c.diag[level]);
        if k == 1 {
            out[0] = prior + self.lambda[f][0] * self.lambda[f][0] * gram[0];
            return;
        }
        sandwich(&self.lambda[f], gram, &self.lambda[f], k, k, out, ld);
        for a in 0..k {
            out[a + a * ld] += prior;
        }
    }

    /// Block (row node, column node) of an edge, rows x cols with leading dimension `ld`.
    #[inline]
    pub(super) fn edge(&self, e: &Edge, column_factor: usize, out: &mut [f64], ld: usize) {
        let Some(pair) = self.moments.pairs.get(e.pair as usize) else {
            let c = &self.moments.couplings[e.pair as usize - self.moments.pairs.len()];
            let k = self.moments.factors[c.factor].cols;
            for j in 0..k {
                out[j * ld..j * ld + k].fill(0.0);
                out[j + j * ld] = c.pair.value[e.entry as usize];
            }
            return;
        };
        let (ll, lo) = (&self.lambda[pair.lead], &self.lambda[pair.other]);
        if ll.len() == 1 && lo.len() == 1 {
            out[0] = ll[0] * lo[0] * pair.value[e.entry as usize];
            return;
        }
        let (kl, ko) = (self.moments.factors[pair.lead].cols, self.moments.factors[pair.other].cols);
        let v = &pair.value[e.entry as usize * kl * ko..(e.entry as usize + 1) * kl * ko];
        if pair.lead != column_factor {
            sandwich(ll, v, lo, kl, ko, out, ld);
        } else {
            let mut t = vec![0.0; kl * ko];
            for i in 0..kl {
                for j in 0..ko {
                    t[j + i * ko] = v[i + j * kl];
                }
            }
            sandwich(lo, &t, ll, ko, kl, out, ld);
        }
    }
}

/// out = A' V B for A (ka x ka), V (ka x kb), B (kb x kb).
fn sandwich(a: &[f64], v: &[f64], b: &[f64], ka: usize, kb: usize, out: &mut [f64], ld: usize) {
    match (ka, kb) {
        (2, 2) => return small_sandwich::<2>(a, v, b, out, ld),
        (3, 3) => return small_sandwich::<3>(a, v, b, out, ld),
        (4, 4) => return small_sandwich::<4>(a, v, b, out, ld),
        (5, 5) => return small_sandwich::<5>(a, v, b, out, ld),
        (6, 6) => return small_sandwich::<6>(a, v, b, out, ld),
        (8, 8) => return small_sandwich::<8>(a, v, b, out, ld),
        _ => {}
    }
    if ka * kb > 64 {
        return large_sandwich(a, v, b, (ka, kb), out, ld);
    }
    let mut t = [0.0; 64];
    for j in 0..kb {
        for i in 0..ka {
            t[i + j * ka] = (0..kb).map(|s| v[i + s * ka] * b[s + j * kb]).sum();
        }
    }
    for j in 0..kb {
        for i in 0..ka {
            out[i + j * ld] = (0..ka).map(|s| a[s + i * ka] * t[s + j * ka]).sum();
        }
    }
}

/// The same by the rows and columns of V that are not zero: a level sees few of the columns of a structure over times.
fn large_sandwich(a: &[f64], v: &[f64], b: &[f64], (ka, kb): (usize, usize), out: &mut [f64], ld: usize) {
    let cols: Vec<usize> = (0..kb).filter(|s| v[s * ka..(s + 1) * ka].iter().any(|x| *x != 0.0)).collect();
    let rows: Vec<usize> = (0..ka).filter(|i| cols.iter().any(|s| v[i + s * ka] != 0.0)).collect();
    let (r, c) = (rows.len(), cols.len());
    let pick = |from: &[f64], k: usize, at: &[usize]| -> Vec<f64> {
        (0..k).flat_map(|j| at.iter().map(move |s| from[s + j * k])).collect()
    };
    let (own, near, far) = (pick(a, ka, &rows), pick(b, kb, &cols), cols.iter());
    let own_v: Vec<f64> = far.flat_map(|s| rows.iter().map(move |i| v[i + s * ka])).collect();
    let mut t = vec![0.0; r * kb];
    dense::gemm(&mut t, r, &own_v, r, &near, c, r, kb, c, 1.0);
    (0..kb).for_each(|j| out[j * ld..j * ld + ka].fill(0.0));
    dense::gemm_tn(out, ld, &own, r, &t, r, ka, kb, r, 1.0);
}

fn small_sandwich<const K: usize>(a: &[f64], v: &[f64], b: &[f64], out: &mut [f64], ld: usize) {
    let load = |x: &[f64]| -> [[f64; K]; K] { std::array::from_fn(|j| std::array::from_fn(|i| x[i + j * K])) };
    let (a, v, b) = (load(a), load(v), load(b));
    let mut t = [[0.0; K]; K];
    for j in 0..K {
        for s in 0..K {
            for i in 0..K {
                t[j][i] += v[s][i] * b[j][s];
            }
        }
    }
    // Columns of A' are read side by side, so that the inner loop runs along a column of the result.
    let rows: [[f64; K]; K] = std::array::from_fn(|s| std::array::from_fn(|i| a[i][s]));
    for j in 0..K {
        let mut column = [0.0; K];
        for s in 0..K {
            for i in 0..K {
                column[i] += rows[s][i] * t[j][s];
            }
        }
        out[j * ld..j * ld + K].copy_from_slice(&column);
    }
}
