//! Variances of what is predicted: conditional covariances of the modes, and of rows.

use rayon::prelude::*;

use super::coordinates::to_user;
use super::{Model, State};
use crate::cholesky::Tail;
use crate::dense;
use crate::design::{Block, Codes};
use crate::error::shape;
use crate::linear::dot;
use crate::optimise::slot_block;
use crate::CoreError;

/// What a model says of beta and theta from outside its factor, which is given both.
pub(crate) trait Outer: Sync {
    /// How many entries theta has.
    fn follows(&self) -> usize;
    /// Add how z'b of a factor's effects from `first` on follows theta.
    fn follow(&self, factor: usize, first: usize, z: &[f64], out: &mut [f64]);
    /// Variance of a function with these derivatives in (beta, theta), beta internal.
    fn variance(&self, slope: &[f64]) -> f64;
}

impl Model {
    /// Variances of the coefficients of wide factors, one factor after the other; NaN at dropped ones.
    pub fn level_variances(&mut self) -> Result<Vec<f64>, CoreError> {
        self.recover()?;
        let state = self.state()?;
        let (m, sym, p) = (self.m(), &self.lmm.symbolic, self.m().p());
        let inverse = self.lmm.selected_inverse();
        self.lmm.numeric.stop.check()?;
        let h = self.lmm.fixed_sensitivity(&state.solution);
        let mut out = vec![];
        for w in &m.wide {
            let first = out.len();
            let mut own = m.booked(w).map_or(vec![0.0; p], |(along, _)| along);
            dense::solve_left_l(&state.solution.lx, p, p, &mut own, 1, p);
            for l in w.base..w.levels {
                let at = sym.at(w.factor, l);
                let through: f64 = own.iter().zip(&h[at * p..]).map(|(own, h)| (own - h) * (own - h)).sum();
                out.push(state.sigma * state.sigma * (inverse.diag[w.factor][l] + through));
            }
            w.aliased.iter().for_each(|&l| out[first + l as usize - w.base] = f64::NAN);
        }
        Ok(out)
    }

    /// Conditional covariance sigma^2 Lambda (A_ZZ^-1)_ll Lambda' of the modes of one term (levels x k x k).
    pub fn conditional_covariance(&self, term: usize) -> Result<Vec<f64>, CoreError> {
        let state = self.state()?;
        let inv = self.lmm.inverse_alone(&state.lambda)?;
        self.lmm.numeric.stop.check()?;
        let slots = self.slots();
        let Some((f, s)) = slots.get(term) else {
            return shape(format!("there is no random term {term}"));
        };
        let (m, k) = (self.m(), s.cols);
        let factor = &m.factors[*f];
        let mut out = vec![0.0; factor.levels * k * k];
        let mut half = vec![0.0; k * k];
        // In the user's columns from the start, so that a variance of zero is exactly that.
        let mut lambda = slot_block(&state.lambda[*f], factor.cols, s.offset, k);
        lambda.chunks_exact_mut(k).for_each(|column| to_user(s, column));
        let lam = |r: usize, c: usize| lambda[r + c * k];
        for (l, out) in out.chunks_exact_mut(k * k).enumerate() {
            let z = &inv.diag[*f][l * factor.cols * factor.cols..(l + 1) * factor.cols * factor.cols];
            for c in 0..k {
                for r in 0..k {
                    half[r + c * k] = (0..k).map(|t| lam(r, t) * z[s.offset + t + (s.offset + c) * factor.cols]).sum();
                }
            }
            for c in 0..k {
                for r in 0..k {
                    out[r + c * k] =
                        state.sigma * state.sigma * (0..k).map(|t| half[r + t * k] * lam(c, t)).sum::<f64>();
                }
            }
        }
        Ok(out)
    }

