//! Tools, the choice among them, and the form of the answer, in every accepted spelling.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::content::wire;
use super::error::LlmError;
use super::json::{Extra, RawJson, fields, leftover, take};

/// A tool the model may call.
///
/// Deserialising accepts OpenAI's chat form, its flat Responses form, Anthropic's form (`input_schema`) and the
/// neutral one (`name`, `description`, `parameters`). A tool with another `type` is the vendor's own (web search,
/// code execution, ...) and is sent as it is.
///
/// ```
/// use liter_llm::{RawJson, Tool};
///
/// let schema = RawJson::parse(r#"{"type": "object", "properties": {"city": {"type": "string"}}}"#).unwrap();
/// let tool = Tool::function("weather", "The weather in a city.", schema);
/// assert_eq!((tool.name.as_str(), tool.is_vendor()), ("weather", false));
/// let search = RawJson::parse(r#"{"type": "web_search_20250305", "name": "web_search"}"#).unwrap();
/// let search_tool = Tool::from_json(&search)?;
/// assert!(search_tool.is_vendor() && search_tool.verbatim_for("anthropic") == Some(&search));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The function's name, or the vendor tool's.
    pub name: String,
    /// What it does and when to use it.
    pub description: Option<String>,
    /// The arguments' JSON Schema.
    pub parameters: Option<RawJson>,
    /// Whether arguments must follow the schema exactly.
    pub strict: Option<bool>,
    /// Anthropic's prompt-cache marker.
    pub cache_control: Option<RawJson>,
    /// Fields without a typed home.
    pub extra: Extra,
    native: Option<(Option<&'static str>, RawJson)>,
}

fn bad(field: &str, message: impl std::fmt::Display) -> LlmError {
    LlmError::invalid(field, format!("`{field}`: {message}"))
}

impl Tool {
    /// A function with the JSON Schema of its arguments.
    #[must_use]
    pub fn function(name: impl Into<String>, description: impl Into<String>, parameters: RawJson) -> Self {
        Self {
            name: name.into(),
            description: Some(description.into()),
            parameters: Some(parameters),
            strict: None,
            cache_control: None,
            extra: Extra::new(),
            native: None,
        }
    }

    /// Reads a tool in any accepted form.
    ///
    /// # Errors
    /// `invalid_request` naming the field at fault.
    pub fn from_json(json: &RawJson) -> Result<Self, LlmError> {
        let mut outer = fields(json.get()).map_err(|_| bad("tools", "a tool must be an object"))?;
        let kind = take::<String>(&mut outer, "type").map_err(|error| bad("type", error))?;
        let (mut map, shape) = match kind.as_deref() {
            // Mistral takes the chat form without `type` as well.
            None | Some("function") if outer.contains_key("function") => {
                let inner = take::<&RawValue>(&mut outer, "function")
                    .map_err(|error| bad("function", error))?
                    .ok_or_else(|| bad("function", "is missing"))?;
                let mut map = fields(inner.get()).map_err(|error| bad("function", error))?;
                map.extend(outer);
                (map, Some(wire::OPENAI_CHAT))
            }
            Some("function") => (outer, Some(wire::OPENAI_RESPONSES)),
            None | Some("custom") if outer.contains_key("input_schema") => (outer, Some(wire::ANTHROPIC)),
            None if outer.contains_key("name") => (outer, None),
            None => return Err(bad("name", "is missing: a tool needs one")),
            Some(_) => {
                let name = super::json::take_text(&mut outer, "name").unwrap_or_default();
                return Ok(Self {
                    name,
                    description: None,
                    parameters: None,
                    strict: None,
                    cache_control: None,
                    extra: Extra::new(),
                    native: Some((None, json.clone())),
                });
            }
        };
        let name = take::<String>(&mut map, "name")
            .map_err(|error| bad("name", error))?
            .ok_or_else(|| bad("name", "is missing: a tool needs one"))?;
        let parameters = map
            .shift_remove(if shape == Some(wire::ANTHROPIC) { "input_schema" } else { "parameters" })
            .filter(|raw| raw.get() != "null")
            .map(RawJson::from);
        Ok(Self {
            name,
            description: take(&mut map, "description").map_err(|error| bad("description", error))?,
            parameters,
            strict: take(&mut map, "strict").map_err(|error| bad("strict", error))?,
            cache_control: take::<RawJson>(&mut map, "cache_control")
                .map_err(|error| bad("cache_control", error))?,
            extra: leftover(map),
            native: shape.map(|shape| (Some(shape), json.clone())),
        })
    }

    /// True for a tool of the vendor's own, which has no schema here.
    #[must_use]
    pub fn is_vendor(&self) -> bool {
        matches!(self.native, Some((None, _)))
    }

