//! The exact gradient beside difference quotients of the criterion, and the optimum beside its neighbourhood.

mod common;

use common::{Data, Random};
use ranef_core::design::Structure;
use ranef_core::fit::Model;
use ranef_core::optimise::{Options, Outcome};

fn models() -> Vec<Model> {
    let data = Data::new(150, (9, 7), 1);
    [(Structure::Unstructured, true), (Structure::Diagonal, true), (Structure::Unstructured, false)]
        .into_iter()
        .map(|(s, slope)| Model::new(&data.rows(s, slope, false)).expect("a legal design"))
        .collect()
}

#[test]
fn gradient_is_a_difference_quotient() {
    let mut r = Random::new(2);
    for mut model in models() {
        for reml in [true, false] {
            let theta: Vec<f64> = (0..model.theta_len()).map(|_| 0.3 + r.next()).collect();
            let gradient = model.evaluate(&theta, reml).expect("finite").gradient;
            for i in 0..theta.len() {
                // Error of the quotient: h^2 times the third derivative, and rounding 1e-13 / h; both below 1e-7.
                let h = 1e-5;
                let mut at = |sign: f64| {
                    let mut t = theta.clone();
                    t[i] += sign * h;
                    model.evaluate(&t, reml).expect("finite").criterion
                };
                let quotient = (at(1.0) - at(-1.0)) / (2.0 * h);
                assert!((gradient[i] - quotient).abs() < 1e-6 * (1.0 + quotient.abs()), "{} {}", gradient[i], quotient);
            }
        }
    }
}

#[test]
fn no_neighbour_is_lower_than_the_optimum() {
    let mut r = Random::new(3);
    for mut model in models() {
        for reml in [true, false] {
            let found = model.fit(reml, None, &Options::default()).expect("a fit");
            assert_eq!(found.outcome, Outcome::Converged);
            assert!(found.curvature > 0.0 && found.decrease < 1e-7 && found.evaluations <= 8);
            for size in [1e-3, 1e-2, 1e-1] {
                for _ in 0..20 {
                    let near: Vec<f64> = found.theta.iter().map(|t| t + size * r.normal()).collect();
                    let there = model.evaluate(&near, reml).expect("finite").criterion;
                    assert!(there > found.criterion - 1e-9);
                }
            }
        }
    }
}
