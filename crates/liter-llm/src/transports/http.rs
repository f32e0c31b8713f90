//! HTTP: pooled connections per deployment, limits in each phase, failures told apart.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING,
    USER_AGENT as USER_AGENT_HEADER,
};
use http::{HeaderMap, Method};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Proxy, Request, Url};

pub use super::body::BodyStream;
use super::connection::{Connection, Connector, Unanswered};
use super::dns::CachingResolver;
use super::failure::{self, Peer};
use super::http1::{Head, write_head};
use super::pools::{Clients, Origin, Pools};
use super::{connecting, tls};
use crate::core::call;
use crate::core::error::{FailurePhase, LlmError};

/// The product token every request carries, unless its headers name another.
pub const USER_AGENT: &str = concat!("liter-llm/", env!("CARGO_PKG_VERSION"));

/// The value of `proxy` that stands for none, whatever the environment says.
const DIRECT: &str = "direct";
/// How exactly timers go off.
const TICK: Duration = Duration::from_millis(2);

/// How a transport connects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// The limit for name resolution, connection and TLS handshake together. Default 10 s.
    pub connect_timeout: Duration,
    /// `direct` for none, or a proxy for every request: `http://`, `https://`, `socks5://` or `socks5h://`, with `user:password@` where
    /// the proxy wants that. Without one, `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (and the system's
    /// settings) hold, for loopback addresses too. Link-local addresses (the machine's metadata service) are always
    /// reached directly.
    pub proxy: Option<String>,
    /// The most idle connections kept per host. Default: no limit.
    pub pool_idle: usize,
    /// The largest answer [`BodyStream::collect`] takes by default, in bytes after decompression. Default 64 MiB.
    pub max_body_bytes: usize,
    /// A PEM file of certificates to trust besides the platform's.
    pub ca_bundle: Option<PathBuf>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            proxy: None,
            pool_idle: usize::MAX,
            max_body_bytes: 64 * 1024 * 1024,
            ca_bundle: None,
        }
    }
}

/// Time limits of one request; the one for connecting belongs to the transport.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// From the beginning of the call, connecting included, until the head of the answer. Default: none.
    pub first_byte: Option<Duration>,
}

/// A pooled HTTP/1.1 client. Cheap to clone; clones share their connections.
///
/// TLS is always verified; root certificates are read at the first handshake, so that building one costs
/// microseconds and needs no certificates. Redirects are not followed: they are answers like any other.
///
/// A connection stays with the Tokio runtime that opened it, because only that runtime drives it: each runtime that
/// sends through a transport has connections of its own, which are closed when the runtime ends.
#[derive(Debug, Clone)]
pub struct HttpTransport {
    pools: Arc<Pools>,
    connector: Connector,
    proxied: bool,
    connect_timeout: Duration,
    max_body_bytes: usize,
}

impl HttpTransport {
    /// A transport with these options.
    ///
    /// # Errors
    /// `config` when `proxy` or `ca_bundle` cannot be used.
    pub fn new(options: &HttpOptions) -> Result<Self, LlmError> {
        let tls = tls::client_config(options.ca_bundle.as_deref())?;
        let direct = match options.proxy.as_deref() {
            Some(proxy) => proxy == DIRECT,
            None => every_host_is_excepted(),
        };
        let proxy = options.proxy.as_deref().filter(|proxy| *proxy != DIRECT).map(parse_proxy).transpose()?;
        let proxied = proxy.is_some();
        let HttpOptions { connect_timeout, pool_idle, max_body_bytes, .. } = *options;
        let resolver = CachingResolver::new();
        let connector = Connector::new(Arc::clone(&tls), resolver.clone(), connect_timeout);
        let build = move || -> Result<Clients, LlmError> {
            let builder = || -> ClientBuilder {
                Client::builder()
                    .tls_backend_preconfigured((*tls).clone())
                    .http1_only()
                    .tcp_nodelay(true)
                    .redirect(Policy::none())
                    .referer(false)
                    .user_agent(USER_AGENT)
                    .connect_timeout(connect_timeout)
                    .pool_idle_timeout(Duration::from_secs(90))
                    .pool_max_idle_per_host(pool_idle)
                    .dns_resolver(resolver.clone())
                    .connector_layer(tower_layer::layer_fn(connecting::Noted))
            };
            let build = |builder: ClientBuilder| {
                builder.build().map_err(|error| {
                    LlmError::config("transport", "the HTTP client cannot be set up")
                        .with_source(error.without_url())
                })
            };
            let proxied = build(match &proxy {
                Some(proxy) => builder().proxy(proxy.clone()),
                None if direct => builder().no_proxy(),
                None => builder(),
            })?;
            Ok(Clients { proxied, direct: build(builder().no_proxy())? })
        };
        Ok(Self {
            pools: Pools::new(Box::new(build), pool_idle, !direct),
            connector,
            proxied,
            connect_timeout,
            max_body_bytes,
        })
    }

