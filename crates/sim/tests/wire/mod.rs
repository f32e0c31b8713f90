//! A minimal HTTP client over raw sockets for the tests: sees how a body ended, which libraries hide.
#![allow(dead_code)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use liter_llm_sim::{Rule, SimConfig, Simulator};
use serde_json::Value;

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// As its framing says.
    Complete,
    /// By the close of the connection, as its framing says.
    Closed,
    /// By a close before its end.
    Cut,
    /// By a reset.
    Reset,
    /// Not at all within the time given.
    Silent,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub end: End,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The data of the events, parsed where they are JSON.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        let data = text.split("\n\n").filter_map(|e| e.lines().find_map(|l| l.strip_prefix("data: ")));
        data.map(|d| serde_json::from_str(d).unwrap_or_else(|_| Value::String(d.to_owned()))).collect()
    }
}

/// A simulator with these rules.
pub fn sim(rules: &[&str]) -> Simulator {
    let sim = Simulator::start(SimConfig::default()).unwrap();
    for rule in rules {
        sim.add_rule(Rule::from_json(rule).unwrap()).unwrap();
    }
    sim
}

pub const KEY: (&str, &str) = ("authorization", "Bearer sk-test");
pub const ANTHROPIC: [(&str, &str); 2] = [("x-api-key", "sk-ant"), ("anthropic-version", "2023-06-01")];

pub fn connect(sim: &Simulator) -> TcpStream {
    let stream = TcpStream::connect(sim.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Sends a request on a connection.
pub fn send(stream: &mut TcpStream, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    stream.write_all(text.as_bytes()).unwrap();
}

/// One request on a connection of its own.
pub fn request(sim: &Simulator, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = connect(sim);
    send(&mut stream, method, path, headers, body);
    read(&mut stream)
}

/// A POST with an OpenAI key.
pub fn post(sim: &Simulator, path: &str, body: &Value) -> Answer {
    request(sim, "POST", path, &[KEY], &body.to_string())
}

pub fn chat(sim: &Simulator, body: &Value) -> Answer {
    post(sim, "/openai/v1/chat/completions", body)
}

pub fn messages(sim: &Simulator, body: &Value) -> Answer {
    request(sim, "POST", "/anthropic/v1/messages", &ANTHROPIC, &body.to_string())
}

struct Source<'a> {
    stream: &'a mut TcpStream,
    buffer: Vec<u8>,
    ended: Option<End>,
}

impl Source<'_> {
    fn more(&mut self) -> bool {
        let mut block = [0; 65536];
        let ended = match self.stream.read(&mut block) {
            Ok(0) => End::Cut,
            Ok(n) => {
                self.buffer.extend_from_slice(&block[..n]);
                return true;
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => End::Reset,
            Err(_) => End::Silent,
        };
        self.ended = Some(ended);
        false
    }

    fn upto(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|w| w == mark) {
                let taken = self.buffer.drain(..at + mark.len()).collect::<Vec<u8>>();
                return Some(taken[..at].to_vec());
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn exactly(&mut self, length: usize, body: &mut Vec<u8>) -> bool {
        while self.buffer.len() < length {
            if !self.more() {
                body.append(&mut self.buffer);
                return false;
            }
        }
        body.extend(self.buffer.drain(..length));
        true
    }
}

/// Reads one response. Nothing at all gives status 0.
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut source = Source { stream, buffer: Vec::new(), ended: None };
    let Some(head) = source.upto(b"\r\n\r\n") else {
        return Answer { status: 0, headers: Vec::new(), body: source.buffer, end: source.ended.unwrap() };
    };
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|l| l.split_once(": ").unwrap())
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: Vec::new(), end: End::Complete };
    if answer.header("transfer-encoding") == Some("chunked") {
        while let Some(size) = source.upto(b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap(), 16).unwrap();
            if !source.exactly(size, &mut answer.body) || source.upto(b"\r\n").is_none() || size == 0 {
                break;
            }
        }
        answer.end = source.ended.unwrap_or(End::Complete);
    } else if let Some(length) = answer.header("content-length").map(|l| l.parse().unwrap()) {
        source.exactly(length, &mut answer.body);
        answer.end = source.ended.unwrap_or(End::Complete);
    } else if status != 101 {
        while source.more() {}
        answer.body = std::mem::take(&mut source.buffer);
        answer.end = if source.ended == Some(End::Cut) { End::Closed } else { source.ended.unwrap() };
    }
    answer
}
