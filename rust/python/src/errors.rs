//! The one place where an error of the core becomes a Python exception.

use pyo3::exceptions::{PyImportError, PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;
use ranef_core::CoreError;

pub fn to_python(e: CoreError) -> PyErr {
    match e {
        CoreError::Interrupted => PyKeyboardInterrupt::new_err(()),
        e => PyValueError::new_err(e.to_string()),
    }
}

/// The wheels use AVX2 and FMA; say so instead of dying with an illegal instruction.
pub fn check_processor() -> PyResult<()> {
    #[cfg(target_arch = "x86_64")]
    if cfg!(target_feature = "avx2") && !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return Err(PyImportError::new_err(
            "this build of ranef needs a processor with AVX2 and FMA; build it from source for this machine",
        ));
    }
    let _ = PyImportError::new_err::<&str>;
    Ok(())
}
