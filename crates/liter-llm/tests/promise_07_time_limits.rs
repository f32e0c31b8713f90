//! Row 7: separate limits for the first byte and silence, one for the whole call; a slow live stream is not cut. The
//! limit for connecting stands in `http_transport`, and all of them again in Python.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod simulated;
mod stalls;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use liter_llm::{Client, ErrorKind, FailurePhase, LlmProvider, LlmRequest, ProviderConfig};
use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};
use simulated::{DIALECTS, config, rule};

/// Seconds; each limit is to end its call within a tenth of it.
const LIMIT: f64 = 1.0;
/// Chunks of the dripping stream, one a second, and the silence that is allowed.
const FULL: usize = 120;
const SHORT: usize = 12;
const IDLE: f64 = 2.0;

type Set = fn(&mut ProviderConfig) -> &mut Option<f64>;

/// Dialect, fault, which limit is small, and the phase of the error.
fn cases() -> Vec<(&'static str, Value, Set, FailurePhase)> {
    let first: Set = |config| &mut config.first_byte_timeout;
    let idle: Set = |config| &mut config.idle_timeout;
    let total: Set = |config| &mut config.timeout;
    let mut cases = Vec::new();
    for (dialect, _) in DIALECTS {
        cases.push((dialect, json!({"hang": true}), first, FailurePhase::FirstByte));
        cases.push((dialect, json!({"hang_after": 6}), idle, FailurePhase::Idle));
        cases.push((dialect, json!({"first_event_delay_ms": 60_000}), total, FailurePhase::Total));
    }
    cases.push(("chat", json!({"hang_after": 0}), idle, FailurePhase::Idle));
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_07_every_limit_ends_its_call_in_time() {
    // All clients are made before the first call begins: that takes a while, and is no part of a limit.
    let runs = cases().into_iter().map(|(dialect, fault, set, phase)| {
        let sim = Simulator::start(SimConfig::default()).unwrap();
        simulated::fault(&sim, dialect, &fault);
        let mut config = config(&sim, dialect);
        *set(&mut config) = Some(LIMIT);
        let client = Client::new(config).unwrap();
        async move {
            let _sim = sim;
            stalls::on_time(async |_| {
                let start = Instant::now();
                let (_, outcome) = simulated::read(&client, &simulated::requests()[0]).await;
                let took = start.elapsed().as_secs_f64();
                let label = format!("{dialect} {fault}: {took} s");
                let error = outcome.expect_err(&label);
                assert_eq!(
                    (error.kind(), error.detail().phase),
                    (ErrorKind::Timeout, Some(phase)),
                    "{label}"
                );
                assert!(took >= LIMIT * 0.9, "{label}");
                if took <= LIMIT * 1.1 { Ok(()) } else { Err(label) }
            })
            .await;
        }
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_07_a_dripping_stream_is_not_cut() {
    let full = std::env::var("LITER_LLM_SOAK").is_ok_and(|value| value == "1");
    let chunks = if full { FULL } else { SHORT };
    let paced = SimConfig { token_interval: Duration::from_secs(1), ..SimConfig::default() };
    let sim = Simulator::start(paced).unwrap();
    let runs = DIALECTS.map(|(dialect, _)| {
        let mut config = config(&sim, dialect);
        config.idle_timeout = Some(IDLE);
        // Over long before the stream is: from its first chunk on only silence counts.
        config.timeout = Some(3.0);
        let client = Client::new(config).unwrap();
        async move {
            let request = LlmRequest::new().with_prompt(format!("hello [tokens={chunks}]"));
            let (text, outcome) = simulated::read(&client, &request).await;
            let answer = outcome.unwrap_or_else(|error| panic!("{dialect}: {error}"));
            assert_eq!(answer.usage.unwrap().output_tokens, chunks as u64, "{dialect}: {text}");
        }
    });
    join_all(runs).await;
}

#[tokio::test]
async fn row_07_a_slow_reader_is_not_the_providers_silence() {
    let paced = SimConfig { token_interval: Duration::from_millis(100), ..SimConfig::default() };
    let sim = Simulator::start(paced).unwrap();
    assert!(sim.set_rules(vec![rule(&json!({"match": {}, "fault": {}}))]).is_ok());
    let mut config = config(&sim, "chat");
    config.idle_timeout = Some(0.5);
    config.timeout = Some(1.0);
    let client = Client::new(config).unwrap();
    let request = LlmRequest::new().with_prompt("hello [tokens=10]");
    let mut chunks = client.stream(request).await.unwrap();
    let mut read = 0;
    while let Some(chunk) = chunks.next().await {
        read += usize::from(chunk.unwrap().has_content());
        if read == 3 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            read += 100;
        }
    }
    assert!(read >= 110, "{read}");
}
