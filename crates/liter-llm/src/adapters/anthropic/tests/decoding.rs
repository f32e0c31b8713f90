//! Answers, errors and streams.

use bytes::Bytes;

use super::super::AnthropicMessages;
use super::{raw, target};
use crate::adapters::{Adapter, Frame};
use crate::core::chunk::LlmChunk;
use crate::core::content::{Block, BlockKind, Reasoning};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::fold::fold;
use crate::core::response::{FinishReason, LlmResponse};

fn decode(status: u16, headers: &[(&'static str, &str)], body: &str) -> Result<LlmResponse, LlmError> {
    let headers = headers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    let body = Bytes::from(body.to_owned());
    target(|target| AnthropicMessages.decode(status, &headers, &body, target))
}

#[test]
fn a_whole_answer_with_everything() {
    let tool = r#"{"type":"server_tool_use","id":"s1","name":"web_search","input":{"q": 1.0}}"#;
    let text = format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{tool},{{"type":"text","text":"a","citations":[{{"type":"char_location"}}]}},{{"type":"tool_use","id":"t","name":"f","input":{{"x": 1.50}},"caller":{{"type":"direct"}}}}],"stop_reason":"tool_use","stop_sequence":null,"container":{{"id":"c"}},"usage":{{"input_tokens":3,"cache_read_input_tokens":10,"cache_creation_input_tokens":20,"cache_creation":{{"ephemeral_1h_input_tokens":20}},"output_tokens":7,"output_tokens_details":{{"thinking_tokens":2}},"service_tier":"priority","inference_geo":null}}}}"#
    );
    let answer =
        decode(200, &[("request-id", "req_1"), ("anthropic-ratelimit-tokens-remaining", "5")], &text)
            .unwrap();
    assert_eq!(
        (answer.id.as_str(), answer.model.as_str(), answer.provider.as_str()),
        ("msg_1", "m", "anthropic")
    );
    assert_eq!(answer.finish_reason, FinishReason::ToolCalls);
    assert_eq!(answer.tool_calls()[0].arguments, r#"{"x": 1.50}"#);
    assert_eq!(
        answer.message.content()[0].kind,
        BlockKind::Opaque { origin: "anthropic".into(), json: raw(tool) }
    );
    assert_eq!(answer.message.content()[2].extra["caller"].get(), r#"{"type":"direct"}"#);
    let usage = answer.usage.clone().unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.reasoning_output_tokens), (33, 7, 2));
    assert_eq!((usage.cache_read_input_tokens, usage.cache_creation_input_tokens), (10, 20));
    assert_eq!(usage.extra["cache_creation"].get(), r#"{"ephemeral_1h_input_tokens":20}"#);
    assert_eq!(answer.service_tier.as_deref(), Some("priority"));
    assert_eq!(answer.request_id.as_deref(), Some("req_1"));
    assert_eq!(answer.rate_limits["anthropic-ratelimit-tokens-remaining"], "5");
    assert_eq!(answer.extra.keys().collect::<Vec<_>>(), ["container"]);
    assert_eq!(answer.raw, text.as_bytes());
}

#[test]
fn stop_reasons() {
    for (raw, expected) in [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("tool_use", FinishReason::ToolCalls),
        ("refusal", FinishReason::ContentFilter),
        ("pause_turn", FinishReason::Other),
        ("brand_new", FinishReason::Other),
    ] {
        let answer = decode(200, &[], &format!(r#"{{"content":[],"stop_reason":"{raw}"}}"#)).unwrap();
        assert_eq!(answer.finish_reason, expected);
        assert_eq!(answer.raw_finish_reason.as_deref(), Some(raw));
    }
}

#[test]
fn errors_have_their_kind() {
    // Written after Anthropic's documentation of errors; none of these but 400, 401 and 404 is recorded.
    for (status, kind, message, expected, retryable) in [
        (400, "invalid_request_error", "tools.0.name: Field required", ErrorKind::InvalidRequest, false),
        (
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 5 maximum",
            ErrorKind::ContextLength,
            false,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access",
            ErrorKind::QuotaExhausted,
            false,
        ),
        (
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy",
            ErrorKind::ContentFilter,
            false,
        ),
        (401, "authentication_error", "x", ErrorKind::Authentication, false),
        (402, "billing_error", "x", ErrorKind::QuotaExhausted, false),
        (403, "permission_error", "x", ErrorKind::PermissionDenied, false),
        (404, "not_found_error", "x", ErrorKind::NotFound, false),
        (413, "request_too_large", "x", ErrorKind::RequestTooLarge, false),
        (429, "rate_limit_error", "x", ErrorKind::RateLimited, true),
        (500, "api_error", "x", ErrorKind::ProviderError, true),
        (504, "timeout_error", "x", ErrorKind::Timeout, true),
        (529, "overloaded_error", "x", ErrorKind::Overloaded, true),
        (503, "something_new", "x", ErrorKind::Overloaded, true),
    ] {
        let body = format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_9"}}"#
        );
        let error = decode(status, &[("retry-after", "3")], &body).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (expected, retryable), "{kind}");
        let detail = error.detail();
        assert_eq!(detail.status_code, Some(status));
        assert_eq!((detail.code.as_deref(), detail.request_id.as_deref()), (Some(kind), Some("req_9")));
        assert_eq!(detail.retry_after, Some(3.0));
        // The same object inside a 200, whole or streamed, means the same.
        if kind != "something_new" {
            let whole = decode(200, &[], &body).unwrap_err();
            let streamed = stream(&[&body]).unwrap_err();
            for error in [whole, streamed] {
                assert_eq!((error.kind(), error.is_retryable()), (expected, retryable), "{kind}");
                assert_eq!(error.detail().status_code, Some(status), "{kind}");
            }
        }
    }
    let error = decode(
        400,
        &[],
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"tools.0.name: Field required"}}"#,
    );
    assert_eq!(error.unwrap_err().detail().param.as_deref(), Some("tools.0.name"));
    let error = decode(502, &[], "<html>Bad Gateway</html>").unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::ProviderError, true));
}

