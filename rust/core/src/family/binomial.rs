//! Successes out of trials: binomial and beta-binomial. The response is the proportion of successes.

use super::closed::{Ahead, Closed, Power};
use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::Scalar;
use crate::special;

#[derive(Clone, Copy)]
pub struct Binomial;

/// Probability of success and its complement, as reported where the response is randomised (Warner 1965).
fn chance<S: Scalar>(row: &Row, mu: &Par<S>) -> (S, S) {
    match row.randomised {
        None => (mu.value(), mu.complement()),
        // 1 - c - d is 0 up to rounding in many designs.
        Some((c, d)) => (mu.value() * d + c, mu.complement() * d + (1.0 - c - d).max(0.0)),
    }
}

/// k log mu + (n - k) log (1 - mu), terms of weight zero left out.
#[inline]
fn ln_kernel<S: Scalar>(k: f64, n: f64, mu: &Par<S>) -> S {
    if k == 0.0 {
        mu.ln_1m() * n
    } else if k == n {
        mu.ln() * n
    } else {
        mu.ln() * k + mu.ln_1m() * (n - k)
    }
}

impl Density for Binomial {
    #[inline]
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (k, n) = (row.successes(), row.trials);
        if row.randomised.is_some() {
            let (yes, no) = chance(row, &p[0]);
            let part = |m: f64, v: S| if m == 0.0 { S::constant(0.0) } else { v.ln() * m };
            return part(k, yes) + part(n - k, no) + special::ln_choose(n, k);
        }
        ln_kernel(k, n, &p[0]) + special::ln_choose(n, k)
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        let (n, k) = (row.trials, (row.y * row.trials + 1e-9).floor());
        if k >= n {
            return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
        }
        let (a, b) = (S::constant(n - k), S::constant(k + 1.0));
        let (yes, no) = chance(row, &p[0]);
        special::ln_incomplete_beta(a, b, no, yes)
    }

    fn moments(&self, row: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (yes, no) = chance(row, &p[0]);
        (yes, yes * no / row.trials)
    }

    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        rng.binomial(row.trials, chance(row, &p[0]).0) / row.trials
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean.clamp(0.02, 0.98), 0.0, 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Proportion
    }
}

/// Binomial with logit link.
#[derive(Default)]
pub struct BinomialLogit;

impl Closed for BinomialLogit {
    const K: usize = 1;
    const AHEAD: Ahead = Ahead::ExpAndLn1p;

    #[inline(always)]
    fn exponent(eta: &[f64]) -> f64 {
        -eta[0].abs()
    }

    #[inline(always)]
    fn row(&mut self, row: &Row, eta: &[f64], power: Power, order: usize, out: &mut [f64]) {
        let (x, n) = (eta[0], row.trials);
        let (k, choose) = if n == 1.0 {
            (row.y, 0.0)
        } else {
            let k = row.successes();
            (k, special::ln_choose(n, k))
        };
        let (p, q) = power.logistic_pair(x);
        // The smaller of the two tails is exact: k x - n softplus(x) would cancel.
        let tail = if x >= 0.0 { (k - n) * x } else { k * x };
        out[0] = tail - n * power.l + choose;
        if order >= 2 {
            let d = n * p * q;
            out[1] = k * q - (n - k) * p;
            out[2] = -d;
            if order >= 3 {
                out[3] = -d * (q - p);
            }
        }
    }
}

/// Beta-binomial: mean mu and precision phi = alpha + beta, variance mu (1 - mu) (phi + n) / (n (phi + 1)).
#[derive(Clone, Copy)]
pub struct BetaBinomial;

/// sum_{j < m} log(1 + j/a) for log a.
fn rising<S: Scalar>(ln_a: S, m: f64) -> S {
    if m <= 1.0 {
        return S::constant(0.0);
    }
    ln_a.compose(special::ln_rising_jet(ln_a.value(), m, S::ORDER))
}

/// lgamma(a + m) - lgamma(a) for log a < 0.
fn pochhammer<S: Scalar>(ln_a: S, m: f64) -> S {
    if m == 0.0 {
        return S::constant(0.0);
    }
    ln_a.compose(special::ln_pochhammer_jet(ln_a.value(), m, S::ORDER))
}

impl Density for BetaBinomial {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (n, k) = (row.trials, row.successes());
        let ln_phi = p[1].ln();
        if n > 1.0 && ln_phi.value() < 0.0 {
            // Every argument is below 1: the multiples of log phi would cancel.
            let (a, b) = (p[0].ln() + ln_phi, p[0].ln_1m() + ln_phi);
            return pochhammer(a, k) + pochhammer(b, n - k) - pochhammer(ln_phi, n) + special::ln_choose(n, k);
        }
        let kernel = ln_kernel(k, n, &p[0]) + special::ln_choose(n, k);
        if n <= 1.0 {
            return kernel;
        }
        kernel + rising(p[0].ln() + ln_phi, k) + rising(p[0].ln_1m() + ln_phi, n - k) - rising(ln_phi, n)
    }

    fn moments(&self, row: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (mu, phi, n) = (p[0].value(), p[1].value(), row.trials);
        (mu, mu * p[0].complement() / n * (1.0 + (n - 1.0) / (phi + 1.0)))
    }

    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let phi = p[1].value();
        let x = rng.beta(p[0].value() * phi, p[0].complement() * phi);
        rng.binomial(row.trials, x) / row.trials
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        let mu = s.mean.clamp(0.02, 0.98);
        let rho = (0.5 * s.variance / (mu * (1.0 - mu))).clamp(0.02, 0.5);
        [mu, 1.0 / rho - 1.0, 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Proportion
    }
}
