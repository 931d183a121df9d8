//! Families of distributions: one log density of a row each, derivatives to fourth order in its linear predictors.
//!
//! [`Family`] is a family with its links, modifiers and fixed parameters; row i has K linear predictors in the order
//! mean, dispersion, further shapes, extra zeros. Dispersions are glmmTMB's unless the note in [`table`] says otherwise.
//! The response of families with trials is the proportion of successes.

mod beta;
mod binomial;
mod bounds;
mod closed;
mod counts;
mod density;
mod dispersed;
mod draw;
mod fourth;
mod gamma;
mod gaussian;
mod inflated;
mod link;
mod modifiers;
mod ordinal;
mod robust;
mod sums;
mod table;
mod tweedie;
mod wide;

#[cfg(test)]
mod tests;

use bounds::Inside;
use closed::Loop;
use density::{Density, Row, Summary};
use modifiers::Modified;

pub use density::Legal;
pub use draw::{ChiSquare, Normals, Stream};
pub use link::{Link, Par, Range};
pub use table::{table, Entry, Parameter};

use crate::error::shape;
use crate::jet::{Jet, Scalar};
use crate::CoreError;
use table::{with_density, Kind};
use wide::Wide;

use std::sync::Arc;

/// Columns of the data that a likelihood reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data<'a> {
    /// The response; proportions where there are trials, codes 0, 1 ... for categories.
    pub y: &'a [f64],
    pub trials: Option<&'a [f64]>,
    /// Upper ends of interval-censored responses.
    pub upper: Option<&'a [f64]>,
    /// 0 observed, -1 left-censored, 1 right-censored, 2 in (y, upper].
    pub censor: Option<&'a [i8]>,
    /// Known standard errors of the responses.
    pub se: Option<&'a [f64]>,
    /// c and d of randomised responses, which are 1 with probability c + d mu.
    pub randomised: Option<(&'a [f64], &'a [f64])>,
    /// Least and greatest response that a row can have, two numbers a row: it would not be in the data otherwise.
    pub bounds: Option<&'a [f64]>,
}

impl Data<'_> {
    #[inline(always)]
    fn row(&self, i: usize) -> Row {
        Row {
            y: self.y[i],
            trials: self.trials.map_or(1.0, |t| t[i]),
            se: self.se.map_or(0.0, |s| s[i]),
            randomised: self.randomised.map(|(c, d)| (c[i], d[i])),
        }
    }

    /// What is between the bounds of a row.
    #[inline(always)]
    fn inside(&self, i: usize) -> Option<Inside> {
        self.bounds.map(|b| Inside { least: b[2 * i], most: b[2 * i + 1] })
    }

    /// Whether every row is its response and nothing else, apart from its trials.
    #[inline]
    fn is_bare(&self) -> bool {
        self.censor.is_none() && self.se.is_none() && self.randomised.is_none() && self.bounds.is_none()
    }
}

/// Which family, with which links and modifiers.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Name or alias of the table; the prefix `truncated_` asks for truncation.
    pub name: String,
    /// Links of the free parameters in order; defaults where the list is shorter.
    pub links: Vec<Link>,
    /// An extra probability of zero, the last predictor.
    pub zero_inflation: bool,
    /// Zero inflation of the truncated family.
    pub hurdle: bool,
    pub truncated: bool,
    /// Whether an ordinal family has a scale.
    pub scaled: bool,
    /// Parameters that have a known value instead of a predictor.
    pub constants: Vec<(String, f64)>,
    pub categories: usize,
}

/// Responses that the family does not allow.
#[derive(Clone, Debug, PartialEq)]
pub struct BadResponse {
    /// The first bad row.
    pub row: usize,
    /// The first few bad rows.
    pub rows: Vec<usize>,
    pub count: usize,
    pub what: String,
}

/// Where a parameter of the density comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Predictor(usize),
    Constant(f64),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    link: Link,
    source: Source,
    /// The range to check where the link does not keep to it.
    guard: Option<Range>,
}

/// A log density that is evaluated elsewhere.
pub trait External: std::fmt::Debug + Send + Sync {
    /// As [`Family::evaluate`]; NaN where it fails.
    fn evaluate(&self, data: &Data<'_>, from: usize, eta: &[f64], order: usize, out: &mut [f64]);
}

/// How categories are compared: each with the next ones, by a location and thresholds, or with all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Categories {
    Ordered { count: usize },
    Nominal { count: usize },
}

