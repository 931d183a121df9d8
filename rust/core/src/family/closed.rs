//! Hand-written derivatives for the families and links that a profile shows to matter, in plain loops over the rows.

use super::density::Row;
use super::Data;
use crate::jet::pair;
use crate::{lanes, special};

/// Derivatives of one row in closed form, written in the packing of [`crate::jet::Jet`].
pub trait Closed: Default {
    const K: usize;
    /// What `row` wants to be told.
    const AHEAD: Ahead = Ahead::Nothing;

    /// The argument of the exponential of a row.
    #[inline(always)]
    fn exponent(_eta: &[f64]) -> f64 {
        0.0
    }

    /// Another exponent, none of which is positive.
    #[inline(always)]
    fn other(_eta: &[f64]) -> Option<f64> {
        None
    }

    /// `e` is exp(exponent) and `l` log(1 + e), where they are asked for.
    fn row(&mut self, row: &Row, eta: &[f64], power: Power, order: usize, out: &mut [f64]);
}

/// What is taken of a panel of exponents at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    Nothing,
    Exp,
    /// Of exponents that are not positive.
    ExpAndLn1p,
}

/// exp(x) and log(1 + exp(x)), and the same of the other exponent.
#[derive(Clone, Copy, Default)]
pub struct Power {
    pub e: f64,
    pub l: f64,
    pub other: (f64, f64),
}

/// The last value of a function of one predictor: dispersions are mostly the same from row to row.
pub struct Memo<T> {
    key: f64,
    value: Option<T>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo { key: 0.0, value: None }
    }
}

impl<T> Memo<T> {
    #[inline(always)]
    pub fn get(&mut self, key: f64, make: impl FnOnce(f64) -> T) -> &mut T {
        if self.value.is_none() || self.key.to_bits() != key.to_bits() {
            self.key = key;
            self.value = None;
        }
        self.value.get_or_insert_with(|| make(key))
    }
}

pub type Loop = fn(&Data<'_>, usize, &[f64], usize, usize, &mut [f64]);

/// Rows whose exponentials are taken at once.
const AT_ONCE: usize = 64;

/// All rows in closed form.
pub fn rows<C: Closed>(data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
    let mut c = C::default();
    let (mut e, mut l) = ([0.0; AT_ONCE], [0.0; AT_ONCE]);
    let (mut e2, mut l2) = ([0.0; AT_ONCE], [0.0; AT_ONCE]);
    let panels = eta.chunks(AT_ONCE * C::K).zip(out.chunks_mut(AT_ONCE * stride));
    for (first, (eta, out)) in (from..).step_by(AT_ONCE).zip(panels) {
        if C::AHEAD != Ahead::Nothing {
            e.iter_mut().zip(eta.chunks_exact(C::K)).for_each(|(e, eta)| *e = C::exponent(eta));
            e.iter_mut().for_each(|e| *e = lanes::exp(*e));
        }
        if C::AHEAD == Ahead::ExpAndLn1p {
            l.iter_mut().zip(&e).for_each(|(l, e)| *l = lanes::ln_1p_unit(*e));
        }
        if C::other(&eta[..C::K]).is_some() {
            e2.iter_mut().zip(eta.chunks_exact(C::K)).for_each(|(e, eta)| *e = C::other(eta).unwrap_or(0.0));
            e2.iter_mut().for_each(|e| *e = lanes::exp(*e));
            l2.iter_mut().zip(&e2).for_each(|(l, e)| *l = lanes::ln_1p_unit(*e));
        }
        for (i, (eta, out)) in eta.chunks_exact(C::K).zip(out.chunks_exact_mut(stride)).enumerate() {
            c.row(&data.row(first + i), eta, Power { e: e[i], l: l[i], other: (e2[i], l2[i]) }, order, out);
        }
    }
}

/// Zero inflation with logit link over a count in closed form. With t = log f(0) - zeta and w = 1 / (1 + exp(-t)),
///     y = 0:  zeta + softplus(t) - softplus(zeta),      y > 0:  log f(y) - softplus(zeta),
/// and the second is the first with w = 1.
#[derive(Default)]
pub struct Inflated<C> {
    base: C,
}

impl<C: Closed> Closed for Inflated<C> {
    const K: usize = C::K + 1;
    const AHEAD: Ahead = C::AHEAD;

    #[inline(always)]
    fn exponent(eta: &[f64]) -> f64 {
        C::exponent(eta)
    }

    #[inline(always)]
    fn other(eta: &[f64]) -> Option<f64> {
        Some(-eta[C::K].abs())
    }

    #[inline(always)]
    fn row(&mut self, row: &Row, eta: &[f64], power: Power, order: usize, out: &mut [f64]) {
        let (m, zeta) = (C::K, eta[C::K]);
        let mut b = [0.0; 10];
        self.base.row(row, &eta[..m], power, order, &mut b);
        let (e, soft) = (power.other.0, zeta.max(0.0) + power.other.1);
        let big = 1.0 / (1.0 + e);
        let (p, q) = if zeta >= 0.0 { (big, e * big) } else { (e * big, big) };
        let (w, rest) = if row.y > 0.0 { (1.0, 0.0) } else { special::logistic_pair(b[0] - zeta) };
        out[0] = if row.y > 0.0 { b[0] - soft } else { zeta + special::softplus(b[0] - zeta) - soft };
        if order < 2 {
            return;
        }
        let f2 = w * rest;
        let (g, h) = (&b[1..1 + m], &b[1 + m..1 + m + m * (m + 1) / 2]);
        let mut at = 1;
        let mut put = |v: f64| {
            out[at] = v;
            at += 1;
        };
        (0..m).for_each(|a| put(w * g[a]));
        put(rest - p);
        for a in 0..m {
            (a..m).for_each(|c| put(w * h[pair(m, a, c)] + f2 * g[a] * g[c]));
            put(-f2 * g[a]);
        }
        put(f2 - p * q);
        if order < 3 {
            return;
        }
        let f3 = f2 * (rest - w);
        let mut third = b[1 + m + m * (m + 1) / 2..].iter();
        for a in 0..m {
            for c in a..m {
                for d in c..m {
                    let cross = g[a] * h[pair(m, c, d)] + g[c] * h[pair(m, a, d)] + g[d] * h[pair(m, a, c)];
                    let l = third.next().copied().unwrap_or(0.0);
                    put(w * l + f2 * cross + f3 * g[a] * g[c] * g[d]);
                }
                put(-(f2 * h[pair(m, a, c)] + f3 * g[a] * g[c]));
            }
            put(f3 * g[a]);
        }
        put(-f3 - p * q * (q - p));
    }
}
