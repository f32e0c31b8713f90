//! Row 5: what is sent again, what never is, and that each send is counted.

use futures_util::StreamExt;
use futures_util::future::join_all;
use liter_llm::{Api, ErrorKind, FailurePhase, RawJson, TransportKind};

use super::*;

/// Calls of each kind.
const CALLS: usize = 100;
/// Seconds until the first byte: where it never comes, time enough for a crowd to connect and send on a busy machine.
const IMPATIENT: f64 = 1.0;
/// And where something comes.
const PATIENT: f64 = 30.0;

/// How a call went: what the simulator saw, and the error.
struct Fate {
    upstream: usize,
    error: LlmError,
}

/// Makes `CALLS` calls, each with a client of its own and one retry, under `fault_of`.
async fn fates(
    name: &str,
    fault_of: impl Fn(usize) -> Value,
    change: impl Fn(&mut ProviderConfig) + Copy,
    ask: LlmRequest,
    stream: bool,
) -> Vec<Fate> {
    let sim = simulator();
    let one = |number: usize| {
        let model = format!("{name}-{number}");
        fault(&sim, json!({ "model": model }), fault_of(number));
        let mut config = config(&sim, "openai", &model);
        config.max_retries = Some(1);
        change(&mut config);
        // Made before the first call begins: that takes a while, and counts for nobody.
        let (sim, ask, client) = (&sim, ask.clone(), client(config));
        async move {
            let error = if stream {
                match client.stream(ask).await {
                    Err(error) => error,
                    Ok(mut chunks) => loop {
                        match chunks.next().await {
                            Some(Ok(_)) => {}
                            Some(Err(error)) => break error,
                            None => panic!("{model}: the stream ended as if nothing had happened"),
                        }
                    },
                }
            } else {
                client.generate(ask).await.unwrap_err()
            };
            Fate { upstream: seen(sim, &model).len(), error }
        }
    };
    join_all((0..CALLS).map(one)).await
}

/// Faults that come after the whole request was read and before a byte of an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_unanswered_calls_obey_the_switch() {
    let _alone = ALONE.lock().await;
    for (name, fault_of, limit) in [
        ("fin", json!({ "close": true }), PATIENT),
        ("rst", json!({ "reset": true }), PATIENT),
        ("stall", json!({ "hang": true }), IMPATIENT),
    ] {
        for stream in [false, true] {
            for resend in [true, false] {
                let change = move |config: &mut ProviderConfig| {
                    config.resend_after_send = Some(resend);
                    config.first_byte_timeout = Some(limit);
                };
                for fate in fates(name, |_| fault_of.clone(), change, request(), stream).await {
                    let place = format!("{name}, stream {stream}, resend {resend}: {:?}", fate.error);
                    let detail = fate.error.detail();
                    let kind = if name == "stall" { ErrorKind::Timeout } else { ErrorKind::Connection };
                    assert_eq!(fate.error.kind(), kind, "{place}");
                    assert_eq!(fate.upstream, if resend { 2 } else { 1 }, "{place}");
                    assert_eq!(detail.attempts.len(), fate.upstream, "each send is counted: {place}");
                    assert_eq!(fate.error.is_retryable(), resend, "{place}");
                    if resend {
                        let reason = format!("retried after {kind}");
                        assert_eq!(detail.attempts[0].reason.as_deref(), Some(reason.as_str()), "{place}");
                        assert!(detail.attempts[1].wait.is_some(), "{place}");
                    }
                }
            }
        }
    }
}

/// Once a byte of the answer has come nothing is sent again, whatever the switch says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_nothing_is_replayed_once_an_answer_has_begun() {
    let _alone = ALONE.lock().await;
    type FaultOf = fn(usize) -> Value;
    let faults: [(&str, bool, FaultOf); 6] = [
        ("rst-after-chunk", true, |number| json!({ "reset_after": 1 + number % 12 })),
        ("cut-after-chunk", true, |number| json!({ "cut_after": 1 + number % 12 })),
        ("stall-after-chunk", true, |number| json!({ "hang_after": 1 + number % 12 })),
        ("head-only", false, |_| json!({ "cut_after": 0 })),
        ("half-a-body", false, |_| json!({ "cut_after": 1 })),
        ("stall-in-body", false, |number| json!({ "hang_after": number % 2 })),
    ];
    for (name, stream, fault_of) in faults {
        let change = |config: &mut ProviderConfig| config.idle_timeout = Some(0.5);
        let fates = fates(name, fault_of, change, request(), stream).await;
        let once = fates.iter().filter(|fate| fate.upstream == 1).count();
        assert_eq!(once, CALLS, "{name}");
        for fate in fates {
            assert!(!fate.error.is_retryable(), "{name}: {:?}", fate.error);
        }
    }
}

