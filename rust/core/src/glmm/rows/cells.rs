//! Rows that agree in all their fixed columns. A factorial design has few kinds of rows: what these say of the fixed
//! effects is summed by kind (a cell) before it meets the columns.

use super::plan::{sort_by, XPlan};

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
    /// The cells of rows with the columns `x` by component and the levels `codes` by factor; none where rows differ, or
    /// have columns that are not among these.
    pub(super) fn of(n: usize, plan: &[XPlan], x: &[Vec<f64>], codes: &[Vec<i32>]) -> Option<Self> {
        if plan.iter().any(|x| !x.sparse.is_empty()) {
            return None;
        }
        let wide: Vec<usize> = plan.iter().map(|x| x.dense.len()).collect();
        let row = |i: usize| x.iter().zip(&wide).map(move |(x, d)| &x[i * d..(i + 1) * d]);
        let most = n / ROWS;
        let size = (2 * most).next_power_of_two();
        // Open addressing: the place of a row is that of the first one like it, plus one.
        let (mut table, mut of, mut first) = (vec![0u32; size], Vec::with_capacity(n), vec![]);
        for i in 0..n {
            let mut at = row(i).flatten().fold(0, |h, v| mix(h, v.to_bits())) as usize & (size - 1);
            while table[at] > 0 && !row(first[table[at] as usize - 1]).eq(row(i)) {
                at = (at + 1) & (size - 1);
            }
            if table[at] == 0 {
                if first.len() == most {
                    return None;
                }
                first.push(i);
                table[at] = first.len() as u32;
            }
            of.push(table[at] - 1);
        }
        let at = |rows: &[usize]| -> Vec<Vec<f64>> {
            let of =
                |(x, &d): (&Vec<f64>, &usize)| rows.iter().flat_map(|&i| &x[i * d..(i + 1) * d]).copied().collect();
            x.iter().zip(&wide).map(of).collect()
        };
        let pairs = codes.iter().map(|codes| {
            let (of, first) = paired(codes, &of, first.len())?;
            Some(Pairs { of, level: first.iter().map(|&i| codes[i]).collect(), x: at(&first) })
        });
        let pairs = pairs.collect();
        Some(Cells { count: first.len(), x: at(&first), pairs, of })
    }
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
    use super::super::plan::XColumn;
    use super::*;

    fn columns(d: usize) -> XPlan {
        let column = |c: usize| XColumn { block: 0, col: c, coef: c, shift: 0.0, scale: 1.0 };
        XPlan::new((0..d).map(column).collect(), vec![])
    }

    #[test]
    fn rows_come_back_from_their_cells() {
        let n = 240;
        let x = vec![
            (0..n).flat_map(|i| [1.0, (i % 3) as f64]).collect::<Vec<_>>(),
            (0..n).map(|i| (i % 5) as f64).collect(),
        ];
        let codes = vec![(0..n as i32).map(|i| 7 - i / 30).collect::<Vec<_>>(), (0..n as i32).collect()];
        let plan = [columns(2), columns(1)];
        let cells = Cells::of(n, &plan, &x, &codes).unwrap();
        assert_eq!(cells.count, 15);
        assert!(cells.pairs[1].is_none());
        let pairs = cells.pairs[0].as_ref().unwrap();
        assert_eq!(pairs.level.len(), 8 * 15);
        assert!(pairs.level.windows(2).all(|l| l[0] <= l[1]));
        for i in 0..n {
            for (c, d) in [(0, 2), (1, 1)] {
                let row = &x[c][i * d..(i + 1) * d];
                assert_eq!(row, &cells.x[c][cells.of[i] as usize * d..][..d]);
                assert_eq!(row, &pairs.x[c][pairs.of[i] as usize * d..][..d]);
            }
            assert_eq!(codes[0][i], pairs.level[pairs.of[i] as usize]);
        }
    }

    #[test]
    fn rows_that_differ_have_none() {
        let x = vec![(0..100).map(f64::from).collect::<Vec<_>>()];
        assert!(Cells::of(100, &[columns(1)], &x, &[]).is_none());
    }
}
