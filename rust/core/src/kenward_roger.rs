//! What Kenward & Roger (1997) need of a linear mixed model fitted by REML, from cross-products and the factorisation.
//!
//! The covariance V = sigma^2 V*, V* = W^-1 + Z Sigma* Z', is linear in the entries s_i of Sigma*, V_i = sigma^2 Z E_i Z',
//! and in its own scale, whose derivative is V itself. Their adjustment and degrees of freedom do not depend on which
//! linear parametrisation is taken, and in this one the second derivatives of V vanish and so does the part of the
//! scale in the adjustment. With Phi = (X'V^-1X)^-1, S = Z'V*^-1Z and T = X'V*^-1Z, in their notation
//!
//! ```text
//! Phi P_i Phi = -sigma^2 C T E_i T' C,      C = (X'V*^-1X)^-1,      Phi P_V Phi = -Phi,
//! Phi (Q_ij - P_i Phi P_j) Phi = sigma^2 C (T E_i S E_j T' - T E_i T' C T E_j T') C,
//! tr(P V_i P V_j) = tr(S E_i S E_j) - 2 tr(C T E_i S E_j T') + tr(C T E_i T' C T E_j T'),
//! tr(P V_i P V)   = tr(S E_i) - tr(C T E_i T'),      tr(P V P V) = n - p,
//! ```
//!
//! P = V^-1 - V^-1 X Phi X'V^-1. Nothing divides by Lambda: a variance may be zero. The traces of S come from
//! eliminating the factor of most levels (`Traces`).

use rayon::prelude::*;

use crate::dense;
use crate::design::{self, Factor, Moments, TermSlot};
use crate::error::shape;
use crate::fit::{user_matrix, Model};
use crate::linear::{dot, Component, Solution};
use crate::CoreError;

/// Largest work (multiplications) and memory (numbers) that the exact traces may take.
const MOST_WORK: f64 = 3e11;
const MOST_NUMBERS: f64 = 3e8;

/// What remains to be done is algebra of p x p matrices; `m` parameters, the scale last.
#[derive(Clone, Debug)]
pub struct Ingredients {
    /// -Phi P_i Phi = d Phi / d s_i in the user's columns, m x p x p.
    pub slopes: Vec<f64>,
    /// Phi (Q_ij - P_i Phi P_j) Phi, symmetrised, for pairs i >= j without the scale, packed by rows, in the user's
    /// columns.
    pub bends: Vec<f64>,
    /// tr(P V_i P V_j), m x m; `exact` tells whether it is that, or y'P V_i P V_j P y, which has the same expectation.
    pub information: Vec<f64>,
    pub exact: bool,
}

impl Model {
    /// Ingredients at theta and the REML estimate of sigma that goes with it; the model is left there.
    pub fn kenward_roger(&mut self, theta: &[f64]) -> Result<Ingredients, CoreError> {
        if self.lmm.moments.n <= self.lmm.moments.rank() {
            return shape("no residual degrees of freedom");
        }
        let lambda = self.lambda_from_theta(theta)?;
        let s = self.lmm.solve(&lambda, true)?;
        let nu = self.lmm.nu(true);
        let sigma = (s.r2 / nu).sqrt();
        let out = self.ingredients(&lambda, &s, sigma);
        self.set_state(lambda, s, sigma);
        Ok(out)
    }

    fn ingredients(&self, lambda: &[Vec<f64>], s: &Solution, sigma: f64) -> Ingredients {
        let lmm = &self.lmm;
        let (m, p) = (&lmm.moments, lmm.moments.p());
        let (c, p1) = (lmm.components.len(), p + 1);
        let t = self.weighted(lambda, s);
        let products = self.products(lambda, &t);
        let own = |i: usize| &products.own[i * p1 * p1..(i + 1) * p1 * p1];
        let cross = |i: usize, j: usize| &products.cross[pair(i, j) * p1 * p1..(pair(i, j) + 1) * p1 * p1];
        let user = |mut d: Vec<f64>| -> Vec<f64> {
            dense::solve_left_lt(&s.lx, p, p, &mut d, p, p);
            dense::solve_right_l(&s.lx, p, p, &mut d, p, p);
            d.iter_mut().for_each(|v| *v *= sigma * sigma);
            user_matrix(m, &d)
        };
        let mut slopes = vec![];
        for i in 0..c {
            slopes.extend(user(leading(own(i), p)));
        }
        slopes.extend(user((0..p * p).map(|k| f64::from(k % p == k / p)).collect()));
        let mut bends = vec![];
        for i in 0..c {
            for j in 0..=i {
                let (bi, bj) = (own(i), own(j));
                let mut d = leading(cross(i, j), p);
                for a in 0..p {
                    for b in 0..p {
                        let both: f64 = (0..p).map(|k| bi[a + k * p1] * bj[k + b * p1]).sum();
                        d[a + b * p] -= both;
                    }
                }
                let even: Vec<f64> = (0..p * p).map(|k| 0.5 * (d[k] + d[k / p + (k % p) * p])).collect();
                bends.extend(user(even));
            }
        }
        let traces = Traces::new(m, lambda, &lmm.components, true);
        let exact = traces.is_some();
        let information = match traces {
            Some(t) => expected(m, &t, &products, p),
            None => average(m, &products, p, sigma),
        };
        Ingredients { slopes, bends, information, exact }
    }

