//! What a request needs of a deployment.

use crate::core::content::{Block, BlockKind};
use crate::core::request::LlmRequest;
use crate::core::tools::ResponseFormat;

/// Tools.
pub const TOOLS: u32 = 1;
/// Several tool calls at once.
pub const PARALLEL_TOOLS: u32 = 1 << 1;
/// An answer that follows a JSON Schema.
pub const SCHEMA: u32 = 1 << 2;
/// Pictures in the prompt.
pub const IMAGE_INPUT: u32 = 1 << 3;
/// Documents in the prompt.
pub const DOCUMENT_INPUT: u32 = 1 << 4;
/// Sound in the prompt.
pub const AUDIO_INPUT: u32 = 1 << 5;
/// Reasoning.
pub const REASONING: u32 = 1 << 6;
/// Log probabilities.
pub const LOGPROBS: u32 = 1 << 7;
/// A fine-tuned model.
pub const FINE_TUNED: u32 = 1 << 8;

/// All needs, with the names they have in configuration and in errors.
pub const NAMES: [(u32, &str); 9] = [
    (TOOLS, "tools"),
    (PARALLEL_TOOLS, "parallel_tools"),
    (SCHEMA, "schema"),
    (IMAGE_INPUT, "image_input"),
    (DOCUMENT_INPUT, "document_input"),
    (AUDIO_INPUT, "audio_input"),
    (REASONING, "reasoning"),
    (LOGPROBS, "logprobs"),
    (FINE_TUNED, "fine_tuned"),
];

/// The names of these needs, in the order of the table.
pub fn names(needs: u32) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(need, _)| needs & need != 0).map(|(_, name)| *name)
}

/// The need of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<u32> {
    NAMES.iter().find(|(_, known)| *known == name).map(|(need, _)| *need)
}

/// What this request needs.
#[must_use]
pub fn of(request: &LlmRequest) -> u32 {
    let mut needs = 0;
    if !request.tools.is_empty() {
        needs |= TOOLS;
        if request.parallel_tool_calls == Some(true) {
            needs |= PARALLEL_TOOLS;
        }
    }
    if matches!(request.response_format, Some(ResponseFormat::JsonSchema { .. })) {
        needs |= SCHEMA;
    }
    let effort = request.reasoning_effort.as_deref().is_some_and(|effort| effort != "none");
    if effort || request.reasoning_budget.is_some() || request.reasoning_summary.is_some() {
        needs |= REASONING;
    }
    if request.logprobs == Some(true) || request.top_logprobs.is_some_and(|count| count > 0) {
        needs |= LOGPROBS;
    }
    if request.model.as_deref().is_some_and(is_fine_tuned) {
        needs |= FINE_TUNED;
    }
    let messages = request.messages.iter().flat_map(|message| message.content());
    request.system.iter().chain(messages).fold(needs, |needs, block| needs | of_block(block))
}

fn of_block(block: &Block) -> u32 {
    match &block.kind {
        BlockKind::Image { .. } => IMAGE_INPUT,
        BlockKind::Document { .. } => DOCUMENT_INPUT,
        BlockKind::Audio { .. } => AUDIO_INPUT,
        BlockKind::ToolResult { content, .. } => {
            content.iter().fold(0, |needs, block| needs | of_block(block))
        }
        _ => 0,
    }
}

/// Whether a model's name is that of a fine-tuned one at OpenAI or Azure (`ft:gpt-4o-mini:acme::id`).
#[must_use]
pub fn is_fine_tuned(model: &str) -> bool {
    model.starts_with("ft:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_has_a_bit_and_a_name_of_its_own() {
        let all = NAMES.iter().fold(0, |all, (need, _)| {
            assert_eq!(all & need, 0);
            all | need
        });
        assert_eq!(all.count_ones() as usize, NAMES.len());
        assert!(NAMES.iter().all(|(need, name)| by_name(name) == Some(*need)));
    }

    #[test]
    fn a_plain_prompt_needs_nothing() {
        assert_eq!(of(&LlmRequest::new().with_prompt("x").with_reasoning_effort("none")), 0);
        let asked = LlmRequest::new().with_prompt("x").with_reasoning_effort("low").with_model("ft:a:b::c");
        assert_eq!(names(of(&asked)).collect::<Vec<_>>(), ["reasoning", "fine_tuned"]);
    }
}
