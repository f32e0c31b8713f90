//! Spans and events for the crate `tracing`: a span for a call, one for each request sent for it, events between them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub(super) use tracing::Span;
use tracing::{Instrument, Level, debug, field::Empty, info, info_span, span_enabled, trace, warn};

use super::names::attribute;
use super::{Places, Telemetry};
use crate::core::notes::{Notes, Watcher};
use crate::core::notices::Notice;
use crate::core::record::CallRecord;
use crate::core::response::{Attempt, AttemptCause};

/// Whether anybody wants spans: a load and a branch while nobody does.
pub(super) fn wanted() -> bool {
    span_enabled!(Level::INFO)
}

/// What of a call its span says at its beginning.
pub(super) struct Asked<'a> {
    pub operation: &'a str,
    pub model: &'a str,
    pub streamed: bool,
    pub prompt_len: usize,
}

/// A request on its way, and its span.
struct Sent {
    deployment: String,
    started: f64,
    span: Span,
}

#[derive(Default)]
struct Open {
    call: Option<Span>,
    sent: Vec<Sent>,
    /// The deployment and error of the newest failure.
    failed: Option<(String, String)>,
}

/// The spans of one call.
struct CallSpans {
    places: Arc<Places>,
    open: Mutex<Open>,
}

/// Begins the span of a call, inside of the caller's own; `None` when nobody wants it.
pub(super) fn begin(notes: &Notes, places: &Arc<Places>, asked: &Asked<'_>) -> Option<Span> {
    if !wanted() {
        return None;
    }
    let one = (places.len() == 1).then(|| places.values().next()).flatten();
    let model = match (asked.model.is_empty(), one) {
        (true, Some(place)) => &place.model,
        _ => asked.model,
    };
    let provider = one.map(|place| place.provider.as_str());
    let call = info_span!(
        "llm_call",
        { attribute::OTEL_NAME } = name(asked.operation, model),
        { attribute::OTEL_KIND } = "client",
        { attribute::OTEL_STATUS } = Empty,
        { attribute::PROVIDER } = provider,
        { attribute::MODEL } = model,
        { attribute::PROMPT_LEN } = asked.prompt_len,
        { attribute::OPERATION } = asked.operation,
        { attribute::PROVIDER_NAME } = provider,
        { attribute::REQUEST_MODEL } = model,
        { attribute::STREAM } = asked.streamed,
        { attribute::MAX_TOKENS } = Empty,
        { attribute::TEMPERATURE } = Empty,
        { attribute::TOP_P } = Empty,
        { attribute::RESPONSE_MODEL } = Empty,
        { attribute::RESPONSE_ID } = Empty,
        { attribute::FINISH_REASONS } = Empty,
        { attribute::FIRST_CHUNK } = Empty,
        { attribute::INPUT_TOKENS } = Empty,
        { attribute::OUTPUT_TOKENS } = Empty,
        { attribute::CACHE_READ } = Empty,
        { attribute::CACHE_CREATION } = Empty,
        { attribute::REASONING } = Empty,
        { attribute::SERVER_ADDRESS } = Empty,
        { attribute::SERVER_PORT } = Empty,
        { attribute::ERROR } = Empty,
        { attribute::DEPLOYMENT } = Empty,
        { attribute::REGION } = Empty,
        { attribute::COST } = Empty,
        { attribute::CACHED } = Empty,
        { attribute::ATTEMPTS } = Empty,
    );
    let open = Mutex::new(Open { call: Some(call.clone()), ..Open::default() });
    notes.watch(Arc::new(CallSpans { places: Arc::clone(places), open }));
    Some(call)
}

/// Does the work of a call inside of its span.
pub(super) async fn within<F: Future>(span: Option<Span>, work: F) -> F::Output {
    match span {
        Some(span) => work.instrument(span).await,
        None => work.await,
    }
}

fn name(operation: &str, model: &str) -> String {
    match model.is_empty() {
        true => operation.to_owned(),
        false => format!("{operation} {model}"),
    }
}

const fn cause(cause: AttemptCause) -> &'static str {
    match cause {
        AttemptCause::Retry => "retry",
        AttemptCause::Fallback => "fallback",
        AttemptCause::Resend => "resend",
        AttemptCause::Hedge => "hedge",
    }
}

