//! Clients of the simulator in every wire format, for the promise tests.
#![allow(dead_code, reason = "each test takes what it needs")]

use futures_util::StreamExt;
use liter_llm::{
    Api, ChunkStream, Client, FinishReason, Folder, LlmError, LlmProvider, LlmRequest, LlmResponse,
    ProviderConfig, Toggle, Tool, TransportKind,
};
use liter_llm_sim::{Rule, SimConfig, Simulator};
use serde_json::{Value, json};

/// The ways an answer is streamed: name, provider.
pub const DIALECTS: [(&str, &str); 5] = [
    ("chat", "openai"),
    ("responses", "openai"),
    ("anthropic", "anthropic"),
    ("azure", "azure"),
    ("websocket", "openai"),
];

pub fn simulator() -> Simulator {
    Simulator::start(SimConfig::default()).unwrap()
}

/// Puts one rule in place of all others; of a WebSocket it means the messages.
pub fn fault(sim: &Simulator, dialect: &str, fault: &Value) {
    let when = if dialect == "websocket" { json!({"method": "WEBSOCKET"}) } else { json!({}) };
    sim.set_rules(vec![rule(&json!({"match": when, "fault": fault}))]).unwrap();
}

pub fn rule(rule: &Value) -> Rule {
    Rule::from_json(&rule.to_string()).unwrap()
}

/// A configuration of this dialect without retries.
pub fn config(sim: &Simulator, dialect: &str) -> ProviderConfig {
    let provider = DIALECTS.iter().find(|(name, _)| *name == dialect).unwrap().1;
    let mut config = ProviderConfig::new(provider)
        .with_model("test-model")
        .with_api_key("sk-simulator")
        .with_base_url(sim.base_url(provider).unwrap());
    config.max_retries = Some(0);
    config.circuit = Some(Toggle::Off);
    if matches!(dialect, "responses" | "websocket") {
        config.api = Api::Responses;
    }
    if dialect == "websocket" {
        config.transport = TransportKind::Websocket;
    }
    config
}

pub fn client(sim: &Simulator, dialect: &str) -> Client {
    Client::new(config(sim, dialect)).unwrap()
}

/// A text, and a tool call.
pub fn requests() -> [LlmRequest; 2] {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let tool = json!({"name": "get_weather", "description": "Tells.", "parameters": schema});
    let tool: Tool = serde_json::from_value(tool).unwrap();
    let with_tool = LlmRequest::new().with_prompt("What is the weather in Rome?");
    [
        LlmRequest::new().with_prompt("hello [tokens=6]"),
        with_tool.with(|body| {
            body.max_tokens = Some(100);
            body.tools = vec![tool];
        }),
    ]
}

/// What came of a stream: its text so far, and the answer or the error.
pub async fn read(client: &Client, request: &LlmRequest) -> (String, Result<LlmResponse, LlmError>) {
    let mut text = String::new();
    let mut chunks: ChunkStream = match client.stream(request.clone()).await {
        Ok(chunks) => chunks,
        Err(error) => return (text, Err(error)),
    };
    let mut folder = Folder::new();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => {
                folder.push(&chunk);
                text = folder.partial().text();
            }
            Err(error) => {
                assert!(chunks.next().await.is_none(), "something came after the error");
                return (text, Err(error));
            }
        }
    }
    (text, Ok(folder.finish()))
}

/// What an answer says, to compare two of them.
pub fn content(answer: &LlmResponse) -> (String, Vec<(String, String)>, FinishReason) {
    let calls = answer.tool_calls().into_iter().map(|call| (call.name.to_owned(), call.arguments.to_owned()));
    (answer.text(), calls.collect(), answer.finish_reason)
}
