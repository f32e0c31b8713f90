//! OpenAI Responses: `POST /responses`, its event stream, and the same events over a WebSocket.
//!
//! An answer's output items become blocks of one assistant message, in order. What a block alone cannot say about its
//! item (`id`, `status`, `phase`, `namespace`, ...) stands in its `extra` under [`wire::OPENAI_RESPONSES`], so that
//! sending the message again gives the items back; other wires leave entries named after a wire out.
//!
//! Sources: the types and the `responses` resource of the official Python SDK `openai` 3.54, and recorded exchanges.

mod decode;
mod encode;
mod event;
mod input;
mod stream;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::HeaderMap;

use super::{Adapter, Decoder, Target, WireRequest};
use crate::core::content::wire;
use crate::core::error::LlmError;
use crate::core::json::fields;
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

/// The path below the base URL, for HTTP and for WebSocket.
pub const PATH: &str = "/responses";

/// The codec of OpenAI Responses.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAiResponses;

impl Adapter for OpenAiResponses {
    fn wire(&self) -> &'static str {
        wire::OPENAI_RESPONSES
    }

    fn encode(&self, request: &LlmRequest, target: &Target<'_>) -> Result<WireRequest, LlmError> {
        encode::encode(request, target)
    }

    fn decode(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &Bytes,
        target: &Target<'_>,
    ) -> Result<LlmResponse, LlmError> {
        decode::decode(status, headers, body, target)
    }

    fn websocket_message(&self, body: &[u8]) -> Result<Vec<u8>, LlmError> {
        websocket_message(body)
    }

    fn decoder(&self, target: &Target<'_>) -> Box<dyn Decoder> {
        Box::new(stream::ResponsesDecoder::new(target))
    }
}

/// Turns the body of an encoded request into the client message of the WebSocket mode.
///
/// One text message per answer: the body's fields beside `"type": "response.create"`, without `stream`, which is
/// implied there. The answer comes as one text message per event, the events being those of the HTTP stream; they go
/// to the decoder as [`Frame::Text`](super::Frame::Text). `response.completed`, `response.incomplete`,
/// `response.failed` and `error` end an answer, not the connection: the next `response.create` may follow on it, one
/// at a time, naming `previous_response_id` and only the new input items.
///
/// The handshake is a `GET` of the base URL with scheme `wss` (`ws` for `http`) plus [`PATH`]. It needs the same
/// credential header as the HTTP call and no other: no subprotocol and no `OpenAI-Beta`. Messages have no size limit
/// and are not compressed in the official client.
///
/// Source: `Responses.connect`, `ResponsesConnectionManager` and `ResponsesResponseResource.create` of the official
/// SDK, which also says that `background` is not available there.
///
/// # Errors
/// `unsupported` when the body asks for `background`; `invalid_request` when it is not a JSON object.
pub fn websocket_message(body: &[u8]) -> Result<Vec<u8>, LlmError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| LlmError::invalid("body", "the body is not UTF-8").with_source(error))?;
    let map = fields(text)
        .map_err(|error| LlmError::invalid("body", "the body is not a JSON object").with_source(error))?;
    let mut out = Vec::with_capacity(body.len() + 32);
    out.extend_from_slice(br#"{"type":"response.create""#);
    for (name, value) in map.iter() {
        match (name, value.get()) {
            ("type" | "stream", _) => {}
            ("background", "true") => {
                return Err(LlmError::unsupported(
                    "background",
                    "`background` is not available over WebSocket: leave it out or use HTTP",
                ));
            }
            _ => encode::raw(&mut out, name, value.get()),
        }
    }
    out.push(b'}');
    Ok(out)
}
