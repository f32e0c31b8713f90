//! Folding a stream's chunks into the whole answer, and cutting a whole answer into chunks.

use super::chunk::{Delta, Facts, LlmChunk};
use super::content::{Block, BlockKind, Message, Reasoning, Role};
use super::json::RawJson;
use super::response::LlmResponse;

/// Builds the whole answer from its chunks.
///
/// ```
/// use liter_llm::{FinishReason, Folder, LlmChunk};
///
/// let mut folder = Folder::new();
/// folder.push(&LlmChunk::text("Hel"));
/// assert_eq!(folder.partial().text(), "Hel");
/// folder.take(LlmChunk::text("lo"));
/// folder.take(LlmChunk::finish(FinishReason::Stop, None));
/// assert_eq!(folder.finish().text(), "Hello");
/// ```
#[derive(Debug, Default)]
pub struct Folder {
    /// Block number on the wire, block, its citations so far.
    blocks: Vec<(u32, Block, Vec<RawJson>)>,
    /// Where the newest delta went.
    current: Option<usize>,
    logprobs: Vec<RawJson>,
    answer: LlmResponse,
}

impl Folder {
    /// An empty answer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a chunk.
    pub fn push(&mut self, chunk: &LlmChunk) {
        if let Some(delta) = &chunk.delta {
            self.apply(chunk.index, delta);
        }
        if let Some(reason) = chunk.finish_reason {
            self.answer.finish_reason = reason;
            self.answer.raw_finish_reason.clone_from(&chunk.raw_finish_reason);
        }
        if let Some(usage) = &chunk.usage {
            self.answer.usage = Some((**usage).clone());
        }
        if let Some(facts) = &chunk.facts {
            self.learn((**facts).clone());
        }
    }

    /// Adds a chunk that nobody else needs: its texts are moved, not copied.
    pub fn take(&mut self, mut chunk: LlmChunk) {
        if let Some(usage) = chunk.usage.take() {
            self.answer.usage = Some(*usage);
        }
        if let Some(facts) = chunk.facts.take() {
            self.learn(*facts);
        }
        if chunk.index.is_some_and(|index| self.blocks.iter().all(|(known, ..)| *known != index))
            && let (Some(index), Some(Delta::Text(text))) = (chunk.index, &mut chunk.delta)
        {
            self.blocks.push((index, Block::text(std::mem::take(text)), Vec::new()));
            self.current = Some(self.blocks.len() - 1);
            chunk.delta = None;
        }
        if let Some(reason) = chunk.finish_reason.take() {
            self.answer.finish_reason = reason;
            self.answer.raw_finish_reason = chunk.raw_finish_reason.take();
        }
        self.push(&chunk);
    }

    /// The whole answer.
    #[must_use]
    pub fn finish(mut self) -> LlmResponse {
        self.snapshot_into();
        self.answer
    }

    /// The answer so far.
    #[must_use]
    pub fn partial(&self) -> LlmResponse {
        let copy = Self {
            blocks: self.blocks.clone(),
            current: None,
            logprobs: self.logprobs.clone(),
            answer: self.answer.clone(),
        };
        copy.finish()
    }

    fn snapshot_into(&mut self) {
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.sort_by_key(|(index, ..)| *index);
        let content = blocks
            .into_iter()
            .map(|(_, mut block, cited)| {
                if let BlockKind::Text { citations, .. } = &mut block.kind
                    && !cited.is_empty()
                {
                    *citations = RawJson::from_value(&cited).ok();
                }
                block
            })
            .collect();
        self.answer.message = Message::new(Role::Assistant, content);
        if !self.logprobs.is_empty() {
            let parts: Vec<RawJson> = std::mem::take(&mut self.logprobs)
                .iter()
                .flat_map(|part| part.read::<Vec<RawJson>>().unwrap_or_else(|_| vec![part.clone()]))
                .collect();
            self.answer.logprobs = RawJson::from_value(&parts).ok();
        }
    }

