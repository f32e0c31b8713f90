//! The provider simulator for tests: a server in this process, with its own threads.

use std::sync::Arc;

use liter_llm_sim::{Rule, SimConfig, SimError, Simulator as Server};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A running simulator.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Simulator {
    server: Arc<Server>,
}

fn text(json: &[u8]) -> PyResult<&str> {
    std::str::from_utf8(json).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[allow(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn refused(error: SimError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn json<'py, T: serde::Serialize>(py: Python<'py>, value: &T) -> PyResult<Bound<'py, PyBytes>> {
    serde_json::to_vec(value)
        .map(|json| PyBytes::new(py, &json))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymethods]
impl Simulator {
    #[new]
    fn new(py: Python<'_>, config: &[u8]) -> PyResult<Self> {
        let config = SimConfig::from_json(text(config)?).map_err(refused)?;
        let server =
            py.detach(|| Server::start(config)).map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { server: Arc::new(server) })
    }

    /// The base URL to give as `base_url` for this provider.
    fn base_url(&self, provider: &str) -> PyResult<String> {
        self.server
            .base_url(provider)
            .ok_or_else(|| PyValueError::new_err(format!("the simulator does not speak for `{provider}`")))
    }

    /// `host:port`.
    fn address(&self) -> String {
        self.server.addr().to_string()
    }

    /// Replaces the fault rules: a JSON list.
    fn set_rules(&self, rules: &[u8]) -> PyResult<()> {
        let rules: Vec<serde_json::Value> =
            serde_json::from_slice(rules).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let rules: Result<Vec<Rule>, SimError> =
            rules.iter().map(|rule| Rule::from_json(&rule.to_string())).collect();
        self.server.set_rules(rules.map_err(refused)?).map_err(refused)
    }

    /// The requests seen so far: a JSON list.
    fn requests<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        json(py, &self.server.requests())
    }

    /// Forgets the requests seen so far.
    fn clear(&self) {
        self.server.clear_requests();
    }

    /// Counters: requests, connections, tokens issued.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let counters = serde_json::json!({
            "requests": self.server.requests_served(),
            "connections_opened": self.server.connections_opened(),
            "open_connections": self.server.open_connections(),
            "tokens_issued": self.server.tokens_issued(),
        });
        json(py, &counters)
    }

    /// Stops the server.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.server.stop());
    }
}
