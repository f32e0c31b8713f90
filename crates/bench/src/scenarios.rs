//! The hot paths whose instructions are counted: each is one piece of a call's work, on inputs that never change.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use liter_llm::adapters::{Adapter, Frame, Quirks, Target, by_name};
use liter_llm::catalog::Catalog;
use liter_llm::telemetry::Recorder;
use liter_llm::transports::sse::SseParser;
use liter_llm::{
    Client, Folder, LlmChunk, LlmError, LlmProvider, LlmRequest, LlmResponse, Message, Usage, async_trait,
};

use crate::inputs;

/// One piece of work, done once per call.
pub type Work = Box<dyn FnMut() -> Result<(), LlmError>>;

/// A hot path with its name, and how to make its work.
pub struct Scenario {
    /// The name in the baseline.
    pub name: &'static str,
    /// Prepares the inputs and gives the work.
    pub prepare: fn() -> Result<Work, LlmError>,
}

/// All hot paths, in the order of a call.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "request_from_json", prepare: request_from_json },
    Scenario { name: "request_from_json_50_messages", prepare: request_from_json_50 },
    Scenario { name: "encode_chat_small", prepare: || encode("openai_chat", small()?) },
    Scenario { name: "encode_chat_50_messages", prepare: || encode("openai_chat", long()?) },
    Scenario {
        name: "encode_chat_built_tools",
        prepare: || encode("openai_chat", inputs::built_request(10)),
    },
    Scenario { name: "encode_anthropic_tools", prepare: || encode("anthropic", inputs::built_request(10)) },
    Scenario {
        name: "encode_responses_tools",
        prepare: || encode("openai_responses", inputs::built_request(10)),
    },
    Scenario { name: "decode_chat", prepare: || decode("openai_chat", inputs::CHAT_ANSWER) },
    Scenario { name: "decode_anthropic", prepare: || decode("anthropic", inputs::ANTHROPIC_ANSWER) },
    Scenario { name: "response_to_json", prepare: response_to_json },
    Scenario { name: "price_answer", prepare: price },
    Scenario { name: "layers_in_memory", prepare: layers },
    Scenario { name: "recorded_in_memory", prepare: recorded },
    Scenario {
        name: "stream_chat_100_events",
        prepare: || stream("openai_chat", inputs::chat_stream(100), Ending::Folded),
    },
    Scenario {
        name: "stream_anthropic_100_events",
        prepare: || stream("anthropic", inputs::anthropic_stream(100), Ending::Folded),
    },
    Scenario {
        name: "stream_responses_100_events",
        prepare: || stream("openai_responses", inputs::responses_stream(100), Ending::Folded),
    },
    Scenario {
        name: "stream_chat_100_events_to_json",
        prepare: || stream("openai_chat", inputs::chat_stream(100), Ending::Json),
    },
];

const MODEL: &str = "measured-model";

fn small() -> Result<LlmRequest, LlmError> {
    inputs::request(inputs::SMALL_REQUEST)
}

fn long() -> Result<LlmRequest, LlmError> {
    inputs::request(&inputs::conversation(50))
}

fn request_from_json() -> Result<Work, LlmError> {
    Ok(Box::new(|| {
        black_box(LlmRequest::from_json(black_box(inputs::SMALL_REQUEST.as_bytes()))?);
        Ok(())
    }))
}

fn request_from_json_50() -> Result<Work, LlmError> {
    let text = inputs::conversation(50);
    Ok(Box::new(move || {
        black_box(LlmRequest::from_json(black_box(text.as_bytes()))?);
        Ok(())
    }))
}

fn target(quirks: &Quirks, stream: bool) -> Target<'_> {
    Target { provider: "measured", model: MODEL, quirks, stream }
}

fn encode(wire: &str, request: LlmRequest) -> Result<Work, LlmError> {
    let adapter = by_name(wire)?;
    let quirks = Quirks::default();
    Ok(Box::new(move || {
        request.validate()?;
        black_box(adapter.encode(black_box(&request), &target(&quirks, false))?);
        Ok(())
    }))
}

fn decoded(adapter: &dyn Adapter, body: &Bytes) -> Result<LlmResponse, LlmError> {
    let quirks = Quirks::default();
    adapter.decode(200, &HeaderMap::new(), body, &target(&quirks, false))
}

fn decode(wire: &str, body: &'static str) -> Result<Work, LlmError> {
    let adapter = by_name(wire)?;
    let body = Bytes::from_static(body.as_bytes());
    Ok(Box::new(move || {
        black_box(decoded(&*adapter, black_box(&body))?);
        Ok(())
    }))
}

fn response_to_json() -> Result<Work, LlmError> {
    let response = decoded(&*by_name("openai_chat")?, &Bytes::from_static(inputs::CHAT_ANSWER.as_bytes()))?;
    Ok(Box::new(move || {
        black_box(serde_json::to_vec(black_box(&response))).map_err(|error| unwritten(&error))?;
        Ok(())
    }))
}

