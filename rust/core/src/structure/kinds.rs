//! The table of structures: names, parameters, Sigma and what is reported.

use crate::dense;
use crate::error::shape;
use crate::jet::Scalar;
use crate::special;
use crate::CoreError;

use super::{Natural, Pattern};

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    HomogeneousDiagonal,
    CompoundSymmetry,
    HomogeneousCompoundSymmetry,
    Ar1,
    HeterogeneousAr1,
    Toeplitz,
    HomogeneousToeplitz,
    OrnsteinUhlenbeck,
    Exponential,
    Gaussian,
    Matern,
    ReducedRank,
    ProportionalTo,
    EqualTo,
    /// "diag", "us" by log standard deviations and angles of a `Tree`, and "us" by angles of the correlations
    /// themselves: for terms whose parameters are held, tied or have a prior.
    Diagonal,
    Unstructured,
    Correlated,
}

/// Largest magnitude of an unconstrained correlation parameter that still gives a definite matrix.
const STEEP: f64 = 1e4;

/// Largest logarithm of a range of the Matern correlation, far beyond what can be told from its limits.
const LONG: f64 = 100.0;

/// Largest partial correlation of an angle: the matrix stays definite, by 1e-4 standard deviations.
const EDGE: f64 = 1.0 - 1e-8;

/// rho = sin(a): where the likelihood rises up to a correlation of 1, it has an ordinary maximum in the angle there.
pub(super) fn sine<S: Scalar>(a: S) -> S {
    let (s, c) = a.value().sin_cos();
    a.compose([EDGE * s, EDGE * c, -EDGE * s, -EDGE * c, EDGE * s])
}

/// A logarithm of a range for which the series of Bessel's function ends.
fn reachable<S: Scalar>(a: S) -> S {
    if a.value().abs() > LONG {
        S::constant(a.value().signum() * LONG)
    } else {
        a
    }
}

/// rho = a / sqrt(1 + a^2).
fn correlation<S: Scalar>(a: S) -> S {
    a / (a.square() + 1.0).sqrt()
}

fn capped<S: Scalar>(a: S) -> S {
    if a.value().abs() > STEEP {
        S::constant(a.value().signum() * STEEP)
    } else {
        a
    }
}

