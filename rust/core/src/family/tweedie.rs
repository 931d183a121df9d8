//! Tweedie with power 1 < p < 2: a Poisson number of gammas; variance phi mu^p.
//!
//! For y > 0 (Dunn & Smyth 2005, eq. 4)
//!     log f = -log y + log sum_j W_j - (y mu^(1-p) / (p-1) + mu^(2-p) / (2-p)) / phi,
//!     log W_j = j z - log j! - log Gamma(j a),    a = (2-p) / (p-1),
//!     z = a log y - a log(p-1) - (1+a) log phi - log(2-p).
//! The series is a function of (z, a) whose derivatives are moments of its terms; around a wide mode only every h-th
//! term is needed (the trapezoidal rule is exact for so smooth a sum), so the cost does not grow with y / phi.
//!
//! With a power near 1 or a small phi the three parts are huge and cancel. There each term is written by deviances,
//!     f = sum_j Poisson(j; rate) Gamma(y; j a, scale),
//!     log Poisson = j D(log rate - log j) - log(2 pi j) / 2 - binet(j),    D(t) = 1 + t - exp(t) <= 0,
//!     log y Gamma = s D(log x - log s) + log(s / 2 pi) / 2 - binet(s),     s = j a, x = y / scale,
//! which rounding cannot lift above log(a) / 2 - log(2 pi); beyond 1e22 for j (1 + a) the density counts as 0.

use std::cell::RefCell;

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::{Bivariate, Scalar};
use crate::special;

#[derive(Clone, Copy)]
pub struct Tweedie;

/// Terms below the largest by this much on the log scale do not count: with third moments of the terms left out, 9
/// standard deviations away, they are below the rounding of the sum.
const NEGLIGIBLE: f64 = 39.0;

/// Least p - 1. Where all responses are multiples of one number, the density of a power near 1 is that of phi times a
/// Poisson count with next to no spread about it, and has no bound: the standard deviation of a gamma is sqrt(p - 1).
const LEAST: f64 = 1e-6;

/// Size of j (1 + a) from which the parts of the density cancel, and up to which its deviances mean something.
const CANCELS: f64 = 1e4;
const TRUSTED: f64 = 1e22;

/// Indices of the series from the first to the last that counts, and the step between them.
fn indices(mode: f64, a: f64, mut term: impl FnMut(f64) -> f64) -> (f64, f64, f64) {
    let mode = mode.max(1.0);
    let sd = (mode / (1.0 + a)).sqrt();
    let step = if sd >= 6.0 && mode > 14.0 * sd + 1.0 { (0.5 * sd).floor() } else { 1.0 };
    let centre = mode.round();
    let top = term(centre);
    let mut reach = |sign: f64| {
        let (mut j, mut best) = (centre, top);
        for _ in 0..100_000 {
            let next = j + sign * step;
            let value = if next < 1.0 { f64::NAN } else { term(next) };
            if !(value > best - NEGLIGIBLE) {
                break;
            }
            best = value.max(best);
            j = next;
        }
        j
    };
    (reach(-1.0), reach(1.0), step)
}

/// Rate of the Poisson count in a distribution function from which its sum is not taken.
const MOST_TERMS: f64 = 1e10;
/// Indices whose gamma functions are kept.
const KEPT: usize = 2048;

/// log j! + log Gamma(j a) and psi, psi', psi'', psi''' at j a, kept for one a: the power is mostly the same from row to row.
struct Terms {
    a: f64,
    /// Which a the entries belong to.
    round: u64,
    values: Vec<(u64, f64)>,
    slopes: Vec<(u64, [f64; 4])>,
    weights: Vec<f64>,
}

impl Terms {
    fn new() -> Self {
        Terms {
            a: f64::NAN,
            round: 0,
            values: vec![(0, 0.0); KEPT],
            slopes: vec![(0, [0.0; 4]); KEPT],
            weights: vec![],
        }
    }

