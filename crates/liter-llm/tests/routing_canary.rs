//! Canaries and mirrors over simulated providers: shares, sticky users, rollback without the callers' noticing, copies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod routed;

use std::time::Duration;

use futures_util::StreamExt;
use liter_llm::core::route::RouteOptions;
use liter_llm::routing::canary::CanaryState;
use liter_llm::{Client, ErrorKind, LlmProvider, LlmRequest, fold};
use liter_llm_sim::Simulator;
use serde_json::{Value, json};

use self::routed::{ask, client, deployment, over, sim};

fn two(sim: &Simulator, router: Value) -> Client {
    client(sim, &[("old", json!({})), ("new", json!({}))], router)
}

fn failing(sim: &Simulator, model: &str, percent: u32, fault: Value) {
    let rule = json!({ "match": { "model": model, "percent": percent }, "fault": fault });
    sim.add_rule(serde_json::from_value(rule).unwrap()).unwrap();
}

fn sticky(word: &str) -> LlmRequest {
    let route = RouteOptions { sticky: Some(word.to_owned()), ..RouteOptions::default() };
    ask().with(|body| body.route = Some(Box::new(route)))
}

/// Whether so many of the calls are within the sampling error (4.5 deviations) of the share.
fn fits(got: u64, calls: u64, share: f64) -> bool {
    let (got, calls) = (f64::from(u32::try_from(got).unwrap()), f64::from(u32::try_from(calls).unwrap()));
    (got - calls * share).abs() <= 4.5 * (calls * share * (1.0 - share)).sqrt()
}

#[tokio::test]
async fn shares_are_within_sampling_error_and_users_keep_their_arm() {
    let sim = sim();
    // Round robin would give the canary half of the calls.
    let document = json!({ "policy": "round_robin", "canary": { "model": "openai/new", "percent": 20 } });
    let client = two(&sim, document.clone());
    let calls = 1000;
    let mut new = 0;
    for _ in 0..calls {
        let answer = client.generate(ask()).await.unwrap();
        let route = answer.route.unwrap();
        assert_eq!(answer.model, route.chosen);
        assert_eq!(route.notes.iter().any(|note| note == "canary"), route.chosen == "new");
        new += u64::from(route.chosen == "new");
    }
    assert!(fits(new, calls, 0.2), "{new} of {calls}");
    let report = client.router().canary().unwrap();
    assert_eq!((report.arms.canary.calls, report.arms.incumbent.calls), (new, calls - new));
    assert_eq!((report.state, report.arms.canary.errors), (CanaryState::Running, 0));
    assert!(report.arms.canary.latency.unwrap() > 0.0);

    // 50 users with 20 calls each, by two processes' clients.
    let again = two(&sim, document);
    let mut arms: Vec<Option<String>> = vec![None; 50];
    for call in 0..1000 {
        let client = if call % 2 == 0 { &client } else { &again };
        let user = call % 50;
        let chosen = client.generate(sticky(&format!("user-{user}"))).await.unwrap().route.unwrap().chosen;
        let arm = arms[user].get_or_insert_with(|| chosen.clone());
        assert_eq!(*arm, chosen, "user-{user}");
    }
    let users = 4000;
    let mut new = 0;
    for user in 0..users {
        new += u64::from(client.router().select(&sticky(&format!("u{user}"))).await.unwrap() == 1);
    }
    assert!(fits(new, users, 0.2), "{new} of {users}");
}

