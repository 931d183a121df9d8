//! Log-gamma, its derivatives, and what cancels in ratios of gamma functions.
//!
//! Recurrence and Stirling's series (Abramowitz & Stegun 6.1.40, 6.3.18, 6.4.11-14), near 1 and 2 the Taylor series
//! 6.1.33.

use std::sync::OnceLock;

use super::HALF_LN_2PI;
use crate::jet::Univariate;

/// Bernoulli numbers B_2, B_4 ...
const BERNOULLI: [f64; 10] = [
    1.0 / 6.0,
    -1.0 / 30.0,
    1.0 / 42.0,
    -1.0 / 30.0,
    5.0 / 66.0,
    -691.0 / 2730.0,
    7.0 / 6.0,
    -3617.0 / 510.0,
    43867.0 / 798.0,
    -174611.0 / 330.0,
];

/// zeta(k) - 1 for k = 2, 3, ...
const ZETA_M1: [f64; 24] = [
    0.6449340668482264,
    0.2020569031595943,
    0.08232323371113819,
    0.03692775514336993,
    0.01734306198444914,
    0.008349277381922827,
    0.00407735619794434,
    0.0020083928260822143,
    0.0009945751278180853,
    0.0004941886041194645,
    0.0002460865533080483,
    0.00012271334757848915,
    6.124813505870483e-05,
    3.058823630702049e-05,
    1.528225940865187e-05,
    7.637197637899763e-06,
    3.81729326499984e-06,
    1.908212716553939e-06,
    9.539620338727962e-07,
    4.769329867878064e-07,
    2.38450502727733e-07,
    1.1921992596531106e-07,
    5.960818905125948e-08,
    2.980350351465228e-08,
];
const EULER: f64 = 0.577_215_664_901_532_9;

/// log Gamma(2 + z) for |z| <= 1/2.
fn lgamma_near_two(z: f64) -> f64 {
    let mut s = 0.0;
    for (i, c) in ZETA_M1.iter().enumerate().rev() {
        let k = (i + 2) as f64;
        s = (if i % 2 == 0 { *c } else { -c }) / k + z * s;
    }
    z * (1.0 - EULER) + z * z * s
}

/// lgamma(x) - [(x - 1/2) ln x - x + ln(2 pi) / 2] for x >= 12.
#[inline]
fn stirling_tail(x: f64) -> f64 {
    let r = 1.0 / x;
    let r2 = r * r;
    // B_2k / (2k (2k - 1))
    const C: [f64; 7] =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360360.0, 1.0 / 156.0];
    r * C.iter().rev().fold(0.0, |s, c| c + r2 * s)
}

/// log Gamma(x), x > 0.
pub fn lgamma(x: f64) -> f64 {
    if !(x > 0.0) {
        return if x == 0.0 { f64::INFINITY } else { f64::NAN };
    }
    if x < 0.5 {
        return lgamma_near_two(x) - x.ln_1p() - x.ln();
    }
    if x < 1.5 {
        return lgamma_near_two(x - 1.0) - (x - 1.0).ln_1p();
    }
    if x < 2.5 {
        return lgamma_near_two(x - 2.0);
    }
    let (mut y, mut product) = (x, 1.0);
    while y < 12.0 {
        product *= y;
        y += 1.0;
    }
    (y - 0.5) * y.ln() - y + HALF_LN_2PI + stirling_tail(y) - if product == 1.0 { 0.0 } else { product.ln() }
}

/// psi, psi', psi'', psi''' at x > 0.
pub fn polygammas(x: f64) -> [f64; 4] {
    if !(x > 0.0) {
        return [f64::NAN; 4];
    }
    let (mut y, mut s) = (x, [0.0; 4]);
    while y < 12.0 {
        let r = 1.0 / y;
        let r2 = r * r;
        s[0] += r;
        s[1] += r2;
        s[2] += r2 * r;
        s[3] += r2 * r2;
        y += 1.0;
    }
    let r = 1.0 / y;
    let r2 = r * r;
    let (mut a, mut b, mut c, mut d) = (0.0, 0.0, 0.0, 0.0);
    for (i, bern) in BERNOULLI.iter().enumerate().rev() {
        let k = 2.0 * (i + 1) as f64;
        a = bern / k + r2 * a;
        b = bern + r2 * b;
        c = (k + 1.0) * bern + r2 * c;
        d = (k + 2.0) * (k + 1.0) * bern + r2 * d;
    }
    [
        y.ln() - 0.5 * r - r2 * a - s[0],
        r + 0.5 * r2 + r * r2 * b + s[1],
        -r2 - r * r2 - r2 * r2 * c - 2.0 * s[2],
        2.0 * r * r2 + 3.0 * r2 * r2 + r * r2 * r2 * d + 6.0 * s[3],
    ]
}

