//! Trying again: the one loop that repeats a call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use crate::core::chunk::{Facts, LlmChunk};
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, LlmResponse};

/// How often and how patiently a call is repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryOptions {
    /// Repeats after the first try; 3.
    pub max_retries: u32,
    /// The upper bound of the first wait; doubles with each repeat; 0.5 s.
    pub base: Duration,
    /// The upper bound of every wait; 8 s.
    pub cap: Duration,
    /// The longest `Retry-After` that is waited for; 60 s. A longer one fails the call at once.
    pub longest_retry_after: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(8),
            longest_retry_after: Duration::from_secs(60),
        }
    }
}

impl RetryOptions {
    /// How long to wait before repeat number `repeat` (from 0) after `error`; `None` when it must not be repeated.
    ///
    /// The wait is drawn between zero and the bound (full jitter), on top of what the provider asked for.
    #[must_use]
    pub fn wait(&self, repeat: u32, error: &LlmError, fraction: f64) -> Option<Duration> {
        if repeat >= self.max_retries || !error.is_retryable() {
            return None;
        }
        match error.retry_after() {
            Some(asked) if asked > self.longest_retry_after => None,
            // A little more than asked for, so that clients told the same do not come back in the same instant.
            Some(asked) => Some(asked + self.base.mul_f64(0.1 * fraction)),
            None => {
                let bound = self.base.saturating_mul(2_u32.saturating_pow(repeat)).min(self.cap);
                Some(bound.mul_f64(fraction))
            }
        }
    }
}

/// A number in 0..1 from the operating system's entropy.
fn random_fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    // Without entropy the longest wait is the safe one.
    if getrandom::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// Repeats calls that failed in a way that may pass.
pub struct Attempts {
    inner: Arc<dyn LlmProvider>,
    options: RetryOptions,
}

impl Attempts {
    /// Wraps a provider.
    #[must_use]
    pub fn new(inner: Arc<dyn LlmProvider>, options: RetryOptions) -> Self {
        Self { inner, options }
    }

    async fn repeat<'a, T>(
        &'a self,
        request: &LlmRequest,
        call: impl Fn(&'a dyn LlmProvider, LlmRequest) -> BoxFuture<'a, Result<T, LlmError>>,
    ) -> Result<(T, Vec<Attempt>), LlmError> {
        let mut before: Vec<Attempt> = Vec::new();
        let mut waited: Option<Duration> = None;
        for repeat in 0_u32.. {
            match call(&*self.inner, request.clone()).await {
                Ok(answer) => return Ok((answer, mark(before, waited))),
                Err(error) => {
                    let mut attempts = error.detail().attempts.clone();
                    if let (Some(first), Some(waited)) = (attempts.first_mut(), waited) {
                        first.wait = Some(waited.as_secs_f64());
                    }
                    before.append(&mut attempts);
                    let Some(wait) = self.options.wait(repeat, &error, random_fraction()) else {
                        return Err(error.with(|detail| detail.attempts = before));
                    };
                    if let Some(last) = before.last_mut() {
                        last.reason = Some(format!("retried after {}", error.kind()));
                    }
                    tokio::time::sleep(wait).await;
                    waited = Some(wait);
                }
            }
        }
        Err(LlmError::Timeout)
    }
}

/// The earlier attempts, followed by a mark of how long the successful one was waited for.
fn mark(mut before: Vec<Attempt>, waited: Option<Duration>) -> Vec<Attempt> {
    if let Some(waited) = waited {
        before.push(Attempt { wait: Some(waited.as_secs_f64()), ..Attempt::default() });
    }
    before
}

/// Puts the earlier attempts before those of the answer.
fn join(mut before: Vec<Attempt>, own: &mut Vec<Attempt>) {
    let Some(marker) = before.pop() else { return };
    if let Some(first) = own.first_mut() {
        first.wait = marker.wait;
    }
    before.append(own);
    *own = before;
}

#[async_trait]
impl LlmProvider for Attempts {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let (mut answer, before) = self.repeat(&request, |inner, request| inner.generate(request)).await?;
        join(before, &mut answer.attempts);
        Ok(answer)
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        // Only failures before the stream is handed over are repeated; a delivered chunk is never replayed.
        let (stream, before) = self.repeat(&request, |inner, request| inner.stream(request)).await?;
        if before.is_empty() {
            return Ok(stream);
        }
        let mut before = Some(before);
        Ok(Box::pin(stream.map(move |item| {
            item.map(|mut chunk: LlmChunk| {
                if let Some(Facts { attempts, .. }) = chunk.facts.as_deref_mut()
                    && !attempts.is_empty()
                    && let Some(before) = before.take()
                {
                    join(before, attempts);
                }
                chunk
            })
        })))
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        self.inner.operate(operation).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;
    use crate::core::error::ErrorKind;

    struct Script(Mutex<Vec<Result<LlmResponse, LlmError>>>);

    #[async_trait]
    impl LlmProvider for Script {
        fn name(&self) -> &str {
            "script"
        }

        async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
            self.0.lock().unwrap().remove(0)
        }
    }

    fn failure(kind: ErrorKind) -> LlmError {
        LlmError::new(kind, "no").with(|detail| detail.attempts = vec![Attempt::default()])
    }

    fn layer(answers: Vec<Result<LlmResponse, LlmError>>) -> Attempts {
        let options = RetryOptions { base: Duration::from_millis(1), ..RetryOptions::default() };
        Attempts::new(Arc::new(Script(Mutex::new(answers))), options)
    }

    #[tokio::test]
    async fn transient_failures_are_repeated_and_recorded() {
        let ok = LlmResponse { attempts: vec![Attempt::default()], ..LlmResponse::default() };
        let layer =
            layer(vec![Err(failure(ErrorKind::Overloaded)), Err(failure(ErrorKind::Connection)), Ok(ok)]);
        let answer = layer.generate(LlmRequest::new()).await.unwrap();
        assert_eq!(answer.attempts.len(), 3);
        assert!(answer.attempts[0].wait.is_none() && answer.attempts[2].wait.is_some());
    }

    #[tokio::test]
    async fn the_callers_mistakes_are_not() {
        let error = layer(vec![Err(failure(ErrorKind::InvalidRequest))])
            .generate(LlmRequest::new())
            .await
            .unwrap_err();
        assert_eq!(error.detail().attempts.len(), 1);
    }

    #[test]
    fn waits_are_bounded_and_obey_the_provider() {
        let options = RetryOptions::default();
        let error = failure(ErrorKind::RateLimited);
        assert_eq!(options.wait(0, &error, 1.0), Some(Duration::from_millis(500)));
        assert_eq!(options.wait(2, &error, 0.5), Some(Duration::from_secs(1)));
        assert_eq!(options.wait(3, &error, 0.5), None);
        let asked = |seconds| error.clone().with(|detail| detail.retry_after = Some(seconds));
        assert!(options.wait(0, &asked(2.0), 0.0).unwrap() >= Duration::from_secs(2));
        assert_eq!(options.wait(0, &asked(61.0), 0.0), None);
    }
}
