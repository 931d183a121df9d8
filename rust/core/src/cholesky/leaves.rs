//! Leaves, the levels that are eliminated on their own, and the wide front they all meet in.
//!
//! A leaf with r rows below it touches r^2 entries of a front that may be much larger than the cache. Work is
//! ordered so that the front is visited in slabs of columns that fit it. Where leaves reach a good part of the front
//! their columns are spread out and multiplied by dense kernels instead.

use super::numeric::{relative_scalars, Numeric, Shared};
use super::symbolic::{Super, Symbolic};
use crate::dense::{self, dot, RowBlock};

/// Entries of a front that stay in the second-level cache together with the leaves.
const SLAB: usize = 32_768;
/// Columns of leaves that are spread out at once.
const SPREAD: usize = 256;
/// A multiplication with indirect addressing costs about this many in a dense kernel.
const INDIRECT: f64 = 8.0;
/// Fronts smaller than this are not worth a dense kernel.
const SMALL_FRONT: usize = 32;

/// Whether leaves reach so much of a front with `ld` rows that dense kernels are faster.
fn spread_pays(sym: &Symbolic, leaves: &[u32], ld: usize) -> bool {
    if ld < SMALL_FRONT {
        return false;
    }
    let supers = || leaves.iter().map(|&c| &sym.supers[c as usize]);
    let sparse: f64 = supers().map(Super::leaf_work).sum();
    let columns: f64 = supers().map(|s| s.width as f64).sum();
    columns * (ld as f64).powi(2) < INDIRECT * sparse
}

/// Subtract L21 L21' of every leaf from a front: its own columns (`panel`) and the rows below them (`update`).
pub fn add(sym: &Symbolic, leaves: &[u32], panel: &mut [f64], update: &mut [f64], w: usize, panels: &Shared) {
    let r = (update.len() as f64).sqrt() as usize;
    if spread_pays(sym, leaves, w + r) {
        return add_spread(sym, leaves, panel, update, w, r, panels);
    }
    let own = Region { from: 0, to: w, shift: 0, ld: w + r };
    let below = Region { from: w, to: w + r, shift: w, ld: r };
    let kernel = squares(panels);
    add_region(sym, leaves, panel, own, &kernel);
    if r > 0 {
        add_region(sym, leaves, update, below, &kernel);
    }
}

/// How a leaf's L21 L21' is subtracted from some columns of a region.
fn squares(panels: &Shared) -> impl Kernel + '_ {
    |_, s, rel, (lo, hi), a, region| {
        let (w, r) = (s.width as usize, s.below as usize);
        let values: &[f64] = panels.slice(s.panel, (w + r) * w);
        match w {
            1 => scatter_scalar(&values[1..], rel, lo, hi, a, region),
            2 => scatter_leaf::<2>(values, rel, lo, hi, a, region),
            3 => scatter_leaf::<3>(values, rel, lo, hi, a, region),
            4 => scatter_leaf::<4>(values, rel, lo, hi, a, region),
            _ => scatter_wide(values, w, rel, lo, hi, a, region),
        }
    }
}

/// Subtract U Y' + Y U' of every leaf from a front as `add` does, given U and Y (rows x width, row-major) of each.
pub fn add_both<'v>(
    sym: &Symbolic,
    leaves: &[u32],
    panel: &mut [f64],
    update: &mut [f64],
    w: usize,
    values: impl Fn(u32) -> (&'v [f64], &'v [f64]) + Sync,
) {
    let r = (update.len() as f64).sqrt() as usize;
    if spread_pays(sym, leaves, w + r) {
        return spread_both(sym, leaves, panel, update, (w, r), values);
    }
    let kernel = |c: u32, s: &Super, rel: &[u32], range: (usize, usize), a: &mut [f64], region: Region| {
        let (u, y) = values(c);
        match s.width {
            1 => scatter_both(1, u, y, rel, range, a, region),
            2 => scatter_both(2, u, y, rel, range, a, region),
            3 => scatter_both(3, u, y, rel, range, a, region),
            4 => scatter_both(4, u, y, rel, range, a, region),
            w => scatter_both(w as usize, u, y, rel, range, a, region),
        }
    };
    add_region(sym, leaves, panel, Region { from: 0, to: w, shift: 0, ld: w + r }, &kernel);
    if r > 0 {
        add_region(sym, leaves, update, Region { from: w, to: w + r, shift: w, ld: r }, &kernel);
    }
}

