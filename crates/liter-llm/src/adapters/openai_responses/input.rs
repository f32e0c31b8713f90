//! Writing messages as input items: message items, calls, results, reasoning, vendor items.

use base64::Engine as _;

use super::encode::{Encoder, comma, field, is_wire, key, put, raw};
use crate::core::content::{Block, BlockKind, Media, Message, Reasoning, Role, wire};
use crate::core::error::LlmError;
use crate::core::json::{Extra, RawJson, fields};

/// The types of annotations this API knows; other citations came from another wire.
const ANNOTATIONS: [&str; 4] = ["url_citation", "file_citation", "container_file_citation", "file_path"];

/// The fields of calls and their outputs that stand flat in the `extra` of blocks read from input items.
const ITEM_FIELDS: [&str; 5] = ["id", "status", "namespace", "caller", "created_by"];

/// What decoding noted about the item a block came from: its fields in their JSON form.
fn item_note(block: &Block) -> Option<&RawJson> {
    block.extra.get(wire::OPENAI_RESPONSES)
}

fn write_note(out: &mut Vec<u8>, note: Option<&RawJson>) {
    if let Some(map) = note.and_then(|note| fields(note.get()).ok()) {
        for (name, value) in map.iter() {
            raw(out, name, value.get());
        }
    }
}

