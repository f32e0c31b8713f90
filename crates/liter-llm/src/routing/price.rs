//! Prices that stand in the configuration.

use std::borrow::Cow;

use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;
use serde::Deserialize;

use super::money::Money;
use crate::core::cost::{self, Cost, CostPart, Unit};
use crate::core::error::LlmError;
use crate::core::response::Usage;
use crate::core::route::Pricing;

const MILLION: u64 = 1_000_000;

/// What a deployment charges, in US dollars for a million tokens.
///
/// ```
/// use liter_llm::{PriceOptions, ProviderConfig};
///
/// let price = PriceOptions { input: 0.5, output: 1.5, ..PriceOptions::default() };
/// price.validate()?;
/// let config = ProviderConfig { price: Some(price), ..ProviderConfig::new("ollama") };
/// # drop(config);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceOptions {
    /// Input.
    pub input: f64,
    /// Output, reasoning included.
    pub output: f64,
    /// Input read from the provider's prompt cache; default as `input`.
    pub cache_read: Option<f64>,
    /// Input written to the provider's prompt cache; default as `input`.
    pub cache_write: Option<f64>,
}

impl PriceOptions {
    /// Checks that these are prices.
    ///
    /// # Errors
    /// `config` naming the price.
    pub fn validate(&self) -> Result<(), LlmError> {
        let all = [
            ("input", Some(self.input)),
            ("output", Some(self.output)),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
        ];
        match all.iter().find_map(|(name, price)| {
            price.filter(|price| !(0.0..=1e6).contains(price)).map(|price| (name, price))
        }) {
            Some((name, price)) => Err(LlmError::config(
                "price",
                format!(
                    "`price`: `{name}`: {price} is no price in US dollars for a million tokens (0 to 1,000,000)"
                ),
            )),
            None => Ok(()),
        }
    }
}

/// A price list of four prices.
#[derive(Debug, Clone, Copy)]
pub struct ListPrice {
    input: Money,
    output: Money,
    cache_read: Money,
    cache_write: Money,
}

impl From<PriceOptions> for ListPrice {
    fn from(options: PriceOptions) -> Self {
        let money = |usd: f64| Money::from_usd(usd).unwrap_or_default();
        Self {
            input: money(options.input),
            output: money(options.output),
            cache_read: money(options.cache_read.unwrap_or(options.input)),
            cache_write: money(options.cache_write.unwrap_or(options.input)),
        }
    }
}

impl Pricing for ListPrice {
    fn estimate(&self, input_tokens: u64, output_tokens: u64) -> Option<f64> {
        let input = self.input.times(input_tokens, MILLION);
        Some(input.plus(self.output.times(output_tokens, MILLION)).usd())
    }

    fn cost(&self, usage: &Usage) -> Option<f64> {
        let (read, written) = (usage.cache_read_input_tokens, usage.cache_creation_input_tokens);
        let plain = usage.input_tokens.saturating_sub(read).saturating_sub(written);
        let parts = [
            self.input.times(plain, MILLION),
            self.cache_read.times(read, MILLION),
            self.cache_write.times(written, MILLION),
            self.output.times(usage.output_tokens, MILLION),
        ];
        Some(parts.into_iter().fold(Money::ZERO, Money::plus).usd())
    }

    fn is_own(&self) -> bool {
        true
    }
}

/// The prices of a deployment's own model, for the bill of an answer.
#[derive(Debug, Clone)]
pub struct OwnPrice {
    prices: [(Unit, Decimal); 4],
    /// The names by which calls may name that model.
    names: Vec<String>,
}

impl OwnPrice {
    /// These prices for the model of these names. Calls that name another model have no known price.
    #[must_use]
    pub fn new(options: PriceOptions, names: Vec<String>) -> Self {
        let price = |usd: f64| Decimal::from_f64(usd).unwrap_or_default();
        let prices = [
            (Unit::Input, price(options.input)),
            (Unit::CacheRead, price(options.cache_read.unwrap_or(options.input))),
            (Unit::CacheWrite5m, price(options.cache_write.unwrap_or(options.input))),
            (Unit::Output, price(options.output)),
        ];
        Self { prices, names }
    }
}

impl cost::Pricing for OwnPrice {
    fn cost(&self, asked: Option<&str>, _: &str, usage: &Usage, _: Option<&str>) -> Option<Cost> {
        if asked.is_some_and(|asked| !self.names.iter().any(|name| name == asked)) {
            return None;
        }
        let (read, written) = (usage.cache_read_input_tokens, usage.cache_creation_input_tokens);
        let plain = usage.input_tokens.saturating_sub(read).saturating_sub(written);
        let counts = [plain, read, written, usage.output_tokens];
        let parts: Vec<_> = self
            .prices
            .iter()
            .zip(counts)
            .filter(|(_, units)| *units > 0)
            .map(|(&(what, price), units)| {
                let amount = price * Decimal::from(units) / Decimal::from(what.per());
                CostPart { what, units, price, amount }
            })
            .collect();
        Some(Cost {
            total: parts.iter().map(|part| part.amount).sum(),
            parts,
            currency: Cow::Borrowed("USD"),
            price_source: "configuration".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_input_has_its_own_price() {
        let options =
            PriceOptions { input: 3.0, output: 15.0, cache_read: Some(0.3), cache_write: Some(3.75) };
        let price = ListPrice::from(options);
        let usage = Usage {
            input_tokens: 1_000,
            output_tokens: 100,
            cache_read_input_tokens: 600,
            cache_creation_input_tokens: 300,
            ..Usage::default()
        };
        // 100 x 3 + 600 x 0.3 + 300 x 3.75 + 100 x 15, by the million
        assert_eq!(price.cost(&usage), Some(0.003_105));
        assert_eq!(price.estimate(1_000, 100), Some(0.0045));
        let own = OwnPrice::new(options, vec!["m".to_owned()]);
        let bill = cost::Pricing::cost(&own, None, "answered", &usage, Some("priority"));
        assert_eq!(bill.as_ref().and_then(Cost::dollars), Some(0.003_105));
        assert_eq!(bill.map(|bill| bill.parts.len()), Some(4));
        assert!(cost::Pricing::cost(&own, Some("m"), "", &usage, None).is_some());
        assert!(cost::Pricing::cost(&own, Some("another"), "", &usage, None).is_none());
        assert!(options.validate().is_ok());
        let wrong = PriceOptions { output: -1.0, ..options };
        assert!(wrong.validate().is_err_and(|error| error.to_string().contains("`output`: -1")));
    }
}
