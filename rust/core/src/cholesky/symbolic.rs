//! What is known of the factor before its numbers: found once a model, shared by every factorisation.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::graph::Graph;
use super::whole::Forest;
use crate::dense;
use crate::design::Moments;
use crate::CoreError;

pub const NONE: u32 = u32::MAX;

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
    /// First scalar row of every node.
    pub row: Vec<u32>,
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
    /// Found when it is asked for (see `Symbolic::forest`).
    pub(super) trees: OnceLock<Forest>,
}

impl Symbolic {
    pub fn new(m: &Moments) -> Result<Self, CoreError> {
        Graph::new(m).symbolic()
    }

    pub fn level(&self, position: usize) -> usize {
        let node = self.order[position];
        (node - self.base[self.factor_at[position] as usize]) as usize
    }

    /// First scalar row of a level.
    #[inline]
    pub fn at(&self, factor: usize, level: usize) -> usize {
        self.row[self.base[factor] as usize + level] as usize
    }

    /// First scalar rows of the first `levels` levels of a factor.
    pub fn first_rows(&self, factor: usize, levels: usize) -> &[u32] {
        &self.row[self.base[factor] as usize..][..levels]
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

    /// Children that are leaves.
    pub fn leaves(&self, s: usize) -> Cow<'_, [u32]> {
        let (children, leaf) = (self.children(s), |c: &&u32| self.supers[**c as usize].leaf);
        match children.iter().all(|c| leaf(&c)) {
            true => Cow::Borrowed(children),
            false => Cow::Owned(children.iter().filter(leaf).copied().collect()),
        }
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
