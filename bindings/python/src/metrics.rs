//! Metrics of clients as text.

use std::sync::Arc;

use liter_llm_border::ProcessMetrics;
use pyo3::prelude::*;

use crate::runtime::rest_if_exiting;

/// Metrics of the engines that it observes.
#[pyclass(frozen, module = "liter_llm._native")]
#[derive(Default)]
pub struct Metrics(pub Arc<ProcessMetrics>);

#[pymethods]
impl Metrics {
    /// Metrics of no engine yet.
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The text and its content type: OpenMetrics, or Prometheus' own form.
    fn text(&self, py: Python<'_>, plain: bool) -> (&'static str, String) {
        self.read(py, |metrics| metrics.text(plain))
    }

    /// The text and its content type, as an `Accept` header asks for it.
    #[pyo3(signature = (accept = None))]
    fn answer(&self, py: Python<'_>, accept: Option<String>) -> (&'static str, String) {
        self.read(py, |metrics| metrics.answer(accept.as_deref()))
    }

    /// Counts no more calls; what was counted can still be read.
    fn close(&self, py: Python<'_>) {
        self.read(py, ProcessMetrics::close);
    }
}

impl Metrics {
    fn read<T: Send>(&self, py: Python<'_>, look: impl Send + FnOnce(&ProcessMetrics) -> T) -> T {
        py.detach(|| {
            let read = look(&self.0);
            rest_if_exiting();
            read
        })
    }
}
