//! Errors by kind, the laws of streams, and the odd forms in which hosts stream tool calls.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::OpenAiChat;
use crate::adapters::{Adapter, Frame, Quirks, Target};
use crate::core::chunk::LlmChunk;
use crate::core::content::BlockKind;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::fold::fold;
use crate::core::response::{FinishReason, LlmResponse};

fn decode(status: u16, body: &str) -> Result<LlmResponse, LlmError> {
    let quirks = Quirks::default();
    let target = Target { provider: "p", model: "m", quirks: &quirks, stream: false };
    OpenAiChat.decode(status, &HeaderMap::new(), &Bytes::copy_from_slice(body.as_bytes()), &target)
}

fn stream(frames: &[&str]) -> (Vec<LlmChunk>, Result<bool, LlmError>) {
    let quirks = Quirks::default();
    let mut decoder =
        OpenAiChat.decoder(&Target { provider: "p", model: "m", quirks: &quirks, stream: true });
    let mut chunks = Vec::new();
    for data in frames {
        if let Err(error) = decoder.push(Frame::Event { name: "message", data }, &mut chunks) {
            return (chunks, Err(error));
        }
    }
    let done = decoder.is_done();
    let outcome = decoder.finish(&mut chunks).map(|()| done);
    (chunks, outcome)
}

fn delta(delta: &Value) -> String {
    json!({"choices": [{"index": 0, "delta": delta}]}).to_string()
}

const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

#[test]
fn errors_have_their_kind() {
    let body =
        |kind: &str, code: &str| json!({"error": {"message": "no", "type": kind, "code": code}}).to_string();
    let inner = json!({"error": {"message": "filtered", "type": null, "param": "prompt", "code": "other", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}}});
    let table = [
        (429, body("insufficient_quota", "insufficient_quota"), ErrorKind::QuotaExhausted, false),
        (429, body("requests", "rate_limit_exceeded"), ErrorKind::RateLimited, true),
        (429, String::new(), ErrorKind::RateLimited, true),
        (400, body("invalid_request_error", "context_length_exceeded"), ErrorKind::ContextLength, false),
        (400, body("invalid_request_error", "content_filter"), ErrorKind::ContentFilter, false),
        (400, inner.to_string(), ErrorKind::ContentFilter, false),
        (404, body("invalid_request_error", "model_not_found"), ErrorKind::NotFound, false),
        (400, body("invalid_request_error", "model_not_found"), ErrorKind::NotFound, false),
        (401, body("invalid_request_error", "invalid_api_key"), ErrorKind::Authentication, false),
        (400, body("invalid_request_error", "bad"), ErrorKind::InvalidRequest, false),
        (413, "<html>too large</html>".to_owned(), ErrorKind::RequestTooLarge, false),
        (500, body("server_error", "x"), ErrorKind::ProviderError, true),
        (503, body("server_error", "x"), ErrorKind::Overloaded, true),
        (529, body("overloaded_error", "x"), ErrorKind::Overloaded, true),
        (502, "upstream broke".to_owned(), ErrorKind::ProviderError, true),
    ];
    for (status, body, kind, retryable) in table {
        let error = decode(status, &body).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{status} {body}");
        let detail = error.detail();
        assert_eq!(
            (detail.status_code, detail.provider.as_deref(), detail.model.as_deref()),
            (Some(status), Some("p"), Some("m"))
        );
    }
    assert_eq!(decode(502, "upstream broke").unwrap_err().detail().message, "upstream broke");
    let detail = decode(400, &inner.to_string()).unwrap_err();
    assert_eq!(
        (detail.detail().message.as_str(), detail.detail().param.as_deref()),
        ("filtered", Some("prompt"))
    );
}

#[test]
fn an_error_inside_a_success_is_an_error() {
    let error = decode(200, r#"{"error":{"message":"slow down","code":429}}"#).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::RateLimited, true));
    let error = decode(200, r#"{"error":{"message":"out","code":"insufficient_quota"}}"#).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::QuotaExhausted, false));
    for nonsense in ["<html>", "{}", r#"{"choices":[]}"#, ""] {
        assert_eq!(decode(200, nonsense).unwrap_err().kind(), ErrorKind::Decode, "{nonsense}");
    }
}

#[test]
fn streams_end_by_their_terminator() {
    let text = delta(&json!({"content": "a"}));
    let (chunks, outcome) = stream(&[&text]);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::StreamInterrupted);
    assert_eq!(fold(&chunks).message.text(), "a");
    assert_eq!(stream(&[]).1.unwrap_err().kind(), ErrorKind::StreamInterrupted);
    assert_eq!(stream(&["[DONE]"]).1.unwrap_err().kind(), ErrorKind::StreamInterrupted);
    // Some hosts close without the last line.
    let (chunks, outcome) = stream(&[&text, FINISH]);
    assert!(!outcome.unwrap());
    let answer = fold(&chunks);
    assert_eq!((answer.message.text().as_str(), answer.finish_reason), ("a", FinishReason::Stop));
    assert!(stream(&[&text, FINISH, "[DONE]"]).1.unwrap());
}

#[test]
fn an_error_in_a_stream_keeps_what_came_before() {
    let text = delta(&json!({"content": "a"}));
    let failure = r#"{"error":{"message":"busy","type":"overloaded_error"}}"#;
    let (chunks, outcome) = stream(&[&text, failure]);
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Overloaded, true));
    assert_eq!(fold(&chunks).message.text(), "a");
    let (_, outcome) = stream(&[&text, "{\"choi"]);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Decode);
}

/// The calls of a stream as id, name and arguments.
fn calls(deltas: &[Value]) -> Vec<(String, String, String)> {
    let mut frames: Vec<String> = deltas.iter().map(|call| delta(&json!({"tool_calls": call}))).collect();
    frames.extend([FINISH.to_owned(), "[DONE]".to_owned()]);
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    let (chunks, outcome) = stream(&frames);
    assert!(outcome.unwrap());
    let answer = fold(&chunks);
    let call = |kind: &BlockKind| match kind {
        BlockKind::ToolCall { id, name, arguments } => (id.clone(), name.clone(), arguments.clone()),
        other => panic!("{other:?}"),
    };
    answer.message.content().iter().map(|block| call(&block.kind)).collect()
}

fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
    (id.to_owned(), name.to_owned(), arguments.to_owned())
}

#[test]
fn tool_calls_in_all_forms() {
    let both = vec![call("a", "f", r#"{"x":1}"#), call("b", "g", "{}")];
    let usual = [
        json!([{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        json!([{"index": 0, "function": {"arguments": "{\"x\""}}]),
        json!([{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}]),
        json!([{"index": 0, "function": {"arguments": ":1}"}}, {"index": 1, "function": {"arguments": "}"}}]),
    ];
    assert_eq!(calls(&usual), both);
    let index_0_always = [
        json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{\"x\":1}"}}]),
        json!([{"index": 0, "id": "b", "function": {"name": "g", "arguments": "{"}}]),
        json!([{"index": 0, "function": {"arguments": "}"}}]),
    ];
    assert_eq!(calls(&index_0_always), both);
    let no_index = [
        json!([{"id": "a", "function": {"name": "f", "arguments": "{\"x\""}}]),
        json!([{"function": {"arguments": ":1}"}}]),
        json!([{"id": "b", "function": {"name": "g", "arguments": "{}"}}]),
    ];
    assert_eq!(calls(&no_index), both);
    let objects = [json!([
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
        {"index": 1, "id": "b", "function": {"name": "g", "arguments": {}}}])];
    assert_eq!(calls(&objects), both);
}
