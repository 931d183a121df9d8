//! Draws of likelihood ratios that test one variance against 0 (Crainiceanu & Ruppert 2004): suprema over lambda >= 0 of
//!
//! g(lambda) = power log(D(0) / D(lambda)) - P(lambda),
//! D = rest + sum_j s_j / (1 + lambda mu_j),   P = sum_k c_k log(1 + lambda xi_k),
//!
//! s_j and rest independent chi-squares. exp(P / power) D, of which the least is wanted, is linear in them, so that a
//! grid over log(lambda) is a few multiplications; its local minima are refined by Newton's method. Several draws go
//! side by side, one in each lane of the processor's registers.

use rayon::prelude::*;

use crate::family::{ChiSquare, Normals, Stream};

pub const BLOCK: usize = 4096; // draws that share a stream
const PARALLEL: usize = 50_000; // draws below which one thread is enough
const STEP: f64 = 0.75; // of the grid, in log(lambda)
const FINE: usize = 12; // steps of the table of the penalty in one of the grid: its cubics err by sum(c) 5e-9
const ERROR: f64 = 2e-5; // left by the last step of Newton's, which is of the order of its promise times its length
const BELOW: f64 = 1e-12; // of a maximum that is not at 0, at least
const ROUNDS: usize = 6; // of Newton's method in all lanes; who needs more goes on alone
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

/// Draw n suprema, those after the first `before` blocks of BLOCK. The same seed gives the same draws, whatever the
/// number of threads and of calls.
pub fn draws(law: &Law, n: usize, seed: u64, before: usize) -> Vec<f64> {
    let search = Search::new(law);
    let mut out = vec![0.0; n];
    let fill = |(i, block): (usize, &mut [f64])| {
        let i = (before + i) as u64;
        search.fill(block, Stream::new(seed.wrapping_add(i.wrapping_mul(0xD1B5_4A32_D192_ED03))))
    };
    if n < PARALLEL {
        out.chunks_mut(BLOCK).enumerate().for_each(fill);
    } else {
        out.par_chunks_mut(BLOCK).enumerate().for_each(fill);
    }
    out
}

const LANES: usize = 64; // enough for loops over lanes to fill registers, few enough for the cache nearest by
type Lanes = [f64; LANES];

/// A law with its grid.
struct Search<'a> {
    law: &'a Law,
    /// log(lambda) of the first point.
    start: f64,
    /// lambda by point.
    lambda: Vec<f64>,
    /// exp(P / power) / (1 + lambda mu_j) by point and node; last exp(P / power).
    table: Vec<f64>,
    /// P as a polynomial of degree 3 in each fine step, in units of that step.
    penalty: Vec<[f64; 4]>,
    /// Derivatives of P by lambda at 0, the second with its sign changed.
    slope: f64,
    bend: f64,
    closed: bool,
}

/// Draws that wait until there is one for each lane of Newton's method.
struct Waiting {
    /// Room for the values over a grid.
    values: Vec<Lanes>,
    s: Vec<Lanes>,
    total: Lanes,
    lambda: Lanes,
    t: Lanes,
    /// What is at least there: the value at 0, or just above where g rises there.
    floor: Lanes,
    /// Where they belong.
    place: [usize; LANES],
    count: usize,
}

impl<'a> Search<'a> {
    fn new(law: &'a Law) -> Self {
        let (least, most) = law.mu.iter().fold((f64::INFINITY, 0f64), |(a, b), &x| (a.min(x), b.max(x)));
        // A maximum at lambda mu = e is about sum(c) e^2 / 2: what lies below the grid is found from derivatives at 0.
        let start = 0.5 * (1e-4 / law.counts.iter().sum::<f64>().max(1.0)).ln() - most.ln();
        let end = if law.rest < 10.0 { END } else { 0.5 * END } - least.ln();
        let points = if law.mu.is_empty() { 0 } else { ((end - start) / STEP).ceil() as usize + 1 };
        let lambda: Vec<f64> = (0..points).map(|g| (start + STEP * g as f64).exp()).collect();
        let mut table = Vec::with_capacity(points * (law.mu.len() + 1));
        for &l in &lambda {
            let size = (law.penalty(l) / law.power).exp();
            table.extend(law.mu.iter().chain(&[0.0]).map(|mu| size / (1.0 + l * mu)));
        }
        let step = STEP / FINE as f64;
        let penalty = |i: usize| {
            let lambda = (start + step * i as f64).exp();
            (law.penalty(lambda), step * law.penalty_slopes(lambda).0)
        };
        let ends: Vec<(f64, f64)> = if points > 0 { (0..=(points - 1) * FINE).map(penalty).collect() } else { vec![] };
        let penalty = ends.windows(2).map(|pair| hermite(pair[0], pair[1])).collect();
        let moment = |k: i32| law.xi.iter().zip(&law.counts).map(|(x, c)| c * x.powi(k)).sum();
        let (slope, bend) = (moment(1), moment(2));
        Search { law, start, lambda, table, penalty, slope, bend, closed: law.is_balanced() }
    }

