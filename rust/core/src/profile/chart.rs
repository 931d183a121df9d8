//! Coordinates in which one parameter is a number of its own and the others are free.
//!
//! A surface has coordinates x. A chart writes x as a function of the held value v and free coordinates y, so that the
//! constrained search is an unconstrained one. Rows T_i of a lower triangular root T of a covariance matrix give
//!     sd_i     = |T_i|:             T_i = v w / |w|
//!     cor_ij   = sin v:             T_i = |q| q,  T_j = t^2 (sin v a + cos v c),  a = q / |q|,
//!                                   c the unit vector along w - (w'a) a
//! The autocorrelation r_k at lag k, with partial autocorrelations p_j = x_j / sqrt(1 + x_j^2), is
//!     r_k = v / sqrt(1 + v^2):  p_k = (r_k - c) / e,   c and e of p_1 ... p_k-1 (Durbin & Levinson).
//! The first two are smooth at correlations of +-1 and where a standard deviation is 0 (there the deviance has a slope in the
//! standard deviation, so its square root is the coordinate: a correlation far from the estimate may be had for the price
//! of a zero variance). The length of w is a coordinate without effect.

use crate::jet::{Jet, Scalar};
use crate::linear::dot;
use crate::structure::autocorrelations;

/// What is held; positions are those in x.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// The surface holds it by itself.
    Outside,
    /// x_j = v.
    Coordinate(usize),
    /// a'x = v over the first `a.len()` coordinates; the pivot makes up for the others.
    Contrast { pivot: usize, a: Vec<f64> },
    /// The length of these coordinates is v.
    Row(Vec<usize>),
    /// The correlation of the first row with the second is sin v; the second is the longer one.
    Pair(Vec<usize>, Vec<usize>),
    /// The autocorrelation at the last of these lags is v / sqrt(1 + v^2); the coordinates are those of lags 1, 2, ...
    Lag(Vec<usize>),
}

impl Hold {
    /// The held value at x; NaN if the surface knows it.
    pub fn value(&self, x: &[f64]) -> f64 {
        let pick = |r: &[usize]| -> Vec<f64> { r.iter().map(|&j| x[j]).collect() };
        match self {
            Hold::Outside => f64::NAN,
            Hold::Coordinate(j) => x[*j],
            Hold::Contrast { a, .. } => a.iter().zip(x).map(|(a, x)| a * x).sum(),
            Hold::Row(r) => norm(&pick(r)).unwrap_or(0.0),
            Hold::Lag(lags) => {
                let partial: Vec<f64> = pick(lags).iter().map(|x| x / x.hypot(1.0)).collect();
                let rho = autocorrelations(&partial)[lags.len()];
                rho / (1.0 - rho * rho).sqrt()
            }
            Hold::Pair(i, j) => {
                let (a, b) = (pick(i), pick(j));
                let sine: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
                match (norm(&a), norm(&b)) {
                    (Some(s), Some(t)) => (sine / (s * t)).clamp(-1.0, 1.0).asin(),
                    _ => f64::NAN,
                }
            }
        }
    }
}

pub struct Chart {
    hold: Hold,
    /// Positions of x that are coordinates of y themselves, then come those the hold brings.
    free: Vec<usize>,
    /// x with 0 at all positions but the frozen ones.
    still: Vec<f64>,
}

impl Chart {
    /// `frozen` positions keep their value in `x`.
    pub fn new(hold: Hold, x: &[f64], frozen: &[bool]) -> Self {
        let taken: Vec<usize> = match &hold {
            Hold::Outside => vec![],
            Hold::Coordinate(j) | Hold::Contrast { pivot: j, .. } => vec![*j],
            Hold::Lag(lags) => vec![lags[lags.len() - 1]],
            Hold::Row(r) => r.clone(),
            Hold::Pair(i, j) => i.iter().chain(j).copied().collect(),
        };
        let free = (0..x.len()).filter(|j| !taken.contains(j) && !frozen[*j]).collect();
        let still = x.iter().zip(frozen).map(|(x, f)| if *f { *x } else { 0.0 }).collect();
        Chart { hold, free, still }
    }

