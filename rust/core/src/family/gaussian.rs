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

    /// With hazards h = phi / P of the standardised ends: mu + sigma (h_a - h_b), sigma^2 (1 + a h_a - b h_b - (h_a - h_b)^2).
    fn moments_between(&self, row: &Row, p: &[Par<f64>; 4], (a, b): (f64, f64)) -> Option<(f64, f64)> {
        let (m, v) = self.moments(row, p);
        let (sd, mass) = (v.sqrt(), special::ndtr((b - m) / v.sqrt()) - special::ndtr((a - m) / v.sqrt()));
        if mass < 0.05 {
            return None; // far in a tail, or narrow: the variance is what two large numbers leave
        }
        let hazard = |x: f64| {
            let z = (x - m) / sd;
            let h = special::normal_density(z) / mass;
            (h, if h > 0.0 { z * h } else { 0.0 })
        };
        let ((low, z_low), (high, z_high)) = (hazard(a), hazard(b));
        Some((m + sd * (low - high), v * (1.0 + z_low - z_high - (low - high).powi(2))))
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
        let (z, alpha) = (Self::standard(row.y, p, row.se).0, p[2].value());
        (ln_skew_normal_cdf(z, alpha), ln_skew_normal_cdf(-z, -alpha))
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

    fn other_starts(&self, s: &Summary) -> Vec<[f64; 4]> {
        let at = |slant: f64| [s.mean, (0.7 * s.variance).sqrt(), slant, 0.0];
        vec![at(1.5), at(-1.5)]
    }

    /// Without slant every derivative in it up to the second is zero, whatever the data (Azzalini 1985, section 3).
    fn is_doubtful(&self, p: &[f64; 4]) -> bool {
        p[2].abs() < 0.5
    }

    fn legal(&self) -> Legal {
        Legal::Real
    }
}

/// Logarithm of the standard skew-normal distribution function F; derivatives of F are elementary,
/// dF/dz = 2 phi(z) Phi(alpha z),  dF/dalpha = -exp(-z^2 (1 + alpha^2) / 2) / (pi (1 + alpha^2)), here over F.
fn ln_skew_normal_cdf<S: Scalar>(z: S, alpha: S) -> S {
    let (x, a) = (z.value(), alpha.value());
    let direct = special::ndtr(x) - 2.0 * owen_t(x, a);
    let (ln_f, fz) = if direct > CANCELLED {
        (direct.ln(), (ln_skew_normal(x, a) - direct.ln()).exp())
    } else {
        // The density over F is one over what is integrated: no logarithm is large then.
        let rest = skew_normal_tail(x, a);
        (ln_skew_normal(x, a) + rest.ln(), 1.0 / rest)
    };
    let b = 1.0 + a * a;
    // 2 phi(z) phi(alpha z) / F
    let both = fz * special::ln_ndtr_jet(a * x)[1];
    let fzz = -x * fz + a * both;
    let fza = x * both;
    let fzzz = -fz - x * fzz + both * (-x * a - a * a * a * x);
    let fzza = -x * fza + both * (1.0 - a * a * x * x);
    let fzaa = -fza * a * x * x;
    let fa = -both / b;
    let l1 = -a * x * x - 2.0 * a / b;
    let l2 = -x * x - 2.0 * (1.0 - a * a) / (b * b);
    let mut f = [0.0; 15];
    f[..10].copy_from_slice(&[1.0, fz, fa, fzz, fza, fa * l1, fzzz, fzza, fzaa, fa * (l1 * l1 + l2)]);
    if S::ORDER >= 4 {
        let (s, x2, ax2) = (a * a, x * x, a * a * x * x);
        f[10] = -2.0 * fzz - x * fzzz - a * b * both * (1.0 - b * x2);
        f[11] = -fza - x * fzza - x * both * (1.0 + 3.0 * s - b * ax2);
        f[12] = -x * fzaa - a * x2 * both * (3.0 - ax2);
        f[13] = -x2 * fza * (1.0 - ax2);
        f[14] = fa * (l1 * (l1 * l1 + 3.0 * l2) + 4.0 * a * (3.0 - s) / (b * b * b));
    }
    z.compose2(alpha, &f).ln() + ln_f
}

