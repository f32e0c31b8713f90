//! Reading a streamed answer: the events of `POST /responses` with `stream`, and of the WebSocket mode.

use serde_json::value::RawValue;

use super::super::{Decoder, Frame, Target};
use super::decode::{Note, Source, answer, blocks_of, finish_of, note_of, part_block};
use super::event::{Event, number, string};
use crate::core::chunk::{Delta, Facts, LlmChunk};
use crate::core::content::{Block, BlockKind, Reasoning, wire};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::json::{Extra, RawJson, fields, take_text};
use crate::core::response::LlmResponse;

/// What kind of item is open.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Message,
    Reasoning,
    Call,
    /// Comes whole when it is done.
    Other,
}

/// One output item of the answer.
struct Item {
    kind: Kind,
    output_index: Option<u64>,
    id: Option<String>,
    /// What its blocks remember of it.
    note: Extra,
    /// Content index and place in `Answer::slots` of each of its blocks; the first place is kept from the start.
    places: Vec<(u64, usize)>,
    /// Which summary or content part of a reasoning item came last.
    thought: Option<(bool, u64)>,
    done: bool,
}

/// One content block: its place in the list is its number in chunks.
#[derive(Default)]
struct Slot {
    /// What the chunks so far build; `None` before the first.
    block: Option<Block>,
    citations: Vec<RawJson>,
}

/// Decodes the events of one answer.
///
/// It keeps a copy of what its chunks build, so that the items in their final form (`response.output_item.done`, and
/// once more in the last event) lead to chunks only where they differ.
pub(super) struct ResponsesDecoder {
    source: Source,
    items: Vec<Item>,
    slots: Vec<Slot>,
    logprobs_seen: bool,
    done: bool,
}

impl Decoder for ResponsesDecoder {
    fn push(&mut self, frame: Frame<'_>, chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        let (name, data) = match frame {
            Frame::Event { name, data } => (name, data),
            Frame::Text(text) => ("message", text),
            Frame::Binary { payload, .. } => {
                return Err(self.source.unreadable("a binary message is no event of this API", payload));
            }
        };
        let data = data.trim();
        // Some hosts end with chat's marker; it is no terminator here.
        if self.done || data.is_empty() || data == "[DONE]" {
            return Ok(());
        }
        let event: Event<'_> = serde_json::from_str(data).map_err(|error| {
            self.source
                .unreadable("an event of the stream is not a JSON object", data.as_bytes())
                .with_source(error)
        })?;
        let kind = string(event.kind);
        let kind = match kind.as_deref() {
            Some(kind) => kind,
            None if event.error.is_some_and(|error| error.get() != "null") => "error",
            None => name,
        };
        self.event(kind, &event, data, chunks)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn finish(&mut self, _chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        if self.done {
            return Ok(());
        }
        Err(LlmError::new(
            ErrorKind::StreamInterrupted,
            "the stream ended before `response.completed`, `response.incomplete` or `response.failed`",
        )
        .with(|detail| {
            detail.provider = Some(self.source.provider.clone());
            detail.model = Some(self.source.model.clone()).filter(|model| !model.is_empty());
        }))
    }
}

impl ResponsesDecoder {
    pub(super) fn new(target: &Target<'_>) -> Self {
        Self {
            source: Source::of(target),
            items: Vec::new(),
            slots: Vec::new(),
            logprobs_seen: false,
            done: false,
        }
    }

