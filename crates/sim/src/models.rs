//! Lists of models, and embeddings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::answer::{Hash, estimate, mix};
use crate::check;
use crate::reply::Reply;
use crate::server::Call;
use crate::vendor::{Answered, Dialect, VendorError};

/// When the listed models came to be, in seconds since 1970.
pub(crate) const CREATED: u64 = 1_715_367_049;

fn names(call: &Call<'_>) -> &'static [&'static str] {
    match call.provider {
        "anthropic" => &["claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"],
        "openai" | "azure" => {
            &["gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini", "o3", "text-embedding-3-small"]
        }
        _ => &["sim-large", "sim-small", "sim-reasoner"],
    }
}

fn model(call: &Call<'_>, id: &str) -> Value {
    if call.dialect == Dialect::Anthropic {
        let words: Vec<String> = id
            .split('-')
            .map(|w| w.chars().take(1).flat_map(char::to_uppercase).chain(w.chars().skip(1)).collect())
            .collect();
        return json!({"type": "model", "id": id, "display_name": words.join(" "), "created_at": crate::vendor::rfc3339(std::time::Duration::from_secs(CREATED))});
    }
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": call.provider})
}

/// `GET .../models`.
pub(crate) fn list(call: &Call<'_>) -> Reply {
    let names = names(call);
    let data: Vec<Value> = names.iter().map(|n| model(call, n)).collect();
    if call.dialect == Dialect::Anthropic {
        return Reply::json(
            200,
            &json!({"data": data, "has_more": false, "first_id": names.first(), "last_id": names.last()}),
        );
    }
    Reply::json(200, &json!({"object": "list", "data": data}))
}

/// `GET .../models/{id}`.
pub(crate) fn one(call: &Call<'_>, id: &str) -> Answered<Reply> {
    if id.starts_with("no-such") {
        return Err(match call.dialect {
            Dialect::Anthropic => VendorError::new(404, "not_found_error", format!("model: {id}")),
            _ => VendorError::no_model(id),
        });
    }
    Ok(Reply::json(200, &model(call, id)))
}

/// `POST .../embeddings`: a unit vector fixed by the text.
pub(crate) fn embeddings(call: &Call<'_>) -> Answered<Reply> {
    let body = call.body()?;
    let name = check::model(body, call.deployment)?;
    let whole = if name.contains("3-large") { 3072 } else { 1536 };
    let size = check::integer(body, "dimensions", 1, whole)?.unwrap_or(whole);
    let inputs: Vec<String> = match body.get("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) if list.iter().all(Value::is_number) && !list.is_empty() => {
            vec![body["input"].to_string()]
        }
        Some(Value::Array(list)) if !list.is_empty() => {
            list.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect()
        }
        None | Some(Value::Null) => return Err(check::missing("input")),
        Some(_) => {
            return Err(VendorError::invalid("'$.input' is invalid. Please check the API reference."));
        }
    };
    let packed = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = unit(Hash::new(name).and(text.as_bytes()).0, size);
            let embedding = if packed {
                json!(STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens: u64 = inputs.iter().map(|t| estimate(t).max(1)).sum();
    Ok(Reply::json(
        200,
        &json!({"object": "list", "data": data, "model": name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}),
    ))
}

fn unit(seed: u64, size: u64) -> Vec<f32> {
    let raw: Vec<f64> =
        (0..size).map(|i| (mix(seed ^ mix(i)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect();
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    raw.into_iter().map(|x| (x / length) as f32).collect()
}
