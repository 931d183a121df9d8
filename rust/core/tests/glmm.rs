//! The Laplace engine as a whole: its gradient against differences, and the identities it must satisfy.

use ranef_core::design::{Block, Codes, Numeric, Relation, Structure, Term};
use ranef_core::family::{table, Data, Family, Legal, Spec};
use ranef_core::glmm::{Component, Fixed, Glmm, GlmmRows, Method, Start};
use ranef_core::optimise::Options;
use ranef_core::structure::Pattern;

/// Numbers in (0, 1) from a linear congruential generator.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.next().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.next()).cos()
    }
}

/// Columns of a small design: 12 groups crossed with 5, a covariate, a time factor of 4 levels.
struct Columns {
    n: usize,
    x: Vec<f64>,
    g: Vec<i32>,
    h: Vec<i32>,
    time: Vec<i32>,
    eye: Vec<f64>,
}

fn columns(n: usize) -> Columns {
    let mut d = Draw(7);
    let mut eye = vec![0.0; 16];
    (0..4).for_each(|i| eye[5 * i] = 1.0);
    Columns {
        n,
        x: (0..n).map(|_| d.normal()).collect(),
        g: (0..n).map(|i| (i % 12) as i32).collect(),
        h: (0..n).map(|i| ((i / 12) % 5) as i32).collect(),
        time: (0..n).map(|i| ((i / 7) % 4) as i32).collect(),
        eye,
    }
}

impl Columns {
    fn one(&self) -> Block<'_> {
        Block { codes: None, contrast: &[], levels: 0, cols: 1, x: None }
    }

    fn slope(&self) -> Block<'_> {
        Block { codes: None, contrast: &[], levels: 0, cols: 1, x: Some(Numeric::F64(&self.x)) }
    }

    fn times(&self) -> Block<'_> {
        Block { codes: Some(Codes::I32(&self.time)), contrast: &self.eye, levels: 4, cols: 4, x: None }
    }

    fn term<'a>(&'a self, codes: &'a [i32], levels: usize, structure: Structure, blocks: Vec<Block<'a>>) -> Term<'a> {
        Term { codes: Codes::I32(codes), levels, structure, blocks, joint: false, relation: None, fixed: false }
    }

    /// Intercept and covariate in the first predictor, intercepts in the others.
    fn components(&self, k: usize) -> (Vec<Component<'_>>, usize) {
        let mut out = vec![Component {
            fixed: vec![Fixed { block: self.one(), first: 0 }, Fixed { block: self.slope(), first: 1 }],
            offset: None,
        }];
        for c in 1..k {
            out.push(Component { fixed: vec![Fixed { block: self.one(), first: 1 + c }], offset: None });
        }
        (out, k + 1)
    }

    fn rows<'a>(&'a self, k: usize, terms: Vec<(Term<'a>, usize, Option<Pattern>)>, y: &'a [f64]) -> GlmmRows<'a> {
        let (components, p) = self.components(k);
        GlmmRows {
            n: self.n,
            components,
            p,
            owner: terms.iter().map(|t| vec![t.1; t.0.blocks.len()]).collect(),
            patterns: terms.iter().map(|t| t.2.clone()).collect(),
            terms: terms.into_iter().map(|t| t.0).collect(),
            data: Data { y, ..Data::default() },
            weights: None,
        }
    }
}

/// Legal responses of every kind of support: the first that a family allows is taken.
fn responses(n: usize) -> Vec<Vec<f64>> {
    let mut d = Draw(11);
    let mut make = |f: &dyn Fn(f64) -> f64| (0..n).map(|_| f(d.next())).collect::<Vec<f64>>();
    vec![
        make(&|u| 3.0 * (u - 0.4)),
        make(&|u| 0.2 + 3.0 * u * u),
        make(&|u| (5.0 * u * u).floor()),
        make(&|u| (4.0 * u).floor()),
        make(&|u| 0.05 + 0.9 * u),
        make(&|u| (u > 0.4) as u8 as f64),
    ]
}