    /// Columns of Z'V*^-1[X R^-1, y - X beta] (size x (p + 1), row-major, elimination order), R'R = X'V*^-1X.
    fn weighted(&self, lambda: &[Vec<f64>], s: &Solution) -> Vec<f64> {
        let (lmm, p) = (&self.lmm, self.lmm.moments.p());
        let p1 = p + 1;
        let mut x = s.f.clone();
        lmm.numeric.backward(&lmm.symbolic, &mut x, p1);
        let x = self.gram_times(&self.blockwise(lambda, false, &x, p1), p1);
        let mut t = lmm.right_hand_side(&identity(&lmm.moments));
        t.iter_mut().zip(&x).for_each(|(t, x)| *t -= x);
        for row in t.chunks_exact_mut(p1) {
            let fit = dot(&row[..p], &s.beta);
            row[p] -= fit;
        }
        dense::solve_left_l(&s.lx, p, p, &mut t, lmm.symbolic.size, p1);
        t
    }

    /// S times b, S = G - G Lambda A^-1 Lambda' G with G = Z'WZ.
    fn s_times(&self, lambda: &[Vec<f64>], b: &[f64], w: usize) -> Vec<f64> {
        let lmm = &self.lmm;
        let mut out = self.gram_times(b, w);
        let mut x = self.blockwise(lambda, true, &out, w);
        lmm.numeric.forward(&lmm.symbolic, &mut x, w);
        lmm.numeric.backward(&lmm.symbolic, &mut x, w);
        let x = self.gram_times(&self.blockwise(lambda, false, &x, w), w);
        out.iter_mut().zip(&x).for_each(|(o, x)| *o -= x);
        out
    }

    /// Lambda b, or Lambda' b, level by level.
    fn blockwise(&self, lambda: &[Vec<f64>], transposed: bool, b: &[f64], w: usize) -> Vec<f64> {
        let (m, sym) = (&self.lmm.moments, &self.lmm.symbolic);
        let mut out = vec![0.0; b.len()];
        for pos in 0..sym.nodes {
            let f = sym.factor_at[pos] as usize;
            let (k, at) = (m.factors[f].cols, sym.offset[pos] as usize * w);
            let from = &b[at..at + k * w];
            let to = &mut out[at..at + k * w];
            for r in 0..k {
                for c in 0..k {
                    let v = if transposed { lambda[f][c + r * k] } else { lambda[f][r + c * k] };
                    add(&mut to[r * w..(r + 1) * w], &from[c * w..(c + 1) * w], v);
                }
            }
        }
        out
    }

    /// Z'WZ b.
    fn gram_times(&self, b: &[f64], w: usize) -> Vec<f64> {
        let (m, sym) = (&self.lmm.moments, &self.lmm.symbolic);
        let row = |f: usize, l: usize| sym.offset[sym.position[sym.base[f] as usize + l] as usize] as usize * w;
        let mut out = vec![0.0; b.len()];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for (l, g) in factor.gram.chunks_exact(k * k).enumerate() {
                let at = row(f, l);
                for r in 0..k {
                    for c in 0..k {
                        add(&mut out[at + r * w..at + (r + 1) * w], &b[at + c * w..at + (c + 1) * w], g[r + c * k]);
                    }
                }
            }
        }
        for p in &m.pairs {
            let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
            for l in 0..m.factors[p.lead].levels {
                let at = row(p.lead, l);
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let other = row(p.other, p.level[e] as usize);
                    let block = &p.value[e * kl * ko..(e + 1) * kl * ko];
                    for c in 0..ko {
                        for r in 0..kl {
                            let (i, j, v) = (at + r * w, other + c * w, block[r + c * kl]);
                            add(&mut out[i..i + w], &b[j..j + w], v);
                            add(&mut out[j..j + w], &b[i..i + w], v);
                        }
                    }
                }
            }
        }
        out
    }

    /// E_i t: each level's rows `row` and `col` change places, others vanish.
    fn component_times(&self, i: &Component, t: &[f64], w: usize) -> Vec<f64> {
        let sym = &self.lmm.symbolic;
        let mut out = vec![0.0; t.len()];
        for pos in (0..sym.nodes).filter(|&q| sym.factor_at[q] as usize == i.factor) {
            let at = sym.offset[pos] as usize;
            for (r, c) in cells(i) {
                out[(at + r) * w..(at + r + 1) * w].copy_from_slice(&t[(at + c) * w..(at + c + 1) * w]);
            }
        }
        out
    }

    /// T E_i T' and T E_i S E_j T' over the columns of `t`.
    fn products(&self, lambda: &[Vec<f64>], t: &[f64]) -> Products {
        let (c, w) = (self.lmm.components.len(), self.lmm.moments.p() + 1);
        let q = self.lmm.symbolic.size;
        let mut out =
            Products { own: vec![0.0; c * w * w], cross: vec![0.0; c * (c + 1) / 2 * w * w], first: vec![0.0; c] };
        for (i, ci) in self.lmm.components.iter().enumerate() {
            let y = self.component_times(ci, t, w);
            dense::gemm_nt(&mut out.own[i * w * w..(i + 1) * w * w], w, t, w, &y, w, w, w, q, 1.0);
            let y = self.s_times(lambda, &y, w);
            for (j, cj) in self.lmm.components[..=i].iter().enumerate() {
                let other = self.component_times(cj, t, w);
                let block = &mut out.cross[pair(i, j) * w * w..(pair(i, j) + 1) * w * w];
                dense::gemm_nt(block, w, &y, w, &other, w, w, w, q, 1.0);
            }
            out.first[i] = out.own[i * w * w + w * w - 1];
        }
        out
    }
}

// ---- the Hessian of the deviance ------------------------------------------------------------------------------------

