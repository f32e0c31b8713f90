//! Streamed answers: Anthropic's events to chunks.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::headers::excerpt;
use super::super::{Decoder, Frame, Target};
use super::body::Body;
use super::decode::{Counts, block, finish_reason};
use super::error_of;
use crate::core::chunk::{Delta, Facts, LlmChunk};
use crate::core::content::{Block, BlockKind, Reasoning, wire};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::{Extra, Fields, RawJson, fields, leftover, take};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    signature: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow, default)]
    citation: Option<&'a RawValue>,
}

/// A block that has begun and not ended.
struct Open {
    index: u32,
    /// What is still to be announced; held back so that text needs no chunk of its own to begin with.
    start: Option<Block>,
    state: State,
}

enum State {
    /// Text and whatever needs no finishing.
    Plain,
    /// Reasoning; whether its signature is still to come although the block has one.
    Reasoning { signature_due: bool },
    /// A tool call: its input as the start event had it, until a piece of JSON comes.
    Tool { input: Option<String> },
    /// A vendor block: its fields as they stand, the JSON text that grows into its `input`, and whether it changed.
    Opaque { known: Extra, input: String, changed: bool },
}

/// A text field of an event; `None` when it is absent or `null`.
fn text_of(raw: Option<&RawValue>) -> Result<Option<String>, serde_json::Error> {
    raw.map_or(Ok(None), |raw| serde_json::from_str(raw.get()))
}

/// Decodes the events of one streamed answer.
pub(super) struct MessagesDecoder {
    provider: String,
    model: String,
    counts: Counts,
    open: Vec<Open>,
    newest: u32,
    done: bool,
}

impl MessagesDecoder {
    pub(super) fn new(target: &Target<'_>) -> Self {
        Self {
            provider: target.provider.to_owned(),
            model: target.model.to_owned(),
            counts: Counts::default(),
            open: Vec::new(),
            newest: 0,
            done: false,
        }
    }

    fn failure(&self, kind: ErrorKind, message: String) -> LlmError {
        LlmError::new(kind, message).with(|detail| {
            detail.provider = Some(self.provider.clone());
            detail.model = (!self.model.is_empty()).then(|| self.model.clone());
        })
    }

    fn unreadable(&self, data: &str, error: serde_json::Error) -> LlmError {
        self.failure(ErrorKind::Decode, "an event of the stream could not be understood".to_owned())
            .with(|detail| detail.body = Some(excerpt(data.as_bytes())))
            .with_source(error)
    }

    fn event(
        &mut self,
        event: &Event<'_>,
        data: &str,
        chunks: &mut Vec<LlmChunk>,
    ) -> Result<(), serde_json::Error> {
        // Read only where it is needed: an event that is not known may mean anything by it.
        let index = match event.index {
            Some(raw) if event.kind.starts_with("content_block_") => serde_json::from_str(raw.get())?,
            _ => self.newest,
        };
        match (&*event.kind, event.delta, event.content_block) {
            ("content_block_delta", Some(delta), _) => self.block_delta(index, delta, chunks)?,
            ("content_block_start", _, Some(block)) => self.block_start(index, block, chunks)?,
            ("content_block_stop", ..) => self.block_stop(index, chunks)?,
            ("message_start", ..) => self.message_start(data, chunks)?,
            ("message_delta", ..) => self.message_delta(data, chunks)?,
            ("message_stop", ..) => {
                while let Some(Open { index, .. }) = self.open.first() {
                    self.block_stop(*index, chunks)?;
                }
                self.done = true;
            }
            // `ping`, and whatever may be added: the API's versioning rules allow new events at any time.
            _ => {}
        }
        Ok(())
    }

    fn message_start(&mut self, data: &str, chunks: &mut Vec<LlmChunk>) -> Result<(), serde_json::Error> {
        let mut event = fields(data)?;
        let Some(message) = event.shift_remove("message") else { return Ok(()) };
        let mut message = fields(message.get())?;
        let mut facts = Facts {
            id: take(&mut message, "id")?,
            model: take(&mut message, "model")?,
            provider: Some(self.provider.clone()),
            ..Facts::default()
        };
        let usage = self.usage(&mut message)?;
        facts.service_tier = self.counts.service_tier();
        for name in ["type", "role", "content", "stop_reason"] {
            message.shift_remove(name);
        }
        facts.extra = leftover(message);
        chunks.push(LlmChunk { usage, facts: Some(Box::new(facts)), ..LlmChunk::default() });
        Ok(())
    }