    fn fill(&self, out: &mut [f64], stream: Stream) {
        let law = self.law;
        let mut normals = Normals::new(stream);
        let all: Vec<ChiSquare> = law.df.iter().chain(&[law.rest]).map(|&df| ChiSquare::new(df)).collect();
        let effects = ChiSquare::new(law.effects);
        let mut s = vec![[0.0; LANES]; all.len()];
        let mut waiting = Waiting::new(all.len(), self.lambda.len());
        for first in (0..out.len()).step_by(LANES) {
            all.iter().zip(&mut s).for_each(|(law, s)| law.fill(&mut normals, s));
            let added: Lanes = if law.effects > 0.0 {
                sum(&s).map(|d| law.power * (effects.draw(&mut normals) / d).ln_1p())
            } else {
                [0.0; LANES]
            };
            let lanes = LANES.min(out.len() - first);
            out[first..first + lanes].copy_from_slice(&added[..lanes]);
            self.suprema(&s, lanes, first, out, &mut waiting);
        }
        self.climb_together(&mut waiting, out);
    }

    /// Add the suprema for chi-squares s, `rest` last, to `out` from `first` on; those that take Newton's method may
    /// have to wait.
    fn suprema(&self, s: &[Lanes], lanes: usize, first: usize, out: &mut [f64], waiting: &mut Waiting) {
        let law = self.law;
        let (total, mut slope) = (sum(s), [0.0; LANES]);
        for (mu, s) in law.mu.iter().zip(s) {
            (0..LANES).for_each(|i| slope[i] = mu.mul_add(s[i], slope[i]));
        }
        (0..LANES).for_each(|i| slope[i] = law.power * slope[i] / total[i] - self.slope); // of g in lambda at 0
        if self.closed {
            (0..lanes).filter(|&i| slope[i] > 0.0).for_each(|i| out[first + i] += law.closed(s[0][i], s[1][i]));
            return;
        }
        let mut values = std::mem::take(&mut waiting.values);
        let (minima, lowest) = self.scan(s, &slope, &mut values);
        for i in 0..lanes {
            let g = lowest[i] as usize;
            if minima[i] == 1 && g > 0 && g + 1 < values.len() {
                // From the parabola through the neighbours on.
                let (fall, rise) = (values[g][i] - values[g - 1][i], values[g + 1][i] - values[g][i]);
                let off = -0.5 * STEP * (fall + rise) / (rise - fall);
                let (t, lambda) = (self.start + STEP * g as f64 + off, self.lambda[g] * exp(off));
                let floor = if slope[i] > 0.0 { BELOW } else { 0.0 };
                waiting.push(s, i, total[i], t, lambda, floor, first + i);
                if waiting.count == LANES {
                    self.climb_together(waiting, out);
                }
            } else if minima[i] > 0 {
                out[first + i] += self.supremum(&lane(s, i), total[i], slope[i], &lane(&values, i));
            }
        }
        waiting.values = values;
    }

    /// Values over the grid, the number of their local minima, and where the lowest value is.
    ///
    /// 0 is one end of the grid, where the slope of g tells whether values fall; the other end counts where they do.
    fn scan(&self, s: &[Lanes], slope: &Lanes, values: &mut [Lanes]) -> ([u64; LANES], Lanes) {
        for (row, value) in self.table.chunks_exact(s.len()).zip(&mut *values) {
            *value = [0.0; LANES];
            for (a, s) in row.iter().zip(s) {
                (0..LANES).for_each(|i| value[i] = a.mul_add(s[i], value[i]));
            }
        }
        let falls = |change: f64| change.to_bits() >> 63; // arithmetic that processors do in all lanes at once
        let (mut minima, mut lowest, mut least) = ([0; LANES], [0.0; LANES], [f64::INFINITY; LANES]);
        let mut falling = slope.map(|x| falls(-x));
        let end = [f64::INFINITY; LANES];
        for g in 0..values.len() {
            let (value, next) = (&values[g], values.get(g + 1).unwrap_or(&end));
            for i in 0..LANES {
                let now = falls(next[i] - value[i]);
                minima[i] += falling[i] & (1 - now);
                falling[i] = now;
                lowest[i] = if value[i] < least[i] { g as f64 } else { lowest[i] };
                least[i] = if value[i] < least[i] { value[i] } else { least[i] };
            }
        }
        (minima, lowest)
    }

