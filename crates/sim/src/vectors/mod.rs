//! Test vectors for every language: their files, their state, and a server that replays and judges them.
//!
//! The format and the way of a runner are described in `tests/vectors/README.md`.

mod exact;
mod judge;
mod serve;
mod websocket;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::SimError;

/// A file of vectors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vectors: Vec<Box<RawValue>>,
}

/// One vector, its addresses filled in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "source")]
    _source: String,
    config: Value,
    calls: Vec<Call>,
    exchanges: Vec<Exchange>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    call: CallKind,
    request: Box<RawValue>,
    outcome: Box<RawValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CallKind {
    Generate,
    Stream,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    #[serde(default)]
    deployment: usize,
    request: Wanted,
    reply: Reply,
}

/// A request that must arrive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default = "post")]
    method: String,
    path: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: IndexMap<String, Option<String>>,
    body: Option<Box<RawValue>>,
}

fn post() -> String {
    "POST".to_owned()
}

/// What is answered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: IndexMap<String, String>,
    body: Option<Box<RawValue>>,
    text: Option<String>,
    events: Option<Vec<Event>>,
    line_end: Option<String>,
    pieces: Option<Vec<Piece>>,
    split: Option<Split>,
    #[serde(default)]
    end: End,
    #[serde(default)]
    delay_ms: u64,
}

const fn ok() -> u16 {
    200
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    event: Option<String>,
    data: Box<RawValue>,
}

impl Event {
    fn text(&self) -> String {
        let data = self.data.get();
        serde_json::from_str::<String>(data).unwrap_or_else(|_| exact::compact(data))
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes { base64: String },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Split {
    At(Vec<usize>),
    Word(String),
}

/// How an answer ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    #[default]
    Proper,
    Cut,
    Close,
    Hang,
    HangBefore,
}

impl Reply {
    /// The body's bytes, in the pieces in which they are written.
    fn pieces(&self) -> Result<Vec<Vec<u8>>, String> {
        if let Some(pieces) = &self.pieces {
            return pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => Ok(text.clone().into_bytes()),
                    Piece::Bytes { base64 } => STANDARD.decode(base64).map_err(|error| error.to_string()),
                })
                .collect();
        }
        let whole = match (&self.body, &self.text, &self.events) {
            (Some(body), None, None) => exact::compact(body.get()),
            (None, Some(text), None) => text.clone(),
            (None, None, Some(events)) => written(events, self.line_end.as_deref().unwrap_or("\n")),
            (None, None, None) => String::new(),
            _ => return Err("give one of `body`, `text`, `events` and `pieces`".to_owned()),
        };
        let bytes = whole.into_bytes();
        let cuts = match &self.split {
            None => Vec::new(),
            Some(Split::At(places)) => places.clone(),
            Some(Split::Word(word)) if word == "bytes" => (1..bytes.len()).collect(),
            Some(Split::Word(word)) => {
                return Err(format!("`split`: `{word}` is neither `bytes` nor a list"));
            }
        };
        let mut pieces = Vec::with_capacity(cuts.len() + 1);
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let piece = bytes.get(from..cut).ok_or("`split`: the places must grow, within the body")?;
            pieces.push(piece.to_vec());
            from = cut;
        }
        Ok(pieces)
    }

    /// The text messages in which this goes over a WebSocket.
    fn messages(&self) -> Vec<String> {
        if let Some(events) = &self.events {
            return events.iter().map(Event::text).collect();
        }
        // Looked at when the vector was read.
        let pieces = self.pieces().unwrap_or_default();
        let texts = pieces.iter().filter(|piece| !piece.is_empty());
        texts.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    }

    /// What is said here that messages over a WebSocket do not have.
    fn beyond_messages(&self) -> Option<&'static str> {
        let named = |event: &Event| event.event.is_some();
        let bytes = |piece: &Piece| matches!(piece, Piece::Bytes { .. });
        [
            (self.status != ok(), "status"),
            (self.line_end.is_some(), "line_end"),
            (self.split.is_some(), "split"),
            (self.events.iter().flatten().any(named), "event"),
            (self.pieces.iter().flatten().any(bytes), "base64"),
        ]
        .into_iter()
        .find_map(|(there, name)| there.then_some(name))
    }

    fn content_type(&self) -> Option<&'static str> {
        if self.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
            return None;
        }
        match (&self.body, &self.events) {
            (Some(_), _) => Some("application/json"),
            (_, Some(_)) => Some("text/event-stream"),
            _ => None,
        }
    }
}

/// Events as text; each line ends as `line_end` says.
fn written(events: &[Event], line_end: &str) -> String {
    let mut text = String::new();
    for event in events {
        if let Some(name) = &event.event {
            text.push_str(&format!("event: {name}{line_end}"));
        }
        for line in event.text().split('\n') {
            text.push_str(&format!("data: {line}{line_end}"));
        }
        text.push_str(line_end);
    }
    text
}