    /// The form it came in (empty: a vendor's own) and its JSON.
    pub(crate) fn as_written(&self) -> Option<(&'static str, &RawJson)> {
        self.native.as_ref().map(|(shape, json)| (shape.unwrap_or_default(), json))
    }

    /// The tool's JSON as the caller wrote it, when it can go to `wire` as it stands.
    #[must_use]
    pub fn verbatim_for(&self, wire: &str) -> Option<&RawJson> {
        match &self.native {
            Some((None, json)) => Some(json),
            Some((Some(shape), json)) if *shape == wire => Some(json),
            _ => None,
        }
    }
}

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some((None, json)) = &self.native {
            return json.serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        if let Some(description) = &self.description {
            map.serialize_entry("description", description)?;
        }
        if let Some(parameters) = &self.parameters {
            map.serialize_entry("parameters", parameters)?;
        }
        if let Some(strict) = &self.strict {
            map.serialize_entry("strict", strict)?;
        }
        if let Some(marker) = &self.cache_control {
            map.serialize_entry("cache_control", marker)?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = RawJson::deserialize(deserializer)?;
        Self::from_json(&json).map_err(|error| serde::de::Error::custom(&error.detail().message))
    }
}

/// Which tools the model may or must call.
///
/// ```
/// use liter_llm::{RawJson, ToolChoice};
///
/// let (choice, parallel) = ToolChoice::from_json(&RawJson::from("any"))?;
/// assert_eq!((choice, parallel), (ToolChoice::Required, None));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No tool.
    None,
    /// At least one tool.
    Required,
    /// This tool.
    Tool(String),
    /// A vendor's own form, sent as it is.
    Vendor(RawJson),
}

impl ToolChoice {
    /// Reads any accepted spelling: `"auto"`, `"none"`, `"required"`, `"any"`, a tool's name as
    /// `{"name": ...}`, OpenAI's or Anthropic's object. The second value is what Anthropic's object says about
    /// parallel calls.
    ///
    /// # Errors
    /// `invalid_request` when the value is none of these.
    pub fn from_json(json: &RawJson) -> Result<(Self, Option<bool>), LlmError> {
        const HELP: &str = "use `auto`, `none`, `required` or {\"name\": \"a_tool\"}";
        if let Some(word) = json.as_string() {
            return match word.as_str() {
                "auto" => Ok((Self::Auto, None)),
                "none" => Ok((Self::None, None)),
                "required" | "any" => Ok((Self::Required, None)),
                other => Err(bad("tool_choice", format!("`{other}` is not a choice: {HELP}"))),
            };
        }
        let mut map = fields(json.get()).map_err(|_| bad("tool_choice", HELP))?;
        let read = |map: &mut super::json::Fields<'_>, name: &str| {
            take::<String>(map, name).map_err(|error| bad("tool_choice", error))
        };
        let kind = read(&mut map, "type")?;
        let parallel = take::<bool>(&mut map, "disable_parallel_tool_use")
            .map_err(|error| bad("tool_choice", error))?
            .map(|disabled| !disabled);
        let name = match map.shift_remove("function") {
            Some(raw) => {
                let mut inner = fields(raw.get()).map_err(|error| bad("tool_choice", error))?;
                read(&mut inner, "name")?
            }
            None => read(&mut map, "name")?,
        };
        let choice = match (kind.as_deref(), name) {
            (Some("auto"), _) => Self::Auto,
            (Some("none"), _) => Self::None,
            (Some("any" | "required"), _) => Self::Required,
            (None | Some("tool" | "function"), Some(name)) => Self::Tool(name),
            (Some(_), _) => Self::Vendor(json.clone()),
            (None, None) => return Err(bad("tool_choice", HELP)),
        };
        Ok((choice, parallel))
    }
}

impl Serialize for ToolChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str("none"),
            Self::Required => serializer.serialize_str("required"),
            Self::Tool(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("name", name)?;
                map.end()
            }
            Self::Vendor(json) => json.serialize(serializer),
        }
    }
}

/// The form of the answer.
///
/// ```
/// use liter_llm::{RawJson, ResponseFormat};
///
/// assert_eq!(ResponseFormat::from_json(&RawJson::from("json"))?, ResponseFormat::JsonObject);
/// let schema = RawJson::parse(r#"{"type": "object"}"#).unwrap();
/// let strict = ResponseFormat::JsonSchema { name: "city".to_owned(), schema, strict: Some(true), description: None };
/// assert_ne!(strict, ResponseFormat::Text);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseFormat {
    /// Free text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// A name for the schema: letters, digits, `_` and `-`.
        name: String,
        /// The JSON Schema.
        schema: RawJson,
        /// Whether the answer must follow the schema exactly; the default is the provider's.
        strict: Option<bool>,
        /// What the schema is for.
        description: Option<String>,
    },
    /// A vendor's own form, sent as it is.
    Vendor(RawJson),
}

