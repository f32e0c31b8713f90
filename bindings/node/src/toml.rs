//! TOML for configuration files: every value with the line it stands on.

use neon::prelude::*;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{told, words, written};

/// The largest whole number that JavaScript holds exactly.
const LARGEST: u64 = (1 << 53) - 1;

/// The line (from 1) of each place in a text.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn of(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at) + 1
    }

    /// A value as `[kind, what it holds]`.
    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => json!(["text", text]),
            DeValue::Boolean(switch) => json!(["switch", switch]),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) if number.unsigned_abs() <= LARGEST => json!(["number", number]),
                _ => json!(["large"]),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => json!(["number", number]),
                _ => json!(["infinite"]),
            },
            DeValue::Datetime(_) => json!(["date"]),
            DeValue::Array(list) => {
                let listed =
                    list.iter().map(|one| json!([self.of(one.span().start), self.value(one.get_ref())]));
                json!(["list", listed.collect::<Vec<_>>()])
            }
            DeValue::Table(table) => json!(["table", self.table(table)]),
        }
    }

    /// A table as `[key, line, value]` for each key.
    fn table(&self, table: &DeTable<'_>) -> Vec<Value> {
        let row = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            json!([key.get_ref(), self.of(key.span().start), self.value(value.get_ref())])
        };
        table.iter().map(row).collect()
    }
}

/// The values of a TOML text and their lines, as JSON; or `{"error", "line"}`.
fn read(text: &str) -> Value {
    let lines = Lines::new(text);
    match DeTable::parse(text) {
        Ok(document) => json!(["table", lines.table(document.get_ref())]),
        Err(error) => {
            let line = error.span().map(|span| lines.of(span.start));
            json!({"error": error.message().lines().next().unwrap_or_default(), "line": line})
        }
    }
}

/// Reads a TOML text: `["table", [[key, line, value], ...]]` as JSON, where it is one.
pub fn parse<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let text = words(&mut cx, 0)?;
    told(&mut cx, written(&read(&text)))
}
