//! Tests of the Anthropic adapter on hand-written cases; recordings are tested in `tests/recorded_anthropic.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod decoding;
mod encoding;

use crate::adapters::{Quirks, Target};
use crate::core::json::RawJson;

fn target<T>(work: impl FnOnce(&Target<'_>) -> T) -> T {
    let quirks = Quirks::default();
    work(&Target { provider: "anthropic", model: "claude-sonnet-4-5", quirks: &quirks, stream: false })
}

fn raw(text: &str) -> RawJson {
    RawJson::parse(text).unwrap()
}
