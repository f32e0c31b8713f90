//! The conversation in Anthropic's form: system, messages, blocks.

use std::borrow::Cow;
use std::fmt::Arguments;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::Encoder;
use super::takes_system_turns;
use crate::core::content::{Block, BlockKind, Media, Message, Reasoning, Role, wire};
use crate::core::error::LlmError;
use crate::core::json::RawJson;

/// Fields that other wires put into blocks and Anthropic refuses: item ids and states (Responses), annotations and
/// log probabilities (OpenAI), signatures of other vendors' reasoning (hosts compatible with OpenAI).
const FOREIGN: &[&str] = &[
    "id",
    "status",
    "phase",
    "index",
    "annotations",
    "logprobs",
    "namespace",
    "extra_content",
    "thought_signature",
    "provider_specific_fields",
];

/// What becomes of one message.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Its blocks move into `system`.
    System,
    /// It stays a turn of the conversation.
    Turn,
    /// It is a list of tool results: joined with its neighbours.
    Results,
}

/// Writes `system` and `messages`.
pub(super) fn write_conversation(encoder: &mut Encoder<'_>) -> Result<(), LlmError> {
    let request = encoder.request;
    let messages = &request.messages;
    let places = places(encoder, messages)?;
    write_system(encoder, &places)?;
    if request.extra.contains_key("messages") {
        encoder.adjust("extra.messages", "replaces the request's messages");
        return Ok(());
    }
    encoder.body.key("messages");
    encoder.body.open_array();
    let mut at = 0;
    while at < messages.len() {
        match places[at] {
            Place::System => at += 1,
            Place::Turn => {
                turn(encoder, at, &messages[at])?;
                at += 1;
            }
            Place::Results => {
                // Instructions between the results have moved into `system` and part nothing.
                let end =
                    (at..messages.len()).find(|at| places[*at] == Place::Turn).unwrap_or(messages.len());
                results(encoder, at, end)?;
                at = end;
            }
        }
    }
    encoder.body.close_array();
    Ok(())
}

const fn instructs(message: &Message) -> bool {
    matches!(message.role(), Role::System | Role::Developer)
}

fn places(encoder: &mut Encoder<'_>, messages: &[Message]) -> Result<Vec<Place>, LlmError> {
    let leading = messages.iter().take_while(|message| instructs(message)).count();
    let mut places = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        let results = || {
            !message.content().is_empty()
                && message.content().iter().all(|block| matches!(block.kind, BlockKind::ToolResult { .. }))
        };
        places.push(match message.role() {
            Role::System | Role::Developer => {
                // Vendor blocks (a tool added on the way) mean something only where they stand.
                let vendor =
                    message.content().iter().any(|block| matches!(block.kind, BlockKind::Opaque { .. }));
                if vendor || (at >= leading && takes_system_turns(encoder.model) && fits(messages, at)) {
                    Place::Turn
                } else {
                    if at >= leading {
                        encoder.adjust(
                            format!("messages[{at}]"),
                            "moved from the middle of the conversation into `system`",
                        );
                    }
                    Place::System
                }
            }
            Role::Tool if results() => Place::Results,
            Role::Tool => {
                return Err(LlmError::invalid(
                    format!("messages[{at}].tool_call_id"),
                    format!(
                        "`messages[{at}]`: a tool message must name the call it answers (`tool_call_id`)"
                    ),
                ));
            }
            Role::User if message.verbatim_for(wire::ANTHROPIC).is_none() && results() => Place::Results,
            Role::User | Role::Assistant => Place::Turn,
        });
    }
    Ok(places)
}

/// Whether the API takes a system message here: after a user's turn or a server tool's result, and before the
/// model's turn or the end.
fn fits(messages: &[Message], at: usize) -> bool {
    let before = messages[..at].iter().rev().find(|message| !instructs(message));
    let after = messages[at..].iter().find(|message| !instructs(message));
    let follows = before.is_some_and(|message| match message.role() {
        Role::User | Role::Tool => true,
        _ => message.content().last().is_some_and(|block| matches!(block.kind, BlockKind::Opaque { .. })),
    });
    follows && after.is_none_or(|message| message.role() == Role::Assistant)
}

