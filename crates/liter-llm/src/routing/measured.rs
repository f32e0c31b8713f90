//! The layer around a deployment that keeps its statistics.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};

use super::stats::Stats;
use crate::core::around::{Answering, around};
use crate::core::call::{elapsed, time_left};
use crate::core::chunk::LlmChunk;
use crate::core::clock::Clock;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::estimate;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, LlmResponse};

/// Whether a failure speaks against the deployment. A `429` does not: its cooldown says for how long.
#[must_use]
pub fn is_fault(error: &LlmError) -> bool {
    let detail = error.detail();
    !detail.before_send
        && match error.kind() {
            ErrorKind::ProviderError => !matches!(detail.status_code, Some(501 | 505)),
            ErrorKind::Connection
            | ErrorKind::Timeout
            | ErrorKind::Overloaded
            | ErrorKind::StreamInterrupted
            | ErrorKind::Decode
            | ErrorKind::Authentication
            | ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::QuotaExhausted => true,
            _ => false,
        }
}

/// A deployment whose calls are counted and timed.
pub struct Measured {
    inner: Arc<dyn LlmProvider>,
    name: Arc<str>,
    stats: Arc<Stats>,
    clock: Arc<dyn Clock>,
    /// Whether there are other deployments: only then somebody asks for its silence and the length of its answers.
    beside_others: bool,
}

impl Measured {
    /// Wraps the deployment of this name. `beside_others`: whether there are more for the same calls.
    #[must_use]
    pub fn new(
        inner: Arc<dyn LlmProvider>,
        name: Arc<str>,
        stats: Arc<Stats>,
        clock: Arc<dyn Clock>,
        beside_others: bool,
    ) -> Self {
        Self { inner, name, stats, clock, beside_others }
    }

    fn begin(&self, streamed: bool) -> Going {
        let begun = self.clock.now();
        self.stats.begun();
        Going {
            begun,
            round: self.beside_others.then(|| self.stats.silence.sent(begun)),
            stats: Arc::clone(&self.stats),
            clock: Arc::clone(&self.clock),
            streamed,
            told: false,
        }
    }
}

/// A call that has not ended. Dropped before its outcome is known, it was given up.
struct Going {
    stats: Arc<Stats>,
    clock: Arc<dyn Clock>,
    begun: Duration,
    /// What the silence is to be told with its end; `None` where nobody asks for it.
    round: Option<u32>,
    streamed: bool,
    told: bool,
}

impl Going {
    /// Tells the outcome; gives the time it took.
    fn note<T>(&mut self, outcome: &Result<T, LlmError>) -> Duration {
        self.told = true;
        let now = self.clock.now();
        let took = now.saturating_sub(self.begun);
        if let Some(round) = self.round {
            self.stats.silence.heard(now, round);
        }
        match outcome {
            Ok(_) => self.stats.answered(now, took, self.streamed),
            Err(error) if is_fault(error) => self.stats.failed(now),
            Err(_) => {}
        }
        took
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.stats.ended();
        if !self.told {
            if let Some(round) = self.round {
                self.stats.silence.gone(round);
            }
            let now = self.clock.now();
            let time_up = time_left().is_some_and(|left| left.is_zero());
            self.stats.given_up(now, now.saturating_sub(self.begun), self.streamed, time_up);
        }
    }
}

#[async_trait]
impl LlmProvider for Measured {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn generate<'life0, 'async_trait>(
        &'life0 self,
        request: LlmRequest,
    ) -> Answering<'async_trait, LlmResponse>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let bound = if self.beside_others { estimate::output_tokens(&request) } else { 0 };
        let begin = move || {
            let going = self.begin(false);
            Ok((self.inner.generate(request), going))
        };
        around(begin, move |going: &mut Going, outcome| {
            let took = going.note(outcome);
            if let Some(usage) = outcome.as_ref().ok().and_then(|answer| answer.usage.as_ref())
                && self.beside_others
            {
                going.stats.length.wrote(usage.output_tokens, bound);
            }
            if let Ok(answer) = outcome
                && answer.attempts.is_empty()
            {
                // A provider of one's own keeps no record.
                let duration = took.as_secs_f64();
                let deployment = self.name.as_ref().to_owned();
                let started = (elapsed() - duration).max(0.0);
                answer.attempts.push(Attempt { deployment, started, duration, ..Attempt::default() });
            }
        })
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let mut going = self.begin(true);
        let bound = estimate::output_tokens(&request);
        // The first chunk is waited for here: until then a failure can go elsewhere, also one of a provider whose
        // streams begin before they have anything to say.
        let begun = async {
            let mut stream = self.inner.stream(request).await?;
            let first = stream.next().await.transpose()?;
            Ok((first, stream))
        };
        let outcome = begun.await;
        going.note(&outcome);
        let (first, inner) = outcome?;
        // One that ended is not asked again.
        let inner = if first.is_some() { inner } else { Box::pin(futures_util::stream::empty()) };
        Ok(Box::pin(Watched { first, inner, going, bound, written: 0 }))
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        self.inner.operate(operation).await
    }
}

/// A stream whose break is noted.
struct Watched {
    first: Option<LlmChunk>,
    inner: ChunkStream,
    going: Going,
    /// The tokens that were expected at most, and those that its usage told of.
    bound: u64,
    written: u64,
}

impl Stream for Watched {
    type Item = Result<LlmChunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let polled = self.inner.as_mut().poll_next(context);
        if let Poll::Ready(Some(Ok(LlmChunk { usage: Some(usage), .. }))) = &polled
            && usage.output_tokens > self.written
        {
            self.written = usage.output_tokens;
        }
        if let Poll::Ready(None) = &polled {
            self.going.stats.length.wrote(self.written, self.bound);
            self.written = 0;
        }
        if let Poll::Ready(Some(Err(error))) = &polled
            && is_fault(error)
        {
            self.going.stats.failed(self.going.clock.now());
        }
        polled
    }
}