impl Kind {
    pub const ALL: [Kind; 17] = [
        Kind::HomogeneousDiagonal,
        Kind::CompoundSymmetry,
        Kind::HomogeneousCompoundSymmetry,
        Kind::Ar1,
        Kind::HeterogeneousAr1,
        Kind::Toeplitz,
        Kind::HomogeneousToeplitz,
        Kind::OrnsteinUhlenbeck,
        Kind::Exponential,
        Kind::Gaussian,
        Kind::Matern,
        Kind::ReducedRank,
        Kind::ProportionalTo,
        Kind::EqualTo,
        Kind::Diagonal,
        Kind::Unstructured,
        Kind::Correlated,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::HomogeneousDiagonal => "homdiag",
            Kind::CompoundSymmetry => "cs",
            Kind::HomogeneousCompoundSymmetry => "homcs",
            Kind::Ar1 => "ar1",
            Kind::HeterogeneousAr1 => "hetar1",
            Kind::Toeplitz => "toep",
            Kind::HomogeneousToeplitz => "homtoep",
            Kind::OrnsteinUhlenbeck => "ou",
            Kind::Exponential => "exp",
            Kind::Gaussian => "gau",
            Kind::Matern => "mat",
            Kind::ReducedRank => "rr",
            Kind::ProportionalTo => "propto",
            Kind::EqualTo => "equalto",
            Kind::Diagonal => "diagonal",
            Kind::Unstructured => "unstructured",
            Kind::Correlated => "correlated",
        }
    }

    pub fn parse(name: &str) -> Result<Kind, CoreError> {
        let alias = if name == "id" { "homdiag" } else { name };
        match Kind::ALL.iter().find(|k| k.name() == alias) {
            Some(k) => Ok(*k),
            None => shape(format!("unknown covariance structure '{name}'")),
        }
    }

    pub fn needs_distance(self) -> bool {
        matches!(self, Kind::OrnsteinUhlenbeck | Kind::Exponential | Kind::Gaussian | Kind::Matern)
    }

    pub fn needs_matrix(self) -> bool {
        matches!(self, Kind::ProportionalTo | Kind::EqualTo)
    }

    /// Correlation of compound symmetry.
    pub(super) fn compound_value(self, theta: f64, k: usize) -> f64 {
        compound(theta, k)
    }

    /// Whether eigenvalues of its correlations vanish as powers of one another.
    pub(super) fn nearly_singular(self) -> bool {
        matches!(self, Kind::Gaussian | Kind::Matern | Kind::Toeplitz | Kind::HomogeneousToeplitz)
    }

    /// Standard deviations come first among the parameters.
    pub(super) fn deviations(self, k: usize) -> usize {
        match self {
            Kind::EqualTo | Kind::ReducedRank => 0,
            Kind::CompoundSymmetry | Kind::HeterogeneousAr1 | Kind::Toeplitz => k,
            Kind::Diagonal | Kind::Unstructured | Kind::Correlated => k,
            _ => 1,
        }
    }

    /// Parameters after the standard deviations; one column has no correlation.
    fn others(self, p: &Pattern) -> usize {
        let k = p.k;
        match self {
            Kind::HomogeneousDiagonal | Kind::ProportionalTo | Kind::EqualTo | Kind::Diagonal => 0,
            Kind::ReducedRank => loadings(k, p.rank).count(),
            _ if k == 1 => 0,
            Kind::Unstructured | Kind::Correlated => k * (k - 1) / 2,
            Kind::Toeplitz | Kind::HomogeneousToeplitz => k - 1,
            Kind::Matern if p.nu.is_none() => 2,
            _ => 1,
        }
    }

    pub(super) fn parameters(self, p: &Pattern) -> usize {
        self.deviations(p.k) + self.others(p)
    }

    /// Whether the parameters are the entries of Lambda itself, so that Sigma may be singular.
    pub(super) fn is_loadings(self) -> bool {
        self == Kind::ReducedRank
    }

    pub(super) fn sigma<S: Scalar>(self, p: &Pattern, theta: &[S]) -> Vec<S> {
        let k = p.k;
        if self == Kind::ReducedRank {
            return low_rank(k, p.rank, theta);
        }
        let d = self.deviations(k);
        let sd: Vec<S> = theta[..d].iter().map(|t| t.exp()).collect();
        let rest = &theta[d..];
        let one = S::constant(1.0);
        let lags: Vec<S> = match self {
            Kind::Toeplitz | Kind::HomogeneousToeplitz => of_lags(p, rest),
            Kind::Ar1 | Kind::HeterogeneousAr1 if k > 1 => powers(correlation(capped(rest[0])), k),
            Kind::Unstructured => p.tree.correlations(rest),
            Kind::Correlated => from_pairs(rest, k),
            _ => vec![],
        };
        let mut out: Vec<S> = Vec::with_capacity(k * k);
        for j in 0..k {
            for i in 0..k {
                if i < j {
                    out.push(out[j + i * k]);
                    continue;
                }
                let scale = match sd.len() {
                    0 => one,
                    1 => sd[0].square(),
                    _ => sd[i] * sd[j],
                };
                let r = match self {
                    Kind::ProportionalTo | Kind::EqualTo => S::constant(p.matrix[i + j * k]),
                    _ if i == j => one,
                    Kind::HomogeneousDiagonal | Kind::Diagonal => S::constant(0.0),
                    Kind::Unstructured | Kind::Correlated => lags[i + j * k],
                    Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry => compound(rest[0], k),
                    Kind::OrnsteinUhlenbeck => (rest[0].exp() * (-p.distance[i + j * k])).exp(),
                    Kind::Exponential => ((-rest[0]).exp() * (-p.distance[i + j * k])).exp(),
                    Kind::Gaussian => (-((-rest[0]).exp() * p.distance[i + j * k]).square()).exp(),
                    Kind::Matern => {
                        let nu = p.nu.map_or_else(|| smoothness(rest[1]), S::constant);
                        special::matern((-reachable(rest[0])).exp() * p.distance[i + j * k], nu)
                    }
                    _ => lags[i.abs_diff(j)],
                };
                out.push(scale * r);
            }
        }
        out
    }

    pub(super) fn start(self, p: &Pattern, sd: &[f64], mean: f64) -> Vec<f64> {
        let k = p.k;
        let mut out: Vec<f64> = match self.deviations(k) {
            0 => vec![],
            1 if self == Kind::ProportionalTo => {
                let scale = (0..k).map(|i| p.matrix[i * (k + 1)]).sum::<f64>() / k as f64;
                vec![mean.ln() - 0.5 * scale.ln()]
            }
            1 => vec![mean.ln()],
            _ => sd.iter().map(|s| s.max(1e-150).ln()).collect(),
        };
        let others = self.others(p);
        if others == 0 {
            return out;
        }
        match self {
            Kind::ReducedRank => out.extend(loadings(k, p.rank).map(|(i, j)| if i == j { sd[i] } else { 0.3 * sd[i] })),
            Kind::Matern => {
                out.push((typical(&p.distance, k) / (2.0 * p.nu.unwrap_or(1.0)).max(1.0).sqrt()).ln());
                out.resize(1 + others, 0.0);
            }
            Kind::OrnsteinUhlenbeck => out.push(-typical(&p.distance, k).ln()),
            Kind::Exponential | Kind::Gaussian => out.push(typical(&p.distance, k).ln()),
            Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry => out.push(compound_inverse(0.2, k)),
            Kind::Toeplitz | Kind::HomogeneousToeplitz => {
                let begun = |first: f64| (0..others).map(|l| if l == 0 { first } else { 0.0 }).collect::<Vec<_>>();
                let legal = |rest: &Vec<f64>| possible(&of_lags(p, rest));
                out.extend(FIRST_LAGS.map(begun).into_iter().find(legal).unwrap_or_else(|| begun(FIRST_LAGS[0])));
            }
            Kind::Unstructured | Kind::Correlated => out.resize(out.len() + others, 0.0),
            _ => out.push(0.3),
        }
        out
    }

    pub(super) fn report(self, p: &Pattern, theta: &[f64]) -> Vec<Natural> {
        let k = p.k;
        let d = self.deviations(k);
        let index = |i: usize| if d > 1 { Some(i) } else { None };
        let mut out: Vec<Natural> =
            (0..d).map(|i| Natural { name: "sd", index: index(i), value: theta[i].exp() }).collect();
        let rest = &theta[d..];
        if rest.is_empty() {
            return out;
        }
        let mut add = |name, index, value| out.push(Natural { name, index, value });
        match self {
            Kind::OrnsteinUhlenbeck => add("rate", None, rest[0].exp()),
            Kind::Exponential | Kind::Gaussian => add("range", None, rest[0].exp()),
            Kind::Matern => {
                add("range", None, rest[0].exp());
                rest[1..].iter().for_each(|&t| add("nu", None, smoothness(t)));
            }
            Kind::ReducedRank => (0..rest.len()).for_each(|i| add("loading", Some(i), rest[i])),
            Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry => add("cor", None, compound(rest[0], k)),
            Kind::Toeplitz | Kind::HomogeneousToeplitz => {
                let lags = of_lags(p, rest);
                (1..k).for_each(|l| add("cor", Some(l), lags[l]));
            }
            Kind::Unstructured | Kind::Correlated => {
                let r = if self == Kind::Unstructured { p.tree.correlations(rest) } else { from_pairs(rest, k) };
                pairs(k).for_each(|(i, j)| add("cor", Some(i + j * k), r[i + j * k]));
            }
            _ => add("cor", None, correlation(rest[0])),
        }
        out
    }

    /// The unconstrained value at which parameter j has a natural value, where it alone decides.
    pub(super) fn unconstrained(self, p: &Pattern, j: usize, value: f64) -> Option<f64> {
        let (k, d) = (p.k, self.deviations(p.k));
        let inside = |low: f64| (value > low && value < 1.0).then_some(value);
        let plain = || inside(-1.0).map(|r| r / (1.0 - r * r).sqrt());
        match self {
            _ if j < d => (value > 0.0).then(|| value.ln()),
            Kind::OrnsteinUhlenbeck | Kind::Exponential | Kind::Gaussian => (value > 0.0).then(|| value.ln()),
            Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry => {
                inside(-1.0 / (k as f64 - 1.0)).map(|r| compound_inverse(r, k))
            }
            Kind::Unstructured if !pairs(k).nth(j - d).is_some_and(|(a, b)| p.tree.joins(a, b)) => None,
            Kind::Toeplitz | Kind::HomogeneousToeplitz if j > d => None,
            Kind::Unstructured | Kind::Correlated => inside(-1.0).map(|r| (r / EDGE).clamp(-1.0, 1.0).asin()),
            Kind::Ar1 | Kind::HeterogeneousAr1 => plain(),
            Kind::Toeplitz | Kind::HomogeneousToeplitz => plain(),
            Kind::Matern if j == d => (value > 0.0).then(|| value.ln().clamp(-LONG, LONG)),
            Kind::Matern => {
                let (low, high) = SMOOTHNESS;
                (value >= low.exp() && value <= high.exp()).then(|| value.ln())
            }
            _ => None,
        }
    }
}

