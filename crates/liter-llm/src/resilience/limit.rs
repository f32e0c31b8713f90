//! The line before a deployment: first come, first served, for places in flight and for requests and tokens a minute.
//!
//! One lock, no clock of its own, no timer: it says how long the first in line has to wait at least, and `Turn` waits.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::bucket::Bucket;
#[cfg(feature = "model")]
use super::sync::Seeded;
use super::sync::{Mutex, lock};
use crate::core::clock::Clock;

/// The limits of a deployment; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls in flight.
    pub concurrency: Option<u32>,
    /// Requests a minute.
    pub rpm: Option<u64>,
    /// Tokens a minute, input and output.
    pub tpm: Option<u64>,
}

impl Limits {
    /// Whether there is any.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.concurrency.is_some() || self.rpm.is_some() || self.tpm.is_some()
    }
}

struct Waiter {
    number: u64,
    tokens: f64,
    waker: Waker,
}

struct State {
    in_flight: u32,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// Tokens reserved by calls in flight, which may come back.
    reserved: f64,
    /// Oldest first; numbers rise.
    line: VecDeque<Waiter>,
    /// Tokens that those in line will reserve.
    wanted: f64,
    next: u64,
}

impl State {
    /// How long until a call may go that has `ahead` calls with `wanted` tokens before it, as far as the buckets rule.
    fn wait(&mut self, now: Duration, tokens: f64, ahead: f64, wanted: f64, coming: f64) -> Duration {
        let requests =
            self.requests.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait(now, 1.0, ahead, 0.0));
        let tokens =
            self.tokens.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait(now, tokens, wanted, coming));
        requests.max(tokens)
    }

    fn first(&self) -> Option<Waker> {
        self.line.front().map(|waiter| waiter.waker.clone())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The limiter of one deployment.
pub struct Limiter {
    limits: Limits,
    state: Mutex<State>,
    #[cfg(feature = "model")]
    seeded: Option<Seeded>,
}

/// What was used of a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Used {
    /// Nothing was sent: the request and its tokens come back.
    Nothing,
    /// The provider counted this many tokens: the rest comes back, or more is charged.
    Tokens(u64),
    /// At least this many, but the answer did not come to its end: the estimate stands, or more is charged.
    AtLeast(u64),
    /// A request was sent and nobody knows its tokens: the estimate stands.
    Unknown,
}

/// A place in flight, with what was reserved for it. Dropped, it is free, and the estimate stands.
pub struct Place {
    limiter: Arc<Limiter>,
    tokens: f64,
    used: Used,
}

/// What a look at the line says.
pub enum Look {
    /// It is this call's turn.
    Go(Place),
    /// Not yet; the waker is called when that may have changed. With a time: not before that has passed.
    Wait(Option<Duration>),
}

