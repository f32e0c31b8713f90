//! One HTTP/1.1 connection, driven by the call that uses it.
//!
//! There is no task behind a connection: whoever waits for an answer also moves the bytes. So a call wakes nobody, a
//! call that is dropped closes its connection at once, and a connection at rest needs no running runtime.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::dns::CachingResolver;
use super::failure::DnsFailure;
use super::http1::{Framing, Head, Malformed, read_head};

/// Probes a silent connection after this long, three times at this distance.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged before the system gives the connection up.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How much is read at once.
const PIECE: usize = 16 * 1024;
/// How much is read at once of a body that is known to be large.
const LARGE_PIECE: usize = 256 * 1024;

/// The byte stream below HTTP.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<Names>,
    tls: Arc<ClientConfig>,
}

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no connection: {0}")]
pub(super) struct NotConnected(#[source] Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// `limit` is shared out among a host's addresses.
    pub(super) fn new(tls: Arc<ClientConfig>, names: CachingResolver, limit: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Names(names));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(3));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        Self { tcp, tls }
    }

    /// A new connection to the host of `url`: name, address, TLS handshake.
    pub(super) async fn connect(&self, url: &Url) -> Result<Connection, NotConnected> {
        let target = Uri::try_from(url.as_str()).map_err(|error| NotConnected(error.into()))?;
        let connected = self.tcp.clone().call(target).await;
        let stream = connected.map_err(|error| NotConnected(error.into()))?.into_inner();
        let stream = if url.scheme() == "https" {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|error| NotConnected(error.into()))?;
            let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
            Stream::Tls(Box::new(tls.map_err(|error| NotConnected(error.into()))?))
        } else {
            Stream::Plain(stream)
        };
        Ok(Connection {
            stream,
            buffer: BytesMut::new(),
            framing: Framing::Length(0),
            usable: true,
            since: Instant::now(),
        })
    }
}

/// What went wrong on an open connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The host closed the connection too early.
    #[error("the connection was closed too early")]
    Closed,
    /// What came is no HTTP.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A request that got no answer.
pub(super) struct Unanswered {
    pub(super) fault: Fault,
    /// Nothing of the request was written.
    pub(super) unsent: bool,
}

/// An open connection.
pub(super) struct Connection {
    stream: Stream,
    /// What was read and is not used yet. Holds no memory while the connection waits or rests.
    buffer: BytesMut,
    /// Of the answer under way, or of the last one.
    framing: Framing,
    /// Whether it may carry another request once the answer has been read.
    usable: bool,
    /// When it was last used.
    pub(super) since: Instant,
}

