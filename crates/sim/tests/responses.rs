//! Responses over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use serde_json::{Value, json};
use wire::{KEY, post, request, sim};

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn responses_whole_and_as_events() {
    let sim = sim(&[]);
    let body = json!({"model": "gpt-5", "input": "Hello there", "reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]});
    let whole = post(&sim, "/openai/v1/responses", &body).json();
    assert_eq!((&whole["status"], &whole["output"][0]["type"]), (&json!("completed"), &json!("reasoning")));
    let stream = post(&sim, "/openai/v1/responses", &with(body.clone(), json!({"stream": true}))).events();
    for (i, event) in stream.iter().enumerate() {
        assert_eq!(event["sequence_number"], i);
    }
    let last = stream.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["output"]),
        (&json!("response.completed"), &whole["output"])
    );
    let text: String = stream
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta")
        .filter_map(|e| e["delta"].as_str())
        .collect();
    assert_eq!(text, whole["output"][1]["content"][0]["text"]);

    let id = whole["id"].as_str().unwrap();
    assert_eq!(
        request(&sim, "GET", &format!("/openai/v1/responses/{id}"), &[KEY], "").json()["output"],
        whole["output"]
    );
    let next = post(
        &sim,
        "/openai/v1/responses",
        &json!({"model": "gpt-5", "input": "More", "previous_response_id": id}),
    );
    assert!(next.json()["usage"]["input_tokens"].as_u64() > whole["usage"]["input_tokens"].as_u64());
    assert_eq!(request(&sim, "DELETE", &format!("/openai/v1/responses/{id}"), &[KEY], "").status, 200);
    let lost = post(
        &sim,
        "/openai/v1/responses",
        &json!({"model": "gpt-5", "input": "More", "previous_response_id": id}),
    );
    assert_eq!((lost.status, &lost.json()["error"]["code"]), (400, &json!("previous_response_not_found")));
    let unsaved = post(&sim, "/openai/v1/responses", &with(body.clone(), json!({"store": false}))).json();
    assert_eq!(
        request(
            &sim,
            "GET",
            &format!("/openai/v1/responses/{}", unsaved["id"].as_str().unwrap()),
            &[KEY],
            ""
        )
        .status,
        404
    );

    let mut items = vec![json!({"role": "user", "content": "Hello there"})];
    items.extend(whole["output"].as_array().unwrap().clone());
    items.push(json!({"role": "user", "content": "And?"}));
    assert_eq!(post(&sim, "/openai/v1/responses", &json!({"model": "gpt-5", "input": items})).status, 200);
    items[1]["encrypted_content"] = json!("tampered");
    assert_eq!(
        post(&sim, "/openai/v1/responses", &json!({"model": "gpt-5", "input": items})).json()["error"]["code"],
        "invalid_encrypted_content"
    );

    let short = post(
        &sim,
        "/openai/v1/responses",
        &json!({"model": "gpt-4o", "input": "x", "max_output_tokens": 16}),
    )
    .json();
    assert_eq!(
        (&short["status"], &short["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
}

#[test]
fn responses_tools() {
    let sim = sim(&[]);
    let tools = json!([{"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
        {"type": "custom", "name": "shell"}]);
    let call = post(
        &sim,
        "/openai/v1/responses",
        &json!({"model": "gpt-4o", "input": "the weather in Oslo", "tools": tools}),
    )
    .json();
    let item = &call["output"][0];
    assert_eq!((&item["type"], &item["arguments"]), (&json!("function_call"), &json!("{\"city\":\"Oslo\"}")));
    let input = json!([{"role": "user", "content": "the weather in Oslo"}, item, {"type": "function_call_output", "call_id": item["call_id"], "output": "rain"}]);
    let text =
        post(&sim, "/openai/v1/responses", &json!({"model": "gpt-4o", "input": input, "tools": tools}))
            .json();
    assert!(text["output"][0]["content"][0]["text"].as_str().unwrap().contains("rain"));
    let custom = post(
        &sim,
        "/openai/v1/responses",
        &json!({"model": "gpt-4o", "input": "use the shell", "tools": tools}),
    )
    .json();
    assert_eq!(custom["output"][0]["type"], "custom_tool_call");
    let lone = json!([{"type": "function_call_output", "call_id": "call_x", "output": "rain"}]);
    assert_eq!(post(&sim, "/openai/v1/responses", &json!({"model": "gpt-4o", "input": lone})).status, 400);
}
