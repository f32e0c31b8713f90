//! Requests: the parameters of an [`LlmRequest`] in Anthropic's form. Messages and blocks are in `blocks`.

use super::super::{Target, WireRequest};
use super::blocks;
use super::body::Body;
use super::{Thinking, thinking_of};
use crate::core::content::wire;
use crate::core::error::LlmError;
use crate::core::json::{RawJson, fields};
use crate::core::request::{LlmRequest, OnUnsupported};
use crate::core::response::Adjustment;
use crate::core::tools::{ResponseFormat, Tool, ToolChoice};

/// Sent when the caller sets no limit: the API has no default of its own.
const DEFAULT_MAX_TOKENS: u64 = 4096;

/// The least the API takes as `budget_tokens`.
const LEAST_BUDGET: u64 = 1024;

/// The beta that lets messages refer to uploaded files.
const FILES_BETA: &str = "files-api-2025-04-14";

/// One request being written.
pub(super) struct Encoder<'a> {
    pub(super) request: &'a LlmRequest,
    pub(super) model: &'a str,
    pub(super) body: Body,
    pub(super) adjustments: Vec<Adjustment>,
    /// Whether a message refers to an uploaded file.
    pub(super) uses_files: bool,
}

pub(super) fn encode(request: &LlmRequest, target: &Target<'_>) -> Result<WireRequest, LlmError> {
    let mut encoder = Encoder {
        request,
        model: target.model_of(request),
        body: Body::with_capacity(1024),
        adjustments: Vec::new(),
        uses_files: false,
    };
    encoder.write(target)?;
    let mut headers = Vec::with_capacity(2);
    if header(request, "anthropic-version").is_none() {
        headers.push(("anthropic-version", "2023-06-01".to_owned()));
    }
    let mut betas = header(request, "anthropic-beta").unwrap_or_default();
    if encoder.uses_files && !betas.contains("files-api-") {
        if !betas.is_empty() {
            betas.push(',');
        }
        betas.push_str(FILES_BETA);
    }
    if !betas.is_empty() {
        headers.push(("anthropic-beta", betas));
    }
    Ok(WireRequest {
        path: "/v1/messages",
        headers,
        body: encoder.body.into_bytes(),
        adjustments: encoder.adjustments,
        creates: false,
    })
}

