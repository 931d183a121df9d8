//! The table of families: names, parameters and what they mean.

use super::closed::{self, Loop};
use super::density::Legal;
use super::link::{Link, Range};
use super::wide::Shape;
use super::{binomial, counts, gamma, gaussian};

/// One distributional parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub range: Range,
    /// The default link.
    pub link: Link,
    pub meaning: &'static str,
}

/// One family.
#[derive(Debug)]
pub struct Entry {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub parameters: &'static [Parameter],
    pub support: Legal,
    /// The variance function and what the dispersion is.
    pub note: &'static str,
    pub(super) kind: Kind,
}

impl Entry {
    /// Whether the response can be 0 with positive probability without an extra parameter.
    pub fn has_zeros(&self) -> bool {
        self.support == Legal::Count || self.kind == Kind::Tweedie
    }

    pub fn has_trials(&self) -> bool {
        self.support == Legal::Proportion
    }

    pub fn allows_truncation(&self) -> bool {
        self.support == Legal::Count
    }

    pub fn allows_zero_inflation(&self) -> bool {
        matches!(self.support, Legal::Count | Legal::Positive | Legal::NonNegative | Legal::Proportion)
            || self.support == Legal::OpenUnit
    }

    /// Links that a parameter of this family takes.
    pub fn links(&self, p: &Parameter) -> &'static [Link] {
        if self.support == Legal::Label {
            &[Link::Logit]
        } else if self.kind.location_is_quantile() && p.name == "mean" {
            Range::Power.links()
        } else if p.name == "upper" || p.name == "lower" {
            &[Link::Identity]
        } else if p.name == "scale" {
            &[Link::Log]
        } else {
            p.range.links()
        }
    }
}

/// The densities behind the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gaussian,
    LogNormal,
    SkewNormal,
    Binomial,
    BetaBinomial,
    Poisson,
    NegativeBinomial1,
    NegativeBinomial2,
    NegativeBinomial12,
    Gamma,
    Exponential,
    InverseGaussian,
    Weibull,
    StudentT,
    Beta,
    OrderedBeta,
    ZeroOneInflatedBeta,
    Bell,
    GeneralisedPoisson,
    ConwayMaxwellPoisson,
    Tweedie,
    Cumulative,
    Wide(Shape),
    External,
}

/// Run an expression with the density of a kind as a concrete type.
macro_rules! with_density {
    ($family:expr, $d:ident => $body:expr) => {{
        use $crate::family::*;
        match $family.entry.kind {
            Kind::Gaussian => with_density!(@ $d, gaussian::Gaussian, $body),
            Kind::LogNormal => with_density!(@ $d, gaussian::LogNormal, $body),
            Kind::SkewNormal => with_density!(@ $d, gaussian::SkewNormal, $body),
            Kind::Binomial => with_density!(@ $d, binomial::Binomial, $body),
            Kind::BetaBinomial => with_density!(@ $d, binomial::BetaBinomial, $body),
            Kind::Poisson => with_density!(@ $d, counts::Poisson, $body),
            Kind::NegativeBinomial1 => with_density!(@ $d, counts::NegativeBinomial1, $body),
            Kind::NegativeBinomial2 => with_density!(@ $d, counts::NegativeBinomial2, $body),
            Kind::NegativeBinomial12 => with_density!(@ $d, counts::NegativeBinomial12, $body),
            Kind::Gamma => with_density!(@ $d, gamma::Gamma, $body),
            Kind::Exponential => with_density!(@ $d, gamma::Exponential, $body),
            Kind::InverseGaussian => with_density!(@ $d, gamma::InverseGaussian, $body),
            Kind::Weibull => with_density!(@ $d, gamma::Weibull, $body),
            Kind::StudentT => with_density!(@ $d, robust::StudentT, $body),
            Kind::Beta => with_density!(@ $d, beta::Beta, $body),
            Kind::OrderedBeta => with_density!(@ $d, beta::ORDERED, $body),
            Kind::ZeroOneInflatedBeta => with_density!(@ $d, beta::ZERO_ONE_INFLATED, $body),
            Kind::Bell => with_density!(@ $d, dispersed::Bell, $body),
            Kind::GeneralisedPoisson => with_density!(@ $d, dispersed::GeneralisedPoisson, $body),
            Kind::ConwayMaxwellPoisson => with_density!(@ $d, dispersed::ConwayMaxwellPoisson, $body),
            Kind::Tweedie => with_density!(@ $d, tweedie::Tweedie, $body),
            Kind::Cumulative => {
                with_density!(@ $d, ordinal::Cumulative { categories: $family.categories }, $body)
            }
            Kind::Wide(_) | Kind::External => with_density!(@ $d, wide::Elsewhere, $body),
        }
    }};
    (@ $d:ident, $value:expr, $body:expr) => {{
        let $d = $value;
        $body
    }};
}
pub(super) use with_density;

