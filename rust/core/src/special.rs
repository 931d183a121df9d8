//! Special functions with the derivatives that the densities need; about 1e-14 accurate.
//!
//! Log-gamma and polygammas: recurrence and Stirling's series (Abramowitz & Stegun 6.1.40, 6.3.18, 6.4.11-14), near 1
//! and 2 the Taylor series 6.1.33. Normal distribution: Taylor expansion of Mills' ratio around a grid, where
//! R' = x R - 1, the grid itself by Laplace's continued fraction (A&S 26.2.14). Incomplete gamma and beta functions:
//! power series and continued fractions (A&S 6.5.29, 6.5.31, 26.5.8), run backwards over [`Scalar`] so that
//! derivatives in every argument come along.

use std::sync::OnceLock;

use crate::jet::{Scalar, Univariate};

pub const LN_2PI: f64 = 1.837_877_066_409_345_3;
pub const HALF_LN_2PI: f64 = 0.918_938_533_204_672_8;

/// (p, 1 - p) with p = 1 / (1 + exp(-x)), both to full relative accuracy.
#[inline]
pub fn logistic_pair(x: f64) -> (f64, f64) {
    let e = (-x.abs()).exp();
    let big = 1.0 / (1.0 + e);
    if x >= 0.0 {
        (big, e * big)
    } else {
        (e * big, big)
    }
}

/// log(1 + exp(x)).
#[inline]
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// log(1 - exp(x)) for x <= 0 (Maechler 2012).
#[inline]
pub fn ln_1m_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 {
        (-x.exp_m1()).ln()
    } else {
        (-x.exp()).ln_1p()
    }
}

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
        return [lgamma(x), 0.0, 0.0, 0.0];
    }
    let p = polygammas(x);
    [lgamma(x), p[0], p[1], p[2]]
}

/// The modified Bessel function of the second kind, x > 0, nu >= 0.
struct BesselK {
    /// ln K_nu(x) with its first and second derivative in nu.
    own: [f64; 3],
    /// ln K_mu(x) with its first derivative in mu, at mu = nu - 1.
    lower: [f64; 2],
}

/// Trapezoidal rule on K_nu(x) = int_0^inf exp(-x cosh t) cosh(nu t) dt (DLMF 10.32.9), whose integrand is analytic in
/// the strip |Im t| < pi / 2 and falls double-exponentially: the error falls exponentially in 1 / step (Trefethen &
/// Weideman 2014). Orders nu and nu - 1 share its nodes.
fn bessel_k(nu: f64, x: f64) -> BesselK {
    let scale = x.hypot(nu);
    let step = 0.18 / (1.0 + 0.1 * scale).sqrt();
    // The exponent -x cosh t + nu t, without the value that it has at its top.
    let top_at = (nu / x).asinh();
    let top = nu * top_at - scale;
    let (mut sum, mut slope, mut bend, mut low, mut low_slope) = (0.0, 0.0, 0.0, 0.0, 0.0);
    // Order nu - 1 falls more slowly where nu < 1 / 2.
    let slower = (1.0 - 2.0 * nu).max(0.0);
    // exp(-2 nu t).
    let (mut back, decay) = (1.0, (-2.0 * nu * step).exp());
    let mut k = 0usize;
    loop {
        let t = k as f64 * step;
        let up = t.exp();
        let down = 1.0 / up;
        let e = nu * t - 0.5 * x * (up + down) - top;
        if t > top_at && e + slower * t < -45.0 {
            break;
        }
        let w = 0.5 * e.exp() * if k == 0 { 0.5 } else { 1.0 };
        sum += w * (1.0 + back);
        slope += w * t * (1.0 - back);
        bend += w * t * t * (1.0 + back);
        low += w * (down + back * up);
        low_slope += w * t * (down - back * up);
        back *= decay;
        k += 1;
    }
    let slope = slope / sum;
    let own = [(step * sum).ln() + top, slope, bend / sum - slope * slope];
    BesselK { own, lower: [(step * low).ln() + top, low_slope / low] }
}

