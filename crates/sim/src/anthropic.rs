//! Anthropic Messages: answers whole or streamed, and counts tokens.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, Ask, Choice, Finish, Format, Hash, answer, letters};
use crate::anthropic_check::{Conversation, choice, conversation, required, sign, tools};
use crate::cache::Prefix;
use crate::reply::{FrameKind, Frames, Reply};
use crate::server::{Call, Shared};
use crate::vendor::{Answered, VendorError};

/// The text that makes Anthropic answer with redacted thinking.
const REDACT: &str = "ANTHROPIC_MAGIC_STRING_TRIGGER_REDACTED_THINKING";

fn body<'a>(call: &'a Call<'_>) -> Answered<&'a Value> {
    if call.request.header("anthropic-version").is_none() {
        return Err(VendorError::invalid("anthropic-version: header is required"));
    }
    call.body()
        .map_err(|_| VendorError::invalid("The request body is not valid JSON: expected a JSON object"))
}

fn model(body: &Value) -> Answered<&str> {
    match body.get("model") {
        Some(Value::String(name)) if name.starts_with("no-such") => {
            Err(VendorError::new(404, "not_found_error", format!("model: {name}")))
        }
        Some(Value::String(name)) if !name.is_empty() => Ok(name),
        Some(Value::String(_)) => Err(VendorError::invalid("model: String should have at least 1 character")),
        None | Some(Value::Null) => Err(required("model")),
        Some(_) => Err(VendorError::invalid("model: Input should be a valid string")),
    }
}

fn between(body: &Value, name: &str) -> Answered<Option<f64>> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            None => Err(VendorError::invalid(format!("{name}: Input should be a valid number"))),
            Some(n) if n < 0.0 => {
                Err(VendorError::invalid(format!("{name}: Input should be greater than or equal to 0")))
            }
            Some(n) if n > 1.0 => {
                Err(VendorError::invalid(format!("{name}: Input should be less than or equal to 1")))
            }
            Some(n) => Ok(Some(n)),
        },
    }
}

/// How the request wants its thinking.
struct Thinking {
    tokens: usize,
    /// Whether the text is left out and only the signature sent.
    omitted: bool,
}

fn thinking(body: &Value, limit: u64, choice: &Choice, temperature: Option<f64>) -> Answered<Thinking> {
    let effort = body.get("output_config").and_then(|c| c.get("effort")).and_then(Value::as_str);
    let by_effort = match effort {
        None | Some("high") => 64,
        Some("low") => 16,
        Some("medium") => 32,
        Some("xhigh" | "max") => 96,
        Some(_) => {
            return Err(VendorError::invalid(
                "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'",
            ));
        }
    };
    let Some(value) = body.get("thinking").filter(|v| !v.is_null()) else {
        return Ok(Thinking { tokens: 0, omitted: false });
    };
    let tokens = match value.get("type").and_then(Value::as_str) {
        Some("disabled") => 0,
        Some("adaptive") => by_effort,
        Some("enabled") => {
            let budget =
                value.get("budget_tokens").ok_or_else(|| required("thinking.enabled.budget_tokens"))?;
            let budget = budget.as_u64().ok_or_else(|| {
                VendorError::invalid("thinking.enabled.budget_tokens: Input should be a valid integer")
            })?;
            if budget < 1024 {
                return Err(VendorError::invalid(
                    "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
                ));
            }
            if limit <= budget {
                return Err(VendorError::invalid(
                    "`max_tokens` must be greater than `thinking.budget_tokens`.",
                ));
            }
            by_effort
        }
        _ => {
            return Err(VendorError::invalid(
                "thinking: Input tag found using 'type' does not match any of the expected tags: 'adaptive', 'disabled', 'enabled'",
            ));
        }
    };
    if tokens > 0 && matches!(choice, Choice::Any | Choice::Named(_)) {
        return Err(VendorError::invalid("Thinking may not be enabled when tool_choice forces tool use."));
    }
    if tokens > 0 && temperature.is_some_and(|t| t < 1.0) {
        return Err(VendorError::invalid("`temperature` may only be set to 1 when thinking is enabled."));
    }
    Ok(Thinking { tokens, omitted: value.get("display").and_then(Value::as_str) == Some("omitted") })
}

