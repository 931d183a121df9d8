//! The second derivatives of quadrature against differences of its gradient, and of one node against Laplace's.

use super::second::Way;
use super::{dot, Engine, Point};
use crate::design::{Block, Codes, Numeric, Structure, Term};
use crate::family::{Data, Family, Spec};
use crate::glmm::{Component, Fixed, Glmm, GlmmRows, Method};

const ROWS: usize = 144;
const ONE: Block<'static> = Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None };

/// A covariate, responses, 24 groups in 6 larger ones, and what upper and lower thresholds 4 categories have (4 x 3 each).
struct Columns {
    x: Vec<f64>,
    count: Vec<f64>,
    binary: Vec<f64>,
    category: Vec<i32>,
    level: Vec<f64>,
    inner: Vec<i32>,
    top: Vec<i32>,
    cuts: [Vec<f64>; 2],
}

impl Columns {
    fn new() -> Self {
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let u: Vec<f64> = (0..ROWS).map(|_| next()).collect();
        let inner: Vec<i32> = (0..ROWS).map(|i| ((i * 7) % 24) as i32).collect();
        let category: Vec<i32> = u.iter().map(|u| (4.0 * u) as i32).collect();
        Columns {
            x: (0..ROWS).map(|_| 2.0 * next() - 1.0).collect(),
            count: u.iter().map(|u| (6.0 * u * u).floor()).collect(),
            binary: u.iter().map(|u| f64::from(u8::from(*u > 0.4))).collect(),
            level: category.iter().map(|c| f64::from(*c)).collect(),
            category,
            top: inner.iter().map(|g| g / 4).collect(),
            inner,
            cuts: [0, 1].map(|by| (0..12).map(|t| f64::from(u8::from(t / 3 == t % 3 + by))).collect()),
        }
    }

    fn slope(&self) -> Block<'_> {
        Block { x: Some(Numeric::F64(&self.x)), ..ONE }
    }

    /// A term of the inner or the larger groups in one predictor.
    fn term<'a>(&'a self, inner: bool, blocks: Vec<Block<'a>>, component: usize) -> (Term<'a>, usize) {
        let (codes, levels) = if inner { (&self.inner, 24) } else { (&self.top, 6) };
        let codes = Codes::I32(codes);
        let structure = Structure::Unstructured;
        (Term { codes, levels, structure, blocks, joint: false, relation: None, fixed: false }, component)
    }

    /// Intercept and covariate in the first predictor, intercepts in the others.
    fn rows<'a>(&'a self, k: usize, terms: Vec<(Term<'a>, usize)>, y: &'a [f64]) -> GlmmRows<'a> {
        let fixed = |c: usize| match c {
            0 => vec![Fixed { block: ONE, first: 0 }, Fixed { block: self.slope(), first: 1 }],
            c => vec![Fixed { block: ONE, first: 1 + c }],
        };
        GlmmRows {
            n: ROWS,
            components: (0..k).map(|c| Component { fixed: fixed(c), offset: None }).collect(),
            p: k + 1,
            owner: terms.iter().map(|t| vec![t.1; t.0.blocks.len()]).collect(),
            patterns: terms.iter().map(|_| None).collect(),
            terms: terms.into_iter().map(|t| t.0).collect(),
            data: Data { y, ..Data::default() },
            weights: None,
        }
    }

    /// An ordinal response: a location, and thresholds that the upper and the lower predictor share.
    fn ordinal(&self) -> GlmmRows<'_> {
        let cuts = |by: usize| Block {
            codes: Some(Codes::I32(&self.category)),
            contrast: &self.cuts[by],
            levels: 4,
            cols: 3,
            x: None,
        };
        let mut rows = self.rows(3, vec![self.term(true, vec![ONE, self.slope()], 0)], &self.level);
        let fixed = [(self.slope(), 0), (cuts(0), 1), (cuts(1), 1)];
        for (c, (block, first)) in rows.components.iter_mut().zip(fixed) {
            c.fixed = vec![Fixed { block, first }];
        }
        rows
    }
}