    fn turn_to(&mut self, a: f64) {
        if a.to_bits() != self.a.to_bits() {
            (self.a, self.round) = (a, self.round + 1);
        }
    }

    #[inline]
    fn value(&mut self, j: f64) -> f64 {
        let make = |a: f64| special::ln_factorial(j) + special::lgamma(j * a);
        match self.values.get_mut(j as usize) {
            Some((round, value)) if *round == self.round => *value,
            Some(kept) => {
                *kept = (self.round, make(self.a));
                kept.1
            }
            None => make(self.a),
        }
    }

    #[inline]
    fn slopes(&mut self, j: f64) -> [f64; 4] {
        let make = |a: f64| special::polygammas(j * a);
        match self.slopes.get_mut(j as usize) {
            Some((round, value)) if *round == self.round => *value,
            Some(kept) => {
                *kept = (self.round, make(self.a));
                kept.1
            }
            None => make(self.a),
        }
    }
}

thread_local! {
    static TERMS: RefCell<Terms> = RefCell::new(Terms::new());
}

/// log sum_j exp(j z - log j! - lgamma(j a)) in (z + slope (a - a0), a): partial derivatives at a0 and the slope.
fn series(z: f64, a: f64, order: usize) -> (Bivariate, f64) {
    TERMS.with(|terms| {
        let terms = &mut terms.borrow_mut();
        terms.turn_to(a);
        series_of(terms, z, order)
    })
}

fn series_of(terms: &mut Terms, z: f64, order: usize) -> (Bivariate, f64) {
    let a = terms.a;
    // Stirling: j^(1+a) a^a = exp(z) at the mode
    let mode = ((z - a * a.ln()) / (1.0 + a)).exp();
    let (first, last, step) = indices(mode, a, |j| j * z - terms.value(j));
    let count = ((last - first) / step).round() as usize + 1;
    let middle = first + step * (count / 2) as f64;
    let top = middle * z - terms.value(middle);
    let (mut s0, mut s1) = (0.0, 0.0);
    let mut weights = std::mem::take(&mut terms.weights);
    weights.clear();
    for i in 0..count {
        let j = first + step * i as f64;
        let w = (j * z - terms.value(j) - top).exp();
        weights.push(w);
        s0 += w;
        s1 += w * (j - middle);
    }
    let mut f = [0.0; 15];
    f[0] = top + f64::ln(s0 * step);
    let mut slope = 0.0;
    if order > 0 {
        let mean = middle + s1 / s0;
        let share = 1.0 / s0;
        weights.iter_mut().for_each(|w| *w *= share);
        slope = moments(terms, &weights, (first, step), mean, &mut f);
        if order >= 4 {
            f[10..].copy_from_slice(&fourth(terms, &weights, (first, step), mean, slope));
        }
    }
    terms.weights = weights;
    (f, slope)
}