    fn message_delta(&mut self, data: &str, chunks: &mut Vec<LlmChunk>) -> Result<(), serde_json::Error> {
        let mut event = fields(data)?;
        event.shift_remove("type");
        let mut chunk = LlmChunk { usage: self.usage(&mut event)?, ..LlmChunk::default() };
        let mut delta = match event.shift_remove("delta") {
            Some(raw) if raw.get() != "null" => fields(raw.get())?,
            _ => Fields::new(),
        };
        if let Some(raw) = take::<String>(&mut delta, "stop_reason")? {
            chunk.finish_reason = Some(finish_reason(Some(&raw)));
            chunk.raw_finish_reason = Some(raw);
        }
        let mut extra = leftover(delta);
        extra.extend(leftover(event));
        let service_tier = self.counts.service_tier();
        if !extra.is_empty() || service_tier.is_some() {
            chunk.facts = Some(Box::new(Facts { service_tier, extra, ..Facts::default() }));
        }
        chunks.push(chunk);
        Ok(())
    }

    fn usage(
        &mut self,
        map: &mut Fields<'_>,
    ) -> Result<Option<Box<crate::core::response::Usage>>, serde_json::Error> {
        match map.shift_remove("usage") {
            Some(raw) if raw.get() != "null" => {
                self.counts.merge(raw)?;
                Ok(Some(Box::new(self.counts.usage())))
            }
            _ => Ok(None),
        }
    }

    fn block_start(
        &mut self,
        index: u32,
        json: &RawValue,
        chunks: &mut Vec<LlmChunk>,
    ) -> Result<(), serde_json::Error> {
        let mut start = block(json.get())?;
        self.newest = index;
        let state = match &mut start.kind {
            BlockKind::Reasoning(reasoning) => State::Reasoning {
                signature_due: reasoning.signature.take_if(|signature| signature.is_empty()).is_some(),
            },
            BlockKind::ToolCall { arguments, .. } => State::Tool { input: Some(std::mem::take(arguments)) },
            BlockKind::Opaque { json, .. } => {
                State::Opaque { known: json.read()?, input: String::new(), changed: false }
            }
            _ => State::Plain,
        };
        // Text that begins empty is announced by its first piece.
        let announce = !matches!(&start.kind, BlockKind::Text { text, .. } if text.is_empty());
        let mut open = Open { index, start: Some(start), state };
        if announce {
            open.announce(chunks);
        }
        self.open.retain(|other| other.index != index);
        self.open.push(open);
        Ok(())
    }

    fn block_delta(
        &mut self,
        index: u32,
        json: &RawValue,
        chunks: &mut Vec<LlmChunk>,
    ) -> Result<(), serde_json::Error> {
        let delta: BlockDelta<'_> = serde_json::from_str(json.get())?;
        if !self.open.iter().any(|open| open.index == index) {
            self.begin_unannounced(index, &delta.kind)?;
        }
        let Some(open) = self.open.iter_mut().find(|open| open.index == index) else { return Ok(()) };
        if let State::Opaque { known, input, changed } = &mut open.state {
            *changed = true;
            return grow(known, input, &delta, json);
        }
        let piece = match (&*delta.kind, &mut open.state) {
            ("text_delta", State::Plain) => text_of(delta.text)?.map(Delta::Text),
            ("citations_delta", State::Plain) => delta.citation.map(|raw| Delta::Citation(raw.into())),
            ("thinking_delta", State::Reasoning { .. }) => text_of(delta.thinking)?.map(Delta::Reasoning),
            ("signature_delta", State::Reasoning { signature_due }) => {
                *signature_due = false;
                text_of(delta.signature)?.map(Delta::Signature)
            }
            ("input_json_delta", State::Tool { input }) => {
                // The first piece is often empty and says nothing about the input.
                text_of(delta.partial_json)?.filter(|piece| !piece.is_empty()).map(|piece| {
                    *input = None;
                    Delta::Arguments(piece)
                })
            }
            // A kind of piece that is not known, or that its block has no place for.
            _ => None,
        };
        let Some(piece) = piece else { return Ok(()) };
        let bare = open.start.as_ref().is_some_and(|start| *start == Block::text(""));
        if bare && matches!(piece, Delta::Text(_)) {
            open.start = None;
        }
        open.announce(chunks);
        chunks.push(LlmChunk::delta(index, piece));
        Ok(())
    }

