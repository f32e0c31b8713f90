//! Streams in batches, and providers and policies of another language, as a binding uses them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use liter_llm::client::{Client, Own};
use liter_llm::{Config, LlmProvider};
use liter_llm_border::{Feed, ForeignPolicy, ForeignProvider, Order, Outcome, Waiter, answer, pump};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

const LONG: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = br#"{"prompt": "Hello"}"#;

struct Told(Sender<Outcome>);

impl Waiter for Told {
    fn wake(self, outcome: Outcome) {
        self.0.send(outcome).unwrap();
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A provider that has each order carried out on a thread of its own.
fn provider(carry_out: impl Fn(&Order) + Send + Sync + 'static) -> Arc<dyn LlmProvider> {
    let carry_out = Arc::new(carry_out);
    Arc::new(ForeignProvider::new("other".to_owned(), "Rust", move |order| {
        let carry_out = Arc::clone(&carry_out);
        std::thread::spawn(move || carry_out(&order));
        true
    }))
}

fn chunk(text: &str) -> Vec<u8> {
    serde_json::to_vec(&json!({ "text": text })).unwrap()
}

fn next(feed: &Feed<Told>) -> Outcome {
    let (sender, receiver) = channel();
    feed.take_or(|| Told(sender)).unwrap_or_else(|| receiver.recv_timeout(LONG).unwrap())
}

#[test]
fn a_stream_comes_in_batches_and_folds_at_its_end() {
    let runtime = runtime();
    let feed = Arc::new(Feed::default());
    let provider = provider(|order| {
        assert!(order.streaming());
        for number in 0..1000 {
            order.chunk(&chunk(&format!("{number} "))).unwrap();
        }
        order.end();
    });
    runtime.spawn(pump(Arc::clone(&feed), provider, REQUEST.to_vec()));
    let (mut text, mut batches) = (String::new(), 0);
    loop {
        match next(&feed) {
            Outcome::Batch(batch) if batch.is_empty() => break,
            Outcome::Batch(batch) => {
                batches += 1;
                for chunk in serde_json::from_slice::<Vec<Value>>(&batch).unwrap() {
                    text.push_str(chunk["text"].as_str().unwrap());
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(text, (0..1000).map(|number| format!("{number} ")).collect::<String>());
    assert!(batches < 1000, "{batches} batches");
    let response: Value = serde_json::from_slice(&feed.response().unwrap().unwrap()).unwrap();
    assert_eq!(response["message"]["content"][0]["text"], text);
}

#[test]
fn who_reads_slowly_gets_all_and_who_blocks_is_nudged() {
    let runtime = runtime();
    let feed = Arc::new(Feed::<Told>::default());
    let long = "x".repeat(10_000);
    let provider = provider(move |order| {
        for _ in 0..100 {
            order.chunk(&chunk(&long)).unwrap();
        }
        order.end();
    });
    let pumping = runtime.spawn(pump(Arc::clone(&feed), provider, REQUEST.to_vec()));
    std::thread::sleep(Duration::from_millis(100));
    // More than 64 KiB unread: the rest waits where it comes from.
    assert!(!pumping.is_finished());
    let mut bytes = 0;
    loop {
        match feed.wait(LONG, || false) {
            Some(Outcome::Batch(batch)) if batch.is_empty() => break,
            Some(Outcome::Batch(batch)) => {
                assert!(batch.len() < 200_000, "{}", batch.len());
                bytes += batch.len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bytes > 1_000_000);

    let idle = Arc::new(Feed::<Told>::default());
    let other = Arc::clone(&idle);
    let nudge = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        other.nudge();
    });
    let begun = Instant::now();
    assert!(idle.wait(LONG, || false).is_none());
    assert!(begun.elapsed() < LONG / 2);
    nudge.join().unwrap();
    assert!(idle.wait(LONG, || true).is_none());
}

#[test]
fn closing_wakes_who_waits_and_the_provider_hears_of_it() {
    let runtime = runtime();
    let lost = Arc::new(AtomicUsize::new(0));
    let (kept, orders) = (Arc::clone(&lost), Arc::new(Mutex::new(Vec::new())));
    let keep = Arc::clone(&orders);
    let provider: Arc<dyn LlmProvider> =
        Arc::new(ForeignProvider::new("other".to_owned(), "Rust", move |order: Order| {
            let lost = Arc::clone(&kept);
            order.when_lost(|| ((), Box::new(move || lost.store(1, Ordering::Relaxed)))).unwrap();
            order.chunk(&chunk("so far")).unwrap();
            keep.lock().unwrap().push(order);
            true
        }));
    let feed = Arc::new(Feed::default());
    let task = runtime.spawn(pump(Arc::clone(&feed), provider, REQUEST.to_vec()));
    assert!(matches!(next(&feed), Outcome::Batch(_)));
    let (sender, receiver) = channel();
    assert!(feed.take_or(|| Told(sender)).is_none());
    task.abort();
    feed.close();
    let Outcome::Error(error) = receiver.recv_timeout(LONG).unwrap() else { panic!("no error") };
    assert_eq!(serde_json::from_slice::<Value>(&error).unwrap()["kind"], "cancelled");
    let begun = Instant::now();
    while lost.load(Ordering::Relaxed) == 0 && begun.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(lost.load(Ordering::Relaxed), 1);
    assert!(!orders.lock().unwrap()[0].is_awaited());
    assert!(feed.response().unwrap().is_none());
    assert!(String::from_utf8(feed.partial().unwrap()).unwrap().contains("so far"));
}

#[test]
fn whole_answers_failures_and_orders_that_nobody_takes() {
    let runtime = runtime();
    let whole = provider(|order| {
        order
            .complete(br#"{"message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}}"#)
            .unwrap();
    });
    let (json, raw) = runtime.block_on(answer(whole, REQUEST)).unwrap();
    let response: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((response["provider"].as_str(), raw.len()), (Some("other"), 0));

    let failing = provider(|order| {
        assert!(order.fail(b"no JSON").is_err());
        order.fail(br#"{"kind": "rate_limited", "detail": {"message": "busy"}}"#).unwrap();
    });
    let error = runtime.block_on(answer(failing, REQUEST)).unwrap_err();
    assert_eq!(error.kind().to_string(), "rate_limited");

    let nobody = Arc::new(ForeignProvider::new("other".to_owned(), "Rust", |_| false));
    let error = runtime.block_on(answer(nobody, REQUEST)).unwrap_err();
    assert!(error.to_string().contains("written in Rust"), "{error}");

    let error = runtime.block_on(answer(provider(|_| {}), b"{\"promt\": 1}")).unwrap_err();
    assert!(error.to_string().contains("promt"), "{error}");
}

#[test]
fn a_policy_of_another_language_puts_deployments_in_order() {
    let config = br#"{"deployments": [{"provider": "openai", "model": "a", "api_key": "k"},
        {"provider": "openai", "model": "b", "api_key": "k"}]}"#;
    let policy = ForeignPolicy::new("mine".to_owned(), |question| {
        let (_, candidates): (Value, Vec<Value>) = serde_json::from_slice(question.view()).unwrap();
        assert!(question.is_awaited());
        assert!(String::from_utf8(question.request().unwrap()).unwrap().contains("Hello"));
        question
            .answer(candidates.iter().rev().map(|one| one["name"].as_str().unwrap().to_owned()).collect());
        true
    });
    let own = Own { policy: Some(Arc::new(policy)), ..Own::default() };
    let client = Client::from_config_with(Config::from_json(config).unwrap(), own).unwrap();
    let request = liter_llm::LlmRequest::from_json(REQUEST).unwrap();
    let route = runtime().block_on(client.explain(&request, false));
    assert_eq!((route.policy.as_str(), route.chosen.as_str()), ("mine", "openai/b"));
}