/// Positions (i, j), i > j, below the diagonal, column by column.
pub(super) fn pairs(k: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..k).flat_map(move |j| (j + 1..k).map(move |i| (i, j)))
}

/// Share of a correlation matrix's variance that is none.
const SINGULAR: f64 = 1e-6;

/// How many directions of an "unstructured" covariance have no variance: partial correlations at +-1, or where the
/// correlations themselves are parameters the matrix on its edge.
pub(super) fn lost(p: &Pattern, theta: &[f64]) -> usize {
    match p.kind {
        Kind::Unstructured => theta[p.k..].iter().filter(|a| a.sin().abs() > 1.0 - 1e-6).count().min(p.k - 1),
        Kind::Correlated => {
            let (w, _) = dense::eigen_symmetric(&from_pairs(&theta[p.k..], p.k), p.k);
            w.iter().filter(|w| **w < SINGULAR).count().min(p.k - 1)
        }
        _ => 0,
    }
}

/// A correlation matrix from angles of correlations; it need not be positive definite.
fn from_pairs<S: Scalar>(a: &[S], k: usize) -> Vec<S> {
    let mut out = vec![S::constant(1.0); k * k];
    for ((i, j), &a) in pairs(k).zip(a) {
        out[i + j * k] = sine(a);
        out[j + i * k] = out[i + j * k];
    }
    out
}

