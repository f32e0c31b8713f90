//! The outermost layer: notes each call and hands its record to whoever wants it. Costs nothing while nobody does.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::BoxFuture;

use super::describe::prompt_len;
use super::spans::{self, Asked, Span};
use super::taking::{Clerk, Taking};
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
    clerk: Arc<Clerk>,
    /// Whether answers may come from a response cache.
    cache: bool,
}

impl Recorded {
    pub(crate) fn new(inner: Arc<dyn LlmProvider>, telemetry: Arc<Telemetry>, places: Arc<Places>) -> Self {
        Self { inner, clerk: Arc::new(Clerk { telemetry, places }), cache: false }
    }

    /// Says whether answers may come from a response cache.
    pub(crate) fn with_cache(self, cache: bool) -> Self {
        Self { cache, ..self }
    }

    /// Where to note a call, when somebody wants to know. A client inside a client's call leaves that to the outer one.
    fn notes(&self) -> Option<Arc<Notes>> {
        match call::notes() {
            Some(notes) => notes.claim().then_some(notes),
            None if self.clerk.telemetry.is_listened_to() || spans::wanted() => {
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
        let span = spans::begin(notes, &self.clerk.places, &asked)?;
        let mut headers = Vec::new();
        spans::propagate(&self.clerk.telemetry, &span, &mut headers);
        if !headers.is_empty() {
            // What the caller has set himself holds.
            headers
                .retain(|(name, _)| !request.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
            *request = std::mem::take(request).with(|body| body.headers.append(&mut headers));
        }
        Some(span)
    }

    fn begun(&self, notes: Arc<Notes>, request: &LlmRequest, streamed: bool) -> Open {
        Open(Taking::of_request(notes, &self.clerk, (request, streamed), self.cache))
    }
}

/// A record that is completed when it is let go of.
struct Open(Taking);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dropped();
    }
}

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
        let call = call::opened(&notes);
        let caller = spans::current();
        if caller.is_none() {
            return Box::pin(Noting { layer: self, call, state: State::New(notes, request) });
        }
        // The span begins with the work, for the caller may yet put this into a span of his own.
        Box::pin(async move {
            let mut request = request;
            let span = spans::inside(caller, || self.span(&notes, &mut request, false));
            spans::within(span, Noting { layer: self, call, state: State::New(notes, request) }).await
        })
    }

    fn stream<'life0, 'async_trait>(
        &'life0 self,
        request: LlmRequest,
    ) -> BoxFuture<'async_trait, Result<ChunkStream, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let Some(notes) = self.notes() else { return self.inner.stream(request) };
        let call = call::opened(&notes);
        let caller = spans::current();
        Box::pin(async move {
            let mut request = request;
            let span = spans::inside(caller, || self.span(&notes, &mut request, true));
            let reading = span.clone();
            let work = async move {
                let open = self.begun(notes, &request, true);
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
        })
    }

    fn operate<'life0, 'async_trait>(
        &'life0 self,
        operation: Operation,
    ) -> BoxFuture<'async_trait, Result<RawJson, LlmError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let Some(notes) = self.notes() else { return self.inner.operate(operation) };
        let call = call::opened(&notes);
        let caller = spans::current();
        Box::pin(async move {
            let asked = Asked { operation: &operation.name, model: "", streamed: false, prompt_len: 0 };
            let span = spans::inside(caller, || spans::begin(&notes, &self.clerk.places, &asked));
            let work = async move {
                let open = Open(Taking::of_operation(notes, &self.clerk, &operation));
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
        })
    }
}

/// How far a call for a whole answer is.
enum State<'a> {
    New(Arc<Notes>, LlmRequest),
    Runs(Open, BoxFuture<'a, Result<LlmResponse, LlmError>>),
    Over,
}

/// A call for a whole answer that is noted. Written by hand: an answer is large, and each layer of futures moves it.
struct Noting<'a> {
    layer: &'a Recorded,
    call: Arc<Call>,
    state: State<'a>,
}

impl Future for Noting<'_> {
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { layer, call, state } = self.get_mut();
        if let State::New(..) = state
            && let State::New(notes, request) = std::mem::replace(state, State::Over)
        {
            let open = layer.begun(notes, &request, false);
            *state = State::Runs(open, layer.inner.generate(request));
        }
        let mut polled = Poll::Pending;
        if let State::Runs(open, work) = state {
            Arc::clone(call).during(|| polled = work.as_mut().poll(context));
            match &polled {
                Poll::Ready(Ok(answer)) => open.0.answered(answer),
                Poll::Ready(Err(error)) => open.0.failed(error),
                Poll::Pending => {}
            }
        }
        if polled.is_ready() {
            let_go(call, state);
        }
        polled
    }
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        let_go(&self.call, &mut self.state);
    }
}

/// Lets go of what is left. The record of a call that is given up is completed before the work goes, and sees what is on
/// its way; what goes may ask which call it belongs to.
fn let_go(call: &Arc<Call>, state: &mut State<'_>) {
    if let State::Runs(open, work) = std::mem::replace(state, State::Over) {
        drop(open);
        Arc::clone(call).during(|| drop(work));
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