fn stops(body: &Value) -> Answered<Vec<String>> {
    match body.get("stop_sequences") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            if list.iter().any(|s| s.as_str().is_none_or(|s| s.trim().is_empty())) {
                return Err(VendorError::invalid(
                    "stop_sequences: each stop sequence must contain non-whitespace",
                ));
            }
            Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Some(_) => Err(VendorError::invalid("stop_sequences: Input should be a valid list")),
    }
}

fn format(body: &Value) -> Answered<Format> {
    let format =
        body.get("output_config").and_then(|c| c.get("format")).or_else(|| body.get("output_format"));
    match format.filter(|f| !f.is_null()) {
        None => Ok(Format::Text),
        Some(format) => {
            let schema = format.get("schema").ok_or_else(|| required("output_config.format.schema"))?;
            Ok(Format::Schema(schema.clone()))
        }
    }
}

/// The prefixes of the prompt, block by block, with the markers they carry.
fn prefixes(body: &Value, raw: &[u8]) -> Answered<Vec<Prefix>> {
    if memchr_find(raw, b"cache_control").is_none() {
        return Ok(Vec::new());
    }
    let mut list = Vec::new();
    let mut hash = Hash::new(body.get("model").and_then(Value::as_str).unwrap_or(""));
    let mut tokens = 0;
    let mut markers = 0;
    let mut push = |block: &Value| -> Answered<()> {
        let control = block.get("cache_control").filter(|c| !c.is_null());
        let text = match block {
            Value::Object(fields) if control.is_some() => {
                let rest: Map<String, Value> = fields
                    .iter()
                    .filter(|(n, _)| *n != "cache_control")
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .collect();
                Value::Object(rest).to_string()
            }
            other => other.to_string(),
        };
        hash = hash.and(text.as_bytes());
        tokens += answer::estimate(&text);
        let ttl = match control {
            None => None,
            Some(control) => {
                markers += 1;
                Some(ttl(control)?)
            }
        };
        list.push(Prefix { hash: hash.0, tokens, ttl });
        Ok(())
    };
    let blocks = |value: Option<&Value>| match value {
        Some(Value::Array(list)) => list.clone(),
        Some(Value::String(text)) => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    };
    for block in blocks(body.get("tools")).iter().chain(blocks(body.get("system")).iter()) {
        push(block)?;
    }
    for message in body.get("messages").and_then(Value::as_array).into_iter().flatten() {
        for block in &blocks(message.get("content")) {
            push(block)?;
        }
    }
    if markers > 4 {
        return Err(VendorError::invalid(format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {markers}."
        )));
    }
    // A marker on the request itself stands for one on the last block.
    if let (Some(control), Some(last)) = (body.get("cache_control").filter(|c| !c.is_null()), list.last_mut())
    {
        last.ttl = Some(ttl(control)?);
    }
    Ok(list)
}

fn ttl(control: &Value) -> Answered<Duration> {
    match control.get("ttl").and_then(Value::as_str) {
        None | Some("5m") => Ok(Duration::from_secs(300)),
        Some("1h") => Ok(Duration::from_secs(3600)),
        Some(_) => Err(VendorError::invalid("cache_control.ephemeral.ttl: Input should be '5m' or '1h'")),
    }
}

fn memchr_find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|w| w == word)
}

