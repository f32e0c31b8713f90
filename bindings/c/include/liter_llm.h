/*
 * The C ABI of Liter-LLM.
 *
 * Made by cbindgen from bindings/c/src: changes here are lost. The guide is docs/c.md.
 *
 * Bytes. Configuration, requests, answers, chunks and errors are JSON in UTF-8; their fields are in
 * docs/configuration.md and docs/wire.md. What goes in has an explicit length, is copied, and may be freed when the
 * function returns. NULL with the length 0 is empty.
 *
 * Memory. What a function or a callback hands over belongs to the receiver and is freed once, with the function of its
 * type, in any order: a call outlives its engine, a result outlives both. NULL may be given everywhere: `free`,
 * `cancel` and what has no result do nothing, the others hand over an error of kind `invalid_request`.
 *
 * Threads. An engine may be used by any number of threads at once. A call may be read by one thread at a time, and
 * cancelled by any; so may a recording, and be closed by any. A result belongs to one thread at a time. Freeing needs that no other thread uses the thing.
 *
 * Callbacks come from threads of the engine's, which other calls need: a callback must not block. It may use every
 * function but those that wait (`liter_llm_generate`, `liter_llm_call_next` with a time limit other than 0, the
 * `liter_llm_records_next` likewise, the questions `explain` and `explain_stream`), which refuse there; it may free its
 * own call. Callbacks for records are another matter: each has a thread of its own, and may block.
 *
 * A callback may come before the function that begins its call has returned, and so may the last one: what `context`
 * points to has to be ready before, and the call's handle may not be known there yet. A callback that uses the handle
 * takes it from a place that is written and read under a lock. The handle is good all the same, and to be freed once,
 * also when the last callback has come. So it is with recordings.
 *
 * Signals are left to the host: the engine's threads take none, and a broken connection raises no SIGPIPE.
 *
 * Fork. A child made by fork() may go on with an engine: it makes threads and connections of its own, with new
 * statistics. Calls begun before the fork are the parent's: in the child they give an error and freeing them does
 * nothing; their callbacks come in the parent only. So it is with recordings: the child begins its own. Fork while no other thread is inside a function of the library.
 *
 * Exit. The engine's threads end with the process; the library stays loaded after dlclose(). To be sure that no
 * callback runs while main() returns, wait for the last result of each call and each recording.
 *
 * A fault in the engine is an error too; nothing is thrown across this border.
 */

#ifndef LITER_LLM_H
#define LITER_LLM_H

#include <stddef.h>
#include <stdint.h>

/*
 What a result is.
 */
enum LiterLlmStatus
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /*
     Done: the JSON is the answer, or what was asked for.
     */
    LITER_LLM_STATUS_OK = 0,
    /*
     Part of a streamed answer: the JSON is a list of chunks. More follows.
     */
    LITER_LLM_STATUS_CHUNKS = 1,
    /*
     The streamed answer is complete, or the recording has ended. There is no JSON.
     */
    LITER_LLM_STATUS_END = 2,
    /*
     Nothing has come within the time given. There is no JSON.
     */
    LITER_LLM_STATUS_PENDING = 3,
    /*
     A failure: the JSON is the error. Nothing follows.
     */
    LITER_LLM_STATUS_ERROR = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum LiterLlmStatus LiterLlmStatus;
#else
typedef int32_t LiterLlmStatus;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 A call under way, whole or streamed. Free it with `liter_llm_call_free`.
 */
typedef struct LiterLlmCall LiterLlmCall;

/*
 An engine. Free it with `liter_llm_engine_free`.
 */
typedef struct LiterLlmEngine LiterLlmEngine;

/*
 Records of an engine's calls. Free it with `liter_llm_records_free`.
 */
typedef struct LiterLlmRecords LiterLlmRecords;

/*
 The outcome of a function or of a call. Free it with `liter_llm_result_free`.
 */
typedef struct LiterLlmResult LiterLlmResult;

/*
 Gets what a call comes to, on a thread of the engine's. `context` is what was given with the callback; `result` is
 the callee's to free. The last one that a call gives is `LITER_LLM_STATUS_OK`, `LITER_LLM_STATUS_END` or `LITER_LLM_STATUS_ERROR`, and it
 always comes, after `liter_llm_call_cancel` and `liter_llm_call_free` too: from then on `context` is not used again.
 Must not block, throw or `longjmp`. A callback of `liter_llm_engine_on_call` gets records, and may block.
 */
typedef void (*LiterLlmCallback)(void *context, LiterLlmResult *result);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The library's version, for instance `0.1.0`. Never freed.
 */
const char *liter_llm_version(void);

/*
 Makes an engine of a configuration document (`docs/configuration.md`). Opens no connection.

 On failure it returns NULL, and `*error` is a result to free. On success `*error` is NULL. `error` may be NULL.

 # Safety
 `length` bytes can be read at `config`; `error` is null or can be written to.
 */
LiterLlmEngine *liter_llm_engine_new(const char *config,
                                     size_t length,
                                     LiterLlmResult **error);

