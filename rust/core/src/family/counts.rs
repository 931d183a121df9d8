//! Counts: Poisson and the negative binomials.
//!
//! With size k the negative binomial is
//!     log f = sum_{j < y} log(1 + j/k) + y log mu - log y! - (y + k) log(1 + mu/k),
//! which stays exact for k -> infinity, where it is the Poisson.

use super::closed::{Ahead, Closed, Column, Columns, Memo, Power, Powers, AT_ONCE, PLAIN};
use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use super::Data;
use crate::jet::Scalar;
use crate::special;

#[derive(Clone, Copy)]
pub struct Poisson;

impl Density for Poisson {
    #[inline]
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let rest = -p[0].value() - special::ln_factorial(row.y);
        if row.y > 0.0 {
            p[0].ln() * row.y + rest
        } else {
            rest
        }
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        let a = S::constant(row.y.floor() + 1.0);
        let (below, above) = special::ln_incomplete_gamma(a, p[0].value(), p[0].ln());
        (above, below)
    }

    fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        (p[0].value(), p[0].value())
    }

    fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        rng.poisson(p[0].value())
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean.max(0.05), 0.0, 0.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Count
    }
}

/// Poisson with log link.
#[derive(Default)]
pub struct PoissonLog;

impl Closed for PoissonLog {
    const K: usize = 1;
    const AHEAD: Ahead = Ahead::Exp;

    #[inline(always)]
    fn exponent(eta: &[f64]) -> f64 {
        eta[0]
    }

    #[inline(always)]
    fn row(&mut self, row: &Row, eta: &[f64], Power { e: mu, .. }: Power, order: usize, out: &mut [f64]) {
        out[0] = row.y * eta[0] - mu - special::ln_factorial(row.y);
        if order >= 2 {
            out[1] = row.y - mu;
            out[2] = -mu;
        }
        if order >= 3 {
            out[3] = -mu;
        }
    }
}

/// The negative binomial from log mu and log k.
fn ln_negative_binomial<S: Scalar>(y: f64, ln_mu: S, ln_k: S) -> S {
    let t = (ln_mu - ln_k).softplus();
    let zero = -(t * ln_k.exp());
    if y == 0.0 {
        return zero;
    }
    if ln_k.value() < 0.0 {
        // y log k - y log(1 + k/mu) in place of y log mu - y log(1 + mu/k): no multiples of log k are left to cancel.
        let rising = ln_k.compose(special::ln_pochhammer_jet(ln_k.value(), y, S::ORDER));
        return rising - (ln_k - ln_mu).softplus() * y + zero - special::ln_factorial(y);
    }
    let rising = ln_k.compose(special::ln_rising_jet(ln_k.value(), y, S::ORDER));
    rising + ln_mu * y - t * y + zero - special::ln_factorial(y)
}

/// Logarithm of a size beyond which the distribution function is the Poisson's to double precision.
const POISSON: f64 = 46.0;

/// F(y) = I_{k / (k + mu)}(k, y + 1)
fn negative_binomial_cdf<S: Scalar>(y: f64, ln_mu: S, ln_k: S) -> (S, S) {
    let t = ln_k - ln_mu;
    if t.value() > POISSON && ln_k.value() > POISSON {
        let (below, above) = special::ln_incomplete_gamma(S::constant(y.floor() + 1.0), ln_mu.exp(), ln_mu);
        return (above, below);
    }
    special::ln_incomplete_beta(ln_k.exp(), S::constant(y.floor() + 1.0), t.logistic(), (-t).logistic())
}

fn negative_binomial_draw(mu: f64, k: f64, rng: &mut Stream) -> f64 {
    if k > 1e15 {
        return rng.poisson(mu);
    }
    let rate = rng.ln_gamma(k) + (mu / k).ln();
    rng.poisson(rate.exp())
}

/// Half of the excess variance, in means: the other half is left to the random effects.
fn excess(s: &Summary, mean: f64) -> f64 {
    (0.5 * (s.variance / mean - 1.0)).max(0.05)
}

