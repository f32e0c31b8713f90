//! Recorded exchanges with real hosts through the Responses adapter: facts, streams, cuts, requests, round trips.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod facts;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use bytes::Bytes;
use facts::{compare, compare_error};
use http::HeaderMap;
use liter_llm::adapters::openai_responses::OpenAiResponses;
use liter_llm::adapters::{Adapter, Decoder, Frame, Quirks, Target};
use liter_llm::{Delta, ErrorKind, LlmChunk, LlmError, LlmRequest, LlmResponse, Message, RawJson, fold};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Record {
    id: String,
    provider: String,
    endpoint: String,
    request: Option<Request>,
    response: Response,
    expected: Value,
}

#[derive(Deserialize)]
struct Request {
    body: Option<RawJson>,
}

#[derive(Deserialize)]
struct Response {
    status: u16,
    headers: BTreeMap<String, Value>,
    body: Option<RawJson>,
    body_text: Option<String>,
    sse_chunks: Option<Vec<String>>,
}

/// The recordings with facts; empty (and said so) where there are none, a failure in continuous integration.
fn records() -> &'static [Record] {
    static RECORDS: LazyLock<Vec<Record>> = LazyLock::new(load);
    &RECORDS
}

fn load() -> Vec<Record> {
    let folder = std::env::var_os("LITER_LLM_RECORDED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/recorded"),
        PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no recordings at {}", folder.display());
        eprintln!("SKIPPED: recorded_responses: no recordings at {}", folder.display());
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    files.sort();
    let mut records = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text.lines().filter(|line| line.contains("\"responses\"")) {
            let record: Record = serde_json::from_str(line).unwrap();
            if record.endpoint == "responses" && record.expected["parser"].is_string() {
                records.push(record);
            }
        }
    }
    assert!(!records.is_empty(), "the recordings hold no Responses exchange");
    records
}

static QUIRKS: LazyLock<Quirks> = LazyLock::new(Quirks::default);

fn target(provider: &str, stream: bool) -> Target<'_> {
    Target { provider, model: "m", quirks: &QUIRKS, stream }
}

/// The recorded body as bytes.
fn body(record: &Record) -> Bytes {
    match (&record.response.body, &record.response.body_text) {
        (Some(json), _) => Bytes::copy_from_slice(json.get().as_bytes()),
        (None, Some(text)) => Bytes::copy_from_slice(text.as_bytes()),
        (None, None) => Bytes::new(),
    }
}

fn headers(record: &Record) -> HeaderMap {
    record
        .response
        .headers
        .iter()
        .filter_map(|(name, value)| {
            Some((http::HeaderName::from_bytes(name.as_bytes()).ok()?, value.as_str()?.parse().ok()?))
        })
        .collect()
}

type Events = Vec<(String, String)>;

/// The events of a recorded stream: name and data.
fn events(chunks: &[String]) -> Events {
    let mut events = Vec::new();
    for block in chunks.concat().replace("\r\n", "\n").split("\n\n") {
        let (mut name, mut data) = (String::from("message"), Vec::new());
        for line in block.lines() {
            if let Some(value) = line.strip_prefix("event:") {
                name = value.trim_start().to_owned();
            } else if let Some(value) = line.strip_prefix("data:") {
                data.push(value.strip_prefix(' ').unwrap_or(value));
            }
        }
        if !data.is_empty() {
            events.push((name, data.join("\n")));
        }
    }
    events
}

fn streams() -> impl Iterator<Item = (&'static Record, Events)> {
    records().iter().filter_map(|record| Some((record, events(record.response.sse_chunks.as_ref()?))))
}

fn whole_answers() -> impl Iterator<Item = &'static Record> {
    records().iter().filter(|record| record.response.sse_chunks.is_none())
}