/*
 Ends an engine. Calls under way go on and may be read to their end; idle connections are closed.

 # Safety
 `engine` is null, or an engine that no thread uses any more.
 */
void liter_llm_engine_free(LiterLlmEngine *engine);

/*
 Takes another configuration document for the calls to come; statistics, circuits and the cache are kept where the
 new document allows it. Those under way end under the old one. On failure nothing has changed.

 # Safety
 `engine` is null or an engine; `length` bytes can be read at `config`.
 */
LiterLlmResult *liter_llm_engine_reload(const LiterLlmEngine *engine,
                                        const char *config,
                                        size_t length);

/*
 Asks the engine about itself. `question` is a string:

 - `"describe"`: what it was made of, without secrets;
 - `"state"`: circuits, limits and calls in flight of each deployment;
 - `"figures"`: live statistics of each deployment; `"spend"`: what calls have cost (may read a file);
 - `"canary"`, `"mirror"`: how they do, `null` without one;
 - `"explain"`, `"explain_stream"`: where the `request` would go and why;
 - `"validate"`: whether the `request` is one; nothing is sent;
 - `"notices"`: a list of what an operator should hear of, circuits, budgets, canaries and reloads; they are taken, and at
   most 256 wait;
 - `"metrics"`: metrics for Prometheus (may read a file). `liter_llm_result_text` is the text, the JSON is
   `{"content_type", "text"}`. In place of a request comes the `Accept` header of who asks: without one the form is
   `text/plain; version=0.0.4; charset=utf-8`, with one that names `application/openmetrics-text` that. The first time
   begins the counting: calls that begin later are counted, also after a reload.

 The others need no request: NULL and 0.

 # Safety
 `engine` is null or an engine; `question` is null or ends with a zero byte; `length` bytes can be read at `request`.
 */
LiterLlmResult *liter_llm_engine_ask(const LiterLlmEngine *engine,
                                     const char *question,
                                     const char *request,
                                     size_t length);

/*
 Sends a request (`docs/wire.md`) and waits for the whole answer: `LITER_LLM_STATUS_OK` or `LITER_LLM_STATUS_ERROR`. How long it
 may take is the configuration's or the request's `timeout`.

 # Safety
 `engine` is null or an engine; `length` bytes can be read at `request`.
 */
LiterLlmResult *liter_llm_generate(const LiterLlmEngine *engine,
                                   const char *request,
                                   size_t length);

/*
 Begins a call and returns at once. With a `callback`, that gets the one result, perhaps before this function returns;
 without (NULL), take it with `liter_llm_call_next`. The request is copied.

 Returns NULL only when the system gives no threads; the callback is not called then.

 # Safety
 `engine` is null or an engine; `length` bytes can be read at `request`; `callback` may be called from any thread
 with `context`.
 */
LiterLlmCall *liter_llm_submit(const LiterLlmEngine *engine,
                               const char *request,
                               size_t length,
                               LiterLlmCallback callback,
                               void *context);

/*
 Begins a streamed call and returns at once. With a `callback`, that gets one batch of chunks after the other, then
 the end or an error, one at a time; the stream waits while it runs. They may come before this function returns. Without
 (NULL), take them with `liter_llm_call_next`. The request is copied.

 Returns NULL only when the system gives no threads; the callback is not called then.

 # Safety
 As of `liter_llm_submit`.
 */
LiterLlmCall *liter_llm_stream(const LiterLlmEngine *engine,
                               const char *request,
                               size_t length,
                               LiterLlmCallback callback,
                               void *context);

/*
 Takes what comes next of a call without a callback. Waits at most `timeout_ms` milliseconds (0: not at all, less:
 as long as it takes), then returns `LITER_LLM_STATUS_PENDING`, and the call goes on.

 A call of `liter_llm_submit` gives `LITER_LLM_STATUS_OK` or `LITER_LLM_STATUS_ERROR`. A stream gives `LITER_LLM_STATUS_CHUNKS`, each time
 all that have come, then `LITER_LLM_STATUS_END` or `LITER_LLM_STATUS_ERROR`. Whoever asks after that gets `LITER_LLM_STATUS_END`.

 # Safety
 `call` is null or a call.
 */
LiterLlmResult *liter_llm_call_next(const LiterLlmCall *call,
                                    int64_t timeout_ms);

/*
 The answer of a streamed call in one piece, as `liter_llm_generate` would have given it: `LITER_LLM_STATUS_OK` once the
 end was reached, before (and after an error) `LITER_LLM_STATUS_PENDING` with what has come so far.

 # Safety
 `call` is null or a call.
 */
LiterLlmResult *liter_llm_call_answer(const LiterLlmCall *call);

/*
 Stops a call and closes its connection. Whoever waits for it gets `LITER_LLM_STATUS_ERROR` of kind `cancelled`, as does its
 callback. A call that is complete stays so. May be called from any thread, also while another one waits.

 # Safety
 `call` is null or a call.
 */
void liter_llm_call_cancel(const LiterLlmCall *call);

