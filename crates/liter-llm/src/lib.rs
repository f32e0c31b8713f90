//! One typed API for every LLM service: OpenAI, Anthropic, Azure OpenAI and compatible hosts.

pub mod adapters;
pub mod catalog;
pub mod client;
pub mod config;
mod config_errors;
pub mod core;
pub mod credentials;
mod deployment;
mod endpoint;
mod fingerprint;
mod listed;
mod locate;
mod masking;
pub mod named;
pub mod providers;
mod reading;
mod reload;
pub mod resilience;
pub mod routing;
pub mod transports;

pub use async_trait::async_trait;

pub use crate::client::Client;
pub use crate::config::{Api, Config, ProviderConfig, TransportKind};
pub use crate::core::chunk::{Delta, Facts, LlmChunk};
pub use crate::core::content::{Block, BlockKind, Media, Message, Reasoning, Role};
pub use crate::core::cost::{Cost, CostPart, Pricing, Unit};
pub use crate::core::error::{ErrorDetail, ErrorKind, FailurePhase, LlmError};
pub use crate::core::fold::{Folder, fold, unfold};
pub use crate::core::json::{Extra, RawJson};
pub use crate::core::provider::{ChunkStream, LlmProvider, Operation};
pub use crate::core::request::{LlmRequest, OnUnsupported, RequestBody};
pub use crate::core::response::{Adjustment, Attempt, FinishReason, LlmResponse, Timing, ToolCall, Usage};
pub use crate::core::tools::{ResponseFormat, Tool, ToolChoice};
pub use crate::named::{AnthropicProvider, AzureOpenAiProvider, OpenAiProvider};
pub use crate::resilience::breaker::Circuit;
pub use crate::resilience::breakers::DeploymentState;
pub use crate::resilience::options::{CacheOptions, CircuitOptions, HedgeOptions, Toggle};
pub use crate::resilience::quota::RetryQuota;
pub use crate::resilience::retry::{RetryOptions, RetryPlan, retry_async};
pub use crate::routing::budget::{BudgetOptions, BudgetSpend, Spend, SpendOf};
pub use crate::routing::calendar::Per;
pub use crate::routing::ledger::{Total, Window};
pub use crate::routing::money::Money;
pub use crate::routing::price::PriceOptions;
