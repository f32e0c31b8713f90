//! The C ABI of the engine: JSON bytes in and out, callbacks or waiting, explicit free.
//!
//! `include/liter_llm.h` is made from this crate; what holds for all functions stands at its top (`cbindgen.toml`).
//! Here pointers become references and panics become errors; the other modules know no pointers.

mod call;
mod engine;
mod records;
mod result;
mod runtime;

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use liter_llm::LlmError;

pub use crate::call::{LiterLlmCall, LiterLlmCallback};
pub use crate::engine::LiterLlmEngine;
pub use crate::records::LiterLlmRecords;
pub use crate::result::{LiterLlmResult, LiterLlmStatus};

use crate::call::Callback;
use crate::engine::misuse;

/// Keeps a panic from crossing into C.
fn guarded<T>(work: impl FnOnce() -> T, otherwise: impl FnOnce(&LlmError) -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| otherwise(&call::fault()))
}

/// As `guarded`, for functions that hand over a result. Never null.
fn resulting(work: impl FnOnce() -> Result<LiterLlmResult, LlmError>) -> *mut LiterLlmResult {
    let result =
        guarded(|| work().unwrap_or_else(|error| LiterLlmResult::failure(&error)), LiterLlmResult::failure);
    Box::into_raw(Box::new(result))
}

/// What C gave as a pointer and a length; null with a length is an error.
///
/// # Safety
/// `data` is null, or `length` bytes can be read there for as long as the slice is used.
unsafe fn bytes<'a>(name: &str, data: *const c_char, length: usize) -> Result<&'a [u8], LlmError> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(misuse(format!("`{name}` is NULL, its length is not 0")));
    }
    if isize::try_from(length).is_err() {
        return Err(misuse(format!("the length of `{name}` is larger than the memory")));
    }
    // SAFETY: not null, not too long, and readable as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) })
}

/// What a handle points to; null is an error.
///
/// # Safety
/// `handle` is null, or comes from this library and is not freed while the reference is used.
unsafe fn held<'a, T>(name: &str, handle: *const T) -> Result<&'a T, LlmError> {
    // SAFETY: null or alive as the caller promises.
    unsafe { handle.as_ref() }.ok_or_else(|| misuse(format!("`{name}` is NULL")))
}

/// Takes a handle back; null is nothing.
///
/// # Safety
/// `handle` is null, or comes from this library and is not used again.
unsafe fn taken_back<T>(handle: *mut T, end: impl FnOnce(T)) {
    if !handle.is_null() {
        // SAFETY: made by `Box::into_raw`, and the caller gives it up.
        let owned = unsafe { Box::from_raw(handle) };
        guarded(|| end(*owned), |_| ());
    }
}

/// Hands over a handle; null where it cannot be made, with the reason in `error`.
///
/// # Safety
/// `error` is null or can be written to.
unsafe fn handed_over<T>(
    make: impl FnOnce() -> Result<T, LlmError>,
    error: *mut *mut LiterLlmResult,
) -> *mut T {
    let (handle, failure) = match guarded(make, |fault| Err(fault.clone())) {
        Ok(made) => (Box::into_raw(Box::new(made)), std::ptr::null_mut()),
        Err(_) if error.is_null() => (std::ptr::null_mut(), std::ptr::null_mut()),
        Err(failure) => (std::ptr::null_mut(), resulting(|| Err(failure))),
    };
    if !error.is_null() {
        // SAFETY: the caller gave a place to write to.
        unsafe { error.write(failure) };
    }
    handle
}

/// The library's version, for instance `0.1.0`. Never freed.
#[unsafe(no_mangle)]
pub extern "C" fn liter_llm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Makes an engine of a configuration document (`docs/configuration.md`). Opens no connection.
///
/// On failure it returns NULL, and `*error` is a result to free. On success `*error` is NULL. `error` may be NULL.
///
/// # Safety
/// `length` bytes can be read at `config`; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_engine_new(
    config: *const c_char,
    length: usize,
    error: *mut *mut LiterLlmResult,
) -> *mut LiterLlmEngine {
    let made = || {
        // SAFETY: as the caller promises.
        let config = unsafe { bytes("config", config, length) }?;
        LiterLlmEngine::new(config)
    };
    // SAFETY: as the caller promises.
    unsafe { handed_over(made, error) }
}

