//! Error bodies in all the shapes hosts give them, and the kinds they stand for.

use std::time::SystemTime;

use http::HeaderMap;
use serde_json::Value;

use crate::adapters::again;
use crate::adapters::headers::{self, ErrorFacts, excerpt, http_error};
use crate::core::error::{ErrorDetail, ErrorKind, LlmError};

/// What an error body says.
#[derive(Debug, Default)]
pub(super) struct Said {
    message: Option<String>,
    /// `code`, `type` and the inner code, most specific first.
    words: Vec<String>,
    code: Option<String>,
    param: Option<String>,
    /// The status the body names, from 400 to 599.
    status: Option<u16>,
    /// OpenRouter: the reasons for which its moderation flagged the prompt.
    moderated: bool,
}

impl Said {
    /// Reads a body, JSON or not.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut said = Self::default();
        if let Ok(value) = serde_json::from_slice::<Value>(body) {
            said.dig(&value, 0);
        }
        said
    }

    fn dig(&mut self, value: &Value, depth: usize) {
        if depth > 4 {
            return;
        }
        match value {
            Value::String(text) if self.message.is_none() && !text.is_empty() => {
                self.message = Some(text.clone());
            }
            // Lists of errors (FastAPI's `detail`, `errors`): the first one speaks.
            Value::Array(items) => {
                if let Some(first) = items.first() {
                    self.dig(first, depth + 1);
                }
            }
            Value::Object(map) => {
                for name in ["error", "errors", "detail"] {
                    if let Some(inner) = map.get(name).filter(|inner| !inner.is_null()) {
                        self.dig(inner, depth + 1);
                    }
                }
                for name in ["message", "msg"] {
                    if let (None, Some(inner)) = (&self.message, map.get(name)) {
                        self.dig(inner, depth + 1);
                    }
                }
                self.codes(map);
            }
            _ => {}
        }
    }

    fn codes(&mut self, map: &serde_json::Map<String, Value>) {
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let (code, kind) = (text(map.get("code")), text(map.get("type")));
        if self.code.is_none() {
            self.code = code.clone().or_else(|| kind.clone());
        }
        let inner = ["innererror", "inner_error"].iter().find_map(|name| text(map.get(*name)?.get("code")));
        self.words.extend([inner, code, kind].into_iter().flatten().map(|word| word.to_ascii_lowercase()));
        if self.param.is_none() {
            self.param = text(map.get("param")).or_else(|| {
                let place = map.get("loc")?.as_array()?;
                let steps: Vec<String> = place.iter().filter_map(|step| text(Some(step))).collect();
                (!steps.is_empty()).then(|| steps.join("."))
            });
        }
        let status = ["status", "status_code", "raw_status_code", "code"].iter().find_map(|name| {
            let number = text(map.get(*name))?.parse::<u16>().ok()?;
            (400..600).contains(&number).then_some(number)
        });
        self.status = self.status.or(status);
        self.moderated |=
            map.get("metadata").and_then(|data| data.get("reasons")).is_some_and(Value::is_array);
    }

    /// The kind the body's own words stand for.
    ///
    /// What a status cannot express (quota, context length, content filter) counts always; the rest only where the
    /// status does not say it already (an error inside a 200, or a bare 400 or 500).
    fn kind(&self, status: u16) -> Option<ErrorKind> {
        let has = |names: &[&str]| self.words.iter().any(|word| names.contains(&word.as_str()));
        if has(&[
            "insufficient_quota",
            "billing_not_active",
            "billing_hard_limit_reached",
            "insufficient_balance",
            "insufficient_credits",
        ]) {
            return Some(ErrorKind::QuotaExhausted);
        }
        let message = self.message.as_deref().unwrap_or_default().to_ascii_lowercase();
        let too_long = ["maximum context length", "context window", "context size"];
        if has(&["context_length_exceeded", "too_many_prompt_tokens", "exceed_context_size_error"])
            || (status < 500 && status != 429 && too_long.iter().any(|words| message.contains(words)))
        {
            return Some(ErrorKind::ContextLength);
        }
        if self.moderated
            || has(&[
                "content_filter",
                "content_policy_violation",
                "responsibleaipolicyviolation",
                "data_inspection_failed",
                "moderation_blocked",
            ])
        {
            return Some(ErrorKind::ContentFilter);
        }
        if !matches!(status, 0..=400 | 422 | 500) {
            return None;
        }
        let table: [(&[&str], ErrorKind); 7] = [
            (
                &["invalid_api_key", "authentication_error", "invalid_authentication", "unauthorized"],
                ErrorKind::Authentication,
            ),
            (&["permission_denied", "permission_error", "forbidden"], ErrorKind::PermissionDenied),
            (&["model_not_found", "deploymentnotfound", "not_found_error"], ErrorKind::NotFound),
            (
                &[
                    "rate_limit_exceeded",
                    "rate_limit_error",
                    "ratelimitreached",
                    "rate_limited",
                    "too_many_requests",
                ],
                ErrorKind::RateLimited,
            ),
            (
                &["overloaded", "overloaded_error", "engine_overloaded", "service_unavailable"],
                ErrorKind::Overloaded,
            ),
            (&["timeout", "request_timeout", "timeout_error"], ErrorKind::Timeout),
            (&["invalid_request_error", "tool_use_failed"], ErrorKind::InvalidRequest),
        ];
        let named = table.into_iter().find(|(names, _)| has(names)).map(|(_, kind)| kind);
        if status == 400 && named == Some(ErrorKind::InvalidRequest) { None } else { named }
    }
}

