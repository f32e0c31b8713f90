//! Tests of reading and checking requests.
#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn the_border_form_round_trips() {
    let text = r#"{"model":"m","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"max_tokens":5,"temperature":0.5,"stop":["a"],"tools":[{"name":"f","description":"d","parameters":{"type":"object"}}],"tool_choice":"auto","extra":{"x":1.0}}"#;
    let request = LlmRequest::from_json(text.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&request).unwrap(), text);
}

#[test]
fn unknown_fields_are_refused_with_a_suggestion() {
    let error = LlmRequest::from_json(br#"{"prompt":"x","max_token":5}"#).unwrap_err();
    assert!(error.to_string().contains("did you mean `max_tokens`"), "{error}");
}

#[test]
fn ranges_are_checked() {
    let base = LlmRequest::new().with_prompt("x");
    assert!(base.validate().is_ok());
    assert!(base.clone().with_temperature(3.0).validate().is_err());
    assert!(base.clone().with_temperature(f64::NAN).validate().is_err());
    assert!(base.with_tool_choice(ToolChoice::Required).validate().is_err());
    assert!(LlmRequest::new().validate().is_err());
    assert!(check_header("x-a", "b\nc").is_err());
}
