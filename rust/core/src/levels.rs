//! Quadratic forms in the components of the covariance of one grouping factor.
//!
//! Where a matrix M is made of one k x k block a level, (E_i t)' M (E_j t) is a sum of products of entries of the block
//! and entries of t t', level by level: one matrix product over the levels gives the sums of them all, and nothing has
//! to be as long as the random effects times the components.

use crate::dense;
use crate::linear::{dot, Component};

/// Position of entry (a, b) of a symmetric matrix in its lower triangle, row by row.
pub fn place(a: usize, b: usize) -> usize {
    a.max(b) * (a.max(b) + 1) / 2 + a.min(b)
}

/// Append the lower triangle of a k x k matrix, row by row.
pub fn push_triangle(out: &mut Vec<f64>, k: usize, entry: impl Fn(usize, usize) -> f64) {
    for a in 0..k {
        out.extend((0..=a).map(|b| entry(a, b)));
    }
}

/// Sums over levels of the products of any entry of one triangle and any entry of the other, half x half.
pub fn paired(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let half = place(k, 0);
    let mut out = vec![0.0; half * half];
    dense::gemm_nt(&mut out, half, a, half, b, half, half, half, a.len() / half.max(1), 1.0);
    out
}

/// sum_l tr(M_l E_i) of every component.
pub fn linear_forms<'a>(components: impl Iterator<Item = &'a Component>, triangles: &[f64], k: usize) -> Vec<f64> {
    let mut sums = vec![0.0; place(k, 0)];
    for t in triangles.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(t).for_each(|(s, v)| *s += v);
    }
    components.map(|c| c.cells().map(|(r, s)| sums[place(r, s)]).sum()).collect()
}

/// sum_l (E_i t_l)' M_l (E_j t_l) of all pairs of components, from the `paired` triangles of M_l and t_l t_l'.
pub fn quadratic_forms(components: &[Component], paired: &[f64], k: usize) -> Vec<f64> {
    let (c, half) = (components.len(), place(k, 0));
    let mut out = vec![0.0; c * c];
    for (i, ci) in components.iter().enumerate() {
        for (j, cj) in components[..=i].iter().enumerate() {
            for (r, s) in ci.cells() {
                for (u, v) in cj.cells() {
                    out[i + j * c] += paired[place(r, u) + place(s, v) * half];
                }
            }
            out[j + i * c] = out[i + j * c];
        }
    }
    out
}

/// sum_l B_l' E_i t_l of every component (columns of p numbers), for rows B_l and t_l one after the other: `rows` has
/// k x w numbers a level, row-major, the first p of a row belonging to B, and `t` has k a level.
pub fn carried(components: &[Component], rows: &[f64], t: &[f64], k: usize, w: usize, p: usize) -> Vec<f64> {
    let mut sums = vec![0.0; k * w * k];
    dense::gemm_nt(&mut sums, k * w, rows, k * w, t, k, k * w, k, t.len() / k.max(1), 1.0);
    let mut out = vec![0.0; p * components.len()];
    for (column, c) in out.chunks_exact_mut(p.max(1)).zip(components) {
        for (r, s) in c.cells() {
            let from = &sums[r * w + s * k * w..][..p];
            column.iter_mut().zip(from).for_each(|(o, v)| *o += v);
        }
    }
    out
}

/// out_ij -= x_i'x_j for columns of p numbers.
pub fn take_products(out: &mut [f64], x: &[f64], p: usize) {
    let c = x.len().checked_div(p).unwrap_or(0);
    for j in 0..c {
        for i in 0..c {
            out[i + j * c] -= dot(&x[i * p..(i + 1) * p], &x[j * p..(j + 1) * p]);
        }
    }
}
