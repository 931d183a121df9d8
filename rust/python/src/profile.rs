//! Profiles as Python sees them: what is held goes in as (kind, positions), curves come out as dictionaries.

use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use ranef_core::profile::{Centre, Curve, Hold};

use crate::columns::{by_rows, floats};
use crate::lmm::{matrix, rows_by, vector};

/// (kind, positions in theta, positions in theta, low, high); for kind "beta" the first position is the coefficient.
pub type Asked = (String, Vec<usize>, Vec<usize>, f64, f64);

pub fn centre<'py>(py: Python<'py>, c: Centre) -> PyResult<Bound<'py, PyDict>> {
    let d = PyDict::new(py);
    let n = c.x.len();
    d.set_item("x", vector(py, &c.x))?;
    d.set_item("deviance", c.deviance)?;
    d.set_item("hessian", matrix(py, c.hessian, n)?)?;
    d.set_item("frozen", c.frozen)?;
    Ok(d)
}

pub fn centre_from(
    x: &PyReadonlyArray1<'_, f64>,
    deviance: f64,
    hessian: &PyReadonlyArray2<'_, f64>,
    frozen: Vec<bool>,
) -> PyResult<Centre> {
    let x = floats(x)?.to_vec();
    let hessian = by_rows(hessian).into_owned();
    if hessian.len() != x.len() * x.len() || frozen.len() != x.len() {
        return Err(PyValueError::new_err("centre: sizes contradict each other"));
    }
    Ok(Centre { x, deviance, hessian, frozen })
}

/// What is held among the parameters of the covariances, which stand in x from `first` on.
pub fn hold(asked: &Asked, first: usize, size: usize) -> PyResult<Hold> {
    let (kind, a, b, ..) = asked;
    let at = |r: &[usize]| -> Vec<usize> { r.iter().map(|i| i + first).collect() };
    let (a, b) = (at(a), at(b));
    if a.is_empty() || a.iter().chain(&b).any(|&i| i >= size) {
        return Err(PyValueError::new_err("profile: a position lies outside the parameters"));
    }
    match (kind.as_str(), a.len(), b.len()) {
        ("coordinate", 1, 0) | ("row", 1, 0) => Ok(Hold::Coordinate(a[0])),
        ("row", _, 0) => Ok(Hold::Row(a)),
        ("lag", 2.., 0) => Ok(Hold::Lag(a)),
        ("pair", i, j) if i < j => Ok(Hold::Pair(a, b)),
        _ => Err(PyValueError::new_err(format!("profile: cannot hold a '{kind}'"))),
    }
}

pub fn curves<'py>(py: Python<'py>, found: Vec<Curve>) -> PyResult<Bound<'py, PyList>> {
    let out = PyList::empty(py);
    for c in found {
        let d = PyDict::new(py);
        let n = c.points.len();
        let pick = |f: fn(&ranef_core::profile::CurvePoint) -> f64| -> Vec<f64> { c.points.iter().map(f).collect() };
        d.set_item("value", vector(py, &pick(|p| p.value)))?;
        d.set_item("zeta", vector(py, &pick(|p| p.zeta)))?;
        d.set_item("slope", vector(py, &pick(|p| p.slope)))?;
        d.set_item("decrease", vector(py, &pick(|p| p.decrease)))?;
        let (wide, tall) = c.points.first().map_or((0, 0), |p| (p.x.len(), p.coefficients.len()));
        d.set_item("x", rows_by(py, c.points.iter().flat_map(|p| p.x.clone()).collect(), n, wide)?)?;
        d.set_item("beta", rows_by(py, c.points.iter().flat_map(|p| p.coefficients.clone()).collect(), n, tall)?)?;
        d.set_item("ends", (c.ends[0].name(), c.ends[1].name()))?;
        d.set_item("failures", c.failures)?;
        d.set_item("lowest", c.lowest)?;
        d.set_item("evaluations", c.evaluations)?;
        out.append(d)?;
    }
    Ok(out)
}