    /// x at (v, y); None where the chart ends.
    pub fn base(&self, v: f64, y: &[f64]) -> Option<Vec<f64>> {
        let mut x = self.still.clone();
        self.free.iter().zip(y).for_each(|(&j, y)| x[j] = *y);
        let rest = &y[self.free.len()..];
        match &self.hold {
            Hold::Outside => {}
            Hold::Coordinate(j) => x[*j] = v,
            Hold::Contrast { pivot, a } => {
                let others: f64 = a.iter().zip(&x).map(|(a, x)| a * x).sum();
                x[*pivot] = (v - others) / a[*pivot];
            }
            Hold::Lag(lags) => x[lags[lags.len() - 1]] = Last::new(v, lags, &x)?.x,
            Hold::Row(r) => {
                let length = norm(rest)?;
                r.iter().zip(rest).for_each(|(&j, w)| x[j] = v * w / length);
            }
            Hold::Pair(i, j) => {
                let (q, rest) = rest.split_at(i.len());
                let p = Plane::new(q, &rest[1..])?;
                let (sin, cos) = v.sin_cos();
                i.iter().zip(q).for_each(|(&i, q)| x[i] = p.first * q);
                for (t, &at) in j.iter().enumerate() {
                    x[at] = rest[0] * rest[0] * (sin * p.a[t] + cos * p.c[t]);
                }
            }
        }
        Some(x)
    }

    /// The free coordinates of x.
    pub fn coordinates(&self, x: &[f64]) -> Vec<f64> {
        let mut y: Vec<f64> = self.free.iter().map(|&j| x[j]).collect();
        match &self.hold {
            Hold::Row(r) => {
                let row: Vec<f64> = r.iter().map(|&j| x[j]).collect();
                match norm(&row) {
                    Some(length) => y.extend(row.iter().map(|w| w / length)),
                    // Any direction: the last coordinate is one of its own.
                    None => y.extend((0..row.len()).map(|t| if t + 1 == row.len() { 1.0 } else { 0.0 })),
                }
            }
            Hold::Pair(i, j) => {
                let row: Vec<f64> = j.iter().map(|&j| x[j]).collect();
                let s = norm(&row).unwrap_or(0.0);
                let first: Vec<f64> = i.iter().map(|&i| x[i]).collect();
                let length = norm(&first).unwrap_or(1.0);
                let a = |t: usize| first.get(t).map_or(0.0, |v| v / length);
                let along: f64 = row.iter().enumerate().map(|(t, v)| v * a(t)).sum();
                let mut w: Vec<f64> = row.iter().enumerate().map(|(t, v)| v - along * a(t)).collect();
                if norm(&w).is_none_or(|l| l < 1e-6 * s) {
                    w = (0..row.len()).map(|t| if t + 1 == row.len() { 1.0 } else { 0.0 }).collect();
                }
                let l = norm(&w).unwrap_or(1.0);
                y.extend(first.iter().map(|v| v / length.sqrt()));
                y.push(s.sqrt());
                y.extend(w.iter().map(|w| w / l));
            }
            _ => {}
        }
        y
    }

    /// Unit directions of y at `y` that change no x: the length of w, and in a pair its part along a.
    pub fn idle(&self, y: &[f64]) -> Vec<Vec<f64>> {
        let padded = |part: &[f64], start: usize| {
            let mut out = vec![0.0; y.len()];
            out[start..start + part.len()].copy_from_slice(part);
            out
        };
        let first = self.free.len();
        match &self.hold {
            Hold::Row(r) => {
                let w = &y[first..];
                let unit = norm(w).map(|l| w.iter().map(|w| w / l).collect::<Vec<_>>());
                unit.filter(|_| r.len() > 1).iter().map(|w| padded(w, first)).collect()
            }
            Hold::Pair(i, _) => {
                let start = first + i.len() + 1;
                let plane = Plane::new(&y[first..first + i.len()], &y[start..]);
                plane.iter().flat_map(|p| [padded(&p.a, start), padded(&p.c, start)]).collect()
            }
            _ => vec![],
        }
    }

