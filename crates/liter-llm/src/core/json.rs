//! JSON kept exactly as it was written: the carrier of everything the engine does not need to look into.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as text, byte for byte as it came in.
///
/// Two values are equal when their texts are equal.
///
/// ```
/// use liter_llm::RawJson;
///
/// let number = RawJson::parse("1.0")?;
/// assert_eq!((number.get(), number.read::<f64>()?), ("1.0", 1.0));
/// let list = RawJson::from_value(&["a", "b"])?;
/// assert_eq!(list.get(), r#"["a","b"]"#);
/// assert_eq!(RawJson::from("text").as_string().as_deref(), Some("text"));
/// assert!(RawJson::parse("null")?.is_null());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Checks that `text` is one JSON value and keeps it.
    ///
    /// # Errors
    /// The parser's error when `text` is not JSON.
    pub fn parse(text: impl Into<String>) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text.into()).map(Self)
    }

    /// Writes any serialisable value as JSON.
    ///
    /// # Errors
    /// When the value has no JSON form (a map with keys that are not strings).
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Reads the text into `T`, which may borrow from it.
    ///
    /// # Errors
    /// When the text is not of `T`'s shape.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }

    /// True for the JSON value `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.get() == "null"
    }

    /// The string's content when the value is a JSON string.
    #[must_use]
    pub fn as_string(&self) -> Option<String> {
        self.read().ok()
    }
}

impl From<&RawValue> for RawJson {
    fn from(value: &RawValue) -> Self {
        Self(value.to_owned())
    }
}

impl From<Box<RawValue>> for RawJson {
    fn from(value: Box<RawValue>) -> Self {
        Self(value)
    }
}

impl From<&serde_json::Value> for RawJson {
    fn from(value: &serde_json::Value) -> Self {
        // A `Value` always has a JSON form; the fallback only satisfies the type checker.
        Self::from_value(value).unwrap_or_else(|_| Self(RawValue::NULL.to_owned()))
    }
}

impl From<&str> for RawJson {
    /// The JSON string with this content (not: the JSON text `value`).
    fn from(value: &str) -> Self {
        Self::from(&serde_json::Value::from(value))
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for RawJson {}

impl fmt::Debug for RawJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.get())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

/// Named JSON values in the order they were written: vendor fields without a home of their own.
///
/// ```
/// use liter_llm::{Extra, RawJson};
///
/// let mut extra = Extra::new();
/// extra.insert("safety_level".to_owned(), RawJson::from("high"));
/// assert_eq!(extra["safety_level"].get(), r#""high""#);
/// ```
pub type Extra = IndexMap<String, RawJson>;

pub use super::fields::Fields;

/// Reads a JSON object into its [`Fields`].
///
/// # Errors
/// When `text` is not a JSON object.
pub fn fields(text: &str) -> Result<Fields<'_>, serde_json::Error> {
    serde_json::from_str(text)
}

/// What is left of an object after the known fields were taken out; `null` fields are not kept.
#[must_use]
pub fn leftover(fields: Fields<'_>) -> Extra {
    fields
        .into_iter()
        .filter(|(_, value)| value.get() != "null")
        .map(|(name, value)| (name, RawJson::from(value)))
        .collect()
}

/// Takes a field out and reads it; `None` when it is absent or `null`.
///
/// # Errors
/// When the field is there and not of `T`'s shape.
pub fn take<'a, T: Deserialize<'a>>(
    fields: &mut Fields<'a>,
    name: &str,
) -> Result<Option<T>, serde_json::Error> {
    match fields.shift_remove(name) {
        None => Ok(None),
        Some(raw) if raw.get() == "null" => Ok(None),
        Some(raw) => serde_json::from_str(raw.get()).map(Some),
    }
}

/// Takes a field out as text: a string's content, or the JSON text of any other value.
#[must_use]
pub fn take_text(fields: &mut Fields<'_>, name: &str) -> Option<String> {
    let raw = fields.shift_remove(name)?;
    match raw.get() {
        "null" => None,
        text if text.starts_with('"') => serde_json::from_str(text).ok(),
        text => Some(text.to_owned()),
    }
}

/// The deepest nesting of arrays and objects in what is sent and received: what the JSON parser itself follows.
pub const MAX_NESTING: usize = 128;

/// Whether arrays and objects stand in each other more than [`MAX_NESTING`] deep. The bytes need not be JSON.
///
/// Values that are only carried along are not followed by the parser; whoever reads them later may run out of stack.
#[must_use]
pub fn nests_too_deep(json: &[u8]) -> bool {
    // Most texts hold fewer brackets than that in all, and counting them is many times faster than following them.
    if json.len() <= MAX_NESTING || memchr::memchr2_iter(b'{', b'[', json).nth(MAX_NESTING).is_none() {
        return false;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(found) = memchr::memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
                    let escape = json.get(at + found) == Some(&b'\\');
                    at += found + 1 + usize::from(escape);
                    if !escape {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_and_order_survive() {
        let text = r#"{"z":1.0,"a":12345678901234567890123,"b":1e10}"#;
        let read = fields(text).unwrap();
        assert_eq!(serde_json::to_string(&leftover(read)).unwrap(), text);
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(
            !nests_too_deep(nested(MAX_NESTING).as_bytes())
                && nests_too_deep(nested(MAX_NESTING + 1).as_bytes())
        );
        let beside = format!("[{}1]", "[],{},".repeat(1000));
        assert!(!nests_too_deep(beside.as_bytes()));
        let quoted = format!(r#"{{"a":"{}\"{}\\\\","b":{}}}"#, "[".repeat(500), "{".repeat(500), nested(100));
        assert!(!nests_too_deep(quoted.as_bytes()), "{quoted}");
        let behind = format!(r#"{{"a":"\\","b":{}}}"#, nested(200));
        assert!(nests_too_deep(behind.as_bytes()));
        assert!(nests_too_deep(&[b'{'; 100_000]));
    }

    #[test]
    fn taking_a_field_leaves_the_rest() {
        let mut read = fields(r#"{"a":"x","b":null,"c":{"d":1}}"#).unwrap();
        assert_eq!(take::<String>(&mut read, "a").unwrap().as_deref(), Some("x"));
        assert_eq!(take::<String>(&mut read, "b").unwrap(), None);
        assert_eq!(take_text(&mut read, "c").as_deref(), Some(r#"{"d":1}"#));
        assert!(leftover(read).is_empty());
    }
}
