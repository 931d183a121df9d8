//! Rows that agree in all their columns.

use super::Block;

/// The kind of every row, and the first row of each: rows with the same codes and numbers. None if there are more than
/// `most`.
pub fn alike(n: usize, most: usize, of: &[Block<'_>]) -> Option<(Vec<u32>, Vec<usize>)> {
    // Column by column: rows with the same hash are taken to be alike, and then it is seen whether they are.
    let mut hash = vec![0u64; n];
    for b in of {
        if let Some(c) = &b.codes {
            hash.iter_mut().enumerate().for_each(|(i, h)| *h = mix(*h, c.get(i) as u64));
        }
        if let Some(x) = b.x {
            hash.iter_mut().enumerate().for_each(|(i, h)| *h = mix(*h, x.get(i).to_bits()));
        }
    }
    let size = (2 * most).next_power_of_two();
    // Open addressing: the place of a row is that of the first one like it, plus one.
    let (mut table, mut kind, mut first) = (vec![0u32; size], Vec::with_capacity(n), vec![]);
    for i in 0..n {
        let mut at = hash[i] as usize & (size - 1);
        while table[at] > 0 && hash[first[table[at] as usize - 1]] != hash[i] {
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
    let one = |i: usize| first[kind[i] as usize];
    let same_code = |b: &Block<'_>| b.codes.as_ref().is_none_or(|c| (0..n).all(|i| c.get(i) == c.get(one(i))));
    let same_bits = |b: &Block<'_>| b.x.is_none_or(|x| (0..n).all(|i| x.get(i).to_bits() == x.get(one(i)).to_bits()));
    of.iter().all(|b| same_code(b) && same_bits(b)).then_some((kind, first))
}

fn mix(hash: u64, bits: u64) -> u64 {
    let mixed = (hash.rotate_left(5) ^ bits).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// Whether no kind of row has a sign of its own: each has a row of sign 0, or rows of both signs. Signs are -1, 0, 1, or NaN
/// where a row says nothing. False, too, where there are more than `most` kinds.
pub fn signs_are_mixed(of: &[Block<'_>], sign: &[f64], most: usize) -> bool {
    let Some((kind, first)) = alike(sign.len(), most, of) else { return false };
    let mut seen = vec![0u8; first.len()];
    for (&k, &s) in kind.iter().zip(sign) {
        seen[k as usize] |= if s > 0.0 { 1 } else { 2 * u8::from(s < 0.0) + 4 * u8::from(s == 0.0) };
    }
    seen.iter().all(|s| !matches!(s, 1 | 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::design::{Codes, Numeric};

    #[test]
    fn rows_that_differ_are_of_no_kind() {
        let x: Vec<f64> = (0..100).map(f64::from).collect();
        let number = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: Some(Numeric::F64(&x)) };
        assert!(alike(100, 25, &[number]).is_none());
        assert_eq!(alike(100, 100, &[number]).unwrap().1.len(), 100);
    }

    #[test]
    fn a_kind_of_one_sign_is_seen() {
        let (codes, contrast) = ([0i8, 0, 1, 1, 2, 2, 2], [1.0, 0.0, 0.0]);
        let block = Block { codes: Some(Codes::I8(&codes)), contrast: &contrast, levels: 3, cols: 1, x: None };
        let mixed = |sign: [f64; 7]| signs_are_mixed(&[block], &sign, 7);
        assert!(mixed([1.0, -1.0, 0.0, 1.0, -1.0, 0.0, 1.0]));
        assert!(mixed([1.0, -1.0, 0.0, 0.0, f64::NAN, f64::NAN, f64::NAN]));
        assert!(!mixed([1.0, -1.0, 1.0, 1.0, -1.0, 0.0, 1.0]));
        assert!(!mixed([1.0, -1.0, 0.0, 1.0, f64::NAN, -1.0, -1.0]));
        assert!(!signs_are_mixed(&[block], &[0.0; 7], 2));
    }
}
