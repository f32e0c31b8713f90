//! Writing a request as the body of `POST /responses`.

use serde::Serialize;

use super::super::{Target, WireRequest};
use super::input::is_plain;
use crate::core::content::{Role, wire};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::{Extra, Fields, RawJson, fields};
use crate::core::request::{LlmRequest, OnUnsupported};
use crate::core::response::Adjustment;
use crate::core::tools::{ResponseFormat, Tool, ToolChoice};

/// Writes a comma unless an object or list has just been opened.
pub(super) fn comma(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'{' | b'[') | None) {
        out.push(b',');
    }
}

pub(super) fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), LlmError> {
    serde_json::to_writer(out, value).map_err(|error| {
        LlmError::new(ErrorKind::InvalidRequest, "a value has no JSON form").with_source(error)
    })
}

pub(super) fn key(out: &mut Vec<u8>, name: &str) {
    comma(out);
    // A string always has a JSON form and a vector always takes it.
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
}

pub(super) fn field<T: Serialize + ?Sized>(out: &mut Vec<u8>, name: &str, value: &T) -> Result<(), LlmError> {
    key(out, name);
    put(out, value)
}

/// Writes a field whose value is JSON text already.
pub(super) fn raw(out: &mut Vec<u8>, name: &str, json: &str) {
    key(out, name);
    out.extend_from_slice(json.as_bytes());
}

/// Whether a field of an `extra` is the note of a wire (see this module's parent), not a field to send.
pub(super) fn is_wire(name: &str) -> bool {
    matches!(name, wire::OPENAI_CHAT | wire::OPENAI_RESPONSES | wire::ANTHROPIC)
}

/// Encodes the request.
///
/// `extra` beats every typed field of the same name and is written as it is, with two exceptions: to `text` and
/// `reasoning` the typed parts that it does not name are added (verbosity beside a schema, for instance), and to a
/// list in `include` what typed fields need. `reasoning.encrypted_content` is included by itself when `extra` turns
/// `store` off, because reasoning could not be carried on otherwise. The quirk `max_tokens_field` is about chat
/// completions; here the field is `max_output_tokens` at every host.
pub(super) fn encode(request: &LlmRequest, target: &Target<'_>) -> Result<WireRequest, LlmError> {
    let mut encoder = Encoder { request, adjustments: Vec::new(), foreign: false };
    let body = encoder.body(target)?;
    let adjustments = encoder.adjustments;
    Ok(WireRequest { path: super::PATH, headers: Vec::new(), body, adjustments, creates: creates(request) })
}

/// Whether the answer leaves a mark at the provider that a second one would double: a background run goes on without
/// its caller, and a conversation is written to. A stored response (`store`) is only looked up by its id, which a
/// caller whose connection broke never learns.
fn creates(request: &LlmRequest) -> bool {
    let given = |name: &str| request.extra.get(name).map(RawJson::get);
    given("background") == Some("true") || given("conversation").is_some_and(|value| value != "null")
}

/// Writes one request and lists what it left out.
pub(super) struct Encoder<'a> {
    request: &'a LlmRequest,
    adjustments: Vec<Adjustment>,
    /// Whether what is being written was given in another wire's form.
    pub(super) foreign: bool,
}

impl<'a> Encoder<'a> {
    /// Writes fields without a typed home. Entries named after a wire are that wire's own notes and are skipped;
    /// fields of another wire's form are left out, since this API refuses fields it does not know.
    pub(super) fn extra(&mut self, out: &mut Vec<u8>, extra: &Extra, allowed: impl Fn(&str) -> bool) {
        for (name, value) in extra.iter().filter(|(name, _)| !is_wire(name)) {
            if !self.foreign && allowed(name) {
                raw(out, name, value.get());
            } else {
                self.note(name, "left out: a field of another wire, which OpenAI Responses does not know");
            }
        }
    }

    /// Lists something left out that the caller did not ask for by name, such as another vendor's proofs.
    pub(super) fn note(&mut self, param: &str, reason: &str) {
        if !self.adjustments.iter().any(|known| known.param == param && known.reason == reason) {
            self.adjustments.push(Adjustment::new(param, reason));
        }
    }

    /// Refuses what the API does not have, or leaves it out with the caller's leave.
    pub(super) fn refuse(&mut self, param: &str, message: &str) -> Result<(), LlmError> {
        match self.request.on_unsupported {
            OnUnsupported::Error => Err(LlmError::unsupported(param, format!("`{param}`: {message}"))),
            OnUnsupported::Adjust => {
                self.note(param, &format!("left out: {message}"));
                Ok(())
            }
        }
    }

