//! Linear combinations of the coefficients: their covariances and what these depend on, a solve each and no matrix of
//! all coefficients.

use crate::dense;
use crate::design::TermSlot;
use crate::error::shape;
use crate::fit::Model;
use crate::linear::{dot, Solution};
use crate::optimise;
use crate::CoreError;

/// Combinations over the system of (u, coefficients of wide factors) and the internal dense coefficients.
struct Loads {
    k: usize,
    /// size x k, row-major, elimination order.
    nodes: Vec<f64>,
    /// k x p, row-major.
    dense: Vec<f64>,
}

impl Model {
    /// Covariances of the coefficients of some of the user's columns (k x k); NaN at dropped ones.
    pub fn covariance_of(&self, columns: &[usize]) -> Result<Vec<f64>, CoreError> {
        let k = columns.len();
        let mut loads = self.no_loads(k);
        for (c, &j) in columns.iter().enumerate() {
            self.load(&mut loads, c, j, 1.0)?;
        }
        let mut out = self.covariance(loads)?;
        let dropped = self.dropped();
        for (c, j) in columns.iter().enumerate() {
            if dropped.binary_search(j).is_ok() {
                for a in 0..k {
                    (out[a + c * k], out[c + a * k]) = (f64::NAN, f64::NAN);
                }
            }
        }
        Ok(out)
    }

    /// L Var(beta_hat) L' for rows over the user's columns (k x columns, row-major; dropped ones are not looked at).
    pub fn covariance_of_rows(&self, rows: &[f64]) -> Result<Vec<f64>, CoreError> {
        let loads = self.loads(rows)?;
        self.covariance(loads)
    }

    /// Z_t'V*^-1 X C l of every term t for rows l over the user's columns, C = (X'V*^-1X)^-1: (levels x cols x k) each.
    /// With it d l'Cl = g'dSigma* g, summed over levels. The model is left at theta.
    pub fn sensitivity_of_rows(&mut self, rows: &[f64], theta: &[f64], reml: bool) -> Result<Vec<Vec<f64>>, CoreError> {
        let exact = self.lambda_from_theta(theta)?;
        let lambda = optimise::floored(&self.lmm.moments, &exact);
        self.leave();
        let s = self.lmm.solve(&lambda, reml)?;
        let loads = self.loads(rows)?;
        let (k, u) = (loads.k, self.effects(&s, loads));
        let out = self.slots().into_iter().map(|(f, slot)| self.raw_effects(f, slot, &lambda, &u, k)).collect();
        self.evaluate(theta, reml)?;
        Ok(out)
    }

    /// Covariances of combinations of the coefficients with all of the user's coefficients (k x columns, row-major); 0
    /// at dropped ones.
    pub fn covariance_with_rows(&self, rows: &[f64]) -> Result<Vec<f64>, CoreError> {
        let state = self.state()?;
        let found = self.solved(&state.solution, self.loads(rows)?);
        let (k, columns, scale) = (found.k, self.lmm.moments.user_columns(), state.sigma * state.sigma);
        let mut out = vec![0.0; k * columns];
        for j in 0..columns {
            let Some((node, dense)) = self.weights(j)? else { continue };
            for c in 0..k {
                let x = &found.dense[c * self.lmm.moments.p()..][..dense.len()];
                out[c * columns + j] = scale * (node.map_or(0.0, |at| found.nodes[at * k + c]) + dot(&dense, x));
            }
        }
        Ok(out)
    }

    fn no_loads(&self, k: usize) -> Loads {
        Loads { k, nodes: vec![0.0; self.lmm.symbolic.size * k], dense: vec![0.0; self.lmm.moments.p() * k] }
    }

    fn loads(&self, rows: &[f64]) -> Result<Loads, CoreError> {
        let width = self.lmm.moments.user_columns();
        if width == 0 || !rows.chunks_exact(width).remainder().is_empty() {
            return shape(format!("rows over {width} columns, {} numbers", rows.len()));
        }
        if rows.iter().any(|v| !v.is_finite()) {
            return Err(CoreError::NotFinite("a combination is not finite".into()));
        }
        let mut out = self.no_loads(rows.len() / width);
        for (c, row) in rows.chunks_exact(width).enumerate() {
            for (j, &v) in row.iter().enumerate().filter(|(_, v)| **v != 0.0) {
                self.load(&mut out, c, j, v)?;
            }
        }
        Ok(out)
    }

    /// Add v times the user's column j to combination c; nothing for a dropped column.
    fn load(&self, to: &mut Loads, c: usize, j: usize, v: f64) -> Result<(), CoreError> {
        let Some((node, dense)) = self.weights(j)? else { return Ok(()) };
        if let Some(at) = node {
            to.nodes[at * to.k + c] += v;
        }
        let p = dense.len();
        to.dense[c * p..(c + 1) * p].iter_mut().zip(&dense).for_each(|(x, w)| *x += v * w);
        Ok(())
    }

