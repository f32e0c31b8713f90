//! Says on a span what there is to say, in the types that the spans of every language have.

use serde_json::{Map, Value};
use tracing::Span;

/// Says each of these. A text in a log has what was declared when the span began, lists as one text; a span that is
/// exported has everything, lists as lists.
pub(super) fn say(span: &Span, attributes: Map<String, Value>) {
    let exported = is_exported(span);
    for (name, value) in attributes {
        match value {
            Value::Null => {}
            value if exported && (value.is_array() || !span.has_field(name.as_str())) => {
                export(span, name, value)
            }
            Value::Bool(value) => drop(span.record(name.as_str(), value)),
            Value::String(value) => drop(span.record(name.as_str(), value)),
            Value::Number(value) => match value.as_i64() {
                Some(value) => drop(span.record(name.as_str(), value)),
                None => drop(span.record(name.as_str(), value.as_f64())),
            },
            Value::Array(list) => drop(span.record(name.as_str(), texts(list).join(", "))),
            other @ Value::Object(_) => drop(span.record(name.as_str(), other.to_string())),
        }
    }
}

/// A count in the type that spans are exported with: any other would become text.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn texts(list: Vec<Value>) -> Vec<String> {
    list.into_iter().map(text).collect()
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Whether OpenTelemetry has this span.
#[cfg(feature = "opentelemetry")]
fn is_exported(span: &Span) -> bool {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    span.context().has_active_span()
}

#[cfg(feature = "opentelemetry")]
fn export(span: &Span, name: String, value: Value) {
    use opentelemetry::{Array, StringValue, Value as Exported};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let value = match value {
        Value::Bool(value) => Exported::Bool(value),
        Value::Number(value) => match value.as_i64() {
            Some(value) => Exported::I64(value),
            None => Exported::F64(value.as_f64().unwrap_or_default()),
        },
        Value::Array(list) => {
            Exported::Array(Array::String(texts(list).into_iter().map(StringValue::from).collect()))
        }
        other => Exported::String(text(other).into()),
    };
    span.set_attribute(name, value);
}

#[cfg(not(feature = "opentelemetry"))]
const fn is_exported(_: &Span) -> bool {
    false
}

#[cfg(not(feature = "opentelemetry"))]
fn export(_: &Span, _: String, _: Value) {}
