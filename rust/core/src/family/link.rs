//! Links, and a distributional parameter as a density meets it: the linear predictor together with its link.
//!
//! Densities ask a [`Par`] for its value, logarithm or complement; each comes from the linear predictor directly
//! (softplus for log p under a logit link, say), so nothing is clamped and nothing overflows at |eta| = 40.

use std::f64::consts::{FRAC_1_PI, PI};

use crate::error::shape;
use crate::jet::Scalar;
use crate::special;
use crate::CoreError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Identity,
    Log,
    Logit,
    Probit,
    Cloglog,
    Loglog,
    Cauchit,
    Inverse,
    InverseSquared,
    Sqrt,
    Softplus,
}

const NAMES: [(&str, Link); 11] = [
    ("identity", Link::Identity),
    ("log", Link::Log),
    ("logit", Link::Logit),
    ("probit", Link::Probit),
    ("cloglog", Link::Cloglog),
    ("loglog", Link::Loglog),
    ("cauchit", Link::Cauchit),
    ("inverse", Link::Inverse),
    ("1/mu^2", Link::InverseSquared),
    ("sqrt", Link::Sqrt),
    ("softplus", Link::Softplus),
];

/// Where a distributional parameter lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    Real,
    Positive,
    /// The open interval (0, 1).
    Unit,
    /// The open interval (1, 2): a Tweedie power.
    Power,
}

impl Range {
    pub fn contains(self, x: f64) -> bool {
        match self {
            Range::Real => x.is_finite(),
            Range::Positive => x >= 0.0,
            Range::Unit => (0.0..=1.0).contains(&x),
            Range::Power => x > 1.0 && x < 2.0,
        }
    }

    /// The links that make sense for a parameter in this range.
    pub fn links(self) -> &'static [Link] {
        use Link::*;
        match self {
            Range::Real => {
                &[Identity, Log, Inverse, Sqrt, Softplus, InverseSquared, Logit, Probit, Cloglog, Loglog, Cauchit]
            }
            Range::Positive => &[Log, Identity, Inverse, InverseSquared, Sqrt, Softplus],
            Range::Unit => &[Logit, Probit, Cloglog, Loglog, Cauchit, Log, Identity],
            Range::Power => &[Logit, Probit, Cloglog, Loglog, Cauchit],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Range::Real => "real",
            Range::Positive => "positive",
            Range::Unit => "(0, 1)",
            Range::Power => "(1, 2)",
        }
    }
}

impl Link {
    pub fn parse(name: &str) -> Result<Link, CoreError> {
        match NAMES.iter().find(|(n, _)| *n == name) {
            Some((_, link)) => Ok(*link),
            None => shape(format!("there is no link named {name:?}")),
        }
    }

    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, l)| *l == self).map_or("", |(n, _)| n)
    }

    /// The parameter at a linear predictor.
    pub fn inverse(self, eta: f64) -> f64 {
        Par { eta, link: self }.value()
    }

    /// The linear predictor at a parameter.
    pub fn apply(self, mu: f64) -> f64 {
        match self {
            Link::Identity => mu,
            Link::Log => mu.ln(),
            Link::Logit => mu.ln() - (-mu).ln_1p(),
            Link::Probit => special::inverse_ndtr(mu),
            Link::Cloglog => (-(-mu).ln_1p()).ln(),
            Link::Loglog => -(-mu.ln()).ln(),
            Link::Cauchit => (PI * (mu - 0.5)).tan(),
            Link::Inverse => 1.0 / mu,
            Link::InverseSquared => 1.0 / (mu * mu),
            Link::Sqrt => mu.sqrt(),
            Link::Softplus => mu + (-(-mu).exp_m1()).ln(),
        }
    }

    /// Whether some linear predictors give a parameter outside `range`.
    pub fn can_leave(self, range: Range) -> bool {
        use Link::*;
        match range {
            Range::Real | Range::Power => matches!(self, Inverse | InverseSquared),
            Range::Positive => matches!(self, Identity | Inverse | InverseSquared),
            Range::Unit => matches!(self, Identity | Log | Inverse | InverseSquared | Sqrt | Softplus),
        }
    }

    /// Whether a linear predictor and its negative give one parameter.
    pub fn folds(self) -> bool {
        self == Link::Sqrt
    }

    /// The distribution functions among the links.
    pub fn is_distribution(self) -> bool {
        Range::Power.links().contains(&self)
    }

    /// log F(x) for a link that is a distribution's quantile function.
    #[inline]
    pub fn ln_cdf<S: Scalar>(self, x: S) -> S {
        Par { eta: x, link: self }.ln()
    }

    /// log (1 - F(x)).
    #[inline]
    pub fn ln_survival<S: Scalar>(self, x: S) -> S {
        Par { eta: x, link: self }.ln_1m()
    }

    /// log (F(b) - F(a)), a < b, without cancellation in either tail.
    pub fn ln_interval<S: Scalar>(self, a: S, b: S) -> S {
        if !(b.value() > a.value()) {
            return S::constant(f64::NAN);
        }
        match self {
            Link::Logit => self.ln_cdf(b) + self.ln_survival(a) + (a - b).ln_1m_exp(),
            Link::Cloglog => {
                let (ea, eb) = (a.exp(), b.exp());
                (ea - eb).ln_1m_exp() - ea
            }
            Link::Loglog => Link::Cloglog.ln_interval(-b, -a),
            Link::Cauchit => {
                let (wide, d) = (a * b + 1.0, b - a);
                let angle = if wide.value() > d.value() { (d / wide).atan() } else { -(wide / d).atan() + 0.5 * PI };
                (angle * FRAC_1_PI).ln()
            }
            _ if a.value() > 0.0 => self.ln_interval(-b, -a),
            _ => self.ln_cdf(b).ln_sub_exp(self.ln_cdf(a)),
        }
    }
}

