//! Tweedie with power 1 < p < 2: a Poisson number of gammas; variance phi mu^p.
//!
//! For y > 0 (Dunn & Smyth 2005, eq. 4)
//!     log f = -log y + log sum_j W_j - (y mu^(1-p) / (p-1) + mu^(2-p) / (2-p)) / phi,
//!     log W_j = j z - log j! - log Gamma(j a),    a = (2-p) / (p-1),
//!     z = a log y - a log(p-1) - (1+a) log phi - log(2-p).
//! The series is a function of (z, a) whose derivatives are moments of its terms; around a wide mode only every h-th
//! term is needed (the trapezoidal rule is exact for so smooth a sum), so the cost does not grow with y / phi.

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::{Bivariate, Scalar};
use crate::special;

#[derive(Clone, Copy)]
pub struct Tweedie;

/// Terms below the largest by this much on the log scale do not count.
const NEGLIGIBLE: f64 = 42.0;

/// Indices of the series from the first to the last that counts, and the step between them.
fn indices(z: f64, a: f64) -> (f64, f64, f64) {
    let term = |j: f64| j * z - special::ln_factorial(j) - special::lgamma(j * a);
    // Stirling: j^(1+a) a^a = exp(z) at the mode
    let mode = ((z - a * a.ln()) / (1.0 + a)).exp().clamp(1.0, 1e15);
    let sd = (mode / (1.0 + a)).sqrt();
    let step = if sd >= 6.0 && mode > 14.0 * sd + 1.0 { (0.5 * sd).floor() } else { 1.0 };
    let centre = mode.round();
    let top = term(centre);
    let reach = |sign: f64| {
        let mut j = centre;
        for _ in 0..100_000 {
            let next = j + sign * step;
            if next < 1.0 || !(term(next) > top - NEGLIGIBLE) {
                break;
            }
            j = next;
        }
        j
    };
    (reach(-1.0), reach(1.0), step)
}

/// log sum_j exp(j z - log j! - lgamma(j a)) in (z + slope (a - a0), a): partial derivatives at a0 and the slope.
fn series(z: f64, a: f64, order: usize) -> (Bivariate, f64) {
    let (first, last, step) = indices(z, a);
    let count = ((last - first) / step).round() as usize + 1;
    let term = |j: f64| j * z - special::ln_factorial(j) - special::lgamma(j * a);
    let middle = first + step * (count / 2) as f64;
    let top = term(middle);
    let (mut s0, mut s1) = (0.0, 0.0);
    for i in 0..count {
        let j = first + step * i as f64;
        let w = (term(j) - top).exp();
        s0 += w;
        s1 += w * (j - middle);
    }
    let mut f = [0.0; 10];
    f[0] = top + f64::ln(s0 * step);
    if order == 0 {
        return (f, 0.0);
    }
    let mean = middle + s1 / s0;
    let slope = special::polygammas(mean * a)[0];
    // First derivatives in a of each term, b = j (slope - psi(j a)); c and e are its second and third.
    let statistics = |j: f64| {
        let p = special::polygammas(j * a);
        (j * (slope - p[0]), -j * j * p[1], -j * j * j * p[2])
    };
    let (b0, c0, _) = statistics(mean);
    let (mut sb, mut sc, mut se) = (0.0, 0.0, 0.0);
    // Moments about the statistics at the mean, corrected to central ones below.
    let (mut jj, mut jb, mut bb) = (0.0, 0.0, 0.0);
    let (mut jjj, mut jjb, mut jbb, mut bbb) = (0.0, 0.0, 0.0, 0.0);
    let (mut jc, mut bc) = (0.0, 0.0);
    for i in 0..count {
        let j = first + step * i as f64;
        let w = (term(j) - top).exp() / s0;
        let (b, c, e) = statistics(j);
        let (d, b, c) = (j - mean, b - b0, c - c0);
        sb += w * b;
        sc += w * c;
        se += w * e;
        jj += w * d * d;
        jb += w * d * b;
        bb += w * b * b;
        jjj += w * d * d * d;
        jjb += w * d * d * b;
        jbb += w * d * b * b;
        bbb += w * b * b * b;
        jc += w * d * c;
        bc += w * b * c;
    }
    f[1] = mean;
    f[2] = b0 + sb;
    f[3] = jj;
    f[4] = jb;
    f[5] = bb - sb * sb + c0 + sc;
    f[6] = jjj;
    f[7] = jjb - sb * jj;
    f[8] = jbb - 2.0 * sb * jb + jc;
    f[9] = bbb - 3.0 * sb * bb + 2.0 * sb * sb * sb + 3.0 * (bc - sb * sc) + se;
    (f, slope)
}

