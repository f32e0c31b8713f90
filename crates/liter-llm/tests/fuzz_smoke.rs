//! Runs the bodies of the fuzz targets on seeded pseudo-random input, on the stable toolchain.
//!
//! The targets themselves (`fuzz/fuzz_targets`) need cargo-fuzz and the nightly toolchain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use liter_llm::adapters::anthropic::AnthropicMessages;
use liter_llm::adapters::openai_chat::OpenAiChat;
use liter_llm::adapters::openai_responses::OpenAiResponses;
use liter_llm::adapters::{Adapter, Decoder, Frame, Target, WireRequest};
use liter_llm::{ErrorKind, LlmChunk, LlmError, LlmRequest, LlmResponse};

#[path = "../fuzz/bodies/decoder.rs"]
mod decoder;
#[path = "../fuzz/bodies/sse.rs"]
mod sse;

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// Pieces of event streams and of JSON, so that random input comes further than the first byte.
const WORDS: &[&str] = &[
    "data: ",
    "data:",
    "data",
    "event: ",
    "id: ",
    "retry: 5",
    ":",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "\u{feff}",
    "[DONE]",
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "null",
    "true",
    "0",
    "-1e999",
    "\\u0000",
    "\\ud800",
    "\u{1f600}",
    "\"type\":",
    "\"choices\":[{\"index\":0,\"delta\":{",
    "\"content\":",
    "\"tool_calls\":",
    "\"finish_reason\":\"stop\"",
    "\"message_start\"",
    "\"content_block_delta\"",
    "\"message_stop\"",
    "\"response.completed\"",
    "\"usage\":",
    "\"error\":",
    "\"index\":",
    "\"delta\":",
    "\"text\":",
    "\"message\":",
    "\"arguments\":",
];

/// Row 11: seconds for the event streams when all counts are full, and otherwise.
const FULL: u64 = 3_600;
const SHORT: u64 = 10;

fn smoke(seeds: &[&[u8]], body: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    smoke_for(2, seeds, body);
}

/// Gives `body` inputs made from `seeds`, words and noise until the time is up; names the input that broke it.
fn smoke_for(seconds: u64, seeds: &[&[u8]], body: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(0x5EED);
    let mut runs = 0_u64;
    while Instant::now() < end {
        let mut input: Vec<u8> = match random.below(3) {
            0 if !seeds.is_empty() => seeds[random.below(seeds.len())].to_vec(),
            _ => vec![0, 200],
        };
        for _ in 0..random.below(24) {
            let at = random.below(input.len() + 1);
            match random.below(8) {
                0 => input.insert(at, random.next().to_le_bytes()[0]),
                1 if at < input.len() => drop(input.remove(at)),
                2 => input.truncate(at.max(2)),
                3 if at < input.len() => input[at] ^= 1 << random.below(8),
                4 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].bytes())),
                _ => input.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes()),
            }
        }
        let held = std::panic::catch_unwind(|| body(&input));
        assert!(held.is_ok(), "broke on {:?}", String::from_utf8_lossy(&input));
        runs += 1;
    }
    assert!(runs > 100, "only {runs} inputs");
}

#[test]
fn row_11_event_streams() {
    let full = std::env::var("LITER_LLM_SOAK").is_ok_and(|value| value == "1");
    let seconds = if full { FULL } else { SHORT };
    smoke_for(
        seconds,
        &[b"\x40\x03event: a\r\ndata: {\"x\":1}\r\n\r\ndata: y\ndata: z\n\nid: 1\ndata\n\n"],
        sse::run,
    );
}

/// A wire of its own, to see that the decoders' body itself holds: each frame is text, `[DONE]` ends it.
struct Echo;

struct EchoDecoder(bool);

impl Adapter for Echo {
    fn wire(&self) -> &'static str {
        "echo"
    }

    fn encode(&self, _: &LlmRequest, _: &Target<'_>) -> Result<WireRequest, LlmError> {
        Err(LlmError::unsupported("prompt", "the echo has no requests"))
    }

    fn decode(&self, status: u16, _: &HeaderMap, _: &Bytes, _: &Target<'_>) -> Result<LlmResponse, LlmError> {
        Err(LlmError::new(ErrorKind::from_status(status), "the echo has no whole answers"))
    }

    fn decoder(&self, _: &Target<'_>) -> Box<dyn Decoder> {
        Box::new(EchoDecoder(false))
    }
}

impl Decoder for EchoDecoder {
    fn push(&mut self, frame: Frame<'_>, chunks: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        assert!(!self.0, "pushed after the end");
        let text = match frame {
            Frame::Event { data, .. } => data,
            Frame::Text(text) => text,
            _ => return Err(LlmError::new(ErrorKind::Decode, "not text")),
        };
        self.0 = text == "[DONE]";
        chunks.push(LlmChunk::text(text));
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.0
    }

    fn finish(&mut self, _: &mut Vec<LlmChunk>) -> Result<(), LlmError> {
        if self.0 { Ok(()) } else { Err(LlmError::new(ErrorKind::StreamInterrupted, "no terminator")) }
    }
}

#[test]
fn the_decoders_body_itself() {
    smoke(&[b"\x01data: one\n\ndata: [DONE]\n\n"], |input| decoder::run(&Echo, input));
}

#[test]
fn openai_chat() {
    let seeds: [&[u8]; 3] = [
        br#"0{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a","tool_calls":[{"id":"t","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        b"0data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"t\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        br#"0{"error":{"message":"no","type":"invalid_request_error","code":"content_filter","innererror":{"code":"x"}}}"#,
    ];
    smoke(&seeds, |input| decoder::run(&OpenAiChat, input));
}

#[test]
fn anthropic_messages() {
    let seeds: [&[u8]; 3] = [
        br#"0{"id":"a","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"a"},{"type":"tool_use","id":"t","name":"f","input":{}}],"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":2}}"#,
        b"0event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"a\",\"model\":\"m\",\"usage\":{\"input_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        br#"0{"type":"error","error":{"type":"overloaded_error","message":"no"},"request_id":"r"}"#,
    ];
    smoke(&seeds, |input| decoder::run(&AnthropicMessages, input));
}

#[test]
fn openai_responses() {
    let seeds: [&[u8]; 3] = [
        br#"0{"id":"r","status":"completed","model":"m","output":[{"type":"reasoning","id":"s","summary":[]},{"type":"message","id":"i","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[]}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}],"usage":{"input_tokens":1,"output_tokens":2}}"#,
        b"0data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}\n\ndata: {\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":\"i\",\"content\":[]}}\n\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"a\"}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"status\":\"completed\",\"output\":[{\"type\":\"message\",\"id\":\"i\",\"content\":[{\"type\":\"output_text\",\"text\":\"a\"}]}]}}\n\n",
        br#"0{"type":"error","code":"rate_limit_exceeded","message":"no","param":null}"#,
    ];
    smoke(&seeds, |input| decoder::run(&OpenAiResponses, input));
}
