//! Rules that no call of a router crosses: regions and tags, what a request needs, and how often a call is repeated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod routed;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use liter_llm::{Client, ErrorKind, LlmProvider, LlmRequest, fold};
use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};

use self::routed::{ask, client, deployment, failing, reached, sim, tried};

/// Calls under a rule, each of which could cross it.
const CALLS: usize = 200;

fn under(route: &Value) -> LlmRequest {
    let route = serde_json::from_value(route.clone()).unwrap();
    ask().with(|body| body.route = Some(Box::new(route)))
}

/// `home` in the EU with zero retention and `away` in the US without it, both at the same price.
fn home_and_away(sim: &Simulator, router: Value) -> Client {
    let price = json!({ "input": 1, "output": 2 });
    let home = json!({ "region": "eu", "tags": ["zero-retention"], "price": price });
    let away = json!({ "region": "us", "tags": ["keeps"], "price": price });
    client(sim, &[("home", home), ("away", away)], router)
}

/// The ways a call says that it must not go to `away`.
fn rules() -> [Value; 3] {
    [
        json!({ "regions": ["eu"] }),
        json!({ "require_tags": ["zero-retention"] }),
        json!({ "forbid_tags": ["keeps"] }),
    ]
}

/// Makes [`CALLS`] calls under these rules, every fourth as a stream.
async fn all_at_home(client: &Client, rules: &[Value]) {
    for call in 0..CALLS {
        let request = under(&rules[call % rules.len()]);
        let answer = if call % 4 == 0 {
            let chunks: Vec<_> = client.stream(request).await.unwrap().map(Result::unwrap).collect().await;
            fold(&chunks)
        } else {
            client.generate(request).await.unwrap()
        };
        assert_eq!(answer.route.unwrap().chosen, "home");
    }
}

/// Waits until this deployment was reached more than so many times.
async fn until_reached(sim: &Simulator, model: &str, times: usize) {
    let begun = Instant::now();
    while reached(sim, model) <= times {
        assert!(begun.elapsed() < Duration::from_secs(10), "`{model}` is never reached");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_calls_never_leave_the_region() {
    let sim = sim();
    let client = home_and_away(&sim, json!({ "mirror": { "to": "away", "percent": 100 } }));
    all_at_home(&client, &rules()).await;
    // Nothing is on its way either.
    let report = client.router().mirror().unwrap();
    assert_eq!((report.sent, report.dropped, report.in_flight), (0, 0, 0));
    assert_eq!((reached(&sim, "home"), reached(&sim, "away")), (CALLS, 0));
    // Without a rule the next call is copied.
    client.generate(ask()).await.unwrap();
    until_reached(&sim, "away", 0).await;
}

#[tokio::test]
async fn a_canarys_share_never_leaves_the_region() {
    let sim = sim();
    let client = home_and_away(&sim, json!({ "canary": { "model": "away", "percent": 100 } }));
    all_at_home(&client, &rules()).await;
    assert_eq!((reached(&sim, "home"), reached(&sim, "away")), (CALLS, 0));
    assert_eq!(client.router().canary().unwrap().arms.canary.calls, 0);
    assert_eq!(client.generate(ask()).await.unwrap().model, "away");
    // Nor is it the last resort.
    failing(&sim, "home", json!({ "status": 503 }));
    for route in rules() {
        let error = client.generate(under(&route).with_max_retries(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
    }
    assert_eq!(reached(&sim, "away"), 1);
}

#[tokio::test]
async fn a_budget_never_degrades_to_another_region() {
    let sim = sim();
    let budget = json!({ "usd": 1_000, "per": "day", "degrade_to": "away", "degrade_at": 0.0 });
    let client = home_and_away(&sim, json!({ "budget": budget }));
    all_at_home(&client, &rules()).await;
    assert_eq!((reached(&sim, "home"), reached(&sim, "away")), (CALLS, 0));
    let answer = client.generate(ask()).await.unwrap();
    assert_eq!(answer.model, "away");
    assert!(answer.route.unwrap().notes[0].contains("degraded to `away`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trials_never_leave_the_region() {
    let sim = sim();
    let client = home_and_away(&sim, json!({}));
    failing(&sim, "away", json!({ "status": 503 }));
    client.generate(ask().with_model("away").with_max_retries(0)).await.unwrap_err();
    assert_eq!(reached(&sim, "away"), 1);
    // A trial is due after a second.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    all_at_home(&client, &rules()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((reached(&sim, "home"), reached(&sim, "away")), (CALLS, 1));
    // It is still due: a call without a rule brings it.
    assert_eq!(client.generate(ask()).await.unwrap().model, "home");
    until_reached(&sim, "away", 1).await;
}

/// A prompt with this block beside its text.
fn with_block(block: Value) -> Value {
    json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "[echo] hello" }, block] }] })
}

