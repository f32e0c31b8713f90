//! Requests as bytes: parameters, tools, the form of the answer; vendor fields last, as they are.

use serde::Serialize;

use super::messages::MessageWriter;
use crate::adapters::{Target, WireRequest};
use crate::core::content::wire;
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::request::{LlmRequest, OnUnsupported};
use crate::core::response::Adjustment;
use crate::core::tools::{ResponseFormat, Tool, ToolChoice};

/// Appends a value as JSON.
pub(super) fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Strings, numbers and raw JSON: writing them to memory cannot fail.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

/// Writes an object field by field.
pub(super) struct Object {
    empty: bool,
}

impl Object {
    pub(super) fn open(out: &mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { empty: true }
    }

    /// Writes a key; its value must follow.
    pub(super) fn key(&mut self, out: &mut Vec<u8>, name: &str) {
        if !std::mem::replace(&mut self.empty, false) {
            out.push(b',');
        }
        json(out, name);
        out.push(b':');
    }

    pub(super) fn field<T: Serialize + ?Sized>(&mut self, out: &mut Vec<u8>, name: &str, value: &T) {
        self.key(out, name);
        json(out, value);
    }

    pub(super) fn close(self, out: &mut Vec<u8>) {
        out.push(b'}');
    }
}

/// What the host cannot do: refused, or left out with the caller's leave.
pub(super) struct Limits<'a> {
    pub(super) provider: &'a str,
    pub(super) mode: OnUnsupported,
    pub(super) adjustments: Vec<Adjustment>,
}

impl Limits<'_> {
    /// Refuses `param`, or notes that it was left out.
    pub(super) fn cannot(&mut self, param: &str, remedy: &str) -> Result<(), LlmError> {
        let provider = self.provider;
        match self.mode {
            OnUnsupported::Error => Err(LlmError::unsupported(
                param,
                format!(
                    "`{param}` is not possible with provider `{provider}` over chat completions: {remedy}"
                ),
            )),
            OnUnsupported::Adjust => {
                self.note(param, format!("left out: not possible over chat completions ({remedy})"));
                Ok(())
            }
        }
    }

    /// Notes what was changed.
    pub(super) fn note(&mut self, param: impl Into<String>, reason: impl Into<String>) {
        self.adjustments.push(Adjustment::new(param, reason));
    }
}

struct Body<'a> {
    request: &'a LlmRequest,
    target: &'a Target<'a>,
    out: Vec<u8>,
    object: Object,
    limits: Limits<'a>,
}

const LEAVE_OUT: &str = "leave it out, or set `on_unsupported` to `adjust`";

pub(super) fn encode(request: &LlmRequest, target: &Target<'_>) -> Result<WireRequest, LlmError> {
    if let Some(stream) = request.extra.get("stream")
        && stream.get() != if target.stream { "true" } else { "false" }
    {
        return Err(LlmError::invalid(
            "extra.stream",
            "`extra.stream` contradicts the call: use `stream()` for a streamed answer, `generate()` for a whole one",
        ));
    }
    let mut out = Vec::with_capacity(1024);
    let object = Object::open(&mut out);
    let limits = Limits { provider: target.provider, mode: request.on_unsupported, adjustments: Vec::new() };
    let mut body = Body { request, target, out, object, limits };
    body.write()?;
    let Body { mut out, object, limits, .. } = body;
    object.close(&mut out);
    Ok(WireRequest {
        path: "/chat/completions",
        headers: Vec::new(),
        body: out,
        adjustments: limits.adjustments,
        creates: false,
    })
}

