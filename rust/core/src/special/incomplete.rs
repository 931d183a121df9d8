//! Logarithms of the regularised incomplete gamma and beta functions.
//!
//! Power series and continued fractions (Abramowitz & Stegun 6.5.29, 6.5.31; DiDonato & Morris 1992), run backwards over
//! [`Scalar`] so that derivatives in every argument come along.

use super::{binet_jet, deviance_part, ln_ndtr_jet, HALF_LN_2PI};
use crate::jet::Scalar;

/// log of P(a, x) and of Q(a, x), the regularised incomplete gamma functions.
pub fn ln_incomplete_gamma<S: Scalar>(a: S, x: S, ln_x: S) -> (S, S) {
    let (av, xv) = (a.value(), x.value());
    if !(av > 0.0 && xv >= 0.0 && av.is_finite()) {
        return (S::constant(f64::NAN), S::constant(f64::NAN));
    }
    if xv == 0.0 {
        return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
    }
    if !xv.is_finite() {
        return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
    }
    let ln_a = a.ln();
    if av > LARGE && (ln_x - ln_a).value().abs() < NEAR {
        return uniform(ln_a, ln_x - ln_a);
    }
    // x^a exp(-x) / Gamma(a + 1) without the cancellation of large a
    let binet = ln_a.compose(binet_jet(ln_a.value(), S::ORDER));
    let front = deviance_part(ln_x - ln_a) * a - ln_a * 0.5 - HALF_LN_2PI - binet;
    if xv < av + 1.0 {
        let (mut term, mut sum, mut d) = (S::constant(1.0), S::constant(1.0), a);
        let slack = if S::ORDER == 0 { 1e-17 } else { 1e-20 };
        for _ in 0..100_000 {
            d = d + 1.0;
            term = term * x / d;
            sum = sum + term;
            if term.value() < slack * sum.value() {
                break;
            }
        }
        let p = front + sum.ln();
        (p, p.ln_1m_exp())
    } else {
        let q = front + ln_a - gamma_fraction(a, x).ln();
        (q.ln_1m_exp(), q)
    }
}

/// Shape from which series and fraction are long where x is near to it, by less than this in the logarithm.
const LARGE: f64 = 1e7;
const NEAR: f64 = 1e-2;

/// The same by Temme's uniform expansion (NIST DLMF 8.12.3 - 8.12.9), of which its first term is enough there, from log a
/// and d = log(x / a): Q = Phi(-z) + R, z = eta sqrt(a), eta^2 / 2 = exp(d) - 1 - d.
fn uniform<S: Scalar>(ln_a: S, d: S) -> (S, S) {
    // eta = d + d^2 / 6 + ..., and 1 / (exp(d) - 1) - 1 / eta in powers of eta.
    let eta = d * (17.0 / 544_320.0) + 1.0 / 2592.0;
    let eta = [270.0, 36.0, 6.0, 1.0].into_iter().fold(eta, |eta, c| eta * d + 1.0 / c) * d;
    let first = ((eta * (1.0 / 864.0) - 2.0 / 135.0) * eta + 1.0 / 12.0) * eta - 1.0 / 3.0;
    let root = (ln_a * 0.5).exp();
    let tail = |z: S, first: S| {
        let ln = z.compose(ln_ndtr_jet(z.value()));
        ln + ((z * z * -0.5 - HALF_LN_2PI - ln).exp() * first / root).ln_1p()
    };
    (tail(eta * root, -first), tail(-(eta * root), first))
}

/// x + 1 - a - 1 (1 - a) / (x + 3 - a - 2 (2 - a) / ...): its length found with plain numbers, then run from the back.
fn gamma_fraction<S: Scalar>(a: S, x: S) -> S {
    let (av, xv) = (a.value(), x.value());
    let b0 = xv + 1.0 - av;
    let (mut c, mut d, mut n) = (1e300, 1.0 / b0, 0usize);
    loop {
        n += 1;
        let k = n as f64;
        let an = -k * (k - av);
        let b = b0 + 2.0 * k;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        if (c * d - 1.0).abs() < 1e-16 || n > 100_000 {
            break;
        }
    }
    if S::ORDER > 0 {
        n = 2 * n + 20;
    }
    let base = x - a + 1.0;
    let mut f = base + 2.0 * n as f64;
    for k in (1..=n).rev() {
        let k = k as f64;
        f = base + 2.0 * (k - 1.0) + (a - k) * k / f;
    }
    f
}

