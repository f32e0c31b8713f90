//! What happens when a deployment fails: who takes over, who is left alone, and how it comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod routed;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use liter_llm::routing::custom::{CustomPolicy, PolicyCall, PolicyCandidate};
use liter_llm::{Client, Config, ErrorKind, Folder, LlmError, LlmProvider, LlmRequest, RawJson, async_trait};
use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};

use self::routed::{ask, client, document, failing, reached, sim, tried};

fn config(sim: &Simulator, deployments: &[(&str, Value)], router: Value) -> Config {
    Config::from_json(&document(sim, deployments, router)).unwrap()
}

fn two(sim: &Simulator, router: Value) -> Client {
    client(sim, &[("a", json!({})), ("b", json!({}))], router)
}

fn refusal(code: &str) -> Value {
    json!({ "status": 400, "body": { "error": {
        "message": "This cannot be done.", "type": "invalid_request_error", "param": "messages", "code": code,
    } } })
}

#[tokio::test]
async fn too_long_a_prompt_goes_to_a_longer_context() {
    let sim = sim();
    let context = |tokens: u64| json!({ "context": tokens });
    let all = [("short", context(8_000)), ("same", context(8_000)), ("long", context(200_000))];
    failing(&sim, "short", refusal("context_length_exceeded"));
    let answer = client(&sim, &all, json!({})).generate(ask()).await.unwrap();
    assert_eq!(tried(&answer), ["short", "long"]);
    let error = client(&sim, &all[..2], json!({})).generate(ask()).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().attempts.len()), (ErrorKind::ContextLength, 1));
    // The deployment is as good as before.
    let long = client(&sim, &all, json!({}));
    for _ in 0..2 {
        assert_eq!(tried(&long.generate(ask()).await.unwrap()), ["short", "long"]);
    }
}

#[tokio::test]
async fn a_content_filter_goes_elsewhere_only_if_asked() {
    let sim = sim();
    failing(&sim, "a", refusal("content_filter"));
    let error = two(&sim, json!({})).generate(ask()).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().attempts.len()), (ErrorKind::ContentFilter, 1));
    let asked = |yes: bool| {
        let route = json!({ "content_filter_fallback": yes });
        ask().with(|body| body.route = Some(Box::new(serde_json::from_value(route).unwrap())))
    };
    let answer = two(&sim, json!({})).generate(asked(true)).await.unwrap();
    assert_eq!(tried(&answer), ["a", "b"]);
    let rule = json!({ "content_filter_fallback": true });
    assert_eq!(tried(&two(&sim, rule.clone()).generate(ask()).await.unwrap()), ["a", "b"]);
    let error = two(&sim, rule).generate(asked(false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContentFilter);
}

#[tokio::test]
async fn a_429_goes_elsewhere_without_a_wait() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 429, "headers": { "retry-after": "30" } }));
    let client = two(&sim, json!({}));
    let begun = Instant::now();
    assert_eq!(tried(&client.generate(ask()).await.unwrap()), ["a", "b"]);
    assert_eq!(tried(&client.generate(ask()).await.unwrap()), ["b"], "it cools down");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let figures = client.router().figures();
    assert_eq!(figures.deployments[0].figures.failures, 0, "a limit is no fault");
    assert!(figures.deployments[0].closed_for.unwrap() > 20.0);
}

