//! Responses on the unit interval: beta, ordered beta, zero-one-inflated beta.
//!
//! Beta with mean mu and precision phi (Ferrari & Cribari-Neto 2004), written with the remainder of Stirling's formula
//! instead of log-gammas, so that a large phi does not cancel:
//!     log f = a log(y/mu) + b log((1-y)/(1-mu)) + log(phi mu (1-mu))/2 - log(2 pi)/2 - log y(1-y)
//!             + binet(phi) - binet(a) - binet(b),    a = mu phi, b = (1 - mu) phi.

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::Scalar;
use crate::special::{self, HALF_LN_2PI};

#[derive(Clone, Copy)]
pub struct Beta;

fn binet<S: Scalar>(ln_x: S) -> S {
    ln_x.compose(special::binet_jet(ln_x.value(), S::ORDER))
}

fn ln_beta<S: Scalar>(y: f64, mean: &Par<S>, precision: &Par<S>) -> S {
    let (lm, lc, lp) = (mean.ln(), mean.ln_1m(), precision.ln());
    let (la, lb) = (lm + lp, lc + lp);
    let (ly, lz) = (y.ln(), (-y).ln_1p());
    let kernel = la.exp() * (-lm + ly) + lb.exp() * (-lc + lz);
    kernel + (lm + lb) * 0.5 + binet(lp) - binet(la) - binet(lb) - (HALF_LN_2PI + ly + lz)
}

fn beta_cdf<S: Scalar>(y: f64, p: &[Par<S>; 4]) -> (S, S) {
    if y <= 0.0 {
        return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
    }
    let phi = p[1].value();
    let (a, b) = (p[0].value() * phi, p[0].complement() * phi);
    special::ln_incomplete_beta(a, b, S::constant(y.min(1.0)), S::constant(1.0 - y.min(1.0)))
}

fn beta_moments(p: &[Par<f64>; 4]) -> (f64, f64) {
    let mu = p[0].value();
    (mu, mu * p[0].complement() / (1.0 + p[1].value()))
}

fn beta_draw(p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
    let phi = p[1].value();
    rng.beta(p[0].value() * phi, p[0].complement() * phi)
}

fn beta_start(s: &Summary) -> (f64, f64) {
    let mu = s.mean.clamp(0.02, 0.98);
    (mu, (mu * (1.0 - mu) / (0.7 * s.variance) - 1.0).max(0.2))
}

impl Density for Beta {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        ln_beta(row.y, &p[0], &p[1])
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        beta_cdf(row.y, p)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        beta_moments(p)
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        beta_draw(p, rng)
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        let (mu, phi) = beta_start(s);
        [mu, phi, 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::OpenUnit
    }
}

/// Ordered beta (Kubinec 2023): one location for the beta part and for the probabilities of 0 and 1, with cutpoints
/// c0 < c1 on its scale: P(0) = F(c0 - eta), P(1) = 1 - F(c1 - eta).
#[derive(Clone, Copy)]
pub struct OrderedBeta;

/// Log probabilities of 0, of the inside and of 1.
fn ordered_parts<S: Scalar>(p: &[Par<S>; 4]) -> [S; 3] {
    let (eta, f) = (p[0].eta, p[0].link);
    let (a, b) = (p[2].value() - eta, p[3].value() - eta);
    if !(b.value() > a.value()) {
        return [S::constant(f64::NAN); 3];
    }
    [f.ln_cdf(a), f.ln_interval(a, b), f.ln_survival(b)]
}

/// log F and log (1 - F) of a mixture of 0, a beta and 1.
fn mixture_cdf<S: Scalar>(y: f64, parts: [S; 3], p: &[Par<S>; 4]) -> (S, S) {
    if y < 0.0 {
        return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
    }
    if y >= 1.0 {
        return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
    }
    let (f, s) = beta_cdf(y, p);
    (parts[0].ln_add_exp(parts[1] + f), parts[2].ln_add_exp(parts[1] + s))
}

fn mixture_moments(parts: [f64; 3], p: &[Par<f64>; 4]) -> (f64, f64) {
    let (m, v) = beta_moments(p);
    let (inside, one) = (parts[1].exp(), parts[2].exp());
    let mean = one + inside * m;
    (mean, one + inside * (v + m * m) - mean * mean)
}

fn mixture_draw(parts: [f64; 3], p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
    let u = rng.uniform();
    if u < parts[0].exp() {
        0.0
    } else if u < parts[0].exp() + parts[2].exp() {
        1.0
    } else {
        beta_draw(p, rng)
    }
}

impl Density for OrderedBeta {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let parts = ordered_parts(p);
        if row.y == 0.0 {
            parts[0]
        } else if row.y == 1.0 {
            parts[2]
        } else {
            parts[1] + ln_beta(row.y, &p[0], &p[1])
        }
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        mixture_cdf(row.y, ordered_parts(p), p)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        mixture_moments(ordered_parts(p), p)
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        mixture_draw(ordered_parts(p), p, rng)
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        let (mu, phi) = beta_start(s);
        let (eta, logit) = (mu.ln() - (-mu).ln_1p(), |q: f64| q.ln() - (-q).ln_1p());
        let (zero, one) = (s.zeros.clamp(0.01, 0.9), s.ones.clamp(0.01, 0.9));
        [mu, phi, eta + logit(zero), eta + logit((1.0 - one).max(zero + 0.01))]
    }

    fn legal(&self) -> Legal {
        Legal::ClosedUnit
    }
}

/// Zero-one-inflated beta: P(0 or 1) = zoi, of which a share coi is 1 (brms's parameters).
#[derive(Clone, Copy)]
pub struct ZeroOneInflatedBeta;

fn inflated_parts<S: Scalar>(p: &[Par<S>; 4]) -> [S; 3] {
    [p[2].ln() + p[3].ln_1m(), p[2].ln_1m(), p[2].ln() + p[3].ln()]
}

impl Density for ZeroOneInflatedBeta {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let parts = inflated_parts(p);
        if row.y == 0.0 {
            parts[0]
        } else if row.y == 1.0 {
            parts[2]
        } else {
            parts[1] + ln_beta(row.y, &p[0], &p[1])
        }
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        mixture_cdf(row.y, inflated_parts(p), p)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        mixture_moments(inflated_parts(p), p)
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        mixture_draw(inflated_parts(p), p, rng)
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        let (mu, phi) = beta_start(s);
        let ends = s.zeros + s.ones;
        let share = if ends > 0.0 { s.ones / ends } else { 0.5 };
        [mu, phi, ends.clamp(0.01, 0.99), share.clamp(0.02, 0.98)]
    }

    fn legal(&self) -> Legal {
        Legal::ClosedUnit
    }
}
