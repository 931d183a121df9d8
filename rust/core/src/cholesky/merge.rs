//! What supernodes add to those above them, and how it waits for its turn.

use std::collections::BTreeMap;

use super::leaves::relative;
use super::symbolic::Symbolic;

/// Numbers of an update that needs no memory of its own.
const FEW: usize = 3;

/// What a supernode adds to its parent: the lower triangle, column by column, as many may wait for their parent.
pub(super) struct Update {
    few: [f64; FEW],
    many: Vec<f64>,
}

impl Update {
    /// Of a square matrix.
    pub(super) fn new(a: &[f64], rows: usize) -> Self {
        let triangle = || (0..rows).flat_map(|j| &a[j * rows + j..(j + 1) * rows]).copied();
        let size = rows * (rows + 1) / 2;
        let (mut few, mut many) = ([0.0; FEW], vec![]);
        if size <= FEW {
            few.iter_mut().zip(triangle()).for_each(|(to, v)| *to = v);
        } else {
            many.reserve_exact(size);
            many.extend(triangle());
        }
        Update { few, many }
    }

    /// Add what the supernode `child` has for its parent to the lower triangles of the parent's own `w` columns and of
    /// the rows below them.
    pub(super) fn add_to(&self, sym: &Symbolic, child: usize, panel: &mut [f64], update: &mut [f64], w: usize) {
        let ld = panel.len() / w;
        let r = ld - w;
        let mut buffer = vec![];
        let idx = relative(sym, &sym.supers[child], &mut buffer);
        let mut rest = if self.many.is_empty() { &self.few[..] } else { &self.many };
        for (j, &cj) in idx.iter().enumerate() {
            let (from, more) = rest.split_at(idx.len() - j);
            rest = more;
            let (to, shift) = match (cj as usize).checked_sub(w) {
                None => (&mut panel[cj as usize * ld..(cj as usize + 1) * ld], 0),
                Some(c) => (&mut update[c * r..(c + 1) * r], w as u32),
            };
            for (&ri, v) in idx[j..].iter().zip(from) {
                to[(ri - shift) as usize] += v;
            }
        }
    }
}

/// What groups of subtrees add to the supernodes above them, in the order of the groups whoever is ready first. Roots
/// take it up at once: all of it together would need more memory than anything else.
pub(super) struct Merge<'a, U, T> {
    sym: &'a Symbolic,
    /// Roots of the top, which have begun, and how one of them takes up what its child (the second) has for it.
    pub(super) roots: Vec<usize>,
    take: T,
    /// The group whose turn it is, and those that came before their turn.
    next: usize,
    early: BTreeMap<usize, Vec<(usize, U)>>,
    /// What waits for a supernode that is not a root.
    pub(super) updates: Vec<(usize, U)>,
}

impl<'a, U, T: Fn(usize, usize, U)> Merge<'a, U, T> {
    pub(super) fn new(sym: &'a Symbolic, top: &[usize], take: T) -> Self {
        let roots: Vec<usize> = top.iter().copied().filter(|&s| sym.supers[s].below == 0).collect();
        Merge { sym, roots, take, next: 0, early: BTreeMap::new(), updates: vec![] }
    }

    pub(super) fn add(&mut self, group: usize, updates: Vec<(usize, U)>) {
        self.early.insert(group, updates);
        while let Some(updates) = self.early.remove(&self.next) {
            self.next += 1;
            for (child, update) in updates {
                let parent = self.sym.supers[child].parent as usize;
                if self.roots.contains(&parent) {
                    (self.take)(parent, child, update);
                } else {
                    self.updates.push((child, update));
                }
            }
        }
    }
}
