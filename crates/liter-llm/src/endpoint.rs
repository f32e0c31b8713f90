//! Adapter + transport + credential: the only provider that touches the network.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Url;

use crate::adapters::{Adapter, Quirks, Target, WireRequest, headers as wire_headers};
use crate::config::TimeLimits;
use crate::core::chunk::{Facts, LlmChunk};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::fold::{Folder, unfold};
use crate::core::json::Extra;
use crate::core::provider::{ChunkStream, LlmProvider};
use crate::core::request::LlmRequest;
use crate::core::response::{Adjustment, Attempt, LlmResponse, Timing};
use crate::credentials::{Credential, TokenHttp};
use crate::locate::push;
use crate::reading::Reading;
use crate::transports::http::{HttpAnswer, HttpTransport, Limits, parse_base_url};
use crate::transports::websocket_pool::{WebSocketLease, WebSocketPool};
use crate::transports::websockets::{Handshake, connect};

/// How the endpoint's bytes travel.
pub(crate) enum Wire {
    /// HTTP, with Server-Sent Events for streams.
    Http,
    /// A WebSocket; whole answers are folded from the stream.
    WebSocket(WebSocketPool),
}

/// A deployment ready to call.
pub(crate) struct Endpoint {
    pub provider: String,
    pub name: String,
    pub model: String,
    pub base: Url,
    pub model_in_path: bool,
    pub quirks: Quirks,
    pub adapter: Arc<dyn Adapter>,
    pub credential: Arc<dyn Credential>,
    pub http: Arc<HttpTransport>,
    pub wire: Wire,
    pub limits: TimeLimits,
    /// Everything that is the same for each request, static credentials included.
    pub headers: HeaderMap,
    /// The deployment's own headers, which a request's beat.
    pub own_headers: Vec<(String, String)>,
    pub extra: Extra,
}

