//! Sums of a discrete density: distribution functions.
//!
//! Few terms are added one by one. Many are integrated, panel by panel, with Gregory's correction at the ends, so that the
//! work does not grow with the counts.

use std::sync::OnceLock;

use super::density::{Density, Legal, Row};
use super::link::Par;
use crate::jet::Scalar;

/// Gregory's weights of the differences 0 ... 6 at the lower end: sum over j >= a = integral from a + these.
pub(super) const GREGORY: [f64; 7] =
    [1.0 / 2.0, -1.0 / 12.0, 1.0 / 24.0, -19.0 / 720.0, 3.0 / 160.0, -863.0 / 60480.0, 275.0 / 24192.0];

/// Largest count up to which all probabilities are added up.
const DIRECT: f64 = 256.0;
/// Logarithm of the share at which the rest is none.
const NONE: f64 = 45.0;
/// Standard deviation from which a sum is integrated, and the most that terms may then fall from one to the next: the
/// ends are corrected to about the eighth power of it.
const WIDE: f64 = 60.0;
const STEEP: f64 = 0.04;
/// Fall of the logarithm over one panel.
const FALL: f64 = 8.0;
/// Terms that are added up one by one next to 0.
const SINGLE: f64 = 32.0;

/// log F(y) and log (1 - F(y)) of a discrete response.
pub(super) fn add_up<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4], step: f64) -> (S, S) {
    if d.legal() == Legal::Count && row.y > DIRECT {
        return by_tails(d, row, p);
    }
    let mut f = S::constant(f64::NEG_INFINITY);
    let last = (row.y / step + 1e-9).floor();
    if d.legal() == Legal::Proportion && last >= row.trials {
        return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
    }
    let mut k = 0.0;
    while k <= last {
        f = f.ln_add_exp(d.ln_density(&Row { y: k * step, ..*row }, p));
        k += 1.0;
    }
    if f.value() < -0.7 || d.legal() == Legal::Category {
        let s = if f.value() >= 0.0 { S::constant(f64::NEG_INFINITY) } else { f.ln_1m_exp() };
        return (f, s);
    }
    // More than half of the mass lies below: add up the upper tail instead.
    let end = if d.legal() == Legal::Proportion { row.trials } else { f64::INFINITY };
    let s = singly(|k| d.ln_density(&Row { y: k * step, ..*row }, p), k, 1.0, end);
    (s.ln_1m_exp(), s)
}

/// The same of a count by its smaller tail.
fn by_tails<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
    let (mean, variance) = d.moments(row, &p.map(|p| Par { eta: p.eta.value(), link: p.link }));
    let (y, at) = (row.y.floor(), |y: f64| d.ln_density(&Row { y, ..*row }, p));
    let width = variance.sqrt();
    if y < mean {
        let f = tail(at, y, -1.0, width);
        (f, f.ln_1m_exp())
    } else {
        let s = tail(at, y + 1.0, 1.0, width);
        (s.ln_1m_exp(), s)
    }
}

/// log of the sum of exp(at(k)) over k = from, from + step ... to `end`, or to where it does not change any more.
fn singly<S: Scalar>(at: impl Fn(f64) -> S, from: f64, step: f64, end: f64) -> S {
    let (mut sum, mut k) = (S::constant(f64::NEG_INFINITY), from);
    while step * (end - k) >= 0.0 {
        let term = at(k);
        sum = sum.ln_add_exp(term);
        if !(term.value() > sum.value() - NONE) {
            break;
        }
        k += step;
    }
    sum
}

/// log of the sum of exp(at(k)) from a count on upwards (`way` 1) or downwards to 0 (-1), `width` the standard deviation.
fn tail<S: Scalar>(at: impl Fn(f64) -> S, from: f64, way: f64, width: f64) -> S {
    let fall = |k: f64| (at(k + way).value() - at(k).value()).abs();
    if !(width > WIDE && fall(from) < STEEP) {
        return singly(at, from, way, if way > 0.0 { f64::INFINITY } else { 0.0 });
    }
    let mut sum = S::constant(f64::NEG_INFINITY);
    let mut low = from;
    loop {
        let most = width.min(0.25 * low).min(FALL / fall(low));
        let h = if way < 0.0 { most.min(low - SINGLE) } else { most };
        let mut terms: Vec<(S, f64)> =
            legendre().iter().map(|(x, w)| (at(low + way * 0.5 * h * (1.0 + x)), 0.5 * h * w)).collect();
        if low == from {
            terms.extend(end(&at, from, way));
        }
        let part = ln_sum(&terms);
        sum = sum.ln_add_exp(part);
        if !(part.value() > sum.value() - NONE) {
            return sum;
        }
        low += way * h;
        if way < 0.0 && low <= SINGLE {
            let single = (0..SINGLE as usize).map(|k| (at(k as f64), 1.0));
            return sum.ln_add_exp(ln_sum(&single.chain(end(&at, SINGLE, 1.0)).collect::<Vec<_>>()));
        }
    }
}

