//! Families for Python: the table, and a family's functions on plain arrays.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use ranef_core::family::{table, Data, External, Family, Link, Spec, Stream};

use crate::columns::by_rows;
use crate::errors::to_python;

/// An entry of a dictionary, if it is there and not None.
fn entry<'py, T>(d: &Bound<'py, PyDict>, key: &str) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py>,
    for<'a> <T as FromPyObject<'a, 'py>>::Error: Into<PyErr>,
{
    match d.get_item(key)? {
        Some(v) if !v.is_none() => v.extract().map(Some).map_err(Into::into),
        _ => Ok(None),
    }
}

/// A log density written in Python: `call(y, trials, eta, order, censor, upper)` returns an (n, stride) array, or raises;
/// order is 0, 2, 3 or 4.
#[derive(Debug)]
pub struct Callback {
    call: Py<PyAny>,
    k: usize,
    raised: Mutex<Option<PyErr>>,
}

impl Callback {
    /// What the function raised, once.
    pub fn take(&self) -> Option<PyErr> {
        self.raised.lock().map_or(None, |mut r| r.take())
    }

    fn ask(
        &self,
        py: Python<'_>,
        data: &Data<'_>,
        from: usize,
        eta: &[f64],
        order: usize,
        out: &mut [f64],
    ) -> PyResult<()> {
        let n = eta.len() / self.k;
        let part = |a: &[f64]| PyArray1::from_slice(py, &a[from..from + n]);
        let (trials, upper) = (data.trials.map(part), data.upper.map(part));
        let censor = data.censor.map(|c| PyArray1::from_slice(py, &c[from..from + n]));
        let eta = PyArray1::from_slice(py, eta).reshape([n, self.k])?;
        let found = self.call.call1(py, (part(data.y), trials, eta, order, censor, upper))?;
        let found: PyReadonlyArray2<'_, f64> = found.extract(py)?;
        let values = by_rows(&found);
        if values.len() != out.len() {
            return Err(PyValueError::new_err(format!("{} derivatives, {} are needed", values.len(), out.len())));
        }
        out.copy_from_slice(&values);
        Ok(())
    }
}

impl External for Callback {
    /// After the first exception the function is not asked again: everything is NaN, which ends the search.
    fn evaluate(&self, data: &Data<'_>, from: usize, eta: &[f64], order: usize, out: &mut [f64]) {
        out.fill(f64::NAN);
        if self.raised.lock().map_or(true, |r| r.is_some()) {
            return;
        }
        if let Err(e) = Python::attach(|py| self.ask(py, data, from, eta, order, out)) {
            out.fill(f64::NAN);
            if let Ok(mut raised) = self.raised.lock() {
                raised.get_or_insert(e);
            }
        }
    }
}

/// The family of a spec with an entry "external" (see [`Callback`]) and "begin", where its predictors begin, or that of
/// `family_from`.
pub fn any_family_from(d: &Bound<'_, PyDict>) -> PyResult<(Family, Option<Arc<Callback>>)> {
    let Some(call) = entry::<Py<PyAny>>(d, "external")? else { return Ok((family_from(d)?, None)) };
    let begin: Vec<f64> = entry(d, "begin")?.unwrap_or_default();
    let callback = Arc::new(Callback { call, k: begin.len(), raised: Mutex::new(None) });
    Ok((Family::external(begin, callback.clone()).map_err(to_python)?, Some(callback)))
}

/// A family from {"name", "links", "zero_inflation", "hurdle", "truncated", "constants", "categories", "scaled"}.
pub fn family_from(d: &Bound<'_, PyDict>) -> PyResult<Family> {
    let links: Vec<String> = entry(d, "links")?.unwrap_or_default();
    let links: Result<Vec<Link>, _> = links.iter().map(|l| Link::parse(l)).collect();
    let constants = match entry::<Bound<'_, PyDict>>(d, "constants")? {
        Some(c) => c.iter().map(|(k, v)| Ok((k.extract()?, v.extract()?))).collect::<PyResult<_>>()?,
        None => vec![],
    };
    let name: Option<String> = entry(d, "name")?;
    Family::new(&Spec {
        name: name.ok_or_else(|| PyValueError::new_err("a family needs a name"))?,
        links: links.map_err(to_python)?,
        zero_inflation: entry(d, "zero_inflation")?.unwrap_or(false),
        hurdle: entry(d, "hurdle")?.unwrap_or(false),
        truncated: entry(d, "truncated")?.unwrap_or(false),
        scaled: entry(d, "scaled")?.unwrap_or(false),
        constants,
        categories: entry(d, "categories")?.unwrap_or(0),
    })
    .map_err(to_python)
}

