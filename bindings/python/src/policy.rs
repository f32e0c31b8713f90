//! A policy written in Python: its questions wait in a queue for the one thread that answers them.
//!
//! How long an answer may take, and what becomes of a wrong one, is the engine's business.

use std::sync::Arc;

use liter_llm::routing::custom::CustomPolicy;
use liter_llm_border::{ForeignPolicy, Question as Asked};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::raise;
use crate::queue::{Awaited, Queue};

/// What the engine pushes questions into. Dropped with the policy, it lets the policy's thread end.
struct Asking(Arc<Queue<Question>>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A policy of this name, and the questions that a thread is to answer.
pub fn policy(name: String) -> (Arc<dyn CustomPolicy>, Questions) {
    let queue = Arc::new(Queue::default());
    let asking = Asking(Arc::clone(&queue));
    let policy = ForeignPolicy::new(name, move |question| asking.0.push(Question(question)));
    (Arc::new(policy), Questions { queue })
}

/// The questions to a policy.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Questions {
    queue: Arc<Queue<Question>>,
}

#[pymethods]
impl Questions {
    /// Waits for the next question that somebody wants answered; `None` when there will be no more.
    fn next(&self, py: Python<'_>) -> Option<Question> {
        self.queue.next(py)
    }

    /// Says that nobody will answer.
    fn close(&self) {
        self.queue.close();
    }
}

/// One call that a policy is to find an order for.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Question(Asked);

impl Awaited for Question {
    fn is_awaited(&self) -> bool {
        self.0.is_awaited()
    }
}

#[pymethods]
impl Question {
    /// The call in short and the candidates: a JSON list of these two.
    #[getter]
    fn view<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.view())
    }

    /// The request in its neutral form.
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.0.request().map(|json| PyBytes::new(py, &json)).map_err(|error| raise(&error))
    }

    /// The names of the candidates, best first.
    fn answer(&self, order: Vec<String>) {
        self.0.answer(order);
    }

    /// The policy failed.
    fn fail(&self, what: String) {
        self.0.fail(what);
    }
}
