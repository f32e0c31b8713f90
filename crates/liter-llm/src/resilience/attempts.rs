//! The layer that repeats calls: it runs the one retry loop around its provider.

use std::convert::identity;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use super::deadline::Deadline;
use super::quota::RetryQuota;
use super::retry::{Outcome, RetryOptions, RetryPlan, Same, Steps};
use crate::core::call::is_repeated;
use crate::core::chunk::LlmChunk;
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, AttemptCause, LlmResponse};
use crate::core::route::{Candidates, Course, Planned, Route};

/// Repeats calls that failed in a way that may pass, here or at another deployment, within the one limit for the whole
/// call.
pub struct Attempts {
    candidates: Arc<dyn Candidates>,
    options: RetryOptions,
    limit: Duration,
    quota: Arc<RetryQuota>,
}

/// What is done at a deployment.
type Call<T> = for<'a> fn(&'a dyn LlmProvider, LlmRequest) -> BoxFuture<'a, Result<T, LlmError>>;

/// One call's attempts. What they give is kept as `K`: an answer in a box, for it is large and goes through many hands.
struct Calls<T, K> {
    course: Box<dyn Course>,
    call: Call<T>,
    keep: fn(T) -> K,
}

impl<T, K> Steps<K> for Calls<T, K> {
    fn step(&mut self) -> impl Future<Output = Result<K, LlmError>> {
        let (provider, request) = self.course.current();
        let mut call = (self.call)(provider, request.clone());
        let keep = self.keep;
        poll_fn(move |context| match call.as_mut().poll(context) {
            Poll::Ready(Ok(value)) => Poll::Ready(Ok(keep(value))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        })
    }

    fn elsewhere(&mut self, error: &LlmError) -> bool {
        self.course.elsewhere(error)
    }

    fn exhausted(&mut self, last: LlmError) -> LlmError {
        self.course.exhausted(last)
    }

    fn patience(&self, left: Option<Duration>) -> Option<Duration> {
        self.course.patience(left)
    }
}

impl Attempts {
    /// Calls the deployments that `candidates` names. A request's own `max_retries` and `timeout` beat `options` and
    /// `limit`.
    #[must_use]
    pub fn new(candidates: Arc<dyn Candidates>, options: RetryOptions, limit: Duration) -> Self {
        Self { candidates, options, limit, quota: Arc::new(RetryQuota::new()) }
    }

    /// [`new`](Self::new) over a single provider.
    #[must_use]
    pub fn around(provider: Arc<dyn LlmProvider>, options: RetryOptions, limit: Duration) -> Self {
        Self::new(Arc::new(Single(provider)), options, limit)
    }

    /// The quota the calls share.
    #[must_use]
    pub fn quota(&self) -> &Arc<RetryQuota> {
        &self.quota
    }

    fn plan(&self, max_retries: Option<u32>, timeout: Option<f64>) -> RetryPlan {
        let limit = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        // Inside of another client's call the repeats are made there: in both, they would multiply.
        let repeats = match is_repeated() {
            true => 0,
            false => max_retries.unwrap_or(self.options.max_retries),
        };
        RetryPlan {
            layer: true,
            options: self.options.with_max_retries(repeats),
            quota: Some(Arc::clone(&self.quota)),
            deadline: Deadline::after(limit.unwrap_or(self.limit)),
        }
    }

    async fn repeat<T, K>(
        &self,
        request: &LlmRequest,
        streamed: bool,
        (call, keep): (Call<T>, fn(T) -> K),
    ) -> Result<(K, Earlier), LlmError> {
        let plan = self.plan(request.max_retries, request.timeout);
        let course = match self.candidates.course(request, streamed) {
            Planned::Now(course) => course?,
            Planned::Later(course) => course.await?,
        };
        let mut calls = Calls { course, call, keep };
        match plan.run(&mut calls).await {
            Ok(Outcome { value, before, waited, cause, started }) => {
                let waited = waited.map(|wait| wait.as_secs_f64());
                let route = calls.course.route();
                Ok((value, Earlier { attempts: before, waited, cause, started, route }))
            }
            Err(error) => Err(error.with(|detail| {
                detail.provider.get_or_insert_with(|| self.candidates.name().to_owned());
                if detail.model.is_none() {
                    detail.model.clone_from(&request.model);
                }
                detail.route = calls.course.route();
            })),
        }
    }
}

/// One provider: nothing to choose.
struct Single(Arc<dyn LlmProvider>);

impl Candidates for Single {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn course<'a>(&'a self, request: &'a LlmRequest, _: bool) -> Planned<'a> {
        Planned::Now(Ok(Box::new(NoChoice(Arc::clone(&self.0), request.clone()))))
    }

