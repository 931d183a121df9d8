//! Counts with more or less spread than Poisson: Bell, generalised Poisson, Conway-Maxwell-Poisson.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use super::sums::{end_weights, legendre, GREGORY};
use crate::jet::{Bivariate, Scalar};
use crate::special;

/// Means up to which counts are drawn by adding up probabilities from zero.
const SMALL_MEAN: f64 = 500.0;

/// Bell distribution (Castellares, Ferrari & Lemonte 2018) by its mean mu = theta exp(theta); variance mu (1 + theta).
#[derive(Clone, Copy)]
pub struct Bell;

/// theta = W(mu) as a function of log mu.
fn bell_theta<S: Scalar>(ln_mu: S) -> S {
    let t = lambert_of_log(ln_mu.value());
    let r = 1.0 / (1.0 + t);
    let fourth = t * (1.0 - t * (8.0 - 6.0 * t)) * r.powi(7);
    ln_mu.compose([t, t * r, t * r * r * r, t * (1.0 - 2.0 * t) * r.powi(5), fourth])
}

fn lambert_of_log(ln_mu: f64) -> f64 {
    if ln_mu < 700.0 {
        return special::lambert_w(ln_mu.exp());
    }
    // w + ln w = ln mu
    (0..6).fold(ln_mu, |w, _| ln_mu - w.ln())
}

