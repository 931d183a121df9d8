//! Priors and Jeffreys' penalty at a point.

use crate::dense;
use crate::CoreError;

use super::super::penalty::Penalty;
use super::super::rows::{self, Covariance, GlmmRows, Restricted, Want};
use super::{Engine, Penalised};

impl Engine {
    /// The penalty at (beta, pattern parameters); `fixed` holds the predictors of beta.
    pub(super) fn penalise(
        &mut self,
        rows: &GlmmRows<'_>,
        beta: &[f64],
        shape: &[f64],
    ) -> Result<Penalised, CoreError> {
        self.penalty_curvature.clear();
        if self.priors.is_empty() && !self.jeffreys {
            return Ok(Penalised::default());
        }
        let p = self.plan.p();
        let user = Penalty::at(&self.priors, &self.plan.user_beta(beta), shape, &self.patterns)?;
        let mut out = Penalised {
            value: user.value,
            beta: self.plan.internal_row(&user.beta),
            shape: user.shape,
            shape_curvature: user.shape_curvature,
        };
        // M'C M with beta_user = M beta_internal, columns first.
        let total = user.beta.len();
        let half: Vec<Vec<f64>> =
            user.beta_curvature.chunks_exact(total.max(1)).map(|c| self.plan.internal_row(c)).collect();
        for i in 0..p {
            let row: Vec<f64> = half.iter().map(|h| h[i]).collect();
            self.penalty_curvature.extend(self.plan.internal_row(&row));
        }
        if self.jeffreys {
            let (value, slope) = self.jeffreys_penalty(rows)?;
            out.value += value;
            out.beta.iter_mut().zip(slope).for_each(|(o, s)| *o += s);
        }
        Ok(out)
    }

    /// Second derivatives of the priors' penalty in (internal coefficients, pattern parameters).
    pub fn penalty_second(&self, beta: &[f64], shape: &[f64]) -> Result<Vec<f64>, CoreError> {
        let (p, m, total) = (self.plan.p(), shape.len(), self.plan.p_total);
        let (user, n) = (Penalty::second(&self.priors, &self.plan.user_beta(beta), shape, &self.patterns)?, p + m);
        let half: Vec<f64> = user
            .chunks_exact((total + m).max(1))
            .flat_map(|c| self.plan.internal_row(&c[..total]).into_iter().chain(c[total..].iter().copied()))
            .collect();
        let mut out = vec![0.0; n * n];
        for i in 0..n {
            let row: Vec<f64> = half.iter().skip(i).step_by(n).copied().collect();
            let image = self.plan.internal_row(&row[..total]).into_iter().chain(row[total..].iter().copied());
            image.enumerate().for_each(|(j, v)| out[i + j * n] = v);
        }
        Ok(out)
    }

    /// -log|X'WX| of the model without random effects and its derivative in the internal coefficients. W is the observed
    /// curvature, which is the expected one where the link is canonical: Jeffreys' prior (Firth 1993).
    pub(super) fn jeffreys_penalty(&self, rows: &GlmmRows<'_>) -> Result<(f64, Vec<f64>), CoreError> {
        let (m, p) = (self.moments(), self.plan.p());
        let none: Vec<Vec<f64>> = m.factors.iter().map(|f| vec![0.0; f.levels * f.cols]).collect();
        let mut d3 = vec![];
        let s = rows::pass(&self.plan, m, &self.family, rows, &self.fixed, &none, Want::Full, &mut d3);
        let mut lx = s.xx;
        if dense::cholesky(&mut lx, p, p).is_err() {
            return Err(CoreError::NotPositiveDefinite("the information of the fixed effects is singular".into()));
        }
        let scale: f64 = self.plan.kept.iter().map(|&j| self.plan.scale[j].ln()).sum();
        let logdet: f64 = (0..p).map(|j| lx[j + j * p].ln()).sum();
        let cov = Covariance {
            diag: m.factors.iter().map(|f| vec![0.0; f.levels * f.cols * f.cols]).collect(),
            pairs: m.pairs.iter().map(|pair| vec![0.0; pair.value.len()]).collect(),
            restricted: Some(Restricted {
                position: (0..p).map(Some).collect(),
                lx,
                by_level: m.factors.iter().map(|f| vec![0.0; f.levels * f.cols * p]).collect(),
            }),
        };
        let slope = rows::skewness(&self.plan, m, rows, &cov, &d3).x;
        Ok((-2.0 * (logdet - scale), slope.iter().map(|v| -2.0 * v).collect()))
    }
}
