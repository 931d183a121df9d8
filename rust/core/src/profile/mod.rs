//! Profiles of the likelihood: the least deviance at every value of one parameter (Bates & Watts 1988; Bates et al. 2015).
//!
//! zeta(v) = sign(v - v_hat) sqrt(d(v) - d_hat) is followed from the optimum outwards. Each point starts from those before
//! it; the slope of zeta is exact (d' is the partial derivative along v at the constrained optimum), so that a value of
//! zeta that is asked for is reached by Newton steps.

mod chart;
mod laplace;
mod linear;
mod search;

pub use chart::Hold;
pub use laplace::Laplace;
pub use linear::Linear;

use crate::CoreError;
use chart::Chart;
use search::{inverse, minimise, Value};

/// Deviance and its exact gradient in coordinates x.
pub trait Surface {
    /// (deviance, d / dx, d / d held).
    fn at(&mut self, x: &[f64], held: f64) -> Result<(f64, Vec<f64>, f64), CoreError>;
    /// Coefficients in the user's units at the point visited last.
    fn coefficients(&self) -> Vec<f64>;
    /// Natural size of each coordinate at x.
    fn scale(&self, x: &[f64]) -> Vec<f64>;
    /// Steps of difference quotients of the gradient, in units of a coordinate's own precision.
    fn difference(&self) -> f64;
    /// Coordinates at whose zero the deviance is flat because only their square counts.
    fn even(&self) -> Vec<usize>;
    /// Rounding error of the deviance.
    fn noise(&self) -> f64;
    /// An error once the end has been asked for.
    fn check(&self) -> Result<(), CoreError>;
}

/// The optimum that profiles start from.
#[derive(Clone, Debug)]
pub struct Centre {
    pub x: Vec<f64>,
    pub deviance: f64,
    /// d2 deviance / dx2, column-major.
    pub hessian: Vec<f64>,
    /// Coordinates that are not estimated.
    pub frozen: Vec<bool>,
}

