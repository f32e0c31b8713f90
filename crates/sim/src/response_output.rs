//! The output items of a Responses answer, and the events that stream them.

use serde_json::{Value, json};

use crate::answer::{self, Answer, Finish, Hash, letters, mix};
use crate::anthropic_check::sign;
use crate::reply::FrameKind;

/// A finished response with what its events need.
pub(crate) struct Turn {
    pub response: Value,
    pub opening: Value,
    pub answer: Answer,
    pub logprobs: Option<usize>,
}

/// A 64-bit value as hexadecimal digits, `length` long.
pub(crate) fn hex(value: u64, length: usize) -> String {
    let mut text = String::with_capacity(length + 16);
    let mut state = value;
    while text.len() < length {
        state = mix(state);
        text.push_str(&format!("{state:016x}"));
    }
    text.truncate(length);
    text
}

pub(crate) fn output(
    answer: &Answer,
    summary: bool,
    encrypted: bool,
    reasons: bool,
    logprobs: Option<usize>,
) -> Vec<Value> {
    let mut output = Vec::new();
    if reasons {
        let parts =
            if summary { json!([{"type": "summary_text", "text": answer.reasoning}]) } else { json!([]) };
        let mut item =
            json!({"id": format!("rs_{}", hex(answer.hash ^ 1, 48)), "type": "reasoning", "summary": parts});
        if encrypted && let Some(fields) = item.as_object_mut() {
            fields.insert("encrypted_content".to_owned(), json!(sign(answer.hash, "encrypted")));
        }
        output.push(item);
    }
    let last_cut = answer.finish == Finish::Length;
    if answer.finish == Finish::Refusal {
        output.push(json!({"id": format!("msg_{}", hex(answer.hash, 48)), "type": "message", "status": "completed", "role": "assistant",
            "content": [{"type": "refusal", "refusal": answer.text}]}));
    } else if !answer.text.is_empty() || (answer.calls.is_empty() && !last_cut) {
        output.push(json!({"id": format!("msg_{}", hex(answer.hash, 48)), "type": "message",
            "status": if last_cut { "incomplete" } else { "completed" }, "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": probabilities(&answer.text, answer.hash, logprobs), "text": answer.text}]}));
    }
    for (i, call) in answer.calls.iter().enumerate() {
        let cut = last_cut && i + 1 == answer.calls.len();
        let status = if cut { "incomplete" } else { "completed" };
        let call_id = format!("call_{}", letters(call.id, 24));
        output.push(if call.custom {
            json!({"id": format!("ctc_{}", hex(call.id, 48)), "type": "custom_tool_call", "status": status, "call_id": call_id, "name": call.name, "input": call.arguments})
        } else {
            json!({"id": format!("fc_{}", hex(call.id, 48)), "type": "function_call", "status": status, "arguments": call.arguments, "call_id": call_id, "name": call.name})
        });
    }
    output
}

fn probabilities(text: &str, hash: u64, top: Option<usize>) -> Value {
    let Some(top) = top else {
        return json!([]);
    };
    let one =
        |token: &str, chance: f64| json!({"token": token, "bytes": token.as_bytes(), "logprob": chance.ln()});
    let all = answer::tokens(text).into_iter().map(|range| {
        let token = text.get(range).unwrap_or_default();
        let chance = 0.6 + (mix(hash ^ Hash::new(token).0) % 390) as f64 / 1000.0;
        let mut entry = one(token, chance);
        let others: Vec<Value> = (0..top)
            .map(|rank| {
                let other = format!("{token}{}", "'".repeat(rank));
                one(&other, if rank == 0 { chance } else { (1.0 - chance) / f64::from(1u32 << rank.min(20)) })
            })
            .collect();
        entry["top_logprobs"] = json!(others);
        entry
    });
    Value::Array(all.collect())
}

