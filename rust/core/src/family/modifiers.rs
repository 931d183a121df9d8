//! What composes with a family instead of being one: truncation at zero, zero inflation, hurdles, censoring.

use super::density::{Density, Row};
use super::link::Par;
use crate::jet::Scalar;

/// Truncation to y > 0 and the probability of an extra zero, if there is one.
///
/// Without truncation the extra zero is mixed in (zero inflation); with truncation it is the only zero (hurdle). A
/// continuous positive response has no zeros of its own, so for it both are the same.
#[derive(Clone, Copy)]
pub struct Zeros<S> {
    pub truncated: bool,
    pub extra: Option<Par<S>>,
}

fn impossible<S: Scalar>() -> S {
    S::constant(f64::NEG_INFINITY)
}

/// log (1 - f(0)).
fn ln_positive<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4]) -> S {
    d.ln_density(&Row { y: 0.0, ..*row }, p).ln_1m_exp()
}

/// log f(y) after truncation and extra zeros.
#[inline]
pub fn ln_density<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4], zeros: &Zeros<S>) -> S {
    let Some(extra) = zeros.extra.as_ref() else {
        return if zeros.truncated { truncated(d, row, p) } else { d.ln_density(row, p) };
    };
    if row.y > 0.0 {
        let positive = if zeros.truncated { truncated(d, row, p) } else { d.ln_density(row, p) };
        return extra.ln_1m() + positive;
    }
    if zeros.truncated || !d.legal().allows(row, 0) {
        return extra.ln();
    }
    extra.ln().ln_add_exp(extra.ln_1m() + d.ln_density(row, p))
}

fn truncated<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4]) -> S {
    if row.y <= 0.0 {
        return impossible();
    }
    d.ln_density(row, p) - ln_positive(d, row, p)
}

/// log F(y) and log (1 - F(y)) after truncation and extra zeros.
pub fn ln_cdf<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4], zeros: &Zeros<S>) -> (S, S) {
    if zeros.extra.is_some() && row.y < 0.0 {
        return (impossible(), S::constant(0.0));
    }
    let (mut f, mut s) =
        if d.legal().is_discrete() && row.y < 0.0 { (impossible(), S::constant(0.0)) } else { d.ln_cdf(row, p) };
    if zeros.truncated {
        if row.y < 1.0 {
            (f, s) = (impossible(), S::constant(0.0));
        } else {
            let positive = ln_positive(d, row, p);
            f = f.ln_sub_exp(d.ln_density(&Row { y: 0.0, ..*row }, p)) - positive;
            s = s - positive;
        }
    }
    if let Some(extra) = zeros.extra.as_ref() {
        f = extra.ln().ln_add_exp(extra.ln_1m() + f);
        s = extra.ln_1m() + s;
    }
    (f, s)
}

/// Contribution of a censored row: code -1 y is an upper bound, 1 a lower bound, 2 the response lies in (y, upper].
pub fn ln_censored<D: Density, S: Scalar>(
    d: &D,
    row: &Row,
    p: &[Par<S>; 4],
    zeros: &Zeros<S>,
    code: i8,
    upper: f64,
) -> S {
    let (f, s) = ln_cdf(d, row, p, zeros);
    match code {
        -1 => f,
        1 => s,
        _ => {
            let (g, t) = ln_cdf(d, &Row { y: upper, ..*row }, p, zeros);
            if f.value() > -std::f64::consts::LN_2 {
                s.ln_sub_exp(t)
            } else {
                g.ln_sub_exp(f)
            }
        }
    }
}

/// Mean and variance after truncation and extra zeros.
pub fn moments<D: Density>(d: &D, row: &Row, p: &[Par<f64>; 4], zeros: &Zeros<f64>) -> (f64, f64) {
    let (mut m, v) = d.moments(row, p);
    let mut second = v + m * m;
    if !zeros.truncated && zeros.extra.is_none() {
        return (m, v);
    }
    if zeros.truncated {
        let positive = ln_positive(d, row, p).exp();
        m /= positive;
        second /= positive;
    }
    if let Some(extra) = zeros.extra.as_ref() {
        let rest = extra.complement();
        m *= rest;
        second *= rest;
    }
    (m, second - m * m)
}

/// One draw after truncation and extra zeros.
pub fn draw<D: Density>(d: &D, row: &Row, p: &[Par<f64>; 4], zeros: &Zeros<f64>, rng: &mut super::draw::Stream) -> f64 {
    if let Some(extra) = zeros.extra.as_ref() {
        if rng.uniform() < extra.value() {
            return 0.0;
        }
    }
    if !zeros.truncated {
        return d.draw(row, p, rng);
    }
    let positive = ln_positive(d, row, p);
    if positive < -3.0 {
        return rng.count(1.0, |y| d.ln_density(&Row { y, ..*row }, p) - positive);
    }
    for _ in 0..10_000 {
        let y = d.draw(row, p, rng);
        if y > 0.0 || y.is_nan() {
            return y;
        }
    }
    f64::NAN
}