/// A distributional parameter: its linear predictor and link.
#[derive(Clone, Copy, Debug)]
pub struct Par<S> {
    pub eta: S,
    pub link: Link,
}

impl<S: Scalar> Par<S> {
    pub fn constant(value: f64) -> Self {
        Par { eta: S::constant(value), link: Link::Identity }
    }

    /// The parameter itself.
    #[inline]
    pub fn value(&self) -> S {
        let eta = self.eta;
        match self.link {
            Link::Identity => eta,
            Link::Log => eta.exp(),
            Link::Logit => eta.logistic(),
            Link::Probit => eta.ndtr(),
            Link::Cloglog => -(-eta.exp()).exp_m1(),
            Link::Loglog => (-(-eta).exp()).exp(),
            Link::Cauchit => cauchy(eta),
            Link::Inverse => eta.recip(),
            Link::InverseSquared => eta.sqrt().recip(),
            Link::Sqrt => eta.square(),
            Link::Softplus => eta.softplus(),
        }
    }

    /// log of the parameter.
    #[inline]
    pub fn ln(&self) -> S {
        let eta = self.eta;
        match self.link {
            Link::Identity => eta.ln(),
            Link::Log => eta,
            Link::Logit => -(-eta).softplus(),
            Link::Probit => eta.ln_ndtr(),
            Link::Cloglog => (-eta.exp()).ln_1m_exp(),
            Link::Loglog => -(-eta).exp(),
            Link::Cauchit => cauchy(eta).ln(),
            Link::Inverse => -eta.ln(),
            Link::InverseSquared => eta.ln() * -0.5,
            Link::Sqrt => eta.square().ln(),
            Link::Softplus => ln_softplus(eta),
        }
    }

    /// log (1 - parameter).
    #[inline]
    pub fn ln_1m(&self) -> S {
        let eta = self.eta;
        match self.link {
            Link::Log => eta.ln_1m_exp(),
            Link::Logit => -eta.softplus(),
            Link::Probit => (-eta).ln_ndtr(),
            Link::Cloglog => -eta.exp(),
            Link::Loglog => (-(-eta).exp()).ln_1m_exp(),
            Link::Cauchit => cauchy(-eta).ln(),
            _ => (-self.value()).ln_1p(),
        }
    }

    /// 1 - parameter.
    #[inline]
    pub fn complement(&self) -> S {
        let eta = self.eta;
        match self.link {
            Link::Logit => (-eta).logistic(),
            Link::Probit => (-eta).ndtr(),
            Link::Cloglog => (-eta.exp()).exp(),
            Link::Loglog => -(-(-eta).exp()).exp_m1(),
            Link::Cauchit => cauchy(-eta),
            _ => -self.value() + 1.0,
        }
    }
}

/// The Cauchy distribution function, accurate in the lower tail: -atan(1/x) / pi.
#[inline]
fn cauchy<S: Scalar>(x: S) -> S {
    if x.value() < -1.0 {
        -x.recip().atan() * FRAC_1_PI
    } else {
        x.atan() * FRAC_1_PI + 0.5
    }
}

/// log softplus(x): x - exp(x) / 2 + ... far to the left.
#[inline]
fn ln_softplus<S: Scalar>(x: S) -> S {
    if x.value() < -30.0 {
        x - x.exp() * 0.5
    } else {
        x.softplus().ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_logs_and_complements_agree() {
        for (name, link) in NAMES {
            for eta in [0.3, 0.7, 1.2, -2.0] {
                if eta < 0.0 && !link.is_distribution() {
                    continue;
                }
                let par = Par { eta, link };
                let v = par.value();
                assert!((link.apply(v) - eta).abs() < 1e-12, "{name} {eta}");
                assert!((par.ln() - v.ln()).abs() < 1e-13, "{name} {eta}");
                if v < 1.0 {
                    assert!((par.ln_1m() - (1.0 - v).ln()).abs() < 1e-13, "{name} {eta}");
                    assert!((par.complement() - (1.0 - v)).abs() < 1e-13, "{name} {eta}");
                }
            }
        }
    }

    #[test]
    fn interval_probabilities() {
        for link in Range::Power.links() {
            for (a, b) in [(-1.0, 0.5), (0.5, 0.6), (-3.0, 2.5), (1.0, 1.0 + 1e-7)] {
                let direct = link.inverse(b) - link.inverse(a);
                let log: f64 = link.ln_interval(a, b);
                assert!((log.exp() - direct).abs() < 1e-9 * direct + 1e-15, "{} {a} {b}", link.name());
            }
            assert!(link.ln_interval(30.0, 40.0).is_finite() || *link == Link::Cloglog);
            assert!(link.ln_interval(1.0, 0.5).is_nan());
        }
    }
}
