//! Every recorded chat completion, read by the adapter and compared with the facts that other parsers derived from it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use liter_llm::adapters::{Adapter, Frame, OpenAiChat, Quirks, Target};
use liter_llm::core::content::BlockKind;
use liter_llm::providers;
use liter_llm::{ErrorKind, LlmChunk, LlmError, LlmRequest, LlmResponse, RawJson, fold};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Record<'a> {
    id: String,
    provider: String,
    endpoint: String,
    #[serde(borrow)]
    request: Option<Request<'a>>,
    #[serde(borrow)]
    response: Answer<'a>,
    #[serde(default)]
    expected: Value,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
    #[serde(default)]
    body_text: Option<String>,
    #[serde(default)]
    sse_chunks: Option<Vec<String>>,
}

impl Record<'_> {
    fn quirks(&self) -> Quirks {
        providers::row(&self.provider).map(|row| row.quirks.clone()).unwrap_or_default()
    }

    fn headers(&self) -> HeaderMap {
        self.response
            .headers
            .iter()
            .filter_map(|(name, value)| {
                let value = value.as_str()?;
                Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
            })
            .collect()
    }

    fn body(&self) -> Bytes {
        match (&self.response.body_text, self.response.body) {
            (Some(text), _) => Bytes::from(text.clone()),
            (None, Some(raw)) => Bytes::from(raw.get().to_owned()),
            (None, None) => Bytes::new(),
        }
    }

    fn events(&self) -> Option<Vec<(String, String)>> {
        self.response.sse_chunks.as_ref().map(|chunks| events(&chunks.concat()))
    }

    fn whole(&self) -> Result<LlmResponse, LlmError> {
        let quirks = self.quirks();
        let target = target(&self.provider, &quirks);
        OpenAiChat.decode(self.response.status, &self.headers(), &self.body(), &target)
    }
}

fn target<'a>(provider: &'a str, quirks: &'a Quirks) -> Target<'a> {
    Target { provider, model: "the-model", quirks, stream: false }
}

/// Splits a stream into events; enough for recordings, which are not cut at odd places.
fn events(text: &str) -> Vec<(String, String)> {
    let mut events = Vec::new();
    for event in text.replace("\r\n", "\n").split("\n\n") {
        let (mut name, mut data) = ("message".to_owned(), Vec::new());
        for line in event.lines().map(str::trim_start) {
            if let Some(rest) = line.strip_prefix("data:") {
                data.push(rest.strip_prefix(' ').unwrap_or(rest));
            } else if let Some(rest) = line.strip_prefix("event:") {
                rest.trim().clone_into(&mut name);
            }
        }
        if !data.is_empty() {
            events.push((name, data.join("\n")));
        }
    }
    events
}

fn streamed(
    provider: &str,
    events: &[(String, String)],
    chunks: &mut Vec<LlmChunk>,
) -> Result<bool, LlmError> {
    let quirks = Quirks::default();
    let mut decoder = OpenAiChat.decoder(&target(provider, &quirks));
    for (name, data) in events {
        decoder.push(Frame::Event { name, data }, chunks)?;
        if decoder.is_done() {
            break;
        }
    }
    let done = decoder.is_done();
    decoder.finish(chunks)?;
    Ok(done)
}

fn for_each(mut check: impl FnMut(&Record<'_>)) -> bool {
    let folder = std::env::var_os("LITER_LLM_RECORDED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recorded"),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "recordings are missing: {}", folder.display());
        println!("SKIPPED recorded_chat: no recordings at {}", folder.display());
        return false;
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut count = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "jsonl")) {
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let record: Record<'_> = serde_json::from_str(line).unwrap();
            if record.endpoint == "chat.completions" {
                count += 1;
                check(&record);
            }
        }
    }
    assert!(count > 0, "no chat completions in {}", folder.display());
    true
}

