//! Whole answers: Anthropic's JSON to [`LlmResponse`], and the pieces the stream decoder shares.

use bytes::Bytes;
use http::HeaderMap;
use indexmap::IndexMap;
use serde_json::value::RawValue;

use super::super::Target;
use super::super::headers::{excerpt, rate_limits, request_id};
use super::error_of;
use crate::core::content::{Block, BlockKind, Message, Reasoning, Role, wire};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::{Extra, Fields, RawJson, fields, leftover, take};
use crate::core::response::{FinishReason, LlmResponse, Usage};

pub(super) fn decode(
    status: u16,
    headers: &HeaderMap,
    body: &Bytes,
    target: &Target<'_>,
) -> Result<LlmResponse, LlmError> {
    if !(200..300).contains(&status) {
        return Err(error_of(target.provider, target.model, Some(status), headers, body));
    }
    let unreadable = |reason: &str| {
        LlmError::new(ErrorKind::Decode, format!("the answer could not be understood: {reason}")).with(
            |detail| {
                detail.provider = Some(target.provider.to_owned());
                detail.model = (!target.model.is_empty()).then(|| target.model.to_owned());
                detail.status_code = Some(status);
                detail.request_id = request_id(headers);
                detail.body = Some(excerpt(body));
            },
        )
    };
    let text = std::str::from_utf8(body).map_err(|error| unreadable("it is not UTF-8").with_source(error))?;
    let mut map = fields(text).map_err(|error| unreadable("it is not a JSON object").with_source(error))?;
    let kind = map.shift_remove("type").map(RawValue::get);
    let content = map.shift_remove("content").filter(|raw| raw.get() != "null");
    if kind == Some(r#""error""#) || (content.is_none() && map.contains_key("error")) {
        return Err(error_of(target.provider, target.model, None, headers, body));
    }
    let wrong = |field: &str, error: serde_json::Error| unreadable(&format!("`{field}`")).with_source(error);
    let content = content.ok_or_else(|| unreadable("`content` is missing"))?;
    let items: Vec<&RawValue> = serde_json::from_str(content.get()).map_err(|e| wrong("content", e))?;
    let mut blocks = Vec::with_capacity(items.len());
    for item in items {
        blocks.push(block(item.get()).map_err(|error| wrong("content", error))?);
    }
    let mut answer = LlmResponse {
        id: take(&mut map, "id").map_err(|error| wrong("id", error))?.unwrap_or_default(),
        model: take(&mut map, "model").map_err(|error| wrong("model", error))?.unwrap_or_default(),
        provider: target.provider.to_owned(),
        message: Message::new(Role::Assistant, blocks),
        raw_finish_reason: take(&mut map, "stop_reason").map_err(|error| wrong("stop_reason", error))?,
        request_id: request_id(headers),
        rate_limits: rate_limits(headers),
        raw: body.clone(),
        ..LlmResponse::default()
    };
    answer.finish_reason = finish_reason(answer.raw_finish_reason.as_deref());
    if let Some(raw) = map.shift_remove("usage").filter(|raw| raw.get() != "null") {
        let mut counts = Counts::default();
        counts.merge(raw).map_err(|error| wrong("usage", error))?;
        answer.service_tier = counts.service_tier();
        answer.usage = Some(counts.usage());
    }
    map.shift_remove("role");
    answer.extra = leftover(map);
    Ok(answer)
}

