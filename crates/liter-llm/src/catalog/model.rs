//! What is known of one model: limits, modalities, features and prices; what an answer of it costs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::moment::{Day, Moment};
use super::prices::PriceEntry;
use crate::core::cost::{Cost, CostPart, Unit};
use crate::core::request::unknown_name;
use crate::core::response::Usage;

/// Numbers of tokens; `None` where no source says.
///
/// ```
/// use liter_llm::Catalog;
///
/// let limits = Catalog::shipped().get("openai", "gpt-4o").unwrap().limits;
/// assert_eq!((limits.context, limits.output), (Some(128_000), Some(16_384)));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The context window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// The most input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// The most output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// The length of an embedding, in numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
}

/// What goes into a model or comes out of it.
///
/// ```
/// use liter_llm::{Catalog, catalog::Modality};
///
/// assert!(Catalog::shipped().get("openai", "gpt-4o").unwrap().input.contains(&Modality::Image));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Modality {
    /// Text.
    Text,
    /// Pictures.
    Image,
    /// PDF and the like.
    Document,
    /// Speech and sound.
    Audio,
    /// Moving pictures.
    Video,
}

/// Something a request may need a model to be able to do.
///
/// ```
/// use liter_llm::catalog::Feature;
///
/// assert_eq!(Feature::JsonSchema.as_str(), "json_schema");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Feature {
    /// Calling tools.
    Tools,
    /// Calling several tools at once.
    ParallelTools,
    /// Output that keeps to a JSON schema.
    JsonSchema,
    /// Reasoning before the answer.
    Reasoning,
    /// The provider's prompt cache.
    PromptCaching,
    /// Searching the web.
    WebSearch,
    /// Using a computer.
    ComputerUse,
    /// Pictures in the prompt.
    ImageInput,
    /// Documents in the prompt.
    DocumentInput,
    /// Audio in the prompt.
    AudioInput,
    /// Video in the prompt.
    VideoInput,
    /// Audio in the answer.
    AudioOutput,
    /// Log probabilities.
    Logprobs,
    /// Whether copies can be fine-tuned.
    FineTunable,
}

impl Feature {
    /// The feature's name in the catalogue.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::ParallelTools => "parallel_tools",
            Self::JsonSchema => "json_schema",
            Self::Reasoning => "reasoning",
            Self::PromptCaching => "prompt_caching",
            Self::WebSearch => "web_search",
            Self::ComputerUse => "computer_use",
            Self::ImageInput => "image_input",
            Self::DocumentInput => "document_input",
            Self::AudioInput => "audio_input",
            Self::VideoInput => "video_input",
            Self::AudioOutput => "audio_output",
            Self::Logprobs => "logprobs",
            Self::FineTunable => "fine_tunable",
        }
    }
}

/// What a request needs of the model that shall answer it.
///
/// ```
/// use liter_llm::{Catalog, catalog::{Feature, Need}};
///
/// let model = Catalog::shipped().get("openai", "gpt-4o").unwrap();
/// assert_eq!(model.supports(Need::Feature(Feature::Tools)), Some(true));
/// assert_eq!(model.supports(Need::Context(1_000_000)), Some(false));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A feature.
    Feature(Feature),
    /// Room for so many input and output tokens in the context window.
    Context(u64),
    /// So many output tokens.
    Output(u64),
}

/// Facts about a call, besides its usage, that decide which prices hold.
///
/// ```
/// use std::time::SystemTime;
/// use liter_llm::catalog::PriceFacts;
///
/// let facts = PriceFacts::at(SystemTime::now()).with_service_tier(Some("flex"));
/// assert_eq!(facts.mode, Some("flex"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct PriceFacts<'a> {
    /// When it was made.
    pub at: SystemTime,
    /// The way of processing when it is not the ordinary one: `batch`, `flex`, `priority`, ...
    pub mode: Option<&'a str>,
}

impl Default for PriceFacts<'_> {
    fn default() -> Self {
        Self { at: SystemTime::now(), mode: None }
    }
}

impl<'a> PriceFacts<'a> {
    /// An ordinary call at a time.
    #[must_use]
    pub const fn at(at: SystemTime) -> Self {
        Self { at, mode: None }
    }

    /// The way of processing that a provider's service tier stands for.
    #[must_use]
    pub fn with_service_tier(mut self, tier: Option<&'a str>) -> Self {
        // Names for the ordinary way: OpenAI's, Anthropic's and Groq's.
        let ordinary = ["", "default", "auto", "standard", "standard_only", "on_demand"];
        self.mode = tier.filter(|tier| !ordinary.contains(tier));
        self
    }
}

