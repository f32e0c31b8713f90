//! Fuzzes the event-stream parser.
#![no_main]

#[path = "../bodies/sse.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