#[tokio::test]
async fn every_need_rules_out_by_itself() {
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } });
    let prompt = |rest: Value| {
        let mut all = json!({ "messages": [{ "role": "user", "content": "[echo] hello" }] });
        all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        all
    };
    let schema = json!({ "name": "s", "schema": { "type": "object" } });
    let picture =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBORw0KGgo=" } });
    let paper = json!({ "type": "file", "file": {
        "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQK",
    } });
    let sound = json!({ "type": "input_audio", "input_audio": { "data": "UklGRg==", "format": "wav" } });
    for (need, request) in [
        ("tools", prompt(json!({ "tools": [tool] }))),
        ("parallel_tools", prompt(json!({ "tools": [tool], "parallel_tool_calls": true }))),
        ("schema", prompt(json!({ "response_format": { "type": "json_schema", "json_schema": schema } }))),
        ("image_input", with_block(picture)),
        ("document_input", with_block(paper)),
        ("audio_input", with_block(sound)),
        ("reasoning", prompt(json!({ "reasoning_effort": "high" }))),
        ("logprobs", prompt(json!({ "logprobs": true }))),
    ] {
        let sim = sim();
        let request = LlmRequest::from_json(request.to_string().as_bytes()).unwrap();
        let unable = json!({ "supports": { need: false } });
        // With one that can, that one answers, though it is last.
        let one_can = [
            ("first", unable.clone()),
            ("second", unable.clone()),
            ("able", json!({ "supports": { need: true } })),
        ];
        let answer = client(&sim, &one_can, json!({})).generate(request.clone()).await.unwrap();
        assert_eq!(tried(&answer), ["able"], "{need}");
        // What cannot do it takes other calls.
        let none_can = client(&sim, &one_can[..2], json!({}));
        assert_eq!(none_can.generate(ask()).await.unwrap().model, "first", "{need}");
        for alone in [none_can, client(&sim, &one_can[..1], json!({}))] {
            let error = alone.generate(request.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoCandidate, "{need}");
            for name in alone.router().members().iter().map(|member| &member.name) {
                assert!(error.detail().message.contains(&format!("`{name}` has no {need}")), "{error}");
            }
            let error = alone.stream(request.clone()).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::NoCandidate, "{need}");
        }
        assert_eq!(sim.requests().len(), 2, "{need}: nothing else was sent");
    }
}

#[tokio::test]
async fn a_long_prompt_rules_out_short_contexts() {
    let sim = sim();
    let context = |tokens: u64| json!({ "context": tokens });
    let all = [("short", context(1_000)), ("long", context(100_000))];
    let request = LlmRequest::new().with_prompt("several words ".repeat(1_000));
    let answer = client(&sim, &all, json!({})).generate(request.clone()).await.unwrap();
    assert_eq!(tried(&answer), ["long"]);
    let error = client(&sim, &all[..1], json!({})).generate(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCandidate);
    assert!(error.to_string().contains("the prompt is longer than the 1000 tokens of `short`"), "{error}");
    assert_eq!(reached(&sim, "short"), 0);
}