    /// Sends a `POST`. `accept_gzip` must be false for an answer that is to be streamed: compression would hold
    /// events back.
    ///
    /// # Errors
    /// `connection` or `timeout` with the phase that failed; `decode` when the host does not speak HTTP. Any status
    /// is an answer, not an error.
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: impl Into<Bytes>,
        limits: &Limits,
        accept_gzip: bool,
    ) -> Result<HttpAnswer, LlmError> {
        self.request(Method::POST, url, headers, body.into(), limits, accept_gzip).await
    }

    /// Sends a `GET`.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn get(&self, url: &Url, headers: HeaderMap, limits: &Limits) -> Result<HttpAnswer, LlmError> {
        self.request(Method::GET, url, headers, Bytes::new(), limits, true).await
    }

    /// Sends a `GET` past every proxy: for token services of the machine itself.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn get_direct(
        &self,
        url: &Url,
        headers: HeaderMap,
        limits: &Limits,
    ) -> Result<HttpAnswer, LlmError> {
        let head = direct_head(&Method::GET, url, headers, 0, true)?;
        self.send_direct(url, &head, Bytes::new(), limits, self.origin(url)?).await
    }

    fn origin(&self, url: &Url) -> Result<Arc<Origin>, LlmError> {
        Ok(self.pools.origin(&*self.pools.here()?, url))
    }

    async fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        limits: &Limits,
        accept_gzip: bool,
    ) -> Result<HttpAnswer, LlmError> {
        let origin = self.origin(url)?;
        if origin.proxied || (self.proxied && !is_link_local(url)) {
            let mut request = Request::new(method, url.clone());
            *request.headers_mut() = headers;
            *request.body_mut() = Some(body.into());
            return Box::pin(self.send(request, limits, accept_gzip)).await;
        }
        let head = direct_head(&method, url, headers, body.len(), accept_gzip)?;
        self.send_direct(url, &head, body, limits, origin).await
    }

    async fn send_direct(
        &self,
        url: &Url,
        head: &[u8],
        body: Bytes,
        limits: &Limits,
        origin: Arc<Origin>,
    ) -> Result<HttpAnswer, LlmError> {
        let begun = AtomicBool::new(false);
        let exchange = self.exchange(&origin, url, (head, &body), &begun);
        let outcome = match limits.first_byte {
            None => exchange.await,
            Some(limit) => match tokio::time::timeout(limit, exchange).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let error = failure::timed_out(FailurePhase::FirstByte, &Peer::of(url), limit);
                    return Err(match begun.into_inner() {
                        // A part of the head has come: the request was taken up.
                        true => error.with(|detail| detail.retryable = Some(false)),
                        false => error,
                    });
                }
            },
        };
        let (connection, Head { status, mut headers, .. }) = outcome?;
        let body = BodyStream::own(connection, origin, &mut headers);
        Ok(HttpAnswer { status, headers, body: body.of(status, Peer::of(url), self.max_body_bytes) })
    }

    /// Sends on a connection at rest, else on a new one.
    async fn exchange(
        &self,
        origin: &Origin,
        url: &Url,
        (head, body): (&[u8], &[u8]),
        begun: &AtomicBool,
    ) -> Result<(Connection, Head), LlmError> {
        loop {
            let (mut connection, kept) = match origin.take() {
                Some(connection) => (connection, true),
                // Rare and large: not a part of every call's state.
                None => (Box::pin(self.connect(url)).await?, false),
            };
            match connection.send(head, body, begun).await {
                Ok(answer) => return Ok((connection, answer)),
                // The host closed it while it rested; nothing of the request was sent.
                Err(Unanswered { unsent: true, .. }) if kept => {}
                Err(Unanswered { fault, .. }) => {
                    let begun = begun.load(Ordering::Relaxed);
                    return Err(failure::unanswered(fault, &Peer::of(url), kept, begun));
                }
            }
        }
    }

    async fn connect(&self, url: &Url) -> Result<Connection, LlmError> {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(self.connect_timeout, self.connector.connect(url)).await;
        let peer = Peer::of(url);
        match outcome {
            Ok(Ok(connection)) => {
                call::connected(begun.elapsed());
                Ok(connection)
            }
            // The limit is shared out among a host's addresses: the last share ends with it, give or take a tick.
            Ok(Err(_)) if begun.elapsed() + TICK >= self.connect_timeout => {
                Err(failure::timed_out(FailurePhase::Connect, &peer, self.connect_timeout))
            }
            Ok(Err(error)) => Err(failure::connecting(&error, &peer, false).with_source(error)),
            Err(_) => Err(failure::timed_out(FailurePhase::Connect, &peer, self.connect_timeout)),
        }
    }

    /// Sends through a proxy, or a request that asks for an upgrade.
    pub(super) async fn send(
        &self,
        mut request: Request,
        limits: &Limits,
        accept_gzip: bool,
    ) -> Result<HttpAnswer, LlmError> {
        request.headers_mut().insert(ACCEPT_ENCODING, encoding(accept_gzip));
        let home = self.pools.here()?;
        if cfg!(not(feature = "socks")) && self.pools.is_socks(request.url()) {
            return Err(no_socks("the environment's proxy variable"));
        }
        let clients = self.pools.clients(&home)?;
        drop(home);
        let client = if is_link_local(request.url()) { clients.direct } else { clients.proxied };
        let peer = Peer::of(request.url());
        let (sent, connected) = connecting::noting(client.execute(request));
        let outcome = match limits.first_byte {
            None => sent.await,
            Some(limit) => match tokio::time::timeout(limit, sent).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(failure::timed_out(FailurePhase::FirstByte, &peer, limit)),
            },
        };
        let mut response = outcome.map_err(|error| {
            failure::sending(error, &peer, self.connect_timeout, self.proxied, !connected.began())
        })?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = BodyStream::proxied(response).of(status, peer, self.max_body_bytes);
        Ok(HttpAnswer { status, headers, body })
    }
}

