//! The mode of the spherical random effects: Newton steps, alone or together with latent coefficients, and its first-order
//! change.

use crate::dense;
use crate::family::Link;
use crate::CoreError;

use super::super::loadings;
use super::super::rows::{self, GlmmRows, Want};
use super::super::trade::Integrated;
use super::{dot, positive_factored, sized, Engine, Point, INNER_TOLERANCE};

/// Newton steps for the mode before the search gives up at these parameters.
const MAX_INNER: usize = 60;
/// Decrement below which what a step gains may be lost in the density's rounding errors, which grow with the responses:
/// there the slope along the step tells whether it leads on.
const HIDDEN: f64 = 1e-4;
/// Share of the slope that may be left.
const LEVEL: f64 = 0.5;

/// Decrement from which on a full Newton step tells what such steps leave, and most that may be left to one more.
const TELLING: f64 = 16.0;
const LAST: f64 = 0.3;
/// Share of the tolerance that one more step may leave.
const CERTAIN: f64 = 1e-3;

/// Whether `t` times a Newton step leads on from h to `value`: it falls or, where rounding errors may hide that, the slope
/// along the step does.
fn leads_on(h: f64, value: f64, t: f64, decrement: f64, slope: impl FnOnce() -> f64) -> bool {
    let falls = value <= h - 1e-4 * t * decrement + 1e-12 * h.abs().max(1.0);
    falls || decrement < HIDDEN && value < h + HIDDEN && slope().abs() < LEVEL * decrement
}

impl Engine {
    /// d h / d u from Z'D1 there.
    pub(super) fn latent_gradient(&self, lambda: &[Vec<f64>], zg: &[Vec<f64>], u: &[f64]) -> Vec<f64> {
        let mut out = self.project(lambda, zg);
        out.iter_mut().zip(self.precision(u)).for_each(|(g, u)| *g += u);
        out
    }

    /// Minimise h over u by Newton steps with step halving.
    pub(super) fn mode(&mut self, rows: &GlmmRows<'_>, lambda: &[Vec<f64>], u: &[f64]) -> Result<Vec<f64>, CoreError> {
        let mut u = u.to_vec();
        if u.is_empty() {
            return Ok(u);
        }
        let b = self.effects(lambda, &u);
        // Where rows have effects of their own.
        let mut growing =
            self.family.links().first() == Some(&Link::Log) && u.len() > rows.n / 2 && u.iter().all(|u| *u == 0.0);
        let mut s = self.pass(rows, &b, if growing { Want::Growing } else { Want::Newton });
        let mut h = s.value + 0.5 * dot(&u, &self.precision(&u));
        if !h.is_finite() {
            u.fill(0.0);
            let b = self.effects(lambda, &u);
            s = self.pass(rows, &b, Want::Newton);
            h = s.value;
        }
        if !h.is_finite() {
            return Err(CoreError::NotFinite("the density is zero or undefined at these parameters".into()));
        }
        let (mut last, mut full, plain) = (f64::INFINITY, false, self.is_plain());
        for _ in 0..MAX_INNER {
            self.stop.check()?;
            self.inner += 1;
            let mut step = self.latent_gradient(lambda, &s.zg, &u);
            step.iter_mut().for_each(|g| *g = -*g);
            let gradient = step.clone();
            self.load(&mut s);
            if self.factorise(lambda).is_err() {
                let b = self.effects(lambda, &u);
                s = self.pass(rows, &b, Want::Convex);
                self.load(&mut s);
                self.factorise(lambda)?;
            }
            self.solve(&mut step);
            let decrement = dot(&gradient, &step);
            if !decrement.is_finite() {
                return Err(CoreError::NotFinite("the mode of the random effects cannot be found".into()));
            }
            if plain && full && last < TELLING && last > 1e-5 {
                let bend = decrement / (last * last);
                self.bend = if self.bend.is_finite() { bend.max(0.5 * self.bend) } else { bend };
            }
            // Rounding ends what is asked to be closer than double precision, here and where no step leads on.
            let nearest = decrement < INNER_TOLERANCE && !(decrement < 0.1 * last);
            let enough = self.tolerance > INNER_TOLERANCE
                && decrement < LAST
                && self.bend * decrement * decrement < CERTAIN * self.tolerance;
            if decrement < self.tolerance || enough || nearest {
                u.iter_mut().zip(&step).for_each(|(u, s)| *u += s);
                return Ok(u);
            }
            last = decrement;
            let mut t = 1.0;
            loop {
                let trial: Vec<f64> = u.iter().zip(&step).map(|(u, s)| u + t * s).collect();
                let b = self.effects(lambda, &trial);
                s = self.pass(rows, &b, Want::Newton);
                let value = s.value + 0.5 * dot(&trial, &self.precision(&trial));
                if growing && !(value < h) {
                    s = self.pass(rows, &self.effects(lambda, &u), Want::Newton);
                    growing = false;
                    break;
                }
                let slope = || dot(&self.latent_gradient(lambda, &s.zg, &trial), &step);
                if growing || leads_on(h, value, t, decrement, slope) {
                    (u, h, full) = (trial, value, !growing && t == 1.0);
                    growing = false;
                    break;
                }
                t *= 0.5;
                if t < 1e-10 && decrement < INNER_TOLERANCE {
                    return Ok(u);
                }
                if t < 1e-10 {
                    return Err(CoreError::NotFinite("the mode of the random effects cannot be found".into()));
                }
            }
        }
        Err(CoreError::NotFinite("the mode of the random effects was not reached".into()))
    }

