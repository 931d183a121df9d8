//! Small designs made of numbers alone: two crossed factors, one numeric column, unbalanced rows.

use ranef_core::design::{Block, Codes, Numeric, Rows, Structure, Term};

/// Numbers in (0, 1) by a linear congruential generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

pub struct Data {
    pub x: Vec<f64>,
    pub y: Vec<f64>,
    pub g: Vec<i32>,
    pub h: Vec<i32>,
    pub levels: (usize, usize),
}

impl Data {
    pub fn new(n: usize, levels: (usize, usize), seed: u64) -> Self {
        let mut r = Random::new(seed);
        let (a, b): (Vec<f64>, Vec<f64>) = (0..levels.0).map(|_| (r.normal(), 0.7 * r.normal())).unzip();
        let c: Vec<f64> = (0..levels.1).map(|_| 0.8 * r.normal()).collect();
        let mut d = Data { x: vec![], y: vec![], g: vec![], h: vec![], levels };
        for _ in 0..n {
            let (g, h, x) = ((r.next() * levels.0 as f64) as usize, (r.next() * levels.1 as f64) as usize, r.normal());
            d.g.push(g as i32);
            d.h.push(h as i32);
            d.x.push(x);
            d.y.push(1.0 + 0.5 * x + a[g] + b[g] * x + c[h] + r.normal());
        }
        d
    }

    fn column(&self) -> Block<'_> {
        Block { codes: None, contrast: &[], levels: 0, cols: 1, x: Some(Numeric::F64(&self.x)) }
    }

    /// (structure, with a slope) of the terms of g; h has an intercept. `swap` writes the terms the other way round.
    pub fn rows(&self, structure: Structure, slope: bool, swap: bool) -> Rows<'_> {
        let one = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None };
        let inner = if slope { vec![one, self.column()] } else { vec![one] };
        let mut terms = vec![
            Term {
                codes: Codes::I32(&self.g),
                levels: self.levels.0,
                structure,
                blocks: inner,
                joint: false,
                relation: None,
                fixed: false,
            },
            Term {
                codes: Codes::I32(&self.h),
                levels: self.levels.1,
                structure: Structure::Unstructured,
                blocks: vec![one],
                joint: false,
                relation: None,
                fixed: false,
            },
        ];
        if swap {
            terms.reverse();
        }
        Rows { n: self.y.len(), fixed: vec![one, self.column()], terms, y: &self.y, weights: None, offset: None }
    }
}
