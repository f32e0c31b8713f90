//! A second request for a call that is slow to begin its answer. The first good answer wins, the other request's
//! connection is closed at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Either, select};

use super::options::HedgeOptions;
use crate::core::call::{Call, elapsed};
use crate::core::chunk::LlmChunk;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::{Extra, RawJson};
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, AttemptCause, LlmResponse};
use crate::core::state::{fields_keep_state, keeps_state};

/// How many recent calls the percentile is taken of.
const WINDOW: usize = 128;
/// How many it takes at least.
const FEWEST: usize = 20;
/// The price of a second request, in millionths.
const PRICE: u64 = 1_000_000;
/// How many second requests may be saved up.
const BURST: u64 = 10;

/// The time to the first byte of the latest calls.
#[derive(Default)]
struct Recent {
    seconds: Vec<f64>,
    next: usize,
}

impl Recent {
    fn add(&mut self, seconds: f64) {
        if self.seconds.len() < WINDOW {
            self.seconds.push(seconds);
        } else {
            self.seconds[self.next] = seconds;
        }
        self.next = (self.next + 1) % WINDOW;
    }

    /// The 95th percentile, once there are calls enough.
    fn slow(&self) -> Option<f64> {
        if self.seconds.len() < FEWEST {
            return None;
        }
        let mut sorted = self.seconds.clone();
        let rank = (sorted.len() * 95).div_ceil(100) - 1;
        Some(*sorted.select_nth_unstable_by(rank, f64::total_cmp).1)
    }
}

#[derive(Default)]
struct State {
    /// Millionths of second requests that may be sent.
    credit: u64,
    whole: Recent,
    streamed: Recent,
}

/// Which of the two kinds of calls: their first bytes come at different times.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Whole,
    Streamed,
}

/// Sends a second request when the first is slow.
///
/// Extra requests never exceed `budget` x calls: each call earns that share of one, at most ten are saved up, and
/// there is nothing at the beginning. Calls that create something at the provider or continue something kept there,
/// and those with tools the provider itself runs, are never sent twice.
pub struct Hedge {
    inner: Arc<dyn LlmProvider>,
    after: Option<Duration>,
    earned: u64,
    usable: bool,
    state: Mutex<State>,
}

/// What was sent besides the request that was answered.
#[derive(Default)]
struct Others {
    before: Vec<Attempt>,
    after: Vec<Attempt>,
    /// How long the answered request was waited with, when it was the second.
    second: Option<f64>,
}

impl Others {
    fn after(after: Vec<Attempt>) -> Self {
        Self { after, ..Self::default() }
    }

    const fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty() && self.second.is_none()
    }

    /// Puts the answer's own attempts among the others.
    fn around(mut self, own: &mut Vec<Attempt>, name: &str) {
        if self.is_empty() {
            return;
        }
        let deployment = own.first().map_or(name, |attempt| &attempt.deployment).to_owned();
        for attempt in self.before.iter_mut().chain(&mut self.after) {
            if attempt.deployment.is_empty() {
                attempt.deployment.clone_from(&deployment);
            }
        }
        if let Some(waited) = self.second {
            *own = second_of(std::mem::take(own), waited);
        }
        self.before.append(own);
        self.before.append(&mut self.after);
        *own = self.before;
    }
}

/// Marks the second request.
fn second_of(mut attempts: Vec<Attempt>, waited: f64) -> Vec<Attempt> {
    if let Some(first) = attempts.first_mut() {
        first.wait = Some(waited);
        first.reason = Some("hedge".to_owned());
        first.cause = Some(AttemptCause::Hedge);
    }
    attempts
}

/// A request that was given up. Its branch knows where and when it was sent; of one that was still in line it is only
/// known when it was asked for, and nobody knows its deployment yet.
fn cancelled(branch: &Call, asked: Instant) -> Attempt {
    let attempt = branch.on_its_way().pop().unwrap_or_else(|| {
        let duration = asked.elapsed().as_secs_f64();
        Attempt { started: (elapsed() - duration).max(0.0), duration, ..Attempt::default() }
    });
    Attempt { error: Some(ErrorKind::Cancelled.as_str().to_owned()), reason: None, ..attempt }
}

