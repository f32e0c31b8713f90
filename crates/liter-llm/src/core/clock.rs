//! The time the layers go by: it never jumps, and a test can turn it.

use std::time::Duration;

use tokio::time::Instant;

/// Tells how much time has passed since a moment of its own choosing.
pub trait Clock: Send + Sync {
    /// The time now; never earlier than what it told before.
    fn now(&self) -> Duration;
}

/// The machine's monotonic clock; Tokio's own where a test has paused that.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock(Instant);

impl Default for MonotonicClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
