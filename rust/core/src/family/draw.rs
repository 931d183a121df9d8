//! Random numbers: xoshiro256++ (Blackman & Vigna 2021) seeded by SplitMix64, and draws from the standard distributions.

use std::sync::LazyLock;

use crate::special;

/// A reproducible stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    pub fn new(seed: u64) -> Stream {
        let mut z = seed;
        let state = std::array::from_fn(|_| {
            z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            x ^ (x >> 31)
        });
        Stream { state }
    }

    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform on the open interval (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.next_u64() >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal, by the polar method (Marsaglia & Bray 1964).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let s = u * u + v * v;
            if s < 1.0 && s > 0.0 {
                return u * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }

    pub fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// log of a Gamma(shape, 1) variate (Marsaglia & Tsang 2000); the logarithm survives tiny shapes.
    pub fn ln_gamma(&mut self, shape: f64) -> f64 {
        if !(shape > 0.0 && shape.is_finite()) {
            return f64::NAN;
        }
        if shape < 1.0 {
            return self.ln_gamma(shape + 1.0) + self.uniform().ln() / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return (d * v).ln();
            }
        }
    }

    pub fn gamma(&mut self, shape: f64) -> f64 {
        self.ln_gamma(shape).exp()
    }

    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.ln_gamma(a), self.ln_gamma(b));
        special::logistic_pair(x - y).0
    }

    pub fn poisson(&mut self, mean: f64) -> f64 {
        if !(mean >= 0.0 && mean.is_finite()) {
            return f64::NAN;
        }
        if mean < 30.0 {
            let (limit, mut k, mut p) = ((-mean).exp(), 0.0, self.uniform());
            while p > limit {
                k += 1.0;
                p *= self.uniform();
            }
            return k;
        }
        self.poisson_rejection(mean)
    }

    /// Transformed rejection with squeeze (Hoermann 1993, algorithm PTRS).
    fn poisson_rejection(&mut self, mean: f64) -> f64 {
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inv_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let vr = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let u = self.uniform() - 0.5;
            let v = self.uniform();
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= vr {
                return k;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let left = v.ln() + inv_alpha.ln() - (a / (us * us) + b).ln();
            if left <= k * mean.ln() - mean - special::ln_factorial(k) {
                return k;
            }
        }
    }

    /// Binomial by splitting at the median order statistic (Devroye 1986, X.4.3), then by counting.
    pub fn binomial(&mut self, n: f64, p: f64) -> f64 {
        if !(n >= 0.0 && (0.0..=1.0).contains(&p)) {
            return f64::NAN;
        }
        let (mut left, mut p, mut sum) = (n.round(), p, 0.0);
        while left > 40.0 {
            let i = ((left + 1.0) / 2.0).floor();
            let x = self.beta(i, left + 1.0 - i);
            if x <= p {
                sum += i;
                left -= i;
                p = ((p - x) / (1.0 - x)).clamp(0.0, 1.0);
            } else {
                left = i - 1.0;
                p = (p / x).clamp(0.0, 1.0);
            }
        }
        sum + (0..left as usize).filter(|_| self.uniform() < p).count() as f64
    }

    /// A count with log-concave probabilities and this mode, by rejection from a uniform centre with exponential tails
    /// (Devroye 1987): the cost does not depend on the mean.
    pub fn log_concave(&mut self, mode: f64, ln_pmf: impl Fn(f64) -> f64) -> f64 {
        let top = ln_pmf(mode);
        let p = top.exp();
        let w = 1.0 + 0.5 * p;
        for _ in 0..100_000 {
            let y =
                if self.uniform() * (1.0 + w) <= w { self.uniform() * w / p } else { (w - self.uniform().ln()) / p };
            let k = if self.uniform() < 0.5 { mode - y.round() } else { mode + y.round() };
            let level = self.uniform().ln() + (w - p * y).min(0.0);
            if k >= 0.0 && level <= ln_pmf(k) - top {
                return k;
            }
        }
        f64::NAN
    }

    /// A count by inversion of its probabilities, added up from `first`.
    pub fn count(&mut self, first: f64, ln_pmf: impl Fn(f64) -> f64) -> f64 {
        let u = self.uniform();
        let (mut k, mut sum) = (first, 0.0);
        for _ in 0..10_000_000u32 {
            let p = ln_pmf(k).exp();
            sum += p;
            if sum >= u || p.is_nan() {
                break;
            }
            // Rounding can leave the sum just short of 1 with nothing more to come.
            if sum > 0.999_999_999 && p < 1e-17 {
                break;
            }
            k += 1.0;
        }
        k
    }
}

