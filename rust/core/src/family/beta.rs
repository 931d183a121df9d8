//! Responses on the unit interval: beta, ordered beta, zero-one-inflated beta.
//!
//! Beta with mean mu and precision phi (Ferrari & Cribari-Neto 2004), written with the remainder of Stirling's formula
//! instead of log-gammas, so that a large phi does not cancel:
//!     log f = -phi KL(mu, y) + log(phi mu (1-mu))/2 - log(2 pi)/2 - log y(1-y)
//!             + binet(phi) - binet(a) - binet(b),    a = mu phi, b = (1 - mu) phi,
//! KL the divergence of a Bernoulli variable of mean y from one of mean mu.

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::{Scalar, Univariate};
use crate::special::{self, HALF_LN_2PI};

#[derive(Clone, Copy)]
pub struct Beta;

fn binet<S: Scalar>(ln_x: S) -> S {
    ln_x.compose(special::binet_jet(ln_x.value(), S::ORDER))
}

/// Difference of logits up to which the divergence is computed from it.
const NEAR: f64 = 0.5;

fn ln_beta<S: Scalar>(y: f64, mean: &Par<S>, precision: &Par<S>) -> S {
    let (lm, lc, lp) = (mean.ln(), mean.ln_1m(), precision.ln());
    let (la, lb) = (lm + lp, lc + lp);
    let (ly, lz) = (y.ln(), (-y).ln_1p());
    let apart = lm - lc - (ly - lz);
    let kernel = if apart.value().abs() < NEAR {
        lp.exp() * apart.compose(minus_divergence(y, apart.value()))
    } else {
        la.exp() * (-lm + ly) + lb.exp() * (-lc + lz)
    };
    kernel + (lm + lb) * 0.5 + binet(lp) - binet(la) - binet(lb) - (HALF_LN_2PI + ly + lz)
}

