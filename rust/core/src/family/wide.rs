//! Categories whose density depends on more thresholds or logits than two: as many predictors as categories.
//!
//! Ordered, with x_j = (location - threshold_j) / scale for j = 0 .. C - 2 and a distribution function F (Tutz 2012,
//! chapter 9; Buerkner & Vuorre 2019):
//!     stopping ratio      P(Y = y | Y >= y) = F(-x_y),
//!     continuation ratio  P(Y > y | Y >= y) = F(x_y),
//!     adjacent category   P(Y = y + 1 | Y in {y, y + 1}) = F(x_y).
//! Without order: P(Y = y) proportional to exp(z_y), z of the first category 0.
//! Derivatives are taken in the x (or z) first, where they are simple, and carried to the predictors afterwards:
//! d/d location = sum_j (1/scale) d/dx_j, d/d threshold_j = -(1/scale) d/dx_j, and d/d log scale is minus Euler's
//! operator x'd/dx.

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::{Link, Par};
use super::Data;
use crate::jet::{Jet, Scalar};

type J1 = Jet<1, 1, 1>;
type J4 = Jet<1, 1, 1, 1>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Stopping,
    Continuation,
    Adjacent,
    Nominal,
}

#[derive(Clone, Copy, Debug)]
pub struct Wide {
    pub shape: Shape,
    pub categories: usize,
    /// The distribution function F of ordered shapes.
    pub link: Link,
    /// Whether ordered shapes have a scale.
    pub scaled: bool,
}

/// Derivatives of log f of one row in m variables, and what the higher ones are made of.
struct Work {
    m: usize,
    x: Vec<f64>,
    d1: Vec<f64>,
    /// m x m, symmetric.
    d2: Vec<f64>,
    /// Third derivatives along one variable (sequential shapes).
    d3: Vec<f64>,
    /// P(Y > j) and P(Y <= j), or P(Y = j + 1) and its complement.
    above: Vec<f64>,
    below: Vec<f64>,
    /// logit F(x_j) and its derivatives.
    q: Vec<[f64; 4]>,
    /// d log f / dq_j.
    s1: Vec<f64>,
    /// Third derivatives summed over one index, weighted by 1 and by x.
    sum: Vec<f64>,
    weighted: Vec<f64>,
}

impl Work {
    fn new(m: usize) -> Self {
        let v = || vec![0.0; m];
        let mm = || vec![0.0; m * m];
        Work {
            m,
            x: v(),
            d1: v(),
            d2: mm(),
            d3: v(),
            above: v(),
            below: v(),
            q: vec![[0.0; 4]; m],
            s1: v(),
            sum: mm(),
            weighted: mm(),
        }
    }
}

/// A point of an exponential family: its probability, and its distance from the mean.
struct Point {
    share: f64,
    from_mean: Vec<f64>,
}

impl Point {
    /// The quadratic form of the distance.
    fn form(&self, square: &[f64]) -> f64 {
        let (d, m) = (&self.from_mean, self.from_mean.len());
        (0..m * m).map(|i| d[i % m] * square[i] * d[i / m]).sum()
    }
}

/// A symmetric matrix of the predictors as one of u_j = location - threshold_j and the log scale.
struct Side {
    own: Vec<f64>,
    with_scale: Vec<f64>,
    scale: f64,
}

impl Side {
    fn new(square: &[f64], k: usize, lead: usize, scaled: bool) -> Self {
        let (m, at) = (k - lead, |a: usize, b: usize| square[a + b * k]);
        let own = |i: usize| {
            let (u, v) = (i % m + lead, i / m + lead);
            at(0, 0) - at(0, v) - at(u, 0) + at(u, v)
        };
        let with = |u: usize| if scaled { at(0, 1) - at(u + lead, 1) } else { 0.0 };
        Side {
            own: (0..m * m).map(own).collect(),
            with_scale: (0..m).map(with).collect(),
            scale: if scaled { at(1, 1) } else { 0.0 },
        }
    }
}

