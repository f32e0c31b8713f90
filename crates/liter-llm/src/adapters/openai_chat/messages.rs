//! The conversation on the wire: what the caller wrote in this wire's form goes as it is, all else is written anew.

use super::encode::{Limits, Object, items, json};
use crate::adapters::quirks::{Quirks, ReasoningEcho};
use crate::core::content::{Block, BlockKind, Media, Message, Reasoning, Role, wire};
use crate::core::error::LlmError;
use crate::core::json::{Extra, RawJson};
use crate::core::request::LlmRequest;

/// Writes the `messages` of a request.
pub(super) struct MessageWriter<'a, 'b> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) quirks: &'a Quirks,
    pub(super) limits: &'a mut Limits<'b>,
}

/// The parts of an assistant message that this wire keeps apart.
#[derive(Default)]
struct Spoken<'a> {
    content: Vec<&'a Block>,
    reasoning: Vec<&'a Reasoning>,
    refusal: String,
    calls: Vec<&'a Block>,
    audio_id: Option<RawJson>,
    function_call: Option<RawJson>,
}

/// The fields that go with a block on this wire. What other wires remember of a block stands under their own names
/// and is nobody else's business.
fn own(extra: &Extra) -> impl Iterator<Item = (&String, &RawJson)> {
    extra.iter().filter(|(name, _)| !matches!(name.as_str(), wire::OPENAI_RESPONSES | wire::ANTHROPIC))
}

/// Marks text as a failure: the wire has no field for it.
const ERROR_PREFIX: &str = "Error: ";

fn invalid(at: &str, message: &str) -> LlmError {
    LlmError::invalid(at, format!("`{at}`: {message}"))
}

