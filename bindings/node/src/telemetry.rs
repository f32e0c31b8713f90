//! Records of calls and metrics, for who traces, counts and listens in JavaScript.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use liter_llm::telemetry::{CallRecords, Recorder};
use liter_llm::{CallRecord, ErrorKind, LlmError, LlmRequest};
use liter_llm_border::{ProcessMetrics, lock};
use neon::prelude::*;

use crate::engine::{outcome, submit};
use crate::environment::{Environment, Thing, known, thing};
use crate::runtime::runtime;
use crate::{count, given, optional, refused, told, words, written};

/// The records of a client's calls, in a queue of bounded length. Dropped, it ends the recording.
pub struct Records {
    queue: Arc<CallRecords>,
    /// The record whose coming was waited for.
    first: Arc<Mutex<Option<Arc<CallRecord>>>>,
}

impl Drop for Records {
    fn drop(&mut self) {
        // Wakes the task that waits, which holds the queue too.
        self.queue.close();
    }
}

/// Keeps something new, and gives its number.
fn kept<'cx>(cx: &mut FunctionContext<'cx>, thing: Thing) -> JsResult<'cx, JsValue> {
    Ok(match Environment::of(cx) {
        Some(environment) => environment.keep(cx, thing),
        None => refused(cx, &LlmError::new(ErrorKind::Config, "`connect` was not called in this thread")),
    })
}

/// The record of a call that is about to be made: to be given to `generate` or `open`.
pub fn create_recorder(mut cx: FunctionContext<'_>) -> JsResult<'_, JsValue> {
    kept(&mut cx, Thing::Recorder(Arc::default()))
}

/// The recorder that an argument names; `None` when it is left out.
pub fn recorder(cx: &mut FunctionContext<'_>, position: usize) -> NeonResult<Option<Arc<Recorder>>> {
    if optional::<JsNumber>(cx, position)?.is_none() {
        return Ok(None);
    }
    let found = thing(cx, position, |thing| match thing {
        Thing::Recorder(found) => Some(found),
        _ => None,
    })?;
    Ok(found.ok().map(|(recorder, _)| recorder))
}

/// The record as JSON, and lets go of it: whole when the call is over, else as it would be if the call were given up
/// now. `undefined` when the call has not begun.
pub fn recorded(mut cx: FunctionContext<'_>) -> JsResult<'_, JsValue> {
    let (recorder, environment) = known!(cx, 0, Recorder);
    let number = count(&mut cx, 0)?;
    drop(environment.let_go(number));
    match recorder.record() {
        Some(record) => told(&mut cx, Ok(record.to_json())),
        None => Ok(cx.undefined().upcast()),
    }
}

/// Has the calls that begin from now on recorded, in a queue of so many; further ones are dropped and counted.
pub fn records(mut cx: FunctionContext<'_>) -> JsResult<'_, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let most = usize::try_from(count(&mut cx, 1)?).unwrap_or(usize::MAX);
    let records = engine
        .client()
        .map(|client| Records { queue: Arc::new(client.telemetry().records(most)), first: Arc::default() });
    given(&mut cx, records, |cx, records| environment.keep(cx, Thing::Records(Arc::new(records))))
}

/// Has an event with this number say that there are records, or that there will be none any more. The event loop is not
/// kept alive for it.
pub fn next<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (records, environment) = known!(cx, 0, Records);
    let number = count(&mut cx, 1)?;
    let (queue, first) = (Arc::clone(&records.queue), Arc::clone(&records.first));
    let begun = runtime().map(|runtime| {
        runtime.spawn(async move {
            if let Some(record) = queue.next().await {
                lock(&first).replace(record);
            }
            environment.records(number);
        });
    });
    given(&mut cx, begun, |cx, ()| cx.undefined().upcast())
}

/// The records that are there now, as a JSON array; `undefined` once there are none and will be none any more.
pub fn take<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (records, _) = known!(cx, 0, Records);
    let first = lock(&records.first).take();
    let others = records.queue.take(Duration::ZERO);
    let taken: Vec<&CallRecord> = first.iter().chain(&others).map(AsRef::as_ref).collect();
    if taken.is_empty() && records.queue.is_closed() {
        return Ok(cx.undefined().upcast());
    }
    told(&mut cx, Ok(CallRecord::list_to_json(taken)))
}

