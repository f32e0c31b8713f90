//! Cuts a byte stream into Server-Sent Events, as the WHATWG HTML standard says, at any byte split.

use std::borrow::Cow;
use std::time::Duration;

use memchr::{memchr, memchr2};

use crate::core::error::{ErrorKind, LlmError};

/// The default limit for one event, in bytes: 16 MiB.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// One dispatched event; borrows from the parser or from the bytes just pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The event's type; `message` when the stream names none.
    pub name: &'a str,
    /// The data lines, joined by line feeds.
    pub data: &'a str,
    /// The last event id seen so far, empty when there is none.
    pub id: &'a str,
}

/// A push parser for `text/event-stream` (HTML standard, section 9.2.6).
///
/// Bytes may be cut anywhere, inside a line end or a character too; the events are the same. Each byte is looked at
/// once: a line that is still open is not scanned again when more of it arrives. An event that lies whole in the
/// pushed bytes, with one data line, is handed out without a copy.
///
/// ```
/// use liter_llm::transports::sse::SseParser;
/// let mut parser = SseParser::default();
/// let mut seen = Vec::new();
/// for bytes in ["event: ping\nda", "ta: {}\n\n"] {
///     parser.push(bytes.as_bytes(), |event| {
///         seen.push(format!("{} {}", event.name, event.data));
///         Ok(())
///     })?;
/// }
/// assert_eq!(seen, ["ping {}"]);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug)]
pub struct SseParser {
    max_event_bytes: usize,
    /// How many bytes of a byte order mark were seen at the very start; `None` once the start has passed.
    bom: Option<u8>,
    /// The last byte was a carriage return: a line feed that follows belongs to the same line end.
    after_cr: bool,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The event type as far as it lay in earlier pushes.
    name: String,
    /// The data as far as it could not be borrowed; counts only with `has_data`.
    data: String,
    has_data: bool,
    /// The last event id buffer of the standard; becomes `id` at the next empty line.
    next_id: String,
    id: String,
    id_changed: bool,
    retry: Option<Duration>,
    stopped: bool,
}

/// What the event under construction borrows from the bytes of this push.
#[derive(Default)]
struct Borrowed<'a> {
    name: Option<&'a str>,
    data: Option<&'a str>,
}

impl Default for SseParser {
    fn default() -> Self {
        Self::new(MAX_EVENT_BYTES)
    }
}