    /// What the user's coefficient j is of: a node, and weights of the internal dense coefficients; None if dropped.
    fn weights(&self, j: usize) -> Result<Option<(Option<usize>, Vec<f64>)>, CoreError> {
        let (m, sym) = (&self.lmm.moments, &self.lmm.symbolic);
        if let Some(w) = m.wide.iter().find(|w| (w.first..w.first + w.cols()).contains(&j)) {
            let level = w.base + j - w.first;
            if w.aliased.binary_search(&(level as u32)).is_ok() {
                return Ok(None);
            }
            let at = sym.at(w.factor, level);
            let along = m.booked(w).map_or_else(|| vec![0.0; m.p()], |(along, _)| along);
            return Ok(Some((Some(at), along)));
        }
        let Ok(own) = m.columns.binary_search(&j) else {
            return shape(format!("there is no column {j}"));
        };
        if !m.kept.contains(&own) {
            return Ok(None);
        }
        let on_carrier = m.carrier.as_ref().map_or(0.0, |c| c[own]);
        let dense = m.kept.iter().map(|&t| f64::from(t == own) - on_carrier * m.x_shift[t]).collect();
        Ok(Some((None, dense)))
    }

    /// L^-1 of the nodes, and L_X^-1 (dense - F'L^-1 nodes).
    fn forward(&self, s: &Solution, loads: &mut Loads) {
        let (sym, p, k) = (&self.lmm.symbolic, self.lmm.moments.p(), loads.k);
        self.lmm.numeric.forward(sym, &mut loads.nodes, k);
        if p > 0 {
            dense::gemm_nt(&mut loads.dense, p, &s.f, p + 1, &loads.nodes, k, p, k, sym.size, -1.0);
            dense::solve_left_l(&s.lx, p, p, &mut loads.dense, k, p);
        }
    }

    fn covariance(&self, mut loads: Loads) -> Result<Vec<f64>, CoreError> {
        let state = self.state()?;
        let (p, k) = (self.lmm.moments.p(), loads.k);
        self.forward(&state.solution, &mut loads);
        let mut out = vec![0.0; k * k];
        dense::syrk_rows(&mut out, k, &loads.nodes, k, self.lmm.symbolic.size, 1.0);
        let x = &loads.dense;
        for b in 0..k {
            for a in b..k {
                let v = out[a + b * k] + dot(&x[a * p..(a + 1) * p], &x[b * p..(b + 1) * p]);
                (out[a + b * k], out[b + a * k]) = (state.sigma * state.sigma * v, state.sigma * state.sigma * v);
            }
        }
        Ok(out)
    }

    /// The part of the nodes in the inverse of the whole system times combinations (size x k, row-major).
    fn effects(&self, s: &Solution, loads: Loads) -> Vec<f64> {
        self.solved(s, loads).nodes
    }

    /// The inverse of the whole system times combinations.
    fn solved(&self, s: &Solution, mut loads: Loads) -> Loads {
        let (sym, p, k) = (&self.lmm.symbolic, self.lmm.moments.p(), loads.k);
        self.forward(s, &mut loads);
        if p > 0 {
            dense::solve_left_lt(&s.lx, p, p, &mut loads.dense, k, p);
            let turned: Vec<f64> = (0..p * k).map(|t| loads.dense[t % k * p + t / k]).collect();
            dense::gemm(&mut loads.nodes, k, &turned, k, &s.f, p + 1, k, sym.size, p, -1.0);
        }
        self.lmm.numeric.backward(sym, &mut loads.nodes, k);
        loads
    }

    /// Lambda^-T of the effects of a term in the user's columns (levels x cols x k); their sign is of no account.
    fn raw_effects(&self, f: usize, slot: &TermSlot, lambda: &[Vec<f64>], u: &[f64], k: usize) -> Vec<f64> {
        let (m, sym) = (&self.lmm.moments, &self.lmm.symbolic);
        let (cols, kf) = (slot.cols, m.factors[f].cols);
        let inverse = optimise::invert(&lambda[f], kf);
        let mut out = vec![0.0; m.factors[f].levels * cols * k];
        for (l, g) in out.chunks_exact_mut(cols * k).enumerate() {
            let at = sym.at(f, l);
            for a in 0..cols {
                for t in 0..kf {
                    let v = inverse[t + (slot.offset + a) * kf];
                    let from = &u[(at + t) * k..(at + t + 1) * k];
                    g[a * k..(a + 1) * k].iter_mut().zip(from).for_each(|(g, u)| *g += v * u);
                }
            }
            let Some(c) = slot.carrier else { continue };
            for a in (0..cols).filter(|&a| a != c) {
                for j in 0..k {
                    g[a * k + j] += slot.shift[a] * g[c * k + j];
                }
            }
        }
        out
    }
}
