//! All of (L L')^-1, for factors so small that it is less work than many solves, tree by tree.

use super::leaves::right_division;
use super::numeric::{scalar_rows, Numeric};
use super::symbolic::{Super, Symbolic, NONE};
use crate::dense;

/// The supernodes of every tree of the elimination forest, in elimination order: between two trees the inverse is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    start: Vec<u32>,
    supers: Vec<u32>,
}

impl Forest {
    fn of(sym: &Symbolic) -> Self {
        let n = sym.supers.len();
        let (mut tree, mut count) = (vec![0u32; n], 0);
        for (i, s) in sym.supers.iter().enumerate().rev() {
            tree[i] = match s.parent {
                NONE => count,
                parent => tree[parent as usize],
            };
            count += u32::from(s.parent == NONE);
        }
        let mut start = vec![0u32; count as usize + 1];
        tree.iter().for_each(|&t| start[t as usize + 1] += 1);
        (0..count as usize).for_each(|t| start[t + 1] += start[t]);
        let (mut next, mut supers) = (start.clone(), vec![0u32; n]);
        for (i, &t) in tree.iter().enumerate() {
            let at = &mut next[t as usize];
            supers[*at as usize] = i as u32;
            *at += 1;
        }
        Forest { start, supers }
    }

    pub fn trees(&self) -> impl Iterator<Item = &[u32]> {
        self.start.windows(2).map(|w| &self.supers[w[0] as usize..w[1] as usize])
    }

    pub fn all(&self) -> &[u32] {
        &self.supers
    }
}

impl Symbolic {
    pub fn forest(&self) -> &Forest {
        self.trees.get_or_init(|| Forest::of(self))
    }
}

/// The inverse of some trees in pieces. With the leaves eliminated first, Y = L21 L11^-1 of each, spread over the rows of
/// the tail (what is no leaf), and Z the tail's own part of the inverse,
///
/// ```text
/// between tail and leaves  -Z Y,      between leaves  Y'Z Y  and, on the diagonal,  (L11 L11')^-1.
/// ```
///
/// Scalar rows are numbered anew: those of the tail, then those of the leaves, both in elimination order.
pub struct Whole {
    /// The scalar row in elimination order of each, and how many belong to the tail.
    pub scalars: Vec<u32>,
    tail: usize,
    /// Z, and Y and V = Z Y of all leaves (tail x leaves, column-major).
    z: Vec<f64>,
    y: Vec<f64>,
    v: Vec<f64>,
    /// Blocks (L11 L11')^-1 of the leaves, one after another, and of every leaf row the first row of its leaf, where its
    /// column of the block begins, and how long that is.
    own: Vec<f64>,
    column: Vec<(u32, u32, u32)>,
}

/// Multiplications to form all of the inverse of some supernodes.
fn work(sym: &Symbolic, tree: &[u32]) -> f64 {
    let (mut t, mut l) = (0.0, 0.0);
    for s in tree.iter().map(|&s| &sym.supers[s as usize]) {
        *(if s.leaf { &mut l } else { &mut t }) += s.width as f64;
    }
    t * t * t + t * t * l + t * l * l
}

impl Whole {
    /// Multiplications to form all of it, tree by tree or `together`.
    pub fn work(sym: &Symbolic, together: bool) -> f64 {
        match together {
            true => work(sym, sym.forest().all()),
            false => sym.forest().trees().map(|tree| work(sym, tree)).sum(),
        }
    }

    /// Some columns of the inverse, row-major (rows x columns), added to zeros.
    pub fn columns(&self, at: &[usize], out: &mut [f64]) {
        let (t, m) = (self.tail, at.len());
        let l = self.scalars.len() - t;
        // Both sides of the tail: Z of its own columns, -V of those of leaves.
        let mut side = vec![0.0; t * m];
        for (side, &q) in side.chunks_exact_mut(t.max(1)).zip(at) {
            match q.checked_sub(t) {
                None => side.copy_from_slice(&self.z[q * t..(q + 1) * t]),
                Some(e) => side.iter_mut().zip(&self.v[e * t..(e + 1) * t]).for_each(|(o, v)| *o = -v),
            }
        }
        let (above, below) = out.split_at_mut(t * m);
        for (i, row) in above.chunks_exact_mut(m.max(1)).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, o)| *o = side[i + j * t]);
        }
        dense::gemm_tn(below, m, &side, t, &self.y, t, m, l, t, -1.0);
        for (j, &q) in at.iter().enumerate() {
            let Some(e) = q.checked_sub(t) else { continue };
            let (first, from, width) = self.column[e];
            for (i, v) in self.own[from as usize..(from + width) as usize].iter().enumerate() {
                below[(first as usize + i) * m + j] += v;
            }
        }
    }
}

