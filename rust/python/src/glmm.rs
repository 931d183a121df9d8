//! `_core.Glmm`: a generalised linear mixed model. The arrays stay with the object: every pass reads the rows.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use ranef_core::design::{Block, Codes, Relation, Term};
use ranef_core::glmm::{self, Component, Fixed, GlmmReport, GlmmRows, Item, Method, Over, Signs, Start, Target};
use ranef_core::optimise::Stop;
use ranef_core::prior::Prior;
use ranef_core::profile::{Laplace, Request};
use ranef_core::structure::Pattern;
use ranef_core::CoreError;

use crate::columns::{block_views, blocks, contiguous, floats, BlockArrays, CodeArray, TermArrays};
use crate::errors::to_python;
use crate::family::{any_family_from, Callback, DataArrays};
use crate::lmm::{
    ask, is_long, matrix, options, pool, rows_by, search, set_boundary, set_search, set_terms, solve, vector, Pool,
};

use crate::profile;

struct ComponentArrays<'py> {
    blocks: Vec<(BlockArrays<'py>, usize)>,
    offset: Option<PyReadonlyArray1<'py, f64>>,
}

/// Precision of the levels of a term: diagonal, and the upper triangle by rows.
struct RelationArrays<'py> {
    diag: PyReadonlyArray1<'py, f64>,
    start: PyReadonlyArray1<'py, u32>,
    level: PyReadonlyArray1<'py, u32>,
    value: PyReadonlyArray1<'py, f64>,
}

impl RelationArrays<'_> {
    fn view(&self) -> PyResult<Relation<'_>> {
        Ok(Relation {
            diag: floats(&self.diag)?,
            start: contiguous(self.start.as_slice())?,
            level: contiguous(self.level.as_slice())?,
            value: floats(&self.value)?,
        })
    }
}

/// Views of everything that has one entry a row, made for the length of a call.
struct Arrays<'py> {
    components: Vec<ComponentArrays<'py>>,
    terms: Vec<(TermArrays<'py>, Vec<usize>, Option<Pattern>, Option<RelationArrays<'py>>)>,
    data: DataArrays<'py>,
    weights: Option<PyReadonlyArray1<'py, f64>>,
    p: usize,
}

impl<'py> Arrays<'py> {
    fn new(
        components: &Bound<'py, PyAny>,
        p: usize,
        terms: &Bound<'py, PyAny>,
        data: &Bound<'py, PyDict>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
    ) -> PyResult<Self> {
        let mut list = vec![];
        for c in components.try_iter()? {
            let (inner, offset): (Bound<'py, PyAny>, Option<PyReadonlyArray1<'py, f64>>) = c?.extract()?;
            let mut out = vec![];
            for b in inner.try_iter()? {
                let b = b?;
                let first: usize = b.get_item(3)?.extract()?;
                let block = pyo3::types::PyTuple::new(b.py(), [b.get_item(0)?, b.get_item(1)?, b.get_item(2)?])?;
                out.push((BlockArrays::new(&block.into_any())?, first));
            }
            list.push(ComponentArrays { blocks: out, offset });
        }
        let mut term_list = vec![];
        for t in terms.try_iter()? {
            let t = t?;
            let name: String = t.get_item(2)?.extract()?;
            let plain = matches!(name.as_str(), "us" | "diag");
            let word = if plain { name.as_str() } else { "patterned" }.into_pyobject(t.py())?.into_any();
            let four = [t.get_item(0)?, t.get_item(1)?, word, t.get_item(3)?];
            let owner: Vec<usize> = t.get_item(4)?.extract()?;
            let arrays = TermArrays::new(&pyo3::types::PyTuple::new(t.py(), four)?.into_any())?;
            let pattern = if plain {
                None
            } else {
                let k = arrays.view()?.cols();
                let (mut points, mut matrix) = (vec![], vec![]);
                let (mut rank, mut nu): (Option<usize>, Option<f64>) = (None, None);
                if t.len()? > 5 {
                    let extra = t.get_item(5)?;
                    let extra = extra.cast::<PyDict>()?;
                    if let Some(v) = extra.get_item("coordinates")? {
                        points = v.extract::<Vec<Vec<f64>>>()?;
                    }
                    if let Some(v) = extra.get_item("matrix")? {
                        matrix = v.extract::<Vec<Vec<f64>>>()?.into_iter().flatten().collect();
                    }
                    rank = extra.get_item("rank")?.map(|v| v.extract()).transpose()?;
                    nu = extra.get_item("nu")?.map(|v| v.extract()).transpose()?;
                }
                let mut pattern = Pattern::new(&name, k, &points, matrix).map_err(to_python)?;
                if let Some(rank) = rank {
                    pattern = pattern.with_rank(rank).map_err(to_python)?;
                }
                if let Some(nu) = nu {
                    pattern = pattern.with_nu(nu).map_err(to_python)?;
                }
                Some(pattern)
            };
            let mut relation = None;
            if t.len()? > 5 {
                if let Some(r) = t.get_item(5)?.cast::<PyDict>()?.get_item("relation")? {
                    let (diag, start, level, value) = r.extract()?;
                    relation = Some(RelationArrays { diag, start, level, value });
                }
            }
            term_list.push((arrays, owner, pattern, relation));
        }
        Ok(Arrays { components: list, terms: term_list, data: DataArrays::new(data)?, weights, p })
    }

