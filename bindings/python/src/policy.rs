//! A policy written in Python: its questions wait in a queue for the one thread that answers them.
//!
//! How long an answer may take, and what becomes of a wrong one, is the engine's business.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use liter_llm::routing::custom::{CustomPolicy, PolicyCall, PolicyCandidate};
use liter_llm::{ErrorKind, LlmError, LlmRequest};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::oneshot::{Sender, channel};

use crate::bridge::lock;
use crate::queue::{Awaited, Queue};

/// A policy written in Python, as the engine sees it. Dropped, it lets its thread end.
pub struct PythonPolicy {
    name: String,
    queue: Arc<Queue<Question>>,
}

impl PythonPolicy {
    /// A policy of this name, and the questions that a thread is to answer.
    pub fn new(name: String) -> (Self, Questions) {
        let queue = Arc::new(Queue::default());
        (Self { name, queue: Arc::clone(&queue) }, Questions { queue })
    }
}

impl Drop for PythonPolicy {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn failure(what: impl Into<String>) -> LlmError {
    LlmError::new(ErrorKind::Config, what.into())
}

#[async_trait]
impl CustomPolicy for PythonPolicy {
    fn name(&self) -> &str {
        &self.name
    }

    async fn order(
        &self,
        call: &PolicyCall,
        candidates: &[PolicyCandidate],
    ) -> Result<Vec<String>, LlmError> {
        let view = serde_json::to_vec(&(call, candidates)).map_err(|error| failure(error.to_string()))?;
        let (sender, receiver) = channel();
        let question = Question { view, request: call.request.clone(), answer: Mutex::new(Some(sender)) };
        if !self.queue.push(question) {
            return Err(failure("it has no thread"));
        }
        receiver.await.unwrap_or_else(|_| Err(failure("its thread ended")))
    }
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

type Answer = Result<Vec<String>, LlmError>;

/// One call that a policy is to find an order for.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Question {
    view: Vec<u8>,
    request: LlmRequest,
    answer: Mutex<Option<Sender<Answer>>>,
}

impl Awaited for Question {
    fn is_awaited(&self) -> bool {
        lock(&self.answer).as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

impl Question {
    fn reply(&self, answer: Answer) {
        if let Some(sender) = lock(&self.answer).take() {
            // Nobody listens any more when the answer took too long.
            drop(sender.send(answer));
        }
    }
}

#[pymethods]
impl Question {
    /// The call in short and the candidates: a JSON list of these two.
    #[getter]
    fn view<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.view)
    }

    /// The request in its neutral form.
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        serde_json::to_vec(&self.request)
            .map(|json| PyBytes::new(py, &json))
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// The names of the candidates, best first.
    fn answer(&self, order: Vec<String>) {
        self.reply(Ok(order));
    }

    /// The policy failed.
    fn fail(&self, what: String) {
        self.reply(Err(failure(what)));
    }
}