/// log Gamma and as many derivatives as `order` asks for.
#[inline]
pub fn lgamma_jet(x: f64, order: usize) -> Univariate {
    if order == 0 {
        return [lgamma(x), 0.0, 0.0, 0.0, 0.0];
    }
    let p = polygammas(x);
    [lgamma(x), p[0], p[1], p[2], p[3]]
}

/// The remainder of Stirling's formula, lgamma(x) - [(x - 1/2) ln x - x + ln(2 pi) / 2], with derivatives in ln x.
/// It keeps densities with a large shape free of cancellation.
pub fn binet_jet(ln_x: f64, order: usize) -> Univariate {
    let x = ln_x.exp();
    if x >= 12.0 {
        // Terms of the fourth derivative have larger coefficients: it takes two more of them.
        return if order < 4 { binet_series::<4, 8>(x) } else { binet_series::<5, 10>(x) };
    }
    let mut out = [lgamma(x) - (x - 0.5) * ln_x + x - HALF_LN_2PI, 0.0, 0.0, 0.0, 0.0];
    if order > 0 {
        let d = in_logarithm(x, polygammas(x));
        out[1] = d[0] - x * ln_x + 0.5;
        out[2] = d[1] - x * (ln_x + 1.0);
        out[3] = d[2] - x * (ln_x + 2.0);
        out[4] = d[3] - x * (ln_x + 3.0);
    }
    out
}

/// The first N of them by Stirling's series with so many terms.
#[inline]
fn binet_series<const N: usize, const TERMS: usize>(x: f64) -> Univariate {
    let r = 1.0 / x;
    let r2 = r * r;
    let mut out = [0.0; 5];
    for (i, bern) in BERNOULLI[..TERMS].iter().enumerate().rev() {
        let k = 2.0 * i as f64 + 1.0;
        let c = bern / (k * (k + 1.0));
        for (d, o) in out[..N].iter_mut().enumerate() {
            *o = c * (-k).powi(d as i32) + r2 * *o;
        }
    }
    out.map(|o| o * r)
}

/// Four derivatives in x turned into those in ln x.
#[inline]
fn in_logarithm(x: f64, d: [f64; 4]) -> [f64; 4] {
    let x2 = x * x;
    let (d1, d2, d3, d4) = (x * d[0], x2 * d[1], x2 * x * d[2], x2 * x2 * d[3]);
    [d1, d1 + d2, d1 + 3.0 * d2 + d3, d1 + 7.0 * d2 + 6.0 * d3 + d4]
}

/// log y! from a table; for other arguments log Gamma(y + 1).
#[inline]
pub fn ln_factorial(y: f64) -> f64 {
    static TABLE: OnceLock<Vec<f64>> = OnceLock::new();
    let table = TABLE.get_or_init(|| (0..512).map(|i| lgamma(i as f64 + 1.0)).collect());
    let i = y as usize;
    if i < table.len() && i as f64 == y {
        table[i]
    } else {
        lgamma(y + 1.0)
    }
}

/// log of the binomial coefficient.
#[inline]
pub fn ln_choose(n: f64, k: f64) -> f64 {
    if k == 0.0 || k == n {
        0.0
    } else {
        ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
    }
}

