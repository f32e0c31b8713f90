//! The engine behind a client: configuration in, calls out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use liter_llm::client::Client;
use liter_llm::{ErrorKind, LlmError, LlmProvider, LlmRequest};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bridge::{Bridge, Outcome, lock};
use crate::errors::{payload, raise};
use crate::host::{DISPATCH, Dispatch, Job, PythonProvider};
use crate::lanes::{self, Lane};
use crate::runtime::{rest_if_exiting, runtime};
use crate::stream::Stream;

/// How long a sync wait lasts before signals (Ctrl-C) are looked at.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

type Answer = Result<(Vec<u8>, Bytes), LlmError>;

struct Built {
    pid: u32,
    client: Arc<Client>,
}

/// A client's engine.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Engine {
    config: Vec<u8>,
    host: Option<Arc<Py<PyAny>>>,
    provider: Option<String>,
    built: Mutex<Option<Built>>,
    closed: std::sync::atomic::AtomicBool,
}

async fn answer(client: Arc<Client>, request: impl AsRef<[u8]>) -> Answer {
    let read = LlmRequest::from_json(request.as_ref())?;
    drop(request);
    let request = read;
    let response = client.generate(request).await?;
    let json =
        serde_json::to_vec(&response).map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))?;
    Ok((json, response.raw))
}

/// Runs a sync call on the caller's own thread.
fn on_lane(py: Python<'_>, client: Arc<Client>, request: &[u8]) -> PyResult<Answer> {
    let lane = Lane::take()?;
    let rested = lane.rested();
    let mut call = Box::pin(async move {
        Lane::catch_up(rested).await;
        answer(client, request).await
    });
    loop {
        let step = py.detach(|| {
            let step = lane.drive(async { tokio::time::timeout(SIGNAL_CHECK, &mut call).await });
            rest_if_exiting();
            step
        });
        if let Some(Ok(outcome)) = step {
            drop(call);
            if outcome.is_err() {
                lane.tidy();
            }
            lane.rest();
            return Ok(outcome);
        }
        if let Err(signal) = py.check_signals() {
            lane.abandon(call);
            return Err(signal);
        }
    }
}

/// Runs a sync call on the shared runtime; providers written in Python answer on the caller's thread.
fn on_runtime(
    py: Python<'_>,
    client: Arc<Client>,
    request: &[u8],
    host: Option<&Py<PyAny>>,
) -> PyResult<Answer> {
    let runtime = runtime()?;
    let (jobs, mut inbox) = tokio::sync::mpsc::unbounded_channel::<Job>();
    let dispatch: Dispatch = Arc::new(move |job| drop(jobs.send(job)));
    let mut call = Box::pin(DISPATCH.scope(dispatch, answer(client, request)));
    loop {
        let step = py.detach(|| {
            let step = runtime.block_on(async {
                tokio::select! {
                    biased;
                    outcome = &mut call => Some(Ok(outcome)),
                    Some(job) = inbox.recv() => Some(Err(job)),
                    () = tokio::time::sleep(SIGNAL_CHECK) => None,
                }
            });
            rest_if_exiting();
            step
        });
        match step {
            Some(Ok(outcome)) => return Ok(outcome),
            Some(Err(job)) => {
                if let Some(host) = host {
                    host.bind(py).call_method1(pyo3::intern!(py, "run"), (Py::new(py, job)?,))?;
                }
            }
            None => {
                if let Err(signal) = py.check_signals() {
                    // Dropping the call closes its connection; the runtime must be entered for that.
                    let _guard = runtime.enter();
                    drop(call);
                    return Err(signal);
                }
            }
        }
    }
}

impl Engine {
    fn build(&self) -> Result<Arc<Client>, LlmError> {
        let client = match (&self.provider, &self.host) {
            (Some(name), Some(host)) => {
                Client::over(Arc::new(PythonProvider::new(name.clone(), Arc::clone(host))))
            }
            _ => Client::from_json(&self.config)?,
        };
        Ok(Arc::new(client))
    }

