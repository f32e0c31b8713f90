//! The comparison of what came out with what a vector expects: the one place where its rules stand.

use serde_json::{Map, Value};

use super::exact::{self, shown};
use super::{Seen, Vector, Wanted};

/// The most differences told.
const MOST: usize = 20;

/// How long things took: never compared.
const TIMES: [&str; 8] =
    ["timing", "started", "queued", "connect", "first_byte", "duration", "wait", "latency"];

/// Sentences for people: it counts that there is one.
const SENTENCES: [&str; 4] = ["reason", "ruled_out", "failed", "price_source"];

/// Below these everything is the vendor's own and counts as it is.
const VENDORS: [&str; 4] = ["extra", "logprobs", "citations", "citation"];

/// What differs, a line each; nothing when all is as expected.
pub(super) fn judge(vector: &Vector, seen: &[Seen], outcomes: &str) -> Vec<String> {
    let mut found = Differences { told: Vec::new(), kinds: true };
    requests(vector, seen, &mut found);
    found.kinds = false;
    let outcomes = match exact::read(outcomes) {
        Ok(Value::Array(outcomes)) => outcomes,
        Ok(_) => {
            found.add("outcomes", "are not a list");
            return found.told;
        }
        Err(error) => {
            found.add("outcomes", &format!("are not JSON: {error}"));
            return found.told;
        }
    };
    if outcomes.len() != vector.calls.len() {
        found.add("outcomes", &format!("{} instead of {}", outcomes.len(), vector.calls.len()));
    }
    for (number, (call, got)) in vector.calls.iter().zip(&outcomes).enumerate() {
        let wanted = exact::read(call.outcome.get()).unwrap_or_default();
        outcome(&format!("outcome[{number}]"), &wanted, got, &mut found);
    }
    found.told.truncate(MOST);
    found.told
}

struct Differences {
    told: Vec<String>,
    /// Whether `1` and `1.0` differ.
    kinds: bool,
}

impl Differences {
    fn add(&mut self, at: &str, what: &str) {
        self.told.push(format!("{at}: {what}"));
    }

    fn values(&mut self, at: &str, wanted: &Value, got: Option<&Value>) {
        match got {
            None => self.add(at, &format!("is missing; wanted {}", shown(wanted))),
            Some(got) => self.add(at, &format!("is {}; wanted {}", shown(got), shown(wanted))),
        }
    }

    /// Compares two values in full.
    fn compare(&mut self, at: &str, wanted: &Value, got: &Value) {
        match (wanted, got) {
            (Value::Object(left), Value::Object(right)) => {
                for (name, wanted) in left {
                    match right.get(name) {
                        Some(got) => self.compare(&format!("{at}.{name}"), wanted, got),
                        None => self.values(&format!("{at}.{name}"), wanted, None),
                    }
                }
                for (name, got) in right.iter().filter(|(name, _)| !left.contains_key(*name)) {
                    self.add(&format!("{at}.{name}"), &format!("is not wanted: {}", shown(got)));
                }
            }
            (Value::Array(left), Value::Array(right)) => {
                for (place, wanted) in left.iter().enumerate() {
                    match right.get(place) {
                        Some(got) => self.compare(&format!("{at}[{place}]"), wanted, got),
                        None => self.values(&format!("{at}[{place}]"), wanted, None),
                    }
                }
                for (place, got) in right.iter().enumerate().skip(left.len()) {
                    self.add(&format!("{at}[{place}]"), &format!("is not wanted: {}", shown(got)));
                }
            }
            (left, right) if left == right || exact::same_number(left, right, self.kinds) => {}
            _ => self.values(at, wanted, Some(got)),
        }
    }
}

fn requests(vector: &Vector, seen: &[Seen], found: &mut Differences) {
    let wanted = vector.exchanges.len();
    if seen.len() != wanted {
        found.add("requests", &format!("{} arrived instead of {wanted}", seen.len()));
    }
    for (number, (exchange, got)) in vector.exchanges.iter().zip(seen).enumerate() {
        let at = format!("request[{number}]");
        if exchange.deployment != got.deployment {
            found.add(
                &at,
                &format!("went to deployment {} instead of {}", got.deployment, exchange.deployment),
            );
            continue;
        }
        request(&at, &exchange.request, got, found);
    }
}

