//! Reading messages and blocks in every accepted form: the neutral one, OpenAI chat, OpenAI Responses, Anthropic.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::content::{Block, BlockKind, Media, Message, Reasoning, Role, SHARED, wire};
use super::error::LlmError;
use super::json::{Extra, Fields, RawJson, fields, leftover, take, take_text};

/// Which wires a piece of JSON is valid for as it stands.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// Text: valid on several wires.
    Shared,
    /// Only in this engine's own form.
    Neutral,
    /// The form of one wire.
    Wire(&'static str),
}

impl Shape {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Shared, shape) | (shape, Self::Shared) => shape,
            (a, b) if a == b => a,
            _ => Self::Neutral,
        }
    }

    const fn tag(self) -> Option<&'static str> {
        match self {
            Self::Shared => Some(SHARED),
            Self::Neutral => None,
            Self::Wire(wire) => Some(wire),
        }
    }
}

const CHAT: Shape = Shape::Wire(wire::OPENAI_CHAT);
const RESPONSES: Shape = Shape::Wire(wire::OPENAI_RESPONSES);
const ANTHROPIC: Shape = Shape::Wire(wire::ANTHROPIC);

fn bad(field: &str, message: impl std::fmt::Display) -> LlmError {
    LlmError::invalid(field, format!("`{field}`: {message}"))
}

fn read<'a, T: Deserialize<'a>>(map: &mut Fields<'a>, name: &str) -> Result<Option<T>, LlmError> {
    take(map, name).map_err(|error| bad(name, error))
}

fn need<'a, T: Deserialize<'a>>(map: &mut Fields<'a>, name: &str) -> Result<T, LlmError> {
    read(map, name)?.ok_or_else(|| bad(name, "is missing"))
}

/// Reads one block.
pub(crate) fn block(json: &RawJson) -> Result<Block, LlmError> {
    block_of(json.get()).map(|(block, _)| block)
}

/// Reads one message.
pub(crate) fn message(json: &RawJson) -> Result<Message, LlmError> {
    let mut map = fields(json.get())
        .map_err(|_| bad("messages", "a message must be an object with `role` and `content`"))?;
    let Some(role_name) = read::<String>(&mut map, "role")? else {
        if map.contains_key("type") {
            return responses_item(json, map);
        }
        return Err(bad("role", "is missing: give `system`, `user`, `assistant` or `tool`"));
    };
    let role = match role_name.as_str() {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        other => {
            return Err(bad(
                "role",
                format!("`{other}` is not a role: use `system`, `developer`, `user`, `assistant` or `tool`"),
            ));
        }
    };
    let content = map.shift_remove("content");
    let name = read::<String>(&mut map, "name")?;
    if let Some(call_id) = read::<String>(&mut map, "tool_call_id")? {
        let (blocks, shape) = content_of(content)?;
        let result = Block::tool_result(call_id, blocks, false);
        let native = shape.and(CHAT).tag().map(|tag| (tag, json.clone()));
        return Ok(Message::from_parts(role, vec![result], name, leftover(map), native));
    }
    let mut blocks = Vec::new();
    let mut shape = Shape::Shared;
    if role == Role::Assistant {
        shape = shape.and(chat_reasoning(&mut map, &mut blocks)?);
    }
    let (content_blocks, content_shape) = content_of(content)?;
    blocks.extend(content_blocks);
    shape = shape.and(content_shape);
    if let Some(text) = read::<String>(&mut map, "refusal")? {
        blocks.push(Block::refusal(text));
        shape = shape.and(CHAT);
    }
    if let Some(calls) = read::<Vec<&RawValue>>(&mut map, "tool_calls")? {
        for call in calls {
            blocks.push(chat_tool_call(call.get())?);
        }
        shape = shape.and(CHAT);
    }
    if map.shift_remove("type").is_some() {
        // Only Responses' message items carry a type beside the role.
        shape = shape.and(RESPONSES);
    }
    let extra = match read::<Extra>(&mut map, "extra")? {
        Some(extra) => {
            shape = shape.and(Shape::Neutral);
            extra
        }
        None => leftover(map),
    };
    let native = shape.tag().map(|tag| (tag, json.clone()));
    Ok(Message::from_parts(role, blocks, name, extra, native))
}

