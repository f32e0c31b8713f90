//! A router over simulated providers: who answers, who is ruled out, and what happens when one fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod routed;

use futures_util::StreamExt;
use liter_llm::{Client, Config, ErrorKind, LlmProvider, ProviderConfig, fold};
use serde_json::{Value, json};

use self::routed::{ask, deployment, failing, over, sim};

fn refused(document: Value) -> String {
    let error = Client::from_json(document.to_string().as_bytes()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[tokio::test]
async fn another_deployment_answers_when_one_fails() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 503 }));
    let client = over(vec![deployment(&sim, "a", json!({})), deployment(&sim, "b", json!({}))], json!({}));
    let answer = client.generate(ask()).await.unwrap();
    let tried: Vec<_> = answer.attempts.iter().map(|attempt| attempt.deployment.as_str()).collect();
    assert_eq!(tried, ["a", "b"]);
    assert_eq!(answer.attempts[0].reason.as_deref(), Some("went elsewhere after overloaded"));
    assert!(answer.attempts[1].wait.is_none(), "going elsewhere takes no wait");
    let route = answer.route.unwrap();
    assert_eq!((route.policy.as_str(), route.chosen.as_str()), ("priority", "b"));
    // The next call does not even try the one that failed.
    let answer = client.generate(ask()).await.unwrap();
    assert_eq!(answer.attempts.len(), 1);
    // A stream fails over before its first chunk, and says so at its end.
    let client = over(vec![deployment(&sim, "a", json!({})), deployment(&sim, "b", json!({}))], json!({}));
    let chunks: Vec<_> = client.stream(ask()).await.unwrap().map(Result::unwrap).collect().await;
    let answer = fold(&chunks);
    assert_eq!((answer.text().as_str(), answer.attempts.len()), ("hello", 2));
    assert_eq!(answer.route.unwrap().chosen, "b");
}

#[tokio::test]
async fn the_callers_mistake_goes_nowhere_else() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 400 }));
    let client = over(vec![deployment(&sim, "a", json!({})), deployment(&sim, "b", json!({}))], json!({}));
    let error = client.generate(ask()).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().attempts.len()), (ErrorKind::InvalidRequest, 1));
    assert_eq!(error.detail().route.as_ref().unwrap().chosen, "a");
}

#[tokio::test]
async fn what_cannot_take_a_call_is_ruled_out_and_named() {
    let sim = sim();
    let deployments = || {
        vec![
            deployment(&sim, "us", json!({ "region": "us", "tags": ["fast"] })),
            deployment(&sim, "eu", json!({ "region": "eu", "supports": { "reasoning": false } })),
        ]
    };
    let client = over(deployments(), json!({}));
    let with_route =
        |route: Value| ask().with(|body| body.route = Some(Box::new(serde_json::from_value(route).unwrap())));
    let answer = client.generate(with_route(json!({ "regions": ["eu"] }))).await.unwrap();
    assert_eq!(answer.route.as_ref().unwrap().chosen, "eu");
    assert_eq!(answer.model, "eu");
    let out = answer.route.unwrap().candidates[1].ruled_out.clone().unwrap();
    assert_eq!(out, "`us` is in region `us`");
    let answer = client.generate(ask().with_model("openai/eu")).await.unwrap();
    assert_eq!(answer.model, "eu");
    let asked = with_route(json!({ "regions": ["eu"] })).with_reasoning_effort("high");
    let error = client.generate(asked).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCandidate);
    assert_eq!(
        error.detail().message,
        "no deployment can take this call: `us` is in region `us`; `eu` has no reasoning"
    );
    // Residency holds for fallbacks too.
    failing(&sim, "eu", json!({ "status": 503 }));
    let asked = with_route(json!({ "regions": ["eu"] })).with_max_retries(0);
    let error = client.generate(asked).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().attempts.len()), (ErrorKind::Overloaded, 1));
}

#[tokio::test]
async fn select_gives_the_deployment_by_itself() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 503 }));
    let client = over(vec![deployment(&sim, "a", json!({})), deployment(&sim, "b", json!({}))], json!({}));
    let selected = client.select(&ask().with_model("b")).await.unwrap();
    assert_eq!(selected.generate(ask()).await.unwrap().model, "b");
    let selected = client.select(&ask()).await.unwrap();
    let error = selected.generate(ask().with_max_retries(0)).await.unwrap_err();
    assert_eq!(error.detail().attempts.len(), 1);
    let explained = client.explain(&ask(), false).await;
    assert_eq!((explained.candidates.len(), explained.unlisted), (2, 0));
}

#[tokio::test]
async fn a_deployment_picked_by_hand_is_under_the_same_rules() {
    let sim = sim();
    let all = || {
        vec![
            deployment(&sim, "us", json!({ "region": "us" })),
            deployment(&sim, "eu", json!({ "region": "eu", "tags": ["zero-retention"] })),
        ]
    };
    let asked =
        |route: Value| ask().with(|body| body.route = Some(Box::new(serde_json::from_value(route).unwrap())));
    let free = over(all(), json!({}));
    let selected = free.select(&ask()).await.unwrap();
    assert_eq!(selected.generate(ask()).await.unwrap().model, "us");
    for route in [json!({ "regions": ["eu"] }), json!({ "require_tags": ["zero-retention"] })] {
        let error = selected.generate(asked(route.clone())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoCandidate);
        let error = selected.stream(asked(route)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NoCandidate);
    }
    let bound = over(all(), json!({ "regions": ["eu"] })).only("us").unwrap();
    assert_eq!(bound.generate(ask()).await.unwrap_err().kind(), ErrorKind::NoCandidate);
    let operation = liter_llm::Operation::new("embeddings", liter_llm::RawJson::from("{}"));
    assert_eq!(bound.operate(operation).await.unwrap_err().kind(), ErrorKind::NoCandidate);
    assert_eq!(sim.requests().len(), 1, "nothing was sent");
}

#[tokio::test]
async fn a_client_over_a_router_tells_the_routers_route() {
    let sim = sim();
    let inner = over(vec![deployment(&sim, "a", json!({})), deployment(&sim, "b", json!({}))], json!({}));
    let answer = Client::over(std::sync::Arc::new(inner)).generate(ask()).await.unwrap();
    assert_eq!(answer.route.unwrap().chosen, "a");
}

#[test]
fn bad_configuration_is_refused() {
    let sim = sim();
    let two = vec![deployment(&sim, "a", json!({})), deployment(&sim, "a", json!({}))];
    let one = vec![deployment(&sim, "a", json!({ "region": "eu" }))];
    for (document, words) in [
        (json!({ "deployments": [] }), "at least one deployment"),
        (json!({ "deployments": two }), "two are named `a`"),
        (json!({ "deployments": one, "router": { "policy": "prioritie" } }), "did you mean `priority`"),
        (json!({ "deployments": one, "router": { "regions": ["us"] } }), "no deployment is in `us`"),
        (json!({ "deployments": one, "deployment": one[0] }), "not both"),
        (json!({ "deployments": [deployment(&sim, "a", json!({ "weight": -1.0 }))] }), "-1 of `a`"),
        (json!({ "deployments": [deployment(&sim, "a", json!({ "modle": "x" }))] }), "did you mean `model`"),
        (json!({ "deployments": [deployment(&sim, "a", json!({ "supports": {"tool": true} }))] }), "`tools`"),
    ] {
        let text = refused(document);
        assert!(text.contains(words), "{text}");
    }
    let many = Config { deployments: vec![ProviderConfig::parse("openai/m").unwrap()], ..Config::default() };
    assert!(many.validate().is_ok());
}