fn family(name: &str, zero_inflation: bool) -> Family {
    Family::new(&Spec { name: name.into(), zero_inflation, categories: 4, ..Spec::default() }).unwrap()
}

/// All coefficients, and every entry of the lower triangles of Lambda.
fn ways(e: &Engine) -> Vec<Way> {
    let mut out: Vec<Way> = (0..e.plan.p()).map(Way::Coefficient).collect();
    for (f, factor) in e.moments().factors.iter().enumerate() {
        let k = factor.cols;
        for t in (0..k * k).filter(|t| t % k >= t / k) {
            out.push(Way::Lambda(f, (0..k * k).map(|i| f64::from(u8::from(i == t))).collect()));
        }
    }
    out
}

fn lambda(e: &Engine) -> Vec<Vec<f64>> {
    let entry = |k: usize, t: usize| if t.is_multiple_of(k + 1) { 0.5 - 0.05 * t as f64 / k as f64 } else { 0.1 };
    let one = |k: usize| (0..k * k).map(|t| if t % k >= t / k { entry(k, t) } else { 0.0 }).collect();
    e.moments().factors.iter().map(|f| one(f.cols)).collect()
}

/// The point that is so far along a way.
fn beside(e: &mut Engine, rows: &GlmmRows<'_>, beta: &[f64], way: &Way, by: f64) -> Point {
    let (mut beta, mut lambda) = (beta.to_vec(), lambda(e));
    match way {
        Way::Coefficient(j) => beta[*j] += by,
        Way::Lambda(f, change) => lambda[*f].iter_mut().zip(change).for_each(|(l, c)| *l += by * c),
    }
    e.evaluate(rows, &beta, &lambda, &[], &vec![0.0; e.size()]).unwrap()
}

fn along(ways: &[Way], beta: &[f64], lambda: &[Vec<f64>]) -> Vec<f64> {
    let one = |way: &Way| match way {
        Way::Coefficient(j) => beta[*j],
        Way::Lambda(f, change) => dot(&lambda[*f], change),
    };
    ways.iter().map(one).collect()
}

/// Half of the gradient that searches use in the coefficients, and E of `second` in Lambda.
fn gradient(e: &mut Engine, rows: &GlmmRows<'_>, at: &Point, ways: &[Way]) -> Vec<f64> {
    let q = e.quadrature.clone().unwrap();
    let beta: Vec<f64> = e.quadrature_gradient(rows, &q, at).unwrap().0.iter().map(|b| 0.5 * b).collect();
    let lambda = e.second_derivatives(rows, at, &[]).unwrap().slope;
    along(ways, &beta, &lambda)
}

fn hessian(e: &mut Engine, rows: &GlmmRows<'_>, beta: &[f64], ways: &[Way]) -> Vec<Vec<f64>> {
    let here = beside(e, rows, beta, &ways[0], 0.0);
    let found = e.second_derivatives(rows, &here, ways).unwrap();
    found.beta.iter().zip(&found.lambda).map(|(b, l)| along(ways, b, l)).collect()
}

/// A central difference of fourth order, whose error with this step is below 1e-9.
fn difference(at: &mut dyn FnMut(f64) -> Vec<f64>) -> Vec<f64> {
    let step = 2e-3;
    let [a, b, c, d] = [-2.0, -1.0, 1.0, 2.0].map(|s| at(s * step));
    (0..a.len()).map(|i| (8.0 * (c[i] - b[i]) - (d[i] - a[i])) / (12.0 * step)).collect()
}