/// Logarithms of the smallest and the largest smoothness, 0.02 and 60.
pub(super) const SMOOTHNESS: (f64, f64) = (-3.912023005428146, 4.0943445622221);

/// Smoothness from its logarithm, kept where the correlation can be computed and told from its limits.
fn smoothness<S: Scalar>(t: S) -> S {
    let (low, high) = SMOOTHNESS;
    if t.value() < low || t.value() > high {
        S::constant(t.value().clamp(low, high).exp())
    } else {
        t.exp()
    }
}

/// (row, column) of the free entries of a lower trapezoidal k x d matrix, column by column.
pub(super) fn loadings(k: usize, d: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..d).flat_map(move |j| (j..k).map(move |i| (i, j)))
}

/// Lambda Lambda' of k x d loadings.
fn low_rank<S: Scalar>(k: usize, d: usize, theta: &[S]) -> Vec<S> {
    let zero = S::constant(0.0);
    let mut lambda = vec![zero; k * d];
    loadings(k, d).zip(theta).for_each(|((i, j), t)| lambda[i + j * k] = *t);
    let mut out = vec![zero; k * k];
    for j in 0..k {
        for i in 0..k {
            out[i + j * k] = (0..d).fold(zero, |sum, t| sum + lambda[i + t * k] * lambda[j + t * k]);
        }
    }
    out
}

