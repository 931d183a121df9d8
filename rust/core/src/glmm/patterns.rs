//! Terms whose covariance is a function of few parameters, inside the outer search.
//!
//! A parameter theta_j moves Sigma* by S_j = Lambda^-1 (dSigma / dtheta_j) Lambda^-T, a symmetric matrix of its factor; the
//! free entries of the other covariances move it by unit matrices. Both are `directions`: gradient tr(N S), curvature
//! from the working linear model.

use crate::cholesky::SelectedInverse;
use crate::dense;
use crate::design::{Moments, Structure};
use crate::error::shape;
use crate::linear::{Component, Lmm, Solution};
use crate::structure::Pattern;
use crate::CoreError;

use super::laplace::dot;

/// Smallest standard deviation, in units of one level's information (see `optimise`).
const FLOOR: f64 = 1e-4;
/// Largest step of one parameter.
const STRIDE: f64 = 1.5;

/// A patterned term and where it lies.
#[derive(Clone, Debug)]
pub struct Patterned {
    pub term: usize,
    pub factor: usize,
    pub offset: usize,
    pub pattern: Pattern,
    /// Its first parameter among all of them.
    pub first: usize,
}

impl Patterned {
    fn theta<'a>(&self, shape: &'a [f64]) -> &'a [f64] {
        &shape[self.first..self.first + self.pattern.parameters()]
    }
}

/// The patterned terms of a model, in the order of the terms.
pub fn find(m: &Moments, given: &[Option<Pattern>]) -> Result<Vec<Patterned>, CoreError> {
    let mut out = vec![];
    let mut slots: Vec<_> =
        m.factors.iter().enumerate().flat_map(|(f, x)| x.slots.iter().map(move |s| (f, s))).collect();
    slots.sort_by_key(|(_, s)| s.term);
    let mut first = 0;
    for (factor, slot) in slots {
        let pattern = given.get(slot.term).and_then(|p| p.as_ref());
        match (slot.structure, pattern) {
            (Structure::Patterned, Some(p)) if p.k == slot.cols => {
                out.push(Patterned { term: slot.term, factor, offset: slot.offset, pattern: p.clone(), first });
                first += p.parameters();
            }
            (Structure::Patterned, _) => return shape(format!("term {} needs a pattern of its size", slot.term)),
            (_, Some(_)) => return shape(format!("term {} has a pattern but another structure", slot.term)),
            _ => {}
        }
    }
    Ok(out)
}

pub fn length(patterns: &[Patterned]) -> usize {
    patterns.iter().map(|p| p.pattern.parameters()).sum()
}

/// Write the factors of the patterned terms into Lambda.
pub fn put(m: &Moments, patterns: &[Patterned], shape: &[f64], lambda: &mut [Vec<f64>]) -> Result<(), CoreError> {
    for p in patterns {
        let (k, ld) = (p.pattern.k, m.factors[p.factor].cols);
        let l = p.pattern.factor(p.theta(shape))?;
        for c in 0..k {
            for r in 0..k {
                lambda[p.factor][p.offset + r + (p.offset + c) * ld] = l[r + c * k];
            }
        }
    }
    Ok(())
}

/// Start values from the diagonal of Lambda that the moments gave.
pub fn start(m: &Moments, patterns: &[Patterned], lambda: &[Vec<f64>]) -> Vec<f64> {
    let mut out = vec![];
    for p in patterns {
        let ld = m.factors[p.factor].cols;
        let sd: Vec<f64> =
            (p.offset..p.offset + p.pattern.k).map(|c| lambda[p.factor][c + c * ld].max(1e-150)).collect();
        out.extend(p.pattern.start(&sd));
    }
    out
}

/// Least value of each parameter: log standard deviations rest on a floor below anything the data can see.
pub fn floors(m: &Moments, patterns: &[Patterned], units: &[Vec<Vec<f64>>]) -> Vec<f64> {
    let mut out = vec![];
    for p in patterns {
        let slot = m.factors[p.factor].slots.iter().position(|s| s.term == p.term).unwrap_or(0);
        let unit = &units[p.factor][slot];
        let k = p.pattern.k;
        let size: Vec<f64> =
            (0..k).map(|c| (0..=c).map(|t| unit[c + t * k].powi(2)).sum::<f64>().sqrt().max(1e-150)).collect();
        let d = p.pattern.deviations();
        let largest = size.iter().copied().fold(0.0, f64::max);
        let low = |i: usize| (FLOOR / if d == 1 { largest } else { size[i] }).ln();
        out.extend((0..p.pattern.parameters()).map(|i| if i < d { low(i) } else { -1e4 }));
    }
    out
}

/// Parameters that rest on their floor while the deviance would go down below it, and what loses its meaning with them.
pub fn held(patterns: &[Patterned], shape: &[f64], floors: &[f64], gradient: &[f64]) -> Vec<bool> {
    let mut out: Vec<bool> = (0..shape.len()).map(|i| shape[i] <= floors[i] + 1e-9 && gradient[i] >= 0.0).collect();
    for p in patterns {
        let (d, n) = (p.pattern.deviations(), p.pattern.parameters());
        if d > 0 && out[p.first..p.first + d].iter().all(|h| *h) {
            out[p.first..p.first + n].fill(true);
        }
    }
    out
}