/// The neutral word for Anthropic's `stop_reason`.
pub(super) fn finish_reason(raw: Option<&str>) -> FinishReason {
    match raw {
        Some("end_turn" | "stop_sequence") => FinishReason::Stop,
        Some("max_tokens" | "model_context_window_exceeded") => FinishReason::Length,
        Some("tool_use") => FinishReason::ToolCalls,
        Some("refusal") => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// Reads one content block. A type that is not known here becomes an opaque block.
pub(super) fn block(text: &str) -> Result<Block, serde_json::Error> {
    let mut map = fields(text)?;
    let kind = match map.get("type").map(|raw| raw.get()) {
        Some(r#""text""#) => {
            let citations = map.shift_remove("citations").filter(|raw| raw.get() != "null");
            BlockKind::Text { text: need(&mut map, "text")?, citations: citations.map(RawJson::from) }
        }
        Some(r#""thinking""#) => BlockKind::Reasoning(Reasoning {
            // Absent where the host was asked to leave the thinking out.
            text: take(&mut map, "thinking")?.unwrap_or_default(),
            signature: take(&mut map, "signature")?,
            origin: Some(wire::ANTHROPIC.to_owned()),
            ..Reasoning::default()
        }),
        Some(r#""redacted_thinking""#) => BlockKind::Reasoning(Reasoning {
            encrypted: Some(need(&mut map, "data")?),
            origin: Some(wire::ANTHROPIC.to_owned()),
            ..Reasoning::default()
        }),
        Some(r#""tool_use""#) => BlockKind::ToolCall {
            id: need(&mut map, "id")?,
            name: need(&mut map, "name")?,
            arguments: map
                .shift_remove("input")
                .filter(|raw| raw.get() != "null")
                .map_or_else(|| "{}".to_owned(), |raw| raw.get().to_owned()),
        },
        _ => return Ok(Block::opaque(wire::ANTHROPIC, RawJson::parse(text)?)),
    };
    map.shift_remove("type");
    let cache_control =
        map.shift_remove("cache_control").filter(|raw| raw.get() != "null").map(RawJson::from);
    Ok(Block { kind, cache_control, extra: leftover(map) })
}

fn need(map: &mut Fields<'_>, name: &'static str) -> Result<String, serde_json::Error> {
    take(map, name)?.ok_or_else(|| <serde_json::Error as serde::de::Error>::missing_field(name))
}

/// The fields of `usage`, as they have become known. A stream's counts are cumulative: a later one replaces an
/// earlier one, and one that is absent or `null` leaves it standing.
#[derive(Debug, Default)]
pub(super) struct Counts {
    known: Extra,
}

impl Counts {
    /// Adds the fields of a `usage` object.
    pub(super) fn merge(&mut self, usage: &RawValue) -> Result<(), serde_json::Error> {
        self.known.extend(leftover(fields(usage.get())?));
        Ok(())
    }

    pub(super) fn service_tier(&self) -> Option<String> {
        self.known.get("service_tier").and_then(RawJson::as_string)
    }

    /// Anthropic's `input_tokens` leaves out what was read from or written to the cache; ours is the total.
    pub(super) fn usage(&self) -> Usage {
        let mut extra = self.known.clone();
        let uncached = count(&mut extra, "input_tokens");
        let cache_read_input_tokens = count(&mut extra, "cache_read_input_tokens");
        let cache_creation_input_tokens = count(&mut extra, "cache_creation_input_tokens");
        let nested = |name: &str, count_name: &str| {
            let details: Option<IndexMap<String, RawJson>> =
                self.known.get(name).and_then(|details| details.read().ok());
            details.map_or(0, |mut details| count(&mut details, count_name))
        };
        Usage {
            input_tokens: uncached
                .saturating_add(cache_read_input_tokens)
                .saturating_add(cache_creation_input_tokens),
            output_tokens: count(&mut extra, "output_tokens"),
            cache_read_input_tokens,
            cache_creation_input_tokens,
            cache_creation_1h_input_tokens: nested("cache_creation", "ephemeral_1h_input_tokens"),
            web_search_requests: nested("server_tool_use", "web_search_requests"),
            reasoning_output_tokens: nested("output_tokens_details", "thinking_tokens"),
            extra,
            ..Usage::default()
        }
    }
}

/// Takes a count out; one that is no whole number stays where it is.
fn count(map: &mut Extra, name: &str) -> u64 {
    let Some(number) = map.get(name).and_then(|raw| raw.read::<u64>().ok()) else { return 0 };
    map.shift_remove(name);
    number
}
