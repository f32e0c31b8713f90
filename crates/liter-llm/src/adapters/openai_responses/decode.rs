//! Reading a whole answer of `POST /responses`, and the errors of this API.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::value::RawValue;

use super::super::Target;
use super::super::headers::{ErrorFacts, excerpt, http_error, rate_limits, request_id};
use crate::core::content::{Block, BlockKind, Message, Role, wire};
use crate::core::error::{ErrorDetail, ErrorKind, LlmError};
use crate::core::json::{Extra, Fields, RawJson, fields, leftover, take, take_text};
use crate::core::response::{FinishReason, LlmResponse, Usage};
use crate::core::shapes;

/// Fields of an answer that only repeat the request, or say again what stands elsewhere in the answer. They are not
/// kept in `extra`; `raw` has them. Every other field that is not `null` is kept.
const ECHOES: [&str; 27] = [
    "background",
    "frequency_penalty",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "object",
    "output_text",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "store",
    "stream",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

/// Who answered, for answers and errors.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The provider's name.
    pub(super) provider: String,
    /// The requested model; may be empty.
    pub(super) model: String,
}

impl Source {
    pub(super) fn of(target: &Target<'_>) -> Self {
        Self { provider: target.provider.to_owned(), model: target.model.to_owned() }
    }

    fn error(&self, kind: ErrorKind, message: String) -> LlmError {
        LlmError::new(kind, message).with(|detail| {
            detail.provider = Some(self.provider.clone());
            detail.model = Some(self.model.clone()).filter(|model| !model.is_empty());
        })
    }

    /// The error for bytes that are not what this API answers.
    pub(super) fn unreadable(&self, what: &str, body: &[u8]) -> LlmError {
        self.error(ErrorKind::Decode, what.to_owned()).with(|detail| {
            detail.body = Some(excerpt(body)).filter(|body| !body.is_empty());
        })
    }

    /// The error an object inside a successful answer or stream stands for. `fallback` is the kind when neither code,
    /// type nor status say it.
    pub(super) fn in_band(&self, object: &str, status: Option<u16>, fallback: ErrorKind) -> LlmError {
        let (facts, class) = error_facts(object);
        // Some hosts put the HTTP status they would have answered with into `code`.
        let status = status
            .or_else(|| facts.code.as_deref()?.parse().ok())
            .filter(|status: &u16| (400..=599).contains(status));
        let kind = facts
            .kind
            .or_else(|| status.map(ErrorKind::from_status))
            .or_else(|| [&facts.code, &class].into_iter().flatten().find_map(|word| kind_of_type(word)))
            .unwrap_or(fallback);
        LlmError::from_parts(
            kind,
            ErrorDetail {
                message: facts
                    .message
                    .filter(|message| !message.is_empty())
                    .unwrap_or_else(|| "the provider failed while answering".to_owned()),
                provider: Some(self.provider.clone()),
                model: Some(self.model.clone()).filter(|model| !model.is_empty()),
                status_code: status,
                code: facts.code,
                param: facts.param,
                body: Some(excerpt(object.as_bytes())),
                ..ErrorDetail::default()
            },
        )
    }
}

/// Decodes an answer to a call that was not streamed.
pub(super) fn decode(
    status: u16,
    headers: &HeaderMap,
    body: &Bytes,
    target: &Target<'_>,
) -> Result<LlmResponse, LlmError> {
    if status >= 400 {
        let (facts, _) = std::str::from_utf8(body).map(error_facts).unwrap_or_default();
        return Err(http_error(target.provider, target.model, status, headers, body, facts));
    }
    let source = Source::of(target);
    let located = |error: LlmError| {
        error.with(|detail| {
            detail.status_code = detail.status_code.or(Some(status));
            detail.request_id = request_id(headers);
        })
    };
    let map = std::str::from_utf8(body)
        .ok()
        .and_then(|text| fields(text).ok())
        .ok_or_else(|| located(source.unreadable("the answer is not a JSON object", body)))?;
    let mut response = answer(map, body, None, &source).map_err(located)?;
    response.request_id = request_id(headers);
    response.rate_limits = rate_limits(headers);
    response.raw = body.clone();
    Ok(response)
}

