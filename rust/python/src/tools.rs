//! Passes over columns that the frame and the predictions need.

use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use ranef_core::dense;
use ranef_core::design::{self, NewTerm};
use ranef_core::frame;
use ranef_core::gauss;
use ranef_core::suprema::{self, Law};

use crate::columns::{block_views, blocks, by_rows, contiguous, floats, CodeArray};
use crate::errors::to_python;

/// Whether any value is NaN or infinite.
#[pyfunction]
fn any_not_finite(py: Python<'_>, x: PyReadonlyArray1<'_, f64>) -> PyResult<bool> {
    let x = floats(&x)?;
    Ok(py.detach(|| frame::any_not_finite(x)))
}

/// Whether all values are whole numbers of at least 0.
#[pyfunction]
fn is_count(py: Python<'_>, x: PyReadonlyArray1<'_, f64>) -> PyResult<bool> {
    let x = floats(&x)?;
    Ok(py.detach(|| frame::is_count(x)))
}

/// Whether all values are equal (an empty column is constant).
#[pyfunction]
fn is_constant(py: Python<'_>, x: PyReadonlyArray1<'_, f64>) -> PyResult<bool> {
    let x = floats(&x)?;
    Ok(py.detach(|| x.is_empty() || frame::is_constant(x)))
}

/// Whether a code is negative, and whether every level 0..levels-1 occurs.
#[pyfunction]
fn code_use(py: Python<'_>, codes: &Bound<'_, PyAny>, levels: usize) -> PyResult<(bool, bool)> {
    let array = CodeArray::new(codes)?;
    let codes = array.view()?;
    Ok(py.detach(|| frame::code_use(&codes, levels)))
}

/// Rows of every level 0..levels-1; other codes are not counted.
#[pyfunction]
fn level_counts<'py>(py: Python<'py>, codes: &Bound<'py, PyAny>, levels: usize) -> PyResult<Bound<'py, PyArray1<i64>>> {
    if levels > 1 << 31 {
        return Err(PyValueError::new_err("too many levels"));
    }
    let array = CodeArray::new(codes)?;
    let codes = array.view()?;
    Ok(py.detach(|| frame::level_counts(&codes, levels)).into_pyarray(py))
}

type Factorized<'py> = (Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<i64>>);

/// Codes (int32) and sorted distinct values of an int64 column.
#[pyfunction]
fn factorize_int<'py>(py: Python<'py>, x: PyReadonlyArray1<'py, i64>) -> PyResult<Factorized<'py>> {
    let x = contiguous(x.as_slice())?;
    let (codes, uniques) = py.detach(|| frame::factorize_int(x));
    Ok((codes.into_pyarray(py), uniques.into_pyarray(py)))
}

/// Codes (int32) of the observed pairs in lexicographic order, and the pairs (m x 2).
#[pyfunction]
fn combine_codes<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    la: usize,
    b: &Bound<'py, PyAny>,
    lb: usize,
) -> PyResult<(Bound<'py, PyArray1<i32>>, Bound<'py, PyArray2<i64>>)> {
    let (a, b) = (CodeArray::new(a)?, CodeArray::new(b)?);
    let (a, b) = (a.view()?, b.view()?);
    for (c, l) in [(&a, la), (&b, lb)] {
        let (lo, hi) = c.range();
        if lo < 0 || hi as i64 >= l as i64 {
            return Err(PyValueError::new_err(format!("codes run from {lo} to {hi}, levels are 0..{l}")));
        }
    }
    if a.len() != b.len() {
        return Err(PyValueError::new_err("codes have different lengths"));
    }
    let (codes, pairs) = py.detach(|| frame::combine_codes(&a, la, &b, lb));
    let m = pairs.len();
    let flat: Vec<i64> = pairs.into_iter().flat_map(|(x, y)| [x, y]).collect();
    Ok((codes.into_pyarray(py), flat.into_pyarray(py).reshape([m, 2])?))
}

type Places<'py> = Bound<'py, PyArray1<i64>>;

/// The first of every different row of a matrix, in order, and which of them each row is.
#[pyfunction]
fn distinct_rows<'py>(py: Python<'py>, x: PyReadonlyArray2<'py, f64>) -> PyResult<(Places<'py>, Places<'py>)> {
    let (rows, cols) = (x.shape()[0], x.shape()[1]);
    let entries: &[f64] = &by_rows(&x);
    let (first, which) = py.detach(|| frame::distinct_rows(entries, rows, cols));
    Ok((first.into_pyarray(py), which.into_pyarray(py)))
}

/// Whether every kind of row of some blocks has a row of sign 0, or rows of both signs; False also beyond `most` kinds.
#[pyfunction]
fn signs_are_mixed(
    py: Python<'_>,
    fixed: &Bound<'_, PyAny>,
    sign: PyReadonlyArray1<'_, f64>,
    most: usize,
) -> PyResult<bool> {
    let fixed = blocks(fixed)?;
    let views = block_views(&fixed)?;
    let sign = floats(&sign)?;
    if let Some(own) = views.iter().find_map(|b| b.rows().filter(|&n| n != sign.len())) {
        return Err(PyValueError::new_err(format!("{} signs for {own} rows", sign.len())));
    }
    Ok(py.detach(|| design::signs_are_mixed(&views, sign, most)))
}