/// The pairs a <= b of K, one after another.
fn pack(k: usize, out: &mut [f64], f: impl Fn(usize, usize) -> f64) {
    let pairs = (0..k).flat_map(|a| (a..k).map(move |b| (a, b)));
    out.iter_mut().zip(pairs).for_each(|(o, (a, b))| *o = f(a, b));
}

/// The product of two m x m matrices.
fn product(m: usize, a: &[f64], b: &[f64]) -> Vec<f64> {
    (0..m * m).map(|i| (0..m).map(|u| a[i % m + u * m] * b[u + i / m * m]).sum()).collect()
}

fn stored(j: J1) -> [f64; 4] {
    let mut out = [0.0; 4];
    j.store(&mut out);
    out
}

impl Wide {
    /// Number of linear predictors.
    pub fn predictors(&self) -> usize {
        self.categories - 1 + self.leading()
    }

    /// Predictors before the thresholds.
    fn leading(&self) -> usize {
        if self.shape == Shape::Nominal {
            0
        } else {
            1 + self.scaled as usize
        }
    }

    /// As `Family::evaluate`.
    pub fn rows(&self, data: &Data<'_>, from: usize, eta: &[f64], order: usize, stride: usize, out: &mut [f64]) {
        let mut w = Work::new(self.categories - 1);
        for (i, (e, o)) in eta.chunks_exact(self.predictors()).zip(out.chunks_exact_mut(stride)).enumerate() {
            let y = data.y[from + i] as usize;
            if self.shape == Shape::Nominal {
                w.x.copy_from_slice(e);
                o[0] = self.nominal(&mut w, y, order);
                if order >= 2 {
                    self.store_plain(&w, order, o);
                }
                continue;
            }
            let lead = self.leading();
            let rate = if self.scaled { (-e[1]).exp() } else { 1.0 };
            w.x.iter_mut().zip(&e[lead..]).for_each(|(x, t)| *x = (e[0] - t) * rate);
            o[0] = match self.shape {
                Shape::Adjacent => self.adjacent(&mut w, y, order),
                _ => self.sequential(&mut w, y, order),
            };
            if order >= 2 {
                self.carry(&mut w, rate, order, o);
            }
        }
    }

    fn sequential(&self, w: &mut Work, y: usize, order: usize) -> f64 {
        let mut value = 0.0;
        let last = y.min(w.m.saturating_sub(1));
        [&mut w.d1, &mut w.d2, &mut w.d3].into_iter().for_each(|d| d.fill(0.0));
        for j in 0..=last {
            let stops = j == y;
            if order == 0 {
                value += self.step(w.x[j], stops);
                continue;
            }
            let [v, a, b, c] = stored(self.step(J1::variable(w.x[j], 0), stops));
            value += v;
            (w.d1[j], w.d2[j + j * w.m], w.d3[j]) = (a, b, c);
        }
        value
    }

    /// log P(Y = j | Y >= j) where the response stops there, else log P(Y > j | Y >= j).
    fn step<S: Scalar>(&self, x: S, stops: bool) -> S {
        match (self.shape, stops) {
            (Shape::Stopping, true) => self.link.ln_cdf(-x),
            (Shape::Stopping, false) => self.link.ln_survival(-x),
            (_, true) => self.link.ln_survival(x),
            (_, false) => self.link.ln_cdf(x),
        }
    }

