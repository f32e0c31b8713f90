//! The engine behind a client: configuration in, calls out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use liter_llm::client::{Client, Own};
use liter_llm::routing::custom::CustomPolicy;
use liter_llm::telemetry::Recorder;
use liter_llm::{Config, ErrorKind, LlmError, LlmProvider, LlmRequest};
use liter_llm_border::{ForeignPolicy, ForeignProvider, Outcome, answer, closed, lock, payload};
use neon::prelude::*;
use serde::Deserialize;

use crate::environment::{Environment, Thing, known};
use crate::runtime::runtime;
use crate::telemetry::recorder;
use crate::{count, given, number, refused, told, words, written};

/// The client at hand.
struct Built {
    client: Arc<Client>,
    /// Single deployments of the client's router that were asked for by name.
    doors: BTreeMap<String, Arc<dyn LlmProvider>>,
}

impl Built {
    fn new(client: Client) -> Self {
        Self { client: Arc::new(client), doors: BTreeMap::new() }
    }
}

/// What a client is made of, and the client: shared by the engines of all that use it.
struct Core {
    hosts: Hosts,
    built: Mutex<Option<Built>>,
}

/// A client's engine.
pub struct Engine {
    core: Arc<Core>,
    /// The name of the one deployment that answers, where it is not the router's choice.
    only: Option<String>,
    /// Whether another engine had the client first: then this one's end is not the client's.
    shared: bool,
    closed: AtomicBool,
}

/// Something written in JavaScript: its name, and the number of what carries it out there.
#[derive(Deserialize)]
struct Host {
    host: u64,
    name: String,
}

/// What of a client is written in JavaScript.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Hosts {
    /// By their place among the deployments.
    providers: BTreeMap<usize, Host>,
    policy: Option<Host>,
}

impl Hosts {
    fn own(&self, environment: &Arc<Environment>) -> Own {
        let providers = self.providers.iter().map(|(position, Host { host, name })| {
            let (environment, host) = (Arc::clone(environment), *host);
            let provider =
                ForeignProvider::new(name.clone(), "JavaScript", move |order| environment.order(host, order));
            (*position, Arc::new(provider) as Arc<dyn LlmProvider>)
        });
        let policy = self.policy.as_ref().map(|Host { host, name }| {
            let (environment, host) = (Arc::clone(environment), *host);
            let policy = ForeignPolicy::new(name.clone(), move |question| environment.ask(host, question));
            Arc::new(policy) as Arc<dyn CustomPolicy>
        });
        Own { providers: providers.collect(), policy }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        leave(self.built.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }
}

/// Drops a client and closes its idle connections: on the runtime, since many of them take their time.
fn leave(built: Option<Built>) {
    if let (Some(built), Ok(runtime)) = (built, runtime()) {
        runtime.spawn(async move { drop(built) });
    }
}

impl Engine {
    fn with_built<T>(&self, look: impl FnOnce(&mut Built) -> Result<T, LlmError>) -> Result<T, LlmError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        lock(&self.core.built).as_mut().map_or_else(|| Err(closed()), look)
    }

    /// The client; an error once it is closed.
    pub fn client(&self) -> Result<Arc<Client>, LlmError> {
        self.with_built(|built| Ok(Arc::clone(&built.client)))
    }

    /// What answers: the client, or the one deployment of it. A recorder is for one call.
    pub fn door(&self, recorder: Option<&Recorder>) -> Result<Arc<dyn LlmProvider>, LlmError> {
        let door = self.with_built(|built| {
            let Some(name) = &self.only else { return Ok(Arc::clone(&built.client) as Arc<dyn LlmProvider>) };
            if let Some(door) = built.doors.get(name) {
                return Ok(Arc::clone(door));
            }
            let door = built.client.only(name)?;
            built.doors.insert(name.clone(), Arc::clone(&door));
            Ok(door)
        })?;
        Ok(match recorder {
            Some(recorder) => recorder.over(door),
            None => door,
        })
    }