/// A negative binomial by the logarithms of its mean and size.
macro_rules! negative_binomial {
    ($name:ident, $doc:literal, $size:expr, $start:expr, $other:expr) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub struct $name;

        impl Density for $name {
            fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
                let ln_mu = p[0].ln();
                ln_negative_binomial(row.y, ln_mu, $size(ln_mu, p))
            }

            fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
                let ln_mu = p[0].ln();
                negative_binomial_cdf(row.y, ln_mu, $size(ln_mu, p))
            }

            fn moments(&self, _: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
                let (mu, k) = (p[0].value(), f64::exp($size(p[0].ln(), p)));
                (mu, mu * (1.0 + mu / k))
            }

            fn draw(&self, _: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
                negative_binomial_draw(p[0].value(), f64::exp($size(p[0].ln(), p)), rng)
            }

            fn start(&self, s: &Summary) -> [f64; 4] {
                let mean = s.mean.max(0.05);
                $start(mean, excess(s, mean))
            }

            fn other_starts(&self, s: &Summary) -> Vec<[f64; 4]> {
                let mean = s.mean.max(0.05);
                $other(mean, excess(s, mean))
            }

            fn legal(&self) -> Legal {
                Legal::Count
            }
        }
    };
}

fn size2<S: Scalar>(_: S, p: &[Par<S>; 4]) -> S {
    p[1].ln()
}

fn size1<S: Scalar>(ln_mu: S, p: &[Par<S>; 4]) -> S {
    ln_mu - p[1].ln()
}

fn size12<S: Scalar>(ln_mu: S, p: &[Par<S>; 4]) -> S {
    ln_mu - p[1].ln().ln_add_exp(ln_mu - p[2].ln())
}

negative_binomial!(
    NegativeBinomial2,
    "Variance mu (1 + mu / k) with k the dispersion (Hardin & Hilbe 2007).",
    size2,
    |mean: f64, excess: f64| [mean, mean / excess, 0.0, 0.0],
    |_, _| vec![]
);
negative_binomial!(
    NegativeBinomial1,
    "Variance mu (1 + phi), phi the dispersion (Hardin & Hilbe 2007).",
    size1,
    |mean: f64, excess: f64| [mean, excess, 0.0, 0.0],
    |_, _| vec![]
);
negative_binomial!(
    NegativeBinomial12,
    "Variance mu (1 + phi + mu / psi), phi the dispersion and psi the shape.",
    size12,
    |mean: f64, excess: f64| [mean, 0.5 * excess, 2.0 * mean / excess, 0.0],
    |mean: f64, excess: f64| vec![[mean, LITTLE * excess, mean / excess, 0.0]]
);

/// Share of the excess variance that is left to the dispersion where the shape has the rest.
const LITTLE: f64 = 1e-3;

/// Largest count whose sums over j < y are kept.
const TABLE: usize = 512;
/// Counts that most data do not go beyond.
const USUAL: usize = 64;

/// sum_{j < y} log(1 + j/k) - log y! from log k, with derivatives of the sum to third order.
fn rising_over_factorial(ln_k: f64, y: f64, order: usize) -> [f64; 4] {
    let [f, d1, d2, d3, _] = special::ln_rising_jet(ln_k, y, order.min(3));
    [f - special::ln_factorial(y), d1, d2, d3]
}

/// The same by y with sums of -q, d = q(1-q), -d(1-2q), and apart of d(1-6d), for q = j / (k + j), grown as they are
/// needed.
pub(super) struct Rising {
    pub k: f64,
    ln_k: f64,
    log: f64,
    sums: Vec<[f64; 4]>,
    fourth: Vec<f64>,
}

impl Rising {
    pub fn new(ln_k: f64) -> Rising {
        let mut sums = Vec::with_capacity(USUAL);
        sums.resize(2, [0.0; 4]);
        Rising { k: ln_k.exp(), ln_k, log: 0.0, sums, fourth: vec![0.0; 2] }
    }

    #[inline(always)]
    fn at(&mut self, y: f64, order: usize) -> [f64; 4] {
        let m = y as usize;
        if m >= TABLE || m as f64 != y {
            return rising_over_factorial(self.ln_k, y, order);
        }
        if m >= self.sums.len() {
            self.grow(m);
        }
        self.sums[m]
    }

    /// The fourth derivative.
    pub fn fourth(&mut self, y: f64) -> f64 {
        let m = y as usize;
        if m >= TABLE || m as f64 != y {
            return special::ln_rising_jet(self.ln_k, y, 4)[4];
        }
        for j in self.fourth.len() - 1..m {
            let j = j as f64;
            let d = self.k / (self.k + j) * (j / (self.k + j));
            self.fourth.push(self.fourth[self.fourth.len() - 1] + d * (1.0 - 6.0 * d));
        }
        self.fourth[m]
    }

