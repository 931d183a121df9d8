//! Truncated Taylor arithmetic: a number together with its derivatives to second, third or fourth order in K variables.
//!
//! A log density is written once over [`Scalar`]. Called with `f64` it gives the value, with [`Jet`] the value, the
//! gradient and the packed higher derivatives, by the chain rule (Griewank & Walther 2008, chapter 13). Packing is
//! lexicographic: second derivatives (a, b) with a <= b, third derivatives (a, b, c) with a <= b <= c, and so on.
//! A jet is four arrays on the stack; with T = 0 it stops at second order and costs nothing for the third, and with
//! Q = 0 nothing for the fourth.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::special;

/// A smooth function of one variable at a point: its value and first four derivatives.
pub type Univariate = [f64; 5];
/// A function of (x, y): f, fx, fy, fxx, fxy, fyy, fxxx, fxxy, fxyy, fyyy, fxxxx, fxxxy, fxxyy, fxyyy, fyyyy.
pub type Bivariate = [f64; 15];

/// What a log density may do with its arguments. `ORDER` tells special functions how many derivatives are wanted.
pub trait Scalar:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
    + Mul<f64, Output = Self>
{
    const ORDER: usize;
    /// How many variables derivatives are taken in.
    const VARIABLES: usize;

    fn constant(value: f64) -> Self;
    /// The independent variable number `index`.
    fn variable(value: f64, index: usize) -> Self;
    fn value(&self) -> f64;
    /// Whether all derivatives are zero.
    fn is_constant(&self) -> bool;
    /// f(self) from the value and derivatives of f at `self.value()`.
    fn compose(self, f: Univariate) -> Self;
    /// f(self, other) from the partial derivatives of f.
    fn compose2(self, other: Self, f: &Bivariate) -> Self;
    /// Value, gradient, packed higher derivatives, one after another.
    fn store(&self, out: &mut [f64]);

    #[inline]
    fn exp(self) -> Self {
        self.compose([self.value().exp(); 5])
    }

    #[inline]
    fn ln(self) -> Self {
        let x = self.value();
        let r = 1.0 / x;
        self.compose([x.ln(), r, -r * r, 2.0 * r * r * r, -6.0 * (r * r) * (r * r)])
    }

    #[inline]
    fn recip(self) -> Self {
        let r = 1.0 / self.value();
        let r2 = r * r;
        self.compose([r, -r2, 2.0 * r2 * r, -6.0 * r2 * r2, 24.0 * r2 * r2 * r])
    }

    #[inline]
    fn square(self) -> Self {
        let x = self.value();
        self.compose([x * x, 2.0 * x, 2.0, 0.0, 0.0])
    }

    #[inline]
    fn sqrt(self) -> Self {
        let x = self.value();
        let (s, r) = (x.sqrt(), 1.0 / x);
        self.compose([s, 0.5 * s * r, -0.25 * s * r * r, 0.375 * s * r * r * r, -0.9375 * s * (r * r) * (r * r)])
    }

    #[inline]
    fn ln_1p(self) -> Self {
        let x = self.value();
        let r = 1.0 / (1.0 + x);
        self.compose([x.ln_1p(), r, -r * r, 2.0 * r * r * r, -6.0 * (r * r) * (r * r)])
    }

    /// exp(x) - 1.
    #[inline]
    fn exp_m1(self) -> Self {
        let x = self.value();
        let e = x.exp();
        self.compose([x.exp_m1(), e, e, e, e])
    }

    /// log(1 + exp(x)) without overflow.
    #[inline]
    fn softplus(self) -> Self {
        let x = self.value();
        let (p, q) = special::logistic_pair(x);
        let d = p * q;
        self.compose([special::softplus(x), p, d, d * (q - p), d * (1.0 - 6.0 * d)])
    }

    /// 1 / (1 + exp(-x)).
    #[inline]
    fn logistic(self) -> Self {
        let (p, q) = special::logistic_pair(self.value());
        let d = p * q;
        self.compose([p, d, d * (q - p), d * (1.0 - 6.0 * d), d * (q - p) * (1.0 - 12.0 * d)])
    }

    /// log(1 - exp(x)) for x < 0.
    #[inline]
    fn ln_1m_exp(self) -> Self {
        let x = self.value();
        // w = e^x / (1 - e^x)
        let w = 1.0 / (-x).exp_m1();
        let d = w * (1.0 + w);
        self.compose([special::ln_1m_exp(x), -w, -d, -d * (1.0 + 2.0 * w), -d * (1.0 + 6.0 * d)])
    }

    /// log(exp(self) + exp(other)); one of them may be minus infinity.
    #[inline]
    fn ln_add_exp(self, other: Self) -> Self {
        if other.value() == f64::NEG_INFINITY {
            return self;
        }
        if self.value() == f64::NEG_INFINITY {
            return other;
        }
        if self.value() >= other.value() {
            self + (other - self).softplus()
        } else {
            other + (self - other).softplus()
        }
    }

    /// log(exp(self) - exp(other)) for self > other.
    #[inline]
    fn ln_sub_exp(self, other: Self) -> Self {
        if other.value() == f64::NEG_INFINITY {
            return self;
        }
        self + (other - self).ln_1m_exp()
    }

    #[inline]
    fn lgamma(self) -> Self {
        self.compose(special::lgamma_jet(self.value(), Self::ORDER))
    }

    /// log of the standard normal distribution function.
    #[inline]
    fn ln_ndtr(self) -> Self {
        self.compose(special::ln_ndtr_jet(self.value()))
    }

    /// The standard normal distribution function.
    #[inline]
    fn ndtr(self) -> Self {
        let x = self.value();
        let d = special::normal_density(x);
        self.compose([special::ndtr(x), d, -x * d, (x * x - 1.0) * d, x * (3.0 - x * x) * d])
    }

    #[inline]
    fn atan(self) -> Self {
        let x = self.value();
        let r = 1.0 / (1.0 + x * x);
        let r2 = r * r;
        self.compose([x.atan(), r, -2.0 * x * r2, (6.0 * x * x - 2.0) * r2 * r, 24.0 * x * (1.0 - x * x) * r2 * r2])
    }
}

