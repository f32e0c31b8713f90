//! One of the alternatives of an answer: turns its messages, or the pieces of one, into chunks.

use serde_json::value::RawValue;

use super::tool_calls::ToolCalls;
use super::vendor_parts::{AudioParts, merge_details};
use super::wire::{Choice, Content, Message, Part, Word, keep, thinking_text};
use crate::core::chunk::{Delta, Facts, LlmChunk};
use crate::core::content::{Block, Reasoning, wire};
use crate::core::json::{Extra, RawJson};
use crate::core::response::FinishReason;

/// What was read of one alternative so far.
///
/// Blocks are numbered in the order in which they begin: reasoning, text, refusal, audio, tool calls within one
/// message, so that a whole answer and a stream that keeps this order (all do) give the same blocks.
#[derive(Default)]
pub(super) struct ChoiceState {
    blocks: u32,
    text: Option<u32>,
    reasoning: Option<u32>,
    refusal: Option<u32>,
    /// Everything reasoned so far: the block is written once more when its signed details are complete.
    reasoning_text: String,
    details: Vec<RawJson>,
    /// The newest reasoning that came as a content part (Mistral), while no text followed it.
    thinking: Option<u32>,
    audio: Option<(u32, AudioParts)>,
    tools: ToolCalls,
    function_call: Option<(u32, String, String)>,
    finish: Option<String>,
    /// The host wrote an empty `finish_reason`; it counts only when no other follows.
    blank_finish: bool,
    message_extra: Extra,
    choice_extra: Extra,
}

/// Which of `delta` and `message` counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A whole answer.
    Whole,
    /// A chunk. A whole message in it counts only while nothing was streamed: Perplexity repeats the text so far.
    Stream,
}

impl ChoiceState {
    /// Whether a `finish_reason` was seen.
    pub(super) const fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Reads a choice object.
    pub(super) fn push(&mut self, choice: Choice<'_>, reading: Reading, chunks: &mut Vec<LlmChunk>) {
        let message = match reading {
            Reading::Whole => choice.message.or(choice.delta),
            Reading::Stream => {
                choice.delta.or_else(|| choice.message.filter(|_| self.blocks == 0 && self.finish.is_none()))
            }
        };
        if let Some(message) = message {
            self.message(*message, chunks);
        }
        if let Some(logprobs) = choice.logprobs.and_then(token_list) {
            chunks.push(LlmChunk::facts(Facts { logprobs: Some(logprobs), ..Facts::default() }));
        }
        keep(choice.rest, &mut self.choice_extra);
        match choice.finish_reason.0 {
            Some(word) if word.is_empty() => self.blank_finish = true,
            Some(word) if self.finish.as_deref() != Some(word.as_ref()) => {
                chunks.push(LlmChunk::finish(finish_reason(&word), Some(word.as_ref().to_owned())));
                self.finish = Some(word.into_owned());
            }
            _ => {}
        }
    }

    fn new_block(&mut self) -> u32 {
        let index = self.blocks;
        self.blocks += 1;
        index
    }

    fn message(&mut self, message: Message<'_>, chunks: &mut Vec<LlmChunk>) {
        // Some hosts send both names with the same text.
        let reasoning = message.reasoning_content.text().or_else(|| message.reasoning.text());
        if let Some(more) = reasoning {
            let index = match self.reasoning {
                Some(index) => index,
                None => *self.reasoning.insert(self.blocks),
            };
            self.blocks = self.blocks.max(index + 1);
            self.reasoning_text.push_str(more);
            chunks.push(LlmChunk::delta(index, Delta::Reasoning(more.to_owned())));
        }
        if let Some(details) = message.reasoning_details.filter(|raw| !matches!(raw.get(), "null" | "[]")) {
            if self.reasoning.is_none() {
                let index = self.new_block();
                self.reasoning = Some(index);
                chunks.push(LlmChunk::delta(
                    index,
                    Delta::Start(Box::new(Block::reasoning(Reasoning::default()))),
                ));
            }
            self.details.push(RawJson::from(details));
        }
        match message.content {
            Content::Nothing => {}
            Content::Text(text) => self.text(&text, chunks),
            Content::Parts(parts) => parts.into_iter().for_each(|part| self.part(part, chunks)),
        }
        if let Some(text) = message.refusal.text() {
            self.refusal(text, chunks);
        }
        if let Some(audio) = message.audio.filter(|raw| AudioParts::says_something(raw)) {
            self.audio(audio, chunks);
        }
        for call in message.tool_calls.unwrap_or_default() {
            self.tools.push(call, &mut self.blocks, chunks);
        }
        if let Some(call) = message.function_call {
            self.function_call(call, chunks);
        }
        for annotation in message.annotations.unwrap_or_default() {
            let index = match self.text {
                Some(index) => index,
                None => *self.text.insert(self.blocks),
            };
            self.blocks = self.blocks.max(index + 1);
            chunks.push(LlmChunk::delta(index, Delta::Citation(RawJson::from(annotation))));
        }
        keep(message.rest, &mut self.message_extra);
    }

    fn text(&mut self, text: &str, chunks: &mut Vec<LlmChunk>) {
        if text.is_empty() {
            return;
        }
        let index = match self.text {
            Some(index) => index,
            None => {
                let index = self.new_block();
                *self.text.insert(index)
            }
        };
        self.thinking = None;
        chunks.push(LlmChunk::delta(index, Delta::Text(text.to_owned())));
    }

    fn refusal(&mut self, text: &str, chunks: &mut Vec<LlmChunk>) {
        let index = match self.refusal {
            Some(index) => index,
            None => {
                let index = self.new_block();
                self.refusal = Some(index);
                chunks.push(LlmChunk::delta(index, Delta::Start(Box::new(Block::refusal("")))));
                index
            }
        };
        chunks.push(LlmChunk::delta(index, Delta::Text(text.to_owned())));
    }

