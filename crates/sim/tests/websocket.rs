//! Responses over WebSocket, frame by frame.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use liter_llm_sim::Simulator;
use serde_json::{Value, json};
use wire::{Answer, KEY, connect, read, send, sim};

const UPGRADE: [(&str, &str); 5] = [
    KEY,
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn open(sim: &Simulator) -> (TcpStream, Answer) {
    let mut stream = connect(sim);
    send(&mut stream, "GET", "/openai/v1/responses", &UPGRADE, "");
    let answer = read(&mut stream);
    (stream, answer)
}

/// Sends a masked frame; `first` holds the final bit and the kind.
fn put(stream: &mut TcpStream, first: u8, payload: &[u8]) {
    let mut out = vec![first];
    match payload.len() {
        n if n < 126 => out.push(0x80 | n as u8),
        n if n < 65536 => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    stream.write_all(&out).unwrap();
}

fn take(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let length = match head[1] {
        126 => {
            let mut more = [0; 2];
            stream.read_exact(&mut more).ok()?;
            usize::from(u16::from_be_bytes(more))
        }
        127 => {
            let mut more = [0; 8];
            stream.read_exact(&mut more).ok()?;
            usize::try_from(u64::from_be_bytes(more)).unwrap()
        }
        n => usize::from(n),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((head[0], payload))
}

/// Sends a message and gathers the events up to the last.
fn turn(stream: &mut TcpStream, message: &Value) -> Vec<Value> {
    put(stream, 0x81, message.to_string().as_bytes());
    events(stream)
}

fn events(stream: &mut TcpStream) -> Vec<Value> {
    let mut events = Vec::new();
    while let Some((0x81, payload)) = take(stream) {
        let event: Value = serde_json::from_slice(&payload)
            .unwrap_or_else(|_| Value::String(String::from_utf8(payload).unwrap()));
        let kind = event["type"].as_str().unwrap_or("").to_owned();
        events.push(event);
        if matches!(
            kind.as_str(),
            "response.completed" | "response.incomplete" | "error" | "response.steer.failed"
        ) {
            break;
        }
    }
    events
}

fn create(more: Value) -> Value {
    let mut message = json!({"type": "response.create", "model": "gpt-4o", "input": "Hi"});
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    message
}

#[test]
fn turns_on_one_connection() {
    let sim = sim(&[]);
    let (mut stream, answer) = open(&sim);
    // The example of RFC 6455, section 1.3.
    assert_eq!(
        (answer.status, answer.header("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    let first = turn(&mut stream, &create(json!({"store": false})));
    assert_eq!(
        (&first[0]["type"], &first.last().unwrap()["type"]),
        (&json!("response.created"), &json!("response.completed"))
    );
    let id = &first[0]["response"]["id"];
    let second = turn(&mut stream, &create(json!({"previous_response_id": id, "stream_id": "lane"})));
    assert!(second.iter().all(|e| e["stream_id"] == "lane"));
    let lost = turn(&mut stream, &create(json!({"previous_response_id": "resp_0"})));
    assert_eq!(
        (&lost[0]["status"], &lost[0]["error"]["code"]),
        (&json!(400), &json!("previous_response_not_found"))
    );
    assert_eq!(turn(&mut stream, &json!({"type": "session.update"}))[0]["error"]["param"], "type");
    assert_eq!(
        turn(&mut stream, &json!({"type": "response.steer", "previous_response_id": id, "input": "x"}))[0]["error"]
            ["code"],
        "response_already_completed"
    );
    let warm = turn(&mut stream, &create(json!({"generate": false})));
    assert_eq!(warm.last().unwrap()["response"]["output"], json!([]));
    put(&mut stream, 0x81, b"{nonsense");
    assert_eq!(events(&mut stream)[0]["error"]["code"], "invalid_json");
    let log = sim.requests();
    assert_eq!(
        (log[0].method.as_str(), log[1].method.as_str(), &log[1].body["type"]),
        ("GET", "WEBSOCKET", &json!("response.create"))
    );
}

#[test]
fn fragments_pings_and_closing() {
    let sim = sim(&[]);
    let (mut stream, _) = open(&sim);
    let text = create(json!({"input": "long ".repeat(20_000)})).to_string();
    let (a, b) = text.as_bytes().split_at(70_000);
    put(&mut stream, 0x01, a);
    put(&mut stream, 0x89, b"beat");
    assert_eq!(take(&mut stream).unwrap(), (0x8a, b"beat".to_vec()));
    put(&mut stream, 0x80, b);
    assert_eq!(events(&mut stream).last().unwrap()["type"], "response.completed");
    put(&mut stream, 0x88, &1000u16.to_be_bytes());
    assert_eq!(take(&mut stream).unwrap(), (0x88, 1000u16.to_be_bytes().to_vec()));
    let (mut stream, _) = open(&sim);
    stream.write_all(&[0x81, 1, b'x']).unwrap();
    assert_eq!(take(&mut stream).unwrap(), (0x88, 1002u16.to_be_bytes().to_vec()), "an unmasked frame");
}

#[test]
fn faults() {
    let refused = sim(&[r#"{"fault": {"status": 429}}"#]);
    assert_eq!(open(&refused).1.status, 429);
    let later = sim(&[
        r#"{"match": {"method": "WEBSOCKET"}, "fault": {"status": 429, "headers": {"retry-after": "2"}}}"#,
    ]);
    let (mut stream, answer) = open(&later);
    assert_eq!(answer.status, 101);
    let error = turn(&mut stream, &create(json!({})));
    assert_eq!(
        (&error[0]["status"], &error[0]["error"]["headers"]["retry-after"]),
        (&json!(429), &json!("2"))
    );
    for (fault, count, closed) in [
        (r#"{"cut_after": 3}"#, 3, false),
        (r#"{"reset_after": 3}"#, 3, false),
        (r#"{"close_after": 3}"#, 3, true),
    ] {
        let sim = sim(&[&format!("{{\"fault\": {fault}}}")]);
        let (mut stream, _) = open(&sim);
        put(&mut stream, 0x81, create(json!({})).to_string().as_bytes());
        for _ in 0..count {
            assert_eq!(take(&mut stream).unwrap().0, 0x81, "{fault}");
        }
        assert_eq!(take(&mut stream).map(|f| f.0), closed.then_some(0x88), "{fault}");
    }
    let broken = sim(&[r#"{"fault": {"malformed_after": 2, "error_after": 4}}"#]);
    let (mut stream, _) = open(&broken);
    let events = turn(&mut stream, &create(json!({})));
    assert!(events[2].is_string() && events.len() == 6 && events[5]["type"] == "error");
    let wrong = sim(&[]);
    let mut stream = connect(&wrong);
    let mut headers = UPGRADE;
    headers[0] = ("authorization", "Bearer wrong");
    send(&mut stream, "GET", "/openai/v1/responses", &headers, "");
    assert_eq!(read(&mut stream).status, 401);
}
