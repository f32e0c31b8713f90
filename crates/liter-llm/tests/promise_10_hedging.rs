//! Row 10: hedging is off by default; a token bucket bounds it; only before the first byte; the loser is cancelled;
//! every attempt is recorded. 5 % of calls slow: extra calls <= 5 %, loser closed <= 100 ms, one charge a call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use liter_llm::{
    Attempt, Client, HedgeOptions, LlmProvider, LlmRequest, ProviderConfig, RawJson, Toggle, fold,
};
use liter_llm_sim::{RequestRecord, Rule, SimConfig, Simulator};

const CALLS: (usize, usize) = (4_000, 800);
const LANES: usize = 8;
const SLOW_MS: u64 = 400;

fn calls() -> usize {
    if std::env::var("LITER_LLM_SOAK").is_ok_and(|value| value == "1") { CALLS.0 } else { CALLS.1 }
}

fn client(sim: &Simulator, hedge: Option<HedgeOptions>) -> Client {
    let mut config = ProviderConfig::parse("openai/gpt-4o-mini").unwrap();
    config = config.with_api_key("sk-sim").with_base_url(sim.base_url("openai").unwrap());
    config.hedge = hedge.map(Toggle::On);
    Client::new(config).unwrap()
}

fn sim(rules: &[&str]) -> Simulator {
    let sim = Simulator::start(SimConfig { log_capacity: 100_000, ..SimConfig::default() }).unwrap();
    for rule in rules {
        sim.add_rule(Rule::from_json(rule).unwrap()).unwrap();
    }
    sim
}

fn fixed(after: f64, budget: f64) -> Option<HedgeOptions> {
    Some(HedgeOptions { after: Some(after), budget })
}

/// Earns the credit for second requests with quick calls.
async fn earn(client: &Client, calls: usize) {
    for _ in 0..calls {
        client.generate(LlmRequest::new().with_prompt("[echo] quick")).await.unwrap();
    }
}

/// How late this machine wakes a thread at worst while `stop` is not set: added to what is allowed, so that a busy
/// machine is not taken for a late close.
fn watch_the_machine(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<f64> {
    std::thread::spawn(move || {
        let (pause, mut worst) = (Duration::from_millis(5), 0.0_f64);
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            std::thread::sleep(pause);
            worst = worst.max((begun.elapsed().saturating_sub(pause)).as_secs_f64());
        }
        worst
    })
}

struct Load {
    seconds: Vec<f64>,
    attempts: Vec<Vec<Attempt>>,
}

impl Load {
    fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
    }
}

async fn load(client: Client, calls: usize) -> Load {
    let client = Arc::new(client);
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let client = Arc::clone(&client);
        lanes.spawn(async move {
            let mut seen = Vec::new();
            for number in (lane..calls).step_by(LANES) {
                let begun = Instant::now();
                let request = LlmRequest::new().with_prompt(format!("[echo] number {number}"));
                let answer = client.generate(request).await.unwrap();
                assert_eq!(answer.text(), format!("number {number}"));
                // One answer, one charge: the usage is that of one request, however many were sent.
                assert!(answer.usage.as_ref().is_some_and(|usage| usage.output_tokens < 10));
                seen.push((begun.elapsed().as_secs_f64(), answer.attempts));
            }
            seen
        });
    }
    let (seconds, attempts) = lanes.join_all().await.into_iter().flatten().unzip();
    Load { seconds, attempts }
}

