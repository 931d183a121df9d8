//! Steps along narrow curved valleys.
//!
//! A covariance with one large and one small principal axis that has to turn moves along a curve: to second order in the
//! angle the large variance enters where the small one was, so that a quadratic model in the entries of the covariance
//! holds for next to no angle at all. In a factor I + delta of the relative covariance, (I + delta)(I + delta)', the same
//! turn is a straight line. With N the gradient and H the second derivative in the entries of the covariance,
//!
//! ```text
//! d2 deviance = (delta + delta')' H (delta + delta') + 2 tr(N delta delta'),
//! ```
//!
//! and the step is Newton's with its curvatures made positive. Which of two columns bears the turn depends on which is the
//! large one: both triangles are tried.

use crate::dense;
use crate::design::Moments;
use crate::linear::{dot, Component, Slope};

/// Smallest curvature relative to the largest, in units of every entry's own information.
const FLATTEST: f64 = 1e-8;

/// Change of the components of the relative covariance that a Newton step in a triangular factor makes, times `share`
/// in the factor, and the decrease that it promises.
pub fn step(
    m: &Moments,
    components: &[Component],
    slope: &Slope,
    fixed: &[bool],
    upper: bool,
    share: f64,
) -> (Vec<f64>, f64) {
    let c = components.len();
    let free: Vec<usize> = (0..c).filter(|&i| !fixed[i]).collect();
    let f = free.len();
    let place = |i: usize| match (components[i].row, components[i].col) {
        (r, s) if upper => (s, r),
        at => at,
    };
    // d component / d delta at delta = 0.
    let own = |i: usize| if components[i].row == components[i].col { 2.0 } else { 1.0 };
    let bent = |i: usize, j: usize| {
        let ((a, b), (r, s)) = (place(i), place(j));
        let factor = components[i].factor;
        let same = factor == components[j].factor && b == s;
        if same {
            2.0 * slope.n[factor][a + r * m.factors[factor].cols]
        } else {
            0.0
        }
    };
    let (observed, average) = (slope.observed.profiled(slope.nu), slope.average.profiled(slope.nu));
    let unit: Vec<f64> = free
        .iter()
        .map(|&i| (own(i) * own(i) * average[i * (c + 1)].abs() + bent(i, i).abs()).max(1e-300).sqrt())
        .collect();
    let mut h = vec![0.0; f * f];
    for (b, &j) in free.iter().enumerate() {
        for (a, &i) in free.iter().enumerate() {
            h[a + b * f] = (own(i) * own(j) * observed[i + j * c] + bent(i, j)) / (unit[a] * unit[b]);
        }
    }
    let gradient: Vec<f64> = free.iter().zip(&unit).map(|(&i, u)| own(i) * slope.gradient[i] / u).collect();
    let (w, v) = dense::eigen_symmetric(&h, f);
    let widest = w.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    let mut delta = vec![0.0; f];
    let mut promised = 0.0;
    for (w, v) in w.iter().zip(v.chunks_exact(f.max(1))) {
        let (along, curve) = (dot(v, &gradient), w.abs().max(FLATTEST * widest));
        delta.iter_mut().zip(v).for_each(|(d, v)| *d -= share * v * along / curve);
        promised += share * (1.0 - 0.5 * share) * along * along / curve;
    }
    let mut all = vec![0.0; c];
    free.iter().zip(&delta).zip(&unit).for_each(|((&i, d), u)| all[i] = d / u);
    (change(components, &all, &place), promised)
}

/// delta + delta' + delta delta' by component.
fn change(components: &[Component], delta: &[f64], place: &dyn Fn(usize) -> (usize, usize)) -> Vec<f64> {
    let mut out = vec![0.0; delta.len()];
    for (i, k) in components.iter().enumerate() {
        out[i] += if k.row == k.col { 2.0 * delta[i] } else { delta[i] };
        let near: Vec<usize> =
            (0..delta.len()).filter(|&x| components[x].factor == k.factor && components[x].slot == k.slot).collect();
        for &x in near.iter().filter(|&&x| place(x).0 == k.row) {
            for &y in near.iter().filter(|&&y| place(y).0 == k.col && place(y).1 == place(x).1) {
                out[i] += delta[x] * delta[y];
            }
        }
    }
    out
}
