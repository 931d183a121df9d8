//! `_core.Lmm`: a linear mixed model whose rows have become cross-products.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Builder;
use std::time::Duration;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use ranef_core::design::{Block, Codes};
use ranef_core::fit::{Model, Report};
use ranef_core::optimise::{Boundary, Options, Outcome, Stop};
use ranef_core::profile::{Hold, Linear, Request};
use ranef_core::CoreError;
use rayon::ThreadPool;

use crate::columns::{block_views, blocks, by_rows, floats, BlockArrays, CodeArray, RowArrays};
use crate::errors::to_python;
use crate::profile;

/// None is the default pool (all processors).
pub type Pool = Option<Arc<ThreadPool>>;

/// Pools by number of threads, made once; None is the default pool (all processors).
pub fn pool(threads: usize) -> PyResult<Option<Arc<ThreadPool>>> {
    static POOLS: OnceLock<Mutex<HashMap<usize, Arc<ThreadPool>>>> = OnceLock::new();
    // The default pool is free to enter; a pool of its own costs a small fit more than the fit.
    if threads == 0 || std::thread::available_parallelism().is_ok_and(|n| n.get() == threads) {
        return Ok(None);
    }
    if threads > 1024 {
        return Err(PyValueError::new_err(format!("threads = {threads}: at most 1024")));
    }
    let pools = POOLS.get_or_init(Default::default);
    let mut pools = pools.lock().map_err(|_| PyRuntimeError::new_err("thread pools are broken"))?;
    if let Some(p) = pools.get(&threads) {
        return Ok(Some(p.clone()));
    }
    let p = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| PyRuntimeError::new_err(format!("cannot start {threads} threads: {e}")))?;
    let p = Arc::new(p);
    pools.insert(threads, p.clone());
    Ok(Some(p))
}

/// Run without the interpreter lock, in the model's own pool of threads.
pub fn solve<T: Send>(
    py: Python<'_>,
    pool: &Option<Arc<ThreadPool>>,
    work: impl FnOnce() -> Result<T, CoreError> + Send,
) -> PyResult<T> {
    finished(py.detach(|| caught(pool, work)))
}

/// What became of work; `Err` is a panic.
type Caught<T> = std::thread::Result<Result<T, CoreError>>;

/// A panic is a bug of the core; it must not take the interpreter's error handling by surprise.
fn caught<T: Send>(pool: &Pool, work: impl FnOnce() -> Result<T, CoreError> + Send) -> Caught<T> {
    catch_unwind(AssertUnwindSafe(|| match pool {
        Some(p) => p.install(work),
        None => work(),
    }))
}

fn finished<T>(out: Caught<T>) -> PyResult<T> {
    out.map_err(|_| PyRuntimeError::new_err("internal error in the numerical core; please report it"))?
        .map_err(to_python)
}

/// Multiplications of a factorisation from which a search is watched: smaller ones end before anybody reacts, and a
/// thread of their own would cost more than they do.
const FLOPS_WATCHED: f64 = 1e7;
/// Rows from which it is watched, where rows are read once a fit.
const ROWS_WATCHED: usize = 50_000;
/// How often signals are looked at.
const GLANCE: Duration = Duration::from_millis(100);
/// Stack of the thread that works, as the main thread has it.
const STACK: usize = 8 << 20;

/// Whether a search over so many rows, with such a factorisation, is worth watching.
pub fn is_long(rows: usize, flops: f64) -> bool {
    rows > ROWS_WATCHED || flops > FLOPS_WATCHED
}

/// Who may end work from outside, and the callable that is told `(evaluations, criterion)` while it goes on.
pub struct Watch {
    pub stop: Stop,
    pub onlooker: Option<Py<PyAny>>,
}

impl From<&Stop> for Watch {
    fn from(stop: &Stop) -> Self {
        Watch { stop: stop.clone(), onlooker: None }
    }
}

impl Watch {
    /// An exception that a signal (Ctrl-C) or the onlooker raises ends the work.
    fn glance(&self, py: Python<'_>) -> PyResult<()> {
        py.check_signals()?;
        self.onlooker.as_ref().map_or(Ok(()), |o| o.call1(py, self.stop.told()).map(drop))
    }
}

