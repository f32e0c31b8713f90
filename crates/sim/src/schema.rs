//! Values made from a JSON schema, fixed by a seed and coloured by the user's text.

use serde_json::{Map, Number, Value, json};

use crate::answer::mix;

/// Below this depth optional and recursive parts are left out.
const MAX_DEPTH: usize = 5;
/// Parts made at most, against schemas that refer to themselves many times over.
const MAX_PARTS: usize = 2_000;

/// Makes values; each use takes the next word or number of the user's text.
pub(crate) struct Maker<'a> {
    root: &'a Value,
    seed: u64,
    names: Vec<&'a str>,
    numbers: Vec<f64>,
    used_names: usize,
    used_numbers: usize,
    parts: usize,
}

impl<'a> Maker<'a> {
    /// `variant` 1 starts at the text's second name, and so on.
    pub(crate) fn new(root: &'a Value, text: &'a str, seed: u64, variant: usize) -> Self {
        Self {
            root,
            seed,
            names: names(text),
            numbers: numbers(text),
            used_names: variant,
            used_numbers: variant * 2,
            parts: 0,
        }
    }

    /// A value of the root schema.
    pub(crate) fn value(&mut self) -> Value {
        self.make(self.root, "value", 0)
    }

    fn make(&mut self, schema: &'a Value, name: &str, depth: usize) -> Value {
        let Value::Object(fields) = schema else {
            return Value::String(self.word(name));
        };
        self.parts += 1;
        if depth > MAX_DEPTH * 2 || self.parts > MAX_PARTS {
            return Value::Null;
        }
        if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
            return match self.resolve(target) {
                Some(found) => self.make(found, name, depth + 1),
                None => Value::Null,
            };
        }
        if let Some(fixed) = fields.get("const") {
            return fixed.clone();
        }
        if let Some(Value::Array(choices)) = fields.get("enum") {
            return self.pick(choices, name).cloned().unwrap_or(Value::Null);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(branches)) = fields.get(key) {
                return self.branch(branches, name, depth);
            }
        }
        if let Some(Value::Array(parts)) = fields.get("allOf") {
            return self.all(schema, parts, name, depth);
        }
        let kind = match fields.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                let plain = kinds.iter().filter_map(Value::as_str).find(|k| *k != "null");
                plain.unwrap_or("null")
            }
            _ if fields.contains_key("properties") => "object",
            _ if fields.contains_key("items") => "array",
            _ => "string",
        };
        match kind {
            "object" => self.object(fields, depth),
            "array" => self.array(fields, name, depth),
            "integer" => self.integer(fields),
            "number" => self.number(fields),
            "boolean" => Value::Bool(mix(self.seed ^ name.len() as u64) & 1 == 0),
            "null" => Value::Null,
            _ => Value::String(self.string(fields, name)),
        }
    }

    fn resolve(&self, target: &str) -> Option<&'a Value> {
        let pointer = target.strip_prefix('#')?;
        self.root.pointer(&pointer.replace("%24", "$"))
    }

    fn pick<'b>(&self, choices: &'b [Value], name: &str) -> Option<&'b Value> {
        let mentioned = choices
            .iter()
            .find(|c| c.as_str().is_some_and(|c| self.names.iter().any(|n| n.eq_ignore_ascii_case(c))));
        let index = mix(self.seed ^ (name.len() as u64) << 8) as usize % choices.len().max(1);
        mentioned.or_else(|| choices.get(index))
    }

    fn branch(&mut self, branches: &'a [Value], name: &str, depth: usize) -> Value {
        let is_null = |b: &Value| b.get("type").and_then(Value::as_str) == Some("null");
        if depth > MAX_DEPTH && branches.iter().any(is_null) {
            return Value::Null;
        }
        match branches.iter().find(|b| !is_null(b)) {
            Some(branch) => self.make(branch, name, depth + 1),
            None => Value::Null,
        }
    }

    fn all(&mut self, schema: &'a Value, parts: &'a [Value], name: &str, depth: usize) -> Value {
        let mut merged = Map::new();
        for part in parts {
            match self.make(part, name, depth + 1) {
                Value::Object(fields) => merged.extend(fields),
                other if parts.len() == 1 => return other,
                _ => {}
            }
        }
        if let Value::Object(fields) = schema
            && fields.contains_key("properties")
            && let Value::Object(own) = self.object(fields, depth)
        {
            merged.extend(own);
        }
        Value::Object(merged)
    }

    fn object(&mut self, fields: &'a Map<String, Value>, depth: usize) -> Value {
        let required: Vec<&str> = match fields.get("required") {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let mut out = Map::new();
        let Some(Value::Object(properties)) = fields.get("properties") else {
            return Value::Object(out);
        };
        for (name, schema) in properties {
            // Optional fields stay out, unless the schema requires nothing at all.
            let wanted = required.contains(&name.as_str()) || (required.is_empty() && depth < 3);
            if wanted {
                let value = self.make(schema, name, depth + 1);
                out.insert(name.clone(), value);
            }
        }
        Value::Object(out)
    }

    fn array(&mut self, fields: &'a Map<String, Value>, name: &str, depth: usize) -> Value {
        if let Some(Value::Array(places)) = fields.get("prefixItems") {
            return Value::Array(places.iter().map(|p| self.make(p, name, depth + 1)).collect());
        }
        let at_least = fields.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let at_most = fields.get("maxItems").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let wanted = if depth > MAX_DEPTH { at_least } else { at_least.max(2).min(at_most) };
        let Some(items) = fields.get("items") else {
            return Value::Array((0..wanted).map(|_| json!(self.word(name))).collect());
        };
        Value::Array((0..wanted.min(64)).map(|_| self.make(items, name, depth + 1)).collect())
    }

    fn take_number(&mut self) -> Option<f64> {
        let number = self.numbers.get(self.used_numbers).copied();
        self.used_numbers += 1;
        number
    }

    fn bounds(fields: &Map<String, Value>, step: f64) -> (f64, f64) {
        let get = |key: &str| fields.get(key).and_then(Value::as_f64);
        let low = get("minimum").or(get("exclusiveMinimum").map(|v| v + step));
        let high = get("maximum").or(get("exclusiveMaximum").map(|v| v - step));
        match (low, high) {
            (Some(low), Some(high)) => (low, high),
            (Some(low), None) => (low, low + 100.0),
            (None, Some(high)) => ((high - 100.0).max(0.0).min(high), high),
            (None, None) => (1.0, 100.0),
        }
    }

    fn integer(&mut self, fields: &Map<String, Value>) -> Value {
        let (low, high) = Self::bounds(fields, 1.0);
        let bounded = fields.keys().any(|k| k.contains("inimum") || k.contains("aximum"));
        let given = self.take_number().filter(|n| n.fract() == 0.0 && (!bounded || (low..=high).contains(n)));
        let drawn = low.ceil()
            + (mix(self.seed ^ self.used_numbers as u64) % (high - low + 1.0).max(1.0) as u64) as f64;
        let step = fields.get("multipleOf").and_then(Value::as_f64).filter(|s| *s > 0.0);
        let value = match step {
            Some(step) => (given.unwrap_or(drawn) / step).floor().max((low / step).ceil()) * step,
            None => given.unwrap_or(drawn),
        };
        json!(value as i64)
    }

    fn number(&mut self, fields: &Map<String, Value>) -> Value {
        let (low, high) = Self::bounds(fields, 0.5);
        let bounded = fields.keys().any(|k| k.contains("inimum") || k.contains("aximum"));
        let given = self.take_number().filter(|n| !bounded || (low..=high).contains(n));
        let drawn = (mix(self.seed ^ self.used_numbers as u64) % 1000) as f64 / 1000.0;
        let value = given.unwrap_or_else(|| ((low + (high - low) * drawn) * 4.0).round() / 4.0);
        Number::from_f64(
            value.clamp(if bounded { low } else { f64::MIN }, if bounded { high } else { f64::MAX }),
        )
        .map_or(Value::Null, Value::Number)
    }

    fn word(&mut self, name: &str) -> String {
        let found = self.names.get(self.used_names).or_else(|| self.names.last());
        let word = found.map_or_else(|| format!("sample {name}"), |w| (*w).to_owned());
        self.used_names += 1;
        word
    }

    fn string(&mut self, fields: &Map<String, Value>, name: &str) -> String {
        let fixed = match fields.get("format").and_then(Value::as_str) {
            Some("date") => Some("2024-05-17"),
            Some("date-time") => Some("2024-05-17T09:30:00Z"),
            Some("time") => Some("09:30:00Z"),
            Some("duration") => Some("PT15M"),
            Some("email") => Some("ada@example.com"),
            Some("uri" | "url" | "uri-reference") => Some("https://example.com/item"),
            Some("uuid") => Some("6f1c0c5e-4d0a-4b57-9a3e-0d4f6b1a2c3d"),
            Some("ipv4") => Some("192.0.2.7"),
            Some("ipv6") => Some("2001:db8::7"),
            Some("hostname") => Some("example.com"),
            _ => None,
        };
        if let Some(fixed) = fixed {
            return fixed.to_owned();
        }
        let mut text = self.word(name);
        let limit = |key: &str| fields.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if let Some(least) = limit("minLength") {
            while text.chars().count() < least.min(4096) {
                text.push_str(" more");
            }
        }
        if let Some(most) = limit("maxLength") {
            text = text.chars().take(most).collect();
        }
        text
    }
}

