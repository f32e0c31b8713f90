//! What is noted of a call while it runs, so that one that is given up leaves a record too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::call::Call;
use super::record::CallRecord;
use super::response::Attempt;

/// The record of a call that is not over.
pub(crate) trait Unfinished: Send + Sync {
    /// The record as it would be if the call were given up now.
    fn record(&self) -> Arc<CallRecord>;
}

/// Hears of a call's requests while it runs.
pub(crate) trait Watcher: Send + Sync {
    /// A request is on its way to `deployment`, `started` seconds after the call began.
    fn sending(&self, deployment: &str, started: f64);
    /// The newest request needed a connection, which took so long.
    fn connected(&self, took: Duration);
    /// The first byte of the answer to the newest request came.
    fn begun(&self);
    /// These are over and are followed by another, or by the call's end; it may have heard of some before.
    fn over(&self, attempts: &[Attempt]);
    /// The call is over.
    fn finished(&self, record: &CallRecord);
}

/// The notes of one call. Whoever wants its record makes them before it begins; layers below write into them.
pub struct Notes {
    began: Instant,
    started: f64,
    claimed: AtomicBool,
    noted: Mutex<Noted>,
    finished: OnceLock<Arc<CallRecord>>,
    watcher: OnceLock<Arc<dyn Watcher>>,
}

#[derive(Default)]
struct Noted {
    /// The attempts that failed.
    failed: Vec<Attempt>,
    /// The call inside, which knows what is on its way.
    running: Weak<Call>,
    unfinished: Option<Weak<dyn Unfinished>>,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Notes").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Default for Notes {
    fn default() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self {
            began: Instant::now(),
            started,
            claimed: AtomicBool::new(false),
            noted: Mutex::default(),
            finished: OnceLock::new(),
            watcher: OnceLock::new(),
        }
    }
}

impl Notes {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// When the call began, in seconds since 1970-01-01 UTC.
    pub(crate) const fn started(&self) -> f64 {
        self.started
    }

    /// Seconds since the call began.
    pub(crate) fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether the caller is the first to ask: a client inside a client's call leaves the record to the outer one.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }

    /// This call runs inside of the noted one.
    pub(crate) fn runs(&self, call: &Arc<Call>) {
        let mut noted = self.noted();
        // A client inside a client is a part of the outer one's attempt.
        if noted.running.strong_count() == 0 {
            noted.running = Arc::downgrade(call);
        }
    }

    /// Somebody wants to hear of it while it runs; the first one does.
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody does without `tracing`"))]
    pub(crate) fn watch(&self, watcher: Arc<dyn Watcher>) {
        let _ = self.watcher.set(watcher);
    }

    pub(crate) fn watcher(&self) -> Option<&dyn Watcher> {
        self.watcher.get().map(|watcher| &**watcher)
    }

    /// Its record is being made here.
    pub(crate) fn begin(&self, unfinished: Weak<dyn Unfinished>) {
        self.noted().unfinished = Some(unfinished);
    }

    /// The call is over.
    pub(crate) fn finish(&self, record: &Arc<CallRecord>) {
        let _ = self.finished.set(Arc::clone(record));
        if let Some(watcher) = self.watcher() {
            watcher.finished(record);
        }
    }

    /// Whether its record is whole.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get().is_some()
    }

    /// The call's record; `None` when it has not begun.
    pub(crate) fn record(&self) -> Option<Arc<CallRecord>> {
        let unfinished = self.noted().unfinished.as_ref().and_then(Weak::upgrade);
        if let Some(record) = self.finished.get() {
            return Some(Arc::clone(record));
        }
        let given_up = unfinished.map(|unfinished| unfinished.record());
        // It may have ended meanwhile.
        self.finished.get().cloned().or(given_up)
    }

    /// These attempts have failed so far.
    pub(crate) fn failed(&self, attempts: &[Attempt]) {
        self.noted().failed = attempts.to_vec();
        if let Some(watcher) = self.watcher() {
            watcher.over(attempts);
        }
    }

    /// Everything that was sent, for a call that is given up: what is on its way counts as cancelled.
    pub(crate) fn given_up(&self) -> Vec<Attempt> {
        let noted = self.noted();
        let mut attempts = noted.failed.clone();
        let running = noted.running.upgrade();
        drop(noted);
        for mut attempt in running.iter().flat_map(|call| call.on_its_way()) {
            attempt.error = Some("cancelled".to_owned());
            attempt.reason = None;
            attempts.push(attempt);
        }
        attempts
    }
}