/// The response and its companions, held for the length of a call.
pub struct DataArrays<'py> {
    y: PyReadonlyArray1<'py, f64>,
    trials: Option<PyReadonlyArray1<'py, f64>>,
    upper: Option<PyReadonlyArray1<'py, f64>>,
    censor: Option<PyReadonlyArray1<'py, i8>>,
    se: Option<PyReadonlyArray1<'py, f64>>,
    randomised: Option<(PyReadonlyArray1<'py, f64>, PyReadonlyArray1<'py, f64>)>,
    bounds: Option<PyReadonlyArray2<'py, f64>>,
}

fn column<'a, T: numpy::Element>(a: &'a PyReadonlyArray1<'_, T>, name: &str, n: usize) -> PyResult<&'a [T]> {
    if a.len() != n {
        return Err(PyValueError::new_err(format!("{name} has {} entries, y has {n}", a.len())));
    }
    a.as_slice().map_err(|_| PyValueError::new_err(format!("{name} is not contiguous")))
}

/// Two numbers a row.
fn pairs<'a>(a: &'a PyReadonlyArray2<'_, f64>, name: &str, n: usize) -> PyResult<&'a [f64]> {
    if a.shape() != [n, 2] {
        return Err(PyValueError::new_err(format!("{name} must be {n} x 2, it is {:?}", a.shape())));
    }
    a.as_slice().map_err(|_| PyValueError::new_err(format!("{name} is not contiguous")))
}

impl<'py> DataArrays<'py> {
    pub fn new(d: &Bound<'py, PyDict>) -> PyResult<Self> {
        let y: Option<PyReadonlyArray1<'py, f64>> = entry(d, "y")?;
        Ok(DataArrays {
            y: y.ok_or_else(|| PyValueError::new_err("the data need a response y"))?,
            trials: entry(d, "trials")?,
            upper: entry(d, "upper")?,
            censor: entry(d, "censor")?,
            se: entry(d, "se")?,
            randomised: entry(d, "randomised")?,
            bounds: entry(d, "bounds")?,
        })
    }

    pub fn view(&self) -> PyResult<Data<'_>> {
        let n = self.y.len();
        Ok(Data {
            y: column(&self.y, "y", n)?,
            trials: self.trials.as_ref().map(|a| column(a, "trials", n)).transpose()?,
            upper: self.upper.as_ref().map(|a| column(a, "upper", n)).transpose()?,
            censor: self.censor.as_ref().map(|a| column(a, "censor", n)).transpose()?,
            se: self.se.as_ref().map(|a| column(a, "se", n)).transpose()?,
            randomised: match &self.randomised {
                Some((c, d)) => Some((column(c, "c", n)?, column(d, "d", n)?)),
                None => None,
            },
            bounds: self.bounds.as_ref().map(|a| pairs(a, "bounds", n)).transpose()?,
        })
    }
}

fn predictors<'a>(f: &Family, data: &Data<'_>, eta: &'a PyReadonlyArray2<'_, f64>) -> PyResult<Cow<'a, [f64]>> {
    let (n, k) = (data.y.len(), f.parameters());
    if eta.shape() != [n, k] {
        return Err(PyValueError::new_err(format!("eta must be {n} x {k}, it is {:?}", eta.shape())));
    }
    Ok(by_rows(eta))
}

/// The table of families, one dictionary each.
#[pyfunction]
fn families(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    for e in table() {
        let d = PyDict::new(py);
        d.set_item("name", e.name)?;
        d.set_item("aliases", e.aliases.to_vec())?;
        let parameters = PyList::empty(py);
        for p in e.parameters {
            let q = PyDict::new(py);
            q.set_item("name", p.name)?;
            q.set_item("range", p.range.name())?;
            q.set_item("link", p.link.name())?;
            q.set_item("links", e.links(p).iter().map(|l| l.name()).collect::<Vec<_>>())?;
            q.set_item("meaning", p.meaning)?;
            parameters.append(q)?;
        }
        d.set_item("parameters", parameters)?;
        d.set_item("support", e.support.name())?;
        d.set_item("discrete", e.support.is_discrete())?;
        d.set_item("trials", e.has_trials())?;
        d.set_item("truncation", e.allows_truncation())?;
        d.set_item("zero_inflation", e.allows_zero_inflation())?;
        d.set_item("note", e.note)?;
        list.append(d)?;
    }
    Ok(list)
}

