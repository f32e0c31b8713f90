//! Lanes: small runtimes that sync calls run on, each driven by the thread that waits for the answer.
//!
//! A sync call takes the lane that rested last and gives it back afterwards, so that one thread after another finds
//! the same open connections, and no other thread has to be woken. Nobody drives a lane that rests: only calls of
//! clients that need nothing in between run here (`Client::needs_background`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use crate::bridge::lock;

/// The most lanes that rest; a lane more is closed with its connections.
const MOST_RESTING: usize = 128;
/// How long a lane may rest before it is closed, if another call comes by to do so.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Within this time connections are taken to be as they were left.
const SHORT_REST: Duration = Duration::from_millis(5);
/// How long a thread for name resolution stays when it has nothing to do.
const RESOLVER_REST: Duration = Duration::from_secs(1);

/// A runtime without threads of its own. Dropped, it closes its connections.
pub struct Lane {
    runtime: Option<Runtime>,
    rested: Instant,
}

/// The lanes at rest, and the process that made them.
struct Resting {
    pid: u32,
    /// The one that rested last at the end.
    lanes: Mutex<Vec<Lane>>,
}

static CURRENT: AtomicPtr<Resting> = AtomicPtr::new(std::ptr::null_mut());

/// The lanes of this process. A forked child leaves its parent's alone: their sockets and wake-ups are shared.
fn resting() -> &'static Mutex<Vec<Lane>> {
    let pid = std::process::id();
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: the pointer is null or comes from `Box::leak` below and is never freed.
    if let Some(resting) = unsafe { current.as_ref() }
        && resting.pid == pid
    {
        return &resting.lanes;
    }
    let made = Box::leak(Box::new(Resting { pid, lanes: Mutex::new(Vec::new()) }));
    match CURRENT.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => &made.lanes,
        // SAFETY: another thread was first; its pointer is a leaked box as well.
        Err(other) => unsafe { other.as_ref() }.map_or(&made.lanes, |resting| &resting.lanes),
    }
}

impl Lane {
    /// The lane that rested last, or a new one.
    pub fn take() -> std::io::Result<Self> {
        if let Some(lane) = lock(resting()).pop() {
            return Ok(lane);
        }
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(32)
            .thread_name("liter-llm-dns")
            .thread_keep_alive(RESOLVER_REST)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime), rested: Instant::now() })
    }

    /// Drives the lane until the work is done.
    pub fn drive<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.runtime.as_ref().map(|runtime| runtime.block_on(work))
    }

    /// Catches up with what happened while the lane rested: hosts may have closed connections.
    pub async fn catch_up(rested: Duration) {
        // This turn ends with a look at the sockets, which is all that a connection of our own needs.
        yield_now().await;
        if rested > SHORT_REST {
            // Those through a proxy have tasks, which must run before they are seen to be closed.
            yield_now().await;
        }
    }

    /// How long the lane has rested.
    pub fn rested(&self) -> Duration {
        self.rested.elapsed()
    }

    /// Gives the lane back.
    pub fn rest(mut self) {
        let now = Instant::now();
        self.rested = now;
        let mut lanes = lock(resting());
        lanes.push(self);
        let oldest = lanes.first().map(|lane| now.saturating_duration_since(lane.rested));
        let surplus = (lanes.len() > MOST_RESTING || oldest.is_some_and(|rest| rest > LONGEST_REST))
            .then(|| lanes.remove(0));
        drop(lanes);
        drop(surplus);
    }

    /// Gives up a call that has begun on this lane, closes its connection and gives the lane back.
    pub fn abandon(self, call: impl Future) {
        if let Some(runtime) = &self.runtime {
            let _guard = runtime.enter();
            drop(call);
        }
        self.tidy();
        self.rest();
    }

    /// Runs what became due: connections that broke while the lane rested, or that nobody holds any more, close.
    pub fn tidy(&self) {
        self.drive(settled());
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Without waiting for a name resolution that is under way.
            runtime.shutdown_background();
        }
    }
}

/// Ready once the lane has looked at its sockets and run what that woke.
async fn settled() {
    yield_now().await;
    yield_now().await;
}

/// Tidies every lane at rest, after a client was dropped.
pub fn tidy() {
    let lanes = std::mem::take(&mut *lock(resting()));
    lanes.iter().for_each(Lane::tidy);
    let mut resting = lock(resting());
    let newer = std::mem::replace(&mut *resting, lanes);
    resting.extend(newer);
}
