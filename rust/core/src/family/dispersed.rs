//! Counts with more or less spread than Poisson: Bell, generalised Poisson, Conway-Maxwell-Poisson.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::Scalar;
use crate::special;

/// Bell distribution (Castellares, Ferrari & Lemonte 2018) by its mean mu = theta exp(theta); variance mu (1 + theta).
#[derive(Clone, Copy)]
pub struct Bell;

/// theta = W(mu) as a function of log mu.
fn bell_theta<S: Scalar>(ln_mu: S) -> S {
    let t = lambert_of_log(ln_mu.value());
    let r = 1.0 / (1.0 + t);
    ln_mu.compose([t, t * r, t * r * r * r, t * (1.0 - 2.0 * t) * r.powi(5)])
}

fn lambert_of_log(ln_mu: f64) -> f64 {
    if ln_mu < 700.0 {
        return special::lambert_w(ln_mu.exp());
    }
    // w + ln w = ln mu
    (0..6).fold(ln_mu, |w, _| ln_mu - w.ln())
}

/// log of the Bell number B_n (Dobinski's formula), tabled.
fn ln_bell(n: f64) -> f64 {
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    let table = TABLE.get_or_init(|| (0..256).map(|n| dobinski(n as f64)).collect());
    table.get(n as usize).copied().unwrap_or_else(|| {
        LARGE.with(|seen| {
            let mut seen = seen.borrow_mut();
            if seen.len() > KEPT {
                seen.clear();
            }
            *seen.entry(n.to_bits()).or_insert_with(|| dobinski(n))
        })
    })
}

/// Large Bell numbers kept by every thread: a fit asks for those of its responses in every pass.
const KEPT: usize = 1 << 16;
thread_local! {
    static LARGE: RefCell<HashMap<u64, f64>> = RefCell::new(HashMap::new());
}

/// B_n = exp(-1) sum_k k^n / k!; the terms rise to one maximum near k log k = n and fall, over a width that needs no
/// more terms for a large n. The largest n have Laplace's approximation (Moser & Wyman 1955), whose error is 1 / k.
fn dobinski(n: f64) -> f64 {
    if n == 0.0 {
        return 0.0;
    }
    let term = |k: f64| n * f64::ln(k) - special::ln_factorial(k);
    let w = special::lambert_w(n);
    let mode = w.exp();
    let sd = (mode / (1.0 + w)).sqrt();
    if n > 1e12 {
        // n log k - log k! with log k = w, n = k w
        return mode * (w * w - w + 1.0) - 0.5 * w - 1.0 + sd.ln();
    }
    let top = term(mode.round().max(1.0));
    let mut sum = 0.0;
    around_mode(mode, sd, 1.0, term, |_, t, w| sum += w * (t - top).exp());
    top + f64::ln(sum) - 1.0
}

impl Density for Bell {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let lm = p[0].ln();
        let theta = bell_theta(lm);
        // ln theta = ln mu - theta; exp(theta) - 1
        let rest = -theta.exp_m1() + (ln_bell(row.y) - special::ln_factorial(row.y));
        if row.y > 0.0 {
            (lm - theta) * row.y + rest
        } else {
            rest
        }
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let mu = p[0].value();
        (mu, mu * (1.0 + special::lambert_w(mu)))
    }

    /// A Poisson(exp(theta) - 1) number of zero-truncated Poisson(theta) variates.
    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let theta = special::lambert_w(p[0].value());
        let n = rng.poisson(theta.exp_m1());
        let (ln_theta, norm) = (theta.ln(), theta.exp_m1().ln());
        (0..n as usize).map(|_| rng.count(1.0, |k| k * ln_theta - special::ln_factorial(k) - norm)).sum()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean.max(0.05), 0.0, 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Count
    }
}

/// Generalised Poisson (Consul & Famoye 1992; Joe & Zhu 2005) with variance mu phi:
/// theta = mu / sqrt(phi), lambda = 1 - 1/sqrt(phi), log f = log theta + (y-1) log(theta + lambda y) - theta - lambda y - log y!
#[derive(Clone, Copy)]
pub struct GeneralisedPoisson;

impl Density for GeneralisedPoisson {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let h = p[1].ln() * -0.5;
        let ln_theta = p[0].ln() + h;
        let theta = ln_theta.exp();
        if row.y == 0.0 {
            return -theta;
        }
        let t = theta - h.exp_m1() * row.y;
        if t.value() <= 0.0 {
            return S::constant(f64::NEG_INFINITY);
        }
        ln_theta + t.ln() * (row.y - 1.0) - t - special::ln_factorial(row.y)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let mu = p[0].value();
        (mu, mu * p[1].value())
    }

    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        rng.count(0.0, |y| self.ln_density(&Row { y, ..*row }, p))
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        let mean = s.mean.max(0.05);
        [mean, (s.variance / mean).sqrt().clamp(0.7, 10.0), 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Count
    }
}

