//! The engine's vocabulary: requests, answers, chunks, errors and the one door, `LlmProvider`.

pub(crate) mod around;
pub mod call;
pub mod chunk;
pub mod clock;
pub mod content;
pub mod cost;
pub mod error;
pub mod estimate;
pub mod fields;
pub mod fold;
pub mod json;
pub mod notes;
pub mod notices;
mod prompt;
pub mod provider;
pub mod record;
mod record_json;
pub mod request;
pub mod response;
pub mod route;
pub mod shapes;
pub mod shared_text;
pub mod state;
pub mod sync;
pub mod toggle;
pub mod tools;
