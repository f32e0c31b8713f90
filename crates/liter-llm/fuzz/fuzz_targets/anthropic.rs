//! Fuzzes the Anthropic Messages decoder.
#![no_main]

#[path = "../bodies/decoder.rs"]
mod body;

use liter_llm::adapters::anthropic::AnthropicMessages;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(&AnthropicMessages, input));