/// Edges of 256 layers of equal area under exp(-x^2 / 2); the first is as wide as the lowest layer with its tail.
static LAYERS: LazyLock<[f64; 257]> = LazyLock::new(|| {
    let mut x = [0.0; 257];
    x[0] = AREA * (0.5 * TAIL * TAIL).exp();
    x[1] = TAIL;
    for i in 2..256 {
        x[i] = (-2.0 * (AREA / x[i - 1] + (-0.5 * x[i - 1] * x[i - 1]).exp()).ln()).sqrt();
    }
    x
});
const TAIL: f64 = 3.654_152_885_361_009;
const AREA: f64 = 0.004928673233974658; // TAIL exp(-TAIL^2 / 2) and the area of the tail

/// A stream of many normals, by the ziggurat (Marsaglia & Tsang 2000; Doornik 2005).
#[derive(Clone, Debug)]
pub struct Normals {
    stream: Stream,
    layers: &'static [f64; 257],
}

impl Normals {
    pub fn new(stream: Stream) -> Normals {
        Normals { stream, layers: &LAYERS }
    }

    #[inline]
    fn next(&mut self) -> f64 {
        loop {
            let bits = self.stream.next_u64();
            let i = (bits & 255) as usize;
            let z = ((bits >> 11) as f64 * (1.0 / (1u64 << 52) as f64) - 1.0) * self.layers[i];
            if z.abs() < self.layers[i + 1] {
                return z;
            }
            if let Some(z) = self.beside(i, z) {
                return z;
            }
        }
    }

    /// What lies outside the rectangle of a layer: the tail, or the wedge if it is under the curve.
    #[cold]
    fn beside(&mut self, i: usize, z: f64) -> Option<f64> {
        if i == 0 {
            loop {
                let x = self.stream.uniform().ln() / TAIL;
                if -2.0 * self.stream.uniform().ln() >= x * x {
                    return Some((TAIL - x).copysign(z));
                }
            }
        }
        let at = |x: f64| (0.5 * (z * z - x * x)).exp();
        let (upper, lower) = (at(self.layers[i]), at(self.layers[i + 1]));
        (upper + self.stream.uniform() * (lower - upper) < 1.0).then_some(z)
    }
}

/// A chi-square distribution with its constants at hand (Marsaglia & Tsang 2000); all 0 without degrees of freedom.
#[derive(Clone, Debug)]
pub struct ChiSquare {
    d: f64,
    c: f64,
    /// 3 d c^4 / 4.
    squeeze: f64,
    /// 2 / df where df < 2.
    lift: f64,
}

impl ChiSquare {
    pub fn new(df: f64) -> ChiSquare {
        let lift = if df > 0.0 && df < 2.0 { 2.0 / df } else { 0.0 };
        let d = if df > 0.0 { 0.5 * df + if df < 2.0 { 1.0 } else { 0.0 } - 1.0 / 3.0 } else { 0.0 };
        ChiSquare { d, c: 1.0 / (9.0 * d).sqrt(), squeeze: 1.0 / (108.0 * d), lift }
    }

    pub fn draw(&self, normals: &mut Normals) -> f64 {
        let mut one = [0.0];
        self.fill(normals, &mut one);
        one[0]
    }

