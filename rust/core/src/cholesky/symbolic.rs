//! Elimination order, elimination tree and supernodes: done once a model, shared by every factorisation.

use crate::dense;
use crate::design::Moments;
use crate::CoreError;

pub const NONE: u32 = u32::MAX;
/// The part left by the leading factor is treated as dense when at least this share of it is filled at once.
const DENSE_SHARE: f64 = 0.6;
/// A multiplication outside a dense block costs about this many inside it (indirect addressing, narrow blocks).
const SPARSE_PENALTY: f64 = 8.0;
/// A multiplication with a column of L^-1 costs about this many in a product of blocks.
const COLUMN_WORK: f64 = 4.0;
/// Most pairs of neighbours that are looked at to find the graph left by the leading factor.
const REDUCE_WORK: f64 = 5e7;
/// Supernodes are merged while the zeros stored for it stay below these shares (narrow result, any result).
const MERGE_NARROW: (u32, f64) = (8, 0.4);
const MERGE: f64 = 0.15;
/// Up to this many trailing nodes the reduced graph is inspected for density before any ordering is computed.
const INSPECT: usize = 12_000;

/// Where node `q > p` meets node `p`: the entry of a pair that holds their cross-product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    pub row: u32,
    pub pair: u32,
    pub entry: u32,
}

/// Consecutive nodes of the elimination order with (nearly) the same structure.
#[derive(Clone, Debug, PartialEq)]
pub struct Super {
    pub first: u32,
    pub last: u32,
    pub parent: u32,
    /// Scalar columns, and scalar rows below them.
    pub width: u32,
    pub below: u32,
    /// Range in `structure` and `relative`.
    pub rows: (u32, u32),
    /// A single node without children: eliminated on the fly while its parent is assembled.
    pub leaf: bool,
    /// A wide root whose children are all leaves with few rows: its panel is a packed triangle, and its inverse is never
    /// formed.
    pub packed: bool,
    /// Offset of its panel (width + below) x width in the factor.
    pub panel: usize,
}

impl Super {
    /// Numbers in its panel.
    pub fn panel_len(&self) -> usize {
        let (w, r) = (self.width as usize, self.below as usize);
        if self.packed {
            dense::packed_len(w)
        } else {
            (w + r) * w
        }
    }

