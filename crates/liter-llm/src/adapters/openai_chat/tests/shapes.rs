//! Odd answers, error bodies in all shapes, content of all kinds, turns of other wires, broken frames.

use bytes::Bytes;
use http::HeaderMap;

use super::super::OpenAiChat;
use crate::adapters::{Adapter, Frame, Quirks, Target};
use crate::core::chunk::LlmChunk;
use crate::core::content::{Block, BlockKind, Media, Message, Role};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::fold::fold;
use crate::core::json::RawJson;
use crate::core::request::LlmRequest;
use crate::core::response::{FinishReason, LlmResponse};

fn target(quirks: &Quirks) -> Target<'_> {
    Target { provider: "host", model: "m", quirks, stream: false }
}

pub(super) fn whole(body: &str) -> Result<LlmResponse, LlmError> {
    let quirks = Quirks::default();
    OpenAiChat.decode(200, &HeaderMap::new(), &Bytes::from(body.to_owned()), &target(&quirks))
}

pub(super) fn failed(status: u16, body: &str) -> LlmError {
    let quirks = Quirks::default();
    let body = Bytes::from(body.to_owned());
    OpenAiChat.decode(status, &HeaderMap::new(), &body, &target(&quirks)).unwrap_err()
}

/// Streams these data lines; the chunks, and how it ended.
pub(super) fn stream(data: &[&str]) -> (Vec<LlmChunk>, Result<(), LlmError>) {
    let quirks = Quirks::default();
    let mut decoder = OpenAiChat.decoder(&target(&quirks));
    let mut chunks = Vec::new();
    for data in data {
        if let Err(error) = decoder.push(Frame::Event { name: "message", data }, &mut chunks) {
            return (chunks, Err(error));
        }
    }
    let end = decoder.finish(&mut chunks);
    (chunks, end)
}

fn answer(data: &[&str]) -> LlmResponse {
    let (chunks, end) = stream(data);
    end.unwrap();
    fold(&chunks)
}