/// Answers `POST .../messages`.
pub(crate) fn reply(shared: &Shared, call: &Call<'_>) -> Answered<Reply> {
    let body = body(call)?;
    let model = model(body)?;
    let limit = match body.get("max_tokens") {
        None | Some(Value::Null) => return Err(required("max_tokens")),
        Some(value) => value
            .as_i64()
            .ok_or_else(|| VendorError::invalid("max_tokens: Input should be a valid integer"))?,
    };
    let limit = u64::try_from(limit)
        .ok()
        .filter(|l| *l > 0)
        .ok_or_else(|| VendorError::invalid("max_tokens: Input should be greater than or equal to 1"))?;
    let temperature = between(body, "temperature")?;
    between(body, "top_p")?;
    let tools = tools(body)?;
    let (choice, parallel) = choice(body, &tools)?;
    let thinking = thinking(body, limit, &choice, temperature)?;
    let seen = conversation(body, model)?;
    let offered =
        body.get("tools").filter(|_| !tools.is_empty()).map_or(0, |t| answer::estimate(&t.to_string()));
    let (read, written) =
        shared.cache.marked(&prefixes(body, &call.request.body)?, shared.config.anthropic_cache_min_tokens);
    let ask = Ask {
        hash: seen.hash,
        text: seen.text.clone(),
        results: seen.results.clone(),
        tools,
        choice,
        parallel,
        limit: Some(limit),
        stops: stops(body)?,
        format: format(body)?,
        reasoning: thinking.tokens,
        attachments: seen.attachments.clone(),
    };
    let answer = answer(&ask);
    let new: u64 = written.iter().map(|w| w.0).sum();
    let hour: u64 = written.iter().filter(|w| w.1 > Duration::from_secs(300)).map(|w| w.0).sum();
    let tier = match body.get("service_tier").and_then(Value::as_str) {
        Some("auto" | "standard_only") | None => "standard",
        Some(other) => other,
    };
    let blocks = blocks(&answer, &seen, &thinking);
    let cited: u64 = seen.sources.iter().map(|s| answer::tokens(&s.cited).len() as u64).sum();
    let usage = json!({
        "input_tokens": (seen.tokens + offered).saturating_sub(read + new).max(1),
        "cache_creation_input_tokens": new,
        "cache_read_input_tokens": read,
        "cache_creation": {"ephemeral_5m_input_tokens": new - hour, "ephemeral_1h_input_tokens": hour},
        "output_tokens": answer.tokens + cited,
        "service_tier": tier,
    });
    let id = format!("msg_01{}{}", letters(answer.hash, 13), letters(call.serial, 9));
    let (reason, stop) = match &answer.finish {
        Finish::Stop => ("end_turn", Value::Null),
        Finish::StopSequence(stop) => ("stop_sequence", json!(stop)),
        Finish::Length => ("max_tokens", Value::Null),
        Finish::Tools => ("tool_use", Value::Null),
        Finish::Refusal => ("refusal", Value::Null),
    };
    let message = |content: Value, reason: Value, stop: Value, usage: Value| json!({"id": id, "type": "message", "role": "assistant", "model": model, "content": content, "stop_reason": reason, "stop_sequence": stop, "usage": usage});
    if !body.get("stream").and_then(Value::as_bool).unwrap_or(false) {
        return Ok(Reply::json(200, &message(Value::Array(blocks), json!(reason), stop, usage)));
    }
    let mut first = usage.clone();
    if let Some(fields) = first.as_object_mut() {
        fields.insert("output_tokens".to_owned(), json!(1));
    }
    let start = message(json!([]), Value::Null, Value::Null, first);
    let end = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": stop}, "usage": {
        "input_tokens": usage["input_tokens"], "cache_creation_input_tokens": new, "cache_read_input_tokens": read, "output_tokens": usage["output_tokens"],
    }});
    Ok(Reply::stream(frames(&start, &blocks, &answer, &end)))
}

/// The content of the answer.
fn blocks(answer: &Answer, seen: &Conversation, thinking: &Thinking) -> Vec<Value> {
    let mut blocks = Vec::new();
    if thinking.tokens > 0 {
        if seen.text.contains(REDACT) {
            blocks.push(json!({"type": "redacted_thinking", "data": sign(answer.hash, "redacted")}));
        } else {
            let text = if thinking.omitted { "" } else { answer.reasoning.as_str() };
            blocks.push(json!({"type": "thinking", "thinking": text, "signature": sign(answer.hash, text)}));
        }
    }
    if answer.finish == Finish::Refusal {
        return blocks;
    }
    if answer.calls.is_empty() {
        for source in &seen.sources {
            blocks.push(json!({"type": "text", "text": source.cited, "citations": [source.citation]}));
        }
    }
    if !answer.text.is_empty() {
        let space = if seen.sources.is_empty() { "" } else { " " };
        blocks.push(json!({"type": "text", "text": format!("{space}{}", answer.text)}));
    }
    for call in &answer.calls {
        // Arguments cut short by the token limit are no JSON; the whole answer then has an empty input.
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        blocks.push(json!({"type": "tool_use", "id": format!("toolu_01{}", letters(call.id, 22)), "name": call.name, "input": input}));
    }
    blocks
}