fn request(at: &str, wanted: &Wanted, got: &Seen, found: &mut Differences) {
    let sorted = |query: &str| {
        let mut pairs: Vec<String> = query.split('&').map(str::to_owned).collect();
        pairs.sort();
        pairs
    };
    for (what, left, right) in [("method", &wanted.method, &got.method), ("path", &wanted.path, &got.path)] {
        if left != right {
            found.add(&format!("{at}.{what}"), &format!("is `{right}`; wanted `{left}`"));
        }
    }
    if sorted(&wanted.query) != sorted(&got.query) {
        found.add(&format!("{at}.query"), &format!("is `{}`; wanted `{}`", got.query, wanted.query));
    }
    for (name, value) in &wanted.headers {
        let all: Vec<&str> = got
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        if all != value.as_deref().into_iter().collect::<Vec<_>>() {
            found.add(&format!("{at}.headers.{name}"), &format!("is {all:?}; wanted {value:?}"));
        }
    }
    match &wanted.body {
        Some(body) => {
            let (wanted, got) = (exact::read(body.get()), exact::read(&got.text));
            found.compare(&format!("{at}.body"), &wanted.unwrap_or_default(), &got.unwrap_or_default());
        }
        None if got.text.is_empty() => {}
        None => found.add(&format!("{at}.body"), &format!("is not wanted: {}", got.text)),
    }
}

fn outcome(at: &str, wanted: &Value, got: &Value, found: &mut Differences) {
    let (Some(left), Some(right)) = (wanted.as_object(), got.as_object()) else {
        return found.add(at, "is not an object");
    };
    let names = |map: &Map<String, Value>| {
        let mut names: Vec<String> = map.keys().cloned().collect();
        names.sort();
        names.join(" and ")
    };
    if names(left) != names(right) {
        // What came instead helps most where it is an error.
        let got = right.get("error").map_or_else(|| names(right), shown);
        return found.add(at, &format!("is {got}; wanted {}", names(left)));
    }
    for (name, wanted) in left {
        let (at, got) = (format!("{at}.{name}"), right.get(name).unwrap_or(&Value::Null));
        match name.as_str() {
            "error" => error(&at, wanted, got, found),
            "chunks" => found.compare(&at, &chunks(wanted), &chunks(got)),
            _ => found.compare(&at, &plain(wanted), &plain(got)),
        }
    }
}

/// The chunks that say something.
fn chunks(list: &Value) -> Value {
    let said = |chunk: &Value| *chunk != Value::Object(Map::new());
    match list.as_array() {
        Some(list) => list.iter().map(plain).filter(said).collect(),
        None => list.clone(),
    }
}

/// Of an error the kind counts, and what the vector names.
fn error(at: &str, wanted: &Value, got: &Value, found: &mut Differences) {
    let empty = Map::new();
    let map = |value: &Value| value.as_object().cloned();
    let (left, right) = (map(wanted).unwrap_or_default(), map(got).unwrap_or_default());
    if !left.contains_key("kind") {
        found.add(at, "the vector names no kind");
    }
    for (name, value) in left.iter().filter(|(name, _)| *name != "detail") {
        named(&format!("{at}.{name}"), value, right.get(name), found);
    }
    let inner =
        |map: &Map<String, Value>| map.get("detail").and_then(Value::as_object).unwrap_or(&empty).clone();
    let (left, right) = (inner(&left), inner(&right));
    for (name, value) in &left {
        named(&format!("{at}.detail.{name}"), value, right.get(name), found);
    }
}

/// A field that the vector names; `null`, or another default, must not be there.
fn named(at: &str, wanted: &Value, got: Option<&Value>, found: &mut Differences) {
    let (wanted, got) = (plain(wanted), got.map(plain).filter(|got| !is_default(got)));
    match got {
        None if is_default(&wanted) => {}
        Some(got) => found.compare(at, &wanted, &got),
        None => found.values(at, &wanted, None),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty() || exact::is_zero(text),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A value in the form in which it is compared: without defaults and times, sentences only marked.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(map) => {
            let kept = map.iter().filter(|(name, _)| !TIMES.contains(&name.as_str()));
            let kept = kept.map(|(name, value)| (name.clone(), plain_field(name, value)));
            let told = |(name, value): &(String, Value)| {
                let usual = match name.as_str() {
                    "finish_reason" => value == "other",
                    "circuit" => value == "closed",
                    _ => false,
                };
                !usual && !is_default(value)
            };
            Value::Object(kept.filter(told).collect())
        }
        other => other.clone(),
    }
}

