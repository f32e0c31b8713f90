#![allow(clippy::unwrap_used, clippy::panic)]
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::*;
use crate::client::Client;
use crate::config::Config;
use crate::core::error::LlmError;
use crate::core::provider::LlmProvider;
use crate::core::record::{RecordedError, RecordedRoute};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, LlmResponse};
use crate::core::route::CanaryArm;
use crate::telemetry::names::metric;

struct Echo;

#[async_trait]
impl LlmProvider for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let model = request.model.clone().unwrap_or_default();
        let usage = Some(Usage { input_tokens: 3, output_tokens: 2, ..Usage::default() });
        Ok(LlmResponse { model, usage, ..LlmResponse::default() })
    }
}

/// The value of a series, written with its labels.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn attempt(deployment: &str, cause: Option<AttemptCause>, error: Option<&str>) -> RecordedAttempt {
    let attempt = Attempt {
        deployment: deployment.to_owned(),
        started: 1.0,
        duration: 0.25,
        cause,
        error: error.map(str::to_owned),
        ..Attempt::default()
    };
    RecordedAttempt { attempt, ended: 1.5, provider: "openai".into(), ..RecordedAttempt::default() }
}

fn record() -> CallRecord {
    CallRecord {
        operation: "chat".into(),
        duration: 2.0,
        deployment: "b".into(),
        provider: "openai".into(),
        model: "m".into(),
        model_label: "m".into(),
        usage: Some(Usage {
            input_tokens: 100,
            output_tokens: 20,
            cache_read_input_tokens: 60,
            reasoning_output_tokens: 5,
            ..Usage::default()
        }),
        cost: Some(0.5),
        attempts: vec![
            attempt("a", None, Some("overloaded")),
            attempt("a", Some(AttemptCause::Retry), Some("timeout")),
            attempt("b", Some(AttemptCause::Fallback), None),
        ],
        ..CallRecord::default()
    }
}

fn text_of(records: &[CallRecord]) -> String {
    let metrics = Metrics::new();
    for record in records {
        metrics.counts.call(&Arc::new(record.clone()));
    }
    metrics.text()
}