/// The inverse of one small tree as a dense matrix, in the numbers of `Whole`, with room for it from one tree to the next.
#[derive(Default)]
pub struct Small {
    /// First row of every node, by factor.
    pub nodes: Vec<Vec<usize>>,
    pub size: usize,
    /// size x size.
    pub inverse: Vec<f64>,
    l: Vec<f64>,
    w: Vec<f64>,
    y: Vec<f64>,
    rows: Vec<u32>,
}

impl Small {
    /// Scalars of trees that are worth it.
    const MOST: usize = 48;

    /// Whether a tree is one.
    pub fn suits(sym: &Symbolic, tree: &[u32]) -> bool {
        tree.iter().map(|&s| sym.supers[s as usize].width as usize).sum::<usize>() <= Self::MOST
    }

    /// Find the inverse of a tree that suits; `place` as for `Numeric::whole`.
    pub fn invert(&mut self, num: &Numeric, sym: &Symbolic, tree: &[u32], place: &mut [u32]) {
        let of = |leaf: bool| tree.iter().map(|&s| &sym.supers[s as usize]).filter(move |s| s.leaf == leaf);
        self.nodes.resize(sym.base.len(), vec![]);
        self.nodes.iter_mut().for_each(Vec::clear);
        let mut n = 0;
        for s in of(false).chain(of(true)) {
            let first = sym.offset[s.first as usize];
            (0..s.width).for_each(|i| place[(first + i) as usize] = n + i);
            for q in s.first as usize..s.last as usize {
                self.nodes[sym.factor_at[q] as usize].push((n + sym.offset[q] - first) as usize);
            }
            n += s.width;
        }
        let t: usize = of(false).map(|s| s.width as usize).sum();
        self.size = n as usize;
        self.inverse.clear();
        self.inverse.resize(self.size * self.size, 0.0);
        self.invert_tail(num, sym, of(false), t, place);
        self.add_leaves(num, sym, || of(true), t, place);
    }

    /// W = L^-1 of the tail, column by column, and Z = W'W.
    fn invert_tail<'a>(
        &mut self,
        num: &Numeric,
        sym: &Symbolic,
        inner: impl Iterator<Item = &'a Super>,
        t: usize,
        place: &[u32],
    ) {
        self.l.clear();
        self.l.resize(t * t, 0.0);
        num.triangle(sym, inner, place, t, &mut self.l);
        self.w.clear();
        self.w.resize(t * t, 0.0);
        for j in 0..t {
            let x = &mut self.w[j * t..(j + 1) * t];
            x[j] = 1.0;
            for k in j..t {
                if x[k] == 0.0 {
                    continue;
                }
                let column = &self.l[k * t..(k + 1) * t];
                x[k] /= column[k];
                let (done, rest) = x.split_at_mut(k + 1);
                rest.iter_mut().zip(&column[k + 1..]).for_each(|(x, l)| *x -= done[k] * l);
            }
        }
        let (w, n) = (&self.w, self.size);
        for j in 0..t {
            for i in j..t {
                let v = dense::dot(&w[i * t + i..(i + 1) * t], &w[j * t + i..(j + 1) * t]);
                (self.inverse[i + j * n], self.inverse[j + i * n]) = (v, v);
            }
        }
    }

    /// What leaves have with the tail, -Z Y, and with each other.
    fn add_leaves<'a, I: Iterator<Item = &'a Super>>(
        &mut self,
        num: &Numeric,
        sym: &Symbolic,
        leaves: impl Fn() -> I,
        t: usize,
        place: &[u32],
    ) {
        let (n, scalar) = (self.size, sym.scalar());
        self.y.clear();
        for s in leaves() {
            let (w, r) = (s.width as usize, s.below as usize);
            let (first, from) = (place[sym.offset[s.first as usize] as usize] as usize, self.y.len());
            right_division(num.panel(s), w, r, &mut self.y);
            let below = scalar_rows(sym, s, scalar, &mut self.rows);
            let (tail, rest) = self.inverse.split_at_mut(t * n);
            for j in 0..w {
                let to = &mut rest[(first - t + j) * n..][..t];
                for (&q, y) in below.iter().zip(self.y[from..].chunks_exact(w)) {
                    let z = &tail[place[q as usize] as usize * n..][..t];
                    to.iter_mut().zip(z).for_each(|(o, z)| *o -= y[j] * z);
                }
                tail.iter_mut().skip(first + j).step_by(n).zip(&*to).for_each(|(o, v)| *o = *v);
            }
        }
        let mut from = 0;
        for s in leaves() {
            let (w, r) = (s.width as usize, s.below as usize);
            let first = place[sym.offset[s.first as usize] as usize] as usize;
            let below = scalar_rows(sym, s, scalar, &mut self.rows);
            let (tail, rest) = self.inverse.split_at_mut(t * n);
            for j in 0..w {
                let to = &mut rest[(first - t + j) * n + t..][..n - t];
                for (&q, y) in below.iter().zip(self.y[from..].chunks_exact(w)) {
                    let v = &tail[place[q as usize] as usize * n + t..][..n - t];
                    to.iter_mut().zip(v).for_each(|(o, v)| *o -= y[j] * v);
                }
            }
            from += r * w;
            let own = &mut self.w;
            own.clear();
            own.resize(w * w, 0.0);
            dense::small_inverse(num.panel(s), w, w + r, own);
            for (j, column) in own.chunks_exact(w).enumerate() {
                let to = &mut rest[(first - t + j) * n + first..][..w];
                to.iter_mut().zip(column).for_each(|(o, v)| *o += v);
            }
        }
    }
}