/// Conway-Maxwell-Poisson by its mean (Huang 2017): f = lambda^y / y!^nu / Z(lambda, nu), nu = 1 / dispersion, lambda such
/// that the mean is mu. Z, its derivatives and the implicit derivatives of lambda are cumulants of (j, log j!).
#[derive(Clone, Copy)]
pub struct ConwayMaxwellPoisson;

/// log Z and the joint cumulants of (j, b), b = slope j - log j!, to fourth order.
struct Cumulants {
    ln_z: f64,
    mean: f64,
    /// Mean of slope j - log j!.
    b: f64,
    /// k\[i\]\[l\]: cumulant of i times j and l times b.
    k: [[f64; 5]; 5],
    slope: f64,
}

/// A series wider than this that begins inside its bulk is integrated instead of added up.
const WIDE: f64 = 30.0;

/// Terms of a log-concave series around its mode, `f(index, log term, weight)`; far from its first index and wide, every
/// h-th is enough: the trapezoidal rule is exact to exp(-2 pi^2 (sd/h)^2).
fn around_mode(mode: f64, sd: f64, first: f64, term: impl Fn(f64) -> f64, mut f: impl FnMut(f64, f64, f64)) {
    let far = mode - 14.0 * sd > first;
    if sd > WIDE && !far {
        return integrated(mode, sd, first, term, f);
    }
    let step = if sd >= 6.0 && far { (sd / 2.0).floor() } else { 1.0 };
    let centre = mode.round().max(first);
    let top = term(centre);
    f(centre, top, step);
    let mut j = centre + step;
    for _ in 0..2_000_000u32 {
        let t = term(j);
        f(j, t, step);
        if !(t > top - SMALL) {
            break;
        }
        j += step;
    }
    j = centre - step;
    while j >= first {
        let t = term(j);
        f(j, t, step);
        if !(t > top - SMALL) {
            break;
        }
        j -= step;
    }
}

/// Logarithm of the share at which a term is none.
const SMALL: f64 = 42.0;
/// Gregory's weights of the differences 0 ... 6 at the lower end: sum over j >= a = integral from a + these.
const GREGORY: [f64; 7] =
    [1.0 / 2.0, -1.0 / 12.0, 1.0 / 24.0, -19.0 / 720.0, 3.0 / 160.0, -863.0 / 60480.0, 275.0 / 24192.0];

/// The same by 32 single terms, Gregory's end correction and Gauss-Legendre panels that double up to one sd.
fn integrated(mode: f64, sd: f64, first: f64, term: impl Fn(f64) -> f64, mut f: impl FnMut(f64, f64, f64)) {
    let a = first + 32.0;
    let mut single = |j: f64, w: f64| f(j, term(j), w);
    (0..32).for_each(|j| single(first + j as f64, 1.0));
    for (j, w) in end_weights().iter().enumerate() {
        single(a + j as f64, *w);
    }
    let top = term(mode.max(first));
    let (mut low, mut last) = (a, f64::INFINITY);
    while low <= mode || last > top - SMALL {
        let half = 0.5 * (low - first).min(sd);
        for &(x, w) in legendre() {
            let j = low + half * (1.0 + x);
            last = term(j);
            f(j, last, w * half);
        }
        low += 2.0 * half;
    }
}

/// Gregory's corrections as weights of the terms at a, a + 1 ...
fn end_weights() -> &'static [f64; 7] {
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
fn legendre() -> &'static [(f64, f64)] {
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

/// Scale of the series at (log lambda, nu): its standard deviation around a mode inside, else the length of its tail,
/// which falls by log lambda - nu log j from term to term.
fn conway_width(ln_lambda: f64, nu: f64) -> f64 {
    let inside = ((ln_lambda / nu).exp() / nu).sqrt();
    if ln_lambda > 0.0 {
        return inside;
    }
    inside.max(1.0 / (nu * (1.0 / nu).ln_1p() - ln_lambda))
}

