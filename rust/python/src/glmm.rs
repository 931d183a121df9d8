//! `_core.Glmm`: a generalised linear mixed model. The arrays stay with the object: every pass reads the rows.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ranef_core::design::{Block, Codes, Relation, Term};
use ranef_core::glmm::{self, Component, Fixed, GlmmReport, GlmmRows, Method, Start};
use ranef_core::structure::Pattern;

use crate::columns::{block_views, blocks, BlockArrays, CodeArray, TermArrays};
use crate::errors::to_python;
use crate::family::{family_from, DataArrays};
use crate::lmm::{
    floats, is_long, matrix, options, pool, rows_by, search, set_boundary, set_search, set_terms, solve, vector, Pool,
};

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
            start: self.start.as_slice()?,
            level: self.level.as_slice()?,
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
}

fn report<'py>(py: Python<'py>, r: GlmmReport) -> PyResult<Bound<'py, PyDict>> {
    let d = PyDict::new(py);
    d.set_item("loglik", r.loglik)?;
    d.set_item("beta", vector(py, &r.beta))?;
    d.set_item("theta", vector(py, &r.theta))?;
    let natural: Vec<_> = r.natural.into_iter().map(|(t, n)| (t, n.name, n.index, n.value)).collect();
    d.set_item("natural", natural)?;
    d.set_item("inner", r.inner)?;
    set_terms(&d, r.lambda, r.b)?;
    set_search(&d, r.outcome, r.evaluations, r.iterations, &r.gradient, (r.decrease, r.curvature))?;
    set_boundary(&d, r.boundary)?;
    Ok(d)
}

fn method_of(method: &str, quadrature: usize) -> PyResult<Method> {
    match (method, quadrature) {
        ("reml", _) => Ok(Method::Restricted),
        ("ml", 0) => Ok(Method::Joint),
        ("ml", n) => Ok(Method::Quadrature(n)),
        _ => Err(PyValueError::new_err(format!("unknown method '{method}'"))),
    }
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
        let family = family_from(family)?;
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
        Ok(Glmm { core, held, n, pool })
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
        let opts = self::options(options)?;
        let method = method_of(method, quadrature)?;
        let mut from = Start::default();
        if let Some(s) = start {
            from.beta = s.get_item("beta")?.map(|v| v.extract()).transpose()?;
            from.theta = s.get_item("theta")?.map(|v| v.extract()).transpose()?;
        }
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        // Rows are read in every step of the inner search, some hundred times a fit.
        let long = is_long(20 * self.n, self.core.engine.lmm().symbolic.flops());
        let core = &mut self.core;
        let r = search(py, &self.pool, &opts.stop, long, || core.fit(&rows, &from, method, &opts))?;
        report(py, r)
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
        solve(py, &self.pool, || core.adopt(&rows, &beta, &theta, method))
    }

    /// Log-likelihood and its gradient in (beta, theta).
    fn evaluate<'py>(&mut self, py: Python<'py>, beta: Vec<f64>, theta: Vec<f64>) -> PyResult<Bound<'py, PyDict>> {
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let e = solve(py, &self.pool, || core.evaluate(&rows, &beta, &theta))?;
        let d = PyDict::new(py);
        d.set_item("loglik", e.loglik)?;
        d.set_item("gradient", vector(py, &e.gradient))?;
        Ok(d)
    }

    /// Covariance matrix of (beta, theta): inverse of the Hessian of -loglik.
    fn vcov<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let v = solve(py, &self.pool, || core.vcov(&rows))?;
        matrix(py, v, self.held.p + self.core.theta_len())
    }

    /// Linear predictors of the rows, n x K.
    fn eta<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let arrays = self.held.arrays(py)?;
        let rows = arrays.view()?;
        let core = &mut self.core;
        let v = solve(py, &self.pool, || core.predictors(&rows))?;
        let k = rows.components.len();
        rows_by(py, v, self.n, k)
    }

    fn cond_cov<'py>(&self, py: Python<'py>, term: usize) -> PyResult<Bound<'py, PyArray3<f64>>> {
        let model = &self.core.engine.model;
        let v = solve(py, &self.pool, || model.conditional_covariance(term))?;
        let k = model.lmm.moments.factors.iter().flat_map(|f| &f.slots).find(|s| s.term == term).map_or(1, |s| s.cols);
        let levels = v.len() / (k * k);
        v.into_pyarray(py).reshape([levels, k, k])
    }

    /// Variance of x'beta_hat + z'(b_hat - b) of one component's predictor, given theta.
    fn predict_var<'py>(
        &self,
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
        let core = &self.core;
        let v = solve(py, &self.pool, || core.prediction_variance(n, component, &fixed, &views))?;
        Ok(v.into_pyarray(py))
    }
}