/// The reasoning fields that OpenAI-compatible hosts put beside `content`.
fn chat_reasoning(map: &mut Fields<'_>, blocks: &mut Vec<Block>) -> Result<Shape, LlmError> {
    let text = match read::<String>(map, "reasoning_content")? {
        Some(text) => Some(text),
        None => read::<String>(map, "reasoning")?,
    };
    let details = map.shift_remove("reasoning_details").filter(|raw| raw.get() != "null");
    if text.is_none() && details.is_none() {
        return Ok(Shape::Shared);
    }
    blocks.push(Block::reasoning(Reasoning {
        text: text.unwrap_or_default(),
        origin: details.map(|_| wire::OPENAI_CHAT.to_owned()),
        json: details.map(RawJson::from),
        ..Reasoning::default()
    }));
    Ok(CHAT)
}

/// One entry of an OpenAI `tool_calls` list; arguments given as an object are kept as their JSON text.
pub(crate) fn chat_tool_call(text: &str) -> Result<Block, LlmError> {
    let mut call = fields(text).map_err(|error| bad("tool_calls", error))?;
    let id = take_text(&mut call, "id").unwrap_or_default();
    let kind = take_text(&mut call, "type").unwrap_or_else(|| "function".to_owned());
    call.shift_remove("index");
    if kind != "function" && !call.contains_key("function") {
        return Ok(Block::opaque(wire::OPENAI_CHAT, RawJson::parse(text).map_err(|e| bad("tool_calls", e))?));
    }
    let inner: &RawValue = need(&mut call, "function")?;
    let mut function = fields(inner.get()).map_err(|error| bad("function", error))?;
    let name = take_text(&mut function, "name").unwrap_or_default();
    let arguments = take_text(&mut function, "arguments").unwrap_or_default();
    let mut extra = leftover(call);
    extra.extend(leftover(function));
    Ok(Block::tool_call(id, name, arguments).with_extra(extra))
}

fn content_of(content: Option<&RawValue>) -> Result<(Vec<Block>, Shape), LlmError> {
    let Some(content) = content else { return Ok((Vec::new(), Shape::Shared)) };
    let text = content.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok((Vec::new(), CHAT)),
        Some(b'"') => {
            let text: String = serde_json::from_str(text).map_err(|error| bad("content", error))?;
            Ok((vec![Block::text(text)], Shape::Shared))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| bad("content", error))?;
            let mut blocks = Vec::with_capacity(items.len());
            let mut shape = Shape::Shared;
            for (index, item) in items.into_iter().enumerate() {
                let (block, vote) = block_of(item.get())
                    .map_err(|error| bad(&format!("content[{index}]"), &error.detail().message))?;
                blocks.push(block);
                shape = shape.and(vote);
            }
            Ok((blocks, shape))
        }
        Some(b'{') => {
            let (block, _) = block_of(text)?;
            Ok((vec![block], Shape::Neutral))
        }
        _ => Err(bad("content", "must be a string or a list of blocks")),
    }
}

fn data_url(url: String) -> Media {
    let parsed = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(";base64,"))
        .map(|(media_type, data)| (media_type.to_owned(), data.to_owned()));
    match parsed {
        Some((media_type, data)) => Media::Base64 { media_type, data },
        None => Media::Url(url),
    }
}

/// Reads a `source` object (Anthropic's form, which is also the neutral one).
fn source(text: &str) -> Result<Media, LlmError> {
    let mut map = fields(text).map_err(|_| bad("source", "must be an object"))?;
    let kind: String = need(&mut map, "type")?;
    match kind.as_str() {
        "url" => Ok(Media::Url(need(&mut map, "url")?)),
        "base64" => {
            Ok(Media::Base64 { media_type: need(&mut map, "media_type")?, data: need(&mut map, "data")? })
        }
        "text" => Ok(Media::Text(need(&mut map, "data")?)),
        "file" => Ok(Media::File(need(&mut map, "file_id")?)),
        "other" => {
            let json: &RawValue = need(&mut map, "json")?;
            Ok(Media::Other(json.into()))
        }
        _ => Ok(Media::Other(RawJson::parse(text).map_err(|error| bad("source", error))?)),
    }
}

fn file_media(map: &mut Fields<'_>) -> Result<(Media, Option<String>), LlmError> {
    let title = read::<String>(map, "filename")?;
    let media = if let Some(data) = read::<String>(map, "file_data")? {
        match data_url(data) {
            Media::Url(data) => Media::Base64 { media_type: "application/pdf".to_owned(), data },
            media => media,
        }
    } else if let Some(url) = read::<String>(map, "file_url")? {
        Media::Url(url)
    } else if let Some(id) = read::<String>(map, "file_id")? {
        Media::File(id)
    } else {
        return Err(bad("file", "needs `file_data`, `file_url` or `file_id`"));
    };
    Ok((media, title))
}

