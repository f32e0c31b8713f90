//! The layer around a deployment that asks its breaker, and tells it what came of each call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;

use super::breaker::{Breaker, Outcome, Permit, Refusal};
use super::breakers::{Breakers, Scope};
use crate::core::around::{Answering, around};
use crate::core::call;
use crate::core::chunk::LlmChunk;
use crate::core::clock::Clock;
use crate::core::error::{ErrorKind, FailurePhase, LlmError};
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

/// The longest time a deployment may leave a request without a byte when the caller's time runs out meanwhile. From
/// then on the silence is its failure: it would otherwise never show where all callers have less time than the limit
/// for the first byte.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// Whether a header holds a key. A call with one of its own is made with another key, and has another breaker.
#[must_use]
pub fn is_key(header: &str) -> bool {
    ["authorization", "api-key", "x-api-key"].iter().any(|name| name.eq_ignore_ascii_case(header))
}

/// What an error says of the deployment; `None` when it says nothing: the caller's mistake, the key's, the caller's own
/// limit, or a call that was never sent.
#[must_use]
pub fn outcome_of(error: &LlmError) -> Option<Outcome> {
    let detail = error.detail();
    if detail.before_send {
        return None;
    }
    match error.kind() {
        ErrorKind::RateLimited => Some(Outcome::Limited(error.retry_after())),
        ErrorKind::Timeout if detail.phase == Some(FailurePhase::Total) => None,
        // "Not implemented" and "HTTP version not supported" speak of the request.
        ErrorKind::ProviderError if matches!(detail.status_code, Some(501 | 505)) => None,
        ErrorKind::Timeout
        | ErrorKind::Connection
        | ErrorKind::Overloaded
        | ErrorKind::ProviderError
        | ErrorKind::StreamInterrupted
        | ErrorKind::Decode => Some(Outcome::Failure),
        _ => None,
    }
}

/// Keeps calls away from a deployment that fails or cools down.
pub struct BreakerLayer {
    inner: Arc<dyn LlmProvider>,
    breakers: Arc<Breakers>,
    model: String,
    scope: Scope,
    own: Arc<Breaker>,
    silence: Duration,
}

impl BreakerLayer {
    /// Wraps the provider of `scope`, whose own model is `model`.
    #[must_use]
    pub fn new(inner: Arc<dyn LlmProvider>, breakers: Arc<Breakers>, scope: Scope, model: String) -> Self {
        let own = breakers.of(&scope);
        Self { inner, breakers, model, scope, own, silence: LONGEST_SILENCE }
    }

    /// With a limit for the first byte, where that is shorter than [`LONGEST_SILENCE`].
    #[must_use]
    pub fn with_first_byte_limit(mut self, limit: Duration) -> Self {
        self.silence = limit.min(LONGEST_SILENCE);
        self
    }

    /// The breaker a request belongs to.
    fn breaker(&self, request: &LlmRequest) -> Arc<Breaker> {
        let model = request.model.as_ref().filter(|model| **model != self.model);
        let mut keys = request
            .headers
            .iter()
            .filter(|(name, _)| is_key(name))
            .map(|(_, value)| value.as_bytes())
            .peekable();
        if model.is_none() && keys.peek().is_none() {
            return Arc::clone(&self.own);
        }
        let key = if keys.peek().is_some() { self.breakers.mark(keys) } else { self.scope.key };
        self.breakers.of(&Scope { key, model: model.cloned(), ..self.scope.clone() })
    }

    fn refused(&self, request: Option<&LlmRequest>, refusal: Refusal) -> LlmError {
        let name = &self.scope.deployment;
        let (kind, wait, why) = match refusal {
            Refusal::Open(wait) => {
                (ErrorKind::CircuitOpen, wait, format!("the circuit of `{name}` is open after failures"))
            }
            Refusal::Cooling(wait) => {
                (ErrorKind::RateLimited, wait, format!("`{name}` cools down after a 429"))
            }
        };
        LlmError::new(kind, format!("{why}: nothing was sent")).with(|detail| {
            detail.retry_after = Some(wait.as_secs_f64());
            detail.before_send = true;
            detail.provider = Some(self.inner.name().to_owned());
            let model = request.and_then(|request| request.model.as_ref()).unwrap_or(&self.model);
            detail.model = Some(model.clone()).filter(|model| !model.is_empty());
        })
    }