/// Ends an engine. Calls under way go on and may be read to their end; idle connections are closed.
///
/// # Safety
/// `engine` is null, or an engine that no thread uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_engine_free(engine: *mut LiterLlmEngine) {
    // SAFETY: as the caller promises.
    unsafe { taken_back(engine, LiterLlmEngine::end) };
}

/// Takes another configuration document for the calls to come; statistics, circuits and the cache are kept where the
/// new document allows it. Those under way end under the old one. On failure nothing has changed.
///
/// # Safety
/// `engine` is null or an engine; `length` bytes can be read at `config`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_engine_reload(
    engine: *const LiterLlmEngine,
    config: *const c_char,
    length: usize,
) -> *mut LiterLlmResult {
    resulting(|| {
        // SAFETY: as the caller promises.
        let (engine, config) = unsafe { (held("engine", engine)?, bytes("config", config, length)?) };
        engine.reload(config).map(|()| LiterLlmResult::value(b"null".to_vec()))
    })
}

/// Asks the engine about itself. `question` is a string:
///
/// - `"describe"`: what it was made of, without secrets;
/// - `"state"`: circuits, limits and calls in flight of each deployment;
/// - `"figures"`: live statistics of each deployment; `"spend"`: what calls have cost (may read a file);
/// - `"canary"`, `"mirror"`: how they do, `null` without one;
/// - `"explain"`, `"explain_stream"`: where the `request` would go and why;
/// - `"validate"`: whether the `request` is one; nothing is sent;
/// - `"notices"`: a list of what an operator should hear of, circuits, budgets, canaries and reloads; they are taken, and at
///   most 256 wait;
/// - `"metrics"`: metrics for Prometheus (may read a file). `liter_llm_result_text` is the text, the JSON is
///   `{"content_type", "text"}`. In place of a request comes the `Accept` header of who asks: without one the form is
///   `text/plain; version=0.0.4; charset=utf-8`, with one that names `application/openmetrics-text` that. The first time
///   begins the counting: calls that begin later are counted, also after a reload.
///
/// The others need no request: NULL and 0.
///
/// # Safety
/// `engine` is null or an engine; `question` is null or ends with a zero byte; `length` bytes can be read at `request`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_engine_ask(
    engine: *const LiterLlmEngine,
    question: *const c_char,
    request: *const c_char,
    length: usize,
) -> *mut LiterLlmResult {
    resulting(|| {
        if question.is_null() {
            return Err(misuse("`question` is NULL"));
        }
        // SAFETY: as the caller promises.
        let (engine, request) = unsafe { (held("engine", engine)?, bytes("request", request, length)?) };
        // SAFETY: not null, and ends with a zero byte as the caller promises.
        engine.ask(unsafe { std::ffi::CStr::from_ptr(question) }.to_bytes(), request)
    })
}

/// Sends a request (`docs/wire.md`) and waits for the whole answer: `LITER_LLM_STATUS_OK` or `LITER_LLM_STATUS_ERROR`. How long it
/// may take is the configuration's or the request's `timeout`.
///
/// # Safety
/// `engine` is null or an engine; `length` bytes can be read at `request`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_generate(
    engine: *const LiterLlmEngine,
    request: *const c_char,
    length: usize,
) -> *mut LiterLlmResult {
    resulting(|| {
        // SAFETY: as the caller promises.
        let (engine, request) = unsafe { (held("engine", engine)?, bytes("request", request, length)?) };
        let (client, request) = (engine.client()?, request.to_vec());
        call::wait(async move {
            liter_llm_border::Outcome::from(liter_llm_border::answer(client, request).await).into()
        })
    })
}

type Begin = fn(call::Provider, Vec<u8>, Option<Callback>) -> Result<LiterLlmCall, LlmError>;