/// Matern's correlation 2^(1 - nu) / Gamma(nu) x^nu K_nu(x) with its first and second derivatives.
pub fn matern<S: Scalar>(x: S, nu: S) -> S {
    let (r, v) = (x.value(), nu.value());
    if !(r > 0.0) {
        return if r == 0.0 { S::constant(1.0) } else { S::constant(f64::NAN) };
    }
    let constant = (1.0 - v) * std::f64::consts::LN_2 - lgamma(v);
    let BesselK { own: [ln_k, slope, bend], lower: [lower, lower_slope] } = bessel_k(v, r);
    let c = (constant + v * r.ln() + ln_k).exp();
    let mut f = [0.0; 10];
    f[0] = c;
    if S::ORDER > 0 {
        // (x^nu K_nu)' = -x^nu K_(nu - 1) (DLMF 10.29.4).
        let gamma = polygammas(v);
        let own = r.ln() - std::f64::consts::LN_2 - gamma[0];
        f[1] = -(constant + v * r.ln() + lower).exp();
        f[2] = c * (own + slope);
        f[3] = c + (2.0 * v - 1.0) * f[1] / r;
        f[4] = f[1] * (own + lower_slope);
        f[5] = c * ((own + slope).powi(2) - gamma[1] + bend);
    }
    x.compose2(nu, &f)
}

/// The remainder of Stirling's formula, lgamma(x) - [(x - 1/2) ln x - x + ln(2 pi) / 2], with derivatives in ln x.
/// It keeps densities with a large shape free of cancellation.
pub fn binet_jet(ln_x: f64, order: usize) -> Univariate {
    let x = ln_x.exp();
    if x >= 12.0 {
        let r = 1.0 / x;
        let r2 = r * r;
        let mut out = [0.0; 4];
        for (i, bern) in BERNOULLI.iter().enumerate().rev().skip(2) {
            let k = 2.0 * i as f64 + 1.0;
            let c = bern / (k * (k + 1.0));
            for (d, o) in out.iter_mut().enumerate() {
                *o = c * (-k).powi(d as i32) + r2 * *o;
            }
        }
        return out.map(|o| o * r);
    }
    let mut out = [lgamma(x) - (x - 0.5) * ln_x + x - HALF_LN_2PI, 0.0, 0.0, 0.0];
    if order > 0 {
        let p = polygammas(x);
        let (d1, d2, d3) = (x * p[0], x * x * p[1], x * x * x * p[2]);
        out[1] = d1 - x * ln_x + 0.5;
        out[2] = d1 + d2 - x * (ln_x + 1.0);
        out[3] = d1 + 3.0 * d2 + d3 - x * (ln_x + 2.0);
    }
    out
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
        let [f, d1, d2, d3] = ln_pochhammer_jet(ln_a, m, order);
        return [f - m * ln_a, d1 - m, d2, d3];
    }
    let a = ln_a.exp();
    if m <= 64.0 && m.fract() == 0.0 {
        return rising_by_product(a, m as usize, order);
    }
    if a > 1e3 * m {
        return rising_by_powers(a, m);
    }
    let mut out = [lgamma(a + m) - lgamma(a) - m * ln_a, 0.0, 0.0, 0.0];
    if order > 0 {
        let (p, q) = (polygammas(a + m), polygammas(a));
        let (d1, d2, d3) = (a * (p[0] - q[0]), a * a * (p[1] - q[1]), a * a * a * (p[2] - q[2]));
        out[1] = d1 - m;
        out[2] = d1 + d2;
        out[3] = d1 + 3.0 * d2 + d3;
    }
    out
}

/// lgamma(a + m) - lgamma(a) with derivatives in ln a, for a <= 1: ln a + lgamma(a + m) - lgamma(a + 1), which stays
/// exact for a -> 0 (ln a + log (m - 1)!), also where a itself underflows.
pub fn ln_pochhammer_jet(ln_a: f64, m: f64, order: usize) -> Univariate {
    if m == 0.0 {
        return [0.0; 4];
    }
    let a = ln_a.exp();
    if m <= 64.0 && m.fract() == 0.0 {
        // At most 64!, far from overflow.
        let (mut product, mut s1, mut s2, mut s3) = (1.0, 0.0, 0.0, 0.0);
        for j in 1..m as usize {
            let j = j as f64;
            product *= a + j;
            if order > 0 {
                let p = a / (a + j);
                let d = p * (1.0 - p);
                s1 += p;
                s2 += d;
                s3 += d * (1.0 - 2.0 * p);
            }
        }
        return [ln_a + f64::ln(product), 1.0 + s1, s2, s3];
    }
    let mut out = [ln_a + (lgamma(a + m) - lgamma(a + 1.0)), 1.0, 0.0, 0.0];
    if order > 0 {
        let (p, q) = (polygammas(a + m), polygammas(a + 1.0));
        let (d1, d2, d3) = (a * (p[0] - q[0]), a * a * (p[1] - q[1]), a * a * a * (p[2] - q[2]));
        out[1] = 1.0 + d1;
        out[2] = d1 + d2;
        out[3] = d1 + 3.0 * d2 + d3;
    }
    out
}