    fn body(&mut self, target: &Target<'_>) -> Result<Vec<u8>, LlmError> {
        let request = self.request;
        let free = |name: &str| !request.extra.contains_key(name);
        let mut out = Vec::with_capacity(1024);
        out.push(b'{');
        let model = target.model_of(request);
        if free("model") && !model.is_empty() {
            field(&mut out, "model", model)?;
        }
        self.instructions_and_input(&mut out)?;
        if let Some(limit) = request.max_tokens.filter(|_| free("max_output_tokens")) {
            field(&mut out, "max_output_tokens", &limit)?;
        }
        for (name, value) in [("temperature", request.temperature), ("top_p", request.top_p)] {
            if let Some(value) = value.filter(|_| free(name)) {
                field(&mut out, name, &value)?;
            }
        }
        self.unsupported_fields()?;
        if !request.tools.is_empty() && free("tools") {
            self.tools(&mut out)?;
        }
        if let Some(choice) = request.tool_choice.as_ref().filter(|_| free("tool_choice")) {
            self.tool_choice(&mut out, choice)?;
        }
        if let Some(parallel) = request.parallel_tool_calls.filter(|_| free("parallel_tool_calls")) {
            field(&mut out, "parallel_tool_calls", &parallel)?;
        }
        let format = match &request.response_format {
            None => None,
            Some(format) => Some(response_format(format)?),
        };
        self.merged(&mut out, "text", &[("format", format)])?;
        let text = |value: &Option<String>| value.as_deref().map(RawJson::from);
        let reasoning =
            [("effort", text(&request.reasoning_effort)), ("summary", text(&request.reasoning_summary))];
        self.merged(&mut out, "reasoning", &reasoning)?;
        self.include(&mut out)?;
        if let Some(count) = request.top_logprobs.filter(|_| free("top_logprobs")) {
            field(&mut out, "top_logprobs", &count)?;
        }
        if let Some(metadata) = request.metadata.as_ref().filter(|_| free("metadata")) {
            raw(&mut out, "metadata", metadata.get());
        }
        for (name, value) in [
            ("user", &request.user),
            ("service_tier", &request.service_tier),
            ("previous_response_id", &request.previous_response_id),
        ] {
            if let Some(value) = value.as_ref().filter(|_| free(name)) {
                field(&mut out, name, value)?;
            }
        }
        if let Some(stream) = request.extra.get("stream")
            && stream.get() != if target.stream { "true" } else { "false" }
        {
            return Err(LlmError::invalid(
                "extra.stream",
                "`extra.stream` contradicts the call: use the streaming call to stream",
            ));
        }
        if target.stream {
            raw(&mut out, "stream", "true");
        }
        for (name, value) in &request.extra {
            if !matches!(name.as_str(), "text" | "reasoning" | "include" | "stream") {
                raw(&mut out, name, value.get());
            }
        }
        out.push(b'}');
        Ok(out)
    }

    /// The knobs of chat completions and Anthropic that this API does not have.
    fn unsupported_fields(&mut self) -> Result<(), LlmError> {
        const HINT: &str = "OpenAI Responses has no such field; where the host takes it, pass it in `extra`, or use chat completions";
        let request = self.request;
        for (name, set) in [
            ("stop", !request.stop.is_empty()),
            ("seed", request.seed.is_some()),
            ("frequency_penalty", request.frequency_penalty.is_some()),
            ("presence_penalty", request.presence_penalty.is_some()),
            ("top_k", request.top_k.is_some()),
        ] {
            if set && !request.extra.contains_key(name) {
                self.refuse(name, HINT)?;
            }
        }
        if request.reasoning_budget.is_some() {
            self.refuse(
                "reasoning_budget",
                "OpenAI Responses takes no token budget for reasoning; use `reasoning_effort`",
            )?;
        }
        Ok(())
    }

