//! HTTP: one pooled client per deployment, limits in each phase, failures told apart.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::{HeaderMap, Method};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Proxy, Request, Response, Upgraded, Url};

use super::failure::{self, DnsFailure, Peer};
use super::tls;
use crate::core::error::{ErrorKind, FailurePhase, LlmError};

/// The product token every request carries, unless its headers name another.
pub const USER_AGENT: &str = concat!("liter-llm/", env!("CARGO_PKG_VERSION"));

/// How a transport connects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// The limit for name resolution, connection and TLS handshake together. Default 10 s.
    pub connect_timeout: Duration,
    /// A proxy for every request: `http://`, `https://`, `socks5://` or `socks5h://`, with `user:password@` where
    /// the proxy wants that. Without one, `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (and the system's
    /// settings) hold, except for loopback addresses, which are always reached directly.
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
#[derive(Debug, Clone)]
pub struct HttpTransport {
    client: Client,
    /// Ignores the environment's proxies; for loopback addresses.
    direct: Client,
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
        let builder = || -> ClientBuilder {
            Client::builder()
                .tls_backend_preconfigured((*tls).clone())
                .http1_only()
                .tcp_nodelay(true)
                .redirect(Policy::none())
                .referer(false)
                .user_agent(USER_AGENT)
                .connect_timeout(options.connect_timeout)
                .pool_idle_timeout(Duration::from_secs(90))
                .pool_max_idle_per_host(options.pool_idle)
                .dns_resolver(SystemResolver)
        };
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|error| {
                LlmError::config("transport", "the HTTP client cannot be set up")
                    .with_source(error.without_url())
            })
        };
        let (client, direct) = match &options.proxy {
            Some(proxy) => {
                let client = build(builder().proxy(parse_proxy(proxy)?))?;
                (client.clone(), client)
            }
            None => (build(builder())?, build(builder().no_proxy())?),
        };
        Ok(Self {
            client,
            direct,
            proxied: options.proxy.is_some(),
            connect_timeout: options.connect_timeout,
            max_body_bytes: options.max_body_bytes,
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
        let mut request = Request::new(Method::POST, url.clone());
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into().into());
        self.send(request, limits, accept_gzip).await
    }

    /// Sends a `GET`.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn get(&self, url: &Url, headers: HeaderMap, limits: &Limits) -> Result<HttpAnswer, LlmError> {
        let mut request = Request::new(Method::GET, url.clone());
        *request.headers_mut() = headers;
        self.send(request, limits, true).await
    }

    pub(super) async fn send(
        &self,
        mut request: Request,
        limits: &Limits,
        accept_gzip: bool,
    ) -> Result<HttpAnswer, LlmError> {
        let encoding = HeaderValue::from_static(if accept_gzip { "gzip" } else { "identity" });
        request.headers_mut().insert(ACCEPT_ENCODING, encoding);
        let client = if is_loopback(request.url()) { &self.direct } else { &self.client };
        let peer = Peer::of(request.url());
        let sent = client.execute(request);
        let outcome = match limits.first_byte {
            None => sent.await,
            Some(limit) => match tokio::time::timeout(limit, sent).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(failure::timed_out(FailurePhase::FirstByte, &peer, limit)),
            },
        };
        let mut response =
            outcome.map_err(|error| failure::sending(error, &peer, self.connect_timeout, self.proxied))?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        Ok(HttpAnswer {
            status,
            headers,
            body: BodyStream { response, status, peer, max_body_bytes: self.max_body_bytes },
        })
    }
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

/// The body of an answer, decompressed.
#[derive(Debug)]
pub struct BodyStream {
    response: Response,
    status: u16,
    peer: Peer,
    max_body_bytes: usize,
}