    #[cold]
    fn grow(&mut self, m: usize) {
        // Varying dispersions make the table short-lived: grow no further than asked.
        for j in self.sums.len() - 1..m {
            let (s, y, j) = (self.sums[j], j as f64 + 1.0, j as f64);
            self.log += if self.k < 1e-8 { (self.k + j).ln() - self.ln_k } else { (j / self.k).ln_1p() };
            let q = j / (self.k + j);
            let d = q * if self.k < 1.0 { self.k / (self.k + j) } else { 1.0 - q };
            self.sums.push([self.log - special::ln_factorial(y), s[1] - q, s[2] + d, s[3] - d * (1.0 - 2.0 * q)]);
        }
    }
}

/// nbinom2 with log links for the mean and the size.
#[derive(Default)]
pub struct NegativeBinomial2Log {
    rising: Memo<Rising>,
    repeats: Memo<usize>,
}

impl NegativeBinomial2Log {
    /// What there is of y, and k, of some rows.
    #[inline(always)]
    fn of_counts(&mut self, y: &[f64], ln_k: &[f64], order: usize, (r, k): (&mut [Column; 4], &mut Column)) {
        let constant = y.len() > 1 && ln_k.iter().all(|v| v.to_bits() == ln_k[0].to_bits());
        if constant {
            let table = self.rising.get(ln_k[0], Rising::new);
            k.fill(table.k);
            for (i, &y) in y.iter().enumerate() {
                let of_y = table.at(y, order);
                (0..4).for_each(|d| r[d][i] = of_y[d]);
            }
            return;
        }
        for (i, (&y, &ln_k)) in y.iter().zip(ln_k).enumerate() {
            let seen = self.repeats.get(ln_k, |_| 0);
            *seen += 1;
            // A table pays only where the dispersion repeats itself.
            let (of_y, of_k) = if *seen > 1 {
                let table = self.rising.get(ln_k, Rising::new);
                (table.at(y, order), table.k)
            } else {
                (rising_over_factorial(ln_k, y, order), ln_k.exp())
            };
            k[i] = of_k;
            (0..4).for_each(|d| r[d][i] = of_y[d]);
        }
    }
}

impl Columns for NegativeBinomial2Log {
    const K: usize = 2;

    fn fill(
        &mut self,
        data: &Data<'_>,
        first: usize,
        n: usize,
        eta: &[Column; 2],
        order: usize,
        out: &mut [Column; PLAIN],
    ) {
        let (y, mut r, mut k, mut powers) =
            (&data.y[first..first + n], [[0.0; AT_ONCE]; 4], [0.0; AT_ONCE], Powers::none());
        let ln_k = &eta[1][..n];
        self.of_counts(y, ln_k, order, (&mut r, &mut k));
        powers.take(Ahead::ExpAndLn1p, eta[0].iter().zip(ln_k).map(|(eta, ln_k)| -(eta - ln_k).abs()));
        by_parts(y, eta, (&r, &k), &powers, order, out);
    }
}

/// The derivatives of nbinom2 from those of the rising factorials and the powers of -|t|, t = log mu - log k.
#[inline(never)]
fn by_parts(
    y: &[f64],
    eta: &[Column; 2],
    (r, k): (&[Column; 4], &Column),
    powers: &Powers,
    order: usize,
    out: &mut [Column; PLAIN],
) {
    for (i, &y) in y.iter().enumerate().take(AT_ONCE) {
        let soft = (eta[0][i] - eta[1][i]).max(0.0) + powers.at(i).l;
        out[0][i] = r[0][i] + y * eta[0][i] - y * soft - k[i] * soft;
    }
    if order < 2 {
        return;
    }
    for (i, &y) in y.iter().enumerate().take(AT_ONCE) {
        let (t, power, k) = (eta[0][i] - eta[1][i], powers.at(i), k[i]);
        let ks = k * (t.max(0.0) + power.l);
        let (p, q) = power.logistic_pair(t);
        let n = y + k;
        let (kp, npq) = (k * p, n * p * q);
        let third = npq * (q - p);
        out[1][i] = y - n * p;
        out[2][i] = r[1][i] - ks + n * p;
        out[3][i] = -npq;
        out[4][i] = npq - kp;
        out[5][i] = r[2][i] - ks + 2.0 * kp - npq;
        out[6][i] = -third;
        out[7][i] = third - kp * q;
        out[8][i] = 2.0 * kp * q - kp - third;
        out[9][i] = r[3][i] - ks + 3.0 * kp - 3.0 * kp * q + third;
    }
}