    /// log f = sum_{j < y} q_j - log sum_k exp(sum_{j < k} q_j): an exponential family in the indicators of Y > j.
    fn adjacent(&self, w: &mut Work, y: usize, order: usize) -> f64 {
        let m = w.m;
        for j in 0..m {
            w.q[j] = self.logit(w.x[j], order);
        }
        // log weights of the categories, and the probabilities above and below every cut.
        let (mut top, mut at) = (0.0f64, 0.0);
        for j in 0..m {
            at += w.q[j][0];
            top = top.max(at);
        }
        let (mut total, mut at) = ((-top).exp(), 0.0);
        for j in 0..m {
            w.below[j] = total;
            at += w.q[j][0];
            w.s1[j] = (at - top).exp();
            total += w.s1[j];
        }
        let value = w.q[..y].iter().map(|q| q[0]).sum::<f64>() - top - total.ln();
        if order < 2 {
            return value;
        }
        let mut tail = 0.0;
        for j in (0..m).rev() {
            tail += w.s1[j];
            w.above[j] = tail / total;
            w.below[j] /= total;
        }
        for j in 0..m {
            w.s1[j] = if y > j { w.below[j] } else { -w.above[j] };
            w.d1[j] = w.s1[j] * w.q[j][1];
        }
        for b in 0..m {
            for a in 0..=b {
                let mut v = -w.above[b] * w.below[a] * w.q[a][1] * w.q[b][1];
                if a == b {
                    v += w.s1[a] * w.q[a][2];
                }
                (w.d2[a + b * m], w.d2[b + a * m]) = (v, v);
            }
        }
        value
    }

    /// logit F(x) with its derivatives.
    fn logit(&self, x: f64, order: usize) -> [f64; 4] {
        if self.link == Link::Logit {
            [x, 1.0, 0.0, 0.0]
        } else if order == 0 {
            [self.link.ln_cdf(x) - self.link.ln_survival(x), 0.0, 0.0, 0.0]
        } else {
            let x = J1::variable(x, 0);
            stored(self.link.ln_cdf(x) - self.link.ln_survival(x))
        }
    }

    fn nominal(&self, w: &mut Work, y: usize, order: usize) -> f64 {
        let m = w.m;
        let top = w.x.iter().fold(0.0f64, |t, z| t.max(*z));
        let first = (-top).exp();
        let mut total = first;
        for j in 0..m {
            w.above[j] = (w.x[j] - top).exp();
            total += w.above[j];
        }
        let own = if y == 0 { 0.0 } else { w.x[y - 1] };
        let value = own - top - total.ln();
        if order < 2 {
            return value;
        }
        for j in 0..m {
            // The complement as a sum: 1 - p would cancel.
            let others: f64 = first + (0..m).filter(|&i| i != j).map(|i| w.above[i]).sum::<f64>();
            w.below[j] = others / total;
        }
        w.above.iter_mut().for_each(|p| *p /= total);
        for b in 0..m {
            w.d1[b] = if y == b + 1 { w.below[b] } else { -w.above[b] };
            for a in 0..m {
                w.d2[a + b * m] = w.above[a] * if a == b { -w.below[a] } else { w.above[b] };
            }
        }
        value
    }

    /// Third derivative in the variables a <= b <= c.
    fn third(&self, w: &Work, a: usize, b: usize, c: usize) -> f64 {
        match self.shape {
            Shape::Nominal => {
                let p = &w.above;
                if a == c {
                    -p[a] * w.below[a] * (w.below[a] - p[a])
                } else if a == b || b == c {
                    let (twice, once) = if a == b { (a, c) } else { (c, a) };
                    p[twice] * p[once] * (w.below[twice] - p[twice])
                } else {
                    -2.0 * p[a] * p[b] * p[c]
                }
            }
            Shape::Adjacent => {
                let (q, s) = (&w.q, &w.above);
                let cumulant = -s[c] * w.below[a] * (w.below[b] - s[b]);
                let mut v = cumulant * q[a][1] * q[b][1] * q[c][1];
                let second = |i: usize, j: usize| -s[j] * w.below[i];
                if a == b {
                    v += second(a, c) * q[a][2] * q[c][1];
                }
                if b == c {
                    v += second(a, c) * q[c][2] * q[a][1];
                }
                if a == c {
                    v += second(a, a) * q[a][2] * q[a][1] + w.s1[a] * q[a][3];
                }
                v
            }
            _ if a == c => w.d3[a],
            _ => 0.0,
        }
    }