/// Correlation in (-1 / (k - 1), 1).
fn compound<S: Scalar>(c: S, k: usize) -> S {
    let low = -1.0 / (k as f64 - 1.0);
    let c = if c.value().abs() > 20.0 { S::constant(20.0 * c.value().signum()) } else { c };
    c.logistic() * (1.0 - low) + low
}

fn compound_inverse(rho: f64, k: usize) -> f64 {
    let low = -1.0 / (k as f64 - 1.0);
    let p = (rho - low) / (1.0 - low);
    (p / (1.0 - p)).ln()
}

fn powers<S: Scalar>(rho: S, k: usize) -> Vec<S> {
    let mut out = vec![S::constant(1.0)];
    for l in 1..k {
        out.push(out[l - 1] * rho);
    }
    out
}

fn partials<S: Scalar>(a: &[S]) -> Vec<S> {
    a.iter().map(|&a| correlation(capped(a))).collect()
}

/// Where the correlation at a lag comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lag {
    /// The partial autocorrelation, which is the parameter.
    Partial,
    /// It is known.
    Held(f64),
    /// It is that at an earlier lag (counted from 0).
    As(usize),
}

/// First lags that a search may begin from: the first at which those that are known are possible.
const FIRST_LAGS: [f64; 8] = [0.2, 0.0, -0.2, 0.7, -0.7, 1.5, -1.5, 3.0];

/// Autocorrelations of a Toeplitz structure. One that is given decides its partial autocorrelation by the earlier ones:
/// rho_m = inner + left partial_m, so that no search can leave it; partials beyond 1 belong to no covariance.
fn of_lags<S: Scalar>(p: &Pattern, rest: &[S]) -> Vec<S> {
    let own = partials(rest);
    recursion(rest.len(), |m, rho, inner, left| match p.lags.get(m).copied().unwrap_or(Lag::Partial) {
        Lag::Partial => own[m],
        Lag::Held(value) => (S::constant(value) - inner) / left,
        Lag::As(earlier) => (rho[earlier + 1] - inner) / left,
    })
}

/// Whether a covariance has such autocorrelations.
fn possible(lags: &[f64]) -> bool {
    let k = lags.len();
    let mut r: Vec<f64> = (0..k * k).map(|t| lags[(t % k).abs_diff(t / k)]).collect();
    dense::cholesky(&mut r, k, k).is_ok()
}

/// Autocorrelations 0..m from partial autocorrelations (Durbin-Levinson; Barndorff-Nielsen & Schou 1973).
pub(crate) fn autocorrelations<S: Scalar>(partial: &[S]) -> Vec<S> {
    recursion(partial.len(), |m, _, _, _| partial[m])
}

/// The recursion over partial autocorrelations that may depend on what came before: their position, the
/// autocorrelations so far, what these say of the next one, and the variance that they leave.
fn recursion<S: Scalar>(count: usize, partial: impl Fn(usize, &[S], S, S) -> S) -> Vec<S> {
    let mut rho = vec![S::constant(1.0)];
    let mut phi: Vec<S> = vec![];
    let mut left = S::constant(1.0);
    for m in 0..count {
        let inner = phi.iter().enumerate().fold(S::constant(0.0), |sum, (t, p)| sum + *p * rho[m - t]);
        let partial = partial(m, &rho, inner, left);
        rho.push(inner + partial * left);
        let mut next: Vec<S> = (0..m).map(|t| phi[t] - partial * phi[m - 1 - t]).collect();
        next.push(partial);
        phi = next;
        left = left * (-(partial.square()) + 1.0);
    }
    rho
}

/// A third of the mean distance: a correlation that is neither 0 nor 1 for most pairs.
pub(super) fn typical(distance: &[f64], k: usize) -> f64 {
    let sum: f64 = distance.iter().sum();
    let mean = sum / (k * k - k).max(1) as f64;
    if mean > 0.0 {
        mean / 3.0
    } else {
        1.0
    }
}