/// Most predictors a family has: a row keeps K (K + 1) (K + 2) / 6 third derivatives.
pub const MOST: usize = 24;
/// Rows that are evaluated at a time, and as many where every call costs a fixed price.
const PANEL: usize = 256;
const LARGE_PANEL: usize = 16_384;
/// Rows that are worth a thread of their own: cheap ones, and those whose density takes about a microsecond.
pub const GRAIN: usize = 4_096;
const DEAR_GRAIN: usize = 1_024;

/// A family ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Family {
    entry: &'static Entry,
    slots: [Slot; 4],
    extra: Option<Slot>,
    truncated: bool,
    categories: usize,
    free: usize,
    names: Vec<&'static str>,
    links: Vec<Link>,
    closed: Option<Loop>,
    wide: Option<Wide>,
    external: Option<Arc<dyn External>>,
    /// Where the predictors of an external density begin.
    begin: Vec<f64>,
}

/// The name of the predictor of extra zeros.
pub const ZERO_INFLATION: &str = "zero_inflation";
/// The name of an ordinal family's scale.
const SCALE: &str = "scale";

impl Family {
    pub fn new(spec: &Spec) -> Result<Family, CoreError> {
        let (name, prefixed) = match spec.name.strip_prefix("truncated_") {
            Some(rest) => (rest, true),
            None => (spec.name.as_str(), false),
        };
        let Some(entry) = table().iter().find(|e| e.name == name || e.aliases.contains(&name)) else {
            return shape(format!("there is no family named {:?}", spec.name));
        };
        let truncated = spec.truncated || prefixed || (spec.hurdle && entry.support.is_discrete());
        let extra_zeros = spec.zero_inflation || spec.hurdle;
        if truncated && !entry.allows_truncation() {
            return shape(format!("truncation at zero is for counts; {} is not a family of counts", entry.name));
        }
        if extra_zeros && !entry.allows_zero_inflation() {
            return shape(format!("a response of family {} has no zeros to inflate", entry.name));
        }
        let mut family = Family {
            entry,
            slots: [Slot { link: Link::Identity, source: Source::Constant(0.0), guard: None }; 4],
            extra: None,
            truncated,
            categories: spec.categories,
            free: 0,
            names: vec![],
            links: vec![],
            closed: None,
            wide: None,
            external: None,
            begin: vec![],
        };
        for (name, _) in &spec.constants {
            if !entry.parameters.iter().any(|p| p.name == name) {
                return shape(format!("family {} has no parameter named {name:?}", entry.name));
            }
        }
        if let Some(shape) = entry.kind.wide() {
            return family.widened(shape, spec);
        }
        for (i, parameter) in entry.parameters.iter().enumerate() {
            family.slots[i] = match spec.constants.iter().find(|(n, _)| n == parameter.name) {
                Some((_, value)) => constant(parameter, *value)?,
                None if parameter.name == SCALE && !spec.scaled => constant(parameter, 1.0)?,
                None => family.predictor(parameter, &spec.links)?,
            };
        }
        if extra_zeros {
            let parameter =
                Parameter { name: ZERO_INFLATION, range: Range::Unit, link: Link::Logit, meaning: "extra zeros" };
            family.extra = Some(family.predictor(&parameter, &spec.links)?);
        }
        family.check_links(spec)?;
        if family.free == 0 || family.free > 4 {
            return shape(format!("a family has one to four predictors; {} has {} here", entry.name, family.free));
        }
        if entry.support == Legal::Category && family.categories < 2 {
            return shape(format!("family {} needs at least two categories", entry.name));
        }
        if !truncated && spec.constants.is_empty() {
            family.closed = match family.extra {
                None => entry.kind.closed(&family.links),
                Some(_) => entry.kind.closed_inflated(&family.links),
            };
        }
        Ok(family)
    }