    fn sorted(&self, w: &Work, a: usize, b: usize, c: usize) -> f64 {
        // b <= c
        if a <= b {
            self.third(w, a, b, c)
        } else if a <= c {
            self.third(w, b, a, c)
        } else {
            self.third(w, b, c, a)
        }
    }

    /// Derivatives where the variables are the predictors.
    fn store_plain(&self, w: &Work, order: usize, out: &mut [f64]) {
        let m = w.m;
        out[1..1 + m].copy_from_slice(&w.d1);
        let mut at = 1 + m;
        for a in 0..m {
            for b in a..m {
                out[at] = w.d2[a + b * m];
                at += 1;
            }
        }
        if order < 3 {
            return;
        }
        for a in 0..m {
            for b in a..m {
                for c in b..m {
                    out[at] = self.third(w, a, b, c);
                    at += 1;
                }
            }
        }
    }

    /// Derivatives in (location, log scale, thresholds) from those in x.
    fn carry(&self, w: &mut Work, r: f64, order: usize, out: &mut [f64]) {
        let (m, scaled) = (w.m, self.scaled);
        let mut at = 1;
        let mut put = |v: f64| {
            out[at] = v;
            at += 1;
        };
        let dot = |f: &dyn Fn(usize) -> f64| (0..m).map(f).sum::<f64>();
        let (r2, r3) = (r * r, r * r * r);
        let (g1, gx) = (dot(&|a| w.d1[a]), dot(&|a| w.x[a] * w.d1[a]));
        put(r * g1);
        if scaled {
            put(-gx);
        }
        (0..m).for_each(|a| put(-r * w.d1[a]));
        // Second derivatives summed over one index, weighted by 1 and by x.
        let one = |b: usize| (0..m).map(|a| w.d2[a + b * m]).sum::<f64>();
        let by_x = |b: usize| (0..m).map(|a| w.x[a] * w.d2[a + b * m]).sum::<f64>();
        let (h11, h1x) = (dot(&one), dot(&by_x));
        let hxx = dot(&|b| w.x[b] * by_x(b));
        put(r2 * h11);
        if scaled {
            put(-r * (g1 + h1x));
        }
        (0..m).for_each(|b| put(-r2 * one(b)));
        if scaled {
            put(gx + hxx);
            (0..m).for_each(|b| put(r * (w.d1[b] + by_x(b))));
        }
        for a in 0..m {
            (a..m).for_each(|b| put(r2 * w.d2[a + b * m]));
        }
        if order < 3 {
            return;
        }
        let (mut sum, mut weighted) = (std::mem::take(&mut w.sum), std::mem::take(&mut w.weighted));
        for c in 0..m {
            for b in 0..=c {
                let (mut s, mut sx) = (0.0, 0.0);
                for a in 0..m {
                    let v = self.sorted(w, a, b, c);
                    (s, sx) = (s + v, sx + w.x[a] * v);
                }
                (sum[b + c * m], sum[c + b * m]) = (s, s);
                (weighted[b + c * m], weighted[c + b * m]) = (sx, sx);
            }
        }
        let t11 = |c: usize| (0..m).map(|b| sum[b + c * m]).sum::<f64>();
        let t1x = |c: usize| (0..m).map(|b| weighted[b + c * m]).sum::<f64>();
        let txx = |c: usize| (0..m).map(|b| w.x[b] * weighted[b + c * m]).sum::<f64>();
        put(r3 * dot(&t11));
        if scaled {
            put(-r2 * (2.0 * h11 + dot(&t1x)));
        }
        (0..m).for_each(|c| put(-r3 * t11(c)));
        if scaled {
            put(r * (g1 + 3.0 * h1x + dot(&txx)));
            (0..m).for_each(|c| put(r2 * (2.0 * one(c) + t1x(c))));
        }
        for b in 0..m {
            (b..m).for_each(|c| put(r3 * sum[b + c * m]));
        }
        if scaled {
            put(-(gx + 3.0 * hxx + dot(&|c| w.x[c] * txx(c))));
            (0..m).for_each(|c| put(-r * (w.d1[c] + 3.0 * by_x(c) + txx(c))));
            for b in 0..m {
                (b..m).for_each(|c| put(-r2 * (2.0 * w.d2[b + c * m] + weighted[b + c * m])));
            }
        }
        for a in 0..m {
            for b in a..m {
                (b..m).for_each(|c| put(-r3 * self.third(w, a, b, c)));
            }
        }
        (w.sum, w.weighted) = (sum, weighted);
    }