/// Names a span anew: of several deployments, only the end says which model it was.
fn rename(span: &Span, name: String) {
    #[cfg(feature = "opentelemetry")]
    {
        use opentelemetry::trace::TraceContextExt as _;
        use tracing_opentelemetry::OpenTelemetrySpanExt as _;
        // A span that has begun takes no new name by its field.
        span.context().span().update_name(name.clone());
    }
    span.record(attribute::OTEL_NAME, name);
}

/// What came of a request. A reason is left out: it may be in a provider's words.
fn settle(span: &Span, attempt: &Attempt) {
    span.record(attribute::STATUS, attempt.status);
    span.record(attribute::CAUSE, attempt.cause.map(cause));
    span.record(attribute::WAIT, attempt.wait);
    span.record(attribute::CONNECT, attempt.connect);
    failed(span, attempt.error.as_deref());
}

fn failed(span: &Span, error: Option<&str>) {
    if let Some(error) = error {
        span.record(attribute::ERROR, error);
        span.record(attribute::OTEL_STATUS, "ERROR");
    }
}

impl CallSpans {
    fn open<T>(&self, look: impl FnOnce(&mut Open) -> T) -> T {
        look(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, attempt: &Attempt) -> Option<Sent> {
        self.open(|open| {
            let is = |sent: &Sent| sent.deployment == attempt.deployment && sent.started == attempt.started;
            let at = open.sent.iter().position(is)?;
            Some(open.sent.remove(at))
        })
    }

    fn newest(&self) -> Option<Span> {
        self.open(|open| open.sent.last().map(|sent| sent.span.clone()))
    }
}

impl Watcher for CallSpans {
    fn sending(&self, deployment: &str, started: f64) {
        let (call, before) = self.open(|open| (open.call.clone(), open.failed.take()));
        let Some(call) = call else { return };
        match before {
            Some((from, error)) if from == deployment => info!(
                parent: &call,
                message = "retry",
                { attribute::DEPLOYMENT } = deployment,
                { attribute::ERROR } = error,
            ),
            Some((from, error)) => info!(
                parent: &call,
                message = "fallback",
                { attribute::FROM } = from,
                { attribute::DEPLOYMENT } = deployment,
                { attribute::ERROR } = error,
            ),
            None => {}
        }
        let place = self.places.get(deployment);
        let span = info_span!(
            parent: &call,
            "llm_attempt",
            { attribute::OTEL_NAME } = format!("attempt {deployment}"),
            { attribute::OTEL_KIND } = "client",
            { attribute::OTEL_STATUS } = Empty,
            { attribute::DEPLOYMENT } = deployment,
            { attribute::PROVIDER_NAME } = place.map(|place| place.provider.as_str()),
            { attribute::REQUEST_MODEL } = place.map(|place| place.model.as_str()).filter(|model| !model.is_empty()),
            { attribute::REGION } = place.and_then(|place| place.region.as_deref()),
            { attribute::SERVER_ADDRESS } = place.and_then(|place| place.server_address.as_deref()),
            { attribute::SERVER_PORT } = place.and_then(|place| place.server_port),
            { attribute::STATUS } = Empty,
            { attribute::CAUSE } = Empty,
            { attribute::WAIT } = Empty,
            { attribute::CONNECT } = Empty,
            { attribute::ERROR } = Empty,
        );
        self.open(|open| open.sent.push(Sent { deployment: deployment.to_owned(), started, span }));
    }

    fn connected(&self, took: Duration) {
        let Some(span) = self.newest() else { return };
        debug!(parent: &span, message = "connected", { attribute::CONNECT } = took.as_secs_f64());
    }

    fn begun(&self) {
        let Some(span) = self.newest() else { return };
        trace!(parent: &span, "first byte");
    }

    fn over(&self, attempts: &[Attempt]) {
        for attempt in attempts {
            if let Some(sent) = self.take(attempt) {
                settle(&sent.span, attempt);
                let error = attempt.error.clone().unwrap_or_default();
                self.open(|open| open.failed = Some((sent.deployment, error)));
            }
        }
    }