impl Limiter {
    /// A limiter with full buckets and no call in flight.
    #[must_use]
    pub fn new(limits: Limits, now: Duration) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                in_flight: 0,
                requests: limits.rpm.map(|limit| Bucket::per_minute(limit, now)),
                tokens: limits.tpm.map(|limit| Bucket::per_minute(limit, now)),
                reserved: 0.0,
                line: VecDeque::new(),
                wanted: 0.0,
                next: 0,
            }),
            #[cfg(feature = "model")]
            seeded: None,
        }
    }

    /// A limiter with a mistake in it.
    #[cfg(feature = "model")]
    #[must_use]
    pub fn with_seeded(limits: Limits, now: Duration, seeded: Seeded) -> Self {
        Self { seeded: Some(seeded), ..Self::new(limits, now) }
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.state).line.len()
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        lock(&self.state).in_flight
    }

    /// Tokens that may go out now, when they are limited; negative while a debt is paid.
    #[must_use]
    pub fn tokens_left(&self, now: Duration) -> Option<f64> {
        lock(&self.state).tokens.as_mut().map(|bucket| bucket.level(now))
    }

    /// How long a call that came now would wait for the minutes' limits, by all that is known: those in line go first,
    /// and what calls in flight have reserved comes back.
    #[must_use]
    pub fn outlook(&self, now: Duration, tokens: u64) -> Duration {
        let mut state = lock(&self.state);
        #[allow(clippy::cast_precision_loss, reason = "nobody queues 2^53 calls")]
        let (ahead, tokens) = (state.line.len() as f64, tokens as f64);
        let (wanted, coming) = (state.wanted, state.reserved);
        state.wait(now, tokens, ahead, wanted, coming)
    }

    /// Takes a place when it is this call's turn; else puts the call at the end of the line, once: `number` is its.
    pub fn look(
        self: &Arc<Self>,
        now: Duration,
        tokens: u64,
        number: &mut Option<u64>,
        waker: &Waker,
    ) -> Look {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let mut tokens = tokens as f64;
        let mut state = lock(&self.state);
        if let Some(bucket) = &state.tokens {
            tokens = bucket.counted(tokens);
        }
        let first = match (*number, state.line.front()) {
            (None, front) => front.is_none(),
            (Some(number), front) => front.is_some_and(|waiter| waiter.number == number),
        };
        let full = self.limits.concurrency.is_some_and(|most| state.in_flight >= most);
        let wait = match first && !full {
            true => state.wait(now, tokens, 0.0, 0.0, 0.0),
            false => Duration::ZERO,
        };
        if !first || full || !wait.is_zero() {
            match number {
                Some(number) => {
                    if let Ok(at) = state.line.binary_search_by_key(number, |waiter| waiter.number) {
                        state.line[at].waker.clone_from(waker);
                    }
                }
                None => {
                    *number = Some(state.next);
                    let waiter = Waiter { number: state.next, tokens, waker: waker.clone() };
                    state.line.push_back(waiter);
                    state.next += 1;
                    state.wanted += tokens;
                }
            }
            return Look::Wait((!wait.is_zero()).then_some(wait));
        }
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::SplitCheck) {
            drop(state);
            state = lock(&self.state);
        }
        state.in_flight += 1;
        if let Some(bucket) = &mut state.requests {
            bucket.take(1.0);
        }
        if let Some(bucket) = &mut state.tokens {
            bucket.take(tokens);
        }
        state.reserved += tokens;
        let mut next = None;
        if number.take().is_some() {
            state.line.pop_front();
            state.wanted -= tokens;
            // There may be room for more than one.
            next = state.first();
        }
        drop(state);
        wake(next);
        Look::Go(Place { limiter: Arc::clone(self), tokens, used: Used::Unknown })
    }

    /// Takes a call out of the line.
    pub fn leave(&self, number: u64) {
        let mut state = lock(&self.state);
        let Ok(at) = state.line.binary_search_by_key(&number, |waiter| waiter.number) else { return };
        if let Some(waiter) = state.line.remove(at) {
            state.wanted -= waiter.tokens;
        }
        let next = if at == 0 { state.first() } else { None };
        #[cfg(feature = "model")]
        let next = if self.seeded == Some(Seeded::LostWake) { None } else { next };
        drop(state);
        wake(next);
    }

    fn release(&self, reserved: f64, used: Used) {
        let mut state = lock(&self.state);
        state.in_flight -= 1;
        state.reserved -= reserved;
        #[allow(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
        let back = match used {
            Used::Nothing => reserved,
            Used::Tokens(count) => reserved - count as f64,
            Used::AtLeast(count) => (reserved - count as f64).min(0.0),
            Used::Unknown => 0.0,
        };
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::LostRefund) {
            let old = state.tokens.clone();
            drop(state);
            state = lock(&self.state);
            state.tokens = old;
        }
        if let Some(bucket) = &mut state.tokens {
            bucket.give_back(back);
        }
        if used == Used::Nothing
            && let Some(bucket) = &mut state.requests
        {
            bucket.give_back(1.0);
        }
        let next = state.first();
        drop(state);
        wake(next);
    }
}

impl Place {
    /// Notes what was used; settled when the place is dropped.
    pub const fn note(&mut self, used: Used) {
        self.used = used;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.release(self.tokens, self.used);
    }
}

