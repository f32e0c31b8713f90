//! Metrics as text, for every language: of this process, also where it was forked from one that had some.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use liter_llm::Client;
use liter_llm::telemetry::Metrics;

use crate::lock;

/// Metrics of this process. A forked child begins at zero; what it counts is its own.
#[derive(Default)]
pub struct ProcessMetrics {
    /// The process they belong to, and what it counted.
    present: Mutex<Option<(u32, Metrics)>>,
    closed: AtomicBool,
}

impl ProcessMetrics {
    /// Metrics of no client yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, look: impl FnOnce(&Metrics) -> T) -> T {
        let pid = std::process::id();
        let mut present = lock(&self.present);
        if present.as_ref().is_some_and(|(of, _)| *of != pid) {
            // Threads that the child does not have may have held locks inside: it is left as it is.
            std::mem::forget(present.take());
        }
        look(&present.get_or_insert_with(|| (pid, Metrics::new())).1)
    }

    /// Counts the client's calls from now on. Not after [`close`](Self::close).
    pub fn observe(&self, client: &Client) {
        if !self.is_closed() {
            self.with(|metrics| metrics.attach(client.telemetry()));
        }
    }

    /// The text and its content type. `plain`: Prometheus' own form in place of OpenMetrics.
    #[must_use]
    pub fn text(&self, plain: bool) -> (&'static str, String) {
        let accept = if plain { None } else { Some("application/openmetrics-text") };
        self.answer(accept)
    }

    /// The text and its content type, as an `Accept` header asks for it.
    #[must_use]
    pub fn answer(&self, accept: Option<&str>) -> (&'static str, String) {
        self.with(|metrics| metrics.answer(accept))
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Counts no more calls; what was counted can still be read.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.with(Metrics::detach_all);
    }
}
