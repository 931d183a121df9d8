//! What composes with a family instead of being one: truncation, zero inflation, hurdles, censoring.

use super::bounds::{self, Inside};
use super::density::{Density, Row};
use super::link::Par;
use crate::jet::Scalar;

/// Truncation to y > 0, the probability of an extra zero, if there is one, and the bounds of what can be observed.
///
/// Without truncation the extra zero is mixed in (zero inflation); with truncation it is the only zero (hurdle). A
/// continuous positive response has no zeros of its own, so for it both are the same.
#[derive(Clone, Copy)]
pub struct Modified<S> {
    pub truncated: bool,
    pub extra: Option<Par<S>>,
    /// The rest is truncated to what lies in here.
    pub inside: Option<Inside>,
}

impl<S: Scalar> Modified<S> {
    /// The same without bounds.
    fn unbounded(&self) -> Self {
        Modified { inside: None, ..*self }
    }
}

pub(super) fn impossible<S: Scalar>() -> S {
    S::constant(f64::NEG_INFINITY)
}

/// log (1 - f(0)).
fn ln_positive<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4]) -> S {
    d.ln_density(&Row { y: 0.0, ..*row }, p).ln_1m_exp()
}

/// log f(y) after truncation and extra how.
#[inline]
pub fn ln_density<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4], how: &Modified<S>) -> S {
    if let Some(inside) = how.inside {
        return bounds::ln_density(d, row, p, &how.unbounded(), &inside);
    }
    let Some(extra) = how.extra.as_ref() else {
        return if how.truncated { truncated(d, row, p) } else { d.ln_density(row, p) };
    };
    if row.y > 0.0 {
        let positive = if how.truncated { truncated(d, row, p) } else { d.ln_density(row, p) };
        return extra.ln_1m() + positive;
    }
    if how.truncated || !d.legal().allows(row, 0) {
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

/// log F(y) and log (1 - F(y)) after truncation and extra how.
pub fn ln_cdf<D: Density, S: Scalar>(d: &D, row: &Row, p: &[Par<S>; 4], how: &Modified<S>) -> (S, S) {
    if let Some(inside) = how.inside {
        return bounds::ln_cdf(d, row, p, &how.unbounded(), &inside);
    }
    if how.extra.is_some() && row.y < 0.0 {
        return (impossible(), S::constant(0.0));
    }
    let (mut f, mut s) =
        if d.legal().is_discrete() && row.y < 0.0 { (impossible(), S::constant(0.0)) } else { d.ln_cdf(row, p) };
    if how.truncated {
        if row.y < 1.0 {
            (f, s) = (impossible(), S::constant(0.0));
        } else {
            let positive = ln_positive(d, row, p);
            f = f.ln_sub_exp(d.ln_density(&Row { y: 0.0, ..*row }, p)) - positive;
            s = s - positive;
        }
    }
    if let Some(extra) = how.extra.as_ref() {
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
    how: &Modified<S>,
    code: i8,
    upper: f64,
) -> S {
    let ends = match code {
        -1 => (f64::NEG_INFINITY, row.y),
        1 => (row.y, f64::INFINITY),
        _ => (row.y, upper),
    };
    ln_between(d, row, p, how, ends)
}

/// log P(a < Y <= b), by the tail that both ends are in; they may be infinite.
pub fn ln_between<D: Density, S: Scalar>(
    d: &D,
    row: &Row,
    p: &[Par<S>; 4],
    how: &Modified<S>,
    (a, b): (f64, f64),
) -> S {
    let at = |y: f64| ln_cdf(d, &Row { y, ..*row }, p, how);
    match (a == f64::NEG_INFINITY, b == f64::INFINITY) {
        (true, true) => return S::constant(0.0),
        (true, false) => return at(b).0,
        (false, true) => return at(a).1,
        _ => {}
    }
    let ((f, s), (g, t)) = (at(a), at(b));
    if f.value() > -std::f64::consts::LN_2 {
        s.ln_sub_exp(t)
    } else {
        g.ln_sub_exp(f)
    }
}

/// Logarithm of the probability of a count above 0 below which moments are summed.
const RARE: f64 = -3.0;

/// Mean and variance after truncation and extra zeros.
pub fn moments<D: Density>(d: &D, row: &Row, p: &[Par<f64>; 4], how: &Modified<f64>) -> (f64, f64) {
    if let Some(inside) = how.inside {
        return bounds::moments(d, row, p, &inside);
    }
    let (mut m, v) = d.moments(row, p);
    let mut second = v + m * m;
    if !how.truncated && how.extra.is_none() {
        return (m, v);
    }
    if how.truncated {
        let positive = ln_positive(d, row, p);
        if positive < RARE {
            // A mean next to 0 says little of the counts above it where it is not quite that of the density.
            let (mean, variance) = bounds::moments(d, row, p, &bounds::Inside { least: 1.0, most: f64::INFINITY });
            (m, second) = (mean, variance + mean * mean);
        } else {
            m /= positive.exp();
            second /= positive.exp();
        }
    }
    if let Some(extra) = how.extra.as_ref() {
        let rest = extra.complement();
        m *= rest;
        second *= rest;
    }
    (m, second - m * m)
}

/// One draw after truncation and extra zeros.
pub fn draw<D: Density>(
    d: &D,
    row: &Row,
    p: &[Par<f64>; 4],
    how: &Modified<f64>,
    rng: &mut super::draw::Stream,
) -> f64 {
    if let Some(inside) = how.inside {
        return bounds::draw(d, row, p, &inside, rng);
    }
    if let Some(extra) = how.extra.as_ref() {
        if rng.uniform() < extra.value() {
            return 0.0;
        }
    }
    if !how.truncated {
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