    /// A family that is evaluated elsewhere; `begin` has a starting value for each of its predictors.
    pub fn external(begin: Vec<f64>, with: Arc<dyn External>) -> Result<Family, CoreError> {
        let k = begin.len();
        if k == 0 || k > 4 {
            return shape(format!("a family has one to four predictors; {k} were given"));
        }
        Ok(Family {
            entry: &table::EXTERNAL,
            slots: [Slot { link: Link::Identity, source: Source::Constant(0.0), guard: None }; 4],
            extra: None,
            truncated: false,
            categories: 0,
            free: k,
            names: vec!["parameter"; k],
            links: vec![Link::Identity; k],
            closed: None,
            wide: None,
            external: Some(with),
            begin,
        })
    }

    /// The same with a predictor for every threshold or category.
    fn widened(mut self, kind: wide::Shape, spec: &Spec) -> Result<Family, CoreError> {
        if self.categories < 2 {
            return shape(format!("family {} needs at least two categories", self.entry.name));
        }
        let ordered = kind != wide::Shape::Nominal;
        for parameter in self.entry.parameters.iter().filter(|p| ordered && (p.name != SCALE || spec.scaled)) {
            self.predictor(parameter, &spec.links)?;
        }
        let link = self.links.first().copied().unwrap_or(Link::Logit);
        let (name, own) = if ordered { ("threshold", Link::Identity) } else { ("mean", Link::Logit) };
        self.free += self.categories - 1;
        self.names.resize(self.free, name);
        self.links.resize(self.free, own);
        self.wide = Some(Wide { shape: kind, categories: self.categories, link, scaled: ordered && spec.scaled });
        self.check_links(spec)?;
        if self.free > MOST {
            return shape(format!(
                "family {} with {} categories has {} predictors, at most {MOST} are possible: join categories",
                self.entry.name, self.categories, self.free
            ));
        }
        Ok(self)
    }

    fn check_links(&self, spec: &Spec) -> Result<(), CoreError> {
        if spec.links.len() > self.free {
            return shape(format!(
                "family {} has {} predictors here, {} links were given",
                self.entry.name,
                self.free,
                spec.links.len()
            ));
        }
        Ok(())
    }

    /// The slot of the next free parameter.
    fn predictor(&mut self, p: &Parameter, links: &[Link]) -> Result<Slot, CoreError> {
        let link = links.get(self.free).copied().unwrap_or(p.link);
        let allowed = self.entry.links(p);
        if !allowed.contains(&link) {
            let list: Vec<&str> = allowed.iter().map(|l| l.name()).collect();
            return shape(format!(
                "the parameter {} of family {} takes the links {}, not {}",
                p.name,
                self.entry.name,
                list.join(", "),
                link.name()
            ));
        }
        let index = self.free;
        self.free += 1;
        self.names.push(p.name);
        self.links.push(link);
        let guard = (link.can_leave(p.range)).then_some(p.range);
        Ok(Slot { link, source: Source::Predictor(index), guard })
    }

    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// Whether there are no extra zeros, nor any left out.
    pub fn is_plain(&self) -> bool {
        !self.truncated && self.extra.is_none()
    }

    /// K, the number of linear predictors.
    pub fn parameters(&self) -> usize {
        self.free
    }

    /// How many of the first predictors have no constant of their own: an ordinal family's thresholds are the constant of
    /// the location, and the unit of the scale.
    pub fn without_constant(&self) -> usize {
        let is_cut = |name: &&str| ["threshold", "upper", "lower"].contains(name);
        match self.entry.kind {
            Kind::Cumulative => self.names.iter().take_while(|name| !is_cut(name)).count(),
            Kind::Wide(shape) if shape != wide::Shape::Nominal => {
                self.names.iter().take_while(|name| !is_cut(name)).count()
            }
            _ => 0,
        }
    }

    /// Names of the predictors.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Links of the predictors.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The categories of a response whose log density is that of a comparison with each of some others.
    pub fn categories(&self) -> Option<Categories> {
        let count = self.categories;
        match (&self.wide, self.entry.kind) {
            (Some(Wide { shape: wide::Shape::Nominal, .. }), _) => Some(Categories::Nominal { count }),
            (None, Kind::Cumulative) if self.names.len() == 3 => Some(Categories::Ordered { count }),
            _ => None,
        }
    }

    /// Whether some linear predictors are illegal (an identity link of a positive parameter).
    pub fn can_leave(&self) -> bool {
        self.slots.iter().chain(&self.extra).any(|s| s.guard.is_some())
    }