/// sum over j < m of ln(1 + j / a) = lgamma(a + m) - lgamma(a) - m ln a, with derivatives in ln a.
/// Free of cancellation for a -> infinity, where negative binomials become Poisson.
pub fn ln_rising_jet(ln_a: f64, m: f64, order: usize) -> Univariate {
    if ln_a < 0.0 {
        let [f, d1, d2, d3, d4] = ln_pochhammer_jet(ln_a, m, order);
        return [f - m * ln_a, d1 - m, d2, d3, d4];
    }
    let a = ln_a.exp();
    if m <= 64.0 && m.fract() == 0.0 {
        return rising_by_product(a, m as usize, order);
    }
    if a > 1e3 * m {
        return rising_by_powers(a, m);
    }
    let mut out = [lgamma(a + m) - lgamma(a) - m * ln_a, 0.0, 0.0, 0.0, 0.0];
    if order > 0 {
        let (p, q) = (polygammas(a + m), polygammas(a));
        let [d1, rest @ ..] = in_logarithm(a, std::array::from_fn(|i| p[i] - q[i]));
        out[1] = d1 - m;
        out[2..].copy_from_slice(&rest);
    }
    out
}

/// lgamma(a + m) - lgamma(a) with derivatives in ln a, for a <= 1: ln a + lgamma(a + m) - lgamma(a + 1), which stays
/// exact for a -> 0 (ln a + log (m - 1)!), also where a itself underflows.
pub fn ln_pochhammer_jet(ln_a: f64, m: f64, order: usize) -> Univariate {
    if m == 0.0 {
        return [0.0; 5];
    }
    let a = ln_a.exp();
    if m <= 64.0 && m.fract() == 0.0 {
        // At most 64!, far from overflow.
        let (mut product, mut s1, mut s2, mut s3, mut s4) = (1.0, 0.0, 0.0, 0.0, 0.0);
        for j in 1..m as usize {
            let j = j as f64;
            product *= a + j;
            if order > 0 {
                let p = a / (a + j);
                let d = p * (1.0 - p);
                s1 += p;
                s2 += d;
                s3 += d * (1.0 - 2.0 * p);
                s4 += d * (1.0 - 6.0 * d);
            }
        }
        return [ln_a + f64::ln(product), 1.0 + s1, s2, s3, s4];
    }
    let mut out = [ln_a + (lgamma(a + m) - lgamma(a + 1.0)), 1.0, 0.0, 0.0, 0.0];
    if order > 0 {
        let (p, q) = (polygammas(a + m), polygammas(a + 1.0));
        let [d1, rest @ ..] = in_logarithm(a, std::array::from_fn(|i| p[i] - q[i]));
        out[1] = 1.0 + d1;
        out[2..].copy_from_slice(&rest);
    }
    out
}

/// For a >= 1, so that the product is at most 64!.
#[inline]
fn rising_by_product(a: f64, m: usize, order: usize) -> Univariate {
    let mut product = 1.0;
    let (mut s1, mut s2, mut s3, mut s4) = (0.0, 0.0, 0.0, 0.0);
    let r = 1.0 / a;
    for j in 1..m {
        let j = j as f64;
        product *= 1.0 + j * r;
        if order > 0 {
            let q = j / (a + j);
            let d = q * (1.0 - q);
            s1 += q;
            s2 += d;
            s3 += d * (1.0 - 2.0 * q);
            s4 += d * (1.0 - 6.0 * d);
        }
    }
    // With a huge a the product is 1 to machine precision but its logarithm is not 0.
    let log = if product > 1.5 || m < 2 { f64::ln(product) } else { (1..m).map(|j| (j as f64 * r).ln_1p()).sum() };
    [log, -s1, s2, -s3, s4]
}

