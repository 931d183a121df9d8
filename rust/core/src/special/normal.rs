//! The normal distribution function, its logarithm with derivatives, and its inverse.
//!
//! Taylor expansion of Mills' ratio around a grid, where R' = x R - 1, the grid itself by Laplace's continued fraction
//! (Abramowitz & Stegun 26.2.14).

use std::sync::OnceLock;

use super::HALF_LN_2PI;
use crate::jet::Univariate;

#[inline]
pub fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x - HALF_LN_2PI).exp()
}

const MILLS_STEP: f64 = 0.125;
const MILLS_TERMS: usize = 14;
const MILLS_END: f64 = 10.0;

/// Mills' ratio by Laplace's continued fraction from the back, and the partial denominators behind it: R = 1 / (x + e),
/// e = 1 / (x + b), b = 2 / (x + a), a = 3 / (x + c).
struct Fraction {
    r: f64,
    e: f64,
    b: f64,
    a: f64,
    c: f64,
}

fn mills_fraction(x: f64, terms: usize) -> Fraction {
    let mut f = x;
    for k in (5..=terms).rev() {
        f = x + k as f64 / f;
    }
    let c = 4.0 / f;
    let a = 3.0 / (x + c);
    let b = 2.0 / (x + a);
    let e = 1.0 / (x + b);
    Fraction { r: 1.0 / (x + e), e, b, a, c }
}

/// Taylor coefficients of Mills' ratio around the grid points.
fn mills_table() -> &'static [[f64; MILLS_TERMS]] {
    static TABLE: OnceLock<Vec<[f64; MILLS_TERMS]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        (0..=(MILLS_END / MILLS_STEP) as usize)
            .map(|i| {
                let x = i as f64 * MILLS_STEP;
                let mut c = [0.0; MILLS_TERMS];
                c[0] = if x < 0.5 { mills_series(x) } else { mills_fraction(x, 3000).r };
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
        return mills_fraction(x, 24).r;
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

/// The logarithm of Mills' ratio and its derivatives, x >= 0. With h = 1 / R and e = h - x, h' = h e and e' = h e - 1.
pub fn ln_mills_jet(x: f64) -> Univariate {
    if x.is_nan() {
        return [x; 5];
    }
    if x > MILLS_END {
        return far_ln_mills_jet(x);
    }
    let r = mills(x);
    let h = 1.0 / r;
    let e = h - x;
    let [third, fourth] = higher(h, e);
    [r.ln(), -e, 1.0 - h * e, third, fourth]
}

/// The third and fourth derivative.
#[inline]
fn higher(h: f64, e: f64) -> [f64; 2] {
    let (u, e2) = (1.0 - h * e, e * e);
    [h * (u - e2), h * (u * (h + 3.0 * e) - e2 * (h + e))]
}

/// The same for a large x, where they are of the order of x^-k: what cancels in the terms of R is left out by the continued
/// fraction, 1 - h e = e (b - e) and so on.
fn far_ln_mills_jet(x: f64) -> Univariate {
    let Fraction { r, e, b, a, c } = mills_fraction(x, 24);
    let (h, s) = (x + e, 3.0 * a - 2.0 * c);
    let beyond = (x + a) * (x + a) * (x + c);
    // b - 2 e, and h times it + 2 e^2.
    let w = -2.0 * (x + s) * e / beyond;
    let rest = x * (x * (3.0 * c - a - b - e) + (a * a + 2.0 * a * c - b * e - (b + e) * s)) + a * a * c - b * e * s;
    let fourth = 2.0 * e * e * rest / beyond + 3.0 * e * w;
    [r.ln(), -e, e * (b - e), h * e * w, h * e * fourth]
}

/// log Phi(x) and its derivatives: h = phi / Phi, -h (x + h), ...
pub fn ln_ndtr_jet(x: f64) -> Univariate {
    if x.is_nan() {
        return [x; 5];
    }
    if x < 0.0 {
        let z = -x;
        let [value, slope, second, third, fourth] = ln_mills_jet(z);
        return [value - 0.5 * z * z - HALF_LN_2PI, z - slope, second - 1.0, -third, fourth];
    }
    let density = normal_density(x);
    let tail = density * mills(x);
    let h = density / (1.0 - tail);
    let e = x + h;
    let [third, fourth] = higher(h, e);
    [(-tail).ln_1p(), h, -h * e, -third, fourth]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::near;

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
            for k in 0..4 {
                let slope = (up[k] - down[k]) / (2.0 * h);
                assert!((slope - d[k + 1]).abs() < 1e-6 * (1e-3 + slope.abs()), "{x} {k}: {slope} {}", d[k + 1]);
            }
        }
    }

    #[test]
    fn derivatives_of_mills_ratio_far_out_do_not_cancel() {
        // log R = -log x - x^-2 + 5 / 2 x^-4 - 37 / 3 x^-6 ...
        for x in [1e3f64, 1e5, 1e8] {
            let d = ln_mills_jet(x);
            let r = 1.0 / (x * x);
            near(d[2], r * (1.0 - r * (6.0 - 50.0 * r)), 1e-14);
            near(d[3], -r / x * (2.0 - r * (24.0 - 300.0 * r)), 1e-13);
            near(d[4], r * r * (6.0 - r * (120.0 - 2100.0 * r)), 1e-13);
        }
        // Both sides of where the fraction takes over, less exact in the last derivative where it does not.
        let (below, above) = (ln_mills_jet(MILLS_END), ln_mills_jet(MILLS_END + 1e-13));
        (0..5).for_each(|i| assert!((below[i] - above[i]).abs() < 1e-12, "{below:?} {above:?}"));
    }
}
