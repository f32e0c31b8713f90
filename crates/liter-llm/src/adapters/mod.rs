//! Pure codecs, one file per wire format: no I/O, so recordings test them and fuzzers reach them.

pub mod again;
pub mod anthropic;
pub mod headers;
pub mod openai_chat;
pub mod openai_responses;
pub mod quirks;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::core::chunk::LlmChunk;
use crate::core::content::wire;
use crate::core::error::LlmError;
use crate::core::request::{LlmRequest, unknown_name};
use crate::core::response::{Adjustment, LlmResponse};

pub use openai_chat::OpenAiChat;
pub use quirks::Quirks;

/// Where a request goes, as far as its bytes depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The provider's name, for errors and answers.
    pub provider: &'a str,
    /// The model to send, unless the request names its own.
    pub model: &'a str,
    /// How the host departs from its wire format.
    pub quirks: &'a Quirks,
    /// Whether the answer is to be streamed.
    pub stream: bool,
}

impl<'a> Target<'a> {
    /// The model to send for this request.
    #[must_use]
    pub fn model_of(&self, request: &'a LlmRequest) -> &'a str {
        request.model.as_deref().unwrap_or(self.model)
    }
}

/// A request as bytes: a `POST` of JSON to `path` below the base URL.
#[derive(Debug, Clone)]
pub struct WireRequest {
    /// Path below the base URL, for instance `/chat/completions`.
    pub path: &'static str,
    /// Headers of the wire format (versions, betas); never credentials.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: Vec<u8>,
    /// What was changed or left out, with the caller's leave.
    pub adjustments: Vec<Adjustment>,
    /// Whether the request makes or changes something at the provider beyond its answer. Such a request is never sent
    /// twice.
    pub creates: bool,
}

/// One unit of a streamed answer, as the transport cut it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Frame<'a> {
    /// A Server-Sent Event.
    Event {
        /// Its type; `message` when the stream names none.
        name: &'a str,
        /// Its data, lines joined by line feeds.
        data: &'a str,
    },
    /// One text message of a WebSocket, or one line of newline-delimited JSON.
    Text(&'a str),
    /// One message of a binary event stream (AWS): its `:event-type` or `:exception-type`, and its payload.
    Binary {
        /// The type header.
        name: &'a str,
        /// Whether it is an exception.
        exception: bool,
        /// The payload.
        payload: &'a [u8],
    },
}

/// Turns the frames of one streamed answer into chunks.
///
/// Laws, checked on every recorded stream: folding the chunks gives the same answer as the whole one would; nothing
/// but the terminator makes [`is_done`](Decoder::is_done) true; after an `Err` no more frames are pushed.
pub trait Decoder: Send {
    /// Takes a frame and appends the chunks it yields.
    ///
    /// # Errors
    /// The provider's in-stream error with its kind, or `decode` for a frame that cannot be understood.
    fn push(&mut self, frame: Frame<'_>, chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError>;

    /// True once the terminator was seen; what follows is not read.
    fn is_done(&self) -> bool;

    /// The stream ended cleanly. Appends what is still to come.
    ///
    /// # Errors
    /// `stream_interrupted` when the terminator is missing.
    fn finish(&mut self, chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError>;
}

/// One wire format.
pub trait Adapter: Send + Sync {
    /// The wire's name, see [`wire`](crate::core::content::wire).
    fn wire(&self) -> &'static str;

    /// Writes a request. The request has passed [`LlmRequest::validate`].
    ///
    /// # Errors
    /// `unsupported` or `invalid_request` for what this wire or host cannot carry, naming field and remedy.
    fn encode(&self, request: &LlmRequest, target: &Target<'_>) -> Result<WireRequest, LlmError>;

    /// Reads a whole answer, success or failure.
    ///
    /// # Errors
    /// The provider's error (any status from 400, or an error object inside a 200), or `decode`.
    fn decode(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &Bytes,
        target: &Target<'_>,
    ) -> Result<LlmResponse, LlmError>;

    /// Turns an encoded body into the message that starts an answer over a WebSocket.
    ///
    /// # Errors
    /// `unsupported` on wires without WebSocket mode.
    fn websocket_message(&self, body: &[u8]) -> Result<Vec<u8>, LlmError> {
        let _ = body;
        Err(LlmError::unsupported("transport", format!("the wire `{}` has no WebSocket mode", self.wire())))
    }

    /// A decoder for one streamed answer (status 200, its headers read already).
    fn decoder(&self, target: &Target<'_>) -> Box<dyn Decoder>;
}

/// The adapter of a wire.
///
/// # Errors
/// `config` for an unknown name, with the nearest known one.
pub fn by_name(wire: &str) -> Result<Arc<dyn Adapter>, LlmError> {
    match wire {
        wire::OPENAI_CHAT => Ok(Arc::new(openai_chat::OpenAiChat)),
        wire::OPENAI_RESPONSES => Ok(Arc::new(openai_responses::OpenAiResponses)),
        wire::ANTHROPIC => Ok(Arc::new(anthropic::AnthropicMessages)),
        other => {
            let known = [wire::OPENAI_CHAT, wire::OPENAI_RESPONSES, wire::ANTHROPIC];
            let reason = unknown_name(other, &known, "a provider row names the wire its host speaks");
            Err(LlmError::config("adapter", format!("adapter `{other}` {reason}")))
        }
    }
}