    fn finished(&self, record: &CallRecord) {
        for attempt in &record.attempts {
            if let Some(sent) = self.take(&attempt.attempt) {
                settle(&sent.span, &attempt.attempt);
            }
        }
        let (call, left) = self.open(|open| (open.call.take(), std::mem::take(&mut open.sent)));
        drop(left);
        let Some(call) = call else { return };
        rename(&call, name(&record.operation, &record.model));
        call.record(attribute::PROVIDER, &record.provider);
        call.record(attribute::MODEL, &record.model);
        call.record(attribute::PROVIDER_NAME, &record.provider);
        call.record(attribute::REQUEST_MODEL, &record.model);
        call.record(attribute::MAX_TOKENS, record.parameters.max_tokens);
        call.record(attribute::TEMPERATURE, record.parameters.temperature);
        call.record(attribute::TOP_P, record.parameters.top_p);
        call.record(attribute::RESPONSE_MODEL, record.response_model.as_deref());
        call.record(attribute::RESPONSE_ID, record.response_id.as_deref());
        let reason = record.finish_reason.and_then(|reason| serde_json::to_value(reason).ok());
        call.record(attribute::FINISH_REASONS, reason.as_ref().and_then(|reason| reason.as_str()));
        call.record(attribute::FIRST_CHUNK, record.first_chunk);
        if let Some(usage) = &record.usage {
            call.record(attribute::INPUT_TOKENS, usage.input_tokens);
            call.record(attribute::OUTPUT_TOKENS, usage.output_tokens);
            call.record(attribute::CACHE_READ, usage.cache_read_input_tokens);
            call.record(attribute::CACHE_CREATION, usage.cache_creation_input_tokens);
            call.record(attribute::REASONING, usage.reasoning_output_tokens);
        }
        call.record(attribute::SERVER_ADDRESS, record.server_address.as_deref());
        call.record(attribute::SERVER_PORT, record.server_port);
        call.record(attribute::DEPLOYMENT, &record.deployment);
        call.record(attribute::REGION, record.region.as_deref());
        call.record(attribute::COST, record.cost);
        call.record(attribute::CACHED, record.cached);
        call.record(attribute::ATTEMPTS, record.attempts.len());
        failed(&call, record.error.as_ref().map(|error| error.kind.as_str()));
        // A span counts as ended when it was left last, and a stream is left between its pieces: this is the end.
        call.in_scope(|| ());
    }
}

/// An event for a notice.
pub(super) fn event(notice: &Notice) {
    let Notice { kind, deployment, detail, left_out, .. } = notice;
    let deployment = Some(deployment.as_str()).filter(|name| !name.is_empty());
    let detail = Some(detail.as_str()).filter(|detail| !detail.is_empty());
    if kind.is_warning() {
        warn!(
            message = kind.as_str(),
            { attribute::DEPLOYMENT } = deployment,
            { attribute::DETAIL } = detail,
            { attribute::LEFT_OUT } = *left_out,
        );
    } else {
        info!(
            message = kind.as_str(),
            { attribute::DEPLOYMENT } = deployment,
            { attribute::DETAIL } = detail,
            { attribute::LEFT_OUT } = *left_out,
        );
    }
}

/// `traceparent` and `tracestate` of a call's span, for the provider, where the client was told to send them.
#[cfg(feature = "opentelemetry")]
pub(super) fn propagate(telemetry: &Telemetry, span: &Span, headers: &mut Vec<(String, String)>) {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    if !telemetry.propagates() {
        return;
    }
    let context = span.context();
    let span = context.span();
    let of = span.span_context();
    if of.is_valid() {
        let flags = of.trace_flags().to_u8();
        headers.push((TRACEPARENT.to_owned(), format!("00-{}-{}-{flags:02x}", of.trace_id(), of.span_id())));
        let state = of.trace_state().header();
        if !state.is_empty() {
            headers.push((TRACESTATE.to_owned(), state));
        }
    }
}

#[cfg(feature = "opentelemetry")]
const TRACEPARENT: &str = "traceparent";
#[cfg(feature = "opentelemetry")]
const TRACESTATE: &str = "tracestate";

#[cfg(not(feature = "opentelemetry"))]
pub(super) fn propagate(_: &Telemetry, _: &Span, _: &mut Vec<(String, String)>) {}