#[tokio::test]
async fn a_failing_canary_is_rolled_back_and_no_caller_sees_it() {
    let sim = sim();
    failing(&sim, "new", 30, json!({ "status": 503 }));
    let client = two(&sim, json!({ "canary": { "model": "new", "percent": 50 } }));
    let mut last = 0;
    for call in 0..2000 {
        let answer = client.generate(ask()).await.unwrap();
        assert_eq!(answer.text(), "hello");
        last = call;
        if client.router().canary().unwrap().state == CanaryState::RolledBack {
            break;
        }
    }
    let report = client.router().canary().unwrap();
    assert_eq!(report.state, CanaryState::RolledBack, "{report:?} after {last}");
    let reason = report.reason.clone().unwrap();
    assert!(reason.starts_with("error_rate: "), "{reason}");
    assert_eq!(report.arms.incumbent.errors, 0);
    let failed = report.arms.canary.errors;
    assert!((8..=40).contains(&failed), "{failed}");

    // It gets nothing more, not even as the last fallback, and the route says why.
    let before = sim.requests().len();
    for _ in 0..100 {
        let route = client.generate(ask()).await.unwrap().route.unwrap();
        assert_eq!(route.chosen, "old");
        assert_eq!(route.notes, [format!("canary rolled back: {reason}")]);
    }
    assert_eq!(sim.requests().len(), before + 100);
    let error = client.generate(ask().with_model("new")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCandidate);
    assert!(error.to_string().contains("a canary that was rolled back: error_rate"), "{error}");
    let shown = serde_json::to_value(&report).unwrap();
    assert_eq!((&shown["state"], &shown["percent"]), (&json!("rolled_back"), &json!(50.0)));
    assert_eq!(shown["evidence"][0]["measure"], "error_rate");
}

#[tokio::test]
async fn streams_count_too_and_a_broken_one_is_a_failure() {
    let sim = sim();
    failing(&sim, "new", 100, json!({ "status": 500 }));
    let router = json!({ "canary": { "model": "new", "percent": 50, "guard": { "min_calls": 5 } } });
    let no_circuit = json!({ "circuit": false });
    let client = over(vec![deployment(&sim, "old", json!({})), deployment(&sim, "new", no_circuit)], router);
    for _ in 0..80 {
        let chunks: Vec<_> = client.stream(ask()).await.unwrap().map(Result::unwrap).collect().await;
        assert_eq!(fold(&chunks).text(), "hello");
    }
    let report = client.router().canary().unwrap();
    assert_eq!(report.state, CanaryState::RolledBack, "{report:?}");
    assert_eq!(report.arms.canary.errors, report.arms.canary.calls);
}

#[tokio::test]
async fn a_canary_gets_only_its_share_but_is_the_last_fallback() {
    let sim = sim();
    let client = two(&sim, json!({ "policy": "round_robin", "canary": { "model": "new", "percent": 0 } }));
    for _ in 0..20 {
        assert_eq!(client.generate(ask()).await.unwrap().model, "old");
    }
    failing(&sim, "old", 100, json!({ "status": 503 }));
    let answer = client.generate(ask()).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.attempts.len()), ("new", 2));
    assert_eq!(client.router().canary().unwrap().arms.canary.calls, 0, "a fallback is not compared");
}