/// Waits for a place. Dropped, it leaves the line.
pub struct Turn {
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
    tokens: u64,
    number: Option<u64>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Turn {
    /// A call that is expected to use `tokens`; it joins the line when first polled.
    #[must_use]
    pub fn new(limiter: Arc<Limiter>, clock: Arc<dyn Clock>, tokens: u64) -> Self {
        Self { limiter, clock, tokens, number: None, timer: None }
    }
}

impl Future for Turn {
    /// The place, and whether it was waited for.
    type Output = (Place, bool);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(Place, bool)> {
        let this = self.get_mut();
        loop {
            let now = this.clock.now();
            let queued = this.number.is_some();
            match this.limiter.look(now, this.tokens, &mut this.number, context.waker()) {
                Look::Go(place) => return Poll::Ready((place, queued)),
                Look::Wait(None) => {
                    this.timer = None;
                    return Poll::Pending;
                }
                Look::Wait(Some(wait)) => {
                    let timer = this.timer.insert(Box::pin(tokio::time::sleep(wait)));
                    if timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.limiter.leave(number);
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use futures_util::FutureExt as _;

    use super::*;
    use crate::core::clock::MonotonicClock;

    fn turns(limits: Limits, count: usize, tokens: u64) -> (Arc<Limiter>, Vec<Turn>) {
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::default());
        let limiter = Arc::new(Limiter::new(limits, clock.now()));
        let turns = (0..count).map(|_| Turn::new(Arc::clone(&limiter), Arc::clone(&clock), tokens)).collect();
        (limiter, turns)
    }

    fn go(turn: &mut Turn) -> Option<Place> {
        turn.now_or_never().map(|(place, _)| place)
    }

    #[test]
    fn first_come_first_served_and_who_leaves_is_forgotten() {
        let (limiter, mut turns) = turns(Limits { concurrency: Some(2), ..Limits::default() }, 6, 0);
        let mut places: Vec<Option<Place>> = turns.iter_mut().map(go).collect();
        assert_eq!(places.iter().flatten().count(), 2);
        assert_eq!((limiter.waiting(), limiter.in_flight()), (4, 2));
        places[0] = None;
        assert!(go(&mut turns[3]).is_none(), "no one overtakes");
        drop(turns.remove(2));
        assert_eq!(limiter.waiting(), 3);
        assert!(go(&mut turns[2]).is_some(), "the next moves up, and leaves at once");
        assert!(go(&mut turns[4]).is_none());
        assert_eq!(limiter.waiting(), 2);
        drop(turns);
        assert_eq!((limiter.waiting(), limiter.in_flight()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_a_minute_are_paced() {
        let (limiter, turns) = turns(Limits { rpm: Some(120), ..Limits::default() }, 240, 0);
        let begun = tokio::time::Instant::now();
        let mut times = Vec::new();
        let mut tasks: Vec<_> = turns
            .into_iter()
            .map(|turn| {
                tokio::spawn(async move {
                    let _place = turn.await;
                    tokio::time::Instant::now()
                })
            })
            .collect();
        // The last one's caller gives up; nobody waits for it.
        tasks.pop().unwrap().abort();
        for task in tasks {
            times.push(task.await.unwrap().duration_since(begun));
        }
        assert!(times.is_sorted(), "the line was kept");
        let window = Duration::from_millis(59_990);
        let most =
            times.iter().map(|from| times.iter().filter(|at| *at >= from && **at < *from + window).count());
        assert!(most.max().unwrap() <= 120);
        assert!((115..=125).contains(&times.last().unwrap().as_secs()), "{:?}", times.last());
        assert_eq!(limiter.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_reserved_and_settled() {
        let (limiter, mut turns) = turns(Limits { tpm: Some(30_000), ..Limits::default() }, 4, 1_000);
        let begun = tokio::time::Instant::now();
        let mut first = go(&mut turns[0]).unwrap();
        assert!(go(&mut turns[1]).is_none(), "1,000 may go at once");
        first.note(Used::Tokens(200));
        drop(first);
        let mut second = (&mut turns[1]).await.0;
        assert!((390..=430).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        second.note(Used::Nothing);
        drop(second);
        assert!(go(&mut turns[2]).is_some(), "nothing was sent: all of it came back");
        let now = limiter.outlook(MonotonicClock::default().now(), 1_000_000);
        assert!((1..=3).contains(&now.as_secs()), "{now:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_an_end_is_charged_its_estimate_at_least() {
        for (used, left) in [
            (Used::Unknown, 0.0),
            (Used::AtLeast(200), 0.0),
            (Used::AtLeast(1_300), -300.0),
            (Used::Tokens(200), 800.0),
            (Used::Nothing, 1_000.0),
        ] {
            let (limiter, mut turns) = turns(Limits { tpm: Some(30_000), ..Limits::default() }, 1, 1_000);
            let mut place = go(&mut turns[0]).unwrap();
            place.note(used);
            drop(place);
            let now = limiter.tokens_left(Duration::ZERO).unwrap();
            assert!((now - left).abs() < 1e-6, "{used:?}: {now}");
        }
    }
}
