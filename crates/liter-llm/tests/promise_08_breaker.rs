//! Row 8: the breaker is scoped to deployment, key and region; exact half-open probes; a late success cannot close it; a
//! caller's mistake never counts. Through sockets, against the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use liter_llm::{
    Circuit, CircuitOptions, Client, DeploymentState, ErrorKind, FailurePhase, LlmError, LlmProvider as _,
    LlmRequest, LlmResponse, ProviderConfig, Toggle,
};
use liter_llm_sim::{Rule, SimConfig, Simulator};
use serde_json::{Value, json};

/// Calls at a half-open circuit.
const CALLS: usize = 50;

fn simulator(rules: &[Value]) -> Simulator {
    let sim = Simulator::start(SimConfig::default()).unwrap();
    set(&sim, rules);
    sim
}

fn set(sim: &Simulator, rules: &[Value]) {
    sim.set_rules(rules.iter().map(|rule| Rule::from_json(&rule.to_string()).unwrap()).collect()).unwrap();
    sim.clear_requests();
}

fn config(sim: &Simulator, model: &str, key: &str, circuit: CircuitOptions) -> ProviderConfig {
    ProviderConfig {
        max_retries: Some(0),
        circuit: Some(Toggle::On(circuit)),
        ..ProviderConfig::new("openai")
            .with_model(model)
            .with_api_key(key)
            .with_base_url(sim.base_url("openai").unwrap())
    }
}

const QUICK: CircuitOptions = CircuitOptions { failures: 5, open_time: 0.3, probes: 1 };

fn client(sim: &Simulator, circuit: CircuitOptions) -> Client {
    Client::new(config(sim, "m", "k", circuit)).unwrap()
}

async fn ask(client: &Client) -> Result<LlmResponse, LlmError> {
    client.generate(LlmRequest::new().with_prompt("Hi")).await
}

fn state(client: &Client) -> DeploymentState {
    let mut states = client.state();
    assert_eq!(states.len(), 1);
    states.remove(0)
}

async fn open(client: &Client, times: usize) {
    for _ in 0..times {
        ask(client).await.unwrap_err();
    }
    assert_eq!(state(client).circuit, Circuit::Open);
}

#[tokio::test]
async fn row_08_opens_and_says_until_when() {
    let sim = simulator(&[json!({"fault": {"status": 503}})]);
    let client = client(&sim, CircuitOptions::default());
    open(&client, 5).await;
    assert_eq!(sim.requests().len(), 5);
    let begun = Instant::now();
    let error = ask(&client).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::CircuitOpen, false));
    let detail = error.detail();
    assert!(detail.before_send && detail.attempts.is_empty());
    assert!((29.0..=30.0).contains(&detail.retry_after.unwrap()), "{error}");
    assert!(client.stream(LlmRequest::new().with_prompt("Hi")).await.is_err());
    assert_eq!(sim.requests().len(), 5, "nothing was sent");
    let state = state(&client);
    assert_eq!((state.deployment.as_str(), state.failures_in_row, state.in_flight), ("openai/m", 5, 0));
    assert!((29.0..=30.0).contains(&state.open_for.unwrap()));
}

#[tokio::test]
async fn row_08_exact_probes_under_concurrent_calls() {
    for probes in [1, 3] {
        let sim = simulator(&[json!({"fault": {"status": 500}})]);
        let client = client(&sim, CircuitOptions { probes, ..QUICK });
        open(&client, 5).await;
        tokio::time::sleep(Duration::from_millis(320)).await;
        set(&sim, &[json!({"fault": {"delay_ms": 200}})]);
        let answers = join_all((0..CALLS).map(|_| ask(&client))).await;
        assert_eq!(sim.requests().len(), probes as usize);
        let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), CALLS - probes as usize);
        for error in &refused {
            assert_eq!(error.kind(), ErrorKind::CircuitOpen);
            assert!(error.detail().retry_after.is_some_and(|wait| wait > 0.0));
        }
        assert_eq!(state(&client).circuit, Circuit::Closed);
        ask(&client).await.unwrap();
    }
}

#[tokio::test]
async fn row_08_a_failed_probe_opens_it_again() {
    let sim = simulator(&[json!({"fault": {"status": 500}})]);
    let client = client(&sim, QUICK);
    open(&client, 5).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(320)).await;
        sim.clear_requests();
        let answers = join_all((0..CALLS).map(|_| ask(&client))).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!((sim.requests().len(), state(&client).circuit), (1, Circuit::Open));
    }
}

