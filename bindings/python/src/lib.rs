//! The Python face of the engine: about ten functions, JSON bytes in and out.

mod bridge;
mod engine;
mod errors;
mod host;
mod runtime;
mod simulator;
mod stream;

use pyo3::prelude::*;

/// The native module `liter_llm._native`.
#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;
    use pyo3::types::PyBytes;

    #[pymodule_export]
    use crate::bridge::Bridge;
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::errors::EngineError;
    #[pymodule_export]
    use crate::host::Job;
    #[pymodule_export]
    use crate::simulator::Simulator;
    #[pymodule_export]
    use crate::stream::Stream;

    /// Called when the interpreter begins to exit: sync calls still in flight rest where they are.
    #[pyfunction]
    fn shutdown() {
        crate::runtime::begin_exit();
    }

    /// Reads and checks a request without sending it.
    #[pyfunction]
    fn validate_request(request: &[u8]) -> PyResult<()> {
        liter_llm::LlmRequest::from_json(request)
            .and_then(|request| request.validate())
            .map_err(|error| crate::errors::raise(&error))
    }

    /// The provider rows as JSON.
    #[pyfunction]
    fn providers(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
        let rows = liter_llm::providers::rows().map_err(|error| crate::errors::raise(&error))?;
        serde_json::to_vec(rows)
            .map(|json| PyBytes::new(py, &json))
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        py.import("atexit")?.call_method1("register", (module.getattr("shutdown")?,))?;
        Ok(())
    }
}
