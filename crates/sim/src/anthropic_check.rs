//! Checks of an Anthropic Messages request, with that vendor's messages; gathers what decides the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::answer::{Choice, Hash, Tool, estimate, mix};
use crate::check;
use crate::vendor::{Answered, VendorError};

/// A source that may be cited.
pub(crate) struct Source {
    /// The citation without its text position.
    pub citation: Value,
    /// The text that is cited.
    pub cited: String,
}

/// What the messages of a request hold.
#[derive(Default)]
pub(crate) struct Conversation {
    pub hash: u64,
    pub text: String,
    pub results: Vec<String>,
    pub tokens: u64,
    pub attachments: Vec<&'static str>,
    pub sources: Vec<Source>,
    documents: u64,
    search_results: u64,
}

pub(crate) fn required(place: &str) -> VendorError {
    VendorError::invalid(format!("{place}: Field required"))
}

/// The signature of a thinking block: a nonce, and a mark made of nonce and text.
pub(crate) fn sign(nonce: u64, text: &str) -> String {
    let mark = Hash(nonce).and(text.as_bytes()).0;
    let mut bytes = nonce.to_le_bytes().to_vec();
    bytes.extend_from_slice(&mark.to_le_bytes());
    let mut state = mark;
    for _ in 0..10 {
        state = mix(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    STANDARD.encode(bytes)
}

/// Whether `signature` is the one given to `text`.
pub(crate) fn signed(signature: &str, text: &str) -> bool {
    let nonce =
        STANDARD.decode(signature).ok().and_then(|b| b.first_chunk::<8>().map(|n| u64::from_le_bytes(*n)));
    nonce.is_some_and(|nonce| sign(nonce, text) == signature)
}

/// Tools of the request. Tools run by the vendor are accepted and not called.
pub(crate) fn tools(body: &Value) -> Answered<Vec<Tool>> {
    let Some(Value::Array(list)) = body.get("tools") else {
        return Ok(Vec::new());
    };
    let mut out = Vec::new();
    for (i, tool) in list.iter().enumerate() {
        if tool.get("type").and_then(Value::as_str).is_some_and(|t| t != "custom") {
            continue;
        }
        let name = tool
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| required(&format!("tools.{i}.custom.name")))?;
        let usual = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=128).contains(&name.len()) || !name.bytes().all(usual) {
            return Err(VendorError::invalid(format!(
                "tools.{i}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            )));
        }
        let place = format!("tools.{i}.custom.input_schema");
        let schema = tool.get("input_schema").ok_or_else(|| required(&place))?;
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => {}
            None => return Err(required(&format!("{place}.type"))),
            Some(_) => {
                return Err(VendorError::invalid(format!("{place}.type: Input should be 'object'")));
            }
        }
        if out.iter().any(|t: &Tool| t.name == name) {
            return Err(VendorError::invalid("tools: Tool names must be unique."));
        }
        out.push(Tool { name: name.to_owned(), schema: schema.clone(), custom: false });
    }
    Ok(out)
}

/// `tool_choice`; with it whether calls may be parallel.
pub(crate) fn choice(body: &Value, tools: &[Tool]) -> Answered<(Choice, bool)> {
    let Some(value) = body.get("tool_choice").filter(|v| !v.is_null()) else {
        return Ok((Choice::Auto, true));
    };
    let parallel = !value.get("disable_parallel_tool_use").and_then(Value::as_bool).unwrap_or(false);
    let offered = body.get("tools").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if !offered {
        return Err(VendorError::invalid(
            "tool_choice: tool_choice may only be specified while providing tools",
        ));
    }
    let choice = match value.get("type").and_then(Value::as_str) {
        Some("auto") => Choice::Auto,
        Some("none") => Choice::None,
        Some("any") => Choice::Any,
        Some("tool") => {
            let name =
                value.get("name").and_then(Value::as_str).ok_or_else(|| required("tool_choice.tool.name"))?;
            if !tools.iter().any(|t| t.name == name) {
                return Err(VendorError::invalid(format!(
                    "tool_choice.name: Tool '{name}' not found in provided tools"
                )));
            }
            Choice::Named(name.to_owned())
        }
        _ => {
            return Err(VendorError::invalid(
                "tool_choice: Input tag found using 'type' does not match any of the expected tags: 'auto', 'any', 'tool', 'none'",
            ));
        }
    };
    Ok((choice, parallel))
}

/// Reads system prompt and messages.
pub(crate) fn conversation(body: &Value, model: &str) -> Answered<Conversation> {
    let messages = match body.get("messages") {
        Some(Value::Array(list)) => list,
        None | Some(Value::Null) => return Err(required("messages")),
        Some(_) => {
            return Err(VendorError::invalid("messages: Input should be a valid list"));
        }
    };
    if messages.is_empty() {
        return Err(VendorError::invalid("messages: at least one message is required"));
    }
    let mut seen = Conversation { tokens: 3, ..Conversation::default() };
    let mut hash = Hash::new(model);
    match body.get("system") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => {
            hash = hash.and(text.as_bytes());
            seen.tokens += estimate(text);
        }
        Some(Value::Array(blocks)) => {
            for (i, block) in blocks.iter().enumerate() {
                let text = block
                    .get("text")
                    .and_then(Value::as_str)
                    .ok_or_else(|| required(&format!("system.{i}.text")))?;
                if text.is_empty() {
                    return Err(VendorError::invalid("system: text content blocks must be non-empty"));
                }
                hash = hash.and(text.as_bytes());
                seen.tokens += estimate(text);
            }
        }
        Some(_) => return Err(VendorError::invalid("system: Input should be a valid list")),
    }
    let mut open: Vec<String> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let role = message
            .get("role")
            .and_then(Value::as_str)
            .ok_or_else(|| required(&format!("messages.{i}.role")))?;
        match role {
            "user" | "assistant" => {}
            "system" => {
                return Err(VendorError::invalid(
                    "messages: Unexpected role \"system\". The Messages API accepts a top-level `system` parameter, not \"system\" as an input message role.",
                ));
            }
            _ => {
                return Err(VendorError::invalid(format!(
                    "messages.{i}.role: Input should be 'user' or 'assistant'"
                )));
            }
        }
        if i == 0 && role != "user" {
            return Err(VendorError::invalid("messages: first message must use the \"user\" role"));
        }
        seen.results.clear();
        let mut text = String::new();
        let mut answered = Vec::new();
        let mut called = Vec::new();
        match message.get("content") {
            Some(Value::String(plain)) => {
                if plain.is_empty() && !(role == "assistant" && i + 1 == messages.len()) {
                    return Err(VendorError::invalid(format!(
                        "messages.{i}: all messages must have non-empty content except for the optional final assistant message"
                    )));
                }
                text.push_str(plain);
            }
            Some(Value::Array(blocks)) => {
                for (j, block) in blocks.iter().enumerate() {
                    let place = format!("messages.{i}.content.{j}");
                    read(block, &place, role, &mut text, &mut seen, &mut called, &mut answered)?;
                }
            }
            _ => return Err(required(&format!("messages.{i}.content"))),
        }
        if let Some((place, id)) = answered.iter().find(|(_, id)| !open.contains(id)) {
            return Err(VendorError::invalid(format!(
                "{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )));
        }
        open.retain(|id| !answered.iter().any(|(_, a)| a == id));
        if !open.is_empty() {
            return Err(unanswered(i - 1, &open));
        }
        open = called;
        hash = hash.and(role.as_bytes()).and(text.as_bytes()).and(&seen.hash.to_le_bytes());
        seen.tokens += 4 + estimate(&text);
        if role == "user" {
            seen.text = text;
        }
    }
    if !open.is_empty() {
        return Err(unanswered(messages.len() - 1, &open));
    }
    seen.hash = hash.0;
    Ok(seen)
}

fn unanswered(at: usize, open: &[String]) -> VendorError {
    VendorError::invalid(format!(
        "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
        open.join(", ")
    ))
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}

fn read(
    block: &Value,
    place: &str,
    role: &str,
    text: &mut String,
    seen: &mut Conversation,
    called: &mut Vec<String>,
    answered: &mut Vec<(String, String)>,
) -> Answered<()> {
    let field = |name: &str| block.get(name).and_then(Value::as_str);
    let kind = field("type").ok_or_else(|| required(&format!("{place}.type")))?;
    match kind {
        "text" => {
            let words = field("text").ok_or_else(|| required(&format!("{place}.text.text")))?;
            if words.is_empty() {
                return Err(VendorError::invalid("messages: text content blocks must be non-empty"));
            }
            append(text, words);
        }
        "image" => {
            image(block, place)?;
            seen.hash = Hash(seen.hash).and(block.to_string().as_bytes()).0;
            seen.tokens += 1600;
            seen.attachments.push("image");
        }
        "document" => document(block, place, seen)?,
        "search_result" => search_result(block, place, seen)?,
        "tool_use" if role == "assistant" => {
            let id = field("id").ok_or_else(|| required(&format!("{place}.tool_use.id")))?;
            field("name").ok_or_else(|| required(&format!("{place}.tool_use.name")))?;
            let input = block.get("input").ok_or_else(|| required(&format!("{place}.tool_use.input")))?;
            if !input.is_object() {
                return Err(VendorError::invalid(format!(
                    "{place}.tool_use.input: Input should be a valid dictionary"
                )));
            }
            called.push(id.to_owned());
            seen.hash = Hash(seen.hash).and(block.to_string().as_bytes()).0;
            seen.tokens += 10 + estimate(&input.to_string());
        }
        "tool_result" if role == "user" => {
            let id =
                field("tool_use_id").ok_or_else(|| required(&format!("{place}.tool_result.tool_use_id")))?;
            answered.push((place.to_owned(), id.to_owned()));
            let mut result = String::new();
            match block.get("content") {
                Some(Value::String(plain)) => result.push_str(plain),
                Some(Value::Array(parts)) => {
                    for (k, part) in parts.iter().enumerate() {
                        let mut ignored = (Vec::new(), Vec::new());
                        read(
                            part,
                            &format!("{place}.tool_result.content.{k}"),
                            role,
                            &mut result,
                            seen,
                            &mut ignored.0,
                            &mut ignored.1,
                        )?;
                    }
                }
                _ => {}
            }
            if block.get("is_error").and_then(Value::as_bool) == Some(true) {
                result.insert_str(0, "error: ");
            }
            seen.tokens += estimate(&result);
            seen.hash = Hash(seen.hash).and(result.as_bytes()).0;
            seen.results.push(result);
        }
        "thinking" if role == "assistant" => {
            let thought = field("thinking").ok_or_else(|| required(&format!("{place}.thinking.thinking")))?;
            let signature =
                field("signature").ok_or_else(|| required(&format!("{place}.thinking.signature")))?;
            if !signed(signature, thought) {
                return Err(VendorError::invalid(format!(
                    "{place}: Invalid `signature` in `thinking` block"
                )));
            }
        }
        "redacted_thinking" if role == "assistant" => {
            let data = field("data").ok_or_else(|| required(&format!("{place}.redacted_thinking.data")))?;
            if !signed(data, "redacted") {
                return Err(VendorError::invalid(format!(
                    "{place}: Invalid `data` in `redacted_thinking` block"
                )));
            }
        }
        "tool_use" | "thinking" | "redacted_thinking" => {
            return Err(VendorError::invalid(format!(
                "{place}: `{kind}` blocks can only be in `assistant` messages"
            )));
        }
        "tool_result" => {
            return Err(VendorError::invalid(format!(
                "{place}: `tool_result` blocks can only be in `user` messages"
            )));
        }
        // Blocks of server tools and of features to come are taken as they are.
        other
            if other.ends_with("_tool_result")
                || other.ends_with("_use")
                || other == "container_upload"
                || other == "compaction" =>
        {
            seen.tokens += estimate(&block.to_string());
        }
        other => {
            return Err(VendorError::invalid(format!(
                "{place}: Input tag '{other}' found using 'type' does not match any of the expected tags: 'document', 'image', 'redacted_thinking', 'search_result', 'server_tool_use', 'text', 'thinking', 'tool_result', 'tool_use', 'web_search_tool_result'"
            )));
        }
    }
    Ok(())
}

fn image(block: &Value, place: &str) -> Answered<()> {
    let source = block.get("source").ok_or_else(|| required(&format!("{place}.image.source")))?;
    let field = |name: &str| source.get(name).and_then(Value::as_str);
    match field("type") {
        Some("base64") => {
            let kind = field("media_type")
                .ok_or_else(|| required(&format!("{place}.image.source.base64.media_type")))?;
            if !matches!(kind, "image/jpeg" | "image/png" | "image/gif" | "image/webp") {
                return Err(VendorError::invalid(format!(
                    "{place}.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
                )));
            }
            let data = field("data").ok_or_else(|| required(&format!("{place}.image.source.base64.data")))?;
            check::base64_length(data).map(|_| ()).ok_or_else(|| {
                VendorError::invalid(format!("{place}.image.source.base64: invalid base64 data"))
            })
        }
        Some("url") => {
            let url = field("url").ok_or_else(|| required(&format!("{place}.image.source.url.url")))?;
            if url.starts_with("https://") || url.starts_with("http://") {
                return Ok(());
            }
            Err(VendorError::invalid(format!("{place}.image.source.url: Only HTTPS URLs are supported.")))
        }
        Some("file") => field("file_id")
            .map(|_| ())
            .ok_or_else(|| required(&format!("{place}.image.source.file.file_id"))),
        _ => Err(VendorError::invalid(format!(
            "{place}.image.source: Input tag found using 'type' does not match any of the expected tags: 'base64', 'url', 'file'"
        ))),
    }
}

/// The first sentence of a text.
fn sentence(text: &str) -> &str {
    let end = text.find(['.', '!', '?']).map_or(text.len(), |at| at + 1);
    text.get(..end).unwrap_or(text)
}

fn document(block: &Value, place: &str, seen: &mut Conversation) -> Answered<()> {
    let source = block.get("source").ok_or_else(|| required(&format!("{place}.document.source")))?;
    let field = |name: &str| source.get(name).and_then(Value::as_str);
    let wrong = |what: &str| VendorError::invalid(format!("{place}.document.source{what}"));
    let index = seen.documents;
    seen.documents += 1;
    seen.attachments.push("document");
    seen.hash = Hash(seen.hash).and(source.to_string().as_bytes()).0;
    let title = block.get("title").cloned().unwrap_or(Value::Null);
    let pages = |cited: &str| {
        let citation = json!({"type": "page_location", "cited_text": cited, "document_index": index, "document_title": title, "start_page_number": 1, "end_page_number": 2, "file_id": null});
        (citation, cited.to_owned())
    };
    let (citation, cited) = match field("type") {
        Some("text") => {
            let data =
                field("data").ok_or_else(|| required(&format!("{place}.document.source.text.data")))?;
            seen.tokens += estimate(data);
            let cited = sentence(data);
            let citation = json!({"type": "char_location", "cited_text": cited, "document_index": index, "document_title": title, "start_char_index": 0, "end_char_index": cited.chars().count(), "file_id": null});
            (citation, cited.to_owned())
        }
        Some("base64") => {
            let data =
                field("data").ok_or_else(|| required(&format!("{place}.document.source.base64.data")))?;
            if field("media_type") != Some("application/pdf") {
                return Err(wrong(".base64.media_type: Input should be 'application/pdf'"));
            }
            let length = check::base64_length(data).ok_or_else(|| wrong(".base64: invalid base64 data"))?;
            seen.tokens += 1500 + length as u64 / 1000;
            pages("The first page of the document.")
        }
        Some("content") => {
            let first = source.get("content").and_then(|c| {
                c.as_str().or_else(|| c.get(0).and_then(|b| b.get("text")).and_then(Value::as_str))
            });
            let cited = first.unwrap_or("").to_owned();
            seen.tokens += estimate(&source.to_string());
            let citation = json!({"type": "content_block_location", "cited_text": cited, "document_index": index, "document_title": title, "start_block_index": 0, "end_block_index": 1, "file_id": null});
            (citation, cited)
        }
        Some("url" | "file") => {
            seen.tokens += 1500;
            pages("The first page of the document.")
        }
        _ => {
            return Err(wrong(
                ": Input tag found using 'type' does not match any of the expected tags: 'base64', 'content', 'file', 'text', 'url'",
            ));
        }
    };
    let enabled =
        block.get("citations").and_then(|c| c.get("enabled")).and_then(Value::as_bool) == Some(true);
    if enabled && !cited.is_empty() {
        seen.sources.push(Source { citation, cited });
    }
    Ok(())
}

fn search_result(block: &Value, place: &str, seen: &mut Conversation) -> Answered<()> {
    let field = |name: &str| {
        block
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| required(&format!("{place}.search_result.{name}")))
    };
    let (source, title) = (field("source")?, field("title")?);
    let index = seen.search_results;
    seen.search_results += 1;
    let cited = block
        .get("content")
        .and_then(|c| c.get(0))
        .and_then(|b| b.get("text"))
        .and_then(Value::as_str)
        .unwrap_or("");
    seen.tokens += estimate(&block.to_string());
    seen.hash = Hash(seen.hash).and(cited.as_bytes()).0;
    let enabled =
        block.get("citations").and_then(|c| c.get("enabled")).and_then(Value::as_bool) == Some(true);
    if enabled && !cited.is_empty() {
        let citation = json!({"type": "search_result_location", "cited_text": cited, "source": source, "title": title, "search_result_index": index, "start_block_index": 0, "end_block_index": 1});
        seen.sources.push(Source { citation, cited: cited.to_owned() });
    }
    Ok(())
}
