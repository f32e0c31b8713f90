//! What is noted of a call while it runs, so that one that is given up leaves a record too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::call::Call;
use super::error::ErrorKind;
use super::record::{CallRecord, RecordedError};
use super::response::Attempt;

/// Makes records whole and hands them on: there is one for each client, not for each call.
pub(crate) trait Desk: Send + Sync {
    /// Adds what is known at the end, whatever came of it, to the record of a call for which these were sent.
    fn complete(&self, record: &mut CallRecord, sent: &[Attempt]);
    /// The call is over. Whoever wants its record gets it.
    fn deliver(&self, record: &Arc<CallRecord>);
}

/// Hears of a call's requests while it runs.
pub(crate) trait Watcher: Send + Sync {
    /// A request is on its way to `deployment`, `started` seconds after the call began.
    fn sending(&self, deployment: &str, started: f64);
    /// The request that was sent to `deployment` at `started` needed a connection, which took so long.
    fn connected(&self, deployment: &str, started: f64, took: Duration);
    /// The first byte of the answer to the request that was sent to `deployment` at `started` came.
    fn begun(&self, deployment: &str, started: f64);
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
    watcher: OnceLock<Arc<dyn Watcher>>,
}

/// What is known of a call so far.
#[derive(Default)]
pub(crate) struct Noted {
    /// The record that is being made, where it will stay: nobody else has it until it is finished.
    record: Arc<CallRecord>,
    /// What is known to have been sent.
    sent: Vec<Attempt>,
    /// When the newest piece of a stream came, in seconds since the call began.
    newest: Option<f64>,
    /// The attempts that failed.
    failed: Vec<Attempt>,
    /// The call inside, which knows what is on its way.
    running: Weak<Call>,
    /// From the call's beginning to its end.
    desk: Option<Arc<dyn Desk>>,
    finished: bool,
}

impl Noted {
    /// The record that is being made.
    pub fn record(&mut self) -> &mut CallRecord {
        Arc::make_mut(&mut self.record)
    }

    /// The record, what is known to have been sent, and when the newest piece of a stream came.
    pub fn parts(&mut self) -> (&mut CallRecord, &mut Vec<Attempt>, &mut Option<f64>) {
        (Arc::make_mut(&mut self.record), &mut self.sent, &mut self.newest)
    }

    /// Everything that was sent, for a call that is given up: what is on its way counts as cancelled.
    fn until_now(&self) -> Vec<Attempt> {
        if !self.sent.is_empty() {
            return self.sent.clone();
        }
        let mut attempts = self.failed.clone();
        for mut attempt in self.running.upgrade().iter().flat_map(|call| call.on_its_way()) {
            attempt.error = Some("cancelled".to_owned());
            attempt.reason = None;
            attempts.push(attempt);
        }
        attempts
    }
}

/// Completes the record of a call that is given up after `duration` seconds.
fn give_up(record: &mut CallRecord, duration: f64, sent: &[Attempt], desk: &dyn Desk) {
    let kind = ErrorKind::Cancelled.as_str();
    record.error = Some(RecordedError { kind: kind.to_owned(), ..RecordedError::default() });
    record.duration = duration;
    desk.complete(record, sent);
    if let Some(last) = record.attempts.last_mut() {
        last.attempt.error.get_or_insert_with(|| kind.to_owned());
    }
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

    /// Seconds since the call began.
    pub(crate) fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether the caller is the first to ask: a client inside a client's call leaves the record to the outer one.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }

    /// Whether a client makes the record.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
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

    /// The call begins, and its record will be made whole by `desk`.
    pub(crate) fn begin(&self, desk: Arc<dyn Desk>, describe: impl FnOnce(&mut CallRecord)) {
        let mut noted = self.noted();
        noted.desk = Some(desk);
        let record = noted.record();
        record.started = self.started;
        describe(record);
    }

    /// The notes of a call that is not over; `None` when it is.
    pub(crate) fn open(&self) -> Option<MutexGuard<'_, Noted>> {
        Some(self.noted()).filter(|noted| !noted.finished)
    }

    /// The call is over. `sent`: what was sent for it, where that is not noted yet.
    pub(crate) fn finish(&self, mut noted: MutexGuard<'_, Noted>, sent: &[Attempt]) {
        let Some(desk) = noted.desk.take() else { return };
        let (record, known, _) = noted.parts();
        record.duration = self.elapsed();
        desk.complete(record, if known.is_empty() { sent } else { known });
        self.hand_over(noted, &*desk);
    }

    /// Nobody waits for the call any more. One that is over stays as it is.
    pub(crate) fn dropped(&self) {
        let Some(mut noted) = self.open() else { return };
        let Some(desk) = noted.desk.take() else { return };
        let sent = noted.until_now();
        give_up(noted.record(), self.elapsed(), &sent, &*desk);
        self.hand_over(noted, &*desk);
    }

    fn hand_over(&self, mut noted: MutexGuard<'_, Noted>, desk: &dyn Desk) {
        noted.finished = true;
        let record = Arc::clone(&noted.record);
        // Who listens may ask for anything: not under the lock.
        drop(noted);
        if let Some(watcher) = self.watcher() {
            watcher.finished(&record);
        }
        desk.deliver(&record);
    }

    /// Whether its record is whole.
    pub(crate) fn is_finished(&self) -> bool {
        self.noted().finished
    }

    /// The call's record: whole when it is over, else as if it were given up now; `None` when it has not begun.
    pub(crate) fn record(&self) -> Option<Arc<CallRecord>> {
        let noted = self.noted();
        if noted.finished {
            return Some(Arc::clone(&noted.record));
        }
        let desk = noted.desk.clone()?;
        let (mut record, sent) = (CallRecord::clone(&noted.record), noted.until_now());
        drop(noted);
        give_up(&mut record, self.elapsed(), &sent, &*desk);
        Some(Arc::new(record))
    }

    /// These attempts have failed so far.
    pub(crate) fn failed(&self, attempts: &[Attempt]) {
        self.noted().failed = attempts.to_vec();
        if let Some(watcher) = self.watcher() {
            watcher.over(attempts);
        }
    }
}
