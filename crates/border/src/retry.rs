//! The engine's decision on a repeat, for operations that run in another language.

use std::time::Duration;

use liter_llm::resilience::retry::Decision;
use liter_llm::{ErrorKind, LlmError, RetryOptions};

/// What the decision goes by. Times are seconds.
#[derive(Debug, Clone, Copy)]
pub struct RetryFacts {
    /// Repeats made already.
    pub repeats: u32,
    /// Whether the failure says that it may be repeated.
    pub retryable: bool,
    /// When it may be, if the failure says so.
    pub retry_after: Option<f64>,
    /// What is left of the operation's time, where it is limited.
    pub left: Option<f64>,
    /// The most repeats.
    pub max_retries: u32,
    /// The bound of the first wait.
    pub base: f64,
    /// The bound of every wait.
    pub cap: f64,
    /// The longest `retry_after` that is waited for.
    pub longest_retry_after: f64,
}

/// Seconds as a duration: what is negative or no number is none, what is too long the longest.
fn duration(seconds: f64) -> Duration {
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) } else { Duration::ZERO }
}

/// The seconds to wait before the operation is repeated; `None` when its failure is the outcome.
#[must_use]
pub fn retry_wait(facts: &RetryFacts) -> Option<f64> {
    let failure = LlmError::new(ErrorKind::ProviderError, "").with(|detail| {
        detail.retryable = Some(facts.retryable);
        detail.retry_after = facts.retry_after;
    });
    let options = RetryOptions {
        max_retries: facts.max_retries,
        base: duration(facts.base),
        cap: duration(facts.cap),
        longest_retry_after: duration(facts.longest_retry_after),
    };
    match options.next(facts.repeats, &failure, facts.left.map(duration)) {
        Decision::Wait(wait) => Some(wait.as_secs_f64()),
        Decision::GiveUp(_) => None,
    }
}