/// A parameter to profile: what is held, its estimate, and the values it can take.
#[derive(Clone, Debug)]
pub struct Request {
    pub hold: Hold,
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

impl Request {
    /// What is held at the centre `x`: a surface that holds something by itself knows its value.
    pub fn new(hold: Hold, x: &[f64], low: f64, high: f64) -> Self {
        Request { estimate: hold.value(x), hold, low, high }
    }
}

/// Values of |zeta| to visit, in order; `true` where exactly that value is wanted.
pub type Targets = [(f64, bool)];

#[derive(Clone, Debug)]
pub struct CurvePoint {
    pub value: f64,
    pub zeta: f64,
    /// d zeta / d value.
    pub slope: f64,
    pub x: Vec<f64>,
    pub coefficients: Vec<f64>,
    /// Decrease of the deviance that one more step of the search promised.
    pub decrease: f64,
    y: Vec<f64>,
}

/// How a side of a curve ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the last target.
    Reached,
    /// At the bound of the parameter, before the last target.
    Bound,
    /// The deviance levels off before the last target.
    Flat,
    /// The search failed.
    Failed,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            End::Reached => "reached",
            End::Bound => "bound",
            End::Flat => "flat",
            End::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Curve {
    /// Left to right.
    pub points: Vec<CurvePoint>,
    pub ends: [End; 2],
    /// Searches that did not converge.
    pub failures: usize,
    /// The lowest deviance seen, relative to that of the centre.
    pub lowest: f64,
    pub evaluations: usize,
}

/// Newton steps for one value of zeta.
const CORRECTIONS: usize = 30;
/// Error of zeta that counts as none.
const EXACT: f64 = 1e-9;
/// Error of zeta that is taken where rounding ends the steps: beside a bound the deviance is a square.
const ROUNDED: f64 = 1e-6;
/// Error of zeta that does not matter where a value is not wanted exactly.
const SLACK: f64 = 0.2;
/// Farther from the estimate than this many of its standard errors the deviance is called flat.
const FAR: f64 = 60.0;

/// Second derivatives of a surface by central differences of its exact gradient.
pub fn hessian<S: Surface>(surface: &mut S, x: &[f64], frozen: &[bool]) -> Result<Vec<f64>, CoreError> {
    let n = x.len();
    let scale = surface.scale(x);
    let mut h = vec![0.0; n * n];
    for j in (0..n).filter(|&j| !frozen[j]) {
        let share = surface.difference();
        let mut step = share * scale[j];
        for attempt in 0..5 {
            let mut side = |sign: f64| {
                let mut moved = x.to_vec();
                moved[j] += sign * step;
                surface.at(&moved, f64::NAN)
            };
            match (side(1.0), side(-1.0)) {
                (Ok(up), Ok(down)) => {
                    // The step that the curvature asks for: columns far from zero make coordinates stiff.
                    let wanted = share / (0.25 * (up.1[j] - down.1[j]) / step).max(1e-300).sqrt();
                    if attempt < 2 && wanted < 0.3 * step {
                        step = wanted;
                        continue;
                    }
                    (0..n).for_each(|i| h[i + j * n] = (up.1[i] - down.1[i]) / (2.0 * step));
                    break;
                }
                (Err(e), _) | (_, Err(e)) if attempt == 4 => return Err(e),
                _ => step *= 0.1,
            }
        }
    }
    for j in 0..n {
        for i in 0..j {
            let v = 0.5 * (h[i + j * n] + h[j + i * n]);
            h[i + j * n] = v;
            h[j + i * n] = v;
        }
    }
    Ok(h)
}

/// The curve of one parameter.
pub fn curve<S: Surface>(
    surface: &mut S,
    centre: &Centre,
    request: &Request,
    targets: &Targets,
    outside: f64,
) -> Result<Curve, CoreError> {
    let chart = Chart::new(request.hold.clone(), &centre.x, &centre.frozen);
    let mut tracer = Tracer { surface, centre, request, chart, failures: 0, lowest: 0.0, evaluations: 0 };
    let (start, b, drift) = tracer.start(outside)?;
    let (left, low) = tracer.side(-1.0, &start, b.clone(), &drift, targets)?;
    let (right, high) = tracer.side(1.0, &start, b, &drift, targets)?;
    let mut points: Vec<CurvePoint> = left.into_iter().rev().collect();
    points.push(start);
    points.extend(right);
    let Tracer { failures, lowest, evaluations, .. } = tracer;
    Ok(Curve { points, ends: [low, high], failures, lowest, evaluations })
}

/// Give directions without effect the curvature of the coordinates they mix with. Left at 0 it would make a coordinate
/// that hardly matters (a root of a covariance whose correlation is nearly 0) look free, and steps along it without end.
fn stiffen(h: &mut [f64], idle: &[Vec<f64>], m: usize) {
    let at: Vec<usize> = (0..m).filter(|&i| idle.iter().any(|d| d[i] != 0.0)).collect();
    let mixed = at.len() > idle.len();
    let (over, rest) = if mixed { (at.clone(), at.len() - idle.len()) } else { ((0..m).collect(), m) };
    let curvature = over.iter().map(|&i| h[i + i * m].abs()).sum::<f64>() / rest.max(1) as f64;
    for d in idle {
        for j in 0..m {
            (0..m).for_each(|i| h[i + j * m] += curvature * d[i] * d[j]);
        }
    }
}

struct Tracer<'a, S: Surface> {
    surface: &'a mut S,
    centre: &'a Centre,
    request: &'a Request,
    chart: Chart,
    failures: usize,
    lowest: f64,
    evaluations: usize,
}