    /// Whether a linear predictor and its negative may give one parameter (a sqrt link).
    pub fn can_fold(&self) -> bool {
        self.links.iter().any(|link| link.folds())
    }

    /// How many rows to evaluate at a time.
    pub fn panel(&self) -> usize {
        if self.external.is_some() {
            LARGE_PANEL
        } else {
            PANEL
        }
    }

    /// Whether the density is the caller's own.
    pub fn is_external(&self) -> bool {
        self.external.is_some()
    }

    /// Whether derivatives are written out.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// How many rows are worth a thread of their own.
    pub fn grain(&self) -> usize {
        if self.closed.is_some() || self.external.is_some() {
            GRAIN
        } else {
            DEAR_GRAIN
        }
    }

    /// Numbers a row of `evaluate`: log f, K first, K (K + 1) / 2 second, K (K + 1) (K + 2) / 6 third derivatives,
    /// K (K + 1) (K + 2) (K + 3) / 24 fourth ones.
    pub fn stride(&self, order: usize) -> usize {
        let k = self.free;
        let second = k * (k + 1) / 2;
        match order {
            0 => 1,
            1 | 2 => 1 + k + second,
            3 => 1 + k + second + second * (k + 2) / 3,
            _ => 1 + k + second + second * (k + 2) / 3 + second * (k + 2) * (k + 3) / 12,
        }
    }

    /// log f and its derivatives up to `order` (0, 2, 3 or 4) in the K predictors, for the rows from `from` on.
    ///
    /// `eta` is row-major (rows x K), `out` row-major with `stride(order)` numbers a row: log f, gradient, second
    /// derivatives (a <= b, lexicographic), third derivatives (a <= b <= c) and so on. NaN or minus infinity where eta is
    /// illegal. Families with more than four predictors have no fourth derivatives here: see [`Family::fourth`].
    pub fn evaluate(&self, data: &Data<'_>, from: usize, eta: &[f64], order: usize, out: &mut [f64]) {
        let stride = self.stride(order);
        if let Some(external) = &self.external {
            return external.evaluate(data, from, eta, order, out);
        }
        if let Some(wide) = &self.wide {
            return wide.rows(data, from, eta, order, stride, out);
        }
        if let Some(closed) = self.closed.filter(|_| data.is_bare() && order < 4) {
            return closed(data, from, eta, order, stride, out);
        }
        with_density!(self, d => match (order, self.free) {
            (0, _) => self.rows::<_, f64>(&d, data, from, eta, stride, out),
            (1 | 2, 1) => self.rows::<_, Jet<1, 1, 0>>(&d, data, from, eta, stride, out),
            (1 | 2, 2) => self.rows::<_, Jet<2, 3, 0>>(&d, data, from, eta, stride, out),
            (1 | 2, 3) => self.rows::<_, Jet<3, 6, 0>>(&d, data, from, eta, stride, out),
            (1 | 2, _) => self.rows::<_, Jet<4, 10, 0>>(&d, data, from, eta, stride, out),
            (3, 1) => self.rows::<_, Jet<1, 1, 1>>(&d, data, from, eta, stride, out),
            (3, 2) => self.rows::<_, Jet<2, 3, 4>>(&d, data, from, eta, stride, out),
            (3, 3) => self.rows::<_, Jet<3, 6, 10>>(&d, data, from, eta, stride, out),
            (3, _) => self.rows::<_, Jet<4, 10, 20>>(&d, data, from, eta, stride, out),
            (_, 1) => self.rows::<_, Jet<1, 1, 1, 1>>(&d, data, from, eta, stride, out),
            (_, 2) => self.rows::<_, Jet<2, 3, 4, 5>>(&d, data, from, eta, stride, out),
            (_, 3) => self.rows::<_, Jet<3, 6, 10, 15>>(&d, data, from, eta, stride, out),
            (_, _) => self.rows::<_, Jet<4, 10, 20, 35>>(&d, data, from, eta, stride, out),
        })
    }