/// For a >= 1, so that the product is at most 64!.
#[inline]
fn rising_by_product(a: f64, m: usize, order: usize) -> Univariate {
    let mut product = 1.0;
    let (mut s1, mut s2, mut s3) = (0.0, 0.0, 0.0);
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
        }
    }
    // With a huge a the product is 1 to machine precision but its logarithm is not 0.
    let log = if product > 1.5 || m < 2 { f64::ln(product) } else { (1..m).map(|j| (j as f64 * r).ln_1p()).sum() };
    [log, -s1, s2, -s3]
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
    let mut out = [0.0; 4];
    let mut power = 1.0;
    for (i, s) in s.iter().enumerate() {
        let k = (i + 1) as f64;
        power /= a;
        let term = s * power / k * if i % 2 == 0 { 1.0 } else { -1.0 };
        out[0] += term;
        out[1] -= k * term;
        out[2] += k * k * term;
        out[3] -= k * k * k * term;
    }
    out
}

#[inline]
pub fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x - HALF_LN_2PI).exp()
}

const MILLS_STEP: f64 = 0.125;
const MILLS_TERMS: usize = 14;
const MILLS_END: f64 = 10.0;

/// Mills' ratio by Laplace's continued fraction from the back, and the partial denominators behind it:
/// R = 1 / (x + e), e = 1 / (x + g).
fn mills_fraction(x: f64, terms: usize) -> (f64, f64) {
    let mut f = x;
    for k in (2..=terms).rev() {
        f = x + k as f64 / f;
    }
    let e = 1.0 / f;
    (1.0 / (x + e), e)
}

/// Taylor coefficients of Mills' ratio around the grid points.
fn mills_table() -> &'static [[f64; MILLS_TERMS]] {
    static TABLE: OnceLock<Vec<[f64; MILLS_TERMS]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        (0..=(MILLS_END / MILLS_STEP) as usize)
            .map(|i| {
                let x = i as f64 * MILLS_STEP;
                let mut c = [0.0; MILLS_TERMS];
                c[0] = if x < 0.5 { mills_series(x) } else { mills_fraction(x, 3000).0 };
                c[1] = x * c[0] - 1.0;
                for n in 1..MILLS_TERMS - 1 {
                    // R^(n+1) = x R^(n) + n R^(n-1), divided by factorials.
                    c[n + 1] = (x * c[n] + c[n - 1]) / (n + 1) as f64;
                }
                c
            })
            .collect()
    })
}

/// R(x) = sqrt(pi/2) exp(x^2/2) - sum x^(2n+1) / (2n+1)!!
fn mills_series(x: f64) -> f64 {
    let (mut term, mut sum) = (x, 0.0);
    for n in 1..40 {
        sum += term;
        term *= x * x / (2 * n + 1) as f64;
    }
    (0.5 * std::f64::consts::PI).sqrt() * (0.5 * x * x).exp() - sum
}

/// Mills' ratio (1 - Phi(x)) / phi(x) for x >= 0.
pub fn mills(x: f64) -> f64 {
    if x > MILLS_END {
        return mills_fraction(x, 24).0;
    }
    let i = (x / MILLS_STEP).round();
    let d = x - i * MILLS_STEP;
    mills_table()[i as usize].iter().rev().fold(0.0, |s, c| c + d * s)
}

/// The standard normal distribution function.
pub fn ndtr(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let tail = normal_density(x) * mills(x.abs());
    if x < 0.0 {
        tail
    } else {
        1.0 - tail
    }
}

/// log Phi(x).
pub fn ln_ndtr(x: f64) -> f64 {
    ln_ndtr_jet(x)[0]
}