    /// L^-1 Lambda'Z'D2X (size x r) of the latent coefficients and the Cholesky factor of their X'V^-1X.
    pub fn joint_factor(&self, lambda: &[Vec<f64>]) -> Result<(Vec<f64>, Vec<f64>), CoreError> {
        let (f, a) = self.information_left(lambda, &self.latent);
        if let Some(lx) = &self.uncancelled {
            return Ok((f, lx.clone()));
        }
        let r = self.latent.len();
        let lost = || CoreError::NotPositiveDefinite("the information about the coefficients is not finite".into());
        Ok((f, positive_factored(a, r, sized).1.ok_or_else(lost)?))
    }

    /// L^-1 Lambda'Z'D2X (size x r) of some coefficients and their X'D2X - X'D2Z Lambda H^-1 Lambda'Z'D2X.
    pub(super) fn information_left(&self, lambda: &[Vec<f64>], list: &[usize]) -> (Vec<f64>, Vec<f64>) {
        let lmm = &self.model.lmm;
        let (p1, r) = (self.plan.p() + 1, list.len());
        let all = lmm.right_hand_side(lambda);
        let mut f: Vec<f64> = all.chunks_exact(p1).flat_map(|row| list.iter().map(|&j| row[j])).collect();
        lmm.numeric.forward(&lmm.symbolic, &mut f, r);
        let mut a: Vec<f64> = (0..r * r).map(|t| lmm.moments.xx[list[t % r] + list[t / r] * p1]).collect();
        dense::syrk_rows(&mut a, r, &f, r, lmm.symbolic.size, -1.0);
        dense::mirror(&mut a, r);
        (f, a)
    }

    /// E = H^-1 Lambda'Z'D2X L_X^-T (size x r) from what `joint_factor` gives.
    pub(super) fn integrated(&self, f: &[f64], lx: &[f64]) -> Vec<f64> {
        let (r, lmm) = (self.latent.len(), self.lmm());
        let mut e = f.to_vec();
        dense::solve_left_l(lx, r, r, &mut e, lmm.symbolic.size, r);
        lmm.numeric.backward(&lmm.symbolic, &mut e, r);
        e
    }