/// Capitalised words that do not open a sentence.
fn names(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut opens = true;
    for raw in text.split_whitespace() {
        let word = raw.trim_matches(|c: char| !c.is_alphanumeric());
        if !opens
            && word.chars().next().is_some_and(char::is_uppercase)
            && word.len() > 1
            && !found.contains(&word)
        {
            found.push(word);
        }
        opens = raw.ends_with(['.', '?', '!', ':']);
    }
    found
}

fn numbers(text: &str) -> Vec<f64> {
    let parts = text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'));
    parts
        .filter_map(|p| p.trim_end_matches(['.', '-']).parse::<f64>().ok())
        .filter(|n| n.is_finite())
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_from_the_text() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"]});
        assert_eq!(
            Maker::new(&schema, "What is the weather in Paris for 3 days?", 1, 0).value(),
            json!({"city": "Paris", "days": 3})
        );
    }

    #[test]
    fn follows_references_and_ends_recursion() {
        let schema = json!({
            "$defs": {"node": {"type": "object", "properties": {"name": {"type": "string"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["name", "next"]}},
            "$ref": "#/$defs/node",
        });
        let value = Maker::new(&schema, "hello", 1, 0).value();
        assert!(value["name"].is_string() && value["next"]["next"].is_object());
    }

    #[test]
    fn keeps_bounds() {
        let schema =
            json!({"type": "array", "items": {"type": "integer", "minimum": 5, "maximum": 6}, "minItems": 3});
        let value = Maker::new(&schema, "1 2 3", 9, 0).value();
        let all = value.as_array().is_some_and(|l| l.len() == 3 && l.iter().all(|v| v == 5 || v == 6));
        assert!(all, "{value}");
    }
}
