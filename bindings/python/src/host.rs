//! Providers written in Python, seen from the engine: each call becomes a job that Python carries out.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream;
use liter_llm::{ChunkStream, ErrorKind, LlmChunk, LlmError, LlmProvider, LlmRequest, LlmResponse, unfold};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bridge::{Bridge, Outcome, Shared, lock};
use crate::queue::{Awaited, Queue};

/// Hands a job to the thread that may run it: the loop's, or the one that waits in a sync call.
pub type Dispatch = Arc<dyn Fn(Job) + Send + Sync>;

tokio::task_local! {
    /// Where the jobs of the current call go.
    pub static DISPATCH: Dispatch;
}

enum Report {
    Whole(Box<LlmResponse>),
    Chunk(Box<LlmChunk>),
    End,
    Failed(LlmError),
}

/// Whether the engine still waits for a job, and who is to be told when it does no longer.
#[derive(Default)]
struct Interest {
    lost: bool,
    watcher: Option<(Arc<Shared>, u64)>,
}

/// The engine's end of a job: dropped when the call was answered, cancelled or timed out.
struct Reports {
    receiver: UnboundedReceiver<Report>,
    interest: Arc<Mutex<Interest>>,
}

impl Drop for Reports {
    fn drop(&mut self) {
        let watcher = {
            let mut interest = lock(&self.interest);
            interest.lost = true;
            interest.watcher.take()
        };
        if let Some((bridge, call)) = watcher {
            bridge.finish(call, Outcome::Batch(Vec::new()));
        }
    }
}

/// One call to a provider written in Python.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Job {
    host: Arc<Py<PyAny>>,
    request: Vec<u8>,
    streaming: bool,
    reports: Mutex<Option<UnboundedSender<Report>>>,
    interest: Arc<Mutex<Interest>>,
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

    fn report(&self, report: Report, last: bool) {
        if last {
            // The job ends by itself: nobody needs to hear that the engine lets go of it.
            lock(&self.interest).watcher = None;
        }
        let mut reports = lock(&self.reports);
        if let Some(sender) = reports.as_ref() {
            // The receiver is gone when the caller gave up; then there is nobody to tell.
            drop(sender.send(report));
        }
        if last {
            *reports = None;
        }
    }
}

fn read<'a, T: serde::Deserialize<'a>>(json: &'a [u8]) -> PyResult<T> {
    serde_json::from_slice(json).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymethods]
impl Job {
    /// The request in its neutral form.
    #[getter]
    fn request<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.request)
    }

    /// Whether chunks are wanted.
    #[getter]
    const fn streaming(&self) -> bool {
        self.streaming
    }

    /// What carries it out.
    #[getter]
    fn host(&self, py: Python<'_>) -> Py<PyAny> {
        self.host.clone_ref(py)
    }

    /// Whether the caller has given up.
    #[getter]
    fn cancelled(&self) -> bool {
        !self.is_awaited()
    }

    /// Has `interest.set_result` called on the bridge's loop as soon as the caller gives up. Returns a number for
    /// `Bridge.cancel`, which ends the watch; `None` when the caller has given up already.
    fn watch(&self, bridge: &Bound<'_, Bridge>, interest: Py<PyAny>) -> Option<u64> {
        let mut state = lock(&self.interest);
        if state.lost {
            return None;
        }
        let call = bridge.get().expect(interest);
        state.watcher = Some((bridge.get().shared(), call));
        Some(call)
    }

    /// The whole answer.
    fn complete(&self, response: &[u8]) -> PyResult<()> {
        let response = Box::new(read(response)?);
        self.report(Report::Whole(response), true);
        Ok(())
    }

    /// One chunk of a streamed answer.
    fn chunk(&self, chunk: &[u8]) -> PyResult<()> {
        let chunk = Box::new(read(chunk)?);
        self.report(Report::Chunk(chunk), false);
        Ok(())
    }

    /// The clean end of a streamed answer.
    fn end(&self) {
        self.report(Report::End, true);
    }

    /// A failure.
    fn fail(&self, error: &[u8]) -> PyResult<()> {
        let error = read(error)?;
        self.report(Report::Failed(error), true);
        Ok(())
    }
}

impl Awaited for Job {
    fn is_awaited(&self) -> bool {
        lock(&self.reports).as_ref().is_some_and(|sender| !sender.is_closed())
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

/// A provider written in Python.
pub struct PythonProvider {
    name: String,
    host: Arc<Py<PyAny>>,
    aside: Option<Arc<Aside>>,
}

impl PythonProvider {
    /// A provider of this name, carried out by `host`; its jobs go to the dispatch of the call at hand, or
    /// `aside` when there is none.
    pub const fn new(name: String, host: Arc<Py<PyAny>>, aside: Option<Arc<Aside>>) -> Self {
        Self { name, host, aside }
    }

    fn dispatch(&self, request: &LlmRequest, streaming: bool) -> Result<Reports, LlmError> {
        let json = serde_json::to_vec(request)
            .map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))?;
        let (sender, receiver) = unbounded_channel();
        let interest = Arc::new(Mutex::new(Interest::default()));
        let reports = Reports { receiver, interest: Arc::clone(&interest) };
        let host = Arc::clone(&self.host);
        let job = Job { host, request: json, streaming, reports: Mutex::new(Some(sender)), interest };
        let sent = match (DISPATCH.try_with(Arc::clone), &self.aside) {
            (Ok(dispatch), _) => {
                dispatch(job);
                true
            }
            (Err(_), Some(aside)) => aside.0.push(job),
            (Err(_), None) => false,
        };
        match sent {
            true => Ok(reports),
            false => Err(LlmError::config(
                "provider",
                "a provider written in Python can only answer calls from Python",
            )),
        }
    }

    fn gone(&self) -> LlmError {
        LlmError::new(ErrorKind::ProviderError, "the provider ended without an answer")
            .with(|detail| detail.provider = Some(self.name.clone()))
    }
}

#[async_trait]
impl LlmProvider for PythonProvider {
    fn name(&self) -> &str {
        &self.name
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let mut reports = self.dispatch(&request, false)?;
        match reports.receiver.recv().await {
            Some(Report::Whole(mut response)) => {
                if response.provider.is_empty() {
                    response.provider.clone_from(&self.name);
                }
                Ok(*response)
            }
            Some(Report::Failed(error)) => Err(error),
            _ => Err(self.gone()),
        }
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let reports = self.dispatch(&request, true)?;
        let interrupted =
            LlmError::new(ErrorKind::StreamInterrupted, "the provider ended its stream without a word")
                .with(|detail| detail.provider = Some(self.name.clone()));
        let batches = stream::unfold(Some((reports, interrupted)), |state| async {
            let (mut reports, interrupted) = state?;
            match reports.receiver.recv().await {
                Some(Report::Chunk(chunk)) => Some((vec![Ok(*chunk)], Some((reports, interrupted)))),
                Some(Report::Whole(response)) => {
                    Some((unfold(&response).into_iter().map(Ok).collect::<Vec<_>>(), None))
                }
                Some(Report::End) => None,
                Some(Report::Failed(error)) => Some((vec![Err(error)], None)),
                None => Some((vec![Err(interrupted)], None)),
            }
        });
        Ok(Box::pin(futures_util::StreamExt::flat_map(batches, stream::iter)))
    }
}