/// What the request's own headers say under this name, joined when it stands there more than once.
fn header(request: &LlmRequest, name: &str) -> Option<String> {
    let values: Vec<&str> = request
        .headers
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// What to write into `thinking`.
#[derive(Debug, PartialEq)]
enum Plan {
    Absent,
    Disabled,
    Adaptive,
    Budget(u64),
}

impl Encoder<'_> {
    pub(super) fn adjust(&mut self, param: impl Into<String>, reason: impl Into<String>) {
        self.adjustments.push(Adjustment::new(param, reason));
    }

    /// Refuses the call, or, with the caller's leave, notes what is left out or changed.
    fn refuse(&mut self, param: &str, reason: impl Into<String>) -> Result<(), LlmError> {
        let reason = reason.into();
        match self.request.on_unsupported {
            OnUnsupported::Error => Err(LlmError::unsupported(param, format!("`{param}`: {reason}"))),
            OnUnsupported::Adjust => {
                self.adjust(param, reason);
                Ok(())
            }
        }
    }

    /// Whether the typed form of a body field is to be written. A field in `extra` goes out untouched and takes its
    /// place; when the request states it (`given`) as well, that is noted.
    fn mine(&mut self, name: &str, given: bool) -> bool {
        if !self.request.extra.contains_key(name) {
            return true;
        }
        if given {
            self.adjust(format!("extra.{name}"), format!("replaces what the request says about `{name}`"));
        }
        false
    }

    fn write(&mut self, target: &Target<'_>) -> Result<(), LlmError> {
        let request = self.request;
        if let Some(stream) = request.extra.get("stream")
            && stream.read::<bool>().ok() != Some(target.stream)
        {
            return Err(LlmError::invalid(
                "extra.stream",
                "`extra.stream`: call the streaming or the whole-answer method instead",
            ));
        }
        self.refuse_unsupported()?;
        let thinking = self.plan()?;
        self.body.open_object();
        if self.mine("model", false) {
            self.body.field("model", self.model);
        }
        self.max_tokens(target, &thinking)?;
        blocks::write_conversation(self)?;
        self.tools()?;
        self.sampling()?;
        self.thinking(&thinking);
        self.output_config(&thinking)?;
        self.metadata()?;
        if let Some(tier) = &request.service_tier
            && self.mine("service_tier", true)
        {
            self.body.field("service_tier", tier);
        }
        if target.stream && self.mine("stream", false) {
            self.body.field("stream", &true);
        }
        for (name, value) in &request.extra {
            self.body.raw_field(name, value.get());
        }
        self.body.close_object();
        Ok(())
    }

    fn refuse_unsupported(&mut self) -> Result<(), LlmError> {
        const NONE: &str = "Anthropic has no such parameter";
        let request = self.request;
        // A penalty of 0 and `logprobs: false` ask for nothing.
        let asks = [
            ("seed", request.seed.is_some()),
            ("frequency_penalty", request.frequency_penalty.is_some_and(|value| value != 0.0)),
            ("presence_penalty", request.presence_penalty.is_some_and(|value| value != 0.0)),
            ("logprobs", request.logprobs == Some(true)),
            ("top_logprobs", request.top_logprobs.is_some_and(|count| count > 0)),
        ];
        for (name, _) in asks.into_iter().filter(|(_, asked)| *asked) {
            self.refuse(name, NONE)?;
        }
        if request.previous_response_id.is_some() {
            // Leaving it out would lose the conversation, so the caller's leave does not cover it.
            return Err(LlmError::unsupported(
                "previous_response_id",
                "`previous_response_id`: Anthropic stores no answers; send the conversation in `messages`",
            ));
        }
        Ok(())
    }

    /// Decides how the model is told to think.
    fn plan(&mut self) -> Result<Plan, LlmError> {
        let request = self.request;
        if let Some(budget) = request.reasoning_budget {
            return self.plan_budget(budget);
        }
        let Some(effort) = request.reasoning_effort.as_deref() else {
            // To ask for a summary is to ask for the thinking it sums up, where that needs no budget.
            let adaptive = matches!(thinking_of(self.model), Thinking::Both | Thinking::Adaptive);
            return match &request.reasoning_summary {
                Some(_) if adaptive => Ok(Plan::Adaptive),
                Some(_) => {
                    self.adjust("reasoning_summary", "left out: nothing asks this model to think");
                    Ok(Plan::Absent)
                }
                None => Ok(Plan::Absent),
            };
        };
        match (effort, thinking_of(self.model)) {
            ("none", Thinking::Never) => Ok(Plan::Absent),
            ("none", _) => Ok(Plan::Disabled),
            (_, Thinking::Never) => {
                self.refuse("reasoning_effort", format!("`{}` does not think", self.model))?;
                Ok(Plan::Absent)
            }
            (_, Thinking::Budget) => {
                let wanted = match effort {
                    "minimal" => LEAST_BUDGET,
                    "low" => 2048,
                    "medium" => 8192,
                    "high" => 16_384,
                    "xhigh" | "max" => 24_576,
                    other => return Err(unknown_effort(other)),
                };
                let budget = match request.max_tokens {
                    // A quarter is left for the answer itself.
                    Some(limit) => wanted.min(limit - limit / 4),
                    None => wanted,
                };
                if budget < LEAST_BUDGET {
                    return Err(LlmError::invalid(
                        "max_tokens",
                        "`max_tokens`: thinking takes at least 1024 tokens of it; give 1366 or more, or leave out `reasoning_effort`",
                    ));
                }
                let reason = format!(
                    "`{}` has no effort levels: `{effort}` is sent as a budget of {budget} tokens",
                    self.model
                );
                self.adjust("reasoning_effort", reason);
                Ok(Plan::Budget(budget))
            }
            _ => Ok(Plan::Adaptive),
        }
    }

    fn plan_budget(&mut self, budget: u64) -> Result<Plan, LlmError> {
        match thinking_of(self.model) {
            Thinking::Never => {
                self.refuse("reasoning_budget", format!("`{}` does not think", self.model))?;
                return Ok(Plan::Absent);
            }
            Thinking::Adaptive => {
                let reason = format!("`{}` takes no budget; use `reasoning_effort`", self.model);
                self.refuse("reasoning_budget", reason)?;
                return Ok(Plan::Adaptive);
            }
            _ => {}
        }
        if budget < LEAST_BUDGET {
            let message = format!("`reasoning_budget`: {budget} is too small; the least is {LEAST_BUDGET}");
            return Err(LlmError::invalid("reasoning_budget", message));
        }
        if let Some(limit) = self.request.max_tokens.filter(|limit| budget >= *limit) {
            let message =
                format!("`reasoning_budget`: {budget} must be less than `max_tokens`, which is {limit}");
            return Err(LlmError::invalid("reasoning_budget", message));
        }
        Ok(Plan::Budget(budget))
    }

    fn max_tokens(&mut self, target: &Target<'_>, thinking: &Plan) -> Result<(), LlmError> {
        let field = match target.quirks.max_tokens_field.as_str() {
            "" => "max_tokens",
            other => other,
        };
        if !self.mine(field, self.request.max_tokens.is_some()) {
            return Ok(());
        }
        let limit = match self.request.max_tokens {
            Some(limit) => limit,
            None => {
                let room = if let Plan::Budget(budget) = thinking { *budget } else { 0 };
                let limit = room.checked_add(DEFAULT_MAX_TOKENS).ok_or_else(|| {
                    LlmError::invalid("reasoning_budget", "`reasoning_budget`: is too large")
                })?;
                self.adjust(
                    "max_tokens",
                    format!("set to {limit}: Anthropic requires a limit and none was given"),
                );
                limit
            }
        };
        self.body.field(field, &limit);
        Ok(())
    }

    fn tools(&mut self) -> Result<(), LlmError> {
        let request = self.request;
        if !request.tools.is_empty() && self.mine("tools", true) {
            self.body.key("tools");
            self.body.open_array();
            for tool in &request.tools {
                match tool.verbatim_for(wire::ANTHROPIC) {
                    Some(json) => self.body.raw(json.get()),
                    None => self.tool(tool),
                }
            }
            self.body.close_array();
        }
        let serial = request.parallel_tool_calls == Some(false);
        let choice = match &request.tool_choice {
            None if !serial => return Ok(()),
            None => &ToolChoice::Auto,
            Some(choice) => choice,
        };
        // Without tools the API refuses any choice, and there is nothing to choose.
        let offered = !request.tools.is_empty()
            || ["tools", "mcp_servers"].iter().any(|name| request.extra.contains_key(*name));
        if !offered {
            self.adjust("tool_choice", "left out: the request has no tools");
            return Ok(());
        }
        if !self.mine("tool_choice", true) {
            return Ok(());
        }
        let (kind, name) = match choice {
            ToolChoice::Auto => ("auto", None),
            ToolChoice::None => ("none", None),
            ToolChoice::Required => ("any", None),
            ToolChoice::Tool(name) => ("tool", Some(name)),
            ToolChoice::Vendor(json) => {
                self.body.raw_field("tool_choice", json.get());
                return Ok(());
            }
        };
        self.body.key("tool_choice");
        self.body.open_object();
        self.body.field("type", kind);
        if let Some(name) = name {
            self.body.field("name", name);
        }
        if serial && kind != "none" {
            self.body.field("disable_parallel_tool_use", &true);
        }
        self.body.close_object();
        Ok(())
    }

    fn tool(&mut self, tool: &Tool) {
        let body = &mut self.body;
        body.open_object();
        body.field("name", &tool.name);
        if let Some(description) = &tool.description {
            body.field("description", description);
        }
        let schema = tool.parameters.as_ref().map_or(r#"{"type":"object","properties":{}}"#, RawJson::get);
        body.raw_field("input_schema", schema);
        if let Some(strict) = &tool.strict {
            body.field("strict", strict);
        }
        if let Some(marker) = &tool.cache_control {
            body.raw_field("cache_control", marker.get());
        }
        for (name, value) in &tool.extra {
            body.raw_field(name, value.get());
        }
        body.close_object();
    }

    fn sampling(&mut self) -> Result<(), LlmError> {
        let request = self.request;
        if let Some(temperature) = request.temperature
            && self.mine("temperature", true)
        {
            let mut sent = temperature;
            if temperature > 1.0 {
                self.refuse("temperature", format!("{temperature} is more than Anthropic's highest, 1"))?;
                sent = 1.0;
            }
            self.body.field("temperature", &sent);
        }
        if let Some(top_p) = &request.top_p
            && self.mine("top_p", true)
        {
            self.body.field("top_p", top_p);
        }
        if let Some(top_k) = &request.top_k
            && self.mine("top_k", true)
        {
            self.body.field("top_k", top_k);
        }
        if request.stop.is_empty() || !self.mine("stop_sequences", true) {
            return Ok(());
        }
        let (stops, blank): (Vec<&String>, Vec<&String>) =
            request.stop.iter().partition(|stop| !stop.trim().is_empty());
        if !blank.is_empty() {
            self.refuse("stop", "Anthropic takes no stop text that is only white space")?;
        }
        if !stops.is_empty() {
            self.body.field("stop_sequences", &stops);
        }
        Ok(())
    }

    fn thinking(&mut self, plan: &Plan) {
        if *plan == Plan::Absent || !self.mine("thinking", true) {
            return;
        }
        let body = &mut self.body;
        body.key("thinking");
        body.open_object();
        match plan {
            Plan::Absent => {}
            Plan::Disabled => body.field("type", "disabled"),
            Plan::Adaptive => body.field("type", "adaptive"),
            Plan::Budget(budget) => {
                body.field("type", "enabled");
                body.field("budget_tokens", budget);
            }
        }
        if *plan != Plan::Disabled
            && let Some(summary) = self.request.reasoning_summary.as_deref()
        {
            let display = if matches!(summary, "none" | "omitted") { "omitted" } else { "summarized" };
            body.field("display", display);
        }
        body.close_object();
    }

    fn output_config(&mut self, plan: &Plan) -> Result<(), LlmError> {
        let effort = self.effort(plan)?;
        let request = self.request;
        let format = match &request.response_format {
            None | Some(ResponseFormat::Text) => None,
            Some(ResponseFormat::JsonObject) => {
                self.refuse(
                    "response_format",
                    "Anthropic has no JSON mode without a schema; give a `json_schema`",
                )?;
                None
            }
            Some(ResponseFormat::JsonSchema { description, .. }) => {
                if description.is_some() {
                    self.adjust(
                        "response_format",
                        "its `description` is left out: Anthropic takes the schema only",
                    );
                }
                request.response_format.as_ref()
            }
            Some(ResponseFormat::Vendor(_)) => request.response_format.as_ref(),
        };
        if (effort.is_none() && format.is_none()) || !self.mine("output_config", true) {
            return Ok(());
        }
        let body = &mut self.body;
        body.key("output_config");
        body.open_object();
        if let Some(effort) = effort {
            body.field("effort", effort);
        }
        match format {
            Some(ResponseFormat::JsonSchema { schema, .. }) => {
                body.key("format");
                body.open_object();
                body.field("type", "json_schema");
                body.raw_field("schema", schema.get());
                body.close_object();
            }
            Some(ResponseFormat::Vendor(json)) => body.raw_field("format", json.get()),
            _ => {}
        }
        body.close_object();
        Ok(())
    }

    /// The effort level to send, if any.
    fn effort(&mut self, plan: &Plan) -> Result<Option<&'static str>, LlmError> {
        let Some(effort) = self.request.reasoning_effort.as_deref() else { return Ok(None) };
        if matches!(thinking_of(self.model), Thinking::Never | Thinking::Budget) {
            if self.request.reasoning_budget.is_some() {
                let reason = format!("left out: `{}` has no effort levels and a budget is given", self.model);
                self.adjust("reasoning_effort", reason);
            }
            return Ok(None);
        }
        Ok(match effort {
            "none" if *plan == Plan::Disabled => None,
            "none" => {
                let message = "`reasoning_effort`: `none` contradicts `reasoning_budget`";
                return Err(LlmError::invalid("reasoning_effort", message));
            }
            "minimal" => {
                self.refuse(
                    "reasoning_effort",
                    "Anthropic's lowest level is `low`, sent instead of `minimal`",
                )?;
                Some("low")
            }
            "low" => Some("low"),
            "medium" => Some("medium"),
            "high" => Some("high"),
            "xhigh" => Some("xhigh"),
            "max" => Some("max"),
            other => return Err(unknown_effort(other)),
        })
    }

    fn metadata(&mut self) -> Result<(), LlmError> {
        let request = self.request;
        if request.metadata.is_none() && request.user.is_none() {
            return Ok(());
        }
        let mut user = request.user.clone();
        if let Some(metadata) = &request.metadata {
            let labels = fields(metadata.get())
                .map_err(|error| LlmError::invalid("metadata", format!("`metadata`: {error}")))?;
            if labels.keys().any(|name| name != "user_id") {
                self.refuse("metadata", "Anthropic takes `user_id` only")?;
            }
            if let Some(id) = labels.get("user_id").and_then(|raw| RawJson::from(*raw).as_string()) {
                if user.as_ref().is_some_and(|user| *user != id) {
                    let message = "`user`: differs from `metadata.user_id`; give one of them";
                    return Err(LlmError::invalid("user", message));
                }
                user = Some(id);
            }
        }
        if let Some(user) = user
            && self.mine("metadata", true)
        {
            self.body.key("metadata");
            self.body.open_object();
            self.body.field("user_id", &user);
            self.body.close_object();
        }
        Ok(())
    }
}

fn unknown_effort(effort: &str) -> LlmError {
    LlmError::invalid(
        "reasoning_effort",
        format!(
            "`reasoning_effort`: `{effort}` is no level; use `none`, `low`, `medium`, `high`, `xhigh` or `max`"
        ),
    )
}
