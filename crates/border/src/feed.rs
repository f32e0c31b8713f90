//! A streamed answer on its way to another language: chunks queue up as JSON and are handed over a batch at a time.

use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use liter_llm::{ChunkStream, ErrorKind, Folder, LlmChunk, LlmError, LlmProvider, LlmRequest};
use tokio::sync::Notify;

use crate::{Outcome, lock, payload};

/// How much unread JSON a stream may hold before it stops reading from the provider, in bytes.
const HIGH_WATER: usize = 64 * 1024;
/// How many turns other tasks get, once a second event came with the first, before a batch counts as complete. More
/// than one, because the connection's task may run in another thread.
const PATIENCE: usize = 4;

/// Who waits for the next batch without blocking a thread.
pub trait Waiter: Send + 'static {
    /// Gets what is ready. Called on a thread of the runtime, without any lock held.
    fn wake(self, outcome: Outcome);
}

struct State<W> {
    /// A JSON array without its closing bracket; empty when there is nothing to read.
    batch: Vec<u8>,
    ended: bool,
    /// Whether the end was a failure; stays when the error has been handed out.
    failed: bool,
    error: Option<Vec<u8>>,
    folder: Folder,
    waiter: Option<W>,
    /// How often who waits was to look up.
    nudges: u64,
}

impl<W> State<W> {
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

/// What a streamed call has brought and nobody has read yet. `pump` fills it.
pub struct Feed<W> {
    state: Mutex<State<W>>,
    ready: Condvar,
    space: Notify,
}

impl<W> Default for Feed<W> {
    fn default() -> Self {
        let state = State {
            batch: Vec::new(),
            ended: false,
            failed: false,
            error: None,
            folder: Folder::default(),
            waiter: None,
            nudges: 0,
        };
        Self { state: Mutex::new(state), ready: Condvar::new(), space: Notify::new() }
    }
}

impl<W: Waiter> Feed<W> {
    /// What is ready: all chunks that have come, an error, or the end (an empty batch). Otherwise the waiter gets it.
    pub fn take_or(&self, waiter: impl FnOnce() -> W) -> Option<Outcome> {
        let mut state = lock(&self.state);
        let outcome = state.take();
        if outcome.is_none() {
            state.waiter = Some(waiter());
        }
        drop(state);
        self.taken(outcome)
    }

    /// What is ready now, if anything is.
    pub fn take(&self) -> Option<Outcome> {
        let outcome = lock(&self.state).take();
        self.taken(outcome)
    }

    /// Waits for what comes, on this thread and for at most so long. `busy`: whether there is something else to do;
    /// it is asked again after a `nudge`.
    pub fn wait(&self, limit: Duration, busy: impl Fn() -> bool) -> Option<Outcome> {
        let begun = Instant::now();
        let mut state = lock(&self.state);
        let nudges = state.nudges;
        let outcome = loop {
            let outcome = state.take();
            let left = limit.saturating_sub(begun.elapsed());
            if outcome.is_some() || left.is_zero() || state.nudges != nudges || busy() {
                break outcome;
            }
            // It may wake for what was taken without waiting for it.
            state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(state);
        self.taken(outcome)
    }

    /// Has a thread that waits look up.
    pub fn nudge(&self) {
        lock(&self.state).nudges += 1;
        self.ready.notify_one();
    }

    /// The whole answer as JSON, once the end was reached and read without an error.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn response(&self) -> Result<Option<Vec<u8>>, LlmError> {
        let state = lock(&self.state);
        if !state.ended || state.failed || !state.batch.is_empty() {
            return Ok(None);
        }
        folded(&state).map(Some)
    }

    /// The answer as far as it has come, as JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn partial(&self) -> Result<Vec<u8>, LlmError> {
        folded(&lock(&self.state))
    }

    /// Says that nobody will fill it further; whoever waits gets an error of kind `cancelled`.
    pub fn close(&self) {
        self.fail(&LlmError::new(ErrorKind::Cancelled, "the stream was closed"));
    }

    /// As `close`, with an error of another kind.
    pub fn fail(&self, error: &LlmError) {
        self.end(Some(error));
    }

    fn taken(&self, outcome: Option<Outcome>) -> Option<Outcome> {
        if matches!(outcome, Some(Outcome::Batch(_))) {
            self.space.notify_one();
        }
        outcome
    }

    /// Wakes whoever waits for what is ready now.
    fn hand_over(&self) {
        self.hand_over_from(lock(&self.state));
    }

    fn hand_over_from(&self, mut state: MutexGuard<'_, State<W>>) {
        if let Some(waiter) = state.waiter.take() {
            if let Some(outcome) = state.take() {
                drop(state);
                waiter.wake(outcome);
                self.space.notify_one();
            } else {
                state.waiter = Some(waiter);
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

fn folded<W>(state: &State<W>) -> Result<Vec<u8>, LlmError> {
    serde_json::to_vec(&state.folder.partial())
        .map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))
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

/// Makes a streamed call and fills the feed with what comes; reads no further while much is unread. Runs as a task of
/// a Tokio runtime; aborting it closes the connection.
pub async fn pump<W: Waiter>(feed: Arc<Feed<W>>, provider: Arc<dyn LlmProvider>, request: Vec<u8>) {
    let opened = match LlmRequest::from_json(&request) {
        Ok(request) => provider.stream(request).await,
        Err(error) => Err(error),
    };
    drop(request);
    let mut chunks = match opened {
        Ok(chunks) => chunks,
        Err(error) => return feed.end(Some(&error)),
    };
    while let Some(first) = chunks.next().await {
        let mut item = Some(first);
        let mut patience = 1;
        loop {
            match poll_fn(|context| Poll::Ready(feed.fill(item.take(), &mut chunks, context))).await {
                Step::More => {}
                Step::Full => {
                    feed.hand_over();
                    while lock(&feed.state).batch.len() > HIGH_WATER {
                        feed.space.notified().await;
                    }
                    break;
                }
                Step::Ended(error) => return feed.end(error.as_ref()),
            }
            match more(&mut chunks, patience).await {
                Poll::Ready(Some(next)) => item = Some(next),
                Poll::Ready(None) => return feed.end(None),
                Poll::Pending => {
                    feed.hand_over();
                    break;
                }
            }
            patience = PATIENCE;
        }
    }
    feed.end(None);
}