    /// Writes an object field made of typed parts and of `extra`'s object of the same name, which wins.
    fn merged(
        &self,
        out: &mut Vec<u8>,
        name: &str,
        parts: &[(&str, Option<RawJson>)],
    ) -> Result<(), LlmError> {
        let given = self.request.extra.get(name);
        if given.is_none() && parts.iter().all(|(_, part)| part.is_none()) {
            return Ok(());
        }
        let given_map = match given {
            None => None,
            Some(given) => match fields(given.get()) {
                Ok(map) if parts.iter().any(|(_, part)| part.is_some()) => Some(map),
                _ => {
                    raw(out, name, given.get());
                    return Ok(());
                }
            },
        };
        key(out, name);
        out.push(b'{');
        for (part, value) in given_map.iter().flat_map(Fields::iter) {
            raw(out, part, value.get());
        }
        for (part, value) in parts {
            if let Some(value) = value
                && !given_map.as_ref().is_some_and(|map| map.contains_key(part))
            {
                raw(out, part, value.get());
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn include(&self, out: &mut Vec<u8>) -> Result<(), LlmError> {
        let request = self.request;
        let mut wanted = Vec::new();
        if request.extra.get("store").is_some_and(|store| store.get() == "false") {
            wanted.push("reasoning.encrypted_content");
        }
        if request.logprobs.unwrap_or(request.top_logprobs.is_some_and(|count| count > 0)) {
            wanted.push("message.output_text.logprobs");
        }
        let Some(given) = request.extra.get("include") else {
            return if wanted.is_empty() { Ok(()) } else { field(out, "include", &wanted) };
        };
        let Ok(listed) = given.read::<Vec<RawJson>>() else {
            raw(out, "include", given.get());
            return Ok(());
        };
        wanted.retain(|name| !listed.iter().any(|known| known.as_string().as_deref() == Some(name)));
        if wanted.is_empty() {
            raw(out, "include", given.get());
            return Ok(());
        }
        key(out, "include");
        out.push(b'[');
        for known in &listed {
            comma(out);
            out.extend_from_slice(known.get().as_bytes());
        }
        for name in wanted {
            comma(out);
            put(out, name)?;
        }
        out.push(b']');
        Ok(())
    }

    fn tools(&mut self, out: &mut Vec<u8>) -> Result<(), LlmError> {
        key(out, "tools");
        out.push(b'[');
        for tool in &self.request.tools {
            comma(out);
            match tool.verbatim_for(wire::OPENAI_RESPONSES) {
                Some(json) => out.extend_from_slice(json.get().as_bytes()),
                None => self.function_tool(out, tool)?,
            }
        }
        out.push(b']');
        Ok(())
    }

    fn function_tool(&mut self, out: &mut Vec<u8>, tool: &Tool) -> Result<(), LlmError> {
        out.extend_from_slice(br#"{"type":"function""#);
        field(out, "name", &tool.name)?;
        if let Some(description) = &tool.description {
            field(out, "description", description)?;
        }
        // The field is required here; a function without arguments has the empty schema.
        let parameters =
            tool.parameters.as_ref().map_or(r#"{"type":"object","properties":{}}"#, RawJson::get);
        raw(out, "parameters", parameters);
        if let Some(strict) = tool.strict {
            field(out, "strict", &strict)?;
        }
        if tool.cache_control.is_some() {
            self.note_cache_control();
        }
        self.foreign =
            [wire::OPENAI_CHAT, wire::ANTHROPIC].iter().any(|other| tool.verbatim_for(other).is_some());
        self.extra(out, &tool.extra, |_| true);
        self.foreign = false;
        out.push(b'}');
        Ok(())
    }

    pub(super) fn note_cache_control(&mut self) {
        self.note("cache_control", "left out: OpenAI caches prompts by itself and takes no such marker");
    }

    fn tool_choice(&self, out: &mut Vec<u8>, choice: &ToolChoice) -> Result<(), LlmError> {
        match choice {
            ToolChoice::Auto => field(out, "tool_choice", "auto"),
            ToolChoice::None => field(out, "tool_choice", "none"),
            ToolChoice::Required => field(out, "tool_choice", "required"),
            ToolChoice::Vendor(json) => {
                raw(out, "tool_choice", json.get());
                Ok(())
            }
            ToolChoice::Tool(name) => {
                // A custom tool is chosen by type and name, like a function; a hosted one by its type alone.
                let kind = self
                    .request
                    .tools
                    .iter()
                    .find(|tool| tool.is_vendor() && tool.name == *name)
                    .and_then(|tool| fields(tool.verbatim_for(wire::OPENAI_RESPONSES)?.get()).ok())
                    .and_then(|mut map| crate::core::json::take_text(&mut map, "type"))
                    .unwrap_or_else(|| "function".to_owned());
                key(out, "tool_choice");
                out.push(b'{');
                field(out, "type", &kind)?;
                if matches!(kind.as_str(), "function" | "custom") {
                    field(out, "name", name)?;
                }
                out.push(b'}');
                Ok(())
            }
        }
    }

    fn instructions_and_input(&mut self, out: &mut Vec<u8>) -> Result<(), LlmError> {
        let request = self.request;
        let mut items = vec![b'['];
        if !request.system.is_empty() && !request.extra.contains_key("instructions") {
            match request.system.as_slice() {
                [block] if is_plain(block) => {
                    if block.cache_control.is_some() {
                        self.note_cache_control();
                    }
                    field(out, "instructions", block.as_text().unwrap_or_default())?;
                }
                blocks => self.content_message(
                    &mut items,
                    Role::System,
                    &blocks.iter().collect::<Vec<_>>(),
                    &Extra::new(),
                )?,
            }
        }
        for message in &request.messages {
            self.message(&mut items, message)?;
        }
        items.push(b']');
        if items.len() > 2 && !request.extra.contains_key("input") {
            key(out, "input");
            out.extend_from_slice(&items);
        }
        Ok(())
    }
}

/// The `text.format` object; schemas stand flat in it.
fn response_format(format: &ResponseFormat) -> Result<RawJson, LlmError> {
    #[derive(Serialize)]
    struct Schema<'a> {
        r#type: &'a str,
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        schema: &'a RawJson,
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    }
    let written = match format {
        ResponseFormat::Vendor(json) => return Ok(json.clone()),
        ResponseFormat::Text => RawJson::parse(r#"{"type":"text"}"#),
        ResponseFormat::JsonObject => RawJson::parse(r#"{"type":"json_object"}"#),
        ResponseFormat::JsonSchema { name, schema, strict, description } => RawJson::from_value(&Schema {
            r#type: "json_schema",
            name,
            description: description.as_deref(),
            schema,
            strict: *strict,
        }),
    };
    written.map_err(|error| LlmError::invalid("response_format", "has no JSON form").with_source(error))
}