/// `solve` on a thread of its own, while this one looks for signals and tells how it goes.
fn watched<T: Send>(
    py: Python<'_>,
    pool: &Pool,
    watch: &Watch,
    work: impl FnOnce() -> Result<T, CoreError> + Send,
) -> PyResult<T> {
    py.detach(|| {
        std::thread::scope(|scope| {
            let (done, finish) = mpsc::channel();
            let job = move || {
                let out = caught(pool, work);
                // Nobody listens any more after a signal.
                let _ = done.send(());
                out
            };
            let worker = Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, job)
                .map_err(|e| PyRuntimeError::new_err(format!("cannot start a thread: {e}")))?;
            while finish.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) {
                if let Err(raised) = Python::attach(|py| watch.glance(py)) {
                    watch.stop.request();
                    let _ = worker.join();
                    return Err(raised);
                }
            }
            finished(worker.join().unwrap_or_else(Err))
        })
    })
}

/// `watched` where the work is long, else `solve`.
pub fn search<T: Send>(
    py: Python<'_>,
    pool: &Pool,
    watch: impl Into<Watch>,
    long: bool,
    work: impl FnOnce() -> Result<T, CoreError> + Send,
) -> PyResult<T> {
    if long {
        watched(py, pool, &watch.into(), work)
    } else {
        solve(py, pool, work)
    }
}

/// A question about a fitted model and so many rows, which leaves the model as it is: `search` by the model's own flag,
/// lowered again for the next question.
pub fn ask<T: Send>(
    py: Python<'_>,
    pool: &Pool,
    model: &Model,
    rows: usize,
    work: impl FnOnce() -> Result<T, CoreError> + Send,
) -> PyResult<T> {
    let stop = &model.lmm.numeric.stop;
    let out = search(py, pool, stop, is_long(rows, model.lmm.symbolic.flops()), work);
    stop.clear();
    out
}

#[pyclass(module = "ranef._core")]
pub struct Lmm {
    model: Model,
    pool: Option<Arc<ThreadPool>>,
}

/// How to search, and who looks on.
pub fn options(dict: Option<&Bound<'_, PyDict>>) -> PyResult<(Options, Watch)> {
    let (mut o, mut onlooker) = (Options::default(), None);
    for (key, value) in dict.map(|d| d.iter().collect::<Vec<_>>()).unwrap_or_default() {
        match key.extract::<String>()?.as_str() {
            "tolerance" => o.tolerance = value.extract()?,
            "max_evaluations" => o.max_evaluations = value.extract()?,
            "onlooker" => {
                o.stop = Stop::listening();
                onlooker = Some(value.unbind());
            }
            other => return Err(PyValueError::new_err(format!("unknown option '{other}'"))),
        }
    }
    if !(o.tolerance > 0.0) {
        return Err(PyValueError::new_err("tolerance must be positive"));
    }
    let watch = Watch { stop: o.stop.clone(), onlooker };
    Ok((o, watch))
}

/// Column-major square matrix as a numpy array (it is symmetric, so the order does not matter) or its transpose.
pub fn matrix<'py>(py: Python<'py>, a: Vec<f64>, n: usize) -> PyResult<Bound<'py, PyArray2<f64>>> {
    a.into_pyarray(py).reshape([n, n])
}

pub fn rows_by<'py>(py: Python<'py>, a: Vec<f64>, rows: usize, cols: usize) -> PyResult<Bound<'py, PyArray2<f64>>> {
    a.into_pyarray(py).reshape([rows, cols])
}

pub fn vector<'py>(py: Python<'py>, a: &[f64]) -> Bound<'py, PyArray1<f64>> {
    PyArray1::from_slice(py, a)
}