fn run(provider: &str, events: &Events, text: bool) -> (Vec<LlmChunk>, Result<bool, LlmError>) {
    let mut decoder = OpenAiResponses.decoder(&target(provider, true));
    let mut chunks = Vec::new();
    let result = feed(decoder.as_mut(), events, text, &mut chunks);
    (chunks, result)
}

/// Pushes events until the terminator; true when it came.
fn feed(
    decoder: &mut dyn Decoder,
    events: &Events,
    text: bool,
    chunks: &mut Vec<LlmChunk>,
) -> Result<bool, LlmError> {
    for (name, data) in events {
        decoder.push(if text { Frame::Text(data) } else { Frame::Event { name, data } }, chunks)?;
        if decoder.is_done() {
            break;
        }
    }
    decoder.finish(chunks)?;
    Ok(decoder.is_done())
}

fn assert_none(what: &str, wrong: &[String], count: usize) {
    assert!(wrong.is_empty(), "{} of {count} {what}:\n{}", wrong.len(), wrong.join("\n"));
    let outcome = if count == 0 { "SKIPPED, there are no recordings" } else { "all agree" };
    eprintln!("{count} {what}: {outcome}");
}

#[test]
fn whole_answers_give_the_recorded_facts() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for record in whole_answers() {
        count += 1;
        let (status, raw) = (record.response.status, body(record));
        let result = OpenAiResponses.decode(status, &headers(record), &raw, &target(&record.provider, false));
        match (result, record.expected["error"].get("sdk_exception")) {
            (Ok(response), None) => {
                wrong.extend(compare(record, &response));
                assert_eq!(response.raw, raw);
            }
            (Err(error), Some(_)) => wrong.extend(compare_error(record, &error)),
            (Ok(_), Some(_)) => wrong.push(format!("{}: an error was expected", record.id)),
            (Err(error), None) => wrong.push(format!("{}: {error}", record.id)),
        }
    }
    assert_none("whole answers", &wrong, count);
}

/// The answer object of the last event, its items taken from the events where the host leaves `output` empty.
fn final_answer(events: &Events) -> Option<String> {
    let mut done = Vec::new();
    for (_, data) in events {
        let Ok(event) = serde_json::from_str::<BTreeMap<String, RawJson>>(data) else { continue };
        match event.get("type").and_then(RawJson::as_string).as_deref() {
            Some("response.output_item.done") => done.push(event["item"].get().to_owned()),
            Some("response.completed" | "response.incomplete") => {
                let filled = format!("\"output\":[{}]", done.join(","));
                return Some(event["response"].get().replacen("\"output\":[]", &filled, 1));
            }
            _ => {}
        }
    }
    None
}

/// The tokens the log probabilities are for.
fn tokens(response: &LlmResponse) -> Vec<Value> {
    let tokens: Vec<Value> = response.logprobs.as_ref().map_or_else(Vec::new, |list| list.read().unwrap());
    tokens.into_iter().map(|token| token["token"].clone()).collect()
}

