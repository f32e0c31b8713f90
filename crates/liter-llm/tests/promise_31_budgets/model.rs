//! A model that answers with as many tokens as it is told to, and routers with a budget over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use liter_llm::core::clock::MonotonicClock;
use liter_llm::core::provider::ChunkStream;
use liter_llm::core::route::{RouteOptions, Standing, Stands};
use liter_llm::resilience::attempts::Attempts;
use liter_llm::resilience::retry::RetryOptions;
use liter_llm::routing::member::Member;
use liter_llm::routing::options::RouterOptions;
use liter_llm::routing::price::{ListPrice, PriceOptions};
use liter_llm::routing::router::{Deployments, Router, member};
use liter_llm::{
    ErrorKind, LlmChunk, LlmError, LlmProvider, LlmRequest, LlmResponse, Money, Spend, Usage, async_trait,
};
use serde_json::{Value, json};

/// Calls at once.
pub const CALLS: u64 = 200;
/// Runs of the row, and of the test suite.
pub const FULL: usize = 50;
pub const SHORT: usize = 5;
/// The longest answer of a storm, also of one in another process.
pub const LONGEST: u64 = 110;
/// US dollars for a million output tokens: a token costs a millionth.
pub const PRICE: f64 = 1.0;

pub fn runs() -> usize {
    if std::env::var("LITER_LLM_SOAK").is_ok_and(|soak| soak == "1") { FULL } else { SHORT }
}

pub fn sum(tokens: u64) -> Money {
    Money::from_parts(tokens * 1_000_000)
}

pub struct Fine;

impl Stands for Fine {
    fn standing(&self) -> Standing {
        Standing::default()
    }
}

/// Answers with as many tokens as the prompt says, after a moment.
#[derive(Default)]
pub struct Model {
    /// Tokens of all answers given.
    pub given: AtomicU64,
    pub answered: AtomicU64,
    /// The tokens of the longest answer.
    pub longest: AtomicU64,
}

impl Model {
    async fn answer(&self, request: &LlmRequest) -> Result<Usage, LlmError> {
        let said = request.messages.last().unwrap().text();
        let mut words = said.split(' ');
        let tokens: u64 = words.next().unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_micros(200 + tokens % 7 * 300)).await;
        match words.next() {
            Some("refused") => {
                Err(LlmError::new(ErrorKind::InvalidRequest, "no")
                    .with(|detail| detail.status_code = Some(400)))
            }
            Some("unsent") => {
                Err(LlmError::new(ErrorKind::CircuitOpen, "no").with(|detail| detail.before_send = true))
            }
            Some("lost") => Err(LlmError::new(ErrorKind::Connection, "lost")),
            Some("never") => std::future::pending().await,
            _ => {
                self.given.fetch_add(tokens, Ordering::SeqCst);
                self.answered.fetch_add(1, Ordering::SeqCst);
                self.longest.fetch_max(tokens, Ordering::SeqCst);
                Ok(Usage { output_tokens: tokens, ..Usage::default() })
            }
        }
    }
}

#[async_trait]
impl LlmProvider for Model {
    fn name(&self) -> &str {
        "model"
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let usage = self.answer(&request).await?;
        Ok(LlmResponse { usage: Some(usage), ..LlmResponse::default() })
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let usage = self.answer(&request).await?;
        let chunks = [LlmChunk::text("x"), LlmChunk::usage(usage), LlmChunk::text("y")];
        Ok(Box::pin(futures_util::stream::iter(chunks.map(Ok))))
    }
}

pub fn deployment(name: &str, model: &Arc<Model>, output: Option<u64>, tags: &[&str]) -> Member {
    let door = Arc::clone(model) as Arc<dyn LlmProvider>;
    let mut member = member(name, door, Arc::new(Fine));
    let price = PriceOptions { output: PRICE, ..PriceOptions::default() };
    member.pricing = Some(Arc::new(ListPrice::from(price)));
    member.capabilities.output = output;
    member.model = format!("{name}-model");
    member.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    member
}

pub fn router(members: Vec<Member>, budget: Value) -> Arc<Router> {
    let options: RouterOptions = serde_json::from_value(json!({ "budget": budget })).unwrap();
    Arc::new(Router::new("router", members, options, Arc::new(MonotonicClock::default())).unwrap())
}

pub fn calls(router: &Arc<Router>) -> Attempts {
    let options = RetryOptions { max_retries: 0, ..RetryOptions::default() };
    Attempts::new(Arc::new(Deployments(Arc::clone(router))), options, Duration::from_secs(60))
}

pub fn ask(tokens: u64, rest: &str) -> LlmRequest {
    LlmRequest::new().with_prompt(format!("{tokens} {rest}"))
}

pub fn keyed(request: LlmRequest, key: &str) -> LlmRequest {
    let route = RouteOptions { key: Some(key.to_owned()), ..RouteOptions::default() };
    request.with(|body| body.route = Some(Box::new(route)))
}

pub fn dollars(tokens: u64) -> f64 {
    sum(tokens).usd()
}

pub fn spend(router: &Router) -> Spend {
    router.spend().unwrap()
}

pub fn spent(router: &Router) -> Money {
    spend(router).budgets[0].spent
}

/// A limit in the middle of what the calls want, refused calls told with what was spent.
pub async fn storm(
    router: &Arc<Router>,
    model: &Model,
    (limit, ceiling): (u64, u64),
    ask: impl Fn(u64) -> LlmRequest,
) {
    let attempts = calls(router);
    let call = async |index: u64| {
        let outcome = match index % 3 {
            0 => match attempts.stream(ask(index)).await {
                Ok(mut chunks) => {
                    while let Some(chunk) = chunks.next().await {
                        chunk.unwrap();
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            },
            _ => attempts.generate(ask(index)).await.map(drop),
        };
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::BudgetExceeded, "{error}");
            let level = &spend(router).budgets[0];
            assert!(level.spent >= sum(limit), "refused although {} of {limit} is spent", level.spent);
        }
        let level = &spend(router).budgets[0];
        let held = level.spent.plus(level.reserved);
        assert!(held <= sum(limit).plus(sum(ceiling)), "{held} spent and reserved");
        let longest = model.longest.load(Ordering::SeqCst).max(LONGEST);
        assert!(level.spent <= sum(limit).plus(sum(longest)), "{} spent", level.spent);
    };
    join_all((0..CALLS).map(call)).await;
}