impl SseParser {
    /// A parser that refuses events of more than `max_event_bytes`.
    #[must_use]
    pub const fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            bom: Some(0),
            after_cr: false,
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            has_data: false,
            next_id: String::new(),
            id: String::new(),
            id_changed: false,
            retry: None,
            stopped: false,
        }
    }

    /// Takes the next bytes and calls `on_event` for each event they complete, in order.
    ///
    /// # Errors
    /// `decode` when an event is larger than the limit, or what `on_event` returns. After an error the rest of the
    /// bytes is dropped and every later push fails.
    pub fn push(
        &mut self,
        bytes: &[u8],
        mut on_event: impl FnMut(SseEvent<'_>) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        if self.stopped {
            return Err(LlmError::new(
                ErrorKind::Decode,
                "the event stream was given up after an earlier error",
            ));
        }
        let outcome = self.cut(bytes, &mut on_event);
        if outcome.is_err() {
            self.stopped = true;
            self.line = Vec::new();
            self.data = String::new();
        }
        outcome
    }

    /// Whether bytes were pushed that belong to no dispatched event yet: an open line, or data or a type without the
    /// empty line that ends their event. Such an event is never dispatched when the stream ends.
    #[must_use]
    pub fn has_unfinished(&self) -> bool {
        !self.line.is_empty()
            || self.has_data
            || !self.name.is_empty()
            || self.bom.is_some_and(|seen| seen > 0)
    }

    /// The id of the last event that was ended by an empty line; empty when there was none.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.id
    }

    /// The reconnection time the stream asked for last (`retry`).
    #[must_use]
    pub const fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn cut(
        &mut self,
        bytes: &[u8],
        on_event: &mut impl FnMut(SseEvent<'_>) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        let mut rest = self.skip_bom(bytes);
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        let mut borrowed = Borrowed::default();
        while let Some(end) = memchr2(b'\r', b'\n', rest) {
            let (line, tail) = (&rest[..end], &rest[end + 1..]);
            rest = match (rest[end], tail.first()) {
                (b'\r', Some(b'\n')) => &tail[1..],
                (b'\r', None) => {
                    self.after_cr = true;
                    tail
                }
                _ => tail,
            };
            if !self.line.is_empty() {
                self.check_size(line.len(), &borrowed)?;
                self.line.extend_from_slice(line);
                let whole = std::mem::take(&mut self.line);
                let mut own = Borrowed::default();
                self.field(&whole, &mut own);
                self.keep(&own);
                // The buffer goes back, so that the next open line needs no allocation.
                self.line = whole;
                self.line.clear();
                self.check_size(0, &borrowed)?;
            } else if line.is_empty() {
                self.dispatch(&mut borrowed, on_event)?;
            } else {
                self.check_size(line.len(), &borrowed)?;
                self.field(line, &mut borrowed);
                // Replacement characters make data longer than its line was.
                self.check_size(0, &borrowed)?;
            }
        }
        self.check_size(rest.len(), &borrowed)?;
        self.keep(&borrowed);
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// Drops one byte order mark at the very start of the stream, also when it arrives in pieces.
    fn skip_bom<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        while let (Some(seen), Some(&byte)) = (self.bom, rest.first()) {
            let seen = usize::from(seen);
            if byte != BOM[seen] {
                // No mark after all: what looked like one is the beginning of the first line.
                self.line.extend_from_slice(&BOM[..seen]);
                self.bom = None;
                break;
            }
            rest = &rest[1..];
            self.bom = (seen + 1 < BOM.len()).then_some(seen as u8 + 1);
        }
        rest
    }

    fn check_size(&self, more: usize, borrowed: &Borrowed<'_>) -> Result<(), LlmError> {
        let data = borrowed.data.map_or(self.data.len(), str::len);
        if data + self.line.len() + more <= self.max_event_bytes {
            return Ok(());
        }
        Err(LlmError::new(
            ErrorKind::Decode,
            format!("an event of the stream is larger than {} bytes", self.max_event_bytes),
        ))
    }

    /// Reads one line that is not empty.
    fn field<'a>(&mut self, line: &'a [u8], borrowed: &mut Borrowed<'a>) {
        let (field, value) = match memchr(b':', line) {
            Some(0) => return,
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &line[line.len()..]),
        };
        match field {
            b"data" => self.data_line(value, borrowed),
            // Line ends are ASCII, so decoding line by line yields the same replacement characters as decoding the
            // stream as a whole.
            b"event" => match text_of(value) {
                Cow::Borrowed(name) => borrowed.name = Some(name),
                Cow::Owned(name) => {
                    self.name = name;
                    borrowed.name = None;
                }
            },
            b"id" if memchr(0, value).is_none() => {
                self.next_id.clear();
                self.next_id.push_str(&String::from_utf8_lossy(value));
                self.id_changed = true;
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let milliseconds = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = Some(Duration::from_millis(milliseconds.unwrap_or(u64::MAX)));
            }
            _ => {}
        }
    }

    fn data_line<'a>(&mut self, value: &'a [u8], borrowed: &mut Borrowed<'a>) {
        let text = text_of(value);
        let first = !self.has_data && borrowed.data.is_none();
        match text {
            Cow::Borrowed(text) if first => borrowed.data = Some(text),
            text => {
                if let Some(earlier) = borrowed.data.take() {
                    self.data.push_str(earlier);
                }
                if !first {
                    self.data.push('\n');
                }
                self.data.push_str(&text);
                self.has_data = true;
            }
        }
    }

    /// Copies what is borrowed from bytes that are about to go away.
    fn keep(&mut self, borrowed: &Borrowed<'_>) {
        if let Some(name) = borrowed.name {
            self.name.clear();
            self.name.push_str(name);
        }
        // Only a first data line is ever borrowed, so nothing stands before it.
        if let Some(text) = borrowed.data {
            self.data.push_str(text);
            self.has_data = true;
        }
    }

    /// An empty line: hands the event out, unless it has no data line.
    fn dispatch(
        &mut self,
        borrowed: &mut Borrowed<'_>,
        on_event: &mut impl FnMut(SseEvent<'_>) -> Result<(), LlmError>,
    ) -> Result<(), LlmError> {
        if self.id_changed {
            std::mem::swap(&mut self.id, &mut self.next_id);
            self.id_changed = false;
        }
        let Borrowed { name, data } = std::mem::take(borrowed);
        let outcome = match data.or(self.has_data.then_some(&self.data)) {
            None => Ok(()),
            Some(data) => {
                let name = name.unwrap_or(&self.name);
                on_event(SseEvent {
                    name: if name.is_empty() { "message" } else { name },
                    data,
                    id: &self.id,
                })
            }
        };
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        outcome
    }
}

/// The bytes as text, with replacement characters where they are none. The check alone is faster than the search for
/// what must be replaced, and it is all that good bytes need.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}