/// How many records found the queue full.
#[expect(clippy::cast_precision_loss, reason = "nobody counts that far")]
pub fn dropped<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (records, _) = known!(cx, 0, Records);
    Ok(cx.number(records.queue.dropped() as f64).upcast())
}

/// Ends the recording; what is in the queue still comes.
pub fn close_records<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (records, _) = known!(cx, 0, Records);
    records.queue.close();
    Ok(cx.undefined().upcast())
}

/// The notices that wait, as a JSON array; they are taken. `undefined` when there are none.
pub fn notices<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, _) = known!(cx, 0, Engine);
    let taken = engine.client().and_then(|client| {
        let notices = client.telemetry().notices();
        if notices.any() { written(&notices.take()).map(Some) } else { Ok(None) }
    });
    match taken {
        Ok(None) => Ok(cx.undefined().upcast()),
        Ok(Some(json)) => told(&mut cx, Ok(json)),
        Err(error) => Ok(refused(&mut cx, &error)),
    }
}

/// Where the deployments are, as a JSON array: name, provider, model, region, server.
pub fn places<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, _) = known!(cx, 0, Engine);
    let places = engine.client().and_then(|client| {
        let places = client.places().values().filter(|place| engine.may_call(&place.deployment));
        written(&places.collect::<Vec<_>>())
    });
    told(&mut cx, places)
}

/// A request in its neutral form, for who records what was asked.
pub fn neutral(mut cx: FunctionContext<'_>) -> JsResult<'_, JsValue> {
    let request = words(&mut cx, 0)?;
    let neutral = LlmRequest::from_json(request.as_bytes()).and_then(|request| written(&request));
    told(&mut cx, neutral)
}

/// Metrics of no client yet.
pub fn create_metrics(mut cx: FunctionContext<'_>) -> JsResult<'_, JsValue> {
    kept(&mut cx, Thing::Metrics(Arc::new(ProcessMetrics::new())))
}

/// Has the calls of an engine's client counted that begin from now on.
pub fn observe<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (metrics, _) = known!(cx, 0, Metrics);
    let (engine, _) = known!(cx, 1, Engine);
    let observed = engine.client().map(|client| metrics.observe(&client));
    given(&mut cx, observed, |cx, ()| cx.undefined().upcast())
}

/// The content type, a line feed, and the text.
fn page(metrics: &ProcessMetrics, accept: Option<&str>) -> Vec<u8> {
    let (kind, text) = metrics.answer(accept);
    format!("{kind}\n{text}").into_bytes()
}

/// The content type, a line feed and the metrics' text, as an `Accept` header asks for it. With budgets in a file it
/// reads that.
pub fn scrape<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (metrics, _) = known!(cx, 0, Metrics);
    let accept = optional::<JsString>(&mut cx, 1)?.map(|accept| accept.value(&mut cx));
    told(&mut cx, Ok(page(&metrics, accept.as_deref())))
}

/// As `scrape`, on a thread for that; an event with the call's number brings it.
pub fn scrape_later<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (metrics, environment) = known!(cx, 0, Metrics);
    let call = count(&mut cx, 1)?;
    let accept = optional::<JsString>(&mut cx, 2)?.map(|accept| accept.value(&mut cx));
    let work = async move {
        let read = tokio::task::spawn_blocking(move || page(&metrics, accept.as_deref())).await;
        outcome(read.map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string())))
    };
    submit(&mut cx, &environment, call, Ok(work))
}

/// Counts no more calls; what was counted can still be read.
pub fn close_metrics<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (metrics, _) = known!(cx, 0, Metrics);
    metrics.close();
    Ok(cx.undefined().upcast())
}