    /// The same by factor, where the curvature of a normal model asks for it.
    pub(super) fn integrated_by_factor(&self, lambda: &[Vec<f64>]) -> Option<Integrated> {
        if !self.restricted || self.latent.is_empty() || !self.whole {
            return None;
        }
        let (f, lx) = self.joint_factor(lambda).ok()?;
        let (e, r, sym) = (self.integrated(&f, &lx), self.latent.len(), &self.lmm().symbolic);
        let at = |f: usize, l: usize| sym.at(f, l);
        let one = |(f, x): (usize, &crate::design::Factor)| {
            (0..x.levels).flat_map(|l| e[at(f, l) * r..(at(f, l) + x.cols) * r].to_vec()).collect()
        };
        Some(Integrated { r, by_factor: self.moments().factors.iter().enumerate().map(one).collect() })
    }

    /// (J^-1 c) for the joint Hessian of (u, latent beta).
    pub(super) fn joint_solve(&self, f: &[f64], lx: &[f64], cu: &mut [f64], cb: &mut [f64]) {
        let lmm = &self.model.lmm;
        let r = self.latent.len();
        lmm.numeric.forward(&lmm.symbolic, cu, 1);
        for (row, w) in f.chunks_exact(r).zip(cu.iter()) {
            cb.iter_mut().zip(row).for_each(|(c, f)| *c -= f * w);
        }
        dense::solve_left_l(lx, r, r, cb, 1, r);
        dense::solve_left_lt(lx, r, r, cb, 1, r);
        for (row, w) in f.chunks_exact(r).zip(cu.iter_mut()) {
            *w -= dot(row, cb);
        }
        lmm.numeric.backward(&lmm.symbolic, cu, 1);
    }

    /// Minimise h over u and the latent coefficients by Newton steps with step halving.
    pub(super) fn joint_mode(
        &mut self,
        rows: &GlmmRows<'_>,
        lambda: &[Vec<f64>],
        beta: &[f64],
        u: &[f64],
    ) -> Result<(Vec<f64>, Vec<f64>), CoreError> {
        let (mut beta, mut u) = (beta.to_vec(), u.to_vec());
        let lost = |what: &str| CoreError::NotFinite(format!("the mode of random and fixed effects {what}"));
        rows::fixed_part(&self.plan, rows, &beta, &mut self.fixed);
        let mut s = self.pass(rows, &self.effects(lambda, &u), Want::Joint);
        let mut h = s.value + 0.5 * dot(&u, &self.precision(&u));
        let mut last = f64::INFINITY;
        for _ in 0..MAX_INNER {
            self.stop.check()?;
            if !h.is_finite() {
                return Err(lost("has no finite density"));
            }
            self.inner += 1;
            let mut du = self.latent_gradient(lambda, &s.zg, &u);
            du.iter_mut().for_each(|g| *g = -*g);
            let mut db: Vec<f64> = self.latent.iter().map(|&j| -s.xg[j]).collect();
            let (gu, gb) = (du.clone(), db.clone());
            self.load(&mut s);
            self.load_fixed(&s.xx);
            self.factorise(lambda)?;
            let (f, lx) = self.joint_factor(lambda)?;
            self.joint_solve(&f, &lx, &mut du, &mut db);
            let decrement = dot(&gu, &du) + dot(&gb, &db);
            let nearest = decrement.abs() < INNER_TOLERANCE && !(decrement.abs() < 0.1 * last);
            last = decrement.abs();
            let mut t = 1.0;
            loop {
                let trial: Vec<f64> = u.iter().zip(&du).map(|(u, s)| u + t * s).collect();
                let mut moved = beta.clone();
                self.latent.iter().zip(&db).for_each(|(&j, d)| moved[j] += t * d);
                rows::fixed_part(&self.plan, rows, &moved, &mut self.fixed);
                if nearest || decrement.abs() < self.tolerance {
                    return Ok((moved, trial));
                }
                s = self.pass(rows, &self.effects(lambda, &trial), Want::Joint);
                let value = s.value + 0.5 * dot(&trial, &self.precision(&trial));
                let slope = || {
                    let latent: f64 = self.latent.iter().zip(&db).map(|(&j, d)| s.xg[j] * d).sum();
                    latent + dot(&self.latent_gradient(lambda, &s.zg, &trial), &du)
                };
                if leads_on(h, value, t, decrement, slope) {
                    (u, beta, h) = (trial, moved, value);
                    break;
                }
                t *= 0.5;
                if !(t > 1e-10) && decrement.abs() < INNER_TOLERANCE {
                    rows::fixed_part(&self.plan, rows, &beta, &mut self.fixed);
                    return Ok((beta, u));
                }
                if !(t > 1e-10) {
                    return Err(lost("cannot be found"));
                }
            }
        }
        Err(lost("was not reached"))
    }

