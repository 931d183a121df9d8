//! Draws of likelihood ratios that test one variance against 0 (Crainiceanu & Ruppert 2004): suprema over lambda >= 0 of
//!
//! g(lambda) = power log(D(0) / D(lambda)) - P(lambda),
//! D = rest + sum_j s_j / (1 + lambda mu_j),   P = sum_k c_k log(1 + lambda xi_k),
//!
//! s_j and rest independent chi-squares. exp(P / power) D, of which the least is wanted, is linear in them, so that a
//! grid over log(lambda) is a few multiplications; its local minima are refined by Newton's method.

use rayon::prelude::*;

use crate::family::{ChiSquare, Normals, Stream};

const BLOCK: usize = 4096; // draws that share a stream
const PARALLEL: usize = 50_000; // draws below which one thread is enough
const STEP: f64 = 0.75; // of the grid, in log(lambda)
const FINE: usize = 12; // steps of the table of the penalty in one of the grid: its cubics err by sum(c) 5e-9
const ERROR: f64 = 2e-5; // left by the last step of Newton's, which is of the order of its promise times its length
const BELOW: f64 = 1e-12; // of a maximum that is not at 0, at least
const EQUAL: f64 = 1e-9; // relative difference of numbers that are one
const END: f64 = 12.0; // log(lambda mu) where the grid ends
const FAR: f64 = 60.0; // log(lambda mu) from which on nothing changes

/// What the ratio is made of.
#[derive(Clone, Debug)]
pub struct Law {
    pub mu: Vec<f64>,
    /// Degrees of freedom of s_j, positive, not necessarily whole.
    pub df: Vec<f64>,
    /// Those of `rest`; 0: there is none.
    pub rest: f64,
    pub xi: Vec<f64>,
    pub counts: Vec<f64>,
    pub power: f64,
    /// Degrees of freedom of a chi-square e that adds power log(1 + e / D(0)); 0: none.
    pub effects: f64,
}

/// Draw n suprema. The same seed gives the same draws, whatever the number of threads.
pub fn draws(law: &Law, n: usize, seed: u64) -> Vec<f64> {
    let search = Search::new(law);
    let mut out = vec![0.0; n];
    let fill = |(i, block): (usize, &mut [f64])| {
        search.fill(block, Stream::new(seed.wrapping_add((i as u64).wrapping_mul(0xD1B5_4A32_D192_ED03))))
    };
    if n < PARALLEL {
        out.chunks_mut(BLOCK).enumerate().for_each(fill);
    } else {
        out.par_chunks_mut(BLOCK).enumerate().for_each(fill);
    }
    out
}

/// A law with its grid.
struct Search<'a> {
    law: &'a Law,
    /// log(lambda) of the first point.
    start: f64,
    points: usize,
    /// exp(P / power) / (1 + lambda mu_j) by node and point; last exp(P / power).
    table: Vec<f64>,
    /// P and its derivative by log(lambda) times the step, by fine point.
    penalty: Vec<(f64, f64)>,
    /// Derivatives of P by lambda at 0, the second with its sign changed.
    slope: f64,
    bend: f64,
    single: bool,
}

impl<'a> Search<'a> {
    fn new(law: &'a Law) -> Self {
        let (least, most) = law.mu.iter().fold((f64::INFINITY, 0f64), |(a, b), &x| (a.min(x), b.max(x)));
        // A maximum at lambda mu = e is about sum(c) e^2 / 2: what lies below the grid is found from derivatives at 0.
        let start = 0.5 * (1e-4 / law.counts.iter().sum::<f64>().max(1.0)).ln() - most.ln();
        let end = if law.rest < 10.0 { END } else { 0.5 * END } - least.ln();
        let points = if law.mu.is_empty() { 0 } else { ((end - start) / STEP).ceil() as usize + 1 };
        let points = points.next_multiple_of(4); // as processors multiply
        let lambda: Vec<f64> = (0..points).map(|g| (start + STEP * g as f64).exp()).collect();
        let size: Vec<f64> = lambda.iter().map(|&l| (law.penalty(l) / law.power).exp()).collect();
        let mut table = vec![];
        for &mu in law.mu.iter().chain(&[0.0]) {
            table.extend(lambda.iter().zip(&size).map(|(l, s)| s / (1.0 + l * mu)));
        }
        let fine = points.saturating_sub(1) * FINE + 1;
        let step = STEP / FINE as f64;
        let penalty = |i: usize| {
            let lambda = (start + step * i as f64).exp();
            (law.penalty(lambda), step * law.penalty_slopes(lambda).0)
        };
        let penalty = if points > 0 { (0..fine).map(penalty).collect() } else { vec![] };
        let moment = |k: i32| law.xi.iter().zip(&law.counts).map(|(x, c)| c * x.powi(k)).sum();
        let (slope, bend) = (moment(1), moment(2));
        let lambda = |i: usize| if i == 0 { 0.0 } else { (start + step * (i - 1) as f64).exp() };
        let single = !law.mu.is_empty() && (0..=fine).all(|i| law.crosses_once(lambda(i), least));
        Search { law, start, points, table, penalty, slope, bend, single }
    }