/// The class of OpenAI's SDK that a kind stands for.
fn class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Authentication => "openai.AuthenticationError",
        ErrorKind::PermissionDenied => "openai.PermissionDeniedError",
        ErrorKind::NotFound => "openai.NotFoundError",
        ErrorKind::RateLimited | ErrorKind::QuotaExhausted => "openai.RateLimitError",
        ErrorKind::InvalidRequest | ErrorKind::ContextLength | ErrorKind::ContentFilter => {
            "openai.BadRequestError"
        }
        ErrorKind::Overloaded | ErrorKind::ProviderError | ErrorKind::Timeout => "openai.InternalServerError",
        _ => "?",
    }
}

fn same_error(error: &LlmError, expected: &Value) -> Result<(), String> {
    let detail = error.detail();
    let mut wrong = Vec::new();
    let mut check = |what: &str, ours: Value, theirs: &Value| {
        if !theirs.is_null() && ours != *theirs {
            wrong.push(format!("{what}: {ours} for {theirs}"));
        }
    };
    check("status", json!(detail.status_code), &expected["status"]);
    check("message", json!(detail.message), &expected["message"]);
    check("class", json!(class(error.kind())), &expected["sdk_exception"]);
    check("param", json!(detail.param), &expected["param"]);
    if !expected["sdk_code"].is_null() {
        check("code", json!(detail.code), &expected["sdk_code"]);
    }
    check("provider", json!(detail.provider.is_some() && detail.model.is_some()), &json!(true));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn same_answer(answer: &LlmResponse, expected: &Value) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, ours: Value, theirs: &Value| {
        if ours != *theirs {
            wrong.push(format!("{what}: {ours} for {theirs}"));
        }
    };
    if !expected["id"].is_null() {
        check("id", json!(answer.id), &expected["id"]);
    }
    if !expected["model"].is_null() {
        check("model", json!(answer.model), &expected["model"]);
    }
    let usage = &expected["usage"];
    // `null`: none where OpenAI has it; Groq says it elsewhere.
    if !usage.is_null() {
        let ours = answer.usage.clone().unwrap_or_default();
        check("input", json!(ours.input_tokens), &usage["input"]);
        check("output", json!(ours.output_tokens), &usage["output"]);
        // `null` there means that OpenAI's own field is missing; the host may say it elsewhere.
        for (name, ours) in
            [("cached", ours.cache_read_input_tokens), ("reasoning", ours.reasoning_output_tokens)]
        {
            if !usage[name].is_null() {
                check(name, json!(ours), &usage[name]);
            }
        }
    }
    let none = Vec::new();
    let choices = expected["choices"].as_array().unwrap_or(&none);
    let others: Vec<Value> = answer.extra.get("choices").map(|json| json.read().unwrap()).unwrap_or_default();
    check("choices", json!(others.len() + 1), &json!(choices.len()));
    for (choice, other) in choices.iter().skip(1).zip(&others) {
        let message: liter_llm::Message = serde_json::from_value(other["message"].clone()).unwrap();
        check("other text", json!(message.text()), &choice["text"]);
        check("other finish", other["raw_finish_reason"].clone(), &choice["finish_reason"]);
    }
    let choice = &choices[0];
    check("text", json!(answer.text()), &choice["text"]);
    check("reasoning", json!(answer.reasoning()), &choice["reasoning"]);
    let refusal = choice["refusal"].as_str().filter(|text| !text.is_empty());
    check("refusal", json!(answer.refusal()), &json!(refusal));
    check("finish", json!(answer.raw_finish_reason), &choice["finish_reason"]);
    let calls: Vec<Value> =
        answer.tool_calls().iter().map(|call| json!([call.id, call.name, call.arguments])).collect();
    let theirs: Vec<Value> = choice["tool_calls"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .map(|call| json!([call["id"], call["name"], call["arguments_raw"].as_str().unwrap_or_default()]))
        .collect();
    check("tool calls", json!(calls), &json!(theirs));
    let citations: usize = answer
        .message
        .content()
        .iter()
        .filter_map(|block| match &block.kind {
            BlockKind::Text { citations: Some(list), .. } => list.read::<Vec<Value>>().ok().map(|l| l.len()),
            _ => None,
        })
        .sum();
    check("citations", json!(citations), &choice["annotations"]);
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

#[test]
fn recorded_facts() {
    let mut tally: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut failures = Vec::new();
    let ran = for_each(|record| {
        let expected = &record.expected;
        let facts = !expected["parser"].is_null();
        let result = match record.events() {
            Some(events) => {
                let mut chunks = Vec::new();
                match (streamed(&record.provider, &events, &mut chunks), &expected["stream_error"]) {
                    (Ok(_), Value::Null) => same_answer(&fold(&chunks), expected),
                    (Ok(_), error) => Err(format!("no error for {error}")),
                    (Err(error), Value::Null) => Err(format!("{error:?}")),
                    (Err(error), known) => same_error(&error, &json!({ "message": known["message"] }))
                        .and_then(|()| same_answer(&fold(&chunks), expected)),
                }
            }
            None => match (record.whole(), &expected["error"]) {
                (Ok(answer), Value::Null) if facts => same_answer(&answer, expected),
                (Ok(_), Value::Null) => Ok(()),
                (Ok(_), error) => Err(format!("no error for {error}")),
                // An error object inside a 200: the other parser sees an answer without choices.
                (Err(error), Value::Null) if expected["choices"] == json!([]) => {
                    same_error(&error, &json!({ "sdk_exception": class(error.kind()) }))
                }
                (Err(error), Value::Null) => Err(format!("{error:?}")),
                (Err(error), known) => same_error(&error, known),
            },
        };
        let count = tally.entry(record.provider.clone()).or_default();
        count.0 += 1;
        if let Err(why) = result {
            count.1 += 1;
            failures.push(format!("{}: {}", record.id, why.chars().take(400).collect::<String>()));
        }
    });
    if !ran {
        return;
    }
    let total: u32 = tally.values().map(|count| count.0).sum();
    for (provider, (all, wrong)) in &tally {
        println!("{provider:20} {all:5} records, {wrong} differ");
    }
    println!("{total} chat completions, {} differ", failures.len());
    failures.iter().for_each(|failure| println!("{failure}"));
    assert!(failures.len() * 200 < total as usize, "{} of {total} differ", failures.len());
}

/// Cuts the strings of a whole message into the pieces a stream would bring.
fn pieces(choice: &Value, size: usize) -> Vec<Value> {
    let message = choice["message"].as_object().cloned().unwrap_or_default();
    let cut = |text: &str| -> Vec<String> {
        let letters: Vec<char> = text.chars().collect();
        letters.chunks(size).map(|part| part.iter().collect()).collect()
    };
    let mut deltas = vec![json!({ "role": "assistant", "content": "" })];
    for name in ["reasoning_content", "reasoning", "content", "refusal"] {
        // The reader takes one of the two names of reasoning.
        let twin =
            message.get("reasoning_content").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        match message.get(name) {
            Some(Value::String(_)) if name == "reasoning" && twin => {}
            Some(Value::String(text)) => {
                deltas.extend(cut(text).into_iter().map(|part| json!({ name: part })))
            }
            Some(Value::Array(parts)) => deltas.extend(parts.iter().map(|part| json!({ name: [part] }))),
            _ => {}
        }
        if name == "reasoning"
            && let Some(details) = message.get("reasoning_details").filter(|list| !list.is_null())
        {
            deltas.push(json!({ "reasoning_details": details }));
        }
    }
    for (index, call) in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let mut head = call.clone();
        head["index"] = json!(index);
        let arguments = head["function"]["arguments"].as_str().unwrap_or_default().to_owned();
        head["function"]["arguments"] = json!("");
        deltas.push(json!({ "tool_calls": [head] }));
        for part in cut(&arguments) {
            deltas.push(json!({ "tool_calls": [{ "index": index, "function": { "arguments": part } }] }));
        }
    }
    let known =
        ["role", "reasoning_content", "reasoning", "reasoning_details", "content", "refusal", "tool_calls"];
    let rest: serde_json::Map<String, Value> =
        message.into_iter().filter(|(name, _)| !known.contains(&name.as_str())).collect();
    deltas.push(Value::Object(rest));
    deltas
}

/// A whole answer as the events of a stream.
fn as_stream(body: &Value, size: Option<usize>) -> Vec<(String, String)> {
    let mut head = body.clone();
    let choices = head["choices"].take();
    let usage = head["usage"].take();
    let mut events = Vec::new();
    let mut send = |choices: Value, usage: &Value| {
        let mut chunk = head.clone();
        chunk["object"] = json!("chat.completion.chunk");
        chunk["choices"] = choices;
        chunk["usage"] = usage.clone();
        events.push(("message".to_owned(), chunk.to_string()));
    };
    for choice in choices.as_array().into_iter().flatten() {
        let mut last = choice.clone();
        let fields = last.as_object_mut().unwrap();
        let message = fields.shift_remove("message").unwrap_or(Value::Null);
        match size {
            None => {
                last["delta"] = message;
                send(json!([last]), &Value::Null);
            }
            Some(size) => {
                for delta in pieces(choice, size) {
                    send(
                        json!([{ "index": choice["index"], "delta": delta, "finish_reason": null }]),
                        &Value::Null,
                    );
                }
                last["delta"] = json!({});
                send(json!([last]), &Value::Null);
            }
        }
    }
    send(json!([]), &usage);
    events.push(("message".to_owned(), "[DONE]".to_owned()));
    events
}

#[test]
fn a_folded_stream_equals_the_whole_answer() {
    let (mut count, mut failures) = (0, Vec::new());
    let ran = for_each(|record| {
        if record.response.status != 200 || record.response.sse_chunks.is_some() {
            return;
        }
        let Ok(mut whole) = record.whole() else { return };
        let body: Value = serde_json::from_slice(&record.body()).unwrap();
        // Once through the same JSON library as the stream, so that numbers are written alike.
        let quirks = Quirks::default();
        let again = Bytes::from(body.to_string());
        if let Ok(answer) =
            OpenAiChat.decode(200, &HeaderMap::new(), &again, &target(&record.provider, &quirks))
        {
            whole = answer;
        }
        for size in [None, Some(1), Some(7)] {
            count += 1;
            let mut chunks = Vec::new();
            let result = streamed(&record.provider, &as_stream(&body, size), &mut chunks);
            let mut folded = fold(&chunks);
            if folded.model.is_empty() {
                folded.model.clone_from(&whole.model);
            }
            if result.is_err() || folded != whole {
                let short = |answer: &LlmResponse| serde_json::to_string(answer).unwrap();
                failures.push(format!(
                    "{} {size:?} {result:?}\n  whole  {}\n  folded {}",
                    record.id,
                    short(&whole),
                    short(&folded)
                ));
            }
        }
    });
    if ran {
        println!("{count} answers streamed and folded, {} differ", failures.len());
        assert!(failures.is_empty(), "{}", failures.iter().take(5).cloned().collect::<Vec<_>>().join("\n"));
    }
}

/// Whether events up to here are a complete stream, by a reading of the JSON that shares nothing with the adapter.
fn is_complete(events: &[(String, String)]) -> bool {
    let mut finished: BTreeMap<u64, bool> = BTreeMap::new();
    for (_, data) in events {
        if data.trim() == "[DONE]" {
            return true;
        }
        let chunk: Value = serde_json::from_str(data).unwrap();
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let over = finished.entry(choice["index"].as_u64().unwrap_or(0)).or_default();
            *over |= choice["finish_reason"].as_str().is_some_and(|word| !word.is_empty());
        }
    }
    !finished.is_empty() && finished.values().all(|over| *over)
}

