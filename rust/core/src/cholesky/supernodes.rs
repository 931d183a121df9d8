//! Supernodes: which columns are treated as one, and how their rows lie in their parents' fronts.

use super::symbolic::{Super, NONE};
use crate::dense;

/// A multiplication with a column of L^-1 costs about this many in a product of blocks.
const COLUMN_WORK: f64 = 4.0;
/// Supernodes are merged while the zeros stored for it stay below these shares (narrow result, any result).
const MERGE_NARROW: (u32, f64) = (8, 0.4);
const MERGE: f64 = 0.15;

/// Whether the diagonal blocks of the inverse of a root and its children are cheaper to find from the rows of L^-1 (half
/// the work in the root, and every entry of a child meets a column) than from the whole inverse.
pub(super) fn by_rows_pays<'a>(width: u32, mut children: impl Iterator<Item = &'a Super>) -> bool {
    let w = width as f64;
    let entries: Option<f64> = children.try_fold(0.0, |sum, s| s.leaf.then_some(sum + s.width as f64 * s.below as f64));
    width as usize >= dense::TILED_INVERSE && entries.is_some_and(|e| COLUMN_WORK * e * w / 2.0 < w.powi(3) / 6.0)
}

pub(super) fn children_of(supers: &[Super]) -> (Vec<u32>, Vec<u32>) {
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

pub(super) fn relative_offsets(
    supers: &[Super],
    structure: &[u32],
    start: &[u32],
    children: &[u32],
    offset: &[u32],
) -> Vec<u32> {
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
pub(super) fn postorder(parent: &[u32]) -> Vec<u32> {
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
pub(super) fn supernodes(parent: &[u32], counts: &[u32], cut: usize) -> Vec<(u32, u32)> {
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