impl Kind {
    /// The closed form for these links, where there is one.
    pub fn closed(self, links: &[Link]) -> Option<Loop> {
        match (self, links) {
            (Kind::Gaussian, [Link::Identity, Link::Log]) => Some(closed::rows::<gaussian::Closed2>),
            (Kind::Binomial, [Link::Logit]) => Some(closed::rows::<binomial::BinomialLogit>),
            (Kind::Poisson, [Link::Log]) => Some(closed::rows::<counts::PoissonLog>),
            (Kind::NegativeBinomial2, [Link::Log, Link::Log]) => Some(closed::columns::<counts::NegativeBinomial2Log>),
            (Kind::Gamma, [Link::Log, Link::Log]) => Some(closed::rows::<gamma::GammaLog>),
            _ => None,
        }
    }

    /// The closed form with zero inflation, its link last.
    pub fn closed_inflated(self, links: &[Link]) -> Option<Loop> {
        match (self, links) {
            (Kind::Binomial, [Link::Logit, Link::Logit]) => Some(closed::inflated::<binomial::BinomialLogit>),
            (Kind::Poisson, [Link::Log, Link::Logit]) => Some(closed::inflated::<counts::PoissonLog>),
            (Kind::NegativeBinomial2, [Link::Log, Link::Log, Link::Logit]) => {
                Some(closed::inflated::<counts::NegativeBinomial2Log>)
            }
            _ => None,
        }
    }

    /// Families whose mean predictor is a location under a distribution's quantile function.
    fn location_is_quantile(self) -> bool {
        matches!(self, Kind::Cumulative | Kind::OrderedBeta | Kind::Wide(_))
    }

    /// The shape of families with as many predictors as categories.
    pub(super) fn wide(self) -> Option<Shape> {
        if let Kind::Wide(shape) = self {
            Some(shape)
        } else {
            None
        }
    }
}

const fn parameter(name: &'static str, range: Range, link: Link, meaning: &'static str) -> Parameter {
    Parameter { name, range, link, meaning }
}

const POSITIVE_MEAN: Parameter = parameter("mean", Range::Positive, Link::Log, "mean");
const REAL_MEAN: Parameter = parameter("mean", Range::Real, Link::Identity, "mean");
const UNIT_MEAN: Parameter = parameter("mean", Range::Unit, Link::Logit, "mean");

const LOCATION: Parameter = parameter("mean", Range::Real, Link::Logit, "location");
const SCALE: Parameter = parameter("scale", Range::Positive, Link::Log, "scale, 1 unless it has a formula");

const fn dispersion(meaning: &'static str) -> Parameter {
    parameter("dispersion", Range::Positive, Link::Log, meaning)
}

/// Every family.
pub fn table() -> &'static [Entry] {
    &TABLE
}

