//! Every family x link x component: derivatives against difference quotients, closed forms against jets.

use super::*;

/// One case: a family with data that it likes.
struct Case {
    spec: Spec,
    y: Vec<f64>,
    trials: Option<Vec<f64>>,
}

fn responses(support: Legal) -> (Vec<f64>, Option<Vec<f64>>) {
    match support {
        Legal::Real => (vec![-1.3, 0.2, 2.7, 0.9], None),
        Legal::Positive => (vec![0.3, 1.1, 2.7, 6.0], None),
        Legal::NonNegative => (vec![0.0, 0.4, 1.7, 9.0], None),
        Legal::Count => (vec![0.0, 1.0, 3.0, 12.0], None),
        Legal::Proportion => (vec![0.0, 0.25, 0.5, 1.0], Some(vec![3.0, 8.0, 12.0, 1.0])),
        Legal::OpenUnit => (vec![0.05, 0.3, 0.5, 0.93], None),
        Legal::ClosedUnit => (vec![0.0, 0.3, 0.8, 1.0], None),
        Legal::Category | Legal::Label => (vec![0.0, 1.0, 2.0, 3.0], None),
    }
}

/// A few legal linear predictors of a parameter.
fn predictors(name: &str, range: Range, link: Link) -> Vec<f64> {
    let natural: &[f64] = match (name, range) {
        ("upper", _) => return vec![0.9, 1.4],
        ("lower", _) => return vec![-1.1, -0.2],
        ("threshold", _) => return vec![-0.9, 0.6],
        (_, Range::Real) => &[0.4, 1.7],
        (_, Range::Positive) => &[0.8, 2.3],
        (_, Range::Unit) => &[0.2, 0.6],
        (_, Range::Power) => &[0.35, 0.7],
    };
    let legal = |m: f64| if range == Range::Real && link.is_distribution() { (m - 0.1) / 2.0 } else { m };
    natural.iter().map(|&m| link.apply(legal(m))).collect()
}

fn parameters(spec: &Spec) -> Vec<(&'static str, Range, Link)> {
    let f = Family::new(spec).unwrap();
    let find = |n: &str| f.entry().parameters.iter().find(|p| p.name == n).map_or(Range::Unit, |p| p.range);
    f.names().iter().zip(f.links()).map(|(n, l)| (*n, find(n), *l)).collect()
}

/// All families, each parameter's links in turn, with and without modifiers.
fn cases() -> Vec<Case> {
    let mut out = vec![];
    for e in table() {
        let mut specs = vec![];
        let base = Spec { name: e.name.into(), categories: 4, ..Spec::default() };
        for (k, p) in e.parameters.iter().enumerate() {
            for link in e.links(p) {
                let scaled = p.name == SCALE;
                let used = |q: &&Parameter| q.name != SCALE || scaled;
                let mut links: Vec<Link> = e.parameters.iter().map(|p| p.link).collect();
                links[k] = *link;
                let links = e.parameters.iter().zip(links).filter(|(q, _)| used(q)).map(|(_, l)| l).collect();
                specs.push(Spec { links, scaled, ..base.clone() });
                if e.support == Legal::Category && p.name == "mean" {
                    let links = vec![*link];
                    specs.push(Spec { links, scaled: true, ..base.clone() });
                }
            }
        }
        if e.allows_zero_inflation() && e.parameters.len() < 4 {
            specs.push(Spec { zero_inflation: true, ..base.clone() });
        }
        if e.support == Legal::Count {
            specs.push(Spec { truncated: true, ..base.clone() });
            specs.push(Spec { hurdle: true, ..base.clone() });
        }
        for spec in specs {
            let (mut y, trials) = responses(e.support);
            if e.name == "genpois" {
                // Less spread than Poisson ends the support early.
                y[3] = 4.0;
            }
            if spec.truncated {
                y[0] = 2.0;
            }
            if spec.zero_inflation && trials.is_none() {
                y[0] = 0.0;
            }
            out.push(Case { spec, y, trials });
        }
    }
    out
}

fn evaluate(f: &Family, data: &Data<'_>, eta: &[f64], order: usize) -> Vec<f64> {
    let n = data.y.len();
    let mut out = vec![0.0; n * f.stride(order)];
    f.evaluate(data, 0, eta, order, &mut out);
    out
}

