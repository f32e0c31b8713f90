//! Concurrency and the minute's limits through sockets, against the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use liter_llm::{Client, ErrorKind, FailurePhase, LlmProvider as _, LlmRequest, ProviderConfig};
use liter_llm_sim::{RequestRecord, Rule, SimConfig, Simulator};
use serde_json::{Value, json};

fn simulator(fault: Value) -> Simulator {
    let sim = Simulator::start(SimConfig::default()).unwrap();
    sim.set_rules(vec![Rule::from_json(&json!({"fault": fault}).to_string()).unwrap()]).unwrap();
    sim
}

fn client(sim: &Simulator, change: impl FnOnce(&mut ProviderConfig)) -> Arc<Client> {
    let mut config = ProviderConfig {
        max_retries: Some(0),
        ..ProviderConfig::new("openai")
            .with_model("m")
            .with_api_key("k")
            .with_base_url(sim.base_url("openai").unwrap())
    };
    change(&mut config);
    Arc::new(Client::new(config).unwrap())
}

fn asked(what: impl ToString) -> LlmRequest {
    LlmRequest::new().with_prompt(format!("[echo] {}", what.to_string()))
}

/// The most requests the simulator had open at once.
fn most_open(requests: &[RequestRecord]) -> usize {
    let open_at = |at: f64| {
        let ended = |request: &RequestRecord| {
            request.answered_at.or(request.client_closed_at).is_some_and(|end| end <= at)
        };
        requests.iter().filter(|request| request.at <= at && !ended(request)).count()
    };
    requests.iter().map(|request| open_at(request.at)).max().unwrap_or(0)
}

async fn settled(client: &Client) {
    let begun = Instant::now();
    while client.state()[0].in_flight > 0 || client.state()[0].waiting > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", client.state());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_hundred_calls_four_at_a_time_in_their_order() {
    let sim = simulator(json!({"delay_ms": 20}));
    let client = client(&sim, |config| config.concurrency = Some(4));
    let answers = join_all((0..100).map(|number| client.generate(asked(number)))).await;
    let requests = sim.requests();
    assert_eq!((requests.len(), most_open(&requests)), (100, 4));
    // Four travel at once and may pass each other on the way; nobody falls behind further than that.
    for (place, request) in requests.iter().enumerate() {
        let number: usize = request.body["messages"][0]["content"]
            .as_str()
            .unwrap()
            .trim_start_matches("[echo] ")
            .parse()
            .unwrap();
        assert!(number.abs_diff(place) < 4, "call {number} came as number {place}");
    }
    let queued: Vec<_> = answers.iter().map(|a| a.as_ref().unwrap().timing.unwrap().queued).collect();
    assert!(queued[..4].iter().all(Option::is_none) && queued[4..].iter().all(Option::is_some));
    let last = answers[99].as_ref().unwrap().timing.unwrap();
    assert!(last.queued.unwrap() > 0.45 && last.total < 0.4, "{last:?}");
    settled(&client).await;
}

