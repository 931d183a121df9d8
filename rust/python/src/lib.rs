//! Python binding of ranef-core: conversions in, dictionaries out, the interpreter lock released in every solve.

mod columns;
mod errors;
mod family;
mod glmm;
mod lmm;
mod prior;
mod profile;
mod tools;

use pyo3::prelude::*;

/// A small model asks for memory some thousand times a fit.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::check_processor()?;
    m.add_class::<lmm::Lmm>()?;
    m.add_class::<glmm::Glmm>()?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    family::register(m)?;
    m.add_function(wrap_pyfunction!(glmm::structure_parameters, m)?)?;
    prior::register(m)?;
    tools::register(m)
}
