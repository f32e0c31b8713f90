//! Calls under way: their outcome goes to a thread that waits or to a callback of the host's.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use liter_llm::telemetry::Recorder;
use liter_llm::{ChunkStream, ErrorKind, LlmError, LlmProvider, LlmRequest, LlmResponse, async_trait};
use liter_llm_border::{Feed, Outcome, Waiter, answer, lock, pump};
use tokio::task::AbortHandle;

use crate::engine::misuse;
use crate::result::{LiterLlmResult, LiterLlmStatus};
use crate::runtime::runtime;

/// How long one wait on a feed lasts at most before the caller's own limit is looked at.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Gets what a call comes to, on a thread of the engine's. `context` is what was given with the callback; `result` is
/// the callee's to free. The last one that a call gives is `LITER_LLM_STATUS_OK`, `LITER_LLM_STATUS_END` or `LITER_LLM_STATUS_ERROR`, and it
/// always comes, after `liter_llm_call_cancel` and `liter_llm_call_free` too: from then on `context` is not used again.
/// Must not block, throw or `longjmp`. A callback of `liter_llm_engine_on_call` gets records, and may block.
pub type LiterLlmCallback = Option<unsafe extern "C" fn(context: *mut c_void, result: *mut LiterLlmResult)>;

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Refuses to wait on a thread that other calls need.
///
/// # Errors
/// A callback is running on this thread.
pub fn may_wait() -> Result<(), LlmError> {
    if IN_CALLBACK.get() {
        return Err(misuse("a callback must not wait: begin a call with a callback of its own"));
    }
    Ok(())
}

/// A host's function and what it wants handed back.
#[derive(Clone, Copy)]
pub struct Callback {
    function: unsafe extern "C" fn(context: *mut c_void, result: *mut LiterLlmResult),
    context: *mut c_void,
}

// SAFETY: the context is only handed back to the host, which is told that callbacks come from other threads.
unsafe impl Send for Callback {}

impl Callback {
    /// The host's callback, if it gave one.
    pub fn new(function: LiterLlmCallback, context: *mut c_void) -> Option<Self> {
        function.map(|function| Self { function, context })
    }

    fn call(self, result: LiterLlmResult) {
        let before = IN_CALLBACK.replace(true);
        self.call_apart(result);
        IN_CALLBACK.set(before);
    }

    /// As `call`, on a thread that no call needs: there a callback may wait.
    pub fn call_apart(self, result: LiterLlmResult) {
        let result = Box::into_raw(Box::new(result));
        // SAFETY: the host gave this function for this purpose; the result is its own from here on.
        unsafe { (self.function)(self.context, result) };
    }
}

/// Where the outcome of a call waits to be taken, once.
#[derive(Default)]
struct Slot {
    stage: Mutex<Stage>,
    ready: Condvar,
}

#[derive(Default)]
enum Stage {
    #[default]
    Running,
    Done(LiterLlmResult),
    Taken,
}

impl Slot {
    /// The first outcome counts.
    fn put(&self, result: LiterLlmResult) {
        let mut stage = lock(&self.stage);
        if matches!(*stage, Stage::Running) {
            *stage = Stage::Done(result);
            drop(stage);
            self.ready.notify_all();
        }
    }

