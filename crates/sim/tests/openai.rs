//! Chat completions, models and embeddings over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use serde_json::{Value, json};
use wire::{KEY, chat, post, request, sim};

fn ask(text: &str) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]})
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn weather() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}])
}

/// The text of a stream's choice 0.
fn folded(events: &[Value], field: &str) -> String {
    events.iter().filter_map(|e| e["choices"][0]["delta"][field].as_str()).collect()
}

#[test]
fn whole_and_streamed_are_the_same() {
    let sim = sim(&[]);
    let body = ask("Explain the CAP theorem in 3 sentences.");
    let whole = chat(&sim, &body);
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("application/json")));
    assert!(
        whole.header("x-request-id").is_some() && whole.header("x-ratelimit-remaining-requests").is_some()
    );
    let whole = whole.json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("CAP theorem") && whole["choices"][0]["finish_reason"] == "stop");
    assert_eq!(chat(&sim, &body).json()["choices"], whole["choices"]);
    let stream =
        chat(&sim, &with(body, json!({"stream": true, "stream_options": {"include_usage": true}}))).events();
    assert_eq!(folded(&stream, "content"), text);
    assert_eq!(stream.last().unwrap(), "[DONE]");
    assert_eq!(stream[stream.len() - 2]["usage"], whole["usage"]);
    assert_eq!(stream[stream.len() - 3]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn limits_and_stops() {
    let sim = sim(&[]);
    let short = chat(&sim, &with(ask("Hello"), json!({"max_tokens": 4}))).json();
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&json!("length"), &json!(4))
    );
    let stopped = chat(&sim, &with(ask("Hello"), json!({"stop": ["\"Hello"]}))).json();
    assert!(!stopped["choices"][0]["message"]["content"].as_str().unwrap().contains("Hello"));
    let counted = chat(&sim, &ask("[tokens=300]")).json();
    assert_eq!(counted["usage"]["completion_tokens"], 300);
    assert_eq!(chat(&sim, &ask("[echo] just this")).json()["choices"][0]["message"]["content"], "just this");
}

#[test]
fn tools_are_called_and_their_results_used() {
    let sim = sim(&[]);
    let body = with(ask("What is the weather in Paris?"), json!({"tools": weather()}));
    let answer = chat(&sim, &body).json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"city\":\"Paris\"}");
    let stream = chat(&sim, &with(body.clone(), json!({"stream": true}))).events();
    let calls: Vec<&Value> =
        stream.iter().map(|e| &e["choices"][0]["delta"]["tool_calls"][0]).filter(|c| c.is_object()).collect();
    assert_eq!(calls[0]["id"], message["tool_calls"][0]["id"]);
    let arguments: String = calls.iter().filter_map(|c| c["function"]["arguments"].as_str()).collect();
    assert_eq!(arguments, "{\"city\":\"Paris\"}");
    let result =
        json!({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "18 degrees"});
    let next = with(body.clone(), json!({"messages": [body["messages"][0], message, result]}));
    assert!(
        chat(&sim, &next).json()["choices"][0]["message"]["content"].as_str().unwrap().contains("18 degrees")
    );

    let none = chat(&sim, &with(body.clone(), json!({"tool_choice": "none"}))).json();
    assert_eq!(none["choices"][0]["finish_reason"], "stop");
    let forced = with(
        ask("Hi"),
        json!({"tools": weather(), "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}),
    );
    assert_eq!(
        chat(&sim, &forced).json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"],
        "get_weather"
    );
    let two = with(ask("Tell me both: weather in Paris and in London"), json!({"tools": weather()}));
    let calls = chat(&sim, &two).json()["choices"][0]["message"]["tool_calls"].clone();
    assert_eq!(
        (calls.as_array().unwrap().len(), &calls[1]["function"]["arguments"]),
        (2, &json!("{\"city\":\"London\"}"))
    );
    let one = chat(&sim, &with(two, json!({"parallel_tool_calls": false}))).json();
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
}

#[test]
fn structured_output_reasoning_logprobs_refusal_and_n() {
    let sim = sim(&[]);
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"], "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}});
    let answer = chat(&sim, &with(ask("Make Ada aged 36"), json!({"response_format": format}))).json();
    let value: Value =
        serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert_eq!(value, json!({"name": "Ada", "age": 36}));
    let answer =
        chat(&sim, &with(ask("as json"), json!({"response_format": {"type": "json_object"}}))).json();
    assert!(
        serde_json::from_str::<Value>(answer["choices"][0]["message"]["content"].as_str().unwrap())
            .unwrap()
            .is_object()
    );

    let answer = chat(&sim, &with(ask("Hi"), json!({"model": "gpt-5", "reasoning_effort": "high"}))).json();
    assert!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 30);
    let shown =
        post(&sim, "/deepseek/v1/chat/completions", &with(ask("Hi"), json!({"reasoning_effort": "low"})))
            .json();
    assert!(shown["choices"][0]["message"]["reasoning_content"].is_string());

    let answer = chat(&sim, &with(ask("Hi"), json!({"logprobs": true, "top_logprobs": 3, "n": 2}))).json();
    assert_eq!(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array().unwrap().len(), 3);
    assert_ne!(answer["choices"][0]["message"], answer["choices"][1]["message"]);
    let refused = chat(&sim, &ask("[refuse] please")).json();
    assert!(
        refused["choices"][0]["message"]["refusal"].is_string()
            && refused["choices"][0]["message"]["content"].is_null()
    );
}