    fn fill(&self, out: &mut [f64], stream: Stream) {
        let law = self.law;
        let mut normals = Normals::new(stream);
        let all: Vec<ChiSquare> = law.df.iter().chain(&[law.rest]).map(|&df| ChiSquare::new(df)).collect();
        let effects = ChiSquare::new(law.effects);
        let (mut s, mut values) = (vec![0.0; all.len()], vec![0.0; self.points]);
        for x in out {
            all.iter().zip(&mut s).for_each(|(law, s)| *s = law.draw(&mut normals));
            *x = self.supremum(&s, &mut values);
            if law.effects > 0.0 {
                *x += law.power * (effects.draw(&mut normals) / s.iter().sum::<f64>()).ln_1p();
            }
        }
    }

    /// The supremum for chi-squares s, `rest` last.
    fn supremum(&self, s: &[f64], values: &mut [f64]) -> f64 {
        let law = self.law;
        let total: f64 = s.iter().sum();
        let first: f64 = law.mu.iter().zip(s).map(|(m, s)| m * s).sum();
        let slope = law.power * first / total - self.slope; // of g in lambda at 0
        if let Some(found) = self.closed(s, total, slope) {
            return found;
        }
        if self.single {
            return if slope > 0.0 { self.only(s, total, slope).max(BELOW) } else { 0.0 };
        }
        values.fill(0.0);
        for (row, &s) in self.table.chunks_exact(self.points.max(1)).zip(s) {
            values.iter_mut().zip(row).for_each(|(v, a)| *v = a.mul_add(s, *v));
        }
        if !(slope > 0.0) && !values.windows(2).fold(false, |any, v| any | (v[1] < v[0])) {
            return 0.0;
        }
        let mut best = if slope > 0.0 { BELOW } else { 0.0 };
        for g in 0..self.points {
            let falls = if g == 0 { slope > 0.0 } else { values[g] < values[g - 1] };
            if falls && (g + 1 == self.points || values[g] <= values[g + 1]) {
                best =
                    best.max(if g == 0 { self.near_zero(s, total, slope) } else { self.refined(s, total, values, g) });
            }
        }
        best
    }

    /// Where all mu and xi are one number and there is a rest, as in balanced layouts: with z = 1 / (1 + lambda mu) the
    /// maximum of -power log(z s + rest) + c log(z) over (0, 1].
    fn closed(&self, s: &[f64], total: f64, slope: f64) -> Option<f64> {
        let law = self.law;
        let one = law.mu.len() == 1 && law.xi.len() == 1 && (law.xi[0] / law.mu[0] - 1.0).abs() < EQUAL;
        if !one || !(law.rest > 0.0) || !(law.counts[0] < law.power) {
            return None;
        }
        if !(slope > 0.0) {
            return Some(0.0);
        }
        let c = law.counts[0];
        let z = c * s[1] / ((law.power - c) * s[0]);
        Some((law.power * (total / (z * s[0] + s[1])).ln() + c * z.ln()).max(BELOW))
    }

    /// A maximum below the grid, from the two derivatives at 0.
    fn near_zero(&self, s: &[f64], total: f64, slope: f64) -> f64 {
        let law = self.law;
        let (a, b) = law.mu.iter().zip(s).fold((0.0, 0.0), |(a, b), (m, s)| (a + m * s, b + m * m * s));
        let bend = law.power * (2.0 * b / total - (a / total).powi(2)) - self.bend;
        if bend > 0.0 {
            0.5 * slope * slope / bend
        } else {
            self.climb(s, total, self.start)
        }
    }