/// Reads the answer object, as it stands alone or inside the last event of a stream. `ending` is the status that the
/// event's type tells, for hosts that leave it out of the object.
pub(super) fn answer(
    mut map: Fields<'_>,
    body: &[u8],
    ending: Option<&str>,
    source: &Source,
) -> Result<LlmResponse, LlmError> {
    let status = take_text(&mut map, "status").or_else(|| ending.map(str::to_owned));
    let error = map.shift_remove("error").filter(|error| error.get() != "null");
    let items = take::<Vec<&RawValue>>(&mut map, "output")
        .map_err(|cause| source.unreadable("`output` is not a list", body).with_source(cause))?;
    if items.is_none() && status.is_none() {
        return Err(match error {
            Some(_) => source.in_band(&String::from_utf8_lossy(body), None, ErrorKind::ProviderError),
            None => source.unreadable("the answer has neither `output` nor `status`", body),
        });
    }
    let mut blocks = Vec::new();
    let mut logprobs = Vec::new();
    let mut searches = 0;
    for item in items.unwrap_or_default() {
        searches += u64::from(is_search(item));
        let parts = blocks_of(item, &mut logprobs);
        if parts.is_empty() {
            // An empty message item must be sent back too: reasoning may not stand without what followed it.
            blocks.push(Block::text("").with_extra(note_of(item.get(), Note::Final)));
        }
        blocks.extend(parts);
    }
    let incomplete = take::<Fields<'_>>(&mut map, "incomplete_details")
        .ok()
        .flatten()
        .and_then(|mut details| take_text(&mut details, "reason"));
    let mut response = LlmResponse {
        id: take_text(&mut map, "id").unwrap_or_default(),
        model: take_text(&mut map, "model").unwrap_or_default(),
        provider: source.provider.clone(),
        service_tier: take_text(&mut map, "service_tier"),
        usage: map.shift_remove("usage").and_then(|usage| read_usage(usage.get())),
        logprobs: if logprobs.is_empty() { None } else { RawJson::from_value(&logprobs).ok() },
        ..LlmResponse::default()
    };
    if let Some(usage) = &mut response.usage {
        usage.web_search_requests = searches;
    }
    (response.finish_reason, response.raw_finish_reason) =
        finish_of(status.as_deref(), incomplete.as_deref(), &blocks);
    response.message = Message::new(Role::Assistant, blocks);
    response.extra = leftover(map);
    response.extra.retain(|name, value| {
        !(ECHOES.contains(&name.as_str()) || name == "metadata" && value.get() == "{}")
    });
    if status.as_deref() == Some("failed") || (error.is_some() && response.message.content().is_empty()) {
        let object = error.map_or("{}", RawValue::get);
        let failure = source.in_band(object, None, ErrorKind::ProviderError);
        return Err(if response.message.content().is_empty() {
            failure
        } else {
            failure.with(|detail| detail.partial = Some(Box::new(response)))
        });
    }
    Ok(response)
}

/// Whether an output item is a search of the web, which is billed apart; opening a page found by one is not.
///
/// Source: OpenAI's pricing page, "Tool calls".
fn is_search(item: &RawValue) -> bool {
    if !item.get().contains("web_search_call") {
        return false;
    }
    let Ok(mut map) = fields(item.get()) else { return false };
    let action = take::<Fields<'_>>(&mut map, "action").ok().flatten();
    let action = action.and_then(|mut action| take_text(&mut action, "type"));
    take_text(&mut map, "type").as_deref() == Some("web_search_call")
        && action.is_none_or(|action| action == "search")
}

/// Why the model stopped, and the vendor's word: the reason when the answer is incomplete, else the status.
pub(super) fn finish_of(
    status: Option<&str>,
    incomplete: Option<&str>,
    blocks: &[Block],
) -> (FinishReason, Option<String>) {
    let (reason, raw) = match (status, incomplete) {
        // `complete` is written by imitations of this API.
        (Some("completed" | "complete") | None, None) => {
            let reason = if wants_tools(blocks) { FinishReason::ToolCalls } else { FinishReason::Stop };
            (reason, status)
        }
        (_, Some("max_output_tokens")) => (FinishReason::Length, incomplete),
        (_, Some("content_filter")) => (FinishReason::ContentFilter, incomplete),
        (_, Some(_)) => (FinishReason::Other, incomplete),
        (Some("failed"), None) => (FinishReason::Error, status),
        (Some(_), None) => (FinishReason::Other, status),
    };
    (reason, raw.map(str::to_owned))
}

/// Whether a function or custom tool waits for its result. Custom calls that a text follows were run by the provider
/// itself (xAI lists its own searches as such).
fn wants_tools(blocks: &[Block]) -> bool {
    let calls = |block: &Block| matches!(block.kind, BlockKind::ToolCall { .. });
    let custom = |block: &&Block| match &block.kind {
        BlockKind::Opaque { origin, json } if origin == wire::OPENAI_RESPONSES => fields(json.get())
            .is_ok_and(|mut map| take_text(&mut map, "type").as_deref() == Some("custom_tool_call")),
        _ => false,
    };
    blocks.iter().any(calls)
        || blocks
            .iter()
            .rev()
            .take_while(|block| !matches!(block.kind, BlockKind::Text { .. }))
            .any(|block| custom(&block))
}

