//! A streamed answer on its way to Python: chunks queue up as JSON and are handed over a batch at a time.

use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use liter_llm::{ChunkStream, ErrorKind, Folder, LlmChunk, LlmError, LlmProvider, LlmRequest};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::bridge::{Bridge, Outcome, Shared as Loop, lock};
use crate::errors::{engine_error, payload};
use crate::host::{DISPATCH, Dispatch, Job};
use crate::runtime::{rest_if_exiting, runtime};

/// How much unread JSON a stream may hold before it stops reading from the provider, in bytes.
const HIGH_WATER: usize = 64 * 1024;
/// How many turns other tasks get, once a second event came with the first, before a batch counts as complete. More
/// than one, because the connection's task may run in another thread.
const PATIENCE: usize = 4;
/// How long a sync wait lasts before signals (Ctrl-C) are looked at.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    /// A JSON array without its closing bracket; empty when there is nothing to read.
    batch: Vec<u8>,
    ended: bool,
    /// Whether the end was a failure; stays when the error has been handed out.
    failed: bool,
    error: Option<Vec<u8>>,
    folder: Folder,
    waiter: Option<(Arc<Loop>, u64)>,
    jobs: Vec<Job>,
}

impl State {
    /// What is ready: a batch, an error, or the end; `None` when one must wait.
    fn take(&mut self) -> Option<Outcome> {
        if !self.batch.is_empty() {
            let mut batch = std::mem::take(&mut self.batch);
            batch.push(b']');
            return Some(Outcome::Batch(batch));
        }
        if let Some(error) = self.error.take() {
            return Some(Outcome::Error(error));
        }
        self.ended.then(|| Outcome::Batch(Vec::new()))
    }
}

/// What to do after a chunk.
enum Step {
    More,
    Full,
    Ended(Option<LlmError>),
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    ready: Condvar,
    space: Notify,
}

impl Inner {
    /// Wakes whoever waits for what is ready now.
    fn hand_over(&self) {
        self.hand_over_from(lock(&self.state));
    }

    fn hand_over_from(&self, mut state: MutexGuard<'_, State>) {
        if let Some((loop_, call)) = state.waiter.take() {
            if let Some(outcome) = state.take() {
                drop(state);
                loop_.finish(call, outcome);
                self.space.notify_one();
            } else {
                state.waiter = Some((loop_, call));
            }
        } else {
            drop(state);
            self.ready.notify_one();
        }
    }

    /// Takes a chunk and everything behind it that is ready; whoever waits is not woken yet.
    fn fill(
        &self,
        mut item: Option<Result<LlmChunk, LlmError>>,
        chunks: &mut ChunkStream,
        context: &mut Context<'_>,
    ) -> Step {
        let mut state = lock(&self.state);
        loop {
            match item {
                Some(Ok(chunk)) => {
                    state.folder.push(&chunk);
                    let separator = if state.batch.is_empty() { b'[' } else { b',' };
                    state.batch.push(separator);
                    if let Err(error) = serde_json::to_writer(&mut state.batch, &chunk) {
                        return Step::Ended(Some(LlmError::new(ErrorKind::Decode, error.to_string())));
                    }
                }
                Some(Err(error)) => {
                    return Step::Ended(Some(error.with(|detail| {
                        detail.partial.get_or_insert_with(|| Box::new(state.folder.partial()));
                    })));
                }
                None => return Step::Ended(None),
            }
            if state.batch.len() > HIGH_WATER {
                return Step::Full;
            }
            match chunks.poll_next_unpin(context) {
                Poll::Ready(next) => item = next,
                Poll::Pending => return Step::More,
            }
        }
    }

    fn end(&self, error: Option<&LlmError>) {
        let mut state = lock(&self.state);
        if state.ended {
            return;
        }
        state.ended = true;
        state.failed = error.is_some();
        state.error = error.map(payload);
        self.hand_over_from(state);
    }
}

/// The next chunk if it comes within some turns of the other tasks, else `Pending`.
///
/// An HTTP chunk often holds one event, and the connection's own task passes them on one by one: with a turn for it
/// in between, a burst wakes the reader once and not for each event.
async fn more(chunks: &mut ChunkStream, turns: usize) -> Poll<Option<Result<LlmChunk, LlmError>>> {
    for _ in 0..turns {
        tokio::task::yield_now().await;
        let next = poll_fn(|context| Poll::Ready(chunks.poll_next_unpin(context))).await;
        if next.is_ready() {
            return next;
        }
    }
    Poll::Pending
}

