//! Prior densities: the table, log densities with their derivatives.
//!
//! A scalar density is written once over `Scalar`, so its derivatives come from the same lines. Where a parameter makes a
//! density improper (a rate of 0, no scale matrix) its constant is left out.

use crate::dense;
use crate::error::shape;
use crate::jet::Scalar;
use crate::special::lgamma;
use crate::CoreError;

const LN_PI: f64 = 1.144_729_885_849_400_2;
const LN_2: f64 = std::f64::consts::LN_2;

/// What a prior is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Real,
    Positive,
    Vector,
    Covariance,
    Correlation,
}

impl Of {
    pub fn name(self) -> &'static str {
        match self {
            Of::Real => "real",
            Of::Positive => "positive",
            Of::Vector => "vector",
            Of::Covariance => "covariance",
            Of::Correlation => "correlation",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    StudentT,
    HalfNormal,
    HalfT,
    Gamma,
    InverseGamma,
    LogNormal,
    Exponential,
    MultivariateT,
    Wishart,
    InverseWishart,
    Lkj,
}

/// Name, kind, what it is of, names of the leading parameters.
pub const TABLE: [(&str, Kind, Of, &[&str]); 12] = [
    ("normal", Kind::Normal, Of::Real, &["mean", "sd"]),
    ("t", Kind::StudentT, Of::Real, &["df", "mean", "scale"]),
    ("half_normal", Kind::HalfNormal, Of::Positive, &["sd"]),
    ("half_t", Kind::HalfT, Of::Positive, &["df", "scale"]),
    ("gamma", Kind::Gamma, Of::Positive, &["shape", "rate"]),
    ("inverse_gamma", Kind::InverseGamma, Of::Positive, &["shape", "scale"]),
    ("lognormal", Kind::LogNormal, Of::Positive, &["mean", "sd"]),
    ("exponential", Kind::Exponential, Of::Positive, &["rate"]),
    ("multivariate_t", Kind::MultivariateT, Of::Vector, &["df"]),
    ("wishart", Kind::Wishart, Of::Covariance, &["df"]),
    ("inverse_wishart", Kind::InverseWishart, Of::Covariance, &["df"]),
    ("lkj", Kind::Lkj, Of::Correlation, &["eta"]),
];

/// A density with its parameters; after the named ones come the scales of a vector or the scale matrix (k x k).
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    pub kind: Kind,
    pub of: Of,
    pub parameters: Vec<f64>,
}

fn log_t_constant(df: f64, d: f64) -> f64 {
    lgamma(0.5 * (df + d)) - lgamma(0.5 * df) - 0.5 * d * (df.ln() + LN_PI)
}

/// log Gamma_k(a), the multivariate gamma function.
fn lgamma_multivariate(k: usize, a: f64) -> f64 {
    0.25 * (k * (k - 1)) as f64 * LN_PI + (0..k).map(|j| lgamma(a - 0.5 * j as f64)).sum::<f64>()
}

/// Constant of the LKJ density of k x k correlation matrices (Lewandowski, Kurowicka & Joe 2009, eq. 16).
fn lkj_constant(k: usize, eta: f64) -> f64 {
    (1..k)
        .map(|i| {
            let (left, b) = ((k - i) as f64, eta + 0.5 * (k - i - 1) as f64);
            left * ((2.0 * b - 1.0) * LN_2 + 2.0 * lgamma(b) - lgamma(2.0 * b))
        })
        .sum::<f64>()
}

impl Prior {
    pub fn new(name: &str, parameters: Vec<f64>) -> Result<Self, CoreError> {
        let Some((_, kind, of, names)) = TABLE.iter().find(|e| e.0 == name) else {
            return shape(format!("unknown prior '{name}'"));
        };
        let plain = matches!(of, Of::Real | Of::Positive | Of::Correlation);
        if parameters.len() < names.len() || (plain && parameters.len() != names.len()) {
            return shape(format!("prior '{name}' has {} parameters, it needs {}", parameters.len(), names.len()));
        }
        if parameters.iter().any(|p| !p.is_finite()) {
            return Err(CoreError::NotFinite(format!("a parameter of prior '{name}' is not finite")));
        }
        Ok(Prior { kind: *kind, of: *of, parameters })
    }

