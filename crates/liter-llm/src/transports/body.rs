//! The body of an answer: its pieces, decompressed, under limits of time and size.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use reqwest::Response;
#[cfg(feature = "websocket")]
use reqwest::Upgraded;

use super::connection::Connection;
use super::failure::{self, Peer};
use super::gzip::Gzip;
use super::pools::Origin;
use crate::core::error::{ErrorKind, FailurePhase, LlmError};

/// From this size on a body's buffer is made for the largest body there may be: 1 MiB.
const LARGE_BODY: usize = 1024 * 1024;

enum Source {
    Own {
        connection: Option<Connection>,
        /// The size the host announced, if it did.
        length: Option<u64>,
        origin: Arc<Origin>,
        gzip: Option<Box<Gzip>>,
    },
    /// Boxed, because it is large and rare.
    Proxied(Box<Response>),
}

/// The body of an answer, decompressed.
pub struct BodyStream {
    source: Source,
    status: u16,
    peer: Peer,
    max_body_bytes: usize,
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BodyStream").field("status", &self.status).field("peer", &self.peer).finish()
    }
}

/// A body whose answer is yet to be named.
pub(super) struct Unnamed(Source);

impl Unnamed {
    pub(super) fn of(self, status: u16, peer: Peer, max_body_bytes: usize) -> BodyStream {
        BodyStream { source: self.0, status, peer, max_body_bytes }
    }
}

impl BodyStream {
    /// From a connection of our own, which goes back to `origin` at the end. Takes the headers away that speak of
    /// the compressed form.
    pub(super) fn own(connection: Connection, origin: Arc<Origin>, headers: &mut HeaderMap) -> Unnamed {
        let packed = headers.get(CONTENT_ENCODING).is_some_and(|encoding| {
            [&b"gzip"[..], b"x-gzip"].iter().any(|known| encoding.as_bytes().eq_ignore_ascii_case(known))
        });
        if packed {
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        let gzip = packed.then(Box::default);
        let length = connection.remaining();
        Unnamed(Source::Own { connection: Some(connection), length, origin, gzip })
    }

    /// From reqwest, which decompresses by itself.
    pub(super) fn proxied(response: Response) -> Unnamed {
        Unnamed(Source::Proxied(Box::new(response)))
    }

    /// The next bytes, or `None` at the clean end. `idle` limits the wait for them.
    ///
    /// # Errors
    /// `timeout` with phase `idle`; `connection` with phase `reset` when the body breaks off; `decode` when it cannot
    /// be decompressed.
    pub async fn chunk(&mut self, idle: Option<Duration>) -> Result<Option<Bytes>, LlmError> {
        let Some(limit) = idle else { return self.next().await };
        let outcome = tokio::time::timeout(limit, self.next()).await;
        outcome.unwrap_or_else(|_| Err(self.silent(limit)))
    }

    /// The error of a wait that was longer than `limit`.
    pub(crate) fn silent(&self, limit: Duration) -> LlmError {
        let error = failure::timed_out(FailurePhase::Idle, &self.peer, limit);
        error.with(|detail| detail.status_code = Some(self.status))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, LlmError> {
        let (connection, origin, gzip) = match &mut self.source {
            Source::Own { connection, origin, gzip, .. } => (connection, origin, gzip),
            Source::Proxied(response) => {
                let outcome = response.chunk().await;
                return outcome.map_err(|error| failure::reading(error, &self.peer, self.status));
            }
        };
        loop {
            if let Some(gzip) = gzip
                && let Some(piece) =
                    gzip.next().map_err(|error| failure::decompressing(error, &self.peer, self.status))?
            {
                return Ok(Some(piece));
            }
            let piece = match connection {
                Some(connection) => connection.chunk().await,
                None => None,
            };
            match piece {
                Some(Ok(bytes)) => {
                    if let Some(done) = connection.take_if(|connection| connection.is_done()) {
                        origin.give_back(done);
                    }
                    match gzip {
                        None => return Ok(Some(bytes)),
                        Some(gzip) => gzip.packed = bytes,
                    }
                }
                Some(Err(error)) => {
                    *connection = None;
                    return Err(failure::broken(error, &self.peer, self.status));
                }
                None => {
                    if let Some(connection) = connection.take() {
                        origin.give_back(connection);
                    }
                    let Some(mut gzip) = gzip.take() else { return Ok(None) };
                    return gzip
                        .finish()
                        .map_err(|error| failure::decompressing(error, &self.peer, self.status));
                }
            }
        }
    }

    /// The whole body, of at most `cap` bytes after decompression (`None`: the transport's limit). `idle` limits each
    /// wait.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk), and `decode` when the body is larger than the cap.
    pub async fn collect(mut self, cap: Option<usize>, idle: Option<Duration>) -> Result<Bytes, LlmError> {
        let cap = cap.unwrap_or(self.max_body_bytes);
        if self.announced().is_some_and(|length| length > cap as u64) {
            return Err(self.too_large(cap));
        }
        let Some(first) = self.chunk(idle).await? else { return Ok(Bytes::new()) };
        if first.len() > cap {
            return Err(self.too_large(cap));
        }
        let Some(mut piece) = self.chunk(idle).await? else { return Ok(first) };
        // One block that grows: pieces kept until the end would take twice the memory, and an allocator keeps what
        // many small ones have taken.
        let expected = self.announced().and_then(|length| usize::try_from(length).ok());
        let mut whole = Vec::with_capacity(expected.unwrap_or(0).max(first.len() + piece.len()).min(cap));
        whole.extend_from_slice(&first);
        drop(first);
        loop {
            let size = whole.len().saturating_add(piece.len());
            if size > cap {
                return Err(self.too_large(cap));
            }
            if size > whole.capacity() && size > LARGE_BODY {
                // Room for all that may come: what is not written to takes no memory, and growing by steps would
                // leave the smaller blocks behind.
                whole.reserve_exact(cap - whole.len());
            }
            whole.extend_from_slice(&piece);
            match self.chunk(idle).await? {
                Some(next) => piece = next,
                None => {
                    if whole.capacity() > LARGE_BODY {
                        whole.shrink_to_fit();
                    }
                    return Ok(Bytes::from(whole));
                }
            }
        }
    }

    /// The size the host announced, unless the body is compressed.
    fn announced(&self) -> Option<u64> {
        match &self.source {
            Source::Own { length, gzip: None, .. } => *length,
            Source::Own { .. } => None,
            Source::Proxied(response) => response.content_length(),
        }
    }

    /// The connection itself, after an answer with status 101.
    #[cfg(feature = "websocket")]
    pub(super) async fn into_upgraded(self) -> Result<(Upgraded, Peer), LlmError> {
        let Self { source, status, peer, .. } = self;
        let Source::Proxied(response) = source else {
            return Err(LlmError::new(ErrorKind::Connection, format!("{peer} did not switch protocols")));
        };
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
