//! Passes over single columns that a data frame needs before a model exists: missing values, level use, factorising.

use crate::design::Codes;

/// Whether any value is NaN or infinite, by one branch-free sum per cache line.
pub fn any_not_finite(x: &[f64]) -> bool {
    // x * 0 is 0 for every finite x and NaN otherwise, and a sum of zeros is zero.
    x.chunks(4096).any(|c| {
        let mut acc = [0.0f64; 8];
        let it = c.chunks_exact(8);
        let tail: f64 = it.remainder().iter().map(|v| v * 0.0).sum();
        for v in it {
            for (a, v) in acc.iter_mut().zip(v) {
                *a += v * 0.0;
            }
        }
        (acc.iter().sum::<f64>() + tail) != 0.0
    })
}

/// Whether all values are whole numbers of at least 0.
pub fn is_count(x: &[f64]) -> bool {
    x.iter().all(|&v| v >= 0.0 && v == v.floor())
}

/// Whether the column takes a single value.
pub fn is_constant(x: &[f64]) -> bool {
    x.iter().all(|&v| v == x[0])
}

/// Whether a code is negative (a missing value), and whether every level 0..levels-1 occurs.
pub fn code_use(codes: &Codes<'_>, levels: usize) -> (bool, bool) {
    // Levels are ticked off only until all have been seen.
    let mut left = if levels <= codes.len() { levels } else { 0 };
    let mut seen = vec![false; left];
    let mut negative = false;
    macro_rules! go {
        ($c:expr) => {{
            let mut rest = $c.iter();
            while left > 0 {
                let Some(&v) = rest.next() else { break };
                negative |= v < 0;
                if let Some(s) = seen.get_mut(v as usize) {
                    left -= usize::from(!*s);
                    *s = true;
                }
            }
            negative |= rest.as_slice().iter().fold(0, |low, &v| low.min(v)) < 0;
        }};
    }
    match codes {
        Codes::I8(c) => go!(c),
        Codes::I16(c) => go!(c),
        Codes::I32(c) => go!(c),
    }
    (negative, left == 0 && seen.len() == levels)
}

/// Rows of every level.
pub fn level_counts(codes: &Codes<'_>, levels: usize) -> Vec<i64> {
    let mut counts = vec![0i64; levels];
    macro_rules! go {
        ($c:expr) => {
            for &v in $c.iter() {
                if v >= 0 && (v as usize) < levels {
                    counts[v as usize] += 1;
                }
            }
        };
    }
    match codes {
        Codes::I8(c) => go!(c),
        Codes::I16(c) => go!(c),
        Codes::I32(c) => go!(c),
    }
    counts
}

/// Codes in sorted order of the values, and the sorted distinct values.
pub fn factorize_int(x: &[i64]) -> (Vec<i32>, Vec<i64>) {
    let Some((&lo, &hi)) = x.iter().min().zip(x.iter().max()) else {
        return (vec![], vec![]);
    };
    let span = (hi as i128 - lo as i128 + 1) as u128;
    if span <= 4 * x.len() as u128 + 1024 {
        let mut table = vec![-1i32; span as usize];
        for &v in x {
            table[(v - lo) as usize] = 0;
        }
        let mut uniques = Vec::new();
        for (k, t) in table.iter_mut().enumerate() {
            if *t == 0 {
                *t = uniques.len() as i32;
                uniques.push(lo + k as i64);
            }
        }
        return (x.iter().map(|&v| table[(v - lo) as usize]).collect(), uniques);
    }
    let mut uniques = x.to_vec();
    uniques.sort_unstable();
    uniques.dedup();
    let codes = x.iter().map(|v| uniques.binary_search(v).unwrap_or(0) as i32).collect();
    (codes, uniques)
}

/// Codes of the observed pairs (a, b) in lexicographic order, and the pairs themselves.
pub fn combine_codes(a: &Codes<'_>, la: usize, b: &Codes<'_>, lb: usize) -> (Vec<i32>, Vec<(i64, i64)>) {
    let n = a.len();
    let key = |i: usize| a.get(i) as i64 * lb as i64 + b.get(i) as i64;
    let cells = la as u128 * lb as u128;
    if cells <= 4 * n as u128 + 1024 {
        let mut table = vec![-1i32; cells as usize];
        for i in 0..n {
            table[key(i) as usize] = 0;
        }
        let mut pairs = Vec::new();
        for (k, t) in table.iter_mut().enumerate() {
            if *t == 0 {
                *t = pairs.len() as i32;
                pairs.push(((k / lb) as i64, (k % lb) as i64));
            }
        }
        return ((0..n).map(|i| table[key(i) as usize]).collect(), pairs);
    }
    let keys: Vec<i64> = (0..n).map(key).collect();
    let (codes, uniques) = factorize_int(&keys);
    (codes, uniques.iter().map(|k| (k / lb as i64, k % lb as i64)).collect())
}