const fn encoding(accept_gzip: bool) -> HeaderValue {
    HeaderValue::from_static(if accept_gzip && cfg!(feature = "gzip") { "gzip" } else { "identity" })
}

/// The request's head as it goes to the host itself, with the headers every request carries.
fn direct_head(
    method: &Method,
    url: &Url,
    mut headers: HeaderMap,
    length: usize,
    accept_gzip: bool,
) -> Result<Vec<u8>, LlmError> {
    let fault = || LlmError::config("base_url", "`base_url`: the address cannot be put into a request");
    if let Some(name) = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().find(|name| headers.contains_key(*name)) {
        return Err(LlmError::invalid(
            "headers",
            format!("`headers`: `{name}` is set by the client itself; leave it out"),
        ));
    }
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        None => HeaderValue::from_str(host),
        Some(port) => HeaderValue::from_maybe_shared(Bytes::from(format!("{host}:{port}"))),
    };
    let host = host.map_err(|error| fault().with_source(error))?;
    headers.entry(HOST).or_insert(host);
    headers.entry(USER_AGENT_HEADER).or_insert(HeaderValue::from_static(USER_AGENT));
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, encoding(accept_gzip));
    // A parsed URL holds no blank and no control character: they are written with per cent signs.
    Ok(match url.query() {
        None => write_head(method, url.path(), &headers, length),
        Some(query) => write_head(method, &format!("{}?{query}", url.path()), &headers, length),
    })
}

/// The head of an answer, and its body to come. Dropping it closes the connection, unless the body was read.
#[derive(Debug)]
#[non_exhaustive]
pub struct HttpAnswer {
    /// The status, redirects and failures included.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: BodyStream,
}

/// Whether the host is a link-local address (169.254.0.0/16, fe80::/10), as a machine's metadata service is. A proxy
/// would ask for its own machine's identity.
pub(super) fn is_link_local(url: &Url) -> bool {
    match url.host_str().unwrap_or_default().trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_unicast_link_local(),
        Err(_) => false,
    }
}