/// Begins a call; what is wrong with its arguments is its outcome.
///
/// # Safety
/// As of `liter_llm_submit`.
unsafe fn begin(
    begin: Begin,
    (engine, request, length): (*const LiterLlmEngine, *const c_char, usize),
    callback: Option<Callback>,
) -> *mut LiterLlmCall {
    let begun = guarded(
        || {
            // SAFETY: as the caller promises.
            let given = unsafe {
                held("engine", engine).and_then(|engine| Ok((engine, bytes("request", request, length)?)))
            };
            let given = given.and_then(|(engine, request)| Ok((engine.provider()?, request)));
            match given {
                Ok(((provider, recorder), request)) => {
                    begin(Ok(provider), request.to_vec(), callback).map(|call| call.noted_by(recorder))
                }
                // The engine reads the request first: this one can be read.
                Err(error) => begin(Err(error), br#"{"prompt": ""}"#.to_vec(), callback),
            }
        },
        |fault| Err(fault.clone()),
    );
    begun.map_or(std::ptr::null_mut(), |call| Box::into_raw(Box::new(call)))
}

/// Begins a call and returns at once. With a `callback`, that gets the one result, perhaps before this function returns;
/// without (NULL), take it with `liter_llm_call_next`. The request is copied.
///
/// Returns NULL only when the system gives no threads; the callback is not called then.
///
/// # Safety
/// `engine` is null or an engine; `length` bytes can be read at `request`; `callback` may be called from any thread
/// with `context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_submit(
    engine: *const LiterLlmEngine,
    request: *const c_char,
    length: usize,
    callback: LiterLlmCallback,
    context: *mut c_void,
) -> *mut LiterLlmCall {
    // SAFETY: as the caller promises.
    unsafe { begin(LiterLlmCall::submit, (engine, request, length), Callback::new(callback, context)) }
}

/// Begins a streamed call and returns at once. With a `callback`, that gets one batch of chunks after the other, then
/// the end or an error, one at a time; the stream waits while it runs. They may come before this function returns. Without
/// (NULL), take them with `liter_llm_call_next`. The request is copied.
///
/// Returns NULL only when the system gives no threads; the callback is not called then.
///
/// # Safety
/// As of `liter_llm_submit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_stream(
    engine: *const LiterLlmEngine,
    request: *const c_char,
    length: usize,
    callback: LiterLlmCallback,
    context: *mut c_void,
) -> *mut LiterLlmCall {
    // SAFETY: as the caller promises.
    unsafe { begin(LiterLlmCall::stream, (engine, request, length), Callback::new(callback, context)) }
}

/// Takes what comes next of a call without a callback. Waits at most `timeout_ms` milliseconds (0: not at all, less:
/// as long as it takes), then returns `LITER_LLM_STATUS_PENDING`, and the call goes on.
///
/// A call of `liter_llm_submit` gives `LITER_LLM_STATUS_OK` or `LITER_LLM_STATUS_ERROR`. A stream gives `LITER_LLM_STATUS_CHUNKS`, each time
/// all that have come, then `LITER_LLM_STATUS_END` or `LITER_LLM_STATUS_ERROR`. Whoever asks after that gets `LITER_LLM_STATUS_END`.
///
/// # Safety
/// `call` is null or a call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_call_next(
    call: *const LiterLlmCall,
    timeout_ms: i64,
) -> *mut LiterLlmResult {
    resulting(|| {
        // SAFETY: as the caller promises.
        unsafe { held("call", call) }?.next(timeout_ms)
    })
}

/// The answer of a streamed call in one piece, as `liter_llm_generate` would have given it: `LITER_LLM_STATUS_OK` once the
/// end was reached, before (and after an error) `LITER_LLM_STATUS_PENDING` with what has come so far.
///
/// # Safety
/// `call` is null or a call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_call_answer(call: *const LiterLlmCall) -> *mut LiterLlmResult {
    resulting(|| {
        // SAFETY: as the caller promises.
        unsafe { held("call", call) }?.answer()
    })
}

/// Stops a call and closes its connection. Whoever waits for it gets `LITER_LLM_STATUS_ERROR` of kind `cancelled`, as does its
/// callback. A call that is complete stays so. May be called from any thread, also while another one waits.
///
/// # Safety
/// `call` is null or a call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_call_cancel(call: *const LiterLlmCall) {
    guarded(
        || {
            // SAFETY: as the caller promises.
            if let Some(call) = unsafe { call.as_ref() } {
                call.cancel();
            }
        },
        |_| (),
    );
}

