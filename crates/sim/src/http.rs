//! HTTP/1.1 on one connection: reading requests, writing bytes, waiting while watching for the client's leaving.

use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest request head accepted, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Bytes a client may send ahead while its answer is under way; beyond that it is not read.
const MAX_AHEAD: usize = 1 << 20;

/// The client closed or lost the connection.
#[derive(Debug)]
pub(crate) struct Gone;

/// Why a request could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The connection ended, between requests or inside one.
    Gone,
    /// The bytes are no HTTP request.
    Malformed(&'static str),
    /// The body is longer than allowed.
    TooLarge,
}

/// One parsed request. Cloning is cheap: head and body are shared.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: Bytes,
    method: Range<usize>,
    target: Range<usize>,
    headers: Vec<(Range<usize>, Range<usize>)>,
    pub body: Bytes,
    pub keep_alive: bool,
}

impl Request {
    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(self.head.get(range.clone()).unwrap_or_default()).unwrap_or("")
    }

    pub(crate) fn method(&self) -> &str {
        self.text(&self.method)
    }

    fn target(&self) -> &str {
        let target = self.text(&self.target);
        // The absolute form, as sent to a proxy.
        match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        }
    }

    pub(crate) fn path(&self) -> &str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    pub(crate) fn query(&self) -> &str {
        self.target().split_once('?').map_or("", |(_, query)| query)
    }

    /// A query parameter's raw value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query()
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v))
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(n, v)| (self.text(n), self.text(v)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

/// One connection.
pub(crate) struct Conn {
    pub stream: TcpStream,
    pub buffer: BytesMut,
    pub id: u64,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, id: u64) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(16 * 1024), id }
    }

    /// Reads more bytes into the buffer.
    pub(crate) async fn fill(&mut self) -> Result<(), Gone> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(n) if n > 0 => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(bytes).await.map_err(|_| Gone)
    }

    /// Waits, and ends early with [`Gone`] when the client leaves.
    pub(crate) async fn pause(&mut self, time: Duration) -> Result<(), Gone> {
        if time.is_zero() {
            return Ok(());
        }
        let sleep = tokio::time::sleep(time);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return Ok(()),
                filled = self.fill(), if self.buffer.len() < MAX_AHEAD => filled?,
            }
        }
    }

    /// Waits until the client leaves.
    pub(crate) async fn until_gone(&mut self) -> Gone {
        loop {
            if self.buffer.len() >= MAX_AHEAD {
                self.buffer.clear();
            }
            if self.fill().await.is_err() {
                return Gone;
            }
        }
    }

    /// Ends the connection with a reset instead of an orderly close.
    pub(crate) fn reset(&self) {
        // A failure means that the connection is gone already, which is what was wanted.
        let _ = self.stream.set_zero_linger();
    }

    /// Reads the next request with its body.
    pub(crate) async fn request(&mut self, max_body: usize) -> Result<Request, ReadError> {
        let (mut request, framing) = loop {
            if let Some(parsed) = parse_head(&mut self.buffer)? {
                break parsed;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(ReadError::Malformed("request head too long"));
            }
            self.fill().await.map_err(|Gone| ReadError::Gone)?;
        };
        if framing != Framing::Length(0)
            && request.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
        {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|Gone| ReadError::Gone)?;
        }
        request.body = match framing {
            Framing::Length(length) if length > max_body => return Err(ReadError::TooLarge),
            Framing::Length(length) => {
                self.need(length).await?;
                self.buffer.split_to(length).freeze()
            }
            Framing::Chunked => self.chunked(max_body).await?,
        };
        Ok(request)
    }

    async fn need(&mut self, length: usize) -> Result<(), ReadError> {
        if let Some(missing) = length.checked_sub(self.buffer.len()) {
            self.buffer.reserve(missing);
        }
        while self.buffer.len() < length {
            self.fill().await.map_err(|Gone| ReadError::Gone)?;
        }
        Ok(())
    }

    async fn chunked(&mut self, max_body: usize) -> Result<Bytes, ReadError> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let size = std::str::from_utf8(&line).ok().and_then(|l| l.split(';').next()).map(str::trim);
            let size = size
                .and_then(|s| usize::from_str_radix(s, 16).ok())
                .ok_or(ReadError::Malformed("chunk size"))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body.freeze());
            }
            if body.len().saturating_add(size) > max_body {
                return Err(ReadError::TooLarge);
            }
            self.need(size + 2).await?;
            body.extend_from_slice(&self.buffer[..size]);
            self.buffer.advance(size + 2);
        }
    }

    async fn line(&mut self) -> Result<Bytes, ReadError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(ReadError::Malformed("line too long"));
            }
            self.fill().await.map_err(|Gone| ReadError::Gone)?;
        }
    }
}

#[derive(PartialEq)]
enum Framing {
    Length(usize),
    Chunked,
}

fn parse_head(buffer: &mut BytesMut) -> Result<Option<(Request, Framing)>, ReadError> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut slots = [httparse::EMPTY_HEADER; 96];
    let mut parsed = httparse::Request::new(&mut slots);
    let length = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ReadError::Malformed("request head")),
    };
    let start = buffer.as_ptr() as usize;
    let range = |part: &[u8]| {
        if part.is_empty() {
            return 0..0;
        }
        let at = part.as_ptr() as usize - start;
        at..at + part.len()
    };
    let mut framing = Framing::Length(0);
    let mut keep_alive = parsed.version == Some(1);
    let mut headers = Vec::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).ok().and_then(|v| v.trim().parse().ok());
            framing = Framing::Length(value.ok_or(ReadError::Malformed("content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            if header.value.eq_ignore_ascii_case(b"close") {
                keep_alive = false;
            } else if header.value.eq_ignore_ascii_case(b"keep-alive") {
                keep_alive = true;
            }
        }
        headers.push((range(name.as_bytes()), range(header.value)));
    }
    let method = range(parsed.method.unwrap_or("").as_bytes());
    let target = range(parsed.path.unwrap_or("").as_bytes());
    let head = buffer.split_to(length).freeze();
    Ok(Some((Request { head, method, target, headers, body: Bytes::new(), keep_alive }, framing)))
}

/// The reason phrase of a status.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Payload Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        529 => "Site is overloaded",
        _ => "Status",
    }
}
