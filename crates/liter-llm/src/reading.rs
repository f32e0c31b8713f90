//! A streamed answer being read: frames from the transport through the decoder into chunks, and its honest end.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Sleep, sleep_until, timeout};

use crate::adapters::{Decoder, Frame};
use crate::core::call::answer_begun;
use crate::core::chunk::{Facts, LlmChunk};
use crate::core::cost::{Cost, Pricing};
use crate::core::error::{ErrorKind, FailurePhase, LlmError};
use crate::core::provider::ChunkStream;
use crate::core::response::{Timing, Usage};
use crate::endpoint::followable;
use crate::transports::http::BodyStream;
use crate::transports::sse::{MAX_EVENT_BYTES, SseParser};
use crate::transports::websocket_pool::WebSocketLease;

/// How long the end of an HTTP body is waited for in the background once the answer is complete, so that the
/// connection can be used again.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// The same on a runtime that is driven by whoever waits, and by nobody afterwards: the end of the stream waits for
/// it, and after this long the connection is closed.
const SHORT_DRAIN_LIMIT: Duration = Duration::from_millis(5);

enum Source {
    Http { body: Box<BodyStream>, parser: Box<SseParser> },
    WebSocket { lease: WebSocketLease, first: Option<Duration> },
}

type Drain = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A streamed answer that is being read.
pub(crate) struct Reading {
    source: Option<Source>,
    decoder: Box<dyn Decoder>,
    chunks: Vec<LlmChunk>,
    ready: VecDeque<LlmChunk>,
    failure: Option<LlmError>,
    /// What is left of the body of a complete answer.
    drain: Option<Drain>,
    silence: Silence,
    begun: Instant,
    facts: Option<Facts>,
    timing: Timing,
    provider: String,
    model: String,
    bill: Option<Bill>,
    ended: bool,
}

/// What a streamed answer says that its price depends on.
pub(crate) struct Bill {
    pricing: Arc<dyn Pricing>,
    asked: Option<String>,
    answered: String,
    service_tier: Option<String>,
    usage: Option<Usage>,
}

impl Bill {
    /// `asked`: the model the call named.
    pub(crate) const fn new(pricing: Arc<dyn Pricing>, asked: Option<String>) -> Self {
        Self { pricing, asked, answered: String::new(), service_tier: None, usage: None }
    }

    fn note(&mut self, chunk: &LlmChunk) {
        if let Some(usage) = &chunk.usage {
            self.usage = Some((**usage).clone());
        }
        if let Some(facts) = &chunk.facts {
            if let Some(model) = &facts.model {
                self.answered.clone_from(model);
            }
            if facts.service_tier.is_some() {
                self.service_tier.clone_from(&facts.service_tier);
            }
        }
    }

    fn cost(self) -> Option<Box<Cost>> {
        let usage = self.usage?;
        let tier = self.service_tier.as_deref();
        self.pricing.cost(self.asked.as_deref(), &self.answered, &usage, tier).map(Box::new)
    }
}

impl Reading {
    pub(crate) fn http(body: BodyStream, decoder: Box<dyn Decoder>, idle: Duration, begun: Instant) -> Self {
        Self::new(
            Source::Http { body: Box::new(body), parser: Box::new(SseParser::new(MAX_EVENT_BYTES)) },
            decoder,
            idle,
            begun,
        )
    }

    /// `limits`: until the first message, and between messages.
    pub(crate) fn websocket(
        lease: WebSocketLease,
        decoder: Box<dyn Decoder>,
        limits: (Duration, Duration),
        begun: Instant,
    ) -> Self {
        Self::new(Source::WebSocket { lease, first: Some(limits.0) }, decoder, limits.1, begun)
    }

    /// Seconds since the call began.
    pub(crate) fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn new(source: Source, decoder: Box<dyn Decoder>, idle: Duration, begun: Instant) -> Self {
        Self {
            source: Some(source),
            decoder,
            chunks: Vec::new(),
            ready: VecDeque::new(),
            failure: None,
            drain: None,
            silence: Silence { limit: idle, alarm: None },
            begun,
            facts: None,
            timing: Timing::default(),
            provider: String::new(),
            model: String::new(),
            bill: None,
            ended: false,
        }
    }

    /// Reads until the first piece of the answer, or its end: what fails before that is the call's error, not the
    /// stream's.
    pub(crate) async fn first_content(&mut self) -> Result<(), LlmError> {
        while self.source.is_some() && !self.ready.iter().any(LlmChunk::has_content) {
            self.read().await;
        }
        match self.failure.take() {
            Some(failure) if !self.ready.iter().any(LlmChunk::has_content) => Err(failure),
            failure => {
                self.failure = failure;
                Ok(())
            }
        }
    }