    /// Fourth derivatives contracted with a symmetric K x K matrix of every row: sum_cd d4 log f / (da db dc dd) S_cd,
    /// packed, K (K + 1) / 2 a row. In u_j = location - threshold_j and the log scale s first, from which the predictors
    /// are linear: with E = x'd/dx, D_s^p D_u^q = (-1)^p r^q (E + q)^p d^q, and the powers of E are contractions with x.
    pub fn fourth(&self, data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
        let (k, m, lead) = (self.predictors(), self.categories - 1, self.leading());
        let mut w = Work::new(m);
        let rows = eta.chunks_exact(k).zip(squares.chunks_exact(k * k)).zip(out.chunks_exact_mut(k * (k + 1) / 2));
        for (i, ((e, square), o)) in rows.enumerate() {
            let y = data.y[from + i] as usize;
            if self.shape == Shape::Nominal {
                w.x.copy_from_slice(e);
                let found = self.family_fourth(&mut w, y, square);
                pack(k, o, |a, b| found[a + b * m]);
                continue;
            }
            let rate = if self.scaled { (-e[1]).exp() } else { 1.0 };
            w.x.iter_mut().zip(&e[lead..]).for_each(|(x, t)| *x = (e[0] - t) * rate);
            let side = Side::new(square, k, lead, self.scaled);
            let (inner, scale, last) = self.inner_fourth(&mut w, y, rate, &side);
            let column = |b: usize| (0..m).map(|a| inner[a + b * m]).sum::<f64>();
            pack(k, o, |a, b| match (a, b) {
                (0, 0) => (0..m).map(column).sum(),
                (0, b) if b < lead => scale.iter().sum(),
                (0, b) => -column(b - lead),
                (a, b) if b < lead && a < lead => last,
                (a, b) if a < lead => -scale[b - lead],
                (a, b) => inner[a - lead + (b - lead) * m],
            });
        }
    }

    /// The contraction in (u, s): its block of the u, that of the u with s, and that of s.
    fn inner_fourth(&self, w: &mut Work, y: usize, r: f64, side: &Side) -> (Vec<f64>, Vec<f64>, f64) {
        let (m, x) = (w.m, w.x.clone());
        let (c, s) = (&side.with_scale, side.scale);
        // a S + b (c x' + x c') + d x x'
        let blend = |a: f64, b: f64, d: f64| -> Vec<f64> {
            let at = |i: usize| {
                let (u, v) = (i % m, i / m);
                a * side.own[i] + b * (c[u] * x[v] + x[u] * c[v]) + d * x[u] * x[v]
            };
            (0..m * m).map(at).collect()
        };
        let (r2, r3) = (r * r, r * r * r);
        let four = self.plain_fourth(w, y, &blend(r2 * r2, -r3, r2 * s));
        if !self.scaled {
            return (four, vec![0.0; m], 0.0);
        }
        match self.shape {
            Shape::Adjacent => self.adjacent(w, y, 3),
            _ => self.sequential(w, y, 3),
        };
        let w = &*w;
        let (n, l) = (blend(-3.0 * r3, 5.0 * r2, -6.0 * r * s), blend(5.0 * r2, -6.0 * r, 6.0 * s));
        let (mut inner, mut scale, mut last) = (four.clone(), vec![0.0; m], 0.0);
        for j in 0..m {
            for k in 0..m {
                for u in 0..m {
                    let (b, d) = (k.min(u), k.max(u));
                    let t = self.sorted(w, j, b, d);
                    inner[j + k * m] += t * (5.0 * r2 * s * x[u] - 6.0 * r3 * c[u]);
                    scale[j] += t * n[k + u * m];
                    last += x[j] * t * l[k + u * m];
                }
                let h = w.d2[j + k * m];
                inner[j + k * m] += 4.0 * r2 * s * h;
                scale[j] += h * (8.0 * r2 * c[k] - 7.0 * r * s * x[k]) - four[j + k * m] * x[k] / r;
                last += h * (4.0 * r2 * side.own[j + k * m] - 14.0 * r * c[j] * x[k] + 7.0 * s * x[j] * x[k]);
                last += x[j] * four[j + k * m] * x[k] / r2;
            }
            scale[j] -= r * s * w.d1[j];
            last += w.d1[j] * (s * x[j] - 2.0 * r * c[j]);
        }
        (inner, scale, last)
    }

