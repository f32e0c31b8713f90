//! What the catalogue says of a deployment's model, in the form in which routers need it: quickly.

use std::sync::Arc;
use std::time::SystemTime;

use rust_decimal::prelude::ToPrimitive;

use crate::catalog::{Feature, ModelInfo, Need, PriceFacts};
use crate::core::response::Usage;
use crate::core::route::{Capabilities, Pricing};
use crate::routing::needs;

/// A million tokens.
const MILLION: u64 = 1_000_000;

/// Up to this many input tokens no known model asks a higher price for a longer input.
const SHORT: u64 = 30_000;

/// The needs of requests, and the features that meet them.
const FEATURES: [(u32, Feature); 8] = [
    (needs::TOOLS, Feature::Tools),
    (needs::PARALLEL_TOOLS, Feature::ParallelTools),
    (needs::SCHEMA, Feature::JsonSchema),
    (needs::IMAGE_INPUT, Feature::ImageInput),
    (needs::DOCUMENT_INPUT, Feature::DocumentInput),
    (needs::AUDIO_INPUT, Feature::AudioInput),
    (needs::REASONING, Feature::Reasoning),
    (needs::LOGPROBS, Feature::Logprobs),
];

/// A row of the catalogue, with the two prices that estimates need most at hand.
pub(crate) struct Listed {
    model: Arc<ModelInfo>,
    /// US dollars for one input and one output token of a short request, as of now; `None` when they cannot be told
    /// for all times of the day.
    short: Option<(f64, f64)>,
}

impl Listed {
    pub fn new(model: Arc<ModelInfo>) -> Self {
        let now = SystemTime::now();
        let each = |input, output| {
            // Priced as parts of a short request: a long one may be in another tier.
            let sum = model.estimate(input, 0, output, now)?;
            let none = model.estimate(0, 0, 0, now)?;
            (sum - none).to_f64()
        };
        #[allow(clippy::cast_precision_loss, reason = "30,000 fits")]
        let input = each(SHORT, 0).map(|price| price / SHORT as f64);
        #[allow(clippy::cast_precision_loss, reason = "a million fits")]
        let output = each(0, MILLION).map(|price| price / MILLION as f64);
        let by_the_request = model.estimate(0, 0, 0, now).is_none_or(|price| !price.is_zero());
        let timeless = model.prices.iter().all(|entry| entry.hours.is_none()) && !by_the_request;
        let short = input.zip(output).filter(|_| timeless);
        Self { model, short }
    }

    pub fn capabilities(&self) -> Capabilities {
        let mut found = Capabilities {
            context: self.model.limits.context,
            output: self.model.limits.output,
            ..Capabilities::default()
        };
        for (need, feature) in FEATURES {
            if let Some(able) = self.model.supports(Need::Feature(feature)) {
                found.known |= need;
                found.can |= if able { need } else { 0 };
            }
        }
        found
    }
}

impl Pricing for Listed {
    fn estimate(&self, input_tokens: u64, output_tokens: u64) -> Option<f64> {
        match self.short {
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            Some((input, output)) if input_tokens <= SHORT => {
                Some(input.mul_add(input_tokens as f64, output * output_tokens as f64))
            }
            _ => self.model.estimate(input_tokens, 0, output_tokens, SystemTime::now())?.to_f64(),
        }
    }

    fn cost(&self, usage: &Usage) -> Option<f64> {
        self.model.cost(usage, &PriceFacts::default())?.total.to_f64()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn the_quick_estimate_is_the_exact_one() {
        let catalog = Catalog::shipped();
        let mut quick = 0;
        for model in catalog.all().unwrap() {
            let listed = Listed::new(Arc::new(model));
            quick += usize::from(listed.short.is_some());
            for (input, output) in [(10, 10), (SHORT, 500), (SHORT + 1, 500), (400_000, 1)] {
                let exact = listed.model.estimate(input, 0, output, SystemTime::now());
                match (listed.estimate(input, output), exact.and_then(|exact| exact.to_f64())) {
                    (Some(estimate), Some(exact)) => {
                        assert!((estimate - exact).abs() <= 1e-9, "{}", listed.model.key);
                    }
                    (estimate, exact) => assert_eq!(estimate, exact, "{}", listed.model.key),
                }
            }
        }
        assert!(quick > 1_000);
    }

    #[test]
    fn known_needs_are_told() {
        let model = Catalog::shipped().get("openai", "gpt-4o-mini").unwrap();
        let able = Listed::new(model).capabilities();
        assert_ne!(able.can & needs::TOOLS & able.known, 0);
        assert_eq!(able.context, Some(128_000));
    }
}