/// The parameters after a step, kept within their floors and one stride.
pub fn step(shape: &[f64], d: &[f64], floors: &[f64]) -> Vec<f64> {
    shape.iter().zip(d).zip(floors).map(|((s, d), f)| (s + d.clamp(-STRIDE, STRIDE)).clamp(*f, 1e4)).collect()
}

/// A direction of Sigma*: its factor and symmetric matrix (cols x cols).
pub type Direction = (usize, Vec<f64>);

/// Directions of the pattern parameters.
pub fn directions(m: &Moments, patterns: &[Patterned], shape: &[f64], lambda: &[Vec<f64>]) -> Vec<Direction> {
    let mut out = vec![];
    for p in patterns {
        let (k, ld) = (p.pattern.k, m.factors[p.factor].cols);
        let l: Vec<f64> = (0..k * k).map(|t| lambda[p.factor][p.offset + t % k + (p.offset + t / k) * ld]).collect();
        for j in 0..p.pattern.parameters() {
            let mut d = p.pattern.derivative(p.theta(shape), j);
            dense::solve_left_l(&l, k, k, &mut d, k, k);
            dense::solve_right_lt(&l, k, k, &mut d, k, k);
            let mut s = vec![0.0; ld * ld];
            for c in 0..k {
                for r in 0..k {
                    s[p.offset + r + (p.offset + c) * ld] = 0.5 * (d[r + c * k] + d[c + r * k]);
                }
            }
            out.push((p.factor, s));
        }
    }
    out
}

/// The free entries of the other covariances as directions.
pub fn of_components(m: &Moments, components: &[Component]) -> Vec<Direction> {
    components
        .iter()
        .map(|c| {
            let k = m.factors[c.factor].cols;
            let mut s = vec![0.0; k * k];
            s[c.row + c.col * k] = 1.0;
            s[c.col + c.row * k] = 1.0;
            (c.factor, s)
        })
        .collect()
}

/// tr(N S) of every direction.
pub fn gradient(n: &[Vec<f64>], directions: &[Direction]) -> Vec<f64> {
    directions.iter().map(|(f, s)| dot(&n[*f], s)).collect()
}

/// v_i'(I - A^-1) v_j with v_i = S_i u, A over (u, beta), and the raw part of beta (see `Lmm::quadratic`).
pub fn quadratic(lmm: &Lmm, s: &Solution, u: &[f64], directions: &[Direction]) -> (Vec<f64>, Vec<f64>) {
    let (m, sym) = (&lmm.moments, &lmm.symbolic);
    let (c, p) = (directions.len(), m.p());
    let mut v = vec![0.0; sym.size * c];
    for pos in 0..sym.nodes {
        let f = sym.factor_at[pos] as usize;
        let (k, at) = (m.factors[f].cols, sym.offset[pos] as usize);
        for (i, (_, s)) in directions.iter().enumerate().filter(|(_, (g, _))| *g == f) {
            for r in 0..k {
                v[(at + r) * c + i] = (0..k).map(|t| s[r + t * k] * u[at + t]).sum();
            }
        }
    }
    let mut q = vec![0.0; c * c];
    dense::syrk_rows(&mut q, c, &v, c, sym.size, 1.0);
    lmm.numeric.forward(sym, &mut v, c);
    dense::syrk_rows(&mut q, c, &v, c, sym.size, -1.0);
    let mut cross = vec![0.0; p * c];
    for (x, f) in v.chunks_exact(c.max(1)).zip(s.f.chunks_exact(p + 1)) {
        for (i, &xi) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            cross[i * p..(i + 1) * p].iter_mut().zip(f).for_each(|(o, f)| *o += xi * f);
        }
    }
    let mut w = cross.clone();
    dense::solve_left_l(&s.lx, p, p, &mut w, c, p);
    for j in 0..c {
        for i in j..c {
            q[i + j * c] -= dot(&w[i * p..(i + 1) * p], &w[j * p..(j + 1) * p]);
            q[j + i * c] = q[i + j * c];
        }
    }
    (q, cross)
}

/// tr(V^-1 V_i V^-1 V_j) from the diagonal blocks of the inverse; the others are left out, as it only steers the search.
pub fn information(lmm: &Lmm, inv: &SelectedInverse, directions: &[Direction]) -> Vec<f64> {
    let m = &lmm.moments;
    let c = directions.len();
    let mut out = vec![0.0; c * c];
    for (f, factor) in m.factors.iter().enumerate() {
        let mine: Vec<usize> = (0..c).filter(|&i| directions[i].0 == f).collect();
        let k = factor.cols;
        let mut products = vec![vec![0.0; k * k]; mine.len()];
        for z in inv.diag[f].chunks_exact(k * k) {
            let rest: Vec<f64> = (0..k * k).map(|t| if t % k == t / k { 1.0 } else { 0.0 } - z[t]).collect();
            for (w, &i) in products.iter_mut().zip(&mine) {
                w.fill(0.0);
                dense::gemm(w, k, &rest, k, &directions[i].1, k, k, k, k, 1.0);
            }
            for (a, &i) in mine.iter().enumerate() {
                for (b, &j) in mine.iter().enumerate().skip(a) {
                    let t: f64 = (0..k * k).map(|t| products[a][t] * products[b][(t % k) * k + t / k]).sum();
                    out[i + j * c] += t;
                    if i != j {
                        out[j + i * c] += t;
                    }
                }
            }
        }
    }
    out
}