    /// The contraction in the x with an m x m matrix.
    fn plain_fourth(&self, w: &mut Work, y: usize, square: &[f64]) -> Vec<f64> {
        let m = w.m;
        if self.shape == Shape::Adjacent {
            return self.family_fourth(w, y, square);
        }
        let mut out = vec![0.0; m * m];
        for j in 0..=y.min(m - 1) {
            out[j + j * m] = self.step(J4::variable(w.x[j], 0), j == y).q[0] * square[j + j * m];
        }
        out
    }

    /// That of the exponential families: of C points t_c, log f = t_y'q - log sum_c exp(t_c'q), q_j a function of x_j.
    /// Cumulants are sums over the points, whose deviations from the mean are not differences: they have all digits.
    fn family_fourth(&self, w: &mut Work, y: usize, square: &[f64]) -> Vec<f64> {
        let m = w.m;
        let (q, points) = self.points(w, y);
        let slope = |j: usize| q[j][1];
        let inner: Vec<f64> = (0..m * m).map(|i| slope(i % m) * slope(i / m) * square[i]).collect();
        let sizes: Vec<f64> = points.iter().map(|p| p.form(&inner)).collect();
        let mean: f64 = points.iter().zip(&sizes).map(|(p, s)| p.share * s).sum();
        let mut second = vec![0.0; m * m];
        let mut out = vec![0.0; m * m];
        for (point, size) in points.iter().zip(&sizes) {
            let d = &point.from_mean;
            let bent: f64 = (0..m).map(|u| d[u] * q[u][2] * square[u + u * m]).sum();
            let along: Vec<f64> = (0..m).map(|j| (0..m).map(|v| d[v] * slope(v) * square[v + j * m]).sum()).collect();
            for k in 0..m {
                for j in 0..m {
                    let both = point.share * d[j] * d[k];
                    let bends = q[j][2] * slope(k) * along[j] + slope(j) * q[k][2] * along[k];
                    second[j + k * m] += both;
                    out[j + k * m] -= both * ((size - mean + bent) * slope(j) * slope(k) + 2.0 * bends);
                }
                out[k + k * m] -= q[k][2] * point.share * d[k] * size;
            }
        }
        let half = product(m, &second, &inner);
        let squared = product(m, &half, &second);
        for k in 0..m {
            for j in 0..m {
                let at = |a: usize| square[a + a * m];
                let lower = 2.0 * q[j][2] * q[k][2] * square[j + k * m]
                    + q[j][3] * slope(k) * at(j)
                    + slope(j) * q[k][3] * at(k);
                out[j + k * m] += 2.0 * slope(j) * slope(k) * squared[j + k * m] - second[j + k * m] * lower;
                let more = q[k][2] * q[j][2] * at(j) + 2.0 * q[k][3] * slope(j) * square[j + k * m];
                out[k + k * m] -= second[j + k * m] * more;
            }
            out[k + k * m] += q[k][4] * w.s1[k] * square[k + k * m];
        }
        out
    }