fn write_system(encoder: &mut Encoder<'_>, places: &[Place]) -> Result<(), LlmError> {
    let request = encoder.request;
    let hoisted = request
        .messages
        .iter()
        .zip(places)
        .filter(|(_, place)| **place == Place::System)
        .flat_map(|(message, _)| message.content());
    let blocks: Vec<&Block> =
        request.system.iter().chain(hoisted).filter(|block| !is_empty_text(block)).collect();
    if blocks.is_empty() {
        return Ok(());
    }
    if request.extra.contains_key("system") {
        encoder.adjust("extra.system", "replaces the request's instructions");
        return Ok(());
    }
    encoder.body.key("system");
    if let [block] = blocks.as_slice()
        && let Some(text) = bare_text(block)
    {
        encoder.body.value(text);
        return Ok(());
    }
    encoder.body.open_array();
    for block in blocks {
        if !matches!(block.kind, BlockKind::Text { .. } | BlockKind::Opaque { .. }) {
            return Err(LlmError::unsupported(
                "system",
                "`system`: Anthropic takes text only; put images and documents into a user message",
            ));
        }
        write_block(encoder, block, format_args!("system"), false)?;
    }
    encoder.body.close_array();
    Ok(())
}

fn is_empty_text(block: &Block) -> bool {
    matches!(&block.kind, BlockKind::Text { text, .. } if text.is_empty())
}

/// The text of a block that has nothing else.
fn bare_text(block: &Block) -> Option<&str> {
    match &block.kind {
        BlockKind::Text { text, citations: None }
            if block.cache_control.is_none() && block.extra.is_empty() =>
        {
            Some(text)
        }
        _ => None,
    }
}

fn turn(encoder: &mut Encoder<'_>, at: usize, message: &Message) -> Result<(), LlmError> {
    let role = match message.role() {
        Role::Developer => Role::System,
        role => role,
    };
    encoder.uses_files |= message.content().iter().any(uses_file);
    if role == message.role()
        && let Some(json) = message.verbatim_for(wire::ANTHROPIC)
    {
        encoder.body.raw(json.get());
        return Ok(());
    }
    let foreign = comes_from_elsewhere(message);
    // The model's own turns go back whole, with the white space it puts between its blocks; in an assistant turn from
    // elsewhere the API refuses text that is only white space.
    let blank_is_refused = role == Role::Assistant && !message.content().iter().any(is_own);
    let mut kept = Vec::with_capacity(message.content().len());
    for (place, block) in message.content().iter().enumerate() {
        if let Some(reason) = left_out(block, blank_is_refused) {
            if !reason.is_empty() {
                encoder.adjust(format!("messages[{at}].content[{place}]"), reason);
            }
        } else {
            kept.push((place, block));
        }
    }
    if message.name().is_some() {
        encoder.adjust(format!("messages[{at}].name"), "left out: Anthropic's messages have no name");
    }
    if kept.is_empty() {
        encoder.adjust(format!("messages[{at}]"), "left out: nothing of it can be sent to Anthropic");
        return Ok(());
    }
    let body = &mut encoder.body;
    body.open_object();
    body.field("role", role.as_str());
    body.key("content");
    body.open_array();
    for (place, block) in kept {
        write_block(encoder, block, format_args!("messages[{at}].content[{place}]"), foreign)?;
    }
    encoder.body.close_array();
    for (name, value) in message.extra() {
        if foreign {
            encoder.adjust(format!("messages[{at}].{name}"), "left out: a field of another wire format");
        } else {
            encoder.body.raw_field(name, value.get());
        }
    }
    encoder.body.close_object();
    Ok(())
}

fn comes_from_elsewhere(message: &Message) -> bool {
    message.verbatim_for(wire::ANTHROPIC).is_none()
        && [wire::OPENAI_CHAT, wire::OPENAI_RESPONSES].iter().any(|wire| message.verbatim_for(wire).is_some())
}

/// Whether only this wire can have made the block.
fn is_own(block: &Block) -> bool {
    match &block.kind {
        BlockKind::Reasoning(Reasoning { origin: Some(origin), .. }) | BlockKind::Opaque { origin, .. } => {
            origin == wire::ANTHROPIC
        }
        _ => false,
    }
}

/// Why a block cannot go to Anthropic; an empty reason when nothing is lost.
fn left_out(block: &Block, blank_is_refused: bool) -> Option<&'static str> {
    match &block.kind {
        BlockKind::Text { text, .. } if text.is_empty() => Some(""),
        BlockKind::Text { text, .. } if blank_is_refused && text.trim().is_empty() => {
            Some("left out: Anthropic refuses text that is only white space")
        }
        BlockKind::Reasoning(Reasoning { origin: Some(origin), .. }) if origin == wire::ANTHROPIC => None,
        BlockKind::Reasoning(Reasoning { origin: None, .. }) => {
            Some("left out: Anthropic takes reasoning only with its own signature")
        }
        BlockKind::Reasoning(_) => Some("left out: reasoning of another provider"),
        BlockKind::Opaque { origin, .. } if origin != wire::ANTHROPIC => {
            Some("left out: a block of another wire format")
        }
        _ => None,
    }
}

