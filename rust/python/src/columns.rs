//! numpy arrays held for the length of a call, and the views of them that the core reads.

use std::borrow::Cow;

use numpy::{
    PyArray2, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use ranef_core::design::{Block, Codes, Numeric, Rows, Structure, Term};

use crate::errors::to_python;

pub enum CodeArray<'py> {
    I8(PyReadonlyArray1<'py, i8>),
    I16(PyReadonlyArray1<'py, i16>),
    I32(PyReadonlyArray1<'py, i32>),
}

pub enum NumericArray<'py> {
    F64(PyReadonlyArray1<'py, f64>),
    F32(PyReadonlyArray1<'py, f32>),
    I64(PyReadonlyArray1<'py, i64>),
    I32(PyReadonlyArray1<'py, i32>),
}

pub fn contiguous<T>(v: Result<T, numpy::AsSliceError>) -> PyResult<T> {
    v.map_err(|_| PyValueError::new_err("array is not contiguous"))
}

/// A vector as it lies in memory.
pub fn floats<'a>(a: &'a PyReadonlyArray1<'_, f64>) -> PyResult<&'a [f64]> {
    contiguous(a.as_slice())
}

/// A matrix by rows, copied if it is stored otherwise: one that is stored by columns has a slice, too.
pub fn by_rows<'a>(a: &'a PyReadonlyArray2<'_, f64>) -> Cow<'a, [f64]> {
    match a.as_slice() {
        Ok(values) if a.is_c_contiguous() => Cow::Borrowed(values),
        _ => a.as_array().iter().copied().collect(),
    }
}

fn describe(v: &Bound<'_, PyAny>) -> String {
    match v.cast::<PyUntypedArray>() {
        Ok(a) => format!("a {}-dimensional array of {}", a.ndim(), a.dtype()),
        Err(_) => v.get_type().to_string(),
    }
}

/// Kind and width of an array's entries: every attempt to read it as another type would make an exception.
fn entries(v: &Bound<'_, PyAny>) -> (u8, usize) {
    v.cast::<PyUntypedArray>().map_or((b'O', 0), |a| {
        let dtype = a.dtype();
        (dtype.kind(), dtype.itemsize())
    })
}

impl<'py> CodeArray<'py> {
    pub fn new(v: &Bound<'py, PyAny>) -> PyResult<Self> {
        let found = match entries(v) {
            (b'i', 4) => v.extract().map(CodeArray::I32).ok(),
            (b'i', 2) => v.extract().map(CodeArray::I16).ok(),
            (b'i', 1) => v.extract().map(CodeArray::I8).ok(),
            _ => None,
        };
        if let Some(array) = found {
            return Ok(array);
        }
        Err(PyTypeError::new_err(format!("codes must be a vector of int8, int16 or int32, not {}", describe(v))))
    }

    pub fn view(&self) -> PyResult<Codes<'_>> {
        Ok(match self {
            CodeArray::I8(a) => Codes::I8(contiguous(a.as_slice())?),
            CodeArray::I16(a) => Codes::I16(contiguous(a.as_slice())?),
            CodeArray::I32(a) => Codes::I32(contiguous(a.as_slice())?),
        })
    }
}

impl<'py> NumericArray<'py> {
    pub fn new(v: &Bound<'py, PyAny>) -> PyResult<Self> {
        let found = match entries(v) {
            (b'f', 8) => v.extract().map(NumericArray::F64).ok(),
            (b'f', 4) => v.extract().map(NumericArray::F32).ok(),
            (b'i', 8) => v.extract().map(NumericArray::I64).ok(),
            (b'i', 4) => v.extract().map(NumericArray::I32).ok(),
            _ => None,
        };
        if let Some(array) = found {
            return Ok(array);
        }
        Err(PyTypeError::new_err(format!(
            "a numeric column must be a vector of float64, float32, int64 or int32, not {}",
            describe(v)
        )))
    }

    pub fn view(&self) -> PyResult<Numeric<'_>> {
        Ok(match self {
            NumericArray::F64(a) => Numeric::F64(floats(a)?),
            NumericArray::F32(a) => Numeric::F32(contiguous(a.as_slice())?),
            NumericArray::I64(a) => Numeric::I64(contiguous(a.as_slice())?),
            NumericArray::I32(a) => Numeric::I32(contiguous(a.as_slice())?),
        })
    }
}

/// (codes | None, contrast | None, x | None); a contrast (levels, columns) is that of indicators nobody wrote out.
pub struct BlockArrays<'py> {
    codes: Option<CodeArray<'py>>,
    contrast: Option<(Vec<f64>, usize, usize)>,
    x: Option<NumericArray<'py>>,
}

impl<'py> BlockArrays<'py> {
    pub fn new(v: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (codes, contrast, x): (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>) = v.extract()?;
        let codes = if codes.is_none() { None } else { Some(CodeArray::new(&codes)?) };
        let contrast = if contrast.is_none() {
            None
        } else if let Ok(a) = contrast.cast::<PyArray2<f64>>() {
            let (levels, cols) = (a.shape()[0], a.shape()[1]);
            Some((a.readonly().as_array().iter().copied().collect(), levels, cols))
        } else {
            let (levels, cols): (usize, usize) = contrast
                .extract()
                .map_err(|_| PyTypeError::new_err("a contrast must be a float64 matrix (levels x columns)"))?;
            Some((vec![], levels, cols))
        };
        if codes.is_some() != contrast.is_some() {
            return Err(PyValueError::new_err("a block has codes and a contrast, or neither"));
        }
        let x = if x.is_none() { None } else { Some(NumericArray::new(&x)?) };
        Ok(BlockArrays { codes, contrast, x })
    }

    pub fn view(&self) -> PyResult<Block<'_>> {
        let codes = self.codes.as_ref().map(|c| c.view()).transpose()?;
        let x = self.x.as_ref().map(|x| x.view()).transpose()?;
        Ok(match &self.contrast {
            Some((c, levels, cols)) => Block { codes, contrast: c, levels: *levels, cols: *cols, x },
            None => Block { codes, contrast: &[], levels: 0, cols: 1, x },
        })
    }
}

pub fn blocks<'py>(list: &Bound<'py, PyAny>) -> PyResult<Vec<BlockArrays<'py>>> {
    list.try_iter()?.map(|b| BlockArrays::new(&b?)).collect()
}