impl Turn {
    /// The events of the response, numbered from 0.
    pub(crate) fn events(&self) -> Vec<(FrameKind, Value)> {
        let mut list: Vec<(FrameKind, Value)> = Vec::new();
        let mut add = |kind: FrameKind, mut event: Value| {
            event["sequence_number"] = json!(list.len());
            list.push((kind, event));
        };
        let edge = FrameKind::Structure;
        add(edge, json!({"type": "response.created", "response": self.opening}));
        add(edge, json!({"type": "response.in_progress", "response": self.opening}));
        for (index, item) in self.response["output"].as_array().into_iter().flatten().enumerate() {
            let id = &item["id"];
            let mut opening = item.clone();
            if item["type"] != "reasoning" {
                opening["status"] = json!("in_progress");
            }
            for (name, blank) in [
                ("content", json!([])),
                ("summary", json!([])),
                ("arguments", json!("")),
                ("input", json!("")),
            ] {
                if item.get(name).is_some() {
                    opening[name] = blank;
                }
            }
            add(edge, json!({"type": "response.output_item.added", "output_index": index, "item": opening}));
            let at = |kind: &str, more: Value| {
                let mut event =
                    json!({"type": format!("response.{kind}"), "item_id": id, "output_index": index});
                if let (Some(fields), Value::Object(more)) = (event.as_object_mut(), more) {
                    fields.extend(more);
                }
                event
            };
            match item["type"].as_str() {
                Some("reasoning") => {
                    for (part, summary) in item["summary"].as_array().into_iter().flatten().enumerate() {
                        let text = summary["text"].as_str().unwrap_or("");
                        add(
                            edge,
                            at(
                                "reasoning_summary_part.added",
                                json!({"summary_index": part, "part": {"type": "summary_text", "text": ""}}),
                            ),
                        );
                        for piece in pieces(text) {
                            add(
                                FrameKind::Token,
                                at(
                                    "reasoning_summary_text.delta",
                                    json!({"summary_index": part, "delta": piece}),
                                ),
                            );
                        }
                        add(
                            edge,
                            at("reasoning_summary_text.done", json!({"summary_index": part, "text": text})),
                        );
                        add(
                            edge,
                            at(
                                "reasoning_summary_part.done",
                                json!({"summary_index": part, "part": summary}),
                            ),
                        );
                    }
                }
                Some("message") => {
                    let part = &item["content"][0];
                    let refused = part["type"] == "refusal";
                    let text = part[if refused { "refusal" } else { "text" }].as_str().unwrap_or("");
                    let blank = if refused {
                        json!({"type": "refusal", "refusal": ""})
                    } else {
                        json!({"type": "output_text", "annotations": [], "logprobs": [], "text": ""})
                    };
                    add(edge, at("content_part.added", json!({"content_index": 0, "part": blank})));
                    for piece in pieces(text) {
                        let more = if refused {
                            json!({"content_index": 0, "delta": piece})
                        } else {
                            json!({"content_index": 0, "delta": piece, "logprobs": probabilities(piece, self.answer.hash, self.logprobs)})
                        };
                        add(
                            FrameKind::Token,
                            at(if refused { "refusal.delta" } else { "output_text.delta" }, more),
                        );
                    }
                    if refused {
                        add(edge, at("refusal.done", json!({"content_index": 0, "refusal": text})));
                    } else {
                        add(
                            edge,
                            at(
                                "output_text.done",
                                json!({"content_index": 0, "text": text, "logprobs": part["logprobs"]}),
                            ),
                        );
                    }
                    add(edge, at("content_part.done", json!({"content_index": 0, "part": part})));
                }
                Some("function_call") => {
                    let arguments = item["arguments"].as_str().unwrap_or("");
                    for piece in pieces(arguments) {
                        add(FrameKind::Token, at("function_call_arguments.delta", json!({"delta": piece})));
                    }
                    add(
                        edge,
                        at(
                            "function_call_arguments.done",
                            json!({"name": item["name"], "arguments": arguments}),
                        ),
                    );
                }
                Some("custom_tool_call") => {
                    let input = item["input"].as_str().unwrap_or("");
                    for piece in pieces(input) {
                        add(FrameKind::Token, at("custom_tool_call_input.delta", json!({"delta": piece})));
                    }
                    add(edge, at("custom_tool_call_input.done", json!({"input": input})));
                }
                _ => {}
            }
            add(edge, json!({"type": "response.output_item.done", "output_index": index, "item": item}));
        }
        let end = if self.response["status"] == "incomplete" {
            "response.incomplete"
        } else {
            "response.completed"
        };
        add(FrameKind::Terminator, json!({"type": end, "response": self.response}));
        list
    }
}

fn pieces(text: &str) -> impl Iterator<Item = &str> {
    answer::tokens(text).into_iter().map(|range| text.get(range).unwrap_or_default())
}
