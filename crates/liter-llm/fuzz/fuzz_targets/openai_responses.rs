//! Fuzzes the OpenAI Responses decoder.
#![no_main]

#[path = "../bodies/decoder.rs"]
mod body;

use liter_llm::adapters::openai_responses::OpenAiResponses;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(&OpenAiResponses, input));