    /// Whether calls can go to this deployment.
    pub fn may_call(&self, deployment: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == deployment)
    }

    /// Puts another client in the place of the one at hand, which lives on for the calls it has in flight.
    fn reload(&self, document: &str, environment: &Arc<Environment>) -> Result<(), LlmError> {
        loop {
            let before = self.client()?;
            let config = Config::from_json(document.as_bytes())?;
            let next = before.reloaded_with(config, self.core.hosts.own(environment))?;
            let mut slot = lock(&self.core.built);
            match slot.as_mut() {
                None => return Err(closed()),
                // Another reload was first: this one goes on from there.
                Some(other) if !Arc::ptr_eq(&other.client, &before) => {}
                Some(current) => {
                    let old = std::mem::replace(current, Built::new(next));
                    drop(slot);
                    // Not the last one to let go: the old client is dropped on the runtime.
                    drop(before);
                    leave(Some(old));
                    return Ok(());
                }
            }
        }
    }

    fn share_as(&self, only: Option<String>) -> Self {
        Self { core: Arc::clone(&self.core), only, shared: true, closed: AtomicBool::new(false) }
    }
}

fn gives<'cx>(
    cx: &mut FunctionContext<'cx>,
    environment: &Environment,
    engine: Result<Engine, LlmError>,
) -> JsResult<'cx, JsValue> {
    given(cx, engine, |cx, engine| environment.keep(cx, Thing::Engine(Arc::new(engine))))
}

/// An engine of a configuration document, as JSON; and what of it is written in JavaScript, as JSON. Returns its number.
pub fn create<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (document, hosts) = (words(&mut cx, 0)?, words(&mut cx, 1)?);
    let Some(environment) = Environment::of(&mut cx) else {
        return Ok(refused(
            &mut cx,
            &LlmError::new(ErrorKind::Config, "`connect` was not called in this thread"),
        ));
    };
    let engine = serde_json::from_str::<Hosts>(&hosts)
        .map_err(|error| LlmError::new(ErrorKind::Config, error.to_string()))
        .and_then(|hosts| {
            let config = Config::from_json(document.as_bytes())?;
            let client = Client::from_config_with(config, hosts.own(&environment))?;
            let core = Arc::new(Core { hosts, built: Mutex::new(Some(Built::new(client))) });
            Ok(Engine { core, only: None, shared: false, closed: AtomicBool::new(false) })
        });
    gives(&mut cx, &environment, engine)
}

/// Puts a configuration document, as JSON, in force for the calls to come; those in flight end under the old one.
pub fn reload<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let document = words(&mut cx, 1)?;
    let reloaded = engine.reload(&document, &environment);
    given(&mut cx, reloaded, |cx, ()| cx.undefined().upcast())
}

/// Another engine over the same client, with the same statistics; closing it leaves the client open.
pub fn share<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    gives(&mut cx, &environment, Ok(engine.share_as(engine.only.clone())))
}

/// An engine of the one deployment of this name.
pub fn only<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let name = words(&mut cx, 1)?;
    let known = engine.client().and_then(|client| client.only(&name));
    gives(&mut cx, &environment, known.map(|_| engine.share_as(Some(name))))
}

/// Has something done on the runtime; an event with the call's number brings what it came to.
pub fn submit<'cx, W>(
    cx: &mut FunctionContext<'cx>,
    environment: &Arc<Environment>,
    call: u64,
    work: Result<W, LlmError>,
) -> JsResult<'cx, JsValue>
where
    W: Future<Output = Outcome> + Send + 'static,
{
    let begun = work.and_then(|work| {
        let teller = Arc::clone(environment);
        Ok(runtime()?.spawn(async move { teller.finish(call, work.await) }).abort_handle())
    });
    given(cx, begun, |cx, task| {
        environment.expect(cx, call, Some(task));
        cx.undefined().upcast()
    })
}

