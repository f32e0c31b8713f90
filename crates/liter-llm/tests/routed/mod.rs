//! Routers over simulated deployments, for the tests of routing.
#![allow(dead_code, reason = "each test takes what it needs")]

use liter_llm::{Client, LlmRequest, LlmResponse};
use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};

pub fn sim() -> Simulator {
    Simulator::start(SimConfig::default()).unwrap()
}

/// A deployment at the simulator whose name is its model, with these options besides.
pub fn deployment(sim: &Simulator, name: &str, rest: Value) -> Value {
    let mut all = json!({
        "provider": "openai", "model": name, "name": name, "api_key": "k", "base_url": sim.base_url("openai"),
    });
    all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    all
}

/// A router over deployments that are described already.
pub fn over(deployments: Vec<Value>, router: Value) -> Client {
    let document = json!({ "deployments": deployments, "router": router });
    Client::from_json(document.to_string().as_bytes()).unwrap()
}

/// The document of a router over these deployments.
pub fn document(sim: &Simulator, deployments: &[(&str, Value)], router: Value) -> Vec<u8> {
    let deployments: Vec<_> =
        deployments.iter().map(|(name, rest)| deployment(sim, name, rest.clone())).collect();
    json!({ "deployments": deployments, "router": router }).to_string().into_bytes()
}

pub fn client(sim: &Simulator, deployments: &[(&str, Value)], router: Value) -> Client {
    Client::from_json(&document(sim, deployments, router)).unwrap()
}

/// What comes over calls of this model.
pub fn failing(sim: &Simulator, model: &str, fault: Value) {
    sim.add_rule(serde_json::from_value(json!({ "match": { "model": model }, "fault": fault })).unwrap())
        .unwrap();
}

pub fn ask() -> LlmRequest {
    LlmRequest::new().with_prompt("[echo] hello")
}

/// Requests that reached the deployment, copies included.
pub fn reached(sim: &Simulator, model: &str) -> usize {
    sim.requests().iter().filter(|request| request.body["model"] == model).count()
}

/// The deployments that were asked, in order.
pub fn tried(answer: &LlmResponse) -> Vec<&str> {
    answer.attempts.iter().map(|attempt| attempt.deployment.as_str()).collect()
}
