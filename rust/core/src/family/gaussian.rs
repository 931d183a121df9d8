//! Gaussian responses. The dispersion is the residual standard deviation; known sampling variances add to its square.

use super::closed::{Closed, Memo, Power};
use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::Scalar;
use crate::special::{self, HALF_LN_2PI};

#[derive(Clone, Copy)]
pub struct Gaussian;

/// log of the standard deviation of the row, with its sampling error.
pub(super) fn ln_total_sd<S: Scalar>(sd: &Par<S>, se: f64) -> S {
    if se == 0.0 {
        sd.ln()
    } else {
        (sd.value().square() + se * se).ln() * 0.5
    }
}

impl Density for Gaussian {
    #[inline]
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let s = ln_total_sd(&p[1], row.se);
        let z = (-p[0].value() + row.y) * (-s).exp();
        z.square() * -0.5 - s - HALF_LN_2PI
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        let z = (-p[0].value() + row.y) * (-ln_total_sd(&p[1], row.se)).exp();
        (z.ln_ndtr(), (-z).ln_ndtr())
    }

    fn moments(&self, row: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let sd = p[1].value();
        (p[0].value(), sd * sd + row.se * row.se)
    }

    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let (m, v) = self.moments(row, p);
        m + v.sqrt() * rng.normal()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean, (0.7 * s.variance).sqrt(), 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Real
    }
}

/// Identity link for the mean, log link for the standard deviation.
#[derive(Default)]
pub struct Closed2 {
    sd: Memo<(f64, f64)>,
}

impl Closed for Closed2 {
    const K: usize = 2;

    #[inline(always)]
    fn row(&mut self, row: &Row, eta: &[f64], _: Power, order: usize, out: &mut [f64]) {
        let s = eta[1];
        let (w, _) = *self.sd.get(s, |s| ((-2.0 * s).exp(), 0.0));
        let r = row.y - eta[0];
        let q = w * r * r;
        out[0] = -0.5 * q - s - HALF_LN_2PI;
        if order >= 2 {
            out[1..6].copy_from_slice(&[w * r, q - 1.0, -w, -2.0 * w * r, -2.0 * q]);
        }
        if order >= 3 {
            out[6..10].copy_from_slice(&[0.0, 2.0 * w, 4.0 * w * r, 4.0 * q]);
        }
    }
}

/// Log-normal responses, by the mean and standard deviation on the scale of the data (glmmTMB's convention).
#[derive(Clone, Copy)]
pub struct LogNormal;

impl LogNormal {
    /// Mean and log variance of log y.
    fn parts<S: Scalar>(p: &[Par<S>; 4]) -> (S, S, S) {
        let (lm, ls) = (p[0].ln(), p[1].ln());
        let x = (ls - lm) * 2.0;
        let v = x.softplus();
        // softplus(x) = exp(x) (1 - exp(x) / 2 ...) far to the left
        let ln_v = if x.value() < -36.0 { x } else { v.ln() };
        (lm - v * 0.5, v, ln_v)
    }
}

impl Density for LogNormal {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (m, _, ln_v) = Self::parts(p);
        let ln_y = row.y.ln();
        let r = -m + ln_y;
        r.square() * (-ln_v).exp() * -0.5 - ln_v * 0.5 - (HALF_LN_2PI + ln_y)
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        if row.y <= 0.0 {
            return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
        }
        let (m, _, ln_v) = Self::parts(p);
        let z = (-m + row.y.ln()) * (ln_v * -0.5).exp();
        (z.ln_ndtr(), (-z).ln_ndtr())
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let sd = p[1].value();
        (p[0].value(), sd * sd)
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let (m, v, _) = Self::parts(p);
        (m + v.sqrt() * rng.normal()).exp()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean, (0.7 * s.variance).sqrt(), 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Positive
    }
}

/// Skew-normal responses (Azzalini 1985) by mean, standard deviation and the slant alpha.
#[derive(Clone, Copy)]
pub struct SkewNormal;

impl SkewNormal {
    /// ((y - xi) / omega, log omega): delta = alpha / sqrt(1 + alpha^2), omega = sd / sqrt(1 - 2 delta^2 / pi).
    fn standard<S: Scalar>(y: f64, p: &[Par<S>; 4], se: f64) -> (S, S) {
        const C: f64 = std::f64::consts::FRAC_2_PI;
        let (s, alpha) = (ln_total_sd(&p[1], se), p[2].value());
        let a2 = alpha.square();
        let delta = alpha / (a2 + 1.0).sqrt();
        let ln_w = s - (-(delta.square() * C)).ln_1p() * 0.5;
        ((-p[0].value() + y) * (-ln_w).exp() + delta * C.sqrt(), ln_w)
    }
}