impl Model {
    /// Hessian in (theta, sigma) of the deviance with sigma not profiled, column-major (m x m). From
    ///
    /// ```text
    /// d2 / ds_i ds_j = 2 y'P V_i P V_j P y / sigma^2 - tr(P V_i P V_j)      (V^-1 in the trace for ML)
    /// ```
    ///
    /// and Sigma* = Lambda Lambda'; by differences of the gradient where the traces are out of proportion. The model is
    /// left at theta.
    pub fn hessian(&mut self, theta: &[f64], sigma: f64, reml: bool) -> Result<Vec<f64>, CoreError> {
        if !(sigma > 0.0) || !sigma.is_finite() {
            return shape("sigma must be positive");
        }
        let lambda = self.lambda_from_theta(theta)?;
        let Some(traces) = Traces::new(&self.lmm.moments, &lambda, &self.lmm.components, reml) else {
            return self.hessian_by_differences(theta, sigma, reml);
        };
        let s = self.lmm.solve(&lambda, reml)?;
        let products = self.products(&lambda, &self.weighted(&lambda, &s));
        let own = self.in_entries(&traces, &products, sigma, reml);
        let nu = self.lmm.nu(reml);
        let corner = 6.0 * s.r2 / sigma.powi(4) - 2.0 * nu / (sigma * sigma);
        let out = self.in_theta(theta, &own, corner)?;
        let profiled = (s.r2 / nu).sqrt();
        self.set_state(lambda, s, profiled);
        Ok(out)
    }

    fn in_entries(&self, t: &Traces, products: &Products, sigma: f64, reml: bool) -> Derivatives {
        let (c, p, s2) = (t.first.len(), self.lmm.moments.p(), sigma * sigma);
        let (n, w) = (c + 1, (p + 1) * (p + 1));
        let near = average(&self.lmm.moments, products, p, sigma);
        let trace = if reml { expected(&self.lmm.moments, t, products, p) } else { vec![] };
        let mut out = Derivatives { first: vec![], second: vec![0.0; c * c], mixed: vec![] };
        for i in 0..c {
            let fixed = if reml { self::trace(&products.own[i * w..(i + 1) * w], p) } else { 0.0 };
            out.first.push(t.first[i] - fixed - products.first[i] / s2);
            out.mixed.push(2.0 * products.first[i] / (s2 * sigma));
            for j in 0..c {
                let v = if reml { trace[i + j * n] } else { 0.5 * (t.second[i + j * c] + t.second[j + i * c]) };
                out.second[i + j * c] = 2.0 * near[i + j * n] - v;
            }
        }
        out
    }

    /// Chain rule: dSigma = dLambda Lambda' + Lambda dLambda' in the user's columns, M dSigma M' in the core's.
    fn in_theta(&self, theta: &[f64], own: &Derivatives, corner: f64) -> Result<Vec<f64>, CoreError> {
        let (c, m) = (own.first.len(), theta.len() + 1);
        let mut h = vec![0.0; m * m];
        h[m * m - 1] = corner;
        let mut rows: Vec<(usize, usize, usize, Vec<f64>)> = vec![];
        let terms = self.term_lambda_from_theta(theta)?;
        let places = self.places();
        let cols: Vec<usize> = self.slots().iter().map(|(_, s)| s.cols).collect();
        let slopes: Vec<Vec<f64>> = (0..cols.len()).map(|t| self.user_slope(t, &places[t], own)).collect();
        for (t, ((_, slot), lambda)) in self.slots().into_iter().zip(&terms).enumerate() {
            let k = slot.cols;
            let shear = shear(slot);
            for col in 0..k {
                for row in slot.structure.rows(col, k) {
                    let mut d = vec![0.0; k * k];
                    for e in 0..k {
                        d[row + e * k] += lambda[e + col * k];
                        d[e + row * k] += lambda[e + col * k];
                    }
                    let d = sandwich(&shear, &d, k);
                    let mut chain = vec![0.0; c];
                    places[t].iter().for_each(|&(i, r, c)| chain[i] = d[r + c * k]);
                    rows.push((t, row, col, chain));
                }
            }
        }
        for (a, (ta, ra, ca, ja)) in rows.iter().enumerate() {
            let along: Vec<f64> = (0..c).map(|i| dot(&own.second[i * c..(i + 1) * c], ja)).collect();
            for (b, (tb, rb, cb, jb)) in rows.iter().enumerate() {
                h[a + b * m] = dot(&along, jb);
                if ta == tb && ca == cb {
                    h[a + b * m] += 2.0 * slopes[*ta][ra + rb * cols[*ta]];
                }
            }
            h[a + (m - 1) * m] = dot(&own.mixed, ja);
            h[m - 1 + a * m] = h[a + (m - 1) * m];
        }
        Ok(h)
    }

    /// Entries of Sigma* by term: (component, row, column).
    fn places(&self) -> Vec<Vec<(usize, usize, usize)>> {
        let m = &self.lmm.moments;
        let mut out = vec![vec![]; m.n_terms];
        for (i, c) in self.lmm.components.iter().enumerate() {
            let slot = &m.factors[c.factor].slots[c.slot];
            out[slot.term].push((i, c.row - slot.offset, c.col - slot.offset));
        }
        out
    }

    /// G with d deviance = tr(G dSigma) of a term in the user's columns.
    fn user_slope(&self, term: usize, places: &[(usize, usize, usize)], own: &Derivatives) -> Vec<f64> {
        let (_, slot) = self.slots()[term];
        let k = slot.cols;
        let mut g = vec![0.0; k * k];
        for &(i, r, c) in places {
            let v = own.first[i] * if r == c { 1.0 } else { 0.5 };
            g[r + c * k] = v;
            g[c + r * k] = v;
        }
        let m = shear(slot);
        let transposed: Vec<f64> = (0..k * k).map(|e| m[e / k + (e % k) * k]).collect();
        sandwich(&transposed, &g, k)
    }
}