/// What every formula needs: log mu, log phi, log(p-1), log(2-p), a.
struct Parts<S> {
    lm: S,
    lp: S,
    l1: S,
    l2: S,
    a: S,
}

impl<S: Scalar> Parts<S> {
    fn new(p: &[Par<S>; 4]) -> Self {
        let (l1, l2) = (p[2].ln(), p[2].ln_1m());
        Parts { lm: p[0].ln(), lp: p[1].ln(), l1, l2, a: (l2 - l1).exp() }
    }

    /// log of the Poisson mean mu^(2-p) / (phi (2-p)).
    fn ln_rate(&self) -> S {
        self.lm * self.l2.exp() - self.lp - self.l2
    }

    /// log of the gamma scale phi (p-1) mu^(p-1).
    fn ln_scale(&self) -> S {
        self.lp + self.l1 + self.lm * self.l1.exp()
    }
}

impl Density for Tweedie {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let t = Parts::new(p);
        let rate = t.ln_rate().exp();
        if row.y == 0.0 {
            return -rate;
        }
        let ln_y = row.y.ln();
        // y mu^(1-p) / (phi (p-1)) = y / (mu^(p-1) phi (p-1))
        let linear = (-(t.lm * t.l1.exp()) - t.lp - t.l1 + ln_y).exp();
        let z = t.a * (-t.l1 + ln_y) - (t.a + 1.0) * t.lp - t.l2;
        let (z0, a0) = (z.value(), t.a.value());
        if !(z0.is_finite() && a0 > 0.0 && a0.is_finite()) {
            return S::constant(f64::NEG_INFINITY);
        }
        let (f, slope) = series(z0, a0, S::ORDER);
        let w = (z - (t.a - a0) * slope).compose2(t.a, &f);
        w - linear - rate - ln_y
    }

    /// exp(-rate) + sum_n Poisson(n; rate) P(n a, y / scale)
    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        if row.y < 0.0 {
            return (S::constant(f64::NEG_INFINITY), S::constant(0.0));
        }
        let t = Parts::new(p);
        let (lr, rate) = (t.ln_rate(), t.ln_rate().exp());
        if row.y == 0.0 {
            return (-rate, (-rate).ln_1m_exp());
        }
        let lx = -t.ln_scale() + row.y.ln();
        let x = lx.exp();
        let (mut f, mut s) = (-rate, S::constant(f64::NEG_INFINITY));
        let r = rate.value();
        let first = (r - 9.0 * r.sqrt() - 10.0).floor().max(1.0);
        let last = (r + 10.0 * r.sqrt() + 40.0).ceil();
        let mut n = first;
        while n <= last {
            let weight = lr * n - rate - special::ln_factorial(n);
            let (below, above) = special::ln_incomplete_gamma(t.a * n, x, lx);
            f = f.ln_add_exp(weight + below);
            s = s.ln_add_exp(weight + above);
            n += 1.0;
        }
        (f, s)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let mu = p[0].value();
        (mu, p[1].value() * mu.powf(1.0 + p[2].value()))
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let t = Parts::new(p);
        let n = rng.poisson(t.ln_rate().exp());
        if n == 0.0 {
            return 0.0;
        }
        (rng.ln_gamma(n * t.a) + t.ln_scale()).exp()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean, 0.7 * s.variance / s.mean.powf(1.5), 0.5, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::NonNegative
    }
}