    /// As [`Family::evaluate`] with order 2, but derivatives in the first predictor only; the others are 0.
    pub fn evaluate_first(&self, data: &Data<'_>, from: usize, eta: &[f64], out: &mut [f64]) {
        let written = self.closed.is_some() && data.is_bare();
        if self.free == 1 || written || self.external.is_some() || self.wide.is_some() {
            return self.evaluate(data, from, eta, 2, out);
        }
        let (stride, k) = (self.stride(2), self.free);
        with_density!(self, d => self.rows::<_, Jet<1, 1, 0>>(&d, data, from, eta, stride, out));
        for row in out.chunks_exact_mut(stride) {
            let second = row[2];
            row[2..].fill(0.0);
            row[1 + k] = second;
        }
    }

    fn rows<D: Density, S: Scalar>(
        &self,
        d: &D,
        data: &Data<'_>,
        from: usize,
        eta: &[f64],
        stride: usize,
        out: &mut [f64],
    ) {
        for (i, (e, o)) in eta.chunks_exact(self.free).zip(out.chunks_exact_mut(stride)).enumerate() {
            let i = from + i;
            if !self.is_legal(e) {
                o.fill(f64::NAN);
                continue;
            }
            let (p, how) = self.arguments::<S>(e, data.inside(i));
            let row = data.row(i);
            let value = match data.censor.map_or(0, |c| c[i]) {
                0 => modifiers::ln_density(d, &row, &p, &how),
                code => {
                    let upper = data.upper.map_or(f64::INFINITY, |u| u[i]);
                    modifiers::ln_censored(d, &row, &p, &how, code, upper)
                }
            };
            value.store(o);
        }
    }

    /// Whether every parameter is in its range.
    #[inline]
    fn is_legal(&self, eta: &[f64]) -> bool {
        self.slots.iter().chain(&self.extra).all(|s| match (s.guard, s.source) {
            (Some(range), Source::Predictor(k)) => range.contains(s.link.inverse(eta[k])),
            _ => true,
        })
    }

    #[inline]
    fn arguments<S: Scalar>(&self, eta: &[f64], inside: Option<Inside>) -> ([Par<S>; 4], Modified<S>) {
        let par = |s: &Slot| match s.source {
            Source::Predictor(k) if k < S::VARIABLES => Par { eta: S::variable(eta[k], k), link: s.link },
            Source::Predictor(k) => Par { eta: S::constant(eta[k]), link: s.link },
            Source::Constant(v) => Par::constant(v),
        };
        let s = &self.slots;
        (
            [par(&s[0]), par(&s[1]), par(&s[2]), par(&s[3])],
            Modified { truncated: self.truncated, extra: self.extra.as_ref().map(par), inside },
        )
    }

    /// A function of each row's parameters.
    fn map(&self, data: &Data<'_>, from: usize, eta: &[f64], out: &mut [f64], f: &mut impl RowFunction) {
        with_density!(self, d => {
            for (i, (e, o)) in eta.chunks_exact(self.free).zip(out.iter_mut()).enumerate() {
                *o = if self.is_legal(e) {
                    let (p, how) = self.arguments::<f64>(e, data.inside(from + i));
                    f.call(&d, &data.row(from + i), &p, &how)
                } else {
                    f64::NAN
                };
            }
        })
    }

    /// Mean of the response of each row (of the proportion where there are trials), extra zeros included.
    /// NaN for categories, whose mean needs every threshold.
    pub fn mean(&self, data: &Data<'_>, from: usize, eta: &[f64], out: &mut [f64]) {
        self.map(data, from, eta, out, &mut Mean)
    }

    /// Variance of the response of each row.
    pub fn variance(&self, data: &Data<'_>, from: usize, eta: &[f64], out: &mut [f64]) {
        self.map(data, from, eta, out, &mut Variance)
    }

    /// P(Y <= y) for each row. For the jump of a discrete response ask again with y - 1 (y - 1/n for proportions).
    pub fn cdf(&self, data: &Data<'_>, from: usize, eta: &[f64], out: &mut [f64]) {
        self.map(data, from, eta, out, &mut Cdf)
    }

    /// A random response for each row; NaN for categories.
    pub fn draw(&self, data: &Data<'_>, from: usize, eta: &[f64], rng: &mut Stream, out: &mut [f64]) {
        self.map(data, from, eta, out, &mut Draw(rng))
    }

