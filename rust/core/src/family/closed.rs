//! Hand-written derivatives for the families and links that a profile shows to matter, in plain loops over the rows.

use super::density::Row;
use super::Data;
use crate::jet::pair;
use crate::lanes;

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

    /// Told of the predictors of the rows that come next, `apart` numbers from one row to the next.
    #[inline(always)]
    fn panel(&mut self, _eta: &[f64], _apart: usize) {}

    /// What `AHEAD` asks for of the exponential of `exponent` is in `power`.
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

/// e = exp(x), log(1 + e) and 1 / (1 + e).
#[derive(Clone, Copy, Default)]
pub struct Power {
    pub e: f64,
    pub l: f64,
    pub share: f64,
}

impl Power {
    /// 1 / (1 + exp(-x)) and 1 / (1 + exp(x)), if this is of -|x|.
    #[inline(always)]
    pub fn logistic_pair(self, x: f64) -> (f64, f64) {
        let small = self.e * self.share;
        if x >= 0.0 {
            (self.share, small)
        } else {
            (small, self.share)
        }
    }
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

    /// The last value.
    #[inline(always)]
    pub fn last(&mut self) -> Option<&mut T> {
        self.value.as_mut()
    }
}

pub type Loop = fn(&Data<'_>, usize, &[f64], usize, usize, &mut [f64]);

/// Rows whose exponentials are taken at once.
const AT_ONCE: usize = 64;

/// The same of a panel of exponents.
struct Powers {
    e: [f64; AT_ONCE],
    l: [f64; AT_ONCE],
    share: [f64; AT_ONCE],
}

impl Powers {
    fn none() -> Self {
        Powers { e: [0.0; AT_ONCE], l: [0.0; AT_ONCE], share: [0.0; AT_ONCE] }
    }

    #[inline(always)]
    fn take(&mut self, ahead: Ahead, exponents: impl Iterator<Item = f64>) {
        if ahead == Ahead::Nothing {
            return;
        }
        self.e.iter_mut().zip(exponents).for_each(|(e, x)| *e = x);
        self.e.iter_mut().for_each(|e| *e = lanes::exp(*e));
        if ahead == Ahead::ExpAndLn1p {
            self.l.iter_mut().zip(&self.e).for_each(|(l, e)| *l = lanes::ln_1p_unit(*e));
            self.share.iter_mut().zip(&self.e).for_each(|(s, e)| *s = 1.0 / (1.0 + e));
        }
    }

    #[inline(always)]
    fn at(&self, i: usize) -> Power {
        Power { e: self.e[i], l: self.l[i], share: self.share[i] }
    }
}

/// All rows in closed form.
pub fn rows<C: Closed>(data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
    let (mut c, mut powers) = (C::default(), Powers::none());
    let panels = eta.chunks(AT_ONCE * C::K).zip(out.chunks_mut(AT_ONCE * stride));
    for (first, (eta, out)) in (from..).step_by(AT_ONCE).zip(panels) {
        c.panel(eta, C::K);
        powers.take(C::AHEAD, eta.chunks_exact(C::K).map(C::exponent));
        for (i, (eta, out)) in eta.chunks_exact(C::K).zip(out.chunks_exact_mut(stride)).enumerate() {
            c.row(&data.row(first + i), eta, powers.at(i), order, out);
        }
    }
}

/// Most derivatives of a count without zero inflation: those of two predictors up to the third.
const PLAIN: usize = 10;

/// All rows of a count with zero inflation under a logit link, in closed form. With t = log f(0) - zeta and
/// w = 1 / (1 + exp(-t)),
///     y = 0:  zeta + softplus(t) - softplus(zeta),      y > 0:  log f(y) - softplus(zeta),
/// and the second is the first with w = 1.
pub fn inflated<C: Closed>(data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
    let (m, k) = (C::K, C::K + 1);
    let (mut c, mut powers, mut zeros, mut mixed) = (C::default(), Powers::none(), Powers::none(), Powers::none());
    let mut base = [[0.0; PLAIN]; AT_ONCE];
    let panels = eta.chunks(AT_ONCE * k).zip(out.chunks_mut(AT_ONCE * stride));
    for (first, (eta, out)) in (from..).step_by(AT_ONCE).zip(panels) {
        c.panel(eta, k);
        powers.take(C::AHEAD, eta.chunks_exact(k).map(|eta| C::exponent(&eta[..m])));
        for (i, (eta, base)) in eta.chunks_exact(k).zip(&mut base).enumerate() {
            c.row(&data.row(first + i), &eta[..m], powers.at(i), order, base);
        }
        let distances = eta.chunks_exact(k).zip(&base).map(|(eta, b)| -(b[0] - eta[m]).abs());
        zeros.take(Ahead::ExpAndLn1p, eta.chunks_exact(k).map(|eta| -eta[m].abs()));
        mixed.take(Ahead::ExpAndLn1p, distances);
        for (i, (eta, out)) in eta.chunks_exact(k).zip(out.chunks_exact_mut(stride)).enumerate() {
            let positive = data.row(first + i).y > 0.0;
            with_zero(m, &base[i], positive, eta[m], (zeros.at(i), mixed.at(i)), order, out);
        }
    }
}

/// One row with zero inflation from the derivatives `b` in the `m` predictors of the count, and the powers of -|zeta| and
/// -|t|.
#[inline(always)]
fn with_zero(
    m: usize,
    b: &[f64; PLAIN],
    positive: bool,
    zeta: f64,
    (zero, mixed): (Power, Power),
    order: usize,
    out: &mut [f64],
) {
    let (t, soft) = (b[0] - zeta, zeta.max(0.0) + zero.l);
    let (p, q) = zero.logistic_pair(zeta);
    let (w, rest) = if positive { (1.0, 0.0) } else { mixed.logistic_pair(t) };
    out[0] = if positive { b[0] - soft } else { zeta + (t.max(0.0) + mixed.l) - soft };
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