/// Answers a request: the event has the response's JSON and the provider's own bytes. The fourth argument may be a
/// recorder for the call.
pub fn generate<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let (call, request) = (count(&mut cx, 1)?, words(&mut cx, 2)?);
    let recorder = recorder(&mut cx, 3)?;
    let work = engine.door(recorder.as_deref()).map(|door| async move { answer(door, request).await.into() });
    submit(&mut cx, &environment, call, work)
}

/// JSON, or why there is none, as the outcome of a call.
pub fn outcome(value: Result<Vec<u8>, LlmError>) -> Outcome {
    value.map_or_else(|error| Outcome::Error(payload(&error)), Outcome::Batch)
}

/// Picks the deployment that a request would go to; the event has its name as JSON.
pub fn select<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let (call, request) = (count(&mut cx, 1)?, words(&mut cx, 2)?);
    let work = engine.client().map(|client| async move {
        let selected = match LlmRequest::from_json(request.as_bytes()) {
            Ok(request) => client.select(&request).await,
            Err(error) => Err(error),
        };
        outcome(selected.and_then(|provider| written(&provider.name())))
    });
    submit(&mut cx, &environment, call, work)
}

/// Where a request would go and why; the event has the route as JSON.
pub fn explain<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let (call, request) = (count(&mut cx, 1)?, words(&mut cx, 2)?);
    let streamed = cx.argument::<JsBoolean>(3)?.value(&mut cx);
    let work = engine.client().map(|client| async move {
        outcome(match LlmRequest::from_json(request.as_bytes()) {
            Ok(request) => written(&client.explain(&request, streamed).await),
            Err(error) => Err(error),
        })
    });
    submit(&mut cx, &environment, call, work)
}

/// What calls have cost; the event has it as JSON. May read a file, on a thread for that.
pub fn spend<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let call = count(&mut cx, 1)?;
    let work = engine.client().map(|client| async move {
        let read =
            tokio::task::spawn_blocking(move || client.router().spend().and_then(|spend| written(&spend)));
        outcome(read.await.unwrap_or_else(|error| Err(LlmError::new(ErrorKind::Decode, error.to_string()))))
    });
    submit(&mut cx, &environment, call, work)
}

/// What is known of the engine at this moment, as JSON: `describe`, `state`, `figures`, `heatmap` (with seconds in a
/// bucket and how many buckets), `canary`, `mirror`, `dropped` (how many records found their queue full). `clear_cache`
/// forgets all cached answers.
pub fn look<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, _) = known!(cx, 0, Engine);
    let what = words(&mut cx, 1)?;
    let buckets = match what.as_str() {
        "heatmap" => (number(&mut cx, 2)?, count(&mut cx, 3)?),
        _ => (0.0, 0),
    };
    let seen = engine.client().and_then(|client| match what.as_str() {
        "describe" => Ok(client.describe()),
        "state" => written(&client.state()),
        "figures" => written(&client.router().figures()),
        "canary" => written(&client.router().canary()),
        "mirror" => written(&client.router().mirror()),
        "dropped" => written(&client.telemetry().dropped()),
        "heatmap" => {
            let width = Duration::try_from_secs_f64(buckets.0).unwrap_or_default();
            written(&client.router().heatmap(width, usize::try_from(buckets.1).unwrap_or(usize::MAX)))
        }
        "clear_cache" => {
            client.clear_cache();
            written(&())
        }
        other => Err(LlmError::new(ErrorKind::Unsupported, format!("`{other}` is nothing to look at"))),
    });
    told(&mut cx, seen)
}

/// Refuses further calls. Idle connections are closed when the last call in flight is done, unless another engine had
/// the client first.
pub fn close<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, _) = known!(cx, 0, Engine);
    engine.closed.store(true, Ordering::Release);
    if !engine.shared {
        leave(lock(&engine.core.built).take());
    }
    Ok(cx.undefined().upcast())
}
