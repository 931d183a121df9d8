//! Pattern parameters that are held at a value, or tied to each other.

use crate::structure::Chart;

/// Held: natural value reached from the unconstrained one by the pattern; tied: sets of parameters with one value.
#[derive(Clone, Debug, Default)]
pub struct Constraint {
    /// (parameter, unconstrained value).
    pub held: Vec<(usize, f64)>,
    pub tied: Vec<Vec<usize>>,
}

impl Constraint {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.tied.is_empty()
    }

    /// Parameters that satisfy it: tied ones get their mean.
    pub fn impose(&self, shape: &mut [f64]) {
        for set in &self.tied {
            let mean = set.iter().map(|&i| shape[i]).sum::<f64>() / set.len().max(1) as f64;
            set.iter().for_each(|&i| shape[i] = mean);
        }
        self.held.iter().for_each(|&(i, v)| shape[i] = v);
    }

    /// Parameters of which only the free ones are known: tied ones get their leader's value.
    pub fn complete(&self, shape: &mut [f64]) {
        self.followers().for_each(|(i, j)| shape[j] = shape[i]);
        self.held.iter().for_each(|&(i, v)| shape[i] = v);
    }

    /// Held parameters have no ends, tied ones common ones and one coordinate.
    pub fn charts(&self, charts: &mut [Chart]) {
        for set in &self.tied {
            let Some(&leader) = set.first() else { continue };
            let low = set.iter().map(|&i| charts[i].low).fold(f64::NEG_INFINITY, f64::max);
            let high = set.iter().map(|&i| charts[i].high).fold(f64::INFINITY, f64::min);
            let chart = Chart { low, high, ..charts[leader] };
            set.iter().for_each(|&i| charts[i] = chart);
        }
        for &(i, _) in &self.held {
            (charts[i].low, charts[i].high) = (f64::NEG_INFINITY, f64::INFINITY);
        }
    }

    /// The same for parameters that stand elsewhere.
    pub fn moved(&self, place: &[usize]) -> Constraint {
        Constraint {
            held: self.held.iter().map(|&(i, v)| (place[i], v)).collect(),
            tied: self.tied.iter().map(|set| set.iter().map(|&i| place[i]).collect()).collect(),
        }
    }

    /// The gradient with that of tied parameters summed, in each of them; none where a parameter is held.
    pub fn pooled(&self, gradient: &[f64]) -> Vec<f64> {
        let mut out = gradient.to_vec();
        for set in &self.tied {
            let sum: f64 = set.iter().map(|&i| gradient[i]).sum();
            set.iter().for_each(|&i| out[i] = sum);
        }
        self.held.iter().for_each(|&(i, _)| out[i] = 0.0);
        out
    }

    /// The gradient in free parameters: nothing in held ones, that of a tie in its leader.
    pub fn reduced(&self, gradient: &[f64]) -> Vec<f64> {
        let mut out = self.pooled(gradient);
        self.followers().for_each(|(_, j)| out[j] = 0.0);
        out
    }

    pub fn holds(&self, i: usize) -> bool {
        self.held.iter().any(|h| h.0 == i)
    }

    /// (leader, follower) of every tie.
    pub fn followers(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.tied.iter().flat_map(|set| set.iter().skip(1).map(move |&j| (set[0], j)))
    }

    /// Columns of the map from free to all parameters: 0/1 weights as lists of positions, for m parameters.
    pub fn free(&self, m: usize) -> Vec<Vec<usize>> {
        (0..m)
            .filter(|&i| !self.holds(i) && !self.followers().any(|(_, f)| f == i))
            .map(|i| self.tied.iter().find(|s| s.first() == Some(&i)).cloned().unwrap_or_else(|| vec![i]))
            .collect()
    }
}