/// Finishes a block: cache marker and fields without a home.
fn finish(mut map: Fields<'_>, kind: BlockKind) -> Result<Block, LlmError> {
    let cache_control = map.shift_remove("cache_control").filter(|raw| raw.get() != "null");
    let mut extra = read::<Extra>(&mut map, "extra")?.unwrap_or_default();
    extra.extend(leftover(map));
    Ok(Block { kind, cache_control: cache_control.map(RawJson::from), extra })
}

/// Reads one block and says which wire its JSON is valid for.
fn block_of(text: &str) -> Result<(Block, Shape), LlmError> {
    if text.starts_with('"') {
        let text: String = serde_json::from_str(text).map_err(|error| bad("content", error))?;
        return Ok((Block::text(text), Shape::Neutral));
    }
    let mut map = fields(text).map_err(|_| bad("content", "a block must be an object with a `type`"))?;
    let kind: String = need(&mut map, "type")?;
    let had_extra = map.contains_key("extra");
    let (kind, shape) = match kind.as_str() {
        "text" => {
            let text = need(&mut map, "text")?;
            let citations = map.shift_remove("citations").filter(|raw| raw.get() != "null");
            (BlockKind::Text { text, citations: citations.map(RawJson::from) }, Shape::Shared)
        }
        "image" => {
            let raw: &RawValue = need(&mut map, "source")?;
            let detail = read(&mut map, "detail")?;
            let shape = if detail.is_some() { Shape::Neutral } else { ANTHROPIC };
            (BlockKind::Image { source: source(raw.get())?, detail }, shape)
        }
        "document" => {
            let raw: &RawValue = need(&mut map, "source")?;
            (BlockKind::Document { source: source(raw.get())?, title: read(&mut map, "title")? }, ANTHROPIC)
        }
        "audio" => {
            let raw: &RawValue = need(&mut map, "source")?;
            (BlockKind::Audio { source: source(raw.get())? }, Shape::Neutral)
        }
        "tool_call" => (
            BlockKind::ToolCall {
                id: need(&mut map, "id")?,
                name: need(&mut map, "name")?,
                arguments: take_text(&mut map, "arguments").unwrap_or_default(),
            },
            Shape::Neutral,
        ),
        "tool_use" => (
            BlockKind::ToolCall {
                id: need(&mut map, "id")?,
                name: need(&mut map, "name")?,
                arguments: take_text(&mut map, "input").unwrap_or_else(|| "{}".to_owned()),
            },
            ANTHROPIC,
        ),
        "tool_result" => {
            let anthropic = read::<String>(&mut map, "tool_use_id")?;
            let shape = if anthropic.is_some() { ANTHROPIC } else { Shape::Neutral };
            let tool_call_id = match anthropic {
                Some(id) => id,
                None => need(&mut map, "tool_call_id")?,
            };
            let (content, _) = content_of(map.shift_remove("content"))?;
            let is_error = read(&mut map, "is_error")?.unwrap_or(false);
            (BlockKind::ToolResult { tool_call_id, content, is_error }, shape)
        }
        // Mistral's form: the text is a list of parts.
        "thinking" if map.get("thinking").is_some_and(|raw| raw.get().starts_with('[')) => {
            return Ok((opaque_part(text)?, CHAT));
        }
        "thinking" => (
            BlockKind::Reasoning(Reasoning {
                text: need(&mut map, "thinking")?,
                signature: read(&mut map, "signature")?,
                origin: Some(wire::ANTHROPIC.to_owned()),
                ..Reasoning::default()
            }),
            ANTHROPIC,
        ),
        "redacted_thinking" => (
            BlockKind::Reasoning(Reasoning {
                encrypted: Some(need(&mut map, "data")?),
                origin: Some(wire::ANTHROPIC.to_owned()),
                ..Reasoning::default()
            }),
            ANTHROPIC,
        ),
        "reasoning" => (
            BlockKind::Reasoning(Reasoning {
                text: read(&mut map, "text")?.unwrap_or_default(),
                signature: read(&mut map, "signature")?,
                encrypted: read(&mut map, "encrypted")?,
                origin: read(&mut map, "origin")?,
                json: json_text(&mut map)?,
            }),
            Shape::Neutral,
        ),
        "refusal" => match read::<String>(&mut map, "refusal")? {
            Some(text) => (BlockKind::Refusal { text }, CHAT),
            None => (BlockKind::Refusal { text: need(&mut map, "text")? }, Shape::Neutral),
        },
        "opaque" => {
            let origin = need(&mut map, "origin")?;
            let json = json_text(&mut map)?.ok_or_else(|| bad("json", "is missing"))?;
            (BlockKind::Opaque { origin, json }, Shape::Neutral)
        }
        "image_url" => {
            let raw: &RawValue = need(&mut map, "image_url")?;
            let (url, detail) = if raw.get().starts_with('"') {
                (serde_json::from_str(raw.get()).map_err(|error| bad("image_url", error))?, None)
            } else {
                let mut inner = fields(raw.get()).map_err(|error| bad("image_url", error))?;
                (need(&mut inner, "url")?, read(&mut inner, "detail")?)
            };
            (BlockKind::Image { source: data_url(url), detail }, CHAT)
        }
        // Parts that only hosts of OpenAI's chat wire know; Mistral takes sound as a bare string.
        "document_url" | "video_url" | "reference" => return Ok((opaque_part(text)?, CHAT)),
        "input_audio" if map.get("input_audio").is_some_and(|raw| raw.get().starts_with('"')) => {
            return Ok((opaque_part(text)?, CHAT));
        }
        "input_audio" => {
            let raw: &RawValue = need(&mut map, "input_audio")?;
            let mut inner = fields(raw.get()).map_err(|error| bad("input_audio", error))?;
            let format: String = need(&mut inner, "format")?;
            let data = need(&mut inner, "data")?;
            let source = Media::Base64 { media_type: format!("audio/{format}"), data };
            (BlockKind::Audio { source }, CHAT)
        }
        "file" if map.contains_key("file") => {
            let raw: &RawValue = need(&mut map, "file")?;
            let mut inner = fields(raw.get()).map_err(|error| bad("file", error))?;
            let (source, title) = file_media(&mut inner)?;
            (BlockKind::Document { source, title }, CHAT)
        }
        "input_text" | "output_text" => {
            let text = need(&mut map, "text")?;
            let citations = map.shift_remove("annotations").filter(|raw| !matches!(raw.get(), "null" | "[]"));
            (BlockKind::Text { text, citations: citations.map(RawJson::from) }, RESPONSES)
        }
        "input_image" => {
            let detail = read(&mut map, "detail")?;
            let source = match read::<String>(&mut map, "image_url")? {
                Some(url) => data_url(url),
                None => Media::File(need(&mut map, "file_id")?),
            };
            (BlockKind::Image { source, detail }, RESPONSES)
        }
        "input_file" => {
            let (source, title) = file_media(&mut map)?;
            (BlockKind::Document { source, title }, RESPONSES)
        }
        // Every other type is a vendor block; Anthropic is the only wire that puts such blocks into messages.
        _ => {
            let json = RawJson::parse(text).map_err(|error| bad("content", error))?;
            return Ok((Block::opaque(wire::ANTHROPIC, json), ANTHROPIC));
        }
    };
    let shape = if had_extra { Shape::Neutral } else { shape };
    Ok((finish(map, kind)?, shape))
}

