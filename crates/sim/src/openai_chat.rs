//! OpenAI chat completions: checks the request, answers whole or streamed.

use serde_json::Value;

use crate::answer::{self, Answer, Ask, Format, Hash, answer, letters, mix};
use crate::chat_writer::{Wanted, Writer};
use crate::check;
use crate::reply::{Reply, json_text};
use crate::server::{Call, Shared};
use crate::vendor::{Answered, Dialect, VendorError};

/// Where visible reasoning goes: the field name of hosts that show it.
fn reasoning_field(provider: &str) -> Option<&'static str> {
    match provider {
        "deepseek" | "xai" | "vllm" | "fireworks" | "llamacpp" | "lmstudio" => Some("reasoning_content"),
        "groq" | "openrouter" | "cerebras" | "together" | "ollama" => Some("reasoning"),
        _ => None,
    }
}

/// Answers `POST .../chat/completions`.
pub(crate) fn reply(shared: &Shared, call: &Call<'_>) -> Answered<Reply> {
    let body = call.body()?;
    let model = check::model(body, call.deployment)?;
    let (ask, wanted) = read(shared, call, body, model)?;
    let answers: Vec<Answer> = (0..wanted.n)
        .map(|i| {
            if i == 0 {
                return answer(&ask);
            }
            answer(&Ask { hash: mix(ask.hash ^ i as u64), ..ask.clone() })
        })
        .collect();
    let writer = Writer {
        id: format!("chatcmpl-{}{}", letters(ask.hash, 20), letters(call.serial, 9)),
        // Fixed: the same request gets the same answer.
        created: crate::models::CREATED,
        model,
        fingerprint: letters(Hash::new(model).0, 10).to_lowercase(),
        azure: call.dialect == Dialect::Azure,
        reasoning: reasoning_field(call.provider),
        wanted: &wanted,
    };
    Ok(if wanted.stream {
        Reply::stream(writer.stream(&answers))
    } else {
        Reply::bytes(200, writer.whole(&answers))
    })
}

fn read(shared: &Shared, call: &Call<'_>, body: &Value, model: &str) -> Answered<(Ask, Wanted)> {
    let strict = matches!(call.provider, "openai" | "azure");
    let messages = match body.get("messages") {
        None | Some(Value::Null) => return Err(check::missing("messages")),
        Some(Value::Array(list)) if list.is_empty() => {
            let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
            return Err(VendorError::invalid(message).param("messages").code("empty_array"));
        }
        Some(Value::Array(list)) => list,
        Some(other) => {
            let message = format!(
                "Invalid type for 'messages': expected an array of objects, but got {} instead.",
                check::kind(other)
            );
            return Err(VendorError::invalid(message).param("messages").code("invalid_type"));
        }
    };
    check::number(body, "temperature", 0.0, 2.0)?;
    check::number(body, "top_p", 0.0, 1.0)?;
    check::number(body, "presence_penalty", -2.0, 2.0)?;
    check::number(body, "frequency_penalty", -2.0, 2.0)?;
    let n = check::integer(body, "n", 1, 128)?.unwrap_or(1);
    let old_limit = check::integer(body, "max_tokens", 1, 1 << 40)?;
    let limit = check::integer(body, "max_completion_tokens", 1, 1 << 40)?;
    if strict && old_limit.is_some() && check::reasons(model) {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        return Err(VendorError::invalid(message).param("max_tokens").code("unsupported_parameter"));
    }
    let stream = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    let options = body.get("stream_options").filter(|o| !o.is_null());
    if options.is_some() && !stream && strict {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(VendorError::invalid(message).param("stream_options"));
    }
    let top = check::integer(body, "top_logprobs", 0, 20)?;
    let logprobs = body.get("logprobs").and_then(Value::as_bool).unwrap_or(false);
    if top.is_some() && !logprobs && strict {
        let message = "top_logprobs is only allowed when logprobs is enabled.";
        return Err(VendorError::invalid(message).param("top_logprobs"));
    }
    let mut tools = check::tools(body, false, strict)?;
    let choice = check::choice(body, &mut tools)?;
    let effort = body.get("reasoning_effort").and_then(Value::as_str);
    let reasoning = match effort {
        Some(word) => check::effort(word, "reasoning_effort")?,
        None if check::reasons(model) => 32,
        None => 0,
    };
    let seen = conversation(messages, model)?;
    if call.dialect == Dialect::Azure && seen.text.contains("[filter]") {
        let message = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify your prompt and retry.";
        return Err(VendorError::invalid(message).param("prompt").code("content_filter"));
    }
    let format = format(body, strict, messages)?;
    let mut prompt_tokens = seen.tokens;
    if !tools.is_empty() {
        prompt_tokens += body.get("tools").map_or(0, |t| answer::estimate(&json_text(t)));
    }
    let seed = body.get("seed").and_then(Value::as_i64).unwrap_or(0);
    let hash = Hash(seen.hash).and(&seed.to_le_bytes()).0;
    let ask = Ask {
        hash,
        text: seen.text,
        results: seen.results,
        tools,
        choice,
        parallel: body.get("parallel_tool_calls").and_then(Value::as_bool).unwrap_or(true),
        limit: limit.or(old_limit),
        stops: check::stops(body)?,
        format,
        reasoning,
        attachments: seen.attachments,
    };
    let wanted = Wanted {
        n: usize::try_from(n).unwrap_or(1),
        stream,
        // Mistral sends the usage of every stream, asked or not (as recorded from its API).
        include_usage: call.provider == "mistral"
            || options.and_then(|o| o.get("include_usage")).and_then(Value::as_bool).unwrap_or(false),
        logprobs: logprobs.then(|| top.and_then(|t| usize::try_from(t).ok()).unwrap_or(0)),
        cached_tokens: shared.cache.automatic(
            prompt_tokens,
            &seen.prefixes,
            shared.config.openai_cache_min_tokens,
        ),
        prompt_tokens,
        tier: tier(body, strict),
    };
    Ok((ask, wanted))
}

