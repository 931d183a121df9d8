//! The block elimination against dense algebra, on designs that reach every path through it.

use super::{Change, Columns, Numeric, SelectedInverse, Small, Source, Symbolic, Whole};
use crate::dense;
use crate::design::{Block, Codes, Coupling, Moments, Numeric as Column, Pair, Rows, Structure, Term};
use crate::CoreError;

/// A reproducible stream of numbers (splitmix64).
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> i32 {
        (self.next() % n as u64) as i32
    }

    fn unit(&mut self) -> f64 {
        self.next() as f64 / u64::MAX as f64 - 0.5
    }
}

/// Grouping codes with their levels and number of columns.
type Grouping = (Vec<i32>, usize, usize);

struct Case {
    moments: Moments,
    lambda: Vec<Vec<f64>>,
}

impl Case {
    fn new(groupings: &[Grouping], rng: &mut Stream) -> Self {
        let n = groupings[0].0.len();
        let y: Vec<f64> = (0..n).map(|_| rng.unit()).collect();
        let columns: Vec<Vec<f64>> = (0..8).map(|_| (0..n).map(|_| rng.unit()).collect()).collect();
        let blank = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None };
        let terms = groupings
            .iter()
            .map(|(codes, levels, cols)| Term {
                codes: Codes::I32(codes),
                levels: *levels,
                structure: Structure::Unstructured,
                joint: false,
                relation: None,
                fixed: false,
                blocks: (0..*cols).map(|c| Block { x: (c > 0).then(|| Column::F64(&columns[c])), ..blank }).collect(),
            })
            .collect();
        let rows = Rows { n, fixed: vec![blank], terms, y: &y, weights: None, offset: None };
        let moments = Moments::build(&rows).unwrap();
        let lambda = moments
            .factors
            .iter()
            .map(|f| {
                let k = f.cols;
                let mut l = vec![0.0; k * k];
                for c in 0..k {
                    for r in c..k {
                        l[r + c * k] = if r == c { 0.9 + rng.unit() } else { rng.unit() };
                    }
                }
                l
            })
            .collect();
        Case { moments, lambda }
    }

    /// Lambda'Z'Z Lambda + I with nodes in their natural order, and the first row of every factor.
    fn dense(&self) -> (Vec<f64>, Vec<usize>, usize) {
        let m = &self.moments;
        let mut first = vec![];
        let mut n = 0;
        for f in &m.factors {
            first.push(n);
            n += f.levels * f.cols;
        }
        let mut g = vec![0.0; n * n];
        let mut lam = vec![0.0; n * n];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for l in 0..factor.levels {
                let at = first[f] + l * k;
                for j in 0..k {
                    for i in 0..k {
                        g[at + i + (at + j) * n] = factor.gram[l * k * k + i + j * k];
                        lam[at + i + (at + j) * n] = self.lambda[f][i + j * k];
                    }
                }
            }
        }
        for p in &m.pairs {
            let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
            for l in 0..m.factors[p.lead].levels {
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let (a, b) = (first[p.lead] + l * kl, first[p.other] + p.level[e] as usize * ko);
                    for j in 0..ko {
                        for i in 0..kl {
                            let v = p.value[e * kl * ko + i + j * kl];
                            g[a + i + (b + j) * n] = v;
                            g[b + j + (a + i) * n] = v;
                        }
                    }
                }
            }
        }
        let (mut t, mut a) = (vec![0.0; n * n], vec![0.0; n * n]);
        dense::gemm(&mut t, n, &g, n, &lam, n, n, n, n, 1.0);
        dense::gemm_tn(&mut a, n, &lam, n, &t, n, n, n, n, 1.0);
        (0..n).for_each(|i| a[i + i * n] += 1.0);
        for c in &m.couplings {
            let k = m.factors[c.factor].cols;
            let at = |level: usize, i: usize| first[c.factor] + level * k + i;
            for (l, w) in c.pair.start.windows(2).enumerate() {
                (0..k).for_each(|i| a[at(l, i) * (n + 1)] += c.diag[l] - 1.0);
                for e in w[0] as usize..w[1] as usize {
                    let o = c.pair.level[e] as usize;
                    for (p, q) in (0..k).map(|i| (at(l, i), at(o, i))) {
                        a[p + q * n] += c.pair.value[e];
                        a[q + p * n] += c.pair.value[e];
                    }
                }
            }
        }
        (a, first, n)
    }

    /// Relate every level of a factor to the next and to one further away.
    fn relate(mut self, factor: usize) -> Self {
        let levels = self.moments.factors[factor].levels;
        let (mut start, mut level, mut value) = (vec![0], vec![], vec![]);
        for l in 0..levels {
            let near = [l + 1, l + 1 + levels / 3].into_iter().filter(|&o| o < levels);
            near.for_each(|o| {
                level.push(o as u32);
                value.push(-0.2 - 0.1 * (o % 3) as f64);
            });
            start.push(level.len() as u32);
        }
        let diag = (0..levels).map(|l| 2.5 + 0.1 * (l % 4) as f64).collect();
        let pair = Pair { lead: factor, other: factor, start, level, value };
        self.moments.couplings.push(Coupling { factor, diag, pair });
        self
    }

    /// A random change of the pattern; blocks of pairs now and then not at all.
    fn change(&self, rng: &mut Stream, pairs: bool) -> Change {
        let m = &self.moments;
        let symmetric = |k: usize, rng: &mut Stream| -> Vec<f64> {
            let v: Vec<f64> = (0..k * k).map(|_| rng.unit()).collect();
            (0..k * k).map(|t| v[t] + v[t / k + t % k * k]).collect()
        };
        let diag = m.factors.iter().map(|f| (0..f.levels).flat_map(|_| symmetric(f.cols, rng)).collect()).collect();
        let mut moved = vec![];
        for p in m.links().filter(|_| pairs) {
            let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
            if p.lead == p.other {
                moved.push(p.level.iter().flat_map(|_| symmetric(kl, rng)).collect());
            } else {
                moved.push((0..p.level.len() * kl * ko).map(|_| rng.unit()).collect());
            }
        }
        Change { diag, pairs: moved }
    }

    /// The same as a dense matrix.
    fn dense_change(&self, change: &Change, first: &[usize], n: usize) -> Vec<f64> {
        let m = &self.moments;
        let mut h = vec![0.0; n * n];
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for (t, &v) in change.diag[f].iter().enumerate() {
                let at = first[f] + t / (k * k) * k;
                h[at + t % k + (at + t / k % k) * n] = v;
            }
        }
        for (p, values) in m.links().zip(&change.pairs) {
            let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
            for (l, w) in p.start.windows(2).enumerate() {
                for e in w[0] as usize..w[1] as usize {
                    let (a, b) = (first[p.lead] + l * kl, first[p.other] + p.level[e] as usize * ko);
                    for (t, &v) in values[e * kl * ko..(e + 1) * kl * ko].iter().enumerate() {
                        h[a + t % kl + (b + t / kl) * n] = v;
                        h[b + t / kl + (a + t % kl) * n] = v;
                    }
                }
            }
        }
        h
    }

    /// Derivatives of the inverse against -P H'P.
    fn check_tangents(&self, sym: &Symbolic, num: &Numeric, z: &[f64], first: &[usize], n: usize) {
        let mut rng = Stream(n as u64);
        let changes: Vec<Change> = (0..3).map(|d| self.change(&mut rng, d != 1)).collect();
        let found = num.selected_inverse_tangents(sym, &self.moments, &changes).unwrap();
        for (change, found) in changes.iter().zip(&found) {
            let (mut t, mut dz) = (vec![0.0; n * n], vec![0.0; n * n]);
            dense::gemm(&mut t, n, z, n, &self.dense_change(change, first, n), n, n, n, n, 1.0);
            dense::gemm(&mut dz, n, &t, n, z, n, n, n, n, -1.0);
            self.check_inverse(found, &dz, first, n);
        }
    }

    fn check(&self) -> Symbolic {
        let m = &self.moments;
        let sym = Symbolic::new(m).unwrap();
        for num in [Numeric::new(&sym), Numeric::with_fronts(&sym)] {
            self.check_numbers(&sym, num);
        }
        sym
    }

    fn check_numbers(&self, sym: &Symbolic, mut num: Numeric) {
        let m = &self.moments;
        num.factorise(sym, Source { moments: m, lambda: &self.lambda }).unwrap();
        let (mut a, first, n) = self.dense();
        dense::cholesky(&mut a, n, n).unwrap();
        let logdet = 2.0 * (0..n).map(|i| a[i + i * n].ln()).sum::<f64>();
        assert!((num.logdet - logdet).abs() < 1e-9 * logdet.abs().max(1.0));
        let z = dense::inverse_from_cholesky(&a, n, n);
        let inv = num.selected_inverse_pairs(sym, m);
        self.check_inverse(&inv, &z, &first, n);
        self.check_tangents(sym, &num, &z, &first, n);
        self.check_nest(sym, &num, &inv, &z, &first, n);
        let diagonal = num.selected_inverse(sym, m, dense::Precision::Double);
        assert!(diagonal.pairs.is_empty());
        self.check_inverse(&diagonal, &z, &first, n);
        self.check_tail(sym, &num);
        self.check_solves(sym, &num, &z, &first, n);
        self.check_whole(sym, &mut num, &z, &first, n);
    }

    /// Sums of squares over all levels of two factors, where these are nested.
    fn check_nest(&self, sym: &Symbolic, num: &Numeric, inv: &SelectedInverse, z: &[f64], first: &[usize], n: usize) {
        let Some(sums) = num.squares_of_nest(sym, inv) else { return };
        let shrunk = |i: usize, j: usize| f64::from(u8::from(i == j)) - z[i + j * n];
        let levels = |f: usize| first[f]..first[f] + self.moments.factors[f].levels;
        for (a, b) in (0..first.len()).flat_map(|a| (0..first.len()).map(move |b| (a, b))) {
            let dense: f64 = levels(a).flat_map(|i| levels(b).map(move |j| shrunk(i, j).powi(2))).sum();
            assert!((sums[a + b * first.len()] - dense).abs() < 1e-10 * dense.max(1.0));
        }
    }

    fn check_inverse(&self, inv: &SelectedInverse, z: &[f64], first: &[usize], n: usize) {
        let m = &self.moments;
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-10, "{a} is not {b}");
        for (f, factor) in m.factors.iter().enumerate() {
            let k = factor.cols;
            for (t, &v) in inv.diag[f].iter().enumerate() {
                let (l, i, j) = (t / (k * k), t % k, t / k % k);
                close(v, z[first[f] + l * k + i + (first[f] + l * k + j) * n]);
            }
        }
        for (p, got) in m.links().zip(&inv.pairs) {
            let (kl, ko) = (m.factors[p.lead].cols, m.factors[p.other].cols);
            for l in 0..m.factors[p.lead].levels {
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let (a, b) = (first[p.lead] + l * kl, first[p.other] + p.level[e] as usize * ko);
                    for t in 0..kl * ko {
                        let want = z[a + t % kl + (b + t / kl) * n];
                        if p.lead == p.other {
                            // Which of two related levels comes first in the block is not told.
                            let turned = t / kl + t % kl * kl;
                            let both = want + z[a + t / kl + (b + t % kl) * n];
                            close(got[e * kl * ko + t] + got[e * kl * ko + turned], both);
                        } else {
                            close(got[e * kl * ko + t], want);
                        }
                    }
                }
            }
        }
    }

    /// A tail inverted for many rows of data changes nothing.
    fn check_tail(&self, sym: &Symbolic, num: &Numeric) {
        let tail = num.tail_for(sym, usize::MAX);
        let f = vec![0.0; sym.size];
        let (mut plain, mut quick) = (num.row_solver(sym, None), num.row_solver(sym, tail.as_ref()));
        for pos in (0..sym.nodes).step_by(sym.nodes.div_ceil(5)) {
            let [a, b] = [&mut plain, &mut quick].map(|solver| {
                solver.add(pos, 0, &[1.0]);
                solver.run(&f, 1, &mut [0.0])
            });
            assert!((a - b).abs() < 1e-12);
        }
    }

    /// Some columns of all of the inverse, from leaves and from the tail, and once more in the place of a packed factor.
    fn check_whole(&self, sym: &Symbolic, num: &mut Numeric, z: &[f64], first: &[usize], n: usize) {
        let mut natural = vec![0; n];
        for pos in 0..sym.nodes {
            let f = sym.factor_at[pos] as usize;
            let k = sym.widths[f] as usize;
            (0..k).for_each(|i| natural[sym.offset[pos] as usize + i] = first[f] + sym.level(pos) * k + i);
        }
        let check = |at: &[usize], x: &[f64]| {
            for (q, row) in x.chunks_exact(at.len().max(1)).enumerate() {
                for (v, &c) in row.iter().zip(at) {
                    assert!((v - z[natural[q] + natural[c] * n]).abs() < 1e-10);
                }
            }
        };
        let at: Vec<usize> = (0..n).step_by(n.div_ceil(9)).chain([n - 1]).collect();
        let (mut place, forest) = (vec![0; n], sym.forest());
        // Blocks between trees are work, too, where something ties them together.
        let many = forest.trees().count() > 1 && sym.supers.iter().any(|s| !s.leaf);
        assert_eq!(Whole::work(sym, true) > Whole::work(sym, false), many);
        for supers in forest.trees().chain([forest.all()]) {
            let whole = num.whole(sym, supers, &mut place);
            let scalars: Vec<usize> = whole.scalars.iter().map(|&q| q as usize).collect();
            let mine: Vec<usize> = at.iter().copied().filter(|q| scalars.contains(q)).collect();
            let local: Vec<usize> = mine.iter().map(|&q| place[q] as usize).collect();
            let mut x = vec![0.0; scalars.len() * mine.len()];
            whole.columns(&local, &mut x);
            // What is not of the tree is 0.
            let mut spread = vec![0.0; n * mine.len()];
            for (&q, row) in scalars.iter().zip(x.chunks_exact(mine.len().max(1))) {
                spread[q * mine.len()..(q + 1) * mine.len()].copy_from_slice(row);
            }
            check(&mine, &spread);
            if Small::suits(sym, supers) {
                let mut small = Small::default();
                small.invert(num, sym, supers, &mut place);
                for &q in &mine {
                    spread.fill(0.0);
                    for (&to, v) in scalars.iter().map(|s| (s, place[*s])) {
                        spread[to] = small.inverse[v as usize + place[q] as usize * small.size];
                    }
                    check(&[q], &spread[..n]);
                }
            }
        }
        if Columns::work(sym).is_none() {
            return assert!(num.columns(sym).is_err());
        }
        // The last chunk has more columns than are formed together.
        let all: Vec<usize> = (0..n).chain((0..n).cycle().take(1200)).collect();
        let chunks: Vec<&[usize]> = all.chunks(100).chain([&all[..]]).collect();
        let columns = num.columns(sym).unwrap();
        let mut seen = vec![];
        columns.visit(&chunks, |i, x| (i, x), |(i, x)| seen.push((i, x)));
        assert!(seen.iter().map(|s| s.0).eq(0..chunks.len()));
        seen.iter().for_each(|(i, x)| check(chunks[*i], x));
    }

    fn check_solves(&self, sym: &Symbolic, num: &Numeric, z: &[f64], first: &[usize], n: usize) {
        // Column by column of the identity would be slow: two right-hand sides with known solutions will do.
        let v: Vec<f64> = (0..2 * n).map(|i| ((i * 37) % 101) as f64 / 50.0 - 1.0).collect();
        let row = |pos: usize| {
            let f = sym.factor_at[pos] as usize;
            first[f] + sym.level(pos) * sym.widths[f] as usize
        };
        let mut b = vec![0.0; 2 * n];
        for pos in 0..sym.nodes {
            let at = sym.offset[pos] as usize;
            for i in 0..sym.width_at(pos) {
                for c in 0..2 {
                    b[(at + i) * 2 + c] = v[row(pos) + i + c * n];
                }
            }
        }
        num.forward(sym, &mut b, 2);
        num.backward(sym, &mut b, 2);
        for pos in 0..sym.nodes {
            for i in 0..sym.width_at(pos) {
                for c in 0..2 {
                    let r = row(pos) + i;
                    let want: f64 = (0..n).map(|t| z[r + t * n] * v[t + c * n]).sum();
                    assert!((b[(sym.offset[pos] as usize + i) * 2 + c] - want).abs() < 1e-9);
                }
            }
        }
    }
}

