//! OpenAI chat completions and everything compatible with it: requests, answers, streams and errors as pure functions.

mod choice;
mod encode;
mod errors;
mod messages;
mod stream;
mod tool_calls;
mod usage;
mod vendor_parts;
mod wire;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::HeaderMap;

use self::choice::Reading;
use self::stream::{AnswerState, ChatDecoder, error_of};
use crate::adapters::{Adapter, Decoder, Target, WireRequest, headers};
use crate::core::content::wire as wires;
use crate::core::error::LlmError;
use crate::core::fold::Folder;
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;

/// The wire format of `POST /chat/completions`.
///
/// What hosts do differently is in [`Quirks`](crate::adapters::Quirks). Vendor fields of an answer stand in its
/// `extra` under their own names, those of the choice and of the message under `choice` and `message`, further
/// alternatives (`n` above 1) under `choices`.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenAiChat;

impl Adapter for OpenAiChat {
    fn wire(&self) -> &'static str {
        wires::OPENAI_CHAT
    }

    fn encode(&self, request: &LlmRequest, target: &Target<'_>) -> Result<WireRequest, LlmError> {
        encode::encode(request, target).map_err(|error| {
            error.with(|detail| errors::place(detail, target.provider, target.model_of(request)))
        })
    }

    fn decode(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &Bytes,
        target: &Target<'_>,
    ) -> Result<LlmResponse, LlmError> {
        let Target { provider, model, .. } = *target;
        if status >= 400 {
            return Err(errors::from_http(provider, model, status, headers, body));
        }
        let undecodable = |what: &str| {
            errors::undecodable(provider, model, what, body).with(|detail| {
                detail.status_code = Some(status);
                detail.request_id = headers::request_id(headers);
            })
        };
        // Text is checked as one piece, not string by string; of other bytes only the strings that are read count.
        let parsed: Result<wire::Answer<'_>, _> = match std::str::from_utf8(body) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(body),
        };
        let answer =
            parsed.map_err(|error| undecodable("the answer is not a chat completion").with_source(error))?;
        let empty = answer.choices.as_ref().is_none_or(Vec::is_empty);
        let complains = |name: &str| matches!(name, "message" | "detail" | "errors");
        if error_of(&answer).is_some() || (empty && answer.rest.iter().any(|(name, _)| complains(name))) {
            return Err(errors::inside(provider, model, Some(headers), body));
        }
        if empty {
            return Err(undecodable("the answer holds no choices"));
        }
        let mut state = AnswerState::default();
        let mut chunks = Vec::with_capacity(6);
        state.push(provider, answer, Reading::Whole, &mut chunks);
        state.end(&mut chunks);
        let mut folder = Folder::new();
        chunks.into_iter().for_each(|chunk| folder.take(chunk));
        let mut response = folder.finish();
        if response.model.is_empty() {
            model.clone_into(&mut response.model);
        }
        response.request_id = headers::request_id(headers);
        response.rate_limits = headers::rate_limits(headers);
        response.raw = body.clone();
        Ok(response)
    }

    fn decoder(&self, target: &Target<'_>) -> Box<dyn Decoder> {
        Box::new(ChatDecoder {
            provider: target.provider.to_owned(),
            model: target.model.to_owned(),
            state: AnswerState::default(),
            done: false,
        })
    }
}
