//! The comparison of what came out with what a vector expects: the one place where its rules stand.

use serde_json::{Map, Value};

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
pub(super) fn judge(vector: &Vector, seen: &[Seen], outcomes: &Value) -> Vec<String> {
    let mut found = Differences::default();
    requests(vector, seen, &mut found);
    let Some(outcomes) = outcomes.as_array() else {
        found.add("outcomes", "are not a list");
        return found.0;
    };
    if outcomes.len() != vector.calls.len() {
        found.add("outcomes", &format!("{} instead of {}", outcomes.len(), vector.calls.len()));
    }
    for (number, (call, got)) in vector.calls.iter().zip(outcomes).enumerate() {
        outcome(&format!("outcome[{number}]"), &call.outcome, got, &mut found);
    }
    found.0.truncate(MOST);
    found.0
}

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, at: &str, what: &str) {
        self.0.push(format!("{at}: {what}"));
    }

    fn values(&mut self, at: &str, wanted: &Value, got: Option<&Value>) {
        match got {
            None => self.add(at, &format!("is missing; wanted {wanted}")),
            Some(got) => self.add(at, &format!("is {got}; wanted {wanted}")),
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
                    self.add(&format!("{at}.{name}"), &format!("is not wanted: {got}"));
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
                    self.add(&format!("{at}[{place}]"), &format!("is not wanted: {got}"));
                }
            }
            (Value::Number(left), Value::Number(right))
                if left == right || left.as_f64() == right.as_f64() => {}
            (left, right) if left == right => {}
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
        Some(body) => found.compare(&format!("{at}.body"), body, &got.body),
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
        let got = right.get("error").map_or_else(|| names(right), Value::to_string);
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
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
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
        Value::String(text) if !text.is_empty() => Value::from("*"),
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
    use serde_json::json;

    use super::*;

    fn differences(wanted: &Value, got: &Value) -> Vec<String> {
        let mut found = Differences::default();
        outcome("o", wanted, got, &mut found);
        found.0
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
