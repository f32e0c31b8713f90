//! What the headers of an answer say, the same for all wires: request id, rate limits, when to try again.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use indexmap::IndexMap;

use super::again;
use crate::core::error::{ErrorDetail, ErrorKind, LlmError};

/// The longest excerpt of an answer's body that an error keeps, in bytes.
pub const BODY_EXCERPT: usize = 4096;

/// The provider's id for the request: `x-request-id` (OpenAI and most others), `request-id` (Anthropic),
/// `apim-request-id` (Azure), `cf-ray` as the last resort.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    ["x-request-id", "request-id", "apim-request-id", "x-ms-request-id", "cf-ray"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .map(str::to_owned)
}

/// The rate-limit headers (`x-ratelimit-*`, `anthropic-ratelimit-*`, `retry-after*`), lower case, as they came.
#[must_use]
pub fn rate_limits(headers: &HeaderMap) -> IndexMap<String, String> {
    let told = |(name, _): &(&HeaderName, &HeaderValue)| {
        let name = name.as_str();
        name.starts_with("x-ratelimit-")
            || name.starts_with("anthropic-ratelimit-")
            || name.starts_with("ratelimit-")
            || name.starts_with("retry-after")
    };
    // Counted first: growing a map step by step costs more than filling it.
    let mut limits = IndexMap::with_capacity(headers.iter().filter(told).count());
    limits.extend(
        headers
            .iter()
            .filter(told)
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))),
    );
    limits
}

/// The provider's word on trying again: `x-should-retry: true | false`.
#[must_use]
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.to_str().ok()? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Whether a status may pass when the same call is made again: 408, 409, 429 and 5xx but 501 and 505.
#[must_use]
pub const fn retryable_status(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..=599) && !matches!(status, 501 | 505)
}

/// At most [`BODY_EXCERPT`] bytes of a body, as text.
#[must_use]
pub fn excerpt(body: &[u8]) -> String {
    if body.len() <= BODY_EXCERPT {
        return String::from_utf8_lossy(body).into_owned();
    }
    let mut end = BODY_EXCERPT - '…'.len_utf8();
    while end > 0 && body[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    format!("{}…", String::from_utf8_lossy(&body[..end]))
}

/// What an adapter learnt from an error body.
#[derive(Debug, Default)]
pub struct ErrorFacts {
    /// The kind, when the body says more than the status.
    pub kind: Option<ErrorKind>,
    /// The provider's message.
    pub message: Option<String>,
    /// The provider's code or type.
    pub code: Option<String>,
    /// The field at fault.
    pub param: Option<String>,
}

/// Builds the error of an HTTP answer from its status, headers and body and what the adapter read from the body.
///
/// Retryable is what [`retryable_status`] says, never for exhausted quota, and `x-should-retry` beats both.
#[must_use]
pub fn http_error(
    provider: &str,
    model: &str,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    facts: ErrorFacts,
) -> LlmError {
    let kind = facts.kind.unwrap_or_else(|| ErrorKind::from_status(status));
    let message = facts.message.filter(|message| !message.is_empty()).unwrap_or_else(|| {
        let text = excerpt(body);
        let first = text.lines().next().unwrap_or_default().trim();
        if first.is_empty() || first.len() > 300 {
            format!("the provider answered with status {status}")
        } else {
            first.to_owned()
        }
    });
    let retryable =
        should_retry(headers).unwrap_or(retryable_status(status) && kind != ErrorKind::QuotaExhausted);
    LlmError::from_parts(
        kind,
        ErrorDetail {
            message,
            provider: Some(provider.to_owned()),
            model: (!model.is_empty()).then(|| model.to_owned()),
            status_code: Some(status),
            request_id: request_id(headers),
            retry_after: again::retry_after(status, headers, SystemTime::now()),
            retryable: Some(retryable),
            code: facts.code,
            param: facts.param,
            body: Some(excerpt(body)).filter(|body| !body.is_empty()),
            ..ErrorDetail::default()
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_providers_word_wins() {
        let error = |status, pairs: &[(&'static str, &str)]| {
            http_error("p", "m", status, &headers(pairs), b"{}", ErrorFacts::default()).is_retryable()
        };
        assert!(error(503, &[]) && error(409, &[]) && error(529, &[]));
        assert!(!error(501, &[]) && !error(400, &[]) && !error(505, &[]));
        assert!(!error(503, &[("x-should-retry", "false")]));
        assert!(error(400, &[("x-should-retry", "true")]));
    }

    #[test]
    fn excerpts_are_cut_at_a_character() {
        let body = "ä".repeat(4000);
        let cut = excerpt(body.as_bytes());
        assert!(cut.ends_with('…') && cut.len() <= BODY_EXCERPT);
    }
}
