//! Covariance structures of a random-effects term: Sigma(theta) of its k columns, with exact derivatives.
//!
//! A structure is written once, over `Scalar`: the derivative of Sigma comes from first-order arithmetic on the same
//! lines. Parameters are unconstrained (log standard deviations, maps of correlations to the real line) and have names
//! and natural values for the report. "us" and "diag" are not here: the optimiser holds them in the variance scale.

mod kinds;
mod limits;
mod near;
mod tree;

use crate::dense;
use crate::error::shape;
use crate::jet::{Jet, Scalar};
use crate::CoreError;

pub(crate) use kinds::autocorrelations;
pub use kinds::{Kind, Lag};
pub use limits::{Chart, Limit, Scale};
use tree::Tree;

type Dual = Jet<1, 1, 0>;
type Dual2 = Jet<2, 3, 0>;
type Dual3 = Jet<3, 6, 0>;

/// Share of the variance added to the diagonal of covariances that can be singular to rounding errors: far below
/// anything that data can see, far above the errors of a Cholesky factor.
const NUGGET: f64 = 1e-12;

/// A structure for k columns, with what is known about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    pub kind: Kind,
    pub k: usize,
    /// Distances between the columns (k x k) for the spatial and temporal kinds.
    pub distance: Vec<f64>,
    /// Known matrix (k x k) of `propto` and `equalto`.
    pub matrix: Vec<f64>,
    /// Rank of `rr`.
    pub rank: usize,
    /// Smoothness of `mat` where it is known.
    pub nu: Option<f64>,
    /// Which correlations of `unstructured` are coordinates of their own.
    tree: Tree,
    /// Where the correlations of Toeplitz structures come from; all from their parameters where nothing is said.
    lags: Vec<Lag>,
}

/// A parameter in the units a reader expects.
#[derive(Clone, Debug, PartialEq)]
pub struct Natural {
    pub name: &'static str,
    /// Column it belongs to, if it is one of several.
    pub index: Option<usize>,
    pub value: f64,
}

impl Pattern {
    /// `coordinates` are k points (rows of equal length), `matrix` k x k.
    pub fn new(name: &str, k: usize, coordinates: &[Vec<f64>], matrix: Vec<f64>) -> Result<Self, CoreError> {
        let kind = Kind::parse(name)?;
        if k == 0 {
            return shape(format!("structure '{name}' needs at least one column"));
        }
        let mut out = Pattern { matrix, ..Pattern::bare(kind, k) };
        if kind.needs_distance() {
            if coordinates.len() != k || coordinates.iter().any(|c| c.len() != coordinates[0].len() || c.is_empty()) {
                return shape(format!("structure '{name}' needs a point for each of its {k} columns"));
            }
            out.distance = distances(coordinates);
            if out.distance.iter().any(|d| !d.is_finite()) {
                return Err(CoreError::NotFinite(format!("structure '{name}': a coordinate is not finite")));
            }
        }
        if kind.needs_matrix() {
            if out.matrix.len() != k * k || out.matrix.iter().any(|v| !v.is_finite()) {
                return shape(format!("structure '{name}' needs a finite {k} x {k} matrix"));
            }
            let mut l = out.matrix.clone();
            if dense::cholesky(&mut l, k, k).is_err() {
                return Err(CoreError::NotPositiveDefinite(format!(
                    "the matrix of structure '{name}' is not positive definite"
                )));
            }
        }
        Ok(out)
    }

    fn bare(kind: Kind, k: usize) -> Self {
        Pattern {
            kind,
            k,
            distance: vec![],
            matrix: vec![],
            rank: k.min(2),
            nu: None,
            tree: Tree::star(k),
            lags: vec![],
        }
    }

    /// The same with another rank (of `rr`; 2 if nothing is said).
    pub fn with_rank(mut self, rank: usize) -> Result<Self, CoreError> {
        if rank == 0 || rank > self.k {
            return shape(format!("rank {rank} of {} columns", self.k));
        }
        self.rank = rank;
        Ok(self)
    }

    /// The same with a known smoothness (of `mat`).
    pub fn with_nu(mut self, nu: f64) -> Result<Self, CoreError> {
        if !(nu > 0.0 && nu.is_finite()) {
            return shape(format!("smoothness {nu} is not positive"));
        }
        self.nu = Some(nu);
        Ok(self)
    }