impl Density for SkewNormal {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (z, ln_w) = Self::standard(row.y, p, row.se);
        let skew = (p[2].value() * z).ln_ndtr();
        z.square() * -0.5 - ln_w + skew + (std::f64::consts::LN_2 - HALF_LN_2PI)
    }

    /// Phi(z) - 2 T(z, alpha), with Owen's T (1956).
    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        let (z, _) = Self::standard(row.y, p, row.se);
        let f = skew_normal_cdf(z, p[2].value());
        let g = skew_normal_cdf(-z, -p[2].value());
        (f.ln(), g.ln())
    }

    fn moments(&self, row: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        Gaussian.moments(row, p)
    }

    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let (at_zero, ln_w) = Self::standard(0.0, p, row.se);
        let w = ln_w.exp();
        let alpha = p[2].value();
        let delta = alpha / (1.0 + alpha * alpha).sqrt();
        let z = delta * rng.normal().abs() + (1.0 - delta * delta).sqrt() * rng.normal();
        w * (z - at_zero)
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean, (0.7 * s.variance).sqrt(), s.skewness.clamp(-0.9, 0.9) * 2.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Real
    }
}

/// The standard skew-normal distribution function; its derivatives are elementary:
/// dF/dz = 2 phi(z) Phi(alpha z),  dF/dalpha = -exp(-z^2 (1 + alpha^2) / 2) / (pi (1 + alpha^2)).
fn skew_normal_cdf<S: Scalar>(z: S, alpha: S) -> S {
    let (x, a) = (z.value(), alpha.value());
    let d = 2.0 * special::normal_density(x);
    let (phi, big) = (special::normal_density(a * x), special::ndtr(a * x));
    let fz = d * big;
    let fzz = -x * fz + d * a * phi;
    let fza = d * x * phi;
    let fzzz = -fz - x * fzz + d * phi * (-x * a - a * a * a * x);
    let fzza = -x * fza + d * phi * (1.0 - a * a * x * x);
    let fzaa = -fza * a * x * x;
    let b = 1.0 + a * a;
    let fa = -(-0.5 * x * x * b).exp() / (std::f64::consts::PI * b);
    let l1 = -a * x * x - 2.0 * a / b;
    let l2 = -x * x - 2.0 * (1.0 - a * a) / (b * b);
    let value = special::ndtr(x) - 2.0 * owen_t(x, a);
    z.compose2(alpha, &[value, fz, fa, fzz, fza, fa * l1, fzzz, fzza, fzaa, fa * (l1 * l1 + l2)])
}

/// Owen's T(h, a) = 1 / (2 pi) int_0^a exp(-h^2 (1 + x^2) / 2) / (1 + x^2) dx, with |a| <= 1 after reflection.
pub fn owen_t(h: f64, a: f64) -> f64 {
    if a < 0.0 {
        return -owen_t(h, -a);
    }
    let h = h.abs();
    if a > 1.0 {
        // Owen's identity: T(h, a) + T(ah, 1/a) = (Phi(h) + Phi(ah)) / 2 - Phi(h) Phi(ah), in upper tails.
        let (p, q) = (special::ndtr(-h), special::ndtr(-a * h));
        return 0.5 * (p + q) - p * q - owen_t(a * h, 1.0 / a);
    }
    let f = |x: f64| (-0.5 * h * h * (1.0 + x * x)).exp() / (1.0 + x * x);
    // Beyond |h| x = 9 nothing is left to integrate; panels follow the width of the integrand.
    let end = if h > 0.0 { a.min(9.0 / h) } else { a };
    let panels = 1 + (2.0 * end * h.max(1.0)) as usize;
    let width = end / panels as f64;
    let sum: f64 = (0..panels).map(|i| gauss_legendre(f, i as f64 * width, width)).sum();
    sum / (2.0 * std::f64::consts::PI)
}

/// Twelve-point Gauss-Legendre quadrature on [from, from + width].
fn gauss_legendre(f: impl Fn(f64) -> f64, from: f64, width: f64) -> f64 {
    const NODES: [(f64, f64); 6] = [
        (0.125_233_408_511_468_9, 0.249_147_045_813_402_8),
        (0.367_831_498_998_180_2, 0.233_492_536_538_354_8),
        (0.587_317_954_286_617_5, 0.203_167_426_723_065_92),
        (0.769_902_674_194_304_7, 0.160_078_328_543_346_22),
        (0.904_117_256_370_474_9, 0.106_939_325_995_318_43),
        (0.981_560_634_246_719_2, 0.047_175_336_386_511_8),
    ];
    let (mid, half) = (from + 0.5 * width, 0.5 * width);
    half * NODES.iter().map(|(x, w)| w * (f(mid + half * x) + f(mid - half * x))).sum::<f64>()
}
