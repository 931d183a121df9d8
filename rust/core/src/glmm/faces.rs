//! Where else than at the end of a search an optimum may lie.
//!
//! Standard deviations of zero and limits of correlations are faces of the parameters, and several of them may hold an
//! optimum: of the columns that contradict a common correlation one or the other has no variance, correlations of either
//! sign explain what no variance explains, and effects without relation may be large where related ones are small. So a
//! search that ends on a face is begun again beside the others.
//!
//! One that ends inside has other faces to go to as well: where the effects of a column contradict the correlations of
//! the others, or correlations of either sign explain about as much. It costs an evaluation to see how far above each lies.

use crate::dense;
use crate::design::Moments;
use crate::optimise::{invert, mul};
use crate::structure::{Kind, Pattern};

use super::patterns::Patterned;

/// What is left of the correlations where the search is begun again: those found may lie at a limit.
const LOOSER: f64 = 0.9;
/// Standard deviations that are larger than those found, as a multiple.
const LARGER: f64 = 4.5;
/// Those below this share of the usual ones are zero, and the logarithm of one that is.
pub const SMALL: f64 = 1e-2;
const NONE: f64 = -20.0;
/// Correlation of neighbours of the other sign.
const OPPOSITE: f64 = 0.5;
/// Correlation of neighbours where those found are hardly related.
const RELATED: f64 = 0.9;
/// And where they are not related at all: so little that the slope decides.
const SLIGHT: f64 = 0.02;
/// Correlations of neighbours (in a row, and at some distance), and sizes of loadings, to begin from without a cause.
const AFAR: [f64; 3] = [0.1, 0.5, -0.6];
const APART: [f64; 3] = [0.1, 0.5, 0.8];
const SHARES: [f64; 2] = [1.0, 0.3];
/// A smoothness that is hardly any.
const ROUGH: f64 = 0.05;
/// Parameters of partial autocorrelations of 0.89 and 0.95: of one that has ended, and of a later one instead.
const WITHIN: f64 = 2.0;
const NEXT: f64 = 3.0;
/// Columns up to which every one is left out in turn.
const WIDEST: usize = 12;

/// Parameters of a structure beside other faces than the one where a search ended, the most promising last: `found` are
/// those found, `usual` those to begin from.
pub fn others(pattern: &Pattern, found: &[f64], usual: &[f64]) -> Vec<Vec<f64>> {
    let (k, d) = (pattern.k, pattern.deviations());
    if pattern.is_loadings() {
        return opposed(pattern, found);
    }
    if k < 2 || d == 0 || pattern.parameters() == d {
        return vec![];
    }
    let sd = |theta: &[f64]| -> Vec<f64> { (0..k).map(|i| theta[i.min(d - 1)].exp()).collect() };
    let zero = |i: usize| found[i] < usual[i] + SMALL.ln();
    let awake: Vec<f64> = (0..found.len()).map(|i| if i < d && zero(i) { usual[i] } else { found[i] }).collect();
    let correlation = pattern.correlations(&awake);
    let larger = if (0..d).all(zero) { 1.0 } else { LARGER };
    let large: Vec<f64> = sd(&awake).iter().map(|s| larger * s).collect();
    let mut out: Vec<Vec<f64>> = pattern.near(&large, &identity(k)).into_iter().collect();
    out.extend(pattern.near(&sd(usual), &pattern.neighbours(opposite(pattern, correlation[1]))));
    out.extend(later_lags(pattern, &awake));
    let looser: Vec<f64> = (0..k * k).map(|t| if t % (k + 1) == 0 { 1.0 } else { LOOSER * correlation[t] }).collect();
    for j in (0..k).filter(|&j| d > 1 && k > 2 && k <= WIDEST && !zero(j)) {
        out.extend(pattern.near(&sd(&awake), &looser).map(|mut theta| {
            theta[j] = NONE;
            theta
        }));
    }
    out
}