/// Lambda and the conditional modes of every term.
pub fn set_terms(d: &Bound<'_, PyDict>, lambda: Vec<Vec<f64>>, modes: Vec<Vec<f64>>) -> PyResult<()> {
    let py = d.py();
    let (factors, b) = (PyList::empty(py), PyList::empty(py));
    for (l, modes) in lambda.into_iter().zip(modes) {
        let k = (l.len() as f64).sqrt().round() as usize;
        let row_major: Vec<f64> = (0..k * k).map(|t| l[t / k + (t % k) * k]).collect();
        factors.append(rows_by(py, row_major, k, k)?)?;
        let levels = modes.len() / k.max(1);
        b.append(rows_by(py, modes, levels, k)?)?;
    }
    d.set_item("lambda", factors)?;
    d.set_item("b", b)
}

/// How the search ended; `last` is the decrease that one more step promises and the least curvature.
pub fn set_search(
    d: &Bound<'_, PyDict>,
    outcome: Outcome,
    evaluations: usize,
    iterations: usize,
    gradient: &[f64],
    last: (f64, f64),
) -> PyResult<()> {
    d.set_item("outcome", outcome.name())?;
    d.set_item("evaluations", evaluations)?;
    d.set_item("iterations", iterations)?;
    d.set_item("gradient", vector(d.py(), gradient))?;
    d.set_item("decrease", last.0)?;
    d.set_item("curvature", last.1)
}

/// The covariances that are not of full rank, with their multipliers.
pub fn set_boundary(d: &Bound<'_, PyDict>, found: Vec<Boundary>) -> PyResult<()> {
    let (boundary, multipliers) = (PyList::empty(d.py()), PyList::empty(d.py()));
    for x in found {
        let kind = if x.rank == 0 { "variance" } else { "correlation" };
        boundary.append((x.term, kind, x.rank))?;
        multipliers.append(x.multipliers)?;
    }
    d.set_item("boundary", boundary)?;
    d.set_item("multipliers", multipliers)
}

fn report<'py>(py: Python<'py>, r: Report) -> PyResult<Bound<'py, PyDict>> {
    let d = PyDict::new(py);
    d.set_item("theta", vector(py, &r.theta))?;
    d.set_item("criterion", r.criterion)?;
    let p = r.vcov.len().isqrt();
    d.set_item("beta", vector(py, &r.beta))?;
    d.set_item("vcov", matrix(py, r.vcov, p)?)?;
    d.set_item("sigma", r.sigma)?;
    d.set_item("pwrss", r.pwrss)?;
    d.set_item("logdet_z", r.logdet_z)?;
    d.set_item("logdet_x", r.logdet_x)?;
    set_terms(&d, r.lambda, r.b)?;
    set_search(&d, r.outcome, r.evaluations, r.iterations, &r.gradient, (r.decrease, r.curvature))?;
    set_boundary(&d, r.boundary)?;
    Ok(d)
}

impl Lmm {
    /// Rows over all columns.
    fn whole_rows<'a>(&self, rows: &'a PyReadonlyArray2<'_, f64>) -> PyResult<Cow<'a, [f64]>> {
        let (k, width) = rows.as_array().dim();
        let columns = self.model.lmm.moments.user_columns();
        if k == 0 || width != columns {
            return Err(PyValueError::new_err(format!("rows of {width} columns, the model has {columns}")));
        }
        Ok(by_rows(rows))
    }

    /// The model at its state, wherever derivatives have left its factor.
    fn settled<'py>(this: &Bound<'py, Self>) -> PyResult<PyRef<'py, Self>> {
        if this.try_borrow()?.model.is_away() {
            this.try_borrow_mut()?.watched(this.py(), Model::recover)?;
        }
        Ok(this.try_borrow()?)
    }

    /// Work on the model that Ctrl-C ends, where it is long; the model is then where it was.
    fn watched<T: Send>(
        &mut self,
        py: Python<'_>,
        work: impl FnOnce(&mut Model) -> Result<T, CoreError> + Send,
    ) -> PyResult<T> {
        let (stop, long) = (Stop::default(), is_long(self.n(), self.flops()));
        let (model, ends) = (&mut self.model, stop.clone());
        search(py, &self.pool, &stop, long, move || model.until(&ends, work))
    }
}

