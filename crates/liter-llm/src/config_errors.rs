//! Reads the configuration document; says where in it a mistake stands, and which name is nearest.

use serde::de::{DeserializeOwned, Visitor};
use serde_path_to_error::{Path, Segment};

use crate::core::error::LlmError;
use crate::core::request::unknown_name;

/// Above this many, the known names are not listed in an error.
const LISTED: usize = 12;

/// Reads a document of this type.
///
/// # Errors
/// `config` whose `param` is the path of what is wrong, such as `deployments[1].modle`. No value of the document is
/// in the message, except a choice that does not exist: any other may be a secret.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, LlmError> {
    serde_json::from_str(text).map_err(|error| {
        // Read a second time, for the place: what is right should not pay for what is wrong.
        let mut document = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut document) {
            Err(located) => explained(&written(located.path()), located.inner()),
            Ok(_) => explained("", &error),
        }
    })
}

/// The path as it stands in errors. Parts that are no plain words are quoted. The one deployment of a document is
/// what an error without a place speaks of.
fn written(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } => push(&mut text, key),
            Segment::Enum { variant } => push(&mut text, variant),
            Segment::Unknown => {}
        }
    }
    match text.strip_prefix("deployment.") {
        Some(option) => option.to_owned(),
        None => text,
    }
}

/// Adds a key to a path.
pub(crate) fn push(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !key.is_empty() && key.chars().all(plain) {
        true => text.push_str(key),
        false => text.push_str(&serde_json::Value::from(key).to_string()),
    }
}

/// The error in this project's words.
fn explained(path: &str, error: &serde_json::Error) -> LlmError {
    let said = error.to_string();
    let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
    let place = if path.is_empty() { "config" } else { path };
    let message = if let Some((name, known)) = unknown(said, "unknown field `") {
        let path = if path.is_empty() { name } else { path };
        format!("`{path}` {}", unknown_name(name, &known, &listed(&known)))
    } else if let Some((name, known)) = unknown(said, "unknown variant `") {
        format!("`{place}`: `{name}` {}", unknown_name(name, &known, &listed(&known)))
    } else if error.is_data() {
        match said.rsplit_once(", expected ") {
            Some((_, expected)) => format!("`{place}`: must be {}", plainly(expected)),
            None => format!("`{place}`: {said}"),
        }
    } else {
        format!("the configuration cannot be read: {error}")
    };
    LlmError::config(place, message)
}

/// The unknown name and the known ones in a message of serde's.
fn unknown<'a>(said: &'a str, begin: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (name, expected) = said.strip_prefix(begin)?.split_once("`, ")?;
    Some((name, expected.split('`').skip(1).step_by(2).collect()))
}

fn listed(known: &[&str]) -> String {
    match known.len() {
        0 => "there are no options here".to_owned(),
        1..=LISTED => format!("one of {}", known.join(", ")),
        _ => "see docs/options.md".to_owned(),
    }
}

/// What serde calls a type, in plain words.
fn plainly(expected: &str) -> &str {
    match expected {
        "f64" => "a number",
        "u32" | "u64" | "usize" => "a whole number from 0 up",
        "a string" | "a borrowed string" | "string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// The names of a type's fields, as its `Deserialize` knows them.
pub(crate) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    drop(T::deserialize(Asked(&mut names)));
    names
}

/// Asks a type for its fields, and gives it nothing.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> serde::Deserializer<'de> for Asked<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(serde::de::Error::custom("asked"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("no table"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::Config;
    use crate::core::error::LlmError;

    fn error(document: &str) -> LlmError {
        Config::from_json(document.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_mistake_has_its_path_and_the_nearest_name() {
        let two = r#"{"provider":"openai","model":"a"},{"provider":"openai","model":"b","#;
        for (document, param, words) in [
            (format!(r#"{{"deployments":[{two}"modle":"m"}}]}}"#), "deployments[1].modle", "`model`"),
            (r#"{"deploymnts":[]}"#.to_owned(), "deploymnts", "`deployments`"),
            (r#"{"router":{"polcy":"x"}}"#.to_owned(), "router.polcy", "`policy`"),
            (r#"{"cache":{"tll":1}}"#.to_owned(), "cache.tll", "`ttl`"),
            (
                r#"{"deployment":{"provider":"o","circuit":{"probe":1}}}"#.to_owned(),
                "circuit.probe",
                "`probes`",
            ),
            (
                format!(r#"{{"deployments":[{two}"hedge":{{"budgt":1}}}}]}}"#),
                "deployments[1].hedge.budgt",
                "`budget`",
            ),
            (
                r#"{"providers":{"my.host":{"adaptr":1}}}"#.to_owned(),
                "providers.\"my.host\".adaptr",
                "`adapter`",
            ),
            (r#"{"deployment":{"api":"respones"}}"#.to_owned(), "api", "`responses`"),
        ] {
            let error = error(&document);
            assert_eq!(error.detail().param.as_deref(), Some(param), "{error}");
            assert!(error.to_string().contains(&format!("did you mean {words}?")), "{error}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        for (document, param, words) in [
            (r#"{"deployment":{"provider":"o","timeout":"sk-canary, expected x"}}"#, "timeout", "a number"),
            (r#"{"deployment":{"provider":"o","api_key":{"sk-canary":1}}}"#, "api_key", "text"),
            (r#"{"deployment":{"provider":"o","cache":"sk-canary"}}"#, "cache", "true, false or"),
            (r#"{"deployment":{"provider":"o","tags":"sk-canary"}}"#, "tags", "a list"),
            (r#"{"router":{"max_retries":-1}}"#, "router.max_retries", "a whole number from 0 up"),
        ] {
            let error = error(document);
            assert_eq!(error.detail().param.as_deref(), Some(param), "{error}");
            assert!(error.to_string().contains(&format!("must be {words}")), "{error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn types_tell_their_fields() {
        assert_eq!(super::field_names::<Config>()[..2], ["deployment", "deployments"]);
        assert!(super::field_names::<String>().is_empty());
    }
}
