//! Row 3: one table of statuses, the same for both providers' bodies.

use futures_util::future::join_all;
use liter_llm::{Api, ErrorKind};

use super::*;

struct Case {
    provider: &'static str,
    status: u16,
    body: Option<Value>,
    should_retry: Option<&'static str>,
    repeated: bool,
    kind: Option<ErrorKind>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |provider, status, body, should_retry, repeated, kind| {
        cases.push(Case { provider, status, body, should_retry, repeated, kind });
    };
    // With the vendor's own body for each status.
    for provider in ["openai", "anthropic"] {
        for status in [400, 401, 402, 403, 404, 405, 413, 415, 422, 501, 505] {
            add(provider, status, None, None, false, None);
        }
        for status in [408, 409, 429, 500, 502, 503, 504, 507, 520, 524, 529] {
            add(provider, status, None, None, true, None);
        }
        // The provider's word wins, in both directions.
        for status in [400, 404, 501] {
            add(provider, status, None, Some("true"), true, None);
        }
        for status in [408, 429, 500, 503, 529] {
            add(provider, status, None, Some("false"), false, None);
        }
        add(provider, 503, None, Some("perhaps"), true, Some(ErrorKind::Overloaded));
        // Not in the vendor's shape at all.
        add(
            provider,
            502,
            Some(json!("<html>Bad Gateway</html>")),
            None,
            true,
            Some(ErrorKind::ProviderError),
        );
    }
    // Credit that is used up does not come back by waiting.
    let quota = Some(ErrorKind::QuotaExhausted);
    for code in ["insufficient_quota", "billing_not_active", "billing_hard_limit_reached"] {
        let body =
            json!({ "error": { "message": "You exceeded your current quota.", "type": code, "code": code } });
        add("openai", 429, Some(body.clone()), None, false, quota);
        add("responses", 429, Some(body), None, false, quota);
    }
    let anthropic = |kind: &str, message: &str| {
        Some(json!({ "type": "error", "error": { "type": kind, "message": message } }))
    };
    let credit = "Your credit balance is too low to access the Anthropic API.";
    add("anthropic", 400, anthropic("invalid_request_error", credit), None, false, quota);
    add("anthropic", 429, anthropic("billing_error", "Your account is not active."), None, false, quota);
    add(
        "anthropic",
        529,
        anthropic("overloaded_error", "Overloaded"),
        None,
        true,
        Some(ErrorKind::Overloaded),
    );
    add("responses", 503, None, None, true, Some(ErrorKind::Overloaded));
    add("responses", 400, None, None, false, Some(ErrorKind::InvalidRequest));
    // An error inside a success.
    let inside = json!({ "error": { "message": "upstream is overloaded", "code": 503 } });
    add("openai", 200, Some(inside), None, true, Some(ErrorKind::Overloaded));
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_03_one_status_table() {
    let _alone = ALONE.lock().await;
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let sim = simulator();
    let check = |(number, case): (usize, Case)| {
        let sim = &sim;
        async move {
            let model = format!("case-{number}");
            let mut fault_of = json!({ "status": case.status, "headers": {} });
            if let Some(body) = &case.body {
                fault_of["body"] = body.clone();
            }
            match case.should_retry {
                Some(word) => fault_of["headers"]["x-should-retry"] = json!(word),
                // The simulator's Anthropic sends one of its own, as the real one does.
                None => fault_of["remove_headers"] = json!(["x-should-retry"]),
            }
            fault(sim, json!({ "model": model }), fault_of);
            let provider = if case.provider == "responses" { "openai" } else { case.provider };
            let mut config = config(sim, provider, &model);
            if case.provider == "responses" {
                config.api = Api::Responses;
            }
            config.max_retries = Some(1);
            let error = client(config).generate(request()).await.unwrap_err();
            let place = format!("case {number}: {} {} {error}", case.provider, case.status);
            assert_eq!(error.is_retryable(), case.repeated, "{place}");
            assert_eq!(seen(sim, &model).len(), 1 + usize::from(case.repeated), "{place}");
            assert_eq!(error.detail().attempts.len(), 1 + usize::from(case.repeated), "{place}");
            if let Some(kind) = case.kind {
                assert_eq!(error.kind(), kind, "{place}");
            }
            if case.body.is_none() {
                assert_eq!(error.detail().status_code, Some(case.status), "{place}");
                assert!(!error.detail().message.is_empty() && error.detail().request_id.is_some(), "{place}");
            }
        }
    };
    join_all(cases.into_iter().enumerate().map(check)).await;
}
