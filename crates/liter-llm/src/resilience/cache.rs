//! Exact-match answers kept in memory, and identical calls in flight sharing one request.
//!
//! A whole answer serves whole calls and streams; a streamed one only streams, because it has no `raw`. Streams in
//! flight are not shared: each caller reads at its own pace.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::cache_key::CacheKey;
use super::options::CacheOptions;
use super::retry::GiveUp;
use super::single_flight::{Flights, Seat, Turn};
use crate::core::chunk::LlmChunk;
use crate::core::error::{ErrorKind, FailurePhase, LlmError};
use crate::core::fold::{Folder, unfold};
use crate::core::json::{Extra, RawJson};
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{FinishReason, LlmResponse, Timing};
use crate::core::state::{fields_keep_state, keeps_state};

/// What an entry takes besides what its answer says: the answer's frame, key, counters, list nodes.
const OVERHEAD: usize = 512 + size_of::<LlmResponse>();

#[derive(Clone)]
struct Entry {
    answer: Arc<LlmResponse>,
    streamed: bool,
    bytes: u32,
}

/// The answers of one deployment, and its identical calls in flight.
pub struct ResponseCache {
    kept: moka::sync::Cache<CacheKey, Entry>,
    flights: Flights<Result<Arc<LlmResponse>, LlmError>>,
    deployment: [u8; 32],
    max_bytes: u64,
    usable: bool,
}

impl ResponseCache {
    /// An empty cache.
    ///
    /// `deployment` is the fingerprint of everything about the deployment that can change an answer, its credential
    /// included (see [`Digest`](super::cache_key::Digest)); `extra` are the deployment's own vendor fields.
    #[must_use]
    pub fn new(options: CacheOptions, deployment: [u8; 32], extra: &Extra) -> Self {
        let kept = moka::sync::Cache::builder()
            .max_capacity(options.max_bytes)
            .weigher(|_, entry: &Entry| entry.bytes)
            .time_to_live(Duration::try_from_secs_f64(options.ttl).unwrap_or_default())
            .build();
        Self {
            kept,
            flights: Flights::default(),
            deployment,
            max_bytes: options.max_bytes,
            usable: !fields_keep_state(extra),
        }
    }

    /// Forgets all answers. Those on their way are kept when they arrive.
    pub fn clear(&self) {
        self.kept.invalidate_all();
    }

    /// How many bytes the answers take, as they are counted against `max_bytes`.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kept.run_pending_tasks();
        self.kept.weighted_size()
    }

    /// How many different calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// The call's name; `None` for one that must go to the provider.
    fn key(&self, request: &LlmRequest) -> Option<CacheKey> {
        if !self.usable || request.cache == Some(false) || keeps_state(request) {
            return None;
        }
        CacheKey::new(&self.deployment, request)
    }

    fn find(&self, key: &CacheKey, streaming: bool) -> Option<Arc<LlmResponse>> {
        let entry = self.kept.get(key)?;
        // Chunks carry the blocks of a message only, not a name or vendor fields beside them.
        let message = &entry.answer.message;
        let cuttable = || entry.streamed || (message.name().is_none() && message.extra().is_empty());
        let fits = if streaming { cuttable() } else { !entry.streamed };
        fits.then_some(entry.answer)
    }

    /// Keeps a complete answer; gives it in the form in which it is handed out again.
    fn keep(&self, key: CacheKey, mut answer: LlmResponse, streamed: bool) -> Arc<LlmResponse> {
        answer.cached = true;
        answer.cost = answer.cost.map(|cost| Box::new(cost.paid_before()));
        // They tell how this answer came and how the account stood then; the next caller's answer comes otherwise.
        answer.attempts = Vec::new();
        answer.route = None;
        answer.rate_limits = indexmap::IndexMap::new();
        answer.timing = None;
        // The bytes may be a small part of the connection's read buffer, which they would keep alive.
        answer.raw = Bytes::copy_from_slice(&answer.raw);
        let answer = Arc::new(answer);
        if answer.finish_reason == FinishReason::Error || (streamed && self.kept.contains_key(&key)) {
            return answer;
        }
        if let Some(bytes) = size(&answer)
            && u64::from(bytes) <= self.max_bytes
        {
            self.kept.insert(key, Entry { answer: Arc::clone(&answer), streamed, bytes });
        }
        answer
    }
}

/// An answer's size in memory, near enough: its texts (as JSON), the provider's own bytes, and the frames around them.
fn size(answer: &LlmResponse) -> Option<u32> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let blocks = size_of_val(answer.message.content());
    let mut count = Count(OVERHEAD + answer.raw.len() + blocks);
    serde_json::to_writer(&mut count, answer).ok()?;
    u32::try_from(count.0).ok()
}

fn handed_out(answer: &LlmResponse, begun: Instant) -> LlmResponse {
    let timing = Timing { total: begun.elapsed().as_secs_f64(), ..Timing::default() };
    LlmResponse { timing: Some(timing), ..answer.clone() }
}

/// Answers from the cache where it can.
pub struct Cached {
    inner: Arc<dyn LlmProvider>,
    cache: Arc<ResponseCache>,
    limit: Duration,
}