fn random_codes(rng: &mut Stream, n: usize, levels: usize) -> Vec<i32> {
    // Every level occurs.
    (0..n).map(|i| if i < levels { i as i32 } else { rng.below(levels) }).collect()
}

#[test]
fn one_factor() {
    let mut rng = Stream(1);
    for k in [1, 2, 3] {
        Case::new(&[(random_codes(&mut rng, 300, 40), 40, k)], &mut rng).check();
    }
}

#[test]
fn nested_factors() {
    let mut rng = Stream(2);
    for (kc, kb, ka) in [(1, 1, 1), (2, 1, 3), (1, 2, 2)] {
        let c = random_codes(&mut rng, 900, 120);
        let b: Vec<i32> = c.iter().map(|c| c / 6).collect();
        let a: Vec<i32> = b.iter().map(|b| b / 4).collect();
        Case::new(&[(c, 120, kc), (b, 20, kb), (a, 5, ka)], &mut rng).check();
    }
}

#[test]
fn crossed_factors_with_a_dense_tail() {
    let mut rng = Stream(3);
    for (ka, kb) in [(1, 1), (2, 1), (1, 3), (2, 2)] {
        let (a, b) = (random_codes(&mut rng, 900, 90), random_codes(&mut rng, 900, 30));
        Case::new(&[(a, 90, ka), (b, 30, kb)], &mut rng).check();
    }
}

