//! Numbers, and numbers with their derivative along one direction (dual numbers; Griewank & Walther 2008, chapter 3), with
//! the triangular solves of small blocks in either.

use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::CoreError;

/// What the arithmetic of quadrature does with a number.
pub trait Number:
    Copy
    + Default
    + Send
    + Sync
    + From<f64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Mul<f64, Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + MulAssign<f64>
    + DivAssign
{
    fn value(self) -> f64;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
}

impl Number for f64 {
    #[inline]
    fn value(self) -> f64 {
        self
    }

    #[inline]
    fn exp(self) -> f64 {
        f64::exp(self)
    }

    #[inline]
    fn ln(self) -> f64 {
        f64::ln(self)
    }

    #[inline]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
}

/// A value and its derivative.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dual {
    pub v: f64,
    pub d: f64,
}

impl Dual {
    #[inline]
    pub fn new(v: f64, d: f64) -> Self {
        Dual { v, d }
    }

    /// Values with their derivatives; these are 0 where there are none.
    pub fn all(v: &[f64], d: &[f64]) -> Vec<Dual> {
        v.iter().enumerate().map(|(i, v)| Dual::new(*v, d.get(i).copied().unwrap_or(0.0))).collect()
    }
}

impl From<f64> for Dual {
    #[inline]
    fn from(v: f64) -> Self {
        Dual { v, d: 0.0 }
    }
}

impl Number for Dual {
    #[inline]
    fn value(self) -> f64 {
        self.v
    }

    #[inline]
    fn exp(self) -> Self {
        let v = self.v.exp();
        Dual { v, d: v * self.d }
    }

    #[inline]
    fn ln(self) -> Self {
        Dual { v: self.v.ln(), d: self.d / self.v }
    }

    #[inline]
    fn sqrt(self) -> Self {
        let v = self.v.sqrt();
        Dual { v, d: 0.5 * self.d / v }
    }
}

impl Add for Dual {
    type Output = Dual;
    #[inline]
    fn add(self, o: Dual) -> Dual {
        Dual { v: self.v + o.v, d: self.d + o.d }
    }
}

impl Sub for Dual {
    type Output = Dual;
    #[inline]
    fn sub(self, o: Dual) -> Dual {
        Dual { v: self.v - o.v, d: self.d - o.d }
    }
}

impl Mul for Dual {
    type Output = Dual;
    #[inline]
    fn mul(self, o: Dual) -> Dual {
        Dual { v: self.v * o.v, d: self.d * o.v + self.v * o.d }
    }
}

impl Mul<f64> for Dual {
    type Output = Dual;
    #[inline]
    fn mul(self, o: f64) -> Dual {
        Dual { v: self.v * o, d: self.d * o }
    }
}

impl Div for Dual {
    type Output = Dual;
    #[inline]
    fn div(self, o: Dual) -> Dual {
        let v = self.v / o.v;
        Dual { v, d: (self.d - v * o.d) / o.v }
    }
}

impl Neg for Dual {
    type Output = Dual;
    #[inline]
    fn neg(self) -> Dual {
        Dual { v: -self.v, d: -self.d }
    }
}

impl AddAssign for Dual {
    #[inline]
    fn add_assign(&mut self, o: Dual) {
        *self = *self + o;
    }
}

impl SubAssign for Dual {
    #[inline]
    fn sub_assign(&mut self, o: Dual) {
        *self = *self - o;
    }
}

impl MulAssign for Dual {
    #[inline]
    fn mul_assign(&mut self, o: Dual) {
        *self = *self * o;
    }
}

impl MulAssign<f64> for Dual {
    #[inline]
    fn mul_assign(&mut self, o: f64) {
        *self = *self * o;
    }
}

impl DivAssign for Dual {
    #[inline]
    fn div_assign(&mut self, o: Dual) {
        *self = *self / o;
    }
}

/// Sum of products.
#[inline]
pub fn sum<T: Number>(products: impl Iterator<Item = (T, T)>) -> T {
    products.fold(T::default(), |s, (a, b)| s + a * b)
}

/// The lower Cholesky factor in place of the lower triangle of A (n x n).
pub fn cholesky<T: Number>(a: &mut [T], n: usize) -> Result<(), CoreError> {
    for j in 0..n {
        let d = (0..j).fold(a[j + j * n], |d, t| d - a[j + t * n] * a[j + t * n]);
        if !(d.value() > 0.0) || !d.value().is_finite() {
            return Err(CoreError::NotPositiveDefinite(format!("pivot {j} of {n} is {:e}", d.value())));
        }
        let d = d.sqrt();
        a[j + j * n] = d;
        for i in j + 1..n {
            a[i + j * n] = (0..j).fold(a[i + j * n], |s, t| s - a[i + t * n] * a[j + t * n]) / d;
        }
    }
    Ok(())
}

/// B <- L^-1 B for B (n x m).
#[inline]
pub fn solve_left<T: Number>(l: &[T], n: usize, b: &mut [T]) {
    for x in b.chunks_exact_mut(n) {
        for j in 0..n {
            x[j] /= l[j + j * n];
            let v = x[j];
            (j + 1..n).for_each(|i| x[i] -= l[i + j * n] * v);
        }
    }
}

/// B <- L^-T B for B (n x m).
#[inline]
pub fn solve_left_transposed<T: Number>(l: &[T], n: usize, b: &mut [T]) {
    for x in b.chunks_exact_mut(n) {
        for j in (0..n).rev() {
            x[j] = (j + 1..n).fold(x[j], |s, i| s - l[i + j * n] * x[i]) / l[j + j * n];
        }
    }
}

/// B <- B L^-T for B (m x n).
pub fn solve_right_transposed<T: Number>(l: &[T], n: usize, b: &mut [T], m: usize) {
    for j in 0..n {
        for i in 0..m {
            b[i + j * m] = (0..j).fold(b[i + j * m], |s, t| s - l[j + t * n] * b[i + t * m]) / l[j + j * n];
        }
    }
}

/// B <- B L^-1 for B (m x n).
pub fn solve_right<T: Number>(l: &[T], n: usize, b: &mut [T], m: usize) {
    for j in (0..n).rev() {
        for i in 0..m {
            b[i + j * m] = (j + 1..n).fold(b[i + j * m], |s, t| s - l[t + j * n] * b[i + t * m]) / l[j + j * n];
        }
    }
}
