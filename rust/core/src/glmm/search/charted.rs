//! Gradient and curvature in the coordinates of the search.

use super::*;

/// Whether steps along the directions change the covariances by little.
pub(super) fn short(directions: &[Direction], d: &[f64]) -> bool {
    directions.iter().zip(d).all(|(direction, v)| match &direction.path {
        Path::Star(s) => s.iter().all(|s| (v * s).abs() < 0.5),
        Path::Loading(..) => v.abs() < 0.5,
    })
}

/// A step of this size or its opposite, whichever stays inside.
pub(super) fn inwards(chart: &Chart, a: f64, size: f64) -> f64 {
    let room = patterns::room(chart, a);
    if room.1 > 2.0 * size || room.1 > -room.0 {
        size.min(0.5 * room.1)
    } else {
        -size.min(-0.5 * room.0)
    }
}

/// The observed curvature with that of the coordinates of the search in it.
pub(super) fn bent(mut slope: Slope, charts: &[Chart], shape: &[f64]) -> Slope {
    let n = slope.gradient.len();
    for (i, (chart, &a)) in charts.iter().zip(shape).enumerate() {
        slope.observed[i * (n + 1)] += slope.gradient[i] * chart.scale.bend(a) / chart.scale.slope(a).powi(2);
    }
    slope
}

/// Derivatives in the coordinates of the search: `stretch` are d parameter / d coordinate.
pub(super) fn charted(mut slope: Slope, stretch: &[f64]) -> Slope {
    let (m, n, p) = (stretch.len(), slope.gradient.len(), slope.beta.len());
    slope.gradient.iter_mut().zip(stretch).for_each(|(g, s)| *g *= s);
    if let Some(trade) = &mut slope.trade {
        trade.cross.iter_mut().zip(stretch).for_each(|(v, s)| *v *= s);
    }
    slope.cross.iter_mut().take(p * m).enumerate().for_each(|(t, v)| *v *= stretch[t / p]);
    for a in [&mut slope.average, &mut slope.expected, &mut slope.observed] {
        a.iter_mut().enumerate().for_each(|(t, v)| {
            let factor = |i: usize| stretch.get(i).copied().unwrap_or(1.0);
            *v *= factor(t % n) * factor(t / n);
        });
    }
    for (direction, by) in slope.directions.iter_mut().zip(stretch) {
        if let Path::Star(s) = &mut direction.path {
            s.iter_mut().for_each(|v| *v *= by);
        }
    }
    slope
}

pub(super) fn uncharted(slope: Slope, stretch: &[f64]) -> Slope {
    charted(slope, &stretch.iter().map(|s| 1.0 / s).collect::<Vec<f64>>())
}

/// The curvature as the optimiser of linear mixed models takes it, without the first `skip` directions. There is no
/// residual variance to profile.
pub(super) fn working_slope(slope: &Slope, skip: usize) -> linear::Slope {
    let n = slope.gradient.len();
    let c = n - skip;
    let part = |a: &[f64]| linear::Curvature {
        sigma: (0..c * c).map(|t| a[skip + t % c + (skip + t / c) * n]).collect(),
        mixed: vec![0.0; c],
    };
    linear::Slope {
        u: vec![],
        n: slope.n.clone(),
        gradient: slope.gradient[skip..].to_vec(),
        average: part(&slope.average),
        expected: part(&slope.expected),
        observed: part(&slope.observed),
        nu: 1.0,
    }
}

/// A matrix of the components inside one of all directions.
pub(super) fn padded(a: &[f64], skip: usize, c: usize) -> Vec<f64> {
    let n = skip + c;
    let mut out = vec![0.0; n * n];
    for j in 0..c {
        out[(skip + j) * n + skip..(skip + j + 1) * n].copy_from_slice(&a[j * c..(j + 1) * c]);
    }
    out
}
