//! Keeps one token fresh for any number of callers: fetched once, renewed before it expires, one fetch at a time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::header::HeaderValue;
use tokio::sync::watch;

use super::key::SecretKey;
use crate::core::error::{ErrorKind, LlmError};

/// The longest a fetch may take, its own retries included.
pub const FETCH_LIMIT: Duration = Duration::from_secs(30);
/// After an early renewal failed, how long the old token is used before the next one is tried (at most).
const EARLY_PAUSE: Duration = Duration::from_secs(30);
/// How long after giving up a rejected token no other is given up: calls sent with the old one still come back.
const REJECTION_PAUSE: Duration = Duration::from_secs(5);

/// Time, as the cache sees it; tests bring their own.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now, for measuring how old a token is.
    fn now(&self) -> Instant;
    /// Now, for services that state an expiry as a date.
    fn wall(&self) -> SystemTime;
    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// The computer's own time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A token as its service gave it.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub value: SecretKey,
    /// How long it is good for, from the moment it was received.
    pub lifetime: Duration,
}

/// Where tokens come from.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// Gets a new token.
    ///
    /// # Errors
    /// Whatever getting it ends in; every caller who waits for it receives this error.
    async fn fetch(&self) -> Result<Token, LlmError>;
}

/// Renew when less than this is left of a token: the larger of 60 s and a tenth of its lifetime, but never more than
/// a quarter of it, so that a token of seconds is not renewed at every call.
fn renewal_margin(lifetime: Duration) -> Duration {
    Duration::from_secs(60).max(lifetime / 10).min(lifetime / 4)
}

/// Do not send a token with less than this left: it would expire on its way.
fn transit_margin(lifetime: Duration) -> Duration {
    Duration::from_secs(5).min(lifetime / 10)
}

/// What a fetch came to, for those who wait for it.
type Outcome = Result<HeaderValue, LlmError>;

struct Held {
    header: HeaderValue,
    renew_at: Instant,
    expires_at: Instant,
}

struct Fetching {
    number: u64,
    since: Instant,
    outcome: watch::Receiver<Option<Outcome>>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    fetching: Option<Fetching>,
    started: u64,
    no_early_before: Option<Instant>,
    given_up_at: Option<Instant>,
}

struct Shared {
    source: Arc<dyn TokenSource>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that change it, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token cache. Clones share the token.
///
/// A token with enough time left is handed out at once. Shortly before its expiry one fetch begins in the background
/// while callers go on with the old token; after it, callers wait for that one fetch and share its result, success or
/// failure. A failure is never kept: the next caller tries anew. The fetch runs as a task of its own, so a caller who
/// gives up harms nobody, and a caller with a short deadline still leaves a token behind for the next.
#[derive(Clone)]
pub struct TokenCache {
    shared: Arc<Shared>,
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        formatter
            .debug_struct("TokenCache")
            .field("held", &state.held.is_some())
            .field("fetching", &state.fetching.is_some())
            .finish()
    }
}

