//! The Python face of the engine: about ten functions, JSON bytes in and out.

mod bridge;
mod catalog;
mod engine;
mod errors;
mod host;
mod lanes;
mod metrics;
mod policy;
mod queue;
mod records;
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
    use crate::catalog::Catalog;
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::errors::EngineError;
    #[pymodule_export]
    use crate::host::{Job, Jobs};
    #[pymodule_export]
    use crate::metrics::Metrics;
    #[pymodule_export]
    use crate::policy::{Question, Questions};
    #[pymodule_export]
    use crate::records::{Recorder, Records};
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

    /// A request in its neutral form, for who records what was asked.
    #[pyfunction]
    fn neutral_request<'py>(py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let request =
            liter_llm::LlmRequest::from_json(request).map_err(|error| crate::errors::raise(&error))?;
        serde_json::to_vec(&request)
            .map(|json| PyBytes::new(py, &json))
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    /// The seconds to wait before repeating an operation that failed, or `None` when it is not to be repeated: the
    /// engine's own decision. `repeats` were made already; `left` are the seconds left.
    #[pyfunction]
    #[pyo3(signature = (repeats, retryable, retry_after, left, max_retries, base, cap, longest_retry_after))]
    #[expect(clippy::too_many_arguments, reason = "plain values cross the border cheaper than an object")]
    fn retry_wait(
        repeats: u32,
        retryable: bool,
        retry_after: Option<f64>,
        left: Option<f64>,
        max_retries: u32,
        base: f64,
        cap: f64,
        longest_retry_after: f64,
    ) -> Option<f64> {
        liter_llm_border::retry_wait(&liter_llm_border::RetryFacts {
            repeats,
            retryable,
            retry_after,
            left,
            max_retries,
            base,
            cap,
            longest_retry_after,
        })
    }

    /// The provider rows as JSON.
    #[pyfunction]
    fn providers(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
        let rows = liter_llm::providers::rows().map_err(|error| crate::errors::raise(&error))?;
        serde_json::to_vec(rows)
            .map(|json| PyBytes::new(py, &json))
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    /// The tables of the configuration document with the names of their options, as JSON.
    #[pyfunction]
    fn config_options(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
        serde_json::to_vec(&liter_llm::config::option_names())
            .map(|json| PyBytes::new(py, &json))
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        // SAFETY: the interpreter is attached, so there is a current one; neither call keeps anything.
        let interpreter = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
        if interpreter != 0 {
            // The runtime and the end of the process are shared: a subinterpreter's end would stop the main one's calls.
            return Err(pyo3::exceptions::PyImportError::new_err(
                "liter_llm works in the main interpreter only, not in a subinterpreter",
            ));
        }
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        py.import("atexit")?.call_method1("register", (module.getattr("shutdown")?,))?;
        Ok(())
    }
}
