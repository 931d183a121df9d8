//! Variances and coefficients to start from.
//!
//! Variances come from the scores of the random effects at zero against their expected size. With score s = Z'(-D1) of a fit without random effects and G = Z'D2Z, E[s s'] = G + G Sigma G to first order: sums of
//! squared scores per column give linear equations in the variances, crossed factors included through their pairs. A
//! level weighs 1 / (g + median g)^2, so that one with all the information (an outlier in x) does not decide.

use crate::design::{Moments, Pair};
use crate::family::Link;
use crate::optimise::invert;

use super::laplace::Engine;
use super::patterns::Patterned;
use super::rows::{GlmmRows, Plan};

/// Smallest and largest standard deviation to start from, in units of a usual level's information.
const LOW: f64 = 0.3;
/// Largest one.
const HIGH: f64 = 1e6;

/// Rows that a median is taken of.
const SOME: usize = 64;
/// Variance of a predictor beyond which coefficients are not carried any further.
const WIDE: f64 = 4.0;
/// (16 sqrt(3) / (15 pi))^2, the square of the ratio of logistic and normal curves.
const LOGISTIC: f64 = 0.346;

/// Relative factors of every grouping factor (diagonal), from the scores Z'D1 by factor (levels x cols), where `share` of
/// the variance of the fit without random effects is that of the rows.
pub fn variances(m: &Moments, zg: &[Vec<f64>], share: f64) -> Vec<Vec<f64>> {
    let first: Vec<usize> = m
        .factors
        .iter()
        .scan(0, |at, f| {
            *at += f.cols;
            Some(*at - f.cols)
        })
        .collect();
    let n: usize = m.factors.iter().map(|f| f.cols).sum();
    let usual: Vec<Vec<f64>> = (0..m.factors.len()).map(|f| usual_information(m, f)).collect();
    let weight = |f: usize, g: f64, c: usize| (g + usual[f][c]).powi(-2);
    let (mut a, mut rhs) = (vec![0.0; n * n], vec![0.0; n]);
    for (f, factor) in m.factors.iter().enumerate() {
        let k = factor.cols;
        for (g, s) in factor.gram.chunks_exact(k * k).zip(zg[f].chunks_exact(k)) {
            for i in 0..k {
                let w = weight(f, g[i + i * k], i);
                rhs[first[f] + i] += w * (s[i] * s[i] - share * g[i + i * k]);
                for j in 0..k {
                    a[first[f] + i + (first[f] + j) * n] += w * g[i + j * k] * g[i + j * k];
                }
            }
        }
    }
    for p in &m.pairs {
        let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
        for (v, at) in p.value.chunks_exact(kl * ko).zip(levels_of(p)) {
            for j in 0..ko {
                for i in 0..kl {
                    let square = v[i + j * kl] * v[i + j * kl];
                    let (r, c) = (first[p.lead] + i, first[p.other] + j);
                    let own = |f: usize, l: usize, i: usize, k: usize| m.factors[f].gram[l * k * k + i + i * k];
                    a[r + c * n] += square * weight(p.lead, own(p.lead, at.0, i, kl), i);
                    a[c + r * n] += square * weight(p.other, own(p.other, at.1, j, ko), j);
                }
            }
        }
    }
    let sigma = non_negative(&a, &rhs, n);
    let mut out = vec![];
    for (f, factor) in m.factors.iter().enumerate() {
        let mut lambda = vec![0.0; factor.cols * factor.cols];
        for slot in &factor.slots {
            for at in slot.offset..slot.offset + slot.cols {
                let unit = usual[f][at].sqrt().recip();
                let sd = sigma[first[f] + at].max(0.0).sqrt();
                lambda[at + at * factor.cols] = sd.clamp(LOW * unit, HIGH * unit);
            }
        }
        out.push(lambda);
    }
    out
}

/// Coefficients of the first predictor given random effects of the factors `lambda` (diagonal), from those of a fit
/// without any: a log-normal mean is exp(v / 2) times its median, and a predictor with variance v flattens logistic and
/// probit curves (Zeger, Liang & Albert 1988, section 3.2).
pub fn conditional(e: &Engine, rows: &GlmmRows<'_>, lambda: &[Vec<f64>], beta: &[f64]) -> Vec<f64> {
    let (link, variance) = (e.family.links().first(), usual_variance(&e.plan, rows, lambda).min(WIDE));
    let steeper = |c: f64| {
        let mut out = beta.to_vec();
        e.plan.coefficients_of(0).into_iter().for_each(|j| out[j] *= (1.0 + c * variance).sqrt());
        out
    };
    match link {
        Some(Link::Logit) => steeper(LOGISTIC),
        Some(Link::Probit) => steeper(1.0),
        Some(Link::Log) => {
            let fixed = rows.components.iter().take(1).flat_map(|c| &c.fixed);
            let mut user = e.plan.user_beta(beta);
            if let Some(f) = fixed.into_iter().find(|f| f.block.is_intercept() || f.block.is_cell_means()) {
                user[f.first..f.first + f.block.cols].iter_mut().for_each(|b| *b -= 0.5 * variance);
            }
            e.plan.internal_beta(&user)
        }
        _ => beta.to_vec(),
    }
}

