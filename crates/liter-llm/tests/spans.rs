//! The spans of calls, as an OpenTelemetry exporter gets them: which, inside of which, and what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod routed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use liter_llm::telemetry::told;
use liter_llm::{Client, LlmProvider, LlmRequest};
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
use opentelemetry::{Array, Value as Exported};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::{Value, json};
use tracing::Instrument;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use self::routed::{ask, deployment, failing, over, sim};

/// What a subscriber with an exporter has seen of this thread.
struct Seen {
    provider: SdkTracerProvider,
    exporter: InMemorySpanExporter,
    lines: Lines,
    _guard: tracing::subscriber::DefaultGuard,
}

/// Everything that a log in text form would have shown.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seen {
    fn begin() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let lines = Lines::default();
        let written = lines.clone();
        let text = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || written.clone());
        let subscriber = tracing_subscriber::registry()
            .with(LevelFilter::TRACE)
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")))
            .with(text);
        let _guard = tracing::subscriber::set_default(subscriber);
        Self { provider, exporter, lines, _guard }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.provider.force_flush().unwrap();
        let mut spans = self.exporter.get_finished_spans().unwrap();
        spans.retain(|span| ["chat", "POST", "host"].iter().any(|ours| span.name.starts_with(ours)));
        spans.sort_by_key(|span| (span.start_time, span.end_time));
        spans
    }

    /// The finished spans as a tree: `name error`, children indented, events in brackets.
    fn tree(&self) -> Vec<String> {
        let spans = self.spans();
        let known = |id: SpanId| spans.iter().any(|span| span.span_context.span_id() == id);
        let mut lines = Vec::new();
        for root in spans.iter().filter(|span| !known(span.parent_span_id)) {
            branch(&spans, root, 0, &mut lines);
        }
        lines
    }

    fn text(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}

fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    span.attributes.iter().map(|pair| (pair.key.to_string(), pair.value.to_string())).collect()
}

/// What a span says, in the types that an exporter gets; what `tracing-opentelemetry` adds of its own apart.
fn said(span: &SpanData) -> Value {
    let mut said = serde_json::Map::new();
    for pair in &span.attributes {
        let name = pair.key.as_str();
        if ["code.", "thread.", "target", "level", "busy_ns", "idle_ns"]
            .iter()
            .any(|its| name.starts_with(its))
        {
            continue;
        }
        let value = match &pair.value {
            Exported::Bool(value) => json!(value),
            Exported::I64(value) => json!(value),
            Exported::F64(value) => json!(value),
            Exported::String(value) => json!(value.as_str()),
            Exported::Array(Array::String(list)) => {
                json!(list.iter().map(|text| text.as_str()).collect::<Vec<_>>())
            }
            other => panic!("{name}: {other:?}"),
        };
        assert!(said.insert(name.to_owned(), value).is_none(), "{name} is there twice");
    }
    Value::Object(said)
}

/// The span without these attributes, each of which it has.
fn without(span: &Value, names: &[&str]) -> Value {
    let mut rest = span.as_object().unwrap().clone();
    for name in names {
        assert!(rest.remove(*name).is_some(), "{name} of {span}");
    }
    Value::Object(rest)
}

fn branch(spans: &[SpanData], span: &SpanData, depth: usize, lines: &mut Vec<String>) {
    let said = attributes(span);
    let mut line = format!("{}{}", "  ".repeat(depth), span.name);
    if span.name == "POST" {
        line.push_str(&format!(" {}", said["liter_llm.deployment"]));
    }
    for name in ["error.type", "liter_llm.attempt.cause"] {
        if let Some(value) = said.get(name) {
            line.push_str(&format!(" {value}"));
        }
    }
    let events: Vec<_> = span
        .events
        .iter()
        .map(|event| event.name.as_ref())
        .filter(|name| ["retry", "fallback"].contains(name))
        .collect();
    if !events.is_empty() {
        line.push_str(&format!(" [{}]", events.join(", ")));
    }
    lines.push(line);
    for child in spans.iter().filter(|child| child.parent_span_id == span.span_context.span_id()) {
        assert!(child.start_time >= span.start_time && child.end_time <= span.end_time, "{}", child.name);
        branch(spans, child, depth + 1, lines);
    }
}

