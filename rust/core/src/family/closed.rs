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

/// One number for each row of a panel.
pub type Column = [f64; AT_ONCE];

/// Most derivatives of a count without zero inflation: those of two predictors up to the third.
pub const PLAIN: usize = 10;
/// And with it.
const INFLATED: usize = 20;

/// The same of a panel of at most `AT_ONCE` rows, column by column.
pub trait Columns: Default {
    const K: usize;

    /// Derivatives of the rows `first..first + n` into the first n places of as many columns as the order asks for.
    fn fill(
        &mut self,
        data: &Data<'_>,
        first: usize,
        n: usize,
        eta: &[Column; 2],
        order: usize,
        out: &mut [Column; PLAIN],
    );
}

impl<C: Closed> Columns for C {
    const K: usize = C::K;

    #[inline(always)]
    fn fill(
        &mut self,
        data: &Data<'_>,
        first: usize,
        n: usize,
        eta: &[Column; 2],
        order: usize,
        out: &mut [Column; PLAIN],
    ) {
        let mut powers = Powers::none();
        powers.take(C::AHEAD, (0..n).map(|i| C::exponent(&[eta[0][i], eta[1][i]])));
        for i in 0..n {
            let mut row = [0.0; PLAIN];
            self.row(&data.row(first + i), &[eta[0][i], eta[1][i]], powers.at(i), order, &mut row);
            out.iter_mut().zip(row).for_each(|(out, v)| out[i] = v);
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
}

pub type Loop = fn(&Data<'_>, usize, &[f64], usize, usize, &mut [f64]);

/// Rows whose exponentials are taken at once.
pub const AT_ONCE: usize = 64;

/// The same of a panel of exponents.
pub struct Powers {
    e: Column,
    l: Column,
    share: Column,
}

impl Powers {
    pub fn none() -> Self {
        Powers { e: [0.0; AT_ONCE], l: [0.0; AT_ONCE], share: [0.0; AT_ONCE] }
    }

    #[inline(always)]
    pub fn take(&mut self, ahead: Ahead, exponents: impl Iterator<Item = f64>) {
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
    pub fn at(&self, i: usize) -> Power {
        Power { e: self.e[i], l: self.l[i], share: self.share[i] }
    }
}

/// All rows in closed form.
pub fn rows<C: Closed>(data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
    let (mut c, mut powers) = (C::default(), Powers::none());
    let panels = eta.chunks(AT_ONCE * C::K).zip(out.chunks_mut(AT_ONCE * stride));
    for (first, (eta, out)) in (from..).step_by(AT_ONCE).zip(panels) {
        powers.take(C::AHEAD, eta.chunks_exact(C::K).map(C::exponent));
        for (i, (eta, out)) in eta.chunks_exact(C::K).zip(out.chunks_exact_mut(stride)).enumerate() {
            c.row(&data.row(first + i), eta, powers.at(i), order, out);
        }
    }
}

/// The predictors of a panel by column.
#[inline(always)]
fn turned(eta: &[f64], k: usize, column: usize, out: &mut Column) {
    out.iter_mut().zip(eta[column..].iter().step_by(k)).for_each(|(o, eta)| *o = *eta);
}

/// What stands in columns, row by row.
#[inline(always)]
fn put_rows(columns: &[Column], stride: usize, out: &mut [f64]) {
    for (i, row) in out.chunks_exact_mut(stride).enumerate() {
        row.iter_mut().zip(columns).for_each(|(o, column)| *o = column[i]);
    }
}

/// All rows in closed form, by column.
pub fn columns<C: Columns>(data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
    let (mut c, mut by_column, mut base) = (C::default(), [[0.0; AT_ONCE]; 2], [[0.0; AT_ONCE]; PLAIN]);
    let panels = eta.chunks(AT_ONCE * C::K).zip(out.chunks_mut(AT_ONCE * stride));
    for (first, (eta, out)) in (from..).step_by(AT_ONCE).zip(panels) {
        by_column.iter_mut().take(C::K).enumerate().for_each(|(a, column)| turned(eta, C::K, a, column));
        c.fill(data, first, eta.len() / C::K, &by_column, order, &mut base);
        put_rows(&base, stride, out);
    }
}

/// All rows of a count with zero inflation under a logit link, in closed form. With t = log f(0) - zeta and
/// w = 1 / (1 + exp(-t)),
///     y = 0:  zeta + softplus(t) - softplus(zeta),      y > 0:  log f(y) - softplus(zeta),
/// and the second is the first with w = 1.
pub fn inflated<C: Columns>(data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
    let (m, k) = (C::K, C::K + 1);
    let (mut c, mut by_column, mut zeta) = (C::default(), [[0.0; AT_ONCE]; 2], [0.0; AT_ONCE]);
    let (mut base, mut all) = ([[0.0; AT_ONCE]; PLAIN], [[0.0; AT_ONCE]; INFLATED]);
    let (mut zero, mut mixed) = (Powers::none(), Powers::none());
    let panels = eta.chunks(AT_ONCE * k).zip(out.chunks_mut(AT_ONCE * stride));
    for (first, (eta, out)) in (from..).step_by(AT_ONCE).zip(panels) {
        let n = eta.len() / k;
        by_column.iter_mut().take(m).enumerate().for_each(|(a, column)| turned(eta, k, a, column));
        turned(eta, k, m, &mut zeta);
        c.fill(data, first, n, &by_column, order, &mut base);
        zero.take(Ahead::ExpAndLn1p, zeta[..n].iter().map(|zeta| -zeta.abs()));
        mixed.take(Ahead::ExpAndLn1p, zeta[..n].iter().zip(&base[0]).map(|(zeta, b)| -(b - zeta).abs()));
        let (y, powers) = (&data.y[first..first + n], (&zero, &mixed));
        if m == 1 {
            with_zero::<1>(y, &base, &zeta, powers, order, &mut all);
        } else {
            with_zero::<2>(y, &base, &zeta, powers, order, &mut all);
        }
        put_rows(&all, stride, out);
    }
}

/// Rows with zero inflation from the derivatives `base` in the M predictors of the count, and the powers of -|zeta| and
/// -|t|.
#[inline(never)]
fn with_zero<const M: usize>(
    y: &[f64],
    base: &[Column; PLAIN],
    zeta: &Column,
    (zero, mixed): (&Powers, &Powers),
    order: usize,
    out: &mut [Column; INFLATED],
) {
    // Without branches: the compiler takes four rows at once.
    for (i, &y) in y.iter().enumerate().take(AT_ONCE) {
        let (zeta, value, zero, mixed) = (zeta[i], base[0][i], zero.at(i), mixed.at(i));
        let t = value - zeta;
        let soft = zeta.max(0.0) + zero.l;
        let either = zeta + (t.max(0.0) + mixed.l) - soft;
        out[0][i] = if y > 0.0 { value - soft } else { either };
    }
    if order < 2 {
        return;
    }
    let second = 1 + M;
    let third = second + M * (M + 1) / 2;
    for (i, &y) in y.iter().enumerate().take(AT_ONCE) {
        let (zeta, value, zero, mixed) = (zeta[i], base[0][i], zero.at(i), mixed.at(i));
        let (p, q) = zero.logistic_pair(zeta);
        let (share, other) = mixed.logistic_pair(value - zeta);
        let w = if y > 0.0 { 1.0 } else { share };
        let rest = if y > 0.0 { 0.0 } else { other };
        let (f2, pq) = (w * rest, p * q);
        let f3 = f2 * (rest - w);
        let g: [f64; M] = std::array::from_fn(|a| base[1 + a][i]);
        let h = |a: usize, c: usize| base[second + pair(M, a, c)][i];
        let mut at = 1;
        let mut put = |v: f64| {
            out[at][i] = v;
            at += 1;
        };
        (0..M).for_each(|a| put(w * g[a]));
        put(rest - p);
        for a in 0..M {
            (a..M).for_each(|c| put(w * h(a, c) + f2 * g[a] * g[c]));
            put(-f2 * g[a]);
        }
        put(f2 - pq);
        let mut next = third;
        for a in 0..M {
            for c in a..M {
                for d in c..M {
                    let cross = g[a] * h(c, d) + g[c] * h(a, d) + g[d] * h(a, c);
                    put(w * base[next][i] + f2 * cross + f3 * g[a] * g[c] * g[d]);
                    next += 1;
                }
                put(-(f2 * h(a, c) + f3 * g[a] * g[c]));
            }
            put(f3 * g[a]);
        }
        put(-f3 - pq * (q - p));
    }
}
