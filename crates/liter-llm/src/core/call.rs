//! The call that runs: until when it may, what of it is on its way, and whether its answer has begun. Every layer and
//! endpoint below the retry loop can ask; whoever carries the call out tells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

use super::notes::{Notes, Watcher};
use super::response::Attempt;

tokio::task_local! {
    static CALL: Arc<Call>;
}

/// One call of the retry loop, or a branch of one: a request that runs beside another for the same call.
#[derive(Debug)]
pub(crate) struct Call {
    /// When the outermost call began.
    began: Instant,
    deadline: Option<Instant>,
    /// The call that this one is inside of.
    outer: Option<Arc<Self>>,
    /// What is sent here is sent for the outer call.
    branch: bool,
    /// Whether a client's layer repeats what fails in it.
    repeats: bool,
    /// What is noted of it, when somebody wants to know.
    notes: Option<Arc<Notes>>,
    /// Whether it is there for its notes alone: a client takes it over instead of making one more.
    opens: bool,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// What was sent and has not come back, for the case that time runs out meanwhile.
    under_way: Vec<(Instant, String)>,
    /// When the first byte of the answer to the newest request came.
    begun: Option<Instant>,
    /// How long connecting took for the newest request, when it needed a connection.
    connected: Option<Duration>,
}

fn current() -> Option<Arc<Call>> {
    CALL.try_with(Arc::clone).ok()
}

impl Call {
    /// A call inside another one never has more time than that one.
    pub(crate) fn until(deadline: Option<Instant>) -> Arc<Self> {
        Self::new(deadline, false, None)
    }

    /// [`until`](Self::until); `repeats`: whether a client's layer repeats what fails in it.
    /// `began`: when it began, where somebody has looked at the clock already.
    pub(crate) fn new(deadline: Option<Instant>, repeats: bool, began: Option<Instant>) -> Arc<Self> {
        let outer = current();
        let deadline = deadline.into_iter().chain(outer.as_ref().and_then(|call| call.deadline)).min();
        Self::inside(outer, (began, deadline), false, repeats)
    }

    fn inside(
        outer: Option<Arc<Self>>,
        (began, deadline): (Option<Instant>, Option<Instant>),
        branch: bool,
        repeats: bool,
    ) -> Arc<Self> {
        let (began, notes) = match &outer {
            None => (began.unwrap_or_else(Instant::now), None),
            Some(call) => (call.began, call.notes.clone()),
        };
        let progress = Mutex::default();
        let opens = false;
        let call = Arc::new(Self { began, deadline, outer, branch, repeats, notes, opens, progress });
        if let Some(notes) = call.notes.as_ref().filter(|_| !branch) {
            notes.runs(&call);
        }
        call
    }

    /// What every call inside of it is noted in.
    pub(crate) fn noted(notes: Arc<Notes>) -> Arc<Self> {
        let outer = current();
        let deadline = outer.as_ref().and_then(|call| call.deadline);
        Arc::new(Self {
            began: notes.began(),
            deadline,
            outer,
            branch: false,
            repeats: false,
            notes: Some(notes),
            opens: true,
            progress: Mutex::default(),
        })
    }

    fn is_noted_in(&self, notes: &Arc<Notes>) -> bool {
        self.notes.as_ref().is_some_and(|own| Arc::ptr_eq(own, notes))
    }

    fn watcher(&self) -> Option<&dyn Watcher> {
        self.notes.as_ref()?.watcher()
    }

    /// Tells who watches something of the newest request: where it went and when, in seconds since the call began.
    fn tell(&self, of: impl FnOnce(&dyn Watcher, &str, f64)) {
        let Some(watcher) = self.watcher() else { return };
        // Of a call with several requests at once, each is sent by a branch of its own, which knows its own.
        let newest = self.progress().under_way.last().cloned();
        if let Some((sent, deployment)) = newest {
            of(watcher, &deployment, self.offset(sent));
        }
    }

    /// Notes the attempts that failed so far.
    pub(crate) fn note(&self, failed: &[Attempt]) {
        if let Some(notes) = &self.notes {
            notes.failed(failed);
        }
    }

