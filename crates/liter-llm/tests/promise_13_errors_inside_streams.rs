//! Rows 13 and 14: an error inside a stream is a typed error and the end; before the first content it is the call's,
//! and one that may pass is repeated without any text twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod simulated;

use futures_util::StreamExt;
use liter_llm::{Client, ErrorKind, LlmProvider};
use serde_json::json;
use simulated::{DIALECTS, client, config, content, fault, read, requests, rule, simulator};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_13_an_error_event_at_each_event() {
    let sim = simulator();
    for (dialect, _) in DIALECTS {
        for (kind, word) in [
            (ErrorKind::Overloaded, "overloaded_error"),
            (ErrorKind::InvalidRequest, "invalid_request_error"),
        ] {
            let error = json!({"type": word, "message": "told so"});
            let client = client(&sim, dialect);
            let request = &requests()[0];
            sim.clear_rules();
            let whole = read(&client, request).await.1.unwrap().text();
            let mut events = 0;
            loop {
                fault(&sim, dialect, &json!({"error_after": events, "error": error}));
                let (text, outcome) = read(&client, request).await;
                let Err(error) = outcome else { break };
                let label = format!("{dialect} {word} after {events}");
                assert_eq!(error.kind(), kind, "{label}: {error:?}");
                assert_eq!(error.is_retryable(), kind == ErrorKind::Overloaded, "{label}");
                assert!(error.detail().message.contains("told so") && whole.starts_with(&text), "{label}");
                events += 1;
            }
            assert!(events >= 8, "{dialect}: only {events} events failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_14_before_the_first_content_the_call_fails_or_is_repeated() {
    let sim = simulator();
    for (dialect, _) in DIALECTS {
        let request = &requests()[0];
        sim.clear_rules();
        let whole = content(&read(&client(&sim, dialect), request).await.1.unwrap());
        for after in [0, 1] {
            let error = json!({"type": "overloaded_error", "message": "busy"});
            let once = json!({"error_after": after, "error": error});
            let mut when = json!({"nth": 1});
            if dialect == "websocket" {
                when["method"] = json!("WEBSOCKET");
            }
            let rules = || vec![rule(&json!({"match": when, "fault": once}))];
            sim.set_rules(rules()).unwrap();
            let error = client(&sim, dialect).stream(request.clone()).await.err();
            assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Overloaded), "{dialect} {after}");
            sim.set_rules(rules()).unwrap();
            let mut patient = config(&sim, dialect);
            patient.max_retries = Some(2);
            let mut chunks = Client::new(patient).unwrap().stream(request.clone()).await.unwrap();
            let (mut ids, mut folder) = (std::collections::BTreeSet::new(), liter_llm::Folder::new());
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.unwrap();
                ids.extend(chunk.facts.as_ref().and_then(|facts| facts.id.clone()));
                folder.push(&chunk);
            }
            let answer = folder.finish();
            assert_eq!(content(&answer), whole, "{dialect} {after}");
            assert_eq!((ids.len(), answer.attempts.len()), (1, 2), "{dialect} {after}");
        }
    }
}
