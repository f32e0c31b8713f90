//! What an answer cost: an exact sum and its parts.

use std::borrow::Cow;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};

use super::response::Usage;

/// What is counted and priced.
///
/// ```
/// use liter_llm::Unit;
///
/// assert_eq!(Unit::named("cache_read"), Some(Unit::CacheRead));
/// assert_eq!((Unit::Input.as_str(), Unit::Input.per(), Unit::Requests.per()), ("input", 1_000_000, 1_000));
/// assert!(Unit::ALL.contains(&Unit::WebSearches));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unit {
    /// Input tokens that are none of the following kinds.
    Input,
    /// Output tokens that are none of the following kinds.
    Output,
    /// Input tokens read from the provider's prompt cache.
    CacheRead,
    /// Input tokens written to the prompt cache for five minutes, or for the provider's only time.
    #[serde(rename = "cache_write_5m")]
    CacheWrite5m,
    /// Input tokens written to the prompt cache for an hour.
    #[serde(rename = "cache_write_1h")]
    CacheWrite1h,
    /// Audio input tokens.
    AudioInput,
    /// Audio output tokens.
    AudioOutput,
    /// Audio input tokens read from the prompt cache.
    AudioCacheRead,
    /// Image input tokens, where they have a price of their own.
    ImageInput,
    /// Image output tokens.
    ImageOutput,
    /// Image input tokens read from the prompt cache.
    ImageCacheRead,
    /// Reasoning tokens, where they have another price than other output.
    ReasoningOutput,
    /// Requests, priced by the thousand.
    Requests,
    /// Searches the provider made for the answer, priced by the thousand.
    WebSearches,
}

impl Unit {
    /// Every unit.
    pub const ALL: [Self; 14] = [
        Self::Input,
        Self::Output,
        Self::CacheRead,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::AudioInput,
        Self::AudioOutput,
        Self::AudioCacheRead,
        Self::ImageInput,
        Self::ImageOutput,
        Self::ImageCacheRead,
        Self::ReasoningOutput,
        Self::Requests,
        Self::WebSearches,
    ];

    /// The unit's name, as in the catalogue and in a cost's parts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::CacheRead => "cache_read",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::AudioInput => "audio_input",
            Self::AudioOutput => "audio_output",
            Self::AudioCacheRead => "audio_cache_read",
            Self::ImageInput => "image_input",
            Self::ImageOutput => "image_output",
            Self::ImageCacheRead => "image_cache_read",
            Self::ReasoningOutput => "reasoning_output",
            Self::Requests => "requests",
            Self::WebSearches => "web_searches",
        }
    }

    /// The unit of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == name)
    }

    /// How many of it a price is for: a million tokens, a thousand requests or searches.
    #[must_use]
    pub const fn per(self) -> u32 {
        match self {
            Self::Requests | Self::WebSearches => 1_000,
            _ => 1_000_000,
        }
    }
}

/// One line of a bill.
///
/// ```
/// use std::time::SystemTime;
/// use liter_llm::{Catalog, CostPart, Unit, Usage, catalog::PriceFacts};
///
/// let model = Catalog::shipped().get("openai", "gpt-4o").unwrap();
/// let usage = Usage { input_tokens: 1_000, output_tokens: 1, ..Usage::default() };
/// let cost = model.cost(&usage, &PriceFacts::at(SystemTime::now())).unwrap();
/// let CostPart { what, units, price, amount } = cost.parts[0];
/// assert_eq!((what, units), (Unit::Input, 1_000));
/// assert_eq!(amount.to_string().parse::<f64>().unwrap(), price.to_string().parse::<f64>().unwrap() / 1_000.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostPart {
    /// What was counted.
    pub what: Unit,
    /// How many.
    pub units: u64,
    /// US dollars for [`per`](Unit::per) of them.
    #[serde(with = "rust_decimal::serde::str")]
    pub price: Decimal,
    /// US dollars: `units * price / per`, times the bill's factor if there is one.
    #[serde(with = "rust_decimal::serde::str")]
    pub amount: Decimal,
}

/// What an answer cost, by the catalogue's prices, in US dollars. Amounts are exact and stand in JSON as text.
///
/// ```
/// use liter_llm::Cost;
///
/// let cost: Cost = serde_json::from_str(
///     r#"{"total": "0.0045", "parts": [], "currency": "USD", "price_source": "openai/gpt-4o"}"#,
/// )
/// .unwrap();
/// assert_eq!(cost.total.to_string(), "0.0045");
/// assert_eq!(cost.dollars(), Some(0.0045));
/// assert!(cost.paid_before().total.is_zero());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The sum of the parts.
    #[serde(with = "rust_decimal::serde::str")]
    pub total: Decimal,
    /// What was used, one part for each price; empty when nothing was consumed (an answer from the response cache).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<CostPart>,
    /// The currency.
    pub currency: Cow<'static, str>,
    /// The catalogue's row and where its prices come from.
    pub price_source: String,
}

impl Cost {
    /// The sum as a floating-point number, for metrics; bills are to use [`total`](Self::total).
    #[must_use]
    pub fn dollars(&self) -> Option<f64> {
        self.total.to_f64()
    }

    /// The cost of an answer for which nothing was consumed: it had been paid before.
    #[must_use]
    pub fn paid_before(self) -> Self {
        Self { total: Decimal::ZERO, parts: Vec::new(), ..self }
    }
}

/// Prices what one deployment answers.
///
/// ```
/// use liter_llm::{Cost, Pricing, Usage};
///
/// struct Free;
///
/// impl Pricing for Free {
///     fn cost(&self, _: Option<&str>, _: &str, _: &Usage, _: Option<&str>) -> Option<Cost> {
///         serde_json::from_str(r#"{"total": "0", "currency": "USD", "price_source": "free"}"#).ok()
///     }
/// }
///
/// assert!(Free.cost(None, "my-model", &Usage::default(), None).unwrap().total.is_zero());
/// ```
pub trait Pricing: Send + Sync {
    /// The cost of an answer; `None` when the model or the price of something it used is not known.
    ///
    /// `asked` is the model the call named, `None` for the deployment's own; `answered` the one that answered, in the
    /// provider's words; `service_tier` as the provider states it.
    fn cost(
        &self,
        asked: Option<&str>,
        answered: &str,
        usage: &Usage,
        service_tier: Option<&str>,
    ) -> Option<Cost>;
}
