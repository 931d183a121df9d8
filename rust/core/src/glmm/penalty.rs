//! Priors on the parameters of a model, as a penalty of -2 log p on its deviance, in the user's units.
//!
//! A prior is of coefficients, of standard deviations (or their powers), or of a covariance or correlation matrix; `over`
//! makes it one of the value relative to the residual standard deviation (blme's common scale). No Jacobian is added: the
//! mode is that of the density as the user stated it.

use crate::dense;
use crate::jet::{pair, Jet, Scalar};
use crate::prior::{Of, Prior};
use crate::CoreError;

use super::laplace::dot;
use super::patterns::Patterned;

type Two = Jet<2, 3, 0>;

/// What a prior is of. Positions are those of the user's coefficients, or of the pattern parameters.
#[derive(Clone, Debug)]
pub enum Target {
    Coefficients(Vec<usize>),
    /// exp(power x coefficient).
    LogCoefficient(usize, f64),
    /// exp(power x parameter).
    LogParameter(usize, f64),
    /// Sigma or the correlations of a patterned term.
    Term(usize),
}

/// log of what the value is divided by.
#[derive(Clone, Copy, Debug)]
pub enum Over {
    Constant(f64),
    Coefficient(usize),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub prior: Prior,
    pub target: Target,
    pub over: Over,
}

/// -2 log p and its derivatives in (coefficients, pattern parameters); second ones without those that mix the two.
pub struct Penalty {
    pub value: f64,
    pub beta: Vec<f64>,
    pub shape: Vec<f64>,
    pub beta_curvature: Vec<f64>,
    pub shape_curvature: Vec<f64>,
}

/// Where a number of a jet belongs.
#[derive(Clone, Copy)]
enum Place {
    Beta(usize),
    Shape(usize),
    Nowhere,
}

impl Penalty {
    fn zero(p: usize, m: usize) -> Self {
        Penalty {
            value: 0.0,
            beta: vec![0.0; p],
            shape: vec![0.0; m],
            beta_curvature: vec![0.0; p * p],
            shape_curvature: vec![0.0; m * m],
        }
    }