#[tokio::test]
async fn one_at_a_time_is_strictly_in_order() {
    let sim = simulator(json!({"delay_ms": 2}));
    let client = client(&sim, |config| config.concurrency = Some(1));
    join_all((0..50).map(|number| client.generate(asked(number)))).await;
    let came: Vec<String> = sim
        .requests()
        .iter()
        .map(|request| request.body["messages"][0]["content"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(came, (0..50).map(|number| format!("[echo] {number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_gives_up_leaves_the_line_and_time_in_it_counts() {
    let sim = simulator(json!({"delay_ms": 300}));
    let client = client(&sim, |config| config.concurrency = Some(1));
    let call = |request: LlmRequest| {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.generate(request).await })
    };
    let first = call(asked("first"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let given_up: Vec<_> = (0..20).map(|_| call(asked("given up"))).collect();
    let late = call(asked("late").with_timeout(0.1));
    let last = call(asked("last"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((client.state()[0].in_flight, client.state()[0].waiting), (1, 22));
    given_up.iter().for_each(tokio::task::JoinHandle::abort);
    let begun = Instant::now();
    let error = late.await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.detail().phase), (ErrorKind::Timeout, Some(FailurePhase::Total)));
    assert!(begun.elapsed() < Duration::from_millis(150));
    assert_eq!(client.state()[0].waiting, 1);
    first.await.unwrap().unwrap();
    assert_eq!(last.await.unwrap().unwrap().text(), "last");
    assert_eq!(sim.requests().len(), 2);
    settled(&client).await;
}

#[tokio::test]
async fn a_stream_keeps_its_place_until_it_ends_or_is_dropped() {
    let sim = simulator(json!({}));
    let client = client(&sim, |config| config.concurrency = Some(1));
    let long = || LlmRequest::new().with_prompt("[tokens=30]");
    let mut chunks = client.stream(long()).await.unwrap();
    chunks.next().await.unwrap().unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), client.generate(asked(1))).await.is_err());
    assert_eq!(sim.requests().len(), 1);
    // To its end, though not yet dropped.
    while chunks.next().await.is_some() {}
    client.generate(asked(2)).await.unwrap();
    // Dropped early.
    let mut chunks = client.stream(long()).await.unwrap();
    chunks.next().await.unwrap().unwrap();
    let waiting = tokio::spawn({
        let client = Arc::clone(&client);
        async move {
            liter_llm::fold(
                &client.stream(long()).await.unwrap().map(Result::unwrap).collect::<Vec<_>>().await,
            )
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(chunks);
    let answer = waiting.await.unwrap();
    assert!(answer.timing.unwrap().queued.is_some_and(|queued| queued > 0.03), "{:?}", answer.timing);
    settled(&client).await;
}

#[tokio::test]
async fn requests_a_minute_are_paced() {
    let sim = simulator(json!({}));
    // A burst of 20, then 9.7 a second.
    let client = client(&sim, |config| config.rpm = Some(600));
    let answers = join_all((0..40).map(|number| client.generate(asked(number)))).await;
    assert!(answers.iter().all(Result::is_ok));
    let requests = sim.requests();
    let after = |index: usize| requests[index].at - requests[0].at;
    assert!(after(19) < 0.5, "{}", after(19));
    assert!((1.9..4.0).contains(&after(39)), "{}", after(39));
}

#[tokio::test]
async fn tokens_a_minute_are_reserved_and_settled() {
    let sim = simulator(json!({}));
    // 2,000 at once, 967 a second.
    let client = client(&sim, |config| config.tpm = Some(60_000));
    let bounded = |number: u32| asked(number).with_max_tokens(900);
    let begun = Instant::now();
    for number in 0..20 {
        client.generate(bounded(number)).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "a few tokens each were used: {:?}", begun.elapsed());
    // Together they reserve 5,400: the answers give most of it back.
    let begun = Instant::now();
    let answers = join_all((0..6).map(|number| client.generate(bounded(number)))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(answers.iter().filter(|a| a.as_ref().unwrap().timing.unwrap().queued.is_some()).count() >= 3);
    // What is really used is paid for: 6 x 600 tokens.
    let begun = Instant::now();
    for _ in 0..6 {
        client.generate(LlmRequest::new().with_prompt("[tokens=600]").with_max_tokens(600)).await.unwrap();
    }
    assert!((1.2..4.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_cannot_go_in_time_fails_at_once() {
    let sim = simulator(json!({}));
    let client = client(&sim, |config| config.rpm = Some(1));
    client.generate(asked(1)).await.unwrap();
    let begun = Instant::now();
    let error = client.generate(asked(2).with_timeout(5.0)).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(200));
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    let detail = error.detail();
    assert!(detail.before_send && detail.attempts.is_empty());
    assert!((58.0..=60.0).contains(&detail.retry_after.unwrap()), "{error}");
    assert_eq!(sim.requests().len(), 1);
    settled(&client).await;
}

#[tokio::test]
async fn what_is_not_sent_costs_nothing() {
    let sim = simulator(json!({}));
    let client = client(&sim, |config| config.rpm = Some(1));
    for _ in 0..5 {
        let error = client.generate(asked(1).with_temperature(9.0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    client.generate(asked(1)).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_given_up_is_charged_its_estimate() {
    // Its first chunk tells the tokens of the input, and hardly any of the output.
    let sim = simulator(json!({}));
    let config = ProviderConfig {
        tpm: Some(60_000),
        ..ProviderConfig::new("anthropic")
            .with_model("m")
            .with_api_key("k")
            .with_base_url(sim.base_url("anthropic").unwrap())
    };
    let client = Client::new(config).unwrap();
    let large = || LlmRequest::new().with_prompt("[tokens=50]").with_max_tokens(1_900);
    // 2,000 may go at once. Read to its end, a stream pays what it used; so do those whose last chunk is not read.
    for _ in 0..3 {
        let begun = Instant::now();
        let mut chunks = client.stream(large()).await.unwrap();
        while chunks.next().await.unwrap().unwrap().finish_reason.is_none() {}
        drop(chunks);
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    }
    let mut chunks = client.stream(large()).await.unwrap();
    while !chunks.next().await.unwrap().unwrap().has_content() {}
    drop(chunks);
    let begun = Instant::now();
    client.generate(large()).await.unwrap();
    assert!((1.2..4.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
}
