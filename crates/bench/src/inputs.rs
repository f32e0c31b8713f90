//! The inputs of the measurements: written here, the same in every run, in the form the providers document.

use std::fmt::Write as _;

use liter_llm::{LlmError, LlmRequest};

const SENTENCE: &str =
    "The lighthouse keeper counts the ships, writes their names down and \"waves\" to each.\n";

/// A request of one short message, as it crosses the language border.
pub const SMALL_REQUEST: &str =
    r#"{"messages":[{"role":"user","content":"Say hello in one word."}],"max_tokens":64,"temperature":0.2}"#;

/// A conversation of `count` messages in turn of user and assistant, as it crosses the language border. Every fourth
/// message is a list of parts, so that both forms are written.
#[must_use]
pub fn conversation(count: usize) -> String {
    let mut text = String::from(r#"{"system":"You are a patient keeper of lists.","messages":["#);
    for index in 0..count {
        let role = if index % 2 == 0 { "user" } else { "assistant" };
        let content = serde_json::Value::from(format!("{index}: {SENTENCE}")).to_string();
        let comma = if index == 0 { "" } else { "," };
        let _ = if index % 4 == 0 {
            write!(text, r#"{comma}{{"role":"{role}","content":[{{"type":"text","text":{content}}}]}}"#)
        } else {
            write!(text, r#"{comma}{{"role":"{role}","content":{content}}}"#)
        };
    }
    text.push_str(r#"],"max_tokens":512,"stop":["END"]}"#);
    text
}

/// A request with system prompt, two tools and `count` messages built through the typed interface, so that adapters
/// write every field themselves.
#[must_use]
pub fn built_request(count: usize) -> LlmRequest {
    use liter_llm::{Message, RawJson, Tool, ToolChoice};
    let parameters = r#"{"type":"object","properties":{"city":{"type":"string","description":"The city's name."},"unit":{"enum":["c","f"]}},"required":["city"]}"#;
    let mut request = LlmRequest::new()
        .with_system("You are a patient keeper of lists.")
        .with_max_tokens(512)
        .with_temperature(0.3)
        .with_tool_choice(ToolChoice::Auto);
    for name in ["weather", "forecast"] {
        if let Ok(schema) = RawJson::parse(parameters) {
            request = request.with_tool(Tool::function(name, "Asks the weather office.", schema));
        }
    }
    for index in 0..count {
        let text = format!("{index}: {SENTENCE}");
        let message = if index % 2 == 0 { Message::user(text) } else { Message::assistant(text) };
        request = request.with_message(message);
    }
    request
}

/// Reads a request from its border form.
///
/// # Errors
/// When the text is not a request.
pub fn request(json: &str) -> Result<LlmRequest, LlmError> {
    LlmRequest::from_json(json.as_bytes())
}

/// A whole chat completion of about 900 bytes.
pub const CHAT_ANSWER: &str = r#"{
  "id": "chatcmpl-measured01",
  "object": "chat.completion",
  "created": 1741569952,
  "model": "gpt-4o-mini-2024-07-18",
  "choices": [
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": "The keeper counted eleven ships tonight.\nOne of them, the \"Marigold\", carried oranges.",
        "refusal": null,
        "annotations": []
      },
      "logprobs": null,
      "finish_reason": "stop"
    }
  ],
  "usage": {
    "prompt_tokens": 19,
    "completion_tokens": 21,
    "total_tokens": 40,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
      "reasoning_tokens": 0,
      "audio_tokens": 0,
      "accepted_prediction_tokens": 0,
      "rejected_prediction_tokens": 0
    }
  },
  "service_tier": "default",
  "system_fingerprint": "fp_measured"
}"#;

/// A whole Anthropic message with a tool call.
pub const ANTHROPIC_ANSWER: &str = r#"{
  "id": "msg_measured01",
  "type": "message",
  "role": "assistant",
  "model": "claude-sonnet-4-5-20250929",
  "content": [
    {"type": "text", "text": "I ask the weather office, and then I write the \"answer\" down."},
    {"type": "tool_use", "id": "toolu_measured01", "name": "weather", "input": {"city": "Husum", "unit": "c"}}
  ],
  "stop_reason": "tool_use",
  "stop_sequence": null,
  "usage": {
    "input_tokens": 377,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 65,
    "service_tier": "standard"
  }
}"#;

