//! The catalogue of models: what each can do and what it costs.
//!
//! Nothing is read before the first question, and then only the row that is asked for.

mod model;
mod moment;
mod prices;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::model::{Feature, Limits, Modality, ModelInfo, Need, PriceFacts};
pub use self::moment::{Day, Minute, Moment};
pub use self::prices::{PriceEntry, PriceSet};
use self::text::Text;
use crate::core::cost::{Cost, Pricing};
use crate::core::error::LlmError;
use crate::core::response::Usage;

/// The schema's version.
const FORMAT: u64 = 1;
/// Answers to so many questions are kept; model names may come from outside.
const MOST_KEPT: usize = 1024;

#[cfg(feature = "catalogue")]
static SHIPPED: &[u8] = include_bytes!("../../data/models.json");

/// Models, their limits, features and prices.
///
/// ```
/// use std::time::SystemTime;
/// use liter_llm::{Usage, catalog::{Catalog, Feature, Need, PriceFacts}};
///
/// let model = Catalog::shipped().get("openai", "gpt-4o").expect("a known model");
/// assert_eq!(model.limits.context, Some(128_000));
/// assert_eq!(model.supports(Need::Feature(Feature::Tools)), Some(true));
/// let usage = Usage { input_tokens: 1_000, output_tokens: 200, ..Usage::default() };
/// let cost = model.cost(&usage, &PriceFacts::at(SystemTime::now())).expect("known prices");
/// assert_eq!(cost.total.to_string(), "0.0045");
/// ```
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
/// use liter_llm::{Catalog, Usage};
///
/// let own = r#"{"format": 1, "models": {"mine/small": {"kind": "chat", "prices": [{"input": "1", "output": "2"}]}}}"#;
/// let catalog = Arc::new(Catalog::empty().with_own(own, "own.json")?);
/// assert_eq!(catalog.all()?.len(), 1);
/// let usage = Usage { input_tokens: 1_000_000, output_tokens: 0, ..Usage::default() };
/// let cost = catalog.pricing("mine", "small").cost(None, "small", &usage, None).unwrap();
/// assert_eq!(cost.total.to_string().parse::<f64>().unwrap(), 1.0);
///
/// // The whole text of a catalogue, in memory or in a file that is opened when something is asked.
/// let text = "{\"format\":1,\"sources\":{},\"models\":{\n\"mine/small\":{\"kind\":\"chat\"}\n}}\n";
/// assert_eq!(Catalog::check(text)?, 1);
/// assert!(Catalog::from_bytes(text).get("mine", "small").is_some());
/// assert!(Catalog::from_path("/no/such/file.json").problem().is_some());
/// assert!(Catalog::empty().with_own_file(Path::new("/no/such/file.json")).is_err());
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug)]
pub struct Catalog {
    text: Option<Text>,
    /// The user's own rows, which lie over the others field by field.
    own: HashMap<String, Value>,
    releases: OnceLock<Result<BTreeMap<String, String>, String>>,
    known: RwLock<HashMap<String, Option<Arc<ModelInfo>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u64,
    #[serde(default)]
    sources: BTreeMap<String, String>,
    #[serde(default)]
    models: Map<String, Value>,
}

impl Default for Catalog {
    /// The one that is built in.
    fn default() -> Self {
        Self::shipped()
    }
}

impl Catalog {
    fn over(text: Option<Text>) -> Self {
        Self { text, own: HashMap::new(), releases: OnceLock::new(), known: RwLock::default() }
    }

    /// The catalogue that is built in with the crate's `catalogue` feature; empty without it.
    #[must_use]
    pub fn shipped() -> Self {
        #[cfg(feature = "catalogue")]
        return Self::over(Some(Text::Bytes(Bytes::from_static(SHIPPED))));
        #[cfg(not(feature = "catalogue"))]
        return Self::empty();
    }

    /// A catalogue without rows: every model is unknown.
    #[must_use]
    pub fn empty() -> Self {
        Self::over(None)
    }