    /// Let these parameters of an `unstructured` covariance, as far as they are correlations, be coordinates of their
    /// own; where they form a circle, those with the first column are.
    pub fn free(&mut self, parameters: &[usize]) {
        let all: Vec<_> = kinds::pairs(self.k).collect();
        let d = self.deviations();
        let own: Vec<_> = parameters.iter().filter_map(|j| all.get(j.checked_sub(d)?).copied()).collect();
        self.tree = Tree::through(self.k, &own).unwrap_or_else(|| Tree::star(self.k));
    }

    /// Say where the correlations of a Toeplitz structure come from: parameters (beyond the first lag) and their source.
    pub fn give(&mut self, lags: &[(usize, Lag)]) {
        let d = self.deviations();
        self.lags = vec![Lag::Partial; self.parameters() - d];
        lags.iter().for_each(|&(j, lag)| self.lags[j - d] = lag);
    }

    /// Whether a correlation of it comes from elsewhere than its parameter.
    pub fn is_given(&self) -> bool {
        self.lags.iter().any(|&lag| lag != Lag::Partial)
    }

    /// The lag that a parameter is the correlation of, from 0, if it is one of a Toeplitz structure.
    pub fn lag(&self, j: usize) -> Option<usize> {
        matches!(self.kind, Kind::Toeplitz | Kind::HomogeneousToeplitz).then(|| j.checked_sub(self.deviations()))?
    }

    /// Names of the parameters of a structure of k columns; the values mean nothing.
    pub fn names(name: &str, k: usize) -> Result<Vec<Natural>, CoreError> {
        let kind = Kind::parse(name)?;
        let bare = Pattern::bare(kind, k);
        Ok(bare.report(&vec![0.0; bare.parameters()]))
    }

    pub fn parameters(&self) -> usize {
        self.kind.parameters(self)
    }

    /// Whether the parameters are the entries of Lambda, lower trapezoidal of rank `rank`: Sigma is singular.
    pub fn is_loadings(&self) -> bool {
        self.kind.is_loadings()
    }

    /// (row, column) of every parameter of such a Lambda.
    pub fn loadings(&self) -> Vec<(usize, usize)> {
        kinds::loadings(self.k, self.rank).collect()
    }

    /// How many of the leading parameters are log standard deviations.
    pub fn deviations(&self) -> usize {
        self.kind.deviations(self.k)
    }

    pub fn sigma(&self, theta: &[f64]) -> Vec<f64> {
        self.kind.sigma(self, theta)
    }

    /// Correlations of the columns (k x k).
    pub fn correlations(&self, theta: &[f64]) -> Vec<f64> {
        let (k, sigma) = (self.k, self.sigma(theta));
        let sd: Vec<f64> = (0..k).map(|i| sigma[i * (k + 1)].sqrt()).collect();
        (0..k * k).map(|t| if t % (k + 1) == 0 { 1.0 } else { sigma[t] / (sd[t % k] * sd[t / k]) }).collect()
    }

    /// Lower triangular Lambda (k x k) with Sigma = Lambda Lambda'; columns beyond the rank are zero.
    pub fn factor(&self, theta: &[f64]) -> Result<Vec<f64>, CoreError> {
        let k = self.k;
        if self.is_loadings() {
            let mut l = vec![0.0; k * k];
            self.loadings().iter().zip(theta).for_each(|(&(i, j), t)| l[i + j * k] = *t);
            return if theta.iter().all(|t| t.is_finite()) {
                Ok(l)
            } else {
                Err(CoreError::NotFinite("a loading is not finite".into()))
            };
        }
        let mut l = self.sigma(theta);
        if l.iter().any(|v| !v.is_finite()) {
            return Err(CoreError::NotFinite("a covariance is not finite".into()));
        }
        if self.kind.nearly_singular() {
            (0..k).for_each(|i| l[i * (k + 1)] *= 1.0 + NUGGET);
        }
        dense::cholesky(&mut l, k, k)?;
        for c in 1..k {
            l[c * k..c * k + c].fill(0.0);
        }
        Ok(l)
    }

    /// d Sigma / d theta_j.
    pub fn derivative(&self, theta: &[f64], j: usize) -> Vec<f64> {
        let dual: Vec<Dual> = theta
            .iter()
            .enumerate()
            .map(|(i, &t)| if i == j { Dual::variable(t, 0) } else { Dual::constant(t) })
            .collect();
        self.kind.sigma(self, &dual).iter().map(|d| d.g[0]).collect()
    }

