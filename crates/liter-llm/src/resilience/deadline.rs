//! The one limit over a whole call: queueing, attempts, waits and fallbacks. The retry loop holds it, so that it knows
//! what still fits. A stream is under it until its first chunk; after that the limit on silence between chunks rules,
//! so that a slow but live stream is not cut.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::error::{ErrorKind, FailurePhase, LlmError};
use crate::core::response::Attempt;

/// When a call must have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    limit: Option<Duration>,
    /// From when on, where that is known.
    began: Option<Instant>,
}

impl Deadline {
    /// From now on for `limit`.
    pub(crate) fn after(limit: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(limit), limit: Some(limit), began: Some(now) }
    }

    /// At a point in time.
    pub(crate) fn at(at: std::time::Instant) -> Self {
        let at = Instant::from_std(at);
        let now = Instant::now();
        Self { at: Some(at), limit: Some(at.saturating_duration_since(now)), began: None }
    }

    /// When the time began to run.
    pub(crate) const fn began(&self) -> Option<Instant> {
        self.began
    }

    pub(crate) const fn when(&self) -> Option<Instant> {
        self.at
    }

    /// The error of a call whose time is up: what was tried is in `attempts`, the last failure is the cause.
    pub(crate) fn ran_out(&self, attempts: Vec<Attempt>, last: Option<LlmError>) -> LlmError {
        let message = match self.limit {
            Some(limit) => {
                format!("no answer within the limit of {} s for the whole call", limit.as_secs_f64())
            }
            None => "no answer within the limit for the whole call".to_owned(),
        };
        let error = LlmError::new(ErrorKind::Timeout, message).with(|detail| {
            detail.phase = Some(FailurePhase::Total);
            detail.attempts = attempts;
            if let Some(last) = &last {
                detail.provider.clone_from(&last.detail().provider);
                detail.model.clone_from(&last.detail().model);
            }
            // The limit is the caller's own; whether there is more time is for the caller to say.
            detail.retryable = Some(false);
        });
        match last {
            Some(last) => error.with_source(last),
            None => error,
        }
    }
}
