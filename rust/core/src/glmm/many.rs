//! One model, many responses: plan and pattern are made once for each thread, the fits run in parallel.

use rayon::prelude::*;

use super::fit::{Glmm, GlmmReport, Method, Start};
use super::rows::GlmmRows;
use crate::family::{Data, Family};
use crate::optimise::Options;
use crate::CoreError;

/// A fit and, where it was asked for, the covariance of its coefficients and theta.
pub type Refit = Result<(GlmmReport, Option<Vec<f64>>), CoreError>;

impl Glmm {
    /// Fit every response of `y`; each starts from its own data, so that results do not depend on the order.
    pub fn refit(
        rows: &GlmmRows<'_>,
        family: &Family,
        y: &[&[f64]],
        start: &Start,
        method: Method,
        options: &Options,
        covariance: bool,
    ) -> Vec<Refit> {
        let work = |model: &mut Option<Glmm>, y: &&[f64]| {
            let mine = GlmmRows { data: Data { y, ..rows.data }, ..rows.clone() };
            let mut own = match model.take() {
                Some(m) if family.check(&mine.data).is_ok() => m,
                _ => Glmm::new(&mine, family.clone())?,
            };
            let found = own.fit(&mine, start, method, options);
            let out = found.and_then(|report| {
                let spread = if covariance { Some(own.vcov(&mine)?) } else { None };
                Ok((report, spread))
            });
            *model = Some(own);
            out
        };
        y.par_iter().with_min_len(1).map_init(|| None, work).collect()
    }
}