/// Whether an item is whole or has only begun.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Note {
    /// As it stays.
    Final,
    /// Just announced: its status is taken to become `completed`, so that it need not be written anew in the end.
    Begun,
}

/// What a block must remember of its item: everything but what the block says itself.
pub(super) fn note_of(item: &str, note: Note) -> Extra {
    let mut extra = Extra::new();
    let Ok(mut map) = fields(item) else { return extra };
    for name in ["type", "role", "content", "call_id", "name", "arguments"] {
        map.shift_remove(name);
    }
    let mut kept = leftover(map);
    if note == Note::Begun
        && let Some(status) = kept.get_mut("status")
    {
        *status = RawJson::from("completed");
    }
    if !kept.is_empty()
        && let Ok(json) = RawJson::from_value(&kept)
    {
        extra.insert(wire::OPENAI_RESPONSES.to_owned(), json);
    }
    extra
}

/// The blocks of one output item: a message's parts, or one block. Empty for a message without parts.
pub(super) fn blocks_of(item: &RawValue, logprobs: &mut Vec<RawJson>) -> Vec<Block> {
    let opaque = || vec![Block::opaque(wire::OPENAI_RESPONSES, RawJson::from(item))];
    let Ok(mut map) = fields(item.get()) else { return opaque() };
    match take_text(&mut map, "type").as_deref() {
        Some("message") => match take::<Vec<&RawValue>>(&mut map, "content") {
            Ok(parts) => {
                let note = note_of(item.get(), Note::Final);
                parts
                    .unwrap_or_default()
                    .into_iter()
                    .map(|part| part_block(part, note.clone(), logprobs))
                    .collect()
            }
            Err(_) => match take_text(&mut map, "content") {
                Some(text) => vec![Block::text(text).with_extra(note_of(item.get(), Note::Final))],
                None => opaque(),
            },
        },
        Some("reasoning") => match shapes::responses_reasoning(&RawJson::from(item)) {
            Ok(reasoning) => vec![Block::reasoning(reasoning)],
            Err(_) => opaque(),
        },
        Some("function_call") => {
            let id = take_text(&mut map, "call_id").or_else(|| take_text(&mut map, "id")).unwrap_or_default();
            let name = take_text(&mut map, "name").unwrap_or_default();
            let arguments = take_text(&mut map, "arguments").unwrap_or_default();
            vec![Block::tool_call(id, name, arguments).with_extra(note_of(item.get(), Note::Final))]
        }
        _ => opaque(),
    }
}

/// One part of a message; `note` is what it remembers of the item. Log probabilities go into `logprobs`.
pub(super) fn part_block(part: &RawValue, note: Extra, logprobs: &mut Vec<RawJson>) -> Block {
    let opaque = |note| Block::opaque(wire::OPENAI_RESPONSES, RawJson::from(part)).with_extra(note);
    let Ok(mut map) = fields(part.get()) else { return opaque(note) };
    let kind = take_text(&mut map, "type");
    let mut block = match kind.as_deref() {
        Some("output_text" | "text") => {
            let citations =
                map.shift_remove("annotations").filter(|list| !matches!(list.get(), "null" | "[]"));
            if let Ok(Some(tokens)) = take::<Vec<RawJson>>(&mut map, "logprobs") {
                logprobs.extend(tokens);
            }
            let mut block = Block::text(take_text(&mut map, "text").unwrap_or_default());
            if let BlockKind::Text { citations: place, .. } = &mut block.kind {
                *place = citations.map(RawJson::from);
            }
            block
        }
        Some("refusal") => Block::refusal(take_text(&mut map, "refusal").unwrap_or_default()),
        _ => return opaque(note),
    };
    block.extra = note;
    block.extra.extend(leftover(map));
    block
}

fn number(map: &mut Fields<'_>, name: &str) -> u64 {
    let Some(raw) = map.shift_remove(name) else { return 0 };
    raw.get().parse().unwrap_or_else(|_| {
        // Some hosts write whole numbers as `3.0`.
        raw.get().parse::<f64>().map_or(0, |number| number.max(0.0) as u64)
    })
}