#[test]
fn folded_streams_give_the_recorded_facts_and_equal_the_whole_answer() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (record, events) in streams() {
        count += 1;
        let (chunks, result) = run(&record.provider, &events, false);
        let (text_chunks, _) = run(&record.provider, &events, true);
        assert_eq!(chunks, text_chunks, "{}: WebSocket frames decode otherwise than events", record.id);
        if let Some(want) = record.expected["stream_error"].get("message") {
            let error = result.expect_err(&record.id);
            if json!(error.detail().message) != *want || error.kind() != ErrorKind::QuotaExhausted {
                wrong.push(format!("{}: {error:?}", record.id));
            }
            continue;
        }
        if let Err(error) = result {
            wrong.push(format!("{}: {error}", record.id));
            continue;
        }
        let folded = fold(&chunks);
        let mut record_wrong = compare(record, &folded);
        if record.expected["output_types"] == json!([]) && record.expected.get("ambiguous").is_none() {
            // `output` is empty in the last event, and the recording counts calls and reasoning only there.
            record_wrong.retain(|line| {
                !line.contains(": tool_calls: ") && !line.contains(": encrypted_reasoning_items: ")
            });
            let calls: Vec<_> = folded.tool_calls().iter().map(|call| call.arguments.to_owned()).collect();
            if json!(calls) != record.expected["delta_tool_args"] {
                record_wrong.push(format!("{}: calls {calls:?}", record.id));
            }
        }
        wrong.extend(record_wrong);
        let deltas: String = chunks
            .iter()
            .filter_map(|chunk| match &chunk.delta {
                Some(Delta::Text(text)) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if json!(deltas) != record.expected["delta_text"] {
            wrong.push(format!(
                "{}: the deltas read {deltas:?}, not {}",
                record.id, record.expected["delta_text"]
            ));
        }
        let answer = Bytes::from(final_answer(&events).unwrap());
        let mut whole = OpenAiResponses
            .decode(200, &HeaderMap::new(), &answer, &target(&record.provider, false))
            .unwrap();
        // OpenAI rounds the numbers in the last event otherwise than in the deltas.
        assert_eq!(tokens(&folded), tokens(&whole), "{}", record.id);
        whole.logprobs.clone_from(&folded.logprobs);
        if folded != whole {
            let show = |response: &LlmResponse| serde_json::to_string(response).unwrap();
            wrong.push(format!("{}: folded\n  {}\nwhole\n  {}", record.id, show(&folded), show(&whole)));
        }
    }
    assert_none("streams", &wrong, count);
}

#[test]
fn a_cut_stream_is_never_a_success() {
    for (record, events) in streams() {
        let last = events
            .iter()
            .position(|(_, data)| {
                let event: Value = serde_json::from_str(data).unwrap_or_default();
                matches!(
                    event["type"].as_str(),
                    Some("response.completed" | "response.incomplete" | "response.failed" | "error")
                )
            })
            .unwrap();
        let mut decoder = OpenAiResponses.decoder(&target(&record.provider, true));
        let mut chunks = Vec::new();
        for (name, data) in &events[..last] {
            let mut rest = Vec::new();
            let error = decoder.finish(&mut rest).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StreamInterrupted, "{}", record.id);
            assert!(!decoder.is_done() && rest.is_empty());
            decoder.push(Frame::Event { name, data }, &mut chunks).unwrap();
        }
        assert!(decoder.finish(&mut chunks).is_err() && !decoder.is_done(), "{}", record.id);
        assert!(chunks.iter().all(|chunk| chunk.finish_reason.is_none()), "{}", record.id);
    }
}

fn encode(request: &LlmRequest, provider: &str) -> BTreeMap<String, RawJson> {
    let encoded = OpenAiResponses.encode(request, &target(provider, false)).unwrap();
    assert_eq!(encoded.path, "/responses");
    serde_json::from_slice(&encoded.body).unwrap()
}

fn list(json: Option<&RawJson>) -> Vec<RawJson> {
    json.map(|json| json.read().unwrap()).unwrap_or_default()
}

/// The request field a field of the recorded body goes to, and else `extra`.
fn home(name: &str, value: &RawJson) -> Option<&'static str> {
    Some(match name {
        "input" if value.get().starts_with('"') => "prompt",
        "input" => "messages",
        "instructions" => "system",
        "max_output_tokens" => "max_tokens",
        "model" => "model",
        "tools" => "tools",
        "tool_choice" => "tool_choice",
        "temperature" => "temperature",
        "top_p" => "top_p",
        "parallel_tool_calls" => "parallel_tool_calls",
        "service_tier" => "service_tier",
        "previous_response_id" => "previous_response_id",
        _ => return None,
    })
}

