//! The curvature of the groups at the mode, factored along the chain, and the way back from a change of its factor.
//!
//! Eliminating inner levels first fills nothing in: the Cholesky factor L of H has the blocks of H. The nodes are
//! u = u_hat + delta, L' delta = sqrt(2) x, so that an inner level follows its ancestors' nodes.

use super::chain::{Chain, NONE};
use super::number::{self, sum, Dual, Number};
use crate::design::Moments;
use crate::CoreError;

/// H and its factor, by depth and level; blocks are column-major.
pub struct Groups<T = f64> {
    /// H_ll, k x k.
    h: Vec<Vec<T>>,
    /// H_el for every ancestor e of l, k_e x k; [depth][e - depth - 1].
    h_above: Vec<Vec<Vec<T>>>,
    l: Vec<Vec<T>>,
    l_above: Vec<Vec<Vec<T>>>,
    pub logdet: Vec<Vec<T>>,
    /// Modes, levels x k.
    pub u: Vec<Vec<T>>,
}

/// Blocks like those of H: [depth] and [depth][e - depth - 1].
pub struct Blocks<T = f64> {
    pub diag: Vec<Vec<T>>,
    pub above: Vec<Vec<Vec<T>>>,
}

impl Blocks<Dual> {
    /// The derivatives alone.
    pub fn change(&self) -> Blocks {
        let change = |b: &Vec<Dual>| b.iter().map(|b| b.d).collect();
        Blocks {
            diag: self.diag.iter().map(change).collect(),
            above: self.above.iter().map(|b| b.iter().map(change).collect()).collect(),
        }
    }
}

/// Cross-products of the rows that lie elsewhere, by factor and by observed pair.
pub struct View<'b, T = f64> {
    pub diag: Vec<&'b [T]>,
    pub pairs: Vec<&'b [T]>,
}

impl<'b, T> View<'b, T> {
    pub fn of(diag: &'b [Vec<T>], pairs: &'b [Vec<T>]) -> Self {
        View { diag: diag.iter().map(|d| &d[..]).collect(), pairs: pairs.iter().map(|p| &p[..]).collect() }
    }
}

impl<'b> View<'b> {
    /// Z'D2Z.
    pub fn of_moments(m: &'b Moments) -> Self {
        View {
            diag: m.factors.iter().map(|f| &f.gram[..]).collect(),
            pairs: m.pairs.iter().map(|p| &p.value[..]).collect(),
        }
    }
}

/// The i-th block of so many entries.
#[inline]
fn block<T>(a: &[T], i: usize, size: usize) -> &[T] {
    &a[i * size..(i + 1) * size]
}

#[inline]
fn block_mut<T>(a: &mut [T], i: usize, size: usize) -> &mut [T] {
    &mut a[i * size..(i + 1) * size]
}

/// C += s A B', A m x k, B n x k.
fn add_nt<T: Number>(c: &mut [T], a: &[T], b: &[T], (m, n, k): (usize, usize, usize), s: f64) {
    for j in 0..n {
        for i in 0..m {
            c[i + j * m] += sum((0..k).map(|t| (a[i + t * m], b[j + t * n]))) * s;
        }
    }
}

/// C += s A' B, A k x m, B k x n.
fn add_tn<T: Number>(c: &mut [T], a: &[T], b: &[T], (m, n, k): (usize, usize, usize), s: f64) {
    for j in 0..n {
        for i in 0..m {
            c[i + j * m] += sum((0..k).map(|t| (a[t + i * k], b[t + j * k]))) * s;
        }
    }
}

/// C += s A B, A m x k, B k x n.
fn add_nn<T: Number>(c: &mut [T], a: &[T], b: &[T], (m, n, k): (usize, usize, usize), s: f64) {
    for j in 0..n {
        for i in 0..m {
            c[i + j * m] += sum((0..k).map(|t| (a[i + t * m], b[t + j * k]))) * s;
        }
    }
}

