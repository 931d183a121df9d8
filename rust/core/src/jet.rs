//! Truncated Taylor arithmetic: a number together with its derivatives to second or third order in K variables.
//!
//! A log density is written once over [`Scalar`]. Called with `f64` it gives the value, with [`Jet`] the value, the
//! gradient and the packed higher derivatives, by the chain rule (Griewank & Walther 2008, chapter 13). Packing is
//! lexicographic: second derivatives (a, b) with a <= b, third derivatives (a, b, c) with a <= b <= c.
//! A jet is three arrays on the stack; with T = 0 it stops at second order and costs nothing for the third.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::special;

/// A smooth function of one variable at a point: its value and first three derivatives.
pub type Univariate = [f64; 4];
/// A function of (x, y): f, fx, fy, fxx, fxy, fyy, fxxx, fxxy, fxyy, fyyy.
pub type Bivariate = [f64; 10];

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
    /// Value, gradient, packed second and third derivatives, one after another.
    fn store(&self, out: &mut [f64]);

    #[inline]
    fn exp(self) -> Self {
        self.compose([self.value().exp(); 4])
    }

    #[inline]
    fn ln(self) -> Self {
        let x = self.value();
        let r = 1.0 / x;
        self.compose([x.ln(), r, -r * r, 2.0 * r * r * r])
    }

    #[inline]
    fn recip(self) -> Self {
        let r = 1.0 / self.value();
        let r2 = r * r;
        self.compose([r, -r2, 2.0 * r2 * r, -6.0 * r2 * r2])
    }

    #[inline]
    fn square(self) -> Self {
        let x = self.value();
        self.compose([x * x, 2.0 * x, 2.0, 0.0])
    }

    #[inline]
    fn sqrt(self) -> Self {
        let x = self.value();
        let (s, r) = (x.sqrt(), 1.0 / x);
        self.compose([s, 0.5 * s * r, -0.25 * s * r * r, 0.375 * s * r * r * r])
    }

    #[inline]
    fn ln_1p(self) -> Self {
        let x = self.value();
        let r = 1.0 / (1.0 + x);
        self.compose([x.ln_1p(), r, -r * r, 2.0 * r * r * r])
    }

    /// exp(x) - 1.
    #[inline]
    fn exp_m1(self) -> Self {
        let x = self.value();
        let e = x.exp();
        self.compose([x.exp_m1(), e, e, e])
    }

    /// log(1 + exp(x)) without overflow.
    #[inline]
    fn softplus(self) -> Self {
        let x = self.value();
        let (p, q) = special::logistic_pair(x);
        self.compose([special::softplus(x), p, p * q, p * q * (q - p)])
    }

    /// 1 / (1 + exp(-x)).
    #[inline]
    fn logistic(self) -> Self {
        let (p, q) = special::logistic_pair(self.value());
        let d = p * q;
        self.compose([p, d, d * (q - p), d * (1.0 - 6.0 * d)])
    }

    /// log(1 - exp(x)) for x < 0.
    #[inline]
    fn ln_1m_exp(self) -> Self {
        let x = self.value();
        // w = e^x / (1 - e^x)
        let w = 1.0 / (-x).exp_m1();
        self.compose([special::ln_1m_exp(x), -w, -w * (1.0 + w), -w * (1.0 + w) * (1.0 + 2.0 * w)])
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
        self.compose([special::ndtr(x), d, -x * d, (x * x - 1.0) * d])
    }

    #[inline]
    fn atan(self) -> Self {
        let x = self.value();
        let r = 1.0 / (1.0 + x * x);
        self.compose([x.atan(), r, -2.0 * x * r * r, (6.0 * x * x - 2.0) * r * r * r])
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

/// K variables, H = K (K + 1) / 2 second derivatives, T = K (K + 1) (K + 2) / 6 third ones (or 0: second order only).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jet<const K: usize, const H: usize, const T: usize> {
    pub v: f64,
    pub g: [f64; K],
    pub h: [f64; H],
    pub t: [f64; T],
}

