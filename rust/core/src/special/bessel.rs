//! The modified Bessel function of the second kind, and the correlation that is made of it.

use super::{lgamma, polygammas};
use crate::jet::Scalar;

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

/// Matern's correlation 2^(1 - nu) / Gamma(nu) x^nu K_nu(x) with its first and second derivatives; higher ones are NaN.
pub fn matern<S: Scalar>(x: S, nu: S) -> S {
    let (r, v) = (x.value(), nu.value());
    if !(r > 0.0) {
        return if r == 0.0 { S::constant(1.0) } else { S::constant(f64::NAN) };
    }
    let constant = (1.0 - v) * std::f64::consts::LN_2 - lgamma(v);
    let BesselK { own: [ln_k, slope, bend], lower: [lower, lower_slope] } = bessel_k(v, r);
    let c = (constant + v * r.ln() + ln_k).exp();
    let mut f = [f64::NAN; 15];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::near;

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
}