impl Cached {
    /// Wraps a provider; `limit` is the limit for the whole call, which a request's own `timeout` beats.
    #[must_use]
    pub fn new(inner: Arc<dyn LlmProvider>, cache: Arc<ResponseCache>, limit: Duration) -> Self {
        Self { inner, cache, limit }
    }

    /// Waits for the outcome of the identical call in flight, within this caller's own limit, or takes it over.
    async fn follow(
        &self,
        seat: &Seat<'_, Result<Arc<LlmResponse>, LlmError>>,
        request: LlmRequest,
        key: CacheKey,
        begun: Instant,
    ) -> Result<LlmResponse, LlmError> {
        let own = request.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let limit = own.unwrap_or(self.limit);
        let too_late = || {
            let message =
                format!("no answer within the limit of {} s for the whole call", limit.as_secs_f64());
            LlmError::new(ErrorKind::Timeout, message).with(|detail| {
                detail.phase = Some(FailurePhase::Total);
                detail.provider = Some(self.inner.name().to_owned());
                detail.model.clone_from(&request.model);
                detail.retryable = Some(true);
            })
        };
        match tokio::time::timeout(limit, seat.turn()).await {
            Err(_) => Err(too_late()),
            Ok(Turn::Shared(outcome)) => outcome.map(|answer| handed_out(&answer, begun)),
            Ok(Turn::Lead(permit)) => {
                let Some(rest) = limit.checked_sub(begun.elapsed()).filter(|rest| !rest.is_zero()) else {
                    return Err(too_late());
                };
                let request = request.with(|body| body.timeout = Some(rest.as_secs_f64()));
                let outcome = self.lead(seat, request, key, begun).await;
                drop(permit);
                outcome
            }
        }
    }

    async fn lead(
        &self,
        seat: &Seat<'_, Result<Arc<LlmResponse>, LlmError>>,
        request: LlmRequest,
        key: CacheKey,
        begun: Instant,
    ) -> Result<LlmResponse, LlmError> {
        // The flight before this one may have landed after the cache was looked at.
        if let Some(answer) = self.cache.find(&key, false) {
            seat.land(Ok(Arc::clone(&answer)));
            return Ok(handed_out(&answer, begun));
        }
        let outcome = self.inner.generate(request).await;
        match &outcome {
            Ok(answer) => seat.land(Ok(self.cache.keep(key, answer.clone(), false))),
            // This caller's limit or wish ended the call; the next in line has its own.
            Err(error) if is_the_callers_own(error) => {}
            Err(error) => seat.land(Err(error.clone())),
        }
        outcome
    }
}

fn is_the_callers_own(error: &LlmError) -> bool {
    match error.kind() {
        ErrorKind::Cancelled => true,
        ErrorKind::Timeout => error.detail().phase == Some(FailurePhase::Total),
        // A line or a cooldown longer than this caller had time or patience for: others may have more of it.
        ErrorKind::RateLimited if error.detail().before_send => true,
        // Others may have the time for a repeat.
        _ => error
            .detail()
            .attempts
            .last()
            .is_some_and(|last| last.reason.as_deref() == GiveUp::NoTimeLeft.reason()),
    }
}

/// A stream that is kept when it comes to its proper end.
struct Filling {
    chunks: ChunkStream,
    cache: Arc<ResponseCache>,
    key: CacheKey,
    /// `None` once the answer is known to be incomplete, or was kept.
    folder: Option<Folder>,
    finished: bool,
}

impl Stream for Filling {
    type Item = Result<LlmChunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(self.chunks.poll_next_unpin(context));
        match &item {
            Some(Ok(chunk)) => {
                self.finished |= chunk.finish_reason.is_some();
                if let Some(folder) = &mut self.folder {
                    folder.push(chunk);
                }
            }
            Some(Err(_)) => self.folder = None,
            None => {
                if let Some(folder) = self.folder.take()
                    && self.finished
                {
                    self.cache.keep(self.key, folder.finish(), true);
                }
            }
        }
        Poll::Ready(item)
    }
}

#[async_trait]
impl LlmProvider for Cached {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let begun = Instant::now();
        let Some(key) = self.cache.key(&request) else { return self.inner.generate(request).await };
        if let Some(answer) = self.cache.find(&key, false) {
            return Ok(handed_out(&answer, begun));
        }
        let seat = self.cache.flights.seat((key, request.max_retries));
        match seat.try_lead() {
            Some(_permit) => self.lead(&seat, request, key, begun).await,
            None => self.follow(&seat, request, key, begun).await,
        }
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let begun = Instant::now();
        let Some(key) = self.cache.key(&request) else { return self.inner.stream(request).await };
        if let Some(answer) = self.cache.find(&key, true) {
            let chunks = unfold(&handed_out(&answer, begun)).into_iter().map(Ok);
            return Ok(Box::pin(futures_util::stream::iter(chunks)));
        }
        let chunks = self.inner.stream(request).await?;
        let cache = Arc::clone(&self.cache);
        Ok(Box::pin(Filling { chunks, cache, key, folder: Some(Folder::new()), finished: false }))
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        self.inner.operate(operation).await
    }
}
