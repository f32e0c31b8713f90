//! Row 12: a cut stream is an error, never a success. FIN, a clean last chunk, a body ended by the connection's end
//! and RST at every event boundary of every wire format.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod simulated;

use liter_llm::ErrorKind;
use serde_json::json;
use simulated::{DIALECTS, content, fault, read, requests, simulator};

/// How many broken streams there are at least, the tenth or so aside that end after all had come.
const TOTAL: usize = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_no_cut_stream_looks_successful() {
    let sim = simulator();
    let mut broken = 0;
    for (dialect, _) in DIALECTS {
        for request in requests() {
            let client = simulated::client(&sim, dialect);
            sim.clear_rules();
            let whole = content(&read(&client, &request).await.1.unwrap());
            for how in ["cut_after", "end_after", "close_after", "reset_after"] {
                let mut successes = 0;
                for after in 0.. {
                    // A client of its own: a kept WebSocket that the host has dropped is another story.
                    let client = simulated::client(&sim, dialect);
                    fault(&sim, dialect, &json!({how: after}));
                    let label = format!("{dialect} {how} {after}");
                    match read(&client, &request).await {
                        (text, Err(error)) => {
                            assert_eq!(successes, 0, "{label}: an error after a success with less");
                            let kinds = [ErrorKind::StreamInterrupted, ErrorKind::Connection];
                            assert!(kinds.contains(&error.kind()), "{label}: {error:?}");
                            assert!(whole.0.starts_with(&text), "{label}: {text}");
                            broken += 1;
                        }
                        (_, Ok(answer)) => {
                            assert_eq!(content(&answer), whole, "{label} looks successful");
                            successes += 1;
                            // A chat is whole with its finish reason, when it then ends as HTTP wants it; usage and
                            // the terminator may still have come.
                            if successes == 3 {
                                break;
                            }
                        }
                    }
                    assert!(after < 100, "{label}: no end");
                }
            }
        }
    }
    assert!(broken >= TOTAL, "{broken}");
}
