//! The outermost layer: notes each call and hands its record to whoever wants it. Costs nothing while nobody does.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_util::Stream;
use futures_util::future::BoxFuture;

use super::describe::prompt_len;
use super::spans::{self, Asked, Span};
use super::taking::Taking;
use super::{Places, Telemetry};
use crate::core::call::{self, Call};
use crate::core::chunk::LlmChunk;
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::notes::Notes;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

/// Records the calls of what it wraps.
pub(crate) struct Recorded {
    inner: Arc<dyn LlmProvider>,
    telemetry: Arc<Telemetry>,
    places: Arc<Places>,
    /// Whether answers may come from a response cache.
    cache: bool,
}

impl Recorded {
    pub(crate) fn new(inner: Arc<dyn LlmProvider>, telemetry: Arc<Telemetry>, places: Arc<Places>) -> Self {
        for place in places.values() {
            telemetry.labels.know(&place.model);
        }
        Self { inner, telemetry, places, cache: false }
    }

    /// Says whether answers may come from a response cache.
    pub(crate) fn with_cache(self, cache: bool) -> Self {
        Self { cache, ..self }
    }

    /// Where to note a call, when somebody wants to know. A client inside a client's call leaves that to the outer one.
    fn notes(&self) -> Option<Arc<Notes>> {
        match call::notes() {
            Some(notes) => notes.claim().then_some(notes),
            None if self.telemetry.is_listened_to() || spans::wanted() => {
                let notes = Arc::new(Notes::default());
                notes.claim();
                Some(notes)
            }
            None => None,
        }
    }

    /// Begins the call's span, inside of the caller's own.
    fn span(&self, notes: &Notes, request: &mut LlmRequest, streamed: bool) -> Option<Span> {
        if !spans::wanted() {
            return None;
        }
        let model = request.model.clone().unwrap_or_default();
        let asked = Asked { operation: "chat", model: &model, streamed, prompt_len: prompt_len(request) };
        let span = spans::begin(notes, &self.places, &asked)?;
        let mut headers = Vec::new();
        spans::propagate(&self.telemetry, &span, &mut headers);
        if !headers.is_empty() {
            // What the caller has set himself holds.
            headers
                .retain(|(name, _)| !request.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
            *request = std::mem::take(request).with(|body| body.headers.append(&mut headers));
        }
        Some(span)
    }

    fn taking(&self, notes: Arc<Notes>, request: &LlmRequest, streamed: bool) -> Open {
        let (telemetry, places) = (Arc::clone(&self.telemetry), Arc::clone(&self.places));
        Open(Taking::of_request(notes, telemetry, places, (request, streamed), self.cache))
    }
}

/// A record that is completed when it is let go of.
struct Open(Arc<Taking>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dropped();
    }
}

#[async_trait]
impl LlmProvider for Recorded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    // Handed on as it is while nobody listens: a future around it would cost an allocation and move the answer.
    fn generate<'life0, 'async_trait>(
        &'life0 self,
        request: LlmRequest,
    ) -> BoxFuture<'async_trait, Result<LlmResponse, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let Some(notes) = self.notes() else { return self.inner.generate(request) };
        let mut request = request;
        let span = self.span(&notes, &mut request, false);
        Box::pin(spans::within(span, async move {
            let call = Call::noted(Arc::clone(&notes));
            let open = self.taking(notes, &request, false);
            let mut work = pin!(call.scope(self.inner.generate(request)));
            // When this is given up, the record is completed before the work goes, and sees what is on its way.
            let open = open;
            let outcome = work.as_mut().await;
            match &outcome {
                Ok(answer) => open.0.answered(answer),
                Err(error) => open.0.failed(error),
            }
            outcome
        }))
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let Some(notes) = self.notes() else { return self.inner.stream(request).await };
        let mut request = request;
        let span = self.span(&notes, &mut request, true);
        let reading = span.clone();
        let work = async move {
            let call = Call::noted(Arc::clone(&notes));
            let open = self.taking(notes, &request, true);
            let mut work = pin!(call.scope(self.inner.stream(request)));
            let open = open;
            match work.as_mut().await {
                Ok(chunks) => Ok(Box::pin(Recording { chunks, open, span: reading }) as ChunkStream),
                Err(error) => {
                    open.0.failed(&error);
                    Err(error)
                }
            }
        };
        spans::within(span, work).await
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        let Some(notes) = self.notes() else { return self.inner.operate(operation).await };
        let asked = Asked { operation: &operation.name, model: "", streamed: false, prompt_len: 0 };
        let span = spans::begin(&notes, &self.places, &asked);
        let work = async move {
            let call = Call::noted(Arc::clone(&notes));
            let (telemetry, places) = (Arc::clone(&self.telemetry), Arc::clone(&self.places));
            let open = Open(Taking::of_operation(notes, telemetry, places, &operation));
            let mut work = pin!(call.scope(self.inner.operate(operation)));
            let open = open;
            let outcome = work.as_mut().await;
            match &outcome {
                Ok(_) => open.0.done(),
                Err(error) => open.0.failed(error),
            }
            outcome
        };
        spans::within(span, work).await
    }
}

/// A stream whose pieces are noted.
struct Recording {
    chunks: ChunkStream,
    open: Open,
    /// The call's span, until it is over.
    span: Option<Span>,
}

impl Stream for Recording {
    type Item = Result<LlmChunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { chunks, open, span } = &mut *self;
        let polled = match span {
            Some(span) => span.in_scope(|| chunks.as_mut().poll_next(context)),
            None => chunks.as_mut().poll_next(context),
        };
        match &polled {
            Poll::Ready(Some(Ok(chunk))) => open.0.piece(chunk),
            Poll::Ready(Some(Err(error))) => {
                open.0.failed(error);
                *span = None;
            }
            Poll::Ready(None) => {
                open.0.done();
                *span = None;
            }
            Poll::Pending => {}
        }
        polled
    }
}
