//! tr(S E_i) and tr(S E_i S E_j), S = Z'V*^-1Z, by elimination of the factor of most levels.

use rayon::prelude::*;

use crate::design::{Moments, Part as Share};
use crate::linear::{Component, Lmm};
use crate::{dense, optimise, CoreError};

use super::blocks::{absorb, absorb_wide};
use super::rest::Rest;

/// Largest work (multiplications) and memory (numbers) that the exact traces may take.
pub const MOST_WORK: f64 = 3e11;
const MOST_NUMBERS: f64 = 3e8;
/// Time of a multiplication here over that of one in a factorisation and its inverse.
const SLOWER: f64 = 2.0;
/// Work that is not worth a comparison: less than a millisecond.
const LITTLE: f64 = 1e6;

/// Levels of the absorbed factor up to which threads are not worth waking.
const FEW: usize = 1000;

/// tr(S E_i) and tr(S E_i S E_j).
///
/// With the factor `a` of most levels absorbed, V_a = W^-1 + Z_a Sigma_a Z_a' falls apart by its levels, and so do the
/// blocks N = [Z_a Z_b]'V_a^-1[Z_a Z_b] of a. The rest b, of order q_b, gives with K = Lambda (I + Lambda'N_bb Lambda)^-1
/// Lambda' and F = I - K N_bb
///
/// ```text
/// S_aa = N_aa - N_ab K N_ba,      S_ab = N_ab F,      S_bb = N_bb F,
/// ```
///
/// and b falls apart into the levels that share no level of a: order q_b^3 for two crossed factors, next to nothing for
/// nested ones, whatever the number of levels of a.
pub struct Traces {
    pub first: Vec<f64>,
    pub second: Vec<f64>,
    /// Lower triangles of the blocks of S, level by level, where there is one factor only.
    pub alone: Option<Vec<f64>>,
}

/// Levels of the other factors that hang together, and the levels of the absorbed factor that tie them.
pub struct Part {
    pub nodes: Vec<(usize, usize)>,
    pub leads: Vec<usize>,
    pub size: usize,
}

impl Traces {
    /// None where the work would be (much) more than `most` multiplications, or the memory out of proportion. Coefficients of wide factors are part of what REML integrates out:
    /// absorbed with Sigma_a without bound, N_aa = 0, they leave the traces given them.
    pub fn new(m: &Moments, lambda: &[Vec<f64>], components: &[Component], reml: bool, most: f64) -> Option<Self> {
        if !m.wide.is_empty() && !reml {
            let alone = m.part(Share::Random);
            // Its blocks are those of another S than the response has, which is without the wide factors.
            return Traces::new(&alone, &lambda[..alone.factors.len()], components, false, most)
                .map(|t| Traces { alone: None, ..t });
        }
        let c = components.len();
        if c == 0 {
            return Some(Traces { first: vec![], second: vec![], alone: None });
        }
        // The first of the most levels leads every pair that it belongs to.
        let lead = (0..m.factors.len()).rev().max_by_key(|&f| m.factors[f].levels)?;
        let (parts, row) = parts(m, lead);
        let (wide, unbounded) = (m.wide.len(), lead >= m.random());
        if wide > 1 || (wide == 1 && !unbounded) || !in_proportion(m, lead, &parts, components, most) {
            return None;
        }
        let factor = &m.factors[lead];
        let k2 = factor.cols * factor.cols;
        let one = |g: &[f64]| absorb(g, &lambda[lead], factor.cols, m.factors.len() > 1);
        let absorbed = match unbounded {
            true => factor.gram.iter().map(|&g| absorb_wide(g)).collect(),
            false if factor.levels < FEW => factor.gram.chunks(k2).map(one).collect(),
            false => factor.gram.par_chunks(k2).map(one).collect(),
        };
        let rest = Rest { m, lambda, components, lead, absorbed, row };
        let add = |mut a: Traces, b: Traces| {
            a.first.iter_mut().zip(&b.first).for_each(|(a, b)| *a += b);
            a.second.iter_mut().zip(&b.second).for_each(|(a, b)| *a += b);
            a
        };
        let others: Vec<Traces> = match parts.len() < 2 || factor.levels < FEW {
            true => parts.iter().map(|p| rest.of_part(p)).collect(),
            false => parts.par_iter().map(|p| rest.of_part(p)).collect(),
        };
        let triangles = rest.triangles();
        let mut out = others.into_iter().fold(rest.of_lead(&triangles), add);
        out.alone = (m.factors.len() == 1 && !unbounded).then_some(triangles);
        Some(out)
    }