/// Derivatives of the deviance in the entries of Sigma* and, mixed, sigma.
struct Derivatives {
    first: Vec<f64>,
    second: Vec<f64>,
    mixed: Vec<f64>,
}

/// M with b_own = M b: the shifts of the columns are booked on the carrier.
fn shear(slot: &TermSlot) -> Vec<f64> {
    let k = slot.cols;
    let mut out: Vec<f64> = (0..k * k).map(|e| f64::from(e % k == e / k)).collect();
    if let Some(c) = slot.carrier {
        (0..k).filter(|&j| j != c).for_each(|j| out[c + j * k] += slot.shift[j]);
    }
    out
}

/// Cross-products over the columns [X R^-1, y - X beta].
struct Products {
    own: Vec<f64>,
    cross: Vec<f64>,
    /// e'E_i e.
    first: Vec<f64>,
}

/// Position of (i, j) among packed pairs.
fn pair(i: usize, j: usize) -> usize {
    let (i, j) = (i.max(j), i.min(j));
    i * (i + 1) / 2 + j
}

/// The leading p x p block of a (p + 1) x (p + 1) matrix.
fn leading(a: &[f64], p: usize) -> Vec<f64> {
    (0..p * p).map(|k| a[k % p + (k / p) * (p + 1)]).collect()
}

fn trace(a: &[f64], p: usize) -> f64 {
    (0..p).map(|k| a[k * (p + 2)]).sum()
}

/// Expected information, twice: tr(P V_i P V_j).
fn expected(m: &Moments, t: &Traces, products: &Products, p: usize) -> Vec<f64> {
    let c = t.first.len();
    let (n, w) = (c + 1, (p + 1) * (p + 1));
    let mut out = vec![0.0; n * n];
    for i in 0..c {
        let bi = &products.own[i * w..(i + 1) * w];
        for j in 0..=i {
            let bj = &products.own[j * w..(j + 1) * w];
            let both: f64 = (0..p).map(|k| dot(&bi[k * (p + 1)..][..p], &bj[k * (p + 1)..][..p])).sum();
            let v = t.second[i + j * c] - 2.0 * trace(&products.cross[pair(i, j) * w..][..w], p) + both;
            (out[i + j * n], out[j + i * n]) = (v, v);
        }
        let v = t.first[i] - trace(bi, p);
        (out[i + c * n], out[c + i * n]) = (v, v);
    }
    out[c + c * n] = (m.n - m.rank()) as f64;
    out
}

/// Average information, twice (Gilmour, Thompson & Cullis 1995): y'P V_i P V_j P y.
fn average(m: &Moments, products: &Products, p: usize, sigma: f64) -> Vec<f64> {
    let c = products.first.len();
    let (n, w, s2) = (c + 1, (p + 1) * (p + 1), sigma * sigma);
    let mut out = vec![0.0; n * n];
    let side = |i: usize| &products.own[i * w + p * (p + 1)..][..p];
    for i in 0..c {
        for j in 0..=i {
            let v = (products.cross[pair(i, j) * w + w - 1] - dot(side(i), side(j))) / s2;
            (out[i + j * n], out[j + i * n]) = (v, v);
        }
        let v = products.first[i] / s2;
        (out[i + c * n], out[c + i * n]) = (v, v);
    }
    out[c + c * n] = (m.n - m.rank()) as f64;
    out
}

fn add(to: &mut [f64], from: &[f64], v: f64) {
    if v != 0.0 {
        to.iter_mut().zip(from).for_each(|(o, x)| *o += v * x);
    }
}

fn identity(m: &Moments) -> Vec<Vec<f64>> {
    m.factors.iter().map(|f| (0..f.cols * f.cols).map(|k| f64::from(k % f.cols == k / f.cols)).collect()).collect()
}

/// Entries of E_i.
fn cells(c: &Component) -> impl Iterator<Item = (usize, usize)> {
    let both = [(c.row, c.col), (c.col, c.row)];
    both.into_iter().take(if c.row == c.col { 1 } else { 2 })
}

/// tr(A E_i B E_j) of k x k blocks.
fn trace_of(a: &[f64], b: &[f64], k: usize, i: &Component, j: &Component) -> f64 {
    let mut sum = 0.0;
    for (r, c) in cells(i) {
        for (u, v) in cells(j) {
            sum += a[v + r * k] * b[c + u * k];
        }
    }
    sum
}

// ---- traces of S ----------------------------------------------------------------------------------------------------

/// tr(S E_i) and tr(S E_i S E_j).
///
/// With the factor `a` of most levels absorbed, V_a = W^-1 + Z_a Sigma_a Z_a' falls apart by its levels, and so do the
/// blocks N = [Z_a Z_b]'V_a^-1[Z_a Z_b] of a. The rest b, of order q_b, gives with K = Lambda (I + Lambda'N_bb Lambda)^-1
/// Lambda' and F = I - K N_bb
///
/// ```text
/// S_aa = N_aa - N_ab K N_ba,      S_ab = N_ab F,      S_bb = N_bb F,
/// ```
///
/// and b falls apart into the levels that share no level of a: order q_b^3 for two crossed factors, next to nothing for
/// nested ones, whatever the number of levels of a.
pub struct Traces {
    first: Vec<f64>,
    second: Vec<f64>,
}

/// Blocks of one level of the absorbed factor (k x k): N_aa, I - G H and H = Lambda (I + Lambda'G Lambda)^-1 Lambda'.
struct Absorbed {
    n: Vec<f64>,
    b: Vec<f64>,
    h: Vec<f64>,
}

