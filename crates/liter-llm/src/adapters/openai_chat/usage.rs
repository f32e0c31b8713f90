//! Token counts, from the several places where hosts put them.

use serde_json::value::RawValue;

use super::wire::count;
use crate::core::json::{Fields, RawJson, fields, leftover};
use crate::core::response::Usage;

/// Reads a `usage` object; `None` when it is not an object or holds no counts.
///
/// The host's own words are taken as they are, also where they cannot be right (more cached than input tokens).
/// What has no field of its own stays in `extra` under its own name, nested as it came. `total_tokens` stays only
/// where it is not the sum, for then it says something.
pub(super) fn read(raw: &RawValue) -> Option<Usage> {
    let mut map = fields(raw.get()).ok()?;
    let input = number(&mut map, "prompt_tokens");
    let output = number(&mut map, "completion_tokens");
    if input.is_none() && output.is_none() {
        return None;
    }
    let mut usage =
        Usage { input_tokens: input.unwrap_or(0), output_tokens: output.unwrap_or(0), ..Usage::default() };
    let mut prompt = nested(&mut map, "prompt_tokens_details");
    let mut completion = nested(&mut map, "completion_tokens_details");
    usage.cache_read_input_tokens = first([
        number(&mut prompt, "cached_tokens"),
        number(&mut map, "prompt_cache_hit_tokens"), // DeepSeek
        number(&mut map, "cache_read_input_tokens"), // Anthropic's word, used by gateways
        number(&mut map, "cached_tokens"),           // Moonshot
        number(&mut map, "num_cached_tokens"),       // Mistral
    ]);
    usage.cache_creation_input_tokens =
        first([number(&mut prompt, "cache_write_tokens"), number(&mut map, "cache_creation_input_tokens")]);
    usage.reasoning_output_tokens =
        first([number(&mut completion, "reasoning_tokens"), number(&mut map, "reasoning_tokens")]);
    if map
        .get("total_tokens")
        .and_then(|raw| count(raw.get()))
        .is_none_or(|total| total == usage.input_tokens.saturating_add(usage.output_tokens))
    {
        map.shift_remove("total_tokens");
    }
    usage.extra = leftover(map);
    for (name, details) in [("prompt_tokens_details", prompt), ("completion_tokens_details", completion)] {
        let details = leftover(details);
        if let (false, Ok(json)) = (details.is_empty(), RawJson::from_value(&details)) {
            usage.extra.insert(name.to_owned(), json);
        }
    }
    Some(usage)
}

fn number(map: &mut Fields<'_>, name: &str) -> Option<u64> {
    map.shift_remove(name).and_then(|raw| count(raw.get().trim_matches('"')))
}

fn nested<'a>(map: &mut Fields<'a>, name: &str) -> Fields<'a> {
    map.shift_remove(name).and_then(|raw| fields(raw.get()).ok()).unwrap_or_default()
}

/// The first count that is not zero, else zero: several hosts fill only one of the names they send.
fn first<const N: usize>(counts: [Option<u64>; N]) -> u64 {
    counts.into_iter().flatten().find(|count| *count != 0).unwrap_or(0)
}