/// log of I_x(a, b) and of 1 - I_x(a, b), the regularised incomplete beta function; `y` is 1 - x.
pub fn ln_incomplete_beta<S: Scalar>(a: S, b: S, x: S, y: S) -> (S, S) {
    let (av, bv, xv) = (a.value(), b.value(), x.value());
    if !(av > 0.0 && bv > 0.0 && xv >= 0.0 && y.value() >= 0.0) {
        return (S::constant(f64::NAN), S::constant(f64::NAN));
    }
    if xv == 0.0 {
        return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
    }
    if y.value() == 0.0 {
        return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
    }
    // x > (a + 1) / (a + b + 2), without the difference of x from 1.
    if xv * (bv + 1.0) > (av + 1.0) * y.value() {
        let (p, q) = beta_tail(b, a, y, x);
        return (q, p);
    }
    beta_tail(a, b, x, y)
}

/// I_x(a, b) where the continued fraction is short: x < (a + 1) / (a + b + 2).
fn beta_tail<S: Scalar>(a: S, b: S, x: S, y: S) -> (S, S) {
    let binet = |v: S| v.ln().compose(binet_jet(v.value().ln(), S::ORDER));
    let ln_x = if x.value() > 0.5 { (-y).ln_1p() } else { x.ln() };
    let ln_y = if y.value() > 0.5 { (-x).ln_1p() } else { y.ln() };
    let kernel = a * (ln_x + (b / a).ln_1p()) + b * (ln_y + (a / b).ln_1p());
    let front = kernel + (b / (a * (a + b))).ln() * 0.5 - HALF_LN_2PI + binet(a + b) - binet(a) - binet(b);
    let p = front - beta_fraction(a, b, x, y).ln();
    (p, p.ln_1m_exp())
}

/// x^a y^b / (a B(a, b)) / I_x(a, b) by the fraction of DiDonato & Morris (1992, ACM TOMS 18, 360-373, section 4): none of
/// its terms is the difference of nearly equal numbers, however large a or b is.
fn beta_fraction<S: Scalar>(a: S, b: S, x: S, y: S) -> S {
    fn above<R: Scalar>(a: R, b: R, x: R, n: f64) -> R {
        let middle = a + (2.0 * n - 1.0);
        ((a + (n - 1.0)) / middle) * ((a + b + (n - 1.0)) / middle) * (b - n) * n * x * x
    }
    fn below<R: Scalar>(a: R, b: R, x: R, y: R, n: f64) -> R {
        let lambda = a * y - b * x;
        let first = if n > 0.0 { (b - n) * x * n / (a + (2.0 * n - 1.0)) + n } else { R::constant(0.0) };
        first + (a + n) / (a + (2.0 * n + 1.0)) * (lambda + 1.0 + (y + 1.0) * n)
    }
    let (av, bv, xv, yv) = (a.value(), b.value(), x.value(), y.value());
    let (mut c, mut d, mut n) = (below(av, bv, xv, yv, 0.0), 0.0, 0usize);
    loop {
        n += 1;
        let (up, down) = (above(av, bv, xv, n as f64), below(av, bv, xv, yv, n as f64));
        d = 1.0 / (down + up * d);
        c = down + up / c;
        if (c * d - 1.0).abs() < 1e-16 || n > 50_000 {
            break;
        }
    }
    if S::ORDER > 0 {
        n = 2 * n + 20;
    }
    let mut f = below(a, b, x, y, n as f64);
    for k in (1..=n).rev() {
        f = below(a, b, x, y, (k - 1) as f64) + above(a, b, x, k as f64) / f;
    }
    f / a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::near;

    #[test]
    fn incomplete_functions_at_known_points() {
        let (p, q) = ln_incomplete_gamma(2.5, 1.0, 0.0);
        near(p.exp(), 0.150_854_963_915_396_6, 1e-13);
        near(q.exp(), 1.0 - 0.150_854_963_915_396_6, 1e-13);
        let (_, q) = ln_incomplete_gamma(2.5, 9.0, 9f64.ln());
        near(q.exp(), 0.002_946_404_587_880_292_3, 1e-13);
        // I_x(2, 3) = x^2 (6 - 8x + 3x^2)
        for x in [0.1f64, 0.4, 0.9] {
            let (p, _) = ln_incomplete_beta(2.0, 3.0, x, 1.0 - x);
            near(p.exp(), x * x * (6.0 - 8.0 * x + 3.0 * x * x), 1e-13);
        }
        // I_y(b, a) = P(Y < b), Y a negative binomial of size a: with a large one a Poisson, here of mean 5.
        let poisson = (-5.0f64).exp() * (1.0 + 5.0 + 12.5);
        for a in [1e8f64, 1e12, 1e15] {
            let (x, y) = (a / (a + 5.0), 5.0 / (a + 5.0));
            // The two differ by less than (mean + b)^2 / a; beyond that rounding errors of log a are left.
            near(ln_incomplete_beta(a, 3.0, x, y).0.exp(), poisson, 1e-13 + 100.0 / a);
        }
    }
}
