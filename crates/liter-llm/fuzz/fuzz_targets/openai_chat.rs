//! Fuzzes the OpenAI chat decoder.
#![no_main]

#[path = "../bodies/decoder.rs"]
mod body;

use liter_llm::adapters::openai_chat::OpenAiChat;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(&OpenAiChat, input));