    /// (d / dy, d / dv) from d / dx.
    pub fn pull(&self, v: f64, y: &[f64], g: &[f64]) -> Option<(Vec<f64>, f64)> {
        let mut g = g.to_vec();
        let rest = &y[self.free.len()..];
        let mut more = vec![];
        let mut along = 0.0;
        match &self.hold {
            Hold::Outside => {}
            Hold::Coordinate(j) => along = g[*j],
            Hold::Contrast { pivot, a } => {
                along = g[*pivot] / a[*pivot];
                g.iter_mut().zip(a).for_each(|(g, a)| *g -= a * along);
            }
            Hold::Lag(lags) => {
                let mut x = self.still.clone();
                self.free.iter().zip(y).for_each(|(&j, y)| x[j] = *y);
                let (last, own) = (Last::new(v, lags, &x)?, g[lags[lags.len() - 1]]);
                along = own * last.along;
                lags.iter().zip(&last.beside).for_each(|(&j, d)| g[j] += own * d);
            }
            Hold::Row(r) => {
                let length = norm(rest)?;
                let own: Vec<f64> = r.iter().map(|&j| g[j]).collect();
                along = dot(&own, rest) / length;
                more = own.iter().zip(rest).map(|(g, w)| v * (g - along * w / length) / length).collect();
            }
            Hold::Pair(i, j) => {
                let (q, rest) = rest.split_at(i.len());
                let p = Plane::new(q, &rest[1..])?;
                let (s, (sin, cos)) = (rest[0] * rest[0], v.sin_cos());
                let own: Vec<f64> = j.iter().map(|&j| g[j]).collect();
                let (ga, gc) = (dot(&own, &p.a), dot(&own, &p.c));
                along = s * (cos * ga - sin * gc);
                let (w, da) = p.pull(&own, s * sin, s * cos, &rest[1..]);
                let first: Vec<f64> = i.iter().map(|&i| g[i]).collect();
                let radial = dot(&first, q) / p.first;
                more.extend((0..q.len()).map(|t| p.first * first[t] + radial * q[t] + da[t]));
                more.push(2.0 * rest[0] * (sin * ga + cos * gc));
                more.extend(w);
            }
        }
        let mut out: Vec<f64> = self.free.iter().map(|&j| g[j]).collect();
        out.extend(more);
        Some((out, along))
    }
}

/// The coordinate of the last lag whose autocorrelation is held, with its derivatives.
struct Last {
    x: f64,
    /// By the held value, and by the coordinates of the lags before.
    along: f64,
    beside: Vec<f64>,
}

impl Last {
    /// None where no partial autocorrelation gives that value.
    fn new(v: f64, lags: &[usize], x: &[f64]) -> Option<Self> {
        type Dual = Jet<1, 1, 0>;
        let before: Vec<f64> = lags[..lags.len() - 1].iter().map(|&j| x[j]).collect();
        let partial = |x: f64| x / x.hypot(1.0);
        // r_k is a straight line in p_k: its value at 0 and its rise to 1.
        let line = |moving: Option<usize>| -> (Dual, Dual) {
            let entry = |(j, &x): (usize, &f64)| match moving {
                Some(i) if i == j => Dual::variable(partial(x), 0),
                _ => Dual::constant(partial(x)),
            };
            let mut p: Vec<Dual> = before.iter().enumerate().map(entry).collect();
            let mut at = |last: f64| {
                p.truncate(before.len());
                p.push(Dual::constant(last));
                autocorrelations(&p)[p.len()]
            };
            let (c, end) = (at(0.0), at(1.0));
            (c, end - c)
        };
        let (c, e) = line(None);
        let p = (partial(v) - c.v) / e.v;
        if !(p.abs() < 1.0) {
            return None;
        }
        let slope = |x: f64| (1.0 + x * x).powf(-1.5); // of a partial correlation in its coordinate
        let own = (1.0 - p * p).powf(-1.5) / e.v;
        let beside = before.iter().enumerate().map(|(j, &x)| {
            let (c, e) = line(Some(j));
            -own * (c.g[0] + p * e.g[0]) * slope(x)
        });
        Some(Last { x: p / (1.0 - p * p).sqrt(), along: own * slope(v), beside: beside.collect() })
    }
}