    fn view(&self) -> PyResult<GlmmRows<'_>> {
        let data = self.data.view()?;
        let n = data.y.len();
        let mut components = vec![];
        for c in &self.components {
            let fixed: PyResult<Vec<Fixed<'_>>> =
                c.blocks.iter().map(|(b, first)| Ok(Fixed { block: b.view()?, first: *first })).collect();
            components.push(Component { fixed: fixed?, offset: c.offset.as_ref().map(floats).transpose()? });
        }
        let terms: PyResult<Vec<Term<'_>>> = self
            .terms
            .iter()
            .map(|(t, owner, _, relation)| {
                let relation = relation.as_ref().map(|r| r.view()).transpose()?;
                Ok(Term { joint: owner.iter().any(|c| *c != owner[0]), relation, ..t.view()? })
            })
            .collect();
        Ok(GlmmRows {
            n,
            components,
            p: self.p,
            terms: terms?,
            owner: self.terms.iter().map(|t| t.1.clone()).collect(),
            patterns: self.terms.iter().map(|t| t.2.clone()).collect(),
            data,
            weights: self.weights.as_ref().map(floats).transpose()?,
        })
    }
}

/// What the object was made of, so that views can be made again.
struct Held {
    components: Py<PyAny>,
    terms: Py<PyAny>,
    data: Py<PyDict>,
    weights: Option<Py<PyAny>>,
    p: usize,
}

impl Held {
    fn arrays<'py>(&self, py: Python<'py>) -> PyResult<Arrays<'py>> {
        let weights = self.weights.as_ref().map(|w| w.bind(py).extract()).transpose()?;
        Arrays::new(self.components.bind(py), self.p, self.terms.bind(py), self.data.bind(py), weights)
    }
}

#[pyclass(module = "ranef._core")]
pub struct Glmm {
    core: glmm::Glmm,
    held: Held,
    n: usize,
    pool: Pool,
    callback: Option<Arc<Callback>>,
}

impl Glmm {
    /// What came of work; an exception of the density that Python evaluates goes before what it led to.
    fn finished<T>(&self, out: PyResult<T>) -> PyResult<T> {
        match self.callback.as_ref().and_then(|c| c.take()) {
            Some(raised) => Err(raised),
            None => out,
        }
    }

    /// Whether a search is worth watching: rows are read in every step of the inner one, some hundred times a fit, and
    /// at every node of a quadrature.
    fn is_long(&self, nodes: usize) -> bool {
        is_long(self.n.saturating_mul(nodes).saturating_mul(20), self.core.engine.lmm().symbolic.flops())
    }

