//! Rows that agree in all their fixed columns. A factorial design has few kinds of rows: what these say of the fixed
//! effects is summed by kind (a cell) before it meets the columns.

use super::plan::{sort_by, XPlan};
use super::GlmmRows;
use crate::design::Block;

/// Rows for every cell from which on cells pay.
const ROWS: usize = 4;
/// The same for the cells of the levels of a factor, whose sums are cheaper.
const PAIRED: usize = 2;

pub(super) struct Cells {
    /// Cell of every row.
    pub(super) of: Vec<u32>,
    pub(super) count: usize,
    /// Dense fixed columns of the cells by component, row-major.
    pub(super) x: Vec<Vec<f64>>,
    /// By factor, unless most rows are alone.
    pub(super) pairs: Vec<Option<Pairs>>,
}

/// The cells of every level of a factor.
pub(super) struct Pairs {
    /// Pair of every row.
    pub(super) of: Vec<u32>,
    /// Level of every pair, ascending.
    pub(super) level: Vec<i32>,
    /// Dense fixed columns of the pairs by component, row-major.
    pub(super) x: Vec<Vec<f64>>,
}

impl Cells {
    /// The cells of rows with the fixed columns `x` by component, made of some blocks, and the levels `codes` by factor;
    /// none where rows differ, or have columns that are not among these.
    pub(super) fn of(rows: &GlmmRows<'_>, plan: &[XPlan], x: &[Vec<f64>], codes: &[Vec<i32>]) -> Option<Self> {
        if plan.iter().any(|x| !x.sparse.is_empty()) {
            return None;
        }
        let (of, first) = alike(rows.n, rows.n / ROWS, &sources(rows))?;
        let at = |rows: &[usize]| -> Vec<Vec<f64>> {
            let wide = plan.iter().map(|x| x.dense.len());
            let row = |x: &Vec<f64>, d: usize| rows.iter().flat_map(|&i| &x[i * d..(i + 1) * d]).copied().collect();
            x.iter().zip(wide).map(|(x, d)| row(x, d)).collect()
        };
        let pairs = codes.iter().map(|codes| {
            let (of, first) = paired(codes, &of, first.len())?;
            Some(Pairs { of, level: first.iter().map(|&i| codes[i]).collect(), x: at(&first) })
        });
        let pairs = pairs.collect();
        Some(Cells { count: first.len(), x: at(&first), pairs, of })
    }
}

/// Codes and numbers that the fixed columns are made of, each once.
fn sources<'a>(rows: &'a GlmmRows<'_>) -> Vec<Block<'a>> {
    let mut out: Vec<Block<'_>> = vec![];
    for f in rows.components.iter().flat_map(|c| &c.fixed) {
        if out.iter().all(|b| !b.same(&f.block)) {
            out.push(f.block);
        }
    }
    out
}

/// The kind of every row, and the first row of each: rows with the same codes and numbers. None if there are more than
/// `most`.
fn alike(n: usize, most: usize, of: &[Block<'_>]) -> Option<(Vec<u32>, Vec<usize>)> {
    let code = |b: &Block<'_>, i: usize| b.codes.as_ref().map_or(0, |c| c.get(i) as u64);
    let key = |i: usize| of.iter().flat_map(move |b| [code(b, i), b.x.map_or(0, |x| x.get(i).to_bits())]);
    let size = (2 * most).next_power_of_two();
    // Open addressing: the place of a row is that of the first one like it, plus one.
    let (mut table, mut kind, mut first) = (vec![0u32; size], Vec::with_capacity(n), vec![]);
    for i in 0..n {
        let mut at = key(i).fold(0, mix) as usize & (size - 1);
        while table[at] > 0 && !key(first[table[at] as usize - 1]).eq(key(i)) {
            at = (at + 1) & (size - 1);
        }
        if table[at] == 0 {
            if first.len() == most {
                return None;
            }
            first.push(i);
            table[at] = first.len() as u32;
        }
        kind.push(table[at] - 1);
    }
    Some((kind, first))
}

fn mix(hash: u64, bits: u64) -> u64 {
    let mixed = (hash.rotate_left(5) ^ bits).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// The pairs (level, cell), ordered by level: that of every row, and the first row of each. None where there are too many.
fn paired(codes: &[i32], cell: &[u32], cells: usize) -> Option<(Vec<u32>, Vec<usize>)> {
    let n = codes.len();
    let levels = codes.iter().max().map_or(0, |&l| l as usize + 1);
    let (_, order) = sort_by(n, levels, |i| codes[i] as usize);
    let (mut of, mut first) = (vec![0; n], vec![]);
    // The last pair of every cell: of this level, or of one before.
    let mut last = vec![u32::MAX; cells];
    for i in order.into_iter().map(|i| i as usize) {
        let last = &mut last[cell[i] as usize];
        if first.get(*last as usize).is_none_or(|&before: &usize| codes[before] != codes[i]) {
            if first.len() == n / PAIRED {
                return None;
            }
            *last = first.len() as u32;
            first.push(i);
        }
        of[i] = *last;
    }
    Some((of, first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::design::Numeric;

    fn number(x: &[f64]) -> Block<'_> {
        Block { codes: None, contrast: &[], levels: 0, cols: 1, x: Some(Numeric::F64(x)) }
    }

    #[test]
    fn rows_of_a_kind_have_the_same_numbers() {
        let n = 240;
        let (x, z): (Vec<f64>, Vec<f64>) = (0..n).map(|i| ((i % 3) as f64, (i % 5) as f64)).unzip();
        let (kind, first) = alike(n, n / ROWS, &[number(&x), number(&z)]).unwrap();
        assert_eq!(first.len(), 15);
        assert!((0..n).all(|i| (x[i], z[i]) == (x[first[kind[i] as usize]], z[first[kind[i] as usize]])));
        let codes: Vec<i32> = (0..n as i32).map(|i| 7 - i / 30).collect();
        let (pair, ones) = paired(&codes, &kind, first.len()).unwrap();
        assert_eq!(ones.len(), 8 * 15);
        assert!(ones.windows(2).all(|w| codes[w[0]] <= codes[w[1]]));
        assert!((0..n).all(|i| (codes[i], kind[i]) == (codes[ones[pair[i] as usize]], kind[ones[pair[i] as usize]])));
        assert!(paired(&(0..n as i32).collect::<Vec<_>>(), &kind, first.len()).is_none());
    }

    #[test]
    fn rows_that_differ_are_of_no_kind() {
        let x: Vec<f64> = (0..100).map(f64::from).collect();
        assert!(alike(100, 25, &[number(&x)]).is_none());
    }
}