/// Where (a, b), a <= b, is stored among K (K + 1) / 2 numbers.
#[inline(always)]
pub const fn pair(k: usize, a: usize, b: usize) -> usize {
    let (a, b) = if a <= b { (a, b) } else { (b, a) };
    a * (2 * k - a + 1) / 2 + b - a
}

impl<const K: usize, const H: usize, const T: usize> Jet<K, H, T> {
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

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let mut out = self;
        out.v = f(self.v, other.v);
        (0..K).for_each(|i| out.g[i] = f(self.g[i], other.g[i]));
        (0..H).for_each(|i| out.h[i] = f(self.h[i], other.h[i]));
        (0..T).for_each(|i| out.t[i] = f(self.t[i], other.t[i]));
        out
    }
}

impl<const K: usize, const H: usize, const T: usize> Scalar for Jet<K, H, T> {
    const ORDER: usize = if T == 0 { 2 } else { 3 };
    const VARIABLES: usize = K;

    #[inline]
    fn constant(value: f64) -> Self {
        Jet { v: value, g: [0.0; K], h: [0.0; H], t: [0.0; T] }
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
        self.g.iter().chain(&self.h).chain(&self.t).all(|d| *d == 0.0)
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
        out
    }

    #[inline]
    fn store(&self, out: &mut [f64]) {
        out[0] = self.v;
        out[1..1 + K].copy_from_slice(&self.g);
        out[1 + K..1 + K + H].copy_from_slice(&self.h);
        out[1 + K + H..1 + K + H + T].copy_from_slice(&self.t);
    }
}

impl<const K: usize, const H: usize, const T: usize> Add for Jet<K, H, T> {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl<const K: usize, const H: usize, const T: usize> Sub for Jet<K, H, T> {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl<const K: usize, const H: usize, const T: usize> Mul for Jet<K, H, T> {
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
        out
    }
}

impl<const K: usize, const H: usize, const T: usize> Div for Jet<K, H, T> {
    type Output = Self;
    #[inline]
    #[allow(clippy::suspicious_arithmetic_impl)]
    fn div(self, other: Self) -> Self {
        self * other.recip()
    }
}

impl<const K: usize, const H: usize, const T: usize> Neg for Jet<K, H, T> {
    type Output = Self;
    #[inline]
    fn neg(self) -> Self {
        self * -1.0
    }
}

impl<const K: usize, const H: usize, const T: usize> Add<f64> for Jet<K, H, T> {
    type Output = Self;
    #[inline]
    fn add(self, other: f64) -> Self {
        Jet { v: self.v + other, ..self }
    }
}

impl<const K: usize, const H: usize, const T: usize> Sub<f64> for Jet<K, H, T> {
    type Output = Self;
    #[inline]
    fn sub(self, other: f64) -> Self {
        Jet { v: self.v - other, ..self }
    }
}

impl<const K: usize, const H: usize, const T: usize> Mul<f64> for Jet<K, H, T> {
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
        let f = [x.v * y.v, y.v, x.v, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let (p, q) = (x * y, x.compose2(y, &f));
        let (mut a, mut b) = ([0.0; 10], [0.0; 10]);
        p.store(&mut a);
        q.store(&mut b);
        a.iter().zip(b).for_each(|(o, e)| assert!((o - e).abs() < 1e-14));
    }

    #[test]
    fn second_order_jets_are_the_head_of_third_order_jets() {
        let a = 0.3;
        let third = (J::variable(a, 0) / J::variable(2.0, 1)).softplus().lgamma();
        let second = (Jet::<2, 3, 0>::variable(a, 0) / Jet::<2, 3, 0>::variable(2.0, 1)).softplus().lgamma();
        assert_eq!((third.v, third.g, third.h), (second.v, second.g, second.h));
    }
}
