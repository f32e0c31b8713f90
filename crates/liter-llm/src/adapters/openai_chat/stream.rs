//! An answer from its JSON, whole or in chunks: the one mapping that both `decode` and the decoder use.

use serde_json::value::RawValue;

use super::choice::{ChoiceState, Reading};
use super::errors;
use super::usage;
use super::wire::{Answer, Choice, keep};
use crate::adapters::{Decoder, Frame};
use crate::core::chunk::{Facts, LlmChunk};
use crate::core::content::Message;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::fold::Folder;
use crate::core::json::{Extra, RawJson, fields};
use crate::core::response::{FinishReason, Usage};

/// What was read of an answer so far.
#[derive(Default)]
pub(super) struct AnswerState {
    first: ChoiceState,
    first_seen: bool,
    /// Further alternatives (`n` above 1) by their index; folded here, and told at the end.
    others: Vec<(u64, ChoiceState, Folder)>,
    /// What was told already: most hosts repeat these in every chunk.
    id: String,
    model: String,
    service_tier: String,
    extra: Extra,
    usage: Option<Usage>,
    started: bool,
    ended: bool,
}

/// An error object in `error` that says something.
pub(super) fn error_of<'a>(answer: &Answer<'a>) -> Option<&'a RawValue> {
    let in_choice = answer.choices.iter().flatten().find_map(|choice| choice.error);
    answer.error.or(in_choice).filter(|raw| !matches!(raw.get(), "null" | "{}" | "\"\"" | "false"))
}

impl AnswerState {
    /// Whether any alternative was seen.
    pub(super) const fn has_choices(&self) -> bool {
        self.first_seen || !self.others.is_empty()
    }

    /// Whether every alternative seen gave its `finish_reason`.
    fn is_finished(&self) -> bool {
        self.has_choices()
            && (!self.first_seen || self.first.is_finished())
            && self.others.iter().all(|(_, choice, _)| choice.is_finished())
    }

    /// Reads an answer or a chunk without an error object.
    pub(super) fn push(
        &mut self,
        provider: &str,
        answer: Answer<'_>,
        reading: Reading,
        chunks: &mut Vec<LlmChunk>,
    ) {
        let groq_usage = match answer.usage {
            Some(_) => None,
            None => answer.rest.iter().find(|(name, _)| name == "x_groq").and_then(|(_, raw)| {
                fields(raw.get()).ok().and_then(|map| map.get("usage").and_then(|raw| usage::read(raw)))
            }),
        };
        self.facts(provider, &answer.id, &answer.model, &answer.service_tier, answer.rest, chunks);
        for (position, choice) in (0_u64..).zip(answer.choices.unwrap_or_default()) {
            self.choice(choice.index.0.unwrap_or(position), choice, reading, chunks);
        }
        let usage = answer.usage.and_then(usage::read).or(groq_usage);
        if let Some(usage) = usage.filter(|usage| self.usage.as_ref() != Some(usage)) {
            // A whole answer comes once: nothing will repeat it.
            if reading == Reading::Stream {
                self.usage = Some(usage.clone());
            }
            chunks.push(LlmChunk::usage(usage));
        }
    }

    fn facts(
        &mut self,
        provider: &str,
        id: &super::wire::Word<'_>,
        model: &super::wire::Word<'_>,
        service_tier: &super::wire::Word<'_>,
        rest: super::wire::Rest<'_>,
        chunks: &mut Vec<LlmChunk>,
    ) {
        fn news(known: &mut String, word: &super::wire::Word<'_>) -> Option<String> {
            let text = word.text().filter(|text| text != known)?;
            text.clone_into(known);
            Some(known.clone())
        }
        let told =
            |known: &String, word: &super::wire::Word<'_>| word.text().is_none_or(|text| text == known);
        // A few fields are searched faster than hashed.
        let known = |name: &str| self.extra.iter().find(|(known, _)| *known == name);
        if self.started
            && (!self.id.is_empty() || id.text().is_none())
            && told(&self.model, model)
            && told(&self.service_tier, service_tier)
            && rest.iter().all(|(name, raw)| {
                raw.get() == "null" || known(name).is_some_and(|(_, value)| value.get() == raw.get())
            })
        {
            return;
        }
        // The first id names the answer; a few hosts put another one into later chunks.
        let mut facts = Facts {
            id: if self.id.is_empty() { news(&mut self.id, id) } else { None },
            model: news(&mut self.model, model),
            service_tier: news(&mut self.service_tier, service_tier),
            ..Facts::default()
        };
        let fresh: super::wire::Rest<'_> = rest
            .into_iter()
            .filter(|(name, raw)| self.extra.get(name.as_ref()).is_none_or(|known| known.get() != raw.get()))
            .collect();
        keep(fresh, &mut facts.extra);
        self.extra.extend(facts.extra.iter().map(|(name, value)| (name.clone(), value.clone())));
        if !self.started {
            self.started = true;
            facts.provider = Some(provider.to_owned());
        }
        if facts != Facts::default() {
            chunks.push(LlmChunk::facts(facts));
        }
    }