/// Reads the usage; counts without a typed home keep their place and name in `extra`.
fn read_usage(text: &str) -> Option<Usage> {
    let mut map = fields(text).ok()?;
    let mut usage = Usage {
        input_tokens: number(&mut map, "input_tokens"),
        output_tokens: number(&mut map, "output_tokens"),
        ..Usage::default()
    };
    let mut details = Extra::new();
    if let Ok(Some(mut input)) = take::<Fields<'_>>(&mut map, "input_tokens_details") {
        usage.cache_read_input_tokens = number(&mut input, "cached_tokens");
        usage.cache_creation_input_tokens = number(&mut input, "cache_write_tokens");
        keep(&mut details, "input_tokens_details", input);
    }
    if let Ok(Some(mut output)) = take::<Fields<'_>>(&mut map, "output_tokens_details") {
        usage.reasoning_output_tokens = number(&mut output, "reasoning_tokens");
        keep(&mut details, "output_tokens_details", output);
    }
    let total = (usage.input_tokens + usage.output_tokens).to_string();
    if map.get("total_tokens").is_some_and(|value| value.get() == total) {
        map.shift_remove("total_tokens");
    }
    usage.extra = leftover(map);
    usage.extra.extend(details);
    Some(usage)
}

fn keep(extra: &mut Extra, name: &str, rest: Fields<'_>) {
    let rest = leftover(rest);
    if !rest.is_empty()
        && let Ok(json) = RawJson::from_value(&rest)
    {
        extra.insert(name.to_owned(), json);
    }
}

/// The kind a code stands for, where it says more than the HTTP status.
///
/// Sources: OpenAI's error code guide, the codes of `ResponseError` in the official SDK, Azure's content filter codes,
/// recorded answers.
fn kind_of_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" | "quota_exceeded" => {
            ErrorKind::QuotaExhausted
        }
        "rate_limit_exceeded" | "rate_limit_error" => ErrorKind::RateLimited,
        "context_length_exceeded" => ErrorKind::ContextLength,
        "DeploymentNotFound" => ErrorKind::NotFound,
        "invalid_api_key" | "invalid_authentication" | "account_deactivated" => ErrorKind::Authentication,
        "content_filter"
        | "content_policy_violation"
        | "image_content_policy_violation"
        | "misalignment_policy_violation"
        | "bio_policy"
        | "ResponsibleAIPolicyViolation" => ErrorKind::ContentFilter,
        "server_overloaded" | "overloaded_error" | "slow_down" => ErrorKind::Overloaded,
        "vector_store_timeout" => ErrorKind::Timeout,
        // A WebSocket connection lives an hour at most; another one may take over.
        "websocket_connection_limit_reached" => ErrorKind::Connection,
        _ => return None,
    })
}

/// The kind of an error inside a stream, where no status says it, by the words for whole classes of errors.
fn kind_of_type(word: &str) -> Option<ErrorKind> {
    Some(match word {
        "server_error" | "api_error" | "internal_error" | "internal_server_error" => ErrorKind::ProviderError,
        "authentication_error" => ErrorKind::Authentication,
        "permission_error" => ErrorKind::PermissionDenied,
        "not_found_error" => ErrorKind::NotFound,
        "requests" | "tokens" => ErrorKind::RateLimited,
        "invalid_request_error" | "previous_response_not_found" | "data_residency_mismatch" => {
            ErrorKind::InvalidRequest
        }
        word if ["invalid_", "image_", "empty_", "unsupported_", "failed_to_download_"]
            .iter()
            .any(|start| word.starts_with(start)) =>
        {
            ErrorKind::InvalidRequest
        }
        _ => return None,
    })
}

/// Reads an error object in the forms hosts use: OpenAI's `{"error": {"message", "type", "param", "code"}}`, the
/// inner object alone, `{"code", "error": "text"}` (xAI), `{"detail": "text"}`, `{"message": "text"}`.
///
/// Without a code the type stands for it. The second value is the type.
pub(super) fn error_facts(text: &str) -> (ErrorFacts, Option<String>) {
    let mut facts = ErrorFacts::default();
    let Ok(mut outer) = fields(text) else { return (facts, None) };
    let inner = match outer.shift_remove("error").map(RawValue::get) {
        Some(object) if object.starts_with('{') => fields(object).ok(),
        Some(message) if message.starts_with('"') => {
            facts.message = serde_json::from_str(message).ok();
            None
        }
        _ => None,
    };
    let mut map = inner.unwrap_or(outer);
    facts.message =
        facts.message.or_else(|| take_text(&mut map, "message")).or_else(|| take_text(&mut map, "detail"));
    let code = take_text(&mut map, "code").filter(|code| !code.is_empty());
    // In events `type` names the event.
    let kind = take_text(&mut map, "type").filter(|kind| kind != "error" && !kind.is_empty());
    facts.param = take_text(&mut map, "param").filter(|param| !param.is_empty());
    let nested = take::<Fields<'_>>(&mut map, "innererror")
        .ok()
        .flatten()
        .and_then(|mut inner| take_text(&mut inner, "code"));
    facts.kind = [&code, &kind, &nested].into_iter().flatten().find_map(|word| kind_of_code(word));
    facts.code = code.or_else(|| kind.clone());
    (facts, kind)
}