    fn event(
        &mut self,
        kind: &str,
        event: &Event<'_>,
        data: &str,
        chunks: &mut Vec<LlmChunk>,
    ) -> Result<(), LlmError> {
        match kind {
            "response.output_text.delta" => {
                let first = chunks.len();
                let place = self.part(event, || Block::text(""), chunks);
                self.grow(place, string(event.delta).unwrap_or_default(), chunks);
                self.logprobs(event.logprobs, first, chunks);
            }
            "response.refusal.delta" => {
                let place = self.part(event, || Block::refusal(""), chunks);
                self.grow(place, string(event.delta).unwrap_or_default(), chunks);
            }
            "response.output_text.done" => self.catch_up(event, Kind::Message, event.text, chunks),
            "response.refusal.done" => self.catch_up(event, Kind::Message, event.refusal, chunks),
            "response.function_call_arguments.delta" => {
                let place = self.item(event, Kind::Call, chunks);
                self.grow(place, string(event.delta).unwrap_or_default(), chunks);
            }
            "response.function_call_arguments.done" => {
                self.catch_up(event, Kind::Call, event.arguments, chunks);
            }
            "response.reasoning_summary_text.delta" => self.thought(event, true, event.summary_index, chunks),
            "response.reasoning_text.delta" => self.thought(event, false, event.content_index, chunks),
            "response.output_text.annotation.added" => {
                if let Some(annotation) = event.annotation.filter(|annotation| annotation.get() != "null") {
                    let place = self.part(event, || Block::text(""), chunks);
                    self.cite(place, RawJson::from(annotation), chunks);
                }
            }
            "response.content_part.added" => {
                if let Some(part) = event.part {
                    self.part_added(event, part, chunks);
                }
            }
            "response.output_item.added" => {
                if let Some(item) = event.item {
                    self.item_added(event, item, chunks);
                }
            }
            "response.output_item.done" => {
                if let Some(item) = event.item {
                    self.item_done(event, item, chunks);
                }
            }
            "response.created" => {
                if let Some(mut map) = event.response.and_then(|response| fields(response.get()).ok()) {
                    chunks.push(LlmChunk::facts(Facts {
                        id: take_text(&mut map, "id"),
                        model: take_text(&mut map, "model"),
                        provider: Some(self.source.provider.clone()),
                        ..Facts::default()
                    }));
                }
            }
            "response.completed" => return self.end(event.response, "completed", data, chunks),
            "response.incomplete" => return self.end(event.response, "incomplete", data, chunks),
            "response.failed" => return self.end(event.response, "failed", data, chunks),
            "error" => {
                let status = number(event.status).and_then(|status| u16::try_from(status).ok());
                return Err(self.source.in_band(data, status, ErrorKind::ProviderError));
            }
            // Progress of the provider's own tools, and what is not known yet.
            _ => {}
        }
        Ok(())
    }

    /// Opens a new item and keeps the number of its first block.
    fn open(&mut self, kind: Kind, event: &Event<'_>, id: Option<String>, note: Extra) -> usize {
        self.slots.push(Slot::default());
        self.items.push(Item {
            kind,
            output_index: number(event.output_index),
            id,
            note,
            places: Vec::new(),
            thought: None,
            done: false,
        });
        let item = self.items.len() - 1;
        self.items[item].places.push((0, self.slots.len() - 1));
        item
    }

    /// The item an event belongs to: the newest with its output index, else with its id, else the newest open one.
    fn find(&self, event: &Event<'_>, id: Option<&str>, kind: Option<Kind>) -> Option<usize> {
        let fits = |item: &Item| kind.is_none_or(|kind| kind == item.kind);
        let index = number(event.output_index);
        let newest =
            |test: &dyn Fn(&Item) -> bool| self.items.iter().rposition(|item| fits(item) && test(item));
        match (index, id) {
            (Some(index), _) => newest(&|item| item.output_index == Some(index)),
            (None, Some(id)) => newest(&|item| item.id.as_deref() == Some(id)),
            (None, None) => newest(&|item| !item.done),
        }
    }

    /// The item an event adds to, opened now when it was not announced.
    fn item_index(&mut self, event: &Event<'_>, kind: Kind) -> usize {
        // The id matters only where there is no index, so it is not read for every delta.
        let id = if event.output_index.is_none() { string(event.item_id) } else { None };
        match self.find(event, id.as_deref(), Some(kind)) {
            Some(item) => item,
            None => self.open(kind, event, string(event.item_id), Extra::new()),
        }
    }

    /// The number of the one block of an item, begun when it is new.
    fn item(&mut self, event: &Event<'_>, kind: Kind, chunks: &mut Vec<LlmChunk>) -> usize {
        let item = self.item_index(event, kind);
        let place = self.items[item].places[0].1;
        if self.slots[place].block.is_none() {
            let block = match kind {
                Kind::Reasoning => Block::reasoning(Reasoning {
                    origin: Some(wire::OPENAI_RESPONSES.to_owned()),
                    ..Reasoning::default()
                }),
                _ => Block::tool_call(self.items[item].id.clone().unwrap_or_default(), "", ""),
            };
            self.begin(place, block, chunks);
        }
        place
    }

    /// The number of the block of a message part, begun as `empty` when it is new.
    fn part(
        &mut self,
        event: &Event<'_>,
        empty: impl FnOnce() -> Block,
        chunks: &mut Vec<LlmChunk>,
    ) -> usize {
        let item = self.item_index(event, Kind::Message);
        let place = self.part_place(item, number(event.content_index).unwrap_or(0));
        if self.slots[place].block.is_none() {
            let block = empty().with_extra(self.items[item].note.clone());
            self.begin(place, block, chunks);
        }
        place
    }