    /// The outcome, for the first who takes it; the end for later ones; `None` when it does not come in time.
    fn take(&self, until: Until) -> Option<LiterLlmResult> {
        let mut stage = lock(&self.stage);
        loop {
            match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Done(result) => return Some(result),
                Stage::Taken => return Some(LiterLlmResult::end()),
                Stage::Running => *stage = Stage::Running,
            }
            let left = until.left()?;
            stage = self.ready.wait_timeout(stage, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How long to wait.
#[derive(Clone, Copy)]
pub enum Until {
    /// As long as it takes.
    Done,
    /// Not after this moment.
    Then(Instant),
}

impl Until {
    /// From now on so many milliseconds; less than none means as long as it takes.
    pub fn milliseconds(limit: i64) -> Self {
        u64::try_from(limit)
            .ok()
            .and_then(|limit| Instant::now().checked_add(Duration::from_millis(limit)))
            .map_or(Self::Done, Self::Then)
    }

    /// How long the next wait may last; `None` when there is no time left.
    pub fn left(self) -> Option<Duration> {
        match self {
            Self::Done => Some(LONGEST_WAIT),
            Self::Then(then) => then
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
                .map(|left| left.min(LONGEST_WAIT)),
        }
    }
}

enum Target {
    Slot(Arc<Slot>),
    Callback(Callback),
}

/// Hands over the outcome of a call, exactly once: a task that is stopped or that fails drops it, and that is told too.
struct Done(Option<Target>);

impl Done {
    fn finish(mut self, result: LiterLlmResult) {
        self.hand_over(result);
    }

    fn hand_over(&mut self, result: LiterLlmResult) {
        match self.0.take() {
            Some(Target::Slot(slot)) => slot.put(result),
            Some(Target::Callback(callback)) => callback.call(result),
            None => {}
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.hand_over(LiterLlmResult::failure(&unfinished()));
        }
    }
}

fn cancelled() -> LlmError {
    LlmError::new(ErrorKind::Cancelled, "the call was cancelled")
}

/// Why a task ends before its work is done.
fn unfinished() -> LlmError {
    if std::thread::panicking() { fault() } else { cancelled() }
}

/// The error of a fault in the engine itself.
pub fn fault() -> LlmError {
    LlmError::new(ErrorKind::Decode, "a fault in the engine: its words are on the standard error output")
}

/// Hands the batches of a stream to a callback.
struct Forward {
    feed: Arc<Feed<Forward>>,
    callback: Callback,
}

impl Waiter for Forward {
    fn wake(self, outcome: Outcome) {
        let Self { feed, callback } = self;
        let mut outcome = outcome;
        loop {
            let result = LiterLlmResult::from(outcome);
            let last = result.status() != LiterLlmStatus::Chunks;
            callback.call(result);
            if last {
                return;
            }
            match feed.take_or(|| Self { feed: Arc::clone(&feed), callback }) {
                Some(next) => outcome = next,
                None => return,
            }
        }
    }
}

/// Ends a stream whose task was stopped or has failed: whoever waits is told.
struct Closing(Arc<Feed<Forward>>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.fail(&unfinished());
    }
}

/// Answers every call with one error: a call that cannot begin fails as one that has begun.
struct Refusal(LlmError);

#[async_trait]
impl LlmProvider for Refusal {
    fn name(&self) -> &str {
        "refusal"
    }

    async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
        Err(self.0.clone())
    }

    async fn stream(&self, _: LlmRequest) -> Result<ChunkStream, LlmError> {
        Err(self.0.clone())
    }
}

/// What answers: a client, or the reason why there is none.
pub type Provider = Result<Arc<dyn LlmProvider>, LlmError>;

fn or_refusal(provider: Provider) -> Arc<dyn LlmProvider> {
    provider.unwrap_or_else(|error| Arc::new(Refusal(error)))
}

enum Source {
    Answer(Arc<Slot>),
    Stream(Arc<Feed<Forward>>),
    /// A callback gets the answer.
    Told,
}

/// A call under way, whole or streamed. Free it with `liter_llm_call_free`.
pub struct LiterLlmCall {
    /// The process that began it.
    pid: u32,
    task: AbortHandle,
    source: Source,
    told: bool,
    /// What notes it, if the engine was asked to.
    recorder: Option<Recorder>,
}

impl LiterLlmCall {
    /// With what notes it.
    pub fn noted_by(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Its record: whole once it is over, before that as if it were given up now.
    pub fn record(&self) -> Result<LiterLlmResult, LlmError> {
        self.check()?;
        let Some(recorder) = &self.recorder else {
            return Err(misuse("the engine kept no records of its calls when this one began"));
        };
        // Looked at first: a record is not whole because the call ended meanwhile.
        let over = recorder.is_over();
        let Some(record) = recorder.record() else { return Ok(LiterLlmResult::pending()) };
        let json = record.to_json();
        Ok(if over { LiterLlmResult::value(json) } else { LiterLlmResult::unfinished(json) })
    }

    /// Begins a call.
    pub fn submit(
        provider: Provider,
        request: Vec<u8>,
        callback: Option<Callback>,
    ) -> Result<Self, LlmError> {
        let runtime = runtime()?;
        let (source, target) = match callback {
            Some(callback) => (Source::Told, Target::Callback(callback)),
            None => {
                let slot = Arc::new(Slot::default());
                (Source::Answer(Arc::clone(&slot)), Target::Slot(slot))
            }
        };
        let done = Done(Some(target));
        let provider = or_refusal(provider);
        let work = async move { done.finish(Outcome::from(answer(provider, request).await).into()) };
        let task = runtime.spawn(work).abort_handle();
        Ok(Self { pid: std::process::id(), task, source, told: callback.is_some(), recorder: None })
    }

    /// Begins a streamed call.
    pub fn stream(
        provider: Provider,
        request: Vec<u8>,
        callback: Option<Callback>,
    ) -> Result<Self, LlmError> {
        let runtime = runtime()?;
        let feed = Arc::new(Feed::default());
        if let Some(callback) = callback {
            // Nothing has come yet: the first batch finds the callback waiting.
            drop(feed.take_or(|| Forward { feed: Arc::clone(&feed), callback }));
        }
        let closing = Closing(Arc::clone(&feed));
        let provider = or_refusal(provider);
        let work = async move {
            let closing = closing;
            pump(Arc::clone(&closing.0), provider, request).await;
        };
        let task = runtime.spawn(work).abort_handle();
        let source = Source::Stream(feed);
        Ok(Self { pid: std::process::id(), task, source, told: callback.is_some(), recorder: None })
    }

    fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    fn check(&self) -> Result<(), LlmError> {
        if self.is_own() {
            Ok(())
        } else {
            Err(misuse("the call was begun in the parent process, before the fork"))
        }
    }

    /// Waits for what comes next; `limit` in milliseconds.
    pub fn next(&self, limit: i64) -> Result<LiterLlmResult, LlmError> {
        self.check()?;
        if self.told {
            return Err(misuse("the outcome of this call goes to its callback"));
        }
        if limit != 0 {
            may_wait()?;
        }
        let until = Until::milliseconds(limit);
        let result = match &self.source {
            Source::Answer(slot) => slot.take(until),
            Source::Stream(feed) => loop {
                if let Some(outcome) = feed.take() {
                    break Some(outcome.into());
                }
                let Some(left) = until.left() else { break None };
                if let Some(outcome) = feed.wait(left, || false) {
                    break Some(outcome.into());
                }
            },
            Source::Told => None,
        };
        Ok(result.unwrap_or_else(LiterLlmResult::pending))
    }

    /// The streamed answer as far as it was read, or the whole one once the end was.
    pub fn answer(&self) -> Result<LiterLlmResult, LlmError> {
        self.check()?;
        let Source::Stream(feed) = &self.source else {
            return Err(misuse("only a streamed call puts its answer together"));
        };
        match feed.response()? {
            Some(answer) => Ok(LiterLlmResult::value(answer)),
            None => feed.partial().map(LiterLlmResult::unfinished),
        }
    }

    /// Stops it and closes its connection. Whoever waits for it is told; what has come can still be read.
    pub fn cancel(&self) {
        if !self.is_own() {
            return;
        }
        // A callback hears of it from the task's end, on a thread of the engine's.
        self.task.abort();
        match &self.source {
            Source::Answer(slot) => slot.put(LiterLlmResult::failure(&cancelled())),
            Source::Stream(feed) if !self.told => feed.fail(&cancelled()),
            Source::Stream(_) | Source::Told => {}
        }
    }

    /// Ends it; one of a parent process is left alone, with what it holds.
    pub fn end(self) {
        if self.is_own() {
            self.task.abort();
        } else {
            std::mem::forget(self);
        }
    }
}

/// Runs work on the engine's threads and waits for what it comes to.
pub fn wait(work: impl Future<Output = LiterLlmResult> + Send + 'static) -> Result<LiterLlmResult, LlmError> {
    may_wait()?;
    let slot = Arc::new(Slot::default());
    let done = Done(Some(Target::Slot(Arc::clone(&slot))));
    drop(runtime()?.spawn(async move { done.finish(work.await) }));
    Ok(slot.take(Until::Done).unwrap_or_else(LiterLlmResult::pending))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    struct Faulty;

    #[async_trait]
    impl LlmProvider for Faulty {
        fn name(&self) -> &str {
            "faulty"
        }

        async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
            panic!("a fault on purpose")
        }

        async fn stream(&self, _: LlmRequest) -> Result<ChunkStream, LlmError> {
            panic!("a fault on purpose")
        }
    }