#[tokio::test]
async fn a_hanging_deployment_leaves_the_time_another_one_needs() {
    let sim =
        Simulator::start(SimConfig { response_delay: Duration::from_millis(600), ..SimConfig::default() })
            .unwrap();
    let client = two(&sim, json!({}));
    for model in ["a", "b"] {
        client.generate(ask().with_model(model)).await.unwrap();
    }
    failing(&sim, "a", json!({ "hang": true }));
    let begun = Instant::now();
    let answer = client.generate(ask().with_timeout(4.0)).await.unwrap();
    assert_eq!(tried(&answer), ["a", "b"]);
    let (first, all) = (answer.attempts[0].duration, begun.elapsed().as_secs_f64());
    assert!((2.0..3.4).contains(&first) && all < 4.0, "{first} of {all}");
    let why = answer.attempts[0].reason.as_deref();
    assert_eq!(why, Some("went elsewhere after timeout"));
    // It is given up only when it had the time it usually takes.
    let error = client.generate(ask().with_model("a").with_timeout(0.3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn one_that_usually_takes_longer_than_the_call_may_is_given_up_in_time() {
    let sim = sim();
    let client = two(&sim, json!({}));
    for model in ["a", "b"] {
        let delay = if model == "a" { 3000 } else { 600 };
        failing(&sim, model, json!({ "delay_ms": delay }));
        client.generate(ask().with_model(model)).await.unwrap();
    }
    let answer = client.generate(ask().with_timeout(2.5)).await.unwrap();
    assert_eq!(tried(&answer), ["a", "b"]);
    let first = answer.attempts[0].duration;
    assert!((1.0..1.9).contains(&first), "{first}");
    // It was not given its usual time, so that says nothing against it.
    assert_eq!(client.router().figures().deployments[0].figures.failures, 0);
    assert_eq!(tried(&client.generate(ask()).await.unwrap()), ["a"]);
}

#[tokio::test]
async fn what_may_be_sent_once_is_not_given_up_for_another() {
    let sim =
        Simulator::start(SimConfig { response_delay: Duration::from_millis(200), ..SimConfig::default() })
            .unwrap();
    let client = client(&sim, &[("a", json!({ "resend_after_send": false })), ("b", json!({}))], json!({}));
    for model in ["a", "b"] {
        client.generate(ask().with_model(model)).await.unwrap();
    }
    failing(&sim, "a", json!({ "hang": true }));
    let error = client.generate(ask().with_timeout(1.5)).await.unwrap_err();
    assert_eq!((error.kind(), reached(&sim, "b")), (ErrorKind::Timeout, 1));
}

#[tokio::test]
async fn nobody_is_given_up_for_one_that_failed() {
    let sim =
        Simulator::start(SimConfig { response_delay: Duration::from_millis(200), ..SimConfig::default() })
            .unwrap();
    let client = two(&sim, json!({}));
    for model in ["a", "b"] {
        client.generate(ask().with_model(model)).await.unwrap();
    }
    failing(&sim, "b", json!({ "status": 503 }));
    client.generate(ask().with_model("b").with_max_retries(0)).await.unwrap_err();
    failing(&sim, "a", json!({ "delay_ms": 1700 }));
    let answer = client.generate(ask().with_timeout(2.2)).await.unwrap();
    assert_eq!(tried(&answer), ["a"]);
}

#[tokio::test]
async fn when_all_fail_the_most_hopeful_error_is_told() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 401 }));
    failing(&sim, "b", json!({ "status": 503, "headers": { "retry-after": "20" } }));
    failing(&sim, "c", json!({ "status": 429, "headers": { "retry-after": "50" } }));
    let all = [("a", json!({})), ("b", json!({})), ("c", json!({}))];
    let error = client(&sim, &all, json!({ "max_retries": 0 })).generate(ask()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Overloaded, Some(Duration::from_secs(20))));
    let detail = error.detail();
    let tried: Vec<_> = detail.attempts.iter().map(|attempt| attempt.deployment.as_str()).collect();
    assert_eq!(tried, ["a", "b", "c"]);
    assert_eq!(detail.route.as_ref().unwrap().candidates.len(), 3);
}

