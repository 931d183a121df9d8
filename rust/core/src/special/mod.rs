//! Special functions with the derivatives that the densities need; about 1e-14 accurate.

mod bessel;
mod gamma;
mod incomplete;
mod normal;

use crate::jet::Scalar;

pub use bessel::*;
pub use gamma::*;
pub use incomplete::*;
pub use normal::*;

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
    t.compose([value, -x.exp_m1(), -e, -e, -e])
}

#[cfg(test)]
fn near(a: f64, b: f64, tol: f64) {
    assert!((a - b).abs() <= tol * (1e-300 + b.abs()), "{a} is not {b}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambert_w_inverts() {
        for x in [1e-12, 1e-3, 0.5, 1.0, std::f64::consts::E, 50.0, 1e10, 1e100] {
            let w = lambert_w(x);
            assert!((w.ln() + w - f64::ln(x)).abs() < 1e-13, "{x}");
        }
    }
}