async fn pump(inner: Arc<Inner>, provider: Arc<dyn LlmProvider>, request: Vec<u8>) {
    let opened = match LlmRequest::from_json(&request) {
        Ok(request) => provider.stream(request).await,
        Err(error) => Err(error),
    };
    drop(request);
    let mut chunks = match opened {
        Ok(chunks) => chunks,
        Err(error) => return inner.end(Some(&error)),
    };
    while let Some(first) = chunks.next().await {
        let mut item = Some(first);
        let mut patience = 1;
        loop {
            match poll_fn(|context| Poll::Ready(inner.fill(item.take(), &mut chunks, context))).await {
                Step::More => {}
                Step::Full => {
                    inner.hand_over();
                    while lock(&inner.state).batch.len() > HIGH_WATER {
                        inner.space.notified().await;
                    }
                    break;
                }
                Step::Ended(error) => return inner.end(error.as_ref()),
            }
            match more(&mut chunks, patience).await {
                Poll::Ready(Some(next)) => item = Some(next),
                Poll::Ready(None) => return inner.end(None),
                Poll::Pending => {
                    inner.hand_over();
                    break;
                }
            }
            patience = PATIENCE;
        }
    }
    inner.end(None);
}

/// A streamed answer.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Stream {
    inner: Arc<Inner>,
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
        let inner = Arc::new(Inner::default());
        let pump = pump(Arc::clone(&inner), provider, request);
        let runtime = runtime()?;
        let task = if hosted {
            let dispatch: Dispatch = match &bridge {
                Some(bridge) => {
                    let shared = bridge.get().shared();
                    Arc::new(move |job| shared.run(job))
                }
                None => {
                    let inner = Arc::clone(&inner);
                    Arc::new(move |job| {
                        lock(&inner.state).jobs.push(job);
                        inner.ready.notify_one();
                    })
                }
            };
            runtime.spawn(DISPATCH.scope(dispatch, pump))
        } else {
            runtime.spawn(pump)
        };
        Ok(Self { inner, bridge, task: task.abort_handle() })
    }

    fn deliver<'py>(&self, py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyBytes>> {
        match outcome {
            Outcome::Batch(batch) => {
                self.inner.space.notify_one();
                Ok(PyBytes::new(py, batch))
            }
            Outcome::Error(error) => Err(engine_error(error)),
            Outcome::Answer(answer, _) => Ok(PyBytes::new(py, answer)),
        }
    }
}

#[pymethods]
impl Stream {
    /// Waits for chunks and returns all that are ready as a JSON array; empty at the end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        loop {
            let (outcome, jobs) = py.detach(|| {
                let mut state = lock(&self.inner.state);
                let mut outcome = state.take();
                if outcome.is_none() && state.jobs.is_empty() {
                    let waited = self.inner.ready.wait_timeout(state, SIGNAL_CHECK);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    outcome = state.take();
                }
                let jobs = std::mem::take(&mut state.jobs);
                drop(state);
                rest_if_exiting();
                (outcome, jobs)
            });
            for job in jobs {
                job.spawn(py)?;
            }
            if let Some(outcome) = outcome {
                return self.deliver(py, &outcome);
            }
            if let Err(signal) = py.check_signals() {
                self.close();
                return Err(signal);
            }
        }
    }

    /// Chunks that are ready now (empty at the end), or `None`: then the future gets them.
    fn next_async<'py>(&self, py: Python<'py>, future: Py<PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut state = lock(&self.inner.state);
        if let Some(outcome) = state.take() {
            drop(state);
            return self.deliver(py, &outcome).map(Some);
        }
        if let Some(bridge) = &self.bridge {
            let bridge = bridge.get();
            let call = bridge.expect(future);
            state.waiter = Some((bridge.shared(), call));
        }
        Ok(None)
    }

    /// The whole answer once the end was reached without an error.
    fn response<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let state = lock(&self.inner.state);
        if !state.ended || state.failed || !state.batch.is_empty() {
            return Ok(None);
        }
        let json = serde_json::to_vec(&state.folder.partial());
        drop(state);
        json.map(|json| Some(PyBytes::new(py, &json)))
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    /// The answer as far as it has come.
    fn partial<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        serde_json::to_vec(&lock(&self.inner.state).folder.partial())
            .map(|json| PyBytes::new(py, &json))
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    /// Closes the connection; whoever waits for chunks in another thread gets an error of kind `cancelled`.
    fn close(&self) {
        self.task.abort();
        self.inner.end(Some(&LlmError::new(ErrorKind::Cancelled, "the stream was closed")));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