#[test]
fn three_crossed_factors_have_pairs_inside_the_tail() {
    let mut rng = Stream(4);
    for (ka, kb, kc) in [(1, 1, 1), (2, 1, 2), (1, 2, 3)] {
        let a = random_codes(&mut rng, 700, 100);
        let (b, c) = (random_codes(&mut rng, 700, 25), random_codes(&mut rng, 700, 12));
        Case::new(&[(a, 100, ka), (b, 25, kb), (c, 12, kc)], &mut rng).check();
    }
}

#[test]
fn sparse_random_crossing_needs_an_ordering() {
    let mut rng = Stream(5);
    for (ka, kb) in [(1, 1), (2, 1), (1, 2)] {
        let (a, b) = (random_codes(&mut rng, 420, 200), random_codes(&mut rng, 420, 180));
        Case::new(&[(a, 200, ka), (b, 180, kb)], &mut rng).check();
    }
}

#[test]
fn crossing_within_blocks() {
    let mut rng = Stream(6);
    for (ka, kb, kc) in [(1, 1, 1), (1, 2, 2)] {
        let n = 1500;
        let student = random_codes(&mut rng, n, 250);
        let school: Vec<i32> = student.iter().map(|s| s % 10).collect();
        let teacher: Vec<i32> = school.iter().map(|s| s * 6 + rng.below(6)).collect();
        Case::new(&[(student, 250, ka), (teacher, 60, kb), (school, 10, kc)], &mut rng).check();
    }
}

