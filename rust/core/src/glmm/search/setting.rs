//! What stays the same in a search, and what is known at one of its points.

use super::*;

/// What is left of random effects that are too much to begin with.
const SMALLER: f64 = 0.1;
/// Rounding error of a deviance, relative to its size and the number of rows.
const ROUNDING: f64 = 1e-11;

/// What stays the same in a search.
pub(super) struct Setting<'a, 'r> {
    pub(super) rows: &'a GlmmRows<'r>,
    pub(super) units: &'a [Vec<Vec<f64>>],
    pub(super) options: &'a Options,
    pub(super) components: Vec<Component>,
    pub(super) charts: Vec<Chart>,
    pub(super) constraint: Constraint,
    pub(super) residual: Option<Residual>,
    /// The observed curvature is the exact one.
    pub(super) exact: bool,
    /// Normal responses with structures whose residual has a formula.
    pub(super) uneven: bool,
    /// A residual trades variances with a structure, and leaves its covariances what they are.
    pub(super) linked: bool,
}

impl<'a, 'r> Setting<'a, 'r> {
    /// That of a search that begins with the parameters `shape`; the engine is told what it has to find.
    pub(super) fn of(
        e: &mut Engine,
        rows: &'a GlmmRows<'r>,
        units: &'a [Vec<Vec<f64>>],
        shape: &[f64],
        options: &'a Options,
    ) -> Self {
        let constraint = e.constraint.clone();
        let charts = patterns::charts(e.moments(), &e.patterns, units, &constraint, shape);
        let residual = Residual::of(e, rows);
        let one = e.moments().factors.len() == 1 && e.patterns.iter().all(|p| p.is_bent());
        // A residual that is held has nothing to trade.
        let told = || residual.is_some() || e.plan.coefficients_of(1).is_empty();
        let shared = e.is_normal(rows) && e.patterns.iter().any(|p| !p.pattern.is_loadings());
        let exact = one && shared && told();
        let uneven = residual.is_none() && shared;
        let linked = residual.is_some() && constraint.tied.is_empty();
        e.residual = residual.as_ref().map(|r| (r.at, r.unit));
        e.whole = exact || residual.is_some();
        let components = e.lmm().components.clone();
        Setting { rows, units, options, components, charts, constraint, residual, exact, uneven, linked }
    }

    /// The first point: random effects that leave the support or overflow are made smaller.
    pub(super) fn begin(&self, e: &mut Engine, from: &First<'_>) -> Result<Point, CoreError> {
        let mut shape = from.shape.to_vec();
        self.constraint.impose(&mut shape);
        shape = patterns::step(&e.patterns, &shape, &vec![0.0; shape.len()], &self.charts, false);
        let mut lambda = clip_all(e.moments(), self.units, from.lambda, false).0;
        patterns::put(e.moments(), &e.patterns, &shape, &mut lambda)?;
        let zero = vec![0.0; e.size()];
        e.tolerance = LOOSE;
        let mut begun = e.evaluate(self.rows, from.beta, &lambda, &shape, &zero);
        for _ in 0..3 {
            if begun.is_err() {
                lambda.iter_mut().flatten().for_each(|l| *l *= SMALLER);
                lambda = clip_all(e.moments(), self.units, &lambda, false).0;
                shape = patterns::shrunk(&e.patterns, &shape, &self.charts, SMALLER);
                self.constraint.impose(&mut shape);
                patterns::put(e.moments(), &e.patterns, &shape, &mut lambda)?;
                begun = e.evaluate(self.rows, from.beta, &lambda, &shape, &zero);
            }
        }
        begun
    }

    /// Evaluate at a point where the search was.
    pub(super) fn again(&self, e: &mut Engine, at: &Point) -> Result<Point, CoreError> {
        e.tolerance = INNER_TOLERANCE;
        e.evaluate(self.rows, &at.beta, &at.lambda, &at.shape, &at.u)
    }
}

/// A point of the search and what is known there, in the coordinates of the search.
pub(super) struct Here {
    pub(super) point: Point,
    pub(super) slope: Slope,
    pub(super) working: linear::Slope,
    pub(super) turned: Vec<f64>,
    /// Parameters of structures that are held at an end of their range.
    pub(super) held: Vec<bool>,
    /// Directions at rest, and components among them.
    pub(super) rest: Vec<bool>,
    pub(super) fixed: Vec<bool>,
    /// The observed curvature is the exact one: that of all points, or of coefficients beside effects that are none.
    pub(super) exact: bool,
    /// Rounding error of the deviance, and the part of it that is lost in differences.
    pub(super) noise: f64,
    pub(super) cancelled: f64,
    pub(super) mark: Mark,
}

impl Here {
    pub(super) fn of(e: &mut Engine, set: &Setting<'_, '_>, point: Point) -> Self {
        let Setting { rows, units, components, charts, constraint, .. } = set;
        let (free, c) = (point.shape.len(), components.len());
        let mut slope = bent(e.slope(rows, &point), charts, &point.shape);
        if set.linked {
            slope = patterns::linked(slope, &e.patterns, charts, &point.shape);
        }
        let slope = charted(slope, &patterns::stretches(charts, &point.shape));
        let working = working_slope(&slope, 0);
        let fixed = at_floor(e.moments(), units, components, &point.lambda, &working_slope(&slope, free));
        let held = patterns::held(&e.patterns, &point.shape, charts, &constraint.pooled(&slope.gradient[..free]));
        let still = (0..free).map(|i| held[i] || constraint.holds(i));
        let rest: Vec<bool> = still.chain(fixed.iter().copied()).collect();
        let none = fixed.len() == rest.len() && rest.iter().all(|r| *r);
        let exact = set.exact || (none && e.latent.is_empty() && !e.jeffreys);
        let turned = padded(&turning(e.moments(), components, &slope.n, &fixed), free, c);
        let cancelled = e.cancelled(&point.lambda);
        let noise = ROUNDING * (point.deviance.abs() + rows.n as f64) + cancelled;
        let mark = Mark::new(e, &point, &slope, charts);
        Here { point, slope, working, turned, held, rest, fixed, exact, noise, cancelled, mark }
    }
}