/// log f and its derivatives: (n, stride) with stride 1, 1 + K + K(K+1)/2, ... for order 0, 2, 3.
#[pyfunction]
#[pyo3(signature = (spec, data, eta, order = 0))]
fn family_eval<'py>(
    py: Python<'py>,
    spec: &Bound<'py, PyDict>,
    data: &Bound<'py, PyDict>,
    eta: PyReadonlyArray2<'py, f64>,
    order: usize,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let f = family_from(spec)?;
    let arrays = DataArrays::new(data)?;
    let view = arrays.view()?;
    let eta = &predictors(&f, &view, &eta)?;
    let (n, stride) = (view.y.len(), f.stride(order));
    let mut out = vec![0.0; n * stride];
    py.detach(|| f.evaluate(&view, 0, eta, order, &mut out));
    PyArray1::from_vec(py, out).reshape([n, stride])
}

/// A number a row from the linear predictors.
fn per_row<'py>(
    py: Python<'py>,
    spec: &Bound<'py, PyDict>,
    data: &Bound<'py, PyDict>,
    eta: &PyReadonlyArray2<'py, f64>,
    run: impl Fn(&Family, &Data<'_>, &[f64], &mut [f64]) + Send + Sync,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let f = family_from(spec)?;
    let arrays = DataArrays::new(data)?;
    let view = arrays.view()?;
    let eta = &predictors(&f, &view, eta)?;
    let mut out = vec![0.0; view.y.len()];
    py.detach(|| run(&f, &view, eta, &mut out));
    Ok(PyArray1::from_vec(py, out))
}

#[pyfunction]
fn family_mean<'py>(
    py: Python<'py>,
    spec: &Bound<'py, PyDict>,
    data: &Bound<'py, PyDict>,
    eta: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    per_row(py, spec, data, &eta, |f, d, e, o| f.mean(d, 0, e, o))
}

/// Slopes of the mean in the predictors of rows with bounds, (n, K).
#[pyfunction]
fn family_mean_slopes<'py>(
    py: Python<'py>,
    spec: &Bound<'py, PyDict>,
    data: &Bound<'py, PyDict>,
    eta: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let f = family_from(spec)?;
    let arrays = DataArrays::new(data)?;
    let view = arrays.view()?;
    let eta = &predictors(&f, &view, &eta)?;
    let mut out = vec![0.0; eta.len()];
    py.detach(|| f.mean_slopes(&view, eta, &mut out));
    PyArray1::from_vec(py, out).reshape([view.y.len(), f.parameters()])
}

#[pyfunction]
fn family_variance<'py>(
    py: Python<'py>,
    spec: &Bound<'py, PyDict>,
    data: &Bound<'py, PyDict>,
    eta: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    per_row(py, spec, data, &eta, |f, d, e, o| f.variance(d, 0, e, o))
}

#[pyfunction]
fn family_cdf<'py>(
    py: Python<'py>,
    spec: &Bound<'py, PyDict>,
    data: &Bound<'py, PyDict>,
    eta: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    per_row(py, spec, data, &eta, |f, d, e, o| f.cdf(d, 0, e, o))
}

#[pyfunction]
fn family_draw<'py>(
    py: Python<'py>,
    spec: &Bound<'py, PyDict>,
    data: &Bound<'py, PyDict>,
    eta: PyReadonlyArray2<'py, f64>,
    seed: u64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    per_row(py, spec, data, &eta, |f, d, e, o| f.draw(d, 0, e, &mut Stream::new(seed), o))
}

/// Starting values of the predictors' intercepts on the link scale.
#[pyfunction]
fn family_start(spec: &Bound<'_, PyDict>, data: &Bound<'_, PyDict>) -> PyResult<Vec<f64>> {
    let arrays = DataArrays::new(data)?;
    Ok(family_from(spec)?.start(&arrays.view()?, None))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(families, m)?)?;
    m.add_function(wrap_pyfunction!(family_eval, m)?)?;
    m.add_function(wrap_pyfunction!(family_mean, m)?)?;
    m.add_function(wrap_pyfunction!(family_mean_slopes, m)?)?;
    m.add_function(wrap_pyfunction!(family_variance, m)?)?;
    m.add_function(wrap_pyfunction!(family_cdf, m)?)?;
    m.add_function(wrap_pyfunction!(family_draw, m)?)?;
    m.add_function(wrap_pyfunction!(family_start, m)?)
}
