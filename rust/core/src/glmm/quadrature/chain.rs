//! A chain of grouping factors, each nested in the next: the shape of a model whose likelihood is a product of nested
//! integrals.

use crate::design::Moments;

/// Where a pair of factors keeps the block of an inner level and its ancestor.
#[derive(Clone, Debug)]
pub struct Link {
    pub pair: usize,
    /// Whether the inner factor leads the pair.
    pub inner_leads: bool,
    /// Entry of every inner level; `NONE` for a level without rows.
    pub entry: Vec<u32>,
    /// Level of the outer factor that every inner level belongs to.
    pub parent: Vec<u32>,
}

pub const NONE: u32 = u32::MAX;

/// Factors from the innermost (depth 0) outwards.
#[derive(Clone, Debug)]
pub struct Chain {
    pub factor: Vec<usize>,
    pub levels: Vec<usize>,
    pub cols: Vec<usize>,
    /// above[d][e - d - 1]: from depth d to depth e > d.
    pub above: Vec<Vec<Link>>,
}

impl Chain {
    /// The chain of all factors; `Err` has two that are crossed.
    pub fn new(m: &Moments) -> Result<Self, (usize, usize)> {
        let mut factor: Vec<usize> = (0..m.factors.len()).collect();
        factor.sort_by_key(|&f| (std::cmp::Reverse(m.factors[f].levels), f));
        let mut above = vec![];
        for (d, &inner) in factor.iter().enumerate() {
            let mut links = vec![];
            for &outer in &factor[d + 1..] {
                links.push(link(m, inner, outer).ok_or((inner, outer))?);
            }
            above.push(links);
        }
        let levels = factor.iter().map(|&f| m.factors[f].levels).collect();
        let cols = factor.iter().map(|&f| m.factors[f].cols).collect();
        Ok(Chain { factor, levels, cols, above })
    }

    pub fn depth(&self) -> usize {
        self.factor.len()
    }

    /// Ancestor at depth e >= d of level l at depth d.
    #[inline]
    pub fn ancestor(&self, d: usize, e: usize, l: usize) -> usize {
        if e == d {
            l
        } else {
            self.above[d][e - d - 1].parent[l] as usize
        }
    }
}

fn link(m: &Moments, inner: usize, outer: usize) -> Option<Link> {
    let at = m.pairs.iter().position(|p| (p.lead, p.other) == (inner, outer) || (p.lead, p.other) == (outer, inner))?;
    let pair = &m.pairs[at];
    let inner_leads = pair.lead == inner;
    let mut entry = vec![NONE; m.factors[inner].levels];
    let mut parent = vec![0; entry.len()];
    for lead in 0..pair.start.len() - 1 {
        for e in pair.start[lead]..pair.start[lead + 1] {
            let other = pair.level[e as usize] as usize;
            let (l, up) = if inner_leads { (lead, other) } else { (other, lead) };
            if entry[l] != NONE {
                return None;
            }
            (entry[l], parent[l]) = (e, up as u32);
        }
    }
    Some(Link { pair: at, inner_leads, entry, parent })
}
