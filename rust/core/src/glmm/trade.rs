//! What a Gaussian residual and the covariances trade: second derivatives that the working linear model, to which the
//! residual variance is known, lacks.
//!
//! With V = R + Z Sigma Z', R = sigma^2 W^-1, D = (I + Lambda'Z'R^-1 Z Lambda)^-1 and the mode u, e'R^-1 e = S:
//!     tr(V^-1 R V^-1 V_j) = tr((D - D^2) S_j),   tr(V^-1 R V^-1 R) = n - q + tr D^2,
//! and the slope in log sigma is 2 (n - q + tr D - S). Blocks of D off the diagonal are left out. Where coefficients are
//! integrated out, D is that of the joint mode, D + E E', whose blocks off the diagonal are those of E E'.

use crate::cholesky::SelectedInverse;
use crate::dense;
use crate::linear::Lmm;

use super::laplace::dot;
use super::patterns::{Direction, Path};

/// E = H^-1 Lambda'Z'R^-1 X L_X^-T of integrated coefficients, by factor (levels x cols rows of r).
pub struct Integrated {
    pub r: usize,
    pub by_factor: Vec<Vec<f64>>,
}

impl Integrated {
    /// E'E (r x r).
    fn whole(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.r * self.r];
        self.by_factor.iter().for_each(|e| dense::syrk_rows(&mut out, self.r, e, self.r, e.len() / self.r, 1.0));
        dense::mirror(&mut out, self.r);
        out
    }

    /// What the blocks off the diagonal add to tr((I - D) S_i (I - D) S_j), to `out` (c x c).
    pub fn inform(&self, cols: &[usize], directions: &[Direction], out: &mut [f64]) {
        let (r, c) = (self.r, directions.len());
        let mut sums = vec![vec![0.0; r * r]; c];
        let (mut half, mut part) = (vec![], vec![0.0; r * r]);
        let mut own = vec![0.0; c * c];
        for (f, &k) in cols.iter().enumerate() {
            let stars: Vec<(usize, &Vec<f64>)> = directions
                .iter()
                .enumerate()
                .filter_map(|(i, d)| match &d.path {
                    Path::Star(s) if d.factor == f => Some((i, s)),
                    _ => None,
                })
                .collect();
            for e in self.by_factor[f].chunks_exact(k * r) {
                // E_l is r x k here: its rows lie one after the other.
                let mut parts: Vec<Vec<f64>> = vec![];
                for &(i, s) in &stars {
                    half.clear();
                    half.resize(r * k, 0.0);
                    dense::gemm(&mut half, r, e, r, s, k, r, k, k, 1.0);
                    part.fill(0.0);
                    dense::gemm_nt(&mut part, r, &half, r, e, r, r, r, k, 1.0);
                    sums[i].iter_mut().zip(&part).for_each(|(o, v)| *o += v);
                    parts.push(part.clone());
                }
                for (a, &(i, _)) in stars.iter().enumerate() {
                    for (b, &(j, _)) in stars.iter().enumerate() {
                        own[i + j * c] += dot(&parts[a], &parts[b]);
                    }
                }
            }
        }
        for j in 0..c {
            (0..c).for_each(|i| out[i + j * c] += dot(&sums[i], &sums[j]) - own[i + j * c]);
        }
    }
}

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
    fixed: Option<&Integrated>,
) -> Trade {
    let m = &lmm.moments;
    let whole = fixed.map(Integrated::whole);
    let fixed = fixed.zip(whole.as_deref());
    let sums: Vec<Sums> = (0..m.factors.len()).map(|f| Sums::new(lmm, inv, f, &lambda[f], fixed)).collect();
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
    fn new(lmm: &Lmm, inv: &SelectedInverse, f: usize, lambda: &[f64], fixed: Option<(&Integrated, &[f64])>) -> Self {
        let factor = &lmm.moments.factors[f];
        let k = factor.cols;
        let (mut between, mut loading) = (vec![0.0; k * k], vec![0.0; k * k]);
        let (mut square, mut half) = (vec![0.0; k * k], vec![0.0; k * k]);
        for (l, (d, g)) in inv.diag[f].chunks_exact(k * k).zip(factor.gram.chunks_exact(k * k)).enumerate() {
            square.fill(0.0);
            dense::gemm(&mut square, k, d, k, d, k, k, k, k, 1.0);
            if let Some((fixed, whole)) = fixed {
                let r = fixed.r;
                others(&fixed.by_factor[f][l * k * r..(l + 1) * k * r], whole, (k, r), &mut square);
            }
            between.iter_mut().zip(d).zip(&square).for_each(|((o, d), s)| *o += d - s);
            half.fill(0.0);
            dense::gemm(&mut half, k, lambda, k, &square, k, k, k, k, 1.0);
            dense::gemm(&mut loading, k, g, k, &half, k, k, k, k, 1.0);
        }
        let trace = (0..k).map(|i| between[i * (k + 1)]).sum();
        Sums { between, trace, loading }
    }
}

/// Add E_l (E'E - E_l'E_l) E_l' (k x k), `e` being E_l' (r x k).
fn others(e: &[f64], whole: &[f64], (k, r): (usize, usize), out: &mut [f64]) {
    let mut rest = whole.to_vec();
    dense::gemm_nt(&mut rest, r, e, r, e, r, r, r, k, -1.0);
    let mut half = vec![0.0; r * k];
    dense::gemm(&mut half, r, &rest, r, e, r, r, k, r, 1.0);
    dense::gemm_tn(out, k, e, r, &half, r, k, k, r, 1.0);
}
