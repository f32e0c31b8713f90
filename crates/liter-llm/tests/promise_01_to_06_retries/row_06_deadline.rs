//! Row 6: one deadline over everything.

use futures_util::StreamExt;
use futures_util::future::join_all;
use liter_llm::{ErrorKind, FailurePhase};

use super::*;

/// Deadlines in milliseconds, from the shortest to the longest.
const FULL: [u64; 7] = [200, 500, 1000, 1500, 2000, 3500, 5000];
const SHORT: [u64; 4] = [200, 500, 1000, 1500];
const GRACE: Duration = Duration::from_millis(100);
/// What is given up sooner, in seconds, need not have left.
const AT_ONCE: f64 = 0.005;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Host {
    Silent,
    SilentAfterFailures,
    SilentAfterRetryAfter,
    SilentInTheBody,
    Failing,
    AsksForTooLong,
}

fn rules(sim: &Simulator, host: Host, model: &str) {
    let first = json!({ "model": model, "nth": 1 });
    match host {
        Host::Silent | Host::SilentInTheBody => {}
        Host::SilentAfterFailures => fault(sim, first, json!({ "status": 503 })),
        Host::SilentAfterRetryAfter => {
            fault(sim, first, json!({ "status": 429, "headers": { "retry-after-ms": "60" } }));
        }
        Host::Failing => return fault(sim, json!({ "model": model }), json!({ "status": 500 })),
        Host::AsksForTooLong => {
            let answer = json!({ "status": 429, "headers": { "retry-after": "20" } });
            return fault(sim, json!({ "model": model }), answer);
        }
    }
    let rest =
        if host == Host::SilentInTheBody { json!({ "hang_after": 0 }) } else { json!({ "hang": true }) };
    fault(sim, json!({ "model": model }), rest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_06_nothing_outlasts_the_deadline() {
    let _alone = ALONE.lock().await;
    let sim = simulator();
    let deadlines = if full_or_short(1, 0) == 1 { &FULL[..] } else { &SHORT[..] };
    let hosts = [
        Host::Silent,
        Host::SilentAfterFailures,
        Host::SilentAfterRetryAfter,
        Host::SilentInTheBody,
        Host::Failing,
        Host::AsksForTooLong,
    ];
    let mut calls = Vec::new();
    for &milliseconds in deadlines {
        for host in hosts {
            for stream in [false, true] {
                calls.push((milliseconds, host, stream));
            }
        }
    }
    let prepared = |(milliseconds, host, stream): (u64, Host, bool), again: usize| {
        let model = format!("{host:?}-{milliseconds}-{stream}-{again}");
        rules(&sim, host, &model);
        let deadline = Duration::from_millis(milliseconds);
        let mut config = config(&sim, "openai", &model);
        // A call's own limit beats the deployment's.
        let ask = if stream { request() } else { request().with_timeout(deadline.as_secs_f64()) };
        config.timeout = Some(if stream { deadline.as_secs_f64() } else { 600.0 });
        (deadline, host, stream, model, client(config), ask)
    };
    let one =
        |(deadline, host, stream, model, client, ask): (Duration, Host, bool, String, Client, LlmRequest)| {
            let sim = &sim;
            async move {
                let begun = Instant::now();
                let error = if stream {
                    match client.stream(ask).await {
                        Err(error) => error,
                        Ok(mut chunks) => {
                            while let Some(Ok(_)) = chunks.next().await {}
                            panic!("{model}: a stream was opened");
                        }
                    }
                } else {
                    client.generate(ask).await.unwrap_err()
                };
                let took = begun.elapsed();
                let detail = error.detail();
                let place = format!("{model} took {took:?}: {error:?}");
                let last = detail.attempts.last().unwrap();
                // One that is begun at the last moment may be given up before it has left.
                let left = last.error.as_deref() != Some("timeout") || last.duration >= AT_ONCE;
                let (sent, seen) = (detail.attempts.len(), seen(sim, &model).len());
                assert!(
                    sent == seen || (!left && sent == seen + 1),
                    "every send is recorded: {seen}: {place}"
                );
                assert_eq!(last.deployment, format!("openai/{model}"), "{place}");
                match host {
                    Host::AsksForTooLong => {
                        assert_eq!(
                            (error.kind(), detail.retry_after),
                            (ErrorKind::RateLimited, Some(20.0)),
                            "{place}"
                        );
                        assert_eq!(last.reason.as_deref(), Some("no time left for a repeat"), "{place}");
                    }
                    // A wait that does not fit is not begun: the last failure is the outcome.
                    _ if error.kind() != ErrorKind::Timeout => {
                        let words = ["no time left for a repeat", "retries used up"];
                        assert!(words.contains(&last.reason.as_deref().unwrap()), "{place}");
                        assert!(host != Host::Silent && host != Host::SilentInTheBody, "{place}");
                    }
                    _ => {
                        assert!(took >= deadline, "{place}");
                        assert_eq!(detail.phase, Some(FailurePhase::Total), "{place}");
                        assert!(!error.is_retryable(), "{place}");
                        assert_eq!(last.error.as_deref(), Some("timeout"), "{place}");
                        if detail.attempts.len() > 1 {
                            assert!(!detail.causes.is_empty() && last.wait.is_some(), "{place}");
                        }
                    }
                }
                let bound = if host == Host::AsksForTooLong { GRACE } else { deadline + GRACE };
                if took <= bound { Ok(()) } else { Err(place) }
            }
        };
    // A group's clients are made before its calls begin.
    let timed = |call| {
        let mut first = Some(prepared(call, 0));
        let prepared = &prepared;
        stalls::on_time(async move |again| one(first.take().unwrap_or_else(|| prepared(call, again))).await)
    };
    // What fails at once is timed alone, the rest in groups: a busy machine would notice a crowd's answers late.
    let (at_once, rest): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|(_, host, _)| *host == Host::AsksForTooLong);
    for call in at_once {
        timed(call).await;
    }
    let mut rest = rest.into_iter().map(timed).peekable();
    while rest.peek().is_some() {
        join_all(rest.by_ref().take(2 * (hosts.len() - 1))).await;
    }
}