fn opaque_part(text: &str) -> Result<Block, LlmError> {
    let json = RawJson::parse(text).map_err(|error| bad("content", error))?;
    Ok(Block::opaque(wire::OPENAI_CHAT, json))
}

/// The neutral form carries vendor JSON as a string, so that no language face can reformat it.
fn json_text(map: &mut Fields<'_>) -> Result<Option<RawJson>, LlmError> {
    let Some(raw) = map.shift_remove("json").filter(|raw| raw.get() != "null") else { return Ok(None) };
    let text = if raw.get().starts_with('"') {
        serde_json::from_str::<String>(raw.get()).map_err(|error| bad("json", error))?
    } else {
        raw.get().to_owned()
    };
    RawJson::parse(text).map(Some).map_err(|error| bad("json", error))
}

/// An OpenAI Responses input item that is not a message.
fn responses_item(json: &RawJson, mut map: Fields<'_>) -> Result<Message, LlmError> {
    let kind: String = need(&mut map, "type")?;
    let (role, block) = match kind.as_str() {
        "function_call" => {
            let id: String = need(&mut map, "call_id")?;
            let name: String = need(&mut map, "name")?;
            let arguments = take_text(&mut map, "arguments").unwrap_or_default();
            (Role::Assistant, Block::tool_call(id, name, arguments).with_extra(leftover(map)))
        }
        "function_call_output" => {
            let id: String = need(&mut map, "call_id")?;
            let (content, _) = content_of(map.shift_remove("output"))?;
            (Role::Tool, Block::tool_result(id, content, false).with_extra(leftover(map)))
        }
        "reasoning" => (Role::Assistant, Block::reasoning(responses_reasoning(json)?)),
        _ => (Role::Assistant, Block::opaque(wire::OPENAI_RESPONSES, json.clone())),
    };
    let native = Some((wire::OPENAI_RESPONSES, json.clone()));
    Ok(Message::from_parts(role, vec![block], None, Extra::new(), native))
}

