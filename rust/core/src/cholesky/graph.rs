//! What is eliminated first, and in which order the rest: decided on the quotient graph, by what each way would cost.

use super::order::Builder;
use super::symbolic::{Symbolic, NONE};
use crate::design::Moments;
use crate::CoreError;

/// The part left by the leading factor is treated as dense when at least this share of it is filled at once.
const DENSE_SHARE: f64 = 0.6;
/// A multiplication outside a dense block costs about this many inside it (indirect addressing, narrow blocks).
pub(super) const SPARSE_PENALTY: f64 = 8.0;
/// Most pairs of neighbours that are looked at to find the graph left by the leading factor.
const REDUCE_WORK: f64 = 5e7;
/// Up to this many trailing nodes the reduced graph is inspected for density before any ordering is computed.
const INSPECT: usize = 12_000;

/// The quotient graph: nodes are (factor, level), edges are observed pairs of levels.
pub(super) struct Graph<'a> {
    pub m: &'a Moments,
    pub base: Vec<u32>,
    pub nodes: usize,
}

impl<'a> Graph<'a> {
    pub fn new(m: &'a Moments) -> Self {
        let mut base = vec![];
        let mut nodes = 0usize;
        for f in &m.factors {
            base.push(nodes as u32);
            nodes += f.levels;
        }
        Graph { m, base, nodes }
    }

    /// The factor whose levels are eliminated first: the one with most levels, of those whose levels are independent.
    fn lead(&self) -> Option<usize> {
        let free = (0..self.m.factors.len()).filter(|&f| !self.m.coupled(f));
        free.max_by_key(|&f| (self.m.factors[f].levels, usize::MAX - f))
    }

    /// Levels of the leading factor, then all others as they come.
    fn natural(&self, lead: usize) -> Vec<u32> {
        let range = |f: usize| self.base[f]..self.base[f] + self.m.factors[f].levels as u32;
        let others = (0..self.m.factors.len()).filter(|&f| f != lead);
        (0..self.m.factors.len()).filter(|&f| f == lead).chain(others).flat_map(range).collect()
    }

    pub fn symbolic(&self) -> Result<Symbolic, CoreError> {
        let Some(lead) = self.lead() else {
            if self.nodes == 0 {
                return Ok(Builder::new(self, vec![]).leading(0));
            }
            let (start, row) = self.graph();
            let ordered = Builder::new(self, minimum_degree(&start, &row)?);
            let plan = ordered.plan();
            return Ok(ordered.planned(plan));
        };
        let natural = |tail: usize| Builder::new(self, self.natural(lead)).leading(tail);
        if self.m.factors.len() <= 1 {
            return Ok(natural(0));
        }
        let rest = self.nodes - self.m.factors[lead].levels;
        if self.width_without(lead) <= 16 || (rest <= INSPECT && self.fills_in(lead, rest)) {
            return Ok(natural(rest));
        }
        let order = match self.reduced_graph(lead, rest) {
            Some((start, row)) => {
                let natural = self.natural(lead);
                let (head, tail) = natural.split_at(self.nodes - rest);
                let rest = minimum_degree(&start, &row)?.into_iter().map(|i| tail[i as usize]);
                head.iter().copied().chain(rest).collect()
            }
            None => {
                let (start, row) = self.graph();
                minimum_degree(&start, &row)?
            }
        };
        let ordered = Builder::new(self, order);
        let plan = ordered.plan();
        if rest <= INSPECT && self.natural_cost(lead, rest) <= plan.cost {
            return Ok(natural(rest));
        }
        Ok(ordered.planned(plan))
    }

    /// Cost of eliminating the leading factor and all the rest as one dense block.
    fn natural_cost(&self, lead: usize, rest: usize) -> f64 {
        self.degrees(lead).map(sparse_cost).sum::<f64>() + dense_cost(rest)
    }