    /// A catalogue in a file of the schema of `data/models.json`. The file is opened when something is asked.
    #[must_use]
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        Self::over(Some(Text::File(path.into())))
    }

    /// A catalogue in memory.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::over(Some(Text::Bytes(bytes.into())))
    }

    /// Lays rows of your own over it: a JSON object of the same schema, in any layout. Of a model that has a row
    /// already, the fields that are named here win; a text instead of a row is another name for that key.
    ///
    /// # Errors
    /// `config` naming the file, the line or the key, and what is wrong. The catalogue stays as it was.
    pub fn with_own(mut self, json: &str, file: &str) -> Result<Self, LlmError> {
        let wrong = |reason: String| LlmError::config("catalog", format!("{file}: {reason}"));
        let header: Header = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        if header.format != FORMAT {
            return Err(wrong(format!("`format`: {} is unknown, {FORMAT} is expected", header.format)));
        }
        for (key, value) in &header.models {
            check(key, value, &header.sources).map_err(|reason| wrong(format!("`{key}`: {reason}")))?;
        }
        self.own.extend(header.models.into_iter().map(|(key, value)| (key.to_lowercase(), value)));
        self.known = RwLock::default();
        Ok(self)
    }

    /// Lays the rows of a file over it, as [`with_own`](Self::with_own).
    ///
    /// # Errors
    /// `config` as there, and when the file cannot be read.
    pub fn with_own_file(self, path: &Path) -> Result<Self, LlmError> {
        let file = path.display().to_string();
        let json = std::fs::read_to_string(path)
            .map_err(|error| LlmError::config("catalog", format!("{file}: {error}")).with_source(error))?;
        self.with_own(&json, &file)
    }

    /// What is known of a model; `None` for an unknown one. Case does not matter. A name with a date
    /// (`gpt-4o-2024-08-06`) or `-latest` that has no row of its own is taken for the name without it, and a fine-tuned
    /// model (`ft:gpt-4o-2024-08-06:org::id`) for its kind.
    #[must_use]
    pub fn get(&self, provider: &str, model: &str) -> Option<Arc<ModelInfo>> {
        let asked = format!("{provider}/{model}");
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&asked) {
            return known.clone();
        }
        let found = names(&asked.to_lowercase()).iter().find_map(|key| self.row(key)).map(Arc::new);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KEPT {
            known.clear();
        }
        known.insert(asked, found.clone());
        found
    }

    /// The row of a key, through other names, own fields over the others.
    fn row(&self, key: &str) -> Option<ModelInfo> {
        let mut key = key.to_owned();
        // Names may lead to names, but not in circles.
        for _ in 0..4 {
            let own = self.own.get(&key);
            if let Some(Value::String(other)) = own {
                key = other.to_lowercase();
                continue;
            }
            let base = match self.line(&key) {
                Some(Value::String(other)) if own.is_none() => {
                    key = other;
                    continue;
                }
                Some(Value::Object(row)) => Some(row),
                _ => None,
            };
            return self.laid_over(&key, base).ok().flatten();
        }
        None
    }

    /// A row with the user's own fields over it; `None` when there is neither.
    fn laid_over(&self, key: &str, base: Option<Map<String, Value>>) -> Result<Option<ModelInfo>, String> {
        let own = self.own.get(key).and_then(Value::as_object);
        let mut row = match (base, own) {
            (None, None) => return Ok(None),
            (base, _) => base.unwrap_or_default(),
        };
        for (name, value) in own.into_iter().flatten() {
            row.insert(name.clone(), value.clone());
        }
        if own.is_some_and(|own| own.contains_key("prices") && !own.contains_key("sources")) {
            let sources = row.entry("sources").or_insert_with(|| Value::Object(Map::new()));
            if let Some(sources) = sources.as_object_mut() {
                sources.insert("prices".to_owned(), "your own".into());
            }
        }
        let empty = BTreeMap::new();
        ModelInfo::read(key, row, self.releases().as_ref().unwrap_or(&empty)).map(Some)
    }

    fn line(&self, key: &str) -> Option<Value> {
        // A key with these could not be told from the text around it.
        if self.releases().is_err() || key.contains(['"', '\\', '\n']) {
            return None;
        }
        serde_json::from_str(&self.text.as_ref()?.row(key).ok()??).ok()
    }

    /// The sources' releases, from the header; an error says why the text cannot be used.
    fn releases(&self) -> &Result<BTreeMap<String, String>, String> {
        self.releases.get_or_init(|| {
            let Some(text) = &self.text else { return Ok(BTreeMap::new()) };
            let line = text.header().map_err(|error| error.to_string())?;
            let header: Header =
                serde_json::from_str(&format!("{line}}}}}")).map_err(|error| format!("line 1: {error}"))?;
            match header.format == FORMAT {
                true => Ok(header.sources),
                false => Err(format!("`format`: {} is unknown, {FORMAT} is expected", header.format)),
            }
        })
    }

    /// Why the catalogue cannot be read, if it cannot; every model of it is unknown then.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.releases().as_ref().err().map(String::as_str)
    }

    /// Every row, sorted by key, without other names.
    ///
    /// # Errors
    /// `config` naming the line and key of what cannot be read.
    pub fn all(&self) -> Result<Vec<ModelInfo>, LlmError> {
        let mut found = BTreeMap::new();
        let wrong = |reason: String| LlmError::config("catalog", reason);
        if let Some(text) = &self.text {
            let whole = text.whole().map_err(|error| wrong(error.to_string()).with_source(error))?;
            rows(&whole, |key, value| match value {
                // A text of one's own makes another name of the row.
                Value::Object(row) if !self.own.get(key).is_some_and(Value::is_string) => {
                    found.insert(key.to_owned(), self.laid_over(key, Some(row))?);
                    Ok(())
                }
                _ => Ok(()),
            })?;
        }
        for (key, _) in self.own.iter().filter(|(_, value)| value.is_object()) {
            if !found.contains_key(key) {
                let row = self.laid_over(key, None).map_err(|reason| wrong(format!("`{key}`: {reason}")))?;
                found.insert(key.clone(), row);
            }
        }
        Ok(found.into_values().flatten().collect())
    }

    /// Checks a whole text of the shipped layout: header, order, every row and every other name. Gives the number of
    /// models.
    ///
    /// # Errors
    /// `config` naming the line, the key and what is wrong.
    pub fn check(text: &str) -> Result<usize, LlmError> {
        let catalog = Self::from_bytes(text.as_bytes().to_vec());
        if let Some(problem) = catalog.problem() {
            return Err(LlmError::config("catalog", problem.to_owned()));
        }
        let mut count = 0;
        let mut links = Vec::new();
        rows(text, |key, value| {
            check(key, &value, &BTreeMap::new())?;
            match value {
                Value::String(other) => links.push((key.to_owned(), other)),
                _ => count += 1,
            }
            Ok(())
        })?;
        for (key, other) in links {
            if catalog.row(&other).is_none() {
                return Err(LlmError::config(
                    "catalog",
                    format!("`{key}` names `{other}`, which has no row"),
                ));
            }
        }
        Ok(count)
    }

    /// Prices what a deployment answers, by the model that answered or else the one that was asked for.
    #[must_use]
    pub fn pricing(self: &Arc<Self>, provider: &str, model: &str) -> Arc<dyn Pricing> {
        Arc::new(Deployment {
            catalog: Arc::clone(self),
            provider: provider.to_owned(),
            model: model.to_owned(),
            usual: OnceLock::new(),
        })
    }
}