/// The unit vectors a and c of a pair.
struct Plane {
    a: Vec<f64>,
    c: Vec<f64>,
    /// |q|, |w - (w'a) a| and w'a.
    first: f64,
    second: f64,
    along: f64,
    shorter: usize,
}

impl Plane {
    fn new(q: &[f64], w: &[f64]) -> Option<Self> {
        let first = norm(q)?;
        let mut a: Vec<f64> = q.iter().map(|v| v / first).collect();
        a.resize(w.len(), 0.0);
        let along = dot(w, &a);
        let u: Vec<f64> = w.iter().zip(&a).map(|(w, a)| w - along * a).collect();
        let second = norm(&u)?;
        Some(Plane { c: u.iter().map(|u| u / second).collect(), a, first, second, along, shorter: q.len() })
    }

    /// (d / dw, d / dq by way of a) for T_j = on a + off c.
    fn pull(&self, g: &[f64], on: f64, off: f64, w: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let gc = dot(g, &self.c);
        let gu: Vec<f64> = g.iter().zip(&self.c).map(|(g, c)| off * (g - gc * c) / self.second).collect();
        let gua = dot(&gu, &self.a);
        let gw = gu.iter().zip(&self.a).map(|(u, a)| u - gua * a).collect();
        let mut ga: Vec<f64> = (0..g.len()).map(|t| on * g[t] - gua * w[t] - self.along * gu[t]).collect();
        ga.truncate(self.shorter);
        let a = &self.a[..self.shorter];
        let radial = dot(&ga, a);
        (gw, ga.iter().zip(a).map(|(g, a)| (g - radial * a) / self.first).collect())
    }
}

