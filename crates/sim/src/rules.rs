//! Fault rules: what a rule matches, what it does, and the counting that decides when it fires.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::SimError;

/// One fault rule: when [`Match`] fits a request, [`Fault`] is applied to its answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// A name for the log. Default: `rule-<position>`, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Which requests. Default: every one.
    #[serde(rename = "match")]
    pub when: Match,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// Reads one rule from JSON text.
    ///
    /// # Errors
    /// [`SimError::Config`] naming the wrong field.
    pub fn from_json(text: &str) -> Result<Self, SimError> {
        let rule: Self = serde_json::from_str(text).map_err(|e| crate::config::explain(&e.to_string()))?;
        rule.check()?;
        Ok(rule)
    }

    pub(crate) fn check(&self) -> Result<(), SimError> {
        let wrong = |what: &str| Err(SimError::Config(what.to_owned()));
        if self.when.percent.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
            return wrong("match.percent must be between 0 and 100");
        }
        if matches!(&self.when.nth, Some(Nth::One(0)))
            || matches!(&self.when.nth, Some(Nth::Many(l)) if l.contains(&0))
        {
            return wrong("match.nth counts from 1");
        }
        if self.when.every == Some(0) {
            return wrong("match.every must be 1 or more");
        }
        if self.fault.status.is_some_and(|s| !(200..=599).contains(&s)) {
            return wrong("fault.status must be between 200 and 599");
        }
        if self.fault.drip_bytes == Some(0) {
            return wrong("fault.drip_bytes must be 1 or more");
        }
        if self.fault.oversized_bytes.is_some_and(|n| n > 1 << 30) {
            return wrong("fault.oversized_bytes must be at most 1 GiB");
        }
        Ok(())
    }
}

/// The conditions of a rule; all that are given must hold. `nth`, `every`, `percent` and `times` count only
/// the requests that fit the others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Provider name, `*` allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Request path: a prefix, or a pattern when it contains `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Model (or Azure deployment) name, `*` allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the request asked for a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming: Option<bool>,
    /// Header values, `*` allowed; names in any case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Text that the request body contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// The how-manieth request, counted from 1, or a list of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<Nth>,
    /// Every k-th request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Share of requests, 0 to 100, drawn from a sequence fixed by `seed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Seed of `percent`. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How often the rule fires at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// One position or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Nth {
    /// This request.
    One(u64),
    /// Each of these.
    Many(Vec<u64>),
}

/// What happens to a matched request. The fields combine. Counts of events are of the stream's own events
/// (for a WebSocket: messages); times are in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Status to answer with. Without `body`, an error status gets the vendor's own error body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers to set (replacing those of the same name).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Headers to add beside those there are; duplicates allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_headers: Vec<(String, String)>,
    /// Names of headers to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_headers: Vec<String>,
    /// Body: a JSON value, or a string that is sent as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Body given as base64, for bytes that are not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Raw event-stream text, sent event by event (so that the `*_after` faults apply to it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sse: Option<String>,
    /// Value of `content-type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Wait before the headers.
    #[serde(rename = "delay_ms", with = "crate::config::millis", skip_serializing_if = "Duration::is_zero")]
    pub delay: Duration,
    /// Wait between the headers and the first event (or the body).
    #[serde(
        rename = "first_event_delay_ms",
        with = "crate::config::millis",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub first_event_delay: Duration,
    /// Wait before each event.
    #[serde(
        rename = "event_delay_ms",
        with = "crate::config::millis",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub event_delay: Duration,
    /// Never answer; the connection stays open until the client leaves.
    #[serde(skip_serializing_if = "is_false")]
    pub hang: bool,
    /// Send nothing more after this many events, connection open. On a body that is no stream 0 means: after the headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang_after: Option<usize>,
    /// Reset the connection (RST) instead of answering.
    #[serde(skip_serializing_if = "is_false")]
    pub reset: bool,
    /// Reset the connection after this many events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_after: Option<usize>,
    /// Close the connection (FIN) instead of answering.
    #[serde(skip_serializing_if = "is_false")]
    pub close: bool,
    /// Frame the body by connection close and close after this many events: a clean end of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_after: Option<usize>,
    /// Drop the connection after this many events, inside the HTTP body (no last chunk).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<usize>,
    /// Drop the connection after this many bytes of the body, its framing promising more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after_bytes: Option<usize>,
    /// End the HTTP body cleanly after this many events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_after: Option<usize>,
    /// Leave out the stream's terminator (`[DONE]`, `message_stop`, `response.completed`), end the body cleanly.
    #[serde(skip_serializing_if = "is_false")]
    pub drop_terminator: bool,
    /// Leave out the terminator and the events that state the finish reason and usage.
    #[serde(skip_serializing_if = "is_false")]
    pub drop_finish: bool,
    /// Put an event that is no JSON after this many events and go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malformed_after: Option<usize>,
    /// Data of the malformed event. Default: a JSON text cut short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malformed_text: Option<String>,
    /// Put one valid event padded to this many bytes into the stream (or pad the whole body to it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oversized_bytes: Option<usize>,
    /// After how many events the padded one comes. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oversized_after: Option<usize>,
    /// Send an error event in the vendor's shape after this many events and end the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_after: Option<usize>,
    /// The error object of `error_after`. Default: the vendor's overload error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// Send the body in pieces of this many bytes, whatever the events are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drip_bytes: Option<usize>,
    /// Wait between the pieces of `drip_bytes`.
    #[serde(
        rename = "drip_interval_ms",
        with = "crate::config::millis",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub drip_interval: Duration,
    /// Compress the body and say so, whether or not the client asked.
    #[serde(skip_serializing_if = "is_false")]
    pub gzip: bool,
    /// Announce and do a connection close after the answer.
    #[serde(skip_serializing_if = "is_false")]
    pub close_connection: bool,
}

