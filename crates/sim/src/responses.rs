//! OpenAI Responses: reads the request, answers whole, as events, or from the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::answer::{self, Ask, Finish, Format, Hash, answer};
use crate::check;
use crate::openai_chat::tier;
use crate::reply::{Frames, Reply};
use crate::response_input::read;
use crate::response_output::{Turn, hex, output};
use crate::server::{Call, Shared};
use crate::vendor::{Answered, VendorError};

/// How many responses are kept for `previous_response_id` and retrieval.
const CAPACITY: usize = 2_000;

/// A stored response: the items of the conversation up to and with it, and the response itself.
#[derive(Clone)]
struct Stored {
    items: Arc<Vec<Value>>,
    response: Arc<Value>,
}

/// Responses by id, the oldest dropped first.
#[derive(Default)]
pub(crate) struct ResponseStore {
    inner: Mutex<(HashMap<String, Stored>, VecDeque<String>)>,
}

impl ResponseStore {
    fn get(&self, id: &str) -> Option<Stored> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0.get(id).cloned()
    }

    fn put(&self, id: &str, stored: Stored) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.1.len() >= CAPACITY
            && let Some(oldest) = inner.1.pop_front()
        {
            inner.0.remove(&oldest);
        }
        inner.1.push_back(id.to_owned());
        inner.0.insert(id.to_owned(), stored);
    }

    fn remove(&self, id: &str) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0.remove(id).is_some()
    }

    pub(crate) fn knows(&self, id: &str) -> bool {
        self.get(id).is_some()
    }
}

/// `GET` and `DELETE .../responses/{id}`.
pub(crate) fn stored(shared: &Shared, call: &Call<'_>, id: &str) -> Answered<Reply> {
    let missing = || {
        VendorError::new(404, "invalid_request_error", format!("Response with id '{id}' not found."))
            .param("id")
    };
    match call.request.method() {
        "GET" => shared.responses.get(id).map(|s| Reply::json(200, s.response.as_ref())).ok_or_else(missing),
        "DELETE" if shared.responses.remove(id) => {
            Ok(Reply::json(200, &json!({"id": id, "object": "response", "deleted": true})))
        }
        "DELETE" => Err(missing()),
        _ => Err(VendorError::new(405, "invalid_request_error", "Method not allowed.")),
    }
}

/// `POST .../responses`.
pub(crate) fn reply(shared: &Shared, call: &Call<'_>) -> Answered<Reply> {
    let body = call.body()?;
    let turn =
        turn(shared, body, call.deployment, call.serial, matches!(call.provider, "openai" | "azure"), false)?;
    if !body.get("stream").and_then(Value::as_bool).unwrap_or(false) {
        return Ok(Reply::json(200, &turn.response));
    }
    let mut frames = Frames::with_capacity(16 * 1024);
    for (kind, event) in turn.events() {
        frames.event(kind, event.get("type").and_then(Value::as_str), &event);
    }
    Ok(Reply::stream(frames))
}