/// What a sum that begins at a count has beyond the integral from there.
fn end<S: Scalar>(at: &impl Fn(f64) -> S, from: f64, way: f64) -> Vec<(S, f64)> {
    end_weights().iter().enumerate().map(|(j, w)| (at(from + way * j as f64), *w)).collect()
}

/// log of a sum of exp(t) times w.
fn ln_sum<S: Scalar>(terms: &[(S, f64)]) -> S {
    let top = terms.iter().map(|t| t.0.value()).fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return S::constant(top);
    }
    let zero = S::constant(0.0);
    terms.iter().fold(zero, |sum, (t, w)| sum + (*t - top).exp() * *w).ln() + top
}

/// Gregory's corrections as weights of the terms at a, a + 1 ...
pub(super) fn end_weights() -> &'static [f64; 7] {
    static WEIGHTS: OnceLock<[f64; 7]> = OnceLock::new();
    WEIGHTS.get_or_init(|| {
        let mut out = [0.0; 7];
        for (k, c) in GREGORY.iter().enumerate() {
            let mut binomial = 1.0;
            for j in (0..=k).rev() {
                out[j] += c * binomial * if (k - j) % 2 == 0 { 1.0 } else { -1.0 };
                binomial *= j as f64 / (k - j + 1) as f64;
            }
        }
        out
    })
}

/// Nodes and weights of the Gauss-Legendre rule with 16 points on (-1, 1), in ascending order.
pub(super) fn legendre() -> &'static [(f64, f64)] {
    const N: usize = 16;
    static RULE: OnceLock<Vec<(f64, f64)>> = OnceLock::new();
    RULE.get_or_init(|| {
        let node = |i: usize| {
            let mut x = -(std::f64::consts::PI * (i as f64 + 0.75) / (N as f64 + 0.5)).cos();
            let mut slope = 0.0;
            for _ in 0..20 {
                let (mut p, mut before) = (1.0, 0.0);
                for k in 0..N {
                    let k = k as f64;
                    (p, before) = (((2.0 * k + 1.0) * x * p - k * before) / (k + 1.0), p);
                }
                slope = N as f64 * (before - x * p) / (1.0 - x * x);
                x -= p / slope;
            }
            (x, 2.0 / ((1.0 - x * x) * slope * slope))
        };
        (0..N).map(node).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::dispersed::{Bell, ConwayMaxwellPoisson, GeneralisedPoisson};
    use super::super::link::Link;
    use super::*;
    use crate::jet::Jet;

    type Third = Jet<2, 3, 4>;

    /// Value, first and some higher derivatives of log F and log (1 - F), as they are and by single terms.
    fn both<D: Density>(d: &D, y: f64, predictors: [f64; 2]) -> [[f64; 20]; 2] {
        let p = std::array::from_fn(|i| match predictors.get(i) {
            Some(&eta) => Par { eta: Third::variable(eta, i), link: Link::Log },
            None => Par::constant(1.0),
        });
        let row = Row { y, trials: 1.0, se: 0.0, randomised: None };
        let at = |y: f64| d.ln_density(&Row { y, ..row }, &p);
        let (below, above) = add_up(d, &row, &p, 1.0);
        let single = |from: f64, way: f64, end: f64| {
            let (mut sum, mut k) = (Third::constant(f64::NEG_INFINITY), from);
            while way * (end - k) >= 0.0 {
                sum = sum.ln_add_exp(at(k));
                k += way;
            }
            sum
        };
        let (f, s) = (single(y, -1.0, 0.0), single(y + 1.0, 1.0, 40.0 * predictors[0].exp() + 4_000.0));
        let packed = |a: Third, b: Third| {
            let mut out = [0.0; 70];
            a.store(&mut out);
            b.store(&mut out[35..]);
            std::array::from_fn(|i| out[i / 10 * 35 + i % 10])
        };
        [packed(below, above), packed(f, s)]
    }

    fn agree<D: Density>(d: &D, y: f64, predictors: [f64; 2]) {
        let [own, single] = both(d, y, predictors);
        // Of the larger tail derivatives are next to nothing.
        let smaller = if single[0] < single[10] { 0..10 } else { 10..20 };
        for (a, b) in own[smaller.clone()].iter().zip(&single[smaller]) {
            // Some thousand terms are added one by one.
            assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{y} {predictors:?}: {own:?} {single:?}");
        }
    }

    #[test]
    fn distribution_functions_of_wide_counts() {
        for share in [0.6, 0.85, 0.99, 1.0, 1.02, 1.3, 2.0] {
            let y = |mean: f64| f64::floor(share * mean);
            for mean in [400.0, 3_000.0, 20_000.0] {
                agree(&Bell, y(mean), [f64::ln(mean), 0.0]);
                for dispersion in [0.8, 1.0, 8.0, 300.0] {
                    agree(&GeneralisedPoisson, y(mean), [f64::ln(mean), f64::ln(dispersion)]);
                }
            }
            for dispersion in [0.5, 1.0, 6.0, 60.0] {
                agree(&ConwayMaxwellPoisson, y(600.0), [f64::ln(600.0), f64::ln(dispersion)]);
            }
        }
    }
}
