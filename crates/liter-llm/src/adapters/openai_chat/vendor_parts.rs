//! Parts of a message that arrive in fragments and must be whole again at the end: signed reasoning, spoken answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::core::content::{Block, Media};
use crate::core::json::RawJson;

/// Puts streamed `reasoning_details` (OpenRouter) together: neighbours of the same type and index are one item whose
/// `text` or `summary` came in pieces. One batch alone stays as it is, byte for byte.
pub(super) fn merge_details(batches: &[RawJson]) -> Option<RawJson> {
    type Item = IndexMap<String, RawJson>;
    if let [only] = batches {
        return Some(only.clone());
    }
    let mut merged: Vec<Item> = Vec::new();
    for batch in batches {
        // A host that sends something else than a list of objects gets its last word kept.
        let Ok(items) = batch.read::<Vec<Item>>() else { return batches.last().cloned() };
        for item in items {
            let joins = merged.last().is_some_and(|last| {
                last.get("type") == item.get("type")
                    && last.get("index") == item.get("index")
                    && item.get("type").is_some_and(|kind| kind.get() != "\"reasoning.encrypted\"")
            });
            match merged.last_mut() {
                Some(last) if joins => join(last, item),
                _ => merged.push(item),
            }
        }
    }
    (!merged.is_empty()).then(|| RawJson::from_value(&merged).ok()).flatten()
}

fn join(item: &mut IndexMap<String, RawJson>, more: IndexMap<String, RawJson>) {
    for (name, value) in more {
        match item.get_mut(&name) {
            Some(known) if matches!(name.as_str(), "text" | "summary") => {
                if let (Some(start), Some(end)) = (known.as_string(), value.as_string()) {
                    *known = RawJson::from((start + &end).as_str());
                }
            }
            Some(known) if !value.is_null() => *known = value,
            Some(_) => {}
            None => {
                item.insert(name, value);
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Piece<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    transcript: Option<String>,
    #[serde(borrow, default)]
    expires_at: Option<&'a RawValue>,
}

/// A spoken answer in pieces.
#[derive(Default)]
pub(super) struct AudioParts {
    pieces: Vec<RawJson>,
}

impl AudioParts {
    /// False for the empty shell that some hosts send with every answer.
    pub(super) fn says_something(raw: &RawValue) -> bool {
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        match serde_json::from_str::<Piece<'_>>(raw.get()) {
            Ok(piece) => {
                filled(&piece.id)
                    || filled(&piece.data)
                    || filled(&piece.transcript)
                    || piece.expires_at.is_some_and(|time| !matches!(time.get(), "0" | "null"))
            }
            Err(_) => false,
        }
    }

    /// Adds a piece.
    pub(super) fn push(&mut self, raw: &RawValue) {
        self.pieces.push(RawJson::from(raw));
    }

    /// The block for a piece or the whole, in OpenAI's form: `id`, `data`, `transcript`, `expires_at`.
    pub(super) fn block(json: RawJson) -> Block {
        Block::audio(Media::Other(json))
    }

    /// The whole: bytes and transcript joined.
    pub(super) fn whole(self) -> Block {
        if let [only] = self.pieces.as_slice() {
            return Self::block(only.clone());
        }
        let mut bytes = Vec::new();
        let (mut id, mut transcript, mut expires_at) = (String::new(), String::new(), None);
        for piece in &self.pieces {
            let Ok(piece) = piece.read::<Piece<'_>>() else { continue };
            if let Some(text) = piece.id {
                id = text;
            }
            // Each piece is encoded, and padded, by itself.
            bytes.extend(piece.data.and_then(|data| STANDARD.decode(data).ok()).unwrap_or_default());
            transcript.push_str(piece.transcript.as_deref().unwrap_or_default());
            expires_at = piece.expires_at.map(RawJson::from).or(expires_at);
        }
        Self::block(RawJson::from(&serde_json::json!({
            "id": id,
            "data": STANDARD.encode(&bytes),
            "transcript": transcript,
            "expires_at": expires_at,
        })))
    }
}