    /// The supremum of one draw, from all local minima of the grid.
    fn supremum(&self, s: &[f64], total: f64, slope: f64, values: &[f64]) -> f64 {
        let mut best = if slope > 0.0 { BELOW } else { 0.0 };
        for g in 0..values.len() {
            let falls = if g == 0 { slope > 0.0 } else { values[g] < values[g - 1] };
            if falls && (g + 1 == values.len() || values[g] <= values[g + 1]) {
                best =
                    best.max(if g == 0 { self.near_zero(s, total, slope) } else { self.refined(s, total, values, g) });
            }
        }
        best
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

    /// The maximum near point g of the grid: from the parabola through its neighbours on.
    fn refined(&self, s: &[f64], total: f64, values: &[f64], g: usize) -> f64 {
        let mut t = self.start + STEP * g as f64;
        if g + 1 < values.len() {
            let (low, mid, high) = (values[g - 1], values[g], values[g + 1]);
            t += STEP * 0.5 * (low - high) / (low - 2.0 * mid + high);
        }
        self.climb(s, total, t)
    }

    /// P and its derivatives by t = log(lambda).
    fn penalty(&self, t: f64) -> (f64, f64, f64) {
        let place = (t - self.start) / (STEP / FINE as f64);
        let i = place as usize; // 0 below the table
        if !(place >= 0.0) || i >= self.penalty.len() {
            let (first, second) = self.law.penalty_slopes(t.exp());
            return (self.law.penalty(t.exp()), first, second);
        }
        cubic(&self.penalty[i], place - i as f64)
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

    /// Newton's method as in `climb` for all that wait; whose last step is due early waits for the others.
    fn climb_together(&self, waiting: &mut Waiting, out: &mut [f64]) {
        if waiting.count == 0 {
            return;
        }
        let law = self.law;
        let (nodes, last) = (law.mu.len(), self.penalty.len() as f64 - 1.0);
        let Waiting { s, total, lambda, t, floor, place, count, .. } = waiting;
        let (mut open, mut value) = ([true; LANES], [0.0; LANES]);
        for _ in 0..ROUNDS {
            let (mut d, mut one, mut two) = (s[nodes], [0.0; LANES], [0.0; LANES]);
            for (mu, s) in law.mu.iter().zip(s.iter()) {
                for i in 0..LANES {
                    let q = 1.0 / lambda[i].mul_add(*mu, 1.0);
                    let part = s[i] * q;
                    let down = part - part * q;
                    d[i] += part;
                    one[i] += down;
                    two[i] += down - 2.0 * down * q;
                }
            }
            let (mut p, mut p1, mut p2, mut within) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [true; LANES]);
            for i in 0..LANES {
                let place = (t[i] - self.start) * (FINE as f64 / STEP);
                let cell = place.max(0.0).min(last);
                let x = place - cell.trunc();
                (p[i], p1[i], p2[i]) = cubic(&self.penalty[cell as usize], x);
                within[i] = (0.0..=1.0).contains(&x);
            }
            let (mut step, mut gain) = ([0.0; LANES], [0.0; LANES]);
            for i in 0..LANES {
                let slope = one[i] / d[i];
                let first = law.power * slope - p1[i];
                let second = law.power * (slope * slope - two[i] / d[i]) - p2[i];
                let newton = (-first / second).clamp(-STEP, STEP);
                step[i] = if second < 0.0 { newton } else { STEP.copysign(first) };
                gain[i] = 0.5 * first * step[i];
                lambda[i] *= exp(step[i]);
            }
            for i in 0..LANES {
                // Outside of the table nothing is at its end.
                if open[i] && within[i] && gain[i] * step[i].abs() < ERROR {
                    value[i] = law.power * (total[i] / d[i]).ln() - p[i] + gain[i];
                    open[i] = false;
                }
                t[i] += step[i];
            }
            if open[..*count].iter().all(|x| !x) {
                break;
            }
        }
        for i in 0..*count {
            if open[i] {
                value[i] = self.climb(&lane(s, i), total[i], t[i]);
            }
            out[place[i]] += value[i].max(floor[i]);
        }
        *count = 0;
    }
}

impl Waiting {
    fn new(rows: usize, points: usize) -> Self {
        let ones = [1.0; LANES]; // lanes that nothing waits in are finite
        let zero = [0.0; LANES];
        let values = vec![zero; points];
        Waiting {
            values,
            s: vec![ones; rows],
            total: ones,
            lambda: ones,
            t: zero,
            floor: zero,
            place: [0; LANES],
            count: 0,
        }
    }