    /// At how many nodes a row is looked at, with so many a dimension.
    fn nodes(&self, points: usize) -> usize {
        let dimensions: usize = self.core.engine.moments().factors.iter().map(|f| f.cols).sum();
        points.max(1).saturating_pow(dimensions as u32)
    }

    /// Work on the rows that Ctrl-C ends, where it is long; what was fitted is then where it was.
    fn watched<T: Send>(
        &mut self,
        py: Python<'_>,
        nodes: usize,
        work: impl FnOnce(&mut glmm::Glmm, &GlmmRows<'_>) -> Result<T, CoreError> + Send,
    ) -> PyResult<T> {
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let (stop, long) = (Stop::default(), self.is_long(nodes));
        let (core, ends) = (&mut self.core, stop.clone());
        let out = search(py, &self.pool, &stop, long, || core.until(&rows, &ends, |core| work(core, &rows)));
        self.finished(out)
    }
}

fn report<'py>(py: Python<'py>, r: GlmmReport) -> PyResult<Bound<'py, PyDict>> {
    let d = PyDict::new(py);
    d.set_item("loglik", r.loglik)?;
    d.set_item("criterion", r.criterion)?;
    d.set_item("beta", vector(py, &r.beta))?;
    d.set_item("theta", vector(py, &r.theta))?;
    let natural: Vec<_> = r.natural.into_iter().map(|(t, n)| (t, n.name, n.index, n.value)).collect();
    d.set_item("natural", natural)?;
    d.set_item("inner", r.inner)?;
    set_terms(&d, r.lambda, r.b)?;
    set_search(&d, r.outcome, r.evaluations, r.iterations, &r.gradient, (r.decrease, r.curvature))?;
    set_boundary(&d, r.boundary)?;
    d.set_item("unbounded", r.unbounded)?;
    Ok(d)
}

fn start_from(start: Option<&Bound<'_, PyDict>>) -> PyResult<Start> {
    let mut from = Start::default();
    if let Some(s) = start {
        from.beta = s.get_item("beta")?.map(|v| v.extract()).transpose()?;
        from.theta = s.get_item("theta")?.map(|v| v.extract()).transpose()?;
        from.exact = s.get_item("exact")?.map_or(Ok(false), |v| v.extract())?;
    }
    Ok(from)
}

type PriorRow = (String, Vec<f64>, String, Vec<usize>, f64, (Option<usize>, f64));

fn item((name, parameters, target, at, power, over): PriorRow) -> PyResult<Item> {
    let first = at.first().copied().ok_or_else(|| PyValueError::new_err("a prior of nothing"))?;
    let target = match target.as_str() {
        "coefficients" => Target::Coefficients(at),
        "log_coefficient" => Target::LogCoefficient(first, power),
        "log_parameter" => Target::LogParameter(first, power),
        "term" => Target::Term(first),
        _ => return Err(PyValueError::new_err(format!("unknown target '{target}' of a prior"))),
    };
    let over = over.0.map_or(Over::Constant(over.1), Over::Coefficient);
    Ok(Item { prior: Prior::new(&name, parameters).map_err(to_python)?, target, over })
}

fn method_of(method: &str, quadrature: usize) -> PyResult<Method> {
    match (method, quadrature) {
        ("reml", _) => Ok(Method::Restricted),
        ("ml", 0) => Ok(Method::Joint),
        ("ml", n) => Ok(Method::Quadrature(n)),
        _ => Err(PyValueError::new_err(format!("unknown method '{method}'"))),
    }
}

/// (name, index) of the parameters of a covariance structure of k columns.
#[pyfunction]
pub fn structure_parameters(name: &str, k: usize) -> PyResult<Vec<(&'static str, Option<usize>)>> {
    Ok(Pattern::names(name, k).map_err(to_python)?.into_iter().map(|n| (n.name, n.index)).collect())
}

