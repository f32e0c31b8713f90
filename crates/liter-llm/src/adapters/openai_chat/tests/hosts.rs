//! Every quirk of every row of `data/providers.toml`, by the bytes sent.

use serde_json::{Value, json};

use super::{encode, encode_request, params, tail, text};
use crate::core::content::{Block, Media, Message, Role, wire};
use crate::core::error::ErrorKind;
use crate::core::json::RawJson;
use crate::core::request::LlmRequest;
use crate::providers;

/// The hosts that speak this wire.
fn hosts() -> impl Iterator<Item = &'static str> {
    let rows = providers::rows().unwrap();
    rows.iter().filter(|(_, row)| row.adapter == wire::OPENAI_CHAT).map(|(name, _)| name.as_str())
}

/// Asserts what each host gets after the messages; `None` when the parameter is refused.
fn each(border: &Value, param: &str, expected: impl Fn(&str) -> Option<&'static str>) {
    for host in hosts() {
        match (encode(host, border, false), expected(host)) {
            (Ok(wire), Some(expected)) => assert_eq!(tail(&wire), expected, "{host}"),
            (Err(error), None) => {
                let found = (error.kind(), error.detail().param.as_deref());
                assert_eq!(found, (ErrorKind::Unsupported, Some(param)), "{host}");
                assert_eq!(error.detail().provider.as_deref(), Some(host));
            }
            (got, expected) => panic!("{host}: {got:?} instead of {expected:?}"),
        }
    }
}