/// Parameters of a structure where a search may begin that knows nothing of the response but the size of the effects
/// (`usual` are the parameters to begin from): neighbours related by a little or a lot, on either side, and loadings all
/// alike. Common correlations and those of every lag came to the same end from wherever they began.
pub fn afar(pattern: &Pattern, usual: &[f64]) -> Vec<Vec<f64>> {
    let (k, d) = (pattern.k, pattern.deviations());
    if pattern.is_loadings() {
        return alike(pattern, usual);
    }
    let regular = matches!(pattern.kind, Kind::Ar1 | Kind::HeterogeneousAr1);
    if k < 2 || d == 0 || !(regular || pattern.kind.needs_distance()) {
        return vec![];
    }
    let sd: Vec<f64> = (0..k).map(|i| usual[i.min(d - 1)].exp()).collect();
    let some = if regular { AFAR } else { APART };
    let mut out: Vec<Vec<f64>> = some.into_iter().filter_map(|r| pattern.near(&sd, &pattern.neighbours(r))).collect();
    if pattern.kind == Kind::Matern && pattern.nu.is_none() {
        out.extend(pattern.near(&sd, &pattern.neighbours(RELATED)).map(|mut theta| {
            theta[d + 1] = ROUGH.ln();
            theta
        }));
    }
    out
}

/// Loadings on the first dimension alone, all of the same size.
fn alike(pattern: &Pattern, usual: &[f64]) -> Vec<Vec<f64>> {
    let size = (usual.iter().map(|t| t * t).sum::<f64>() / pattern.k as f64).sqrt();
    let at = pattern.loadings();
    let of = |share: f64| at.iter().map(|at| if at.1 == 0 { share * size } else { 0.0 }).collect();
    SHARES.iter().map(|&share| of(share)).collect()
}

/// The same standard deviations, slightly related, where they are not related at all: there the slope of the correlations is
/// none, whatever it is beside.
pub fn slightly_related(pattern: &Pattern, found: &[f64]) -> Option<Vec<f64>> {
    if !pattern.is_unrelated(found) {
        return None;
    }
    let sd: Vec<f64> = (0..pattern.k).map(|i| found[i.min(pattern.deviations() - 1)].exp()).collect();
    pattern.near(&sd, &pattern.neighbours(SLIGHT))
}

/// Loadings of which one column's are of the other sign, the largest first: a search comes there only through effects
/// without that column.
fn opposed(pattern: &Pattern, found: &[f64]) -> Vec<Vec<f64>> {
    let at = pattern.loadings();
    let size = |row: usize| -> f64 { found.iter().zip(&at).filter(|(_, at)| at.0 == row).map(|(t, _)| t * t).sum() };
    let mut rows: Vec<usize> = (0..pattern.k).filter(|&row| size(row) > 0.0).collect();
    rows.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    // Of two columns it is the same which one turns.
    rows.truncate(if pattern.k == 2 { 1 } else { pattern.k });
    let turned = |row: usize| found.iter().zip(&at).map(|(t, at)| if at.0 == row { -t } else { *t }).collect();
    rows.into_iter().map(turned).collect()
}

/// Where a partial autocorrelation has ended at +-1, a later one may end there instead, on either side.
fn later_lags(pattern: &Pattern, found: &[f64]) -> Vec<Vec<f64>> {
    let lags = matches!(pattern.kind, Kind::Toeplitz | Kind::HomogeneousToeplitz);
    let Some(limit) = pattern.limit(found).filter(|_| lags) else { return vec![] };
    let Some(at) = limit.lost.iter().position(|lost| *lost).filter(|at| at + 1 < found.len()) else { return vec![] };
    let with = |later: usize, next: f64| {
        let mut theta = found.to_vec();
        theta[at] = WITHIN.copysign(theta[at]);
        theta[at + 1..].fill(0.0);
        theta[later] = next;
        theta
    };
    (at + 1..found.len()).rev().flat_map(|later| [with(later, -NEXT), with(later, NEXT)]).collect()
}

/// A correlation of neighbours unlike the one found: of the other sign, or where distances allow no negative one, large
/// where that is small.
fn opposite(pattern: &Pattern, found: f64) -> f64 {
    match pattern.kind.needs_distance() {
        true if found < OPPOSITE => RELATED,
        _ => -OPPOSITE.copysign(found),
    }
}