impl BodyStream {
    /// The next bytes, or `None` at the clean end. `idle` limits the wait for them.
    ///
    /// # Errors
    /// `timeout` with phase `idle`; `connection` with phase `reset` when the body breaks off; `decode` when it cannot
    /// be decompressed.
    pub async fn chunk(&mut self, idle: Option<Duration>) -> Result<Option<Bytes>, LlmError> {
        let outcome = match idle {
            None => self.response.chunk().await,
            Some(limit) => match tokio::time::timeout(limit, self.response.chunk()).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let error = failure::timed_out(FailurePhase::Idle, &self.peer, limit);
                    return Err(error.with(|detail| detail.status_code = Some(self.status)));
                }
            },
        };
        outcome.map_err(|error| failure::reading(error, &self.peer, self.status))
    }

    /// The whole body, of at most `cap` bytes after decompression (`None`: the transport's limit). `idle` limits each
    /// wait.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk), and `decode` when the body is larger than the cap.
    pub async fn collect(mut self, cap: Option<usize>, idle: Option<Duration>) -> Result<Bytes, LlmError> {
        let cap = cap.unwrap_or(self.max_body_bytes);
        if self.response.content_length().is_some_and(|length| length > cap as u64) {
            return Err(self.too_large(cap));
        }
        let Some(first) = self.chunk(idle).await? else { return Ok(Bytes::new()) };
        let mut size = first.len();
        let mut rest = Vec::new();
        while size <= cap {
            match self.chunk(idle).await? {
                None if rest.is_empty() => return Ok(first),
                None => {
                    let mut whole = BytesMut::with_capacity(size);
                    whole.extend_from_slice(&first);
                    rest.iter().for_each(|piece: &Bytes| whole.extend_from_slice(piece));
                    return Ok(whole.freeze());
                }
                Some(piece) => {
                    size = size.saturating_add(piece.len());
                    rest.push(piece);
                }
            }
        }
        Err(self.too_large(cap))
    }

    /// The connection itself, after an answer with status 101.
    pub(super) async fn into_upgraded(self) -> Result<(Upgraded, Peer), LlmError> {
        let Self { response, status, peer, .. } = self;
        match response.upgrade().await {
            Ok(upgraded) => Ok((upgraded, peer)),
            Err(error) => Err(failure::reading(error, &peer, status)),
        }
    }

    fn too_large(&self, cap: usize) -> LlmError {
        let message = format!("the answer of {} is larger than {cap} bytes", self.peer);
        LlmError::new(ErrorKind::Decode, message).with(|detail| {
            detail.status_code = Some(self.status);
            detail.retryable = Some(false);
        })
    }
}

/// The system's name resolution, with failures that can be told from others.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is the caller's to fill in.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(DnsFailure)?;
            let addresses: Vec<SocketAddr> = found.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether the host is this machine by its own name or address.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost" || host.ends_with(".localhost"), |address| address.is_loopback())
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

/// The URL of `path` below a base URL: `https://host/v1` and `/models?limit=1` give `https://host/v1/models?limit=1`.
/// The base's own query is kept in front.
#[must_use]
pub fn url_below(base: &Url, path: &str) -> Url {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    let whole = format!("{}/{}", base.path().trim_end_matches('/'), path.trim_start_matches('/'));
    url.set_path(&whole);
    let query = match (base.query().filter(|query| !query.is_empty()), query) {
        (Some(own), Some(query)) => Some(format!("{own}&{query}")),
        (own, query) => own.or(query).map(str::to_owned),
    };
    url.set_query(query.as_deref());
    url
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
    fn paths_go_below_the_base() {
        for (base, path, whole) in [
            ("https://h/v1", "/models", "https://h/v1/models"),
            ("https://h/v1/", "/models", "https://h/v1/models"),
            ("https://h", "/v1/messages", "https://h/v1/messages"),
            ("https://h/a%20b", "/c%2Fd", "https://h/a%20b/c%2Fd"),
            ("https://h/x?a=1", "/y?b=2", "https://h/x/y?a=1&b=2"),
            ("https://h/x", "/y?b=2", "https://h/x/y?b=2"),
        ] {
            assert_eq!(url_below(&parse_base_url(base).unwrap(), path).as_str(), whole);
        }
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