    /// d2 Sigma / d theta_i d theta_j.
    pub fn second_derivative(&self, theta: &[f64], i: usize, j: usize) -> Vec<f64> {
        let jets = |t: usize| match t {
            _ if t == i => Dual2::variable(theta[t], 0),
            _ if t == j => Dual2::variable(theta[t], 1),
            _ => Dual2::constant(theta[t]),
        };
        let at: Vec<Dual2> = (0..theta.len()).map(jets).collect();
        self.kind.sigma(self, &at).iter().map(|d| d.h[usize::from(i != j)]).collect()
    }

    /// d Sigma / d theta_j of every parameter.
    pub fn first_derivatives(&self, theta: &[f64]) -> Vec<Vec<f64>> {
        match self.kind {
            Kind::Matern if self.k > 1 => self.derivatives(theta, true).0,
            _ => (0..theta.len()).map(|j| self.derivative(theta, j)).collect(),
        }
    }

    /// All first derivatives, and the second ones (i, j), j <= i, by rows; those of standard deviations apart, where
    /// `rest`: of the other parameters only. A Matern correlation costs so much that it is taken once for all of them.
    pub fn derivatives(&self, theta: &[f64], rest: bool) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let from = if rest { self.deviations() } else { 0 };
        let pairs = || (from..theta.len()).flat_map(move |i| (from..=i).map(move |j| (i, j)));
        if self.kind != Kind::Matern || self.k == 1 {
            let first = (0..theta.len()).map(|j| self.derivative(theta, j)).collect();
            return (first, pairs().map(|(i, j)| self.second_derivative(theta, i, j)).collect());
        }
        let at: Vec<Dual3> = theta.iter().enumerate().map(|(i, &t)| Dual3::variable(t, i)).collect();
        let jets = self.kind.sigma(self, &at);
        let first = (0..theta.len()).map(|j| jets.iter().map(|s| s.g[j]).collect()).collect();
        // (a, b) with a <= b, lexicographic.
        let place = |a: usize, b: usize| a * 3 - a * (a + 1) / 2 + b;
        let second = pairs().map(|(i, j)| jets.iter().map(|s| s.h[place(j, i)]).collect()).collect();
        (first, second)
    }

    /// Start: the given standard deviations of the columns, weak correlation.
    pub fn start(&self, sd: &[f64]) -> Vec<f64> {
        let mean = (sd.iter().map(|s| s.max(1e-300).ln()).sum::<f64>() / sd.len().max(1) as f64).exp();
        self.kind.start(self, sd, mean)
    }

    /// How many directions of the covariance have no variance, standard deviations apart.
    pub fn lost(&self, theta: &[f64]) -> usize {
        kinds::lost(self, theta)
    }

    /// The unconstrained value at which parameter j has a natural value; None where several decide, or no value does.
    pub fn unconstrained(&self, j: usize, value: f64) -> Option<f64> {
        self.kind.unconstrained(self, j, value)
    }

    /// d vech(L) / d theta, L the lower Cholesky factor of Sigma: k (k + 1) / 2 rows, column-major.
    pub fn factor_jacobian(&self, theta: &[f64]) -> Result<Vec<f64>, CoreError> {
        let (k, l) = (self.k, self.factor(theta)?);
        let mut out = vec![];
        if self.is_loadings() {
            for at in self.loadings() {
                out.extend((0..k).flat_map(|c| (c..k).map(move |r| if (r, c) == at { 1.0 } else { 0.0 })));
            }
            return Ok(out);
        }
        for j in 0..self.parameters() {
            // dL = L Phi(L^-1 dSigma L^-T), Phi the lower triangle with its diagonal halved (Sarkka 2013, theorem A.1).
            let mut d = self.derivative(theta, j);
            dense::solve_left_l(&l, k, k, &mut d, k, k);
            dense::solve_right_lt(&l, k, k, &mut d, k, k);
            for c in 0..k {
                for r in c..k {
                    let sum: f64 = (c..=r).map(|t| l[r + t * k] * d[t + c * k] * if t == c { 0.5 } else { 1.0 }).sum();
                    out.push(sum);
                }
            }
        }
        Ok(out)
    }

    /// Parameters in natural units.
    pub fn report(&self, theta: &[f64]) -> Vec<Natural> {
        self.kind.report(self, theta)
    }
}

