//! The one answer type of all providers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::content::{Block, BlockKind, Message, Role};
use super::cost::Cost;
use super::json::{Extra, RawJson};
use super::route::Route;

/// Why the model stopped.
///
/// ```
/// use liter_llm::{FinishReason, LlmResponse};
///
/// let answer = LlmResponse { finish_reason: FinishReason::Length, ..LlmResponse::default() };
/// assert!(answer.finish_reason != FinishReason::Stop, "the answer is cut off");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// It was done, or met a stop text.
    Stop,
    /// The token limit.
    Length,
    /// It wants tools called.
    ToolCalls,
    /// A content filter, or a refusal.
    ContentFilter,
    /// The provider failed.
    Error,
    /// A reason of the vendor's own; see `raw_finish_reason`.
    #[default]
    Other,
}

/// What the call consumed, in tokens.
///
/// ```
/// use liter_llm::Usage;
///
/// let usage = Usage { input_tokens: 1_000, cache_read_input_tokens: 900, ..Usage::default() };
/// assert_eq!(usage.input_tokens - usage.cache_read_input_tokens, 100);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub input_tokens: u64,
    /// All output tokens, reasoning included.
    pub output_tokens: u64,
    /// Input tokens read from the provider's prompt cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_input_tokens: u64,
    /// Input tokens written to the provider's prompt cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_creation_input_tokens: u64,
    /// Of those, the ones that are kept for an hour.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_creation_1h_input_tokens: u64,
    /// Audio among the input tokens.
    #[serde(skip_serializing_if = "is_zero")]
    pub audio_input_tokens: u64,
    /// Audio among the output tokens.
    #[serde(skip_serializing_if = "is_zero")]
    pub audio_output_tokens: u64,
    /// Searches of the web that the provider made for the answer and bills apart.
    #[serde(skip_serializing_if = "is_zero")]
    pub web_search_requests: u64,
    /// Output tokens spent on reasoning.
    #[serde(skip_serializing_if = "is_zero")]
    pub reasoning_output_tokens: u64,
    /// Other counts of the vendor's (audio, predictions, tool use, ...), under its own names.
    #[serde(skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Something that was changed or left out of the request, with the caller's leave.
///
/// ```
/// use liter_llm::Adjustment;
///
/// let left_out = Adjustment::new("seed", "left out: the provider has no seed");
/// assert_eq!(left_out.param, "seed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// The request field.
    pub param: String,
    /// What was done and why, as a sentence.
    pub reason: String,
}

impl Adjustment {
    /// Names the field and what was done.
    #[must_use]
    pub fn new(param: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { param: param.into(), reason: reason.into() }
    }
}

/// Why a request was sent beside or after another one for the same call.
///
/// ```
/// use liter_llm::{Attempt, AttemptCause};
///
/// let second = Attempt { cause: Some(AttemptCause::Hedge), ..Attempt::default() };
/// assert_ne!(second.cause, Some(AttemptCause::Retry));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptCause {
    /// The one before failed: the same deployment again.
    Retry,
    /// The one before failed: another deployment.
    Fallback,
    /// The one before never got through, or its token was refused: sent again at once, within the same attempt.
    Resend,
    /// The first one was slow: a second one beside it.
    Hedge,
}

/// One request that was sent for a call, and what came of it.
///
/// ```
/// use liter_llm::{Attempt, LlmResponse};
///
/// fn was_slow(answer: &LlmResponse) -> bool {
///     answer.attempts.iter().any(|attempt| attempt.duration + attempt.wait.unwrap_or(0.0) > 5.0)
/// }
///
/// let attempts = vec![Attempt { deployment: "a".to_owned(), duration: 7.5, ..Attempt::default() }];
/// assert!(was_slow(&LlmResponse { attempts, ..LlmResponse::default() }));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// The deployment it went to.
    pub deployment: String,
    /// The HTTP status, when an answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Seconds from the call's beginning to the sending.
    pub started: f64,
    /// Seconds from sending to the answer (for a stream: to its first chunk) or the failure.
    pub duration: f64,
    /// Why it was sent beside or after another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<AttemptCause>,
    /// Seconds it waited in line for the deployment's limits before it was sent; `None` when there was no line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<f64>,
    /// Seconds it took to connect; `None` over a connection that was open, and through a proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<f64>,
    /// Seconds from sending to the answer's headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<f64>,
    /// Seconds waited before it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<f64>,
    /// The error kind when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it was sent again or elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "so serde calls it")]
fn not_yet(seconds: &f64) -> bool {
    *seconds <= 0.0
}

/// When things happened to the request that was answered, in seconds since it was begun: a connection and a token for
/// it count, earlier attempts and the waits between them (`attempts`) do not. An answer from the cache has `total` only,
/// counted from the call's beginning.
///
/// ```
/// use liter_llm::Timing;
///
/// let timing = Timing { first_byte: Some(0.3), first_chunk: Some(0.4), total: 2.4, ..Timing::default() };
/// assert!(timing.total - timing.first_chunk.unwrap() > 1.9);
/// let begun = Timing { first_byte: Some(0.25), ..Timing::default() };
/// assert_eq!(serde_json::to_string(&begun).unwrap(), r#"{"first_byte":0.25}"#);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// How long it waited in line for the deployment's limits before that; `None` when there was no line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<f64>,
    /// How long connecting took; `None` over a connection that was open, and through a proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<f64>,
    /// When the answer's headers were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<f64>,
    /// When the first content was there (streams).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_chunk: Option<f64>,
    /// When all was there; of a stream, when its last piece was handed over to its reader. 0 while that is not known,
    /// in the facts that begin a stream and in a part of an answer; JSON leaves it out then.
    #[serde(skip_serializing_if = "not_yet")]
    pub total: f64,
}