    /// Takes the next bytes from the transport; on the end or a failure the source is gone.
    async fn read(&mut self) {
        let Some(source) = &mut self.source else { return };
        let decoder = &mut *self.decoder;
        let chunks = &mut self.chunks;
        let outcome = match source {
            Source::Http { body, parser } => match self.silence.limit(body).await {
                Ok(Some(bytes)) => parser
                    .push(&bytes, |event| {
                        if decoder.is_done() {
                            return Ok(());
                        }
                        followable(event.data.as_bytes(), 200)?;
                        decoder.push(Frame::Event { name: event.name, data: event.data }, chunks)
                    })
                    .map(|()| true),
                Ok(None) => decoder.finish(chunks).map(|()| false),
                Err(error) => Err(interrupted(error)),
            },
            Source::WebSocket { lease, first } => {
                let opening = first.take();
                match lease.connection.next_text(Some(opening.unwrap_or(self.silence.limit))).await {
                    Ok(Some(text)) => {
                        if opening.is_some() {
                            answer_begun();
                        }
                        followable(text.as_bytes(), 200)
                            .and_then(|()| decoder.push(Frame::Text(&text), chunks))
                            .map(|()| true)
                    }
                    Ok(None) => decoder.finish(chunks).map(|()| false),
                    Err(error) if opening.is_some() => Err(unanswered(error)),
                    Err(error) => Err(interrupted(error)),
                }
            }
        };
        self.ready.extend(self.chunks.drain(..));
        match outcome {
            Ok(true) if self.decoder.is_done() => {
                if let Err(error) = self.decoder.finish(&mut self.chunks) {
                    self.failure = Some(error);
                }
                self.ready.extend(self.chunks.drain(..));
                self.release();
            }
            Ok(true) => {}
            Ok(false) => self.source = None,
            Err(error) => {
                self.failure = Some(error);
                self.source = None;
            }
        }
    }

    /// Gives the connection back: the rest of the body (usually just its end) is read in the background, or else at
    /// the end of the stream.
    fn release(&mut self) {
        match self.source.take() {
            Some(Source::Http { mut body, .. }) => {
                let mut drain: Drain =
                    Box::pin(async move { while let Ok(Some(_)) = body.chunk(None).await {} });
                if drain.as_mut().now_or_never().is_some() {
                    return;
                }
                let runtime = Handle::current();
                if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
                    // Given up with the stream, which closes the connection.
                    self.drain = Some(drain);
                } else {
                    drop(runtime.spawn(timeout(DRAIN_LIMIT, drain)));
                }
            }
            Some(Source::WebSocket { lease, .. }) => lease.give_back(),
            None => {}
        }
    }

    async fn next(&mut self) -> Option<Result<LlmChunk, LlmError>> {
        if let Some(facts) = self.facts.take() {
            return Some(Ok(LlmChunk::facts(facts)));
        }
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                if let Some(bill) = &mut self.bill {
                    bill.note(&chunk);
                }
                return Some(Ok(chunk));
            }
            if let Some(failure) = self.failure.take() {
                self.ended = true;
                return Some(Err(failure.with(|detail| {
                    detail.provider.get_or_insert_with(|| self.provider.clone());
                    detail.model.get_or_insert_with(|| self.model.clone());
                })));
            }
            if self.ended {
                return None;
            }
            if self.source.is_none() {
                self.ended = true;
                self.timing.total = self.begun.elapsed().as_secs_f64();
                if let Some(drain) = self.drain.take() {
                    let _ = timeout(SHORT_DRAIN_LIMIT, drain).await;
                }
                let timing = Some(self.timing);
                let cost = self.bill.take().and_then(Bill::cost);
                return Some(Ok(LlmChunk::facts(Facts { timing, cost, ..Facts::default() })));
            }
            self.read().await;
        }
    }

    /// The chunks, the endpoint's facts first.
    pub(crate) fn into_stream(
        mut self,
        facts: Facts,
        provider: String,
        model: String,
        bill: Bill,
    ) -> ChunkStream {
        self.bill = Some(bill);
        self.timing = facts.timing.unwrap_or_default();
        self.facts = Some(facts);
        self.provider = provider;
        self.model = model;
        Box::pin(stream::unfold(Box::new(self), |mut reading| async move {
            let item = reading.next().await?;
            Some((item, reading))
        }))
    }
}

/// Over a WebSocket the first message is the first byte of the answer.
fn unanswered(error: LlmError) -> LlmError {
    error.with(|detail| {
        if detail.phase == Some(FailurePhase::Idle) {
            detail.phase = Some(FailurePhase::FirstByte);
            detail.retryable = Some(true);
        }
    })
}

/// The limit for the wait between two pieces of a body.
///
/// One timer serves the whole body: it is not set anew for each piece, but looked at again when it rings. Setting a
/// timer for each event would cost more than reading the event.
struct Silence {
    limit: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// The next piece of the body, within the limit.
    async fn limit(&mut self, body: &mut BodyStream) -> Result<Option<Bytes>, LlmError> {
        let within = {
            let mut piece = pin!(body.chunk(None));
            let mut since = None;
            poll_fn(|context| {
                if let Poll::Ready(outcome) = piece.as_mut().poll(context) {
                    return Poll::Ready(Some(outcome));
                }
                let due = *since.get_or_insert_with(tokio::time::Instant::now) + self.limit;
                let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
                while alarm.as_mut().poll(context).is_ready() {
                    // It may have been set for an earlier piece.
                    if due <= tokio::time::Instant::now() {
                        return Poll::Ready(None);
                    }
                    alarm.as_mut().reset(due);
                }
                Poll::Pending
            })
            .await
        };
        within.unwrap_or_else(|| Err(body.silent(self.limit)))
    }
}

/// A connection that breaks while the answer is coming is a cut stream; a limit that ran out stays one. Neither is sent
/// again.
fn interrupted(error: LlmError) -> LlmError {
    if error.kind() != ErrorKind::Connection {
        return error;
    }
    let mut detail = error.detail().clone();
    detail.retryable = Some(false);
    detail.message = format!("the stream broke off before its end: {}", detail.message);
    LlmError::from_parts(ErrorKind::StreamInterrupted, detail)
}
