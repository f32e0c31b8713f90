//! The Anthropic adapter against recorded exchanges: answers, streams, errors and requests.
//!
//! The recordings are no part of the repository. They are read from the folder in `LITER_LLM_RECORDED`, else from
//! `../shared/recorded` beside the repository; without them each test says so and passes, unless `CI` is `true`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "recorded_anthropic/requests.rs"]
mod requests;

use std::path::PathBuf;

use bytes::Bytes;
use http::HeaderMap;
use liter_llm::adapters::anthropic::AnthropicMessages;
use liter_llm::adapters::{Adapter, Frame, Quirks, Target};
use liter_llm::{BlockKind, ErrorKind, FinishReason, LlmChunk, LlmError, LlmResponse, fold};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn records() -> Vec<Value> {
    let folder = std::env::var_os("LITER_LLM_RECORDED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recorded"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("anthropic.jsonl")) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no recordings in {}", folder.display());
        eprintln!("SKIPPED: no recordings in {}", folder.display());
        return Vec::new();
    };
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["endpoint"] == "messages")
        .collect()
}

fn with_target<T>(stream: bool, work: impl FnOnce(&Target<'_>) -> T) -> T {
    let quirks = Quirks::default();
    work(&Target { provider: "anthropic", model: "", quirks: &quirks, stream })
}

fn headers_of(record: &Value) -> HeaderMap {
    record["response"]["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, http::HeaderValue::from_str(value.as_str()?).ok()?))
        })
        .collect()
}

/// The events of a recorded stream: name and data.
fn events_of(record: &Value) -> Option<Vec<(String, String)>> {
    let chunks = record["response"]["sse_chunks"].as_array()?;
    let text: String = chunks.iter().filter_map(Value::as_str).collect();
    let text = text.replace("\r\n", "\n");
    let mut events = Vec::new();
    for event in text.split("\n\n").filter(|event| !event.trim().is_empty()) {
        let mut name = "message".to_owned();
        let mut data = Vec::new();
        for line in event.lines() {
            if let Some(value) = line.strip_prefix("event:") {
                name = value.trim_start().to_owned();
            } else if let Some(value) = line.strip_prefix("data:") {
                data.push(value.strip_prefix(' ').unwrap_or(value).to_owned());
            }
        }
        events.push((name, data.join("\n")));
    }
    Some(events)
}

fn run(events: &[(String, String)]) -> Result<(LlmResponse, Vec<LlmChunk>), LlmError> {
    with_target(true, |target| {
        let mut decoder = AnthropicMessages.decoder(target);
        let mut chunks = Vec::new();
        for (name, data) in events {
            decoder.push(Frame::Event { name, data }, &mut chunks)?;
            if decoder.is_done() {
                break;
            }
        }
        decoder.finish(&mut chunks)?;
        Ok((fold(&chunks), chunks))
    })
}

fn decode(record: &Value) -> Result<LlmResponse, LlmError> {
    let body = Bytes::from(record["response"]["body"].to_string());
    let status = u16::try_from(record["response"]["status"].as_u64().unwrap()).unwrap();
    with_target(false, |target| AnthropicMessages.decode(status, &headers_of(record), &body, target))
}

fn answer_of(record: &Value) -> Result<LlmResponse, LlmError> {
    match events_of(record) {
        Some(events) => run(&events).map(|(answer, _)| answer),
        None => decode(record),
    }
}

fn opaque(answer: &LlmResponse) -> Vec<Value> {
    let blocks = answer.message.content().iter();
    blocks
        .filter_map(|block| match &block.kind {
            BlockKind::Opaque { json, .. } => Some(serde_json::from_str(json.get()).unwrap()),
            _ => None,
        })
        .collect()
}

