//! Correlations that are coordinates of their own.
//!
//! Pairs of columns that form no circle may have any correlations between -1 and 1, whatever the others are. With the
//! columns in an order in which every one has at most one earlier partner, let t_q be the row of the partner in a root T
//! of the correlation matrix (R = TT'), and Q_q the rotation that takes e_0 to it. Then
//!
//! ```text
//! t_r = Q_q h,  h = (sin a_0, cos a_0 sin a_1, ..., cos a_0 ... cos a_r-1)
//! ```
//!
//! has the correlation sin a_0 with the partner, and the matrix is singular where a cosine is 0: an ordinary place for
//! the other angles. Where all are attached to the first column, sin a_j are the partial correlations of columns r and
//! j given those before (Joe 2006).

use crate::jet::Scalar;

use super::kinds::sine;

/// Columns in their order, each with the position of its partner, which comes before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree(Vec<(usize, usize)>);

impl Tree {
    /// All columns attached to the first one.
    pub(super) fn star(k: usize) -> Self {
        Tree((0..k).map(|c| (c, 0)).collect())
    }

    /// A tree in which the given pairs of k columns are partners; none where they form a circle.
    pub(super) fn through(k: usize, pairs: &[(usize, usize)]) -> Option<Self> {
        if pairs.iter().all(|&(i, j)| i.min(j) == 0) {
            return Some(Tree::star(k));
        }
        let mut out: Vec<(usize, usize)> = vec![];
        for root in 0..k {
            if out.iter().any(|&(c, _)| c == root) {
                continue;
            }
            let mut at = out.len();
            out.push((root, 0));
            while at < out.len() {
                let (c, from) = (out[at].0, out[out[at].1].0);
                for &(i, j) in pairs.iter().filter(|&&(i, j)| (i == c) != (j == c)) {
                    let next = if i == c { j } else { i };
                    let known = out.iter().any(|&(o, _)| o == next);
                    if known && !(next == from && at > 0) && !out.iter().any(|&(o, q)| o == next && q == at) {
                        return None;
                    }
                    if !known {
                        out.push((next, at));
                    }
                }
                at += 1;
            }
        }
        Some(Tree(out))
    }

    /// Whether two columns are partners.
    pub(super) fn joins(&self, i: usize, j: usize) -> bool {
        self.0.iter().skip(1).any(|&(c, q)| (c, self.0[q].0) == (i, j) || (c, self.0[q].0) == (j, i))
    }

    /// Columns to which the angles of row r belong: its partner, then the others before it.
    fn beside(&self, r: usize) -> impl Iterator<Item = usize> + '_ {
        let q = self.0[r].1;
        std::iter::once(q).chain((0..r).filter(move |&t| t != q)).map(|t| self.0[t].0)
    }

    /// The correlation matrix (k x k) of angles (i, j), i > j, column by column.
    pub(super) fn correlations<S: Scalar>(&self, angles: &[S]) -> Vec<S> {
        let k = self.0.len();
        let zero = S::constant(0.0);
        let mut turns: Vec<Vec<(S, S)>> = vec![];
        let mut rows: Vec<Vec<S>> = vec![];
        for (r, &(c, q)) in self.0.iter().enumerate() {
            let angle = |d: usize| {
                let s = sine(angles[place(c.max(d), c.min(d), k)]);
                (s, (-s.square() + 1.0).sqrt())
            };
            let own: Vec<(S, S)> = self.beside(r).take(r).map(angle).collect();
            let mut row = vec![zero; k];
            row[0] = S::constant(1.0);
            turn(&mut row, &own);
            let mut at = q;
            while at > 0 {
                turn(&mut row, &turns[at]);
                at = self.0[at].1;
            }
            turns.push(own);
            rows.push(row);
        }
        let mut out = vec![S::constant(1.0); k * k];
        for (r, t) in (0..k).flat_map(|r| (0..r).map(move |t| (r, t))) {
            let product = (0..=t).fold(zero, |sum, s| sum + rows[r][s] * rows[t][s]);
            let (i, j) = (self.0[r].0, self.0[t].0);
            out[i + j * k] = product;
            out[j + i * k] = product;
        }
        out
    }
}

/// Where the pair (i, j), i > j, stands among those of k columns.
fn place(i: usize, j: usize, k: usize) -> usize {
    j * k - j * (j + 1) / 2 + i - j - 1
}

/// Rotations in the planes (0, 1), (1, 2), ... by angles whose (sine, cosine) are given; e_t goes to
/// sine e_t + cosine e_t+1.
fn turn<S: Scalar>(row: &mut [S], by: &[(S, S)]) {
    for (t, &(s, c)) in by.iter().enumerate() {
        let (a, b) = (row[t], row[t + 1]);
        row[t] = s * a - c * b;
        row[t + 1] = c * a + s * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANGLES: [f64; 10] = [0.3, -0.7, 0.9, 0.2, 1.1, -0.4, 0.6, -1.2, 0.5, 0.1];

    #[test]
    fn partners_have_their_own_correlation() {
        let sets: [&[(usize, usize)]; 4] =
            [&[(2, 1)], &[(2, 1), (3, 2), (4, 3)], &[(4, 1), (3, 0)], &[(4, 2), (4, 1), (4, 0)]];
        for pairs in sets {
            let tree = Tree::through(5, pairs).unwrap();
            let r = tree.correlations(&ANGLES);
            for &(i, j) in pairs {
                let own = ANGLES[place(i, j, 5)].sin();
                assert!((r[i + 5 * j] - own).abs() < 2e-8, "{pairs:?}: {} {own}", r[i + 5 * j]);
                assert!(tree.joins(i, j) && tree.joins(j, i));
            }
            let mut l = r.clone();
            assert!(crate::dense::cholesky(&mut l, 5, 5).is_ok());
            assert!((0..5).all(|i| (r[i * 6] - 1.0).abs() < 1e-15));
        }
    }

    #[test]
    fn circles_have_no_tree() {
        assert!(Tree::through(4, &[(1, 0), (2, 1), (2, 0)]).is_none());
        assert!(Tree::through(4, &[(2, 1), (3, 2), (3, 1)]).is_none());
        assert!(Tree::through(4, &[(2, 1), (2, 1), (3, 0)]).is_some());
    }

    /// The volume of correlation matrices is that of the angles: the determinant is the product of squared cosines.
    #[test]
    fn determinants_are_products_of_cosines() {
        let product: f64 = ANGLES.iter().map(|a| a.cos().powi(2)).product();
        for tree in [Tree::star(5), Tree::through(5, &[(2, 1), (3, 2)]).unwrap()] {
            let mut l = tree.correlations(&ANGLES);
            crate::dense::cholesky(&mut l, 5, 5).unwrap();
            let determinant: f64 = (0..5).map(|i| l[i * 6].powi(2)).product();
            assert!((determinant / product - 1.0).abs() < 1e-6);
        }
    }
}
