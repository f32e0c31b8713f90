//! Odd requests: whatever is sent gets an answer, never a dropped connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use serde_json::{Value, json};
use wire::{ANTHROPIC, KEY, connect, read, send, sim};

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(k, v)| places(v, &format!("{at}/{k}"), out)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), out))
        }
        _ => {}
    }
}

#[test]
fn every_field_may_be_anything() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"$ref": "#"}}, "n": {"type": "integer", "minimum": 1, "multipleOf": 3}, "s": {"enum": ["x"]}}, "required": ["a", "n", "s"]});
    let chat = json!({
        "model": "gpt-5", "stop": ["x"], "n": 2, "logprobs": true, "top_logprobs": 2, "service_tier": "flex", "stream": false,
        "reasoning_effort": "low", "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}], "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "é"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "r"}],
    });
    let responses = json!({
        "model": "gpt-5", "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low", "summary": "auto"}, "stream": true,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": schema}}, "tools": [{"type": "function", "name": "f", "parameters": schema}],
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "f"}, {"type": "input_file", "file_data": "data:application/pdf;base64,aGk="}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": "r"},
            {"type": "reasoning", "id": "r", "summary": []}],
    });
    let messages = json!({
        "model": "claude", "max_tokens": 3000, "stop_sequences": ["x"], "stream": true, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}], "output_config": {"effort": "low", "format": {"schema": schema}},
        "tools": [{"name": "f", "input_schema": schema}], "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "messages": [{"role": "user", "content": [{"type": "document", "title": "t", "source": {"type": "text", "media_type": "text/plain", "data": "Ä. B."}, "citations": {"enabled": true}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]}]}],
    });
    let embeddings = json!({"model": "text-embedding-3-small", "input": ["a"], "dimensions": 3, "encoding_format": "base64"});
    let sim = sim(&[]);
    let mut stream = connect(&sim);
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("日本語 ".repeat(30)),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"type": "object"}),
    ];
    for (path, body) in [
        ("/openai/v1/chat/completions", chat),
        ("/openai/v1/responses", responses),
        ("/anthropic/v1/messages", messages),
        ("/openai/v1/embeddings", embeddings),
    ] {
        let mut all = Vec::new();
        places(&body, "", &mut all);
        for place in all {
            for value in &odd {
                let mut changed = body.clone();
                *changed.pointer_mut(&place).unwrap() = value.clone();
                let headers = [KEY, ANTHROPIC[0], ANTHROPIC[1]];
                send(&mut stream, "POST", path, &headers, &changed.to_string());
                let answer = read(&mut stream);
                assert!(
                    matches!(answer.status, 200 | 400 | 404),
                    "{path} {place} {value}: {}",
                    answer.status
                );
            }
        }
    }
}