/// Where derivative (a, b, ..) is stored in a row.
fn position(k: usize, index: &[usize]) -> usize {
    let mut at = 1;
    match index.len() {
        1 => at + index[0],
        2 => {
            at += k;
            for a in 0..k {
                for b in a..k {
                    if [a, b] == index {
                        return at;
                    }
                    at += 1;
                }
            }
            at
        }
        _ => {
            at += k + k * (k + 1) / 2;
            for a in 0..k {
                for b in a..k {
                    for c in b..k {
                        if [a, b, c] == index {
                            return at;
                        }
                        at += 1;
                    }
                }
            }
            at
        }
    }
}

/// Every derivative of each row against the central difference of the next lower order (Richardson-extrapolated).
fn against_differences(label: &str, f: &Family, data: &Data<'_>, eta: &[f64], tol: f64) {
    let (k, n, stride) = (f.parameters(), data.y.len(), f.stride(3));
    let exact = evaluate(f, data, eta, 3);
    let second = evaluate(f, data, eta, 2);
    let zero = evaluate(f, data, eta, 0);
    for i in 0..n {
        assert!(exact[i * stride].is_finite(), "{label}: row {i} log f = {}", exact[i * stride]);
        assert!((exact[i * stride] - zero[i]).abs() < 1e-12 * (1.0 + zero[i].abs()), "{label}: value of row {i}");
        let s2 = f.stride(2);
        for j in 0..s2 {
            let (a, b) = (exact[i * stride + j], second[i * s2 + j]);
            assert!(
                (a - b).abs() <= 1e-13 * (1.0 + a.abs()),
                "{label}: order 2 differs in row {i}, entry {j}: {a} {b}"
            );
        }
    }
    let slopes: Vec<Vec<f64>> = (0..k).map(|c| slopes(f, data, eta, c)).collect();
    for c in 0..k {
        let check = |lower: usize, higher: usize| {
            for i in 0..n {
                let (d, e) = (slopes[c][i * stride + lower], exact[i * stride + higher]);
                let scale = 1.0 + d.abs() + exact[i * stride + lower].abs();
                assert!((d - e).abs() < tol * scale, "{label}: row {i}, d{lower}/d{c}: {d} but {e}");
            }
        };
        check(0, position(k, &[c]));
        for a in 0..k {
            let mut ac = [a, c];
            ac.sort();
            check(position(k, &[a]), position(k, &ac));
            for b in a..k {
                let mut abc = [a, b, c];
                abc.sort();
                check(position(k, &[a, b]), position(k, &abc));
            }
        }
    }
    if f.wide.is_none() {
        fourth_against_slopes(label, f, data, eta, &slopes, tol);
    }
}

/// Slopes of all derivatives up to the third in one predictor.
fn slopes(f: &Family, data: &Data<'_>, eta: &[f64], of: usize) -> Vec<f64> {
    let (h, k) = (1e-3, f.parameters());
    let at = |step: f64| {
        let mut e = eta.to_vec();
        e.iter_mut().skip(of).step_by(k).for_each(|e| *e += step);
        evaluate(f, data, &e, 3)
    };
    let (p1, m1, p2, m2) = (at(h), at(-h), at(2.0 * h), at(-2.0 * h));
    (0..p1.len()).map(|j| (8.0 * (p1[j] - m1[j]) - (p2[j] - m2[j])) / (12.0 * h)).collect()
}

/// Contractions of the fourth derivatives with some matrix in each row against those of the third derivatives' slopes,
/// which are as exact as those of lower ones.
fn fourth_against_slopes(label: &str, f: &Family, data: &Data<'_>, eta: &[f64], slopes: &[Vec<f64>], tol: f64) {
    let (k, n, stride) = (f.parameters(), data.y.len(), f.stride(3));
    let squares = some_squares(n, k);
    let mut own = vec![f64::NAN; n * k * (k + 1) / 2];
    f.fourth(data, 0, eta, &squares, &mut own);
    for i in 0..n {
        for a in 0..k {
            for b in a..k {
                let (mut sum, mut size) = (0.0, 1.0);
                for (c, d) in (0..k).flat_map(|c| (0..k).map(move |d| (c, d))) {
                    let mut abc = [a, b, c];
                    abc.sort();
                    let term = squares[(i * k + c) * k + d] * slopes[d][i * stride + position(k, &abc)];
                    sum += term;
                    size += term.abs();
                }
                let e = own[i * k * (k + 1) / 2 + crate::jet::pair(k, a, b)];
                assert!((e - sum).abs() < tol * size, "{label}: row {i}, fourth ({a}, {b}): {sum} but {e}");
            }
        }
    }
}