const REAL: usize = 0;
const COUNT: usize = 2;
const BINARY: usize = 5;

/// Largest error of the gradient against central differences, relative to 1 + |gradient|.
fn gradient_error(what: &str, model: &mut Glmm, rows: &GlmmRows<'_>, beta: &[f64], theta: &[f64]) -> f64 {
    let exact = model.evaluate(rows, beta, theta).expect(what).gradient;
    let mut worst = 0.0f64;
    for j in 0..beta.len() + theta.len() {
        let at = |model: &mut Glmm, s: f64| {
            let (mut b, mut t) = (beta.to_vec(), theta.to_vec());
            if j < b.len() {
                b[j] += s;
            } else {
                t[j - b.len()] += s;
            }
            model.evaluate(rows, &b, &t).expect(what).loglik
        };
        let h = 1e-4;
        let near = at(model, h) - at(model, -h);
        let far = at(model, 2.0 * h) - at(model, -2.0 * h);
        let numeric = (8.0 * near - far) / (12.0 * h);
        worst = worst.max((numeric - exact[j]).abs() / (1.0 + exact[j].abs()));
    }
    worst
}

/// Largest error of the Hessian against differences of the gradient, in terms of its diagonal; `theta` is internal, latent
/// coefficients are left out.
fn hessian_error(what: &str, model: &mut Glmm, rows: &GlmmRows<'_>, beta: &[f64], theta: &[f64]) -> f64 {
    let beta = &model.engine.plan.internal_beta(beta);
    let exact = model.derivatives(rows, beta, theta).expect(what).1.expect(what);
    let (p, q) = (beta.len(), beta.len() + theta.len());
    let outer: Vec<usize> = (0..q).filter(|j| !model.engine.latent.contains(j)).collect();
    let mut worst = 0.0f64;
    for &j in &outer {
        let mut at = |s: f64| {
            let (mut b, mut t) = (beta.to_vec(), theta.to_vec());
            *if j < p { &mut b[j] } else { &mut t[j - p] } += s;
            model.derivatives(rows, &b, &t).expect(what).0
        };
        let h = 2e-3;
        let sides = [at(h), at(-h), at(2.0 * h), at(-2.0 * h)];
        for &i in &outer {
            let numeric = (8.0 * (sides[0][i] - sides[1][i]) - sides[2][i] + sides[3][i]) / (12.0 * h);
            let size = (exact[i * (q + 1)] * exact[j * (q + 1)]).abs().sqrt();
            worst = worst.max((exact[i + j * q] - numeric).abs() / (1.0 + size));
        }
    }
    worst
}

/// Differences of fourth order with this step are good to about 1e-8 where the likelihood bends as usual, and worse by a
/// few powers of ten where a density is nearly singular.
const HESSIAN: f64 = 2e-6;

fn family(name: &str, zero_inflation: bool) -> Family {
    Family::new(&Spec { name: name.into(), zero_inflation, ..Spec::default() }).unwrap()
}