    /// Levels of other factors that every level of the leading factor meets.
    fn degrees(&self, lead: usize) -> impl Iterator<Item = f64> + '_ {
        let pairs: Vec<_> = self.m.pairs.iter().filter(|p| p.lead == lead).collect();
        (0..self.m.factors[lead].levels).map(move |l| pairs.iter().map(|p| (p.start[l + 1] - p.start[l]) as f64).sum())
    }

    /// The graph that is left when a leading factor much larger than all others is eliminated (upper triangle,
    /// compressed by the earlier node); an ordering is then needed for the few that remain only.
    fn reduced_graph(&self, lead: usize, rest: usize) -> Option<(Vec<u32>, Vec<u32>)> {
        let work: f64 = self.degrees(lead).map(|r| r * r).sum();
        if self.m.factors[lead].levels < 2 * rest || work > REDUCE_WORK {
            return None;
        }
        let (shift, first) = (self.m.factors[lead].levels as u32, self.base[lead]);
        let rank = |node: u32| if node > first { node - shift } else { node };
        let (meets_start, meets) = self.lead_rows(lead, rank);
        let (mut by_start, mut by) = (vec![0u32; rest + 1], vec![0u32; meets.len()]);
        meets.iter().for_each(|&q| by_start[q as usize + 1] += 1);
        (0..rest).for_each(|j| by_start[j + 1] += by_start[j]);
        let mut next = by_start.clone();
        for l in 0..meets_start.len() - 1 {
            for &q in &meets[meets_start[l] as usize..meets_start[l + 1] as usize] {
                by[next[q as usize] as usize] = l as u32;
                next[q as usize] += 1;
            }
        }
        let mut direct: Vec<(u32, u32)> = vec![];
        for p in self.m.links().filter(|p| p.lead != lead && p.other != lead) {
            for l in 0..self.m.factors[p.lead].levels {
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let (a, b) = (rank(self.base[p.lead] + l as u32), rank(self.base[p.other] + p.level[e]));
                    direct.push((a.min(b), a.max(b)));
                }
            }
        }
        direct.sort_unstable();
        let mut direct = direct.into_iter().peekable();
        let (mut start, mut row, mut mark) = (vec![0u32], vec![], vec![NONE; rest]);
        for j in 0..rest as u32 {
            let begin = row.len();
            let through = by[by_start[j as usize] as usize..by_start[j as usize + 1] as usize]
                .iter()
                .flat_map(|&l| &meets[meets_start[l as usize] as usize..meets_start[l as usize + 1] as usize]);
            let beside = std::iter::from_fn(|| direct.next_if(|e| e.0 == j).map(|e| e.1));
            for q in through.copied().chain(beside) {
                if q > j && mark[q as usize] != j {
                    mark[q as usize] = j;
                    row.push(q);
                }
            }
            row[begin..].sort_unstable();
            start.push(row.len() as u32);
        }
        Some((start, row))
    }

    /// Ranks (among the other nodes) that every level of the leading factor meets.
    fn lead_rows(&self, lead: usize, rank: impl Fn(u32) -> u32) -> (Vec<u32>, Vec<u32>) {
        let (mut start, mut rows) = (vec![0u32], vec![]);
        for l in 0..self.m.factors[lead].levels {
            for p in self.m.pairs.iter().filter(|p| p.lead == lead) {
                let met = &p.level[p.start[l] as usize..p.start[l + 1] as usize];
                rows.extend(met.iter().map(|&e| rank(self.base[p.other] + e)));
            }
            start.push(rows.len() as u32);
        }
        (start, rows)
    }

    fn width_without(&self, lead: usize) -> usize {
        self.m.factors.iter().enumerate().filter(|(f, _)| *f != lead).map(|(_, f)| f.levels * f.cols).sum()
    }

    /// Whether eliminating the leading factor leaves a graph so full that a dense block is the best that can be done.
    fn fills_in(&self, lead: usize, rest: usize) -> bool {
        let rank = |f: usize, l: u32| -> usize {
            let node = self.base[f] + l;
            let shift = if self.base[lead] < node { self.m.factors[lead].levels } else { 0 };
            node as usize - shift
        };
        let goal = (0.5 * DENSE_SHARE * (rest * rest) as f64) as usize;
        if self.degrees(lead).map(|r| r * r).sum::<f64>() < goal as f64 {
            return false;
        }
        let words = rest.div_ceil(64);
        let mut bits = vec![0u64; words * rest];
        let levels = self.m.factors[lead].levels;
        let pairs: Vec<_> = self.m.pairs.iter().filter(|p| p.lead == lead).collect();
        let mut neighbours = vec![];
        let mut mask: Vec<u64> = vec![0; words];
        // A stride that visits levels far apart first, so that the test ends early when the graph is full.
        let stride = coprime_stride(levels);
        let mut l = 0usize;
        let (mut seen, mut look) = (0usize, goal);
        for _ in 0..levels {
            neighbours.clear();
            for p in &pairs {
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    neighbours.push(rank(p.other, p.level[e]));
                }
            }
            for &a in &neighbours {
                mask[a / 64] |= 1 << (a % 64);
            }
            for &a in &neighbours {
                let row = &mut bits[a * words..(a + 1) * words];
                if neighbours.len() > words {
                    row.iter_mut().zip(&mask).for_each(|(r, m)| *r |= m);
                } else {
                    for &b in &neighbours {
                        row[b / 64] |= 1 << (b % 64);
                    }
                }
            }
            for &a in &neighbours {
                mask[a / 64] = 0;
            }
            l = (l + stride) % levels;
            // No more can be filled than pairs were seen, and looking costs a pass over all of them.
            seen += neighbours.len() * neighbours.len();
            if seen >= look {
                if count(&bits) >= goal {
                    return true;
                }
                look = seen + seen / 2;
            }
        }
        seen >= goal && count(&bits) >= goal
    }

    /// All edges, compressed by one of their ends.
    fn graph(&self) -> (Vec<u32>, Vec<u32>) {
        let n = self.nodes;
        let mut start = vec![0u32; n + 1];
        for p in self.m.links() {
            for (l, w) in p.start.windows(2).enumerate() {
                start[self.base[p.lead] as usize + l + 1] += w[1] - w[0];
            }
        }
        for j in 0..n {
            start[j + 1] += start[j];
        }
        let mut next: Vec<u32> = start[..n].to_vec();
        let mut row = vec![0u32; start[n] as usize];
        for p in self.m.links() {
            for l in 0..self.m.factors[p.lead].levels {
                let at = &mut next[self.base[p.lead] as usize + l];
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    row[*at as usize] = self.base[p.other] + p.level[e];
                    *at += 1;
                }
            }
        }
        for j in 0..n {
            row[start[j] as usize..start[j + 1] as usize].sort_unstable();
        }
        (start, row)
    }
}