#[test]
fn what_is_no_answer_is_no_success() {
    for body in
        ["", "{}", "[]", r#"{"id":"x"}"#, r#"{"content":null}"#, r#"{"content":[{"type":"tool_use"}]}"#]
    {
        assert_eq!(decode(200, &[], body).unwrap_err().kind(), ErrorKind::Decode, "{body}");
    }
}

fn chunks_of(events: &[&str]) -> Result<Vec<LlmChunk>, LlmError> {
    let mut decoder = target(|target| AnthropicMessages.decoder(target));
    let mut chunks = Vec::new();
    for data in events {
        decoder.push(Frame::Event { name: "message", data }, &mut chunks)?;
    }
    decoder.finish(&mut chunks)?;
    assert!(decoder.is_done());
    Ok(chunks)
}

fn stream(events: &[&str]) -> Result<LlmResponse, LlmError> {
    chunks_of(events).map(|chunks| fold(&chunks))
}

const STOP: &str = r#"{"type":"message_stop"}"#;

#[test]
fn a_text_stream_yields_a_chunk_a_piece() {
    let chunks = chunks_of(&[
        r#"{"type":"message_start","message":{"id":"m1","model":"m","content":[],"usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":1,"service_tier":"standard"}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"sparkle_delta","text":{"x":1}}}"#,
        r#"{"type":"something_new","index":"x","more":[]}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"END"},"usage":{"output_tokens":9,"cache_read_input_tokens":null}}"#,
        STOP,
    ])
    .unwrap();
    assert_eq!(chunks.len(), 4);
    assert!(!chunks[0].has_content() && chunks[1].has_content());
    let answer = fold(&chunks);
    assert_eq!(answer.message.content(), [Block::text("Hello")]);
    assert_eq!(answer.finish_reason, FinishReason::Stop);
    assert_eq!(answer.extra["stop_sequence"].get(), r#""END""#);
    let usage = answer.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens), (7, 2, 9));
    assert_eq!(answer.service_tier.as_deref(), Some("standard"));
}

#[test]
fn streamed_blocks_end_as_in_a_whole_answer() {
    let answer = stream(&[
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s=="}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"server_tool_use","id":"s","name":"w","input":{},"caller":{"type":"direct"}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"q\": \"a"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"b\"}"}}"#,
        r#"{"type":"content_block_stop","index":2}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"compaction","content":null}}"#,
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"compaction_delta","content":"all"}}"#,
        r#"{"type":"content_block_stop","index":3}"#,
        r#"{"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"u","name":"f","input":{"a":1}}}"#,
        r#"{"type":"content_block_start","index":5,"content_block":{"type":"server_tool_use","id":"v","name":"w","input":{}}}"#,
        r#"{"type":"content_block_delta","index":5,"delta":{"type":"input_json_delta","partial_json":"{\"cut"}}"#,
        STOP,
    ])
    .unwrap();
    let opaque = |text: &str| BlockKind::Opaque { origin: "anthropic".into(), json: raw(text) };
    let blocks: Vec<&BlockKind> = answer.message.content().iter().map(|block| &block.kind).collect();
    assert!(matches!(blocks[0], BlockKind::Reasoning(Reasoning { text, signature: Some(signature), .. })
        if text == "hm" && signature == "s=="));
    assert_eq!(answer.tool_calls()[0].arguments, "{}");
    assert_eq!(
        *blocks[2],
        opaque(
            r#"{"type":"server_tool_use","id":"s","name":"w","input":{"q": "ab"},"caller":{"type":"direct"}}"#
        )
    );
    assert_eq!(*blocks[3], opaque(r#"{"type":"compaction","content":"all"}"#));
    assert_eq!(answer.tool_calls()[1].arguments, r#"{"a":1}"#);
    assert_eq!(*blocks[5], opaque(r#"{"type":"server_tool_use","id":"v","name":"w","input":"{\"cut"}"#));
}

#[test]
fn broken_streams_fail_with_their_kind() {
    let start = r#"{"type":"message_start","message":{"id":"m1","model":"m","content":[]}}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#;
    assert_eq!(stream(&[start, end]).unwrap_err().kind(), ErrorKind::StreamInterrupted);
    assert_eq!(stream(&[start, end, "[DONE]"]).unwrap_err().kind(), ErrorKind::StreamInterrupted);
    assert_eq!(stream(&[]).unwrap_err().kind(), ErrorKind::StreamInterrupted);
    assert_eq!(stream(&[start, r#"{"type":"#]).unwrap_err().kind(), ErrorKind::Decode);
    let stray =
        r#"{"type":"content_block_delta","index":7,"delta":{"type":"input_json_delta","partial_json":"{"}}"#;
    assert_eq!(stream(&[start, stray, STOP]).unwrap_err().kind(), ErrorKind::Decode);
    let error =
        stream(&[start, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#]);
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Overloaded, true));
    assert_eq!((error.detail().status_code, error.detail().message.as_str()), (Some(529), "Overloaded"));
}