/// Whether `NO_PROXY` names `*`, every host: the HTTP client takes that for names only, not for addresses.
fn every_host_is_excepted() -> bool {
    ["NO_PROXY", "no_proxy"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .any(|value| value.split(',').any(|entry| entry.trim() == "*"))
}

/// `what`: what names the SOCKS proxy.
fn no_socks(what: &str) -> LlmError {
    let what = format!(
        "{what} names a SOCKS proxy, and this program was built without liter-llm's feature `socks`; switch it on, or \
         use an `http://` proxy, or `proxy=\"direct\"` for none"
    );
    LlmError::config("proxy", what)
}

fn parse_proxy(proxy: &str) -> Result<Proxy, LlmError> {
    let fault = || {
        // The text is not repeated: it may hold a password.
        LlmError::config("proxy", "`proxy` must be a URL such as `http://host:port` or `socks5h://host:port`")
    };
    let url = Url::parse(proxy).map_err(|_| fault())?;
    if !["http", "https", "socks4", "socks4a", "socks5", "socks5h"].contains(&url.scheme()) || !url.has_host()
    {
        return Err(fault());
    }
    if cfg!(not(feature = "socks")) && url.scheme().starts_with("socks") {
        return Err(no_socks("`proxy`"));
    }
    Proxy::all(url).map_err(|_| fault())
}

/// Reads a base URL from a configuration.
///
/// # Errors
/// `config`, naming `base_url` and the remedy: only `http://` and `https://` with a host; no white space, no
/// `user:password@`, no fragment.
pub fn parse_base_url(text: &str) -> Result<Url, LlmError> {
    let fault = |what: &str| LlmError::config("base_url", format!("`base_url` {what}"));
    // The URL parser drops line ends without a word; a key pasted with one would then go elsewhere than meant.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(fault("holds white space or a control character; remove it"));
    }
    if text.is_empty() {
        return Err(fault("is empty; give a URL such as `https://host/v1`"));
    }
    let url = Url::parse(text)
        .map_err(|error| fault(&format!("is not a URL such as `https://host/v1`: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fault(&format!("must begin with `https://` or `http://`, not with `{}:`", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault("must not hold `user:password@`; give the key as `api_key`"));
    }
    if url.fragment().is_some() {
        return Err(fault("must not hold a fragment (`#...`); remove it"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::core::error::ErrorKind;

    #[test]
    fn base_urls_are_checked() {
        for (text, word) in [
            ("", "empty"),
            ("api.openai.com/v1", "not a URL"),
            ("ftp://host", "`ftp:`"),
            ("https://", "not a URL"),
            ("https://host/v1\n", "white space"),
            (" https://host", "white space"),
            ("https://us er@host", "white space"),
            ("https://user:sesame@host/v1", "api_key"),
            ("https://host/v1#part", "fragment"),
        ] {
            let error = parse_base_url(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text:?}");
            assert_eq!(error.detail().param.as_deref(), Some("base_url"));
            assert!(error.to_string().contains(word), "{text:?}: {error}");
            assert!(!error.to_string().contains("sesame"));
        }
        assert_eq!(parse_base_url("http://127.0.0.1:8080").unwrap().port(), Some(8080));
    }

    #[test]
    fn building_a_transport_is_cheap_and_needs_no_certificates() {
        HttpTransport::new(&HttpOptions::default()).unwrap();
        let start = std::time::Instant::now();
        for _ in 0..100 {
            HttpTransport::new(&HttpOptions::default()).unwrap();
        }
        let each = start.elapsed() / 100;
        assert!(each < Duration::from_millis(5), "{each:?}");
    }

    #[test]
    fn a_bad_proxy_is_a_config_error_without_its_password() {
        for proxy in ["", "host:3128", "ftp://host", "http://user:sesame@"] {
            let options = HttpOptions { proxy: Some(proxy.into()), ..HttpOptions::default() };
            let error = HttpTransport::new(&options).unwrap_err();
            assert_eq!((error.kind(), error.detail().param.as_deref()), (ErrorKind::Config, Some("proxy")));
            assert!(!format!("{error:?}").contains("sesame"));
        }
    }

    #[test]
    fn a_missing_certificate_file_is_a_config_error() {
        let options = HttpOptions { ca_bundle: Some("no/such.pem".into()), ..HttpOptions::default() };
        assert_eq!(HttpTransport::new(&options).unwrap_err().kind(), ErrorKind::Config);
    }
}
