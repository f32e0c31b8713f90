//! Row 30: tenants are isolated in the exact cache and in single-flight, and every field of a request that can change
//! its answer is in the key. 10,000 identical and similar bodies from two tenants; 0 cross hits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use liter_llm::core::request::FIELD_NAMES;
use liter_llm::resilience::cache::{Cached, ResponseCache};
use liter_llm::resilience::cache_key::CacheKey;
use liter_llm::{
    CacheOptions, Extra, FinishReason, LlmError, LlmProvider, LlmRequest, LlmResponse, Message, async_trait,
};

const BODIES: usize = 10_000;

/// Answers with whose question it was and what it was; counts.
#[derive(Default)]
struct Provider {
    calls: AtomicUsize,
}

fn answer_to(request: &LlmRequest) -> String {
    let text: Vec<String> = request.messages.iter().map(Message::text).collect();
    format!("{:?} {:?} {:?} {:?}", request.tenant, text, request.temperature, request.seed)
}

#[async_trait]
impl LlmProvider for Provider {
    fn name(&self) -> &str {
        "double"
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        Ok(LlmResponse {
            message: Message::assistant(answer_to(&request)),
            finish_reason: FinishReason::Stop,
            ..LlmResponse::default()
        })
    }
}

fn layer() -> (Arc<Provider>, Arc<Cached>) {
    let provider = Arc::new(Provider::default());
    let cache = Arc::new(ResponseCache::new(CacheOptions::default(), [7; 32], &Extra::new()));
    let layer = Cached::new(Arc::clone(&provider) as Arc<dyn LlmProvider>, cache, Duration::from_secs(60));
    (provider, Arc::new(layer))
}

