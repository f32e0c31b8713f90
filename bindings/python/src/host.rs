//! Providers written in Python, seen from the engine: each call becomes a job that Python carries out.

use std::sync::Arc;

use liter_llm::{LlmError, LlmProvider};
use liter_llm_border::{ForeignProvider, Order, Outcome};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::bridge::Bridge;
use crate::queue::{Awaited, Queue};

/// Hands a job to the thread that may run it: the loop's, or the one that waits in a sync call.
pub type Dispatch = Arc<dyn Fn(Job) + Send + Sync>;

tokio::task_local! {
    /// Where the jobs of the current call go.
    pub static DISPATCH: Dispatch;
}

/// One call to a provider written in Python.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Job {
    host: Arc<Py<PyAny>>,
    order: Order,
}

impl Job {
    fn hand_over(self, py: Python<'_>, how: &Bound<'_, PyString>) -> PyResult<()> {
        let host = Arc::clone(&self.host);
        host.bind(py).call_method1(how, (Py::new(py, self)?,))?;
        Ok(())
    }

    /// Has the provider's host begin with it, on an event loop's thread.
    pub fn start(self, py: Python<'_>) -> PyResult<()> {
        self.hand_over(py, pyo3::intern!(py, "start"))
    }

    /// Has the provider's host carry it out on this thread.
    pub fn run(self, py: Python<'_>) -> PyResult<()> {
        self.hand_over(py, pyo3::intern!(py, "run"))
    }

    /// Has the provider's host carry it out on a thread of its own.
    pub fn spawn(self, py: Python<'_>) -> PyResult<()> {
        self.hand_over(py, pyo3::intern!(py, "spawn"))
    }
}

fn refused(error: LlmError) -> PyErr {
    PyValueError::new_err(error.detail().message.clone())
}

#[pymethods]
impl Job {
    /// The request in its neutral form.
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.order.request())
    }

    /// Whether chunks are wanted.
    #[getter]
    const fn streaming(&self) -> bool {
        self.order.streaming()
    }

    /// What carries it out.
    #[getter]
    fn host(&self, py: Python<'_>) -> Py<PyAny> {
        self.host.clone_ref(py)
    }

    /// Whether the caller has given up.
    #[getter]
    fn cancelled(&self) -> bool {
        !self.order.is_awaited()
    }

    /// Has `interest.set_result` called on the bridge's loop as soon as the caller gives up. Returns a number for
    /// `Bridge.cancel`, which ends the watch; `None` when the caller has given up already.
    fn watch(&self, bridge: &Bound<'_, Bridge>, interest: Py<PyAny>) -> Option<u64> {
        self.order.when_lost(|| {
            let call = bridge.get().expect(interest);
            let shared = bridge.get().shared();
            (call, Box::new(move || shared.finish(call, Outcome::Batch(Vec::new()))))
        })
    }

    /// The whole answer.
    fn complete(&self, response: &[u8]) -> PyResult<()> {
        self.order.complete(response).map_err(refused)
    }

    /// One chunk of a streamed answer.
    fn chunk(&self, chunk: &[u8]) -> PyResult<()> {
        self.order.chunk(chunk).map_err(refused)
    }

    /// The clean end of a streamed answer.
    fn end(&self) {
        self.order.end();
    }

    /// A failure.
    fn fail(&self, error: &[u8]) -> PyResult<()> {
        self.order.fail(error).map_err(refused)
    }
}

impl Awaited for Job {
    fn is_awaited(&self) -> bool {
        self.order.is_awaited()
    }
}

/// Takes the jobs of calls that no thread of Python's waits for: the engine's own, for instance the trial of a
/// deployment that failed. Dropped, it lets its thread end.
pub struct Aside(Arc<Queue<Job>>);

impl Aside {
    /// It, and the jobs for a thread to begin with.
    pub fn new() -> (Self, Jobs) {
        let queue = Arc::new(Queue::default());
        (Self(Arc::clone(&queue)), Jobs(queue))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Jobs of calls that no thread of Python's waits for.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Jobs(Arc<Queue<Job>>);

#[pymethods]
impl Jobs {
    /// Waits for the next job; `None` when there will be no more.
    fn next(&self, py: Python<'_>) -> Option<Job> {
        self.0.next(py)
    }

    /// Says that nobody will do them.
    fn close(&self) {
        self.0.close();
    }
}

/// A provider of this name, carried out by `host`; its jobs go to the dispatch of the call at hand, or `aside` when
/// there is none.
pub fn provider(name: String, host: Arc<Py<PyAny>>, aside: Option<Arc<Aside>>) -> Arc<dyn LlmProvider> {
    Arc::new(ForeignProvider::new(name, "Python", move |order| {
        let job = Job { host: Arc::clone(&host), order };
        match (DISPATCH.try_with(Arc::clone), &aside) {
            (Ok(dispatch), _) => {
                dispatch(job);
                true
            }
            (Err(_), Some(aside)) => aside.0.push(job),
            (Err(_), None) => false,
        }
    }))
}
