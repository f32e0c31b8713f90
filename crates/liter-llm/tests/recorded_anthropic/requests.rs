//! Recorded requests written anew, and recorded answers sent back.

use liter_llm::adapters::anthropic::AnthropicMessages;
use liter_llm::adapters::{Adapter, WireRequest};
use liter_llm::{LlmError, LlmRequest, Message, RequestBody};
use serde_json::{Map, Value, json};

use super::{decode, differences, records, with_target};

/// An Anthropic body as the request a caller would write: our names where we have one, the rest in `extra`.
fn request_of(body: &Map<String, Value>) -> Value {
    let mut request = Map::new();
    let mut extra = Map::new();
    for (name, value) in body {
        match name.as_str() {
            "stream" => {}
            "stop_sequences" => drop(request.insert("stop".to_owned(), value.clone())),
            "model" | "messages" | "system" | "tools" | "tool_choice" | "max_tokens" | "temperature"
            | "top_p" | "top_k" | "metadata" | "service_tier" => {
                drop(request.insert(name.clone(), value.clone()))
            }
            "thinking" if value["type"] == "enabled" && value["display"].is_null() => {
                request.insert("reasoning_budget".to_owned(), value["budget_tokens"].clone());
            }
            "output_config" if value["format"].is_object() && value.as_object().unwrap().len() == 1 => {
                request.insert("response_format".to_owned(), value["format"].clone());
            }
            _ => drop(extra.insert(name.clone(), value.clone())),
        }
    }
    if !extra.is_empty() {
        request.insert("extra".to_owned(), extra.into());
    }
    request.into()
}

fn encode(request: &LlmRequest, stream: bool) -> Result<WireRequest, LlmError> {
    with_target(stream, |target| AnthropicMessages.encode(request, target))
}

/// A lone text and a list of one text mean the same as `system`; a request keeps no difference.
fn normal_system(value: &Value) -> Value {
    match value {
        Value::Array(blocks)
            if blocks.len() == 1
                && blocks[0]["type"] == "text"
                && blocks[0].as_object().unwrap().len() == 2 =>
        {
            blocks[0]["text"].clone()
        }
        other => other.clone(),
    }
}

/// The text of a top-level field of a JSON object.
fn field_text(body: &[u8], name: &str) -> Option<String> {
    let fields: indexmap::IndexMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(body).unwrap();
    fields.get(name).map(|raw| raw.get().to_owned())
}

#[test]
fn recorded_requests_go_out_as_they_were() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for record in records() {
        let Some(body) = record["request"]["body"].as_object() else { continue };
        let id = record["id"].as_str().unwrap();
        let request = match LlmRequest::from_json(request_of(body).to_string().as_bytes()) {
            Ok(request) => request,
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                continue;
            }
        };
        let stream = body.get("stream").is_some_and(|stream| stream == true);
        let wire = match encode(&request, stream) {
            Ok(wire) => wire,
            Err(error) => {
                wrong.push(format!("{id}: {error}"));
                continue;
            }
        };
        compared += 1;
        for name in ["messages", "tools"] {
            let sent = field_text(&wire.body, name);
            let recorded =
                body.get(name).filter(|v| v.as_array().is_none_or(|a| !a.is_empty())).map(Value::to_string);
            if sent != recorded {
                wrong.push(format!("{id}: {name}: {sent:?} instead of {recorded:?}"));
            }
        }
        let mut sent: Map<String, Value> = serde_json::from_slice(&wire.body).unwrap();
        let mut recorded = body.clone();
        for map in [&mut sent, &mut recorded] {
            if let Some(system) = map.get_mut("system") {
                *system = normal_system(system);
            }
            // `stream: false` and an empty list of tools are what their absence means.
            map.retain(|name, value| {
                !(name == "stream" && *value == false || name == "tools" && *value == json!([]))
            });
        }
        if !recorded.contains_key("max_tokens") {
            assert_eq!(sent.remove("max_tokens"), Some(json!(4096)));
            assert!(wire.adjustments.iter().any(|adjustment| adjustment.param == "max_tokens"));
        }
        if Value::from(sent.clone()) != Value::from(recorded.clone()) {
            wrong.push(format!("{id}: {:?}", differences(&sent.into(), &recorded.into())));
        }
    }
    eprintln!("{compared} requests compared");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Answer blocks whose own form differs from what is sent back, in meaning the same.
