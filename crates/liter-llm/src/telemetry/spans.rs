//! Spans and events for the crate `tracing`: a span for a call, one for each request sent for it, events between them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
pub(super) use tracing::Span;
use tracing::{Instrument, Level, debug, field::Empty, info, info_span, span_enabled, warn};

use super::names::attribute;
use super::said::{count, say};
use super::told::{POST, of_attempt, of_call};
use super::{Places, Telemetry};
use crate::core::notes::{Notes, Watcher};
use crate::core::notices::Notice;
use crate::core::record::CallRecord;
use crate::core::response::Attempt;

/// The name of a request that is none over HTTP; the others have their method for a name.
const ATTEMPT: &str = "attempt";

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
    /// When it was sent, by the clock.
    at: Instant,
    span: Span,
}

impl Sent {
    fn is(&self, deployment: &str, started: f64) -> bool {
        self.deployment == deployment && self.started == started
    }
}

#[derive(Default)]
struct Open {
    call: Option<Span>,
    sent: Vec<Sent>,
    /// The deployments that something was sent to so far.
    asked: Vec<String>,
    /// The deployment and error of the newest failure.
    failed: Option<(String, String)>,
}

/// The spans of one call.
struct CallSpans {
    places: Arc<Places>,
    /// The model that the caller has named.
    model: String,
    /// The name that the call's span has at its beginning.
    named: String,
    /// What the call's span has said at its beginning, and need not say again: an exporter would have it twice.
    said: Vec<&'static str>,
    open: Mutex<Open>,
}

/// Begins the span of a call, inside of the caller's own; `None` when nobody wants it.
pub(super) fn begin(notes: &Notes, places: &Arc<Places>, asked: &Asked<'_>) -> Option<Span> {
    if !wanted() {
        return None;
    }
    let one = places.one().map(|known| &known.place);
    let model = one.map_or(asked.model, |place| place.model_asked(asked.model, false));
    // Among several, a deployment's name is not yet the name of a model.
    let known = !model.is_empty() && (one.is_some() || !(model.contains('/') || places.get(model).is_some()));
    let known_model = Some(model).filter(|_| known);
    let provider = one.map(|place| place.provider.as_str()).filter(|provider| !provider.is_empty());
    let server_address = one.and_then(|place| place.server_address.as_deref());
    let server_port = one.and_then(|place| place.server_port);
    let named = name(asked.operation, model);
    let call = info_span!(
        "llm_call",
        { attribute::OTEL_NAME } = named.as_str(),
        { attribute::OTEL_KIND } = "client",
        { attribute::OTEL_STATUS } = Empty,
        { attribute::PROVIDER } = provider,
        { attribute::MODEL } = known_model,
        { attribute::PROMPT_LEN } = count(asked.prompt_len),
        { attribute::OPERATION } = asked.operation,
        { attribute::PROVIDER_NAME } = provider,
        { attribute::REQUEST_MODEL } = known_model,
        { attribute::STREAM } = asked.streamed.then_some(true),
        { attribute::MAX_TOKENS } = Empty,
        { attribute::TEMPERATURE } = Empty,
        { attribute::TOP_P } = Empty,
        { attribute::TOP_K } = Empty,
        { attribute::SEED } = Empty,
        { attribute::FREQUENCY_PENALTY } = Empty,
        { attribute::PRESENCE_PENALTY } = Empty,
        { attribute::STOP_SEQUENCES } = Empty,
        { attribute::OUTPUT_TYPE } = Empty,
        { attribute::REASONING_EFFORT } = Empty,
        { attribute::OPENAI_REQUEST_SERVICE_TIER } = Empty,
        { attribute::OPENAI_RESPONSE_SERVICE_TIER } = Empty,
        { attribute::REQUEST_SERVICE_TIER } = Empty,
        { attribute::RESPONSE_SERVICE_TIER } = Empty,
        { attribute::MESSAGES } = Empty,
        { attribute::TOOLS } = Empty,
        { attribute::RESPONSE_MODEL } = Empty,
        { attribute::RESPONSE_ID } = Empty,
        { attribute::REQUEST_ID } = Empty,
        { attribute::FINISH_REASONS } = Empty,
        { attribute::FIRST_CHUNK } = Empty,
        { attribute::CHUNKS } = Empty,
        { attribute::INPUT_TOKENS } = Empty,
        { attribute::OUTPUT_TOKENS } = Empty,
        { attribute::CACHE_READ } = Empty,
        { attribute::CACHE_CREATION } = Empty,
        { attribute::REASONING } = Empty,
        { attribute::SERVER_ADDRESS } = server_address,
        { attribute::SERVER_PORT } = server_port.map(i64::from),
        { attribute::ERROR } = Empty,
        { attribute::DEPLOYMENT } = Empty,
        { attribute::REGION } = Empty,
        { attribute::COST } = Empty,
        { attribute::CACHED } = Empty,
        { attribute::ADJUSTED } = Empty,
        { attribute::POLICY } = Empty,
        { attribute::NOTES } = Empty,
        { attribute::RETRIES } = Empty,
        { attribute::RETRY_REASONS } = Empty,
        { attribute::FALLBACKS } = Empty,
        { attribute::FALLBACK_REASONS } = Empty,
        { attribute::ATTEMPTS } = Empty,
    );
    let said = [
        (attribute::OPERATION, true),
        (attribute::PROVIDER_NAME, provider.is_some()),
        (attribute::REQUEST_MODEL, known),
        (attribute::SERVER_ADDRESS, server_address.is_some()),
        (attribute::SERVER_PORT, server_port.is_some()),
    ];
    let said = said.into_iter().filter_map(|(name, said)| said.then_some(name)).collect();
    let open = Mutex::new(Open { call: Some(call.clone()), ..Open::default() });
    let model = asked.model.to_owned();
    notes.watch(Arc::new(CallSpans { places: Arc::clone(places), model, named, said, open }));
    Some(call)
}

