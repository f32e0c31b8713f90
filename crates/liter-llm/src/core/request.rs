//! The one request type of all providers.

use std::ops::Deref;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::content::{Block, Message};
use super::error::LlmError;
use super::json::{Extra, Fields, RawJson, fields, take};
use super::route::RouteOptions;
use super::tools::{ResponseFormat, Tool, ToolChoice};

/// What to do with a parameter the provider does not have.
///
/// ```
/// use liter_llm::{LlmRequest, OnUnsupported};
///
/// let request = LlmRequest::from("Hi").with(|body| body.on_unsupported = OnUnsupported::Adjust);
/// assert_eq!(request.on_unsupported, OnUnsupported::Adjust);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnsupported {
    /// Refuse the call before sending.
    #[default]
    Error,
    /// Leave the parameter out and list it in the answer's `adjustments`.
    Adjust,
}

/// The content of a request. All fields are optional but the messages.
///
/// ```
/// use liter_llm::{LlmRequest, Message, RequestBody};
///
/// let body = RequestBody { messages: vec![Message::user("Hi")], max_tokens: Some(5), ..RequestBody::default() };
/// assert_eq!(LlmRequest::from(body), LlmRequest::from("Hi").with_max_tokens(5));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestBody {
    /// The model, sent verbatim; beats the deployment's own.
    pub model: Option<String>,
    /// Instructions above the conversation.
    pub system: Vec<Block>,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// The most tokens to generate, reasoning included.
    pub max_tokens: Option<u64>,
    /// Sampling temperature; 0 to 2 at OpenAI, 0 to 1 at Anthropic.
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1.
    pub top_p: Option<f64>,
    /// Sample from this many likeliest tokens.
    pub top_k: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Makes sampling repeatable where the provider can.
    pub seed: Option<i64>,
    /// -2 to 2; positive discourages repeating frequent tokens.
    pub frequency_penalty: Option<f64>,
    /// -2 to 2; positive discourages repeating any token.
    pub presence_penalty: Option<f64>,
    /// The tools the model may call.
    pub tools: Vec<Tool>,
    /// Which of them it may or must call.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    pub response_format: Option<ResponseFormat>,
    /// How hard to think: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, as the provider has it.
    pub reasoning_effort: Option<String>,
    /// The most tokens to think with (Anthropic's `budget_tokens`).
    pub reasoning_budget: Option<u64>,
    /// `auto`, `concise` or `detailed`: ask for a summary of the reasoning.
    pub reasoning_summary: Option<String>,
    /// Whether to return the log probabilities of the tokens.
    pub logprobs: Option<bool>,
    /// How many alternatives to each token, 0 to 20.
    pub top_logprobs: Option<u32>,
    /// The end user's id.
    pub user: Option<String>,
    /// Labels stored with the answer.
    pub metadata: Option<RawJson>,
    /// The provider's service tier, for instance `flex`.
    pub service_tier: Option<String>,
    /// OpenAI Responses: continue from a stored answer.
    pub previous_response_id: Option<String>,
    /// What to do with a parameter the provider does not have.
    pub on_unsupported: OnUnsupported,
    /// The limit for the whole call in seconds; beats the deployment's own.
    pub timeout: Option<f64>,
    /// Repeats after a failure that may pass; beats the deployment's own. Not sent.
    pub max_retries: Option<u32>,
    /// Whose call this is: cached and shared answers never cross from one tenant to another. Not sent.
    pub tenant: Option<String>,
    /// `false` keeps this call away from the response cache; `true` refuses the call where the client has none.
    /// Not sent.
    pub cache: Option<bool>,
    /// What the call asks of routing. Not sent.
    pub route: Option<Box<RouteOptions>>,
    /// More HTTP headers for this call.
    pub headers: Vec<(String, String)>,
    /// Vendor fields, put into the body as they are.
    pub extra: Extra,
}

/// A request: cheap to clone, built step by step.
///
/// ```
/// use liter_llm::LlmRequest;
/// let request = LlmRequest::new().with_prompt("Say hello.").with_max_tokens(20).with_temperature(0.2);
/// assert_eq!(request.max_tokens, Some(20));
/// ```
///
/// ```
/// use liter_llm::{LlmRequest, Message, RawJson, ResponseFormat, Tool, ToolChoice};
///
/// let schema = RawJson::parse(r#"{"type": "object"}"#).unwrap();
/// let request = LlmRequest::from("What is the weather in Lima?")
///     .with_message(Message::assistant("In which unit?"))
///     .with_system("Answer briefly.")
///     .with_tool(Tool::function("weather", "The weather in a city.", schema))
///     .with_tool_choice(ToolChoice::Auto)
///     .with_parallel_tool_calls(false)
///     .with_response_format(ResponseFormat::Text)
///     .with_model("gpt-4o")
///     .with_top_p(0.9)
///     .with_seed(7)
///     .with_stop("END")
///     .with_reasoning_effort("low")
///     .with_reasoning_budget(1_000)
///     .with_extra("safety_level", RawJson::from("high"))
///     .with_timeout(30.0)
///     .with_max_retries(1)
///     .with_tenant("customer-7")
///     .with_cache(false)
///     .with(|body| body.user = Some("ana".to_owned()));
/// request.validate()?;
/// assert_eq!(request.with_messages(vec![Message::user("Hi")]).messages.len(), 1);
/// assert_eq!(LlmRequest::from_json(br#"{"prompt": "Hi"}"#)?, LlmRequest::new().with_prompt("Hi"));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LlmRequest(Arc<RequestBody>);

