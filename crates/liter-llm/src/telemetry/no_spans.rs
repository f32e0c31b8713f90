//! What stands for spans where the feature `tracing` is off: nothing.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Places, Telemetry};
use crate::core::notes::Notes;
use crate::core::notices::Notice;

/// No span.
#[derive(Clone)]
pub(super) enum Span {}

impl Span {
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        work()
    }
}

/// What of a call its span would say.
#[allow(dead_code, reason = "nobody reads it")]
pub(super) struct Asked<'a> {
    pub operation: &'a str,
    pub model: &'a str,
    pub streamed: bool,
    pub prompt_len: usize,
}

pub(super) const fn wanted() -> bool {
    false
}

pub(super) const fn begin(_: &Notes, _: &Arc<Places>, _: &Asked<'_>) -> Option<Span> {
    None
}

pub(super) const fn current() -> Option<Span> {
    None
}

pub(super) fn inside<T>(_: Option<Span>, work: impl FnOnce() -> T) -> T {
    work()
}

pub(super) fn within<'a, F: Future + Send + 'a>(_: Option<Span>, work: F) -> BoxFuture<'a, F::Output> {
    Box::pin(work)
}

pub(super) const fn propagate(_: &Telemetry, _: &Span, _: &mut Vec<(String, String)>) {}

pub(super) const fn event(_: &Notice) {}

pub(super) const fn panicked(_: &'static str) {}