    fn part_place(&mut self, item: usize, content_index: u64) -> usize {
        let slots = &self.slots;
        let places = &mut self.items[item].places;
        if let Some((_, place)) = places.iter().find(|(index, _)| *index == content_index) {
            return *place;
        }
        // The place kept for the item goes to the part that comes first, whatever its index.
        if let [(index, place)] = places.as_mut_slice()
            && slots[*place].block.is_none()
        {
            *index = content_index;
            return *place;
        }
        self.new_place(item, content_index)
    }

    fn new_place(&mut self, item: usize, content_index: u64) -> usize {
        self.slots.push(Slot::default());
        let place = self.slots.len() - 1;
        self.items[item].places.push((content_index, place));
        place
    }

    fn part_added(&mut self, event: &Event<'_>, part: &RawValue, chunks: &mut Vec<LlmChunk>) {
        let id = string(event.item_id);
        let item = match self.find(event, id.as_deref(), None) {
            Some(item) if self.items[item].kind != Kind::Message => return,
            Some(item) => item,
            // Without an item the part must say itself that it belongs to a message.
            None if part.get().contains("output_text") || part.get().contains("refusal") => {
                self.open(Kind::Message, event, id, Extra::new())
            }
            None => return,
        };
        let place = self.part_place(item, number(event.content_index).unwrap_or(0));
        if self.slots[place].block.is_none() {
            let block = part_block(part, self.items[item].note.clone(), &mut Vec::new());
            if !matches!(block.kind, BlockKind::Opaque { .. }) {
                self.begin(place, block, chunks);
            }
        }
    }

    fn item_added(&mut self, event: &Event<'_>, item: &RawValue, chunks: &mut Vec<LlmChunk>) {
        let Ok(mut map) = fields(item.get()) else { return };
        let kind = match take_text(&mut map, "type").as_deref() {
            Some("message") => Kind::Message,
            Some("reasoning") => Kind::Reasoning,
            Some("function_call") => Kind::Call,
            _ => Kind::Other,
        };
        let id = take_text(&mut map, "id");
        let note = note_of(item.get(), Note::Begun);
        let opened = self.open(kind, event, id, note.clone());
        if kind == Kind::Call
            && let Some(mut block) = blocks_of(item, &mut Vec::new()).pop()
        {
            if let BlockKind::ToolCall { arguments, .. } = &mut block.kind {
                // What is there already comes again as deltas or with the whole item.
                arguments.clear();
            }
            let place = self.items[opened].places[0].1;
            self.begin(place, block.with_extra(note), chunks);
        }
    }

    fn item_done(&mut self, event: &Event<'_>, item: &RawValue, chunks: &mut Vec<LlmChunk>) {
        let id = fields(item.get()).ok().and_then(|mut map| take_text(&mut map, "id"));
        let found = self.find(event, id.as_deref(), None).filter(|found| !self.items[*found].done);
        let found = match found {
            Some(found) => found,
            None => self.open(Kind::Other, event, id, Extra::new()),
        };
        self.items[found].done = true;
        let mut logprobs = Vec::new();
        let blocks = blocks_of(item, &mut logprobs);
        if blocks.is_empty() {
            let place = self.items[found].places[0].1;
            self.settle(place, Block::text("").with_extra(note_of(item.get(), Note::Final)), chunks);
        }
        // By order, not by index: some hosts count a reasoning part that is no part of the final message.
        let mut places = self.items[found].places.clone();
        places.sort_unstable();
        for (position, block) in blocks.into_iter().enumerate() {
            let place = match places.get(position) {
                Some((_, place)) => *place,
                None => self.new_place(found, u64::MAX),
            };
            self.settle(place, block, chunks);
        }
        self.late_logprobs(logprobs, chunks);
    }

    fn begin(&mut self, place: usize, block: Block, chunks: &mut Vec<LlmChunk>) {
        chunks.push(chunk(place, Delta::Start(Box::new(block.clone()))));
        self.slots[place].block = Some(block);
    }