fn distances(points: &[Vec<f64>]) -> Vec<f64> {
    let k = points.len();
    let mut out = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..k {
            let d: f64 = points[i].iter().zip(&points[j]).map(|(a, b)| (a - b) * (a - b)).sum();
            out[i + j * k] = d.sqrt();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zoo() -> Vec<(Pattern, Vec<f64>)> {
        let points: Vec<Vec<f64>> = [0.0, 0.7, 1.1, 2.5].iter().map(|&t| vec![t, 0.3 * t * t]).collect();
        let mut matrix = vec![0.2; 16];
        (0..4).for_each(|i| matrix[i * 5] = 1.0 + 0.1 * i as f64);
        let mut tree = Pattern::new("unstructured", 4, &points, vec![]).unwrap();
        tree.free(&[7, 9]);
        let angles = [vec![0.1, -0.3, 0.2, 0.0], vec![0.4, -0.7, 0.9, 0.2, 1.1, -0.4]].concat();
        let each = Kind::ALL.iter().map(|kind| {
            let p = Pattern::new(kind.name(), 4, &points, matrix.clone()).unwrap();
            // Correlations of their own need not fit together.
            let size = if *kind == Kind::Correlated { 0.3 } else { 1.0 };
            let theta = (0..p.parameters()).map(|i| size * (0.3 - 0.17 * i as f64)).collect();
            (p, theta)
        });
        each.chain([(tree, angles)]).collect()
    }

    #[test]
    fn derivatives_agree_with_differences() {
        for (p, theta) in zoo() {
            for j in 0..p.parameters() {
                let exact = p.derivative(&theta, j);
                let shifted = |s: f64| {
                    let mut t = theta.clone();
                    t[j] += s;
                    p.sigma(&t)
                };
                let (up, down) = (shifted(1e-6), shifted(-1e-6));
                for i in 0..16 {
                    let numeric = (up[i] - down[i]) / 2e-6;
                    assert!((numeric - exact[i]).abs() < 1e-7 * (1.0 + exact[i].abs()), "{:?} {j}", p.kind);
                }
            }
        }
    }

    #[test]
    fn second_derivatives_agree_with_differences() {
        for (p, theta) in zoo() {
            for (i, j) in (0..p.parameters()).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                let exact = p.second_derivative(&theta, i, j);
                let shifted = |s: f64| {
                    let mut t = theta.clone();
                    t[j] += s;
                    p.derivative(&t, i)
                };
                let (up, down) = (shifted(1e-5), shifted(-1e-5));
                for e in 0..16 {
                    let numeric = (up[e] - down[e]) / 2e-5;
                    assert!((numeric - exact[e]).abs() < 1e-7 * (1.0 + exact[e].abs()), "{:?} {i} {j}", p.kind);
                }
            }
        }
    }

    #[test]
    fn all_derivatives_are_those_of_each() {
        for (p, theta) in zoo() {
            for rest in [false, true] {
                let (first, second) = p.derivatives(&theta, rest);
                let from = if rest { p.deviations() } else { 0 };
                let pairs = (from..theta.len()).flat_map(|i| (from..=i).map(move |j| (i, j)));
                let close =
                    |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + b.abs()));
                assert!(first.iter().enumerate().all(|(j, d)| close(d, &p.derivative(&theta, j))), "{:?}", p.kind);
                let mut second = second.iter();
                for (i, j) in pairs {
                    assert!(close(second.next().unwrap(), &p.second_derivative(&theta, i, j)), "{:?} {i} {j}", p.kind);
                }
                assert!(second.next().is_none());
            }
        }
    }

    #[test]
    fn every_parameter_gives_a_covariance() {
        for (p, theta) in zoo() {
            for scale in [0.0, 1.0, if p.kind == Kind::Correlated { 0.5 } else { 5.0 }] {
                let t: Vec<f64> = theta.iter().map(|t| scale * t).collect();
                assert!(p.factor(&t).is_ok(), "{:?} at {t:?}", p.kind);
            }
            assert_eq!(p.report(&theta).len(), p.parameters());
            assert_eq!(p.start(&[0.5; 4]).len(), p.parameters());
        }
    }

    #[test]
    fn matern_at_half_integers() {
        let points: Vec<Vec<f64>> = [0.0, 1.3].iter().map(|&t| vec![t]).collect();
        let p = Pattern::new("mat", 2, &points, vec![]).unwrap();
        let x: f64 = 1.3 / 0.8;
        for (nu, value) in [(0.5, 1.0), (1.5, 1.0 + x), (2.5, 1.0 + x + x * x / 3.0)] {
            let exact = value * (-x).exp();
            let free = p.sigma(&[0.0, 0.8f64.ln(), f64::ln(nu)])[1];
            let fixed = p.clone().with_nu(nu).unwrap();
            assert!((free - exact).abs() < 1e-14, "{nu}: {free} {exact}");
            assert!((fixed.sigma(&[0.0, 0.8f64.ln()])[1] - exact).abs() < 1e-14);
            assert_eq!(fixed.parameters(), 2);
        }
    }

    #[test]
    fn factor_jacobians_agree_with_differences() {
        for (p, theta) in zoo() {
            let exact = p.factor_jacobian(&theta).unwrap();
            for j in 0..p.parameters() {
                let at = |s: f64| {
                    let mut t = theta.clone();
                    t[j] += s;
                    p.factor(&t).unwrap()
                };
                let (up, down) = (at(1e-6), at(-1e-6));
                let lower = (0..4).flat_map(|c| (c..4).map(move |r| r + 4 * c));
                for (row, i) in lower.enumerate() {
                    let numeric = (up[i] - down[i]) / 2e-6;
                    assert!((numeric - exact[row + 10 * j]).abs() < 1e-7 * (1.0 + numeric.abs()), "{:?} {j}", p.kind);
                }
            }
        }
    }

    #[test]
    fn given_lags_are_kept() {
        let mut p = Pattern::new("toep", 5, &[], vec![]).unwrap();
        p.give(&[(6, Lag::Held(0.4)), (8, Lag::As(0))]);
        let theta = [0.1, -0.2, 0.0, 0.3, 0.2, 0.5, 7.0, -0.1, 7.0];
        let r = p.correlations(&theta);
        assert!((r[2] - 0.4).abs() < 1e-14 && (r[4] - r[1]).abs() < 1e-14, "{r:?}");
        for j in 0..theta.len() {
            let at = |s: f64| {
                let mut t = theta;
                t[j] += s;
                p.sigma(&t)
            };
            let (up, down) = (at(1e-6), at(-1e-6));
            for (i, exact) in p.derivative(&theta, j).into_iter().enumerate() {
                assert!((exact - (up[i] - down[i]) / 2e-6).abs() < 1e-8, "{j} {i}");
                // rounding of the difference
            }
        }
        // A start is a covariance whatever is held.
        for held in [-0.9, 0.0, 0.95] {
            p.give(&[(6, Lag::Held(held)), (8, Lag::Held(held * held))]);
            assert!(p.factor(&p.start(&[1.0; 5])).is_ok(), "{held}");
        }
    }

    #[test]
    fn loadings_are_lower_trapezoidal() {
        let p = Pattern::new("rr", 4, &[], vec![]).unwrap().with_rank(2).unwrap();
        assert_eq!(p.parameters(), 7);
        let theta: Vec<f64> = (1..8).map(|t| t as f64).collect();
        let l = p.factor(&theta).unwrap();
        assert_eq!(&l[..8], &[1.0, 2.0, 3.0, 4.0, 0.0, 5.0, 6.0, 7.0]);
        assert!(l[8..].iter().all(|v| *v == 0.0));
        assert!(p.clone().with_rank(5).is_err() && p.with_rank(0).is_err());
    }

    #[test]
    fn natural_values_can_be_asked_for() {
        for (p, theta) in zoo() {
            for (j, n) in p.report(&theta).iter().enumerate() {
                if let Some(v) = p.unconstrained(j, n.value) {
                    assert!((v - theta[j]).abs() < 1e-10, "{:?} {j}", p.kind);
                }
            }
        }
    }

    #[test]
    fn known_values() {
        let ar1 = Pattern::new("ar1", 3, &[], vec![]).unwrap();
        let s = ar1.sigma(&[2f64.ln(), 1.0]);
        let rho = 1.0 / 2f64.sqrt();
        assert!((s[0] - 4.0).abs() < 1e-12 && (s[1] - 4.0 * rho).abs() < 1e-12 && (s[2] - 2.0).abs() < 1e-12);
        let homcs = Pattern::new("homcs", 3, &[], vec![]).unwrap();
        let s = homcs.sigma(&[0.0, -40.0]);
        assert!((s[1] + 0.5).abs() < 1e-8, "compound symmetry reaches -1/(k-1)");
    }
}