#[test]
fn wide_tail_and_many_leaves_use_tiles_slabs_and_batches() {
    let mut rng = Stream(7);
    for (levels, ka, rows) in [(900, 1, 20_000), (600, 2, 20_000)] {
        let (a, b) = (random_codes(&mut rng, rows, levels), random_codes(&mut rng, rows, 560));
        let case = Case::new(&[(a, levels, ka), (b, 560, 1)], &mut rng);
        let sym = case.check();
        assert!(sym.supers.iter().any(|s| s.width >= 560));
    }
}

#[test]
fn wide_root_over_leaves_with_few_rows_is_packed() {
    let mut rng = Stream(10);
    // Nodes of six columns straddle the stripes; pairs lie between leaves and the root and inside the root.
    for ka in [1, 2] {
        let (a, b) = (random_codes(&mut rng, 800, 200), random_codes(&mut rng, 800, 66));
        let c = random_codes(&mut rng, 800, 5);
        let sym = Case::new(&[(a, 200, ka), (b, 66, 6), (c, 5, 1)], &mut rng).check();
        assert!(sym.supers.iter().any(|s| s.packed && s.width == 401));
    }
}

#[test]
fn sparse_rest_is_ordered_and_its_supernodes_merged() {
    let mut rng = Stream(8);
    // Three leading levels a level of the second factor, which meets few others: a band, and a third factor over it.
    for (ka, kb, kc) in [(1, 1, 1), (1, 2, 1), (2, 1, 2)] {
        let n = 2400;
        let a = random_codes(&mut rng, n, 700);
        let b: Vec<i32> = a.iter().map(|a| (a / 3 + rng.below(9)).min(239)).collect();
        let c: Vec<i32> = b.iter().map(|b| b / 30).collect();
        let sym = Case::new(&[(a, 700, ka), (b, 240, kb), (c, 8, kc)], &mut rng).check();
        let inner: Vec<_> = sym.supers.iter().filter(|s| !s.leaf && s.below > 0).collect();
        assert!(inner.len() > 2 && inner.iter().any(|s| s.last - s.first > 1));
    }
}