/// The same by dense kernels.
fn spread_both<'v>(
    sym: &Symbolic,
    leaves: &[u32],
    panel: &mut [f64],
    update: &mut [f64],
    (w, r): (usize, usize),
    values: impl Fn(u32) -> (&'v [f64], &'v [f64]),
) {
    let ld = w + r;
    let (mut us, mut ys) = (vec![], vec![]);
    for leaves in by_columns(sym, leaves) {
        let columns = spread_rows(sym, leaves, ld, &mut us, |c| values(c).0);
        spread_rows(sym, leaves, ld, &mut ys, |c| values(c).1);
        for (a, b) in [(&us, &ys), (&ys, &us)] {
            dense::gemm_lower(panel, ld, a, ld, b, ld, w, columns, -1.0);
            if r > 0 {
                dense::gemm_nt(&mut panel[w..], ld, &a[w..], ld, b, ld, r, w, columns, -1.0);
                dense::gemm_lower(update, r, &a[w..], ld, &b[w..], ld, r, columns, -1.0);
            }
        }
    }
}

/// Columns of leaves, given row by row, spread over `ld` rows, and their number.
fn spread_rows<'v>(
    sym: &Symbolic,
    leaves: &[u32],
    ld: usize,
    spread: &mut Vec<f64>,
    values: impl Fn(u32) -> &'v [f64],
) -> usize {
    let columns: usize = leaves.iter().map(|&c| sym.supers[c as usize].width as usize).sum();
    spread.clear();
    spread.resize(ld * columns, 0.0);
    let (mut idx, mut at) = (vec![], 0);
    for (c, s) in leaves.iter().map(|&c| (c, &sym.supers[c as usize])) {
        let w = s.width as usize;
        for (&q, row) in relative(sym, s, &mut idx).iter().zip(values(c).chunks_exact(w)) {
            row.iter().enumerate().for_each(|(j, v)| spread[q as usize + (at + j) * ld] = *v);
        }
        at += w;
    }
    columns
}

/// What leaves do to some columns of a front: the leaf and its supernode, its rows in the front, which of them are the
/// columns, and the region.
trait Kernel: Fn(u32, &Super, &[u32], (usize, usize), &mut [f64], Region) + Sync {}

impl<K: Fn(u32, &Super, &[u32], (usize, usize), &mut [f64], Region) + Sync> Kernel for K {}

fn add_spread(
    sym: &Symbolic,
    leaves: &[u32],
    panel: &mut [f64],
    update: &mut [f64],
    w: usize,
    r: usize,
    panels: &Shared,
) {
    let ld = w + r;
    let mut spread = vec![];
    for leaves in by_columns(sym, leaves) {
        let columns = spread_out(sym, leaves, ld, &mut spread, panels);
        dense::syrk_lower(panel, ld, &spread, ld, w, columns, -1.0);
        if r > 0 {
            dense::gemm_nt(&mut panel[w..], ld, &spread[w..], ld, &spread, ld, r, w, columns, -1.0);
            dense::syrk_lower(update, r, &spread[w..], ld, r, columns, -1.0);
        }
    }
}

