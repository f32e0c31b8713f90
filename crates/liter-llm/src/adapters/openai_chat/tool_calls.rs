//! Tool calls from the pieces in which hosts stream them, and from whole messages.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::wire::{ToolCall, Word, arguments_text, keep};
use crate::core::chunk::{Delta, LlmChunk};
use crate::core::content::{Block, wire};
use crate::core::json::{Extra, RawJson};

/// One call as far as it has come.
#[derive(Default)]
struct Slot {
    block: u32,
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    extra: Extra,
    /// OpenAI's custom tools take free text instead of JSON arguments.
    custom: bool,
}

impl Slot {
    fn whole(&self) -> Block {
        Block::tool_call(&self.id, &self.name, &self.arguments).with_extra(self.extra.clone())
    }

    fn custom_block(&self) -> Block {
        let json = serde_json::json!({
            "id": self.id,
            "type": "custom",
            "custom": { "name": self.name, "input": self.arguments },
        });
        Block::opaque(wire::OPENAI_CHAT, RawJson::from(&json))
    }

    fn is_complete(&self) -> bool {
        !self.arguments.is_empty() && serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }
}

/// The calls of one message.
#[derive(Default)]
pub(super) struct ToolCalls(Vec<Slot>);

impl ToolCalls {
    /// Reads a call, or a piece of one. `blocks` counts the message's blocks.
    pub(super) fn push(&mut self, call: ToolCall<'_>, blocks: &mut u32, chunks: &mut Vec<LlmChunk>) {
        let mut extra = Extra::new();
        let mut custom = None;
        let mut rest = call.rest;
        if call.function.is_none()
            && let Some(place) = rest.iter().position(|(name, _)| name == "custom")
        {
            custom = Some(rest.remove(place).1);
        }
        keep(rest, &mut extra);
        let is_custom = custom.is_some();
        let (name, arguments) = match custom {
            Some(raw) => custom_input(raw),
            None => {
                let function = call.function.unwrap_or_default();
                let name = function.name.text().unwrap_or_default().to_owned();
                let arguments = arguments_text(function.arguments);
                keep(function.rest, &mut extra);
                (name, arguments)
            }
        };
        let id = call.id.text().unwrap_or_default();
        let place = match self.find(call.index.0, id, &name, &arguments) {
            Some(place) => place,
            None => {
                let block = *blocks;
                *blocks += 1;
                let slot = Slot {
                    block,
                    index: call.index.0,
                    id: id.to_owned(),
                    name,
                    arguments,
                    extra,
                    custom: is_custom,
                };
                if !is_custom {
                    chunks.push(LlmChunk::delta(block, Delta::Start(Box::new(slot.whole()))));
                }
                self.0.push(slot);
                return;
            }
        };
        let slot = &mut self.0[place];
        if !name.is_empty() && slot.is_complete() && slot.arguments == arguments {
            return; // The host repeats the finished call.
        }
        slot.arguments.push_str(&arguments);
        let mut learnt = false;
        if slot.id.is_empty() && !id.is_empty() {
            id.clone_into(&mut slot.id);
            learnt = true;
        }
        if slot.name.is_empty() && !name.is_empty() {
            slot.name = name;
            learnt = true;
        }
        for (name, value) in extra {
            learnt |= slot.extra.insert(name, value.clone()).as_ref() != Some(&value);
        }
        if slot.custom {
            return;
        }
        if learnt {
            chunks.push(LlmChunk::delta(slot.block, Delta::Replace(Box::new(slot.whole()))));
        } else if !arguments.is_empty() {
            chunks.push(LlmChunk::delta(slot.block, Delta::Arguments(arguments)));
        }
    }

    /// The call that a piece continues; `None` when it begins a new one.
    ///
    /// By `index` where the host gives one, but a new id together with a name is a new call: several hosts send
    /// index 0 always. Without an index by id; a piece without either continues the newest call.
    fn find(&self, index: Option<u64>, id: &str, name: &str, arguments: &str) -> Option<usize> {
        let last = self.0.len().checked_sub(1)?;
        let place = match index {
            Some(_) => match self.0.iter().rposition(|slot| slot.index == index) {
                Some(place) => place,
                None => return self.0.iter().position(|slot| slot.index.is_none() && is_same(&slot.id, id)),
            },
            None if !id.is_empty() => match self.0.iter().rposition(|slot| slot.id == id) {
                Some(place) => place,
                None if name.is_empty() => last,
                None => return None,
            },
            None => last,
        };
        let slot = &self.0[place];
        if name.is_empty() {
            return Some(place);
        }
        let other_id = !id.is_empty() && !slot.id.is_empty() && slot.id != id;
        // Without ids, a name after finished arguments begins the next call.
        let next = id.is_empty() && slot.is_complete() && !(slot.name == name && slot.arguments == arguments);
        (!other_id && !next).then_some(place)
    }

    /// Emits what could not be said before its end.
    pub(super) fn end(&mut self, chunks: &mut Vec<LlmChunk>) {
        for slot in self.0.iter().filter(|slot| slot.custom) {
            chunks.push(LlmChunk::delta(slot.block, Delta::Start(Box::new(slot.custom_block()))));
        }
    }
}

fn is_same(known: &str, id: &str) -> bool {
    !id.is_empty() && known == id
}

fn custom_input(raw: &RawValue) -> (String, String) {
    #[derive(serde::Deserialize, Default)]
    struct Custom<'a> {
        #[serde(borrow, default)]
        name: Word<'a>,
        #[serde(borrow, default)]
        input: Word<'a>,
    }
    let custom: Custom<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
    let text = |word: Word<'_>| word.0.unwrap_or_default().into_owned();
    (text(custom.name), text(custom.input))
}