/// Levels of the other factors that hang together, and the levels of the absorbed factor that tie them.
struct Part {
    nodes: Vec<(usize, usize)>,
    leads: Vec<usize>,
    size: usize,
}

struct Rest<'a> {
    m: &'a Moments,
    lambda: &'a [Vec<f64>],
    components: &'a [Component],
    lead: usize,
    absorbed: Vec<Absorbed>,
    /// First row of every level of every other factor in its part.
    row: Vec<Vec<usize>>,
}

impl Traces {
    /// None where the work would be out of proportion. Coefficients of wide factors are part of what REML integrates out:
    /// absorbed with Sigma_a without bound, N_aa = 0, they leave the traces given them.
    fn new(m: &Moments, lambda: &[Vec<f64>], components: &[Component], reml: bool) -> Option<Self> {
        if !m.wide.is_empty() && !reml {
            let alone = m.part(design::Part::Random);
            return Traces::new(&alone, &lambda[..alone.factors.len()], components, false);
        }
        let c = components.len();
        if c == 0 {
            return Some(Traces { first: vec![], second: vec![] });
        }
        // The first of the most levels leads every pair that it belongs to.
        let lead = (0..m.factors.len()).rev().max_by_key(|&f| m.factors[f].levels)?;
        let (parts, row) = parts(m, lead);
        let (wide, unbounded) = (m.wide.len(), lead >= m.random());
        if wide > 1 || (wide == 1 && !unbounded) || !in_proportion(m, lead, &parts, components) {
            return None;
        }
        let factor = &m.factors[lead];
        let k2 = factor.cols * factor.cols;
        let absorbed = match unbounded {
            true => factor.gram.iter().map(|&g| absorb_wide(g)).collect(),
            false => factor.gram.par_chunks(k2).map(|g| absorb(g, &lambda[lead], factor.cols)).collect(),
        };
        let rest = Rest { m, lambda, components, lead, absorbed, row };
        let add = |mut a: Traces, b: Traces| {
            a.first.iter_mut().zip(&b.first).for_each(|(a, b)| *a += b);
            a.second.iter_mut().zip(&b.second).for_each(|(a, b)| *a += b);
            a
        };
        let zero = || Traces { first: vec![0.0; c], second: vec![0.0; c * c] };
        Some(add(rest.of_lead(), parts.par_iter().map(|p| rest.of_part(p)).reduce(zero, add)))
    }
}

/// Split the levels of all factors but one into parts that hang together.
fn parts(m: &Moments, lead: usize) -> (Vec<Part>, Vec<Vec<usize>>) {
    let mut base = vec![0usize];
    for (f, factor) in m.factors.iter().enumerate() {
        base.push(base[f] + if f == lead { 0 } else { factor.levels });
    }
    let mut of: Vec<usize> = (0..base[m.factors.len()]).collect();
    let mut anchor = vec![usize::MAX; m.factors[lead].levels];
    for p in &m.pairs {
        for l in 0..m.factors[p.lead].levels {
            for e in p.start[l] as usize..p.start[l + 1] as usize {
                let other = base[p.other] + p.level[e] as usize;
                if p.lead != lead {
                    join(&mut of, base[p.lead] + l, other);
                } else if anchor[l] == usize::MAX {
                    anchor[l] = other;
                } else {
                    join(&mut of, anchor[l], other);
                }
            }
        }
    }
    let mut at = vec![usize::MAX; of.len()];
    let mut parts: Vec<Part> = vec![];
    let mut row: Vec<Vec<usize>> = m.factors.iter().map(|_| vec![]).collect();
    for (f, factor) in m.factors.iter().enumerate().filter(|(f, _)| *f != lead) {
        for l in 0..factor.levels {
            let r = root(&mut of, base[f] + l);
            if at[r] == usize::MAX {
                at[r] = parts.len();
                parts.push(Part { nodes: vec![], leads: vec![], size: 0 });
            }
            let part = &mut parts[at[r]];
            row[f].push(part.size);
            part.nodes.push((f, l));
            part.size += factor.cols;
        }
    }
    for (l, &a) in anchor.iter().enumerate().filter(|(_, a)| **a != usize::MAX) {
        parts[at[root(&mut of, a)]].leads.push(l);
    }
    (parts, row)
}

fn root(of: &mut [usize], mut i: usize) -> usize {
    while of[i] != i {
        of[i] = of[of[i]];
        i = of[i];
    }
    i
}

fn join(of: &mut [usize], i: usize, j: usize) {
    let (i, j) = (root(of, i), root(of, j));
    of[i.max(j)] = i.min(j);
}

fn in_proportion(m: &Moments, lead: usize, parts: &[Part], components: &[Component]) -> bool {
    let own = components.iter().filter(|c| c.factor == lead).count() as f64;
    let cube: f64 = parts.iter().map(|p| (p.size as f64).powi(3)).sum();
    let widest = parts.iter().map(|p| p.size as f64).fold(0.0, f64::max);
    let mut degree = vec![0.0; m.factors[lead].levels];
    for p in m.pairs.iter().filter(|p| p.lead == lead) {
        let k = m.factors[p.other].cols as f64;
        p.start.windows(2).zip(&mut degree).for_each(|(w, d)| *d += k * f64::from(w[1] - w[0]));
    }
    let scatter: f64 = degree.iter().map(|d| d * d * (2.0 + own) * m.factors[lead].cols as f64).sum();
    cube * (3.0 + 2.0 * own) + 8.0 * scatter < MOST_WORK && widest * widest * (4.0 + own) < MOST_NUMBERS
}

