//! Parameters of a structure near a covariance that need not have it: where a search in it begins.

use super::{kinds, Kind, Pattern, Scale};

/// Largest correlation to begin from, as a share of its range.
const MOST: f64 = 0.98;
/// Least correlation of the nearest columns to begin from, where it comes from a distance.
const LEAST: f64 = 0.05;

impl Pattern {
    /// Parameters whose standard deviations (k, positive) and correlations (k x k, NaN where unknown) are about the given
    /// ones, away from the limits; none for structures without correlations of their own.
    pub fn near(&self, sd: &[f64], correlation: &[f64]) -> Option<Vec<f64>> {
        let (k, d) = (self.k, self.deviations());
        let mut out: Vec<f64> = match d {
            0 => return None,
            1 => vec![0.5 * (sd.iter().map(|s| s * s).sum::<f64>() / k as f64).ln()],
            _ => sd.iter().map(|s| s.ln()).collect(),
        };
        let at = |l: usize| (l..k).map(move |i| correlation[i + (i - l) * k]);
        let lag = |l: usize| mean(at(l));
        match self.kind {
            Kind::HomogeneousDiagonal | Kind::Diagonal => {}
            _ if k == 1 => {}
            Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry => {
                let (mean, low) = (mean((1..k).flat_map(at)), -1.0 / (k as f64 - 1.0));
                let share = ((mean - low) / (1.0 - low)).clamp(1.0 - MOST, MOST);
                out.push((share / (1.0 - share)).ln());
            }
            Kind::Ar1 | Kind::HeterogeneousAr1 => out.push(Scale::Partial.parameter(lag(1).clamp(-MOST, MOST))),
            Kind::Toeplitz | Kind::HomogeneousToeplitz => {
                let lags: Vec<f64> = (0..k).map(lag).collect();
                out.extend(partials(&lags).iter().map(|&r| Scale::Partial.parameter(r)));
            }
            kind if kind.needs_distance() => {
                let (distance, r) = self.nearest(correlation);
                let range = match kind {
                    Kind::Gaussian => distance / (-r.ln()).sqrt(),
                    _ => -distance / r.ln(),
                };
                out.push(if kind == Kind::OrnsteinUhlenbeck { -range.ln() } else { range.ln() });
                if kind == Kind::Matern && self.nu.is_none() {
                    out.push(0.5f64.ln());
                }
            }
            _ => return None,
        }
        Some(out)
    }

    /// Correlations with r between neighbours, as far as the structure can have them: all columns are neighbours where
    /// they have no order, and share what is negative.
    pub fn neighbours(&self, r: f64) -> Vec<f64> {
        let k = self.k;
        let equal = matches!(self.kind, Kind::CompoundSymmetry | Kind::HomogeneousCompoundSymmetry);
        let at = |lag: usize| match lag {
            0 => 1.0,
            _ if equal => r.max(r / (k as f64 - 1.0)),
            _ => r.powi(lag as i32),
        };
        (0..k * k).map(|t| at((t % k).abs_diff(t / k))).collect()
    }

    /// The smallest distance of two columns whose correlation is known, and that, kept from its limits.
    fn nearest(&self, correlation: &[f64]) -> (f64, f64) {
        let apart = (0..self.distance.len()).filter(|&t| self.distance[t] > 0.0 && !correlation[t].is_nan());
        match apart.min_by(|&a, &b| self.distance[a].total_cmp(&self.distance[b])) {
            Some(t) => (self.distance[t], correlation[t].clamp(LEAST, MOST)),
            None => (kinds::typical(&self.distance, self.k), 0.5),
        }
    }
}

/// Mean of what is known; 0 where nothing is.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.filter(|v| !v.is_nan()).fold((0.0, 0), |(s, n), v| (s + v, n + 1));
    sum / f64::from(count.max(1))
}

/// Partial autocorrelations of autocorrelations 0 .. m (Durbin-Levinson), kept from their limits.
fn partials(lags: &[f64]) -> Vec<f64> {
    let (mut out, mut phi, mut left) = (vec![], Vec::<f64>::new(), 1.0);
    for m in 1..lags.len() {
        let told: f64 = phi.iter().enumerate().map(|(t, p)| p * lags[m - 1 - t]).sum();
        let partial = ((lags[m] - told) / left).clamp(-MOST, MOST);
        let mut next: Vec<f64> = (0..phi.len()).map(|t| phi[t] - partial * phi[phi.len() - 1 - t]).collect();
        next.push(partial);
        phi = next;
        left *= 1.0 - partial * partial;
        out.push(partial);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has the structure is found again; the smoothness of `mat` is not looked for.
    #[test]
    fn own_covariances_are_found_again() {
        let points: Vec<Vec<f64>> = [0.0, 0.7, 1.1, 2.5].iter().map(|&t| vec![t]).collect();
        for name in ["homdiag", "cs", "homcs", "ar1", "hetar1", "toep", "homtoep", "ou", "exp", "gau", "mat"] {
            let p = Pattern::new(name, 4, &points, vec![]).unwrap();
            let mut theta = p.start(&[0.5, 1.0, 1.5, 2.0]);
            if name == "mat" {
                theta[2] = 0.5f64.ln();
            }
            let sigma = p.sigma(&theta);
            let sd: Vec<f64> = (0..4).map(|i| sigma[i * 5].sqrt()).collect();
            let correlation: Vec<f64> = (0..16).map(|t| sigma[t] / (sd[t % 4] * sd[t / 4])).collect();
            let found = p.near(&sd, &correlation).unwrap();
            assert!(found.iter().zip(&theta).all(|(a, b)| (a - b).abs() < 1e-9), "{name}: {found:?} {theta:?}");
        }
    }

    #[test]
    fn limits_are_left() {
        let points: Vec<Vec<f64>> = (0..4).map(|t| vec![t as f64]).collect();
        for name in ["cs", "ar1", "toep", "ou", "exp", "gau", "mat"] {
            let p = Pattern::new(name, 4, &points, vec![]).unwrap();
            let theta = p.near(&[1.0; 4], &[1.0; 16]).unwrap();
            assert!(p.limit(&theta).is_none(), "{name}");
            assert!(p.factor(&theta).is_ok(), "{name}");
        }
    }
}