impl Body<'_> {
    /// Whether `extra` brings the field itself, which then counts.
    fn overridden(&self, field: &str) -> bool {
        self.request.extra.contains_key(field)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        if !self.overridden(name) {
            self.object.field(&mut self.out, name, value);
        }
    }

    fn key(&mut self, name: &str) -> bool {
        let free = !self.overridden(name);
        if free {
            self.object.key(&mut self.out, name);
        }
        free
    }

    /// Writes a parameter when it is set and the host has it.
    fn param<T: Serialize>(&mut self, name: &str, field: &str, value: Option<T>) -> Result<(), LlmError> {
        let Some(value) = value else { return Ok(()) };
        if self.target.quirks.refuses(name) {
            return self.limits.cannot(name, LEAVE_OUT);
        }
        self.field(field, &value);
        Ok(())
    }

    fn write(&mut self) -> Result<(), LlmError> {
        let (request, quirks) = (self.request, self.target.quirks);
        let model = self.target.model_of(request);
        if !model.is_empty() {
            self.field("model", model);
        }
        if self.key("messages") {
            MessageWriter { out: &mut self.out, quirks, limits: &mut self.limits }.write(request)?;
        }
        let max_tokens = or(&quirks.max_tokens_field, "max_tokens");
        self.param("max_tokens", max_tokens, request.max_tokens)?;
        self.param("temperature", "temperature", request.temperature)?;
        self.param("top_p", "top_p", request.top_p)?;
        if request.top_k.is_some() && !quirks.top_k {
            self.limits.cannot("top_k", LEAVE_OUT)?;
        } else {
            self.param("top_k", "top_k", request.top_k)?;
        }
        self.param("stop", "stop", Some(&request.stop).filter(|stop| !stop.is_empty()))?;
        self.param("seed", or(&quirks.seed_field, "seed"), request.seed)?;
        self.param("frequency_penalty", "frequency_penalty", request.frequency_penalty)?;
        self.param("presence_penalty", "presence_penalty", request.presence_penalty)?;
        self.tools()?;
        self.response_format()?;
        self.reasoning()?;
        self.param("logprobs", "logprobs", request.logprobs)?;
        self.param("top_logprobs", "top_logprobs", request.top_logprobs)?;
        self.param("user", "user", request.user.as_ref())?;
        self.param("metadata", "metadata", request.metadata.as_ref())?;
        self.param("service_tier", "service_tier", request.service_tier.as_ref())?;
        if request.previous_response_id.is_some() {
            self.limits.cannot(
                "previous_response_id",
                "only the Responses API continues stored answers (`api=\"responses\"`); send the messages instead",
            )?;
        }
        if self.target.stream {
            self.field("stream", &true);
            if !quirks.no_stream_options && self.key("stream_options") {
                self.out.extend_from_slice(br#"{"include_usage":true}"#);
            }
        }
        for (name, value) in &request.extra {
            self.object.field(&mut self.out, name, value);
        }
        Ok(())
    }

    fn tools(&mut self) -> Result<(), LlmError> {
        let (request, quirks) = (self.request, self.target.quirks);
        if request.tools.is_empty() && !self.overridden("tools") {
            // The wire refuses these two without tools, and they would change nothing.
            if request.tool_choice.is_some() {
                self.limits.note("tool_choice", "left out: there are no tools");
            }
            if request.parallel_tool_calls.is_some() {
                self.limits.note("parallel_tool_calls", "left out: there are no tools");
            }
            return Ok(());
        }
        if !request.tools.is_empty() && quirks.refuses("tools") {
            return self.limits.cannot("tools", LEAVE_OUT);
        }
        if !request.tools.is_empty() && self.key("tools") {
            self.out.push(b'[');
            for (index, tool) in request.tools.iter().enumerate() {
                if index > 0 {
                    self.out.push(b',');
                }
                self.tool(index, tool);
            }
            self.out.push(b']');
        }
        if let Some(choice) = &request.tool_choice {
            if quirks.refuses("tool_choice") {
                self.limits.cannot("tool_choice", LEAVE_OUT)?;
            } else if self.key("tool_choice") {
                match choice {
                    ToolChoice::Auto => json(&mut self.out, "auto"),
                    ToolChoice::None => json(&mut self.out, "none"),
                    ToolChoice::Required => {
                        json(&mut self.out, or(&quirks.required_tool_word, "required"));
                    }
                    ToolChoice::Tool(name) => {
                        self.out.extend_from_slice(br#"{"type":"function","function":{"name":"#);
                        json(&mut self.out, name);
                        self.out.extend_from_slice(b"}}");
                    }
                    ToolChoice::Vendor(form) => json(&mut self.out, form),
                }
            }
        }
        self.param("parallel_tool_calls", "parallel_tool_calls", request.parallel_tool_calls)
    }

    fn tool(&mut self, index: usize, tool: &Tool) {
        if let Some(verbatim) = tool.verbatim_for(wire::OPENAI_CHAT) {
            return json(&mut self.out, verbatim);
        }
        let out = &mut self.out;
        let mut outer = Object::open(out);
        outer.field(out, "type", "function");
        outer.key(out, "function");
        let mut inner = Object::open(out);
        inner.field(out, "name", &tool.name);
        if let Some(description) = &tool.description {
            inner.field(out, "description", description);
        }
        if let Some(parameters) = &tool.parameters {
            inner.field(out, "parameters", parameters);
        }
        if let Some(strict) = &tool.strict {
            inner.field(out, "strict", strict);
        }
        inner.close(out);
        if let Some(marker) = &tool.cache_control {
            if self.target.quirks.cache_control {
                outer.field(out, "cache_control", marker);
            } else {
                self.limits
                    .note(format!("tools[{index}].cache_control"), "left out: the host has no cache markers");
            }
        }
        // A tool written for another wire brings that wire's own switches.
        let foreign =
            [wire::ANTHROPIC, wire::OPENAI_RESPONSES].iter().any(|at| tool.verbatim_for(at).is_some());
        for (name, value) in &tool.extra {
            if foreign {
                self.limits.note(format!("tools[{index}].{name}"), "left out: it belongs to another wire");
            } else if !matches!(name.as_str(), "type" | "function") {
                outer.field(out, name, value);
            }
        }
        outer.close(out);
    }

    fn response_format(&mut self) -> Result<(), LlmError> {
        let Some(format) = &self.request.response_format else { return Ok(()) };
        let quirks = self.target.quirks;
        let schema = matches!(format, ResponseFormat::JsonSchema { .. });
        if schema && quirks.refuses("response_format.json_schema") {
            let remedy = "ask for `json` and describe the form in the prompt";
            return self.limits.cannot("response_format", remedy);
        }
        if quirks.refuses("response_format") {
            return self.limits.cannot("response_format", LEAVE_OUT);
        }
        if !self.key("response_format") {
            return Ok(());
        }
        let out = &mut self.out;
        match format {
            ResponseFormat::Text => out.extend_from_slice(br#"{"type":"text"}"#),
            ResponseFormat::JsonObject => out.extend_from_slice(br#"{"type":"json_object"}"#),
            ResponseFormat::JsonSchema { name, schema, strict, description } => {
                let mut outer = Object::open(out);
                outer.field(out, "type", "json_schema");
                outer.key(out, "json_schema");
                let mut inner = Object::open(out);
                inner.field(out, "name", name);
                if let Some(description) = description {
                    inner.field(out, "description", description);
                }
                inner.field(out, "schema", schema);
                if let Some(strict) = strict {
                    inner.field(out, "strict", strict);
                }
                inner.close(out);
                outer.close(out);
            }
            ResponseFormat::Vendor(form) => json(out, form),
        }
        Ok(())
    }

    fn reasoning(&mut self) -> Result<(), LlmError> {
        let request = self.request;
        let effort = request.reasoning_effort.as_ref();
        if self.target.quirks.reasoning_object {
            let budget = request.reasoning_budget;
            if (effort.is_some() || budget.is_some()) && self.key("reasoning") {
                let out = &mut self.out;
                let mut object = Object::open(out);
                if let Some(effort) = effort {
                    object.field(out, "effort", effort);
                }
                if let Some(budget) = budget {
                    object.field(out, "max_tokens", &budget);
                }
                object.close(out);
            }
        } else {
            self.param("reasoning_effort", "reasoning_effort", effort)?;
            if request.reasoning_budget.is_some() {
                self.limits.cannot("reasoning_budget", "use `reasoning_effort`")?;
            }
        }
        if request.reasoning_summary.is_some() {
            self.limits.cannot("reasoning_summary", "the Responses API has it (`api=\"responses\"`)")?;
        }
        Ok(())
    }
}

/// The quirk's word, or the wire's.
fn or<'a>(quirk: &'a str, usual: &'a str) -> &'a str {
    if quirk.is_empty() { usual } else { quirk }
}

/// Vendor JSON that is a list, as its items.
pub(super) fn items(json: &RawJson) -> Vec<RawJson> {
    json.read().unwrap_or_else(|_| vec![json.clone()])
}