    fn choice(&mut self, index: u64, choice: Choice<'_>, reading: Reading, chunks: &mut Vec<LlmChunk>) {
        if index == 0 {
            self.first_seen = true;
            self.first.push(choice, reading, chunks);
            return;
        }
        let place = match self.others.iter().position(|(known, ..)| *known == index) {
            Some(place) => place,
            None => {
                self.others.push((index, ChoiceState::default(), Folder::new()));
                self.others.len() - 1
            }
        };
        let (_, state, folder) = &mut self.others[place];
        let mut own = Vec::new();
        state.push(choice, reading, &mut own);
        own.iter().for_each(|chunk| folder.push(chunk));
    }

    /// Tells what can be told only at the end; nothing when it was told before.
    pub(super) fn end(&mut self, chunks: &mut Vec<LlmChunk>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.first.end(chunks);
        if self.others.is_empty() {
            return;
        }
        let mut others = std::mem::take(&mut self.others);
        others.sort_by_key(|(index, ..)| *index);
        let list: Vec<Further> = others
            .into_iter()
            .map(|(index, mut state, mut folder)| {
                let mut own = Vec::new();
                state.end(&mut own);
                own.iter().for_each(|chunk| folder.push(chunk));
                let answer = folder.finish();
                Further {
                    index,
                    message: answer.message,
                    finish_reason: answer.finish_reason,
                    raw_finish_reason: answer.raw_finish_reason,
                    logprobs: answer.logprobs,
                }
            })
            .collect();
        let mut facts = Facts::default();
        if let Ok(list) = RawJson::from_value(&list) {
            facts.extra.insert("choices".to_owned(), list);
        }
        chunks.push(LlmChunk::facts(facts));
    }
}

/// A further alternative, as it is told: what is the vendor's own stays as it was written.
#[derive(serde::Serialize)]
struct Further {
    index: u64,
    message: Message,
    finish_reason: FinishReason,
    raw_finish_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<RawJson>,
}

/// The decoder of streamed chat completions.
pub(super) struct ChatDecoder {
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) state: AnswerState,
    pub(super) done: bool,
}

impl ChatDecoder {
    fn interrupted(&self, message: &str) -> LlmError {
        LlmError::new(ErrorKind::StreamInterrupted, message)
            .with(|detail| errors::place(detail, &self.provider, &self.model))
    }
}

impl Decoder for ChatDecoder {
    fn push(&mut self, frame: Frame<'_>, chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        if self.done {
            return Ok(());
        }
        let (name, data) = match frame {
            Frame::Event { name, data } => (name, data.trim()),
            Frame::Text(data) => ("message", data.trim()),
            Frame::Binary { payload, .. } => {
                let what = "a binary event came where server-sent events were expected";
                return Err(errors::undecodable(&self.provider, &self.model, what, payload));
            }
        };
        if data.is_empty() {
            return Ok(());
        }
        if data == "[DONE]" {
            if !self.state.has_choices() {
                return Err(self.interrupted("the stream ended before any answer"));
            }
            self.state.end(chunks);
            self.done = true;
            return Ok(());
        }
        let answer: Answer<'_> = match serde_json::from_str(data) {
            Ok(answer) => answer,
            // Signs of life that some hosts send as events instead of comments.
            Err(_) if matches!(name, "ping" | "keepalive" | "keep-alive" | "heartbeat") => return Ok(()),
            Err(error) => {
                let what = "the stream holds an event that is not a chat completion chunk";
                let failure = errors::undecodable(&self.provider, &self.model, what, data.as_bytes());
                return Err(failure.with_source(error));
            }
        };
        if name == "error" || error_of(&answer).is_some() {
            return Err(errors::inside(&self.provider, &self.model, None, data.as_bytes()));
        }
        self.state.push(&self.provider, answer, Reading::Stream, chunks);
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn finish(&mut self, chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        if !self.done {
            if !self.state.is_finished() {
                return Err(self.interrupted("the stream ended before the answer did"));
            }
            self.state.end(chunks);
            self.done = true;
        }
        Ok(())
    }
}
