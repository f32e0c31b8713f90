//! The layer around a deployment that asks its breaker, and tells it what came of each call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::Stream;

use super::breaker::{Breaker, Outcome, Permit, Refusal};
use super::breakers::{Breakers, Scope};
use super::clock::Clock;
use crate::core::chunk::LlmChunk;
use crate::core::error::{ErrorKind, FailurePhase, LlmError};
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

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
}

impl BreakerLayer {
    /// Wraps the provider of `scope`, whose own model is `model`.
    #[must_use]
    pub fn new(inner: Arc<dyn LlmProvider>, breakers: Arc<Breakers>, scope: Scope, model: String) -> Self {
        let own = breakers.of(&scope);
        Self { inner, breakers, model, scope, own }
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

    fn admit(&self, request: Option<&LlmRequest>) -> Result<Permit, LlmError> {
        let now = self.breakers.clock().now();
        request
            .map_or_else(|| Arc::clone(&self.own), |request| self.breaker(request))
            .admit(now)
            .map_err(|refusal| self.refused(request, refusal))
    }

    fn end<T>(&self, permit: Permit, outcome: &Result<T, LlmError>) {
        let outcome = match outcome {
            Ok(_) => Some(Outcome::Success),
            Err(error) => outcome_of(error),
        };
        if let Some(outcome) = outcome {
            permit.end(self.breakers.clock().now(), outcome);
        }
    }
}

#[async_trait]
impl LlmProvider for BreakerLayer {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let permit = self.admit(Some(&request))?;
        let outcome = self.inner.generate(request).await;
        self.end(permit, &outcome);
        outcome
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let permit = self.admit(Some(&request))?;
        match self.inner.stream(request).await {
            Ok(chunks) => {
                let clock = Arc::clone(self.breakers.clock());
                Ok(Box::pin(Watched { chunks, permit: Some(permit), clock }))
            }
            Err(error) => {
                let outcome = Err(error);
                self.end(permit, &outcome);
                outcome
            }
        }
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        let permit = self.admit(None)?;
        let outcome = self.inner.operate(operation).await;
        self.end(permit, &outcome);
        outcome
    }
}

/// A stream that counts when it ends: well, or broken. Dropped before, it counts for nothing.
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
            Some(Ok(_)) => return Poll::Ready(item),
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