    /// Log density of one number.
    pub fn scalar<S: Scalar>(&self, x: S) -> S {
        let p = &self.parameters;
        let normal = |mean: f64, sd: f64| ((x - mean) * (1.0 / sd)).square() * -0.5 - (sd.ln() + 0.5 * (LN_2 + LN_PI));
        let t = |df: f64, mean: f64, scale: f64| {
            let q = ((x - mean) * (1.0 / (scale * df.sqrt()))).square();
            q.ln_1p() * (-0.5 * (df + 1.0)) + (log_t_constant(df, 1.0) - scale.ln())
        };
        match self.kind {
            Kind::Normal => normal(p[0], p[1]),
            Kind::StudentT => t(p[0], p[1], p[2]),
            Kind::HalfNormal => normal(0.0, p[0]) + LN_2,
            Kind::HalfT => t(p[0], 0.0, p[1]) + LN_2,
            Kind::Gamma => {
                let constant = if p[1] > 0.0 { p[0] * p[1].ln() - lgamma(p[0]) } else { 0.0 };
                x.ln() * (p[0] - 1.0) - x * p[1] + constant
            }
            Kind::InverseGamma => {
                let constant = if p[1] > 0.0 { p[0] * p[1].ln() - lgamma(p[0]) } else { 0.0 };
                x.ln() * -(p[0] + 1.0) - x.recip() * p[1] + constant
            }
            Kind::LogNormal => {
                let l = x.ln();
                ((l - p[0]) * (1.0 / p[1])).square() * -0.5 - l - (p[1].ln() + 0.5 * (LN_2 + LN_PI))
            }
            Kind::Exponential => x * -p[0] + p[0].ln(),
            _ => S::constant(f64::NAN),
        }
    }

    /// Log density of a vector: value, gradient, and the positive part of minus its second derivative (diagonal).
    pub fn vector(&self, x: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let (df, scales) = (self.parameters[0], &self.parameters[1..]);
        let d = x.len() as f64;
        let scale = |i: usize| scales[i.min(scales.len() - 1)];
        let q: f64 = x.iter().enumerate().map(|(i, x)| (x / scale(i)).powi(2)).sum();
        let w = (df + d) / (df + q);
        let logs: f64 = (0..x.len()).map(|i| scale(i).ln()).sum();
        let value = log_t_constant(df, d) - logs - 0.5 * (df + d) * (q / df).ln_1p();
        let gradient = x.iter().enumerate().map(|(i, x)| -w * x / scale(i).powi(2)).collect();
        (value, gradient, (0..x.len()).map(|i| w / scale(i).powi(2)).collect())
    }

    /// Second derivatives of the log density of a vector (d x d).
    pub fn vector_second(&self, x: &[f64]) -> Vec<f64> {
        let (df, scales) = (self.parameters[0], &self.parameters[1..]);
        let scaled: Vec<f64> = x.iter().enumerate().map(|(i, x)| x / scales[i.min(scales.len() - 1)].powi(2)).collect();
        let q: f64 = x.iter().zip(&scaled).map(|(x, s)| x * s).sum();
        let (d, w) = (x.len(), (df + x.len() as f64) / (df + q));
        let own = |i: usize| w / scales[i.min(scales.len() - 1)].powi(2);
        let bent = |i: usize, j: usize| 2.0 * w / (df + q) * scaled[i] * scaled[j];
        (0..d * d).map(|t| bent(t % d, t / d) - if t % (d + 1) == 0 { own(t / d) } else { 0.0 }).collect()
    }

    /// How the derivative that `matrix` gives moves with the matrix (`change`, symmetric).
    pub fn matrix_change(&self, sigma: &[f64], k: usize, change: &[f64]) -> Result<Vec<f64>, CoreError> {
        let inverse = inverse_of(sigma, k)?;
        let turned = product(&inverse, &product(change, &inverse, k), k);
        if self.kind == Kind::Lkj {
            let weight = self.parameters[0] - 1.0;
            let mut out: Vec<f64> = turned.iter().map(|v| -weight * v).collect();
            (0..k).for_each(|i| out[i * (k + 1)] += weight * change[i * (k + 1)] / sigma[i * (k + 1)].powi(2));
            return Ok(out);
        }
        let (df, kf, scale) = (self.parameters[0], k as f64, &self.parameters[1..]);
        if self.kind == Kind::Wishart {
            return Ok(turned.iter().map(|v| -0.5 * (df - kf - 1.0) * v).collect());
        }
        let mut out: Vec<f64> = turned.iter().map(|v| 0.5 * (df + kf + 1.0) * v).collect();
        if scale.len() == k * k {
            let half = product(&turned, &product(scale, &inverse, k), k);
            (0..k * k).for_each(|t| out[t] -= 0.5 * (half[t] + half[t / k + t % k * k]));
        }
        Ok(out)
    }