/// log Phi(x) and its derivatives: h = phi / Phi, -h (x + h), ...
pub fn ln_ndtr_jet(x: f64) -> Univariate {
    if x.is_nan() {
        return [x; 4];
    }
    if x < 0.0 {
        let z = -x;
        // e = h - z without cancellation
        let (r, e) = if z > MILLS_END {
            mills_fraction(z, 24)
        } else {
            let r = mills(z);
            (r, 1.0 / r - z)
        };
        let h = 1.0 / r;
        let value = -0.5 * z * z - HALF_LN_2PI + r.ln();
        return [value, h, -h * e, -h * (1.0 - e * (h + e))];
    }
    let density = normal_density(x);
    let tail = density * mills(x);
    let h = density / (1.0 - tail);
    let e = x + h;
    [(-tail).ln_1p(), h, -h * e, -h * (1.0 - e * (h + e))]
}

/// The normal quantile: a rational start (A&S 26.2.23), then Newton's method on log Phi.
pub fn inverse_ndtr(p: f64) -> f64 {
    if !(p > 0.0 && p < 1.0) {
        return if p == 0.0 {
            f64::NEG_INFINITY
        } else if p == 1.0 {
            f64::INFINITY
        } else {
            f64::NAN
        };
    }
    if p > 0.5 {
        return -inverse_ndtr(1.0 - p);
    }
    let t = (-2.0 * p.ln()).sqrt();
    let top = 2.515517 + t * (0.802853 + t * 0.010328);
    let bottom = 1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308));
    let mut x = -(t - top / bottom);
    for _ in 0..4 {
        let d = ln_ndtr_jet(x);
        let f = d[0] - p.ln();
        // Halley's step
        let step = f / d[1] / (1.0 - 0.5 * f * d[2] / (d[1] * d[1]));
        x -= step;
        if step.abs() < 1e-9 * (1.0 + x.abs()) {
            break;
        }
    }
    x
}

/// The principal branch of Lambert's W for x >= 0 (Corless et al. 1996), by Halley's method.
pub fn lambert_w(x: f64) -> f64 {
    if !(x > 0.0) {
        return if x == 0.0 { 0.0 } else { f64::NAN };
    }
    let mut w = if x < 2.0 { x.ln_1p() * (1.0 - 0.3 * x.ln_1p() / (1.0 + x)) } else { x.ln() - x.ln().max(0.1).ln() };
    for _ in 0..20 {
        // On the log scale: w + ln w = ln x.
        let f = w + w.ln() - x.ln();
        let step = f * w / (1.0 + w) / (1.0 + f / (2.0 * (1.0 + w) * (1.0 + w)));
        let next = w - step;
        w = if next > 0.0 { next } else { 0.5 * w };
        if step.abs() <= 1e-15 * w {
            break;
        }
    }
    w
}

/// 1 + t - exp(t), without cancellation near 0.
#[inline]
pub fn deviance_part<S: Scalar>(t: S) -> S {
    let x = t.value();
    let e = x.exp();
    let value = if x.abs() < 1e-2 {
        // -(t^2/2 + t^3/6 + ...)
        -x * x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0 + x / 5040.0)))))
    } else {
        x - x.exp_m1()
    };
    t.compose([value, -x.exp_m1(), -e, -e])
}

/// log of P(a, x) and of Q(a, x), the regularised incomplete gamma functions.
pub fn ln_incomplete_gamma<S: Scalar>(a: S, x: S, ln_x: S) -> (S, S) {
    let (av, xv) = (a.value(), x.value());
    if !(av > 0.0 && xv >= 0.0 && av.is_finite()) {
        return (S::constant(f64::NAN), S::constant(f64::NAN));
    }
    if xv == 0.0 {
        return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
    }
    if !xv.is_finite() {
        return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
    }
    // x^a exp(-x) / Gamma(a + 1) without the cancellation of large a
    let ln_a = a.ln();
    let binet = ln_a.compose(binet_jet(ln_a.value(), S::ORDER));
    let front = deviance_part(ln_x - ln_a) * a - ln_a * 0.5 - HALF_LN_2PI - binet;
    if xv < av + 1.0 {
        let (mut term, mut sum, mut d) = (S::constant(1.0), S::constant(1.0), a);
        let slack = if S::ORDER == 0 { 1e-17 } else { 1e-20 };
        for _ in 0..100_000 {
            d = d + 1.0;
            term = term * x / d;
            sum = sum + term;
            if term.value() < slack * sum.value() {
                break;
            }
        }
        let p = front + sum.ln();
        (p, p.ln_1m_exp())
    } else {
        let q = front + ln_a - gamma_fraction(a, x).ln();
        (q.ln_1m_exp(), q)
    }
}