impl Scalar for f64 {
    const ORDER: usize = 0;
    const VARIABLES: usize = 0;

    #[inline]
    fn constant(value: f64) -> f64 {
        value
    }
    #[inline]
    fn variable(value: f64, _: usize) -> f64 {
        value
    }
    #[inline]
    fn value(&self) -> f64 {
        *self
    }
    #[inline]
    fn is_constant(&self) -> bool {
        true
    }
    #[inline]
    fn compose(self, f: Univariate) -> f64 {
        f[0]
    }
    #[inline]
    fn compose2(self, _: f64, f: &Bivariate) -> f64 {
        f[0]
    }
    #[inline]
    fn store(&self, out: &mut [f64]) {
        out[0] = *self;
    }
}

/// K variables, H = K (K + 1) / 2 second derivatives, T = K (K + 1) (K + 2) / 6 third ones (or 0: second order only),
/// Q = K (K + 1) (K + 2) (K + 3) / 24 fourth ones (or 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jet<const K: usize, const H: usize, const T: usize, const Q: usize = 0> {
    pub v: f64,
    pub g: [f64; K],
    pub h: [f64; H],
    pub t: [f64; T],
    pub q: [f64; Q],
}

/// Where (a, b) is stored among K (K + 1) / 2 numbers.
#[inline(always)]
pub const fn pair(k: usize, a: usize, b: usize) -> usize {
    let (a, b) = if a <= b { (a, b) } else { (b, a) };
    a * (2 * k - a + 1) / 2 + b - a
}

/// Where (a, b, c), a <= b <= c, is stored among K (K + 1) (K + 2) / 6 numbers.
#[inline(always)]
pub const fn triple(k: usize, a: usize, b: usize, c: usize) -> usize {
    // Those that begin before a leave the ones of k - a variables.
    let left = k - a;
    k * (k + 1) * (k + 2) / 6 - left * (left + 1) * (left + 2) / 6 + pair(left, b - a, c - a)
}

/// Where (a, b, c, d) in any order is stored among K (K + 1) (K + 2) (K + 3) / 24 numbers.
pub fn quadruple(k: usize, a: usize, b: usize, c: usize, d: usize) -> usize {
    let mut i = [a, b, c, d];
    i.sort_unstable();
    let left = k - i[0];
    let of = |k: usize| k * (k + 1) * (k + 2) * (k + 3) / 24;
    of(k) - of(left) + triple(left, i[1] - i[0], i[2] - i[0], i[3] - i[0])
}

