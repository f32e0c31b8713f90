//! One typed API for every LLM service: OpenAI, Anthropic, Azure OpenAI and compatible hosts.
//!
//! A [`Client`] calls one deployment, a [`ProviderRouter`] one of several; both are an [`LlmProvider`], and so is what
//! you write yourself. Everything a program needs stands here at the top; modules that are not listed are the engine's
//! own and may change with any version.
//!
//! ```
//! use std::sync::Arc;
//! use liter_llm::{Client, LlmError, LlmProvider, LlmRequest, LlmResponse, Message, async_trait};
//!
//! /// A provider of one's own; `ProviderConfig::parse("openai/gpt-4o-mini")` would be one that asks a host.
//! struct Parrot;
//!
//! #[async_trait]
//! impl LlmProvider for Parrot {
//!     fn name(&self) -> &str {
//!         "parrot"
//!     }
//!
//!     async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
//!         let text = request.messages.last().map(Message::text).unwrap_or_default();
//!         Ok(LlmResponse { message: Message::assistant(text), ..LlmResponse::default() })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), LlmError> {
//! let client = Client::over(Arc::new(Parrot));
//! let answer = client.generate(LlmRequest::new().with_prompt("Hello!").with_max_tokens(20)).await?;
//! assert_eq!(answer.text(), "Hello!");
//! # Ok(())
//! # }
//! ```

#[doc(hidden)]
pub mod adapters;
pub mod catalog;
#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod config;
mod config_errors;
#[doc(hidden)]
pub mod core;
#[doc(hidden)]
pub mod credentials;
mod deployment;
mod endpoint;
mod fingerprint;
mod layers;
mod listed;
mod locate;
mod masking;
#[doc(hidden)]
pub mod named;
mod provider_router;
#[doc(hidden)]
pub mod providers;
mod reading;
mod reload;
#[doc(hidden)]
pub mod resilience;
#[doc(hidden)]
pub mod routing;
mod standings;
pub mod telemetry;
#[doc(hidden)]
pub mod transports;

/// Lets a trait have `async` functions: put it on an `impl` of [`LlmProvider`] or [`CustomPolicy`]. It is the macro of
/// the crate `async-trait`.
///
/// ```
/// use liter_llm::{LlmError, LlmProvider, LlmRequest, LlmResponse, async_trait};
///
/// struct Silent;
///
/// #[async_trait]
/// impl LlmProvider for Silent {
///     fn name(&self) -> &str {
///         "silent"
///     }
///
///     async fn generate(&self, _request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         Ok(LlmResponse::default())
///     }
/// }
/// assert_eq!(Silent.name(), "silent");
/// ```
pub use async_trait::async_trait;

pub use crate::adapters::quirks::{Quirks, ReasoningEcho};
pub use crate::catalog::Catalog;
pub use crate::client::{Client, Own};
pub use crate::config::{Api, Config, ProviderConfig, TelemetryOptions, TransportKind};
pub use crate::core::chunk::{Delta, Facts, LlmChunk};
/// ```
/// use liter_llm::{Block, Extra, Message, RawJson, Role};
///
/// let mut question = Message::new(Role::User, vec![Block::text("What is "), Block::text("this?")]);
/// question.content_mut().push(Block::text(" Tell me."));
/// assert_eq!((question.text().as_str(), question.content().len()), ("What is this? Tell me.", 3));
/// let talk = [Message::system("Be brief."), Message::user("Hi"), Message::assistant("Hello")];
/// assert_eq!(talk[2].role(), Role::Assistant);
///
/// let json = RawJson::parse(r#"{"role": "user", "name": "Ana", "content": "Hi"}"#).unwrap();
/// let read = Message::from_json(&json)?;
/// assert_eq!((read.name(), read.extra().len()), (Some("Ana"), 0));
/// assert_eq!(read.verbatim_for("openai_chat"), Some(&json));
/// assert!(read.with_extra(Extra::new()).verbatim_for("openai_chat").is_none());
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
pub use crate::core::content::Message;
pub use crate::core::content::{Block, BlockKind, Media, Reasoning, Role};
pub use crate::core::cost::{Cost, CostPart, Pricing, Unit};
pub use crate::core::error::{ErrorDetail, ErrorKind, FailurePhase, LlmError};
pub use crate::core::fold::{Folder, fold, unfold};
pub use crate::core::json::{Extra, RawJson};
pub use crate::core::notices::{Notice, NoticeKind, Notices};
pub use crate::core::provider::{ChunkStream, LlmProvider, Operation};
pub use crate::core::record::{
    CallRecord, Place, RecordedAttempt, RecordedError, RecordedGaps, RecordedParameters, RecordedRoute,
};
pub use crate::core::request::{LlmRequest, OnUnsupported, RequestBody};
pub use crate::core::response::{
    Adjustment, Attempt, AttemptCause, FinishReason, LlmResponse, Timing, ToolCall, Usage,
};
pub use crate::core::route::{CanaryArm, Route, RouteCandidate, RouteOptions};
pub use crate::core::shared_text::SharedText;
pub use crate::core::tools::{ResponseFormat, Tool, ToolChoice};
pub use crate::layers::Layers;
pub use crate::named::{AnthropicProvider, AzureOpenAiProvider, OpenAiProvider};
pub use crate::provider_router::{ProviderRouter, RouterDeployment};
pub use crate::providers::{Auth, Paths, ProviderRow};
pub use crate::resilience::breaker::Circuit;
pub use crate::resilience::breakers::DeploymentState;
pub use crate::resilience::options::{CacheOptions, CircuitOptions, HedgeOptions, Toggle};
pub use crate::resilience::quota::RetryQuota;
/// ```
/// use liter_llm::{Decision, GiveUp, LlmError, RetryOptions};
///
/// let refused = LlmError::invalid("prompt", "is empty");
/// let decision = RetryOptions::default().next(0, &refused, None);
/// assert_eq!(decision, Decision::GiveUp(GiveUp::NotRetryable));
/// ```
pub use crate::resilience::retry::Decision;
/// ```
/// use liter_llm::GiveUp;
///
/// assert_eq!(GiveUp::RetriesUsedUp.reason(), Some("retries used up"));
/// ```
pub use crate::resilience::retry::GiveUp;
pub use crate::resilience::retry::{RetryOptions, RetryPlan, retry_async};
pub use crate::routing::budget::{BudgetOptions, BudgetSpend, Spend, SpendOf};
pub use crate::routing::calendar::Per;
pub use crate::routing::canary::{Arms, CanaryOptions, CanaryReport, CanaryState};
pub use crate::routing::custom::{CustomPolicy, PolicyCall, PolicyCandidate, PolicyFailures};
pub use crate::routing::figures::{DeploymentFigures, Heatmap, HeatmapCell, HeatmapRow, RouterFigures};
pub use crate::routing::guard::{ArmReport, Evidence, Factor, GuardOptions};
pub use crate::routing::ledger::{Total, Window};
pub use crate::routing::mirror::{MirrorOptions, MirrorReport};
pub use crate::routing::money::Money;
pub use crate::routing::options::RouterOptions;
pub use crate::routing::price::PriceOptions;
pub use crate::routing::stats::Figures;

/// The Rust on the pages for people runs with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
#[doc = include_str!("../../../README.md")]
pub struct Pages;