static TABLE: [Entry; 26] = [
    Entry {
        name: "gaussian",
        aliases: &["normal"],
        parameters: &[REAL_MEAN, dispersion("residual standard deviation")],
        support: Legal::Real,
        note: "variance sigma^2 (+ se^2 where sampling errors are known); the dispersion is sigma",
        kind: Kind::Gaussian,
    },
    Entry {
        name: "lognormal",
        aliases: &["log_normal"],
        parameters: &[POSITIVE_MEAN, dispersion("standard deviation of the response")],
        support: Legal::Positive,
        note: "mean and standard deviation on the scale of the data, as in glmmTMB; variance sigma^2",
        kind: Kind::LogNormal,
    },
    Entry {
        name: "skew_normal",
        aliases: &["skewnormal"],
        parameters: &[
            REAL_MEAN,
            dispersion("standard deviation of the response"),
            parameter("shape", Range::Real, Link::Identity, "slant alpha"),
        ],
        support: Legal::Real,
        note: "variance sigma^2; the dispersion is the standard deviation, the shape Azzalini's alpha",
        kind: Kind::SkewNormal,
    },
    Entry {
        name: "binomial",
        aliases: &["bernoulli"],
        parameters: &[UNIT_MEAN],
        support: Legal::Proportion,
        note: "proportion k / n with variance mu (1 - mu) / n; no dispersion",
        kind: Kind::Binomial,
    },
    Entry {
        name: "betabinomial",
        aliases: &["beta_binomial"],
        parameters: &[UNIT_MEAN, dispersion("precision phi = alpha + beta")],
        support: Legal::Proportion,
        note: "proportion k / n with variance mu (1 - mu) (phi + n) / (n (phi + 1)); the dispersion is phi",
        kind: Kind::BetaBinomial,
    },
    Entry {
        name: "poisson",
        aliases: &[],
        parameters: &[POSITIVE_MEAN],
        support: Legal::Count,
        note: "variance mu; no dispersion",
        kind: Kind::Poisson,
    },
    Entry {
        name: "nbinom1",
        aliases: &["negbinomial1"],
        parameters: &[POSITIVE_MEAN, dispersion("excess variance phi")],
        support: Legal::Count,
        note: "variance mu (1 + phi); the dispersion is phi",
        kind: Kind::NegativeBinomial1,
    },
    Entry {
        name: "nbinom2",
        aliases: &["negbinomial", "negative_binomial", "nbinom"],
        parameters: &[POSITIVE_MEAN, dispersion("size k")],
        support: Legal::Count,
        note: "variance mu (1 + mu / k); the dispersion is the size k: larger is closer to Poisson",
        kind: Kind::NegativeBinomial2,
    },
    Entry {
        name: "nbinom12",
        aliases: &[],
        parameters: &[
            POSITIVE_MEAN,
            dispersion("linear excess variance phi"),
            parameter("shape", Range::Positive, Link::Log, "size psi of the quadratic excess variance"),
        ],
        support: Legal::Count,
        note: "variance mu (1 + phi + mu / psi); the dispersion is phi, the shape psi",
        kind: Kind::NegativeBinomial12,
    },
    Entry {
        name: "gamma",
        aliases: &["Gamma"],
        parameters: &[POSITIVE_MEAN, dispersion("shape a")],
        support: Legal::Positive,
        note: "variance mu^2 / a; the dispersion predictor is the shape a; sigma (glmmTMB, lme4) is 1 / sqrt(a)",
        kind: Kind::Gamma,
    },
    Entry {
        name: "exponential",
        aliases: &[],
        parameters: &[POSITIVE_MEAN],
        support: Legal::Positive,
        note: "variance mu^2; no dispersion",
        kind: Kind::Exponential,
    },
    Entry {
        name: "inverse_gaussian",
        aliases: &["inverse.gaussian", "invgauss"],
        parameters: &[POSITIVE_MEAN, dispersion("sigma")],
        support: Legal::Positive,
        note: "variance sigma^2 mu^3; the dispersion is sigma, as in gamlss (brms: shape 1 / sigma^2)",
        kind: Kind::InverseGaussian,
    },
    Entry {
        name: "weibull",
        aliases: &[],
        parameters: &[POSITIVE_MEAN, dispersion("shape k")],
        support: Legal::Positive,
        note: "by its mean, as in brms; scale mu / Gamma(1 + 1/k); the dispersion is the shape k",
        kind: Kind::Weibull,
    },
    Entry {
        name: "student_t",
        aliases: &["t", "student"],
        parameters: &[
            REAL_MEAN,
            dispersion("scale"),
            parameter("shape", Range::Positive, Link::Log, "degrees of freedom nu"),
        ],
        support: Legal::Real,
        note: "variance sigma^2 nu / (nu - 2); the dispersion is the scale sigma, the shape nu",
        kind: Kind::StudentT,
    },
    Entry {
        name: "beta",
        aliases: &["Beta", "beta_family"],
        parameters: &[UNIT_MEAN, dispersion("precision phi")],
        support: Legal::OpenUnit,
        note: "variance mu (1 - mu) / (phi + 1); the dispersion is the precision phi",
        kind: Kind::Beta,
    },
    Entry {
        name: "ordered_beta",
        aliases: &["ordbeta"],
        parameters: &[
            UNIT_MEAN,
            dispersion("precision phi"),
            parameter("lower", Range::Real, Link::Identity, "cutpoint, below which the response is 0"),
            parameter("upper", Range::Real, Link::Identity, "cutpoint, above which the response is 1"),
        ],
        support: Legal::ClosedUnit,
        note: "beta inside, P(0) = F(lower - eta), P(1) = F(eta - upper); the dispersion is the precision phi",
        kind: Kind::OrderedBeta,
    },
    Entry {
        name: "zero_one_inflated_beta",
        aliases: &["zoib"],
        parameters: &[
            UNIT_MEAN,
            dispersion("precision phi"),
            parameter("zoi", Range::Unit, Link::Logit, "probability of 0 or 1"),
            parameter("coi", Range::Unit, Link::Logit, "share of 1 among 0 and 1"),
        ],
        support: Legal::ClosedUnit,
        note: "beta with mean mu and precision phi (the dispersion) inside; zoi and coi as in brms",
        kind: Kind::ZeroOneInflatedBeta,
    },
    Entry {
        name: "bell",
        aliases: &[],
        parameters: &[POSITIVE_MEAN],
        support: Legal::Count,
        note: "variance mu (1 + W(mu)) with Lambert's W; no dispersion",
        kind: Kind::Bell,
    },
    Entry {
        name: "genpois",
        aliases: &["generalized_poisson", "generalised_poisson"],
        parameters: &[POSITIVE_MEAN, dispersion("index of dispersion phi")],
        support: Legal::Count,
        note: "variance mu phi; the dispersion is phi (below 1 the support ends early and f sums to 1 only roughly, which the fit says)",
        kind: Kind::GeneralisedPoisson,
    },
    Entry {
        name: "compois",
        aliases: &["com_poisson", "conway_maxwell_poisson"],
        parameters: &[POSITIVE_MEAN, dispersion("1 / nu")],
        support: Legal::Count,
        note: "by its mean (Huang 2017); the dispersion is 1 / nu, below 1 for less spread than Poisson",
        kind: Kind::ConwayMaxwellPoisson,
    },
    Entry {
        name: "tweedie",
        aliases: &["Tweedie"],
        parameters: &[
            POSITIVE_MEAN,
            dispersion("phi"),
            parameter("power", Range::Power, Link::Logit, "power p, with link of p - 1"),
        ],
        support: Legal::NonNegative,
        note: "variance phi mu^p, 1 < p < 2; the dispersion is phi, the third predictor the logit of p - 1",
        kind: Kind::Tweedie,
    },
    Entry {
        name: "cumulative",
        aliases: &["ordinal", "clm"],
        parameters: &[
            LOCATION,
            SCALE,
            parameter("upper", Range::Real, Link::Identity, "threshold above the category"),
            parameter("lower", Range::Real, Link::Identity, "threshold below the category"),
        ],
        support: Legal::Category,
        note: "P(Y <= c) = F((threshold - location) / scale); the link of the location is F's quantile function",
        kind: Kind::Cumulative,
    },
    Entry {
        name: "sratio",
        aliases: &["stopping_ratio"],
        parameters: &[LOCATION, SCALE],
        support: Legal::Category,
        note: "stopping ratio, P(Y = c | Y >= c) = F((threshold - location) / scale), as in brms",
        kind: Kind::Wide(Shape::Stopping),
    },
    Entry {
        name: "cratio",
        aliases: &["continuation_ratio"],
        parameters: &[LOCATION, SCALE],
        support: Legal::Category,
        note: "continuation ratio, P(Y > c | Y >= c) = F((location - threshold) / scale), as in brms",
        kind: Kind::Wide(Shape::Continuation),
    },
    Entry {
        name: "acat",
        aliases: &["adjacent", "adjacent_category"],
        parameters: &[LOCATION, SCALE],
        support: Legal::Category,
        note: "adjacent categories, P(Y = c + 1 | Y is c or c + 1) = F((location - threshold) / scale), as in brms",
        kind: Kind::Wide(Shape::Adjacent),
    },
    Entry {
        name: "multinomial",
        aliases: &["categorical", "multinom", "mblogit"],
        parameters: &[parameter("mean", Range::Unit, Link::Logit, "log odds against the first category")],
        support: Legal::Label,
        note: "P(Y = c) proportional to exp(predictor of c), that of the first category 0",
        kind: Kind::Wide(Shape::Nominal),
    },
];

/// What stands for a density that is evaluated elsewhere.
pub(super) static EXTERNAL: Entry =
    Entry { name: "custom", aliases: &[], parameters: &[], support: Legal::Real, note: "", kind: Kind::External };