/// One request on its way, and what is known of it.
pub(crate) struct Sent {
    pub started: Instant,
    pub attempt: Attempt,
}

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

    fn url(&self, path: &str, request: &LlmRequest) -> Result<Url, LlmError> {
        let mut url = self.base.clone();
        if self.model_in_path {
            push(&mut url, &[self.target(false).model_of(request)])?;
        }
        let joined = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
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
        self.adapter.encode(request, &target)
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
            sent.started = Instant::now();
            sent.attempt.deployment.clone_from(&self.name);
            let answer = self.http.post(&url, headers, body.clone(), &limits, !stream).await?;
            sent.attempt.status = Some(answer.status);
            if answer.status == 401 && !rejected && self.credential.refresh_after_rejection().await {
                rejected = true;
                continue;
            }
            return Ok((answer, wire));
        }
    }

    /// Adds what this endpoint knows to an error.
    pub(crate) fn explain(&self, error: LlmError, request: &LlmRequest, sent: &mut Sent) -> LlmError {
        let kind = error.kind();
        error.with(|detail| {
            detail.provider.get_or_insert_with(|| self.provider.clone());
            let model = self.target(false).model_of(request);
            if !model.is_empty() {
                detail.model.get_or_insert_with(|| model.to_owned());
            }
            if !sent.attempt.deployment.is_empty() && detail.attempts.is_empty() {
                let mut attempt = std::mem::take(&mut sent.attempt);
                attempt.duration = sent.started.elapsed().as_secs_f64();
                attempt.error = Some(kind.as_str().to_owned());
                detail.attempts.push(attempt);
            }
        })
    }

    async fn whole(&self, request: &LlmRequest, sent: &mut Sent) -> Result<LlmResponse, LlmError> {
        let begun = Instant::now();
        let (answer, wire) = self.send(request, false, sent).await?;
        let first_byte = begun.elapsed().as_secs_f64();
        let HttpAnswer { status, headers, body, .. } = answer;
        let body = body.collect(None, Some(self.limits.idle)).await?;
        let mut response = self.adapter.decode(status, &headers, &body, &self.target(false))?;
        self.complete(&mut response, &headers, wire, sent);
        response.raw = body;
        response.timing = Some(Timing {
            first_byte: Some(first_byte),
            first_chunk: None,
            total: begun.elapsed().as_secs_f64(),
        });
        Ok(response)
    }

    /// What the endpoint knows about an answer besides its body.
    fn complete(&self, response: &mut LlmResponse, headers: &HeaderMap, wire: WireRequest, sent: &mut Sent) {
        response.provider.clone_from(&self.provider);
        if response.request_id.is_none() {
            response.request_id = wire_headers::request_id(headers);
        }
        if response.rate_limits.is_empty() {
            response.rate_limits = wire_headers::rate_limits(headers);
        }
        response.adjustments = wire.adjustments;
        let mut attempt = std::mem::take(&mut sent.attempt);
        attempt.duration = sent.started.elapsed().as_secs_f64();
        response.attempts = vec![attempt];
    }

    async fn open_http(&self, request: &LlmRequest, sent: &mut Sent) -> Result<ChunkStream, LlmError> {
        let begun = Instant::now();
        let (answer, wire) = self.send(request, true, sent).await?;
        let first_byte = begun.elapsed().as_secs_f64();
        let json = answer
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
        if answer.status >= 300 || json {
            // An error, or a host that answers whole although a stream was asked for.
            let HttpAnswer { status, headers, body, .. } = answer;
            let body = body.collect(None, Some(self.limits.idle)).await?;
            let mut response = self.adapter.decode(status, &headers, &body, &self.target(true))?;
            self.complete(&mut response, &headers, wire, sent);
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

    /// A connection with the request sent on it: a resting one, else a new one.
    async fn send_websocket(
        &self,
        pool: &WebSocketPool,
        request: &LlmRequest,
        sent: &mut Sent,
    ) -> Result<(WebSocketLease, Vec<Adjustment>), LlmError> {
        let wire = self.encode(request, true)?;
        let message = self.adapter.websocket_message(&wire.body)?;
        let message = String::from_utf8(message).map_err(|error| {
            LlmError::new(ErrorKind::Decode, "the message is not UTF-8").with_source(error)
        })?;
        let headers = self.headers_for(&wire, request).await?;
        let url = self.url(wire.path, request)?;
        sent.started = Instant::now();
        sent.attempt.deployment.clone_from(&self.name);
        // A connection carries the headers of its handshake, so a request with headers of its own gets its own.
        if request.headers.is_empty()
            && let Some(mut lease) = pool.take()
            && lease.connection.send_text(message.clone()).await.is_ok()
        {
            return Ok((lease, wire.adjustments));
        }
        let limits = Limits { first_byte: Some(self.limits.first_byte) };
        match connect(&self.http, &url, headers, &limits).await? {
            Handshake::Open(mut connection) => {
                connection.send_text(message).await?;
                Ok((pool.lease(connection), wire.adjustments))
            }
            Handshake::Refused(answer) => {
                let HttpAnswer { status, headers, body, .. } = *answer;
                sent.attempt.status = Some(status);
                let body = body.collect(None, Some(self.limits.idle)).await?;
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
        let (lease, adjustments) = self.send_websocket(pool, request, sent).await?;
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
        self.begin(reading, facts, None, request, sent).await
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
        let mut attempt = std::mem::take(&mut sent.attempt);
        attempt.duration = sent.started.elapsed().as_secs_f64();
        facts.attempts = vec![attempt];
        let first_chunk = Some(reading.elapsed());
        facts.timing = Some(Timing { first_byte, first_chunk, total: 0.0 });
        let model = self.target(true).model_of(request).to_owned();
        Ok(reading.into_stream(facts, self.provider.clone(), model))
    }
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
            ("GET", None) => self.0.get(&url, map, &limits).await?,
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
        let mut sent = Sent { started: Instant::now(), attempt: Attempt::default() };
        let outcome = match &self.wire {
            Wire::Http => self.whole(&request, &mut sent).await,
            Wire::WebSocket(_) => {
                let mut chunks = self.stream(request.clone()).await?;
                let mut folder = Folder::new();
                while let Some(chunk) = futures_util::StreamExt::next(&mut chunks).await {
                    let chunk: LlmChunk = chunk?;
                    folder.push(&chunk);
                }
                return Ok(folder.finish());
            }
        };
        outcome.map_err(|error| self.explain(error, &request, &mut sent))
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let request = self.with_defaults(request);
        let mut sent = Sent { started: Instant::now(), attempt: Attempt::default() };
        let outcome = match &self.wire {
            Wire::Http => self.open_http(&request, &mut sent).await,
            Wire::WebSocket(transport) => self.open_websocket(transport, &request, &mut sent).await,
        };
        outcome.map_err(|error| self.explain(error, &request, &mut sent))
    }
}