    /// The same from all of A^-1, with S = Lambda^-T (I - A^-1) Lambda^-1; the model's factor is used up.
    pub fn of_columns(lmm: &mut Lmm, lambda: &[Vec<f64>]) -> Result<Self, CoreError> {
        let (first, second) = lmm.traces_of_columns()?;
        let c = lmm.components.len();
        // Lambda^-1 E_i Lambda^-T = sum_a chain[a, i] E_a.
        let mut chain = vec![0.0; c * c];
        for (i, ci) in lmm.components.iter().enumerate() {
            let k = lmm.moments.factors[ci.factor].cols;
            let inverse = optimise::invert(&lambda[ci.factor], k);
            for (a, ca) in lmm.components.iter().enumerate().filter(|(_, a)| a.factor == ci.factor) {
                let entry = |(r, s): (usize, usize)| inverse[ca.row + r * k] * inverse[ca.col + s * k];
                chain[a + i * c] = ci.cells().map(entry).sum();
            }
        }
        let (mut half, mut out) =
            (vec![0.0; c * c], Traces { first: vec![0.0; c], second: vec![0.0; c * c], alone: None });
        dense::gemm(&mut half, c, &second, c, &chain, c, c, c, c, 1.0);
        dense::gemm_tn(&mut out.second, c, &chain, c, &half, c, c, c, c, 1.0);
        dense::gemm_tn(&mut out.first, c, &chain, c, &first, c, c, 1, c, 1.0);
        Ok(out)
    }
}

/// Smallest variance on the scale of the residual, times the mean cross-product of its column, at which M is divided by it.
const DIVISIBLE: f64 = 1e-6;

/// Work (multiplications) of `Traces::of_columns`, where it can be done.
pub fn work_of_columns(lmm: &Lmm, lambda: &[Vec<f64>]) -> Option<f64> {
    let divisible = lmm.moments.factors.iter().zip(lambda).all(|(f, lambda)| {
        let k = f.cols;
        (0..k).all(|c| {
            let gram: f64 = f.gram.chunks_exact(k * k).map(|g| g[c * (k + 1)]).sum();
            lambda[c * (k + 1)].powi(2) * gram > DIVISIBLE * f.levels as f64
        })
    });
    if divisible {
        lmm.work_of_columns()
    } else {
        None
    }
}

/// Split the levels of all factors but one into parts that hang together.
fn parts(m: &Moments, lead: usize) -> (Vec<Part>, Vec<Vec<usize>>) {
    let mut base = vec![0usize];
    for (f, factor) in m.factors.iter().enumerate() {
        base.push(base[f] + if f == lead { 0 } else { factor.levels });
    }
    let mut of: Vec<usize> = (0..base[m.factors.len()]).collect();
    let mut anchor = vec![usize::MAX; m.factors[lead].levels];
    for p in &m.pairs {
        for l in 0..m.factors[p.lead].levels {
            for e in p.start[l] as usize..p.start[l + 1] as usize {
                let other = base[p.other] + p.level[e] as usize;
                if p.lead != lead {
                    join(&mut of, base[p.lead] + l, other);
                } else if anchor[l] == usize::MAX {
                    anchor[l] = other;
                } else {
                    join(&mut of, anchor[l], other);
                }
            }
        }
    }
    let mut at = vec![usize::MAX; of.len()];
    let mut parts: Vec<Part> = vec![];
    let mut row: Vec<Vec<usize>> = m.factors.iter().map(|_| vec![]).collect();
    for (f, factor) in m.factors.iter().enumerate().filter(|(f, _)| *f != lead) {
        for l in 0..factor.levels {
            let r = root(&mut of, base[f] + l);
            if at[r] == usize::MAX {
                at[r] = parts.len();
                parts.push(Part { nodes: vec![], leads: vec![], size: 0 });
            }
            let part = &mut parts[at[r]];
            row[f].push(part.size);
            part.nodes.push((f, l));
            part.size += factor.cols;
        }
    }
    for (l, &a) in anchor.iter().enumerate().filter(|(_, a)| **a != usize::MAX) {
        parts[at[root(&mut of, a)]].leads.push(l);
    }
    (parts, row)
}

fn root(of: &mut [usize], mut i: usize) -> usize {
    while of[i] != i {
        of[i] = of[of[i]];
        i = of[i];
    }
    i
}

fn join(of: &mut [usize], i: usize, j: usize) {
    let (i, j) = (root(of, i), root(of, j));
    of[i.max(j)] = i.min(j);
}

fn in_proportion(m: &Moments, lead: usize, parts: &[Part], components: &[Component], most: f64) -> bool {
    let own = components.iter().filter(|c| c.factor == lead).count() as f64;
    let cube: f64 = parts.iter().map(|p| (p.size as f64).powi(3)).sum();
    let widest = parts.iter().map(|p| p.size as f64).fold(0.0, f64::max);
    let mut degree = vec![0.0; m.factors[lead].levels];
    for p in m.pairs.iter().filter(|p| p.lead == lead) {
        let k = m.factors[p.other].cols as f64;
        p.start.windows(2).zip(&mut degree).for_each(|(w, d)| *d += k * f64::from(w[1] - w[0]));
    }
    let scatter: f64 = degree.iter().map(|d| d * d * (2.0 + own) * m.factors[lead].cols as f64).sum();
    let work = cube * (3.0 + 2.0 * own) + 3.0 * scatter;
    (work < LITTLE || SLOWER * work <= most) && work < MOST_WORK && widest * widest * (4.0 + own) < MOST_NUMBERS
}
