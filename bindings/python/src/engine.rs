//! The engine behind a client: configuration in, calls out.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use liter_llm::client::{Client, Own};
use liter_llm::{Config, ErrorKind, LlmError, LlmProvider, LlmRequest};
use liter_llm_border::{Answer, ProcessMetrics, answer, closed, lock};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::bridge::Bridge;
use crate::errors::raise;
use crate::host::{self, Aside, DISPATCH, Dispatch, Job, Jobs};
use crate::lanes::{self, Lane};
use crate::metrics::Metrics;
use crate::policy::{self, Questions};
use crate::records::{Recorder, Records};
use crate::runtime::{rest_if_exiting, runtime};
use crate::stream::Stream;

/// How long a sync wait lasts before signals (Ctrl-C) are looked at.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

struct Built {
    pid: u32,
    client: Arc<Client>,
    /// What the client was made of: a forked child makes its own.
    config: Vec<u8>,
    /// Single deployments of the client's router that were asked for by name.
    doors: BTreeMap<String, Arc<dyn LlmProvider>>,
}

/// What answers a call, and where the call may run.
struct Door {
    door: Arc<dyn LlmProvider>,
    /// Whether something of it must go on between calls.
    background: bool,
    /// The process at hand.
    pid: u32,
}

/// A provider or policy written in Python: its name and what carries out its jobs.
struct Host {
    name: String,
    host: Arc<Py<PyAny>>,
}

/// What a client is made of, and the client: shared by the engines of all that use it.
struct Core {
    /// Providers written in Python, by their place among the deployments.
    hosts: BTreeMap<usize, Host>,
    /// A policy written in Python: its name and what starts the thread that answers its questions.
    policy: Option<Host>,
    /// What starts the thread for jobs that no call of Python's waits for.
    aside: Option<Py<PyAny>>,
    built: Mutex<Option<Built>>,
    /// Who counts this client's calls: a forked child's client is a new one, which they are to count too.
    observers: Mutex<Vec<Weak<ProcessMetrics>>>,
    closed: AtomicBool,
}

/// What threads of Python's do for a client.
#[derive(Default)]
struct Work {
    jobs: Option<Jobs>,
    questions: Option<Questions>,
}

/// A client's engine.
#[pyclass(frozen, module = "liter_llm._native")]
pub struct Engine {
    core: Arc<Core>,
    /// The name of the one deployment that answers, where it is not the router's choice.
    only: Option<String>,
    /// Whether another engine had the client first: then this one's end is not the client's.
    shared: bool,
    closed: AtomicBool,
}

fn recorded(door: Arc<dyn LlmProvider>, recorder: Option<&Recorder>) -> Arc<dyn LlmProvider> {
    match recorder {
        None => door,
        Some(recorder) => recorder.0.over(door),
    }
}

fn read(request: &[u8]) -> PyResult<LlmRequest> {
    LlmRequest::from_json(request).map_err(|error| raise(&error))
}

/// Runs a sync call on the caller's own thread.
fn on_lane(py: Python<'_>, (door, pid): (Arc<dyn LlmProvider>, u32), request: &[u8]) -> PyResult<Answer> {
    let mut lane = Lane::take(pid)?;
    let rested = lane.rested();
    let mut call = Box::pin(async move {
        Lane::catch_up(rested).await;
        answer(door, request).await
    });
    loop {
        // What is left to do for the lane is done without the interpreter's lock too.
        let step = py.detach(|| {
            let step = lane.drive(async { tokio::time::timeout(SIGNAL_CHECK, &mut call).await });
            let step = match step {
                Some(Ok(outcome)) => {
                    drop(call);
                    if outcome.is_err() {
                        lane.tidy();
                    }
                    lane.rest();
                    ControlFlow::Break(outcome)
                }
                _ => ControlFlow::Continue((lane, call)),
            };
            rest_if_exiting();
            step
        });
        (lane, call) = match step {
            ControlFlow::Break(outcome) => return Ok(outcome),
            ControlFlow::Continue(unfinished) => unfinished,
        };
        if let Err(signal) = py.check_signals() {
            py.detach(|| lane.abandon(call));
            return Err(signal);
        }
    }
}