#[test]
fn gradient_of_every_family_with_random_effects_in_every_predictor() {
    let c = columns(120);
    let all = responses(c.n);
    let mut seen = 0;
    for entry in table().iter().filter(|e| e.name != "cumulative") {
        let f = Family::new(&Spec { name: entry.name.into(), categories: 4, ..Spec::default() }).unwrap();
        let k = f.parameters();
        let wide = matches!(entry.support, Legal::Category | Legal::Label);
        let legal = if wide { &all[..4] } else { &all };
        let Some(y) = legal.iter().rev().find(|y| f.check(&Data { y, ..Data::default() }).is_ok()) else {
            panic!("no response for {}", entry.name);
        };
        let terms = vec![
            (c.term(&c.g, 12, Structure::Unstructured, vec![c.one(), c.slope()]), 0, None),
            (c.term(&c.h, 5, Structure::Diagonal, vec![c.one()]), 0, None),
            (c.term(&c.g, 12, Structure::Diagonal, vec![c.one()]), k - 1, None),
        ];
        let rows = c.rows(k, terms, y);
        let start = f.start(&rows.data, None);
        let mut beta = vec![0.02; rows.p];
        beta[0] = start[0];
        (1..k).for_each(|j| beta[j + 1] = start[j].clamp(-1.0, 1.5));
        // Identity and inverse links leave the support when the predictor moves far.
        let scale = if f.can_leave() { 0.1 } else { 1.0 };
        let theta: Vec<f64> = [0.3, 0.05, 0.2, 0.25, 0.15].iter().map(|t| t * scale).collect();
        if entry.name == "ordered_beta" {
            // Cutpoints far enough apart for random effects to leave them in order.
            (beta[3], beta[4]) = (-1.5, 1.5);
        }
        let mut model = Glmm::new(&rows, f).unwrap();
        let error = gradient_error(entry.name, &mut model, &rows, &beta, &theta);
        assert!(error < 1e-6, "{}: {error:.2e}", entry.name);
        let error = hessian_error(entry.name, &mut model, &rows, &beta, &theta);
        assert!(error < HESSIAN, "Hessian of {}: {error:.2e}", entry.name);
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} families were tried");
}

#[test]
fn gradient_of_every_structure() {
    let c = columns(120);
    let y = &responses(c.n)[COUNT];
    let points: Vec<Vec<f64>> = [0.0, 1.0, 1.7, 3.0].iter().map(|&t| vec![t]).collect();
    let mut matrix = vec![0.3; 16];
    (0..4).for_each(|i| matrix[5 * i] = 1.2);
    for kind in ranef_core::structure::Kind::ALL {
        let pattern = Pattern::new(kind.name(), 4, &points, matrix.clone()).unwrap();
        let theta = (0..pattern.parameters()).map(|i| -0.5 + 0.1 * i as f64);
        let all: Vec<f64> = [0.4].into_iter().chain(theta).collect();
        let terms = vec![
            (c.term(&c.g, 12, Structure::Patterned, vec![c.times()]), 0, Some(pattern)),
            (c.term(&c.h, 5, Structure::Unstructured, vec![c.one()]), 0, None),
        ];
        let rows = c.rows(1, terms, y);
        let mut model = Glmm::new(&rows, family("poisson", false)).unwrap();
        let error = gradient_error("", &mut model, &rows, &[0.3, 0.2], &all);
        assert!(error < 1e-6, "{}: {error:.2e}", kind.name());
        let error = hessian_error("", &mut model, &rows, &[0.3, 0.2], &all);
        assert!(error < HESSIAN, "Hessian of {}: {error:.2e}", kind.name());
    }
}

/// Related levels: the precision of a chain with one branch, two columns, beside a crossed and a related intercept.
#[test]
fn gradient_with_related_levels() {
    let c = columns(180);
    let all = responses(c.n);
    let relation = |q: usize| {
        let (mut diag, mut start, mut level, mut value) = (vec![], vec![0u32], vec![], vec![]);
        for l in 0..q {
            diag.push(1.5 + 0.1 * l as f64);
            if l + 1 < q {
                level.push(l as u32 + 1);
                value.push(-0.6);
            }
            if l == 0 {
                level.push(q as u32 - 1);
                value.push(0.3);
            }
            start.push(level.len() as u32);
        }
        (diag, start, level, value)
    };
    let (g, h) = (relation(12), relation(5));
    fn view(r: &(Vec<f64>, Vec<u32>, Vec<u32>, Vec<f64>)) -> Option<Relation<'_>> {
        Some(Relation { diag: &r.0, start: &r.1, level: &r.2, value: &r.3 })
    }
    let mut first = c.term(&c.g, 12, Structure::Unstructured, vec![c.one(), c.slope()]);
    let mut second = c.term(&c.h, 5, Structure::Unstructured, vec![c.one()]);
    (first.relation, second.relation) = (view(&g), view(&h));
    let third = c.term(&c.g, 12, Structure::Unstructured, vec![c.one()]);
    let rows = c.rows(2, vec![(first, 0, None), (second, 0, None), (third, 1, None)], &all[COUNT]);
    let theta = [0.4, 0.1, 0.3, 0.5, 0.2];
    for method in [Method::Quadrature(1), Method::Restricted] {
        let mut model = Glmm::new(&rows, family("nbinom2", false)).unwrap();
        model.engine.set_method(method).unwrap();
        let error = gradient_error("related", &mut model, &rows, &[0.3, 0.1, 0.2], &theta);
        assert!(error < 1e-6, "{method:?}: {error:.2e}");
        let error = hessian_error("related", &mut model, &rows, &[0.3, 0.1, 0.2], &theta);
        assert!(error < HESSIAN, "related, Hessian, {method:?}: {error:.2e}");
    }
    assert!(Glmm::new(&rows, family("nbinom2", false)).unwrap().engine.set_method(Method::Quadrature(3)).is_err());
}