#[test]
fn a_cut_stream_is_never_a_success() {
    let (mut streams, mut cuts) = (0, 0);
    let ran = for_each(|record| {
        let Some(events) = record.events() else { return };
        streams += 1;
        for end in 0..events.len() {
            let mut chunks = Vec::new();
            let result = streamed(&record.provider, &events[..end], &mut chunks);
            cuts += 1;
            if is_complete(&events[..end]) {
                continue;
            }
            let error = result.expect_err(&record.id);
            assert_eq!(error.kind(), ErrorKind::StreamInterrupted, "{} after {end}", record.id);
            assert!(error.detail().provider.is_some());
        }
    });
    if ran {
        println!("{streams} streams cut at {cuts} places");
    }
}

#[test]
fn conversations_go_out_as_they_came() {
    let (mut count, mut failures) = (0, Vec::new());
    let ran = for_each(|record| {
        let Some(raw) = record.request.as_ref().and_then(|request| request.body) else { return };
        let Ok(body) = serde_json::from_str::<indexmap::IndexMap<String, RawJson>>(raw.get()) else { return };
        if !body.contains_key("messages") {
            return;
        }
        count += 1;
        let mut failed = |why: String| failures.push(format!("{}: {why}", record.id));
        let mut border = serde_json::Map::new();
        let mut extra = serde_json::Map::new();
        for (name, value) in &body {
            let value: Value = value.read().unwrap();
            match name.as_str() {
                _ if value.is_null() => {}
                "stream" | "stream_options" => {}
                "max_completion_tokens" => drop(border.insert("max_tokens".into(), value)),
                known if liter_llm::core::request::FIELD_NAMES.contains(&known) => {
                    border.insert(name.clone(), value);
                }
                _ => drop(extra.insert(name.clone(), value)),
            }
        }
        // Messages and tools as the very text of the recording.
        let mut text = format!("{{\"messages\":{}", body["messages"].get());
        if let Some(tools) = body.get("tools") {
            text.push_str(&format!(",\"tools\":{}", tools.get()));
        }
        border.shift_remove("messages");
        border.shift_remove("tools");
        if !extra.is_empty() {
            border.insert("extra".into(), Value::Object(extra));
        }
        for (name, value) in &border {
            text.push_str(&format!(",{}:{value}", json!(name)));
        }
        text.push('}');
        let request = match LlmRequest::from_json(text.as_bytes()) {
            Ok(request) => request,
            Err(error) => return failed(format!("not read: {error}")),
        };
        // What the host was asked although it refuses it is not the point here.
        let mut quirks = record.quirks();
        quirks.unsupported.clear();
        let stream = body.get("stream").is_some_and(|flag| flag.get() == "true");
        let target = Target { stream, ..target(&record.provider, &quirks) };
        let wire = match OpenAiChat.encode(&request, &target) {
            Ok(wire) => wire,
            Err(error) => return failed(format!("not written: {error}")),
        };
        let sent: indexmap::IndexMap<String, RawJson> = serde_json::from_slice(&wire.body).unwrap();
        for name in ["messages", "tools"] {
            let list = |map: &indexmap::IndexMap<String, RawJson>| {
                map.get(name).map(|raw| raw.read::<Vec<RawJson>>().unwrap()).unwrap_or_default()
            };
            let (ours, theirs) = (list(&sent), list(&body));
            if ours != theirs {
                let differing = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
                failed(format!("{name} differ: {differing:?} ({} and {})", ours.len(), theirs.len()));
            }
        }
        for (name, theirs) in &body {
            let theirs: Value = theirs.read().unwrap();
            let sent_name = match name.as_str() {
                "messages" | "tools" | "stream" | "stream_options" => continue,
                "max_tokens" | "max_completion_tokens" if !quirks.max_tokens_field.is_empty() => {
                    quirks.max_tokens_field.as_str()
                }
                "max_completion_tokens" => "max_tokens",
                "seed" if !quirks.seed_field.is_empty() => quirks.seed_field.as_str(),
                other => other,
            };
            let no_tools = body.get("tools").is_none_or(|tools| tools.get() == "[]");
            let ignored = theirs.is_null()
                || (no_tools && matches!(sent_name, "tool_choice" | "parallel_tool_calls"))
                || theirs == json!([]);
            let ours: Value = sent.get(sent_name).map(|raw| raw.read().unwrap()).unwrap_or_default();
            let listed = theirs.is_string() && ours == json!([theirs]);
            let equal = ours == theirs || (theirs.is_number() && ours.as_f64() == theirs.as_f64());
            if !ignored && !listed && !equal {
                failed(format!("{name}: {ours} for {theirs}"));
            }
        }
    });
    if ran {
        println!("{count} requests, {} differ", failures.len());
        failures.iter().for_each(|failure| println!("{}", failure.chars().take(600).collect::<String>()));
        assert!(failures.len() * 200 < count, "{} of {count} differ", failures.len());
    }
}
