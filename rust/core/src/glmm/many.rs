//! One model, many responses: plan and pattern are made once for each thread, the fits run in parallel.

use rayon::prelude::*;

use super::fit::{Glmm, GlmmReport, Method, Start};
use super::rows::GlmmRows;
use crate::design::Codes;
use crate::family::{Data, Family};
use crate::optimise::Options;
use crate::CoreError;

/// A fit and, where it was asked for, the covariance of its coefficients and theta.
pub type Refit = Result<(GlmmReport, Option<Vec<f64>>), CoreError>;

/// What else depends on the response: blocks whose codes are its categories, and where the search starts.
#[derive(Clone, Copy, Default)]
pub struct OwnRows<'a> {
    /// Components whose coded blocks are coded by the categories of the response, as thresholds around them are.
    pub coded: &'a [usize],
    /// Coefficients to start from, one row a response; empty: those of `start`.
    pub beta: &'a [Vec<f64>],
}

impl Glmm {
    /// Fit every response of `y`; each starts from its own data, so that results do not depend on the order.
    pub fn refit(
        rows: &GlmmRows<'_>,
        family: &Family,
        y: &[&[f64]],
        shared: &Start,
        own_rows: OwnRows<'_>,
        method: Method,
        options: &Options,
        covariance: bool,
    ) -> Vec<Refit> {
        let work = |model: &mut Option<Glmm>, (i, y): (usize, &&[f64])| {
            let codes: Vec<i32> =
                if own_rows.coded.is_empty() { vec![] } else { y.iter().map(|&c| c as i32).collect() };
            let mut mine = GlmmRows { data: Data { y, ..rows.data }, ..rows.clone() };
            for &k in own_rows.coded {
                let blocks = mine.components[k].fixed.iter_mut().map(|f| &mut f.block);
                blocks.filter(|b| b.codes.is_some()).for_each(|b| b.codes = Some(Codes::I32(&codes)));
            }
            let start = own_rows.beta.get(i).map(|b| Start {
                beta: Some(b.clone()),
                theta: shared.theta.clone(),
                exact: false,
            });
            let start = start.as_ref().unwrap_or(shared);
            // A plan made for other rows is of no use.
            let mut own = match model.take() {
                Some(m) if own_rows.coded.is_empty() && family.check(&mine.data).is_ok() => m,
                _ => Glmm::new(&mine, family.clone())?,
            };
            let found = own.fit(&mine, start, method, options);
            let out = found.and_then(|report| {
                let spread = if covariance { Some(own.until(&mine, &options.stop, |m| m.vcov(&mine))?) } else { None };
                Ok((report, spread))
            });
            *model = Some(own);
            out
        };
        y.par_iter().enumerate().with_min_len(1).map_init(|| None, work).collect()
    }
}
