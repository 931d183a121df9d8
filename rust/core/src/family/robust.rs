//! Student t: heavy tails around a location; the dispersion is the scale, the shape the degrees of freedom.

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::Scalar;
use crate::special::{self, HALF_LN_2PI};

#[derive(Clone, Copy)]
pub struct StudentT;

/// lgamma(x + 1/2) - lgamma(x) - log(x)/2 for log x: 0 in the limit.
fn ln_ratio<S: Scalar>(ln_x: S) -> S {
    let binet = |l: S| l.compose(special::binet_jet(l.value(), S::ORDER));
    let half = ln_x.exp() + 0.5;
    // (0.5 / x) enters as exp(-ln x) / 2
    let shift = ((-ln_x).exp() * 0.5).ln_1p();
    shift * (half - 0.5) - 0.5 + binet(shift + ln_x) - binet(ln_x)
}

impl Density for StudentT {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let (ls, lv) = (super::gaussian::ln_total_sd(&p[1], row.se), p[2].ln());
        let z = (-p[0].value() + row.y) * (-ls).exp();
        let w = (z.square() * (-lv).exp()).ln_1p();
        let power = (lv.exp() + 1.0) * 0.5;
        ln_ratio(lv - std::f64::consts::LN_2) - ls - HALF_LN_2PI - power * w
    }

    /// The tail beyond |z| is I_x(nu/2, 1/2) / 2 with x = nu / (nu + z^2).
    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        let (ls, v) = (super::gaussian::ln_total_sd(&p[1], row.se), p[2].value());
        let z = (-p[0].value() + row.y) * (-ls).exp();
        let z2 = z.square();
        let r = (z2 + v).recip();
        let (tail, _) = special::ln_incomplete_beta(v * 0.5, S::constant(0.5), v * r, z2 * r);
        let tail = tail - std::f64::consts::LN_2;
        if z.value() < 0.0 {
            (tail, tail.ln_1m_exp())
        } else {
            (tail.ln_1m_exp(), tail)
        }
    }

    fn moments(&self, row: &Row, p: &[Par<f64>; 4]) -> (f64, f64) {
        let (m, s, v) = (p[0].value(), p[1].value(), p[2].value());
        let mean = if v > 1.0 { m } else { f64::NAN };
        let variance = if v > 2.0 {
            (s * s + row.se * row.se) * v / (v - 2.0)
        } else if v > 1.0 {
            f64::INFINITY
        } else {
            f64::NAN
        };
        (mean, variance)
    }

    fn draw(&self, row: &Row, p: &[Par<f64>; 4], rng: &mut Stream) -> f64 {
        let (s, v) = (super::gaussian::ln_total_sd(&p[1], row.se).exp(), p[2].value());
        let chi = rng.ln_gamma(0.5 * v) - (0.5 * v).ln();
        p[0].value() + s * rng.normal() * (-0.5 * chi).exp()
    }

    fn start(&self, s: &Summary) -> [f64; 4] {
        [s.mean, (0.5 * s.variance).sqrt(), 6.0, 0.0]
    }

    fn legal(&self) -> Legal {
        Legal::Real
    }
}