fn frames(start: &Value, blocks: &[Value], answer: &Answer, end: &Value) -> Frames {
    let mut frames = Frames::with_capacity(8 * 1024);
    let event = |frames: &mut Frames, kind: FrameKind, data: &Value| {
        frames.event(kind, data.get("type").and_then(Value::as_str), data);
    };
    event(&mut frames, FrameKind::Structure, &json!({"type": "message_start", "message": start}));
    let mut calls = answer.calls.iter();
    for (index, block) in blocks.iter().enumerate() {
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or("");
        let mut opening = block.clone();
        let mut deltas: Vec<Value> = Vec::new();
        let blank = |opening: &mut Value, name: &str, value: Value| {
            if let Some(fields) = opening.as_object_mut() {
                fields.insert(name.to_owned(), value);
            }
        };
        match text("type") {
            "text" => {
                blank(&mut opening, "text", json!(""));
                if let Some(citations) = block.get("citations") {
                    blank(&mut opening, "citations", json!([]));
                    let each = citations.as_array().into_iter().flatten();
                    deltas.extend(each.map(|c| json!({"type": "citations_delta", "citation": c})));
                }
                deltas.extend(pieces(text("text")).map(|p| json!({"type": "text_delta", "text": p})));
            }
            "thinking" => {
                blank(&mut opening, "thinking", json!(""));
                blank(&mut opening, "signature", json!(""));
                deltas.extend(
                    pieces(text("thinking")).map(|p| json!({"type": "thinking_delta", "thinking": p})),
                );
                deltas.push(json!({"type": "signature_delta", "signature": text("signature")}));
            }
            "tool_use" => {
                blank(&mut opening, "input", json!({}));
                let arguments = calls.next().map_or("", |c| c.arguments.as_str());
                deltas.push(json!({"type": "input_json_delta", "partial_json": ""}));
                deltas.extend(
                    pieces(arguments).map(|p| json!({"type": "input_json_delta", "partial_json": p})),
                );
            }
            _ => {}
        }
        event(
            &mut frames,
            FrameKind::Structure,
            &json!({"type": "content_block_start", "index": index, "content_block": opening}),
        );
        if index == 0 {
            event(&mut frames, FrameKind::Structure, &json!({"type": "ping"}));
        }
        for delta in deltas {
            event(
                &mut frames,
                FrameKind::Token,
                &json!({"type": "content_block_delta", "index": index, "delta": delta}),
            );
        }
        event(&mut frames, FrameKind::Structure, &json!({"type": "content_block_stop", "index": index}));
    }
    event(&mut frames, FrameKind::Finish, end);
    event(&mut frames, FrameKind::Terminator, &json!({"type": "message_stop"}));
    frames
}

fn pieces(text: &str) -> impl Iterator<Item = &str> {
    answer::tokens(text).into_iter().map(|range| text.get(range).unwrap_or_default())
}

/// Answers `POST .../messages/count_tokens`.
pub(crate) fn count(call: &Call<'_>) -> Answered<Reply> {
    let body = body(call)?;
    let model = model(body)?;
    let offered = body
        .get("tools")
        .filter(|t| t.as_array().is_some_and(|l| !l.is_empty()))
        .map_or(0, |t| answer::estimate(&t.to_string()));
    let seen = conversation(body, model)?;
    Ok(Reply::json(200, &json!({"input_tokens": seen.tokens + offered})))
}