    /// Whether a call would pass now.
    ///
    /// # Errors
    /// `circuit_open`, or `rate_limited` while cooling, with `retry_after`.
    pub fn look(&self, request: Option<&LlmRequest>) -> Result<(), LlmError> {
        let now = self.breakers.clock().now();
        request
            .map_or_else(|| Arc::clone(&self.own), |request| self.breaker(request))
            .look(now)
            .map_err(|refusal| self.refused(request, refusal))
    }

    fn admit(&self, request: Option<&LlmRequest>) -> Result<Waiting<'_>, LlmError> {
        let now = self.breakers.clock().now();
        request
            .map_or_else(|| Arc::clone(&self.own), |request| self.breaker(request))
            .admit(now)
            .map(|permit| Waiting { layer: self, permit: Some(permit) })
            .map_err(|refusal| self.refused(request, refusal))
    }
}

/// A call whose answer is waited for.
struct Waiting<'a> {
    layer: &'a BreakerLayer,
    permit: Option<Permit>,
}

impl Waiting<'_> {
    /// Ends the call with its outcome. The error of a `429` without a time learns of the pause, so that a repeat does
    /// not come before its end.
    fn note<T>(&mut self, outcome: &mut Result<T, LlmError>) {
        let counted = match outcome {
            Ok(_) => Some(Outcome::Success),
            Err(error) => outcome_of(error),
        };
        if let Some(permit) = self.permit.take()
            && let Some(counted) = counted
            && let Some(pause) = permit.end(self.layer.breakers.clock().now(), counted)
            && let Err(error) = outcome
        {
            let known = std::mem::replace(error, LlmError::Timeout);
            *error = known.with(|detail| detail.cooldown = Some(pause));
        }
    }

    /// [`note`](Self::note), for an outcome of one's own.
    fn end<T>(mut self, mut outcome: Result<T, LlmError>) -> Result<T, LlmError> {
        self.note(&mut outcome);
        outcome
    }
}

impl Drop for Waiting<'_> {
    /// The call was given up. That says something of the deployment when the whole call's time ran out while it kept
    /// silent, and it had time enough.
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && call::ran_out_in_silence(self.layer.silence)
        {
            permit.end(self.layer.breakers.clock().now(), Outcome::Failure);
        }
    }
}

#[async_trait]
impl LlmProvider for BreakerLayer {
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
        let begin = move || {
            let waiting = self.admit(Some(&request))?;
            Ok((self.inner.generate(request), waiting))
        };
        around(begin, Waiting::note)
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let mut waiting = self.admit(Some(&request))?;
        match self.inner.stream(request).await {
            Ok(chunks) => {
                let clock = Arc::clone(self.breakers.clock());
                Ok(Box::pin(Watched { chunks, permit: waiting.permit.take(), clock }))
            }
            Err(error) => waiting.end(Err(error)),
        }
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        let waiting = self.admit(None)?;
        let outcome = self.inner.operate(operation).await;
        waiting.end(outcome)
    }
}

/// A stream that counts when it ends: well, or broken. Dropped before, it counts for nothing. A probe has succeeded with
/// the first piece of the answer: else one long stream would keep all other calls away.
struct Watched {
    chunks: ChunkStream,
    permit: Option<Permit>,
    clock: Arc<dyn Clock>,
}

impl Stream for Watched {
    type Item = Result<LlmChunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(self.chunks.as_mut().poll_next(context));
        let outcome = match &item {
            Some(Ok(chunk)) => {
                if let Some(permit) = &mut self.permit
                    && permit.is_probe()
                    && chunk.has_content()
                {
                    permit.answer_begun();
                }
                return Poll::Ready(item);
            }
            Some(Err(error)) => outcome_of(error),
            None => Some(Outcome::Success),
        };
        if let Some(permit) = self.permit.take()
            && let Some(outcome) = outcome
        {
            permit.end(self.clock.now(), outcome);
        }
        Poll::Ready(item)
    }
}