/// Variance of the random part of a predictor, the median over some rows: one far out in x does not decide.
fn usual_variance(plan: &Plan, rows: &GlmmRows<'_>, lambda: &[Vec<f64>]) -> f64 {
    let some = rows.n.min(SOME);
    let of = |i: usize| -> f64 {
        let parts = plan.z.iter().zip(lambda).flat_map(|(f, l)| {
            let own = f.columns.iter().enumerate();
            own.map(move |(c, column)| (column.value(rows, i) * l[c * (f.columns.len() + 1)]).powi(2))
        });
        parts.sum()
    };
    let mut all: Vec<f64> = (0..some).map(|t| of(t * (rows.n / some))).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(some / 2).copied().unwrap_or(0.0)
}

/// Covariance of the columns of a term (k x k) that the scores of its factor suggest, where `share` of the variance of the
/// fit without random effects is the residual's: mean products of scores, E[s s'] = share G + G Sigma G. Where the columns
/// do not overlap G is diagonal. NaN for columns that no level has both of.
pub fn covariance(m: &Moments, p: &Patterned, scores: &[f64], share: f64) -> Vec<f64> {
    let (k, ld) = (p.pattern.k, m.factors[p.factor].cols);
    let (mut sum, mut weight) = (vec![0.0; k * k], vec![0.0; k * k]);
    for (g, s) in m.factors[p.factor].gram.chunks_exact(ld * ld).zip(scores.chunks_exact(ld)) {
        let at = |a: usize| p.offset + a;
        for b in 0..k {
            for a in 0..k {
                sum[a + b * k] += s[at(a)] * s[at(b)] - share * g[at(a) + at(b) * ld];
                weight[a + b * k] += g[at(a) * (ld + 1)] * g[at(b) * (ld + 1)];
            }
        }
    }
    sum.iter().zip(&weight).map(|(s, w)| if *w > 0.0 { s / w } else { f64::NAN }).collect()
}

/// Median over the levels that have any, of the information about every column.
fn usual_information(m: &Moments, f: usize) -> Vec<f64> {
    let k = m.factors[f].cols;
    let of = |c: usize| {
        let mut all: Vec<f64> = m.factors[f].gram.chunks_exact(k * k).map(|g| g[c + c * k]).collect();
        all.retain(|g| *g > 0.0);
        let middle = all.len() / 2;
        if all.is_empty() {
            return f64::MIN_POSITIVE;
        }
        *all.select_nth_unstable_by(middle, f64::total_cmp).1
    };
    (0..k).map(of).collect()
}

/// Levels (of lead, of other) of every block of a pair.
fn levels_of(p: &Pair) -> impl Iterator<Item = (usize, usize)> + '_ {
    p.start.windows(2).enumerate().flat_map(move |(l, w)| (w[0]..w[1]).map(move |t| (l, p.level[t as usize] as usize)))
}

/// Solution of a x = rhs with negative entries set to zero one after another, the most negative first.
fn non_negative(a: &[f64], rhs: &[f64], n: usize) -> Vec<f64> {
    let mut active = vec![true; n];
    for _ in 0..=n {
        let on: Vec<usize> = (0..n).filter(|&i| active[i]).collect();
        let k = on.len();
        let mut h: Vec<f64> = (0..k * k).map(|t| a[on[t % k] + on[t / k] * n]).collect();
        (0..k).for_each(|i| h[i + i * k] *= 1.0 + 1e-8);
        let inverse = invert(&h, k);
        let x: Vec<f64> = (0..k).map(|i| (0..k).map(|j| inverse[i + j * k] * rhs[on[j]]).sum()).collect();
        if !x.iter().all(|x: &f64| x.is_finite()) {
            return vec![0.0; n];
        }
        match (0..k).min_by(|&i, &j| x[i].total_cmp(&x[j])) {
            Some(worst) if x[worst] < 0.0 => active[on[worst]] = false,
            _ => {
                let mut out = vec![0.0; n];
                on.iter().zip(&x).for_each(|(&i, v)| out[i] = *v);
                return out;
            }
        }
    }
    vec![0.0; n]
}