fn check(what: &str, rows: &GlmmRows<'_>, family: Family, points: usize, weights: &[usize], beta: &[f64]) {
    let mut model = Glmm::new(rows, family).unwrap();
    for &term in weights {
        let levels = rows.terms[term].levels;
        model.set_level_weights(term, &(0..levels).map(|l| 0.5 + 0.3 * (l % 5) as f64).collect::<Vec<_>>()).unwrap();
    }
    let e = &mut model.engine;
    e.set_method(Method::Quadrature(points)).unwrap();
    e.tolerance = 1e-13;
    let ways = ways(e);
    let h = hessian(e, rows, beta, &ways);
    let size = |a: usize, b: usize| (h[a][a] * h[b][b]).abs().sqrt();
    let here = beside(e, rows, beta, &ways[0], 0.0);
    let slope = gradient(e, rows, &here, &ways);
    for (a, way) in ways.iter().enumerate() {
        let value = difference(&mut |s| vec![0.5 * beside(e, rows, beta, way, s).deviance])[0];
        assert!((value - slope[a]).abs() < 1e-7 * (1.0 + value.abs()), "{what} slope {a}: {} {value}", slope[a]);
        let column = difference(&mut |s| {
            let there = beside(e, rows, beta, way, s);
            gradient(e, rows, &there, &ways)
        });
        for (b, d) in column.iter().enumerate() {
            assert!((h[a][b] - d).abs() < 1e-7 * size(a, b), "{what} {a} {b}: {} {d}", h[a][b]);
            assert!((h[a][b] - h[b][a]).abs() < 1e-9 * size(a, b), "{what} {a} {b}: {} {}", h[a][b], h[b][a]);
        }
    }
}

#[test]
fn second_derivatives_of_quadrature_are_those_of_its_gradient() {
    let c = Columns::new();
    let one = |k: usize, y| c.rows(k, vec![c.term(true, vec![ONE], 0)], y);
    let two = |k: usize, y| c.rows(k, vec![c.term(true, vec![ONE, c.slope()], 0)], y);
    check("binomial", &one(1, &c.binary), family("binomial", false), 7, &[], &[0.2, 0.3]);
    check("poisson", &one(1, &c.count), family("poisson", false), 4, &[], &[0.3, 0.2]);
    check("weights", &one(1, &c.count), family("poisson", false), 1, &[0], &[0.3, 0.2]);
    check("nbinom2", &one(2, &c.count), family("nbinom2", false), 5, &[], &[0.3, 0.2, 0.4]);
    check("slopes", &two(1, &c.binary), family("binomial", false), 5, &[0], &[0.2, 0.3]);
    check("cumulative", &c.ordinal(), family("cumulative", false), 3, &[], &[0.3, -1.1, 0.1, 1.0]);
    let inflated = c.rows(2, vec![c.term(true, vec![ONE], 0), c.term(true, vec![ONE], 1)], &c.count);
    check("inflated", &inflated, family("poisson", true), 4, &[], &[0.5, 0.2, -1.0]);
    let terms =
        || vec![c.term(true, vec![ONE, c.slope()], 0), c.term(false, vec![ONE], 0), c.term(false, vec![ONE], 1)];
    let nested = c.rows(2, terms(), &c.count);
    check("nested", &nested, family("nbinom2", false), 3, &[], &[0.3, 0.2, 0.4]);
    check("nested weights", &nested, family("nbinom2", false), 2, &[0, 1], &[0.3, 0.2, 0.4]);
}

/// The node of one is the mode: the same numbers by other ways, to rounding.
#[test]
fn second_derivatives_of_one_node_are_those_of_laplace() {
    let c = Columns::new();
    let terms = vec![c.term(true, vec![ONE, c.slope()], 0), c.term(false, vec![ONE], 0), c.term(false, vec![ONE], 1)];
    let rows = c.rows(2, terms, &c.count);
    let at = |counted: bool| {
        let mut model = Glmm::new(&rows, family("nbinom2", false)).unwrap();
        if counted {
            model.set_level_weights(1, &[1.0; 6]).unwrap();
        }
        let e = &mut model.engine;
        e.set_method(Method::Quadrature(1)).unwrap();
        assert_eq!(e.quadrature.is_some(), counted);
        e.tolerance = 1e-13;
        let ways = ways(e);
        hessian(e, &rows, &[0.3, 0.2, 0.4], &ways)
    };
    let (nodes, laplace) = (at(true), at(false));
    for (a, (x, y)) in nodes.iter().zip(&laplace).enumerate() {
        for (b, (x, y)) in x.iter().zip(y).enumerate() {
            assert!((x - y).abs() < 1e-9 * (laplace[a][a] * laplace[b][b]).abs().sqrt(), "{a} {b}: {x} {y}");
        }
    }
}