/// One term with columns in two predictors, and loadings under restricted likelihood beside a plain term.
#[test]
fn gradient_of_joint_terms_and_of_loadings() {
    let c = columns(180);
    let all = responses(c.n);
    let mut term = c.term(&c.g, 12, Structure::Unstructured, vec![c.one(), c.slope(), c.one()]);
    term.joint = true;
    let mut rows = c.rows(2, vec![(term, 0, None)], &all[COUNT]);
    rows.owner = vec![vec![0, 1, 1]];
    let theta = [0.4, 0.1, 0.2, 0.3, -0.1, 0.25];
    for points in [1, 2] {
        let mut model = Glmm::new(&rows, family("nbinom2", false)).unwrap();
        model.engine.set_method(Method::Quadrature(points)).unwrap();
        let error = gradient_error("joint", &mut model, &rows, &[0.3, 0.1, 0.2], &theta);
        assert!(error < 1e-6, "{points} nodes: {error:.2e}");
        if points == 1 {
            let error = hessian_error("joint", &mut model, &rows, &[0.3, 0.1, 0.2], &theta);
            assert!(error < HESSIAN, "joint, Hessian: {error:.2e}");
        }
    }
    let pattern = Pattern::new("rr", 4, &[], vec![]).unwrap();
    let terms = vec![
        (c.term(&c.g, 12, Structure::Patterned, vec![c.times()]), 0, Some(pattern)),
        (c.term(&c.g, 12, Structure::Unstructured, vec![c.one()]), 1, None),
        (c.term(&c.h, 5, Structure::Unstructured, vec![c.one()]), 0, None),
    ];
    let rows = c.rows(2, terms, &all[COUNT]);
    let theta = [0.3, 0.2, 0.5, -0.2, 0.4, -0.3, 0.1, 0.4, 0.2];
    for method in [Method::Restricted, Method::Quadrature(1)] {
        let mut model = Glmm::new(&rows, family("nbinom2", false)).unwrap();
        model.engine.set_method(method).unwrap();
        let error = gradient_error("loadings", &mut model, &rows, &[0.3, 0.1, 0.2], &theta);
        assert!(error < 1e-6, "{method:?}: {error:.2e}");
        let error = hessian_error("loadings", &mut model, &rows, &[0.3, 0.1, 0.2], &theta);
        assert!(error < HESSIAN, "loadings, Hessian, {method:?}: {error:.2e}");
    }
}

fn simple<'a>(c: &'a Columns, y: &'a [f64], k: usize, slope: bool) -> GlmmRows<'a> {
    let blocks = if slope { vec![c.one(), c.slope()] } else { vec![c.one()] };
    c.rows(k, vec![(c.term(&c.g, 12, Structure::Unstructured, blocks), 0, None)], y)
}