    /// The q with their derivatives, and the points.
    fn points(&self, w: &mut Work, y: usize) -> (Vec<[f64; 5]>, Vec<Point>) {
        let m = w.m;
        let nominal = self.shape == Shape::Nominal;
        let q: Vec<[f64; 5]> = w.x.iter().map(|x| self.logit_fourth(*x)).collect();
        if nominal {
            self.nominal(w, y, 2);
        } else {
            self.adjacent(w, y, 2);
        }
        let mut logs = vec![0.0; m + 1];
        for j in 0..m {
            logs[j + 1] = q[j][0] + if nominal { 0.0 } else { logs[j] };
        }
        let top = logs.iter().fold(0.0f64, |t, v| t.max(*v));
        let total: f64 = logs.iter().map(|v| (v - top).exp()).sum();
        let point = |c: usize| {
            let has = |j: usize| if nominal { c == j + 1 } else { c > j };
            let from_mean = (0..m).map(|j| if has(j) { w.below[j] } else { -w.above[j] }).collect();
            Point { share: (logs[c] - top).exp() / total, from_mean }
        };
        let points = (0..=m).map(point).collect();
        (q, points)
    }

    /// logit F(x), or x itself, with four derivatives.
    fn logit_fourth(&self, x: f64) -> [f64; 5] {
        if self.shape == Shape::Nominal || self.link == Link::Logit {
            return [x, 1.0, 0.0, 0.0, 0.0];
        }
        let (mut out, x) = ([0.0; 5], J4::variable(x, 0));
        (self.link.ln_cdf(x) - self.link.ln_survival(x)).store(&mut out);
        out
    }

    /// Predictors of a model without covariates, from the shares of the categories.
    pub fn start(&self, data: &Data<'_>) -> Vec<f64> {
        let mut share = vec![0.5; self.categories];
        data.y.iter().for_each(|y| share[(*y as usize).min(self.categories - 1)] += 1.0);
        let mut out = vec![0.0; self.leading()];
        for j in 0..self.categories - 1 {
            let rest: f64 = share[j..].iter().sum();
            out.push(match self.shape {
                Shape::Nominal => (share[j + 1] / share[0]).ln(),
                Shape::Stopping => self.link.apply(share[j] / rest),
                Shape::Continuation => -self.link.apply(1.0 - share[j] / rest),
                Shape::Adjacent => -self.link.apply(share[j + 1] / (share[j] + share[j + 1])),
            });
        }
        out
    }
}

/// What a table row of these families has in place of a density of four parameters.
#[derive(Clone, Copy)]
pub struct Elsewhere;

impl Density for Elsewhere {
    fn ln_density<S: Scalar>(&self, _: &Row, _: &[Par<S>; 4]) -> S {
        S::constant(f64::NAN)
    }

    fn ln_cdf<S: Scalar>(&self, _: &Row, _: &[Par<S>; 4]) -> (S, S) {
        (S::constant(f64::NAN), S::constant(f64::NAN))
    }

    fn moments(&self, _: &Row, _: &[Par<f64>; 4]) -> (f64, f64) {
        (f64::NAN, f64::NAN)
    }

    fn draw(&self, _: &Row, _: &[Par<f64>; 4], _: &mut Stream) -> f64 {
        f64::NAN
    }

    fn start(&self, _: &Summary) -> [f64; 4] {
        [0.0; 4]
    }

    fn legal(&self) -> Legal {
        Legal::Real
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let eta = [0.4, 0.3, -1.0, 0.3, 1.4, 2.0];
        for shape in [Shape::Stopping, Shape::Continuation, Shape::Adjacent, Shape::Nominal] {
            let scaled = shape != Shape::Nominal;
            let w = Wide { shape, categories: 5 + 2 * !scaled as usize, link: Link::Cloglog, scaled };
            let mut total = 0.0;
            for y in 0..w.categories {
                let data = Data { y: &[y as f64], ..Data::default() };
                let mut out = [0.0];
                w.rows(&data, 0, &eta, 0, 1, &mut out);
                total += out[0].exp();
            }
            assert!((total - 1.0).abs() < 1e-13, "{shape:?} {total}");
        }
    }