#[test]
fn related_levels() {
    let mut rng = Stream(11);
    for (ka, kb) in [(1, 1), (2, 1), (1, 2), (3, 2)] {
        let (a, b) = (random_codes(&mut rng, 500, 60), random_codes(&mut rng, 500, 40));
        for related in [0, 1] {
            let case = Case::new(&[(a.clone(), 60, ka), (b.clone(), 40, kb)], &mut rng).relate(related);
            case.check();
        }
        Case::new(&[(a, 60, ka)], &mut rng).relate(0).check();
    }
}

#[test]
fn changes_that_do_not_fit_and_requests_to_end_are_errors() {
    let mut rng = Stream(12);
    let (a, b) = (random_codes(&mut rng, 300, 40), random_codes(&mut rng, 300, 20));
    let case = Case::new(&[(a, 40, 2), (b, 20, 1)], &mut rng);
    let sym = Symbolic::new(&case.moments).unwrap();
    let mut num = Numeric::new(&sym);
    num.factorise(&sym, Source { moments: &case.moments, lambda: &case.lambda }).unwrap();
    let mut ask = |spoil: &dyn Fn(&mut Change), num: &Numeric| {
        let mut change = case.change(&mut rng, true);
        spoil(&mut change);
        num.selected_inverse_tangents(&sym, &case.moments, &[change]).err()
    };
    assert_eq!(ask(&|_| (), &num), None);
    assert_eq!(ask(&|c| c.pairs[0].clear(), &num), None);
    assert!(matches!(ask(&|c| c.diag[0].truncate(7), &num), Some(CoreError::Shape(_))));
    assert!(matches!(ask(&|c| c.pairs[0].truncate(7), &num), Some(CoreError::Shape(_))));
    num.stop.request();
    assert_eq!(ask(&|_| (), &num), Some(CoreError::Interrupted));
}