    /// Multiplications that a leaf causes in its parent's front.
    pub fn leaf_work(&self) -> f64 {
        self.width as f64 * (self.below as f64).powi(2)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Symbolic {
    pub nodes: usize,
    pub size: usize,
    /// Node at each position and position of each node; node = base[factor] + level.
    pub order: Vec<u32>,
    pub position: Vec<u32>,
    pub base: Vec<u32>,
    pub widths: Vec<u32>,
    /// Factor of the node at each position, and its first scalar row.
    pub factor_at: Vec<u16>,
    pub offset: Vec<u32>,
    /// Edges to later nodes, by position.
    pub edge_start: Vec<u32>,
    pub edges: Vec<Edge>,
    pub supers: Vec<Super>,
    /// Positions of the nodes below each supernode, and their scalar offsets in the parent's front.
    pub structure: Vec<u32>,
    pub relative: Vec<u32>,
    pub children_start: Vec<u32>,
    pub children: Vec<u32>,
    pub panel_size: usize,
}

impl Symbolic {
    pub fn new(m: &Moments) -> Result<Self, CoreError> {
        Graph::new(m).symbolic()
    }

    pub fn level(&self, position: usize) -> usize {
        let node = self.order[position];
        (node - self.base[self.factor_at[position] as usize]) as usize
    }

    pub fn width_at(&self, position: usize) -> usize {
        self.widths[self.factor_at[position] as usize] as usize
    }

    /// Whether every node is a single number.
    pub fn scalar(&self) -> bool {
        self.widths.iter().all(|&w| w == 1)
    }

    pub fn children(&self, s: usize) -> &[u32] {
        &self.children[self.children_start[s] as usize..self.children_start[s + 1] as usize]
    }

    pub fn rows(&self, s: &Super) -> &[u32] {
        &self.structure[s.rows.0 as usize..s.rows.1 as usize]
    }

    pub fn relative(&self, s: &Super) -> &[u32] {
        &self.relative[s.rows.0 as usize..s.rows.1 as usize]
    }

    pub fn edges(&self, position: usize) -> &[Edge] {
        &self.edges[self.edge_start[position] as usize..self.edge_start[position + 1] as usize]
    }

    /// Visit the edges of a supernode's nodes as (position, scalar column, edge, scalar row), both in its front.
    pub fn for_edges(&self, s: &Super, mut visit: impl FnMut(usize, usize, &Edge, usize)) {
        let base = self.offset[s.first as usize];
        let rows = self.rows(s);
        let mut below = vec![];
        let mut at = s.width;
        for &q in rows {
            below.push(at);
            at += self.width_at(q as usize) as u32;
        }
        for p in s.first as usize..s.last as usize {
            let column = (self.offset[p] - base) as usize;
            let mut from = 0;
            for e in self.edges(p) {
                if e.row < s.last {
                    visit(p, column, e, (self.offset[e.row as usize] - base) as usize);
                } else {
                    // Edges and rows are both in elimination order.
                    from += rows[from..].partition_point(|&q| q < e.row);
                    visit(p, column, e, below[from] as usize);
                }
            }
        }
    }

    /// Multiplications of one factorisation (for the floor that benchmarks report).
    pub fn flops(&self) -> f64 {
        self.supers
            .iter()
            .map(|s| {
                let (w, r) = (s.width as f64, s.below as f64);
                w * w * w / 6.0 + 0.5 * w * w * r + 0.5 * w * r * r
            })
            .sum()
    }
}

/// The quotient graph: nodes are (factor, level), edges are observed pairs of levels.
struct Graph<'a> {
    m: &'a Moments,
    base: Vec<u32>,
    nodes: usize,
}

impl<'a> Graph<'a> {
    fn new(m: &'a Moments) -> Self {
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

    fn symbolic(&self) -> Result<Symbolic, CoreError> {
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
                let tail = &self.natural(lead)[self.nodes - rest..];
                let head = self.natural(lead).into_iter().take(self.nodes - rest);
                head.chain(minimum_degree(&start, &row)?.into_iter().map(|i| tail[i as usize])).collect()
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
        let mut direct: Vec<Vec<u32>> = vec![vec![]; rest];
        for p in self.m.links().filter(|p| p.lead != lead && p.other != lead) {
            for l in 0..self.m.factors[p.lead].levels {
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let (a, b) = (rank(self.base[p.lead] + l as u32), rank(self.base[p.other] + p.level[e]));
                    direct[a.min(b) as usize].push(a.max(b));
                }
            }
        }
        let (mut start, mut row, mut mark) = (vec![0u32], vec![], vec![NONE; rest]);
        for j in 0..rest as u32 {
            let begin = row.len();
            let through = by[by_start[j as usize] as usize..by_start[j as usize + 1] as usize]
                .iter()
                .flat_map(|&l| &meets[meets_start[l as usize] as usize..meets_start[l as usize + 1] as usize]);
            for &q in through.chain(&direct[j as usize]) {
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
fn sparse_cost(r: f64) -> f64 {
    SPARSE_PENALTY * 0.5 * r * r
}

/// Cost of a dense block of `t` nodes.
fn dense_cost(t: usize) -> f64 {
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

/// A dense block at the end of an order, and what a factorisation with it costs.
struct Plan {
    parent: Vec<u32>,
    counts: Vec<u32>,
    in_tail: Vec<bool>,
    tail: usize,
    cost: f64,
}

struct Builder<'a> {
    g: &'a Graph<'a>,
    order: Vec<u32>,
    position: Vec<u32>,
    edge_start: Vec<u32>,
    edges: Vec<Edge>,
}

impl<'a> Builder<'a> {
    fn new(g: &'a Graph<'a>, order: Vec<u32>) -> Self {
        let mut b = Builder { g, order, position: vec![], edge_start: vec![], edges: vec![] };
        b.relabel();
        b
    }

    /// Edges by earlier position, sorted by later position (two stable counting sorts).
    fn relabel(&mut self) {
        let n = self.g.nodes;
        self.position = vec![0; n];
        for (p, &v) in self.order.iter().enumerate() {
            self.position[v as usize] = p as u32;
        }
        let m = self.g.m;
        let total: usize = m.links().map(|p| p.level.len()).sum();
        let ends = |p: &crate::design::Pair, l: usize, e: usize| {
            let a = self.position[self.g.base[p.lead] as usize + l];
            let b = self.position[(self.g.base[p.other] + p.level[e]) as usize];
            (a.min(b), a.max(b))
        };
        let mut by_later = vec![0u32; n + 1];
        let mut by_earlier = vec![0u32; n + 1];
        for p in m.links() {
            for l in 0..m.factors[p.lead].levels {
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let (a, b) = ends(p, l, e);
                    by_later[b as usize + 1] += 1;
                    by_earlier[a as usize + 1] += 1;
                }
            }
        }
        for j in 0..n {
            by_later[j + 1] += by_later[j];
            by_earlier[j + 1] += by_earlier[j];
        }
        let blank = Edge { row: 0, pair: 0, entry: 0 };
        let mut first = vec![(0u32, blank); total];
        let mut next = by_later;
        for (k, p) in m.links().enumerate() {
            for l in 0..m.factors[p.lead].levels {
                for e in p.start[l] as usize..p.start[l + 1] as usize {
                    let (a, b) = ends(p, l, e);
                    let at = &mut next[b as usize];
                    first[*at as usize] = (a, Edge { row: b, pair: k as u32, entry: e as u32 });
                    *at += 1;
                }
            }
        }
        self.edges = vec![blank; total];
        let mut next = by_earlier.clone();
        for (a, e) in first {
            let at = &mut next[a as usize];
            self.edges[*at as usize] = e;
            *at += 1;
        }
        self.edge_start = by_earlier;
    }

    fn adjacent(&self, p: usize) -> &[Edge] {
        &self.edges[self.edge_start[p] as usize..self.edge_start[p + 1] as usize]
    }

    /// Parents in the elimination tree (Liu 1990), from the edges sorted by their later end.
    fn tree(&self) -> Vec<u32> {
        let n = self.g.nodes;
        let (start, earlier) = self.transpose();
        let (mut parent, mut ancestor) = (vec![NONE; n], vec![NONE; n]);
        for k in 0..n {
            for &i in &earlier[start[k] as usize..start[k + 1] as usize] {
                let mut i = i as usize;
                while i < k {
                    let up = ancestor[i];
                    ancestor[i] = k as u32;
                    if up == NONE {
                        parent[i] = k as u32;
                        break;
                    }
                    i = up as usize;
                }
            }
        }
        parent
    }

    fn transpose(&self) -> (Vec<u32>, Vec<u32>) {
        let n = self.g.nodes;
        let mut start = vec![0u32; n + 1];
        for e in &self.edges {
            start[e.row as usize + 1] += 1;
        }
        for j in 0..n {
            start[j + 1] += start[j];
        }
        let mut next = start.clone();
        let mut earlier = vec![0u32; self.edges.len()];
        for p in 0..n {
            for e in self.adjacent(p) {
                let at = &mut next[e.row as usize];
                earlier[*at as usize] = p as u32;
                *at += 1;
            }
        }
        (start, earlier)
    }

    /// Nodes below the diagonal in every column of the factor (row-subtree traversal).
    fn column_counts(&self, parent: &[u32]) -> Vec<u32> {
        let n = self.g.nodes;
        let (start, earlier) = self.transpose();
        let (mut count, mut mark) = (vec![0u32; n], vec![NONE; n]);
        for k in 0..n {
            mark[k] = k as u32;
            for &i in &earlier[start[k] as usize..start[k + 1] as usize] {
                let mut i = i as usize;
                while mark[i] != k as u32 {
                    mark[i] = k as u32;
                    count[i] += 1;
                    i = parent[i] as usize;
                }
            }
        }
        count
    }

    /// The leading factor first (its levels never meet each other), the last `tail` nodes as one dense block.
    fn leading(self, tail: usize) -> Symbolic {
        let n = self.g.nodes;
        let mut ranges: Vec<(u32, u32)> = (0..(n - tail) as u32).map(|j| (j, j + 1)).collect();
        if tail > 0 {
            ranges.push(((n - tail) as u32, n as u32));
        }
        self.assemble(ranges)
    }

    /// Choose what becomes the dense block: from the root down, while a node is so full that it pays.
    fn plan(&self) -> Plan {
        let n = self.g.nodes;
        let parent = self.tree();
        let counts = self.column_counts(&parent);
        let mut heaviest = vec![NONE; n];
        for j in 0..n {
            if parent[j] != NONE {
                let best = &mut heaviest[parent[j] as usize];
                if *best == NONE || counts[j] > counts[*best as usize] {
                    *best = j as u32;
                }
            }
        }
        let mut in_tail = vec![false; n];
        let (mut at, mut tail) = (n as u32 - 1, 0usize);
        while at != NONE && SPARSE_PENALTY * (counts[at as usize] as f64).powi(2) >= (tail as f64).powi(2) {
            in_tail[at as usize] = true;
            tail += 1;
            at = heaviest[at as usize];
        }
        // A block of a few nodes is better left to the supernodes.
        if tail < 16 {
            in_tail.fill(false);
            tail = 0;
        }
        let sparse: f64 = (0..n).filter(|&j| !in_tail[j]).map(|j| sparse_cost(counts[j] as f64)).sum();
        Plan { parent, counts, in_tail, tail, cost: sparse + dense_cost(tail) }
    }

    fn planned(mut self, plan: Plan) -> Symbolic {
        let n = self.g.nodes;
        let (tail, rest): (Vec<u32>, Vec<u32>) =
            postorder(&plan.parent).into_iter().partition(|&p| plan.in_tail[p as usize]);
        let place: Vec<u32> = rest.into_iter().chain(tail).collect();
        let mut new = vec![0u32; n];
        place.iter().enumerate().for_each(|(i, &p)| new[p as usize] = i as u32);
        let parent: Vec<u32> = place
            .iter()
            .map(|&p| match plan.parent[p as usize] {
                NONE => NONE,
                q => new[q as usize],
            })
            .collect();
        let counts: Vec<u32> = place.iter().map(|&p| plan.counts[p as usize]).collect();
        self.order = place.iter().map(|&p| self.order[p as usize]).collect();
        self.relabel();
        let ranges = supernodes(&parent, &counts, n - plan.tail);
        self.assemble(ranges)
    }

    fn assemble(self, ranges: Vec<(u32, u32)>) -> Symbolic {
        let n = self.g.nodes;
        let m = self.g.m;
        let widths: Vec<u32> = m.factors.iter().map(|f| f.cols as u32).collect();
        let mut factor_of = vec![0u16; n];
        for (f, factor) in m.factors.iter().enumerate() {
            let b = self.g.base[f] as usize;
            factor_of[b..b + factor.levels].fill(f as u16);
        }
        let factor_at: Vec<u16> = self.order.iter().map(|&v| factor_of[v as usize]).collect();
        let mut offset = Vec::with_capacity(n + 1);
        let mut size = 0u32;
        for &f in &factor_at {
            offset.push(size);
            size += widths[f as usize];
        }
        offset.push(size);
        let mut super_of = vec![0u32; n];
        for (s, &(a, b)) in ranges.iter().enumerate() {
            super_of[a as usize..b as usize].fill(s as u32);
        }
        let (supers, structure, panel_size) = self.structures(&ranges, &super_of, &offset);
        let (children_start, children) = children_of(&supers);
        let relative = relative_offsets(&supers, &structure, &children_start, &children, &offset);
        Symbolic {
            nodes: n,
            size: size as usize,
            order: self.order,
            position: self.position,
            base: self.g.base.clone(),
            widths,
            factor_at,
            offset,
            edge_start: self.edge_start,
            edges: self.edges,
            supers,
            structure,
            relative,
            children_start,
            children,
            panel_size,
        }
    }

    /// Union of the edges and of the children's structures, supernode by supernode.
    fn structures(&self, ranges: &[(u32, u32)], super_of: &[u32], offset: &[u32]) -> (Vec<Super>, Vec<u32>, usize) {
        let mut supers: Vec<Super> = Vec::with_capacity(ranges.len());
        let mut structure: Vec<u32> = vec![];
        let mut mark = vec![NONE; self.g.nodes];
        let mut kids: Vec<Vec<u32>> = vec![vec![]; ranges.len()];
        let mut panel = 0usize;
        for (s, &(first, last)) in ranges.iter().enumerate() {
            let begin = structure.len();
            let mut add = |q: u32, structure: &mut Vec<u32>| {
                if q >= last && mark[q as usize] != s as u32 {
                    mark[q as usize] = s as u32;
                    structure.push(q);
                }
            };
            if last as usize != self.g.nodes {
                for p in first..last {
                    self.adjacent(p as usize).iter().for_each(|e| add(e.row, &mut structure));
                }
                for &c in &kids[s] {
                    let (a, b) = supers[c as usize].rows;
                    for t in a..b {
                        let q = structure[t as usize];
                        add(q, &mut structure);
                    }
                }
            }
            let leaf = last - first == 1 && kids[s].is_empty();
            structure[begin..].sort_unstable();
            let parent = structure.get(begin).map_or(NONE, |&q| super_of[q as usize]);
            if parent != NONE {
                kids[parent as usize].push(s as u32);
            }
            let below: u32 = structure[begin..].iter().map(|&q| offset[q as usize + 1] - offset[q as usize]).sum();
            let width = offset[last as usize] - offset[first as usize];
            let rows = (begin as u32, structure.len() as u32);
            let packed = parent == NONE && by_rows_pays(width, kids[s].iter().map(|&c| &supers[c as usize]));
            supers.push(Super { first, last, parent, width, below, rows, leaf, packed, panel });
            panel += supers[s].panel_len();
        }
        (supers, structure, panel)
    }
}

/// Whether the diagonal blocks of the inverse of a root and its children are cheaper to find from the rows of L^-1 (half
/// the work in the root, and every entry of a child meets a column) than from the whole inverse.
fn by_rows_pays<'a>(width: u32, mut children: impl Iterator<Item = &'a Super>) -> bool {
    let w = width as f64;
    let entries: Option<f64> = children.try_fold(0.0, |sum, s| s.leaf.then_some(sum + s.width as f64 * s.below as f64));
    width as usize >= dense::TILED_INVERSE && entries.is_some_and(|e| COLUMN_WORK * e * w / 2.0 < w.powi(3) / 6.0)
}

fn children_of(supers: &[Super]) -> (Vec<u32>, Vec<u32>) {
    let mut start = vec![0u32; supers.len() + 1];
    for s in supers.iter().filter(|s| s.parent != NONE) {
        start[s.parent as usize + 1] += 1;
    }
    for j in 0..supers.len() {
        start[j + 1] += start[j];
    }
    let mut next = start.clone();
    let mut children = vec![0u32; start[supers.len()] as usize];
    for (c, s) in supers.iter().enumerate().filter(|(_, s)| s.parent != NONE) {
        let at = &mut next[s.parent as usize];
        children[*at as usize] = c as u32;
        *at += 1;
    }
    (start, children)
}

fn relative_offsets(supers: &[Super], structure: &[u32], start: &[u32], children: &[u32], offset: &[u32]) -> Vec<u32> {
    let mut relative = vec![0u32; structure.len()];
    let mut local = vec![0u32; offset.len()];
    for (s, sup) in supers.iter().enumerate() {
        let kids = &children[start[s] as usize..start[s + 1] as usize];
        if kids.is_empty() {
            continue;
        }
        for q in sup.first..sup.last {
            local[q as usize] = offset[q as usize] - offset[sup.first as usize];
        }
        let mut at = sup.width;
        for &q in &structure[sup.rows.0 as usize..sup.rows.1 as usize] {
            local[q as usize] = at;
            at += offset[q as usize + 1] - offset[q as usize];
        }
        for &c in kids {
            let (a, b) = supers[c as usize].rows;
            for t in a..b {
                relative[t as usize] = local[structure[t as usize] as usize];
            }
        }
    }
    relative
}

/// Positions in postorder of the tree, children in their present order.
fn postorder(parent: &[u32]) -> Vec<u32> {
    let n = parent.len();
    let (mut head, mut next) = (vec![NONE; n], vec![NONE; n]);
    let mut roots = vec![];
    for j in (0..n).rev() {
        match parent[j] {
            NONE => roots.push(j as u32),
            p => {
                next[j] = head[p as usize];
                head[p as usize] = j as u32;
            }
        }
    }
    let mut out = Vec::with_capacity(n);
    let mut stack = vec![];
    for &r in roots.iter().rev() {
        stack.push(r);
        while let Some(&top) = stack.last() {
            let child = head[top as usize];
            if child == NONE {
                out.push(top);
                stack.pop();
            } else {
                head[top as usize] = next[child as usize];
                stack.push(child);
            }
        }
    }
    out
}

/// (first, last) of every supernode: merged fundamental supernodes before the cut, one dense block after it.
fn supernodes(parent: &[u32], counts: &[u32], cut: usize) -> Vec<(u32, u32)> {
    let n = parent.len();
    let mut has_child = vec![false; n];
    for &p in parent.iter().filter(|&&p| p != NONE) {
        has_child[p as usize] = true;
    }
    let mut out: Vec<Merged> = vec![];
    for j in 0..cut {
        let chained = j > 0 && has_child[j - 1] && parent[j - 1] == j as u32 && counts[j - 1] == counts[j] + 1;
        match out.last_mut() {
            Some(last) if chained => last.last = j as u32 + 1,
            _ => {
                merge_back(&mut out, parent, counts);
                out.push(Merged { first: j as u32, last: j as u32 + 1, zeros: 0.0, leaf: !has_child[j] });
            }
        }
    }
    merge_back(&mut out, parent, counts);
    let mut ranges: Vec<(u32, u32)> = out.iter().map(|s| (s.first, s.last)).collect();
    if cut < n {
        ranges.push((cut as u32, n as u32));
    }
    ranges
}

struct Merged {
    first: u32,
    last: u32,
    zeros: f64,
    leaf: bool,
}

/// Merge the last supernode with those right before it that are its children, while few zeros are stored for it
/// (relaxed amalgamation, Ashcraft & Grimes 1989). Leaves stay: they are eliminated without a front of their own.
fn merge_back(out: &mut Vec<Merged>, parent: &[u32], counts: &[u32]) {
    while let [.., child, top] = &mut out[..] {
        let up = parent[child.last as usize - 1];
        if child.leaf || top.leaf || up == NONE || up < top.first || up >= top.last {
            return;
        }
        let (wc, wt) = ((child.last - child.first) as f64, (top.last - top.first) as f64);
        let (rc, rt) = (counts[child.last as usize - 1] as f64, counts[top.last as usize - 1] as f64);
        let zeros = child.zeros + top.zeros + wc * (wt + rt - rc);
        let width = wc + wt;
        let share = zeros / (width * (0.5 * width + rt));
        if share > MERGE && (width > MERGE_NARROW.0 as f64 || share > MERGE_NARROW.1) {
            return;
        }
        (top.first, top.zeros) = (child.first, zeros);
        let kept = out.len() - 2;
        out.remove(kept);
    }
}
