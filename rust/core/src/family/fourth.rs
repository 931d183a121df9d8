//! Fourth derivatives of log densities, contracted with a matrix of every row: what the second derivatives of a Laplace
//! approximation take of them. The commonest families have them written out, without a jet.

use super::closed::Memo;
use super::counts::Rising;
use super::link::Link;
use super::table::Kind;
use super::{Data, Family};
use crate::jet::{pair, quadruple};
use crate::special;

/// Rows from one on: linear predictors, matrices, results.
type Contracted = fn(&Data<'_>, usize, &[f64], &[f64], &mut [f64]);

impl Family {
    /// Fourth derivatives of log f contracted with a symmetric matrix S of every row: sum_cd d4 log f / (da db dc dd) S_cd
    /// for a <= b, for the rows from `from` on.
    ///
    /// `eta` is row-major (rows x K), `squares` has the K x K numbers of each row's S, and `out` takes K (K + 1) / 2 numbers
    /// a row in the order of second derivatives. NaN where eta is illegal.
    pub fn fourth(&self, data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
        if let Some(wide) = &self.wide {
            return wide.fourth(data, from, eta, squares, out);
        }
        if let Some(written) = self.closed.filter(|_| data.is_bare()).and_then(|_| self.written()) {
            return written(data, from, eta, squares, out);
        }
        let (k, stride, panel) = (self.free, self.stride(4), self.panel());
        let contraction = Contraction::new(k);
        let mut rows = vec![0.0; stride * panel.min(eta.len() / k)];
        let panels =
            eta.chunks(panel * k).zip(squares.chunks(panel * k * k)).zip(out.chunks_mut(panel * k * (k + 1) / 2));
        for (first, ((eta, squares), out)) in (from..).step_by(panel).zip(panels) {
            let rows = &mut rows[..eta.len() / k * stride];
            self.evaluate(data, first, eta, 4, rows);
            contraction.take(rows, stride, squares, out);
        }
    }

    /// The loop that has no need of fourth derivatives one by one.
    fn written(&self) -> Option<Contracted> {
        match (self.entry.kind, self.links.as_slice()) {
            (Kind::Gaussian, [Link::Identity, Link::Log]) => Some(gaussian),
            (Kind::Binomial, [Link::Logit]) => Some(binomial),
            (Kind::Poisson, [Link::Log]) => Some(poisson),
            (Kind::NegativeBinomial2, [Link::Log, Link::Log]) => Some(negative_binomial),
            _ => None,
        }
    }
}

/// Where the derivatives (a, b, c, d) of each pair (a, b) stand among the fourth ones, c <= d.
struct Contraction {
    k: usize,
    places: Vec<usize>,
}

impl Contraction {
    fn new(k: usize) -> Self {
        let pairs: Vec<(usize, usize)> = (0..k).flat_map(|a| (a..k).map(move |b| (a, b))).collect();
        let of =
            |&(a, b): &(usize, usize)| pairs.iter().map(move |&(c, d)| quadruple(k, a, b, c, d)).collect::<Vec<_>>();
        Contraction { k, places: pairs.iter().flat_map(of).collect() }
    }

    /// The contractions of rows of derivatives, of which the fourth ones come last.
    fn take(&self, rows: &[f64], stride: usize, squares: &[f64], out: &mut [f64]) {
        let k = self.k;
        let h = k * (k + 1) / 2;
        let begin = stride - h * (k + 2) * (k + 3) / 12;
        let mut s = [0.0; 10];
        let all = rows.chunks_exact(stride).zip(squares.chunks_exact(k * k)).zip(out.chunks_exact_mut(h));
        for ((row, square), out) in all {
            for c in 0..k {
                (c..k).for_each(|d| s[pair(k, c, d)] = if c == d { 1.0 } else { 2.0 } * square[c * k + d]);
            }
            let fourth = &row[begin..];
            for (out, places) in out.iter_mut().zip(self.places.chunks_exact(h)) {
                *out = places.iter().zip(&s).map(|(&at, s)| fourth[at] * s).sum();
            }
        }
    }
}

/// Log link: every derivative of log f from the second on is -mu.
fn poisson(_: &Data<'_>, _: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
    out.iter_mut().zip(eta.iter().zip(squares)).for_each(|(out, (eta, s))| *out = -crate::lanes::exp(*eta) * s);
}

/// Logit link.
fn binomial(data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
    for (i, (out, (eta, s))) in out.iter_mut().zip(eta.iter().zip(squares)).enumerate() {
        let (p, q) = special::logistic_pair(*eta);
        let d = p * q;
        *out = -data.trials.map_or(1.0, |t| t[from + i]) * d * (1.0 - 6.0 * d) * s;
    }
}

/// Identity link for the mean, log link for the standard deviation: log f = -w r^2 / 2 - log sd, w = exp(-2 log sd).
fn gaussian(data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
    let rows = eta.chunks_exact(2).zip(squares.chunks_exact(4)).zip(&data.y[from..]).zip(out.chunks_exact_mut(3));
    for (((eta, s), y), out) in rows {
        let (w, r) = ((-2.0 * eta[1]).exp(), y - eta[0]);
        out[0] = -4.0 * w * s[3];
        out[1] = -8.0 * w * (s[1] + r * s[3]);
        out[2] = -4.0 * w * (s[0] + 4.0 * r * s[1] + 2.0 * r * r * s[3]);
    }
}

/// Log links: log f = r(s) + y x - (y + k) T(x - s) from x = log mu and s = log k, T = softplus and r the rising factorials.
fn negative_binomial(data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
    let (mut table, mut before) = (Memo::<Rising>::default(), f64::NAN);
    let rows = eta.chunks_exact(2).zip(squares.chunks_exact(4)).zip(&data.y[from..]).zip(out.chunks_exact_mut(3));
    for (((eta, s), &y), out) in rows {
        let t = eta[0] - eta[1];
        // A table pays only where the size repeats itself.
        let (r4, k) = if eta[1] == before {
            let rising = table.get(eta[1], Rising::new);
            (rising.fourth(y), rising.k)
        } else {
            (special::ln_rising_jet(eta[1], y, 4)[4], eta[1].exp())
        };
        before = eta[1];
        // T to its third derivative times k, and the fourth times y + k.
        let (p, q) = special::logistic_pair(t);
        let pq = p * q;
        let [k0, k1, k2, k3] = [special::softplus(t), p, pq, pq * (q - p)].map(|d| k * d);
        let n4 = (y + k) * pq * (1.0 - 6.0 * pq);
        let (xxxx, xxxs, xxss) = (-n4, n4 - k3, 2.0 * k3 - k2 - n4);
        let xsss = n4 - 3.0 * (k3 - k2) - k1;
        let ssss = r4 - n4 + 4.0 * (k3 + k1) - 6.0 * k2 - k0;
        out[0] = xxxx * s[0] + 2.0 * xxxs * s[1] + xxss * s[3];
        out[1] = xxxs * s[0] + 2.0 * xxss * s[1] + xsss * s[3];
        out[2] = xxss * s[0] + 2.0 * xsss * s[1] + ssss * s[3];
    }
}