fn norm(v: &[f64]) -> Option<f64> {
    let n = dot(v, v).sqrt();
    (n > 1e-150 && n.is_finite()).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smooth function of x with its gradient.
    fn value(x: &[f64]) -> (f64, Vec<f64>) {
        let f = x.iter().enumerate().map(|(i, x)| ((i + 1) as f64 * x).sin() + x * x * 0.3).sum();
        let g = x.iter().enumerate().map(|(i, x)| (i + 1) as f64 * ((i + 1) as f64 * x).cos() + 0.6 * x).collect();
        (f, g)
    }

    fn check(hold: Hold, v: f64) {
        let chart = Chart::new(hold, &[0.0; 7], &[false; 7]);
        let x0 = [0.7, 0.2, 0.9, -0.3, 0.4, 0.8, 0.1];
        let y = chart.coordinates(&x0);
        let f = |v: f64, y: &[f64]| value(&chart.base(v, y).unwrap()).0;
        let x = chart.base(v, &y).unwrap();
        let (gy, gv) = chart.pull(v, &y, &value(&x).1).unwrap();
        let h = 1e-6;
        assert!((gv - (f(v + h, &y) - f(v - h, &y)) / (2.0 * h)).abs() < 1e-7);
        for t in 0..y.len() {
            let (mut a, mut b) = (y.clone(), y.clone());
            a[t] += h;
            b[t] -= h;
            assert!((gy[t] - (f(v, &a) - f(v, &b)) / (2.0 * h)).abs() < 1e-7, "{t}");
        }
    }

    #[test]
    fn gradients_are_difference_quotients() {
        check(Hold::Outside, 0.3);
        check(Hold::Coordinate(2), 0.3);
        check(Hold::Contrast { pivot: 1, a: vec![0.5, 2.0, -1.0] }, 0.3);
        check(Hold::Row(vec![3, 4, 5]), 1.3);
        check(Hold::Lag(vec![1, 4]), 0.3);
        check(Hold::Lag(vec![2, 1, 5, 0]), 0.6);
        check(Hold::Pair(vec![0], vec![1, 3]), 0.4);
        check(Hold::Pair(vec![1, 3], vec![2, 4, 5]), -0.8);
    }

    #[test]
    fn idle_directions_change_nothing() {
        let x0 = [0.7, 0.2, 0.9, -0.3, 0.4, 0.8, 0.1];
        for (hold, count) in [
            (Hold::Row(vec![3, 4, 5]), 1),
            (Hold::Row(vec![3]), 0),
            (Hold::Coordinate(2), 0),
            (Hold::Pair(vec![1, 3], vec![2, 4, 5]), 2),
        ] {
            let chart = Chart::new(hold, &[0.0; 7], &[false; 7]);
            let y = chart.coordinates(&x0);
            let idle = chart.idle(&y);
            assert_eq!(idle.len(), count);
            for d in idle {
                let moved: Vec<f64> = y.iter().zip(&d).map(|(y, d)| y + 0.3 * d).collect();
                let (a, b) = (chart.base(0.4, &y).unwrap(), chart.base(0.4, &moved).unwrap());
                assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-14));
                assert!((dot(&d, &d) - 1.0).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn autocorrelations_are_held() {
        let lags = vec![2, 1, 5, 0];
        let chart = Chart::new(Hold::Lag(lags.clone()), &[0.0; 7], &[false; 7]);
        let x0 = [0.7, 0.2, 0.9, -0.3, 0.4, 0.8, 0.1];
        let own = Hold::Lag(lags.clone()).value(&x0);
        let x = chart.base(own, &chart.coordinates(&x0)).unwrap();
        assert!(x.iter().zip(&x0).all(|(a, b)| (a - b).abs() < 1e-12));
        let moved = chart.base(0.45, &chart.coordinates(&x0)).unwrap();
        assert!((Hold::Lag(lags).value(&moved) - 0.45).abs() < 1e-12);
        assert!(chart.base(-50.0, &chart.coordinates(&x0)).is_none(), "beyond what the other lags let be");
    }

    #[test]
    fn lags_beside_a_held_one() {
        let lags = vec![2, 1, 5];
        let x0 = [0.7, 0.2, 0.9, -0.3, 0.4, 0.8, 0.1];
        let mut frozen = [false; 7];
        frozen[1] = true;
        let chart = Chart::new(Hold::Lag(lags.clone()), &x0, &frozen);
        let y = chart.coordinates(&x0);
        assert_eq!(y.len(), 5);
        let x = chart.base(0.45, &y).unwrap();
        assert!((x[1], x[2]) == (0.2, 0.9) && (Hold::Lag(lags).value(&x) - 0.45).abs() < 1e-12);
    }

    #[test]
    fn the_held_value_is_that_of_the_point() {
        let chart = Chart::new(Hold::Pair(vec![1, 3], vec![2, 4, 5]), &[0.0; 7], &[false; 7]);
        let x0 = [0.7, 0.2, 0.9, -0.3, 0.4, 0.8, 0.1];
        let x = chart.base(0.5, &chart.coordinates(&x0)).unwrap();
        let (a, b) = ([x[1], x[3], 0.0], [x[2], x[4], x[5]]);
        assert!((dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt() - 0.5f64.sin()).abs() < 1e-12);
        assert!((dot(&b, &b) - (0.81 + 0.16 + 0.64)).abs() < 1e-12, "the standard deviation stays");
    }
}