    /// Seconds from the outermost call's beginning to `then`.
    pub(crate) fn offset(&self, then: Instant) -> f64 {
        then.saturating_duration_since(self.began).as_secs_f64()
    }

    /// A branch of the running call, or a call of its own where none runs.
    pub(crate) fn branch() -> Arc<Self> {
        let outer = current();
        let deadline = outer.as_ref().and_then(|call| call.deadline);
        Self::inside(outer, (None, deadline), true, false)
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The time left; `None` without a deadline.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.left_at(Instant::now())
    }

    /// The time that is left at `now`; `None` without a deadline.
    pub(crate) fn left_at(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    pub(crate) fn scope<F: Future>(self: Arc<Self>, future: F) -> TaskLocalFuture<Arc<Self>, F> {
        CALL.scope(self, future)
    }

    /// Does something at once with this as the running call.
    pub(crate) fn during<T>(self: Arc<Self>, work: impl FnOnce() -> T) -> T {
        CALL.sync_scope(self, work)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This call and those it is inside of, innermost first.
    fn with_outer(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |call| call.outer.as_deref())
    }

    /// Everything that was under way has come back.
    pub(crate) fn clear(&self) {
        let mut progress = self.progress();
        progress.under_way.clear();
        progress.begun = None;
    }

    /// When the first byte of the answer came.
    pub(crate) fn begun(&self) -> Option<Instant> {
        self.progress().begun
    }

    fn sending(&self, deployment: &str, now: Instant) {
        for call in self.with_outer() {
            let mut progress = call.progress();
            progress.under_way.push((now, deployment.to_owned()));
            progress.begun = None;
            progress.connected = None;
            drop(progress);
            if !call.branch {
                break;
            }
        }
    }

    fn ran_out_in_silence(&self, silence: Duration) -> bool {
        let now = Instant::now();
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return false;
        }
        let progress = self.progress();
        let sent = progress.under_way.last();
        progress.begun.is_none() && sent.is_some_and(|(sent, _)| now.duration_since(*sent) >= silence)
    }

    /// What is under way, as attempts that time ran out on.
    pub(crate) fn cut_off(&self) -> Vec<Attempt> {
        let attempts = self.on_its_way();
        self.progress().under_way.clear();
        attempts
    }

    /// [`cut_off`](Self::cut_off) for one who only looks.
    pub(crate) fn on_its_way(&self) -> Vec<Attempt> {
        let cut = |(begun, deployment): &(Instant, String)| Attempt {
            deployment: deployment.clone(),
            started: self.offset(*begun),
            duration: begun.elapsed().as_secs_f64(),
            error: Some("timeout".to_owned()),
            reason: Some("the call's time was up".to_owned()),
            ..Attempt::default()
        };
        self.progress().under_way.iter().map(cut).collect()
    }
}

/// The time left to the running call, so that a wait that cannot fit need not be begun; `None` outside of a call and
/// for a call without a deadline.
#[must_use]
pub fn time_left() -> Option<Duration> {
    CALL.try_with(|call| call.left()).ok().flatten()
}

/// Whether a client's layer around this one repeats the call: a client inside a client need not, for repeats would
/// multiply.
pub(crate) fn is_repeated() -> bool {
    CALL.try_with(|call| call.with_outer().any(|call| call.repeats)).unwrap_or(false)
}

/// Whether a request of the running call is on its way; outside of a call nobody knows, and one may be.
pub(crate) fn is_under_way() -> bool {
    CALL.try_with(|call| !call.progress().under_way.is_empty()).unwrap_or(true)
}

/// Notes that a request is on its way to `deployment`. Seconds since the call began.
pub(crate) fn sending(deployment: &str) -> f64 {
    let sent = |call: &Arc<Call>| {
        let now = Instant::now();
        call.sending(deployment, now);
        let started = call.offset(now);
        if let Some(watcher) = call.watcher() {
            watcher.sending(deployment, started);
        }
        started
    };
    // Without a call around it nobody will ask.
    CALL.try_with(sent).unwrap_or_default()
}

/// Notes that a request is over and another is sent in its place.
pub(crate) fn over(attempt: &Attempt) {
    let _ = CALL.try_with(|call| {
        if let Some(watcher) = call.watcher() {
            watcher.over(std::slice::from_ref(attempt));
        }
    });
}

