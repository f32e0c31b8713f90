//! Trying again: the one loop that repeats an operation, and the rules it follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;

use super::deadline::Deadline;
use super::quota::{RetryQuota, THROTTLED_COST, TRANSIENT_COST};
use crate::core::call::Call;
use crate::core::error::{ErrorKind, FailurePhase, LlmError};
use crate::core::response::{Attempt, AttemptCause};

/// How often and how patiently an operation is repeated.
///
/// ```
/// use std::time::Duration;
/// use liter_llm::{Decision, ErrorKind, GiveUp, LlmError, RetryOptions};
///
/// let options = RetryOptions { cap: Duration::from_secs(4), ..RetryOptions::default() }.with_max_retries(2);
/// let error = LlmError::new(ErrorKind::Overloaded, "busy");
/// // The first wait is drawn from zero to `base`; here the middle of it.
/// assert_eq!(options.decide(0, &error, None, 0.5), Decision::Wait(Duration::from_millis(250)));
/// assert_eq!(options.next(2, &error, None), Decision::GiveUp(GiveUp::RetriesUsedUp));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryOptions {
    /// Repeats after the first try; 3.
    pub max_retries: u32,
    /// The upper bound of the first wait; doubles with each repeat; 0.5 s.
    pub base: Duration,
    /// The upper bound of every wait that the provider did not ask for; 8 s.
    pub cap: Duration,
    /// The longest `retry_after` that is waited for; 60 s. A longer one fails the call at once.
    pub longest_retry_after: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(8),
            longest_retry_after: Duration::from_secs(60),
        }
    }
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decision {
    /// The operation is repeated after this time.
    Wait(Duration),
    /// The failure is the outcome.
    GiveUp(GiveUp),
}

/// Why an operation is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUp {
    /// The error says that repeating does not help, or must not be done.
    NotRetryable,
    /// All repeats are made.
    RetriesUsedUp,
    /// The provider asks for a longer wait than [`RetryOptions::longest_retry_after`].
    WaitTooLong,
    /// The wait does not fit into the time left.
    NoTimeLeft,
    /// The shared [`RetryQuota`] is used up.
    QuotaUsedUp,
}

impl GiveUp {
    /// The reason as it stands in [`Attempt::reason`]; none where the error itself says it.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::NotRetryable => None,
            Self::RetriesUsedUp => Some("retries used up"),
            Self::WaitTooLong => Some("retry_after is longer than is waited for"),
            Self::NoTimeLeft => Some("no time left for a repeat"),
            Self::QuotaUsedUp => Some("retry quota used up"),
        }
    }
}

impl RetryOptions {
    /// These options with another number of repeats.
    #[must_use]
    pub const fn with_max_retries(mut self, max_retries: u32) -> Self {
        self.max_retries = max_retries;
        self
    }

    /// What follows `error` after `repeats` repeats, with `left` of the time and a random `fraction` in 0..1.
    ///
    /// The error is asked whether it may be repeated and when. Without a word on *when*, the wait is drawn between
    /// zero and a bound that doubles with each repeat (full jitter). What the provider asked for is waited for in
    /// full, and a little longer, so that clients told the same do not come back in the same instant. So is a cooldown
    /// that was begun without its word, unless the drawn wait is longer.
    #[must_use]
    pub fn decide(&self, repeats: u32, error: &LlmError, left: Option<Duration>, fraction: f64) -> Decision {
        if !error.is_retryable() {
            return Decision::GiveUp(GiveUp::NotRetryable);
        }
        if repeats >= self.max_retries {
            return Decision::GiveUp(GiveUp::RetriesUsedUp);
        }
        let fraction = fraction.clamp(0.0, 1.0);
        let bound = self.base.saturating_mul(2_u32.saturating_pow(repeats)).min(self.cap);
        let after = |time: Duration| time + self.base.mul_f64(0.1 * fraction);
        let wait = match asked_for(error) {
            // "Now" is no wait to speak of: the usual one keeps a crowd apart.
            None | Some(Duration::ZERO) => {
                let drawn = bound.mul_f64(fraction);
                error.detail().cooldown.map_or(drawn, |cooldown| drawn.max(after(cooldown)))
            }
            Some(asked) if asked > self.longest_retry_after => {
                return Decision::GiveUp(GiveUp::WaitTooLong);
            }
            Some(asked) => after(asked),
        };
        match left {
            Some(left) if wait >= left => Decision::GiveUp(GiveUp::NoTimeLeft),
            _ => Decision::Wait(wait),
        }
    }