/// Approximate minimum degree order (Amestoy, Davis & Duff 1996) of a compressed graph.
fn minimum_degree(start: &[u32], row: &[u32]) -> Result<Vec<u32>, CoreError> {
    use faer::sparse::linalg::amd;
    use faer::sparse::SymbolicSparseColMatRef;
    let n = start.len() - 1;
    let (mut perm, mut inverse) = (vec![0u32; n], vec![0u32; n]);
    let mut buf = faer::dyn_stack::MemBuffer::new(amd::order_scratch::<u32>(n, row.len()));
    let pattern = SymbolicSparseColMatRef::new_checked(n, n, start, None, row);
    amd::order(&mut perm, &mut inverse, pattern, amd::Control::default(), faer::dyn_stack::MemStack::new(&mut buf))
        .map_err(|e| CoreError::Shape(format!("minimum-degree ordering failed: {e:?}")))?;
    Ok(perm)
}

/// Cost of eliminating one node with `r` neighbours by sparse kernels, in multiplications of a dense kernel.
pub(super) fn sparse_cost(r: f64) -> f64 {
    SPARSE_PENALTY * 0.5 * r * r
}

/// Cost of a dense block of `t` nodes.
pub(super) fn dense_cost(t: usize) -> f64 {
    (t as f64).powi(3) / 6.0
}

fn count(bits: &[u64]) -> usize {
    bits.iter().map(|b| b.count_ones() as usize).sum()
}

fn coprime_stride(n: usize) -> usize {
    fn gcd(a: usize, b: usize) -> usize {
        if b == 0 {
            a
        } else {
            gcd(b, a % b)
        }
    }
    let mut s = (n as f64 * 0.618) as usize + 1;
    while gcd(s, n) != 1 {
        s += 1;
    }
    s
}