    /// Adds text to a block, whatever its kind calls it.
    fn grow(&mut self, place: usize, more: String, chunks: &mut Vec<LlmChunk>) {
        if more.is_empty() {
            return;
        }
        let Some(block) = &mut self.slots[place].block else { return };
        let delta = match &mut block.kind {
            BlockKind::Text { text, .. } | BlockKind::Refusal { text } => {
                text.push_str(&more);
                Delta::Text(more)
            }
            BlockKind::Reasoning(reasoning) => {
                reasoning.text.push_str(&more);
                Delta::Reasoning(more)
            }
            BlockKind::ToolCall { arguments, .. } => {
                arguments.push_str(&more);
                Delta::Arguments(more)
            }
            _ => return,
        };
        chunks.push(chunk(place, delta));
    }

    fn cite(&mut self, place: usize, citation: RawJson, chunks: &mut Vec<LlmChunk>) {
        if matches!(&self.slots[place].block, Some(block) if matches!(block.kind, BlockKind::Text { .. })) {
            self.slots[place].citations.push(citation.clone());
            chunks.push(chunk(place, Delta::Citation(citation)));
        }
    }

    /// A `*.done` event gives the whole text: what the deltas left out is added.
    fn catch_up(
        &mut self,
        event: &Event<'_>,
        kind: Kind,
        whole: Option<&RawValue>,
        chunks: &mut Vec<LlmChunk>,
    ) {
        let (Some(item), Some(whole)) =
            (self.find(event, string(event.item_id).as_deref(), Some(kind)), string(whole))
        else {
            return;
        };
        let place = match kind {
            Kind::Message => self.part_place(item, number(event.content_index).unwrap_or(0)),
            _ => self.items[item].places[0].1,
        };
        let rest = self.slots[place].block.as_ref().and_then(|block| whole.strip_prefix(text_of(block)?));
        if let Some(rest) = rest.map(str::to_owned) {
            self.grow(place, rest, chunks);
        }
    }

    /// More reasoning; its parts are set apart by an empty line, as in the whole answer.
    fn thought(
        &mut self,
        event: &Event<'_>,
        summary: bool,
        index: Option<&RawValue>,
        chunks: &mut Vec<LlmChunk>,
    ) {
        let Some(mut more) = string(event.delta).filter(|more| !more.is_empty()) else { return };
        let place = self.item(event, Kind::Reasoning, chunks);
        let item = self.item_index(event, Kind::Reasoning);
        let part = (summary, number(index).unwrap_or(0));
        if self.items[item].thought.replace(part).is_some_and(|last| last != part) {
            more.insert_str(0, "\n\n");
        }
        self.grow(place, more, chunks);
    }

    /// Log probabilities of a delta travel in the chunk of the delta, or in one of their own.
    fn logprobs(&mut self, tokens: Option<&RawValue>, first: usize, chunks: &mut Vec<LlmChunk>) {
        let Some(tokens) = tokens.filter(|tokens| tokens.get().len() > 2 && tokens.get().starts_with('['))
        else {
            return;
        };
        self.logprobs_seen = true;
        let facts = Facts { logprobs: Some(RawJson::from(tokens)), ..Facts::default() };
        match chunks[first..].last_mut() {
            Some(last) if last.facts.is_none() => last.facts = Some(Box::new(facts)),
            _ => chunks.push(LlmChunk::facts(facts)),
        }
    }

    /// Log probabilities that came only with a whole item.
    fn late_logprobs(&mut self, tokens: Vec<RawJson>, chunks: &mut Vec<LlmChunk>) {
        if !self.logprobs_seen
            && !tokens.is_empty()
            && let Ok(json) = RawJson::from_value(&tokens)
        {
            self.logprobs_seen = true;
            chunks.push(LlmChunk::facts(Facts { logprobs: Some(json), ..Facts::default() }));
        }
    }

    /// Brings a block into its final form: nothing when it has it, the rest when only the end is missing, else whole.
    fn settle(&mut self, place: usize, mut last: Block, chunks: &mut Vec<LlmChunk>) {
        let slot = &mut self.slots[place];
        let Some(built) = &slot.block else {
            slot.citations.clear();
            return self.begin(place, last, chunks);
        };
        // Some hosts send the text only as deltas and leave it out of the item.
        if let (BlockKind::Reasoning(built), BlockKind::Reasoning(last)) = (&built.kind, &mut last.kind) {
            if last.text.is_empty() {
                last.text.clone_from(&built.text);
            }
        } else if text_of(&last) == Some("") && text_of(built).is_some_and(|text| !text.is_empty()) {
            return;
        }
        if built.extra == last.extra
            && let Some((rest, cited)) = remainder(built, &slot.citations, &last)
        {
            self.grow(place, rest, chunks);
            for citation in cited {
                self.cite(place, citation, chunks);
            }
            return;
        }
        chunks.push(chunk(place, Delta::Replace(Box::new(last.clone()))));
        *slot = Slot { block: Some(last), citations: Vec::new() };
    }

