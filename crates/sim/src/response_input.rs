//! The input items of a Responses request.

use serde_json::Value;

use crate::answer::{self, Hash};
use crate::anthropic_check::signed;
use crate::check;
use crate::vendor::{Answered, VendorError};

/// What the items hold.
#[derive(Default)]
pub(crate) struct Seen {
    pub hash: u64,
    pub text: String,
    pub results: Vec<String>,
    pub tokens: u64,
    pub attachments: Vec<&'static str>,
    pub prefixes: Vec<(u64, u64)>,
}

pub(crate) fn read(items: &[Value], model: &str) -> Answered<Seen> {
    let mut seen = Seen { tokens: 3, hash: Hash::new(model).0, ..Seen::default() };
    let mut open: Vec<&str> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let field = |name: &str| item.get(name).and_then(Value::as_str);
        let role = field("role");
        let kind = field("type")
            .or(role.map(|_| "message"))
            .ok_or_else(|| check::missing(&format!("input[{i}].type")))?;
        // Ids are left out of the hash: the same conversation has the same answer.
        let mut said = String::new();
        match kind {
            "message" => {
                let role = role.ok_or_else(|| check::missing(&format!("input[{i}].role")))?;
                if !matches!(role, "user" | "assistant" | "system" | "developer") {
                    let message = format!(
                        "Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
                    );
                    return Err(VendorError::invalid(message)
                        .param(format!("input[{i}].role"))
                        .code("invalid_value"));
                }
                said = content(item.get("content"), &format!("input[{i}].content"), &mut seen)?;
                seen.results.clear();
                if role == "user" {
                    seen.text.clone_from(&said);
                }
                said.insert_str(0, role);
            }
            "function_call" | "custom_tool_call" => {
                let id = field("call_id").ok_or_else(|| check::missing(&format!("input[{i}].call_id")))?;
                open.push(id);
                said.push_str(field("name").ok_or_else(|| check::missing(&format!("input[{i}].name")))?);
                said.push_str(field("arguments").or(field("input")).unwrap_or(""));
            }
            "function_call_output" | "custom_tool_call_output" => {
                let id = field("call_id").ok_or_else(|| check::missing(&format!("input[{i}].call_id")))?;
                let Some(place) = open.iter().position(|o| *o == id) else {
                    return Err(VendorError::invalid(format!(
                        "No tool call found for function call output with call_id {id}."
                    ))
                    .param("input"));
                };
                open.swap_remove(place);
                said = content(item.get("output"), &format!("input[{i}].output"), &mut seen)?;
                seen.results.push(said.clone());
            }
            "reasoning" => {
                if let Some(secret) = field("encrypted_content")
                    && !signed(secret, "encrypted")
                {
                    let message = format!(
                        "The encrypted content {}... could not be verified. Reason: Encrypted content could not be decrypted or parsed.",
                        secret.chars().take(4).collect::<String>()
                    );
                    return Err(VendorError::invalid(message).code("invalid_encrypted_content"));
                }
            }
            "item_reference" => {}
            _ => said = item.to_string(),
        }
        seen.hash = Hash(seen.hash).and(said.as_bytes()).0;
        seen.tokens += 4 + answer::estimate(&said);
        let mark = (seen.hash, seen.tokens);
        seen.prefixes.push(mark);
    }
    if let Some(id) = open.first() {
        return Err(
            VendorError::invalid(format!("No tool output found for function call {id}.")).param("input")
        );
    }
    Ok(seen)
}

fn content(value: Option<&Value>, place: &str, seen: &mut Seen) -> Answered<String> {
    let parts = match value {
        Some(Value::String(plain)) => return Ok(plain.clone()),
        Some(Value::Array(parts)) => parts,
        _ => return Err(check::missing(place)),
    };
    let mut text = String::new();
    for (j, part) in parts.iter().enumerate() {
        let place = format!("{place}[{j}]");
        let field = |name: &str| part.get(name).and_then(Value::as_str);
        match field("type").ok_or_else(|| check::missing(&format!("{place}.type")))? {
            kind @ ("input_text" | "output_text" | "text" | "summary_text" | "refusal") => {
                let name = if kind == "refusal" { "refusal" } else { "text" };
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(field(name).ok_or_else(|| check::missing(&format!("{place}.{name}")))?);
            }
            "input_image" => {
                match field("image_url") {
                    Some(url) => {
                        seen.tokens += check::image(url, &format!("{place}.image_url"))?;
                        seen.hash = Hash(seen.hash).and(url.as_bytes()).0;
                    }
                    None => {
                        field("file_id").ok_or_else(|| check::missing(&format!("{place}.image_url")))?;
                    }
                }
                seen.attachments.push("image");
            }
            "input_file" => {
                if let Some(data) = field("file_data") {
                    let length = data.split_once(";base64,").and_then(|(_, d)| check::base64_length(d));
                    let length = length.ok_or_else(|| {
                        VendorError::invalid("Invalid file data: expected a base64 data URL.")
                            .param(format!("{place}.file_data"))
                            .code("invalid_value")
                    })?;
                    seen.tokens += 20 + length as u64 / 100;
                } else if field("file_id").or(field("file_url")).is_none() {
                    return Err(check::missing(&format!("{place}.file_id")));
                }
                seen.attachments.push("document");
            }
            "input_audio" => {
                seen.tokens += 100;
                seen.attachments.push("audio");
            }
            other => {
                let message = format!(
                    "Invalid value: '{other}'. Supported values are: 'input_text', 'input_image', 'output_text', 'refusal', 'input_file', 'input_audio', and 'summary_text'."
                );
                return Err(VendorError::invalid(message)
                    .param(format!("{place}.type"))
                    .code("invalid_value"));
            }
        }
    }
    Ok(text)
}