/// Seconds since the call began; 0 outside of a call.
pub(crate) fn elapsed() -> f64 {
    CALL.try_with(|call| call.offset(Instant::now())).unwrap_or_default()
}

/// Notes that the request on its way needed a connection, which took so long.
pub(crate) fn connected(took: Duration) {
    let _ = CALL.try_with(|call| {
        call.progress().connected = Some(took);
        call.tell(|watcher, deployment, started| watcher.connected(deployment, started, took));
    });
}

/// How long connecting took for the newest request, in seconds; `None` when it needed no connection.
pub(crate) fn connecting() -> Option<f64> {
    CALL.try_with(|call| call.progress().connected).ok().flatten().map(|took| took.as_secs_f64())
}

/// What is noted of the running call; `None` when nobody wants to know.
pub(crate) fn notes() -> Option<Arc<Notes>> {
    CALL.try_with(|call| call.notes.clone()).ok().flatten()
}

/// The call to do with these notes what they are for.
pub(crate) fn opened(notes: &Arc<Notes>) -> Arc<Call> {
    let opens = |call: &Arc<Call>| (call.opens && call.is_noted_in(notes)).then(|| Arc::clone(call));
    CALL.try_with(opens).ok().flatten().unwrap_or_else(|| Call::noted(Arc::clone(notes)))
}

/// Tells that the first byte of the answer is there.
pub fn answer_begun() {
    let _ = CALL.try_with(|call| {
        for call in call.with_outer() {
            call.progress().begun.get_or_insert_with(Instant::now);
        }
        call.tell(|watcher, deployment, started| watcher.begun(deployment, started));
    });
}

/// Whether the running call's time is up, and the request sent last has been left without a byte of an answer for at
/// least `silence`. For a layer whose call is dropped.
pub(crate) fn ran_out_in_silence(silence: Duration) -> bool {
    CALL.try_with(|call| call.ran_out_in_silence(silence)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_inside_a_call_has_no_more_time() {
        assert_eq!(time_left(), None);
        let at = |seconds| Some(Instant::now() + Duration::from_secs(seconds));
        Call::until(at(5))
            .scope(async {
                assert_eq!(time_left(), Some(Duration::from_secs(5)));
                let inner = Call::until(at(9));
                assert_eq!(inner.left(), Some(Duration::from_secs(5)));
                assert_eq!(Call::until(at(2)).left(), Some(Duration::from_secs(2)));
                assert_eq!(Call::until(None).left(), Some(Duration::from_secs(5)));
                sending("a");
                tokio::time::sleep(Duration::from_secs(3)).await;
                let cut = CALL.with(|call| call.cut_off());
                assert_eq!((cut[0].deployment.as_str(), cut[0].duration), ("a", 3.0));
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_branch_tells_its_call_and_has_its_own_progress() {
        let call = Call::until(Some(Instant::now() + Duration::from_secs(5)));
        let (quick, slow) = Arc::clone(&call)
            .scope(async {
                let (quick, slow) = (Call::branch(), Call::branch());
                let silent = Duration::from_secs(5);
                Arc::clone(&slow).scope(async { sending("slow") }).await;
                Arc::clone(&quick)
                    .scope(async {
                        sending("quick");
                        answer_begun();
                        tokio::time::sleep(Duration::from_secs(4)).await;
                        assert!(!ran_out_in_silence(Duration::ZERO), "there is time left");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        assert!(!ran_out_in_silence(Duration::ZERO), "it has begun");
                    })
                    .await;
                Arc::clone(&slow)
                    .scope(async {
                        assert!(ran_out_in_silence(silent));
                        assert!(!ran_out_in_silence(silent + Duration::from_millis(1)));
                        // Sent again: the silence begins anew.
                        sending("slow");
                        assert!(!ran_out_in_silence(silent));
                    })
                    .await;
                (quick, slow)
            })
            .await;
        assert!(quick.begun().is_some() && slow.begun().is_none());
        let cut: Vec<_> = call.cut_off().into_iter().map(|attempt| attempt.deployment).collect();
        assert_eq!(cut, ["slow", "quick", "slow"]);
        assert!(!ran_out_in_silence(Duration::ZERO), "no call runs");
    }
}
