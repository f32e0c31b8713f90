//! An answer of the Responses API goes on over chat and over Anthropic: nothing it remembers for its own wire leaks.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;

use super::super::OpenAiChat;
use crate::adapters::anthropic::AnthropicMessages;
use crate::adapters::openai_responses::OpenAiResponses;
use crate::adapters::{Adapter, Quirks, Target};
use crate::core::content::Message;
use crate::core::request::LlmRequest;

/// The message of an answer, as decoded, and as a caller gets it back from its own store.
fn messages(target: &Target<'_>) -> [Message; 2] {
    let answer = json!({"id": "resp_1", "model": "m", "status": "completed", "output": [
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "phase": "commentary",
         "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}]},
        {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "call_1", "name": "f",
         "arguments": "{\"x\":1.0}"}]});
    let body = Bytes::from(answer.to_string());
    let decoded = OpenAiResponses.decode(200, &HeaderMap::new(), &body, target).unwrap().message;
    assert!(decoded.content().iter().all(|block| block.extra.contains_key("openai_responses")));
    let stored = serde_json::from_slice(&serde_json::to_vec(&decoded).unwrap()).unwrap();
    [decoded, stored]
}

#[test]
fn nothing_leaks() {
    let quirks = Quirks::default();
    let target = Target { provider: "p", model: "m", quirks: &quirks, stream: false };
    for message in messages(&target) {
        let text_only = Message::new(message.role(), message.content()[..1].to_vec());
        let bodies = |message: Message| {
            let request = LlmRequest::new().with_prompt("x").with_message(message).with_max_tokens(5);
            let body = |adapter: &dyn Adapter| {
                let wire = adapter.encode(&request, &target).unwrap();
                assert!(wire.adjustments.is_empty(), "{:?}", wire.adjustments);
                String::from_utf8(wire.body).unwrap()
            };
            [body(&OpenAiChat), body(&AnthropicMessages)]
        };
        assert_eq!(
            bodies(message),
            [
                r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"a","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\":1.0}"}}]}],"max_tokens":5}"#,
                r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"tool_use","id":"call_1","name":"f","input":{"x":1.0}}]}]}"#,
            ]
        );
        assert_eq!(
            bodies(text_only),
            [
                r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"a"}],"max_tokens":5}"#,
                r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"assistant","content":[{"type":"text","text":"a"}]}]}"#,
            ]
        );
    }
}