fn sendable(content: &Value) -> Vec<Value> {
    content
        .as_array()
        .unwrap()
        .iter()
        // The API refuses empty text in a request, so it is not sent back.
        .filter(|block| !(block["type"] == "text" && block["text"] == ""))
        .map(|block| {
            let mut block = block.clone();
            if ["text", "thinking", "redacted_thinking", "tool_use"]
                .contains(&block["type"].as_str().unwrap())
            {
                // An absent field and a `null` one mean the same.
                block.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            }
            block
        })
        .collect()
}

fn send_back(message: Message) -> Vec<u8> {
    let request = LlmRequest::new().with_prompt("hi").with_message(message).with_max_tokens(10);
    encode(&request, false).unwrap().body
}

#[test]
fn answers_go_back_as_they_came() {
    let mut compared = 0;
    for record in records() {
        let body = &record["response"]["body"];
        if !body["content"].is_array() {
            continue;
        }
        let answer = decode(&record).unwrap();
        let recorded = sendable(&body["content"]);
        if recorded.is_empty() {
            continue;
        }
        compared += 1;
        // Directly, and after the journey over a language border in the neutral form.
        let neutral = serde_json::to_string(&answer.message).unwrap();
        for message in [answer.message.clone(), serde_json::from_str(&neutral).unwrap()] {
            let sent = send_back(message);
            let sent: Value = serde_json::from_slice(&sent).unwrap();
            assert_eq!(sent["messages"][1]["content"], Value::from(recorded.clone()), "{}", record["id"]);
        }
        // What is signed or written by the model keeps its bytes.
        let sent = String::from_utf8(send_back(answer.message.clone())).unwrap();
        for block in &recorded {
            for name in ["signature", "data", "input"].iter().filter(|name| !block[**name].is_null()) {
                let text = format!("\"{name}\":{}", block[*name]);
                assert!(sent.contains(&text), "{}: {text}", record["id"]);
            }
        }
    }
    eprintln!("{compared} answers sent back");
}

#[test]
fn neutral_messages_say_the_same_as_verbatim_ones() {
    // The neutral form of every recorded request, as another language would hand it over.
    for record in records() {
        let Some(body) = record["request"]["body"].as_object() else { continue };
        let request = LlmRequest::from_json(request_of(body).to_string().as_bytes()).unwrap();
        let stream = body.get("stream").is_some_and(|stream| stream == true);
        let neutral: Vec<Message> = request
            .messages
            .iter()
            .map(|message| serde_json::from_str(&serde_json::to_string(message).unwrap()).unwrap())
            .collect();
        let request = LlmRequest::from(RequestBody { messages: neutral, ..(*request).clone() });
        let wire = encode(&request, stream).unwrap();
        let sent: Value = serde_json::from_slice(&wire.body).unwrap();
        let flat = |messages: &Value| -> Vec<Value> {
            let mut all = Vec::new();
            for message in messages.as_array().unwrap() {
                let blocks = match &message["content"] {
                    Value::String(text) => json!([{"type": "text", "text": text}]),
                    other => other.clone(),
                };
                for mut block in blocks.as_array().unwrap().clone() {
                    let map = block.as_object_mut().unwrap();
                    map.retain(|_, value| !value.is_null());
                    if map["type"] == "tool_result" {
                        if map.get("is_error") == Some(&json!(false)) {
                            map.shift_remove("is_error");
                        }
                        if let Some(content) = map.get_mut("content") {
                            *content = normal_system(content);
                        }
                    }
                    all.push(json!([message["role"], block]));
                }
            }
            all
        };
        assert_eq!(flat(&sent["messages"]), flat(&record["request"]["body"]["messages"]), "{}", record["id"]);
    }
}
