//! What a subscriber of `tracing` sees of calls: spans inside of spans, how each ended, and at which level wire timing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(feature = "tracing")]

mod routed;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use liter_llm::telemetry::CallSink;
use liter_llm::{CallRecord, Client, LlmProvider};
use liter_llm_sim::Simulator;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use self::routed::{ask, deployment, over, sim};

/// Fields by name, as they are written.
#[derive(Debug, Clone, Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Fields {
    fn seconds(&self, name: &str) -> f64 {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).parse().unwrap()
    }
}

#[derive(Debug, Clone)]
struct Told {
    level: Level,
    fields: Fields,
}

#[derive(Debug, Clone)]
struct Seen {
    name: &'static str,
    parent: Option<usize>,
    fields: Fields,
    events: Vec<Told>,
    /// How many spans had ended when this one did.
    ended: Option<usize>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Seen>,
    /// Where a span that is open is kept: its number is given to another one later.
    open: HashMap<u64, usize>,
    ended: usize,
}

/// Keeps what the spans of the engine say.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Kept>>);

impl Keeper {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    /// For this thread, from this level up.
    fn begin(level: LevelFilter) -> (Self, tracing::subscriber::DefaultGuard) {
        let keeper = Self::default();
        let subscriber = tracing_subscriber::registry().with(keeper.clone().with_filter(level));
        (keeper, tracing::subscriber::set_default(subscriber))
    }