#[test]
fn gradient_with_zero_inflation_quadrature_and_restriction() {
    let c = columns(180);
    let y = &responses(c.n)[COUNT];
    let rows = simple(&c, y, 3, true);
    let beta = [0.3, 0.1, 0.2, -1.0];
    for points in [1, 3, 4] {
        let mut model = Glmm::new(&rows, family("nbinom2", true)).unwrap();
        model.engine.set_method(Method::Quadrature(points)).unwrap();
        let error = gradient_error("", &mut model, &rows, &beta, &[0.5, 0.1, 0.3]);
        assert!(error < 1e-6, "{points} nodes: {error:.2e}");
        if points == 1 {
            let error = hessian_error("", &mut model, &rows, &beta, &[0.5, 0.1, 0.3]);
            assert!(error < HESSIAN, "zero inflation, Hessian: {error:.2e}");
        }
    }
    // Latent coefficients are found inside: only those of the other predictors and the covariances have a gradient.
    let mut model = Glmm::new(&rows, family("nbinom2", true)).unwrap();
    model.engine.set_method(Method::Restricted).unwrap();
    let error = gradient_error("", &mut model, &rows, &beta, &[0.5, 0.1, 0.3]);
    assert!(error < 1e-6, "restricted: {error:.2e}");
    let error = hessian_error("", &mut model, &rows, &beta, &[0.5, 0.1, 0.3]);
    assert!(error < HESSIAN, "restricted, Hessian: {error:.2e}");
    let joint = model.engine.set_method(Method::Joint);
    assert!(joint.is_ok() && hessian_error("", &mut model, &rows, &beta, &[0.5, 0.1, 0.3]) < HESSIAN);
}

fn fit(rows: &GlmmRows<'_>, f: Family, method: Method) -> (ranef_core::glmm::GlmmReport, Glmm) {
    let mut model = Glmm::new(rows, f).unwrap();
    let report = model.fit(rows, &Start::default(), method, &Options::default()).unwrap();
    (report, model)
}

/// 24 rows in each of 6 top groups, 3 middle groups in each, 2 inner groups in those.
fn nested_codes(n: usize) -> [Vec<i32>; 3] {
    let inner: Vec<i32> = (0..n).map(|i| ((i * 7) % 36) as i32).collect();
    [inner.clone(), inner.iter().map(|c| c / 2).collect(), inner.iter().map(|c| c / 6).collect()]
}

#[test]
fn gradient_of_nested_quadrature() {
    let c = columns(180);
    let [inner, middle, top] = nested_codes(c.n);
    let y = &responses(c.n)[COUNT];
    let two = || vec![c.one(), c.slope()];
    let terms = vec![
        (c.term(&middle, 18, Structure::Unstructured, vec![c.one()]), 0, None),
        (c.term(&top, 6, Structure::Unstructured, two()), 0, None),
        (c.term(&inner, 36, Structure::Diagonal, two()), 0, None),
        (c.term(&top, 6, Structure::Diagonal, vec![c.one()]), 1, None),
    ];
    let rows = c.rows(2, terms, y);
    let (beta, theta) = ([0.3, 0.1, 0.2], [0.4, 0.5, 0.1, 0.3, 0.3, 0.2, 0.25]);
    let mut plain = Glmm::new(&rows, family("nbinom2", false)).unwrap();
    let laplace = plain.evaluate(&rows, &beta, &theta).unwrap();
    for (points, weights) in [(1, false), (2, false), (2, true), (1, true)] {
        let mut model = Glmm::new(&rows, family("nbinom2", false)).unwrap();
        let count = |n: usize| (0..n).map(|l| if weights { 0.5 + 0.3 * (l % 5) as f64 } else { 1.0 }).collect();
        let (tops, middles): (Vec<f64>, Vec<f64>) = (count(6), count(18));
        model.set_level_weights(1, &tops).unwrap();
        model.set_level_weights(0, &middles).unwrap();
        model.engine.set_method(Method::Quadrature(points)).unwrap();
        let error = gradient_error("", &mut model, &rows, &beta, &theta);
        assert!(error < 1e-6, "{points} nodes, weights {weights}: {error:.2e}");
        let found = model.evaluate(&rows, &beta, &theta).unwrap();
        if points == 1 && !weights {
            assert!((found.loglik - laplace.loglik).abs() < 1e-9, "{} {}", found.loglik, laplace.loglik);
            let apart = found.gradient.iter().zip(&laplace.gradient).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-8, "{apart:.2e}");
        }
        model.adopt(&rows, &beta, &theta, Method::Quadrature(points)).unwrap();
        let cluster: Vec<u32> = top.iter().map(|t| *t as u32).collect();
        let scores = model.scores(&rows, &cluster, 6).unwrap();
        for (j, g) in found.gradient.iter().enumerate() {
            let sum: f64 = scores.iter().skip(j).step_by(found.gradient.len()).sum();
            assert!((sum - g).abs() < 1e-8 * (1.0 + g.abs()), "score {j}: {sum} {g}");
        }
        let same = model.with_nodes(&rows, points).unwrap();
        assert!((same.loglik - found.loglik).abs() < 1e-9);
        assert_eq!(same.groups.len(), 6);
    }
}

