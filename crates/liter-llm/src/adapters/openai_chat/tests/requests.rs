//! Parameters: each under its name, refused or adjusted; unset ones never sent; `extra` wins.

use serde_json::json;

use super::{encode, params, tail, text};
use crate::core::error::ErrorKind;
use crate::core::request::{FIELD_NAMES, LlmRequest};

#[test]
fn unset_parameters_never_appear() {
    let wire = encode("xai", &json!({"prompt": "x"}), false).unwrap();
    assert_eq!(tail(&wire), "}");
    assert_eq!((wire.path, wire.headers.len(), wire.adjustments.len()), ("/chat/completions", 0, 0));
}

#[test]
fn each_parameter_has_its_name() {
    let tool = json!({"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true});
    let sent_tool = r#""tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}}]"#;
    let table = [
        (json!({"max_tokens": 5}), r#""max_tokens":5"#),
        (json!({"temperature": 0.5}), r#""temperature":0.5"#),
        (json!({"top_p": 0.9}), r#""top_p":0.9"#),
        (json!({"stop": "a"}), r#""stop":["a"]"#),
        (json!({"stop": ["a", "b"]}), r#""stop":["a","b"]"#),
        (json!({"seed": -1}), r#""seed":-1"#),
        (json!({"frequency_penalty": 0.5}), r#""frequency_penalty":0.5"#),
        (json!({"presence_penalty": -0.5}), r#""presence_penalty":-0.5"#),
        (json!({"tools": [tool]}), sent_tool),
        (json!({"response_format": {"type": "text"}}), r#""response_format":{"type":"text"}"#),
        (json!({"reasoning_effort": "high"}), r#""reasoning_effort":"high""#),
        (json!({"logprobs": true}), r#""logprobs":true"#),
        (json!({"top_logprobs": 2}), r#""top_logprobs":2"#),
        (json!({"user": "u"}), r#""user":"u""#),
        (json!({"metadata": {"a": "b"}}), r#""metadata":{"a":"b"}"#),
        (json!({"service_tier": "flex"}), r#""service_tier":"flex""#),
    ];
    for (mut border, expected) in table {
        border["prompt"] = json!("x");
        let wire = encode("xai", &border, false).unwrap();
        assert_eq!(tail(&wire), format!(",{expected}}}"));
        assert!(wire.adjustments.is_empty());
    }
    for (choice, expected) in [
        (json!("auto"), r#""auto""#),
        (json!("none"), r#""none""#),
        (json!("required"), r#""required""#),
        (json!({"name": "f"}), r#"{"type":"function","function":{"name":"f"}}"#),
    ] {
        let border =
            json!({"prompt": "x", "tools": [tool], "tool_choice": choice, "parallel_tool_calls": false});
        let wire = encode("xai", &border, false).unwrap();
        assert_eq!(
            tail(&wire),
            format!(r#",{sent_tool},"tool_choice":{expected},"parallel_tool_calls":false}}"#)
        );
    }
    let wire = encode("xai", &json!({"prompt": "x", "system": "s", "model": "other"}), false).unwrap();
    let both = r#"[{"role":"system","content":"s"},{"role":"user","content":"x"}]"#;
    assert_eq!(text(&wire), format!(r#"{{"model":"other","messages":{both}}}"#));
}

#[test]
fn what_the_wire_lacks_is_refused_or_left_out() {
    for (name, value) in [
        ("top_k", json!(3)),
        ("reasoning_budget", json!(9)),
        ("reasoning_summary", json!("auto")),
        ("previous_response_id", json!("r")),
    ] {
        assert!(FIELD_NAMES.contains(&name));
        let error = encode("openai", &json!({"prompt": "x", name: value}), false).unwrap_err();
        assert_eq!((error.kind(), error.detail().param.as_deref()), (ErrorKind::Unsupported, Some(name)));
        let adjust = json!({"prompt": "x", name: value, "on_unsupported": "adjust"});
        let wire = encode("openai", &adjust, false).unwrap();
        assert_eq!((tail(&wire), params(&wire)), ("}", vec![name]));
    }
    for (host, name, value) in [
        ("groq", "logprobs", json!(true)),
        ("groq", "top_logprobs", json!(1)),
        ("cerebras", "frequency_penalty", json!(1)),
        ("cerebras", "presence_penalty", json!(1)),
        (
            "deepseek",
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}),
        ),
    ] {
        let adjust = json!({"prompt": "x", name: value, "on_unsupported": "adjust"});
        let wire = encode(host, &adjust, false).unwrap();
        assert_eq!((tail(&wire), params(&wire)), ("}", vec![name]), "{host}");
    }
    let wire = encode("openai", &json!({"prompt": "x", "parallel_tool_calls": true}), false).unwrap();
    assert_eq!((tail(&wire), params(&wire)), ("}", vec!["parallel_tool_calls"]));
}

#[test]
fn extra_wins_and_is_untouched() {
    let border = br#"{"prompt":"x","temperature":0.5,"max_tokens":5,"extra":{"temperature":1.0,"max_completion_tokens":7,"big":12345678901234567890123,"text":"\u0041"}}"#;
    let request = LlmRequest::from_json(border).unwrap();
    let wire = super::encode_request("openai", &request, true).unwrap();
    assert_eq!(
        tail(&wire),
        r#","stream":true,"stream_options":{"include_usage":true},"temperature":1.0,"max_completion_tokens":7,"big":12345678901234567890123,"text":"\u0041"}"#
    );
    let own = json!({"prompt": "x", "extra": {"stream_options": null, "model": "o", "messages": []}});
    let wire = encode("openai", &own, true).unwrap();
    assert_eq!(text(&wire).matches("model").count(), 1);
    assert!(text(&wire).starts_with(r#"{"stream":true,"#), "{}", text(&wire));
    // A field the host refuses may still be tried by its wire name.
    let wire = encode("groq", &json!({"prompt": "x", "extra": {"logprobs": true}}), false).unwrap();
    assert_eq!(tail(&wire), r#","logprobs":true}"#);
    let error = encode("openai", &json!({"prompt": "x", "extra": {"stream": true}}), false).unwrap_err();
    assert_eq!(
        (error.kind(), error.detail().param.as_deref()),
        (ErrorKind::InvalidRequest, Some("extra.stream"))
    );
}