/// One row of the catalogue.
///
/// ```
/// use std::time::SystemTime;
/// use liter_llm::{Catalog, Usage, catalog::{Feature, Need, PriceFacts}};
///
/// let model = Catalog::shipped().get("openai", "gpt-4o-2024-08-06").unwrap();
/// assert_eq!((model.provider(), model.model().starts_with("gpt-4o")), ("openai", true));
/// assert_eq!(model.supports(Need::Feature(Feature::Tools)), Some(true));
/// let now = SystemTime::now();
/// assert!(model.prices_at(now).is_some());
/// let usage = Usage { input_tokens: 1_000, output_tokens: 100, ..Usage::default() };
/// let cost = model.cost(&usage, &PriceFacts::at(now)).unwrap();
/// assert_eq!(model.estimate(1_000, 0, 100, now), Some(cost.total));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// `provider/model`, in lower case: the key of the row.
    pub key: String,
    /// `chat`, `responses`, `completion` or `embedding`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Numbers of tokens.
    pub limits: Limits,
    /// What goes in; empty when no source says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<Modality>,
    /// What comes out; empty when no source says, which usually means text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<Modality>,
    /// What it can do and cannot do; absent where no source says.
    pub features: BTreeMap<Feature, bool>,
    /// Prices, oldest first; of those in force the last one counts. Empty: unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prices: Vec<PriceEntry>,
    /// What token prices are multiplied with when the provider worked in this place (`inference_geo`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub geo_factors: BTreeMap<String, Decimal>,
    /// The day the provider takes it away.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub retires: Option<Day>,
    /// Where each group of facts comes from: the source's name and release.
    pub sources: BTreeMap<String, String>,
}

fn as_text<S: serde::Serializer>(day: &Option<Day>, serializer: S) -> Result<S::Ok, S::Error> {
    match day {
        Some(day) => serializer.collect_str(day),
        None => serializer.serialize_none(),
    }
}

impl ModelInfo {
    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> &str {
        self.key.split_once('/').map_or("", |(provider, _)| provider)
    }

    /// The model's name at the provider, in lower case.
    #[must_use]
    pub fn model(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, model)| model)
    }

    /// Whether it can do what a request needs; `None` when no source says.
    #[must_use]
    pub fn supports(&self, need: Need) -> Option<bool> {
        match need {
            Need::Feature(feature) => self.features.get(&feature).copied().or_else(|| {
                let (list, modality) = match feature {
                    Feature::ImageInput => (&self.input, Modality::Image),
                    Feature::DocumentInput => (&self.input, Modality::Document),
                    Feature::AudioInput => (&self.input, Modality::Audio),
                    Feature::VideoInput => (&self.input, Modality::Video),
                    Feature::AudioOutput => (&self.output, Modality::Audio),
                    _ => return None,
                };
                list.contains(&modality).then_some(true)
            }),
            Need::Context(tokens) => self.limits.context.map(|most| tokens <= most),
            Need::Output(tokens) => self.limits.output.map(|most| tokens <= most),
        }
    }

    /// The prices in force at a moment.
    #[must_use]
    pub fn prices_at(&self, at: SystemTime) -> Option<&PriceEntry> {
        let moment = Moment::at(at);
        self.prices.iter().rev().find(|entry| entry.is_active(moment)).or_else(|| self.prices.first())
    }

    /// What a usage costs. `None` when nothing was counted, when its counts contradict each other, and when the price
    /// of anything in it is not known: an unknown price is never taken for zero.
    #[must_use]
    pub fn cost(&self, usage: &Usage, facts: &PriceFacts<'_>) -> Option<Cost> {
        if usage.input_tokens == 0 && usage.output_tokens == 0 {
            return None;
        }
        let entry = self.prices_at(facts.at)?;
        let fast = said(usage, "speed").filter(|speed| speed == "fast");
        let mode = match facts.mode.or(fast.as_deref()) {
            Some(mode) => Some(entry.modes.get(mode)?),
            None => None,
        };
        let factor = match said(usage, "inference_geo") {
            Some(place) => self.geo_factors.get(&place).copied(),
            None => None,
        };
        let price = |unit| entry.price(mode, unit, usage.input_tokens);
        let mut bill = Bill { factor, parts: Vec::with_capacity(3) };

        let long_writes = usage.cache_creation_1h_input_tokens;
        let short_writes = usage.cache_creation_input_tokens.checked_sub(long_writes)?;
        let special = [
            (Unit::CacheRead, usage.cache_read_input_tokens),
            (Unit::CacheWrite5m, short_writes),
            (Unit::CacheWrite1h, long_writes),
            (Unit::AudioInput, usage.audio_input_tokens),
        ];
        let mut rest = usage.input_tokens;
        for (_, count) in special {
            rest = rest.checked_sub(count)?;
        }
        bill.add(Unit::Input, rest, price)?;
        for (unit, count) in special {
            bill.add(unit, count, price)?;
        }

        let reasoning = match price(Unit::ReasoningOutput) {
            Some(_) => usage.reasoning_output_tokens,
            None => 0,
        };
        let special = [(Unit::ReasoningOutput, reasoning), (Unit::AudioOutput, usage.audio_output_tokens)];
        let mut rest = usage.output_tokens;
        for (_, count) in special {
            rest = rest.checked_sub(count)?;
        }
        bill.add(Unit::Output, rest, price)?;
        for (unit, count) in special {
            bill.add(unit, count, price)?;
        }
        if price(Unit::Requests).is_some() {
            bill.add(Unit::Requests, 1, price)?;
        }
        bill.add(Unit::WebSearches, usage.web_search_requests, price)?;
        bill.sum(self)
    }

    /// What a call will cost about, for choosing among models before it is made: so many input tokens, of which some
    /// will come from the prompt cache, and so many output tokens, at ordinary prices. `None` when a price is unknown.
    #[must_use]
    pub fn estimate(
        &self,
        input_tokens: u64,
        cached_tokens: u64,
        output_tokens: u64,
        at: SystemTime,
    ) -> Option<Decimal> {
        let entry = self.prices_at(at)?;
        let price = |unit| entry.price(None, unit, input_tokens);
        let mut bill = Bill { factor: None, parts: Vec::new() };
        let cached = match price(Unit::CacheRead) {
            Some(_) => cached_tokens.min(input_tokens),
            None => 0,
        };
        bill.add(Unit::Input, input_tokens - cached, price)?;
        bill.add(Unit::CacheRead, cached, price)?;
        bill.add(Unit::Output, output_tokens, price)?;
        if price(Unit::Requests).is_some() {
            bill.add(Unit::Requests, 1, price)?;
        }
        bill.parts.iter().try_fold(Decimal::ZERO, |sum, part| sum.checked_add(part.amount))
    }
}

