//! From an elimination order to the symbolic factorisation: the tree, what is left dense, and the structures.

use super::graph::{dense_cost, sparse_cost, Graph, SPARSE_PENALTY};
use super::supernodes::{by_rows_pays, children_of, postorder, relative_offsets, supernodes};
use super::symbolic::{Edge, Super, Symbolic, NONE};

/// A dense block at the end of an order, and what a factorisation with it costs.
pub(super) struct Plan {
    parent: Vec<u32>,
    counts: Vec<u32>,
    in_tail: Vec<bool>,
    tail: usize,
    pub cost: f64,
}

pub(super) struct Builder<'a> {
    g: &'a Graph<'a>,
    order: Vec<u32>,
}

/// Lists of what belongs to every position, one after the other: those of `p` are `item[start[p]..start[p + 1]]`.
struct Lists<T> {
    start: Vec<u32>,
    item: Vec<T>,
}

impl<T> Lists<T> {
    fn of(&self, p: usize) -> &[T] {
        &self.item[self.start[p] as usize..self.start[p + 1] as usize]
    }
}

impl<'a> Builder<'a> {
    pub fn new(g: &'a Graph<'a>, order: Vec<u32>) -> Self {
        Builder { g, order }
    }

    fn position(&self) -> Vec<u32> {
        let mut position = vec![0; self.g.nodes];
        self.order.iter().enumerate().for_each(|(p, &v)| position[v as usize] = p as u32);
        position
    }

    /// Visit every edge as (earlier position, later position, pair, entry).
    fn for_edges(&self, position: &[u32], mut visit: impl FnMut(u32, u32, usize, usize)) {
        for (k, p) in self.g.m.links().enumerate() {
            let (lead, other) = (&position[self.g.base[p.lead] as usize..], &position[self.g.base[p.other] as usize..]);
            for (&a, w) in lead.iter().zip(p.start.windows(2)) {
                for e in w[0] as usize..w[1] as usize {
                    let b = other[p.level[e] as usize];
                    visit(a.min(b), a.max(b), k, e);
                }
            }
        }
    }

    fn edge_count(&self) -> usize {
        self.g.m.links().map(|p| p.level.len()).sum()
    }

    /// Edges by earlier position, sorted by later position (two stable counting sorts).
    fn edges(&self, position: &[u32]) -> Lists<Edge> {
        let n = self.g.nodes;
        let (mut by_later, mut by_earlier) = (vec![0u32; n + 1], vec![0u32; n + 1]);
        self.for_edges(position, |a, b, _, _| {
            by_later[b as usize + 1] += 1;
            by_earlier[a as usize + 1] += 1;
        });
        cumulate(&mut by_later);
        cumulate(&mut by_earlier);
        let blank = Edge { row: 0, pair: 0, entry: 0 };
        let mut first = vec![(0u32, blank); self.edge_count()];
        self.for_edges(position, |a, b, k, e| {
            put(&mut by_later, &mut first, b, (a, Edge { row: b, pair: k as u32, entry: e as u32 }));
        });
        let mut item = vec![blank; first.len()];
        let mut next = by_earlier.clone();
        first.into_iter().for_each(|(a, e)| put(&mut next, &mut item, a, e));
        Lists { start: by_earlier, item }
    }

    /// The earlier ends of the edges of every position, in no order.
    fn earlier(&self) -> Lists<u32> {
        let position = self.position();
        let mut start = vec![0u32; self.g.nodes + 1];
        self.for_edges(&position, |_, b, _, _| start[b as usize + 1] += 1);
        cumulate(&mut start);
        let (mut next, mut item) = (start.clone(), vec![0u32; self.edge_count()]);
        self.for_edges(&position, |a, b, _, _| put(&mut next, &mut item, b, a));
        Lists { start, item }
    }

