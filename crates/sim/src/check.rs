//! Checks of request fields shared by the OpenAI-shaped endpoints, with that vendor's messages, codes and `param`.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::answer::{Choice, Tool};
use crate::vendor::{Answered, VendorError};

/// Base64 as vendors read it: padding or none.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Length of the decoded data, or `None` where it is no base64.
pub(crate) fn base64_length(text: &str) -> Option<usize> {
    LENIENT.decode(text.trim()).ok().map(|d| d.len())
}

/// A number within bounds, or nothing.
pub(crate) fn number(body: &Value, name: &str, low: f64, high: f64) -> Answered<Option<f64>> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let Some(number) = value.as_f64() else {
                let message = format!(
                    "Invalid type for '{name}': expected a decimal, but got {} instead.",
                    kind(value)
                );
                return Err(VendorError::invalid(message).param(name).code("invalid_type"));
            };
            if number < low {
                let message = format!(
                    "Invalid '{name}': decimal below minimum value. Expected a value >= {low}, but got {value} instead."
                );
                return Err(VendorError::invalid(message).param(name).code("decimal_below_min_value"));
            }
            if number > high {
                let message = format!(
                    "Invalid '{name}': decimal above maximum value. Expected a value <= {high}, but got {value} instead."
                );
                return Err(VendorError::invalid(message).param(name).code("decimal_above_max_value"));
            }
            Ok(Some(number))
        }
    }
}

/// A whole number within bounds, or nothing.
pub(crate) fn integer(body: &Value, name: &str, low: u64, high: u64) -> Answered<Option<u64>> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let Some(number) = value.as_i64() else {
                let message = format!(
                    "Invalid type for '{name}': expected an integer, but got {} instead.",
                    kind(value)
                );
                return Err(VendorError::invalid(message).param(name).code("invalid_type"));
            };
            let checked = u64::try_from(number).ok().filter(|n| *n >= low);
            let Some(checked) = checked else {
                let message = format!(
                    "Invalid '{name}': integer below minimum value. Expected a value >= {low}, but got {number} instead."
                );
                return Err(VendorError::invalid(message).param(name).code("integer_below_min_value"));
            };
            if checked > high {
                let message = format!(
                    "Invalid '{name}': integer above maximum value. Expected a value <= {high}, but got {number} instead."
                );
                return Err(VendorError::invalid(message).param(name).code("integer_above_max_value"));
            }
            Ok(Some(checked))
        }
    }
}

/// The JSON kind of a value, as the vendor words it.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

pub(crate) fn missing(name: &str) -> VendorError {
    VendorError::invalid(format!("Missing required parameter: '{name}'."))
        .param(name)
        .code("missing_required_parameter")
}

/// The body as a JSON object.
pub(crate) fn body(bytes: &[u8]) -> Answered<Value> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(VendorError::invalid(
            "We could not parse the JSON body of your request. The server expected a JSON object, with a content type of application/json.",
        )),
    }
}

/// The model's name; an unknown one is a 404.
pub(crate) fn model<'a>(body: &'a Value, fallback: Option<&'a str>) -> Answered<&'a str> {
    let name = match body.get("model") {
        Some(Value::String(name)) if !name.is_empty() => fallback.unwrap_or(name),
        None | Some(Value::Null | Value::String(_)) => {
            fallback.ok_or_else(|| VendorError::invalid("you must provide a model parameter"))?
        }
        Some(other) => {
            let message =
                format!("Invalid type for 'model': expected a string, but got {} instead.", kind(other));
            return Err(VendorError::invalid(message).param("model").code("invalid_type"));
        }
    };
    if name.starts_with("no-such") { Err(VendorError::no_model(name)) } else { Ok(name) }
}

/// An image given as URL or data URL; gives its cost in tokens.
pub(crate) fn image(url: &str, param: &str) -> Answered<u64> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(765);
    }
    let invalid = |message: &str| VendorError::invalid(message).param(param).code("invalid_value");
    let data = url
        .strip_prefix("data:")
        .ok_or_else(|| invalid("Invalid image URL: expected an http(s) URL or a base64 data URL."))?;
    let (kind, data) = data
        .split_once(";base64,")
        .ok_or_else(|| invalid("Invalid image data URL: expected base64 data."))?;
    if !matches!(kind, "image/png" | "image/jpeg" | "image/jpg" | "image/webp" | "image/gif") {
        return Err(VendorError::invalid("You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png', 'jpeg', 'gif', 'webp'].").param(param).code("invalid_image_format"));
    }
    base64_length(data).map(|_| 765).ok_or_else(|| invalid("Invalid base64 image_url."))
}