    fn learn(&mut self, facts: Facts) {
        let answer = &mut self.answer;
        if let Some(id) = facts.id {
            answer.id = id;
        }
        if let Some(model) = facts.model {
            answer.model = model;
        }
        if let Some(provider) = facts.provider {
            answer.provider = provider;
        }
        if facts.request_id.is_some() {
            answer.request_id = facts.request_id;
        }
        if !facts.rate_limits.is_empty() {
            answer.rate_limits = facts.rate_limits;
        }
        if facts.service_tier.is_some() {
            answer.service_tier = facts.service_tier;
        }
        if let Some(logprobs) = facts.logprobs {
            self.logprobs.push(logprobs);
        }
        answer.adjustments.extend(facts.adjustments);
        if !facts.attempts.is_empty() {
            answer.attempts = facts.attempts;
        }
        if facts.route.is_some() {
            answer.route = facts.route;
        }
        if facts.timing.is_some() {
            answer.timing = facts.timing;
        }
        if facts.cost.is_some() {
            answer.cost = facts.cost;
        }
        answer.cached |= facts.cached;
        if answer.extra.is_empty() {
            answer.extra = facts.extra;
        } else {
            answer.extra.extend(facts.extra);
        }
    }

    fn apply(&mut self, index: Option<u32>, delta: &Delta) {
        match delta {
            Delta::Start(block) | Delta::Replace(block) => {
                let index = index.unwrap_or_else(|| self.next_index());
                match self.blocks.iter().position(|(at, ..)| *at == index) {
                    Some(place) => {
                        self.blocks[place].1.clone_from(block);
                        if matches!(delta, Delta::Replace(_)) {
                            self.blocks[place].2.clear();
                        }
                        self.current = Some(place);
                    }
                    None => {
                        self.blocks.push((index, (**block).clone(), Vec::new()));
                        self.current = Some(self.blocks.len() - 1);
                    }
                }
            }
            Delta::Text(more) => {
                let (block, _) = self.place(
                    index,
                    || Block::text(""),
                    |block| matches!(block.kind, BlockKind::Text { .. } | BlockKind::Refusal { .. }),
                );
                if let BlockKind::Text { text, .. } | BlockKind::Refusal { text } = &mut block.kind {
                    text.push_str(more);
                }
            }
            Delta::Reasoning(more) => {
                if let BlockKind::Reasoning(reasoning) = &mut self.place_reasoning(index).kind {
                    reasoning.text.push_str(more);
                }
            }
            Delta::Signature(more) => {
                if let BlockKind::Reasoning(reasoning) = &mut self.place_reasoning(index).kind {
                    reasoning.signature.get_or_insert_default().push_str(more);
                }
            }
            Delta::Arguments(more) => {
                let (block, _) = self.place(
                    index,
                    || Block::tool_call("", "", ""),
                    |block| matches!(block.kind, BlockKind::ToolCall { .. }),
                );
                if let BlockKind::ToolCall { arguments, .. } = &mut block.kind {
                    arguments.push_str(more);
                }
            }
            Delta::Citation(citation) => {
                let (_, citations) = self.place(
                    index,
                    || Block::text(""),
                    |block| matches!(block.kind, BlockKind::Text { .. }),
                );
                citations.push(citation.clone());
            }
        }
    }

    fn place_reasoning(&mut self, index: Option<u32>) -> &mut Block {
        self.place(
            index,
            || Block::reasoning(Reasoning::default()),
            |block| matches!(block.kind, BlockKind::Reasoning(_)),
        )
        .0
    }

    fn next_index(&self) -> u32 {
        self.blocks.iter().map(|(index, ..)| index + 1).max().unwrap_or(0)
    }

    /// The block a delta belongs to: the one with its number, else the newest when it is of the right kind, else a new one.
    fn place(
        &mut self,
        index: Option<u32>,
        empty: impl FnOnce() -> Block,
        fits: impl Fn(&Block) -> bool,
    ) -> (&mut Block, &mut Vec<RawJson>) {
        let found = match index {
            Some(index) => match self.current.filter(|place| self.blocks[*place].0 == index) {
                Some(place) => Some(place),
                None => self.blocks.iter().position(|(at, ..)| *at == index),
            },
            None => self.current.filter(|place| fits(&self.blocks[*place].1)),
        };
        let place = found.unwrap_or_else(|| {
            let index = index.unwrap_or_else(|| self.next_index());
            self.blocks.push((index, empty(), Vec::new()));
            self.blocks.len() - 1
        });
        self.current = Some(place);
        let (_, block, citations) = &mut self.blocks[place];
        (block, citations)
    }
}

/// Folds chunks into the whole answer.
///
/// ```
/// use liter_llm::{LlmChunk, fold};
///
/// assert_eq!(fold(&[LlmChunk::text("Hel"), LlmChunk::text("lo")]).text(), "Hello");
/// ```
#[must_use]
pub fn fold<'a>(chunks: impl IntoIterator<Item = &'a LlmChunk>) -> LlmResponse {
    let mut folder = Folder::new();
    for chunk in chunks {
        folder.push(chunk);
    }
    folder.finish()
}