    /// The client of this process. In a forked child the parent's connections must not be touched: they are left as
    /// they are, and a new client is made.
    fn client(&self) -> PyResult<Arc<Client>> {
        if self.closed.load(std::sync::atomic::Ordering::Acquire) {
            let error = LlmError::new(ErrorKind::Cancelled, "the client is closed");
            return Err(raise(&error.with(|detail| detail.before_send = true)));
        }
        let pid = std::process::id();
        let mut built = lock(&self.built);
        if let Some(built) = built.as_ref()
            && built.pid == pid
        {
            return Ok(Arc::clone(&built.client));
        }
        let client = self.build().map_err(|error| raise(&error))?;
        std::mem::forget(built.replace(Built { pid, client: Arc::clone(&client) }));
        Ok(client)
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (config, host = None))]
    fn new(py: Python<'_>, config: &[u8], host: Option<Py<PyAny>>) -> PyResult<Self> {
        let provider = match &host {
            Some(host) => Some(host.bind(py).getattr("name")?.extract::<String>()?),
            None => None,
        };
        let engine = Self {
            config: config.to_vec(),
            host: host.map(Arc::new),
            provider,
            built: Mutex::new(None),
            closed: std::sync::atomic::AtomicBool::new(false),
        };
        engine.client()?;
        Ok(engine)
    }

    /// What the engine was made of, as JSON without secrets.
    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.client()?.describe()))
    }

    /// How the deployment is doing, as a JSON list.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let json = serde_json::to_vec(&self.client()?.state())
            .map_err(|error| raise(&LlmError::new(ErrorKind::Decode, error.to_string())))?;
        Ok(PyBytes::new(py, &json))
    }

    /// Answers a request: the response's JSON and the provider's own bytes. Blocks without the interpreter's lock.
    fn generate<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let client = self.client()?;
        let outcome = match &self.host {
            None if !client.needs_background() => on_lane(py, client, request)?,
            host => on_runtime(py, client, request, host.as_deref())?,
        };
        match outcome {
            Ok((json, raw)) => Ok((PyBytes::new(py, &json), PyBytes::new(py, &raw))),
            Err(error) => Err(raise(&error)),
        }
    }

    /// Answers a request on an event loop: the future gets the answer through the bridge.
    fn submit(&self, request: &[u8], bridge: &Bound<'_, Bridge>, future: Py<PyAny>) -> PyResult<u64> {
        let client = self.client()?;
        let shared = bridge.get().shared();
        let call = bridge.get().expect(future);
        let work = answer(client, request.to_vec());
        let runtime = runtime()?;
        let finish = {
            let shared = Arc::clone(&shared);
            move |outcome: Answer| {
                let outcome = match outcome {
                    Ok((json, raw)) => Outcome::Answer(json, raw),
                    Err(error) => Outcome::Error(payload(&error)),
                };
                shared.finish(call, outcome);
            }
        };
        let task = match &self.host {
            Some(_) => {
                let dispatch: Dispatch = Arc::new(move |job| shared.run(job));
                runtime.spawn(async move { finish(DISPATCH.scope(dispatch, work).await) })
            }
            None => runtime.spawn(async move { finish(work.await) }),
        };
        bridge.get().abort_with(call, task.abort_handle());
        Ok(call)
    }

    /// Starts a streamed call; never blocks.
    #[pyo3(signature = (request, bridge = None))]
    fn open(&self, py: Python<'_>, request: &[u8], bridge: Option<Py<Bridge>>) -> PyResult<Stream> {
        let host = self.host.as_ref().map(|host| host.clone_ref(py));
        Stream::open(self.client()?, request.to_vec(), bridge, host)
    }

    /// Forgets all cached answers.
    fn clear_cache(&self) -> PyResult<()> {
        self.client()?.clear_cache();
        Ok(())
    }

    /// Refuses further calls. Idle connections are closed when the last call in flight is done.
    fn close(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::Release);
        let built = lock(&self.built).take();
        drop_built(built);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let built = self.built.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        drop_built(built);
    }
}

/// Drops a client and closes its idle connections; one of a parent process is left alone.
fn drop_built(built: Option<Built>) {
    let Some(built) = built else { return };
    if built.pid != std::process::id() {
        std::mem::forget(built);
        return;
    }
    if built.client.needs_background() {
        let runtime = runtime();
        let _guard = runtime.as_ref().map(|runtime| runtime.enter());
        drop(built);
    } else {
        drop(built);
        lanes::tidy();
    }
}
