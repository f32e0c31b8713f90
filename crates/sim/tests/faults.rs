//! Every fault, as a client sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use std::io::Read as _;
use std::time::{Duration, Instant};

use liter_llm_sim::{Rule, SimConfig, Simulator};
use serde_json::{Value, json};
use wire::{Answer, End, KEY, chat, connect, messages, post, read, send, sim};

fn ask(stream: bool) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": stream})
}

fn claude(stream: bool) -> Value {
    json!({"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], "stream": stream})
}

/// The answer to a chat request under this fault.
fn under(fault: Value, stream: bool) -> Answer {
    let sim = sim(&[&json!({"fault": fault}).to_string()]);
    chat(&sim, &ask(stream))
}

#[test]
fn status_headers_and_body() {
    let answer = under(
        json!({"status": 429, "headers": {"retry-after": "7"}, "extra_headers": [["x-a", "1"], ["x-a", "2"]]}),
        false,
    );
    assert_eq!(
        (answer.status, answer.header("retry-after"), &answer.json()["error"]["code"]),
        (429, Some("7"), &json!("rate_limit_exceeded"))
    );
    assert_eq!(answer.headers.iter().filter(|(n, _)| n == "x-a").count(), 2);
    assert_eq!(under(json!({"status": 503, "body": {"a": 1}}), false).json(), json!({"a": 1}));
    let html = under(json!({"status": 502, "body": "<html>bad</html>"}), true);
    assert_eq!(
        (html.status, html.header("content-type"), html.text().as_str()),
        (502, Some("text/html"), "<html>bad</html>")
    );
    assert_eq!(under(json!({"body_base64": "AAEC"}), false).body, [0, 1, 2]);
    assert_eq!(
        under(json!({"content_type": "text/plain", "remove_headers": ["x-request-id"]}), true)
            .header("content-type"),
        Some("text/plain")
    );
    let sim = sim(&[r#"{"fault": {"status": 529}}"#]);
    let answer = messages(&sim, &claude(true));
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (529, &json!("overloaded_error")));
}

#[test]
fn delays() {
    for (fault, stream, least) in [
        (json!({"delay_ms": 80}), false, 80),
        (json!({"first_event_delay_ms": 80}), true, 80),
        (json!({"event_delay_ms": 5}), true, 100),
        (json!({"drip_bytes": 500, "drip_interval_ms": 10}), true, 50),
    ] {
        let begin = Instant::now();
        let answer = under(fault.clone(), stream);
        assert_eq!((answer.status, answer.end), (200, End::Complete));
        assert!(begin.elapsed() >= Duration::from_millis(least), "{fault}: {:?}", begin.elapsed());
    }
}

#[test]
fn endings() {
    for (fault, stream, status, end) in [
        (json!({"reset": true}), false, 0, End::Reset),
        (json!({"close": true}), false, 0, End::Cut),
        (json!({"reset_after": 3}), true, 200, End::Reset),
        (json!({"cut_after": 3}), true, 200, End::Cut),
        (json!({"close_after": 3}), true, 200, End::Closed),
        (json!({"end_after": 3}), true, 200, End::Complete),
        (json!({"cut_after_bytes": 10}), false, 200, End::Cut),
        (json!({"cut_after_bytes": 700}), true, 200, End::Cut),
        (json!({"cut_after": 0}), true, 200, End::Cut),
        (json!({"cut_after": 1}), false, 200, End::Cut),
        (json!({"cut_after": 100_000}), true, 200, End::Cut),
    ] {
        let answer = under(fault.clone(), stream);
        assert_eq!((answer.status, answer.end), (status, end), "{fault}");
        if fault.to_string().contains("_after\":3") {
            assert_eq!(answer.events().len(), 3, "{fault}");
        }
    }
}

#[test]
fn altered_streams() {
    let clean = under(json!({}), true).events();
    let dropped = under(json!({"drop_terminator": true}), true);
    assert_eq!((dropped.end, dropped.events().len()), (End::Complete, clean.len() - 1));
    assert_eq!(under(json!({"drop_finish": true}), true).events().len(), clean.len() - 2);
    let malformed = under(json!({"malformed_after": 2}), true).events();
    assert!(
        malformed[2].is_string()
            && malformed.len() == clean.len() + 1
            && malformed.last().unwrap() == "[DONE]"
    );
    assert_eq!(under(json!({"malformed_after": 2, "malformed_text": "oops"}), true).events()[2], "oops");
    let big = under(json!({"oversized_bytes": 100_000, "oversized_after": 4}), true).events();
    assert!(big[4].to_string().len() >= 100_000);
    assert!(under(json!({"oversized_bytes": 100_000}), false).body.len() >= 100_000);
    let failed = under(json!({"error_after": 2}), true);
    assert_eq!(
        (failed.end, failed.events().len(), &failed.events()[2]["error"]["type"]),
        (End::Complete, 3, &json!("server_error"))
    );

    let sim = sim(&[r#"{"fault": {"error_after": 3}}"#]);
    let events = messages(&sim, &claude(true));
    assert!(events.text().contains("event: error\n"));
    assert_eq!(
        events.events()[3],
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    );
    let body = json!({"model": "m", "input": "Hi", "stream": true});
    let events = post(&sim, "/openai/v1/responses", &body).events();
    assert_eq!((&events[3]["type"], &events[3]["sequence_number"]), (&json!("error"), &json!(3)));
    assert_eq!(events[3]["error"]["code"], "server_error");
    assert_eq!((&events[4]["type"], events.len()), (&json!("response.failed"), 5));
    assert_eq!(events[4]["response"]["error"]["code"], "server_error");
}

#[test]
fn raw_text_goes_out_as_it_is() {
    let text = "data: {\"a\":1}\n\ndata: [DONE]\n\n";
    let answer = under(json!({"sse": text}), true);
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        (text, Some("text/event-stream; charset=utf-8"))
    );
    assert_eq!(under(json!({"sse": text, "drop_terminator": true}), true).events(), [json!({"a": 1})]);
}

#[test]
fn compressed() {
    for stream in [false, true] {
        let answer = under(json!({"gzip": true}), stream);
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text).unwrap();
        assert!(text.contains("chatcmpl-"));
    }
}

#[test]
fn a_hang_lasts_until_the_client_leaves_and_is_logged() {
    for fault in [
        r#"{"fault": {"hang": true}}"#,
        r#"{"fault": {"hang_after": 2}}"#,
        r#"{"fault": {"event_delay_ms": 60000}}"#,
    ] {
        let sim = sim(&[fault]);
        let mut stream = connect(&sim);
        stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        send(&mut stream, "POST", "/openai/v1/chat/completions", &[KEY], &ask(true).to_string());
        assert_eq!(read(&mut stream).end, End::Silent);
        assert!(!sim.requests()[0].client_closed);
        assert_eq!(sim.open_connections(), 1);
        drop(stream);
        let begin = Instant::now();
        while !sim.requests()[0].client_closed {
            assert!(begin.elapsed() < Duration::from_secs(2));
        }
        let record = &sim.requests()[0];
        assert!(record.client_closed_at.unwrap() > record.at && record.rule.as_deref() == Some("rule-1"));
    }
}

#[test]
fn rules_choose_their_requests() {
    let sim = sim(&[]);
    let statuses = |rule: Value, count: usize| -> Vec<u16> {
        sim.set_rules(vec![Rule::from_json(&rule.to_string()).unwrap()]).unwrap();
        (0..count).map(|_| chat(&sim, &ask(false)).status).collect()
    };
    let bad = json!({"status": 500});
    assert_eq!(statuses(json!({"match": {"nth": [1, 3]}, "fault": bad}), 4), [500, 200, 500, 200]);
    assert_eq!(statuses(json!({"match": {"every": 2}, "fault": bad}), 4), [200, 500, 200, 500]);
    assert_eq!(statuses(json!({"match": {"times": 1}, "fault": bad}), 2), [500, 200]);
    for (condition, hit) in [
        (json!({"provider": "openai"}), true),
        (json!({"provider": "azure"}), false),
        (json!({"path": "/openai"}), true),
        (json!({"path": "*/completions"}), true),
        (json!({"model": "gpt-*"}), true),
        (json!({"model": "claude-*"}), false),
        (json!({"streaming": true}), false),
        (json!({"headers": {"Authorization": "Bearer *"}}), true),
        (json!({"body_contains": "Hi"}), true),
        (json!({"method": "GET"}), false),
    ] {
        assert_eq!(
            statuses(json!({"match": condition, "fault": bad}), 1),
            [if hit { 500 } else { 200 }],
            "{condition}"
        );
    }
    let draws = statuses(json!({"match": {"percent": 30.0, "seed": 7}, "fault": bad}), 200);
    let hits = draws.iter().filter(|s| **s == 500).count();
    assert!((40..80).contains(&hits), "{hits}");
    assert_eq!(statuses(json!({"match": {"percent": 30.0, "seed": 7}, "fault": bad}), 200), draws);
}

#[test]
fn tokens_are_paced() {
    let sim =
        Simulator::start(SimConfig { token_interval: Duration::from_millis(2), ..SimConfig::default() })
            .unwrap();
    let begin = Instant::now();
    let answer = chat(
        &sim,
        &json!({"model": "m", "messages": [{"role": "user", "content": "[tokens=50]"}], "stream": true}),
    );
    assert!(begin.elapsed() >= Duration::from_millis(100) && answer.end == End::Complete);
}

#[test]
fn the_connection_is_kept_or_closed() {
    let sim = sim(&[]);
    let mut stream = connect(&sim);
    for wanted in [false, true, false] {
        send(&mut stream, "POST", "/openai/v1/chat/completions", &[KEY], &ask(wanted).to_string());
        assert_eq!(read(&mut stream).end, End::Complete);
    }
    assert_eq!(sim.connections_opened(), 1);
    sim.add_rule(Rule::from_json(r#"{"fault": {"close_connection": true}}"#).unwrap()).unwrap();
    send(&mut stream, "POST", "/openai/v1/chat/completions", &[KEY], &ask(true).to_string());
    assert_eq!(read(&mut stream).header("connection"), Some("close"));
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}