fn by_prompt(records: Vec<RequestRecord>) -> HashMap<String, Vec<RequestRecord>> {
    let mut grouped: HashMap<String, Vec<RequestRecord>> = HashMap::new();
    for record in records {
        let prompt = record.body["messages"][0]["content"].to_string();
        grouped.entry(prompt).or_default().push(record);
    }
    grouped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_five_percent_slow() {
    let calls = calls();
    let slow = format!(r#"{{"match":{{"every":20}},"fault":{{"delay_ms":{SLOW_MS}}}}}"#);
    let plain = {
        let sim = sim(&[&slow]);
        let plain = load(client(&sim, None), calls).await;
        // Off by default: one request a call, one attempt.
        assert_eq!(sim.requests().len(), calls);
        assert!(plain.attempts.iter().all(|attempts| attempts.len() == 1));
        plain
    };
    let sim = sim(&[&slow]);
    let stop = Arc::new(AtomicBool::new(false));
    let machine = watch_the_machine(Arc::clone(&stop));
    let hedged = load(client(&sim, fixed(0.1, 0.05)), calls).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let stalled = machine.join().unwrap();
    let records = sim.requests();
    let extra = records.len() - calls;
    assert!(extra > 0 && extra as f64 <= calls as f64 * 0.05, "{extra} extra requests");
    assert_eq!(hedged.attempts.iter().map(|attempts| attempts.len() - 1).sum::<usize>(), extra);
    for attempts in hedged.attempts.iter().filter(|attempts| attempts.len() > 1) {
        assert_eq!(attempts.len(), 2);
        assert_eq!(
            attempts.iter().filter(|attempt| attempt.error.as_deref() == Some("cancelled")).count(),
            1
        );
        assert_eq!(attempts[1].reason.as_deref(), Some("hedge"), "{attempts:?}");
        assert!(attempts.iter().all(|attempt| attempt.deployment == "openai/gpt-4o-mini"));
    }
    let (mut losers, mut closed) = (0, 0);
    for pair in by_prompt(records).values().filter(|pair| pair.len() == 2) {
        let answered = pair.iter().filter_map(|record| record.answered_at).fold(f64::MAX, f64::min);
        // Where both came in the same moment, the loser may have been answered before it could be closed.
        let ended = |record: &RequestRecord| record.client_closed_at.or(record.answered_at).unwrap();
        let late = pair.iter().map(ended).fold(0.0, f64::max) - answered;
        assert!(late <= 0.1 + stalled, "the loser was closed {late} s after the answer; stalled {stalled} s");
        losers += 1;
        closed += usize::from(pair.iter().any(|record| record.client_closed));
    }
    assert_eq!(losers, extra);
    assert!(closed * 10 >= losers * 9, "{closed} of {losers} were closed");
    let (before, after) = (plain.percentile(0.99), hedged.percentile(0.99));
    println!("extra {extra} of {calls}; p99 {before:.3} s plain, {after:.3} s hedged");
    assert!(before >= SLOW_MS as f64 / 1000.0 && after < before * 0.9, "{before} {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_the_bucket_holds_when_everything_is_slow() {
    let sim = sim(&[r#"{"match":{},"fault":{"delay_ms":60}}"#]);
    let calls = 200;
    load(client(&sim, fixed(0.02, 0.05)), calls).await;
    assert_eq!(sim.requests().len() - calls, calls / 20);
}

#[tokio::test]
async fn row_10_streams_are_hedged_before_their_first_chunk_only() {
    let slow = r#"{"match":{"streaming":true,"nth":[1]},"fault":{"first_event_delay_ms":2000}}"#;
    let sim = sim(&[slow]);
    let hedging = client(&sim, fixed(0.05, 1.0));
    earn(&hedging, 1).await;
    let begun = Instant::now();
    let chunks: Vec<_> =
        hedging.stream(LlmRequest::new().with_prompt("[echo] streamed words")).await.unwrap().collect().await;
    let chunks: Vec<_> = chunks.into_iter().map(Result::unwrap).collect();
    assert!(begun.elapsed() < Duration::from_secs(1));
    let answer = fold(&chunks);
    assert_eq!(answer.text(), "streamed words");
    assert_eq!(answer.attempts.len(), 2);
    assert_eq!(answer.attempts[0].error.as_deref(), Some("cancelled"));
    assert_eq!(answer.attempts[1].reason.as_deref(), Some("hedge"));
    assert!(answer.attempts[1].wait.is_some_and(|wait| wait >= 0.05));

    // A stream that began, however slowly it goes on, has one request.
    sim.clear_requests();
    sim.add_rule(
        Rule::from_json(r#"{"match":{"body_contains":"slowly"},"fault":{"event_delay_ms":80}}"#).unwrap(),
    )
    .unwrap();
    let request = LlmRequest::new().with_prompt("[echo] slowly and surely");
    assert!(hedging.stream(request).await.unwrap().all(|chunk| async move { chunk.is_ok() }).await);
    assert!(sim.requests().len() <= 2);
}

#[tokio::test]
async fn row_10_an_answer_that_has_begun_is_waited_for() {
    // The headers come at once, the body in drops: the first byte is there.
    let sim = sim(&[r#"{"match":{"body_contains":"drip"},"fault":{"drip_bytes":40,"drip_interval_ms":20}}"#]);
    let hedging = client(&sim, fixed(0.05, 1.0));
    earn(&hedging, 2).await;
    sim.clear_requests();
    let answer = hedging.generate(LlmRequest::new().with_prompt("[echo] drip")).await.unwrap();
    assert!(answer.timing.unwrap().total > 0.1, "the answer was not slow: {:?}", answer.timing);
    assert_eq!((sim.requests().len(), answer.attempts.len()), (1, 1));
}

#[tokio::test]
async fn row_10_calls_that_create_are_never_sent_twice() {
    let sim = sim(&[r#"{"match":{"body_contains":"slow"},"fault":{"delay_ms":200}}"#]);
    let hedging = client(&sim, fixed(0.02, 1.0));
    earn(&hedging, 5).await;
    sim.clear_requests();
    let stored =
        LlmRequest::new().with_prompt("[echo] slow").with_extra("store", RawJson::parse("true").unwrap());
    let answer = hedging.generate(stored).await.unwrap();
    assert_eq!((sim.requests().len(), answer.attempts.len()), (1, 1));
    // The same call without it is.
    let answer = hedging.generate(LlmRequest::new().with_prompt("[echo] slow")).await.unwrap();
    assert_eq!((sim.requests().len(), answer.attempts.len()), (3, 2));
}

#[tokio::test]
async fn row_10_failures_of_either_request_are_recorded() {
    // The first answers after the second has failed.
    let rules = [
        r#"{"match":{"body_contains":"late","nth":[1]},"fault":{"delay_ms":300}}"#,
        r#"{"match":{"body_contains":"late","nth":[1]},"fault":{"status":503}}"#,
    ];
    let first = sim(&rules);
    let hedging = client(&first, fixed(0.05, 1.0));
    earn(&hedging, 2).await;
    let answer = hedging.generate(LlmRequest::new().with_prompt("[echo] late")).await.unwrap();
    let errors: Vec<_> = answer.attempts.iter().map(|attempt| attempt.error.as_deref()).collect();
    assert_eq!(errors, [None, Some("overloaded")]);
    assert_eq!(answer.attempts[1].reason.as_deref(), Some("hedge"));

    // The second answers after the first has failed.
    let rules = [
        r#"{"match":{"body_contains":"late","nth":[1]},"fault":{"delay_ms":150,"status":503}}"#,
        r#"{"match":{"body_contains":"late"},"fault":{"delay_ms":300}}"#,
    ];
    let second = sim(&rules);
    let hedging = client(&second, fixed(0.05, 1.0));
    earn(&hedging, 2).await;
    let answer = hedging.generate(LlmRequest::new().with_prompt("[echo] late")).await.unwrap();
    let errors: Vec<_> = answer.attempts.iter().map(|attempt| attempt.error.as_deref()).collect();
    assert_eq!(errors, [Some("overloaded"), None]);
    assert_eq!(answer.attempts[1].reason.as_deref(), Some("hedge"));
}

#[tokio::test]
async fn row_10_without_a_time_the_95th_percentile_decides() {
    let sim = sim(&[r#"{"match":{"body_contains":"slow"},"fault":{"delay_ms":400}}"#]);
    let hedging = client(&sim, Some(HedgeOptions { after: None, budget: 1.0 }));
    // Too few calls to know what is slow.
    earn(&hedging, 10).await;
    sim.clear_requests();
    hedging.generate(LlmRequest::new().with_prompt("[echo] slow 1")).await.unwrap();
    assert_eq!(sim.requests().len(), 1);
    earn(&hedging, 60).await;
    sim.clear_requests();
    let answer = hedging.generate(LlmRequest::new().with_prompt("[echo] slow 2")).await.unwrap();
    assert_eq!((sim.requests().len(), answer.attempts.len()), (2, 2));
}