#[test]
fn recorded_requests_come_back_as_they_were() {
    let (mut wrong, mut items, mut tools, mut count) = (Vec::new(), 0, 0, 0);
    for record in records() {
        let Some(sent) = record.request.as_ref().and_then(|request| request.body.as_ref()) else { continue };
        count += 1;
        let mut sent: BTreeMap<String, RawJson> = sent.read().unwrap();
        sent.retain(|name, value| name != "stream" && !value.is_null());
        // The border form, put together as text so that the recorded bytes reach the engine.
        let part = |name: &str, value: &RawJson| format!("{}:{}", json!(name), value.get());
        let (typed, extra): (Vec<_>, Vec<_>) =
            sent.iter().partition(|(name, value)| home(name, value).is_some());
        let mut parts: Vec<String> =
            typed.iter().map(|(name, value)| part(home(name, value).unwrap(), value)).collect();
        let extra: Vec<String> = extra.iter().map(|(name, value)| part(name, value)).collect();
        parts.push(format!("\"extra\":{{{}}}", extra.join(",")));
        let request = match LlmRequest::from_json(format!("{{{}}}", parts.join(",")).as_bytes()) {
            Ok(request) => request,
            Err(error) => {
                wrong.push(format!("{}: {error}", record.id));
                continue;
            }
        };
        let body = encode(&request, &record.provider);
        for (name, want) in &sent {
            let got = body.get(name);
            let same = match name.as_str() {
                // A bare string is the same as one user message.
                "input" if want.get().starts_with('"') => {
                    let message = format!(r#"[{{"role":"user","content":{}}}]"#, want.get());
                    got.is_some_and(|got| got.get() == message)
                }
                "input" | "tools" => {
                    let (got, want) = (list(got), list(Some(want)));
                    *(if name == "input" { &mut items } else { &mut tools }) += want.len();
                    got == want
                }
                // Reasoning must come back encrypted when nothing is stored.
                "include" => list(Some(want)).iter().all(|name| list(got).contains(name)),
                _ => got.is_some_and(|got| {
                    let (got, want) = (got.read::<Value>().unwrap(), want.read::<Value>().unwrap());
                    got == want || (want.is_number() && got.as_f64() == want.as_f64())
                }),
            };
            if !same {
                wrong.push(format!("{}: {name}\n  got  {got:?}\n  want {want:?}", record.id));
            }
        }
        for name in body.keys().filter(|name| !sent.contains_key(*name) && *name != "include") {
            wrong.push(format!("{}: `{name}` appeared", record.id));
        }
    }
    eprintln!("{items} input items, {tools} tools");
    assert_none("requests", &wrong, count);
}

/// An output item without what the API does not need back: `null` fields, log probabilities, an absent list.
fn replayable(item: &RawJson) -> Value {
    let mut item: Value = serde_json::from_str(item.get()).unwrap();
    if item["type"] != "message" && item["type"] != "function_call" {
        return item;
    }
    let map = item.as_object_mut().unwrap();
    map.retain(|_, value| !value.is_null());
    for part in map.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        let part = part.as_object_mut().unwrap();
        part.remove("logprobs");
        if part["type"] == "output_text" {
            part.entry("annotations").or_insert_with(|| json!([]));
        }
    }
    item
}

fn replay(record: &Record, message: Message, output: &[RawJson]) -> Vec<String> {
    let request = LlmRequest::new().with_prompt("x").with_message(message);
    let items = list(encode(&request, &record.provider).get("input"));
    let mut wrong = Vec::new();
    if items.len() != output.len() + 1 {
        wrong.push(format!("{}: {} items became {}", record.id, output.len(), items.len() - 1));
    }
    for (got, want) in items[1..].iter().zip(output) {
        let exact = !matches!(replayable(want)["type"].as_str(), Some("message" | "function_call"));
        if (exact && got != want) || replayable(got) != replayable(want) {
            wrong.push(format!("{}: item\n  got  {got:?}\n  want {want:?}", record.id));
        }
    }
    wrong
}