/*
 The record of a call that began while the engine kept such (`liter_llm_engine_keep_records`): the JSON is a call record
 (`docs/wire.md`). `LITER_LLM_STATUS_OK` once the call is over; before that `LITER_LLM_STATUS_PENDING`, with the record as it would
 be if the call were given up now, or without JSON when nothing has begun: a request that is none never does. A call
 that was cancelled is over soon after.

 # Safety
 `call` is null or a call.
 */
LiterLlmResult *liter_llm_call_record(const LiterLlmCall *call);

/*
 Frees a call; one under way is cancelled first. Its callback still gets its last result, soon after.

 # Safety
 `call` is null, or a call that no thread uses any more.
 */
void liter_llm_call_free(LiterLlmCall *call);

/*
 Whether the calls that begin from now on keep a record of their own, for `liter_llm_call_record`: 0 for no, as at
 first, else yes. It costs each call a little.

 # Safety
 `engine` is null or an engine.
 */
void liter_llm_engine_keep_records(const LiterLlmEngine *engine,
                                   int32_t on);

/*
 Has every call that begins from now on recorded when it is over, also after a reload: what operators may see of it, no
 prompt, no answer, no secret. One under way is recorded only if somebody else listened when it began. With a `callback`, that gets one record after the other; without (NULL), take them with
 `liter_llm_records_next`. A record is a `LITER_LLM_STATUS_OK` with its JSON (`docs/wire.md`).

 No call waits for who listens: at most `most` records (at least 1) wait to be taken, further ones are dropped and counted.
 The callback has a thread of its own, so that it may block and use every function; it must not throw or `longjmp`. The
 first may come before this function returns. The last it gets is `LITER_LLM_STATUS_END`, some time after `liter_llm_records_close` or `liter_llm_records_free` and what came
 before that: from then on `context` is not used again. The engine's end does not end it: calls may be under way.

 On failure it returns NULL, and `*error` is a result to free; the callback is not called then. On success `*error` is
 NULL. `error` may be NULL.

 # Safety
 `engine` is null or an engine; `callback` may be called from another thread with `context`; `error` is null or can be
 written to.
 */
LiterLlmRecords *liter_llm_engine_on_call(const LiterLlmEngine *engine,
                                          size_t most,
                                          LiterLlmCallback callback,
                                          void *context,
                                          LiterLlmResult **error);

/*
 Takes the next record of a recording without a callback, oldest first. Waits at most `timeout_ms` milliseconds (0: not at
 all, less: as long as it takes), then returns `LITER_LLM_STATUS_PENDING`. `LITER_LLM_STATUS_END` once it is closed and all are
 taken.

 # Safety
 `records` is null or a recording.
 */
LiterLlmResult *liter_llm_records_next(const LiterLlmRecords *records,
                                       int64_t timeout_ms);

/*
 How many records found `most` others waiting and were dropped; 0 for NULL. From any thread.

 # Safety
 `records` is null or a recording.
 */
uint64_t liter_llm_records_dropped(const LiterLlmRecords *records);

/*
 Ends a recording. Those waiting can still be taken, or go to the callback; then comes the end. From any thread, also
 while another one waits for a record.

 # Safety
 `records` is null or a recording.
 */
void liter_llm_records_close(const LiterLlmRecords *records);

/*
 Frees a recording; it is closed first. Its callback still gets what waits, and the end, soon after; it may free its own
 recording.

 # Safety
 `records` is null, or a recording that no thread uses any more.
 */
void liter_llm_records_free(LiterLlmRecords *records);

/*
 What a result is; `LITER_LLM_STATUS_ERROR` for NULL.

 # Safety
 `result` is null or a result.
 */
LiterLlmStatus liter_llm_result_status(const LiterLlmResult *result);

/*
 The JSON of a result (`docs/wire.md`): an answer, a list of chunks, an error, or what was asked for. `*length` is its
 length, without the zero byte behind it. NULL when there is none. Lives as long as the result.

 # Safety
 `result` is null or a result; `length` is null or can be written to.
 */
const char *liter_llm_result_json(const LiterLlmResult *result,
                                  size_t *length);

/*
 The provider's own bytes of a whole answer, as they came. NULL when there are none. Lives as long as the result.

 # Safety
 `result` is null or a result; `length` is null or can be written to.
 */
const uint8_t *liter_llm_result_raw(const LiterLlmResult *result,
                                    size_t *length);

/*
 The text of an answer, the new text of a batch of chunks, or the words of an error, for programs that read no JSON.
 UTF-8 with a zero byte behind it, which `*length` does not count; text may hold zero bytes of its own. Empty when
 there is none, never NULL. Lives as long as the result.

 # Safety
 `result` is null or a result; `length` is null or can be written to.
 */
const char *liter_llm_result_text(const LiterLlmResult *result,
                                  size_t *length);

/*
 The kind of an error, for instance `rate_limited` (`docs/errors.md`); NULL when the result is none. A string that
 lives as long as the result.

 # Safety
 `result` is null or a result.
 */
const char *liter_llm_result_kind(const LiterLlmResult *result);

/*
 Frees a result and all that was read from it.

 # Safety
 `result` is null, or a result that is not used again.
 */
void liter_llm_result_free(LiterLlmResult *result);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LITER_LLM_H */