/// The tier an answer states: the one asked for, `default` for `auto`.
pub(crate) fn tier(body: &Value, strict: bool) -> Option<String> {
    match body.get("service_tier").and_then(Value::as_str) {
        Some("auto") => Some("default".to_owned()),
        Some("fast") => Some("priority".to_owned()),
        Some(word) => Some(word.to_owned()),
        None => strict.then(|| "default".to_owned()),
    }
}

/// What the messages hold.
struct Conversation {
    hash: u64,
    text: String,
    results: Vec<String>,
    tokens: u64,
    attachments: Vec<&'static str>,
    /// Hash and tokens of each prefix of the conversation.
    prefixes: Vec<(u64, u64)>,
}

fn conversation(messages: &[Value], model: &str) -> Answered<Conversation> {
    let mut seen = Conversation {
        hash: 0,
        text: String::new(),
        results: Vec::new(),
        tokens: 3,
        attachments: Vec::new(),
        prefixes: Vec::new(),
    };
    let mut hash = Hash::new(model);
    let mut open: Vec<&str> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let role = message
            .get("role")
            .and_then(Value::as_str)
            .ok_or_else(|| check::missing(&format!("messages[{i}].role")))?;
        if !matches!(role, "system" | "developer" | "user" | "assistant" | "tool" | "function") {
            let error = format!(
                "Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
            );
            return Err(VendorError::invalid(error)
                .param(format!("messages[{i}].role"))
                .code("invalid_value"));
        }
        if role != "tool" && !open.is_empty() {
            return Err(unanswered(&open));
        }
        let mut text = String::new();
        content(message, i, role, &mut text, &mut seen)?;
        hash = hash.and(role.as_bytes()).and(text.as_bytes()).and(&seen.hash.to_le_bytes());
        seen.tokens += 4 + answer::estimate(&text);
        match role {
            "user" => {
                seen.text = text;
                seen.results.clear();
            }
            "assistant" => {
                seen.results.clear();
                if let Some(Value::Array(calls)) = message.get("tool_calls") {
                    for (j, call) in calls.iter().enumerate() {
                        let id = call.get("id").and_then(Value::as_str);
                        open.push(
                            id.ok_or_else(|| check::missing(&format!("messages[{i}].tool_calls[{j}].id")))?,
                        );
                        let encoded = json_text(call);
                        hash = hash.and(encoded.as_bytes());
                        seen.tokens += answer::estimate(&encoded);
                    }
                }
            }
            "tool" => {
                let id = message.get("tool_call_id").and_then(Value::as_str);
                let id = id.ok_or_else(|| check::missing(&format!("messages[{i}].tool_call_id")))?;
                let Some(place) = open.iter().position(|o| *o == id) else {
                    let error = "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.";
                    return Err(VendorError::invalid(error).param(format!("messages.[{i}].role")));
                };
                open.swap_remove(place);
                seen.results.push(text);
            }
            _ => {}
        }
        seen.prefixes.push((hash.0, seen.tokens));
    }
    if !open.is_empty() {
        return Err(unanswered(&open));
    }
    seen.hash = hash.0;
    Ok(seen)
}

fn unanswered(open: &[&str]) -> VendorError {
    let message = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        open.join(", ")
    );
    VendorError::invalid(message).param("messages")
}