fn unwritten(error: &serde_json::Error) -> LlmError {
    LlmError::invalid("measurement", format!("the answer cannot be written: {error}"))
}

/// What an answer cost by the catalogue.
fn price() -> Result<Work, LlmError> {
    let row = r#"{"format": 1, "models": {"openai/gpt-4o-mini": {
        "prices": [{"input": "0.15", "cache_read": "0.075", "output": "0.60"}]}}}"#;
    let pricing = Arc::new(Catalog::empty().with_own(row, "measured")?).pricing("openai", "gpt-4o-mini");
    let usage = Usage { input_tokens: 1_234, output_tokens: 567, ..Usage::default() };
    Ok(Box::new(move || {
        let cost =
            pricing.cost(None, black_box("gpt-4o-mini-2024-07-18"), black_box(&usage), Some("default"));
        black_box(cost.ok_or_else(|| LlmError::invalid("measurement", "the model has no price"))?);
        Ok(())
    }))
}

/// A provider that answers from memory at once.
struct InMemory;

#[async_trait]
impl LlmProvider for InMemory {
    fn name(&self) -> &str {
        "in-memory"
    }

    async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
        Ok(LlmResponse { message: Message::assistant("aye"), ..LlmResponse::default() })
    }
}

/// Everything between the client's front and an endpoint.
fn layers() -> Result<Work, LlmError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| LlmError::invalid("measurement", format!("no runtime: {error}")))?;
    let client = Client::over(Arc::new(InMemory));
    let request = small()?;
    Ok(Box::new(move || {
        black_box(runtime.block_on(client.generate(black_box(request.clone())))?);
        Ok(())
    }))
}

/// The same call with its record, and that as JSON: what a host pays for that traces and counts its calls.
fn recorded() -> Result<Work, LlmError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| LlmError::invalid("measurement", format!("no runtime: {error}")))?;
    let client: Arc<dyn LlmProvider> = Arc::new(Client::over(Arc::new(InMemory)));
    let request = small()?;
    Ok(Box::new(move || {
        let recorder = Recorder::new();
        let door = recorder.over(Arc::clone(&client));
        black_box(runtime.block_on(door.generate(black_box(request.clone())))?);
        let record =
            recorder.record().ok_or_else(|| LlmError::invalid("measurement", "there is no record"))?;
        black_box(record.to_json());
        Ok(())
    }))
}

/// What becomes of a stream's chunks.
#[derive(Clone, Copy)]
enum Ending {
    /// They are folded into the whole answer.
    Folded,
    /// Each is written as JSON, as it crosses the language border.
    Json,
}

fn stream(wire: &str, body: String, ending: Ending) -> Result<Work, LlmError> {
    let adapter = by_name(wire)?;
    let quirks = Quirks::default();
    Ok(Box::new(move || {
        let mut decoder = adapter.decoder(&target(&quirks, true));
        let mut parser = SseParser::default();
        let mut chunks: Vec<LlmChunk> = Vec::new();
        // The size in which a connection hands bytes over.
        for piece in black_box(body.as_bytes()).chunks(16 * 1024) {
            parser.push(piece, |event| {
                decoder.push(Frame::Event { name: event.name, data: event.data }, &mut chunks)
            })?;
        }
        decoder.finish(&mut chunks)?;
        match ending {
            Ending::Folded => {
                let mut folder = Folder::new();
                chunks.iter().for_each(|chunk| folder.push(chunk));
                black_box(folder.finish());
            }
            Ending::Json => {
                let mut out = Vec::new();
                for chunk in &chunks {
                    serde_json::to_writer(&mut out, chunk).map_err(|error| unwritten(&error))?;
                }
                black_box(out);
            }
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_scenario_works_and_has_its_own_name() {
        for scenario in SCENARIOS {
            let mut work = (scenario.prepare)().unwrap();
            work().unwrap();
            work().unwrap();
        }
        let names: std::collections::HashSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
    }

    #[test]
    fn streams_hold_what_they_say() {
        for (wire, body) in [
            ("openai_chat", inputs::chat_stream(100)),
            ("anthropic", inputs::anthropic_stream(100)),
            ("openai_responses", inputs::responses_stream(100)),
        ] {
            let adapter = by_name(wire).unwrap();
            let quirks = Quirks::default();
            let mut decoder = adapter.decoder(&target(&quirks, true));
            let (mut parser, mut chunks) = (SseParser::default(), Vec::new());
            parser
                .push(body.as_bytes(), |event| {
                    decoder.push(Frame::Event { name: event.name, data: event.data }, &mut chunks)
                })
                .unwrap();
            decoder.finish(&mut chunks).unwrap();
            let answer = liter_llm::fold(&chunks);
            assert!(answer.text().ends_with(" every"), "{wire}: {}", answer.text());
            assert_eq!(answer.usage.unwrap().output_tokens, 100);
        }
    }
}