impl<T: Number> Groups<T> {
    /// From the cross-products at the mode and Lambda; `u` are the modes by depth (levels x k).
    pub fn new(products: &View<'_, T>, chain: &Chain, lambda: &[Vec<T>], u: Vec<Vec<T>>) -> Result<Self, CoreError> {
        let (mut h, mut h_above) = (vec![], vec![]);
        for (d, &f) in chain.factor.iter().enumerate() {
            let k = chain.cols[d];
            let gram = products.diag[f];
            let mut own = vec![T::default(); gram.len()];
            let mut half = vec![T::default(); k * k];
            for (out, g) in own.chunks_exact_mut(k * k).zip(gram.chunks_exact(k * k)) {
                half.fill(T::default());
                add_nn(&mut half, g, &lambda[f], (k, k, k), 1.0);
                add_tn(out, &lambda[f], &half, (k, k, k), 1.0);
                (0..k).for_each(|i| out[i + i * k] += T::from(1.0));
            }
            h.push(own);
            let mut above = vec![];
            for (link, e) in chain.above[d].iter().zip(d + 1..) {
                let (ke, g) = (chain.cols[e], chain.factor[e]);
                let mut cross = vec![T::default(); chain.levels[d] * k * ke];
                for (l, out) in cross.chunks_exact_mut(k * ke).enumerate().filter(|(l, _)| link.entry[*l] != NONE) {
                    let v = block(products.pairs[link.pair], link.entry[l] as usize, k * ke);
                    // Lambda_e' G_el Lambda_d.
                    let mut half = vec![T::default(); k * ke];
                    if link.inner_leads {
                        (0..k * ke).for_each(|t| half[t] = v[t / ke + (t % ke) * k]);
                    } else {
                        half.copy_from_slice(v);
                    }
                    let mut left = vec![T::default(); k * ke];
                    add_tn(&mut left, &lambda[g], &half, (ke, k, ke), 1.0);
                    add_nn(out, &left, &lambda[f], (ke, k, k), 1.0);
                }
                above.push(cross);
            }
            h_above.push(above);
        }
        let mut out = Groups { l: h.clone(), l_above: h_above.clone(), h, h_above, logdet: vec![], u };
        out.factorise(chain)?;
        Ok(out)
    }

    fn factorise(&mut self, chain: &Chain) -> Result<(), CoreError> {
        for d in 0..chain.depth() {
            let k = chain.cols[d];
            let mut logdet = vec![T::default(); chain.levels[d]];
            for l in 0..chain.levels[d] {
                let own = block_mut(&mut self.l[d], l, k * k);
                number::cholesky(own, k)?;
                logdet[l] = (0..k).fold(T::default(), |s, i| s + own[i + i * k].ln()) * 2.0;
                if d + 1 == chain.depth() {
                    continue;
                }
                let own = own.to_vec();
                for (a, e) in (d + 1..chain.depth()).enumerate() {
                    let ke = chain.cols[e];
                    number::solve_right_transposed(&own, k, block_mut(&mut self.l_above[d][a], l, k * ke), ke);
                }
                for f in d + 1..chain.depth() {
                    let (kf, lf) = (chain.cols[f], chain.ancestor(d, f, l));
                    let right = block(&self.l_above[d][f - d - 1], l, k * kf).to_vec();
                    add_nt(block_mut(&mut self.l[f], lf, kf * kf), &right, &right, (kf, kf, k), -1.0);
                    for e in f + 1..chain.depth() {
                        let ke = chain.cols[e];
                        let left = block(&self.l_above[d][e - d - 1], l, k * ke).to_vec();
                        let at = block_mut(&mut self.l_above[f][e - f - 1], lf, kf * ke);
                        add_nt(at, &left, &right, (ke, kf, k), -1.0);
                    }
                }
            }
            self.logdet.push(logdet);
        }
        Ok(())
    }