/// Derivatives of the log of the series from the moments of its terms; returns the slope.
fn moments(terms: &mut Terms, weights: &[f64], (first, step): (f64, f64), mean: f64, f: &mut Bivariate) -> f64 {
    // The index next to the mean, where statistics of the terms are nearly central.
    let centre = first + step * ((mean - first) / step).round();
    let slope = terms.slopes(centre)[0];
    // First derivatives in a of each term, b = j (slope - psi(j a)); c and e are its second and third.
    let mut statistics = |j: f64| {
        let p = terms.slopes(j);
        (j * (slope - p[0]), -j * j * p[1], -j * j * j * p[2])
    };
    let (b0, c0, _) = statistics(centre);
    let (mut sb, mut sc, mut se) = (0.0, 0.0, 0.0);
    // Moments about the statistics at the centre, corrected to central ones below.
    let (mut jj, mut jb, mut bb) = (0.0, 0.0, 0.0);
    let (mut jjj, mut jjb, mut jbb, mut bbb) = (0.0, 0.0, 0.0, 0.0);
    let (mut jc, mut bc) = (0.0, 0.0);
    for (i, w) in weights.iter().enumerate() {
        let j = first + step * i as f64;
        let (b, c, e) = statistics(j);
        let (d, b, c) = (j - mean, b - b0, c - c0);
        let (wd, wb) = (w * d, w * b);
        sb += wb;
        sc += w * c;
        se += w * e;
        jj += wd * d;
        jb += wd * b;
        bb += wb * b;
        jjj += wd * d * d;
        jjb += wd * d * b;
        jbb += wd * b * b;
        bbb += wb * b * b;
        jc += wd * c;
        bc += wb * c;
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
    slope
}

/// The fourth derivatives, xxxx to aaaa: cumulants of the index d with the statistics b, c, e and g of the terms, their
/// first to fourth derivatives in a.
fn fourth(terms: &mut Terms, weights: &[f64], (first, step): (f64, f64), mean: f64, slope: f64) -> [f64; 5] {
    let mut statistics = |i: usize| {
        let j = first + step * i as f64;
        let (p, ja) = (terms.slopes(j), j * j);
        [j - mean, j * (slope - p[0]), -ja * p[1], -ja * j * p[2], -ja * ja * p[3]]
    };
    // Near the mean of each, so that little cancels in its sum.
    let near = statistics(((mean - first) / step).round() as usize);
    let mut centre = [0.0; 5];
    for (i, w) in weights.iter().enumerate() {
        let s = statistics(i);
        (1..5).for_each(|t| centre[t] += w * (s[t] - near[t]));
    }
    let centre: [f64; 5] = std::array::from_fn(|t| if t > 0 { centre[t] + near[t] } else { 0.0 });
    // Sums of the products whose cumulants they are, and covariances.
    let (mut sums, mut two) = ([0.0; 5], [0.0; 3]);
    for (i, w) in weights.iter().enumerate() {
        let s = statistics(i);
        let [d, b, c, e, _]: [f64; 5] = std::array::from_fn(|t| s[t] - centre[t]);
        let (dd, db, bb) = (d * d, d * b, b * b);
        let terms = [
            dd * dd,
            dd * db,
            dd * (bb + c),
            db * (bb + 3.0 * c) + d * e,
            bb * (bb + 6.0 * c) + 3.0 * c * c + 4.0 * b * e,
        ];
        sums.iter_mut().zip(terms).for_each(|(s, t)| *s += w * t);
        two.iter_mut().zip([dd, db, bb]).for_each(|(s, t)| *s += w * t);
    }
    let [dd, db, bb] = two;
    [
        sums[0] - 3.0 * dd * dd,
        sums[1] - 3.0 * dd * db,
        sums[2] - dd * bb - 2.0 * db * db,
        sums[3] - 3.0 * db * bb,
        sums[4] - 3.0 * bb * bb + centre[4],
    ]
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
        let (mut l1, mut l2) = (p[2].ln(), p[2].ln_1m());
        if l1.value() < LEAST.ln() {
            (l1, l2) = (S::constant(LEAST.ln()), S::constant((-LEAST).ln_1p()));
        }
        Parts { lm: p[0].ln(), lp: p[1].ln(), l1, l2, a: (l2 - l1).exp() }
    }

    /// log of the Poisson mean mu^(2-p) / (phi (2-p)).
    fn ln_rate(&self) -> S {
        self.lm * self.l2.exp() - self.lp - self.l2
    }

    /// log of the number of gammas whose means add up to y, y / (phi (2-p) mu^(p-1)).
    fn ln_number(&self, ln_y: f64) -> S {
        -self.lp - self.l2 - self.lm * self.l1.exp() + ln_y
    }

    /// log of the gamma scale phi (p-1) mu^(p-1).
    fn ln_scale(&self) -> S {
        self.lp + self.l1 + self.lm * self.l1.exp()
    }
}

/// D(t) = 1 + t - exp(t)
fn deviance(t: f64) -> f64 {
    special::deviance_part(t)
}

