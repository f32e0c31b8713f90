//! Calls that keep state at the provider: they are not answered from a cache, and not sent twice.

use super::json::Extra;
use super::request::LlmRequest;

/// Vendor fields with which a call creates something at the provider or goes on from something kept there.
const STATE_FIELDS: [&str; 5] = ["background", "container", "conversation", "mcp_servers", "store"];

/// Whether vendor fields make a call create something at the provider or go on from something kept there.
#[must_use]
pub fn fields_keep_state(extra: &Extra) -> bool {
    STATE_FIELDS
        .iter()
        .any(|name| extra.get(*name).is_some_and(|value| !matches!(value.get(), "null" | "false")))
}

/// Whether a call creates something at the provider, goes on from something kept there, or lets the provider act
/// (its own tools): such a call is neither answered from the cache nor sent twice to be faster.
#[must_use]
pub fn keeps_state(request: &LlmRequest) -> bool {
    request.previous_response_id.is_some()
        || request.tools.iter().any(|tool| tool.is_vendor())
        || fields_keep_state(&request.extra)
}