/// What the recorded facts say, in the facts' own words, but computed from our answer.
fn facts_of(answer: &LlmResponse) -> Value {
    let (mut signatures, mut redacted, mut citations) = (0, 0, 0);
    let mut types = Vec::new();
    for block in answer.message.content() {
        types.push(match &block.kind {
            BlockKind::Text { citations: cited, .. } => {
                if let Some(cited) = cited {
                    citations += cited.read::<Vec<Value>>().unwrap().len();
                }
                "text".to_owned()
            }
            BlockKind::Reasoning(reasoning) if reasoning.encrypted.is_some() => {
                redacted += 1;
                "redacted_thinking".to_owned()
            }
            BlockKind::Reasoning(reasoning) => {
                signatures += usize::from(reasoning.signature.as_deref().is_some_and(|s| !s.is_empty()));
                "thinking".to_owned()
            }
            BlockKind::ToolCall { .. } => "tool_use".to_owned(),
            BlockKind::Opaque { json, .. } => {
                json.read::<Value>().unwrap()["type"].as_str().unwrap().to_owned()
            }
            other => panic!("an answer holds {other:?}"),
        });
    }
    let calls: Vec<Value> = answer
        .tool_calls()
        .iter()
        .map(|call| {
            json!({"id": call.id, "name": call.name, "arguments": serde_json::from_str::<Value>(call.arguments).unwrap()})
        })
        .collect();
    let server: Vec<Value> = opaque(answer)
        .iter()
        .filter(|block| block["type"] == "server_tool_use" || block["type"] == "mcp_tool_use")
        .map(|block| json!({"id": block["id"], "name": block["name"], "arguments": block["input"]}))
        .collect();
    let usage = answer.usage.clone().unwrap_or_default();
    let searches = usage.extra.get("server_tool_use").and_then(|raw| raw.read::<Value>().ok());
    json!({
        "id": answer.id,
        "model": answer.model,
        "text": answer.text(),
        "thinking": answer.reasoning(),
        "signatures": signatures,
        "redacted_thinking": redacted,
        "citations": citations,
        "tool_calls": calls,
        "server_tool_calls": server,
        "block_types": types,
        "stop_reason": answer.raw_finish_reason,
        "stop_sequence": answer.extra.get("stop_sequence").and_then(|raw| raw.as_string()),
        "usage": {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cache_read": usage.cache_read_input_tokens,
            "cache_write": usage.cache_creation_input_tokens,
            "web_search": searches.map_or(Value::Null, |searches| searches["web_search_requests"].clone()),
        },
    })
}

/// The recorded facts in the form of [`facts_of`]: input with cached tokens, calls without their raw text.
fn expected_facts(record: &Value) -> Value {
    let expected = &record["expected"];
    let calls = |name: &str| -> Vec<Value> {
        expected[name]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| json!({"id": call["id"], "name": call["name"], "arguments": call["arguments"]}))
            .collect()
    };
    let count = |name: &str| expected["usage"][name].as_u64().unwrap_or(0);
    let mut facts = Map::new();
    for name in [
        "id",
        "model",
        "text",
        "thinking",
        "signatures",
        "redacted_thinking",
        "citations",
        "block_types",
        "stop_reason",
        "stop_sequence",
    ] {
        facts.insert(name.to_owned(), expected[name].clone());
    }
    facts.insert("tool_calls".to_owned(), calls("tool_calls").into());
    facts.insert("server_tool_calls".to_owned(), calls("server_tool_calls").into());
    facts.insert(
        "usage".to_owned(),
        json!({
            "input": count("input") + count("cache_read") + count("cache_write"),
            "output": count("output"),
            "cache_read": count("cache_read"),
            "cache_write": count("cache_write"),
            "web_search": expected["usage"]["web_search"],
        }),
    );
    facts.into()
}

/// Recordings in which three answers stand one after the other in what is called one stream: the first ends with its
/// own `message_stop`, after which nothing is read.
const SEVERAL_ANSWERS: &[&str] =
    &["anthropic-messages-bd3571b857c4e3bf", "anthropic-messages-58f82e64530db2ca"];

fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    theirs
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, value)| ours[*name] != **value)
        .map(|(name, value)| format!("{name}: {} instead of {value}", ours[name]))
        .collect()
}