    /// [`decide`](Self::decide) with a fraction from the operating system's entropy.
    #[must_use]
    pub fn next(&self, repeats: u32, error: &LlmError, left: Option<Duration>) -> Decision {
        self.decide(repeats, error, left, random_fraction())
    }
}

/// The wait the provider asks for; one too long to be written as a duration is the longest there is.
fn asked_for(error: &LlmError) -> Option<Duration> {
    let seconds = error.detail().retry_after?;
    if seconds.is_nan() {
        return None;
    }
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// A number in 0..1 from the operating system's entropy.
fn random_fraction() -> f64 {
    let mut bytes = [0_u8; 8];
    // Without entropy the longest wait is the safe one.
    if getrandom::fill(&mut bytes).is_err() {
        return 1.0;
    }
    // The upper 53 bits are exactly a double's mantissa.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let fraction = (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}

/// Options, and what an operation shares with others: a quota, a deadline.
///
/// Made from [`RetryOptions`], or from a number of retries.
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use liter_llm::{RetryOptions, RetryPlan, RetryQuota};
///
/// let plan = RetryPlan::from(RetryOptions::default())
///     .with_quota(Arc::new(RetryQuota::new()))
///     .with_deadline(Instant::now() + Duration::from_secs(20));
/// # drop(plan);
/// ```
#[derive(Debug, Clone, Default)]
pub struct RetryPlan {
    pub(crate) options: RetryOptions,
    pub(crate) quota: Option<Arc<RetryQuota>>,
    pub(crate) deadline: Deadline,
    /// Whether it is a client's, so that clients inside need not repeat.
    pub(crate) layer: bool,
}

impl RetryPlan {
    /// Shares a quota with other operations. Without one the number of retries is the only bound.
    #[must_use]
    pub fn with_quota(mut self, quota: Arc<RetryQuota>) -> Self {
        self.quota = Some(quota);
        self
    }

    /// Ends everything, an operation under way included, at this time. A wait that does not fit is not begun.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Deadline::at(deadline);
        self
    }

    fn next(&self, repeats: u32, error: &LlmError, left: Option<Duration>) -> (Decision, u32) {
        let decision = self.options.next(repeats, error, left);
        let cost = match error.kind() {
            // A deployment that cools down here was not asked: waiting for it is no load to it.
            _ if error.detail().before_send => 0,
            ErrorKind::RateLimited => THROTTLED_COST,
            _ => TRANSIENT_COST,
        };
        match (&self.quota, decision) {
            (Some(quota), Decision::Wait(_)) if !quota.take(cost) => {
                (Decision::GiveUp(GiveUp::QuotaUsedUp), 0)
            }
            _ => (decision, cost),
        }
    }

    /// Takes steps until one succeeds, none may follow, or time is up.
    pub(crate) async fn run<T, S: Steps<T>>(&self, steps: &mut S) -> Result<Outcome<T>, LlmError> {
        let repeats = self.layer && self.options.max_retries > 0;
        let call = Call::new(self.deadline.when(), repeats, self.deadline.began());
        let this = Arc::clone(&call);
        let work = async {
            let mut history = History::default();
            let mut last: Option<LlmError> = None;
            let mut taken = 0;
            let mut repeats = 0;
            loop {
                let begun = tokio::time::Instant::now();
                let patience = steps.patience(call.left_at(begun));
                let ends = patience.map(|patience| begun + patience);
                let outcome = match ends.into_iter().chain(call.deadline()).min() {
                    None => steps.step().await,
                    Some(at) => match tokio::time::timeout_at(at, steps.step()).await {
                        Ok(outcome) => outcome,
                        Err(_) => {
                            let cut_off = call.cut_off();
                            match patience {
                                Some(patience) if ends == Some(at) => Err(too_slow(patience, cut_off)),
                                _ => {
                                    history.add(cut_off);
                                    return Err(self.deadline.ran_out(history.attempts, last));
                                }
                            }
                        }
                    },
                };
                let error = match outcome {
                    Ok(value) => {
                        call.clear();
                        if let Some(quota) = &self.quota {
                            quota.succeeded(taken);
                        }
                        let History { attempts: before, waited, cause, .. } = history;
                        // Nobody asks when the first one began.
                        let first = before.is_empty() && waited.is_none();
                        let started = if first { 0.0 } else { call.offset(begun) };
                        return Ok(Outcome { value, before, waited, cause, started });
                    }
                    Err(error) => error,
                };
                call.clear();
                let begun = (begun, call.offset(begun));
                if steps.elsewhere(&error) {
                    let error = history.take(error, begun, true);
                    if !error.detail().before_send {
                        history.explain(Some(&format!("went elsewhere after {}", error.kind())));
                        history.cause = Some(AttemptCause::Fallback);
                    }
                    call.note(&history.attempts);
                    last = Some(error);
                    continue;
                }
                let kind = error.kind();
                let error = history.take(error, begun, repeats < self.options.max_retries);
                let error = steps.exhausted(error);
                let (decision, cost) = self.next(repeats, &error, call.left());
                match decision {
                    Decision::GiveUp(why) => {
                        history.explain(why.reason());
                        return Err(error.with(|detail| detail.attempts = history.attempts));
                    }
                    Decision::Wait(wait) => {
                        if !error.detail().before_send {
                            history.explain(Some(&format!("retried after {kind}")));
                            history.cause = Some(AttemptCause::Retry);
                        }
                        call.note(&history.attempts);
                        tokio::time::sleep(wait).await;
                        history.waited = Some(history.waited.unwrap_or_default() + wait);
                        taken = cost;
                        repeats += 1;
                        last = Some(error);
                    }
                }
            }
        };
        this.scope(work).await
    }
}

/// The failure of an attempt that was given up so that another deployment can still answer in time.
fn too_slow(patience: Duration, attempts: Vec<Attempt>) -> LlmError {
    let message =
        format!("no answer within {:.1} s, all that another deployment leaves", patience.as_secs_f64());
    LlmError::new(ErrorKind::Timeout, message).with(|detail| {
        detail.phase = Some(FailurePhase::FirstByte);
        detail.attempts = attempts;
    })
}

/// What the loop repeats.
pub(crate) trait Steps<T> {
    /// Carries out one attempt.
    fn step(&mut self) -> impl Future<Output = Result<T, LlmError>>;

    /// Whether the failure has made it another one's turn, at once.
    fn elsewhere(&mut self, _: &LlmError) -> bool {
        false
    }

    /// The failure that decides what follows when there is no other one left.
    fn exhausted(&mut self, last: LlmError) -> LlmError {
        last
    }

    /// How long the next attempt may take in the time left, when that is not all of it.
    fn patience(&self, _: Option<Duration>) -> Option<Duration> {
        None
    }
}

/// One operation, again and again.
pub(crate) struct Same<F>(pub F);

impl<T, E, F, C> Steps<T> for Same<C>
where
    E: Into<LlmError>,
    F: Future<Output = Result<T, E>>,
    C: FnMut() -> F,
{
    async fn step(&mut self) -> Result<T, LlmError> {
        (self.0)().await.map_err(Into::into)
    }
}

impl From<RetryOptions> for RetryPlan {
    fn from(options: RetryOptions) -> Self {
        Self { options, ..Self::default() }
    }
}

impl From<u32> for RetryPlan {
    fn from(max_retries: u32) -> Self {
        RetryOptions::default().with_max_retries(max_retries).into()
    }
}

/// A success, and what came before it.
pub(crate) struct Outcome<T> {
    pub value: T,
    /// The attempts that failed, oldest first.
    pub before: Vec<Attempt>,
    /// How long the successful one was waited for.
    pub waited: Option<Duration>,
    /// Why the successful one was made, when others came before it.
    pub cause: Option<AttemptCause>,
    /// When it began, in seconds since the call did.
    pub started: f64,
}

/// What happened so far.
#[derive(Default)]
struct History {
    attempts: Vec<Attempt>,
    /// The wait before the attempt that comes or runs.
    waited: Option<Duration>,
    /// Why that is made.
    cause: Option<AttemptCause>,
}

impl History {
    fn add(&mut self, mut attempts: Vec<Attempt>) {
        // A failure that was never sent leaves its wait to the next attempt.
        if let Some(first) = attempts.first_mut() {
            if let Some(waited) = self.waited.take() {
                first.wait = Some(waited.as_secs_f64());
            }
            first.cause = self.cause.take().or(first.cause);
        }
        self.attempts.append(&mut attempts);
    }

    /// Moves the error's attempts here. An operation that keeps no record of its own gets one when it is `repeated`
    /// or was.
    fn take(
        &mut self,
        error: LlmError,
        (begun, started): (tokio::time::Instant, f64),
        repeated: bool,
    ) -> LlmError {
        let mut own = Vec::new();
        let error = error.with(|detail| own = std::mem::take(&mut detail.attempts));
        let detail = error.detail();
        let sent = !detail.before_send
            && !matches!(
                error.kind(),
                ErrorKind::CircuitOpen
                    | ErrorKind::NoCandidate
                    | ErrorKind::BudgetExceeded
                    | ErrorKind::Cancelled
            );
        if own.is_empty() && sent && (repeated || !self.attempts.is_empty()) {
            own.push(Attempt {
                deployment: detail.provider.clone().unwrap_or_default(),
                status: detail.status_code,
                started,
                duration: begun.elapsed().as_secs_f64(),
                error: Some(error.kind().as_str().to_owned()),
                ..Attempt::default()
            });
        }
        self.add(own);
        error
    }

    fn explain(&mut self, reason: Option<&str>) {
        if let (Some(last), Some(reason)) = (self.attempts.last_mut(), reason) {
            last.reason = Some(reason.to_owned());
        }
    }
}

/// Runs `operation`, and repeats it as long as its error says that this may help.
///
/// The error is asked whether it [may be repeated](LlmError::is_retryable) and [when](LlmError::retry_after); it is
/// never repeated sooner. It fails at once when that is later than [`RetryOptions::longest_retry_after`] or than the
/// deadline; the value stays in the error. Other waits are drawn between zero and a doubling bound. This is the loop
/// a [`Client`](crate::Client) runs its calls in; around a client's call, let only one of the two repeat
/// (`with_max_retries(0)`).
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
/// use liter_llm::{ErrorKind, LlmError, RetryOptions, RetryPlan, RetryQuota, retry_async};
///
/// #[derive(Debug)]
/// struct Busy;
///
/// impl From<Busy> for LlmError {
///     fn from(_: Busy) -> Self {
///         LlmError::new(ErrorKind::Overloaded, "busy").with(|detail| detail.retry_after = Some(0.01))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// let mut calls = 0;
/// let answer = retry_async(
///     || {
///         calls += 1;
///         let succeed = calls == 3;
///         Box::pin(async move { if succeed { Ok("well") } else { Err(Busy) } })
///     },
///     3,
/// )
/// .await?;
/// assert_eq!((answer, calls), ("well", 3));
///
/// // With options, a quota shared with other operations, and a deadline:
/// let options = RetryOptions { max_retries: 5, base: Duration::from_millis(100), ..RetryOptions::default() };
/// let plan = RetryPlan::from(options)
///     .with_quota(Arc::new(RetryQuota::new()))
///     .with_deadline(Instant::now() + Duration::from_secs(2));
/// let begun = Instant::now();
/// let failed = || -> LlmError {
///     LlmError::new(ErrorKind::RateLimited, "slow down").with(|detail| detail.retry_after = Some(30.0))
/// };
/// let error = retry_async(|| Box::pin(async { Err::<(), _>(failed()) }), plan).await.unwrap_err();
/// assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
/// assert!(begun.elapsed() < Duration::from_millis(100));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The last failure, with what was tried in `attempts`; `timeout` with phase `total` when the deadline came first.
pub async fn retry_async<'a, T, E>(
    mut operation: impl FnMut() -> BoxFuture<'a, Result<T, E>>,
    plan: impl Into<RetryPlan>,
) -> Result<T, LlmError>
where
    E: Into<LlmError>,
{
    plan.into().run(&mut Same(&mut operation)).await.map(|outcome| outcome.value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn failure(kind: ErrorKind) -> LlmError {
        LlmError::new(kind, "no").with(|detail| detail.attempts = vec![Attempt::default()])
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn waits_are_bounded_and_obey_the_provider() {
        let options = RetryOptions::default();
        let error = failure(ErrorKind::RateLimited);
        let wait = |repeats, error: &LlmError, fraction| options.decide(repeats, error, None, fraction);
        assert_eq!(wait(0, &error, 1.0), Decision::Wait(seconds(0.5)));
        assert_eq!(wait(2, &error, 0.5), Decision::Wait(seconds(1.0)));
        assert_eq!(wait(3, &error, 0.5), Decision::GiveUp(GiveUp::RetriesUsedUp));
        let asked = |seconds| error.clone().with(|detail| detail.retry_after = Some(seconds));
        assert_eq!(wait(0, &asked(2.0), 0.0), Decision::Wait(seconds(2.0)));
        assert_eq!(wait(0, &asked(2.0), 1.0), Decision::Wait(seconds(2.05)));
        assert_eq!(wait(0, &asked(0.0), 1.0), Decision::Wait(seconds(0.5)));
        let cooling = error.clone().with(|detail| detail.cooldown = Some(seconds(0.5)));
        assert_eq!(wait(0, &cooling, 0.0), Decision::Wait(seconds(0.5)));
        assert_eq!(wait(0, &cooling, 1.0), Decision::Wait(seconds(0.55)));
        assert_eq!(wait(2, &cooling, 0.75), Decision::Wait(seconds(1.5)));
        for too_long in [61.0, 1e9, 1e300, f64::INFINITY] {
            assert_eq!(wait(0, &asked(too_long), 0.0), Decision::GiveUp(GiveUp::WaitTooLong), "{too_long}");
        }
        assert_eq!(wait(0, &failure(ErrorKind::Decode), 0.0), Decision::GiveUp(GiveUp::NotRetryable));
        let left = Some(seconds(1.5));
        assert_eq!(options.decide(0, &asked(2.0), left, 0.0), Decision::GiveUp(GiveUp::NoTimeLeft));
        assert_eq!(options.decide(0, &asked(1.0), left, 0.0), Decision::Wait(seconds(1.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_keeps_the_attempts_and_the_last_error() {
        let plan =
            RetryPlan::from(RetryOptions { base: Duration::from_millis(1), ..RetryOptions::default() })
                .with_deadline(Instant::now() + Duration::from_secs(3));
        let mut calls = 0;
        let error = retry_async(
            || -> BoxFuture<'_, Result<(), LlmError>> {
                calls += 1;
                match calls {
                    1 => Box::pin(async { Err(failure(ErrorKind::Overloaded)) }),
                    _ => Box::pin(async {
                        crate::core::call::sending("second");
                        std::future::pending().await
                    }),
                }
            },
            plan,
        )
        .await
        .unwrap_err();
        let detail = error.detail();
        assert_eq!((error.kind(), detail.phase), (ErrorKind::Timeout, Some(FailurePhase::Total)));
        assert_eq!(detail.attempts.len(), 2);
        assert_eq!(detail.attempts[0].reason.as_deref(), Some("retried after overloaded"));
        assert_eq!(detail.attempts[1].deployment, "second");
        assert!(detail.attempts[1].wait.is_some() && detail.attempts[1].duration > 2.0);
        assert_eq!(detail.causes.first().map(String::as_str), Some("no"));
        assert!(std::error::Error::source(&error).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_quota_leaves_the_error_as_it_is() {
        let quota = Arc::new(RetryQuota::new());
        while quota.take(TRANSIENT_COST) {}
        let plan = RetryPlan::from(3).with_quota(Arc::clone(&quota));
        let operation =
            || -> BoxFuture<'_, Result<(), _>> { Box::pin(async { Err(failure(ErrorKind::Overloaded)) }) };
        let error = retry_async(operation, plan).await.unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(error.detail().attempts.len(), 1);
        assert_eq!(error.detail().attempts[0].reason.as_deref(), Some("retry quota used up"));
        // Throttling is cheaper: two more fit into the ten tokens left.
        let plan = RetryPlan::from(3).with_quota(Arc::clone(&quota));
        let mut calls = 0;
        let operation = || -> BoxFuture<'_, Result<(), _>> {
            calls += 1;
            Box::pin(async { Err(failure(ErrorKind::RateLimited)) })
        };
        retry_async(operation, plan).await.unwrap_err();
        assert_eq!((calls, quota.tokens()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_gives_back_what_its_last_retry_took() {
        let quota = Arc::new(RetryQuota::new());
        let mut calls = 0;
        let operation = || -> BoxFuture<'_, Result<(), _>> {
            calls += 1;
            let fail = calls < 3;
            Box::pin(async move { if fail { Err(failure(ErrorKind::Overloaded)) } else { Ok(()) } })
        };
        retry_async(operation, RetryPlan::from(3).with_quota(Arc::clone(&quota))).await.unwrap();
        assert_eq!(quota.tokens(), 500 - 14);
    }
}
