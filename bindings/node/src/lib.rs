//! The Node face of the engine: JSON text in and out, events in batches.
//!
//! JavaScript knows what is kept here by numbers. Only calls of Node's interface are used that work in a worker that is
//! being terminated too: texts and numbers in and out, no objects, nothing thrown.

mod catalog;
mod engine;
mod environment;
mod host;
mod runtime;
mod stream;
mod telemetry;
mod toml;

use liter_llm::{ErrorKind, LlmError};
use liter_llm_border::{RetryFacts, payload, retry_wait};
use neon::prelude::*;

/// What is returned in place of a value when there is an error: `!` and the error in its border form. Nothing is thrown:
/// in a worker that is being terminated nothing can be, and trying would end the process.
fn refused<'cx>(cx: &mut impl Context<'cx>, error: &LlmError) -> Handle<'cx, JsValue> {
    let payload = payload(error);
    cx.string(format!("!{}", String::from_utf8_lossy(&payload))).upcast()
}

/// A value, or its error, as JavaScript gets it.
fn given<'cx, T>(
    cx: &mut FunctionContext<'cx>,
    value: Result<T, LlmError>,
    give: impl FnOnce(&mut FunctionContext<'cx>, T) -> Handle<'cx, JsValue>,
) -> JsResult<'cx, JsValue> {
    Ok(match value {
        Ok(value) => give(cx, value),
        Err(error) => refused(cx, &error),
    })
}

/// JSON, or why there is none, as JavaScript gets it.
fn told<'cx>(cx: &mut FunctionContext<'cx>, json: Result<Vec<u8>, LlmError>) -> JsResult<'cx, JsValue> {
    given(cx, json, |cx, json| text(cx, &json).upcast())
}

/// A value as JSON.
fn written(value: &impl serde::Serialize) -> Result<Vec<u8>, LlmError> {
    serde_json::to_vec(value).map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))
}

/// JSON as a string of JavaScript's.
fn text<'cx>(cx: &mut impl Context<'cx>, json: &[u8]) -> Handle<'cx, JsString> {
    match std::str::from_utf8(json) {
        Ok(json) => cx.string(json),
        Err(_) => cx.string(String::from_utf8_lossy(json)),
    }
}

/// An argument that is text.
fn words(cx: &mut FunctionContext<'_>, position: usize) -> NeonResult<String> {
    Ok(cx.argument::<JsString>(position)?.value(cx))
}

/// An argument that is a number.
fn number(cx: &mut FunctionContext<'_>, position: usize) -> NeonResult<f64> {
    Ok(cx.argument::<JsNumber>(position)?.value(cx))
}

/// An argument that is a whole number from 0 up; others become the nearest one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "out of range becomes the nearest"
)]
fn count(cx: &mut FunctionContext<'_>, position: usize) -> NeonResult<u64> {
    Ok(number(cx, position)? as u64)
}

/// An argument that may be left out.
fn optional<'cx, V: Value>(
    cx: &mut FunctionContext<'cx>,
    position: usize,
) -> NeonResult<Option<Handle<'cx, V>>> {
    match cx.argument_opt(position) {
        Some(value) if !value.is_a::<JsUndefined, _>(cx) => value.downcast_or_throw(cx).map(Some),
        _ => Ok(None),
    }
}

/// The seconds to wait before an operation is repeated; `undefined` when its failure is the outcome. In this order:
/// repeats made, whether the failure may be repeated, `retryAfter`, seconds left, and the options.
fn retry<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let cx = &mut cx;
    let seconds = |cx: &mut FunctionContext<'cx>, position| {
        Ok(optional::<JsNumber>(cx, position)?.map(|number| number.value(cx)))
    };
    let facts = RetryFacts {
        repeats: u32::try_from(count(cx, 0)?).unwrap_or(u32::MAX),
        retryable: cx.argument::<JsBoolean>(1)?.value(cx),
        retry_after: seconds(cx, 2)?,
        left: seconds(cx, 3)?,
        max_retries: u32::try_from(count(cx, 4)?).unwrap_or(u32::MAX),
        base: number(cx, 5)?,
        cap: number(cx, 6)?,
        longest_retry_after: number(cx, 7)?,
    };
    Ok(match retry_wait(&facts) {
        Some(wait) => cx.number(wait).upcast(),
        None => cx.undefined().upcast(),
    })
}

/// The provider rows as JSON.
fn providers<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let rows = liter_llm::providers::rows().and_then(written);
    told(&mut cx, rows)
}

/// The tables of the configuration document with the names of their options, as JSON.
fn config_options<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    told(&mut cx, written(&liter_llm::config::option_names()))
}

#[neon::main]
fn main(mut cx: ModuleContext<'_>) -> NeonResult<()> {
    let version = cx.string(env!("CARGO_PKG_VERSION"));
    cx.export_value("version", version)?;
    cx.export_function("connect", environment::connect)?;
    cx.export_function("cancel", environment::cancel)?;
    cx.export_function("free", environment::free)?;
    cx.export_function("engine", engine::create)?;
    cx.export_function("reload", engine::reload)?;
    cx.export_function("share", engine::share)?;
    cx.export_function("only", engine::only)?;
    cx.export_function("generate", engine::generate)?;
    cx.export_function("select", engine::select)?;
    cx.export_function("explain", engine::explain)?;
    cx.export_function("spend", engine::spend)?;
    cx.export_function("look", engine::look)?;
    cx.export_function("close", engine::close)?;
    cx.export_function("open", stream::open)?;
    cx.export_function("next", stream::next)?;
    cx.export_function("folded", stream::folded)?;
    cx.export_function("stop", stream::stop)?;
    cx.export_function("watch", host::watch)?;
    cx.export_function("report", host::report)?;
    cx.export_function("asked", host::asked)?;
    cx.export_function("answer", host::answer)?;
    cx.export_function("catalog", catalog::open)?;
    cx.export_function("catalogAsk", catalog::ask)?;
    cx.export_function("recorder", telemetry::create_recorder)?;
    cx.export_function("recorded", telemetry::recorded)?;
    cx.export_function("records", telemetry::records)?;
    cx.export_function("nextRecords", telemetry::next)?;
    cx.export_function("takeRecords", telemetry::take)?;
    cx.export_function("droppedRecords", telemetry::dropped)?;
    cx.export_function("closeRecords", telemetry::close_records)?;
    cx.export_function("notices", telemetry::notices)?;
    cx.export_function("places", telemetry::places)?;
    cx.export_function("neutral", telemetry::neutral)?;
    cx.export_function("metrics", telemetry::create_metrics)?;
    cx.export_function("observe", telemetry::observe)?;
    cx.export_function("scrape", telemetry::scrape)?;
    cx.export_function("scrapeLater", telemetry::scrape_later)?;
    cx.export_function("closeMetrics", telemetry::close_metrics)?;
    cx.export_function("toml", toml::parse)?;
    cx.export_function("retry", retry)?;
    cx.export_function("providers", providers)?;
    cx.export_function("configOptions", config_options)
}