impl ResponseFormat {
    /// Reads any accepted spelling: `"text"`, `"json"`, OpenAI's chat form, its flat Responses form, Anthropic's.
    ///
    /// # Errors
    /// `invalid_request` when the value is none of these.
    pub fn from_json(json: &RawJson) -> Result<Self, LlmError> {
        const HELP: &str = "use `text`, `json` or {\"type\": \"json_schema\", \"json_schema\": {...}}";
        if let Some(word) = json.as_string() {
            return match word.as_str() {
                "text" => Ok(Self::Text),
                "json" | "json_object" => Ok(Self::JsonObject),
                other => Err(bad("response_format", format!("`{other}` is not a form: {HELP}"))),
            };
        }
        let mut outer = fields(json.get()).map_err(|_| bad("response_format", HELP))?;
        let fail = |error: serde_json::Error| bad("response_format", error);
        let kind = take::<String>(&mut outer, "type").map_err(fail)?;
        match kind.as_deref() {
            Some("text") => Ok(Self::Text),
            Some("json_object" | "json") => Ok(Self::JsonObject),
            Some("json_schema") => {
                let inner = outer.shift_remove("json_schema");
                let mut map = match inner {
                    Some(raw) => fields(raw.get()).map_err(fail)?,
                    None => outer,
                };
                Ok(Self::JsonSchema {
                    name: take(&mut map, "name").map_err(fail)?.unwrap_or_else(|| "answer".to_owned()),
                    schema: take::<RawJson>(&mut map, "schema")
                        .map_err(fail)?
                        .ok_or_else(|| bad("response_format", "`schema` is missing"))?,
                    strict: take(&mut map, "strict").map_err(fail)?,
                    description: take(&mut map, "description").map_err(fail)?,
                })
            }
            Some(_) => Ok(Self::Vendor(json.clone())),
            None => Err(bad("response_format", HELP)),
        }
    }
}

impl Serialize for ResponseFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text => serializer.serialize_str("text"),
            Self::JsonObject => serializer.serialize_str("json"),
            Self::JsonSchema { name, schema, strict, description } => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("type", "json_schema")?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("schema", schema)?;
                if let Some(strict) = strict {
                    map.serialize_entry("strict", strict)?;
                }
                if let Some(description) = description {
                    map.serialize_entry("description", description)?;
                }
                map.end()
            }
            Self::Vendor(json) => json.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn raw(text: &str) -> RawJson {
        RawJson::parse(text).unwrap()
    }

    #[test]
    fn all_tool_forms_read_alike() {
        let schema = r#"{"type":"object","properties":{"x":{"type":"number"}}}"#;
        for (text, wire) in [
            (
                format!(
                    r#"{{"type":"function","function":{{"name":"f","description":"d","parameters":{schema}}}}}"#
                ),
                "openai_chat",
            ),
            (
                format!(r#"{{"type":"function","name":"f","description":"d","parameters":{schema}}}"#),
                "openai_responses",
            ),
            (format!(r#"{{"name":"f","description":"d","input_schema":{schema}}}"#), "anthropic"),
        ] {
            let tool = Tool::from_json(&raw(&text)).unwrap();
            assert_eq!((tool.name.as_str(), tool.description.as_deref()), ("f", Some("d")));
            assert_eq!(tool.parameters.as_ref().unwrap().get(), schema);
            assert_eq!(tool.verbatim_for(wire).unwrap().get(), text);
        }
        let vendor = Tool::from_json(&raw(r#"{"type":"web_search_20250305","name":"web_search"}"#)).unwrap();
        assert!(vendor.is_vendor() && vendor.verbatim_for("anthropic").is_some());
    }

    #[test]
    fn choices_and_formats() {
        let choice = |text| ToolChoice::from_json(&raw(text)).unwrap();
        assert_eq!(choice(r#""any""#), (ToolChoice::Required, None));
        assert_eq!(
            choice(r#"{"type":"tool","name":"f","disable_parallel_tool_use":true}"#),
            (ToolChoice::Tool("f".into()), Some(false))
        );
        assert_eq!(choice(r#"{"type":"function","function":{"name":"f"}}"#).0, ToolChoice::Tool("f".into()));
        assert!(ToolChoice::from_json(&raw(r#""sometimes""#)).is_err());
        let format = ResponseFormat::from_json(&raw(
            r#"{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}}"#,
        ))
        .unwrap();
        assert!(matches!(format, ResponseFormat::JsonSchema { strict: Some(true), .. }));
    }
}