impl Deref for LlmRequest {
    type Target = RequestBody;

    fn deref(&self) -> &RequestBody {
        &self.0
    }
}

impl From<RequestBody> for LlmRequest {
    fn from(body: RequestBody) -> Self {
        Self(Arc::new(body))
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $field:ident = $type:ty;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(self, value: $type) -> Self {
            self.with(|body| body.$field = Some(value.into()))
        })*
    };
}

impl LlmRequest {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes the body.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut RequestBody)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Adds a user message.
    #[must_use]
    pub fn with_prompt(self, prompt: impl Into<String>) -> Self {
        self.with_message(Message::user(prompt))
    }

    /// Adds a message.
    #[must_use]
    pub fn with_message(self, message: Message) -> Self {
        self.with(|body| body.messages.push(message))
    }

    /// Sets the conversation.
    #[must_use]
    pub fn with_messages(self, messages: Vec<Message>) -> Self {
        self.with(|body| body.messages = messages)
    }

    /// Sets the instructions above the conversation.
    #[must_use]
    pub fn with_system(self, system: impl Into<String>) -> Self {
        self.with(|body| body.system = vec![Block::text(system)])
    }

    /// Adds a tool.
    #[must_use]
    pub fn with_tool(self, tool: Tool) -> Self {
        self.with(|body| body.tools.push(tool))
    }

    /// Adds a text that ends the answer.
    #[must_use]
    pub fn with_stop(self, stop: impl Into<String>) -> Self {
        self.with(|body| body.stop.push(stop.into()))
    }

    /// Puts a vendor field into the body as it is.
    #[must_use]
    pub fn with_extra(self, name: impl Into<String>, value: RawJson) -> Self {
        self.with(|body| {
            body.extra.insert(name.into(), value);
        })
    }

    setters! {
        /// Sets the model, sent verbatim.
        with_model: model = &str;
        /// Sets the most tokens to generate.
        with_max_tokens: max_tokens = u64;
        /// Sets the sampling temperature.
        with_temperature: temperature = f64;
        /// Sets nucleus sampling.
        with_top_p: top_p = f64;
        /// Sets the seed.
        with_seed: seed = i64;
        /// Sets which tools may or must be called.
        with_tool_choice: tool_choice = ToolChoice;
        /// Allows or forbids several tool calls at once.
        with_parallel_tool_calls: parallel_tool_calls = bool;
        /// Sets the form of the answer.
        with_response_format: response_format = ResponseFormat;
        /// Sets how hard to think.
        with_reasoning_effort: reasoning_effort = &str;
        /// Sets the most tokens to think with.
        with_reasoning_budget: reasoning_budget = u64;
        /// Sets the limit for the whole call, in seconds.
        with_timeout: timeout = f64;
        /// Sets how often a failed call is sent again.
        with_max_retries: max_retries = u32;
        /// Sets whose call this is, for the response cache.
        with_tenant: tenant = &str;
        /// Lets the response cache answer, or not.
        with_cache: cache = bool;
    }

    /// Reads a request from its border form (`docs/wire.md`). Unknown fields are refused with the nearest name.
    ///
    /// # Errors
    /// `invalid_request` naming the field and the remedy.
    pub fn from_json(json: &[u8]) -> Result<Self, LlmError> {
        let text =
            std::str::from_utf8(json).map_err(|error| bad("request", "is not UTF-8").with_source(error))?;
        let map = fields(text).map_err(|error| bad("request", format!("is not a JSON object: {error}")))?;
        RequestBody::read(map).map(Self::from)
    }

    /// Checks the values every provider agrees on.
    ///
    /// # Errors
    /// `invalid_request` naming the field and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        let finite = [
            ("temperature", self.temperature, 0.0, 2.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
        ];
        for (name, value, low, high) in finite {
            if let Some(value) = value.filter(|value| !(low..=high).contains(value)) {
                return Err(bad(name, format!("{value} is outside {low} to {high}")));
            }
        }
        if self.messages.is_empty() && self.previous_response_id.is_none() {
            return Err(bad("messages", "is empty: give `prompt` or at least one message"));
        }
        if self.max_tokens == Some(0) {
            return Err(bad("max_tokens", "must be at least 1"));
        }
        if let Some(timeout) = self.timeout.filter(|timeout| !(timeout.is_finite() && *timeout > 0.0)) {
            return Err(bad("timeout", format!("{timeout} is not a positive number of seconds")));
        }
        if matches!(&self.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_)))
            && self.tools.is_empty()
        {
            return Err(bad("tool_choice", "asks for a tool, but `tools` is empty"));
        }
        if let Some(ToolChoice::Tool(name)) = &self.tool_choice
            && !self.tools.iter().any(|tool| tool.name == *name)
        {
            return Err(bad("tool_choice", format!("`{name}` is not among `tools`")));
        }
        for (name, value) in &self.headers {
            check_header(name, value)?;
        }
        Ok(())
    }
}