/// Goes through the rows of a text, checking layout and order; `visit` says what is wrong with a row.
fn rows(text: &str, mut visit: impl FnMut(&str, Value) -> Result<(), String>) -> Result<(), LlmError> {
    let mut before = String::new();
    let mut closed = false;
    for (number, line) in text.lines().enumerate().skip(1) {
        let wrong = |reason: String| LlmError::config("catalog", format!("line {}: {reason}", number + 1));
        if line == "}}" {
            closed = true;
            continue;
        }
        let row = self::text::split(line).filter(|_| !closed);
        let (key, value) = row.ok_or_else(|| wrong("is no row `\"provider/model\":{...},`".to_owned()))?;
        if key <= before.as_str() {
            return Err(wrong(format!("`{key}` must not come after `{before}`")));
        }
        let value: Value = serde_json::from_str(value).map_err(|error| wrong(format!("`{key}`: {error}")))?;
        visit(key, value).map_err(|reason| wrong(format!("`{key}`: {reason}")))?;
        key.clone_into(&mut before);
    }
    match closed {
        true => Ok(()),
        false => {
            Err(LlmError::config("catalog", "the file ends before its last line, which is `}}`".to_owned()))
        }
    }
}

/// Whether a row or another name is well formed.
fn check(key: &str, value: &Value, releases: &BTreeMap<String, String>) -> Result<(), String> {
    match key.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {}
        _ => return Err("a key is written as `provider/model`".to_owned()),
    }
    match value {
        Value::String(_) => Ok(()),
        Value::Object(row) => ModelInfo::read(key, row.clone(), releases).map(drop),
        _ => Err("is neither a row nor another name".to_owned()),
    }
}