    /// Variance of x'beta_hat + z'(b_hat - b) of new rows, given theta and sigma. Terms with code -1 contribute nothing.
    pub fn prediction_variance(
        &self,
        n: usize,
        fixed: &[crate::design::Block<'_>],
        terms: &[Option<(Codes<'_>, Vec<crate::design::Block<'_>>)>],
    ) -> Result<Vec<f64>, CoreError> {
        let m = self.m();
        if n > u32::MAX as usize {
            return shape("more than 2^32 - 1 rows");
        }
        if fixed.iter().map(|b| b.cols).sum::<usize>() != m.user_columns() || terms.len() != m.n_terms {
            return shape("new rows have other columns or terms than the model");
        }
        for b in fixed {
            b.check(n, "fixed block")?;
        }
        let (wide, dense): (Vec<&Block<'_>>, Vec<&Block<'_>>) = fixed.iter().partition(|b| b.is_wide());
        if dense.iter().map(|b| b.cols).sum::<usize>() != m.p_total
            || wide.len() != m.wide.len()
            || wide.iter().zip(&m.wide).any(|(b, w)| b.levels != w.levels)
        {
            return shape("new rows have other columns than the model");
        }
        let wide: Vec<Codes<'_>> = wide.iter().filter_map(|b| b.codes).collect();
        let x = |i: usize| {
            let mut all: Vec<f64> = Vec::with_capacity(m.p_total);
            for b in &dense {
                all.extend((0..b.cols).map(|c| b.value(i, c)));
            }
            if m.carrier.is_some() {
                all.iter_mut().zip(&m.x_shift).for_each(|(v, s)| *v -= s);
            }
            m.kept.iter().map(|&j| all[j]).collect::<Vec<f64>>()
        };
        self.row_variances(n, &x, &wide, terms, None)
    }

    /// The same with rows of the internal fixed design given by a function, and the levels of wide factors; with `outer`
    /// neither theta nor what the factor says of beta is taken as known.
    pub(crate) fn row_variances(
        &self,
        n: usize,
        x: &(dyn Fn(usize) -> Vec<f64> + Sync),
        wide: &[Codes<'_>],
        terms: &[Option<(Codes<'_>, Vec<crate::design::Block<'_>>)>],
        outer: Option<&dyn Outer>,
    ) -> Result<Vec<f64>, CoreError> {
        let state = self.state()?;
        let m = self.m();
        if terms.len() != m.n_terms {
            return shape("new rows have other terms than the model");
        }
        for (t, term) in terms.iter().enumerate() {
            if let Some((codes, blocks)) = term {
                let (f, s) = self.slots()[t];
                let k: usize = blocks.iter().map(|b| b.cols).sum();
                if codes.len() != n || codes.range().1 >= m.factors[f].levels as i32 || k != s.cols {
                    return shape(format!("random term {t}: codes or columns do not fit the model"));
                }
                for b in blocks {
                    b.check(n, "random block")?;
                }
            }
        }
        let chunks: Vec<(usize, usize)> = (0..n).step_by(256).map(|a| (a, (a + 256).min(n))).collect();
        let tail = self.lmm.numeric.tail_for(&self.lmm.symbolic, n);
        let rows = |r| self.variance_rows(state, tail.as_ref(), r, x, wide, terms, outer);
        let parts: Vec<Vec<f64>> = chunks.into_par_iter().map(rows).collect::<Result<_, _>>()?;
        Ok(parts.into_iter().flatten().collect())
    }

    fn variance_rows(
        &self,
        state: &State,
        tail: Option<&Tail>,
        (from, to): (usize, usize),
        x: &(dyn Fn(usize) -> Vec<f64> + Sync),
        wide: &[Codes<'_>],
        terms: &[Option<(Codes<'_>, Vec<crate::design::Block<'_>>)>],
        outer: Option<&dyn Outer>,
    ) -> Result<Vec<f64>, CoreError> {
        let (m, sym) = (self.m(), &self.lmm.symbolic);
        let p = m.p();
        let slots = self.slots();
        let mut solver = self.lmm.numeric.row_solver(sym, tail);
        let mut out = Vec::with_capacity(to - from);
        let (mut z, mut follows) = (vec![], vec![0.0; outer.map_or(0, |o| o.follows())]);
        for i in from..to {
            self.lmm.numeric.stop.check()?;
            let mut x = x(i);
            follows.fill(0.0);
            for (t, term) in terms.iter().enumerate() {
                let Some((codes, blocks)) = term else {
                    continue;
                };
                let code = codes.get(i);
                if code < 0 {
                    continue;
                }
                let (f, s) = slots[t];
                let kf = m.factors[f].cols;
                z.clear();
                for b in blocks {
                    z.extend((0..b.cols).map(|c| b.value(i, c)));
                }
                if let Some(c) = s.carrier {
                    let one = z[c];
                    z.iter_mut().zip(&s.shift).for_each(|(v, s)| *v -= s * one);
                }
                let pos = sym.position[sym.base[f] as usize + code as usize] as usize;
                let add: Vec<f64> = (0..s.cols)
                    .map(|c| (0..s.cols).map(|r| state.lambda[f][s.offset + r + (s.offset + c) * kf] * z[r]).sum())
                    .collect();
                solver.add(pos, s.offset, &add);
                if let Some(outer) = outer {
                    outer.follow(f, code as usize * kf + s.offset, &z, &mut follows);
                }
            }
            for (codes, w) in wide.iter().zip(&m.wide) {
                let level = codes.get(i) as usize;
                if level >= w.base && w.aliased.binary_search(&(level as u32)).is_err() {
                    solver.add(sym.position[sym.base[w.factor] as usize + level] as usize, 0, &[1.0]);
                }
            }
            let w2 = solver.run(&state.solution.f, p + 1, &mut x);
            if let Some(outer) = outer {
                x.extend_from_slice(&follows);
                out.push(w2 + outer.variance(&x));
                continue;
            }
            dense::solve_left_l(&state.solution.lx, p, p, &mut x, 1, p);
            out.push(state.sigma * state.sigma * (w2 + dot(&x, &x)));
        }
        Ok(out)
    }
}
