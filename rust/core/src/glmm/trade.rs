//! What a Gaussian residual and the covariances trade: second derivatives that the working linear model, to which the
//! residual variance is known, lacks.
//!
//! With V = R + Z Sigma Z', R = sigma^2 W^-1, D = (I + Lambda'Z'R^-1 Z Lambda)^-1 and the mode u, e'R^-1 e = S:
//!     tr(V^-1 R V^-1 V_j) = tr((D - D^2) S_j),   tr(V^-1 R V^-1 R) = n - q + tr D^2,
//! and the slope in log sigma is 2 (n - q + tr D - S). Blocks of D off the diagonal are left out.

use crate::cholesky::SelectedInverse;
use crate::dense;
use crate::linear::Lmm;

use super::laplace::dot;
use super::patterns::{Direction, Path};

/// Second derivatives of the deviance in the coefficient `at` of log sigma and the directions.
#[derive(Clone, Debug)]
pub struct Trade {
    pub at: usize,
    /// Expected, by direction.
    pub cross: Vec<f64>,
    pub expected: f64,
    /// Along a step that changes the variance, not its logarithm, evenly.
    pub observed: f64,
}

/// `gradient` is that in the coefficient, `unit` log sigma for one unit of it, `hu` H^-1 u.
pub fn of(
    lmm: &Lmm,
    inv: &SelectedInverse,
    (at, unit): (usize, f64),
    gradient: f64,
    (u, hu): (&[f64], &[f64]),
    lambda: &[Vec<f64>],
    directions: &[Direction],
) -> Trade {
    let m = &lmm.moments;
    let sums: Vec<Sums> = (0..m.factors.len()).map(|f| Sums::new(lmm, inv, f, &lambda[f])).collect();
    let cross = directions
        .iter()
        .map(|d| match &d.path {
            Path::Star(s) => 2.0 * unit * dot(&sums[d.factor].between, s),
            Path::Loading(a, b) => 4.0 * unit * sums[d.factor].loading[a + b * m.factors[d.factor].cols],
        })
        .collect();
    let left: f64 = sums.iter().map(|s| s.trace).sum();
    let squares = 0.5 * m.xx[at * (m.p() + 2)];
    let own = |v: f64| v * unit * unit;
    Trade {
        at,
        cross,
        expected: 2.0 * gradient * unit + 4.0 * squares - own(4.0 * left),
        observed: 4.0 * squares - own(8.0 * dot(u, hu)) + own(4.0 * left) - 2.0 * gradient * unit,
    }
}

/// Sums over the levels of a factor: D - D^2, its trace, and G Lambda D^2.
struct Sums {
    between: Vec<f64>,
    trace: f64,
    loading: Vec<f64>,
}

impl Sums {
    fn new(lmm: &Lmm, inv: &SelectedInverse, f: usize, lambda: &[f64]) -> Self {
        let factor = &lmm.moments.factors[f];
        let k = factor.cols;
        let (mut between, mut loading) = (vec![0.0; k * k], vec![0.0; k * k]);
        let (mut square, mut half) = (vec![0.0; k * k], vec![0.0; k * k]);
        for (d, g) in inv.diag[f].chunks_exact(k * k).zip(factor.gram.chunks_exact(k * k)) {
            square.fill(0.0);
            dense::gemm(&mut square, k, d, k, d, k, k, k, k, 1.0);
            between.iter_mut().zip(d).zip(&square).for_each(|((o, d), s)| *o += d - s);
            half.fill(0.0);
            dense::gemm(&mut half, k, lambda, k, &square, k, k, k, k, 1.0);
            dense::gemm(&mut loading, k, g, k, &half, k, k, k, k, 1.0);
        }
        let trace = (0..k).map(|i| between[i * (k + 1)]).sum();
        Sums { between, trace, loading }
    }
}
