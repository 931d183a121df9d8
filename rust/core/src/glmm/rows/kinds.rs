//! Rows that agree in their cell and in all that was observed: without random effects they are one row that counts
//! several times, and a search for the coefficients alone goes over few.

use super::fixed::FixedSums;
use super::panel::by_cells;
use super::pass::Sums;
use super::plan::Plan;
use super::GlmmRows;
use crate::design::{alike, Block, Codes, Numeric};
use crate::family::{Data, Family};

/// Rows of every kind from which on kinds pay.
const ROWS: usize = 2;

/// The first row of every kind stands for all.
pub struct Kinds {
    cell: Vec<u32>,
    /// How many rows, or the sum of their weights.
    count: Vec<f64>,
    observed: Observed,
    /// By component.
    offset: Vec<Option<Vec<f64>>>,
}

struct Observed {
    y: Vec<f64>,
    trials: Option<Vec<f64>>,
    upper: Option<Vec<f64>>,
    censor: Option<Vec<i8>>,
    se: Option<Vec<f64>>,
    randomised: Option<(Vec<f64>, Vec<f64>)>,
    bounds: Option<Vec<f64>>,
}

impl Observed {
    fn of(data: &Data<'_>, first: &[usize]) -> Self {
        let at = |v: &[f64]| first.iter().map(|&i| v[i]).collect::<Vec<f64>>();
        Observed {
            y: at(data.y),
            trials: data.trials.map(at),
            upper: data.upper.map(at),
            censor: data.censor.map(|c| first.iter().map(|&i| c[i]).collect()),
            se: data.se.map(at),
            randomised: data.randomised.map(|(c, d)| (at(c), at(d))),
            bounds: data.bounds.map(|b| first.iter().flat_map(|&i| [b[2 * i], b[2 * i + 1]]).collect()),
        }
    }

    fn data(&self) -> Data<'_> {
        Data {
            y: &self.y,
            trials: self.trials.as_deref(),
            upper: self.upper.as_deref(),
            censor: self.censor.as_deref(),
            se: self.se.as_deref(),
            randomised: self.randomised.as_ref().map(|(c, d)| (&c[..], &d[..])),
            bounds: self.bounds.as_deref(),
        }
    }
}

fn number(x: &[f64]) -> Block<'_> {
    Block { codes: None, contrast: &[], levels: 0, cols: 1, x: Some(Numeric::F64(x)) }
}

fn code(codes: Codes<'_>) -> Block<'_> {
    Block { codes: Some(codes), contrast: &[], levels: 0, cols: 1, x: None }
}

impl Kinds {
    /// None where most rows are alone, or a family in the caller's hands looks at the rows themselves.
    pub fn of(plan: &Plan, family: &Family, rows: &GlmmRows<'_>) -> Option<Self> {
        let cells = plan.cells.as_ref().filter(|_| !family.is_external())?;
        let cell: Vec<i32> = cells.of.iter().map(|&c| c as i32).collect();
        let data = &rows.data;
        let (c, d) = data.randomised.unzip();
        let ends = |k| data.bounds.map(|b| b.iter().skip(k).step_by(2).copied().collect::<Vec<f64>>());
        let (least, most) = (ends(0), ends(1));
        let numbers = [Some(data.y), data.trials, data.upper, data.se, c, d, least.as_deref(), most.as_deref()];
        let offsets = rows.components.iter().map(|c| c.offset);
        let mut of: Vec<Block<'_>> = numbers.into_iter().chain(offsets).flatten().map(number).collect();
        of.push(code(Codes::I32(&cell)));
        of.extend(data.censor.map(|c| code(Codes::I8(c))));
        let (kind, first) = alike(rows.n, rows.n / ROWS, &of)?;
        let mut count = vec![0.0; first.len()];
        kind.iter().enumerate().for_each(|(i, &k)| count[k as usize] += rows.weights.map_or(1.0, |w| w[i]));
        let at = |o: &[f64]| first.iter().map(|&i| o[i]).collect();
        Some(Kinds {
            cell: first.iter().map(|&i| cells.of[i]).collect(),
            count,
            observed: Observed::of(data, &first),
            offset: rows.components.iter().map(|c| c.offset.map(at)).collect(),
        })
    }

    /// The part of the predictors that does not depend on random effects, row-major kinds x K.
    pub fn fixed_part(&self, plan: &Plan, beta: &[f64], out: &mut Vec<f64>) {
        if let Some(cells) = &plan.cells {
            out.resize(self.cell.len() * plan.k, 0.0);
            by_cells(plan, cells, (&self.cell, self.offset.iter().map(|o| o.as_deref())), beta, out);
        }
    }

    /// Gradient and curvature in the coefficients, as a pass over the rows gives them without random effects.
    pub fn pass(&self, plan: &Plan, family: &Family, fixed: &[f64]) -> Sums {
        let (mut s, k) = (Sums::fixed(plan), plan.k);
        let Some(cells) = &plan.cells else { return s };
        let (stride, size, data) = (family.stride(2), family.panel(), self.observed.data());
        let mut sums = FixedSums::new(plan, true);
        let mut out = vec![0.0; size.min(self.cell.len()) * stride];
        let panels = fixed.chunks(size * k).zip(self.cell.chunks(size)).zip(self.count.chunks(size));
        for (start, ((eta, cell), count)) in (0..).step_by(size).zip(panels) {
            let out = &mut out[..cell.len() * stride];
            family.evaluate(&data, start, eta, 2, out);
            for (row, count) in out.chunks_exact_mut(stride).zip(count) {
                row.iter_mut().for_each(|v| *v *= -count);
                s.value += row[0];
            }
            sums.add_kinds(plan, cells, cell, out, stride);
        }
        sums.finish(plan, &mut s);
        s
    }
}
