//! What a function or a callback hands over, and its parts that C reads.

use std::ffi::CString;
use std::sync::OnceLock;

use bytes::Bytes;
use liter_llm::{Delta, LlmChunk, LlmError, LlmResponse};
use liter_llm_border::{Outcome, payload};
use serde::Deserialize;

/// What a result is.
/// cbindgen:rename-all=QualifiedScreamingSnakeCase
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiterLlmStatus {
    /// Done: the JSON is the answer, or what was asked for.
    Ok = 0,
    /// Part of a streamed answer: the JSON is a list of chunks. More follows.
    Chunks = 1,
    /// The streamed answer is complete, or the recording has ended. There is no JSON.
    End = 2,
    /// Nothing has come within the time given. There is no JSON.
    Pending = 3,
    /// A failure: the JSON is the error. Nothing follows.
    Error = 4,
}

/// The outcome of a function or of a call. Free it with `liter_llm_result_free`.
pub struct LiterLlmResult {
    status: LiterLlmStatus,
    /// With a zero byte behind it, so that C may take it for a string; empty when there is none.
    json: Vec<u8>,
    raw: Bytes,
    text: OnceLock<Vec<u8>>,
    kind: OnceLock<Option<CString>>,
}

/// The parts of an error that C can have without reading JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    kind: String,
    text: String,
}

impl LiterLlmResult {
    fn new(status: LiterLlmStatus, json: Vec<u8>, raw: Bytes) -> Self {
        let json = if json.is_empty() { json } else { closed_by_zero(json) };
        Self { status, json, raw, text: OnceLock::new(), kind: OnceLock::new() }
    }

    /// What was asked for, as JSON.
    pub fn value(json: Vec<u8>) -> Self {
        Self::new(LiterLlmStatus::Ok, json, Bytes::new())
    }

    /// As `value`, with the text that is in it for programs that read no JSON.
    pub fn value_with_text(json: Vec<u8>, text: String) -> Self {
        Self { text: OnceLock::from(closed_by_zero(text.into_bytes())), ..Self::value(json) }
    }

    /// There is no more.
    pub fn end() -> Self {
        Self::new(LiterLlmStatus::End, Vec::new(), Bytes::new())
    }

    /// An answer that is not complete yet: the status says so, the JSON is as far as it has come.
    pub fn unfinished(json: Vec<u8>) -> Self {
        Self::new(LiterLlmStatus::Pending, json, Bytes::new())
    }

    /// Nothing has come in time.
    pub fn pending() -> Self {
        Self::unfinished(Vec::new())
    }

    /// A failure.
    pub fn failure(error: &LlmError) -> Self {
        Self::new(LiterLlmStatus::Error, payload(error), Bytes::new())
    }

    /// What this is.
    pub const fn status(&self) -> LiterLlmStatus {
        self.status
    }

    /// The JSON without the zero byte behind it.
    pub fn json(&self) -> &[u8] {
        self.json.split_last().map_or(&[], |(_, json)| json)
    }

    /// The provider's own bytes.
    pub const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The kind of a failure.
    pub fn kind(&self) -> Option<&CString> {
        let read = || {
            let failure = (self.status == LiterLlmStatus::Error).then(|| self.read::<Failure>())?;
            CString::new(failure.kind).ok()
        };
        self.kind.get_or_init(read).as_ref()
    }

    /// The text of an answer or of chunks, or the words of a failure; with a zero byte behind it.
    pub fn text(&self) -> &[u8] {
        self.text.get_or_init(|| {
            let text = match self.status {
                LiterLlmStatus::Ok | LiterLlmStatus::Pending => {
                    self.read::<Option<LlmResponse>>().map(|answer| answer.text())
                }
                LiterLlmStatus::Chunks => Some(self.read::<Vec<LlmChunk>>().iter().map(chunk_text).collect()),
                LiterLlmStatus::Error => Some(self.read::<Failure>().text),
                LiterLlmStatus::End => None,
            };
            closed_by_zero(text.unwrap_or_default().into_bytes())
        })
    }

    /// What stands in the JSON; nothing when it is something else.
    fn read<'a, T: Deserialize<'a> + Default>(&'a self) -> T {
        serde_json::from_slice(self.json()).unwrap_or_default()
    }
}

impl From<Outcome> for LiterLlmResult {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Answer(json, raw) => Self::new(LiterLlmStatus::Ok, json, raw),
            Outcome::Batch(json) if json.is_empty() => Self::end(),
            Outcome::Batch(json) => Self::new(LiterLlmStatus::Chunks, json, Bytes::new()),
            Outcome::Error(json) => Self::new(LiterLlmStatus::Error, json, Bytes::new()),
        }
    }
}

impl From<Result<Vec<u8>, LlmError>> for LiterLlmResult {
    fn from(outcome: Result<Vec<u8>, LlmError>) -> Self {
        match outcome {
            Ok(json) => Self::value(json),
            Err(error) => Self::failure(&error),
        }
    }
}

fn closed_by_zero(mut text: Vec<u8>) -> Vec<u8> {
    text.push(0);
    text
}

/// The text that a chunk adds to the answer: a block that came whole has it in its beginning.
fn chunk_text(chunk: &LlmChunk) -> &str {
    match &chunk.delta {
        Some(Delta::Text(text)) => text,
        Some(Delta::Start(block)) => block.as_text().unwrap_or_default(),
        _ => "",
    }
}
