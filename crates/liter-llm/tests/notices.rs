//! Notices of a router: a budget that is used up, one that degrades, a canary that is rolled back, a circuit that closes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod routed;

use std::time::Duration;

use liter_llm::{Client, ErrorKind, LlmProvider, Notice, NoticeKind};
use serde_json::json;

use self::routed::{ask, deployment, failing, over, sim};

fn taken(client: &Client, kind: NoticeKind) -> Vec<Notice> {
    let mut taken = client.telemetry().notices().take();
    taken.retain(|notice| notice.kind == kind);
    taken
}

#[tokio::test]
async fn a_budget_that_is_used_up() {
    let sim = sim();
    let price = json!({ "price": { "input": 1000, "output": 1000 } });
    let cheap = json!({ "price": { "input": 500, "output": 500 } });
    let deployments = vec![deployment(&sim, "dear", price), deployment(&sim, "cheap", cheap)];
    let budget = json!([
        { "usd": 0.000_001, "per": "day" },
        { "usd": 100.0, "per": "hour", "degrade_to": "cheap", "degrade_at": 0.0 },
    ]);
    let client = over(deployments, json!({ "budget": budget }));
    let mut refused = 0;
    for _ in 0..4 {
        if let Err(error) = client.generate(ask().with_max_tokens(9)).await {
            assert_eq!(error.kind(), ErrorKind::BudgetExceeded);
            refused += 1;
        }
    }
    assert!(refused > 1);
    let notices = client.telemetry().notices().take();
    let of = |kind: NoticeKind| notices.iter().filter(|notice| notice.kind == kind).collect::<Vec<_>>();
    let [reached] = of(NoticeKind::BudgetReached)[..] else { panic!("{notices:?}") };
    assert!(reached.detail.contains("a day (router)"), "{reached:?}");
    let [degraded] = of(NoticeKind::BudgetDegraded)[..] else { panic!("{notices:?}") };
    assert_eq!((degraded.deployment.as_str(), degraded.level), ("cheap", "warning"));
}

#[tokio::test]
async fn a_canary_that_is_rolled_back() {
    let sim = sim();
    failing(&sim, "new", json!({ "status": 500 }));
    let deployments =
        vec![deployment(&sim, "old", json!({})), deployment(&sim, "new", json!({ "circuit": false }))];
    let client = over(deployments, json!({ "canary": { "model": "new", "percent": 50 } }));
    let mut arms = Vec::new();
    for _ in 0..120 {
        let answer = client.generate(ask()).await.unwrap();
        arms.extend(answer.route.unwrap().arm.map(|arm| arm.as_str()));
    }
    assert!(arms.contains(&"canary") && arms.contains(&"rest"), "{arms:?}");
    let [notice] = &taken(&client, NoticeKind::CanaryRolledBack)[..] else { panic!("not told once") };
    assert_eq!(notice.deployment, "new");
    assert!(notice.detail.contains("error"), "{notice:?}");
}

#[tokio::test]
async fn a_circuit_that_opens_and_closes() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 500 }));
    let circuit = json!({ "circuit": { "failures": 2, "open_time": 0.05 } });
    let client = over(vec![deployment(&sim, "a", circuit)], json!({}));
    for _ in 0..3 {
        client.generate(ask().with_max_retries(0)).await.unwrap_err();
    }
    assert_eq!(taken(&client, NoticeKind::CircuitOpened).len(), 1);
    sim.clear_rules();
    tokio::time::sleep(Duration::from_millis(80)).await;
    client.generate(ask().with_max_retries(0)).await.unwrap();
    let [closed] = &taken(&client, NoticeKind::CircuitClosed)[..] else { panic!("not told once") };
    assert_eq!((closed.deployment.as_str(), closed.level), ("a", "info"));
}