impl<S: Surface> Tracer<'_, S> {
    /// The estimate as a point of the curve, the inverse curvature of the free coordinates, and how they drift with v.
    ///
    /// `outside` is the curvature along v at fixed x, where the surface holds v by itself.
    fn start(&mut self, outside: f64) -> Result<(CurvePoint, Vec<f64>, Vec<f64>), CoreError> {
        let (v, x) = (self.request.estimate, &self.centre.x);
        let y = self.chart.coordinates(x);
        let (n, m) = (x.len(), y.len());
        // Rows of dx / d(y, v), from unit gradients.
        let mut rows = vec![0.0; n * (m + 1)];
        for i in 0..n {
            let mut unit = vec![0.0; n];
            unit[i] = 1.0;
            let Some((gy, gv)) = self.chart.pull(v, &y, &unit) else {
                return Err(CoreError::NotFinite("this parameter has no profile here".into()));
            };
            rows[i * (m + 1)..][..m].copy_from_slice(&gy);
            rows[i * (m + 1) + m] = gv;
        }
        let w = m + 1;
        let h = &self.centre.hessian;
        let full: Vec<f64> = (0..w * w)
            .map(|t| {
                let (a, b) = (t % w, t / w);
                (0..n).map(|i| (0..n).map(|j| rows[i * w + a] * h[i + j * n] * rows[j * w + b]).sum::<f64>()).sum()
            })
            .collect();
        let mut inner: Vec<f64> = (0..m * m).map(|t| full[t % m + (t / m) * w]).collect();
        stiffen(&mut inner, &self.chart.idle(&y), m);
        let b = inverse(&inner, m);
        let cross: Vec<f64> = (0..m).map(|i| full[i + m * w]).collect();
        let drift: Vec<f64> = (0..m).map(|i| -(0..m).map(|j| b[i + j * m] * cross[j]).sum::<f64>()).collect();
        let schur = full[m + m * w] + cross.iter().zip(&drift).map(|(c, d)| c * d).sum::<f64>();
        let curvature = if self.request.hold == Hold::Outside { outside } else { schur };
        let slope = (0.5 * curvature.max(1e-12 * full[m + m * w].abs()).max(1e-300)).sqrt();
        self.surface.at(x, v)?;
        let coefficients = self.surface.coefficients();
        let x = x.clone();
        Ok((CurvePoint { value: v, zeta: 0.0, slope, x, coefficients, decrease: 0.0, y }, b, drift))
    }

    /// The constrained optimum at v, the search starting from y.
    fn solve(&mut self, v: f64, y: Vec<f64>, b: &mut Vec<f64>) -> Result<Option<CurvePoint>, CoreError> {
        self.surface.check()?;
        let noise = self.surface.noise();
        let (chart, surface, count) = (&self.chart, &mut *self.surface, &mut self.evaluations);
        let mut f = |y: &[f64]| {
            *count += 1;
            surface.check()?;
            let lost = || CoreError::NotFinite("the coordinates end here".into());
            let x = chart.base(v, y).ok_or_else(lost)?;
            let (deviance, g, held) = surface.at(&x, v)?;
            let (gradient, along) = chart.pull(v, y, &g).ok_or_else(lost)?;
            Ok(Value { deviance, gradient, along: along + held })
        };
        let found = match minimise(&mut f, y, b, 1e-10 + 0.01 * noise, noise) {
            Err(CoreError::Interrupted) => return Err(CoreError::Interrupted),
            Err(_) => return Ok(None),
            Ok(found) if !found.converged => return Ok(None),
            Ok(found) => found,
        };
        let Some(x) = self.chart.base(v, &found.y) else { return Ok(None) };
        // The search may have ended on a trial that it refused.
        let _ = self.surface.at(&x, v);
        let rise = found.value.deviance - self.centre.deviance;
        self.lowest = self.lowest.min(rise);
        let side = if v < self.request.estimate { -1.0 } else { 1.0 };
        let zeta = side * rise.max(0.0).sqrt();
        let slope = 0.5 * found.value.along / zeta;
        let coefficients = self.surface.coefficients();
        let y = self.chart.coordinates(&x);
        Ok(Some(CurvePoint { value: v, zeta, slope, x, coefficients, decrease: found.decrease, y }))
    }

    /// Move coordinates off a zero at which only their square counts, so that the search sees where it goes.
    fn lifted(&self, v: f64, y: Vec<f64>) -> Vec<f64> {
        let Some(mut x) = self.chart.base(v, &y) else { return y };
        let scale = self.surface.scale(&x);
        let mut moved = false;
        for j in self.surface.even() {
            if x[j].abs() < 0.02 * scale[j] && !self.centre.frozen[j] {
                x[j] = 0.05 * scale[j];
                moved = true;
            }
        }
        if moved {
            self.chart.coordinates(&x)
        } else {
            y
        }
    }

    /// Follow one side to the last target.
    fn side(
        &mut self,
        sign: f64,
        start: &CurvePoint,
        mut b: Vec<f64>,
        drift: &[f64],
        targets: &Targets,
    ) -> Result<(Vec<CurvePoint>, End), CoreError> {
        let bound = if sign < 0.0 { self.request.low } else { self.request.high };
        let mut side = Side { sign, bound, start, drift, points: vec![], edge: None };
        if (bound - start.value) * sign <= 1e-9 * start.value.abs().min(1.0) {
            return Ok((side.points, End::Bound));
        }
        for &(target, exact) in targets {
            let last = side.last();
            if target - last.zeta.abs() < if exact { EXACT } else { 0.5 * SLACK } {
                continue;
            }
            match self.towards(&mut side, target, exact, &mut b)? {
                Ok(p) => side.points.push(p),
                Err(end) => return Ok((side.points, end)),
            }
        }
        Ok((side.points, End::Reached))
    }

    /// The point at which |zeta| is `target` (about that, unless it is wanted exactly), or how the side ends before.
    fn towards(
        &mut self,
        side: &mut Side<'_>,
        target: f64,
        exact: bool,
        b: &mut Vec<f64>,
    ) -> Result<Result<CurvePoint, End>, CoreError> {
        let reach = FAR / side.start.slope;
        let error = EXACT.max(self.surface.noise() / target);
        let from = side.last().value;
        let (mut low, mut high) = (from, side.bound);
        let mut near: Option<CurvePoint> = None;
        for round in 0..CORRECTIONS {
            let at = near.as_ref().unwrap_or(side.last());
            let (gap, value) = (target - at.zeta.abs(), at.value);
            let mut v = value + side.sign * side.stride(at, gap);
            if let Some(p) = &near {
                if gap.abs() < if exact { error } else { SLACK } {
                    return Ok(Ok(p.clone()));
                }
                *(if gap > 0.0 { &mut low } else { &mut high }) = value;
            }
            if (v - low) * side.sign <= 0.0 || (round > 12 && high.is_finite()) {
                v = 0.5 * (low + high);
            }
            if (high - v) * side.sign <= 0.0 {
                if high == side.bound && !self.is_beyond(side, target, b)? {
                    return Ok(Err(side.end_at_bound()));
                }
                v = 0.5 * (low + high);
            }
            if !v.is_finite() || (v - side.start.value).abs() > reach {
                return Ok(Err(End::Flat));
            }
            match self.approach(v, side, near.as_ref(), b)? {
                // Below the value at the centre the sign of zeta is lost: another valley.
                Some(p) if p.zeta != 0.0 => near = Some(p),
                _ => return Ok(Err(End::Failed)),
            }
        }
        // Steps ended within rounding of the target, or the deviance does not get there.
        Ok(match near {
            Some(p) if (target - p.zeta.abs()).abs() < ROUNDED => Ok(p),
            // Short steps towards a bound at which the deviance stays just below the target.
            _ if high == side.bound && high.is_finite() && !self.is_beyond(side, target, b)? => {
                Err(side.end_at_bound())
            }
            _ => Err(End::Failed),
        })
    }

    /// Whether the target lies before the bound; the point there is kept.
    fn is_beyond(&mut self, side: &mut Side<'_>, target: f64, b: &[f64]) -> Result<bool, CoreError> {
        if side.edge.is_none() {
            side.edge = self.approach(side.bound, side, None, &mut b.to_vec())?;
        }
        Ok(side.edge.as_ref().is_some_and(|e| e.zeta.abs() > target + EXACT))
    }

    /// Solve at v; where that fails, by way of points nearer to the last good one.
    fn approach(
        &mut self,
        v: f64,
        side: &Side<'_>,
        near: Option<&CurvePoint>,
        b: &mut Vec<f64>,
    ) -> Result<Option<CurvePoint>, CoreError> {
        let first = b.clone();
        let y = self.lifted(v, side.predicted(v, near));
        if let Some(p) = self.solve(v, y, b)? {
            return Ok(Some(p));
        }
        self.failures += 1;
        let from = side.last();
        let mut y = from.y.clone();
        let mut found = None;
        for t in [0.25, 0.5, 0.75, 1.0] {
            b.clone_from(&first);
            let at = from.value + t * (v - from.value);
            found = self.solve(at, self.lifted(at, y), b)?;
            match &found {
                Some(p) => y = p.y.clone(),
                None => return Ok(None),
            }
        }
        Ok(found)
    }
}

