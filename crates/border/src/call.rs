//! One call: request JSON in, the answer's JSON and the provider's own bytes out.

use std::sync::Arc;

use bytes::Bytes;
use liter_llm::{ErrorKind, LlmError, LlmProvider, LlmRequest};

/// What an answer's JSON has beside what the host sent: attempts, times, rate limits.
const BESIDE: usize = 768;
/// The most room made for an answer's JSON before it is written.
const LARGEST_GUESS: usize = 64 * 1024;

/// The answer's JSON and the provider's own bytes.
pub type Answer = Result<(Vec<u8>, Bytes), LlmError>;

/// What a finished call hands over to its language.
#[derive(Debug)]
pub enum Outcome {
    /// A whole answer and the provider's own bytes.
    Answer(Vec<u8>, Bytes),
    /// A batch of chunks as a JSON array; empty at the end of the stream.
    Batch(Vec<u8>),
    /// An error in its border form.
    Error(Vec<u8>),
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok((json, raw)) => Self::Answer(json, raw),
            Err(error) => Self::Error(payload(&error)),
        }
    }
}

/// Has a request in its border form answered. The request's bytes are given back before it is sent.
///
/// # Errors
/// The request is not one (`invalid_request`), or what the provider says.
pub async fn answer(provider: Arc<dyn LlmProvider>, request: impl AsRef<[u8]>) -> Answer {
    let read = LlmRequest::from_json(request.as_ref())?;
    drop(request);
    let request = read;
    let response = provider.generate(request).await?;
    // Nearly always as long as what the host sent, or shorter: growing step by step would copy it again and again.
    let mut json = Vec::with_capacity((response.raw.len() + BESIDE).min(LARGEST_GUESS));
    serde_json::to_writer(&mut json, &response)
        .map_err(|error| LlmError::new(ErrorKind::Decode, error.to_string()))?;
    Ok((json, response.raw))
}

/// An error in its border form.
#[must_use]
pub fn payload(error: &LlmError) -> Vec<u8> {
    serde_json::to_vec(error).unwrap_or_else(|failure| {
        let error = LlmError::new(ErrorKind::Decode, format!("the error could not be written: {failure}"));
        serde_json::to_vec(&error).unwrap_or_default()
    })
}

/// The error of a call to a client that was closed.
#[must_use]
pub fn closed() -> LlmError {
    LlmError::new(ErrorKind::Cancelled, "the client is closed").with(|detail| detail.before_send = true)
}