/// Columns L21 of leaves spread over `ld` rows, and their number.
fn spread_out(sym: &Symbolic, leaves: &[u32], ld: usize, spread: &mut Vec<f64>, panels: &Shared) -> usize {
    let columns: usize = leaves.iter().map(|&c| sym.supers[c as usize].width as usize).sum();
    spread.clear();
    spread.resize(ld * columns, 0.0);
    let mut idx = vec![];
    let mut at = 0;
    for s in leaves.iter().map(|&c| &sym.supers[c as usize]) {
        let (sw, sr) = (s.width as usize, s.below as usize);
        let values: &[f64] = panels.slice(s.panel, (sw + sr) * sw);
        relative_scalars(sym, s, &mut idx);
        for column in values.chunks_exact(sw + sr) {
            let out = &mut spread[at * ld..(at + 1) * ld];
            idx.iter().zip(&column[sw..]).for_each(|(&i, v)| out[i as usize] = *v);
            at += 1;
        }
    }
    columns
}

/// `add` for a packed front of `n` columns and no rows below them.
pub fn add_packed(sym: &Symbolic, leaves: &[u32], a: &mut [f64], n: usize, panels: &Shared) {
    if spread_pays(sym, leaves, n) {
        let mut spread = vec![];
        for leaves in by_columns(sym, leaves) {
            let columns = spread_out(sym, leaves, n, &mut spread, panels);
            dense::packed_syrk(a, n, &spread, n, columns, -1.0);
        }
        return;
    }
    let mut parts = vec![];
    let mut rest = a;
    for s in dense::stripes(n) {
        let (mine, more) = rest.split_at_mut(s.size());
        parts.push((Region { from: s.from, to: s.to, shift: s.from, ld: s.ld }, mine));
        rest = more;
    }
    let kernel = squares(panels);
    dense::each(parts, |(region, mine)| scatter(sym, leaves, mine, region, &kernel));
}

/// Updates that are not worth a thread.
const LITTLE: usize = 400_000;

/// Groups of leaves with about SPREAD columns.
fn by_columns<'a>(sym: &Symbolic, leaves: &'a [u32]) -> impl Iterator<Item = &'a [u32]> {
    let widest = leaves.iter().map(|&c| sym.supers[c as usize].width as usize).max().unwrap_or(1);
    leaves.chunks((SPREAD / widest.max(1)).max(1))
}

/// Columns `from..to` of a front, of which the first `shift` rows are not stored.
#[derive(Clone, Copy)]
struct Region {
    from: usize,
    to: usize,
    shift: usize,
    ld: usize,
}

/// Parts of the columns are independent, and each entry is summed in the order of the leaves.
fn add_region(sym: &Symbolic, leaves: &[u32], a: &mut [f64], region: Region, kernel: &impl Kernel) {
    let updates: usize = leaves.iter().map(|&c| sym.supers[c as usize].below as usize).map(|r| r * r / 2).sum();
    let columns = region.to - region.from;
    if updates < LITTLE {
        return scatter(sym, leaves, a, region, kernel);
    }
    const PARTS: usize = 8;
    let share = |t: usize| region.from + (columns as f64 * (1.0 - (1.0 - t as f64 / PARTS as f64).sqrt())) as usize;
    let mut parts = vec![];
    let mut rest = a;
    for t in 0..PARTS {
        let (from, to) = (share(t), if t + 1 == PARTS { region.to } else { share(t + 1) });
        let (mine, more) = rest.split_at_mut(((to - from) * region.ld).min(rest.len()));
        parts.push((Region { from, to, ..region }, mine));
        rest = more;
    }
    dense::each(parts, |(region, mine)| scatter(sym, leaves, mine, region, kernel));
}

