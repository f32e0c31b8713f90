//! How a host departs from the wire format it speaks: data from `data/providers.toml`, never code per vendor.

use serde::{Deserialize, Serialize};

/// Where a host wants the reasoning of earlier turns back.
///
/// ```
/// use liter_llm::{Quirks, ReasoningEcho};
///
/// let quirks = Quirks { reasoning_echo: ReasoningEcho::ReasoningContent, ..Quirks::default() };
/// assert_ne!(quirks.reasoning_echo, ReasoningEcho::None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningEcho {
    /// Nowhere: it is left out.
    #[default]
    None,
    /// As `reasoning_content` beside `content`.
    ReasoningContent,
    /// As `reasoning` beside `content`.
    Reasoning,
    /// As `reasoning_details`, exactly as they came; plain text as `reasoning`.
    ReasoningDetails,
    /// As parts of the type `thinking` in `content`.
    ThinkingPart,
}

/// The quirks of one host. Each listed one has a test that asserts the bytes sent.
///
/// ```
/// use liter_llm::Quirks;
///
/// let quirks = Quirks { unsupported: vec!["seed".to_owned()], ..Quirks::default() };
/// assert!(quirks.refuses("seed") && !quirks.refuses("temperature"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// The body field that carries `max_tokens`; empty means the wire's usual one.
    pub max_tokens_field: String,
    /// The body field that carries `seed`; empty means `seed`.
    pub seed_field: String,
    /// The word for "some tool must be called"; empty means `required`.
    pub required_tool_word: String,
    /// Effort and budget go as one object, `reasoning: {effort, max_tokens}`.
    pub reasoning_object: bool,
    /// Where the reasoning of earlier turns goes.
    pub reasoning_echo: ReasoningEcho,
    /// Reasoning goes back only in messages with tool calls; the host refuses or ignores it elsewhere.
    pub reasoning_echo_only_with_tools: bool,
    /// Anthropic's `cache_control` markers are understood on text parts and tools.
    pub cache_control: bool,
    /// `stream_options` is not known; usage comes without asking.
    pub no_stream_options: bool,
    /// `top_k` is understood.
    pub top_k: bool,
    /// Documents by URL go as parts of the type `document_url`.
    pub document_url: bool,
    /// Documents by URL go as `file_data`.
    pub file_data_url: bool,
    /// Pictures and documents are understood in tool results.
    pub media_in_tool_results: bool,
    /// Request fields the host refuses, by their name in the request; `response_format.json_schema` for schemas only.
    pub unsupported: Vec<String>,
}

impl Quirks {
    /// Whether the host refuses this request field.
    #[must_use]
    pub fn refuses(&self, param: &str) -> bool {
        self.unsupported.iter().any(|name| name == param)
    }
}