    const REQUEST: &[u8] = br#"{"prompt": "hello"}"#;

    fn faulty() -> Provider {
        Ok(Arc::new(Faulty))
    }

    fn kind(result: &LiterLlmResult) -> &str {
        result.kind().map_or("", |kind| kind.to_str().unwrap())
    }

    unsafe extern "C" fn send_on(context: *mut c_void, result: *mut LiterLlmResult) {
        // SAFETY: the context is the sender below, alive until the last result; the result is this function's.
        unsafe {
            let sender = &*context.cast::<Sender<LiterLlmResult>>();
            sender.send(*Box::from_raw(result)).unwrap();
        }
    }

    /// A callback that is told everything, and what it was told.
    fn told() -> (Box<Sender<LiterLlmResult>>, Option<Callback>, Receiver<LiterLlmResult>) {
        let (sender, receiver) = channel();
        let sender = Box::new(sender);
        let context = std::ptr::from_ref(sender.as_ref()).cast_mut().cast();
        (sender, Callback::new(Some(send_on), context), receiver)
    }

    #[test]
    fn a_fault_under_way_is_the_calls_error() {
        let call = LiterLlmCall::submit(faulty(), REQUEST.to_vec(), None).unwrap();
        assert_eq!(kind(&call.next(-1).unwrap()), "decode");
        assert_eq!(call.next(-1).unwrap().status(), LiterLlmStatus::End);
        call.end();
        let call = LiterLlmCall::stream(faulty(), REQUEST.to_vec(), None).unwrap();
        assert_eq!(kind(&call.next(-1).unwrap()), "decode");
        assert_eq!(call.answer().unwrap().status(), LiterLlmStatus::Pending);
        call.end();
    }

    #[test]
    fn a_fault_under_way_is_told_to_the_callback_once() {
        for begin in [LiterLlmCall::submit, LiterLlmCall::stream] {
            let (sender, callback, results) = told();
            let call = begin(faulty(), REQUEST.to_vec(), callback).unwrap();
            assert_eq!(kind(&results.recv().unwrap()), "decode");
            call.cancel();
            call.end();
            assert!(results.recv_timeout(Duration::from_millis(50)).is_err());
            drop(sender);
        }
    }

    #[test]
    fn a_wait_ends_in_time() {
        let slot = Slot::default();
        let begun = Instant::now();
        assert!(slot.take(Until::milliseconds(30)).is_none());
        assert!(begun.elapsed() >= Duration::from_millis(30));
        assert!(slot.take(Until::milliseconds(0)).is_none());
        slot.put(LiterLlmResult::failure(&cancelled()));
        slot.put(LiterLlmResult::value(b"1".to_vec()));
        assert_eq!(kind(&slot.take(Until::milliseconds(i64::MAX)).unwrap()), "cancelled");
        assert_eq!(slot.take(Until::Done).unwrap().status(), LiterLlmStatus::End);
    }
}