/// A request as it arrived.
#[derive(Debug, Clone, Serialize)]
struct Seen {
    deployment: usize,
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    /// Nothing where it is no JSON.
    body: Option<Box<RawValue>>,
    text: String,
}

/// A vector and what has happened to it since it was last reset.
struct Held {
    vector: Vector,
    /// As it is shown: its addresses filled in, without blanks.
    shown: String,
    seen: Mutex<Vec<Seen>>,
}

impl Held {
    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files a request and gives the reply to it.
    fn answer(&self, request: Seen) -> Option<&Reply> {
        let mut seen = self.seen();
        let next = self.next(&seen, request.deployment);
        seen.push(request);
        next.map(|exchange| &exchange.reply)
    }

    /// What a deployment does next.
    fn next(&self, seen: &[Seen], deployment: usize) -> Option<&Exchange> {
        let before = seen.iter().filter(|other| other.deployment == deployment).count();
        self.vector.exchanges.iter().filter(|one| one.deployment == deployment).nth(before)
    }
}

/// All vectors, by name, in the order of their files.
struct Vectors(IndexMap<String, Held>);

fn broken(what: impl Into<String>) -> SimError {
    SimError::Config(what.into())
}

impl Vectors {
    fn load(folder: &Path, address: SocketAddr) -> Result<Self, SimError> {
        let unreadable =
            |path: &Path, error: &dyn std::fmt::Display| broken(format!("{}: {error}", path.display()));
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .map_err(|error| unreadable(folder, &error))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .filter(|path| path.file_name().is_some_and(|name| name != "schema.json"))
            .collect();
        files.sort();
        let mut all = IndexMap::new();
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            let file: File = serde_json::from_str(&text).map_err(|error| unreadable(&path, &error))?;
            for vector in file.vectors {
                let held = hold(vector.get(), address).map_err(|error| unreadable(&path, &error))?;
                let name = held.vector.name.clone();
                if all.insert(name.clone(), held).is_some() {
                    return Err(unreadable(&path, &format!("`{name}` is there twice")));
                }
            }
        }
        if all.is_empty() {
            return Err(unreadable(folder, &"no vectors here"));
        }
        Ok(Self(all))
    }
}

/// Reads a vector and fills its addresses in.
fn hold(text: &str, address: SocketAddr) -> Result<Held, String> {
    let named = serde_json::from_str::<Value>(text).map_err(|error| error.to_string())?;
    let name = named.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let fine = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.is_empty() || !name.chars().all(fine) {
        return Err(format!("`{name}` is not a name: use lower-case letters, digits and `_`"));
    }
    // As text: a number stays as it was written.
    let mut text = exact::compact(text);
    for number in 0..10 {
        let place = if number == 0 { "${base}".to_owned() } else { format!("${{base{number}}}") };
        text = text.replace(&place, &format!("http://{address}/v/{name}/{number}"));
    }
    let mut vector: Vector = serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
    // Proxies of the surroundings must not come between.
    let direct = |deployment: &mut Value| {
        if let Some(options) = deployment.as_object_mut() {
            options.entry("proxy").or_insert_with(|| json!("direct"));
        }
    };
    let config = &mut vector.config;
    config.get_mut("deployment").into_iter().for_each(direct);
    config.get_mut("deployments").and_then(Value::as_array_mut).into_iter().flatten().for_each(direct);
    if vector.calls.is_empty() {
        return Err(format!("{name}: makes no call"));
    }
    for exchange in &vector.exchanges {
        exchange.reply.pieces().map_err(|error| format!("{name}: {error}"))?;
        if exchange.request.method == websocket::METHOD
            && let Some(field) = exchange.reply.beyond_messages()
        {
            return Err(format!("{name}: `{field}`: messages over a WebSocket have none"));
        }
    }
    Ok(Held { vector, shown: text, seen: Mutex::new(Vec::new()) })
}

/// A server that replays the vectors of a folder and judges what a runner made of them. Dropping it stops it.
pub struct VectorServer {
    address: SocketAddr,
    names: Vec<String>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for VectorServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl VectorServer {
    /// Reads the vectors in `folder` and serves them on `port` of this machine (0: a free one). When this returns it
    /// is listening.
    ///
    /// # Errors
    /// [`SimError::Config`] for a file that is no list of vectors, [`SimError::Start`] when the port is taken.
    pub fn start(folder: &Path, port: u16) -> Result<Self, SimError> {
        let asked = format!("127.0.0.1:{port}");
        let failed = |source| SimError::Start { address: asked.clone(), source };
        let listener = std::net::TcpListener::bind(&asked).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let vectors = Vectors::load(folder, address)?;
        let names = vectors.0.keys().map(|name| (*name).clone()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, mut stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("vectors".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                    tokio::select! {
                        () = serve::accept(listener, Arc::new(vectors)) => {}
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            })
            .map_err(failed)?;
        Ok(Self { address, names, stop, thread: Some(thread) })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The names of the vectors.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl Drop for VectorServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended, which is all that is asked here.
            let _ = thread.join();
        }
    }
}
