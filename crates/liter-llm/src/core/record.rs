//! The record of a call: what operators see of it. No prompt, no answer, no secret.

use serde::{Deserialize, Serialize};

use super::response::{Attempt, FinishReason, Timing, Usage};
use super::route::CanaryArm;
use super::shared_text::SharedText;

/// What the request asked for, as far as it is fit for telemetry.
///
/// ```
/// use liter_llm::RecordedParameters;
///
/// let asked = RecordedParameters { messages: 1, prompt_len: 12, ..RecordedParameters::default() };
/// assert_eq!(asked.max_tokens, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedParameters {
    /// The most tokens to generate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Sampling temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sample from this many likeliest tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u64>,
    /// Texts that end the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// The seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// The frequency penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// The presence penalty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// How hard to think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// The service tier asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The stored answer the call continues from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_response_id: Option<String>,
    /// `json` when the answer is to be JSON, else `text`.
    pub output_type: SharedText,
    /// How many messages.
    pub messages: usize,
    /// How many tools.
    pub tools: usize,
    /// Bytes of text in instructions and conversation.
    pub prompt_len: usize,
}

/// Where requests of a deployment go.
///
/// ```
/// use liter_llm::Place;
/// let place = Place { deployment: "eu".into(), provider: "openai".into(), ..Place::default() };
/// assert_eq!(place.region, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The deployment's name.
    pub deployment: SharedText,
    /// Who hosts it, as `gen_ai.provider.name` of the OpenTelemetry GenAI conventions has it.
    pub provider: SharedText,
    /// Its model; empty when each call names one.
    #[serde(skip_serializing_if = "is_empty")]
    pub model: SharedText,
    /// Its region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<SharedText>,
    /// The host's name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_address: Option<SharedText>,
    /// The host's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_port: Option<u16>,
}

impl Place {
    /// The model that this deployment is asked for: among several, a call may name one by its deployment's name or as
    /// `provider/model`.
    pub(crate) fn model_asked<'a>(&'a self, asked: &'a str, several: bool) -> &'a str {
        let means = || {
            let after = asked.split_once('/').map(|(_, model)| model);
            several && (*asked == *self.deployment || after == Some(&*self.model))
        };
        if !self.model.is_empty() && (asked.is_empty() || means()) { &self.model } else { asked }
    }
}

/// A request that was sent, and where to.
///
/// ```
/// use liter_llm::{Attempt, RecordedAttempt};
///
/// let attempt = Attempt { started: 1.0, duration: 0.5, ..Attempt::default() };
/// let recorded = RecordedAttempt { attempt, ended: 2.0, ..RecordedAttempt::default() };
/// assert!(recorded.ended >= recorded.attempt.started + recorded.attempt.duration, "a stream went on");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedAttempt {
    /// What came of it. `started` counts from the call's beginning.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// When it was over, in seconds since the call's beginning: of a stream that is its end, not its first chunk.
    pub ended: f64,
    /// Who hosts the deployment.
    pub provider: SharedText,
    /// The model asked for.
    #[serde(skip_serializing_if = "is_empty")]
    pub model: SharedText,
    /// The deployment's region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<SharedText>,
    /// The host's name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_address: Option<SharedText>,
    /// The host's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_port: Option<u16>,
}

/// Why a call failed. The provider's own words are not here: they may quote the prompt.
///
/// ```
/// use liter_llm::RecordedError;
///
/// let error = RecordedError { kind: "rate_limited".to_owned(), status: Some(429), ..RecordedError::default() };
/// assert!(!error.before_send);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedError {
    /// The error's kind; `cancelled` for a call that was given up, a stream that was not read to its end among them.
    pub kind: String,
    /// The HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's own error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether nothing was sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub before_send: bool,
}

/// Why a call went where it went, in short.
///
/// ```
/// use liter_llm::RecordedRoute;
///
/// let route = RecordedRoute { policy: "latency".to_owned(), ..RecordedRoute::default() };
/// assert!(route.notes.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedRoute {
    /// The policy that put the candidates in order.
    pub policy: String,
    /// Whose call it is where a canary is compared with the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<CanaryArm>,
    /// Remarks: a canary's arm, a degraded budget, a policy that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Times between pieces of a long stream: not each, but how many of which length.