impl Hedge {
    /// Wraps a provider; `extra` are the deployment's own vendor fields.
    #[must_use]
    pub fn new(inner: Arc<dyn LlmProvider>, options: HedgeOptions, extra: &Extra) -> Self {
        Self {
            inner,
            after: options.after.and_then(|after| Duration::try_from_secs_f64(after).ok()),
            // A share of at most 1: far inside the range.
            earned: Duration::try_from_secs_f64(options.budget)
                .map_or(0, |share| u64::try_from(share.as_micros()).unwrap_or(0)),
            usable: !fields_keep_state(extra),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call; says when it is slow.
    fn patience(&self, request: &LlmRequest, form: Form) -> Option<Duration> {
        let mut state = self.state();
        state.credit = (state.credit + self.earned).min(BURST * PRICE);
        if !self.usable || keeps_state(request) {
            return None;
        }
        let recent = if form == Form::Whole { &state.whole } else { &state.streamed };
        self.after.or_else(|| recent.slow().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
    }

    /// Takes the price of a second request, when there is enough.
    fn pay(&self) -> bool {
        let mut state = self.state();
        let paid = state.credit >= PRICE;
        if paid {
            state.credit -= PRICE;
        }
        paid
    }

    fn learn(&self, form: Form, sent: Instant, begun: Instant) {
        if self.after.is_none() {
            let seconds = begun.saturating_duration_since(sent).as_secs_f64();
            let mut state = self.state();
            let recent = if form == Form::Whole { &mut state.whole } else { &mut state.streamed };
            recent.add(seconds);
        }
    }

    async fn race<'a, T: Send + 'a>(
        &'a self,
        request: LlmRequest,
        form: Form,
        call: impl Fn(&'a dyn LlmProvider, LlmRequest) -> BoxFuture<'a, Result<T, LlmError>>,
    ) -> Result<(T, Others), LlmError> {
        let patience = self.patience(&request, form);
        let send = || {
            let branch = Call::branch();
            let call = Arc::clone(&branch).scope(call(&*self.inner, request.clone()));
            let call: BoxFuture<'a, Result<T, LlmError>> = Box::pin(call);
            (call, branch)
        };
        // A stream counts from its first chunk: `stream` returns with it.
        let first_byte = |branch: &Call| {
            let begun = branch.begun().filter(|_| form == Form::Whole);
            begun.map_or_else(Instant::now, tokio::time::Instant::into_std)
        };
        let sent = Instant::now();
        let (mut first, branch) = send();
        let early = match patience {
            Some(patience) => tokio::time::timeout(patience, &mut first).await.ok(),
            None => Some((&mut first).await),
        };
        let answering = form == Form::Whole && branch.begun().is_some();
        let outcome = match early {
            Some(outcome) => outcome,
            None if answering || !self.pay() => first.await,
            None => {
                let waited = sent.elapsed().as_secs_f64();
                let resent = Instant::now();
                let (second, second_branch) = send();
                let outcome = select(first, second).await;
                // Also the time of a request that is given up counts: without the slow ones the percentile would sink.
                self.learn(form, sent, first_byte(&branch));
                return match outcome {
                    Either::Left((Ok(answer), loser)) => {
                        drop(loser);
                        Ok((
                            answer,
                            Others::after(second_of(vec![cancelled(&second_branch, resent)], waited)),
                        ))
                    }
                    // What the provider refuses for good it refuses twice.
                    Either::Left((Err(error), loser)) if !error.is_retryable() => {
                        drop(loser);
                        Err(self.failed(
                            error,
                            Others::after(second_of(vec![cancelled(&second_branch, resent)], waited)),
                        ))
                    }
                    Either::Left((Err(error), second)) => {
                        let others = Others {
                            before: error.detail().attempts.clone(),
                            second: Some(waited),
                            ..Others::default()
                        };
                        match second.await {
                            Ok(answer) => {
                                self.learn(form, resent, first_byte(&second_branch));
                                Ok((answer, others))
                            }
                            Err(last) => Err(self.failed(last, others)),
                        }
                    }
                    Either::Right((Ok(answer), loser)) => {
                        drop(loser);
                        self.learn(form, resent, first_byte(&second_branch));
                        let before = vec![cancelled(&branch, sent)];
                        Ok((answer, Others { before, second: Some(waited), ..Others::default() }))
                    }
                    Either::Right((Err(error), first)) => {
                        let others = Others::after(second_of(error.detail().attempts.clone(), waited));
                        match first.await {
                            Ok(answer) => Ok((answer, others)),
                            Err(last) => Err(self.failed(last, others)),
                        }
                    }
                };
            }
        };
        if outcome.is_ok() {
            self.learn(form, sent, first_byte(&branch));
        }
        outcome.map(|answer| (answer, Others::default()))
    }

    fn failed(&self, error: LlmError, others: Others) -> LlmError {
        error.with(|detail| others.around(&mut detail.attempts, self.inner.name()))
    }
}

#[async_trait]
impl LlmProvider for Hedge {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let (mut answer, others) =
            self.race(request, Form::Whole, |inner, request| inner.generate(request)).await?;
        others.around(&mut answer.attempts, self.inner.name());
        Ok(answer)
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let (stream, others) =
            self.race(request, Form::Streamed, |inner, request| inner.stream(request)).await?;
        if others.is_empty() {
            return Ok(stream);
        }
        let name = self.inner.name().to_owned();
        let mut others = Some(others);
        Ok(Box::pin(stream.map(move |item| {
            item.map(|mut chunk: LlmChunk| {
                if let Some(facts) = chunk.facts.as_deref_mut().filter(|facts| !facts.attempts.is_empty())
                    && let Some(others) = others.take()
                {
                    others.around(&mut facts.attempts, &name);
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
    use super::*;

    struct Never;

    #[async_trait]
    impl LlmProvider for Never {
        fn name(&self) -> &str {
            "never"
        }

        async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
            Err(LlmError::Timeout)
        }
    }

    #[test]
    fn the_percentile_is_of_the_latest_calls() {
        let mut recent = Recent::default();
        for seconds in 1..FEWEST {
            recent.add(seconds as f64);
            assert_eq!(recent.slow(), None);
        }
        recent.add(20.0);
        assert_eq!(recent.slow(), Some(19.0));
        for _ in 0..WINDOW {
            recent.add(0.5);
        }
        assert_eq!(recent.slow(), Some(0.5));
        for _ in 0..WINDOW / 10 {
            recent.add(9.0);
        }
        assert_eq!(recent.slow(), Some(9.0));
    }

    #[test]
    fn each_call_earns_its_share_and_little_is_saved_up() {
        let options = HedgeOptions { after: Some(1.0), budget: 0.05 };
        let hedge = Hedge::new(Arc::new(Never), options, &Extra::new());
        let call = |times: usize| {
            for _ in 0..times {
                assert!(hedge.patience(&LlmRequest::new(), Form::Whole).is_some());
            }
        };
        call(19);
        assert!(!hedge.pay());
        call(1);
        assert!(hedge.pay() && !hedge.pay());
        call(100_000);
        assert_eq!((0..100).filter(|_| hedge.pay()).count(), 10);
    }
}