#[tokio::test]
async fn a_fine_tuned_model_goes_only_where_it_can_be() {
    const MODEL: &str = "ft:gpt-4o-mini:acme::1";
    let sim = sim();
    let tunes = |able: bool| json!({ "supports": { "fine_tuned": able } });
    let request = || ask().with_model(MODEL);
    let all = [("unknown", json!({})), ("not", tunes(false)), ("able", tunes(true))];
    let mirror = json!({ "mirror": { "to": "unknown", "percent": 100 } });
    for router in [json!({}), mirror] {
        let client = client(&sim, &all, router);
        for _ in 0..10 {
            let answer = client.generate(request()).await.unwrap();
            assert_eq!((tried(&answer), answer.model.as_str()), (vec!["able"], MODEL));
        }
        assert_eq!(
            client.router().mirror().map_or(0, |report| report.sent),
            0,
            "it is not there to be copied to"
        );
    }
    assert_eq!((reached(&sim, MODEL), sim.requests().len()), (20, 20));
    for few in [&all[..2], &all[1..2]] {
        let error = client(&sim, few, json!({})).generate(request()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoCandidate);
        for (name, _) in few {
            assert!(error.detail().message.contains(&format!("`{name}` has no fine_tuned")), "{error}");
        }
    }
    // One that is configured by its name is meant, and no other stands in for it.
    let tuned = [("able", tunes(true)), ("own", json!({ "model": MODEL }))];
    let own = client(&sim, &tuned, json!({}));
    assert_eq!(tried(&own.generate(request()).await.unwrap()), ["own"]);
    failing(&sim, MODEL, json!({ "status": 503 }));
    own.generate(request().with_max_retries(0)).await.unwrap_err();
    assert_eq!(reached(&sim, "able"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_deployments_of_a_router_share_one_retry_quota() {
    // 500 tokens, 14 for each repeat after a passing failure.
    const REPEATS: usize = 500 / 14;
    const EACH: usize = 40;
    let sim = sim();
    let open = json!({ "circuit": false });
    let all = [("a", open.clone()), ("b", open)];
    for (name, _) in &all {
        failing(&sim, name, json!({ "status": 503 }));
    }
    let client = client(&sim, &all, json!({}));
    let calls = (0..2 * EACH).map(|call| {
        let client = &client;
        async move {
            let kind = match call % 2 {
                0 => client.generate(ask()).await.unwrap_err().kind(),
                _ => client.stream(ask()).await.err().unwrap().kind(),
            };
            assert_eq!(kind, ErrorKind::Overloaded);
        }
    });
    futures_util::future::join_all(calls).await;
    // Each call tries both once; all repeats together are what the one quota allows.
    let (a, b) = (reached(&sim, "a"), reached(&sim, "b"));
    assert!(a >= 2 * EACH && b >= 2 * EACH, "{a} and {b}");
    assert_eq!(a + b, 2 * 2 * EACH + REPEATS, "{a} and {b}");
    client.generate(ask()).await.unwrap_err();
    assert_eq!(reached(&sim, "a") + reached(&sim, "b"), a + b + 2, "no repeat is left");
}

#[test]
fn a_budget_does_not_degrade_to_what_is_held_back() {
    let sim = sim();
    let price = json!({ "price": { "input": 1, "output": 2 } });
    let all: Vec<_> = ["a", "b", "c"].map(|name| deployment(&sim, name, price.clone())).into();
    let budget = |to: &str| json!({ "usd": 5, "per": "day", "degrade_to": to, "degrade_at": 0.5 });
    let canary = json!({ "model": "b", "percent": 5 });
    let mirror = json!({ "to": "c", "percent": 5 });
    let made = |router: Value| {
        let document = json!({ "deployments": all, "router": router });
        Client::from_json(document.to_string().as_bytes())
    };
    for (router, words) in [
        (json!({ "canary": canary, "budget": budget("b") }), "`b` is the canary"),
        (json!({ "canary": canary, "budget": budget("openai/b") }), "`b` is the canary"),
        (json!({ "mirror": mirror, "budget": budget("c") }), "`c` is the mirror's deployment"),
        (
            json!({ "mirror": mirror, "budget": [
                budget("a"),
                { "usd": 1, "per": "hour", "degrade_to": "c", "degrade_at": 0.5 },
            ] }),
            "`c` is the mirror's deployment",
        ),
    ] {
        let error = made(router).err().unwrap();
        assert_eq!(
            (error.kind(), error.detail().param.as_deref()),
            (ErrorKind::Config, Some("budget.degrade_to"))
        );
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(made(json!({ "canary": canary, "mirror": mirror, "budget": budget("a") })).is_ok());
}

#[tokio::test]
async fn a_hanging_stream_leaves_the_time_another_one_needs() {
    let delay = Duration::from_millis(600);
    let sim = Simulator::start(SimConfig { response_delay: delay, ..SimConfig::default() }).unwrap();
    let client = client(&sim, &[("a", json!({})), ("b", json!({}))], json!({}));
    for model in ["a", "b"] {
        let stream = client.stream(ask().with_model(model)).await.unwrap();
        assert!(stream.map(Result::unwrap).count().await > 0);
    }
    failing(&sim, "a", json!({ "hang": true }));
    let begun = Instant::now();
    let stream = client.stream(ask().with_timeout(4.0)).await.unwrap();
    let chunks: Vec<_> = stream.map(Result::unwrap).collect().await;
    let all = begun.elapsed().as_secs_f64();
    let answer = fold(&chunks);
    assert_eq!((answer.text().as_str(), tried(&answer)), ("hello", vec!["a", "b"]));
    let first = answer.attempts[0].duration;
    // `b` begins within 0.6 s or little more, and is left a quarter beyond that.
    assert!((2.0..3.4).contains(&first) && all < 4.0, "{first} of {all}");
    assert_eq!(answer.attempts[0].reason.as_deref(), Some("went elsewhere after timeout"));
    // The next call does not wait for it again.
    let begun = Instant::now();
    let stream = client.stream(ask().with_timeout(4.0)).await.unwrap();
    let chunks: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!(tried(&fold(&chunks)), ["b"]);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_creates_is_not_created_at_another_provider() {
    let sim = sim();
    failing(&sim, "a", json!({ "status": 503 }));
    let responses = || json!({ "api": "responses", "circuit": false });
    let client = client(&sim, &[("a", responses()), ("b", responses())], json!({}));
    let creating = LlmRequest::from_json(br#"{"prompt": "x", "extra": {"background": true}}"#).unwrap();
    let error = client.generate(creating).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Overloaded, false));
    assert_eq!((reached(&sim, "a"), reached(&sim, "b")), (1, 0));
    // A plain generation goes on.
    assert_eq!(client.generate(ask()).await.unwrap().model, "b");
}