    /// Log density of a covariance (k x k; for `lkj` of its correlations) and its derivative in the matrix (symmetric).
    pub fn matrix(&self, sigma: &[f64], k: usize) -> Result<(f64, Vec<f64>), CoreError> {
        let inverse = inverse_of(sigma, k)?;
        let logdet = logdet_of(sigma, k)?;
        if self.kind == Kind::Lkj {
            let eta = self.parameters[0];
            let diagonal: f64 = (0..k).map(|i| sigma[i * (k + 1)].ln()).sum();
            let mut slope: Vec<f64> = inverse.iter().map(|v| (eta - 1.0) * v).collect();
            (0..k).for_each(|i| slope[i * (k + 1)] -= (eta - 1.0) / sigma[i * (k + 1)]);
            return Ok(((eta - 1.0) * (logdet - diagonal) - lkj_constant(k, eta), slope));
        }
        let (df, kf, scale) = (self.parameters[0], k as f64, &self.parameters[1..]);
        let proper = scale.len() == k * k;
        let constant = if proper {
            let sign = if self.kind == Kind::Wishart { -0.5 } else { 0.5 };
            sign * df * logdet_of(scale, k)? - 0.5 * df * kf * LN_2 - lgamma_multivariate(k, 0.5 * df)
        } else {
            0.0
        };
        let zero = vec![0.0; k * k];
        if self.kind == Kind::Wishart {
            let weight = 0.5 * (df - kf - 1.0);
            let precision = if proper { inverse_of(scale, k)? } else { zero };
            let trace: f64 = (0..k * k).map(|t| precision[t] * sigma[t]).sum();
            let slope = (0..k * k).map(|t| weight * inverse[t] - 0.5 * precision[t]).collect();
            return Ok((weight * logdet - 0.5 * trace + constant, slope));
        }
        let weight = -0.5 * (df + kf + 1.0);
        let scale = if proper { scale.to_vec() } else { zero };
        let trace: f64 = (0..k * k).map(|t| scale[t] * inverse[t]).sum();
        let half = product(&inverse, &product(&scale, &inverse, k), k);
        let slope = (0..k * k).map(|t| weight * inverse[t] + 0.5 * half[t]).collect();
        Ok((weight * logdet - 0.5 * trace + constant, slope))
    }
}

fn product(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let mut out = vec![0.0; k * k];
    dense::gemm(&mut out, k, a, k, b, k, k, k, k, 1.0);
    out
}

fn root_of(a: &[f64], k: usize) -> Result<Vec<f64>, CoreError> {
    let mut l = a.to_vec();
    dense::cholesky(&mut l, k, k)?;
    Ok(l)
}

fn logdet_of(a: &[f64], k: usize) -> Result<f64, CoreError> {
    let l = root_of(a, k)?;
    Ok(2.0 * (0..k).map(|j| l[j * (k + 1)].ln()).sum::<f64>())
}

