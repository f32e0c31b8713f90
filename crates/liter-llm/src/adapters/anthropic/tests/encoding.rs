//! Requests.

use serde_json::{Value, json};

use super::super::{AnthropicMessages, generation};
use super::{raw, target};
use crate::adapters::{Adapter, Quirks, Target, WireRequest};
use crate::core::content::{Block, Media, Message, Reasoning, Role};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::Extra;
use crate::core::request::{LlmRequest, OnUnsupported, RequestBody};

fn encode(request: &LlmRequest) -> Result<WireRequest, LlmError> {
    target(|target| AnthropicMessages.encode(request, target))
}

fn text(wire: &WireRequest) -> String {
    String::from_utf8(wire.body.clone()).unwrap()
}

fn body(request: &LlmRequest) -> Value {
    serde_json::from_slice(&encode(request).unwrap().body).unwrap()
}

fn params(wire: &WireRequest) -> Vec<&str> {
    wire.adjustments.iter().map(|adjustment| adjustment.param.as_str()).collect()
}

fn from_json(value: &Value) -> LlmRequest {
    LlmRequest::from_json(value.to_string().as_bytes()).unwrap()
}

#[test]
fn a_small_request_has_nothing_that_was_not_set() {
    let wire = encode(&LlmRequest::new().with_prompt("hi").with_max_tokens(5)).unwrap();
    assert_eq!(
        text(&wire),
        r#"{"model":"claude-sonnet-4-5","max_tokens":5,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}"#
    );
    assert_eq!(wire.path, "/v1/messages");
    assert_eq!(wire.headers, [("anthropic-version", "2023-06-01".to_owned())]);
    assert!(wire.adjustments.is_empty());
}