/// Checks a header's name and value before they are sent.
///
/// # Errors
/// `invalid_request` naming the header; never its value, which may be secret.
pub fn check_header(name: &str, value: &str) -> Result<(), LlmError> {
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(bad("headers", format!("`{name}` is not a header name")));
    }
    if http::HeaderValue::from_str(value).is_err() {
        return Err(bad(
            "headers",
            format!("the value of `{name}` holds a line break or another character no header may hold"),
        ));
    }
    Ok(())
}

/// What a JSON error says, without the place, which is one inside the field and means nothing to the caller.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some((name, known)) = text.strip_prefix("unknown field `").and_then(|text| text.split_once("`, "))
    {
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return format!("`{name}` {}", unknown_name(name, &known, &format!("one of {}", known.join(", "))));
    }
    [
        ("u64", "a whole number of at least 0"),
        ("u32", "a whole number of at least 0"),
        ("i64", "a whole number"),
        ("f64", "a number"),
        ("a sequence", "a list"),
        ("a boolean", "true or false"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (rust, plain)| {
        text.replace(&format!("expected {rust}"), &format!("expected {plain}"))
    })
}

fn bad(field: &str, message: impl std::fmt::Display) -> LlmError {
    LlmError::invalid(field, format!("`{field}`: {message}"))
}

/// The names of all fields of the border form.
pub const FIELD_NAMES: &[&str] = &[
    "prompt",
    "messages",
    "system",
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "reasoning_budget",
    "reasoning_summary",
    "logprobs",
    "top_logprobs",
    "user",
    "metadata",
    "service_tier",
    "previous_response_id",
    "on_unsupported",
    "timeout",
    "max_retries",
    "tenant",
    "cache",
    "route",
    "headers",
    "extra",
];

