//! Fourth derivatives where only one predictor has random effects, twice along it: zero-inflated counts have them written
//! out.
//!
//! A zero has log f = log(pi + (1 - pi) e^l), l the log density without extra zeros. With w = logistic(l - logit pi), the
//! probability that it is none of these, the second derivative along the mean's predictor is w l'' + w (1 - w) l'^2, and
//! its own second derivatives are those asked for. Other counts have those of l.

use super::link::Link;
use super::table::Kind;
use super::{Data, Family};
use crate::jet::{Jet, Scalar};
use crate::special;

type Two = Jet<3, 6, 0>;

/// l' and l'' along the mean's predictor of a zero, and l.
type Zero = [Two; 3];

impl Family {
    /// As `fourth`, where S is 0 but for the diagonal entry of predictor c: one number a row.
    pub fn fourth_single(
        &self,
        data: &Data<'_>,
        from: usize,
        eta: &[f64],
        (squares, c): (&[f64], usize),
        out: &mut [f64],
    ) {
        if let Some(written) = self.inflated(data).filter(|_| c == 0) {
            return written(data, from, eta, squares, out);
        }
        let k = self.free;
        let mut all = vec![0.0; squares.len() * k * k];
        all.iter_mut().skip(c * (k + 1)).step_by(k * k).zip(squares).for_each(|(a, s)| *a = *s);
        self.fourth(data, from, eta, &all, out);
    }

    fn inflated(&self, data: &Data<'_>) -> Option<fn(&Data<'_>, usize, &[f64], &[f64], &mut [f64])> {
        if self.closed.is_none() || self.extra.is_none() || !data.is_bare() {
            return None;
        }
        match (self.entry.kind, self.links.as_slice()) {
            (Kind::Poisson, [Link::Log, Link::Logit]) => Some(poisson),
            (Kind::Binomial, [Link::Logit, Link::Logit]) => Some(binomial),
            (Kind::NegativeBinomial2, [Link::Log, Link::Log, Link::Logit]) => Some(negative_binomial),
            _ => None,
        }
    }
}

/// The second derivatives of w l'' + w (1 - w) l'^2, packed.
fn at_zero([l, l1, l2]: Zero, logit: Two) -> [f64; 6] {
    let w = (l - logit).logistic();
    let other = (logit - l).logistic();
    (w * l2 + w * other * l1.square()).h
}

/// Families of one predictor, extra zeros the second: `zero` has l, l' and l'', `other` l'''' of a count above 0.
fn one(
    (eta, squares): (&[f64], &[f64]),
    out: &mut [f64],
    zero: impl Fn(usize, Two) -> Option<Zero>,
    other: impl Fn(usize, f64) -> f64,
) {
    for (i, ((eta, s), out)) in eta.chunks_exact(2).zip(squares).zip(out.chunks_exact_mut(3)).enumerate() {
        match zero(i, Two::variable(eta[0], 0)) {
            Some(l) => {
                // The third variable does not occur.
                let h = at_zero(l, Two::variable(eta[1], 1));
                (out[0], out[1], out[2]) = (h[0] * s, h[1] * s, h[3] * s);
            }
            None => (out[0], out[1], out[2]) = (other(i, eta[0]) * s, 0.0, 0.0),
        }
    }
}

fn poisson(data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
    let zero = |i: usize, eta: Two| {
        (data.y[from + i] == 0.0).then(|| {
            let minus = -eta.exp();
            [minus; 3]
        })
    };
    one((eta, squares), out, zero, |_, eta| -eta.exp());
}

fn binomial(data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
    let trials = |i: usize| data.trials.map_or(1.0, |t| t[from + i]);
    let zero = |i: usize, eta: Two| {
        (data.y[from + i] == 0.0).then(|| {
            let (p, q, n) = (eta.logistic(), (-eta).logistic(), trials(i));
            [eta.softplus() * -n, p * -n, p * q * -n]
        })
    };
    let other = |i: usize, eta: f64| {
        let (p, q) = special::logistic_pair(eta);
        -trials(i) * p * q * (1.0 - 6.0 * p * q)
    };
    one((eta, squares), out, zero, other);
}

fn negative_binomial(data: &Data<'_>, from: usize, eta: &[f64], squares: &[f64], out: &mut [f64]) {
    let rows = eta.chunks_exact(3).zip(squares).zip(&data.y[from..]).zip(out.chunks_exact_mut(6));
    for (((eta, s), &y), out) in rows {
        if y == 0.0 {
            let (t, minus) = (Two::variable(eta[0], 0) - Two::variable(eta[1], 1), -Two::variable(eta[1], 1).exp());
            let (p, q) = (t.logistic(), (-t).logistic());
            let h = at_zero([minus * t.softplus(), minus * p, minus * p * q], Two::variable(eta[2], 2));
            out.iter_mut().zip(h).for_each(|(o, h)| *o = h * s);
            continue;
        }
        let ((p, q), k) = (special::logistic_pair(eta[0] - eta[1]), eta[1].exp());
        let (d2, d3) = (k * p * q, k * p * q * (q - p));
        let d4 = (y + k) * p * q * (1.0 - 6.0 * p * q);
        out.fill(0.0);
        (out[0], out[1], out[3]) = (-d4 * s, (d4 - d3) * s, (2.0 * d3 - d2 - d4) * s);
    }
}