    /// The maximum where there is one only: from where it would be if all mu were their mean.
    fn only(&self, s: &[f64], total: f64, slope: f64) -> f64 {
        let law = self.law;
        let rest = s[law.mu.len()];
        let (a, b) = law.mu.iter().zip(s).fold((0.0, 0.0), |(a, b), (m, s)| (a + m * s, b + m * m * s));
        let c: f64 = law.counts.iter().sum();
        let guess = (((law.power - c) * (total - rest) / (c * rest) - 1.0) * (total - rest) / a).ln();
        if guess > self.start {
            return self.climb(s, total, guess.min(END - law.mu[0].ln()));
        }
        let small = (slope / (law.power * (2.0 * b / total - (a / total).powi(2)) - self.bend)).ln();
        if small > self.start {
            self.climb(s, total, small.min(-law.mu[0].ln()))
        } else {
            self.near_zero(s, total, slope)
        }
    }

    /// The maximum near point g of the grid: from the parabola through its neighbours on.
    fn refined(&self, s: &[f64], total: f64, values: &[f64], g: usize) -> f64 {
        let mut t = self.start + STEP * g as f64;
        if g + 1 < self.points {
            let (low, mid, high) = (values[g - 1], values[g], values[g + 1]);
            t += STEP * 0.5 * (low - high) / (low - 2.0 * mid + high);
        }
        self.climb(s, total, t)
    }

    /// P and its derivatives by t = log(lambda): Hermite's cubic between fine points.
    fn penalty(&self, t: f64) -> (f64, f64, f64) {
        let h = STEP / FINE as f64;
        let place = (t - self.start) / h;
        let i = place as usize; // 0 below the table
        if !(place >= 0.0) || i + 1 >= self.penalty.len() {
            let (first, second) = self.law.penalty_slopes(t.exp());
            return (self.law.penalty(t.exp()), first, second);
        }
        let ((p, slope), (next, next_slope)) = (self.penalty[i], self.penalty[i + 1]);
        let x = place - i as f64;
        let rise = next - p;
        let (b, a) = (3.0 * rise - 2.0 * slope - next_slope, slope + next_slope - 2.0 * rise);
        (
            p + x * (slope + x * (b + x * a)),
            (slope + x * (2.0 * b + 3.0 * a * x)) / h,
            (2.0 * b + 6.0 * a * x) / (h * h),
        )
    }

    /// Newton's method in t = log(lambda); the last step is not taken but what it promises is added.
    fn climb(&self, s: &[f64], total: f64, mut t: f64) -> f64 {
        let law = self.law;
        let end = FAR - law.mu[law.mu.len() - 1].ln();
        for _ in 0..200 {
            let lambda = t.exp();
            let (mut d, mut one, mut two) = (s[law.mu.len()], 0.0, 0.0);
            for (mu, s) in law.mu.iter().zip(s) {
                let q = 1.0 / (1.0 + lambda * mu);
                let (part, down) = (s * q, s * q * (1.0 - q));
                d += part;
                one += down;
                two += down * (1.0 - 2.0 * q);
            }
            let (p, p1, p2) = self.penalty(t);
            one /= d;
            let first = law.power * one - p1;
            let second = law.power * (one * one - two / d) - p2;
            let step = if second < 0.0 { (-first / second).clamp(-STEP, STEP) } else { STEP.copysign(first) };
            let gain = 0.5 * first * step;
            if gain * step.abs() < ERROR || t >= end {
                return law.power * (total / d).ln() - p + gain;
            }
            t = (t + step).min(end);
        }
        law.at(s, total, t.exp())
    }
}

impl Law {
    fn penalty(&self, lambda: f64) -> f64 {
        self.xi.iter().zip(&self.counts).map(|(xi, c)| c * (lambda * xi).ln_1p()).sum()
    }

    /// Its two derivatives by log(lambda).
    fn penalty_slopes(&self, lambda: f64) -> (f64, f64) {
        self.xi.iter().zip(&self.counts).fold((0.0, 0.0), |(a, b), (xi, c)| {
            let v = 1.0 / (1.0 + lambda * xi);
            let down = c * (1.0 - v);
            (a + down, b + down * v)
        })
    }