/// Value of the distribution function below which Phi(z) - 2 T(z, alpha) has lost too many digits.
const CANCELLED: f64 = 1e-6;
/// Fall of a log density over the tail that is integrated.
const TAIL: f64 = 45.0;

/// log (2 phi(x) Phi(a x))
fn ln_skew_normal(x: f64, a: f64) -> f64 {
    special::ln_ndtr(a * x) - 0.5 * x * x - HALF_LN_2PI + std::f64::consts::LN_2
}

/// F over its density far out: the density over that at x, which is log-concave, integrated to where nothing is left.
fn skew_normal_tail(x: f64, a: f64) -> f64 {
    let fall = |t: f64| t * (x - 0.5 * t) + ln_ndtr_change(a * x, -a * t);
    let mut end = 1.0 / (1.0 + x.abs() * (1.0 + a * a));
    while fall(end) > -TAIL {
        end *= 2.0;
    }
    let width = end / PANELS as f64;
    (0..PANELS).map(|i| gauss_legendre(|t| fall(t).exp(), i as f64 * width, width)).sum()
}

/// log Phi(u + by) - log Phi(u)
fn ln_ndtr_change(u: f64, by: f64) -> f64 {
    let to = u + by;
    if u.max(to) > 0.0 {
        return special::ln_ndtr(to) - special::ln_ndtr(u);
    }
    (special::mills(-to) / special::mills(-u)).ln() - by * (u + 0.5 * by)
}

/// Panels of that integral.
const PANELS: usize = 12;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jet::Jet;

    /// With slant 1 the skew-normal is the larger of two normal variables: F = Phi^2.
    #[test]
    fn tails_of_the_skew_normal_are_those_of_a_maximum() {
        type Third = Jet<2, 3, 4>;
        for x in [-1e3, -200.0, -30.0, -9.0, -6.0, -4.9, -4.7, -2.0, 0.5, 3.0, 7.0, 20.0, 300.0] {
            let [z, one] = [Third::variable(x, 0), Third::constant(1.0)];
            let pairs = [
                (ln_skew_normal_cdf(z, one), z.ln_ndtr() * 2.0),
                // 1 - Phi^2 = (1 - Phi) (1 + Phi)
                (ln_skew_normal_cdf(-z, -one), (-z).ln_ndtr() + z.ndtr().ln_1p()),
            ];
            for (own, exact) in pairs {
                let (mut a, mut b) = ([0.0; 35], [0.0; 35]);
                own.store(&mut a);
                exact.store(&mut b);
                for (d, (a, b)) in a.iter().zip(b).enumerate() {
                    // Derivatives are differences of powers of x as large as the third.
                    let scale = if d == 0 { b.abs() } else { (1.0 + x.abs()).powi(3) };
                    assert!((a - b).abs() < 1e-10 * (1.0 + scale), "{x}, {d}: {a} {b}");
                }
            }
        }
    }

    #[test]
    fn derivatives_in_the_slant_are_those_of_the_value() {
        type Third = Jet<2, 3, 4>;
        let at = |x: f64, a: f64| ln_skew_normal_cdf(Third::constant(x), Third::constant(a)).value();
        for (x, a) in [(-12.0, 2.5), (-12.0, -2.5), (9.0, -0.7), (-7.0, 0.4), (6.0, -3.0)] {
            let mut out = [0.0; 35];
            ln_skew_normal_cdf(Third::variable(x, 0), Third::variable(a, 1)).store(&mut out);
            let quotient = (at(x, a + 1e-5) - at(x, a - 1e-5)) / 2e-5;
            // A central difference of numbers of the size of x^2 a^2.
            assert!((out[2] - quotient).abs() < 1e-6 * (1.0 + quotient.abs()), "{x} {a}: {} {quotient}", out[2]);
        }
    }
}
