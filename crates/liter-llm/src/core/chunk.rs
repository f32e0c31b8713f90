//! The pieces of a streamed answer. Folding them gives the whole answer (`fold.rs`).

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::content::Block;
use super::cost::Cost;
use super::json::{Extra, RawJson};
use super::response::{Adjustment, Attempt, FinishReason, Timing, Usage};
use super::route::Route;

/// What a chunk adds to a content block.
///
/// ```
/// use liter_llm::{Delta, LlmChunk};
///
/// let said = |chunk: &LlmChunk| match &chunk.delta {
///     Some(Delta::Text(text)) => text.clone(),
///     _ => String::new(),
/// };
/// assert_eq!(said(&LlmChunk::text("Hello")), "Hello");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Delta {
    /// A new block begins as this (often empty); a block that came whole is all there.
    Start(Box<Block>),
    /// More text of a text or refusal block.
    Text(String),
    /// More reasoning.
    Reasoning(String),
    /// More JSON text of a tool call's arguments.
    Arguments(String),
    /// The signature of a reasoning block, or more of it.
    Signature(String),
    /// One citation of a text block.
    Citation(RawJson),
    /// The block in its final form: replaces what was there.
    Replace(Box<Block>),
}

/// Facts about the whole answer, as they become known.
///
/// ```
/// use liter_llm::{Facts, LlmChunk, fold};
///
/// let facts = Facts { model: Some("gpt-4o".to_owned()), ..Facts::default() };
/// assert_eq!(fold(&[LlmChunk::facts(facts)]).model, "gpt-4o");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The provider's id for the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The model that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's id for the HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The provider's rate-limit headers.
    #[serde(skip_serializing_if = "indexmap::IndexMap::is_empty")]
    pub rate_limits: indexmap::IndexMap<String, String>,
    /// The service tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Log probabilities of the newest tokens: a JSON array, appended to what was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<RawJson>,
    /// What was changed or left out of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adjustments: Vec<Adjustment>,
    /// What was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Where the call could go and why it went where it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<Route>>,
    /// When things happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// What the answer cost, known at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Box<Cost>>,
    /// Whether the answer comes from the response cache.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// Vendor fields of the answer; a later value replaces an earlier one.
    #[serde(skip_serializing_if = "Extra::is_empty")]
    pub extra: Extra,
}

/// One piece of a streamed answer.
///
/// Most are a few words of text and are moved often on their way, so what few of them carry is boxed.
///
/// ```
/// use liter_llm::{Delta, Facts, FinishReason, LlmChunk, Usage, fold};
///
/// let chunks = [
///     LlmChunk::facts(Facts { id: Some("answer-1".to_owned()), ..Facts::default() }),
///     LlmChunk::delta(0, Delta::Text("Hel".to_owned())),
///     LlmChunk::text("lo"),
///     LlmChunk::usage(Usage { output_tokens: 2, ..Usage::default() }),
///     LlmChunk::finish(FinishReason::Stop, None),
/// ];
/// assert!(!chunks[0].has_content() && chunks[1].has_content());
/// assert_eq!(fold(&chunks).text(), "Hello");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LlmChunk {
    /// Which content block `delta` belongs to, counted from 0; `None` continues the last block of its kind.
    pub index: Option<u32>,
    /// What is added.
    pub delta: Option<Delta>,
    /// Why the model stopped, in the chunk that says so.
    pub finish_reason: Option<FinishReason>,
    /// The vendor's own word for it.
    pub raw_finish_reason: Option<String>,
    /// What was consumed; the last one counts.
    pub usage: Option<Box<Usage>>,
    /// Facts about the whole answer.
    pub facts: Option<Box<Facts>>,
}

impl LlmChunk {
    /// A chunk that adds to block `index`.
    #[must_use]
    pub fn delta(index: u32, delta: Delta) -> Self {
        Self { index: Some(index), delta: Some(delta), ..Self::default() }
    }

    /// A chunk of text, continuing the last text block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { delta: Some(Delta::Text(text.into())), ..Self::default() }
    }

    /// The chunk that ends the answer.
    #[must_use]
    pub fn finish(reason: FinishReason, raw: Option<String>) -> Self {
        Self { finish_reason: Some(reason), raw_finish_reason: raw, ..Self::default() }
    }

    /// A chunk with the usage.
    #[must_use]
    pub fn usage(usage: Usage) -> Self {
        Self { usage: Some(Box::new(usage)), ..Self::default() }
    }

    /// A chunk of facts about the whole answer.
    #[must_use]
    pub fn facts(facts: Facts) -> Self {
        Self { facts: Some(Box::new(facts)), ..Self::default() }
    }

    /// True when it carries part of the answer itself (text, reasoning, a tool call, ...), not only facts.
    #[must_use]
    pub const fn has_content(&self) -> bool {
        self.delta.is_some()
    }
}

impl Serialize for LlmChunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(index) = &self.index {
            map.serialize_entry("index", index)?;
        }
        match &self.delta {
            None => {}
            Some(Delta::Start(block)) => map.serialize_entry("start", block)?,
            Some(Delta::Text(text)) => map.serialize_entry("text", text)?,
            Some(Delta::Reasoning(text)) => map.serialize_entry("reasoning", text)?,
            Some(Delta::Arguments(text)) => map.serialize_entry("arguments", text)?,
            Some(Delta::Signature(text)) => map.serialize_entry("signature", text)?,
            Some(Delta::Citation(json)) => map.serialize_entry("citation", json)?,
            Some(Delta::Replace(block)) => map.serialize_entry("replace", block)?,
        }
        if let Some(reason) = &self.finish_reason {
            map.serialize_entry("finish_reason", reason)?;
        }
        if let Some(raw) = &self.raw_finish_reason {
            map.serialize_entry("raw_finish_reason", raw)?;
        }
        if let Some(usage) = &self.usage {
            map.serialize_entry("usage", usage)?;
        }
        if let Some(facts) = &self.facts {
            map.serialize_entry("facts", facts)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LlmChunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Border {
            index: Option<u32>,
            start: Option<Box<Block>>,
            text: Option<String>,
            reasoning: Option<String>,
            arguments: Option<String>,
            signature: Option<String>,
            citation: Option<RawJson>,
            replace: Option<Box<Block>>,
            finish_reason: Option<FinishReason>,
            raw_finish_reason: Option<String>,
            usage: Option<Box<Usage>>,
            facts: Option<Box<Facts>>,
        }
        let border = Border::deserialize(deserializer)?;
        let mut deltas = [
            border.start.map(Delta::Start),
            border.text.map(Delta::Text),
            border.reasoning.map(Delta::Reasoning),
            border.arguments.map(Delta::Arguments),
            border.signature.map(Delta::Signature),
            border.citation.map(Delta::Citation),
            border.replace.map(Delta::Replace),
        ]
        .into_iter()
        .flatten();
        let delta = deltas.next();
        if deltas.next().is_some() {
            return Err(serde::de::Error::custom("a chunk carries at most one delta"));
        }
        Ok(Self {
            index: border.index,
            delta,
            finish_reason: border.finish_reason,
            raw_finish_reason: border.raw_finish_reason,
            usage: border.usage,
            facts: border.facts,
        })
    }
}