#[test]
fn crossed_factors_have_no_quadrature() {
    let c = columns(180);
    let y = &responses(c.n)[COUNT];
    let terms = vec![
        (c.term(&c.g, 12, Structure::Diagonal, vec![c.one()]), 0, None),
        (c.term(&c.h, 5, Structure::Diagonal, vec![c.one()]), 0, None),
    ];
    let rows = c.rows(1, terms, y);
    let mut model = Glmm::new(&rows, family("poisson", false)).unwrap();
    let error = model.engine.set_method(Method::Quadrature(3)).unwrap_err().to_string();
    assert!(error.contains("crossed"), "{error}");
}

#[test]
fn quadrature_settles() {
    let c = columns(180);
    let y = &responses(c.n)[BINARY];
    let rows = simple(&c, y, 1, false);
    let at = |points| fit(&rows, family("binomial", false), Method::Quadrature(points)).0.loglik;
    let (fine, finer) = (at(25), at(41));
    assert!((fine - finer).abs() < 1e-9, "{fine} {finer}");
    assert!((at(1) - fine).abs() < 0.5);
}

#[test]
fn gaussian_is_the_linear_mixed_model() {
    let c = columns(180);
    let y = &responses(c.n)[REAL];
    let rows = simple(&c, y, 2, true);
    let linear = ranef_core::design::Rows {
        n: c.n,
        fixed: vec![c.one(), c.slope()],
        terms: rows.terms.clone(),
        y,
        weights: None,
        offset: None,
    };
    for (method, reml) in [(Method::Quadrature(1), false), (Method::Restricted, true)] {
        let (found, _) = fit(&rows, family("gaussian", false), method);
        let mut lmm = ranef_core::fit::Model::new(&linear).unwrap();
        let exact = lmm.fit(reml, None, &Options::default()).unwrap();
        assert!((found.loglik + 0.5 * exact.criterion).abs() < 1e-7, "{method:?}: {}", found.loglik);
        assert!((found.beta[0] - exact.beta[0]).abs() < 1e-5 && (found.beta[1] - exact.beta[1]).abs() < 1e-5);
    }
}

#[test]
fn binomial_rows_may_be_split_and_reversed() {
    let c = columns(120);
    let trials: Vec<f64> = (0..c.n).map(|i| 1.0 + (i % 4) as f64).collect();
    let hits: Vec<f64> = (0..c.n).map(|i| ((i * 7 + i / 12) % (2 + i % 4)) as f64).collect();
    let y: Vec<f64> = hits.iter().zip(&trials).map(|(h, t)| h / t).collect();
    let mut rows = simple(&c, &y, 1, false);
    rows.data.trials = Some(&trials);
    let (whole, _) = fit(&rows, family("binomial", false), Method::Quadrature(1));
    let (mut x, mut g, mut one) = (vec![], vec![], vec![]);
    for i in (0..c.n).rev() {
        for t in 0..trials[i] as usize {
            x.push(c.x[i]);
            g.push(c.g[i]);
            one.push(((t as f64) < hits[i]) as u8 as f64);
        }
    }
    let n = x.len();
    let split = Columns { n, x, g, h: vec![0; n], time: vec![0; n], eye: c.eye.clone() };
    let rows = simple(&split, &one, 1, false);
    let (parts, _) = fit(&rows, family("binomial", false), Method::Quadrature(1));
    assert!((whole.beta[0] - parts.beta[0]).abs() < 1e-5, "{:?} {:?}", whole.beta, parts.beta);
    assert!((whole.theta[0] - parts.theta[0]).abs() < 1e-5);
}