/// X beta + sum_t Z_t b_t + offset. `terms`: list of (codes, blocks); a code of -1 contributes nothing.
#[pyfunction]
#[pyo3(signature = (fixed, beta, terms, b, offset, n))]
fn linear_predictor<'py>(
    py: Python<'py>,
    fixed: &Bound<'py, PyAny>,
    beta: PyReadonlyArray1<'py, f64>,
    terms: &Bound<'py, PyAny>,
    b: Vec<PyReadonlyArray2<'py, f64>>,
    offset: Option<PyReadonlyArray1<'py, f64>>,
    n: usize,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let fixed = blocks(fixed)?;
    let mut arrays = vec![];
    for t in terms.try_iter()? {
        let t = t?;
        let last = t.len()? - 1;
        arrays.push((CodeArray::new(&t.get_item(0)?)?, blocks(&t.get_item(last)?)?));
    }
    if arrays.len() != b.len() {
        return Err(PyValueError::new_err("terms and modes have different lengths"));
    }
    let fixed = block_views(&fixed)?;
    let mut views = vec![];
    let b: Vec<_> = b.iter().map(by_rows).collect();
    for ((codes, inner), modes) in arrays.iter().zip(&b) {
        views.push(NewTerm { codes: codes.view()?, blocks: block_views(inner)?, b: modes });
    }
    let beta = floats(&beta)?;
    let offset = offset.as_ref().map(floats).transpose()?;
    let eta = py.detach(|| design::linear_predictor(n, &fixed, beta, &views, offset)).map_err(to_python)?;
    Ok(eta.into_pyarray(py))
}

/// n draws of a likelihood ratio that tests one variance against 0; see `ranef_core::suprema`.
///
/// `before` draws of the same seed, a multiple of 4,096, are left out.
#[pyfunction]
#[pyo3(signature = (mu, df, rest, xi, counts, power, effects, n, seed, before=0))]
fn variance_ratios<'py>(
    py: Python<'py>,
    mu: Vec<f64>,
    df: Vec<f64>,
    rest: f64,
    xi: Vec<f64>,
    counts: Vec<f64>,
    power: f64,
    effects: f64,
    n: usize,
    seed: u64,
    before: usize,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    if mu.len() != df.len() || xi.len() != counts.len() {
        return Err(PyValueError::new_err("eigenvalues and their degrees of freedom have different lengths"));
    }
    let law = Law { mu, df, rest, xi, counts, power, effects };
    Ok(py.detach(|| suprema::draws(&law, n, seed, before / suprema::BLOCK)).into_pyarray(py))
}

/// Nodes and weights of sums over decreasing numbers; see `ranef_core::gauss::rule`.
#[pyfunction]
#[pyo3(signature = (mu, error))]
fn gauss_rule<'py>(
    py: Python<'py>,
    mu: PyReadonlyArray1<'py, f64>,
    error: f64,
) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>)> {
    let (nodes, weights) = gauss::rule(floats(&mu)?, error);
    Ok((nodes.into_pyarray(py), weights.into_pyarray(py)))
}

/// Inverse of a symmetric matrix on the directions in which it curves upwards.
#[pyfunction]
fn inverse_upwards<'py>(
    py: Python<'py>,
    matrix: PyReadonlyArray2<'py, f64>,
    flat: f64,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let n = matrix.shape()[0];
    if matrix.shape()[1] != n {
        return Err(PyValueError::new_err("the matrix is not square"));
    }
    dense::inverse_upwards(&by_rows(&matrix), n, flat).into_pyarray(py).reshape([n, n])
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(gauss_rule, m)?)?;
    m.add_function(wrap_pyfunction!(inverse_upwards, m)?)?;
    m.add_function(wrap_pyfunction!(variance_ratios, m)?)?;
    m.add_function(wrap_pyfunction!(any_not_finite, m)?)?;
    m.add_function(wrap_pyfunction!(is_count, m)?)?;
    m.add_function(wrap_pyfunction!(is_constant, m)?)?;
    m.add_function(wrap_pyfunction!(code_use, m)?)?;
    m.add_function(wrap_pyfunction!(level_counts, m)?)?;
    m.add_function(wrap_pyfunction!(factorize_int, m)?)?;
    m.add_function(wrap_pyfunction!(combine_codes, m)?)?;
    m.add_function(wrap_pyfunction!(distinct_rows, m)?)?;
    m.add_function(wrap_pyfunction!(signs_are_mixed, m)?)?;
    m.add_function(wrap_pyfunction!(linear_predictor, m)?)
}