/// Asserts the one message each host gets; `None` when it is refused.
fn each_message(message: &Message, expected: impl Fn(&str) -> Option<&'static str>) {
    let request = LlmRequest::new().with_message(message.clone());
    for host in hosts() {
        match (encode_request(host, &request, false), expected(host)) {
            (Ok(wire), Some(expected)) => {
                assert_eq!(text(&wire), format!(r#"{{"model":"m","messages":[{expected}]}}"#), "{host}");
            }
            (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{host}"),
            (got, expected) => panic!("{host}: {got:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn max_tokens_field() {
    each(&json!({"prompt": "x", "max_tokens": 5}), "max_tokens", |host| match host {
        "openai" | "azure" | "cerebras" => Some(r#","max_completion_tokens":5}"#),
        _ => Some(r#","max_tokens":5}"#),
    });
}

#[test]
fn seed_field() {
    each(&json!({"prompt": "x", "seed": 7}), "seed", |host| match host {
        "mistral" => Some(r#","random_seed":7}"#),
        _ => Some(r#","seed":7}"#),
    });
}

#[test]
fn required_tool_word() {
    let tool = json!({"name": "f", "parameters": {"type": "object"}});
    each(
        &json!({"prompt": "x", "tools": [tool], "tool_choice": "required"}),
        "tool_choice",
        |host| match host {
            "mistral" => Some(
                r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"any"}"#,
            ),
            _ => Some(
                r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"required"}"#,
            ),
        },
    );
}

#[test]
fn no_stream_options() {
    for host in hosts() {
        let wire = encode(host, &json!({"prompt": "x"}), true).unwrap();
        let expected = match host {
            "mistral" => r#","stream":true}"#,
            _ => r#","stream":true,"stream_options":{"include_usage":true}}"#,
        };
        assert_eq!(tail(&wire), expected, "{host}");
    }
}

#[test]
fn top_k() {
    each(&json!({"prompt": "x", "top_k": 3}), "top_k", |host| {
        matches!(host, "together" | "fireworks" | "openrouter" | "vllm" | "lmstudio" | "llamacpp")
            .then_some(r#","top_k":3}"#)
    });
}

#[test]
fn unsupported() {
    each(&json!({"prompt": "x", "logprobs": true}), "logprobs", |host| {
        (host != "groq").then_some(r#","logprobs":true}"#)
    });
    each(&json!({"prompt": "x", "top_logprobs": 2}), "top_logprobs", |host| {
        (host != "groq").then_some(r#","top_logprobs":2}"#)
    });
    each(&json!({"prompt": "x", "frequency_penalty": 0.5}), "frequency_penalty", |host| {
        (host != "cerebras").then_some(r#","frequency_penalty":0.5}"#)
    });
    each(&json!({"prompt": "x", "presence_penalty": 0.5}), "presence_penalty", |host| {
        (host != "cerebras").then_some(r#","presence_penalty":0.5}"#)
    });
    let schema = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}});
    each(&json!({"prompt": "x", "response_format": schema}), "response_format", |host| {
        (host != "deepseek").then_some(
            r#","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}}}"#,
        )
    });
    each(&json!({"prompt": "x", "response_format": {"type": "json_object"}}), "response_format", |_| {
        Some(r#","response_format":{"type":"json_object"}}"#)
    });
}

#[test]
fn reasoning_object() {
    each(&json!({"prompt": "x", "reasoning_effort": "low"}), "reasoning_effort", |host| match host {
        "openrouter" => Some(r#","reasoning":{"effort":"low"}}"#),
        _ => Some(r#","reasoning_effort":"low"}"#),
    });
    each(&json!({"prompt": "x", "reasoning_budget": 9}), "reasoning_budget", |host| {
        (host == "openrouter").then_some(r#","reasoning":{"max_tokens":9}}"#)
    });
}

fn message(neutral: &Value) -> Message {
    Message::from_json(&RawJson::from(neutral)).unwrap()
}

#[test]
fn reasoning_echo() {
    let spoken = message(&json!({"role": "assistant", "content": [
        {"type": "reasoning", "text": "t"}, {"type": "text", "text": "a"}]}));
    each_message(&spoken, |host| {
        Some(match host {
            "mistral" => {
                r#"{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]},{"type":"text","text":"a"}]}"#
            }
            "openrouter" | "cerebras" | "ollama" => r#"{"role":"assistant","reasoning":"t","content":"a"}"#,
            _ => r#"{"role":"assistant","content":"a"}"#,
        })
    });
}

#[test]
fn reasoning_echo_only_with_tools() {
    let calling = message(&json!({"role": "assistant", "content": [
        {"type": "reasoning", "text": "t"},
        {"type": "tool_call", "id": "c", "name": "f", "arguments": "{}"}]}));
    each_message(&calling, |host| {
        Some(match host {
            "deepseek" => {
                r#"{"role":"assistant","reasoning_content":"t","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
            }
            "mistral" => {
                r#"{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]}],"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
            }
            "openrouter" | "cerebras" | "ollama" => {
                r#"{"role":"assistant","reasoning":"t","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
            }
            _ => {
                r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
            }
        })
    });
}

#[test]
fn reasoning_details_go_back_as_they_came() {
    let signed = message(&json!({"role": "assistant", "content": [
        {"type": "reasoning", "text": "t", "origin": "openai_chat",
         "json": r#"[{"signature":"s","type":"reasoning.text","text":"t","n":1.0}]"#},
        {"type": "text", "text": "a"}]}));
    each_message(&signed, |host| {
        Some(match host {
            "openrouter" => {
                r#"{"role":"assistant","reasoning":"t","reasoning_details":[{"signature":"s","type":"reasoning.text","text":"t","n":1.0}],"content":"a"}"#
            }
            "mistral" => {
                r#"{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]},{"type":"text","text":"a"}]}"#
            }
            "cerebras" | "ollama" => r#"{"role":"assistant","reasoning":"t","content":"a"}"#,
            _ => r#"{"role":"assistant","content":"a"}"#,
        })
    });
}

#[test]
fn cache_control() {
    let marker = || RawJson::parse(r#"{"type":"ephemeral"}"#).unwrap();
    let marked = Message::new(Role::User, vec![Block::text("x").with_cache_control(marker())]);
    each_message(&marked, |host| {
        Some(match host {
            "openrouter" => {
                r#"{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}"#
            }
            _ => r#"{"role":"user","content":"x"}"#,
        })
    });
    let tool = json!({"name": "f", "parameters": {"type": "object"}, "cache_control": {"type": "ephemeral"}});
    for host in hosts() {
        let wire = encode(host, &json!({"prompt": "x", "tools": [tool]}), false).unwrap();
        let (expected, lost): (_, &[&str]) = match host {
            "openrouter" => (
                r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}},"cache_control":{"type":"ephemeral"}}]}"#,
                &[],
            ),
            _ => (
                r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}"#,
                &["tools[0].cache_control"],
            ),
        };
        assert_eq!((tail(&wire), params(&wire).as_slice()), (expected, lost), "{host}");
    }
}

#[test]
fn documents_by_url() {
    let url = Media::Url("https://e.org/a.pdf".to_owned());
    each_message(&Message::new(Role::User, vec![Block::document(url, None)]), |host| match host {
        "mistral" => Some(
            r#"{"role":"user","content":[{"type":"document_url","document_url":"https://e.org/a.pdf"}]}"#,
        ),
        "openrouter" => Some(
            r#"{"role":"user","content":[{"type":"file","file":{"filename":"document.pdf","file_data":"https://e.org/a.pdf"}}]}"#,
        ),
        _ => None,
    });
}

#[test]
fn media_in_tool_results() {
    let picture = Block::image(Media::Url("https://e.org/a.png".to_owned()));
    let result = Block::tool_result("c", vec![Block::text("a"), picture], false);
    each_message(&Message::new(Role::Tool, vec![result]), |host| {
        (host == "openrouter").then_some(
            r#"{"role":"tool","tool_call_id":"c","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"https://e.org/a.png"}}]}"#,
        )
    });
}
