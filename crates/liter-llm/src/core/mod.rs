//! The engine's vocabulary: requests, answers, chunks, errors and the one door, `LlmProvider`.

pub mod call;
pub mod chunk;
pub mod content;
pub mod error;
pub mod fields;
pub mod fold;
pub mod json;
pub mod progress;
pub mod provider;
pub mod request;
pub mod response;
pub mod shapes;
pub mod tools;