/// The series at (log lambda, nu): log Z, mean, variance.
fn conway_sums(ln_lambda: f64, nu: f64) -> (f64, f64, f64) {
    let mode = (ln_lambda / nu).exp();
    let term = |j: f64| j * ln_lambda - nu * special::ln_factorial(j);
    let top = term(mode.round());
    let centre = mode.round();
    let (mut s0, mut s1, mut s2) = (0.0, 0.0, 0.0);
    around_mode(mode, conway_width(ln_lambda, nu), 0.0, term, |j, t, w| {
        let (w, d) = (w * (t - top).exp(), j - centre);
        s0 += w;
        s1 += w * d;
        s2 += w * d * d;
    });
    let m = s1 / s0;
    (top + f64::ln(s0), centre + m, s2 / s0 - m * m)
}

/// Whether the series starts at 0 and has a tail of some 10^5 terms: spread far beyond any count that is modelled so.
fn too_long(mu: f64, nu: f64) -> bool {
    mu * nu < 250.0 && (mu / nu).sqrt().min(mu) > 5e3
}

/// log lambda for a mean: Newton's method on the log of the mean, kept inside a bracket.
fn conway_lambda(mu: f64, nu: f64) -> f64 {
    let guess = mu + (nu - 1.0) / (2.0 * nu);
    // Far from Shmueli's approximation: between the geometric (nu = 0) and the Poisson (nu = 1), or a rare event.
    let mut x = if guess > 0.3 * mu && mu > 0.5 { nu * guess.ln() } else { mu.ln() - (1.0 - nu).max(0.0) * mu.ln_1p() };
    // With nu < 1 the mode lambda^(1/nu) lies below the mean.
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    if nu < 1.0 {
        high = nu * (mu + 1.0).ln().max(0.0) + 1e-12;
        x = x.min(high);
    }
    for _ in 0..100 {
        let (_, mean, variance) = conway_sums(x, nu);
        let f = (mean / mu).ln();
        if f > 0.0 {
            high = x;
        } else {
            low = x;
        }
        let step = f * mean / variance;
        if step.abs() <= 1e-14 * (1.0 + x.abs()) {
            return x - step;
        }
        let limit = 3.0 * nu.max(0.1) + 1.0;
        let next = x - step.clamp(-limit, limit);
        x = if next > low && next < high {
            next
        } else if low.is_finite() && high.is_finite() {
            0.5 * (low + high)
        } else {
            x - limit.copysign(f)
        };
    }
    x
}

fn conway_cumulants(ln_lambda: f64, nu: f64) -> Cumulants {
    let (ln_z, mean, variance) = conway_sums(ln_lambda, nu);
    let slope = special::polygammas(mean + 1.0)[0];
    let reference = special::lgamma(mean + 1.0);
    let statistic = |j: f64| slope * (j - mean) - (special::ln_factorial(j) - reference);
    let term = |j: f64| j * ln_lambda - nu * special::ln_factorial(j);
    let sd = conway_width(ln_lambda, nu);
    let mode = (ln_lambda / nu).exp();
    // Mean of b first, then central moments.
    let (mut s0, mut sb) = (0.0, 0.0);
    around_mode(mode, sd, 0.0, term, |j, t, w| {
        let w = w * (t - ln_z).exp();
        s0 += w;
        sb += w * statistic(j);
    });
    let b0 = sb / s0;
    let mut m = [[0.0; 5]; 5];
    around_mode(mode, sd, 0.0, term, |j, t, w| {
        let w = w * (t - ln_z).exp() / s0;
        let (d, b) = (j - mean, statistic(j) - b0);
        let (d2, b2) = (d * d, b * b);
        let powers = [[1.0, b, b2, b2 * b], [d, d * b, d * b2, d * b2 * b], [d2, d2 * b, d2 * b2, 0.0]];
        for (i, row) in powers.iter().enumerate() {
            for (l, v) in row.iter().enumerate() {
                m[i][l] += w * v;
            }
        }
        m[3][0] += w * d2 * d;
        m[3][1] += w * d2 * d * b;
        m[4][0] += w * d2 * d2;
    });
    m[2][0] = variance;
    let mut k = m;
    k[4][0] -= 3.0 * m[2][0] * m[2][0];
    k[3][1] -= 3.0 * m[2][0] * m[1][1];
    k[2][2] -= m[2][0] * m[0][2] + 2.0 * m[1][1] * m[1][1];
    k[1][3] -= 3.0 * m[0][2] * m[1][1];
    Cumulants { ln_z, mean, b: b0 + slope * mean - reference, k, slope }
}

