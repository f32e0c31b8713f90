//! How many tokens a request will probably use, for reserving before it is sent.

use super::content::{Block, BlockKind, Media};
use super::request::LlmRequest;

/// Output tokens expected of a request that does not bound them.
const UNBOUNDED_OUTPUT: u64 = 1_000;

/// Tokens of a picture, a document or a sound: their bytes say little, and this is the order of what vendors count.
const MEDIA: u64 = 1_000;

/// Bytes of text to a token.
const BYTES: usize = 4;

/// The tokens of so many bytes of text.
#[must_use]
pub const fn of_text(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES) as u64
}

fn media(source: &Media) -> u64 {
    match source {
        Media::Text(text) => of_text(text.len()),
        _ => MEDIA,
    }
}

fn block(block: &Block) -> u64 {
    match &block.kind {
        BlockKind::Text { text, .. } | BlockKind::Refusal { text } => of_text(text.len()),
        BlockKind::Image { source, .. }
        | BlockKind::Document { source, .. }
        | BlockKind::Audio { source } => media(source),
        BlockKind::ToolCall { name, arguments, .. } => of_text(name.len() + arguments.len()),
        BlockKind::ToolResult { content, .. } => content.iter().map(self::block).sum(),
        BlockKind::Reasoning(reasoning) => of_text(reasoning.text.len()),
        BlockKind::Opaque { json, .. } => of_text(json.get().len()),
    }
}

/// Input: a quarter of the text's bytes; 1,000 for each picture, document or sound.
#[must_use]
pub fn input_tokens(request: &LlmRequest) -> u64 {
    let messages = request.messages.iter().flat_map(|message| message.content());
    let text: u64 = request.system.iter().chain(messages).map(block).sum();
    let tools: usize = request
        .tools
        .iter()
        .map(|tool| {
            let described = tool.description.as_ref().map_or(0, String::len);
            tool.name.len() + described + tool.parameters.as_ref().map_or(0, |schema| schema.get().len())
        })
        .sum();
    text + of_text(tools)
}

/// Output: `max_tokens`, else 1,000.
#[must_use]
pub fn output_tokens(request: &LlmRequest) -> u64 {
    request.max_tokens.unwrap_or(UNBOUNDED_OUTPUT)
}

/// Input and output together.
#[must_use]
pub fn tokens(request: &LlmRequest) -> u64 {
    input_tokens(request).saturating_add(output_tokens(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_and_output_are_counted() {
        let asked = LlmRequest::new().with_prompt("12345678").with_system("1234");
        assert_eq!(tokens(&asked), 2 + 1 + 1_000);
        assert_eq!(tokens(&asked.clone().with_max_tokens(50)), 53);
        let picture = Media::Base64 { media_type: "image/png".to_owned(), data: "A".repeat(100_000) };
        let shown = asked.with(|body| body.system.push(Block::image(picture))).with_max_tokens(50);
        assert_eq!(tokens(&shown), 1_053);
    }
}