    /// Some hosts leave `content_block_start` out. Text and thinking can do without; a tool call cannot.
    fn begin_unannounced(&mut self, index: u32, kind: &str) -> Result<(), serde_json::Error> {
        let (start, state) = match kind {
            "text_delta" | "citations_delta" => (Block::text(""), State::Plain),
            "thinking_delta" | "signature_delta" => (
                Block::reasoning(Reasoning {
                    origin: Some(wire::ANTHROPIC.to_owned()),
                    ..Reasoning::default()
                }),
                State::Reasoning { signature_due: false },
            ),
            "input_json_delta" => {
                return Err(serde::de::Error::custom("a piece of JSON for a block that never began"));
            }
            _ => return Ok(()),
        };
        self.newest = index;
        self.open.push(Open { index, start: Some(start), state });
        Ok(())
    }

    fn block_stop(&mut self, index: u32, chunks: &mut Vec<LlmChunk>) -> Result<(), serde_json::Error> {
        let Some(place) = self.open.iter().position(|open| open.index == index) else { return Ok(()) };
        let mut open = self.open.remove(place);
        open.announce(chunks);
        match open.state {
            State::Reasoning { signature_due: true } => {
                chunks.push(LlmChunk::delta(index, Delta::Signature(String::new())));
            }
            State::Tool { input: Some(input) } => {
                chunks.push(LlmChunk::delta(index, Delta::Arguments(input)));
            }
            State::Opaque { known, input, changed: true } => {
                let whole = Block::opaque(wire::ANTHROPIC, assemble(&known, &input)?);
                chunks.push(LlmChunk::delta(index, Delta::Replace(Box::new(whole))));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Open {
    fn announce(&mut self, chunks: &mut Vec<LlmChunk>) {
        if let Some(start) = self.start.take() {
            chunks.push(LlmChunk::delta(self.index, Delta::Start(Box::new(start))));
        }
    }
}

/// Adds a piece to a vendor block: JSON text to its `input`; every other field to the field of the same name, text
/// after text, anything else in place of what was there.
fn grow(
    known: &mut Extra,
    input: &mut String,
    delta: &BlockDelta<'_>,
    json: &RawValue,
) -> Result<(), serde_json::Error> {
    if delta.kind == "input_json_delta" {
        input.push_str(&text_of(delta.partial_json)?.unwrap_or_default());
        return Ok(());
    }
    let mut pieces = fields(json.get())?;
    pieces.shift_remove("type");
    for (name, piece) in leftover(pieces) {
        let joined = match (known.get(&name).and_then(RawJson::as_string), piece.as_string()) {
            (Some(before), Some(more)) => RawJson::from((before + &more).as_str()),
            _ => piece,
        };
        known.insert(name, joined);
    }
    Ok(())
}

/// The vendor block as a whole answer would have had it. JSON that was cut off is kept as a string.
fn assemble(known: &Extra, input: &str) -> Result<RawJson, serde_json::Error> {
    let mut body = Body::default();
    body.open_object();
    let whole = serde_json::from_str::<&RawValue>(input).ok().map(RawValue::get);
    let write_input = |body: &mut Body| match whole {
        Some(json) => body.raw_field("input", json),
        None => body.field("input", input),
    };
    for (name, value) in known {
        if name == "input" && !input.is_empty() {
            write_input(&mut body);
        } else {
            body.raw_field(name, value.get());
        }
    }
    if !input.is_empty() && !known.contains_key("input") {
        write_input(&mut body);
    }
    body.close_object();
    RawJson::parse(String::from_utf8_lossy(&body.into_bytes()).into_owned())
}

impl Decoder for MessagesDecoder {
    fn push(&mut self, frame: Frame<'_>, chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        if self.done {
            return Ok(());
        }
        let (name, data) = match frame {
            Frame::Event { name, data } => (name, data),
            Frame::Text(data) => ("message", data),
            Frame::Binary { name, .. } => {
                let message =
                    format!("the stream holds a binary message `{name}` this wire format does not have");
                return Err(self.failure(ErrorKind::Decode, message));
            }
        };
        let data = data.trim();
        // `[DONE]` is another wire's terminator; some hosts add it, and here it ends nothing.
        if data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let failed = || error_of(&self.provider, &self.model, None, &HeaderMap::new(), data.as_bytes());
        if name == "error" {
            return Err(failed());
        }
        let mut event: Event<'_> =
            serde_json::from_str(data).map_err(|error| self.unreadable(data, error))?;
        if event.kind.is_empty() {
            event.kind = Cow::Borrowed(if event.error.is_some() { "error" } else { name });
        }
        if event.kind == "error" {
            return Err(failed());
        }
        self.event(&event, data, chunks).map_err(|error| self.unreadable(data, error))
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn finish(&mut self, _chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        if self.done {
            return Ok(());
        }
        Err(self.failure(ErrorKind::StreamInterrupted, "the stream ended before `message_stop`".to_owned()))
    }
}
