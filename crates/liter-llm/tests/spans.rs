//! The spans of calls, as an OpenTelemetry exporter gets them: which, inside of which, and what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod routed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use liter_llm::{Client, LlmProvider};
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
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
        spans.retain(|span| ["chat", "attempt", "host"].iter().any(|ours| span.name.starts_with(ours)));
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

fn branch(spans: &[SpanData], span: &SpanData, depth: usize, lines: &mut Vec<String>) {
    let said = attributes(span);
    let mut line = format!("{}{}", "  ".repeat(depth), span.name);
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
    assert_eq!(seen.tree(), ["chat a", "  attempt a"]);
    let spans = seen.spans();
    let call = spans.iter().find(|span| span.name == "chat a").unwrap();
    assert_eq!((&call.span_kind, &call.status), (&SpanKind::Client, &Status::Unset));
    let said = attributes(call);
    for (name, value) in [
        ("provider", "openai"),
        ("model", "a"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "a"),
        ("gen_ai.request.max_tokens", "20"),
        ("gen_ai.request.stream", "false"),
        ("gen_ai.response.model", "a"),
        ("gen_ai.response.finish_reasons", "stop"),
        ("liter_llm.deployment", "a"),
        ("liter_llm.attempts", "1"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(said.get(name).map(String::as_str), Some(value), "{name} of {said:?}");
    }
    assert!(said.contains_key("gen_ai.usage.input_tokens") && said.contains_key("prompt_len"), "{said:?}");
    seen.exporter.reset();
    let chunks: Vec<_> = client.stream(ask()).await.unwrap().collect().await;
    assert!(chunks.iter().all(Result::is_ok));
    assert_eq!(seen.tree(), ["chat a", "  attempt a"]);
    let said = attributes(&seen.spans()[0]);
    assert!(said.contains_key("gen_ai.response.time_to_first_chunk"), "{said:?}");
    assert_eq!(said.get("gen_ai.request.stream").map(String::as_str), Some("true"));
}

#[tokio::test]
async fn a_retry_is_a_second_span_and_an_event() {
    let (seen, sim) = (Seen::begin(), sim());
    sim.set_rules(
        serde_json::from_value(json!([{ "match": { "times": 1 }, "fault": { "status": 503 } }])).unwrap(),
    )
    .unwrap();
    one(&sim, json!({})).generate(ask()).await.unwrap();
    assert_eq!(seen.tree(), ["chat a [retry]", "  attempt a overloaded", "  attempt a retry"]);
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
    let expected = ["chat b [fallback]", "  attempt a overloaded", "  attempt b fallback"];
    assert_eq!(seen.tree(), expected);
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
    assert_eq!(seen.tree(), ["chat a cancelled", "  attempt a cancelled"]);
    seen.exporter.reset();
    rule(json!({ "cut_after": 2 }));
    let chunks: Vec<_> = client.stream(ask()).await.unwrap().collect().await;
    assert!(chunks.last().unwrap().is_err());
    assert_eq!(seen.tree(), ["chat a stream_interrupted", "  attempt a stream_interrupted"]);
    seen.exporter.reset();
    rule(json!({ "delay_ms": 5000 }));
    let call = client.generate(ask());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), call).await.is_err());
    assert_eq!(seen.tree(), ["chat a cancelled", "  attempt a cancelled"]);
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
    assert_eq!(seen.tree(), ["host", "  chat a", "    attempt a", "  chat a", "    attempt a"]);
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
