//! Solves with sparse right-hand sides, for rows of data.

use super::numeric::{scalar_rows, Numeric};
use super::symbolic::{Super, Symbolic, NONE};
use crate::dense;

/// L^-1 times sparse right-hand sides, one row of new data at a time: only ancestors of its nodes are visited.
pub struct RowSolver<'a> {
    num: &'a Numeric,
    sym: &'a Symbolic,
    super_of: Vec<u32>,
    value: Vec<f64>,
    queue: std::collections::BinaryHeap<std::cmp::Reverse<u32>>,
    index: Vec<u32>,
    tail: Option<&'a Tail>,
    own: Vec<f64>,
    buffer: Vec<f64>,
}

/// L^-1 on the supernodes that are not leaves. A row of data has few entries there before it is solved, and most of
/// them after: a few columns of the inverse are cheaper than the way through the factor.
pub struct Tail {
    /// Its scalar rows, in elimination order.
    rows: Vec<u32>,
    pub(super) inverse: Vec<f64>,
}

/// Scalars of a tail that is worth inverting.
const TAIL: std::ops::RangeInclusive<usize> = 32..=4096;

impl Numeric {
    /// The inverse of the tail where it pays for so many rows: it costs the solution of as many rows as it has.
    /// Worthless when cut short.
    pub fn tail_for(&self, sym: &Symbolic, rows: usize) -> Option<Tail> {
        let n: usize = sym.supers.iter().filter(|s| !s.leaf).map(|s| s.width as usize).sum();
        (TAIL.contains(&n) && n <= rows).then(|| self.tail(sym))
    }

    pub(super) fn tail(&self, sym: &Symbolic) -> Tail {
        let scalars = |s: &Super| {
            let at = sym.offset[s.first as usize];
            at..at + s.width
        };
        let inner = sym.supers.iter().enumerate().filter(|(_, s)| !s.leaf);
        let units: Vec<(u32, u32)> = inner.flat_map(|(i, s)| scalars(s).map(move |q| (i as u32, q))).collect();
        let n = units.len();
        let mut place = vec![0; sym.size];
        units.iter().enumerate().for_each(|(at, &(_, q))| place[q as usize] = at);
        let mut inverse = vec![0.0; n * n];
        let parts: Vec<_> = inverse.chunks_mut(64 * n.max(1)).zip(units.chunks(64)).collect();
        dense::each(parts, |(columns, units)| {
            let mut solver = self.row_solver(sym, None);
            let columns = columns.chunks_exact_mut(n).take_while(|_| !self.stop.requested());
            for (column, &(i, q)) in columns.zip(units) {
                solver.value[q as usize] = 1.0;
                solver.queue.push(std::cmp::Reverse(i));
                solver.solve(|q, v| column[place[q]] = v);
            }
        });
        Tail { rows: units.iter().map(|u| u.1).collect(), inverse }
    }

    /// `tail` is that of `tail_for`.
    pub fn row_solver<'a>(&'a self, sym: &'a Symbolic, tail: Option<&'a Tail>) -> RowSolver<'a> {
        let mut super_of = vec![0u32; sym.nodes];
        for (i, s) in sym.supers.iter().enumerate() {
            super_of[s.first as usize..s.last as usize].fill(i as u32);
        }
        RowSolver {
            num: self,
            sym,
            super_of,
            value: vec![0.0; sym.size],
            queue: Default::default(),
            index: vec![],
            tail,
            own: vec![],
            buffer: vec![],
        }
    }
}

impl RowSolver<'_> {
    /// Add entries of the right-hand side at the node of a position.
    pub fn add(&mut self, position: usize, offset: usize, values: &[f64]) {
        let at = self.sym.offset[position] as usize + offset;
        self.value[at..at + values.len()].iter_mut().zip(values).for_each(|(o, v)| *o += v);
        self.queue.push(std::cmp::Reverse(self.super_of[position]));
    }

    /// Squared length of w = L^-1 v; subtracts F_X' w from x, F being row-major with `width` columns. Clears v.
    pub fn run(&mut self, f: &[f64], width: usize, x: &mut [f64]) -> f64 {
        let mut total = 0.0;
        self.solve(|q, v| {
            total += v * v;
            x.iter_mut().zip(&f[q * width..(q + 1) * width]).for_each(|(x, f)| *x -= v * f);
        });
        total
    }

    /// Hand every entry of L^-1 v and its scalar row to `each`; clears v.
    fn solve(&mut self, mut each: impl FnMut(usize, f64)) {
        while let Some(std::cmp::Reverse(i)) = self.queue.pop() {
            while self.queue.peek() == Some(&std::cmp::Reverse(i)) {
                self.queue.pop();
            }
            let s = &self.sym.supers[i as usize];
            if self.tail.is_some() && !s.leaf {
                continue;
            }
            self.eliminate(s, &mut each);
            if s.parent != NONE {
                self.queue.push(std::cmp::Reverse(s.parent));
            }
        }
        if let Some(tail) = self.tail {
            self.own.clear();
            self.own.extend(tail.rows.iter().map(|&q| std::mem::take(&mut self.value[q as usize])));
            multiply_lower(&tail.inverse, &mut self.own, &mut self.buffer);
            tail.rows.iter().zip(&self.own).for_each(|(&q, &v)| each(q as usize, v));
        }
    }

    /// Solve on a supernode's columns and take its rows' share.
    fn eliminate(&mut self, s: &Super, each: &mut impl FnMut(usize, f64)) {
        let (w, r) = (s.width as usize, s.below as usize);
        let panel = self.num.panel(s);
        let at = self.sym.offset[s.first as usize] as usize;
        if s.packed {
            dense::packed_solve_left_l(panel, w, &mut self.value[at..at + w]);
        } else {
            dense::solve_left_l(panel, w, w + r, &mut self.value[at..at + w], 1, w);
        }
        let rows = scalar_rows(self.sym, s, false, &mut self.index);
        for j in 0..w {
            let v = std::mem::take(&mut self.value[at + j]);
            if v == 0.0 {
                continue;
            }
            each(at + j, v);
            if r > 0 {
                for (&q, l) in rows.iter().zip(&panel[w + j * (w + r)..]) {
                    self.value[q as usize] -= l * v;
                }
            }
        }
    }
}

/// x <- L x for lower triangular L (columns of full length, zero above the diagonal) and sparse x.
fn multiply_lower(l: &[f64], x: &mut [f64], buffer: &mut Vec<f64>) {
    let n = x.len();
    buffer.clear();
    buffer.resize(n, 0.0);
    let used: Vec<usize> = (0..n).filter(|&j| x[j] != 0.0).collect();
    // Four columns at a time: the sums are loaded and stored once for all of them.
    let mut fours = used.chunks_exact(4);
    for four in &mut fours {
        let from = four[0];
        let [a, b, c, d] = [0, 1, 2, 3].map(|t| &l[four[t] * n + from..(four[t] + 1) * n]);
        let [va, vb, vc, vd] = [0, 1, 2, 3].map(|t| x[four[t]]);
        for ((((o, a), b), c), d) in buffer[from..].iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *o += (va * a + vb * b) + (vc * c + vd * d);
        }
    }
    for &j in fours.remainder() {
        buffer[j..].iter_mut().zip(&l[j * n + j..(j + 1) * n]).for_each(|(o, l)| *o += l * x[j]);
    }
    x.copy_from_slice(buffer);
}