impl Density for ConwayMaxwellPoisson {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (mu, nu) = (p[0].value(), (-p[1].ln()).exp());
        let (m, n0) = (mu.value(), nu.value());
        if !(m < 1e9 && m > 0.0 && n0 > 1e-8 && n0 < 1e8) || too_long(m, n0) {
            return limit(row.y, m);
        }
        let x0 = conway_lambda(m, n0);
        if S::ORDER == 0 {
            let (ln_z, _, _) = conway_sums(x0, n0);
            return S::constant(row.y * x0 - n0 * special::ln_factorial(row.y) - ln_z);
        }
        let c = conway_cumulants(x0, n0);
        let k = &c.k;
        // In place of log lambda: x = log lambda - slope (nu - nu0), nearly orthogonal to nu.
        let mean = [c.mean, k[2][0], k[1][1], k[3][0], k[2][1], k[1][2], k[4][0], k[3][1], k[2][2], k[1][3]];
        let mut x = S::constant(x0);
        for _ in 0..S::ORDER {
            x = x - (x.compose2(nu, &mean) - mu) * (1.0 / k[2][0]);
        }
        let z = [c.ln_z, c.mean, c.b, k[2][0], k[1][1], k[0][2], k[3][0], k[2][1], k[1][2], k[0][3]];
        let ln_lambda = x + (nu - n0) * c.slope;
        ln_lambda * row.y - nu * special::ln_factorial(row.y) - x.compose2(nu, &z)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (mu, nu) = (p[0].value(), 1.0 / p[1].value());
        if too_long(mu, nu) {
            return (mu, f64::NAN);
        }
        let (_, mean, variance) = conway_sums(conway_lambda(mu, nu), nu);
        (mean, variance)
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let (mu, nu) = (p[0].value(), 1.0 / p[1].value());
        if too_long(mu, nu) {
            return f64::NAN;
        }
        let x = conway_lambda(mu, nu);
        let (ln_z, _, _) = conway_sums(x, nu);
        rng.count(0.0, |j| j * x - nu * special::ln_factorial(j) - ln_z)
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        let mean = s.mean.max(0.05);
        [mean, (s.variance / mean).sqrt().clamp(0.7, 5.0), 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Count
    }
}

/// Outside the range of the series only the certain part is known: impossible, or a zero mean and a zero count.
fn limit<S: Scalar>(y: f64, mu: f64) -> S {
    S::constant(if mu == 0.0 && y == 0.0 { 0.0 } else { f64::NEG_INFINITY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bell_numbers() {
        for (n, b) in [(0.0, 1.0f64), (1.0, 1.0), (2.0, 2.0), (3.0, 5.0), (10.0, 115_975.0), (15.0, 1_382_958_545.0)] {
            assert!((ln_bell(n) - b.ln()).abs() < 1e-13, "{n}");
        }
    }

    #[test]
    fn bell_numbers_of_large_counts() {
        // B_(n+1) = sum_k choose(n, k) B_k
        for n in [300usize, 1000, 2500] {
            let terms: Vec<f64> = (0..=n).map(|k| special::ln_choose(n as f64, k as f64) + ln_bell(k as f64)).collect();
            let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = terms.iter().map(|t| (t - top).exp()).sum();
            let (a, b) = (ln_bell(n as f64 + 1.0), top + sum.ln());
            assert!((a - b).abs() < 1e-13 * b, "{n}: {a} {b}");
        }
        // The approximation agrees where it takes over, and no count takes long.
        let (a, b) = (dobinski(0.999_999e12), dobinski(1.000_001e12));
        let w = special::lambert_w(1e12);
        // d log B_n / dn is log k to first order.
        assert!(((b - a) / (2e6 * w) - 1.0).abs() < 1e-6, "{a} {b}");
        for n in [1.5e7, 1e11, 1e18, 1e300] {
            assert!(ln_bell(n) > 0.0 && ln_bell(n).is_finite());
        }
        let all: f64 = (0..20_000).map(|i| ln_bell(1.5e7 + i as f64)).sum();
        assert!(all > 0.0);
    }

    #[test]
    fn conway_maxwell_with_nu_one_is_poisson_and_means_are_met() {
        for mu in [1e-3, 0.4, 3.0, 60.0, 5e4] {
            assert!((conway_lambda(mu, 1.0) - mu.ln()).abs() < 1e-12, "{mu}");
            for nu in [0.2, 0.7, 3.0, 12.0] {
                if mu > 1e4 && nu < 0.5 {
                    continue;
                }
                let (_, mean, _) = conway_sums(conway_lambda(mu, nu), nu);
                assert!((mean / mu - 1.0).abs() < 1e-11, "{mu} {nu} {mean}");
            }
        }
    }
}