    /// delta of all levels at depth d for a node x, the ancestors' being known (`delta[e]` for e > d).
    pub fn displaced(&self, chain: &Chain, d: usize, x: &[f64], delta: &mut [Vec<T>]) {
        let k = chain.cols[d];
        let (own, outer) = delta[d..].split_at_mut(1);
        let own = &mut own[0];
        let root = std::f64::consts::SQRT_2;
        if k == 1 && self.l_above[d].is_empty() {
            own.iter_mut().zip(&self.l[d]).for_each(|(o, l)| *o = T::from(root * x[0]) / *l);
            return;
        }
        for (l, out) in own.chunks_exact_mut(k).enumerate() {
            out.iter_mut().zip(x).for_each(|(o, x)| *o = T::from(root * x));
            for (a, above) in self.l_above[d].iter().enumerate() {
                let ke = chain.cols[d + 1 + a];
                let up = block(&outer[a], chain.ancestor(d, d + 1 + a, l), ke);
                let b = block(above, l, k * ke);
                out.iter_mut()
                    .enumerate()
                    .for_each(|(c, o)| *o -= sum(b[c * ke..].iter().copied().zip(up.iter().copied())));
            }
            number::solve_left_transposed(block(&self.l[d], l, k * k), k, out);
        }
    }

    /// The blocks C of which the gradient of -log-likelihood in H is C / 2: those of H^-1 with what the movement of the
    /// nodes adds. `moved[d][e - d]` holds sum pi grad h_l delta_e' (k x k_e), `path` the weight of every level.
    pub fn adjoint(&self, chain: &Chain, mut moved: Vec<Vec<Vec<T>>>, path: &[Vec<f64>]) -> Blocks<T> {
        self.forward(chain, &mut moved);
        // Adjoints of L: Q', less the weight of log L_ii.
        let depth = chain.depth();
        let transposed = |q: &[T], k: usize, ke: usize| -> Vec<T> {
            q.chunks_exact(k * ke).flat_map(|b| (0..k * ke).map(move |t| b[t / ke + (t % ke) * k])).collect()
        };
        let mut diag: Vec<Vec<T>> = vec![];
        let mut above: Vec<Vec<Vec<T>>> = vec![];
        for d in 0..depth {
            let k = chain.cols[d];
            let mut own = transposed(&moved[d][0], k, k);
            for (l, b) in own.chunks_exact_mut(k * k).enumerate() {
                (0..k).for_each(|i| b[i + i * k] -= T::from(path[d][l]) / self.l[d][l * k * k + i + i * k]);
            }
            diag.push(own);
            above.push((d + 1..depth).map(|e| transposed(&moved[d][e - d], k, chain.cols[e])).collect());
        }
        for d in (0..depth).rev() {
            if chain.cols[d] == 1 && d + 1 == depth {
                diag[d].iter_mut().zip(&self.l[d]).for_each(|(v, l)| *v *= T::from(0.5) / *l);
                continue;
            }
            for l in 0..chain.levels[d] {
                self.backward(chain, d, l, &mut diag, &mut above);
            }
        }
        // C = -2 d(log-likelihood) / dH.
        diag.iter_mut().flatten().chain(above.iter_mut().flatten().flatten()).for_each(|v| *v *= -2.0);
        Blocks { diag, above }
    }

    /// Q = L^-1 R column by column: Q_lb = L_ll^-1 (R_lb - sum over the levels m below l of L_lm Q_mb).
    fn forward(&self, chain: &Chain, moved: &mut [Vec<Vec<T>>]) {
        let depth = chain.depth();
        for d in 0..depth {
            let k = chain.cols[d];
            let (inner, outer) = moved.split_at_mut(d + 1);
            for l in 0..chain.levels[d] {
                for e in d..depth {
                    let ke = chain.cols[e];
                    let q = block_mut(&mut inner[d][e - d], l, k * ke);
                    number::solve_left(block(&self.l[d], l, k * k), k, q);
                    for f in d + 1..=e {
                        let (kf, lf) = (chain.cols[f], chain.ancestor(d, f, l));
                        let up = block_mut(&mut outer[f - d - 1][e - f], lf, kf * ke);
                        add_nn(up, block(&self.l_above[d][f - d - 1], l, k * kf), q, (kf, ke, k), -1.0);
                    }
                }
            }
        }
    }