fn content(
    message: &Value,
    i: usize,
    role: &str,
    text: &mut String,
    seen: &mut Conversation,
) -> Answered<()> {
    let parts = match message.get("content") {
        Some(Value::String(plain)) => {
            text.push_str(plain);
            return Ok(());
        }
        Some(Value::Array(parts)) => parts,
        None | Some(Value::Null) if role == "assistant" || role == "function" => return Ok(()),
        Some(other) => {
            let error = format!(
                "Invalid type for 'messages[{i}].content': expected one of a string or array of objects, but got {} instead.",
                check::kind(other)
            );
            return Err(VendorError::invalid(error)
                .param(format!("messages[{i}].content"))
                .code("invalid_type"));
        }
        None => return Err(check::missing(&format!("messages[{i}].content"))),
    };
    for (j, part) in parts.iter().enumerate() {
        let place = format!("messages[{i}].content[{j}]");
        let kind = part
            .get("type")
            .and_then(Value::as_str)
            .ok_or_else(|| check::missing(&format!("{place}.type")))?;
        let field =
            |outer: &str, inner: &str| part.get(outer).and_then(|o| o.get(inner)).and_then(Value::as_str);
        match kind {
            "text" | "refusal" => {
                let words = part
                    .get(kind)
                    .and_then(Value::as_str)
                    .ok_or_else(|| check::missing(&format!("{place}.{kind}")))?;
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(words);
            }
            "image_url" => {
                let url = field("image_url", "url")
                    .ok_or_else(|| check::missing(&format!("{place}.image_url.url")))?;
                seen.tokens += check::image(url, &format!("{place}.image_url.url"))?;
                seen.attachments.push("image");
                seen.hash = Hash(seen.hash).and(url.as_bytes()).0;
            }
            "input_audio" => {
                let data = field("input_audio", "data")
                    .ok_or_else(|| check::missing(&format!("{place}.input_audio.data")))?;
                let format = field("input_audio", "format")
                    .ok_or_else(|| check::missing(&format!("{place}.input_audio.format")))?;
                if format != "wav" && format != "mp3" {
                    let error = format!("Invalid value: '{format}'. Supported values are: 'wav' and 'mp3'.");
                    return Err(VendorError::invalid(error)
                        .param(format!("{place}.input_audio.format"))
                        .code("invalid_value"));
                }
                let length = check::base64_length(data).ok_or_else(|| {
                    VendorError::invalid("The audio data is no valid base64.")
                        .param(format!("{place}.input_audio.data"))
                        .code("invalid_value")
                })?;
                seen.tokens += 10 + length as u64 / 4000;
                seen.attachments.push("audio");
            }
            "file" => {
                let data = field("file", "file_data");
                if let Some(url) = data {
                    let length = url.split_once(";base64,").and_then(|(_, d)| check::base64_length(d));
                    let length = length.ok_or_else(|| {
                        VendorError::invalid("Invalid file data: expected a base64 data URL.")
                            .param(format!("{place}.file.file_data"))
                            .code("invalid_value")
                    })?;
                    seen.tokens += 20 + length as u64 / 100;
                } else if field("file", "file_id").is_none() {
                    return Err(check::missing(&format!("{place}.file.file_id")));
                }
                seen.attachments.push("document");
            }
            _ if role == "assistant" => {}
            other => {
                let error = format!(
                    "Invalid value: '{other}'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', 'audio', and 'file'."
                );
                return Err(VendorError::invalid(error).param(format!("{place}.type")).code("invalid_value"));
            }
        }
    }
    Ok(())
}

fn format(body: &Value, strict: bool, messages: &[Value]) -> Answered<Format> {
    let Some(format) = body.get("response_format").filter(|f| !f.is_null()) else {
        return Ok(Format::Text);
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Format::Text),
        Some("json_object") => {
            let said = messages.iter().any(|m| json_text(m).to_ascii_lowercase().contains("json"));
            if strict && !said {
                let message = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.";
                return Err(VendorError::invalid(message).param("messages"));
            }
            Ok(Format::JsonObject)
        }
        Some("json_schema") => {
            let spec =
                format.get("json_schema").ok_or_else(|| check::missing("response_format.json_schema"))?;
            if spec.get("name").and_then(Value::as_str).is_none() && strict {
                return Err(check::missing("response_format.json_schema.name"));
            }
            Ok(Format::Schema(check::output_schema(spec, strict, "response_format")?))
        }
        Some(other) => {
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
            );
            Err(VendorError::invalid(message).param("response_format.type").code("invalid_value"))
        }
        None => Err(check::missing("response_format.type")),
    }
}
