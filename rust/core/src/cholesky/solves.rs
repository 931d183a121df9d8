//! Triangular solves with the factor.

use super::numeric::{scalar_rows, Numeric};
use super::symbolic::Symbolic;
use crate::dense;

/// Supernodes up to this width are solved by plain loops.
const NARROW: usize = 8;

impl Numeric {
    /// B <- L^-1 B, B row-major (size x m) in elimination order.
    pub fn forward(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        match m {
            0 => {}
            1 => self.forward_fixed::<1>(sym, b, m),
            2 => self.forward_fixed::<2>(sym, b, m),
            3 => self.forward_fixed::<3>(sym, b, m),
            4 => self.forward_fixed::<4>(sym, b, m),
            5 => self.forward_fixed::<5>(sym, b, m),
            6 => self.forward_fixed::<6>(sym, b, m),
            _ => self.forward_fixed::<0>(sym, b, m),
        }
    }

    /// `M` is the number of right-hand sides, 0 when it is not known beforehand.
    fn forward_fixed<const M: usize>(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        let m = if M == 0 { m } else { M };
        let scalar = sym.scalar();
        let mut index = vec![];
        for s in &sym.supers {
            let (w, r) = (s.width as usize, s.below as usize);
            let ld = w + r;
            let panel = self.panel(s);
            if w == 1 && scalar {
                forward_single::<M>(panel, sym.rows(s), b, s.first as usize, m);
                continue;
            }
            let at = sym.offset[s.first as usize] as usize * m;
            let (y, rest) = b[at..].split_at_mut(w * m);
            if w <= NARROW {
                forward_narrow::<M>(panel, w, ld, y, m);
            } else if s.packed {
                dense::packed_solve_right_lt(panel, w, y, m);
            } else {
                dense::solve_right_lt(panel, w, ld, y, m, m);
            }
            if r == 0 {
                continue;
            }
            let rows = scalar_rows(sym, s, scalar, &mut index);
            let shift = at + w * m;
            if w * r * m < 4096 || w == 1 {
                for j in 0..w {
                    let yj = &y[j * m..(j + 1) * m];
                    for (&q, l) in rows.iter().zip(&panel[w + j * ld..]) {
                        let out = &mut rest[q as usize * m - shift..][..m];
                        out.iter_mut().zip(yj).for_each(|(o, v)| *o -= l * v);
                    }
                }
            } else {
                // (m x r) = Y' (m x w) L21' (w x r)
                let mut t = vec![0.0; m * r];
                dense::gemm_nt(&mut t, m, y, m, &panel[w..], ld, m, r, w, 1.0);
                for (i, &q) in rows.iter().enumerate() {
                    let out = &mut rest[q as usize * m - shift..][..m];
                    out.iter_mut().zip(&t[i * m..(i + 1) * m]).for_each(|(o, v)| *o -= v);
                }
            }
        }
    }

    /// B <- L^-T B, B row-major (size x m) in elimination order.
    pub fn backward(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        match m {
            0 => {}
            1 => self.backward_fixed::<1>(sym, b, m),
            2 => self.backward_fixed::<2>(sym, b, m),
            3 => self.backward_fixed::<3>(sym, b, m),
            4 => self.backward_fixed::<4>(sym, b, m),
            _ => self.backward_fixed::<0>(sym, b, m),
        }
    }

    fn backward_fixed<const M: usize>(&self, sym: &Symbolic, b: &mut [f64], m: usize) {
        let m = if M == 0 { m } else { M };
        let scalar = sym.scalar();
        let mut index = vec![];
        for s in sym.supers.iter().rev() {
            let (w, r) = (s.width as usize, s.below as usize);
            let ld = w + r;
            let panel = self.panel(s);
            if w == 1 && scalar {
                backward_single::<M>(panel, sym.rows(s), b, s.first as usize, m);
                continue;
            }
            let at = sym.offset[s.first as usize] as usize * m;
            let (y, rest) = b[at..].split_at_mut(w * m);
            let shift = at + w * m;
            if r > 0 {
                let rows = scalar_rows(sym, s, scalar, &mut index);
                if w * r * m < 4096 || w == 1 {
                    for j in 0..w {
                        let yj = &mut y[j * m..(j + 1) * m];
                        for (&q, l) in rows.iter().zip(&panel[w + j * ld..]) {
                            let x = &rest[q as usize * m - shift..][..m];
                            yj.iter_mut().zip(x).for_each(|(o, v)| *o -= l * v);
                        }
                    }
                } else {
                    let mut x = vec![0.0; m * r];
                    for (i, &q) in rows.iter().enumerate() {
                        x[i * m..(i + 1) * m].copy_from_slice(&rest[q as usize * m - shift..][..m]);
                    }
                    dense::gemm(y, m, &x, m, &panel[w..], ld, m, w, r, -1.0);
                }
            }
            if w <= NARROW {
                backward_narrow::<M>(panel, w, ld, y, m);
            } else if s.packed {
                dense::packed_solve_right_l(panel, w, y, m);
            } else {
                dense::solve_right_l(panel, w, ld, y, m, m);
            }
        }
    }
}

