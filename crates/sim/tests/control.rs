//! Configuration, the control endpoints, the log, HTTP framing, start and stop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use std::io::Write as _;

use liter_llm_sim::{RequestRecord, SimConfig, Simulator};
use serde_json::{Value, json};
use wire::{KEY, chat, connect, read, request, sim};

fn ask() -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
}

#[test]
fn rules_and_log_over_http() {
    let sim = sim(&[]);
    let rule = r#"{"id": "busy", "match": {"times": 1}, "fault": {"status": 503}}"#;
    assert_eq!(request(&sim, "POST", "/_sim/rules", &[], rule).json()[0]["id"], "busy");
    assert_eq!(chat(&sim, &ask()).status, 503);
    assert_eq!(chat(&sim, &ask()).status, 200);
    assert_eq!(request(&sim, "GET", "/_sim/rules", &[], "").json()[0]["fired"], 1);
    let wrong = request(&sim, "PUT", "/_sim/rules", &[], r#"[{"match": {"modle": "x"}}]"#);
    assert!(wrong.status == 400 && wrong.text().contains("`modle`") && wrong.text().contains("`model`"));
    assert_eq!(request(&sim, "DELETE", "/_sim/rules", &[], "").json(), json!([]));
    let log: Vec<RequestRecord> =
        serde_json::from_slice(&request(&sim, "GET", "/_sim/requests", &[], "").body).unwrap();
    let own = sim.requests();
    assert_eq!(log.len(), own.len());
    for (far, near) in log.iter().zip(&own) {
        assert_eq!((far.sequence, &far.headers, &far.body), (near.sequence, &near.headers, &near.body));
        // A time read from JSON may differ in its last binary digit.
        assert!((far.at - near.at).abs() < 1e-3);
    }
    let first = &log[0];
    assert_eq!(
        (first.provider.as_str(), first.rule.as_deref(), &first.body),
        ("openai", Some("busy"), &ask())
    );
    assert!(first.headers.contains(&("authorization".to_owned(), "Bearer sk-test".to_owned())));
    assert_eq!(first.body_text, ask().to_string());
    assert_eq!(request(&sim, "GET", "/_sim/stats", &[], "").json()["requests_served"], 2);
    request(&sim, "DELETE", "/_sim/requests", &[], "");
    assert!(sim.requests().is_empty());
}

#[test]
fn configuration_is_strict() {
    let config = SimConfig::from_toml(
        "token_interval_ms = 1.5\nlog_capacity = 2\n[keys.exact]\nopenai = [\"sk-only\"]\n[[rules]]\nmatch = { path = \"/azure\", nth = 2 }\nfault = { status = 429, headers = { retry-after = \"1\" } }\n",
    )
    .unwrap();
    assert_eq!(config.token_interval.as_micros(), 1500);
    let again = SimConfig::from_json(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again.rules[0].fault.status, Some(429));
    for (text, said) in [
        ("prot = 1", "did you mean `port`"),
        ("[[rules]]\nfault = { hangs = true }", "did you mean `hang`"),
        ("threads = 0", "threads"),
        ("[[rules]]\nmatch = { percent = 120 }", "percent"),
    ] {
        let error = SimConfig::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    let sim = Simulator::start(config).unwrap();
    assert_eq!(chat(&sim, &ask()).status, 401);
    assert_eq!(
        request(
            &sim,
            "POST",
            "/openai/v1/chat/completions",
            &[("authorization", "Bearer sk-only")],
            &ask().to_string()
        )
        .status,
        200
    );
    chat(&sim, &ask());
    assert_eq!(sim.requests().iter().map(|r| r.sequence).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn framing() {
    let sim = sim(&[]);
    let body = ask().to_string();
    // A chunked body, and two requests sent at once.
    let mut stream = connect(&sim);
    let (a, b) = body.split_at(10);
    let one = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
        a.len(),
        b.len()
    );
    stream.write_all(one.as_bytes()).unwrap();
    assert_eq!(read(&mut stream).status, 200);
    stream.write_all(b"nonsense\r\n\r\n").unwrap();
    assert_eq!(read(&mut stream).status, 400);
    // Expect: 100-continue is answered before the body.
    let mut stream = connect(&sim);
    stream.write_all(format!("POST /openai/v1/chat/completions HTTP/1.1\r\nauthorization: Bearer k\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
    let mut line = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut line).unwrap();
    assert!(line.starts_with(b"HTTP/1.1 100 Continue"));
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(read(&mut stream).status, 200);
    let small = Simulator::start(SimConfig { max_body_bytes: 10, ..SimConfig::default() }).unwrap();
    assert_eq!(chat(&small, &ask()).status, 413);
}

#[test]
fn base_urls_and_stop() {
    let sim = sim(&[]);
    let root = format!("http://{}", sim.addr());
    assert_eq!(sim.base_url("openai"), Some(format!("{root}/openai/v1")));
    assert_eq!(sim.base_url("anthropic"), Some(format!("{root}/anthropic")));
    assert_eq!(sim.base_url("azure"), Some(format!("{root}/azure")));
    assert_eq!(sim.base_url("groq"), Some(format!("{root}/groq/v1")));
    assert_eq!(sim.base_url("a/b"), None);
    let mut stream = connect(&sim);
    wire::send(&mut stream, "GET", "/openai/v1/models", &[KEY], "");
    assert_eq!(read(&mut stream).status, 200);
    sim.stop();
    assert_eq!(std::io::Read::read(&mut stream, &mut [0; 8]).unwrap_or(0), 0);
    assert!(std::net::TcpStream::connect(sim.addr()).is_err());
}