    /// Whether g falls after it if g'(lambda) = 0, whatever the s: if so for all lambda, it has one maximum.
    ///
    /// Where power A / (D B) = 1, A = -D', B = P', its logarithmic derivative is -2 E(mu q) + P'' / P' + P' / power up
    /// to the sign of P'', q = 1 / (1 + lambda mu), E(mu q) an average with weights s mu q^2, at least that of the
    /// least mu.
    fn crosses_once(&self, lambda: f64, least: f64) -> bool {
        let (b, c) = self.xi.iter().zip(&self.counts).fold((0.0, 0.0), |(b, c), (xi, n)| {
            let x = xi / (1.0 + lambda * xi);
            (b + n * x, c + n * x * x)
        });
        c / b + b / self.power < 1.9 * least / (1.0 + lambda * least)
    }

    /// g(lambda).
    fn at(&self, s: &[f64], total: f64, lambda: f64) -> f64 {
        let d: f64 = s[self.mu.len()] + self.mu.iter().zip(s).map(|(mu, s)| s / (1.0 + lambda * mu)).sum::<f64>();
        self.power * (total / d).ln() - self.penalty(lambda)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(mu: Vec<f64>, rest: f64) -> Law {
        let counts = vec![1.0; mu.len()];
        let power = rest + mu.len() as f64;
        Law { df: counts.clone(), xi: mu.clone(), counts, mu, rest, power, effects: 0.0 }
    }

    fn spread(least: f64, most: f64, k: usize) -> Vec<f64> {
        (0..k).map(|i| most * (least / most).powf(i as f64 / (k - 1).max(1) as f64)).collect()
    }

    /// The best of a grid of 400 points, each of its local maxima looked at again with 400 points.
    fn dense(law: &Law, s: &[f64]) -> f64 {
        let total = s.iter().sum();
        let (low, high) = (-16.0 - law.mu[0].ln(), 25.0 - law.mu[law.mu.len() - 1].ln());
        let step = (high - low) / 400.0;
        let at = |x: f64| law.at(s, total, (low + step * x).exp());
        let coarse: Vec<f64> = (0..=400).map(|i| at(i as f64)).collect();
        let mut best = 0f64;
        for i in 1..400 {
            if coarse[i] >= coarse[i - 1] && coarse[i] >= coarse[i + 1] {
                best = (0..=400).map(|j| at(i as f64 - 1.0 + j as f64 / 200.0)).fold(best, f64::max);
            }
        }
        best.max(coarse[400])
    }

    #[test]
    fn suprema_are_those_of_a_dense_grid() {
        let mut plain = law(spread(2.0, 9.0, 12), 40.0);
        plain.xi.push(1.5);
        plain.counts.push(3.0);
        plain.power = 55.0;
        let laws = [
            law(spread(4.0, 9.0, 17), 160.0),
            law(spread(1.0, 30.0, 198), 1800.0),
            law(spread(0.01, 100.0, 9), 30.0),
            law(spread(1e-4, 1.0, 3), 1.0),
            law(spread(1.0, 2.0, 6), 0.0),
            law(vec![3.0], 20.0),
            law(vec![3.0; 6], 20.0),
            plain,
        ];
        for law in &laws {
            let search = Search::new(law);
            let mut normals = Normals::new(Stream::new(3));
            let all: Vec<ChiSquare> = law.df.iter().chain(&[law.rest]).map(|&df| ChiSquare::new(df)).collect();
            let mut values = vec![0.0; search.points];
            for i in 0..400 {
                // Draws of the null and, every other time, of a variance that is not 0.
                let lift = if i % 2 == 0 { 0.0 } else { 0.02 * i as f64 / law.mu[0] };
                let mut s: Vec<f64> = all.iter().map(|a| a.draw(&mut normals)).collect();
                s.iter_mut().zip(&law.mu).for_each(|(s, mu)| *s *= 1.0 + lift * mu);
                let (found, expected) = (search.supremum(&s, &mut values), dense(law, &s));
                // Newton's error; the dense grid stops short of the maximum by 200 h^2 / 32, h = 0.0005.
                assert!((found - expected).abs() < 1e-4, "{law:?} {found} {expected}");
            }
        }
    }

    #[test]
    fn draws_do_not_depend_on_threads_and_begin_alike() {
        let law = law(spread(4.0, 9.0, 5), 30.0);
        let (short, long) = (draws(&law, 10_000, 5), draws(&law, 60_000, 5));
        assert_eq!(short[..], long[..10_000]);
        assert_ne!(short[..100], draws(&law, 100, 6)[..]);
    }

    #[test]
    fn without_eigenvalues_the_variance_is_zero() {
        assert_eq!(draws(&law(vec![], 9.0), 3, 1), vec![0.0; 3]);
    }
}