#[pymethods]
impl Lmm {
    #[new]
    #[pyo3(signature = (fixed, terms, y, weights=None, offset=None, threads=0))]
    fn new<'py>(
        py: Python<'py>,
        fixed: &Bound<'py, PyAny>,
        terms: &Bound<'py, PyAny>,
        y: PyReadonlyArray1<'py, f64>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        offset: Option<PyReadonlyArray1<'py, f64>>,
        threads: usize,
    ) -> PyResult<Self> {
        let pool = pool(threads)?;
        let arrays = RowArrays::new(fixed, terms, y, weights, offset)?;
        let rows = arrays.view()?;
        let model = solve(py, &pool, || Model::new(&rows))?;
        Ok(Lmm { model, pool })
    }

    /// Say that the rows stand for `total` ones, and what the residual variance is, where it is known; before a fit.
    #[pyo3(signature = (total=None, variance=None))]
    fn assume(&mut self, total: Option<f64>, variance: Option<f64>) -> PyResult<()> {
        self.model.assume(total, variance).map_err(to_python)
    }

    #[getter]
    fn n(&self) -> usize {
        self.model.lmm.moments.n
    }

    /// Columns whose covariances are matrices: all but those of wide factors.
    #[getter]
    fn p(&self) -> usize {
        self.model.lmm.moments.p_total
    }

    #[getter]
    fn rank(&self) -> usize {
        self.model.lmm.moments.rank()
    }

    #[getter]
    fn dropped(&self) -> Vec<usize> {
        self.model.dropped()
    }

    /// Positions of the `p` columns among all.
    #[getter]
    fn columns(&self) -> Vec<usize> {
        self.model.lmm.moments.columns.clone()
    }

    /// First column of every wide factor and how many it has.
    #[getter]
    fn wide(&self) -> Vec<(usize, usize)> {
        self.model.lmm.moments.wide.iter().map(|w| (w.first, w.cols())).collect()
    }

    /// Covariances of the coefficients of some columns.
    fn covariance_of<'py>(slf: &Bound<'py, Self>, columns: Vec<usize>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (py, this) = (slf.py(), Self::settled(slf)?);
        let model = &this.model;
        let v = solve(py, &this.pool, || model.covariance_of(&columns))?;
        matrix(py, v, columns.len())
    }

    /// L Var(beta_hat) L' for rows over all columns.
    fn covariance_of_rows<'py>(
        slf: &Bound<'py, Self>,
        rows: PyReadonlyArray2<'py, f64>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (py, this) = (slf.py(), Self::settled(slf)?);
        let (model, rows, k) = (&this.model, this.whole_rows(&rows)?, rows.as_array().nrows());
        let v = solve(py, &this.pool, || model.covariance_of_rows(&rows))?;
        matrix(py, v, k)
    }

    /// L Var(beta_hat) for rows over all columns.
    fn covariance_with_rows<'py>(
        slf: &Bound<'py, Self>,
        rows: PyReadonlyArray2<'py, f64>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let (py, this) = (slf.py(), Self::settled(slf)?);
        let (model, values, shape) = (&this.model, this.whole_rows(&rows)?, rows.as_array().raw_dim());
        let v = solve(py, &this.pool, || model.covariance_with_rows(&values))?;
        v.into_pyarray(py).reshape([shape[0], shape[1]])
    }

    /// Z'V*^-1 X (X'V*^-1X)^-1 l for rows l over all columns, per term (levels, columns, rows).
    fn sensitivity_of_rows<'py>(
        &mut self,
        py: Python<'py>,
        rows: PyReadonlyArray2<'py, f64>,
        theta: PyReadonlyArray1<'py, f64>,
        reml: bool,
    ) -> PyResult<Vec<Bound<'py, PyArray3<f64>>>> {
        let (values, theta, k) = (self.whole_rows(&rows)?, floats(&theta)?, rows.as_array().nrows());
        let found = self.watched(py, |model| model.sensitivity_of_rows(&values, theta, reml))?;
        let cols: Vec<usize> = {
            let mut slots: Vec<_> = self.model.lmm.moments.factors.iter().flat_map(|f| &f.slots).collect();
            slots.sort_by_key(|s| s.term);
            slots.iter().map(|s| s.cols).collect()
        };
        let shaped = found.into_iter().zip(cols).map(|(g, c)| {
            let levels = g.len() / (c * k).max(1);
            g.into_pyarray(py).reshape([levels, c, k])
        });
        shaped.collect()
    }

    /// Variances of the coefficients of wide factors, one factor after the other.
    fn level_variances<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let v = self.watched(py, |model| model.level_variances())?;
        Ok(v.into_pyarray(py))
    }

    #[getter]
    fn ntheta(&self) -> usize {
        self.model.theta_len()
    }

    /// Multiplications of one factorisation, for benchmarks.
    #[getter]
    fn flops(&self) -> f64 {
        self.model.lmm.symbolic.flops()
    }

    /// Sizes of the elimination, for benchmarks: nodes, supernodes, entries of the factor, largest front.
    #[getter]
    fn structure(&self) -> (usize, usize, usize, usize) {
        let s = &self.model.lmm.symbolic;
        let widest = s.supers.iter().map(|s| (s.width + s.below) as usize).max().unwrap_or(0);
        (s.nodes, s.supers.len(), s.panel_size, widest)
    }

    #[pyo3(signature = (reml, start=None, options=None))]
    fn fit<'py>(
        &mut self,
        py: Python<'py>,
        reml: bool,
        start: Option<PyReadonlyArray1<'py, f64>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (opts, watch) = self::options(options)?;
        let start = start.as_ref().map(floats).transpose()?;
        let long = is_long(self.n(), self.flops());
        let model = &mut self.model;
        let r = search(py, &self.pool, watch, long, || model.fit(reml, start, &opts))?;
        report(py, r)
    }

    fn evaluate<'py>(
        &mut self,
        py: Python<'py>,
        theta: PyReadonlyArray1<'py, f64>,
        reml: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let theta = floats(&theta)?;
        let e = self.watched(py, |model| model.evaluate(theta, reml))?;
        let d = PyDict::new(py);
        d.set_item("criterion", e.criterion)?;
        d.set_item("gradient", vector(py, &e.gradient))?;
        d.set_item("beta", vector(py, &e.beta))?;
        d.set_item("sigma", e.sigma)?;
        d.set_item("pwrss", e.pwrss)?;
        d.set_item("logdet_z", e.logdet_z)?;
        d.set_item("logdet_x", e.logdet_x)?;
        Ok(d)
    }

    fn cond_cov<'py>(slf: &Bound<'py, Self>, term: usize) -> PyResult<Bound<'py, PyArray3<f64>>> {
        let (py, this) = (slf.py(), Self::settled(slf)?);
        let model = &this.model;
        let v = ask(py, &this.pool, model, this.n(), || model.conditional_covariance(term))?;
        let k = model.lmm.moments.factors.iter().flat_map(|f| &f.slots).find(|s| s.term == term).map_or(1, |s| s.cols);
        let levels = v.len() / (k * k);
        v.into_pyarray(py).reshape([levels, k, k])
    }

    /// Variance of x'beta_hat + z'(b_hat - b); `which[t]` False leaves term t out (its codes are not read).
    fn predict_var<'py>(
        slf: &Bound<'py, Self>,
        fixed: &Bound<'py, PyAny>,
        terms: &Bound<'py, PyAny>,
        n: usize,
        which: Vec<bool>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let (py, this) = (slf.py(), Self::settled(slf)?);
        let fixed = blocks(fixed)?;
        let mut arrays: Vec<Option<(CodeArray<'py>, Vec<BlockArrays<'py>>)>> = vec![];
        for (t, use_it) in terms.try_iter()?.zip(&which) {
            let t = t?;
            arrays.push(if *use_it {
                let codes = CodeArray::new(&t.get_item(0)?)?;
                let last = t.len()? - 1;
                Some((codes, blocks(&t.get_item(last)?)?))
            } else {
                None
            });
        }
        let fixed = block_views(&fixed)?;
        let mut views: Vec<Option<(Codes<'_>, Vec<Block<'_>>)>> = vec![];
        for a in &arrays {
            views.push(match a {
                Some((c, b)) => Some((c.view()?, block_views(b)?)),
                None => None,
            });
        }
        let model = &this.model;
        let v = ask(py, &this.pool, model, n, || model.prediction_variance(n, &fixed, &views))?;
        Ok(v.into_pyarray(py))
    }

    fn hessian<'py>(
        &mut self,
        py: Python<'py>,
        theta: PyReadonlyArray1<'py, f64>,
        sigma: f64,
        reml: bool,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let theta = floats(&theta)?;
        let h = self.watched(py, |model| model.hessian(theta, sigma, reml))?;
        matrix(py, h, theta.len() + 1)
    }

    /// d vcov / d (theta, sigma) (m, p, p), asymptotic covariance of (theta, sigma) (m, m), and Satterthwaite's degrees of
    /// freedom of every column (p,).
    fn satterthwaite<'py>(
        &mut self,
        py: Python<'py>,
        theta: PyReadonlyArray1<'py, f64>,
        sigma: f64,
        reml: bool,
        flat: f64,
    ) -> PyResult<(Bound<'py, PyArray3<f64>>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<f64>>)> {
        let theta = floats(&theta)?;
        let (m, p) = (theta.len() + 1, self.p());
        let found = self.watched(py, |model| model.satterthwaite(theta, sigma, reml, flat))?;
        let slopes = found.slopes.into_pyarray(py).reshape([m, p, p])?;
        Ok((slopes, matrix(py, found.spread, m)?, found.df.into_pyarray(py)))
    }

    /// (term, row, column) of every entry of Sigma that `kenward_roger` differentiates by, in the core's own columns of
    /// the term: b_own = b + shift'b on the carrier.
    #[getter]
    fn entries(&self) -> Vec<(usize, usize, usize)> {
        let lmm = &self.model.lmm;
        let at = |c: &ranef_core::linear::Component| {
            let slot = &lmm.moments.factors[c.factor].slots[c.slot];
            (slot.term, c.row - slot.offset, c.col - slot.offset)
        };
        lmm.components.iter().map(at).collect()
    }

    /// Carrier and shifts of a term's columns.
    fn shift(&self, term: usize) -> (Option<usize>, Vec<f64>) {
        let slots = self.model.lmm.moments.factors.iter().flat_map(|f| &f.slots);
        slots.into_iter().find(|s| s.term == term).map_or((None, vec![]), |s| (s.carrier, s.shift.clone()))
    }

    /// What small-sample theory takes from the model at theta and the sigma that goes with it: slopes (m, p, p), bends
    /// (pairs, p, p), information (m, m), whether that is the expected one, and the observed one's pieces.
    #[pyo3(signature = (theta, reml=true))]
    fn kenward_roger<'py>(
        &mut self,
        py: Python<'py>,
        theta: PyReadonlyArray1<'py, f64>,
        reml: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let theta = floats(&theta)?;
        let model = &mut self.model;
        let p = model.lmm.moments.p_total;
        let c = theta.len();
        let k = solve(py, &self.pool, || model.kenward_roger(theta, reml))?;
        let d = PyDict::new(py);
        d.set_item("slopes", k.slopes.into_pyarray(py).reshape([c + 1, p, p])?)?;
        d.set_item("bends", k.bends.into_pyarray(py).reshape([c * (c + 1) / 2, p, p])?)?;
        d.set_item("information", matrix(py, k.information, c + 1)?)?;
        d.set_item("exact", k.exact)?;
        d.set_item("average", matrix(py, k.average, c + 1)?)?;
        d.set_item("traces", vector(py, &k.traces))?;
        d.set_item("squares", vector(py, &k.squares))?;
        Ok(d)
    }

    /// Fit the same design to the columns of `y` (n x m, Fortran order) in parallel. The rows are handed in again.
    #[pyo3(signature = (y, fixed, terms, weights=None, offset=None, reml=true, options=None))]
    #[allow(clippy::too_many_arguments)]
    fn refit<'py>(
        &self,
        py: Python<'py>,
        y: PyReadonlyArray2<'py, f64>,
        fixed: &Bound<'py, PyAny>,
        terms: &Bound<'py, PyAny>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        offset: Option<PyReadonlyArray1<'py, f64>>,
        reml: bool,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (opts, watch) = self::options(options)?;
        let view = y.as_array();
        let (n, m) = view.dim();
        if n != self.model.lmm.moments.n {
            return Err(PyValueError::new_err(format!(
                "responses have {n} rows, the model {}",
                self.model.lmm.moments.n
            )));
        }
        let columns: Vec<Vec<f64>> = (0..m).map(|j| view.column(j).to_vec()).collect();
        let first = PyArray1::from_vec(py, columns.first().cloned().unwrap_or_else(|| vec![0.0; n])).readonly();
        let arrays = RowArrays::new(fixed, terms, first, weights, offset)?;
        let rows = arrays.view()?;
        let refs: Vec<&[f64]> = columns.iter().map(|c| c.as_slice()).collect();
        let model = &self.model;
        let long = is_long(n * m, self.flops() * m as f64);
        let fits = search(py, &self.pool, watch, long, || {
            rows.check()?;
            model.refit(&rows, &refs, reml, &opts)
        })?;
        let out = PyList::empty(py);
        for f in fits {
            match f {
                Ok(r) => out.append(report(py, r)?)?,
                Err(e) => out.append(e.to_string())?,
            }
        }
        Ok(out)
    }

    /// The optimum by maximum likelihood from theta, as the centre of profiles. The model itself stays where it is.
    fn profile_centre<'py>(
        &self,
        py: Python<'py>,
        theta: PyReadonlyArray1<'py, f64>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (opts, watch) = self::options(options)?;
        let theta = floats(&theta)?;
        let model = &self.model;
        let long = is_long(self.n(), self.flops());
        let c = search(py, &self.pool, watch, long, || Linear::centre(model, theta, &opts))?;
        profile::centre(py, c)
    }

    /// Curves of parameters; `targets` are values of |zeta|, true where exactly that value is wanted.
    fn profile<'py>(
        &self,
        py: Python<'py>,
        x: PyReadonlyArray1<'py, f64>,
        deviance: f64,
        hessian: PyReadonlyArray2<'py, f64>,
        asked: Vec<profile::Asked>,
        targets: Vec<(f64, bool)>,
    ) -> PyResult<Bound<'py, PyList>> {
        let size = self.model.theta_len() + 1;
        let centre = profile::centre_from(&x, deviance, &hessian, vec![false; size])?;
        let mut requests = vec![];
        for a in &asked {
            let outside = a.0 == "beta";
            let m = &self.model.lmm.moments;
            let column = a.1.first().and_then(|j| m.columns.iter().position(|c| c == j));
            if outside && column.is_none_or(|j| !m.kept.contains(&j)) {
                return Err(PyValueError::new_err("profile: there is no such coefficient"));
            }
            let hold = if outside { Hold::Outside } else { profile::hold(a, 0, size)? };
            requests.push((Request::new(hold, &centre.x, a.3, a.4), column.filter(|_| outside)));
        }
        let (model, stop) = (&self.model, Stop::default());
        let long = is_long(self.n(), 100.0 * self.flops());
        let found = search(py, &self.pool, &stop, long, || Linear::curves(model, &centre, &requests, &targets, &stop))?;
        profile::curves(py, found)
    }

    fn moments_state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.model.to_bytes().map_err(to_python)?;
        Ok(PyBytes::new(py, &bytes))
    }

    #[staticmethod]
    #[pyo3(signature = (state, threads=0))]
    fn from_state(py: Python<'_>, state: &Bound<'_, PyBytes>, threads: usize) -> PyResult<Self> {
        let pool = pool(threads)?;
        let bytes = state.as_bytes();
        let model = solve(py, &pool, || Model::from_bytes(bytes))?;
        Ok(Lmm { model, pool })
    }
}