fn one(sim: &liter_llm_sim::Simulator, more: Value) -> Client {
    over(vec![deployment(sim, "a", more)], json!({}))
}

#[tokio::test]
async fn a_plain_call_and_a_stream_are_a_span_with_one_inside() {
    let (seen, sim) = (Seen::begin(), sim());
    let client = one(&sim, json!({}));
    client.generate(ask().with_max_tokens(20)).await.unwrap();
    assert_eq!(seen.tree(), ["chat a", "  POST a"]);
    let spans = seen.spans();
    let call = spans.iter().find(|span| span.name == "chat a").unwrap();
    assert_eq!((&call.span_kind, &call.status), (&SpanKind::Client, &Status::Unset));
    let told = said(call);
    for (name, value) in [
        ("provider", json!("openai")),
        ("model", json!("a")),
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.request.model", json!("a")),
        ("gen_ai.request.max_tokens", json!(20)),
        ("gen_ai.response.model", json!("a")),
        ("gen_ai.response.finish_reasons", json!(["stop"])),
        ("liter_llm.deployment", json!("a")),
        ("liter_llm.attempts", json!(1)),
        ("liter_llm.retries", json!(0)),
        ("server.address", json!("127.0.0.1")),
        ("prompt_len", json!(12)),
    ] {
        assert_eq!(told.get(name), Some(&value), "{name} of {told}");
    }
    assert!(told["gen_ai.usage.input_tokens"].as_i64() > Some(0) && told["server.port"].is_i64(), "{told}");
    assert_eq!(told.get("gen_ai.request.stream"), None, "{told}");
    seen.exporter.reset();
    let chunks: Vec<_> = client.stream(ask()).await.unwrap().collect().await;
    let chunks = chunks.into_iter().map(Result::unwrap).filter(|chunk| chunk.delta.is_some()).count() as u64;
    assert_eq!(seen.tree(), ["chat a", "  POST a"]);
    let told = said(&seen.spans()[0]);
    assert!(told["gen_ai.response.time_to_first_chunk"].is_f64(), "{told}");
    assert_eq!(
        (&told["gen_ai.request.stream"], told["liter_llm.chunks"].as_u64()),
        (&json!(true), Some(chunks))
    );
}

