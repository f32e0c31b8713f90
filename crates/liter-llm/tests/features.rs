//! What a program gets that asks for something it left out when it was built: an error that says so, before anything is
//! sent. `scripts/rust_features.py` runs these without features, `cargo test` with all of them.
#![allow(clippy::unwrap_used, reason = "tests")]

use liter_llm::{Client, ErrorKind, LlmError, LlmProvider};
use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};

fn simulator() -> Simulator {
    Simulator::start(SimConfig::default()).unwrap()
}

/// A client of the simulator with these options besides.
fn client(sim: &Simulator, options: Value) -> Result<Client, LlmError> {
    let mut deployment = json!({
        "provider": "openai", "model": "gpt-4o", "api_key": "k", "base_url": sim.base_url("openai"), "max_retries": 0,
    });
    deployment.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    Client::from_json(json!({ "deployment": deployment }).to_string().as_bytes())
}

/// Either it works, or it is refused by an error of configuration about `param` that names the feature.
fn holds<T>(outcome: Result<T, LlmError>, has_feature: bool, param: &str, feature: &str) {
    match outcome {
        Ok(_) => assert!(has_feature, "{param} was accepted without {feature}"),
        Err(error) => {
            assert!(!has_feature, "{error}");
            assert_eq!((error.kind(), error.detail().param.as_deref()), (ErrorKind::Config, Some(param)));
            assert!(
                error.was_never_sent() && error.to_string().contains(&format!("feature `{feature}`")),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn every_call_works_whatever_is_left_out() {
    let sim = simulator();
    let answer = client(&sim, json!({})).unwrap().generate("[echo] hello".into()).await.unwrap();
    assert!(answer.text().contains("hello"));
    let accepts =
        sim.requests()[0].headers.iter().find(|(name, _)| name == "accept-encoding").unwrap().1.clone();
    assert_eq!(accepts, if cfg!(feature = "gzip") { "gzip" } else { "identity" });
}

/// The simulator compresses whether that was asked for or not.
#[tokio::test]
async fn a_compressed_answer_is_read_or_refused() {
    let sim = simulator();
    sim.add_rule(serde_json::from_value(json!({"fault": {"gzip": true}})).unwrap()).unwrap();
    let outcome = client(&sim, json!({})).unwrap().generate("[echo] hello".into()).await;
    if cfg!(feature = "gzip") {
        assert!(outcome.unwrap().text().contains("hello"));
    } else {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
        assert!(error.detail().causes[0].contains("feature `gzip`"), "{:?}", error.detail().causes);
    }
}

/// Runs in a process of its own, whose environment names a SOCKS proxy where nobody listens.
#[tokio::test]
async fn with_a_socks_proxy_in_the_environment() {
    if std::env::var_os("ALL_PROXY").is_none_or(|proxy| proxy != "socks5h://127.0.0.1:9") {
        let this = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "with_a_socks_proxy_in_the_environment"])
            .env_clear()
            .env("ALL_PROXY", "socks5h://127.0.0.1:9")
            .output()
            .unwrap();
        assert!(this.status.success(), "{}", String::from_utf8_lossy(&this.stdout));
        return;
    }
    let sim = simulator();
    let error = client(&sim, json!({})).unwrap().generate("hello".into()).await.unwrap_err();
    if cfg!(feature = "socks") {
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    } else {
        holds(Err::<(), _>(error), false, "proxy", "socks");
    }
    assert!(sim.requests().is_empty(), "the request went past the proxy");
}

#[test]
fn a_socks_proxy_needs_its_feature() {
    let sim = simulator();
    let outcome = client(&sim, json!({ "proxy": "socks5h://127.0.0.1:9" }));
    holds(outcome, cfg!(feature = "socks"), "proxy", "socks");
    assert!(client(&sim, json!({ "proxy": "http://127.0.0.1:9" })).is_ok());
}

#[test]
fn a_websocket_needs_its_feature() {
    let sim = simulator();
    let outcome = client(&sim, json!({ "api": "responses", "transport": "websocket" }));
    holds(outcome, cfg!(feature = "websocket"), "transport", "websocket");
}

#[test]
fn a_budget_in_a_file_needs_its_feature() {
    let sim = simulator();
    let path = std::env::temp_dir().join(format!("liter-llm-features-{}.sqlite", std::process::id()));
    let router = |path: Value| {
        let deployment = json!({
            "provider": "openai", "model": "gpt-4o", "api_key": "k", "base_url": sim.base_url("openai"),
            "price": {"input": 1.0, "output": 1.0},
        });
        let mut budget = json!({ "usd": 1.0, "per": "day" });
        if !path.is_null() {
            budget["path"] = path;
        }
        let document = json!({ "deployments": [deployment], "router": { "budget": budget } });
        Client::from_json(document.to_string().as_bytes())
    };
    holds(router(json!(path)), cfg!(feature = "sqlite"), "budget.path", "sqlite");
    assert!(router(Value::Null).is_ok(), "budgets in memory need no feature");
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}

#[test]
fn the_catalogue_is_there_or_empty() {
    let catalog = liter_llm::Catalog::shipped();
    assert_eq!(catalog.get("openai", "gpt-4o").is_some(), cfg!(feature = "catalogue"));
    assert!(catalog.problem().is_none());
}
