//! Rows 1 to 6 of the promises: retries, their waits and limits, and what is never sent twice, through real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod row_01_storms;
mod row_02_jitter;
mod row_03_table;
mod row_04_retry_after;
mod row_05_once;
mod row_06_deadline;
#[path = "../stalls/mod.rs"]
mod stalls;

use std::time::{Duration, Instant};

use liter_llm::{Client, LlmError, LlmProvider, LlmRequest, LlmResponse, ProviderConfig, Toggle};
use liter_llm_sim::{RequestRecord, Rule, SimConfig, Simulator};
use serde_json::{Value, json};

/// These tests measure time: they run one after the other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The full number in a soak, else the short one.
fn full_or_short(full: usize, short: usize) -> usize {
    if std::env::var("LITER_LLM_SOAK").is_ok_and(|value| value == "1") { full } else { short }
}

fn simulator() -> Simulator {
    Simulator::start(SimConfig { log_capacity: 100_000, ..SimConfig::default() }).unwrap()
}

fn fault(sim: &Simulator, matching: Value, fault: Value) {
    let rule = json!({ "match": matching, "fault": fault });
    sim.add_rule(Rule::from_json(&rule.to_string()).unwrap()).unwrap();
}

fn config(sim: &Simulator, provider: &str, model: &str) -> ProviderConfig {
    let mut config = ProviderConfig::new(provider)
        .with_model(model)
        .with_api_key("sk-test")
        .with_base_url(sim.base_url(provider).unwrap());
    config.circuit = Some(Toggle::Off);
    config
}

fn client(config: ProviderConfig) -> Client {
    Client::new(config).unwrap()
}

fn request() -> LlmRequest {
    LlmRequest::new().with_prompt("[tokens=20]").with_max_tokens(50)
}

/// What the simulator saw of a model, in order of arrival.
fn seen(sim: &Simulator, model: &str) -> Vec<RequestRecord> {
    let mut seen: Vec<_> =
        sim.requests().into_iter().filter(|request| request.body["model"] == json!(model)).collect();
    seen.sort_by_key(|request| request.sequence);
    seen
}

async fn timed(client: &Client, request: LlmRequest) -> (Result<LlmResponse, LlmError>, Duration) {
    let begun = Instant::now();
    let outcome = client.generate(request).await;
    (outcome, begun.elapsed())
}