/// A Responses reasoning item: the summaries (or, for open models, the reasoning itself) are its text.
pub(crate) fn responses_reasoning(json: &RawJson) -> Result<Reasoning, LlmError> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        text: String,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        summary: Option<Vec<Part>>,
        #[serde(default)]
        content: Option<Vec<Part>>,
        #[serde(default)]
        encrypted_content: Option<String>,
    }
    let item: Item = json.read().map_err(|error| bad("reasoning", error))?;
    let join = |parts: Option<Vec<Part>>| {
        parts.unwrap_or_default().into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n\n")
    };
    let summary = join(item.summary);
    let text = if summary.is_empty() { join(item.content) } else { summary };
    Ok(Reasoning {
        text,
        encrypted: item.encrypted_content,
        origin: Some(wire::OPENAI_RESPONSES.to_owned()),
        json: Some(json.clone()),
        ..Reasoning::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Message {
        message(&RawJson::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn vendor_messages_stay_verbatim_on_their_wire() {
        let cases = [
            (
                r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1.0}"}}]}"#,
                wire::OPENAI_CHAT,
            ),
            (
                r#"{"content":[{"type":"thinking","thinking":"hm","signature":"s=="},{"type":"tool_use","id":"t","name":"f","input":{"b":1e3}}],"role":"assistant"}"#,
                wire::ANTHROPIC,
            ),
            (r#"{"type":"function_call_output","call_id":"c1","output":"ok"}"#, wire::OPENAI_RESPONSES),
        ];
        for (text, wire) in cases {
            let message = parse(text);
            assert_eq!(message.verbatim_for(wire).unwrap().get(), text);
            let others = [wire::OPENAI_CHAT, wire::OPENAI_RESPONSES, wire::ANTHROPIC];
            assert!(
                others
                    .iter()
                    .filter(|other| **other != wire)
                    .all(|other| message.verbatim_for(other).is_none())
            );
        }
    }

    #[test]
    fn plain_text_is_valid_everywhere() {
        let message = parse(r#"{"role":"user","content":"hi"}"#);
        assert!(message.verbatim_for(wire::OPENAI_CHAT).is_some());
        assert!(message.verbatim_for(wire::ANTHROPIC).is_some());
        let marked = parse(
            r#"{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}"#,
        );
        assert!(marked.verbatim_for(wire::OPENAI_CHAT).is_none());
        assert!(marked.verbatim_for(wire::ANTHROPIC).is_some());
    }

    #[test]
    fn arguments_keep_their_text() {
        let message = parse(
            r#"{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"b": 1.50}}]}"#,
        );
        assert_eq!(
            message.content()[0].kind,
            BlockKind::ToolCall { id: "t".into(), name: "f".into(), arguments: r#"{"b": 1.50}"#.into() }
        );
    }

    #[test]
    fn the_neutral_form_round_trips() {
        let text = r#"{"role":"assistant","content":[{"type":"reasoning","text":"a","signature":"s","origin":"anthropic"},{"type":"opaque","origin":"anthropic","json":"{\"type\":\"x\",\"n\":1.0}"},{"type":"tool_call","id":"i","name":"f","arguments":"{}","extra":{"caller":{"type":"direct"}}}]}"#;
        assert_eq!(serde_json::to_string(&parse(text)).unwrap(), text);
    }

    #[test]
    fn errors_name_the_field() {
        let error =
            message(&RawJson::parse(r#"{"role":"user","content":[{"text":"x"}]}"#).unwrap()).unwrap_err();
        assert!(error.to_string().contains("content[0]"), "{error}");
        assert!(message(&RawJson::parse(r#"{"role":"usr","content":""}"#).unwrap()).is_err());
    }
}