    fn part(&mut self, raw: &RawValue, chunks: &mut Vec<LlmChunk>) {
        if raw.get().starts_with('"') {
            if let Ok(Word(Some(text))) = serde_json::from_str(raw.get()) {
                self.text(&text, chunks);
            }
            return;
        }
        let part: Part<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
        match (part.kind.text(), part.text.0.as_deref(), part.thinking) {
            (Some("text" | "output_text") | None, Some(text), _) => self.text(text, chunks),
            (_, _, Some(thinking)) => {
                let more = thinking_text(thinking);
                if more.is_empty() {
                    return;
                }
                let index = match self.thinking {
                    Some(index) => index,
                    None => {
                        let index = self.new_block();
                        *self.thinking.insert(index)
                    }
                };
                self.text = None;
                chunks.push(LlmChunk::delta(index, Delta::Reasoning(more)));
            }
            (Some("refusal"), _, _) => {
                if let Some(text) = part.refusal.text() {
                    self.refusal(text, chunks);
                }
            }
            _ => {
                let index = self.new_block();
                (self.text, self.thinking) = (None, None);
                let block = Block::opaque(wire::OPENAI_CHAT, RawJson::from(raw));
                chunks.push(LlmChunk::delta(index, Delta::Start(Box::new(block))));
            }
        }
    }

    fn audio(&mut self, raw: &RawValue, chunks: &mut Vec<LlmChunk>) {
        let index = match &self.audio {
            Some((index, _)) => *index,
            None => self.new_block(),
        };
        let (_, parts) = self.audio.get_or_insert_with(|| (index, AudioParts::default()));
        parts.push(raw);
        // Each piece replaces the one before: whoever plays while it streams gets them all, and the complete
        // block follows at the end.
        chunks.push(LlmChunk::delta(index, Delta::Start(Box::new(AudioParts::block(RawJson::from(raw))))));
    }

    /// The retired form of tool calls, without an id, answered by a message of the role `function`: not a tool call
    /// of today's form, so it is kept as it is.
    fn function_call(&mut self, raw: &RawValue, chunks: &mut Vec<LlmChunk>) {
        let Ok(call) = serde_json::from_str::<super::wire::Function<'_>>(raw.get()) else { return };
        let arguments = super::wire::arguments_text(call.arguments);
        let name = call.name.text().unwrap_or_default();
        if name.is_empty() && arguments.is_empty() {
            return;
        }
        let index = match &self.function_call {
            Some((index, ..)) => *index,
            None => self.new_block(),
        };
        let (_, known_name, known) =
            self.function_call.get_or_insert_with(|| (index, String::new(), String::new()));
        known_name.push_str(name);
        known.push_str(&arguments);
        let json = RawJson::from(&serde_json::json!({
            "function_call": { "name": known_name.as_str(), "arguments": known.as_str() }
        }));
        chunks.push(LlmChunk::delta(index, Delta::Start(Box::new(Block::opaque(wire::OPENAI_CHAT, json)))));
    }

    /// What can be said only when all is there.
    pub(super) fn end(&mut self, chunks: &mut Vec<LlmChunk>) {
        if let (Some(index), Some(json)) = (self.reasoning, merge_details(&self.details)) {
            let block = Block::reasoning(Reasoning {
                text: std::mem::take(&mut self.reasoning_text),
                origin: Some(wire::OPENAI_CHAT.to_owned()),
                json: Some(json),
                ..Reasoning::default()
            });
            chunks.push(LlmChunk::delta(index, Delta::Replace(Box::new(block))));
        }
        if let Some((index, parts)) = self.audio.take() {
            chunks.push(LlmChunk::delta(index, Delta::Replace(Box::new(parts.whole()))));
        }
        self.tools.end(chunks);
        if self.finish.is_none() && self.blank_finish {
            chunks.push(LlmChunk::finish(FinishReason::Other, Some(String::new())));
        }
        let mut extra = Extra::new();
        for (name, fields) in [("choice", &self.choice_extra), ("message", &self.message_extra)] {
            if let (false, Ok(json)) = (fields.is_empty(), RawJson::from_value(fields)) {
                extra.insert(name.to_owned(), json);
            }
        }
        if !extra.is_empty() {
            chunks.push(LlmChunk::facts(Facts { extra, ..Facts::default() }));
        }
    }
}

/// The list of tokens in a choice's `logprobs`; other forms (the retired completions') are kept as one item.
fn token_list(raw: &RawValue) -> Option<RawJson> {
    #[derive(serde::Deserialize)]
    struct Logprobs<'a> {
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
        #[serde(borrow, default)]
        refusal: Option<&'a RawValue>,
    }
    match serde_json::from_str::<Logprobs<'_>>(raw.get()) {
        Ok(Logprobs { content: None, refusal: None }) => {
            let empty = raw.get().len() <= 2 || raw.get().contains("null") || raw.get().contains("{}");
            (!empty).then(|| RawJson::from_value(&[raw]).ok()).flatten()
        }
        Ok(Logprobs { content, refusal }) => {
            content.or(refusal).filter(|list| list.get() != "[]").map(RawJson::from)
        }
        Err(_) => RawJson::from_value(&[raw]).ok(),
    }
}

/// The neutral word for a vendor's `finish_reason`.
pub(super) fn finish_reason(word: &str) -> FinishReason {
    match word {
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" => FinishReason::Stop,
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "tool_calls" | "tool_use" | "function_call" => FinishReason::ToolCalls,
        "content_filter" | "refusal" | "safety" => FinishReason::ContentFilter,
        "error" => FinishReason::Error,
        _ => FinishReason::Other,
    }
}