impl TokenCache {
    /// An empty cache over a source.
    #[must_use]
    pub fn new(source: Arc<dyn TokenSource>, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { source, clock, state: Mutex::default() }) }
    }

    /// The token as the value of an `Authorization` header (`Bearer ...`, marked sensitive).
    ///
    /// # Errors
    /// The source's error; `timeout` when a fetch takes longer than [`FETCH_LIMIT`]; `config` outside a Tokio runtime.
    pub async fn bearer(&self) -> Result<HeaderValue, LlmError> {
        let mut outcome = {
            let mut state = self.shared.lock();
            let now = self.shared.clock.now();
            match &state.held {
                Some(held) if now < held.renew_at => return Ok(held.header.clone()),
                Some(held) if now < held.expires_at => {
                    let header = held.header.clone();
                    if state.no_early_before.is_none_or(|time| now >= time) {
                        // The token in hand is still good: what becomes of the renewal does not concern this call.
                        let _ = self.join_or_start(&mut state, now);
                    }
                    return Ok(header);
                }
                _ => self.join_or_start(&mut state, now)?,
            }
        };
        // The fetch is bounded itself; this bound holds even if its runtime is gone (a forked process).
        let waited = tokio::time::timeout(FETCH_LIMIT + Duration::from_secs(5), async {
            outcome.wait_for(Option::is_some).await.ok().and_then(|result| result.clone())
        });
        match waited.await {
            Ok(Some(result)) => result,
            Ok(None) => Err(LlmError::new(ErrorKind::Connection, "getting a token was interrupted")),
            Err(_) => Err(too_slow()),
        }
    }

    /// Gives up the token because the provider rejected it; the next [`bearer`](Self::bearer) fetches another.
    ///
    /// Within 5 s of giving one up nothing more is given up: those are answers to calls sent with the old token, or a
    /// provider that rejects the new one too, and neither is a reason to fetch again. True in every case, since
    /// another try uses a token that this caller may not have used yet.
    #[must_use]
    pub fn give_up(&self) -> bool {
        let mut state = self.shared.lock();
        let now = self.shared.clock.now();
        let recently = state.given_up_at.is_some_and(|time| now < time + REJECTION_PAUSE);
        if !recently && state.held.take().is_some() {
            state.given_up_at = Some(now);
        }
        true
    }

    /// The running fetch, or a new one.
    fn join_or_start(
        &self,
        state: &mut State,
        now: Instant,
    ) -> Result<watch::Receiver<Option<Outcome>>, LlmError> {
        if let Some(fetching) = &state.fetching
            && now.saturating_duration_since(fetching.since) <= FETCH_LIMIT + Duration::from_secs(5)
        {
            return Ok(fetching.outcome.clone());
        }
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| LlmError::config("credential", "getting a token needs a running Tokio runtime"))?;
        let (sender, outcome) = watch::channel(None);
        state.started += 1;
        let number = state.started;
        state.fetching = Some(Fetching { number, since: now, outcome: outcome.clone() });
        let task = Fetch { shared: Arc::clone(&self.shared), number, sender };
        runtime.spawn(task.run());
        Ok(outcome)
    }
}

fn too_slow() -> LlmError {
    LlmError::new(ErrorKind::Timeout, format!("getting a token took longer than {} s", FETCH_LIMIT.as_secs()))
}

/// One fetch on its way. Dropped before its end (a runtime that shuts down, a panic) it makes room for the next.
struct Fetch {
    shared: Arc<Shared>,
    number: u64,
    sender: watch::Sender<Option<Outcome>>,
}

impl Fetch {
    async fn run(self) {
        let fetched = tokio::time::timeout(FETCH_LIMIT, self.shared.source.fetch()).await;
        let outcome = fetched.unwrap_or_else(|_| Err(too_slow())).and_then(|token| {
            let header = super::bearer_value(&token.value)?;
            Ok((header, token.lifetime))
        });
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        let outcome = match outcome {
            Ok((header, lifetime)) => {
                let held = Held {
                    header: header.clone(),
                    renew_at: now + lifetime.saturating_sub(renewal_margin(lifetime)),
                    expires_at: now + lifetime.saturating_sub(transit_margin(lifetime)),
                };
                state.held = Some(held);
                state.no_early_before = None;
                Ok(header)
            }
            Err(error) => {
                if let Some(held) = &state.held {
                    let left = held.expires_at.saturating_duration_since(now);
                    state.no_early_before = Some(now + EARLY_PAUSE.min(left / 4));
                }
                Err(error)
            }
        };
        release(&mut state, self.number);
        drop(state);
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        release(&mut self.shared.lock(), self.number);
    }
}