/// Streams deltas of the one choice and ends properly.
pub(super) fn deltas(deltas: &[&str]) -> LlmResponse {
    let mut data: Vec<String> =
        deltas.iter().map(|delta| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#)).collect();
    data.push(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#.to_owned());
    data.push("[DONE]".to_owned());
    answer(&data.iter().map(String::as_str).collect::<Vec<_>>())
}

fn calls(answer: &LlmResponse) -> Vec<(&str, &str, &str)> {
    answer.tool_calls().iter().map(|call| (call.id, call.name, call.arguments)).collect()
}

#[test]
fn a_bare_answer_is_enough() {
    let answer = whole(r#"{"choices":[{"message":{"content":"hi"}}]}"#).unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.model.as_str(), answer.provider.as_str()),
        ("hi", "m", "host")
    );
    assert_eq!((answer.finish_reason, answer.usage), (FinishReason::Other, None));
    assert_eq!(whole(r#"{"choices":[{"finish_reason":"content_filter"}]}"#).unwrap().text(), "");
}

#[test]
fn odd_tool_calls_are_understood() {
    let body = r#"{"choices":[{"message":{"content":null,"tool_calls":[
        {"function":{"name":"f","arguments":{"a":1.0}}},
        {"id":"x","type":"function","function":{"name":"g"},"extra_content":{"google":{"thought_signature":"s"}}},
        {"id":"y","type":"custom","custom":{"name":"h","input":"free text"}}]},"finish_reason":"tool_calls"}]}"#;
    let answer = whole(body).unwrap();
    assert_eq!(calls(&answer), [("", "f", r#"{"a":1.0}"#), ("x", "g", "")]);
    let blocks = answer.message.content();
    assert_eq!(blocks[1].extra["extra_content"].get(), r#"{"google":{"thought_signature":"s"}}"#);
    assert!(matches!(&blocks[2].kind, BlockKind::Opaque { json, .. } if json.get().contains("free text")));
    // What the vendor put beside the call goes back with it.
    let request = LlmRequest::new().with_prompt("x").with_message(answer.message);
    let sent = text_of(&request, &Quirks::default());
    assert!(sent.contains(r#""extra_content":{"google":{"thought_signature":"s"}}"#), "{sent}");
    assert!(sent.contains(r#""custom":{"name":"h","input":"free text"}"#), "{sent}");
}

#[test]
fn streamed_tool_calls_of_all_hosts() {
    let two = [("a", "f", r#"{"x":1}"#), ("b", "f", "{}")];
    // By index, in turns.
    let read = deltas(&[
        r#"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"f","arguments":"{"}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":"}},{"index":1,"function":{"arguments":"}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"","function":{"arguments":"1}"}}]}"#,
    ]);
    assert_eq!(calls(&read), two);
    // Always index 0, whole calls with new ids.
    let read = deltas(&[
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}]}"#,
    ]);
    assert_eq!(calls(&read), two);
    // No index; ids and names repeated in every piece; arguments as an object.
    let read = deltas(&[
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"x\":"}}]}"#,
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"1}"}}]}"#,
        r#"{"tool_calls":[{"id":"b","function":{"name":"f","arguments":{}}}]}"#,
    ]);
    assert_eq!(calls(&read), two);
    // Neither index nor ids: a name after finished arguments begins the next call.
    let read = deltas(&[
        r#"{"tool_calls":[{"function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
        r#"{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}"#,
    ]);
    assert_eq!(calls(&read), [("", "f", r#"{"x":1}"#), ("", "f", "{}")]);
    // The id comes late; the finished call is repeated.
    let read = deltas(&[
        r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"x\":"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"1}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
    ]);
    assert_eq!(calls(&read), two[..1]);
    // A custom tool's text.
    let read = deltas(&[
        r#"{"tool_calls":[{"index":0,"id":"a","type":"custom","custom":{"name":"h","input":"fr"}}]}"#,
        r#"{"tool_calls":[{"index":0,"custom":{"input":"ee"}}]}"#,
    ]);
    assert!(
        matches!(&read.message.content()[0].kind, BlockKind::Opaque { json, .. } if json.get().contains("free"))
    );
}

#[test]
fn reasoning_in_its_forms() {
    let read = deltas(&[
        r#"{"reasoning_content":"a","reasoning":"a"}"#,
        r#"{"reasoning_content":"b"}"#,
        r#"{"content":"c"}"#,
    ]);
    assert_eq!((read.reasoning().as_str(), read.text().as_str()), ("ab", "c"));
    let read = deltas(&[
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"}]}]}"#,
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"b"}]},{"type":"text","text":"c"}]}"#,
        r#"{"content":"d"}"#,
    ]);
    assert_eq!((read.reasoning().as_str(), read.text().as_str()), ("ab", "cd"));
    assert_eq!(read.message.content().len(), 2);
    // Signed details come in pieces, and go back whole.
    let read = deltas(&[
        r#"{"reasoning":"a","reasoning_details":[{"type":"reasoning.text","index":0,"text":"a","signature":null}]}"#,
        r#"{"reasoning":"b","reasoning_details":[{"type":"reasoning.text","index":0,"text":"b"}]}"#,
        r#"{"reasoning_details":[{"type":"reasoning.text","index":0,"signature":"s"}]}"#,
        r#"{"reasoning_details":[{"type":"reasoning.encrypted","index":0,"data":"e"}],"content":"c"}"#,
    ]);
    let details = r#"[{"type":"reasoning.text","index":0,"text":"ab","signature":"s"},{"type":"reasoning.encrypted","index":0,"data":"e"}]"#;
    let BlockKind::Reasoning(reasoning) = &read.message.content()[0].kind else { panic!("no reasoning") };
    assert_eq!((reasoning.text.as_str(), reasoning.json.as_ref().unwrap().get()), ("ab", details));
    let quirks = &crate::providers::row("openrouter").unwrap().quirks;
    let sent = text_of(&LlmRequest::new().with_message(read.message), quirks);
    assert!(
        sent.contains(&format!(r#""reasoning":"ab","reasoning_details":{details},"content":"c""#)),
        "{sent}"
    );
}

#[test]
fn refusals_citations_logprobs_audio_and_alternatives() {
    let read = answer(&[
        r#"{"id":"i","choices":[{"index":0,"delta":{"content":"a","annotations":[{"u":1}]},"logprobs":{"content":[{"token":"a"}]}}]}"#,
        r#"{"id":"i","choices":[{"index":1,"delta":{"content":"other"},"finish_reason":"length"}]}"#,
        r#"{"id":"i","choices":[{"index":0,"delta":{"content":"b"},"logprobs":{"content":[{"token":"b"}],"refusal":null},"finish_reason":"stop"}]}"#,
        r#"{"id":"i","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        "[DONE]",
    ]);
    assert_eq!(read.logprobs.as_ref().unwrap().get(), r#"[{"token":"a"},{"token":"b"}]"#);
    assert!(matches!(&read.message.content()[0].kind,
        BlockKind::Text { text, citations: Some(list) } if text == "ab" && list.get() == r#"[{"u":1}]"#));
    assert!(read.extra["choices"].get().contains(r#""text":"other""#), "{:?}", read.extra);
    assert_eq!(read.usage.unwrap().output_tokens, 2);
    assert_eq!(deltas(&[r#"{"refusal":"no"}"#, r#"{"refusal":", sorry"}"#]).refusal(), Some("no, sorry"));
    let spoken = deltas(&[
        r#"{"audio":{"id":"au","transcript":"he"}}"#,
        r#"{"audio":{"data":"AQ=="}}"#,
        r#"{"audio":{"data":"Ag==","transcript":"y"}}"#,
    ]);
    let BlockKind::Audio { source: Media::Other(json) } = &spoken.message.content()[0].kind else {
        panic!("no audio")
    };
    assert!(
        json.get().contains(r#""data":"AQI=""#) && json.get().contains(r#""transcript":"hey""#),
        "{json:?}"
    );
    let sent = text_of(&LlmRequest::new().with_message(spoken.message), &Quirks::default());
    assert!(sent.contains(r#""audio":{"id":"au"}"#), "{sent}");
}

#[test]
fn usage_from_all_places() {
    let usage = |json: &str| {
        whole(&format!(r#"{{"choices":[{{"message":{{"content":"x"}}}}],"usage":{json}}}"#))
            .unwrap()
            .usage
            .unwrap()
    };
    let read = usage(
        r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6}"#,
    );
    assert_eq!((read.input_tokens, read.cache_read_input_tokens), (10, 4));
    assert_eq!(serde_json::to_string(&read.extra).unwrap(), r#"{"prompt_cache_miss_tokens":6}"#);
    let read = usage(
        r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":99,"cost":1e-6,"prompt_tokens_details":{"cached_tokens":2,"cache_write_tokens":3,"audio_tokens":1},"completion_tokens_details":{"reasoning_tokens":4}}"#,
    );
    assert_eq!(
        (read.cache_read_input_tokens, read.cache_creation_input_tokens, read.reasoning_output_tokens),
        (2, 3, 4)
    );
    let extra = serde_json::to_string(&read.extra).unwrap();
    assert_eq!(extra, r#"{"total_tokens":99,"cost":1e-6,"prompt_tokens_details":{"audio_tokens":1}}"#);
    assert_eq!((read.audio_input_tokens, read.audio_output_tokens), (1, 0));
    // Reasoning beside the output, both in the total.
    let read = usage(
        r#"{"prompt_tokens":12,"completion_tokens":1,"total_tokens":241,"completion_tokens_details":{"reasoning_tokens":228,"audio_tokens":7}}"#,
    );
    assert_eq!((read.output_tokens, read.reasoning_output_tokens, read.audio_output_tokens), (229, 228, 7));
    assert!(!read.extra.contains_key("total_tokens"));
    let groq = answer(&[
        r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}],"x_groq":{"id":"r","usage":{"prompt_tokens":1,"completion_tokens":2}}}"#,
        "[DONE]",
    ]);
    assert_eq!(groq.usage.unwrap().output_tokens, 2);
}

#[test]
fn errors_in_all_shapes() {
    use ErrorKind as K;
    // Status, body, kind, message, code. From the vendors' documentation where no recording exists.
    let table = [
        (
            429,
            r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            K::QuotaExhausted,
            "m",
            Some("insufficient_quota"),
        ),
        (
            429,
            r#"{"error":{"message":"m","type":"requests","code":"rate_limit_exceeded"}}"#,
            K::RateLimited,
            "m",
            Some("rate_limit_exceeded"),
        ),
        (
            400,
            r#"{"error":{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            K::ContextLength,
            "m",
            Some("context_length_exceeded"),
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 8 tokens.","type":"BadRequestError","code":400}"#,
            K::ContextLength,
            "This model's maximum context length is 8 tokens.",
            Some("400"),
        ),
        (
            400,
            r#"{"error":{"message":"m","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            K::ContentFilter,
            "m",
            None,
        ),
        (
            403,
            r#"{"error":{"code":403,"message":"m","metadata":{"reasons":["violence"]}}}"#,
            K::ContentFilter,
            "m",
            Some("403"),
        ),
        (
            401,
            r#"{"error":{"message":"m","code":"invalid_api_key"}}"#,
            K::Authentication,
            "m",
            Some("invalid_api_key"),
        ),
        (
            400,
            r#"{"error":{"message":"m","code":"invalid_api_key"}}"#,
            K::Authentication,
            "m",
            Some("invalid_api_key"),
        ),
        (
            404,
            r#"{"error":{"message":"m","code":"model_not_found"}}"#,
            K::NotFound,
            "m",
            Some("model_not_found"),
        ),
        (
            400,
            r#"{"code":"Client specified an invalid argument","error":"m"}"#,
            K::InvalidRequest,
            "m",
            Some("Client specified an invalid argument"),
        ),
        (
            422,
            r#"{"detail":[{"loc":["body","temperature"],"msg":"m","type":"less_than"}]}"#,
            K::InvalidRequest,
            "m",
            Some("less_than"),
        ),
        (
            422,
            r#"{"object":"error","message":{"detail":[{"loc":["body","x"],"msg":"m","type":"extra_forbidden"}]},"type":"t"}"#,
            K::InvalidRequest,
            "m",
            Some("extra_forbidden"),
        ),
        (404, r#"{"detail":"m"}"#, K::NotFound, "m", None),
        (400, r#"{"errors":[{"message":"m","code":7}]}"#, K::InvalidRequest, "m", Some("7")),
        (
            500,
            r#"[{"error":{"code":500,"message":"m","status":"INTERNAL"}}]"#,
            K::ProviderError,
            "m",
            Some("500"),
        ),
        (402, r#"{"error":{"message":"m","code":402}}"#, K::QuotaExhausted, "m", Some("402")),
        (413, "too big", K::RequestTooLarge, "too big", None),
        (
            502,
            "<html><body>Bad Gateway</body></html>",
            K::ProviderError,
            "<html><body>Bad Gateway</body></html>",
            None,
        ),
        (529, "", K::Overloaded, "the provider answered with status 529", None),
    ];
    for (status, body, kind, message, code) in table {
        let error = failed(status, body);
        let detail = error.detail();
        assert_eq!(
            (error.kind(), detail.message.as_str(), detail.code.as_deref()),
            (kind, message, code),
            "{body}"
        );
        assert_eq!(
            (detail.provider.as_deref(), detail.model.as_deref()),
            (Some("host"), Some("m")),
            "{body}"
        );
        assert_eq!(detail.status_code, Some(status));
    }
    let list = failed(422, r#"{"detail":[{"loc":["body",0,"x"],"msg":"m"}]}"#);
    assert_eq!(list.detail().param.as_deref(), Some("body.0.x"));
}

#[test]
fn errors_inside_a_success() {
    let error = whole(r#"{"error":{"message":"slow down","code":429}}"#).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::RateLimited, true));
    let error = whole(r#"{"error":{"message":"busy","type":"overloaded_error"}}"#).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Overloaded, true));
    let error = whole(
        r#"{"id":"x","choices":[{"error":{"code":502,"message":"upstream"},"message":{"content":""}}]}"#,
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ProviderError);
    let error = whole(r#"{"detail":"Not authenticated"}"#).unwrap_err();
    assert_eq!(error.detail().message, "Not authenticated");
    for body in ["<!doctype html><p>login</p>", "", "[]", r#"{"choices":[]}"#, r#"{"choices":[{"message"#] {
        let error = whole(body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode, "{body}");
        assert!(error.detail().provider.is_some() && !error.is_retryable());
    }
    let (chunks, end) = stream(&[
        r#"{"choices":[{"index":0,"delta":{"content":"half"}}]}"#,
        r#"{"error":{"message":"upstream died","code":502},"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#,
    ]);
    assert_eq!(fold(&chunks).text(), "half");
    let error = end.unwrap_err();
    assert_eq!((error.kind(), error.detail().message.as_str()), (ErrorKind::ProviderError, "upstream died"));
    let (_, end) = stream(&[r#"{"choices":[{"index":0,"delta":{"cont"#]);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Decode);
}

#[test]
fn only_a_terminator_ends_a_stream() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let other = r#"{"choices":[{"index":1,"delta":{"content":"y"}}]}"#;
    let interrupted =
        |data: &[&str]| stream(data).1.is_err_and(|error| error.kind() == ErrorKind::StreamInterrupted);
    assert!(interrupted(&[]) && interrupted(&[text]) && interrupted(&["[DONE]"]));
    assert!(interrupted(&[text, other, end]));
    assert!(stream(&[text, "[DONE]"]).1.is_ok() && stream(&[text, end]).1.is_ok());
    // Signs of life, empty choices, padding and repeated ends change nothing.
    let (chunks, ended) =
        stream(&["", r#"{"choices":[]}"#, text, end, end, r#"{"choices":[],"obfuscation":"zz"}"#, "[DONE]"]);
    ended.unwrap();
    assert_eq!(chunks.iter().filter(|chunk| chunk.finish_reason.is_some()).count(), 1);
    assert!(fold(&chunks).extra.is_empty());
    let quirks = Quirks::default();
    let mut decoder = OpenAiChat.decoder(&target(&quirks));
    let mut chunks = Vec::new();
    decoder.push(Frame::Event { name: "ping", data: "still here" }, &mut chunks).unwrap();
    decoder.push(Frame::Text(text), &mut chunks).unwrap();
    assert!(!decoder.is_done());
    let error =
        decoder.push(Frame::Event { name: "error", data: r#"{"message":"m"}"# }, &mut chunks).unwrap_err();
    assert_eq!(error.detail().message, "m");
}

#[test]
fn vendor_fields_survive() {
    let body = r#"{"id":"i","object":"chat.completion","created":12,"system_fingerprint":"fp","x":{"b":1.0,"a":[]},"choices":[{"index":0,"native_finish_reason":"STOP","message":{"content":"t","executed_tools":[1]},"finish_reason":"stop"}]}"#;
    let extra = whole(body).unwrap().extra;
    assert_eq!(
        serde_json::to_string(&extra).unwrap(),
        r#"{"created":12,"system_fingerprint":"fp","x":{"b":1.0,"a":[]},"choice":{"native_finish_reason":"STOP"},"message":{"executed_tools":[1]}}"#
    );
    // The retired function call goes back as it came.
    let old =
        whole(r#"{"choices":[{"message":{"content":null,"function_call":{"name":"f","arguments":"{}"}}}]}"#);
    let sent = text_of(&LlmRequest::new().with_message(old.unwrap().message), &Quirks::default());
    assert!(
        sent.contains(r#"{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}}"#)
    );
}

fn encoded(request: &LlmRequest, quirks: &Quirks, stream: bool) -> Result<(String, Vec<String>), LlmError> {
    let wire = OpenAiChat.encode(request, &Target { stream, ..target(quirks) })?;
    let left = wire.adjustments.iter().map(|one| one.param.clone()).collect();
    let text = String::from_utf8(wire.body).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    Ok((text, left))
}

fn text_of(request: &LlmRequest, quirks: &Quirks) -> String {
    encoded(request, quirks, false).unwrap().0
}

fn messages_of(messages: Vec<Message>, provider: &str) -> (String, Vec<String>) {
    let request = LlmRequest::new().with_messages(messages);
    let (text, left) = encoded(&request, &crate::providers::row(provider).unwrap().quirks, false).unwrap();
    (text.strip_prefix(r#"{"model":"m","messages":"#).unwrap().trim_end_matches('}').to_owned() + "}", left)
}

fn raw(text: &str) -> RawJson {
    RawJson::parse(text).unwrap()
}

#[test]
fn content_of_all_kinds() {
    let png = || Block::image(Media::Base64 { media_type: "image/png".into(), data: "AA==".into() });
    let (text, _) = messages_of(
        vec![Message::new(
            Role::User,
            vec![
                Block::text("t"),
                png(),
                Block::document(
                    Media::Base64 { media_type: "application/pdf".into(), data: "AA==".into() },
                    None,
                ),
                Block::document(Media::File("file-1".into()), None),
                Block::audio(Media::Base64 { media_type: "audio/mpeg".into(), data: "AA==".into() }),
            ],
        )],
        "openai",
    );
    assert_eq!(
        text,
        concat!(
            r#"[{"role":"user","content":[{"type":"text","text":"t"},"#,
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}},"#,
            r#"{"type":"file","file":{"filename":"document.pdf","file_data":"data:application/pdf;base64,AA=="}},"#,
            r#"{"type":"file","file":{"file_id":"file-1"}},"#,
            r#"{"type":"input_audio","input_audio":{"data":"AA==","format":"mp3"}}]}]}"#
        )
    );
    let by_url = || {
        vec![Message::new(Role::User, vec![Block::document(Media::Url("https://e.x/a.pdf".into()), None)])]
    };
    let refused = LlmRequest::new().with_messages(by_url());
    let openai = &crate::providers::row("openai").unwrap().quirks;
    assert_eq!(encoded(&refused, openai, false).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(
        messages_of(by_url(), "mistral")
            .0
            .contains(r#"{"type":"document_url","document_url":"https://e.x/a.pdf"}"#)
    );
    assert!(messages_of(by_url(), "openrouter").0.contains(r#""file_data":"https://e.x/a.pdf"}"#));
    let result = |content| vec![Message::new(Role::Tool, vec![Block::tool_result("c", content, false)])];
    let refused = LlmRequest::new().with_messages(result(vec![png()]));
    assert_eq!(encoded(&refused, openai, false).unwrap_err().kind(), ErrorKind::Unsupported);
    let (text, _) = messages_of(result(vec![Block::text("see"), png()]), "openrouter");
    assert!(text.starts_with(r#"[{"role":"tool","tool_call_id":"c","content":[{"type":"text","text":"see"},{"type":"image_url""#), "{text}");
}

#[test]
fn turns_of_another_wire_are_rewritten() {
    let read = |text: &str| Message::from_json(&raw(text)).unwrap();
    let turns = || {
        vec![
            read(
                r#"{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"ok"},{"type":"tool_use","id":"c","name":"f","input":{"a":1.0}},{"type":"server_tool_use","id":"v","name":"web_search","input":{}}]}"#,
            ),
            read(
                r#"{"role":"user","content":[{"type":"text","text":"and?"},{"type":"tool_result","tool_use_id":"c","content":"boom","is_error":true}]}"#,
            ),
        ]
    };
    let (text, left) = messages_of(turns(), "openai");
    assert_eq!(
        text,
        concat!(
            r#"[{"role":"assistant","content":"ok","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1.0}"}}]},"#,
            r#"{"role":"tool","tool_call_id":"c","content":"Error: boom"},{"role":"user","content":"and?"}]}"#
        )
    );
    assert_eq!(left, ["messages[0]", "messages[0]", "messages[1].is_error"]);
    let marked =
        r#"{"role":"user","content":[{"cache_control":{"type":"ephemeral"},"text":"x","type":"text"}]}"#;
    let (text, left) = messages_of(vec![read(marked)], "openrouter");
    assert_eq!((text, left), (format!("[{marked}]}}"), vec![]));
    let (text, left) = messages_of(vec![read(marked)], "openai");
    assert_eq!(
        (text.as_str(), left),
        (r#"[{"role":"user","content":"x"}]}"#, vec!["messages[0].cache_control".to_owned()])
    );
    let own = r#"{"role":"user","content":[{"type":"text","text":"x","prompt_cache_breakpoint":{"mode":"explicit"}}]}"#;
    assert_eq!(messages_of(vec![read(own)], "openai").0, format!("[{own}]}}"));
}

#[test]
fn mistakes_in_the_conversation_are_named() {
    let cases = [
        Message::new(Role::Tool, vec![Block::text("no id")]),
        Message::new(Role::User, vec![Block::tool_call("c", "f", "{}")]),
        Message::new(Role::Assistant, vec![Block::tool_result("c", vec![], false)]),
    ];
    for message in cases {
        let error = encoded(&LlmRequest::new().with_message(message), &Quirks::default(), false).unwrap_err();
        assert_eq!(
            (error.kind(), error.detail().param.as_deref()),
            (ErrorKind::InvalidRequest, Some("messages[0]"))
        );
    }
}
