//! A streamed answer on its way to Python: one batch of chunks after the other, to a thread or to an event loop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use liter_llm::LlmProvider;
use liter_llm_border::{Feed, Outcome, Waiter, lock, pump};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::task::AbortHandle;

use crate::bridge::{Bridge, Shared as Loop};
use crate::errors::{engine_error, raise};
use crate::host::{DISPATCH, Dispatch, Job};
use crate::runtime::{rest_if_exiting, runtime};

/// How long a sync wait lasts before signals (Ctrl-C) are looked at.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// A future of an event loop.
struct Future {
    bridge: Arc<Loop>,
    call: u64,
}

impl Waiter for Future {
    fn wake(self, outcome: Outcome) {
        self.bridge.finish(self.call, outcome);
    }
}

/// A streamed answer.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Stream {
    feed: Arc<Feed<Future>>,
    /// Calls to providers written in Python, for the thread that waits.
    jobs: Arc<Mutex<Vec<Job>>>,
    bridge: Option<Py<Bridge>>,
    task: AbortHandle,
}

impl Stream {
    /// Starts a streamed call; never blocks. `hosted`: whether providers written in Python may have to answer it.
    pub fn open(
        provider: Arc<dyn LlmProvider>,
        request: Vec<u8>,
        bridge: Option<Py<Bridge>>,
        hosted: bool,
    ) -> PyResult<Self> {
        let feed = Arc::new(Feed::default());
        let jobs = Arc::new(Mutex::new(Vec::new()));
        let pump = pump(Arc::clone(&feed), provider, request);
        let runtime = runtime()?;
        let task = if hosted {
            let dispatch: Dispatch = match &bridge {
                Some(bridge) => {
                    let shared = bridge.get().shared();
                    Arc::new(move |job| shared.run(job))
                }
                None => {
                    let (feed, jobs) = (Arc::clone(&feed), Arc::clone(&jobs));
                    Arc::new(move |job| {
                        lock(&jobs).push(job);
                        feed.nudge();
                    })
                }
            };
            runtime.spawn(DISPATCH.scope(dispatch, pump))
        } else {
            runtime.spawn(pump)
        };
        Ok(Self { feed, jobs, bridge, task: task.abort_handle() })
    }
}

fn deliver<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyBytes>> {
    match outcome {
        Outcome::Batch(json) | Outcome::Answer(json, _) => Ok(PyBytes::new(py, json)),
        Outcome::Error(error) => Err(engine_error(error)),
    }
}

#[pymethods]
impl Stream {
    /// Waits for chunks and returns all that are ready as a JSON array; empty at the end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        loop {
            let (outcome, jobs) = py.detach(|| {
                let outcome = self.feed.wait(SIGNAL_CHECK, || !lock(&self.jobs).is_empty());
                let jobs = std::mem::take(&mut *lock(&self.jobs));
                rest_if_exiting();
                (outcome, jobs)
            });
            for job in jobs {
                job.spawn(py)?;
            }
            if let Some(outcome) = outcome {
                return deliver(py, &outcome);
            }
            if let Err(signal) = py.check_signals() {
                self.close();
                return Err(signal);
            }
        }
    }

    /// Chunks that are ready now (empty at the end), or `None`: then the future gets them.
    fn next_async<'py>(&self, py: Python<'py>, future: Py<PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let ready = match &self.bridge {
            None => self.feed.take(),
            Some(bridge) => {
                let bridge = bridge.get();
                self.feed.take_or(|| Future { bridge: bridge.shared(), call: bridge.expect(future) })
            }
        };
        ready.map(|outcome| deliver(py, &outcome)).transpose()
    }

    /// The whole answer once the end was reached without an error.
    fn response<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let json = self.feed.response().map_err(|error| raise(&error))?;
        Ok(json.map(|json| PyBytes::new(py, &json)))
    }

    /// The answer as far as it has come.
    fn partial<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.feed.partial().map(|json| PyBytes::new(py, &json)).map_err(|error| raise(&error))
    }

    /// Closes the connection; whoever waits for chunks in another thread gets an error of kind `cancelled`.
    fn close(&self) {
        self.task.abort();
        self.feed.close();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