/// -KL(mu, y) of means whose logits differ by d = logit mu - logit y, and its derivatives in d. With K the cumulant function
/// of a Bernoulli variable of mean y, mu = K'(d) and KL = d K'(d) - K(d): of the order of d^2, where the two terms of the
/// definition are of the order of d.
fn minus_divergence(y: f64, d: f64) -> Univariate {
    let odds = y * d.exp_m1();
    let mu = y * d.exp() / (1.0 + odds);
    let k2 = mu * (1.0 - mu);
    let (k3, k4) = (k2 * (1.0 - 2.0 * mu), k2 * (1.0 - 6.0 * k2));
    let k5 = k3 * (1.0 - 12.0 * k2);
    [odds.ln_1p() - d * mu, -d * k2, -k2 - d * k3, -2.0 * k3 - d * k4, -3.0 * k4 - d * k5]
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

/// Log probabilities of 0, of the inside and of 1, beside a beta.
pub trait Ends: Copy {
    fn parts<S: Scalar>(self, p: &[Par<S>; 4]) -> [S; 3];
    /// Starting values of the third and fourth parameter.
    fn start(self, s: &Summary, mu: f64) -> [f64; 2];
}

/// Ordered beta (Kubinec 2023): one location for the beta part and for the probabilities of 0 and 1, with cutpoints
/// c0 < c1 on its scale: P(0) = F(c0 - eta), P(1) = 1 - F(c1 - eta).
#[derive(Clone, Copy)]
pub struct Ordered;

/// Zero-one-inflated beta: P(0 or 1) = zoi, of which a share coi is 1 (brms's parameters).
#[derive(Clone, Copy)]
pub struct Inflated;

impl Ends for Ordered {
    fn parts<S: Scalar>(self, p: &[Par<S>; 4]) -> [S; 3] {
        let (eta, f) = (p[0].eta, p[0].link);
        let (a, b) = (p[2].value() - eta, p[3].value() - eta);
        if !(b.value() > a.value()) {
            return [S::constant(f64::NAN); 3];
        }
        [f.ln_cdf(a), f.ln_interval(a, b), f.ln_survival(b)]
    }

    fn start(self, s: &Summary, mu: f64) -> [f64; 2] {
        let (eta, logit) = (mu.ln() - (-mu).ln_1p(), |q: f64| q.ln() - (-q).ln_1p());
        let (zero, one) = (s.zeros.clamp(0.01, 0.9), s.ones.clamp(0.01, 0.9));
        [eta + logit(zero), eta + logit((1.0 - one).max(zero + 0.01))]
    }
}

impl Ends for Inflated {
    fn parts<S: Scalar>(self, p: &[Par<S>; 4]) -> [S; 3] {
        [p[2].ln() + p[3].ln_1m(), p[2].ln_1m(), p[2].ln() + p[3].ln()]
    }

    fn start(self, s: &Summary, _: f64) -> [f64; 2] {
        let ends = s.zeros + s.ones;
        let share = if ends > 0.0 { s.ones / ends } else { 0.5 };
        [ends.clamp(0.01, 0.99), share.clamp(0.02, 0.98)]
    }
}

/// A beta with lumps at 0 and 1.
#[derive(Clone, Copy)]
pub struct WithEnds<E>(E);

pub const ORDERED: WithEnds<Ordered> = WithEnds(Ordered);
pub const ZERO_ONE_INFLATED: WithEnds<Inflated> = WithEnds(Inflated);

impl<E: Ends> Density for WithEnds<E> {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let parts = self.0.parts(p);
        if row.y == 0.0 {
            parts[0]
        } else if row.y == 1.0 {
            parts[2]
        } else {
            parts[1] + ln_beta(row.y, &p[0], &p[1])
        }
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        let parts = self.0.parts(p);
        if row.y < 0.0 {
            return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
        }
        if row.y >= 1.0 {
            return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
        }
        let (f, s) = beta_cdf(row.y, p);
        (parts[0].ln_add_exp(parts[1] + f), parts[2].ln_add_exp(parts[1] + s))
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (parts, (m, v)) = (self.0.parts(p), beta_moments(p));
        let (inside, one) = (parts[1].exp(), parts[2].exp());
        let mean = one + inside * m;
        (mean, one + inside * (v + m * m) - mean * mean)
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let parts = self.0.parts(p);
        let u = rng.uniform();
        if u < parts[0].exp() {
            0.0
        } else if u < parts[0].exp() + parts[2].exp() {
            1.0
        } else {
            beta_draw(p, rng)
        }
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        let (mu, phi) = beta_start(s);
        let [a, b] = self.0.start(s, mu);
        [mu, phi, a, b]
    }

    fn legal(&self) -> Legal {
        Legal::ClosedUnit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the power series of K: -KL = -sum (n - 1) / n! kappa_n d^n with the cumulants kappa of a Bernoulli variable.
    #[test]
    fn divergence_of_means_that_hardly_differ() {
        for y in [1e-6, 0.3, 0.5, 0.97] {
            let (k2, m) = (y * (1.0 - y), 1.0 - 2.0 * y);
            let (k3, k4) = (k2 * m, k2 * (1.0 - 6.0 * k2));
            for d in [1e-7, -1e-5, 1e-3] {
                let series = -d * d * (k2 / 2.0 + d * k3 / 3.0 + d * d * k4 / 8.0);
                let [value, slope, ..] = minus_divergence(y, d);
                // The terms have the rounding error of y d; the series is short by d^5.
                let rounding = 4.0 * f64::EPSILON * y * d.abs() + 0.1 * y * d.abs().powi(5);
                assert!((value - series).abs() < rounding, "{y} {d}: {value} {series}");
                let slope_series = -d * (k2 + d * k3 + d * d * k4 / 2.0);
                assert!((slope / slope_series - 1.0).abs() < 1e-8, "{y} {d}: {slope} {slope_series}");
            }
        }
    }

    /// Beside the logits' difference at which the other formula takes over, the two agree.
    #[test]
    fn divergence_is_of_one_piece() {
        for (y, d) in [(0.2, 0.5), (0.9, -0.5), (1e-4, 0.5)] {
            let mu = y * f64::exp(d) / (1.0 + y * d.exp_m1());
            let plain = mu * (y / mu).ln() + (1.0 - mu) * ((1.0 - y) / (1.0 - mu)).ln();
            // Terms of the order of y, eps each.
            assert!((minus_divergence(y, d)[0] - plain).abs() < 1e-15, "{y} {d}");
        }
    }
}
