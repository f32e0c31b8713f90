//! Row 9, as far as it is a client's: a `429` cools only its own deployment, at once and under load; while it cools no
//! call reaches it, and every refused one is told when to come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use liter_llm::{
    Client, ErrorKind, LlmError, LlmProvider as _, LlmRequest, LlmResponse, ProviderConfig, Toggle,
};
use liter_llm_sim::{Rule, SimConfig, Simulator};
use serde_json::json;

/// Seconds of calls, and calls a second to the deployment that fails (one in 200 goes to each of the others).
const FULL: (u32, u32) = (60, 5);
const SHORT: (u32, u32) = (4, 50);

fn simulator(retry_after: &str) -> Simulator {
    let sim = Simulator::start(SimConfig::default()).unwrap();
    let rule = json!({
        "match": {"model": "busy"}, "fault": {"status": 429, "headers": {"retry-after": retry_after}}
    });
    sim.set_rules(vec![Rule::from_json(&rule.to_string()).unwrap()]).unwrap();
    sim
}

fn config(sim: &Simulator, model: &str) -> ProviderConfig {
    ProviderConfig {
        max_retries: Some(0),
        ..ProviderConfig::new("openai")
            .with_model(model)
            .with_api_key("k")
            .with_base_url(sim.base_url("openai").unwrap())
    }
}

async fn ask(client: &Client) -> Result<LlmResponse, LlmError> {
    client.generate(LlmRequest::new().with_prompt("Hi")).await
}

#[tokio::test]
async fn row_09_no_call_reaches_a_cooling_deployment() {
    let (seconds, rate) =
        if std::env::var_os("LITER_LLM_SOAK").is_some_and(|v| v == "1") { FULL } else { SHORT };
    let sim = simulator("2");
    let [busy, idle, other] =
        ["busy", "idle", "other"].map(|model| Client::new(config(&sim, model)).unwrap());
    let mut told = 0;
    for call in 0..seconds * rate {
        let error = ask(&busy).await.unwrap_err();
        let wait = error.detail().retry_after.unwrap_or_default();
        if error.kind() == ErrorKind::RateLimited && wait > 0.0 && wait <= 2.0 {
            told += 1;
        } else {
            // Five in a row open the circuit, which says so, and when to come back.
            assert_eq!(error.kind(), ErrorKind::CircuitOpen);
            assert!(wait > 0.0 && wait <= 30.0);
            told += 1;
        }
        if call % 200 == 0 {
            ask(&idle).await.unwrap();
            ask(&other).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1) / rate).await;
    }
    assert_eq!(told, seconds * rate, "a time to come back on 100 %");
    let times: Vec<f64> = sim
        .requests()
        .iter()
        .filter(|request| request.body["model"] == "busy")
        .map(|request| request.at)
        .collect();
    assert!(times.len() >= 2, "{times:?}");
    let early = times.windows(2).filter(|pair| pair[1] - pair[0] < 2.0).count();
    assert_eq!(early, 0, "calls reached a cooling deployment: {times:?}");
    for (client, cooling) in [(&idle, false), (&other, false), (&busy, true)] {
        let state = &client.state()[0];
        assert_eq!(state.cooling_for.is_some() || state.limited_in_row > 0, cooling);
    }
}