/// An answer.
///
/// ```
/// use liter_llm::{Block, LlmResponse, Message, Reasoning, Role};
///
/// let thought = Reasoning { text: "It is sunny there.".to_owned(), ..Reasoning::default() };
/// let blocks = vec![
///     Block::reasoning(thought),
///     Block::text("I will look it up."),
///     Block::tool_call("call_1", "weather", r#"{"city": "Lima"}"#),
/// ];
/// let answer = LlmResponse { message: Message::new(Role::Assistant, blocks), ..LlmResponse::default() };
/// assert_eq!(answer.text(), "I will look it up.");
/// assert_eq!(answer.reasoning(), "It is sunny there.");
/// assert_eq!(answer.tool_calls()[0].name, "weather");
/// assert_eq!(answer.refusal(), None);
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct LlmResponse {
    /// The provider's id for the answer.
    pub id: String,
    /// The model that answered, in the provider's words.
    pub model: String,
    /// The provider's name.
    pub provider: String,
    /// The answer; append it to the conversation as it is.
    pub message: Message,
    /// Why the model stopped.
    pub finish_reason: FinishReason,
    /// The vendor's own word for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_finish_reason: Option<String>,
    /// What the call consumed; `None` when the provider did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it cost by the catalogue; `None` when the usage, the model or a price is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Box<Cost>>,
    /// The provider's id for the HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The provider's rate-limit headers, lower case.
    #[serde(skip_serializing_if = "indexmap::IndexMap::is_empty")]
    pub rate_limits: indexmap::IndexMap<String, String>,
    /// The service tier that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Log probabilities, in the provider's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<RawJson>,
    /// What was changed or left out of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adjustments: Vec<Adjustment>,
    /// What was sent, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Where the call could go and why it went where it went; `None` where there was no choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<Route>>,
    /// When things happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Whether the answer comes from the response cache or from an identical call that was in flight.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Vendor fields without a typed home.
    #[serde(skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
    /// The provider's own bytes; empty for streams. Not part of the border form: it travels beside it.
    #[serde(skip)]
    pub raw: Bytes,
}

impl Default for LlmResponse {
    fn default() -> Self {
        Self {
            id: String::new(),
            model: String::new(),
            provider: String::new(),
            message: Message::new(Role::Assistant, Vec::new()),
            finish_reason: FinishReason::Other,
            raw_finish_reason: None,
            usage: None,
            cost: None,
            request_id: None,
            rate_limits: indexmap::IndexMap::new(),
            service_tier: None,
            logprobs: None,
            adjustments: Vec::new(),
            attempts: Vec::new(),
            route: None,
            timing: None,
            cached: false,
            extra: Extra::new(),
            raw: Bytes::new(),
        }
    }
}

impl PartialEq for LlmResponse {
    /// Equality of what was answered; how it came (timing, attempts, request id, rate limits, raw bytes) and what it cost
    /// are ignored.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.model == other.model
            && self.provider == other.provider
            && self.message == other.message
            && self.finish_reason == other.finish_reason
            && self.raw_finish_reason == other.raw_finish_reason
            && self.usage == other.usage
            && self.service_tier == other.service_tier
            && self.logprobs == other.logprobs
            && self.adjustments == other.adjustments
            && self.extra == other.extra
    }
}

/// A tool call in an answer.
///
/// ```
/// use liter_llm::{Block, LlmResponse, Message, Role, ToolCall};
///
/// let blocks = vec![Block::tool_call("call_1", "weather", r#"{"city": "Lima"}"#)];
/// let answer = LlmResponse { message: Message::new(Role::Assistant, blocks), ..LlmResponse::default() };
/// let ToolCall { id, name, arguments } = answer.tool_calls()[0];
/// let arguments: serde_json::Value = serde_json::from_str(arguments).unwrap();
/// assert_eq!((id, name, arguments["city"].as_str()), ("call_1", "weather", Some("Lima")));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolCall<'a> {
    /// The id the result must name.
    pub id: &'a str,
    /// The tool's name.
    pub name: &'a str,
    /// The arguments as the JSON text the model wrote.
    pub arguments: &'a str,
}

impl LlmResponse {
    /// The text of the answer; empty when there is none.
    #[must_use]
    pub fn text(&self) -> String {
        self.message.text()
    }

    /// The visible reasoning; empty when there is none.
    #[must_use]
    pub fn reasoning(&self) -> String {
        self.blocks()
            .filter_map(|block| match &block.kind {
                BlockKind::Reasoning(reasoning) => Some(reasoning.text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// The model's refusal, when it declined.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.blocks().find_map(|block| match &block.kind {
            BlockKind::Refusal { text } => Some(text.as_str()),
            _ => None,
        })
    }

    /// The tools the model wants called.
    #[must_use]
    pub fn tool_calls(&self) -> Vec<ToolCall<'_>> {
        self.blocks()
            .filter_map(|block| match &block.kind {
                BlockKind::ToolCall { id, name, arguments } => Some(ToolCall { id, name, arguments }),
                _ => None,
            })
            .collect()
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.message.content().iter()
    }
}