fn inverse_of(a: &[f64], k: usize) -> Result<Vec<f64>, CoreError> {
    Ok(dense::inverse_from_cholesky(&root_of(a, k)?, k, k))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars() -> Vec<Prior> {
        let of = |name: &str, p: &[f64]| Prior::new(name, p.to_vec()).unwrap();
        vec![
            of("normal", &[0.3, 1.2]),
            of("t", &[3.0, 0.1, 0.8]),
            of("half_normal", &[1.5]),
            of("half_t", &[4.0, 0.7]),
            of("gamma", &[2.5, 1.3]),
            of("inverse_gamma", &[3.0, 2.0]),
            of("lognormal", &[0.2, 0.5]),
            of("exponential", &[1.7]),
        ]
    }

    #[test]
    fn scalar_densities_integrate_to_one() {
        for p in scalars() {
            // x = sinh(s) (real) or exp(s) (positive): the trapezoid rule converges geometrically.
            let h = 0.01;
            let sum: f64 = (-4000..=4000)
                .map(|i| {
                    let s = i as f64 * h;
                    let (x, dx) = if p.of == Of::Real { (s.sinh(), s.cosh()) } else { (s.exp(), s.exp()) };
                    let v = (p.scalar(x) + dx.ln()).exp();
                    if v.is_finite() {
                        v * h
                    } else {
                        0.0
                    }
                })
                .sum();
            assert!((sum - 1.0).abs() < 1e-9, "{:?}: {sum}", p.kind);
        }
    }

    #[test]
    fn matrix_derivatives_agree_with_differences() {
        let sigma = [1.3, 0.4, -0.2, 0.4, 0.9, 0.1, -0.2, 0.1, 1.7];
        let scale = [2.0, 0.3, 0.1, 0.3, 1.0, 0.2, 0.1, 0.2, 1.5];
        let with = |df: f64| std::iter::once(df).chain(scale).collect::<Vec<f64>>();
        let all = [("wishart", with(5.5)), ("inverse_wishart", with(4.2)), ("lkj", vec![2.5]), ("wishart", vec![5.5])];
        for (name, parameters) in all {
            let p = Prior::new(name, parameters).unwrap();
            let exact = p.matrix(&sigma, 3).unwrap().1;
            for j in 0..3 {
                for i in j..3 {
                    let at = |h: f64| {
                        let mut s = sigma;
                        s[i + 3 * j] += h;
                        if i != j {
                            s[j + 3 * i] += h;
                        }
                        p.matrix(&s, 3).unwrap().0
                    };
                    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let slope = exact[i + 3 * j] * if i == j { 1.0 } else { 2.0 };
                    assert!((numeric - slope).abs() < 1e-8 * (1.0 + slope.abs()), "{name} {i} {j}");
                }
            }
        }
    }

    #[test]
    fn second_derivatives_agree_with_differences() {
        let t = Prior::new("multivariate_t", vec![3.0, 0.8, 1.7]).unwrap();
        let (x, h) = ([0.4, -1.1], 1e-5);
        let second = t.vector_second(&x);
        for j in 0..2 {
            let at = |by: f64| {
                let mut x = x;
                x[j] += by;
                t.vector(&x).1
            };
            let (up, down) = (at(h), at(-h));
            // Differences of a function of size 1 with this step are good to about 1e-10.
            (0..2).for_each(|i| assert!((second[i + 2 * j] - (up[i] - down[i]) / (2.0 * h)).abs() < 1e-8));
        }
        let sigma = [1.3, 0.4, -0.2, 0.4, 0.9, 0.1, -0.2, 0.1, 1.7];
        let change = [0.3, -0.2, 0.1, -0.2, 0.5, 0.4, 0.1, 0.4, -0.6];
        let with: Vec<f64> = [5.5, 2.0, 0.3, 0.1, 0.3, 1.0, 0.2, 0.1, 0.2, 1.5].to_vec();
        for (name, parameters) in [("wishart", with.clone()), ("inverse_wishart", with), ("lkj", vec![2.5])] {
            let p = Prior::new(name, parameters).unwrap();
            let at = |by: f64| {
                let moved: Vec<f64> = sigma.iter().zip(change).map(|(s, c)| s + by * c).collect();
                p.matrix(&moved, 3).unwrap().1
            };
            let (up, down, exact) = (at(h), at(-h), p.matrix_change(&sigma, 3, &change).unwrap());
            (0..9).for_each(|t| assert!((exact[t] - (up[t] - down[t]) / (2.0 * h)).abs() < 1e-7, "{name} {t}"));
        }
    }

    #[test]
    fn one_dimensional_cases_are_the_scalar_ones() {
        // Wishart(df, s) of one variance is Gamma(df / 2, rate 1 / (2 s)), the inverse one InverseGamma(df / 2, s / 2).
        let (v, s, df) = (0.7, 1.9, 3.4);
        let w = Prior::new("wishart", vec![df, s]).unwrap().matrix(&[v], 1).unwrap().0;
        let g = Prior::new("gamma", vec![0.5 * df, 0.5 / s]).unwrap().scalar(v);
        assert!((w - g).abs() < 1e-12);
        let w = Prior::new("inverse_wishart", vec![df, s]).unwrap().matrix(&[v], 1).unwrap().0;
        let g = Prior::new("inverse_gamma", vec![0.5 * df, 0.5 * s]).unwrap().scalar(v);
        assert!((w - g).abs() < 1e-12);
        let t = Prior::new("multivariate_t", vec![3.0, 0.8]).unwrap().vector(&[0.4]).0;
        assert!((t - Prior::new("t", vec![3.0, 0.0, 0.8]).unwrap().scalar(0.4)).abs() < 1e-12);
        // LKJ(eta) of one correlation: (1 + r) / 2 is Beta(eta, eta); eta = 1 is uniform on (-1, 1).
        let flat = Prior::new("lkj", vec![1.0]).unwrap().matrix(&[1.0, 0.3, 0.3, 1.0], 2).unwrap().0;
        assert!((flat + LN_2).abs() < 1e-12);
    }
}
