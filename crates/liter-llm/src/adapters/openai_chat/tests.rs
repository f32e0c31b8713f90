//! What recordings do not show: the bytes sent to each host, errors, odd streams; recordings are in `tests/recorded_chat.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod broken;
mod hosts;
mod replay;
mod requests;
mod shapes;

use serde_json::Value;

use super::OpenAiChat;
use crate::adapters::{Adapter, Target, WireRequest};
use crate::core::error::LlmError;
use crate::core::request::LlmRequest;
use crate::providers;

/// The request in its border form as the host of a row gets it.
fn encode(provider: &str, border: &Value, stream: bool) -> Result<WireRequest, LlmError> {
    encode_request(provider, &LlmRequest::from_json(border.to_string().as_bytes())?, stream)
}

fn encode_request(provider: &str, request: &LlmRequest, stream: bool) -> Result<WireRequest, LlmError> {
    let quirks = &providers::row(provider).unwrap().quirks;
    OpenAiChat.encode(request, &Target { provider, model: "m", quirks, stream })
}

fn text(wire: &WireRequest) -> &str {
    std::str::from_utf8(&wire.body).unwrap()
}

/// What follows the messages in the body of a request with the prompt `x`.
fn tail(wire: &WireRequest) -> &str {
    let start = r#"{"model":"m","messages":[{"role":"user","content":"x"}]"#;
    text(wire).strip_prefix(start).unwrap_or_else(|| panic!("{}", text(wire)))
}

fn params(wire: &WireRequest) -> Vec<&str> {
    wire.adjustments.iter().map(|adjustment| adjustment.param.as_str()).collect()
}