    /// What is there, and forgets it. Every span has ended.
    fn take(&self) -> Vec<Seen> {
        let mut kept = self.kept();
        assert!(kept.open.is_empty(), "still open: {:?}", kept.spans);
        std::mem::take(&mut kept.spans)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Keeper {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !attributes.metadata().target().starts_with("liter_llm") {
            return;
        }
        let parent = context.span(id).unwrap().parent().map(|parent| parent.id().into_u64());
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut kept = self.kept();
        let parent = parent.and_then(|parent| kept.open.get(&parent).copied());
        let at = kept.spans.len();
        let name = attributes.metadata().name();
        kept.spans.push(Seen { name, parent, fields, events: Vec::new(), ended: None });
        kept.open.insert(id.into_u64(), at);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut kept = self.kept();
        if let Some(at) = kept.open.get(&id.into_u64()).copied() {
            values.record(&mut kept.spans[at].fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Those of the HTTP library are its own.
        if !event.metadata().target().starts_with("liter_llm") {
            return;
        }
        let Some(id) = context.event_span(event).map(|span| span.id().into_u64()) else { return };
        let mut kept = self.kept();
        if let Some(at) = kept.open.get(&id).copied() {
            let mut fields = Fields::default();
            event.record(&mut fields);
            kept.spans[at].events.push(Told { level: *event.metadata().level(), fields });
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut kept = self.kept();
        if let Some(at) = kept.open.remove(&id.into_u64()) {
            kept.spans[at].ended = Some(kept.ended);
            kept.ended += 1;
        }
    }
}

impl Seen {
    fn get(&self, name: &str) -> Option<&str> {
        self.fields.0.get(name).map(String::as_str)
    }

    fn events(&self) -> Vec<&str> {
        self.events.iter().filter_map(|told| told.fields.0.get("message")).map(String::as_str).collect()
    }
}

/// `name error cause [events]`, children indented. A child has ended before its parent.
fn tree(spans: &[Seen]) -> Vec<String> {
    let mut lines = Vec::new();
    branch(spans, None, &mut lines);
    lines
}

fn branch(spans: &[Seen], parent: Option<usize>, lines: &mut Vec<String>) {
    for (at, span) in spans.iter().enumerate().filter(|(_, span)| span.parent == parent) {
        let mut line = "  ".repeat(if span.name == "llm_attempt" { 1 } else { 0 });
        line.push_str(span.get("otel.name").unwrap_or(span.name));
        if span.name == "llm_attempt" {
            line.push_str(&format!(" {}", span.get("liter_llm.deployment").unwrap()));
        }
        for name in ["error.type", "liter_llm.attempt.cause"] {
            line.push_str(&span.get(name).map(|value| format!(" {value}")).unwrap_or_default());
        }
        if !span.events().is_empty() {
            line.push_str(&format!(" [{}]", span.events().join(", ")));
        }
        lines.push(line);
        assert!(
            span.get("error.type").is_some() == (span.get("otel.status_code") == Some("ERROR")),
            "{span:?}"
        );
        if let Some(parent) = parent {
            assert!(span.ended < spans[parent].ended, "{span:?}");
        }
        branch(spans, Some(at), lines);
    }
}

fn rule(sim: &Simulator, rule: Value) {
    sim.add_rule(serde_json::from_value(rule).unwrap()).unwrap();
}

fn one(sim: &Simulator, more: Value) -> Client {
    over(vec![deployment(sim, "a", more)], json!({}))
}

const BROKEN: [&str; 2] = ["reset", "close"];

/// A connection that rested, and that the host has closed: sent again at once, which is no retry of the client's.
#[tokio::test]
async fn a_request_that_is_sent_again_over_a_new_connection_has_a_span_of_its_own() {
    for fault in BROKEN {
        let (keeper, _guard) = Keeper::begin(LevelFilter::DEBUG);
        let sim = sim();
        rule(&sim, json!({ "match": { "nth": 2 }, "fault": { fault: true } }));
        let client = one(&sim, json!({ "max_retries": 0 }));
        let records = client.telemetry().records(8);
        client.generate(ask()).await.unwrap();
        assert_eq!(tree(&keeper.take()), ["chat a", "  POST a [connected, first byte]"]);
        let answer = client.generate(ask()).await.unwrap();
        let spans = keeper.take();
        assert_eq!(
            tree(&spans),
            ["chat a [retry]", "  POST a connection", "  POST a resend [connected, first byte]"],
            "{fault}"
        );
        let [call, stale, resent] = spans.as_slice() else { panic!("{spans:?}") };
        // What was sent first is over before the second begins, has no status, and needed no connection.
        assert_eq!(
            (stale.get("http.response.status_code"), stale.get("liter_llm.attempt.connect")),
            (None, None)
        );
        assert_eq!(resent.get("http.response.status_code"), Some("200"));
        assert_eq!(resent.fields.seconds("liter_llm.attempt.connect"), answer.attempts[1].connect.unwrap());
        assert!(stale.ended < resent.ended);
        assert_eq!((call.get("error.type"), call.get("liter_llm.attempts")), (None, Some("2")));
        // The same over a stream.
        sim.clear_rules();
        rule(&sim, json!({ "match": { "nth": 1 }, "fault": { fault: true } }));
        let pieces: Vec<_> = client.stream(ask()).await.unwrap().collect().await;
        assert!(pieces.iter().all(Result::is_ok), "{pieces:?}");
        assert_eq!(
            tree(&keeper.take()),
            ["chat a [retry]", "  POST a connection", "  POST a resend [connected, first byte]"],
        );
        // The record knows that only the second one was read.
        let record = Arc::clone(records.take(Duration::ZERO).last().unwrap());
        let [stale, resent] = record.attempts.as_slice() else { panic!("{record:?}") };
        assert!(stale.ended <= resent.attempt.started && stale.ended < resent.ended, "{stale:?} {resent:?}");
    }
}

fn hedged(sim: &Simulator) -> Client {
    one(sim, json!({ "max_retries": 0, "hedge": { "after": 0.05, "budget": 1.0 } }))
}

#[tokio::test]
async fn both_requests_of_a_hedged_call_are_inside_of_it_and_the_slower_one_is_cancelled() {
    let (keeper, _guard) = Keeper::begin(LevelFilter::DEBUG);
    let sim = sim();
    rule(&sim, json!({ "match": { "times": 1 }, "fault": { "delay_ms": 30_000 } }));
    let answer = hedged(&sim).generate(ask()).await.unwrap();
    let spans = keeper.take();
    assert_eq!(
        tree(&spans),
        ["chat a", "  POST a cancelled [connected]", "  POST a hedge [connected, first byte]"]
    );
    let [call, loser, winner] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((loser.parent, winner.parent), (Some(0), Some(0)));
    assert_eq!((call.get("error.type"), call.get("liter_llm.attempts")), (None, Some("2")));
    assert_eq!(
        (loser.get("http.response.status_code"), winner.get("http.response.status_code")),
        (None, Some("200"))
    );
    let errors: Vec<_> = answer.attempts.iter().map(|attempt| attempt.error.as_deref()).collect();
    assert_eq!(errors, [Some("cancelled"), None]);
    // The same over a stream.
    sim.clear_rules();
    rule(&sim, json!({ "match": { "times": 1 }, "fault": { "first_event_delay_ms": 30_000 } }));
    let pieces: Vec<_> = hedged(&sim).stream(ask()).await.unwrap().collect().await;
    assert!(pieces.iter().all(Result::is_ok), "{pieces:?}");
    let told = tree(&keeper.take());
    assert_eq!(told[0], "chat a");
    assert!(told[1].starts_with("  POST a cancelled [connected"), "{told:?}");
    assert_eq!(told[2], "  POST a hedge [connected, first byte]");
}

/// The first request answers after the second was sent: what is told of it stands in its own span.
#[tokio::test]
async fn the_first_byte_of_a_hedged_call_belongs_to_the_request_that_was_answered() {
    let (keeper, _guard) = Keeper::begin(LevelFilter::DEBUG);
    let sim = sim();
    rule(&sim, json!({ "match": { "nth": 1 }, "fault": { "delay_ms": 400 } }));
    rule(&sim, json!({ "match": { "nth": 1 }, "fault": { "hang": true } }));
    hedged(&sim).generate(ask()).await.unwrap();
    let spans = keeper.take();
    assert_eq!(
        tree(&spans),
        ["chat a", "  POST a [connected, first byte]", "  POST a cancelled hedge [connected]"]
    );
    let first_byte = &spans[1].events.last().unwrap().fields;
    assert!(first_byte.seconds("liter_llm.attempt.first_byte") >= 0.4, "{first_byte:?}");
}

#[tokio::test]
async fn a_stream_that_breaks_inside_ends_both_spans_with_its_error() {
    let (keeper, _guard) = Keeper::begin(LevelFilter::DEBUG);
    let sim = sim();
    let client = one(&sim, json!({}));
    let error = json!({ "type": "server_error", "message": "words-of-the-provider" });
    for (fault, kind) in [
        (json!({ "cut_after": 3 }), "stream_interrupted"),
        (json!({ "reset_after": 3 }), "stream_interrupted"),
        (json!({ "drop_terminator": true, "drop_finish": true }), "stream_interrupted"),
        (json!({ "error_after": 3, "error": error }), "provider_error"),
    ] {
        sim.clear_rules();
        rule(&sim, json!({ "fault": fault }));
        let pieces: Vec<_> = client.stream(ask().with_prompt("[tokens=20]")).await.unwrap().collect().await;
        assert!(pieces.last().unwrap().is_err() && pieces[0].is_ok(), "{pieces:?}");
        let spans = keeper.take();
        // The connection may be one that rested.
        let told: Vec<_> = tree(&spans).iter().map(|line| line.replace("connected, ", "")).collect();
        assert_eq!(told, [format!("chat a {kind}"), format!("  POST a {kind} [first byte]")]);
        // It was begun, and answered with 200: only its inside broke.
        assert_eq!(spans[1].get("http.response.status_code"), Some("200"));
        let first_chunk = spans[0].fields.seconds("gen_ai.response.time_to_first_chunk");
        assert!(first_chunk >= spans[1].fields.seconds("liter_llm.attempt.first_byte"), "{spans:?}");
        assert!(!format!("{spans:?}").contains("words-of-the-provider"));
    }
}

#[tokio::test]
async fn wire_timing_is_told_at_the_debug_level_and_not_above() {
    let calls = async |level| {
        let (keeper, _guard) = Keeper::begin(level);
        let sim = sim();
        rule(&sim, json!({ "fault": { "delay_ms": 30 } }));
        let client = one(&sim, json!({}));
        let mut seen = Vec::new();
        for _ in 0..2 {
            let answer = client.generate(ask()).await.unwrap();
            seen.push((keeper.take(), answer.attempts[0].clone()));
        }
        seen
    };
    let [(first, attempt), (second, _)] = &calls(LevelFilter::DEBUG).await[..] else { panic!() };
    assert_eq!(tree(first), ["chat a", "  POST a [connected, first byte]"]);
    // Over the connection that is there.
    assert_eq!(tree(second), ["chat a", "  POST a [first byte]"]);
    let [connected, first_byte] = first[1].events.as_slice() else { panic!("{first:?}") };
    assert_eq!((connected.level, first_byte.level), (Level::DEBUG, Level::DEBUG));
    assert_eq!(connected.fields.seconds("liter_llm.attempt.connect"), attempt.connect.unwrap());
    let told = first_byte.fields.seconds("liter_llm.attempt.first_byte");
    // Counted from a moment after the sending, to a moment before the end.
    assert!((0.03..=attempt.duration).contains(&told), "{told} {attempt:?}");
    // The span says the same when it ends, at every level that spans have.
    let [(first, attempt), (second, _)] = &calls(LevelFilter::INFO).await[..] else { panic!() };
    assert_eq!((tree(first), tree(second)), (vec!["chat a".into(), "  POST a".into()], tree(first)));
    assert_eq!(first[1].fields.seconds("liter_llm.attempt.connect"), attempt.connect.unwrap());
    assert_eq!(first[1].fields.seconds("liter_llm.attempt.first_byte"), attempt.first_byte.unwrap());
    assert_eq!(second[1].get("liter_llm.attempt.connect"), None);
    let [(none, _), _] = &calls(LevelFilter::WARN).await[..] else { panic!() };
    assert!(none.is_empty(), "{none:?}");
}

/// Whether the caller's span is at hand when the call is made, or the call is put into it: it is the parent.
#[tokio::test]
async fn a_call_is_inside_of_the_span_that_the_caller_has_it_in() {
    let (keeper, _guard) = Keeper::begin(LevelFilter::INFO);
    let sim = sim();
    let client = one(&sim, json!({}));
    let host = || tracing::info_span!(target: "liter_llm_host", "host");
    client.generate(ask()).instrument(host()).await.unwrap();
    host().in_scope(|| client.generate(ask())).await.unwrap();
    async { client.generate(ask()).await }.instrument(host()).await.unwrap();
    client.generate(ask()).with_current_subscriber().instrument(host()).await.unwrap();
    let stream = client.stream(ask()).instrument(host()).await.unwrap();
    assert!(stream.collect::<Vec<_>>().await.iter().all(Result::is_ok));
    let spans = keeper.0.lock().unwrap().spans.clone();
    let parents: Vec<_> = spans.iter().map(|span| span.parent.map(|at| spans[at].name)).collect();
    assert_eq!(parents, [None, Some("host"), Some("llm_call")].repeat(5), "{spans:?}");
}

/// Time in line is told by the request's span.
#[tokio::test]
async fn a_request_that_was_in_line_says_how_long() {
    let (keeper, _guard) = Keeper::begin(LevelFilter::INFO);
    let sim = sim();
    rule(&sim, json!({ "fault": { "delay_ms": 100 } }));
    let client = one(&sim, json!({ "concurrency": 1 }));
    let (first, second) = tokio::join!(client.generate(ask()), client.generate(ask()));
    let queued = second.unwrap().attempts[0].queued;
    assert!(first.unwrap().attempts[0].queued.is_none(), "{queued:?}");
    assert!(queued.is_some_and(|queued| queued > 0.09), "{queued:?}");
    let spans = keeper.take();
    let told: Vec<_> = spans.iter().filter_map(|span| span.get("liter_llm.attempt.queued")).collect();
    assert_eq!(told, [format!("{:?}", queued.unwrap())]);
}

/// A sink that panics, as one of a program's own may.
struct Panics;

impl CallSink for Panics {
    fn call(&self, _: &Arc<CallRecord>) {
        panic!("sesame");
    }
}

/// Everything that a log would have shown.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_first_panic_of_who_listens_is_told_and_its_words_are_not() {
    let lines = Lines::default();
    let written = lines.clone();
    let text = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || written.clone());
    // For all threads, as a program has it: a hook has one of its own. The other tests of this file have each their own.
    let subscriber = tracing_subscriber::registry().with(LevelFilter::WARN).with(text);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let sim = sim();
    let client = one(&sim, json!({}));
    client.telemetry().add(Arc::new(Panics));
    let hook = client.telemetry().on_call(8, |_| panic!("sesame")).unwrap();
    for _ in 0..3 {
        client.generate(ask()).await.unwrap();
    }
    assert!(hook.finish(Duration::from_secs(30)));
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let mut told: Vec<_> = text.lines().filter(|line| line.contains("panicked")).collect();
    told.sort_by_key(|line| line.contains("sink"));
    let [of_hook, of_sink] = told[..] else { panic!("{text}") };
    assert!(of_hook.ends_with("hook_panicked") && of_sink.ends_with("sink_panicked"), "{text}");
    assert!(text.contains("WARN") && !text.contains("sesame"), "{text}");
}