fn uses_file(block: &Block) -> bool {
    match &block.kind {
        BlockKind::Image { source, .. } | BlockKind::Document { source, .. } => {
            matches!(source, Media::File(_))
        }
        BlockKind::ToolResult { content, .. } => content.iter().any(uses_file),
        BlockKind::Opaque { origin, json } if origin == wire::ANTHROPIC => {
            #[derive(Deserialize)]
            struct Typed<'a> {
                #[serde(borrow, rename = "type")]
                kind: Cow<'a, str>,
            }
            json.read::<Typed<'_>>().is_ok_and(|block| block.kind == "container_upload")
        }
        _ => false,
    }
}

/// Writes neighbouring tool results as one user message, in the order of the calls.
fn results(encoder: &mut Encoder<'_>, start: usize, end: usize) -> Result<(), LlmError> {
    let messages = &encoder.request.messages;
    // The API joins neighbouring turns of one speaker, so all assistant messages just before count as one.
    let before = messages[..start].iter().rposition(|message| message.role() != Role::Assistant);
    let calls: Vec<&str> = messages[before.map_or(0, |at| at + 1)..start]
        .iter()
        .flat_map(Message::content)
        .filter_map(|block| match &block.kind {
            BlockKind::ToolCall { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    let mut answers: Vec<(usize, bool, &Block)> = (start..end)
        .filter(|at| !instructs(&messages[*at]))
        .flat_map(|at| {
            let foreign = comes_from_elsewhere(&messages[at]);
            messages[at].content().iter().map(move |block| (at, foreign, block))
        })
        .collect();
    answers.sort_by_key(|(_, _, block)| match &block.kind {
        BlockKind::ToolResult { tool_call_id, .. } => {
            calls.iter().position(|id| id == tool_call_id).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    });
    encoder.body.open_object();
    encoder.body.field("role", "user");
    encoder.body.key("content");
    encoder.body.open_array();
    for (at, foreign, block) in answers {
        encoder.uses_files |= uses_file(block);
        write_block(encoder, block, format_args!("messages[{at}]"), foreign)?;
    }
    encoder.body.close_array();
    encoder.body.close_object();
    Ok(())
}

/// Writes one block. `foreign` says that its unknown fields belong to another wire.
fn write_block(
    encoder: &mut Encoder<'_>,
    block: &Block,
    path: Arguments<'_>,
    foreign: bool,
) -> Result<(), LlmError> {
    match &block.kind {
        BlockKind::Opaque { json, .. } | BlockKind::Reasoning(Reasoning { json: Some(json), .. }) => {
            encoder.body.raw(json.get());
            return Ok(());
        }
        _ => encoder.body.open_object(),
    }
    match &block.kind {
        BlockKind::Text { text, citations } => {
            encoder.body.field("type", "text");
            encoder.body.field("text", text);
            match citations {
                Some(citations) if are_anthropics(citations) => {
                    encoder.body.raw_field("citations", citations.get());
                }
                Some(_) => {
                    encoder.adjust(format!("{path}.citations"), "left out: citations of another provider")
                }
                None => {}
            }
        }
        BlockKind::Refusal { text } => {
            encoder.body.field("type", "text");
            encoder.body.field("text", text);
        }
        BlockKind::Image { source, detail } => {
            encoder.body.field("type", "image");
            if matches!(source, Media::Text(_)) {
                return Err(LlmError::unsupported(
                    path.to_string(),
                    format!("`{path}`: a picture cannot be given as text"),
                ));
            }
            write_source(encoder, source);
            if detail.as_ref().is_some_and(|detail| detail != "auto") {
                encoder.adjust(format!("{path}.detail"), "left out: Anthropic chooses the resolution itself");
            }
        }
        BlockKind::Document { source, title } => {
            encoder.body.field("type", "document");
            write_source(encoder, source);
            if let Some(title) = title {
                encoder.body.field("title", title);
            }
        }
        BlockKind::Audio { .. } => {
            return Err(LlmError::unsupported(
                path.to_string(),
                format!("`{path}`: Anthropic takes no audio"),
            ));
        }
        BlockKind::ToolCall { id, name, arguments } => {
            let input = input_of(arguments, path, id, name)?;
            encoder.body.field("type", "tool_use");
            write_id(encoder, "id", id, path);
            encoder.body.field("name", name);
            encoder.body.raw_field("input", input);
        }
        BlockKind::ToolResult { tool_call_id, content, is_error } => {
            encoder.body.field("type", "tool_result");
            write_id(encoder, "tool_use_id", tool_call_id, path);
            write_result_content(encoder, content, path, foreign)?;
            if *is_error {
                encoder.body.field("is_error", &true);
            }
        }
        BlockKind::Reasoning(reasoning) => match &reasoning.encrypted {
            Some(data) => {
                encoder.body.field("type", "redacted_thinking");
                encoder.body.field("data", data);
            }
            None => {
                encoder.body.field("type", "thinking");
                encoder.body.field("thinking", &reasoning.text);
                if let Some(signature) = &reasoning.signature {
                    encoder.body.field("signature", signature);
                }
            }
        },
        BlockKind::Opaque { .. } => {}
    }
    if let Some(marker) = &block.cache_control {
        encoder.body.raw_field("cache_control", marker.get());
    }
    for (name, value) in &block.extra {
        // What another wire remembers of the block: of no use here, and nothing the caller set.
        if matches!(name.as_str(), wire::OPENAI_RESPONSES | wire::OPENAI_CHAT) {
            continue;
        }
        if foreign || FOREIGN.contains(&name.as_str()) {
            encoder.adjust(format!("{path}.{name}"), "left out: a field of another wire format");
        } else {
            encoder.body.raw_field(name, value.get());
        }
    }
    encoder.body.close_object();
    Ok(())
}

fn write_result_content(
    encoder: &mut Encoder<'_>,
    content: &[Block],
    path: Arguments<'_>,
    foreign: bool,
) -> Result<(), LlmError> {
    if let [block] = content
        && let Some(text) = bare_text(block)
    {
        encoder.body.field("content", text);
        return Ok(());
    }
    let mut kept = Vec::with_capacity(content.len());
    for (place, block) in content.iter().enumerate() {
        match left_out(block, false) {
            Some("") => {}
            Some(reason) => encoder.adjust(format!("{path}.content[{place}]"), reason),
            None => kept.push((place, block)),
        }
    }
    if kept.is_empty() {
        return Ok(());
    }
    encoder.body.key("content");
    encoder.body.open_array();
    for (place, block) in kept {
        write_block(encoder, block, format_args!("{path}.content[{place}]"), foreign)?;
    }
    encoder.body.close_array();
    Ok(())
}

fn write_source(encoder: &mut Encoder<'_>, source: &Media) {
    let body = &mut encoder.body;
    body.key("source");
    if let Media::Other(json) = source {
        body.raw(json.get());
        return;
    }
    body.open_object();
    match source {
        Media::Url(url) => {
            body.field("type", "url");
            body.field("url", url);
        }
        Media::Base64 { media_type, data } => match plain_text(media_type, data) {
            Some(text) => {
                body.field("type", "text");
                body.field("media_type", "text/plain");
                body.field("data", &text);
            }
            None => {
                body.field("type", "base64");
                body.field("media_type", media_type);
                body.field("data", data);
            }
        },
        Media::Text(text) => {
            body.field("type", "text");
            body.field("media_type", "text/plain");
            body.field("data", text);
        }
        Media::File(id) => {
            body.field("type", "file");
            body.field("file_id", id);
        }
        Media::Other(_) => {}
    }
    body.close_object();
}

/// Base64 is for pictures and PDF only: text in base64 is sent as text.
fn plain_text(media_type: &str, data: &str) -> Option<String> {
    if !media_type.starts_with("text/") {
        return None;
    }
    STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

/// The arguments as they stand, when they are a JSON object; no arguments are an empty one.
fn input_of<'a>(arguments: &'a str, path: Arguments<'_>, id: &str, name: &str) -> Result<&'a str, LlmError> {
    let text = arguments.trim();
    if text.is_empty() {
        return Ok("{}");
    }
    let wrong = |what: &str| {
        LlmError::invalid(
            path.to_string(),
            format!(
                "`{path}`: the arguments of tool call `{id}` (`{name}`) are {what}; Anthropic takes a JSON object"
            ),
        )
    };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) if text.starts_with('{') => Ok(text),
        Ok(_) => Err(wrong("JSON of another type")),
        Err(error) => Err(wrong("broken JSON").with_source(error)),
    }
}

/// Ids may hold letters, digits, `_` and `-` only; calls made by other providers use more. Call and result change
/// alike, so they still belong together.
fn write_id(encoder: &mut Encoder<'_>, field: &str, id: &str, path: Arguments<'_>) {
    let fine = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    if id.chars().all(fine) {
        encoder.body.field(field, id);
        return;
    }
    let sent: String = id.chars().map(|character| if fine(character) { character } else { '_' }).collect();
    encoder.adjust(
        format!("{path}.{field}"),
        format!("`{id}` is sent as `{sent}`: Anthropic allows letters, digits, `_` and `-`"),
    );
    encoder.body.field(field, &sent);
}

/// Anthropic's citations are objects whose type ends in `_location`; OpenAI's annotations are not.
fn are_anthropics(citations: &RawJson) -> bool {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    // Documents carry `citations: {"enabled": true}` in `extra`; here it is a list or nothing that is known.
    citations.read::<Vec<Typed<'_>>>().is_ok_and(|all| all.iter().all(|one| one.kind.ends_with("_location")))
}