#[pymethods]
impl Glmm {
    #[new]
    #[pyo3(signature = (family, components, p, terms, data, weights=None, threads=0))]
    fn new<'py>(
        py: Python<'py>,
        family: &Bound<'py, PyDict>,
        components: &Bound<'py, PyAny>,
        p: usize,
        terms: &Bound<'py, PyAny>,
        data: &Bound<'py, PyDict>,
        weights: Option<Bound<'py, PyAny>>,
        threads: usize,
    ) -> PyResult<Self> {
        let pool = pool(threads)?;
        let (family, callback) = any_family_from(family)?;
        let held = Held {
            components: components.clone().unbind(),
            terms: terms.clone().unbind(),
            data: data.clone().unbind(),
            weights: weights.map(|w| w.unbind()),
            p,
        };
        let arrays = held.arrays(py)?;
        let rows = arrays.view()?;
        let n = rows.n;
        let core = solve(py, &pool, || glmm::Glmm::new(&rows, family))?;
        Ok(Glmm { core, held, n, pool, callback })
    }

    #[getter]
    fn n(&self) -> usize {
        self.n
    }

    #[getter]
    fn p(&self) -> usize {
        self.held.p
    }

    #[getter]
    fn rank(&self) -> usize {
        self.held.p - self.core.dropped().len()
    }

    #[getter]
    fn dropped(&self) -> Vec<usize> {
        self.core.dropped().to_vec()
    }

    #[getter]
    fn ntheta(&self) -> usize {
        self.core.theta_len()
    }

    /// (term, name, index) of the parameters of patterned terms, which follow the entries of Lambda in theta.
    #[getter]
    fn parameters(&self) -> Vec<(usize, &'static str, Option<usize>)> {
        let own = self.core.engine.model.theta_len();
        let zero = vec![0.0; self.core.theta_len() - own];
        self.core.engine.natural(&zero).into_iter().map(|(t, n)| (t, n.name, n.index)).collect()
    }

    /// Priors as (name, parameters, target, positions, power, log scale or the coefficient that is it), and Jeffreys'.
    #[pyo3(signature = (priors, jeffreys=false))]
    fn penalise(&mut self, priors: Vec<PriorRow>, jeffreys: bool) -> PyResult<()> {
        let items: PyResult<Vec<Item>> = priors.into_iter().map(item).collect();
        self.core.penalise(items?, jeffreys).map_err(to_python)
    }

    /// Hold parameters of patterned terms at natural values: (position, value); tie sets of them.
    fn constrain(&mut self, held: Vec<(usize, f64)>, tied: Vec<Vec<usize>>) -> PyResult<()> {
        self.core.constrain(&held, tied).map_err(to_python)
    }

    /// d vech(Lambda) / d parameters of every patterned term: (term, (k (k + 1) / 2 x parameters) column-major).
    fn factor_jacobians<'py>(&self, py: Python<'py>) -> PyResult<Vec<(usize, Bound<'py, PyArray1<f64>>)>> {
        let found = self.core.factor_jacobians().map_err(to_python)?;
        Ok(found.into_iter().map(|(t, j)| (t, j.into_pyarray(py))).collect())
    }

    /// First and second derivatives of Sigma in the parameters of every patterned term at the fit: (term, (m, k, k),
    /// (pairs i >= j, k, k)).
    #[allow(clippy::type_complexity)]
    fn covariance_derivatives<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Vec<(usize, Bound<'py, PyArray3<f64>>, Bound<'py, PyArray3<f64>>)>> {
        let found = self.core.covariance_derivatives().map_err(to_python)?;
        let patterns = &self.core.engine.patterns;
        let mut out = vec![];
        for ((term, first, second), p) in found.into_iter().zip(patterns) {
            let (m, k) = (p.pattern.parameters(), p.pattern.k);
            let first = first.into_pyarray(py).reshape([m, k, k])?;
            out.push((term, first, second.into_pyarray(py).reshape([m * (m + 1) / 2, k, k])?));
        }
        Ok(out)
    }

    /// Find where a search from `start` begins; see `glmm::Glmm::begin`.
    #[pyo3(signature = (signs, start=None, quadrature=1, method="ml"))]
    fn begin(
        &mut self,
        py: Python<'_>,
        signs: Vec<Option<Signs>>,
        start: Option<&Bound<'_, PyDict>>,
        quadrature: usize,
        method: &str,
    ) -> PyResult<Vec<bool>> {
        let (method, from) = (method_of(method, quadrature)?, start_from(start)?);
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let r = solve(py, &self.pool, || core.begin(&rows, &from, method, &signs));
        self.finished(r)
    }

    /// `start` may hold "beta" and "theta".
    #[pyo3(signature = (start=None, quadrature=1, options=None, method="ml"))]
    fn fit<'py>(
        &mut self,
        py: Python<'py>,
        start: Option<&Bound<'py, PyDict>>,
        quadrature: usize,
        options: Option<&Bound<'py, PyDict>>,
        method: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (opts, watch) = self::options(options)?;
        let method = method_of(method, quadrature)?;
        let from = start_from(start)?;
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let long = self.is_long(self.nodes(quadrature));
        let core = &mut self.core;
        let r = search(py, &self.pool, watch, long, || {
            let report = core.fit(&rows, &from, method, &opts)?;
            Ok((report, core.reach(&rows)?))
        });
        let (r, reach) = self.finished(r)?;
        let out = report(py, r)?;
        out.set_item("reach", reach)?;
        Ok(out)
    }

    /// Stand at (beta, theta) as a fit that ended there does.
    #[pyo3(signature = (beta, theta, quadrature=1, method="ml"))]
    fn adopt(
        &mut self,
        py: Python<'_>,
        beta: Vec<f64>,
        theta: Vec<f64>,
        quadrature: usize,
        method: &str,
    ) -> PyResult<()> {
        let method = method_of(method, quadrature)?;
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let r = solve(py, &self.pool, || core.adopt(&rows, &beta, &theta, method));
        self.finished(r)
    }

    /// Stand at (beta, theta) and report that point as a fit that ended there.
    #[pyo3(signature = (beta, theta, quadrature=1, method="ml"))]
    fn stand<'py>(
        &mut self,
        py: Python<'py>,
        beta: Vec<f64>,
        theta: Vec<f64>,
        quadrature: usize,
        method: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        let method = method_of(method, quadrature)?;
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let r = solve(py, &self.pool, || core.stand(&rows, &beta, &theta, method));
        report(py, self.finished(r)?)
    }

    /// The point (beta, theta), an optimum by maximum likelihood, as the centre of profiles.
    fn profile_centre<'py>(
        &mut self,
        py: Python<'py>,
        beta: Vec<f64>,
        theta: Vec<f64>,
        quadrature: usize,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (method, stop) = (method_of("ml", quadrature)?, Stop::default());
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let c = search(py, &self.pool, &stop, true, || Laplace::centre(core, &rows, &beta, &theta, method, &stop));
        profile::centre(py, self.finished(c)?)
    }

    /// Curves of parameters; `targets` are values of |zeta|, true where exactly that value is wanted. The core is left
    /// elsewhere: `adopt` brings it back.
    #[allow(clippy::too_many_arguments)]
    fn profile<'py>(
        &mut self,
        py: Python<'py>,
        x: PyReadonlyArray1<'py, f64>,
        deviance: f64,
        hessian: PyReadonlyArray2<'py, f64>,
        frozen: Vec<bool>,
        asked: Vec<profile::Asked>,
        targets: Vec<(f64, bool)>,
        quadrature: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let (method, stop) = (method_of("ml", quadrature)?, Stop::default());
        let centre = profile::centre_from(&x, deviance, &hessian, frozen)?;
        let mut requests = vec![];
        for a in &asked {
            let hold = if a.0 == "beta" {
                let found = a.1.first().filter(|j| **j < self.held.p).and_then(|&j| Laplace::contrast(&self.core, j));
                found.ok_or_else(|| PyValueError::new_err("profile: there is no such coefficient"))?
            } else {
                profile::hold(a, self.rank(), centre.x.len())?
            };
            requests.push(Request::new(hold, &centre.x, a.3, a.4));
        }
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let found = search(py, &self.pool, &stop, true, || {
            Laplace::curves(core, &rows, &centre, &requests, &targets, (method, &stop))
        });
        profile::curves(py, self.finished(found)?)
    }

    /// Log-likelihood and its gradient in (beta, theta).
    fn evaluate<'py>(&mut self, py: Python<'py>, beta: Vec<f64>, theta: Vec<f64>) -> PyResult<Bound<'py, PyDict>> {
        let e = self.watched(py, 1, |core, rows| core.evaluate(rows, &beta, &theta))?;
        let d = PyDict::new(py);
        d.set_item("loglik", e.loglik)?;
        d.set_item("penalised", e.penalised)?;
        d.set_item("gradient", vector(py, &e.gradient))?;
        Ok(d)
    }

    /// Covariance matrix of (beta, theta): inverse of the Hessian of -loglik.
    fn vcov<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let nodes = self.core.engine.quadrature.as_ref().map_or(1, |q| q.nodes());
        let v = self.watched(py, nodes, |core, rows| core.vcov(rows))?;
        matrix(py, v, self.held.p + self.core.theta_len())
    }

    /// Let the levels of a term's grouping factor count `weights` times.
    fn weigh(&mut self, term: usize, weights: Vec<f64>) -> PyResult<()> {
        self.core.set_level_weights(term, &weights).map_err(to_python)
    }

    /// The log-likelihood at the fit with `points` quadrature nodes a dimension.
    fn with_nodes<'py>(&mut self, py: Python<'py>, points: usize) -> PyResult<Bound<'py, PyDict>> {
        let found = self.watched(py, self.nodes(points), |core, rows| core.with_nodes(rows, points))?;
        let d = PyDict::new(py);
        d.set_item("loglik", found.loglik)?;
        d.set_item("gradient", vector(py, &found.gradient))?;
        d.set_item("groups", vector(py, &found.groups))?;
        d.set_item("term", found.term)?;
        Ok(d)
    }

    /// Log importance ratios of Laplace's Gaussian at (beta, theta), pairs x 2: of z and of -z.
    fn log_ratios<'py>(
        &mut self,
        py: Python<'py>,
        beta: Vec<f64>,
        theta: Vec<f64>,
        seed: u64,
        pairs: usize,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let found = self.watched(py, 2 * pairs, |core, rows| core.log_ratios(rows, (&beta, &theta), seed, pairs))?;
        rows_by(py, found, pairs, 2)
    }

    /// Gradient of the log-likelihood in (beta, theta) of every cluster of rows, clusters x parameters.
    fn scores<'py>(
        &mut self,
        py: Python<'py>,
        cluster: PyReadonlyArray1<'py, u32>,
        count: usize,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let cluster = contiguous(cluster.as_slice())?;
        let v = self.watched(py, 1, |core, rows| core.scores(rows, cluster, count))?;
        let width = self.held.p + self.core.theta_len();
        rows_by(py, v, count, width)
    }

    /// Fit the columns of `y` (n x m) in parallel: a record, with its "vcov" if asked, or why it failed, for each.
    ///
    /// Components `coded` have blocks coded by the categories of the response; `beta` has a row of start values for
    /// each response.
    #[pyo3(signature = (
        y, theta=None, quadrature=1, options=None, method="ml", covariance=true, coded=vec![], beta=vec![]
    ))]
    #[allow(clippy::too_many_arguments)]
    fn refit<'py>(
        &self,
        py: Python<'py>,
        y: PyReadonlyArray2<'py, f64>,
        theta: Option<Vec<f64>>,
        quadrature: usize,
        options: Option<&Bound<'py, PyDict>>,
        method: &str,
        covariance: bool,
        coded: Vec<usize>,
        beta: Vec<Vec<f64>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (opts, watch) = self::options(options)?;
        let method = method_of(method, quadrature)?;
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let view = y.as_array();
        if view.nrows() != self.n {
            return Err(PyValueError::new_err(format!("responses have {} rows, the model {}", view.nrows(), self.n)));
        }
        let columns: Vec<Vec<f64>> = view.columns().into_iter().map(|c| c.to_vec()).collect();
        let refs: Vec<&[f64]> = columns.iter().map(|c| c.as_slice()).collect();
        if coded.iter().any(|&k| k >= rows.components.len()) {
            return Err(PyValueError::new_err("coded components that the model does not have"));
        }
        let own = glmm::OwnRows { coded: &coded, beta: &beta };
        let (family, start) = (&self.core.engine.family, Start { theta, ..Start::default() });
        let fits = search(py, &self.pool, watch, true, || {
            Ok(glmm::Glmm::refit(&rows, family, &refs, &start, own, method, &opts, covariance))
        })?;
        let out = PyList::empty(py);
        for f in fits {
            match f {
                Ok((r, v)) => {
                    let d = report(py, r)?;
                    if let Some(v) = v {
                        d.set_item("vcov", matrix(py, v, self.held.p + self.core.theta_len())?)?;
                    }
                    out.append(d)?;
                }
                Err(e) => out.append(e.to_string())?,
            }
        }
        Ok(out)
    }

    /// Linear predictors of the rows, n x K.
    fn eta<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let v = self.watched(py, 1, |core, rows| core.predictors(rows))?;
        let k = v.len() / self.n.max(1);
        rows_by(py, v, self.n, k)
    }

    fn cond_cov<'py>(&self, py: Python<'py>, term: usize) -> PyResult<Bound<'py, PyArray3<f64>>> {
        let model = &self.core.engine.model;
        let v = ask(py, &self.pool, model, self.n, || model.conditional_covariance(term))?;
        let k = model.lmm.moments.factors.iter().flat_map(|f| &f.slots).find(|s| s.term == term).map_or(1, |s| s.cols);
        let levels = v.len() / (k * k);
        v.into_pyarray(py).reshape([levels, k, k])
    }

    /// Variance of x'beta_hat + z'(b_hat - b) of one component's predictor.
    fn predict_var<'py>(
        &mut self,
        py: Python<'py>,
        component: usize,
        fixed: &Bound<'py, PyAny>,
        terms: &Bound<'py, PyAny>,
        n: usize,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let mut list = vec![];
        for b in fixed.try_iter()? {
            let b = b?;
            let first: usize = b.get_item(3)?.extract()?;
            let block = pyo3::types::PyTuple::new(py, [b.get_item(0)?, b.get_item(1)?, b.get_item(2)?])?;
            list.push((BlockArrays::new(&block.into_any())?, first));
        }
        let mut arrays: Vec<Option<(CodeArray<'py>, Vec<BlockArrays<'py>>)>> = vec![];
        for t in terms.try_iter()? {
            let t = t?;
            arrays.push(if t.is_none() {
                None
            } else {
                Some((CodeArray::new(&t.get_item(0)?)?, blocks(&t.get_item(1)?)?))
            });
        }
        let fixed: PyResult<Vec<Fixed<'_>>> =
            list.iter().map(|(b, first)| Ok(Fixed { block: b.view()?, first: *first })).collect();
        let fixed = fixed?;
        let mut views: Vec<Option<(Codes<'_>, Vec<Block<'_>>)>> = vec![];
        for a in &arrays {
            views.push(match a {
                Some((c, b)) => Some((c.view()?, block_views(b)?)),
                None => None,
            });
        }
        let nodes = self.core.engine.quadrature.as_ref().map_or(1, |q| q.nodes());
        let spread = self.watched(py, nodes, |core, rows| core.spread(rows))?;
        let (core, model) = (&self.core, &self.core.engine.model);
        let v = ask(py, &self.pool, model, n, || {
            core.prediction_variance(n, component, &fixed, &views, spread.as_deref())
        })?;
        Ok(v.into_pyarray(py))
    }
}
