//! Adapter + transport + credential: the only provider that touches the network.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use crate::adapters::{Adapter, Quirks, Target, WireRequest, headers as wire_headers};
use crate::config::TimeLimits;
use crate::core::call;
use crate::core::chunk::{Facts, LlmChunk};
use crate::core::cost::Pricing;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::fold::{Folder, unfold};
use crate::core::json::{Extra, MAX_NESTING, nests_too_deep};
use crate::core::provider::{ChunkStream, LlmProvider};
use crate::core::request::LlmRequest;
use crate::core::response::{Adjustment, Attempt, AttemptCause, LlmResponse, Timing};
use crate::credentials::{Credential, TokenHttp};
use crate::locate::push;
use crate::reading::{Bill, Reading};
use crate::transports::http::{BodyStream, HttpAnswer, HttpTransport, Limits, parse_base_url};
use crate::transports::is_stale_connection;
use crate::transports::websocket_pool::{WebSocketLease, WebSocketPool};
use crate::transports::websockets::{Handshake, connect};

/// How the endpoint's bytes travel.
pub(crate) enum Wire {
    /// HTTP, with Server-Sent Events for streams.
    Http,
    /// A WebSocket; whole answers are folded from the stream.
    #[cfg_attr(not(feature = "websocket"), expect(dead_code, reason = "none is made"))]
    WebSocket(WebSocketPool),
}

/// A deployment ready to call.
pub(crate) struct Endpoint {
    pub provider: String,
    pub name: String,
    pub model: String,
    pub base: Url,
    /// A path of the adapter's and its URL below the base, as they were last asked for.
    pub joined: OnceLock<(&'static str, Url)>,
    pub model_in_path: bool,
    pub quirks: Quirks,
    pub adapter: Arc<dyn Adapter>,
    pub credential: Arc<dyn Credential>,
    pub http: Arc<HttpTransport>,
    pub wire: Wire,
    pub limits: TimeLimits,
    /// Whether a request may be sent again after the connection broke before any byte of an answer.
    pub resend_after_send: bool,
    /// Everything that is the same for each request, static credentials included.
    pub headers: HeaderMap,
    /// The deployment's own headers, which a request's beat.
    pub own_headers: Vec<(String, String)>,
    pub extra: Extra,
    /// Prices the answers.
    pub pricing: Arc<dyn Pricing>,
}

/// One request on its way, and what is known of it.
pub(crate) struct Sent {
    pub started: Instant,
    pub attempt: Attempt,
    /// What was sent before for the same try: over a stale connection, or with a token that was refused.
    earlier: Vec<Attempt>,
    creates: bool,
}

impl Sent {
    fn new() -> Self {
        let attempt = Attempt::default();
        Self { started: Instant::now(), attempt, earlier: Vec::new(), creates: false }
    }

    fn begin(&mut self, deployment: &str, creates: bool) {
        self.started = Instant::now();
        self.creates = creates;
        deployment.clone_into(&mut self.attempt.deployment);
        self.attempt.started = call::sending(deployment);
    }

    /// The answer's headers are there, and its status.
    fn answered(&mut self, status: u16) {
        self.attempt.status = Some(status);
        self.attempt.first_byte = Some(self.started.elapsed().as_secs_f64());
    }

    /// This one is over and is followed by another, for `reason`.
    fn again(&mut self, error: ErrorKind, reason: &str) {
        let mut attempt = self.over();
        attempt.error = Some(error.as_str().to_owned());
        attempt.reason = Some(reason.to_owned());
        call::over(&attempt);
        self.earlier.push(attempt);
        self.attempt.cause = Some(AttemptCause::Resend);
    }

    fn over(&mut self) -> Attempt {
        let mut attempt = std::mem::take(&mut self.attempt);
        attempt.duration = self.started.elapsed().as_secs_f64();
        attempt.connect = call::connecting();
        attempt
    }

