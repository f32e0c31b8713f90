//! The request log: what came in, from which connection, which rule it met, and whether the client left early.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::Request;

/// One request as the simulator received it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRecord {
    /// Number of the request, from 0, in order of arrival.
    pub sequence: u64,
    /// Number of the connection, from 1.
    pub connection_id: u64,
    /// Arrival, in seconds since 1970.
    pub at: f64,
    /// HTTP method; `WEBSOCKET` for a message on a WebSocket.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query without `?`; empty where there is none.
    pub query: String,
    /// Header names (lower case) and values in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body as JSON; a string where it is no JSON; null where there is none.
    pub body: Value,
    /// The body's bytes as text.
    pub body_text: String,
    /// Provider the path belongs to; empty where it belongs to none.
    pub provider: String,
    /// Name of the rule that was applied.
    pub rule: Option<String>,
    /// Whether the client closed the connection before the answer was complete.
    pub client_closed: bool,
    /// When it did, in seconds since 1970.
    pub client_closed_at: Option<f64>,
    /// When the answer had been handed to the operating system, in seconds since 1970.
    pub answered_at: Option<f64>,
}

struct Entry {
    sequence: u64,
    connection: u64,
    at: Duration,
    request: Request,
    message: Option<Vec<u8>>,
    provider: String,
    rule: Option<String>,
    closed: Option<Duration>,
    answered: Option<Duration>,
}

/// Time since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A bounded list of the latest requests.
pub(crate) struct RequestLog {
    enabled: bool,
    capacity: usize,
    entries: Mutex<(u64, VecDeque<Entry>)>,
}

/// What happened to an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Answered,
    ClientClosed,
}

impl RequestLog {
    pub(crate) fn new(enabled: bool, capacity: usize) -> Self {
        Self { enabled: enabled && capacity > 0, capacity, entries: Mutex::new((0, VecDeque::new())) }
    }

    /// Files a request (or one WebSocket `message` of it) and gives its number.
    pub(crate) fn push(
        &self,
        connection: u64,
        request: &Request,
        message: Option<&[u8]>,
        provider: &str,
        rule: Option<&str>,
    ) -> u64 {
        if !self.enabled {
            return 0;
        }
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = guard.0;
        guard.0 += 1;
        if guard.1.len() == self.capacity {
            guard.1.pop_front();
        }
        guard.1.push_back(Entry {
            sequence,
            connection,
            at: now(),
            request: request.clone(),
            message: message.map(<[u8]>::to_vec),
            provider: provider.to_owned(),
            rule: rule.map(str::to_owned),
            closed: None,
            answered: None,
        });
        sequence
    }

    /// Notes how request `sequence` ended.
    pub(crate) fn finish(&self, sequence: u64, outcome: Outcome) {
        if !self.enabled {
            return;
        }
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let first = guard.1.front().map_or(0, |e| e.sequence);
        let Some(index) = sequence.checked_sub(first).and_then(|i| usize::try_from(i).ok()) else {
            return;
        };
        if let Some(entry) = guard.1.get_mut(index) {
            match outcome {
                Outcome::Answered => entry.answered = Some(now()),
                Outcome::ClientClosed => entry.closed = Some(now()),
            }
        }
    }

    pub(crate) fn clear(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).1.clear();
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        let guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        guard.1.iter().map(Entry::record).collect()
    }
}

impl Entry {
    fn record(&self) -> RequestRecord {
        let bytes: &[u8] = self.message.as_deref().unwrap_or(&self.request.body);
        let text = String::from_utf8_lossy(bytes).into_owned();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(text.clone()))
        };
        RequestRecord {
            sequence: self.sequence,
            connection_id: self.connection,
            at: self.at.as_secs_f64(),
            method: if self.message.is_some() { "WEBSOCKET" } else { self.request.method() }.to_owned(),
            path: self.request.path().to_owned(),
            query: self.request.query().to_owned(),
            headers: self.request.headers().map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect(),
            body,
            body_text: text,
            provider: self.provider.clone(),
            rule: self.rule.clone(),
            client_closed: self.closed.is_some(),
            client_closed_at: self.closed.map(|d| d.as_secs_f64()),
            answered_at: self.answered.map(|d| d.as_secs_f64()),
        }
    }
}