///
/// ```
/// use liter_llm::RecordedGaps;
///
/// let mut gaps = RecordedGaps::default();
/// gaps.add(0.01);
/// gaps.add(0.011);
/// gaps.add(100.0);
/// assert_eq!((gaps.buckets[0], gaps.buckets[1], gaps.buckets[14]), (1, 1, 1));
/// assert_eq!(RecordedGaps::BOUNDS[1], 0.02);
/// assert!(gaps.count() == 3 && gaps.seconds > 100.0);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedGaps {
    /// How many were at most as long as each of the [`BOUNDS`](Self::BOUNDS) and longer than the one before; the last
    /// number is of those that were longer than all.
    pub buckets: [u64; 15],
    /// Their sum in seconds.
    pub seconds: f64,
}

impl RecordedGaps {
    /// Seconds, as the OpenTelemetry GenAI conventions advise for durations of calls and times of chunks.
    pub const BOUNDS: [f64; 14] =
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

    /// Counts a gap of so many seconds.
    pub fn add(&mut self, seconds: f64) {
        let bucket = Self::BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(Self::BOUNDS.len());
        self.buckets[bucket] += 1;
        self.seconds += seconds;
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One call, from its beginning to its end: what traces, metrics and logs are made of.
///
/// ```
/// use liter_llm::CallRecord;
///
/// let line = |record: &CallRecord| {
///     let outcome = record.error.as_ref().map_or("ok", |error| &error.kind);
///     format!("{} {} {outcome} {:.3} s", record.operation, record.deployment, record.duration)
/// };
/// let record = CallRecord { operation: "chat".into(), duration: 0.25, ..CallRecord::default() };
/// assert_eq!(line(&record), "chat  ok 0.250 s");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallRecord {
    /// What was done: `chat`, or the operation's name.
    pub operation: SharedText,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// When the call began, in seconds since 1970-01-01 UTC.
    pub started: f64,
    /// Seconds from its beginning to its end; of a stream, to the end of its reading.
    pub duration: f64,
    /// The deployment that answered or failed last; empty when none was called.
    pub deployment: SharedText,
    /// Who hosts it, as `gen_ai.provider.name` of the OpenTelemetry GenAI conventions has it.
    pub provider: SharedText,
    /// The model asked for.
    pub model: SharedText,
    /// `model` as a label of a metric: a name that is new when many are known is `other`.
    pub model_label: SharedText,
    /// The deployment's region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<SharedText>,
    /// The host's name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_address: Option<SharedText>,
    /// The host's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_port: Option<u16>,
    /// What was asked for.
    pub parameters: RecordedParameters,
    /// Whose budget the call is charged to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The model that answered, in the provider's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_model: Option<SharedText>,
    /// `response_model` as a label of a metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_model_label: Option<SharedText>,
    /// The provider's id for the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The provider's id for the HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Why the model stopped; `None` when it did not come to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// The service tier that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// What was consumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it cost in US dollars; `None` when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Whether the answer came from the response cache or from an identical call in flight.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Whether the client has a response cache, and the answer did not come from it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cache_missed: bool,
    /// The request fields that were changed or left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adjusted: Vec<String>,
    /// Why it failed; `None` when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RecordedError>,
    /// Why it went where it went; `None` where there was no choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RecordedRoute>,
    /// When things happened to the request that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// Seconds from the call's beginning to the first piece of a streamed answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_chunk: Option<f64>,
    /// How many pieces a streamed answer had.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunks: u64,
    /// Seconds between one piece of a streamed answer and the next; of the first 1,024 gaps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chunk_seconds: Vec<f32>,
    /// The gaps after those, counted; `None` when there were none. A record is of bounded size, however long the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_rest: Option<Box<RecordedGaps>>,
    /// What was sent, oldest first.
    pub attempts: Vec<RecordedAttempt>,
}

impl CallRecord {
    /// The most gaps that [`chunk_seconds`](Self::chunk_seconds) holds.
    pub(crate) const MOST_GAPS: usize = 1_024;

    /// Notes the time between two pieces of a streamed answer, in seconds.
    pub(crate) fn gap(&mut self, seconds: f32) {
        match self.chunk_seconds.len() < Self::MOST_GAPS {
            true => self.chunk_seconds.push(seconds),
            false => self.chunk_rest.get_or_insert_default().add(f64::from(seconds)),
        }
    }
}

fn is_empty(text: &SharedText) -> bool {
    text.as_str().is_empty()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}