    fn push(&mut self, s: &[Lanes], lane: usize, total: f64, t: f64, lambda: f64, floor: f64, place: usize) {
        let i = self.count;
        self.s.iter_mut().zip(s).for_each(|(to, s)| to[i] = s[lane]);
        (self.total[i], self.t[i], self.lambda[i], self.floor[i]) = (total, t, lambda, floor);
        self.place[i] = place;
        self.count += 1;
    }
}

fn lane(rows: &[Lanes], i: usize) -> Vec<f64> {
    rows.iter().map(|row| row[i]).collect()
}

fn sum(s: &[Lanes]) -> Lanes {
    s.iter().fold([0.0; LANES], |sum, s| std::array::from_fn(|i| sum[i] + s[i]))
}

/// Coefficients of the cubic with these values and slopes at 0 and 1.
fn hermite((value, slope): (f64, f64), (next, next_slope): (f64, f64)) -> [f64; 4] {
    let rise = next - value;
    [value, slope, 3.0 * rise - 2.0 * slope - next_slope, slope + next_slope - 2.0 * rise]
}

/// Its value, and its derivatives in units of log(lambda).
#[inline]
fn cubic(&[p, slope, b, a]: &[f64; 4], x: f64) -> (f64, f64, f64) {
    const SCALE: f64 = FINE as f64 / STEP;
    (
        p + x * (slope + x * (b + x * a)),
        (slope + x * (2.0 * b + 3.0 * a * x)) * SCALE,
        (2.0 * b + 6.0 * a * x) * (SCALE * SCALE),
    )
}

/// exp(x), |x| <= STEP, to 2e-8: Taylor's polynomial, without branches.
#[inline]
fn exp(x: f64) -> f64 {
    const C: [f64; 9] =
        [1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
    C.iter().fold(0.0f64, |sum, c| sum.mul_add(x, *c)).mul_add(x, 1.0)
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

    /// Whether all mu and xi are one number and there is a rest, as in balanced layouts.
    fn is_balanced(&self) -> bool {
        let one = self.mu.len() == 1 && self.xi.len() == 1 && (self.xi[0] / self.mu[0] - 1.0).abs() < EQUAL;
        one && self.rest > 0.0 && self.counts[0] < self.power
    }

    /// The supremum then, where it is not at 0: with z = 1 / (1 + lambda mu) the maximum of
    /// -power log(z s + rest) + c log(z) over (0, 1].
    fn closed(&self, s: f64, rest: f64) -> f64 {
        let c = self.counts[0];
        let z = c * rest / ((self.power - c) * s);
        (self.power * ((s + rest) / (z * s + rest)).ln() + c * z.ln()).max(BELOW)
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
        const N: usize = 7 * LANES;
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
            let (mut waiting, mut found, mut expected) =
                (Waiting::new(all.len(), search.lambda.len()), vec![0.0; N], vec![]);
            for first in (0..N).step_by(LANES) {
                // Draws of the null and, in every other lane, of a variance that is not 0.
                let mut s = vec![[0.0; LANES]; all.len()];
                all.iter().zip(&mut s).for_each(|(law, s)| law.fill(&mut normals, s));
                for i in (1..LANES).step_by(2) {
                    let lift = 0.02 * (first + i) as f64 / law.mu[0];
                    s.iter_mut().zip(&law.mu).for_each(|(s, mu)| s[i] *= 1.0 + lift * mu);
                }
                search.suprema(&s, LANES, first, &mut found, &mut waiting);
                expected.extend((0..LANES).map(|i| dense(law, &lane(&s, i))));
            }
            search.climb_together(&mut waiting, &mut found);
            for (found, expected) in found.iter().zip(&expected) {
                // Newton's error; the dense grid stops short of the maximum by 200 h^2 / 32, h = 0.0005.
                assert!((found - expected).abs() < 1e-4, "{law:?} {found} {expected}");
            }
        }
    }

    #[test]
    fn draws_do_not_depend_on_threads_and_begin_alike() {
        let law = law(spread(4.0, 9.0, 5), 30.0);
        let (short, long) = (draws(&law, 10_000, 5, 0), draws(&law, 60_000, 5, 0));
        assert_eq!(short[..], long[..10_000]);
        assert_ne!(short[..100], draws(&law, 100, 6, 0)[..]);
        assert_eq!(draws(&law, 100, 5, 2)[..], long[2 * BLOCK..2 * BLOCK + 100]);
    }

    #[test]
    fn without_eigenvalues_the_variance_is_zero() {
        assert_eq!(draws(&law(vec![], 9.0), 3, 1, 0), vec![0.0; 3]);
    }
}