    /// Slopes of the mean in the K predictors of rows with bounds, row-major.
    pub fn mean_slopes(&self, data: &Data<'_>, eta: &[f64], out: &mut [f64]) {
        out.fill(f64::NAN);
        let rows = eta.chunks_exact(self.free).zip(out.chunks_exact_mut(self.free)).enumerate();
        with_density!(self, d => for (i, (e, o)) in rows.filter(|(_, (e, _))| self.is_legal(e)) {
            if let Some(inside) = data.inside(i) {
                let found = bounds::mean_slopes(&d, &data.row(i), &self.arguments(e, None).0, &inside);
                o.copy_from_slice(&found[..self.free]);
            }
        })
    }

    /// The natural parameter of predictor k at a linear predictor (a Tweedie power is 1 + the link's inverse).
    pub fn natural(&self, k: usize, eta: f64) -> f64 {
        let value = self.links[k].inverse(eta);
        match self.entry.parameters.iter().find(|p| p.name == self.names[k]) {
            Some(p) if p.range == Range::Power => 1.0 + value,
            _ => value,
        }
    }

    /// Whether every response is legal.
    pub fn check(&self, data: &Data<'_>) -> Result<(), BadResponse> {
        let bad: Vec<usize> = (0..data.y.len()).filter(|&i| !self.allows(data, i)).collect();
        if bad.is_empty() {
            return Ok(());
        }
        let support = self.entry.support;
        let what = if self.truncated && self.extra.is_none() {
            "a whole number above 0".into()
        } else if matches!(support, Legal::Category | Legal::Label) {
            format!("a category code from 0 to {}", self.categories - 1)
        } else if support == Legal::Positive && self.extra.is_some() {
            Legal::NonNegative.name().into()
        } else if support == Legal::Proportion && data.trials.is_some() {
            "a proportion k / trials with whole k".into()
        } else {
            support.name().to_string()
        };
        let within = if data.bounds.is_some() { " within the bounds of its row" } else { "" };
        let what = format!("family {} needs {what}{within}", self.entry.name);
        Err(BadResponse { row: bad[0], rows: bad.iter().take(5).copied().collect(), count: bad.len(), what })
    }

    fn allows(&self, data: &Data<'_>, i: usize) -> bool {
        let row = data.row(i);
        if !(row.se >= 0.0 && row.se.is_finite()) {
            return false;
        }
        match data.censor.map_or(0, |c| c[i]) {
            0 => {}
            2 => return data.upper.is_some_and(|u| u[i] > row.y) && !row.y.is_nan(),
            -1 | 1 => return row.y.is_finite(),
            _ => return false,
        }
        if data.inside(i).is_some_and(|b| !(b.least <= row.y && row.y <= b.most)) {
            return false;
        }
        if row.y == 0.0 && self.extra.is_some() {
            return true;
        }
        self.entry.support.allows(&row, self.categories) && !(self.truncated && row.y == 0.0)
    }

    /// Starting values for each predictor's intercept on the link scale, from the moments of the response.
    pub fn start(&self, data: &Data<'_>, offset: Option<&[f64]>) -> Vec<f64> {
        if let Some(wide) = &self.wide {
            return wide.start(data);
        }
        if self.external.is_some() {
            return self.begin.clone();
        }
        let s = summary(data, self.extra.is_some());
        let natural = with_density!(self, d => d.start(&s));
        let mut out = self.predictors_of(&natural, s.zeros);
        if let Some(o) = offset.filter(|o| !o.is_empty()) {
            out[0] -= o.iter().sum::<f64>() / o.len() as f64;
        }
        out
    }

    /// Whether the family has other starts.
    pub fn has_other_starts(&self) -> bool {
        let some = || with_density!(self, d => !d.other_starts(&Summary::default()).is_empty());
        self.wide.is_none() && self.external.is_none() && some()
    }

    /// Other starts than the usual one (see [`Density::other_starts`]) for a search that ended where coefficients are at a
    /// limit, or at a doubtful place (predictors of some row).
    pub fn other_starts(&self, data: &Data<'_>, eta: &[f64], at_limit: bool) -> Vec<Vec<f64>> {
        let natural: [f64; 4] = self.arguments::<f64>(eta, None).0.map(|p| p.value());
        if !at_limit && !with_density!(self, d => d.is_doubtful(&natural)) {
            return vec![];
        }
        let s = summary(data, self.extra.is_some());
        let starts = with_density!(self, d => d.other_starts(&s));
        starts.iter().map(|natural| self.predictors_of(natural, s.zeros)).collect()
    }

