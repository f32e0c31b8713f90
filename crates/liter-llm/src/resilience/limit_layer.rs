//! The layer that makes calls wait in line for a deployment, within their deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;

use super::breaker_layer::BreakerLayer;
use super::limit::{Limiter, Place, Turn, Used};
use crate::core::call::time_left;
use crate::core::chunk::LlmChunk;
use crate::core::clock::Clock;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::estimate;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, LlmResponse, Timing, Usage};

/// Lets calls through to a deployment as its limits allow, first come, first served.
///
/// The breaker is asked before a call queues, and again (by its own layer) when its turn has come.
pub struct LimitLayer {
    inner: Arc<BreakerLayer>,
    limiter: Arc<Limiter>,
    clock: Arc<dyn Clock>,
    counts_tokens: bool,
}

/// What a failed call has used.
fn used_of(error: &LlmError) -> Used {
    if error.was_never_sent() { Used::Nothing } else { Used::Unknown }
}

const fn tokens_of(usage: &Usage) -> u64 {
    usage.input_tokens.saturating_add(usage.output_tokens)
}

impl LimitLayer {
    /// Wraps a deployment.
    #[must_use]
    pub fn new(inner: Arc<BreakerLayer>, limiter: Arc<Limiter>, clock: Arc<dyn Clock>) -> Self {
        let counts_tokens = limiter.tokens_left(clock.now()).is_some();
        Self { inner, limiter, clock, counts_tokens }
    }

    /// Waits for a place; gives the seconds waited when there was a line.
    async fn place(
        &self,
        request: Option<&LlmRequest>,
        tokens: u64,
    ) -> Result<(Place, Option<f64>), LlmError> {
        self.inner.look(request)?;
        let begun = self.clock.now();
        let outlook = self.limiter.outlook(begun, tokens);
        if let Some(left) = time_left()
            && outlook > left
        {
            return Err(self.too_long(request, outlook, left));
        }
        let (place, queued) = Turn::new(Arc::clone(&self.limiter), Arc::clone(&self.clock), tokens).await;
        Ok((place, queued.then(|| self.clock.now().saturating_sub(begun).as_secs_f64())))
    }

    fn too_long(&self, request: Option<&LlmRequest>, outlook: Duration, left: Duration) -> LlmError {
        let message = format!(
            "the wait for `rpm` or `tpm` would be {:.1} s, longer than the {:.1} s left: nothing was sent",
            outlook.as_secs_f64(),
            left.as_secs_f64()
        );
        LlmError::new(ErrorKind::RateLimited, message).with(|detail| {
            detail.retry_after = Some(outlook.as_secs_f64());
            detail.before_send = true;
            detail.provider = Some(self.inner.name().to_owned());
            detail.model = request.and_then(|request| request.model.clone());
        })
    }

    fn estimate(&self, request: &LlmRequest) -> u64 {
        if self.counts_tokens { estimate::tokens(request) } else { 0 }
    }
}

/// Tells the first request of an attempt how long it was waited for in line.
fn queued(attempts: &mut [Attempt], waited: Option<f64>) {
    if let Some(first) = attempts.first_mut() {
        first.queued = waited;
    }
}

#[async_trait]
impl LlmProvider for LimitLayer {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let (mut place, waited) = self.place(Some(&request), self.estimate(&request)).await?;
        let mut outcome = self.inner.generate(request).await;
        match &mut outcome {
            Ok(answer) => {
                place.note(
                    answer.usage.as_ref().map_or(Used::Unknown, |usage| Used::Tokens(tokens_of(usage))),
                );
                if waited.is_some() {
                    answer.timing.get_or_insert_default().queued = waited;
                    queued(&mut answer.attempts, waited);
                }
            }
            Err(error) => place.note(used_of(error)),
        }
        match waited {
            None => outcome,
            Some(_) => outcome.map_err(|error| error.with(|detail| queued(&mut detail.attempts, waited))),
        }
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let (mut place, waited) = self.place(Some(&request), self.estimate(&request)).await?;
        match self.inner.stream(request).await {
            Ok(chunks) => {
                Ok(Box::pin(Held { chunks, place: Some(place), waited, tokens: None, finished: false }))
            }
            Err(error) => {
                place.note(used_of(&error));
                Err(error.with(|detail| queued(&mut detail.attempts, waited)))
            }
        }
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        let tokens = if self.counts_tokens { estimate::of_text(operation.body.get().len()) } else { 0 };
        let (mut place, _) = self.place(None, tokens).await?;
        let outcome = self.inner.operate(operation).await;
        if let Err(error) = &outcome {
            place.note(used_of(error));
        }
        outcome
    }
}

/// A stream that keeps its place until it ends or is dropped.
struct Held {
    chunks: ChunkStream,
    place: Option<Place>,
    waited: Option<f64>,
    /// What the answer has told of its usage; some tell the input at the beginning and the whole at the end.
    tokens: Option<u64>,
    /// It has told why it ended; what it tells of its usage from then on is the whole.
    finished: bool,
}

impl Stream for Held {
    type Item = Result<LlmChunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut item = std::task::ready!(self.chunks.as_mut().poll_next(context));
        match &mut item {
            Some(Ok(chunk)) => {
                self.finished |= chunk.finish_reason.is_some();
                if let Some(usage) = &chunk.usage {
                    let tokens = tokens_of(usage);
                    let used = if self.finished { Used::Tokens(tokens) } else { Used::AtLeast(tokens) };
                    self.tokens = Some(tokens);
                    if let Some(place) = &mut self.place {
                        place.note(used);
                    }
                }
                // Later times of a stream replace earlier ones as a whole.
                if self.waited.is_some()
                    && let Some(timing) = chunk.facts.as_mut().and_then(|facts| facts.timing.as_mut())
                {
                    *timing = Timing { queued: self.waited, ..*timing };
                }
                if self.waited.is_some()
                    && let Some(facts) = chunk.facts.as_mut()
                {
                    queued(&mut facts.attempts, self.waited);
                }
            }
            Some(Err(_)) => self.place = None,
            None => {
                if let (Some(mut place), Some(tokens)) = (self.place.take(), self.tokens) {
                    place.note(Used::Tokens(tokens));
                }
            }
        }
        Poll::Ready(item)
    }
}
