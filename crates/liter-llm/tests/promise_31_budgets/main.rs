//! Row 31: a budget reserves first. Under any concurrency what is spent and reserved exceeds the limit by one request at
//! most, no call is refused while 90 % or less is spent, and the money survives restarts and reloads. Two processes
//! share a file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod files;
mod model;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use files::{file, forget};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use liter_llm::core::provider::ChunkStream;
use liter_llm::core::response::Attempt;
use liter_llm::routing::member::Member;
use liter_llm::{
    Client, ErrorKind, LlmChunk, LlmError, LlmProvider, LlmRequest, LlmResponse, Money, Usage, async_trait,
};
use liter_llm_sim::{SimConfig, Simulator};
use model::{CALLS, Model, ask, calls, deployment, dollars, keyed, router, runs, spend, spent, storm, sum};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_two_hundred_at_once_overspend_by_one_call_at_most() {
    for run in 0..runs() {
        // What the calls are bound by: their own word, the model's longest answer, nothing.
        let cases = [(Some(2_000), None, 2_000), (None, Some(150), 150), (None, None, 16_384)];
        let (bound, asked, ceiling) = cases[run % 3];
        let model = Arc::new(Model::default());
        let (limit, tokens) = (5_000, 60 + run as u64 % 40);
        let router = router(
            vec![deployment("a", &model, bound, &[])],
            json!({ "usd": dollars(limit), "per": "month" }),
        );
        storm(&router, &model, (limit, ceiling), |index| {
            let request = ask(tokens + index % 11, "");
            request.with(|body| body.max_tokens = asked)
        })
        .await;
        let [level] = &*spend(&router).budgets else { panic!() };
        assert_eq!((level.reserved, level.running), (Money::ZERO, 0), "something is still held");
        assert_eq!(level.spent, sum(model.given.load(Ordering::SeqCst)), "the ledger is exact");
        assert_eq!(level.calls, model.answered.load(Ordering::SeqCst));
        assert!(level.spent >= sum(limit), "run {run}: only {} was used", level.spent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_nobody_is_refused_when_there_is_enough() {
    for run in 0..runs() {
        let model = Arc::new(Model::default());
        // 200 calls of 45 tokens are 90 % of 10,000, while each may take 2,000.
        let bound = [Some(2_000), None][run % 2];
        let router = router(
            vec![deployment("a", &model, bound, &[])],
            json!({ "usd": dollars(10_000), "per": "month" }),
        );
        let attempts = calls(&router);
        let answers = join_all((0..CALLS).map(|_| attempts.generate(ask(45, "")))).await;
        for answer in answers {
            answer.unwrap();
        }
        assert_eq!(spent(&router), sum(9_000));
    }
}

#[tokio::test]
async fn row_31_what_failed_is_charged_as_it_deserves() {
    let model = Arc::new(Model::default());
    let router = router(
        vec![deployment("a", &model, None, &[])],
        json!({ "usd": 1.0, "per": "day", "scope": "router" }),
    );
    let attempts = calls(&router);
    let usual = |request: LlmRequest| request.with_max_tokens(70);
    for what in ["refused", "unsent"] {
        attempts.generate(usual(ask(10, what))).await.unwrap_err();
        assert!(attempts.stream(usual(ask(10, what))).await.is_err());
        assert_eq!(spent(&router), Money::ZERO, "{what}");
    }
    attempts.generate(usual(ask(10, "lost"))).await.unwrap_err();
    assert_eq!(spent(&router), sum(70), "nobody knows what became of it");
    attempts.generate(usual(ask(10, "never")).with_timeout(0.02)).await.unwrap_err();
    assert_eq!(spent(&router), sum(140));
    // A dropped stream: the estimate, or what is known to be more.
    let mut stream = attempts.stream(usual(ask(10, ""))).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(spend(&router).budgets[0].running, 1);
    drop(stream);
    assert_eq!(spent(&router), sum(210));
    let mut stream = attempts.stream(ask(5_000, "")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(spent(&router), sum(5_210));
}

#[tokio::test]
async fn row_31_tags_and_keys_have_their_own() {
    let model = Arc::new(Model::default());
    let members = || vec![deployment("a", &model, None, &["fine"]), deployment("b", &model, None, &[])];
    let budgets = json!([
        { "usd": dollars(100), "per": "day", "scope": "tag:fine" },
        { "usd": dollars(1_000), "per": "month", "scope": "key" },
        { "usd": dollars(10), "per": "month", "scope": "key:bob" },
    ]);
    let router = router(members(), budgets);
    let attempts = calls(&router);
    let call = async |key: &str, tokens| {
        attempts.generate(keyed(ask(tokens, ""), key).with_max_tokens(tokens)).await
    };
    assert_eq!(call("alice", 100).await.unwrap().route.unwrap().chosen, "a");
    // The tag's is used up: the other deployment answers.
    let route = call("alice", 800).await.unwrap().route.unwrap();
    assert_eq!(route.chosen, "b");
    let why = route.candidates[1].ruled_out.clone().unwrap();
    assert_eq!(why, "`a`: the budget of 0.0001 USD a day (tag:fine) is used up");
    call("alice", 150).await.unwrap();
    let error = call("alice", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BudgetExceeded);
    let text = error.detail().message.clone();
    assert!(
        text.starts_with("the budget of 0.001 USD a month (key:alice) is used up: 0.00105 USD spent"),
        "{text}"
    );
    let wait = error.detail().retry_after.unwrap();
    assert!(error.detail().before_send && wait > 0.0 && wait <= 31.0 * 86_400.0 && !error.is_retryable());
    call("carol", 100).await.unwrap();
    call("bob", 10).await.unwrap();
    assert!(call("bob", 1).await.is_err());
    attempts.generate(ask(10, "")).await.unwrap();
    let scopes: Vec<_> =
        spend(&router).budgets.into_iter().map(|budget| (budget.scope, budget.spent)).collect();
    assert_eq!(
        scopes,
        [
            ("tag:fine".to_owned(), sum(100)),
            ("key:alice".to_owned(), sum(1_050)),
            ("key:carol".to_owned(), sum(100)),
            ("key:bob".to_owned(), sum(10)),
        ]
    );
}

#[tokio::test]
async fn row_31_past_the_threshold_the_cheaper_one_answers() {
    let model = Arc::new(Model::default());
    let members = || vec![deployment("good", &model, None, &[]), deployment("cheap", &model, None, &[])];
    let budget = |hard: bool| json!({ "usd": dollars(1_000), "per": "day", "degrade_to": "cheap", "degrade_at": 0.8, "hard": hard });
    let router = router(members(), budget(true));
    let attempts = calls(&router);
    let call = async |tokens| attempts.generate(ask(tokens, "").with_max_tokens(tokens)).await;
    let route = call(830).await.unwrap().route.unwrap();
    assert_eq!((route.chosen.as_str(), route.notes.len()), ("good", 0));
    let route = call(200).await.unwrap().route.unwrap();
    assert_eq!(route.chosen, "cheap");
    assert_eq!(route.notes, ["the budget of 0.001 USD a day (router) at 83 %: degraded to `cheap`"]);
    let error = call(1).await.unwrap_err();
    assert!(error.to_string().contains("is used up: 0.00103 USD spent"), "{error}");
    // One that is not hard goes on.
    let router = self::router(members(), budget(false));
    let attempts = calls(&router);
    for chosen in ["good", "cheap", "cheap"] {
        assert_eq!(attempts.generate(ask(2_000, "")).await.unwrap().route.unwrap().chosen, chosen);
    }
    assert_eq!(spent(&router), sum(6_000));
}

#[tokio::test]
async fn row_31_unknown_prices_are_refused_never_free() {
    let model = Arc::new(Model::default());
    let unpriced = || Member { pricing: None, ..deployment("a", &model, None, &[]) };
    let router = router(vec![unpriced()], json!({ "usd": 1.0, "per": "day" }));
    let error = calls(&router).generate(ask(1, "")).await.unwrap_err();
    assert_eq!((error.kind(), error.detail().param.as_deref()), (ErrorKind::BudgetExceeded, Some("price")));
    assert!(error.to_string().contains("at `a` is not known") && error.detail().before_send, "{error}");
    // The price of another model is not this one's.
    let router = self::router(vec![deployment("a", &model, None, &[])], json!({ "usd": 1.0, "per": "day" }));
    calls(&router).generate(ask(1, "").with_model("a-model")).await.unwrap();
    let error = calls(&router).generate(ask(1, "").with_model("other")).await.unwrap_err();
    assert!(error.to_string().contains("of `other` at `a`"), "{error}");
    assert_eq!(model.answered.load(Ordering::SeqCst), 1);
    // Where nothing is refused, such calls are counted as what they are.
    let router = self::router(vec![unpriced()], json!({ "usd": 1.0, "per": "day", "hard": false }));
    calls(&router).generate(ask(1, "")).await.unwrap();
    let total = &spend(&router).deployments[0].total;
    assert_eq!((total.calls, total.unpriced, total.spent), (1, 1, Money::ZERO));
}

fn refused(deployments: &Value, router: &Value) -> String {
    let document = json!({ "deployments": deployments, "router": router }).to_string();
    let error = Client::from_json(document.as_bytes()).err().expect(&document);
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn row_31_what_cannot_work_is_refused_at_construction() {
    let one = json!([{ "provider": "openai", "model": "m", "api_key": "k", "tags": ["fine"], "price": { "input": 1, "output": 2 } }]);
    let budget = |changes: Value| {
        let mut budget = json!({ "usd": 5, "per": "day" });
        budget.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({ "budget": budget })
    };
    let directory = env!("CARGO_TARGET_TMPDIR");
    let corrupt = file("row-31-corrupt");
    std::fs::write(&corrupt, "this is no database, and longer than its header of a hundred bytes would be, so that nobody takes it for a new one").unwrap();
    for (changes, words) in [
        (json!({ "usd": 0 }), "`budget.usd`: 0 is no limit"),
        (json!({ "usd": -1 }), "`budget.usd`: -1 is no limit"),
        (json!({ "usd": 1e9 }), "up to 9000000"),
        (json!({ "per": "week" }), "`week` is unknown (one of hour, day, month)"),
        (json!({ "scope": "team" }), "`team` is none of"),
        (json!({ "scope": "tag:fast" }), "no deployment has the tag `fast`"),
        (json!({ "degrade_at": 1.5, "degrade_to": "openai/m" }), "1.5 is no share"),
        (json!({ "degrade_at": 0.5 }), "give `degrade_to`"),
        (json!({ "degrade_to": "openai/m" }), "give `degrade_at`"),
        (
            json!({ "degrade_at": 0.5, "degrade_to": "openai/x" }),
            "no deployment is `openai/x`; there are openai/m",
        ),
        (json!({ "usdd": 1 }), "`router.budget.usdd`"),
        (json!({ "path": directory }), "cannot be used"),
        (json!({ "path": format!("{directory}/none/ledger.sqlite") }), "cannot be used"),
        (json!({ "path": corrupt }), "cannot be used: file is not a database"),
    ] {
        let text = refused(&one, &budget(changes));
        assert!(text.contains(words), "{text}");
    }
    forget(&corrupt);
    let day = json!({ "usd": 5, "per": "day" });
    let text = refused(&one, &json!({ "budget": [day, day] }));
    assert!(text.contains("two budgets are for `router` per day"), "{text}");
    let price = json!([{ "provider": "openai", "model": "m", "api_key": "k", "price": { "input": -1, "output": 2 } }]);
    let text = refused(&price, &json!({}));
    assert!(text.contains("`input`: -1 is no price"), "{text}");
}

#[tokio::test]
async fn row_31_a_budget_in_the_document_counts_calls_over_the_wire() {
    let sim = Simulator::start(SimConfig::default()).unwrap();
    let document = json!({
        "deployments": [{
            "provider": "openai", "model": "m", "name": "a", "api_key": "k", "base_url": sim.base_url("openai"),
            "price": { "input": 1, "output": 2 },
        }],
        "router": { "budget": { "usd": 1, "per": "hour" } },
    });
    let client = Client::from_json(document.to_string().as_bytes()).unwrap();
    let answer = client.generate(LlmRequest::new().with_prompt("[echo] hello")).await.unwrap();
    let usage = answer.usage.unwrap();
    let cost = Money::from_parts(usage.input_tokens * 1_000_000 + usage.output_tokens * 2_000_000);
    assert!(cost > Money::ZERO);
    assert_eq!(spent(client.router()), cost);
    let chunks = client.stream(LlmRequest::new().with_prompt("[echo] hello")).await.unwrap();
    assert!(chunks.all(|chunk| async move { chunk.is_ok() }).await);
    assert_eq!(spent(client.router()), cost.plus(cost));
}

#[tokio::test(start_paused = true)]
async fn row_31_money_that_is_held_is_waited_for_once() {
    let model = Arc::new(Model::default());
    let members = vec![deployment("a", &model, Some(500), &[]), deployment("b", &model, Some(500), &[])];
    let router = router(members, json!({ "usd": dollars(500), "per": "month" }));
    let attempts = calls(&router);
    let held = attempts.stream(ask(50, "")).await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = attempts.generate(ask(50, "")).await.unwrap_err();
    assert!(error.to_string().contains("is held by running calls"), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 30, "the other deployment is no way out");
    // It goes as soon as the money is free.
    let begun = tokio::time::Instant::now();
    let freed = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(held.count().await, 3);
    };
    let (answer, ()) = tokio::join!(attempts.generate(ask(50, "")), freed);
    answer.unwrap();
    assert_eq!((begun.elapsed().as_secs(), spent(&router)), (3, sum(100)));
}

#[tokio::test]
async fn row_31_who_leaves_the_line_pays_nothing() {
    let sim = Simulator::start(SimConfig::default()).unwrap();
    let deployment = |rest: Value| {
        let mut all = json!({
            "provider": "openai", "model": "m", "name": "a", "api_key": "k", "base_url": sim.base_url("openai"),
            "price": { "input": 1, "output": 2 },
        });
        all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "deployments": [all], "router": { "budget": { "usd": 1, "per": "day" } } }).to_string()
    };
    let ask = || LlmRequest::new().with_prompt("[echo] hello");
    let client = Client::from_json(deployment(json!({ "rpm": 1 })).as_bytes()).unwrap();
    client.generate(ask()).await.unwrap();
    let before = spent(client.router());
    tokio::time::timeout(Duration::from_millis(100), client.generate(ask())).await.unwrap_err();
    assert_eq!((spent(client.router()), sim.requests().len()), (before, 1));
    // What was on its way is charged.
    sim.add_rule(
        serde_json::from_value(json!({ "match": { "model": "m" }, "fault": { "hang": true } })).unwrap(),
    )
    .unwrap();
    let client = Client::from_json(deployment(json!({})).as_bytes()).unwrap();
    tokio::time::timeout(Duration::from_millis(300), client.generate(ask())).await.unwrap_err();
    assert!(sim.requests().len() == 2 && spent(client.router()) > Money::ZERO);
    let other = Client::from_json(deployment(json!({})).as_bytes()).unwrap();
    other.generate(ask().with_timeout(0.3)).await.unwrap_err();
    assert!(sim.requests().len() == 3 && spent(other.router()) > Money::ZERO, "also when its time was up");
}

/// Streams of which a second request was sent along and given up.
struct Hedged;

#[async_trait]
impl LlmProvider for Hedged {
    fn name(&self) -> &str {
        "hedged"
    }

    async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
        Err(LlmError::Timeout)
    }

    async fn stream(&self, _: LlmRequest) -> Result<ChunkStream, LlmError> {
        let lost = Attempt { error: Some("cancelled".to_owned()), ..Attempt::default() };
        let mut last = LlmChunk::usage(Usage { output_tokens: 10, ..Usage::default() });
        last.facts.get_or_insert_default().attempts = vec![lost, Attempt::default()];
        Ok(Box::pin(futures_util::stream::iter([Ok(LlmChunk::text("x")), Ok(last)])))
    }
}

#[tokio::test]
async fn row_31_the_request_a_hedged_stream_gave_up_is_charged() {
    let mut member = deployment("a", &Arc::default(), None, &[]);
    member.door = Arc::new(Hedged);
    let router = router(vec![member], json!({ "usd": 1.0, "per": "day" }));
    let chunks = calls(&router).stream(ask(10, "").with_max_tokens(70)).await.unwrap();
    assert_eq!(chunks.count().await, 2);
    assert_eq!(spent(&router), sum(10 + 70), "what the answer used, and what is usual for the other one");
}