    /// The linear predictors of parameters, and of a share of zeros.
    fn predictors_of(&self, natural: &[f64; 4], zeros: f64) -> Vec<f64> {
        let mut out = vec![0.0; self.free];
        for (i, slot) in self.slots.iter().enumerate() {
            if let Source::Predictor(k) = slot.source {
                out[k] = start_value(slot.link, natural[i], self.entry.parameters[i].range);
            }
        }
        if let Some(Slot { source: Source::Predictor(k), link, .. }) = self.extra {
            let share = if self.truncated || !self.entry.has_zeros() { zeros } else { 0.5 * zeros };
            out[k] = start_value(link, share.clamp(0.02, 0.98), Range::Unit);
        }
        out
    }
}

/// The linear predictor of a starting value, moved into the range of the parameter where it is not.
fn start_value(link: Link, value: f64, range: Range) -> f64 {
    let legal = match range {
        Range::Real => value,
        Range::Positive if value.is_finite() => value.clamp(1e-6, 1e12),
        Range::Positive => 1.0,
        Range::Unit | Range::Power => value.clamp(1e-4, 1.0 - 1e-4),
    };
    let eta = link.apply(legal);
    if eta.is_finite() {
        eta
    } else {
        0.0
    }
}

fn constant(p: &Parameter, value: f64) -> Result<Slot, CoreError> {
    if !p.range.contains(value) {
        return shape(format!("the parameter {} must be {}; {value} is not", p.name, p.range.name()));
    }
    let value = if p.range == Range::Power { value - 1.0 } else { value };
    Ok(Slot { link: Link::Identity, source: Source::Constant(value), guard: None })
}

/// Moments of the response (of its positive part where extra zeros are modelled), weighted by the trials.
fn summary(data: &Data<'_>, positive_only: bool) -> Summary {
    let n = data.y.len();
    let rows = || (0..n).map(|i| data.row(i)).filter(|r| r.y.is_finite());
    let used = || rows().filter(|r| !(positive_only && r.y == 0.0));
    let total = used().map(|r| r.trials).sum::<f64>().max(1e-300);
    let mean = used().map(|r| r.trials * r.y).sum::<f64>() / total;
    let central = |k: i32| used().map(|r| r.trials * (r.y - mean).powi(k)).sum::<f64>() / total;
    let variance = central(2).max(1e-8 * (mean * mean).max(1e-8));
    let count = rows().count().max(1) as f64;
    let share = |v: f64| rows().filter(|r| r.y == v).count() as f64 / count;
    Summary { mean, variance, skewness: central(3) / variance.powf(1.5), zeros: share(0.0), ones: share(1.0) }
}

/// A closure that is generic in the density.
trait RowFunction {
    fn call<D: Density>(&mut self, d: &D, row: &Row, p: &[Par<f64>; 4], how: &Modified<f64>) -> f64;
}

struct Mean;
struct Variance;
struct Cdf;
struct Draw<'a>(&'a mut Stream);

impl RowFunction for Mean {
    fn call<D: Density>(&mut self, d: &D, row: &Row, p: &[Par<f64>; 4], how: &Modified<f64>) -> f64 {
        modifiers::moments(d, row, p, how).0
    }
}

impl RowFunction for Variance {
    fn call<D: Density>(&mut self, d: &D, row: &Row, p: &[Par<f64>; 4], how: &Modified<f64>) -> f64 {
        modifiers::moments(d, row, p, how).1
    }
}

impl RowFunction for Cdf {
    fn call<D: Density>(&mut self, d: &D, row: &Row, p: &[Par<f64>; 4], how: &Modified<f64>) -> f64 {
        modifiers::ln_cdf(d, row, p, how).0.exp()
    }
}

impl RowFunction for Draw<'_> {
    fn call<D: Density>(&mut self, d: &D, row: &Row, p: &[Par<f64>; 4], how: &Modified<f64>) -> f64 {
        modifiers::draw(d, row, p, how, self.0)
    }
}