impl Connection {
    /// Whether the connection can take a request: it looks for an end that has come in the meantime. If it can,
    /// `watcher` is woken when that changes.
    pub(super) fn is_idle(&mut self, watcher: &Waker) -> bool {
        if !self.usable || !self.framing.is_done() || !self.buffer.is_empty() {
            return false;
        }
        // A waker of its last user is not to be kept. Bytes that nobody asked for are as bad as the end. A task that has used up its turn would be told that there is
        // nothing, and take a closed connection, or the bytes of a late refusal, for its own.
        let mut look = pin!(unconstrained(poll_fn(|context| {
            let mut byte = [0];
            Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut byte))
        })));
        look.as_mut().poll(&mut Context::from_waker(watcher)).is_pending()
    }

    /// Sends a request and waits for the head of the answer. `begun` is set with the first byte of it.
    pub(super) async fn send(
        &mut self,
        head: &[u8],
        body: &[u8],
        begun: &AtomicBool,
    ) -> Result<Head, Unanswered> {
        let mut written = 0;
        let mut refused = None;
        let mut flushed = false;
        let outcome = poll_fn(|context| {
            while refused.is_none() && written < head.len() + body.len() {
                let rest = [
                    io::IoSlice::new(head.get(written..).unwrap_or_default()),
                    io::IoSlice::new(body.get(written.saturating_sub(head.len())..).unwrap_or_default()),
                ];
                let rest = if rest[0].is_empty() { &rest[1..] } else { &rest[..] };
                match Pin::new(&mut self.stream).poll_write_vectored(context, rest) {
                    Poll::Ready(Ok(0)) => refused = Some(Fault::Closed),
                    Poll::Ready(Ok(count)) => written += count,
                    // An answer may have come all the same: a host that refuses a request need not read it.
                    Poll::Ready(Err(error)) => refused = Some(error.into()),
                    Poll::Pending => break,
                }
            }
            let whole = written == head.len() + body.len();
            if whole && !flushed {
                match Pin::new(&mut self.stream).poll_flush(context) {
                    Poll::Ready(Ok(())) => flushed = true,
                    Poll::Ready(Err(error)) => refused = Some(error.into()),
                    Poll::Pending => {}
                }
            }
            loop {
                if !self.buffer.is_empty() {
                    begun.store(true, Ordering::Relaxed);
                    match read_head(&mut self.buffer) {
                        Ok(Some(head)) => return Poll::Ready(Ok((head, whole))),
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Err(error.into())),
                    }
                }
                return match self.poll_more(context, None) {
                    Poll::Ready(Ok(true)) => continue,
                    Poll::Ready(Ok(false)) => Poll::Ready(Err(refused.take().unwrap_or(Fault::Closed))),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(refused.take().unwrap_or(error.into()))),
                    // Nothing more can be expected from a connection that does not take the request.
                    Poll::Pending => match refused.take() {
                        Some(fault) => Poll::Ready(Err(fault)),
                        None => Poll::Pending,
                    },
                };
            }
        })
        .await;
        match outcome {
            Ok((answer, whole)) => {
                self.framing = answer.framing;
                self.usable = answer.keep_alive && whole;
                Ok(answer)
            }
            Err(fault) => {
                self.usable = false;
                Err(Unanswered { fault, unsent: written == 0 })
            }
        }
    }

    /// Whether the answer has been read to its end.
    pub(super) const fn is_done(&self) -> bool {
        self.framing.is_done()
    }

    /// How many bytes of the body are still to come, when that is known.
    pub(super) const fn remaining(&self) -> Option<u64> {
        self.framing.remaining()
    }

    /// The next piece of an answer's body, `None` at its end.
    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Fault>> {
        let outcome = poll_fn(|context| {
            loop {
                match self.framing.take(&mut self.buffer) {
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                    Ok(None) if self.framing.is_done() => return Poll::Ready(None),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
                match self.poll_more(context, self.framing.remaining()) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) if self.framing == Framing::Close => {
                        self.framing = Framing::Length(0);
                        return Poll::Ready(None);
                    }
                    Poll::Ready(Ok(false)) => return Poll::Ready(Some(Err(Fault::Closed))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        if matches!(outcome, Some(Err(_))) {
            self.usable = false;
        }
        outcome
    }

    /// Reads what is there; false at the end of the stream. `expected` bytes, when known, are read in large pieces.
    fn poll_more(&mut self, context: &mut Context<'_>, expected: Option<u64>) -> Poll<io::Result<bool>> {
        let large = expected.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > PIECE);
        if let Some(size) = large {
            self.buffer.reserve(size.min(LARGE_PIECE));
            let read = pin!(self.stream.read_buf(&mut self.buffer));
            return read.poll(context).map_ok(|count| count > 0);
        }
        // On the stack, so that a connection that waits holds no memory for it.
        let mut piece = [const { MaybeUninit::uninit() }; PIECE];
        let mut space = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut space))?;
        self.buffer.extend_from_slice(space.filled());
        Poll::Ready(Ok(!space.filled().is_empty()))
    }
}

/// Name resolution as the connector asks for it.
#[derive(Clone)]
struct Names(CachingResolver);

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<std::net::SocketAddr>;
    type Error = DnsFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DnsFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DnsFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.0.clone();
        Box::pin(async move { Ok(resolver.look_up(name.as_str()).await?.into_iter()) })
    }
}