    /// At coefficients (NaN: dropped) and pattern parameters.
    pub fn at(items: &[Item], beta: &[f64], shape: &[f64], patterns: &[Patterned]) -> Result<Self, CoreError> {
        let mut out = Penalty::zero(beta.len(), shape.len());
        for item in items {
            match &item.target {
                Target::Coefficients(list) if item.prior.of == Of::Vector => out.vector(item, list, beta),
                Target::Coefficients(list) => {
                    list.iter().filter(|j| !beta[**j].is_nan()).for_each(|&j| {
                        out.scalar(item, beta, Place::Beta(j), beta[j], |x, s| x * (-s).exp());
                    });
                }
                Target::LogCoefficient(j, power) => {
                    out.scalar(item, beta, Place::Beta(*j), beta[*j], |x, s| ((x - s) * *power).exp());
                }
                Target::LogParameter(j, power) => {
                    out.scalar(item, beta, Place::Shape(*j), shape[*j], |x, s| ((x - s) * *power).exp());
                }
                Target::Term(term) => {
                    if let Some(p) = patterns.iter().find(|p| p.term == *term) {
                        out.matrix(item, beta, shape, p)?;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Second derivatives of -2 log p in (coefficients, pattern parameters), all of them.
    pub fn second(items: &[Item], beta: &[f64], shape: &[f64], patterns: &[Patterned]) -> Result<Vec<f64>, CoreError> {
        let p = beta.len();
        let mut out = Hessian { n: p + shape.len(), values: vec![0.0; (p + shape.len()).pow(2)] };
        for item in items {
            let over = match item.over {
                Over::Constant(s) => (s, None),
                Over::Coefficient(j) => (beta[j], Some(j)),
            };
            match &item.target {
                Target::Coefficients(list) if item.prior.of == Of::Vector => out.vector(item, list, beta, over),
                Target::Coefficients(list) => list.iter().filter(|j| !beta[**j].is_nan()).for_each(|&j| {
                    out.scalar(item, (j, beta[j]), over, |x, s| x * (-s).exp());
                }),
                Target::LogCoefficient(j, power) => {
                    out.scalar(item, (*j, beta[*j]), over, |x, s| ((x - s) * *power).exp());
                }
                Target::LogParameter(j, power) => {
                    out.scalar(item, (p + *j, shape[*j]), over, |x, s| ((x - s) * *power).exp());
                }
                Target::Term(term) => {
                    if let Some(own) = patterns.iter().find(|p| p.term == *term) {
                        out.matrix(item, own, (p, shape), over)?;
                    }
                }
            }
        }
        Ok(out.values)
    }

    /// Add a prior of f(x, log scale).
    fn scalar(&mut self, item: &Item, beta: &[f64], place: Place, x: f64, f: impl Fn(Two, Two) -> Two) {
        let (s, second) = match item.over {
            Over::Constant(s) => (Two::constant(s), Place::Nowhere),
            Over::Coefficient(j) => (Two::variable(beta[j], 1), Place::Beta(j)),
        };
        let value = item.prior.scalar(f(Two::variable(x, 0), s)) * -2.0;
        self.value += value.v;
        let places = [place, second];
        for (a, at) in places.iter().enumerate() {
            self.add_slope(*at, value.g[a]);
            for (b, and) in places.iter().enumerate() {
                self.add_curvature(*at, *and, value.h[pair(2, a, b)]);
            }
        }
    }

    fn add_slope(&mut self, at: Place, v: f64) {
        match at {
            Place::Beta(j) => self.beta[j] += v,
            Place::Shape(j) => self.shape[j] += v,
            Place::Nowhere => {}
        }
    }

    fn add_curvature(&mut self, a: Place, b: Place, v: f64) {
        match (a, b) {
            (Place::Beta(i), Place::Beta(j)) => self.beta_curvature[i + j * self.beta.len()] += v,
            (Place::Shape(i), Place::Shape(j)) => self.shape_curvature[i + j * self.shape.len()] += v,
            _ => {}
        }
    }

    fn vector(&mut self, item: &Item, list: &[usize], beta: &[f64]) {
        let scale = match item.over {
            Over::Constant(s) => s.exp(),
            Over::Coefficient(j) => beta[j].exp(),
        };
        let x: Vec<f64> = list.iter().map(|&j| beta[j] / scale).collect();
        let (value, gradient, curvature) = item.prior.vector(&x);
        self.value -= 2.0 * value;
        for (i, &j) in list.iter().enumerate() {
            self.beta[j] -= 2.0 * gradient[i] / scale;
            self.beta_curvature[j * (beta.len() + 1)] += 2.0 * curvature[i] / (scale * scale);
        }
        if let Over::Coefficient(j) = item.over {
            self.beta[j] += 2.0 * dot(&gradient, &x);
        }
    }

    /// A prior of correlations says nothing of standard deviations, which may be zero.
    fn correlations(&mut self, item: &Item, theta: &[f64], p: &Patterned) -> Result<(), CoreError> {
        let (k, d) = (p.pattern.k, p.pattern.deviations());
        let mut unit = theta.to_vec();
        unit[..d].fill(0.0);
        let (value, slope) = item.prior.matrix(&p.pattern.sigma(&unit), k)?;
        self.value -= 2.0 * value;
        let (first, second) = p.pattern.derivatives(&unit, true);
        // d log|R| = tr(R^-1 dR); the slope is (eta - 1) (R^-1 - I), and dR has no diagonal.
        let weight = item.prior.parameters[0] - 1.0;
        let inverse: Vec<f64> =
            slope.iter().enumerate().map(|(t, v)| v + weight * f64::from(t % (k + 1) == 0)).collect();
        let m = self.shape.len();
        let mut second = second.iter();
        for i in d..theta.len() {
            self.shape[p.first + i] -= 2.0 * dot(&slope, &first[i]);
            let mut half = vec![0.0; k * k];
            dense::gemm(&mut half, k, &inverse, k, &first[i], k, k, k, k, 1.0);
            for j in d..=i {
                // tr((eta - 1) R^-1 R_i R^-1 R_j), R^-1 being `inverse` / (eta - 1).
                let mut other = vec![0.0; k * k];
                dense::gemm_nt(&mut other, k, &first[j], k, &inverse, k, k, k, k, 1.0);
                let trace = if weight == 0.0 { 0.0 } else { dot(&half, &other) / weight };
                let v = -2.0 * (second.next().map_or(0.0, |s| dot(&slope, s)) - trace);
                self.shape_curvature[p.first + i + (p.first + j) * m] += v;
                if i != j {
                    self.shape_curvature[p.first + j + (p.first + i) * m] += v;
                }
            }
        }
        Ok(())
    }

    fn matrix(&mut self, item: &Item, beta: &[f64], shape: &[f64], p: &Patterned) -> Result<(), CoreError> {
        let theta = &shape[p.first..p.first + p.pattern.parameters()];
        if item.prior.of == Of::Correlation && p.pattern.deviations() > 0 {
            return self.correlations(item, theta, p);
        }
        let log = match item.over {
            Over::Constant(s) => s,
            Over::Coefficient(j) => beta[j],
        };
        let ratio = (-2.0 * log).exp();
        let sigma: Vec<f64> = p.pattern.sigma(theta).iter().map(|v| v * ratio).collect();
        let (value, slope) = item.prior.matrix(&sigma, p.pattern.k)?;
        self.value -= 2.0 * value;
        for j in 0..theta.len() {
            self.shape[p.first + j] -= 2.0 * ratio * dot(&slope, &p.pattern.derivative(theta, j));
        }
        if let Over::Coefficient(j) = item.over {
            self.beta[j] += 4.0 * dot(&slope, &sigma);
        }
        Ok(())
    }
}

/// Second derivatives of a penalty; the logarithm of a scale may be a coefficient of its own.
struct Hessian {
    n: usize,
    values: Vec<f64>,
}

impl Hessian {
    /// Add at (a, b), and at (b, a) where that is another place.
    fn add(&mut self, a: usize, b: usize, v: f64) {
        self.values[a + b * self.n] += v;
        if a != b {
            self.values[b + a * self.n] += v;
        }
    }

    fn scalar(
        &mut self,
        item: &Item,
        (at, x): (usize, f64),
        (log, scale): (f64, Option<usize>),
        f: impl Fn(Two, Two) -> Two,
    ) {
        let s = if scale.is_some() { Two::variable(log, 1) } else { Two::constant(log) };
        let value = item.prior.scalar(f(Two::variable(x, 0), s)) * -2.0;
        self.add(at, at, value.h[0]);
        if let Some(j) = scale {
            // Where a coefficient is its own scale, the mixed derivative counts on both sides of the diagonal.
            self.add(at, j, if at == j { 2.0 * value.h[1] } else { value.h[1] });
            self.add(j, j, value.h[2]);
        }
    }

    fn vector(&mut self, item: &Item, list: &[usize], beta: &[f64], (log, scale): (f64, Option<usize>)) {
        let unit = (-log).exp();
        let x: Vec<f64> = list.iter().map(|&j| beta[j] * unit).collect();
        let (gradient, second, d) = (item.prior.vector(&x).1, item.prior.vector_second(&x), x.len());
        for b in 0..d {
            (0..=b).for_each(|a| self.add(list[a], list[b], -2.0 * unit * unit * second[a + b * d]));
        }
        let Some(j) = scale else { return };
        let moved: Vec<f64> = second.chunks_exact(d.max(1)).map(|column| dot(column, &x)).collect();
        for (i, &at) in list.iter().enumerate() {
            self.add(at, j, 2.0 * unit * (gradient[i] + moved[i]));
        }
        self.add(j, j, -2.0 * (dot(&moved, &x) + dot(&gradient, &x)));
    }

    fn matrix(
        &mut self,
        item: &Item,
        own: &Patterned,
        (p, shape): (usize, &[f64]),
        (log, scale): (f64, Option<usize>),
    ) -> Result<(), CoreError> {
        let (k, d) = (own.pattern.k, own.pattern.deviations());
        let mut theta = own.theta(shape).to_vec();
        // A prior of correlations says nothing of standard deviations.
        let correlations = item.prior.of == Of::Correlation && d > 0;
        let (from, ratio) = if correlations { (d, 1.0) } else { (0, (-2.0 * log).exp()) };
        theta[..from].fill(0.0);
        let sigma: Vec<f64> = own.pattern.sigma(&theta).iter().map(|v| v * ratio).collect();
        let slope = item.prior.matrix(&sigma, k)?.1;
        let (first, second) = own.pattern.derivatives(&theta, correlations);
        let mut second = second.iter();
        let at = |i: usize| p + own.first + i;
        for i in from..theta.len() {
            let turned = item.prior.matrix_change(&sigma, k, &first[i])?;
            for j in from..=i {
                let bent = second.next().map_or(0.0, |s| dot(&slope, s));
                self.add(at(i), at(j), -2.0 * ratio * (bent + ratio * dot(&turned, &first[j])));
            }
        }
        let Some(b) = scale.filter(|_| !correlations) else { return Ok(()) };
        let turned = item.prior.matrix_change(&sigma, k, &sigma)?;
        for (i, first) in first.iter().enumerate() {
            self.add(at(i), b, 4.0 * ratio * (dot(&slope, first) + dot(&turned, first)));
        }
        self.add(b, b, -8.0 * (dot(&slope, &sigma) + dot(&turned, &sigma)));
        Ok(())
    }
}