#[tokio::test]
async fn row_08_no_trip_crosses_keys_models_or_regions() {
    let sim = simulator(&[
        json!({"match": {"model": "bad"}, "fault": {"status": 500}}),
        json!({"match": {"headers": {"authorization": "Bearer k-bad"}}, "fault": {"status": 500}}),
    ]);
    // Clients of two deployments and two keys.
    for (model, key, ill) in [("bad", "k", true), ("good", "k", false), ("good", "k-bad", true)] {
        let client = Client::new(config(&sim, model, key, QUICK)).unwrap();
        for _ in 0..10 {
            let _ = ask(&client).await;
        }
        assert_eq!(state(&client).circuit == Circuit::Open, ill, "{model} {key}");
    }
    // One client whose calls name another model or key.
    let mut own = config(&sim, "good", "k", CircuitOptions::default());
    own.region = Some("eu".to_owned());
    let client = Client::new(own).unwrap();
    let call = |model: Option<&str>, key: Option<&str>| {
        let request = LlmRequest::new().with_prompt("Hi").with(|body| {
            body.model = model.map(str::to_owned);
            body.headers.extend(key.map(|key| ("Authorization".to_owned(), format!("Bearer {key}"))));
        });
        client.generate(request)
    };
    for _ in 0..10 {
        call(None, None).await.unwrap();
        call(Some("good"), Some("k-other")).await.unwrap();
        let (model, key) = (call(Some("bad"), None).await, call(None, Some("k-bad")).await);
        assert!(model.is_err() && key.is_err());
    }
    let states = client.state();
    assert_eq!(states.len(), 4);
    assert!(states.iter().all(|state| state.region.as_deref() == Some("eu")));
    let open: Vec<_> = states.iter().filter(|state| state.circuit == Circuit::Open).collect();
    assert_eq!(open.len(), 2);
    assert_ne!(open[0].key, open[1].key);
    let shown = serde_json::to_string(&states).unwrap();
    assert!(!shown.contains("k-bad") && !shown.contains("k-other"));
    assert_eq!(sim.requests().iter().filter(|request| request.rule.is_some()).count(), 10 + 10);
}

#[tokio::test]
async fn row_08_the_callers_mistakes_never_count() {
    let client_of = |sim: &Simulator| client(sim, CircuitOptions::default());
    for status in [400, 401, 402, 403, 404, 413, 422, 501, 505] {
        let sim = simulator(&[json!({"fault": {"status": status}})]);
        let client = client_of(&sim);
        for _ in 0..8 {
            ask(&client).await.unwrap_err();
        }
        assert_eq!(sim.requests().len(), 8, "{status}");
        let state = state(&client);
        assert_eq!((state.circuit, state.failures_in_row, state.in_flight), (Circuit::Closed, 0, 0));
    }
    // Nor does the caller's own limit, or a call that is given up.
    let sim = simulator(&[json!({"fault": {"hang": true}})]);
    let client = client_of(&sim);
    for _ in 0..8 {
        let error =
            client.generate(LlmRequest::new().with_prompt("Hi").with_timeout(0.05)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(tokio::time::timeout(Duration::from_millis(20), ask(&client)).await.is_err());
    }
    let state = state(&client);
    assert_eq!((state.circuit, state.failures_in_row, state.in_flight), (Circuit::Closed, 0, 0));
}

#[tokio::test]
async fn row_08_what_counts_opens_it() {
    let faults = [
        json!({"status": 500}),
        json!({"status": 529}),
        json!({"status": 504}),
        json!({"reset": true}),
        json!({"close": true}),
        json!({"status": 200, "body": "<html>hello</html>"}),
        json!({"delay_ms": 2_000}),
    ];
    for fault in faults {
        let sim = simulator(&[json!({"fault": fault})]);
        let mut config = config(&sim, "m", "k", CircuitOptions::default());
        config.first_byte_timeout = Some(0.1);
        config.resend_after_send = Some(false);
        let client = Client::new(config).unwrap();
        for _ in 0..4 {
            ask(&client).await.unwrap_err();
        }
        assert_eq!(state(&client).circuit, Circuit::Closed, "{fault}");
        open(&client, 1).await;
        assert_eq!(sim.requests().len(), 5, "{fault}");
    }
}

/// The pauses between them: 0.5, 1, 2 and 4 s.
#[tokio::test]
async fn row_08_five_429s_in_a_row_open_it() {
    let sim = simulator(&[json!({"fault": {"status": 429, "remove_headers": ["retry-after"]}})]);
    let client = client(&sim, CircuitOptions::default());
    for sent in 1..=5 {
        let error = ask(&client).await.unwrap_err();
        assert_eq!((error.detail().status_code, sim.requests().len()), (Some(429), sent));
        let state = state(&client);
        let circuit = if sent < 5 { Circuit::Closed } else { Circuit::Open };
        assert_eq!((state.circuit, state.limited_in_row as usize), (circuit, sent));
        let pause = 0.25 * f64::from(1_u32 << sent);
        assert!((pause - 0.1..=pause).contains(&state.cooling_for.unwrap()), "{state:?}");
        if sent < 5 {
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        }
    }
    let error = ask(&client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert!((29.0..=30.0).contains(&error.detail().retry_after.unwrap()));
}

/// A deployment that hangs for longer than its callers have time: their time limit ends the calls, and still the
/// silence is the deployment's. Not when it has begun to answer, and not within the time a healthy one may take.
#[tokio::test]
async fn row_08_a_hanging_deployment_opens_it_though_the_callers_time_ends_first() {
    const TIME: f64 = 10.2;
    let opens = |fault: Value, time: f64| async move {
        let sim = simulator(&[json!({"fault": fault})]);
        let client = client(&sim, CircuitOptions::default());
        let request = || LlmRequest::new().with_prompt("Hi").with_timeout(time);
        let calls = join_all((0..5).map(|_| async {
            match client.stream(request()).await {
                Ok(_) => panic!("{fault}"),
                Err(error) => error,
            }
        }));
        let whole = join_all((0..5).map(|_| client.generate(request())));
        let (streams, whole) = tokio::join!(calls, whole);
        for error in streams.into_iter().chain(whole.into_iter().map(Result::unwrap_err)) {
            assert_eq!((error.kind(), error.detail().phase), (ErrorKind::Timeout, Some(FailurePhase::Total)));
        }
        let state = state(&client);
        assert_eq!(state.in_flight, 0);
        (state.circuit, state.failures_in_row)
    };
    let (hung, begun, short) = tokio::join!(
        opens(json!({"hang": true}), TIME),
        opens(json!({"hang_after": 0}), TIME),
        opens(json!({"hang": true}), 9.0)
    );
    assert_eq!(hung, (Circuit::Open, 5));
    assert_eq!(begun, (Circuit::Closed, 0), "it had begun to answer");
    assert_eq!(short, (Circuit::Closed, 0), "too short a time to say so");
}

#[tokio::test]
async fn row_08_late_successes_cannot_close_it() {
    let sim = simulator(&[
        json!({"match": {"body_contains": "slow"}, "fault": {"delay_ms": 500}}),
        json!({"fault": {"status": 500}}),
    ]);
    let client = Arc::new(client(&sim, QUICK));
    let late: Vec<_> = (0..8)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { client.generate(LlmRequest::new().with_prompt("slow")).await })
        })
        .collect();
    while sim.requests().len() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    open(&client, 5).await;
    tokio::time::sleep(Duration::from_millis(320)).await;
    assert_eq!(state(&client).circuit, Circuit::HalfOpen);
    for call in late {
        call.await.unwrap().unwrap();
    }
    assert_eq!(state(&client).circuit, Circuit::HalfOpen, "only a probe can close it");
    ask(&client).await.unwrap_err();
    assert_eq!(state(&client).circuit, Circuit::Open);
}