/// Runs a sync call on the shared runtime; providers written in Python answer on the caller's thread.
fn on_runtime(py: Python<'_>, client: Arc<dyn LlmProvider>, request: &[u8]) -> PyResult<Answer> {
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
            Some(Err(job)) => job.run(py)?,
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

impl Core {
    /// A client of this document; one that goes on where `before` stands.
    fn build(&self, document: &[u8], before: Option<&Client>) -> Result<(Arc<Client>, Work), LlmError> {
        let (aside, jobs) = match &self.aside {
            None => (None, None),
            Some(_) => {
                let (aside, jobs) = Aside::new();
                (Some(Arc::new(aside)), Some(jobs))
            }
        };
        let provider =
            |Host { name, host }: &Host| host::provider(name.clone(), Arc::clone(host), aside.clone());
        let providers = self.hosts.iter().map(|(position, host)| (*position, provider(host))).collect();
        let config = Config::from_json(document)?;
        let (policy, questions) = match &self.policy {
            None => (None, None),
            Some(Host { name, .. }) => {
                let (policy, questions) = policy::policy(name.clone());
                (Some(policy), Some(questions))
            }
        };
        let own = Own { providers, policy };
        let client = match before {
            Some(before) => before.reloaded_with(config, own)?,
            None => Client::from_config_with(config, own)?,
        };
        Ok((Arc::new(client), Work { jobs, questions }))
    }

    /// Has threads of this process's begin with their work. Not under a lock: Python lets other threads run meanwhile.
    fn begin(&self, py: Python<'_>, work: Work) -> PyResult<()> {
        let Work { jobs, questions } = work;
        if let (Some(jobs), Some(aside)) = (jobs, &self.aside) {
            aside.bind(py).call_method1(pyo3::intern!(py, "start"), (jobs,))?;
        }
        if let (Some(questions), Some(policy)) = (questions, &self.policy) {
            policy.host.bind(py).call_method1(pyo3::intern!(py, "start"), (questions,))?;
        }
        Ok(())
    }
}

impl Engine {
    /// Does something with the client of this process. In a forked child the parent's connections must not be touched:
    /// they are left as they are, and a new client is made.
    fn with_built<T>(&self, look: impl FnOnce(&mut Built) -> Result<T, LlmError>) -> PyResult<T> {
        if self.closed.load(Ordering::Acquire) || self.core.closed.load(Ordering::Acquire) {
            return Err(raise(&closed()));
        }
        let pid = std::process::id();
        let mut work = None;
        let mut slot = lock(&self.core.built);
        if let Some(parent) = slot.as_ref().filter(|built| built.pid != pid) {
            let config = parent.config.clone();
            let (client, begun) = self.core.build(&config, None).map_err(|error| raise(&error))?;
            for metrics in lock(&self.core.observers).iter().filter_map(Weak::upgrade) {
                metrics.observe(&client);
            }
            std::mem::forget(slot.replace(Built { pid, client, config, doors: BTreeMap::new() }));
            work = Some(begun);
        }
        let looked = slot.as_mut().map(look);
        drop(slot);
        if let Some(work) = work {
            Python::attach(|py| self.core.begin(py, work))?;
        }
        looked.unwrap_or_else(|| Err(closed())).map_err(|error| raise(&error))
    }

    fn client(&self) -> PyResult<Arc<Client>> {
        self.with_built(|built| Ok(Arc::clone(&built.client)))
    }

    /// What answers: the client, or the one deployment of it.
    fn door(&self) -> PyResult<Door> {
        self.with_built(|built| {
            let (pid, background) = (built.pid, built.client.needs_background());
            let door = match &self.only {
                None => Arc::clone(&built.client) as Arc<dyn LlmProvider>,
                Some(name) => match built.doors.get(name) {
                    Some(door) => Arc::clone(door),
                    None => {
                        let door = built.client.only(name)?;
                        built.doors.insert(name.clone(), Arc::clone(&door));
                        door
                    }
                },
            };
            Ok(Door { door, background, pid })
        })
    }

    fn hosted(&self) -> bool {
        !self.core.hosts.is_empty()
    }

    fn share_as(&self, only: Option<String>) -> Self {
        let core = Arc::clone(&self.core);
        Self { core, only, shared: true, closed: AtomicBool::new(false) }
    }
}

fn json<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyBytes>> {
    serde_json::to_vec(value)
        .map(|json| PyBytes::new(py, &json))
        .map_err(|error| raise(&LlmError::new(ErrorKind::Decode, error.to_string())))
}

#[pymethods]
impl Engine {
    /// `hosts`: what carries out the jobs of providers written in Python, by their place among the deployments.
    /// `policy`: what starts the thread that answers the questions of a policy written in Python. `aside`: what
    /// starts the thread for jobs of the engine's own calls.
    #[new]
    #[pyo3(signature = (config, hosts = None, policy = None, aside = None))]
    fn new(
        py: Python<'_>,
        config: &[u8],
        hosts: Option<BTreeMap<usize, Py<PyAny>>>,
        policy: Option<Py<PyAny>>,
        aside: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let host = |host: Py<PyAny>| -> PyResult<Host> {
            let name = host.bind(py).getattr("name")?.extract::<String>()?;
            Ok(Host { name, host: Arc::new(host) })
        };
        let hosts = hosts.unwrap_or_default().into_iter();
        let hosts = hosts.map(|(position, object)| Ok((position, host(object)?))).collect::<PyResult<_>>()?;
        let core = Core {
            hosts,
            policy: policy.map(host).transpose()?,
            aside,
            built: Mutex::new(None),
            observers: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        let engine = Self { core: Arc::new(core), only: None, shared: false, closed: AtomicBool::new(false) };
        let (client, questions) = engine.core.build(config, None).map_err(|error| raise(&error))?;
        let built =
            Built { pid: std::process::id(), client, config: config.to_vec(), doors: BTreeMap::new() };
        *lock(&engine.core.built) = Some(built);
        engine.core.begin(py, questions)?;
        Ok(engine)
    }

    /// Another engine over the same client, with the same statistics; closing it leaves the client open.
    fn share(&self) -> Self {
        self.share_as(self.only.clone())
    }

    /// Picks the deployment that this request would go to. Returns its name and an engine of it alone.
    fn select(&self, py: Python<'_>, request: &[u8]) -> PyResult<(String, Self)> {
        let (client, request) = (self.client()?, read(request)?);
        let runtime = runtime()?;
        let selected = py.detach(|| {
            let selected = runtime.block_on(client.select(&request));
            rest_if_exiting();
            selected
        });
        let name = selected.map_err(|error| raise(&error))?.name().to_owned();
        let engine = self.share_as(Some(name.clone()));
        Ok((name, engine))
    }

    /// Where this request would go and why, as JSON; all deployments are listed.
    fn explain<'py>(&self, py: Python<'py>, request: &[u8], streamed: bool) -> PyResult<Bound<'py, PyBytes>> {
        let (client, request) = (self.client()?, read(request)?);
        let runtime = runtime()?;
        let route = py.detach(|| {
            let route = runtime.block_on(client.explain(&request, streamed));
            rest_if_exiting();
            route
        });
        json(py, &route)
    }

    /// What the engine was made of, as JSON without secrets.
    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.client()?.describe()))
    }

    /// How the deployment is doing, as a JSON list.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        json(py, &self.client()?.state())
    }

    /// Answers a request: the response's JSON and the provider's own bytes. Blocks without the interpreter's lock.
    #[pyo3(signature = (request, recorder = None))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        request: &[u8],
        recorder: Option<&Recorder>,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let Door { door, background, pid } = self.door()?;
        let door = recorded(door, recorder);
        let outcome = if background || self.hosted() {
            on_runtime(py, door, request)?
        } else {
            on_lane(py, (door, pid), request)?
        };
        match outcome {
            Ok((json, raw)) => Ok((PyBytes::new(py, &json), PyBytes::new(py, &raw))),
            Err(error) => Err(raise(&error)),
        }
    }

    /// Answers a request on an event loop: the future gets the answer through the bridge.
    #[pyo3(signature = (request, bridge, future, recorder = None))]
    fn submit(
        &self,
        request: &[u8],
        bridge: &Bound<'_, Bridge>,
        future: Py<PyAny>,
        recorder: Option<&Recorder>,
    ) -> PyResult<u64> {
        let Door { door, .. } = self.door()?;
        let door = recorded(door, recorder);
        let shared = bridge.get().shared();
        let call = bridge.get().expect(future);
        let work = answer(door, request.to_vec());
        let runtime = runtime()?;
        let finish = {
            let shared = Arc::clone(&shared);
            move |outcome: Answer| shared.finish(call, outcome.into())
        };
        let task = if self.hosted() {
            let dispatch: Dispatch = Arc::new(move |job| shared.run(job));
            runtime.spawn(async move { finish(DISPATCH.scope(dispatch, work).await) })
        } else {
            runtime.spawn(async move { finish(work.await) })
        };
        bridge.get().abort_with(call, task.abort_handle());
        Ok(call)
    }

    /// Starts a streamed call; never blocks.
    #[pyo3(signature = (request, bridge = None, recorder = None))]
    fn open(
        &self,
        request: &[u8],
        bridge: Option<Py<Bridge>>,
        recorder: Option<&Recorder>,
    ) -> PyResult<Stream> {
        let door = recorded(self.door()?.door, recorder);
        Stream::open(door, request.to_vec(), bridge, self.hosted())
    }

    /// The records of the calls that begin from now on, in a queue of at most `most`; further ones are dropped and
    /// counted.
    fn records(&self, most: usize) -> PyResult<Records> {
        Ok(Records::new(self.client()?.telemetry().records(most)))
    }

    /// Where the deployments are, as a JSON list: name, provider, model, region, server.
    fn places<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let client = self.client()?;
        let places = client
            .places()
            .values()
            .filter(|place| self.only.as_ref().is_none_or(|only| *only == place.deployment));
        json(py, &places.collect::<Vec<_>>())
    }

    /// Has the calls that begin from now on counted, also after a reload and in a forked child.
    fn observe(&self, metrics: &Bound<'_, Metrics>) -> PyResult<()> {
        let client = self.client()?;
        let metrics = &metrics.get().0;
        metrics.observe(&client);
        let mut observers = lock(&self.core.observers);
        observers.retain(|other| other.strong_count() > 0);
        let weak = Arc::downgrade(metrics);
        if !observers.iter().any(|other| other.ptr_eq(&weak)) {
            observers.push(weak);
        }
        Ok(())
    }

    /// The notices that wait, as a JSON list; they are taken. `None` when there are none: that costs next to nothing.
    fn notices<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let client = self.client()?;
        let notices = client.telemetry().notices();
        if !notices.any() {
            return Ok(None);
        }
        json(py, &notices.take()).map(Some)
    }

    /// Live statistics of each deployment, as JSON.
    fn figures<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        json(py, &self.client()?.router().figures())
    }

    /// Latency by deployment and time, as JSON: the last `count` buckets of so many seconds.
    fn heatmap<'py>(&self, py: Python<'py>, bucket: f64, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let bucket = Duration::try_from_secs_f64(bucket).unwrap_or_default();
        json(py, &self.client()?.router().heatmap(bucket, count))
    }

    /// How the canary does, as JSON; `null` without one.
    fn canary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        json(py, &self.client()?.router().canary())
    }

    /// How the mirrored calls do, as JSON; `null` without a mirror.
    fn mirror<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        json(py, &self.client()?.router().mirror())
    }

    /// How many records of calls found their queue full, of all queues together.
    fn dropped(&self) -> PyResult<u64> {
        Ok(self.client()?.telemetry().dropped())
    }

    /// What calls have cost, as JSON. May read a file.
    fn spend<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let client = self.client()?;
        let spend = py.detach(|| {
            let spend = client.router().spend();
            rest_if_exiting();
            spend
        });
        json(py, &spend.map_err(|error| raise(&error))?)
    }

    /// Forgets all cached answers.
    fn clear_cache(&self) -> PyResult<()> {
        self.client()?.clear_cache();
        Ok(())
    }

    /// Takes another configuration for the calls to come; those in flight end under the old one. What cannot work
    /// changes nothing.
    fn reload(&self, py: Python<'_>, document: &[u8]) -> PyResult<()> {
        loop {
            let before = self.client()?;
            let made = py.detach(|| {
                let made = self.core.build(document, Some(&before));
                rest_if_exiting();
                made
            });
            let (client, questions) = made.map_err(|error| raise(&error))?;
            let pid = std::process::id();
            let next = Built { pid, client, config: document.to_vec(), doors: BTreeMap::new() };
            let mut slot = lock(&self.core.built);
            match slot.as_mut() {
                None => return Err(raise(&closed())),
                // Another reload was first: this one goes on from there.
                Some(other) if !Arc::ptr_eq(&other.client, &before) => {}
                Some(current) => {
                    let old = std::mem::replace(current, next);
                    drop(slot);
                    drop(before);
                    drop_built(py, Some(old));
                    return self.core.begin(py, questions);
                }
            }
        }
    }

    /// Refuses further calls. Idle connections are closed when the last call in flight is done, unless another engine
    /// had the client first.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::Release);
        if !self.shared {
            self.core.closed.store(true, Ordering::Release);
            let built = lock(&self.core.built).take();
            drop_built(py, built);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let built = self.built.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(built) = built else { return };
        let mut built = Some(built);
        // An object is freed by a thread that holds the interpreter's lock, so this takes none.
        let attached = Python::try_attach(|py| drop_built(py, built.take()));
        if attached.is_none() {
            // The interpreter is gone; so will be the process, and the sockets with it.
            std::mem::forget(built);
        }
    }
}

/// Drops a client and closes its idle connections; one of a parent process is left alone.
fn drop_built(py: Python<'_>, built: Option<Built>) {
    let Some(built) = built else { return };
    if built.pid != std::process::id() {
        std::mem::forget(built);
        return;
    }
    if built.client.needs_background() {
        let runtime = runtime();
        let _guard = runtime.as_ref().map(|runtime| runtime.enter());
        drop(built);
        return;
    }
    // Many connections take their time, which is not to be the other threads' too.
    py.detach(|| {
        drop(built);
        lanes::tidy();
        rest_if_exiting();
    });
}
