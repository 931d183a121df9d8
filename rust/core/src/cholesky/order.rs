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
    position: Vec<u32>,
    edge_start: Vec<u32>,
    edges: Vec<Edge>,
}

impl<'a> Builder<'a> {
    pub fn new(g: &'a Graph<'a>, order: Vec<u32>) -> Self {
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
        let row = self.position.iter().map(|&q| offset[q as usize]).collect();
        Symbolic {
            nodes: n,
            size: size as usize,
            order: self.order,
            position: self.position,
            base: self.g.base.clone(),
            widths,
            factor_at,
            offset,
            row,
            edge_start: self.edge_start,
            edges: self.edges,
            supers,
            structure,
            relative,
            children_start,
            children,
            panel_size,
            trees: Default::default(),
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