/// log sum_j Poisson(j; rate) y Gamma(y; j a, scale) from the logarithms of the rate and of y / (a scale).
fn by_deviances<S: Scalar>(lr: S, lx: S, a: S, mode: f64) -> S {
    let (lr0, lx0, a0) = (lr.value(), lx.value(), a.value());
    let term = |j: f64| {
        let (lj, s) = (j.ln(), j * a0);
        let binets = special::binet_jet(lj, 0)[0] + special::binet_jet(s.ln(), 0)[0];
        j * deviance(lr0 - lj) + s * deviance(lx0 - lj) - binets
    };
    // What is left of -log(2 pi j) / 2 + log(j a / 2 pi) / 2 does not depend on j.
    let ln_a = a.ln();
    let front = ln_a * 0.5 - special::LN_2PI;
    let size = mode * (1.0 + a0);
    if mode >= 36.0 * (1.0 + a0) && (size > 1e12 || !(term(mode).abs() < 1e10)) {
        // Laplace's approximation, wrong by 1 / size: single terms are less exact than that.
        let one = a + 1.0;
        let lj = (lr + a * lx) / one;
        let (j, ls) = (lj.exp(), lj + ln_a);
        let binet = |l: S| l.compose(special::binet_jet(l.value(), S::ORDER));
        let parts = (special::deviance_part(lr - lj) + a * special::deviance_part(lx - lj)) * j;
        let value = parts - binet(ls) - binet(lj) + front + special::HALF_LN_2PI + (lj - one.ln()) * 0.5;
        return if value.value().is_finite() { value } else { S::constant(f64::NEG_INFINITY) };
    }
    let (first, last, step) = indices(mode, a0, term);
    let count = ((last - first) / step).round() as usize + 1;
    let at = |i: usize| first + step * i as f64;
    let (mut middle, mut top) = (first, term(first));
    for i in 1..count {
        let value = term(at(i));
        if value > top {
            (middle, top) = (at(i), value);
        }
    }
    if !top.is_finite() {
        return S::constant(f64::NEG_INFINITY);
    }
    let full = |j: f64| {
        let lj = j.ln();
        let ls = ln_a + lj;
        special::deviance_part(lr - lj) * j + a * special::deviance_part(lx - lj) * j
            - ls.compose(special::binet_jet(ls.value(), S::ORDER))
            - special::binet_jet(lj, 0)[0]
    };
    // Relative to the largest term, so that derivatives do not cancel.
    let base = full(middle);
    let mut sum = S::constant(0.0);
    for i in 0..count {
        let d = full(at(i)) - base;
        // Above 0 only by rounding.
        sum = sum + (d - d.value().max(0.0)).exp();
    }
    base + sum.ln() + step.ln() + front
}

impl Density for Tweedie {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let t = Parts::new(p);
        let lr = t.ln_rate();
        let rate = lr.exp();
        if row.y == 0.0 {
            return -rate;
        }
        let ln_y = row.y.ln();
        // log of y / (phi (p-1) mu^(p-1)), the gamma part of the exponent.
        let lg = -(t.lm * t.l1.exp()) - t.lp - t.l1 + ln_y;
        let a0 = t.a.value();
        // The mode of the series, by Stirling's formula: log j = (log rate + a log number) / (1 + a)
        let share = 1.0 / (1.0 + a0);
        let number = lg.value() + t.l1.value() - t.l2.value();
        let mode = (lr.value() * share + number * (1.0 - share)).exp();
        let size = mode.max(1.0) * (1.0 + a0);
        if !(a0 > 0.0 && size < TRUSTED) {
            return S::constant(f64::NEG_INFINITY);
        }
        if size > CANCELS || rate.value() > CANCELS {
            return by_deviances(lr, t.ln_number(ln_y), t.a, mode) - ln_y;
        }
        let z = t.a * (-t.l1 + ln_y) - (t.a + 1.0) * t.lp - t.l2;
        let z0 = z.value();
        if !z0.is_finite() {
            return S::constant(f64::NEG_INFINITY);
        }
        // The series does not depend on mu.
        let order = if z.is_constant() && t.a.is_constant() { 0 } else { S::ORDER };
        let (f, slope) = series(z0, a0, order);
        let w = (z - (t.a - a0) * slope).compose2(t.a, &f);
        w - lg.exp() - rate - ln_y
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
        if !(r < MOST_TERMS) {
            // More terms than can be added up: by then it is the gamma of the same mean and variance, mu^(p - 2) phi, which
            // it becomes for p -> 2.
            let ln_shape = lr + t.l2;
            let lx = ln_shape - t.lm + row.y.ln();
            return special::ln_incomplete_gamma(ln_shape.exp(), lx.exp(), lx);
        }
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

#[cfg(test)]
mod tests {
    use super::super::link::Link;
    use super::*;
    use crate::jet::Jet;

