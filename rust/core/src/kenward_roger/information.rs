//! Information about the variance parameters: expected and average.

use crate::design::Moments;
use crate::linear::dot;

use super::products::{pair, trace, Products};
use super::traces::Traces;

/// Expected information, twice: tr(P V_i P V_j).
pub fn expected(m: &Moments, t: &Traces, products: &Products, p: usize) -> Vec<f64> {
    let c = t.first.len();
    let (n, w) = (c + 1, (p + 1) * (p + 1));
    let mut out = vec![0.0; n * n];
    for i in 0..c {
        let bi = &products.own[i * w..(i + 1) * w];
        for j in 0..=i {
            let bj = &products.own[j * w..(j + 1) * w];
            let both: f64 = (0..p).map(|k| dot(&bi[k * (p + 1)..][..p], &bj[k * (p + 1)..][..p])).sum();
            let v = t.second[i + j * c] - 2.0 * trace(&products.cross[pair(i, j) * w..][..w], p) + both;
            (out[i + j * n], out[j + i * n]) = (v, v);
        }
        let v = t.first[i] - trace(bi, p);
        (out[i + c * n], out[c + i * n]) = (v, v);
    }
    out[c + c * n] = (m.n - m.rank()) as f64;
    out
}

/// Average information, twice (Gilmour, Thompson & Cullis 1995): y'P V_i P V_j P y.
pub fn average(m: &Moments, products: &Products, p: usize, sigma: f64) -> Vec<f64> {
    let c = products.first.len();
    let (n, w, s2) = (c + 1, (p + 1) * (p + 1), sigma * sigma);
    let mut out = vec![0.0; n * n];
    let side = |i: usize| &products.own[i * w + p * (p + 1)..][..p];
    for i in 0..c {
        for j in 0..=i {
            let v = (products.cross[pair(i, j) * w + w - 1] - dot(side(i), side(j))) / s2;
            (out[i + j * n], out[j + i * n]) = (v, v);
        }
        let v = products.first[i] / s2;
        (out[i + c * n], out[c + i * n]) = (v, v);
    }
    out[c + c * n] = (m.n - m.rank()) as f64;
    out
}

/// Expected information of ML, twice: tr(V^-1 V_i V^-1 V_j), of n rows.
pub fn unrestricted(t: &Traces, n: f64) -> Vec<f64> {
    let c = t.first.len();
    let m = c + 1;
    let mut out = vec![0.0; m * m];
    for i in 0..c {
        (0..c).for_each(|j| out[i + j * m] = 0.5 * (t.second[i + j * c] + t.second[j + i * c]));
        (out[i + c * m], out[c + i * m]) = (t.first[i], t.first[i]);
    }
    out[c + c * m] = n;
    out
}
