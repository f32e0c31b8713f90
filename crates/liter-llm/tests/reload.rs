//! A client under another configuration: what it keeps of the one before, and what it must not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use liter_llm::{Circuit, Client, Config, ErrorKind, LlmProvider, LlmRequest};
use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};

fn sim() -> Simulator {
    Simulator::start(SimConfig::default()).unwrap()
}

fn document(sim: &Simulator, changes: Value) -> Value {
    let mut one = json!({
        "provider": "openai", "model": "m", "name": "one", "api_key": "k1", "base_url": sim.base_url("openai"),
        "max_retries": 0,
    });
    one.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({ "deployments": [one] })
}

fn config(document: &Value) -> Config {
    Config::from_json(document.to_string().as_bytes()).unwrap()
}

fn ask() -> LlmRequest {
    LlmRequest::new().with_prompt("[echo] hello")
}

fn calls(client: &Client) -> u64 {
    client.router().members()[0].stats.figures().calls
}

#[tokio::test]
async fn statistics_are_kept_while_the_deployment_is_the_same() {
    let sim = sim();
    let first = Client::from_config(config(&document(&sim, json!({})))).unwrap();
    first.generate(ask()).await.unwrap();
    let other_key = document(&sim, json!({ "api_key": "k2", "timeout": 5.0, "tags": ["x"] }));
    let second = first.reloaded(config(&other_key)).unwrap();
    assert_eq!(calls(&second), 1);
    second.generate(ask()).await.unwrap();
    // A call that was in flight on the old one counts as well.
    first.generate(ask()).await.unwrap();
    assert_eq!((calls(&first), calls(&second)), (3, 3));
    let key = |header: &&(String, String)| header.0.eq_ignore_ascii_case("authorization");
    let seen = sim.requests();
    let keys: Vec<_> =
        seen.iter().filter_map(|one| one.headers.iter().find(key)).map(|(_, key)| key).collect();
    assert_eq!(keys, ["Bearer k1", "Bearer k2", "Bearer k1"]);
    for changes in
        [json!({ "model": "n" }), json!({ "name": "two" }), json!({ "base_url": "http://127.0.0.1:9/v1" })]
    {
        let other = first.reloaded(config(&document(&sim, changes))).unwrap();
        assert_eq!(calls(&other), 0);
    }
}

#[tokio::test]
async fn an_open_circuit_stays_open_unless_the_key_is_another() {
    let sim = sim();
    let circuit = json!({ "circuit": { "failures": 2, "open_time": 60.0 } });
    let first = Client::from_config(config(&document(&sim, circuit.clone()))).unwrap();
    sim.set_rules(vec![serde_json::from_value(json!({ "fault": { "status": 500 } })).unwrap()]).unwrap();
    for _ in 0..2 {
        first.generate(ask()).await.unwrap_err();
    }
    assert_eq!(first.state()[0].circuit, Circuit::Open);
    for changes in [circuit, json!({ "circuit": { "failures": 3 } })] {
        let kept = first.reloaded(config(&document(&sim, changes))).unwrap();
        assert_eq!((kept.state().len(), kept.state()[0].circuit), (1, Circuit::Open));
        assert_eq!(kept.generate(ask()).await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    }
    let other = first.reloaded(config(&document(&sim, json!({ "api_key": "k2" })))).unwrap();
    assert_eq!((other.state().len(), other.state()[0].circuit), (1, Circuit::Closed));
    assert_eq!(sim.requests().len(), 2);
}

#[tokio::test]
async fn limits_and_answers_are_kept_while_they_are_the_same() {
    let sim = sim();
    let limited = json!({ "rpm": 1, "cache": true });
    let mut whole = document(&sim, limited.clone());
    whole["cache"] = json!(true);
    let first = Client::from_config(config(&whole)).unwrap();
    first.generate(ask()).await.unwrap();
    let again = first.reloaded(config(&whole)).unwrap();
    assert!(again.generate(ask()).await.unwrap().cached, "the answer is kept");
    // The minute's one request is used: another one would have to wait.
    let hurried = LlmRequest::new().with_prompt("[echo] other").with_timeout(0.2);
    again.generate(hurried.clone()).await.unwrap_err();
    whole["deployments"][0]["rpm"] = json!(2);
    first.reloaded(config(&whole)).unwrap().generate(hurried).await.unwrap();
    whole["cache"] = json!({ "ttl": 9.0 });
    whole["deployments"][0]["rpm"] = json!(3);
    assert!(!first.reloaded(config(&whole)).unwrap().generate(ask()).await.unwrap().cached);
}

#[tokio::test]
async fn an_answer_from_where_calls_may_no_longer_go_is_not_handed_out() {
    let sim = sim();
    let place = |tag: &str| json!({ "region": "us", "tags": [tag] });
    let mut whole = document(&sim, place("fast"));
    whole["cache"] = json!(true);
    let first = Client::from_config(config(&whole)).unwrap();
    first.generate(ask()).await.unwrap();
    assert!(first.reloaded(config(&whole)).unwrap().generate(ask()).await.unwrap().cached);
    let mut bound = whole.clone();
    bound["router"]["require_tags"] = json!(["fast"]);
    assert!(!first.reloaded(config(&bound)).unwrap().generate(ask()).await.unwrap().cached);
    let mut moved = document(&sim, json!({ "region": "eu", "tags": ["fast"] }));
    moved["cache"] = json!(true);
    assert!(!first.reloaded(config(&moved)).unwrap().generate(ask()).await.unwrap().cached);
}

#[tokio::test]
async fn what_cannot_work_changes_nothing() {
    let sim = sim();
    let first = Client::from_config(config(&document(&sim, json!({})))).unwrap();
    let mut bad = document(&sim, json!({}));
    bad["deployments"].as_array_mut().unwrap().push(json!({ "provider": "opnai", "model": "m" }));
    let error = first.reloaded(config(&bad)).err().unwrap();
    assert_eq!(error.detail().param.as_deref(), Some("deployments[1].provider"));
    first.generate(ask()).await.unwrap();
    assert_eq!((calls(&first), first.state().len()), (1, 1));
}

#[tokio::test]
async fn what_was_spent_is_kept() {
    let sim = sim();
    let budgeted = |limit: f64| {
        let price = json!({ "price": { "input": 1000.0, "output": 1000.0 } });
        let mut whole = document(&sim, price);
        whole["router"] = json!({ "budget": { "usd": limit, "per": "month" } });
        config(&whole)
    };
    let first = Client::from_config(budgeted(1000.0)).unwrap();
    first.generate(ask()).await.unwrap();
    let spent = serde_json::to_value(first.router().spend().unwrap()).unwrap();
    let second = first.reloaded(budgeted(1000.0)).unwrap();
    assert_eq!(serde_json::to_value(second.router().spend().unwrap()).unwrap(), spent);
    // A smaller limit counts what was spent under the larger one.
    let poor = first.reloaded(budgeted(0.000_001)).unwrap();
    assert_eq!(poor.generate(ask()).await.unwrap_err().kind(), ErrorKind::BudgetExceeded);
}