#[test]
fn the_missing_limit_is_set_and_said() {
    let wire = encode(&LlmRequest::new().with_prompt("hi")).unwrap();
    assert!(text(&wire).contains(r#""max_tokens":4096"#));
    assert_eq!(params(&wire), ["max_tokens"]);
    let extra = LlmRequest::new().with_prompt("hi").with_extra("max_tokens", raw("7"));
    let wire = encode(&extra).unwrap();
    assert!(wire.adjustments.is_empty() && text(&wire).ends_with(r#""max_tokens":7}"#));
}

#[test]
fn a_hosts_own_name_for_the_limit_is_used() {
    #[allow(clippy::needless_update, reason = "quirks are added with every host that needs one")]
    let quirks = Quirks { max_tokens_field: "limit".to_owned(), ..Quirks::default() };
    let target = Target { provider: "p", model: "m", quirks: &quirks, stream: true };
    let request = LlmRequest::new().with_prompt("hi").with_max_tokens(5);
    let wire = AnthropicMessages.encode(&request, &target).unwrap();
    assert!(
        text(&wire).starts_with(r#"{"model":"m","limit":5,"#) && text(&wire).ends_with(r#""stream":true}"#)
    );
}

#[test]
fn headers_of_the_request_are_respected() {
    let headers = vec![
        ("Anthropic-Version".to_owned(), "2099-01-01".to_owned()),
        ("Anthropic-Beta".to_owned(), "one".to_owned()),
    ];
    let picture = Message::new(Role::User, vec![Block::image(Media::File("file_1".into()))]);
    let request = LlmRequest::from(RequestBody {
        messages: vec![picture],
        headers,
        max_tokens: Some(1),
        ..RequestBody::default()
    });
    let wire = encode(&request).unwrap();
    assert_eq!(wire.headers, [("anthropic-beta", "one,files-api-2025-04-14".to_owned())]);
}

#[test]
fn system_messages_are_hoisted_in_order() {
    let request = from_json(&json!({
        "system": "A",
        "messages": [
            {"role": "system", "content": "B"},
            {"role": "developer", "content": [{"type": "text", "text": "C", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"role": "user", "content": "hi"},
            {"role": "system", "content": "D"},
        ],
    }));
    let wire = encode(&request).unwrap();
    let sent: Value = serde_json::from_slice(&wire.body).unwrap();
    let texts: Vec<&str> =
        sent["system"].as_array().unwrap().iter().map(|block| block["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["A", "B", "C", "D"]);
    assert_eq!(sent["system"][2]["cache_control"], json!({"type": "ephemeral", "ttl": "1h"}));
    assert_eq!(sent["messages"], json!([{"role": "user", "content": "hi"}]));
    assert_eq!(params(&wire), ["max_tokens", "messages[3]"]);
    // A model that takes such turns gets them where they stand.
    let wire = encode(&request.with_model("claude-opus-4-8")).unwrap();
    let sent: Value = serde_json::from_slice(&wire.body).unwrap();
    assert_eq!(sent["messages"][1], json!({"role": "system", "content": "D"}));
    assert_eq!(params(&wire), ["max_tokens"]);
}

#[test]
fn tool_results_join_in_the_order_of_the_calls() {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1.0}"}});
    let request = from_json(&json!({"max_tokens": 9, "messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": null, "tool_calls": [call("one"), call("functions.f:2")]},
        {"role": "tool", "tool_call_id": "functions.f:2", "content": "second"},
        {"role": "system", "content": "be brief"},
        {"role": "tool", "tool_call_id": "one", "content": "first"},
        {"role": "user", "content": "thanks"},
    ]}));
    let wire = encode(&request).unwrap();
    assert!(text(&wire).contains(
        r#"{"role":"assistant","content":[{"type":"tool_use","id":"one","name":"f","input":{"a": 1.0}},{"type":"tool_use","id":"functions_f_2","name":"f","input":{"a": 1.0}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"one","content":"first"},{"type":"tool_result","tool_use_id":"functions_f_2","content":"second"}]}"#
    ));
    assert_eq!(wire.adjustments.len(), 3);
}

#[test]
fn a_tool_message_without_its_call_is_refused() {
    let request =
        from_json(&json!({"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]}));
    let error = encode(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(error.detail().param.as_deref(), Some("messages[1].tool_call_id"));
}

#[test]
fn arguments_are_an_object_or_an_error() {
    let send = |arguments: &str| {
        let call = Block::tool_call("id1", "look", arguments);
        encode(&LlmRequest::new().with_max_tokens(9).with_message(Message::new(Role::Assistant, vec![call])))
    };
    assert!(text(&send("").unwrap()).contains(r#""input":{}"#));
    assert!(text(&send(" {\"b\":1e3 } \n").unwrap()).contains(r#""input":{"b":1e3 }"#));
    for broken in [r#"{"a":"#, "[1]", "null", "{} {}"] {
        let error = send(broken).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{broken}");
        assert!(error.to_string().contains("`id1` (`look`)"), "{error}");
    }
}

#[test]
fn foreign_blocks_are_left_out_and_listed() {
    let reasoning = |origin: Option<&str>| {
        Block::reasoning(Reasoning {
            text: "hm".into(),
            signature: Some("s==".into()),
            origin: origin.map(str::to_owned),
            ..Reasoning::default()
        })
    };
    let mut fields = Extra::new();
    fields.insert("extra_content".to_owned(), raw(r#"{"google":{}}"#));
    fields.insert("caller".to_owned(), raw(r#"{"type":"direct"}"#));
    let message = Message::new(
        Role::Assistant,
        vec![
            reasoning(Some("openai_responses")),
            reasoning(None),
            Block::opaque("openai_responses", raw(r#"{"type":"web_search_call"}"#)),
            Block::text(""),
            Block::text("\n\n"),
            Block::refusal("no"),
            Block::tool_call("c", "f", "{}").with_extra(fields),
        ],
    );
    let wire = encode(&LlmRequest::new().with_max_tokens(9).with_message(message)).unwrap();
    assert!(text(&wire).contains(
        r#""content":[{"type":"text","text":"no"},{"type":"tool_use","id":"c","name":"f","input":{},"caller":{"type":"direct"}}]"#
    ));
    assert_eq!(
        params(&wire),
        [
            "messages[0].content[0]",
            "messages[0].content[1]",
            "messages[0].content[2]",
            "messages[0].content[4]",
            "messages[0].content[6].extra_content",
        ]
    );
    let own = Message::new(Role::Assistant, vec![reasoning(Some("anthropic")), Block::text("\n\n")]);
    let wire = encode(&LlmRequest::new().with_max_tokens(9).with_message(own)).unwrap();
    assert!(text(&wire).contains(
        r#"[{"type":"thinking","thinking":"hm","signature":"s=="},{"type":"text","text":"\n\n"}]"#
    ));
}

#[test]
fn media_in_all_forms() {
    let marker = raw(r#"{"type":"ephemeral","ttl":"1h"}"#);
    let content = vec![
        Block::image(Media::Url("https://x/y.png".into())),
        Block::image(Media::Base64 { media_type: "image/png".into(), data: "AAAA".into() }),
        Block::document(Media::Text("plain".into()), Some("T".into())),
        Block::document(Media::Base64 { media_type: "text/csv".into(), data: "YSxi".into() }, None),
        Block::document(Media::File("file_1".into()), None).with_cache_control(marker),
        Block::document(Media::Other(raw(r#"{"type":"content","content":[ ]}"#)), None),
    ];
    let wire = encode(&LlmRequest::new().with_max_tokens(9).with_message(Message::new(Role::User, content)))
        .unwrap();
    let sent: Value = serde_json::from_slice(&wire.body).unwrap();
    assert_eq!(
        sent["messages"][0]["content"],
        json!([
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}, "title": "T"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "document", "source": {"type": "content", "content": []}},
        ])
    );
    assert!(text(&wire).contains(r#"{"type":"content","content":[ ]}"#));
    let sound = Block::audio(Media::Base64 { media_type: "audio/wav".into(), data: "AAAA".into() });
    let error = encode(&LlmRequest::new().with_message(Message::new(Role::User, vec![sound]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.detail().param.as_deref(), Some("messages[0].content[0]"));
}

#[test]
fn tools_and_choices() {
    let tools = json!([
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "x": 1}, "strict": true}},
        {"name": "g", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}, "defer_loading": true},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"name": "bare"},
    ]);
    let request =
        from_json(&json!({"prompt": "x", "max_tokens": 9, "tools": tools, "parallel_tool_calls": false}));
    let sent = body(&request);
    assert_eq!(
        sent["tools"],
        json!([
            {"name": "f", "description": "d", "input_schema": {"type": "object", "x": 1}, "strict": true},
            {"name": "g", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}, "defer_loading": true},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
            {"name": "bare", "input_schema": {"type": "object", "properties": {}}},
        ])
    );
    assert_eq!(sent["tool_choice"], json!({"type": "auto", "disable_parallel_tool_use": true}));
    let choose = |choice: Value| {
        body(&from_json(&json!({"prompt": "x", "tools": tools, "tool_choice": choice})))["tool_choice"]
            .clone()
    };
    assert_eq!(choose(json!("required")), json!({"type": "any"}));
    assert_eq!(choose(json!("none")), json!({"type": "none"}));
    assert_eq!(
        choose(json!({"type": "function", "function": {"name": "f"}})),
        json!({"type": "tool", "name": "f"})
    );
    let without =
        encode(&from_json(&json!({"prompt": "x", "max_tokens": 9, "tool_choice": "auto"}))).unwrap();
    assert!(!text(&without).contains("tool_choice") && params(&without) == ["tool_choice"]);
}

#[test]
fn what_anthropic_does_not_have_is_refused_or_listed() {
    for (name, value) in [
        ("seed", json!(1)),
        ("frequency_penalty", json!(0.5)),
        ("presence_penalty", json!(-0.5)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(2)),
        ("temperature", json!(1.5)),
        ("metadata", json!({"team": "x"})),
        ("response_format", json!("json")),
        ("stop", json!(["\n"])),
    ] {
        let strict = from_json(&json!({"prompt": "x", "max_tokens": 9, name: value}));
        let error = encode(&strict).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
        assert_eq!(error.detail().param.as_deref(), Some(name));
        assert!(error.detail().before_send);
        let lenient = strict.with(|body| body.on_unsupported = OnUnsupported::Adjust);
        let wire = encode(&lenient).unwrap();
        assert_eq!(params(&wire), [name]);
        let sent: Value = serde_json::from_slice(&wire.body).unwrap();
        let count = if name == "temperature" { 4 } else { 3 };
        assert_eq!(sent.as_object().unwrap().len(), count, "{name}: {sent}");
    }
    let neutral = json!({"prompt": "x", "max_tokens": 9, "frequency_penalty": 0.0, "logprobs": false});
    assert!(encode(&from_json(&neutral)).unwrap().adjustments.is_empty());
    let stored = from_json(&json!({"previous_response_id": "r", "on_unsupported": "adjust", "prompt": "x"}));
    assert_eq!(encode(&stored).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn generations_are_read_from_names() {
    for (name, expected) in [
        ("claude-sonnet-4-6", Some((4, 6))),
        ("anthropic/claude-haiku-4.5", Some((4, 5))),
        ("us.anthropic.claude-opus-4-7-v1:0", Some((4, 7))),
        ("claude-3-7-sonnet-20250219", Some((3, 7))),
        ("claude-opus-4-20250514", Some((4, 0))),
        ("claude-opus-4-1@20250805", Some((4, 1))),
        ("claude-3-5-sonnet-latest", Some((3, 5))),
        ("claude-opus-5", Some((5, 0))),
        ("claude-2.1", Some((2, 1))),
        ("claude-mythos-preview", None),
        ("kimi-k2", None),
    ] {
        assert_eq!(generation(name), expected, "{name}");
    }
}

fn thinking(model: &str, fields: &Value) -> Result<(Value, Value, Value, usize), LlmError> {
    let mut request = json!({"prompt": "x", "model": model});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let wire = encode(&from_json(&request))?;
    let sent: Value = serde_json::from_slice(&wire.body).unwrap();
    let adjusted = wire.adjustments.iter().filter(|adjustment| adjustment.param != "max_tokens").count();
    Ok((sent["thinking"].clone(), sent["output_config"].clone(), sent["max_tokens"].clone(), adjusted))
}

#[test]
fn effort_and_budget_follow_the_model() {
    let adaptive = json!({"type": "adaptive"});
    let high = json!({"effort": "high"});
    for model in ["claude-sonnet-4-6", "claude-opus-4-7", "claude-opus-5", "claude-mythos-preview"] {
        let found = thinking(model, &json!({"reasoning_effort": "high"})).unwrap();
        assert_eq!(found, (adaptive.clone(), high.clone(), json!(4096), 0), "{model}");
    }
    let budget = |tokens: u64| json!({"type": "enabled", "budget_tokens": tokens});
    let found = thinking("claude-haiku-4-5", &json!({"reasoning_effort": "high"})).unwrap();
    assert_eq!(found, (budget(16_384), Value::Null, json!(20_480), 1));
    let found =
        thinking("claude-haiku-4-5", &json!({"reasoning_effort": "high", "max_tokens": 2000})).unwrap();
    assert_eq!(found, (budget(1500), Value::Null, json!(2000), 1));
    assert!(thinking("claude-haiku-4-5", &json!({"reasoning_effort": "high", "max_tokens": 1300})).is_err());
    let found = thinking("claude-sonnet-4-6", &json!({"reasoning_budget": 5000})).unwrap();
    assert_eq!(found, (budget(5000), Value::Null, json!(9096), 0));
    let both = json!({"reasoning_budget": 5000, "reasoning_effort": "low"});
    assert_eq!(thinking("claude-opus-4-6", &both).unwrap().1, json!({"effort": "low"}));
    for (model, fields, param) in [
        ("claude-opus-4-6", json!({"reasoning_budget": 1000}), "reasoning_budget"),
        ("claude-opus-4-6", json!({"reasoning_budget": 5000, "max_tokens": 5000}), "reasoning_budget"),
        ("claude-opus-4-6", json!({"reasoning_budget": u64::MAX}), "reasoning_budget"),
        ("claude-opus-4-8", json!({"reasoning_budget": 5000}), "reasoning_budget"),
        ("claude-3-5-haiku-latest", json!({"reasoning_budget": 5000}), "reasoning_budget"),
        ("claude-3-5-haiku-latest", json!({"reasoning_effort": "low"}), "reasoning_effort"),
        ("claude-opus-4-8", json!({"reasoning_effort": "minimal"}), "reasoning_effort"),
        ("claude-opus-4-8", json!({"reasoning_effort": "hgih"}), "reasoning_effort"),
        ("claude-haiku-4-5", json!({"reasoning_effort": "hgih"}), "reasoning_effort"),
    ] {
        let error = thinking(model, &fields).unwrap_err();
        assert_eq!(error.detail().param.as_deref(), Some(param), "{model} {fields}");
        assert!(error.detail().before_send);
    }
    let off = json!({"type": "disabled"});
    assert_eq!(thinking("claude-opus-5", &json!({"reasoning_effort": "none"})).unwrap().0, off);
    let summary = json!({"reasoning_effort": "low", "reasoning_summary": "auto"});
    assert_eq!(
        thinking("claude-opus-4-7", &summary).unwrap().0,
        json!({"type": "adaptive", "display": "summarized"})
    );
}

#[test]
fn schemas_users_and_vendor_fields() {
    let request = from_json(&json!({
        "prompt": "x",
        "max_tokens": 9,
        "user": "u1",
        "metadata": {"user_id": "u1"},
        "top_k": 3,
        "top_p": 0.5,
        "stop": ["END"],
        "service_tier": "auto",
        "reasoning_effort": "low",
        "model": "claude-opus-4-6",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        "extra": {"container": "c", "inference_geo": "us"},
    }));
    assert_eq!(
        text(&encode(&request).unwrap()),
        concat!(
            r#"{"model":"claude-opus-4-6","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"#,
            r#""top_p":0.5,"top_k":3,"stop_sequences":["END"],"thinking":{"type":"adaptive"},"#,
            r#""output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}},"#,
            r#""metadata":{"user_id":"u1"},"service_tier":"auto","container":"c","inference_geo":"us"}"#
        )
    );
    let replaced = request.clone().with_extra("output_config", raw(r#"{"effort":"max"}"#));
    assert_eq!(params(&encode(&replaced).unwrap()), ["extra.output_config"]);
    assert_eq!(body(&replaced)["output_config"], json!({"effort": "max"}));
    let other = request.clone().with(|body| body.user = Some("u2".into()));
    assert_eq!(encode(&other).unwrap_err().detail().param.as_deref(), Some("user"));
    let streamed = request.with_extra("stream", raw("true"));
    assert_eq!(encode(&streamed).unwrap_err().detail().param.as_deref(), Some("extra.stream"));
}
