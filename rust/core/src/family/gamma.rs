//! Positive continuous responses by their mean: gamma, exponential, inverse Gaussian, Weibull.

use super::closed::{Closed, Memo, Power};
use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::{Scalar, Univariate};
use crate::special::{self, deviance_part, HALF_LN_2PI};

/// Gamma with shape a: log f = a (1 + t - e^t) + log(a)/2 - log(2 pi)/2 - binet(a) - log y, t = log(y / mu).
#[derive(Clone, Copy)]
pub struct Gamma;

fn ln_gamma_density<S: Scalar>(ln_y: f64, ln_mu: S, ln_shape: S) -> S {
    let binet = ln_shape.compose(special::binet_jet(ln_shape.value(), S::ORDER));
    let e = deviance_part(-ln_mu + ln_y) * ln_shape.exp();
    e + ln_shape * 0.5 - binet - (HALF_LN_2PI + ln_y)
}

impl Density for Gamma {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        ln_gamma_density(row.y.ln(), p[0].ln(), p[1].ln())
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        if row.y <= 0.0 {
            return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
        }
        let ln_x = p[1].ln() - p[0].ln() + row.y.ln();
        special::ln_incomplete_gamma(p[1].value(), ln_x.exp(), ln_x)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let mu = p[0].value();
        (mu, mu * mu / p[1].value())
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let shape = p[1].value();
        (rng.ln_gamma(shape) + p[0].ln() - shape.ln()).exp()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean, s.mean * s.mean / (0.7 * s.variance), 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Positive
    }
}

/// Gamma with log links for mean and shape.
#[derive(Default)]
pub struct GammaLog {
    shape: Memo<(f64, Univariate)>,
}

impl Closed for GammaLog {
    const K: usize = 2;

    #[inline(always)]
    fn row(&mut self, row: &Row, eta: &[f64], _: Power, order: usize, out: &mut [f64]) {
        let ln_y = row.y.ln();
        let (a, b) = *self.shape.get(eta[1], |s| (s.exp(), special::binet_jet(s, 3)));
        let t = ln_y - eta[0];
        let e = a * deviance_part(t);
        out[0] = e + 0.5 * eta[1] - HALF_LN_2PI - b[0] - ln_y;
        if order < 2 {
            return;
        }
        let r = a * t.exp_m1();
        let ay = r + a;
        out[1..6].copy_from_slice(&[r, e + 0.5 - b[1], -ay, r, e - b[2]]);
        if order >= 3 {
            out[6..10].copy_from_slice(&[ay, -ay, r, e - b[3]]);
        }
    }
}

#[derive(Clone, Copy)]
pub struct Exponential;

impl Density for Exponential {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let l = p[0].ln();
        -l - (-l).exp() * row.y
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        let s = -((-p[0].ln()).exp() * row.y.max(0.0));
        (s.ln_1m_exp(), s)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let mu = p[0].value();
        (mu, mu * mu)
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        p[0].value() * rng.exponential()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean.max(1e-8), 0.0, 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Positive
    }
}

/// Inverse Gaussian (Tweedie 1957) with variance sigma^2 mu^3.
#[derive(Clone, Copy)]
pub struct InverseGaussian;

impl Density for InverseGaussian {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (ls, ln_y) = (p[1].ln(), row.y.ln());
        // (y - mu)^2 / (mu^2 y) = (y / mu - 1)^2 / y
        let r = (-p[0].ln() + ln_y).exp_m1();
        r.square() * (ls * -2.0).exp() * (-0.5 / row.y) - ls - (HALF_LN_2PI + 1.5 * ln_y)
    }

    /// Phi(a) + exp(2 / (sigma^2 mu)) Phi(-b), a = (y/mu - 1) / (sigma sqrt y), b = (y/mu + 1) / (sigma sqrt y).
    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        if row.y <= 0.0 {
            return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
        }
        let (lm, ls) = (p[0].ln(), p[1].ln());
        let ratio = (-lm + row.y.ln()).exp();
        let scale = (-ls).exp() * (1.0 / row.y.sqrt());
        let (a, b) = ((ratio - 1.0) * scale, (ratio + 1.0) * scale);
        // exp(2 / (mu s^2)) Phi(-b), where b^2 - a^2 = 4 / (mu s^2).
        let second = b.compose(special::ln_mills_jet(b.value())) - a * a * 0.5 - special::HALF_LN_2PI;
        let lower = a.ln_ndtr().ln_add_exp(second);
        let upper = if a.value() > 0.0 { (-a).ln_ndtr().ln_sub_exp(second) } else { lower.ln_1m_exp() };
        (lower, upper)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (mu, s) = (p[0].value(), p[1].value());
        (mu, s * s * mu * mu * mu)
    }

    /// Michael, Schucany & Haas (1976).
    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let (mu, s) = (p[0].value(), p[1].value());
        let v = rng.normal();
        let w = 0.5 * mu * s * s * v * v;
        // mu (1 + w - sqrt(2 w + w^2)), as the reciprocal of the larger root
        let x = mu / (1.0 + w + (w * (2.0 + w)).sqrt());
        if rng.uniform() * (mu + x) <= mu {
            x
        } else {
            mu * mu / x
        }
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean, (0.7 * s.variance / s.mean.powi(3)).sqrt(), 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Positive
    }
}

/// Weibull by mean and shape: scale = mu / Gamma(1 + 1/shape).
#[derive(Clone, Copy)]
pub struct Weibull;

impl Weibull {
    /// shape * log(y / scale) and log shape.
    fn hazard<S: Scalar>(y: f64, p: &[Par<S>; 4]) -> (S, S) {
        let lk = p[1].ln();
        let g = ((-lk).exp() + 1.0).lgamma();
        ((g - p[0].ln() + y.ln()) * lk.exp(), lk)
    }
}

impl Density for Weibull {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (t, lk) = Self::hazard(row.y, p);
        lk + t - t.exp() - row.y.ln()
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        if row.y <= 0.0 {
            return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
        }
        let s = -Self::hazard(row.y, p).0.exp();
        (s.ln_1m_exp(), s)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (mu, r) = (p[0].value(), 1.0 / p[1].value());
        let ratio = special::lgamma(1.0 + 2.0 * r) - 2.0 * special::lgamma(1.0 + r);
        (mu, mu * mu * ratio.exp_m1())
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let r = 1.0 / p[1].value();
        p[0].value() * (rng.exponential().ln() * r - special::lgamma(1.0 + r)).exp()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        // The coefficient of variation is close to shape^(-0.926) (Garcia 1981).
        let cv = (0.7 * s.variance).sqrt() / s.mean;
        [s.mean, cv.powf(-1.0 / 0.926).clamp(0.05, 100.0), 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Positive
    }
}
