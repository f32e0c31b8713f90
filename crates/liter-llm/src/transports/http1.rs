//! HTTP/1.1 as a client needs it: the request's head as bytes, the answer's head and the limits of its body. No I/O.
//!
//! The grammar of the head is httparse's; the rules of message framing are RFC 9112's, sections 6 and 7.

use std::io::Write;
use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

/// The largest head of an answer.
const LARGEST_HEAD: usize = 256 * 1024;
/// The most headers of an answer.
const MOST_HEADERS: usize = 128;
/// The longest line between two chunks, extensions included, and the most bytes of trailers.
const LONGEST_LINE: usize = 16 * 1024;

/// Bytes that are no HTTP/1.1 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Whether the connection may carry another request afterwards.
    pub(super) keep_alive: bool,
    pub(super) framing: Framing,
}

/// How the end of a body is told, and how far it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks, each with its size before it.
    Chunked(Chunk),
    /// All until the connection is closed.
    Close,
}

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    /// Trailers, of which so many bytes have come.
    Trailers(usize),
    Done,
}

/// The head of a request, ready to be sent.
pub(super) fn write_head(method: &Method, path: &str, headers: &HeaderMap, length: usize) -> Vec<u8> {
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut head = Vec::with_capacity(size + path.len() + 64);
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(path.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    if length > 0 || method == Method::POST {
        // Writing into memory does not fail.
        let _ = write!(head, "content-length: {length}\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Takes the head of an answer off the buffer once it is there as a whole. Informational heads (1xx) are skipped.
pub(super) fn read_head(buffer: &mut BytesMut) -> Result<Option<Head>, Malformed> {
    loop {
        let mut slots = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let outcome = config.parse_response_with_uninit_headers(&mut parsed, buffer, &mut slots);
        let length = match outcome {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.len() > LARGEST_HEAD => {
                return Err(Malformed("the head of the answer is too large"));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed("the head of the answer cannot be read")),
        };
        let status = parsed.code.unwrap_or_default();
        if (100..200).contains(&status) {
            if status == 101 {
                return Err(Malformed("the host switched protocols unasked"));
            }
            buffer.advance(length);
            continue;
        }
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let start = buffer.as_ptr() as usize;
        let place = |text: &[u8]| -> Range<usize> {
            let at = text.as_ptr() as usize - start;
            at..at + text.len()
        };
        let places: Vec<_> = parsed
            .headers
            .iter()
            .map(|header| (place(header.name.as_bytes()), place(header.value)))
            .collect();
        let bytes = buffer.split_to(length).freeze();
        let mut headers = HeaderMap::with_capacity(places.len());
        for (name, value) in places {
            let name = HeaderName::from_bytes(bytes.get(name).unwrap_or_default());
            let value = match value.is_empty() {
                true => Ok(HeaderValue::from_static("")),
                false => HeaderValue::from_maybe_shared(bytes.slice(value)),
            };
            match (name, value) {
                (Ok(name), Ok(value)) => headers.append(name, value),
                _ => return Err(Malformed("a header of the answer cannot be read")),
            };
        }
        let framing = framing(status, &headers)?;
        let mut keep_alive = persistent(version, &headers) && framing != Framing::Close;
        if headers.contains_key(TRANSFER_ENCODING) {
            // A length beside it is to be ignored, and whoever sends both, or chunks as HTTP/1.0, is not trusted
            // with another request.
            keep_alive &= headers.remove(CONTENT_LENGTH).is_none() && version == Version::HTTP_11;
        }
        return Ok(Some(Head { status, headers, keep_alive, framing }));
    }
}

/// The comma-separated words of a header's lines.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn persistent(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &[u8]| words(headers, CONNECTION).any(|said| said.eq_ignore_ascii_case(word));
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}

/// RFC 9112, section 6.3.
fn framing(status: u16, headers: &HeaderMap) -> Result<Framing, Malformed> {
    if matches!(status, 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        let mut codings = words(headers, TRANSFER_ENCODING);
        // Only chunks: nothing else was offered in `TE`.
        return match (codings.next(), codings.next()) {
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked(Chunk::Size))
            }
            _ => Err(Malformed("the answer has an unknown transfer encoding")),
        };
    }
    let mut lengths = words(headers, CONTENT_LENGTH);
    let Some(first) = lengths.next() else { return Ok(Framing::Close) };
    if lengths.any(|other| other != first) {
        return Err(Malformed("the answer has several lengths"));
    }
    digits(first, 10).map(Framing::Length).ok_or(Malformed("the answer's length is no number"))
}

/// A number without sign or blanks.
fn digits(text: &[u8], radix: u32) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        number.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

impl Framing {
    /// Whether the body has come as a whole.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// How many bytes are still to come, when that is known.
    pub(super) const fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(*length),
            _ => None,
        }
    }

    /// The next piece of the body, `None` when more bytes are needed or the body is done.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        self.settle(buffer)?;
        let left = match self {
            Self::Length(left) | Self::Chunked(Chunk::Data(left)) => left,
            Self::Close if !buffer.is_empty() => return Ok(Some(buffer.split().freeze())),
            Self::Close | Self::Chunked(_) => return Ok(None),
        };
        let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        if here == 0 {
            return Ok(None);
        }
        *left -= here as u64;
        let piece = buffer.split_to(here).freeze();
        // The end usually stands right behind the last piece.
        self.settle(buffer)?;
        Ok(Some(piece))
    }

    /// Reads what stands between the data of two chunks, and the end.
    fn settle(&mut self, buffer: &mut BytesMut) -> Result<(), Malformed> {
        let Self::Chunked(chunk) = self else { return Ok(()) };
        loop {
            match chunk {
                Chunk::Data(0) => *chunk = Chunk::DataEnd,
                Chunk::Data(_) | Chunk::Done => return Ok(()),
                Chunk::DataEnd => {
                    if buffer.len() < 2 {
                        return Ok(());
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(Malformed("a chunk is longer than it says"));
                    }
                    buffer.advance(2);
                    *chunk = Chunk::Size;
                }
                Chunk::Size => {
                    let Some(length) = line(buffer)? else { return Ok(()) };
                    let line = buffer.get(..length).unwrap_or_default();
                    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                    *chunk = match digits(size.trim_ascii_end(), 16) {
                        Some(0) => Chunk::Trailers(0),
                        Some(size) => Chunk::Data(size),
                        None => return Err(Malformed("the size of a chunk is no number")),
                    };
                    buffer.advance(length + 2);
                }
                // They say nothing here.
                Chunk::Trailers(before) => {
                    let Some(length) = line(buffer)? else { return Ok(()) };
                    buffer.advance(length + 2);
                    *before += length + 2;
                    if length == 0 {
                        *chunk = Chunk::Done;
                    } else if *before > LONGEST_LINE {
                        return Err(Malformed("the trailers are too long"));
                    }
                }
            }
        }
    }
}

