//! One model written in different ways, or worked on by different numbers of threads, has one answer.

mod common;

use common::Data;
use ranef_core::design::Structure;
use ranef_core::fit::{Model, Report};
use ranef_core::optimise::Options;

fn fit(data: &Data, swap: bool) -> Report {
    let rows = data.rows(Structure::Unstructured, true, swap);
    let mut model = Model::new(&rows).expect("a legal design");
    model.fit(true, None, &Options::default()).expect("a fit")
}

/// Optima agree to the square root of the criterion's tolerance of 1e-9, times a condition of some units.
fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < 2e-4 * (1.0 + b.abs()), "{a} {b}");
    }
}

#[test]
fn threads_do_not_matter_at_all() {
    let data = Data::new(20_000, (2_000, 60), 4);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| fit(&data, false))
    };
    let (one, four) = (with(1), with(4));
    assert_eq!(one.theta, four.theta);
    assert_eq!(one.criterion, four.criterion);
    assert_eq!(one.beta, four.beta);
}

#[test]
fn order_of_rows_does_not_matter() {
    let data = Data::new(300, (20, 11), 5);
    let turn = |v: &[f64]| v.iter().rev().copied().collect::<Vec<_>>();
    let codes = |v: &[i32]| v.iter().rev().copied().collect::<Vec<_>>();
    let reversed =
        Data { x: turn(&data.x), y: turn(&data.y), g: codes(&data.g), h: codes(&data.h), levels: data.levels };
    let (a, b) = (fit(&data, false), fit(&reversed, false));
    assert!((a.criterion - b.criterion).abs() < 1e-8);
    assert_close(&a.theta, &b.theta);
    assert_close(&a.beta, &b.beta);
}

#[test]
fn order_of_terms_does_not_matter() {
    let data = Data::new(300, (20, 11), 6);
    let (a, b) = (fit(&data, false), fit(&data, true));
    assert!((a.criterion - b.criterion).abs() < 1e-8);
    assert_close(&a.theta[..3], &b.theta[1..]);
    assert_close(&a.theta[3..], &b.theta[..1]);
}

#[test]
fn names_of_levels_do_not_matter() {
    let data = Data::new(300, (20, 11), 7);
    let renamed = Data {
        x: data.x.clone(),
        y: data.y.clone(),
        g: data.g.iter().map(|g| (7 * g + 3) % 20).collect(),
        h: data.h.iter().map(|h| 10 - h).collect(),
        levels: data.levels,
    };
    let (a, b) = (fit(&data, false), fit(&renamed, false));
    assert!((a.criterion - b.criterion).abs() < 1e-8);
    assert_close(&a.theta, &b.theta);
}

#[test]
fn units_do_not_matter() {
    let data = Data::new(300, (20, 11), 8);
    let scaled = Data {
        x: data.x.iter().map(|x| 1e-4 * x + 3.0).collect(),
        y: data.y.iter().map(|y| 1e5 * y - 7.0).collect(),
        g: data.g.clone(),
        h: data.h.clone(),
        levels: data.levels,
    };
    let (a, b) = (fit(&data, false), fit(&scaled, false));
    assert_eq!(a.evaluations, b.evaluations);
    assert!((b.sigma / a.sigma - 1e5).abs() < 1.0);
    // The slope per unit of x, and its standard deviation.
    assert_close(&[b.beta[1] / 1e9], &[a.beta[1]]);
    assert_close(&[(b.theta[1].powi(2) + b.theta[2].powi(2)).sqrt() / 1e4], &[a.theta[1].hypot(a.theta[2])]);
}