#[test]
fn family_fourth_derivatives_are_finite_where_third_ones_are() {
    for e in table() {
        let spec = Spec { name: e.name.into(), categories: 4, ..Spec::default() };
        let f = Family::new(&spec).unwrap();
        if f.wide.is_some() {
            continue;
        }
        let (mut y, trials) = responses(e.support);
        match e.support {
            Legal::Count | Legal::Positive | Legal::NonNegative => y.extend([300.0, 1e5, 1e9]),
            Legal::Real => y.extend([-1e4, 1e6]),
            _ => {}
        }
        let data = Data { y: &y, trials: trials.as_deref(), ..Data::default() };
        let far = |k: usize| if k == 0 { vec![-25.0, -3.0, 0.5, 6.0, 21.0] } else { vec![-20.0, -4.0, 4.0, 20.0] };
        for point in grid(&(0..f.parameters()).map(far).collect::<Vec<_>>()) {
            let (n, k) = (y.len(), f.parameters());
            let eta: Vec<f64> = y.iter().flat_map(|_| point.clone()).collect();
            let third = evaluate(&f, &data, &eta, 3);
            let mut out = vec![0.0; n * k * (k + 1) / 2];
            f.fourth(&data, 0, &eta, &some_squares(n, k), &mut out);
            let rows = third.chunks_exact(f.stride(3)).zip(out.chunks_exact(k * (k + 1) / 2));
            for (i, (third, out)) in rows.enumerate() {
                let fine = !third.iter().all(|v| v.is_finite()) || out.iter().all(|v| v.is_finite());
                assert!(fine, "{} y = {} at {point:?}: {out:?} but {third:?}", e.name, y[i]);
            }
        }
    }
}

/// A symmetric matrix for every row.
fn some_squares(n: usize, k: usize) -> Vec<f64> {
    let (mut rng, mut out) = (Stream::new(7), vec![0.0; n * k * k]);
    for square in out.chunks_exact_mut(k * k) {
        for c in 0..k {
            for d in 0..=c {
                let s = 2.0 * rng.uniform() - 1.0;
                (square[c * k + d], square[d * k + c]) = (s, s);
            }
        }
    }
    out
}

/// Every combination of the parameters' predictors, all rows alike.
fn grid(sets: &[Vec<f64>]) -> Vec<Vec<f64>> {
    sets.iter().fold(vec![vec![]], |acc, set| {
        acc.iter().flat_map(|head| set.iter().map(move |v| [head.as_slice(), &[*v]].concat())).collect()
    })
}

#[test]
fn family_derivatives_are_difference_quotients() {
    for case in cases() {
        let f = Family::new(&case.spec).unwrap();
        let data = Data { y: &case.y, trials: case.trials.as_deref(), ..Data::default() };
        f.check(&data).unwrap();
        let sets: Vec<Vec<f64>> = parameters(&case.spec).iter().map(|(n, r, l)| predictors(n, *r, *l)).collect();
        for point in grid(&sets) {
            let eta: Vec<f64> = case.y.iter().flat_map(|_| point.clone()).collect();
            let label = format!(
                "{} {:?} zi={} truncated={} at {point:?}",
                case.spec.name, case.spec.links, case.spec.zero_inflation, case.spec.truncated
            );
            against_differences(&label, &f, &data, &eta, 1e-6);
        }
    }
}

