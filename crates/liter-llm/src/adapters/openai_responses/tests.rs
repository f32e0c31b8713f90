//! What recordings do not show: rebuilt items, unsupported fields, merged extras, odd streams, errors.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::super::{Adapter, Frame, Target};
use super::{OpenAiResponses, websocket_message};
use crate::core::chunk::{Delta, LlmChunk};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::fold::fold;
use crate::core::request::LlmRequest;
use crate::core::response::{FinishReason, LlmResponse};

#[test]
fn the_websocket_message_is_the_body_with_a_type_and_without_stream() {
    let message =
        websocket_message(br#"{"model":"m","stream":true,"input":[{"role":"user","content":"\u0041"}]}"#);
    assert_eq!(
        String::from_utf8(message.unwrap()).unwrap(),
        r#"{"type":"response.create","model":"m","input":[{"role":"user","content":"\u0041"}]}"#
    );
    assert_eq!(websocket_message(b"{}").unwrap(), br#"{"type":"response.create"}"#);
    assert!(websocket_message(br#"{"background":true}"#).is_err());
    assert!(websocket_message(b"[]").is_err());
}

static QUIRKS: std::sync::LazyLock<crate::adapters::Quirks> = std::sync::LazyLock::new(Default::default);

fn target(stream: bool) -> Target<'static> {
    Target { provider: "p", model: "m", quirks: &QUIRKS, stream }
}

fn try_encode(border: &Value) -> Result<(Value, Vec<String>), LlmError> {
    let request = LlmRequest::from_json(border.to_string().as_bytes())?;
    let encoded = OpenAiResponses.encode(&request, &target(false))?;
    let params = encoded.adjustments.into_iter().map(|adjustment| adjustment.param).collect();
    Ok((serde_json::from_slice(&encoded.body).unwrap(), params))
}

fn encode(border: Value) -> Value {
    let (body, adjusted) = try_encode(&border).unwrap();
    assert!(adjusted.is_empty(), "{adjusted:?}");
    body
}

#[test]
fn a_plain_request_has_nothing_unset() {
    let request = LlmRequest::new().with_prompt("hi").with_max_tokens(5).with_system("be brief");
    let encoded = OpenAiResponses.encode(&request, &target(true)).unwrap();
    assert_eq!(
        String::from_utf8(encoded.body).unwrap(),
        r#"{"model":"m","instructions":"be brief","input":[{"role":"user","content":"hi"}],"max_output_tokens":5,"stream":true}"#
    );
}

#[test]
fn all_fields_have_their_place() {
    let body = encode(json!({
        "prompt": "x", "temperature": 0.5, "top_p": 0.9, "parallel_tool_calls": false, "tool_choice": {"name": "f"},
        "tools": [
            {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true},
            {"type": "function", "function": {"name": "g"}},
            {"type": "web_search"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}},
        "reasoning_effort": "low", "reasoning_summary": "auto", "logprobs": true, "top_logprobs": 2,
        "user": "u", "metadata": {"a": "b"}, "service_tier": "flex", "previous_response_id": "resp_1",
        "extra": {"store": false, "text": {"verbosity": "low"}, "truncation": "auto"}}));
    assert_eq!(
        body,
        json!({
            "model": "m", "input": [{"role": "user", "content": "x"}], "temperature": 0.5, "top_p": 0.9,
            "parallel_tool_calls": false, "tool_choice": {"type": "function", "name": "f"},
            "tools": [
                {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true},
                {"type": "function", "name": "g", "parameters": {"type": "object", "properties": {}}},
                {"type": "web_search"}],
            "text": {"verbosity": "low",
                "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
            "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "top_logprobs": 2,
            "user": "u", "metadata": {"a": "b"}, "service_tier": "flex", "previous_response_id": "resp_1",
            "store": false, "truncation": "auto"})
    );
}

#[test]
fn extra_wins_over_typed_fields() {
    let body = encode(
        json!({"prompt": "x", "temperature": 0.5, "reasoning_effort": "low", "logprobs": true, "extra": {
        "temperature": 1, "model": "other", "include": ["a"], "reasoning": {"effort": "high"}, "text": {"verbosity": "low"}}}),
    );
    assert_eq!(
        body,
        json!({"model": "other", "input": [{"role": "user", "content": "x"}], "temperature": 1, "text": {"verbosity": "low"},
            "reasoning": {"effort": "high"}, "include": ["a", "message.output_text.logprobs"]})
    );
    assert!(try_encode(&json!({"prompt": "x", "extra": {"stream": true}})).is_err());
}

#[test]
fn what_the_api_lacks_is_refused_or_listed() {
    for (name, value) in [
        ("stop", json!(["a"])),
        ("seed", json!(1)),
        ("frequency_penalty", json!(0.1)),
        ("presence_penalty", json!(0.1)),
        ("top_k", json!(3)),
        ("reasoning_budget", json!(3)),
    ] {
        let error = try_encode(&json!({"prompt": "x", name: value})).unwrap_err();
        assert_eq!((error.kind(), error.detail().param.as_deref()), (ErrorKind::Unsupported, Some(name)));
        let (body, adjusted) =
            try_encode(&json!({"prompt": "x", name: value, "on_unsupported": "adjust"})).unwrap();
        assert_eq!((body.get(name), adjusted), (None, vec![name.to_owned()]));
    }
    let (body, _) = try_encode(&json!({"prompt": "x", "extra": {"top_k": 3}})).unwrap();
    assert_eq!(body["top_k"], 3);
}

#[test]
fn foreign_histories_become_items() {
    let (body, adjusted) = try_encode(&json!({
        "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}},
                {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
                {"type": "document", "source": {"type": "text", "data": "A"}, "title": "t.txt"},
                {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "calling"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1.0}, "caller": {"type": "direct"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "is_error": true, "content": [
                    {"type": "text", "text": "r"},
                    {"type": "image", "source": {"type": "url", "url": "https://x/z.png"}}]},
                {"type": "text", "text": "go on"}]},
            {"role": "assistant", "content": null, "annotations": [], "tool_calls": [
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "c2", "content": "done"},
            {"role": "assistant", "content": [{"type": "opaque", "origin": "anthropic", "json": "{}"},
                {"type": "reasoning", "text": "t", "encrypted": "e", "origin": "openai_responses"},
                {"type": "refusal", "text": "no"}]}]}))
    .unwrap();
    assert_eq!(body["instructions"], "a");
    assert_eq!(
        body["input"],
        json!([
            {"role": "user", "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:image/png;base64,QQ=="},
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                {"type": "input_file", "filename": "document.pdf", "file_data": "data:application/pdf;base64,QQ=="},
                {"type": "input_file", "file_url": "https://x/y.pdf"},
                {"type": "input_file", "filename": "t.txt", "file_data": "data:text/plain;base64,QQ=="},
                {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}]},
            {"role": "assistant", "content": "calling"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1.0}"},
            {"type": "function_call_output", "call_id": "c1", "output": [
                {"type": "input_text", "text": "r"}, {"type": "input_image", "image_url": "https://x/z.png"}]},
            {"role": "user", "content": "go on"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c2", "output": "done"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}], "encrypted_content": "e"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}])
    );
    assert_eq!(adjusted, ["cache_control", "messages", "caller", "is_error", "messages"]);
    let misplaced = json!({"messages": [{"role": "assistant", "content": [
        {"type": "image", "source": {"type": "url", "url": "u"}, "detail": "low"}]}]});
    assert_eq!(try_encode(&misplaced).unwrap_err().kind(), ErrorKind::Unsupported);
}

fn decode(status: u16, body: &str) -> Result<LlmResponse, LlmError> {
    OpenAiResponses.decode(status, &HeaderMap::new(), &Bytes::from(body.to_owned()), &target(false))
}

#[test]
fn an_answer_keeps_what_is_its_own_and_drops_echoes() {
    let response = decode(200, r#"{"id":"r","model":"m","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},
        "output":[{"type":"message","id":"a","status":"incomplete","role":"assistant","phase":"commentary","content":[
            {"type":"output_text","text":"x","annotations":[{"type":"url_citation","n":1.0}],"logprobs":[{"token":"x"}]},
            {"type":"refusal","refusal":"no"}]},{"type":"future_call","id":"f","n": 1.0}],
        "usage":{"input_tokens":3,"output_tokens":4.0,"total_tokens":7,"input_tokens_details":{"cached_tokens":1,"cache_write_tokens":2,"x":5},
            "output_tokens_details":{"reasoning_tokens":2},"cost":0.10},
        "service_tier":"flex","instructions":"i","tools":[],"metadata":{},"temperature":1.0,"created_at":5,"billing":{"payer":"d"},"error":null}"#)
    .unwrap();
    assert_eq!(
        (response.finish_reason, response.raw_finish_reason.as_deref()),
        (FinishReason::Length, Some("max_output_tokens"))
    );
    assert_eq!((response.text().as_str(), response.refusal()), ("x", Some("no")));
    assert_eq!(
        serde_json::to_string(&response.extra).unwrap(),
        r#"{"created_at":5,"billing":{"payer":"d"}}"#
    );
    assert_eq!(
        serde_json::to_string(&response.usage).unwrap(),
        r#"{"input_tokens":3,"output_tokens":4,"cache_read_input_tokens":1,"cache_creation_input_tokens":2,"reasoning_output_tokens":2,"extra":{"cost":0.10,"input_tokens_details":{"x":5}}}"#
    );
    assert_eq!(response.logprobs.as_ref().unwrap().get(), r#"[{"token":"x"}]"#);
    let request = LlmRequest::new().with_message(response.message);
    let body = OpenAiResponses.encode(&request, &target(false)).unwrap().body;
    assert_eq!(
        String::from_utf8(body).unwrap(),
        r#"{"model":"m","input":[{"type":"message","id":"a","status":"incomplete","phase":"commentary","role":"assistant","content":[{"type":"output_text","text":"x","annotations":[{"type":"url_citation","n":1.0}]},{"type":"refusal","refusal":"no"}]},{"type":"future_call","id":"f","n": 1.0}]}"#
    );
}

#[test]
fn failures_are_typed() {
    for (status, body, kind, code, retryable) in [
        (
            200,
            r#"{"id":"r","status":"failed","error":{"code":"server_error","message":"x"},"output":[]}"#,
            ErrorKind::ProviderError,
            "server_error",
            true,
        ),
        (
            200,
            r#"{"status":"failed","error":{"code":"rate_limit_exceeded","message":"x"}}"#,
            ErrorKind::RateLimited,
            "rate_limit_exceeded",
            true,
        ),
        (
            200,
            r#"{"status":"failed","error":{"code":"invalid_image","message":"x"}}"#,
            ErrorKind::InvalidRequest,
            "invalid_image",
            false,
        ),
        (
            200,
            r#"{"error":{"message":"x","type":"invalid_request_error","code":"odd"}}"#,
            ErrorKind::InvalidRequest,
            "odd",
            false,
        ),
        (200, r#"{"error":{"message":"x","code":502}}"#, ErrorKind::ProviderError, "502", true),
        (
            429,
            r#"{"error":{"message":"x","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            ErrorKind::QuotaExhausted,
            "insufficient_quota",
            false,
        ),
        (
            429,
            r#"{"error":{"message":"x","type":"tokens","code":"rate_limit_exceeded"}}"#,
            ErrorKind::RateLimited,
            "rate_limit_exceeded",
            true,
        ),
        (
            400,
            r#"{"error":{"message":"x","code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            ErrorKind::ContentFilter,
            "content_filter",
            false,
        ),
        (
            404,
            r#"{"error":{"message":"x","code":"DeploymentNotFound"}}"#,
            ErrorKind::NotFound,
            "DeploymentNotFound",
            false,
        ),
        (
            503,
            r#"{"error":{"message":"x","type":"service_unavailable_error"}}"#,
            ErrorKind::Overloaded,
            "service_unavailable_error",
            true,
        ),
    ] {
        let error = decode(status, body).unwrap_err();
        assert_eq!((error.kind(), error.detail().code.as_deref()), (kind, Some(code)), "{body}");
        assert_eq!((error.is_retryable(), error.detail().message.as_str()), (retryable, "x"), "{body}");
    }
    for body in ["<html>no</html>", "[]", "{}", r#"{"choices":[]}"#, r#"{"output":3}"#, "", "{\"a\""] {
        assert_eq!(decode(200, body).unwrap_err().kind(), ErrorKind::Decode, "{body}");
    }
    assert_eq!(decode(502, "<html>bad gateway</html>").unwrap_err().kind(), ErrorKind::ProviderError);
    let cancelled = decode(200, r#"{"status":"cancelled","output":[]}"#).unwrap();
    assert_eq!(
        (cancelled.finish_reason, cancelled.raw_finish_reason.as_deref()),
        (FinishReason::Other, Some("cancelled"))
    );
    let partial = decode(
        200,
        r#"{"status":"failed","error":{"message":"x"},"output":[{"type":"message","content":[{"type":"output_text","text":"half"}]}]}"#,
    );
    assert_eq!(partial.unwrap_err().detail().partial.as_ref().unwrap().text(), "half");
}

fn stream(events: &[Value]) -> Result<Vec<LlmChunk>, LlmError> {
    let mut decoder = OpenAiResponses.decoder(&target(true));
    let mut chunks = Vec::new();
    for event in events {
        decoder.push(Frame::Text(&event.to_string()), &mut chunks)?;
    }
    decoder.finish(&mut chunks)?;
    Ok(chunks)
}

#[test]
fn interleaved_items_and_parts_end_in_their_order() {
    let message = |id: &str, texts: &[&str]| {
        let parts: Vec<Value> =
            texts.iter().map(|text| json!({"type": "output_text", "text": text, "annotations": [{"type": "file_path", "t": text}]})).collect();
        json!({"type": "message", "id": id, "status": "completed", "role": "assistant", "content": parts})
    };
    let delta = |item: u64, part: u64, text: &str| json!({"type": "response.output_text.delta", "output_index": item, "content_index": part, "delta": text});
    let whole = json!({"id": "r", "model": "m", "status": "completed", "output": [message("a", &["one", "two"]), message("b", &["three"]),
        {"type": "message", "id": "c", "content": []}]});
    let chunks = stream(&[
        json!({"type": "response.created", "response": {"id": "r", "model": "m"}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "a", "status": "in_progress", "role": "assistant", "content": []}}),
        delta(0, 0, "on"),
        json!({"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "id": "b", "status": "in_progress", "role": "assistant", "content": []}}),
        delta(1, 0, "three"),
        delta(0, 0, "e"),
        delta(0, 1, "two"),
        json!({"type": "response.output_item.done", "output_index": 1, "item": message("b", &["three"])}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": message("a", &["one", "two"])}),
        json!({"type": "response.some_day", "delta": {"x": 1}}),
        json!({"type": "response.completed", "response": whole}),
        json!({"type": "response.output_text.delta", "delta": "late"}),
    ])
    .unwrap();
    assert_eq!(fold(&chunks), decode(200, &whole.to_string()).unwrap());
    // What came as deltas is not sent again where only annotations were missing.
    assert!(chunks.iter().any(|chunk| matches!(&chunk.delta, Some(Delta::Citation(_)))));
}

#[test]
fn sparse_streams_are_understood() {
    let chunks = stream(&[
        json!({"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": "a"}),
        json!({"type": "response.reasoning_summary_text.delta", "summary_index": 1, "delta": "b"}),
        json!({"type": "response.refusal.delta", "delta": "no"}),
        json!({"type": "response.refusal.done", "refusal": "no, sorry"}),
        json!({"type": "response.output_item.added", "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}}),
        json!({"type": "response.function_call_arguments.delta", "delta": "{"}),
        json!({"type": "response.function_call_arguments.done", "arguments": "{}"}),
        json!({"type": "response.completed", "response": {"status": "completed"}}),
    ])
    .unwrap();
    let answer = fold(&chunks);
    assert_eq!((answer.reasoning().as_str(), answer.refusal()), ("a\n\nb", Some("no, sorry")));
    assert_eq!((answer.tool_calls()[0].id, answer.tool_calls()[0].arguments), ("c", "{}"));
    assert_eq!(answer.finish_reason, FinishReason::ToolCalls);
}

#[test]
fn errors_in_streams_are_typed() {
    for (event, kind) in [
        (
            json!({"type": "error", "code": "rate_limit_exceeded", "message": "x", "param": null}),
            ErrorKind::RateLimited,
        ),
        (
            json!({"type": "error", "status": 400, "error": {"code": "previous_response_not_found", "message": "x"}}),
            ErrorKind::InvalidRequest,
        ),
        (
            json!({"type": "error", "error": {"code": "websocket_connection_limit_reached", "message": "x"}}),
            ErrorKind::Connection,
        ),
        (json!({"error": {"message": "x", "type": "server_error"}}), ErrorKind::ProviderError),
        (
            json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "context_length_exceeded", "message": "x"}}}),
            ErrorKind::ContextLength,
        ),
    ] {
        let error = stream(&[event]).unwrap_err();
        assert_eq!((error.kind(), error.detail().message.as_str()), (kind, "x"));
    }
    let delta = json!({"type": "response.output_text.delta", "delta": "x"});
    assert_eq!(stream(&[delta]).unwrap_err().kind(), ErrorKind::StreamInterrupted);
    let mut decoder = OpenAiResponses.decoder(&target(true));
    let mut chunks = Vec::new();
    assert!(decoder.push(Frame::Text("[DONE]"), &mut chunks).is_ok() && !decoder.is_done());
    assert_eq!(decoder.push(Frame::Text("{nonsense"), &mut chunks).unwrap_err().kind(), ErrorKind::Decode);
    let limit = json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}});
    assert_eq!(fold(&stream(&[limit]).unwrap()).finish_reason, FinishReason::ContentFilter);
}