/// The keys a name may stand under, the most precise first.
fn names(key: &str) -> Vec<String> {
    let mut names = vec![key.to_owned()];
    let (provider, model) = key.split_once('/').unwrap_or(("", key));
    let mut model = model;
    if let Some(tuned) = model.strip_prefix("ft:") {
        let kind = tuned.split(':').next().unwrap_or(tuned);
        names.push(format!("{provider}/ft:{kind}"));
        // The price of a tuned copy is not that of its parent, so no further name is tried.
        return names;
    }
    if let Some(undated) = without_date(model) {
        names.push(format!("{provider}/{undated}"));
        model = undated;
    }
    if let Some(plain) = model.strip_suffix("-latest") {
        names.push(format!("{provider}/{plain}"));
    }
    names
}

/// The name before `-2024-08-06`, `-20240806` or `@20240806` at its end.
fn without_date(model: &str) -> Option<&str> {
    let dated = |length: usize| {
        let (name, end) = model.split_at_checked(model.len().checked_sub(length)?)?;
        let digits: String = end.chars().skip(1).filter(|char| *char != '-').collect();
        let (year, rest) = digits.split_at_checked(4)?;
        let (month, day) = rest.split_at_checked(2)?;
        let written = end.starts_with('-') || (end.starts_with('@') && length == 9);
        (written && !name.is_empty() && year.starts_with("20")).then_some(())?;
        Day::parse(&format!("{year}-{month}-{day}")).map(|_| name)
    };
    dated(11).or_else(|| dated(9))
}

struct Deployment {
    catalog: Arc<Catalog>,
    provider: String,
    model: String,
    /// The name in the first answer to a call for the deployment's own model, and its row, so that it is looked up once.
    usual: OnceLock<(String, Option<Arc<ModelInfo>>)>,
}

impl Deployment {
    fn look_up(&self, asked: &str, answered: &str) -> Option<Arc<ModelInfo>> {
        // Gateways sell variants of a model (`name:free`) and answer with its bare name.
        let is_variant = asked.strip_prefix(answered).is_some_and(|rest| rest.starts_with(':'));
        let names = if is_variant { [asked, answered] } else { [answered, asked] };
        let mut known = names.into_iter().filter(|name| !name.is_empty());
        known.find_map(|name| self.catalog.get(&self.provider, name))
    }
}

impl Pricing for Deployment {
    fn cost(
        &self,
        asked: Option<&str>,
        answered: &str,
        usage: &Usage,
        service_tier: Option<&str>,
    ) -> Option<Cost> {
        let facts = || PriceFacts::at(SystemTime::now()).with_service_tier(service_tier);
        let asked = asked.unwrap_or(&self.model);
        if asked == self.model {
            let usual = || (answered.to_owned(), self.look_up(asked, answered));
            let (name, info) = self.usual.get_or_init(usual);
            if name == answered {
                return info.as_ref()?.cost(usage, &facts());
            }
        }
        self.look_up(asked, answered)?.cost(usage, &facts())
    }
}

#[cfg(test)]
mod tests;