#[test]
fn a_record_is_counted_once_in_every_series_it_belongs_to() {
    let streamed = CallRecord {
        streamed: true,
        first_chunk: Some(0.5),
        chunk_seconds: vec![0.02, 0.03],
        error: Some(RecordedError { kind: "stream_interrupted".to_owned(), ..RecordedError::default() }),
        usage: None,
        cost: None,
        attempts: vec![attempt("b", None, Some("stream_interrupted"))],
        ..record()
    };
    let cached = CallRecord { cached: true, attempts: Vec::new(), ..record() };
    let missed = CallRecord {
        cache_missed: true,
        usage: None,
        route: Some(RecordedRoute { arm: Some(CanaryArm::Canary), ..RecordedRoute::default() }),
        ..record()
    };
    let text = text_of(&[record(), streamed, cached, missed]);
    let call = r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="m",liter_llm_deployment="b""#;
    let failed = format!(r#"{call},error_type="stream_interrupted""#);
    let expected = [
        (format!("gen_ai_client_operation_duration_seconds_count{{{call}}}"), 3.0),
        (format!("gen_ai_client_operation_duration_seconds_sum{{{call}}}"), 6.0),
        (format!("gen_ai_client_operation_duration_seconds_count{{{failed}}}"), 1.0),
        (format!(r#"gen_ai_client_token_usage_sum{{{call},gen_ai_token_type="input"}}"#), 100.0),
        (format!(r#"gen_ai_client_token_usage_count{{{call},gen_ai_token_type="output"}}"#), 1.0),
        (format!("gen_ai_client_operation_time_to_first_chunk_seconds_sum{{{failed}}}"), 0.5),
        (format!("gen_ai_client_operation_time_per_output_chunk_seconds_count{{{failed}}}"), 2.0),
        (
            r#"llm_request_latency_ms_bucket{le="2560.0",gen_ai_provider_name="openai",gen_ai_request_model="m",liter_llm_deployment="b"}"#.to_owned(),
            3.0,
        ),
        (r#"liter_llm_attempt_duration_seconds_sum{liter_llm_deployment="a",gen_ai_provider_name="openai",error_type="timeout"}"#.to_owned(), 1.0),
        (r#"liter_llm_attempt_duration_seconds_count{liter_llm_deployment="b",gen_ai_provider_name="openai"}"#.to_owned(), 2.0),
        (r#"liter_llm_retries_total{liter_llm_deployment="a",error_type="overloaded"}"#.to_owned(), 2.0),
        (r#"liter_llm_fallbacks_total{liter_llm_from="a",liter_llm_to="b",error_type="timeout"}"#.to_owned(), 2.0),
        (r#"liter_llm_spend_usd_total{liter_llm_deployment="b",gen_ai_provider_name="openai",gen_ai_request_model="m"}"#.to_owned(), 1.0),
        (r#"liter_llm_tokens_total{liter_llm_deployment="b",gen_ai_request_model="m",liter_llm_token_type="cache_read"}"#.to_owned(), 60.0),
        (r#"liter_llm_tokens_total{liter_llm_deployment="b",gen_ai_request_model="m",liter_llm_token_type="reasoning"}"#.to_owned(), 5.0),
        ("liter_llm_cache_hits_total".to_owned(), 1.0),
        ("liter_llm_cache_misses_total".to_owned(), 1.0),
        (r#"liter_llm_canary_calls_total{liter_llm_arm="canary",error_type="overloaded"}"#.to_owned(), 1.0),
        (r#"liter_llm_canary_duration_seconds_sum{liter_llm_arm="canary",error_type="overloaded"}"#.to_owned(), 0.25),
        ("liter_llm_labels_folded_total".to_owned(), 0.0),
    ];
    for (series, wanted) in expected {
        assert_eq!(value(&text, &series), Some(wanted), "{series}\n{text}");
    }
}

#[tokio::test]
async fn names_without_end_make_a_bounded_number_of_series() {
    let client = Client::over(Arc::new(Echo));
    let metrics = Metrics::new();
    metrics.attach(client.telemetry());
    metrics.attach(client.telemetry());
    for number in 0..10_000 {
        let request = LlmRequest::new().with_prompt("x").with_model(&format!("model-{number}"));
        client.generate(request).await.unwrap();
    }
    let text = metrics.text();
    let counts: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("gen_ai_client_operation_duration_seconds_count{"))
        .collect();
    assert!((2..=65).contains(&counts.len()), "{} series", counts.len());
    let calls: f64 = counts.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(calls, 10_000.0, "each call once");
    let folded = value(&text, "liter_llm_labels_folded_total").unwrap();
    assert!((9_900.0..10_000.0).contains(&folded), "{folded}");
    let tokens: Vec<_> = text.lines().filter(|line| line.starts_with("liter_llm_tokens_total{")).collect();
    assert!(tokens.len() <= 2 * 65, "{}", tokens.len());
}

#[test]
fn what_a_provider_of_ones_own_says_is_bounded_too() {
    let records: Vec<_> = (0..5_000)
        .map(|number| CallRecord {
            operation: format!("operation-{number}").into(),
            deployment: format!("deployment-{number}").into(),
            provider: format!("provider-{number}").into(),
            error: Some(RecordedError { kind: format!("error-{number}"), ..RecordedError::default() }),
            attempts: vec![attempt(&format!("deployment-{number}"), None, Some(&format!("error-{number}")))],
            ..record()
        })
        .collect();
    let text = text_of(&records);
    for family in
        ["gen_ai_client_operation_duration_seconds_count", "liter_llm_attempt_duration_seconds_count"]
    {
        let series = text.lines().filter(|line| line.starts_with(family)).count();
        assert!((2..=130).contains(&series), "{family}: {series}");
    }
    assert!(text.contains(r#"error_type="other""#) && !text.contains("error-1"));
}

#[test]
fn both_text_forms_say_the_same() {
    let metrics = Metrics::new();
    metrics.counts.call(&Arc::new(record()));
    let (kind, text) = metrics.answer(Some("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"));
    assert_eq!(kind, OPENMETRICS);
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE liter_llm_retries counter\n"), "{text}");
    for accept in [None, Some("*/*"), Some("text/plain"), Some("application/openmetrics-text;q=0")] {
        let (kind, older) = metrics.answer(accept);
        assert_eq!(kind, PLAIN, "{accept:?}");
        assert!(!older.contains("EOF") && older.contains("# TYPE liter_llm_retries_total counter\n"));
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&older), samples(&text));
        // Each sample stands under the type of its own name.
        let mut name = "";
        for line in older.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(typed) => name = typed.split(' ').next().unwrap(),
                None if line.starts_with('#') => {}
                None => assert!(line.starts_with(name), "{line} under {name}"),
            }
        }
    }
}

fn two(budget: f64) -> Config {
    let text = format!(
        r#"{{"deployments": [
            {{"name": "a", "provider": "openai", "model": "gpt-4o-mini", "api_key": "sk-canary", "base_url": "http://127.0.0.1:9/v1"}},
            {{"name": "b", "provider": "openai", "model": "gpt-4o-mini", "api_key": "sk-canary", "base_url": "http://127.0.0.1:9/v1"}}],
          "router": {{"budget": {{"usd": {budget}, "per": "day"}}, "mirror": {{"to": "b", "percent": 0}}}}}}"#
    );
    Config::from_json(text.as_bytes()).unwrap()
}

#[tokio::test]
async fn gauges_are_read_from_the_client_that_is_there() {
    let client = Client::from_config(two(5.0)).unwrap();
    let metrics = Metrics::new();
    metrics.attach(client.telemetry());
    let circuit = r#"liter_llm_circuit_state{liter_llm_deployment="a"}"#;
    assert_eq!(value(&metrics.text(), circuit), Some(0.0));
    assert_eq!(
        value(&metrics.text(), r#"liter_llm_budget_limit_usd{liter_llm_budget="router/day"}"#),
        Some(5.0)
    );
    for _ in 0..6 {
        let request = LlmRequest::new().with_prompt("never seen").with_max_retries(0);
        client.generate(request).await.unwrap_err();
    }
    let text = metrics.text();
    assert_eq!(value(&text, circuit), Some(2.0), "{text}");
    assert!(text.contains(
        r#"liter_llm_fallbacks_total{liter_llm_from="a",liter_llm_to="b",error_type="connection"}"#
    ));
    assert!(!text.contains("never seen") && !text.contains("sk-canary"));
    // The new one is followed; while a new one that came to nothing is gone, the old one is.
    let reloaded = client.reloaded(two(7.0)).unwrap();
    drop(client);
    let limit = r#"liter_llm_budget_limit_usd{liter_llm_budget="router/day"}"#;
    assert_eq!(value(&metrics.text(), limit), Some(7.0));
    drop(reloaded.reloaded(two(9.0)).unwrap());
    assert_eq!(value(&metrics.text(), limit), Some(7.0));
    let other = Client::over(Arc::new(Echo));
    metrics.attach(other.telemetry());
    assert_eq!(value(&metrics.text(), r#"liter_llm_in_flight{liter_llm_deployment="echo"}"#), Some(0.0));
    drop((reloaded, other));
    let gone = metrics.text();
    assert!(
        !gone.contains("liter_llm_circuit_state{") && gone.contains("liter_llm_fallbacks_total{"),
        "{gone}"
    );
}

#[tokio::test]
async fn who_is_detached_or_dropped_hears_no_more() {
    let client = Client::over(Arc::new(Echo));
    let records = client.telemetry().records(1);
    let metrics = Metrics::new();
    metrics.attach(client.telemetry());
    let calls = async |count: u32| {
        for _ in 0..count {
            client.generate(LlmRequest::new().with_prompt("x")).await.unwrap();
        }
    };
    calls(3).await;
    assert_eq!(value(&metrics.text(), "liter_llm_records_dropped_total"), Some(2.0));
    metrics.detach(client.telemetry());
    calls(1).await;
    let text = metrics.text();
    let count = r#"llm_request_latency_ms_count{gen_ai_provider_name="echo",liter_llm_deployment="echo"}"#;
    assert_eq!(value(&text, count), Some(3.0), "{text}");
    assert_eq!(value(&text, "liter_llm_records_dropped_total"), Some(2.0));
    metrics.attach(client.telemetry());
    drop(metrics);
    records.close();
    assert!(!client.telemetry().is_listened_to());
}

/// Every name is written by something: a metric that nothing fills would be a promise without substance.
#[tokio::test]
async fn every_name_is_used() {
    let sources = [
        include_str!("series.rs"),
        include_str!("scrape.rs"),
        include_str!("metrics.rs"),
        include_str!("spans.rs"),
        &include_str!("told.rs").replace("names::", "attribute::"),
    ];
    let mut module = "";
    let mut names = 0;
    for line in include_str!("names.rs").lines() {
        if let Some(name) = line.strip_prefix("pub mod ") {
            module = name.trim_end_matches(" {");
        }
        let Some((name, _)) =
            line.trim_start().strip_prefix("pub const ").and_then(|rest| rest.split_once(": &str"))
        else {
            continue;
        };
        names += 1;
        let path = format!("{module}::{name}");
        assert!(sources.iter().any(|source| source.contains(&path)), "{path} is not used");
    }
    assert!(names > 30, "{names}");
    for counter in metric::COUNTERS {
        assert!(!counter.ends_with("_total"), "{counter}");
    }
}

/// What a record costs: far under the 2 microseconds a call may take of it, in an optimised build.
#[test]
fn observing_is_cheap() {
    let metrics = Metrics::new();
    let record = Arc::new(CallRecord { attempts: vec![attempt("b", None, None)], ..record() });
    let chunks = Arc::new(CallRecord { chunk_seconds: vec![0.02; 10_000], ..record.as_ref().clone() });
    metrics.counts.call(&record);
    let best = |record: &Arc<CallRecord>, rounds: u32| {
        (0..5)
            .map(|_| {
                let begun = Instant::now();
                (0..rounds).for_each(|_| metrics.counts.call(record));
                begun.elapsed() / rounds
            })
            .min()
            .unwrap_or_default()
    };
    let call = best(&record, 2_000);
    let chunk = best(&chunks, 5) / 10_000;
    println!("{call:?} a call, {chunk:?} a chunk");
    let slack = if cfg!(debug_assertions) { 20 } else { 1 };
    assert!(call <= Duration::from_micros(2) * slack, "{call:?}");
    assert!(chunk <= Duration::from_nanos(100) * slack, "{chunk:?}");
}