/// Cuts a whole answer into chunks that fold back into it.
///
/// ```
/// use liter_llm::{LlmResponse, Message, fold, unfold};
///
/// let answer = LlmResponse { message: Message::assistant("Hello"), ..LlmResponse::default() };
/// assert_eq!(fold(&unfold(&answer)), answer);
/// ```
#[must_use]
pub fn unfold(response: &LlmResponse) -> Vec<LlmChunk> {
    let mut chunks = vec![LlmChunk::facts(Facts {
        id: Some(response.id.clone()),
        model: Some(response.model.clone()),
        provider: Some(response.provider.clone()),
        request_id: response.request_id.clone(),
        rate_limits: response.rate_limits.clone(),
        service_tier: response.service_tier.clone(),
        logprobs: response.logprobs.clone(),
        adjustments: response.adjustments.clone(),
        attempts: response.attempts.clone(),
        route: response.route.clone(),
        timing: response.timing,
        cost: response.cost.clone(),
        cached: response.cached,
        extra: response.extra.clone(),
    })];
    for (index, block) in (0_u32..).zip(response.message.content()) {
        chunks.push(match &block.kind {
            BlockKind::Text { text, citations: None }
                if block.cache_control.is_none() && block.extra.is_empty() =>
            {
                LlmChunk::delta(index, Delta::Text(text.clone()))
            }
            _ => LlmChunk::delta(index, Delta::Start(Box::new(block.clone()))),
        });
    }
    let mut last = LlmChunk::finish(response.finish_reason, response.raw_finish_reason.clone());
    last.usage = response.usage.clone().map(Box::new);
    chunks.push(last);
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::response::{FinishReason, Usage};

    #[test]
    fn unfolding_and_folding_is_the_identity() {
        let response = LlmResponse {
            id: "r".into(),
            message: Message::new(
                Role::Assistant,
                vec![
                    Block::reasoning(Reasoning {
                        text: "hm".into(),
                        signature: Some("s".into()),
                        ..Reasoning::default()
                    }),
                    Block::text("hello"),
                    Block::tool_call("c", "f", "{}"),
                ],
            ),
            finish_reason: FinishReason::ToolCalls,
            usage: Some(Usage { input_tokens: 3, ..Usage::default() }),
            ..LlmResponse::default()
        };
        assert_eq!(fold(&unfold(&response)), response);
    }

    #[test]
    fn taking_chunks_gives_what_pushing_them_gives() {
        let mut extra = crate::core::json::Extra::new();
        extra.insert("seen".to_owned(), RawJson::from("yes"));
        let facts = Facts { id: Some("r".into()), extra, ..Facts::default() };
        let chunks = [
            LlmChunk::facts(facts),
            LlmChunk::delta(0, Delta::Text("a".into())),
            LlmChunk::delta(0, Delta::Text("b".into())),
            LlmChunk::delta(1, Delta::Arguments("{}".into())),
            LlmChunk::finish(FinishReason::Stop, Some("stop".into())),
            LlmChunk::usage(Usage { input_tokens: 3, ..Usage::default() }),
        ];
        let mut folder = Folder::new();
        chunks.iter().cloned().for_each(|chunk| folder.take(chunk));
        let taken = folder.finish();
        assert_eq!(taken, fold(&chunks));
        assert_eq!((taken.text().as_str(), taken.extra.len()), ("ab", 1));
    }

    #[test]
    fn deltas_without_a_number_continue_the_last_block_of_their_kind() {
        let answer = fold(&[
            LlmChunk { delta: Some(Delta::Reasoning("a".into())), ..LlmChunk::default() },
            LlmChunk::text("b"),
            LlmChunk::text("c"),
        ]);
        assert_eq!((answer.text().as_str(), answer.reasoning().as_str()), ("bc", "a"));
    }

    #[test]
    fn interleaved_blocks_keep_their_place() {
        let answer = fold(&[
            LlmChunk::delta(1, Delta::Start(Box::new(Block::tool_call("x", "f", "")))),
            LlmChunk::delta(0, Delta::Text("t".into())),
            LlmChunk::delta(1, Delta::Arguments("{}".into())),
        ]);
        assert_eq!(answer.message.content()[0], Block::text("t"));
        assert_eq!(answer.tool_calls()[0].arguments, "{}");
    }
}