#[test]
fn zero_variance_is_the_plain_model() {
    let c = columns(120);
    // The same responses in every group: nothing varies between them.
    let y: Vec<f64> = (0..c.n).map(|i| ((i / 12) % 3) as f64).collect();
    let mixed_rows = c.rows(1, vec![(c.term(&c.g, 12, Structure::Unstructured, vec![c.one()]), 0, None)], &y);
    let plain_rows = c.rows(1, vec![], &y);
    let (mixed, mut m) = fit(&mixed_rows, family("poisson", false), Method::Quadrature(1));
    let (plain, mut p) = fit(&plain_rows, family("poisson", false), Method::Quadrature(1));
    assert_eq!(mixed.theta, vec![0.0]);
    assert_eq!(mixed.boundary.len(), 1);
    assert!((mixed.loglik - plain.loglik).abs() < 1e-8);
    assert!((mixed.beta[1] - plain.beta[1]).abs() < 1e-6);
    let (v, w) = (m.vcov(&mixed_rows).unwrap(), p.vcov(&plain_rows).unwrap());
    assert!((v[0] - w[0]).abs() < 1e-6 * w[0], "{} {}", v[0], w[0]);
}

#[test]
fn a_search_that_was_asked_to_stop_stops() {
    let c = columns(180);
    let y = &responses(c.n)[COUNT];
    let rows = simple(&c, y, 1, false);
    let options = Options::default();
    options.stop.request();
    let mut model = Glmm::new(&rows, family("poisson", false)).unwrap();
    let stopped = model.fit(&rows, &Start::default(), Method::Quadrature(1), &options);
    assert_eq!(stopped.err(), Some(ranef_core::CoreError::Interrupted));
    assert!(model.predictors(&rows).is_err());
}

/// Few rows are kept with the model, many are read anew by every pass: a design, and the same one many times over.
#[test]
fn equal_rows_count_as_weights_however_many() {
    let (few, times) = (columns(600), 100);
    let many = Columns {
        n: few.n * times,
        x: few.x.repeat(times),
        g: few.g.repeat(times),
        h: few.h.repeat(times),
        time: few.time.repeat(times),
        eye: few.eye.clone(),
    };
    let y = responses(few.n)[BINARY].clone();
    let (all, weights) = (y.repeat(times), vec![times as f64; few.n]);
    fn evaluation(c: &Columns, y: &[f64], weights: Option<&[f64]>) -> (f64, Vec<f64>) {
        let terms = vec![
            (c.term(&c.g, 12, Structure::Unstructured, vec![c.one(), c.slope()]), 0, None),
            (c.term(&c.h, 5, Structure::Diagonal, vec![c.one()]), 0, None),
        ];
        let rows = GlmmRows { weights, ..c.rows(1, terms, y) };
        let mut model = Glmm::new(&rows, family("binomial", false)).unwrap();
        let found = model.evaluate(&rows, &[0.3, -0.2], &[0.3, 0.05, 0.2, 0.25]).unwrap();
        (found.loglik, found.gradient)
    }
    let (a, b) = (evaluation(&few, &y, Some(&weights)), evaluation(&many, &all, None));
    // Sums of 60,000 rows in another order.
    assert!((a.0 - b.0).abs() < 1e-11 * a.0.abs(), "{} {}", a.0, b.0);
    for (a, b) in a.1.iter().zip(&b.1) {
        assert!((a - b).abs() < 1e-8 * (1.0 + a.abs()), "{a} {b}");
    }
}