impl Fault {
    /// Whether the fault, for a WebSocket, meets the handshake and not the messages.
    pub(crate) fn at_handshake(&self) -> bool {
        self.status.is_some()
            || self.body.is_some()
            || self.body_base64.is_some()
            || self.reset
            || self.close
            || self.hang
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
fn is_false(value: &bool) -> bool {
    !*value
}

/// What a rule is compared with.
pub(crate) struct Subject<'a> {
    pub provider: &'a str,
    pub method: &'a str,
    pub path: &'a str,
    pub model: &'a str,
    pub streaming: bool,
    pub body: &'a [u8],
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// A rule with its counters.
#[derive(Debug)]
pub(crate) struct ArmedRule {
    pub rule: Rule,
    pub id: String,
    seen: AtomicU64,
    fired: AtomicU64,
}

impl ArmedRule {
    pub(crate) fn new(rule: Rule, position: usize) -> Self {
        let id = rule.id.clone().unwrap_or_else(|| format!("rule-{}", position + 1));
        Self { rule, id, seen: AtomicU64::new(0), fired: AtomicU64::new(0) }
    }

    /// How often the rule has fired.
    pub(crate) fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    /// Whether the rule fires for this request; counts it.
    pub(crate) fn fires(&self, subject: &Subject<'_>) -> bool {
        let when = &self.rule.when;
        if !self.fits(subject) {
            return false;
        }
        let nth = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let due = match &when.nth {
            None => true,
            Some(Nth::One(n)) => *n == nth,
            Some(Nth::Many(list)) => list.contains(&nth),
        } && when.every.is_none_or(|k| nth.is_multiple_of(k))
            && when.percent.is_none_or(|p| {
                let draw =
                    crate::answer::mix(when.seed.unwrap_or(0) ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                (draw >> 11) as f64 / (1u64 << 53) as f64 * 100.0 < p
            });
        if !due {
            return false;
        }
        let allowed = when.times.unwrap_or(u64::MAX);
        self.fired
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < allowed).then_some(n + 1))
            .is_ok()
    }

    fn fits(&self, subject: &Subject<'_>) -> bool {
        let when = &self.rule.when;
        let is = |pattern: &Option<String>, value: &str| pattern.as_deref().is_none_or(|p| glob(p, value));
        let path = when.path.as_deref().is_none_or(|p| {
            if p.contains('*') { glob(p, subject.path) } else { subject.path.starts_with(p) }
        });
        path && is(&when.provider, subject.provider)
            && is(&when.model, subject.model)
            && when.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(subject.method))
            && when.streaming.is_none_or(|s| s == subject.streaming)
            && when.headers.iter().all(|(n, p)| (subject.header)(n).is_some_and(|v| glob(p, v)))
            && when.body_contains.as_deref().is_none_or(|t| contains(subject.body, t.as_bytes()))
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|w| w == text)
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    while let Some((part, after)) = rest.split_once('*') {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn patterns() {
        assert!(glob("gpt-*", "gpt-4o"));
        assert!(glob("*/chat/*", "/openai/v1/chat/completions"));
        assert!(!glob("gpt-*", "claude"));
        assert!(glob("a*c", "abbc") && !glob("a*c", "abb"));
    }

    #[test]
    fn counting() {
        let rule = Rule::from_json(r#"{"match":{"nth":[2,3],"times":1},"fault":{"status":500}}"#).unwrap();
        let armed = ArmedRule::new(rule, 0);
        let subject = Subject {
            provider: "p",
            method: "POST",
            path: "/",
            model: "m",
            streaming: false,
            body: b"",
            header: &|_| None,
        };
        assert_eq!((0..4).map(|_| armed.fires(&subject)).collect::<Vec<_>>(), [false, true, false, false]);
    }

    #[test]
    fn unknown_fields_are_named_with_a_suggestion() {
        let error = Rule::from_json(r#"{"fault":{"stauts":500}}"#).unwrap_err().to_string();
        assert!(error.contains("`stauts`") && error.contains("`status`"), "{error}");
    }
}
