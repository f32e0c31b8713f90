//! The one limit over a whole call: queueing, attempts and waits. A stream is under it until its first chunk; after
//! that the limit on silence between chunks rules, so that a slow but live stream is not cut.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::core::error::{ErrorKind, FailurePhase, LlmError};
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

/// Ends a call that takes too long.
pub struct Deadline {
    inner: Arc<dyn LlmProvider>,
    limit: Duration,
}

impl Deadline {
    /// Wraps a provider; a request's own `timeout` beats `limit`.
    #[must_use]
    pub fn new(inner: Arc<dyn LlmProvider>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn within<T>(
        &self,
        request: &LlmRequest,
        call: impl Future<Output = Result<T, LlmError>>,
    ) -> Result<T, LlmError> {
        let limit = match request.timeout {
            Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(self.limit),
            None => self.limit,
        };
        match tokio::time::timeout(limit, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LlmError::new(
                ErrorKind::Timeout,
                format!("no answer within the limit of {} s for the whole call", limit.as_secs_f64()),
            )
            .with(|detail| {
                detail.phase = Some(FailurePhase::Total);
                detail.provider = Some(self.inner.name().to_owned());
                detail.model.clone_from(&request.model);
                // The caller's time is up: another try would be under the same limit.
                detail.retryable = Some(true);
            })),
        }
    }
}

#[async_trait]
impl LlmProvider for Deadline {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        self.within(&request, self.inner.generate(request.clone())).await
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        self.within(&request, self.inner.stream(request.clone())).await
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        self.inner.operate(operation).await
    }
}