#[test]
fn family_censored_rows_and_sampling_errors_have_exact_derivatives() {
    for e in table().iter().filter(|e| !matches!(e.support, Legal::Category | Legal::Label)) {
        let spec = Spec { name: e.name.into(), ..Spec::default() };
        let inflated = Spec { zero_inflation: true, ..spec.clone() };
        let hurdle = Spec { hurdle: true, ..spec.clone() };
        let specs: &[Spec] = match e.support {
            Legal::Count if e.parameters.len() < 4 => &[spec, inflated, hurdle],
            _ => &[spec],
        };
        let (y, upper) = match e.support {
            Legal::Proportion => (vec![0.25; 3], vec![0.75; 3]),
            Legal::OpenUnit | Legal::ClosedUnit => (vec![0.3; 3], vec![0.8; 3]),
            Legal::Count => (vec![2.0; 3], vec![4.0; 3]),
            _ => (vec![1.3; 3], vec![2.9; 3]),
        };
        let trials = e.has_trials().then(|| vec![8.0; 3]);
        let se = (e.support == Legal::Real).then(|| vec![0.0, 0.3, 1.1]);
        let data = Data {
            y: &y,
            trials: trials.as_deref(),
            upper: Some(&upper),
            censor: Some(&[-1, 1, 2]),
            se: se.as_deref(),
            ..Data::default()
        };
        for spec in specs {
            let f = Family::new(spec).unwrap();
            f.check(&data).unwrap();
            let sets: Vec<Vec<f64>> = parameters(spec).iter().map(|(n, r, l)| predictors(n, *r, *l)).collect();
            for point in grid(&sets) {
                let eta: Vec<f64> = y.iter().flat_map(|_| point.clone()).collect();
                let label = format!("censored {} hurdle={} at {point:?}", e.name, spec.hurdle);
                against_differences(&label, &f, &data, &eta, 1e-6);
                against_differences(&label, &f, &Data { censor: None, ..data }, &eta, 1e-6);
            }
        }
    }
}

#[test]
fn family_randomised_responses_have_exact_derivatives() {
    let (y, trials) = responses(Legal::Proportion);
    let (c, d) = ([0.0, 0.2, 0.3, 0.9], [1.0, 0.8, 0.5, -0.8]);
    for link in Range::Unit.links() {
        let f = Family::new(&Spec { name: "binomial".into(), links: vec![*link], ..Spec::default() }).unwrap();
        let data = Data { y: &y, trials: trials.as_deref(), randomised: Some((&c, &d)), ..Data::default() };
        for eta in predictors("mean", Range::Unit, *link) {
            against_differences(&format!("randomised {link:?} {eta}"), &f, &data, &[eta; 4], 1e-6);
        }
        let plain = Data { randomised: None, ..data };
        let direct = Data { randomised: Some((&[0.0; 4], &[1.0; 4])), ..data };
        let (a, b) = (evaluate(&f, &direct, &[link.apply(0.4); 4], 3), evaluate(&f, &plain, &[link.apply(0.4); 4], 3));
        (0..16).for_each(|j| {
            assert!((a[j] - b[j]).abs() < 1e-11 * (1.0 + b[j].abs()), "c = 0, d = 1 is the plain response")
        });
    }
}

#[test]
fn family_ratios_of_symmetric_distributions_agree_and_logit_categories_are_exponential() {
    let (y, eta) = ([0.0, 1.0, 2.0, 3.0], [0.4, -0.9, 0.3, 1.1]);
    let data = Data { y: &y, ..Data::default() };
    let all: Vec<f64> = y.iter().flat_map(|_| eta).collect();
    let of = |name: &str, link: Link| {
        let spec = Spec { name: name.into(), links: vec![link], categories: 4, ..Spec::default() };
        evaluate(&Family::new(&spec).unwrap(), &data, &all, 3)
    };
    let same = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-13 * (1.0 + b.abs()));
    assert!(same(of("sratio", Link::Probit), of("cratio", Link::Probit)));
    assert!(same(of("sratio", Link::Cloglog), of("cratio", Link::Loglog)));
    let f = of("acat", Link::Logit);
    let x: Vec<f64> = eta[1..].iter().map(|t| eta[0] - t).collect();
    let weights = [1.0, x[0].exp(), (x[0] + x[1]).exp(), (x[0] + x[1] + x[2]).exp()];
    let total: f64 = weights.iter().sum();
    (0..4).for_each(|j| assert!((f[j * f.len() / 4].exp() - weights[j] / total).abs() < 1e-14));
}

