//! Lanes: small runtimes that sync calls run on, each driven by the thread that waits for the answer.
//!
//! A sync call takes the lane that rested last and gives it back afterwards, so that one thread after another finds
//! the same open connections, and no other thread has to be woken. Nobody drives a lane that rests: only calls of
//! clients that need nothing in between run here (`Client::needs_background`). About once a second a call that gives
//! its lane back also looks after those that have rested all the while, so that what hosts closed is closed here too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use liter_llm_border::lock;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// The most lanes that rest; a lane more is closed with its connections.
const MOST_RESTING: usize = 128;
/// How long a lane may rest before it is closed, if another call comes by to do so.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Within this time connections are taken to be as they were left.
const SHORT_REST: Duration = Duration::from_millis(5);
/// How often the lanes at rest are looked after, while calls are made.
const ROUND: Duration = Duration::from_secs(1);
/// How long a thread for blocking work stays when it has nothing to do.
const BLOCKING_REST: Duration = Duration::from_secs(1);

/// A runtime without threads of its own. Dropped, it closes its connections.
pub struct Lane {
    /// Where it rests: with the lanes of the process that took it.
    shelf: &'static Mutex<Shelf>,
    runtime: Option<Runtime>,
    rested: Instant,
    /// When it was last driven.
    driven: Instant,
}

/// The lanes at rest, and the process that made them.
struct Resting {
    pid: u32,
    shelf: Mutex<Shelf>,
}

struct Shelf {
    /// The one that rested last at the end.
    lanes: Vec<Lane>,
    /// When the last round began.
    round: Instant,
}

static CURRENT: AtomicPtr<Resting> = AtomicPtr::new(std::ptr::null_mut());

/// The lanes of this process, `pid`. A forked child leaves its parent's alone: their sockets and wake-ups are shared.
fn resting(pid: u32) -> &'static Mutex<Shelf> {
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: the pointer is null or comes from `Box::leak` below and is never freed.
    if let Some(resting) = unsafe { current.as_ref() }
        && resting.pid == pid
    {
        return &resting.shelf;
    }
    let shelf = Mutex::new(Shelf { lanes: Vec::new(), round: Instant::now() });
    let made = Box::leak(Box::new(Resting { pid, shelf }));
    match CURRENT.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => &made.shelf,
        // SAFETY: another thread was first; its pointer is a leaked box as well.
        Err(other) => unsafe { other.as_ref() }.map_or(&made.shelf, |resting| &resting.shelf),
    }
}

impl Lane {
    /// The lane that rested last, or a new one. `pid` is this process: asking the system for it costs a system call.
    pub fn take(pid: u32) -> std::io::Result<Self> {
        let shelf = resting(pid);
        if let Some(lane) = lock(shelf).lanes.pop() {
            return Ok(lane);
        }
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(32)
            .thread_name("liter-llm-lane")
            .thread_keep_alive(BLOCKING_REST)
            .enable_all()
            .build()?;
        let now = Instant::now();
        Ok(Self { shelf, runtime: Some(runtime), rested: now, driven: now })
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

    /// Gives the lane back; from time to time also looks after the others.
    pub fn rest(mut self) {
        let now = Instant::now();
        (self.rested, self.driven) = (now, now);
        let resting = self.shelf;
        let mut shelf = lock(resting);
        shelf.lanes.push(self);
        let oldest = shelf.lanes.first().map(|lane| now.saturating_duration_since(lane.rested));
        let surplus = (shelf.lanes.len() > MOST_RESTING || oldest.is_some_and(|rest| rest > LONGEST_REST))
            .then(|| shelf.lanes.remove(0));
        let due = now.saturating_duration_since(shelf.round) >= ROUND;
        if due {
            shelf.round = now;
        }
        drop(shelf);
        drop(surplus);
        if due && let Some(before) = now.checked_sub(ROUND / 2) {
            tidy_all(resting, before);
        }
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
    tidy_all(resting(std::process::id()), Instant::now());
}

/// Tidies the lanes at rest that were last driven before a point in time: one after the other, so that calls find the
/// rest in their places.
fn tidy_all(resting: &Mutex<Shelf>, before: Instant) {
    loop {
        let mut shelf = lock(resting);
        let next = shelf.lanes.iter().position(|lane| lane.driven < before);
        let Some(mut lane) = next.map(|next| shelf.lanes.remove(next)) else { return };
        drop(shelf);
        lane.tidy();
        lane.driven = Instant::now();
        let mut shelf = lock(resting);
        let place = shelf.lanes.partition_point(|other| other.rested <= lane.rested);
        shelf.lanes.insert(place, lane);
    }
}