#[test]
fn changes_that_do_not_fit_at_once_are_taken_one_by_one() {
    let mut rng = Stream(13);
    let (a, b) = (random_codes(&mut rng, 300, 40), random_codes(&mut rng, 300, 20));
    let case = Case::new(&[(a, 40, 2), (b, 20, 1)], &mut rng);
    let sym = Symbolic::new(&case.moments).unwrap();
    let mut num = Numeric::with_fronts(&sym);
    num.factorise(&sym, Source { moments: &case.moments, lambda: &case.lambda }).unwrap();
    let changes: Vec<Change> = (0..3).map(|_| case.change(&mut rng, true)).collect();
    let within = |room| num.tangents_within(&sym, &case.moments, &changes, room);
    let numbers = |all: Vec<SelectedInverse>| all.into_iter().map(|v| (v.diag, v.pairs)).collect::<Vec<_>>();
    let many = usize::MAX / 4;
    assert_eq!(numbers(within((many, many)).unwrap()), numbers(within((0, many)).unwrap()));
    assert!(matches!(within((0, 100)), Err(CoreError::Shape(what)) if what.contains("GB of memory")));
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let mut rng = Stream(9);
    let (a, b) = (random_codes(&mut rng, 20_000, 1400), random_codes(&mut rng, 20_000, 600));
    let case = Case::new(&[(a, 1400, 1), (b, 600, 1)], &mut rng);
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let sym = Symbolic::new(&case.moments).unwrap();
            let mut num = Numeric::new(&sym);
            num.factorise(&sym, Source { moments: &case.moments, lambda: &case.lambda }).unwrap();
            let inv = num.selected_inverse_pairs(&sym, &case.moments);
            let rough = num.selected_inverse(&sym, &case.moments, dense::Precision::Single);
            assert!(num.single_pays(&sym) && rough.diag != inv.diag);
            let changes = [1, 2].map(|d| case.change(&mut Stream(d), true));
            let moved = num.selected_inverse_tangents(&sym, &case.moments, &changes).unwrap();
            let moved: Vec<_> = moved.into_iter().map(|v| (v.diag, v.pairs)).collect();
            (num.logdet, inv.diag, inv.pairs, rough.diag, moved)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}