/// A request that says all that it can.
fn asking_for_everything() -> LlmRequest {
    let request = json!({
        "messages": [{ "role": "user", "content": "[echo] in JSON: ".to_owned() + &"hello, hello. ".repeat(600) }],
        "tools": [{ "name": "look_up", "parameters": { "type": "object", "properties": {} } }],
        "max_tokens": 400, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "seed": 11, "stop": ["END", "STOP"],
        "frequency_penalty": 0.5, "presence_penalty": 0.25, "reasoning_effort": "high", "service_tier": "default",
        "response_format": { "type": "json_object" }, "on_unsupported": "adjust",
    });
    LlmRequest::from_json(request.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn spans_say_what_the_spans_of_every_language_say() {
    let (seen, sim) = (Seen::begin(), sim());
    let more = json!({ "region": "eu", "price": { "input": 1000, "output": 2000 } });
    let client = one(&sim, more);
    let records = client.telemetry().records(8);
    // The second time the beginning is known to the provider's cache.
    client.generate(asking_for_everything()).await.unwrap();
    seen.exporter.reset();
    sim.set_rules(
        serde_json::from_value(json!([{ "match": { "times": 1 }, "fault": { "status": 503 } }])).unwrap(),
    )
    .unwrap();
    let answer = client.generate(asking_for_everything()).await.unwrap();
    assert_eq!(seen.tree(), ["chat a [retry]", "  POST a overloaded", "  POST a retry"]);
    let spans = seen.spans();
    let call = said(spans.iter().find(|span| span.name == "chat a").unwrap());
    let record = records.take(std::time::Duration::ZERO).pop().unwrap();
    // What Python and Node.js make their spans of.
    let others: Value = serde_json::from_slice(&told(&record).unwrap()).unwrap();
    let own = ["provider", "model", "prompt_len", "liter_llm.attempts"];
    let who = [
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "liter_llm.deployment",
        "liter_llm.region",
        "server.address",
        "server.port",
    ];
    assert_eq!(without(&without(&call, &own), &who), others[4]);
    let mut requests: Vec<_> = spans.iter().filter(|span| span.name == "POST").map(said).collect();
    assert_eq!(requests[0]["error.type"], "overloaded");
    requests[0] = without(&requests[0], &["error.type"]);
    for (number, request) in requests.iter().enumerate() {
        let place = ["gen_ai.provider.name", "gen_ai.request.model"];
        let place = without(&without(request, &place), &who[4..]);
        assert_eq!(place, others[5][number][5], "{number}");
    }
    assert_eq!(requests[1]["http.request.resend_count"], 1);
    assert!(
        requests[1]["liter_llm.attempt.wait"].is_f64()
            && requests[1]["liter_llm.attempt.first_byte"].is_f64()
    );
    // Some of it, so that all of them cannot be empty.
    let usage = answer.usage.as_ref().unwrap();
    assert!(usage.cache_read_input_tokens >= 1024 && usage.reasoning_output_tokens > 0, "{usage:?}");
    for (name, value) in [
        ("gen_ai.usage.input_tokens", json!(usage.input_tokens)),
        ("gen_ai.usage.output_tokens", json!(usage.output_tokens)),
        ("gen_ai.usage.cache_read.input_tokens", json!(usage.cache_read_input_tokens)),
        ("gen_ai.usage.reasoning.output_tokens", json!(usage.reasoning_output_tokens)),
        ("gen_ai.request.seed", json!(11)),
        ("gen_ai.request.stop_sequences", json!(["END", "STOP"])),
        ("gen_ai.request.frequency_penalty", json!(0.5)),
        ("gen_ai.request.presence_penalty", json!(0.25)),
        ("gen_ai.output.type", json!("json")),
        ("openai.request.service_tier", json!("default")),
        ("liter_llm.request.reasoning_effort", json!("high")),
        ("liter_llm.request.messages", json!(1)),
        ("liter_llm.request.tools", json!(1)),
        ("liter_llm.retries", json!(1)),
        ("liter_llm.retry.reasons", json!(["overloaded"])),
        ("liter_llm.region", json!("eu")),
        ("liter_llm.cost.usd", json!(answer.cost.as_ref().unwrap().dollars())),
    ] {
        assert_eq!(call.get(name), Some(&value), "{name} of {call}");
    }
    assert!(
        call["liter_llm.cost.usd"].as_f64() > Some(0.0) && call["liter_llm.request.id"].is_string(),
        "{call}"
    );
    assert!(call["liter_llm.adjusted"].as_array().unwrap().contains(&json!("top_k")), "{call}");
}

#[tokio::test]
async fn a_log_has_lists_as_text_where_nothing_is_exported() {
    let (lines, sim) = (Lines::default(), sim());
    let written = lines.clone();
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_writer(move || written.clone());
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(LevelFilter::INFO).with(text));
    one(&sim, json!({})).generate(ask().with_stop("END").with_stop("STOP").with_seed(11)).await.unwrap();
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let call = lines.lines().rfind(|line| line.contains("llm_call") && line.contains("close")).unwrap();
    for part in [
        r#"gen_ai.response.finish_reasons="stop""#,
        r#"gen_ai.request.stop_sequences="END, STOP""#,
        "gen_ai.request.seed=11",
        "prompt_len=12",
    ] {
        assert_eq!(call.matches(part).count(), 1, "{part} of {call}");
    }
}

#[tokio::test]
async fn a_routers_call_is_named_by_what_answered() {
    let (seen, sim) = (Seen::begin(), sim());
    let deployments =
        ["a", "b"].map(|name| deployment(&sim, name, json!({ "model": format!("model-{name}") })));
    let client = over(deployments.to_vec(), json!({}));
    // A deployment's name is not a model's; nothing is said twice.
    client.generate(ask().with_model("b")).await.unwrap();
    let [call, request] = seen.spans().try_into().unwrap();
    assert_eq!((&*call.name, &*request.name), ("chat model-b", "POST"));
    for span in [said(&call), said(&request)] {
        assert_eq!(
            (&span["gen_ai.request.model"], &span["liter_llm.deployment"]),
            (&json!("model-b"), &json!("b"))
        );
    }
    assert_eq!((&said(&call)["model"], &said(&call)["provider"]), (&json!("model-b"), &json!("openai")));
    assert!(said(&call)["liter_llm.policy"].is_string(), "{call:?}");
}

#[tokio::test]
async fn a_retry_is_a_second_span_and_an_event() {
    let (seen, sim) = (Seen::begin(), sim());
    sim.set_rules(
        serde_json::from_value(json!([{ "match": { "times": 1 }, "fault": { "status": 503 } }])).unwrap(),
    )
    .unwrap();
    one(&sim, json!({})).generate(ask()).await.unwrap();
    assert_eq!(seen.tree(), ["chat a [retry]", "  POST a overloaded", "  POST a retry"]);
    let spans = seen.spans();
    let failed = spans.iter().find(|span| attributes(span).contains_key("error.type")).unwrap();
    assert!(matches!(failed.status, Status::Error { .. }));
    assert_eq!(attributes(failed).get("http.response.status_code").map(String::as_str), Some("503"));
    // The first was over before the second began, and its span says so.
    let second = spans.iter().find(|span| attributes(span).contains_key("liter_llm.attempt.cause")).unwrap();
    assert!(failed.end_time <= second.start_time);
}

#[tokio::test]
async fn a_fallback_names_both_deployments() {
    let (seen, sim) = (Seen::begin(), sim());
    failing(&sim, "a", json!({ "status": 503 }));
    let client = over(vec![deployment(&sim, "a", json!({})), deployment(&sim, "b", json!({}))], json!({}));
    client.generate(ask()).await.unwrap();
    let expected = ["chat b [fallback]", "  POST a overloaded", "  POST b fallback"];
    assert_eq!(seen.tree(), expected);
}

#[tokio::test]
async fn a_resent_and_a_hedged_request_are_spans_inside_of_the_callers() {
    let (seen, sim) = (Seen::begin(), sim());
    let rule = |rule: Value| sim.add_rule(serde_json::from_value(rule).unwrap()).unwrap();
    let hosted = async |client: &Client| {
        let host = tracing::info_span!("host");
        client.generate(ask()).instrument(host.clone()).await.unwrap();
        // A span counts as ended when it was left last.
        host.in_scope(|| ());
    };
    rule(json!({ "match": { "nth": 2 }, "fault": { "reset": true } }));
    let client = one(&sim, json!({ "max_retries": 0 }));
    client.generate(ask()).await.unwrap();
    seen.exporter.reset();
    hosted(&client).await;
    let expected =
        ["host", "  chat a [retry]", "    POST a connection", "    POST a resend"].map(str::to_owned);
    assert_eq!(seen.tree(), expected);
    let spans = seen.spans();
    let trace = spans[0].span_context.trace_id();
    assert!(spans.iter().all(|span| span.span_context.trace_id() == trace), "{spans:?}");
    let resent = spans.iter().find(|span| attributes(span).contains_key("liter_llm.attempt.cause")).unwrap();
    assert!(attributes(resent).contains_key("liter_llm.attempt.first_byte"), "{resent:?}");
    seen.exporter.reset();
    sim.clear_rules();
    rule(json!({ "match": { "times": 1 }, "fault": { "delay_ms": 30_000 } }));
    let client = one(&sim, json!({ "max_retries": 0, "hedge": { "after": 0.05, "budget": 1.0 } }));
    hosted(&client).await;
    assert_eq!(seen.tree(), ["host", "  chat a", "    POST a cancelled", "    POST a hedge"]);
    let spans = seen.spans();
    let loser = spans.iter().find(|span| attributes(span).contains_key("error.type")).unwrap();
    assert!(matches!(loser.status, Status::Error { .. }));
    // It was given up when the other one was answered, not after the thirty seconds it would have taken.
    let took = loser.end_time.duration_since(loser.start_time).unwrap();
    assert!(took < std::time::Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn what_is_given_up_or_breaks_ends_its_spans() {
    let (seen, sim) = (Seen::begin(), sim());
    let client = one(&sim, json!({ "max_retries": 0 }));
    let rule =
        |fault: Value| sim.set_rules(serde_json::from_value(json!([{ "fault": fault }])).unwrap()).unwrap();
    rule(json!({ "event_delay_ms": 20 }));
    let stream = client.stream(ask()).await.unwrap();
    let _: Vec<_> = stream.take(1).collect().await;
    assert_eq!(seen.tree(), ["chat a cancelled", "  POST a cancelled"]);
    seen.exporter.reset();
    rule(json!({ "cut_after": 2 }));
    let chunks: Vec<_> = client.stream(ask()).await.unwrap().collect().await;
    assert!(chunks.last().unwrap().is_err());
    assert_eq!(seen.tree(), ["chat a stream_interrupted", "  POST a stream_interrupted"]);
    seen.exporter.reset();
    rule(json!({ "delay_ms": 5000 }));
    let call = client.generate(ask());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), call).await.is_err());
    assert_eq!(seen.tree(), ["chat a cancelled", "  POST a cancelled"]);
}

