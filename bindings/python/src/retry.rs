//! The engine's decision on a repeat, for operations that run in Python.

use std::time::Duration;

use liter_llm::resilience::retry::Decision;
use liter_llm::{ErrorKind, LlmError, RetryOptions};

/// Seconds as a duration: what is negative or no number is none, what is too long the longest.
fn duration(seconds: f64) -> Duration {
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) } else { Duration::ZERO }
}

/// The seconds to wait; `None` when the failure is the outcome. `error`: whether it may be repeated, and when;
/// `options`: repeats, base, cap, longest `retry_after`.
pub fn wait(
    repeats: u32,
    error: (bool, Option<f64>),
    left: Option<f64>,
    options: (u32, f64, f64, f64),
) -> Option<f64> {
    let failure = LlmError::new(ErrorKind::ProviderError, "").with(|detail| {
        detail.retryable = Some(error.0);
        detail.retry_after = error.1;
    });
    let options = RetryOptions {
        max_retries: options.0,
        base: duration(options.1),
        cap: duration(options.2),
        longest_retry_after: duration(options.3),
    };
    match options.next(repeats, &failure, left.map(duration)) {
        Decision::Wait(wait) => Some(wait.as_secs_f64()),
        Decision::GiveUp(_) => None,
    }
}
