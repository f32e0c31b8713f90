//! Recorded facts beside what an answer or an error states.

use std::collections::BTreeMap;

use liter_llm::{BlockKind, ErrorKind, LlmError, LlmResponse, RawJson};
use serde_json::{Value, json};

use super::Record;

/// The recorded facts as this answer states them.
fn facts_of(response: &LlmResponse) -> BTreeMap<&'static str, Value> {
    let mut calls: Vec<Value> = response
        .tool_calls()
        .iter()
        .map(|call| {
            let arguments = serde_json::from_str(call.arguments).unwrap_or_else(|_| json!(call.arguments));
            json!({"id": call.id, "name": call.name, "arguments": arguments})
        })
        .collect();
    let (mut encrypted, mut citations) = (0, 0);
    for block in response.message.content() {
        match &block.kind {
            BlockKind::Opaque { json, .. } => {
                let item: Value = serde_json::from_str(json.get()).unwrap();
                if item["type"] == "custom_tool_call" {
                    calls.push(
                        json!({"id": item["call_id"], "name": item["name"], "arguments": item["input"]}),
                    );
                }
            }
            BlockKind::Reasoning(reasoning) => {
                encrypted += usize::from(reasoning.encrypted.as_ref().is_some_and(|text| !text.is_empty()));
            }
            BlockKind::Text { citations: Some(list), .. } => {
                citations += list.read::<Vec<RawJson>>().unwrap().len();
            }
            _ => {}
        }
    }
    let usage = response.usage.as_ref().map_or(Value::Null, |usage| {
        json!([
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.reasoning_output_tokens
        ])
    });
    BTreeMap::from([
        ("id", json!(response.id)),
        ("model", json!(response.model)),
        ("text", json!(response.text())),
        ("refusal", json!(response.refusal())),
        ("tool_calls", json!(calls)),
        ("encrypted_reasoning_items", json!(encrypted)),
        ("annotations", json!(citations)),
        ("usage", usage),
    ])
}

/// What the recording expects, in the same form.
fn facts_expected(expected: &Value) -> BTreeMap<&'static str, Value> {
    let calls: Vec<Value> = expected["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            let given = call.get("arguments").or_else(|| call.get("input")).cloned().unwrap_or(Value::Null);
            let arguments = match (&given, call.get("custom")) {
                (Value::String(text), None) => serde_json::from_str(text).unwrap_or(given),
                _ => given,
            };
            json!({"id": call["id"], "name": call["name"], "arguments": arguments})
        })
        .collect();
    let usage = match &expected["usage"] {
        Value::Null => Value::Null,
        usage => {
            let count = |name: &str| usage[name].as_u64().unwrap_or(0);
            json!([count("input"), count("output"), count("cached"), count("reasoning")])
        }
    };
    let plain = |name: &str| expected[name].clone();
    BTreeMap::from([
        ("id", plain("id")),
        ("model", plain("model")),
        ("text", plain("text")),
        ("refusal", plain("refusal")),
        ("tool_calls", json!(calls)),
        ("encrypted_reasoning_items", plain("encrypted_reasoning_items")),
        ("annotations", plain("annotations")),
        ("usage", usage),
    ])
}

/// Differences between answer and recording, one line each.
pub(super) fn compare(record: &Record, response: &LlmResponse) -> Vec<String> {
    let (got, want) = (facts_of(response), facts_expected(&record.expected));
    let mut wrong: Vec<String> = want
        .iter()
        .filter(|(name, value)| got[*name] != **value)
        .map(|(name, value)| format!("{}: {name}: expected {value}, got {}", record.id, got[name]))
        .collect();
    let summary = record.expected["reasoning_summary"].as_str().unwrap_or_default();
    // The recording joins several summaries in its own way.
    let squeeze = |text: &str| text.split_whitespace().collect::<String>();
    if !summary.is_empty() && squeeze(&response.reasoning()) != squeeze(summary) {
        wrong.push(format!("{}: reasoning {:?} is not {summary:?}", record.id, response.reasoning()));
    }
    let status = record.expected["status"].as_str().unwrap_or_default();
    let reason = record.expected["incomplete_reason"].as_str();
    let finish = match (status, reason) {
        ("completed" | "complete", _) if got["tool_calls"] == json!([]) => "stop",
        ("completed" | "complete", _) => "tool_calls",
        (_, Some("max_output_tokens")) => "length",
        (_, Some("content_filter")) => "content_filter",
        _ => "other",
    };
    let spoken = serde_json::to_value(response.finish_reason).unwrap();
    if spoken != finish || response.raw_finish_reason.as_deref() != Some(reason.unwrap_or(status)) {
        wrong.push(format!(
            "{}: finish {spoken} {:?}, expected {finish}",
            record.id, response.raw_finish_reason
        ));
    }
    wrong
}

/// Differences between an error and the recording, one line each.
pub(super) fn compare_error(record: &Record, error: &LlmError) -> Vec<String> {
    let want = &record.expected["error"];
    let detail = error.detail();
    let mut wrong = Vec::new();
    let mut check = |name: &str, got: Value, want: &Value| {
        if !want.is_null() && got != *want {
            wrong.push(format!("{}: error {name}: expected {want}, got {got}", record.id));
        }
    };
    check("status", json!(detail.status_code), &want["status"]);
    check("message", json!(detail.message), &want["message"]);
    check("code", json!(detail.code), &want["code"]);
    check("param", json!(detail.param), &want["param"]);
    let kind = match (want["sdk_exception"].as_str().unwrap(), want["code"].as_str()) {
        (_, Some("context_length_exceeded")) => ErrorKind::ContextLength,
        ("openai.AuthenticationError", _) => ErrorKind::Authentication,
        ("openai.BadRequestError", _) => ErrorKind::InvalidRequest,
        (other, _) => panic!("{}: no kind for {other}", record.id),
    };
    check("kind", json!(error.kind()), &json!(kind));
    wrong
}