fn absorb(g: &[f64], lambda: &[f64], k: usize) -> Absorbed {
    if k == 1 {
        let l2 = lambda[0] * lambda[0];
        let d = 1.0 / (1.0 + g[0] * l2);
        return Absorbed { n: vec![g[0] * d], b: vec![d], h: vec![l2 * d] };
    }
    // N = R (I + R'Sigma R)^-1 R' with G = R R' loses nothing where Sigma is large or small.
    let r = semidefinite_root(g, k);
    let lr = product(lambda, &r, k, true);
    let n = sandwich(&r, &inverse_plus(&product(&lr, &lr, k, true), k), k);
    let gl = product(g, lambda, k, false);
    let h = sandwich(lambda, &inverse_plus(&product(lambda, &gl, k, true), k), k);
    let mut b = product(g, &h, k, false);
    b.iter_mut().for_each(|v| *v = -*v);
    (0..k).for_each(|i| b[i * (k + 1)] += 1.0);
    Absorbed { n, b, h }
}

/// A level without a penalty; one without a coefficient is empty.
fn absorb_wide(g: f64) -> Absorbed {
    Absorbed { n: vec![0.0], b: vec![0.0], h: vec![if g > 0.0 { 1.0 / g } else { 0.0 }] }
}

/// Lower triangular R with R R' = G; columns of (nearly) no pivot are zero.
fn semidefinite_root(g: &[f64], k: usize) -> Vec<f64> {
    let mut r = vec![0.0; k * k];
    for j in 0..k {
        let pivot = g[j * (k + 1)] - (0..j).map(|t| r[j + t * k] * r[j + t * k]).sum::<f64>();
        if !(pivot > 1e-14 * g[j * (k + 1)]) {
            continue;
        }
        let root = pivot.sqrt();
        for i in j..k {
            r[i + j * k] = (g[i + j * k] - (0..j).map(|t| r[i + t * k] * r[j + t * k]).sum::<f64>()) / root;
        }
    }
    r
}

/// A B, or A'B, of k x k matrices.
fn product(a: &[f64], b: &[f64], k: usize, transposed: bool) -> Vec<f64> {
    let at = |i: usize, t: usize| if transposed { a[t + i * k] } else { a[i + t * k] };
    (0..k * k).map(|e| (0..k).map(|t| at(e % k, t) * b[t + (e / k) * k]).sum()).collect()
}

/// (I + A)^-1 for positive semidefinite A.
fn inverse_plus(a: &[f64], k: usize) -> Vec<f64> {
    let mut l = a.to_vec();
    (0..k).for_each(|i| l[i * (k + 1)] += 1.0);
    match dense::cholesky(&mut l, k, k) {
        Ok(()) => dense::inverse_from_cholesky(&l, k, k),
        Err(_) => vec![f64::NAN; k * k],
    }
}

/// A M A' for symmetric M.
fn sandwich(a: &[f64], m: &[f64], k: usize) -> Vec<f64> {
    let am = product(a, m, k, false);
    (0..k * k).map(|e| (0..k).map(|t| am[e % k + t * k] * a[e / k + t * k]).sum()).collect()
}

/// One level of the absorbed factor as its part sees it: rows in the part, N_ab and G_ab (k x rows.len()).
struct Link {
    rows: Vec<usize>,
    n: Vec<f64>,
    g: Vec<f64>,
}

