//! The layer that repeats calls: it runs the one retry loop around its provider.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use super::deadline::Deadline;
use super::quota::RetryQuota;
use super::retry::{Outcome, RetryOptions, RetryPlan};
use crate::core::chunk::{Facts, LlmChunk};
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, LlmResponse};

/// Repeats calls that failed in a way that may pass, within the one limit for the whole call.
pub struct Attempts {
    inner: Arc<dyn LlmProvider>,
    options: RetryOptions,
    limit: Duration,
    quota: Arc<RetryQuota>,
}

impl Attempts {
    /// Wraps a provider. A request's own `max_retries` and `timeout` beat `options` and `limit`.
    #[must_use]
    pub fn new(inner: Arc<dyn LlmProvider>, options: RetryOptions, limit: Duration) -> Self {
        Self { inner, options, limit, quota: Arc::new(RetryQuota::new()) }
    }

    /// The quota the calls share.
    #[must_use]
    pub fn quota(&self) -> &Arc<RetryQuota> {
        &self.quota
    }

    fn plan(&self, max_retries: Option<u32>, timeout: Option<f64>) -> RetryPlan {
        let limit = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        RetryPlan {
            options: self.options.with_max_retries(max_retries.unwrap_or(self.options.max_retries)),
            quota: Some(Arc::clone(&self.quota)),
            deadline: Deadline::after(limit.unwrap_or(self.limit)),
        }
    }

    async fn repeat<'a, T>(
        &'a self,
        request: &LlmRequest,
        call: impl Fn(&'a dyn LlmProvider, LlmRequest) -> BoxFuture<'a, Result<T, LlmError>>,
    ) -> Result<Outcome<T>, LlmError> {
        let plan = self.plan(request.max_retries, request.timeout);
        plan.run(|| call(&*self.inner, request.clone())).await.map_err(|error| {
            error.with(|detail| {
                detail.provider.get_or_insert_with(|| self.inner.name().to_owned());
                if detail.model.is_none() {
                    detail.model.clone_from(&request.model);
                }
            })
        })
    }

    /// Puts the earlier attempts before those of the answer.
    fn join(&self, mut before: Vec<Attempt>, waited: Option<Duration>, own: &mut Vec<Attempt>) {
        if before.is_empty() && waited.is_none() {
            return;
        }
        if own.is_empty() {
            // A provider that keeps no record.
            own.push(Attempt { deployment: self.inner.name().to_owned(), ..Attempt::default() });
        }
        if let Some(first) = own.first_mut() {
            first.wait = waited.map(|wait| wait.as_secs_f64());
        }
        before.append(own);
        *own = before;
    }
}

#[async_trait]
impl LlmProvider for Attempts {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let Outcome { value: mut answer, before, waited } =
            self.repeat(&request, |inner, request| inner.generate(request)).await?;
        self.join(before, waited, &mut answer.attempts);
        Ok(answer)
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        // Only failures before the stream is handed over are repeated; a delivered chunk is never replayed.
        let Outcome { value: stream, before, waited } =
            self.repeat(&request, |inner, request| inner.stream(request)).await?;
        if before.is_empty() && waited.is_none() {
            return Ok(stream);
        }
        let mut facts = Facts::default();
        self.join(before, waited, &mut facts.attempts);
        let Some(mine) = facts.attempts.pop() else { return Ok(stream) };
        let mut before = Some((facts.attempts, mine));
        Ok(Box::pin(stream.map(move |item| {
            item.map(|mut chunk: LlmChunk| {
                if let Some(Facts { attempts, .. }) = chunk.facts.as_deref_mut()
                    && !attempts.is_empty()
                    && let Some((mut earlier, mine)) = before.take()
                {
                    if let Some(first) = attempts.first_mut() {
                        first.wait = mine.wait;
                    }
                    earlier.append(attempts);
                    *attempts = earlier;
                }
                chunk
            })
        })))
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        let plan = self.plan(None, None);
        let creates = operation.creates;
        let once = |error: LlmError| match creates && !error.was_never_sent() {
            true => error.with(|detail| detail.retryable = Some(false)),
            false => error,
        };
        let call = || {
            let work = self.inner.operate(operation.clone());
            async move { work.await.map_err(once) }
        };
        plan.run(call).await.map(|outcome| outcome.value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;
    use crate::core::error::{ErrorKind, FailurePhase};

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
        Attempts::new(Arc::new(Script(Mutex::new(answers))), options, Duration::from_secs(10))
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
    async fn a_wait_before_the_first_send_is_told() {
        let cooling = || {
            Err(LlmError::new(ErrorKind::RateLimited, "cools down").with(|detail| {
                detail.before_send = true;
                detail.retry_after = Some(0.02);
            }))
        };
        let ok = LlmResponse { attempts: vec![Attempt::default()], ..LlmResponse::default() };
        let answer = layer(vec![cooling(), cooling(), Ok(ok)]).generate(LlmRequest::new()).await.unwrap();
        assert_eq!(answer.attempts.len(), 1);
        assert!(answer.attempts[0].wait.unwrap() >= 0.04);
    }

    #[tokio::test]
    async fn the_callers_mistakes_are_not() {
        let error = layer(vec![Err(failure(ErrorKind::InvalidRequest))])
            .generate(LlmRequest::new())
            .await
            .unwrap_err();
        assert_eq!(error.detail().attempts.len(), 1);
    }

    #[tokio::test]
    async fn a_request_says_how_often() {
        let answers = || vec![Err(failure(ErrorKind::Overloaded)), Err(failure(ErrorKind::Overloaded))];
        let error = layer(answers()).generate(LlmRequest::new().with_max_retries(0)).await.unwrap_err();
        assert_eq!(error.detail().attempts.len(), 1);
        let error = layer(answers()).generate(LlmRequest::new().with_max_retries(1)).await.unwrap_err();
        assert_eq!(error.detail().attempts.len(), 2);
    }

    struct Maker(Mutex<Vec<LlmError>>);

    #[async_trait]
    impl LlmProvider for Maker {
        fn name(&self) -> &str {
            "maker"
        }

        async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
            Err(LlmError::Timeout)
        }

        async fn operate(&self, _: Operation) -> Result<RawJson, LlmError> {
            match self.0.lock().unwrap().pop() {
                Some(error) => Err(error),
                None => Ok(RawJson::from("made")),
            }
        }
    }

    #[tokio::test]
    async fn what_creates_is_sent_once() {
        let options = RetryOptions { base: Duration::from_millis(1), ..RetryOptions::default() };
        let run = async |error: LlmError, operation: Operation| {
            let maker = Arc::new(Maker(Mutex::new(vec![error])));
            let provider: Arc<dyn LlmProvider> = Arc::clone(&maker) as Arc<dyn LlmProvider>;
            Attempts::new(provider, options, Duration::from_secs(10)).operate(operation).await
        };
        let body = || RawJson::from("x");
        let refused =
            || failure(ErrorKind::Connection).with(|detail| detail.phase = Some(FailurePhase::Refused));
        for kind in [ErrorKind::Overloaded, ErrorKind::Connection, ErrorKind::RateLimited] {
            let error = run(failure(kind), Operation::new("files", body())).await.unwrap_err();
            assert!(!error.is_retryable() && error.detail().attempts.len() == 1);
            run(failure(kind), Operation::new("embeddings", body()).repeatable()).await.unwrap();
        }
        // What was never sent may be sent.
        run(refused(), Operation::new("files", body())).await.unwrap();
    }
}