/// The record of a call that began while the engine kept such (`liter_llm_engine_keep_records`): the JSON is a call record
/// (`docs/wire.md`). `LITER_LLM_STATUS_OK` once the call is over; before that `LITER_LLM_STATUS_PENDING`, with the record as it would
/// be if the call were given up now, or without JSON when nothing has begun: a request that is none never does. A call
/// that was cancelled is over soon after.
///
/// # Safety
/// `call` is null or a call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_call_record(call: *const LiterLlmCall) -> *mut LiterLlmResult {
    resulting(|| {
        // SAFETY: as the caller promises.
        unsafe { held("call", call) }?.record()
    })
}

/// Frees a call; one under way is cancelled first. Its callback still gets its last result, soon after.
///
/// # Safety
/// `call` is null, or a call that no thread uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_call_free(call: *mut LiterLlmCall) {
    // SAFETY: as the caller promises.
    unsafe { taken_back(call, LiterLlmCall::end) };
}

/// Whether the calls that begin from now on keep a record of their own, for `liter_llm_call_record`: 0 for no, as at
/// first, else yes. It costs each call a little.
///
/// # Safety
/// `engine` is null or an engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_engine_keep_records(engine: *const LiterLlmEngine, on: i32) {
    // SAFETY: as the caller promises.
    if let Some(engine) = unsafe { engine.as_ref() } {
        engine.keep_records(on != 0);
    }
}

/// Has every call that begins from now on recorded when it is over, also after a reload: what operators may see of it, no
/// prompt, no answer, no secret. One under way is recorded only if somebody else listened when it began. With a `callback`, that gets one record after the other; without (NULL), take them with
/// `liter_llm_records_next`. A record is a `LITER_LLM_STATUS_OK` with its JSON (`docs/wire.md`).
///
/// No call waits for who listens: at most `most` records (at least 1) wait to be taken, further ones are dropped and counted.
/// The callback has a thread of its own, so that it may block and use every function; it must not throw or `longjmp`. The
/// first may come before this function returns. The last it gets is `LITER_LLM_STATUS_END`, some time after `liter_llm_records_close` or `liter_llm_records_free` and what came
/// before that: from then on `context` is not used again. The engine's end does not end it: calls may be under way.
///
/// On failure it returns NULL, and `*error` is a result to free; the callback is not called then. On success `*error` is
/// NULL. `error` may be NULL.
///
/// # Safety
/// `engine` is null or an engine; `callback` may be called from another thread with `context`; `error` is null or can be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_engine_on_call(
    engine: *const LiterLlmEngine,
    most: usize,
    callback: LiterLlmCallback,
    context: *mut c_void,
    error: *mut *mut LiterLlmResult,
) -> *mut LiterLlmRecords {
    let made = || {
        // SAFETY: as the caller promises.
        let engine = unsafe { held("engine", engine) }?;
        LiterLlmRecords::new(engine, most, Callback::new(callback, context))
    };
    // SAFETY: as the caller promises.
    unsafe { handed_over(made, error) }
}

/// Takes the next record of a recording without a callback, oldest first. Waits at most `timeout_ms` milliseconds (0: not at
/// all, less: as long as it takes), then returns `LITER_LLM_STATUS_PENDING`. `LITER_LLM_STATUS_END` once it is closed and all are
/// taken.
///
/// # Safety
/// `records` is null or a recording.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_records_next(
    records: *const LiterLlmRecords,
    timeout_ms: i64,
) -> *mut LiterLlmResult {
    resulting(|| {
        // SAFETY: as the caller promises.
        unsafe { held("records", records) }?.next(timeout_ms)
    })
}

/// How many records found `most` others waiting and were dropped; 0 for NULL. From any thread.
///
/// # Safety
/// `records` is null or a recording.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_records_dropped(records: *const LiterLlmRecords) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { records.as_ref() }.map_or(0, LiterLlmRecords::dropped)
}

/// Ends a recording. Those waiting can still be taken, or go to the callback; then comes the end. From any thread, also
/// while another one waits for a record.
///
/// # Safety
/// `records` is null or a recording.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_records_close(records: *const LiterLlmRecords) {
    guarded(
        || {
            // SAFETY: as the caller promises.
            if let Some(records) = unsafe { records.as_ref() } {
                records.close();
            }
        },
        |_| (),
    );
}