/// A connection that was never made has carried nothing: it is tried again either way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_refused_connections_are_tried_again() {
    let _alone = ALONE.lock().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for resend in [true, false] {
        let one = |_| async move {
            let mut config = ProviderConfig::new("openai")
                .with_model("m")
                .with_api_key("sk-test")
                .with_base_url(format!("http://127.0.0.1:{port}/v1"));
            config.resend_after_send = Some(resend);
            config.max_retries = Some(1);
            client(config).generate(request()).await.unwrap_err()
        };
        for error in join_all((0..CALLS).map(one)).await {
            assert_eq!(error.detail().phase, Some(FailurePhase::Refused));
            assert_eq!(error.detail().attempts.len(), 2, "{error:?}");
            assert!(error.is_retryable() && error.was_never_sent());
        }
    }
}

/// A kept connection that the host closes under the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_a_stale_connection_is_replaced_at_once() {
    let _alone = ALONE.lock().await;
    for fault_of in [json!({ "close": true }), json!({ "reset": true })] {
        for resend in [true, false] {
            let sim = simulator();
            for number in 0..CALLS {
                let model = format!("stale-{number}");
                fault(&sim, json!({ "model": model, "nth": 2 }), fault_of.clone());
                let mut config = config(&sim, "openai", &model);
                config.resend_after_send = Some(resend);
                // Not one of the retries, and no wait.
                config.max_retries = Some(0);
                let client = client(config);
                client.generate(request()).await.unwrap();
                let (outcome, took) = timed(&client, request()).await;
                let upstream = seen(&sim, &model).len() - 1;
                if resend {
                    let answer = outcome.unwrap();
                    assert_eq!((upstream, answer.attempts.len()), (2, 2));
                    let first = &answer.attempts[0];
                    assert!(first.reason.as_deref().unwrap().contains("idle connection"), "{first:?}");
                    assert_eq!(first.error.as_deref(), Some("connection"));
                    assert_eq!(answer.attempts[1].status, Some(200));
                    assert!(answer.attempts[1].wait.is_none() && took < Duration::from_millis(400));
                } else {
                    let error = outcome.unwrap_err();
                    assert_eq!((upstream, error.detail().attempts.len()), (1, 1));
                    assert!(!error.is_retryable());
                }
            }
        }
    }
}

/// The same for a WebSocket that rested between two answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_a_stale_websocket_is_replaced_at_once() {
    let _alone = ALONE.lock().await;
    for resend in [true, false] {
        let sim = simulator();
        for number in 0..CALLS {
            let model = format!("socket-{number}");
            let message = json!({ "method": "WEBSOCKET", "model": model, "nth": 2 });
            fault(&sim, message, json!({ "reset": true }));
            let mut config = config(&sim, "openai", &model);
            config.api = Api::Responses;
            config.transport = TransportKind::Websocket;
            config.resend_after_send = Some(resend);
            config.max_retries = Some(0);
            let client = client(config);
            client.generate(request()).await.unwrap();
            let outcome = client.generate(request()).await;
            let upstream = seen(&sim, &model).len() - 1;
            if resend {
                let answer = outcome.unwrap();
                assert_eq!((upstream, answer.attempts.len()), (2, 2));
                assert!(answer.attempts[0].reason.as_deref().unwrap().contains("idle connection"));
            } else {
                let error = outcome.unwrap_err();
                assert_eq!((upstream, error.detail().attempts.len()), (1, 1), "{error:?}");
                assert!(!error.is_retryable(), "{error:?}");
            }
        }
    }
}

/// What makes something at the provider is sent once, whatever comes back or does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_05_what_creates_is_sent_once() {
    let _alone = ALONE.lock().await;
    let change = |limit| {
        move |config: &mut ProviderConfig| {
            config.api = Api::Responses;
            config.first_byte_timeout = Some(limit);
        }
    };
    let extras = [("background", json!(true)), ("conversation", json!("conv_1"))];
    for (field, value) in extras {
        let ask = request().with(|body| {
            body.extra.insert(field.to_owned(), RawJson::from(&value));
        });
        for (name, fault_of, limit) in [
            ("fin", json!({ "close": true }), PATIENT),
            ("stall", json!({ "hang": true }), IMPATIENT),
            ("busy", json!({ "status": 503 }), PATIENT),
            ("limited", json!({ "status": 429, "headers": { "retry-after": "0.01" } }), PATIENT),
        ] {
            for fate in fates(name, |_| fault_of.clone(), change(limit), ask.clone(), false).await {
                assert_eq!(fate.upstream, 1, "{field} {name}: {:?}", fate.error);
                assert_eq!(fate.error.detail().attempts.len(), 1);
                assert!(!fate.error.is_retryable(), "{field} {name}: {:?}", fate.error);
            }
        }
    }
    // The same without them is repeated.
    for fate in fates("plain", |_| json!({ "status": 503 }), change(PATIENT), request(), false).await {
        assert_eq!(fate.upstream, 2);
    }
}