    /// Parents in the elimination tree (Liu 1990).
    fn tree(earlier: &Lists<u32>, n: usize) -> Vec<u32> {
        let (mut parent, mut ancestor) = (vec![NONE; n], vec![NONE; n]);
        for k in 0..n {
            for &i in earlier.of(k) {
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

    /// Nodes below the diagonal in every column of the factor (row-subtree traversal).
    fn column_counts(earlier: &Lists<u32>, parent: &[u32]) -> Vec<u32> {
        let n = parent.len();
        let (mut count, mut mark) = (vec![0u32; n], vec![NONE; n]);
        for k in 0..n {
            mark[k] = k as u32;
            for &i in earlier.of(k) {
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
    pub fn leading(self, tail: usize) -> Symbolic {
        let n = self.g.nodes;
        let mut ranges: Vec<(u32, u32)> = (0..(n - tail) as u32).map(|j| (j, j + 1)).collect();
        if tail > 0 {
            ranges.push(((n - tail) as u32, n as u32));
        }
        self.assemble(ranges)
    }

    /// Choose what becomes the dense block: from the root down, while a node is so full that it pays.
    pub fn plan(&self) -> Plan {
        let n = self.g.nodes;
        let earlier = self.earlier();
        let parent = Self::tree(&earlier, n);
        let counts = Self::column_counts(&earlier, &parent);
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

    pub fn planned(mut self, plan: Plan) -> Symbolic {
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
        let position = self.position();
        let edges = self.edges(&position);
        let (supers, structure, panel_size) = structures(&edges, &ranges, &super_of, &offset);
        let (children_start, children) = children_of(&supers);
        let relative = relative_offsets(&supers, &structure, &children_start, &children, &offset);
        let row = position.iter().map(|&q| offset[q as usize]).collect();
        Symbolic {
            nodes: n,
            size: size as usize,
            order: self.order,
            position,
            base: self.g.base.clone(),
            widths,
            factor_at,
            offset,
            row,
            edge_start: edges.start,
            edges: edges.item,
            supers,
            structure,
            relative,
            children_start,
            children,
            panel_size,
            trees: Default::default(),
        }
    }
}

/// Sums from the left.
fn cumulate(start: &mut [u32]) {
    (1..start.len()).for_each(|j| start[j] += start[j - 1]);
}

/// Put an item at the next place of its list.
fn put<T>(next: &mut [u32], items: &mut [T], list: u32, item: T) {
    let at = &mut next[list as usize];
    items[*at as usize] = item;
    *at += 1;
}

/// Supernodes, with the positions below each (union of its edges and of its children's structures), and the size of all
/// panels.
fn structures(
    edges: &Lists<Edge>,
    ranges: &[(u32, u32)],
    super_of: &[u32],
    offset: &[u32],
) -> (Vec<Super>, Vec<u32>, usize) {
    let nodes = super_of.len();
    let mut supers: Vec<Super> = Vec::with_capacity(ranges.len());
    let mut structure: Vec<u32> = Vec::with_capacity(edges.item.len());
    let mut mark = vec![NONE; nodes];
    // Children in the order in which they came: the first and the last of each, and who follows.
    let (mut ends, mut next) = (vec![(NONE, NONE); ranges.len()], vec![NONE; ranges.len()]);
    let mut panel = 0usize;
    for (s, &(first, last)) in ranges.iter().enumerate() {
        let kids = || {
            std::iter::successors(Some(ends[s].0).filter(|&c| c != NONE), |&c| {
                Some(next[c as usize]).filter(|&c| c != NONE)
            })
        };
        let begin = structure.len();
        let mut add = |q: u32, structure: &mut Vec<u32>| {
            if q >= last && mark[q as usize] != s as u32 {
                mark[q as usize] = s as u32;
                structure.push(q);
            }
        };
        if last as usize != nodes {
            for p in first..last {
                edges.of(p as usize).iter().for_each(|e| add(e.row, &mut structure));
            }
            for c in kids() {
                let (a, b) = supers[c as usize].rows;
                for t in a..b {
                    let q = structure[t as usize];
                    add(q, &mut structure);
                }
            }
        }
        let leaf = last - first == 1 && ends[s].0 == NONE;
        structure[begin..].sort_unstable();
        let parent = structure.get(begin).map_or(NONE, |&q| super_of[q as usize]);
        let below: u32 = structure[begin..].iter().map(|&q| offset[q as usize + 1] - offset[q as usize]).sum();
        let width = offset[last as usize] - offset[first as usize];
        let rows = (begin as u32, structure.len() as u32);
        let packed = parent == NONE && by_rows_pays(width, kids().map(|c| &supers[c as usize]));
        supers.push(Super { first, last, parent, width, below, rows, leaf, packed, panel });
        panel += supers[s].panel_len();
        if parent != NONE {
            let of = &mut ends[parent as usize];
            match of.1 {
                NONE => *of = (s as u32, s as u32),
                before => (next[before as usize], of.1) = (s as u32, s as u32),
            }
        }
    }
    (supers, structure, panel)
}