/// Add all leaves to a region, slab by slab.
fn scatter(sym: &Symbolic, leaves: &[u32], a: &mut [f64], region: Region, kernel: &impl Kernel) {
    let mut idx = vec![];
    let updates: usize = leaves.iter().map(|&c| sym.supers[c as usize].below as usize).sum();
    // Every slab looks at every leaf, which must not cost more than it saves.
    let slabs = ((region.to - region.from) * region.ld).div_ceil(SLAB).min(1 + updates / (4 * leaves.len().max(1)));
    let step = (region.to - region.from).div_ceil(slabs.max(1)).max(1);
    let mut next: Vec<u32> = vec![0; if slabs > 1 { leaves.len() } else { 0 }];
    for from in (region.from..region.to).step_by(step) {
        let to = (from + step).min(region.to);
        for (i, (c, s)) in leaves.iter().map(|&c| (c, &sym.supers[c as usize])).enumerate() {
            let rel = relative(sym, s, &mut idx);
            let lo = match next.get(i) {
                Some(&at) if from > region.from => at as usize,
                _ => rel.partition_point(|&v| (v as usize) < region.from),
            };
            let hi = lo + rel[lo..].iter().take_while(|&&v| (v as usize) < to).count();
            if let Some(n) = next.get_mut(i) {
                *n = hi as u32;
            }
            if lo < hi {
                kernel(c, s, rel, (lo, hi), a, region);
            }
        }
    }
}

/// Offsets of a supernode's scalar rows in its parent's front.
pub(super) fn relative<'a>(sym: &'a Symbolic, s: &Super, buffer: &'a mut Vec<u32>) -> &'a [u32] {
    if sym.rows(s).len() == s.below as usize {
        return sym.relative(s);
    }
    relative_scalars(sym, s, buffer);
    buffer
}

/// Leaves of one column, which are most: two columns of the front at a time, so that rows are read once for both.
#[inline]
fn scatter_scalar(l: &[f64], rel: &[u32], lo: usize, hi: usize, a: &mut [f64], region: Region) {
    let r = rel.len();
    assert!(l.len() == r && rel[lo] as usize >= region.shift && (rel[r - 1] as usize) < region.shift + region.ld);
    let mut j = lo;
    while j < hi {
        let (first, rest) = a[(rel[j] as usize - region.from) * region.ld..].split_at_mut(region.ld);
        first[rel[j] as usize - region.shift] -= l[j] * l[j];
        if j + 1 == hi {
            for (&q, v) in rel[j + 1..].iter().zip(&l[j + 1..]) {
                // SAFETY: rows of a leaf ascend (see Symbolic), and the first and the last were found to be in range.
                unsafe { *first.get_unchecked_mut(q as usize - region.shift) -= l[j] * v };
            }
            return;
        }
        let second = &mut rest[(rel[j + 1] - rel[j] - 1) as usize * region.ld..][..region.ld];
        for (&q, v) in rel[j + 1..].iter().zip(&l[j + 1..]) {
            let q = q as usize - region.shift;
            // SAFETY: as above.
            unsafe {
                *first.get_unchecked_mut(q) -= l[j] * v;
                *second.get_unchecked_mut(q) -= l[j + 1] * v;
            }
        }
        j += 2;
    }
}

#[inline]
fn scatter_leaf<const W: usize>(values: &[f64], rel: &[u32], lo: usize, hi: usize, a: &mut [f64], region: Region) {
    let r = rel.len();
    let l: [&[f64]; W] = std::array::from_fn(|t| &values[t * (W + r) + W..(t + 1) * (W + r)]);
    assert!(rel.is_empty() || rel[lo] as usize >= region.shift && (rel[r - 1] as usize) < region.shift + region.ld);
    for j in lo..hi {
        let column = &mut a[(rel[j] as usize - region.from) * region.ld..][..region.ld];
        let own: [f64; W] = std::array::from_fn(|t| l[t][j]);
        let tails: [&[f64]; W] = std::array::from_fn(|t| &l[t][j..r]);
        for (i, &q) in rel[j..].iter().enumerate() {
            let mut sum = own[0] * tails[0][i];
            for t in 1..W {
                sum += own[t] * tails[t][i];
            }
            // SAFETY: rows of a leaf ascend (see Symbolic), and the first and the last were found to be in range.
            unsafe { *column.get_unchecked_mut(q as usize - region.shift) -= sum };
        }
    }
}