/// The error of an answer with an error status.
pub(super) fn from_http(
    provider: &str,
    model: &str,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
) -> LlmError {
    let said = Said::read(body);
    let kind = said.kind(status);
    let facts = ErrorFacts { kind, message: said.message, code: said.code, param: said.param };
    http_error(provider, model, status, headers, body, facts)
}

/// The error object inside an answer whose status promised success, whole (`headers` given) or streamed.
pub(super) fn inside(provider: &str, model: &str, headers: Option<&HeaderMap>, body: &[u8]) -> LlmError {
    let said = Said::read(body);
    let status = said.status.unwrap_or(200);
    let kind = match (said.kind(status), said.status) {
        (Some(kind), _) => kind,
        (None, Some(status)) => ErrorKind::from_status(status),
        (None, None) => ErrorKind::ProviderError,
    };
    let retryable = match said.status {
        Some(status) => headers::retryable_status(status) && kind != ErrorKind::QuotaExhausted,
        None => kind.is_transient(),
    };
    let message = said.message.unwrap_or_else(|| "the provider reported an error".to_owned());
    LlmError::new(kind, message).with(|detail| {
        place(detail, provider, model);
        detail.status_code = said.status.or(headers.map(|_| 200));
        detail.retryable = Some(headers.and_then(headers::should_retry).unwrap_or(retryable));
        detail.request_id = headers.and_then(headers::request_id);
        let status = said.status.unwrap_or(200);
        detail.retry_after = headers.and_then(|found| again::retry_after(status, found, SystemTime::now()));
        detail.code = said.code;
        detail.param = said.param;
        detail.body = Some(excerpt(body));
    })
}

/// An answer that is not what this wire sends.
pub(super) fn undecodable(provider: &str, model: &str, what: &str, body: &[u8]) -> LlmError {
    let start = body.trim_ascii_start();
    let hint = if start.starts_with(b"<") { "; it looks like HTML, so check the base URL" } else { "" };
    LlmError::new(ErrorKind::Decode, format!("{what}{hint}")).with(|detail| {
        place(detail, provider, model);
        detail.body = Some(excerpt(body)).filter(|body| !body.is_empty());
    })
}

/// Names provider and model where they are missing.
pub(super) fn place(detail: &mut ErrorDetail, provider: &str, model: &str) {
    detail.provider.get_or_insert_with(|| provider.to_owned());
    if detail.model.is_none() && !model.is_empty() {
        detail.model = Some(model.to_owned());
    }
}