#[tokio::test]
async fn a_stream_that_breaks_later_keeps_its_text_and_stays() {
    let sim = sim();
    failing(&sim, "a", json!({ "cut_after": 6 }));
    let client = two(&sim, json!({}));
    let asked = LlmRequest::new().with_prompt("[tokens=50] tell");
    let mut folder = Folder::default();
    let mut error = None;
    let mut stream = client.stream(asked).await.unwrap();
    while let Some(item) = stream.next().await {
        match item {
            Ok(chunk) => folder.push(&chunk),
            Err(broken) => error = Some(broken),
        }
    }
    assert!([ErrorKind::StreamInterrupted, ErrorKind::Connection].contains(&error.unwrap().kind()));
    assert!(!folder.partial().text().is_empty());
    assert_eq!((reached(&sim, "a"), reached(&sim, "b")), (1, 0));
    assert!(client.router().figures().deployments[0].figures.suspect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_delays_one_call_and_ends_by_itself() {
    for fault in [json!({ "hang": true }), json!({ "status": 503, "delay_ms": 400 })] {
        let sim = sim();
        let client = two(&sim, json!({}));
        for _ in 0..5 {
            assert_eq!(tried(&client.generate(ask()).await.unwrap()), ["a"]);
        }
        failing(&sim, "a", fault);
        let (mut delayed, mut calls) = (0, 0);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(4500) {
            let sent = Instant::now();
            let answer = client.generate(ask().with_timeout(1.0)).await.unwrap();
            calls += 1;
            delayed += u32::from(answer.attempts.len() > 1 || sent.elapsed() > Duration::from_millis(390));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(delayed <= 3 && calls > 50, "{delayed} of {calls} calls were delayed");
        let seen = reached(&sim, "a") - 5;
        assert!((2..=4).contains(&seen), "one call and the trials after 1 and 2 s more: {seen}");
        let copy = sim.requests().into_iter().rfind(|request| request.body["model"] == "a").unwrap();
        let bounds = ["max_tokens", "max_completion_tokens"].map(|name| copy.body[name].as_u64());
        assert!(bounds.contains(&Some(16)), "a trial is short: {}", copy.body_text);
        sim.clear_rules();
        let begun = Instant::now();
        while client.generate(ask()).await.unwrap().model != "a" {
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_keep_state_are_not_copied_for_a_trial() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 503 }));
    let client = two(&sim, json!({}));
    let stored = || {
        ask().with(|body| {
            body.extra.insert("store".to_owned(), RawJson::from("true"));
        })
    };
    client.generate(stored()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.generate(stored()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(reached(&sim, "a"), 1);
    client.generate(ask()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(reached(&sim, "a"), 2);
}

struct Prefers(&'static str);

#[async_trait]
impl CustomPolicy for Prefers {
    fn name(&self) -> &str {
        "prefers"
    }

    async fn order(&self, call: &PolicyCall, all: &[PolicyCandidate]) -> Result<Vec<String>, LlmError> {
        assert!(call.input_tokens > 0 && all.len() == 2);
        Ok(vec![self.0.to_owned()])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_policy_is_asked_and_contained() {
    let sim = sim();
    let own = |name| {
        let config = config(&sim, &[("a", json!({})), ("b", json!({}))], json!({}));
        Client::with_policy(config, Arc::new(Prefers(name))).unwrap()
    };
    // A busy machine may take a policy's five milliseconds itself.
    let client = own("b");
    let mut heard = 0;
    for _ in 0..20 {
        let answer = client.generate(ask()).await.unwrap();
        let route = answer.route.as_ref().unwrap();
        assert_eq!(route.policy, "prefers");
        let late = route.notes.iter().any(|note| note.contains("longer than 5 ms"));
        assert_eq!(route.chosen, if late { "a" } else { "b" });
        heard += u32::from(!late);
    }
    assert!(heard > 0);
    assert_eq!(u64::from(20 - heard), client.router().figures().policy_failures.late);
    let client = own("x");
    for _ in 0..20 {
        let answer = client.generate(ask()).await.unwrap();
        let route = answer.route.unwrap();
        assert_eq!((route.chosen.as_str(), route.notes.len()), ("a", 1));
    }
    assert!(client.router().figures().policy_failures.nonsense > 0);
}

#[tokio::test]
async fn figures_and_heatmap_tell_what_happened() {
    let sim = sim();
    let client = two(&sim, json!({ "policy": "round_robin" }));
    for _ in 0..4 {
        client.generate(ask()).await.unwrap();
    }
    let chunks = client.stream(ask()).await.unwrap().count().await;
    assert!(chunks > 0);
    let figures = serde_json::to_value(client.router().figures()).unwrap();
    assert_eq!(
        (&figures["policy"], &figures["deployments"][1]["deployment"]),
        (&json!("round_robin"), &json!("b"))
    );
    let of = |place: usize, name: &str| figures["deployments"][place][name].clone();
    assert_eq!((of(0, "calls"), of(1, "calls"), of(0, "in_flight")), (json!(3), json!(2), json!(0)));
    assert!((of(0, "share").as_f64().unwrap() - 0.6).abs() < 1e-9);
    assert!(of(0, "first_chunk_p95").as_f64().is_some() && of(1, "first_chunk_p95").is_null());
    let map = client.router().heatmap(Duration::from_secs(60), 5);
    assert_eq!((map.bucket, map.rows.len(), map.began.len()), (60.0, 2, 5));
    let cell = map.rows[0].cells[4];
    assert!(cell.count == 3 && cell.failures == 0 && cell.p50 <= cell.p95 && cell.p50.is_some());
    assert!(serde_json::to_value(&map).unwrap()["rows"][0]["cells"][0]["p50"].is_null());
}

#[test]
fn weights_that_do_not_add_up_are_refused() {
    let sim = sim();
    let none = json!({ "weight": 0.0 });
    let all = [("a", none.clone()), ("b", none)];
    let error = Client::from_config(config(&sim, &all, json!({ "policy": "weighted" }))).err().unwrap();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("do not add up"), "{error}");
    assert!(Client::from_config(config(&sim, &all, json!({}))).is_ok());
}