    fn any(&self) -> Result<Arc<dyn LlmProvider>, LlmError> {
        Ok(Arc::clone(&self.0))
    }
}

struct NoChoice(Arc<dyn LlmProvider>, LlmRequest);

impl Course for NoChoice {
    fn current(&self) -> (&dyn LlmProvider, &LlmRequest) {
        (&*self.0, &self.1)
    }
}

/// What came before the attempt that answered, and why it was made where it was made.
#[derive(Clone)]
struct Earlier {
    attempts: Vec<Attempt>,
    waited: Option<f64>,
    cause: Option<AttemptCause>,
    started: f64,
    route: Option<Box<Route>>,
}

impl Earlier {
    const fn is_empty(&self) -> bool {
        self.attempts.is_empty() && self.waited.is_none() && self.route.is_none()
    }

    /// Puts the earlier attempts before those of the answer. `name`: whose they are if the provider keeps no record.
    fn join(self, own: &mut Vec<Attempt>, route: &mut Option<Box<Route>>, name: &str) {
        // Without a choice here the word of a router inside holds.
        if self.route.is_some() {
            *route = self.route;
        }
        if self.attempts.is_empty() && self.waited.is_none() {
            return;
        }
        if own.is_empty() {
            let deployment = name.to_owned();
            own.push(Attempt { deployment, started: self.started, ..Attempt::default() });
        }
        if let Some(first) = own.first_mut() {
            first.wait = self.waited;
            first.cause = self.cause.or(first.cause);
        }
        let later = std::mem::replace(own, self.attempts);
        own.extend(later);
    }
}

#[async_trait]
impl LlmProvider for Attempts {
    fn name(&self) -> &str {
        self.candidates.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let (mut answer, earlier) =
            self.repeat(&request, false, (|provider, request| provider.generate(request), Box::new)).await?;
        earlier.join(&mut answer.attempts, &mut answer.route, self.name());
        Ok(*answer)
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        // Only failures before the stream is handed over are repeated; a delivered chunk is never replayed.
        let (stream, earlier) =
            self.repeat(&request, true, (|provider, request| provider.stream(request), identity)).await?;
        if earlier.is_empty() {
            return Ok(stream);
        }
        let name = self.name().to_owned();
        let mut told = false;
        Ok(Box::pin(stream.map(move |item| {
            // A stream that breaks off says as well where it came from and why.
            let item = item.map_err(|error| {
                error.with(|detail| {
                    if detail.route.is_none() {
                        detail.route.clone_from(&earlier.route);
                    }
                })
            });
            item.map(|mut chunk: LlmChunk| {
                // Once at least: a provider of one's own may tell nothing of attempts. The last word counts.
                let tells = chunk.facts.as_ref().is_some_and(|facts| !facts.attempts.is_empty());
                if tells || (!told && chunk.finish_reason.is_some()) {
                    told = true;
                    let facts = chunk.facts.get_or_insert_default();
                    earlier.clone().join(&mut facts.attempts, &mut facts.route, &name);
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
        let provider = self.candidates.any()?;
        let call = || {
            let (provider, operation) = (Arc::clone(&provider), operation.clone());
            async move { provider.operate(operation).await.map_err(once) }
        };
        plan.run(&mut Same(call)).await.map(|outcome| outcome.value)
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
        Attempts::around(Arc::new(Script(Mutex::new(answers))), options, Duration::from_secs(10))
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

    #[tokio::test]
    async fn a_client_inside_a_client_does_not_multiply_the_repeats() {
        struct Down(std::sync::atomic::AtomicU32);

        #[async_trait]
        impl LlmProvider for Down {
            fn name(&self) -> &str {
                "down"
            }

            async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                Err(LlmError::new(ErrorKind::Overloaded, "no"))
            }
        }

        let sent = async |outer: u32, request: LlmRequest| {
            let down = Arc::new(Down(0.into()));
            let options = RetryOptions { base: Duration::from_millis(1), ..RetryOptions::default() };
            let provider = Arc::clone(&down) as Arc<dyn LlmProvider>;
            let inner = Arc::new(Attempts::around(provider, options, Duration::from_secs(10)));
            let outer = Attempts::around(inner, options.with_max_retries(outer), Duration::from_secs(10));
            outer.generate(request).await.unwrap_err();
            down.0.load(std::sync::atomic::Ordering::SeqCst)
        };
        assert_eq!(sent(3, LlmRequest::new()).await, 4);
        assert_eq!(sent(3, LlmRequest::new().with_max_retries(2)).await, 3);
        assert_eq!(sent(0, LlmRequest::new()).await, 4, "the outer one makes none");
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
            Attempts::around(provider, options, Duration::from_secs(10)).operate(operation).await
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