    fn finish(&mut self) -> Vec<Attempt> {
        let attempt = self.over();
        let mut attempts = std::mem::take(&mut self.earlier);
        attempts.push(attempt);
        attempts
    }
}

const STALE: &str = "sent again at once: the host had closed the idle connection";

impl Endpoint {
    pub(crate) fn target(&self, stream: bool) -> Target<'_> {
        Target { provider: &self.provider, model: &self.model, quirks: &self.quirks, stream }
    }

    /// The deployment's own vendor fields and headers under those of the request.
    fn with_defaults(&self, request: LlmRequest) -> LlmRequest {
        if self.extra.is_empty() && self.own_headers.is_empty() {
            return request;
        }
        request.with(|body| {
            let mut extra = self.extra.clone();
            extra.extend(std::mem::take(&mut body.extra));
            body.extra = extra;
            let own = self.own_headers.iter();
            let absent = own
                .filter(|(name, _)| !body.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)));
            let absent: Vec<_> = absent.cloned().collect();
            body.headers.extend(absent);
        })
    }

    fn url(&self, path: &'static str, request: &LlmRequest) -> Result<Url, LlmError> {
        if !self.model_in_path
            && let Some((known, url)) = self.joined.get()
            && *known == path
        {
            return Ok(url.clone());
        }
        let mut url = self.base.clone();
        if self.model_in_path {
            push(&mut url, &[self.target(false).model_of(request)])?;
        }
        let joined = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
        if !self.model_in_path {
            // Only the first path is remembered: an endpoint has one.
            let _ = self.joined.set((path, url.clone()));
        }
        Ok(url)
    }

    /// Everything that can be refused before a byte is sent.
    fn encode(&self, request: &LlmRequest, stream: bool) -> Result<WireRequest, LlmError> {
        request.validate()?;
        let target = self.target(stream);
        if target.model_of(request).is_empty() {
            return Err(LlmError::invalid(
                "model",
                "`model` is missing: name it in the configuration or the call",
            ));
        }
        let wire = self.adapter.encode(request, &target)?;
        if nests_too_deep(&wire.body) {
            return Err(LlmError::invalid(
                "request",
                format!("arrays and objects in the request are nested more than {MAX_NESTING} deep"),
            ));
        }
        Ok(wire)
    }

    async fn headers_for(&self, wire: &WireRequest, request: &LlmRequest) -> Result<HeaderMap, LlmError> {
        let mut headers = self.headers.clone();
        for (name, value) in &request.headers {
            insert(&mut headers, name, value)?;
        }
        // The adapter has seen the request's headers: where it names one too, it has merged them.
        for (name, value) in &wire.headers {
            insert(&mut headers, name, value)?;
        }
        if self.credential.static_headers().is_none() {
            self.credential.authorize(&mut headers).await?;
        }
        Ok(headers)
    }

    /// Encodes and sends; gives the answer with its headers read. A rejected token is replaced once.
    async fn send(
        &self,
        request: &LlmRequest,
        stream: bool,
        sent: &mut Sent,
    ) -> Result<(HttpAnswer, WireRequest), LlmError> {
        let mut wire = self.encode(request, stream)?;
        let url = self.url(wire.path, request)?;
        let body = bytes::Bytes::from(std::mem::take(&mut wire.body));
        let limits = Limits { first_byte: Some(self.limits.first_byte) };
        let mut rejected = false;
        loop {
            let mut headers = self.headers_for(&wire, request).await?;
            let accept = if stream { "text/event-stream" } else { "application/json" };
            headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static(accept));
            sent.begin(&self.name, wire.creates);
            let answer = match self.http.post(&url, headers, body.clone(), &limits, !stream).await {
                Err(error) if self.may_resend(&error, sent) => {
                    sent.again(error.kind(), STALE);
                    continue;
                }
                outcome => outcome?,
            };
            sent.answered(answer.status);
            if answer.status == 401 && !rejected && self.credential.refresh_after_rejection().await {
                rejected = true;
                sent.again(ErrorKind::Authentication, "sent again with a new token");
                continue;
            }
            return Ok((answer, wire));
        }
    }

    /// Whether to send again at once, once: the connection was kept, and the host had closed it.
    fn may_resend(&self, error: &LlmError, sent: &Sent) -> bool {
        let resent = sent.earlier.iter().any(|attempt| attempt.reason.as_deref() == Some(STALE));
        self.resend_after_send && !sent.creates && !resent && is_stale_connection(error)
    }

    /// Whether the request must not be sent again after this failure, whatever the failure itself says.
    fn is_final(&self, error: &LlmError, sent: &Sent) -> bool {
        if sent.attempt.deployment.is_empty() || error.was_never_sent() {
            return false;
        }
        sent.creates || (!self.resend_after_send && error.is_unanswered())
    }

    /// The body of an answer; of a failure as much as there is, for the status has said what matters.
    async fn body(&self, status: u16, body: BodyStream) -> Result<bytes::Bytes, LlmError> {
        match body.collect(None, Some(self.limits.idle)).await {
            Err(_) if status >= 400 => Ok(bytes::Bytes::new()),
            outcome => outcome,
        }
    }

    /// Adds what this endpoint knows to an error.
    pub(crate) fn explain(&self, error: LlmError, request: &LlmRequest, sent: &mut Sent) -> LlmError {
        let kind = error.kind();
        let is_final = self.is_final(&error, sent);
        error.with(|detail| {
            if is_final {
                detail.retryable = Some(false);
            }
            detail.provider.get_or_insert_with(|| self.provider.clone());
            let model = self.target(false).model_of(request);
            if !model.is_empty() {
                detail.model.get_or_insert_with(|| model.to_owned());
            }
            if !sent.attempt.deployment.is_empty() && detail.attempts.is_empty() {
                detail.attempts = sent.finish();
                if let Some(last) = detail.attempts.last_mut() {
                    last.error = Some(kind.as_str().to_owned());
                }
            }
        })
    }

    async fn whole(&self, request: &LlmRequest, sent: &mut Sent) -> Result<LlmResponse, LlmError> {
        let begun = Instant::now();
        let (answer, wire) = self.send(request, false, sent).await?;
        call::answer_begun();
        let first_byte = begun.elapsed().as_secs_f64();
        let HttpAnswer { status, headers, body, .. } = answer;
        let body = self.body(status, body).await?;
        followable(&body, status)?;
        let mut response = self.adapter.decode(status, &headers, &body, &self.target(false))?;
        self.complete(&mut response, &headers, wire, (request, sent));
        response.raw = body;
        response.timing = Some(Timing {
            connect: response.attempts.last().and_then(|attempt| attempt.connect),
            first_byte: Some(first_byte),
            total: begun.elapsed().as_secs_f64(),
            ..Timing::default()
        });
        Ok(response)
    }

    /// The whole answer of a host that only streams.
    async fn folded(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let mut chunks = self.stream(request).await?;
        let mut folder = Folder::new();
        while let Some(chunk) = futures_util::StreamExt::next(&mut chunks).await {
            let chunk: LlmChunk = chunk?;
            folder.push(&chunk);
        }
        Ok(folder.finish())
    }

    /// What the endpoint knows about an answer besides its body.
    fn complete(
        &self,
        response: &mut LlmResponse,
        headers: &HeaderMap,
        wire: WireRequest,
        (request, sent): (&LlmRequest, &mut Sent),
    ) {
        response.cost = response.usage.as_ref().and_then(|usage| {
            let asked = request.model.as_deref();
            self.pricing.cost(asked, &response.model, usage, response.service_tier.as_deref()).map(Box::new)
        });
        response.provider.clone_from(&self.provider);
        if response.request_id.is_none() {
            response.request_id = wire_headers::request_id(headers);
        }
        if response.rate_limits.is_empty() {
            response.rate_limits = wire_headers::rate_limits(headers);
        }
        response.adjustments = wire.adjustments;
        response.attempts = sent.finish();
    }

    async fn open_http(&self, request: &LlmRequest, sent: &mut Sent) -> Result<ChunkStream, LlmError> {
        let begun = Instant::now();
        let (answer, wire) = self.send(request, true, sent).await?;
        call::answer_begun();
        let first_byte = begun.elapsed().as_secs_f64();
        let json = answer
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
        if answer.status >= 300 || json {
            // An error, or a host that answers whole although a stream was asked for.
            let HttpAnswer { status, headers, body, .. } = answer;
            let body = self.body(status, body).await?;
            followable(&body, status)?;
            let mut response = self.adapter.decode(status, &headers, &body, &self.target(true))?;
            self.complete(&mut response, &headers, wire, (request, sent));
            return Ok(Box::pin(stream::iter(unfold(&response).into_iter().map(Ok))));
        }
        let facts = Facts {
            provider: Some(self.provider.clone()),
            request_id: wire_headers::request_id(&answer.headers),
            rate_limits: wire_headers::rate_limits(&answer.headers),
            adjustments: wire.adjustments,
            ..Facts::default()
        };
        let decoder = self.adapter.decoder(&self.target(true));
        let reading = Reading::http(answer.body, decoder, self.limits.idle, begun);
        self.begin(reading, facts, Some(first_byte), request, sent).await
    }

    /// A connection with the request sent on it: a resting one (the last value says so), else a new one.
    async fn send_websocket(
        &self,
        pool: &WebSocketPool,
        request: &LlmRequest,
        sent: &mut Sent,
    ) -> Result<(WebSocketLease, Vec<Adjustment>, bool), LlmError> {
        let wire = self.encode(request, true)?;
        let message = self.adapter.websocket_message(&wire.body)?;
        let message = String::from_utf8(message).map_err(|error| {
            LlmError::new(ErrorKind::Decode, "the message is not UTF-8").with_source(error)
        })?;
        let headers = self.headers_for(&wire, request).await?;
        let url = self.url(wire.path, request)?;
        sent.begin(&self.name, wire.creates);
        // A connection carries the headers of its handshake, so a request with headers of its own gets its own.
        if request.headers.is_empty()
            && sent.earlier.is_empty()
            && let Some(mut lease) = pool.take()
            && lease.connection.send_text(message.clone()).await.is_ok()
        {
            return Ok((lease, wire.adjustments, true));
        }
        let limits = Limits { first_byte: Some(self.limits.first_byte) };
        match connect(&self.http, &url, headers, &limits).await? {
            Handshake::Open(mut connection) => {
                connection.send_text(message).await?;
                Ok((pool.lease(connection), wire.adjustments, false))
            }
            Handshake::Refused(answer) => {
                let HttpAnswer { status, headers, body, .. } = *answer;
                sent.answered(status);
                let body = self.body(status, body).await?;
                match self.adapter.decode(status, &headers, &body, &self.target(true)) {
                    Err(error) => Err(error),
                    Ok(_) => {
                        Err(LlmError::new(ErrorKind::Connection, "the host did not switch to a WebSocket"))
                    }
                }
            }
        }
    }

    async fn open_websocket(
        &self,
        pool: &WebSocketPool,
        request: &LlmRequest,
        sent: &mut Sent,
    ) -> Result<ChunkStream, LlmError> {
        let begun = Instant::now();
        loop {
            let (lease, adjustments, resting) = self.send_websocket(pool, request, sent).await?;
            let facts = Facts {
                provider: Some(self.provider.clone()),
                request_id: wire_headers::request_id(lease.connection.headers()),
                rate_limits: wire_headers::rate_limits(lease.connection.headers()),
                adjustments,
                ..Facts::default()
            };
            let decoder = self.adapter.decoder(&self.target(true));
            let limits = (self.limits.first_byte, self.limits.idle);
            let reading = Reading::websocket(lease, decoder, limits, begun);
            match self.begin(reading, facts, None, request, sent).await {
                Err(error) => {
                    let error = error.with(|detail| detail.reused_connection = resting);
                    if !self.may_resend(&error, sent) {
                        return Err(error);
                    }
                    sent.again(error.kind(), STALE);
                }
                opened => return opened,
            }
        }
    }

    /// Waits for the first piece of the answer; from then on failures are the stream's.
    async fn begin(
        &self,
        mut reading: Reading,
        mut facts: Facts,
        first_byte: Option<f64>,
        request: &LlmRequest,
        sent: &mut Sent,
    ) -> Result<ChunkStream, LlmError> {
        reading.first_content().await?;
        facts.attempts = sent.finish();
        let first_chunk = Some(reading.elapsed());
        let connect = facts.attempts.last().and_then(|attempt| attempt.connect);
        facts.timing = Some(Timing { connect, first_byte, first_chunk, ..Timing::default() });
        let model = self.target(true).model_of(request).to_owned();
        let bill = Bill::new(Arc::clone(&self.pricing), request.model.clone());
        Ok(reading.into_stream(facts, self.provider.clone(), model, bill))
    }
}