fn plain_field(name: &str, value: &Value) -> Value {
    let mark = |value: &Value| match value {
        Value::String(text) if !text.is_empty() && !exact::is_number(text) => Value::from("*"),
        other => other.clone(),
    };
    match (name, value) {
        (name, value) if VENDORS.contains(&name) => value.clone(),
        (name, value) if SENTENCES.contains(&name) => mark(value),
        ("notes", Value::Array(list)) => list.iter().map(mark).collect(),
        _ => plain(value),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn differences(wanted: &Value, got: &Value) -> Vec<String> {
        let mut found = Differences { told: Vec::new(), kinds: false };
        let read = |value: &Value| exact::read(&value.to_string()).unwrap();
        outcome("o", &read(wanted), &read(got), &mut found);
        found.told
    }

    /// What is told of a body: wanted, and as it came.
    fn sent(wanted: &str, got: &str) -> Vec<String> {
        let wanted: Wanted = serde_json::from_str(&format!(r#"{{"path": "/", "body": {wanted}}}"#)).unwrap();
        let seen = Seen {
            deployment: 0,
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers: Vec::new(),
            body: None,
            text: got.to_owned(),
        };
        let mut found = Differences { told: Vec::new(), kinds: true };
        request("r", &wanted, &seen, &mut found);
        found.told
    }

    #[test]
    fn numbers_in_bodies_are_of_one_kind_and_the_same_exactly() {
        let body = r#"{"a": 9007199254740993, "b": [1.0, 1e2], "c": 123456789012345678901234567890}"#;
        assert_eq!(
            sent(body, r#"{"b":[1.00,100.0],"c":123456789012345678901234567890,"a":9007199254740993}"#),
            Vec::<String>::new()
        );
        for (got, told) in [
            (body.replace("40993", "40992"), "r.body.a: is 9007199254740992; wanted 9007199254740993"),
            (body.replace("1.0", "1"), "r.body.b[0]: is 1; wanted 1.0"),
            (body.replace("1e2", "100"), "r.body.b[1]: is 100; wanted 1e2"),
            (
                body.replace("890}", "891}"),
                "r.body.c: is 123456789012345678901234567891; wanted 123456789012345678901234567890",
            ),
        ] {
            assert_eq!(sent(body, &got), [told]);
        }
    }

    #[test]
    fn numbers_in_outcomes_are_the_same_exactly() {
        let of =
            |text: &str| exact::read(&format!(r#"{{"response": {{"extra": {{"n": {text}}}}}}}"#)).unwrap();
        for (wanted, got, same) in [
            ("9007199254740993", "9007199254740993", true),
            ("9007199254740993", "9007199254740992", false),
            ("9007199254740993", "9007199254740992.0", false),
            ("1.0", "1", true),
            ("1e2", "100", true),
            ("-0.10", "-1e-1", true),
            ("0.1", "-0.1", false),
            ("1", "\"1\"", false),
            ("0.0", "-0", true),
        ] {
            let mut found = Differences { told: Vec::new(), kinds: false };
            outcome("o", &of(wanted), &of(got), &mut found);
            assert_eq!(found.told.is_empty(), same, "{wanted} {got}: {:?}", found.told);
        }
    }

    #[test]
    fn defaults_times_and_sentences_do_not_differ() {
        let wanted = json!({"response": {"id": "a", "usage": {"input_tokens": 1}, "adjustments": [{"param": "p", "reason": "x"}]}});
        let got = json!({"response": {"id": "a", "cached": false, "rate_limits": {}, "timing": {"total": 1.5},
            "finish_reason": "other", "usage": {"input_tokens": 1.0, "output_tokens": 0},
            "adjustments": [{"param": "p", "reason": "another sentence"}]}});
        assert_eq!(differences(&wanted, &got), Vec::<String>::new());
    }

    #[test]
    fn what_differs_is_told_with_its_place() {
        let wanted = json!({"response": {"id": "a", "extra": {"n": null}}});
        for (got, said) in [
            (json!({"response": {"id": "b", "extra": {"n": null}}}), "o.response.id"),
            (json!({"response": {"id": "a"}}), "o.response.extra"),
            (json!({"response": {"id": "a", "extra": {"n": null}, "model": "m"}}), "o.response.model"),
            (json!({"error": {"kind": "timeout"}}), "wanted response"),
            (json!(7), "not an object"),
        ] {
            let found = differences(&wanted, &got);
            assert!(found.len() == 1 && found[0].contains(said), "{found:?}");
        }
        let adjusted = json!({"response": {"adjustments": [{"param": "p", "reason": ""}]}});
        let wanted = json!({"response": {"adjustments": [{"param": "p", "reason": "x"}]}});
        assert_eq!(differences(&wanted, &adjusted).len(), 1);
    }

    #[test]
    fn errors_are_compared_where_the_vector_names_something() {
        let wanted = json!({"error": {"kind": "timeout", "detail": {"phase": "idle", "code": null}}});
        let got =
            json!({"error": {"kind": "timeout", "text": "...", "detail": {"phase": "idle", "message": "m"}}});
        assert_eq!(differences(&wanted, &got), Vec::<String>::new());
        let coded = json!({"error": {"kind": "timeout", "detail": {"phase": "idle", "code": "c"}}});
        let other = json!({"error": {"kind": "connection", "detail": {"phase": "idle"}}});
        for got in [coded, other] {
            assert_eq!(differences(&wanted, &got).len(), 1);
        }
    }
}