/// (I + G_l Sigma)^-1 G_l of every level: what its rows say of its effects, their own variance included.
fn marginal_information(m: &Moments, p: &Patterned, sigma: &[f64]) -> Vec<f64> {
    let (k, ld) = (p.pattern.k, m.factors[p.factor].cols);
    let mut out = vec![];
    for g in m.factors[p.factor].gram.chunks_exact(ld * ld) {
        let own: Vec<f64> = (0..k * k).map(|t| g[p.offset + t % k + (p.offset + t / k) * ld]).collect();
        let mut a = mul(&own, sigma, k, false);
        (0..k).for_each(|i| a[i * (k + 1)] += 1.0);
        out.extend(mul(&invert(&a, k), &own, k, false));
    }
    out
}

/// tr(V S V S).
fn traced(v: &[f64], s: &[f64], k: usize) -> f64 {
    let vs = mul(v, s, k, false);
    (0..k * k).map(|t| vs[t] * vs[t / k + t % k * k]).sum()
}

/// Correlations of neighbours at which a structure without variance is looked at.
const NEIGHBOURS: [f64; 7] = [0.0, 0.1, 0.3, 0.6, 0.9, 0.98, -0.5];
/// By how much the range is shorter than any to begin from where there is to be no correlation.
const SHORTER: f64 = 3.0;
/// Deviance that it must promise to gain there.
const PROMISED: f64 = 1e-6;

/// Parameters with variances at which a structure whose variances are zero promises most, if it promises anything. With
/// Sigma = t S, t small, the deviance changes by t tr(S slope) + t^2 / 2 times the information tr(G S G S), summed over the
/// levels: the slope asks for the correlations in S, of which nothing is known at zero (Davies 1977). `slope` is d deviance
/// / d Sigma of the term there, `shape` the parameters to begin from, whose standard deviations are units.
pub fn out_of_zero(m: &Moments, p: &Patterned, shape: &[f64], slope: &[f64]) -> Option<Vec<f64>> {
    let (k, d) = (p.pattern.k, p.pattern.deviations());
    if k < 2 || d == 0 || p.pattern.parameters() == d {
        return None;
    }
    let unit: Vec<f64> = (0..k).map(|i| p.theta(shape)[i.min(d - 1)].exp()).collect();
    let visible = marginal_information(m, p, &vec![0.0; k * k]);
    let mut best: Option<(f64, Vec<f64>)> = None;
    for r in NEIGHBOURS {
        let Some(mut theta) = p.pattern.near(&unit, &p.pattern.neighbours(r)) else { continue };
        if r == 0.0 && p.pattern.kind.needs_distance() {
            theta[d] += if p.pattern.kind == Kind::OrnsteinUhlenbeck { SHORTER.ln() } else { -SHORTER.ln() };
        }
        let correlation = p.pattern.correlations(&theta);
        let share = if d == 1 { vec![1.0; k] } else { steepest(slope, &correlation, &unit) };
        let moved: Vec<f64> =
            (0..k * k).map(|t| correlation[t] * share[t % k] * unit[t % k] * share[t / k] * unit[t / k]).collect();
        let falls = -moved.iter().zip(slope).map(|(a, b)| a * b).sum::<f64>();
        let information: f64 = visible.chunks_exact(k * k).map(|v| traced(v, &moved, k)).sum();
        let promised = 0.5 * falls * falls / information;
        if falls > 0.0 && promised > best.as_ref().map_or(PROMISED, |b| b.0) {
            let size = (falls / information).sqrt();
            let theta = (0..theta.len()).map(|i| {
                if i < d {
                    (share[i] * size * unit[i]).ln().max(unit[i].ln() + NONE)
                } else {
                    theta[i]
                }
            });
            best = Some((promised, theta.collect()));
        }
    }
    best.map(|b| b.1)
}

/// Shares of the standard deviations (not negative, in their units) along which the deviance falls fastest.
fn steepest(slope: &[f64], correlation: &[f64], unit: &[f64]) -> Vec<f64> {
    let k = unit.len();
    let all: Vec<f64> = (0..k * k).map(|t| slope[t] * correlation[t] * unit[t % k] * unit[t / k]).collect();
    let least = &dense::eigen_symmetric(&all, k).1[..k];
    let sign = least.iter().sum::<f64>().signum();
    least.iter().map(|v| (sign * v).max(0.0)).collect()
}

fn identity(k: usize) -> Vec<f64> {
    (0..k * k).map(|t| if t % (k + 1) == 0 { 1.0 } else { 0.0 }).collect()
}