/// One side of a curve, as far as it has been followed.
struct Side<'a> {
    sign: f64,
    bound: f64,
    start: &'a CurvePoint,
    drift: &'a [f64],
    points: Vec<CurvePoint>,
    /// The constrained optimum at the bound, once it has been looked at.
    edge: Option<CurvePoint>,
}

impl Side<'_> {
    fn last(&self) -> &CurvePoint {
        self.points.last().unwrap_or(self.start)
    }

    /// The side ends at its bound, whose point is the last; or it failed there.
    fn end_at_bound(&mut self) -> End {
        let end = if self.edge.is_some() { End::Bound } else { End::Failed };
        self.points.extend(self.edge.take());
        end
    }

    /// How far from `at` |zeta| has changed by `gap`: a parabola through the last slopes.
    fn stride(&self, at: &CurvePoint, gap: f64) -> f64 {
        // Curves that rise as a logarithm are followed in steps that grow with the distance, parabolas in even ones.
        let most = (4.0 / self.start.slope).max((at.value - self.start.value).abs());
        let slope = at.slope.abs().max(0.8 / most);
        let plain = gap / slope;
        let before = if std::ptr::eq(at, self.last()) {
            self.points.iter().rev().nth(1).or(Some(self.start)).filter(|_| !self.points.is_empty())
        } else {
            Some(self.last())
        };
        let bend = before.map_or(0.0, |p| (at.slope.abs() - p.slope.abs()) / (at.value - p.value).abs());
        let bent = gap / (slope + 0.5 * bend * plain);
        let stride = if bent.is_finite() && (0.5..=2.0).contains(&(bent / plain)) { bent } else { plain };
        stride.clamp(-most, most)
    }

    /// Free coordinates at v from the points before: a parabola through the last three, a line, or the drift.
    fn predicted(&self, v: f64, near: Option<&CurvePoint>) -> Vec<f64> {
        let line = |a: &CurvePoint, b: &CurvePoint| {
            let t = (v - b.value) / (b.value - a.value);
            b.y.iter().zip(&a.y).map(|(b, a)| b + t * (b - a)).collect()
        };
        let last = self.last();
        if let Some(near) = near {
            return line(last, near);
        }
        match self.points.as_slice() {
            [] => last.y.iter().zip(self.drift).map(|(y, d)| y + (v - last.value) * d).collect(),
            [b] => line(self.start, b),
            [.., b, c] => {
                let a = self.points.iter().rev().nth(2).unwrap_or(self.start);
                let (va, vb, vc) = (a.value, b.value, c.value);
                let la = (v - vb) * (v - vc) / ((va - vb) * (va - vc));
                let lb = (v - va) * (v - vc) / ((vb - va) * (vb - vc));
                let lc = (v - va) * (v - vb) / ((vc - va) * (vc - vb));
                (0..c.y.len()).map(|i| la * a.y[i] + lb * b.y[i] + lc * c.y[i]).collect()
            }
        }
    }
}