impl Numeric {
    /// All of the inverse of some trees (see `Whole::work` for when it pays); `place` (one entry a scalar row) is where
    /// their rows' new numbers are left.
    pub fn whole(&self, sym: &Symbolic, supers: &[u32], place: &mut [u32]) -> Whole {
        let of = |leaf: bool| supers.iter().map(|&s| &sym.supers[s as usize]).filter(move |s| s.leaf == leaf);
        let rows_of = |s: &Super| sym.offset[s.first as usize]..sym.offset[s.first as usize] + s.width;
        let scalars: Vec<u32> = of(false).chain(of(true)).flat_map(rows_of).collect();
        scalars.iter().zip(0..).for_each(|(&q, at)| place[q as usize] = at);
        let t: usize = of(false).map(|s| s.width as usize).sum();
        let l = scalars.len() - t;
        let z = self.tail_block(sym, of(false), t, place);
        let (mut y, mut own, mut column) = (vec![0.0; t * l], vec![], Vec::with_capacity(l));
        let (mut short, mut rows) = (vec![], vec![]);
        for s in of(true) {
            let (w, r, first) = (s.width as usize, s.below as usize, column.len());
            short.clear();
            right_division(self.panel(s), w, r, &mut short);
            let below = scalar_rows(sym, s, false, &mut rows);
            for (&q, y_row) in below.iter().zip(short.chunks_exact(w)) {
                let row = place[q as usize] as usize;
                y_row.iter().enumerate().for_each(|(j, v)| y[row + (first + j) * t] = *v);
            }
            let from = own.len();
            own.resize(from + w * w, 0.0);
            dense::small_inverse(self.panel(s), w, w + r, &mut own[from..]);
            column.extend((0..w).map(|j| (first as u32, (from + j * w) as u32, w as u32)));
        }
        let mut v = vec![0.0; t * l];
        dense::gemm(&mut v, t, &z, t, &y, t, t, l, t, 1.0);
        Whole { scalars, tail: t, z, y, v, own, column }
    }

    /// The tail's part of the inverse, from its L as one dense triangle.
    fn tail_block<'a>(
        &self,
        sym: &Symbolic,
        inner: impl Iterator<Item = &'a Super>,
        t: usize,
        place: &[u32],
    ) -> Vec<f64> {
        let mut l = vec![0.0; t * t];
        self.triangle(sym, inner, place, t, &mut l);
        dense::inverse_from_cholesky(&l, t, t)
    }

    /// L of some supernodes as one dense triangle (n x n), at the places of their rows.
    fn triangle<'a>(
        &self,
        sym: &Symbolic,
        supers: impl Iterator<Item = &'a Super>,
        place: &[u32],
        n: usize,
        out: &mut [f64],
    ) {
        let mut rows = vec![];
        let scalar = sym.scalar();
        for s in supers {
            let (w, r, panel) = (s.width as usize, s.below as usize, self.panel(s));
            let first = place[sym.offset[s.first as usize] as usize] as usize;
            let below = scalar_rows(sym, s, scalar, &mut rows);
            for j in 0..w {
                let to = &mut out[(first + j) * n..(first + j + 1) * n];
                if s.packed {
                    (j..w).for_each(|i| to[first + i] = panel[dense::packed_at(w, i, j)]);
                    continue;
                }
                let from = &panel[j * (w + r)..(j + 1) * (w + r)];
                to[first + j..first + w].copy_from_slice(&from[j..w]);
                below.iter().zip(&from[w..]).for_each(|(&q, v)| to[place[q as usize] as usize] = *v);
            }
        }
    }
}