#[tokio::test]
async fn callers_mistakes_do_not_count() {
    let sim = sim();
    failing(&sim, "new", 100, json!({ "status": 400 }));
    let client = two(&sim, json!({ "canary": { "model": "new", "percent": 100 } }));
    for _ in 0..20 {
        let error = client.generate(ask()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(client.router().canary().unwrap().arms.canary.calls, 0);
}

#[tokio::test]
async fn a_mirror_gets_copies_and_the_answers_stay_the_same() {
    let sim = sim();
    // The copies fail or come late: no caller notices.
    failing(&sim, "shadow", 50, json!({ "status": 500 }));
    let deployments = || vec![deployment(&sim, "main", json!({})), deployment(&sim, "shadow", json!({}))];
    let plain = over(deployments(), json!({}));
    let mirrored = over(deployments(), json!({ "mirror": { "to": "shadow", "percent": 100 } }));
    let calls = 60;
    for call in 0..calls {
        let request = LlmRequest::new().with_prompt(format!("[echo] call {call}"));
        let (one, other) = (plain.generate(request.clone()).await, mirrored.generate(request.clone()).await);
        let other = other.unwrap();
        assert_eq!(one.unwrap().message, other.message);
        assert_eq!((other.model.as_str(), other.attempts.len()), ("main", 1));
        if call % 10 == 0 {
            let stream = mirrored.stream(request).await.unwrap();
            let chunks: Vec<_> = stream.map(Result::unwrap).collect().await;
            assert_eq!(fold(&chunks).text(), format!("call {call}"));
        }
    }
    for _ in 0..500 {
        if mirrored.router().mirror().unwrap().in_flight == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let report = mirrored.router().mirror().unwrap();
    assert_eq!((report.sent + report.dropped, report.in_flight), (calls + calls / 10, 0));
    assert!(report.errors > 0 && report.errors <= report.sent, "{report:?}");
    assert!(plain.router().mirror().is_none() && plain.router().canary().is_none());
    // They count in that deployment's statistics.
    let figures = mirrored.router().members()[1].stats.figures();
    assert!(figures.calls > 0 && figures.failures > 0);

    // What keeps state, and what may not go there, is not copied.
    let sent = report.sent + report.dropped;
    let keeping = ask().with(|body| {
        body.extra.insert("store".into(), liter_llm::core::json::RawJson::from("true"));
    });
    mirrored.generate(keeping).await.unwrap();
    let elsewhere = RouteOptions { forbid_tags: vec!["eu".into()], ..RouteOptions::default() };
    let with_tags = over(
        vec![deployment(&sim, "main", json!({})), deployment(&sim, "shadow", json!({ "tags": ["eu"] }))],
        json!({ "mirror": { "to": "shadow", "percent": 100 } }),
    );
    with_tags.generate(ask().with(|body| body.route = Some(Box::new(elsewhere)))).await.unwrap();
    assert_eq!(with_tags.router().mirror().unwrap().sent, 0);
    let now = mirrored.router().mirror().unwrap();
    assert_eq!(now.sent + now.dropped, sent);
    // The name of the answering model rules no copy out.
    with_tags.generate(ask().with_model("main")).await.unwrap();
    assert_eq!(with_tags.router().mirror().unwrap().sent, 1);
}

#[tokio::test]
async fn copies_in_flight_are_bounded() {
    let sim = sim();
    failing(&sim, "shadow", 100, json!({ "delay_ms": 30000 }));
    let client = over(
        vec![deployment(&sim, "main", json!({})), deployment(&sim, "shadow", json!({}))],
        json!({ "mirror": { "to": "shadow", "percent": 100 } }),
    );
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        client.generate(ask()).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "nobody waits for a copy");
    let report = client.router().mirror().unwrap();
    assert_eq!((report.sent, report.dropped, report.in_flight), (32, 68, 32));
}

#[test]
fn bad_experiments_are_refused() {
    let sim = sim();
    let all = vec![deployment(&sim, "a", json!({})), deployment(&sim, "b", json!({}))];
    let refused = |deployments: &[Value], router: Value| {
        let document = json!({ "deployments": deployments, "router": router });
        let error = Client::from_json(document.to_string().as_bytes()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    for (router, words) in [
        (
            json!({ "canary": { "model": "c", "percent": 5 } }),
            "`canary.model`: no deployment is `c`; there are `a`, `b`",
        ),
        (json!({ "canary": { "model": "b", "percent": 101 } }), "`canary.percent`: 101 is not from 0 to 100"),
        (json!({ "canary": { "model": "b" } }), "missing field `percent`"),
        (json!({ "canary": { "model": "b", "percent": 5, "gard": true } }), "did you mean `guard`?"),
        (
            json!({ "canary": { "model": "b", "percent": 5, "guard": { "latency": 0.2 } } }),
            "canary.guard.latency",
        ),
        (json!({ "mirror": { "to": "c", "percent": 5 } }), "`mirror.to`: no deployment is `c`"),
        (json!({ "mirror": { "to": "b", "percent": -1 } }), "`mirror.percent`: -1 is not from 0 to 100"),
        (
            json!({ "mirror": { "to": "a", "percent": 5 }, "canary": { "model": "b", "percent": 5 } }),
            "no deployment is left",
        ),
    ] {
        let text = refused(&all, router);
        assert!(text.contains(words), "{text}");
    }
    let alone = refused(&all[..1], json!({ "canary": { "model": "a", "percent": 5 } }));
    assert!(alone.contains("it is the only deployment"), "{alone}");
    let alike = vec![
        deployment(&sim, "m", json!({ "name": "one" })),
        deployment(&sim, "m", json!({ "name": "two" })),
    ];
    let text = refused(&alike, json!({ "canary": { "model": "openai/m", "percent": 5 } }));
    assert!(text.contains("each of `one`, `two`"), "{text}");
}
