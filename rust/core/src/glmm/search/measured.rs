//! Curvature measured by differences of the gradient.

use super::*;

/// A measured Hessian, kept for some iterations: it costs an evaluation a parameter, secants bring it up to date.
pub(super) struct Measured {
    pub(super) hessian: Vec<f64>,
    pub(super) lambda: Vec<Vec<f64>>,
    pub(super) rest: Vec<bool>,
    pub(super) age: usize,
}

impl Measured {
    pub(super) fn new(hessian: Vec<f64>, lambda: &[Vec<f64>], rest: &[bool]) -> Self {
        Measured { hessian, lambda: lambda.to_vec(), rest: rest.to_vec(), age: 0 }
    }

    /// In the coordinates of another Lambda; none where it is too old, a parameter came to rest or left, or the free
    /// components are more than variances: Sigma* = Sigma / Lambda^2.
    pub(super) fn carried(
        mut self,
        e: &Engine,
        components: &[Component],
        lambda: &[Vec<f64>],
        rest: &[bool],
    ) -> Option<Self> {
        let single = components.iter().all(|c| e.moments().factors[c.factor].cols == 1);
        if !single || self.age >= KEPT || self.rest != rest {
            return None;
        }
        let n = rest.len() + e.plan.p();
        for (i, c) in components.iter().enumerate() {
            let (at, ratio) = (n - components.len() + i, (lambda[c.factor][0] / self.lambda[c.factor][0]).powi(2));
            for t in 0..n {
                self.hessian[at + t * n] *= ratio;
                self.hessian[t + at * n] *= ratio;
            }
        }
        self.lambda = lambda.to_vec();
        self.age += 1;
        self.hessian.iter().all(|v| v.is_finite()).then_some(self)
    }
}

/// Hessian of the deviance in (beta, directions) from differences of its exact gradient: for the few models (mixtures with
/// random effects in several parameters) whose curvature the working linear model does not resemble.
pub(super) fn measure(e: &mut Engine, set: &Setting<'_, '_>, here: &Here) -> Option<Vec<f64>> {
    let (Setting { rows, components, charts, .. }, Here { point, mark, slope, fixed, turned, .. }) = (set, here);
    let (p, free, c) = (point.beta.len(), point.shape.len(), components.len());
    let n = p + free + c;
    let mut h = vec![0.0; n * n];
    e.tolerance = 0.1 * INNER_TOLERANCE;
    for j in 0..n {
        let own = if j < p { slope.beta_curvature[j + j * p] } else { slope.average[(j - p) * (free + c + 1)] };
        if e.latent.contains(&j) || (j >= p + free && fixed[j - p - free]) {
            h[j + j * n] = own;
            continue;
        }
        let mut size = (1e-3 / own.abs().max(1e-12).sqrt()).min(if j < p { 0.1 } else { 1e-2 });
        let (mut beta, mut shape, mut d) = (point.beta.clone(), point.shape.clone(), vec![0.0; c]);
        match j {
            j if j < p => beta[j] += size,
            j if j < p + free => {
                let i = j - p;
                size = inwards(&charts[i], shape[i], size);
                shape[i] = charts[i].scale.parameter(charts[i].scale.value(shape[i]) + size);
            }
            j => {
                let (j, t) = (j - p - free, turned[(j - p) * (free + c + 1)]);
                // A zero direction turns far before anything changes; its variance grows with the square.
                let size = if t > 0.0 { 0.03 / (own + t).sqrt() } else { size };
                let own = |k: &Component| k.row == k.col && (k.row == components[j].row || k.row == components[j].col);
                let at = |k: &Component| k.factor == components[j].factor && own(k);
                d[j] = size;
                (0..c).filter(|&k| t > 0.0 && fixed[k] && at(&components[k])).for_each(|k| d[k] = size * size);
            }
        }
        let moved = if j < p + free { size } else { d[j - p - free] };
        let mut lambda = apply(e.moments(), components, &point.lambda, &d);
        patterns::put(e.moments(), &e.patterns, &shape, &mut lambda).ok()?;
        let at = e.evaluate(rows, &beta, &lambda, &shape, &point.u).ok()?;
        let there = charted(e.slope(rows, &at), &patterns::stretches(charts, &at.shape));
        let secant = Mark::new(e, &at, &there, charts).secant(mark);
        let (_, y) = secant.local(e, &point.lambda, components, fixed);
        (0..n).for_each(|i| h[i + j * n] = y[i] / moved);
    }
    for j in 0..n {
        for i in 0..j {
            let v = 0.5 * (h[i + j * n] + h[j + i * n]);
            h[i + j * n] = v;
            h[j + i * n] = v;
        }
    }
    h.iter().all(|v| v.is_finite()).then_some(h)
}