/// Runs `entry!(a, b, c, d)` for the indices of all fourth derivatives of K variables in storage order. They are written
/// out, since a compiler does not unroll as long a loop, and all places are known to it then.
macro_rules! every_quadruple {
    ($k:expr, $entry:ident) => {
        match $k {
            1 => {
                $entry!(0, 0, 0, 0);
            }
            2 => every_quadruple!(@ $entry, 0 0 0 0, 0 0 0 1, 0 0 1 1, 0 1 1 1, 1 1 1 1),
            3 => every_quadruple!(
                @ $entry,
                0 0 0 0, 0 0 0 1, 0 0 0 2, 0 0 1 1, 0 0 1 2, 0 0 2 2, 0 1 1 1, 0 1 1 2, 0 1 2 2, 0 2 2 2,
                1 1 1 1, 1 1 1 2, 1 1 2 2, 1 2 2 2, 2 2 2 2
            ),
            _ => every_quadruple!(
                @ $entry,
                0 0 0 0, 0 0 0 1, 0 0 0 2, 0 0 0 3, 0 0 1 1, 0 0 1 2, 0 0 1 3, 0 0 2 2, 0 0 2 3, 0 0 3 3,
                0 1 1 1, 0 1 1 2, 0 1 1 3, 0 1 2 2, 0 1 2 3, 0 1 3 3, 0 2 2 2, 0 2 2 3, 0 2 3 3, 0 3 3 3,
                1 1 1 1, 1 1 1 2, 1 1 1 3, 1 1 2 2, 1 1 2 3, 1 1 3 3, 1 2 2 2, 1 2 2 3, 1 2 3 3, 1 3 3 3,
                2 2 2 2, 2 2 2 3, 2 2 3 3, 2 3 3 3, 3 3 3 3
            ),
        }
    };
    (@ $entry:ident, $($a:literal $b:literal $c:literal $d:literal),*) => {{
        $($entry!($a, $b, $c, $d);)*
    }};
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Jet<K, H, T, Q> {
    /// Second derivatives in storage order.
    #[inline(always)]
    fn fill2(f: impl Fn(usize, usize, usize) -> f64) -> [f64; H] {
        let mut h = [0.0; H];
        let mut at = 0;
        for a in 0..K {
            for b in a..K {
                h[at] = f(a, b, at);
                at += 1;
            }
        }
        h
    }

    /// Third derivatives in storage order.
    #[inline(always)]
    fn fill3(f: impl Fn(usize, usize, usize, usize) -> f64) -> [f64; T] {
        let mut t = [0.0; T];
        if T == 0 {
            return t;
        }
        let mut at = 0;
        for a in 0..K {
            for b in a..K {
                for c in b..K {
                    t[at] = f(a, b, c, at);
                    at += 1;
                }
            }
        }
        t
    }

    /// Sum of x_i y_jkl over the ways to split four ordered indices so.
    #[inline(always)]
    fn one_and_three(x: &[f64; K], y: &[f64; T], [a, b, c, d]: [usize; 4]) -> f64 {
        x[a] * y[triple(K, b, c, d)]
            + x[b] * y[triple(K, a, c, d)]
            + x[c] * y[triple(K, a, b, d)]
            + x[d] * y[triple(K, a, b, c)]
    }

    /// Sum of x_ij y_kl over the ways to split four indices so, the first of them always in the part of x.
    #[inline(always)]
    fn two_and_two(x: &[f64; H], y: &[f64; H], [a, b, c, d]: [usize; 4]) -> f64 {
        x[pair(K, a, b)] * y[pair(K, c, d)] + x[pair(K, a, c)] * y[pair(K, b, d)] + x[pair(K, a, d)] * y[pair(K, b, c)]
    }

    /// The fourth derivatives of f(x).
    #[inline(never)]
    fn compose_fourth(x: &Self, f: &Univariate) -> [f64; Q] {
        let (g, h, mut q, mut at) = (&x.g, &x.h, [0.0; Q], 0);
        let squares: [f64; H] = Self::fill2(|a, b, _| g[a] * g[b]);
        let slopes = g.map(|g| f[2] * g);
        let with_h: [f64; H] = std::array::from_fn(|i| f[2] * h[i] + f[3] * squares[i]);
        let with_squares = h.map(|h| f[3] * h);
        macro_rules! entry {
            ($a:literal, $b:literal, $c:literal, $d:literal) => {
                let i = [$a, $b, $c, $d];
                q[at] = f[1] * x.q[at]
                    + Self::one_and_three(&slopes, &x.t, i)
                    + Self::two_and_two(h, &with_h, i)
                    + Self::two_and_two(&squares, &with_squares, i)
                    + f[4] * squares[pair(K, $a, $b)] * squares[pair(K, $c, $d)];
                at += 1;
            };
        }
        every_quadruple!(K, entry);
        debug_assert!(at == Q);
        q
    }

    /// The fourth derivatives of f(x, y).
    #[inline(never)]
    fn compose2_fourth(x: &Self, y: &Self, f: &Bivariate) -> [f64; Q] {
        let (mut q, mut at) = ([0.0; Q], 0);
        let all = |of: &dyn Fn(usize) -> f64| -> [f64; H] { std::array::from_fn(of) };
        let xx = Self::fill2(|a, b, _| x.g[a] * x.g[b]);
        let xy = Self::fill2(|a, b, _| x.g[a] * y.g[b] + y.g[a] * x.g[b]);
        let yy = Self::fill2(|a, b, _| y.g[a] * y.g[b]);
        let slopes = |r: f64, s: f64| -> [f64; K] { std::array::from_fn(|i| r * x.g[i] + s * y.g[i]) };
        let (with_xt, with_yt) = (slopes(f[3], f[4]), slopes(f[4], f[5]));
        // What goes with a second derivative of x, and of y: pairs of slopes, and with them second derivatives.
        let x_pairs = all(&|i| f[6] * xx[i] + f[7] * xy[i] + f[8] * yy[i]);
        let y_pairs = all(&|i| f[7] * xx[i] + f[8] * xy[i] + f[9] * yy[i]);
        let with_x = all(&|i| x_pairs[i] + f[3] * x.h[i] + f[4] * y.h[i]);
        let with_y = all(&|i| y_pairs[i] + f[4] * x.h[i] + f[5] * y.h[i]);
        let with_xx = all(&|i| f[10] * xx[i] + f[11] * xy[i] + f[12] * yy[i]);
        let with_xy = all(&|i| f[11] * xx[i] + f[12] * xy[i] + f[13] * yy[i]);
        let with_yy = all(&|i| f[12] * xx[i] + f[13] * xy[i] + f[14] * yy[i]);
        macro_rules! entry {
            ($a:literal, $b:literal, $c:literal, $d:literal) => {
                let (i, ab, cd) = ([$a, $b, $c, $d], pair(K, $a, $b), pair(K, $c, $d));
                q[at] = f[1] * x.q[at]
                    + f[2] * y.q[at]
                    + Self::one_and_three(&with_xt, &x.t, i)
                    + Self::one_and_three(&with_yt, &y.t, i)
                    + Self::two_and_two(&x.h, &with_x, i)
                    + Self::two_and_two(&y.h, &with_y, i)
                    + Self::two_and_two(&x_pairs, &x.h, i)
                    + Self::two_and_two(&y_pairs, &y.h, i)
                    + (xx[ab] * with_xx[cd] + xy[ab] * with_xy[cd] + yy[ab] * with_yy[cd]);
                at += 1;
            };
        }
        every_quadruple!(K, entry);
        debug_assert!(at == Q);
        q
    }

    /// The fourth derivatives of x y.
    #[inline(never)]
    fn product_fourth(x: &Self, y: &Self) -> [f64; Q] {
        let (mut q, mut at) = ([0.0; Q], 0);
        macro_rules! entry {
            ($a:literal, $b:literal, $c:literal, $d:literal) => {
                let i = [$a, $b, $c, $d];
                q[at] = x.v * y.q[at]
                    + y.v * x.q[at]
                    + Self::one_and_three(&x.g, &y.t, i)
                    + Self::one_and_three(&y.g, &x.t, i)
                    + Self::two_and_two(&x.h, &y.h, i)
                    + Self::two_and_two(&y.h, &x.h, i);
                at += 1;
            };
        }
        every_quadruple!(K, entry);
        debug_assert!(at == Q);
        q
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let mut out = self;
        out.v = f(self.v, other.v);
        (0..K).for_each(|i| out.g[i] = f(self.g[i], other.g[i]));
        (0..H).for_each(|i| out.h[i] = f(self.h[i], other.h[i]));
        (0..T).for_each(|i| out.t[i] = f(self.t[i], other.t[i]));
        (0..Q).for_each(|i| out.q[i] = f(self.q[i], other.q[i]));
        out
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Scalar for Jet<K, H, T, Q> {
    const ORDER: usize = if T == 0 {
        2
    } else if Q == 0 {
        3
    } else {
        4
    };
    const VARIABLES: usize = K;

    #[inline]
    fn constant(value: f64) -> Self {
        Jet { v: value, g: [0.0; K], h: [0.0; H], t: [0.0; T], q: [0.0; Q] }
    }

    #[inline]
    fn variable(value: f64, index: usize) -> Self {
        let mut x = Self::constant(value);
        x.g[index] = 1.0;
        x
    }

    #[inline]
    fn value(&self) -> f64 {
        self.v
    }

    #[inline]
    fn is_constant(&self) -> bool {
        self.g.iter().chain(&self.h).chain(&self.t).chain(&self.q).all(|d| *d == 0.0)
    }

    #[inline]
    fn compose(self, f: Univariate) -> Self {
        let (g, h) = (&self.g, &self.h);
        let mut out = self;
        out.v = f[0];
        (0..K).for_each(|i| out.g[i] = f[1] * g[i]);
        out.h = Self::fill2(|a, b, at| f[1] * h[at] + f[2] * g[a] * g[b]);
        out.t = Self::fill3(|a, b, c, at| {
            let cross = g[a] * h[pair(K, b, c)] + g[b] * h[pair(K, a, c)] + g[c] * h[pair(K, a, b)];
            f[1] * self.t[at] + f[2] * cross + f[3] * g[a] * g[b] * g[c]
        });
        if Q > 0 {
            out.q = Self::compose_fourth(&self, &f);
        }
        out
    }

    #[inline]
    fn compose2(self, other: Self, f: &Bivariate) -> Self {
        let (x, y) = (&self, &other);
        let mut out = self;
        out.v = f[0];
        (0..K).for_each(|i| out.g[i] = f[1] * x.g[i] + f[2] * y.g[i]);
        out.h = Self::fill2(|a, b, at| {
            f[1] * x.h[at]
                + f[2] * y.h[at]
                + f[3] * x.g[a] * x.g[b]
                + f[4] * (x.g[a] * y.g[b] + y.g[a] * x.g[b])
                + f[5] * y.g[a] * y.g[b]
        });
        out.t = Self::fill3(|a, b, c, at| {
            let (bc, ac, ab) = (pair(K, b, c), pair(K, a, c), pair(K, a, b));
            let cross = |p: &Self, q: &Self| p.g[a] * q.h[bc] + p.g[b] * q.h[ac] + p.g[c] * q.h[ab];
            let (xa, xb, xc) = (x.g[a], x.g[b], x.g[c]);
            let (ya, yb, yc) = (y.g[a], y.g[b], y.g[c]);
            f[1] * x.t[at]
                + f[2] * y.t[at]
                + f[3] * cross(x, x)
                + f[4] * (cross(x, y) + cross(y, x))
                + f[5] * cross(y, y)
                + f[6] * xa * xb * xc
                + f[7] * (xa * xb * yc + xa * yb * xc + ya * xb * xc)
                + f[8] * (xa * yb * yc + ya * xb * yc + ya * yb * xc)
                + f[9] * ya * yb * yc
        });
        if Q > 0 {
            out.q = Self::compose2_fourth(x, y, f);
        }
        out
    }

    #[inline]
    fn store(&self, out: &mut [f64]) {
        out[0] = self.v;
        out[1..1 + K].copy_from_slice(&self.g);
        out[1 + K..1 + K + H].copy_from_slice(&self.h);
        out[1 + K + H..1 + K + H + T].copy_from_slice(&self.t);
        out[1 + K + H + T..1 + K + H + T + Q].copy_from_slice(&self.q);
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Add for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Sub for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Mul for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    #[allow(clippy::suspicious_arithmetic_impl)]
    fn mul(self, other: Self) -> Self {
        let (x, y) = (&self, &other);
        let mut out = self;
        out.v = x.v * y.v;
        (0..K).for_each(|i| out.g[i] = x.v * y.g[i] + y.v * x.g[i]);
        out.h = Self::fill2(|a, b, at| x.v * y.h[at] + y.v * x.h[at] + x.g[a] * y.g[b] + y.g[a] * x.g[b]);
        out.t = Self::fill3(|a, b, c, at| {
            let (bc, ac, ab) = (pair(K, b, c), pair(K, a, c), pair(K, a, b));
            let cross = |p: &Self, q: &Self| p.g[a] * q.h[bc] + p.g[b] * q.h[ac] + p.g[c] * q.h[ab];
            x.v * y.t[at] + y.v * x.t[at] + cross(x, y) + cross(y, x)
        });
        if Q > 0 {
            out.q = Self::product_fourth(x, y);
        }
        out
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Div for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    #[allow(clippy::suspicious_arithmetic_impl)]
    fn div(self, other: Self) -> Self {
        self * other.recip()
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Neg for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    fn neg(self) -> Self {
        self * -1.0
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Add<f64> for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    fn add(self, other: f64) -> Self {
        Jet { v: self.v + other, ..self }
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Sub<f64> for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    fn sub(self, other: f64) -> Self {
        Jet { v: self.v - other, ..self }
    }
}

impl<const K: usize, const H: usize, const T: usize, const Q: usize> Mul<f64> for Jet<K, H, T, Q> {
    type Output = Self;
    #[inline]
    fn mul(self, other: f64) -> Self {
        self.zip(self, |a, _| a * other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type J = Jet<2, 3, 4>;

    #[test]
    fn product_and_composition_agree_with_known_derivatives() {
        // f = exp(x y): fx = y f, fxx = y^2 f, fxy = (1 + xy) f, fxxy = (2y + x y^2) f ...
        let (x, y) = (J::variable(0.7, 0), J::variable(-0.4, 1));
        let f = (x * y).exp();
        let (a, b) = (0.7f64, -0.4f64);
        let e = (a * b).exp();
        let expect = [
            e,
            b * e,
            a * e,
            b * b * e,
            (1.0 + a * b) * e,
            a * a * e,
            b * b * b * e,
            (2.0 * b + a * b * b) * e,
            (2.0 * a + a * a * b) * e,
            a * a * a * e,
        ];
        let mut out = [0.0; 10];
        f.store(&mut out);
        out.iter().zip(expect).for_each(|(o, e)| assert!((o - e).abs() < 1e-15));
    }

    #[test]
    fn bivariate_composition_is_multiplication_for_the_product() {
        let (x, y) = (J::variable(0.7, 0).sqrt(), (J::variable(0.7, 0) * J::variable(1.3, 1)).ln_1p());
        let mut f = [0.0; 15];
        (f[0], f[1], f[2], f[4]) = (x.v * y.v, y.v, x.v, 1.0);
        let (p, q) = (x * y, x.compose2(y, &f));
        let (mut a, mut b) = ([0.0; 15], [0.0; 15]);
        p.store(&mut a);
        q.store(&mut b);
        a.iter().zip(b).for_each(|(o, e)| assert!((o - e).abs() < 1e-14));
    }

    type J4 = Jet<2, 3, 4, 5>;

    fn close(label: &str, a: &J4, b: &J4, tol: f64) {
        let (mut x, mut y) = ([0.0; 15], [0.0; 15]);
        a.store(&mut x);
        b.store(&mut y);
        x.iter().zip(y).enumerate().for_each(|(i, (x, y))| {
            assert!((x - y).abs() < tol * (1.0 + y.abs()), "{label}, number {i}: {x} {y}");
        });
    }

    #[test]
    fn fourth_derivatives_of_a_composition_are_known_ones() {
        // exp(x y): derivative i times in x, l times in y is the polynomial of Leibniz, sum_j C(i, j) l!/(l-j)! y^(i-j) x^(l-j).
        let (a, b) = (0.7f64, -0.4f64);
        let f = (J4::variable(a, 0) * J4::variable(b, 1)).exp();
        let falling = |n: usize, j: usize| (0..j).map(|m| (n - m) as f64).product::<f64>();
        for l in 0..5usize {
            let i = 4 - l;
            let sum: f64 = (0..=i.min(l))
                .map(|j| {
                    falling(i, j) * falling(l, j) / falling(j, j) * b.powi((i - j) as i32) * a.powi((l - j) as i32)
                })
                .sum();
            assert!((f.q[l] - sum * (a * b).exp()).abs() < 1e-14, "{l}: {} {}", f.q[l], sum * (a * b).exp());
        }
    }

    /// Two smooth functions of two variables.
    fn two(x: f64, y: f64) -> (J4, J4) {
        let (x, y) = (J4::variable(x, 0), J4::variable(y, 1));
        ((x * y + x.sqrt()).softplus(), (x.atan() + y.square()).ln_1p())
    }

    #[test]
    fn fourth_derivatives_of_compositions_agree_with_one_another() {
        let (x, y) = two(0.7, 1.3);
        close("log and exp", &x.exp().ln(), &x, 1e-13);
        close("twice a reciprocal", &x.recip().recip(), &x, 1e-13);
        close("a square of a root", &x.sqrt().square(), &x, 1e-13);
        close("a product by logarithms", &(x.ln() + y.ln()).exp(), &(x * y), 1e-13);
        close("exp(x) - 1", &x.exp_m1().ln_1p(), &x, 1e-13);
        close("softplus", &x.softplus(), &x.exp().ln_1p(), 1e-13);
        close("logistic", &x.logistic(), &((-x).exp() + 1.0).recip(), 1e-13);
        close("log(1 - exp(-x))", &(-x).ln_1m_exp(), &(-(-x).exp() + 1.0).ln(), 1e-12);
        close("a distribution function", &x.ndtr().ln(), &x.ln_ndtr(), 1e-12);
        // lgamma(x + 1) = lgamma(x) + log x
        close("log-gamma", &(x + 1.0).lgamma(), &(x.lgamma() + x.ln()), 1e-13);
    }

    #[test]
    fn fourth_derivatives_of_functions_of_two_are_those_of_one_at_a_time() {
        // f(u, v) = exp(u) v^3 + u^2 v.
        let (u, v) = two(0.7, 1.3);
        let direct = u.exp() * v.square() * v + u.square() * v;
        let (e, w) = (u.v.exp(), v.v);
        let (w2, w3) = (w * w, w * w * w);
        #[rustfmt::skip]
        let f = [
            e * w3 + u.v * u.v * w,
            e * w3 + 2.0 * u.v * w, 3.0 * e * w2 + u.v * u.v,
            e * w3 + 2.0 * w, 3.0 * e * w2 + 2.0 * u.v, 6.0 * e * w,
            e * w3, 3.0 * e * w2 + 2.0, 6.0 * e * w, 6.0 * e,
            e * w3, 3.0 * e * w2, 6.0 * e * w, 6.0 * e, 0.0,
        ];
        close("two at once", &u.compose2(v, &f), &direct, 1e-13);
    }

    #[test]
    fn fourth_derivatives_are_slopes_of_third_ones() {
        type J = Jet<3, 6, 10, 15>;
        let at = |point: [f64; 3]| {
            let [x, y, z] = std::array::from_fn(|i| J::variable(point[i], i));
            ((x * y).exp() * z.sqrt() + (y / z).logistic()).ln() * (x + z.atan())
        };
        let (point, h) = ([0.4, -0.6, 1.7], 1e-3);
        let own = at(point);
        for d in 0..3 {
            let by = |step: f64| at(std::array::from_fn(|i| point[i] + if i == d { step } else { 0.0 })).t;
            let (p1, m1, p2, m2) = (by(h), by(-h), by(2.0 * h), by(-2.0 * h));
            for (a, b, c) in [(0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 1, 2), (1, 2, 2), (2, 2, 2), (0, 2, 2), (0, 1, 1)] {
                let at = triple(3, a, b, c);
                let slope = (8.0 * (p1[at] - m1[at]) - (p2[at] - m2[at])) / (12.0 * h);
                // The quotient is wrong by h^4 and by rounding over h.
                let fourth = own.q[quadruple(3, a, b, c, d)];
                assert!((slope - fourth).abs() < 1e-9 * (1.0 + slope.abs()), "{a}{b}{c}{d}: {slope} {fourth}");
            }
        }
    }

    #[test]
    fn second_order_jets_are_the_head_of_third_order_jets() {
        let a = 0.3;
        let third = (J::variable(a, 0) / J::variable(2.0, 1)).softplus().lgamma();
        let second = (Jet::<2, 3, 0>::variable(a, 0) / Jet::<2, 3, 0>::variable(2.0, 1)).softplus().lgamma();
        assert_eq!((third.v, third.g, third.h), (second.v, second.g, second.h));
        let fourth = (J4::variable(a, 0) / J4::variable(2.0, 1)).softplus().lgamma();
        assert_eq!((third.v, third.g, third.h, third.t), (fourth.v, fourth.g, fourth.h, fourth.t));
    }
}