fn scatter_wide(values: &[f64], w: usize, rel: &[u32], lo: usize, hi: usize, a: &mut [f64], region: Region) {
    let r = rel.len();
    for j in lo..hi {
        let column = &mut a[(rel[j] as usize - region.from) * region.ld..][..region.ld];
        for t in 0..w {
            let l = &values[t * (w + r) + w..(t + 1) * (w + r)];
            for (&q, v) in rel[j..].iter().zip(&l[j..]) {
                column[q as usize - region.shift] -= l[j] * v;
            }
        }
    }
}

/// U Y' + Y U' of one leaf of width `w`, rows x width and row-major.
#[inline(always)]
fn scatter_both(w: usize, u: &[f64], y: &[f64], rel: &[u32], (lo, hi): (usize, usize), a: &mut [f64], region: Region) {
    for j in lo..hi {
        let column = &mut a[(rel[j] as usize - region.from) * region.ld..][..region.ld];
        let (uj, yj) = (&u[j * w..(j + 1) * w], &y[j * w..(j + 1) * w]);
        let rows = u[j * w..].chunks_exact(w).zip(y[j * w..].chunks_exact(w));
        for (&q, (ui, yi)) in rel[j..].iter().zip(rows) {
            let mut sum = 0.0;
            for t in 0..w {
                sum += ui[t] * yj[t] + yi[t] * uj[t];
            }
            column[q as usize - region.shift] -= sum;
        }
    }
}

/// Leaves of one front: Y = L21 L11^-1 and V = Z Y for the front's part Z of the inverse, rows of both leaf by leaf.
pub struct Batch<'a> {
    sym: &'a Symbolic,
    pub leaves: &'a [u32],
    /// First row of every leaf, offsets of the rows in the front, and where the leaf's products begin.
    start: Vec<u32>,
    rows: Vec<u32>,
    at: Vec<usize>,
    y: Vec<f64>,
    v: Vec<f64>,
}

impl<'a> Batch<'a> {
    pub fn new(num: &Numeric, sym: &'a Symbolic, leaves: &'a [u32]) -> Self {
        let supers = || leaves.iter().map(|&c| &sym.supers[c as usize]);
        let mut rows = Vec::with_capacity(supers().map(|s| s.below as usize).sum());
        let mut y = Vec::with_capacity(supers().map(|s| (s.below * s.width) as usize).sum());
        let (mut start, mut at) = (Vec::with_capacity(leaves.len() + 1), Vec::with_capacity(leaves.len() + 1));
        start.push(0u32);
        at.push(0usize);
        let mut idx = vec![];
        for s in leaves.iter().map(|&c| &sym.supers[c as usize]) {
            rows.extend_from_slice(relative(sym, s, &mut idx));
            start.push(rows.len() as u32);
            right_division(num.panel(s), s.width as usize, s.below as usize, &mut y);
            at.push(y.len());
        }
        let v = vec![0.0; y.len()];
        Batch { sym, leaves, start, rows, at, y, v }
    }

    /// Y and V of a leaf, rows x width, row-major.
    pub fn products(&self, i: usize) -> (&[f64], &[f64]) {
        (&self.y[self.place(i)], &self.v[self.place(i)])
    }

    /// Y of all leaves.
    pub fn all(&self) -> &[f64] {
        &self.y
    }

    /// Where the products of a leaf are.
    pub fn place(&self, i: usize) -> std::ops::Range<usize> {
        self.at[i]..self.at[i + 1]
    }

    /// Rows of a leaf in the front.
    pub fn rows(&self, i: usize) -> &[u32] {
        &self.rows[self.start[i] as usize..self.start[i + 1] as usize]
    }

    fn width(&self, i: usize) -> usize {
        self.sym.supers[self.leaves[i] as usize].width as usize
    }