/// log of the Bell number B_n (Dobinski's formula, which has fractions, too), tabled.
fn ln_bell(n: f64) -> f64 {
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    let table = TABLE.get_or_init(|| (0..256).map(|n| dobinski(n as f64)).collect());
    let tabled = table.get(n as usize).filter(|_| n.fract() == 0.0);
    tabled.copied().unwrap_or_else(|| {
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

    /// A Poisson(exp(theta) - 1) number of zero-truncated Poisson(theta) variates. Those of size k are a Poisson number
    /// with mean theta^k / k! of their own, so as few draws are enough as there are sizes.
    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let ln_theta = lambert_of_log(p[0].ln()).ln();
        let theta = ln_theta.exp();
        let last = (theta + 12.0 * theta.sqrt() + 30.0).ceil() as usize;
        (1..=last)
            .map(|k| {
                let k = k as f64;
                k * rng.poisson((k * ln_theta - special::ln_factorial(k)).exp())
            })
            .sum()
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

    /// With lambda >= 0 the size of all generations of a branching process: Poisson(theta) ancestors, each with
    /// Poisson(lambda) children (Consul & Famoye 1992).
    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let h = -0.5 * p[1].ln();
        let (theta, lambda) = (p[0].value() * h.exp(), -h.exp_m1());
        if lambda < 0.0 || theta < SMALL_MEAN {
            return rng.count(0.0, |y| self.ln_density(&Row { y, ..*row }, p));
        }
        let mut generation = rng.poisson(theta);
        let mut size = generation;
        while generation > 0.0 {
            generation = rng.poisson(lambda * generation);
            size += generation;
        }
        size
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

/// log Z and the joint cumulants of (j, b), b = slope j - log j!, to fourth order; for fourth derivatives to fifth.
struct Cumulants {
    ln_z: f64,
    mean: f64,
    /// Mean of slope j - log j!.
    b: f64,
    /// k\[i\]\[l\]: cumulant of i times j and l times b.
    k: [[f64; 6]; 6],
    slope: f64,
}

/// A series wider than this that begins inside its bulk is integrated instead of added up.
const WIDE: f64 = 30.0;

/// Whether the first index is too far from a mode to count.
fn is_far(mode: f64, sd: f64, first: f64) -> bool {
    mode - 14.0 * sd > first
}

/// Terms of a log-concave series around its mode, `f(index, log term, weight)`; far from its first index and wide, every
/// h-th is enough: the trapezoidal rule is exact to exp(-2 pi^2 (sd/h)^2).
fn around_mode(mode: f64, sd: f64, first: f64, term: impl Fn(f64) -> f64, mut f: impl FnMut(f64, f64, f64)) {
    let far = is_far(mode, sd, first);
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
/// Terms of the Conway-Maxwell-Poisson series that are added up one by one before it is integrated.
const SINGLE: usize = 32;
/// Doublings of the index up to which it is integrated, and panels in each: none is wider than a standard deviation of the
/// series for which this is done.
const OCTAVES: usize = 40;
const PANELS: usize = 4;

/// Index, weight and log j! of single terms, Gregory's end correction and Gauss-Legendre panels over doubling ranges.
/// They are the same for every lambda and nu.
fn nodes() -> &'static [(f64, f64, f64)] {
    static NODES: OnceLock<Vec<(f64, f64, f64)>> = OnceLock::new();
    NODES.get_or_init(|| {
        let node = |j: f64, w: f64| (j, w, special::ln_factorial(j));
        let mut out: Vec<_> = (0..SINGLE).map(|j| node(j as f64, 1.0)).collect();
        out.extend(end_weights().iter().enumerate().map(|(j, w)| node((SINGLE + j) as f64, *w)));
        let mut low = SINGLE as f64;
        for _ in 0..OCTAVES {
            let half = 0.5 * low / PANELS as f64;
            for p in 0..PANELS {
                let middle = low + half * (2 * p + 1) as f64;
                out.extend(legendre().iter().map(|(x, w)| node(middle + half * x, w * half)));
            }
            low *= 2.0;
        }
        out
    })
}

/// Terms of the Conway-Maxwell-Poisson series: `f(index, log j!, log term, weight)`.
fn conway_terms(ln_lambda: f64, nu: f64, mut f: impl FnMut(f64, f64, f64, f64)) {
    let mode = (ln_lambda / nu).exp();
    let sd = conway_width(ln_lambda, nu);
    if !(sd > WIDE) || is_far(mode, sd, 0.0) {
        let term = |j: f64| j * ln_lambda - nu * special::ln_factorial(j);
        return around_mode(mode, sd, 0.0, term, |j, t, w| f(j, special::ln_factorial(j), t, w));
    }
    let top = (mode * ln_lambda - nu * special::ln_factorial(mode)).max(0.0);
    for (i, &(j, w, l)) in nodes().iter().enumerate() {
        let t = j * ln_lambda - nu * l;
        if t > top - SMALL {
            f(j, l, t, w);
        } else if i > SINGLE + GREGORY.len() && j > mode {
            break;
        }
    }
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
    let (ln_z, centre, shift, variance) = centred_sums(ln_lambda, nu);
    (ln_z, centre + shift, variance)
}

/// The same with the mean as a whole number and what it lies beside it.
fn centred_sums(ln_lambda: f64, nu: f64) -> (f64, f64, f64, f64) {
    let centre = (ln_lambda / nu).exp().round();
    let top = centre * ln_lambda - nu * special::ln_factorial(centre);
    let (mut s0, mut s1, mut s2) = (0.0, 0.0, 0.0);
    conway_terms(ln_lambda, nu, |j, _, t, w| {
        let (w, d) = (w * (t - top).exp(), j - centre);
        s0 += w;
        s1 += w * d;
        s2 += w * d * d;
    });
    let m = s1 / s0;
    (top + f64::ln(s0), centre, m, s2 / s0 - m * m)
}

/// Whether the series is beyond its nodes: spread far beyond any count that is modelled so.
fn too_long(mu: f64, nu: f64) -> bool {
    mu * nu < 250.0 && (mu / nu).sqrt().min(mu) > 1e9
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
    if let Some(near) = narrow_lambda(mu, nu) {
        x = near.min(high);
    }
    for _ in 0..100 {
        let (_, centre, shift, variance) = centred_sums(x, nu);
        let mean = centre + shift;
        let excess = (centre - mu) + shift;
        if excess.abs() <= 4.0 * f64::EPSILON * ((centre - mu).abs() + shift.abs() + variance) {
            return x;
        }
        let f = if excess.abs() < 0.5 * mu { (excess / mu).ln_1p() } else { (mean / mu).ln() };
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

/// log lambda where the mass lies on the whole number k next to the mean and its two neighbours: with a = P(k+1) / P(k),
/// P(k-1) / P(k) = c / a and mu = k + f, (1 - f) a^2 - f a - (1 + f) c = 0. None where further counts matter much.
fn narrow_lambda(mu: f64, nu: f64) -> Option<f64> {
    let k = mu.round();
    let up = (k + 1.0).ln();
    if nu * (1.0 / (k + 1.0)).ln_1p() < NARROW {
        return None;
    }
    let f = mu - k;
    let ln_c = if k > 0.0 { -nu * (1.0 / k).ln_1p() } else { f64::NEG_INFINITY };
    let root = (f * f + 4.0 * (1.0 - f * f) * ln_c.exp()).sqrt();
    let ln_a = if f > 0.0 {
        ((f + root) / (2.0 * (1.0 - f))).ln()
    } else if f < 0.0 {
        ln_c + (2.0 * (1.0 + f) / (root - f)).ln()
    } else {
        0.5 * ln_c
    };
    Some(ln_a + nu * up)
}

/// Logarithm by which the mass must fall from the second count above the mean to the third.
const NARROW: f64 = 3.0;

fn conway_cumulants(ln_lambda: f64, nu: f64, order: usize) -> Cumulants {
    let (ln_z, mean, variance) = conway_sums(ln_lambda, nu);
    let slope = special::polygammas(mean + 1.0)[0];
    let reference = special::lgamma(mean + 1.0);
    let statistic = |j: f64, l: f64| slope * (j - mean) - (l - reference);
    // Mean of b first, then central moments.
    let (mut s0, mut sb) = (0.0, 0.0);
    conway_terms(ln_lambda, nu, |j, l, t, w| {
        let w = w * (t - ln_z).exp();
        s0 += w;
        sb += w * statistic(j, l);
    });
    let b0 = sb / s0;
    let mut m = [[0.0; 6]; 6];
    conway_terms(ln_lambda, nu, |j, l, t, w| {
        let w = w * (t - ln_z).exp() / s0;
        let (d, b) = (j - mean, statistic(j, l) - b0);
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
        if order >= 4 {
            m[0][4] += w * b2 * b2;
            m[1][4] += w * d * b2 * b2;
            m[2][3] += w * d2 * b2 * b;
            m[3][2] += w * d2 * d * b2;
            m[4][1] += w * d2 * d2 * b;
            m[5][0] += w * d2 * d2 * d;
        }
    });
    m[2][0] = variance;
    let k = cumulants_of(&m);
    Cumulants { ln_z, mean, b: b0 + slope * mean - reference, k, slope }
}

/// Joint cumulants of two variables from their central moments.
fn cumulants_of(m: &[[f64; 6]; 6]) -> [[f64; 6]; 6] {
    let mut k = *m;
    k[4][0] -= 3.0 * m[2][0] * m[2][0];
    k[3][1] -= 3.0 * m[2][0] * m[1][1];
    k[2][2] -= m[2][0] * m[0][2] + 2.0 * m[1][1] * m[1][1];
    k[1][3] -= 3.0 * m[0][2] * m[1][1];
    k[0][4] -= 3.0 * m[0][2] * m[0][2];
    k[5][0] -= 10.0 * m[2][0] * m[3][0];
    k[4][1] -= 6.0 * m[2][0] * m[2][1] + 4.0 * m[1][1] * m[3][0];
    k[3][2] -= 3.0 * m[2][0] * m[1][2] + 6.0 * m[1][1] * m[2][1] + m[0][2] * m[3][0];
    k[2][3] -= 3.0 * m[0][2] * m[2][1] + 6.0 * m[1][1] * m[1][2] + m[2][0] * m[0][3];
    k[1][4] -= 6.0 * m[0][2] * m[1][2] + 4.0 * m[1][1] * m[0][3];
    k
}

/// Coefficients l_k of log Z for a wide series (Shmueli et al. 2005; Gaunt, Iyengar, Olde Daalhuis & Simsek 2019, whose
/// c_k are those of Z itself): with alpha = lambda^(1/nu) and N = nu alpha,
///     log Z = N - (nu - 1) log(2 pi alpha) / 2 - log(nu) / 2 + sum_k l_k(nu^2) N^-k.
/// Laplace's method for the integral of exp(x j - nu log Gamma(j + 1)); row k has the powers of nu^2.
const EXPANSION: [&[f64]; 10] = [
    &[-1.0 / 24.0, 1.0 / 24.0],
    &[-1.0 / 48.0, 1.0 / 48.0],
    &[-161.0 / 5760.0, 17.0 / 576.0, -1.0 / 640.0],
    &[-367.0 / 5760.0, 41.0 / 576.0, -43.0 / 5760.0],
    &[-120257.0 / 580608.0, 33667.0 / 138240.0, -5107.0 / 138240.0, 305.0 / 580608.0],
    &[-39793.0 / 45360.0, 37303.0 / 34560.0, -3611.0 / 17280.0, 4987.0 / 725760.0],
    &[
        -6389072441.0 / 1393459200.0,
        81830645.0 / 13934592.0,
        -45075959.0 / 33177600.0,
        998141.0 / 13934592.0,
        -87983.0 / 199065600.0,
    ],
    &[
        -993607187.0 / 34836480.0,
        8243537.0 / 217728.0,
        -8342147.0 / 829440.0,
        635009.0 / 870912.0,
        -388919.0 / 34836480.0,
    ],
    &[
        -5048071877071.0 / 24524881920.0,
        3145388274757.0 / 11147673600.0,
        -6228520591.0 / 74317824.0,
        42839559653.0 / 5573836800.0,
        -443737409.0 / 2229534720.0,
        339849.0 / 504627200.0,
    ],
    &[
        -9718190078959.0 / 5748019200.0,
        1246771561279.0 / 522547200.0,
        -25401674807.0 / 32659200.0,
        5596907179.0 / 65318400.0,
        -1662741499.0 / 522547200.0,
        159995659.0 / 5748019200.0,
    ],
];
/// Largest last term of the expansion that is trusted; the terms left out are smaller.
const LAST_TERM: f64 = 1e-15;
/// Smallest N and alpha / nu: what the integral misses of the sum is of the order exp(-N) and exp(-2 pi^2 alpha / nu).
const LEAST_N: f64 = 60.0;
const LEAST_SPREAD: f64 = 3.0;

/// Whether the expansion is exact to double precision.
fn is_expanded(alpha: f64, nu: f64) -> bool {
    let (n, v) = (nu * alpha, nu * nu);
    if !(n >= LEAST_N && alpha >= LEAST_SPREAD * nu) {
        return false;
    }
    let last = EXPANSION[9].iter().rev().fold(0.0, |sum, c| c.abs() + v * sum);
    last / n.powi(10) < LAST_TERM
}

/// sum_k l_k(v) r^k, or of k times that, with its partial derivatives in (r, v) of orders below N.
fn expansion<const N: usize>(r: f64, v: f64, times_index: bool) -> Bivariate {
    // Horner's scheme in r of rows in v; row d of `f` is the derivative d / dr^d (over d!) with those in v.
    let mut f = [[0.0; N]; N];
    for (i, row) in EXPANSION.iter().enumerate().rev() {
        let k = if times_index { (i + 1) as f64 } else { 1.0 };
        let mut l = [0.0; N];
        for c in row.iter().rev() {
            let before = l;
            l[0] = c + v * before[0];
            (1..N).for_each(|e| l[e] = before[e - 1] + v * before[e]);
        }
        for d in (0..N).rev() {
            for e in 0..N - d {
                let below = if d > 0 { f[d - 1][e] } else { k * l[e] };
                f[d][e] = below + r * f[d][e];
            }
        }
    }
    // Once more by r, since the sum begins with k = 1.
    for d in (0..N).rev() {
        for e in 0..N - d {
            f[d][e] = r * f[d][e] + if d > 0 { f[d - 1][e] } else { 0.0 };
        }
    }
    const FACTORIAL: [f64; 5] = [1.0, 1.0, 2.0, 6.0, 24.0];
    let mut out = [0.0; 15];
    let mut at = 0;
    for total in 0..N {
        for e in 0..=total {
            out[at] = FACTORIAL[total - e] * FACTORIAL[e] * f[total - e][e];
            at += 1;
        }
    }
    out
}

/// The same with as many derivatives as are wanted.
fn expansion_jet<S: Scalar>(r: f64, v: f64, times_index: bool) -> Bivariate {
    if S::ORDER < 4 {
        expansion::<4>(r, v, times_index)
    } else {
        expansion::<5>(r, v, times_index)
    }
}

/// Mean at alpha = lambda^(1/nu), d log Z / d log lambda, and the variance over alpha / nu.
fn expanded_mean(alpha: f64, nu: f64) -> (f64, f64) {
    let r = 1.0 / (nu * alpha);
    let f = expansion::<2>(r, nu * nu, true);
    (alpha - 0.5 + (0.5 - f[0]) / nu, 1.0 + f[1] * r * r)
}

/// alpha = lambda^(1/nu) for a mean, where the series is wide enough for the expansion.
fn expanded_alpha(mu: f64, nu: f64) -> Option<f64> {
    let mut alpha = mu + 0.5 - 0.5 / nu;
    if !is_expanded(alpha, nu) {
        return None;
    }
    for _ in 0..8 {
        let (mean, slope) = expanded_mean(alpha, nu);
        let step = (mean - mu) / slope;
        alpha -= step;
        if step.abs() <= 1e-15 * alpha {
            break;
        }
    }
    Some(alpha)
}

/// log f by the expansion, with Stirling's formula for y! so that nothing large cancels:
///     nu y D(log(alpha / y)) + (log(nu / (2 pi alpha)) + nu log(alpha / y)) / 2 - nu binet(y) - sum_k l_k N^-k.
fn expanded_density<S: Scalar>(y: f64, mu: S, nu: S, alpha0: f64) -> S {
    let (n0, v) = (nu.value(), nu.square());
    let inverse = nu.recip();
    let mut alpha = S::constant(alpha0);
    let share = 1.0 / expanded_mean(alpha0, n0).1;
    for _ in 0..S::ORDER {
        let r = inverse / alpha;
        let f = r.compose2(v, &expansion_jet::<S>(r.value(), n0 * n0, true));
        let mean = alpha - 0.5 + (-f + 0.5) * inverse;
        alpha = alpha - (mean - mu) * share;
    }
    let r = inverse / alpha;
    let rest = r.compose2(v, &expansion_jet::<S>(r.value(), n0 * n0, false));
    let (la, ln) = (alpha.ln(), nu.ln());
    if y == 0.0 {
        return -(nu * alpha) + (nu - 1.0) * (la + special::LN_2PI) * 0.5 + ln * 0.5 - rest;
    }
    let ly = y.ln();
    let t = la - ly;
    let halves = ln - la - special::LN_2PI + nu * t;
    nu * (special::deviance_part(t) * y - special::binet_jet(ly, 0)[0]) + halves * 0.5 - rest
}

/// Value and partial derivatives, i times in the first and l times in the second variable.
fn packed(value: f64, d: impl Fn(usize, usize) -> f64) -> Bivariate {
    let mut out = [value; 15];
    let places = (1..5usize).flat_map(|total| (0..=total).map(move |l| (total - l, l)));
    out[1..].iter_mut().zip(places).for_each(|(o, (i, l))| *o = d(i, l));
    out
}

/// log f by the series, its derivatives from the cumulants of (j, log j!).
fn summed_density<S: Scalar>(y: f64, mu: S, nu: S) -> S {
    let n0 = nu.value();
    let x0 = conway_lambda(mu.value(), n0);
    if S::ORDER == 0 {
        let (ln_z, _, _) = conway_sums(x0, n0);
        return S::constant(y * x0 - n0 * special::ln_factorial(y) - ln_z);
    }
    let c = conway_cumulants(x0, n0, S::ORDER);
    let k = &c.k;
    // In place of log lambda: x = log lambda - slope (nu - nu0), nearly orthogonal to nu.
    let mean = packed(c.mean, |i, l| k[i + 1][l]);
    let mut x = S::constant(x0);
    for _ in 0..S::ORDER {
        x = x - (x.compose2(nu, &mean) - mu) * (1.0 / k[2][0]);
    }
    let mut z = packed(c.ln_z, |i, l| k[i][l]);
    (z[1], z[2]) = (c.mean, c.b);
    let ln_lambda = x + (nu - n0) * c.slope;
    ln_lambda * y - nu * special::ln_factorial(y) - x.compose2(nu, &z)
}

impl Density for ConwayMaxwellPoisson {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (mu, nu) = (p[0].value(), (-p[1].ln()).exp());
        let (m, n0) = (mu.value(), nu.value());
        if let Some(alpha) = expanded_alpha(m, n0) {
            return expanded_density(row.y, mu, nu, alpha);
        }
        if !(m < 1e9 && m > 0.0 && n0 > 1e-8 && n0 < 1e8) || too_long(m, n0) {
            return limit(row.y, m);
        }
        summed_density(row.y, mu, nu)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (mu, nu) = (p[0].value(), 1.0 / p[1].value());
        if let Some(alpha) = expanded_alpha(mu, nu) {
            return (mu, alpha / nu * expanded_mean(alpha, nu).1);
        }
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
        let ln_pmf = |j: f64| j * x - nu * special::ln_factorial(j) - ln_z;
        if mu < SMALL_MEAN {
            return rng.count(0.0, ln_pmf);
        }
        rng.log_concave((x / nu).exp().floor(), ln_pmf)
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
    use crate::jet::Jet;

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

    #[test]
    fn conway_maxwell_of_least_spread_is_on_two_counts() {
        for mu in [1e-4, 0.3, 0.999_999, 1.000_000_1, 1.5, 1.75, 7.3] {
            let (low, share) = (f64::floor(mu), mu - f64::floor(mu));
            for nu in [400.0, 1e4, 1e6] {
                let x = conway_lambda(mu, nu);
                let ln_z = conway_sums(x, nu).0;
                let mass = |j: f64| (j * x - nu * special::ln_factorial(j) - ln_z).exp();
                // Rounding of j x and of ln Z, which are of the size nu; at nu = 400 the next count has (8/9)^400.
                let tolerance = 1e-14 * (1.0 + nu * (2.0 + mu));
                assert!((mass(low) - (1.0 - share)).abs() < tolerance, "{mu} {nu} {}", mass(low));
                assert!((mass(low + 1.0) - share).abs() < tolerance, "{mu} {nu} {}", mass(low + 1.0));
            }
        }
        for mu in [1.0, 2.0, 9.0] {
            let (_, centre, shift, variance) = centred_sums(conway_lambda(mu, 50.0), 50.0);
            // An ulp of log lambda moves the mean by that times the variance.
            assert!((centre - mu + shift).abs() < 1e-11 * variance, "{mu}");
        }
    }

    type Third = Jet<2, 3, 4>;

    fn conway(y: f64, mu: f64, nu: f64, density: impl Fn(f64, Third, Third) -> Third) -> [f64; 10] {
        let (mu, nu) = (Third::variable(mu.ln(), 0).exp(), Third::variable(nu.ln(), 1).exp());
        let mut out = [0.0; 10];
        density(y, mu, nu).store(&mut out);
        out
    }

    #[test]
    fn conway_maxwell_expansion_is_the_series_where_it_takes_over() {
        for (mu, nu) in [(80.0, 1.0), (400.0, 0.25), (9_000.0, 0.01), (60.0, 1.7), (40.0, 6.0), (100.0, 30.0)] {
            let alpha = expanded_alpha(mu, nu).unwrap();
            let sd = (mu / nu).sqrt();
            for z in [f64::NEG_INFINITY, -2.0, 0.0, 1.0, 4.0] {
                let y = (mu + z * sd).round().max(0.0);
                let a = conway(y, mu, nu, |y, mu, nu| expanded_density(y, mu, nu, alpha));
                let b = conway(y, mu, nu, summed_density);
                for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                    // The series rounds: its terms are of the size mu nu, and derivatives small next to what cancels.
                    let scale = (1.0 + b.abs() + mu * nu)
                        * [1e-12, 1e-11, 2e-11, 2e-9][usize::from(i > 0) + usize::from(i > 2) + usize::from(i > 5)];
                    assert!((a - b).abs() < scale, "{mu} {nu} {y} {i}: {a} {b}");
                }
            }
        }
        assert!(expanded_alpha(50.0, 1.0).is_none() && expanded_alpha(1e6, 1e-5).is_none());
        // The widest of these differences is the series': d3 log P / d(log mu)^3 at y = 0 from sums of 40 digits.
        let alpha = expanded_alpha(100.0, 30.0).unwrap();
        let third = conway(0.0, 100.0, 30.0, |y, mu, nu| expanded_density(y, mu, nu, alpha))[6];
        assert!((third / -3_000.045_147_753_579_4 - 1.0).abs() < 1e-14, "{third}");
    }

    #[test]
    fn conway_maxwell_with_a_large_mean_is_poisson_at_nu_one() {
        let (mu, y) = (1e8f64, 1e8 + 2e4);
        let a = conway(y, mu, 1.0, |y, m, n| expanded_density(y, m, n, expanded_alpha(mu, 1.0).unwrap()));
        let t = (mu / y).ln();
        let poisson =
            y * special::deviance_part(t) - 0.5 * (special::LN_2PI + y.ln()) - special::binet_jet(y.ln(), 0)[0];
        assert!((a[0] - poisson).abs() < 1e-9, "{} {poisson}", a[0]);
        for (d, exact) in [(1, y - mu), (3, -mu), (6, -mu)] {
            assert!((a[d] - exact).abs() < 1e-12 * mu, "{d}: {} {exact}", a[d]);
        }
    }

    #[test]
    fn conway_maxwell_near_the_geometric_distribution_has_no_end() {
        // nu -> 0: y log(mu / (1 + mu)) - log(1 + mu)
        for mu in [200.0f64, 4e4, 1e7] {
            for y in [0.0, mu.round(), 5.0 * mu.round()] {
                let exact = y * (mu / (1.0 + mu)).ln() - mu.ln_1p();
                let x = summed_density(y, mu, 1e-8 / mu);
                assert!((x - exact).abs() < 1e-5 * exact.abs(), "{mu} {y}: {x} {exact}");
            }
        }
    }

    #[test]
    fn counts_with_large_means_are_drawn_quickly() {
        let mut rng = Stream::new(3);
        let row = Row { y: 0.0, trials: 1.0, se: 0.0, randomised: None };
        let mut check = |d: &dyn Fn(&mut Stream) -> f64, (mean, variance): (f64, f64)| {
            let x: Vec<f64> = (0..4_000).map(|_| d(&mut rng)).collect();
            let m = x.iter().sum::<f64>() / 4_000.0;
            // Five standard errors of the mean.
            assert!((m - mean).abs() < 5.0 * (variance / 4_000.0).sqrt(), "{m} {mean}");
            let v = x.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / 4_000.0;
            assert!((v / variance - 1.0).abs() < 0.3, "{v} {variance}");
        };
        for mu in [0.3, 40.0, 1e9] {
            let p = [mu, 1.0, 0.0, 0.0].map(Par::constant);
            check(&|r| Bell.draw(&row, &p, r), Bell.moments(&row, &p));
        }
        for (mu, phi) in [(3.0, 2.0), (1e4, 3.0), (1e7, 9.0)] {
            let p = [mu, phi, 0.0, 0.0].map(Par::constant);
            check(&|r| GeneralisedPoisson.draw(&row, &p, r), GeneralisedPoisson.moments(&row, &p));
        }
        for (mu, phi) in [(1e4, 3.0), (1e7, 9.0), (2e3, 1e4)] {
            let p = [mu, phi, 0.0, 0.0].map(Par::constant);
            check(&|r| ConwayMaxwellPoisson.draw(&row, &p, r), ConwayMaxwellPoisson.moments(&row, &p));
        }
    }
}