    type Third = Jet<3, 6, 10>;

    fn density<S: Scalar>(y: f64, eta: [f64; 3]) -> S {
        let par = |k: usize, link: Link| Par { eta: S::variable(eta[k], k), link };
        let p = [par(0, Link::Log), par(1, Link::Log), par(2, Link::Logit), Par::constant(0.0)];
        Tweedie.ln_density(&Row { y, trials: 1.0, se: 0.0, randomised: None }, &p)
    }

    fn parts(y: f64, eta: [f64; 3]) -> (Third, Third, Third, f64) {
        let par = |k: usize, link: Link| Par { eta: Third::variable(eta[k], k), link };
        let t = Parts::new(&[par(0, Link::Log), par(1, Link::Log), par(2, Link::Logit), Par::constant(0.0)]);
        let (lr, lx, a) = (t.ln_rate(), t.ln_number(y.ln()), t.a);
        let mode = ((lr.v + a.v * lx.v) / (1.0 + a.v)).exp();
        (lr, lx, a, mode)
    }

    fn numbers(x: &Third) -> [f64; 20] {
        let mut out = [0.0; 20];
        x.store(&mut out);
        out
    }

    #[test]
    fn family_tweedie_both_series_agree() {
        for y in [0.02, 0.7, 3.0, 40.0] {
            for eta in [[0.5, 0.3, 0.2], [1.0, -2.0, 2.0], [-0.5, 1.0, -2.0], [2.0, 0.0, 4.0], [1.0, 0.5, -3.0]] {
                let (lr, lx, a, mode) = parts(y, eta);
                let (x, z) = (numbers(&density::<Third>(y, eta)), numbers(&(by_deviances(lr, lx, a, mode) - y.ln())));
                for i in 0..20 {
                    assert!((x[i] - z[i]).abs() < 1e-9 * (1.0 + z[i].abs()), "{y} {eta:?} {i}: {} {}", x[i], z[i]);
                }
            }
        }
    }

    #[test]
    fn family_tweedie_derivatives_where_the_parts_cancel() {
        for (y, eta) in
            [(3.0, [1.0, -12.0, 0.3]), (2.5, [0.9, -25.0, -1.0]), (2.0, [0.5, 0.1, -7.0]), (2.0, [0.5, 0.1, 14.0])]
        {
            let h = if eta[1] < -20.0 || eta[2] > 10.0 { 1e-4 } else { 1e-6 };
            let x = density::<Third>(y, eta);
            assert!((x.v - density::<f64>(y, eta)).abs() < 1e-10 * (1.0 + x.v.abs()));
            for k in 0..3 {
                let shifted = |d: f64| {
                    let mut e = eta;
                    e[k] += d;
                    density::<Third>(y, e)
                };
                let (up, down) = (numbers(&shifted(h)), numbers(&shifted(-h)));
                let own = numbers(&x);
                // First from values, second from gradients, third from seconds.
                let slope = |i: usize| (up[i] - down[i]) / (2.0 * h);
                let check = |i: usize, at: usize| {
                    let scale = 1.0 + own[1..].iter().fold(0.0f64, |s, v| s.max(v.abs()));
                    assert!((slope(i) - own[at]).abs() < 1e-5 * scale, "{y} {eta:?} {k}: {} {}", slope(i), own[at]);
                };
                check(0, 1 + k);
                check(1 + k, 4 + crate::jet::pair(3, k, k));
            }
        }
    }

