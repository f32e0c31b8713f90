//! Azure's paths and both its ways to authorize, with Microsoft's token endpoints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use std::thread::sleep;
use std::time::Duration;

use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};
use wire::{request, sim};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SCOPE: &str = "scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default";

fn ask() -> String {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}).to_string()
}

#[test]
fn every_path_answers_with_a_key() {
    let sim = sim(&[]);
    for path in [
        "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        "/azure/openai/deployments/d/chat/completions?api-version=2024-10-21",
        "/azure/openai/v1/chat/completions",
        "/azure/openai/v1/responses",
        "/azure/openai/responses?api-version=2025-03-01-preview",
        "/azure/models/chat/completions?api-version=2024-05-01-preview",
        "/models/chat/completions?api-version=2024-05-01-preview",
        "/openai/v1/chat/completions",
    ] {
        let answer = request(&sim, "POST", path, &[("api-key", "k")], &ask());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.header("apim-request-id").is_some());
        assert_eq!(request(&sim, "POST", path, &[("api-key", "wrong")], &ask()).status, 401, "{path}");
    }
    assert!(sim.requests().iter().all(|r| r.provider == "azure"));
}

#[test]
fn what_azure_refuses() {
    let sim = sim(&[]);
    let key = [("api-key", "k")];
    let no_version = request(&sim, "POST", "/azure/openai/deployments/d/chat/completions", &key, &ask());
    assert_eq!((no_version.status, &no_version.json()["error"]["code"]), (404, &json!("404")));
    let path = "/azure/openai/deployments/no-such/chat/completions?api-version=2024-10-21";
    assert_eq!(request(&sim, "POST", path, &key, &ask()).json()["error"]["code"], "DeploymentNotFound");
    let path = "/azure/openai/deployments/d/chat/completions?api-version=2024-10-21";
    assert_eq!(request(&sim, "POST", path, &[], &ask()).json()["error"]["code"], "401");
    let filtered = request(&sim, "POST", path, &key, &ask().replace("Hi", "[filter]")).json();
    assert_eq!(filtered["error"]["innererror"]["code"], "ResponsibleAIPolicyViolation");
}

#[test]
fn tokens_are_issued_checked_and_expire() {
    let sim = Simulator::start(SimConfig { token_lifetime_seconds: 0.4, ..SimConfig::default() }).unwrap();
    let fetch = |body: &str| request(&sim, "POST", "/entra/tenant-1/oauth2/v2.0/token", &[FORM], body);
    let secret = fetch(&format!("grant_type=client_credentials&client_id=c&client_secret=s&{SCOPE}"));
    assert_eq!((secret.status, &secret.json()["token_type"]), (200, &json!("Bearer")));
    let assertion = fetch(&format!(
        "grant_type=client_credentials&client_id=c&client_assertion=jwt&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&{SCOPE}"
    ));
    assert_eq!(assertion.status, 200);
    let identity = request(
        &sim,
        "GET",
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcognitiveservices.azure.com",
        &[("metadata", "true")],
        "",
    );
    assert_eq!(identity.json()["resource"], "https://cognitiveservices.azure.com");
    assert_eq!(sim.tokens_issued(), 3);
    let call = |answer: &Value| {
        let token = format!("Bearer {}", answer["access_token"].as_str().unwrap());
        request(&sim, "POST", "/azure/openai/v1/chat/completions", &[("authorization", &token)], &ask())
            .status
    };
    assert_eq!((call(&secret.json()), call(&identity.json())), (200, 200));
    sleep(Duration::from_millis(450));
    assert_eq!(call(&secret.json()), 401);
    assert_eq!(call(&json!({"access_token": "eyJ.made.up"})), 401);
}

#[test]
fn what_the_token_endpoints_refuse() {
    let sim = sim(&[]);
    let fetch = |tenant: &str, body: String| {
        let answer = request(&sim, "POST", &format!("/{tenant}/oauth2/v2.0/token"), &[FORM], &body);
        (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
    };
    let error = |status, kind: &str| (status, kind.to_owned());
    assert_eq!(
        fetch("t", format!("grant_type=client_credentials&client_id=c&client_secret=wrong&{SCOPE}")),
        error(401, "invalid_client")
    );
    assert_eq!(
        fetch("t", format!("grant_type=password&client_id=c&{SCOPE}")),
        error(400, "unsupported_grant_type")
    );
    assert_eq!(fetch("t", "client_id=c".to_owned()), error(400, "invalid_request"));
    assert_eq!(
        fetch("t", "grant_type=client_credentials&client_id=c&client_secret=s&scope=openid".to_owned()),
        error(400, "invalid_scope")
    );
    assert_eq!(
        fetch("no-such", format!("grant_type=client_credentials&client_id=c&client_secret=s&{SCOPE}")),
        error(400, "invalid_request")
    );
    assert_eq!(
        request(&sim, "GET", "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r", &[], "")
            .status,
        400
    );
    assert_eq!(sim.tokens_issued(), 0);
}