    /// From the adjoints of L to those of H, one level; those of its ancestors are done (Murray 2016).
    fn backward(&self, chain: &Chain, d: usize, l: usize, diag: &mut [Vec<T>], above: &mut [Vec<Vec<T>>]) {
        let (k, depth) = (chain.cols[d], chain.depth());
        let factor = |f: usize| block(&self.l_above[d][f - d - 1], l, k * chain.cols[f]);
        let own = block(&self.l[d], l, k * k);
        let mut lbar = block(&diag[d], l, k * k).to_vec();
        for e in d + 1..depth {
            let (ke, le) = (chain.cols[e], chain.ancestor(d, e, l));
            let mut bar = block(&above[d][e - d - 1], l, k * ke).to_vec();
            for f in d + 1..depth {
                let (kf, lf) = (chain.cols[f], chain.ancestor(d, f, l));
                if f == e {
                    add_nn(&mut bar, block(&diag[e], le, ke * ke), factor(f), (ke, k, ke), -2.0);
                } else if f < e {
                    add_nn(&mut bar, block(&above[f][e - f - 1], lf, kf * ke), factor(f), (ke, k, kf), -2.0);
                } else {
                    add_tn(&mut bar, block(&above[e][f - e - 1], le, ke * kf), factor(f), (ke, k, kf), -2.0);
                }
            }
            let mut t = vec![T::default(); k * k];
            add_tn(&mut t, &bar, factor(e), (k, k, ke), 1.0);
            number::solve_left_transposed(own, k, &mut t);
            lbar.iter_mut().zip(&t).for_each(|(a, t)| *a -= *t);
            number::solve_right(own, k, &mut bar, ke);
            bar.iter_mut().for_each(|v| *v *= 0.5);
            block_mut(&mut above[d][e - d - 1], l, k * ke).copy_from_slice(&bar);
        }
        // P = lower triangle of L'Lbar with half its diagonal; S = L^-T (P + P') L^-1 / 2.
        for j in 0..k {
            lbar[j * k..j * (k + 1)].fill(T::default());
        }
        let mut p = vec![T::default(); k * k];
        add_tn(&mut p, own_lower(own, k).as_slice(), &lbar, (k, k, k), 1.0);
        let mut s = vec![T::default(); k * k];
        for j in 0..k {
            for i in j..k {
                s[i + j * k] = p[i + j * k] * 0.5;
                s[j + i * k] = p[i + j * k] * 0.5;
            }
        }
        number::solve_left_transposed(own, k, &mut s);
        number::solve_right(own, k, &mut s, k);
        block_mut(&mut diag[d], l, k * k).copy_from_slice(&s);
    }
}

impl Groups {
    /// ((H - I) C)_ll for every level, by depth.
    pub fn curved(&self, chain: &Chain, c: &Blocks) -> Vec<Vec<f64>> {
        let mut out: Vec<Vec<f64>> = chain.cols.iter().zip(&chain.levels).map(|(k, l)| vec![0.0; k * k * l]).collect();
        for d in 0..chain.depth() {
            let k = chain.cols[d];
            for l in 0..chain.levels[d] {
                let own = block_mut(&mut out[d], l, k * k);
                add_nn(own, block(&self.h[d], l, k * k), block(&c.diag[d], l, k * k), (k, k, k), 1.0);
                own.iter_mut().zip(block(&c.diag[d], l, k * k)).for_each(|(o, c)| *o -= c);
                for e in d + 1..chain.depth() {
                    let (ke, le) = (chain.cols[e], chain.ancestor(d, e, l));
                    let h = block(&self.h_above[d][e - d - 1], l, k * ke);
                    let c = block(&c.above[d][e - d - 1], l, k * ke);
                    add_tn(block_mut(&mut out[d], l, k * k), h, c, (k, k, ke), 1.0);
                    add_nt(block_mut(&mut out[e], le, ke * ke), h, c, (ke, ke, k), 1.0);
                }
            }
        }
        out
    }
}

fn own_lower<T: Number>(l: &[T], k: usize) -> Vec<T> {
    (0..k * k).map(|t| if t % k >= t / k { l[t] } else { T::default() }).collect()
}