/// x + 1 - a - 1 (1 - a) / (x + 3 - a - 2 (2 - a) / ...): its length found with plain numbers, then run from the back.
fn gamma_fraction<S: Scalar>(a: S, x: S) -> S {
    let (av, xv) = (a.value(), x.value());
    let b0 = xv + 1.0 - av;
    let (mut c, mut d, mut n) = (1e300, 1.0 / b0, 0usize);
    loop {
        n += 1;
        let k = n as f64;
        let an = -k * (k - av);
        let b = b0 + 2.0 * k;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        if (c * d - 1.0).abs() < 1e-16 || n > 100_000 {
            break;
        }
    }
    if S::ORDER > 0 {
        n = 2 * n + 20;
    }
    let base = x - a + 1.0;
    let mut f = base + 2.0 * n as f64;
    for k in (1..=n).rev() {
        let k = k as f64;
        f = base + 2.0 * (k - 1.0) + (a - k) * k / f;
    }
    f
}

/// log of I_x(a, b) and of 1 - I_x(a, b), the regularised incomplete beta function; `y` is 1 - x.
pub fn ln_incomplete_beta<S: Scalar>(a: S, b: S, x: S, y: S) -> (S, S) {
    let (av, bv, xv) = (a.value(), b.value(), x.value());
    if !(av > 0.0 && bv > 0.0 && xv >= 0.0 && y.value() >= 0.0) {
        return (S::constant(f64::NAN), S::constant(f64::NAN));
    }
    if xv == 0.0 {
        return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
    }
    if y.value() == 0.0 {
        return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
    }
    if xv > (av + 1.0) / (av + bv + 2.0) {
        let (p, q) = beta_tail(b, a, y, x);
        return (q, p);
    }
    beta_tail(a, b, x, y)
}

/// I_x(a, b) where the continued fraction is short: x < (a + 1) / (a + b + 2).
fn beta_tail<S: Scalar>(a: S, b: S, x: S, y: S) -> (S, S) {
    let binet = |v: S| v.ln().compose(binet_jet(v.value().ln(), S::ORDER));
    let ln_x = if x.value() > 0.5 { (-y).ln_1p() } else { x.ln() };
    let ln_y = if y.value() > 0.5 { (-x).ln_1p() } else { y.ln() };
    let kernel = a * (ln_x + (b / a).ln_1p()) + b * (ln_y + (a / b).ln_1p());
    let front = kernel + (b / (a * (a + b))).ln() * 0.5 - HALF_LN_2PI + binet(a + b) - binet(a) - binet(b);
    let p = front - beta_fraction(a, b, x).ln();
    (p, p.ln_1m_exp())
}