/// A word of the provider's in the usage it stated.
fn said(usage: &Usage, name: &str) -> Option<String> {
    match usage.extra.is_empty() {
        true => None,
        false => usage.extra.get(name)?.as_string(),
    }
}

/// A bill as it is written.
struct Bill {
    factor: Option<Decimal>,
    parts: Vec<CostPart>,
}

impl Bill {
    /// Adds a line for what was used; `None` when its price is unknown or the amount cannot be written exactly.
    fn add(&mut self, what: Unit, units: u64, price: impl Fn(Unit) -> Option<Decimal>) -> Option<()> {
        if units == 0 {
            return Some(());
        }
        let price = price(what)?;
        let per = what.per();
        let mut amount = price.checked_mul(Decimal::from(units))?;
        // Only the point moves, where a division would round.
        amount.set_scale(amount.scale() + if per == 1_000 { 3 } else { 6 }).ok()?;
        if let Some(factor) = self.factor
            && per == 1_000_000
        {
            amount = amount.checked_mul(factor)?;
        }
        self.parts.push(CostPart { what, units, price, amount: amount.normalize() });
        Some(())
    }

    fn sum(self, model: &ModelInfo) -> Option<Cost> {
        let total = self.parts.iter().try_fold(Decimal::ZERO, |sum, part| sum.checked_add(part.amount))?;
        let source = model.sources.get("prices").map_or("", String::as_str);
        Some(Cost {
            total: total.normalize(),
            parts: self.parts,
            currency: Cow::Borrowed("USD"),
            price_source: [source, ": ", &model.key].concat(),
        })
    }
}

const FIELDS: &[&str] =
    &["kind", "limits", "input", "output", "features", "prices", "geo_factors", "retires", "sources"];

impl ModelInfo {
    /// Reads a row from its JSON form. `releases` tells the release of each source.
    pub(super) fn read(
        key: &str,
        mut row: Map<String, Value>,
        releases: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        if let Some(name) = row.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(format!("`{name}` {}", unknown_name(name, FIELDS, "see the catalogue's schema")));
        }
        let mut info = Self { key: key.to_owned(), ..Self::default() };
        info.kind = typed(&mut row, "kind")?;
        info.limits = typed(&mut row, "limits")?;
        info.input = typed(&mut row, "input")?;
        info.output = typed(&mut row, "output")?;
        info.features = typed(&mut row, "features")?;
        for entry in typed::<Vec<Value>>(&mut row, "prices")? {
            info.prices.push(PriceEntry::read(&entry)?);
        }
        for (place, factor) in typed::<BTreeMap<String, String>>(&mut row, "geo_factors")? {
            let factor = Decimal::from_str_exact(&factor)
                .map_err(|_| format!("`geo_factors`: \"{factor}\" is not a decimal number"))?;
            info.geo_factors.insert(place, factor);
        }
        if let Some(text) = typed::<Option<String>>(&mut row, "retires")? {
            let day = Day::parse(&text).ok_or_else(|| format!("`retires`: \"{text}\" is not a day"))?;
            info.retires = Some(day);
        }
        for (group, source) in typed::<BTreeMap<String, String>>(&mut row, "sources")? {
            let told = match releases.get(&source) {
                Some(release) => format!("{source} {release}"),
                None => source,
            };
            info.sources.insert(group, told);
        }
        Ok(info)
    }
}

fn typed<T: serde::de::DeserializeOwned + Default>(
    row: &mut Map<String, Value>,
    name: &str,
) -> Result<T, String> {
    match row.remove(name) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => serde_json::from_value(value).map_err(|error| format!("`{name}`: {error}")),
    }
}
