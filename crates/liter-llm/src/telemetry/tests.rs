#![allow(clippy::unwrap_used, clippy::panic)]
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;

use super::*;
use crate::client::Client;
use crate::core::chunk::{Facts, LlmChunk};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::provider::{ChunkStream, LlmProvider};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, AttemptCause, FinishReason, LlmResponse, Usage};

/// Answers as it is told, after a second each.
struct Script(Mutex<VecDeque<Result<&'static str, ErrorKind>>>);

impl Script {
    fn of(answers: &[Result<&'static str, ErrorKind>]) -> Client {
        Client::over(Arc::new(Self(Mutex::new(answers.iter().copied().collect()))))
    }
}

#[async_trait]
impl LlmProvider for Script {
    fn name(&self) -> &str {
        "script"
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        crate::core::call::sending("script");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let next = self.0.lock().unwrap().pop_front().unwrap();
        next.map(|model| LlmResponse {
            model: model.to_owned(),
            finish_reason: FinishReason::Stop,
            usage: Some(Usage { input_tokens: request.messages.len() as u64, ..Usage::default() }),
            attempts: vec![Attempt {
                deployment: "script".into(),
                started: 0.5,
                duration: 1.0,
                ..Attempt::default()
            }],
            ..LlmResponse::default()
        })
        .map_err(|kind| {
            LlmError::new(kind, "the prompt was: secret").with(|detail| detail.status_code = Some(503))
        })
    }

    async fn stream(&self, _: LlmRequest) -> Result<ChunkStream, LlmError> {
        let script = std::mem::take(&mut *self.0.lock().unwrap());
        let facts = LlmChunk::facts(Facts {
            attempts: vec![Attempt { deployment: "script".into(), ..Attempt::default() }],
            ..Facts::default()
        });
        let pieces = script.into_iter().map(|piece| match piece {
            Ok(text) => Ok(LlmChunk::text(text)),
            Err(kind) => Err(LlmError::new(kind, "broke")),
        });
        let paced = futures_util::stream::iter(std::iter::once(Ok(facts)).chain(pieces)).then(|item| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            item
        });
        Ok(Box::pin(paced))
    }
}

async fn recorded(client: &Client, request: LlmRequest) -> Arc<CallRecord> {
    let recorder = Recorder::new();
    let _ = recorder.scope(|| client.generate(request)).await;
    recorder.record().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_is_recorded_with_its_repeats() {
    let client = Script::of(&[Err(ErrorKind::Overloaded), Ok("m-1")]);
    let record = recorded(&client, LlmRequest::new().with_prompt("secret").with_max_tokens(9)).await;
    assert_eq!((record.operation.as_str(), record.streamed, record.error.as_ref()), ("chat", false, None));
    assert_eq!((record.parameters.max_tokens, record.parameters.prompt_len), (Some(9), 6));
    assert_eq!(record.response_model.as_deref(), Some("m-1"));
    assert_eq!(record.usage.as_ref().unwrap().input_tokens, 1);
    let [failed, answered] = record.attempts.as_slice() else { panic!("{:?}", record.attempts) };
    assert_eq!(failed.attempt.error.as_deref(), Some("overloaded"));
    assert_eq!((failed.attempt.started, failed.attempt.duration), (0.0, 1.0));
    assert_eq!(answered.attempt.cause, Some(AttemptCause::Retry));
    assert!(answered.attempt.wait.is_some() && answered.ended <= record.duration);
    assert_eq!((answered.provider.as_str(), record.deployment.as_str()), ("script", "script"));
    assert!(!serde_json::to_string(&*record).unwrap().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_says_why_and_nothing_of_its_text() {
    let client = Script::of(&[Err(ErrorKind::Overloaded)]);
    let record = recorded(&client, LlmRequest::new().with_prompt("secret").with_max_retries(0)).await;
    let error = record.error.as_ref().unwrap();
    assert_eq!((error.kind.as_str(), error.status, record.attempts.len()), ("overloaded", Some(503), 1));
    assert!(!serde_json::to_string(&*record).unwrap().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_given_up_says_how_far_it_came() {
    let client = Script::of(&[Err(ErrorKind::Overloaded), Ok("never")]);
    let recorder = Recorder::new();
    let records = client.telemetry().records(8);
    assert!(recorder.record().is_none());
    let call = recorder.scope(|| client.generate(LlmRequest::new().with_prompt("x")));
    let mut call = Box::pin(call);
    assert!(tokio::time::timeout(Duration::from_millis(1900), &mut call).await.is_err());
    let seen = recorder.record().unwrap();
    drop(call);
    let last = recorder.record().unwrap();
    for record in [&seen, &last, &records.next().await.unwrap()] {
        let kinds: Vec<_> = record.attempts.iter().map(|attempt| attempt.attempt.error.as_deref()).collect();
        assert_eq!(kinds, [Some("overloaded"), Some("cancelled")]);
        assert_eq!(record.error.as_ref().unwrap().kind, "cancelled");
        assert!((record.duration - 1.9).abs() < 0.01, "{}", record.duration);
    }
    assert!(records.take(Duration::ZERO).is_empty(), "a call is told once");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_recorded_to_its_end() {
    let read = async |script: &[Result<&'static str, ErrorKind>], pieces: usize| {
        let client = Script::of(script);
        let recorder = Recorder::new();
        let stream = recorder.scope(|| client.stream(LlmRequest::new().with_prompt("x"))).await.unwrap();
        let _: Vec<_> = stream.take(pieces).collect().await;
        recorder.record().unwrap()
    };
    let whole = read(&[Ok("a"), Ok("b"), Ok("c")], 9).await;
    assert_eq!((whole.error.as_ref(), whole.chunks, whole.first_chunk), (None, 3, Some(1.0)));
    assert_eq!((whole.chunk_seconds.as_slice(), whole.duration), ([0.5, 0.5].as_slice(), 2.0));
    assert_eq!((whole.attempts.len(), whole.attempts[0].ended), (1, 2.0));
    let given_up = read(&[Ok("a"), Ok("b"), Ok("c")], 2).await;
    assert_eq!((given_up.error.as_ref().unwrap().kind.as_str(), given_up.chunks), ("cancelled", 1));
    assert_eq!(given_up.attempts[0].attempt.error.as_deref(), Some("cancelled"));
    let broken = read(&[Ok("a"), Err(ErrorKind::StreamInterrupted)], 9).await;
    assert_eq!(broken.error.as_ref().unwrap().kind, "stream_interrupted");
    assert_eq!(broken.attempts[0].attempt.error.as_deref(), Some("stream_interrupted"));
}

#[tokio::test(start_paused = true)]
async fn records_are_dropped_and_counted_rather_than_waited_for() {
    let client = Script::of(&[Ok("m"); 5]);
    let records = client.telemetry().records(2);
    for _ in 0..4 {
        client.generate(LlmRequest::new().with_prompt("x")).await.unwrap();
    }
    assert_eq!(records.dropped(), 2);
    assert_eq!(records.take(Duration::ZERO).len(), 2);
    records.close();
    client.generate(LlmRequest::new().with_prompt("x")).await.unwrap();
    assert!(records.next().await.is_none() && records.is_closed());
}

#[tokio::test]
async fn notices_tell_of_circuits_and_reloads() {
    let document = |router: &str| {
        let text = format!(
            r#"{{"deployments": [{{"name": "a", "provider": "openai", "model": "m", "api_key": "sk-canary",
                "base_url": "http://127.0.0.1:9/v1", "price": {{"input": 1, "output": 1}},
                "circuit": {{"failures": 2, "open_time": 0.05}}}}], "router": {router}}}"#
        );
        crate::config::Config::from_json(text.as_bytes())
    };
    let client = Client::from_config(document("{}").unwrap()).unwrap();
    let notices = Arc::clone(client.telemetry().notices());
    let ask = || LlmRequest::new().with_prompt("secret").with_max_retries(0);
    let kinds = || notices.take().iter().map(|notice| notice.kind.as_str()).collect::<Vec<_>>();
    assert!(!notices.any());
    for _ in 0..4 {
        client.generate(ask()).await.unwrap_err();
    }
    let taken = notices.take();
    let json = serde_json::to_string(&taken).unwrap();
    assert_eq!(
        (taken.len(), taken[0].kind.as_str(), taken[0].deployment.as_str()),
        (1, "circuit_opened", "a")
    );
    assert!(json.contains(r#""level":"warning""#) && !json.contains("secret"), "{json}");
    // The new client goes on with the same notices, and so does one that could not be made.
    drop(client.reloaded(document("{}").unwrap()).unwrap());
    assert_eq!(kinds(), ["reloaded"]);
    let broken = document(r#"{"regions": ["nowhere"]}"#).unwrap();
    assert!(client.reloaded(broken).is_err());
    let failed = notices.take();
    assert_eq!((failed[0].kind.as_str(), failed[0].detail.as_str()), ("reload_failed", "option: regions"));
}

#[tokio::test(start_paused = true)]
async fn a_client_inside_a_call_leaves_the_record_to_the_outer_one() {
    let inner = Script::of(&[Ok("m")]);
    let records = inner.telemetry().records(8);
    let outer = Client::over(Arc::new(inner));
    let record = recorded(&outer, LlmRequest::new().with_prompt("x")).await;
    assert_eq!((record.attempts.len(), record.response_model.as_deref()), (1, Some("m")));
    assert!(records.take(Duration::ZERO).is_empty());
}

/// A provider of one's own that calls a client while it works.
struct Around(Client);

#[async_trait]
impl LlmProvider for Around {
    fn name(&self) -> &str {
        "around"
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        tokio::task::yield_now().await;
        self.0.generate(request).await
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        tokio::task::yield_now().await;
        self.0.stream(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_over_a_provider_hears_of_the_client_that_it_calls() {
    let ask = || LlmRequest::new().with_prompt("x");
    let providers: [fn(Client) -> Arc<dyn LlmProvider>; 2] =
        [|client| Arc::new(client), |client| Arc::new(Around(client))];
    for provider in providers {
        let recorder = Recorder::new();
        let over = recorder.over(provider(Script::of(&[Err(ErrorKind::Overloaded), Ok("m-1")])));
        let call = over.generate(ask());
        assert!(recorder.record().is_none(), "it has not begun");
        call.await.unwrap();
        let record = recorder.record().unwrap();
        assert_eq!((record.attempts.len(), record.response_model.as_deref()), (2, Some("m-1")));
        assert_eq!(record.response_model_label.as_deref(), Some("m-1"));

        let recorder = Recorder::new();
        let over = recorder.over(provider(Script::of(&[Ok("a"), Ok("b")])));
        let chunks: Vec<_> = over.stream(ask()).await.unwrap().collect().await;
        let record = recorder.record().unwrap();
        assert_eq!((chunks.len(), record.chunks, recorder.is_over()), (3, 2, true));

        let recorder = Recorder::new();
        let over = recorder.over(provider(Script::of(&[Ok("never")])));
        let given_up = tokio::time::timeout(Duration::from_millis(100), over.generate(ask())).await;
        assert!(given_up.is_err() && recorder.is_over());
        let record = recorder.record().unwrap();
        assert_eq!(record.attempts[0].attempt.error.as_deref(), Some("cancelled"));
        assert_eq!(record.error.as_ref().unwrap().kind, "cancelled");

        let recorder = Recorder::new();
        drop(recorder.over(provider(Script::of(&[]))).generate(ask()));
        assert!(recorder.record().is_none(), "it never began");
    }
}