/// The first of every different row of a row-major matrix, in order, and which of them each row is.
pub fn distinct_rows(x: &[f64], rows: usize, cols: usize) -> (Vec<i64>, Vec<i64>) {
    const NONE: u32 = u32::MAX;
    let row = |i: usize| &x[i * cols..(i + 1) * cols];
    // 0 and -0 are equal numbers of different bits, which adding 0 makes the same.
    let mix = |h: u64, v: &f64| (h.rotate_left(5) ^ (v + 0.0).to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (2 * rows).max(2).next_power_of_two().trailing_zeros();
    let (mut table, mut first, mut which) = (vec![NONE; 1 << bits], vec![], Vec::with_capacity(rows));
    for i in 0..rows {
        let mut at = (row(i).iter().fold(0, mix) >> (64 - bits)) as usize;
        while table[at] != NONE && row(first[table[at] as usize] as usize) != row(i) {
            at = (at + 1) & ((1 << bits) - 1);
        }
        if table[at] == NONE {
            table[at] = first.len() as u32;
            first.push(i as i64);
        }
        which.push(table[at] as i64);
    }
    (first, which)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factorising_sorts_and_keeps_identity() {
        let (codes, uniques) = factorize_int(&[5, -3, 5, 1 << 60, 0]);
        assert_eq!(uniques, vec![-3, 0, 5, 1 << 60]);
        assert_eq!(codes, vec![2, 0, 2, 3, 1]);
        assert_eq!(factorize_int(&[i64::MIN, i64::MAX]).0, vec![0, 1]);
    }

    #[test]
    fn use_of_levels_is_told_whatever_the_order() {
        assert_eq!(code_use(&Codes::I8(&[0, 1, 2, 0]), 3), (false, true));
        assert_eq!(code_use(&Codes::I8(&[0, 1, 2, -1]), 3), (true, true));
        assert_eq!(code_use(&Codes::I16(&[-1, 0, 0, 2]), 3), (true, false));
        assert_eq!(code_use(&Codes::I32(&[0, 5]), 3), (false, false));
        assert_eq!(code_use(&Codes::I32(&[0, 5, 1, 2]), 3), (false, true));
        assert_eq!(code_use(&Codes::I8(&[]), 0), (false, true));
        assert_eq!(code_use(&Codes::I8(&[]), 2), (false, false));
    }

    #[test]
    fn pairs_come_in_lexicographic_order() {
        let (codes, pairs) = combine_codes(&Codes::I8(&[1, 0, 1]), 2, &Codes::I32(&[0, 2, 0]), 3);
        assert_eq!(pairs, vec![(0, 2), (1, 0)]);
        assert_eq!(codes, vec![1, 0, 1]);
    }

    #[test]
    fn rows_that_occur_before_are_the_same() {
        let x = [1.0, 0.0, 2.0, 0.0, 1.0, -0.0, 0.0, 1.0, 2.0, 0.0];
        assert_eq!(distinct_rows(&x, 5, 2), (vec![0, 1, 3], vec![0, 1, 0, 2, 1]));
        assert_eq!(distinct_rows(&[], 3, 0), (vec![0], vec![0, 0, 0]));
        assert_eq!(distinct_rows(&[], 0, 2), (vec![], vec![]));
        // Numbers that differ in few of their bits: more rows than one table place each.
        let many: Vec<f64> = (0..2000).map(|i| (i % 700) as f64 * 1e-9).collect();
        let which = (0..2000).map(|i| i % 700).collect();
        assert_eq!(distinct_rows(&many, 2000, 1), ((0..700).collect(), which));
    }

    #[test]
    fn not_finite_is_found_anywhere() {
        let mut x = vec![1.0; 5000];
        assert!(!any_not_finite(&x));
        for bad in [f64::NAN, f64::INFINITY] {
            x[4999] = bad;
            assert!(any_not_finite(&x));
        }
    }
}