impl MessageWriter<'_, '_> {
    pub(super) fn write(mut self, request: &LlmRequest) -> Result<(), LlmError> {
        self.out.push(b'[');
        if !request.system.is_empty() {
            let blocks: Vec<&Block> = request.system.iter().collect();
            let object = self.open("system");
            self.content_field(object, &blocks, "system", &Extra::new(), None)?;
        }
        for (index, message) in request.messages.iter().enumerate() {
            if let Some(verbatim) = self.verbatim(message) {
                self.comma();
                json(self.out, verbatim);
            } else {
                self.message(message, &format!("messages[{index}]"))?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// The message as the caller wrote it, when the host understands all of it.
    fn verbatim<'m>(&self, message: &'m Message) -> Option<&'m RawJson> {
        message.verbatim_for(wire::OPENAI_CHAT).or_else(|| {
            // Text with cache markers or fields of the caller's own, in the form this wire shares with others.
            message.shared_json().filter(|_| {
                message.content().iter().all(|block| {
                    own(&block.extra).count() == block.extra.len()
                        && matches!(block.kind, BlockKind::Text { citations: None, .. })
                        && (block.cache_control.is_none() || self.quirks.cache_control)
                })
            })
        })
    }

    fn comma(&mut self) {
        if self.out.last() != Some(&b'[') {
            self.out.push(b',');
        }
    }

    fn open(&mut self, role: &str) -> Object {
        self.comma();
        let mut object = Object::open(self.out);
        object.field(self.out, "role", role);
        object
    }

    fn message(&mut self, message: &Message, at: &str) -> Result<(), LlmError> {
        if message.role() == Role::Assistant {
            return self.assistant(message, at);
        }
        // Results first: they must follow the calls at once.
        let mut rest = Vec::new();
        for block in message.content() {
            match &block.kind {
                BlockKind::ToolResult { tool_call_id, content, is_error } => {
                    self.tool_result(block, tool_call_id, content, *is_error, message, at)?;
                }
                _ => rest.push(block),
            }
        }
        if message.role() == Role::Tool {
            return match rest.is_empty() {
                true => Ok(()),
                false => {
                    Err(invalid(at, "a tool message consists of tool results, each with the id of its call"))
                }
            };
        }
        if rest.is_empty() && !message.content().is_empty() {
            return Ok(());
        }
        let object = self.open(message.role().as_str());
        self.content_field(object, &rest, at, message.extra(), message.name())
    }

    /// Writes `content`, the message's name and its own fields, and closes it.
    fn content_field(
        &mut self,
        mut object: Object,
        blocks: &[&Block],
        at: &str,
        extra: &Extra,
        name: Option<&str>,
    ) -> Result<(), LlmError> {
        object.key(self.out, "content");
        self.content(blocks, at, "")?;
        self.close(object, name, extra);
        Ok(())
    }

    fn close(&mut self, mut object: Object, name: Option<&str>, extra: &Extra) {
        if let Some(name) = name {
            object.field(self.out, "name", name);
        }
        for (field, value) in extra {
            object.field(self.out, field, value);
        }
        object.close(self.out);
    }

    /// Writes text as a string where it is nothing but text, else a list of parts; `prefix` goes before the text.
    fn content(&mut self, blocks: &[&Block], at: &str, prefix: &str) -> Result<(), LlmError> {
        if blocks.is_empty() {
            json(self.out, prefix.trim_end());
            return Ok(());
        }
        if let [block] = blocks
            && let BlockKind::Text { text, citations } = &block.kind
            && own(&block.extra).next().is_none()
            && (block.cache_control.is_none() || !self.quirks.cache_control)
        {
            self.note_lost(block, citations.is_some(), at);
            if prefix.is_empty() {
                json(self.out, text);
            } else {
                json(self.out, &format!("{prefix}{text}"));
            }
            return Ok(());
        }
        self.out.push(b'[');
        let mut prefix = prefix;
        if !prefix.is_empty() && !blocks.iter().any(|block| block.as_text().is_some()) {
            self.part(&Block::text(prefix.trim_end()), at, "")?;
            prefix = "";
        }
        for block in blocks {
            let mark = self.out.len();
            self.comma();
            if self.part(block, at, prefix)? {
                if block.as_text().is_some() {
                    prefix = "";
                }
            } else {
                self.out.truncate(mark);
            }
        }
        if self.out.last() == Some(&b'[') {
            // Everything was left out; an empty list is refused by most hosts.
            self.out.pop();
            json(self.out, "");
        } else {
            self.out.push(b']');
        }
        Ok(())
    }

    fn note_lost(&mut self, block: &Block, citations: bool, at: &str) {
        if citations {
            self.limits.note(format!("{at}.citations"), "left out: the wire takes no citations back");
        }
        if block.cache_control.is_some() && !self.quirks.cache_control {
            self.limits.note(format!("{at}.cache_control"), "left out: the host has no cache markers");
        }
    }

    /// Writes one part; false when it was left out.
    fn part(&mut self, block: &Block, at: &str, prefix: &str) -> Result<bool, LlmError> {
        let kind = match &block.kind {
            BlockKind::Text { text, citations } => {
                self.note_lost(block, citations.is_some(), at);
                let mut object = Object::open(self.out);
                object.field(self.out, "type", "text");
                if prefix.is_empty() {
                    object.field(self.out, "text", text);
                } else {
                    object.field(self.out, "text", &format!("{prefix}{text}"));
                }
                self.end_part(object, block);
                return Ok(true);
            }
            BlockKind::Image { source, detail } => return self.image(block, source, detail.as_deref(), at),
            BlockKind::Document { source, title } => {
                return self.document(block, source, title.as_deref(), at);
            }
            BlockKind::Audio { source } => return self.audio(block, source, at),
            BlockKind::Opaque { origin, json: raw } if origin == wire::OPENAI_CHAT => {
                json(self.out, raw);
                return Ok(true);
            }
            BlockKind::Reasoning(_) if self.quirks.reasoning_echo != ReasoningEcho::ThinkingPart => {
                self.limits.note(at, "reasoning outside an assistant message was left out");
                return Ok(false);
            }
            BlockKind::Reasoning(reasoning) => {
                let mut object = Object::open(self.out);
                object.field(self.out, "type", "thinking");
                object.key(self.out, "thinking");
                self.out.extend_from_slice(br#"[{"type":"text","text":"#);
                json(self.out, &reasoning.text);
                self.out.extend_from_slice(b"}]");
                object.close(self.out);
                return Ok(true);
            }
            BlockKind::Opaque { .. } => {
                self.limits.note(at, "a block that belongs to another wire was left out");
                return Ok(false);
            }
            BlockKind::Refusal { text } => {
                return self.part(&Block::text(text), at, prefix);
            }
            BlockKind::ToolCall { .. } => "a tool call belongs into a message of the role `assistant`",
            BlockKind::ToolResult { .. } => {
                "a tool result belongs into a message of the role `tool` or `user`"
            }
        };
        Err(invalid(at, kind))
    }

    fn end_part(&mut self, mut object: Object, block: &Block) {
        if let Some(marker) = block.cache_control.as_ref().filter(|_| self.quirks.cache_control) {
            object.field(self.out, "cache_control", marker);
        }
        for (name, value) in own(&block.extra).filter(|(name, _)| *name != "type") {
            object.field(self.out, name, value);
        }
        object.close(self.out);
    }

    fn image(
        &mut self,
        block: &Block,
        source: &Media,
        detail: Option<&str>,
        at: &str,
    ) -> Result<bool, LlmError> {
        let url = match source {
            Media::Url(url) => std::borrow::Cow::Borrowed(url.as_str()),
            Media::Base64 { media_type, data } => format!("data:{media_type};base64,{data}").into(),
            _ => {
                self.limits.cannot(at, "a picture must be a URL or base64 data")?;
                return Ok(false);
            }
        };
        self.note_lost(block, false, at);
        let mut object = Object::open(self.out);
        object.field(self.out, "type", "image_url");
        object.key(self.out, "image_url");
        let mut inner = Object::open(self.out);
        inner.field(self.out, "url", url.as_ref());
        if let Some(detail) = detail {
            inner.field(self.out, "detail", detail);
        }
        inner.close(self.out);
        self.end_part(object, block);
        Ok(true)
    }

    fn document(
        &mut self,
        block: &Block,
        source: &Media,
        title: Option<&str>,
        at: &str,
    ) -> Result<bool, LlmError> {
        let (field, value) = match source {
            Media::Base64 { media_type, data } => ("file_data", format!("data:{media_type};base64,{data}")),
            Media::File(id) => ("file_id", id.clone()),
            Media::Url(url) if self.quirks.document_url => {
                let mut object = Object::open(self.out);
                object.field(self.out, "type", "document_url");
                object.field(self.out, "document_url", url);
                if let Some(title) = title {
                    object.field(self.out, "document_name", title);
                }
                self.end_part(object, block);
                return Ok(true);
            }
            Media::Url(url) if self.quirks.file_data_url => ("file_data", url.clone()),
            Media::Text(text) => {
                self.limits.note(at, "a plain-text document was sent as a text part");
                let text = title.map_or_else(|| text.clone(), |title| format!("{title}\n\n{text}"));
                return self.part(&Block { kind: Block::text(text).kind, ..block.clone() }, at, "");
            }
            Media::Url(_) | Media::Other(_) => {
                self.limits.cannot(at, "a document must be base64 data or an uploaded file's id")?;
                return Ok(false);
            }
        };
        self.note_lost(block, false, at);
        let mut object = Object::open(self.out);
        object.field(self.out, "type", "file");
        object.key(self.out, "file");
        let mut inner = Object::open(self.out);
        if field == "file_data" {
            // The wire wants a name with the bytes.
            inner.field(self.out, "filename", title.unwrap_or("document.pdf"));
        }
        inner.field(self.out, field, &value);
        inner.close(self.out);
        self.end_part(object, block);
        Ok(true)
    }

    fn audio(&mut self, block: &Block, source: &Media, at: &str) -> Result<bool, LlmError> {
        let Media::Base64 { media_type, data } = source else {
            self.limits.cannot(at, "sound must be base64 data")?;
            return Ok(false);
        };
        let format = match media_type.strip_prefix("audio/").unwrap_or(media_type) {
            "wav" | "x-wav" | "wave" | "vnd.wave" => "wav",
            "mpeg" | "mp3" => "mp3",
            other => other,
        };
        let mut object = Object::open(self.out);
        object.field(self.out, "type", "input_audio");
        object.key(self.out, "input_audio");
        let mut inner = Object::open(self.out);
        inner.field(self.out, "data", data);
        inner.field(self.out, "format", format);
        inner.close(self.out);
        self.end_part(object, block);
        Ok(true)
    }

    fn tool_result(
        &mut self,
        block: &Block,
        tool_call_id: &str,
        content: &[Block],
        is_error: bool,
        message: &Message,
        at: &str,
    ) -> Result<(), LlmError> {
        let mut parts = Vec::with_capacity(content.len());
        for part in content {
            let media = !matches!(part.kind, BlockKind::Text { .. } | BlockKind::Opaque { .. });
            if media && !self.quirks.media_in_tool_results {
                let remedy =
                    "a tool result holds only text; put pictures and files into a user message after it";
                self.limits.cannot(at, remedy)?;
            } else {
                parts.push(part);
            }
        }
        if is_error {
            let reason = "the wire has no mark for failed tools: the text was prefixed with `Error: `";
            self.limits.note(format!("{at}.is_error"), reason);
        }
        // The marker of the whole result goes to its last part, where the wire has room for it.
        let marked = match (&block.cache_control, parts.last()) {
            (Some(marker), Some(last)) if last.cache_control.is_none() => {
                Some((*last).clone().with_cache_control(marker.clone()))
            }
            _ => None,
        };
        if let (Some(marked), Some(last)) = (&marked, parts.last_mut()) {
            *last = marked;
        }
        let mut object = self.open("tool");
        object.field(self.out, "tool_call_id", tool_call_id);
        object.key(self.out, "content");
        self.content(&parts, at, if is_error { ERROR_PREFIX } else { "" })?;
        let extra = if message.role() == Role::Tool { message.extra().clone() } else { Extra::new() };
        self.close(object, message.name().filter(|_| message.role() == Role::Tool), &extra);
        Ok(())
    }

    fn assistant(&mut self, message: &Message, at: &str) -> Result<(), LlmError> {
        let has_calls =
            message.content().iter().any(|block| matches!(block.kind, BlockKind::ToolCall { .. }));
        let mut spoken = Spoken::default();
        for block in message.content() {
            match &block.kind {
                BlockKind::Reasoning(reasoning) => {
                    if self.echoes(reasoning, has_calls, at) {
                        match self.quirks.reasoning_echo {
                            ReasoningEcho::ThinkingPart => spoken.content.push(block),
                            _ => spoken.reasoning.push(reasoning),
                        }
                    }
                }
                BlockKind::Refusal { text } => spoken.refusal.push_str(text),
                BlockKind::ToolCall { .. } => spoken.calls.push(block),
                BlockKind::Audio { source } => match source {
                    Media::Other(json) => spoken.audio_id = audio_id(json),
                    _ => self
                        .limits
                        .cannot(at, "an assistant's sound goes back only by the id of the answer")?,
                },
                BlockKind::Opaque { origin, json } if origin == wire::OPENAI_CHAT => {
                    match json.read::<indexmap::IndexMap<String, RawJson>>() {
                        Ok(mut map) if map.contains_key("function_call") => {
                            spoken.function_call = map.shift_remove("function_call");
                        }
                        Ok(map) if map.contains_key("custom") => spoken.calls.push(block),
                        _ => spoken.content.push(block),
                    }
                }
                BlockKind::Opaque { .. } => {
                    self.limits.note(at, "a block that belongs to another wire was left out");
                }
                BlockKind::Image { .. } | BlockKind::Document { .. } => {
                    self.limits.cannot(at, "an assistant message holds text and tool calls")?;
                }
                _ => spoken.content.push(block),
            }
        }
        let mut object = self.open("assistant");
        self.write_reasoning(&mut object, &spoken.reasoning);
        object.key(self.out, "content");
        let silent = spoken.calls.is_empty()
            && spoken.refusal.is_empty()
            && spoken.audio_id.is_none()
            && spoken.function_call.is_none();
        if spoken.content.is_empty() && !silent {
            self.out.extend_from_slice(b"null");
        } else {
            self.content(&spoken.content, at, "")?;
        }
        if !spoken.refusal.is_empty() {
            object.field(self.out, "refusal", &spoken.refusal);
        }
        if let Some(id) = &spoken.audio_id {
            object.key(self.out, "audio");
            let mut inner = Object::open(self.out);
            inner.field(self.out, "id", id);
            inner.close(self.out);
        }
        if let Some(call) = &spoken.function_call {
            object.field(self.out, "function_call", call);
        }
        if !spoken.calls.is_empty() {
            object.key(self.out, "tool_calls");
            self.out.push(b'[');
            for call in &spoken.calls {
                self.comma();
                self.tool_call(call, at);
            }
            self.out.push(b']');
        }
        self.close(object, message.name(), message.extra());
        Ok(())
    }

    /// Whether reasoning goes back to this host; notes it when it does not.
    fn echoes(&mut self, reasoning: &Reasoning, has_calls: bool, at: &str) -> bool {
        let own = match reasoning.origin.as_deref() {
            None => reasoning.signature.is_none() && reasoning.encrypted.is_none(),
            Some(origin) => origin == wire::OPENAI_CHAT,
        };
        let reason = if !own {
            "reasoning that is signed or encrypted for another wire was left out"
        } else if self.quirks.reasoning_echo == ReasoningEcho::None {
            "reasoning was left out: the host takes none back"
        } else if self.quirks.reasoning_echo_only_with_tools && !has_calls {
            "reasoning was left out: the host takes it back only with tool calls"
        } else {
            return true;
        };
        self.limits.note(at, reason);
        false
    }

    fn write_reasoning(&mut self, object: &mut Object, reasoning: &[&Reasoning]) {
        if reasoning.is_empty() {
            return;
        }
        let text: String = reasoning.iter().map(|one| one.text.as_str()).collect();
        let field = match self.quirks.reasoning_echo {
            ReasoningEcho::ReasoningContent => "reasoning_content",
            _ => "reasoning",
        };
        if !text.is_empty() {
            object.field(self.out, field, &text);
        }
        if self.quirks.reasoning_echo == ReasoningEcho::ReasoningDetails {
            let details: Vec<&RawJson> = reasoning.iter().filter_map(|one| one.json.as_ref()).collect();
            match details.as_slice() {
                [] => {}
                [only] => object.field(self.out, "reasoning_details", only),
                several => {
                    let all: Vec<RawJson> = several.iter().flat_map(|json| items(json)).collect();
                    object.field(self.out, "reasoning_details", &all);
                }
            }
        }
    }

    fn tool_call(&mut self, block: &Block, at: &str) {
        let (id, name, arguments) = match &block.kind {
            BlockKind::ToolCall { id, name, arguments } => (id, name, arguments),
            BlockKind::Opaque { json: raw, .. } => return json(self.out, raw),
            _ => return,
        };
        let mut object = Object::open(self.out);
        object.field(self.out, "id", id);
        object.field(self.out, "type", "function");
        object.key(self.out, "function");
        let mut inner = Object::open(self.out);
        inner.field(self.out, "name", name);
        // A call without arguments; hosts refuse text that is not JSON.
        inner.field(self.out, "arguments", if arguments.is_empty() { "{}" } else { arguments.as_str() });
        inner.close(self.out);
        for (field, value) in own(&block.extra) {
            // Fields that Responses items and Anthropic blocks carry beside id, name and arguments.
            if matches!(
                field.as_str(),
                "id" | "type" | "function" | "index" | "status" | "caller" | "call_id"
            ) {
                if field != "index" {
                    self.limits
                        .note(format!("{at}.{field}"), "left out of a tool call: it belongs to another wire");
                }
            } else {
                object.field(self.out, field, value);
            }
        }
        object.close(self.out);
    }
}

fn audio_id(json: &RawJson) -> Option<RawJson> {
    json.read::<indexmap::IndexMap<String, RawJson>>().ok()?.shift_remove("id").filter(|id| !id.is_null())
}