/// The span at hand, when anybody wants spans.
pub(super) fn current() -> Option<Span> {
    wanted().then(Span::current)
}

/// Does something inside of the span at hand, or where there is none inside of the caller's.
pub(super) fn inside<T>(caller: Option<Span>, work: impl FnOnce() -> T) -> T {
    match caller {
        Some(caller) if Span::current().is_none() => caller.in_scope(work),
        _ => work(),
    }
}

/// Does the work of a call inside of its span.
pub(super) fn within<'a, F: Future + Send + 'a>(span: Option<Span>, work: F) -> BoxFuture<'a, F::Output> {
    match span {
        Some(span) => Box::pin(work.instrument(span)),
        None => Box::pin(work),
    }
}

fn name(operation: &str, model: &str) -> String {
    match model.is_empty() {
        true => operation.to_owned(),
        false => format!("{operation} {model}"),
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

/// What came of a request.
fn settle(span: &Span, attempt: &Attempt) {
    say(span, of_attempt(attempt));
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
            let at = open.sent.iter().position(|sent| sent.is(&attempt.deployment, attempt.started))?;
            Some(open.sent.remove(at))
        })
    }

    /// A request's span, and how long ago it was sent.
    fn find(&self, deployment: &str, started: f64) -> Option<(Span, Duration)> {
        self.open(|open| {
            let sent = open.sent.iter().find(|sent| sent.is(deployment, started))?;
            Some((sent.span.clone(), sent.at.elapsed()))
        })
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
        let place = self.places.get(deployment).map(|known| &known.place);
        let model = place.map(|place| place.model_asked(&self.model, self.places.one().is_none()));
        let address = place.and_then(|place| place.server_address.as_deref());
        let method = address.map(|_| POST);
        let before = self.open(|open| {
            let before = open.asked.iter().filter(|asked| *asked == deployment).count();
            open.asked.push(deployment.to_owned());
            before
        });
        let span = info_span!(
            parent: &call,
            "llm_attempt",
            { attribute::OTEL_NAME } = method.unwrap_or(ATTEMPT),
            { attribute::OTEL_KIND } = "client",
            { attribute::OTEL_STATUS } = Empty,
            { attribute::DEPLOYMENT } = deployment,
            { attribute::PROVIDER_NAME } = place.map(|place| place.provider.as_str()),
            { attribute::REQUEST_MODEL } = model.filter(|model| !model.is_empty()),
            { attribute::REGION } = place.and_then(|place| place.region.as_deref()),
            { attribute::SERVER_ADDRESS } = address,
            { attribute::SERVER_PORT } = place.and_then(|place| place.server_port).map(i64::from),
            { attribute::METHOD } = method,
            { attribute::RESEND_COUNT } = Some(count(before)).filter(|before| method.is_some() && *before > 0),
            { attribute::STATUS } = Empty,
            { attribute::CAUSE } = Empty,
            { attribute::REASON } = Empty,
            { attribute::WAIT } = Empty,
            { attribute::QUEUED } = Empty,
            { attribute::CONNECT } = Empty,
            { attribute::FIRST_BYTE } = Empty,
            { attribute::ERROR } = Empty,
        );
        let sent = Sent { deployment: deployment.to_owned(), started, at: Instant::now(), span };
        self.open(|open| open.sent.push(sent));
    }

    fn connected(&self, deployment: &str, started: f64, took: Duration) {
        let Some((span, _)) = self.find(deployment, started) else { return };
        debug!(parent: &span, message = "connected", { attribute::CONNECT } = took.as_secs_f64());
    }

    fn begun(&self, deployment: &str, started: f64) {
        let Some((span, since)) = self.find(deployment, started) else { return };
        debug!(parent: &span, message = "first byte", { attribute::FIRST_BYTE } = since.as_secs_f64());
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
        let name = name(&record.operation, &record.model);
        if name != self.named {
            rename(&call, name);
        }
        let mut attributes = of_call(record);
        attributes.retain(|name, _| !self.said.contains(&name.as_str()));
        for (own, name) in
            [(attribute::PROVIDER, attribute::PROVIDER_NAME), (attribute::MODEL, attribute::REQUEST_MODEL)]
        {
            if let Some(value) = attributes.get(name).cloned() {
                attributes.insert(own.to_owned(), value);
            }
        }
        attributes.insert(attribute::ATTEMPTS.to_owned(), count(record.attempts.len()).into());
        say(&call, attributes);
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
    let left_out = i64::try_from(*left_out).unwrap_or(i64::MAX);
    if kind.is_warning() {
        warn!(
            message = kind.as_str(),
            { attribute::DEPLOYMENT } = deployment,
            { attribute::DETAIL } = detail,
            { attribute::LEFT_OUT } = left_out,
        );
    } else {
        info!(
            message = kind.as_str(),
            { attribute::DEPLOYMENT } = deployment,
            { attribute::DETAIL } = detail,
            { attribute::LEFT_OUT } = left_out,
        );
    }
}

/// An event for somebody who has panicked when he heard of a call.
pub(super) fn panicked(event: &'static str) {
    warn!(message = event);
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