/// sum ln(1 + j/a) = sum_i (-1)^(i+1) S_i / (i a^i), S_i = sum of the i-th powers of 0 .. m - 1 (Faulhaber).
fn rising_by_powers(a: f64, m: f64) -> Univariate {
    let n = m - 1.0;
    let (t, q) = (n * (n + 1.0), 2.0 * n + 1.0);
    let s = [
        t / 2.0,
        t * q / 6.0,
        t * t / 4.0,
        t * q * (3.0 * t - 1.0) / 30.0,
        t * t * (2.0 * t - 1.0) / 12.0,
        t * q * (3.0 * t * t - 3.0 * t + 1.0) / 42.0,
    ];
    let mut out = [0.0; 5];
    let mut power = 1.0;
    for (i, s) in s.iter().enumerate() {
        let k = (i + 1) as f64;
        power /= a;
        let term = s * power / k * if i % 2 == 0 { 1.0 } else { -1.0 };
        out[0] += term;
        out[1] -= k * term;
        out[2] += k * k * term;
        out[3] -= k * k * k * term;
        out[4] += (k * k) * (k * k) * term;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::near;

    #[test]
    fn log_gamma_and_polygammas_at_known_points() {
        near(lgamma(0.5), 0.572_364_942_924_700_1, 2e-15);
        near(lgamma(10.5), 13.940_625_219_403_763, 1e-15);
        near(lgamma(1e-10), 23.025_850_929_882_733, 1e-15);
        near(lgamma(1.0 + 1e-9), -5.772_156_640_792_088e-10, 1e-7);
        assert_eq!(lgamma(1.0), 0.0);
        let p = polygammas(1.0);
        near(p[0], -EULER, 2e-15);
        near(p[1], 1.644_934_066_848_226_4, 1e-15);
        near(p[2], -2.404_113_806_319_188_6, 1e-15);
        near(p[3], 6.493_939_402_266_829, 1e-15);
    }

    #[test]
    fn rising_factorials_agree_in_every_regime() {
        for (a, m) in [(0.3f64, 5.0), (40.0, 64.0), (2.5, 65.0), (7e4, 65.0), (1e9, 12.0), (1e5, 99.0)] {
            let x = ln_rising_jet(a.ln(), m, 3);
            let exact: f64 = (0..m as usize).map(|j| (j as f64 / a).ln_1p()).sum();
            near(x[0], exact, 1e-10);
            let q: Vec<f64> = (0..m as usize).map(|j| j as f64 / (a + j as f64)).collect();
            near(x[1], -q.iter().sum::<f64>(), 1e-9);
            near(x[2], q.iter().map(|q| q * (1.0 - q)).sum(), 1e-7);
            near(x[3], -q.iter().map(|q| q * (1.0 - q) * (1.0 - 2.0 * q)).sum::<f64>(), 1e-5);
            let d = q.iter().map(|q| q * (1.0 - q));
            near(ln_rising_jet(a.ln(), m, 4)[4], d.map(|d| d * (1.0 - 6.0 * d)).sum(), 1e-4);
        }
    }

    #[test]
    fn rising_factorials_of_a_vanishing_argument() {
        // lgamma(a + m) - lgamma(a) -> ln a + log (m - 1)!, also where exp(ln a) is 0.
        for ln_a in [-50.0, -119.5, -350.0, -502.0, -2000.0] {
            for m in [1.0, 2.0, 3.0, 40.0, 64.0, 65.0, 500.0] {
                let p = ln_pochhammer_jet(ln_a, m, 3);
                near(p[0], ln_a + ln_factorial(m - 1.0), 1e-14);
                near(p[1], 1.0, 1e-14);
                assert!(p[2].abs() < 1e-18 && p[3].abs() < 1e-18);
                let r = ln_rising_jet(ln_a, m, 3);
                near(r[0], (1.0 - m) * ln_a + ln_factorial(m - 1.0), 1e-13);
                near(r[1], 1.0 - m, 1e-14);
                assert!(r[2].abs() < 1e-18 && r[3].abs() < 1e-18);
            }
        }
        // Both sides of a = 1.
        for m in [0.0, 1.0, 7.0, 64.0, 80.0, 3.5] {
            let (x, y) = (ln_rising_jet(-1e-12, m, 3), ln_rising_jet(1e-12, m, 3));
            (0..4).for_each(|i| assert!((x[i] - y[i]).abs() < 1e-9 * (1.0 + y[i].abs()), "{m}: {x:?} {y:?}"));
        }
    }

    #[test]
    fn fourth_derivatives_of_the_remainder_of_stirling() {
        // Across x = 12, where the series takes over; what is left of log-gammas there has the rounding of x log x.
        let (below, above) = (binet_jet(12f64.ln() - 1e-12, 4), binet_jet(12f64.ln() + 1e-12, 4));
        (0..5).for_each(|i| assert!((below[i] - above[i]).abs() < 1e-11, "{below:?} {above:?}"));
        // Derivatives in log x of 1 / (12 x) - 1 / (360 x^3), wrong by 1 / (1260 x^5) and five to the fourth times that.
        let x = 1e3f64;
        near(binet_jet(x.ln(), 4)[4], 1.0 / (12.0 * x) - 81.0 / (360.0 * x.powi(3)), 1e-10);
    }
}
