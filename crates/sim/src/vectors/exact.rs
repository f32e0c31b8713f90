//! JSON whose numbers are compared exactly: none of them is read into a number that could round it.

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

/// Stands before a number, which is kept as its text. No JSON text of a vector begins so.
const NUMBER: char = '\u{0}';

/// Reads JSON; each number becomes a string that [`is_number`] knows.
pub(super) fn read(text: &str) -> Result<Value, serde_json::Error> {
    let text = text.trim();
    Ok(match text.bytes().next() {
        Some(b'{') => {
            let fields: IndexMap<String, &RawValue> = serde_json::from_str(text)?;
            let fields = fields.into_iter().map(|(name, value)| Ok((name, read(value.get())?)));
            Value::Object(fields.collect::<Result<_, serde_json::Error>>()?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            Value::Array(items.into_iter().map(|item| read(item.get())).collect::<Result<_, _>>()?)
        }
        Some(b'-' | b'0'..=b'9') => {
            let number: &RawValue = serde_json::from_str(text)?;
            Value::String(format!("{NUMBER}{}", number.get()))
        }
        _ => serde_json::from_str(text)?,
    })
}

/// True for the text of a number.
pub(super) fn is_number(text: &str) -> bool {
    text.starts_with(NUMBER)
}

/// True for a number that is zero.
pub(super) fn is_zero(text: &str) -> bool {
    text.strip_prefix(NUMBER).is_some_and(|number| value_of(number).1.is_empty())
}

/// True for two numbers of the same value; with `kinds`, one with a fraction or exponent is none without.
pub(super) fn same_number(left: &Value, right: &Value, kinds: bool) -> bool {
    fn number(value: &Value) -> Option<&str> {
        value.as_str().and_then(|text| text.strip_prefix(NUMBER))
    }
    let is_whole = |text: &str| !text.contains(['.', 'e', 'E']);
    match (number(left), number(right)) {
        (Some(left), Some(right)) => {
            value_of(left) == value_of(right) && (!kinds || is_whole(left) == is_whole(right))
        }
        _ => false,
    }
}

/// A number's exact value: whether it is below zero, its digits without zeros at the ends, and the power of ten of the
/// last one.
fn value_of(number: &str) -> (bool, String, i64) {
    let (minus, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let power: i64 = power.parse().unwrap_or(i64::MAX / 2);
    // Lengths of numbers in a request fit easily.
    let zeros = i64::try_from(digits.len() - kept.len()).unwrap_or(0);
    let places = i64::try_from(fraction.len()).unwrap_or(0);
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() { (false, String::new(), 0) } else { (minus, kept.to_owned(), power + zeros - places) }
}

/// A value as JSON, to be looked at.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.strip_prefix(NUMBER).map_or_else(|| value.to_string(), str::to_owned),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => {
            let field =
                |(name, value): (&String, &Value)| format!("{}:{}", Value::from(name.as_str()), shown(value));
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

/// JSON without the blanks between its parts.
pub(super) fn compact(text: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let part = |letter: &char| {
        let quote = *letter == '"' && !escaped;
        escaped = inside && *letter == '\\' && !escaped;
        inside ^= quote;
        inside || !letter.is_ascii_whitespace()
    };
    text.chars().filter(part).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn numbers_stay_as_they_are() {
        let text = r#"{ "a" : [ 1.0, -0, 1E400, "2 \" 3 \\", null ], "b c" : {"d": 18446744073709551616} }"#;
        let value = read(text).unwrap();
        let tight = r#"{"a":[1.0,-0,1E400,"2 \" 3 \\",null],"b c":{"d":18446744073709551616}}"#;
        assert_eq!((shown(&value).as_str(), compact(text).as_str()), (tight, tight));
        assert!(read("[1.]").is_err() && read("{").is_err() && read("").is_err());
    }

    #[test]
    fn numbers_are_the_same_by_their_value() {
        for (left, right, same) in [
            ("100", "1e2", true),
            ("1.50", "15e-1", true),
            ("0", "-0.00", true),
            ("10", "1", false),
            ("1e400", "1e401", false),
            ("18446744073709551616", "18446744073709551617", false),
        ] {
            assert_eq!(
                same_number(&read(left).unwrap(), &read(right).unwrap(), false),
                same,
                "{left} {right}"
            );
        }
    }
}