impl RequestBody {
    fn read(mut map: Fields<'_>) -> Result<Self, LlmError> {
        fn get<'a, T: Deserialize<'a>>(map: &mut Fields<'a>, name: &str) -> Result<Option<T>, LlmError> {
            take(map, name).map_err(|error| bad(name, plain(&error)))
        }
        let mut body = Self {
            model: get(&mut map, "model")?,
            max_tokens: get(&mut map, "max_tokens")?,
            temperature: get(&mut map, "temperature")?,
            top_p: get(&mut map, "top_p")?,
            top_k: get(&mut map, "top_k")?,
            seed: get(&mut map, "seed")?,
            frequency_penalty: get(&mut map, "frequency_penalty")?,
            presence_penalty: get(&mut map, "presence_penalty")?,
            parallel_tool_calls: get(&mut map, "parallel_tool_calls")?,
            reasoning_effort: get(&mut map, "reasoning_effort")?,
            reasoning_budget: get(&mut map, "reasoning_budget")?,
            reasoning_summary: get(&mut map, "reasoning_summary")?,
            logprobs: get(&mut map, "logprobs")?,
            top_logprobs: get(&mut map, "top_logprobs")?,
            user: get(&mut map, "user")?,
            metadata: get(&mut map, "metadata")?,
            service_tier: get(&mut map, "service_tier")?,
            previous_response_id: get(&mut map, "previous_response_id")?,
            on_unsupported: get(&mut map, "on_unsupported")?.unwrap_or_default(),
            timeout: get(&mut map, "timeout")?,
            max_retries: get(&mut map, "max_retries")?,
            tenant: get(&mut map, "tenant")?,
            cache: get(&mut map, "cache")?,
            route: get(&mut map, "route")?,
            extra: get(&mut map, "extra")?.unwrap_or_default(),
            ..Self::default()
        };
        if let Some(headers) = get::<indexmap::IndexMap<String, String>>(&mut map, "headers")? {
            body.headers = headers.into_iter().collect();
        }
        if let Some(raw) = get::<&RawValue>(&mut map, "stop")? {
            body.stop = one_or_many(raw, "stop")?;
        }
        if let Some(raw) = get::<&RawValue>(&mut map, "system")? {
            body.system = match raw.get().as_bytes().first() {
                Some(b'"') => vec![Block::text(
                    serde_json::from_str::<String>(raw.get()).map_err(|error| bad("system", error))?,
                )],
                _ => serde_json::from_str(raw.get()).map_err(|error| bad("system", error))?,
            };
        }
        if let Some(prompt) = get::<String>(&mut map, "prompt")? {
            if map.get("messages").is_some_and(|raw| raw.get() != "null") {
                return Err(bad("prompt", "give either `prompt` or `messages`, not both"));
            }
            body.messages.push(Message::user(prompt));
        }
        if let Some(items) = get::<Vec<RawJson>>(&mut map, "messages")? {
            for (index, item) in items.iter().enumerate() {
                body.messages.push(Message::from_json(item).map_err(|error| at(error, "messages", index))?);
            }
        }
        if let Some(items) = get::<Vec<RawJson>>(&mut map, "tools")? {
            for (index, item) in items.iter().enumerate() {
                body.tools.push(Tool::from_json(item).map_err(|error| at(error, "tools", index))?);
            }
        }
        if let Some(raw) = get::<RawJson>(&mut map, "tool_choice")? {
            let (choice, parallel) = ToolChoice::from_json(&raw)?;
            body.tool_choice = Some(choice);
            body.parallel_tool_calls = body.parallel_tool_calls.or(parallel);
        }
        if let Some(raw) = get::<RawJson>(&mut map, "response_format")? {
            body.response_format = Some(ResponseFormat::from_json(&raw)?);
        }
        match map.keys().next() {
            None => Ok(body),
            Some(unknown) => Err(bad(
                unknown,
                unknown_name(unknown, FIELD_NAMES, "a vendor's own field goes into `extra`"),
            )),
        }
    }
}

fn at(error: LlmError, list: &str, index: usize) -> LlmError {
    error.with(|detail| {
        detail.message = format!("{list}[{index}]: {}", detail.message);
        let param = detail.param.take().unwrap_or_default();
        detail.param = Some(format!("{list}[{index}].{param}"));
    })
}

fn one_or_many(raw: &RawValue, name: &str) -> Result<Vec<String>, LlmError> {
    let read = if raw.get().starts_with('"') {
        serde_json::from_str(raw.get()).map(|one| vec![one])
    } else {
        serde_json::from_str(raw.get())
    };
    read.map_err(|_| bad(name, "must be a string or a list of strings"))
}

/// The sentence for a name nobody knows: the nearest known one, and a hint.
#[must_use]
pub fn unknown_name(name: &str, known: &[&str], hint: &str) -> String {
    let nearest = known.iter().min_by_key(|known| distance(name, known));
    match nearest.filter(|known| distance(name, known) <= known.len().max(name.len()) / 2) {
        Some(nearest) => format!("is unknown; did you mean `{nearest}`? ({hint})"),
        None => format!("is unknown ({hint})"),
    }
}

/// Edit distance: insertions, deletions, substitutions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let cost = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Serialize for LlmRequest {
    /// The border form, messages in the neutral form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        macro_rules! optional {
            ($($field:ident),*) => {$(
                if let Some(value) = &self.$field { map.serialize_entry(stringify!($field), value)?; }
            )*};
        }
        macro_rules! list {
            ($($field:ident),*) => {$(
                if !self.$field.is_empty() { map.serialize_entry(stringify!($field), &self.$field)?; }
            )*};
        }
        optional!(model);
        list!(system);
        map.serialize_entry("messages", &self.messages)?;
        optional!(max_tokens, temperature, top_p, top_k);
        list!(stop);
        optional!(seed, frequency_penalty, presence_penalty);
        list!(tools);
        optional!(
            tool_choice,
            parallel_tool_calls,
            response_format,
            reasoning_effort,
            reasoning_budget,
            reasoning_summary,
            logprobs,
            top_logprobs,
            user,
            metadata,
            service_tier,
            previous_response_id,
            timeout,
            max_retries,
            tenant,
            cache,
            route
        );
        if self.on_unsupported != OnUnsupported::Error {
            map.serialize_entry("on_unsupported", &self.on_unsupported)?;
        }
        if !self.headers.is_empty() {
            let headers: indexmap::IndexMap<_, _> = self.headers.iter().cloned().collect();
            map.serialize_entry("headers", &headers)?;
        }
        list!(extra);
        map.end()
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
