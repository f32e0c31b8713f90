//! Anthropic Messages (`/v1/messages`): the adapter, what differs between its models, and its errors.

mod blocks;
mod body;
mod decode;
mod encode;
mod stream;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::HeaderMap;

use super::headers::{ErrorFacts, http_error};
use super::{Adapter, Decoder, Target, WireRequest};
use crate::core::content::wire;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::{Fields, fields, take, take_text};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

/// The wire format of Anthropic's Messages API and of the hosts that imitate it.
///
/// Path `/v1/messages` below a base URL without `/v1`; header `anthropic-version: 2023-06-01` unless the request's
/// own headers name another version. `anthropic-beta` holds what the request's headers name, and the Files API's
/// beta when the conversation refers to an uploaded file.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnthropicMessages;

impl Adapter for AnthropicMessages {
    fn wire(&self) -> &'static str {
        wire::ANTHROPIC
    }

    fn encode(&self, request: &LlmRequest, target: &Target<'_>) -> Result<WireRequest, LlmError> {
        encode::encode(request, target)
    }

    fn decode(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &Bytes,
        target: &Target<'_>,
    ) -> Result<LlmResponse, LlmError> {
        decode::decode(status, headers, body, target)
    }

    fn decoder(&self, target: &Target<'_>) -> Box<dyn Decoder> {
        Box::new(stream::MessagesDecoder::new(target))
    }
}

/// How a model is told to think, by the generation its name states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinking {
    /// Before 3.7: not at all.
    Never,
    /// 3.7 to 4.5: `thinking: {type: enabled, budget_tokens}` only.
    Budget,
    /// 4.6: `adaptive` with an effort; budgets still work.
    Both,
    /// After 4.6: `adaptive` with an effort; budgets are refused with status 400.
    Adaptive,
    /// No generation in the name: the current form is sent and the provider decides.
    Unknown,
}

/// The generation in a model's name, for instance (4, 6) in `claude-sonnet-4-6`, `us.anthropic.claude-opus-4-6-v1:0`
/// and `anthropic/claude-sonnet-4.6`, (3, 7) in `claude-3-7-sonnet-20250219`.
fn generation(model: &str) -> Option<(u32, u32)> {
    let (_, name) = model.split_once("claude-")?;
    let mut numbers = name
        .split(['-', '.', '@', ':'])
        .map(|part| part.parse::<u32>().ok().filter(|_| part.len() <= 2))
        .skip_while(Option::is_none)
        .map_while(|number| number);
    let major = numbers.next()?;
    Some((major, numbers.next().unwrap_or(0)))
}

fn thinking_of(model: &str) -> Thinking {
    match generation(model) {
        None => Thinking::Unknown,
        Some(version) if version < (3, 7) => Thinking::Never,
        Some(version) if version < (4, 6) => Thinking::Budget,
        Some((4, 6)) => Thinking::Both,
        Some(_) => Thinking::Adaptive,
    }
}

/// Whether the model takes `system` messages in the middle of the conversation (Claude Opus 4.8 and later).
fn takes_system_turns(model: &str) -> bool {
    generation(model).is_some_and(|version| version >= (4, 8))
}

/// The HTTP status an error type stands for, for errors that come inside a 200.
fn status_of(kind: Option<&str>) -> u16 {
    match kind {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => 500,
    }
}

/// The kind of an error, as far as its type and message say more than the status.
fn kind_of(kind: &str, message: &str) -> Option<ErrorKind> {
    Some(match kind {
        "invalid_request_error" => {
            let message = message.to_ascii_lowercase();
            let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
            if says(&["prompt is too long", "exceed context limit", "exceeds the context window"]) {
                ErrorKind::ContextLength
            } else if says(&["credit balance is too low"]) {
                ErrorKind::QuotaExhausted
            } else if says(&["blocked by content filtering"]) {
                ErrorKind::ContentFilter
            } else {
                // The status may be more precise (403, 404, 413), so this is no kind of its own.
                return None;
            }
        }
        "authentication_error" => ErrorKind::Authentication,
        "billing_error" => ErrorKind::QuotaExhausted,
        "permission_error" => ErrorKind::PermissionDenied,
        "not_found_error" => ErrorKind::NotFound,
        "request_too_large" => ErrorKind::RequestTooLarge,
        "rate_limit_error" => ErrorKind::RateLimited,
        "timeout_error" => ErrorKind::Timeout,
        "overloaded_error" => ErrorKind::Overloaded,
        // `api_error` covers 500 to 504: the status is more precise.
        _ => return None,
    })
}

/// The field a message names: Anthropic writes `tools.0.custom.input_schema: Field required`.
fn param_of(message: &str) -> Option<String> {
    let (field, _) = message.split_once(": ")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_');
    (!field.is_empty() && field.bytes().all(plain)).then(|| field.to_owned())
}

/// The inner object of `{"type":"error","error":{...}}`, with the request id beside it.
fn error_object(mut outer: Fields<'_>) -> (Option<Fields<'_>>, Option<String>) {
    let inner = outer.shift_remove("error").and_then(|raw| fields(raw.get()).ok());
    (inner, take_text(&mut outer, "request_id"))
}

/// Builds the error from its JSON. Without a failure status, the error's type says which one is meant.
fn error_of(provider: &str, model: &str, status: Option<u16>, headers: &HeaderMap, body: &[u8]) -> LlmError {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let (inner, request_id) = fields(text).map(error_object).unwrap_or_default();
    let mut inner = inner.unwrap_or_default();
    let code = take::<String>(&mut inner, "type").ok().flatten();
    let message = take_text(&mut inner, "message");
    let kind = code.as_deref().and_then(|code| kind_of(code, message.as_deref().unwrap_or_default()));
    let status = status.unwrap_or_else(|| status_of(code.as_deref()));
    let param = message.as_deref().and_then(param_of);
    http_error(provider, model, status, headers, body, ErrorFacts { kind, message, code, param }).with(
        |detail| {
            if detail.request_id.is_none() {
                detail.request_id = request_id;
            }
        },
    )
}