#[test]
fn family_closed_forms_are_their_jets() {
    let plain = ["gaussian", "binomial", "poisson", "nbinom2", "gamma"].map(|n| (n, false));
    let inflated = ["binomial", "poisson", "nbinom2"].map(|n| (n, true));
    for (name, zero_inflation) in plain.into_iter().chain(inflated) {
        let spec = Spec { name: name.into(), zero_inflation, ..Spec::default() };
        let closed = Family::new(&spec).unwrap();
        assert!(closed.closed.is_some());
        let jets = Family { closed: None, ..closed.clone() };
        let (y, trials) = responses(closed.entry().support);
        let data = Data { y: &y, trials: trials.as_deref(), ..Data::default() };
        for shift in [-20.0, -3.0, 0.0, 0.7, 6.0, 15.0] {
            for spread in [0.0, 0.1] {
                let k = closed.parameters();
                let eta: Vec<f64> =
                    (0..y.len() * k).map(|i| if i % k == 0 { shift } else { 0.4 + spread * i as f64 }).collect();
                let (a, b) = (evaluate(&closed, &data, &eta, 3), evaluate(&jets, &data, &eta, 3));
                for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                    assert!((a - b).abs() < 1e-11 * (1.0 + b.abs()), "{name} at {shift}, number {i}: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn family_far_predictors_are_not_nan() {
    for e in table() {
        let spec = Spec { name: e.name.into(), categories: 4, ..Spec::default() };
        let f = Family::new(&spec).unwrap();
        let (y, trials) = responses(e.support);
        let data = Data { y: &y, trials: trials.as_deref(), ..Data::default() };
        for far in [-40.0, 40.0] {
            let k = f.parameters();
            let base: Vec<f64> = parameters(&spec).iter().map(|(n, r, l)| predictors(n, *r, *l)[0]).collect();
            let eta: Vec<f64> = (0..y.len() * k).map(|i| if i % k == 0 { far } else { base[i % k] }).collect();
            let out = evaluate(&f, &data, &eta, 3);
            assert!(out.iter().all(|v| !v.is_nan()), "{} at {far}: {out:?}", e.name);
        }
    }
}

#[test]
fn family_bad_responses_are_named() {
    let f = Family::new(&Spec { name: "poisson".into(), ..Spec::default() }).unwrap();
    let y = [1.0, 2.5, 0.0, -1.0];
    let bad = f.check(&Data { y: &y, ..Data::default() }).unwrap_err();
    assert_eq!((bad.row, bad.rows, bad.count), (1, vec![1, 3], 2));
}

#[test]
fn family_illegal_means_are_nan() {
    let spec = Spec { name: "gamma".into(), links: vec![Link::Identity], ..Spec::default() };
    let f = Family::new(&spec).unwrap();
    let out = evaluate(&f, &Data { y: &[1.0], ..Data::default() }, &[-0.1, 0.0], 2);
    assert!(f.can_leave() && out[0].is_nan());
}

#[test]
fn family_specs_that_make_no_sense_are_refused() {
    let bad = |spec: Spec| Family::new(&spec).unwrap_err().to_string();
    assert!(bad(Spec { name: "nope".into(), ..Spec::default() }).contains("nope"));
    assert!(bad(Spec { name: "truncated_gamma".into(), ..Spec::default() }).contains("counts"));
    assert!(
        bad(Spec { name: "poisson".into(), links: vec![Link::Logit], ..Spec::default() }).contains("takes the links")
    );
}

/// Third-order derivatives of one row of a family.
fn one_row(name: &str, y: f64, trials: f64, eta: &[f64]) -> Vec<f64> {
    let f = Family::new(&Spec { name: name.into(), ..Spec::default() }).unwrap();
    let t = [trials];
    let data = Data { y: &[y], trials: (f.entry().support == Legal::Proportion).then_some(&t[..]), ..Data::default() };
    evaluate(&f, &data, eta, 3)
}

#[test]
fn family_negative_binomials_of_vanishing_size() {
    // k -> 0: f(y) = k / y, f(0) = 1; log k = log mu - log phi
    for y in [1.0f64, 3.0, 40.0, 64.0, 65.0, 400.0, 1e5] {
        for ln_phi in [80.0, 120.0, 400.0, 900.0] {
            let x = one_row("nbinom1", y, 1.0, &[0.5, ln_phi]);
            let exact = 0.5 - ln_phi - y.ln();
            // The mean gamma tail exp(-y / (1 + phi)) does not show.
            assert!((x[0] - exact).abs() < 1e-10 * exact.abs(), "{y} {ln_phi}: {} {exact}", x[0]);
            assert!((x[1] - 1.0).abs() < 1e-12 && (x[2] + 1.0).abs() < 1e-12, "{x:?}");
            assert!(x[3..].iter().all(|v| v.abs() < 1e-12), "{x:?}");
            // log mu - log k = log mu + log psi' - 2 log mu ..: with psi -> infinity nbinom12 is nbinom1
            let z = one_row("nbinom12", y, 1.0, &[0.5, ln_phi, 50.0]);
            assert!((z[0] - exact).abs() < 1e-10 * exact.abs(), "{y} {ln_phi}: {} {exact}", z[0]);
            assert!((z[1] - 1.0).abs() < 1e-12 && (z[2] + 1.0).abs() < 1e-12, "{z:?}");
            // nbinom2 has log k itself: f(y) = k / y (1 - O(k log k))
            let w = one_row("nbinom2", y, 1.0, &[0.5, -ln_phi]);
            assert!((w[0] + ln_phi + y.ln()).abs() < 1e-9 * ln_phi, "{y} {ln_phi}: {}", w[0]);
            assert!(w[1].abs() < 1e-9 && (w[2] - 1.0).abs() < 1e-9 && w[3..].iter().all(|v| v.abs() < 1e-9), "{w:?}");
        }
    }
}

#[test]
fn family_betabinomial_of_vanishing_precision() {
    for ln_phi in [-300.0f64, -500.0, -800.0] {
        let (mu, n): (f64, f64) = (1.0 / (1.0 + 2f64.exp()), 4.0);
        let x = one_row("betabinomial", 1.0, n, &[-2.0, ln_phi]);
        assert!((x[0] - mu.ln()).abs() < 1e-12 && (x[1] - (1.0 - mu)).abs() < 1e-12, "{x:?}");
        assert!((x[3] + mu * (1.0 - mu)).abs() < 1e-12 && x[2].abs() < 1e-12, "{x:?}");
        let x = one_row("betabinomial", 0.0, n, &[-2.0, ln_phi]);
        assert!((x[0] - (1.0 - mu).ln()).abs() < 1e-12, "{x:?}");
        // f(k) -> phi mu (1 - mu) n / (k (n - k))
        let x = one_row("betabinomial", 0.5, n, &[-2.0, ln_phi]);
        let exact = ln_phi + (mu * (1.0 - mu)).ln();
        assert!((x[0] - exact).abs() < 1e-12 * exact.abs() && (x[2] - 1.0).abs() < 1e-12, "{x:?} {exact}");
        let n = 300.0;
        let x = one_row("betabinomial", 100.0 / n, n, &[-2.0, ln_phi]);
        let exact = ln_phi + (mu * (1.0 - mu) * n / (100.0 * 200.0)).ln();
        assert!((x[0] - exact).abs() < 1e-11 * exact.abs() && (x[2] - 1.0).abs() < 1e-11, "{x:?} {exact}");
    }
}

/// Rows of a family within bounds: below, above, on both sides.
fn bounded_rows(support: Legal) -> (Vec<f64>, Vec<f64>) {
    let (y, least, most) = match support {
        Legal::OpenUnit | Legal::ClosedUnit => (0.45, 0.2, 0.7),
        Legal::Proportion => (0.5, 0.25, 0.75),
        Legal::Count => (3.0, 2.0, 5.0),
        _ => (1.4, 0.5, 2.0),
    };
    let inf = f64::INFINITY;
    (vec![y; 3], vec![least, inf, -inf, most, least, most])
}

#[test]
fn family_bounds_have_exact_derivatives_alone_and_of_censored_rows() {
    for e in table().iter().filter(|e| !matches!(e.support, Legal::Category | Legal::Label)) {
        let spec = Spec { name: e.name.into(), ..Spec::default() };
        let f = Family::new(&spec).unwrap();
        let (y, bounds) = bounded_rows(e.support);
        let trials = e.has_trials().then(|| vec![8.0; 3]);
        let data = Data { y: &y, trials: trials.as_deref(), bounds: Some(&bounds), ..Data::default() };
        f.check(&data).unwrap();
        let censored = Data { censor: Some(&[1, 0, -1]), ..data };
        let sets: Vec<Vec<f64>> = parameters(&spec).iter().map(|(n, r, l)| predictors(n, *r, *l)).collect();
        for point in grid(&sets) {
            let eta: Vec<f64> = y.iter().flat_map(|_| point.clone()).collect();
            against_differences(&format!("bounded {} at {point:?}", e.name), &f, &data, &eta, 1e-6);
            against_differences(&format!("bounded, censored {} at {point:?}", e.name), &f, &censored, &eta, 1e-6);
        }
    }
}

#[test]
fn family_bounds_of_counts_without_zero_are_truncation_at_zero() {
    for e in table().iter().filter(|e| e.support == Legal::Count) {
        let plain = Family::new(&Spec { name: e.name.into(), ..Spec::default() }).unwrap();
        let cut = Family::new(&Spec { name: e.name.into(), truncated: true, ..Spec::default() }).unwrap();
        let (y, bounds) = ([1.0, 4.0], [1.0, f64::INFINITY, 1.0, f64::INFINITY]);
        let eta: Vec<f64> = (0..2 * plain.parameters()).map(|i| 0.3 + 0.1 * (i % plain.parameters()) as f64).collect();
        let bounded = Data { y: &y, bounds: Some(&bounds), ..Data::default() };
        let without = Data { bounds: None, ..bounded };
        // Sums of probabilities are not exact to the last digits, of which third derivatives lose some.
        let close = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{}: {a} {b}", e.name));
        };
        close(&evaluate(&plain, &bounded, &eta, 3), &evaluate(&cut, &without, &eta, 3));
        let both = |f: &Family, data: &Data<'_>| {
            let mut out = vec![0.0; 6];
            f.mean(data, 0, &eta, &mut out[..2]);
            f.variance(data, 0, &eta, &mut out[2..4]);
            f.cdf(data, 0, &eta, &mut out[4..]);
            out
        };
        close(&both(&plain, &bounded), &both(&cut, &without));
    }
}

#[test]
fn family_moments_within_bounds_have_the_slopes_of_their_differences() {
    for e in table().iter().filter(|e| !matches!(e.support, Legal::Category | Legal::Label)) {
        let f = Family::new(&Spec { name: e.name.into(), ..Spec::default() }).unwrap();
        let (y, bounds) = bounded_rows(e.support);
        let trials = e.has_trials().then(|| vec![8.0; 3]);
        let data = Data { y: &y, trials: trials.as_deref(), bounds: Some(&bounds), ..Data::default() };
        let k = f.parameters();
        let point = if e.name == "ordered_beta" { vec![0.3, 1.2, -2.0, 2.0] } else { vec![0.4, 0.6, 0.3, -0.8] };
        let at = |step: f64, of: usize| {
            let eta: Vec<f64> = (0..3 * k).map(|i| point[i % k] + if i % k == of { step } else { 0.0 }).collect();
            let (mut mean, mut slopes) = (vec![0.0; 3], vec![0.0; 3 * k]);
            f.mean(&data, 0, &eta, &mut mean);
            f.mean_slopes(&data, &eta, &mut slopes);
            (mean, slopes)
        };
        for of in 0..k {
            let (above, below, slopes) = (at(1e-4, of).0, at(-1e-4, of).0, at(0.0, of).1);
            for i in 0..3 {
                let quotient = (above[i] - below[i]) / 2e-4;
                // Quotients over 2e-4 lose 1e-12 of the mean; a density that is steep at 1 has a little beyond all numbers.
                assert!((quotient - slopes[i * k + of]).abs() < 1e-5, "{} row {i}: {quotient} {slopes:?}", e.name);
            }
        }
    }
}