    #[test]
    fn extreme_predictors_stay_finite() {
        let eta = [800.0, -1.0, 0.3, 1.4];
        for shape in [Shape::Stopping, Shape::Continuation, Shape::Adjacent] {
            let w = Wide { shape, categories: 4, link: Link::Logit, scaled: false };
            let mut out = [0.0; 35];
            w.rows(&Data { y: &[0.0], ..Data::default() }, 0, &eta, 3, 35, &mut out);
            assert!(out.iter().all(|v| v.is_finite()), "{shape:?}");
        }
    }

    /// Third derivatives (a, b, c) in any order, from their packed row.
    fn third_of(row: &[f64], k: usize, mut at: [usize; 3]) -> f64 {
        at.sort_unstable();
        row[1 + k + k * (k + 1) / 2 + crate::jet::triple(k, at[0], at[1], at[2])]
    }

    /// sum_cd S_cd d/d_d of the third derivatives (a, b, c), by five-point differences.
    fn by_differences(w: &Wide, data: &Data<'_>, eta: &[f64], square: &[f64]) -> Vec<f64> {
        let (k, h) = (eta.len(), 2e-3);
        let stride = 1 + k + k * (k + 1) / 2 + k * (k + 1) * (k + 2) / 6;
        let mut out = vec![0.0; k * (k + 1) / 2];
        for d in 0..k {
            for (step, weight) in [(-2.0, 1.0), (-1.0, -8.0), (1.0, 8.0), (2.0, -1.0)] {
                let (mut e, mut row) = (eta.to_vec(), vec![0.0; stride]);
                e[d] += step * h;
                w.rows(data, 0, &e, 3, stride, &mut row);
                let mut at = 0;
                for a in 0..k {
                    for b in a..k {
                        let sum = |c: usize| square[c + d * k] * third_of(&row, k, [a, b, c]);
                        out[at] += weight / (12.0 * h) * (0..k).map(sum).sum::<f64>();
                        at += 1;
                    }
                }
            }
        }
        out
    }

    fn agrees(w: &Wide, y: usize, shift: f64) {
        let (k, lead) = (w.predictors(), w.leading());
        let wave = |i: usize| (1.7 * i as f64 + 0.4).sin();
        let mut eta: Vec<f64> = (0..k).map(|i| if i < lead { 0.3 * wave(i) } else { 0.8 * wave(i) }).collect();
        eta[0] += shift;
        let square: Vec<f64> = (0..k * k).map(|i| wave(i % k) * wave(i / k) + wave((i % k) + (i / k))).collect();
        let y = [y as f64];
        let data = Data { y: &y, ..Data::default() };
        let expected = by_differences(w, &data, &eta, &square);
        let mut found = vec![0.0; expected.len()];
        w.fourth(&data, 0, &eta, &square, &mut found);
        let size = expected.iter().fold(0.0f64, |t, v| t.max(v.abs()));
        // The differences lose h^4 of the seventh derivative, which is up to 1e3 of the fourth.
        for (f, e) in found.iter().zip(&expected) {
            assert!((f - e).abs() < 1e-7 * size + 1e-9, "{w:?} y {y:?} shift {shift}: {f} {e}");
        }
    }

    #[test]
    fn fourth_derivatives_are_the_slopes_of_the_third() {
        for shape in [Shape::Stopping, Shape::Continuation, Shape::Adjacent, Shape::Nominal] {
            for link in [Link::Logit, Link::Probit, Link::Cloglog, Link::Loglog, Link::Cauchit] {
                for (scaled, categories) in [(false, 2), (true, 2), (false, 4), (true, 3), (true, 6)] {
                    if shape == Shape::Nominal && (scaled || link != Link::Logit) && categories != 6 {
                        continue;
                    }
                    let scaled = scaled && shape != Shape::Nominal;
                    let w = Wide { shape, categories, link, scaled };
                    (0..categories).for_each(|y| [0.0, -2.5, 2.0].iter().for_each(|shift| agrees(&w, y, *shift)));
                }
            }
        }
    }
}
