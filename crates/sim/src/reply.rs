//! An answer before it meets the wire: status, headers, and a whole body or the frames of a stream.

use serde::Serialize;
use serde_json::Value;

/// What a frame of a stream is, so that faults can leave out the right ones and pacing can pause at tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FrameKind {
    /// Opens or closes something.
    Structure,
    /// Carries a token.
    Token,
    /// States the finish reason or usage.
    Finish,
    /// The stream's own terminator.
    Terminator,
}

/// The frames of a stream in one buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    data: Vec<u8>,
    marks: Vec<(usize, FrameKind)>,
}

impl Frames {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), marks: Vec::new() }
    }

    /// Appends a frame that `write` produces.
    pub(crate) fn push(&mut self, kind: FrameKind, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.marks.push((self.data.len(), kind));
    }

    /// Appends an event: with an `event:` line when `name` is given.
    pub(crate) fn event<T: Serialize + ?Sized>(&mut self, kind: FrameKind, name: Option<&str>, data: &T) {
        self.push(kind, |out| {
            if let Some(name) = name {
                out.extend_from_slice(b"event: ");
                out.extend_from_slice(name.as_bytes());
                out.push(b'\n');
            }
            out.extend_from_slice(b"data: ");
            json(out, data);
            out.extend_from_slice(b"\n\n");
        });
    }

    /// The frames one by one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FrameKind, &[u8])> {
        self.marks.iter().enumerate().map(|(i, (end, kind))| {
            let start = i.checked_sub(1).and_then(|p| self.marks.get(p)).map_or(0, |m| m.0);
            (*kind, self.data.get(start..*end).unwrap_or_default())
        })
    }

    /// Splits raw event-stream text at its blank lines.
    pub(crate) fn from_text(text: &str) -> Self {
        let mut frames = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            let end = ["\n\n", "\r\n\r\n", "\r\r"]
                .iter()
                .filter_map(|gap| rest.find(gap).map(|at| at + gap.len()))
                .min();
            let (event, after) = rest.split_at(end.unwrap_or(rest.len()));
            let finished = ["[DONE]", "message_stop", "event: response.completed"]
                .iter()
                .any(|mark| event.contains(mark));
            let kind = if finished { FrameKind::Terminator } else { FrameKind::Token };
            frames.push(kind, |out| out.extend_from_slice(event.as_bytes()));
            rest = after;
        }
        frames
    }
}

/// The body of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Whole(Vec<u8>),
    Stream(Frames),
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Reply {
    pub(crate) fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        let mut body = Vec::with_capacity(512);
        json(&mut body, value);
        Self::bytes(status, body)
    }

    /// A JSON answer from ready bytes.
    pub(crate) fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type: "application/json".to_owned(),
            headers: Vec::new(),
            body: Body::Whole(body),
        }
    }

    pub(crate) fn stream(frames: Frames) -> Self {
        Self {
            status: 200,
            content_type: "text/event-stream; charset=utf-8".to_owned(),
            headers: Vec::new(),
            body: Body::Stream(frames),
        }
    }

    /// Sets a header, replacing one of that name.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        match self.headers.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(entry) => entry.1 = value,
            None => self.headers.push((name.to_owned(), value)),
        }
    }
}

/// Writes `value` as JSON. Writing plain data to memory cannot fail.
pub(crate) fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(out, value);
}

/// JSON text of a value.
pub(crate) fn json_text(value: &Value) -> String {
    value.to_string()
}