fn release(state: &mut State, number: u64) {
    if state.fetching.as_ref().is_some_and(|fetching| fetching.number == number) {
        state.fetching = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::credentials::KeyOrigin;

    fn key(value: &str) -> SecretKey {
        SecretKey::new(value, "access_token", KeyOrigin::Argument).unwrap()
    }

    /// A clock that moves when told.
    struct TestClock {
        start: Instant,
        passed: Mutex<Duration>,
    }

    impl TestClock {
        fn new() -> Arc<Self> {
            Arc::new(Self { start: Instant::now(), passed: Mutex::default() })
        }

        fn advance(&self, seconds: f64) {
            *self.passed.lock().unwrap() += Duration::from_secs_f64(seconds);
        }
    }

    #[async_trait]
    impl Clock for TestClock {
        fn now(&self) -> Instant {
            self.start + *self.passed.lock().unwrap()
        }

        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + *self.passed.lock().unwrap()
        }

        async fn sleep(&self, _duration: Duration) {}
    }

    /// Gives `token-1`, `token-2`, ... or the failure that stands ready; each fetch waits for a permit of `gate`.
    struct TestSource {
        fetches: AtomicUsize,
        gate: Semaphore,
        failures: Mutex<VecDeque<LlmError>>,
        lifetime: Duration,
    }

    impl TestSource {
        fn new(lifetime: u64, permits: usize) -> Arc<Self> {
            Arc::new(Self {
                fetches: AtomicUsize::new(0),
                gate: Semaphore::new(permits),
                failures: Mutex::default(),
                lifetime: Duration::from_secs(lifetime),
            })
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::SeqCst)
        }

        fn fail_next(&self, message: &str) {
            self.failures.lock().unwrap().push_back(LlmError::new(ErrorKind::Authentication, message));
        }
    }

    #[async_trait]
    impl TokenSource for TestSource {
        async fn fetch(&self) -> Result<Token, LlmError> {
            let number = self.fetches.fetch_add(1, Ordering::SeqCst) + 1;
            self.gate.acquire().await.unwrap().forget();
            match self.failures.lock().unwrap().pop_front() {
                Some(error) => Err(error),
                None => Ok(Token { value: key(&format!("token-{number}")), lifetime: self.lifetime }),
            }
        }
    }

    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    async fn token(cache: &TokenCache) -> Result<String, LlmError> {
        cache.bearer().await.map(|value| value.to_str().unwrap().to_owned())
    }

    const MANY: usize = 1000;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_hundred_callers_at_expiry_cause_one_fetch() {
        let (source, clock) = (TestSource::new(3600, 1), TestClock::new());
        let cache = TokenCache::new(source.clone(), clock.clone());
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-1");
        for round in 2..12 {
            clock.advance(3600.0);
            let calls: Vec<_> = (0..100)
                .map(|_| {
                    let cache = cache.clone();
                    tokio::spawn(async move { token(&cache).await })
                })
                .collect();
            // The service answers only when all callers have had the time to ask.
            tokio::time::sleep(Duration::from_millis(20)).await;
            source.gate.add_permits(1);
            for call in calls {
                assert_eq!(call.await.unwrap().unwrap(), format!("Bearer token-{round}"));
            }
            assert_eq!(source.fetches(), round);
        }
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_its_expiry_while_the_old_one_serves() {
        let (source, clock) = (TestSource::new(3600, 1), TestClock::new());
        let cache = TokenCache::new(source.clone(), clock.clone());
        token(&cache).await.unwrap();
        clock.advance(3239.0);
        token(&cache).await.unwrap();
        settle().await;
        assert_eq!(source.fetches(), 1, "a tenth of the lifetime is not reached");
        clock.advance(2.0);
        for _ in 0..100 {
            assert_eq!(token(&cache).await.unwrap(), "Bearer token-1", "nobody waits");
        }
        settle().await;
        assert_eq!(source.fetches(), 2);
        source.gate.add_permits(1);
        settle().await;
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-2");
        assert_eq!(source.fetches(), 2);
    }

    #[tokio::test]
    async fn a_failed_renewal_leaves_the_old_token_in_use_and_pauses() {
        let (source, clock) = (TestSource::new(3600, MANY), TestClock::new());
        let cache = TokenCache::new(source.clone(), clock.clone());
        token(&cache).await.unwrap();
        clock.advance(3300.0);
        source.fail_next("down");
        for _ in 0..10 {
            assert_eq!(token(&cache).await.unwrap(), "Bearer token-1");
            settle().await;
        }
        assert_eq!(source.fetches(), 2);
        clock.advance(31.0);
        token(&cache).await.unwrap();
        settle().await;
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-3");
    }

    #[tokio::test]
    async fn tokens_of_a_few_seconds_work() {
        let (source, clock) = (TestSource::new(5, MANY), TestClock::new());
        let cache = TokenCache::new(source.clone(), clock.clone());
        token(&cache).await.unwrap();
        clock.advance(3.7);
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-1");
        settle().await;
        assert_eq!(source.fetches(), 1);
        clock.advance(0.9);
        assert_eq!(
            token(&cache).await.unwrap(),
            "Bearer token-2",
            "half a second left is too little to send"
        );
        assert_eq!(source.fetches(), 2);
    }

    #[tokio::test]
    async fn those_who_wait_share_the_error_and_the_next_caller_tries_anew() {
        let (source, clock) = (TestSource::new(3600, 0), TestClock::new());
        let cache = TokenCache::new(source.clone(), clock.clone());
        source.fail_next("wrong secret");
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { token(&cache).await })
            })
            .collect();
        settle().await;
        source.gate.add_permits(1);
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (ErrorKind::Authentication, "wrong secret")
            );
        }
        assert_eq!(source.fetches(), 1);
        source.gate.add_permits(1);
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-2");
    }

    #[tokio::test]
    async fn a_caller_who_gives_up_harms_nobody() {
        let (source, clock) = (TestSource::new(3600, 0), TestClock::new());
        let cache = TokenCache::new(source.clone(), clock.clone());
        let spawn = || {
            let cache = cache.clone();
            tokio::spawn(async move { token(&cache).await })
        };
        let first = spawn();
        settle().await;
        let second = spawn();
        settle().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        source.gate.add_permits(1);
        assert_eq!(second.await.unwrap().unwrap(), "Bearer token-1");

        // Even when everybody gave up, the fetch ends and its token is there for the next.
        clock.advance(3600.0);
        let last = spawn();
        settle().await;
        last.abort();
        settle().await;
        source.gate.add_permits(1);
        settle().await;
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-2");
        assert_eq!(source.fetches(), 2);
    }

    #[test]
    fn a_runtime_that_ends_during_a_fetch_does_not_wedge_the_cache() {
        let source = TestSource::new(3600, 0);
        let cache = TokenCache::new(source.clone(), Arc::new(SystemClock));
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = runtime();
        first.block_on(async {
            let waiting = tokio::time::timeout(Duration::from_millis(20), token(&cache));
            assert!(waiting.await.is_err());
        });
        drop(first);
        source.gate.add_permits(1);
        assert_eq!(runtime().block_on(token(&cache)).unwrap(), "Bearer token-2");
    }

    #[tokio::test]
    async fn a_rejected_token_is_given_up_once() {
        let (source, clock) = (TestSource::new(3600, MANY), TestClock::new());
        let cache = TokenCache::new(source.clone(), clock.clone());
        token(&cache).await.unwrap();
        assert!(cache.give_up());
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-2");
        // Late rejections of the first token do not cost the second one.
        assert!(cache.give_up());
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-2");
        clock.advance(6.0);
        assert!(cache.give_up());
        assert_eq!(token(&cache).await.unwrap(), "Bearer token-3");
    }

    #[test]
    fn margins_suit_long_and_short_tokens() {
        let seconds = Duration::from_secs;
        assert_eq!(renewal_margin(seconds(86_400)), seconds(8640));
        assert_eq!(renewal_margin(seconds(3600)), seconds(360));
        assert_eq!(renewal_margin(seconds(400)), seconds(60));
        assert_eq!(renewal_margin(seconds(5)), Duration::from_millis(1250));
        assert_eq!(transit_margin(seconds(3600)), seconds(5));
        assert_eq!(transit_margin(seconds(5)), Duration::from_millis(500));
        assert_eq!(renewal_margin(Duration::ZERO), Duration::ZERO);
    }
}