/// Body number `number`: every fourth is the same as one before, the others differ in one small thing.
fn body(number: usize, tenant: &str) -> LlmRequest {
    let group = number / 4;
    let request =
        LlmRequest::new().with_prompt(format!("question {group}")).with_temperature(0.5).with_tenant(tenant);
    match number % 4 {
        0 | 3 => request,
        1 => request.with_seed(1),
        _ => request.with_temperature(0.25),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_30_two_tenants_never_meet() {
    let (provider, layer) = layer();
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let (layer, wrong) = (Arc::clone(&layer), Arc::clone(&wrong));
        tasks.spawn(async move {
            for number in (worker..BODIES).step_by(8) {
                let (a, b) = (body(number, "tenant-a"), body(number, "tenant-b"));
                let (left, right) = tokio::join!(layer.generate(a.clone()), layer.generate(b.clone()));
                for (request, answer) in [(a, left.unwrap()), (b, right.unwrap())] {
                    if answer.text() != answer_to(&request) {
                        wrong.lock().unwrap().push((number, answer.text()));
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(*wrong.lock().unwrap(), Vec::new());
    // Three different bodies in four, for two tenants: each was asked once, or the cache did not work at all.
    assert_eq!(provider.calls.load(Ordering::Relaxed), BODIES / 4 * 3 * 2);
}

#[tokio::test]
async fn row_30_names_that_run_into_their_neighbours() {
    let (provider, layer) = layer();
    let long = "same-beginning-of-twenty-characters-and-more";
    let mut calls: Vec<(Option<String>, String)> = Vec::new();
    for (tenant, prompt) in [("a", "bc"), ("ab", "c"), ("", "abc"), ("null", "x"), ("\"", "x"), ("a\0", "bc")]
    {
        calls.push((Some(tenant.to_owned()), prompt.to_owned()));
    }
    calls.push((None, "abc".to_owned()));
    calls.push((None, "x".to_owned()));
    for end in 0..100 {
        calls.push((Some(format!("{long}{end}")), "x".to_owned()));
    }
    for (tenant, prompt) in &calls {
        let request =
            LlmRequest::new().with_prompt(prompt.as_str()).with(|body| body.tenant.clone_from(tenant));
        let answer = layer.generate(request.clone()).await.unwrap();
        assert!(!answer.cached, "{tenant:?} {prompt:?}");
        assert_eq!(answer.text(), answer_to(&request));
    }
    assert_eq!(provider.calls.load(Ordering::Relaxed), calls.len());
}

#[test]
fn row_30_deployments_have_keys_of_their_own() {
    let request = LlmRequest::new().with_prompt("x");
    assert!(CacheKey::new(&[1; 32], &request) != CacheKey::new(&[2; 32], &request));
    assert!(CacheKey::new(&[1; 32], &request) == CacheKey::new(&[1; 32], &request));
}

/// Each field of the border form with two values, as JSON. `prompt` and `messages` are the base's own.
fn values() -> HashMap<&'static str, [&'static str; 2]> {
    HashMap::from([
        ("prompt", [r#""one""#, r#""two""#]),
        ("messages", [r#"[{"role":"user","content":"one"}]"#, r#"[{"role":"system","content":"one"}]"#]),
        ("system", [r#""one""#, r#""two""#]),
        ("model", [r#""one""#, r#""two""#]),
        ("max_tokens", ["1", "2"]),
        ("temperature", ["0.1", "0.2"]),
        ("top_p", ["0.1", "0.2"]),
        ("top_k", ["1", "2"]),
        ("stop", [r#"["a","b"]"#, r#"["ab"]"#]),
        ("seed", ["1", "-1"]),
        ("frequency_penalty", ["0.1", "0.2"]),
        ("presence_penalty", ["0.1", "0.2"]),
        (
            "tools",
            [
                r#"[{"name":"f","parameters":{"type":"object"}}]"#,
                r#"[{"name":"f","description":"d","parameters":{"type":"object"}}]"#,
            ],
        ),
        ("tool_choice", [r#""auto""#, r#""none""#]),
        ("parallel_tool_calls", ["true", "false"]),
        ("response_format", [r#""text""#, r#""json""#]),
        ("reasoning_effort", [r#""low""#, r#""high""#]),
        ("reasoning_budget", ["1024", "2048"]),
        ("reasoning_summary", [r#""auto""#, r#""detailed""#]),
        ("logprobs", ["true", "false"]),
        ("top_logprobs", ["0", "1"]),
        ("user", [r#""one""#, r#""two""#]),
        ("metadata", [r#"{"a":"1"}"#, r#"{"a":"2"}"#]),
        ("service_tier", [r#""flex""#, r#""auto""#]),
        ("previous_response_id", [r#""one""#, r#""two""#]),
        ("on_unsupported", [r#""error""#, r#""adjust""#]),
        ("timeout", ["1", "2"]),
        ("max_retries", ["1", "2"]),
        ("tenant", [r#""one""#, r#""two""#]),
        ("cache", ["true", "false"]),
        ("route", [r#"{"regions":["eu"]}"#, r#"{"sticky":"one"}"#]),
        ("headers", [r#"{"x-a":"1"}"#, r#"{"x-a":"2"}"#]),
        ("extra", [r#"{"a":1}"#, r#"{"a":2}"#]),
    ])
}

/// The fields that cannot change an answer: how long and how often to try, and whether the cache is asked at all.
const NOT_IN_THE_KEY: [&str; 3] = ["timeout", "max_retries", "cache"];

#[test]
fn row_30_every_field_is_in_the_key() {
    let values = values();
    let known: HashSet<&str> = FIELD_NAMES.iter().copied().collect();
    assert_eq!(values.keys().copied().collect::<HashSet<_>>(), known, "a field without a decision");
    let key = |json: &str| CacheKey::new(&[0; 32], &LlmRequest::from_json(json.as_bytes()).unwrap()).unwrap();
    for (name, pair) in values {
        let with = |value: &str| match name {
            "prompt" | "messages" => key(&format!(r#"{{"{name}":{value}}}"#)),
            _ => key(&format!(r#"{{"prompt":"x","{name}":{value}}}"#)),
        };
        let same = with(pair[0]) == with(pair[1]);
        assert_eq!(same, NOT_IN_THE_KEY.contains(&name), "`{name}`");
        assert!(with(pair[0]) == with(pair[0]), "`{name}` has no fixed key");
        // Given and absent differ as well, but for a value that is the default.
        let absent = key(r#"{"prompt":"x"}"#);
        let given = with(pair[1]) == absent;
        assert_eq!(given, NOT_IN_THE_KEY.contains(&name), "`{name}` absent");
    }
}

#[test]
fn row_30_small_differences_inside_a_message_count() {
    let text = |content: &str| {
        let json = format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
        CacheKey::new(&[0; 32], &LlmRequest::from_json(json.as_bytes()).unwrap()).unwrap()
    };
    let image = r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"#;
    let contents = [
        r#""x""#.to_owned(),
        r#""x ""#.to_owned(),
        r#"[{"type":"text","text":"x"},{"type":"text","text":""}]"#.to_owned(),
        r#"[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]"#.to_owned(),
        format!(r#"[{image}"AAAA"}}}}]"#),
        format!(r#"[{image}"AAAB"}}}}]"#),
        r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]"#.to_owned(),
        r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]"#
            .to_owned(),
        r#"[{"type":"tool_result","tool_use_id":"1","content":"x"}]"#.to_owned(),
        r#"[{"type":"tool_result","tool_use_id":"1","content":"x","is_error":true}]"#.to_owned(),
    ];
    let keys: HashSet<CacheKey> = contents.iter().map(|content| text(content)).collect();
    assert_eq!(keys.len(), contents.len());
}