pub fn block_views<'a>(list: &'a [BlockArrays<'_>]) -> PyResult<Vec<Block<'a>>> {
    list.iter().map(|b| b.view()).collect()
}

/// (codes, levels, structure, blocks)
pub struct TermArrays<'py> {
    codes: CodeArray<'py>,
    levels: usize,
    structure: Structure,
    blocks: Vec<BlockArrays<'py>>,
}

impl<'py> TermArrays<'py> {
    pub fn new(t: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (codes, levels, structure, inner): (Bound<'py, PyAny>, usize, String, Bound<'py, PyAny>) = t.extract()?;
        Ok(TermArrays {
            codes: CodeArray::new(&codes)?,
            levels,
            structure: Structure::parse(&structure).map_err(to_python)?,
            blocks: blocks(&inner)?,
        })
    }

    pub fn view(&self) -> PyResult<Term<'_>> {
        Ok(Term {
            codes: self.codes.view()?,
            levels: self.levels,
            structure: self.structure,
            blocks: block_views(&self.blocks)?,
            joint: false,
            relation: None,
            fixed: false,
        })
    }
}

/// Everything of a model that has one entry a row.
pub struct RowArrays<'py> {
    fixed: Vec<BlockArrays<'py>>,
    terms: Vec<TermArrays<'py>>,
    y: PyReadonlyArray1<'py, f64>,
    weights: Option<PyReadonlyArray1<'py, f64>>,
    offset: Option<PyReadonlyArray1<'py, f64>>,
}

impl<'py> RowArrays<'py> {
    pub fn new(
        fixed: &Bound<'py, PyAny>,
        terms: &Bound<'py, PyAny>,
        y: PyReadonlyArray1<'py, f64>,
        weights: Option<PyReadonlyArray1<'py, f64>>,
        offset: Option<PyReadonlyArray1<'py, f64>>,
    ) -> PyResult<Self> {
        let list: PyResult<Vec<_>> = terms.try_iter()?.map(|t| TermArrays::new(&t?)).collect();
        Ok(RowArrays { fixed: blocks(fixed)?, terms: list?, y, weights, offset })
    }

    pub fn view(&self) -> PyResult<Rows<'_>> {
        let y = floats(&self.y)?;
        let terms: PyResult<Vec<Term<'_>>> = self.terms.iter().map(|t| t.view()).collect();
        Ok(Rows {
            n: y.len(),
            fixed: block_views(&self.fixed)?,
            terms: terms?,
            y,
            weights: self.weights.as_ref().map(floats).transpose()?,
            offset: self.offset.as_ref().map(floats).transpose()?,
        })
    }
}