    #[test]
    fn family_tweedie_limits_are_never_too_high() {
        // phi -> 0: the saddle point approximation, -log(2 pi phi y^p) / 2 - deviance / (2 phi)
        let p: f64 = 1.5;
        for ln_phi in [-12.0, -20.0, -30.0, -40.0] {
            let (y, mu): (f64, f64) = (2.0, 2.0 * (1.0 + (0.5 * ln_phi).exp()));
            let unit = 2.0
                * (y.powf(2.0 - p) / ((1.0 - p) * (2.0 - p)) - y * mu.powf(1.0 - p) / (1.0 - p)
                    + mu.powf(2.0 - p) / (2.0 - p));
            // The deviance itself cancels; near mu it is (y - mu)^2 / mu^p.
            let unit = if ln_phi < -15.0 { (y - mu) * (y - mu) / mu.powf(p) } else { unit };
            let exact = -0.5 * (special::LN_2PI + ln_phi + p * y.ln()) - 0.5 * unit / ln_phi.exp();
            let x = density::<f64>(y, [mu.ln(), ln_phi, 0.0]);
            assert!((x - exact).abs() < 1e-2, "{ln_phi}: {x} {exact}");
        }
        // p -> 2: gamma with shape 1 / phi
        for logit in [12.0, 20.0, 35.0] {
            let (y, mu, phi): (f64, f64, f64) = (1.7, 2.2, 0.4);
            let shape = 1.0 / phi;
            let exact = (shape - 1.0) * y.ln() - y * shape / mu - special::lgamma(shape) + shape * (shape / mu).ln();
            let x = density::<f64>(y, [mu.ln(), phi.ln(), logit]);
            assert!((x - exact).abs() < 1e-4, "{logit}: {x} {exact}");
        }
        // p -> 1: Poisson in y / phi, whose mass at j spreads to a gamma of variance phi y (p-1), p - 1 at least LEAST
        for logit in [-12.0f64, -18.0, -25.0] {
            let (j, mu): (f64, f64) = (3.0, 2.2);
            let poisson = j * mu.ln() - mu - special::ln_factorial(j);
            let exact = poisson - 0.5 * (special::LN_2PI + j.ln() + logit.max(LEAST.ln()));
            let x = density::<f64>(j, [mu.ln(), 0.0, logit]);
            assert!((x - exact).abs() < 1e-3, "{logit}: {x} {exact}");
            assert!(density::<f64>(2.5, [mu.ln(), 0.0, logit]) < -100.0);
        }
        // Anywhere: no more than log(a) / 2 - log(2 pi) and the width of the sum, and quick.
        for y in [1e-8, 0.37, 3.0, 1e6] {
            for lm in [-30.0, 0.0, 3.0, 30.0] {
                for lp in [-700.0, -60.0, -30.0, -10.0, 0.0, 10.0, 60.0, 700.0] {
                    for lq in [-800.0, -40.0, -15.0, -5.0, 0.0, 5.0, 15.0, 40.0, 800.0] {
                        let x = density::<f64>(y, [lm, lp, lq]);
                        // A density in y of standard deviation sqrt(phi y^p) or, near a power of 1, of the gamma.
                        assert!(!x.is_nan() && x < 60.0 - y.ln(), "{y} {lm} {lp} {lq}: {x}");
                        let z = density::<Jet<3, 6, 0>>(y, [lm, lp, lq]);
                        assert!(
                            z.v == x || (z.v - x).abs() < 1e-9 * x.abs().max(1.0),
                            "{y} {lm} {lp} {lq}: {x} {}",
                            z.v
                        );
                    }
                }
            }
        }
    }
}
