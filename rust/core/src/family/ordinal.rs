//! Cumulative link models for ordered categories 0, 1 ... C - 1 (McCullagh 1980).
//!
//! P(Y <= c) = F((threshold_c - location) / scale). A row needs the threshold above and the threshold below its own
//! category only: its predictors are location, log scale if asked for, upper and lower threshold. The upper
//! threshold of the last category and the lower one of the first are not used. `links[0]` is F's quantile function.

use super::density::{Density, Legal, Row, Summary};
use super::draw::Stream;
use super::link::Par;
use crate::jet::Scalar;

#[derive(Clone, Copy)]
pub struct Cumulative {
    pub categories: usize,
}

impl Cumulative {
    fn cut<S: Scalar>(threshold: &Par<S>, p: &[Par<S>; 4]) -> S {
        (threshold.value() - p[0].eta) * (-p[1].ln()).exp()
    }
}

impl Density for Cumulative {
    fn ln_density<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> S {
        let f = p[0].link;
        if row.y <= 0.0 {
            f.ln_cdf(Self::cut(&p[2], p))
        } else if row.y as usize + 1 >= self.categories {
            f.ln_survival(Self::cut(&p[3], p))
        } else {
            f.ln_interval(Self::cut(&p[3], p), Self::cut(&p[2], p))
        }
    }

    fn ln_cdf<S: Scalar>(&self, row: &Row, p: &[Par<S>; 4]) -> (S, S) {
        if row.y as usize + 1 >= self.categories {
            return (S::constant(0.0), S::constant(f64::NEG_INFINITY));
        }
        let x = Self::cut(&p[2], p);
        (p[0].link.ln_cdf(x), p[0].link.ln_survival(x))
    }

    /// The mean of the codes needs every threshold.
    fn moments(&self, _: &Row, _: &[Par<f64>; 4]) -> (f64, f64) {
        (f64::NAN, f64::NAN)
    }

    fn draw(&self, _: &Row, _: &[Par<f64>; 4], _: &mut Stream) -> f64 {
        f64::NAN
    }

    fn start(&self, _: &Summary) -> [f64; 4] {
        [0.5, 1.0, 1.0, -1.0]
    }

    fn legal(&self) -> Legal {
        Legal::Category
    }
}
