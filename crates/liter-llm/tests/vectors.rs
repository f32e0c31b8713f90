//! The test vectors in Rust: every vector in `tests/vectors` through `Client::from_json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use liter_llm::core::fold::Folder;
use liter_llm::{Client, LlmError, LlmProvider, LlmRequest};
use liter_llm_sim::VectorServer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest one vector may take.
const LIMIT: Duration = Duration::from_secs(20);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

/// One request to the server's own paths: status and body.
async fn ask(server: &VectorServer, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: vectors\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}

/// A value as text: nothing is read into numbers on the way.
fn written<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

fn failed(error: &LlmError) -> String {
    format!(r#"{{"error":{}}}"#, written(error))
}

fn failed_after(chunks: &[String], error: &LlmError) -> String {
    format!(r#"{{"chunks":[{}],"error":{}}}"#, chunks.join(","), written(error))
}

/// What came of a call, and the message of its answer.
type Done = (String, Option<String>);

async fn generate(client: &Client, request: LlmRequest) -> Done {
    match client.generate(request).await {
        Ok(response) => {
            (format!(r#"{{"response":{}}}"#, written(&response)), Some(written(&response.message)))
        }
        Err(error) => (failed(&error), None),
    }
}

async fn stream(client: &Client, request: LlmRequest) -> Done {
    let mut told = Vec::new();
    let mut stream = match client.stream(request).await {
        Ok(stream) => stream,
        Err(error) => return (failed_after(&told, &error), None),
    };
    let mut folder = Folder::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => {
                folder.push(&chunk);
                told.push(written(&chunk));
            }
            Err(error) => return (failed_after(&told, &error), None),
        }
    }
    let response = folder.finish();
    let whole = format!(r#"{{"chunks":[{}],"response":{}}}"#, told.join(","), written(&response));
    (whole, Some(written(&response.message)))
}

/// The request, with the messages of the answers so far in place of what stands for them.
fn with_answers(request: Vec<u8>, answers: &[Option<String>]) -> Vec<u8> {
    let mut text = String::from_utf8(request).unwrap();
    for (number, answer) in answers.iter().enumerate() {
        let place = format!(r#"{{"answer_of":{number}}}"#);
        if text.contains(&place) {
            text = text.replace(&place, answer.as_ref().expect("an answer to send back"));
        }
    }
    text.into_bytes()
}

/// Makes the calls of a vector and gives what the server says of their outcomes.
async fn run(server: &VectorServer, name: &str) -> String {
    let at = |rest: &str| format!("/v/{name}/{rest}");
    assert_eq!(ask(server, "POST", &at("reset"), b"").await.0, 200);
    let config = ask(server, "GET", &at("config"), b"").await.1;
    let calls = String::from_utf8(ask(server, "GET", &at("calls"), b"").await.1).unwrap();
    let (mut outcomes, mut answers) = (Vec::new(), Vec::new());
    match Client::from_json(&config) {
        Err(error) => outcomes.push(failed(&error)),
        Ok(client) => {
            for (number, call) in calls.lines().enumerate() {
                let request = ask(server, "GET", &at(&format!("calls/{number}")), b"").await.1;
                let request = with_answers(request, &answers);
                let (outcome, answer) = match (call, LlmRequest::from_json(&request)) {
                    ("generate", Err(error)) => (failed(&error), None),
                    (_, Err(error)) => (failed_after(&[], &error), None),
                    ("generate", Ok(request)) => generate(&client, request).await,
                    (_, Ok(request)) => stream(&client, request).await,
                };
                outcomes.push(outcome);
                answers.push(answer);
            }
        }
    }
    let body = format!("[{}]", outcomes.join(","));
    String::from_utf8(ask(server, "POST", &at("judge"), body.as_bytes()).await.1).unwrap()
}

/// The server's word on every vector of a folder.
async fn run_all(folder: &Path) -> HashMap<String, String> {
    let server = VectorServer::start(folder, 0).unwrap();
    let named = String::from_utf8(ask(&server, "GET", "/v", b"").await.1).unwrap();
    let words = futures_util::stream::iter(named.lines().map(str::to_owned))
        .map(|name| {
            let server = &server;
            async move {
                let word = tokio::time::timeout(LIMIT, run(server, &name)).await;
                (name, word.unwrap_or_else(|_| "took too long".to_owned()))
            }
        })
        .buffer_unordered(8)
        .collect::<HashMap<_, _>>()
        .await;
    assert_eq!(words.len(), server.names().len());
    words
}

/// All vectors as they stand in their files.
fn vectors() -> Vec<Value> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
    let mut files: Vec<PathBuf> =
        files.filter(|path| named(path) && !path.ends_with("schema.json")).collect();
    files.sort();
    let read =
        |path: &PathBuf| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap();
    files.iter().flat_map(|path| read(path)["vectors"].as_array().unwrap().clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_holds() {
    let words = run_all(&folder()).await;
    let count: usize = std::fs::read_to_string(folder().join("COUNT")).unwrap().trim().parse().unwrap();
    let wrong: Vec<String> = words
        .iter()
        .filter(|(_, word)| *word != "ok")
        .map(|(name, word)| format!("{name}\n{word}\n"))
        .collect();
    println!("vectors: {} run, {} hold", words.len(), words.len() - wrong.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), words.len(), wrong.join("\n"));
    assert_eq!((words.len(), vectors().len()), (count, count), "tests/vectors/COUNT says how many there are");
}

/// Changes one thing that a vector expects.
fn mutate(number: usize, vector: &mut Value) {
    let sends = vector["exchanges"].as_array().is_some_and(|list| !list.is_empty());
    match number % 4 {
        0 if sends => vector["exchanges"][0]["request"]["body"]["not_sent"] = json!(1),
        1 if sends => vector["exchanges"][0]["request"]["path"] = json!("/elsewhere"),
        2 => {
            let never = json!({"request": {"path": "/never", "body": {}}, "reply": {}});
            vector["exchanges"].as_array_mut().unwrap().push(never);
        }
        _ => {
            let outcome = &mut vector["calls"][0]["outcome"];
            if let Some(content) = outcome.pointer_mut("/response/message/content") {
                content.as_array_mut().unwrap().push(json!({"type": "text", "text": "never said"}));
            } else {
                let kind = if outcome["error"]["kind"] == "decode" { "timeout" } else { "decode" };
                outcome["error"]["kind"] = json!(kind);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_expectation_is_refused() {
    let mut changed = vectors();
    changed.iter_mut().enumerate().for_each(|(number, vector)| mutate(number, vector));
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutated-vectors");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("mutated.json"), json!({"vectors": changed}).to_string()).unwrap();
    let words = run_all(&place).await;
    assert_eq!(words.len(), changed.len());
    let held: Vec<&String> = words.iter().filter(|(_, word)| *word == "ok").map(|(name, _)| name).collect();
    assert!(held.is_empty(), "hold all the same: {held:?}");
}
