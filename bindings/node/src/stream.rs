//! A streamed answer on its way to JavaScript: one batch of chunks after the other.

use std::sync::Arc;

use liter_llm_border::{Feed, Outcome, pump};
use neon::prelude::*;
use tokio::task::AbortHandle;

use crate::environment::{Call, Thing, known};
use crate::runtime::runtime;
use crate::telemetry::recorder;
use crate::{count, given, text, words};

/// A streamed answer. Dropped, it closes its connection.
pub struct Stream {
    feed: Arc<Feed<Call>>,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a streamed call; never blocks. Returns the stream's number. The third argument may be a recorder for the call.
pub fn open<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (engine, environment) = known!(cx, 0, Engine);
    let request = words(&mut cx, 1)?.into_bytes();
    let recorder = recorder(&mut cx, 2)?;
    let opened = engine.door(recorder.as_deref()).and_then(|door| {
        let feed = Arc::new(Feed::default());
        let task = runtime()?.spawn(pump(Arc::clone(&feed), door, request)).abort_handle();
        Ok(Stream { feed, task })
    });
    given(&mut cx, opened, |cx, stream| environment.keep(cx, Thing::Stream(Arc::new(stream))))
}

/// Chunks that are ready now as a JSON array (empty text at the end), or `undefined`: then an event with the call's
/// number brings them.
pub fn next<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (stream, environment) = known!(cx, 0, Stream);
    let number = count(&mut cx, 1)?;
    let ready = stream.feed.take_or(|| {
        environment.expect(&mut cx, number, None);
        Call { environment: Arc::clone(&environment), number }
    });
    Ok(match ready {
        None => cx.undefined().upcast(),
        Some(Outcome::Batch(json) | Outcome::Answer(json, _)) => text(&mut cx, &json).upcast(),
        Some(Outcome::Error(error)) => cx.string(format!("!{}", String::from_utf8_lossy(&error))).upcast(),
    })
}

/// The answer as JSON: the whole one when the second argument is true (`undefined` before the end and after a failure),
/// else as far as it has come.
pub fn folded<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (stream, _) = known!(cx, 0, Stream);
    let whole = cx.argument::<JsBoolean>(1)?.value(&mut cx);
    let json = if whole { stream.feed.response() } else { stream.feed.partial().map(Some) };
    given(&mut cx, json, |cx, json| match json {
        Some(json) => text(cx, &json).upcast(),
        None => cx.undefined().upcast(),
    })
}

/// Closes the connection; who waits for chunks gets an error of kind `cancelled`.
pub fn stop<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (stream, _) = known!(cx, 0, Stream);
    stream.task.abort();
    stream.feed.close();
    Ok(cx.undefined().upcast())
}