#[test]
fn a_long_prompt_is_cached() {
    let sim = sim(&[]);
    let body = ask(&"many words ".repeat(1000));
    assert_eq!(chat(&sim, &body).json()["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert!(
        chat(&sim, &body).json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() >= 1024
    );
}

#[test]
fn images_audio_and_files() {
    let sim = sim(&[]);
    let part = |part: Value| {
        chat(
            &sim,
            &json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, part]}]}),
        )
    };
    let image =
        part(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}})).json();
    assert!(image["usage"]["prompt_tokens"].as_u64().unwrap() > 700);
    assert!(image["choices"][0]["message"]["content"].as_str().unwrap().contains("image"));
    assert_eq!(
        part(json!({"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}})).status,
        200
    );
    assert_eq!(part(json!({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGVsbG8="}})).status, 200);
    for wrong in [
        json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,###"}}),
        json!({"type": "image_url", "image_url": {"url": "ftp://x"}}),
        json!({"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "ogg"}}),
        json!({"type": "film"}),
    ] {
        assert_eq!(part(wrong).status, 400);
    }
}

#[test]
fn wrong_requests_get_the_vendors_errors() {
    let sim = sim(&[]);
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    for (body, status, param, code) in [
        (json!({"messages": []}), 400, json!(null), json!(null)),
        (json!({"model": "m"}), 400, json!("messages"), json!("missing_required_parameter")),
        (json!({"model": "m", "messages": []}), 400, json!("messages"), json!("empty_array")),
        (with(ask("x"), json!({"model": "no-such-model"})), 404, json!(null), json!("model_not_found")),
        (
            with(ask("x"), json!({"temperature": 99})),
            400,
            json!("temperature"),
            json!("decimal_above_max_value"),
        ),
        (
            with(ask("x"), json!({"temperature": -1})),
            400,
            json!("temperature"),
            json!("decimal_below_min_value"),
        ),
        (
            with(ask("x"), json!({"max_tokens": 0})),
            400,
            json!("max_tokens"),
            json!("integer_below_min_value"),
        ),
        (with(ask("x"), json!({"tool_choice": "required"})), 400, json!("tool_choice"), json!(null)),
        (
            json!({"model": "m", "messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}),
            400,
            json!("messages.[0].role"),
            json!(null),
        ),
        (
            json!({"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}),
            400,
            json!("messages"),
            json!(null),
        ),
        (
            json!({"model": "m", "messages": [{"role": "king", "content": "y"}]}),
            400,
            json!("messages[0].role"),
            json!("invalid_value"),
        ),
    ] {
        let answer = chat(&sim, &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["param"], &error["code"]), (status, &param, &code), "{body}");
        assert!(error["message"].is_string() && error["type"] == "invalid_request_error");
    }
    let path = "/openai/v1/chat/completions";
    assert_eq!(request(&sim, "POST", path, &[KEY], "{nonsense").status, 400);
    assert_eq!(request(&sim, "POST", path, &[], &ask("x").to_string()).status, 401);
    let wrong = request(&sim, "POST", path, &[("authorization", "Bearer sk-wrong")], &ask("x").to_string());
    assert_eq!((wrong.status, &wrong.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    assert_eq!(request(&sim, "GET", path, &[KEY], "").status, 405);
    assert_eq!(request(&sim, "POST", "/openai/v1/nothing", &[KEY], "{}").status, 404);
    assert_eq!(request(&sim, "POST", "/ollama/v1/chat/completions", &[], &ask("x").to_string()).status, 200);
    assert_eq!(request(&sim, "POST", "/v1/chat/completions", &[KEY], &ask("x").to_string()).status, 200);
    assert_eq!(
        post(&sim, "/mistral/v1/chat/completions", &with(ask("x"), json!({"model": "no-such"}))).json()["object"],
        "error"
    );
}

#[test]
fn models_and_embeddings() {
    let sim = sim(&[]);
    let list = request(&sim, "GET", "/openai/v1/models", &[KEY], "").json();
    assert!(list["data"].as_array().unwrap().len() > 3);
    assert_eq!(request(&sim, "GET", "/openai/v1/models/gpt-4o", &[KEY], "").json()["id"], "gpt-4o");
    assert_eq!(request(&sim, "GET", "/openai/v1/models/no-such", &[KEY], "").status, 404);
    let body = json!({"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8});
    let made = post(&sim, "/openai/v1/embeddings", &body).json();
    let vector: Vec<f64> =
        made["data"][1]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(vector.len(), 8);
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-6);
    assert_eq!(post(&sim, "/openai/v1/embeddings", &body).json()["data"], made["data"]);
}

#[test]
fn strict_schemas_are_checked() {
    let sim = sim(&[]);
    let open = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
    let closed = with(open.clone(), json!({"additionalProperties": false}));
    let optional = with(closed.clone(), json!({"required": []}));
    let nested = with(closed.clone(), json!({"properties": {"a": {"type": "array", "items": open}}}));
    for (schema, status) in [(&open, 400), (&closed, 200), (&optional, 400), (&nested, 400)] {
        let format =
            json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
        let answer = chat(&sim, &with(ask("x"), json!({"response_format": format})));
        assert_eq!(answer.status, status, "{schema}: {}", answer.text());
        let tools =
            json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}]);
        assert_eq!(chat(&sim, &with(ask("x"), json!({"tools": tools}))).status, status);
        let text = json!({"format": {"type": "json_schema", "name": "n", "strict": true, "schema": schema}});
        let body = json!({"model": "m", "input": "x", "text": text});
        assert_eq!(post(&sim, "/openai/v1/responses", &body).status, status);
    }
}