    /// (W Y)'(W Y) of every leaf over some rows of W = L^-1 (width x width) and, if asked for, W'(W Y) at the leaf's rows
    /// (rows x width, row-major).
    pub fn squares(&self, rows: &RowBlock<'_>, cross: bool) -> Vec<f64> {
        let n = rows.to - rows.from;
        let (mut out, mut product) = (vec![], vec![]);
        for i in 0..self.leaves.len() {
            let w = self.width(i);
            product.clear();
            product.resize(n * w, 0.0);
            // Columns of W from `to` on are zero here, and rows of a leaf ascend.
            let used = self.rows(i).partition_point(|&q| (q as usize) < rows.to);
            for (&q, y) in self.rows(i)[..used].iter().zip(self.products(i).0.chunks_exact(w)) {
                let column = rows.column(q as usize);
                for (product, y) in product.chunks_exact_mut(n).zip(y) {
                    product.iter_mut().zip(column).for_each(|(o, v)| *o += y * v);
                }
            }
            let columns = || product.chunks_exact(n);
            columns().for_each(|a| out.extend(columns().map(|b| dot(a, b))));
            if cross {
                for &q in &self.rows(i)[..used] {
                    out.extend(columns().map(|a| dot(a, rows.column(q as usize))));
                }
                out.resize(out.len() + (self.rows(i).len() - used) * w, 0.0);
            }
        }
        out
    }

    pub fn multiply(&mut self, z: &[f64], ld: usize) {
        let mut v = std::mem::take(&mut self.v);
        self.times(z, ld, &self.y, &mut v);
        self.v = v;
    }

    /// V = Z Y for Y and V laid out as those of the batch.
    pub fn times(&self, z: &[f64], ld: usize, all: &[f64], out: &mut [f64]) {
        if spread_pays(self.sym, self.leaves, ld) {
            return self.times_spread(z, ld, all, out);
        }
        let slab = (SLAB / ld.max(1)).max(8);
        let mut next = vec![0u32; self.leaves.len()];
        for from in (0..ld).step_by(slab) {
            for i in 0..self.leaves.len() {
                let w = self.width(i);
                let rows = &self.rows[self.start[i] as usize..self.start[i + 1] as usize];
                let y = &all[self.at[i]..self.at[i + 1]];
                let v = &mut out[self.at[i]..self.at[i + 1]];
                assert!(rows.len() * w == y.len() && rows.last().is_none_or(|&q| (q as usize) < ld));
                let inside = |at: usize| rows.get(at).is_some_and(|&q| (q as usize) < from + slab);
                let column = |at: usize| &z[rows[at] as usize * ld..(rows[at] as usize + 1) * ld];
                let mut at = next[i] as usize;
                while inside(at) {
                    if w == 1 && inside(at + 1) {
                        // SAFETY: rows ascend (see Symbolic) and the last one lies in the columns.
                        let both = unsafe { gather_scalar([column(at), column(at + 1)], rows, y) };
                        v[at..at + 2].copy_from_slice(&both);
                        at += 2;
                        continue;
                    }
                    let out = &mut v[at * w..(at + 1) * w];
                    match w {
                        // SAFETY: as above.
                        1 => out[0] = unsafe { gather_scalar([column(at)], rows, y) }[0],
                        2 => gather::<2>(column(at), rows, y, out),
                        3 => gather::<3>(column(at), rows, y, out),
                        4 => gather::<4>(column(at), rows, y, out),
                        _ => gather_wide(column(at), rows, y, out),
                    }
                    at += 1;
                }
                next[i] = at as u32;
            }
        }
    }