    /// The mode under another Lambda and beta where the log density of the rows is quadratic, as it is at a point whose
    /// cross-products are the current ones; the factor is then that of the other Lambda.
    pub fn mode_under(&mut self, at: &Point, dbeta: &[f64], lambda: &[Vec<f64>]) -> Option<Vec<f64>> {
        let p = self.plan.p();
        // H u = Lambda'(Z'D2Z b - Z'D1 - Z'D2X dbeta).
        let mut g = loadings::multiply(self.moments(), &self.effects(&at.lambda, &at.u));
        for ((g, zg), factor) in g.iter_mut().zip(&self.zg).zip(&self.moments().factors) {
            for ((g, zg), zx) in g.iter_mut().zip(zg).zip(factor.zx.chunks_exact(p + 1)) {
                *g -= zg + dot(&zx[..p], dbeta);
            }
        }
        let mut out = self.project(lambda, &g);
        self.factorise(lambda).ok()?;
        self.solve(&mut out);
        out.iter().all(|u| u.is_finite()).then_some(out)
    }

    /// First-order change of the mode for changes of beta and Lambda, at the point whose factor is the current one, and its
    /// squared size in terms of the mode's curvature.
    pub fn mode_change(&self, at: &Point, dbeta: &[f64], dlambda: &[Vec<f64>]) -> (Vec<f64>, f64) {
        let (m, p) = (self.moments(), self.plan.p());
        // H du = -(dLambda'Z'D1 + Lambda'Z'D2 (X dbeta + Z dLambda u)).
        let mut g = loadings::multiply(m, &self.effects(dlambda, &at.u));
        for (g, factor) in g.iter_mut().zip(&m.factors) {
            g.iter_mut().zip(factor.zx.chunks_exact(p + 1)).for_each(|(g, z)| *g += dot(&z[..p], dbeta));
        }
        let mut out = self.project(&at.lambda, &g);
        out.iter_mut().zip(self.project(dlambda, &self.zg)).for_each(|(o, g)| *o = -(*o + g));
        let right = out.clone();
        self.solve(&mut out);
        let size = dot(&right, &out);
        (out, size)
    }

    /// The mode to first order after a change of beta, Sigma* = I + delta and Lambda (`dlambda`, of loadings; per factor),
    /// in terms of Lambda as it was but for its loadings.
    pub fn predict_mode(&self, at: &Point, dbeta: &[f64], delta: &[Vec<f64>], dlambda: &[Vec<f64>]) -> Vec<f64> {
        let (m, sym) = (self.moments(), &self.lmm().symbolic);
        let p = self.plan.p();
        let mut g: Vec<Vec<f64>> = vec![];
        for factor in &m.factors {
            g.push(factor.zx.chunks_exact(p + 1).map(|z| -dot(&z[..p], dbeta)).collect());
        }
        let mut r = self.project(&at.lambda, &g);
        if self.has_loadings() {
            let moved = loadings::multiply(m, &self.effects(dlambda, &at.u));
            let own = self.project(dlambda, &self.zg);
            let all = self.project(&at.lambda, &moved);
            r.iter_mut().zip(own.iter().zip(&all)).for_each(|(r, (a, b))| *r -= a + b);
        }
        let mut moved = vec![0.0; r.len()];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for l in 0..factor.levels {
                let o = sym.at(f, l);
                for a in 0..k {
                    moved[o + a] = (0..k).map(|b| delta[f][a + b * k] * at.u[o + b]).sum();
                }
            }
        }
        r.iter_mut().zip(self.precision(&moved)).for_each(|(r, m)| *r += m);
        self.solve(&mut r);
        r.iter_mut().zip(&at.u).for_each(|(r, u)| *r += u);
        r
    }
}