#[tokio::test]
async fn row_08_streams_count_at_their_end() {
    let sim = simulator(&[json!({"fault": {"cut_after": 5}})]);
    let client = client(&sim, QUICK);
    let asked = || LlmRequest::new().with_prompt("[tokens=50]");
    for broken in 1..=5 {
        let mut chunks = client.stream(asked()).await.unwrap();
        chunks.next().await.unwrap().unwrap();
        assert_eq!((state(&client).failures_in_row, state(&client).in_flight), (broken - 1, 1));
        let last = chunks.collect::<Vec<_>>().await.pop().unwrap();
        assert_eq!(last.unwrap_err().kind(), ErrorKind::StreamInterrupted);
        assert_eq!(state(&client).failures_in_row, broken);
    }
    assert_eq!(state(&client).circuit, Circuit::Open);
    set(&sim, &[]);
    tokio::time::sleep(Duration::from_millis(320)).await;
    // A probe that is dropped unread says nothing and gives its slot back.
    for _ in 0..3 {
        let probe = client.stream(asked()).await.unwrap();
        assert_eq!(ask(&client).await.unwrap_err().kind(), ErrorKind::CircuitOpen);
        drop(probe);
        assert_eq!(state(&client).circuit, Circuit::HalfOpen);
    }
    assert!(client.stream(asked()).await.unwrap().all(|chunk| async move { chunk.is_ok() }).await);
    assert_eq!((state(&client).circuit, state(&client).in_flight), (Circuit::Closed, 0));
}

/// A stream may take minutes: a probe that waited for its end would keep all other calls away from a deployment that
/// has already shown to be well. So the first piece of the answer closes the circuit.
#[tokio::test]
async fn row_08_a_streamed_probe_counts_at_its_first_content_and_breaks_as_any_other() {
    let sim = simulator(&[json!({"fault": {"status": 500}})]);
    let client = client(&sim, QUICK);
    open(&client, 5).await;
    set(&sim, &[json!({"match": {"body_contains": "tokens"}, "fault": {"cut_after": 5}})]);
    tokio::time::sleep(Duration::from_millis(320)).await;
    let mut probe = client.stream(LlmRequest::new().with_prompt("[tokens=50]")).await.unwrap();
    while !probe.next().await.unwrap().unwrap().has_content() {
        assert_eq!(state(&client).circuit, Circuit::HalfOpen);
    }
    let now = state(&client);
    assert_eq!((now.circuit, now.failures_in_row, now.in_flight), (Circuit::Closed, 0, 1));
    ask(&client).await.unwrap();
    assert!(probe.any(|chunk| async move { chunk.is_err() }).await);
    let now = state(&client);
    assert_eq!((now.circuit, now.failures_in_row, now.in_flight), (Circuit::Closed, 1, 0));
}