/// The length of the line at the beginning, without its end; `None` when the end is not there yet.
fn line(buffer: &[u8]) -> Result<Option<usize>, Malformed> {
    match memchr::memchr(b'\n', buffer) {
        Some(end) if end > 0 && buffer.get(end - 1) == Some(&b'\r') => Ok(Some(end - 1)),
        Some(_) => Err(Malformed("a line between chunks ends wrongly")),
        None if buffer.len() > LONGEST_LINE => Err(Malformed("a line between chunks is too long")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, Malformed> {
        read_head(&mut BytesMut::from(text))
    }

    /// The body as it comes out when the bytes come in pieces of `size`; `None` when its end did not come.
    fn body(mut framing: Framing, text: &[u8], size: usize) -> Result<Option<(Vec<u8>, usize)>, Malformed> {
        let mut buffer = BytesMut::new();
        let mut whole = Vec::new();
        for piece in text.chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some(piece) = framing.take(&mut buffer)? {
                assert!(!piece.is_empty());
                whole.extend_from_slice(&piece);
            }
        }
        Ok(framing.is_done().then_some((whole, buffer.len())))
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: \r\nx-a: 2\r\nContent-Length: 5\r\n\r\nhello";
        let end = text.len() - 5;
        for cut in 0..end {
            assert!(head(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let mut buffer = BytesMut::from(text);
        let head = read_head(&mut buffer).unwrap().unwrap();
        assert_eq!((head.status, head.keep_alive, head.framing), (200, true, Framing::Length(5)));
        assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(&buffer[..], b"hello");
    }

    #[test]
    fn informational_heads_are_skipped() {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        let head = head(text).unwrap().unwrap();
        assert_eq!((head.status, head.framing), (204, Framing::Length(0)));
        assert!(read_head(&mut BytesMut::from("HTTP/1.1 101 Switching\r\n\r\n")).is_err());
    }

    #[test]
    fn framing_follows_the_rules() {
        let of = |headers: &str| {
            head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).map(|head| {
                let head = head.unwrap();
                (head.framing, head.keep_alive)
            })
        };
        let chunked = Framing::Chunked(Chunk::Size);
        assert_eq!(of(""), Ok((Framing::Close, false)));
        assert_eq!(of("content-length: 0\r\n"), Ok((Framing::Length(0), true)));
        assert_eq!(of("content-length: 7\r\ncontent-length: 7\r\n"), Ok((Framing::Length(7), true)));
        assert_eq!(of("content-length: 7, 7\r\n"), Ok((Framing::Length(7), true)));
        assert_eq!(of("transfer-encoding: Chunked\r\n"), Ok((chunked, true)));
        assert_eq!(of("transfer-encoding: chunked\r\nconnection: x, Close\r\n"), Ok((chunked, false)));
        // Both: chunks win, and the connection is not used again.
        assert_eq!(of("content-length: 7\r\ntransfer-encoding: chunked\r\n"), Ok((chunked, false)));
        for wrong in [
            "content-length: 7\r\ncontent-length: 8\r\n",
            "content-length: +7\r\n",
            "content-length: 7 7\r\n",
            "content-length: 99999999999999999999\r\n",
            "content-length: \r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            " folded: x\r\n",
            "a b: x\r\n",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        let old = head("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n").unwrap().unwrap();
        assert!(!old.keep_alive);
        let kept = head("HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: Keep-Alive\r\n\r\n").unwrap();
        assert!(kept.unwrap().keep_alive);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in ["SSH-2.0-x\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "\0\0\0\0\0\0"] {
            assert!(head(text).is_err(), "{text:?}");
        }
        assert!(head(&format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(LARGEST_HEAD))).is_err());
        assert!(head(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: x\r\n".repeat(MOST_HEADERS + 1))).is_err());
    }

    #[test]
    fn bodies_end_where_they_say_however_they_are_cut() {
        let text = b"5\r\nhello\r\n1;ext=\"a\"\r\n \r\nA  \r\n0123456789\r\n0\r\nx-trailer: 1\r\n\r\nNEXT";
        for size in 1..text.len() {
            let (whole, left) = body(Framing::Chunked(Chunk::Size), text, size).unwrap().unwrap();
            assert_eq!(whole, b"hello 0123456789");
            assert!(left <= 4);
            let (whole, _) = body(Framing::Length(5), b"hello", size).unwrap().unwrap();
            assert_eq!(whole, b"hello");
        }
        for cut in 0..text.len() - 4 {
            assert_eq!(body(Framing::Chunked(Chunk::Size), &text[..cut], 3).unwrap(), None, "{cut}");
        }
        assert_eq!(body(Framing::Length(6), b"hello", 2).unwrap(), None);
        assert_eq!(body(Framing::Close, b"hello", 2).unwrap(), None);
    }

    #[test]
    fn broken_chunks_are_refused() {
        let chunks = Framing::Chunked(Chunk::Size);
        for text in [
            &b"5\r\nhelloX\r\n0\r\n\r\n"[..],
            b"5\nhello\r\n0\r\n\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"\r\n\r\n",
            b"11111111111111111\r\n",
            b" 5\r\nhello\r\n",
        ] {
            assert!(body(chunks, text, 1).is_err(), "{text:?}");
            assert!(body(chunks, text, text.len()).is_err(), "{text:?}");
        }
        assert!(body(chunks, &[b'1'; LONGEST_LINE + 2], 4096).is_err());
        let trailers = [&b"0\r\n"[..], &b"a: b\r\n".repeat(LONGEST_LINE / 4)].concat();
        assert!(body(chunks, &trailers, 4096).is_err());
    }

    #[test]
    fn a_request_says_its_length() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("h"));
        let head = write_head(&Method::POST, "/a?b", &headers, 12);
        assert_eq!(head, b"POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 12\r\n\r\n");
        assert_eq!(write_head(&Method::GET, "/", &headers, 0), b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    }
}