    fn times_spread(&self, z: &[f64], ld: usize, all: &[f64], out: &mut [f64]) {
        let mut from = 0;
        let (mut spread, mut product) = (vec![], vec![]);
        for leaves in by_columns(self.sym, self.leaves) {
            let range = from..from + leaves.len();
            let columns: usize = range.clone().map(|i| self.width(i)).sum();
            spread.clear();
            spread.resize(ld * columns, 0.0);
            let mut at = 0;
            for i in range.clone() {
                let w = self.width(i);
                for (&q, y) in self.rows(i).iter().zip(all[self.place(i)].chunks_exact(w)) {
                    y.iter().enumerate().for_each(|(j, y)| spread[q as usize + (at + j) * ld] = *y);
                }
                at += w;
            }
            product.clear();
            product.resize(ld * columns, 0.0);
            dense::gemm(&mut product, ld, z, ld, &spread, ld, ld, columns, ld, 1.0);
            at = 0;
            for i in range.clone() {
                let w = self.width(i);
                let rows = &self.rows[self.start[i] as usize..self.start[i + 1] as usize];
                let v = &mut out[self.place(i)];
                for (&q, v) in rows.iter().zip(v.chunks_exact_mut(w)) {
                    v.iter_mut().enumerate().for_each(|(j, v)| *v = product[q as usize + (at + j) * ld]);
                }
                at += w;
            }
            from = range.end;
        }
    }
}

/// Append Y = L21 L11^-1 of a panel, row-major.
pub(super) fn right_division(panel: &[f64], w: usize, r: usize, y: &mut Vec<f64>) {
    if w == 1 {
        let inv = 1.0 / panel[0];
        y.extend(panel[1..].iter().map(|l| l * inv));
        return;
    }
    let ld = w + r;
    let from = y.len();
    y.resize(from + r * w, 0.0);
    for (i, row) in y[from..].chunks_exact_mut(w).enumerate() {
        for j in (0..w).rev() {
            let mut v = panel[w + i + j * ld];
            for k in j + 1..w {
                v -= row[k] * panel[k + j * ld];
            }
            row[j] = v / panel[j + j * ld];
        }
    }
}

/// Sums of column[q] y over the rows q, for one or two columns.
///
/// # Safety
/// Every row must be an index of the columns.
#[inline]
unsafe fn gather_scalar<const N: usize>(columns: [&[f64]; N], rows: &[u32], y: &[f64]) -> [f64; N] {
    let mut acc = [[0.0f64; 4]; N];
    let (qs, ys) = (rows.chunks_exact(4), y.chunks_exact(4));
    // SAFETY: promised by the caller.
    let at = |c: usize, q: u32| unsafe { *columns[c].get_unchecked(q as usize) };
    for (t, (&q, y)) in qs.remainder().iter().zip(ys.remainder()).enumerate() {
        for c in 0..N {
            acc[c][t] += at(c, q) * y;
        }
    }
    for (q, y) in qs.zip(ys) {
        for t in 0..4 {
            for c in 0..N {
                acc[c][t] += at(c, q[t]) * y[t];
            }
        }
    }
    acc.map(|a| a.iter().sum())
}

#[inline]
fn gather<const W: usize>(column: &[f64], rows: &[u32], y: &[f64], out: &mut [f64]) {
    let mut acc = [[0.0f64; W]; 2];
    let (qs, ys) = (rows.chunks_exact(2), y.chunks_exact(2 * W));
    for (&q, y) in qs.remainder().iter().zip(ys.remainder().chunks_exact(W)) {
        for j in 0..W {
            acc[0][j] += column[q as usize] * y[j];
        }
    }
    for (q, y) in qs.zip(ys) {
        let z = [column[q[0] as usize], column[q[1] as usize]];
        for j in 0..W {
            acc[0][j] += z[0] * y[j];
            acc[1][j] += z[1] * y[W + j];
        }
    }
    out.iter_mut().enumerate().for_each(|(j, o)| *o = acc[0][j] + acc[1][j]);
}

fn gather_wide(column: &[f64], rows: &[u32], y: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    for (&q, y) in rows.iter().zip(y.chunks_exact(out.len())) {
        out.iter_mut().zip(y).for_each(|(o, y)| *o += column[q as usize] * y);
    }
}