/// Answers a request body, of HTTP or of a WebSocket message. `keep` stores the response also when the request
/// says not to: a WebSocket connection remembers its own.
pub(crate) fn turn(
    shared: &Shared,
    body: &Value,
    deployment: Option<&str>,
    serial: u64,
    strict: bool,
    keep: bool,
) -> Answered<Turn> {
    let model = check::model(body, deployment)?;
    check::number(body, "temperature", 0.0, 2.0)?;
    check::number(body, "top_p", 0.0, 1.0)?;
    let limit = check::integer(body, "max_output_tokens", 16, 1 << 40)?;
    let top = check::integer(body, "top_logprobs", 0, 20)?;
    let mut tools = check::tools(body, true, strict)?;
    let choice = check::choice(body, &mut tools)?;
    let includes = |name: &str| {
        body.get("include").and_then(Value::as_array).is_some_and(|l| l.iter().any(|v| v == name))
    };
    let previous = match body.get("previous_response_id").and_then(Value::as_str) {
        None => None,
        Some(id) => Some(shared.responses.get(id).ok_or_else(|| {
            VendorError::invalid(format!("Previous response with id '{id}' not found."))
                .param("previous_response_id")
                .code("previous_response_not_found")
        })?),
    };
    let mut items: Vec<Value> = previous.map(|p| p.items.as_ref().clone()).unwrap_or_default();
    match body.get("input") {
        Some(Value::String(text)) => items.push(json!({"role": "user", "content": text})),
        Some(Value::Array(list)) => items.extend(list.iter().cloned()),
        None | Some(Value::Null) if items.is_empty() && body.get("prompt").is_none() => {
            return Err(check::missing("input"));
        }
        None | Some(Value::Null) => {}
        Some(other) => {
            let message = format!(
                "Invalid type for 'input': expected one of a string or array of input items, but got {} instead.",
                check::kind(other)
            );
            return Err(VendorError::invalid(message).param("input").code("invalid_type"));
        }
    }
    let mut seen = read(&items, model)?;
    let instructions = body.get("instructions").and_then(Value::as_str).unwrap_or("");
    seen.hash = Hash(seen.hash).and(instructions.as_bytes()).0;
    seen.tokens += answer::estimate(instructions);
    if !tools.is_empty() {
        seen.tokens += body.get("tools").map_or(0, |t| answer::estimate(&t.to_string()));
    }
    let wanted = body.get("reasoning").filter(|r| !r.is_null());
    let effort = wanted.and_then(|r| r.get("effort")).and_then(Value::as_str);
    let reasoning = match effort {
        Some(word) => check::effort(word, "reasoning.effort")?,
        None if check::reasons(model) || wanted.is_some() => 32,
        None => 0,
    };
    let summary = wanted
        .and_then(|r| r.get("summary").or_else(|| r.get("generate_summary")))
        .is_some_and(|s| !s.is_null());
    let ask = Ask {
        hash: seen.hash,
        text: seen.text,
        results: seen.results,
        tools,
        choice,
        parallel: body.get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(true),
        limit,
        stops: Vec::new(),
        format: format(body, strict)?,
        reasoning,
        attachments: seen.attachments,
    };
    let answer = answer(&ask);
    let cached = shared.cache.automatic(seen.tokens, &seen.prefixes, shared.config.openai_cache_min_tokens);
    let id = format!("resp_{}{}", hex(answer.hash, 39), format_args!("{serial:09x}"));
    let logprobs = (top.is_some() || includes("message.output_text.logprobs"))
        .then(|| top.and_then(|t| usize::try_from(t).ok()).unwrap_or(0));
    let silent = body.get("generate").and_then(Value::as_bool) == Some(false);
    let output = if silent {
        Vec::new()
    } else {
        output(&answer, summary, includes("reasoning.encrypted_content"), reasoning > 0, logprobs)
    };
    let cut = answer.finish == Finish::Length && !silent;
    let made = if silent { 0 } else { answer.tokens };
    let or = |name: &str, default: Value| body.get(name).filter(|v| !v.is_null()).cloned().unwrap_or(default);
    let mut response = json!({
        "id": id, "object": "response", "created_at": crate::models::CREATED,
        "status": if cut { "incomplete" } else { "completed" },
        "background": false, "error": null,
        "incomplete_details": if cut { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "instructions": or("instructions", Value::Null),
        "max_output_tokens": or("max_output_tokens", Value::Null),
        "max_tool_calls": or("max_tool_calls", Value::Null),
        "model": model, "output": output,
        "parallel_tool_calls": ask.parallel,
        "previous_response_id": or("previous_response_id", Value::Null),
        "prompt_cache_key": or("prompt_cache_key", Value::Null),
        "reasoning": {"effort": effort, "summary": or("reasoning", Value::Null).get("summary").cloned().unwrap_or(Value::Null)},
        "safety_identifier": or("safety_identifier", Value::Null),
        "service_tier": tier(body, strict),
        "store": or("store", json!(true)),
        "temperature": or("temperature", json!(1.0)),
        "text": or("text", json!({"format": {"type": "text"}, "verbosity": "medium"})),
        "tool_choice": or("tool_choice", json!("auto")),
        "tools": or("tools", json!([])),
        "top_logprobs": top.unwrap_or(0), "top_p": or("top_p", json!(1.0)),
        "truncation": or("truncation", json!("disabled")),
        "usage": {
            "input_tokens": seen.tokens, "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": made, "output_tokens_details": {"reasoning_tokens": if silent { 0 } else { answer.reasoning_tokens }},
            "total_tokens": seen.tokens + made,
        },
        "user": or("user", Value::Null), "metadata": or("metadata", json!({})),
    });
    if let Some(text) = response.get_mut("text").and_then(Value::as_object_mut)
        && !text.contains_key("format")
    {
        text.insert("format".to_owned(), json!({"type": "text"}));
    }
    let mut opening = response.clone();
    if let Some(fields) = opening.as_object_mut() {
        for (name, value) in [
            ("status", json!("in_progress")),
            ("output", json!([])),
            ("usage", Value::Null),
            ("incomplete_details", Value::Null),
        ] {
            fields.insert(name.to_owned(), value);
        }
    }
    items.extend(response["output"].as_array().into_iter().flatten().cloned());
    if keep || body.get("store").and_then(Value::as_bool) != Some(false) {
        shared.responses.put(&id, Stored { items: Arc::new(items), response: Arc::new(response.clone()) });
    }
    Ok(Turn { response, opening, answer, logprobs })
}

fn format(body: &Value, strict: bool) -> Answered<Format> {
    let Some(format) = body.get("text").and_then(|t| t.get("format")).filter(|f| !f.is_null()) else {
        return Ok(Format::Text);
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            if format.get("name").and_then(Value::as_str).is_none() {
                return Err(check::missing("text.format.name"));
            }
            Ok(Format::Schema(check::output_schema(format, strict, "text.format")?))
        }
        Some(other) => {
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
            );
            Err(VendorError::invalid(message).param("text.format.type").code("invalid_value"))
        }
        None => Err(check::missing("text.format.type")),
    }
}