/// L^-1 on a supernode of one row, and its share in the rows below it, where every node is a row.
#[inline(always)]
fn forward_single<const M: usize>(l: &[f64], rows: &[u32], b: &mut [f64], at: usize, m: usize) {
    let inv = 1.0 / l[0];
    if M == 0 {
        let (y, rest) = b[at * m..].split_at_mut(m);
        y.iter_mut().for_each(|v| *v *= inv);
        for (&q, l) in rows.iter().zip(&l[1..]) {
            let out = &mut rest[(q as usize - at - 1) * m..][..m];
            out.iter_mut().zip(&*y).for_each(|(o, v)| *o -= l * v);
        }
        return;
    }
    let y: [f64; M] = std::array::from_fn(|j| b[at * M + j] * inv);
    b[at * M..(at + 1) * M].copy_from_slice(&y);
    for (&q, l) in rows.iter().zip(&l[1..]) {
        let out = &mut b[q as usize * M..][..M];
        out.iter_mut().zip(&y).for_each(|(o, v)| *o -= l * v);
    }
}

/// L^-T on a supernode of one row.
#[inline(always)]
fn backward_single<const M: usize>(l: &[f64], rows: &[u32], b: &mut [f64], at: usize, m: usize) {
    let inv = 1.0 / l[0];
    if M == 0 {
        let (y, rest) = b[at * m..].split_at_mut(m);
        for (&q, l) in rows.iter().zip(&l[1..]) {
            let x = &rest[(q as usize - at - 1) * m..][..m];
            y.iter_mut().zip(x).for_each(|(o, v)| *o -= l * v);
        }
        y.iter_mut().for_each(|v| *v *= inv);
        return;
    }
    let mut y: [f64; M] = std::array::from_fn(|j| b[at * M + j]);
    for (&q, l) in rows.iter().zip(&l[1..]) {
        let x = &b[q as usize * M..][..M];
        y.iter_mut().zip(x).for_each(|(o, v)| *o -= l * v);
    }
    b[at * M..(at + 1) * M].iter_mut().zip(&y).for_each(|(o, v)| *o = v * inv);
}

/// L^-1 on the rows of a narrow supernode.
#[inline(always)]
fn forward_narrow<const M: usize>(l: &[f64], w: usize, ld: usize, y: &mut [f64], m: usize) {
    let m = if M == 0 { m } else { M };
    for j in 0..w {
        let (before, row) = y.split_at_mut(j * m);
        for (k, done) in before.chunks_exact(m).enumerate() {
            let f = l[j + k * ld];
            row[..m].iter_mut().zip(done).for_each(|(o, v)| *o -= f * v);
        }
        let inv = 1.0 / l[j + j * ld];
        row[..m].iter_mut().for_each(|v| *v *= inv);
    }
}

/// L^-T on the rows of a narrow supernode.
#[inline(always)]
fn backward_narrow<const M: usize>(l: &[f64], w: usize, ld: usize, y: &mut [f64], m: usize) {
    let m = if M == 0 { m } else { M };
    for j in (0..w).rev() {
        let (row, after) = y[j * m..].split_at_mut(m);
        for (k, done) in after[..(w - 1 - j) * m].chunks_exact(m).enumerate() {
            let f = l[j + 1 + k + j * ld];
            row.iter_mut().zip(done).for_each(|(o, v)| *o -= f * v);
        }
        let inv = 1.0 / l[j + j * ld];
        row.iter_mut().for_each(|v| *v *= inv);
    }
}
