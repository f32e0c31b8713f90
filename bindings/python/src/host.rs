//! Providers written in Python, seen from the engine: each call becomes a job that Python carries out.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream;
use liter_llm::{ChunkStream, ErrorKind, LlmChunk, LlmError, LlmProvider, LlmRequest, LlmResponse, unfold};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bridge::lock;

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

/// One call to a provider written in Python.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Job {
    request: Vec<u8>,
    streaming: bool,
    reports: Mutex<Option<UnboundedSender<Report>>>,
}

impl Job {
    fn report(&self, report: Report, last: bool) {
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

    /// Whether the caller has given up.
    #[getter]
    fn cancelled(&self) -> bool {
        lock(&self.reports).as_ref().is_none_or(UnboundedSender::is_closed)
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

/// A provider written in Python.
pub struct PythonProvider {
    name: String,
}

impl PythonProvider {
    /// A provider of this name; its jobs go to the dispatch of the call at hand.
    pub const fn new(name: String) -> Self {
        Self { name }
    }

    fn dispatch(&self, request: &LlmRequest, streaming: bool) -> Result<UnboundedReceiver<Report>, LlmError> {
        let json = serde_json::to_vec(request)
            .map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))?;
        let (sender, receiver) = unbounded_channel();
        let job = Job { request: json, streaming, reports: Mutex::new(Some(sender)) };
        DISPATCH.try_with(|dispatch| dispatch(job)).map_err(|_| {
            LlmError::config("provider", "a provider written in Python can only answer calls from Python")
        })?;
        Ok(receiver)
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
        match reports.recv().await {
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
            match reports.recv().await {
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
