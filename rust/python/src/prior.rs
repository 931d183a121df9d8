//! The table of prior densities and their values.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use ranef_core::prior::{Of, Prior, TABLE};

use crate::columns::floats;
use crate::errors::to_python;

/// (name, what it is of, names of the leading parameters) of every density.
#[pyfunction]
fn priors() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    TABLE.iter().map(|(name, _, of, parameters)| (*name, of.name(), parameters.to_vec())).collect()
}

/// Log density of each number; of a vector or a k x k matrix (by columns) one value.
#[pyfunction]
fn prior_log_density<'py>(
    py: Python<'py>,
    name: &str,
    parameters: Vec<f64>,
    x: PyReadonlyArray1<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let prior = Prior::new(name, parameters).map_err(to_python)?;
    let x = floats(&x)?;
    let out = match prior.of {
        Of::Real => x.iter().map(|&x| prior.scalar(x)).collect(),
        Of::Positive => x.iter().map(|&x| if x >= 0.0 { prior.scalar(x) } else { f64::NEG_INFINITY }).collect(),
        Of::Vector => vec![prior.vector(x).0],
        Of::Covariance | Of::Correlation => {
            let k = (x.len() as f64).sqrt().round() as usize;
            if k * k != x.len() {
                return Err(PyValueError::new_err("a matrix prior takes a square matrix"));
            }
            vec![prior.matrix(x, k).map_err(to_python)?.0]
        }
    };
    Ok(out.into_pyarray(py))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(priors, m)?)?;
    m.add_function(wrap_pyfunction!(prior_log_density, m)?)
}