/// Where a search begins is found from kinds of rows: offsets that are all different leave none.
#[test]
fn kinds_of_rows_are_the_rows() {
    let c = columns(240);
    let all = responses(c.n);
    let (weights, trials): (Vec<f64>, Vec<f64>) = (0..c.n).map(|i| (1.0 + (i % 2) as f64, 4.0)).unzip();
    let part: Vec<f64> = all[COUNT].iter().map(|y| y / 4.0).collect();
    let censor: Vec<i8> = all[COUNT].iter().enumerate().map(|(i, y)| (*y > 1.0 && i % 2 == 0) as i8).collect();
    let plain = Data::default();
    let cases = [
        ("poisson", true, &all[COUNT], plain),
        ("nbinom2", true, &all[COUNT], plain),
        ("compois", false, &all[COUNT], plain),
        ("poisson", false, &all[COUNT], Data { censor: Some(&censor), ..plain }),
        ("binomial", false, &part, Data { trials: Some(&trials), ..plain }),
    ];
    for (name, inflated, y, data) in cases {
        let k = family(name, inflated).parameters();
        let start = |offset: &[f64], weights: Option<&[f64]>| {
            let (mut components, p) = c.components(k);
            components[0].fixed[1].block = Block { contrast: &c.eye[4..], cols: 3, ..c.times() };
            components[0].offset = Some(offset);
            components[1..].iter_mut().for_each(|c| c.fixed[0].first += 2);
            let rows = simple(&c, y, k, false);
            let rows = GlmmRows { components, p: p + 2, data: Data { y, ..data }, weights, ..rows };
            let mut model = Glmm::new(&rows, family(name, inflated)).unwrap();
            model.engine.start_beta(&rows, &vec![0.1; p + 2], false).0
        };
        let (few, many): (Vec<f64>, Vec<f64>) =
            (0..c.n).map(|i| (0.1 * (i % 2) as f64, 0.1 * (i % 2) as f64 + 1e-13 * i as f64)).unzip();
        for weights in [None, Some(&weights[..])] {
            // The steps are those of Newton's method from the same sums: rounding errors apart they are the same.
            for (a, b) in start(&few, weights).iter().zip(&start(&many, weights)) {
                assert!((a - b).abs() < 1e-8 * (1.0 + b.abs()), "{name}: {a} {b}");
            }
        }
    }
}

/// The last steps of a search take predicted modes for the modes, and the first one may begin where rows would go.
#[test]
fn what_a_search_reports_is_the_criterion_there() {
    let c = columns(240);
    let y: Vec<f64> = responses(c.n)[COUNT].iter().enumerate().map(|(i, y)| y * (1 + i % 7) as f64).collect();
    let own: Vec<i32> = (0..c.n as i32).collect();
    for slope in [false, true] {
        let blocks = if slope { vec![c.one(), c.slope()] } else { vec![c.one()] };
        let mut terms = vec![(c.term(&c.g, 12, Structure::Unstructured, blocks), 0, None)];
        if !slope {
            terms.push((c.term(&own, c.n, Structure::Unstructured, vec![c.one()]), 0, None));
        }
        let rows = c.rows(1, terms, &y);
        let (report, mut model) = fit(&rows, family("poisson", false), Method::Quadrature(1));
        assert!(report.inner > 0 && report.theta.iter().any(|t| *t > 0.1), "{:?}", report.theta);
        let there = model.evaluate(&rows, &report.beta, &report.theta).unwrap();
        assert!((there.loglik - report.loglik).abs() < 1e-9, "{} {}", there.loglik, report.loglik);
        // The certificate is a change of the deviance of 1e-9: gradients of the order of its root.
        for (a, b) in there.gradient.iter().zip(&report.gradient) {
            assert!((a - 0.5 * b).abs() < 1e-4 || (a + 0.5 * b).abs() < 1e-4, "{a} {b}");
        }
    }
}