#[test]
fn decoded_messages_replay_as_the_items_they_were() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    let mut check = |record: &Record, answer: &Bytes, message: Message| {
        let answer: BTreeMap<String, RawJson> = serde_json::from_slice(answer).unwrap();
        let output = list(answer.get("output"));
        count += output.len();
        // As it is, and over the language border, as a Python or Node caller sends it back.
        let border = serde_json::to_string(&message).unwrap();
        wrong.extend(replay(record, message, &output));
        wrong.extend(replay(record, serde_json::from_str(&border).unwrap(), &output));
    };
    for record in whole_answers().filter(|record| record.response.status == 200) {
        let answer = body(record);
        let response = OpenAiResponses
            .decode(200, &HeaderMap::new(), &answer, &target(&record.provider, false))
            .unwrap();
        check(record, &answer, response.message);
    }
    for (record, events) in streams() {
        if let (chunks, Ok(_)) = run(&record.provider, &events, false) {
            check(record, &Bytes::from(final_answer(&events).unwrap()), fold(&chunks).message);
        }
    }
    assert_none("output items", &wrong, count);
}

/// Some streams for mutations: short recorded ones, and one that is always there.
fn samples() -> &'static [Events] {
    static SAMPLES: LazyLock<Vec<Events>> = LazyLock::new(|| {
        let mut found: Vec<_> =
            streams().map(|(_, events)| events).filter(|events| events.len() < 60).collect();
        let event = |data: Value| (data["type"].as_str().unwrap().to_owned(), data.to_string());
        found.push(vec![
            event(json!({"type": "response.created", "response": {"id": "r", "model": "m"}})),
            event(json!({"type": "response.output_text.delta", "output_index": 0, "delta": "hi"})),
            event(json!({"type": "response.completed", "response": {"status": "completed", "output": []}})),
        ]);
        found
    });
    &SAMPLES
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_streams_never_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<char>(), 0..6_u8),
            1..6,
        ),
    ) {
        let mut events = samples()[which.index(samples().len())].clone();
        for (at, byte, letter, action) in edits {
            if events.is_empty() {
                break;
            }
            let at = at.index(events.len());
            let data = &mut events[at].1;
            let mut place = byte.index(data.len() + 1);
            while !data.is_char_boundary(place) {
                place -= 1;
            }
            match action {
                0 => data.truncate(place),
                1 => data.insert(place, letter),
                2 => *data = data.replacen("\"output_index\":", "\"output_indices\":", 1),
                3 => *data = data.replacen(":0", ":7", 1),
                4 => {
                    events.remove(at);
                }
                _ => {
                    let again = events[at].clone();
                    events.insert(at, again);
                }
            }
        }
        let mut decoder = OpenAiResponses.decoder(&target("p", true));
        let mut chunks = Vec::new();
        let outcome = feed(decoder.as_mut(), &events, false, &mut chunks);
        let _ = fold(&chunks);
        prop_assert_eq!(outcome.is_ok(), decoder.is_done());
    }

    #[test]
    fn mutated_answers_never_panic(text in ".{0,200}", cut in any::<prop::sample::Index>()) {
        let whole = json!({
            "id": "r", "status": "completed",
            "output": [
                {"type": "message", "id": "m", "content": [
                    {"type": "output_text", "text": text, "annotations": [1]}]},
                {"type": "reasoning", "summary": [{"text": text}]},
                {"type": "function_call", "arguments": {"a": 1}}, 3, null],
            "usage": {"input_tokens": -1, "output_tokens": 2.0, "input_tokens_details": null},
        })
        .to_string();
        let mut end = cut.index(whole.len() + 1);
        while !whole.is_char_boundary(end) {
            end -= 1;
        }
        for part in [&whole[..end], &whole, &text] {
            for status in [200, 429] {
                let answer = Bytes::from(part.to_owned());
                let _ = OpenAiResponses.decode(status, &HeaderMap::new(), &answer, &target("p", false));
            }
        }
    }
}
