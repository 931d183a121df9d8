//! The least deviance at a held value: quasi-Newton steps (Broyden, Fletcher, Goldfarb & Shanno) on an exact gradient,
//! with the inverse curvature of the neighbouring point to begin with.

use crate::dense;
use crate::linear::dot;
use crate::CoreError;

/// Steps of one search, and halvings of one step.
const STEPS: usize = 150;
const HALVINGS: usize = 40;
/// Share of the promised decrease that a step must gain.
const ENOUGH: f64 = 1e-4;

/// Deviance, its gradient in the free coordinates, and along the held value.
pub struct Value {
    pub deviance: f64,
    pub gradient: Vec<f64>,
    pub along: f64,
}

pub struct Found {
    pub y: Vec<f64>,
    pub value: Value,
    /// Decrease of the deviance that one more step promises.
    pub decrease: f64,
    pub converged: bool,
}

/// Inverse of a Hessian, made positive definite in units of its own diagonal.
pub fn inverse(h: &[f64], n: usize) -> Vec<f64> {
    let largest = (0..n).map(|i| h[i + i * n].abs()).fold(0.0, f64::max).max(1e-300);
    let unit: Vec<f64> = (0..n).map(|i| h[i + i * n].abs().max(1e-12 * largest).sqrt()).collect();
    let scaled: Vec<f64> = (0..n * n).map(|t| h[t] / (unit[t % n] * unit[t / n])).collect();
    let (w, v) = dense::eigen_symmetric(&scaled, n);
    let mut out = vec![0.0; n * n];
    for (t, w) in w.iter().enumerate() {
        // Flat directions (the length of a direction, a parameter at its boundary) get a cautious curvature.
        let w = if *w > 1e-9 { *w } else { w.abs().max(1e-2) };
        for j in 0..n {
            for i in 0..n {
                out[i + j * n] += v[i + t * n] * v[j + t * n] / (w * unit[i] * unit[j]);
            }
        }
    }
    out
}

/// Minimise from `y`; `b`, an inverse curvature, is brought up to date.
pub fn minimise(
    f: &mut dyn FnMut(&[f64]) -> Result<Value, CoreError>,
    y: Vec<f64>,
    b: &mut Vec<f64>,
    tolerance: f64,
    noise: f64,
) -> Result<Found, CoreError> {
    let n = y.len();
    let first = b.clone();
    let mut at = Found { value: f(&y)?, y, decrease: 0.0, converged: false };
    let mut fresh = false;
    for _ in 0..STEPS {
        let mut step = times(b, &at.value.gradient, -1.0);
        let mut slope = dot(&step, &at.value.gradient);
        if !(slope <= 0.0) {
            b.clone_from(&first);
            step = times(b, &at.value.gradient, -1.0);
            slope = dot(&step, &at.value.gradient);
        }
        at.decrease = -0.5 * slope;
        if at.decrease <= tolerance {
            at.converged = true;
            return Ok(at);
        }
        match line(f, &at, &step, slope, noise)? {
            Some((y, value)) => {
                update(b, &at, &y, &value, n);
                at.y = y;
                at.value = value;
                fresh = false;
            }
            None if fresh => break,
            None => {
                b.clone_from(&first);
                fresh = true;
            }
        }
    }
    // Where rounding ends the search before the tolerance does, the promise says how good the point is.
    at.converged = at.decrease <= (1e4 * tolerance).max(10.0 * noise);
    Ok(at)
}

/// A point along the step that gains enough; None if there is none.
fn line(
    f: &mut dyn FnMut(&[f64]) -> Result<Value, CoreError>,
    at: &Found,
    step: &[f64],
    slope: f64,
    noise: f64,
) -> Result<Option<(Vec<f64>, Value)>, CoreError> {
    let mut t = 1.0;
    for _ in 0..HALVINGS {
        let trial: Vec<f64> = at.y.iter().zip(step).map(|(y, s)| y + t * s).collect();
        match f(&trial) {
            Err(CoreError::Interrupted) => return Err(CoreError::Interrupted),
            Ok(v) if v.deviance <= at.value.deviance + ENOUGH * t * slope + noise => return Ok(Some((trial, v))),
            Ok(v) => {
                let rise = v.deviance - at.value.deviance - t * slope;
                t *= if rise > 0.0 { (-0.5 * t * slope / rise).clamp(0.1, 0.5) } else { 0.5 };
            }
            Err(_) => t *= 0.25,
        }
    }
    Ok(None)
}

fn times(b: &[f64], g: &[f64], scale: f64) -> Vec<f64> {
    let n = g.len();
    (0..n).map(|i| scale * (0..n).map(|j| b[i + j * n] * g[j]).sum::<f64>()).collect()
}

/// B <- (I - s y'/y's) B (I - y s'/y's) + s s'/y's.
fn update(b: &mut [f64], at: &Found, y: &[f64], value: &Value, n: usize) {
    let s: Vec<f64> = y.iter().zip(&at.y).map(|(a, b)| a - b).collect();
    let d: Vec<f64> = value.gradient.iter().zip(&at.value.gradient).map(|(a, b)| a - b).collect();
    let sd = dot(&s, &d);
    if !(sd > 1e-10 * (dot(&s, &s) * dot(&d, &d)).sqrt()) {
        return;
    }
    let bd = times(b, &d, 1.0);
    let c = (1.0 + dot(&d, &bd) / sd) / sd;
    for j in 0..n {
        for i in 0..n {
            b[i + j * n] += c * s[i] * s[j] - (bd[i] * s[j] + s[i] * bd[j]) / sd;
        }
    }
}
