//! The one exception of the native module; Python turns its payload into the public error classes.

use liter_llm::LlmError;
use liter_llm_border::payload;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pyo3::create_exception!(
    liter_llm._native,
    EngineError,
    pyo3::exceptions::PyException,
    "An error of the engine: its one argument is the error's JSON as bytes."
);

/// The exception for an error in its border form.
pub fn engine_error(payload: &[u8]) -> PyErr {
    Python::attach(|py| EngineError::new_err((PyBytes::new(py, payload).unbind(),)))
}

/// The exception for an error.
pub fn raise(error: &LlmError) -> PyErr {
    engine_error(&payload(error))
}