impl Encoder<'_> {
    /// Writes a message as the items it consists of.
    pub(super) fn message(&mut self, items: &mut Vec<u8>, message: &Message) -> Result<(), LlmError> {
        if let Some(json) = message.verbatim_for(wire::OPENAI_RESPONSES) {
            comma(items);
            items.extend_from_slice(json.get().as_bytes());
            return Ok(());
        }
        match (message.name(), message.role()) {
            (None, _) => {}
            // A result's name only repeats the call's.
            (Some(_), Role::Tool) => {
                self.note("messages.name", "left out: the call's id says which tool it was")
            }
            (Some(_), _) => self.refuse("messages.name", "OpenAI Responses has no name of the speaker")?,
        }
        self.foreign =
            [wire::OPENAI_CHAT, wire::ANTHROPIC].iter().any(|other| message.verbatim_for(other).is_some());
        let written = self.blocks(items, message);
        self.foreign = false;
        written
    }

    fn blocks(&mut self, items: &mut Vec<u8>, message: &Message) -> Result<(), LlmError> {
        // Blocks that share a message item: those that came from the same one, or neighbours that came from none.
        let mut pending: Vec<&Block> = Vec::new();
        for block in message.content() {
            let part = match &block.kind {
                BlockKind::Opaque { origin, .. } => {
                    origin == wire::OPENAI_RESPONSES && item_note(block).is_some()
                }
                BlockKind::ToolCall { .. } | BlockKind::ToolResult { .. } | BlockKind::Reasoning(_) => false,
                _ => true,
            };
            let joins = pending.first().is_none_or(|first| item_note(first) == item_note(block));
            if !part || !joins {
                self.content_message(items, message.role(), &pending, message.extra())?;
                pending.clear();
            }
            if part {
                pending.push(block);
            } else {
                self.item(items, block)?;
            }
        }
        self.content_message(items, message.role(), &pending, message.extra())
    }

    /// A block that is an item of its own.
    fn item(&mut self, items: &mut Vec<u8>, block: &Block) -> Result<(), LlmError> {
        if block.cache_control.is_some() {
            self.note_cache_control();
        }
        match &block.kind {
            BlockKind::ToolCall { id, name, arguments } => {
                comma(items);
                items.extend_from_slice(br#"{"type":"function_call""#);
                write_note(items, item_note(block));
                field(items, "call_id", id)?;
                field(items, "name", name)?;
                field(items, "arguments", if arguments.is_empty() { "{}" } else { arguments.as_str() })?;
                self.extra(items, &block.extra, |name| ITEM_FIELDS.contains(&name));
                items.push(b'}');
                Ok(())
            }
            BlockKind::ToolResult { tool_call_id, content, is_error } => {
                if *is_error {
                    self.note(
                        "is_error",
                        "left out: OpenAI Responses marks no tool result as failed; its content is sent",
                    );
                }
                comma(items);
                items.extend_from_slice(br#"{"type":"function_call_output""#);
                field(items, "call_id", tool_call_id)?;
                key(items, "output");
                self.content(items, Role::Tool, &content.iter().collect::<Vec<_>>())?;
                self.extra(items, &block.extra, |name| ITEM_FIELDS.contains(&name));
                items.push(b'}');
                Ok(())
            }
            BlockKind::Reasoning(reasoning) => self.reasoning(items, reasoning),
            BlockKind::Opaque { origin, json } if origin == wire::OPENAI_RESPONSES => {
                comma(items);
                items.extend_from_slice(json.get().as_bytes());
                Ok(())
            }
            BlockKind::Opaque { .. } => {
                self.note(
                    "messages",
                    "another vendor's own block left out: only the wire it came from can read it",
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn reasoning(&mut self, items: &mut Vec<u8>, reasoning: &Reasoning) -> Result<(), LlmError> {
        if reasoning.origin.as_deref() != Some(wire::OPENAI_RESPONSES) {
            self.note("messages", "reasoning that did not come from OpenAI Responses left out");
            return Ok(());
        }
        if let Some(json) = &reasoning.json {
            comma(items);
            items.extend_from_slice(json.get().as_bytes());
            return Ok(());
        }
        let Some(encrypted) = &reasoning.encrypted else {
            self.note(
                "messages",
                "reasoning without its encrypted form left out: the provider cannot verify it",
            );
            return Ok(());
        };
        comma(items);
        items.extend_from_slice(br#"{"type":"reasoning","summary":["#);
        if !reasoning.text.is_empty() {
            items.extend_from_slice(br#"{"type":"summary_text""#);
            field(items, "text", &reasoning.text)?;
            items.push(b'}');
        }
        items.push(b']');
        field(items, "encrypted_content", encrypted)?;
        items.push(b'}');
        Ok(())
    }

    /// A message item of these blocks; nothing when there are none.
    pub(super) fn content_message(
        &mut self,
        items: &mut Vec<u8>,
        role: Role,
        blocks: &[&Block],
        extra: &Extra,
    ) -> Result<(), LlmError> {
        let Some(first) = blocks.first() else { return Ok(()) };
        if role == Role::Tool {
            return Err(LlmError::invalid(
                "messages",
                "`messages`: a message with role `tool` needs the `tool_call_id` it answers",
            ));
        }
        comma(items);
        items.push(b'{');
        let note = item_note(first);
        if note.is_some() {
            field(items, "type", "message")?;
            write_note(items, note);
        }
        field(items, "role", role.as_str())?;
        key(items, "content");
        self.content(items, role, blocks)?;
        self.extra(items, extra, |_| true);
        items.push(b'}');
        Ok(())
    }

    /// Content as a string where it is one plain text, else as a list of parts.
    fn content(&mut self, out: &mut Vec<u8>, role: Role, blocks: &[&Block]) -> Result<(), LlmError> {
        match blocks {
            [] => return put(out, ""),
            [block] if is_plain(block) && item_note(block).is_none() => {
                if block.cache_control.is_some() {
                    self.note_cache_control();
                }
                return put(out, block.as_text().unwrap_or_default());
            }
            _ => {}
        }
        out.push(b'[');
        for block in blocks {
            if block.cache_control.is_some() {
                self.note_cache_control();
            }
            self.part(out, role, block)?;
        }
        out.push(b']');
        Ok(())
    }

    fn part(&mut self, out: &mut Vec<u8>, role: Role, block: &Block) -> Result<(), LlmError> {
        let spoken = role == Role::Assistant;
        let start = out.len();
        comma(out);
        out.push(b'{');
        match &block.kind {
            BlockKind::Text { text, citations } if spoken => {
                field(out, "type", "output_text")?;
                field(out, "text", text)?;
                match citations {
                    Some(citations) if is_annotations(citations) => raw(out, "annotations", citations.get()),
                    citations => {
                        if citations.is_some() {
                            self.note("messages", "another vendor's citations left out");
                        }
                        // Output items must have the list; the short input form need not.
                        if item_note(block).is_some() {
                            raw(out, "annotations", "[]");
                        }
                    }
                }
            }
            BlockKind::Refusal { text } if spoken => {
                field(out, "type", "refusal")?;
                field(out, "refusal", text)?;
            }
            BlockKind::Text { text, .. } | BlockKind::Refusal { text } => {
                field(out, "type", "input_text")?;
                field(out, "text", text)?;
            }
            BlockKind::Opaque { json, origin } if origin == wire::OPENAI_RESPONSES => {
                out.truncate(start);
                comma(out);
                out.extend_from_slice(json.get().as_bytes());
                return Ok(());
            }
            BlockKind::Image { source, detail } if !spoken => {
                field(out, "type", "input_image")?;
                match source {
                    Media::File(id) => field(out, "file_id", id)?,
                    source => field(out, "image_url", &media_url(source, "image")?)?,
                }
                if let Some(detail) = detail {
                    field(out, "detail", detail)?;
                }
            }
            BlockKind::Document { source, title } if !spoken => {
                self.document(out, source, title.as_deref())?
            }
            BlockKind::Audio { source: Media::Base64 { media_type, data } } if !spoken => {
                let format = match media_type.rsplit_once('/').map_or(media_type.as_str(), |(_, kind)| kind) {
                    "mpeg" | "mp3" => "mp3",
                    "wav" | "x-wav" | "wave" | "vnd.wave" => "wav",
                    other => other,
                };
                field(out, "type", "input_audio")?;
                key(out, "input_audio");
                out.push(b'{');
                field(out, "data", data)?;
                field(out, "format", format)?;
                out.push(b'}');
            }
            _ => {
                out.truncate(start);
                return self.refuse(
                    "messages",
                    "OpenAI Responses cannot carry this block in this place; sound must come as base64, and an assistant's message holds text",
                );
            }
        }
        self.extra(out, &block.extra, |_| true);
        out.push(b'}');
        Ok(())
    }

    fn document(&mut self, out: &mut Vec<u8>, source: &Media, title: Option<&str>) -> Result<(), LlmError> {
        field(out, "type", "input_file")?;
        match source {
            Media::Url(url) => field(out, "file_url", url)?,
            Media::File(id) => field(out, "file_id", id)?,
            source => {
                // Data needs a name here; its ending tells the API the format.
                let fallback = match source {
                    Media::Base64 { media_type, .. } if media_type == "application/pdf" => "document.pdf",
                    Media::Text(_) => "document.txt",
                    _ => "document",
                };
                field(out, "filename", title.unwrap_or(fallback))?;
                return field(out, "file_data", &media_url(source, "document")?);
            }
        }
        if title.is_some() {
            self.note(
                "messages",
                "a document's title left out: OpenAI Responses takes one only with the file's data",
            );
        }
        Ok(())
    }
}

/// Text without anything but a cache marker beside it.
pub(super) fn is_plain(block: &Block) -> bool {
    matches!(block.kind, BlockKind::Text { citations: None, .. })
        && block.extra.keys().all(|name| is_wire(name))
}

fn is_annotations(json: &RawJson) -> bool {
    #[derive(serde::Deserialize)]
    struct Annotation<'a> {
        #[serde(rename = "type", borrow)]
        kind: &'a str,
    }
    json.read::<Vec<Annotation<'_>>>()
        .is_ok_and(|list| list.iter().all(|annotation| ANNOTATIONS.contains(&annotation.kind)))
}

/// A URL, or the bytes as a `data:` URL (RFC 2397).
fn media_url(source: &Media, what: &str) -> Result<String, LlmError> {
    match source {
        Media::Url(url) => Ok(url.clone()),
        Media::Base64 { media_type, data } => Ok(format!("data:{media_type};base64,{data}")),
        Media::Text(text) => {
            let data = base64::engine::general_purpose::STANDARD.encode(text);
            Ok(format!("data:text/plain;base64,{data}"))
        }
        _ => Err(LlmError::unsupported(
            "messages",
            format!(
                "`messages`: OpenAI Responses cannot take this source of an {what}; give a URL, base64 or a file id"
            ),
        )),
    }
}
