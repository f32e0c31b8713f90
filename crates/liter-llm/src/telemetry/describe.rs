//! What of a request is fit for a record.

use crate::core::content::{Block, BlockKind, Media};
use crate::core::record::RecordedParameters;
use crate::core::request::LlmRequest;
use crate::core::shared_text::SharedText;
use crate::core::tools::ResponseFormat;

fn text_of(block: &Block) -> usize {
    match &block.kind {
        BlockKind::Text { text, .. } | BlockKind::Refusal { text } => text.len(),
        BlockKind::Document { source: Media::Text(text), .. } => text.len(),
        BlockKind::ToolResult { content, .. } => content.iter().map(text_of).sum(),
        _ => 0,
    }
}

/// The bytes of text in a request's instructions and conversation.
pub(super) fn prompt_len(request: &LlmRequest) -> usize {
    let messages = request.messages.iter().flat_map(|message| message.content());
    request.system.iter().chain(messages).map(text_of).sum()
}

/// The request's parameters, without a word of what it says.
pub(super) fn parameters(request: &LlmRequest) -> RecordedParameters {
    let json = !matches!(request.response_format, None | Some(ResponseFormat::Text));
    RecordedParameters {
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: request.stop.clone(),
        seed: request.seed,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        reasoning_effort: request.reasoning_effort.clone(),
        service_tier: request.service_tier.clone(),
        previous_response_id: request.previous_response_id.clone(),
        output_type: SharedText::fixed(if json { "json" } else { "text" }),
        messages: request.messages.len(),
        tools: request.tools.len(),
        prompt_len: prompt_len(request),
    }
}