#[tokio::test]
async fn the_hosts_span_is_the_parent_also_in_a_task_of_its_own() {
    let (seen, sim) = (Seen::begin(), sim());
    let client = Arc::new(one(&sim, json!({})));
    client.telemetry().propagate(true);
    let host = tracing::info_span!("host");
    let task = {
        let client = Arc::clone(&client);
        host.in_scope(|| {
            tokio::spawn(async move { client.generate(ask()).await.map(drop) }.in_current_span())
        })
    };
    task.await.unwrap().unwrap();
    let streaming = {
        let client = Arc::clone(&client);
        async move { client.stream(ask()).await }.instrument(host.clone())
    };
    let stream = streaming.await.unwrap();
    // Read elsewhere than where it was begun.
    tokio::spawn(async move { stream.collect::<Vec<_>>().await.len() }).await.unwrap();
    // A span counts as ended when it was left last.
    host.in_scope(|| ());
    drop(host);
    assert_eq!(seen.tree(), ["host", "  chat a", "    POST a", "  chat a", "    POST a"]);
    let spans = seen.spans();
    let calls: Vec<_> = spans.iter().filter(|span| span.name == "chat a").collect();
    for (request, call) in sim.requests().iter().zip(calls) {
        let sent = &request.headers.iter().find(|(name, _)| name == "traceparent").expect("traceparent").1;
        let (trace, span) = (call.span_context.trace_id(), call.span_context.span_id());
        assert_eq!(*sent, format!("00-{trace}-{span}-01"));
    }
    client.telemetry().propagate(false);
    client.generate(ask()).await.unwrap();
    assert!(!sim.requests().last().unwrap().headers.iter().any(|(name, _)| name == "traceparent"));
}

#[tokio::test]
async fn neither_key_nor_prompt_nor_a_providers_words_are_told() {
    let (seen, sim) = (Seen::begin(), sim());
    let body = json!({ "error": { "message": "you said: sesame-prompt, with sk-canary" } });
    failing(&sim, "a", json!({ "status": 400, "body": body }));
    let client = over(
        vec![deployment(&sim, "a", json!({ "api_key": "sk-canary" })), deployment(&sim, "b", json!({}))],
        json!({}),
    );
    client.generate(ask().with_prompt("sesame-prompt")).await.unwrap_err();
    sim.clear_rules();
    for _ in 0..6 {
        failing(&sim, "a", json!({ "status": 500, "body": { "error": { "message": "sesame-prompt" } } }));
        client.generate(ask().with_prompt("sesame-prompt").with_max_retries(0)).await.unwrap();
    }
    let told = format!("{:?} {}", seen.spans(), seen.text());
    let notices = serde_json::to_string(&client.telemetry().notices().take()).unwrap();
    assert!(told.contains("error.type") && told.contains("fallback"), "{told}");
    for secret in ["sesame-prompt", "sk-canary"] {
        assert!(!told.contains(secret) && !notices.contains(secret), "{secret}: {told}");
    }
}