#[tokio::test]
async fn row_09_at_once_under_load() {
    let sim = simulator("30");
    let client = Arc::new(Client::new(config(&sim, "busy")).unwrap());
    // Four in flight, and a line behind them: once the first 429 is back, none of the line is sent.
    let mut limited = config(&sim, "busy");
    limited.concurrency = Some(4);
    limited.circuit = Some(Toggle::On(liter_llm::CircuitOptions { failures: 1_000, ..Default::default() }));
    let lined = Client::new(limited).unwrap();
    let errors = join_all((0..200).map(|_| ask(&lined))).await;
    assert!(sim.requests().len() <= 4, "{} of 200 were sent", sim.requests().len());
    for error in errors {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert!((29.0..=30.0).contains(&error.detail().retry_after.unwrap()));
    }
    sim.clear_requests();
    assert_eq!(ask(&client).await.unwrap_err().detail().status_code, Some(429));
    let refused = join_all((0..200).map(|_| {
        let client = Arc::clone(&client);
        async move { tokio::spawn(async move { ask(&client).await }).await.unwrap() }
    }))
    .await;
    assert_eq!(sim.requests().len(), 1);
    for error in refused {
        let error = error.unwrap_err();
        let detail = error.detail();
        assert!(error.kind() == ErrorKind::RateLimited && detail.before_send && error.is_retryable());
        assert!((29.0..=30.0).contains(&detail.retry_after.unwrap()));
    }
    assert!((29.0..=30.0).contains(&client.state()[0].cooling_for.unwrap()));
}

#[tokio::test]
async fn row_09_a_call_waits_the_cooldown_out_when_it_may() {
    let sim = simulator("0.3");
    let mut config = config(&sim, "busy");
    config.max_retries = None;
    let client = Client::new(config).unwrap();
    let first = ask(&client);
    let heal = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sim.clear_rules();
        // Comes while the deployment cools: waits, is then sent once, and answered.
        ask(&client).await
    };
    let (first, second) = tokio::join!(first, heal);
    assert_eq!(first.unwrap().attempts.len(), 2);
    let second = second.unwrap();
    assert_eq!(second.attempts.len(), 1, "what was not sent is no attempt: {:?}", second.attempts);
    let requests = sim.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests[1..].iter().all(|request| request.at - requests[0].at >= 0.3));
}

/// A `429` that does not say until when keeps calls away for 0.5 s, the next in a row for 1 s.
#[tokio::test]
async fn row_09_a_429_without_a_time_cools_too() {
    let sim = Simulator::start(SimConfig::default()).unwrap();
    let limited = |times: u32| {
        let fault = json!({"status": 429, "remove_headers": ["retry-after"]});
        let rule = json!({"match": {"times": times}, "fault": fault});
        sim.set_rules(vec![Rule::from_json(&rule.to_string()).unwrap()]).unwrap();
        sim.clear_requests();
    };
    limited(2);
    let client = Client::new(config(&sim, "busy")).unwrap();
    for pause in [0.5, 1.0] {
        let error = ask(&client).await.unwrap_err();
        assert_eq!(
            (error.detail().status_code, error.retry_after()),
            (Some(429), None),
            "nothing is made up"
        );
        let refused = join_all((0..200).map(|_| ask(&client))).await;
        for error in refused {
            let error = error.unwrap_err();
            assert!(error.kind() == ErrorKind::RateLimited && error.detail().before_send);
            assert!((pause - 0.3..=pause).contains(&error.detail().retry_after.unwrap()), "{error}");
        }
        tokio::time::sleep(Duration::from_secs_f64(client.state()[0].cooling_for.unwrap())).await;
    }
    assert_eq!(sim.requests().len(), 2, "no call reached the cooling deployment");
    ask(&client).await.unwrap();
    // A call's own repeats wait for it, and none of them is used up on being refused.
    limited(2);
    let mut patient = config(&sim, "busy");
    patient.max_retries = Some(2);
    let client = Client::new(patient).unwrap();
    let answer = ask(&client).await.unwrap();
    let waits: Vec<f64> = answer.attempts.iter().filter_map(|attempt| attempt.wait).collect();
    assert!(waits.len() == 2 && waits[0] >= 0.5 && waits[1] >= 1.0, "{waits:?}");
    assert!(waits[0] < 0.6 && waits[1] < 1.1, "{waits:?}");
    let requests = sim.requests();
    assert_eq!(requests.len(), 3);
    let gap = |index: usize| requests[index].at - requests[index - 1].answered_at.unwrap();
    assert!(gap(1) >= 0.5 && gap(2) >= 1.0, "{} {}", gap(1), gap(2));
}