/// Whether `name` is a valid tool name.
pub(crate) fn tool_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Tools of chat (`function` nested) or of Responses (`flat`). Server-side tools are accepted and not called.
pub(crate) fn tools(body: &Value, flat: bool, strict: bool) -> Answered<Vec<Tool>> {
    let list = match body.get("tools") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => {
            let message = format!(
                "Invalid type for 'tools': expected an array of objects, but got {} instead.",
                kind(other)
            );
            return Err(VendorError::invalid(message).param("tools").code("invalid_type"));
        }
    };
    let mut out = Vec::with_capacity(list.len());
    for (i, tool) in list.iter().enumerate() {
        let kind =
            tool.get("type").and_then(Value::as_str).ok_or_else(|| missing(&format!("tools[{i}].type")))?;
        if kind != "function" && kind != "custom" {
            if flat {
                continue;
            }
            let message = format!("Invalid value: '{kind}'. Supported values are: 'function' and 'custom'.");
            return Err(VendorError::invalid(message)
                .param(format!("tools[{i}].type"))
                .code("invalid_value"));
        }
        let place = if flat { format!("tools[{i}]") } else { format!("tools[{i}].{kind}") };
        let spec = if flat { Some(tool) } else { tool.get(kind) };
        let spec = spec.filter(|s| s.is_object()).ok_or_else(|| missing(&place))?;
        let name =
            spec.get("name").and_then(Value::as_str).ok_or_else(|| missing(&format!("{place}.name")))?;
        if !tool_name(name) {
            let message = format!(
                "Invalid '{place}.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
            );
            return Err(VendorError::invalid(message).param(format!("{place}.name")).code("invalid_value"));
        }
        let schema = spec
            .get("parameters")
            .cloned()
            .unwrap_or_else(|| serde_json::json!({"type": "object", "properties": {}}));
        let typed = schema.is_null()
            || schema.get("type").and_then(Value::as_str) == Some("object")
            || schema.get("type").is_none();
        if !typed {
            let message = format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \"object\"', got 'type: {}'.",
                schema.get("type").unwrap_or(&Value::Null)
            );
            return Err(VendorError::invalid(message)
                .param(format!("{place}.parameters"))
                .code("invalid_function_parameters"));
        }
        if strict && spec.get("strict").and_then(Value::as_bool) == Some(true) {
            strict_schema(&schema, &mut Vec::new()).map_err(|wrong| {
                VendorError::invalid(format!("Invalid schema for function '{name}': {wrong}"))
                    .param(format!("{place}.parameters"))
                    .code("invalid_function_parameters")
            })?;
        }
        out.push(Tool { name: name.to_owned(), schema, custom: kind == "custom" });
    }
    Ok(out)
}

/// `tool_choice` of chat and Responses.
pub(crate) fn choice(body: &Value, tools: &mut Vec<Tool>) -> Answered<Choice> {
    let offered = body.get("tools").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    let value = match body.get("tool_choice") {
        None | Some(Value::Null) => return Ok(Choice::Auto),
        Some(value) => value,
    };
    let wrong = |message: String| VendorError::invalid(message).param("tool_choice").code("invalid_value");
    if !offered && value.as_str() != Some("none") && value.as_str() != Some("auto") {
        let message =
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.";
        return Err(VendorError::invalid(message).param("tool_choice"));
    }
    if let Some(word) = value.as_str() {
        return match word {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" | "any" => Ok(Choice::Any),
            other => Err(wrong(format!(
                "Invalid value: '{other}'. Supported values are: 'none', 'auto', and 'required'."
            ))),
        };
    }
    if value.get("type").and_then(Value::as_str) == Some("allowed_tools") {
        let spec = value.get("allowed_tools").unwrap_or(value);
        if let Some(Value::Array(list)) = spec.get("tools") {
            let named = |t: &Tool| list.iter().any(|l| tool_in(l) == Some(t.name.as_str()));
            tools.retain(named);
        }
        let required = spec.get("mode").and_then(Value::as_str) == Some("required");
        return Ok(if required { Choice::Any } else { Choice::Auto });
    }
    match tool_in(value) {
        Some(name) if tools.iter().any(|t| t.name == name) => Ok(Choice::Named(name.to_owned())),
        Some(name) => {
            Err(VendorError::invalid(format!("Tool choice '{name}' not found in 'tools' parameter."))
                .param("tool_choice"))
        }
        None if value.get("type").is_some() => Ok(Choice::Auto),
        None => Err(missing("tool_choice.function.name")),
    }
}

