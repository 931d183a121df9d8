//! Rows that agree in all their fixed columns. A factorial design has few kinds of rows: what these say of the fixed
//! effects is summed by kind (a cell) before it meets the columns.

use super::plan::{sort_by, XPlan};
use super::GlmmRows;
use crate::design::{alike, Block};

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
}