/// Frees a recording; it is closed first. Its callback still gets what waits, and the end, soon after; it may free its own
/// recording.
///
/// # Safety
/// `records` is null, or a recording that no thread uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_records_free(records: *mut LiterLlmRecords) {
    // SAFETY: as the caller promises.
    unsafe { taken_back(records, LiterLlmRecords::end) };
}

/// What a result is; `LITER_LLM_STATUS_ERROR` for NULL.
///
/// # Safety
/// `result` is null or a result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_result_status(result: *const LiterLlmResult) -> LiterLlmStatus {
    // SAFETY: as the caller promises.
    unsafe { result.as_ref() }.map_or(LiterLlmStatus::Error, LiterLlmResult::status)
}

/// Writes a length where C wants it.
///
/// # Safety
/// `length` is null or can be written to.
unsafe fn tell(length: *mut usize, value: usize) {
    if !length.is_null() {
        // SAFETY: the caller gave a place to write to.
        unsafe { length.write(value) };
    }
}

/// The JSON of a result (`docs/wire.md`): an answer, a list of chunks, an error, or what was asked for. `*length` is its
/// length, without the zero byte behind it. NULL when there is none. Lives as long as the result.
///
/// # Safety
/// `result` is null or a result; `length` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_result_json(
    result: *const LiterLlmResult,
    length: *mut usize,
) -> *const c_char {
    // SAFETY: as the caller promises.
    let json = unsafe { result.as_ref() }.map_or(&[][..], LiterLlmResult::json);
    // SAFETY: as the caller promises.
    unsafe { tell(length, json.len()) };
    if json.is_empty() { std::ptr::null() } else { json.as_ptr().cast() }
}

/// The provider's own bytes of a whole answer, as they came. NULL when there are none. Lives as long as the result.
///
/// # Safety
/// `result` is null or a result; `length` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_result_raw(
    result: *const LiterLlmResult,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: as the caller promises.
    let raw = unsafe { result.as_ref() }.map_or(&[][..], |result| result.raw());
    // SAFETY: as the caller promises.
    unsafe { tell(length, raw.len()) };
    if raw.is_empty() { std::ptr::null() } else { raw.as_ptr() }
}

/// The text of an answer, the new text of a batch of chunks, or the words of an error, for programs that read no JSON.
/// UTF-8 with a zero byte behind it, which `*length` does not count; text may hold zero bytes of its own. Empty when
/// there is none, never NULL. Lives as long as the result.
///
/// # Safety
/// `result` is null or a result; `length` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_result_text(
    result: *const LiterLlmResult,
    length: *mut usize,
) -> *const c_char {
    // SAFETY: as the caller promises.
    let text = unsafe { result.as_ref() }.map_or(&b"\0"[..], |result| guarded(|| result.text(), |_| b"\0"));
    // SAFETY: as the caller promises.
    unsafe { tell(length, text.len() - 1) };
    text.as_ptr().cast()
}

/// The kind of an error, for instance `rate_limited` (`docs/errors.md`); NULL when the result is none. A string that
/// lives as long as the result.
///
/// # Safety
/// `result` is null or a result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_result_kind(result: *const LiterLlmResult) -> *const c_char {
    // SAFETY: as the caller promises.
    let kind = unsafe { result.as_ref() }.and_then(|result| guarded(|| result.kind(), |_| None));
    kind.map_or(std::ptr::null(), |kind| kind.as_ptr())
}

/// Frees a result and all that was read from it.
///
/// # Safety
/// `result` is null, or a result that is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn liter_llm_result_free(result: *mut LiterLlmResult) {
    // SAFETY: as the caller promises.
    unsafe { taken_back(result, drop) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let result = resulting(|| panic!("a fault on purpose"));
        // SAFETY: the result is alive until it is freed below.
        unsafe {
            assert_eq!(liter_llm_result_status(result), LiterLlmStatus::Error);
            let kind = std::ffi::CStr::from_ptr(liter_llm_result_kind(result));
            assert_eq!(kind.to_str(), Ok("decode"));
            liter_llm_result_free(result);
        }
    }
}