/// Refuses an answer that is nested too deep to be followed; of an error, the adapters read the top only.
pub(crate) fn followable(body: &[u8], status: u16) -> Result<(), LlmError> {
    if status >= 300 || !nests_too_deep(body) {
        return Ok(());
    }
    let message = format!("arrays and objects in the answer are nested more than {MAX_NESTING} deep");
    Err(LlmError::new(ErrorKind::Decode, message).with(|detail| {
        detail.status_code = Some(status);
        detail.retryable = Some(false);
    }))
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), LlmError> {
    crate::core::request::check_header(name, value)?;
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
    Ok(())
}

/// Token services, reached over the deployment's transport.
pub(crate) struct TokenRequests(pub Arc<HttpTransport>);

/// How long a token service may take to answer.
const TOKEN_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

#[async_trait]
impl TokenHttp for TokenRequests {
    async fn send(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&'static str, String)],
        body: Option<String>,
    ) -> Result<(u16, Vec<u8>), LlmError> {
        let url = parse_base_url(url)?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            insert(&mut map, name, value)?;
        }
        let limits = Limits { first_byte: Some(TOKEN_LIMIT) };
        let answer = match (method, body) {
            // Managed identities are asked with `GET`: they are services of this machine, which no proxy speaks for.
            ("GET", None) => self.0.get_direct(&url, map, &limits).await?,
            (_, body) => self.0.post(&url, map, body.unwrap_or_default(), &limits, true).await?,
        };
        let HttpAnswer { status, body, .. } = answer;
        Ok((status, body.collect(Some(1024 * 1024), Some(TOKEN_LIMIT)).await?.to_vec()))
    }
}

#[async_trait]
#[allow(
    clippy::misnamed_getters,
    reason = "a provider is named after its vendor, a deployment by its own name"
)]
impl LlmProvider for Endpoint {
    fn name(&self) -> &str {
        &self.provider
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let request = self.with_defaults(request);
        let mut sent = Sent::new();
        let outcome = match &self.wire {
            Wire::Http => self.whole(&request, &mut sent).await,
            // Boxed: what it needs would be a part of every call's state.
            Wire::WebSocket(_) => return Box::pin(self.folded(request)).await,
        };
        outcome.map_err(|error| self.explain(error, &request, &mut sent))
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let request = self.with_defaults(request);
        let mut sent = Sent::new();
        let outcome = match &self.wire {
            Wire::Http => self.open_http(&request, &mut sent).await,
            Wire::WebSocket(transport) => self.open_websocket(transport, &request, &mut sent).await,
        };
        outcome.map_err(|error| self.explain(error, &request, &mut sent))
    }
}