#[test]
fn answers_and_streams_say_what_was_recorded() {
    let mut compared = 0;
    let mut wrong = Vec::new();
    for record in records() {
        let expected = &record["expected"];
        let several = SEVERAL_ANSWERS.iter().any(|id| record["id"] == *id);
        if !expected["parser"].is_string() || !expected["error"].is_null() || several {
            continue;
        }
        compared += 1;
        match answer_of(&record) {
            Ok(answer) => {
                let found = differences(&facts_of(&answer), &expected_facts(&record));
                if !found.is_empty() {
                    wrong.push(format!("{}: {}", record["id"], found.join("; ")));
                }
            }
            Err(error) => wrong.push(format!("{}: {error:?}", record["id"])),
        }
    }
    eprintln!("{compared} answers compared");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_streams_pieces_are_the_recorded_ones() {
    for record in records() {
        let (Some(events), true) = (events_of(&record), record["expected"]["parser"].is_string()) else {
            continue;
        };
        if SEVERAL_ANSWERS.iter().any(|id| record["id"] == *id) {
            continue;
        }
        let (_, chunks) = run(&events).unwrap();
        let shown: Vec<Value> = chunks.iter().map(|chunk| serde_json::to_value(chunk).unwrap()).collect();
        let text: String = shown.iter().filter_map(|chunk| chunk["text"].as_str()).collect();
        assert_eq!(text, record["expected"]["delta_text"].as_str().unwrap_or_default(), "{}", record["id"]);
    }
}

#[test]
fn streams_without_facts_still_end_well() {
    // One stream is followed by another wire's `[DONE]`, at which the official parser fails.
    for record in records() {
        if let (Some(events), false) = (events_of(&record), record["expected"]["parser"].is_string()) {
            let (answer, _) = run(&events).unwrap();
            assert!(
                !answer.text().is_empty() && answer.finish_reason != FinishReason::Other,
                "{}",
                record["id"]
            );
        }
    }
}

#[test]
fn errors_are_typed() {
    for record in records() {
        let expected = &record["expected"]["error"];
        if expected.is_null() {
            continue;
        }
        let error = answer_of(&record).unwrap_err();
        let body = &record["response"]["body"];
        let kind = match record["response"]["status"].as_u64().unwrap() {
            401 => ErrorKind::Authentication,
            404 => ErrorKind::NotFound,
            _ => ErrorKind::InvalidRequest,
        };
        assert_eq!(error.kind(), kind, "{}", record["id"]);
        let detail = error.detail();
        assert_eq!(detail.message, body["error"]["message"].as_str().unwrap(), "{}", record["id"]);
        assert_eq!(detail.code.as_deref(), body["error"]["type"].as_str(), "{}", record["id"]);
        if let Some(id) = body["request_id"].as_str() {
            assert!(detail.request_id.is_some(), "{} has the request id {id}", record["id"]);
        }
        assert!(!error.is_retryable(), "{}", record["id"]);
    }
}

#[test]
fn a_cut_stream_is_never_a_success() {
    for record in records() {
        let Some(events) = events_of(&record) else { continue };
        let stop = events.iter().position(|(_, data)| data.contains("\"message_stop\"")).unwrap();
        for end in 0..=stop {
            let error = run(&events[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StreamInterrupted, "{} cut at {end}", record["id"]);
        }
    }
}

/// A whole answer as the events a stream of it would have.
fn events_from(body: &Value) -> Vec<(String, String)> {
    let mut start = body.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    let extra: Map<String, Value> = ["stop_sequence", "stop_details", "container"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), start.as_object_mut().unwrap().shift_remove(*name)?)))
        .collect();
    let mut usage = start["usage"].clone();
    usage["output_tokens"] = json!(1);
    start["usage"] = usage;
    let mut events = vec![json!({"type": "message_start", "message": start}), json!({"type": "ping"})];
    for (index, block) in body["content"].as_array().unwrap().iter().enumerate() {
        let mut first = block.clone();
        let mut deltas = Vec::new();
        let mut cut = |kind: &str, name: &str, text: &str| {
            let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
            for piece in [&text[..middle], &text[middle..]] {
                deltas.push(json!({"type": kind, name: piece}));
            }
        };
        match block["type"].as_str().unwrap() {
            "text" => {
                cut("text_delta", "text", block["text"].as_str().unwrap());
                first["text"] = json!("");
                if let Some(citations) = block["citations"].as_array() {
                    first["citations"] = json!([]);
                    deltas.extend(
                        citations.iter().map(|one| json!({"type": "citations_delta", "citation": one})),
                    );
                }
            }
            "thinking" => {
                cut("thinking_delta", "thinking", block["thinking"].as_str().unwrap());
                let signature = &block["signature"];
                deltas.push(json!({"type": "signature_delta", "signature": signature}));
                first["thinking"] = json!("");
                first["signature"] = json!("");
            }
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                first["input"] = json!({});
                if block["input"] != json!({}) {
                    cut("input_json_delta", "partial_json", &block["input"].to_string());
                } else {
                    deltas.push(json!({"type": "input_json_delta", "partial_json": ""}));
                }
            }
            "compaction" => {
                first["content"] = Value::Null;
                deltas.push(json!({"type": "compaction_delta", "content": block["content"]}));
            }
            _ => {}
        }
        events.push(json!({"type": "content_block_start", "index": index, "content_block": first}));
        events.extend(
            deltas
                .into_iter()
                .map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
        );
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let mut delta = extra;
    delta.insert("stop_reason".to_owned(), body["stop_reason"].clone());
    let usage = json!({"output_tokens": body["usage"]["output_tokens"], "cache_read_input_tokens": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    events.iter().map(|event| (event["type"].as_str().unwrap().to_owned(), event.to_string())).collect()
}

#[test]
fn folding_a_stream_gives_the_whole_answer() {
    let mut compared = 0;
    for record in records() {
        let body = &record["response"]["body"];
        if body["content"].is_array() {
            compared += 1;
            let (folded, _) = run(&events_from(body)).unwrap();
            assert_eq!(folded, decode(&record).unwrap(), "{}", record["id"]);
        }
    }
    eprintln!("{compared} answers streamed and folded");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_answers_never_panic(seed in any::<u64>()) {
        thread_local!(static RECORDS: Vec<Value> = records());
        RECORDS.with(|records| {
            if records.is_empty() {
                return;
            }
            let mut state = seed | 1;
            let mut random = |limit: usize| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                usize::try_from(state % u64::try_from(limit.max(1)).unwrap()).unwrap()
            };
            let record = &records[random(records.len())];
            if let Some(mut events) = events_of(record) {
                for _ in 0..3 {
                    let (at, other) = (random(events.len()), random(events.len()));
                    match random(3) {
                        0 => events.swap(at, other),
                        1 => drop(events.remove(at)),
                        _ => {
                            let damaged = damage(events[at].1.as_bytes(), &mut random);
                            events[at].1 = String::from_utf8_lossy(&damaged).into_owned();
                        }
                    }
                    if events.is_empty() {
                        break;
                    }
                }
                drop(run(&events));
            } else {
                let body = damage(record["response"]["body"].to_string().as_bytes(), &mut random);
                let body = Bytes::from(body);
                let status = [200, 400, 429, 529][random(4)];
                with_target(false, |target| {
                    drop(AnthropicMessages.decode(status, &HeaderMap::new(), &body, target));
                });
            }
        });
    }
}

/// Cuts the bytes or changes some of them.
fn damage(bytes: &[u8], random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if random(2) == 0 {
        bytes.truncate(random(bytes.len()));
    }
    for _ in 0..random(4) {
        if !bytes.is_empty() {
            let at = random(bytes.len());
            bytes[at] = b"\"{}[],:0n\\\xff"[random(11)];
        }
    }
    bytes
}
