//! Row 1: a host that answers 503 to everything is not stormed.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use super::*;

/// Calls, over one client.
const FULL: usize = 5_000;
const SHORT: usize = 1_000;
const CONCURRENCY: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_01_an_outage_is_not_made_worse() {
    let _alone = ALONE.lock().await;
    let calls = full_or_short(FULL, SHORT);
    let sim = simulator();
    fault(&sim, json!({}), json!({ "status": 503 }));
    let client = client(config(&sim, "openai", "storm"));
    let sends: Vec<usize> = stream::iter(0..calls)
        .map(|number| {
            let client = &client;
            async move {
                let request = LlmRequest::new().with_prompt(format!("call {number}"));
                let error = client.generate(request).await.unwrap_err();
                assert_eq!(error.detail().status_code, Some(503));
                assert!(error.is_retryable(), "the fact stays as the provider stated it");
                let attempts = &error.detail().attempts;
                let reason = attempts.last().and_then(|attempt| attempt.reason.as_deref());
                assert!(matches!(reason, Some("retry quota used up" | "retries used up")), "{reason:?}");
                attempts.len()
            }
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    let mut upstream: HashMap<String, usize> = HashMap::new();
    for request in sim.requests() {
        *upstream.entry(request.body["messages"].to_string()).or_default() += 1;
    }
    let total: usize = upstream.values().sum();
    assert_eq!(upstream.len(), calls);
    assert_eq!(total, sends.iter().sum::<usize>(), "each send is in the attempts");
    assert!(total * 100 <= calls * 125, "{total} sends for {calls} calls");
    assert!(total > calls, "the first failures are repeated");
    assert!(*upstream.values().max().unwrap() <= 4);
}
