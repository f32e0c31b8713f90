//! Records of calls: of one call, for who makes it, and of all of a client's, for who listens.

use std::sync::Mutex;
use std::time::Duration;

use liter_llm::{CallRecord, telemetry};
use liter_llm_border::lock;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::runtime::rest_if_exiting;

/// The longest wait without a look at the interpreter, in seconds.
const LONGEST: f64 = 3600.0;

/// The record of one call: given to the engine with the request.
#[pyclass(frozen, module = "liter_llm._native")]
#[derive(Default)]
pub struct Recorder(pub telemetry::Recorder);

#[pymethods]
impl Recorder {
    /// For a call that begins now.
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The record as JSON: whole when the call is over; before that, as it would be if the call were given up now.
    /// `None` when it has not begun.
    fn record<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.record().map(|record| PyBytes::new(py, &record.to_json()))
    }

    /// What spans and metrics are made of, as JSON by position: see `liter_llm.telemetry.told`. `None` when the call has
    /// not begun.
    fn told<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(record) = self.0.record() else { return Ok(None) };
        let text = telemetry::told(&record).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Some(PyBytes::new(py, &text)))
    }
}

/// The records of a client's calls, in a queue of bounded length.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Records(Mutex<Option<std::sync::Arc<telemetry::CallRecords>>>);

impl Records {
    pub fn new(records: telemetry::CallRecords) -> Self {
        Self(Mutex::new(Some(std::sync::Arc::new(records))))
    }
}

#[pymethods]
impl Records {
    /// Everything there is as a JSON array, waiting up to so many seconds for the first record; `None` once it is
    /// closed and empty.
    fn take<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some(records) = lock(&self.0).clone() else { return Ok(None) };
        let limit = Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST)).unwrap_or_default();
        let taken = py.detach(|| {
            let taken = records.take(limit);
            rest_if_exiting();
            taken
        });
        if taken.is_empty() && records.is_closed() {
            *lock(&self.0) = None;
            return Ok(None);
        }
        // Others may run while the text is made.
        let json = py.detach(|| CallRecord::list_to_json(taken.iter().map(|record| &**record)));
        Ok(Some(PyBytes::new(py, &json)))
    }

    /// How many records found the queue full.
    #[getter]
    fn dropped(&self) -> u64 {
        lock(&self.0).as_ref().map_or(0, |records| records.dropped())
    }

    /// Ends the recording; whoever waits is wakened.
    fn close(&self) {
        if let Some(records) = &*lock(&self.0) {
            records.close();
        }
    }
}
