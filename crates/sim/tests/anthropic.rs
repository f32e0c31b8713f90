//! Anthropic Messages and its token count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use serde_json::{Value, json};
use wire::{ANTHROPIC, messages, request, sim};

fn ask(text: &str) -> Value {
    json!({"model": "claude-sonnet-4-5", "max_tokens": 4000, "messages": [{"role": "user", "content": text}]})
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn weather() -> Value {
    json!([{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}])
}

/// Folds a stream's events to the content blocks.
fn folded(events: &[Value]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut json_text = String::new();
    for event in events {
        let delta = &event["delta"];
        match (event["type"].as_str().unwrap(), delta["type"].as_str().unwrap_or("")) {
            ("content_block_start", _) => {
                blocks.push(event["content_block"].clone());
                json_text.clear();
            }
            ("content_block_delta", kind) => {
                let block = blocks.last_mut().unwrap();
                let mut append = |name: &str| {
                    let joined =
                        format!("{}{}", block[name].as_str().unwrap_or(""), delta[name].as_str().unwrap());
                    block[name] = json!(joined);
                };
                match kind {
                    "text_delta" => append("text"),
                    "thinking_delta" => append("thinking"),
                    "signature_delta" => append("signature"),
                    "input_json_delta" => json_text.push_str(delta["partial_json"].as_str().unwrap()),
                    "citations_delta" => {
                        block["citations"].as_array_mut().unwrap().push(delta["citation"].clone())
                    }
                    other => panic!("{other}"),
                }
            }
            ("content_block_stop", _) if !json_text.is_empty() => {
                blocks.last_mut().unwrap()["input"] = serde_json::from_str(&json_text).unwrap()
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn whole_and_streamed_are_the_same() {
    let sim = sim(&[]);
    let document = json!({"type": "document", "title": "Colours", "source": {"type": "text", "media_type": "text/plain", "data": "Grass is green. Sky is blue."}, "citations": {"enabled": true}});
    for body in [
        ask("Explain the CAP theorem"),
        with(ask("the weather in Paris"), json!({"tools": weather()})),
        with(ask("Think"), json!({"thinking": {"type": "enabled", "budget_tokens": 2000}})),
        with(ask("Think"), json!({"thinking": {"type": "adaptive", "display": "omitted"}})),
        with(
            ask(""),
            json!({"messages": [{"role": "user", "content": [document, {"type": "text", "text": "What colour?"}]}]}),
        ),
        with(
            ask("Make Ada"),
            json!({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}}}),
        ),
    ] {
        let whole = messages(&sim, &body);
        assert_eq!(whole.status, 200, "{}", whole.text());
        assert!(
            whole.header("request-id").is_some()
                && whole.header("anthropic-ratelimit-requests-remaining").is_some()
        );
        let whole = whole.json();
        let stream = messages(&sim, &with(body.clone(), json!({"stream": true}))).events();
        assert_eq!(json!(folded(&stream)), whole["content"], "{body}");
        let end = &stream[stream.len() - 2];
        assert_eq!(
            (&end["delta"]["stop_reason"], &end["usage"]["output_tokens"]),
            (&whole["stop_reason"], &whole["usage"]["output_tokens"])
        );
        assert_eq!(
            (&stream[0]["type"], &stream.last().unwrap()["type"]),
            (&json!("message_start"), &json!("message_stop"))
        );
        assert!(stream.iter().any(|e| e["type"] == "ping"));
    }
}

#[test]
fn a_tool_turn_with_thinking_and_a_changed_signature() {
    let sim = sim(&[]);
    let body = with(
        ask("the weather in Paris"),
        json!({"tools": weather(), "thinking": {"type": "enabled", "budget_tokens": 2000}}),
    );
    let first = messages(&sim, &body).json();
    let content = first["content"].clone();
    assert_eq!(
        (&content[0]["type"], &content[1]["input"], &first["stop_reason"]),
        (&json!("thinking"), &json!({"city": "Paris"}), &json!("tool_use"))
    );
    let turn = |content: &Value, id: &Value| {
        let list = json!([body["messages"][0], {"role": "assistant", "content": content}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "18 degrees"}]}]);
        messages(&sim, &with(body.clone(), json!({"messages": list})))
    };
    let id = &content[1]["id"];
    let last = turn(&content, id).json();
    assert!(
        last["content"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap().contains("18 degrees")
    );
    let mut changed = content.clone();
    changed[0]["signature"] = json!(format!("A{}", &content[0]["signature"].as_str().unwrap()[1..]));
    let refused = turn(&changed, id);
    assert!(refused.status == 400 && refused.text().contains("Invalid `signature` in `thinking` block"));
    assert_eq!(turn(&content, &json!("toolu_other")).status, 400);
}

#[test]
fn limits_stops_refusal_and_redaction() {
    let sim = sim(&[]);
    let short = messages(&sim, &with(ask("Hi"), json!({"max_tokens": 3}))).json();
    assert_eq!((&short["stop_reason"], &short["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(3)));
    let stopped = messages(&sim, &with(ask("Hi"), json!({"stop_sequences": ["Hi"]}))).json();
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!("Hi")));
    assert_eq!(messages(&sim, &ask("[refuse]")).json()["stop_reason"], "refusal");
    let body = with(
        ask("ANTHROPIC_MAGIC_STRING_TRIGGER_REDACTED_THINKING_1"),
        json!({"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    );
    assert_eq!(messages(&sim, &body).json()["content"][0]["type"], "redacted_thinking");
}

#[test]
fn marked_prefixes_are_cached() {
    let sim = sim(&[]);
    let system = json!([{"type": "text", "text": "long ".repeat(400), "cache_control": {"type": "ephemeral", "ttl": "1h"}}]);
    let body = with(ask("Hi"), json!({"system": system}));
    let first = messages(&sim, &body).json()["usage"].clone();
    let second = messages(&sim, &with(body, json!({"messages": [{"role": "user", "content": "Other"}]})))
        .json()["usage"]
        .clone();
    assert!(
        first["cache_creation_input_tokens"].as_u64().unwrap() > 400 && first["cache_read_input_tokens"] == 0
    );
    assert_eq!(first["cache_creation"]["ephemeral_1h_input_tokens"], first["cache_creation_input_tokens"]);
    assert_eq!(
        (&second["cache_read_input_tokens"], &second["cache_creation_input_tokens"]),
        (&first["cache_creation_input_tokens"], &json!(0))
    );
}

#[test]
fn tool_choice() {
    let sim = sim(&[]);
    let run = |text: &str, choice: Value| {
        messages(&sim, &with(ask(text), json!({"tools": weather(), "tool_choice": choice}))).json()
    };
    assert_eq!(run("Hi", json!({"type": "any"}))["stop_reason"], "tool_use");
    assert_eq!(run("Hi", json!({"type": "tool", "name": "get_weather"}))["stop_reason"], "tool_use");
    assert_eq!(run("weather in Paris", json!({"type": "none"}))["stop_reason"], "end_turn");
    let two = "both: weather in Paris and in London";
    assert_eq!(run(two, json!({"type": "auto"}))["content"].as_array().unwrap().len(), 2);
    assert_eq!(
        run(two, json!({"type": "auto", "disable_parallel_tool_use": true}))["content"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn wrong_requests_get_the_vendors_errors() {
    let sim = sim(&[]);
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    for (body, status, kind, said) in [
        (
            json!({"max_tokens": 1, "messages": user(json!("x"))}),
            400,
            "invalid_request_error",
            "model: Field required",
        ),
        (
            json!({"model": "m", "messages": user(json!("x"))}),
            400,
            "invalid_request_error",
            "max_tokens: Field required",
        ),
        (json!({"model": "m", "max_tokens": 1}), 400, "invalid_request_error", "messages: Field required"),
        (with(ask("x"), json!({"model": "no-such-model"})), 404, "not_found_error", "model: no-such-model"),
        (with(ask("x"), json!({"temperature": 1.5})), 400, "invalid_request_error", "temperature"),
        (
            with(ask("x"), json!({"thinking": {"type": "enabled", "budget_tokens": 10}})),
            400,
            "invalid_request_error",
            "1024",
        ),
        (
            with(ask("x"), json!({"messages": [{"role": "system", "content": "x"}]})),
            400,
            "invalid_request_error",
            "system",
        ),
        (
            with(
                ask("x"),
                json!({"messages": user(json!([{"type": "tool_result", "tool_use_id": "t", "content": "x"}]))}),
            ),
            400,
            "invalid_request_error",
            "unexpected `tool_use_id`",
        ),
        (
            with(ask("x"), json!({"messages": user(json!([{"type": "text", "text": ""}]))})),
            400,
            "invalid_request_error",
            "non-empty",
        ),
    ] {
        let answer = messages(&sim, &body);
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["type"], error["error"]["type"].as_str()),
            (status, &json!("error"), Some(kind)),
            "{body}"
        );
        assert!(error["error"]["message"].as_str().unwrap().contains(said), "{error}");
        assert_eq!(error["request_id"].as_str(), answer.header("request-id"));
    }
    let text = ask("x").to_string();
    let path = "/anthropic/v1/messages";
    assert_eq!(request(&sim, "POST", path, &[ANTHROPIC[1]], &text).status, 401);
    assert_eq!(
        request(&sim, "POST", path, &[("x-api-key", "invalid"), ANTHROPIC[1]], &text).json()["error"]["type"],
        "authentication_error"
    );
    assert!(request(&sim, "POST", path, &[ANTHROPIC[0]], &text).text().contains("anthropic-version"));
    assert_eq!(request(&sim, "POST", "/v1/messages", &ANTHROPIC, &text).status, 200);
    let count = request(&sim, "POST", "/anthropic/v1/messages/count_tokens", &ANTHROPIC, &text).json();
    assert_eq!(count["input_tokens"], messages(&sim, &ask("x")).json()["usage"]["input_tokens"]);
    assert_eq!(
        request(&sim, "GET", "/anthropic/v1/models", &ANTHROPIC, "").json()["data"][0]["type"],
        "model"
    );
}