impl Rest<'_> {
    fn lead(&self) -> &Factor {
        &self.m.factors[self.lead]
    }

    fn own(&self) -> impl Iterator<Item = (usize, &Component)> {
        self.components.iter().enumerate().filter(|(_, c)| c.factor == self.lead)
    }

    fn others(&self) -> impl Iterator<Item = (usize, &Component)> {
        self.components.iter().enumerate().filter(|(_, c)| c.factor != self.lead)
    }

    /// The part of N_aa.
    fn of_lead(&self) -> Traces {
        let (c, k) = (self.components.len(), self.lead().cols);
        let mut out = Traces { first: vec![0.0; c], second: vec![0.0; c * c] };
        for a in &self.absorbed {
            for (i, ci) in self.own() {
                out.first[i] += cells(ci).map(|(r, c)| a.n[c + r * k]).sum::<f64>();
                for (j, cj) in self.own() {
                    out.second[i + j * c] += trace_of(&a.n, &a.n, k, ci, cj);
                }
            }
        }
        out
    }

    fn link(&self, l: usize) -> Link {
        let k = self.lead().cols;
        let (mut rows, mut g) = (vec![], vec![]);
        for p in self.m.pairs.iter().filter(|p| p.lead == self.lead) {
            let ko = self.m.factors[p.other].cols;
            for e in p.start[l] as usize..p.start[l + 1] as usize {
                let at = self.row[p.other][p.level[e] as usize];
                rows.extend(at..at + ko);
                g.extend_from_slice(&p.value[e * k * ko..(e + 1) * k * ko]);
            }
        }
        let n = times(&self.absorbed[l].b, &g, k);
        Link { rows, n, g }
    }

    fn of_part(&self, part: &Part) -> Traces {
        let (c, s) = (self.components.len(), part.size);
        let mut out = Traces { first: vec![0.0; c], second: vec![0.0; c * c] };
        let links: Vec<Link> = part.leads.iter().map(|&l| self.link(l)).collect();
        let n_bb = self.remainder(part, &links);
        let k = self.kernel(part, &n_bb);
        let mut f = vec![0.0; s * s];
        dense::gemm(&mut f, s, &k, s, &n_bb, s, s, s, s, -1.0);
        (0..s).for_each(|i| f[i * (s + 1)] += 1.0);
        self.add_inner(part, &links, &k, &mut out);
        let shrunk: Vec<(usize, Vec<f64>)> = self
            .own()
            .map(|(i, ci)| (i, self.spread(ci, s, &links)))
            .map(|(i, h)| (i, self.against(part, i, h, &f, &k, &mut out)))
            .collect();
        for (i, a) in &shrunk {
            for (j, b) in &shrunk {
                out.second[i + j * c] += trace_of_product(a, b, s);
            }
        }
        drop(shrunk);
        let mut s_bb = vec![0.0; s * s];
        dense::gemm(&mut s_bb, s, &n_bb, s, &f, s, s, s, s, 1.0);
        self.add_rest(part, &s_bb, &mut out);
        out
    }

    /// N_bb = Z_b'V_a^-1Z_b.
    fn remainder(&self, part: &Part, links: &[Link]) -> Vec<f64> {
        let s = part.size;
        let mut out = vec![0.0; s * s];
        for &(f, l) in &part.nodes {
            let (k, at) = (self.m.factors[f].cols, self.row[f][l]);
            let g = &self.m.factors[f].gram[l * k * k..(l + 1) * k * k];
            (0..k * k).for_each(|e| out[at + e % k + (at + e / k) * s] += g[e]);
            for p in self.m.pairs.iter().filter(|p| p.lead == f) {
                let ko = self.m.factors[p.other].cols;
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let to = self.row[p.other][p.level[e] as usize];
                    for x in 0..k * ko {
                        let v = p.value[e * k * ko + x];
                        let (i, j) = (at + x % k, to + x / k);
                        out[i + j * s] += v;
                        out[j + i * s] += v;
                    }
                }
            }
        }
        let k = self.lead().cols;
        for (link, &l) in links.iter().zip(&part.leads) {
            let hg = times(&self.absorbed[l].h, &link.g, k);
            scatter(&mut out, s, &link.rows, &hg, &link.g, k, -1.0);
        }
        out
    }

    /// K = Lambda (I + Lambda'N_bb Lambda)^-1 Lambda'.
    fn kernel(&self, part: &Part, n_bb: &[f64]) -> Vec<f64> {
        let s = part.size;
        let mut a = n_bb.to_vec();
        self.scale(part, &mut a, true);
        self.scale_columns(part, &mut a, true);
        let mut inverse = inverse_plus(&a, s);
        self.scale(part, &mut inverse, false);
        self.scale_columns(part, &mut inverse, false);
        inverse
    }

    /// A <- Lambda A, or Lambda'A.
    fn scale(&self, part: &Part, a: &mut [f64], transposed: bool) {
        for column in a.chunks_exact_mut(part.size) {
            for &(f, l) in &part.nodes {
                let (k, at) = (self.m.factors[f].cols, self.row[f][l]);
                let old = column[at..at + k].to_vec();
                for r in 0..k {
                    column[at + r] =
                        (0..k).map(|c| old[c] * self.lambda[f][if transposed { c + r * k } else { r + c * k }]).sum();
                }
            }
        }
    }

    /// A <- A Lambda, or A Lambda'.
    fn scale_columns(&self, part: &Part, a: &mut [f64], straight: bool) {
        let s = part.size;
        for &(f, l) in &part.nodes {
            let (k, at) = (self.m.factors[f].cols, self.row[f][l]);
            let old = a[at * s..(at + k) * s].to_vec();
            let new = &mut a[at * s..(at + k) * s];
            new.fill(0.0);
            for c in 0..k {
                for r in 0..k {
                    let v = self.lambda[f][if straight { r + c * k } else { c + r * k }];
                    add(&mut new[c * s..(c + 1) * s], &old[r * s..(r + 1) * s], v);
                }
            }
        }
    }

    /// What J = N_ab K N_ba takes off the blocks of the absorbed factor.
    fn add_inner(&self, part: &Part, links: &[Link], kernel: &[f64], out: &mut Traces) {
        let (c, k, s) = (self.components.len(), self.lead().cols, part.size);
        for (link, &l) in links.iter().zip(&part.leads) {
            let mut j = vec![0.0; k * k];
            for (x, &col) in link.rows.iter().enumerate() {
                let mut nk = vec![0.0; k];
                for (y, &row) in link.rows.iter().enumerate() {
                    add(&mut nk, &link.n[y * k..(y + 1) * k], kernel[row + col * s]);
                }
                (0..k * k).for_each(|e| j[e] += nk[e % k] * link.n[x * k + e / k]);
            }
            for (i, ci) in self.own() {
                out.first[i] -= cells(ci).map(|(r, c)| j[c + r * k]).sum::<f64>();
                for (t, ct) in self.own() {
                    out.second[i + t * c] -= 2.0 * trace_of(&self.absorbed[l].n, &j, k, ci, ct);
                }
            }
        }
    }

    /// H_i = N_ba E_i N_ab.
    fn spread(&self, i: &Component, s: usize, links: &[Link]) -> Vec<f64> {
        let k = self.lead().cols;
        let mut e = vec![0.0; k * k];
        cells(i).for_each(|(r, c)| e[r + c * k] = 1.0);
        let mut out = vec![0.0; s * s];
        for link in links {
            scatter(&mut out, s, &link.rows, &times(&e, &link.n, k), &link.n, k, 1.0);
        }
        out
    }

    /// Add tr(F'H_i F E_j) for the components of the rest, and return K H_i.
    fn against(&self, part: &Part, i: usize, h: Vec<f64>, f: &[f64], kernel: &[f64], out: &mut Traces) -> Vec<f64> {
        let (c, s) = (self.components.len(), part.size);
        let mut hf = vec![0.0; s * s];
        dense::gemm(&mut hf, s, &h, s, f, s, s, s, s, 1.0);
        for &(g, l) in &part.nodes {
            let at = self.row[g][l];
            for (j, cj) in self.others().filter(|(_, cj)| cj.factor == g) {
                let v: f64 = cells(cj).map(|(r, c)| dot(&f[(at + r) * s..][..s], &hf[(at + c) * s..][..s])).sum();
                out.second[i + j * c] += v;
                out.second[j + i * c] += v;
            }
        }
        hf.fill(0.0);
        dense::gemm(&mut hf, s, kernel, s, &h, s, s, s, s, 1.0);
        hf
    }

    /// The traces among the components of the rest.
    fn add_rest(&self, part: &Part, s_bb: &[f64], out: &mut Traces) {
        let (c, s) = (self.components.len(), part.size);
        for &(f, l) in &part.nodes {
            let at = self.row[f][l];
            for (i, ci) in self.others().filter(|(_, ci)| ci.factor == f) {
                out.first[i] += cells(ci).map(|(r, c)| s_bb[at + c + (at + r) * s]).sum::<f64>();
                for &(g, t) in &part.nodes {
                    let to = self.row[g][t];
                    for (j, cj) in self.others().filter(|(_, cj)| cj.factor == g) {
                        for (r, cc) in cells(ci) {
                            for (u, v) in cells(cj) {
                                out.second[i + j * c] += s_bb[to + v + (at + r) * s] * s_bb[to + u + (at + cc) * s];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A B for A (k x k) and B (k x d).
fn times(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let mut out = vec![0.0; b.len()];
    for (o, x) in out.chunks_exact_mut(k).zip(b.chunks_exact(k)) {
        (0..k).for_each(|t| add(o, &a[t * k..(t + 1) * k], x[t]));
    }
    out
}

/// C[rows, rows] += alpha A'B for A, B (k x d).
fn scatter(out: &mut [f64], s: usize, rows: &[usize], a: &[f64], b: &[f64], k: usize, alpha: f64) {
    for (y, &col) in rows.iter().enumerate() {
        let column = &mut out[col * s..(col + 1) * s];
        let b = &b[y * k..(y + 1) * k];
        for (x, &row) in rows.iter().enumerate() {
            column[row] += alpha * dot(&a[x * k..(x + 1) * k], b);
        }
    }
}

/// tr(A B) of order n.
fn trace_of_product(a: &[f64], b: &[f64], n: usize) -> f64 {
    const B: usize = 64;
    let mut sum = 0.0;
    for jb in (0..n).step_by(B) {
        for ib in (0..n).step_by(B) {
            for j in jb..(jb + B).min(n) {
                for i in ib..(ib + B).min(n) {
                    sum += a[i + j * n] * b[j + i * n];
                }
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::design::{Block, Codes, Rows, Structure, Term};
    use crate::optimise::Options;

    fn rows<'a>(y: &'a [f64], codes: &'a [i32], levels: usize) -> Rows<'a> {
        let one = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None };
        let term = Term {
            codes: Codes::I32(codes),
            levels,
            structure: Structure::Unstructured,
            blocks: vec![one],
            joint: false,
            relation: None,
            fixed: false,
        };
        Rows { n: y.len(), fixed: vec![one], terms: vec![term], y, weights: None, offset: None }
    }

    /// Balanced groups: average and expected information agree at the optimum.
    #[test]
    fn average_information_is_the_expected_one_of_balanced_groups() {
        let codes: Vec<i32> = (0..24).map(|i| i / 4).collect();
        let y: Vec<f64> = (0..24).map(|i| ((i * 7919) % 31) as f64 / 9.0 + ((i / 4 * 13) % 7) as f64).collect();
        let mut model = Model::new(&rows(&y, &codes, 6)).unwrap();
        let theta = model.fit(true, None, &Options::default()).unwrap().theta;
        assert!(theta[0] > 0.0);
        let exact = model.kenward_roger(&theta).unwrap();
        assert!(exact.exact);
        let lambda = model.lambda_from_theta(&theta).unwrap();
        let s = model.lmm.solve(&lambda, true).unwrap();
        let products = model.products(&lambda, &model.weighted(&lambda, &s));
        let sigma = (s.r2 / model.lmm.nu(true)).sqrt();
        let near = average(&model.lmm.moments, &products, 1, sigma);
        for (a, b) in exact.information.iter().zip(&near) {
            assert!((a - b).abs() < 1e-6 * b.abs(), "{a} {b}"); // the optimum is good to 1e-8
        }
    }

    /// The exact Hessian is the difference quotient of the exact gradient, off the optimum too.
    #[test]
    fn hessian_is_the_slope_of_the_gradient() {
        let codes: Vec<i32> = (0..24).map(|i| i % 5).collect();
        let y: Vec<f64> = (0..24).map(|i| ((i * 7919) % 31) as f64 / 9.0).collect();
        let mut model = Model::new(&rows(&y, &codes, 5)).unwrap();
        for reml in [true, false] {
            for theta in [0.0, 0.4, 3.0] {
                let exact = model.hessian(&[theta], 1.2, reml).unwrap();
                let near = model.hessian_by_differences(&[theta], 1.2, reml).unwrap();
                let size = near.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                for (a, b) in exact.iter().zip(&near) {
                    assert!((a - b).abs() < 1e-6 * size, "{theta} {reml}: {a} {b}");
                    // of the difference quotient
                }
            }
        }
    }
}