    /// The last event: the answer in its final form.
    fn end(
        &mut self,
        response: Option<&RawValue>,
        status: &str,
        data: &str,
        chunks: &mut Vec<LlmChunk>,
    ) -> Result<(), LlmError> {
        let object = response.map(RawValue::get).filter(|object| *object != "null").unwrap_or("{}");
        let map = fields(object).map_err(|error| {
            self.source.unreadable("`response` is not an object", data.as_bytes()).with_source(error)
        })?;
        let whole = answer(map, data.as_bytes(), Some(status), &self.source)?;
        self.reconcile(&whole, chunks);
        let built: Vec<Block> = self.slots.iter().filter_map(|slot| slot.block.clone()).collect();
        let (mut reason, mut raw) = (whole.finish_reason, whole.raw_finish_reason);
        if whole.message.content().is_empty() {
            // The items came only as events; whether tools are wanted shows in them.
            if let Some("completed" | "complete") = raw.as_deref() {
                (reason, raw) = finish_of(raw.as_deref(), None, &built);
            }
        }
        let mut last = LlmChunk::finish(reason, raw);
        last.usage = whole.usage.map(Box::new);
        last.facts = Some(Box::new(Facts {
            id: Some(whole.id).filter(|id| !id.is_empty()),
            model: Some(whole.model).filter(|model| !model.is_empty()),
            provider: Some(whole.provider),
            service_tier: whole.service_tier,
            logprobs: whole.logprobs.filter(|_| !self.logprobs_seen),
            extra: whole.extra,
            ..Facts::default()
        }));
        chunks.push(last);
        self.done = true;
        Ok(())
    }

    /// Corrects what the final answer says otherwise than the events. An answer that lists fewer items than were
    /// streamed (some hosts leave `output` empty) corrects nothing.
    fn reconcile(&mut self, whole: &LlmResponse, chunks: &mut Vec<LlmChunk>) {
        let blocks = whole.message.content();
        let begun: Vec<usize> = (0..self.slots.len()).filter(|at| self.slots[*at].block.is_some()).collect();
        let places = if self.slots.len() <= blocks.len() {
            (0..self.slots.len()).collect()
        } else if begun.len() <= blocks.len() {
            begun
        } else {
            return;
        };
        for (position, block) in blocks.iter().enumerate() {
            let place = match places.get(position) {
                Some(place) => *place,
                None => {
                    self.slots.push(Slot::default());
                    self.slots.len() - 1
                }
            };
            self.settle(place, block.clone(), chunks);
        }
    }
}

fn chunk(place: usize, delta: Delta) -> LlmChunk {
    LlmChunk::delta(u32::try_from(place).unwrap_or(u32::MAX), delta)
}

/// The text of a block that grows by deltas.
fn text_of(block: &Block) -> Option<&str> {
    match &block.kind {
        BlockKind::Text { text, .. } | BlockKind::Refusal { text } => Some(text),
        BlockKind::ToolCall { arguments, .. } => Some(arguments),
        _ => None,
    }
}

/// What must be added to `built` to make it `last`: text and citations; `None` when adding is not enough.
fn remainder(built: &Block, cited: &[RawJson], last: &Block) -> Option<(String, Vec<RawJson>)> {
    match (&built.kind, &last.kind) {
        (BlockKind::Text { text, citations: None }, BlockKind::Text { text: whole, citations }) => {
            let wanted = match citations {
                None => Vec::new(),
                Some(list) => list.read::<Vec<RawJson>>().ok()?,
            };
            let more = wanted.strip_prefix(cited)?.to_vec();
            Some((whole.strip_prefix(text.as_str())?.to_owned(), more))
        }
        (BlockKind::Refusal { text }, BlockKind::Refusal { text: whole }) => {
            Some((whole.strip_prefix(text.as_str())?.to_owned(), Vec::new()))
        }
        (
            BlockKind::ToolCall { id, name, arguments },
            BlockKind::ToolCall { id: last_id, name: last_name, arguments: whole },
        ) if id == last_id && name == last_name => {
            Some((whole.strip_prefix(arguments.as_str())?.to_owned(), Vec::new()))
        }
        (left, right) => (left == right).then(Default::default),
    }
}