    /// As many draws as there is room for: nearly all are taken at the first attempt, which is made for all at once.
    pub fn fill<const N: usize>(&self, normals: &mut Normals, out: &mut [f64; N]) {
        if self.d == 0.0 {
            *out = [0.0; N];
            return;
        }
        let (mut x, mut u, mut taken) = ([0.0; N], [0.0; N], [0.0; N]);
        x.iter_mut().for_each(|x| *x = normals.next());
        u.iter_mut().for_each(|u| *u = normals.stream.uniform());
        for i in 0..N {
            let root = self.c.mul_add(x[i], 1.0);
            let square = x[i] * x[i];
            out[i] = 2.0 * self.d * (root * root * root);
            // With y = c x, log f = -3 d sum_(k >= 4) (-y)^k / k >= -3 d y^4 / 4 / min(1 + y, 1), and f >= 1 + log f: a
            // squeeze that spares nearly all logarithms. A root that is not positive lies outside of it.
            taken[i] = (1.0 - u[i]) * root.min(1.0) - self.squeeze * (square * square);
        }
        for i in 0..N {
            if !(taken[i] > 0.0) {
                out[i] = self.hard(x[i], u[i], normals);
            }
        }
        if self.lift > 0.0 {
            out.iter_mut().for_each(|x| *x *= normals.stream.uniform().powf(self.lift));
        }
    }

    /// What a first attempt outside of the squeeze comes to.
    #[cold]
    fn hard(&self, mut x: f64, mut u: f64, normals: &mut Normals) -> f64 {
        loop {
            let root = 1.0 + self.c * x;
            let v = root * root * root;
            if root > 0.0 && u.ln() < 0.5 * x * x + self.d * (1.0 - v + v.ln()) {
                return 2.0 * self.d * v;
            }
            (x, u) = (normals.next(), normals.stream.uniform());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut f: impl FnMut() -> f64) -> (f64, f64) {
        let n = 40_000;
        let x: Vec<f64> = (0..n).map(|_| f()).collect();
        let m = x.iter().sum::<f64>() / n as f64;
        (m, x.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / n as f64)
    }

    #[test]
    fn moments_of_draws() {
        let mut s = Stream::new(7);
        let close = |(m, v): (f64, f64), mean: f64, var: f64| {
            assert!((m - mean).abs() < 5.0 * (var / 40_000.0).sqrt(), "{m} {mean}");
            assert!((v / var - 1.0).abs() < 0.1, "{v} {var}");
        };
        close(moments(|| s.normal()), 0.0, 1.0);
        // Poisson
        let ln_pmf = |k: f64| k * 700.5f64.ln() - 700.5 - crate::special::ln_factorial(k);
        close(moments(|| s.log_concave(700.0, ln_pmf)), 700.5, 700.5);
        close(moments(|| s.gamma(0.4)), 0.4, 0.4);
        close(moments(|| s.gamma(9.0)), 9.0, 9.0);
        close(moments(|| s.beta(2.0, 3.0)), 0.4, 0.04);
        let mut pairs = Normals::new(Stream::new(11));
        close(moments(|| pairs.next()), 0.0, 1.0);
        let shares = [(0.5, 0.308538), (1.0, 0.158655), (2.0, 0.0227501), (3.0, 0.00134990), (3.8, 7.23480e-5)];
        for (edge, share) in shares {
            let n = 400_000;
            let beyond = (0..n).filter(|_| pairs.next() > edge).count() as f64 / n as f64;
            assert!((beyond - share).abs() < 5.0 * (share / n as f64).sqrt(), "{edge} {beyond}");
        }
        for df in [0.3, 1.0, 1.9, 2.0, 7.5, 160.0] {
            let law = ChiSquare::new(df);
            let (mean, variance) = moments(|| law.draw(&mut pairs));
            assert!((mean - df).abs() < 5.0 * (2.0 * df / 40_000.0).sqrt(), "{df} {mean}");
            assert!((variance / (2.0 * df) - 1.0).abs() < 0.2, "{df} {variance}");
        }
        assert_eq!(ChiSquare::new(0.0).draw(&mut pairs), 0.0);
        close(moments(|| s.poisson(2.5)), 2.5, 2.5);
        close(moments(|| s.poisson(80.0)), 80.0, 80.0);
        close(moments(|| s.binomial(200.0, 0.3)), 60.0, 42.0);
    }
}
