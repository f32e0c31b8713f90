//! The catalogue of models and prices: questions in, JSON out.

use std::path::Path;

use liter_llm::catalog::Catalog as Engine;
use liter_llm_border::catalog_cost;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;

use crate::errors::raise;

/// The catalogue in a file, rows of one's own over it.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Catalog(Engine);

fn bytes<'py, T: Serialize>(py: Python<'py>, value: &T) -> PyResult<Bound<'py, PyBytes>> {
    serde_json::to_vec(value)
        .map(|json| PyBytes::new(py, &json))
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

#[pymethods]
impl Catalog {
    #[new]
    #[pyo3(signature = (base, own = None))]
    fn new(base: &str, own: Option<&str>) -> PyResult<Self> {
        let catalog = Engine::from_path(base);
        let catalog = match own {
            Some(own) => catalog.with_own_file(Path::new(own)).map_err(|error| raise(&error))?,
            None => catalog,
        };
        Ok(Self(catalog))
    }

    /// Why the catalogue cannot be read, if it cannot.
    fn problem(&self) -> Option<&str> {
        self.0.problem()
    }

    /// A row, or `None` for an unknown model.
    fn get<'py>(
        &self,
        py: Python<'py>,
        provider: &str,
        model: &str,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.0.get(provider, model).map(|info| bytes(py, &*info)).transpose()
    }

    /// All rows.
    fn all<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let rows = py.detach(|| self.0.all()).map_err(|error| raise(&error))?;
        bytes(py, &rows)
    }

    /// What a usage costs; `None` when the model or a price is not known.
    fn cost<'py>(&self, py: Python<'py>, question: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let cost = catalog_cost(&self.0, question)
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.detail().message.clone()))?;
        cost.map(|cost| bytes(py, &cost)).transpose()
    }

    /// Checks a whole file and gives the number of its models.
    #[staticmethod]
    fn check(py: Python<'_>, text: &str) -> PyResult<usize> {
        py.detach(|| Engine::check(text)).map_err(|error| raise(&error))
    }
}