/// 1 + d1 / (1 + d2 / (1 + ...)), A&S 26.5.8.
fn beta_fraction<S: Scalar>(a: S, b: S, x: S) -> S {
    fn term<R: Scalar>(a: R, b: R, x: R, n: usize) -> R {
        let m = (n / 2) as f64;
        if n % 2 == 0 {
            x * (b - m) * m / ((a + (2.0 * m - 1.0)) * (a + 2.0 * m))
        } else {
            -(x * (a + m) * (a + b + m)) / ((a + 2.0 * m) * (a + (2.0 * m + 1.0)))
        }
    }
    let (av, bv, xv) = (a.value(), b.value(), x.value());
    let (mut c, mut d, mut n) = (1.0, 0.0, 0usize);
    loop {
        n += 1;
        let t = term(av, bv, xv, n);
        d = 1.0 / (1.0 + t * d);
        c = 1.0 + t / c;
        if (c * d - 1.0).abs() < 1e-16 || n > 50_000 {
            break;
        }
    }
    if S::ORDER > 0 {
        n = 2 * n + 20;
    }
    let mut f = S::constant(1.0);
    for k in (1..=n).rev() {
        f = term(a, b, x, k) / f + 1.0;
    }
    f
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, tol: f64) {
        assert!((a - b).abs() <= tol * (1e-300 + b.abs()), "{a} is not {b}");
    }

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

    /// Values of scipy.special.kve, which agree with Wolfram's to the last digits shown.
    #[test]
    fn bessel_functions_of_the_second_kind() {
        let known = [
            (0.02, 1e-06, 2.6473712179692934),
            (0.02, 300.0, -302.62651519374486),
            (0.3, 0.01, 1.9300859816189337),
            (1.0, 0.7, 0.04906016134826374),
            (1.0, 3.0, -3.2149726738773357),
            (2.5, 1e-06, 35.863180036223355),
            (2.5, 25.0, -26.26604131771511),
            (7.25, 0.01, 44.77183517765339),
            (7.25, 300.0, -302.5390613957974),
            (60.0, 0.01, 501.73972325004297),
            (60.0, 25.0, 29.705673182859627),
        ];
        let ln_bessel_k = |nu: f64, x: f64| {
            let [value, slope, _] = bessel_k(nu, x).own;
            (value, slope)
        };
        for (nu, x, value) in known {
            // The order below shares the nodes; K_nu is even in nu.
            let BesselK { lower, .. } = bessel_k(nu, x);
            let [value_below, slope_below, _] = bessel_k((nu - 1.0).abs(), x).own;
            assert!((lower[0] - value_below).abs() < 1e-12 * value_below.abs().max(1.0), "{nu} {x}: order below");
            let slope_below = (nu - 1.0).signum() * slope_below;
            assert!((lower[1] - slope_below).abs() < 1e-11 * slope_below.abs().max(1.0), "{nu} {x}: order below");
            assert!((ln_bessel_k(nu, x).0 - value).abs() < 1e-13 * value.abs().max(1.0), "{nu} {x}");
            let h = 1e-5;
            let numeric = (ln_bessel_k(nu + h, x).0 - ln_bessel_k(nu - h, x).0) / (2.0 * h);
            let slope = ln_bessel_k(nu, x).1;
            assert!((slope - numeric).abs() < 1e-8 * (1.0 + slope.abs()), "{nu} {x}: {slope} {numeric}");
        }
        // dK_nu / dnu at nu = 1 is K_0(x) / x (DLMF 10.38.7).
        for x in [1e-4, 0.4, 12.0] {
            let (k0, (k1, slope)) = (ln_bessel_k(0.0, x).0, ln_bessel_k(1.0, x));
            near(slope, (k0 - k1).exp() / x, 1e-12);
        }
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
    fn normal_distribution_in_body_and_tails() {
        near(ndtr(-1.0), 0.158_655_253_931_457_05, 3e-15);
        near(ndtr(1.96), 0.975_002_104_851_779_5, 1e-15);
        near(ndtr(-8.0), 6.220_960_574_271_784e-16, 1e-14);
        near(ln_ndtr(-40.0), -804.608_442_013_754_4, 1e-15);
        near(ln_ndtr(9.0), -1.128_588_405_953_840_6e-19, 1e-13);
        for p in [1e-300, 1e-10, 0.02425, 0.3, 0.5, 0.9, 1.0 - 1e-12] {
            near(ndtr(inverse_ndtr(p)), p, 1e-13);
        }
    }

    #[test]
    fn derivatives_of_the_log_normal_distribution_function() {
        for x in [-30.0, -10.5, -3.3, -0.2, 0.4, 5.0] {
            let (h, d) = (1e-5, ln_ndtr_jet(x));
            let (up, down) = (ln_ndtr_jet(x + h), ln_ndtr_jet(x - h));
            for k in 0..3 {
                let slope = (up[k] - down[k]) / (2.0 * h);
                assert!((slope - d[k + 1]).abs() < 1e-6 * (1e-3 + slope.abs()), "{x} {k}: {slope} {}", d[k + 1]);
            }
        }
    }

    #[test]
    fn incomplete_functions_at_known_points() {
        let (p, q) = ln_incomplete_gamma(2.5, 1.0, 0.0);
        near(p.exp(), 0.150_854_963_915_396_6, 1e-13);
        near(q.exp(), 1.0 - 0.150_854_963_915_396_6, 1e-13);
        let (_, q) = ln_incomplete_gamma(2.5, 9.0, 9f64.ln());
        near(q.exp(), 0.002_946_404_587_880_292_3, 1e-13);
        // I_x(2, 3) = x^2 (6 - 8x + 3x^2)
        for x in [0.1f64, 0.4, 0.9] {
            let (p, _) = ln_incomplete_beta(2.0, 3.0, x, 1.0 - x);
            near(p.exp(), x * x * (6.0 - 8.0 * x + 3.0 * x * x), 1e-13);
        }
    }

    #[test]
    fn lambert_w_inverts() {
        for x in [1e-12, 1e-3, 0.5, 1.0, std::f64::consts::E, 50.0, 1e10, 1e100] {
            let w = lambert_w(x);
            assert!((w.ln() + w - f64::ln(x)).abs() < 1e-13, "{x}");
        }
    }
}