/// The word of event `index` in a streamed answer.
fn word(index: usize) -> String {
    const WORDS: [&str; 8] =
        [" The", " keeper", " counts", " every", " ship", ",", " then\\n", " \\\"rests\\\""];
    WORDS[index % WORDS.len()].to_owned()
}

/// A streamed chat completion of `count` pieces of text.
#[must_use]
pub fn chat_stream(count: usize) -> String {
    let head = r#"{"id":"chatcmpl-measured01","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_measured","#;
    let mut text = format!(
        "data: {head}\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
    );
    for index in 0..count {
        let _ = write!(
            text,
            "data: {head}\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n",
            word(index)
        );
    }
    let _ = write!(
        text,
        "data: {head}\"choices\":[{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":null}}\n\ndata: {head}\"choices\":[],\"usage\":{{\"prompt_tokens\":19,\"completion_tokens\":{count},\"total_tokens\":119}}}}\n\ndata: [DONE]\n\n"
    );
    text
}

/// A streamed Anthropic message of `count` pieces of text.
#[must_use]
pub fn anthropic_stream(count: usize) -> String {
    let mut text = String::from(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_measured01\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"claude-sonnet-4-5-20250929\",\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n",
    );
    for index in 0..count {
        let _ = write!(
            text,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{}\"}}}}\n\n",
            word(index)
        );
    }
    let _ = write!(
        text,
        "event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":0}}\n\nevent: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\",\"stop_sequence\":null}},\"usage\":{{\"output_tokens\":{count}}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    text
}

/// A streamed answer of the Responses API of `count` pieces of text.
#[must_use]
pub fn responses_stream(count: usize) -> String {
    let whole: String = (0..count).map(word).collect();
    let response = |status: &str, output: &str, usage: &str| {
        format!(
            r#"{{"id":"resp_measured01","object":"response","created_at":1741569952,"status":"{status}","error":null,"incomplete_details":null,"model":"gpt-4o-mini-2024-07-18","output":[{output}],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"auto","tools":[],"usage":{usage}}}"#
        )
    };
    let item = |status: &str, content: &str| {
        format!(
            r#"{{"id":"msg_measured01","type":"message","status":"{status}","role":"assistant","content":[{content}]}}"#
        )
    };
    let part = format!(r#"{{"type":"output_text","text":"{whole}","annotations":[]}}"#);
    let mut sequence = 0;
    let mut text = String::new();
    let mut event = |name: &str, fields: &str| {
        let _ = write!(
            text,
            "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{sequence},{fields}}}\n\n"
        );
        sequence += 1;
    };
    let began = response("in_progress", "", "null");
    event("response.created", &format!("\"response\":{began}"));
    event("response.in_progress", &format!("\"response\":{began}"));
    let opened = item("in_progress", "");
    event("response.output_item.added", &format!("\"output_index\":0,\"item\":{opened}"));
    let place = r#""item_id":"msg_measured01","output_index":0,"content_index":0"#;
    let empty = r#"{"type":"output_text","text":"","annotations":[]}"#;
    event("response.content_part.added", &format!("{place},\"part\":{empty}"));
    for index in 0..count {
        event("response.output_text.delta", &format!("{place},\"delta\":\"{}\"", word(index)));
    }
    event("response.output_text.done", &format!("{place},\"text\":\"{whole}\""));
    event("response.content_part.done", &format!("{place},\"part\":{part}"));
    let closed = item("completed", &part);
    event("response.output_item.done", &format!("\"output_index\":0,\"item\":{closed}"));
    let usage = format!(
        r#"{{"input_tokens":19,"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{count},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":119}}"#
    );
    event("response.completed", &format!("\"response\":{}", response("completed", &closed, &usage)));
    text
}
