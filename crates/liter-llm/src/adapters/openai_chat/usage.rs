//! Token counts, from the several places where hosts put them.

use serde_json::value::RawValue;

use super::wire::{Number, count, keep, object};
use crate::core::json::{Fields, RawJson, fields};
use crate::core::response::Usage;

/// Reads a `usage` object; `None` when it is not an object or holds no counts.
///
/// The host's own words are taken as they are, also where they cannot be right (more cached than input tokens).
/// What has no field of its own stays in `extra` under its own name, nested as it came. `total_tokens` stays only
/// where it is not the sum, for then it says something.
pub(super) fn read(raw: &RawValue) -> Option<Usage> {
    let counts: Counts<'_> = serde_json::from_str(raw.get()).ok()?;
    let (input, output) = (counts.input.0, counts.output.0);
    if input.is_none() && output.is_none() {
        return None;
    }
    let mut usage =
        Usage { input_tokens: input.unwrap_or(0), output_tokens: output.unwrap_or(0), ..Usage::default() };
    let mut prompt = nested(counts.input_details);
    let mut completion = nested(counts.output_details);
    usage.cache_read_input_tokens = first([
        number(&mut prompt, "cached_tokens"),
        counts.cache_hit.0,
        counts.cache_read.0,
        counts.cached.0,
        counts.num_cached.0,
    ]);
    usage.cache_creation_input_tokens =
        first([number(&mut prompt, "cache_write_tokens"), counts.cache_creation.0]);
    usage.audio_input_tokens = seen(&prompt, "audio_tokens");
    usage.audio_output_tokens = seen(&completion, "audio_tokens");
    usage.reasoning_output_tokens = first([number(&mut completion, "reasoning_tokens"), counts.reasoning.0]);
    let sum = usage.input_tokens.saturating_add(usage.output_tokens);
    if let Some(raw) = counts.total
        && let Some(total) = count(raw.get())
        && total != sum
    {
        // xAI counts reasoning beside the output, and both in the total: seen in its recorded answers.
        if usage.reasoning_output_tokens > 0 && total == sum.saturating_add(usage.reasoning_output_tokens) {
            usage.output_tokens = usage.output_tokens.saturating_add(usage.reasoning_output_tokens);
        } else {
            usage.extra.insert("total_tokens".to_owned(), RawJson::from(raw));
        }
    }
    keep(counts.rest, &mut usage.extra);
    for (name, mut details) in [("prompt_tokens_details", prompt), ("completion_tokens_details", completion)]
    {
        details.drop_nulls();
        if !details.is_empty()
            && let Ok(json) = RawJson::from_value(&details)
        {
            usage.extra.insert(name.to_owned(), json);
        }
    }
    Some(usage)
}

object! {
    /// The counts under all the names that are in use.
    Counts {
        input as "prompt_tokens": Number,
        output as "completion_tokens": Number,
        total as "total_tokens": Option<&'a RawValue>,
        input_details as "prompt_tokens_details": Option<&'a RawValue>,
        output_details as "completion_tokens_details": Option<&'a RawValue>,
        /// DeepSeek.
        cache_hit as "prompt_cache_hit_tokens": Number,
        /// Anthropic's word, used by gateways.
        cache_read as "cache_read_input_tokens": Number,
        /// Moonshot.
        cached as "cached_tokens": Number,
        /// Mistral.
        num_cached as "num_cached_tokens": Number,
        cache_creation as "cache_creation_input_tokens": Number,
        reasoning as "reasoning_tokens": Number,
    }
}

fn number(map: &mut Fields<'_>, name: &str) -> Option<u64> {
    map.shift_remove(name).and_then(|raw| count(raw.get().trim_matches('"')))
}

/// A count that also stays where it is: among the vendor's own.
fn seen(map: &Fields<'_>, name: &str) -> u64 {
    map.get(name).and_then(|raw| count(raw.get())).unwrap_or(0)
}

fn nested(raw: Option<&RawValue>) -> Fields<'_> {
    raw.and_then(|raw| fields(raw.get()).ok()).unwrap_or_default()
}

/// The first count that is not zero, else zero: several hosts fill only one of the names they send.
fn first<const N: usize>(counts: [Option<u64>; N]) -> u64 {
    counts.into_iter().flatten().find(|count| *count != 0).unwrap_or(0)
}
