//! Row 26: no secret in `Debug`, `Display`, JSON, causes, descriptions and panics. Every fault of the simulator is
//! met again in Python.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod simulated;

use std::error::Error;

use liter_llm::{Client, LlmError, LlmProvider, LlmRequest, ProviderConfig, RawJson};
use serde_json::json;
use simulated::{DIALECTS, config, fault, simulator};

const SECRETS: [&str; 5] = [
    "sk-CANARY-0123456789",
    "hd-CANARY-0123456789",
    "qu-CANARY-0123456789",
    "ex-CANARY-0123456789",
    "ca-CANARY-0123456789",
];
const PROXY: &str = "px-CANARY-0123456789";

fn with_secrets(mut config: ProviderConfig) -> ProviderConfig {
    let base = config.base_url.take().unwrap();
    config.headers.insert("x-secret".into(), SECRETS[1].into());
    config.extra.insert("vendor_key".into(), RawJson::from(SECRETS[3]));
    config.with_api_key(SECRETS[0]).with_base_url(format!("{base}?token={}", SECRETS[2]))
}

fn check(label: &str, text: &str) {
    for secret in SECRETS.iter().chain([&PROXY]) {
        assert!(!text.contains(secret), "{label}: {secret} in {text}");
    }
}

fn check_error(label: &str, error: &LlmError) {
    let json = serde_json::to_string(error).unwrap();
    check(label, &format!("{error} {error:?} {error:#?} {json}"));
    let mut cause = error.source();
    while let Some(error) = cause {
        check(label, &format!("{error} {error:?}"));
        cause = error.source();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_26_what_a_provider_repeats_is_hidden() {
    let sim = simulator();
    let said = format!("Incorrect API key provided: {}.", SECRETS.join(" "));
    let error = json!({"type": "authentication_error", "code": SECRETS[0], "message": said, "param": said});
    for (dialect, _) in DIALECTS {
        let client = Client::new(with_secrets(config(&sim, dialect))).unwrap();
        check(dialect, &String::from_utf8(client.describe()).unwrap());
        for given in [
            json!({"status": 401, "body": {"error": error}}),
            json!({"status": 500, "body": said}),
            json!({"status": 400, "headers": {"x-request-id": SECRETS[0]}, "body": {"error": error}}),
            json!({"error_after": 0, "error": error}),
            json!({"error_after": 7, "error": error}),
            json!({"malformed_after": 6, "malformed_text": said}),
            json!({"status": 200, "body": said}),
        ] {
            fault(&sim, dialect, &given);
            let request = LlmRequest::new().with_prompt("hello [tokens=6]").with(|body| {
                body.headers.push(("x-call-token".into(), SECRETS[4].into()));
            });
            let label = format!("{dialect} {given}");
            let mut failed = 0;
            if let Err(error) = client.generate(request.clone()).await {
                check_error(&label, &error);
                failed += 1;
            }
            if let Err(error) = simulated::read(&client, &request).await.1 {
                check_error(&label, &error);
                failed += 1;
            }
            // A WebSocket has no status and body of its own.
            assert!(failed > 0 || dialect == "websocket", "{label}");
        }
    }
}

#[tokio::test]
async fn row_26_configurations_show_no_secret() {
    let base = ProviderConfig::new("openai").with_model("m").with_base_url("http://127.0.0.1:1/v1");
    let mut config = with_secrets(base);
    config.proxy = Some(format!("http://user:{PROXY}@127.0.0.1:1"));
    config.max_retries = Some(0);
    check("config", &format!("{config:?} {config:#?}"));
    let client = Client::new(config).unwrap();
    let outcome = client.generate(LlmRequest::new().with_prompt("x")).await;
    check_error("no proxy", outcome.as_ref().unwrap_err());
    let outcome = std::panic::AssertUnwindSafe(outcome);
    let panic = std::panic::catch_unwind(move || drop({ outcome }.0.unwrap())).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("LlmError"), "{message}");
    check("panic", message);
}