fn tool_in(value: &Value) -> Option<&str> {
    let nested = value.get("function").or_else(|| value.get("custom"));
    nested.unwrap_or(value).get("name").and_then(Value::as_str)
}

/// Stop sequences: a string or up to four.
pub(crate) fn stops(body: &Value) -> Answered<Vec<String>> {
    match body.get("stop") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) if list.len() <= 4 && list.iter().all(Value::is_string) => {
            Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Some(Value::Array(list)) if list.len() > 4 => {
            let message = format!(
                "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length {} instead.",
                list.len()
            );
            Err(VendorError::invalid(message).param("stop").code("array_above_max_length"))
        }
        Some(other) => {
            let message = format!(
                "Invalid type for 'stop': expected one of a string or array of strings, but got {} instead.",
                kind(other)
            );
            Err(VendorError::invalid(message).param("stop").code("invalid_type"))
        }
    }
}

/// Tokens of reasoning for an effort word.
pub(crate) fn effort(word: &str, param: &str) -> Answered<usize> {
    Ok(match word {
        "none" => 0,
        "minimal" => 8,
        "low" => 16,
        "medium" => 32,
        "high" => 64,
        "xhigh" | "max" => 96,
        other => {
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'none', 'minimal', 'low', 'medium', 'high', and 'xhigh'."
            );
            return Err(VendorError::invalid(message).param(param).code("invalid_value"));
        }
    })
}

/// Whether a model of that name reasons unasked.
pub(crate) fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|p| name.starts_with(p))
        || name.contains("reason")
        || name.contains("-r1")
}

/// Whether a schema keeps the rules of strict mode: every object closed, every property required.
/// The error is the vendor's sentence.
pub(crate) fn strict_schema(schema: &Value, context: &mut Vec<String>) -> Result<(), String> {
    let Value::Object(fields) = schema else {
        return Ok(());
    };
    let place = |context: &[String]| match context {
        [] => "()".to_owned(),
        [one] => format!("('{one}',)"),
        many => format!("('{}')", many.join("', '")),
    };
    let object = fields
        .get("type")
        .is_some_and(|t| t == "object" || t.as_array().is_some_and(|l| l.iter().any(|v| v == "object")));
    if object && fields.get("additionalProperties") != Some(&Value::Bool(false)) {
        let place = place(context);
        return Err(format!(
            "In context={place}, 'additionalProperties' is required to be supplied and to be false."
        ));
    }
    if let Some(Value::Object(properties)) = fields.get("properties") {
        let required = fields.get("required").and_then(Value::as_array);
        let listed = |name: &String| required.is_some_and(|l| l.iter().any(|r| r == name));
        if let Some(missing) = properties.keys().find(|name| !listed(name)) {
            let place = place(context);
            return Err(format!(
                "In context={place}, 'required' is required to be supplied and to be an array including every key in properties. Missing '{missing}'."
            ));
        }
    }
    let mut inside = |name: &str, key: Option<&str>, part: &Value| {
        let depth = context.len();
        context.push(name.to_owned());
        context.extend(key.map(str::to_owned));
        let result = strict_schema(part, context);
        context.truncate(depth);
        result
    };
    for name in ["properties", "$defs", "definitions"] {
        for (key, part) in fields.get(name).and_then(Value::as_object).into_iter().flatten() {
            inside(name, Some(key), part)?;
        }
    }
    for (i, part) in fields.get("anyOf").and_then(Value::as_array).into_iter().flatten().enumerate() {
        inside("anyOf", Some(&i.to_string()), part)?;
    }
    fields.get("items").map_or(Ok(()), |part| inside("items", None, part))
}

/// The schema of a structured output, checked where it is strict.
pub(crate) fn output_schema(spec: &Value, strict: bool, param: &str) -> Answered<Value> {
    let schema = spec.get("schema").ok_or_else(|| missing(&format!("{param}.schema")))?;
    if strict && spec.get("strict").and_then(Value::as_bool) == Some(true) {
        let name = spec.get("name").and_then(Value::as_str).unwrap_or("");
        strict_schema(schema, &mut Vec::new()).map_err(|wrong| {
            VendorError::invalid(format!("Invalid schema for response_format '{name}': {wrong}"))
                .param(param)
                .code("invalid_json_schema")
        })?;
    }
    Ok(schema.clone())
}
